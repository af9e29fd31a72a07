//! Commands about jobs and runs.

use super::{ClusterState, JobChange, JobEntry, Refusal, RunOutcome, Told};
use crate::event::EventKind;
use crate::ids::{JobName, RunId, TaskId};
use crate::job::{Cause, Job, JobRecord, Run, RunState, Trigger};
use crate::task::{Owner, TaskState};
use crate::time::Timestamp;
use std::ops::Bound;

impl ClusterState {
    /// The runs of a job that are not over.
    pub fn runs_of_job<'a>(&'a self, job: &JobName) -> impl Iterator<Item = &'a Run> + use<'a> {
        // Run ids are `<job>@…`; '@' is in no job's name, and 'A' follows it.
        let (from, to) = (format!("{job}@"), format!("{job}A"));
        self.runs.range::<str, _>((Bound::Included(from.as_str()), Bound::Excluded(to.as_str()))).map(|(_, run)| run)
    }

    pub(super) fn put_job(
        &mut self,
        job: &Job,
        next: Option<Timestamp>,
        remaining: Option<u32>,
        based_on: Option<Timestamp>,
        told: &mut Told,
    ) -> Result<(), Refusal> {
        let current = self.jobs.get(&job.name).map(|entry| entry.job.changed_at);
        if current != based_on {
            return Err(Refusal::Stale(format!("job {}", job.name)));
        }
        // Planned before the slot fired that it would go on with.
        let last_slot = self.jobs.get(&job.name).and_then(|entry| entry.record.last_slot);
        if next.is_some() && next <= last_slot {
            return Err(Refusal::Stale(format!("job {}", job.name)));
        }
        self.define_job(job, next, remaining, told);
        Ok(())
    }

    fn define_job(&mut self, job: &Job, next: Option<Timestamp>, remaining: Option<u32>, told: &mut Told) {
        let entry = self.jobs.entry(job.name.clone()).or_insert_with(|| JobEntry {
            job: job.clone(),
            record: JobRecord { created_at: job.changed_at, ..JobRecord::default() },
        });
        entry.job = job.clone();
        entry.record.next = next;
        entry.record.remaining = remaining;
        entry.record.align_edges(&entry.job);
        self.last_version = self.last_version.max(job.changed_at);
        told.push(EventKind::JobChanged(job.name.clone()));
    }

    pub(super) fn remove_job(
        &mut self,
        name: &JobName,
        children: &[JobChange],
        at: Timestamp,
        told: &mut Told,
    ) -> Result<(), Refusal> {
        if !self.jobs.contains_key(name) {
            return Err(Refusal::NotFound(format!("job {name}")));
        }
        let is_current =
            |child: &JobChange| self.jobs.get(&child.job.name).is_some_and(|entry| entry.job.changed_at == child.based_on);
        if let Some(stale) = children.iter().find(|child| !is_current(child)) {
            return Err(Refusal::Stale(format!("job {}", stale.job.name)));
        }
        // A child that came meanwhile would wait for a parent that is no more.
        let is_told_of = |child: &JobName| child == name || children.iter().any(|change| change.job.name == *child);
        if let Some(child) = self.children_of(name).find(|child| !is_told_of(child)) {
            return Err(Refusal::Stale(format!("job {child}")));
        }
        self.jobs.remove(name);
        for child in children {
            self.define_job(&child.job, child.next, child.remaining, told);
        }
        self.runs.retain(|_, run| run.job != *name);
        let tasks: Vec<TaskId> = self
            .tasks
            .values()
            .filter(|task| task.kill.is_none() && matches!(&task.spec.owner, Owner::Run { job, .. } if job == name))
            .map(|task| task.id.clone())
            .collect();
        for task in tasks {
            self.kill_task(&task, "its job was removed", at, told).expect("it is there and not being ended");
        }
        told.push(EventKind::JobRemoved(name.clone()));
        Ok(())
    }

    pub(super) fn start_run(
        &mut self,
        run: &Run,
        expected_next: Option<Timestamp>,
        next: Option<Timestamp>,
        remaining: Option<u32>,
        told: &mut Told,
    ) -> Result<(), Refusal> {
        let live = self.runs_of_job(&run.job).count();
        let entry = self.jobs.get_mut(&run.job).ok_or_else(|| Refusal::NotFound(format!("job {}", run.job)))?;
        if self.runs.contains_key(&run.id) || entry.record.history.iter().any(|ended| ended.id == run.id) {
            return Err(Refusal::Exists(format!("run {}", run.id)));
        }
        if live >= self.bounds.runs_live as usize {
            return Err(Refusal::NoRoom(format!(
                "job {} has {live} runs that are queued or live, the most it may have",
                run.job
            )));
        }
        let stale = || Refusal::Stale(format!("job {}", run.job));
        match run.cause {
            Cause::Manual => {}
            _ if entry.job.disabled || (live > 0 && !entry.job.concurrent) => return Err(stale()),
            Cause::Slot => {
                if entry.record.next.is_none() || entry.record.next != expected_next {
                    return Err(stale());
                }
                entry.record.next = next;
                entry.record.remaining = remaining;
                entry.record.last_slot = entry.record.last_slot.max(Some(run.slot));
            }
            Cause::Parents => {
                if entry.record.edges.is_empty() || entry.record.edges.values().any(|count| *count == 0) {
                    return Err(stale());
                }
                entry.record.edges.values_mut().for_each(|count| *count = 0);
            }
        }
        told.push(EventKind::RunChanged(Box::new(run.clone())));
        self.runs.insert(run.id.clone(), run.clone());
        Ok(())
    }

    pub(super) fn retry_run(
        &mut self,
        id: &RunId,
        attempt: u32,
        not_before: Timestamp,
        told: &mut Told,
    ) -> Result<(), Refusal> {
        let run = self.runs.get_mut(id).ok_or_else(|| Refusal::NotFound(format!("run {id}")))?;
        if !matches!(run.state, RunState::AttemptEnded { .. }) || run.attempt + 1 != attempt {
            return Err(Refusal::Stale(format!("run {id}")));
        }
        run.attempt = attempt;
        run.state = RunState::Queued { not_before };
        told.push(EventKind::RunChanged(Box::new(run.clone())));
        Ok(())
    }

    pub(super) fn finish_run(
        &mut self,
        id: &RunId,
        outcome: RunOutcome,
        release: bool,
        disable: bool,
        at: Timestamp,
        told: &mut Told,
    ) -> Result<(), Refusal> {
        let run = self.runs.get_mut(id).ok_or_else(|| Refusal::NotFound(format!("run {id}")))?;
        let state = match &run.state {
            RunState::AttemptEnded { state, .. } => *state,
            RunState::Queued { .. } if outcome == RunOutcome::Cancelled => TaskState::Dropped,
            _ => return Err(Refusal::Stale(format!("run {id}"))),
        };
        let mut run = self.runs.remove(id).expect("it was just found");
        run.state = RunState::Done { state, at };
        if let Some(entry) = self.jobs.get_mut(&run.job) {
            let record = &mut entry.record;
            match outcome {
                RunOutcome::Succeeded => record.count_success(at),
                RunOutcome::Failed => {
                    record.error_count += 1;
                    record.errors_since_success += 1;
                    record.last_error = Some(at);
                }
                RunOutcome::Cancelled => {}
            }
            entry.job.disabled |= disable;
            record.history.push(run.clone());
            record.forget_old_runs(&self.bounds);
        }
        if release {
            self.count_for_children(&run.job);
        }
        told.push(EventKind::RunChanged(Box::new(run)));
        Ok(())
    }

    pub(super) fn mark_job_success(&mut self, name: &JobName, at: Timestamp, told: &mut Told) -> Result<(), Refusal> {
        let entry = self.jobs.get_mut(name).ok_or_else(|| Refusal::NotFound(format!("job {name}")))?;
        entry.record.count_success(at);
        entry.record.edges.values_mut().for_each(|count| *count = 0);
        self.count_for_children(name);
        told.push(EventKind::JobChanged(name.clone()));
        Ok(())
    }

    /// The jobs that wait for `parent`, which need not exist.
    pub fn children_of<'a>(&'a self, parent: &'a JobName) -> impl Iterator<Item = &'a JobName> {
        self.jobs.iter().filter(|(_, entry)| entry.record.edges.contains_key(parent)).map(|(name, _)| name)
    }

    /// What happens while a job is disabled passes it by, as its slots do.
    fn count_for_children(&mut self, parent: &JobName) {
        for entry in self.jobs.values_mut().filter(|entry| !entry.job.disabled) {
            if let Some(count) = entry.record.edges.get_mut(parent) {
                *count = count.saturating_add(1);
            }
        }
    }
}

impl JobRecord {
    fn count_success(&mut self, at: Timestamp) {
        self.success_count += 1;
        self.errors_since_success = 0;
        self.last_success = Some(at);
    }

    /// Keeps the counts of edges that stay, starts new ones at zero. A disabled job's are all zero.
    fn align_edges(&mut self, job: &Job) {
        let old = std::mem::take(&mut self.edges);
        if let Trigger::Parents(parents) = &job.trigger {
            let kept = |parent: &JobName| if job.disabled { 0 } else { old.get(parent).copied().unwrap_or(0) };
            self.edges = parents.iter().map(|parent| (parent.clone(), kept(parent))).collect();
        }
    }
}
