use std::os::unix::fs::FileExt;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const OWNER: Owner = Owner { cluster: Uuid::from_u128(1), node: 2 };

/// A log under test, and what must be in it.
struct Log {
    dir: tempfile::TempDir,
    opened: Opened,
    purged_end: u64,
    segment_bytes: u64,
}

impl Log {
    fn new(segment_bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Wal::create(dir.path(), OWNER).unwrap();
        let opened = Wal::open(dir.path(), OWNER, 0, segment_bytes).unwrap();
        Self { dir, opened, purged_end: 0, segment_bytes }
    }

    fn reopen(&mut self) {
        self.opened = Wal::open(self.dir.path(), OWNER, self.purged_end, self.segment_bytes).unwrap();
    }

    fn end(&self) -> u64 {
        match self.opened.positions.len() as u64 {
            0 => self.purged_end,
            length => self.opened.first + length,
        }
    }

    fn append(&mut self, entries: &[Vec<u8>]) {
        let first = self.end();
        if self.opened.positions.is_empty() {
            self.opened.first = first;
        }
        let positions = self.opened.wal.append(first, entries).unwrap();
        self.opened.positions.extend(positions);
    }

    fn truncate(&mut self, since: u64) {
        self.opened.wal.truncate(since).unwrap();
        self.opened.positions.truncate(since.saturating_sub(self.opened.first) as usize);
    }

    fn purge(&mut self, end: u64) {
        self.purged_end = end;
        self.opened.wal.remove_purged(end).unwrap();
        while self.opened.first < end && self.opened.positions.pop_front().is_some() {
            self.opened.first += 1;
        }
    }

    /// The entries that are not purged, with their indexes.
    fn content(&self) -> Vec<(u64, Vec<u8>)> {
        let positions: Vec<_> = self.opened.positions.iter().cloned().collect();
        let entries = read(&positions).unwrap();
        (self.opened.first..).zip(entries).filter(|(index, _)| *index >= self.purged_end).collect()
    }

    fn segments(&self) -> Vec<PathBuf> {
        self.opened.wal.segments.iter().map(|segment| segment.file.path.clone()).collect()
    }
}

fn batch(from: u64, count: u64) -> Vec<Vec<u8>> {
    (from..from + count).map(|index| format!(r#"{{"entry":{index}}}"#).into_bytes()).collect()
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<Vec<u8>>),
    Truncate(u64),
    Purge(u64),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    // Everything but the newline, which JSON in one line never holds.
    let entry = prop::collection::vec((0u8..=255).prop_filter("one line", |byte| *byte != b'\n'), 0..80);
    prop_oneof![
        5 => prop::collection::vec(entry, 1..6).prop_map(Step::Append),
        2 => (0u64..60).prop_map(Step::Truncate),
        2 => (0u64..60).prop_map(Step::Purge),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 200, ..ProptestConfig::default() })]

    /// Whatever is done to a log, reopening it finds what was there, in small segments as in large ones.
    #[test]
    fn a_log_is_what_was_done_to_it(steps in prop::collection::vec(step(), 1..30), segment_bytes in 1u64..400) {
        let mut log = Log::new(segment_bytes);
        let mut model: Vec<(u64, Vec<u8>)> = Vec::new();
        for step in steps {
            match step {
                Step::Append(entries) => {
                    let end = log.end();
                    model.extend((end..).zip(entries.iter().cloned()));
                    log.append(&entries);
                }
                // Raft takes back only what is not purged, and purges at will, also beyond the end.
                Step::Truncate(back) => {
                    let since = log.end().saturating_sub(back).max(log.purged_end);
                    model.retain(|(index, _)| *index < since);
                    log.truncate(since);
                }
                Step::Purge(ahead) => {
                    let end = log.purged_end + ahead;
                    model.retain(|(index, _)| *index >= end);
                    log.purge(end);
                }
                Step::Reopen => log.reopen(),
            }
            prop_assert_eq!(&log.content(), &model);
        }
        log.reopen();
        prop_assert_eq!(&log.content(), &model);
    }
}

/// A machine that stops in the middle of a write: whatever of the last frame reached the disk, all that was
/// acknowledged is there, and the log goes on.
#[test]
fn a_torn_tail_is_cut_at_every_byte() {
    let mut log = Log::new(u64::MAX);
    log.append(&batch(0, 3));
    log.append(&batch(3, 1));
    let path = log.segments().pop().unwrap();
    let acknowledged = log.content();
    let before = std::fs::metadata(&path).unwrap().len() as usize;
    log.append(&batch(4, 3));
    let whole = std::fs::read(&path).unwrap();
    for cut in before..whole.len() {
        for fill in [None, Some(0u8), Some(0xff)] {
            // The file may have grown before all its content arrived.
            let mut torn = whole[..cut].to_vec();
            torn.extend(fill.into_iter().flat_map(|byte| std::iter::repeat_n(byte, whole.len() - cut)));
            if torn == whole {
                continue;
            }
            std::fs::write(&path, &torn).unwrap();
            log.reopen();
            assert_eq!(log.content(), acknowledged, "cut at {cut}, filled with {fill:?}");
            log.append(&batch(4, 1));
            log.reopen();
            assert_eq!(log.content()[4].1, batch(4, 1)[0]);
        }
    }
}

/// Pages reach the disk in any order: a hole in the last frame is a torn write as well.
#[test]
fn a_hole_in_the_last_frame_is_a_torn_tail() {
    let mut log = Log::new(u64::MAX);
    log.append(&batch(0, 1));
    let path = log.segments().pop().unwrap();
    let before = std::fs::metadata(&path).unwrap().len();
    log.append(&[vec![b'x'; 10_000], vec![b'y'; 10_000]]);
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[0; 4096], before).unwrap();
    log.reopen();
    assert_eq!(log.content().len(), 1);
}

/// What `damage` did to an otherwise good log of several frames must be refused, naming the file.
fn check_refused(segment_bytes: u64, damage: impl FnOnce(&[PathBuf]), expected: &str) {
    let mut log = Log::new(segment_bytes);
    for at in 0..10 {
        log.append(&batch(at, 1));
    }
    let segments = log.segments();
    let dir = log.dir;
    drop(log.opened);
    damage(&segments);
    let Err(error) = Wal::open(dir.path(), OWNER, 0, segment_bytes) else { panic!("must be refused") };
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn damage_that_no_crash_explains_is_refused() {
    let flip = |path: &Path, at: usize| {
        let mut bytes = std::fs::read(path).unwrap();
        bytes[at] ^= 0x40;
        std::fs::write(path, bytes).unwrap();
    };
    let header = HEAD + 90;
    // An acknowledged frame, whatever byte of it: good ones follow.
    for at in header..header + 60 {
        check_refused(u64::MAX, |segments| flip(&segments[0], at), "corrupt");
    }
    check_refused(u64::MAX, |segments| flip(&segments[0], 3), "corrupt at byte 0");
    check_refused(u64::MAX, |segments| std::fs::write(&segments[0], b"").unwrap(), "empty");
    // The last frame of a segment that is not the last one was acknowledged before the next began.
    check_refused(1, |segments| flip(&segments[2], std::fs::metadata(&segments[2]).unwrap().len() as usize - 2), "corrupt");
    check_refused(1, |segments| std::fs::remove_file(&segments[3]).unwrap(), "missing");
    check_refused(1, |segments| segments[..2].iter().for_each(|path| std::fs::remove_file(path).unwrap()), "missing");
    check_refused(1, |segments| std::fs::copy(&segments[4], &segments[3]).map(drop).unwrap(), "under another's name");
    check_refused(1, |segments| segments.iter().for_each(|path| std::fs::remove_file(path).unwrap()), "gone");
}

#[test]
fn anothers_log_and_a_newer_one_are_refused() {
    let mut log = Log::new(u64::MAX);
    log.append(&batch(0, 1));
    let foreign = Owner { node: 3, ..OWNER };
    assert!(matches!(Wal::open(log.dir.path(), foreign, 0, 1), Err(StoreError::Foreign { .. })));
    let newer = frame(HEADER, br#"{"format":7}"#);
    std::fs::write(&log.segments()[0], newer).unwrap();
    assert!(matches!(Wal::open(log.dir.path(), OWNER, 0, 1), Err(StoreError::Newer { found: 7, .. })));
}

#[test]
fn purging_removes_whole_segments_and_only_those() {
    let mut log = Log::new(1);
    for at in 0..10 {
        log.append(&batch(at, 1));
    }
    // The first one was full with its header.
    assert_eq!(log.segments().len(), 11);
    let held = log.opened.positions[2].clone();
    log.purge(7);
    assert_eq!(log.segments().len(), 3);
    assert_eq!(read(&[held]).unwrap(), batch(2, 1), "a reader that was there before goes on reading");
    log.reopen();
    assert_eq!(log.content().first().unwrap().0, 7);
    // A snapshot from the leader lets the log go on behind a gap.
    log.purge(100);
    log.append(&batch(100, 2));
    log.reopen();
    assert_eq!(log.content().iter().map(|(index, _)| *index).collect::<Vec<_>>(), [100, 101]);
}

#[test]
fn two_processes_cannot_have_one_log() {
    let dir = tempfile::tempdir().unwrap();
    let held = lock(dir.path()).unwrap();
    assert!(matches!(lock(dir.path()), Err(StoreError::Locked { .. })));
    drop(held);
    lock(dir.path()).unwrap();
}
