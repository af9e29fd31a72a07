//! Requests and answers as clients see them: a small cluster whose state is changed by the requests themselves.

use super::answer::{Server, Step, World};
use super::ask::Ask;
use super::route::decide;
use crate::config::Limits;
use drover_core::agent::{AgentInfo, unreserved};
use drover_core::framework::Launch;
use drover_core::ids::{AgentId, AppId, DeploymentId, TaskId};
use drover_core::leader::{Request as Wants, Waiting};
use drover_core::matcher::Against;
use drover_core::resources::{Allocation, Ports, Scalars};
use drover_core::state::{ClusterState, Command};
use drover_core::task::{Reason, TaskState, TaskStatus};
use drover_core::time::{Millis, Timestamp};
use hyper::http::request::Parts;
use hyper::{Request, StatusCode};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const T0: Timestamp = Timestamp(1_704_103_200_000);

/// A cluster of one agent, and a client of it.
struct Cluster {
    state: ClusterState,
    waiting: BTreeMap<Wants, Waiting>,
    now: Timestamp,
    deployments: u32,
    limits: Limits,
}

struct Reply {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Value,
}

impl Cluster {
    fn new() -> Self {
        let mut state = ClusterState::default();
        let total = Scalars { cpus_milli: 64_000, mem_bytes: 64 << 30, disk_bytes: 64 << 30, gpus: 0 };
        let info = AgentInfo {
            id: AgentId::new("agent-1"),
            host: "n1".into(),
            boot_id: "boot".into(),
            resources: unreserved(total, Ports::from_ranges([(31000, 32000)])),
            attributes: BTreeMap::from([("zone".into(), "z1".into())]),
            systemd: 257,
            version: "0.1.0".into(),
            enforces: BTreeSet::new(),
            tasks_max: drover_core::agent::TASKS_MAX,
        };
        assert_eq!(state.apply(&Command::AdmitAgent { info: Box::new(info), at: T0 }).result, Ok(()));
        Self {
            state,
            waiting: BTreeMap::new(),
            now: T0,
            deployments: 0,
            limits: Limits { apps: 10, instances: 100, instances_total: 1000, ..Limits::default() },
        }
    }

    fn ask(&mut self, line: &str, body: Value) -> Reply {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.ask_raw(line, "", &body)
    }

    /// `line` is the method and the target. What the answer proposes is applied, as it would be by consensus.
    fn ask_raw(&mut self, line: &str, accept: &str, body: &[u8]) -> Reply {
        let (method, target) = line.split_once(' ').expect("METHOD target");
        let request = Request::builder().method(method).uri(target).header("accept", accept).body(()).unwrap();
        let head: Parts = request.into_parts().0;
        self.deployments += 1;
        self.now = self.now + Millis::from_secs(1);
        let server = Server { host: "m1".into(), port: 7070, is_leader: true, leader: Some("m1:7070".into()) };
        let world = World {
            state: &self.state,
            waiting: &self.waiting,
            server: &server,
            now: self.now,
            new_id: DeploymentId::new(format!("d{}", self.deployments)),
            limits: self.limits,
        };
        let answer = match decide(&Ask::new(&head, body), &world) {
            Ok(Step::Answer(answer)) => answer,
            Ok(Step::Propose { commands, answer }) => {
                assert!(!commands.is_empty());
                for command in &commands {
                    assert_eq!(self.state.apply(command).result, Ok(()), "{line}: {command:?}");
                }
                answer
            }
            Err(error) => super::Answer::error(&error),
        };
        let text = String::from_utf8(answer.body).unwrap();
        Reply {
            status: answer.status.as_u16(),
            headers: answer.headers.iter().map(|(key, value)| (key.to_string(), value.to_str().unwrap().to_owned())).collect(),
            body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
        }
    }

    /// Finishes every deployment, whatever runs.
    fn settle(&mut self) {
        while let Some(deployment) = self.state.deployments.values().next().cloned() {
            let command = Command::AdvanceDeployment { id: deployment.id, from_step: deployment.current, at: self.now };
            assert_eq!(self.state.apply(&command).result, Ok(()));
        }
    }

    fn with(apps: &[&str]) -> Self {
        let mut cluster = Self::new();
        for app in apps {
            let reply =
                cluster.ask("POST /v2/apps", json!({ "id": app, "cmd": "sleep 600", "cpus": 0.1, "mem": 32, "instances": 2 }));
            assert_eq!(reply.status, 201, "{}", reply.body);
            cluster.settle();
        }
        cluster
    }

    /// Starts an instance, as the leader and the agent would.
    fn run(&mut self, app: &str, unique: &str, port: u16) -> String {
        let app = self.state.apps[app].app.clone();
        let task = TaskId::of_app(&app.id, unique);
        let ports = if app.ports.is_empty() { vec![] } else { vec![port] };
        let spec = drover_core::app_spec::task_spec(&app, &task, &ports, "n1");
        let allocation = Allocation { scalars: [(drover_core::ids::Role::any(), app.resources)].into(), ports };
        let agent = AgentId::new("agent-1");
        let launch = Launch { task: task.clone(), agent: agent.clone(), allocation, spec };
        assert_eq!(self.state.apply(&Command::LaunchTask { launch: Box::new(launch), at: self.now }).result, Ok(()));
        self.report(&task, 1, TaskState::Running, "");
        task.to_string()
    }

    fn report(&mut self, task: &TaskId, seq: u64, state: TaskState, message: &str) {
        let status = TaskStatus {
            task: task.clone(),
            seq,
            state,
            reason: Reason::Normal,
            message: message.into(),
            at: self.now,
            exit: None,
            invocation: None,
            usage: None,
        };
        let command = Command::RecordStatus { agent: AgentId::new("agent-1"), status: Box::new(status), at: self.now };
        assert_eq!(self.state.apply(&command).result, Ok(()));
    }
}

fn ids(apps: &Value) -> Vec<&str> {
    apps.as_array().expect("a list").iter().map(|app| app["id"].as_str().unwrap()).collect()
}

#[test]
fn an_app_lives_its_life() {
    let mut cluster = Cluster::new();
    let body = json!({ "id": "demo", "cmd": "sleep 600" });
    let reply = cluster.ask("POST /v2/apps", body.clone());
    assert_eq!((reply.status, reply.headers["location"].as_str()), (201, "/demo"));
    assert_eq!(reply.headers["marathon-deployment-id"], "d1");
    assert_eq!(reply.body["deployments"], json!([{ "id": "d1" }]));
    assert_eq!((&reply.body["tasksRunning"], &reply.body["tasks"]), (&json!(0), &json!([])));

    let reply = cluster.ask("POST /v2/apps?force=True", body.clone());
    assert_eq!((reply.status, &reply.body), (409, &json!({ "message": "An app with id [/demo] already exists." })));

    let reply = cluster.ask("PUT /v2/apps/demo", json!({ "instances": 3 }));
    assert_eq!(reply.status, 409);
    assert_eq!(reply.body["deployments"], json!([{ "id": "d1" }]));
    assert!(reply.body["message"].as_str().unwrap().starts_with("App is locked by one or more deployments. Override with"));

    let reply = cluster.ask("PUT /v2/apps/demo?force=TRUE", json!({ "instances": 3 }));
    assert_eq!((reply.status, reply.body["deploymentId"].as_str()), (200, Some("d4")));
    let version = reply.body["version"].as_str().unwrap().to_owned();
    let app = cluster.ask("GET /v2/apps//demo/", Value::Null).body["app"].clone();
    assert_eq!((app["instances"].as_u64(), app["version"].as_str()), (Some(3), Some(version.as_str())));
    assert_eq!((&app["deployments"], &app["cmd"]), (&json!([{ "id": "d4" }]), &json!("sleep 600")));
    assert_eq!(ids(&cluster.ask("GET /v2/deployments", Value::Null).body), ["d4"], "the forced one is gone");
    cluster.settle();

    let reply = cluster.ask("POST /v2/apps/demo/restart", Value::Null);
    assert_eq!(reply.status, 200);
    cluster.settle();
    let versions = cluster.ask("GET /v2/apps/demo/versions", Value::Null).body["versions"].clone();
    let versions: Vec<&str> = versions.as_array().unwrap().iter().map(|version| version.as_str().unwrap()).collect();
    assert!(versions.len() == 3 && versions.is_sorted_by(|a, b| a > b), "newest first: {versions:?}");

    let first = versions[2];
    let old = cluster.ask(&format!("GET /v2/apps/demo/versions/{first}"), Value::Null);
    assert_eq!((old.status, &old.body["instances"], old.body.get("tasksRunning")), (200, &json!(1), None));
    let reply = cluster.ask("PUT /v2/apps/demo", json!({ "version": first }));
    assert_eq!(reply.status, 200);
    cluster.settle();
    let app = cluster.ask("GET /v2/apps/demo", Value::Null).body["app"].clone();
    assert_eq!(app["instances"], 1);
    assert!(app["version"].as_str().unwrap() > version.as_str(), "an old definition is a new version");

    let reply = cluster.ask("DELETE /v2/apps/demo", Value::Null);
    assert_eq!(reply.status, 200);
    assert_eq!(cluster.ask("GET /v2/apps/demo", Value::Null).status, 404);
    assert_eq!(cluster.ask("POST /v2/apps", body).status, 409, "it is held until its tasks are gone");
}

#[test]
fn put_merges_unless_told_not_to() {
    let mut cluster = Cluster::with(&["/a"]);
    let mut put = |target: &str, body: Value| {
        let reply = cluster.ask(&format!("PUT {target}"), body);
        cluster.settle();
        let app = cluster.ask("GET /v2/apps/a", Value::Null).body["app"].clone();
        (reply.status, app)
    };
    let (status, app) = put("/v2/apps/a", json!({ "env": { "A": "1", "B": "2" }, "labels": null }));
    assert_eq!((status, &app["env"], &app["mem"]), (200, &json!({ "A": "1", "B": "2" }), &json!(32)));
    let (_, app) = put("/v2/apps/a?partialUpdate=true", json!({ "env": { "C": "3" } }));
    assert_eq!(app["env"], json!({ "C": "3" }), "maps are replaced, not merged");
    let (_, app) = put("/v2/apps/a", json!({ "args": ["sleep", "1"] }));
    assert_eq!((app.get("cmd"), &app["args"], &app["instances"]), (None, &json!(["sleep", "1"]), &json!(2)));
    let (_, app) = put("/v2/apps/a?partialUpdate=false", json!({ "cmd": "x", "version": "2024-01-01T10:00:00.000Z" }));
    assert_eq!((&app["cmd"], app.get("env"), &app["mem"], &app["instances"]), (&json!("x"), None, &json!(128), &json!(1)));
    assert_eq!(app["portDefinitions"][0]["port"], 10000, "the service port is kept by position");
    assert_eq!(put("/v2/apps/a?partialUpdate=False", json!({ "instances": 2 })).0, 422, "a whole definition needs a program");
}

#[test]
fn a_put_that_changes_nothing_is_over_at_once() {
    let mut cluster = Cluster::with(&["/a"]);
    let before = cluster.state.apps.clone();
    let whole = cluster.ask("GET /v2/apps/a", Value::Null).body["app"].clone();
    let mut whole = whole.as_object().unwrap().clone();
    whole.remove("version");
    for body in [json!({}), json!({ "instances": 2 }), Value::Object(whole)] {
        let reply = cluster.ask("PUT /v2/apps/a", body);
        assert_eq!(reply.status, 200, "{}", reply.body);
        assert!(reply.body["deploymentId"].is_string() && cluster.state.deployments.is_empty());
    }
    assert_eq!(cluster.state.apps, before);
}

#[test]
fn put_creates_and_patch_does_not() {
    let mut cluster = Cluster::new();
    let reply = cluster.ask("PUT /v2/apps/new", json!({ "cmd": "x" }));
    assert_eq!((reply.status, reply.headers["location"].as_str()), (201, "/new"));
    let reply = cluster.ask("PATCH /v2/apps/other", json!({ "cmd": "x" }));
    assert_eq!((reply.status, &reply.body), (404, &json!({ "message": "App '/other' does not exist" })));
    let reply = cluster.ask("PATCH /v2/apps", json!([{ "id": "/new", "instances": 2 }, { "id": "/other", "cmd": "x" }]));
    assert_eq!(reply.status, 404);
    cluster.settle();
    let reply = cluster.ask("PATCH /v2/apps", json!([{ "id": "/new", "instances": 2 }]));
    assert_eq!((reply.status, cluster.state.apps["/new"].app.instances), (200, 2));
    let reply = cluster.ask("PUT /v2/apps/a/tasks", json!({ "cmd": "x" }));
    assert_eq!(reply.status, 405, "a reserved word is no id");
    let reply = cluster.ask("PUT /v2/apps/Bad", json!({ "cmd": "x" }));
    assert_eq!((reply.status, &reply.body["details"][0]["path"]), (422, &json!("/id")));
}

#[test]
fn many_apps_are_one_deployment() {
    let mut cluster = Cluster::with(&["/db"]);
    let apps = json!([{ "id": "/db", "instances": 5 }, { "id": "/web", "cmd": "x", "dependencies": ["/db"] }]);
    let reply = cluster.ask("PUT /v2/apps", apps.clone());
    assert_eq!(reply.status, 200, "{}", reply.body);
    let listed = cluster.ask("GET /v2/deployments", Value::Null).body;
    assert_eq!(
        listed,
        json!([{
            "id": reply.body["deploymentId"], "version": reply.body["version"], "affectedApps": ["/db", "/web"], "affectedPods": [],
            "steps": [
                { "actions": [{ "action": "StartApplication", "app": "/web" }] },
                { "actions": [{ "action": "ScaleApplication", "app": "/db" }] },
                { "actions": [{ "action": "ScaleApplication", "app": "/web" }] }
            ],
            "currentActions": [{ "action": "StartApplication", "app": "/web", "readinessCheckResults": [] }],
            "currentStep": 1, "totalSteps": 3
        }])
    );
    let circle = json!([{ "id": "/db", "dependencies": ["/web"] }, { "id": "/x", "cmd": "y" }]);
    let reply = cluster.ask("PUT /v2/apps?force=true", circle);
    assert_eq!(reply.status, 422);
    assert_eq!(
        reply.body,
        json!({ "message": "Object is not valid", "details": [
            { "path": "/(0)/dependencies", "errors": ["Dependency graph has cyclic dependencies."] }] })
    );
    let reply = cluster.ask("POST /v2/apps", json!({ "id": "/db/x", "cmd": "y" }));
    assert_eq!((reply.status, &reply.body["details"][0]["path"]), (422, &json!("/id")));
}

#[test]
fn lists_can_be_narrowed() {
    let mut cluster = Cluster::with(&["/prod/web", "/prod/db", "/test/web"]);
    cluster.ask("PUT /v2/apps/prod/web", json!({ "labels": { "tier": "front" }, "cmd": "Serve it" }));
    for (target, expect) in [
        ("/v2/apps", vec!["/prod/db", "/prod/web", "/test/web"]),
        ("/v2/apps/", vec!["/prod/db", "/prod/web", "/test/web"]),
        ("/v2/apps?id=WEB", vec!["/prod/web", "/test/web"]),
        ("/v2/apps?cmd=serve", vec!["/prod/web"]),
        ("/v2/apps?label=tier%3D%3Dfront", vec!["/prod/web"]),
        ("/v2/apps?label=tier+in+(back)", vec![]),
    ] {
        let reply = cluster.ask(&format!("GET {target}"), Value::Null);
        assert_eq!(ids(&reply.body["apps"]), expect, "{target}");
        assert!(
            reply.body["apps"].as_array().unwrap().iter().all(|app| app["tasksRunning"].is_u64() && app.get("tasks").is_none())
        );
    }
    assert_eq!(cluster.ask("GET /v2/apps?label=a=b", Value::Null).status, 422);
    assert_eq!(ids(&cluster.ask("GET /v2/apps/prod/*", Value::Null).body["*"]), ["/prod/db", "/prod/web"]);
    assert_eq!(ids(&cluster.ask("GET /v2/apps/*", Value::Null).body["*"]).len(), 3);
    assert_eq!(cluster.ask("GET /v2/apps/none/*", Value::Null).status, 404);
}

#[test]
fn tasks_are_listed_and_embedded() {
    let mut cluster = Cluster::with(&["/prod/web", "/b"]);
    let one = cluster.run("/prod/web", "1", 31001);
    let two = cluster.run("/prod/web", "2", 31000);
    let reply = cluster.ask("GET /v2/apps/prod/web/tasks", Value::Null);
    let version = cluster.state.apps["/prod/web"].app.version.to_string();
    assert_eq!(
        reply.body["tasks"][0],
        json!({
            "id": "prod_web.1", "appId": "/prod/web", "host": "n1", "slaveId": "agent-1", "state": "TASK_RUNNING", "ports": [31001],
            "servicePorts": [10000], "ipAddresses": [], "stagedAt": "2024-01-01T10:00:02.000Z", "startedAt": "2024-01-01T10:00:02.000Z",
            "version": version, "healthCheckResults": [], "localVolumes": [], "zone": "z1"
        })
    );
    let text = cluster.ask_raw("GET /v2/tasks", "text/plain", b"");
    assert_eq!(text.body, json!("b\t10001\t\nprod_web\t10000\tn1:31000\tn1:31001\t\n"));
    assert!(text.headers["content-type"].starts_with("text/plain"));
    let both = cluster.ask_raw("GET /v2/tasks", "text/plain, application/json", b"");
    assert_eq!(ids(&both.body["tasks"]), [one.as_str(), two.as_str()]);
    assert_eq!(ids(&cluster.ask("GET /v2/tasks?status=staging", Value::Null).body["tasks"]), Vec::<&str>::new());
    assert_eq!(ids(&cluster.ask("GET /v2/tasks?status[]=running", Value::Null).body["tasks"]).len(), 2);
    assert_eq!(ids(&cluster.ask("GET /v2/apps/prod/*/tasks", Value::Null).body["tasks"]).len(), 2);

    let app = cluster.ask("GET /v2/apps?embed=apps.tasks&id=prod", Value::Null).body["apps"][0].clone();
    assert_eq!(
        (ids(&app["tasks"]), &app["tasksRunning"], &app["tasksStaged"]),
        (vec![one.as_str(), two.as_str()], &json!(2), &json!(0))
    );
    let stats = cluster.ask("GET /v2/apps/prod/web?embed=app.taskStats", Value::Null).body["app"]["taskStats"].clone();
    assert_eq!(stats["totalSummary"]["stats"]["counts"], json!({ "staged": 0, "running": 2, "healthy": 0, "unhealthy": 0 }));
    assert_eq!(stats.get("withOutdatedConfig"), None);

    cluster.report(&TaskId::new(one.as_str()), 2, TaskState::Failed, "exited with status 1");
    let app = cluster.ask("GET /v2/apps/prod/web", Value::Null).body["app"].clone();
    assert_eq!(
        (&app["lastTaskFailure"]["state"], &app["lastTaskFailure"]["taskId"]),
        (&json!("TASK_FAILED"), &json!("prod_web.1"))
    );
    assert_eq!(app["lastTaskFailure"]["message"], "exited with status 1");
}

#[test]
fn tasks_are_killed_with_and_without_scaling() {
    let mut cluster = Cluster::with(&["/a", "/b"]);
    let (a1, a2, b1) = (cluster.run("/a", "1", 31000), cluster.run("/a", "2", 31001), cluster.run("/b", "1", 31002));
    let killed = |cluster: &Cluster| -> Vec<String> {
        cluster.state.tasks.values().filter(|task| task.kill.is_some()).map(|task| task.id.to_string()).collect()
    };
    let reply = cluster.ask(&format!("DELETE /v2/apps/a/tasks/{a1}"), Value::Null);
    assert_eq!((reply.status, &reply.body["task"]["id"]), (200, &json!(a1)));
    assert_eq!(killed(&cluster), std::slice::from_ref(&a1));
    assert_eq!(cluster.state.apps["/a"].app.instances, 2, "it is to be replaced");
    let again = cluster.ask(&format!("DELETE /v2/apps/a/tasks/{a1}"), Value::Null);
    assert_eq!((again.status, &again.body["task"]["state"]), (200, &json!("TASK_KILLING")));

    for (line, status, message) in [
        (format!("DELETE /v2/apps/b/tasks/{a2}"), 404, format!("Task '{a2}' does not exist")),
        ("DELETE /v2/apps/a/tasks/a.9".to_owned(), 404, "Task 'a.9' does not exist".to_owned()),
        ("DELETE /v2/apps/x/tasks".to_owned(), 404, "App '/x' does not exist".to_owned()),
        (
            "DELETE /v2/apps/a/tasks?scale=true&wipe=true".to_owned(),
            400,
            "You cannot use scale and wipe at the same time.".to_owned(),
        ),
    ] {
        let reply = cluster.ask(&line, Value::Null);
        assert_eq!((reply.status, &reply.body["message"]), (status, &json!(message)), "{line}");
    }
    assert_eq!(cluster.ask("DELETE /v2/apps/a/tasks?host=other", Value::Null).body, json!({ "tasks": [] }));

    let reply = cluster.ask("POST /v2/tasks/delete?scale=true", json!({ "ids": [a1, a2, b1, "gone.1"] }));
    assert!(reply.status == 200 && reply.body["deploymentId"].is_string(), "{}", reply.body);
    assert_eq!(cluster.state.apps["/a"].app.instances, 1, "what was told to end already does not count");
    assert_eq!(cluster.state.apps["/b"].app.instances, 1);
    let preselected: Vec<String> =
        cluster.state.deployments.values().flat_map(|d| &d.preselected).map(ToString::to_string).collect();
    assert_eq!(preselected, [a2.as_str(), b1.as_str()]);
    assert_eq!(killed(&cluster), [a1], "the deployment does the killing");

    let reply = cluster.ask("POST /v2/tasks/delete", json!({ "ids": [b1] }));
    assert_eq!((reply.status, ids(&reply.body["tasks"])), (200, vec![b1.as_str()]));
    for (body, status) in [
        (json!({ "ids": ["nonsense"] }), 400),
        (json!({ "ids": [1] }), 422),
        (json!({}), 422),
        (json!([]), 422),
        (Value::Null, 400),
    ] {
        assert_eq!(cluster.ask("POST /v2/tasks/delete", body.clone()).status, status, "{body}");
    }
}

#[test]
fn deployments_are_reverted_or_stopped() {
    let mut cluster = Cluster::with(&["/a"]);
    let change = cluster.ask("PUT /v2/apps/a", json!({ "instances": 9 })).body["deploymentId"].as_str().unwrap().to_owned();
    assert_eq!(cluster.ask(&format!("GET /v2/deployments/{change}"), Value::Null).body["id"], json!(change));
    let reply = cluster.ask(&format!("DELETE /v2/deployments/{change}"), Value::Null);
    assert_eq!(reply.status, 200);
    let back = reply.body["deploymentId"].as_str().unwrap().to_owned();
    assert_eq!(ids(&cluster.ask("GET /v2/deployments", Value::Null).body), [back.as_str()]);
    assert_eq!(cluster.state.apps["/a"].app.instances, 2);
    let reply = cluster.ask(&format!("DELETE /v2/deployments/{back}?force=true"), Value::Null);
    assert_eq!((reply.status, &reply.body), (202, &json!("")));
    assert!(cluster.state.deployments.is_empty());
    let reply = cluster.ask(&format!("DELETE /v2/deployments/{back}"), Value::Null);
    assert_eq!((reply.status, &reply.body), (404, &json!({ "message": format!("DeploymentPlan {back} does not exist") })));

    // A restart has nothing to put back, and is cancelled all the same.
    let restart = cluster.ask("POST /v2/apps/a/restart", Value::Null).body["deploymentId"].as_str().unwrap().to_owned();
    assert_eq!(cluster.ask(&format!("DELETE /v2/deployments/{restart}"), Value::Null).status, 200);
    assert!(cluster.state.deployments.is_empty());
}

#[test]
fn what_waits_is_in_the_queue() {
    let mut cluster = Cluster::with(&["/a", "/b"]);
    let agents = BTreeMap::from([
        (
            AgentId::new("agent-1"),
            vec![Against::Memory { wanted: 2, free: 1 }, Against::Cpus { wanted_milli: 2, free_milli: 1 }],
        ),
        (AgentId::new("agent-2"), vec![Against::Ports { wanted: 1, free: 0, missing: vec![] }]),
        (AgentId::new("agent-3"), vec![]),
    ]);
    let waiting = Waiting { since: T0, count: 2, job: None, delayed_until: None, behind: false, agents };
    cluster.waiting.insert(Wants::App(AppId::parse("/a").unwrap()), waiting.clone());
    let until = cluster.now + Millis(3500);
    let delayed = Waiting { delayed_until: Some(until), agents: BTreeMap::new(), ..waiting };
    cluster.waiting.insert(Wants::App(AppId::parse("/b").unwrap()), delayed);

    let reply = cluster.ask("GET /v2/queue", Value::Null);
    let queue = &reply.body["queue"];
    assert_eq!((&queue[0]["count"], &queue[0]["delay"]), (&json!(2), &json!({ "timeLeftSeconds": 0, "overdue": true })));
    assert_eq!((&queue[0]["since"], &queue[0]["app"]["id"]), (&json!("2024-01-01T10:00:00.000Z"), &json!("/a")));
    assert_eq!(queue[1]["delay"], json!({ "timeLeftSeconds": 3, "overdue": false }));
    let summary = &queue[0]["processedOffersSummary"];
    assert_eq!((&summary["processedOffersCount"], &summary["unusedOffersCount"]), (&json!(3), &json!(2)));
    let rows: Vec<(&str, u64, u64)> = summary["rejectSummaryLastOffers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["reason"].as_str().unwrap(), row["declined"].as_u64().unwrap(), row["processed"].as_u64().unwrap()))
        .collect();
    assert_eq!(
        rows,
        [
            ("UnfulfilledRole", 0, 3),
            ("UnfulfilledConstraint", 0, 3),
            ("NoCorrespondingReservationFound", 0, 3),
            ("AgentMaintenance", 0, 3),
            ("InsufficientCpus", 1, 3),
            ("InsufficientMemory", 0, 2),
            ("InsufficientDisk", 0, 2),
            ("InsufficientGpus", 0, 2),
            ("InsufficientPorts", 1, 2),
            ("DeclinedScarceResources", 0, 1)
        ]
    );
    assert_eq!(queue[0].get("role"), None, "a client fails on it");
    assert_eq!(queue[0].get("lastUnusedOffers"), None);
    let reply = cluster.ask("GET /v2/queue?embed=lastUnusedOffers", Value::Null);
    assert_eq!(reply.body["queue"][0]["lastUnusedOffers"][0]["reason"], json!(["InsufficientCpus", "InsufficientMemory"]));

    assert_eq!(cluster.ask("DELETE /v2/queue//b/delay", Value::Null).status, 204);
    let reply = cluster.ask("DELETE /v2/queue/c/delay", Value::Null);
    assert_eq!((reply.status, &reply.body), (404, &json!({ "message": "Application /c not found in tasks queue." })));
}

#[test]
fn groups_are_the_tree_of_the_apps() {
    let mut cluster = Cluster::with(&["/top", "/p/db/main", "/p/web"]);
    let root = cluster.ask("GET /v2/groups", Value::Null).body;
    assert_eq!((ids(&root["apps"]), ids(&root["groups"])), (vec!["/top"], vec!["/p"]));
    let p = &root["groups"][0];
    assert_eq!((ids(&p["apps"]), ids(&p["groups"])), (vec!["/p/web"], vec!["/p/db"]));
    assert_eq!(ids(&p["groups"][0]["apps"]), ["/p/db/main"]);
    assert_eq!((&p["pods"], &p["dependencies"]), (&json!([]), &json!([])));
    assert_eq!(p["version"], cluster.state.apps["/p/web"].app.version.to_string());

    let some = cluster.ask("GET /v2/groups/p?embed=group.apps&embed=group.apps.counts", Value::Null).body;
    assert_eq!(
        (&some["groups"], ids(&some["apps"]), &some["apps"][0]["tasksRunning"]),
        (&json!([]), vec!["/p/web"], &json!(0))
    );
    assert_eq!(ids(&cluster.ask("GET /v2/groups/p/apps", Value::Null).body), ["/p/db/main", "/p/web"]);
    assert_eq!(ids(&cluster.ask("GET /v2/groups/apps", Value::Null).body).len(), 3);
    let versions = cluster.ask("GET /v2/groups/p/versions", Value::Null).body;
    assert_eq!(versions, json!([p["version"]]));
    let then = format!("GET /v2/groups/p/versions/{}", versions[0].as_str().unwrap());
    assert_eq!(cluster.ask(&then, Value::Null).body["id"], "/p");
    for missing in ["/v2/groups/none", "/v2/groups/top", "/v2/groups/p/versions/2020-01-01T00:00:00.000Z"] {
        assert_eq!(cluster.ask(&format!("GET {missing}"), Value::Null).status, 404, "{missing}");
    }
    assert_eq!(Cluster::new().ask("GET /v2/groups", Value::Null).body["groups"], json!([]), "the root is always there");
    assert_eq!(cluster.ask("PUT /v2/groups/p", json!({ "apps": [] })).status, 405);
}

#[test]
fn the_limit_of_apps_is_told() {
    let mut cluster = Cluster::with(&["/a"]);
    cluster.limits.apps = 1;
    let reply = cluster.ask("POST /v2/apps", json!({ "id": "/b", "cmd": "x" }));
    assert_eq!(reply.status, 403);
    assert!(reply.body["message"].as_str().unwrap().contains("1 apps at most"));
    assert_eq!(cluster.ask("PUT /v2/apps/a", json!({ "instances": 1 })).status, 200);
}

#[test]
fn the_limits_of_instances_are_told() {
    let mut cluster = Cluster::with(&["/a", "/b"]);
    cluster.limits.instances = 5;
    cluster.limits.instances_total = 7;
    let reply = cluster.ask("PUT /v2/apps/a?force=true", json!({ "instances": 6 }));
    assert_eq!(reply.status, 422);
    assert_eq!(reply.body["details"][0]["path"], "/instances");
    assert_eq!(cluster.ask("PUT /v2/apps/a?force=true", json!({ "instances": 5 })).status, 200);
    let reply = cluster.ask("PUT /v2/apps/b?force=true", json!({ "instances": 3 }));
    assert_eq!(reply.status, 403);
    assert!(reply.body["message"].as_str().unwrap().contains("7 instances of all apps together, and would have 8"));
    // What is there already is no reason to refuse what makes it less.
    cluster.limits.instances = 1;
    cluster.limits.instances_total = 1;
    assert_eq!(cluster.ask("PUT /v2/apps/a?force=true", json!({ "instances": 4 })).status, 200);
}

#[test]
fn paths_and_methods_that_are_not_there() {
    let mut cluster = Cluster::with(&["/a", "/a-versions/versions/b", "/x/tasks/y"]);
    for (line, status) in [
        ("GET /v2", 404),
        ("GET /v2/nonsense", 404),
        ("GET /v2/pods", 404),
        ("GET /v2/apps/none", 404),
        ("GET /v2/apps/Bad", 404),
        ("GET /v2/apps/none/tasks", 404),
        ("GET /v2/apps/none/versions", 404),
        ("POST /v2/apps/none/restart", 404),
        ("DELETE /v2/apps/none", 404),
        ("GET /v2/apps/a/versions/yesterday", 422),
        ("GET /v2/apps/a/versions/2020-01-01T00:00:00.000Z", 404),
        ("GET /v2/apps/a-versions/versions/b", 200),
        ("DELETE /v2/apps/x/tasks/y", 200),
        ("HEAD /v2/apps/a", 200),
        ("POST /v2/apps/a", 405),
        ("GET /v2/apps/a/restart", 405),
        ("PUT /v2/deployments", 405),
        ("POST /v2/queue", 405),
        ("DELETE /v2/leader", 405),
        ("GET /v2/tasks/delete", 405),
        ("GET /v2/leader", 200),
        ("GET /v2/info", 200),
    ] {
        let reply = cluster.ask(line, Value::Null);
        assert_eq!(reply.status, status, "{line}: {}", reply.body);
        assert!(status == 200 || reply.body["message"].is_string(), "{line}: {}", reply.body);
    }
    let reply = cluster.ask("DELETE /v2/info", Value::Null);
    assert_eq!((reply.status, reply.headers["allow"].as_str()), (405, "GET"));
    let info = cluster.ask("GET /v2/info", Value::Null).body;
    assert_eq!((&info["name"], &info["elected"], &info["leader"]), (&json!("marathon"), &json!(true), &json!("m1:7070")));
    for map in ["marathon_config", "zookeeper_config", "http_config"] {
        assert!(info[map].is_object(), "{map}");
    }
}

#[test]
fn every_answer_forbids_caching_and_names_the_leader() {
    let server = Server { host: "m1".into(), port: 7070, is_leader: true, leader: None };
    let response = super::Answer::empty(StatusCode::OK).into_response(&server);
    let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("cache-control"), "no-cache, no-store, must-revalidate");
    assert_eq!((header("pragma"), header("expires")), ("no-cache".into(), "0".into()));
    assert_eq!(header("x-marathon-leader"), "http://m1:7070");
}
