//! openraft's own test suite, run on drover's log store and state machine.

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
fn the_store_is_what_openraft_expects() {
    Suite::test_all(Stores).unwrap();
}
