//! The small files beside the log: whole or not there, checked when read, refused when foreign or newer.
//!
//! A sealed file is one line of JSON, the seal, and then its content. The seal names what the file is, whose it
//! is and the content's length and checksum, so that a torn, mixed-up or edited file is never taken for good.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use drover_core::state::TooNew;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The newest format of this directory's files that this version reads, and the one it writes.
pub(super) const FORMAT: u32 = 1;

/// Whose log this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    /// The cluster.
    pub(super) cluster: Uuid,
    /// The Raft node id.
    pub(super) node: u64,
}

/// Why the log directory could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it.
    #[error("{dir} is in use by another process: only one droverd may run on it")]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// It was there and is not any more.
    #[error(
        "this master's log is gone from {dir}, and with it what this master promised to the others: restore the directory as it \
         was, or, if it is lost, run `drover masters remove` on another master, remove this machine's identity and let it join again"
    )]
    Lost {
        /// The directory.
        dir: PathBuf,
    },
    /// It belongs to another cluster or master.
    #[error(
        "{path} belongs to master {} of cluster {}, and this is master {} of cluster {}: correct `data_dir`, or move the directory away",
        found.node, found.cluster, wanted.node, wanted.cluster
    )]
    #[allow(private_interfaces, reason = "only the message is of use outside")]
    Foreign {
        /// The file that says so.
        path: PathBuf,
        /// Whose it is.
        found: Owner,
        /// Whose it should be.
        wanted: Owner,
    },
    /// Written by a later version.
    #[error(
        "{path} has format {found} and this version knows formats up to {FORMAT}: install the version of drover that wrote it"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// What it holds is of a later version.
    #[error("{path} cannot be read")]
    TooNew {
        /// The file or directory.
        path: PathBuf,
        /// What to do.
        #[source]
        too_new: TooNew,
    },
    /// Something in it that no crash explains.
    #[error(
        "{path} is corrupt at byte {offset} ({what}): this master's log cannot be trusted; run `drover masters remove` on another \
         master, remove this machine's raft directory and identity and let it join again, or restore both from a backup"
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// The operating system refused.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

impl StoreError {
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }

    pub(super) fn corrupt(path: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), offset, what: what.into() }
    }
}

#[derive(Serialize, Deserialize)]
struct Seal {
    format: u32,
    kind: String,
    owner: Owner,
    length: u64,
    crc: u32,
}

/// Makes a directory and its parents, accessible to the owner alone, for good before it returns.
pub(super) fn create_dir(path: &Path) -> Result<(), StoreError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.and_then(|()| sync_parent(path)).map_err(StoreError::io("make the directory", path))
}

/// Makes the entries of a path's directory durable.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// Writes a file under another name, syncs it and moves it into place: after a power cut the old content is
/// there or the new one. Returns the file, open for reading and appending.
pub(super) fn write_atomically(path: &Path, parts: &[&[u8]]) -> Result<File, StoreError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = Path::new(&temporary);
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(temporary)?;
        for part in parts {
            file.write_all(part)?;
        }
        file.sync_all()?;
        std::fs::rename(temporary, path)?;
        sync_parent(path)?;
        Ok(file)
    };
    write().map_err(StoreError::io("write", path))
}

/// Replaces a sealed file.
pub(super) fn write_sealed(path: &Path, kind: &str, owner: Owner, content: &[u8]) -> Result<(), StoreError> {
    write_atomically(path, &[&seal(kind, owner, content), content]).map(drop)
}

/// The line before a sealed file's content.
pub(super) fn seal(kind: &str, owner: Owner, content: &[u8]) -> Vec<u8> {
    let seal =
        Seal { format: FORMAT, kind: kind.to_owned(), owner, length: content.len() as u64, crc: crc32fast::hash(content) };
    let mut line = serde_json::to_vec(&seal).expect("a seal is plain data");
    line.push(b'\n');
    line
}

/// Reads a sealed file, if it is there. Pass no owner to take whoever's file it is.
pub(super) fn read_sealed(path: &Path, kind: &str, owner: Option<Owner>) -> Result<Option<Vec<u8>>, StoreError> {
    match std::fs::read(path) {
        Ok(bytes) => open_seal(path, bytes, kind, owner).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("read", path)(error)),
    }
}

/// Checks the seal of a file's bytes and returns the content.
pub(super) fn open_seal(path: &Path, mut bytes: Vec<u8>, kind: &str, owner: Option<Owner>) -> Result<Vec<u8>, StoreError> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let corrupt = |offset: usize, what: &str| StoreError::corrupt(path, offset as u64, what);
    let line = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(|| corrupt(0, "the seal is missing"))?;
    // The format first: a later seal need not have the fields of this one.
    let Format { format } = serde_json::from_slice(&bytes[..line]).map_err(|_| corrupt(0, "the seal is missing"))?;
    if format > FORMAT {
        return Err(StoreError::Newer { path: path.to_owned(), found: format });
    }
    let seal: Seal = serde_json::from_slice(&bytes[..line]).map_err(|error| corrupt(0, &error.to_string()))?;
    if seal.kind != kind {
        return Err(corrupt(0, &format!("it is a {}, not a {kind}", seal.kind)));
    }
    if let Some(wanted) = owner.filter(|wanted| *wanted != seal.owner) {
        return Err(StoreError::Foreign { path: path.to_owned(), found: seal.owner, wanted });
    }
    bytes.drain(..=line);
    if bytes.len() as u64 != seal.length {
        return Err(corrupt(line + 1, &format!("{} bytes where the seal says {}", bytes.len(), seal.length)));
    }
    if crc32fast::hash(&bytes) != seal.crc {
        return Err(corrupt(line + 1, "the checksum is wrong"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner = Owner { cluster: Uuid::from_u128(1), node: 2 };

    #[test]
    fn a_sealed_file_reads_back_and_no_other_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vote");
        let read = || read_sealed(&path, "vote", Some(OWNER));
        assert!(read().unwrap().is_none());
        write_sealed(&path, "vote", OWNER, b"old").unwrap();
        write_sealed(&path, "vote", OWNER, b"new\ncontent").unwrap();
        assert_eq!(read().unwrap().unwrap(), b"new\ncontent");

        let foreign = Owner { node: 3, ..OWNER };
        assert!(matches!(read_sealed(&path, "vote", Some(foreign)), Err(StoreError::Foreign { .. })));
        assert!(read_sealed(&path, "vote", None).unwrap().is_some());
        assert!(matches!(read_sealed(&path, "snapshot", None), Err(StoreError::Corrupt { .. })));

        let good = std::fs::read(&path).unwrap();
        for cut in 0..good.len() {
            std::fs::write(&path, &good[..cut]).unwrap();
            assert!(matches!(read(), Err(StoreError::Corrupt { .. })), "cut at {cut}");
        }
        let mut flipped = good.clone();
        *flipped.last_mut().unwrap() ^= 1;
        std::fs::write(&path, flipped).unwrap();
        assert!(matches!(read(), Err(StoreError::Corrupt { .. })));
        std::fs::write(&path, "{\"format\":2,\"anything\":\"else\"}\n").unwrap();
        assert!(matches!(read(), Err(StoreError::Newer { found: 2, .. })));
    }
}
