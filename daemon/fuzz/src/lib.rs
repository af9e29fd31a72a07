//! Every input of drover as bytes: HTTP requests of each dialect, what agents and masters say to each other, a master's log and
//! snapshots, an agent's ledger, the configuration, systemd's messages, fields of the journal, and the small texts in all of them.
//!
//! A [`Target`] is a function over bytes. It hands them to the code that reads them in production and asserts what must hold
//! whatever they are: nothing panics, what is accepted reads back as the same, what is refused says where and why. A target that
//! finds nothing wrong returns.
//!
//! ```text
//! corpus/<target>/*   inputs that reach something, small ─┐
//! found/<target>-*    every input that broke something  ──┼─▶ tests/replay.rs: all of them, and changed copies   (cargo test)
//!                                                         └─▶ the guided binary: libFuzzer goes on from there    (daemon/fuzz/run)
//! ```

mod fixture;
pub mod mutate;
mod targets;

pub use targets::TARGETS;

use std::path::{Path, PathBuf};

/// One kind of input.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Names its corpus.
    pub name: &'static str,
    /// What its bytes are.
    pub what: &'static str,
    /// Panics if they break something.
    pub run: fn(&[u8]),
}

/// The target of a name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

impl Target {
    /// The files that are kept for it, corpus first.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub fn kept(&self) -> std::io::Result<Vec<PathBuf>> {
        let home = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files = files_of(&home.join("corpus").join(self.name))?;
        let prefix = format!("{}-", self.name);
        let is_own = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            // The longest name that fits: `agent` must not take what `agent-message` found.
            let owner = TARGETS.iter().filter(|target| name.starts_with(&format!("{}-", target.name)));
            name.starts_with(&prefix)
                && owner.max_by_key(|target| target.name.len()).is_some_and(|owner| owner.name == self.name)
        };
        files.extend(files_of(&home.join("found"))?.into_iter().filter(is_own));
        Ok(files)
    }
}

fn files_of(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries: std::io::Result<Vec<_>> = std::fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut files: Vec<PathBuf> = entries?.into_iter().filter(|path| path.is_file()).collect();
    files.sort();
    Ok(files)
}

/// Bytes out of a line: `\n`, `\\`, `\"` and `\xNN`.
fn unescape(line: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(line.len());
    let mut rest = line;
    while let Some((byte, tail)) = rest.split_first() {
        (out, rest) = match (byte, tail) {
            (b'\\', [b'n', tail @ ..]) => ([out, vec![b'\n']].concat(), tail),
            (b'\\', [byte @ (b'\\' | b'"'), tail @ ..]) => ([out, vec![*byte]].concat(), tail),
            (b'\\', [b'x', high, low, tail @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16).unwrap_or(0) as u8;
                ([out, vec![digit(high) << 4 | digit(low)]].concat(), tail)
            }
            (byte, tail) => {
                out.push(*byte);
                (out, tail)
            }
        };
    }
    out
}
