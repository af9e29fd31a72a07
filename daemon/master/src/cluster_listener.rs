//! The cluster listener: HTTP/2 over mutual TLS, for masters among themselves, for agents, and for nodes that join.
//!
//! | path                  | who              |                                                            |
//! |-----------------------|------------------|------------------------------------------------------------|
//! | `/raft/v1/…`          | masters          | Raft                                                       |
//! | `/cluster/v1/members` | masters          | a new master says that it is there                         |
//! | `/join/v1`            | holders of a token | a certificate for a new node; handed on to the leader    |
//! | `/renew/v1`           | any node         | a newer certificate for the same node                      |
//! | `/agent/…`            | agents           | the caller's handler                                       |
//! | everything else       | masters          | the caller's handler: requests handed over by other masters |
//!
//! TLS lets in whoever shows a certificate of the cluster, or none; each request is then checked against this
//! table. The peer is also in the request's extensions, as [`PeerIdentity`].
//!
//! Tasks: one per connection, ended by its peer or by shutdown; one that announces this master to the others
//! until it is a voter.

mod join;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use drover_api::drover::{PROBLEM_JSON, Problem, code};
use drover_pki::client::{self, Body};
use drover_pki::join::{JOIN_PATH, RENEW_PATH};
use drover_pki::{Authority, Credentials, PeerIdentity, Role, tls};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use serde::de::DeserializeOwned;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::consensus::{Announcement, Consensus, MEMBERS_PATH, MembershipError, Misdirected, RAFT_PREFIX};
use crate::doors::Doors;

/// Under this are the paths of agents.
const AGENT_PREFIX: &str = "/agent/";

/// Requests at once on one connection. An agent's logs and shells are requests of their own.
const STREAMS_MAX: u32 = 4096;

/// A peer has this long to finish the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection is asked for a sign of life this often, and given up when it stays silent for so long.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// How long connections may take to end at shutdown. Sessions never end by themselves.
const DRAIN_PATIENCE: Duration = Duration::from_secs(2);

/// Bytes of the small requests answered here.
const BODY_LIMIT: usize = 64 << 10;

/// Answers what this listener does not answer itself.
pub(crate) type Handler =
    Arc<dyn Fn(PeerIdentity, Request<Incoming>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> + Send + Sync>;

/// The cluster listener; connections share it.
pub(crate) struct ClusterListener {
    consensus: Consensus,
    credentials: Credentials,
    authority: Authority,
    tls: Arc<ServerConfig>,
    handler: Handler,
    doors: Doors,
}

impl ClusterListener {
    /// A listener of the master whose credentials these are.
    pub(crate) fn new(
        consensus: Consensus,
        credentials: Credentials,
        handler: Handler,
        doors: Doors,
    ) -> Result<Arc<Self>, drover_pki::Error> {
        let authority = credentials.load_authority()?;
        let tls = tls::server_config(&credentials);
        Ok(Arc::new(Self { consensus, credentials, authority, tls, handler, doors }))
    }

    /// Accepts until shut down, and lets the other masters know that this one can be reached.
    pub(crate) async fn run(self: Arc<Self>, listener: TcpListener, shutdown: CancellationToken) {
        let tasks = TaskTracker::new();
        let (consensus, ending) = (self.consensus.clone(), shutdown.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = consensus.announce() => {}
                () = ending.cancelled() => {}
            }
        });
        loop {
            let (stream, peer) = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Out of descriptors, most likely: accepting again at once would spin.
                        tracing::warn!(%error, "connection not accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            // Before TLS nothing can be said that the other side would believe: one too many is closed, and tries again.
            let Ok(place) = self.doors.enter(peer.ip()) else { continue };
            let (shared, shutdown) = (self.clone(), shutdown.clone());
            tasks.spawn(async move {
                shared.serve_connection(stream, shutdown).await;
                drop(place);
            });
        }
        drop(listener);
        tasks.close();
        tasks.wait().await;
    }

    async fn serve_connection(self: Arc<Self>, stream: TcpStream, shutdown: CancellationToken) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot switch off Nagle's algorithm, ignoring");
        }
        let from = stream.peer_addr().map_or_else(|_| "somebody".to_owned(), |address| address.to_string());
        let handshake = TlsAcceptor::from(self.tls.clone()).accept(stream);
        let stream = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake) => match accepted {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return tracing::debug!(%from, %error, "TLS refused"),
                Err(_) => return tracing::debug!(%from, "no TLS handshake in time"),
            },
        };
        let peer = tls::peer_of(stream.get_ref().1);
        let service = service_fn(move |request| {
            let (shared, peer) = (self.clone(), peer.clone());
            async move { Ok::<_, Infallible>(shared.answer(peer, request).await) }
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .adaptive_window(true)
            .max_concurrent_streams(STREAMS_MAX)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::time::timeout(DRAIN_PATIENCE, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%from, error = &error as &dyn std::error::Error, "connection ended");
        }
    }

    async fn answer(&self, peer: Option<PeerIdentity>, mut request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        if path == JOIN_PATH {
            return join::admit(self, request).await;
        }
        let Some(peer) = peer else {
            return Refused::forbidden("this needs a certificate of the cluster", "").into();
        };
        if path == RENEW_PATH {
            return join::renew(self, &peer, request).await;
        }
        let wanted = if path.starts_with(AGENT_PREFIX) { Role::Agent } else { Role::Master };
        if peer.role != wanted {
            return Refused::forbidden(&format!("{path} is for a {wanted}'s certificate"), &format!("the peer is {peer}"))
                .into();
        }
        if path.starts_with(RAFT_PREFIX) {
            return self.consensus.serve(&peer, request).await;
        }
        if path == MEMBERS_PATH {
            return self.take_in(&peer, request).await;
        }
        request.extensions_mut().insert(peer.clone());
        (self.handler)(peer, request).await
    }

    /// A master says that it is there.
    async fn take_in(&self, peer: &PeerIdentity, request: Request<Incoming>) -> Response<Body> {
        let announcement: Announcement = match read(request).await {
            Ok(announcement) => announcement,
            Err(refused) => return refused.into(),
        };
        if peer.master_id() != Some(announcement.id) || peer.name != announcement.name {
            return misdirected(StatusCode::FORBIDDEN, format!("{peer} announces another master"), None);
        }
        let Announcement { id, name, address, knows } = announcement;
        let added = self.consensus.add_master(id, &name, &address, knows).await;
        match added {
            Ok(()) => misdirected(StatusCode::OK, String::new(), None),
            Err(MembershipError::NotLeader { leader }) => {
                let leader = leader.map(|leader| leader.address);
                misdirected(StatusCode::MISDIRECTED_REQUEST, "this master does not lead".to_owned(), leader)
            }
            Err(error @ (MembershipError::Taken { .. } | MembershipError::TooOld { .. })) => {
                misdirected(StatusCode::CONFLICT, error.to_string(), None)
            }
            Err(error) => misdirected(StatusCode::SERVICE_UNAVAILABLE, error.to_string(), None),
        }
    }
}

fn misdirected(status: StatusCode, error: String, leader: Option<String>) -> Response<Body> {
    json(status, &Misdirected { error, leader })
}

fn json(status: StatusCode, content: &impl serde::Serialize) -> Response<Body> {
    let mut response = Response::new(client::full(serde_json::to_vec(content).expect("answers are plain data")));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A request refused here: status and what to say.
#[derive(Debug)]
struct Refused(StatusCode, Problem);

impl Refused {
    fn new(status: StatusCode, code: &str, error: &str, because: &str) -> Self {
        let because = Some(because.to_owned()).filter(|because| !because.is_empty());
        Self(status, Problem { error: error.to_owned(), because, code: code.to_owned(), ..Problem::default() })
    }

    fn forbidden(error: &str, because: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, code::FORBIDDEN, error, because)
    }

    fn bad_request(error: &str, because: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code::BAD_REQUEST, error, because)
    }

    fn unavailable(error: &str, because: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code::NO_LEADER, error, because).remedy("try again in a few seconds")
    }

    fn remedy(mut self, remedy: &str) -> Self {
        self.1.remedy = Some(remedy.to_owned());
        self
    }
}

impl From<Refused> for Response<Body> {
    fn from(Refused(status, problem): Refused) -> Self {
        let mut response = json(status, &problem);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        response
    }
}

/// Reads the body of a `POST`.
async fn read_body(request: Request<Incoming>) -> Result<Bytes, Refused> {
    if request.method() != Method::POST {
        return Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, code::BAD_REQUEST, "this takes POST", ""));
    }
    match Limited::new(request.into_body(), BODY_LIMIT).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(Refused::bad_request("the request's body cannot be read", &error.to_string())),
    }
}

async fn read<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Refused> {
    parse(&read_body(request).await?)
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(|error| Refused::bad_request("the request is not understood", &error.to_string()))
}

#[cfg(test)]
pub(crate) mod tests;
