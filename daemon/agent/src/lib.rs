//! A drover agent: runs a node's tasks as units of its systemd and tells the leader what becomes of them.
//!
//! It supervises nothing: a task is a unit of PID 1, and the agent may stop, crash or be upgraded at any moment. What it did
//! is in its ledger, what runs is in systemd, what is wanted comes from the leader; start-up and every later moment compare
//! the three the same way ([`drover_core::unit::reconcile`]). Everything is decided by [`drover_core::node`], which touches nothing;
//! this crate brings it what happens and carries out what it wants.
//!
//! Tasks, all started below [`run`] and ended by its token:
//! * the driver (`driver`) owns the mind. Its inputs: the session's channel (64), operations' ends (256), systemd's merged
//!   changes (one entry a unit). When it is slow, the session stops reading and the leader notices.
//! * the session (`session`) keeps the conversation with the leader. It is told statuses over a channel of 64 that the driver
//!   waits for room in, without ceasing to do its other work.
//! * an operation (`operations`) is one call to systemd or one question to the journal; 8 starts at once, 512 others.
//! * a log stream (`logs`) is a blocking reader and a sender, at most 64.

mod config;
mod driver;
mod facts;
mod ledger;
mod logs;
mod metrics;
mod metrics_listener;
mod operations;
mod session;

pub use config::{AgentConfig, Amounts, Limits, MetricsListen};
pub use drover_core::sandbox::Manager;
pub use logs::{to_line, to_query};
pub use metrics::AGENT as METRICS;

use anyhow::Context;
use driver::Driver;
use drover_core::agent::AgentInfo;
use drover_core::ids::AgentId;
use drover_core::task::Owner;
use drover_core::unit::NodeFacts;
use drover_pki::{Credentials, Role};
use drover_systemd::{Systemd, cgroup};
use ledger::LedgerFile;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, info_span, warn};

/// Between two tries to reach systemd at the start.
const RETRY: Duration = Duration::from_secs(1);

/// Runs an agent until `shutdown`; sets `ready` after its first reconciliation with systemd. Ending it ends no task.
///
/// # Errors
/// The node has no identity as an agent, its ledger cannot be read or written, or the kernel does not say which boot this is.
pub async fn run(config: AgentConfig, ready: watch::Sender<bool>, shutdown: CancellationToken) -> anyhow::Result<()> {
    let credentials = Credentials::load(&config.data_dir, Role::Agent).context("this node is no agent of a cluster")?;
    let id = AgentId::new(credentials.identity.id.clone());
    let ledger = LedgerFile::open(&config.data_dir.join("agent"), &id)?;
    let scrapes = metrics_listener::open(&config.metrics_listen).await?;
    let Some(systemd) = find_systemd(config.manager, &shutdown).await else { return Ok(()) };
    let facts = NodeFacts {
        // Known once systemd is reached; nothing is decided before.
        boot: String::new(),
        systemd,
        manager: config.manager,
        task_slice: config.task_slice.clone(),
        state_root: facts::state_root(config.manager, systemd)?,
        enforces: cgroup::enforced_controllers(facts::manager_cgroup(config.manager).as_deref()),
    };
    let info = AgentInfo {
        id,
        host: config.name.clone(),
        boot_id: facts::boot_id().context("the kernel does not tell its boot id")?,
        resources: facts::resources(&config),
        attributes: config.attributes.clone(),
        systemd,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        enforces: facts.enforces.clone(),
        tasks_max: config.limits.tasks,
    };
    // Every line of this agent's driver names it, as the master's lines about it do.
    let span = info_span!("agent", agent_id = %info.id);
    let known = ledger.1.tasks.len();
    info!(agent_id = %info.id, host = info.host, systemd, enforces = ?info.enforces, known, "agent begins");
    metrics::TASKS_MAX.set([], i64::from(config.limits.tasks));
    let ends = shutdown.child_token();
    if let Some(listener) = scrapes {
        tokio::spawn(metrics_listener::run(listener, ends.clone()));
    }
    let session = session::start(credentials, config.masters.clone(), info.clone(), config.limits.message, ends.clone());
    let driver = Driver::new(ledger, facts, info.boot_id, info.host, session, ready, config.limits.log_streams);
    let ended = driver.run(shutdown).instrument(span).await;
    ends.cancel();
    ended
}

/// An error with everything that caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The ids of whose task it is, as masters name them in their journals: `app_id`, `job_id`, `run_id`. Not `job` and
/// `run`: fields of these names are on what the run itself writes, and ask for that.
pub(crate) fn ids_of(owner: Option<&Owner>) -> (Option<&str>, Option<&str>, Option<&str>) {
    match owner {
        Some(Owner::App { app, .. }) => (Some(app.as_str()), None, None),
        Some(Owner::Run { job, run, .. }) => (None, Some(job.as_str()), Some(run.as_str())),
        None => (None, None, None),
    }
}

/// systemd's version, once it can be asked; `None` if that is not wanted any more.
async fn find_systemd(manager: Manager, shutdown: &CancellationToken) -> Option<u32> {
    loop {
        let asked = async {
            let (systemd, _changes) = Systemd::connect(manager).await?;
            systemd.version().await
        };
        match asked.await {
            Ok(version) => return Some(facts::leading_number(&version)),
            Err(error) => warn!("systemd cannot be asked yet: {}", chain(&error)),
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = shutdown.cancelled() => return None,
        }
    }
}
