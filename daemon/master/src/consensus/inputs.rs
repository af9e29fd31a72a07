//! A master's files as bytes: written as this master would write them, or as nobody would, and read as a start reads them.

use std::path::Path;

use drover_core::state::{ClusterState, Command};
use uuid::Uuid;

use super::files::{self, Owner, StoreError};
use super::snapshot::SnapshotDir;
use super::wal::Wal;
use super::{log, wal};

/// A frame of the log with its checksum: its kind, `H`, `E` or `T`, and what is in it.
pub type Frame<'a> = (u8, &'a [u8]);

/// What a file is sealed as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sealed {
    /// The mark that a log was begun here.
    Begun,
    /// The last vote.
    Vote,
    /// Up to where the log is gone.
    Purged,
    /// The newest snapshot.
    Snapshot,
}

impl Sealed {
    /// The file's name.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Begun => log::META,
            Self::Vote => log::VOTE,
            Self::Purged => log::PURGED,
            Self::Snapshot => super::snapshot::NAME,
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Begun => "raft log",
            Self::Vote => "vote",
            Self::Purged => "purge mark",
            Self::Snapshot => super::snapshot::KIND,
        }
    }
}

/// What a directory holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// The index of the first entry.
    pub first: u64,
    /// Its entries, as they lie there.
    pub entries: Vec<Vec<u8>>,
    /// The newest snapshot's state.
    pub state: Option<ClusterState>,
}

/// A log's segment out of frames, each with a good checksum.
pub fn segment(frames: &[Frame<'_>]) -> Vec<u8> {
    frames.iter().flat_map(|(kind, payload)| wal::frame(*kind, payload)).collect()
}

/// A file with a good seal around any content.
pub fn seal(file: Sealed, cluster: Uuid, node: u64, content: &[u8]) -> Vec<u8> {
    let node = if file == Sealed::Snapshot { 0 } else { node };
    [files::seal(file.kind(), Owner { cluster, node }, content), content.to_vec()].concat()
}

/// Reads a directory as a start does, repairs what a power cut may leave, and reads every entry of the log.
///
/// # Errors
/// What a start would refuse it with.
pub fn read_directory(dir: &Path, cluster: Uuid, node: u64) -> Result<Held, StoreError> {
    let owner = Owner { cluster, node };
    log::exists(dir, owner)?;
    let (_, newest) = SnapshotDir::open(dir, cluster)?;
    let (_vote, purged) = log::read_marks(dir, owner)?;
    let wal::Opened { first, positions, .. } = Wal::open(dir, owner, log::purged_end(dir, purged)?, wal::SEGMENT_BYTES)?;
    let positions: Vec<_> = positions.into_iter().collect();
    let entries = wal::read(&positions)?;
    Ok(Held { first, entries, state: newest.map(|content| content.state) })
}

/// Applies one entry of the log to a state, as every master does; the commands in it. `None` for one that holds none.
///
/// # Errors
/// It is no entry.
pub fn apply_entry(entry: &[u8], state: &mut ClusterState) -> Result<Option<Vec<Command>>, String> {
    let entry = log::decode(Path::new("the log"), entry).map_err(|error| error.to_string())?;
    let openraft::EntryPayload::Normal(proposal) = entry.payload else { return Ok(None) };
    for command in proposal.batch.commands() {
        // Whether it is applied or refused is for those who count; that it is one of the two is for everybody.
        let _told = state.apply(command);
    }
    Ok(Some(proposal.batch.commands().to_vec()))
}
