//! The leader's side of agent sessions, carried: all choices are made by [`drover_core::leader::session`]. What an agent says goes
//! into the log; what the log says of its assignment goes to the agent; who was heard of when is leader memory.
//!
//! One task per session, ended by the agent, by silence on the connection, or by the loss of leadership. The channel to the
//! agent is bounded: an agent that does not read loses its session and gets everything anew in the next one.

use crate::clock;
use crate::consensus::Consensus;
use crate::metrics;
use bytes::{Bytes, BytesMut};
use drover_api::agent::{AgentMessage, MasterMessage, NoSharedProtocol, NotLeading, Protocols};
use drover_api::drover as shapes;
use drover_core::ids::{AgentId, TaskId};
use drover_core::leader::session::{self, Answer, Heard, Say};
use drover_core::state::Command;
use drover_core::task::TaskState;
use drover_core::time::Millis;
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
    /// By the steady clock.
    heard: Duration,
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

    /// When each agent was last heard from, by the steady clock.
    pub(crate) fn heard(&self) -> BTreeMap<AgentId, Duration> {
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
            contact.heard = clock::both().steady;
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
            number,
            to_agent,
            mind: session::Session::new(agent.clone(), self.heartbeat, clock::both()),
            protocol: Protocols::OURS.oldest,
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
    number: u64,
    to_agent: mpsc::Sender<MasterMessage>,
    mind: session::Session,
    /// The version of the conversation that both sides speak.
    protocol: u32,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the agent closed it")]
    Closed,
    #[error(transparent)]
    Mind(#[from] session::Ended),
    #[error("the agent does not keep up")]
    Slow,
    #[error(transparent)]
    Protocol(#[from] NoSharedProtocol),
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
            Self::Mind(session::Ended::Silent(_)) => "silent",
            Self::Mind(session::Ended::NotLeading) => "not-leading",
            Self::Mind(session::Ended::GivenUp) => "given-up",
            Self::Mind(session::Ended::Impostor(_)) => "impostor",
            Self::Slow => "slow",
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
            Ended::Closed | Ended::Mind(session::Ended::NotLeading) => debug!("session ended"),
            why => warn!(why = %why, "session ended"),
        }
        let mut contacts = self.agents.lock();
        if let Some(contact) = contacts.get_mut(self.mind.agent())
            && contact.session == self.number
        {
            contact.to_agent = None;
        }
    }

    async fn converse(&mut self, body: Incoming) -> Ended {
        let mut lines = Lines::new(body, self.agents.line_bytes_max);
        let mut applied = self.consensus.applied();
        let mut leadership = self.consensus.leadership();
        loop {
            let result = tokio::select! {
                line = lines.next() => match line {
                    Ok(Some(line)) => self.hear_line(&line).await,
                    Ok(None) => Err(Ended::Closed),
                    Err(ended) => Err(ended),
                },
                changed = applied.changed() => match changed {
                    Ok(()) => self.consensus.read(|state| self.mind.applied(state)).map_or(Ok(()), |say| self.say(say)),
                    Err(_) => Err(session::Ended::NotLeading.into()),
                },
                () = tokio::time::sleep_until(clock::instant(self.mind.due_at())) => match self.mind.due(clock::both()) {
                    Ok(say) => say.map_or(Ok(()), |say| self.say(say)),
                    Err(ended) => Err(ended.into()),
                },
                changed = leadership.changed() => {
                    let leads = changed.is_ok() && leadership.borrow_and_update().is_me;
                    if leads { Ok(()) } else { Err(session::Ended::NotLeading.into()) }
                }
            };
            if let Err(ended) = result {
                return ended;
            }
        }
    }

    fn say(&self, say: Say) -> Result<(), Ended> {
        let message = match say {
            Say::Ping => MasterMessage::Ping,
            Say::Assign(assignment) => {
                metrics::ASSIGNMENTS.inc([]);
                for task in &assignment.tasks {
                    let (generation, ends) = (assignment.generation, task.kill.as_deref());
                    debug!(task_id = %task.id, generation, ends, "{} is assigned to {}", task.id, self.mind.agent());
                }
                assignment.into()
            }
            Say::Acknowledge(statuses) => MasterMessage::Acknowledge { statuses },
            Say::Welcome => {
                self.agents.heard_of.send_modify(|count| *count += 1);
                let masters = self.consensus.members().into_iter().map(|member| member.address).collect();
                MasterMessage::Welcome { protocol: self.protocol, heartbeat: self.agents.heartbeat, masters }
            }
        };
        self.tell(message)
    }

    fn tell(&self, message: MasterMessage) -> Result<(), Ended> {
        self.to_agent.try_send(message).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Ended::Slow,
            mpsc::error::TrySendError::Closed(_) => Ended::Closed,
        })
    }

    async fn hear_line(&mut self, line: &[u8]) -> Result<(), Ended> {
        let message: AgentMessage = serde_json::from_slice(line).map_err(Ended::Malformed)?;
        self.agents.hear(self.mind.agent());
        let heard = match message {
            AgentMessage::Hello { protocol, oldest, info, .. } => {
                self.protocol = self.agree(Protocols::of_hello(protocol, oldest))?;
                Heard::Hello(info)
            }
            AgentMessage::Heartbeat => Heard::Heartbeat,
            AgentMessage::Statuses { statuses } => Heard::Statuses(statuses),
        };
        let is_hello = matches!(heard, Heard::Hello(_));
        let answer = self.consensus.read(|state| self.mind.hear(heard, state, clock::both()))?;
        if is_hello {
            let contact = Contact { heard: clock::both().steady, session: self.number, to_agent: Some(self.to_agent.clone()) };
            self.agents.lock().insert(self.mind.agent().clone(), contact);
        }
        let say = match answer {
            Answer::Say(say) => say,
            Answer::Propose(commands) => {
                let is_applied = self.propose(commands).await;
                self.consensus.read(|state| self.mind.proposed(is_applied, state))?
            }
        };
        say.into_iter().try_for_each(|say| self.say(say))
    }

    /// The version to speak; an agent that shares none is told why it is left alone.
    fn agree(&self, agent: Protocols) -> Result<u32, Ended> {
        let shared = Protocols::OURS.shared_with(agent);
        if let Err(why) = &shared {
            self.tell(MasterMessage::Refused { why: why.to_string() })?;
        }
        Ok(shared?)
    }

    /// Whether all of it was applied.
    async fn propose(&self, commands: Vec<Command>) -> bool {
        if let [Command::AdmitAgent { info, .. }] = &commands[..] {
            info!(host = %info.host, "agent connected");
        }
        let told: Vec<_> = commands.iter().map(told_by).collect();
        let results = self.consensus.propose_all(commands).await;
        let mut is_applied = true;
        for (told, result) in told.into_iter().zip(results) {
            match (told, result) {
                (Some((task, state)), Ok(index)) => {
                    metrics::STATUSES.inc([shapes::TaskState::from(state).word()]);
                    debug!(task_id = %task, index, state = state.wire(), "{task} is {} on record, acknowledged", state.wire());
                }
                (None, Ok(_)) => {}
                (told, Err(error)) => {
                    let task = told.map(|(task, _)| task.to_string());
                    debug!(task_id = task, %error, "what the agent said is not recorded");
                    is_applied = false;
                }
            }
        }
        is_applied
    }
}

/// The task and the state that a command records.
fn told_by(command: &Command) -> Option<(TaskId, TaskState)> {
    match command {
        Command::RecordStatus { status, .. } => Some((status.task.clone(), status.state)),
        _ => None,
    }
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
