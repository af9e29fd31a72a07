//! What an agent keeps on disk: what it shall run, what it started, what it said of it. Here is its meaning; the file is the
//! agent's business.
//!
//! ```text
//!             Starting            Started            Status (terminal)
//!  Assigned ───────────▶ Starting ───────▶ Started ───────────────────▶ Ended ── acknowledged and not wanted ──▶ Forgotten
//!     └──────────────────────┴──── Status (terminal) ──────────────────────▲
//! ```

use crate::ids::{AgentId, TaskId};
use crate::task::{TaskSpec, TaskStatus};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of [`Record`]'s shape. An agent refuses a ledger of a newer one.
pub const FORMAT: u32 = 1;

/// A task as an assignment names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedTask {
    /// Its id.
    pub id: TaskId,
    /// What to run.
    pub spec: TaskSpec,
    /// Set when it is to end: why.
    pub kill: Option<String>,
    /// Number of the newest status that the masters have of it; 0 of a task that no agent has told of. A ledger that is new to
    /// a task that is not learns from it that there was another before it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub told: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What a leader tells an agent to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Its version: an older one than the agent holds is ignored.
    pub generation: u64,
    /// Whether `tasks` is everything. Otherwise it holds what is new or changed.
    pub full: bool,
    /// Wanted tasks.
    pub tasks: Vec<WantedTask>,
    /// Not wanted any more; of no use when `full`.
    pub removed: Vec<TaskId>,
}

/// One line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Record {
    /// First line: whose ledger this is.
    Opened {
        /// [`FORMAT`].
        format: u32,
        /// The agent.
        agent: AgentId,
    },
    /// A master said what to run.
    Assigned {
        /// Version of the whole assignment.
        generation: u64,
        /// Whether `tasks` is everything.
        full: bool,
        /// New or changed.
        tasks: Vec<WantedTask>,
        /// Not wanted any more.
        removed: Vec<TaskId>,
    },
    /// systemd is about to be asked to start the task. On disk before it is asked.
    Starting {
        /// The task.
        task: TaskId,
        /// Kernel boot in which.
        boot: String,
    },
    /// Its unit is there.
    Started {
        /// The task.
        task: TaskId,
        /// Kernel boot in which.
        boot: String,
        /// The unit's invocation.
        invocation: String,
    },
    /// What became of it. On disk before it is sent, and before an ended unit is let go.
    Status(Box<TaskStatus>),
    /// The masters have this status, and all before it, on record.
    Acknowledged {
        /// The task.
        task: TaskId,
        /// The status' number.
        seq: u64,
    },
    /// Nobody needs to know of the task any more. Its directory stays for people to look at.
    Forgotten {
        /// The task.
        task: TaskId,
        /// When.
        at: Timestamp,
    },
    /// Forgotten tasks whose directories are still there, in a compacted ledger.
    Unswept {
        /// And since when.
        tasks: BTreeMap<TaskId, Timestamp>,
    },
    /// Directories of forgotten tasks that are gone.
    Swept {
        /// Of these tasks.
        tasks: Vec<TaskId>,
    },
    /// A task as it stands: what a compacted ledger is made of.
    Task {
        /// Its id.
        id: TaskId,
        /// All that is known.
        task: Box<LedgerTask>,
    },
}

/// How far the agent has got with a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "kebab-case")]
pub enum Phase {
    /// Heard of it.
    Assigned,
    /// systemd may have been asked, in this boot.
    Starting {
        /// Kernel boot id.
        boot: String,
    },
    /// Its unit was there, in this boot.
    Started {
        /// Kernel boot id.
        boot: String,
        /// Invocation id.
        invocation: String,
    },
    /// It has a terminal status.
    Ended {
        /// The invocation that ended, if it got that far.
        invocation: Option<String>,
    },
}

/// All an agent knows of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerTask {
    /// What to run.
    pub spec: TaskSpec,
    /// Set when it is to end: why.
    pub kill: Option<String>,
    /// Whether the newest assignment names it.
    pub is_wanted: bool,
    /// How far it got.
    pub phase: Phase,
    /// The newest status.
    pub status: Option<TaskStatus>,
    /// Number of the newest status the masters have.
    pub acknowledged: u64,
}

impl LedgerTask {
    /// Why it is to end, if it is.
    pub fn end_wanted(&self) -> Option<&str> {
        self.kill.as_deref().or((!self.is_wanted).then_some("it is not assigned to this node any more"))
    }

    /// Its newest status, if the masters may not have it.
    pub fn unacknowledged(&self) -> Option<&TaskStatus> {
        self.status.as_ref().filter(|status| status.seq > self.acknowledged)
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended { .. })
    }
}

/// The ledger's meaning: its records, applied in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Whose it is; `None` before its first line.
    pub agent: Option<AgentId>,
    /// Version of the assignment it holds.
    pub generation: u64,
    /// Every task not forgotten.
    pub tasks: BTreeMap<TaskId, LedgerTask>,
    /// Forgotten tasks whose directories are still there, and since when.
    pub unswept: BTreeMap<TaskId, Timestamp>,
}

/// A ledger as read from disk.
#[derive(Debug)]
pub struct LedgerText {
    /// What it says.
    pub ledger: Ledger,
    /// Version of its shape; a newer one than [`FORMAT`] is not to be used.
    pub format: u32,
    /// Records in it.
    pub lines: usize,
    /// Bytes they take: less than all when the end is torn.
    pub good: usize,
}

/// A ledger that is damaged in its middle.
#[derive(Debug, thiserror::Error)]
#[error("line {line} is damaged")]
pub struct Damaged {
    /// Counted from 1.
    pub line: usize,
    /// How.
    pub source: serde_json::Error,
}

/// Records as they are kept on disk: one a line.
pub fn ledger_text(records: &[Record]) -> Vec<u8> {
    let mut text = Vec::new();
    for record in records {
        serde_json::to_writer(&mut text, record).expect("a record is plain data");
        text.push(b'\n');
    }
    text
}

/// Reads a ledger. A batch at the end that a power cut tore is left out: nothing was done on account of it, because nothing is
/// done before it is synced.
///
/// # Errors
/// There is something good after something bad: that is no torn end.
pub fn read_ledger(bytes: &[u8]) -> Result<LedgerText, Damaged> {
    let mut read = LedgerText { ledger: Ledger::default(), format: FORMAT, lines: 0, good: 0 };
    let mut bad: Option<Damaged> = None;
    for (number, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        // Without its end a line was not written whole, whatever it looks like.
        let Some(text) = line.strip_suffix(b"\n") else { break };
        match (serde_json::from_slice::<Record>(text), bad.take()) {
            (Ok(record), None) => {
                if let Record::Opened { format, .. } = &record {
                    read.format = read.format.max(*format);
                }
                read.ledger.apply(&record);
                read.lines += 1;
                read.good += line.len();
            }
            (Ok(_), Some(damaged)) => return Err(damaged),
            (Err(_), Some(first)) => bad = Some(first),
            (Err(source), None) => bad = Some(Damaged { line: number + 1, source }),
        }
    }
    Ok(read)
}

impl Ledger {
    /// Whether an assignment is news. An older one comes from a leader that was deposed and does not know it yet.
    pub fn accepts(&self, generation: u64, full: bool) -> bool {
        if full { generation >= self.generation } else { generation > self.generation }
    }

    /// Takes in one record. Total: a record about a task that is not known changes nothing.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Opened { agent, .. } => self.agent = Some(agent.clone()),
            Record::Assigned { generation, full, tasks, removed } => self.assign(*generation, *full, tasks, removed),
            Record::Starting { task, boot } => self.set_phase(task, Phase::Starting { boot: boot.clone() }),
            Record::Started { task, boot, invocation } => {
                self.set_phase(task, Phase::Started { boot: boot.clone(), invocation: invocation.clone() });
            }
            Record::Status(status) => self.record_status(status),
            Record::Acknowledged { task, seq } => {
                if let Some(task) = self.tasks.get_mut(task) {
                    task.acknowledged = task.acknowledged.max(*seq);
                }
            }
            Record::Forgotten { task, at } => {
                if let Some(forgotten) = self.tasks.remove(task)
                    && forgotten.phase != Phase::Assigned
                {
                    self.unswept.insert(task.clone(), *at);
                }
            }
            Record::Unswept { tasks } => self.unswept.clone_from(tasks),
            Record::Swept { tasks } => self.unswept.retain(|task, _| !tasks.contains(task)),
            Record::Task { id, task } => {
                self.tasks.insert(id.clone(), (**task).clone());
            }
        }
    }

    /// The shortest list of records with the same meaning.
    pub fn compacted(&self) -> Vec<Record> {
        let opened = self.agent.iter().map(|agent| Record::Opened { format: FORMAT, agent: agent.clone() });
        // An empty assignment carries the generation; it comes before the tasks, so it takes none of them away.
        let generation = Record::Assigned { generation: self.generation, full: false, tasks: Vec::new(), removed: Vec::new() };
        let tasks = self.tasks.iter().map(|(id, task)| Record::Task { id: id.clone(), task: Box::new(task.clone()) });
        let unswept = (!self.unswept.is_empty()).then(|| Record::Unswept { tasks: self.unswept.clone() });
        opened.chain([generation]).chain(unswept).chain(tasks).collect()
    }

    fn assign(&mut self, generation: u64, full: bool, tasks: &[WantedTask], removed: &[TaskId]) {
        self.generation = generation;
        if full {
            self.tasks.values_mut().for_each(|task| task.is_wanted = false);
        }
        for wanted in tasks {
            let task = self.tasks.entry(wanted.id.clone()).or_insert_with(|| LedgerTask {
                spec: wanted.spec.clone(),
                kill: None,
                is_wanted: true,
                phase: Phase::Assigned,
                status: None,
                acknowledged: wanted.told,
            });
            task.is_wanted = true;
            // A wish that a task end is never taken back.
            if task.kill.is_none() {
                task.kill.clone_from(&wanted.kill);
            }
        }
        for id in removed {
            if let Some(task) = self.tasks.get_mut(id) {
                task.is_wanted = false;
            }
        }
    }

    fn set_phase(&mut self, id: &TaskId, phase: Phase) {
        if let Some(task) = self.tasks.get_mut(id).filter(|task| !task.has_ended()) {
            task.phase = phase;
        }
    }

    fn record_status(&mut self, status: &TaskStatus) {
        let Some(task) = self.tasks.get_mut(&status.task).filter(|task| !task.has_ended()) else { return };
        if status.state.is_terminal() {
            let invocation = match &task.phase {
                Phase::Started { invocation, .. } => Some(invocation.clone()),
                Phase::Assigned | Phase::Starting { .. } | Phase::Ended { .. } => None,
            };
            task.phase = Phase::Ended { invocation };
        }
        task.status = Some(status.clone());
    }
}
