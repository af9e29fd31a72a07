//! Commands about jobs: what is honoured, what is refused, and what is remembered.

use super::{Bounds, ClusterState, Command, JobChange, Refusal, RunOutcome};
use crate::ids::{JobName, RunId};
use crate::job::{Cause, EPSILON_DEFAULT, JOB_RESOURCES_DEFAULT, Job, Run, RunState, Trigger};
use crate::job_change::{Children, Refused, plan_put, plan_remove};
use crate::runs;
use crate::schedule;
use crate::task::{Program, TaskState};
use crate::time::{Millis, Timestamp};
use std::collections::BTreeMap;

const NOW: Timestamp = Timestamp(1_714_564_800_000);

fn name(text: &str) -> JobName {
    JobName::parse(text).unwrap()
}

/// `a=R/…` is a job with a schedule, `c=a+b` one after others.
fn job(text: &str) -> Job {
    let (job, trigger) = text.split_once('=').expect("name=trigger");
    let trigger = match trigger.starts_with("R") && trigger.contains('/') {
        true => Trigger::Schedule(schedule::parse(trigger, "", NOW).unwrap()),
        false => Trigger::Parents(trigger.split('+').map(name).collect()),
    };
    Job {
        name: name(job),
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

fn put(state: &mut ClusterState, text: &str) -> Result<(), Refused> {
    let command = plan_put(state, job(text), 100, NOW)?;
    assert_eq!(state.apply(&command).result, Ok(()));
    Ok(())
}

fn state(jobs: &[&str]) -> ClusterState {
    let mut state = ClusterState::default();
    jobs.iter().for_each(|job| put(&mut state, job).unwrap());
    state
}

fn slot_run(job: &str, slot: Timestamp) -> Run {
    Run {
        id: RunId::of(&name(job), slot.0),
        job: name(job),
        slot,
        cause: Cause::Slot,
        arguments: Vec::new(),
        attempt: 0,
        state: RunState::Queued { not_before: slot },
        queued_at: slot,
        started_at: None,
        host: None,
        exit: None,
        message: String::new(),
    }
}

fn start(run: Run, expected_next: Option<Timestamp>) -> Command {
    let next = Some(run.slot + Millis(1000));
    Command::StartRun { at: run.slot, run: Box::new(run), expected_next, next, remaining: None }
}

/// Applies a command that must be refused and change nothing.
fn refused(state: &ClusterState, command: &Command) -> String {
    let mut after = state.clone();
    let applied = after.apply(command);
    assert_eq!(after, *state, "a refused command changed something");
    assert_eq!(applied.events, []);
    applied.result.expect_err("it was to be refused").to_string()
}

#[test]
fn one_slot_begins_one_run() {
    let mut state = state(&["a=R//PT1S"]);
    let first = state.jobs[&name("a")].record.next;
    assert_eq!(first, Some(NOW));
    let begin = start(slot_run("a", NOW), first);
    assert_eq!(refused(&state, &start(slot_run("b", NOW), first)), "job b does not exist");
    assert_eq!(refused(&state, &start(slot_run("a", NOW), Some(NOW + Millis(1)))), "job a has changed meanwhile");
    assert_eq!(state.apply(&begin).result, Ok(()));
    assert_eq!(refused(&state, &begin), format!("run a@{NOW_MS} exists already", NOW_MS = NOW.0));
    let later = NOW + Millis(1000);
    assert_eq!(refused(&state, &start(slot_run("a", later), Some(later))), "job a has changed meanwhile", "it would overlap");
    // Once it is over, its id is not given again either.
    let cancel =
        |outcome| Command::FinishRun { run: RunId::of(&name("a"), NOW.0), outcome, release: false, disable: false, at: later };
    assert_eq!(refused(&state, &cancel(RunOutcome::Succeeded)), format!("run a@{} has changed meanwhile", NOW.0));
    assert_eq!(state.apply(&cancel(RunOutcome::Cancelled)).result, Ok(()));
    assert_eq!(refused(&state, &cancel(RunOutcome::Cancelled)), format!("run a@{} does not exist", NOW.0));
    assert_eq!(refused(&state, &begin), format!("run a@{} exists already", NOW.0));
    let record = &state.jobs[&name("a")].record;
    assert_eq!((record.last_slot, record.next), (Some(NOW), Some(later)));
    assert_eq!(record.history[0].state, RunState::Done { state: TaskState::Dropped, at: later });
}

#[test]
fn a_stale_definition_is_refused() {
    let mut state = state(&["a=R//PT1S"]);
    let edit = plan_put(&state, job("a=R//PT2S"), 100, NOW).unwrap();
    let other = plan_put(&state, job("a=R//PT3S"), 100, NOW).unwrap();
    let again = plan_put(&ClusterState::default(), job("a=R//PT3S"), 100, NOW).unwrap();
    assert_eq!(state.apply(&edit).result, Ok(()));
    assert_eq!(refused(&state, &other), "job a has changed meanwhile");
    assert_eq!(refused(&state, &again), "job a has changed meanwhile");
}

#[test]
fn cycles_and_unknown_parents() {
    // What is there, what is put, what is said.
    for (there, new, said) in [
        (&["a=R//PT1H"][..], "b=a", None),
        (&["a=R//PT1H"], "b=b", Some("the job would wait for itself: b after b")),
        (&["a=R//PT1H", "b=a", "c=b"], "b=c", Some("the job would wait for itself: b after c after b")),
        // A new job may come before its parents; the one that closes the circle is refused all the same.
        (&[], "b=a", None),
        (&["b=a"], "a=b", Some("the job would wait for itself: a after b after a")),
        (&["b=a"], "b=a", None),
        (&["a=R//PT1H", "b=a"], "b=a+c+d", Some("unknown parents: c, d")),
    ] {
        let mut state = state(there);
        assert_eq!(put(&mut state, new).err().map(|refused| refused.to_string()).as_deref(), said, "{there:?} and {new}");
    }
    let full = state(&["a=R//PT1H"]);
    assert_eq!(plan_put(&full, job("b=a"), 1, NOW), Err(Refused::TooMany(1)));
    assert!(plan_put(&full, job("a=R//PT2H"), 1, NOW).is_ok(), "what is there may be changed");
}

#[test]
fn what_becomes_of_the_children() {
    use Children::{Detach, Inherit, Refuse};
    for (there, removed, rule, expect) in [
        (&["a=R//PT1H"][..], "a", Refuse, Ok("")),
        (&["a=R//PT1H"], "x", Refuse, Err("job 'x' does not exist")),
        (&["a=R//PT1H", "b=a", "c=a"], "a", Refuse, Err("jobs depend on 'a': b, c")),
        (&["a=R//PT1H", "b=a", "c=a"], "a", Inherit, Ok("b=R//PT1H c=R//PT1H")),
        (&["a=R//PT1H", "b=R//PT1H", "c=a+b"], "a", Detach, Ok("b=R//PT1H c=b")),
        (&["a=R//PT1H", "b=R//PT1H", "c=a+b"], "a", Inherit, Ok("b=R//PT1H c=R//PT1H")),
        (&["a=R//PT1H", "b=R//PT1H", "c=a+b", "d=a"], "a", Detach, Err("jobs depend on 'a' alone: d")),
        // A dependent job's parents take its place.
        (&["a=R//PT1H", "b=a", "c=b", "d=a+b"], "b", Refuse, Ok("a=R//PT1H c=a d=a")),
    ] {
        let mut state = state(there);
        let planned = plan_remove(&state, &name(removed), rule, NOW);
        let told = planned.map_err(|refused| refused.to_string()).map(|command| {
            assert_eq!(state.apply(&command).result, Ok(()));
            let trigger = |trigger: &Trigger| match trigger {
                Trigger::Schedule(schedule) => schedule.text.clone(),
                Trigger::Parents(parents) => parents.iter().map(JobName::as_str).collect::<Vec<_>>().join("+"),
            };
            let jobs = state.jobs.values().map(|entry| format!("{}={}", entry.job.name, trigger(&entry.job.trigger)));
            jobs.collect::<Vec<_>>().join(" ")
        });
        assert_eq!(told.as_deref().map_err(String::as_str), expect, "{there:?} without {removed}, {rule:?}");
    }
}

#[test]
fn a_child_that_came_or_changed_meanwhile_stops_the_removal() {
    let mut state = state(&["a=R//PT1H", "b=a", "c=b"]);
    let remove = plan_remove(&state, &name("b"), Children::Refuse, NOW).unwrap();
    put(&mut state, "d=b").unwrap();
    assert_eq!(refused(&state, &remove), "job d has changed meanwhile");
    let remove = plan_remove(&state, &name("b"), Children::Refuse, NOW).unwrap();
    put(&mut state, "d=b+c").unwrap();
    assert_eq!(refused(&state, &remove), "job d has changed meanwhile");
}

#[test]
fn edges_that_stay_keep_their_count() {
    let mut state = state(&["a=R0//PT1H", "b=R0//PT1H", "c=R0//PT1H", "join=a+b"]);
    let succeed = |state: &mut ClusterState, job: &str| {
        assert_eq!(state.apply(&Command::MarkJobSuccess { job: name(job), at: NOW }).result, Ok(()));
    };
    succeed(&mut state, "a");
    put(&mut state, "join=a+b+c").unwrap();
    let edges = |state: &ClusterState| state.jobs[&name("join")].record.edges.values().copied().collect::<Vec<_>>();
    assert_eq!(edges(&state), [1, 0, 0]);
    let run = Run { cause: Cause::Parents, ..slot_run("join", NOW) };
    assert_eq!(refused(&state, &start(run.clone(), None)), "job join has changed meanwhile", "b and c are missing");
    succeed(&mut state, "b");
    succeed(&mut state, "c");
    succeed(&mut state, "c");
    assert_eq!(edges(&state), [1, 1, 2]);
    assert_eq!(state.apply(&start(run, None)).result, Ok(()));
    assert_eq!(edges(&state), [0, 0, 0]);
    succeed(&mut state, "a");
    succeed(&mut state, "join");
    assert_eq!(edges(&state), [0, 0, 0], "marked as done itself, it waits for all of them again");
}

#[test]
fn history_is_bounded_and_counts_go_on() {
    let mut state = state(&["a=R0//PT1H"]);
    for n in 0..30 {
        let at = NOW + Millis(n);
        let command = runs::manual_run(&state, &name("a"), vec![], at).unwrap();
        assert_eq!(state.apply(&command).result, Ok(()));
        let run = RunId::of(&name("a"), at.0);
        let finish = Command::FinishRun { run, outcome: RunOutcome::Cancelled, release: false, disable: false, at };
        assert_eq!(state.apply(&finish).result, Ok(()));
    }
    let history = &state.jobs[&name("a")].record.history;
    assert_eq!(history.len(), 20);
    assert_eq!(history.last().unwrap().slot, NOW + Millis(29));
    let bounds = Bounds { run_history: 2, runs_live: 1, ..Bounds::default() };
    assert_eq!(state.apply(&Command::SetBounds { bounds, at: NOW }).result, Ok(()));
    let history: Vec<Timestamp> = state.jobs[&name("a")].record.history.iter().map(|run| run.slot).collect();
    assert_eq!(history, [NOW + Millis(28), NOW + Millis(29)], "the newest stay");
    let run = |state: &ClusterState, n| runs::manual_run(state, &name("a"), vec![], NOW + Millis(n)).unwrap();
    let first = run(&state, 40);
    assert_eq!(state.apply(&first).result, Ok(()));
    let second = run(&state, 41);
    assert_eq!(refused(&state, &second), "job a has 1 runs that are queued or live, the most it may have");
    assert_eq!(
        refused(&state, &Command::MarkJobSuccess { job: name("b"), at: NOW }),
        Refusal::NotFound("job b".into()).to_string()
    );
}

#[test]
fn runs_are_found_by_their_job_alone() {
    let mut state = state(&["a=R0//PT1H", "a-b=R0//PT1H", "aa=R0//PT1H"]);
    for job in ["a", "a-b", "aa", "a"] {
        let command = runs::manual_run(&state, &name(job), vec![], NOW).unwrap();
        assert_eq!(state.apply(&command).result, Ok(()));
    }
    let found: Vec<_> = state.runs_of_job(&name("a")).map(|run| run.id.to_string()).collect();
    assert_eq!(found, [format!("a@{}", NOW.0), format!("a@{}", NOW.0 + 1)]);
}

/// A job as version 1 stores it, with children's changes. If this fails, stored logs would not be read any more: add a
/// version and a migration.
#[test]
fn what_is_stored_is_read_for_ever() {
    let stored = r#"{"RemoveJob":{"name":"a","children":[{"job":{"name":"b","trigger":{"schedule":{"text":"R5//PT1H","zone":{"offset":0},"rule":{"repeat":{"times":5,"start":1714564800000,"local":"2024-05-01T12:00:00","period":{"years":0,"months":0,"weeks":0,"days":0,"hours":1,"minutes":0,"seconds":0}}}}},"program":{"shell":"true"},"arguments":[],"retries":2,"retry_delay":60000,"epsilon":60000,"resources":{"cpus_milli":100,"mem_bytes":134217728,"disk_bytes":268435456,"gpus":0},"disabled":false,"concurrent":false,"soft_error":false,"high_priority":false,"user":null,"env":{},"constraints":[],"run_time_max":null,"properties":{},"owner":"","owner_name":"","description":"","changed_at":0},"next":1714564800000,"remaining":5,"based_on":7}],"at":8}}"#;
    let command: Command = serde_json::from_str(stored).unwrap();
    assert_eq!(serde_json::to_string(&command).unwrap(), stored);
    let change = JobChange { job: job("b=R5//PT1H"), next: Some(NOW), remaining: Some(5), based_on: Timestamp(7) };
    assert_eq!(command, Command::RemoveJob { name: name("a"), children: vec![change], at: Timestamp(8) });
}

#[test]
fn a_redefinition_planned_before_a_slot_fired_is_refused() {
    let mut state = state(&["a=R/2024-05-01T12:00:00Z/PT1M"]);
    let planned = plan_put(&state, job("a=R/2024-05-01T12:00:00Z/PT1M"), 100, NOW).unwrap();
    let start = runs::decide(&state, NOW).commands.remove(0);
    assert!(matches!(&start, Command::StartRun { .. }), "{start:?}");
    assert_eq!(state.apply(&start).result, Ok(()));
    let next = state.jobs["a"].record.next;
    assert_eq!(state.apply(&planned).result, Err(Refusal::Stale("job a".into())), "it would bring the slot back");
    put(&mut state, "a=R/2024-05-01T12:00:00Z/PT1M").unwrap();
    assert_eq!(state.jobs["a"].record.next, next);
}
