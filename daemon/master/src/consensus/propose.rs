//! Writing to the log: many callers, few entries.
//!
//! openraft 0.9 syncs once per entry, and waits for it. So one task gathers what callers propose meanwhile into
//! one entry, and keeps two entries on their way: throughput is then bounded by the commands that fit into an
//! entry, and not by the syncs a disk does per second. Commands stay in the order in which they were proposed;
//! those proposed together land in one entry.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use drover_core::state::{Command, Refusal};
use openraft::error::{ClientWriteError, ForwardToLeader};
use openraft::raft::ClientWriteResult;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Master;
use super::batch::Batch;
use super::machine::Shared;
use super::types::{MasterNode, Outcome, Proposal, Raft, Types};
use crate::metrics;

/// Commands in one entry, unless one caller's group is larger.
const COMMANDS_MAX: usize = 256;

/// Bytes in one entry, roughly, unless one caller's group is larger.
const ENTRY_BYTES: usize = 1 << 20;

/// Entries on their way at once.
const IN_FLIGHT: usize = 2;

/// Groups that may wait; beyond it callers are told that the master is too busy.
const WAITING_MAX: usize = 4096;

/// How long a caller waits for its commands to be applied.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a command was not honoured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// It was looked at and refused; it changed nothing.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// This master does not lead. The command was not taken, and never will be by this proposal.
    #[error("this master does not lead")]
    NotLeader {
        /// Who does, if that is known.
        leader: Option<Master>,
    },
    /// No majority took it in time. It may still be applied later.
    #[error("no majority of the masters took it in time, so it may or may not happen")]
    Unavailable,
    /// Too much is waiting already; it was not taken.
    #[error("this master has too much to do")]
    TooBusy,
    /// The cluster's version does not know it yet; it was not taken.
    #[error("it needs version {needs} of the cluster, which is at {version} (`drover cluster raise-version`)")]
    TooNew {
        /// The version that brought it.
        needs: u32,
        /// The cluster's.
        version: u32,
    },
    /// It is larger than what the log takes; it was not taken.
    #[error("the change is too large: {bytes} bytes, and at most {most} are possible")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        most: usize,
    },
}

/// The callers' end. Clones share the queue.
#[derive(Debug, Clone)]
pub(super) struct Proposer {
    queue: mpsc::Sender<Group>,
    shared: Arc<Shared>,
    /// Bytes in one caller's group; beyond it the group is refused.
    group_bytes: usize,
}

#[derive(Debug)]
struct Group {
    batch: Batch,
    reply: oneshot::Sender<Answer>,
}

/// The entry's index and the results of the group's commands, or why there are none.
type Answer = Result<(u64, Vec<Result<(), Refusal>>), ProposeError>;

impl Proposer {
    /// Starts the task that gathers proposals. It ends with the token.
    pub(super) fn start(
        raft: Raft,
        shared: Arc<Shared>,
        group_bytes: usize,
        tracker: &TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
        let gatherer = Gatherer { raft, shared: shared.clone(), waiting, held: None, in_flight };
        let replies = tracker.clone();
        tracker.spawn(async move {
            tokio::select! {
                () = gatherer.run(replies) => {}
                () = stop.cancelled() => {}
            }
        });
        Self { queue, shared, group_bytes }
    }

    pub(super) async fn propose(&self, commands: Vec<Command>) -> Vec<Result<u64, ProposeError>> {
        let count = commands.len();
        if count == 0 {
            return Vec::new();
        }
        let began = Instant::now();
        let results: Vec<Result<u64, ProposeError>> = match self.propose_group(commands).await {
            Ok((index, results)) => {
                metrics::COMMIT.took([], began.elapsed());
                results.into_iter().map(|result| result.map(|()| index).map_err(Into::into)).collect()
            }
            Err(error) => vec![Err(error); count],
        };
        for result in &results {
            metrics::PROPOSALS.inc([metrics::outcome(result)]);
        }
        results
    }

    async fn propose_group(&self, commands: Vec<Command>) -> Answer {
        {
            let state = self.shared.read();
            if let Some(early) = commands.iter().find(|command| !state.may_be_written(command)) {
                return Err(ProposeError::TooNew { needs: early.since(), version: state.version.0 });
            }
        }
        let batch = Batch::new(commands);
        let bytes = batch.bytes();
        if bytes > self.group_bytes {
            return Err(ProposeError::TooLarge { bytes, most: self.group_bytes });
        }
        let (reply, answer) = oneshot::channel();
        self.queue.try_send(Group { batch, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ProposeError::TooBusy,
            mpsc::error::TrySendError::Closed(_) => ProposeError::Unavailable,
        })?;
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(ProposeError::Unavailable),
        }
    }
}

struct Gatherer {
    raft: Raft,
    shared: Arc<Shared>,
    waiting: mpsc::Receiver<Group>,
    /// Did not fit into the last entry.
    held: Option<Group>,
    in_flight: Arc<Semaphore>,
}

impl Gatherer {
    async fn run(mut self, replies: TaskTracker) {
        loop {
            // The place first: what is proposed while both are taken goes together into the next entry.
            let place = self.in_flight.clone().acquire_owned().await.expect("the semaphore is never closed");
            let Some(groups) = self.gather().await else { return };
            let mut batches = Vec::with_capacity(groups.len());
            let mut callers = Vec::with_capacity(groups.len());
            for group in groups {
                callers.push((group.batch.commands().len(), group.reply));
                batches.push(group.batch);
            }
            let batch = Batch::joined(batches);
            metrics::BATCH.observe([], batch.commands().len() as f64);
            // The version never goes back, so it still knows what was looked at when it was proposed.
            let proposal = Proposal::new(self.shared.read().version, batch);
            let is_appended = proposal.is_appended.clone();
            // In the order of the log from here on: openraft takes them one after the other.
            let written = self.raft.client_write_ff(proposal).await;
            replies.spawn(async move {
                let result = match written {
                    Ok(receiver) => receiver.await.map_err(|_| ProposeError::Unavailable),
                    Err(_fatal) => Err(ProposeError::Unavailable),
                };
                drop(place);
                answer(callers, result, is_appended.load(Ordering::Relaxed));
            });
        }
    }

    /// Waits for a group, and takes as many as are there and fit.
    async fn gather(&mut self) -> Option<Vec<Group>> {
        let mut groups: Vec<Group> = Vec::new();
        let (mut commands, mut bytes) = (0, 0);
        loop {
            let next = match self.held.take() {
                Some(held) => Some(held),
                None if groups.is_empty() => Some(self.waiting.recv().await?),
                None => self.waiting.try_recv().ok(),
            };
            let Some(group) = next else { return Some(groups) };
            if group.reply.is_closed() {
                // The caller gave up, and was told that nobody knows: then nothing is the better outcome.
                continue;
            }
            commands += group.batch.commands().len();
            bytes += group.batch.bytes();
            if !groups.is_empty() && (commands > COMMANDS_MAX || bytes > ENTRY_BYTES) {
                self.held = Some(group);
                return Some(groups);
            }
            groups.push(group);
        }
    }
}

fn answer(
    callers: Vec<(usize, oneshot::Sender<Answer>)>,
    result: Result<ClientWriteResult<Types>, ProposeError>,
    is_appended: bool,
) {
    let outcome = match result {
        Ok(Ok(response)) => Ok((response.log_id.index, response.data)),
        // openraft says so when it did not append the entry, and also when a new leader's log took its place here. Then another
        // master may have it still, and may lead next.
        Ok(Err(ClientWriteError::ForwardToLeader(_))) if is_appended => Err(ProposeError::Unavailable),
        Ok(Err(ClientWriteError::ForwardToLeader(forward))) => Err(not_leader(forward)),
        Ok(Err(ClientWriteError::ChangeMembershipError(_))) => Err(ProposeError::Unavailable),
        Err(error) => Err(error),
    };
    match outcome {
        Ok((index, Outcome { results })) => {
            let mut results = results.into_iter();
            for (count, reply) in callers {
                let own: Vec<_> = results.by_ref().take(count).collect();
                // A caller that is gone does not want to know.
                reply.send(Ok((index, own))).ok();
            }
        }
        Err(error) => {
            for (_, reply) in callers {
                reply.send(Err(error.clone())).ok();
            }
        }
    }
}

fn not_leader(forward: ForwardToLeader<u64, MasterNode>) -> ProposeError {
    ProposeError::NotLeader { leader: leader_of(forward) }
}

pub(super) fn leader_of(forward: ForwardToLeader<u64, MasterNode>) -> Option<Master> {
    let (id, node) = forward.leader_id.zip(forward.leader_node)?;
    Some(Master { id, name: node.name, address: node.address })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_log_was_asked_to_take_is_known_not_to_happen() {
        let deposed = || Ok(Err(ClientWriteError::ForwardToLeader(ForwardToLeader { leader_id: None, leader_node: None })));
        let told = |is_appended| {
            let (reply, mut answer) = oneshot::channel();
            super::answer(vec![(1, reply)], deposed(), is_appended);
            answer.try_recv().expect("it was answered").expect_err("another leads")
        };
        assert_eq!(told(false), ProposeError::NotLeader { leader: None });
        assert_eq!(told(true), ProposeError::Unavailable, "another master may have it, and lead next");
    }
}
