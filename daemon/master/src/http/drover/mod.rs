//! drover's own dialect, `/drover/v1`. Shapes and routes: [`drover_api::drover`].

mod logs;
mod views;
mod why;

use super::{Api, json, query, segments};
use crate::clock;
use crate::consensus::{ProposeError, RaiseError};
use crate::metrics;
use bytes::Bytes;
use drover_api::drover::{
    self as api, ApiVersion, Fault, HeldState, Masters, PROBLEM_JSON, Problem, Stopped, Token, TokenRequest, code,
};
use drover_core::ids::{JobName, TaskId};
use drover_core::state::{ClusterState, Command, JoinToken, NodeRole, Refusal};
use drover_core::time::{Millis, Timestamp};
use drover_pki::client::Body;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use std::sync::Arc;

/// Longest life of a join token, seconds.
const TOKEN_TTL_SECONDS_MAX: u64 = 30 * 24 * 3600;

/// A refused request: status and what to say.
#[derive(Debug)]
pub(super) struct Refused(StatusCode, Problem);

impl Refused {
    pub(super) fn new(status: StatusCode, code: &str, error: impl Into<String>) -> Self {
        Self(status, Problem { error: error.into(), code: code.to_owned(), ..Problem::default() })
    }

    pub(super) fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, code::NOT_FOUND, format!("there is no {what}"))
    }

    pub(super) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.1.remedy = Some(remedy.into());
        self
    }

    pub(super) fn limit(status: StatusCode, error: impl Into<String>) -> Self {
        Self::new(status, code::LIMIT, error)
    }

    fn faults(faults: Vec<Fault>) -> Self {
        let mut refused = Self::new(StatusCode::UNPROCESSABLE_ENTITY, code::BAD_REQUEST, "the request is not valid");
        refused.1.faults = faults;
        refused
    }

    fn into_response(self) -> Response<Body> {
        let mut response = json(self.0, &self.1);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        response
    }
}

impl From<ProposeError> for Refused {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::Refused(Refusal::NotFound(what)) => Self::not_found(what),
            ProposeError::Refused(refusal @ Refusal::NoRoom(_)) => Self::limit(StatusCode::CONFLICT, refusal.to_string()),
            error @ ProposeError::TooLarge { .. } => Self::limit(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
            ProposeError::Refused(refusal) => Self::new(StatusCode::CONFLICT, code::CONFLICT, refusal.to_string()),
            error @ ProposeError::TooNew { .. } => {
                Self::new(StatusCode::CONFLICT, code::VERSION, error.to_string()).remedy("drover cluster raise-version")
            }
            other => Self::new(StatusCode::SERVICE_UNAVAILABLE, code::NO_LEADER, other.to_string())
                .remedy("try again: another master will lead in a moment"),
        }
    }
}

/// A problem of the plumbing, before any route was looked at.
pub(super) fn problem(status: StatusCode, error: &str, because: &str, remedy: &str) -> Response<Body> {
    let code = match status {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY => code::NO_LEADER,
        StatusCode::NOT_FOUND => code::NOT_FOUND,
        StatusCode::PAYLOAD_TOO_LARGE => code::LIMIT,
        status if status.is_client_error() => code::BAD_REQUEST,
        _ => code::INTERNAL,
    };
    let mut refused = Refused::new(status, code, error);
    refused.1.because = (!because.is_empty()).then(|| because.to_owned());
    refused.1.remedy = (!remedy.is_empty()).then(|| remedy.to_owned());
    refused.into_response()
}

/// A refusal because a limit is reached.
pub(super) fn limit_reached(status: StatusCode, error: &str, remedy: &str) -> Response<Body> {
    Refused::limit(status, error).remedy(remedy).into_response()
}

/// What is read out of one request on a state in hand, as far as it takes no more than that: the answer to a request that is
/// refused, and what would be proposed for one that is not.
pub(super) fn decide_on(state: &ClusterState, head: &Parts, body: &[u8], at: Timestamp) -> (StatusCode, Vec<u8>, Vec<Command>) {
    let path = segments(head.uri.path());
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let read = match (&head.method, path.as_slice()) {
        (&Method::POST, ["drover", "v1", "tokens"]) => read_token_request(body).map(|_| Vec::new()),
        (&Method::POST, ["drover", "v1", "jobs", name, "run"]) => start_run(state, name, body, at).map(|command| vec![command]),
        (&Method::GET, ["drover", "v1", "logs"]) => logs::parse(&query(head)).map(|_| Vec::new()),
        _ => Err(Refused::not_found(head.uri.path())),
    };
    match read {
        Ok(commands) => (StatusCode::OK, Vec::new(), commands),
        Err(Refused(status, problem)) => (status, serde_json::to_vec(&problem).expect("plain data encodes"), Vec::new()),
    }
}

/// Answers a request of this dialect, or of none.
pub(super) async fn handle(api: &Arc<Api>, head: &Parts, body: Bytes) -> Response<Body> {
    route(api, head, body).await.unwrap_or_else(Refused::into_response)
}

async fn route(api: &Arc<Api>, head: &Parts, body: Bytes) -> Result<Response<Body>, Refused> {
    let path = segments(head.uri.path());
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let ["drover", "v1", route @ ..] = path.as_slice() else {
        return Err(Refused::not_found(format!("resource {}", head.uri.path()))
            .remedy("apps are under /v2, jobs under /v1/scheduler, the rest under /drover/v1"));
    };
    let parameters = query(head);
    let ok = |body: &dyn erased::Json| Ok(body.answer(StatusCode::OK));
    match (&head.method, route) {
        (&Method::GET, ["status"]) => ok(&views::status(api)),
        (&Method::GET, ["nodes"]) => ok(&views::nodes(api)),
        (&Method::GET, ["tasks"]) => ok(&views::tasks(api, &parameters)),
        (&Method::POST, ["tasks", id, "stop"]) => stop_task(api, id).await,
        (&Method::GET, ["jobs"]) => ok(&views::jobs(api)),
        (&Method::GET, ["jobs", name]) => ok(&views::job(api, name)?),
        (&Method::POST, ["jobs", name, "run"]) => run_job(api, name, &body).await,
        (&Method::GET, ["masters"]) => ok(&views::masters(api)),
        (&Method::GET, ["state"]) => ok(&state(api).await),
        (&Method::POST, ["masters", name, "remove"]) => remove_master(api, name).await,
        (&Method::POST, ["version", "raise"]) => raise_version(api, &body).await,
        (&Method::GET, ["why", "apps", id @ ..]) => ok(&why::app(api, &format!("/{}", id.join("/")))?),
        (&Method::GET, ["why", "jobs", name]) => ok(&why::job(api, name)?),
        (&Method::GET, ["why", "tasks", id]) => ok(&why::task(api, id)?),
        (&Method::POST, ["tokens"]) => create_token(api, &body).await,
        (&Method::GET, ["logs"]) => logs::serve(api, &parameters),
        _ => Err(Refused::not_found(format!("route {} {}", head.method, head.uri.path()))),
    }
}

/// Lets one closure answer with any shape.
mod erased {
    use super::{Body, Response, StatusCode, json};

    pub(super) trait Json {
        fn answer(&self, status: StatusCode) -> Response<Body>;
    }

    impl<T: serde::Serialize> Json for T {
        fn answer(&self, status: StatusCode) -> Response<Body> {
            json(status, self)
        }
    }
}

/// What this master holds. Hashing a large state takes a moment, and nobody waits for it.
async fn state(api: &Arc<Api>) -> HeldState {
    let (applied, state) = api.consensus.copy();
    let digest = tokio::task::spawn_blocking(move || {
        drover_pki::sha256_hex(&serde_json::to_vec(&state).expect("the state is plain data"))
    });
    let digest = digest.await.expect("hashing does not panic");
    let term = api.consensus.leadership().borrow().term;
    HeldState { api_version: ApiVersion, master: api.consensus.me().name.clone(), term, applied, digest }
}

async fn stop_task(api: &Arc<Api>, id: &str) -> Result<Response<Body>, Refused> {
    let task = TaskId::new(id);
    if !api.consensus.read(|state| state.tasks.contains_key(&task)) {
        return Err(Refused::not_found(format!("task {id}")).remedy("drover tasks list"));
    }
    let kill = Command::KillTask { task: task.clone(), why: "an operator asked for it".into(), at: clock::now() };
    match api.propose(kill).await {
        // Told twice is told.
        Ok(_) | Err(ProposeError::Refused(Refusal::Stale(_))) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(json(StatusCode::ACCEPTED, &Stopped { api_version: ApiVersion, task: task.to_string() }))
}

async fn run_job(api: &Arc<Api>, name: &str, body: &Bytes) -> Result<Response<Body>, Refused> {
    let command = api.consensus.read(|state| start_run(state, name, body, clock::now()))?;
    let Command::StartRun { run, .. } = &command else {
        return Err(Refused::new(StatusCode::INTERNAL_SERVER_ERROR, code::INTERNAL, "a manual run begins with StartRun"));
    };
    let run = api::Run::from(run.as_ref());
    api.propose(command).await?;
    Ok(json(StatusCode::CREATED, &api::RunStarted { api_version: ApiVersion, run }))
}

/// The command of a run by hand.
fn start_run(state: &ClusterState, name: &str, body: &[u8], at: Timestamp) -> Result<Command, Refused> {
    let request: api::RunRequest = if body.is_empty() { api::RunRequest::default() } else { parse(body)? };
    let unknown = || Refused::not_found(format!("job {name}"));
    let job = JobName::parse(name).map_err(|_| unknown())?;
    drover_core::runs::manual_run(state, &job, request.arguments, at).ok_or_else(unknown)
}

async fn remove_master(api: &Arc<Api>, name: &str) -> Result<Response<Body>, Refused> {
    let members = api.consensus.members();
    if !members.iter().any(|member| member.name == name) {
        return Err(Refused::not_found(format!("master {name}")).remedy("drover masters list"));
    }
    api.consensus.remove_master(name).await.map_err(|error| {
        Refused::new(StatusCode::CONFLICT, code::MAJORITY, format!("master {name} cannot be removed: {error}"))
    })?;
    let masters: Masters = views::masters(api);
    Ok(json(StatusCode::OK, &masters))
}

async fn raise_version(api: &Arc<Api>, body: &Bytes) -> Result<Response<Body>, Refused> {
    let request: api::RaiseRequest = if body.is_empty() { api::RaiseRequest::default() } else { parse(body)? };
    match api.consensus.raise_version(request.to, clock::now()).await {
        Ok(_) => Ok(json(StatusCode::OK, &views::masters(api))),
        Err(RaiseError::Propose(error)) => Err(error.into()),
        Err(error @ RaiseError::NotLeader { .. }) => {
            Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, code::NO_LEADER, error.to_string())
                .remedy("try again in a moment"))
        }
        Err(error @ RaiseError::Masters { .. }) => {
            let mut refused =
                Refused::new(StatusCode::CONFLICT, code::VERSION, error.to_string()).remedy("drover masters list");
            if let RaiseError::Masters { faults, .. } = error {
                let fault = |(name, message)| Fault { path: format!("/masters/{name}"), message };
                refused.1.faults = faults.into_iter().map(fault).collect();
            }
            Err(refused)
        }
        Err(error @ (RaiseError::Lower { .. } | RaiseError::Busy)) => {
            Err(Refused::new(StatusCode::CONFLICT, code::CONFLICT, error.to_string()))
        }
    }
}

async fn create_token(api: &Arc<Api>, body: &Bytes) -> Result<Response<Body>, Refused> {
    let request = read_token_request(body)?;
    let at = clock::now();
    let expires_at = at + Millis::from_secs(request.ttl_seconds);
    let role = match request.role {
        api::NodeRole::Master => NodeRole::Master,
        api::NodeRole::Agent => NodeRole::Agent,
    };
    let (unused, most) = (api.consensus.read(|state| state.unexpired_tokens(at)), api.config.limits.tokens);
    if unused >= most {
        metrics::LIMITS_HIT.inc(["tokens"]);
        let error = format!("there are {unused} join tokens that are not used up, the most this cluster may have");
        return Err(Refused::limit(StatusCode::FORBIDDEN, error).remedy("use some, or raise [master.limits] tokens"));
    }
    let token = drover_pki::JoinToken::generate(&api.authority);
    let record = JoinToken { role, expires_at, uses_left: request.uses };
    api.propose(Command::PutJoinToken { hash: token.hash(), token: record, at }).await?;
    let answer = Token { api_version: ApiVersion, token: token.to_string(), expires_at: expires_at.into() };
    Ok(json(StatusCode::CREATED, &answer))
}

/// A token request that can be honoured.
fn read_token_request(body: &[u8]) -> Result<TokenRequest, Refused> {
    let request: TokenRequest = parse(body)?;
    let mut faults = Vec::new();
    if !(1..=TOKEN_TTL_SECONDS_MAX).contains(&request.ttl_seconds) {
        let message = format!("must be between 1 and {TOKEN_TTL_SECONDS_MAX}");
        faults.push(Fault { path: "/ttlSeconds".into(), message });
    }
    if request.uses == 0 {
        faults.push(Fault { path: "/uses".into(), message: "must be at least 1".into() });
    }
    if faults.is_empty() { Ok(request) } else { Err(Refused::faults(faults)) }
}

fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(|error| Refused::faults(vec![Fault { path: "/".into(), message: error.to_string() }]))
}
