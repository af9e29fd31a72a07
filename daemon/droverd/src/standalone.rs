//! `droverd standalone`: a whole cluster in one process, for one machine whose PID 1 is systemd. The first start makes the
//! cluster's authority; everything is kept, so the next start goes on. As an ordinary user it runs tasks in that user's own
//! systemd manager.

use anyhow::Context;
use drover_agent::{AgentConfig, Manager};
use drover_master::MasterConfig;
use drover_pki::{Role, directory};
use droverd::config::{Config, host_name};
use std::net::SocketAddr;
use std::path::PathBuf;

/// What can be said on the command line.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Where the cluster's data is kept [default: /var/lib/droverd, or ~/.local/state/drover for an ordinary user].
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Where the HTTP API listens.
    #[arg(long, default_value = "127.0.0.1:7070")]
    api_listen: SocketAddr,
    /// Where the agent of this process reaches its master.
    #[arg(long, default_value = "127.0.0.1:7071")]
    cluster_listen: SocketAddr,
}

/// Makes the cluster if there is none yet, and says how to run it.
pub(crate) fn prepare(options: &Options) -> anyhow::Result<Config> {
    let is_root = nix::unistd::geteuid().is_root();
    let data_dir = match &options.data_dir {
        Some(data_dir) => data_dir.clone(),
        None if is_root => PathBuf::from(droverd::config::DATA_DIR),
        None => user_state_dir()?,
    };
    let name = host_name();
    let advertise = options.cluster_listen.to_string();
    if !directory::exists(&data_dir, Role::Master) {
        directory::init_cluster(&data_dir, &name, &advertise, true)?;
    }
    let mut master = MasterConfig::new(&name, data_dir.clone());
    master.api_listen = options.api_listen;
    master.cluster_listen = options.cluster_listen;
    master.advertise = advertise.clone();
    let mut agent = AgentConfig::new(&name, data_dir, vec![advertise]);
    agent.manager = if is_root { Manager::System } else { Manager::User };
    Ok(Config { master: Some(master), agent: Some(agent) })
}

fn user_state_dir() -> anyhow::Result<PathBuf> {
    let given = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let base = given.or_else(home).context("neither XDG_STATE_HOME nor HOME is set: say --data-dir")?;
    Ok(base.join("drover"))
}
