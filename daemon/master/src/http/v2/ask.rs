//! A request, taken apart.

use crate::http::{query, segments};
use drover_api::v2::embed::Embed;
use hyper::Method;
use hyper::header::ACCEPT;
use hyper::http::request::Parts;

/// A request as the decisions look at it.
#[derive(Debug)]
pub(super) struct Ask<'a> {
    /// `HEAD` is asked for as `GET`.
    pub(super) method: Method,
    /// Behind `/v2`, decoded, without the empty ones of double and trailing slashes.
    pub(super) path: Vec<String>,
    query: Vec<(String, String)>,
    pub(super) body: &'a [u8],
    pub(super) wants_text: bool,
}

impl<'a> Ask<'a> {
    pub(super) fn new(head: &Parts, body: &'a [u8]) -> Self {
        let path = segments(head.uri.path());
        let accept = head.headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        Self {
            method: if head.method == Method::HEAD { Method::GET } else { head.method.clone() },
            path: path.into_iter().skip(1).collect(),
            query: query(head),
            body,
            // JSON wins when both would do.
            wants_text: accept.contains("text/plain") && !accept.contains("json") && !accept.contains("*/*"),
        }
    }

    /// Every value given for `name`.
    pub(super) fn values<'b>(&'b self, name: &'b str) -> impl Iterator<Item = &'b str> {
        self.query.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The last value given for `name`.
    pub(super) fn value<'b>(&'b self, name: &'b str) -> Option<&'b str> {
        self.values(name).last()
    }

    /// A flag, in whatever case: a client in Python says `True`.
    pub(super) fn flag(&self, name: &str, default: bool) -> bool {
        match self.value(name) {
            Some(value) if value.eq_ignore_ascii_case("true") => true,
            Some(value) if value.eq_ignore_ascii_case("false") => false,
            _ => default,
        }
    }

    pub(super) fn embed(&self, shown: Embed) -> Embed {
        shown.with(self.values("embed"))
    }
}
