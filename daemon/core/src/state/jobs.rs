//! Commands about jobs and runs.

use super::{ClusterState, JobEntry, RUN_HISTORY_MAX, Refusal, RunOutcome, Told};
use crate::event::EventKind;
use crate::ids::{JobName, RunId, TaskId};
use crate::job::{Cause, Job, JobRecord, Run, RunState, Trigger};
use crate::task::{Owner, TaskState};
use crate::time::Timestamp;

impl ClusterState {
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
        let entry =
            self.jobs.entry(job.name.clone()).or_insert_with(|| JobEntry { job: job.clone(), record: JobRecord::default() });
        entry.job = job.clone();
        entry.record.next = next;
        entry.record.remaining = remaining;
        entry.record.align_edges(&entry.job.trigger);
        self.last_version = self.last_version.max(job.changed_at);
        told.push(EventKind::JobChanged(job.name.clone()));
        Ok(())
    }

    pub(super) fn remove_job(
        &mut self,
        name: &JobName,
        children: &[Job],
        at: Timestamp,
        told: &mut Told,
    ) -> Result<(), Refusal> {
        if !self.jobs.contains_key(name) {
            return Err(Refusal::NotFound(format!("job {name}")));
        }
        if let Some(lost) = children.iter().find(|child| !self.jobs.contains_key(&child.name)) {
            return Err(Refusal::Stale(format!("job {}", lost.name)));
        }
        self.jobs.remove(name);
        for child in children {
            let entry = self.jobs.get_mut(&child.name).expect("checked above");
            entry.job = child.clone();
            entry.record.align_edges(&child.trigger);
            told.push(EventKind::JobChanged(child.name.clone()));
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
        if self.runs.contains_key(&run.id) {
            return Err(Refusal::Exists(format!("run {}", run.id)));
        }
        let entry = self.jobs.get_mut(&run.job).ok_or_else(|| Refusal::NotFound(format!("job {}", run.job)))?;
        let stale = || Refusal::Stale(format!("job {}", run.job));
        match run.cause {
            Cause::Manual => {}
            _ if entry.job.disabled => return Err(stale()),
            Cause::Slot => {
                if entry.record.next.is_none() || entry.record.next != expected_next {
                    return Err(stale());
                }
                entry.record.next = next;
                entry.record.remaining = remaining;
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
            if record.history.len() > RUN_HISTORY_MAX {
                record.history.remove(0);
            }
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

    fn count_for_children(&mut self, parent: &JobName) {
        for entry in self.jobs.values_mut() {
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

    /// Keeps the counts of edges that stay, starts new ones at zero.
    fn align_edges(&mut self, trigger: &Trigger) {
        let old = std::mem::take(&mut self.edges);
        if let Trigger::Parents(parents) = trigger {
            self.edges = parents.iter().map(|parent| (parent.clone(), old.get(parent).copied().unwrap_or(0))).collect();
        }
    }
}
