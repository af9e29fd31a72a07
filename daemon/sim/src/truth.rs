//! What really happened, beside what anybody believes: the log as it was committed, the state it leads to, and every start and
//! stop of a unit. Each invariant is a small function here, named as what must hold.

use drover_core::agent::Agent;
use drover_core::ids::{AgentId, AppId, JobName, TaskId};
use drover_core::job::{Cause, Trigger};
use drover_core::leader::{Decision, Request};
use drover_core::resources::Scalars;
use drover_core::state::{Applied, ClusterState, Command};
use drover_core::time::{Millis, Timestamp};
use drover_core::unit::Ledger;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::raft::Entry;

/// Whole states of masters are compared with the true one at every so many entries.
const COMPARED_EVERY: u64 = 8;

/// An invariant broken: its name, and what was seen.
pub(crate) type Broken = (&'static str, String);

/// The truth.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    pub(crate) state: ClusterState,
    /// Of each entry, from index 1 on: which proposal it is, and what it did.
    entries: Vec<(u64, Rc<Vec<Applied>>)>,
    /// Where each task was placed.
    launched: BTreeMap<TaskId, AgentId>,
    /// Tasks that are to end, or are off the books.
    ending: BTreeSet<TaskId>,
    /// Tasks that have a unit, or had one.
    made: BTreeSet<TaskId>,
    /// Slots begun, by job and when a job of that name was first defined.
    slots: BTreeSet<(JobName, Timestamp, Timestamp)>,
    /// Proposals whose proposer was told that they are applied.
    acknowledged: BTreeMap<u64, u64>,
    /// Generation each agent has on disk.
    generations: BTreeMap<AgentId, u64>,
    pub(crate) slots_begun: u64,
}

impl Truth {
    pub(crate) fn index(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(crate) fn newest_acknowledged(&self) -> u64 {
        self.acknowledged.keys().next_back().copied().unwrap_or(0)
    }

    /// A master has applied the entry at `index`, and got `state` by it.
    pub(crate) fn applied(
        &mut self,
        index: u64,
        entry: &Entry,
        results: Vec<Applied>,
        state: &ClusterState,
    ) -> Result<(), Broken> {
        if index == self.index() + 1 {
            let mut own = Vec::with_capacity(entry.commands.len());
            for command in &entry.commands {
                own.push(self.commit(command)?);
            }
            self.entries.push((entry.origin, Rc::new(own)));
            no_acknowledged_write_is_lost(self.acknowledged.get(&index), entry.origin, index)?;
        }
        let Some((origin, known)) = self.entries.get(index as usize - 1) else {
            return Err(("entries are applied in order", format!("{index} after {}", self.index())));
        };
        all_masters_apply_the_same_entry(index, *origin, entry.origin)?;
        if **known != results {
            return Err(("an entry does the same on all masters", format!("entry {index}: {known:?}, and {results:?}")));
        }
        if index == self.index() && index.is_multiple_of(COMPARED_EVERY) {
            self.is_the_state_at(index, state)?;
        }
        Ok(())
    }

    /// States of masters are equal at the same index.
    pub(crate) fn is_the_state_at(&self, index: u64, state: &ClusterState) -> Result<(), Broken> {
        if index == self.index() && *state != self.state {
            return Err(("states are equal at the same index", format!("at {index}")));
        }
        Ok(())
    }

    fn commit(&mut self, command: &Command) -> Result<Applied, Broken> {
        let (task_before, gone) = match command {
            Command::RecordStatus { status, .. } => {
                let task = self.state.tasks.get(&status.task);
                (task.map(|task| (task.seq, task.unreachable_since.is_some())), task.is_none())
            }
            _ => (None, false),
        };
        let next_before = match command {
            Command::StartRun { run, .. } => self.state.jobs.get(&run.job).map(|entry| entry.record.next),
            _ => None,
        };
        let before: BTreeSet<TaskId> =
            if may_end_tasks(command) { self.state.tasks.keys().cloned().collect() } else { BTreeSet::new() };
        let untouched = self.state.clone();
        let applied = self.state.apply(command);
        if let Err(refusal) = &applied.result {
            a_refused_command_changes_nothing(&untouched, &self.state, &applied, &refusal.to_string())?;
        }
        self.ending.extend(before.into_iter().filter(|id| !self.state.tasks.contains_key(id)));
        if applied.result.is_err() {
            return Ok(applied);
        }
        match command {
            Command::LaunchTask { launch, .. } => {
                if self.launched.insert(launch.task.clone(), launch.agent.clone()).is_some() {
                    return Err(("a task is placed once", launch.task.to_string()));
                }
                resources_are_never_over_committed(&self.state, &launch.agent)?;
            }
            Command::KillTask { task, .. } => drop(self.ending.insert(task.clone())),
            Command::RemoveJob { .. } => {
                let told = self.state.tasks.values().filter(|task| task.kill.is_some()).map(|task| task.id.clone());
                self.ending.extend(told);
            }
            Command::RecordStatus { status, .. } => {
                statuses_of_a_task_rise(task_before, status.seq, self.state.tasks.get(&status.task).map(|task| task.seq))?;
                if gone && self.state.tasks.contains_key(&status.task) {
                    return Err(("a terminal status is final", format!("{} is back", status.task)));
                }
            }
            Command::StartRun { run, at, .. } if run.cause == Cause::Slot => {
                let entry = &self.state.jobs[&run.job];
                let key = (run.job.clone(), entry.record.created_at, run.slot);
                if !self.slots.insert(key) {
                    return Err(("no slot fires twice", format!("{} of {}", run.slot, run.job)));
                }
                self.slots_begun += 1;
                if let (Some(Some(next)), Trigger::Schedule(schedule)) = (next_before, &entry.job.trigger) {
                    slots_are_skipped_by_rule_only(schedule, next, run.slot, entry.job.epsilon, *at)?;
                }
            }
            _ => {}
        }
        Ok(applied)
    }

    /// A leader writes an entry of this version. What was raised by an entry that is committed is known to all who go on.
    pub(crate) fn is_written(&self, version: u32) -> Result<(), Broken> {
        if version > self.state.version.0 {
            let seen = format!("an entry of version {version}, and the cluster is at {}", self.state.version.0);
            return Err(("nothing is written that a master of the cluster cannot read", seen));
        }
        Ok(())
    }

    /// A proposer was told that its proposal is applied at `index`.
    pub(crate) fn acknowledge(&mut self, index: u64, origin: u64) -> Result<(), Broken> {
        self.acknowledged.insert(index, origin);
        match self.entries.get(index as usize - 1) {
            Some((known, _)) => no_acknowledged_write_is_lost(Some(&origin), *known, index),
            None => Ok(()),
        }
    }

    /// An agent is told that these are on record.
    pub(crate) fn statuses_acknowledged(&self, statuses: &[(TaskId, u64)]) -> Result<(), Broken> {
        let unrecorded = |(task, seq): &&(TaskId, u64)| self.state.tasks.get(task).is_some_and(|task| task.seq < *seq);
        match statuses.iter().find(unrecorded) {
            Some((task, seq)) => Err(("a status is acknowledged once it is applied", format!("{task} #{seq}"))),
            None => Ok(()),
        }
    }

    /// systemd of `agent` was made to start a unit for `task`.
    pub(crate) fn unit_made(&mut self, agent: &AgentId, task: &TaskId) -> Result<(), Broken> {
        if self.launched.get(task) != Some(agent) {
            return Err(("nothing is started that was not assigned", format!("{task} on {agent}")));
        }
        if !self.made.insert(task.clone()) {
            return Err(("a task is started at most once", format!("{task} on {agent}")));
        }
        Ok(())
    }

    /// A unit that was up is stopped at the agent's wish.
    pub(crate) fn unit_stopped(&self, agent: &AgentId, task: &TaskId, was_touched: bool) -> Result<(), Broken> {
        if !self.ending.contains(task) && !was_touched {
            return Err(("nothing is stopped that was not told", format!("{task} on {agent}")));
        }
        Ok(())
    }

    /// An agent acts by this ledger: it is on its disk.
    pub(crate) fn ledger_kept(&mut self, agent: &AgentId, ledger: &Ledger) -> Result<(), Broken> {
        let known = self.generations.entry(agent.clone()).or_default();
        if ledger.generation < *known {
            return Err(("an agent's generation never goes back", format!("{agent}: {} after {known}", ledger.generation)));
        }
        *known = ledger.generation;
        Ok(())
    }
}

fn may_end_tasks(command: &Command) -> bool {
    matches!(command, Command::RecordStatus { .. } | Command::ExpungeTask { .. } | Command::RemoveAgent { .. })
}

fn no_acknowledged_write_is_lost(acknowledged: Option<&u64>, origin: u64, index: u64) -> Result<(), Broken> {
    match acknowledged {
        Some(known) if *known != origin => {
            Err(("no acknowledged write is lost", format!("entry {index} was proposal {known}, and is {origin}")))
        }
        _ => Ok(()),
    }
}

fn all_masters_apply_the_same_entry(index: u64, known: u64, origin: u64) -> Result<(), Broken> {
    if known != origin {
        return Err(("all masters apply the same entries", format!("entry {index} is proposal {known}, and {origin}")));
    }
    Ok(())
}

/// What tasks hold of an agent is no more than it has, and no port is held twice.
pub(crate) fn resources_are_never_over_committed(state: &ClusterState, agent: &AgentId) -> Result<(), Broken> {
    let held = state.tasks_of_agent(agent).map(|task| task.allocation.total()).fold(Scalars::default(), Scalars::plus);
    let Agent { info, .. } = &state.agents[agent];
    let count = state.tasks_of_agent(agent).count();
    if !info.resources.total().hold(&held) || count > info.tasks_max as usize {
        return Err(("resources are never over-committed", format!("{agent} holds {held:?} by {count} tasks")));
    }
    let mut ports: Vec<u16> = state.tasks_of_agent(agent).flat_map(|task| task.allocation.ports.clone()).collect();
    let count = ports.len();
    ports.sort_unstable();
    ports.dedup();
    if ports.len() < count {
        return Err(("a port is held once", format!("on {agent}: {ports:?}")));
    }
    Ok(())
}

fn a_refused_command_changes_nothing(
    before: &ClusterState,
    after: &ClusterState,
    applied: &Applied,
    refusal: &str,
) -> Result<(), Broken> {
    if before != after || !applied.events.is_empty() {
        return Err(("a refused command changes nothing", refusal.to_owned()));
    }
    Ok(())
}

/// An app that lacks instances, with nothing launched for it and no deployment to wait for, waits for a time that is told, or has
/// a reason against each agent. So has everything else that waits.
pub(crate) fn what_does_not_run_has_a_reason(state: &ClusterState, decision: &Decision) -> Result<(), Broken> {
    const NAME: &str = "what does not run has a reason on each node";
    let launches = decision.commands.iter().filter_map(|command| match command {
        Command::LaunchTask { launch, .. } => Some(launch.task.as_str()),
        _ => None,
    });
    let launched: BTreeSet<&str> = launches.collect();
    for (id, record) in &state.apps {
        let is_lacking = (state.tasks_of_app(id).count() as u64) < u64::from(record.app.instances);
        let is_excused = state.deployments_of(id).next().is_some() || launched.iter().any(|task| is_instance(id, task));
        if is_lacking && !is_excused && !decision.waiting.contains_key(&Request::App(id.clone())) {
            return Err((NAME, format!("{id} lacks instances, and nobody says why")));
        }
    }
    for (request, waiting) in &decision.waiting {
        if waiting.delayed_until.is_some() || waiting.behind {
            continue;
        }
        for agent in state.agents.keys() {
            if launched.is_empty() && waiting.agents.get(agent).is_none_or(Vec::is_empty) {
                return Err((NAME, format!("{request:?} has none on {agent}")));
            }
        }
    }
    Ok(())
}

/// A new version ends no running instance that the app's minimum needs: as the leader knows them, those that go on running are
/// enough. (One that dies at that very moment is nobody's decision.)
pub(crate) fn no_app_falls_below_its_minimum(state: &ClusterState, decision: &Decision) -> Result<(), Broken> {
    let killed = |command: &Command| match command {
        Command::KillTask { task, .. } => Some(task.clone()),
        _ => None,
    };
    let ended: BTreeSet<TaskId> = decision.commands.iter().filter_map(killed).collect();
    for (id, record) in &state.apps {
        let running = || state.tasks_of_app(id).filter(|task| task.is_running() && task.kill.is_none());
        let stay = running().filter(|task| !ended.contains(&task.id)).count() as u64;
        let app = &record.app;
        let minimum = (u64::from(app.instances) * u64::from(app.upgrade.min_health_milli)).div_ceil(1000);
        if stay < minimum && stay < running().count() as u64 {
            return Err(("no app falls below its minimum", format!("{id}: {stay} of {minimum} go on")));
        }
    }
    Ok(())
}

fn is_instance(app: &AppId, task: &str) -> bool {
    task.starts_with(TaskId::of_app(app, "").as_str())
}

fn statuses_of_a_task_rise(before: Option<(u64, bool)>, offered: u64, after: Option<u64>) -> Result<(), Broken> {
    if let (Some((before, was_unreachable)), Some(after)) = (before, after) {
        let is_in_order = after > before || after == before && (was_unreachable || offered <= before);
        if !is_in_order {
            return Err(("statuses of a task rise", format!("{before}, then {after}")));
        }
    }
    Ok(())
}

fn slots_are_skipped_by_rule_only(
    schedule: &drover_core::schedule::Schedule,
    next: Timestamp,
    slot: Timestamp,
    epsilon: Millis,
    now: Timestamp,
) -> Result<(), Broken> {
    let mut skipped = next;
    while skipped < slot {
        if skipped + epsilon >= now {
            return Err(("a slot is skipped only when it is too late", format!("{skipped} for {slot} at {now}")));
        }
        match schedule.slot_after(skipped) {
            Some(following) => skipped = following,
            None => break,
        }
    }
    Ok(())
}
