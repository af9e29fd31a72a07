//! What an agent and the leader say to each other: JSON, one message a line, both ways over one HTTP/2 request
//! (`POST /agent/v1/session`). Unknown fields are ignored; when that is not enough, [`Protocols`]
//! go up: each side says which versions of this conversation it speaks, and both speak the newest that they share.
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
use std::fmt;

/// Versions of this conversation that somebody speaks, all from the oldest to the newest.
///
/// A release speaks the version before its newest too, so that masters and agents are upgraded, and go back, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocols {
    /// The oldest.
    pub oldest: u32,
    /// The newest.
    pub newest: u32,
}

impl Protocols {
    /// What this build speaks. With the feature `next-version` one version more, so that tests have a build of tomorrow.
    pub const OURS: Self = Self { oldest: 1, newest: if cfg!(feature = "next-version") { 2 } else { 1 } };

    /// What an agent said of itself. One that names no oldest speaks one version.
    pub fn of_hello(protocol: u32, oldest: Option<u32>) -> Self {
        Self { oldest: oldest.unwrap_or(protocol), newest: protocol }
    }

    /// The newest version that both speak.
    ///
    /// # Errors
    /// They share none; the text says who has to be upgraded.
    pub fn shared_with(self, agent: Self) -> Result<u32, NoSharedProtocol> {
        let shared = self.newest.min(agent.newest);
        if shared >= self.oldest.max(agent.oldest) { Ok(shared) } else { Err(NoSharedProtocol { master: self, agent }) }
    }
}

impl fmt::Display for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.oldest == self.newest {
            true => write!(f, "version {}", self.newest),
            false => write!(f, "versions {} to {}", self.oldest, self.newest),
        }
    }
}

/// An agent and a master cannot talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the agent speaks {agent} of the conversation with masters, this master {master}: install the newer drover on the {}",
    if agent.newest < master.oldest { "agent's machine" } else { "masters first" }
)]
pub struct NoSharedProtocol {
    /// What the master speaks.
    pub master: Protocols,
    /// What the agent speaks.
    pub agent: Protocols,
}

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
        /// The newest of its [`Protocols`].
        protocol: u32,
        /// The oldest of them; `None` if it speaks no other.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        oldest: Option<u32>,
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
        /// The version of this conversation that both speak from here on.
        #[serde(default = "first_protocol")]
        protocol: u32,
        /// How often to send a heartbeat, and how often a `Ping` comes.
        heartbeat: Millis,
        /// Cluster-listener addresses of all masters, to try when this one falls silent.
        masters: Vec<String>,
    },
    /// It does not take the agent, and ends the session.
    Refused {
        /// For people.
        why: String,
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

/// What a master speaks that does not say it.
fn first_protocol() -> u32 {
    1
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_speak_the_newest_version_that_they_share() {
        let speaks = |oldest, newest| Protocols { oldest, newest };
        for (master, agent, shared) in [
            (speaks(1, 1), speaks(1, 1), Some(1)),
            (speaks(1, 1), speaks(1, 2), Some(1)),
            (speaks(1, 2), speaks(1, 1), Some(1)),
            (speaks(1, 2), speaks(1, 2), Some(2)),
            (speaks(2, 3), speaks(1, 2), Some(2)),
            (speaks(2, 3), speaks(1, 1), None),
            (speaks(1, 1), speaks(2, 3), None),
        ] {
            assert_eq!(master.shared_with(agent).ok(), shared, "{master} and {agent}");
        }
        let too_old = speaks(2, 3).shared_with(speaks(1, 1)).unwrap_err().to_string();
        assert!(too_old.ends_with("install the newer drover on the agent's machine"), "{too_old}");
        let too_new = speaks(1, 1).shared_with(speaks(2, 3)).unwrap_err().to_string();
        assert!(too_new.contains("speaks versions 2 to 3") && too_new.ends_with("on the masters first"), "{too_new}");
    }

    /// What agents and masters said before they said which versions they speak. Add to it, never edit.
    #[test]
    fn what_was_said_in_the_first_version_is_understood() {
        let info = json!({
            "id": "a1", "host": "n1", "resources": {"scalars": {}, "ports": {}}, "attributes": {}, "systemd": 252,
            "boot_id": "b", "version": "0.1.0", "enforces": [],
        });
        let hello = json!({"type": "hello", "protocol": 1, "info": info, "generation": 7});
        let AgentMessage::Hello { protocol, oldest, .. } = serde_json::from_value(hello).unwrap() else { panic!() };
        assert_eq!(Protocols::OURS.shared_with(Protocols::of_hello(protocol, oldest)), Ok(1));
        let welcome = json!({"type": "welcome", "heartbeat": 1000, "masters": ["n1:7071"]});
        let MasterMessage::Welcome { protocol, .. } = serde_json::from_value(welcome).unwrap() else { panic!() };
        assert_eq!(protocol, 1);
    }
}
