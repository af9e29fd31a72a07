//! Journal entries for a leader that asked: a blocking reader each, a stream of its own each, and a limit on both.

use crate::metrics;
use crate::session::StreamOpener;
use drover_api::agent::{LogLine, LogQuery};
use drover_systemd::journal::{self, Entry, Query};
use std::collections::HashMap;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Lines waiting for the leader; a reader that is ahead waits.
const LINES_WAITING: usize = 256;

/// The streams under way.
pub(crate) struct Logs {
    node: String,
    opener: StreamOpener,
    streams: HashMap<String, CancellationToken>,
    /// Streams open at once; each holds a thread while it follows.
    streams_max: usize,
}

impl Logs {
    pub(crate) fn new(node: String, opener: StreamOpener, streams_max: usize) -> Self {
        Self { node, opener, streams: HashMap::new(), streams_max }
    }

    /// Begins to send what `query` asks for as stream `name`. Ends by itself with the last entry, or when nobody reads.
    pub(crate) fn open(&mut self, name: String, query: LogQuery) {
        self.streams.retain(|_, end| !end.is_cancelled());
        if self.streams.len() >= self.streams_max {
            metrics::LOG_STREAMS_REFUSED.inc([]);
            warn!(stream = name, "too many log streams are open, this one stays empty");
            // Opened and ended all the same, so that nobody waits for it.
            let (_, nothing) = mpsc::channel(1);
            let opener = self.opener.clone();
            tokio::spawn(async move { opener.send(&name, nothing).await });
            return;
        }
        let end = CancellationToken::new();
        self.streams.insert(name.clone(), end.clone());
        let (to_wire, lines) = mpsc::channel(LINES_WAITING);
        let (node, opener) = (self.node.clone(), self.opener.clone());
        tokio::task::spawn_blocking(move || {
            let query = to_query(query);
            let read =
                journal::read(&query, || !to_wire.is_closed(), |entry| to_wire.blocking_send(to_line(entry, &node)).is_ok());
            if let Err(error) = read {
                warn!(%error, "the journal cannot be read");
            }
        });
        let counted = metrics::LOG_STREAMS.hold([]);
        tokio::spawn(async move {
            let _counted = counted;
            tokio::select! {
                () = opener.send(&name, lines) => {}
                () = opener.leader_changed() => {}
                () = end.cancelled() => {}
            }
            debug!(stream = name, "log stream over");
            end.cancel();
        });
    }

    /// Nobody reads `name` any more.
    pub(crate) fn close(&mut self, name: &str) {
        if let Some(end) = self.streams.remove(name) {
            end.cancel();
        }
    }
}

/// What is read of the journal for a question: whatever is asked, entries of tasks only.
pub fn to_query(query: LogQuery) -> Query {
    Query {
        // The rest of the node's journal is nobody's business.
        any_of: query.matches.into_iter().filter(|(field, _)| field.starts_with("DROVER_")).collect(),
        lines: query.lines,
        since_us: query.since_ms.map(|ms| u64::try_from(ms).unwrap_or(0).saturating_mul(1000)),
        follow: query.follow,
    }
}

/// An entry of this node's journal as it is sent.
pub fn to_line(entry: Entry, node: &str) -> LogLine {
    LogLine {
        at_ms: i64::try_from(entry.at_us / 1000).unwrap_or(i64::MAX),
        at_us: u32::try_from(entry.at_us % 1000).unwrap_or(0),
        node: node.to_owned(),
        task: entry.task,
        app: entry.app,
        job: entry.job,
        run: entry.run,
        priority: entry.priority,
        pid: entry.pid,
        message: entry.message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tasks_entries_are_ever_asked_for() {
        let asked =
            |field: &str| to_query(LogQuery { matches: vec![(field.into(), "x".into())], ..LogQuery::default() }).any_of.len();
        assert_eq!((asked("DROVER_TASK"), asked("_UID"), asked("MESSAGE")), (1, 0, 0));
    }

    #[test]
    fn microseconds_are_split() {
        let line = to_line(Entry { at_us: 1_700_000_000_123_456, ..Entry::default() }, "n1");
        assert_eq!((line.at_ms, line.at_us, line.node.as_str()), (1_700_000_000_123, 456, "n1"));
    }
}
