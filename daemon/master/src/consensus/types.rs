//! The types openraft is told about. Nothing outside this module's parent sees them.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use drover_core::state::{ClusterVersion, Refusal, TooNew, check_known};
use openraft::EntryPayload;
use openraft::impls::OneshotResponder;
use serde::{Deserialize, Serialize};

use super::batch::Batch;

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
    /// The cluster's when it was written; the commands are of it or of an earlier one.
    pub(super) version: u32,
    /// Shared, because the log, each replication stream and the state machine hold the same entry.
    #[serde(rename = "commands")]
    pub(super) batch: Arc<Batch>,
    /// Whether a log was asked to take it. From then on it may be applied, whoever leads.
    #[serde(skip)]
    pub(super) is_appended: Arc<AtomicBool>,
}

impl Proposal {
    pub(super) fn new(version: ClusterVersion, batch: Batch) -> Self {
        Self { version: version.0, batch: Arc::new(batch), is_appended: Arc::default() }
    }
}

/// What became of the commands of one entry, in their order.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub(super) results: Vec<Result<(), Refusal>>,
}

/// Whether this build can read what an entry holds.
///
/// One of a later version may look as if it could be read, with less in it than was written. So it must not be kept either.
pub(super) fn check_entry(entry: &Entry) -> Result<(), TooNew> {
    match &entry.payload {
        EntryPayload::Normal(proposal) => check_known(proposal.version),
        EntryPayload::Blank | EntryPayload::Membership(_) => Ok(()),
    }
}

/// Of an entry, or a message with entries, that could not be read: whether one of them is of a later version.
pub(super) fn too_new(bytes: &[u8]) -> Option<TooNew> {
    let newest = serde_json::from_slice(bytes).ok().as_ref().and_then(newest_version);
    newest.and_then(|newest| check_known(newest).err())
}

/// The newest version among the proposals in some JSON whose other shapes may be unknown.
fn newest_version(value: &serde_json::Value) -> Option<u32> {
    use serde_json::Value;
    let own = value.pointer("/payload/Normal/version").and_then(Value::as_u64).and_then(|version| u32::try_from(version).ok());
    let entries = value.get("entries").and_then(Value::as_array).into_iter().flatten();
    own.into_iter().chain(entries.filter_map(newest_version)).max()
}
