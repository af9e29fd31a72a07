//! A task: one unit on one agent. States are Mesos' fourteen, with Mesos' meaning of terminal.
//!
//! ```text
//! STAGING ──▶ STARTING ──▶ RUNNING ──▶ FINISHED | FAILED | KILLED
//!    │            │           │  ▲
//!    └──▶ ERROR | DROPPED     ▼  │ (agent back)
//!                         UNREACHABLE ──▶ LOST | GONE
//! ```

use crate::ids::{AgentId, AppId, FrameworkId, JobName, RunId, TaskId};
use crate::resources::{Allocation, Scalars};
use crate::time::{Millis, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where a task is in its life (Mesos `TaskState`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TaskState {
    /// Placed; the agent has not reported it yet.
    Staging,
    /// The agent has asked systemd to start it.
    Starting,
    /// Its unit is active.
    Running,
    /// Told to end, still there.
    Killing,
    /// Ended by itself with success.
    Finished,
    /// Ended by itself without success.
    Failed,
    /// Ended because somebody asked.
    Killed,
    /// Its description cannot be run.
    Error,
    /// Lost with its agent, and may or may not still run.
    Lost,
    /// Never reached its agent.
    Dropped,
    /// Its agent does not answer; may come back.
    Unreachable,
    /// Its agent is gone for good, or was rebooted under it.
    Gone,
    /// An operator declared its agent gone.
    GoneByOperator,
    /// The agent knows nothing of it.
    Unknown,
}

impl TaskState {
    /// Whether the task will never run again and holds nothing.
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Staging | Self::Starting | Self::Running | Self::Killing | Self::Unreachable => false,
            Self::Finished
            | Self::Failed
            | Self::Killed
            | Self::Error
            | Self::Lost
            | Self::Dropped
            | Self::Gone
            | Self::GoneByOperator
            | Self::Unknown => true,
        }
    }

    /// The wire name, `TASK_RUNNING`.
    pub fn wire(self) -> &'static str {
        match self {
            Self::Staging => "TASK_STAGING",
            Self::Starting => "TASK_STARTING",
            Self::Running => "TASK_RUNNING",
            Self::Killing => "TASK_KILLING",
            Self::Finished => "TASK_FINISHED",
            Self::Failed => "TASK_FAILED",
            Self::Killed => "TASK_KILLED",
            Self::Error => "TASK_ERROR",
            Self::Lost => "TASK_LOST",
            Self::Dropped => "TASK_DROPPED",
            Self::Unreachable => "TASK_UNREACHABLE",
            Self::Gone => "TASK_GONE",
            Self::GoneByOperator => "TASK_GONE_BY_OPERATOR",
            Self::Unknown => "TASK_UNKNOWN",
        }
    }
}

/// Why a task is in its state, as far as the agent can tell. Tells an operator what to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The ordinary course of things.
    Normal,
    /// The main process exited with a status other than success.
    ExitCode,
    /// The main process was ended by a signal nobody of drover sent.
    Signal,
    /// As [`Reason::Signal`], with a core dump.
    CoreDump,
    /// The kernel ended it for exceeding its memory.
    OutOfMemory,
    /// A start, stop or run-time limit ran out.
    Timeout,
    /// It stopped answering its watchdog.
    Watchdog,
    /// systemd refuses to start it that often.
    StartLimit,
    /// The program, the user or a directory that the unit names is missing or not allowed.
    Exec,
    /// systemd refused the unit's description.
    BadUnit,
    /// The machine could not give what starting takes.
    Resources,
    /// It did not do what its service type promises.
    Protocol,
    /// An operator stopped the unit on its node.
    StoppedOnNode,
    /// drover was asked to end it.
    KillRequested,
    /// The node was started anew under it.
    Reboot,
    /// The agent finds no trace of its unit.
    UnitMissing,
    /// No word from its agent.
    AgentUnreachable,
    /// Its agent left the cluster.
    AgentGone,
}

/// How the main process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Exit {
    /// With this status.
    Code(i32),
    /// By this signal's number.
    Signal(i32),
}

/// What an agent says of a task. Statuses of one task carry rising `seq`, so repeats and late ones are seen as such.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStatus {
    /// The task.
    pub task: TaskId,
    /// Rises with each status of this task.
    pub seq: u64,
    /// Its state.
    pub state: TaskState,
    /// Why.
    pub reason: Reason,
    /// The same for people; empty when there is nothing to say.
    pub message: String,
    /// When the agent saw it.
    pub at: Timestamp,
    /// How the main process ended, once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// The unit's invocation id, 32 hex digits, once it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation: Option<String>,
    /// What the run used, told once it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// What systemd accounted for a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// CPU time, nanoseconds.
    pub cpu_nanos: Option<u64>,
    /// Highest memory use, bytes (systemd 254 and newer).
    pub mem_peak_bytes: Option<u64>,
}

/// Whose a task is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Owner {
    /// An instance of an app.
    App {
        /// The app.
        app: AppId,
        /// The app's version it was launched from.
        version: Timestamp,
    },
    /// An attempt of a job's run.
    Run {
        /// The job.
        job: JobName,
        /// The run.
        run: RunId,
        /// From 0.
        attempt: u32,
    },
}

impl Owner {
    /// The framework that launched it.
    pub fn framework(&self) -> FrameworkId {
        match self {
            Owner::App { .. } => FrameworkId::apps(),
            Owner::Run { .. } => FrameworkId::jobs(),
        }
    }
}

/// What to execute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Program {
    /// A line for `/bin/sh -c`.
    Shell(String),
    /// A program and its arguments, no shell. Never empty.
    Argv(Vec<String>),
}

/// Everything an agent needs to make a unit of a task. Made once, at launch; never changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Whose it is: gives slice, description and journal fields.
    pub owner: Owner,
    /// What to execute.
    pub program: Program,
    /// Account to run as; `None` means a dynamic user of systemd's own.
    pub user: Option<String>,
    /// Environment, complete.
    pub env: BTreeMap<String, String>,
    /// What it may use.
    pub resources: Scalars,
    /// From SIGTERM to SIGKILL.
    pub kill_grace: Millis,
    /// Killed when it runs longer.
    pub run_time_max: Option<Millis>,
    /// Unit properties it asks for beyond, or instead of, drover's defaults (checked: see [`crate::sandbox`]).
    pub properties: BTreeMap<String, String>,
}

/// A wish that a task end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KillRequest {
    /// Since when.
    pub at: Timestamp,
    /// Why, for people and logs.
    pub why: String,
}

/// A task as the masters know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// Where it is.
    pub agent: AgentId,
    /// The agent's host name at launch.
    pub host: String,
    /// What to run.
    pub spec: TaskSpec,
    /// What it holds.
    pub allocation: Allocation,
    /// Its state.
    pub state: TaskState,
    /// Why.
    pub reason: Reason,
    /// The same for people.
    pub message: String,
    /// Highest status number recorded.
    pub seq: u64,
    /// Placed at.
    pub staged_at: Timestamp,
    /// First seen running.
    pub started_at: Option<Timestamp>,
    /// The unit's invocation id.
    pub invocation: Option<String>,
    /// Set once it is to end.
    pub kill: Option<KillRequest>,
    /// Since when its agent does not answer.
    pub unreachable_since: Option<Timestamp>,
    /// How its main process ended, once it has.
    pub exit: Option<Exit>,
}

impl Task {
    /// Counts as an instance that is there or coming: neither told to end nor cut off.
    pub fn is_active(&self) -> bool {
        self.kill.is_none() && matches!(self.state, TaskState::Staging | TaskState::Starting | TaskState::Running)
    }

    /// Up, as far as anybody knows.
    pub fn is_running(&self) -> bool {
        self.kill.is_none() && self.state == TaskState::Running
    }
}

/// The last end of an app's task that was no wish of anybody's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFailure {
    /// The task.
    pub task: TaskId,
    /// Where it ran.
    pub agent: AgentId,
    /// The agent's host name.
    pub host: String,
    /// How it ended.
    pub state: TaskState,
    /// For people.
    pub message: String,
    /// When.
    pub at: Timestamp,
    /// The app's version it ran.
    pub version: Timestamp,
}
