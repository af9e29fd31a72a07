//! Who the masters are, and how they become more and fewer while the cluster runs.
//!
//! A new master starts with an empty log and says so to any other (`POST /cluster/v1/members`); the leader adds
//! it as a learner, waits until it has caught up, and makes it a voter. One change at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use drover_core::state::STATE_VERSION;
use drover_pki::client::{self, ClientError, ClusterClient};
use drover_pki::tls::Expect;
use hyper::{Request, StatusCode};
use openraft::ChangeMembers;
use openraft::error::{ChangeMembershipError, ClientWriteError, RaftError};
use serde::{Deserialize, Serialize};

use super::propose::leader_of;
use super::types::MasterNode;
use super::{Consensus, Knows, Master};

/// Where a new master announces itself.
pub(crate) const MEMBERS_PATH: &str = "/cluster/v1/members";

/// How long one change of the membership may take: a new master has to catch up within it.
pub(super) const CHANGE_PATIENCE: Duration = Duration::from_secs(120);

/// Between two announcements. One that was taken shows in the membership by then.
const ANNOUNCE_PAUSE: Duration = Duration::from_secs(1);

const ANSWER_LIMIT: usize = 64 << 10;

/// A master with what the leader knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its Raft node id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Its cluster listener.
    pub address: String,
    /// What it does in consensus.
    pub role: MemberRole,
    /// Log entries it is behind; known to the leader only.
    pub lag: Option<u64>,
    /// Milliseconds since it last answered; known to the leader only.
    pub seen_ago_ms: Option<u64>,
    /// What it can read and runs; of the others known to the leader only.
    pub knows: Option<Knows>,
}

/// What a master does in consensus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberRole {
    /// Decides.
    Leader,
    /// Votes.
    Follower,
    /// Is catching up.
    Learner,
}

/// Why the membership was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// Only the leader can.
    #[error("this master does not lead")]
    NotLeader {
        /// Who does, if that is known.
        leader: Option<Master>,
    },
    /// Another master has the name or the address.
    #[error("master {name} ({id}) is at {address} already: if it is lost, run `drover masters remove {name}` first")]
    Taken {
        /// The other's id.
        id: u64,
        /// The other's name.
        name: String,
        /// The other's address.
        address: String,
    },
    /// It cannot read what this cluster writes.
    #[error(
        "the cluster is at version {version} and drover on {name} knows versions up to {knows}: install the newer drover there"
    )]
    TooOld {
        /// The new master's name.
        name: String,
        /// What it knows.
        knows: u32,
        /// The cluster's version.
        version: u32,
    },
    /// No master has the name.
    #[error("there is no master {0}")]
    Unknown(String),
    /// Somebody has to keep the state.
    #[error("it is the last master")]
    Last,
    /// Those who would be left could decide nothing.
    #[error("of the {left} masters that would be left only {answering} answer: remove those that do not, first")]
    Majority {
        /// How many would be left.
        left: usize,
        /// How many of them answer.
        answering: usize,
    },
    /// Another change is under way, begun by another leader or not finished by this one.
    #[error("another change of the masters is under way: try again in a moment")]
    Busy,
    /// It did not happen in time.
    #[error("{0}")]
    Unavailable(String),
}

/// What a new master says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Announcement {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) address: String,
    /// The newest version of the replicated shapes that it can read.
    #[serde(default = "first_version")]
    pub(crate) knows: u32,
}

/// What a master knows that does not say it.
fn first_version() -> u32 {
    1
}

/// What a master answers that does not lead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Misdirected {
    pub(crate) error: String,
    pub(crate) leader: Option<String>,
}

impl Consensus {
    /// The masters, by name.
    pub fn members(&self) -> Vec<Member> {
        let metrics = self.inner.raft.metrics();
        let known = metrics.borrow();
        let voters: BTreeSet<u64> = known.membership_config.voter_ids().collect();
        let mut members: Vec<Member> = known
            .membership_config
            .nodes()
            .map(|(id, node)| {
                let role = match (known.current_leader == Some(*id), voters.contains(id)) {
                    (true, _) => MemberRole::Leader,
                    (false, true) => MemberRole::Follower,
                    (false, false) => MemberRole::Learner,
                };
                let matched = known.replication.as_ref().and_then(|replication| replication.get(id));
                let lag = matched.map(|matched| {
                    let behind = known.last_log_index.map_or(0, |last| last + 1);
                    behind.saturating_sub(matched.map_or(0, |matched| matched.index + 1))
                });
                let seen_ago_ms = match (&known.replication, *id == self.inner.me.id) {
                    (None, _) => None,
                    (Some(_), true) => Some(0),
                    (Some(_), false) => {
                        self.inner.network.answered(*id).map(|at| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX))
                    }
                };
                let knows = match (&known.replication, *id == self.inner.me.id) {
                    (_, true) => Some(Knows::ours()),
                    (None, false) => None,
                    (Some(_), false) => self.inner.network.knows(*id),
                };
                Member { id: *id, name: node.name.clone(), address: node.address.clone(), role, lag, seen_ago_ms, knows }
            })
            .collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        members
    }

    /// Waits until the members are as wanted, and no change of them is half done.
    #[cfg(test)]
    pub(crate) async fn members_are(&self, wanted: impl Fn(&[Member]) -> bool) {
        let mut metrics = self.inner.raft.metrics();
        loop {
            let is_joint = metrics.borrow_and_update().membership_config.membership().get_joint_config().len() > 1;
            if !is_joint && wanted(&self.members()) {
                return;
            }
            metrics.changed().await.expect("the core runs");
        }
    }

    /// Makes a master a voter, in as many steps as are missing. Only the leader can. Repeating it is harmless; a
    /// member that moved gets its new address. `knows`: the newest version of the replicated shapes that it can read.
    pub async fn add_master(&self, id: u64, name: &str, address: &str, knows: u32) -> Result<(), MembershipError> {
        let node = MasterNode { name: name.to_owned(), address: address.to_owned() };
        tokio::select! {
            biased;
            added = self.one_at_a_time(self.add(id, node, knows)) => added,
            // The next leader knows nothing of it, and whoever announces itself has to ask there.
            leader = self.led_by(|leader| leader != Some(self.inner.me.id)) => Err(MembershipError::NotLeader { leader }),
        }
    }

    /// Waits until openraft's word on who leads is as wanted, and names who that is.
    async fn led_by(&self, wanted: impl Fn(Option<u64>) -> bool) -> Option<Master> {
        let mut metrics = self.inner.raft.metrics();
        let known = metrics.wait_for(|known| wanted(known.current_leader)).await.ok()?;
        let id = known.current_leader?;
        let node = known.membership_config.membership().get_node(&id)?;
        Some(Master { id, name: node.name.clone(), address: node.address.clone() })
    }

    /// Takes a master out of the cluster. Only the leader can; it may remove itself.
    pub async fn remove_master(&self, name: &str) -> Result<(), MembershipError> {
        self.one_at_a_time(self.remove(name)).await
    }

    async fn one_at_a_time(&self, change: impl Future<Output = Result<(), MembershipError>>) -> Result<(), MembershipError> {
        let change = async {
            let _turn = self.inner.membership.lock().await;
            change.await
        };
        let late = || MembershipError::Unavailable("the masters did not agree on it in time".to_owned());
        tokio::time::timeout(CHANGE_PATIENCE, change).await.map_err(|_| late())?
    }

    async fn add(&self, id: u64, node: MasterNode, knows: u32) -> Result<(), MembershipError> {
        let version = self.read(|state| state.version.0);
        if knows < version {
            return Err(MembershipError::TooOld { name: node.name, knows, version });
        }
        let raft = &self.inner.raft;
        let (known, is_voter) = {
            let metrics = raft.metrics();
            let membership = metrics.borrow().membership_config.clone();
            for (other, taken) in membership.nodes() {
                if *other != id && (taken.name == node.name || taken.address == node.address) {
                    let (name, address) = (taken.name.clone(), taken.address.clone());
                    return Err(MembershipError::Taken { id: *other, name, address });
                }
            }
            (membership.membership().get_node(&id).cloned(), membership.voter_ids().any(|voter| voter == id))
        };
        match known {
            Some(known) if known == node => {}
            Some(_) => {
                tracing::info!(master = %node.name, address = %node.address, "a master has a new address");
                let change = ChangeMembers::SetNodes(BTreeMap::from([(id, node.clone())]));
                raft.change_membership(change, true).await.map_err(membership_error)?;
            }
            None => tracing::info!(master = %node.name, address = %node.address, id, "a master joins"),
        }
        if is_voter {
            return Ok(());
        }
        raft.add_learner(id, node.clone(), true).await.map_err(membership_error)?;
        let change = ChangeMembers::AddVoterIds(BTreeSet::from([id]));
        raft.change_membership(change, true).await.map_err(membership_error)?;
        tracing::info!(master = %node.name, id, "a master joined");
        Ok(())
    }

    async fn remove(&self, name: &str) -> Result<(), MembershipError> {
        let raft = &self.inner.raft;
        let (id, voters) = {
            let metrics = raft.metrics();
            let membership = metrics.borrow().membership_config.clone();
            let id = membership.nodes().find(|(_, node)| node.name == name).map(|(id, _)| *id);
            let id = id.ok_or_else(|| MembershipError::Unknown(name.to_owned()))?;
            (id, membership.voter_ids().collect::<BTreeSet<_>>())
        };
        let ids = BTreeSet::from([id]);
        if voters == ids {
            return Err(MembershipError::Last);
        }
        if raft.metrics().borrow().current_leader == Some(self.inner.me.id) {
            self.check_majority_without(id, &voters)?;
        }
        let change = match voters.contains(&id) {
            true => ChangeMembers::RemoveVoters(ids),
            false => ChangeMembers::RemoveNodes(ids),
        };
        raft.change_membership(change, false).await.map_err(membership_error)?;
        tracing::info!(master = name, id, "a master was removed");
        Ok(())
    }

    /// A change of the membership needs a majority of those that are left, and so does everything after it.
    fn check_majority_without(&self, id: u64, voters: &BTreeSet<u64>) -> Result<(), MembershipError> {
        let left: Vec<u64> = voters.iter().copied().filter(|voter| *voter != id).collect();
        let answers = |voter: &&u64| {
            let answered = self.inner.network.answered(**voter);
            **voter == self.inner.me.id || answered.is_some_and(|at| at.elapsed() < self.inner.silence)
        };
        let answering = left.iter().filter(answers).count();
        if answering * 2 > left.len() {
            return Ok(());
        }
        Err(MembershipError::Majority { left: left.len(), answering })
    }

    /// Makes sure that this master is a member, by asking the others until it is. Returns when it is, or when it
    /// never will be. To be started once the cluster listener listens: the leader will want to catch this master up.
    pub(crate) async fn announce(&self) {
        loop {
            match self.standing() {
                Standing::Voter => return,
                Standing::Removed => return,
                Standing::New => {}
            }
            let Master { id, name, address } = &self.inner.me;
            if self.inner.raft.metrics().borrow().current_leader == Some(*id) {
                if let Err(error) = self.add_master(*id, name, address, STATE_VERSION).await {
                    tracing::debug!(%error, "the leader cannot change its own address yet");
                }
            } else {
                // Whoever is asked may be slow to answer. Who leads by then needs nobody's answer.
                tokio::select! {
                    () = self.announce_to_any() => {}
                    _ = self.led_by(|leader| leader == Some(*id)) => continue,
                }
            }
            tokio::select! {
                () = tokio::time::sleep(ANNOUNCE_PAUSE) => {}
                () = self.inner.stop.cancelled() => return,
            }
        }
    }

    /// Asks the other masters in turn, until one has taken this one in.
    async fn announce_to_any(&self) {
        for seed in self.seeds() {
            if self.announce_to(seed).await {
                return;
            }
        }
    }

    /// The other masters' addresses, as far as this one has heard of them.
    fn seeds(&self) -> BTreeSet<String> {
        let members = self.members().into_iter().filter(|member| member.id != self.inner.me.id);
        let mut seeds: BTreeSet<String> = members.map(|member| member.address).collect();
        seeds.extend(self.inner.credentials.identity.peers.iter().cloned());
        seeds.remove(&self.inner.me.address);
        seeds
    }

    fn standing(&self) -> Standing {
        let metrics = self.inner.raft.metrics();
        let known = metrics.borrow();
        let me = self.inner.me.id;
        let node = known.membership_config.membership().get_node(&me);
        let is_voter = known.membership_config.voter_ids().any(|voter| voter == me);
        let moved = node.is_some_and(|node| node.address != self.inner.me.address || node.name != self.inner.me.name);
        if is_voter && !moved {
            Standing::Voter
        } else if *self.inner.network.removed().borrow() {
            Standing::Removed
        } else {
            Standing::New
        }
    }

    /// Asks one master, and the leader it names. True once a leader has taken this master in.
    async fn announce_to(&self, first: String) -> bool {
        let Master { id, name, address } = self.inner.me.clone();
        let announcement = Announcement { id, name, address, knows: STATE_VERSION };
        let mut address = first;
        for _hop in 0..3 {
            match self.post_announcement(&address, &announcement).await {
                Ok(Answer::Taken) => return true,
                Ok(Answer::Elsewhere(leader)) => address = leader,
                Ok(Answer::Refused(why)) => {
                    tracing::warn!(%address, "the cluster does not take this master in: {why}");
                    return false;
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(%address, error, "cannot announce this master");
                    return false;
                }
            }
        }
        false
    }

    async fn post_announcement(&self, address: &str, announcement: &Announcement) -> Result<Answer, ClientError> {
        let client = ClusterClient::new(&self.inner.credentials, address, Expect::AnyMaster);
        let body = serde_json::to_vec(announcement).expect("an announcement is plain data");
        let request = Request::post(MEMBERS_PATH).body(client::full(body)).expect("a constant path makes a request");
        let asked = tokio::time::timeout(CHANGE_PATIENCE, client.call(request, ANSWER_LIMIT));
        let answer = asked.await.map_err(|_| ClientError::Timeout { address: address.to_owned() })??;
        let told: Option<Misdirected> = serde_json::from_slice(answer.body()).ok();
        Ok(match (answer.status(), told) {
            (StatusCode::OK | StatusCode::NO_CONTENT, _) => Answer::Taken,
            (StatusCode::MISDIRECTED_REQUEST, Some(Misdirected { leader: Some(leader), .. })) => Answer::Elsewhere(leader),
            (_, Some(told)) => Answer::Refused(told.error),
            (status, None) => Answer::Refused(status.to_string()),
        })
    }
}

/// How this master stands to the membership it knows.
enum Standing {
    /// A voter under its present address.
    Voter,
    /// Has yet to become a voter, or moved.
    New,
    /// Was a voter, and is not any more.
    Removed,
}

enum Answer {
    Taken,
    Elsewhere(String),
    Refused(String),
}

fn membership_error(error: RaftError<u64, ClientWriteError<u64, MasterNode>>) -> MembershipError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            MembershipError::NotLeader { leader: leader_of(forward) }
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => match error {
            ChangeMembershipError::InProgress(_) => MembershipError::Busy,
            ChangeMembershipError::EmptyMembership(_) => MembershipError::Last,
            ChangeMembershipError::LearnerNotFound(_) => {
                MembershipError::Unavailable("the master was removed meanwhile".to_owned())
            }
        },
        RaftError::Fatal(fatal) => MembershipError::Unavailable(fatal.to_string()),
    }
}
