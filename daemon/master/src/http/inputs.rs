//! Requests as bytes, decided on a state in hand: everything between the listener and consensus, without either.

use super::{Dialect, chronos, drover, request_id, v2, wants_stale};
use crate::config::Limits;
use drover_core::state::{ClusterState, Command};
use drover_core::time::Timestamp;
use hyper::Request;
use hyper::body::Bytes;

/// A request as it comes out of HTTP's own framing.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Its method.
    pub method: &'a [u8],
    /// Path and query.
    pub target: &'a [u8],
    /// Names and values.
    pub headers: &'a [(&'a [u8], &'a [u8])],
    /// The whole body.
    pub body: &'a [u8],
}

/// What it comes to.
#[derive(Debug)]
pub struct Answered {
    /// HTTP's status.
    pub status: u16,
    /// The answer's body; empty where the answer takes more than the state.
    pub body: Vec<u8>,
    /// What would be proposed, and applied, before that answer is given.
    pub commands: Vec<Command>,
    /// The request's id.
    pub id: String,
}

/// Decides about a request in whichever dialect its path speaks; `None` if it is none of HTTP's.
pub fn answer(asked: Asked<'_>, state: &ClusterState, now: Timestamp) -> Option<Answered> {
    let mut request = Request::builder().method(asked.method).uri(asked.target);
    for (name, value) in asked.headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Bytes::copy_from_slice(asked.body)).ok()?;
    let dialect = Dialect::of(request.uri().path());
    let id = request_id(request.headers()).to_string();
    // What it leads to takes consensus; that it can be asked of any request is what counts here.
    wants_stale(&request);
    let (head, body) = request.into_parts();
    let limits = Limits::default();
    let (status, body, commands) = match dialect {
        Dialect::Marathon => v2::decide_on(state, &head, &body, limits, now),
        Dialect::Chronos => chronos::decide_on(state, &head, &body, limits.jobs, now),
        Dialect::Drover => drover::decide_on(state, &head, &body, now),
    };
    Some(Answered { status: status.as_u16(), body, commands, id })
}
