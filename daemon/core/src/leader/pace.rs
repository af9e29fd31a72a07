//! How a leader goes on from one decision to the next: everything proposed is applied or refused before it decides again, what
//! was refused is not tried again at once, and when nothing happens it wakes by itself for the next thing that time brings.

use super::{Decision, Knowledge, decide};
use crate::ids::AgentId;
use crate::state::{ClusterState, Command};
use crate::time::{Millis, Now};
use std::collections::BTreeMap;
use std::time::Duration;

/// When everything proposed was refused, how long to wait for news before looking again. Also how long a master rests that
/// could not confirm that it leads.
pub const REFUSED_PAUSE: Duration = Duration::from_millis(250);

/// One leadership. Begun only after it was confirmed: before, a new leader's state may lag behind what its predecessor
/// acknowledged.
#[derive(Debug)]
pub struct Leading {
    known: Knowledge,
    /// It looks again after so long although nothing happens: what it waits for may be a time of day, and that may be set.
    look_again: Duration,
    decided_at: Duration,
}

/// What a leader decided, and what is to become of it.
#[derive(Debug)]
pub struct Round {
    /// What was decided; its commands are to be proposed together.
    pub decision: Decision,
    proposed: usize,
    look_again: Duration,
}

/// What comes after a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Decide again, now.
    Decide,
    /// Wait until something is applied or an agent is heard of, but no longer than this.
    Rest(Duration),
}

impl Leading {
    /// From now on. An agent is silent after `agent_timeout`.
    pub fn new(agent_timeout: Millis, now: Now) -> Self {
        let (heard, waiting) = (BTreeMap::new(), BTreeMap::new());
        Self {
            known: Knowledge { heard, leading_since: now.steady, agent_timeout, waiting },
            look_again: agent_timeout.to_duration() / 3,
            decided_at: now.steady,
        }
    }

    /// Decides. `heard` says when each agent was last heard from, by the steady clock; `new_id` gives unique text for each new task.
    pub fn decide(
        &mut self,
        state: &ClusterState,
        heard: BTreeMap<AgentId, Duration>,
        now: Now,
        new_id: &mut dyn FnMut() -> String,
    ) -> Round {
        // A leader that got no turn for so long heard nobody meanwhile, and that is nobody's silence but its own.
        if now.steady.saturating_sub(self.decided_at) > self.look_again * 2 {
            self.known.leading_since = now.steady;
        }
        self.decided_at = now.steady;
        self.known.heard = heard;
        let decision = decide(state, &self.known, now, new_id);
        self.known.waiting.clone_from(&decision.waiting);
        Round { proposed: decision.commands.len(), decision, look_again: self.look_again }
    }
}

impl Round {
    /// Takes the commands out, to be proposed together.
    pub fn take_commands(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.decision.commands)
    }

    /// All that was proposed is applied or refused, `honoured` of it applied.
    #[must_use]
    pub fn concluded(self, honoured: usize, now: Now) -> Next {
        if honoured > 0 {
            return Next::Decide;
        }
        let pause = (self.proposed > 0).then_some(REFUSED_PAUSE);
        let until_wake = self.decision.wake_at.map(|at| at.since(now.time).to_duration());
        Next::Rest([pause, until_wake].into_iter().flatten().fold(self.look_again, Duration::min))
    }
}
