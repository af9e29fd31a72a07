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
//! | `POST /masters/{name}/remove`          | 200 [`Masters`], as they are then                             |
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

use drover_core::event::EventKind;
use drover_core::time::Timestamp;
use drover_core::{agent, job, resources, task};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
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
    /// 502: the node that has the answer cannot be asked.
    pub const NODE_SILENT: &str = "D1009";
    /// 500: a fault of drover's own.
    pub const INTERNAL: &str = "D1099";
}

/// The cluster at a glance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Always `drover/v1`.
    pub api_version: ApiVersion,
    /// The cluster's id.
    pub cluster: String,
    /// Who leads, as far as the answering master knows.
    pub leader: Option<Leader>,
    /// Raft term.
    pub term: u64,
    /// All of them.
    pub masters: Vec<Master>,
    /// How many agents there are.
    pub agents: AgentCounts,
    /// What up agents have and what of it tasks hold.
    #[serde(default)]
    pub capacity: Capacity,
    /// Apps.
    pub apps: AppCounts,
    /// Jobs.
    pub jobs: JobCounts,
    /// Tasks.
    pub tasks: TaskCounts,
    /// What an operator should look at, worst first.
    #[serde(default)]
    pub warnings: Vec<Warning>,
}

/// The leading master.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// Its name.
    pub name: String,
    /// Its cluster listener.
    pub address: String,
}

/// A master.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Master {
    /// Its Raft node id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Its cluster listener.
    pub address: String,
    /// What it does in consensus.
    pub role: MasterRole,
    /// Log entries it is behind; known of the others by the leader only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
    /// Milliseconds since it last answered the leader; known by the leader only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_ago_ms: Option<u64>,
}

/// What a master does in consensus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MasterRole {
    /// Decides.
    Leader,
    /// Votes.
    Follower,
    /// Catches up, and has no vote yet.
    Learner,
}

/// How many agents there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentCounts {
    /// That answer.
    pub up: u32,
    /// That do not.
    pub unreachable: u32,
}

/// What there is and what of it is taken.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Capacity {
    /// What there is.
    pub total: Resources,
    /// What tasks hold.
    pub used: Resources,
}

/// How many apps there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppCounts {
    /// All.
    pub total: u32,
    /// With every wanted instance up, and no deployment.
    pub healthy: u32,
    /// That a deployment touches.
    pub deploying: u32,
    /// Some that are not healthy, at most ten.
    #[serde(default)]
    pub unsettled: Vec<AppProgress>,
}

/// How far an app is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppProgress {
    /// The app.
    pub id: String,
    /// Instances up.
    pub running: u32,
    /// Instances wanted.
    pub instances: u32,
    /// Whether a deployment touches it.
    pub deploying: bool,
}

/// How many jobs there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobCounts {
    /// All.
    pub total: u32,
    /// Whose last run failed.
    #[serde(default)]
    pub failing: u32,
    /// The earliest slot to come.
    pub next: Option<NextRun>,
}

/// A slot to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextRun {
    /// Of which job.
    pub job: String,
    /// When.
    pub at: Time,
}

/// How many tasks there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCounts {
    /// Up.
    pub running: u32,
    /// Coming.
    pub staging: u32,
}

/// Something an operator should look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// `/batch/ml waits 12min for memory`.
    pub message: String,
    /// A command that tells more, `drover why /batch/ml`.
    #[serde(rename = "try", default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// Amounts of resources.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// CPUs.
    pub cpus: f64,
    /// Bytes of memory.
    pub mem_bytes: u64,
    /// Bytes of disk.
    pub disk_bytes: u64,
    /// GPUs.
    pub gpus: u64,
    /// Port ranges, `31000-32000`, or single ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
}

impl From<resources::Scalars> for Resources {
    fn from(scalars: resources::Scalars) -> Self {
        Self {
            // Exact up to 2^53 thousandths of a CPU.
            cpus: scalars.cpus_milli as f64 / 1000.0,
            mem_bytes: scalars.mem_bytes,
            disk_bytes: scalars.disk_bytes,
            gpus: scalars.gpus,
            ports: Vec::new(),
        }
    }
}

impl Resources {
    /// The same with these ports.
    #[must_use]
    pub fn with_ports(mut self, ports: &resources::Ports) -> Self {
        let range = |(low, high): &(u16, u16)| if low == high { low.to_string() } else { format!("{low}-{high}") };
        self.ports = ports.ranges().iter().map(range).collect();
        self
    }
}

/// The machines that run tasks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Nodes {
    /// Always `drover/v1`.
    pub api_version: ApiVersion,
    /// By name.
    pub nodes: Vec<Node>,
}

/// A machine that runs tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// The agent's id.
    pub id: String,
    /// Host name.
    pub name: String,
    /// Whether it answers.
    pub state: NodeState,
    /// Since when it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable_since: Option<Time>,
    /// Everything it offers.
    pub resources: Resources,
    /// What tasks hold of it.
    pub used: Resources,
    /// Parts of `resources` kept for a role.
    #[serde(default)]
    pub reserved: BTreeMap<String, Resources>,
    /// What constraints look at.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// Tasks that are, or may be, there.
    pub tasks: u32,
    /// systemd's version.
    pub systemd: u32,
    /// drover's version.
    #[serde(default)]
    pub version: String,
    /// cgroup controllers that the kernel enforces there.
    #[serde(default)]
    pub enforces: Vec<String>,
    /// Kernel boot id.
    pub boot_id: String,
    /// Milliseconds since its last word; `None` if this leader has not heard of it.
    pub seen_ago_ms: Option<u64>,
}

/// Whether a machine answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// It does.
    Up,
    /// It does not; may come back.
    Unreachable,
    /// An operator said that it will not come back.
    Gone,
}

impl From<agent::Reachability> for NodeState {
    fn from(reachability: agent::Reachability) -> Self {
        match reachability {
            agent::Reachability::Up => Self::Up,
            agent::Reachability::Unreachable(_) => Self::Unreachable,
        }
    }
}

/// Tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tasks {
    /// Always `drover/v1`.
    pub api_version: ApiVersion,
    /// By id.
    pub tasks: Vec<Task>,
}

/// A task: one unit on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// Its id.
    pub id: String,
    /// The app it is an instance of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// The version of the app it was launched from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Time>,
    /// The job it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// The run it is an attempt of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Which attempt, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Host name of the node.
    pub node: String,
    /// Where it is in its life.
    pub state: TaskState,
    /// Why, in one word (`exit-code`, `out-of-memory`, …).
    pub reason: String,
    /// The same for people; may be empty.
    #[serde(default)]
    pub message: String,
    /// Why it is to end, once it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<String>,
    /// Its unit on the node.
    pub unit: String,
    /// The unit's invocation id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation_id: Option<String>,
    /// Host ports.
    #[serde(default)]
    pub ports: Vec<u16>,
    /// Placed.
    pub staged_at: Time,
    /// First seen running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// Since when its node does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable_since: Option<Time>,
}

/// The wish that a task end is on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stopped {
    /// Always `drover/v1`.
    pub api_version: ApiVersion,
    /// The task.
    pub task: String,
}

/// Where a task is in its life: Mesos' fourteen states in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "drover_core::task::TaskState says what each means")]
pub enum TaskState {
    Staging,
    Starting,
    Running,
    Killing,
    Finished,
    Failed,
    Killed,
    Error,
    Lost,
    Dropped,
    Unreachable,
    Gone,
    GoneByOperator,
    Unknown,
}

impl TaskState {
    /// The word in JSON and on screens.
    pub fn word(self) -> &'static str {
        match self {
            Self::Staging => "staging",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Killing => "killing",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Killed => "killed",
            Self::Error => "error",
            Self::Lost => "lost",
            Self::Dropped => "dropped",
            Self::Unreachable => "unreachable",
            Self::Gone => "gone",
            Self::GoneByOperator => "gone-by-operator",
            Self::Unknown => "unknown",
        }
    }
}

impl From<task::TaskState> for TaskState {
    fn from(state: task::TaskState) -> Self {
        match state {
            task::TaskState::Staging => Self::Staging,
            task::TaskState::Starting => Self::Starting,
            task::TaskState::Running => Self::Running,
            task::TaskState::Killing => Self::Killing,
            task::TaskState::Finished => Self::Finished,
            task::TaskState::Failed => Self::Failed,
            task::TaskState::Killed => Self::Killed,
            task::TaskState::Error => Self::Error,
            task::TaskState::Lost => Self::Lost,
            task::TaskState::Dropped => Self::Dropped,
            task::TaskState::Unreachable => Self::Unreachable,
            task::TaskState::Gone => Self::Gone,
            task::TaskState::GoneByOperator => Self::GoneByOperator,
            task::TaskState::Unknown => Self::Unknown,
        }
    }
}

/// How a process ended: one of the two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExitStatus {
    /// Its exit code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
}

impl From<Option<task::Exit>> for ExitStatus {
    fn from(exit: Option<task::Exit>) -> Self {
        match exit {
            None => Self::default(),
            Some(task::Exit::Code(code)) => Self { exit_code: Some(code), signal: None },
            Some(task::Exit::Signal(signal)) => Self { exit_code: None, signal: Some(signal) },
        }
    }
}

/// Jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Jobs {
    /// Always `drover/v1`.
    pub api_version: ApiVersion,
    /// By name.
    pub jobs: Vec<Job>,
}

/// A job as a list shows it; its full definition is Chronos' (`GET /v1/scheduler/job/{name}`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// Its name.
    pub name: String,
    /// As its author wrote it; none for a dependent job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// Time zone of the schedule; none means UTC or what the schedule says itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The jobs it runs after.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<String>,
    /// Not started by schedule or parents.
    #[serde(default)]
    pub disabled: bool,
    /// The next slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Time>,
    /// Slots left, `next` included; none means for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<u32>,
    /// Runs that are not over, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub live: Vec<Run>,
    /// The newest run that is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Run>,
    /// Runs that succeeded.
    #[serde(default)]
    pub success_count: u64,
    /// Runs that used up their retries.
    #[serde(default)]
    pub error_count: u64,
    /// Who cares.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner: String,
    /// What for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// A job with its runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobDetail {
    /// Always `drover/v1`.
    pub api_version: ApiVersion,
    /// The job.
    pub job: Job,
    /// Its runs, live ones included, newest first.
    pub runs: Vec<Run>,
}

/// One firing of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Its id, `<job>@<milliseconds of its slot>`.
    pub id: String,
    /// The job.
    pub job: String,
    /// The slot it stands for, or the time of its trigger.
    pub slot: Time,
    /// Why it began.
    pub cause: Cause,
    /// Arguments given with a manual run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
    /// Current attempt, from 0.
    pub attempt: u32,
    /// Where it is.
    pub state: RunState,
    /// How its last attempt ended; `finished` is success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<TaskState>,
    /// The task of the current attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Where the last attempt ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// When it was put in the queue.
    pub queued_at: Time,
    /// Not launched before this; of a queued run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Time>,
    /// When its last attempt was seen running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When its last attempt ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// How the last attempt's process ended.
    #[serde(flatten)]
    pub exit: ExitStatus,
    /// What was said of the last end.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Why a run began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// Its slot came.
    Slot,
    /// Somebody asked.
    Manual,
    /// Its parents had succeeded.
    Parents,
}

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// Waits for a place, or for the time of its retry.
    Queued,
    /// An attempt has been placed.
    Active,
    /// An attempt ended; what follows is not decided yet.
    Ending,
    /// Over.
    Done,
}

impl From<&job::Run> for Run {
    fn from(run: &job::Run) -> Self {
        let cause = match run.cause {
            job::Cause::Slot => Cause::Slot,
            job::Cause::Manual => Cause::Manual,
            job::Cause::Parents => Cause::Parents,
        };
        let mut edge = Self {
            id: run.id.to_string(),
            job: run.job.to_string(),
            slot: run.slot.into(),
            cause,
            arguments: run.arguments.clone(),
            attempt: run.attempt,
            state: RunState::Queued,
            result: None,
            task: None,
            node: run.host.clone(),
            queued_at: run.queued_at.into(),
            not_before: None,
            started_at: run.started_at.map(Time::from),
            ended_at: None,
            exit: run.exit.into(),
            message: run.message.clone(),
        };
        match &run.state {
            job::RunState::Queued { not_before } => edge.not_before = Some((*not_before).into()),
            job::RunState::Active { task } => {
                edge.state = RunState::Active;
                edge.task = Some(task.to_string());
            }
            job::RunState::AttemptEnded { state, at } | job::RunState::Done { state, at } => {
                edge.state = if run.is_live() { RunState::Ending } else { RunState::Done };
                edge.result = Some((*state).into());
                edge.ended_at = Some((*at).into());
            }
        }
        edge
    }
}

/// Body of a manual run; an empty body means the same as `{}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunRequest {
    /// Appended to the job's own.
    pub arguments: Vec<String>,
}

/// A manual run was queued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunStarted {
    /// Always `drover/v1`.
    pub api_version: ApiVersion,
    /// The run.
    pub run: Run,
}

/// The masters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Masters {
    /// Always `drover/v1`.
    pub api_version: ApiVersion,
    /// Raft term.
    pub term: u64,
    /// By name.
    pub masters: Vec<Master>,
}

/// Why something runs, or does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Why {
    /// Always `drover/v1`.
    pub api_version: ApiVersion,
    /// What was asked about.
    pub subject: Subject,
    /// Instances, or runs, wanted.
    pub wanted: u32,
    /// Of them up.
    pub running: u32,
    /// What has no place yet.
    #[serde(default)]
    pub waiting: Vec<Waiting>,
    /// The answer in a sentence or two.
    pub summary: String,
}

/// What was asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// What it is.
    pub kind: SubjectKind,
    /// Its id or name.
    pub name: String,
}

/// Kinds of subjects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SubjectKind {
    /// An app.
    App,
    /// A job.
    Job,
    /// A task.
    Task,
}

/// Something that has no place yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// What it needs: `cpus 4, mem 16G, rack unlike r2`.
    pub request: String,
    /// How many alike.
    #[serde(default = "one")]
    pub count: u32,
    /// Since when.
    pub since: Time,
    /// Why it is not even tried, if so: back-off, order of a deployment, no node at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// Every node that was looked at.
    #[serde(default)]
    pub nodes: Vec<NodeRefusals>,
}

fn one() -> u32 {
    1
}

/// Every reason why it does not fit on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRefusals {
    /// Host name.
    pub node: String,
    /// All of them, never empty.
    pub reasons: Vec<Refusal>,
}

/// One reason why something does not fit on a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Refusal {
    /// What it is about, one word: `cpus`, `mem`, `disk`, `gpus`, `ports`, `constraint`, `role`, `unreachable`.
    pub kind: String,
    /// For people, complete in itself: `mem: 16384 MiB needed, 11468 MiB free`.
    pub message: String,
}

/// Body of a request for a join token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenRequest {
    /// What the joining node will be.
    pub role: NodeRole,
    /// How long it is good for.
    pub ttl_seconds: u64,
    /// How often.
    pub uses: u32,
}

/// What a node is in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeRole {
    /// Takes part in consensus.
    Master,
    /// Runs tasks.
    Agent,
}

/// A join token: shown once, and stored as a hash only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// Always `drover/v1`.
    pub api_version: ApiVersion,
    /// One line, `drover1.…`.
    pub token: String,
    /// Until when.
    pub expires_at: Time,
}

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

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Always `drover/v1`.
    pub api_version: ApiVersion,
    /// Raft index of what it came of.
    pub index: u64,
    /// When.
    pub at: Time,
    /// What.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// The app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// The deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<String>,
    /// The job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// The run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The state it is in now, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// More, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "drover_core::event::EventKind says what each means")]
pub enum EventType {
    AppChanged,
    AppRemoved,
    DeploymentStarted,
    DeploymentStepSucceeded,
    DeploymentSucceeded,
    DeploymentFailed,
    TaskChanged,
    NodeChanged,
    JobChanged,
    JobRemoved,
    RunChanged,
    /// One that this version does not know.
    #[serde(other)]
    Unknown,
}

impl EventType {
    /// The word in JSON, on screens and in the SSE stream's `event:` line.
    pub fn word(self) -> &'static str {
        match self {
            Self::AppChanged => "app-changed",
            Self::AppRemoved => "app-removed",
            Self::DeploymentStarted => "deployment-started",
            Self::DeploymentStepSucceeded => "deployment-step-succeeded",
            Self::DeploymentSucceeded => "deployment-succeeded",
            Self::DeploymentFailed => "deployment-failed",
            Self::TaskChanged => "task-changed",
            Self::NodeChanged => "node-changed",
            Self::JobChanged => "job-changed",
            Self::JobRemoved => "job-removed",
            Self::RunChanged => "run-changed",
            Self::Unknown => "unknown",
        }
    }
}

impl Event {
    /// What `apply` told of the entry at `index`.
    pub fn new(index: u64, event: &drover_core::event::Event) -> Self {
        let mut edge = Self {
            api_version: ApiVersion,
            index,
            at: event.at.into(),
            kind: EventType::Unknown,
            app: None,
            deployment: None,
            job: None,
            run: None,
            task: None,
            node: None,
            state: None,
            message: String::new(),
        };
        match &event.kind {
            EventKind::AppChanged(app) => {
                edge.kind = EventType::AppChanged;
                edge.app = Some(app.id.to_string());
                edge.message = format!("version {}, {} wanted", app.version, count(app.instances.into(), "instance"));
            }
            EventKind::AppRemoved(app) => {
                edge.kind = EventType::AppRemoved;
                edge.app = Some(app.to_string());
            }
            EventKind::DeploymentStarted(deployment) => edge.tell_deployment(EventType::DeploymentStarted, deployment),
            EventKind::DeploymentStepSucceeded(deployment) => {
                edge.tell_deployment(EventType::DeploymentStepSucceeded, deployment);
                let step = format!("step {} of {}", deployment.current + 1, deployment.steps.len());
                edge.message = if edge.app.is_some() { step } else { format!("{step}: {}", edge.message) };
            }
            EventKind::DeploymentSucceeded(deployment) => edge.tell_deployment(EventType::DeploymentSucceeded, deployment),
            EventKind::DeploymentFailed(deployment) => edge.tell_deployment(EventType::DeploymentFailed, deployment),
            EventKind::TaskChanged(task) => {
                edge.kind = EventType::TaskChanged;
                edge.task = Some(task.id.to_string());
                edge.node = Some(task.host.clone());
                edge.state = Some(TaskState::from(task.state).word().to_owned());
                edge.message = match &task.kill {
                    Some(kill) if task.message.is_empty() => format!("told to end: {}", kill.why),
                    _ => task.message.clone(),
                };
                match &task.spec.owner {
                    task::Owner::App { app, .. } => edge.app = Some(app.to_string()),
                    task::Owner::Run { job, run, .. } => {
                        edge.job = Some(job.to_string());
                        edge.run = Some(run.to_string());
                    }
                }
            }
            EventKind::AgentChanged { agent: _, host, reachability } => {
                edge.kind = EventType::NodeChanged;
                edge.node = Some(host.clone());
                let state = match reachability.map(NodeState::from) {
                    Some(NodeState::Up) => "up",
                    Some(NodeState::Unreachable) => "unreachable",
                    Some(NodeState::Gone) | None => "gone",
                };
                edge.state = Some(state.to_owned());
            }
            EventKind::JobChanged(job) => {
                edge.kind = EventType::JobChanged;
                edge.job = Some(job.to_string());
            }
            EventKind::JobRemoved(job) => {
                edge.kind = EventType::JobRemoved;
                edge.job = Some(job.to_string());
            }
            EventKind::RunChanged(run) => {
                let run = Run::from(run.as_ref());
                edge.kind = EventType::RunChanged;
                let state = match (run.state, run.result) {
                    (RunState::Queued, _) => "queued",
                    (RunState::Active, _) => "active",
                    (RunState::Ending, _) => "ending",
                    (RunState::Done, Some(result)) => result.word(),
                    (RunState::Done, None) => "done",
                };
                edge.state = Some(state.to_owned());
                edge.message = run.message;
                edge.job = Some(run.job);
                edge.run = Some(run.id);
                edge.task = run.task;
                edge.node = run.node;
            }
        }
        edge
    }

    fn tell_deployment(&mut self, kind: EventType, deployment: &drover_core::deployment::Deployment) {
        self.kind = kind;
        self.deployment = Some(deployment.id.to_string());
        let apps: Vec<&str> = deployment.apps().into_iter().map(|app| app.as_str()).collect();
        if let [app] = apps.as_slice() {
            self.app = Some((*app).to_owned());
        }
        self.message = apps.join(", ");
    }
}

fn count(n: u64, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_core::ids::{JobName, RunId, TaskId};
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
    fn words_and_json_agree() {
        for state in [TaskState::Running, TaskState::GoneByOperator, TaskState::Unknown] {
            assert_eq!(serde_json::to_value(state).unwrap(), json!(state.word()));
        }
        for kind in [EventType::AppChanged, EventType::DeploymentStepSucceeded, EventType::RunChanged] {
            assert_eq!(serde_json::to_value(kind).unwrap(), json!(kind.word()));
        }
        assert_eq!(serde_json::from_value::<EventType>(json!("quota-changed")).unwrap(), EventType::Unknown);
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

    #[test]
    fn a_run_tells_its_state_and_its_end() {
        let name = JobName::parse("etl").unwrap();
        let mut run = job::Run {
            id: RunId::of(&name, 5),
            job: name.clone(),
            slot: Timestamp(5),
            cause: job::Cause::Slot,
            arguments: vec![],
            attempt: 1,
            state: job::RunState::Active { task: TaskId::of_run(&name, 5, 1) },
            queued_at: Timestamp(6),
            started_at: None,
            host: Some("n1".into()),
            exit: None,
            message: String::new(),
        };
        let edge = Run::from(&run);
        assert_eq!((edge.state, edge.task.as_deref()), (RunState::Active, Some("ct:5:1:etl:")));
        run.state = job::RunState::Done { state: task::TaskState::Failed, at: Timestamp(9) };
        run.exit = Some(task::Exit::Signal(9));
        let edge = Run::from(&run);
        assert_eq!((edge.state, edge.result, edge.exit.signal), (RunState::Done, Some(TaskState::Failed), Some(9)));
        let value = serde_json::to_value(&edge).unwrap();
        assert_eq!(value["signal"], json!(9));
        assert_eq!(value["endedAt"], json!("1970-01-01T00:00:00.009Z"));
        assert_eq!(serde_json::from_value::<Run>(value).unwrap(), edge);
        let told = Event::new(4, &drover_core::event::Event { at: Timestamp(9), kind: EventKind::RunChanged(Box::new(run)) });
        assert_eq!(
            (told.kind, told.state.as_deref(), told.run.as_deref()),
            (EventType::RunChanged, Some("failed"), Some("etl@5"))
        );
    }
}
