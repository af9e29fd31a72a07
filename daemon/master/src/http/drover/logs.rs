//! One merged stream out of the journals of every node. Each connected agent is asked to open a stream of its own; their
//! lines are held back for a moment and told in the order of their times.

use super::{Api, Refused, code};
use crate::consensus::Follower;
use crate::metrics;
use bytes::{Bytes, BytesMut};
use drover_api::agent::{LogLine, LogQuery, MasterMessage};
use drover_api::drover::{Ended, LogEntry, LogItem, Missing, NDJSON, Time};
use drover_core::event::EventKind;
use drover_core::ids::{AgentId, RunId, TaskId};
use drover_core::job::RunState;
use drover_core::state::ClusterState;
use drover_core::time::Timestamp;
use drover_pki::client::Body;
use futures_util::StreamExt;
use futures_util::stream::SelectAll;
use http_body_util::{BodyExt, StreamBody};
use hyper::Response;
use hyper::StatusCode;
use hyper::body::Frame;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Lines are told this much later than they arrive, so that those of different nodes can be put in order.
const REORDER: Duration = Duration::from_millis(250);

/// An agent that the cluster takes for up has this long to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// An agent has this long to open its stream; one that does not is not waited for.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// A followed task's lines are waited for until none came for this long after its end, because journal and status travel
/// separately.
const AFTER_END: Duration = Duration::from_millis(1500);

/// Longest line of an agent's stream: a field of the journal has 64 KiB at most, and JSON makes six bytes of one at worst.
const LINE_BYTES_MAX: usize = 1 << 20;

/// What a client asked for.
pub(super) struct Wanted {
    query: LogQuery,
    nodes: Vec<String>,
    /// With `follow`: the stream ends with these.
    until_ended: Vec<Subject>,
}

#[derive(Clone)]
enum Subject {
    Task(TaskId),
    Run(RunId),
}

pub(super) fn serve(api: &Arc<Api>, parameters: &[(String, String)]) -> Result<Response<Body>, Refused> {
    let wanted = parse(parameters)?;
    let Ok(permit) = Arc::clone(&api.log_streams).try_acquire_owned() else {
        metrics::LIMITS_HIT.inc(["log_streams"]);
        let error = format!("this master serves {} log streams already", api.config.limits.log_streams);
        let remedy = "try again in a moment, or raise [master.limits] log_streams";
        return Err(Refused::limit(StatusCode::SERVICE_UNAVAILABLE, error).remedy(remedy));
    };
    let (to_client, lines) = mpsc::channel::<Bytes>(256);
    let merger = Merger { api: Arc::clone(api), to_client };
    let counted = metrics::LOG_STREAMS.hold([]);
    tokio::spawn(async move {
        merger.run(wanted).await;
        drop((counted, permit));
    });
    let body = futures_util::stream::unfold(lines, |mut lines| async {
        lines.recv().await.map(|line| (Ok(Frame::data(line)), lines))
    });
    let mut response = Response::new(StreamBody::new(body).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    Ok(response)
}

pub(super) fn parse(parameters: &[(String, String)]) -> Result<Wanted, Refused> {
    let mut wanted = Wanted { query: LogQuery::default(), nodes: Vec::new(), until_ended: Vec::new() };
    let bad = |what: String| Refused::new(StatusCode::BAD_REQUEST, code::BAD_REQUEST, what);
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    for (key, value) in parameters {
        match key.as_str() {
            "app" => wanted.query.matches.push(field("DROVER_APP", value)),
            "job" => wanted.query.matches.push(field("DROVER_JOB", value)),
            "run" => {
                wanted.query.matches.push(field("DROVER_RUN", value));
                wanted
                    .until_ended
                    .push(Subject::Run(RunId::parse(value).ok_or_else(|| bad(format!("{value:?} is no run id")))?));
            }
            "task" => {
                wanted.query.matches.push(field("DROVER_TASK", value));
                wanted.until_ended.push(Subject::Task(TaskId::new(value)));
            }
            "node" => wanted.nodes.push(value.clone()),
            "follow" => wanted.query.follow = matches!(value.as_str(), "1" | "true" | ""),
            "lines" => wanted.query.lines = Some(value.parse().map_err(|_| bad(format!("lines={value} is no number")))?),
            "since" => {
                let since = Timestamp::parse(value).ok_or_else(|| bad(format!("since={value} is not RFC 3339")))?;
                wanted.query.since_ms = Some(since.0);
            }
            _ => {}
        }
    }
    Ok(wanted)
}

struct Merger {
    api: Arc<Api>,
    to_client: mpsc::Sender<Bytes>,
}

/// Held-back lines by time; the number keeps lines of one instant in the order they came.
#[derive(Default)]
struct Held {
    lines: BTreeMap<(Time, u64), (tokio::time::Instant, LogEntry)>,
    count: u64,
}

impl Held {
    fn push(&mut self, entry: LogEntry) {
        self.count += 1;
        self.lines.insert((entry.at, self.count), (tokio::time::Instant::now(), entry));
    }

    /// Lines that waited long enough. An older line that came later goes first all the same.
    fn ready(&mut self, now: tokio::time::Instant) -> Vec<LogEntry> {
        let due = self.lines.iter().rev().find(|(_, (came, _))| now.duration_since(*came) >= REORDER).map(|(key, _)| *key);
        let Some(due) = due else { return Vec::new() };
        let later = self.lines.split_off(&(due.0, due.1 + 1));
        std::mem::replace(&mut self.lines, later).into_values().map(|(_, entry)| entry).collect()
    }

    fn all(&mut self) -> Vec<LogEntry> {
        std::mem::take(&mut self.lines).into_values().map(|(_, entry)| entry).collect()
    }
}

impl Merger {
    async fn run(self, wanted: Wanted) {
        // Followed before the state is read, so that an end in between is not missed.
        let follower = self.api.consensus.events().follow();
        let agents: Vec<(AgentId, String)> = self.api.consensus.read(|state| {
            let agents = state.agents.iter().filter(|(_, a)| wanted.nodes.is_empty() || wanted.nodes.contains(&a.info.host));
            agents.map(|(id, agent)| (id.clone(), agent.info.host.clone())).collect()
        });
        let mut streams = SelectAll::new();
        let mut opened = Vec::new();
        // After a change of leaders the agents are on their way: a stream without them would end without their lines.
        let deadline = tokio::time::Instant::now() + CONNECT_TIMEOUT;
        for (agent, host) in agents {
            let (stream, reader) = self.api.agents.expect_stream();
            if self.open(&agent, &stream, &wanted, deadline).await {
                streams.push(Box::pin(lines(ReceiverStream::new(reader))));
                opened.push((agent, stream));
            } else {
                self.api.agents.drop_stream(&stream);
                let because = "the node is not connected".to_owned();
                if !self.send(&LogItem::Missing { missing: Missing { node: host, because } }).await {
                    return;
                }
            }
        }
        // What was opened by then is not on the list of expected streams any more, and is not touched.
        let give_up_unopened = async {
            tokio::time::sleep(OPEN_TIMEOUT).await;
            opened.iter().for_each(|(_, stream)| self.api.agents.drop_stream(stream));
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = self.merge(&wanted, follower, &mut streams) => {}
            () = give_up_unopened => {}
        }
        for (agent, stream) in opened {
            self.api.agents.drop_stream(&stream);
            // An agent that is gone has no stream to close.
            let _told = self.api.agents.tell(&agent, MasterMessage::CloseStream { stream });
        }
    }

    /// Asks an agent for a stream; waits until the deadline for one that answers the cluster but is not connected yet.
    async fn open(&self, agent: &AgentId, stream: &str, wanted: &Wanted, deadline: tokio::time::Instant) -> bool {
        let mut heard_of = self.api.agents.heard_of();
        loop {
            heard_of.borrow_and_update();
            let open = MasterMessage::OpenLogs { stream: stream.to_owned(), query: wanted.query.clone() };
            if self.api.agents.tell(agent, open) {
                return true;
            }
            let is_up = self.api.consensus.read(|state| state.agents.get(agent).is_some_and(|agent| agent.is_up()));
            // Every agent that connects is heard of.
            if !is_up || tokio::time::timeout_at(deadline, heard_of.changed()).await.is_err() {
                return false;
            }
        }
    }

    async fn merge<S>(&self, wanted: &Wanted, mut follower: Follower, streams: &mut SelectAll<S>)
    where
        S: futures_util::Stream<Item = LogLine> + Unpin,
    {
        let mut held = Held::default();
        let mut tick = tokio::time::interval(REORDER / 2);
        let mut open: Vec<Subject> = if wanted.query.follow { wanted.until_ended.clone() } else { Vec::new() };
        let follows_an_end = !open.is_empty();
        let mut ended: Vec<Ended> = Vec::new();
        open.retain(|subject| match self.api.consensus.read(|state| over(state, subject)) {
            Some(how) => {
                ended.extend(how);
                false
            }
            None => true,
        });
        let mut close_at: Option<tokio::time::Instant> = None;
        loop {
            if follows_an_end && open.is_empty() && close_at.is_none() {
                close_at = Some(tokio::time::Instant::now() + AFTER_END);
            }
            tokio::select! {
                line = streams.next(), if !streams.is_empty() => {
                    if let Some(line) = line {
                        held.push(line.into());
                        // More may be on its way.
                        close_at = close_at.map(|_| tokio::time::Instant::now() + AFTER_END);
                    }
                }
                _ = tick.tick() => {
                    // Without `follow` everything is there soon, and is told in one go.
                    let ready = if wanted.query.follow { held.ready(tokio::time::Instant::now()) } else { Vec::new() };
                    for entry in ready {
                        if !self.send(&LogItem::Entry(entry)).await {
                            return;
                        }
                    }
                    if streams.is_empty() && close_at.is_none() && !follows_an_end {
                        break;
                    }
                }
                entry = follower.next(), if !open.is_empty() => {
                    let Ok(entry) = entry else { break };
                    for event in &entry.events {
                        open.retain(|subject| match ends(&event.kind, subject) {
                            Some(how) => {
                                ended.push(how);
                                false
                            }
                            None => true,
                        });
                    }
                }
                () = until(close_at) => break,
                () = self.to_client.closed() => return,
            }
        }
        let mut rest = held.all();
        if let (false, Some(lines)) = (wanted.query.follow, wanted.query.lines) {
            // Each node sent its newest; together they may be more than asked for.
            let surplus = rest.len().saturating_sub(usize::try_from(lines).unwrap_or(usize::MAX));
            rest.drain(..surplus);
        }
        for entry in rest {
            if !self.send(&LogItem::Entry(entry)).await {
                return;
            }
        }
        for ended in ended {
            if !self.send(&LogItem::Ended { ended }).await {
                return;
            }
        }
    }

    async fn send(&self, item: &LogItem) -> bool {
        let mut line = serde_json::to_vec(item).expect("plain data encodes");
        line.push(b'\n');
        self.to_client.send(line.into()).await.is_ok()
    }
}

async fn until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// `Some` if it is over already: with how it ended, where that is still known.
fn over(state: &ClusterState, subject: &Subject) -> Option<Option<Ended>> {
    match subject {
        Subject::Task(id) => (!state.tasks.contains_key(id)).then_some(None),
        Subject::Run(id) if state.runs.contains_key(id) => None,
        Subject::Run(id) => {
            let past = state.jobs.values().flat_map(|entry| &entry.record.history).find(|run| run.id == *id);
            Some(past.and_then(ended_run))
        }
    }
}

fn ends(event: &EventKind, subject: &Subject) -> Option<Ended> {
    match (event, subject) {
        (EventKind::TaskChanged(task), Subject::Task(id)) if task.id == *id && task.state.is_terminal() => Some(Ended {
            task: task.id.to_string(),
            state: task.state.into(),
            message: task.message.clone(),
            exit: task.exit.into(),
        }),
        (EventKind::RunChanged(run), Subject::Run(id)) if run.id == *id => ended_run(run),
        _ => None,
    }
}

fn ended_run(run: &drover_core::job::Run) -> Option<Ended> {
    let RunState::Done { state, .. } = run.state else { return None };
    let task = TaskId::of_run(&run.job, run.slot.0, run.attempt);
    Some(Ended { task: task.to_string(), state: state.into(), message: run.message.clone(), exit: run.exit.into() })
}

/// Splits an agent's stream into its lines; what does not decode is left out. A line that is longer than any ends the stream.
fn lines(chunks: ReceiverStream<Bytes>) -> impl futures_util::Stream<Item = LogLine> {
    let state = (chunks, BytesMut::new());
    futures_util::stream::unfold(state, |(mut chunks, mut buffer)| async move {
        loop {
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line = buffer.split_to(end + 1);
                if let Ok(line) = serde_json::from_slice(&line) {
                    return Some((line, (chunks, buffer)));
                }
            }
            if buffer.len() > LINE_BYTES_MAX {
                return None;
            }
            buffer.extend_from_slice(&chunks.next().await?);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_that_never_ends_is_not_waited_for() {
        let (agent, chunks) = mpsc::channel(64);
        let mut lines = Box::pin(lines(ReceiverStream::new(chunks)));
        agent.send(Bytes::from_static(b"{\"message\":\"a\"}\nno line\n{\"message\":")).await.unwrap();
        assert_eq!(lines.next().await.unwrap().message, "a");
        for _ in 0..32 {
            agent.send(Bytes::from(vec![b'x'; LINE_BYTES_MAX / 16])).await.unwrap();
        }
        agent.send(Bytes::from_static(b"\n{\"message\":\"b\"}\n")).await.unwrap();
        assert_eq!(lines.next().await, None);
    }
}
