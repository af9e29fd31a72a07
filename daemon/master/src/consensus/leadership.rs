//! Who leads, whether that is still so, and whether consensus goes on at all.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use drover_core::state::TooNew;
use openraft::RaftMetrics;
use openraft::error::{CheckIsLeaderError, RaftError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::files::{self, Owner, StoreError};
use super::network::Network;
use super::propose::leader_of;
use super::types::{Fatal, LogId, MasterNode, Raft, Vote};
use super::{Master, Settings};

type ServerMetrics = openraft::metrics::RaftServerMetrics<u64, MasterNode>;

/// Callers that may wait for a confirmation; further ones wait for a place.
const WAITING_MAX: usize = 1024;

/// Who leads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leadership {
    /// In which term. A leader that restarts may lead on in the term it had.
    pub term: u64,
    /// Who. A leader is named once its state holds everything its predecessors acknowledged.
    pub leader: Option<Master>,
    /// Whether it is this master, and a majority follows it.
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

/// A term in which this master led before it was restarted, and may lead on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resumed {
    term: u64,
    /// The end of its log at the start.
    last: u64,
}

impl Resumed {
    /// What the log of master `id` says of it.
    pub(super) fn of(vote: Option<Vote>, last: Option<LogId>, id: u64) -> Option<Self> {
        let vote = vote.filter(|vote| vote.committed && vote.leader_id.node_id == id)?;
        Some(Self { term: vote.leader_id.term, last: last?.index })
    }
}

/// Makes sure that this master leads and has applied everything that was acknowledged, by openraft's means and one more.
///
/// A leader that restarts within its term is the leader at once. openraft 0.9 then asks it to have applied the first entry
/// of the term only, because it does not know yet that later ones were committed, and acknowledged. All of them were in its
/// log when it started.
async fn ensure_linearizable(
    raft: &Raft,
    resumed: Option<Resumed>,
) -> Result<Option<u64>, RaftError<u64, CheckIsLeaderError<u64, MasterNode>>> {
    let read = raft.ensure_linearizable().await?.map(|read| read.index);
    let term = raft.metrics().borrow().current_term;
    let Some(resumed) = resumed.filter(|resumed| resumed.term == term) else { return Ok(read) };
    let applied = raft.wait(None).applied_index_at_least(Some(resumed.last), "what was acknowledged before the restart").await;
    applied.map_err(|_| RaftError::Fatal(Fatal::Stopped))?;
    Ok(read.max(Some(resumed.last)))
}

/// Starts the task that watches who leads.
pub(super) fn watch(
    raft: &Raft,
    network: &Network,
    settings: &Settings,
    resumed: Option<Resumed>,
    joined: JoinedMark,
    tracker: &TaskTracker,
    stop: CancellationToken,
) -> watch::Receiver<Leadership> {
    let (tell, told) = watch::channel(Leadership::default());
    let watcher = Watcher { raft: raft.clone(), network: network.clone(), settings: *settings, resumed, tell };
    tracker.spawn(watch_membership(raft.clone(), network.clone(), joined, stop.clone()));
    tracker.spawn(async move {
        tokio::select! {
            () = watcher.run() => {}
            () = stop.cancelled() => {}
        }
        // Whoever leads from here on, it is not this master.
        let over = |known: &mut Leadership| *known = Leadership { term: known.term, ..Leadership::default() };
        watcher.tell.send_modify(over);
    });
    told
}

/// ```text
/// another leads ◄──► nobody leads ◄──► openraft says: I do ──majority confirms, caught up──► this master leads
///                                              ▲                                                  │
///                                              └──────────── a majority fell silent ◄─────────────┘
/// ```
/// openraft 0.9 lets a leader without a majority go on calling itself one. It could decide nothing, but agents
/// would stay with it, and the true leader would give them up.
struct Watcher {
    raft: Raft,
    network: Network,
    settings: Settings,
    resumed: Option<Resumed>,
    tell: watch::Sender<Leadership>,
}

impl Watcher {
    async fn run(&self) {
        let mut metrics = self.raft.server_metrics();
        loop {
            let known = metrics.borrow_and_update().clone();
            let term = known.vote.leader_id().term;
            let leader = known.current_leader.and_then(|id| {
                let node = known.membership_config.membership().get_node(&id)?.clone();
                Some(Master { id, name: node.name, address: node.address })
            });
            let is_me = leader.as_ref().is_some_and(|leader| leader.id == known.id);
            if is_me && !self.is_confirmed(&known) {
                publish(&self.tell, Leadership { term, leader: None, is_me: false });
                tokio::select! {
                    confirmed = self.confirm() => if !confirmed { continue },
                    changed = metrics.changed() => match changed {
                        Ok(()) => continue,
                        Err(_) => return,
                    },
                }
            }
            publish(&self.tell, Leadership { term, leader, is_me });
            tokio::select! {
                changed = metrics.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(self.settings.heartbeat_interval), if is_me => {}
            }
        }
    }

    fn is_confirmed(&self, known: &ServerMetrics) -> bool {
        let was = self.tell.borrow().clone();
        was.is_me && was.term == known.vote.leader_id().term && self.majority_answers(known)
    }

    fn majority_answers(&self, known: &ServerMetrics) -> bool {
        let silence = self.settings.election_timeout * 2;
        let answers = |id: &u64| *id == known.id || self.network.answered(*id).is_some_and(|at| at.elapsed() < silence);
        let is_majority = |voters: &BTreeSet<u64>| voters.iter().filter(|id| answers(id)).count() * 2 > voters.len();
        known.membership_config.membership().get_joint_config().iter().all(is_majority)
    }

    /// Waits until a majority agrees and everything it acknowledged is applied here. If it does not, a little later.
    async fn confirm(&self) -> bool {
        if ensure_linearizable(&self.raft, self.resumed).await.is_ok() {
            return true;
        }
        tokio::time::sleep(self.settings.heartbeat_interval).await;
        false
    }
}

/// Notices that this master became a voter, and that it was removed. A new master sees memberships without itself
/// while it catches up, so the first has to be remembered to tell the second.
async fn watch_membership(raft: Raft, network: Network, joined: JoinedMark, stop: CancellationToken) {
    let mut is_joined = joined.is_set();
    let mut metrics = raft.metrics();
    loop {
        let (is_voter, is_member) = {
            let known = metrics.borrow_and_update();
            let membership = &known.membership_config;
            let is_committed = *membership.log_id() <= known.last_applied;
            let is_voter = is_committed && membership.voter_ids().any(|id| id == known.id);
            (is_voter, may_be_member(&known))
        };
        if is_voter && !is_joined {
            is_joined = true;
            let mark = joined.clone();
            // Without the mark nothing worse happens than that a later removal is noticed from the others only.
            match tokio::task::spawn_blocking(move || mark.set()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot note that this master is a voter, ignoring"
                ),
                Err(error) => tracing::warn!(%error, "cannot note that this master is a voter, ignoring"),
            }
        }
        if is_joined && !is_member {
            network.tell_removed();
        }
        tokio::select! {
            changed = metrics.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

/// Whether nothing says that this master is no member. Before openraft has read the log it tells of no membership at all.
///
/// A removal need not be known to be committed: who is removed is told nothing any more, and would not learn it after a restart.
/// It was asked for, and the masters had agreed on its first half before.
fn may_be_member(known: &RaftMetrics<u64, MasterNode>) -> bool {
    let membership = &known.membership_config;
    membership.log_id().is_none() || membership.nodes().any(|(id, _)| *id == known.id)
}

/// The file that says that this master was a voter once.
#[derive(Debug, Clone)]
pub(super) struct JoinedMark {
    path: PathBuf,
    owner: Owner,
}

impl JoinedMark {
    pub(super) fn new(dir: &Path, owner: Owner) -> Self {
        Self { path: dir.join("joined"), owner }
    }

    fn is_set(&self) -> bool {
        self.path.exists()
    }

    fn set(&self) -> Result<(), StoreError> {
        files::write_sealed(&self.path, "joined mark", self.owner, b"")
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

/// Starts the task that notices the end of openraft's core, and that the other masters write what this one cannot read.
pub(super) fn watch_fatal(
    raft: &Raft,
    mut left_behind: watch::Receiver<Option<TooNew>>,
    tracker: &TaskTracker,
    stop: CancellationToken,
) -> watch::Receiver<Option<String>> {
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
                Ok(()) = left_behind.changed() => {
                    if let Some(too_new) = &*left_behind.borrow_and_update() {
                        break format!("this master cannot follow the others: {too_new}");
                    }
                }
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
                    "this master is not a member of its cluster any more: stop droverd here and remove its master \
                     directory; to bring the machine back, let it join with a new token"
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
    pub(super) fn start(
        raft: Raft,
        resumed: Option<Resumed>,
        patience: Duration,
        tracker: &TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let (queue, mut waiting) = mpsc::channel(WAITING_MAX);
        tracker.spawn(async move {
            let mut callers: Vec<oneshot::Sender<Result<u64, ConfirmError>>> = Vec::new();
            loop {
                // Only those who asked before a round began are served by it.
                tokio::select! {
                    count = waiting.recv_many(&mut callers, WAITING_MAX) => if count == 0 { return },
                    () = stop.cancelled() => return,
                }
                let result = confirm(&raft, resumed, patience).await;
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

async fn confirm(raft: &Raft, resumed: Option<Resumed>, patience: Duration) -> Result<u64, ConfirmError> {
    match tokio::time::timeout(patience, ensure_linearizable(raft, resumed)).await {
        Ok(Ok(read)) => Ok(read.unwrap_or(0)),
        Ok(Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(forward)))) => {
            Err(ConfirmError::NotLeader { leader: leader_of(forward) })
        }
        Ok(Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_)))) | Err(_) => Err(ConfirmError::NoQuorum),
        Ok(Err(RaftError::Fatal(_))) => Err(ConfirmError::NotLeader { leader: None }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::{LeaderId, Membership, StoredMembership};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    #[test]
    fn only_a_membership_that_was_read_says_that_a_master_is_no_member() {
        let mut known = RaftMetrics::new_initial(7);
        assert!(may_be_member(&known), "at a start nothing is read yet");
        let of = |ids: &[u64]| {
            let nodes = ids.iter().map(|id| (*id, MasterNode::default())).collect::<BTreeMap<_, _>>();
            let membership = Membership::new(vec![ids.iter().copied().collect()], nodes);
            Arc::new(StoredMembership::new(Some(LogId::new(LeaderId::new(1, 1), 5)), membership))
        };
        known.membership_config = of(&[1, 7]);
        assert!(may_be_member(&known));
        known.membership_config = of(&[1]);
        assert!(!may_be_member(&known));
    }
}
