//! Why something does not run: for each node, each reason.

use super::{ApiVersion, Time};
use serde::{Deserialize, Serialize};

/// Why something runs, or does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Why {
    /// Always `drover/v1`.
    pub api_version: ApiVersion,
    /// What was asked about.
    pub subject: Subject,
    /// Instances, or runs, wanted.
    pub wanted: u32,
    /// Of them up.
    pub running: u32,
    /// What has no place yet.
    #[serde(default)]
    pub waiting: Vec<Waiting>,
    /// The answer in a sentence or two.
    pub summary: String,
}

/// What was asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// What it is.
    pub kind: SubjectKind,
    /// Its id or name.
    pub name: String,
}

/// Kinds of subjects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SubjectKind {
    /// An app.
    App,
    /// A job.
    Job,
    /// A task.
    Task,
}

/// Something that has no place yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// What it needs: `cpus 4, mem 16G, rack unlike r2`.
    pub request: String,
    /// How many alike.
    #[serde(default = "one")]
    pub count: u32,
    /// Since when.
    pub since: Time,
    /// Why it is not even tried, if so: back-off, order of a deployment, no node at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// Every node that was looked at.
    #[serde(default)]
    pub nodes: Vec<NodeRefusals>,
}

fn one() -> u32 {
    1
}

/// Every reason why it does not fit on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRefusals {
    /// Host name.
    pub node: String,
    /// All of them, never empty.
    pub reasons: Vec<Refusal>,
}

/// One reason why something does not fit on a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Refusal {
    /// What it is about, one word: `cpus`, `mem`, `disk`, `gpus`, `ports`, `constraint`, `role`, `unreachable`.
    pub kind: String,
    /// For people, complete in itself: `mem: 16384 MiB needed, 11468 MiB free`.
    pub message: String,
}
