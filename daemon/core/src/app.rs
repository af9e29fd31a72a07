//! An app: a program kept running in N instances (Marathon's app definition, the part drover honours).

use crate::ids::{AppId, Role};
use crate::resources::Scalars;
use crate::time::{Millis, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

pub use crate::task::Program;

/// A rule about where instances may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Constraint {
    /// `hostname` or an agent's attribute.
    pub field: String,
    /// What must hold for it.
    pub operator: Operator,
    /// The operator's value, as the user gave it.
    pub value: Option<String>,
}

/// Marathon's constraint operators, and `EQUALS` of Chronos, which is `IS` for text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Operator {
    /// At most one instance per value.
    Unique,
    /// All instances share one value.
    Cluster,
    /// Spread evenly over the values.
    GroupBy,
    /// At most N per value.
    MaxPer,
    /// The whole value matches a regular expression.
    Like,
    /// The whole value does not match.
    Unlike,
    /// Equal to the value.
    Is,
}

impl Operator {
    /// All of them, with their wire names.
    pub const ALL: [(&'static str, Operator); 7] = [
        ("UNIQUE", Operator::Unique),
        ("CLUSTER", Operator::Cluster),
        ("GROUP_BY", Operator::GroupBy),
        ("MAX_PER", Operator::MaxPer),
        ("LIKE", Operator::Like),
        ("UNLIKE", Operator::Unlike),
        ("IS", Operator::Is),
    ];

    /// The wire name, `GROUP_BY`.
    pub fn wire(self) -> &'static str {
        Self::ALL.iter().find(|(_, operator)| *operator == self).expect("ALL lists every operator").0
    }
}

/// A port the app wants on its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortDefinition {
    /// The service port; 0 until the master has assigned one.
    pub port: u16,
    /// `tcp`, `udp` or `udp,tcp`.
    pub protocol: String,
    /// Unique within the app.
    pub name: Option<String>,
    /// For service discovery.
    pub labels: BTreeMap<String, String>,
}

/// How long to wait before a failed instance is launched again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// After the first failure.
    pub initial: Millis,
    /// Thousandths: 1150 is a factor of 1.15.
    pub factor_milli: u64,
    /// Never more than this.
    pub max: Millis,
}

/// How many instances stay up, and how many too many may run, while versions change. Thousandths of `instances`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeStrategy {
    /// `minimumHealthCapacity` × 1000.
    pub min_health_milli: u32,
    /// `maximumOverCapacity` × 1000.
    pub max_over_milli: u32,
}

/// What to do with instances whose agent does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum UnreachableStrategy {
    /// Wait for ever.
    Disabled,
    /// Replace, then forget.
    After {
        /// A replacement is launched after this.
        inactive: Millis,
        /// The instance is forgotten after this, and ended should it come back.
        expunge: Millis,
    },
}

/// Whom to end first when there are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum KillSelection {
    /// The newest.
    YoungestFirst,
    /// The oldest.
    OldestFirst,
}

/// An app's definition. Compare with [`App::same_config`], not `==`, to tell a configuration change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// Its path.
    pub id: AppId,
    /// What to run.
    pub program: Program,
    /// Arguments given beside a shell command are refused at the edge, so there is one way to say it.
    pub user: Option<String>,
    /// Wanted instances.
    pub instances: u32,
    /// Per instance.
    pub resources: Scalars,
    /// User's environment; wins over generated variables.
    pub env: BTreeMap<String, String>,
    /// Free text for people and tools.
    pub labels: BTreeMap<String, String>,
    /// Host ports wanted.
    pub ports: Vec<PortDefinition>,
    /// Host ports must equal the service ports.
    pub require_ports: bool,
    /// Where instances may be.
    pub constraints: Vec<Constraint>,
    /// Restart back-off.
    pub backoff: Backoff,
    /// SIGTERM to SIGKILL; `None` is drover's default.
    pub kill_grace: Option<Millis>,
    /// Whom to end first.
    pub kill_selection: KillSelection,
    /// How versions change.
    pub upgrade: UpgradeStrategy,
    /// When an agent is silent.
    pub unreachable: UnreachableStrategy,
    /// Which roles' resources it may use; empty means any it has.
    pub accepted_roles: BTreeSet<Role>,
    /// Its role.
    pub role: Role,
    /// Apps or groups that must be up first, within one deployment. Absolute paths.
    pub dependencies: BTreeSet<String>,
    /// Unit properties asked for (checked: see [`crate::sandbox`]).
    pub properties: BTreeMap<String, String>,
    /// This definition's version.
    pub version: Timestamp,
    /// When `instances` last changed.
    pub last_scaling_at: Timestamp,
    /// When anything else last changed. Instances of an older configuration are replaced.
    pub last_config_change_at: Timestamp,
}

/// SIGTERM to SIGKILL when an app does not say (`taskKillGracePeriodSeconds`).
pub const KILL_GRACE_DEFAULT: Millis = Millis::from_secs(10);

impl App {
    /// An app of which nothing but this is said: Marathon's defaults, one instance. Ports are to be given by the caller.
    pub fn new(id: AppId, program: Program) -> Self {
        Self {
            id,
            program,
            user: None,
            instances: 1,
            resources: Scalars { cpus_milli: 1000, mem_bytes: 128 << 20, disk_bytes: 0, gpus: 0 },
            env: BTreeMap::new(),
            labels: BTreeMap::new(),
            ports: Vec::new(),
            require_ports: false,
            constraints: Vec::new(),
            backoff: Backoff { initial: Millis::from_secs(1), factor_milli: 1150, max: Millis::from_secs(300) },
            kill_grace: None,
            kill_selection: KillSelection::YoungestFirst,
            upgrade: UpgradeStrategy { min_health_milli: 1000, max_over_milli: 1000 },
            unreachable: UnreachableStrategy::After { inactive: Millis(0), expunge: Millis(0) },
            accepted_roles: BTreeSet::new(),
            role: Role::any(),
            dependencies: BTreeSet::new(),
            properties: BTreeMap::new(),
            version: Timestamp::default(),
            last_scaling_at: Timestamp::default(),
            last_config_change_at: Timestamp::default(),
        }
    }

    /// Whether `other` differs at most in instances and version information.
    pub fn same_config(&self, other: &App) -> bool {
        let mut twin = other.clone();
        twin.instances = self.instances;
        twin.version = self.version;
        twin.last_scaling_at = self.last_scaling_at;
        twin.last_config_change_at = self.last_config_change_at;
        *self == twin
    }
}

/// What is remembered of an app's failures, for back-off. Facts only; the delay is computed (see [`crate::scaling`]).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    /// In a row, of this configuration.
    pub count: u32,
    /// The last one.
    pub last_at: Timestamp,
}
