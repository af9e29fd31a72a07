//! The driver: the one task that owns what is known of this node's tasks. Everything that happens comes in as an [`Input`];
//! after each the whole is reconciled anew, what follows is put in the ledger, and only then is it done.
//!
//! ```text
//!  session ─▶ FromLeader ┐                                  ┌─▶ ledger (synced) ─▶ operations ─▶ systemd, journal
//!  systemd ─▶ News ──────┼─▶ Input ─▶ take in ─▶ reconcile ─┤
//!  operations ─▶ Done ───┘                                  └─▶ outbox ─▶ session
//!  clock ─▶ Tick ────────┘
//! ```

use crate::chain;
use crate::ledger::LedgerFile;
use crate::logs::Logs;
use crate::metrics;
use crate::operations::{Connection, Done, Operations, STARTS_MAX, StartOutcome};
use crate::session::{FromLeader, Handles};
use anyhow::Context;
use drover_api::agent::{AgentMessage, AssignedTask, MasterMessage};
use drover_core::agent::AgentInfo;
use drover_core::ids::TaskId;
use drover_core::time::{Millis, Timestamp};
use drover_core::unit::{
    ActiveState, Evidence, NodeFacts, ObservedUnit, Record, StartRefusal, UnitAction, View, WantedTask, is_unit_of_a_task,
    reconcile,
};
use drover_systemd::cgroup::ForkWatch;
use drover_systemd::{Changes, ListedUnit, News, Systemd};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// The clock's own input: the watchdog is fed, and what failed is tried again.
const TICK: Duration = Duration::from_secs(1);

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
const BETWEEN_ACTS: Duration = Duration::from_millis(10);

/// How long starts under way are waited for at the end.
const END: Duration = Duration::from_secs(5);

/// Inputs taken in before the next reconciliation, when many wait.
const INPUTS_AT_ONCE: usize = 256;

/// Everything that can happen to a driver.
#[derive(Debug)]
enum Input {
    Leader(FromLeader),
    News(News),
    Done(Done),
    Tick,
}

impl Input {
    /// For metrics.
    fn word(&self) -> &'static str {
        match self {
            Self::Leader(_) => "leader",
            Self::News(_) => "systemd",
            Self::Done(_) => "operation",
            Self::Tick => "tick",
        }
    }
}

/// The driver's state.
pub(crate) struct Driver {
    ledger: LedgerFile,
    facts: NodeFacts,
    info: AgentInfo,
    session: Handles,
    logs: Logs,
    /// `None` where the kernel does not limit processes, or there is no watch left.
    forks: Option<ForkWatch>,
    operations: Operations,
    done: mpsc::Receiver<Done>,
    /// `None` while the bus is away.
    systemd: Option<Systemd>,
    changes: Option<Changes>,
    units: BTreeMap<String, ObservedUnit>,
    /// Units an operation is about.
    busy: BTreeSet<String>,
    /// Units whose operation failed: left alone until the next tick.
    resting: BTreeSet<String>,
    evidence: BTreeMap<TaskId, Evidence>,
    /// How often the journal could not be asked about a task.
    questions: BTreeMap<TaskId, u32>,
    unanswered: BTreeSet<TaskId>,
    refused: BTreeMap<TaskId, StartRefusal>,
    has_heard_leader: bool,
    is_connected: bool,
    /// Tasks whose newest status this leader has not been told.
    outbox: BTreeSet<TaskId>,
    /// When the outbox is sent.
    send_at: Option<Instant>,
    acted_at: Instant,
    /// When what was taken in is reconciled.
    act_at: Option<Instant>,
    /// Starts under way.
    starting: usize,
    is_listing: bool,
    is_sweeping: bool,
    /// Whether the agent is about to end: nothing new is begun.
    is_ending: bool,
    ticks: u64,
    ready: watch::Sender<bool>,
    told: String,
}

impl Driver {
    pub(crate) fn new(
        ledger: LedgerFile,
        facts: NodeFacts,
        info: AgentInfo,
        session: Handles,
        ready: watch::Sender<bool>,
        log_streams: usize,
    ) -> Self {
        let (operations, done) = Operations::new(facts.manager);
        let logs = Logs::new(info.host.clone(), session.streams.clone(), log_streams);
        let forks = facts.enforces.contains("pids").then(ForkWatch::new).and_then(|watch| {
            watch.inspect_err(|error| warn!(%error, "ends for want of processes will not be explained")).ok()
        });
        Self {
            ledger,
            facts,
            info,
            session,
            logs,
            forks,
            operations,
            done,
            systemd: None,
            changes: None,
            units: BTreeMap::new(),
            busy: BTreeSet::new(),
            resting: BTreeSet::new(),
            evidence: BTreeMap::new(),
            questions: BTreeMap::new(),
            unanswered: BTreeSet::new(),
            refused: BTreeMap::new(),
            has_heard_leader: false,
            is_connected: false,
            outbox: BTreeSet::new(),
            send_at: None,
            acted_at: Instant::now(),
            act_at: None,
            starting: 0,
            is_listing: false,
            is_sweeping: false,
            is_ending: false,
            ticks: 0,
            ready,
            told: String::new(),
        }
    }

    /// Runs until the shutdown. Tasks go on.
    ///
    /// # Errors
    /// The ledger cannot be written: nothing may be done that is not on record.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> anyhow::Result<()> {
        self.operations.connect();
        self.announce_generation();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let input = tokio::select! {
                () = shutdown.cancelled() => break,
                input = Self::next_input(&mut self.session.from_leader, &mut self.changes, &mut self.done) => Some(input),
                _ = ticks.tick() => Some(Input::Tick),
                permit = self.session.to_leader.reserve(), if self.may_tell() && self.send_at.is_some_and(|at| at <= Instant::now()) => {
                    let Ok(permit) = permit else { return Ok(()) };
                    permit.send(AgentMessage::Statuses { statuses: take_statuses(&mut self.outbox, &self.ledger) });
                    self.send_at = (!self.outbox.is_empty()).then(Instant::now);
                    None
                }
                () = sleep_until(self.act_at), if self.act_at.is_some() => None,
                () = sleep_until(self.send_at), if self.may_tell() && self.send_at.is_some_and(|at| at > Instant::now()) => None,
            };
            if let Some(input) = input {
                self.take_in_all(input)?;
                self.act_at.get_or_insert(self.acted_at + BETWEEN_ACTS);
            }
            if self.act_at.is_some_and(|at| at <= Instant::now()) {
                self.act()?;
            }
        }
        self.end().await
    }

    /// Sees the starts under way through, so that none is left in doubt.
    async fn end(mut self) -> anyhow::Result<()> {
        self.is_ending = true;
        let all = async {
            while self.starting > 0
                && let Some(done) = self.done.recv().await
            {
                self.take_in_all(Input::Done(done))?;
                self.act()?;
            }
            Ok(())
        };
        match tokio::time::timeout(END, all).await {
            Ok(ended) => ended,
            Err(_) => {
                warn!("systemd has not answered all starts; the next agent will see what became of them");
                Ok(())
            }
        }
    }

    /// Whether statuses may go out. Not before systemd was looked at once: until then the ledger says how things stood before
    /// this agent began, and after a power cut a leader would take the dead for running again and end their replacements.
    fn may_tell(&self) -> bool {
        self.is_connected && *self.ready.borrow()
    }

    /// Waits for whatever comes first. Cancel safe: what is not returned is not lost.
    async fn next_input(
        from_leader: &mut mpsc::Receiver<FromLeader>,
        changes: &mut Option<Changes>,
        done: &mut mpsc::Receiver<Done>,
    ) -> Input {
        let news = async {
            match changes {
                Some(changes) => changes.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(message) = from_leader.recv() => Input::Leader(message),
            news = news => Input::News(news),
            Some(done) = done.recv() => Input::Done(done),
        }
    }

    /// Takes in one input and what else waits already: a burst is reconciled once.
    fn take_in_all(&mut self, first: Input) -> anyhow::Result<()> {
        let mut records = Vec::new();
        // News first: a start that is through has left its traces there, and need not be asked about.
        if let Some(news) = self.changes.as_mut().and_then(Changes::take) {
            self.take_in(Input::News(news), &mut records);
        }
        self.take_in(first, &mut records);
        for _ in 0..INPUTS_AT_ONCE {
            if let Ok(done) = self.done.try_recv() {
                self.take_in(Input::Done(done), &mut records);
            } else if records.is_empty()
                && let Ok(message) = self.session.from_leader.try_recv()
            {
                // An assignment is judged by the ledger, so the one before must be in it.
                self.take_in(Input::Leader(message), &mut records);
            } else {
                break;
            }
        }
        self.record(&records)
    }

    fn take_in(&mut self, input: Input, records: &mut Vec<Record>) {
        metrics::INPUTS.inc([input.word()]);
        match input {
            Input::Leader(FromLeader::Connected) => {
                self.is_connected = true;
                let tasks = self.ledger.get().tasks.iter();
                self.outbox = tasks.filter(|(_, task)| task.status.is_some()).map(|(id, _)| id.clone()).collect();
                self.send_at = (!self.outbox.is_empty()).then(Instant::now);
            }
            Input::Leader(FromLeader::Lost) => {
                self.is_connected = false;
                self.outbox.clear();
                self.send_at = None;
            }
            Input::Leader(FromLeader::Said(message)) => self.hear(message, records),
            Input::News(news) => self.hear_systemd(news),
            Input::Done(done) => self.finish(done, records),
            Input::Tick => self.tick(),
        }
    }

    fn hear(&mut self, message: MasterMessage, records: &mut Vec<Record>) {
        match message {
            // The session's own.
            MasterMessage::Welcome { .. } | MasterMessage::Ping => {}
            MasterMessage::Assign { generation, full, tasks, removed } => {
                if !self.ledger.get().accepts(generation, full) {
                    let held = self.ledger.get().generation;
                    warn!(generation, held, "the leader sent an older assignment than this node holds, ignoring");
                    return;
                }
                self.has_heard_leader |= full;
                records.extend(self.changes_of(generation, full, tasks, removed));
            }
            MasterMessage::Acknowledge { statuses } => {
                let ledger = self.ledger.get();
                let news = statuses
                    .into_iter()
                    .filter(|(task, seq)| ledger.tasks.get(task).is_some_and(|task| task.acknowledged < *seq));
                for (task, seq) in news {
                    debug!(task_id = %task, seq, "status {seq} of {task} is acknowledged");
                    records.push(Record::Acknowledged { task, seq });
                }
            }
            MasterMessage::OpenLogs { stream, query } => self.logs.open(stream, query),
            MasterMessage::CloseStream { stream } => self.logs.close(&stream),
        }
    }

    /// An assignment as a record of what is new in it: most of a full one is known.
    fn changes_of(&self, generation: u64, full: bool, tasks: Vec<AssignedTask>, removed: Vec<TaskId>) -> Option<Record> {
        let ledger = self.ledger.get();
        let listed: BTreeSet<&TaskId> = tasks.iter().map(|task| &task.id).collect();
        let removed: Vec<TaskId> = if full {
            ledger.tasks.iter().filter(|(id, task)| task.is_wanted && !listed.contains(id)).map(|(id, _)| id.clone()).collect()
        } else {
            removed
        };
        let is_news = |wanted: &AssignedTask| {
            ledger.tasks.get(&wanted.id).is_none_or(|known| !known.is_wanted || known.kill.is_none() && wanted.kill.is_some())
        };
        let tasks: Vec<WantedTask> = tasks
            .into_iter()
            .filter(is_news)
            .map(|task| WantedTask { id: task.id, spec: task.spec, kill: task.kill })
            .collect();
        for task in &tasks {
            debug!(task_id = %task.id, generation, ends = task.kill.as_deref(), "{} is assigned", task.id);
        }
        let is_same = generation == ledger.generation && tasks.is_empty() && removed.is_empty();
        if !is_same {
            debug!(generation, new = tasks.len(), removed = removed.len(), "assignment");
        }
        (!is_same).then_some(Record::Assigned { generation, full: false, tasks, removed })
    }

    fn hear_systemd(&mut self, news: News) {
        if news.is_disconnected {
            warn!("the bus is gone; tasks go on, connecting again");
            self.systemd = None;
            self.changes = None;
            self.is_listing = false;
            self.operations.connect();
            return;
        }
        for (name, patch) in news.units {
            match self.units.get_mut(&name) {
                Some(unit) => drop(patch.apply_to(unit)),
                // Somebody else's start, or one of an agent before this one.
                None => self.observe(name),
            }
        }
        if news.must_relist {
            self.list();
        }
    }

    fn finish(&mut self, done: Done, records: &mut Vec<Record>) {
        match done {
            Done::Started { task, unit, outcome } => self.finish_start(task, unit, outcome),
            Done::Stopped { unit, outcome } => {
                self.busy.remove(&unit);
                match outcome {
                    Ok(()) => {}
                    Err(error) if error.is_no_such_unit() => self.set_gone(&unit),
                    Err(error) => self.rest(unit, &error),
                }
            }
            Done::Observed { unit, outcome } => {
                self.busy.remove(&unit);
                match outcome {
                    Ok(Some(observed)) => drop(self.units.insert(unit, *observed)),
                    Ok(None) => self.set_gone(&unit),
                    Err(error) => self.rest(unit, &error),
                }
            }
            Done::Accounted { unit, outcome } => {
                self.busy.remove(&unit);
                let usage = outcome.unwrap_or_else(|error| {
                    debug!(unit, %error, "what it used is not known, ignoring");
                    drover_core::task::Usage { cpu_nanos: None, mem_peak_bytes: None }
                });
                if let Some(observed) = self.units.get_mut(&unit) {
                    observed.usage = Some(usage);
                }
            }
            Done::Listed { outcome } => {
                self.is_listing = false;
                match outcome {
                    Ok(listed) => self.compare(listed),
                    Err(error) => warn!("units cannot be listed, trying again later: {}", chain(&error)),
                }
            }
            Done::Investigated { task, unit, outcome } => {
                self.busy.remove(&unit);
                match outcome {
                    Ok(evidence) => drop(self.evidence.insert(task, evidence)),
                    Err(error) => {
                        warn!(task_id = %task, %error, "the journal cannot be asked how {task} ended: {error}");
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
            Done::Swept { tasks, outcome } => {
                self.is_sweeping = false;
                match outcome {
                    Ok(()) => {
                        info!(count = tasks.len(), "directories of tasks that ended long ago are removed");
                        records.push(Record::Swept { tasks });
                    }
                    Err(error) => {
                        warn!("directories of ended tasks stay, trying again later: {}", chain(&error));
                    }
                }
            }
            Done::Connected(connection) => {
                let Connection { systemd, changes, began_at, units } = *connection;
                // Not the kernel's boot id alone: a container may be shown its host's, and a user's manager ends without a reboot.
                self.facts.boot = format!("{}/{began_at}", self.info.boot_id);
                let present: BTreeSet<String> = units.iter().map(|unit| unit.name.clone()).collect();
                let gone: Vec<String> = self.units.keys().filter(|name| !present.contains(*name)).cloned().collect();
                gone.iter().for_each(|name| self.set_gone(name));
                metrics::BUS_CONNECTS.inc([]);
                info!(units = units.len(), "connected to systemd");
                self.units.extend(units.into_iter().map(|unit| (unit.name.clone(), unit)));
                self.systemd = Some(systemd);
                self.changes = Some(changes);
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
            StartOutcome::Exists => {
                info!(task_id = %task, unit, "a unit of that name is there already; looking whose it is");
                self.observe(unit);
            }
            StartOutcome::Refused(refusal) => {
                self.set_gone(&unit);
                self.refused.insert(task, refusal);
            }
            StartOutcome::NoAnswer(error) => {
                self.unanswered.insert(task);
                self.rest(unit.clone(), &error);
                // Whether it was made is to be seen.
                self.observe(unit);
            }
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

    fn tick(&mut self) {
        self.ticks += 1;
        self.resting.clear();
        self.forget_what_is_over();
        metrics::observe(&self.ledger, self.outbox.len(), self.systemd.is_some());
        if self.ticks.is_multiple_of(RESYNC_TICKS) {
            self.list();
        }
        if self.ticks.is_multiple_of(SWEEP_TICKS) {
            self.sweep();
        }
        self.tell_systemd();
    }

    /// Reconciles, puts what follows on record, then does it.
    fn act(&mut self) -> anyhow::Result<()> {
        self.acted_at = Instant::now();
        self.act_at = None;
        // Without systemd what is known of its units is old, and nothing can be done about them.
        let Some(systemd) = self.systemd.clone() else { return Ok(()) };
        let began = std::time::Instant::now();
        self.watch_forks();
        self.account_for_ends(&systemd);
        // What an action changes in the ledger may call for another.
        for _ in 0..4 {
            let busy: BTreeSet<String> = self.busy.union(&self.resting).cloned().collect();
            let actions = reconcile(&View {
                ledger: self.ledger.get(),
                units: &self.units,
                busy: &busy,
                evidence: &self.evidence,
                unanswered: &self.unanswered,
                refused: &self.refused,
                starts_max: if self.is_ending { 0 } else { STARTS_MAX.saturating_sub(self.starting) },
                facts: &self.facts,
                has_heard_leader: self.has_heard_leader,
                now: now(),
            });
            if actions.is_empty() {
                break;
            }
            let records: Vec<Record> = actions.iter().filter_map(|action| self.record_of(action)).collect();
            self.record(&records)?;
            for action in actions {
                self.carry_out(&systemd, action);
            }
        }
        metrics::RECONCILE.took([], began.elapsed());
        if !*self.ready.borrow() {
            self.ready.send_replace(true);
        }
        Ok(())
    }

    fn record_of(&self, action: &UnitAction) -> Option<Record> {
        let boot = self.facts.boot.clone();
        match action {
            UnitAction::Start { task, .. } => Some(Record::Starting { task: task.clone(), boot }),
            UnitAction::Adopt { task, invocation, .. } => {
                Some(Record::Started { task: task.clone(), boot, invocation: invocation.clone() })
            }
            UnitAction::Report { status } => Some(Record::Status(status.clone())),
            UnitAction::Forget { task, .. } => Some(Record::Forgotten { task: task.clone(), at: now() }),
            UnitAction::Stop { .. } | UnitAction::Clean { .. } | UnitAction::Investigate { .. } => None,
        }
    }

    fn carry_out(&mut self, systemd: &Systemd, action: UnitAction) {
        match action {
            UnitAction::Start { task, plan, reason } => {
                let owner = self.ledger.get().tasks.get(&task).map(|known| &known.spec.owner);
                let (app_id, job, run) = crate::ids_of(owner);
                info!(task_id = %task, app_id, job, run, unit = plan.name, slice = plan.slice, "starting {task}: {reason}");
                if !plan.unenforced.is_empty() {
                    debug!(task_id = %task, "the kernel here does not enforce its limits on {}", plan.unenforced.join(", "));
                }
                self.unanswered.remove(&task);
                self.evidence.remove(&task);
                self.busy.insert(plan.name.clone());
                // Counted in its slice from now on. Whose it is is known when systemd has made it for us.
                let expected = ObservedUnit { name: plan.name.clone(), slice: plan.slice.clone(), ..ObservedUnit::default() };
                self.units.insert(plan.name.clone(), expected);
                self.starting += 1;
                self.operations.start(systemd.clone(), task, *plan);
            }
            UnitAction::Adopt { task, unit, invocation, reason } => {
                debug!(task_id = %task, unit, invocation, "adopting {task}: {reason}");
            }
            UnitAction::Stop { task, unit, reason } => {
                match &task {
                    Some(task) => info!(task_id = %task, unit, "stopping {task}: {reason}"),
                    None => info!(unit, "stopping {unit}: {reason}"),
                }
                self.busy.insert(unit.clone());
                self.operations.stop(systemd.clone(), unit);
            }
            UnitAction::Report { status } => {
                metrics::STATUSES.inc([drover_api::drover::TaskState::from(status.state).word()]);
                let (task, state, words) = (&status.task, status.state.wire(), &status.message);
                let colon = if words.is_empty() { "" } else { ": " };
                info!(task_id = %task, state, reason = ?status.reason, "{task} is {state}{colon}{words}");
                if status.state.is_terminal() {
                    self.evidence.remove(&status.task);
                    self.questions.remove(&status.task);
                    self.unanswered.remove(&status.task);
                    self.refused.remove(&status.task);
                }
                self.outbox.insert(status.task);
                self.send_at.get_or_insert_with(|| Instant::now() + GATHER);
            }
            UnitAction::Clean { unit, has_failed, reason } => {
                debug!(unit, "letting {unit} go: {reason}");
                self.busy.insert(unit.clone());
                self.operations.let_go(systemd.clone(), unit, has_failed);
            }
            UnitAction::Investigate { task, unit, invocation, reason } => {
                info!(task_id = %task, unit, "asking the journal about {task}: {reason}");
                self.busy.insert(unit.clone());
                self.operations.investigate(task, unit, invocation);
            }
            UnitAction::Forget { task, reason } => debug!(task_id = %task, "forgetting {task}: {reason}"),
        }
    }

    /// Who is refused a process may give up at once, so units are watched from before their program is executed.
    fn watch_forks(&mut self) {
        let Some(forks) = &mut self.forks else { return };
        for unit in self.units.values() {
            let is_up = match unit.active {
                ActiveState::Activating | ActiveState::Reloading => true,
                ActiveState::Active => unit.sub != "exited",
                ActiveState::Inactive | ActiveState::Failed | ActiveState::Deactivating => false,
            };
            if is_up && !unit.slice.is_empty() {
                forks.watch(&unit.slice, &unit.name);
            }
        }
        for name in forks.refused() {
            if let Some(unit) = self.units.get_mut(&name) {
                unit.was_refused_a_process = true;
            }
        }
    }

    /// What an ended unit used is asked before its end is told, because afterwards it is let go.
    fn account_for_ends(&mut self, systemd: &Systemd) {
        for unit in self.units.values_mut() {
            let is_due = unit.is_loaded && unit.usage.is_none() && unit.has_ended() && unit.task.is_some();
            if is_due && !self.busy.contains(&unit.name) {
                self.busy.insert(unit.name.clone());
                self.operations.account(systemd.clone(), unit.name.clone());
            }
        }
    }

    /// Units that are gone and whose tasks need them no more.
    fn forget_what_is_over(&mut self) {
        let needed: BTreeSet<String> = self
            .ledger
            .get()
            .tasks
            .iter()
            .filter(|(_, task)| !task.has_ended())
            .map(|(id, _)| drover_core::unit::unit_name(id))
            .collect();
        self.units.retain(|name, unit| unit.is_loaded || self.busy.contains(name) || needed.contains(name));
    }

    fn observe(&mut self, unit: String) {
        if let Some(systemd) = &self.systemd
            && self.busy.insert(unit.clone())
        {
            self.operations.observe(systemd.clone(), unit);
        }
    }

    fn list(&mut self) {
        if let Some(systemd) = self.systemd.clone().filter(|_| !self.is_listing) {
            self.is_listing = true;
            self.operations.list(systemd);
        }
    }

    fn sweep(&mut self) {
        let due = |at: &Timestamp| *at + DIRECTORY_KEPT <= now();
        let unswept = self.ledger.get().unswept.iter();
        let tasks: Vec<TaskId> = unswept.filter(|(_, at)| due(at)).map(|(id, _)| id.clone()).take(SWEPT_AT_ONCE).collect();
        if let Some(systemd) = self.systemd.clone().filter(|_| !tasks.is_empty() && !self.is_sweeping) {
            self.is_sweeping = true;
            let unit = format!("drover-sweep-{}.service", self.ticks);
            self.operations.sweep(systemd, unit, self.facts.task_slice.clone(), tasks);
        }
    }

    fn set_gone(&mut self, unit: &str) {
        if let Some(unit) = self.units.get_mut(unit) {
            unit.is_loaded = false;
        }
    }

    fn rest(&mut self, unit: String, error: &drover_systemd::Error) {
        warn!(unit, "{unit}: {}; trying again in a moment", chain(error));
        self.resting.insert(unit);
    }

    fn record(&mut self, records: &[Record]) -> anyhow::Result<()> {
        let generation = self.ledger.get().generation;
        // A few milliseconds on this thread; the runtime moves its other work elsewhere.
        tokio::task::block_in_place(|| self.ledger.append(records)).context("the ledger cannot be kept")?;
        if self.ledger.get().generation != generation {
            self.announce_generation();
        }
        Ok(())
    }

    fn announce_generation(&self) {
        let generation = self.ledger.get().generation;
        // Told with the next greeting; a change of it alone is none.
        self.session.hello.send_if_modified(|hello| {
            hello.1 = generation;
            false
        });
    }

    /// Feeds the watchdog, and says in one line how things stand.
    fn tell_systemd(&mut self) {
        use sd_notify::NotifyState;
        let tasks = self.ledger.get().tasks.values().filter(|task| !task.has_ended()).count();
        let leader = if self.is_connected { "a leader" } else { "no leader" };
        let bus = if self.systemd.is_some() { "" } else { ", no bus" };
        let status = format!("{}: {tasks} tasks, {leader}{bus}", self.info.host);
        let mut states = vec![NotifyState::Watchdog];
        if status != self.told {
            states.push(NotifyState::Status(&status));
        }
        if let Err(error) = sd_notify::notify(false, &states) {
            debug!(%error, "systemd not notified, ignoring");
        }
        self.told = status;
    }
}

fn take_statuses(outbox: &mut BTreeSet<TaskId>, ledger: &LedgerFile) -> Vec<drover_core::task::TaskStatus> {
    let mut statuses = Vec::new();
    while statuses.len() < STATUSES_AT_ONCE
        && let Some(task) = outbox.pop_first()
    {
        statuses.extend(ledger.get().tasks.get(&task).and_then(|task| task.status.clone()));
    }
    statuses
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_millisecond())
}
