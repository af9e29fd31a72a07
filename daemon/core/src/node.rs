//! An agent's whole mind: what is known of a node's tasks, and what is to be done about them. The shell brings it everything
//! that happens, puts what it decides on disk, and does it.
//!
//! ```text
//!  session ─▶ Leader ┐                                ┌─▶ records, put on disk by the shell
//!  systemd ─▶ News ──┼─▶ Input ─▶ take_in ─▶ turn ────┤            │
//!  calls ───▶ Done ──┘           (reconcile)          └─▶ effects ◀┘ let go by `put_on_record`, and by nothing else
//! ```
//!
//! Nothing leaves the mind before everything it was decided on is on disk: effects come out of [`Node::put_on_record`] after the
//! write, and [`Node::take_statuses`] gives nothing while there is something to write. When the write fails the agent must
//! end, and the next one begins from what the disk says.

mod dialer;

#[cfg(test)]
mod tests;

pub use dialer::{Conversation, Dialer, Due, Left, Next};

use crate::ids::TaskId;
use crate::task::{TaskStatus, Usage};
use crate::time::{Millis, Now, Timestamp};
use crate::unit::{
    ActiveState, Assignment, Evidence, Ledger, ListedUnit, NodeFacts, ObservedUnit, Record, StartRefusal, UnitAction,
    UnitPatch, UnitPlan, View, WantedTask, is_unit_of_a_task, reconcile, unit_name,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How often [`Input::Tick`] comes: what failed is tried again.
pub const TICK: Duration = Duration::from_secs(1);

/// Starts under way at once: more only add latency, PID 1 takes them one by one.
pub const STARTS_MAX: usize = 8;

/// Everything is compared with systemd's own list so often, because a signal may be lost.
const RESYNC_TICKS: u64 = 15;

/// Directories of ended tasks are looked through so often…
const SWEEP_TICKS: u64 = 60;

/// …kept so long for people to look at, and removed so many at a time.
const DIRECTORY_KEPT: Millis = Millis::from_secs(24 * 3600);
const SWEPT_AT_ONCE: usize = 64;

/// Statuses are gathered so long before they are sent: a start is two of them, and only the newest of a task counts.
const GATHER: Duration = Duration::from_millis(20);

/// Statuses in one message.
const STATUSES_AT_ONCE: usize = 256;

/// A journal that cannot be asked is taken for one that says nothing after so many tries, a second apart.
const QUESTIONS_MAX: u32 = 10;

/// Shortest time between two reconciliations: each goes through every task, and one start alone is a dozen inputs.
const BETWEEN_TURNS: Duration = Duration::from_millis(10);

/// Reconciliations in one turn: what an action changes in the ledger may call for another.
const ROUNDS_MAX: usize = 4;

/// Everything that can happen to an agent.
#[derive(Debug, Clone)]
pub enum Input {
    /// A leader has admitted this agent: statuses reach it from now on, and it has to be told the newest of every task.
    Connected,
    /// It is gone. Until the next [`Input::Connected`] nothing reaches anybody.
    Lost,
    /// It says what to run.
    Assigned(Assignment),
    /// It has these statuses, and all before them, on record.
    Acknowledged(Vec<(TaskId, u64)>),
    /// systemd's signals, merged; or that some were lost.
    News {
        /// What changed, by unit.
        units: BTreeMap<String, UnitPatch>,
        /// Whether everything must be listed again.
        must_relist: bool,
    },
    /// The connection to systemd is gone.
    BusLost,
    /// The kernel refused these units another process.
    RefusedAProcess(Vec<String>),
    /// An effect has ended.
    Done(Done),
    /// [`TICK`] has passed.
    Tick,
}

/// What became of an effect.
#[derive(Debug, Clone)]
pub enum Done {
    /// systemd was reached.
    Connected {
        /// When this run of the manager began.
        began_at: u64,
        /// Every unit of a task it has, listed after signals were asked for.
        units: Vec<ObservedUnit>,
    },
    /// Of a start.
    Started {
        /// The task.
        task: TaskId,
        /// Its unit.
        unit: String,
        /// How it went.
        outcome: StartOutcome,
    },
    /// Of a stop, or of letting go of an ended unit.
    Stopped {
        /// The unit.
        unit: String,
        /// How it went.
        outcome: Result<(), Trouble>,
    },
    /// One unit was looked at.
    Observed {
        /// The unit.
        unit: String,
        /// `None` when it is not there.
        outcome: Result<Option<Box<ObservedUnit>>, Trouble>,
    },
    /// What an ended unit had used, as far as that is known.
    Accounted {
        /// The unit.
        unit: String,
        /// What.
        usage: Usage,
    },
    /// All units were listed, or could not be.
    Listed {
        /// What systemd has.
        units: Option<Vec<ListedUnit>>,
    },
    /// The journal was asked, or could not be.
    Investigated {
        /// About this task.
        task: TaskId,
        /// Its unit.
        unit: String,
        /// What it says.
        evidence: Option<Evidence>,
    },
    /// Directories of forgotten tasks are gone, or could not be removed.
    Swept {
        /// Whose.
        tasks: Vec<TaskId>,
        /// Whether they are gone.
        are_gone: bool,
    },
}

/// How a start went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartOutcome {
    /// systemd took it.
    Made,
    /// The name was taken.
    Exists,
    /// It said no.
    Refused(StartRefusal),
    /// It did not say.
    NoAnswer,
}

/// Why a call to systemd came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It has no such unit.
    NoSuchUnit,
    /// It refused, or did not answer: to be tried again.
    Other,
}

/// Something to be done. Each ends in one [`Done`]; each can be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Reach systemd, however long that takes.
    Connect,
    /// Ask for a unit.
    Start {
        /// The task.
        task: TaskId,
        /// Its unit.
        plan: Box<UnitPlan>,
        /// Why.
        reason: &'static str,
    },
    /// Stop a unit.
    Stop {
        /// The task, unless nobody knows it.
        task: Option<TaskId>,
        /// The unit.
        unit: String,
        /// Why.
        reason: String,
    },
    /// Let an ended unit go.
    LetGo {
        /// The unit.
        unit: String,
        /// Whether it failed: a failed unit is reset, another stopped.
        has_failed: bool,
        /// Why.
        reason: &'static str,
    },
    /// Look at a unit.
    Observe {
        /// Which.
        unit: String,
    },
    /// Ask what an ended unit had used.
    Account {
        /// Which.
        unit: String,
    },
    /// List all units.
    List,
    /// Look once more, and ask the journal how the unit ended if systemd does not have this start of it
    /// ([`ObservedUnit::is_start`]).
    Investigate {
        /// The task.
        task: TaskId,
        /// Its unit.
        unit: String,
        /// Which start of it, if any is on record.
        invocation: Option<String>,
        /// Why.
        reason: &'static str,
    },
    /// Remove the directories of forgotten tasks.
    Sweep {
        /// A unit to do it under.
        unit: String,
        /// In which slice.
        slice: String,
        /// Whose.
        tasks: Vec<TaskId>,
    },
}

/// An input that was not heeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    /// A deposed leader that does not know it yet.
    #[error("the leader sent assignment {offered}, older than {held}, which this node holds")]
    OlderAssignment {
        /// What it sent.
        offered: u64,
        /// What is held.
        held: u64,
    },
}

/// The mind.
#[derive(Debug)]
pub struct Node {
    /// What the disk says once `unwritten` is on it.
    ledger: Ledger,
    /// Decided, and not on disk yet.
    unwritten: Vec<Record>,
    /// To be done once that is.
    withheld: Vec<Effect>,
    facts: NodeFacts,
    /// The kernel's id of this boot.
    boot_id: String,
    has_bus: bool,
    units: BTreeMap<String, ObservedUnit>,
    /// Units an effect is about.
    busy: BTreeSet<String>,
    /// Units whose effect failed: left alone until the next tick.
    resting: BTreeSet<String>,
    evidence: BTreeMap<TaskId, Evidence>,
    /// How often the journal could not be asked about a task.
    questions: BTreeMap<TaskId, u32>,
    unanswered: BTreeSet<TaskId>,
    refused: BTreeMap<TaskId, StartRefusal>,
    has_heard_leader: bool,
    is_connected: bool,
    /// Whether systemd was looked at once.
    is_ready: bool,
    /// Tasks whose newest status this leader has not been told.
    outbox: BTreeSet<TaskId>,
    /// When the outbox is sent.
    send_at: Option<Duration>,
    turned_at: Duration,
    /// When what was taken in is reconciled.
    turn_at: Option<Duration>,
    /// Starts under way.
    starting: usize,
    is_listing: bool,
    is_sweeping: bool,
    /// Whether the agent is about to end: nothing new is begun.
    is_ending: bool,
    ticks: u64,
}

impl Node {
    /// Begins from what the ledger on disk says. Its first effect is to reach systemd. `facts.boot` is learned from it.
    pub fn new(ledger: Ledger, facts: NodeFacts, boot_id: String, now: Now) -> Self {
        Self {
            ledger,
            unwritten: Vec::new(),
            withheld: vec![Effect::Connect],
            facts,
            boot_id,
            has_bus: false,
            units: BTreeMap::new(),
            busy: BTreeSet::new(),
            resting: BTreeSet::new(),
            evidence: BTreeMap::new(),
            questions: BTreeMap::new(),
            unanswered: BTreeSet::new(),
            refused: BTreeMap::new(),
            has_heard_leader: false,
            is_connected: false,
            is_ready: false,
            outbox: BTreeSet::new(),
            send_at: None,
            turned_at: now.steady,
            turn_at: None,
            starting: 0,
            is_listing: false,
            is_sweeping: false,
            is_ending: false,
            ticks: 0,
        }
    }

    /// Takes in one thing that happened. What follows from it is decided by [`Node::turn`].
    ///
    /// # Errors
    /// It was not heeded, for people to know.
    pub fn take_in(&mut self, input: Input, now: Now) -> Result<(), Ignored> {
        self.turn_at.get_or_insert(self.turned_at + BETWEEN_TURNS);
        match input {
            Input::Connected => {
                self.is_connected = true;
                let tasks = self.ledger.tasks.iter();
                self.outbox = tasks.filter(|(_, task)| task.status.is_some()).map(|(id, _)| id.clone()).collect();
                self.send_at = (!self.outbox.is_empty()).then_some(now.steady);
            }
            Input::Lost => {
                self.is_connected = false;
                self.outbox.clear();
                self.send_at = None;
            }
            Input::Assigned(assignment) => return self.hear_assignment(assignment),
            Input::Acknowledged(statuses) => {
                let tasks = &self.ledger.tasks;
                let is_news = |(task, seq): &(TaskId, u64)| tasks.get(task).is_some_and(|task| task.acknowledged < *seq);
                let news: Vec<_> = statuses.into_iter().filter(is_news).collect();
                news.into_iter().for_each(|(task, seq)| self.decide(Record::Acknowledged { task, seq }));
            }
            Input::News { units, must_relist } => self.hear_systemd(units, must_relist),
            Input::BusLost => {
                self.has_bus = false;
                self.is_listing = false;
                self.withheld.push(Effect::Connect);
            }
            Input::RefusedAProcess(units) => {
                for name in units {
                    if let Some(unit) = self.units.get_mut(&name) {
                        unit.was_refused_a_process = true;
                    }
                }
            }
            Input::Done(done) => self.finish(done),
            Input::Tick => self.tick(now.time),
        }
        Ok(())
    }

    /// Reconciles, if it is time for that.
    pub fn turn(&mut self, now: Now) {
        if self.turn_at.is_some_and(|at| at <= now.steady) {
            self.reconcile(now);
        }
    }

    /// Puts what was decided on disk by `write`, which is given the records and the ledger as it is with them, and lets go what
    /// was to be done once that is there. To be called after every [`Node::take_in`] and [`Node::turn`].
    ///
    /// # Errors
    /// Those of `write`; the agent must end then, since what is on disk is not known.
    pub fn put_on_record<E>(&mut self, write: impl FnOnce(&[Record], &Ledger) -> Result<(), E>) -> Result<Vec<Effect>, E> {
        if !self.unwritten.is_empty() {
            write(&self.unwritten, &self.ledger)?;
            self.unwritten.clear();
        }
        Ok(std::mem::take(&mut self.withheld))
    }

    /// When [`Node::turn`] is wanted.
    pub fn turn_at(&self) -> Option<Duration> {
        self.turn_at
    }

    /// When [`Node::take_statuses`] is wanted. Not before systemd was looked at once: until then the ledger says how things
    /// stood before this agent began, and after a power cut a leader would take the dead for running again and end their
    /// replacements.
    pub fn tell_at(&self) -> Option<Duration> {
        self.send_at.filter(|_| self.is_connected && self.is_ready)
    }

    /// Statuses for the leader, the newest of each task; none while they are not on disk.
    pub fn take_statuses(&mut self, now: Now) -> Vec<TaskStatus> {
        let mut statuses = Vec::new();
        if !self.unwritten.is_empty() {
            return statuses;
        }
        while statuses.len() < STATUSES_AT_ONCE
            && let Some(task) = self.outbox.pop_first()
        {
            statuses.extend(self.ledger.tasks.get(&task).and_then(|task| task.status.clone()));
        }
        self.send_at = (!self.outbox.is_empty()).then_some(now.steady);
        statuses
    }

    /// From now on nothing is started. The agent can end without leaving a start in doubt once none is under way.
    pub fn begin_end(&mut self) {
        self.is_ending = true;
    }

    /// Starts that systemd was asked for and has not answered.
    pub fn starts_under_way(&self) -> usize {
        self.starting
    }

    /// How many tasks have a status that the leader was not told.
    pub fn untold(&self) -> usize {
        self.outbox.len()
    }

    /// What is known of the node's tasks.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Units as last seen, by name.
    pub fn units(&self) -> &BTreeMap<String, ObservedUnit> {
        &self.units
    }

    /// Whether systemd was looked at once.
    pub fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Whether a leader has admitted this agent.
    pub fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// Whether systemd can be reached.
    pub fn has_bus(&self) -> bool {
        self.has_bus
    }

    fn decide(&mut self, record: Record) {
        self.ledger.apply(&record);
        self.unwritten.push(record);
    }

    fn hear_assignment(&mut self, assignment: Assignment) -> Result<(), Ignored> {
        let Assignment { generation, full, .. } = assignment;
        if !self.ledger.accepts(generation, full) {
            return Err(Ignored::OlderAssignment { offered: generation, held: self.ledger.generation });
        }
        self.has_heard_leader |= full;
        if let Some(record) = self.changes_of(assignment) {
            self.decide(record);
        }
        Ok(())
    }

    /// An assignment as a record of what is new in it: most of a full one is known.
    fn changes_of(&self, assignment: Assignment) -> Option<Record> {
        let Assignment { generation, full, tasks, removed } = assignment;
        let ledger = &self.ledger;
        let listed: BTreeSet<&TaskId> = tasks.iter().map(|task| &task.id).collect();
        let removed: Vec<TaskId> = if full {
            ledger.tasks.iter().filter(|(id, task)| task.is_wanted && !listed.contains(id)).map(|(id, _)| id.clone()).collect()
        } else {
            removed
        };
        let is_news = |wanted: &WantedTask| {
            ledger.tasks.get(&wanted.id).is_none_or(|known| !known.is_wanted || known.kill.is_none() && wanted.kill.is_some())
        };
        let tasks: Vec<WantedTask> = tasks.into_iter().filter(is_news).collect();
        let is_same = generation == ledger.generation && tasks.is_empty() && removed.is_empty();
        (!is_same).then_some(Record::Assigned { generation, full: false, tasks, removed })
    }

    fn hear_systemd(&mut self, units: BTreeMap<String, UnitPatch>, must_relist: bool) {
        for (name, patch) in units {
            match self.units.get_mut(&name) {
                Some(unit) => drop(patch.apply_to(unit)),
                // Somebody else's start, or one of an agent before this one.
                None => self.observe(name),
            }
        }
        if must_relist {
            self.list();
        }
    }

    fn finish(&mut self, done: Done) {
        match done {
            Done::Connected { began_at, units } => {
                // Not the kernel's boot id alone: a container may be shown its host's, and a user's manager ends without a reboot.
                self.facts.boot = format!("{}/{began_at}", self.boot_id);
                let present: BTreeSet<String> = units.iter().map(|unit| unit.name.clone()).collect();
                self.units.values_mut().filter(|unit| !present.contains(&unit.name)).for_each(|unit| unit.is_loaded = false);
                self.units.extend(units.into_iter().map(|unit| (unit.name.clone(), unit)));
                self.has_bus = true;
            }
            Done::Started { task, unit, outcome } => self.finish_start(task, unit, outcome),
            Done::Stopped { unit, outcome } => {
                self.busy.remove(&unit);
                if let Err(trouble) = outcome {
                    self.suffer(unit, trouble);
                }
            }
            Done::Observed { unit, outcome } => {
                self.busy.remove(&unit);
                match outcome {
                    Ok(Some(observed)) => drop(self.units.insert(unit, *observed)),
                    Ok(None) => self.set_gone(&unit),
                    Err(trouble) => self.suffer(unit, trouble),
                }
            }
            Done::Accounted { unit, usage } => {
                self.busy.remove(&unit);
                if let Some(observed) = self.units.get_mut(&unit) {
                    observed.usage = Some(usage);
                }
            }
            Done::Listed { units } => {
                self.is_listing = false;
                // If they could not be listed, they are again later.
                units.into_iter().for_each(|units| self.compare(units));
            }
            Done::Investigated { task, unit, evidence } => {
                self.busy.remove(&unit);
                match evidence {
                    Some(evidence) => drop(self.evidence.insert(task, evidence)),
                    None => {
                        let tries = self.questions.entry(task.clone()).or_default();
                        *tries += 1;
                        if *tries < QUESTIONS_MAX {
                            self.resting.insert(unit);
                        } else {
                            self.evidence.insert(task, Evidence::Nothing);
                        }
                    }
                }
            }
            Done::Swept { tasks, are_gone } => {
                self.is_sweeping = false;
                if are_gone {
                    self.decide(Record::Swept { tasks });
                }
            }
        }
    }

    fn finish_start(&mut self, task: TaskId, unit: String, outcome: StartOutcome) {
        self.starting -= 1;
        self.busy.remove(&unit);
        match outcome {
            StartOutcome::Made => match self.units.get_mut(&unit) {
                Some(observed) if observed.invocation.is_some() => observed.task = Some(task),
                // Its signals were lost or are late; it is there all the same.
                _ => self.observe(unit),
            },
            // Whose it is is to be seen.
            StartOutcome::Exists => self.observe(unit),
            StartOutcome::Refused(refusal) => {
                self.set_gone(&unit);
                self.refused.insert(task, refusal);
            }
            StartOutcome::NoAnswer => {
                self.unanswered.insert(task);
                // What was expected was not seen. Should systemd make it yet, it is to be looked at like any unit that appears:
                // taken for known, it would be one of nobody's.
                if self.units.get(&unit).is_some_and(|expected| expected.invocation.is_none()) {
                    self.units.remove(&unit);
                }
                self.resting.insert(unit.clone());
                // Whether it was made is to be seen.
                self.observe(unit);
            }
        }
    }

    fn suffer(&mut self, unit: String, trouble: Trouble) {
        match trouble {
            Trouble::NoSuchUnit => self.set_gone(&unit),
            Trouble::Other => drop(self.resting.insert(unit)),
        }
    }

    /// systemd's list against what is believed: differences are looked at one by one.
    fn compare(&mut self, listed: Vec<ListedUnit>) {
        let mut present = BTreeSet::new();
        for unit in listed.into_iter().filter(|unit| is_unit_of_a_task(&unit.name)) {
            let is_known = self.units.get(&unit.name).is_some_and(|known| {
                known.is_loaded && known.active == ActiveState::parse(&unit.active) && known.sub == unit.sub
            });
            if !is_known && !self.busy.contains(&unit.name) {
                self.observe(unit.name.clone());
            }
            present.insert(unit.name);
        }
        // The list may be older than a unit: one that is missing in it is looked at, not given up.
        let believed = self.units.values().filter(|unit| unit.is_loaded && !self.busy.contains(&unit.name));
        let missing: Vec<String> = believed.map(|unit| unit.name.clone()).filter(|name| !present.contains(name)).collect();
        missing.into_iter().for_each(|name| self.observe(name));
    }

    fn tick(&mut self, now: Timestamp) {
        self.ticks += 1;
        self.resting.clear();
        self.forget_what_is_over();
        if self.ticks.is_multiple_of(RESYNC_TICKS) {
            self.list();
        }
        if self.ticks.is_multiple_of(SWEEP_TICKS) {
            self.sweep(now);
        }
    }

    /// Decides until nothing more follows.
    fn reconcile(&mut self, now: Now) {
        self.turned_at = now.steady;
        self.turn_at = None;
        // Without systemd what is known of its units is old, and nothing can be done about them.
        if !self.has_bus {
            return;
        }
        self.account_for_ends();
        for _ in 0..ROUNDS_MAX {
            let busy: BTreeSet<String> = self.busy.union(&self.resting).cloned().collect();
            let actions = reconcile(&View {
                ledger: &self.ledger,
                units: &self.units,
                busy: &busy,
                evidence: &self.evidence,
                unanswered: &self.unanswered,
                refused: &self.refused,
                starts_max: if self.is_ending { 0 } else { STARTS_MAX.saturating_sub(self.starting) },
                facts: &self.facts,
                has_heard_leader: self.has_heard_leader,
                now: now.time,
            });
            if actions.is_empty() {
                break;
            }
            actions.into_iter().for_each(|action| self.carry(action, now));
        }
        self.is_ready = true;
    }

    /// An action becomes what is to be recorded for it, and what is to be done after that.
    fn carry(&mut self, action: UnitAction, now: Now) {
        let boot = self.facts.boot.clone();
        match action {
            UnitAction::Start { task, plan, reason } => {
                self.decide(Record::Starting { task: task.clone(), boot });
                self.unanswered.remove(&task);
                self.evidence.remove(&task);
                self.busy.insert(plan.name.clone());
                // Counted in its slice from now on. Whose it is is known when systemd has made it for us.
                let expected = ObservedUnit { name: plan.name.clone(), slice: plan.slice.clone(), ..ObservedUnit::default() };
                self.units.insert(plan.name.clone(), expected);
                self.starting += 1;
                self.withheld.push(Effect::Start { task, plan, reason });
            }
            UnitAction::Adopt { task, invocation, .. } => self.decide(Record::Started { task, boot, invocation }),
            UnitAction::Stop { task, unit, reason } => {
                self.busy.insert(unit.clone());
                self.withheld.push(Effect::Stop { task, unit, reason });
            }
            UnitAction::Report { status } => {
                if status.state.is_terminal() {
                    self.evidence.remove(&status.task);
                    self.questions.remove(&status.task);
                    self.unanswered.remove(&status.task);
                    self.refused.remove(&status.task);
                }
                self.outbox.insert(status.task.clone());
                self.send_at.get_or_insert(now.steady + GATHER);
                self.decide(Record::Status(status));
            }
            UnitAction::Clean { unit, has_failed, reason } => {
                self.busy.insert(unit.clone());
                self.withheld.push(Effect::LetGo { unit, has_failed, reason });
            }
            UnitAction::Investigate { task, unit, invocation, reason } => {
                self.busy.insert(unit.clone());
                self.withheld.push(Effect::Investigate { task, unit, invocation, reason });
            }
            UnitAction::Forget { task, .. } => self.decide(Record::Forgotten { task, at: now.time }),
        }
    }

    /// What an ended unit used is asked before its end is told, because afterwards it is let go.
    fn account_for_ends(&mut self) {
        for unit in self.units.values() {
            let is_due = unit.is_loaded && unit.usage.is_none() && unit.has_ended() && unit.task.is_some();
            if is_due && self.busy.insert(unit.name.clone()) {
                self.withheld.push(Effect::Account { unit: unit.name.clone() });
            }
        }
    }

    /// Units that are gone and whose tasks need them no more.
    fn forget_what_is_over(&mut self) {
        let live = self.ledger.tasks.iter().filter(|(_, task)| !task.has_ended());
        let needed: BTreeSet<String> = live.map(|(id, _)| unit_name(id)).collect();
        self.units.retain(|name, unit| unit.is_loaded || self.busy.contains(name) || needed.contains(name));
    }

    fn observe(&mut self, unit: String) {
        if self.has_bus && self.busy.insert(unit.clone()) {
            self.withheld.push(Effect::Observe { unit });
        }
    }

    fn list(&mut self) {
        if self.has_bus && !self.is_listing {
            self.is_listing = true;
            self.withheld.push(Effect::List);
        }
    }

    fn sweep(&mut self, now: Timestamp) {
        let due = |at: &Timestamp| *at + DIRECTORY_KEPT <= now;
        let unswept = self.ledger.unswept.iter();
        let tasks: Vec<TaskId> = unswept.filter(|(_, at)| due(at)).map(|(id, _)| id.clone()).take(SWEPT_AT_ONCE).collect();
        if self.has_bus && !tasks.is_empty() && !self.is_sweeping {
            self.is_sweeping = true;
            let unit = format!("drover-sweep-{}.service", self.ticks);
            self.withheld.push(Effect::Sweep { unit, slice: self.facts.task_slice.clone(), tasks });
        }
    }

    fn set_gone(&mut self, unit: &str) {
        if let Some(unit) = self.units.get_mut(unit) {
            unit.is_loaded = false;
        }
    }
}
