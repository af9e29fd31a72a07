//! Marathon's `/v2` on top of the state. Each request is one pure decision ([`route::decide`]): look at the state, then
//! either answer or name the commands to propose and the answer to give once they are applied. What was planned on a state
//! that has changed meanwhile is refused when applied, and decided again here.
//!
//! ```text
//! request ─▶ Ask ─▶ decide(ask, world) ─▶ Step::Answer ─────────────────────▶ response
//!              ▲                     └──▶ Step::Propose ─▶ consensus ─ applied ──┘
//!              └───────────────────────────── refused ◀──────┘
//! ```

mod answer;
mod ask;
mod route;

mod apps;
mod deployments;
mod groups;
mod tasks;

#[cfg(test)]
mod tests;

use super::Api;
use crate::clock;
use crate::config::Limits;
use crate::consensus::ProposeError;
use answer::{Answer, Outcome, Server, Step, World};
use ask::Ask;
use bytes::Bytes;
use drover_api::v2::{self, Error};
use drover_core::event::Event;
use drover_core::ids::DeploymentId;
use drover_core::state::{ClusterState, Command};
use drover_core::time::Timestamp;
use drover_pki::client::{self, Body};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How often a change is planned anew before its client is told to come back: writes of apps queue up on this master, so
/// only what other layers write can get in between.
const ATTEMPTS: usize = 10;

/// Answers one request.
pub(crate) async fn handle(api: &Arc<Api>, head: &Parts, body: Bytes) -> Response<Body> {
    let ask = Ask::new(head, &body);
    let server = server(api);
    let is_read = matches!(head.method, Method::GET | Method::HEAD);
    let _writing = if is_read { None } else { Some(api.app_writes.lock().await) };
    let mut is_confirmed = is_read;
    for _ in 0..ATTEMPTS {
        let new_id = DeploymentId::new(clock::new_id());
        let mut step = decide(api, &ask, &server, new_id.clone());
        if !is_confirmed && !matches!(step, Ok(Step::Propose { .. })) {
            // An answer that proposes nothing is a read, whatever was asked for, and has to be as fresh as one.
            if api.consensus.confirm_leadership().await.is_err() {
                return super::no_leader(super::Dialect::Marathon);
            }
            is_confirmed = true;
            step = decide(api, &ask, &server, new_id);
        }
        let (commands, answer) = match step {
            Err(error) => return Answer::error(&error).into_response(&server),
            Ok(Step::Answer(answer)) => return answer.into_response(&server),
            Ok(Step::Propose { commands, answer }) => (commands, answer),
        };
        match propose(api, commands).await {
            Proposed::Done => return answer.into_response(&server),
            Proposed::Again => {}
            Proposed::Failed(answer) => return answer.into_response(&server),
        }
    }
    Answer::error(&Error::Contended).into_response(&server)
}

fn decide(api: &Api, ask: &Ask<'_>, server: &Server, new_id: DeploymentId) -> Outcome {
    let waiting = api.board.waiting();
    let limits = api.config.limits;
    let now = clock::now();
    api.consensus.read(|state| route::decide(ask, &World { state, waiting: &waiting, server, now, new_id, limits }))
}

enum Proposed {
    Done,
    /// The state has changed since: to be decided again.
    Again,
    Failed(Answer),
}

async fn propose(api: &Api, commands: Vec<Command>) -> Proposed {
    // A task that was to be killed and is gone, or is being killed already, is no reason to do anything again.
    let may_be_moot: Vec<bool> = commands.iter().map(|command| matches!(command, Command::KillTask { .. })).collect();
    for (result, may_be_moot) in api.propose_all(commands).await.into_iter().zip(may_be_moot) {
        let error = match result {
            Ok(_) => continue,
            Err(ProposeError::Refused(_)) if may_be_moot => continue,
            Err(ProposeError::Refused(_)) => return Proposed::Again,
            Err(error) => error,
        };
        let status = if matches!(error, ProposeError::TooLarge { .. }) {
            StatusCode::PAYLOAD_TOO_LARGE
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        return Proposed::Failed(Answer::message(status, &error.to_string()));
    }
    Proposed::Done
}

/// Who this master is, for those who ask for the leader: only the leader gets here unless `?stale` was asked for.
fn server(api: &Api) -> Server {
    let host = |address: &str| address.rsplit_once(':').map_or(address, |(host, _)| host).to_owned();
    let port = api.config.api_listen.port();
    let leader = api.consensus.leadership().borrow().leader.as_ref().map(|leader| format!("{}:{port}", host(&leader.address)));
    Server { host: host(&api.config.advertise), port, is_leader: api.consensus.leadership().borrow().is_me, leader }
}

/// `/ping`, answered by every master.
pub(crate) fn ping() -> Response<Body> {
    super::text(StatusCode::OK, "pong".into())
}

/// What a client of the event stream is told first: type and data.
pub(crate) fn event_stream_attached(now: Timestamp) -> (String, Value) {
    let (kind, data) = v2::event::attached("", now);
    (kind.to_owned(), data)
}

/// One event in Marathon's words: types and data.
pub(crate) fn render_event(event: &Event) -> Vec<(String, Value)> {
    v2::event::render(event).into_iter().map(|(kind, data)| (kind.to_owned(), data)).collect()
}

/// What one request comes to on a state in hand: the answer, and what would be proposed before it is given.
pub(super) fn decide_on(
    state: &ClusterState,
    head: &Parts,
    body: &[u8],
    limits: Limits,
    now: Timestamp,
) -> (StatusCode, Vec<u8>, Vec<Command>) {
    let server = Server { host: "localhost".into(), port: 7070, is_leader: true, leader: Some("localhost:7070".into()) };
    let new_id = DeploymentId::new(format!("d{}", now.0));
    let world = World { state, waiting: &BTreeMap::new(), server: &server, now, new_id, limits };
    let (answer, commands) = match route::decide(&Ask::new(head, body), &world) {
        Err(error) => (Answer::error(&error), Vec::new()),
        Ok(Step::Answer(answer)) => (answer, Vec::new()),
        Ok(Step::Propose { commands, answer }) => (answer, commands),
    };
    (answer.status, answer.body, commands)
}

fn body_of(content: Vec<u8>) -> Body {
    if content.is_empty() { client::empty() } else { client::full(content) }
}
