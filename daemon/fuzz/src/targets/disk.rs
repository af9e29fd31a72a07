//! What masters and agents find on their disks.

use super::lines;
use crate::{fixture, unescape};
use drover_core::node::Node;
use drover_core::state::ClusterState;
use drover_core::unit::{FORMAT, ledger_text, read_ledger};
use drover_master::consensus::StoreError;
use drover_master::inputs::{Frame, Held, Sealed, apply_entry, read_directory, seal, segment};
use std::path::Path;
use uuid::Uuid;

const CLUSTER: Uuid = Uuid::from_u128(1);
const NODE: u64 = 7;

/// The header of a log's first segment.
const HEADER: &[u8] = br#"{"format":1,"owner":{"cluster":"00000000-0000-0000-0000-000000000001","node":7},"number":1}"#;

/// Entries, applied one after the other. Applying is total: it ends, for every command, in a change or in a refusal, and all
/// masters come to the same state.
pub(super) fn log_entries(bytes: &[u8]) {
    let mut state = fixture::cluster();
    let mut twin = state.clone();
    for line in lines(bytes).take(32) {
        let applied = apply_entry(line, &mut state);
        let again = apply_entry(line, &mut twin);
        assert_eq!(applied, again);
    }
    assert_eq!(state, twin, "two masters differ");
    let mut again: ClusterState =
        serde_json::from_slice(&serde_json::to_vec(&state).expect("a state is plain data")).expect("a state reads back");
    again.rebuild_indexes();
    assert_eq!(state, again, "from its snapshot it is another");
}

/// A log of one segment or more. What is wrong with it is told, or it is read; having been repaired, it is read as the same.
pub(super) fn log_segments(bytes: &[u8]) {
    let directory = directory();
    begin(directory.path());
    let mut files: Vec<Vec<u8>> = vec![Vec::new()];
    for line in bytes.split(|byte| *byte == b'\n') {
        let (Some(kind), payload) = (line.first(), unescape(line.get(1..).unwrap_or_default())) else { continue };
        let count = files.len();
        let file = files.last_mut().expect("there is a first");
        match kind {
            b'!' => file.extend(payload),
            b'#' if count < 4 => files.push(Vec::new()),
            b'#' => {}
            // A header without a payload is the right one.
            b'H' if payload.is_empty() => {
                let number = format!("\"number\":{count}");
                let header = String::from_utf8_lossy(HEADER).replace("\"number\":1", &number);
                file.extend(segment(&[(b'H', header.as_bytes())]));
            }
            kind => file.extend(segment(&[(*kind, &payload)])),
        }
    }
    for (at, file) in files.iter().enumerate() {
        write(&directory.path().join(format!("wal-{:020}", at + 1)), file);
    }
    check_directory(directory.path());
}

/// A snapshot that is whole, whatever it says.
pub(super) fn snapshot(bytes: &[u8]) {
    let directory = directory();
    begin(directory.path());
    write(&directory.path().join("wal-00000000000000000001"), &segment(&[(b'H', HEADER)]));
    write(&directory.path().join(Sealed::Snapshot.file_name()), &seal(Sealed::Snapshot, CLUSTER, NODE, bytes));
    let Some(held) = check_directory(directory.path()) else { return };
    let state = held.state.expect("there is a snapshot");
    let content = [b"{\"state_version\":1,\"meta\":{\"last_log_id\":null,\"last_membership\":{\"log_id\":null,\"membership\":{\"configs\":[],\"nodes\":{}}},\"snapshot_id\":\"\"}}\n".as_slice(), &serde_json::to_vec(&state).expect("a state is plain data")].concat();
    write(&directory.path().join(Sealed::Snapshot.file_name()), &seal(Sealed::Snapshot, CLUSTER, NODE, &content));
    let again = check_directory(directory.path()).expect("what was read can be written and read");
    assert_eq!(again.state.as_ref(), Some(&state), "from its snapshot it is another");
}

/// One of the small files beside the log, in a directory that is otherwise as it must be.
pub(super) fn raft_file(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let (head, content) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let mut words = head.split(|byte| *byte == b' ');
    let (how, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let files = [Sealed::Begun, Sealed::Vote, Sealed::Purged, Sealed::Snapshot];
    let Some(file) = files.into_iter().find(|file| file.file_name().as_bytes() == name) else { return };
    let directory = directory();
    begin(directory.path());
    let frames: [Frame<'_>; 2] = [(b'H', HEADER), (b'E', b"0\n{}\n{}\n{}\n")];
    write(&directory.path().join("wal-00000000000000000001"), &segment(&frames));
    let content = if how == b"raw" { content.to_vec() } else { seal(file, CLUSTER, NODE, content) };
    write(&directory.path().join(file.file_name()), &content);
    check_directory(directory.path());
}

/// An agent's ledger.
pub(super) fn ledger(bytes: &[u8]) {
    let Ok(read) = read_ledger(bytes) else { return };
    assert!(read.good <= bytes.len());
    let repaired = read_ledger(&bytes[..read.good]).expect("what is good can be read");
    assert_eq!(
        (&repaired.ledger, repaired.good, repaired.lines),
        (&read.ledger, read.good, read.lines),
        "cutting the end off changes it"
    );
    if read.format > FORMAT {
        return;
    }
    let text = ledger_text(&read.ledger.compacted());
    let again = read_ledger(&text).expect("a compacted ledger can be read");
    assert_eq!(again.ledger, read.ledger, "compacted it says something else");
    // An agent begins with it and finds nothing of it running.
    let mut node = Node::new(read.ledger, fixture::facts(), "boot".into(), fixture::after(0));
    let connected = drover_core::node::Done::Connected { began_at: 1, units: Vec::new() };
    node.take_in(drover_core::node::Input::Done(connected), fixture::after(1)).expect("only assignments are left unheeded");
    for at in [20, 40, 60] {
        node.take_in(drover_core::node::Input::Tick, fixture::after(at)).expect("only assignments are left unheeded");
        node.turn(fixture::after(at + 15));
        let Ok(_effects) = node.put_on_record(|_, _| Ok::<_, std::convert::Infallible>(()));
    }
}

fn directory() -> tempfile::TempDir {
    // In memory where there is such a place: what is tried thousands of times needs no disk.
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a directory can be made")
}

fn begin(directory: &Path) {
    write(&directory.join(Sealed::Begun.file_name()), &seal(Sealed::Begun, CLUSTER, NODE, b""));
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).expect("a file can be written");
}

/// What it holds, if a start would not refuse it.
fn check_directory(directory: &Path) -> Option<Held> {
    match read_directory(directory, CLUSTER, NODE) {
        Ok(held) => {
            let again = read_directory(directory, CLUSTER, NODE).expect("what was read, and repaired, can be read");
            assert_eq!(held, again, "read again it is another");
            let mut state = held.state.clone().unwrap_or_else(fixture::cluster);
            for entry in &held.entries {
                // What is no entry stops the master in words; so it does here.
                let Ok(_commands) = apply_entry(entry, &mut state) else { break };
            }
            Some(held)
        }
        Err(error) => {
            assert!(!matches!(error, StoreError::Io { .. }), "no disk failed: {error}");
            assert!(error.to_string().contains(&directory.display().to_string()), "it says where: {error}");
            None
        }
    }
}
