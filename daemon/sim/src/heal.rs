//! After the faults: everything heals within a stated time, and then nothing moves.

use crate::client::{BACKOFF_MAX, Errand, KILL_GRACE, RETRY_DELAY};
use crate::plan::{Ms, Wish};
use crate::world::{AGENT_TIMEOUT, Event, World, note};
use drover_core::agent::Agent;
use drover_core::app::App;
use drover_core::ids::{AgentId, AppId, TaskId};
use drover_core::job::{Job, Run, RunState, Trigger};
use drover_core::resources::{Ports, Scalars};
use drover_core::scaling;
use drover_core::state::ClusterState;
use drover_core::task::{Owner, Program};
use drover_core::time::Timestamp;
use std::collections::BTreeSet;

/// How often the world is looked at while it heals.
const LOOK_EVERY: Ms = 1_000;

/// How long a healed cluster is watched being idle.
const IDLE: Ms = 30_000;

/// Within which time everything is healed after the last fault. What may have to pass one after the other:
///
/// | | |
/// |---|---|
/// | what ended by itself comes up, and a leader is elected and confirmed | 2 s + 4 s |
/// | agents have found it: a silence noticed, a patience run out, a round's wait | 9 s + 10 s + 5 s |
/// | an agent that stays silent is given up, a run of it after a grace | 15 s + 30 s |
/// | lost signals are made up for | 15 s |
/// | an end takes its grace, twice: an old version's, and a stray's | 2 × 5 s |
/// | the longest back-off, and a retry's delay, twice | 15 s + 2 × 8 s |
/// | the longest program that ends by itself, three attempts | 3 × 20 s |
/// | calls that wait for systemd, the journal asked in vain | 10 s + 10 s |
pub(crate) const HEALED_WITHIN: Ms = 2_000
    + 4_000
    + 24_000
    + AGENT_TIMEOUT
    + 30_000
    + 15_000
    + 2 * KILL_GRACE.0
    + BACKOFF_MAX.0
    + 2 * RETRY_DELAY.0
    + 60_000
    + 20_000;

/// Within which time what ran on a node that is lost runs elsewhere: as above, and the longest patience of an app.
const REPLACED_WITHIN: Ms = HEALED_WITHIN + 60_000;

/// How far the end of a run has come.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    stage: Stage,
    errands: usize,
    pub(crate) errands_done: usize,
    /// What clients still try.
    pub(crate) errands_open: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    #[default]
    Faults,
    /// Heals, with all it was asked to do.
    Healing { since: Ms },
    /// A node has lost its power, and stays away.
    Bereft { agent: usize, since: Ms },
    /// It is back.
    Returning { since: Ms },
    /// What never rests is taken away.
    Clearing { since: Ms },
    /// Nothing is to be done: nothing is written.
    Idle { since: Ms, index: u64 },
}

impl World {
    /// Looks at the world as a whole, and goes on to the next stage when it is due.
    pub(crate) fn look(&mut self) {
        let stage = self.ending.stage;
        match stage {
            Stage::Faults => {
                note!(self, "CALM");
                self.calm();
                self.ending.stage = Stage::Healing { since: self.now };
            }
            Stage::Healing { since } => match self.what_is_not_healed() {
                None => {
                    self.coverage.heal_longest = self.coverage.heal_longest.max(self.now - since);
                    note!(self, "HEALED");
                    self.lose_a_node();
                }
                Some(what) => self.is_still_healing(since, what),
            },
            Stage::Bereft { agent, since } => match self.what_is_not_replaced(agent) {
                None => {
                    note!(self, "REPLACED");
                    self.coverage.replaced += 1;
                    self.begin_agent(agent, self.agents[agent].life);
                    self.ending.stage = Stage::Returning { since: self.now };
                }
                Some(what) if self.now > since + REPLACED_WITHIN => {
                    self.judge(Err(("what ran on a lost node runs elsewhere", what)));
                }
                Some(_) => {}
            },
            Stage::Returning { since } => match self.what_is_not_healed() {
                None => {
                    self.take_away_what_never_rests();
                    self.ending.stage = Stage::Clearing { since: self.now };
                }
                Some(what) => self.is_still_healing(since, what),
            },
            Stage::Clearing { since } => {
                let what = if self.ending.errands_done < self.ending.errands {
                    Some("a client is not answered".to_owned())
                } else {
                    self.what_is_not_healed().or_else(|| self.what_is_not_gone())
                };
                match what {
                    None => self.ending.stage = Stage::Idle { since: self.now, index: self.truth.index() },
                    Some(what) => self.is_still_healing(since, what),
                }
            }
            Stage::Idle { since, index } => {
                if self.truth.index() != index {
                    let seen = format!("{} entries more", self.truth.index() - index);
                    return self.judge(Err(("an idle cluster writes nothing", seen)));
                }
                if self.now >= since + IDLE {
                    self.masters_agree();
                    self.is_over = true;
                    return;
                }
            }
        }
        self.after(LOOK_EVERY, Event::Look);
    }

    /// A node with the most instances loses its power for longer than anybody waits, unless there is only one.
    fn lose_a_node(&mut self) {
        let busiest = (0..self.agents.len()).max_by_key(|number| self.agents[*number].systemd.up().count());
        match busiest.filter(|_| self.agents.len() > 1) {
            Some(agent) => {
                self.end_agent(agent, true, 2 * REPLACED_WITHIN);
                self.ending.stage = Stage::Bereft { agent, since: self.now };
            }
            None => self.ending.stage = Stage::Returning { since: self.now },
        }
    }

    /// An app that lacks instances because a node is away, though others have room. What an app must not give up is not missed,
    /// nor is what a deployment has under way.
    fn what_is_not_replaced(&self, lost: usize) -> Option<String> {
        let (state, lost) = (&self.truth.state, self.agents[lost].id());
        if state.agents.get(&lost).is_some_and(Agent::is_up) {
            return Some(format!("{lost} counts as up"));
        }
        let is_whole = |id: &AppId, app: &App| {
            let elsewhere = state.tasks_of_app(id).filter(|task| task.is_running() && task.agent != lost);
            elsewhere.count() == app.instances as usize || !self.is_there_room(app)
        };
        let lacking = state.apps.iter().find(|(id, record)| {
            stays(&record.app.program) && state.deployments_of(id).next().is_none() && !is_whole(id, &record.app)
        });
        lacking.map(|(id, record)| format!("app {id} does not have its {} elsewhere", record.app.instances))
    }

    fn is_still_healing(&mut self, since: Ms, what: String) {
        if self.now > since + HEALED_WITHIN {
            self.judge(Err(("everything heals within its time", what)));
        }
    }

    fn masters_agree(&mut self) {
        for number in 0..self.masters.len() {
            let Some(proc) = &self.masters[number].proc else { continue };
            let verdict = self.truth.is_the_state_at(proc.applied, &proc.state);
            self.judge(verdict);
        }
    }

    /// The first thing that is not as it shall be.
    fn what_is_not_healed(&self) -> Option<String> {
        if self.ending.errands_open > 0 {
            return Some("a client is still trying".into());
        }
        let index = self.truth.index();
        if let Some(late) = self.masters.iter().find(|master| master.proc.as_ref().is_none_or(|proc| proc.applied < index)) {
            return Some(format!("{late}, of {index}"));
        }
        let Some(leader) = self.leader() else { return Some("nobody leads".into()) };
        let state = &leader.state;
        if let Some(open) =
            state.deployments.values().find(|deployment| deployment.apps().iter().all(|app| self.can_settle(app)))
        {
            return Some(format!("deployment {} is under way", open.id));
        }
        for (id, record) in &state.apps {
            if let Some(what) = self.what_an_app_lacks(id, &record.app) {
                return Some(what);
            }
        }
        let now = Timestamp(crate::world::EPOCH + self.now as i64);
        for (name, entry) in &state.jobs {
            let is_due = entry.record.next.is_some_and(|next| next + drover_core::time::Millis(5_000) <= now);
            let is_busy = state.runs_of_job(name).next().is_some();
            if matches!(entry.job.trigger, Trigger::Schedule(_)) && !entry.job.disabled && is_due && !is_busy {
                return Some(format!("a slot of {name} has not fired"));
            }
        }
        let far = now + RETRY_DELAY;
        // One without room is not waiting for that time.
        let is_room = |job: &Job| state.agents.values().any(|agent| has_room(state, agent, &job.resources));
        let waits = |run: &&Run| {
            let is_put_off = matches!(run.state, RunState::Queued { not_before } if not_before > far);
            is_put_off && state.jobs.get(&run.job).is_some_and(|entry| is_room(&entry.job))
        };
        if let Some(run) = state.runs.values().find(waits) {
            return Some(format!("run {} waits for a time that was set by a wrong clock", run.id));
        }
        for machine in &self.agents {
            let id = machine.id();
            if !machine.owes_nothing() {
                return Some(format!("{id} is not connected, or has statuses to tell"));
            }
            let ledger = machine.proc.as_ref().expect("it is connected").node.ledger();
            // Tasks that come and go are never all settled at once; those that stay are.
            let assigned: BTreeSet<&TaskId> =
                state.tasks_of_agent(&id).map(|task| &task.id).filter(|id| self.stays(id)).collect();
            let held: BTreeSet<&TaskId> = ledger.tasks.keys().filter(|id| self.stays(id)).collect();
            if assigned != held {
                return Some(format!("{id} holds {held:?}, and {assigned:?} is assigned"));
            }
            let up: BTreeSet<&TaskId> = machine.systemd.up().filter(|id| self.stays(id)).collect();
            if up != assigned {
                return Some(format!("{id} runs {up:?}, and {assigned:?} is assigned"));
            }
            if let Some(stray) =
                machine.systemd.up().find(|task| !state.tasks.contains_key(*task) && !ledger.tasks.contains_key(*task))
            {
                return Some(format!("{id} runs {stray}, which nobody knows"));
            }
        }
        None
    }

    /// Whether a task is meant to run until it is told to end.
    fn stays(&self, id: &TaskId) -> bool {
        let task = self.truth.state.tasks.get(id);
        task.is_none_or(|task| matches!(task.spec.owner, Owner::App { .. }) && stays(&task.spec.program))
    }

    /// Whether an app can ever have what it wants: its program stays, and there is room.
    fn can_settle(&self, id: &AppId) -> bool {
        self.truth.state.apps.get(id).is_none_or(|record| stays(&record.app.program) && self.is_there_room(&record.app))
    }

    fn is_there_room(&self, app: &App) -> bool {
        let state = &self.truth.state;
        let is_up = |agent: &AgentId| state.agents.get(agent).is_some_and(Agent::is_up);
        let tasks = || state.tasks_of_app(&app.id).filter(|task| is_up(&task.agent));
        let running = tasks().filter(|task| task.is_running() && scaling::is_current(app, task)).count();
        // The only constraint in these worlds is one instance to a node.
        let is_alone = |agent: &Agent| app.constraints.is_empty() || tasks().all(|task| task.agent != agent.info.id);
        let is_free = |agent: &Agent| {
            is_alone(agent)
                && has_room(state, agent, &app.resources)
                && !state.free_on(agent).ports.values().all(Ports::is_empty)
        };
        running >= app.instances as usize || state.agents.values().any(is_free)
    }

    fn what_an_app_lacks(&self, id: &AppId, app: &App) -> Option<String> {
        if !stays(&app.program) {
            return None;
        }
        let tasks: Vec<_> = self.truth.state.tasks_of_app(id).collect();
        if let Some(old) = tasks.iter().find(|task| !stays(&task.spec.program)) {
            return Some(format!("app {id} still has {}, which ends by itself", old.id));
        }
        let running = tasks.iter().filter(|task| task.is_running()).count();
        let wanted = app.instances as usize;
        let really = self.agents.iter().flat_map(|machine| machine.systemd.up());
        let really = really.filter(|up| tasks.iter().any(|task| task.id == **up)).count();
        // What has no room waits, and says why; so does an old version that may not go before a new one is up.
        let is_right = running == wanted || !self.is_there_room(app);
        if is_right && (tasks.len(), really) == (running, running) {
            return None;
        }
        Some(format!("app {id} wants {wanted}, {running} of {} tasks run and {really} units", tasks.len()))
    }

    /// Apps that end again and again, and schedules, would write for ever.
    fn take_away_what_never_rests(&mut self) {
        let restless: Vec<Wish> = (0..3)
            .filter(|app| {
                let record = self.truth.state.apps.get(&crate::client::app_id(*app));
                record.is_some_and(|record| !stays(&record.app.program))
            })
            .map(|app| Wish::DeleteApp { app })
            .chain((0..3).map(|job| Wish::DeleteJob { job }))
            .collect();
        self.ending.errands = restless.len();
        for wish in restless {
            self.at(self.now, Event::Client(Errand::last(wish)));
        }
    }

    fn what_is_not_gone(&self) -> Option<String> {
        let state = &self.truth.state;
        if let Some(job) = state.jobs.keys().next() {
            return Some(format!("job {job} is there"));
        }
        if let Some(task) = state.tasks.values().find(|task| !task.is_running()) {
            return Some(format!("{} is {:?}", task.id, task.state));
        }
        let stays_up = |id: &TaskId| state.tasks.get(id).is_some_and(drover_core::task::Task::is_running);
        for machine in &self.agents {
            let ledger = machine.proc.as_ref().expect("it is healed").node.ledger();
            if let Some(id) = ledger.tasks.keys().find(|id| !stays_up(id)) {
                return Some(format!("{} still knows {id}", machine.id()));
            }
            if machine.systemd.loaded() != ledger.tasks.len() {
                return Some(format!(
                    "{} has {} units for {} tasks",
                    machine.id(),
                    machine.systemd.loaded(),
                    ledger.tasks.len()
                ));
            }
        }
        None
    }
}

/// Whether one more task with these needs can be placed on `agent`.
fn has_room(state: &ClusterState, agent: &Agent, needs: &Scalars) -> bool {
    let places = agent.places(state.tasks_of_agent(&agent.info.id).count());
    agent.is_up() && places > 0 && state.free_on(agent).total().hold(needs)
}

fn stays(program: &Program) -> bool {
    matches!(program, Program::Shell(line) if line == "forever" || line == "stubborn")
}
