//! The table of targets, and what several of them assert.

mod clients;
mod disk;
mod nodes;
mod systemd;
mod texts;

use crate::Target;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "requests",
        what: "HTTP requests, one after the other: line, headers, body; `%%` between them",
        run: clients::requests,
    },
    Target { name: "app", what: "the body of an app, or of a list of apps, for /v2/apps", run: clients::app },
    Target { name: "chronos-job", what: "the body of a job for /v1/scheduler", run: clients::chronos_job },
    Target { name: "drover-api", what: "a body of /drover/v1, of either direction", run: clients::drover_api },
    Target { name: "agent-message", what: "what an agent says to the leader, a message a line", run: nodes::agent_messages },
    Target { name: "master-message", what: "what a leader says to an agent, a message a line", run: nodes::master_messages },
    Target { name: "join", what: "the body of a request to join, with its token and signing request", run: nodes::join },
    Target { name: "log-entry", what: "entries of the replicated log, one a line", run: disk::log_entries },
    Target {
        name: "log-segment",
        what: "segments of the log: frames H, E, T, bytes `!`, a new file `#`, one a line",
        run: disk::log_segments,
    },
    Target { name: "snapshot", what: "the content of a snapshot: its head in one line, then the state", run: disk::snapshot },
    Target {
        name: "raft-file",
        what: "`seal` or `raw`, a file's name, and its content on the next lines",
        run: disk::raft_file,
    },
    Target { name: "ledger", what: "an agent's ledger", run: disk::ledger },
    Target { name: "configuration", what: "drover.toml", run: texts::configuration },
    Target { name: "schedule", what: "a repeat of ISO 8601, and on the next line a zone", run: texts::schedule },
    Target {
        name: "names",
        what: "the id, name, selector, token or duration that some field or path holds",
        run: texts::names,
    },
    Target {
        name: "dbus",
        what: "a message of systemd: interface, member, path, signature, a line each, then the body",
        run: systemd::dbus,
    },
    Target {
        name: "journal",
        what: "entries of the journal: FIELD=value lines, an empty line between entries",
        run: systemd::journal,
    },
];

/// What decodes as a `T` is written and read again as the same; what it is, if it is one.
fn same_again<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Option<T> {
    let read: T = serde_json::from_slice(bytes).ok()?;
    let written = serde_json::to_vec(&read).expect("what was read can be written");
    let again: T = serde_json::from_slice(&written).unwrap_or_else(|error| {
        panic!("what was read is written as something else: {error}: {}", String::from_utf8_lossy(&written))
    });
    assert_eq!(read, again, "written and read again it is another");
    Some(read)
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}
