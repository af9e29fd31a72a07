//! The roles as tasks of this process, and what systemd is told of them (sd_notify(3)).

use anyhow::Context;
use droverd::config::Config;
use sd_notify::NotifyState;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

/// How long the roles get to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// The roles under way.
pub(crate) struct Running {
    roles: Mutex<JoinSet<anyhow::Result<()>>>,
    /// One for each role: true once it does its work.
    ready: Vec<watch::Receiver<bool>>,
}

impl Running {
    /// Starts each role. Returns at once.
    pub(crate) fn start(config: Config, shutdown: &CancellationToken) -> Self {
        let mut roles = JoinSet::new();
        let mut ready = Vec::new();
        if let Some(master) = config.master {
            let (tell, told) = watch::channel(false);
            ready.push(told);
            let ended = drover_master::run(master, tell, shutdown.clone());
            roles.spawn(async { ended.await.context("the master cannot go on") });
        }
        if let Some(agent) = config.agent {
            let (tell, told) = watch::channel(false);
            ready.push(told);
            let ended = drover_agent::run(agent, tell, shutdown.clone());
            roles.spawn(async { ended.await.context("the agent cannot go on") });
        }
        Self { roles: Mutex::new(roles), ready }
    }

    /// Until every role does its work, or one ended before it came to that.
    pub(crate) async fn wait_until_ready(&self) -> anyhow::Result<()> {
        let all = async {
            for ready in &self.ready {
                // A role that ended drops its end; what it ended with is told by `first_end`.
                if ready.clone().wait_for(|ready| *ready).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            () = all => Ok(()),
            ended = self.first_end() => ended.and_then(|()| anyhow::bail!("a role ended before it was ready")),
            signal = termination() => signal.and_then(|name| anyhow::bail!("{name} before everything was ready")),
        }
    }

    /// Until a role ends, which none does unless it failed or was told to.
    pub(crate) async fn first_end(&self) -> anyhow::Result<()> {
        match self.roles.lock().await.join_next().await {
            Some(ended) => ended.context("a role panicked")?,
            None => Ok(()),
        }
    }

    /// Until all roles ended after the shutdown was asked for.
    pub(crate) async fn wait_until_stopped(&self) {
        let all = async {
            while let Some(ended) = self.roles.lock().await.join_next().await {
                if let Err(failure) = ended.context("a role panicked").and_then(|ended| ended) {
                    error!("while stopping: {failure:#}");
                }
            }
        };
        if tokio::time::timeout(STOP_TIMEOUT, all).await.is_err() {
            error!("a role did not stop within {STOP_TIMEOUT:?}");
        }
    }
}

/// Until SIGTERM or SIGINT; says which.
pub(crate) async fn termination() -> anyhow::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be waited for")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be waited for")?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}

pub(crate) fn tell_systemd_ready() {
    tell(&[NotifyState::Ready]);
}

pub(crate) fn tell_systemd_stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        debug!(%error, "systemd not notified, ignoring");
    }
}
