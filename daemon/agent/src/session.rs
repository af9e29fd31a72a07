//! The agent's end of the conversation with the leader ([`drover_api::agent`]): finds the leader, keeps the session, finds
//! the next one when it falls silent. Whom to ask and when silence has lasted too long is chosen by
//! [`drover_core::node::Dialer`] and [`Conversation`]; this file only carries them. Decides nothing about tasks: what the leader says goes to the driver, what the driver
//! says goes to the leader, and what was said to a leader that is gone is lost: the driver says it again after the next
//! [`FromLeader::Connected`].
//!
//! One task, started by the agent's `run`, ended by its token. Both channels are bounded; a driver that does not listen
//! holds up the session, which then ends by the leader's silence rule and begins anew.

use crate::metrics;
use bytes::{Bytes, BytesMut};
use drover_api::agent::{AgentMessage, LogLine, MasterMessage, NotLeading, Protocols, SESSION_PATH, STREAMS_PATH};
use drover_core::agent::AgentInfo;
use drover_core::node::{self, Conversation, Dialer, Due, Next};
use drover_pki::Credentials;
use drover_pki::client::{Body, ClientError, ClusterClient};
use drover_pki::tls::Expect;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response, StatusCode};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// How long a new certificate is waited for.
const RENEWAL_PATIENCE: Duration = Duration::from_secs(10);

/// How often a session looks whether its certificate is about to run out.
const RENEWAL_CHECK: Duration = Duration::from_secs(3600);

/// What the driver learns from a leader.
#[derive(Debug)]
pub(crate) enum FromLeader {
    /// A leader has admitted this agent. Messages sent from now on reach it; say the newest status of every task.
    Connected,
    /// Anything it says but pings.
    Said(MasterMessage),
    /// It is gone. Until the next [`FromLeader::Connected`] nothing reaches anybody.
    Lost,
}

/// The session's ends for the driver.
pub(crate) struct Handles {
    /// What leaders say.
    pub(crate) from_leader: mpsc::Receiver<FromLeader>,
    /// What to say to the leader of the moment. To be used with `try_send`: nobody reads while there is no leader.
    pub(crate) to_leader: mpsc::Sender<AgentMessage>,
    /// What this agent says of itself, and the generation it holds; a change is told at once.
    pub(crate) hello: watch::Sender<(AgentInfo, u64)>,
    /// Opens streams to the leader of the moment.
    pub(crate) streams: StreamOpener,
}

/// Starts the session task.
pub(crate) fn start(
    credentials: Credentials,
    seeds: Vec<String>,
    info: AgentInfo,
    line_bytes_max: usize,
    shutdown: CancellationToken,
) -> Handles {
    let (to_driver, from_leader) = mpsc::channel(64);
    let (to_leader, from_driver) = mpsc::channel(64);
    let (to_hello, hello) = watch::channel((info, 0));
    let (leader, leader_of_moment) = watch::channel(None);
    let mut masters: Vec<String> = seeds;
    for peer in &credentials.identity.peers {
        if !masters.contains(peer) {
            masters.push(peer.clone());
        }
    }
    let dialer = Dialer::new(masters);
    let began = Instant::now();
    let session = Session { credentials, dialer, began, to_driver, from_driver, hello, leader, line_bytes_max };
    tokio::spawn(async move {
        tokio::select! {
            () = session.run() => {}
            () = shutdown.cancelled() => {}
        }
    });
    Handles { from_leader, to_leader, hello: to_hello, streams: StreamOpener { leader: leader_of_moment } }
}

/// Sends log lines to the leader on streams of their own.
#[derive(Clone)]
pub(crate) struct StreamOpener {
    leader: watch::Receiver<Option<ClusterClient>>,
}

impl StreamOpener {
    /// Sends `lines` as the stream that the leader called `name`, until they end or nobody reads them any more.
    pub(crate) async fn send(&self, name: &str, lines: mpsc::Receiver<LogLine>) {
        let Some(client) = self.leader.borrow().clone() else { return };
        let body = futures_util::stream::unfold(lines, |mut lines| async {
            let mut text = serde_json::to_vec(&lines.recv().await?).expect("plain data encodes");
            text.push(b'\n');
            Some((Ok(Frame::data(Bytes::from(text))), lines))
        });
        let request = Request::post(format!("{STREAMS_PATH}{name}")).body(StreamBody::new(body).boxed_unsync());
        let request = request.expect("a uuid fits into a path");
        if let Err(error) = client.send(request).await {
            debug!(stream = name, %error, "log stream ended");
        }
    }

    /// Until the leader of the moment is another one, or none.
    pub(crate) async fn leader_changed(&self) {
        let mut leader = self.leader.clone();
        // What it was until now counts as seen.
        leader.mark_unchanged();
        // The session task holds the other end; when it is gone, so is the leader.
        let _gone = leader.changed().await;
    }
}

struct Session {
    credentials: Credentials,
    dialer: Dialer,
    /// What the steady clock of the minds counts from.
    began: Instant,
    to_driver: mpsc::Sender<FromLeader>,
    from_driver: mpsc::Receiver<AgentMessage>,
    hello: watch::Receiver<(AgentInfo, u64)>,
    leader: watch::Sender<Option<ClusterClient>>,
    /// Longest line a leader may send: an assignment of a few thousand tasks.
    line_bytes_max: usize,
}

/// Why a master was left.
#[derive(Debug, thiserror::Error)]
enum Left {
    #[error("it does not lead")]
    NotLeading(Option<String>),
    #[error("it does not answer")]
    NoAnswer,
    #[error(transparent)]
    Unreachable(#[from] ClientError),
    #[error("it does not take this agent: {0}")]
    NotTaken(String),
    #[error("it answered {0}")]
    Refused(StatusCode),
    #[error("it said nothing for {0:?}")]
    Silent(Duration),
    #[error("it ended the session")]
    Ended,
    #[error("it sent a line that is no message")]
    Malformed(#[source] serde_json::Error),
    #[error("it sent a line of more than {0} bytes ([agent.limits] message)")]
    TooLong(usize),
    #[error("the driver has ended")]
    NoDriver,
}

impl Session {
    async fn run(mut self) {
        loop {
            let (master, patience) = match self.dialer.next(self.now(), dice()) {
                Next::Dial { master, patience } => (master, patience),
                Next::Wait(wait) => {
                    tokio::time::sleep(wait).await;
                    continue;
                }
            };
            let mut connected = false;
            let left = self.converse(&master, patience, &mut connected).await;
            self.leader.send_replace(None);
            metrics::CONNECTED.set([], 0);
            let how = match &left {
                Left::NoDriver => return,
                _ if connected => node::Left::Lost,
                Left::NotLeading(leader) => node::Left::NotLeading(leader.clone()),
                _ => node::Left::Failed,
            };
            if connected {
                warn!(master, "the leader {master} is lost, looking for another: {}", crate::chain(&left));
                if self.to_driver.send(FromLeader::Lost).await.is_err() {
                    return;
                }
            } else if matches!(left, Left::NotTaken(_)) {
                warn!(master, "no session with {master}: {}", crate::chain(&left));
            } else {
                debug!(master, "no leader at {master}: {}", crate::chain(&left));
            }
            self.dialer.left(&master, how, self.now());
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Talks to one master for as long as it leads.
    async fn converse(&mut self, master: &str, patience: Duration, connected: &mut bool) -> Left {
        match self.try_converse(master, patience, connected).await {
            Ok(never) => match never {},
            Err(left) => left,
        }
    }

    async fn try_converse(
        &mut self,
        master: &str,
        patience: Duration,
        connected: &mut bool,
    ) -> Result<std::convert::Infallible, Left> {
        let client = ClusterClient::new(&self.credentials, master, Expect::AnyMaster);
        let (to_wire, wire) = mpsc::channel::<AgentMessage>(64);
        let request = Request::post(SESSION_PATH).body(ndjson(wire)).expect("the path is a path");
        say(&to_wire, self.greeting()).await?;
        let answer = tokio::time::timeout(patience, client.send(request)).await.map_err(|_| Left::NoAnswer)??;
        let mut lines = self.accept(answer).await?;

        let mut conversation = Conversation::new(self.now());
        let mut renewal = tokio::time::interval(RENEWAL_CHECK);
        loop {
            tokio::select! {
                line = lines.next() => {
                    conversation.heard(self.now());
                    metrics::heard();
                    let message = serde_json::from_slice(&line?).map_err(Left::Malformed)?;
                    match message {
                        MasterMessage::Ping => {}
                        MasterMessage::Refused { why } => return Err(Left::NotTaken(why)),
                        MasterMessage::Welcome { protocol, heartbeat, masters } => {
                            *connected = true;
                            metrics::SESSIONS.inc([]);
                            metrics::CONNECTED.set([], 1);
                            conversation.welcomed(heartbeat, self.now());
                            info!(master, protocol, "connected to the leader {master}, which speaks version {protocol} with this agent");
                            self.dialer.welcomed(master, masters);
                            self.leader.send_replace(Some(client.clone()));
                            self.tell_driver(FromLeader::Connected).await?;
                        }
                        other => self.tell_driver(FromLeader::Said(other)).await?,
                    }
                }
                message = self.from_driver.recv() => {
                    let message = message.ok_or(Left::NoDriver)?;
                    // Before the welcome nobody listens; the driver says everything again after it.
                    if *connected {
                        say(&to_wire, message).await?;
                    }
                }
                changed = self.hello.changed() => {
                    changed.map_err(|_| Left::NoDriver)?;
                    let greeting = self.greeting();
                    say(&to_wire, greeting).await?;
                }
                _ = renewal.tick(), if *connected => self.renew_if_due(&client).await,
                () = tokio::time::sleep_until(self.began + conversation.due_at()) => match conversation.due(self.now()) {
                    Some(Due::Heartbeat) => say(&to_wire, AgentMessage::Heartbeat).await?,
                    Some(Due::Silent(silence)) => return Err(Left::Silent(silence)),
                    None => {}
                },
            }
        }
    }

    /// Gets a new certificate while the old one is still good. The next connection shows it.
    async fn renew_if_due(&mut self, client: &ClusterClient) {
        if !self.credentials.is_renewal_due() {
            return;
        }
        match tokio::time::timeout(RENEWAL_PATIENCE, drover_pki::join::renew(&self.credentials, client)).await {
            Ok(Ok(renewed)) => {
                info!("the node's certificate is renewed");
                self.credentials = renewed;
            }
            Ok(Err(error)) => warn!("the certificate is not renewed: {}", crate::chain(&error)),
            Err(_) => warn!("the certificate is not renewed: the leader did not answer in time"),
        }
    }

    fn greeting(&mut self) -> AgentMessage {
        let (info, generation) = self.hello.borrow_and_update().clone();
        let Protocols { oldest, newest } = Protocols::OURS;
        AgentMessage::Hello { protocol: newest, oldest: Some(oldest), info: Box::new(info), generation }
    }

    async fn accept(&self, answer: Response<Incoming>) -> Result<Lines, Left> {
        match answer.status() {
            StatusCode::OK => Ok(Lines { body: answer.into_body(), buffer: BytesMut::new(), longest: self.line_bytes_max }),
            StatusCode::MISDIRECTED_REQUEST => {
                let body = answer.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                Err(Left::NotLeading(serde_json::from_slice(&body).ok().and_then(|answer: NotLeading| answer.leader)))
            }
            status => Err(Left::Refused(status)),
        }
    }

    async fn tell_driver(&self, message: FromLeader) -> Result<(), Left> {
        self.to_driver.send(message).await.map_err(|_| Left::NoDriver)
    }
}

async fn say(to_wire: &mpsc::Sender<AgentMessage>, message: AgentMessage) -> Result<(), Left> {
    to_wire.send(message).await.map_err(|_| Left::Ended)
}

fn ndjson(messages: mpsc::Receiver<AgentMessage>) -> Body {
    let lines = futures_util::stream::unfold(messages, |mut messages| async {
        let mut line = serde_json::to_vec(&messages.recv().await?).expect("plain data encodes");
        line.push(b'\n');
        Some((Ok(Frame::data(Bytes::from(line))), messages))
    });
    StreamBody::new(lines).boxed_unsync()
}

/// Any number.
fn dice() -> u32 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.subsec_nanos())
}

/// Splits the leader's side into lines. Cancel safe.
struct Lines {
    body: Incoming,
    buffer: BytesMut,
    longest: usize,
}

impl Lines {
    async fn next(&mut self) -> Result<Bytes, Left> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                return Ok(self.buffer.split_to(end + 1).freeze());
            }
            if self.buffer.len() > self.longest {
                return Err(Left::TooLong(self.longest));
            }
            match self.body.frame().await {
                None | Some(Err(_)) => return Err(Left::Ended),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}
