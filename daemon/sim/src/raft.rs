//! A small, honest Raft: terms, votes, elections by silence, replication, commitment by majority, snapshots, and a disk that
//! has to be synced. It is the stage on which drover's minds play; openraft is tried elsewhere.
//!
//! Nothing it says leaves before what it is based on is on disk: see [`Raft::take_out`].

use crate::dice::Dice;
use drover_core::state::Command;
use std::collections::BTreeSet;
use std::sync::Arc;

/// How often a leader says that it is there.
pub(crate) const HEARTBEAT: u64 = 250;

/// Shortest silence before a follower stands for election; the longest is a third more.
pub(crate) const ELECTION: u64 = 1000;

/// Entries in one message.
const ENTRIES_MAX: usize = 64;

/// One entry of the log.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) term: u64,
    /// Of the shape of its commands: an older master must not guess.
    pub(crate) version: u32,
    /// Which proposal it is; 0 for a new leader's first word.
    pub(crate) origin: u64,
    pub(crate) commands: Vec<Command>,
}

/// The state as bytes, up to an entry.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) version: u32,
    pub(crate) bytes: Vec<u8>,
}

/// Everything a master keeps on disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct Image {
    term: u64,
    vote: Option<usize>,
    snapshot: Option<Arc<Snapshot>>,
    /// What follows the snapshot, some of which it holds already.
    log: Vec<Arc<Entry>>,
    /// Index and term of the entry before `log`.
    base: (u64, u64),
}

impl Image {
    pub(crate) fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_deref()
    }

    pub(crate) fn last(&self) -> u64 {
        self.base.0 + self.log.len() as u64
    }

    fn term_at(&self, index: u64) -> Option<u64> {
        match index.checked_sub(self.base.0)? {
            0 => Some(self.base.1),
            offset => self.log.get(offset as usize - 1).map(|entry| entry.term),
        }
    }

    pub(crate) fn entry(&self, index: u64) -> Option<&Arc<Entry>> {
        self.log.get((index.checked_sub(self.base.0 + 1)?) as usize)
    }

    fn truncate_after(&mut self, index: u64) {
        self.log.truncate((index - self.base.0) as usize);
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Message {
    Vote {
        term: u64,
        last: (u64, u64),
    },
    VoteReply {
        term: u64,
        is_granted: bool,
    },
    Append {
        term: u64,
        round: u64,
        prev: (u64, u64),
        entries: Vec<Arc<Entry>>,
        commit: u64,
    },
    Install {
        term: u64,
        round: u64,
        snapshot: Arc<Snapshot>,
    },
    /// `matched`: up to where the log is the leader's, or why not: the last index that could be.
    Reply {
        term: u64,
        round: u64,
        matched: Result<u64, u64>,
        /// The newest version that who answers can read.
        knows: u32,
    },
}

#[derive(Debug)]
enum Role {
    Follower,
    Candidate { votes: BTreeSet<usize> },
    Leader { peers: Vec<Peer>, beat_at: u64 },
}

#[derive(Debug, Clone)]
struct Peer {
    next: u64,
    matched: u64,
    /// The newest round it answered.
    round: u64,
    answered_at: u64,
    /// The newest version that it could read then.
    knows: u32,
}

#[derive(Debug)]
pub(crate) struct Raft {
    me: usize,
    count: usize,
    /// The newest version that this master can read.
    knows: u32,
    /// As written; how much of it is on disk is `synced`.
    pub(crate) image: Image,
    /// The image has changed since it was last handed to the disk.
    pub(crate) is_dirty: bool,
    /// The last entry that is on disk here.
    synced: u64,
    role: Role,
    pub(crate) leader: Option<usize>,
    heard_leader_at: Option<u64>,
    pub(crate) commit: u64,
    deadline: u64,
    /// Counts what this leader sends, so that answers tell how fresh they are.
    round: u64,
    out: Vec<(usize, Message)>,
    pub(crate) elections: u64,
}

impl Raft {
    pub(crate) fn new(me: usize, count: usize, knows: u32, image: Image, now: u64, dice: &mut Dice) -> Self {
        let commit = image.snapshot.as_ref().map_or(0, |snapshot| snapshot.index);
        Self {
            me,
            count,
            knows,
            synced: image.last(),
            image,
            is_dirty: false,
            role: Role::Follower,
            leader: None,
            heard_leader_at: None,
            commit,
            deadline: now + dice.range(ELECTION, ELECTION * 4 / 3),
            round: 0,
            out: Vec::new(),
            elections: 0,
        }
    }

    pub(crate) fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader { .. })
    }

    /// Whether an entry of this leader's own term is committed: then it knows what its predecessors committed.
    pub(crate) fn has_committed_in_term(&self) -> bool {
        self.image.term_at(self.commit) == Some(self.image.term)
    }

    /// Whether a majority answered within `span`.
    pub(crate) fn is_heard_by_majority(&self, now: u64, span: u64) -> bool {
        let Role::Leader { peers, .. } = &self.role else { return false };
        let fresh = |(id, peer): (usize, &Peer)| id == self.me || peer.answered_at + span > now;
        peers.iter().enumerate().filter(|(id, peer)| fresh((*id, peer))).count() * 2 > self.count
    }

    /// Begins to ask a majority whether this still is the leader.
    pub(crate) fn ask_round(&mut self, now: u64) -> u64 {
        self.broadcast(now);
        self.round
    }

    pub(crate) fn is_confirmed(&self, round: u64) -> bool {
        let Role::Leader { peers, .. } = &self.role else { return false };
        peers.iter().enumerate().filter(|(id, peer)| *id == self.me || peer.round >= round).count() * 2 > self.count
    }

    /// What every master knows, by what they answered to a round or to one after it; `None` until all have.
    pub(crate) fn known_by_all(&self, round: u64) -> Option<u32> {
        let Role::Leader { peers, .. } = &self.role else { return None };
        let others = || peers.iter().enumerate().filter(|(id, _)| *id != self.me).map(|(_, peer)| peer);
        let have_answered = others().all(|peer| peer.round >= round);
        have_answered.then(|| others().map(|peer| peer.knows).fold(self.knows, u32::min))
    }

    pub(crate) fn wake_at(&self) -> u64 {
        match &self.role {
            Role::Leader { beat_at, .. } => *beat_at,
            _ => self.deadline,
        }
    }

    pub(crate) fn take_out(&mut self) -> Vec<(usize, Message)> {
        std::mem::take(&mut self.out)
    }

    pub(crate) fn wake(&mut self, now: u64, dice: &mut Dice) {
        match self.is_leader() {
            _ if self.wake_at() > now => {}
            true => self.broadcast(now),
            false => self.stand(now, dice),
        }
    }

    fn stand(&mut self, now: u64, dice: &mut Dice) {
        self.image.term += 1;
        self.image.vote = Some(self.me);
        self.is_dirty = true;
        self.leader = None;
        self.elections += 1;
        self.role = Role::Candidate { votes: BTreeSet::from([self.me]) };
        self.deadline = now + dice.range(ELECTION, ELECTION * 4 / 3);
        let last = (self.image.term_at(self.image.last()).expect("the end is there"), self.image.last());
        self.send_to_all(&Message::Vote { term: self.image.term, last });
        self.count_votes(now);
    }

    fn send_to_all(&mut self, message: &Message) {
        let others = (0..self.count).filter(|id| *id != self.me);
        self.out.extend(others.map(|id| (id, message.clone())));
    }

    fn count_votes(&mut self, now: u64) {
        let Role::Candidate { votes } = &self.role else { return };
        if votes.len() * 2 <= self.count {
            return;
        }
        let peer = Peer { next: self.image.last() + 1, matched: 0, round: 0, answered_at: now, knows: 0 };
        self.role = Role::Leader { peers: vec![peer; self.count], beat_at: now };
        self.leader = Some(self.me);
        self.round = 0;
        self.append(Entry { term: 0, version: 0, origin: 0, commands: Vec::new() }, now);
    }

    /// Takes a proposal as leader. Returns its index.
    pub(crate) fn append(&mut self, entry: Entry, now: u64) -> Option<u64> {
        if !self.is_leader() {
            return None;
        }
        self.image.log.push(Arc::new(Entry { term: self.image.term, ..entry }));
        self.is_dirty = true;
        self.broadcast(now);
        Some(self.image.last())
    }

    fn broadcast(&mut self, now: u64) {
        self.round += 1;
        if let Role::Leader { beat_at, .. } = &mut self.role {
            *beat_at = now + HEARTBEAT;
        }
        let me = self.me;
        (0..self.count).filter(|id| *id != me).for_each(|id| self.send_to(id));
    }

    fn send_to(&mut self, id: usize) {
        let Role::Leader { peers, .. } = &mut self.role else { return };
        let (term, round, commit) = (self.image.term, self.round, self.commit);
        let peer = &mut peers[id];
        let prev = peer.next - 1;
        let message = match self.image.term_at(prev) {
            Some(prev_term) => {
                let from = (prev - self.image.base.0) as usize;
                let entries: Vec<_> = self.image.log[from..].iter().take(ENTRIES_MAX).cloned().collect();
                // Taken for received; an answer that says otherwise sets it back.
                peer.next += entries.len() as u64;
                Message::Append { term, round, prev: (prev, prev_term), entries, commit }
            }
            None => {
                let snapshot = self.image.snapshot.clone().expect("what is not in the log is in the snapshot");
                peer.next = snapshot.index + 1;
                Message::Install { term, round, snapshot }
            }
        };
        self.out.push((id, message));
    }

    /// What was written up to here is on disk now.
    pub(crate) fn synced(&mut self, last: u64) {
        // Entries may have been cut off since.
        self.synced = last.min(self.image.last());
        self.advance();
    }

    fn advance(&mut self) {
        let Role::Leader { peers, .. } = &self.role else { return };
        let own = |id: usize, peer: &Peer| if id == self.me { self.synced } else { peer.matched };
        let mut matched: Vec<u64> = peers.iter().enumerate().map(|(id, peer)| own(id, peer)).collect();
        matched.sort_unstable();
        let by_majority = matched[(self.count - 1) / 2];
        if by_majority > self.commit && self.image.term_at(by_majority) == Some(self.image.term) {
            self.commit = by_majority;
        }
    }

    fn follow(&mut self, term: u64, leader: Option<usize>, now: u64, dice: &mut Dice) {
        if term > self.image.term {
            self.image.term = term;
            self.image.vote = None;
            self.is_dirty = true;
        }
        self.role = Role::Follower;
        self.leader = leader;
        self.deadline = now + dice.range(ELECTION, ELECTION * 4 / 3);
        if leader.is_some() {
            self.heard_leader_at = Some(now);
        }
    }

    pub(crate) fn receive(&mut self, from: usize, message: Message, now: u64, dice: &mut Dice) {
        match message {
            Message::Vote { term, last } => {
                // While a leader is heard of, nobody else is elected.
                let has_leader = self.heard_leader_at.is_some_and(|at| at + ELECTION * 2 / 3 > now) || self.is_leader();
                if has_leader && term > self.image.term {
                    return;
                }
                if term > self.image.term {
                    let deadline = self.deadline;
                    self.follow(term, None, now, dice);
                    self.deadline = deadline;
                }
                let own = (self.image.term_at(self.image.last()).expect("the end is there"), self.image.last());
                let is_free = self.image.vote.is_none_or(|vote| vote == from);
                let is_granted = term == self.image.term && is_free && last >= own;
                if is_granted && self.image.vote.is_none() {
                    self.image.vote = Some(from);
                    self.is_dirty = true;
                }
                if is_granted {
                    self.deadline = now + dice.range(ELECTION, ELECTION * 4 / 3);
                }
                self.out.push((from, Message::VoteReply { term: self.image.term, is_granted }));
            }
            Message::VoteReply { term, is_granted } => {
                if term > self.image.term {
                    self.follow(term, None, now, dice);
                } else if term == self.image.term
                    && is_granted
                    && let Role::Candidate { votes } = &mut self.role
                {
                    votes.insert(from);
                    self.count_votes(now);
                }
            }
            Message::Append { term, round, prev, entries, commit } => {
                if term < self.image.term {
                    return self
                        .out
                        .push((from, Message::Reply { term: self.image.term, round, matched: Err(0), knows: self.knows }));
                }
                self.follow(term, Some(from), now, dice);
                let matched = self.take_entries(prev, &entries);
                if let Ok(upto) = matched {
                    self.commit = self.commit.max(commit.min(upto));
                }
                self.out.push((from, Message::Reply { term, round, matched, knows: self.knows }));
            }
            Message::Install { term, round, snapshot } => {
                if term < self.image.term {
                    return self
                        .out
                        .push((from, Message::Reply { term: self.image.term, round, matched: Err(0), knows: self.knows }));
                }
                self.follow(term, Some(from), now, dice);
                let matched = Ok(snapshot.index);
                if snapshot.index > self.commit {
                    if self.image.term_at(snapshot.index) != Some(snapshot.term) {
                        self.image.log.clear();
                        self.image.base = (snapshot.index, snapshot.term);
                    }
                    self.commit = snapshot.index;
                    self.image.snapshot = Some(snapshot);
                    self.is_dirty = true;
                }
                self.out.push((from, Message::Reply { term, round, matched, knows: self.knows }));
            }
            Message::Reply { term, round, matched, knows } => {
                if term > self.image.term {
                    return self.follow(term, None, now, dice);
                }
                let last = self.image.last();
                let Role::Leader { peers, .. } = &mut self.role else { return };
                if term < self.image.term {
                    return;
                }
                let peer = &mut peers[from];
                peer.answered_at = now;
                if round >= peer.round {
                    (peer.round, peer.knows) = (round, knows);
                }
                match matched {
                    Ok(upto) => {
                        peer.matched = peer.matched.max(upto);
                        peer.next = peer.next.max(upto + 1);
                        self.advance();
                    }
                    Err(hint) => {
                        peer.next = (hint + 1).clamp(peer.matched + 1, last + 1);
                        self.send_to(from);
                    }
                }
            }
        }
    }

    fn take_entries(&mut self, prev: (u64, u64), entries: &[Arc<Entry>]) -> Result<u64, u64> {
        let (mut index, prev_term) = prev;
        if index >= self.image.base.0 && self.image.term_at(index) != Some(prev_term) {
            // Never below what is committed: that is the same everywhere.
            return Err(self.image.last().min(index.saturating_sub(1)).max(self.commit));
        }
        for entry in entries {
            index += 1;
            if index <= self.image.base.0 {
                continue;
            }
            match self.image.term_at(index) {
                Some(term) if term == entry.term => {}
                known => {
                    if known.is_some() {
                        self.image.truncate_after(index - 1);
                    }
                    self.image.log.push(entry.clone());
                    self.is_dirty = true;
                }
            }
        }
        Ok(index)
    }

    /// Keeps a snapshot of everything applied, and a little of the log behind it for those who are late.
    pub(crate) fn keep_snapshot(&mut self, snapshot: Snapshot, kept_behind: u64) {
        let base = snapshot.index.saturating_sub(kept_behind).max(self.image.base.0);
        let term = self.image.term_at(base).expect("a snapshot is made of what is in the log");
        self.image.log.drain(..(base - self.image.base.0) as usize);
        self.image.base = (base, term);
        self.image.snapshot = Some(Arc::new(snapshot));
        self.is_dirty = true;
    }

    pub(crate) fn term_of(&self, index: u64) -> u64 {
        self.image.term_at(index).expect("asked of what is in the log")
    }
}
