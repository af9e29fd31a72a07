//! Jobs in, jobs out.

use super::*;
use drover_core::ids::{JobName, RunId};
use drover_core::job::{Cause, Job, JobRecord, Run, RunState, Trigger};
use drover_core::job_change::plan_put;
use drover_core::runs;
use drover_core::state::{ClusterState, JobEntry};
use drover_core::task::{Program, TaskState};
use drover_core::time::{Millis, Timestamp};
use serde_json::{Value, json};

/// 2024-05-01T12:00:00Z.
const NOW: Timestamp = Timestamp(1_714_564_800_000);

fn read(document: &Value, kind: Kind) -> Result<Job, Error> {
    read_job(document.to_string().as_bytes(), kind, NOW)
}

fn scheduled(document: Value) -> Job {
    read(&document, Kind::Scheduled).unwrap_or_else(|error| panic!("{document}: {error}"))
}

fn state(jobs: &[Value]) -> ClusterState {
    let mut state = ClusterState::default();
    for document in jobs {
        let kind = if document.get("parents").is_some() { Kind::Dependent } else { Kind::Scheduled };
        let job = read(document, kind).unwrap_or_else(|error| panic!("{document}: {error}"));
        let command = plan_put(&state, job, 1000, NOW).unwrap();
        assert_eq!(state.apply(&command).result, Ok(()));
    }
    state
}

fn entry_mut<'a>(state: &'a mut ClusterState, name: &str) -> &'a mut JobEntry {
    state.jobs.get_mut(&JobName::parse(name).unwrap()).unwrap()
}

fn ended(job: &str, at_s: u64, seconds: u64, state: TaskState) -> Run {
    let queued_at = NOW + Millis::from_secs(at_s);
    let at = queued_at + Millis::from_secs(seconds);
    let job = JobName::parse(job).unwrap();
    Run {
        id: RunId::of(&job, queued_at.0),
        job,
        slot: queued_at,
        cause: Cause::Slot,
        arguments: vec![],
        attempt: 0,
        state: RunState::Done { state, at },
        queued_at,
        started_at: Some(queued_at + Millis::from_secs(1)),
        host: Some("n1".into()),
        exit: None,
        message: String::new(),
    }
}

#[test]
fn a_jobs_keys_are_all_there_and_in_chronos_order() {
    let state = state(&[json!({
        "name": "etl", "command": "run-etl", "schedule": "R5/2024-06-01T03:00:00Z/P1D", "scheduleTimeZone": "Europe/Berlin",
        "owner": "me@example.org", "arguments": ["--all;", "x"], "environmentVariables": [{"name": "A", "value": "1"}],
        "constraints": [["rack", "EQUALS", "a"], ["hostname", "LIKE", "n[0-9]"]], "cpus": "0.5", "retries": "3",
        "highPriority": "true", "maxCompletionTime": 60, "runAsUser": "batch",
    })]);
    let text = serde_json::to_string(&jobs(&state, Version::Three)).unwrap();
    assert_eq!(
        text,
        concat!(
            r#"[{"name":"etl","command":"run-etl","shell":true,"executor":"","executorFlags":"","taskInfoData":"","retries":3,"#,
            r#""owner":"me@example.org","ownerName":"","description":"","successCount":0,"errorCount":0,"lastSuccess":"","#,
            r#""lastError":"","cpus":0.5,"disk":256.0,"mem":128.0,"disabled":false,"softError":false,"#,
            r#""dataProcessingJobType":false,"errorsSinceLastSuccess":0,"fetch":[],"uris":[],"#,
            r#""environmentVariables":[{"name":"A","value":"1"}],"arguments":["--all;","x"],"highPriority":true,"#,
            r#""runAsUser":"batch","concurrent":false,"maxCompletionTime":60,"#,
            r#""constraints":[["rack","EQUALS","a"],["hostname","LIKE","n[0-9]"]],"#,
            r#""schedule":"R5/2024-06-01T03:00:00.000+02:00/P1D","scheduleTimeZone":"Europe/Berlin"}]"#,
        )
    );
    assert_eq!(state.jobs.values().next().unwrap().job.program, Program::Shell("run-etl --all x".into()));
}

#[test]
fn a_dependent_job_shows_parents_and_no_schedule() {
    let state = state(&[
        json!({"name": "a", "command": "true", "schedule": "R0//PT1H"}),
        json!({"name": "b", "command": "true", "parents": ["a", "a"], "schedule": null}),
    ]);
    let shown = serde_json::to_value(jobs(&state, Version::Two)).unwrap();
    assert_eq!(shown[1]["parents"], json!(["a"]));
    assert_eq!((shown[1].get("schedule"), shown[1].get("scheduleTimeZone")), (None, None));
    assert_eq!((&shown[0]["epsilon"], &shown[0]["async"]), (&json!("PT60S"), &json!(false)), "version 2 has these always");
    assert_eq!((&shown[0]["scheduleTimeZone"], shown[0].get("parents")), (&json!(""), None));
}

#[test]
fn what_is_shown_can_be_posted_back_and_changes_nothing() {
    let state = state(&[json!({
        "name": "full", "command": "/bin/report", "shell": false, "arguments": ["a b", "c"], "schedule": "R//P1M",
        "epsilon": "PT5M", "retryDelay": "PT1S", "retries": 0, "softError": true, "concurrent": true, "mem": 0.5,
        "unit": {"Nice": 5}, "runAsUser": null, "container": {}, "uris": [""], "fetch": null, "scheduleTimeZone": "null",
        "executor": "", "async": "false", "dataProcessingJobType": false, "nobody-knows-this": {},
    })]);
    let entry = state.jobs.values().next().unwrap();
    assert_eq!(entry.job.program, Program::Argv(vec!["/bin/report".into(), "a b".into(), "c".into()]));
    for version in [Version::Two, Version::Three] {
        let shown = serde_json::to_value(job(entry, version)).unwrap();
        let mut back = scheduled(shown);
        let (next, remaining) = runs::redefine(Some(entry), &mut back, NOW + Millis(1));
        back.changed_at = entry.job.changed_at;
        assert_eq!(back, entry.job);
        assert_eq!((next, remaining), (entry.record.next, entry.record.remaining));
    }
}

#[test]
fn defaults_are_chronos() {
    let bare = scheduled(json!({"name": "a", "command": "true"}));
    let Trigger::Schedule(schedule) = &bare.trigger else { panic!("it has a schedule") };
    assert_eq!((schedule.text.as_str(), schedule.start()), (SCHEDULE_WHEN_MISSING, NOW));
    assert_eq!((bare.retries, bare.retry_delay, bare.epsilon), (2, Millis(60_000), Millis(60_000)));
    let zeros = scheduled(json!({"name": "a", "command": "true", "cpus": 0, "mem": "0", "disk": 0.0, "maxCompletionTime": 0}));
    assert_eq!((zeros.resources, zeros.run_time_max), (bare.resources, None));
}

#[test]
fn every_fault_is_told_at_once_by_its_path() {
    for (kind, document, expect) in [
        (Kind::Scheduled, json!({}), vec![("/name", "must be given"), ("/command", "must not be empty")]),
        (
            Kind::Scheduled,
            json!({
                "name": "a b", "command": "http://example.org/x", "schedule": "Rx/soon/PT1H", "scheduleTimeZone": "Mars",
                "cpus": -1, "mem": "much", "retries": 1.5, "disabled": "perhaps", "epsilon": "60", "arguments": "x",
                "constraints": [["rack", "UNIQUE", ""], ["rack", "LIKE", "("], ["rack"]],
                "environmentVariables": [{"value": "x"}, {"name": "A=B", "value": ""}, 7],
                "container": {"image": "alpine"}, "uris": ["http://x"], "async": true, "executor": "mine",
                "unit": {"ExecStart": "/bin/sh"}, "runAsUser": "a b", "parents": ["c"], "description": {},
            }),
            vec![
                ("/name", "' ' is none of them"),
                ("/command", "must not be an address"),
                ("/schedule", "repeats: must be R"),
                ("/schedule", "start: 'soon' is not"),
                ("/scheduleTimeZone", "'Mars' is not a zone"),
                ("/cpus", "must be from 0"),
                ("/mem", "must be a number"),
                ("/retries", "must be a whole number"),
                ("/disabled", "must be true or false"),
                ("/epsilon", "'60' is not an ISO 8601 period"),
                ("/arguments", "must be a list"),
                ("/constraints/0", "not 'UNIQUE'"),
                ("/constraints/1", "'(' is not a regular expression"),
                ("/constraints/2", "must have three parts"),
                ("/environmentVariables/0", "must have a name"),
                ("/environmentVariables/1", "'='"),
                ("/environmentVariables/2", "must be an object"),
                ("/container", "is not supported: "),
                ("/uris", "is not supported: "),
                ("/async", "is not supported: "),
                ("/executor", "is not supported: "),
                ("/unit/ExecStart", ""),
                ("/runAsUser", "'a b'"),
                ("/parents", "post it to /dependency"),
                ("/description", "must be text"),
            ],
        ),
        (Kind::Dependent, json!({"name": "a", "command": "x"}), vec![("/parents", "at least one")]),
        (Kind::Dependent, json!({"name": "a", "command": "x", "parents": []}), vec![("/parents", "at least one")]),
        (
            Kind::Dependent,
            json!({"name": "a", "command": "x", "parents": ["a", "b c", {}], "schedule": "R//PT1H"}),
            vec![
                ("/parents/0", "must not be the job itself"),
                ("/parents/1", "' ' is none"),
                ("/parents/2", "must be text"),
                ("/schedule", "must not be given"),
            ],
        ),
    ] {
        let error = read(&document, kind).expect_err("it has faults");
        assert_eq!(error.status(), 400);
        let body = error.body("Bad Request");
        let told: Vec<(String, String)> = body["details"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|detail| detail["errors"].as_array().unwrap().iter().map(move |error| (detail, error)))
            .map(|(detail, error)| (detail["path"].as_str().unwrap().to_owned(), error.as_str().unwrap().to_owned()))
            .collect();
        for (path, part) in &expect {
            let is_it = |(told_path, why): &&(String, String)| told_path == path && why.replace('"', "'").contains(part);
            assert!(told.iter().any(|told| is_it(&told)), "{path}: {part} is not among {told:#?}");
        }
        assert_eq!(told.len(), expect.len(), "{told:#?}");
        let message = body["message"].as_str().unwrap();
        assert!(told.iter().all(|(path, why)| message.contains(&format!("{path}: {why}"))), "{message}");
    }
    for broken in ["", "[1]", "{\"name\": "] {
        let error = read_job(broken.as_bytes(), Kind::Scheduled, NOW).unwrap_err();
        assert!(error.to_string().starts_with("the body must be a JSON object"), "{error}");
    }
}

#[test]
fn counts_of_a_client_are_not_taken() {
    let posted = json!({"name": "a", "command": "true", "schedule": "R0//PT1H", "successCount": 7, "lastSuccess": "2020-01-01T00:00:00.000Z"});
    let mut state = state(std::slice::from_ref(&posted));
    entry_mut(&mut state, "a").record = JobRecord {
        success_count: 3,
        error_count: 1,
        errors_since_success: 1,
        last_success: Some(NOW),
        last_error: Some(NOW + Millis(5)),
        ..JobRecord::default()
    };
    let command = plan_put(&state, scheduled(posted), 1000, NOW).unwrap();
    assert_eq!(state.apply(&command).result, Ok(()));
    let shown = serde_json::to_value(jobs(&state, Version::Three)).unwrap();
    assert_eq!(
        [&shown[0]["successCount"], &shown[0]["errorCount"], &shown[0]["errorsSinceLastSuccess"]],
        [&json!(3), &json!(1), &json!(1)]
    );
    assert_eq!(shown[0]["lastSuccess"], "2024-05-01T12:00:00.000Z");
    assert_eq!(shown[0]["lastError"], "2024-05-01T12:00:00.005Z");
}

#[test]
fn searches() {
    let state = state(&[
        json!({"name": "Alpha", "command": "make tea", "schedule": "R0//PT1H"}),
        json!({"name": "beta", "command": "make Coffee", "schedule": "R0//PT1H"}),
        json!({"name": "gamma", "command": "alpha", "schedule": "R0//PT1H"}),
    ]);
    for (query, expect) in [
        (vec![], "Alpha beta gamma"),
        (vec![("name", "A"), ("command", "MAKE")], "Alpha beta"),
        (vec![("name", "alp")], "Alpha"),
        (vec![("any", "alpha")], "Alpha gamma"),
        (vec![("any", "coffee"), ("name", "gamma")], "beta gamma"),
        (vec![("limit", "1"), ("offset", "1")], "beta"),
        (vec![("name", "nobody")], ""),
    ] {
        let query: Vec<(String, String)> = query.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let found = serde_json::to_value(search(&state, &query, Version::Three).unwrap()).unwrap();
        let names: Vec<&str> = found.as_array().unwrap().iter().map(|job| job["name"].as_str().unwrap()).collect();
        assert_eq!(names.join(" "), expect, "{query:?}");
    }
    assert!(search(&state, &[("limit".into(), "many".into())], Version::Three).is_err());
}

#[test]
fn statistics() {
    let mut state = state(&[
        json!({"name": "slow", "command": "true", "schedule": "R0//PT1H"}),
        json!({"name": "new", "command": "true", "schedule": "R0//PT1H"}),
    ]);
    let zeros = json!({"histogram": {"75thPercentile": 0.0, "95thPercentile": 0.0, "98thPercentile": 0.0, "99thPercentile": 0.0,
        "median": 0.0, "mean": 0.0, "count": 0}, "taskStatHistory": []});
    let stat_of = |state: &ClusterState, name: &str| {
        serde_json::to_value(stat(state, &state.jobs[&JobName::parse(name).unwrap()])).unwrap()
    };
    assert_eq!(stat_of(&state, "slow"), zeros);
    entry_mut(&mut state, "slow").record.history = vec![
        ended("slow", 0, 2, TaskState::Finished),
        ended("slow", 100, 9000, TaskState::Failed),
        ended("slow", 200, 4, TaskState::Finished),
    ];
    let live = runs::manual_run(&state, &JobName::parse("slow").unwrap(), vec![], NOW + Millis::from_secs(300)).unwrap();
    assert_eq!(state.apply(&live).result, Ok(()));
    let told = stat_of(&state, "slow");
    assert_eq!(told["histogram"]["median"], 3000.0);
    assert_eq!(told["histogram"]["99thPercentile"], 4000.0);
    assert_eq!(told["histogram"]["count"], 2);
    let history = told["taskStatHistory"].as_array().unwrap();
    let statuses: Vec<&str> = history.iter().map(|run| run["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["Idle", "Success", "Fail", "Success"]);
    assert_eq!(
        history[2],
        json!({"taskId": "ct:1714564900000:0:slow:", "jobName": "slow", "slaveId": "n1", "startTime": "05/01/24 12:01:41",
            "endTime": "05/01/24 14:31:40", "duration": "2h29m59s", "status": "Fail"})
    );
    assert_eq!((&history[0]["startTime"], &history[0]["endTime"]), (&json!("N/A"), &json!("N/A")));
    assert_eq!(
        serde_json::to_value(percentile(&state, "mean")).unwrap(),
        json!([{"jobNameLabel": "slow", "time": 3.0}, {"jobNameLabel": "new", "time": 0.0}])
    );
    assert_eq!(percentile(&state, "50thPercentile"), []);
}

#[test]
fn summaries_and_graphs() {
    let mut state = state(&[
        json!({"name": "a", "command": "true", "schedule": "R2/2024-06-01/P1D"}),
        json!({"name": "b", "command": "true", "parents": ["a", "unborn"], "disabled": true}),
        json!({"name": "c", "command": "true", "parents": ["a", "b"]}),
    ]);
    (entry_mut(&mut state, "a").record.last_success, entry_mut(&mut state, "a").record.last_error) = (Some(NOW), Some(NOW));
    entry_mut(&mut state, "b").record.last_success = Some(NOW);
    let mut live = ended("a", 0, 0, TaskState::Finished);
    live.state = RunState::Active { task: runs::task_id(&live) };
    state.runs.insert(live.id.clone(), live);
    assert_eq!(
        serde_json::to_string(&summary(&state)).unwrap(),
        concat!(
            r#"{"jobs":[{"name":"a","status":"failure","state":"1 running","schedule":"R2/2024-06-01T00:00:00.000Z/P1D","parents":[],"disabled":false},"#,
            r#"{"name":"b","status":"success","state":"idle","schedule":"","parents":["a","unborn"],"disabled":true},"#,
            r#"{"name":"c","status":"fresh","state":"idle","schedule":"","parents":["a","b"],"disabled":false}]}"#
        )
    );
    assert_eq!(
        graph_csv(&state),
        "node,a,failure,1 running\nnode,b,success,idle\nnode,c,fresh,idle\nlink,a,b\nlink,a,c\nlink,b,c\n"
    );
    assert_eq!(
        graph_dot(&state),
        "digraph G {\n  1 [ label=\"a\" ];\n  2 [ label=\"b\" ];\n  3 [ label=\"c\" ];\n  1 -> 2;\n  1 -> 3;\n  2 -> 3;\n}\n"
    );
}
