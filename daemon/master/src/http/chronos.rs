//! Chronos' HTTP API on top of the state, under `/v1/scheduler` (version 3) and `/scheduler` (version 2). Each request is one
//! pure decision ([`decide`]): look at the state, then either answer or name the commands to propose and the answer to give
//! once they are applied, so that what was answered is visible. What was planned on a state that has changed meanwhile is
//! refused when applied, and decided again here.
//!
//! Where drover differs from Chronos on purpose:
//! - A job that would wait for itself is refused. Parents that do not exist are taken with a new job only, as in Chronos.
//! - Deleting a job with a schedule that others depend on is refused with 409 unless `?children=inherit` (they get its
//!   schedule: what Chronos does unasked) or `?children=detach` (they keep their other parents) says what becomes of them.
//! - What drover cannot honour is refused, not dropped. Counts and dates are drover's; a client's are not taken.
//! - A run asked for by hand is never dropped: it waits behind a live one, and runs a disabled job, too.
//! - No `Access-Control-Allow-Origin: *`: job definitions hold environment variables, and any web page could read them.

#[cfg(test)]
mod tests;

use super::{Api, empty, json, query, segments, text};
use crate::clock;
use crate::consensus::ProposeError;
use bytes::Bytes;
use drover_api::chronos::{self as shapes, Error, Kind, Leader, Version};
use drover_core::ids::JobName;
use drover_core::job_change::{self, Children, Refused};
use drover_core::runs;
use drover_core::state::{ClusterState, Command, JobEntry, Refusal};
use drover_core::task::Program;
use drover_core::time::Timestamp;
use drover_pki::client::{self, Body};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use serde::Serialize;
use std::sync::Arc;

/// How often a change is planned anew before its client is told to come back.
const ATTEMPTS: usize = 10;

/// Answers one request.
pub(super) async fn handle(api: &Arc<Api>, head: &Parts, body: Bytes) -> Response<Body> {
    let ask = Ask::new(&head.method, head.uri.path(), query(head), &body);
    let server = Server { leader: leader(api), jobs_max: api.config.limits.jobs };
    let mut is_confirmed = super::is_read(&head.method);
    for _ in 0..ATTEMPTS {
        let now = clock::now();
        let mut step = api.consensus.read(|state| decide(&ask, state, &server, now));
        if !is_confirmed && !matches!(step, Ok(Step::Propose(..))) {
            // An answer that proposes nothing is a read, whatever was asked for, and has to be as fresh as one.
            if api.consensus.confirm_leadership().await.is_err() {
                return super::no_leader(super::Dialect::Chronos);
            }
            is_confirmed = true;
            step = api.consensus.read(|state| decide(&ask, state, &server, now));
        }
        let (commands, answer) = match step {
            Err(error) => return refuse(&error),
            Ok(Step::Answer(answer)) => return answer.into_response(),
            Ok(Step::Propose(commands, answer)) => (commands, answer),
        };
        match propose(api, commands).await {
            Proposed::Done => return answer.into_response(),
            Proposed::Again => {}
            Proposed::Failed(response) => return response,
        }
    }
    refuse(&Error::Conflict("the job is being changed by others all the time: try again".into()))
}

/// What one request comes to on a state in hand: the answer, and what would be proposed before it is given.
pub(super) fn decide_on(
    state: &ClusterState,
    head: &Parts,
    body: &[u8],
    jobs_max: usize,
    now: Timestamp,
) -> (StatusCode, Vec<u8>, Vec<Command>) {
    let server = Server { leader: Some("localhost:7070".into()), jobs_max };
    let (answer, commands) = match decide(&Ask::new(&head.method, head.uri.path(), query(head), body), state, &server, now) {
        Err(error) => {
            let status = status_of(&error);
            return (status, error.body(status.canonical_reason().unwrap_or_default()).to_string().into_bytes(), Vec::new());
        }
        Ok(Step::Answer(answer)) => (answer, Vec::new()),
        Ok(Step::Propose(commands, answer)) => (answer, commands),
    };
    match answer {
        Answer::Empty => (StatusCode::NO_CONTENT, Vec::new(), commands),
        Answer::Json(body) => (StatusCode::OK, body, commands),
        Answer::Text(body) => (StatusCode::OK, body.into_bytes(), commands),
    }
}

/// A request, taken apart.
struct Ask<'a> {
    /// A HEAD is a GET whose body is not sent.
    method: &'a Method,
    version: Version,
    /// What follows the prefix.
    route: Vec<String>,
    query: Vec<(String, String)>,
    body: &'a [u8],
}

impl<'a> Ask<'a> {
    fn new(method: &'a Method, path: &str, query: Vec<(String, String)>, body: &'a [u8]) -> Self {
        let mut route = segments(path);
        let version = match route.first().map(String::as_str) {
            Some("v1") => Version::Three,
            _ => Version::Two,
        };
        route.drain(..if version == Version::Three { 2 } else { 1 });
        let method = if *method == Method::HEAD { &Method::GET } else { method };
        Self { method, version, route, query, body }
    }

    fn given(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, value)| key == name && !value.trim().is_empty()).map(|(_, value)| value.as_str())
    }
}

/// What an answer may need beside the state.
struct Server {
    leader: Option<String>,
    jobs_max: usize,
}

/// What to do about a request.
#[derive(Debug)]
enum Step {
    Answer(Answer),
    /// Propose, and give the answer once all of it is applied.
    Propose(Vec<Command>, Answer),
}

#[derive(Debug, PartialEq)]
enum Answer {
    Empty,
    /// JSON, encoded: its keys have an order.
    Json(Vec<u8>),
    Text(String),
}

impl Answer {
    fn into_response(self) -> Response<Body> {
        match self {
            Self::Empty => empty(StatusCode::NO_CONTENT),
            Self::Json(encoded) => {
                let mut response = Response::new(client::full(encoded));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                response
            }
            Self::Text(said) => text(StatusCode::OK, said),
        }
    }
}

/// Decides about one request.
fn decide(ask: &Ask<'_>, state: &ClusterState, server: &Server, now: Timestamp) -> Result<Step, Error> {
    let route: Vec<&str> = ask.route.iter().map(String::as_str).collect();
    let version = ask.version;
    match (route.as_slice(), ask.method) {
        (["iso8601"], &Method::POST | &Method::PUT) => put(ask, Kind::Scheduled, state, server, now),
        (["dependency"], &Method::POST | &Method::PUT) => put(ask, Kind::Dependent, state, server, now),
        (["jobs"], &Method::GET) => encoded(&shapes::jobs(state, version)),
        (["jobs", "search"], &Method::GET) => encoded(&shapes::search(state, &ask.query, version)?),
        (["jobs", "summary"], &Method::GET) => encoded(&shapes::summary(state)),
        (["job", "stat", name], &Method::GET) => encoded(&shapes::stat(state, find(state, name)?)),
        (["job", "success", name], &Method::PUT) => Ok(mark_success(state, name, now)),
        (["job", name], &Method::GET) => encoded(&shapes::job(find(state, name)?, version)),
        (["job", name], &Method::PUT) => run(ask, find(state, name)?, state, now),
        (["job", name], &Method::DELETE) => remove(ask, &find(state, name)?.job.name, state, now),
        (["task", "kill", name], &Method::DELETE) => {
            let name = &find(state, name)?.job.name;
            let kills = job_change::plan_kill(state, name, "a client asked for the job's tasks to be killed", now)?;
            Ok(Step::Propose(kills, Answer::Empty))
        }
        (["stats", which], &Method::GET) => encoded(&shapes::percentile(state, which)),
        (["graph", "dot"], &Method::GET) => Ok(Step::Answer(Answer::Text(shapes::graph_dot(state)))),
        (["graph", "csv"], &Method::GET) => Ok(Step::Answer(Answer::Text(shapes::graph_csv(state)))),
        (["leader"], &Method::GET) => match &server.leader {
            Some(leader) => encoded(&Leader { leader: leader.clone() }),
            None => Err(Error::Unavailable("no master leads at the moment".into())),
        },
        (
            ["iso8601" | "dependency" | "jobs" | "leader"]
            | ["jobs", "search" | "summary"]
            | ["job", _]
            | ["job", "stat" | "success", _]
            | ["task", "kill", _]
            | ["stats", _]
            | ["graph", "dot" | "csv"],
            method,
        ) => Err(Error::MethodNotAllowed(format!("{method} is not possible on {}", route.join("/")))),
        _ => Err(Error::NoSuchPath(format!("there is no {}", route.join("/")))),
    }
}

fn encoded(answer: &impl Serialize) -> Result<Step, Error> {
    Ok(Step::Answer(Answer::Json(serde_json::to_vec(answer).expect("plain data encodes"))))
}

fn find<'a>(state: &'a ClusterState, name: &str) -> Result<&'a JobEntry, Error> {
    let found = JobName::parse(name).ok().and_then(|name| state.jobs.get(&name));
    found.ok_or_else(|| Error::BadRequest(format!("job '{name}' does not exist")))
}

fn put(ask: &Ask<'_>, kind: Kind, state: &ClusterState, server: &Server, now: Timestamp) -> Result<Step, Error> {
    let job = shapes::read_job(ask.body, kind, now)?;
    let command = job_change::plan_put(state, job, server.jobs_max, now)?;
    Ok(Step::Propose(vec![command], Answer::Empty))
}

fn run(ask: &Ask<'_>, entry: &JobEntry, state: &ClusterState, now: Timestamp) -> Result<Step, Error> {
    let arguments = match (ask.given("arguments"), &entry.job.program) {
        (None, _) => Vec::new(),
        // A shell takes the text as it is; without one, its words.
        (Some(text), Program::Shell(_)) => vec![text.to_owned()],
        (Some(text), Program::Argv(_)) => text.split_whitespace().map(str::to_owned).collect(),
    };
    if arguments.iter().any(|argument| argument.contains('\0')) {
        return Err(Error::BadRequest("arguments must not contain a zero byte".into()));
    }
    let name = &entry.job.name;
    let command = runs::manual_run(state, name, arguments, now).ok_or_else(|| Refused::Unknown(name.clone()))?;
    Ok(Step::Propose(vec![command], Answer::Empty))
}

fn remove(ask: &Ask<'_>, name: &JobName, state: &ClusterState, now: Timestamp) -> Result<Step, Error> {
    let children = match ask.given("children") {
        None => Children::Refuse,
        Some("inherit") => Children::Inherit,
        Some("detach") => Children::Detach,
        Some(other) => return Err(Error::BadRequest(format!("children must be inherit or detach, not '{other}'"))),
    };
    Ok(Step::Propose(vec![job_change::plan_remove(state, name, children, now)?], Answer::Empty))
}

/// An unknown job is told by `false`, not by an error, as in Chronos.
fn mark_success(state: &ClusterState, name: &str, now: Timestamp) -> Step {
    let said = |done: bool| Answer::Text(format!("marked job {name} as successful: {done}"));
    match find(state, name) {
        Ok(entry) => Step::Propose(vec![Command::MarkJobSuccess { job: entry.job.name.clone(), at: now }], said(true)),
        Err(_) => Step::Answer(said(false)),
    }
}

enum Proposed {
    Done,
    /// The state has changed since: to be decided again.
    Again,
    Failed(Response<Body>),
}

async fn propose(api: &Api, commands: Vec<Command>) -> Proposed {
    // A task that was to be killed and is gone, or is being killed already, is no reason to do anything again.
    let may_be_moot: Vec<bool> = commands.iter().map(|command| matches!(command, Command::KillTask { .. })).collect();
    for (result, may_be_moot) in api.propose_all(commands).await.into_iter().zip(may_be_moot) {
        match result {
            Ok(_) => {}
            Err(ProposeError::Refused(_)) if may_be_moot => {}
            Err(ProposeError::Refused(Refusal::NoRoom(why))) => return Proposed::Failed(refuse(&Error::Conflict(why))),
            Err(ProposeError::Refused(_)) => return Proposed::Again,
            Err(error @ ProposeError::TooLarge { .. }) => {
                return Proposed::Failed(super::Dialect::Chronos.refuse(StatusCode::PAYLOAD_TOO_LARGE, &error.to_string(), ""));
            }
            Err(error) => return Proposed::Failed(refuse(&Error::Unavailable(error.to_string()))),
        }
    }
    Proposed::Done
}

fn status_of(error: &Error) -> StatusCode {
    StatusCode::from_u16(error.status()).expect("errors have statuses that exist")
}

fn refuse(error: &Error) -> Response<Body> {
    let status = status_of(error);
    json(status, &error.body(status.canonical_reason().unwrap_or_default()))
}

/// The leader's API, under the assumption that all masters serve it on one port.
fn leader(api: &Api) -> Option<String> {
    let leadership = api.consensus.leadership();
    let leadership = leadership.borrow();
    let leader = leadership.leader.as_ref()?;
    let host = leader.address.rsplit_once(':').map_or(leader.address.as_str(), |(host, _)| host);
    Some(format!("{host}:{}", api.config.api_listen.port()))
}
