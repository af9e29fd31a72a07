//! The client as people run it, against recorded answers: what it prints, what it asks, how it exits.

#![allow(clippy::unwrap_used, reason = "helpers beside the tests panic as the tests do")]

mod support;

use serde_json::{Value, json};
use support::{Answer, End, Outcome, Server, drover, finish};

const V1: &str = "2026-11-22T10:00:00.000Z";
const V2: &str = "2026-11-22T11:00:00.000Z";
const SSE: &str = "text/event-stream";
const NDJSON: &str = "application/x-ndjson";

/// An app as Marathon's API shows it, with these tasks: id and version; all of them running.
fn app(id: &str, instances: u64, version: &str, tasks: &[(&str, &str)]) -> Value {
    let tasks: Vec<Value> = tasks
        .iter()
        .map(|(id, version)| json!({"id": id, "host": "n1", "state": "TASK_RUNNING", "version": version, "startedAt": V1, "ports": [31000]}))
        .collect();
    json!({
        "id": id, "cmd": "run", "instances": instances, "cpus": 0.5, "mem": 128, "version": version,
        "versionInfo": {"lastConfigChangeAt": version, "lastScalingAt": version}, "portDefinitions": [{"port": 10000}], "deployments": [],
        "tasksRunning": tasks.len(), "tasksStaged": 0, "tasksHealthy": 0, "tasksUnhealthy": 0, "tasks": tasks,
    })
}

fn shown(app: Value) -> Answer {
    Answer::json(200, json!({"app": app}))
}

fn ok(body: Value) -> Answer {
    Answer::json(200, body)
}

fn run(server: &Server, words: &[&str]) -> Outcome {
    finish(server.drover(words))
}

/// A file to be deployed, and the directory that keeps it.
fn file(name: &str, text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

/// A server on which deploying `/web` begins as deployment d1 and takes `looks` looks.
fn deploying(looks: usize, after: Value) -> Server {
    let server = Server::start();
    let under_way = std::iter::repeat_n(ok(json!([{"id": "d1", "affectedApps": ["/web"]}])), looks);
    server.on(
        "PUT /v2/apps?partialUpdate=false&force=false",
        [ok(json!({"deploymentId": "d1", "version": V2})).deployment("d1")],
    );
    server.on("GET /v2/deployments", under_way.chain([ok(json!([]))]));
    server.on(
        "GET /v2/apps/web",
        [
            Answer::json(404, json!({"message": "App '/web' does not exist"})),
            shown(app("/web", 2, V2, &[])),
            shown(app("/web", 2, V2, &[])),
            shown(after),
        ],
    );
    server
}

#[test]
fn nobody_there_is_69_with_something_to_try() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let outcome = finish(drover(&["--addr", &address, "status"]));
    outcome.expect(
        69,
        &[
            "error: no master can be reached\n",
            &format!("because: http://{address}: "),
            "refused",
            "\ntry: ",
            "\ncode: D2001\n",
        ],
    );
    assert_eq!(outcome.out, "");
    // Of two addresses it is enough that one answers.
    let server = Server::start();
    server.on("GET /v2/apps", [ok(json!({"apps": []}))]);
    let both = format!("{address},{}", server.address);
    finish(drover(&["--addr", &both, "apps", "list"])).expect(0, &["No apps."]);
}

#[test]
fn a_master_without_a_leader_is_passed_over() {
    let (without, with) = (Server::start(), Server::start());
    let problem = json!({"error": "no leader is known", "code": "D1001", "try": "drover masters list"});
    without.on("GET /drover/v1/nodes", [Answer::problem(503, problem.clone())]);
    with.on("GET /drover/v1/nodes", [ok(json!({"apiVersion": "drover/v1", "nodes": []}))]);
    finish(drover(&["nodes", "list", "--addr", &format!("{},{}", without.address, with.address)])).expect(0, &[]);
    finish(drover(&["nodes", "list", "--addr", &without.address]))
        .expect(69, &["error: no leader is known", "try: drover masters list", "code: D1001"]);
}

#[test]
fn a_list_comes_in_every_format() {
    let server = Server::start();
    let apps = [app("/b", 1, V1, &[("b.1", V1)]), app("/a", 0, V1, &[])];
    server.on("GET /v2/apps", [ok(json!({"apps": apps}))]);
    let table = run(&server, &["apps", "list"]);
    table.expect(0, &[]);
    let lines: Vec<&str> = table.out.lines().collect();
    assert_eq!(lines[0], "  APP  HEALTH   INST  CPU  MEM   PORTS  DEPLOY  CHANGED");
    assert!(lines[1].starts_with("○ /a   stopped  0/0   0.5  128M  10000  –       "), "{table:?}");
    assert!(lines[2].starts_with("● /b   running  1/1 "), "{table:?}");
    assert!(!table.out.contains('\x1b'));
    assert!(run(&server, &["apps", "list", "--color", "always"]).out.contains("\x1b[32m●\x1b[0m /b"));
    assert!(
        finish({
            let mut command = server.drover(&["apps", "list", "--no-legend"]);
            command.env("LC_ALL", "C");
            command
        })
        .out
        .starts_with("o /a  stopped  0/0  0.5  128M  10000  -  ")
    );

    assert_eq!(run(&server, &["apps", "list", "-o", "name"]).out, "/a\n/b\n");
    let json: Value = serde_json::from_str(&run(&server, &["-o", "json", "apps", "list"]).out).unwrap();
    assert_eq!((&json["apiVersion"], &json["apps"][1]), (&json!("drover/v1"), &apps[0]));
    let lines = run(&server, &["apps", "list", "-o", "jsonl"]).out;
    assert_eq!(
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>(),
        [apps[1].clone(), apps[0].clone()]
    );
}

#[test]
fn names_are_exact_then_a_prefix_then_a_question() {
    let server = Server::start();
    server.on("GET /v2/apps/shop/web", [shown(app("/shop/web", 1, V1, &[("shop_web.0b1c2d3e-4f5a", V1)]))]);
    server.on(
        "GET /v2/apps",
        [ok(json!({"apps": [app("/shop/web", 1, V1, &[]), app("/shop/api", 1, V1, &[]), app("/batch", 1, V1, &[])]}))],
    );
    let exact = run(&server, &["apps", "show", "shop/web"]);
    exact.expect(0, &[]);
    assert!(
        exact.out.starts_with("● /shop/web  running  1/1 instances\n") && exact.out.contains("shop_web.0b1c2d3e"),
        "{exact:?}"
    );
    run(&server, &["apps", "show", "/shop/w"]).expect(0, &[]);
    run(&server, &["apps", "show", "shop"])
        .expect(4, &["fits several things", "because: app /shop/web\n", "because: app /shop/api\n", "code: D2004"]);
    run(&server, &["apps", "show", "wbe"])
        .expect(4, &["error: there is no app \"/wbe\"", "try: drover apps list", "code: D1004"]);
    run(&server, &["apps", "show", "bacth"]).expect(4, &["did you mean /batch?"]);
}

#[test]
fn a_deployment_is_waited_for_and_told_about() {
    let server = deploying(2, app("/web", 2, V2, &[("web.aaaaaaaa-1", V2), ("web.bbbbbbbb-2", V2)]));
    let (_dir, path) = file("web.toml", "id = \"/web\"\ncmd = \"run\"\ninstances = 2\n");
    let outcome = run(&server, &["apps", "deploy", "-f", &path]);
    outcome
        .expect(0, &["created /web, 2 instances\n", "[1/2] web.aaaaaaaa  n1  running  ", "[2/2] web.bbbbbbbb  n1  running  "]);
    assert!(outcome.out.starts_with("● /web  2/2 running after "), "{outcome:?}");
    let put = &server.asked_of("PUT /v2/apps?partialUpdate=false&force=false")[0];
    assert_eq!(put.body, json!([{"id": "/web", "cmd": "run", "instances": 2}]));
    // It listened before it changed anything.
    let order: Vec<String> = server.asked().into_iter().map(|asked| asked.path).collect();
    let at = |path: &str| order.iter().position(|asked| asked.starts_with(path)).unwrap();
    assert!(at("/drover/v1/events") < at("/v2/apps?partialUpdate"), "{order:?}");
}

#[test]
fn a_deployment_that_is_not_waited_for_is_only_accepted() {
    let server = deploying(1000, app("/web", 2, V2, &[]));
    let (_dir, path) = file("web.json", r#"{"id": "/web", "cmd": "run", "instances": 2}"#);
    let outcome = run(&server, &["apply", "-f", &path, "--no-block", "-o", "json"]);
    outcome.expect(0, &[]);
    let value: Value = serde_json::from_str(&outcome.out).unwrap();
    assert_eq!(value, json!({"apiVersion": "drover/v1", "outcome": "accepted", "deployment": "d1", "apps": ["/web"]}));
    assert!(server.asked_of("GET /v2/deployments").is_empty());
}

#[test]
fn what_finds_no_place_is_5_with_each_reason() {
    let server = deploying(1000, app("/web", 2, V2, &[]));
    let refused =
        |node: &str| json!({"node": node, "reasons": [{"kind": "mem", "message": "mem: 16384 MiB needed, 2048 MiB free"}]});
    server.on("GET /drover/v1/why/apps/web", [ok(json!({
        "apiVersion": "drover/v1", "subject": {"kind": "app", "name": "/web"}, "wanted": 2, "running": 0, "summary": "no node has 16G of memory free",
        "waiting": [{"request": "cpus 1, mem 16G", "count": 2, "since": V2, "nodes": [refused("n1"), refused("n2")]}],
    }))]);
    let (_dir, path) = file("web.json", r#"{"id": "/web", "cmd": "run", "instances": 2}"#);
    run(&server, &["apps", "deploy", "-f", &path, "--timeout", "500ms"]).expect(
        5,
        &["found no place within 500ms", "because: n1, n2: mem: 16384 MiB needed, 2048 MiB free\n", "try: drover why /web"],
    );
    // The same asked directly: it does not run.
    let outcome = run(&server, &["why", "/web"]);
    outcome.expect(3, &[]);
    assert!(
        outcome.out.contains("needs 2 × cpus 1, mem 16G") && outcome.out.contains("n1, n2  mem: 16384 MiB needed"),
        "{outcome:?}"
    );
}

#[test]
fn what_takes_too_long_is_124() {
    let server = deploying(1000, app("/web", 2, V2, &[]));
    let (_dir, path) = file("web.json", r#"{"id": "/web", "cmd": "run", "instances": 2}"#);
    run(&server, &["apps", "deploy", "-f", &path, "--timeout", "300ms"])
        .expect(124, &["not done after 300ms; it goes on", "try: drover apps show /web"]);
}

#[test]
fn a_cancelled_deployment_is_6() {
    let server = deploying(1000, app("/web", 2, V2, &[]));
    let event = json!({"apiVersion": "drover/v1", "index": 7, "at": V2, "type": "deployment-failed", "deployment": "d1", "app": "/web"});
    let text = format!("id: 7\nevent: deployment-failed\ndata: {event}\n\n");
    let (head, tail) = text.split_at(20);
    server.on("GET /drover/v1/events", [Answer::stream(SSE, &[": hello\n\n", head, tail], End::Open)]);
    let (_dir, path) = file("web.json", r#"{"id": "/web", "cmd": "run", "instances": 2}"#);
    run(&server, &["apps", "deploy", "-f", &path]).expect(6, &["deployment d1 of /web was cancelled"]);
}

#[test]
fn a_program_that_keeps_failing_is_6_with_what_it_said() {
    let server = deploying(1000, app("/web", 2, V2, &[]));
    let events: String = (1..=4)
        .map(|n| {
            let event = json!({"apiVersion": "drover/v1", "index": n, "at": V2, "type": "task-changed", "app": "/web", "task": format!("web.{n}"), "node": "n1", "state": "failed", "message": "exit 3"});
            format!("id: {n}\ndata: {event}\n\n")
        })
        .collect();
    server.on("GET /drover/v1/events", [Answer::stream(SSE, &[&events], End::Open)]);
    server.on("GET /drover/v1/logs?task=web.4&lines=5", [Answer::stream(NDJSON, &[&line(1, "no such file")], End::Orderly)]);
    let (_dir, path) = file("web.json", r#"{"id": "/web", "cmd": "run", "instances": 2}"#);
    run(&server, &["apps", "deploy", "-f", &path]).expect(
        6,
        &[
            "error: /web keeps failing",
            "× web.1 failed on n1: exit 3",
            "  Nov 22 10:00:00 n1 web.1[7]: no such file\n",
            "because: web.3 failed on n1: exit 3",
            "try: drover logs /web",
        ],
    );
}

#[test]
fn control_c_detaches_and_says_so() {
    let server = deploying(1000, app("/web", 2, V2, &[]));
    server.on("GET /drover/v1/events", [Answer::stream(SSE, &[": hello\n\n"], End::Open)]);
    let (_dir, path) = file("web.json", r#"{"id": "/web", "cmd": "run", "instances": 2}"#);
    let child = server.drover(&["apps", "deploy", "-f", &path]).spawn().unwrap();
    // Once it has looked twice it has begun to wait, and listens for the signal.
    while server.asked_of("GET /v2/deployments").len() < 2 {
        std::thread::yield_now();
    }
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{err}");
    assert!(err.contains("detached; the change goes on") && err.contains("look again: drover apps show /web"), "{err}");
}

#[test]
fn a_refused_change_says_what_is_wrong() {
    let server = deploying(0, Value::Null);
    let (_dir, path) = file("web.json", r#"{"id": "/web"}"#);
    let faults = json!({"message": "Object is not valid", "details": [{"path": "/cmd", "errors": ["must not be empty"]}, {"path": "/cpus", "errors": ["must be positive"]}]});
    server.on("PUT /v2/apps?partialUpdate=false&force=false", [Answer::json(422, faults)]);
    run(&server, &["apps", "deploy", "-f", &path])
        .expect(1, &["error: Object is not valid", "because: /cmd: must not be empty\n", "because: /cpus: must be positive\n"]);
    server.on(
        "PUT /v2/apps?partialUpdate=false&force=false",
        [Answer::json(409, json!({"message": "App is locked", "deployments": [{"id": "d0"}]}))],
    );
    run(&server, &["apps", "deploy", "-f", &path])
        .expect(1, &["another deployment is at work there", "because: deployment d0", "try: ", "--force"]);
    server.on(
        "PUT /v2/apps?partialUpdate=false&force=false",
        [Answer::problem(403, json!({"error": "not yours", "code": "D1005"}))],
    );
    run(&server, &["apps", "deploy", "-f", &path]).expect(77, &["error: not yours", "code: D1005"]);
}

#[test]
fn bad_files_are_refused_before_anything_is_sent() {
    let server = Server::start();
    let (_dir, path) = file("web.toml", "id = \n");
    run(&server, &["apply", "-f", &path]).expect(2, &["nothing was sent", "web.toml: ", "code: D2003"]);
    let (_dir, job) = file("job.json", r#"{"name": "j", "schedule": "R/2026-01-01T00:00:00Z/P1D"}"#);
    run(&server, &["apps", "deploy", "-f", &job]).expect(2, &["j is a job", "try: drover apply"]);
    assert!(server.asked().is_empty());
}

#[test]
fn jobs_are_applied_parents_first() {
    let server = Server::start();
    server.on("POST /v1/scheduler/iso8601", [Answer::json(204, Value::Null)]);
    server.on("POST /v1/scheduler/dependency", [Answer::json(204, Value::Null)]);
    let (_dir, path) = file(
        "jobs.toml",
        "[[jobs]]\nname = \"b\"\nparents = [\"a\"]\n[[jobs]]\nname = \"a\"\nschedule = \"R/2026-01-01T00:00:00Z/P1D\"\n",
    );
    run(&server, &["apply", "-f", &path]).expect(0, &["created job a\ncreated job b\n"]);
    let posts: Vec<(String, Value)> = server
        .asked()
        .into_iter()
        .filter(|asked| asked.method == "POST")
        .map(|asked| (asked.path, asked.body["name"].clone()))
        .collect();
    assert_eq!(posts, [("/v1/scheduler/iso8601".to_owned(), json!("a")), ("/v1/scheduler/dependency".to_owned(), json!("b"))]);
    server.on(
        "POST /v1/scheduler/dependency",
        [Answer::json(400, json!({"message": "no such parent", "status": "Bad Request"}))],
    );
    run(&server, &["apply", "-f", &path]).expect(1, &["error: job b: no such parent", "because: accepted before: a"]);
}

#[test]
fn scaling_sends_a_number() {
    let server = Server::start();
    let done = app("/web", 3, V2, &[("web.1", V2), ("web.2", V2), ("web.3", V2)]);
    server.on(
        "GET /v2/apps/web",
        [
            shown(app("/web", 2, V1, &[("web.1", V1), ("web.2", V1)])),
            shown(app("/web", 2, V1, &[("web.1", V1), ("web.2", V1)])),
            shown(done),
        ],
    );
    server.on("PUT /v2/apps/web?force=false", [ok(json!({"deploymentId": "d1", "version": V2}))]);
    server.on("GET /v2/deployments", [ok(json!([]))]);
    let outcome = run(&server, &["apps", "scale", "web=+1"]);
    outcome.expect(0, &["/web: 2→3"]);
    assert!(outcome.out.starts_with("● /web  3/3 running after "), "{outcome:?}");
    assert_eq!(server.asked_of("PUT /v2/apps/web?force=false")[0].body, json!({"instances": 3}));
    run(&server, &["apps", "scale", "web"]).expect(2, &["does not say how many"]);
    run(&server, &["apps", "scale", "web=many"]).expect(2, &["no number of instances"]);
}

#[test]
fn what_destroys_must_be_confirmed() {
    let server = Server::start();
    server.on(
        "GET /v2/apps/web",
        [
            shown(app("/web", 1, V1, &[("web.1", V1)])),
            shown(app("/web", 1, V1, &[("web.1", V1)])),
            Answer::json(404, json!({"message": "gone"})),
        ],
    );
    server.on("DELETE /v2/apps/web", [ok(json!({"deploymentId": "d1", "version": V2}))]);
    server.on("GET /v2/deployments", [ok(json!([]))]);
    run(&server, &["apps", "delete", "/web"]).expect(2, &["This ends 1 instance of /web", "--yes", "code: D2005"]);
    assert!(server.asked().iter().all(|asked| asked.method == "GET"));
    let outcome = run(&server, &["apps", "delete", "/web", "--yes"]);
    outcome.expect(0, &[]);
    assert!(outcome.out.starts_with("○ /web  gone after "), "{outcome:?}");
}

fn job(runs: &[Value]) -> Answer {
    ok(json!({"apiVersion": "drover/v1", "job": {"name": "etl", "schedule": "R/2026-01-01T03:10:00Z/P1D"}, "runs": runs}))
}

fn etl_run(more: Value) -> Value {
    let mut run =
        json!({"id": "etl@5", "job": "etl", "slot": V1, "cause": "manual", "attempt": 0, "state": "queued", "queuedAt": V1});
    run.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    run
}

#[test]
fn a_run_that_is_waited_for_gives_its_exit_code() {
    let server = Server::start();
    let done = etl_run(
        json!({"state": "done", "result": "failed", "exitCode": 3, "node": "n4", "startedAt": V1, "endedAt": "2026-11-22T10:00:38.000Z"}),
    );
    server.on(
        "GET /drover/v1/jobs/etl",
        [job(&[]), job(&[etl_run(json!({}))]), job(&[etl_run(json!({"state": "active", "node": "n4"}))]), job(&[done])],
    );
    server
        .on("POST /drover/v1/jobs/etl/run", [Answer::json(201, json!({"apiVersion": "drover/v1", "run": etl_run(json!({}))}))]);
    let outcome = run(&server, &["jobs", "run", "etl", "--wait", "--", "--day", "21"]);
    outcome.expect(3, &["↻ etl@5  queued\n", "↻ etl@5  running on n4\n"]);
    assert_eq!(outcome.out, "× etl@5  exit 3 after 38s on n4\n");
    assert_eq!(server.asked_of("POST /drover/v1/jobs/etl/run")[0].body, json!({"arguments": ["--day", "21"]}));
    run(&server, &["jobs", "run", "etl", "-o", "name"]).expect(0, &[]);
    let history = run(&server, &["jobs", "history", "etl"]);
    assert!(history.out.contains("× etl@5  Sun 2026-11-22 10:00:00 UTC"), "{history:?}");
}

fn line(us: u32, message: &str) -> String {
    format!(
        "{}\n",
        json!({"at": format!("2026-11-22T10:00:00.{us:06}Z"), "node": "n1", "task": "web.1", "app": "/web", "priority": 6, "pid": 7, "message": message})
    )
}

#[test]
fn following_a_task_ends_with_it_and_with_its_exit_code() {
    let server = Server::start();
    server.on("GET /drover/v1/tasks", [ok(json!({"apiVersion": "drover/v1", "tasks": [{"id": "web.1", "app": "/web", "node": "n1", "state": "running", "reason": "normal", "unit": "u", "stagedAt": V1}]}))]);
    let ended = format!(
        "{}\n",
        json!({"ended": {"task": "web.1", "state": "failed", "message": "main process exited", "exitCode": 3}})
    );
    let text = format!("{}{}{ended}", line(1, "hello"), line(2, "größe"));
    let (head, tail) = text.split_at(77);
    server.on("GET /drover/v1/logs?task=web.1&follow=1&lines=10", [Answer::stream(NDJSON, &[head, tail], End::Orderly)]);
    let outcome = run(&server, &["logs", "-f", "task:web.1"]);
    outcome.expect(3, &["-- web.1 ended: exit 3 (main process exited) --"]);
    assert_eq!(outcome.out, "Nov 22 10:00:00 n1 web.1[7]: hello\nNov 22 10:00:00 n1 web.1[7]: größe\n");
    let raw = run(&server, &["logs", "-f", "task:web.1", "--raw"]);
    assert_eq!(raw.out, "hello\ngröße\n");
    let json = run(&server, &["logs", "-f", "task:web.1", "-o", "jsonl"]);
    assert_eq!(json.out, text);
}

#[test]
fn a_followed_stream_that_breaks_is_read_on_without_repeating() {
    let server = Server::start();
    server.on("GET /v2/apps/web", [shown(app("/web", 1, V1, &[]))]);
    let half = line(3, "cut");
    server.on(
        "GET /drover/v1/logs?app=/web&follow=1&lines=10",
        [Answer::stream(NDJSON, &[&line(1, "a"), &line(2, "b"), &half[..30]], End::Broken)],
    );
    let again = [line(2, "b"), line(3, "cut"), line(4, "end")].concat();
    server.on(
        "GET /drover/v1/logs?app=/web&follow=1&since=2026-11-22T10:00:00.000002Z",
        [Answer::stream(NDJSON, &[&again], End::Open)],
    );
    let mut child = server.drover(&["logs", "-f", "/web", "--raw"]).spawn().unwrap();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut lines = String::new();
    for _ in 0..4 {
        std::io::BufRead::read_line(&mut out, &mut lines).unwrap();
    }
    assert_eq!(lines, "a\nb\ncut\nend\n");
    // Whoever reads goes away: no word about it.
    drop(out);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_reader_that_goes_away_ends_it_without_a_word() {
    let server = Server::start();
    server.on("GET /v2/apps/web", [shown(app("/web", 1, V1, &[]))]);
    let many: String = (0..200_000).map(|n| line(n, "x")).collect();
    server.on("GET /drover/v1/logs?app=/web&lines=100", [Answer::stream(NDJSON, &[&many], End::Orderly)]);
    let mut child = server.drover(&["logs", "/web"]).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()), (Some(1), ""));
}

#[test]
fn past_events_are_those_after_index_0() {
    let server = Server::start();
    let event = |index: u64, kind: &str| {
        format!(
            "id: {index}\nevent: {kind}\ndata: {}\n\n",
            json!({"apiVersion": "drover/v1", "index": index, "at": V1, "type": kind, "node": "n1", "state": "up"})
        )
    };
    let text = format!("event: resync\n\n{}{}", event(5, "node-changed"), event(6, "job-changed"));
    server.on("GET /drover/v1/events?follow=0", [Answer::stream(SSE, &[&text], End::Orderly)]);
    let outcome = run(&server, &["events", "--type", "node"]);
    outcome.expect(0, &["older events are not kept any more"]);
    assert_eq!(outcome.out, "Nov 22 10:00:00 node-changed n1 up  (5)\n");
    assert_eq!(server.asked()[0].last_event_id.as_deref(), Some("0"));
}

#[test]
fn the_first_screen_and_one_thing() {
    let server = Server::start();
    let mut status = json!({
        "apiVersion": "drover/v1", "cluster": "prod", "leader": {"name": "m1", "address": "m1:7071"}, "term": 3,
        "masters": [{"id": 1, "name": "m1", "address": "m1:7071", "role": "leader"}], "agents": {"up": 1, "unreachable": 0},
        "apps": {"total": 1, "healthy": 1, "deploying": 0}, "jobs": {"total": 0, "next": null}, "tasks": {"running": 1, "staging": 0}, "warnings": [],
    });
    server.on("GET /drover/v1/status", [ok(status.clone())]);
    let outcome = run(&server, &[]);
    outcome.expect(0, &[]);
    assert!(outcome.out.starts_with("● prod  healthy        leader m1 (term 3, 1 master)\n"), "{outcome:?}");
    status["leader"] = Value::Null;
    server.on("GET /drover/v1/status", [ok(status.clone())]);
    run(&server, &["status"]).expect(69, &[]);
    let printed: Value = serde_json::from_str(&run(&server, &["-o", "json"]).out).unwrap();
    assert_eq!(printed, status);

    server.on("GET /v2/apps/web", [shown(app("/web", 1, V1, &[]))]);
    server.on("GET /drover/v1/logs?app=/web&lines=10", [Answer::stream(NDJSON, &[&line(1, "last words")], End::Orderly)]);
    let outcome = run(&server, &["status", "/web"]);
    outcome.expect(3, &[]);
    assert!(outcome.out.starts_with("× /web  waiting  0/1") && outcome.out.ends_with("last words\n"), "{outcome:?}");
    run(&server, &["status", "/none"]).expect(4, &[]);
}

#[test]
fn a_token_stands_alone_on_standard_output() {
    let server = Server::start();
    server.on(
        "POST /drover/v1/tokens",
        [Answer::json(201, json!({"apiVersion": "drover/v1", "token": "drover1.aa.bb", "expiresAt": V1}))],
    );
    let outcome = run(&server, &["token", "create", "--role", "master", "--ttl", "10min", "--uses", "2"]);
    outcome.expect(0, &["good for 2 machines of role master until Sun 2026-11-22 10:00:00 UTC"]);
    assert_eq!(outcome.out, "drover1.aa.bb\n");
    assert_eq!(server.asked()[0].body, json!({"role": "master", "ttlSeconds": 600, "uses": 2}));
}

#[test]
fn masters_are_removed_by_their_full_name() {
    let server = Server::start();
    let masters = |names: &[&str]| {
        let masters: Vec<Value> = names.iter().enumerate().map(|(id, name)| json!({"id": id, "name": name, "address": format!("{name}:7071"), "role": if id == 0 { "leader" } else { "follower" }})).collect();
        json!({"apiVersion": "drover/v1", "term": 4, "masters": masters})
    };
    server.on("GET /drover/v1/masters", [ok(masters(&["m1", "m2", "m3"]))]);
    server.on("POST /drover/v1/masters/m3/remove", [ok(masters(&["m1", "m2"]))]);
    run(&server, &["masters", "list"]).expect(0, &["term 4; 3 voting masters can lose 1"]);
    run(&server, &["masters", "remove", "m"]).expect(4, &["there are m1, m2, m3"]);
    run(&server, &["masters", "remove", "m3"]).expect(2, &["2 voting masters cannot lose any needs to be confirmed"]);
    let outcome = run(&server, &["masters", "remove", "m3", "-y"]);
    outcome.expect(0, &["m3 is out"]);
    assert!(!outcome.out.contains("m3"), "{outcome:?}");
}

#[test]
fn a_clusters_version_is_raised_after_a_question() {
    let server = Server::start();
    let masters = |version: u32| {
        let master = |name: &str, role: &str| json!({"id": 1, "name": name, "address": "m:7071", "role": role, "knows": 2, "release": "0.2.0"});
        json!({"apiVersion": "drover/v1", "term": 4, "version": version, "masters": [master("m1", "leader"), master("m2", "follower")]})
    };
    server.on("GET /drover/v1/masters", [ok(masters(1)), ok(masters(1)), ok(masters(2))]);
    server.on("POST /drover/v1/version/raise", [ok(masters(2))]);
    run(&server, &["cluster", "raise-version"]).expect(2, &["from version 1 to 2 for good", "needs to be confirmed"]);
    run(&server, &["cluster", "raise-version", "-y"]).expect(0, &["the cluster is at version 2", "term 4; version 2;"]);
    run(&server, &["cluster", "raise-version"]).expect(0, &["the cluster is at version 2 already"]);
    let asked = server.asked_of("POST /drover/v1/version/raise");
    assert!(asked.len() == 2 && asked.iter().all(|asked| asked.body == json!({"to": 2})), "{asked:?}");
}

#[test]
fn tasks_of_apps_and_of_jobs_are_stopped_each_their_way() {
    let server = Server::start();
    let task = |id: &str, owner: &str, name: &str| json!({"id": id, owner: name, "node": "n1", "state": "running", "reason": "normal", "unit": "u", "stagedAt": V1});
    server.on(
        "GET /drover/v1/tasks",
        [ok(json!({"apiVersion": "drover/v1", "tasks": [task("web.1", "app", "/web"), task("ct:5:0:etl:", "job", "etl")]}))],
    );
    server.on("POST /v2/tasks/delete?scale=false", [ok(json!({"tasks": []}))]);
    server.on(
        "POST /drover/v1/tasks/ct:5:0:etl:/stop",
        [Answer::json(202, json!({"apiVersion": "drover/v1", "task": "ct:5:0:etl:"}))],
    );
    run(&server, &["tasks", "stop", "web.1", "ct:5"]).expect(0, &[]);
    assert_eq!(server.asked_of("POST /v2/tasks/delete?scale=false")[0].body, json!({"ids": ["web.1"]}));
    assert_eq!(server.asked_of("POST /drover/v1/tasks/ct:5:0:etl:/stop").len(), 1);
    run(&server, &["tasks", "stop", "ct:5", "--scale"]).expect(2, &["belongs to a job"]);
    run(&server, &["tasks", "stop", "other"]).expect(4, &["there is no task"]);
}

#[test]
fn an_answer_of_another_version_is_not_guessed_at() {
    let server = Server::start();
    server.on("GET /drover/v1/nodes", [ok(json!({"apiVersion": "drover/v2", "nodes": []}))]);
    run(&server, &["nodes", "list"]).expect(1, &["makes no sense", "drover/v2", "code: D2002"]);
}

#[test]
fn a_cluster_is_made_once() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().to_str().unwrap();
    let words =
        ["cluster", "init", "--data-dir", data_dir, "--name", "n1", "--advertise", "n1.example.org", "--agent", "-o", "json"];
    let outcome = finish(drover(&words));
    outcome.expect(0, &[]);
    let value: Value = serde_json::from_str(&outcome.out).unwrap();
    assert_eq!(
        (&value["name"], &value["role"], &value["advertise"]),
        (&json!("n1"), &json!("master"), &json!("n1.example.org:7071"))
    );
    for file in ["master/pki/identity.json", "master/pki/ca.key", "agent/pki/identity.json"] {
        assert!(dir.path().join(file).exists(), "{file}");
    }
    finish(drover(&words)).expect(1, &["error: this machine got no identity", "already holds an identity"]);
    finish(drover(&["node", "join", "--master", "n1", "--token", "nonsense", "--data-dir", data_dir]))
        .expect(2, &["not a join token"]);
}

#[test]
fn wrong_words_are_2_and_help_is_0() {
    finish(drover(&["apps", "explode"])).expect(2, &["unrecognized subcommand"]);
    finish(drover(&["logs"])).expect(2, &["TARGET"]);
    finish(drover(&["--addr", "https://x", "status"])).expect(2, &["https is not spoken here"]);
    let help = finish(drover(&["apps", "deploy", "-h"]));
    help.expect(0, &[]);
    assert!(help.out.contains("Examples:\n  drover apps deploy -f web.toml\n"), "{help:?}");
    let codes = finish(drover(&["exit-codes"]));
    assert!(codes.out.contains("\n 69  no leader"), "{codes:?}");
}

#[test]
fn a_stale_read_says_so_and_a_write_does_not() {
    let server = Server::start();
    server.on("GET /drover/v1/masters?stale=1", [ok(json!({"apiVersion": "drover/v1", "term": 4, "masters": []}))]);
    run(&server, &["masters", "list", "--stale"]).expect(0, &[]);
    server.on("GET /drover/v1/tasks?node=n1&stale=1", [ok(json!({"apiVersion": "drover/v1", "tasks": []}))]);
    let node = json!({"id": "a", "name": "n1", "state": "up", "resources": {}, "used": {}, "tasks": 0, "systemd": 252, "bootId": "b", "seenAgoMs": null});
    server.on("GET /drover/v1/nodes?stale=1", [ok(json!({"apiVersion": "drover/v1", "nodes": [node]}))]);
    run(&server, &["--stale", "tasks", "list", "--node", "n1"]).expect(0, &["No tasks."]);
}

#[test]
fn a_job_with_children_is_not_deleted_by_accident() {
    let server = Server::start();
    let child = json!({"name": "report", "parents": ["etl"]});
    server.on("GET /drover/v1/jobs/etl", [job(&[])]);
    server.on("GET /drover/v1/jobs", [ok(json!({"apiVersion": "drover/v1", "jobs": [{"name": "etl"}, child]}))]);
    server.on("DELETE /v1/scheduler/job/etl?children=inherit", [Answer::json(204, Value::Null)]);
    run(&server, &["jobs", "delete", "etl", "-y"])
        .expect(2, &["other jobs run after etl", "because: report", "--children inherit"]);
    run(&server, &["jobs", "delete", "etl", "--children", "inherit"])
        .expect(2, &["gives report its schedule needs to be confirmed"]);
    let outcome = run(&server, &["jobs", "delete", "etl", "--children", "inherit", "-y"]);
    outcome.expect(0, &[]);
    assert_eq!(outcome.out, "○ etl  deleted\n");
}

#[test]
fn completions_and_man_pages_know_every_command() {
    let bash = finish(drover(&["completion", "bash"]));
    bash.expect(0, &[]);
    assert!(bash.out.contains("rollback") && bash.out.contains("--no-block"), "{}", bash.out.len());
    let dir = tempfile::tempdir().unwrap();
    finish(drover(&["man-pages", dir.path().to_str().unwrap()])).expect(0, &["man pages are in"]);
    let page = std::fs::read_to_string(dir.path().join("drover-apps-deploy.1")).unwrap();
    assert!(page.contains("wait until they are up") && page.contains("drover apps deploy"), "{page}");
    finish(drover(&["man-pages", "/nowhere"])).expect(1, &["cannot be written to /nowhere", "because: "]);
}
