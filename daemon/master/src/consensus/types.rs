//! The types openraft is told about. Nothing outside this module's parent sees them.

use std::sync::Arc;

use drover_core::state::{Command, Refusal, STATE_VERSION};
use openraft::impls::OneshotResponder;
use serde::{Deserialize, Serialize};

openraft::declare_raft_types!(
    /// drover's choice of types.
    pub(super) Types:
        D = Proposal,
        R = Outcome,
        NodeId = u64,
        Node = MasterNode,
        Entry = openraft::Entry<Types>,
        SnapshotData = super::snapshot::SnapshotFile,
        Responder = OneshotResponder<Types>,
        AsyncRuntime = openraft::TokioRuntime,
);

pub(super) type Raft = openraft::Raft<Types>;
pub(super) type Entry = openraft::Entry<Types>;
pub(super) type LogId = openraft::LogId<u64>;
pub(super) type Vote = openraft::Vote<u64>;
pub(super) type StorageError = openraft::StorageError<u64>;
pub(super) type SnapshotMeta = openraft::SnapshotMeta<u64, MasterNode>;
pub(super) type StoredMembership = openraft::StoredMembership<u64, MasterNode>;
pub(super) type Fatal = openraft::error::Fatal<u64>;

/// What the membership says of a master.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MasterNode {
    /// Its name.
    pub(super) name: String,
    /// Where its cluster listener is reached, `host:port`.
    pub(super) address: String,
}

/// One entry of the log: commands that are applied one after the other and answered one by one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Proposal {
    /// The [`STATE_VERSION`] of the proposer.
    pub(super) version: u32,
    /// Shared, because the log, each replication stream and the state machine hold the same entry.
    pub(super) commands: Arc<Vec<Command>>,
}

impl Proposal {
    pub(super) fn new(commands: Vec<Command>) -> Self {
        Self { version: STATE_VERSION, commands: Arc::new(commands) }
    }
}

/// What became of the commands of one entry, in their order.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub(super) results: Vec<Result<(), Refusal>>,
}
