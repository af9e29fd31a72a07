//! What an agent is told at start. Filled by the composition root; every default is written once, here.

use drover_core::agent::TASKS_MAX;
use drover_core::ids::Role;
use drover_core::resources::Ports;
use drover_core::sandbox::Manager;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

/// An agent's configuration, checked.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// The node's name: how other machines reach its tasks, and what `hostname` constraints see.
    pub name: String,
    /// Holds `agent/pki` and `agent/ledger`.
    pub data_dir: PathBuf,
    /// Cluster-listener addresses (`host:port`) to look for the leader at first.
    pub masters: Vec<String>,
    /// What constraints look at.
    pub attributes: BTreeMap<String, String>,
    /// What to offer. What is not said is what the machine has (see `facts`).
    pub resources: Amounts,
    /// Parts of `resources` kept for a role.
    pub reserved: BTreeMap<Role, Amounts>,
    /// Which systemd manager runs the tasks.
    pub manager: Manager,
    /// The slice above all tasks.
    pub task_slice: String,
    /// Where scrapes are answered.
    pub metrics_listen: MetricsListen,
    /// Bounds on what this node takes upon itself.
    pub limits: Limits,
}

/// Where an agent answers scrapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsListen {
    /// Nowhere.
    Off,
    /// Where nobody said otherwise; if that address is taken, nowhere.
    Default(SocketAddr),
    /// Here, or the agent does not start.
    At(SocketAddr),
}

/// Bounds on what a node takes upon itself. `docs/limits.md` says what is seen at each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Tasks; the leader places no more here.
    pub tasks: u32,
    /// Log streams at once; the next one stays empty.
    pub log_streams: usize,
    /// Bytes of one message of the leader; beyond it the session ends.
    pub message: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { tasks: TASKS_MAX, log_streams: 64, message: 64 << 20 }
    }
}

/// Amounts of resources, as far as they were said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Thousandths of CPUs.
    pub cpus_milli: Option<u64>,
    /// Bytes of memory.
    pub mem_bytes: Option<u64>,
    /// Bytes of disk.
    pub disk_bytes: Option<u64>,
    /// Whole GPUs.
    pub gpus: Option<u64>,
    /// Host ports.
    pub ports: Option<Ports>,
}

impl AgentConfig {
    /// The defaults, for a node called `name`.
    pub fn new(name: &str, data_dir: PathBuf, masters: Vec<String>) -> Self {
        Self {
            name: name.to_owned(),
            data_dir,
            masters,
            attributes: BTreeMap::new(),
            resources: Amounts::default(),
            reserved: BTreeMap::new(),
            manager: Manager::System,
            task_slice: "drover.slice".to_owned(),
            metrics_listen: MetricsListen::Default(SocketAddr::from(([127, 0, 0, 1], 7072))),
            limits: Limits::default(),
        }
    }
}
