//! What a master is told at start. Filled by the composition root; every default is written once, here.

use drover_core::ids::Role;
use drover_core::time::Millis;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A master's configuration, checked.
#[derive(Debug, Clone)]
pub struct MasterConfig {
    /// Its name, unique among the masters.
    pub name: String,
    /// Holds `master/pki` and `master/raft`.
    pub data_dir: PathBuf,
    /// Where the HTTP API listens.
    pub api_listen: SocketAddr,
    /// Where masters, agents and joining nodes connect.
    pub cluster_listen: SocketAddr,
    /// Under which `host:port` the other nodes reach `cluster_listen`.
    pub advertise: String,
    /// Raft heartbeat.
    pub heartbeat_interval: Duration,
    /// Shortest silence before a follower stands for election; the longest is a third more.
    pub election_timeout: Duration,
    /// Log entries between two snapshots.
    pub snapshot_every: u64,
    /// Silence after which an agent is unreachable.
    pub agent_timeout: Millis,
    /// How often agents and the leader say that they are there.
    pub agent_heartbeat: Millis,
    /// Shares: thousandths per role.
    pub weights_milli: BTreeMap<Role, u64>,
    /// Bounds on what clients may ask for.
    pub limits: Limits,
}

/// Bounds on what clients may ask for. What a client sees at each stands at the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's body; beyond it 413.
    pub body: usize,
    /// Events kept for `Last-Event-ID`; a client further behind gets `resync` and starts anew.
    pub events_buffered: usize,
    /// Event streams at once on one master; beyond it 503.
    pub event_subscribers: usize,
    /// Apps; beyond it a new one is refused with 403.
    pub apps: usize,
    /// Jobs; beyond it a new one is refused with 403.
    pub jobs: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { body: 4 << 20, events_buffered: 10_000, event_subscribers: 1000, apps: 10_000, jobs: 10_000 }
    }
}

impl MasterConfig {
    /// The defaults, for a node called `name`.
    pub fn new(name: &str, data_dir: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            data_dir,
            api_listen: SocketAddr::from(([127, 0, 0, 1], 7070)),
            cluster_listen: SocketAddr::from(([0, 0, 0, 0], 7071)),
            advertise: format!("{name}:7071"),
            heartbeat_interval: Duration::from_millis(250),
            election_timeout: Duration::from_secs(1),
            snapshot_every: 10_000,
            agent_timeout: Millis::from_secs(15),
            agent_heartbeat: Millis::from_secs(3),
            weights_milli: BTreeMap::new(),
            limits: Limits::default(),
        }
    }
}
