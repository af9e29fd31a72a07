//! Event streams (server-sent events), served by every master out of its own copy of the log: the id is the Raft index, so
//! a client may resume at another master.
//!
//! One task per subscriber feeds a channel bounded in frames and bytes. A client that lets it fill up and reads no more is cut
//! off, as Marathon does; it resumes with `Last-Event-ID`.

use super::{Api, Dialect, v2};
use crate::clock;
use crate::config::Limits;
use crate::consensus::{Follower, Gap, Published};
use crate::metrics;
use bytes::Bytes;
use drover_api::drover as shapes;
use drover_pki::client::Body;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Frames a client may leave unread (`event_stream_max_outstanding_messages`), and no more bytes than `event_backlog`.
const OUTSTANDING_MAX: usize = 1024;

/// A comment is sent after this much silence: clients take a quieter stream for a dead one.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Answers if the request asks for an event stream.
pub(super) fn serve_if_asked(api: &Arc<Api>, request: &Request<Incoming>) -> Option<Response<Body>> {
    let dialect = match request.uri().path().trim_end_matches('/') {
        "/v2/events" => Dialect::Marathon,
        "/drover/v1/events" => Dialect::Drover,
        _ => return None,
    };
    let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("");
    if request.method() != Method::GET || (dialect == Dialect::Marathon && !accept.contains("text/event-stream")) {
        let why = "ask with GET and Accept: text/event-stream";
        let mut refused = dialect.refuse(StatusCode::METHOD_NOT_ALLOWED, why, "");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return Some(refused);
    }
    let Ok(permit) = Arc::clone(&api.subscribers).try_acquire_owned() else {
        let why = format!("this master serves {} event streams already", api.config.limits.event_subscribers);
        return Some(dialect.too_much("event_subscribers", &why));
    };
    let last = request.headers().get("last-event-id").and_then(|id| id.to_str().ok()?.trim().parse::<u64>().ok());
    let events = api.consensus.events();
    let follower = last.map_or_else(|| events.follow(), |last| events.follow_after(last));
    let query = request.uri().query().unwrap_or_default();
    let filter = query.split('&').filter_map(|pair| pair.strip_prefix("event_type=")).map(str::to_owned).collect();
    let follows = dialect != Dialect::Drover || !query.split('&').any(|pair| pair == "follow=0");
    let (to_client, frames) = mpsc::channel(OUTSTANDING_MAX);
    let to_client = ToClient {
        frames: to_client,
        room: Arc::new(Semaphore::new(api.config.limits.event_backlog)),
        limits: api.config.limits,
    };
    let subscriber = Subscriber { dialect, filter, follows, to_client };
    let api = Arc::clone(api);
    tokio::spawn(async move {
        let counted = metrics::EVENT_SUBSCRIBERS.hold([]);
        metrics::EVENT_STREAMS_ENDED.inc([subscriber.run(api, follower).await]);
        drop((counted, permit));
    });
    let body = futures_util::stream::unfold(frames, |mut frames: mpsc::Receiver<Waiting>| async {
        frames.recv().await.map(|(frame, _room)| (Ok(Frame::data(frame)), frames))
    });
    let mut response = Response::new(StreamBody::new(body).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Some(response)
}

/// A frame, and the room it takes until the client has taken it.
type Waiting = (Bytes, OwnedSemaphorePermit);

/// The way to one client, bounded in frames and in bytes.
struct ToClient {
    frames: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
    limits: Limits,
}

impl ToClient {
    /// Waits for room, but not for a client that takes nothing. Says why there is no use in going on.
    async fn send(&self, frame: String) -> Result<(), &'static str> {
        // A frame larger than all the room waits until it has all of it to itself.
        let bytes = u32::try_from(frame.len().min(self.limits.event_backlog)).unwrap_or(u32::MAX);
        let sent = async {
            let room = Arc::clone(&self.room).acquire_many_owned(bytes).await.expect("nobody closes the semaphore");
            self.frames.send((frame.into(), room)).await.map_err(|_| "closed")
        };
        tokio::select! {
            sent = tokio::time::timeout(self.limits.stall_timeout, sent) => sent.unwrap_or(Err("stalled")),
            () = self.frames.closed() => Err("closed"),
        }
    }
}

struct Subscriber {
    dialect: Dialect,
    filter: BTreeSet<String>,
    /// Otherwise what is buffered is sent, and the stream ends.
    follows: bool,
    to_client: ToClient,
}

impl Subscriber {
    /// Feeds the client until it ends; says why.
    async fn run(&self, api: Arc<Api>, mut follower: Follower) -> &'static str {
        let mut opening = String::new();
        match self.dialect {
            Dialect::Marathon => {
                let attached = v2::event_stream_attached(clock::now());
                if self.wants(&attached.0) {
                    write(&mut opening, None, &attached);
                }
                // Something, so that the client sees the stream begin.
                opening.push_str(":\n\n");
            }
            Dialect::Chronos | Dialect::Drover => opening.push_str(": events\n\n"),
        }
        if let Err(why) = self.to_client.send(opening).await {
            return why;
        }
        let events = api.consensus.events();
        loop {
            let next = if self.follows {
                tokio::time::timeout(HEARTBEAT, follower.next()).await.map(|entry| entry.map(Some))
            } else {
                Ok(follower.try_next())
            };
            let frame = match next {
                Err(_) => ":\n\n".to_owned(),
                Ok(Ok(Some(entry))) => self.render(&entry),
                Ok(Ok(None)) => return "complete",
                Ok(Err(gap)) => {
                    metrics::EVENT_RESYNCS.inc([]);
                    follower = events.follow_after(gap.oldest);
                    resync(self.dialect, &gap)
                }
            };
            if !frame.is_empty()
                && let Err(why) = self.to_client.send(frame).await
            {
                return why;
            }
        }
    }

    /// The frames of one log entry. Only the last carries the id, so that a client cut off in between gets all again.
    fn render(&self, entry: &Published) -> String {
        let frames: Vec<(String, serde_json::Value)> = match self.dialect {
            Dialect::Marathon => entry.events.iter().flat_map(v2::render_event).collect(),
            Dialect::Chronos | Dialect::Drover => {
                let shapes = entry.events.iter().map(|event| shapes::Event::new(entry.index, event));
                shapes
                    .map(|event| (event.kind.word().to_owned(), serde_json::to_value(&event).expect("plain data encodes")))
                    .collect()
            }
        };
        let wanted: Vec<_> = frames.into_iter().filter(|(kind, _)| self.wants(kind)).collect();
        let mut out = String::new();
        let last = wanted.len().saturating_sub(1);
        for (at, frame) in wanted.iter().enumerate() {
            write(&mut out, (at == last).then_some(entry.index), frame);
        }
        out
    }

    fn wants(&self, kind: &str) -> bool {
        self.filter.is_empty() || self.filter.contains(kind)
    }
}

fn write(out: &mut String, id: Option<u64>, (kind, data): &(String, serde_json::Value)) {
    if let Some(id) = id {
        writeln!(out, "id: {id}").expect("a string takes everything");
    }
    write!(out, "event: {kind}\ndata: {data}\n\n").expect("a string takes everything");
}

/// Tells a client that events are missing. Marathon's own clients fail on types they do not know, so they get a comment.
fn resync(dialect: Dialect, gap: &Gap) -> String {
    match dialect {
        Dialect::Marathon => format!(": events are missing, read the state\nid: {}\n\n", gap.oldest),
        Dialect::Chronos | Dialect::Drover => format!("id: {}\nevent: resync\ndata: {{}}\n\n", gap.oldest),
    }
}
