//! The ledger on disk: one record a line, synced in batches. Its meaning, and what is made of a torn or damaged one, is
//! [`drover_core::unit::Ledger`]'s. One that cannot be read stops the agent: going on from a half ledger could start a task twice.

use crate::metrics;
use drover_core::ids::AgentId;
use drover_core::unit::{self, Damaged, FORMAT, Ledger, LedgerText, Record};
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
         nothing is. To begin anew, move the file away and start the agent: what runs is taken over, and what systemd does not \
         have any more is told as lost"
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

/// The file an agent's ledger is kept in. What it says is the mind's.
#[derive(Debug)]
pub(crate) struct LedgerFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    lines: usize,
}

impl LedgerFile {
    /// Reads the ledger of `agent` in `directory`, or begins one.
    pub(crate) fn open(directory: &Path, agent: &AgentId) -> Result<(Self, Ledger), LedgerError> {
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
        let LedgerText { mut ledger, format, lines, good } =
            unit::read_ledger(&bytes).map_err(|Damaged { line, source }| {
                let path = path.clone();
                LedgerError::Damaged { path, line, source }
            })?;
        if format > FORMAT {
            return Err(LedgerError::Newer { path, found: format });
        }
        if let Some(owner) = ledger.agent.clone().filter(|owner| owner != agent) {
            return Err(LedgerError::Foreign { path, owner, own: agent.clone() });
        }
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(failed("opened"))?;
        if good < bytes.len() {
            warn!(path = %path.display(), bytes = bytes.len() - good, "the ledger's end was torn; the torn batch is dropped");
            file.set_len(good as u64).and_then(|()| file.sync_all()).map_err(failed("repaired"))?;
        }
        let mut opened = Self { path, file, bytes: good as u64, lines };
        if ledger.agent.is_none() {
            let first = Record::Opened { format: FORMAT, agent: agent.clone() };
            ledger.apply(&first);
            opened.append(&[first], &ledger)?;
            opened.sync_directory()?;
        }
        Ok((opened, ledger))
    }

    /// How long the file is.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds records, with which the ledger is `after`; they are on disk when this returns. After an error the agent must end:
    /// what is on disk is not known.
    pub(crate) fn append(&mut self, records: &[Record], after: &Ledger) -> Result<(), LedgerError> {
        let text = unit::ledger_text(records);
        let began = Instant::now();
        self.file.write_all(&text).and_then(|()| self.file.sync_data()).map_err(|source| LedgerError::Io {
            doing: "written",
            path: self.path.clone(),
            source,
        })?;
        metrics::LEDGER.took([], began.elapsed());
        metrics::LEDGER_RECORDS.observe([], records.len() as f64);
        self.bytes += text.len() as u64;
        self.lines += records.len();
        let needed = after.tasks.len() + 3;
        if self.lines > needed + SPARE_LINES_MAX.max(needed) { self.compact(after) } else { Ok(()) }
    }

    /// Writes what it says anew, as short as can be.
    fn compact(&mut self, ledger: &Ledger) -> Result<(), LedgerError> {
        let failed = |doing| {
            let path = self.path.clone();
            move |source| LedgerError::Io { doing, path, source }
        };
        let records = ledger.compacted();
        let new = self.path.with_extension("new");
        let mut file = File::create(&new).map_err(failed("rewritten"))?;
        let text = unit::ledger_text(&records);
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

    /// A ledger file and what it says.
    struct Kept(LedgerFile, Ledger);

    impl Kept {
        fn open(directory: &Path) -> Self {
            let (file, ledger) = LedgerFile::open(directory, &agent()).unwrap();
            Self(file, ledger)
        }

        fn append(&mut self, records: &[Record]) {
            records.iter().for_each(|record| self.1.apply(record));
            self.0.append(records, &self.1).unwrap();
        }
    }

    #[test]
    fn what_was_appended_is_there_again() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Kept::open(directory.path());
        ledger.append(&[swept(1), starting(1)]);
        let before = ledger.1.clone();
        drop(ledger);
        assert_eq!(Kept::open(directory.path()).1, before);
        assert_eq!(before.unswept.len(), 1);
    }

    #[test]
    fn a_torn_end_is_cut_off_wherever_it_tore() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        let mut ledger = Kept::open(directory.path());
        ledger.append(&[swept(1)]);
        let whole = std::fs::read(&path).unwrap();
        ledger.append(&[swept(2)]);
        let longer = std::fs::read(&path).unwrap();
        let expect = |tasks: &[&str]| {
            let ledger = Kept::open(directory.path()).1;
            assert!(ledger.unswept.keys().map(TaskId::as_str).eq(tasks.iter().copied()), "{:?}", ledger.unswept);
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
        let mut ledger = Kept::open(directory.path());
        ledger.append(&[swept(1)]);
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
        let mut ledger = Kept::open(directory.path());
        let records: Vec<Record> = (0..SPARE_LINES_MAX + 10).map(swept).collect();
        ledger.append(&records);
        assert!(ledger.0.lines < 5, "{}", ledger.0.lines);
        ledger.append(&[starting(1)]);
        assert_eq!(Kept::open(directory.path()).1, ledger.1);
    }
}
