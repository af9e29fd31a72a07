//! The leader's side of an agent's session: what an agent says becomes commands, what the log says of its assignment is told to
//! it, and silence ends the session.
//!
//! A status is acknowledged only once it is applied, and an agent is welcomed only once it is admitted: both wait for
//! [`Session::proposed`].

use crate::agent::AgentInfo;
use crate::ids::{AgentId, TaskId};
use crate::state::{ClusterState, Command};
use crate::task::TaskStatus;
use crate::time::{Millis, Now};
use crate::unit::{Assignment, WantedTask};
use std::collections::BTreeMap;
use std::time::Duration;

/// An agent that is silent for so many heartbeats loses its session.
const SILENT_HEARTBEATS: u32 = 4;

/// What an agent says.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// First, and again when what it says of itself changes.
    Hello(Box<AgentInfo>),
    /// Still there.
    Heartbeat,
    /// What became of tasks.
    Statuses(Vec<TaskStatus>),
}

/// What to tell an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Say {
    /// This master leads, and has admitted it.
    Welcome,
    /// Still there.
    Ping,
    /// What it must run.
    Assign(Assignment),
    /// These are on record.
    Acknowledge(Vec<(TaskId, u64)>),
}

/// What follows from what an agent said.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Answer {
    /// Tell it this.
    Say(Vec<Say>),
    /// Propose this, and take in nothing more of it before [`Session::proposed`].
    Propose(Vec<Command>),
}

/// Why a session ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// Nothing was heard for too long.
    #[error("the agent said nothing for {0:?}")]
    Silent(Duration),
    /// What was proposed was not applied.
    #[error("this master does not lead any more")]
    NotLeading,
    /// The agent was given up while the session lasted. In the next one it says again what became of every task.
    #[error("the agent was given up")]
    GivenUp,
    /// It is not who its certificate says it is.
    #[error("the agent calls itself {0}, its certificate does not")]
    Impostor(AgentId),
}

/// What is waited for.
#[derive(Debug)]
enum Pending {
    Admission,
    Record(Vec<(TaskId, u64)>),
}

/// A session.
#[derive(Debug)]
pub struct Session {
    agent: AgentId,
    heartbeat: Duration,
    is_welcomed: bool,
    /// What the agent was last told to run, and whether it was told to end it; `None` before the first time.
    sent: Option<(u64, BTreeMap<TaskId, bool>)>,
    pending: Option<Pending>,
    heard_at: Duration,
    ping_at: Duration,
}

impl Session {
    /// Of an agent whose certificate names it `agent`.
    pub fn new(agent: AgentId, heartbeat: Millis, now: Now) -> Self {
        Self {
            agent,
            heartbeat: heartbeat.to_duration(),
            is_welcomed: false,
            sent: None,
            pending: None,
            heard_at: now.steady,
            ping_at: now.steady,
        }
    }

    /// Whose it is.
    pub fn agent(&self) -> &AgentId {
        &self.agent
    }

    /// Takes in what the agent said. `state` is the replicated state of now.
    ///
    /// # Errors
    /// The session is over.
    pub fn hear(&mut self, heard: Heard, state: &ClusterState, now: Now) -> Result<Answer, Ended> {
        self.heard_at = now.steady;
        let at = now.time;
        let (pending, commands) = match heard {
            Heard::Hello(info) if info.id != self.agent => return Err(Ended::Impostor(info.id)),
            Heard::Hello(info) => {
                let is_known = state.agents.get(&info.id).is_some_and(|agent| agent.is_up() && agent.info == *info);
                (Pending::Admission, if is_known { Vec::new() } else { vec![Command::AdmitAgent { info, at }] })
            }
            Heard::Heartbeat if self.is_welcomed && state.agents.get(&self.agent).is_some_and(|agent| !agent.is_up()) => {
                return Err(Ended::GivenUp);
            }
            Heard::Heartbeat => return Ok(Answer::Say(Vec::new())),
            Heard::Statuses(statuses) => {
                let told = statuses.iter().map(|status| (status.task.clone(), status.seq)).collect();
                let news = statuses.into_iter().filter(|status| is_news(state, status));
                let record = |status| Command::RecordStatus { agent: self.agent.clone(), status: Box::new(status), at };
                (Pending::Record(told), news.map(record).collect())
            }
        };
        if commands.is_empty() {
            return Ok(Answer::Say(self.conclude(pending, state)));
        }
        self.pending = Some(pending);
        Ok(Answer::Propose(commands))
    }

    /// What was proposed is decided: `is_applied` says whether all of it was. Returns what to tell the agent.
    ///
    /// # Errors
    /// The session is over.
    pub fn proposed(&mut self, is_applied: bool, state: &ClusterState) -> Result<Vec<Say>, Ended> {
        match self.pending.take() {
            Some(pending) if is_applied => Ok(self.conclude(pending, state)),
            Some(_) => Err(Ended::NotLeading),
            None => Ok(Vec::new()),
        }
    }

    /// Something was applied. Returns what changed in the agent's assignment, if anything did.
    pub fn applied(&mut self, state: &ClusterState) -> Option<Say> {
        if self.is_welcomed { self.assign(state) } else { None }
    }

    /// When [`Session::due`] is wanted.
    pub fn due_at(&self) -> Duration {
        self.ping_at.min(self.heard_at + self.silence())
    }

    /// What is due by the clock.
    ///
    /// # Errors
    /// The session is over.
    pub fn due(&mut self, now: Now) -> Result<Option<Say>, Ended> {
        if now.steady >= self.heard_at + self.silence() {
            return Err(Ended::Silent(self.silence()));
        }
        Ok((now.steady >= self.ping_at).then(|| {
            self.ping_at = now.steady + self.heartbeat;
            Say::Ping
        }))
    }

    fn silence(&self) -> Duration {
        self.heartbeat * SILENT_HEARTBEATS
    }

    fn conclude(&mut self, pending: Pending, state: &ClusterState) -> Vec<Say> {
        match pending {
            Pending::Admission => {
                self.is_welcomed = true;
                [Say::Welcome].into_iter().chain(self.assign(state)).collect()
            }
            Pending::Record(told) => vec![Say::Acknowledge(told)],
        }
    }

    /// What changed in the agent's assignment since it was last told.
    fn assign(&mut self, state: &ClusterState) -> Option<Say> {
        let agent = state.agents.get(&self.agent)?;
        let before = self.sent.as_ref();
        if before.is_some_and(|(generation, _)| *generation >= agent.generation) {
            return None;
        }
        let before = before.map(|(_, tasks)| tasks);
        let all = || state.tasks_of_agent(&self.agent);
        let now: BTreeMap<TaskId, bool> = all().map(|task| (task.id.clone(), task.kill.is_some())).collect();
        let is_news = |id: &TaskId, ends: bool| before.is_none_or(|before| before.get(id) != Some(&ends));
        let tasks = all().filter(|task| is_news(&task.id, task.kill.is_some())).map(|task| WantedTask {
            id: task.id.clone(),
            spec: task.spec.clone(),
            kill: task.kill.as_ref().map(|kill| kill.why.clone()),
            told: task.seq,
        });
        let assignment = Assignment {
            generation: agent.generation,
            full: before.is_none(),
            tasks: tasks.collect(),
            removed: before.into_iter().flatten().map(|(id, _)| id).filter(|id| !now.contains_key(*id)).cloned().collect(),
        };
        self.sent = Some((agent.generation, now));
        Some(Say::Assign(assignment))
    }
}

/// Whether `status` has to go through the log. Repeats after a reconnection do not, with one exception: a task that `state` does
/// not know may be over, or may be newer than the last thing a deposed leader learned. The log takes nothing of that leader, so
/// that it ends the session instead of vouching for what nobody has recorded.
fn is_news(state: &ClusterState, status: &TaskStatus) -> bool {
    state.tasks.get(&status.task).is_none_or(|task| status.seq > task.seq || task.unreachable_since.is_some())
}
