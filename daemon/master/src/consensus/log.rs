//! openraft's log store over the [`wal`](super::wal): entries as JSON, the newest of them also in memory.
//!
//! ```text
//! Raft core ──job──► writer thread ──fdatasync──► index (positions, cache) ──► Raft core, replication streams
//! ```
//!
//! One thread, `drover-wal`, does every write in the order in which it was asked: append, truncate, purge and
//! vote. It ends when the last [`LogStore`] is dropped. After a failed write nothing is written any more, since
//! what is on the disk then is anybody's guess until the log is opened again.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, RwLock, mpsc};
use std::time::Instant;

use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend, RaftLogReader, StorageIOError};
use tokio::sync::oneshot;

use super::files::{self, Owner, StoreError};
use super::types::{self, Entry, LogId, StorageError, Types, Vote};
use crate::metrics;

use super::wal::{self, Opened, Position, Wal};

/// Entries are kept in memory up to this many bytes of JSON. Replication and `apply` nearly always find what
/// they need there.
const CACHE_BYTES: usize = 32 << 20;

/// A follower is sent at most so many bytes of entries at once (one entry always).
const REPLICATION_BYTES: u64 = 1 << 20;

pub(super) const META: &str = "raft.json";
pub(super) const VOTE: &str = "vote";
pub(super) const PURGED: &str = "purged";

/// The log, for openraft's core; clones read it.
#[derive(Clone)]
pub(super) struct LogStore {
    index: Arc<RwLock<Index>>,
    jobs: mpsc::Sender<Job>,
    /// For those who read what it says of itself.
    dir: Arc<Path>,
}

/// What is known of the log without touching the disk.
struct Index {
    vote: Option<Vote>,
    purged: Option<LogId>,
    last: Option<LogId>,
    /// The index of the first position.
    first: u64,
    positions: VecDeque<Position>,
    /// The newest entries with their lengths; the last one belongs to the last position.
    cache: VecDeque<(Entry, usize)>,
    cached_bytes: usize,
}

struct Job {
    work: Work,
    done: oneshot::Sender<Result<(), StoreError>>,
}

enum Work {
    Append(Vec<Entry>),
    Truncate(LogId),
    Purge(LogId),
    Vote(Vote),
}

/// Whether a directory holds a master's log, and makes sure that it is this master's.
pub(super) fn exists(dir: &Path, owner: Owner) -> Result<bool, StoreError> {
    Ok(files::read_sealed(&dir.join(META), "raft log", Some(owner))?.is_some())
}

/// Makes an empty log for a master that never had one.
pub(super) fn create(dir: &Path, owner: Owner) -> Result<(), StoreError> {
    Wal::create(dir, owner)?;
    files::write_sealed(&dir.join(META), "raft log", owner, b"")
}

/// Opens the log and starts its writer. The lock is held until the writer ends, which the receiver tells.
pub(super) fn open(
    dir: &Path,
    owner: Owner,
    lock: File,
    segment_bytes: u64,
) -> Result<(LogStore, oneshot::Receiver<()>), StoreError> {
    let (vote, purged) = read_marks(dir, owner)?;
    let purged_end = purged_end(dir, purged)?;
    let Opened { wal, first, positions } = Wal::open(dir, owner, purged_end, segment_bytes)?;
    let mut index = Index { vote, purged, last: purged, first, positions, cache: VecDeque::new(), cached_bytes: 0 };
    if let Some(position) = index.positions.back() {
        let bytes = wal::read(std::slice::from_ref(position))?;
        index.last = Some(decode(dir, &bytes[0])?.log_id);
    }
    let index = Arc::new(RwLock::new(index));
    let (jobs, queue) = mpsc::channel();
    let writer = Writer { wal, dir: dir.to_owned(), owner, index: index.clone(), broken: None, _lock: lock };
    let (ending, ended) = oneshot::channel::<()>();
    std::thread::Builder::new()
        .name("drover-wal".to_owned())
        .spawn(move || {
            writer.run(&queue);
            drop(ending);
        })
        .map_err(StoreError::io("start the writer of", dir))?;
    Ok((LogStore { index, jobs, dir: dir.into() }, ended))
}

/// The last vote, and up to where the log is gone.
pub(super) fn read_marks(dir: &Path, owner: Owner) -> Result<(Option<Vote>, Option<LogId>), StoreError> {
    Ok((read_value(&dir.join(VOTE), "vote", owner)?, read_value(&dir.join(PURGED), "purge mark", owner)?))
}

/// The first index that is not gone.
pub(super) fn purged_end(dir: &Path, purged: Option<LogId>) -> Result<u64, StoreError> {
    let Some(purged) = purged else { return Ok(0) };
    let beyond = || StoreError::corrupt(&dir.join(PURGED), 0, "an index beyond every log");
    purged.index.checked_add(1).ok_or_else(beyond)
}

fn read_value<T: serde::de::DeserializeOwned>(path: &Path, kind: &str, owner: Owner) -> Result<Option<T>, StoreError> {
    let Some(bytes) = files::read_sealed(path, kind, Some(owner))? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| StoreError::corrupt(path, 0, error.to_string()))
}

/// Fails for an entry of a later version too.
pub(super) fn decode(dir: &Path, bytes: &[u8]) -> Result<Entry, StoreError> {
    let entry: Entry = serde_json::from_slice(bytes).map_err(|error| match types::too_new(bytes) {
        Some(too_new) => StoreError::TooNew { path: dir.to_owned(), too_new },
        None => StoreError::corrupt(dir, 0, format!("an entry of the log cannot be read: {error}")),
    })?;
    let known = types::check_entry(&entry);
    known.map_err(|too_new| StoreError::TooNew { path: dir.to_owned(), too_new })?;
    Ok(entry)
}

struct Writer {
    wal: Wal,
    dir: PathBuf,
    owner: Owner,
    index: Arc<RwLock<Index>>,
    /// What went wrong, once something did.
    broken: Option<String>,
    _lock: File,
}

impl Writer {
    fn run(mut self, queue: &mpsc::Receiver<Job>) {
        while let Ok(Job { work, done }) = queue.recv() {
            let result = match &self.broken {
                Some(why) => Err(StoreError::Io {
                    doing: "write to",
                    path: self.dir.clone(),
                    source: io::Error::other(format!("an earlier write failed: {why}")),
                }),
                None => self.perform(work),
            };
            if let Err(error) = &result {
                self.broken.get_or_insert_with(|| io_text(error));
            }
            // Whoever asked may be gone; the work is done all the same.
            done.send(result).ok();
        }
    }

    fn perform(&mut self, work: Work) -> Result<(), StoreError> {
        match work {
            Work::Append(entries) => self.append(entries),
            Work::Truncate(since) => {
                self.wal.truncate(since.index)?;
                let last = self.log_id_before(since.index)?;
                self.write_index().truncate(since.index, last);
                Ok(())
            }
            Work::Purge(upto) => {
                self.write_value(PURGED, "purge mark", &upto)?;
                self.write_index().purge(upto);
                self.wal.remove_purged(upto.index + 1)
            }
            Work::Vote(vote) => {
                self.write_value(VOTE, "vote", &vote)?;
                self.write_index().vote = Some(vote);
                Ok(())
            }
        }
    }

    fn append(&mut self, entries: Vec<Entry>) -> Result<(), StoreError> {
        let Some(first) = entries.first().map(|entry| entry.log_id.index) else { return Ok(()) };
        let bytes: Vec<Vec<u8>> =
            entries.iter().map(|entry| serde_json::to_vec(entry).expect("an entry is plain data")).collect();
        let end = self.index.read().ok().filter(|index| !index.positions.is_empty()).map(|index| index.end());
        if let Some(end) = end.filter(|end| *end != first) {
            let source = io::Error::other(format!("entry {first} was to be appended where {end} belongs"));
            return Err(StoreError::Io { doing: "append to the log in", path: self.dir.clone(), source });
        }
        let began = Instant::now();
        let positions = self.wal.append(first, &bytes)?;
        metrics::APPEND.took([], began.elapsed());
        let mut index = self.write_index();
        if index.positions.is_empty() {
            index.first = first;
        }
        index.positions.extend(positions);
        for (entry, bytes) in entries.into_iter().zip(bytes) {
            index.last = Some(entry.log_id);
            index.remember(entry, bytes.len());
        }
        Ok(())
    }

    fn log_id_before(&self, index: u64) -> Result<Option<LogId>, StoreError> {
        let (purged, found) = {
            let known = self.index.read().expect("no writer panics");
            (known.purged, index.checked_sub(1).and_then(|before| known.look_up(before..index).pop()))
        };
        match found {
            None => Ok(purged),
            Some(Found::Cached(entry)) => Ok(Some(entry.log_id)),
            Some(Found::OnDisk(position)) => {
                let bytes = wal::read(&[position])?;
                Ok(Some(decode(&self.dir, &bytes[0])?.log_id))
            }
        }
    }

    fn write_value(&self, name: &str, kind: &str, value: &impl serde::Serialize) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(value).expect("marks are plain data");
        files::write_sealed(&self.dir.join(name), kind, self.owner, &bytes)
    }

    fn write_index(&self) -> std::sync::RwLockWriteGuard<'_, Index> {
        self.index.write().expect("nothing panics while it holds the index")
    }
}

enum Found {
    Cached(Entry),
    OnDisk(Position),
}

impl Index {
    fn end(&self) -> u64 {
        self.first + self.positions.len() as u64
    }

    fn look_up(&self, range: std::ops::Range<u64>) -> Vec<Found> {
        let range = range.start.max(self.first)..range.end.min(self.end());
        let cached_from = self.end() - self.cache.len() as u64;
        range
            .map(|index| match index.checked_sub(cached_from) {
                Some(at) => Found::Cached(self.cache[at as usize].0.clone()),
                None => Found::OnDisk(self.positions[(index - self.first) as usize].clone()),
            })
            .collect()
    }

    fn remember(&mut self, entry: Entry, bytes: usize) {
        self.cached_bytes += bytes;
        self.cache.push_back((entry, bytes));
        while self.cached_bytes > CACHE_BYTES {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, bytes)) = self.cache.pop_front() {
            self.cached_bytes -= bytes;
        }
    }

    fn truncate(&mut self, since: u64, last: Option<LogId>) {
        while self.end() > since && self.positions.pop_back().is_some() {
            if let Some((_, bytes)) = self.cache.pop_back() {
                self.cached_bytes -= bytes;
            }
        }
        self.last = last;
    }

    fn purge(&mut self, upto: LogId) {
        while self.first <= upto.index && !self.positions.is_empty() {
            if self.cache.len() == self.positions.len() {
                self.forget_oldest();
            }
            self.positions.pop_front();
            self.first += 1;
        }
        self.first = self.first.max(upto.index + 1);
        self.purged = Some(upto);
        self.last = self.last.max(Some(upto));
    }
}

impl LogStore {
    /// Has the writer do something; returns when it is on disk.
    async fn perform(&self, work: Work) -> Result<(), StoreError> {
        let (done, result) = oneshot::channel();
        let gone = |_| StoreError::Io {
            doing: "write",
            path: PathBuf::from("the log"),
            source: io::Error::other("its writer has ended"),
        };
        self.jobs.send(Job { work, done }).map_err(|_| gone(()))?;
        result.await.map_err(|_| gone(()))?
    }

    fn read_index(&self) -> std::sync::RwLockReadGuard<'_, Index> {
        self.index.read().expect("nothing panics while it holds the index")
    }

    async fn read(&self, range: std::ops::Range<u64>) -> Result<Vec<Entry>, StorageError> {
        let found = self.read_index().look_up(range);
        let first_cached = found.iter().position(|found| matches!(found, Found::Cached(_))).unwrap_or(found.len());
        let mut found = found.into_iter();
        let positions: Vec<Position> = found
            .by_ref()
            .take(first_cached)
            .filter_map(|found| match found {
                Found::OnDisk(position) => Some(position),
                Found::Cached(_) => None,
            })
            .collect();
        let mut entries = Vec::with_capacity(positions.len() + found.len());
        if !positions.is_empty() {
            let read = tokio::task::spawn_blocking(move || wal::read(&positions)).await;
            let bytes = read
                .map_err(|error| StorageIOError::read_logs(&error))?
                .map_err(|error| StorageIOError::read_logs(&io::Error::from(error)))?;
            for bytes in bytes {
                let entry = decode(&self.dir, &bytes);
                entries.push(entry.map_err(|error| StorageIOError::read_logs(&io::Error::from(error)))?);
            }
        }
        entries.extend(found.filter_map(|found| match found {
            Found::Cached(entry) => Some(entry),
            Found::OnDisk(_) => None,
        }));
        Ok(entries)
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        self.read(start..end).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        let end = {
            let index = self.read_index();
            let mut bytes = 0;
            let lengths = index.positions.iter().skip(start.saturating_sub(index.first) as usize).map(Position::length);
            let fitting = lengths.take_while(|length| {
                bytes += u64::from(*length);
                bytes <= REPLICATION_BYTES
            });
            end.min(start + (fitting.count() as u64).max(1))
        };
        self.read(start..end).await
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let index = self.read_index();
        Ok(LogState { last_purged_log_id: index.purged, last_log_id: index.last })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let saved = self.perform(Work::Vote(*vote)).await;
        saved.map_err(|error| StorageIOError::write_vote(&io::Error::from(error)).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.read_index().vote)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        for entry in &entries {
            if let EntryPayload::Normal(proposal) = &entry.payload {
                proposal.is_appended.store(true, Ordering::Relaxed);
            }
        }
        // openraft 0.9 waits for the callback before it does anything else, so nothing is lost by waiting here.
        let appended = self.perform(Work::Append(entries)).await;
        callback.log_io_completed(appended.map_err(io::Error::from));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let truncated = self.perform(Work::Truncate(log_id)).await;
        truncated.map_err(|error| StorageIOError::write_logs(&io::Error::from(error)).into())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let purged = self.perform(Work::Purge(log_id)).await;
        purged.map_err(|error| StorageIOError::write_logs(&io::Error::from(error)).into())
    }
}

fn io_text(error: &StoreError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use drover_core::state::TooNew;
    use openraft::Membership;
    use uuid::Uuid;

    use super::*;

    /// What format 1 looks like on disk. A change here is a change of the format: add to it, never edit.
    const ENTRIES: [&str; 3] = [
        r#"{"log_id":{"leader_id":{"term":0,"node_id":0},"index":0},"payload":{"Membership":{"configs":[[7]],"nodes":{"7":{"name":"n1","address":"n1:7071"}}}}}"#,
        r#"{"log_id":{"leader_id":{"term":1,"node_id":7},"index":1},"payload":"Blank"}"#,
        r#"{"log_id":{"leader_id":{"term":1,"node_id":7},"index":2},"payload":{"Normal":{"version":1,"commands":[{"SetRoleWeight":{"role":"apps","weight_milli":2000,"at":5}}]}}}"#,
    ];
    const VOTE_VALUE: &str = r#"{"leader_id":{"term":3,"node_id":7},"committed":true}"#;

    #[test]
    fn a_log_of_format_1_is_read() {
        let entries: Vec<Entry> = ENTRIES.iter().map(|text| decode(Path::new("log"), text.as_bytes()).unwrap()).collect();
        let EntryPayload::Membership(membership) = &entries[0].payload else { panic!("{:?}", entries[0]) };
        let expected: Membership<u64, super::super::types::MasterNode> = membership.clone();
        assert_eq!(expected.get_node(&7).unwrap().address, "n1:7071");
        let EntryPayload::Normal(proposal) = &entries[2].payload else { panic!("{:?}", entries[2]) };
        assert_eq!(proposal.batch.commands().len(), 1);
        for (entry, text) in entries.iter().zip(ENTRIES) {
            assert_eq!(serde_json::to_string(entry).unwrap(), text);
        }
        let vote: Vote = serde_json::from_str(VOTE_VALUE).unwrap();
        assert_eq!(serde_json::to_string(&vote).unwrap(), VOTE_VALUE);
    }

    #[test]
    fn an_entry_of_a_later_version_is_refused_whether_or_not_it_could_be_read() {
        for commands in [r#"{"SetRoleWeight":{"role":"apps","weight_milli":2000,"at":5}}"#, r#"{"Unheard":{"of":5}}"#] {
            let text = ENTRIES[2].replace(r#""version":1"#, r#""version":9"#);
            let (from, to) = (text.find("{\"SetRole").unwrap(), text.rfind(']').unwrap());
            let text = format!("{}{commands}{}", &text[..from], &text[to..]);
            let error = decode(Path::new("log"), text.as_bytes()).unwrap_err();
            assert!(matches!(&error, StoreError::TooNew { too_new: TooNew(9), .. }), "{error}");
            let message = format!(r#"{{"vote":{VOTE_VALUE},"entries":[{text}]}}"#);
            assert_eq!(types::too_new(message.as_bytes()), Some(TooNew(9)));
        }
        let nonsense = ENTRIES[2].replace("SetRoleWeight", "Unheard");
        assert!(matches!(decode(Path::new("log"), nonsense.as_bytes()), Err(StoreError::Corrupt { .. })));
    }

    #[tokio::test]
    async fn a_log_store_forgets_nothing_it_was_told() {
        let dir = tempfile::tempdir().unwrap();
        let owner = Owner { cluster: Uuid::from_u128(1), node: 7 };
        create(dir.path(), owner).unwrap();
        let entries: Vec<Entry> = ENTRIES.iter().map(|text| decode(dir.path(), text.as_bytes()).unwrap()).collect();
        let open = || open(dir.path(), owner, wal::lock(dir.path()).unwrap(), 1).unwrap();

        let (mut log, ended) = open();
        log.perform(Work::Append(entries)).await.unwrap();
        let vote: Vote = serde_json::from_str(VOTE_VALUE).unwrap();
        log.save_vote(&vote).await.unwrap();
        let first = log.try_get_log_entries(0..1).await.unwrap().remove(0).log_id;
        log.purge(first).await.unwrap();
        drop(log);
        ended.await.unwrap_err();

        let (mut log, ended) = open();
        assert_eq!(log.read_vote().await.unwrap(), Some(vote));
        let state = log.get_log_state().await.unwrap();
        assert_eq!((state.last_purged_log_id, state.last_log_id.map(|last| last.index)), (Some(first), Some(2)));
        let indexes = async |log: &mut LogStore| -> Vec<u64> {
            log.try_get_log_entries(..).await.unwrap().iter().map(|entry| entry.log_id.index).collect()
        };
        // From the disk, and after an append partly from memory.
        assert_eq!(indexes(&mut log).await, [1, 2]);
        let second = log.try_get_log_entries(2..=2).await.unwrap().remove(0);
        log.truncate(second.log_id).await.unwrap();
        assert_eq!(log.get_log_state().await.unwrap().last_log_id.map(|last| last.index), Some(1));
        log.perform(Work::Append(vec![second.clone()])).await.unwrap();
        assert_eq!(indexes(&mut log).await, [1, 2]);
        let gap = Entry { log_id: LogId::new(second.log_id.leader_id, 9), ..second };
        assert!(log.perform(Work::Append(vec![gap])).await.is_err());
        let later = log.save_vote(&vote).await.unwrap_err().to_string();
        assert!(later.contains("an earlier write failed"), "{later}");
        drop(log);
        ended.await.unwrap_err();
        assert_eq!(indexes(&mut open().0).await, [1, 2]);
    }
}
