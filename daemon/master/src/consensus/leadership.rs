//! Who leads, whether that is still so, and whether consensus goes on at all.

use std::time::Duration;

use openraft::error::{CheckIsLeaderError, RaftError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Master;
use super::propose::leader_of;
use super::types::{Fatal, Raft};

/// Callers that may wait for a confirmation; further ones wait for a place.
const WAITING_MAX: usize = 1024;

/// Who leads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leadership {
    /// In which term. A leader that restarts may lead on in the term it had.
    pub term: u64,
    /// Who. A leader is named once its state holds everything its predecessors acknowledged.
    pub leader: Option<Master>,
    /// Whether it is this master.
    pub is_me: bool,
}

/// Why leadership was not confirmed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfirmError {
    /// Another master leads, or none.
    #[error("this master does not lead")]
    NotLeader {
        /// Who does, if that is known.
        leader: Option<Master>,
    },
    /// A majority did not answer.
    #[error("no majority of the masters answers")]
    NoQuorum,
}

/// Starts the task that watches who leads.
pub(super) fn watch(
    raft: &Raft,
    me: u64,
    retry: Duration,
    tracker: &TaskTracker,
    stop: CancellationToken,
) -> watch::Receiver<Leadership> {
    let (tell, told) = watch::channel(Leadership::default());
    let raft = raft.clone();
    tracker.spawn(async move {
        tokio::select! {
            () = follow_metrics(raft, me, retry, &tell) => {}
            () = stop.cancelled() => {}
        }
        // Whoever leads from here on, it is not this master.
        tell.send_modify(|leadership| *leadership = Leadership { term: leadership.term, ..Leadership::default() });
    });
    told
}

async fn follow_metrics(raft: Raft, me: u64, retry: Duration, tell: &watch::Sender<Leadership>) {
    let mut metrics = raft.server_metrics();
    loop {
        let (term, leader) = {
            let known = metrics.borrow_and_update();
            let node = |id: &u64| known.membership_config.membership().get_node(id).cloned();
            let leader = known.current_leader.and_then(|id| {
                let node = node(&id)?;
                Some(Master { id, name: node.name, address: node.address })
            });
            (known.vote.leader_id().term, leader)
        };
        let now = match leader {
            Some(leader) if leader.id != me => Leadership { term, leader: Some(leader), is_me: false },
            Some(leader) => {
                let confirmed = { tell.borrow().is_me && tell.borrow().term == term };
                if !confirmed {
                    publish(tell, Leadership { term, leader: None, is_me: false });
                    tokio::select! {
                        caught_up = raft.ensure_linearizable() => if caught_up.is_err() {
                            // No majority answers, or the leadership is lost; the latter shows in the metrics.
                            tokio::select! {
                                () = tokio::time::sleep(retry) => {}
                                changed = metrics.changed() => if changed.is_err() { return },
                            }
                            continue;
                        },
                        changed = metrics.changed() => {
                            if changed.is_err() { return }
                            continue;
                        }
                    }
                }
                Leadership { term, leader: Some(leader), is_me: true }
            }
            None => Leadership { term, leader: None, is_me: false },
        };
        publish(tell, now);
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

fn publish(tell: &watch::Sender<Leadership>, now: Leadership) {
    let changed = tell.send_if_modified(|known| {
        let changed = *known != now;
        if changed {
            known.clone_from(&now);
        }
        changed
    });
    if !changed {
        return;
    }
    match &now.leader {
        Some(_) if now.is_me => tracing::info!(term = now.term, "this master leads"),
        Some(leader) => {
            tracing::info!(term = now.term, leader = %leader.name, address = %leader.address, "another master leads")
        }
        None => tracing::info!(term = now.term, "nobody leads at the moment"),
    }
}

/// Starts the task that notices the end of openraft's core.
pub(super) fn watch_fatal(raft: &Raft, tracker: &TaskTracker, stop: CancellationToken) -> watch::Receiver<Option<String>> {
    let (tell, told) = watch::channel(None);
    let mut metrics = raft.metrics();
    tracker.spawn(async move {
        let why = loop {
            let state = metrics.borrow_and_update().running_state.clone();
            match state {
                Err(Fatal::Stopped) if stop.is_cancelled() => return,
                Err(Fatal::StorageError(error)) => break format!("the log or a snapshot failed: {error}"),
                Err(error) => break format!("consensus ended: {error}"),
                Ok(()) => {}
            }
            tokio::select! {
                changed = metrics.changed() => if changed.is_err() { break "consensus ended: its core is gone".to_owned() },
                () = stop.cancelled() => return,
            }
        };
        tracing::error!(%why, "this master can go on no more");
        tell.send_replace(Some(why));
        // Kept until the end, so that whoever asks later is told as well.
        stop.cancelled().await;
    });
    told
}

/// Starts the task that tells the operator, once, that this master was removed.
pub(super) fn warn_if_removed(mut removed: watch::Receiver<bool>, tracker: &TaskTracker, stop: CancellationToken) {
    tracker.spawn(async move {
        tokio::select! {
            seen = removed.wait_for(|removed| *removed) => if seen.is_ok() {
                tracing::warn!(
                    "the other masters say that this one is not a member any more: stop droverd here and remove its \
                     master directory; to bring the machine back, let it join with a new token"
                );
            },
            () = stop.cancelled() => {}
        }
    });
}

/// Confirms leadership for all who ask at the same time with one round to the other masters.
#[derive(Debug, Clone)]
pub(super) struct Confirmer {
    queue: mpsc::Sender<oneshot::Sender<Result<u64, ConfirmError>>>,
}

impl Confirmer {
    pub(super) fn start(raft: Raft, patience: Duration, tracker: &TaskTracker, stop: CancellationToken) -> Self {
        let (queue, mut waiting) = mpsc::channel(WAITING_MAX);
        tracker.spawn(async move {
            let mut callers: Vec<oneshot::Sender<Result<u64, ConfirmError>>> = Vec::new();
            loop {
                // Only those who asked before a round began are served by it.
                tokio::select! {
                    count = waiting.recv_many(&mut callers, WAITING_MAX) => if count == 0 { return },
                    () = stop.cancelled() => return,
                }
                let result = confirm(&raft, patience).await;
                for caller in callers.drain(..) {
                    // A caller that is gone does not want to know.
                    caller.send(result.clone()).ok();
                }
            }
        });
        Self { queue }
    }

    pub(super) async fn confirm(&self) -> Result<u64, ConfirmError> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(reply).await.map_err(|_| ConfirmError::NotLeader { leader: None })?;
        answer.await.unwrap_or(Err(ConfirmError::NotLeader { leader: None }))
    }
}

async fn confirm(raft: &Raft, patience: Duration) -> Result<u64, ConfirmError> {
    match tokio::time::timeout(patience, raft.ensure_linearizable()).await {
        Ok(Ok(read)) => Ok(read.map_or(0, |read| read.index)),
        Ok(Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(forward)))) => {
            Err(ConfirmError::NotLeader { leader: leader_of(forward) })
        }
        Ok(Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_)))) | Err(_) => Err(ConfirmError::NoQuorum),
        Ok(Err(RaftError::Fatal(_))) => Err(ConfirmError::NotLeader { leader: None }),
    }
}
