//! Snapshots: the replicated state as one sealed file, from which a master starts and which a leader sends to
//! a follower that is too far behind.
//!
//! ```text
//! <raft dir>/snapshot                   the newest one; replaced whole
//! <raft dir>/snapshot-unfinished-<n>    one being written or received; thrown away at the next start
//! ```
//!
//! The content is the head (Raft's view: up to which entry, which membership) as one line of JSON, then the
//! state as JSON. What a leader sends is its file as it is, seal included, so that the receiver can tell a
//! damaged transfer from a good one.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use drover_core::state::{ClusterState, check_known};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::files::{self, Owner, StoreError};
use super::types::SnapshotMeta;
use crate::metrics;

pub(super) const NAME: &str = "snapshot";
const UNFINISHED: &str = "snapshot-unfinished-";
pub(super) const KIND: &str = "snapshot";

/// An open snapshot file. Stays what it is, also when a newer snapshot takes its name.
#[derive(Debug)]
pub(super) struct SnapshotFile {
    pub(super) path: PathBuf,
    pub(super) file: File,
}

/// What a snapshot holds.
pub(super) struct Content {
    pub(super) meta: SnapshotMeta,
    pub(super) state: ClusterState,
}

#[derive(Serialize, Deserialize)]
struct Head {
    state_version: u32,
    meta: SnapshotMeta,
}

/// Where a master's snapshots are. Clones share the newest one.
#[derive(Debug, Clone)]
pub(super) struct SnapshotDir {
    dir: PathBuf,
    /// The cluster's, not a master's: a snapshot is the same on all of them.
    owner: Owner,
    newest: Arc<Mutex<Option<SnapshotMeta>>>,
}

impl SnapshotDir {
    /// Takes the directory over, throws away what was not finished there, and reads the newest snapshot.
    pub(super) fn open(dir: &Path, cluster: Uuid) -> Result<(Self, Option<Content>), StoreError> {
        let failed = || StoreError::io("read the directory", dir);
        for entry in std::fs::read_dir(dir).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                std::fs::remove_file(entry.path()).map_err(StoreError::io("remove", &entry.path()))?;
            }
        }
        let owner = Owner { cluster, node: 0 };
        let path = dir.join(NAME);
        let content = files::read_sealed(&path, KIND, Some(owner))?;
        let content = content.map(|content| decode(&path, &content)).transpose()?;
        let newest = content.as_ref().map(|content| content.meta.clone());
        Ok((Self { dir: dir.to_owned(), owner, newest: Arc::new(Mutex::new(newest)) }, content))
    }

    /// Writes a snapshot, and makes it the newest one unless a newer one came meanwhile.
    pub(super) fn write(&self, meta: &SnapshotMeta, state: &ClusterState) -> Result<(), StoreError> {
        let began = Instant::now();
        let head = Head { state_version: state.version.0, meta: meta.clone() };
        let mut content = serde_json::to_vec(&head).expect("a head is plain data");
        content.push(b'\n');
        serde_json::to_writer(&mut content, state).expect("the state is plain data");
        let path = self.unfinished();
        files::write_sealed(&path, KIND, self.owner, &content)?;
        metrics::SNAPSHOT.took([], began.elapsed());
        self.replace(&path, meta)
    }

    /// The newest snapshot as a file to send, if there is one.
    pub(super) fn newest(&self) -> Result<Option<(SnapshotMeta, SnapshotFile)>, StoreError> {
        let newest = self.newest.lock().expect("nothing panics while it holds this");
        let Some(meta) = newest.clone() else { return Ok(None) };
        let path = self.dir.join(NAME);
        let file = File::open(&path).map_err(StoreError::io("open", &path))?;
        Ok(Some((meta, SnapshotFile { path, file })))
    }

    /// An empty file to receive a snapshot in.
    pub(super) fn incoming(&self) -> Result<SnapshotFile, StoreError> {
        let path = self.unfinished();
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(&path);
        let file = file.map_err(StoreError::io("make", &path))?;
        Ok(SnapshotFile { path, file })
    }

    /// Checks and decodes a snapshot that was received, and makes it the newest one.
    pub(super) fn install(&self, received: SnapshotFile) -> Result<Content, StoreError> {
        let SnapshotFile { path, mut file } = received;
        let mut bytes = Vec::new();
        let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.read_to_end(&mut bytes));
        read.and_then(|_| file.sync_all()).map_err(StoreError::io("read", &path))?;
        let content = files::open_seal(&path, bytes, KIND, Some(self.owner))?;
        let content = decode(&path, &content)?;
        if path.parent() == Some(&self.dir) {
            self.replace(&path, &content.meta)?;
        } else {
            self.write(&content.meta, &content.state)?;
        }
        Ok(content)
    }

    fn unfinished(&self) -> PathBuf {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        self.dir.join(format!("{UNFINISHED}{}", NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    fn replace(&self, path: &Path, meta: &SnapshotMeta) -> Result<(), StoreError> {
        let mut newest = self.newest.lock().expect("nothing panics while it holds this");
        if newest.as_ref().is_some_and(|newest| newest.last_log_id > meta.last_log_id) {
            return std::fs::remove_file(path).map_err(StoreError::io("remove", path));
        }
        let target = self.dir.join(NAME);
        let moved = std::fs::rename(path, &target).and_then(|()| files::sync_parent(&target));
        moved.map_err(StoreError::io("replace", &target))?;
        *newest = Some(meta.clone());
        Ok(())
    }
}

fn decode(path: &Path, content: &[u8]) -> Result<Content, StoreError> {
    #[derive(Deserialize)]
    struct Version {
        state_version: u32,
    }
    let unreadable = |error: serde_json::Error| StoreError::corrupt(path, 0, error.to_string());
    let line = content.iter().position(|byte| *byte == b'\n');
    let line = line.ok_or_else(|| StoreError::corrupt(path, 0, "the head is missing"))?;
    // The version first: the head of a later one need not have the fields of this one.
    let Version { state_version } = serde_json::from_slice(&content[..line]).map_err(unreadable)?;
    check_known(state_version).map_err(|too_new| StoreError::TooNew { path: path.to_owned(), too_new })?;
    let head: Head = serde_json::from_slice(&content[..line]).map_err(unreadable)?;
    let mut state: ClusterState = serde_json::from_slice(&content[line + 1..]).map_err(unreadable)?;
    state.rebuild_indexes();
    Ok(Content { meta: head.meta, state })
}
