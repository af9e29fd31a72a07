//! Clients: they ask any master, are sent on to the leader, plan on its state with drover's own planners, and try again as its
//! HTTP handlers and patient clients do.

use crate::master::Waiter;
use crate::plan::{Program, Wish};
use crate::world::{Event, World, note};
use drover_core::app::{App, Constraint, Operator, PortDefinition, UnreachableStrategy, UpgradeStrategy};
use drover_core::change::{self, Edit};
use drover_core::ids::{AppId, DeploymentId, JobName};
use drover_core::job::{EPSILON_DEFAULT, JOB_RESOURCES_DEFAULT, Job, Trigger};
use drover_core::job_change::{self, Children};
use drover_core::resources::Scalars;
use drover_core::runs;
use drover_core::schedule;
use drover_core::state::{ClusterState, Command, Refusal};
use drover_core::task;
use drover_core::time::{Millis, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// How often a client tries again, and a handler plans anew.
const TRIES: u32 = 8;
const REPLANS: u32 = 5;

/// A wish on its way.
#[derive(Debug, Clone)]
pub(crate) struct Errand {
    pub(crate) wish: Option<Wish>,
    number: usize,
    tries: u32,
    replans: u32,
    /// Never given up.
    pub(crate) is_last: bool,
}

/// What a master's handler is told.
#[derive(Debug)]
pub(crate) enum Answered {
    Decided(u64, Vec<Result<(), Refusal>>),
    NotLeader,
    Unavailable,
}

impl Errand {
    pub(crate) fn new(number: usize) -> Self {
        Self { wish: None, number, tries: 0, replans: 0, is_last: false }
    }

    /// One that is tried until it is done.
    pub(crate) fn last(wish: Wish) -> Self {
        Self { wish: Some(wish), number: 0, tries: 0, replans: 0, is_last: true }
    }
}

impl World {
    pub(crate) fn run_errand(&mut self, mut errand: Errand) {
        let wish = errand.wish.get_or_insert_with(|| self.plan.wishes[errand.number].1.clone()).clone();
        let asked = self.dice.below(self.masters.len());
        let leader = match &self.masters[asked].proc {
            Some(proc) if proc.leads => Some(asked),
            Some(proc) => proc.raft.leader.filter(|leader| *leader != asked),
            None => None,
        };
        let Some(leader) = leader.filter(|leader| {
            let leads = self.masters[*leader].proc.as_ref().is_some_and(|proc| proc.leads);
            leads && self.masters[*leader].paused_until <= self.now && self.reaches(asked, *leader)
        }) else {
            return self.try_again(errand);
        };
        if wish == Wish::Read {
            self.errand_done(&errand);
            return self.read(leader);
        }
        if wish == Wish::Raise {
            return self.raise(leader, errand);
        }
        self.ids += 1;
        let id = self.ids;
        let now = self.clock(crate::plan::Place::Master(leader), 0).time;
        let proc = self.masters[leader].proc.as_ref().expect("it leads");
        let commands = plan(&proc.state, &wish, now, id);
        note!(self, "a client asks master {leader} for {wish:?}: {} commands", commands.len());
        if commands.is_empty() {
            // Nothing to do, or it cannot be: either way the client knows.
            self.errand_done(&errand);
            return;
        }
        self.propose(leader, commands, Waiter::Client(errand));
    }

    pub(crate) fn errand_answered(&mut self, _master: usize, mut errand: Errand, answered: Answered) {
        match answered {
            Answered::Decided(index, results) => {
                let is_stale = results.iter().any(|result| matches!(result, Err(Refusal::Stale(_) | Refusal::Exists(_))));
                if is_stale && errand.replans < REPLANS {
                    errand.replans += 1;
                    return self.after(1, Event::Client(errand));
                }
                if results.iter().all(Result::is_ok) {
                    self.coverage.acknowledged += 1;
                    note!(self, "a client is told: done at {index}");
                }
                self.errand_done(&errand);
            }
            // It may or may not have happened: asked again, it happens at most once more, as with any client.
            Answered::NotLeader | Answered::Unavailable => self.try_again(errand),
        }
    }

    fn try_again(&mut self, mut errand: Errand) {
        errand.tries += 1;
        if errand.is_last || errand.tries < TRIES {
            let wait = self.dice.range(300, 2_000);
            return self.after(wait, Event::Client(errand));
        }
        self.errand_done(&errand);
    }

    fn errand_done(&mut self, errand: &Errand) {
        match errand.is_last {
            true => self.ending.errands_done += 1,
            false => self.ending.errands_open -= 1,
        }
    }
}

pub(crate) fn app_id(app: u8) -> AppId {
    AppId::parse(&format!("/app{app}")).expect("a good name")
}

pub(crate) fn job_name(job: u8) -> JobName {
    JobName::parse(&format!("job{job}")).expect("a good name")
}

/// The commands a wish takes; none when there is nothing to do, or something in the way.
fn plan(state: &ClusterState, wish: &Wish, now: Timestamp, id: u64) -> Vec<Command> {
    let change = |app: u8, edit: Edit, force: bool| {
        let request = change::Request {
            edits: BTreeMap::from([(app_id(app), edit)]),
            force,
            preselected: BTreeSet::new(),
            deployment: DeploymentId::new(format!("d{id}")),
            now,
        };
        change::plan(state, request).map(|plan| vec![plan.command()]).unwrap_or_default()
    };
    match wish {
        Wish::PutApp { app, force, .. } => change(*app, Edit::Put(Box::new(define(wish))), *force),
        Wish::Scale { app, instances } => match state.apps.get(&app_id(*app)) {
            Some(record) => change(*app, Edit::Put(Box::new(App { instances: *instances, ..record.app.clone() })), true),
            None => Vec::new(),
        },
        Wish::Restart { app } => change(*app, Edit::Restart, true),
        Wish::DeleteApp { app } => change(*app, Edit::Remove, true),
        Wish::KillTask { app, nth } => {
            let id = app_id(*app);
            let tasks: Vec<_> = state.tasks_of_app(&id).filter(|task| task.kill.is_none()).collect();
            let victim = tasks.get(nth % tasks.len().max(1));
            victim
                .map(|task| Command::KillTask { task: task.id.clone(), why: "a client asked".into(), at: now })
                .into_iter()
                .collect()
        }
        Wish::PutJob { .. } => job_change::plan_put(state, define_job(wish, now), 100, now).into_iter().collect(),
        Wish::Trigger { job } => runs::manual_run(state, &job_name(*job), Vec::new(), now).into_iter().collect(),
        Wish::DeleteJob { job } => {
            job_change::plan_remove(state, &job_name(*job), Children::Inherit, now).into_iter().collect()
        }
        Wish::Read | Wish::Raise => Vec::new(),
    }
}

fn define(wish: &Wish) -> App {
    let Wish::PutApp { app, instances, program, cpus_milli, min_health, over, patience, unique, force: _ } = wish else {
        unreachable!("asked of apps")
    };
    let unique = unique.then(|| Constraint { field: "hostname".into(), operator: Operator::Unique, value: None });
    let backoff = drover_core::app::Backoff { initial: Millis(1000), factor_milli: 2000, max: BACKOFF_MAX };
    App {
        instances: *instances,
        resources: Scalars { cpus_milli: *cpus_milli, mem_bytes: 64 << 20, disk_bytes: 0, gpus: 0 },
        ports: vec![PortDefinition { port: 0, protocol: "tcp".into(), name: None, labels: BTreeMap::new() }],
        constraints: unique.into_iter().collect(),
        backoff,
        kill_grace: Some(KILL_GRACE),
        upgrade: UpgradeStrategy { min_health_milli: *min_health, max_over_milli: *over },
        unreachable: match patience {
            Some((inactive, expunge)) => UnreachableStrategy::After { inactive: Millis(*inactive), expunge: Millis(*expunge) },
            None => UnreachableStrategy::After { inactive: Millis(0), expunge: Millis(0) },
        },
        ..App::new(app_id(*app), task_program(*program))
    }
}

/// The longest back-off of an app.
pub(crate) const BACKOFF_MAX: Millis = Millis::from_secs(15);

/// From SIGTERM to SIGKILL.
pub(crate) const KILL_GRACE: Millis = Millis::from_secs(5);

/// Before a run is tried again.
pub(crate) const RETRY_DELAY: Millis = Millis::from_secs(8);

fn task_program(program: Program) -> task::Program {
    task::Program::Shell(program.line())
}

fn define_job(wish: &Wish, now: Timestamp) -> Job {
    let Wish::PutJob { job, times, every_s, parents, program, retries, epsilon_s, concurrent, disabled } = wish else {
        unreachable!("asked of jobs")
    };
    let trigger = if parents.is_empty() {
        let count = times.map(|times| times.to_string()).unwrap_or_default();
        let text = format!("R{count}//PT{every_s}S");
        Trigger::Schedule(schedule::parse(&text, "", now).expect("a good schedule"))
    } else {
        Trigger::Parents(parents.iter().map(|parent| job_name(*parent)).collect())
    };
    Job {
        name: job_name(*job),
        trigger,
        program: task_program(*program),
        arguments: Vec::new(),
        retries: *retries,
        retry_delay: RETRY_DELAY,
        epsilon: if *epsilon_s == 60 { EPSILON_DEFAULT } else { Millis::from_secs(*epsilon_s) },
        resources: JOB_RESOURCES_DEFAULT,
        disabled: *disabled,
        concurrent: *concurrent,
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
        changed_at: now,
    }
}
