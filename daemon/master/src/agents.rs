//! The leader's side of agent sessions. What an agent says goes into the log; what the log says of its assignment goes to
//! the agent; who was heard of when is leader memory.
//!
//! One task per session, ended by the agent, by silence on the connection, or by the loss of leadership. The channel to the
//! agent is bounded: an agent that does not read loses its session and gets everything anew in the next one.

use crate::clock;
use crate::consensus::Consensus;
use crate::metrics;
use bytes::{Bytes, BytesMut};
use drover_api::agent::{AgentMessage, AssignedTask, MasterMessage, NotLeading, PROTOCOL};
use drover_api::drover as shapes;
use drover_core::agent::{AgentInfo, Reachability};
use drover_core::ids::{AgentId, TaskId};
use drover_core::state::{ClusterState, Command};
use drover_core::task::{TaskState, TaskStatus};
use drover_core::time::{Millis, Timestamp};
use drover_pki::client::{self, Body};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response, StatusCode};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tracing::{Instrument, debug, info, info_span, warn};

/// Messages waiting for one agent.
const TO_AGENT_MAX: usize = 256;

/// Who is connected to this leader.
pub(crate) struct Agents {
    contacts: Mutex<BTreeMap<AgentId, Contact>>,
    /// Changes when an agent is heard of that was not known to be there: the leader should look at once.
    heard_of: watch::Sender<u64>,
    sessions: AtomicU64,
    streams: Mutex<HashMap<String, mpsc::Sender<Bytes>>>,
    heartbeat: Millis,
    /// Longest line an agent may send.
    line_bytes_max: usize,
    /// Agents that may be admitted.
    agents_max: usize,
}

struct Contact {
    heard: Timestamp,
    session: u64,
    to_agent: Option<mpsc::Sender<MasterMessage>>,
}

impl Agents {
    pub(crate) fn new(heartbeat: Millis, line_bytes_max: usize, agents_max: usize) -> Self {
        Self {
            contacts: Mutex::default(),
            heard_of: watch::Sender::new(0),
            sessions: AtomicU64::new(0),
            streams: Mutex::default(),
            heartbeat,
            line_bytes_max,
            agents_max,
        }
    }

    /// How many agents have a session.
    pub(crate) fn connected(&self) -> usize {
        self.lock().values().filter(|contact| contact.to_agent.is_some()).count()
    }

    /// When each agent was last heard from.
    pub(crate) fn heard(&self) -> BTreeMap<AgentId, Timestamp> {
        self.lock().iter().map(|(id, contact)| (id.clone(), contact.heard)).collect()
    }

    pub(crate) fn heard_of(&self) -> watch::Receiver<u64> {
        self.heard_of.subscribe()
    }

    /// What was heard counts for one leadership only.
    pub(crate) fn forget(&self) {
        self.lock().clear();
    }

    /// Says something to a connected agent. `false` if it is not connected or does not keep up.
    pub(crate) fn tell(&self, agent: &AgentId, message: MasterMessage) -> bool {
        let to_agent = self.lock().get(agent).and_then(|contact| contact.to_agent.clone());
        to_agent.is_some_and(|to_agent| to_agent.try_send(message).is_ok())
    }

    /// Makes a name for a stream that an agent is going to open; its bytes arrive at the receiver.
    pub(crate) fn expect_stream(&self) -> (String, mpsc::Receiver<Bytes>) {
        let (to_reader, reader) = mpsc::channel(64);
        let name = clock::new_id();
        self.streams.lock().expect("nobody panics while holding the streams").insert(name.clone(), to_reader);
        (name, reader)
    }

    /// Nobody waits for that stream any more.
    pub(crate) fn drop_stream(&self, name: &str) {
        self.streams.lock().expect("nobody panics while holding the streams").remove(name);
    }

    /// Carries the body of a stream an agent opened to whoever asked for it.
    pub(crate) async fn accept_stream(&self, name: &str, mut body: Incoming) -> Response<Body> {
        let reader = self.streams.lock().expect("nobody panics while holding the streams").remove(name);
        let Some(reader) = reader else { return status(StatusCode::NOT_FOUND) };
        while let Some(Ok(frame)) = body.frame().await {
            if let Ok(data) = frame.into_data()
                && reader.send(data).await.is_err()
            {
                return status(StatusCode::GONE);
            }
        }
        status(StatusCode::NO_CONTENT)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<AgentId, Contact>> {
        self.contacts.lock().expect("nobody panics while holding the contacts")
    }

    fn hear(&self, agent: &AgentId) {
        if let Some(contact) = self.lock().get_mut(agent) {
            contact.heard = clock::now();
        }
    }

    /// Answers an agent's session request. `agent` is who its certificate says it is.
    pub(crate) fn serve(self: &Arc<Self>, consensus: &Consensus, agent: AgentId, request: Request<Incoming>) -> Response<Body> {
        let leadership = consensus.leadership().borrow().clone();
        if !leadership.is_me {
            let leader = leadership.leader.map(|leader| leader.address);
            let body = serde_json::to_vec(&NotLeading { leader }).expect("plain data encodes");
            let mut response = Response::new(client::full(body));
            *response.status_mut() = StatusCode::MISDIRECTED_REQUEST;
            return response;
        }
        let is_too_many = consensus.read(|state| !state.agents.contains_key(&agent) && state.agents.len() >= self.agents_max);
        if is_too_many {
            metrics::LIMITS_HIT.inc(["agents"]);
            warn!(agent_id = %agent, "an agent is not admitted: there are {} already, the most [master.limits] agents allows", self.agents_max);
            return status(StatusCode::SERVICE_UNAVAILABLE);
        }
        let (to_agent, from_us) = mpsc::channel(TO_AGENT_MAX);
        let number = self.sessions.fetch_add(1, Ordering::Relaxed);
        metrics::SESSIONS.inc([]);
        let session = Session {
            agents: Arc::clone(self),
            consensus: consensus.clone(),
            agent: agent.clone(),
            number,
            to_agent,
            welcomed: false,
            sent: None,
        };
        let span = info_span!("session", agent_id = %agent, number);
        tokio::spawn(session.run(request.into_body()).instrument(span));
        Response::new(ndjson(from_us))
    }
}

/// A body of one message a line, ended when every sender is gone.
fn ndjson(messages: mpsc::Receiver<MasterMessage>) -> Body {
    let lines = futures_util::stream::unfold(messages, |mut messages| async {
        let message = messages.recv().await?;
        let mut line = serde_json::to_vec(&message).expect("plain data encodes");
        line.push(b'\n');
        metrics::SENT_BYTES.add([], line.len() as u64);
        Some((Ok(Frame::data(Bytes::from(line))), messages))
    });
    StreamBody::new(lines).boxed_unsync()
}

fn status(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(client::empty());
    *response.status_mut() = code;
    response
}

struct Session {
    agents: Arc<Agents>,
    consensus: Consensus,
    agent: AgentId,
    number: u64,
    to_agent: mpsc::Sender<MasterMessage>,
    welcomed: bool,
    /// What the agent was last told to run, and whether it was told to end it; `None` before the first time.
    sent: Option<(u64, BTreeMap<TaskId, bool>)>,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the agent closed it")]
    Closed,
    #[error("the agent said nothing for {0:?}")]
    Silent(Duration),
    #[error("the agent does not keep up")]
    Slow,
    #[error("this master does not lead any more")]
    NotLeading,
    #[error("the agent calls itself {0}, its certificate does not")]
    Impostor(String),
    #[error("the agent speaks protocol {0}, this master {PROTOCOL}")]
    Protocol(u32),
    #[error("the agent sent a line that is no message")]
    Malformed(#[source] serde_json::Error),
    #[error("the agent sent a line of more than {0} bytes ([master.limits] agent_message)")]
    TooLong(usize),
}

impl Ended {
    /// For metrics.
    fn word(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Silent(_) => "silent",
            Self::Slow => "slow",
            Self::NotLeading => "not-leading",
            Self::Impostor(_) => "impostor",
            Self::Protocol(_) => "protocol",
            Self::Malformed(_) => "malformed",
            Self::TooLong(_) => "too-long",
        }
    }
}

impl Session {
    async fn run(mut self, body: Incoming) {
        let ended = self.converse(body).await;
        metrics::SESSIONS_ENDED.inc([ended.word()]);
        match ended {
            Ended::Closed | Ended::NotLeading => debug!("session ended"),
            why => warn!(why = %why, "session ended"),
        }
        let mut contacts = self.agents.lock();
        if let Some(contact) = contacts.get_mut(&self.agent)
            && contact.session == self.number
        {
            contact.to_agent = None;
        }
    }

    async fn converse(&mut self, body: Incoming) -> Ended {
        let mut lines = Lines::new(body, self.agents.line_bytes_max);
        let mut applied = self.consensus.applied();
        let mut leadership = self.consensus.leadership();
        let heartbeat = Duration::from_millis(self.agents.heartbeat.0);
        let mut ping = tokio::time::interval(heartbeat);
        let silence = heartbeat * 4;
        let mut said = tokio::time::Instant::now();
        loop {
            let result = tokio::select! {
                line = lines.next() => {
                    said = tokio::time::Instant::now();
                    match line {
                        Ok(Some(line)) => self.hear_line(&line).await,
                        Ok(None) => Err(Ended::Closed),
                        Err(ended) => Err(ended),
                    }
                }
                changed = applied.changed() => match changed {
                    Ok(()) if self.welcomed => self.assign(),
                    Ok(()) => Ok(()),
                    Err(_) => Err(Ended::NotLeading),
                },
                _ = ping.tick() => self.say(MasterMessage::Ping),
                () = tokio::time::sleep_until(said + silence) => Err(Ended::Silent(silence)),
                changed = leadership.changed() => {
                    if changed.is_err() || !leadership.borrow_and_update().is_me { Err(Ended::NotLeading) } else { Ok(()) }
                }
            };
            if let Err(ended) = result {
                return ended;
            }
        }
    }

    fn say(&self, message: MasterMessage) -> Result<(), Ended> {
        self.to_agent.try_send(message).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Ended::Slow,
            mpsc::error::TrySendError::Closed(_) => Ended::Closed,
        })
    }

    async fn hear_line(&mut self, line: &[u8]) -> Result<(), Ended> {
        let message: AgentMessage = serde_json::from_slice(line).map_err(Ended::Malformed)?;
        self.agents.hear(&self.agent);
        match message {
            AgentMessage::Hello { protocol, info, generation: _ } => self.admit(protocol, *info).await,
            AgentMessage::Heartbeat => self.confirm_admitted().await,
            AgentMessage::Statuses { statuses } => self.record(statuses).await,
        }
    }

    async fn admit(&mut self, protocol: u32, info: AgentInfo) -> Result<(), Ended> {
        if protocol != PROTOCOL {
            return Err(Ended::Protocol(protocol));
        }
        if info.id != self.agent {
            return Err(Ended::Impostor(info.id.to_string()));
        }
        self.agents.lock().insert(
            self.agent.clone(),
            Contact { heard: clock::now(), session: self.number, to_agent: Some(self.to_agent.clone()) },
        );
        let known =
            self.consensus.read(|state| state.agents.get(&info.id).is_some_and(|agent| agent.is_up() && agent.info == info));
        if !known {
            info!(host = %info.host, "agent connected");
            self.propose_admission(info).await?;
        }
        self.agents.heard_of.send_modify(|count| *count += 1);
        let masters = self.consensus.members().into_iter().map(|member| member.address).collect();
        self.say(MasterMessage::Welcome { heartbeat: self.agents.heartbeat, masters })?;
        self.welcomed = true;
        self.assign()
    }

    /// An agent that was given up while its session lasted is admitted again by its next sign of life.
    async fn confirm_admitted(&mut self) -> Result<(), Ended> {
        let given_up = self.consensus.read(|state| {
            let agent = state.agents.get(&self.agent)?;
            matches!(agent.reachability, Reachability::Unreachable(_)).then(|| agent.info.clone())
        });
        match given_up {
            Some(info) => self.propose_admission(info).await,
            None => Ok(()),
        }
    }

    async fn propose_admission(&self, info: AgentInfo) -> Result<(), Ended> {
        let admission = Command::AdmitAgent { info: Box::new(info), at: clock::now() };
        self.consensus.propose(admission).await.map(|_| ()).map_err(|error| {
            debug!(%error, "admission not recorded");
            Ended::NotLeading
        })
    }

    /// Records statuses through the log; only what is on record is acknowledged.
    async fn record(&mut self, statuses: Vec<TaskStatus>) -> Result<(), Ended> {
        let told: Vec<(TaskId, u64)> = statuses.iter().map(|status| (status.task.clone(), status.seq)).collect();
        let at = clock::now();
        let fresh: Vec<Command> = self.consensus.read(|state| {
            let news = statuses.into_iter().filter(|status| is_news(state, status));
            let record = |status| Command::RecordStatus { agent: self.agent.clone(), status: Box::new(status), at };
            news.map(record).collect()
        });
        if !fresh.is_empty() {
            let news: Vec<(TaskId, TaskState)> = fresh.iter().filter_map(told_by).collect();
            let results = self.consensus.propose_all(fresh).await;
            for ((task, state), result) in news.into_iter().zip(results) {
                let index = result.map_err(|error| {
                    debug!(task_id = %task, %error, "status not recorded");
                    Ended::NotLeading
                })?;
                metrics::STATUSES.inc([shapes::TaskState::from(state).word()]);
                debug!(task_id = %task, index, state = state.wire(), "{task} is {} on record, acknowledged", state.wire());
            }
        }
        self.say(MasterMessage::Acknowledge { statuses: told })
    }

    /// Tells the agent what changed in its assignment, if anything did.
    fn assign(&mut self) -> Result<(), Ended> {
        let sent = self.sent.as_ref();
        let sent_generation = sent.map(|(generation, _)| *generation);
        let before = sent.map(|(_, tasks)| tasks);
        let news = self.consensus.read(|state| {
            let agent = state.agents.get(&self.agent)?;
            if sent_generation.is_some_and(|generation| generation >= agent.generation) {
                return None;
            }
            let now: BTreeMap<TaskId, bool> =
                state.tasks_of_agent(&self.agent).map(|task| (task.id.clone(), task.kill.is_some())).collect();
            let is_news = |id: &TaskId, ends: bool| before.is_none_or(|before| before.get(id) != Some(&ends));
            let tasks = state.tasks_of_agent(&self.agent).filter(|task| is_news(&task.id, task.kill.is_some()));
            let tasks = tasks
                .map(|task| AssignedTask {
                    id: task.id.clone(),
                    spec: task.spec.clone(),
                    kill: task.kill.as_ref().map(|kill| kill.why.clone()),
                })
                .collect();
            let removed = before.into_iter().flatten().map(|(id, _)| id).filter(|id| !now.contains_key(*id)).cloned().collect();
            let message = MasterMessage::Assign { generation: agent.generation, full: before.is_none(), tasks, removed };
            Some((agent.generation, now, message))
        });
        let Some((generation, now, message)) = news else { return Ok(()) };
        metrics::ASSIGNMENTS.inc([]);
        if let MasterMessage::Assign { tasks, .. } = &message {
            for task in tasks {
                let ends = task.kill.as_deref();
                debug!(task_id = %task.id, generation, ends, "{} is assigned to {}", task.id, self.agent);
            }
        }
        self.sent = Some((generation, now));
        self.say(message)
    }
}

/// The task and the state that a command records.
fn told_by(command: &Command) -> Option<(TaskId, TaskState)> {
    match command {
        Command::RecordStatus { status, .. } => Some((status.task.clone(), status.state)),
        _ => None,
    }
}

/// Whether recording `status` would change anything: repeats after a reconnection cost no log entry.
fn is_news(state: &ClusterState, status: &TaskStatus) -> bool {
    state.tasks.get(&status.task).is_some_and(|task| status.seq > task.seq || task.unreachable_since.is_some())
}

/// Splits a body into lines.
struct Lines {
    body: Incoming,
    buffer: BytesMut,
    longest: usize,
}

impl Lines {
    fn new(body: Incoming, longest: usize) -> Self {
        Self { body, buffer: BytesMut::new(), longest }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Ended> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1).freeze();
                return Ok(Some(line.slice(..end)));
            }
            if self.buffer.len() > self.longest {
                return Err(Ended::TooLong(self.longest));
            }
            match self.body.frame().await {
                None | Some(Err(_)) => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}
