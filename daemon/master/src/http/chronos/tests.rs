//! Requests as clients send them, answered from a state in hand.

use super::*;
use drover_core::job::RunState;
use drover_core::time::Millis;
use serde_json::{Value, json};

/// 2024-05-01T12:00:00Z.
const NOW: Timestamp = Timestamp(1_714_564_800_000);

struct Site {
    state: ClusterState,
    now: Timestamp,
}

impl Site {
    fn new() -> Self {
        Self { state: ClusterState::default(), now: NOW }
    }

    fn with(jobs: &[Value]) -> Self {
        let mut site = Self::new();
        for job in jobs {
            let path = if job.get("parents").is_some() { "/v1/scheduler/dependency" } else { "/v1/scheduler/iso8601" };
            assert_eq!(site.send("POST", path, Some(job)), (204, String::new()));
        }
        site
    }

    /// Sends a request; what it proposes is applied. Status and body.
    fn send(&mut self, method: &str, target: &str, body: Option<&Value>) -> (u16, String) {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = hyper::Request::builder().method(&method).uri(target).body(()).unwrap();
        let head = request.into_parts().0;
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let ask = Ask::new(&method, head.uri.path(), query(&head), body.as_bytes());
        let server = Server { leader: Some("n1:7070".into()), jobs_max: 5 };
        let before = self.state.clone();
        match decide(&ask, &self.state, &server, self.now) {
            Err(error) => {
                assert_eq!(self.state, before, "a refusal changes nothing");
                (error.status(), error.body("reason").to_string())
            }
            Ok(Step::Answer(answer)) => said(answer),
            Ok(Step::Propose(commands, answer)) => {
                for command in commands {
                    assert_eq!(self.state.apply(&command).result, Ok(()));
                }
                said(answer)
            }
        }
    }

    fn get(&mut self, target: &str) -> Value {
        let (status, body) = self.send("GET", target, None);
        assert_eq!(status, 200, "{target}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|_| panic!("{target}: {body}"))
    }
}

fn said(answer: Answer) -> (u16, String) {
    match answer {
        Answer::Empty => (204, String::new()),
        Answer::Json(bytes) => (200, String::from_utf8(bytes).unwrap()),
        Answer::Text(text) => (200, text),
    }
}

fn tick(name: &str) -> Value {
    json!({"name": name, "command": "true", "schedule": "R0/2014-01-01T00:00:00Z/PT60M"})
}

fn after(name: &str, parents: &[&str]) -> Value {
    json!({"name": name, "command": "true", "parents": parents})
}

#[test]
fn what_is_posted_is_visible_at_once_under_both_prefixes() {
    for (verb, prefix) in [("POST", "/v1/scheduler"), ("PUT", "/v1/scheduler"), ("POST", "/scheduler"), ("PUT", "/scheduler")] {
        let mut site = Site::new();
        assert_eq!(site.send(verb, &format!("{prefix}/iso8601"), Some(&tick("a"))), (204, String::new()));
        assert_eq!(site.send(verb, &format!("{prefix}/dependency"), Some(&after("b", &["a"]))), (204, String::new()));
        let listed = site.get(&format!("{prefix}/jobs"));
        assert_eq!((&listed[0]["name"], &listed[1]["parents"]), (&json!("a"), &json!(["a"])));
        assert_eq!(listed[0].get("async").is_some(), prefix == "/scheduler");
        assert_eq!(site.get(&format!("{prefix}/job/a")), listed[0]);
    }
}

#[test]
fn refusals() {
    for (there, method, target, body, status, part) in [
        (vec![], "GET", "/v1/scheduler/job/nobody", None, 400, "job 'nobody' does not exist"),
        (vec![], "PUT", "/v1/scheduler/job/no%20body", None, 400, "job 'no body' does not exist"),
        (vec![], "DELETE", "/v1/scheduler/job/nobody", None, 400, "job 'nobody' does not exist"),
        (vec![], "GET", "/v1/scheduler/job/stat/nobody", None, 400, "job 'nobody' does not exist"),
        (vec![], "DELETE", "/v1/scheduler/task/kill/nobody", None, 400, "job 'nobody' does not exist"),
        (vec![], "POST", "/v1/scheduler/iso8601", Some(tick("with space")), 400, "/name: must consist"),
        (vec![], "POST", "/v1/scheduler/iso8601", Some(after("a", &["b"])), 400, "/parents: makes this a dependent job"),
        (vec![tick("a")], "POST", "/v1/scheduler/dependency", Some(after("a", &["x"])), 400, "/parents: unknown parents: x"),
        (
            vec![after("a", &["b"])],
            "POST",
            "/v1/scheduler/dependency",
            Some(after("b", &["a"])),
            400,
            "wait for itself: b after a after b",
        ),
        (vec![tick("a"), after("b", &["a"])], "DELETE", "/v1/scheduler/job/a", None, 409, "?children=inherit"),
        (
            vec![tick("a"), after("b", &["a"])],
            "DELETE",
            "/v1/scheduler/job/a?children=detach",
            None,
            409,
            "depend on 'a' alone: b",
        ),
        (vec![tick("a")], "DELETE", "/v1/scheduler/job/a?children=eat", None, 400, "not 'eat'"),
        (
            vec!["1", "2", "3", "4", "5"].into_iter().map(tick).collect(),
            "POST",
            "/v1/scheduler/iso8601",
            Some(tick("6")),
            403,
            "the most",
        ),
        (vec![], "GET", "/v1/scheduler/jobs/search?limit=x", None, 400, "limit must be a number"),
        (vec![], "PATCH", "/v1/scheduler/jobs", None, 405, "PATCH is not possible on jobs"),
        (vec![], "GET", "/v1/scheduler/iso8601", None, 405, "GET is not possible"),
        (vec![], "GET", "/scheduler", None, 404, "there is no"),
        (vec![], "GET", "/v1/scheduler/job/a/b/c", None, 404, "there is no job/a/b/c"),
    ] {
        let mut site = Site::with(&there);
        let (got, said) = site.send(method, target, body.as_ref());
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(got, status, "{method} {target}: {said}");
        assert!(said["message"].as_str().unwrap().contains(part), "{method} {target}: {said}");
        assert_eq!(said["status"], "reason");
    }
}

#[test]
fn deleting_rewires_children() {
    let mut site = Site::with(&[tick("a"), after("b", &["a"]), after("c", &["b"])]);
    assert_eq!(site.send("DELETE", "/v1/scheduler/job/b", None).0, 204);
    assert_eq!(site.get("/v1/scheduler/job/c")["parents"], json!(["a"]));
    assert_eq!(site.send("DELETE", "/v1/scheduler/job/a?children=inherit", None).0, 204);
    let orphan = site.get("/v1/scheduler/job/c");
    assert_eq!((orphan.get("parents"), &orphan["schedule"]), (None, &json!("R0/2014-01-01T00:00:00.000Z/PT60M")));
    assert_eq!(site.get("/v1/scheduler/jobs").as_array().unwrap().len(), 1);
}

#[test]
fn a_run_asked_for_is_queued_with_its_arguments() {
    let mut argv = tick("argv");
    argv["shell"] = json!(false);
    let mut site = Site::with(&[tick("shell"), argv]);
    assert_eq!(site.send("PUT", "/v1/scheduler/job/shell?arguments=--day%2021+x", None), (204, String::new()));
    assert_eq!(site.send("PUT", "/scheduler/job/argv?arguments=--day++21", None), (204, String::new()));
    site.now = site.now + Millis(5);
    assert_eq!(site.send("PUT", "/v1/scheduler/job/shell", None), (204, String::new()));
    let told: Vec<(String, Vec<String>)> = site.state.runs.values().map(|r| (r.id.to_string(), r.arguments.clone())).collect();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        told,
        [
            ("argv@1714564800000".to_owned(), words(&["--day", "21"])),
            ("shell@1714564800000".to_owned(), words(&["--day 21 x"])),
            ("shell@1714564800005".to_owned(), words(&[])),
        ]
    );
    assert!(site.state.runs.values().all(|run| matches!(run.state, RunState::Queued { .. })));
    assert_eq!(site.get("/v1/scheduler/jobs/summary")["jobs"][1]["state"], "queued");
}

#[test]
fn what_chronos_python_asks_of_an_idle_cluster() {
    let mut site = Site::with(&[tick("myjob"), tick("other")]);
    assert_eq!(
        site.send("GET", "/v1/scheduler/graph/csv", None),
        (200, "node,myjob,fresh,idle\nnode,other,fresh,idle\n".into())
    );
    for which in ["99thPercentile", "98thPercentile", "95thPercentile", "75thPercentile", "median", "mean"] {
        let lines = site.get(&format!("/v1/scheduler/stats/{which}"));
        assert!(lines.as_array().unwrap().contains(&json!({"jobNameLabel": "myjob", "time": 0.0})), "{lines}");
    }
    assert_eq!(site.get("/v1/scheduler/stats/nothing"), json!([]));
    assert_eq!(site.get("/v1/scheduler/job/stat/myjob")["taskStatHistory"], json!([]));
    assert_eq!(site.get("/v1/scheduler/jobs/search?name=MYJ&command=")[0]["name"], "myjob");
    assert_eq!(site.send("DELETE", "/v1/scheduler/task/kill/myjob", None), (204, String::new()));
    assert_eq!(site.get("/v1/scheduler/leader"), json!({"leader": "n1:7070"}));
    let said = |done| (200, format!("marked job {done} as successful: {}", done == "myjob"));
    assert_eq!(site.send("PUT", "/v1/scheduler/job/success/myjob", None), said("myjob"));
    assert_eq!(site.send("PUT", "/v1/scheduler/job/success/nobody", None), said("nobody"));
    assert_eq!(site.get("/v1/scheduler/job/myjob")["successCount"], 1);
    assert_eq!(site.send("HEAD", "/v1/scheduler/jobs", None).0, 200);
}
