//! Whether a connection is of use to its client. One that asks nothing, or that takes nothing of what it asked for, holds
//! memory and a descriptor, and is ended.
//!
//! ```text
//!  no request ──idle──▶ end       answer under way, our turn: wait
//!                                 answer under way, the client's turn ──stalled──▶ end
//! ```
//! Bodies are handed to hyper in small pieces, and only when it has room for one; between two of them it is the client's turn.

use bytes::Bytes;
use drover_pki::client::{Body, BodyError};
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;

/// Bytes of a body handed over at once.
const PIECE: usize = 64 << 10;

/// How patient a connection is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Until the first request.
    pub(super) first: Duration,
    /// Between requests.
    pub(super) idle: Duration,
    /// Until the client takes the next piece of an answer.
    pub(super) stall: Duration,
}

/// What goes on on one connection; clones share it.
#[derive(Clone)]
pub(super) struct Activity {
    inner: Arc<Mutex<Inner>>,
    patience: Patience,
}

struct Inner {
    requests: usize,
    had_request: bool,
    /// Since when nothing is asked.
    idle_since: Instant,
    /// Answers of which the client has a piece to take, and since when.
    owed: BTreeMap<u64, Instant>,
    next: u64,
}

impl Activity {
    pub(super) fn new(patience: Patience) -> Self {
        let inner = Inner { requests: 0, had_request: false, idle_since: Instant::now(), owed: BTreeMap::new(), next: 0 };
        Self { inner: Arc::new(Mutex::new(inner)), patience }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().expect("nobody panics while holding this")
    }

    /// A request begins.
    pub(super) fn begin(&self) -> InFlight {
        let mut inner = self.lock();
        inner.requests += 1;
        inner.had_request = true;
        inner.next += 1;
        InFlight { activity: self.clone(), number: inner.next }
    }

    /// When to look at the connection again, or why it is over.
    fn look(&self, now: Instant) -> Result<Instant, &'static str> {
        let inner = self.lock();
        if inner.requests == 0 {
            let patience = if inner.had_request { self.patience.idle } else { self.patience.first };
            let at = inner.idle_since + patience;
            return if at <= now { Err("idle") } else { Ok(at) };
        }
        // What is owed from now on is looked at then.
        let at = inner.owed.values().min().copied().unwrap_or(now) + self.patience.stall;
        if at <= now { Err("stalled") } else { Ok(at) }
    }

    /// Until the connection is of no use; says why.
    pub(super) async fn over(&self) -> &'static str {
        loop {
            match self.look(Instant::now()) {
                Ok(at) => tokio::time::sleep_until(at).await,
                Err(why) => return why,
            }
        }
    }
}

/// A request under way, until its answer is out.
pub(super) struct InFlight {
    activity: Activity,
    number: u64,
}

impl InFlight {
    /// `body`, watched.
    pub(super) fn watch(self, body: Body) -> Body {
        Watched { body, rest: Bytes::new(), in_flight: self }.boxed_unsync()
    }

    fn is_ours(&self) {
        self.activity.lock().owed.remove(&self.number);
    }

    fn is_the_clients(&self) {
        self.activity.lock().owed.insert(self.number, Instant::now());
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut inner = self.activity.lock();
        inner.owed.remove(&self.number);
        inner.requests -= 1;
        inner.idle_since = Instant::now();
    }
}

struct Watched {
    body: Body,
    /// What is left of the last frame.
    rest: Bytes,
    in_flight: InFlight,
}

impl hyper::body::Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.in_flight.is_ours();
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                other => return Poll::Ready(other),
            }
        }
        let piece = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(piece);
        self.in_flight.is_the_clients();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (body, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower() + rest);
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_pki::client;

    const PATIENCE: Patience =
        Patience { first: Duration::from_secs(1), idle: Duration::from_secs(5), stall: Duration::from_secs(3) };

    /// What is to be seen of it so long from now.
    fn later(activity: &Activity, wait: Duration) -> Option<&'static str> {
        activity.look(Instant::now() + wait).err()
    }

    #[test]
    fn a_connection_on_which_nothing_is_asked_is_over() {
        let activity = Activity::new(PATIENCE);
        assert_eq!(later(&activity, PATIENCE.first / 2), None);
        assert_eq!(later(&activity, PATIENCE.first), Some("idle"), "nothing was ever asked");
        let request = activity.begin();
        assert_eq!(later(&activity, Duration::from_secs(3600)), None, "what takes us long is not the client's fault");
        drop(request);
        assert_eq!(later(&activity, PATIENCE.first), None);
        assert_eq!(later(&activity, PATIENCE.idle), Some("idle"));
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_stalled_and_one_that_takes_its_time_is_not() {
        let activity = Activity::new(PATIENCE);
        let long = vec![7_u8; 3 * PIECE + 1];
        let mut body = activity.begin().watch(client::full(long.clone()));
        assert_eq!(hyper::body::Body::size_hint(&body).exact(), Some(long.len() as u64));
        let mut taken = Vec::new();
        while let Some(frame) = body.frame().await {
            let data = frame.unwrap().into_data().unwrap();
            assert!(data.len() <= PIECE);
            taken.extend_from_slice(&data);
            assert_eq!(later(&activity, PATIENCE.stall / 2), None, "slow is not stalled");
            assert_eq!(later(&activity, PATIENCE.stall), Some("stalled"));
        }
        assert_eq!(taken, long);
        drop(body);
        assert_eq!(later(&activity, PATIENCE.idle), Some("idle"), "all of it is out");
    }
}
