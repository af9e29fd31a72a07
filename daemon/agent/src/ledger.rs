//! The ledger on disk: one record a line, synced in batches. Its meaning is [`drover_core::unit::Ledger`].
//!
//! A batch that a power cut tore is dropped: nothing was done on account of it, because nothing is done before it is synced.
//! Anything else that cannot be read stops the agent: going on from a half ledger could start a task twice.

use crate::metrics;
use drover_core::ids::AgentId;
use drover_core::unit::{FORMAT, Ledger, Record};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;
use tracing::{info, warn};

/// A ledger is rewritten when it has so many more lines than it needs.
const SPARE_LINES_MAX: usize = 4096;

/// Why there is no ledger.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerError {
    #[error("{path} cannot be {doing}")]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{path}, line {line}, is damaged in the middle of the ledger. Which tasks were started before cannot be told from it, so \
         nothing is. To give the node's tasks up and begin anew, stop drover-*.service, move the file away and start the agent"
    )]
    Damaged {
        path: PathBuf,
        line: usize,
        #[source]
        source: serde_json::Error,
    },
    #[error("{path} belongs to agent {owner}, and this is agent {own}: another identity was put beside it. Move the file away")]
    Foreign { path: PathBuf, owner: AgentId, own: AgentId },
    #[error("{path} has format {found}; this version reads up to {FORMAT}. Use the drover that wrote it, or a newer one")]
    Newer { path: PathBuf, found: u32 },
}

/// An agent's ledger: what it says, and the file it is kept in.
#[derive(Debug)]
pub(crate) struct LedgerFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    ledger: Ledger,
    lines: usize,
}

impl LedgerFile {
    /// Reads the ledger of `agent` in `directory`, or begins one.
    pub(crate) fn open(directory: &Path, agent: &AgentId) -> Result<Self, LedgerError> {
        let path = directory.join("ledger");
        let failed = |doing| {
            let path = path.clone();
            move |source| LedgerError::Io { doing, path, source }
        };
        std::fs::create_dir_all(directory).map_err(failed("made a place for"))?;
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed("read")(error)),
        };
        let (records, good) = parse(&bytes, &path)?;
        let mut ledger = Ledger::default();
        for record in &records {
            if let Record::Opened { format, .. } = record
                && *format > FORMAT
            {
                return Err(LedgerError::Newer { path, found: *format });
            }
            ledger.apply(record);
        }
        if let Some(owner) = ledger.agent.clone().filter(|owner| owner != agent) {
            return Err(LedgerError::Foreign { path, owner, own: agent.clone() });
        }
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(failed("opened"))?;
        if good < bytes.len() {
            warn!(path = %path.display(), bytes = bytes.len() - good, "the ledger's end was torn; the torn batch is dropped");
            file.set_len(good as u64).and_then(|()| file.sync_all()).map_err(failed("repaired"))?;
        }
        let mut opened = Self { path, file, bytes: good as u64, ledger, lines: records.len() };
        if opened.ledger.agent.is_none() {
            opened.append(&[Record::Opened { format: FORMAT, agent: agent.clone() }])?;
            opened.sync_directory()?;
        }
        Ok(opened)
    }

    /// What it says.
    pub(crate) fn get(&self) -> &Ledger {
        &self.ledger
    }

    /// How long the file is.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds records; they are on disk when this returns. After an error the agent must end: what is on disk is not known.
    pub(crate) fn append(&mut self, records: &[Record]) -> Result<(), LedgerError> {
        if records.is_empty() {
            return Ok(());
        }
        let mut text = Vec::new();
        for record in records {
            serde_json::to_writer(&mut text, record).expect("a record is plain data");
            text.push(b'\n');
        }
        let began = Instant::now();
        self.file.write_all(&text).and_then(|()| self.file.sync_data()).map_err(|source| LedgerError::Io {
            doing: "written",
            path: self.path.clone(),
            source,
        })?;
        metrics::LEDGER.took([], began.elapsed());
        metrics::LEDGER_RECORDS.observe([], records.len() as f64);
        self.bytes += text.len() as u64;
        records.iter().for_each(|record| self.ledger.apply(record));
        self.lines += records.len();
        let needed = self.ledger.tasks.len() + 3;
        if self.lines > needed + SPARE_LINES_MAX.max(needed) { self.compact() } else { Ok(()) }
    }

    /// Writes what it says anew, as short as can be.
    fn compact(&mut self) -> Result<(), LedgerError> {
        let failed = |doing| {
            let path = self.path.clone();
            move |source| LedgerError::Io { doing, path, source }
        };
        let records = self.ledger.compacted();
        let new = self.path.with_extension("new");
        let mut text = Vec::new();
        for record in &records {
            serde_json::to_writer(&mut text, record).expect("a record is plain data");
            text.push(b'\n');
        }
        let mut file = File::create(&new).map_err(failed("rewritten"))?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed("rewritten"))?;
        std::fs::rename(&new, &self.path).map_err(failed("replaced"))?;
        self.sync_directory()?;
        self.file = OpenOptions::new().append(true).open(&self.path).map_err(failed("opened"))?;
        info!(from = self.lines, to = records.len(), "ledger rewritten");
        self.lines = records.len();
        self.bytes = text.len() as u64;
        Ok(())
    }

    fn sync_directory(&self) -> Result<(), LedgerError> {
        let directory = self.path.parent().expect("the ledger lies in a directory");
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(|source| LedgerError::Io {
            doing: "synced",
            path: self.path.clone(),
            source,
        })
    }
}

/// The records, and how many bytes they take: less than all when the end is torn.
fn parse(bytes: &[u8], path: &Path) -> Result<(Vec<Record>, usize), LedgerError> {
    let mut records = Vec::new();
    let mut good = 0;
    let mut bad: Option<(usize, serde_json::Error)> = None;
    for (number, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let parsed = match line.strip_suffix(b"\n") {
            Some(line) => serde_json::from_slice::<Record>(line),
            // Without its end a line was not written whole, whatever it looks like.
            None => break,
        };
        match (parsed, bad.take()) {
            (Ok(record), None) => {
                records.push(record);
                good += line.len();
            }
            // Good after bad: that is no torn end.
            (Ok(_), Some((line, source))) => return Err(LedgerError::Damaged { path: path.to_owned(), line, source }),
            (Err(_), Some(first)) => bad = Some(first),
            (Err(error), None) => bad = Some((number + 1, error)),
        }
    }
    Ok((records, good))
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_core::ids::TaskId;

    fn agent() -> AgentId {
        AgentId::new("a1")
    }

    fn starting(n: usize) -> Record {
        Record::Acknowledged { task: TaskId::new(format!("t{n}")), seq: 1 }
    }

    fn swept(n: usize) -> Record {
        Record::Unswept { tasks: [(TaskId::new(format!("t{n}")), drover_core::time::Timestamp(1))].into() }
    }

    #[test]
    fn what_was_appended_is_there_again() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = LedgerFile::open(directory.path(), &agent()).unwrap();
        ledger.append(&[swept(1), starting(1)]).unwrap();
        let before = ledger.get().clone();
        drop(ledger);
        assert_eq!(LedgerFile::open(directory.path(), &agent()).unwrap().get(), &before);
        assert_eq!(before.unswept.len(), 1);
    }

    #[test]
    fn a_torn_end_is_cut_off_wherever_it_tore() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        let mut ledger = LedgerFile::open(directory.path(), &agent()).unwrap();
        ledger.append(&[swept(1)]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        ledger.append(&[swept(2)]).unwrap();
        let longer = std::fs::read(&path).unwrap();
        let expect = |tasks: &[&str]| {
            let ledger = LedgerFile::open(directory.path(), &agent()).unwrap();
            assert!(ledger.get().unswept.keys().map(TaskId::as_str).eq(tasks.iter().copied()), "{:?}", ledger.get().unswept);
        };
        for cut in whole.len()..longer.len() {
            std::fs::write(&path, &longer[..cut]).unwrap();
            expect(&["t1"]);
            assert_eq!(std::fs::read(&path).unwrap(), whole, "repaired");
        }
        // A block that was allocated and never written.
        std::fs::write(&path, [&whole[..], &[0; 512], b"\n", &[0; 9]].concat()).unwrap();
        expect(&["t1"]);
        std::fs::write(&path, &longer).unwrap();
        expect(&["t2"]);
    }

    #[test]
    fn damage_in_the_middle_another_owner_and_a_newer_format_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        let mut ledger = LedgerFile::open(directory.path(), &agent()).unwrap();
        ledger.append(&[swept(1)]).unwrap();
        let whole = String::from_utf8(std::fs::read(&path).unwrap()).unwrap();
        let refuse = |text: &str, own: &str, part: &str| {
            std::fs::write(&path, text).unwrap();
            let error = LedgerFile::open(directory.path(), &AgentId::new(own)).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "left as it was");
        };
        let damaged = whole.replacen("unswept", "unsw\u{0}ept", 1) + &whole;
        refuse(&damaged, "a1", "line 2, is damaged");
        refuse(&whole, "a2", "belongs to agent a1");
        refuse(&whole.replace("\"format\":1", "\"format\":2"), "a1", "format 2");
    }

    #[test]
    fn a_long_ledger_is_rewritten_and_says_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = LedgerFile::open(directory.path(), &agent()).unwrap();
        let records: Vec<Record> = (0..SPARE_LINES_MAX + 10).map(swept).collect();
        ledger.append(&records).unwrap();
        assert!(ledger.lines < 5, "{}", ledger.lines);
        ledger.append(&[starting(1)]).unwrap();
        let before = ledger.get().clone();
        assert_eq!(LedgerFile::open(directory.path(), &agent()).unwrap().get(), &before);
    }
}
