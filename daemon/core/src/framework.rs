//! Frameworks, offers and what is answered to them. The app layer and the job layer speak these types inside the leader;
//! outside frameworks will speak the same over HTTP.

use crate::ids::{AgentId, FrameworkId, OfferId, Role, TaskId};
use crate::resources::{Allocation, Pools};
use crate::task::TaskSpec;
use serde::{Deserialize, Serialize};

/// A registered framework.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Framework {
    /// Its id.
    pub id: FrameworkId,
    /// The role whose share it draws on.
    pub role: Role,
}

/// Resources of one agent, held out to one framework.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Its id.
    pub id: OfferId,
    /// To whom.
    pub framework: FrameworkId,
    /// Under which role.
    pub role: Role,
    /// Where.
    pub agent: AgentId,
    /// What.
    pub resources: Pools,
    /// How many more tasks the agent takes, whatever they need.
    pub places: u32,
}

/// A task a framework wants on an offer's agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Its new id.
    pub task: TaskId,
    /// Where.
    pub agent: AgentId,
    /// What it takes out of the offer.
    pub allocation: Allocation,
    /// What to run.
    pub spec: TaskSpec,
}

/// A framework's answer to an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Use (part of) it; the rest goes back.
    Accept {
        /// The offer.
        offer: OfferId,
        /// What to launch on it. Never empty.
        launches: Vec<Launch>,
    },
    /// Nothing to do with it.
    Decline {
        /// The offer.
        offer: OfferId,
    },
}
