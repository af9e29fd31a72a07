//! What an agent and the leader say to each other: JSON, one message a line, both ways over one HTTP/2 request
//! (`POST /agent/v1/session`). Unknown fields are ignored; [`PROTOCOL`] goes up when that is not enough.
//!
//! ```text
//! agent                                   leader
//!   │ Hello ───────────────────────────────▶│  admits it
//!   │◀────────────────────────────── Welcome │
//!   │◀───────────────────── Assign{full:true}│  everything it must run
//!   │ Statuses ────────────────────────────▶│  recorded through the log, then
//!   │◀─────────────────────────── Acknowledge│
//!   │◀──────────────────── Assign{full:false}│  what changed since
//!   │ Heartbeat ───────────────────────────▶│
//!   │◀───────────────────────────────── Ping │
//! ```
//! A master that does not lead answers 421 with [`NotLeading`]. A stream the leader asks for ([`MasterMessage::OpenLogs`])
//! comes back as a request of its own, `POST /agent/v1/streams/{id}`, its body one [`LogLine`] a line.

use drover_core::agent::AgentInfo;
use drover_core::ids::TaskId;
use drover_core::task::{TaskSpec, TaskStatus};
use drover_core::time::Millis;
use drover_core::unit::{Assignment, WantedTask};
use serde::{Deserialize, Serialize};

/// Version of this conversation, sent in [`AgentMessage::Hello`].
pub const PROTOCOL: u32 = 1;

/// Path of the session request.
pub const SESSION_PATH: &str = "/agent/v1/session";

/// Path prefix of the streams an agent opens when asked.
pub const STREAMS_PATH: &str = "/agent/v1/streams/";

/// From agent to leader.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum AgentMessage {
    /// First, and again when what it says of itself changes.
    Hello {
        /// [`PROTOCOL`].
        protocol: u32,
        /// Itself.
        info: Box<AgentInfo>,
        /// Generation of the assignment it holds.
        generation: u64,
    },
    /// Still there.
    Heartbeat,
    /// What became of tasks. Sent until acknowledged; after `Welcome` the newest of every task it knows, acknowledged or not.
    Statuses {
        /// In order.
        statuses: Vec<TaskStatus>,
    },
}

/// From leader to agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum MasterMessage {
    /// It leads, and has admitted the agent.
    Welcome {
        /// How often to send a heartbeat, and how often a `Ping` comes.
        heartbeat: Millis,
        /// Cluster-listener addresses of all masters, to try when this one falls silent.
        masters: Vec<String>,
    },
    /// Still there.
    Ping,
    /// What the agent must run from now on.
    Assign {
        /// Version of the assignment; an older one than the agent holds is ignored.
        generation: u64,
        /// Whether `tasks` is everything. Otherwise it holds what is new or changed, and `removed` what is not wanted any more.
        full: bool,
        /// Wanted tasks.
        tasks: Vec<AssignedTask>,
        /// Tasks no longer assigned: to be ended if they still run, and forgotten.
        removed: Vec<TaskId>,
    },
    /// These are on record: the agent may forget what ended.
    Acknowledge {
        /// Task and number of its newest recorded status.
        statuses: Vec<(TaskId, u64)>,
    },
    /// Send journal entries on a stream of its own.
    OpenLogs {
        /// Names the stream.
        stream: String,
        /// Which entries.
        query: LogQuery,
    },
    /// Nobody reads that stream any more.
    CloseStream {
        /// Its name.
        stream: String,
    },
}

/// A task an agent must run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssignedTask {
    /// Its id.
    pub id: TaskId,
    /// What to run.
    pub spec: TaskSpec,
    /// Set when it is to end: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill: Option<String>,
    /// Number of the newest status that the masters have of it. An agent whose ledger is lost counts on from there.
    #[serde(default)]
    pub told: u64,
}

impl From<Assignment> for MasterMessage {
    fn from(assignment: Assignment) -> Self {
        let Assignment { generation, full, tasks, removed } = assignment;
        let tasks =
            tasks.into_iter().map(|WantedTask { id, spec, kill, told }| AssignedTask { id, spec, kill, told }).collect();
        MasterMessage::Assign { generation, full, tasks, removed }
    }
}

impl From<AssignedTask> for WantedTask {
    fn from(AssignedTask { id, spec, kill, told }: AssignedTask) -> Self {
        WantedTask { id, spec, kill, told }
    }
}

/// Body of the 421 of a master that does not lead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotLeading {
    /// Cluster-listener address of the leader, if this master knows one.
    pub leader: Option<String>,
}

/// Which journal entries to send.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LogQuery {
    /// Entries whose `DROVER_…` field has this value; any of them. Empty means every drover task.
    pub matches: Vec<(String, String)>,
    /// How many of the newest entries to begin with; `None` means all.
    pub lines: Option<u64>,
    /// Entries from this time on, milliseconds.
    pub since_ms: Option<i64>,
    /// Stay and send what comes.
    pub follow: bool,
}

/// A journal entry of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LogLine {
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// Microseconds within it, so that lines of one node keep their order.
    pub at_us: u32,
    /// Which node.
    pub node: String,
    /// The task.
    pub task: String,
    /// Its app, if it is an instance of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// Its job, if it belongs to a run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// Its run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// syslog priority, 0 to 7.
    pub priority: u8,
    /// Process id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The line.
    pub message: String,
}
