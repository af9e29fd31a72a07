//! The receiving side of Raft between masters; see [`network`](super::network) for what is on the wire.

use std::path::PathBuf;

use bytes::{Buf, Bytes, BytesMut};
use drover_core::state::TooNew;
use drover_pki::PeerIdentity;
use drover_pki::client::{self, Body, BodyError};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use openraft::Snapshot;
use openraft::raft::{AppendEntriesRequest, VoteRequest};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

use super::network::{self, Knows, SnapshotHead};
use super::snapshot::SnapshotFile;
use super::types::{self, Raft, Types, Vote};

/// More than any message of entries: a leader sends at most one entry beyond a mebibyte.
const MESSAGE_LIMIT: usize = 64 << 20;

/// The line before a snapshot file holds the membership, and not much else.
const HEAD_LIMIT: usize = 1 << 20;

/// A message that is not taken.
struct Refusal(StatusCode, String);

impl Refusal {
    fn malformed(why: impl std::fmt::Display) -> Self {
        Self(StatusCode::BAD_REQUEST, format!("this is no message that this version of drover knows: {why}"))
    }

    fn failed(why: impl std::fmt::Display) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, why.to_string())
    }
}

/// Answers a request under [`network::PREFIX`] of a master that TLS has identified.
/// Entries that this drover cannot read are told to `left_behind`.
pub(super) async fn serve(
    raft: &Raft,
    left_behind: &watch::Sender<Option<TooNew>>,
    sender: &PeerIdentity,
    request: Request<Incoming>,
) -> Response<Body> {
    let answer = match (request.method(), request.uri().path()) {
        (&Method::POST, network::APPEND) => append(raft, left_behind, sender, request.into_body()).await,
        (&Method::POST, network::VOTE) => vote(raft, sender, request.into_body()).await,
        (&Method::POST, network::SNAPSHOT) => snapshot(raft, sender, request.into_body()).await,
        _ => Err(Refusal(StatusCode::NOT_FOUND, "there is no such message".to_owned())),
    };
    let (status, body) = match answer {
        Ok(body) => (StatusCode::OK, client::full(body)),
        Err(Refusal(status, why)) => (status, client::full(why)),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    Knows::ours().write(response.headers_mut());
    response
}

async fn append(
    raft: &Raft,
    left_behind: &watch::Sender<Option<TooNew>>,
    sender: &PeerIdentity,
    body: Incoming,
) -> Result<Bytes, Refusal> {
    let bytes = network::collect(body, MESSAGE_LIMIT).await.map_err(Refusal::malformed)?;
    let refuse = |too_new: TooNew| {
        left_behind.send_replace(Some(too_new));
        Refusal::malformed(too_new)
    };
    let request: AppendEntriesRequest<Types> = serde_json::from_slice(&bytes)
        .map_err(|error| types::too_new(&bytes).map_or_else(|| Refusal::malformed(error), refuse))?;
    check_sender(sender, &request.vote)?;
    request.entries.iter().try_for_each(types::check_entry).map_err(refuse)?;
    Ok(render(&raft.append_entries(request).await))
}

async fn vote(raft: &Raft, sender: &PeerIdentity, body: Incoming) -> Result<Bytes, Refusal> {
    let request: VoteRequest<u64> = read(body).await?;
    check_sender(sender, &request.vote)?;
    let is_member = {
        let metrics = raft.server_metrics();
        let known = metrics.borrow();
        // Without a leader this master's own view of the membership may be the one that is out of date.
        known.current_leader.is_none() || known.membership_config.nodes().any(|(id, _)| Some(*id) == sender.master_id())
    };
    if !is_member {
        return Err(Refusal(StatusCode::GONE, format!("{sender} is not a member of this cluster any more")));
    }
    Ok(render(&raft.vote(request).await))
}

async fn snapshot(raft: &Raft, sender: &PeerIdentity, mut body: Incoming) -> Result<Bytes, Refusal> {
    let mut received = BytesMut::new();
    let line = loop {
        if let Some(end) = received.iter().position(|byte| *byte == b'\n') {
            break received.split_to(end + 1);
        }
        let chunk = next_chunk(&mut body).await.map_err(Refusal::malformed)?;
        let chunk = chunk.ok_or_else(|| Refusal::malformed("the snapshot's head has no end"))?;
        received.extend_from_slice(&chunk);
        if received.len() > HEAD_LIMIT + chunk.len() {
            return Err(Refusal::malformed("the snapshot's head is too long"));
        }
    };
    let head: SnapshotHead = serde_json::from_slice(&line).map_err(Refusal::malformed)?;
    check_sender(sender, &head.vote)?;
    tracing::info!(from = %sender.name, snapshot = %head.meta.snapshot_id, "receiving a snapshot");
    let SnapshotFile { path, file } = *raft.begin_receiving_snapshot().await.map_err(Refusal::failed)?;
    let unfinished = Unfinished(Some(path.clone()));
    let mut file = tokio::fs::File::from_std(file);
    file.write_all(&received).await.map_err(Refusal::failed)?;
    while let Some(mut chunk) = next_chunk(&mut body).await.map_err(Refusal::malformed)? {
        file.write_all_buf(&mut chunk).await.map_err(Refusal::failed)?;
        debug_assert!(!chunk.has_remaining());
    }
    file.flush().await.map_err(Refusal::failed)?;
    let snapshot = Box::new(SnapshotFile { path, file: file.into_std().await });
    // From here on the file is the state machine's. If it is not installed, the next start clears it away.
    unfinished.keep();
    let installed = raft.install_full_snapshot(head.vote, Snapshot { meta: head.meta, snapshot }).await;
    Ok(render(&installed))
}

/// A file to be removed unless it is kept.
struct Unfinished(Option<PathBuf>);

impl Unfinished {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(path) = self.0.take()
            && let Err(error) = std::fs::remove_file(&path)
        {
            tracing::warn!(path = %path.display(), %error, "cannot remove a snapshot that did not arrive whole, ignoring");
        }
    }
}

async fn next_chunk(body: &mut Incoming) -> Result<Option<Bytes>, BodyError> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

async fn read<T: DeserializeOwned>(body: Incoming) -> Result<T, Refusal> {
    let bytes = network::collect(body, MESSAGE_LIMIT).await.map_err(Refusal::malformed)?;
    serde_json::from_slice(&bytes).map_err(Refusal::malformed)
}

fn render<T: Serialize>(answer: &T) -> Bytes {
    serde_json::to_vec(answer).expect("Raft's answers are plain data").into()
}

/// A master speaks for itself only.
fn check_sender(sender: &PeerIdentity, vote: &Vote) -> Result<(), Refusal> {
    if sender.master_id() == Some(vote.leader_id().node_id) {
        return Ok(());
    }
    Err(Refusal(StatusCode::FORBIDDEN, format!("{sender} speaks for master {}", vote.leader_id().node_id)))
}
