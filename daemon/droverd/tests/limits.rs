//! A real master is driven into each limit of `docs/limits.md`: what its client sees, and that service goes on.

#![allow(clippy::unwrap_used, reason = "helpers beside the tests panic as the tests do")]

mod support;

use serde_json::json;
use support::{Master, Reply, eventually, request, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Service goes on as ever.
async fn works(master: &Master) {
    assert_eq!(master.ask("GET /v2/apps", &[], b"").await.status, 200);
}

fn app(id: &str, instances: u32) -> serde_json::Value {
    json!({ "id": id, "cmd": "sleep 1000", "instances": instances })
}

#[tokio::test]
async fn requests_that_are_too_large() {
    let master = Master::start("head = \"8K\"\nheaders = 10\nbody = \"2K\"\nproposal = \"1K\"").await;
    let long = format!("X-Long: {}", "x".repeat(9000));
    assert_eq!(master.ask("GET /v2/apps", &[&long], b"").await.status, 431);
    let many: Vec<String> = (0..20).map(|n| format!("X-{n}: y")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(master.ask("GET /v2/apps", &many, b"").await.status, 431);
    let path = format!("GET /v2/apps?{}", "x".repeat(9000));
    assert!(matches!(master.ask(&path, &[], b"").await.status, 414 | 431));
    works(&master).await;

    let large = vec![b' '; 3000];
    let refused = master.ask("POST /v2/apps", &[], &large).await;
    assert_eq!((refused.status, refused.header("content-type")), (413, Some("application/json")));
    assert!(refused.json()["message"].as_str().unwrap().contains("2048 bytes"), "{refused:?}");
    let refused = master.ask("POST /drover/v1/tokens", &[], &large).await;
    assert_eq!((refused.status, refused.header("content-type")), (413, Some("application/problem+json")));
    assert_eq!(refused.json()["code"], "D1010");

    // Within the body's limit, and beyond that of a change.
    let mut wordy = app("/wordy", 0);
    wordy["labels"] = json!({ "text": "x".repeat(1500) });
    let refused = master.send("POST /v2/apps", wordy).await;
    assert_eq!(refused.status, 413, "{refused:?}");
    assert!(refused.json()["message"].as_str().unwrap().contains("at most 1024"), "{refused:?}");
    assert_eq!(master.metric("drover_master_raft_proposals_total{outcome=\"too-large\"}").await, 1.0);
    assert_eq!(master.metric("drover_master_limit_refusals_total{limit=\"body\"}").await, 2.0);
    works(&master).await;
}

#[tokio::test]
async fn clients_that_are_too_slow() {
    let times = "head_timeout = \"300ms\"\nbody_timeout = \"300ms\"\nidle_timeout = \"300ms\"\nstall_timeout = \"300ms\"";
    let master = Master::start(&format!("{times}\nevent_backlog = \"1K\"")).await;
    // Nothing said, half a head, a head that drips: closed without an answer, or with 408.
    for begin in ["", "GET /v2/apps HTTP/1.1\r\nHost", "PRI * HT"] {
        let mut stream = master.connect().await;
        stream.write_all(begin.as_bytes()).await.unwrap();
        let reply = Reply::read(&mut stream).await;
        assert!(reply.as_ref().is_none_or(|reply| reply.status == 408), "{begin:?}: {reply:?}");
    }
    // A body that does not come.
    let mut stream = master.connect().await;
    stream.write_all(b"POST /v2/apps HTTP/1.1\r\nHost: m1\r\nContent-Length: 100\r\n\r\n{").await.unwrap();
    let reply = Reply::read(&mut stream).await.unwrap();
    assert_eq!(reply.status, 408, "{reply:?}");
    // A connection kept for nothing.
    let mut stream = master.connect().await;
    stream.write_all(b"GET /ping HTTP/1.1\r\nHost: m1\r\n\r\n").await.unwrap();
    let reply = Reply::read(&mut stream).await.unwrap();
    assert_eq!((reply.status, reply.text().as_str()), (200, "pong"));
    assert!(master.metric("drover_master_connections_ended_total{reason=\"idle\"}").await >= 1.0);

    // A reader that takes nothing of an answer larger than the sockets hold.
    for n in 0..40 {
        let mut wordy = app(&format!("/wordy{n}"), 0);
        wordy["labels"] = json!({ "text": "x".repeat(200_000) });
        assert_eq!(master.send("POST /v2/apps", wordy).await.status, 201);
    }
    let mut stalled = master.connect().await;
    stalled.write_all(&request("GET /v2/apps", &[], b"")).await.unwrap();
    eventually("the reader that takes nothing is cut off", async || {
        (master.metric("drover_master_connections_ended_total{reason=\"stalled\"}").await >= 1.0).then_some(())
    })
    .await;
    let mut taken = Vec::new();
    let _reset = soon("it ends", stalled.read_to_end(&mut taken)).await;
    assert!(taken.len() < 8_000_000, "not all of it arrived: {}", taken.len());

    // A subscriber that takes nothing, while more happens than may wait for it.
    let mut subscriber = master.connect().await;
    subscriber.write_all(&request("GET /v2/events", &["Accept: text/event-stream"], b"")).await.unwrap();
    eventually("it is subscribed", async || (master.metric("drover_master_event_subscribers").await == 1.0).then_some(()))
        .await;
    eventually("it is cut off", async || {
        let mut wordy = app("/wordy0", 0);
        wordy["labels"] = json!({ "text": format!("{}{:?}", "y".repeat(500_000), std::time::Instant::now()) });
        assert_eq!(master.send("PUT /v2/apps/wordy0?force=true", wordy).await.status, 200);
        (master.metric("drover_master_event_subscribers").await == 0.0).then_some(())
    })
    .await;
    works(&master).await;
}

#[tokio::test]
async fn connections_one_too_many() {
    let master = Master::start("connections = 3\nconnections_per_peer = 2\ncluster_connections_per_peer = 1").await;
    let answered = async |mut stream: TcpStream| {
        stream.write_all(&request("GET /ping", &[], b"")).await.unwrap();
        Reply::read(&mut stream).await.unwrap()
    };
    eventually("connections of before are gone", async || {
        let mut stream = master.connect_from("127.0.0.9").await;
        stream.write_all(&request("GET /metrics", &[], b"")).await.unwrap();
        let page = Reply::read(&mut stream).await?.text();
        page.lines().any(|line| line == "drover_master_connections{listener=\"api\"} 1").then_some(())
    })
    .await;
    let held = [master.connect().await, master.connect().await];
    // The connection that asked just now may still be counted, and then all of them are too many.
    let refused = eventually("the third one of a peer is refused as such", async || {
        let refused = answered(master.connect().await).await;
        refused.json()["because"].as_str()?.contains("connections_per_peer").then_some(refused)
    })
    .await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{refused:?}");
    assert_eq!(refused.json()["code"], "D1010");
    let other = master.connect_from("127.0.0.2").await;
    let refused = answered(master.connect_from("127.0.0.3").await).await;
    assert_eq!(refused.status, 503);
    assert!(refused.json()["because"].as_str().unwrap().contains("connections is reached"), "{refused:?}");
    drop(other);
    eventually("the place is free again", async || {
        (answered(master.connect_from("127.0.0.3").await).await.status == 200).then_some(())
    })
    .await;
    drop(held);
    eventually("and this one", async || (answered(master.connect().await).await.status == 200).then_some(())).await;
    works(&master).await;

    // The cluster listener closes the one too many before TLS.
    let first = TcpStream::connect(master.cluster).await.unwrap();
    let mut second = TcpStream::connect(master.cluster).await.unwrap();
    let mut nothing = [0; 1];
    let closed = soon("the second is closed", second.read(&mut nothing)).await;
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    drop(first);
    works(&master).await;
}

#[tokio::test]
async fn requests_and_streams_one_too_many() {
    let master = Master::start("requests = 1\nevent_subscribers = 1\nlog_streams = 1\nevents_buffered = 3").await;
    let mut slow = master.connect().await;
    let body = app("/a", 0).to_string();
    let whole = request("POST /v2/apps", &[], body.as_bytes());
    let (begin, end) = whole.split_at(whole.len() - 5);
    slow.write_all(begin).await.unwrap();
    eventually("the request is in hand", async || {
        // This very scrape is one of them.
        (master.metric("drover_master_http_requests_in_flight").await == 2.0).then_some(())
    })
    .await;
    for (path, kind) in [("GET /v2/apps", "application/json"), ("GET /drover/v1/status", "application/problem+json")] {
        let refused = master.ask(path, &[], b"").await;
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{refused:?}");
        assert_eq!(refused.header("content-type"), Some(kind));
    }
    slow.write_all(end).await.unwrap();
    assert_eq!(Reply::read(&mut slow).await.unwrap().status, 201);
    works(&master).await;

    let job = json!({ "name": "one", "schedule": "R/2030-01-01T00:00:00Z/PT1H", "command": "true" });
    assert_eq!(master.send("POST /v1/scheduler/iso8601", job).await.status, 204);
    let run = master.send("POST /drover/v1/jobs/one/run", json!({})).await.json()["run"]["id"].as_str().unwrap().to_owned();
    // There is no agent: the run waits, and so does whoever follows it.
    let logs = format!("GET /drover/v1/logs?follow=1&run={run}");
    for (path, gauge) in [
        ("GET /v2/events", "drover_master_event_subscribers"),
        ("GET /drover/v1/events", "drover_master_event_subscribers"),
        (logs.as_str(), "drover_master_log_streams"),
    ] {
        let accept = ["Accept: text/event-stream, */*"];
        let mut first = master.connect().await;
        first.write_all(&request(path, &accept, b"")).await.unwrap();
        eventually("the first has its stream", async || (master.metric(gauge).await == 1.0).then_some(())).await;
        let refused = master.ask(path, &accept, b"").await;
        assert_eq!(refused.status, 503, "{path}: {refused:?}");
        drop(first);
        eventually("its place is free again", async || (master.metric(gauge).await == 0.0).then_some(())).await;
    }

    // A client that was away for longer than events are kept is told to look at the state.
    for instances in 1..8 {
        assert_eq!(master.send("PUT /v2/apps/a?force=true", app("/a", instances)).await.status, 200);
    }
    let events = master.ask("GET /drover/v1/events?follow=0", &["Last-Event-ID: 1"], b"").await;
    assert!(events.text().contains("event: resync"), "{events:?}");
    works(&master).await;
}

#[tokio::test]
async fn more_apps_jobs_instances_tokens_and_history_than_there_may_be() {
    let master = Master::start(
        "apps = 2\njobs = 1\ninstances = 5\ninstances_total = 6\ntokens = 1\napp_versions = 2\nrun_history = 1\nruns_live = 2",
    )
    .await;
    assert_eq!(master.send("POST /v2/apps", app("/a", 5)).await.status, 201);
    let refused = master.send("POST /v2/apps", app("/b", 6)).await;
    assert_eq!(refused.status, 422, "{refused:?}");
    assert!(refused.text().contains("[master.limits] instances"), "{refused:?}");
    let refused = master.send("POST /v2/apps", app("/b", 2)).await;
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("instances_total"), "{refused:?}");
    assert_eq!(master.send("POST /v2/apps", app("/b", 1)).await.status, 201);
    assert_eq!(master.send("POST /v2/apps", app("/c", 0)).await.status, 403);
    assert_eq!(
        master.send("PUT /v2/apps/a?force=true", json!({ "instances": 0 })).await.status,
        200,
        "less is always possible"
    );

    for n in 1..=4 {
        let changed = json!({ "cmd": format!("sleep {n}") });
        assert_eq!(master.send("PUT /v2/apps/a?force=true", changed).await.status, 200);
    }
    let versions = master.ask("GET /v2/apps/a/versions", &[], b"").await;
    assert_eq!(versions.json()["versions"].as_array().unwrap().len(), 2, "{versions:?}");

    let job = |name: &str| json!({ "name": name, "schedule": "R/2030-01-01T00:00:00Z/PT1H", "command": "true" });
    assert_eq!(master.send("POST /v1/scheduler/iso8601", job("one")).await.status, 204);
    assert_eq!(master.send("POST /v1/scheduler/iso8601", job("two")).await.status, 403);
    for _ in 0..2 {
        assert_eq!(master.send("POST /drover/v1/jobs/one/run", json!({})).await.status, 201);
    }
    let refused = master.send("POST /drover/v1/jobs/one/run", json!({})).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (409, Some("D1010")), "{refused:?}");
    let refused = master.ask("PUT /v1/scheduler/job/one", &[], b"").await;
    assert!(refused.status >= 400, "{refused:?}");

    let token = json!({ "role": "agent", "ttlSeconds": 60, "uses": 1 });
    assert_eq!(master.send("POST /drover/v1/tokens", token.clone()).await.status, 201);
    let refused = master.send("POST /drover/v1/tokens", token).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (403, Some("D1010")), "{refused:?}");
    works(&master).await;
}
