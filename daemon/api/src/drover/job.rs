//! Jobs as lists show them, and their runs.

use super::{ApiVersion, ExitStatus, TaskState, Time};
use drover_core::job;
use serde::{Deserialize, Serialize};

/// Jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Jobs {
    /// Always `drover/v1`.
    pub api_version: ApiVersion,
    /// By name.
    pub jobs: Vec<Job>,
}

/// A job as a list shows it; its full definition is Chronos' (`GET /v1/scheduler/job/{name}`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// Its name.
    pub name: String,
    /// As its author wrote it; none for a dependent job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// Time zone of the schedule; none means UTC or what the schedule says itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The jobs it runs after.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<String>,
    /// Not started by schedule or parents.
    #[serde(default)]
    pub disabled: bool,
    /// The next slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Time>,
    /// Slots left, `next` included; none means for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<u32>,
    /// Runs that are not over, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub live: Vec<Run>,
    /// The newest run that is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Run>,
    /// Runs that succeeded.
    #[serde(default)]
    pub success_count: u64,
    /// Runs that used up their retries.
    #[serde(default)]
    pub error_count: u64,
    /// Who cares.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner: String,
    /// What for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// A job with its runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobDetail {
    /// Always `drover/v1`.
    pub api_version: ApiVersion,
    /// The job.
    pub job: Job,
    /// Its runs, live ones included, newest first.
    pub runs: Vec<Run>,
}

/// One firing of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Its id, `<job>@<milliseconds of its slot>`.
    pub id: String,
    /// The job.
    pub job: String,
    /// The slot it stands for, or the time of its trigger.
    pub slot: Time,
    /// Why it began.
    pub cause: Cause,
    /// Arguments given with a manual run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
    /// Current attempt, from 0.
    pub attempt: u32,
    /// Where it is.
    pub state: RunState,
    /// How its last attempt ended; `finished` is success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<TaskState>,
    /// The task of the current attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Where the last attempt ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// When it was put in the queue.
    pub queued_at: Time,
    /// Not launched before this; of a queued run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// When its last attempt was seen running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When its last attempt ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// How the last attempt's process ended.
    #[serde(flatten)]
    pub exit: ExitStatus,
    /// What was said of the last end.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Why a run began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// Its slot came.
    Slot,
    /// Somebody asked.
    Manual,
    /// Its parents had succeeded.
    Parents,
}

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// Waits for a place, or for the time of its retry.
    Queued,
    /// An attempt has been placed.
    Active,
    /// An attempt ended; what follows is not decided yet.
    Ending,
    /// Over.
    Done,
}

impl From<&job::Run> for Run {
    fn from(run: &job::Run) -> Self {
        let cause = match run.cause {
            job::Cause::Slot => Cause::Slot,
            job::Cause::Manual => Cause::Manual,
            job::Cause::Parents => Cause::Parents,
        };
        let mut edge = Self {
            id: run.id.to_string(),
            job: run.job.to_string(),
            slot: run.slot.into(),
            cause,
            arguments: run.arguments.clone(),
            attempt: run.attempt,
            state: RunState::Queued,
            result: None,
            task: None,
            node: run.host.clone(),
            queued_at: run.queued_at.into(),
            not_before: None,
            started_at: run.started_at.map(Time::from),
            ended_at: None,
            exit: run.exit.into(),
            message: run.message.clone(),
        };
        match &run.state {
            job::RunState::Queued { not_before } => edge.not_before = Some((*not_before).into()),
            job::RunState::Active { task } => {
                edge.state = RunState::Active;
                edge.task = Some(task.to_string());
            }
            job::RunState::AttemptEnded { state, at } | job::RunState::Done { state, at } => {
                edge.state = if run.is_live() { RunState::Ending } else { RunState::Done };
                edge.result = Some((*state).into());
                edge.ended_at = Some((*at).into());
            }
        }
        edge
    }
}

/// Body of a manual run; an empty body means the same as `{}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunRequest {
    /// Appended to the job's own.
    pub arguments: Vec<String>,
}

/// A manual run was queued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunStarted {
    /// Always `drover/v1`.
    pub api_version: ApiVersion,
    /// The run.
    pub run: Run,
}
