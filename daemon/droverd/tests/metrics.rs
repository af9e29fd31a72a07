//! `docs/metrics.md` and the code tell the same, and a real master's page tells what happens to it.

#![allow(clippy::unwrap_used, reason = "helpers beside the tests panic as the tests do")]

mod support;

use drover_telemetry::Instrument;
use std::collections::{BTreeMap, BTreeSet};
use support::{Master, eventually};

const PAGE: &str = include_str!("../../../docs/metrics.md");

/// The rows that the code asks for, as they stand in the document.
fn rows() -> BTreeMap<&'static str, String> {
    let tables: [&[&dyn Instrument]; 3] = [drover_master::METRICS, drover_agent::METRICS, drover_telemetry::PROCESS];
    let mut rows = BTreeMap::new();
    for about in tables.into_iter().flatten().map(|instrument| instrument.about()) {
        let labels: Vec<String> = about.labels.iter().map(|label| format!("`{label}`")).collect();
        let row = format!("| `{}` | {} | {} | {} |", about.name, about.kind.word(), labels.join(", "), about.help);
        assert!(rows.insert(about.name, row).is_none(), "{} is there twice", about.name);
    }
    rows
}

#[test]
fn the_page_and_the_code_agree() {
    let written: BTreeSet<&str> = PAGE.lines().filter(|line| line.starts_with("| `")).collect();
    let rows = rows();
    let coded: BTreeSet<&str> = rows.values().map(String::as_str).collect();
    let missing: Vec<&&str> = coded.difference(&written).collect();
    let wrong: Vec<&&str> = written.difference(&coded).collect();
    assert!(
        missing.is_empty() && wrong.is_empty(),
        "docs/metrics.md lacks these rows:\n{}\nand has these, which the code does not:\n{}",
        missing.iter().map(|row| **row).collect::<Vec<_>>().join("\n"),
        wrong.iter().map(|row| **row).collect::<Vec<_>>().join("\n")
    );
}

#[test]
fn names_follow_the_convention() {
    let tables: [(&str, &[&dyn Instrument]); 2] =
        [("drover_master_", drover_master::METRICS), ("drover_agent_", drover_agent::METRICS)];
    for (prefix, table) in tables {
        for about in table.iter().map(|instrument| instrument.about()) {
            let name = about.name;
            let is_plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
            assert!(name.starts_with(prefix) && is_plain, "{name}");
            assert_eq!(name.ends_with("_total"), about.kind.word() == "counter", "{name}");
            assert!(
                !["_ms", "_millis", "_minutes", "_kb", "_mb"].iter().any(|unit| name.ends_with(unit)),
                "{name}: base units"
            );
            assert!(about.help.ends_with('.') && about.help.len() < 160, "{name}: {:?}", about.help);
            let unbounded = ["task", "task_id", "app", "app_id", "job", "run", "deployment_id", "path", "request_id"];
            assert!(about.labels.iter().all(|label| !unbounded.contains(label)), "{name} grows with what users make");
        }
    }
}

#[tokio::test]
async fn a_masters_page_tells_what_happens_to_it() {
    let master = Master::start("apps = 1").await;
    let page = master.ask("GET /metrics", &[], b"").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let described: BTreeSet<String> =
        page.text().lines().filter_map(|line| Some(line.strip_prefix("# TYPE ")?.split(' ').next()?.to_owned())).collect();
    let rows = rows();
    let expected: BTreeSet<String> =
        rows.keys().filter(|name| !name.starts_with("drover_agent_")).map(|name| (*name).to_owned()).collect();
    assert_eq!(described, expected, "a master tells all of its own and nothing else");

    let open = master.ask("GET /metrics", &["Accept: application/openmetrics-text; version=1.0.0, */*;q=0.1"], b"").await;
    assert!(open.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    assert!(open.text().ends_with("# EOF\n"));
    assert_eq!(master.ask("GET /metrics", &["Accept: application/json"], b"").await.status, 406);
    assert_eq!(master.ask("POST /metrics", &[], b"").await.status, 405);

    for (series, value) in [
        ("drover_master_raft_is_leader", 1.0),
        ("drover_master_raft_has_leader", 1.0),
        ("drover_master_raft_members{role=\"leader\"}", 1.0),
        ("drover_master_raft_leader_changes_total", 1.0),
        ("drover_master_apps", 0.0),
        ("drover_master_agents{state=\"up\"}", 0.0),
    ] {
        assert_eq!(master.metric(series).await, value, "{series}");
    }
    assert!(master.metric("drover_master_raft_term").await >= 1.0);
    assert!(master.metric("process_resident_memory_bytes").await > 1e6);
    assert!(master.metric("process_open_fds").await > 5.0);
    let applied = master.metric("drover_master_raft_applied_index").await;
    let commits = master.metric("drover_master_raft_commit_seconds_count").await;

    let app = |id: &str| serde_json::json!({ "id": id, "cmd": "sleep 1000", "instances": 2 });
    assert_eq!(master.send("POST /v2/apps", app("/a")).await.status, 201);
    assert_eq!(master.send("POST /v2/apps", app("/b")).await.status, 403, "one is the limit");
    assert_eq!(master.metric("drover_master_apps").await, 1.0);
    assert_eq!(master.metric("drover_master_instances_wanted").await, 2.0);
    assert!(master.metric("drover_master_raft_applied_index").await > applied);
    assert!(master.metric("drover_master_raft_commit_seconds_count").await > commits);
    let answered = |class: &str| {
        format!(
            "drover_master_http_requests_total{{dialect=\"marathon\",method=\"POST\",origin=\"client\",status=\"{class}\"}}"
        )
    };
    assert_eq!(master.metric(&answered("2xx")).await, 1.0);
    // The POST to /metrics counts, too.
    assert_eq!(master.metric(&answered("4xx")).await, 2.0);
    eventually("two tasks wait for an agent", async || {
        (master.metric("drover_master_leader_waiting_tasks").await == 2.0).then_some(())
    })
    .await;
    assert_eq!(master.metric("drover_master_leader_waiting_requests").await, 1.0);
}

#[tokio::test]
async fn every_answer_names_its_request() {
    let master = Master::start("").await;
    let id = |reply: &support::Reply| reply.header("x-request-id").map(str::to_owned);
    let own = master.ask("GET /v2/apps", &["X-Request-Id: my-own.1"], b"").await;
    assert_eq!(id(&own).as_deref(), Some("my-own.1"));
    let traced = ["traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"];
    assert_eq!(id(&master.ask("GET /v2/nonsense", &traced, b"").await).as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
    let long = format!("X-Request-Id: {}", "x".repeat(500));
    let (first, second) = (master.ask("GET /v2/apps", &[&long], b"").await, master.ask("GET /metrics", &[], b"").await);
    let (first, second) = (id(&first).unwrap(), id(&second).unwrap());
    assert!(first.len() < 64 && !first.contains("xx") && first != second, "{first} {second}");
}
