//! What the driver has done for it: calls to systemd and questions to the journal, each a task of its own that ends in one
//! [`Done`]. None of them touches the driver's state.

use crate::metrics;
use drover_core::ids::TaskId;
use drover_core::sandbox::Manager;
use drover_core::task::Usage;
use drover_core::unit::{Evidence, ObservedUnit, StartRefusal, UnitPlan, is_unit_of_a_task};
use drover_systemd::{Changes, Error, ListedUnit, Started, Systemd, journal};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};
use tracing::{debug, warn};

/// Starts under way at once: more only add latency, PID 1 takes them one by one.
pub(crate) const STARTS_MAX: usize = 8;

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
pub(crate) enum Done {
    /// Of a start.
    Started { task: TaskId, unit: String, outcome: StartOutcome },
    /// A stop, or letting go of an ended unit.
    Stopped { unit: String, outcome: Result<(), Error> },
    /// One unit was looked at; `None` when it is not there.
    Observed { unit: String, outcome: Result<Option<Box<ObservedUnit>>, Error> },
    /// What an ended unit had used.
    Accounted { unit: String, outcome: Result<Usage, Error> },
    /// All units were listed.
    Listed { outcome: Result<Vec<ListedUnit>, Error> },
    /// The journal was asked.
    Investigated { task: TaskId, unit: String, outcome: std::io::Result<Evidence> },
    /// Directories of forgotten tasks are gone, or could not be removed.
    Swept { tasks: Vec<TaskId>, outcome: Result<(), Error> },
    /// systemd was reached.
    Connected(Box<Connection>),
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

/// Of a start.
#[derive(Debug)]
pub(crate) enum StartOutcome {
    /// systemd took it.
    Made,
    /// The name was taken.
    Exists,
    /// It said no.
    Refused(StartRefusal),
    /// It did not say.
    NoAnswer(Error),
}

impl StartOutcome {
    /// For metrics.
    fn word(&self) -> &'static str {
        match self {
            Self::Made => "made",
            Self::Exists => "exists",
            Self::Refused(_) => "refused",
            Self::NoAnswer(_) => "no-answer",
        }
    }
}

fn count_stop(outcome: &Result<(), Error>) {
    let word = match outcome {
        Ok(()) => "done",
        Err(error) if error.is_no_such_unit() => "gone",
        Err(_) => "failed",
    };
    metrics::STOPS.inc([word]);
}

/// What a call to systemd came to; an error is counted.
fn counted<T>(call: &'static str, outcome: Result<T, Error>) -> Result<T, Error> {
    if outcome.is_err() {
        metrics::BUS_ERRORS.inc([call]);
    }
    outcome
}

/// Starts operations and reports their ends on one bounded channel.
#[derive(Clone)]
pub(crate) struct Operations {
    done: mpsc::Sender<Done>,
    starts: Arc<Semaphore>,
    calls: Arc<Semaphore>,
    questions: Arc<Semaphore>,
    manager: Manager,
}

impl Operations {
    /// The second half is the driver's.
    pub(crate) fn new(manager: Manager) -> (Self, mpsc::Receiver<Done>) {
        let (done, ends) = mpsc::channel(256);
        let starts = Arc::new(Semaphore::new(STARTS_MAX));
        let calls = Arc::new(Semaphore::new(CALLS_MAX));
        let questions = Arc::new(Semaphore::new(QUESTIONS_MAX));
        (Self { done, starts, calls, questions, manager }, ends)
    }

    pub(crate) fn start(&self, systemd: Systemd, task: TaskId, plan: UnitPlan) {
        let unit = plan.name.clone();
        self.run(self.starts.clone(), async move {
            let _counted = metrics::STARTING.hold([]);
            let began = Instant::now();
            let outcome = match systemd.start(&plan).await {
                Ok(Started::Job(_)) => StartOutcome::Made,
                Ok(Started::Exists) => StartOutcome::Exists,
                Err(error) => match error.start_refusal() {
                    Some(refusal) => StartOutcome::Refused(refusal),
                    None => StartOutcome::NoAnswer(error),
                },
            };
            if matches!(outcome, StartOutcome::Made) {
                metrics::START.took([], began.elapsed());
            }
            metrics::STARTS.inc([outcome.word()]);
            Done::Started { task, unit, outcome }
        });
    }

    pub(crate) fn stop(&self, systemd: Systemd, unit: String) {
        self.run(self.calls.clone(), async move {
            let outcome = systemd.stop(&unit).await.map(drop);
            count_stop(&outcome);
            Done::Stopped { unit, outcome }
        });
    }

    pub(crate) fn let_go(&self, systemd: Systemd, unit: String, has_failed: bool) {
        self.run(self.calls.clone(), async move {
            let outcome = if has_failed { systemd.reset_failed(&unit).await } else { systemd.stop(&unit).await.map(drop) };
            count_stop(&outcome);
            Done::Stopped { unit, outcome }
        });
    }

    pub(crate) fn observe(&self, systemd: Systemd, unit: String) {
        self.run(self.calls.clone(), async move {
            let outcome = counted("observe", systemd.observe(&unit).await.map(|unit| unit.map(Box::new)));
            Done::Observed { unit, outcome }
        });
    }

    pub(crate) fn account(&self, systemd: Systemd, unit: String) {
        self.run(self.calls.clone(), async move {
            let outcome = counted("account", systemd.usage(&unit).await);
            Done::Accounted { unit, outcome }
        });
    }

    pub(crate) fn list(&self, systemd: Systemd) {
        self.run(self.calls.clone(), async move {
            let outcome = async {
                systemd.resubscribe().await?;
                systemd.list(PATTERN).await
            };
            Done::Listed { outcome: counted("list", outcome.await) }
        });
    }

    pub(crate) fn investigate(&self, task: TaskId, unit: String, invocation: Option<String>) {
        let manager = self.manager;
        self.run(self.questions.clone(), async move {
            let name = unit.clone();
            let read = move || journal::evidence(&name, invocation.as_deref(), manager, EVIDENCE_PATIENCE);
            let outcome = tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
            metrics::QUESTIONS.inc([if outcome.is_ok() { "answered" } else { "failed" }]);
            Done::Investigated { task, unit, outcome }
        });
    }

    pub(crate) fn sweep(&self, systemd: Systemd, unit: String, slice: String, tasks: Vec<TaskId>) {
        self.run(self.calls.clone(), async move {
            let directories = tasks.iter().map(drover_core::unit::sandbox_directory).collect();
            let outcome = counted("sweep", systemd.remove_state_directories(&unit, &slice, directories).await);
            Done::Swept { tasks, outcome }
        });
    }

    /// Tries to reach systemd until it is there.
    pub(crate) fn connect(&self) {
        let manager = self.manager;
        self.run(self.calls.clone(), async move {
            let mut wait = RECONNECT.0;
            loop {
                match connect(manager).await {
                    Ok(connection) => return Done::Connected(Box::new(connection)),
                    Err(error) => warn!("cannot reach systemd, trying again: {}", crate::chain(&error)),
                }
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RECONNECT.1);
            }
        });
    }

    fn run(&self, gate: Arc<Semaphore>, operation: impl Future<Output = Done> + Send + 'static) {
        let done = self.done.clone();
        tokio::spawn(async move {
            let turn = gate.acquire_owned().await.expect("the gates are never closed");
            let end = operation.await;
            drop(turn);
            if done.send(end).await.is_err() {
                debug!("an operation ended after the driver");
            }
        });
    }
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
