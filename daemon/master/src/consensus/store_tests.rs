//! openraft's own test suite, run on drover's log store and state machine.

use drover_core::state::{ClusterVersion, STATE_VERSION};
use openraft::testing::{StoreBuilder, Suite};
use uuid::Uuid;

use super::super::files::Owner;
use super::super::log::{self, LogStore};
use super::super::wal;
use super::*;

struct Stores;

impl StoreBuilder<Types, LogStore, Machine, tempfile::TempDir> for Stores {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, Machine), StorageError> {
        let dir = tempfile::tempdir().unwrap();
        let owner = Owner { cluster: Uuid::from_u128(1), node: 2 };
        log::create(dir.path(), owner).unwrap();
        let lock = wal::lock(dir.path()).unwrap();
        let (log, _ended) = log::open(dir.path(), owner, lock, 1000).unwrap();
        let (snapshots, newest) = SnapshotDir::open(dir.path(), owner.cluster).unwrap();
        let (machine, _shared) = Machine::new(snapshots, newest, 100);
        Ok((dir, log, machine))
    }
}

#[test]
fn a_snapshot_is_of_the_clusters_version_and_a_later_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let open = || SnapshotDir::open(dir.path(), Uuid::from_u128(1));
    let at = |version| {
        let mut state = ClusterState::default();
        state.version = ClusterVersion(version);
        state
    };
    open().unwrap().0.write(&SnapshotMeta::default(), &at(1)).unwrap();
    let text = std::fs::read_to_string(dir.path().join("snapshot")).unwrap();
    assert!(text.contains(r#""state_version":1,"#), "{text}");
    assert_eq!(open().unwrap().1.unwrap().state, at(1));
    open().unwrap().0.write(&SnapshotMeta::default(), &at(STATE_VERSION + 1)).unwrap();
    let error = open().err().unwrap();
    assert!(matches!(error, StoreError::TooNew { too_new, .. } if too_new.0 == STATE_VERSION + 1), "{error}");
}

#[test]
fn the_store_is_what_openraft_expects() {
    Suite::test_all(Stores).unwrap();
}
