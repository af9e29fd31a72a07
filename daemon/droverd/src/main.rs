//! The drover daemon. Its whole life: read what to do, start the roles, tell systemd, wait, stop in reverse.

mod logging;
mod standalone;
mod supervise;

use anyhow::Context;
use clap::{Parser, Subcommand};
use droverd::config::{Config, ConfigError};
use std::path::PathBuf;
use std::process::ExitCode;
use tokio_util::sync::CancellationToken;
use tracing::info;

/// Exit status for a command line or configuration that cannot be used (sysexits.h's EX_CONFIG).
const EXIT_CONFIG: u8 = 78;

/// The drover daemon: a master, an agent, or both.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
struct Arguments {
    /// The configuration file.
    #[arg(long, global = true, default_value = "/etc/drover/drover.toml")]
    config: PathBuf,
    /// Check the configuration, say everything that is wrong with it, and exit.
    #[arg(long)]
    check_config: bool,
    /// Which part to run; without it, every role that the configuration has.
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Debug, Clone, Subcommand)]
enum Part {
    /// Run the master of the configuration only.
    Master,
    /// Run the agent of the configuration only.
    Agent,
    /// Run a master and an agent in this process, for a cluster of one machine. Needs no configuration.
    Standalone(standalone::Options),
}

fn main() -> ExitCode {
    drover_telemetry::begin();
    let arguments = Arguments::parse();
    logging::start();
    drover_pki::install_crypto_provider();
    let roles = match resolve(&arguments) {
        Ok(roles) => roles,
        Err(error) => return refuse(&error),
    };
    if arguments.check_config {
        println!("{} is valid", arguments.config.display());
        return ExitCode::SUCCESS;
    }
    match tokio::runtime::Runtime::new().context("the runtime cannot start").and_then(|runtime| runtime.block_on(run(roles))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What to run.
fn resolve(arguments: &Arguments) -> anyhow::Result<Config> {
    if let Some(Part::Standalone(options)) = &arguments.part {
        return standalone::prepare(options);
    }
    let mut roles = Config::load(&arguments.config)?;
    match arguments.part {
        Some(Part::Master) => roles.agent = None,
        Some(Part::Agent) => roles.master = None,
        Some(Part::Standalone(_)) | None => {}
    }
    if roles.master.is_none() && roles.agent.is_none() {
        anyhow::bail!("{} does not have the role that was asked for", arguments.config.display());
    }
    Ok(roles)
}

/// Runs the roles until one fails, or until SIGTERM or SIGINT. Stopping touches no task.
async fn run(roles: Config) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    let running = supervise::Running::start(roles, &shutdown);
    running.wait_until_ready().await?;
    supervise::tell_systemd_ready();
    let ended = tokio::select! {
        ended = running.first_end() => ended,
        signal = supervise::termination() => signal.map(|name| info!("{name}: stopping; tasks go on")),
    };
    supervise::tell_systemd_stopping();
    shutdown.cancel();
    running.wait_until_stopped().await;
    ended
}

/// Says everything that is wrong, a line each.
fn refuse(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    if let Some(ConfigError::Faulty { faults, .. }) = error.downcast_ref() {
        for fault in faults {
            eprintln!("  {}: {}", fault.path, fault.why);
        }
    }
    ExitCode::from(EXIT_CONFIG)
}
