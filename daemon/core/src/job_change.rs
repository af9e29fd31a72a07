//! From what a user wants of a job to the command that brings it: version, next slot, and what becomes of its dependents.
//! Called by the HTTP handlers of the leader; what was planned on an old state is refused when applied, and is then planned
//! again.

use crate::ids::{JobName, TaskId};
use crate::job::{Job, Trigger};
use crate::runs;
use crate::state::{ClusterState, Command, JobChange, JobEntry};
use crate::task::Owner;
use crate::time::{Millis, Timestamp};
use std::collections::BTreeSet;

/// What becomes of the jobs that depend on a removed job with a schedule. (Those of a dependent job depend on its parents
/// from then on; there is nothing to choose.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Children {
    /// There must be none.
    Refuse,
    /// They get its schedule and depend on nothing any more, as in Chronos.
    Inherit,
    /// They depend on their other parents only, and must have some.
    Detach,
}

/// Why a change cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such job.
    #[error("job '{0}' does not exist")]
    Unknown(JobName),
    /// The cluster has as many jobs as it may have.
    #[error("there are {0} jobs already, the most this cluster may have")]
    TooMany(usize),
    /// A job would, by way of others, wait for itself.
    #[error("the job would wait for itself: {}", path(.0))]
    Cycle(Vec<JobName>),
    /// These parents do not exist.
    #[error("unknown parents: {}", list(.0))]
    UnknownParents(Vec<JobName>),
    /// These jobs depend on the one to be removed.
    #[error("jobs depend on '{parent}': {}", list(.children))]
    HasChildren {
        /// The job to be removed.
        parent: JobName,
        /// Who depends on it.
        children: Vec<JobName>,
    },
    /// These jobs depend on nothing else.
    #[error("jobs depend on '{parent}' alone: {}", list(.children))]
    OnlyParent {
        /// The job to be removed.
        parent: JobName,
        /// Who would be left without a parent.
        children: Vec<JobName>,
    },
}

fn list(names: &[JobName]) -> String {
    names.iter().map(JobName::as_str).collect::<Vec<_>>().join(", ")
}

fn path(names: &[JobName]) -> String {
    names.iter().map(JobName::as_str).collect::<Vec<_>>().join(" after ")
}

/// Plans the definition or redefinition of a job. A new job may name parents that do not exist yet, so that a set of jobs can
/// be posted in any order; it waits until they do. A redefinition may not add such.
///
/// # Errors
/// Why it cannot be.
pub fn plan_put(state: &ClusterState, mut job: Job, jobs_max: usize, now: Timestamp) -> Result<Command, Refused> {
    let before = state.jobs.get(&job.name);
    if before.is_none() && state.jobs.len() >= jobs_max {
        return Err(Refused::TooMany(state.jobs.len()));
    }
    if let Some(cycle) = cycle(state, &job) {
        return Err(Refused::Cycle(cycle));
    }
    if let Some(before) = before {
        let had = parents_of(&before.job);
        let unknown: Vec<JobName> = parents_of(&job)
            .into_iter()
            .filter(|parent| !state.jobs.contains_key(*parent) && !had.contains(parent))
            .cloned()
            .collect();
        if !unknown.is_empty() {
            return Err(Refused::UnknownParents(unknown));
        }
    }
    let (next, remaining) = runs::redefine(before, &mut job, now);
    job.changed_at = version(state, now);
    let based_on = before.map(|entry| entry.job.changed_at);
    Ok(Command::PutJob { job: Box::new(job), next, remaining, based_on, at: now })
}

/// Plans the removal of a job.
///
/// # Errors
/// Why it cannot be.
pub fn plan_remove(state: &ClusterState, name: &JobName, children: Children, now: Timestamp) -> Result<Command, Refused> {
    let entry = state.jobs.get(name).ok_or_else(|| Refused::Unknown(name.clone()))?;
    let dependents: Vec<&JobEntry> = state.children_of(name).filter_map(|child| state.jobs.get(child)).collect();
    let names = |entries: &[&JobEntry]| entries.iter().map(|entry| entry.job.name.clone()).collect();
    let others = |child: &JobEntry| -> BTreeSet<JobName> {
        parents_of(&child.job).into_iter().filter(|parent| *parent != name).cloned().collect()
    };
    let trigger_of = |child: &JobEntry| match (&entry.job.trigger, children) {
        (Trigger::Parents(parents), _) => Trigger::Parents(parents.union(&others(child)).cloned().collect()),
        (schedule @ Trigger::Schedule(_), Children::Inherit) => schedule.clone(),
        (Trigger::Schedule(_), Children::Detach | Children::Refuse) => Trigger::Parents(others(child)),
    };
    if matches!(entry.job.trigger, Trigger::Schedule(_)) && !dependents.is_empty() {
        let orphans: Vec<&JobEntry> = dependents.iter().copied().filter(|child| others(child).is_empty()).collect();
        match children {
            Children::Refuse => return Err(Refused::HasChildren { parent: name.clone(), children: names(&dependents) }),
            Children::Detach if !orphans.is_empty() => {
                return Err(Refused::OnlyParent { parent: name.clone(), children: names(&orphans) });
            }
            Children::Detach | Children::Inherit => {}
        }
    }
    let changed_at = version(state, now);
    let change = |child: &&JobEntry| {
        let job = Job { trigger: trigger_of(child), changed_at, ..child.job.clone() };
        let (next, remaining) = match &job.trigger {
            Trigger::Schedule(_) => (entry.record.next, entry.record.remaining),
            Trigger::Parents(_) => (None, None),
        };
        JobChange { job, next, remaining, based_on: child.job.changed_at }
    };
    Ok(Command::RemoveJob { name: name.clone(), children: dependents.iter().map(change).collect(), at: now })
}

/// Plans the end of a job's tasks; runs that are still queued stay.
///
/// # Errors
/// There is no such job.
pub fn plan_kill(state: &ClusterState, name: &JobName, why: &str, now: Timestamp) -> Result<Vec<Command>, Refused> {
    if !state.jobs.contains_key(name) {
        return Err(Refused::Unknown(name.clone()));
    }
    let is_its = |owner: &Owner| matches!(owner, Owner::Run { job, .. } if job == name);
    let tasks = state.tasks.values().filter(|task| task.kill.is_none() && is_its(&task.spec.owner));
    let kill = |task: TaskId| Command::KillTask { task, why: why.to_owned(), at: now };
    Ok(tasks.map(|task| kill(task.id.clone())).collect())
}

/// The jobs a job waits for.
pub fn parents_of(job: &Job) -> BTreeSet<&JobName> {
    match &job.trigger {
        Trigger::Parents(parents) => parents.iter().collect(),
        Trigger::Schedule(_) => BTreeSet::new(),
    }
}

fn version(state: &ClusterState, now: Timestamp) -> Timestamp {
    now.max(state.last_version + Millis(1))
}

/// The way from `job` by its parents back to itself, if it were defined so.
fn cycle(state: &ClusterState, job: &Job) -> Option<Vec<JobName>> {
    let mut seen: BTreeSet<&JobName> = BTreeSet::new();
    // Each entry is a way: the job, its parent, that one's parent, and so on.
    let mut ways: Vec<Vec<&JobName>> = parents_of(job).into_iter().map(|parent| vec![&job.name, parent]).collect();
    while let Some(way) = ways.pop() {
        let last = *way.last().expect("a way has two ends");
        if *last == job.name {
            return Some(way.into_iter().cloned().collect());
        }
        if !seen.insert(last) {
            continue;
        }
        let Some(entry) = state.jobs.get(last) else { continue };
        ways.extend(parents_of(&entry.job).into_iter().map(|parent| way.iter().copied().chain([parent]).collect()));
    }
    None
}
