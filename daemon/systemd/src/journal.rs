//! Reading the journal. Everything here blocks: call it on a blocking thread.
//!
//! Two traps of the library, both seen: after seeking to the end of a journal that matches nothing, later entries are never
//! found, so an empty match is followed from its beginning; and a wait may return before the entry that woke it can be read,
//! so every wait is short and followed by another look.

use drover_core::sandbox::Manager;
use drover_core::unit::{Evidence, FIELD_APP, FIELD_FRAMEWORK, FIELD_JOB, FIELD_RUN, FIELD_TASK};
use std::io;
use std::time::{Duration, Instant};
use systemd::journal::{Journal, OpenOptions};

/// How long a follower waits before it looks again, whether its reader is still there and whether an entry came after all.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Longest line passed on; what is longer is cut. journald itself cuts at 48 KiB unless told otherwise.
const FIELD_BYTES_MAX: usize = 64 * 1024;

/// Which entries to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// Entries that carry any of these fields with this value. None means all entries of drover's tasks.
    pub any_of: Vec<(String, String)>,
    /// How many of the newest to begin with; `None` means all.
    pub lines: Option<u64>,
    /// Entries from this time on, microseconds since 1970.
    pub since_us: Option<u64>,
    /// Go on with what comes.
    pub follow: bool,
}

/// An entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// Microseconds since 1970.
    pub at_us: u64,
    /// Its task.
    pub task: String,
    /// Its app.
    pub app: Option<String>,
    /// Its job.
    pub job: Option<String>,
    /// Its run.
    pub run: Option<String>,
    /// 0 to 7.
    pub priority: u8,
    /// Who wrote it.
    pub pid: Option<u32>,
    /// The line.
    pub message: String,
}

/// Reads entries until `sink` returns false or, unless following, there are no more.
///
/// `is_wanted` is asked while nothing comes.
///
/// # Errors
/// The journal cannot be opened or read.
pub fn read(query: &Query, is_wanted: impl Fn() -> bool, mut sink: impl FnMut(Entry) -> bool) -> io::Result<()> {
    let mut journal = open()?;
    let all = ["apps", "jobs"].map(|framework| (FIELD_FRAMEWORK.to_owned(), framework.to_owned()));
    let any_of = if query.any_of.is_empty() { &all[..] } else { &query.any_of };
    for (at, (field, value)) in any_of.iter().enumerate() {
        if at > 0 {
            journal.match_or()?;
        }
        journal.match_add(field, value.as_str())?;
    }
    let mut is_at_entry = seek_start(&mut journal, query)?;
    loop {
        while is_at_entry || journal.next()? > 0 {
            is_at_entry = false;
            let at_us = journal.timestamp_usec()?;
            if !sink(entry(at_us, |name| field(&mut journal, name))?) {
                return Ok(());
            }
        }
        if !query.follow {
            return Ok(());
        }
        if !is_wanted() {
            return Ok(());
        }
        journal.wait(Some(LOOK_AGAIN))?;
    }
}

/// Goes to where reading begins. Returns whether that is an entry to be read, or the place before the first.
fn seek_start(journal: &mut Journal, query: &Query) -> io::Result<bool> {
    let since = |journal: &mut Journal| match query.since_us {
        Some(since) => journal.seek_realtime_usec(since),
        None => journal.seek_head(),
    };
    match query.lines {
        // Nothing of what was: go to the last entry and leave it behind.
        Some(0) => {
            journal.seek_tail()?;
            if journal.previous()? == 0 {
                journal.seek_head()?;
            }
            Ok(false)
        }
        Some(lines) => {
            journal.seek_tail()?;
            if journal.previous_skip(lines)? == 0 {
                journal.seek_head()?;
                return Ok(false);
            }
            if query.since_us.is_some_and(|since| journal.timestamp_usec().is_ok_and(|at| at < since)) {
                since(journal)?;
                return Ok(false);
            }
            Ok(true)
        }
        None => {
            since(journal)?;
            Ok(false)
        }
    }
}

/// What systemd itself wrote about the end of a start of a unit. Waits up to `patience` for something to be there: journald
/// may be behind.
///
/// # Errors
/// The journal cannot be opened or read.
pub fn evidence(unit: &str, invocation: Option<&str>, manager: Manager, patience: Duration) -> io::Result<Evidence> {
    let (unit_field, invocation_field) = match manager {
        Manager::System => ("UNIT", "INVOCATION_ID"),
        Manager::User => ("USER_UNIT", "USER_INVOCATION_ID"),
    };
    let mut journal = open()?;
    journal.match_add(unit_field, unit)?;
    if let Some(invocation) = invocation {
        journal.match_add(invocation_field, invocation)?;
    }
    journal.seek_head()?;
    let until = Instant::now() + patience;
    let mut found = Found::default();
    loop {
        while journal.next()? > 0 {
            found.take_in(|name| field(&mut journal, name))?;
        }
        let evidence = found.conclude();
        let left = until.saturating_duration_since(Instant::now());
        if evidence != Evidence::Nothing || left.is_zero() {
            return Ok(evidence);
        }
        journal.wait(Some(left.min(LOOK_AGAIN)))?;
    }
}

/// What was gathered over several entries of one start.
#[derive(Debug, Default)]
struct Found {
    result: Option<String>,
    exit: Option<(i32, i32)>,
    was_stopped: bool,
}

/// systemd's message ids (sd-messages.h): "deactivated successfully", and "stopped".
const UNIT_SUCCESS: &str = "7ad2d189f7e94e70a38c781354912448";
const UNIT_STOPPED: &str = "9d1aaa27d60140bd96365438aad20286";

impl Found {
    fn take_in(&mut self, mut field: impl FnMut(&str) -> io::Result<Option<String>>) -> io::Result<()> {
        if let Some(result) = field("UNIT_RESULT")?.filter(|result| result != "success") {
            self.result = Some(result);
        }
        let code = match field("EXIT_CODE")?.as_deref() {
            Some("exited") => Some(1),
            Some("killed") => Some(2),
            Some("dumped") => Some(3),
            _ => None,
        };
        if let (Some(code), Some(status)) = (code, field("EXIT_STATUS")?.and_then(|status| status.parse().ok())) {
            self.exit = Some((code, status));
        }
        if field("MESSAGE_ID")?.is_some_and(|id| id == UNIT_SUCCESS || id == UNIT_STOPPED) {
            self.was_stopped = true;
        }
        Ok(())
    }

    fn conclude(&self) -> Evidence {
        match (&self.result, self.exit) {
            (Some(result), exit) => {
                let (code, status) = exit.unwrap_or((0, 0));
                Evidence::Failed { result: result.clone(), code, status }
            }
            (None, _) if self.was_stopped => Evidence::Stopped,
            (None, _) => Evidence::Nothing,
        }
    }
}

fn open() -> io::Result<Journal> {
    // This machine's own journal, system and users alike.
    let mut journal = OpenOptions::default().system(true).current_user(true).local_only(true).open()?;
    journal.set_data_threshold(FIELD_BYTES_MAX)?;
    Ok(journal)
}

fn entry(at_us: u64, mut field: impl FnMut(&str) -> io::Result<Option<String>>) -> io::Result<Entry> {
    Ok(Entry {
        at_us,
        task: field(FIELD_TASK)?.unwrap_or_default(),
        app: field(FIELD_APP)?,
        job: field(FIELD_JOB)?,
        run: field(FIELD_RUN)?,
        // Whoever writes to the journal by its own protocol may write anything there.
        priority: field("PRIORITY")?.and_then(|text| text.parse().ok()).filter(|priority| *priority <= 7).unwrap_or(6),
        pid: field("_PID")?.and_then(|text| text.parse().ok()),
        message: field("MESSAGE")?.unwrap_or_default(),
    })
}

fn field(journal: &mut Journal, name: &str) -> io::Result<Option<String>> {
    Ok(journal.get_data(name)?.and_then(|field| field.value().map(text)))
}

/// A field's value. What is no UTF-8 is replaced, so that the rest can be read.
fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

/// An entry out of the fields that journald has of it, by name.
pub(crate) fn entry_of(at_us: u64, fields: &[(&str, &[u8])]) -> Entry {
    let entry = entry(at_us, |name| Ok(look_up(fields, name)));
    entry.expect("looking into a list does not fail")
}

/// What systemd's entries about a unit say of its end, each by its fields.
pub(crate) fn evidence_of(entries: &[Vec<(&str, &[u8])>]) -> Evidence {
    let mut found = Found::default();
    for fields in entries {
        found.take_in(|name| Ok(look_up(fields, name))).expect("looking into a list does not fail");
    }
    found.conclude()
}

fn look_up(fields: &[(&str, &[u8])], name: &str) -> Option<String> {
    fields.iter().find(|(key, _)| *key == name).map(|(_, value)| text(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conclude(entries: &[&[(&str, &str)]]) -> Evidence {
        let mut found = Found::default();
        for entry in entries {
            let look_up = |name: &str| Ok(entry.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()));
            found.take_in(look_up).unwrap();
        }
        found.conclude()
    }

    #[test]
    fn systemds_own_entries_tell_how_a_unit_ended() {
        assert_eq!(conclude(&[&[("MESSAGE", "Started")]]), Evidence::Nothing);
        assert_eq!(
            conclude(&[&[("EXIT_CODE", "exited"), ("EXIT_STATUS", "7")], &[("UNIT_RESULT", "exit-code")]]),
            Evidence::Failed { result: "exit-code".into(), code: 1, status: 7 }
        );
        assert_eq!(
            conclude(&[&[("EXIT_CODE", "killed"), ("EXIT_STATUS", "15")], &[("MESSAGE_ID", UNIT_SUCCESS)]]),
            Evidence::Stopped
        );
        assert_eq!(
            conclude(&[&[("UNIT_RESULT", "timeout")], &[("MESSAGE_ID", UNIT_STOPPED)]]),
            Evidence::Failed { result: "timeout".into(), code: 0, status: 0 }
        );
    }
}
