//! Chronos' dialect (its owner is writing it).
use super::Api;
use bytes::Bytes;
use drover_pki::client::Body;
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use std::sync::Arc;
pub(super) async fn handle(_: &Arc<Api>, _: &Parts, _: Bytes) -> Response<Body> {
    super::empty(StatusCode::NOT_IMPLEMENTED)
}
