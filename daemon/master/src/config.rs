//! What a master is told at start. Filled by the composition root; every default is written once, here.

use drover_core::ids::Role;
use drover_core::state::Bounds;
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
    /// Bounds on what peers and clients may ask for.
    pub limits: Limits,
}

/// Bounds on what peers and clients may ask for. `docs/limits.md` says what is seen at each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's line and headers; beyond it 431.
    pub head: usize,
    /// Headers of a request; beyond it 431.
    pub headers: usize,
    /// Bytes of a request's body; beyond it 413.
    pub body: usize,
    /// From the connection, or the first byte of a request's head, to its last; beyond it the connection is closed.
    pub head_timeout: Duration,
    /// From a request's head to the end of its body; beyond it 408.
    pub body_timeout: Duration,
    /// A connection on which nothing is asked for so long is closed.
    pub idle_timeout: Duration,
    /// A connection whose client takes nothing of an answer for so long is closed.
    pub stall_timeout: Duration,
    /// Connections to the API at once; the next is answered 503 and closed.
    pub connections: usize,
    /// The same, from one address.
    pub connections_per_peer: usize,
    /// Requests being answered at once, streams not counted; beyond it 503.
    pub requests: usize,
    /// Events kept for `Last-Event-ID`; a client further behind gets `resync` and starts anew.
    pub events_buffered: usize,
    /// Event streams at once on one master; beyond it 503.
    pub event_subscribers: usize,
    /// Bytes of events that wait for one subscriber; one that lets them wait for `stall_timeout` is cut off.
    pub event_backlog: usize,
    /// Log streams at once through one master; beyond it 503.
    pub log_streams: usize,
    /// Apps; beyond it a new one is refused with 403.
    pub apps: usize,
    /// Jobs; beyond it a new one is refused with 403.
    pub jobs: usize,
    /// Instances of one app; beyond it 422.
    pub instances: usize,
    /// Instances of all apps together; beyond it 403.
    pub instances_total: usize,
    /// Join tokens that are not used up; beyond it 403.
    pub tokens: usize,
    /// Agents that are admitted; beyond it a new one is not.
    pub agents: usize,
    /// Bytes of one change of the replicated state; beyond it 413.
    pub proposal: usize,
    /// Connections to the cluster listener at once; the next is closed.
    pub cluster_connections: usize,
    /// The same, from one address.
    pub cluster_connections_per_peer: usize,
    /// Bytes of one message of an agent; beyond it its session ends.
    pub agent_message: usize,
    /// What the masters keep of the past, and how many runs a job may have: replicated, the leader's word counts.
    pub bounds: Bounds,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: 64 << 10,
            headers: 100,
            body: 4 << 20,
            head_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(120),
            stall_timeout: Duration::from_secs(30),
            connections: 4096,
            connections_per_peer: 2048,
            requests: 1024,
            events_buffered: 10_000,
            event_subscribers: 1000,
            event_backlog: 1 << 20,
            log_streams: 256,
            apps: 10_000,
            jobs: 10_000,
            instances: 10_000,
            instances_total: 50_000,
            tokens: 1000,
            agents: 5000,
            proposal: 16 << 20,
            cluster_connections: 16_384,
            cluster_connections_per_peer: 1024,
            agent_message: 16 << 20,
            bounds: Bounds::default(),
        }
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
