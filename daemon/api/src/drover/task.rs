//! Tasks: the units that run, or may.

use super::{ApiVersion, Time};
use drover_core::task;
use serde::{Deserialize, Serialize};

/// Tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tasks {
    /// Always `drover/v1`.
    pub api_version: ApiVersion,
    /// By id.
    pub tasks: Vec<Task>,
}

/// A task: one unit on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// Its id.
    pub id: String,
    /// The app it is an instance of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// The version of the app it was launched from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Time>,
    /// The job it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// The run it is an attempt of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Which attempt, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Host name of the node.
    pub node: String,
    /// Where it is in its life.
    pub state: TaskState,
    /// Why, in one word (`exit-code`, `out-of-memory`, …).
    pub reason: String,
    /// The same for people; may be empty.
    #[serde(default)]
    pub message: String,
    /// Why it is to end, once it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<String>,
    /// Its unit on the node.
    pub unit: String,
    /// The unit's invocation id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation_id: Option<String>,
    /// Host ports.
    #[serde(default)]
    pub ports: Vec<u16>,
    /// Placed.
    pub staged_at: Time,
    /// First seen running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// Since when its node does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable_since: Option<Time>,
}

/// The wish that a task end is on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stopped {
    /// Always `drover/v1`.
    pub api_version: ApiVersion,
    /// The task.
    pub task: String,
}

/// Where a task is in its life: Mesos' fourteen states in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "drover_core::task::TaskState says what each means")]
pub enum TaskState {
    Staging,
    Starting,
    Running,
    Killing,
    Finished,
    Failed,
    Killed,
    Error,
    Lost,
    Dropped,
    Unreachable,
    Gone,
    GoneByOperator,
    Unknown,
}

impl TaskState {
    /// The word in JSON and on screens.
    pub fn word(self) -> &'static str {
        match self {
            Self::Staging => "staging",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Killing => "killing",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Killed => "killed",
            Self::Error => "error",
            Self::Lost => "lost",
            Self::Dropped => "dropped",
            Self::Unreachable => "unreachable",
            Self::Gone => "gone",
            Self::GoneByOperator => "gone-by-operator",
            Self::Unknown => "unknown",
        }
    }
}

impl From<task::TaskState> for TaskState {
    fn from(state: task::TaskState) -> Self {
        match state {
            task::TaskState::Staging => Self::Staging,
            task::TaskState::Starting => Self::Starting,
            task::TaskState::Running => Self::Running,
            task::TaskState::Killing => Self::Killing,
            task::TaskState::Finished => Self::Finished,
            task::TaskState::Failed => Self::Failed,
            task::TaskState::Killed => Self::Killed,
            task::TaskState::Error => Self::Error,
            task::TaskState::Lost => Self::Lost,
            task::TaskState::Dropped => Self::Dropped,
            task::TaskState::Unreachable => Self::Unreachable,
            task::TaskState::Gone => Self::Gone,
            task::TaskState::GoneByOperator => Self::GoneByOperator,
            task::TaskState::Unknown => Self::Unknown,
        }
    }
}

/// How a process ended: one of the two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExitStatus {
    /// Its exit code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
}

impl From<Option<task::Exit>> for ExitStatus {
    fn from(exit: Option<task::Exit>) -> Self {
        match exit {
            None => Self::default(),
            Some(task::Exit::Code(code)) => Self { exit_code: Some(code), signal: None },
            Some(task::Exit::Signal(signal)) => Self { exit_code: None, signal: Some(signal) },
        }
    }
}
