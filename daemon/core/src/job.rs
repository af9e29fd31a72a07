//! A job: a program run on a schedule or after other jobs (Chronos' job definition, the part drover honours), and its runs.

use crate::app::Constraint;
use crate::ids::{JobName, RunId, TaskId};
use crate::resources::Scalars;
use crate::schedule::Schedule;
use crate::task::{Exit, Program, TaskState};
use crate::time::{Millis, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What starts a job's runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Trigger {
    /// Time.
    Schedule(Schedule),
    /// The success of every one of these since the last start. Never empty.
    Parents(BTreeSet<JobName>),
}

/// A job's definition and what is remembered of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its name.
    pub name: JobName,
    /// When it runs.
    pub trigger: Trigger,
    /// What it runs.
    pub program: Program,
    /// Arguments as the user gave them, for the API; already part of `program`.
    pub arguments: Vec<String>,
    /// Attempts beyond the first.
    pub retries: u32,
    /// Wait before a retry.
    pub retry_delay: Millis,
    /// A slot at most this late still runs on its own; of those that are later only the newest runs. Zero gives what Chronos 3
    /// does: however many slots were missed, one run.
    pub epsilon: Millis,
    /// Per run.
    pub resources: Scalars,
    /// Not started by schedule or parents.
    pub disabled: bool,
    /// A second run may start while one is live.
    pub concurrent: bool,
    /// A run that used up its retries still releases the dependents.
    pub soft_error: bool,
    /// Placed before other runs.
    pub high_priority: bool,
    /// Account; `None` is a dynamic user.
    pub user: Option<String>,
    /// User's environment; built-in variables win over it.
    pub env: BTreeMap<String, String>,
    /// Where it may run.
    pub constraints: Vec<Constraint>,
    /// Killed when it runs longer.
    pub run_time_max: Option<Millis>,
    /// Unit properties asked for (checked: see [`crate::sandbox`]).
    pub properties: BTreeMap<String, String>,
    /// Comma-separated mail addresses; kept for the API.
    pub owner: String,
    /// Kept for the API.
    pub owner_name: String,
    /// Kept for the API.
    pub description: String,
    /// When it was last defined.
    pub changed_at: Timestamp,
}

/// What the masters keep about a job beside its definition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// The next slot to fire, and `None` when a schedule has run out or there is none.
    pub next: Option<Timestamp>,
    /// Slots left to fire, `None` for ever. Counts `next`.
    pub remaining: Option<u32>,
    /// The newest slot a run was begun for.
    #[serde(default)]
    pub last_slot: Option<Timestamp>,
    /// When a job of this name was first defined since there last was none.
    #[serde(default)]
    pub created_at: Timestamp,
    /// Successes of each parent since this job last started.
    pub edges: BTreeMap<JobName, u32>,
    /// Runs that succeeded.
    pub success_count: u64,
    /// Runs that used up their retries.
    pub error_count: u64,
    /// Failed runs since one succeeded.
    pub errors_since_success: u64,
    /// Last success.
    pub last_success: Option<Timestamp>,
    /// Last run given up.
    pub last_error: Option<Timestamp>,
    /// Runs that ended, oldest first, bounded.
    pub history: Vec<Run>,
}

/// Why a run began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    /// Its slot came.
    Slot,
    /// Somebody asked.
    Manual,
    /// Its parents had succeeded.
    Parents,
}

/// Where a run is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RunState {
    /// Waits for a place, not before `not_before`.
    Queued {
        /// Earliest launch.
        not_before: Timestamp,
    },
    /// An attempt has been placed.
    Active {
        /// Its task.
        task: TaskId,
    },
    /// An attempt ended; whether to try again is not decided yet.
    AttemptEnded {
        /// How.
        state: TaskState,
        /// When.
        at: Timestamp,
    },
    /// Over, for good or ill.
    Done {
        /// How the last attempt ended.
        state: TaskState,
        /// When.
        at: Timestamp,
    },
}

/// One firing of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// The job.
    pub job: JobName,
    /// The slot it stands for, or the time of its trigger.
    pub slot: Timestamp,
    /// Why it began.
    pub cause: Cause,
    /// Arguments given with a manual run; appended to the program's.
    pub arguments: Vec<String>,
    /// Current attempt, from 0.
    pub attempt: u32,
    /// Where it is.
    pub state: RunState,
    /// When it was put in the queue.
    pub queued_at: Timestamp,
    /// When its last attempt was seen running.
    pub started_at: Option<Timestamp>,
    /// Where the last attempt ran.
    pub host: Option<String>,
    /// How the last attempt's process ended.
    pub exit: Option<Exit>,
    /// What was said of the last end.
    pub message: String,
}

impl Run {
    /// Whether a task of it is, or may be, there.
    pub fn is_live(&self) -> bool {
        !matches!(self.state, RunState::Done { .. })
    }
}

/// Wait before a retry, when the job does not say (Chronos' `--failure_retry`).
pub const RETRY_DELAY_DEFAULT: Millis = Millis::from_secs(60);

/// Attempts beyond the first, when the job does not say.
pub const RETRIES_DEFAULT: u32 = 2;

/// Lateness allowed, when the job does not say (Chronos' `--task_epsilon`).
pub const EPSILON_DEFAULT: Millis = Millis::from_secs(60);

/// What a job's program is given when it does not say: CPU thousandths, memory, disk (Chronos' defaults).
pub const JOB_RESOURCES_DEFAULT: Scalars = Scalars { cpus_milli: 100, mem_bytes: 128 << 20, disk_bytes: 256 << 20, gpus: 0 };
