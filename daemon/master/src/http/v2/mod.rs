//! Marathon's dialect (its owner is writing it).
use super::Api;
use bytes::Bytes;
use drover_core::event::Event;
use drover_core::time::Timestamp;
use drover_pki::client::Body;
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use std::sync::Arc;
/// Answers.
pub(super) async fn handle(_: &Arc<Api>, _: &Parts, _: Bytes) -> Response<Body> {
    super::empty(StatusCode::NOT_IMPLEMENTED)
}
pub(super) fn ping() -> Response<Body> {
    super::text(StatusCode::OK, "pong".into())
}
/// Event name and data; none for what Marathon's clients do not know.
pub(super) fn render_event(_: &Event) -> Vec<(String, serde_json::Value)> {
    Vec::new()
}
pub(super) fn event_stream_attached(at: Timestamp) -> (String, serde_json::Value) {
    ("event_stream_attached".into(), serde_json::json!({"eventType": "event_stream_attached", "timestamp": at.to_string()}))
}
