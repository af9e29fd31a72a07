//! The log on disk: append-only segments of checksummed frames. Knows bytes and indexes, and nothing of Raft.
//!
//! ```text
//! wal-00000000000000000001   frame frame frame …     a segment; numbers have no gaps, only the oldest go
//! wal-00000000000000000002   frame frame …           the active one, the only one written to
//!
//! frame   magic(4) kind(1) 0(3) length(4, LE) crc32(4, LE, of kind, length and payload) payload
//!   H     {"format":1,"owner":…,"number":1}          first in every segment
//!   E     "17\n" entry "\n" entry "\n" …             entries 17, 18, … of one batch
//!   T     "18"                                       entries from 18 on are void
//! ```
//!
//! One batch is one frame, written by one write and followed by one fdatasync *before the next frame is
//! written*. So a bad frame with a good frame anywhere behind it had been synced, and is corruption; a bad frame
//! with nothing good behind it was being written when the machine stopped, nobody was told that it is safe, and
//! it is cut off. The magic holds bytes that occur in no UTF-8 text, so no payload can look like a frame.
//!
//! Taking entries back is a frame like any other, not an overwrite: a half-done truncation does not exist.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::files::{self, FORMAT, Owner, StoreError};

const MAGIC: [u8; 4] = [0xff, b'd', b'w', 0xfe];
const HEAD: usize = 16;
const PREFIX: &str = "wal-";

/// Segments are closed once they are longer than this.
pub(super) const SEGMENT_BYTES: u64 = 16 << 20;

/// At most so much is read at once.
const SPAN_BYTES: u64 = 4 << 20;

const HEADER: u8 = b'H';
const ENTRIES: u8 = b'E';
const TRUNCATE: u8 = b'T';

/// Where an entry is. Stays readable as long as it is held, also when its segment was removed.
#[derive(Debug, Clone)]
pub(super) struct Position {
    segment: Arc<SegmentFile>,
    /// Of the frame in the segment.
    frame: u64,
    frame_length: u32,
    /// Of the entry in the frame.
    start: u32,
    length: u32,
}

impl Position {
    /// The entry's length in bytes.
    pub(super) fn length(&self) -> u32 {
        self.length
    }
}

#[derive(Debug)]
struct SegmentFile {
    path: PathBuf,
    file: File,
}

struct Segment {
    file: Arc<SegmentFile>,
    number: u64,
    length: u64,
    /// One more than the highest index in this segment or an older one.
    end: u64,
}

/// The write side. One thread owns it.
pub(super) struct Wal {
    dir: PathBuf,
    owner: Owner,
    segment_bytes: u64,
    /// Oldest first, never empty.
    segments: VecDeque<Segment>,
}

/// What a directory holds.
pub(super) struct Opened {
    pub(super) wal: Wal,
    /// The index of the first position.
    pub(super) first: u64,
    pub(super) positions: VecDeque<Position>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    owner: Owner,
    number: u64,
}

impl Wal {
    /// Makes the log of a master that never had one. Repeating it after a crash is fine.
    pub(super) fn create(dir: &Path, owner: Owner) -> Result<(), StoreError> {
        let mut wal = Wal { dir: dir.to_owned(), owner, segment_bytes: SEGMENT_BYTES, segments: VecDeque::new() };
        if wal.segment_numbers()?.is_empty() { wal.roll(0) } else { Ok(()) }
    }

    /// Opens a log. Entries below `purged_end` count as gone.
    pub(super) fn open(dir: &Path, owner: Owner, purged_end: u64, segment_bytes: u64) -> Result<Opened, StoreError> {
        let mut wal = Wal { dir: dir.to_owned(), owner, segment_bytes, segments: VecDeque::new() };
        let numbers = wal.segment_numbers()?;
        let mut found = Replay { purged_end, first: purged_end, positions: VecDeque::new(), next: None };
        for (at, number) in numbers.iter().enumerate() {
            if at > 0 && numbers[at - 1] + 1 != *number {
                let path = wal.segment_path(number - 1);
                return Err(StoreError::corrupt(&path, 0, "the file is missing"));
            }
            let segment = wal.load_segment(*number, at + 1 == numbers.len(), &mut found)?;
            wal.segments.push_back(segment);
        }
        if wal.segments.is_empty() {
            return Err(StoreError::Lost { dir: dir.to_owned() });
        }
        let Replay { first, mut positions, .. } = found;
        // Also when all of it was taken back: what was before it is missing all the same.
        if first > purged_end {
            let path = wal.segment_path(numbers[0]);
            return Err(StoreError::corrupt(&path, 0, format!("the log begins at {first}, {purged_end} is missing")));
        }
        wal.remove_purged(purged_end)?;
        positions.drain(..positions.len().min((purged_end - first) as usize));
        Ok(Opened { wal, first: purged_end, positions })
    }

    /// Appends entries with consecutive indexes from `first` on and returns, once they are on disk, where they are.
    pub(super) fn append(&mut self, first: u64, entries: &[Vec<u8>]) -> Result<Vec<Position>, StoreError> {
        debug_assert!(!entries.is_empty());
        if self.active().length > self.segment_bytes {
            let end = self.active().end;
            self.roll(end)?;
        }
        let mut payload = format!("{first}\n").into_bytes();
        let mut starts = Vec::with_capacity(entries.len());
        for entry in entries {
            starts.push((payload.len() as u32, entry.len() as u32));
            payload.extend_from_slice(entry);
            payload.push(b'\n');
        }
        let frame = self.write_frame(ENTRIES, &payload)?;
        let active = self.active();
        active.end = active.end.max(first + entries.len() as u64);
        let segment = &active.file;
        let frame_length = (HEAD + payload.len()) as u32;
        Ok(starts
            .into_iter()
            .map(|(start, length)| Position { segment: segment.clone(), frame, frame_length, start, length })
            .collect())
    }

    /// Makes entries from `since` on void, for good before it returns.
    pub(super) fn truncate(&mut self, since: u64) -> Result<(), StoreError> {
        self.write_frame(TRUNCATE, since.to_string().as_bytes()).map(drop)
    }

    /// Removes segments that hold nothing but entries below `purged_end`. That they are gone was written down by
    /// the caller before.
    pub(super) fn remove_purged(&mut self, purged_end: u64) -> Result<(), StoreError> {
        while self.segments.len() > 1 && self.segments[0].end <= purged_end {
            let path = &self.segments[0].file.path;
            std::fs::remove_file(path).and_then(|()| files::sync_parent(path)).map_err(StoreError::io("remove", path))?;
            self.segments.pop_front();
        }
        Ok(())
    }

    fn active(&mut self) -> &mut Segment {
        self.segments.back_mut().expect("there is always an active segment")
    }

    fn write_frame(&mut self, kind: u8, payload: &[u8]) -> Result<u64, StoreError> {
        let bytes = frame(kind, payload);
        let active = self.active();
        let mut file = &active.file.file;
        file.write_all(&bytes).and_then(|()| file.sync_data()).map_err(StoreError::io("write to", &active.file.path))?;
        let at = active.length;
        active.length += bytes.len() as u64;
        Ok(at)
    }

    /// Starts a new segment.
    fn roll(&mut self, end: u64) -> Result<(), StoreError> {
        let number = self.segments.back().map_or(1, |segment| segment.number + 1);
        let path = self.segment_path(number);
        let header = Header { format: FORMAT, owner: self.owner, number };
        let bytes = frame(HEADER, &serde_json::to_vec(&header).expect("a header is plain data"));
        let file = files::write_atomically(&path, &[&bytes])?;
        let file = Arc::new(SegmentFile { path, file });
        self.segments.push_back(Segment { file, number, length: bytes.len() as u64, end });
        Ok(())
    }

    fn segment_path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{PREFIX}{number:020}"))
    }

    fn segment_numbers(&self) -> Result<Vec<u64>, StoreError> {
        let failed = || StoreError::io("read the directory", &self.dir);
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&self.dir).map_err(failed())? {
            let name = entry.map_err(failed())?.file_name();
            // Anything else is not ours, or the unfinished `.new` of a segment that was never used.
            let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
            numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn load_segment(&self, number: u64, is_last: bool, found: &mut Replay) -> Result<Segment, StoreError> {
        let path = self.segment_path(number);
        let bytes = std::fs::read(&path).map_err(StoreError::io("read", &path))?;
        let file = File::options().read(true).append(true).open(&path).map_err(StoreError::io("open", &path))?;
        let file = Arc::new(SegmentFile { path, file });
        let path = &file.path;
        let mut at = 0;
        while at < bytes.len() {
            match read_frame(&bytes[at..]) {
                Some((kind, payload)) => {
                    if (at == 0) != (kind == HEADER) {
                        return Err(StoreError::corrupt(path, at as u64, "a header is missing or out of place"));
                    }
                    match kind {
                        HEADER => self.check_header(path, number, payload)?,
                        _ => found.take(&file, at, kind, payload).map_err(|what| StoreError::corrupt(path, at as u64, what))?,
                    }
                    at += HEAD + payload.len();
                }
                None if is_last && at > 0 && !holds_frame(&bytes[at + 1..]) => {
                    tracing::warn!(
                        path = %path.display(), offset = at, bytes = bytes.len() - at,
                        "cutting off a write that was not complete when this machine stopped; nothing acknowledged is lost"
                    );
                    let cut = file.file.set_len(at as u64).and_then(|()| file.file.sync_all());
                    cut.map_err(StoreError::io("cut", path))?;
                    break;
                }
                None => return Err(StoreError::corrupt(path, at as u64, "a frame is damaged")),
            }
        }
        if at == 0 {
            return Err(StoreError::corrupt(path, 0, "the file is empty"));
        }
        let end = found.highest_end().max(self.segments.back().map_or(0, |segment| segment.end));
        Ok(Segment { file, number, length: at as u64, end })
    }

    fn check_header(&self, path: &Path, number: u64, payload: &[u8]) -> Result<(), StoreError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let unreadable = |error: serde_json::Error| StoreError::corrupt(path, 0, error.to_string());
        let Format { format } = serde_json::from_slice(payload).map_err(unreadable)?;
        if format > FORMAT {
            return Err(StoreError::Newer { path: path.to_owned(), found: format });
        }
        let header: Header = serde_json::from_slice(payload).map_err(unreadable)?;
        if header.owner != self.owner {
            return Err(StoreError::Foreign { path: path.to_owned(), found: header.owner, wanted: self.owner });
        }
        if header.number != number {
            return Err(StoreError::corrupt(path, 0, format!("it is segment {} under another's name", header.number)));
        }
        Ok(())
    }
}

/// Reads entries. Consecutive ones of a segment are read together.
pub(super) fn read(positions: &[Position]) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut entries = Vec::with_capacity(positions.len());
    let mut rest = positions;
    while let Some(first) = rest.first() {
        let frame_end = |position: &Position| position.frame + u64::from(position.frame_length);
        let fits = |position: &&Position| {
            Arc::ptr_eq(&position.segment, &first.segment)
                && position.frame >= first.frame
                && frame_end(position) - first.frame <= SPAN_BYTES.max(u64::from(first.frame_length))
        };
        let together = rest.iter().take_while(fits).count();
        let (span, later) = rest.split_at(together);
        let path = &first.segment.path;
        let end = frame_end(span.last().expect("the first fits with itself"));
        let mut buffer = vec![0; (end - first.frame) as usize];
        first.segment.file.read_exact_at(&mut buffer, first.frame).map_err(StoreError::io("read", path))?;
        let mut checked = None;
        for position in span {
            let at = (position.frame - first.frame) as usize;
            if checked != Some(at) {
                read_frame(&buffer[at..]).ok_or_else(|| StoreError::corrupt(path, position.frame, "a frame is damaged"))?;
                checked = Some(at);
            }
            let start = at + HEAD + position.start as usize;
            entries.push(buffer[start..start + position.length as usize].to_vec());
        }
        rest = later;
    }
    Ok(entries)
}

/// The log as the frames so far tell it.
struct Replay {
    purged_end: u64,
    first: u64,
    positions: VecDeque<Position>,
    /// The next index, once a frame told.
    next: Option<u64>,
}

impl Replay {
    fn take(&mut self, file: &Arc<SegmentFile>, at: usize, kind: u8, payload: &[u8]) -> Result<(), String> {
        match kind {
            ENTRIES => {
                let (first, ranges) = split_entries(payload).ok_or("the entries are not as they are written")?;
                let next = first.checked_add(ranges.len() as u64).ok_or("an index beyond every log")?;
                self.make_room(first)?;
                self.next = Some(next);
                let frame_length = (HEAD + payload.len()) as u32;
                self.positions.extend(ranges.into_iter().map(|range| Position {
                    segment: file.clone(),
                    frame: at as u64,
                    frame_length,
                    start: range.start as u32,
                    length: range.len() as u32,
                }));
                Ok(())
            }
            TRUNCATE => {
                let since: u64 = parse(payload).ok_or("a truncation without an index")?;
                self.positions.truncate(since.saturating_sub(self.first) as usize);
                self.next = self.next.map(|next| next.min(since));
                Ok(())
            }
            other => Err(format!("a frame of unknown kind {other}")),
        }
    }

    fn make_room(&mut self, first: u64) -> Result<(), String> {
        match self.next {
            Some(next) if next == first && !self.positions.is_empty() => Ok(()),
            // After a snapshot was installed the log goes on behind it, and what it skips is purged.
            Some(next) if next != first && (next > first || next > self.purged_end) => {
                Err(format!("entry {first} where {next} belongs"))
            }
            _ => {
                self.positions.clear();
                self.first = first;
                Ok(())
            }
        }
    }

    fn highest_end(&self) -> u64 {
        self.next.unwrap_or(0)
    }
}

pub(super) fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("proposals are limited to far less than 4 GiB");
    let mut bytes = Vec::with_capacity(HEAD + payload.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[kind, 0, 0, 0]);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&checksum(&bytes[4..12], payload).to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The frame at the beginning of some bytes, if there is a whole and good one.
fn read_frame(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let head = bytes.get(..HEAD)?;
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let payload = bytes.get(HEAD..HEAD.checked_add(number(8) as usize)?)?;
    let is_good = head[..4] == MAGIC && checksum(&head[4..12], payload) == number(12);
    is_good.then_some((head[4], payload))
}

fn checksum(head: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(payload);
    hasher.finalize()
}

/// Whether a good frame begins anywhere.
fn holds_frame(bytes: &[u8]) -> bool {
    let starts = bytes.windows(MAGIC.len()).enumerate().filter(|(_, window)| *window == MAGIC);
    starts.into_iter().any(|(at, _)| read_frame(&bytes[at..]).is_some())
}

/// The index of the first entry, and where the entries are in the payload.
fn split_entries(payload: &[u8]) -> Option<(u64, Vec<Range<usize>>)> {
    let mut ends = payload.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    let line = ends.next()?;
    let first = parse(&payload[..line])?;
    let mut start = line + 1;
    let ranges: Vec<_> = ends.map(|end| std::mem::replace(&mut start, end + 1)..end).collect();
    (start == payload.len() && !ranges.is_empty()).then_some((first, ranges))
}

fn parse(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Takes a directory for this process until the returned file is dropped.
pub(super) fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join("LOCK");
    let file = File::options().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(StoreError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::Locked { dir: dir.to_owned() }),
        Err(std::fs::TryLockError::Error(error)) => Err(StoreError::io("lock", &path)(error)),
    }
}

/// An [`io::Error`] that says everything a [`StoreError`] says, for interfaces that take no other.
impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            StoreError::Io { source, .. } => source.kind(),
            _ => io::ErrorKind::InvalidData,
        };
        let mut text = error.to_string();
        if let Some(source) = std::error::Error::source(&error) {
            text = format!("{text}: {source}");
        }
        io::Error::new(kind, text)
    }
}

#[cfg(test)]
#[path = "wal_tests.rs"]
mod tests;
