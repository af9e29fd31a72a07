//! openraft's state machine: applies entries to the replicated state, tells what happened, makes snapshots.
//!
//! The state is behind a lock that `apply` takes per entry and readers take for as long as they look. It is in
//! memory only; what makes it last are the log and the newest snapshot.

use std::io;
use std::sync::{Arc, RwLock, RwLockReadGuard};

use drover_core::state::{ClusterState, check_known};
use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, ErrorSubject, ErrorVerb, OptionalSend, RaftSnapshotBuilder, StorageIOError};
use tokio::sync::watch;

use super::events::EventLog;
use super::files::StoreError;
use super::snapshot::{Content, SnapshotDir, SnapshotFile};
use super::types::{Entry, LogId, Outcome, Proposal, SnapshotMeta, StorageError, StoredMembership, Types};

/// Entries applied before others on the same thread get a turn.
const ENTRIES_PER_TURN: usize = 32;

type Snapshot = openraft::Snapshot<Types>;

/// What readers share with the state machine.
#[derive(Debug)]
pub(super) struct Shared {
    state: RwLock<ClusterState>,
    pub(super) events: EventLog,
    /// The index of the last entry applied. Moves only while the state is locked, so whoever looks at both sees what fits.
    pub(super) applied: watch::Sender<u64>,
}

impl Shared {
    pub(super) fn read(&self) -> RwLockReadGuard<'_, ClusterState> {
        self.state.read().expect("apply is total: it does not panic")
    }

    /// The state, and the index of the last entry in it.
    pub(super) fn copy(&self) -> (u64, ClusterState) {
        let state = self.read();
        (*self.applied.borrow(), state.clone())
    }
}

/// The state machine. openraft's worker owns it.
pub(super) struct Machine {
    shared: Arc<Shared>,
    snapshots: SnapshotDir,
    applied: Option<LogId>,
    membership: StoredMembership,
}

impl Machine {
    /// Starts from a snapshot, or from nothing.
    pub(super) fn new(snapshots: SnapshotDir, newest: Option<Content>, events_max: usize) -> (Self, Arc<Shared>) {
        let (meta, state) = newest.map(|content| (content.meta, content.state)).unwrap_or_default();
        let index = meta.last_log_id.map_or(0, |last| last.index);
        let shared = Arc::new(Shared {
            state: RwLock::new(state),
            events: EventLog::new(events_max, index),
            applied: watch::Sender::new(index),
        });
        (Self { shared: shared.clone(), snapshots, applied: meta.last_log_id, membership: meta.last_membership }, shared)
    }

    fn apply_entry(&mut self, entry: Entry) -> Result<Outcome, StorageError> {
        let index = entry.log_id.index;
        let outcome = match entry.payload {
            EntryPayload::Blank => self.pass(index),
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                self.pass(index)
            }
            EntryPayload::Normal(proposal) => self.apply_proposal(entry.log_id, &proposal)?,
        };
        self.applied = Some(entry.log_id);
        Ok(outcome)
    }

    /// An entry that does nothing to the state.
    fn pass(&self, index: u64) -> Outcome {
        let _state = self.shared.state.write().expect("apply is total: it does not panic");
        self.shared.applied.send_replace(index);
        Outcome::default()
    }

    fn apply_proposal(&mut self, log_id: LogId, proposal: &Proposal) -> Result<Outcome, StorageError> {
        // Who cannot read what comes behind this entry stops here, and knows nothing of it.
        let version = self.shared.read().version_after(proposal.batch.commands());
        check_known(version.0.max(proposal.version)).map_err(|too_new| {
            let why = io::Error::other(format!("the log cannot be followed beyond entry {}: {too_new}", log_id.index - 1));
            StorageError::from(StorageIOError::apply(log_id, &why))
        })?;
        let mut events = Vec::new();
        let mut results = Vec::with_capacity(proposal.batch.commands().len());
        let mut state = self.shared.state.write().expect("apply is total: it does not panic");
        for command in proposal.batch.commands() {
            let applied = state.apply(command);
            events.extend(applied.events);
            results.push(applied.result);
        }
        self.shared.events.publish(log_id.index, events);
        self.shared.applied.send_replace(log_id.index);
        drop(state);
        Ok(Outcome { results })
    }
}

fn newest(snapshots: &SnapshotDir) -> Result<Option<Snapshot>, StorageError> {
    let newest = snapshots.newest().map_err(snapshot_error(ErrorVerb::Read))?;
    Ok(newest.map(|(meta, file)| Snapshot { meta, snapshot: Box::new(file) }))
}

fn snapshot_error(verb: ErrorVerb) -> impl FnOnce(StoreError) -> StorageError {
    move |error| StorageIOError::new(ErrorSubject::Snapshot(None), verb, &io::Error::from(error)).into()
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcome>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut outcomes = Vec::new();
        for (at, entry) in entries.into_iter().enumerate() {
            outcomes.push(self.apply_entry(entry)?);
            if at % ENTRIES_PER_TURN == ENTRIES_PER_TURN - 1 {
                tokio::task::yield_now().await;
            }
        }
        Ok(outcomes)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            state: self.shared.read().clone(),
            meta: SnapshotMeta {
                last_log_id: self.applied,
                last_membership: self.membership.clone(),
                snapshot_id: self.applied.map_or_else(|| "empty".to_owned(), |applied| applied.to_string()),
            },
            snapshots: self.snapshots.clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotFile>, StorageError> {
        self.snapshots.incoming().map(Box::new).map_err(snapshot_error(ErrorVerb::Write))
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Box<SnapshotFile>) -> Result<(), StorageError> {
        let snapshots = self.snapshots.clone();
        let installed = tokio::task::spawn_blocking(move || snapshots.install(*snapshot)).await;
        let installed = installed.map_err(|error| StorageIOError::write_snapshot(Some(meta.signature()), &error))?;
        let Content { meta: found, state } = installed.map_err(snapshot_error(ErrorVerb::Write))?;
        if found.last_log_id != meta.last_log_id {
            let why = io::Error::other("the snapshot received is not the one announced");
            return Err(StorageIOError::write_snapshot(Some(meta.signature()), &why).into());
        }
        let index = found.last_log_id.map_or(0, |last| last.index);
        self.applied = found.last_log_id;
        self.membership = found.last_membership;
        let mut held = self.shared.state.write().expect("apply is total: it does not panic");
        *held = state;
        self.shared.events.skip_to(index);
        self.shared.applied.send_replace(index);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        newest(&self.snapshots)
    }
}

/// A view of the state, to be written while the state goes on changing.
pub(super) struct Builder {
    state: ClusterState,
    meta: SnapshotMeta,
    snapshots: SnapshotDir,
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        let state = std::mem::take(&mut self.state);
        let (meta, snapshots) = (self.meta.clone(), self.snapshots.clone());
        let written = tokio::task::spawn_blocking(move || snapshots.write(&meta, &state)).await;
        written
            .map_err(|error| StorageIOError::write_snapshot(Some(self.meta.signature()), &error))?
            .map_err(snapshot_error(ErrorVerb::Write))?;
        newest(&self.snapshots)?.ok_or_else(|| {
            let why = io::Error::other("the snapshot just written is gone");
            StorageIOError::read_snapshot(Some(self.meta.signature()), &why).into()
        })
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
