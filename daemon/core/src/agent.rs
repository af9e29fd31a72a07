//! An agent: a machine that runs tasks.

use crate::ids::{AgentId, Role};
use crate::resources::{Allocation, Pools, Ports, Scalars};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What an agent says of itself when it connects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentInfo {
    /// Its id, from its certificate.
    pub id: AgentId,
    /// Host name under which other machines reach its tasks.
    pub host: String,
    /// Kernel boot id: tells a reboot from a pause.
    pub boot_id: String,
    /// Everything it offers, per role it is reserved for.
    pub resources: Pools,
    /// What constraints look at. Text, as configured.
    pub attributes: BTreeMap<String, String>,
    /// systemd's version, `252`.
    pub systemd: u32,
    /// drover's version on it.
    pub version: String,
    /// cgroup controllers that the kernel really enforces there (`cpu`, `memory`, `pids`, `io`, …).
    pub enforces: BTreeSet<String>,
    /// How many tasks it takes at most. systemd gets slower with every unit.
    #[serde(default = "tasks_max_default")]
    pub tasks_max: u32,
}

/// Tasks of an agent that was not told otherwise: daemon-reload and every start stay short with so many units.
pub const TASKS_MAX: u32 = 1500;

fn tasks_max_default() -> u32 {
    TASKS_MAX
}

/// Whether an agent can be spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reachability {
    /// It answers.
    Up,
    /// Silent since.
    Unreachable(Timestamp),
}

/// An admitted agent as the masters know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// What it said last.
    pub info: AgentInfo,
    /// Whether it answers.
    pub reachability: Reachability,
    /// Version of what it must run: raised by each change of its assignment, never lowered.
    pub generation: u64,
    /// First admitted at.
    pub admitted_at: Timestamp,
}

impl Agent {
    /// Whether it answers.
    pub fn is_up(&self) -> bool {
        self.reachability == Reachability::Up
    }

    /// How many more tasks it takes, beside `tasks`.
    pub fn places(&self, tasks: usize) -> u32 {
        self.info.tasks_max.saturating_sub(u32::try_from(tasks).unwrap_or(u32::MAX))
    }

    /// What is left once `held` is taken away.
    pub fn free<'a>(&self, held: impl IntoIterator<Item = &'a Allocation>) -> Pools {
        let mut free = self.info.resources.clone();
        for allocation in held {
            free.subtract(allocation);
        }
        free
    }

    /// The value constraints compare: `hostname` (or `@hostname`), else an attribute.
    pub fn attribute(&self, field: &str) -> Option<&str> {
        match field {
            "hostname" | "@hostname" => Some(&self.info.host),
            "@region" => self.info.attributes.get("region").map(String::as_str),
            "@zone" => self.info.attributes.get("zone").map(String::as_str),
            _ => self.info.attributes.get(field).map(String::as_str),
        }
    }
}

/// Pools with nothing reserved.
pub fn unreserved(scalars: Scalars, ports: Ports) -> Pools {
    Pools { scalars: [(Role::any(), scalars)].into(), ports: [(Role::any(), ports)].into() }
}
