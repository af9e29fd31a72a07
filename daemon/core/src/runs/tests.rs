//! Jobs told as stories against the real state: what was decided is applied, tasks end as the story says.

use super::*;
use crate::agent::{AgentInfo, unreserved};
use crate::framework::Launch;
use crate::ids::AgentId;
use crate::job::{EPSILON_DEFAULT, JOB_RESOURCES_DEFAULT, JobRecord};
use crate::resources::{Allocation, Ports, Scalars};
use crate::schedule;
use crate::task::{Reason, TaskStatus};
use proptest::prelude::*;
use std::fmt::Write;

const START: &str = "2024-05-01T12:00:00Z";

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap_or_else(|| panic!("{text} is no time"))
}

fn name(text: &str) -> JobName {
    JobName::parse(text).unwrap()
}

fn job(text: &str, trigger: Trigger) -> Job {
    Job {
        name: name(text),
        trigger,
        program: Program::Shell("true".into()),
        arguments: Vec::new(),
        retries: 2,
        retry_delay: Millis::from_secs(60),
        epsilon: EPSILON_DEFAULT,
        resources: JOB_RESOURCES_DEFAULT,
        disabled: false,
        concurrent: false,
        soft_error: false,
        high_priority: false,
        user: None,
        env: BTreeMap::new(),
        constraints: Vec::new(),
        run_time_max: None,
        properties: BTreeMap::new(),
        owner: String::new(),
        owner_name: String::new(),
        description: String::new(),
        changed_at: Timestamp(0),
    }
}

fn every(text: &str) -> Trigger {
    Trigger::Schedule(schedule::parse(text, "", at(START)).unwrap_or_else(|faults| panic!("{text}: {faults:?}")))
}

fn after(parents: &[&str]) -> Trigger {
    Trigger::Parents(parents.iter().map(|parent| name(parent)).collect())
}

fn live_max() -> usize {
    ClusterState::default().bounds.runs_live as usize
}

/// A cluster of one big agent, and a clock.
#[derive(Clone)]
struct World {
    state: ClusterState,
    now: Timestamp,
}

impl World {
    fn new() -> Self {
        let mut world = Self { state: ClusterState::default(), now: at(START) };
        let plenty = Scalars { cpus_milli: 1 << 40, mem_bytes: 1 << 60, disk_bytes: 1 << 60, gpus: 0 };
        let info = AgentInfo {
            id: AgentId::new("a1"),
            host: "n1".into(),
            boot_id: "boot".into(),
            resources: unreserved(plenty, Ports::default()),
            attributes: BTreeMap::new(),
            systemd: 252,
            version: String::new(),
            enforces: BTreeSet::new(),
            tasks_max: 1_000_000,
        };
        world.apply(Command::AdmitAgent { info: Box::new(info), at: world.now });
        world
    }

    fn with(jobs: &[Job]) -> Self {
        let mut world = Self::new();
        for job in jobs {
            world.put(job.clone());
        }
        world
    }

    fn apply(&mut self, command: Command) {
        let applied = self.state.apply(&command);
        assert_eq!(applied.result, Ok(()), "{command:?}");
    }

    fn put(&mut self, mut job: Job) {
        let before = self.state.jobs.get(&job.name);
        let based_on = before.map(|entry| entry.job.changed_at);
        let (next, remaining) = redefine(before, &mut job, self.now);
        job.changed_at = self.now.max(self.state.last_version + Millis(1));
        self.apply(Command::PutJob { job: Box::new(job), next, remaining, based_on, at: self.now });
    }

    fn change(&mut self, text: &str, change: impl FnOnce(&mut Job)) {
        let mut job = self.entry(text).job.clone();
        change(&mut job);
        self.put(job);
    }

    fn entry(&self, text: &str) -> &JobEntry {
        &self.state.jobs[&name(text)]
    }

    fn record(&self, text: &str) -> &JobRecord {
        &self.entry(text).record
    }

    /// Lets time pass second by second as the leader sees it: it wakes when it asked to.
    fn pass(&mut self, seconds: u64) {
        let until = self.now + Millis::from_secs(seconds);
        loop {
            match self.decide() {
                Some(wake) if wake <= until => self.now = wake,
                _ => break,
            }
        }
        self.now = until;
        self.decide();
    }

    /// Nobody decides meanwhile.
    fn outage(&mut self, seconds: u64) {
        self.now = self.now + Millis::from_secs(seconds);
        self.decide();
    }

    /// Applies what is decided until nothing is left to decide, and places every attempt.
    fn decide(&mut self) -> Option<Timestamp> {
        for _ in 0..1000 {
            let decision = decide(&self.state, self.now);
            assert_eq!(decision, decide(&self.state.clone(), self.now), "a new leader decides the same");
            let commands = commands_of(&decision, self.now);
            if commands.is_empty() {
                return decision.wake_at;
            }
            commands.into_iter().for_each(|command| self.apply(command));
        }
        panic!("deciding does not come to rest");
    }

    fn run_now(&mut self, text: &str) {
        let command = manual_run(&self.state, &name(text), vec![], self.now).unwrap();
        self.apply(command);
        self.decide();
    }

    /// The tasks of a job, oldest first.
    fn tasks(&self, text: &str) -> Vec<TaskId> {
        let mut runs: Vec<&Run> = self.state.runs_of_job(&name(text)).collect();
        runs.sort_by_key(|run| run.queued_at);
        let task = |run: &&Run| match &run.state {
            RunState::Active { task } => Some(task.clone()),
            _ => None,
        };
        runs.iter().filter_map(task).collect()
    }

    /// The job's oldest task ends so.
    fn end(&mut self, text: &str, state: TaskState) {
        let task = self.tasks(text).first().unwrap_or_else(|| panic!("{text} runs no task")).clone();
        self.end_task(&task, state);
        self.decide();
    }

    fn end_task(&mut self, task: &TaskId, state: TaskState) {
        let status = TaskStatus {
            task: task.clone(),
            seq: 9,
            state,
            reason: Reason::Normal,
            message: String::new(),
            at: self.now,
            exit: None,
            invocation: None,
            usage: None,
        };
        self.apply(Command::RecordStatus { agent: AgentId::new("a1"), status: Box::new(status), at: self.now });
    }

    /// Every run of a job by its slot's time of day: over (`.`), running (`r`), waiting (`q`).
    fn told(&self, text: &str) -> String {
        let mut runs: Vec<&Run> = self.record(text).history.iter().chain(self.state.runs_of_job(&name(text))).collect();
        runs.sort_by_key(|run| (run.queued_at, run.slot));
        let mut told = String::new();
        for run in runs {
            let mark = match &run.state {
                RunState::Done { .. } => '.',
                RunState::Active { .. } => 'r',
                RunState::Queued { .. } | RunState::AttemptEnded { .. } => 'q',
            };
            let time = &run.slot.to_string()[11..19];
            write!(told, "{}{time}{mark}", if told.is_empty() { "" } else { " " }).expect("writing to text");
        }
        told
    }
}

/// What is decided, with every attempt that asks for a place placed on the one agent.
fn commands_of(decision: &RunDecision<'_>, now: Timestamp) -> Vec<Command> {
    let launch = |request: &RunRequest<'_>| {
        let (agent, spec) = (AgentId::new("a1"), request.spec_on("n1"));
        let launch = Launch { agent, allocation: Allocation::default(), spec, task: request.task() };
        Command::LaunchTask { launch: Box::new(launch), at: now }
    };
    decision.commands.iter().cloned().chain(decision.requests.iter().map(launch)).collect()
}

#[test]
fn a_slot_fires_when_it_comes_and_once() {
    let mut world = World::with(&[job("tick", every("R/2024-05-01T12:00:10Z/PT10S"))]);
    world.pass(9);
    assert_eq!(world.told("tick"), "");
    world.pass(1);
    assert_eq!(world.told("tick"), "12:00:10r");
    let task = &world.tasks("tick")[0];
    assert_eq!(task.as_str(), "ct:1714564810000:0:tick:");
    world.end("tick", TaskState::Finished);
    assert_eq!(world.told("tick"), "12:00:10.");
    assert_eq!(world.record("tick").success_count, 1);
    world.pass(10);
    assert_eq!(world.told("tick"), "12:00:10. 12:00:20r");
}

#[test]
fn a_start_in_the_past_fires_at_once_for_the_latest_slot() {
    let mut world = World::with(&[job("old", every("R/2001-01-01T11:45:00Z/PT30M"))]);
    world.decide();
    assert_eq!(world.told("old"), "11:45:00r");
    assert_eq!(world.record("old").next, Some(at("2024-05-01T12:15:00Z")));
    // Its id is not the one an earlier job of that name would have given it.
    assert_eq!(world.tasks("old")[0], TaskId::of_run(&name("old"), at(START).0, 0));
}

#[test]
fn slots_in_time_run_each_and_late_ones_as_one() {
    for (outage, epsilon, concurrent, expect) in [
        // Three slots missed, all in time: each runs.
        (35, 60, true, "12:00:10r 12:00:20r 12:00:30r"),
        (35, 60, false, "12:00:10r"),
        // The slots of 12:00:10 and :20 are later than 14 s: only the newer of them.
        (35, 14, true, "12:00:20r 12:00:30r"),
        // Exactly as late as is allowed is in time; before it, the newest that was not.
        (35, 15, true, "12:00:10r 12:00:20r 12:00:30r"),
        (35, 4, true, "12:00:30r"),
        (35, 0, true, "12:00:30r"),
        (86_400, 20, true, "11:59:30r 11:59:40r 11:59:50r 12:00:00r"),
        (86_400, 0, false, "11:59:50r"),
        (5, 60, true, ""),
    ] {
        let mut tick = job("tick", every("R/2024-05-01T12:00:10Z/PT10S"));
        tick.epsilon = Millis::from_secs(epsilon);
        tick.concurrent = concurrent;
        let mut world = World::with(&[tick]);
        world.outage(outage);
        assert_eq!(world.told("tick"), expect, "{outage} s away, epsilon {epsilon} s, concurrent {concurrent}");
    }
}

#[test]
fn a_job_that_must_not_overlap_takes_its_slots_one_after_the_other() {
    let mut world = World::with(&[job("slow", every("R/2024-05-01T12:00:10Z/PT10S"))]);
    world.pass(45);
    assert_eq!(world.told("slow"), "12:00:10r");
    world.end("slow", TaskState::Finished);
    assert_eq!(world.told("slow"), "12:00:10. 12:00:20r");
    world.pass(100);
    // 12:00:30 to 12:01:20 are too late by now, 12:01:30 and later are not.
    world.end("slow", TaskState::Finished);
    assert_eq!(world.told("slow"), "12:00:10. 12:00:20. 12:01:20r");
    world.end("slow", TaskState::Finished);
    assert_eq!(world.told("slow"), "12:00:10. 12:00:20. 12:01:20. 12:01:30r");
}

#[test]
fn a_concurrent_job_overlaps_itself_up_to_the_limit() {
    let mut eager = job("eager", every("R/2024-05-01T12:00:01Z/PT1S"));
    eager.concurrent = true;
    let mut world = World::with(&[eager]);
    world.pass(300);
    assert_eq!(world.tasks("eager").len(), live_max());
    world.end("eager", TaskState::Finished);
    assert_eq!(world.tasks("eager").len(), live_max());
    assert!(world.told("eager").ends_with("12:01:40r 12:03:59r"), "the newest that is too late: {}", world.told("eager"));
}

#[test]
fn a_finite_schedule_runs_exactly_its_count() {
    let mut world = World::with(&[job("five", every("R5/2024-05-01T12:01:00Z/PT1M"))]);
    for minute in 0..12 {
        // Failures, retries, manual runs and an outage in between.
        match minute {
            1 => world.run_now("five"),
            4 => world.outage(600),
            _ => world.pass(60),
        }
        while !world.tasks("five").is_empty() {
            world.end("five", if minute == 2 { TaskState::Failed } else { TaskState::Finished });
        }
    }
    world.pass(3600);
    let slots = world.record("five").history.iter().filter(|run| run.cause == Cause::Slot).count();
    assert_eq!(slots, 5, "{}", world.told("five"));
    assert_eq!((world.record("five").next, world.record("five").remaining), (None, Some(0)));
    assert!(world.entry("five").job.disabled, "its last run has succeeded");
    assert_eq!(rewritten_schedule(world.entry("five")).unwrap().split('/').next(), Some("R0"));
}

#[test]
fn r0_sits_there_and_can_be_run_by_hand() {
    let mut world = World::with(&[job("never", every("R0/2014-01-01T00:00:00Z/PT60M"))]);
    world.pass(7200);
    assert_eq!(world.told("never"), "");
    world.run_now("never");
    world.end("never", TaskState::Finished);
    assert!(!world.entry("never").job.disabled);
    assert_eq!(rewritten_schedule(world.entry("never")).unwrap(), "R0/2014-01-01T00:00:00.000Z/PT60M");
}

#[test]
fn ends_by_their_kind() {
    // How attempt 0 ends → what the run is after it, and the job's counts of successes and errors.
    for (end, retries, state, counts) in [
        (TaskState::Finished, 2, "12:00:00.", (1, 0)),
        (TaskState::Killed, 2, "12:00:00.", (0, 0)),
        (TaskState::Failed, 2, "12:00:00q", (0, 0)),
        (TaskState::Error, 2, "12:00:00q", (0, 0)),
        (TaskState::Lost, 2, "12:00:00q", (0, 0)),
        (TaskState::Dropped, 2, "12:00:00q", (0, 0)),
        (TaskState::Gone, 2, "12:00:00q", (0, 0)),
        (TaskState::GoneByOperator, 2, "12:00:00q", (0, 0)),
        (TaskState::Unknown, 2, "12:00:00q", (0, 0)),
        (TaskState::Failed, 0, "12:00:00.", (0, 1)),
        (TaskState::Lost, 0, "12:00:00.", (0, 1)),
    ] {
        let mut once = job("once", every("R1//P"));
        once.retries = retries;
        let mut world = World::with(&[once]);
        world.decide();
        world.end("once", end);
        assert_eq!(world.told("once"), state, "{end:?}");
        let record = world.record("once");
        assert_eq!((record.success_count, record.error_count), counts, "{end:?}");
    }
}

#[test]
fn retries_wait_their_delay_and_run_out() {
    let mut world = World::with(&[job("flaky", every("R/2024-05-01T12:00:00Z/P1D"))]);
    world.decide();
    for attempt in 1..=2 {
        world.end("flaky", TaskState::Failed);
        assert_eq!(world.told("flaky"), "12:00:00q");
        let decision = decide(&world.state, world.now);
        let (run, job, until) = decision.delayed[0].clone();
        assert_eq!((run.as_str(), job.as_str()), ("flaky@1714564800000", "flaky"));
        assert_eq!((until, decision.wake_at), (world.now + Millis::from_secs(60), Some(until)));
        world.pass(59);
        assert!(world.tasks("flaky").is_empty());
        world.pass(1);
        assert_eq!(world.tasks("flaky")[0], TaskId::of_run(&name("flaky"), 1_714_564_800_000, attempt));
    }
    world.end("flaky", TaskState::Failed);
    let record = world.record("flaky");
    assert_eq!((record.error_count, record.errors_since_success, record.last_error), (1, 1, Some(world.now)));
    // The next day's run has its retries again, although the last one failed.
    world.pass(86_400);
    world.end("flaky", TaskState::Failed);
    assert_eq!(world.told("flaky"), "12:00:00. 12:00:00q");
    world.pass(60);
    world.end("flaky", TaskState::Finished);
    assert_eq!(world.record("flaky").errors_since_success, 0);
}

#[test]
fn a_run_by_hand_waits_its_turn_and_takes_no_slot() {
    let mut world = World::with(&[job("daily", every("R3/2024-05-01T13:00:00Z/P1D"))]);
    world.run_now("daily");
    world.run_now("daily");
    assert_eq!(world.told("daily"), "12:00:00r 12:00:00q");
    assert_eq!(decide(&world.state, world.now).behind.len(), 1);
    world.end("daily", TaskState::Finished);
    assert_eq!(world.told("daily"), "12:00:00. 12:00:00r");
    assert_eq!(world.record("daily").remaining, Some(3));
    assert_eq!(world.record("daily").next, Some(at("2024-05-01T13:00:00Z")));
}

#[test]
fn a_run_by_hand_at_the_very_time_of_a_slot_is_another_run() {
    let mut world = World::with(&[job("daily", every("R3/2024-05-01T12:00:10Z/P1D"))]);
    world.now = at("2024-05-01T12:00:10Z");
    world.run_now("daily");
    world.end("daily", TaskState::Finished);
    world.end("daily", TaskState::Finished);
    assert_eq!(world.told("daily"), "12:00:10. 12:00:10.");
    assert_eq!(world.record("daily").remaining, Some(2));
}

#[test]
fn a_retry_goes_before_a_run_that_has_not_begun() {
    let mut world = World::with(&[job("daily", every("R3/2024-05-01T12:00:00Z/P1D"))]);
    world.decide();
    world.run_now("daily");
    world.end("daily", TaskState::Failed);
    assert_eq!(world.told("daily"), "12:00:00q 12:00:00q", "nothing overlaps the delay");
    world.pass(60);
    assert_eq!(world.tasks("daily")[0], TaskId::of_run(&name("daily"), at(START).0, 1));
}

#[test]
fn more_runs_by_hand_than_the_limit_are_refused() {
    let mut world = World::with(&[job("never", every("R0//PT1H"))]);
    for _ in 0..live_max() {
        world.run_now("never");
    }
    let more = manual_run(&world.state, &name("never"), vec![], world.now).unwrap();
    let refused = world.state.apply(&more).result.unwrap_err();
    assert_eq!(refused.to_string(), "job never has 100 runs that are queued or live, the most it may have");
}

#[test]
fn a_disabled_jobs_slots_pass_and_its_queue_is_dropped() {
    let mut world = World::with(&[job("tick", every("R/2024-05-01T12:00:10Z/PT10S"))]);
    world.pass(10);
    world.end("tick", TaskState::Failed);
    assert_eq!(world.told("tick"), "12:00:10q");
    world.change("tick", |job| job.disabled = true);
    world.pass(300);
    assert_eq!(world.told("tick"), "12:00:10.");
    assert_eq!(world.record("tick").error_count, 0, "it was dropped, it did not fail");
    world.run_now("tick");
    assert_eq!(world.told("tick"), "12:00:10. 12:05:10r", "asked for by hand it runs all the same");
    world.end("tick", TaskState::Finished);
    world.now = world.now + Millis(1);
    world.change("tick", |job| job.disabled = false);
    world.pass(9);
    assert_eq!(world.told("tick"), "12:00:10. 12:05:10.");
    world.pass(1);
    assert_eq!(world.told("tick"), "12:00:10. 12:05:10. 12:05:20r");
}

#[test]
fn a_failure_does_not_enable_a_disabled_job() {
    let mut world = World::with(&[job("daily", every("R/2024-05-01T12:00:00Z/P1D"))]);
    world.decide();
    world.change("daily", |job| job.disabled = true);
    world.end("daily", TaskState::Failed);
    assert_eq!(world.told("daily"), "12:00:00.");
    assert!(world.entry("daily").job.disabled);
    assert_eq!(world.record("daily").error_count, 1);
}

#[test]
fn redefining_does_not_run_what_was_due_before() {
    let daily = job("daily", every("R/2024-04-01T11:30:00Z/P1D"));
    let fresh = |at_most_one: bool| {
        let mut world = World::with(std::slice::from_ref(&daily));
        world.decide();
        assert_eq!(world.told("daily"), "11:30:00r");
        if at_most_one {
            world.end("daily", TaskState::Finished);
        }
        world.now = world.now + Millis::from_secs(30);
        world
    };
    let tomorrow = Some(at("2024-05-02T11:30:00Z"));
    // The same again.
    let mut world = fresh(true);
    world.put(daily.clone());
    world.decide();
    assert_eq!((world.told("daily").as_str(), world.record("daily").next), ("11:30:00.", tomorrow));
    assert_eq!(world.record("daily").success_count, 1, "what the masters count is theirs");
    // What the API shows, posted back.
    let shown = rewritten_schedule(world.entry("daily")).unwrap();
    assert_eq!(shown, "R/2024-05-02T11:30:00.000Z/P1D");
    world.change("daily", |job| {
        job.description = "edited".into();
        job.trigger = every(&shown);
    });
    assert_eq!(world.record("daily").next, tomorrow);
    assert!(matches!(&world.entry("daily").job.trigger, Trigger::Schedule(s) if s.text == "R/2024-04-01T11:30:00Z/P1D"));
    // Another time of day, which has passed today.
    let mut world = fresh(true);
    world.change("daily", |job| job.trigger = every("R/2024-04-01T10:00:00Z/P1D"));
    world.decide();
    assert_eq!(world.told("daily"), "11:30:00.");
    assert_eq!(world.record("daily").next, Some(at("2024-05-02T10:00:00Z")));
    // Another schedule whose slot was a moment ago: that one is not too late.
    let mut world = fresh(true);
    world.change("daily", |job| job.trigger = every("R1/2024-05-01T12:00:20Z/P1D"));
    world.decide();
    assert_eq!(world.told("daily"), "11:30:00. 12:00:20r");
    // The slot that has run is in another schedule's time, too, and is not run again.
    let mut world = World::with(&[job("now", every("R/2024-05-01T12:00:00Z/P1D"))]);
    world.decide();
    world.end("now", TaskState::Finished);
    world.now = world.now + Millis::from_secs(30);
    world.change("now", |job| job.trigger = every("R/2024-05-01T12:00:00Z/P2D"));
    world.decide();
    assert_eq!(world.told("now"), "12:00:00.");
    assert_eq!(world.record("now").next, Some(at("2024-05-03T12:00:00Z")));
    // A job without a start that has run out runs again.
    let mut world = World::with(&[job("once", every("R1//PT1H"))]);
    world.decide();
    world.end("once", TaskState::Finished);
    assert!(world.entry("once").job.disabled);
    world.now = world.now + Millis::from_secs(30);
    let again = schedule::parse("R1//PT1H", "", world.now).unwrap();
    world.change("once", |job| {
        job.disabled = false;
        job.trigger = Trigger::Schedule(again);
    });
    world.decide();
    assert_eq!(world.told("once"), "12:00:00. 12:00:30r");
}

#[test]
fn a_child_runs_when_every_parent_has_succeeded_since_its_last_start() {
    let never = |text: &str| job(text, every("R0//PT1H"));
    let mut world = World::with(&[never("a"), never("b"), job("join", after(&["a", "b"]))]);
    let succeed = |world: &mut World, text: &str| {
        world.now = world.now + Millis::from_secs(1);
        world.run_now(text);
        world.end(text, TaskState::Finished);
    };
    succeed(&mut world, "a");
    succeed(&mut world, "a");
    assert_eq!(world.told("join"), "");
    succeed(&mut world, "b");
    assert_eq!(world.told("join"), "12:00:03r");
    // Successes while it runs count for its next run, and wait until this one is over.
    succeed(&mut world, "a");
    succeed(&mut world, "b");
    assert_eq!(world.told("join"), "12:00:03r");
    world.end("join", TaskState::Finished);
    assert_eq!(world.told("join"), "12:00:03. 12:00:05r");
    world.end("join", TaskState::Finished);
    assert_eq!(world.told("join"), "12:00:03. 12:00:05.", "two of one for one of the other are merged");
}

#[test]
fn what_releases_a_child() {
    for (soft_error, end, expect) in [
        (false, TaskState::Finished, "12:00:00r"),
        (false, TaskState::Failed, ""),
        (true, TaskState::Failed, "12:00:00r"),
        (true, TaskState::Killed, ""),
        (false, TaskState::Killed, ""),
    ] {
        let mut parent = job("parent", every("R1//P"));
        (parent.soft_error, parent.retries) = (soft_error, 0);
        let mut world = World::with(&[parent, job("child", after(&["parent"]))]);
        world.decide();
        world.end("parent", end);
        assert_eq!(world.told("child"), expect, "{end:?}, soft {soft_error}");
    }
    // By word of mouth.
    let mut world = World::with(&[job("parent", every("R0//PT1H")), job("child", after(&["parent"]))]);
    world.apply(Command::MarkJobSuccess { job: name("parent"), at: world.now });
    world.decide();
    assert_eq!(world.told("child"), "12:00:00r");
    assert_eq!(world.record("parent").success_count, 1);
}

#[test]
fn a_disabled_child_is_passed_by() {
    let mut world = World::with(&[job("parent", every("R0//PT1H")), job("child", after(&["parent"]))]);
    let succeed = |world: &mut World| world.apply(Command::MarkJobSuccess { job: name("parent"), at: world.now });
    world.change("child", |job| job.disabled = true);
    succeed(&mut world);
    world.change("child", |job| job.disabled = false);
    world.decide();
    assert_eq!(world.told("child"), "");
    succeed(&mut world);
    world.decide();
    assert_eq!(world.told("child"), "12:00:00r");
}

#[test]
fn urgent_runs_come_first() {
    let once = |text: &str, high_priority| Job { high_priority, ..job(text, every("R1//P")) };
    let mut world = World::with(&[once("a", false), once("b", true), once("c", false)]);
    let decision = decide(&world.state, world.now);
    assert_eq!(decision.requests, [], "nothing is placed before it is begun");
    let begin = decision.commands;
    begin.into_iter().for_each(|command| world.apply(command));
    let order: Vec<_> = decide(&world.state, world.now).requests.iter().map(|r| r.job.name.to_string()).collect();
    assert_eq!(order, ["b", "a", "c"]);
}

#[test]
fn what_a_task_is_told() {
    let mut etl = job("etl", every("R1/2024-05-01T12:00:00Z/P1D"));
    etl.owner = "me@example.org".into();
    etl.env = [("HOST", "mine"), ("COLOUR", "red"), ("CHRONOS_JOB_NAME", "other")].map(|(k, v)| (k.into(), v.into())).into();
    let mut world = World::with(&[etl]);
    let command = manual_run(&world.state, &name("etl"), vec!["--day 21; rm".into()], world.now).unwrap();
    world.state.jobs.get_mut(&name("etl")).unwrap().record.next = None;
    world.apply(command);
    let decision = decide(&world.state, world.now);
    let request = decision.requests[0];
    let spec = request.spec_on("n7");
    assert_eq!(spec.program, Program::Shell("true --day 21 rm".into()));
    assert_eq!(spec.owner, Owner::Run { job: name("etl"), run: request.run.id.clone(), attempt: 0 });
    let expect = [
        ("CHRONOS_JOB_NAME", "etl"),
        ("CHRONOS_JOB_OWNER", "me@example.org"),
        ("CHRONOS_JOB_RUN_ATTEMPT", "0"),
        ("CHRONOS_JOB_RUN_TIME", "1714564800000"),
        ("CHRONOS_RESOURCE_CPU", "0.1"),
        ("CHRONOS_RESOURCE_DISK", "256.0"),
        ("CHRONOS_RESOURCE_MEM", "128.0"),
        ("COLOUR", "red"),
        ("DROVER_JOB_SLOT", "2024-05-01T12:00:00.000Z"),
        ("DROVER_RUN", "etl@1714564800000"),
        ("HOST", "n7"),
        ("MESOS_TASK_ID", "ct:1714564800000:0:etl:"),
        ("mesos_task_id", "ct:1714564800000:0:etl:"),
    ];
    assert_eq!(spec.env, expect.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
}

/// What befalls a cluster.
#[derive(Debug, Clone)]
enum Fate {
    /// Time passes; the leader is awake.
    Pass(u64),
    /// Nobody leads for so long; or, below zero, the next leader's clock is behind.
    Outage(i64),
    /// The n-th live task ends.
    End(usize, bool),
    /// Somebody runs it by hand.
    Manual,
    /// The present leader looks at the state and is cut off; what it decided lands in the log later.
    LookAway(i64),
    /// That later.
    Land,
}

fn any_fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        4 => (0u64..90).prop_map(Fate::Pass),
        2 => (-120i64..600).prop_map(Fate::Outage),
        4 => (0usize..5, any::<bool>()).prop_map(|(n, good)| Fate::End(n, good)),
        1 => Just(Fate::Manual),
        2 => (-30i64..30).prop_map(Fate::LookAway),
        2 => Just(Fate::Land),
    ]
}

/// Runs a history and checks at every run that begins what must hold.
struct Trial {
    world: World,
    late: Vec<Command>,
    begun: Vec<Timestamp>,
}

impl Trial {
    fn job(&self) -> &JobEntry {
        self.world.entry("job")
    }

    /// Applies a command that may be stale, and judges it if it was honoured.
    fn submit(&mut self, command: &Command) {
        let (first, live) = (self.job().record.next, self.world.state.runs_of_job(&name("job")).count());
        let honoured = self.world.state.apply(command).result.is_ok();
        let Command::StartRun { run, at, .. } = command else { return };
        if !honoured || run.cause != Cause::Slot {
            return;
        }
        let JobEntry { job, .. } = self.job();
        let Trigger::Schedule(schedule) = &job.trigger else { unreachable!("the job has a schedule") };
        assert_eq!(schedule.slot_at_or_after(run.slot), Some(run.slot), "only slots are run");
        assert!(run.slot <= *at, "none is run before its time");
        assert!(self.begun.last().is_none_or(|last| *last < run.slot), "none is run twice");
        assert!(job.concurrent || live == 0, "no overlap");
        // None is forgotten but those that were too late when a newer one was run.
        let passed = std::iter::successors(first, |slot| schedule.slot_after(*slot)).take_while(|slot| *slot < run.slot);
        for slot in passed {
            assert!(slot < *at - job.epsilon, "{slot} was passed over at {at}");
        }
        self.begun.push(run.slot);
    }

    fn decide(&mut self) -> Option<Timestamp> {
        for _ in 0..10_000 {
            let decision = decide(&self.world.state, self.world.now);
            let commands = commands_of(&decision, self.world.now);
            if commands.is_empty() {
                return decision.wake_at;
            }
            commands.iter().for_each(|command| self.submit(command));
        }
        panic!("deciding does not come to rest");
    }

    fn pass(&mut self, seconds: u64) {
        let until = self.world.now + Millis::from_secs(seconds);
        while let Some(wake) = self.decide().filter(|wake| *wake <= until) {
            self.world.now = wake;
        }
        self.world.now = until;
        self.decide();
    }

    fn meet(&mut self, fate: &Fate) {
        match fate {
            Fate::Pass(seconds) => self.pass(*seconds),
            Fate::Outage(seconds) => {
                self.world.now = Timestamp(self.world.now.0 + seconds * 1000);
                self.decide();
            }
            Fate::End(n, good) => {
                let tasks = self.world.tasks("job");
                if let Some(task) = tasks.get(n % tasks.len().max(1)) {
                    self.world.end_task(task, if *good { TaskState::Finished } else { TaskState::Lost });
                    self.decide();
                }
            }
            Fate::Manual => {
                if let Some(command) = manual_run(&self.world.state, &name("job"), vec![], self.world.now) {
                    self.submit(&command);
                }
                self.decide();
            }
            Fate::LookAway(skew) => {
                let now = Timestamp(self.world.now.0 + skew * 1000);
                self.late.extend(decide(&self.world.state, now).commands);
            }
            Fate::Land => {
                for command in std::mem::take(&mut self.late) {
                    self.submit(&command);
                }
                self.decide();
            }
        }
    }

    /// All is well again: everything that is owed is run, and then the job waits for its next slot.
    fn heal(&mut self) {
        self.late.clear();
        for _ in 0..1000 {
            let wake_at = self.decide();
            let tasks = self.world.tasks("job");
            for task in &tasks {
                self.world.end_task(task, TaskState::Finished);
            }
            if tasks.is_empty() && self.world.state.runs.is_empty() {
                return;
            }
            if tasks.is_empty() {
                self.world.now = wake_at.expect("a run that is not placed waits for its time");
            }
        }
        panic!("a run stays for ever: {:?}", self.world.state.runs);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Whatever befalls the masters, no slot runs twice, and none is forgotten but by the rule.
    #[test]
    fn slots_run_by_the_rule_through_anything(
        fates in prop::collection::vec(any_fate(), 1..60),
        period in prop::sample::select(vec!["PT7S", "PT1M", "PT5M"]),
        epsilon in prop::sample::select(vec![0u64, 20, 60, 300]),
        concurrent in any::<bool>(),
        times in prop::option::of(1u32..6),
    ) {
        let count = times.map(|n| n.to_string()).unwrap_or_default();
        let mut subject = job("job", every(&format!("R{count}/2024-05-01T12:00:30Z/{period}")));
        subject.epsilon = Millis::from_secs(epsilon);
        subject.concurrent = concurrent;
        subject.retries = 1;
        subject.retry_delay = Millis::from_secs(10);
        let mut trial = Trial { world: World::with(&[subject]), late: Vec::new(), begun: Vec::new() };
        for fate in &fates {
            trial.meet(fate);
        }
        trial.world.now = trial.world.now.max(at(START));
        if times.is_some() {
            for _ in 0..10 {
                trial.pass(300);
                trial.heal();
            }
        } else {
            trial.heal();
        }
        let record = &trial.job().record;
        match times {
            Some(times) => prop_assert_eq!(trial.begun.len(), times as usize, "exactly its count"),
            None => prop_assert!(record.next > Some(trial.world.now), "nothing is owed any more"),
        }
    }
}
