//! Which agents fell silent, and which of their tasks are given up. Silence is leader memory: only its consequences are
//! written to the log. It is measured by the clock that nobody sets: when the leader's time of day jumps, no agent falls silent.

use crate::ids::AgentId;
use crate::state::{ClusterState, Command};
use crate::task::{Owner, Task, TaskState};
use crate::time::{Millis, Now, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a run's attempt on a silent agent is waited for before it counts as lost and is tried again elsewhere.
pub const RUN_UNREACHABLE_GRACE: Millis = Millis::from_secs(30);

/// What follows from silence.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Liveness {
    /// Agents to mark, tasks to forget.
    pub commands: Vec<Command>,
    /// When the next silence becomes too long.
    pub wake_at: Option<Timestamp>,
}

/// Decides. `heard` says when this leader last heard from each agent; nobody is silent since before `leading_since`.
pub fn decide(
    state: &ClusterState,
    heard: &BTreeMap<AgentId, Duration>,
    leading_since: Duration,
    timeout: Millis,
    now: Now,
) -> Liveness {
    let Now { time, steady } = now;
    let mut liveness = Liveness::default();
    for (id, agent) in state.agents.iter().filter(|(_, agent)| agent.is_up()) {
        let silent_since = heard.get(id).map_or(leading_since, |at| leading_since.max(*at));
        let due = silent_since + timeout.to_duration();
        if due <= steady {
            liveness.commands.push(Command::MarkAgentUnreachable { agent: agent.info.id.clone(), at: time });
        } else {
            liveness.wake(now.after(due));
        }
    }
    for task in state.tasks.values() {
        let Some(since) = task.unreachable_since else { continue };
        match given_up_at(state, task, since) {
            // No wait is over at once, whatever the clock says.
            Some(due) if due <= time || due == since => liveness.commands.push(Command::ExpungeTask {
                task: task.id.clone(),
                state: TaskState::Lost,
                message: format!("agent {} has not answered since {since}", task.host),
                at: time,
            }),
            Some(due) => liveness.wake(due),
            None => {}
        }
    }
    liveness
}

impl Liveness {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}

fn given_up_at(state: &ClusterState, task: &Task, since: Timestamp) -> Option<Timestamp> {
    match &task.spec.owner {
        Owner::App { app, .. } => match state.apps.get(app) {
            Some(record) if task.kill.is_none() => record.app.unreachable.expunge_at(since),
            // Nobody wants it back: deleted, scaled away or replaced while it was out of reach.
            _ => Some(since),
        },
        Owner::Run { .. } if task.kill.is_some() => Some(since),
        Owner::Run { .. } => Some(since + RUN_UNREACHABLE_GRACE),
    }
}
