//! The event stream as Marathon's clients know it: one event of the core becomes any number of theirs.

use super::app::App;
use super::deployment::{Plan, Step};
use super::embed::Embed;
use super::task::{addresses, owner, visible_state};
use drover_core::deployment::{ActionKind, Deployment};
use drover_core::event::{Event, EventKind};
use drover_core::task::{Task, TaskState};
use drover_core::time::Timestamp;
use serde_json::{Value, json};

/// The first thing a client is told, about itself: type and data.
pub fn attached(remote_address: &str, now: Timestamp) -> (&'static str, Value) {
    told("event_stream_attached", now, json!({ "remoteAddress": remote_address }))
}

fn told(kind: &'static str, at: Timestamp, mut fields: Value) -> (&'static str, Value) {
    fields["eventType"] = kind.into();
    fields["timestamp"] = at.to_string().into();
    (kind, fields)
}

/// One event of the core in Marathon's words: types and data, in order.
pub fn render(event: &Event) -> Vec<(&'static str, Value)> {
    let told = |kind, fields| told(kind, event.at, fields);
    match &event.kind {
        EventKind::AppChanged(app) => {
            let uri = format!("/v2/apps{}", app.id);
            vec![told(
                "api_post_event",
                json!({ "clientIp": "", "uri": uri, "appDefinition": App::definition(app, &Embed::default()) }),
            )]
        }
        EventKind::DeploymentStarted(deployment) => vec![
            told("group_change_success", json!({ "groupId": "/", "version": deployment.version.to_string() })),
            told("deployment_info", with_step(deployment)),
        ],
        EventKind::DeploymentStepSucceeded(deployment) => {
            let stopped = deployment.current_actions().iter().filter(|action| action.kind == ActionKind::StopApplication);
            let mut events: Vec<_> =
                stopped.map(|action| told("app_terminated_event", json!({ "appId": action.app }))).collect();
            events.push(told("deployment_step_success", with_step(deployment)));
            events
        }
        EventKind::DeploymentSucceeded(deployment) => {
            vec![told("deployment_success", json!({ "id": deployment.id, "plan": Plan::of(deployment) }))]
        }
        EventKind::DeploymentFailed(deployment) => vec![
            told("deployment_step_failure", with_step(deployment)),
            told(
                "deployment_failed",
                json!({ "id": deployment.id, "plan": Plan::of(deployment), "reason": "it was cancelled" }),
            ),
        ],
        EventKind::TaskChanged(task) => {
            let Some(fields) = task_fields(task) else { return Vec::new() };
            let [status, instance] = fields;
            vec![told("status_update_event", status), told("instance_changed_event", instance)]
        }
        EventKind::AppRemoved(_)
        | EventKind::AgentChanged { .. }
        | EventKind::JobChanged(_)
        | EventKind::JobRemoved(_)
        | EventKind::RunChanged(_)
        | EventKind::VersionRaised(_) => Vec::new(),
    }
}

fn with_step(deployment: &Deployment) -> Value {
    json!({ "plan": Plan::of(deployment), "currentStep": Step::of(deployment.current_actions()) })
}

/// The two events of a task's change; `None` if it is no app's.
fn task_fields(task: &Task) -> Option<[Value; 2]> {
    let (app, version) = owner(task)?;
    let state = visible_state(task);
    let status = json!({
        "slaveId": task.agent,
        "taskId": task.id,
        "taskStatus": state.wire(),
        "message": task.message,
        "appId": app,
        "host": task.host,
        "ipAddresses": addresses(&task.host),
        "ports": task.allocation.ports,
        "version": version.to_string(),
    });
    let instance = json!({
        "instanceId": instance_id(task.id.as_str()),
        "condition": condition(state),
        "runSpecId": app,
        "agentId": task.agent,
        "host": task.host,
        "runSpecVersion": version.to_string(),
    });
    Some([status, instance])
}

/// `a_b.instance-<uuid>` of the task `a_b.<uuid>`.
fn instance_id(task: &str) -> String {
    match task.rsplit_once('.') {
        Some((app, unique)) => format!("{app}.instance-{unique}"),
        None => task.to_owned(),
    }
}

fn condition(state: TaskState) -> &'static str {
    match state {
        TaskState::Staging => "Staging",
        TaskState::Starting => "Starting",
        TaskState::Running => "Running",
        TaskState::Killing => "Killing",
        TaskState::Finished => "Finished",
        TaskState::Failed => "Failed",
        TaskState::Killed => "Killed",
        TaskState::Error => "Error",
        TaskState::Lost | TaskState::Unknown => "Unknown",
        TaskState::Dropped => "Dropped",
        TaskState::Unreachable => "Unreachable",
        TaskState::Gone | TaskState::GoneByOperator => "Gone",
    }
}
