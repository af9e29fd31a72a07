//! Raft between masters: JSON over the cluster listener, one kept HTTP/2 connection per peer.
//!
//! ```text
//! POST /raft/v1/append     AppendEntriesRequest  → {"Ok": AppendEntriesResponse} or {"Err": …}
//! POST /raft/v1/vote       VoteRequest           → {"Ok": VoteResponse} or {"Err": …}
//! POST /raft/v1/snapshot   a line of JSON, then the snapshot file → {"Ok": SnapshotResponse} or {"Err": …}
//! ```
//!
//! Both sides know from TLS whom they talk to. A client refuses a connection to any master but the one it means
//! (a wrong address would make a leader replicate to itself); a server refuses a message that claims to be of
//! another master than its sender. `410 Gone` tells a candidate that it is not a member any more. Every answer says what its
//! master [`Knows`].

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use drover_core::state::STATE_VERSION;
use drover_pki::Credentials;
use drover_pki::client::{self, Body, BodyError, ClientError, ClusterClient};
use drover_pki::tls::Expect;
use futures_util::stream;
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::Frame;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, StatusCode};
use openraft::error::{
    NetworkError, RPCError, RaftError, RemoteError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RPCTypes, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{OptionalSend, Snapshot};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::sync::watch;

use super::types::{Fatal, MasterNode, SnapshotMeta, Types, Vote};

/// Under this are the paths that only masters may ask for.
pub(crate) const PREFIX: &str = "/raft/v1/";

pub(super) const APPEND: &str = "/raft/v1/append";
pub(super) const VOTE: &str = "/raft/v1/vote";
pub(super) const SNAPSHOT: &str = "/raft/v1/snapshot";

const ANSWER_LIMIT: usize = 1 << 20;

const SNAPSHOT_CHUNK: usize = 256 << 10;

/// Requests in a row that were not answered in time before the connection is suspected and made anew. A
/// connection whose peer vanished would otherwise swallow requests until its next ping fails.
const TIMEOUTS_TO_RECONNECT: u32 = 4;

/// Pauses between attempts to reach a peer that cannot be reached.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// What precedes a snapshot file on the wire.
#[derive(Serialize, Deserialize)]
pub(super) struct SnapshotHead {
    pub(super) vote: Vote,
    pub(super) meta: SnapshotMeta,
}

/// What a master can read, and the release of drover that it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Knows {
    /// The newest version of the replicated shapes.
    pub version: u32,
    /// Of drover.
    pub release: String,
}

/// Says [`Knows`] in an answer's head.
const KNOWS_VERSION: HeaderName = HeaderName::from_static("drover-knows");
const RELEASE: HeaderName = HeaderName::from_static("drover-release");

impl Knows {
    /// What this build knows.
    pub fn ours() -> Self {
        Self { version: STATE_VERSION, release: env!("CARGO_PKG_VERSION").to_owned() }
    }

    pub(super) fn write(self, headers: &mut HeaderMap) {
        headers.insert(KNOWS_VERSION, HeaderValue::from(self.version));
        headers.insert(RELEASE, HeaderValue::from_str(&self.release).expect("a release is digits and dots"));
    }

    fn read(headers: &HeaderMap) -> Option<Self> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let version = text(KNOWS_VERSION)?.parse().ok()?;
        Some(Self { version, release: text(RELEASE).unwrap_or_default().to_owned() })
    }
}

/// Makes and keeps the clients of the other masters. Clones share them.
#[derive(Clone)]
pub(super) struct Network {
    shared: Arc<Shared>,
}

struct Shared {
    me: u64,
    credentials: Credentials,
    peers: Mutex<BTreeMap<u64, Arc<Peer>>>,
    /// This master is not a member any more.
    removed: watch::Sender<bool>,
}

struct Peer {
    me: u64,
    id: u64,
    node: MasterNode,
    client: ClusterClient,
    health: Mutex<Health>,
    answered: watch::Sender<Option<Answer>>,
    removed: watch::Sender<bool>,
}

/// The newest answer of a peer.
struct Answer {
    /// When what it answers was sent.
    asked: Instant,
    at: Instant,
    /// `None` if its master is too old to say.
    knows: Option<Knows>,
}

#[derive(Default)]
struct Health {
    timeouts: u32,
    /// Reported as unreachable and not yet as reached again.
    is_lost: bool,
}

/// Why a call failed.
enum CallError {
    Timeout(Duration),
    Client(ClientError),
    Status(StatusCode),
    Nonsense(serde_json::Error),
}

impl Network {
    pub(super) fn new(me: u64, credentials: Credentials) -> Self {
        let removed = watch::Sender::new(false);
        Self { shared: Arc::new(Shared { me, credentials, peers: Mutex::default(), removed }) }
    }

    /// When a master last answered this one.
    pub(super) fn answered(&self, id: u64) -> Option<Instant> {
        self.known_peer(id).and_then(|peer| peer.answered.borrow().as_ref().map(|answer| answer.at))
    }

    /// What a master said last that it knows.
    pub(super) fn knows(&self, id: u64) -> Option<Knows> {
        self.known_peer(id).and_then(|peer| peer.answered.borrow().as_ref().and_then(|answer| answer.knows.clone()))
    }

    /// Waits until a master answers something that it was sent after `began`, and returns what it says that it knows.
    pub(super) async fn answers_after(&self, id: u64, began: Instant) -> Option<Knows> {
        let mut answered = self.known_peer(id)?.answered.subscribe();
        let is_new = |answer: &Option<Answer>| answer.as_ref().is_some_and(|answer| answer.asked > began);
        let answer = answered.wait_for(is_new).await.ok()?;
        answer.as_ref().and_then(|answer| answer.knows.clone())
    }

    fn known_peer(&self, id: u64) -> Option<Arc<Peer>> {
        self.shared.peers.lock().expect("nothing panics while it holds the peers").get(&id).cloned()
    }

    /// Whether this master was removed, by its own log or by what another master said.
    pub(super) fn removed(&self) -> watch::Receiver<bool> {
        self.shared.removed.subscribe()
    }

    /// This master found out by itself that it was removed.
    pub(super) fn tell_removed(&self) {
        self.shared.removed.send_if_modified(|removed| !std::mem::replace(removed, true));
    }

    fn peer(&self, id: u64, node: &MasterNode) -> Arc<Peer> {
        let mut peers = self.shared.peers.lock().expect("nothing panics while it holds the peers");
        match peers.get(&id) {
            Some(peer) if peer.node == *node => peer.clone(),
            _ => {
                let client = ClusterClient::new(&self.shared.credentials, node.address.clone(), Expect::Master(id));
                let peer = Arc::new(Peer {
                    me: self.shared.me,
                    id,
                    node: node.clone(),
                    client,
                    health: Mutex::default(),
                    answered: watch::Sender::new(None),
                    removed: self.shared.removed.clone(),
                });
                peers.insert(id, peer.clone());
                peer
            }
        }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, node: &MasterNode) -> Connection {
        Connection { peer: self.peer(target, node) }
    }
}

impl Peer {
    fn health(&self) -> std::sync::MutexGuard<'_, Health> {
        self.health.lock().expect("nothing panics while it holds the health")
    }

    /// Posts a request and reads the answer, all within `patience`.
    async fn call<A: DeserializeOwned>(&self, path: &str, body: Body, patience: Duration) -> Result<A, CallError> {
        let request = Request::post(path).header("content-type", "application/json").body(body);
        let request = request.expect("a constant path makes a request");
        let asked = Instant::now();
        let answer = match tokio::time::timeout(patience, self.client.call(request, ANSWER_LIMIT)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                self.report_lost(&error);
                return Err(CallError::Client(error));
            }
            Err(_) => {
                self.count_timeout().await;
                return Err(CallError::Timeout(patience));
            }
        };
        self.report_answer(asked, Knows::read(answer.headers()));
        match answer.status() {
            StatusCode::OK => serde_json::from_slice(answer.body()).map_err(CallError::Nonsense),
            StatusCode::GONE => {
                self.removed.send_if_modified(|removed| !std::mem::replace(removed, true));
                Err(CallError::Status(StatusCode::GONE))
            }
            status => {
                let why = String::from_utf8_lossy(answer.body());
                tracing::warn!(master = %self.node.name, %status, "a master refused a message of this one: {why}");
                Err(CallError::Status(status))
            }
        }
    }

    fn report_answer(&self, asked: Instant, knows: Option<Knows>) {
        self.answered.send_replace(Some(Answer { asked, at: Instant::now(), knows }));
        let mut health = self.health();
        health.timeouts = 0;
        if std::mem::replace(&mut health.is_lost, false) {
            tracing::info!(master = %self.node.name, address = %self.node.address, "master is reached again");
        }
    }

    fn report_lost(&self, error: &ClientError) {
        if !std::mem::replace(&mut self.health().is_lost, true) {
            let error = error as &dyn std::error::Error;
            tracing::warn!(master = %self.node.name, address = %self.node.address, error, "master cannot be reached");
        }
    }

    async fn count_timeout(&self) {
        let is_suspect = {
            let mut health = self.health();
            health.timeouts += 1;
            health.timeouts.is_multiple_of(TIMEOUTS_TO_RECONNECT)
        };
        if is_suspect {
            self.report_lost(&ClientError::Timeout { address: self.node.address.clone() });
            self.client.disconnect().await;
        }
    }

    fn timeout(&self, action: RPCTypes, timeout: Duration) -> Timeout<u64> {
        Timeout { action, id: self.me, target: self.id, timeout }
    }
}

/// A peer as openraft's replication uses it.
pub(super) struct Connection {
    peer: Arc<Peer>,
}

impl Connection {
    async fn rpc<A: DeserializeOwned>(
        &self,
        action: RPCTypes,
        path: &str,
        request: &impl Serialize,
        option: &RPCOption,
    ) -> Result<A, RPCError<u64, MasterNode, RaftError<u64>>> {
        let body = client::full(serde_json::to_vec(request).expect("Raft's messages are plain data"));
        let answer: Result<Result<A, RaftError<u64>>, _> = self.peer.call(path, body, option.soft_ttl()).await;
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(RemoteError::new_with_node(self.peer.id, self.peer.node.clone(), error).into()),
            Err(CallError::Timeout(patience)) => Err(self.peer.timeout(action, patience).into()),
            // Everything else is for the back-off: openraft repeats a NetworkError at once, for ever.
            Err(CallError::Client(error)) => Err(Unreachable::new(&error).into()),
            Err(CallError::Status(status)) => Err(Unreachable::new(&refused(status)).into()),
            Err(CallError::Nonsense(error)) => Err(Unreachable::new(&error).into()),
        }
    }
}

fn refused(status: StatusCode) -> io::Error {
    io::Error::other(format!("the peer answered with status {status}"))
}

impl RaftNetwork<Types> for Connection {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, MasterNode, RaftError<u64>>> {
        self.rpc(RPCTypes::AppendEntries, APPEND, &rpc, &option).await
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, MasterNode, RaftError<u64>>> {
        self.rpc(RPCTypes::Vote, VOTE, &rpc, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<Types>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Types, Fatal>> {
        tracing::info!(master = %self.peer.node.name, snapshot = %snapshot.meta.snapshot_id, "sending a snapshot");
        let head = SnapshotHead { vote, meta: snapshot.meta };
        let file = tokio::fs::File::from_std(snapshot.snapshot.file);
        let sending = self.peer.call(SNAPSHOT, snapshot_body(&head, file), option.hard_ttl());
        let answer: Result<Result<SnapshotResponse<u64>, Fatal>, CallError> = tokio::select! {
            answer = sending => answer,
            closed = cancel => return Err(closed.into()),
        };
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(RemoteError::new_with_node(self.peer.id, self.peer.node.clone(), error).into()),
            Err(CallError::Timeout(patience)) => Err(self.peer.timeout(RPCTypes::InstallSnapshot, patience).into()),
            Err(CallError::Client(error)) => Err(Unreachable::new(&error).into()),
            Err(CallError::Status(status)) => Err(Unreachable::new(&refused(status)).into()),
            Err(CallError::Nonsense(error)) => Err(NetworkError::new(&error).into()),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::successors(Some(BACKOFF_FIRST), |pause| Some((*pause * 2).min(BACKOFF_MAX))))
    }
}

fn snapshot_body(head: &SnapshotHead, file: tokio::fs::File) -> Body {
    let mut line = serde_json::to_vec(head).expect("a head is plain data");
    line.push(b'\n');
    let chunks = stream::try_unfold((Some(line), file), |(line, mut file)| async move {
        let chunk = match line {
            Some(line) => Bytes::from(line),
            None => {
                let mut chunk = Vec::with_capacity(SNAPSHOT_CHUNK);
                (&mut file).take(SNAPSHOT_CHUNK as u64).read_to_end(&mut chunk).await?;
                Bytes::from(chunk)
            }
        };
        Ok::<_, BodyError>((!chunk.is_empty()).then(|| (Frame::data(chunk), (None, file))))
    });
    StreamBody::new(chunks).boxed_unsync()
}

/// Reads a whole body of at most `limit` bytes.
pub(super) async fn collect(body: hyper::body::Incoming, limit: usize) -> Result<Bytes, BodyError> {
    Ok(Limited::new(body, limit).collect().await?.to_bytes())
}
