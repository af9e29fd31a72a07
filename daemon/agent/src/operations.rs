//! The mind's effects, carried out: calls to systemd and questions to the journal, each a task of its own that ends in one
//! [`End`]. None of them touches the mind; what went wrong is told to people here.

use crate::{chain, metrics};
use drover_core::ids::TaskId;
use drover_core::node::{Done, Effect, STARTS_MAX, StartOutcome, Trouble};
use drover_core::sandbox::Manager;
use drover_core::task::Usage;
use drover_core::unit::{Ledger, ObservedUnit, UnitPlan, is_unit_of_a_task};
use drover_systemd::{Changes, Error, Started, Systemd, journal};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};
use tracing::{debug, info, warn};

/// Other calls under way at once. A stop lasts as long as its task takes to end.
const CALLS_MAX: usize = 512;

/// Questions to the journal at once: each opens every journal file, and one of the few inotify instances a user has.
const QUESTIONS_MAX: usize = 4;

/// Units asked about at once when everything is listed.
const OBSERVED_AT_ONCE: usize = 16;

/// How long to wait for journald to have written what systemd told it.
const EVIDENCE_PATIENCE: Duration = Duration::from_secs(2);

/// First and longest wait between two tries to reach systemd.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// The shell pattern of tasks' units.
const PATTERN: &str = "drover-*.service";

/// What became of an operation.
#[derive(Debug)]
pub(crate) enum End {
    /// systemd was reached.
    Connected(Box<Connection>),
    /// Anything else.
    Done(Done),
}

/// systemd, reached.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) systemd: Systemd,
    pub(crate) changes: Changes,
    /// When this run of the manager began.
    pub(crate) began_at: u64,
    /// Everything it has.
    pub(crate) units: Vec<ObservedUnit>,
}

/// Starts operations and reports their ends on one bounded channel.
pub(crate) struct Operations {
    ends: mpsc::Sender<End>,
    starts: Arc<Semaphore>,
    calls: Arc<Semaphore>,
    questions: Arc<Semaphore>,
    manager: Manager,
    /// The newest connection. Stays when it breaks: what is asked of it then fails, and is tried again.
    systemd: Option<Systemd>,
}

impl Operations {
    /// The second half is the driver's.
    pub(crate) fn new(manager: Manager) -> (Self, mpsc::Receiver<End>) {
        let (ends, driver) = mpsc::channel(256);
        let starts = Arc::new(Semaphore::new(STARTS_MAX));
        let calls = Arc::new(Semaphore::new(CALLS_MAX));
        let questions = Arc::new(Semaphore::new(QUESTIONS_MAX));
        (Self { ends, starts, calls, questions, manager, systemd: None }, driver)
    }

    /// Everything from now on goes through this connection.
    pub(crate) fn use_connection(&mut self, systemd: Systemd) {
        self.systemd = Some(systemd);
    }

    /// Begins what the mind wants done.
    ///
    /// `ledger` says whose task it is.
    pub(crate) fn carry_out(&self, effect: Effect, ledger: &Ledger) {
        match effect {
            Effect::Connect => self.connect(),
            Effect::Start { task, plan, reason } => {
                let (app_id, job_id, run_id) = crate::ids_of(ledger.tasks.get(&task).map(|known| &known.spec.owner));
                info!(task_id = %task, app_id, job_id, run_id, unit = plan.name, slice = plan.slice, "starting {task}: {reason}");
                if !plan.unenforced.is_empty() {
                    debug!(task_id = %task, "the kernel here does not enforce its limits on {}", plan.unenforced.join(", "));
                }
                self.start(task, *plan);
            }
            Effect::Stop { task, unit, reason } => {
                match &task {
                    Some(task) => info!(task_id = %task, unit, "stopping {task}: {reason}"),
                    None => info!(unit, "stopping {unit}: {reason}"),
                }
                self.let_go(unit, false);
            }
            Effect::LetGo { unit, has_failed, reason } => {
                debug!(unit, "letting {unit} go: {reason}");
                self.let_go(unit, has_failed);
            }
            Effect::Observe { unit } => self.observe(unit),
            Effect::Account { unit } => self.account(unit),
            Effect::List => self.list(),
            Effect::Investigate { task, unit, invocation, reason } => {
                info!(task_id = %task, unit, "asking the journal about {task}: {reason}");
                self.investigate(task, unit, invocation);
            }
            Effect::Sweep { unit, slice, tasks } => self.sweep(unit, slice, tasks),
        }
    }

    fn systemd(&self) -> Systemd {
        self.systemd.clone().expect("the mind asks nothing of systemd before it is reached")
    }

    fn start(&self, task: TaskId, plan: UnitPlan) {
        let systemd = self.systemd();
        self.run(self.starts.clone(), async move {
            let _counted = metrics::STARTING.hold([]);
            let began = Instant::now();
            let unit = plan.name.clone();
            let outcome = match systemd.start(&plan).await {
                Ok(Started::Job(_)) => StartOutcome::Made,
                Ok(Started::Exists) => {
                    info!(task_id = %task, unit, "a unit of that name is there already; looking whose it is");
                    StartOutcome::Exists
                }
                Err(error) => match error.start_refusal() {
                    Some(refusal) => StartOutcome::Refused(refusal),
                    None => {
                        trouble(&unit, &error);
                        StartOutcome::NoAnswer
                    }
                },
            };
            if outcome == StartOutcome::Made {
                metrics::START.took([], began.elapsed());
            }
            metrics::STARTS.inc([word(&outcome)]);
            End::Done(Done::Started { task, unit, outcome })
        });
    }

    /// A failed unit is reset; stopping any other ends it, or lets it go if it has ended.
    fn let_go(&self, unit: String, has_failed: bool) {
        let systemd = self.systemd();
        self.run(self.calls.clone(), async move {
            let outcome = if has_failed { systemd.reset_failed(&unit).await } else { systemd.stop(&unit).await.map(drop) };
            let outcome = outcome.map_err(|error| trouble(&unit, &error));
            metrics::STOPS.inc([match outcome {
                Ok(()) => "done",
                Err(Trouble::NoSuchUnit) => "gone",
                Err(Trouble::Other) => "failed",
            }]);
            End::Done(Done::Stopped { unit, outcome })
        });
    }

    fn observe(&self, unit: String) {
        let systemd = self.systemd();
        self.run(self.calls.clone(), async move {
            let outcome = observed(&systemd, &unit).await;
            End::Done(Done::Observed { unit, outcome })
        });
    }

    fn account(&self, unit: String) {
        let systemd = self.systemd();
        self.run(self.calls.clone(), async move {
            let usage = counted("account", systemd.usage(&unit).await).unwrap_or_else(|error| {
                debug!(unit, %error, "what it used is not known, ignoring");
                Usage { cpu_nanos: None, mem_peak_bytes: None }
            });
            End::Done(Done::Accounted { unit, usage })
        });
    }

    fn list(&self) {
        let systemd = self.systemd();
        self.run(self.calls.clone(), async move {
            let listed = async {
                systemd.resubscribe().await?;
                systemd.list(PATTERN).await
            };
            let listed = counted("list", listed.await);
            let units = listed.inspect_err(|error| warn!("units cannot be listed, trying again later: {}", chain(error))).ok();
            End::Done(Done::Listed { units })
        });
    }

    /// Asks systemd once more, and then the journal. While PID 1 reads its units anew it says of each that it is removed and
    /// afterwards that it is new; with hundreds of units seconds lie between. Its answer waits until that is over.
    fn investigate(&self, task: TaskId, unit: String, invocation: Option<String>) {
        let (manager, systemd) = (self.manager, self.systemd());
        self.run(self.questions.clone(), async move {
            match observed(&systemd, &unit).await {
                Ok(seen) if !seen.as_ref().is_some_and(|seen| seen.is_start(invocation.as_deref())) => {}
                outcome => return End::Done(Done::Observed { unit, outcome }),
            }
            let name = unit.clone();
            let read = move || journal::evidence(&name, invocation.as_deref(), manager, EVIDENCE_PATIENCE);
            let found = tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
            let evidence = found
                .inspect_err(|error| warn!(task_id = %task, %error, "the journal cannot be asked how {task} ended: {error}"))
                .ok();
            metrics::QUESTIONS.inc([if evidence.is_some() { "answered" } else { "failed" }]);
            End::Done(Done::Investigated { task, unit, evidence })
        });
    }

    fn sweep(&self, unit: String, slice: String, tasks: Vec<TaskId>) {
        let systemd = self.systemd();
        self.run(self.calls.clone(), async move {
            let directories = tasks.iter().map(drover_core::unit::sandbox_directory).collect();
            let are_gone = match counted("sweep", systemd.remove_state_directories(&unit, &slice, directories).await) {
                Ok(()) => {
                    info!(count = tasks.len(), "directories of tasks that ended long ago are removed");
                    true
                }
                Err(error) => {
                    warn!("directories of ended tasks stay, trying again later: {}", chain(&error));
                    false
                }
            };
            End::Done(Done::Swept { tasks, are_gone })
        });
    }

    /// Tries to reach systemd until it is there.
    fn connect(&self) {
        let manager = self.manager;
        self.run(self.calls.clone(), async move {
            let mut wait = RECONNECT.0;
            loop {
                match connect(manager).await {
                    Ok(connection) => return End::Connected(Box::new(connection)),
                    Err(error) => warn!("cannot reach systemd, trying again: {}", chain(&error)),
                }
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RECONNECT.1);
            }
        });
    }

    fn run(&self, gate: Arc<Semaphore>, operation: impl Future<Output = End> + Send + 'static) {
        let ends = self.ends.clone();
        tokio::spawn(async move {
            let turn = gate.acquire_owned().await.expect("the gates are never closed");
            let end = operation.await;
            drop(turn);
            if ends.send(end).await.is_err() {
                debug!("an operation ended after the driver");
            }
        });
    }
}

/// For metrics.
fn word(outcome: &StartOutcome) -> &'static str {
    match outcome {
        StartOutcome::Made => "made",
        StartOutcome::Exists => "exists",
        StartOutcome::Refused(_) => "refused",
        StartOutcome::NoAnswer => "no-answer",
    }
}

/// What a call to systemd came to; an error is counted.
fn counted<T>(call: &'static str, outcome: Result<T, Error>) -> Result<T, Error> {
    if outcome.is_err() {
        metrics::BUS_ERRORS.inc([call]);
    }
    outcome
}

/// A unit as systemd has it now; `None` if it does not.
async fn observed(systemd: &Systemd, unit: &str) -> Result<Option<Box<ObservedUnit>>, Trouble> {
    let outcome = counted("observe", systemd.observe(unit).await.map(|unit| unit.map(Box::new)));
    outcome.map_err(|error| trouble(unit, &error))
}

/// What a failed call means for the mind, told to people on the way.
fn trouble(unit: &str, error: &Error) -> Trouble {
    if error.is_no_such_unit() {
        return Trouble::NoSuchUnit;
    }
    warn!(unit, "{unit}: {}; trying again in a moment", chain(error));
    Trouble::Other
}

/// Subscribes, then lists: what changes meanwhile is among the changes.
async fn connect(manager: Manager) -> Result<Connection, Error> {
    use futures_util::{StreamExt, TryStreamExt};
    let (systemd, changes) = Systemd::connect(manager).await?;
    let began_at = systemd.began_at().await?;
    let listed = systemd.list(PATTERN).await?;
    let names = listed.into_iter().map(|unit| unit.name).filter(|name| is_unit_of_a_task(name));
    let systemd_ref = &systemd;
    let units: Vec<Option<ObservedUnit>> = futures_util::stream::iter(names)
        .map(|name| async move { systemd_ref.observe(&name).await })
        .buffer_unordered(OBSERVED_AT_ONCE)
        .try_collect()
        .await?;
    Ok(Connection { systemd, changes, began_at, units: units.into_iter().flatten().collect() })
}
