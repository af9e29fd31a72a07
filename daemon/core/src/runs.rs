//! The runs of jobs: which begin, which are tried again, which are over, and which may be placed now. Everything is computed
//! from the replicated state and `now`; nothing is remembered in between, so a new leader decides what the old one would have.
//!
//! ```text
//! slot came ┐                        ┌── failed, attempts left ──┐
//! asked for ┼─▶ Queued ──▶ Active ──▶ AttemptEnded ──▶ Done      │
//! parents   ┘     ▲        (a task)  └───────────────────────────┤
//!                 └────────────── after the retry delay ◀────────┘
//! ```
//! **Slots.** Each slot begins at most one run: `StartRun` moves the job's next slot on, and is refused when that has moved
//! already. A slot at most `epsilon` late gets its own run; of those that are later only the newest gets one, so an outage is
//! followed by one late run and not by a burst. Slots that are passed over do not count as runs of a finite schedule.
//! A disabled job's slots pass, and enabling it begins with the slots to come.
//!
//! **Overlap.** While a job that is not `concurrent` has a run that is queued or live, its slots and its parents' successes
//! wait, and are judged by the same rule when it is over. Runs asked for by hand queue up behind it. So do all beyond
//! [`Bounds::runs_live`](crate::state::Bounds::runs_live).
//!
//! **Ends.** Success finishes a run. An end by wish (`KILLED`) cancels it: no retry, no dependents. Every other end is tried
//! again after the job's delay, also when the agent was lost, until the retries are used up; then the run has failed. A finite
//! schedule's job is disabled when its last run has succeeded.

use crate::app::KILL_GRACE_DEFAULT;
use crate::ids::{JobName, RunId, TaskId};
use crate::job::{Cause, Job, Run, RunState, Trigger};
use crate::schedule::Schedule;
use crate::state::{ClusterState, Command, JobEntry, RunOutcome};
use crate::task::{Owner, Program, TaskSpec, TaskState};
use crate::time::{Millis, Timestamp, was_set_back};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

#[cfg(test)]
mod tests;

/// What is to be done about jobs.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RunDecision<'a> {
    /// To propose, in this order.
    pub commands: Vec<Command>,
    /// Attempts that may be placed now, the most urgent first.
    pub requests: Vec<RunRequest<'a>>,
    /// Attempts that wait for their retry delay: which, of which job, until when.
    pub delayed: Vec<(RunId, JobName, Timestamp)>,
    /// Runs that wait until another run of their job is over.
    pub behind: Vec<(RunId, JobName)>,
    /// When to decide again although nothing happens.
    pub wake_at: Option<Timestamp>,
}

/// An attempt that wants a place. Thousands may wait, so what to run is worked out for those only that get one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunRequest<'a> {
    /// What needs, rules and rank it has.
    pub job: &'a Job,
    /// The run; its `attempt` is the one to place.
    pub run: &'a Run,
}

impl RunRequest<'_> {
    /// The task the attempt becomes.
    pub fn task(&self) -> TaskId {
        task_id(self.run)
    }

    /// What to run on `host`.
    pub fn spec_on(&self, host: &str) -> TaskSpec {
        task_spec(self.job, self.run, host)
    }
}

/// Decides about every job and run.
pub fn decide(state: &ClusterState, now: Timestamp) -> RunDecision<'_> {
    let mut live: BTreeMap<&JobName, Vec<&Run>> = BTreeMap::new();
    for run in state.runs.values() {
        live.entry(&run.job).or_default().push(run);
    }
    let mut decision = RunDecision::default();
    for (name, entry) in &state.jobs {
        let runs = live.get(name).map_or(&[][..], Vec::as_slice);
        for run in runs {
            decision.commands.extend(settle(entry, run, now));
        }
        decision.begin(entry, runs, state.bounds.runs_live, now);
        decision.place(&entry.job, runs, now);
    }
    decision.requests.sort_by_key(|open| (Reverse(open.job.high_priority), open.run.queued_at, &open.run.id));
    decision
}

/// The command that begins a run by hand, with words to append to the job's program; `None` if there is no such job. A
/// disabled job may be run by hand.
pub fn manual_run(state: &ClusterState, job: &JobName, arguments: Vec<String>, now: Timestamp) -> Option<Command> {
    let entry = state.jobs.get(job)?;
    let id = unused_id(entry, state.runs_of_job(job), now);
    let run = Run { arguments, ..new_run(entry, id, now, Cause::Manual, now) };
    let (next, remaining) = (entry.record.next, entry.record.remaining);
    Some(Command::StartRun { run: Box::new(run), expected_next: next, next, remaining, at: now })
}

/// The first slot of a new job, and how many there are to run. A start in the past fires at once, for the latest slot that
/// has passed.
pub fn first_slot(schedule: &Schedule, now: Timestamp) -> (Option<Timestamp>, Option<u32>) {
    let remaining = schedule.repeats();
    if remaining == Some(0) {
        return (None, remaining);
    }
    (schedule.latest_slot_at_or_before(now).or_else(|| schedule.slot_at_or_after(now)), remaining)
}

/// The next slot of a job that is defined or redefined as `job`, and how many are left. A redefinition never runs what was due
/// before it:
///
/// - The same schedule, or the rewritten form that the API shows, goes on where it is, with its old start; except that an empty
///   start of a schedule that has run out means now, again.
/// - Another schedule begins with its first slot that is neither later than the job's `epsilon` nor older than what has run.
/// - Enabling begins with the slots to come.
pub fn redefine(before: Option<&JobEntry>, job: &mut Job, now: Timestamp) -> (Option<Timestamp>, Option<u32>) {
    let Trigger::Schedule(schedule) = &mut job.trigger else { return (None, None) };
    let Some(before) = before else { return first_slot(schedule, now) };
    let JobEntry { job: old_job, record } = before;
    if let Trigger::Schedule(old) = &old_job.trigger
        && old.zone.name() == schedule.zone.name()
        && (old.text == schedule.text || rewritten(before, old) == schedule.text)
        && !(record.next.is_none() && old.text == schedule.text && old.has_empty_start())
    {
        *schedule = old.clone();
        let next = match record.next {
            Some(next) if old_job.disabled => schedule.slot_at_or_after(next.max(now)),
            next => next,
        };
        return (next, record.remaining);
    }
    let remaining = schedule.repeats();
    if remaining == Some(0) {
        return (None, remaining);
    }
    let lateness = if old_job.disabled { Millis(0) } else { job.epsilon };
    let unused = record.last_slot.map_or(Timestamp(i64::MIN), |slot| slot + Millis(1));
    (schedule.slot_at_or_after((now - lateness).max(unused)), remaining)
}

/// The job's schedule as Chronos shows it: what is left, from the next slot on. `None` for a dependent job.
pub fn rewritten_schedule(entry: &JobEntry) -> Option<String> {
    match &entry.job.trigger {
        Trigger::Schedule(schedule) => Some(rewritten(entry, schedule)),
        Trigger::Parents(_) => None,
    }
}

fn rewritten(entry: &JobEntry, schedule: &Schedule) -> String {
    let record = &entry.record;
    // Run out: Chronos shows the slot that would come next.
    let after_last = || record.last_slot.map_or(Some(schedule.start()), |slot| schedule.slot_after(slot).or(Some(slot)));
    let next = record.next.or_else(after_last).unwrap_or(schedule.start());
    schedule.remaining_from(next, record.remaining)
}

/// What to do with a run by itself: close it, try it again, or nothing.
fn settle(entry: &JobEntry, run: &Run, now: Timestamp) -> Option<Command> {
    let job = &entry.job;
    let is_dropped = job.disabled && run.cause != Cause::Manual;
    let finish = |outcome, release, disable| Command::FinishRun { run: run.id.clone(), outcome, release, disable, at: now };
    let (state, ended_at) = match &run.state {
        RunState::Queued { .. } if is_dropped => return Some(finish(RunOutcome::Cancelled, false, false)),
        RunState::AttemptEnded { state, at } => (*state, *at),
        RunState::Queued { .. } | RunState::Active { .. } | RunState::Done { .. } => return None,
    };
    match state {
        TaskState::Finished => {
            let was_last = run.cause == Cause::Slot && entry.record.remaining == Some(0);
            Some(finish(RunOutcome::Succeeded, true, was_last))
        }
        TaskState::Killed => Some(finish(RunOutcome::Cancelled, false, false)),
        TaskState::Failed
        | TaskState::Error
        | TaskState::Lost
        | TaskState::Dropped
        | TaskState::Gone
        | TaskState::GoneByOperator
        | TaskState::Unknown => {
            if run.attempt < job.retries && !is_dropped {
                // Recorded by another leader, whose clock may run ahead.
                let not_before = ended_at.min(now) + job.retry_delay;
                return Some(Command::RetryRun { run: run.id.clone(), attempt: run.attempt + 1, not_before, at: now });
            }
            Some(finish(RunOutcome::Failed, job.soft_error, false))
        }
        // No attempt ends in these.
        TaskState::Staging | TaskState::Starting | TaskState::Running | TaskState::Killing | TaskState::Unreachable => None,
    }
}

impl<'a> RunDecision<'a> {
    /// Begins the runs whose slot has come or whose parents have all succeeded, as far as the job may have more of them.
    fn begin(&mut self, entry: &JobEntry, live: &[&Run], live_max: u32, now: Timestamp) {
        let JobEntry { job, record } = entry;
        if job.disabled {
            return;
        }
        let live_max = if job.concurrent { live_max as usize } else { 1 };
        let mut places = live_max.saturating_sub(live.len());
        match &job.trigger {
            Trigger::Parents(_) => {
                if places > 0 && !record.edges.is_empty() && record.edges.values().all(|count| *count > 0) {
                    let id = unused_id(entry, live.iter().copied(), now);
                    let run = new_run(entry, id, now, Cause::Parents, now);
                    let (next, remaining) = (record.next, record.remaining);
                    self.commands.push(Command::StartRun { run: Box::new(run), expected_next: next, next, remaining, at: now });
                }
            }
            Trigger::Schedule(schedule) => {
                let mut next = record.next;
                let mut remaining = record.remaining;
                while let Some(expected) = next.filter(|slot| *slot <= now && places > 0) {
                    let slot = slot_to_run(schedule, expected, job.epsilon, now);
                    remaining = remaining.map(|left| left.saturating_sub(1));
                    let following = if remaining == Some(0) { None } else { schedule.slot_after(slot) };
                    // A slot before the job's first definition may have run under an older job of that name.
                    let id = unused_id(entry, live.iter().copied(), slot.max(record.created_at));
                    let run = Box::new(new_run(entry, id, slot, Cause::Slot, now));
                    self.commands.push(Command::StartRun { run, expected_next: next, next: following, remaining, at: now });
                    next = following;
                    places -= 1;
                    debug_assert!(following.is_none_or(|following| following > expected), "slots rise");
                }
                // One that is due and found no place is looked at again when a run ends.
                if let Some(next) = next.filter(|slot| *slot > now) {
                    self.wake(next);
                }
            }
        }
    }

    /// Asks for a place for the queued runs that may be placed now.
    fn place(&mut self, job: &'a Job, live: &[&'a Run], now: Timestamp) {
        let mut queued: Vec<&Run> = live.iter().copied().filter(|run| matches!(run.state, RunState::Queued { .. })).collect();
        if !job.concurrent {
            // A retry goes before a run that has not begun. Whoever comes first holds the others back.
            queued.sort_by_key(|run| (Reverse(run.attempt > 0), run.queued_at, &run.id));
            let is_busy = live.len() > queued.len();
            let waiting = queued.split_off(if is_busy { 0 } else { 1.min(queued.len()) });
            self.behind.extend(waiting.iter().map(|run| (run.id.clone(), job.name.clone())));
        }
        for run in queued {
            match run.state {
                _ if job.disabled && run.cause != Cause::Manual => {}
                RunState::Queued { not_before } if not_before > now && !was_set_back(not_before, now + job.retry_delay) => {
                    self.delayed.push((run.id.clone(), job.name.clone(), not_before));
                    self.wake(not_before);
                }
                _ => self.requests.push(RunRequest { job, run }),
            }
        }
    }

    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}

/// Which slot the next run stands for, when `next` has come: `next` itself if it is not too late, else the newest that is.
fn slot_to_run(schedule: &Schedule, next: Timestamp, epsilon: Millis, now: Timestamp) -> Timestamp {
    let in_time_from = now - epsilon;
    if next >= in_time_from {
        return next;
    }
    schedule.latest_slot_at_or_before(in_time_from - Millis(1)).map_or(next, |newest| newest.max(next))
}

fn new_run(entry: &JobEntry, id: RunId, slot: Timestamp, cause: Cause, now: Timestamp) -> Run {
    Run {
        id,
        job: entry.job.name.clone(),
        slot,
        cause,
        arguments: Vec::new(),
        attempt: 0,
        state: RunState::Queued { not_before: now },
        queued_at: now,
        started_at: None,
        host: None,
        exit: None,
        message: String::new(),
    }
}

/// An id for a run of `time`, or of the next millisecond that no other run has taken: one by hand may have been begun in the
/// very millisecond of a slot.
fn unused_id<'a>(entry: &'a JobEntry, live: impl Iterator<Item = &'a Run>, time: Timestamp) -> RunId {
    let taken: BTreeSet<&RunId> = live.chain(&entry.record.history).map(|run| &run.id).collect();
    let mut ids = (time.0..).map(|ms| RunId::of(&entry.job.name, ms));
    ids.find(|id| !taken.contains(id)).expect("a job's runs are finite in number")
}

/// The task of a run's present attempt.
pub fn task_id(run: &Run) -> TaskId {
    let number = run.id.as_str().rsplit_once('@').and_then(|(_, number)| number.parse().ok());
    TaskId::of_run(&run.job, number.unwrap_or(run.slot.0), run.attempt)
}

/// What the run's present attempt executes on `host`. The built-in variables win over the user's, as in Chronos.
fn task_spec(job: &Job, run: &Run, host: &str) -> TaskSpec {
    let task = task_id(run);
    let mib = |bytes: u64| format!("{:?}", bytes as f64 / f64::from(1 << 20));
    let mut env = job.env.clone();
    let mut set = |name: &str, value: String| env.insert(name.to_owned(), value);
    set("mesos_task_id", task.to_string());
    set("MESOS_TASK_ID", task.to_string());
    set("HOST", host.to_owned());
    set("CHRONOS_JOB_OWNER", job.owner.clone());
    set("CHRONOS_JOB_NAME", job.name.to_string());
    set("CHRONOS_RESOURCE_CPU", format!("{:?}", job.resources.cpus_milli as f64 / 1000.0));
    set("CHRONOS_RESOURCE_MEM", mib(job.resources.mem_bytes));
    set("CHRONOS_RESOURCE_DISK", mib(job.resources.disk_bytes));
    // The time the run stands for, not the time it got round to: what a job that works through hours or days needs to know.
    set("CHRONOS_JOB_RUN_TIME", run.slot.0.to_string());
    set("CHRONOS_JOB_RUN_ATTEMPT", run.attempt.to_string());
    set("DROVER_JOB_SLOT", run.slot.to_string());
    set("DROVER_RUN", run.id.to_string());
    TaskSpec {
        owner: Owner::Run { job: job.name.clone(), run: run.id.clone(), attempt: run.attempt },
        program: with_arguments(&job.program, &run.arguments),
        user: job.user.clone(),
        env,
        resources: job.resources,
        kill_grace: KILL_GRACE_DEFAULT,
        run_time_max: job.run_time_max,
        properties: job.properties.clone(),
    }
}

/// A program with words appended: to a shell line as text, without any `;`, as Chronos does.
pub fn with_arguments(program: &Program, arguments: &[String]) -> Program {
    if arguments.is_empty() {
        return program.clone();
    }
    match program {
        Program::Shell(line) => Program::Shell(format!("{line} {}", arguments.join(" ").replace(';', ""))),
        Program::Argv(words) => Program::Argv(words.iter().chain(arguments).cloned().collect()),
    }
}
