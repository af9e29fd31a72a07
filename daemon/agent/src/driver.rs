//! The driver: the one task that owns the node's mind ([`drover_core::node`]). It brings the mind everything that happens, keeps
//! its ledger, and has its effects carried out. It chooses nothing.
//!
//! ```text
//!  session ─▶ FromLeader ┐                           ┌─▶ ledger (synced) ─▶ operations ─▶ systemd, journal
//!  systemd ─▶ News ──────┼─▶ Happened ─▶ Node (core) ┤
//!  operations ─▶ End ────┤                           └─▶ statuses ─▶ session
//!  clock ─▶ Tick ────────┘
//! ```

use crate::ledger::LedgerFile;
use crate::logs::Logs;
use crate::metrics;
use crate::operations::{Connection, End, Operations};
use crate::session::{FromLeader, Handles};
use anyhow::Context;
use drover_api::agent::{AgentMessage, MasterMessage};
use drover_core::node::{Done, Input, Node, TICK};
use drover_core::time::{Now, Timestamp};
use drover_core::unit::{ActiveState, Assignment, Ledger, NodeFacts, Record, WantedTask};
use drover_systemd::cgroup::ForkWatch;
use drover_systemd::{Changes, News};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// How long starts under way are waited for at the end.
const END: Duration = Duration::from_secs(5);

/// Inputs taken in before the next reconciliation, when many wait.
const INPUTS_AT_ONCE: usize = 256;

/// Everything that can happen to a driver.
#[derive(Debug)]
enum Happened {
    Leader(FromLeader),
    News(News),
    End(End),
    Tick,
}

impl Happened {
    /// For metrics.
    fn word(&self) -> &'static str {
        match self {
            Self::Leader(_) => "leader",
            Self::News(_) => "systemd",
            Self::End(_) => "operation",
            Self::Tick => "tick",
        }
    }
}

/// The driver's state.
pub(crate) struct Driver {
    node: Node,
    ledger: LedgerFile,
    /// What the steady clock of the mind counts from.
    began: Instant,
    host: String,
    session: Handles,
    logs: Logs,
    /// `None` where the kernel does not limit processes, or there is no watch left.
    forks: Option<ForkWatch>,
    operations: Operations,
    ends: mpsc::Receiver<End>,
    /// `None` while the bus is away.
    changes: Option<Changes>,
    ready: watch::Sender<bool>,
    told: String,
}

impl Driver {
    pub(crate) fn new(
        (ledger, known): (LedgerFile, Ledger),
        facts: NodeFacts,
        boot_id: String,
        host: String,
        session: Handles,
        ready: watch::Sender<bool>,
        log_streams: usize,
    ) -> Self {
        let (operations, ends) = Operations::new(facts.manager);
        let logs = Logs::new(host.clone(), session.streams.clone(), log_streams);
        let forks = facts.enforces.contains("pids").then(ForkWatch::new).and_then(|watch| {
            watch.inspect_err(|error| warn!(%error, "ends for want of processes will not be explained")).ok()
        });
        let began = Instant::now();
        let node = Node::new(known, facts, boot_id, Now { time: time(), steady: Duration::ZERO });
        Self { node, ledger, began, host, session, logs, forks, operations, ends, changes: None, ready, told: String::new() }
    }

    /// Runs until the shutdown. Tasks go on.
    ///
    /// # Errors
    /// The ledger cannot be written: nothing may be done that is not on record.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> anyhow::Result<()> {
        self.settle()?;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let (turn_at, tell_at) = (self.node.turn_at(), self.node.tell_at());
            let may_tell = tell_at.is_some_and(|at| at <= self.now().steady);
            let happened = tokio::select! {
                () = shutdown.cancelled() => break,
                happened = Self::next(&mut self.session.from_leader, &mut self.changes, &mut self.ends) => Some(happened),
                _ = ticks.tick() => Some(Happened::Tick),
                permit = self.session.to_leader.reserve(), if may_tell => {
                    let Ok(permit) = permit else { return Ok(()) };
                    let now = Now { time: time(), steady: self.began.elapsed() };
                    permit.send(AgentMessage::Statuses { statuses: self.node.take_statuses(now) });
                    None
                }
                () = sleep_until(self.began, turn_at) => None,
                () = sleep_until(self.began, tell_at), if !may_tell => None,
            };
            if let Some(happened) = happened {
                self.take_in_all(happened);
                self.settle()?;
            }
            if self.node.turn_at().is_some_and(|at| at <= self.now().steady) {
                let began = Instant::now();
                self.watch_forks();
                self.node.turn(self.now());
                self.settle()?;
                metrics::RECONCILE.took([], began.elapsed());
            }
        }
        self.end().await
    }

    /// Sees the starts under way through, so that none is left in doubt.
    async fn end(mut self) -> anyhow::Result<()> {
        self.node.begin_end();
        let all = async {
            while self.node.starts_under_way() > 0
                && let Some(end) = self.ends.recv().await
            {
                self.take_in_all(Happened::End(end));
                self.settle()?;
            }
            // What the last answers said is put on record.
            if let Some(at) = self.node.turn_at() {
                sleep_until(self.began, Some(at)).await;
                self.node.turn(self.now());
            }
            self.settle()
        };
        match tokio::time::timeout(END, all).await {
            Ok(ended) => ended,
            Err(_) => {
                warn!("systemd has not answered all starts; the next agent will see what became of them");
                Ok(())
            }
        }
    }

    /// Waits for whatever comes first. Cancel safe: what is not returned is not lost.
    async fn next(
        from_leader: &mut mpsc::Receiver<FromLeader>,
        changes: &mut Option<Changes>,
        ends: &mut mpsc::Receiver<End>,
    ) -> Happened {
        let news = async {
            match changes {
                Some(changes) => changes.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(message) = from_leader.recv() => Happened::Leader(message),
            news = news => Happened::News(news),
            Some(end) = ends.recv() => Happened::End(end),
        }
    }

    /// Takes in one thing and what else waits already: a burst is reconciled, and put on disk, once.
    fn take_in_all(&mut self, first: Happened) {
        // News first: a start that is through has left its traces there, and need not be asked about.
        if let Some(news) = self.changes.as_mut().and_then(Changes::take) {
            self.take_in(Happened::News(news));
        }
        self.take_in(first);
        for _ in 0..INPUTS_AT_ONCE {
            if let Ok(end) = self.ends.try_recv() {
                self.take_in(Happened::End(end));
            } else if let Ok(message) = self.session.from_leader.try_recv() {
                self.take_in(Happened::Leader(message));
            } else {
                break;
            }
        }
    }

    fn take_in(&mut self, happened: Happened) {
        metrics::INPUTS.inc([happened.word()]);
        let input = match happened {
            Happened::Leader(FromLeader::Connected) => Input::Connected,
            Happened::Leader(FromLeader::Lost) => Input::Lost,
            Happened::Leader(FromLeader::Said(message)) => match message {
                // The session's own.
                MasterMessage::Welcome { .. } | MasterMessage::Refused { .. } | MasterMessage::Ping => return,
                MasterMessage::Assign { generation, full, tasks, removed } => {
                    let tasks = tasks.into_iter().map(WantedTask::from).collect();
                    Input::Assigned(Assignment { generation, full, tasks, removed })
                }
                MasterMessage::Acknowledge { statuses } => Input::Acknowledged(statuses),
                MasterMessage::OpenLogs { stream, query } => return self.logs.open(stream, query),
                MasterMessage::CloseStream { stream } => return self.logs.close(&stream),
            },
            Happened::News(news) if news.is_disconnected => {
                warn!("the bus is gone; tasks go on, connecting again");
                self.changes = None;
                Input::BusLost
            }
            Happened::News(News { units, must_relist, is_disconnected: _ }) => Input::News { units, must_relist },
            Happened::End(End::Connected(connection)) => {
                let Connection { systemd, changes, began_at, units } = *connection;
                metrics::BUS_CONNECTS.inc([]);
                info!(units = units.len(), "connected to systemd");
                self.operations.use_connection(systemd);
                self.changes = Some(changes);
                Input::Done(Done::Connected { began_at, units })
            }
            Happened::End(End::Done(done)) => Input::Done(done),
            Happened::Tick => Input::Tick,
        };
        let is_tick = matches!(input, Input::Tick);
        if let Err(ignored) = self.node.take_in(input, self.now()) {
            warn!("{ignored}; ignoring it");
        }
        if is_tick {
            metrics::observe(self.node.ledger(), self.ledger.bytes(), self.node.untold(), self.node.has_bus());
            self.tell_systemd();
        }
    }

    /// Puts what the mind decided on disk, and has done what may be done then.
    fn settle(&mut self) -> anyhow::Result<()> {
        let ledger = &mut self.ledger;
        let write = |records: &[Record], after: &Ledger| {
            // A few milliseconds on this thread; the runtime moves its other work elsewhere.
            tokio::task::block_in_place(|| ledger.append(records, after))?;
            records.iter().for_each(tell);
            Ok::<_, crate::ledger::LedgerError>(())
        };
        let effects = self.node.put_on_record(write).context("the ledger cannot be kept")?;
        effects.into_iter().for_each(|effect| self.operations.carry_out(effect, self.node.ledger()));
        // Told with the next greeting; a change of it alone is none.
        let generation = self.node.ledger().generation;
        self.session.hello.send_if_modified(|hello| {
            hello.1 = generation;
            false
        });
        if self.node.is_ready() && !*self.ready.borrow() {
            self.ready.send_replace(true);
        }
        Ok(())
    }

    /// Who is refused a process may give up at once, so units are watched from before their program is executed.
    fn watch_forks(&mut self) {
        let Some(forks) = &mut self.forks else { return };
        for unit in self.node.units().values() {
            let is_up = match unit.active {
                ActiveState::Activating | ActiveState::Reloading => true,
                ActiveState::Active => unit.sub != "exited",
                ActiveState::Inactive | ActiveState::Failed | ActiveState::Deactivating => false,
            };
            if is_up && !unit.slice.is_empty() {
                forks.watch(&unit.slice, &unit.name);
            }
        }
        let refused = forks.refused();
        if !refused.is_empty() {
            self.node.take_in(Input::RefusedAProcess(refused), self.now()).expect("only assignments are ever ignored");
        }
    }

    /// Feeds the watchdog, and says in one line how things stand.
    fn tell_systemd(&mut self) {
        use sd_notify::NotifyState;
        let tasks = self.node.ledger().tasks.values().filter(|task| !task.has_ended()).count();
        let leader = if self.node.is_connected() { "a leader" } else { "no leader" };
        let bus = if self.node.has_bus() { "" } else { ", no bus" };
        let status = format!("{}: {tasks} tasks, {leader}{bus}", self.host);
        let mut states = vec![NotifyState::Watchdog];
        if status != self.told {
            states.push(NotifyState::Status(&status));
        }
        if let Err(error) = sd_notify::notify(false, &states) {
            debug!(%error, "systemd not notified, ignoring");
        }
        self.told = status;
    }

    fn now(&self) -> Now {
        Now { time: time(), steady: self.began.elapsed() }
    }
}

/// A record is what was decided: told to people as it reaches the disk.
fn tell(record: &Record) {
    match record {
        Record::Assigned { generation, tasks, removed, .. } => {
            for task in tasks {
                debug!(task_id = %task.id, generation, ends = task.kill.as_deref(), "{} is assigned", task.id);
            }
            debug!(generation, new = tasks.len(), removed = removed.len(), "assignment");
        }
        Record::Started { task, invocation, .. } => {
            debug!(task_id = %task, invocation, "{task} is this invocation of its unit")
        }
        Record::Status(status) => {
            metrics::STATUSES.inc([drover_api::drover::TaskState::from(status.state).word()]);
            let (task, state, words) = (&status.task, status.state.wire(), &status.message);
            let colon = if words.is_empty() { "" } else { ": " };
            info!(task_id = %task, state, reason = ?status.reason, "{task} is {state}{colon}{words}");
        }
        Record::Acknowledged { task, seq } => debug!(task_id = %task, seq, "status {seq} of {task} is acknowledged"),
        Record::Forgotten { task, .. } => debug!(task_id = %task, "forgetting {task}"),
        Record::Opened { .. }
        | Record::Starting { .. }
        | Record::Unswept { .. }
        | Record::Swept { .. }
        | Record::Task { .. } => {}
    }
}

async fn sleep_until(began: Instant, at: Option<Duration>) {
    match at {
        Some(at) => tokio::time::sleep_until(began + at).await,
        None => std::future::pending().await,
    }
}

fn time() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_millisecond())
}
