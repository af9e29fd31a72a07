//! The HTTP API: one listener, every dialect. Any master takes any request; one that does not lead hands it to the leader
//! over the cluster listener, so a client needs to know one living master only.
//!
//! ```text
//! client ─▶ api listener ─▶ serve ─▶ leader? ─ yes ─▶ confirm (reads) ─▶ dialect ─▶ answer
//!                                        └─── no ──▶ hand over: leader's cluster listener ─▶ serve there
//! ```
//! Each request has an id, the client's own or a new one: it is in the answer, in the journal (`DROVER_REQUEST_ID`), and goes
//! along when the request is handed over. `/metrics` and `/ping` are every master's own.
//!
//! Each dialect plans with pure functions over the state, proposes commands, and answers in its own shapes and errors.

pub(crate) mod chronos;
pub(crate) mod drover;
pub(crate) mod events;
pub(crate) mod forward;
mod inputs;
pub(crate) mod v2;

pub use inputs::{Answered, Asked, answer};

use crate::agents::Agents;
use crate::board::Board;
use crate::clock;
use crate::config::MasterConfig;
use crate::consensus::{Consensus, Leadership, ProposeError};
use crate::metrics;
use crate::subject::Subject;
use bytes::Bytes;
use drover_api::request_id::{REQUEST_ID_HEADER, RequestId, TRACEPARENT_HEADER};
use drover_core::state::Command;
use drover_pki::Credentials;
use drover_pki::client::{self, Body};
use drover_telemetry::Format;
use forward::{Forwarder, was_not_sent};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{Instrument, debug, info_span};

/// How long a request waits for a leader to be elected before it is refused.
const LEADER_WAIT: Duration = Duration::from_secs(5);

/// Between two attempts to reach a leader that does not answer.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Everything the handlers share.
pub(crate) struct Api {
    pub(crate) consensus: Consensus,
    pub(crate) agents: Arc<Agents>,
    pub(crate) board: Arc<Board>,
    pub(crate) config: Arc<MasterConfig>,
    /// Writes of apps are planned and committed one after the other (Marathon's serializer), so that service ports and
    /// versions given to one are seen by the next.
    pub(crate) app_writes: tokio::sync::Mutex<()>,
    pub(crate) subscribers: Arc<Semaphore>,
    pub(crate) log_streams: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    /// The cluster's id.
    pub(crate) cluster: uuid::Uuid,
    /// The authority's certificate, which join tokens name.
    pub(crate) authority: rustls_pki_types::CertificateDer<'static>,
    forwarder: Forwarder,
}

/// Where a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// From a client.
    Client,
    /// From a master that took it for the leader's.
    Master,
}

/// Whose shapes a path speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `/v2`, `/ping`.
    Marathon,
    /// `/v1/scheduler`, `/scheduler`.
    Chronos,
    /// `/drover/v1` and everything unknown.
    Drover,
}

impl Dialect {
    fn of(path: &str) -> Self {
        let under = |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if under("/v2") || under("/ping") || under("/metrics") {
            Self::Marathon
        } else if under("/v1/scheduler") || under("/scheduler") {
            Self::Chronos
        } else {
            Self::Drover
        }
    }

    /// For metrics.
    fn word(self) -> &'static str {
        match self {
            Self::Marathon => "marathon",
            Self::Chronos => "chronos",
            Self::Drover => "drover",
        }
    }

    /// A refusal because of a limit, which may be over in a moment.
    pub(crate) fn too_much(self, key: &'static str, why: &str) -> Response<Body> {
        metrics::LIMITS_HIT.inc([key]);
        let try_this = format!("try again in a moment, or raise [master.limits] {key}");
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let mut response = match self {
            Self::Drover => drover::limit_reached(status, why, &try_this),
            Self::Marathon | Self::Chronos => self.refuse(status, why, &try_this),
        };
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        response
    }

    /// A refusal in the dialect's shape.
    pub(crate) fn refuse(self, status: StatusCode, why: &str, try_this: &str) -> Response<Body> {
        let body = match self {
            Self::Marathon => serde_json::json!({ "message": why }),
            Self::Chronos => serde_json::json!({ "message": why, "status": status.canonical_reason() }),
            Self::Drover => return drover::problem(status, why, "", try_this),
        };
        json(status, &body)
    }
}

impl Api {
    pub(crate) fn new(
        consensus: Consensus,
        agents: Arc<Agents>,
        board: Arc<Board>,
        config: Arc<MasterConfig>,
        credentials: Credentials,
    ) -> Self {
        let limits = config.limits;
        Self {
            consensus,
            agents,
            board,
            config,
            app_writes: tokio::sync::Mutex::new(()),
            subscribers: Arc::new(Semaphore::new(limits.event_subscribers)),
            log_streams: Arc::new(Semaphore::new(limits.log_streams)),
            requests: Arc::new(Semaphore::new(limits.requests)),
            cluster: credentials.identity.cluster,
            authority: credentials.authority().clone(),
            forwarder: Forwarder::new(credentials),
        }
    }

    /// Answers one request.
    pub(crate) async fn serve(self: Arc<Self>, mut request: Request<Incoming>, origin: Origin) -> Response<Body> {
        let began = Instant::now();
        let dialect = Dialect::of(request.uri().path());
        let labels = [dialect.word(), metrics::method(request.method()), origin.word()];
        let id = request_id(request.headers());
        let id_value = HeaderValue::from_str(id.as_str()).expect("an id is printable ASCII");
        // From here on it is the request's own: a master that it is handed to takes it as given.
        request.headers_mut().insert(HeaderName::from_static(REQUEST_ID_HEADER), id_value.clone());
        let span = info_span!("request", request_id = %id);
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let in_flight = metrics::REQUESTS_IN_FLIGHT.hold([]);
        let mut response = self.answer(request, dialect, origin).instrument(span.clone()).await;
        drop(in_flight);
        let took = began.elapsed();
        metrics::count_request(labels, response.status(), took);
        span.in_scope(|| debug!(%method, path, status = response.status().as_u16(), ?took, "{method} {path} is answered"));
        response.headers_mut().insert(HeaderName::from_static(REQUEST_ID_HEADER), id_value);
        response
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>, dialect: Dialect, origin: Origin) -> Response<Body> {
        if let Some(answer) = events::serve_if_asked(&self, &request) {
            return answer;
        }
        match request.uri().path() {
            "/ping" => return v2::ping(),
            "/metrics" => return self.metrics(&request),
            _ => {}
        }
        let Some(_turn) = self.turn() else {
            let why = format!("this master is answering {} requests already", self.config.limits.requests);
            return dialect.too_much("requests", &why);
        };
        let stale = wants_stale(&request);
        let (head, body) = request.into_parts();
        let body = match read_body(body, self.config.limits.body, self.config.limits.body_timeout).await {
            Ok(body) => body,
            Err(refused) => return refused.into_response(dialect, self.config.limits.body),
        };
        if !stale {
            if let Some(answer) = self.hand_over(&head, &body, dialect, origin).await {
                return answer;
            }
            // Writes of drover's own dialect are few, and begin with a look at the state; the others confirm what they refuse.
            if (is_read(&head.method) || dialect == Dialect::Drover) && self.consensus.confirm_leadership().await.is_err() {
                return no_leader(dialect);
            }
        }
        self.dispatch(dialect, &head, body).await
    }

    /// Proposes what a request asks for. A deployment is told of, with the request's id; the rest only to those who want to know
    /// everything, because a line in the journal costs more than most writes.
    pub(crate) async fn propose_all(&self, commands: Vec<Command>) -> Vec<Result<u64, ProposeError>> {
        let is_told =
            |command: &Command| matches!(command, Command::ChangeApps { .. }) || tracing::enabled!(tracing::Level::DEBUG);
        let told: Vec<Option<Subject>> = match commands.iter().any(is_told) {
            true => self
                .consensus
                .read(|state| commands.iter().map(|command| is_told(command).then(|| Subject::of(command, state))).collect()),
            false => vec![None; commands.len()],
        };
        let results = self.consensus.propose_all(commands).await;
        for (subject, result) in told.iter().zip(&results) {
            match (subject, result) {
                (Some(subject), Ok(index)) => subject.tell_applied(*index),
                (Some(subject), Err(error)) => subject.tell_refused(error),
                (None, _) => {}
            }
        }
        results
    }

    /// As [`Api::propose_all`], one.
    pub(crate) async fn propose(&self, command: Command) -> Result<u64, ProposeError> {
        self.propose_all(vec![command]).await.pop().unwrap_or(Err(ProposeError::Unavailable))
    }

    /// A place among the requests being answered.
    fn turn(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.requests).try_acquire_owned().ok()
    }

    /// This master's numbers, for Prometheus. Marathon's `/metrics` is JSON of another system's making, and whoever insists
    /// on JSON is told that there is none.
    fn metrics(&self, request: &Request<Incoming>) -> Response<Body> {
        let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("*/*");
        if !is_read(request.method()) {
            return Dialect::Marathon.refuse(StatusCode::METHOD_NOT_ALLOWED, "metrics are read with GET", "");
        }
        if accept.contains("json") && !accept.contains("text/") && !accept.contains("*/*") && !accept.contains("openmetrics") {
            let why = "metrics are in the text formats of Prometheus and OpenMetrics only, not in JSON";
            return Dialect::Marathon.refuse(StatusCode::NOT_ACCEPTABLE, why, "");
        }
        let format = Format::accepted(accept);
        let mut response = Response::new(client::full(metrics::page(self, format)));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
        response
    }

    /// The leader's answer, unless this master leads itself. While the leadership moves, what is known not to have reached
    /// anybody, and every read, is tried again with the next leader.
    async fn hand_over(&self, head: &Parts, body: &Bytes, dialect: Dialect, origin: Origin) -> Option<Response<Body>> {
        let deadline = tokio::time::Instant::now() + LEADER_WAIT;
        loop {
            let address = match self.find_leader(origin, deadline).await {
                Some(Leader::Me) => return None,
                Some(Leader::At(address)) => {
                    debug!(leader = address, "handing the request to the leader at {address}");
                    address
                }
                None => return Some(no_leader(dialect)),
            };
            let outcome = tokio::select! {
                outcome = self.forwarder.forward(&address, head, body) => Some(outcome),
                () = self.leader_is_not(&address) => None,
            };
            let (was_sent, why) = match outcome {
                Some(Ok(answer)) => return Some(answer),
                Some(Err(error)) => (!was_not_sent(&error), error.to_string()),
                None => (true, "it does not lead any more".to_owned()),
            };
            self.forwarder.forget(&address);
            if was_sent && !is_read(&head.method) {
                let why = format!(
                    "the leadership moved while the request was under way, so it is unknown whether it took effect: {why}"
                );
                return Some(dialect.refuse(
                    StatusCode::SERVICE_UNAVAILABLE,
                    &why,
                    "look whether it did, and repeat it if not",
                ));
            }
            if tokio::time::Instant::now() >= deadline {
                let why = format!("the leader at {address} does not answer: {why}");
                return Some(dialect.refuse(
                    StatusCode::BAD_GATEWAY,
                    &why,
                    "try again in a few seconds: another master will lead by then",
                ));
            }
            // The others notice soon as well; asking the same one again at once would spin.
            tokio::select! {
                () = self.leader_is_not(&address) => {}
                () = tokio::time::sleep(RETRY_PAUSE) => {}
            }
        }
    }

    /// Until somebody else leads, or nobody does.
    async fn leader_is_not(&self, address: &str) {
        let mut leadership = self.consensus.leadership();
        let differs = |now: &Leadership| now.is_me || now.leader.as_ref().is_none_or(|leader| leader.address != address);
        // When consensus has ended there is no other leader to come; the request is answered or fails by itself.
        if leadership.wait_for(differs).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn dispatch(self: &Arc<Self>, dialect: Dialect, head: &Parts, body: Bytes) -> Response<Body> {
        match dialect {
            Dialect::Marathon => v2::handle(self, head, body).await,
            Dialect::Chronos => chronos::handle(self, head, body).await,
            Dialect::Drover => drover::handle(self, head, body).await,
        }
    }

    /// Who leads; waits a moment while nobody does.
    async fn find_leader(&self, origin: Origin, deadline: tokio::time::Instant) -> Option<Leader> {
        let mut leadership = self.consensus.leadership();
        let found = tokio::time::timeout_at(deadline, async {
            loop {
                {
                    let now = leadership.borrow_and_update();
                    if now.is_me {
                        return Some(Leader::Me);
                    }
                    // A request that was handed over once is not handed on: two masters that take each other for the
                    // leader must not play ball with it.
                    if let (Some(leader), Origin::Client) = (now.leader.as_ref(), origin) {
                        return Some(Leader::At(leader.address.clone()));
                    }
                }
                leadership.changed().await.ok()?;
            }
        });
        found.await.ok().flatten()
    }
}

impl Origin {
    /// For metrics.
    fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Master => "master",
        }
    }
}

/// The id that came with a request, or a new one.
fn request_id(headers: &HeaderMap) -> RequestId {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let given = RequestId::given(text(REQUEST_ID_HEADER), text(TRACEPARENT_HEADER));
    given.unwrap_or_else(|| RequestId::new(clock::new_id()))
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

enum Leader {
    Me,
    At(String),
}

/// `?stale` (or `?stale=true`): whatever this master knows, without asking the leader.
fn wants_stale<B>(request: &Request<B>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    *request.method() == Method::GET
        && query.split('&').any(|pair| matches!(pair, "stale" | "stale=" | "stale=true" | "stale=1"))
}

fn no_leader(dialect: Dialect) -> Response<Body> {
    let why = match dialect {
        Dialect::Marathon => "Could not determine the current leader",
        Dialect::Chronos | Dialect::Drover => "no master leads at the moment: a majority of the masters must be up",
    };
    dialect.refuse(StatusCode::SERVICE_UNAVAILABLE, why, "drover masters list --stale")
}

enum Unread {
    TooLarge,
    Slow,
    Broken,
}

impl Unread {
    fn into_response(self, dialect: Dialect, limit: usize) -> Response<Body> {
        match self {
            Self::TooLarge => {
                metrics::LIMITS_HIT.inc(["body"]);
                let why = format!("the body has more than {limit} bytes, the limit of this cluster");
                dialect.refuse(StatusCode::PAYLOAD_TOO_LARGE, &why, "raise [master.limits] body, or send less at once")
            }
            Self::Slow => {
                metrics::LIMITS_HIT.inc(["body_timeout"]);
                let why = "the body did not come within [master.limits] body_timeout";
                dialect.refuse(StatusCode::REQUEST_TIMEOUT, why, "send it faster, or less at once")
            }
            Self::Broken => dialect.refuse(StatusCode::BAD_REQUEST, "the body ended before it was complete", ""),
        }
    }
}

async fn read_body(body: Incoming, limit: usize, patience: Duration) -> Result<Bytes, Unread> {
    let read = tokio::time::timeout(patience, Limited::new(body, limit).collect());
    match read.await.map_err(|_| Unread::Slow)? {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Unread::TooLarge),
        Err(_) => Err(Unread::Broken),
    }
}

/// An answer of JSON.
pub(crate) fn json(status: StatusCode, body: &impl serde::Serialize) -> Response<Body> {
    let mut response = Response::new(client::full(serde_json::to_vec(body).expect("plain data encodes")));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(client::empty());
    *response.status_mut() = status;
    response
}

/// An answer of plain text.
pub(crate) fn text(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(client::full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// The path's segments, percent-decoded; empty ones (double and trailing slashes) are dropped.
pub(crate) fn segments(path: &str) -> Vec<String> {
    path.split('/').filter(|segment| !segment.is_empty()).map(percent_decode).collect()
}

/// The query's pairs, decoded, in order.
pub(crate) fn query(head: &Parts) -> Vec<(String, String)> {
    let query = head.uri.query().unwrap_or_default();
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let decode = |text: &str| percent_decode(&text.replace('+', " "));
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
        .collect()
}

fn percent_decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let hex = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
        let rest = bytes.clone();
        match (byte, hex(bytes.next()), hex(bytes.next())) {
            (b'%', Some(high), Some(low)) => out.push((high * 16 + low) as u8),
            _ => {
                bytes = rest;
                out.push(byte);
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_queries_are_decoded() {
        assert_eq!(segments("//v2/apps//a%2Fb/"), ["v2", "apps", "a/b"]);
        let request = Request::get("/x?name=a+b&command=e%26f&flag&bad=%zz").body(()).unwrap();
        let pairs = query(&request.into_parts().0);
        let pairs: Vec<_> = pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("name", "a b"), ("command", "e&f"), ("flag", ""), ("bad", "%zz")]);
    }

    #[test]
    fn each_path_has_its_dialect() {
        for (path, dialect) in [
            ("/v2/apps", Dialect::Marathon),
            ("/v2", Dialect::Marathon),
            ("/v20", Dialect::Drover),
            ("/v1/scheduler/jobs", Dialect::Chronos),
            ("/scheduler/iso8601", Dialect::Chronos),
            ("/drover/v1/status", Dialect::Drover),
            ("/nothing", Dialect::Drover),
        ] {
            assert_eq!(Dialect::of(path), dialect, "{path}");
        }
    }
}
