//! drover's own HTTP API, `/drover/v1`. JSON, camelCase; every answer's top object carries `apiVersion`. Fields are only ever
//! added within a version, so clients ignore what they do not know and servers leave out what they do not have.
//!
//! | Request                                | Answer                                                        |
//! |----------------------------------------|---------------------------------------------------------------|
//! | `GET  /status`                         | [`Status`]                                                    |
//! | `GET  /nodes`                          | [`Nodes`]                                                     |
//! | `GET  /tasks?app=&job=&node=`          | [`Tasks`]: those that are, or may be, there                   |
//! | `POST /tasks/{id}/stop`                | 202 [`Stopped`]                                               |
//! | `GET  /jobs`                           | [`Jobs`]                                                      |
//! | `GET  /jobs/{name}`                    | [`JobDetail`]                                                 |
//! | `POST /jobs/{name}/run` [`RunRequest`] | 201 [`RunStarted`]                                            |
//! | `GET  /masters`                        | [`Masters`]                                                   |
//! | `GET  /state`                          | [`HeldState`]: what a master holds, with `?stale` the one asked |
//! | `POST /masters/{name}/remove`          | 200 [`Masters`], as they are then                             |
//! | `POST /version/raise` [`RaiseRequest`] | 200 [`Masters`], with the version that is theirs then         |
//! | `GET  /why/apps/{id}` `/why/jobs/{name}` `/why/tasks/{id}` | [`Why`]                                   |
//! | `POST /tokens` [`TokenRequest`]        | 201 [`Token`]                                                 |
//! | `GET  /logs?app=&job=&run=&task=&node=&follow=1&lines=N&since=` | `application/x-ndjson`, one [`LogItem`] a line |
//! | `GET  /events`                         | `text/event-stream`, data of each an [`Event`]                |
//!
//! `app`, `job`, `run`, `task` and `node` of `/logs` may be repeated: entries of any of them, merged by time. `since` is RFC 3339.
//! With `follow=1` and a `task` or `run`, the stream says how it ended ([`LogItem::Ended`]) and closes.
//!
//! `/events`: the event's id is the Raft index. One command can tell several events; only the last of them carries the id line, so a
//! client that was cut off in between and resumes with `Last-Event-ID` gets them all again rather than losing the rest.
//! Without that header it begins with what happens next; with `follow=0` it ends after what is buffered (`drover events`).
//! The SSE event name is [`EventType`]'s word. An id that is no longer buffered is answered by a first event `resync` without data.
//!
//! Errors of every route: `application/problem+json`, [`Problem`].

mod cluster;
mod event;
mod job;
mod log;
mod task;
mod why;

pub use cluster::{
    AgentCounts, AppCounts, AppProgress, Capacity, HeldState, JobCounts, Leader, Master, MasterRole, Masters, NextRun, Node,
    NodeRole, NodeState, Nodes, RaiseRequest, Resources, Status, TaskCounts, Token, TokenRequest, Warning,
};
pub use event::{Event, EventType};
pub use job::{Cause, Job, JobDetail, Jobs, Run, RunRequest, RunStarted, RunState};
pub use log::{Ended, LogEntry, LogItem, Missing};
pub use task::{ExitStatus, Stopped, Task, TaskState, Tasks};
pub use why::{NodeRefusals, Refusal, Subject, SubjectKind, Waiting, Why};

use drover_core::time::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Media type of [`Problem`].
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Media type of `/logs`.
pub const NDJSON: &str = "application/x-ndjson";

/// The `apiVersion` of every top object: always the text `drover/v1`. Anything else is refused when read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ApiVersion;

impl ApiVersion {
    /// What stands in the JSON.
    pub const TEXT: &str = "drover/v1";
}

impl Serialize for ApiVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(Self::TEXT)
    }
}

impl<'de> Deserialize<'de> for ApiVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        if text == Self::TEXT {
            return Ok(Self);
        }
        Err(D::Error::custom(format!("apiVersion is {text:?}, and this client knows {:?}", Self::TEXT)))
    }
}

/// An instant, in whole microseconds since 1970. In JSON RFC 3339 in UTC, with three fraction digits, or six where they say more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub i64);

impl Time {
    /// From milliseconds and the microseconds within them.
    pub fn from_parts(ms: i64, us: u32) -> Self {
        Self(ms.saturating_mul(1000).saturating_add(i64::from(us)))
    }

    /// The same in milliseconds.
    pub fn millis(self) -> i64 {
        self.0.div_euclid(1000)
    }
}

impl From<Timestamp> for Time {
    fn from(at: Timestamp) -> Self {
        Self::from_parts(at.0, 0)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Timestamp(self.millis()).to_string();
        match self.0.rem_euclid(1000) {
            0 => f.write_str(&text),
            us => write!(f, "{}{us:03}Z", text.trim_end_matches('Z')),
        }
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let at: jiff::Timestamp = text.parse().map_err(D::Error::custom)?;
        Ok(Self(at.as_microsecond()))
    }
}

/// What went wrong, for people: the answer's body whenever its status is 400 or more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{error}")]
pub struct Problem {
    /// One line: what did not work.
    pub error: String,
    /// The evidence, if there is more to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// One command that helps.
    #[serde(rename = "try", default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// Names this kind of problem for good, `D1203`.
    pub code: String,
    /// Every fault of a document that was sent, with its path in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
}

/// A fault of a document that was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Where, `/cmd`.
    pub path: String,
    /// What is wrong there.
    pub message: String,
}

/// Codes of [`Problem`]s that clients act upon. The status of each stands behind it.
pub mod code {
    /// 503: no leader is known, or the leader does not answer.
    pub const NO_LEADER: &str = "D1001";
    /// 404: there is no such thing.
    pub const NOT_FOUND: &str = "D1004";
    /// 403: the caller may not.
    pub const FORBIDDEN: &str = "D1005";
    /// 400 or 422: the request is not understood; see `faults`.
    pub const BAD_REQUEST: &str = "D1006";
    /// 409: it contradicts something that is there.
    pub const CONFLICT: &str = "D1007";
    /// 409: removing that master would cost the majority.
    pub const MAJORITY: &str = "D1008";
    /// 409: not every master can read what the cluster's version would write; see `faults`.
    pub const VERSION: &str = "D1011";
    /// 502: the node that has the answer cannot be asked.
    pub const NODE_SILENT: &str = "D1009";
    /// 403, 413, 431 or 503: a limit of this cluster is reached, and `because` says which.
    pub const LIMIT: &str = "D1010";
    /// 500: a fault of drover's own.
    pub const INTERNAL: &str = "D1099";
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_have_three_digits_or_six_and_read_back() {
        for (time, text) in [
            (Time::from(Timestamp(1_704_103_200_005)), "2024-01-01T10:00:00.005Z"),
            (Time::from_parts(1_704_103_200_000, 7), "2024-01-01T10:00:00.000007Z"),
            (Time::from_parts(-1, 0), "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(serde_json::to_value(time).unwrap(), json!(text));
            assert_eq!(serde_json::from_value::<Time>(json!(text)).unwrap(), time);
        }
    }

    #[test]
    fn another_api_version_is_refused() {
        let error = serde_json::from_value::<Tasks>(json!({"apiVersion": "drover/v2", "tasks": []})).unwrap_err();
        assert!(error.to_string().contains("drover/v2"), "{error}");
        assert_eq!(serde_json::to_value(Tasks::default()).unwrap(), json!({"apiVersion": "drover/v1", "tasks": []}));
    }

    #[test]
    fn a_problem_keeps_its_four_names() {
        let problem = Problem {
            error: "no such app".into(),
            because: Some("/x".into()),
            remedy: Some("drover apps list".into()),
            code: code::NOT_FOUND.into(),
            faults: vec![],
        };
        let value = json!({"error": "no such app", "because": "/x", "try": "drover apps list", "code": "D1004"});
        assert_eq!(serde_json::to_value(&problem).unwrap(), value);
        assert_eq!(serde_json::from_value::<Problem>(value).unwrap(), problem);
    }
}
