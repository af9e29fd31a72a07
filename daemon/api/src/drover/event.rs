//! What happens in the cluster, as `/events` tells it.

use super::{ApiVersion, NodeState, Run, RunState, TaskState, Time};
use drover_core::event::EventKind;
use drover_core::task;
use serde::{Deserialize, Serialize};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Always `drover/v1`.
    pub api_version: ApiVersion,
    /// Raft index of what it came of.
    pub index: u64,
    /// When.
    pub at: Time,
    /// What.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// The app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// The deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<String>,
    /// The job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// The run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The state it is in now, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// More, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "drover_core::event::EventKind says what each means")]
pub enum EventType {
    AppChanged,
    AppRemoved,
    DeploymentStarted,
    DeploymentStepSucceeded,
    DeploymentSucceeded,
    DeploymentFailed,
    TaskChanged,
    NodeChanged,
    JobChanged,
    JobRemoved,
    RunChanged,
    VersionRaised,
    /// One that this version does not know.
    #[serde(other)]
    Unknown,
}

impl EventType {
    /// The word in JSON, on screens and in the SSE stream's `event:` line.
    pub fn word(self) -> &'static str {
        match self {
            Self::AppChanged => "app-changed",
            Self::AppRemoved => "app-removed",
            Self::DeploymentStarted => "deployment-started",
            Self::DeploymentStepSucceeded => "deployment-step-succeeded",
            Self::DeploymentSucceeded => "deployment-succeeded",
            Self::DeploymentFailed => "deployment-failed",
            Self::TaskChanged => "task-changed",
            Self::NodeChanged => "node-changed",
            Self::JobChanged => "job-changed",
            Self::JobRemoved => "job-removed",
            Self::RunChanged => "run-changed",
            Self::VersionRaised => "version-raised",
            Self::Unknown => "unknown",
        }
    }
}

impl Event {
    /// What `apply` told of the entry at `index`.
    pub fn new(index: u64, event: &drover_core::event::Event) -> Self {
        let mut edge = Self {
            api_version: ApiVersion,
            index,
            at: event.at.into(),
            kind: EventType::Unknown,
            app: None,
            deployment: None,
            job: None,
            run: None,
            task: None,
            node: None,
            state: None,
            message: String::new(),
        };
        match &event.kind {
            EventKind::AppChanged(app) => {
                edge.kind = EventType::AppChanged;
                edge.app = Some(app.id.to_string());
                edge.message = format!("version {}, {} wanted", app.version, count(app.instances.into(), "instance"));
            }
            EventKind::AppRemoved(app) => {
                edge.kind = EventType::AppRemoved;
                edge.app = Some(app.to_string());
            }
            EventKind::DeploymentStarted(deployment) => edge.tell_deployment(EventType::DeploymentStarted, deployment),
            EventKind::DeploymentStepSucceeded(deployment) => {
                edge.tell_deployment(EventType::DeploymentStepSucceeded, deployment);
                let step = format!("step {} of {}", deployment.current + 1, deployment.steps.len());
                edge.message = if edge.app.is_some() { step } else { format!("{step}: {}", edge.message) };
            }
            EventKind::DeploymentSucceeded(deployment) => edge.tell_deployment(EventType::DeploymentSucceeded, deployment),
            EventKind::DeploymentFailed(deployment) => edge.tell_deployment(EventType::DeploymentFailed, deployment),
            EventKind::TaskChanged(task) => {
                edge.kind = EventType::TaskChanged;
                edge.task = Some(task.id.to_string());
                edge.node = Some(task.host.clone());
                edge.state = Some(TaskState::from(task.state).word().to_owned());
                edge.message = match &task.kill {
                    Some(kill) if task.message.is_empty() => format!("told to end: {}", kill.why),
                    _ => task.message.clone(),
                };
                match &task.spec.owner {
                    task::Owner::App { app, .. } => edge.app = Some(app.to_string()),
                    task::Owner::Run { job, run, .. } => {
                        edge.job = Some(job.to_string());
                        edge.run = Some(run.to_string());
                    }
                }
            }
            EventKind::AgentChanged { agent: _, host, reachability } => {
                edge.kind = EventType::NodeChanged;
                edge.node = Some(host.clone());
                let state = match reachability.map(NodeState::from) {
                    Some(NodeState::Up) => "up",
                    Some(NodeState::Unreachable) => "unreachable",
                    Some(NodeState::Gone) | None => "gone",
                };
                edge.state = Some(state.to_owned());
            }
            EventKind::JobChanged(job) => {
                edge.kind = EventType::JobChanged;
                edge.job = Some(job.to_string());
            }
            EventKind::JobRemoved(job) => {
                edge.kind = EventType::JobRemoved;
                edge.job = Some(job.to_string());
            }
            EventKind::RunChanged(run) => {
                let run = Run::from(run.as_ref());
                edge.kind = EventType::RunChanged;
                let state = match (run.state, run.result) {
                    (RunState::Queued, _) => "queued",
                    (RunState::Active, _) => "active",
                    (RunState::Ending, _) => "ending",
                    (RunState::Done, Some(result)) => result.word(),
                    (RunState::Done, None) => "done",
                };
                edge.state = Some(state.to_owned());
                edge.message = run.message;
                edge.job = Some(run.job);
                edge.run = Some(run.id);
                edge.task = run.task;
                edge.node = run.node;
            }
            EventKind::VersionRaised(to) => {
                edge.kind = EventType::VersionRaised;
                edge.message = format!("the cluster is at version {to}");
            }
        }
        edge
    }

    fn tell_deployment(&mut self, kind: EventType, deployment: &drover_core::deployment::Deployment) {
        self.kind = kind;
        self.deployment = Some(deployment.id.to_string());
        let apps: Vec<&str> = deployment.apps().into_iter().map(|app| app.as_str()).collect();
        if let [app] = apps.as_slice() {
            self.app = Some((*app).to_owned());
        }
        self.message = apps.join(", ");
    }
}

fn count(n: u64, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_core::ids::{JobName, RunId, TaskId};
    use drover_core::job;
    use drover_core::time::Timestamp;
    use serde_json::json;

    #[test]
    fn words_and_json_agree() {
        for state in [TaskState::Running, TaskState::GoneByOperator, TaskState::Unknown] {
            assert_eq!(serde_json::to_value(state).unwrap(), json!(state.word()));
        }
        for kind in [EventType::AppChanged, EventType::DeploymentStepSucceeded, EventType::RunChanged] {
            assert_eq!(serde_json::to_value(kind).unwrap(), json!(kind.word()));
        }
        assert_eq!(serde_json::from_value::<EventType>(json!("quota-changed")).unwrap(), EventType::Unknown);
    }

    #[test]
    fn a_run_tells_its_state_and_its_end() {
        let name = JobName::parse("etl").unwrap();
        let mut run = job::Run {
            id: RunId::of(&name, 5),
            job: name.clone(),
            slot: Timestamp(5),
            cause: job::Cause::Slot,
            arguments: vec![],
            attempt: 1,
            state: job::RunState::Active { task: TaskId::of_run(&name, 5, 1) },
            queued_at: Timestamp(6),
            started_at: None,
            host: Some("n1".into()),
            exit: None,
            message: String::new(),
        };
        let edge = Run::from(&run);
        assert_eq!((edge.state, edge.task.as_deref()), (RunState::Active, Some("ct:5:1:etl:")));
        run.state = job::RunState::Done { state: task::TaskState::Failed, at: Timestamp(9) };
        run.exit = Some(task::Exit::Signal(9));
        let edge = Run::from(&run);
        assert_eq!((edge.state, edge.result, edge.exit.signal), (RunState::Done, Some(TaskState::Failed), Some(9)));
        let value = serde_json::to_value(&edge).unwrap();
        assert_eq!(value["signal"], json!(9));
        assert_eq!(value["endedAt"], json!("1970-01-01T00:00:00.009Z"));
        assert_eq!(serde_json::from_value::<Run>(value).unwrap(), edge);
        let told = Event::new(4, &drover_core::event::Event { at: Timestamp(9), kind: EventKind::RunChanged(Box::new(run)) });
        assert_eq!(
            (told.kind, told.state.as_deref(), told.run.as_deref()),
            (EventType::RunChanged, Some("failed"), Some("etl@5"))
        );
    }
}
