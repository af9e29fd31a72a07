//! Lines of the merged journal.

use super::{ExitStatus, TaskState, Time};
use serde::{Deserialize, Serialize};

/// One line of `/logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LogItem {
    /// A followed task, or the last attempt of a followed run, is over.
    Ended {
        /// How.
        ended: Ended,
    },
    /// Entries are missing from here on.
    Missing {
        /// Which.
        missing: Missing,
    },
    /// A journal entry.
    Entry(LogEntry),
}

/// How a followed task, or run, ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// The task.
    pub task: String,
    /// Its last state; `finished` is success.
    pub state: TaskState,
    /// What was said of it.
    #[serde(default)]
    pub message: String,
    /// How its process ended.
    #[serde(flatten)]
    pub exit: ExitStatus,
}

/// Why entries are missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Of which node.
    pub node: String,
    /// Why.
    pub because: String,
}

/// A journal entry of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// When, to the microsecond.
    pub at: Time,
    /// Host name.
    pub node: String,
    /// The task.
    pub task: String,
    /// Its app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// Its job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// Its run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// syslog priority, 0 to 7.
    pub priority: u8,
    /// Process id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The line.
    pub message: String,
}

impl From<crate::agent::LogLine> for LogEntry {
    fn from(line: crate::agent::LogLine) -> Self {
        Self {
            at: Time::from_parts(line.at_ms, line.at_us),
            node: line.node,
            task: line.task,
            app: line.app,
            job: line.job,
            run: line.run,
            priority: line.priority,
            pid: line.pid,
            message: line.message,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn log_lines_are_told_apart() {
        let ended = json!({"ended": {"task": "a.1", "state": "failed", "message": "exit 3", "exitCode": 3}});
        let LogItem::Ended { ended: end } = serde_json::from_value(ended.clone()).unwrap() else { panic!("not ended") };
        assert_eq!(end.exit, ExitStatus { exit_code: Some(3), signal: None });
        assert_eq!(serde_json::to_value(LogItem::Ended { ended: end }).unwrap(), ended);
        let entry = json!({"at": "2024-01-01T10:00:00.000007Z", "node": "n1", "task": "a.1", "app": "/a", "priority": 6, "pid": 7, "message": "hello"});
        let item: LogItem = serde_json::from_value(entry.clone()).unwrap();
        assert!(matches!(&item, LogItem::Entry(line) if line.at.0 % 1000 == 7));
        assert_eq!(serde_json::to_value(item).unwrap(), entry);
    }
}
