//! What happened, told by `apply` in the order it happened. Dialects of the API render it in their own words.

use crate::agent::Reachability;
use crate::app::App;
use crate::deployment::Deployment;
use crate::ids::{AgentId, AppId, JobName};
use crate::job::Run;
use crate::task::Task;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, by the clock of who proposed it.
    pub at: Timestamp,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventKind {
    /// An app was defined or redefined.
    AppChanged(Box<App>),
    /// An app was removed.
    AppRemoved(AppId),
    /// A deployment began.
    DeploymentStarted(Box<Deployment>),
    /// Its current step (still counted by `current`) is complete.
    DeploymentStepSucceeded(Box<Deployment>),
    /// Its last step is complete.
    DeploymentSucceeded(Box<Deployment>),
    /// It was cancelled.
    DeploymentFailed(Box<Deployment>),
    /// A task was placed, told to end, or its state changed.
    TaskChanged(Box<Task>),
    /// An agent joined, came back, fell silent or left.
    AgentChanged {
        /// Which.
        agent: AgentId,
        /// Its host name.
        host: String,
        /// `None` once it is gone.
        reachability: Option<Reachability>,
    },
    /// A job was defined or redefined.
    JobChanged(JobName),
    /// A job was removed.
    JobRemoved(JobName),
    /// A run was queued, placed, ended, retried or finished.
    RunChanged(Box<Run>),
    /// What the masters write is of a later version from now on.
    VersionRaised(u32),
}
