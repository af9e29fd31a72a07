//! What a decision is made from, and what comes out of it.

use crate::config::Limits;
use drover_api::v2::{DeploymentResult, Error};
use drover_core::change::Plan;
use drover_core::ids::DeploymentId;
use drover_core::leader::{Request, Waiting};
use drover_core::state::{ClusterState, Command};
use drover_core::time::Timestamp;
use drover_pki::client::Body;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, EXPIRES, HeaderMap, HeaderName, HeaderValue, PRAGMA};
use hyper::{Response, StatusCode};
use serde::Serialize;
use std::collections::BTreeMap;

/// Everything a decision may look at.
pub(super) struct World<'a> {
    pub(super) state: &'a ClusterState,
    /// What the leader could not place, with its reasons.
    pub(super) waiting: &'a BTreeMap<Request, Waiting>,
    pub(super) server: &'a Server,
    pub(super) now: Timestamp,
    /// For a deployment, should one begin.
    pub(super) new_id: DeploymentId,
    pub(super) limits: Limits,
}

/// This master and its leader, as clients reach them.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) is_leader: bool,
    /// `host:port` of the leader's HTTP API.
    pub(super) leader: Option<String>,
}

/// What to do about a request.
#[derive(Debug)]
pub(super) enum Step {
    /// Say this.
    Answer(Answer),
    /// Propose these, together; say this once they are applied.
    Propose { commands: Vec<Command>, answer: Answer },
}

/// A decision, or what was wrong with the request.
pub(super) type Outcome = Result<Step, Error>;

/// A response before it is one.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Self {
        let body = serde_json::to_vec(body).expect("plain data encodes");
        Self { status, headers: HeaderMap::new(), body }.with(CONTENT_TYPE, "application/json")
    }

    /// `{"<name>": <content>}`.
    pub(super) fn named(name: &str, content: &impl Serialize) -> Self {
        Self::json(StatusCode::OK, &BTreeMap::from([(name, content)]))
    }

    pub(super) fn text(body: String) -> Self {
        Self { status: StatusCode::OK, headers: HeaderMap::new(), body: body.into_bytes() }
            .with(CONTENT_TYPE, "text/plain; charset=utf-8")
    }

    pub(super) fn empty(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: Vec::new() }
    }

    pub(super) fn message(status: StatusCode, message: &str) -> Self {
        Self::json(status, &serde_json::json!({ "message": message }))
    }

    pub(super) fn error(error: &Error) -> Self {
        let status = StatusCode::from_u16(error.status()).expect("errors have statuses of HTTP");
        Self::json(status, &error.body())
    }

    /// The answer to whatever starts a deployment.
    pub(super) fn deployment(status: StatusCode, plan: &Plan) -> Self {
        let result =
            DeploymentResult { version: plan.deployment.version.to_string(), deployment_id: plan.deployment.id.to_string() };
        Self::json(status, &result).started(plan)
    }

    /// Names the deployment that begins.
    pub(super) fn started(self, plan: &Plan) -> Self {
        self.with(HeaderName::from_static("marathon-deployment-id"), plan.deployment.id.as_str())
    }

    pub(super) fn with(mut self, name: HeaderName, value: &str) -> Self {
        // Ids and paths are ASCII; a header that could not hold its value is better left out than wrong.
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    pub(super) fn into_response(self, server: &Server) -> Response<Body> {
        let mut answer = self
            .with(CACHE_CONTROL, "no-cache, no-store, must-revalidate")
            .with(PRAGMA, "no-cache")
            .with(EXPIRES, "0")
            .with(HeaderName::from_static("x-frame-options"), "DENY")
            .with(HeaderName::from_static("x-xss-protection"), "1; mode=block");
        if server.is_leader {
            let own = format!("http://{}:{}", server.host, server.port);
            answer = answer.with(HeaderName::from_static("x-marathon-leader"), &own);
        }
        let mut response = Response::new(super::body_of(answer.body));
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        response
    }
}

impl From<Answer> for Outcome {
    fn from(answer: Answer) -> Self {
        Ok(Step::Answer(answer))
    }
}
