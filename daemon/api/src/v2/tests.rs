//! What comes in and what goes out, as text.

use super::app::App as AppOut;
use super::definition::{Mode, Wish, read_app, read_apps};
use super::embed::Embed;
use super::{Error, event};
use drover_core::app::App;
use drover_core::change::{self, Edit, Request};
use drover_core::event::{Event, EventKind};
use drover_core::ids::{AppId, DeploymentId};
use drover_core::state::ClusterState;
use drover_core::time::Timestamp;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const NOW: Timestamp = Timestamp(1_704_103_200_000);

fn read(body: &Value, mode: Mode, current: Option<&App>) -> Result<App, Error> {
    let wish = read_app(body.to_string().as_bytes(), None, mode, |id| current.filter(|app| app.id == *id))?;
    match wish {
        Wish::Definition(app) => Ok(*app),
        Wish::Version(id, version) => panic!("a definition was expected, not {id} at {version}"),
    }
}

fn out(app: &App) -> Value {
    serde_json::to_value(AppOut::definition(app, &Embed::default())).unwrap()
}

/// The faults of a definition, `path: text`.
fn faults(error: &Error) -> Vec<String> {
    let body = error.body();
    let details = body["details"].as_array().expect("faults have details");
    let lines = details.iter().flat_map(|detail| {
        let path = detail["path"].as_str().unwrap();
        detail["errors"].as_array().unwrap().iter().map(move |text| format!("{path}: {}", text.as_str().unwrap()))
    });
    lines.collect()
}

#[test]
fn a_minimal_app_comes_out_in_canonical_form() {
    let wished = read(&json!({ "id": "demo", "cmd": "sleep 600", "cpus": 0.1, "mem": 32 }), Mode::Full, None).unwrap();
    let state = ClusterState::default();
    let request = Request {
        edits: BTreeMap::from([(wished.id.clone(), Edit::Put(Box::new(wished)))]),
        force: false,
        preselected: BTreeSet::new(),
        deployment: DeploymentId::new("d"),
        now: NOW,
    };
    let plan = change::plan(&state, request).unwrap();
    let app = plan.app(&AppId::parse("/demo").unwrap()).unwrap();
    let text = serde_json::to_string(&AppOut::accepted(app, &plan.deployment.id)).unwrap();
    assert_eq!(
        text,
        concat!(
            r#"{"id":"/demo","cmd":"sleep 600","instances":1,"cpus":0.1,"mem":32,"disk":0,"gpus":0,"executor":"","#,
            r#""backoffSeconds":1,"backoffFactor":1.15,"maxLaunchDelaySeconds":300,"killSelection":"YOUNGEST_FIRST","#,
            r#""labels":{},"networks":[{"mode":"host"}],"requirePorts":false,"#,
            r#""portDefinitions":[{"port":10000,"protocol":"tcp","name":"default"}],"#,
            r#""upgradeStrategy":{"minimumHealthCapacity":1,"maximumOverCapacity":1},"#,
            r#""unreachableStrategy":{"inactiveAfterSeconds":0,"expungeAfterSeconds":0},"role":"*","#,
            r#""version":"2024-01-01T10:00:00.000Z","#,
            r#""versionInfo":{"lastScalingAt":"2024-01-01T10:00:00.000Z","lastConfigChangeAt":"2024-01-01T10:00:00.000Z"},"#,
            r#""tasksStaged":0,"tasksRunning":0,"tasksHealthy":0,"tasksUnhealthy":0,"deployments":[{"id":"d"}],"tasks":[]}"#,
        )
    );
}

/// Everything an app can say, in canonical form.
fn full() -> Value {
    json!({
        "id": "/prod/web", "args": ["/bin/web", "--fast", ""], "user": "www", "instances": 4, "cpus": 1.5, "mem": 64.5, "disk": 10,
        "gpus": 0, "executor": "", "env": { "A": "1", "B-C": "" },
        "constraints": [["hostname", "UNIQUE"], ["rack", "GROUP_BY", "3"], ["rack", "LIKE", "r[0-9]+"], ["os", "IS", "linux"],
            ["zone", "CLUSTER"], ["zone", "MAX_PER", "2"], ["rack", "UNLIKE", "r9"]],
        "dependencies": ["/prod/db", "/shared"], "acceptedResourceRoles": ["*", "web"],
        "backoffSeconds": 0.5, "backoffFactor": 2, "maxLaunchDelaySeconds": 60, "taskKillGracePeriodSeconds": 30,
        "killSelection": "OLDEST_FIRST", "labels": { "HAPROXY_GROUP": "x" }, "networks": [{ "mode": "host" }], "requirePorts": true,
        "portDefinitions": [{ "port": 8080, "protocol": "tcp", "name": "http", "labels": { "VIP_0": "/a:80" } },
            { "port": 8081, "protocol": "udp,tcp" }],
        "upgradeStrategy": { "minimumHealthCapacity": 0.5, "maximumOverCapacity": 0 },
        "unreachableStrategy": { "inactiveAfterSeconds": 60, "expungeAfterSeconds": 120 }, "role": "web",
        "version": "1970-01-01T00:00:00.000Z",
        "versionInfo": { "lastScalingAt": "1970-01-01T00:00:00.000Z", "lastConfigChangeAt": "1970-01-01T00:00:00.000Z" }
    })
}

#[test]
fn what_goes_in_comes_out_the_same() {
    let app = read(&full(), Mode::Full, None).unwrap();
    assert_eq!(out(&app), full());
    // And again over itself, with all the read-only members a client may send back.
    let mut again = full();
    for (key, value) in [("tasks", json!([])), ("tasksRunning", json!(3)), ("deployments", json!([])), ("unheardOf", json!({}))]
    {
        again[key] = value;
    }
    again.as_object_mut().unwrap().remove("version");
    assert_eq!(read(&again, Mode::Partial, Some(&app)).unwrap(), app);

    for (given, member, expect) in [
        (json!({ "unreachableStrategy": "disabled" }), "unreachableStrategy", json!("disabled")),
        (json!({ "upgradeStrategy": {} }), "upgradeStrategy", json!({ "minimumHealthCapacity": 1, "maximumOverCapacity": 1 })),
        (
            json!({ "upgradeStrategy": { "minimumHealthCapacity": 0.666_666_666_666_666_6 } }),
            "upgradeStrategy",
            json!({ "minimumHealthCapacity": 0.666, "maximumOverCapacity": 1 }),
        ),
        (json!({ "cpus": 0.333_333_3 }), "cpus", json!(0.333)),
        (
            json!({ "ports": [0, 9000] }),
            "portDefinitions",
            json!([{ "port": 0, "protocol": "tcp" }, { "port": 9000, "protocol": "tcp" }]),
        ),
        (json!({ "portDefinitions": [] }), "portDefinitions", json!([])),
        (
            json!({ "portDefinitions": [{ "protocol": "tcp,udp" }] }),
            "portDefinitions",
            json!([{ "port": 0, "protocol": "udp,tcp" }]),
        ),
        (json!({ "instances": 2.0 }), "instances", json!(2)),
        (json!({ "cmd": "x", "args": [] }), "cmd", json!("x")),
        (json!({ "cmd": "x" }), "args", Value::Null),
        (json!({ "dependencies": ["db", "../shared", "."] }), "dependencies", json!(["/prod", "/prod/db", "/shared"])),
        (json!({ "labels": { "a": null, "b": "1" } }), "labels", json!({ "b": "1" })),
    ] {
        let mut body = given.clone();
        body["id"] = json!("/prod/web");
        let changed = read(&body, Mode::Partial, Some(&app)).unwrap();
        assert_eq!(out(&changed).get(member).cloned().unwrap_or_default(), expect, "{given}");
    }
}

#[test]
fn null_and_blank_say_nothing() {
    let body = json!({
        "id": "/a", "cmd": "x", "args": null, "user": null, "instances": null, "env": null, "container": null, "healthChecks": [],
        "fetch": [], "uris": [], "secrets": {}, "gpus": 0, "tty": false, "residency": null, "executor": "//cmd", "storeUrls": ["x"],
        "taskRateLimit": 1.5, "networks": [], "readinessChecks": null, "ipAddress": null, "acceptedResourceRoles": null, "role": null
    });
    let app = read(&body, Mode::Full, None).unwrap();
    assert_eq!(app, read(&json!({ "id": "a", "cmd": "x" }), Mode::Full, None).unwrap());
}

#[test]
fn every_fault_is_told_with_its_path() {
    let long = "x".repeat(131_072);
    for (member, expect) in [
        (json!({ "id": null }), "/id: must not be empty"),
        (json!({ "id": 7 }), "/id: must be a string"),
        (
            json!({ "id": "/A" }),
            "/id: must consist of lower-case letters, digits, inner hyphens and dots between them; 'A' does not",
        ),
        (json!({ "id": "/" }), "/id: must not be the root path"),
        (json!({ "id": "/a/tasks" }), "/id: must not end in the reserved word 'tasks'"),
        (json!({ "cmd": null }), "/: AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'."),
        (json!({ "args": ["a"] }), "/: AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'."),
        (json!({ "cmd": "" }), "/cmd: must not be empty"),
        (json!({ "cmd": ["x"] }), "/cmd: must be a string"),
        (json!({ "cmd": "a\u{0}b" }), "/cmd: must not contain a zero byte"),
        (json!({ "cmd": long }), "/cmd: must have at most 131071 bytes: the kernel takes no more"),
        (json!({ "cmd": null, "args": [] }), "/args: must not be empty"),
        (json!({ "cmd": null, "args": ["a", 1] }), "/args(1): must be a string"),
        (
            json!({ "user": "a b" }),
            "/user: must be an account's name or number: letters, digits, '_', '.' and '-', at most 31; \"a b\" is not",
        ),
        (json!({ "instances": -1 }), "/instances: must be a whole number from 0 to 100000"),
        (json!({ "instances": 1.5 }), "/instances: must be a whole number from 0 to 100000"),
        (json!({ "instances": "3" }), "/instances: must be a whole number from 0 to 100000"),
        (json!({ "instances": 4_294_967_297_u64 }), "/instances: must be a whole number from 0 to 100000"),
        (json!({ "cpus": -0.1 }), "/cpus: must be from 0 to 1000000"),
        (json!({ "cpus": 1e300 }), "/cpus: must be from 0 to 1000000"),
        (json!({ "cpus": 0.0001 }), "/cpus: must be 0 or at least 0.001"),
        (json!({ "cpus": "1" }), "/cpus: must be a number"),
        (json!({ "mem": -1 }), "/mem: must be from 0 to 1073741824"),
        (json!({ "disk": 1e12 }), "/disk: must be from 0 to 1073741824"),
        (json!({ "gpus": 1 }), "/gpus: is not supported by this version of drover yet"),
        (json!({ "env": { "A": 1 } }), "/env/A: must be a string"),
        (json!({ "env": { "A=B": "1" } }), "/env/A=B: a variable's name must contain neither '=' nor a null character"),
        (json!({ "env": { "A": { "secret": "s" } } }), "/env/A: secrets are not supported by this version of drover yet"),
        (json!({ "env": [] }), "/env: must be an object"),
        (json!({ "labels": { "a": 1 } }), "/labels/a: must be a string"),
        (json!({ "ports": [1], "portDefinitions": [] }), "/ports: must not be given together with 'portDefinitions'"),
        (json!({ "ports": [70000] }), "/ports(0): must be a whole number from 0 to 65535"),
        (
            json!({ "portDefinitions": [{ "port": 1 }, { "port": 1 }] }),
            "/portDefinitions: Ports must be unique; 1 is there twice",
        ),
        (
            json!({ "portDefinitions": [{ "name": "a" }, { "name": "a" }] }),
            "/portDefinitions: Port names must be unique; 'a' is there twice",
        ),
        (
            json!({ "portDefinitions": [{ "name": "A" }] }),
            "/portDefinitions(0)/name: must consist of lower-case letters, digits and inner hyphens",
        ),
        (
            json!({ "portDefinitions": [{ "protocol": "sctp" }] }),
            "/portDefinitions(0)/protocol: must be 'tcp', 'udp' or 'udp,tcp'",
        ),
        (json!({ "portDefinitions": [8080] }), "/portDefinitions(0): must be an object"),
        (json!({ "requirePorts": "yes" }), "/requirePorts: must be true or false"),
        (
            json!({ "networks": [{ "name": "x" }] }),
            "/networks(0)/mode: must be 'host': others are not supported by this version of drover yet",
        ),
        (json!({ "networks": [{ "mode": "host", "name": "x" }] }), "/networks(0)/name: must not be given for the host network"),
        (json!({ "container": { "type": "DOCKER" } }), "/container: is not supported by this version of drover yet"),
        (json!({ "healthChecks": [{}] }), "/healthChecks: is not supported by this version of drover yet"),
        (json!({ "readinessChecks": [{}] }), "/readinessChecks: is not supported by this version of drover yet"),
        (json!({ "fetch": [{ "uri": "x" }] }), "/fetch: is not supported by this version of drover yet"),
        (json!({ "uris": ["x"] }), "/uris: is not supported by this version of drover yet"),
        (json!({ "secrets": { "s": { "source": "x" } } }), "/secrets: is not supported by this version of drover yet"),
        (json!({ "residency": { "x": 1 } }), "/residency: is not supported by this version of drover yet"),
        (json!({ "tty": true }), "/tty: is not supported by this version of drover yet"),
        (json!({ "executor": "/x" }), "/executor: must be '' or '//cmd': drover has no custom executors"),
        (json!({ "constraints": [["a"]] }), "/constraints(0): must hold a field, an operator and at most one value"),
        (json!({ "constraints": ["a"] }), "/constraints(0): must be a list"),
        (
            json!({ "constraints": [["a", "IN", "b"]] }),
            "/constraints(0): the operator must be one of UNIQUE, CLUSTER, GROUP_BY, MAX_PER, LIKE, UNLIKE, IS; 'IN' is not",
        ),
        (json!({ "constraints": [["a", "MAX_PER", 2]] }), "/constraints(0)(2): must be a string"),
        (json!({ "constraints": [["a", "MAX_PER"]] }), "/constraints(0): MAX_PER needs a value"),
        (
            json!({ "constraints": [["a", "MAX_PER", "0"]] }),
            "/constraints(0): the value of MAX_PER must be a whole number above 0",
        ),
        (
            json!({ "constraints": [["a", "GROUP_BY", "x"]] }),
            "/constraints(0): the value of GROUP_BY must be a whole number above 0",
        ),
        (json!({ "constraints": [["a", "UNIQUE", "x"]] }), "/constraints(0): UNIQUE takes no value"),
        (json!({ "constraints": [["", "UNIQUE"]] }), "/constraints(0): the field must not be empty"),
        (json!({ "backoffSeconds": -1 }), "/backoffSeconds: must be from 0 to 3153600000"),
        (json!({ "backoffFactor": 0.9 }), "/backoffFactor: must be from 1 to 1000"),
        (json!({ "maxLaunchDelaySeconds": 1e20 }), "/maxLaunchDelaySeconds: must be from 0 to 3153600000"),
        (json!({ "taskKillGracePeriodSeconds": "1" }), "/taskKillGracePeriodSeconds: must be a number"),
        (json!({ "killSelection": "RANDOM" }), "/killSelection: must be 'YOUNGEST_FIRST' or 'OLDEST_FIRST'"),
        (
            json!({ "upgradeStrategy": { "minimumHealthCapacity": 1.1 } }),
            "/upgradeStrategy/minimumHealthCapacity: must be from 0 to 1",
        ),
        (json!({ "upgradeStrategy": 1 }), "/upgradeStrategy: must be an object"),
        (json!({ "unreachableStrategy": "never" }), "/unreachableStrategy: must be 'disabled' or an object"),
        (
            json!({ "unreachableStrategy": { "inactiveAfterSeconds": 2, "expungeAfterSeconds": 1 } }),
            "/unreachableStrategy: 'inactiveAfterSeconds' must not be greater than 'expungeAfterSeconds'",
        ),
        (json!({ "dependencies": ["../../x"] }), "/dependencies(0): '../../x' leads above the root"),
        (json!({ "acceptedResourceRoles": [] }), "/acceptedResourceRoles: must not be empty: leave it out to accept any"),
        (
            json!({ "acceptedResourceRoles": ["db"] }),
            "/acceptedResourceRoles: must hold only '*' and the app's own role '*'; 'db' is neither",
        ),
        (json!({ "role": "a b" }), "/role: must be a role: not empty, without spaces, slashes and a leading '-'"),
        (json!({ "unit": { "Nonsense": "1" } }), "/unit/Nonsense: "),
        (json!({ "unit": { "LimitNOFILE": 5 } }), "/unit/LimitNOFILE: must be a string"),
        (
            json!({ "labels": { "MARATHON_SINGLE_INSTANCE_APP": "true" }, "instances": 2, "upgradeStrategy": { "minimumHealthCapacity": 0, "maximumOverCapacity": 0 } }),
            "/instances: must be at most 1 with the label MARATHON_SINGLE_INSTANCE_APP",
        ),
    ] {
        let mut body = json!({ "id": "/g/a", "cmd": "x" });
        for (key, value) in member.as_object().unwrap() {
            body[key] = value.clone();
        }
        let error = read(&body, Mode::Full, None).expect_err(expect);
        assert_eq!(error.status(), 422);
        let told = faults(&error);
        assert!(told.len() == 1 && told[0].starts_with(expect), "{member}: {told:#?}");
    }
}

#[test]
fn all_faults_are_told_at_once() {
    let body = json!({ "id": "/A", "instances": -1, "cpus": "x", "container": { "type": "DOCKER" }, "constraints": [["a", "LIKE", "("]] });
    let told = faults(&read(&body, Mode::Full, None).unwrap_err());
    let paths: Vec<&str> = told.iter().filter_map(|fault| fault.split_once(": ").map(|(path, _)| path)).collect();
    assert_eq!(paths, ["/constraints(0)", "/container", "/cpus", "/id", "/instances"], "{told:#?}");

    let list = json!([{ "id": "/a", "cmd": "x" }, { "cmd": "x", "mem": -1 }, { "id": "/a", "cmd": "y" }]);
    let error = read_apps(list.to_string().as_bytes(), Mode::Full, |_| None).unwrap_err();
    assert_eq!(
        faults(&error),
        ["/(1)/id: must not be empty", "/(1)/mem: must be from 0 to 1073741824", "/(2)/id: must not be in the list twice"]
    );
}

#[test]
fn what_is_no_document_is_told_apart() {
    let read = |body: &str| read_app(body.as_bytes(), None, Mode::Full, |_| None).unwrap_err();
    let error = read("{\"id\":");
    assert_eq!((error.status(), error.body()["message"].as_str()), (400, Some("Invalid JSON")));
    assert!(error.body()["details"].as_str().unwrap().contains("EOF"));
    assert_eq!(read("").status(), 400);
    assert_eq!(read("{\"id\":\"/a\",\"cpus\":NaN}").status(), 400);
    assert_eq!(read("{\"id\":\"/a\",\"cpus\":1e999}").status(), 400);
    assert_eq!(read(&"[".repeat(100_000)).status(), 400, "deep nesting must not exhaust the stack");
    let error = read("[]");
    assert_eq!((error.status(), faults(&error)), (400, vec!["/: must be an object".to_owned()]));
    let error = read_apps(b"{}", Mode::Full, |_| None).unwrap_err();
    assert_eq!((error.status(), faults(&error)), (400, vec!["/: must be a list of apps".to_owned()]));
    let error = read_apps(b"[1]", Mode::Full, |_| None).unwrap_err();
    assert_eq!((error.status(), faults(&error)), (400, vec!["/(0): must be an object".to_owned()]));
}

#[test]
fn a_version_alone_is_a_rollback() {
    let app = read(&json!({ "id": "/a", "cmd": "x" }), Mode::Full, None).unwrap();
    let url = app.id.clone();
    let read = |body: Value, mode| read_app(body.to_string().as_bytes(), Some(&url), mode, |_| Some(&app));
    for body in [
        json!({ "version": "2024-01-01T10:00:00.000Z" }),
        json!({ "id": "/a", "version": "2024-01-01T10:00:00Z", "tasks": [] }),
    ] {
        assert_eq!(read(body, Mode::Partial), Ok(Wish::Version(url.clone(), NOW)));
    }
    let both = json!({ "version": "2024-01-01T10:00:00.000Z", "instances": 2 });
    let error = read(both.clone(), Mode::Partial).unwrap_err();
    assert_eq!(faults(&error), ["/version: The 'version' field may only be combined with the 'id' field."]);
    let mut whole = both;
    whole["cmd"] = json!("y");
    assert!(matches!(read(whole, Mode::Full), Ok(Wish::Definition(_))), "a whole definition may name the version it came from");
    let error = read(json!({ "version": "yesterday" }), Mode::Partial).unwrap_err();
    assert_eq!(faults(&error), ["/version: must be a version of this app, such as 2024-01-01T10:00:00.000Z"]);
    let error = read(json!({ "id": "/b", "cmd": "x" }), Mode::Partial).unwrap_err();
    assert_eq!(faults(&error), ["/id: must be the id in the URL, /a, or be left out"]);
}

#[test]
fn unit_properties_show_only_when_asked_for() {
    let app = read(&json!({ "id": "/a", "cmd": "x", "unit": { "LimitNOFILE": "1024" } }), Mode::Full, None).unwrap();
    assert_eq!(out(&app).get("unit"), None);
    for embed in ["apps.unit", "app.unit", "unit"] {
        let shown = serde_json::to_value(AppOut::definition(&app, &Embed::default().with([embed]))).unwrap();
        assert_eq!(shown["unit"], json!({ "LimitNOFILE": "1024" }), "{embed}");
    }
}

#[test]
fn a_deployment_is_told_in_marathons_events() {
    let app = read(&json!({ "id": "/a", "cmd": "x" }), Mode::Full, None).unwrap();
    let request = Request {
        edits: BTreeMap::from([(app.id.clone(), Edit::Put(Box::new(app)))]),
        force: false,
        preselected: BTreeSet::new(),
        deployment: DeploymentId::new("d"),
        now: NOW,
    };
    let mut state = ClusterState::default();
    let plan = change::plan(&state, request).unwrap();
    let mut events = state.apply(&plan.command()).events;
    let deployment = Box::new(plan.deployment.clone());
    events.push(Event { at: NOW, kind: EventKind::DeploymentStepSucceeded(deployment.clone()) });
    events.push(Event { at: NOW, kind: EventKind::DeploymentSucceeded(deployment.clone()) });
    events.push(Event { at: NOW, kind: EventKind::DeploymentFailed(deployment) });
    let told: Vec<_> = events.iter().flat_map(event::render).collect();
    let kinds: Vec<&str> = told.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(
        kinds,
        [
            "api_post_event",
            "group_change_success",
            "deployment_info",
            "deployment_step_success",
            "deployment_success",
            "deployment_step_failure",
            "deployment_failed"
        ]
    );
    assert!(told.iter().all(|(kind, data)| data["eventType"] == *kind && data["timestamp"] == "2024-01-01T10:00:00.000Z"));
    assert_eq!(told[0].1["appDefinition"]["id"], "/a");
    assert_eq!(
        told[2].1,
        json!({
            "eventType": "deployment_info", "timestamp": "2024-01-01T10:00:00.000Z",
            "plan": {
                "id": "d", "version": "2024-01-01T10:00:00.000Z", "original": {}, "target": {},
                "steps": [{ "actions": [{ "action": "StartApplication", "app": "/a" }] },
                    { "actions": [{ "action": "ScaleApplication", "app": "/a" }] }]
            },
            "currentStep": { "actions": [{ "action": "StartApplication", "app": "/a" }] }
        })
    );
}
