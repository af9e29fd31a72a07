//! The cluster as a whole: its status, its nodes, its masters, and the tokens that let more of them in.

use super::{ApiVersion, Time};
use drover_core::{agent, resources};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The cluster at a glance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Always `drover/v1`.
    pub api_version: ApiVersion,
    /// The cluster's id.
    pub cluster: String,
    /// Who leads, as far as the answering master knows.
    pub leader: Option<Leader>,
    /// Raft term.
    pub term: u64,
    /// The version of what the masters write; 0 if the answering master is too old to say.
    #[serde(default)]
    pub version: u32,
    /// All of them.
    pub masters: Vec<Master>,
    /// How many agents there are.
    pub agents: AgentCounts,
    /// What up agents have and what of it tasks hold.
    #[serde(default)]
    pub capacity: Capacity,
    /// Apps.
    pub apps: AppCounts,
    /// Jobs.
    pub jobs: JobCounts,
    /// Tasks.
    pub tasks: TaskCounts,
    /// What an operator should look at, worst first.
    #[serde(default)]
    pub warnings: Vec<Warning>,
}

/// The leading master.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// Its name.
    pub name: String,
    /// Its cluster listener.
    pub address: String,
}

/// A master.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Master {
    /// Its Raft node id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Its cluster listener.
    pub address: String,
    /// What it does in consensus.
    pub role: MasterRole,
    /// Log entries it is behind; known of the others by the leader only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
    /// Milliseconds since it last answered the leader; known by the leader only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_ago_ms: Option<u64>,
    /// The newest version of what masters write that it can read; of the others known by the leader only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub knows: Option<u32>,
    /// The release of drover that it runs; of the others known by the leader only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
}

/// What a master does in consensus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MasterRole {
    /// Decides.
    Leader,
    /// Votes.
    Follower,
    /// Catches up, and has no vote yet.
    Learner,
}

/// How many agents there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentCounts {
    /// That answer.
    pub up: u32,
    /// That do not.
    pub unreachable: u32,
}

/// What there is and what of it is taken.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Capacity {
    /// What there is.
    pub total: Resources,
    /// What tasks hold.
    pub used: Resources,
}

/// How many apps there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppCounts {
    /// All.
    pub total: u32,
    /// With every wanted instance up, and no deployment.
    pub healthy: u32,
    /// That a deployment touches.
    pub deploying: u32,
    /// Some that are not healthy, at most ten.
    #[serde(default)]
    pub unsettled: Vec<AppProgress>,
}

/// How far an app is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppProgress {
    /// The app.
    pub id: String,
    /// Instances up.
    pub running: u32,
    /// Instances wanted.
    pub instances: u32,
    /// Whether a deployment touches it.
    pub deploying: bool,
}

/// How many jobs there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobCounts {
    /// All.
    pub total: u32,
    /// Whose last run failed.
    #[serde(default)]
    pub failing: u32,
    /// The earliest slot to come.
    pub next: Option<NextRun>,
}

/// A slot to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextRun {
    /// Of which job.
    pub job: String,
    /// When.
    pub at: Time,
}

/// How many tasks there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCounts {
    /// Up.
    pub running: u32,
    /// Coming.
    pub staging: u32,
}

/// Something an operator should look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// `/batch/ml waits 12min for memory`.
    pub message: String,
    /// A command that tells more, `drover why /batch/ml`.
    #[serde(rename = "try", default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// Amounts of resources.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// CPUs.
    pub cpus: f64,
    /// Bytes of memory.
    pub mem_bytes: u64,
    /// Bytes of disk.
    pub disk_bytes: u64,
    /// GPUs.
    pub gpus: u64,
    /// Port ranges, `31000-32000`, or single ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
}

impl From<resources::Scalars> for Resources {
    fn from(scalars: resources::Scalars) -> Self {
        Self {
            // Exact up to 2^53 thousandths of a CPU.
            cpus: scalars.cpus_milli as f64 / 1000.0,
            mem_bytes: scalars.mem_bytes,
            disk_bytes: scalars.disk_bytes,
            gpus: scalars.gpus,
            ports: Vec::new(),
        }
    }
}

impl Resources {
    /// The same with these ports.
    #[must_use]
    pub fn with_ports(mut self, ports: &resources::Ports) -> Self {
        let range = |(low, high): &(u16, u16)| if low == high { low.to_string() } else { format!("{low}-{high}") };
        self.ports = ports.ranges().iter().map(range).collect();
        self
    }
}

/// The machines that run tasks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Nodes {
    /// Always `drover/v1`.
    pub api_version: ApiVersion,
    /// By name.
    pub nodes: Vec<Node>,
}

/// A machine that runs tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// The agent's id.
    pub id: String,
    /// Host name.
    pub name: String,
    /// Whether it answers.
    pub state: NodeState,
    /// Since when it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable_since: Option<Time>,
    /// Everything it offers.
    pub resources: Resources,
    /// What tasks hold of it.
    pub used: Resources,
    /// Parts of `resources` kept for a role.
    #[serde(default)]
    pub reserved: BTreeMap<String, Resources>,
    /// What constraints look at.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// Tasks that are, or may be, there.
    pub tasks: u32,
    /// systemd's version.
    pub systemd: u32,
    /// drover's version.
    #[serde(default)]
    pub version: String,
    /// cgroup controllers that the kernel enforces there.
    #[serde(default)]
    pub enforces: Vec<String>,
    /// Kernel boot id.
    pub boot_id: String,
    /// Milliseconds since its last word; `None` if this leader has not heard of it.
    pub seen_ago_ms: Option<u64>,
}

/// Whether a machine answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// It does.
    Up,
    /// It does not; may come back.
    Unreachable,
    /// An operator said that it will not come back.
    Gone,
}

impl From<agent::Reachability> for NodeState {
    fn from(reachability: agent::Reachability) -> Self {
        match reachability {
            agent::Reachability::Up => Self::Up,
            agent::Reachability::Unreachable(_) => Self::Unreachable,
        }
    }
}

/// The masters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Masters {
    /// Always `drover/v1`.
    pub api_version: ApiVersion,
    /// Raft term.
    pub term: u64,
    /// The version of what the masters write; 0 if the answering master is too old to say.
    #[serde(default)]
    pub version: u32,
    /// By name.
    pub masters: Vec<Master>,
}

/// Body of a request to raise the cluster's version. May be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RaiseRequest {
    /// To which one; `None` means the newest that a master knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u32>,
}

/// What one master holds. Masters that have applied the same entries hold the same state, so the digests of two masters that
/// name the same index are equal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldState {
    /// Always `drover/v1`.
    pub api_version: ApiVersion,
    /// Whose state it is.
    pub master: String,
    /// Raft term.
    pub term: u64,
    /// Index of the last log entry in it.
    pub applied: u64,
    /// SHA-256 of the state, in hex.
    pub digest: String,
}

/// Body of a request for a join token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenRequest {
    /// What the joining node will be.
    pub role: NodeRole,
    /// How long it is good for.
    pub ttl_seconds: u64,
    /// How often.
    pub uses: u32,
}

/// What a node is in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeRole {
    /// Takes part in consensus.
    Master,
    /// Runs tasks.
    Agent,
}

/// A join token: shown once, and stored as a hash only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// Always `drover/v1`.
    pub api_version: ApiVersion,
    /// One line, `drover1.…`.
    pub token: String,
    /// Until when.
    pub expires_at: Time,
}
