//! A master: consensus over a disk, and on top of it the real minds of drover: sessions and the leader's.

use crate::agent::ToAgent;
use crate::client::Answered;
use crate::dice::Dice;
use crate::plan::{Ms, Place};
use crate::raft::{Entry, Image, Message, Raft, Snapshot};
use crate::raise::{NEWEST, Raising};
use crate::truth::{no_app_falls_below_its_minimum, what_does_not_run_has_a_reason};
use crate::world::{AGENT_TIMEOUT, DialAnswer, Event, Item, Way, World, note};
use crate::{Mutant, client};
use drover_core::ids::AgentId;
use drover_core::leader::pace::{Leading, Next, REFUSED_PAUSE, Round};
use drover_core::leader::session::{Answer, Heard, Say, Session};
use drover_core::state::{Applied, ClusterState, Command, Refusal};
use drover_core::time::Millis;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Turns a master may take over one thing that happened.
const TURNS_MAX: u32 = 10_000;

/// How often an agent shall be heard of.
pub(crate) const HEARTBEAT: Millis = Millis::from_secs(3);

/// How long a proposer waits.
const PATIENCE: Ms = 10_000;

/// A majority that was silent for so long does not follow any more; also how long a confirmation may take.
pub(crate) const SILENCE: Ms = 2 * crate::raft::ELECTION;

/// Entries between two snapshots, and how many stay behind one.
const SNAPSHOT_EVERY: u64 = 80;
const KEPT_BEHIND: u64 = 20;

/// How long a master that ended by itself stays down.
const RESTART: Ms = 2_000;

/// A master's machine.
#[derive(Debug)]
pub(crate) struct Master {
    pub(crate) number: usize,
    /// What is on its disk.
    disk: Image,
    /// What is on its way there, and which write that is.
    syncing: Option<(u64, Image)>,
    pub(crate) proc: Option<Box<Proc>>,
    /// Counts its processes.
    pub(crate) life: u64,
    pub(crate) is_powered: bool,
    pub(crate) offset: i64,
    pub(crate) paused_until: Ms,
    /// Before, it does not notice that it leads no more.
    pub(crate) watch_again_at: Ms,
    pub(crate) disk_fails_until: Ms,
    pub(crate) slow: (Ms, Ms),
    /// The newest version that its drover can read.
    pub(crate) knows: u32,
    /// When it was last replaced by one that knows less.
    pub(crate) went_back_at: Option<Ms>,
}

/// A master's process.
#[derive(Debug)]
pub(crate) struct Proc {
    pub(crate) raft: Raft,
    pub(crate) state: ClusterState,
    pub(crate) applied: u64,
    began: Ms,
    /// Messages that wait for a write.
    held: VecDeque<(u64, usize, Message)>,
    writes: u64,
    synced: u64,
    sessions: BTreeMap<u64, Held>,
    /// When each agent was last heard of.
    heard: BTreeMap<AgentId, Duration>,
    heard_of: u64,
    /// Confirmed by a majority.
    pub(crate) leads: bool,
    confirming: Option<(u64, Ms)>,
    confirm_again_at: Ms,
    phase: Phase,
    waiting: BTreeMap<u64, (Ms, Waiter)>,
    reads: Vec<Read>,
    pub(crate) raising: Vec<Raising>,
    wake_at: Option<Ms>,
}

#[derive(Debug)]
struct Held {
    mind: Session,
    inbox: VecDeque<Heard>,
    is_waiting: bool,
}

#[derive(Debug)]
enum Phase {
    Idle,
    Proposing { leading: Leading, round: Round, seen: (u64, u64) },
    Resting { leading: Leading, until: Ms, seen: (u64, u64) },
}

/// Who proposed something.
#[derive(Debug)]
pub(crate) enum Waiter {
    Leader,
    Session(u64),
    Client(client::Errand),
}

/// What became of a proposal.
#[derive(Debug)]
pub(crate) enum Outcome {
    Applied(u64, Vec<Result<(), Refusal>>),
    NotLeader,
    Unavailable,
}

#[derive(Debug)]
struct Read {
    round: u64,
    /// What was acknowledged to anybody before it was asked.
    acknowledged: u64,
    until: Ms,
}

impl Master {
    pub(crate) fn new(number: usize) -> Self {
        Self {
            number,
            disk: Image::default(),
            syncing: None,
            proc: None,
            life: 0,
            is_powered: false,
            offset: 0,
            paused_until: 0,
            watch_again_at: 0,
            disk_fails_until: 0,
            slow: (0, 0),
            knows: NEWEST - 1,
            went_back_at: None,
        }
    }
}

impl Proc {
    fn new(number: usize, count: usize, knows: u32, image: Image, now: Ms, dice: &mut Dice) -> Self {
        let (state, applied) = match image.snapshot() {
            Some(snapshot) => (decode(snapshot), snapshot.index),
            None => (ClusterState::default(), 0),
        };
        Self {
            raft: Raft::new(number, count, knows, image, now, dice),
            state,
            applied,
            began: now,
            held: VecDeque::new(),
            writes: 0,
            synced: 0,
            sessions: BTreeMap::new(),
            heard: BTreeMap::new(),
            heard_of: 0,
            leads: false,
            confirming: None,
            confirm_again_at: 0,
            phase: Phase::Idle,
            waiting: BTreeMap::new(),
            reads: Vec::new(),
            raising: Vec::new(),
            wake_at: None,
        }
    }
}

fn decode(snapshot: &Snapshot) -> ClusterState {
    let mut state: ClusterState = serde_json::from_slice(&snapshot.bytes).expect("a snapshot is whole");
    state.rebuild_indexes();
    state
}

impl World {
    pub(crate) fn begin_master(&mut self, number: usize, life: u64) {
        let count = self.masters.len();
        let master = &mut self.masters[number];
        if master.proc.is_some() || master.life != life {
            return;
        }
        master.is_powered = true;
        if master.disk_fails_until > self.now {
            return self.after(RESTART, Event::Begin { place: Place::Master(number), life });
        }
        if master.disk.snapshot().is_some_and(|snapshot| snapshot.version > master.knows) {
            return;
        }
        master.life += 1;
        let proc = Proc::new(number, count, master.knows, master.disk.clone(), self.now, &mut self.dice);
        master.proc = Some(Box::new(proc));
        note!(self, "master {number} begins");
        self.settle_master(number);
    }

    /// The process ends, and begins again after `down`.
    pub(crate) fn end_master(&mut self, number: usize, is_power_cut: bool, down: Ms) {
        let choice = self.dice.range(0, 2);
        let master = &mut self.masters[number];
        if let Some(proc) = master.proc.take() {
            // What was on its way to the disk is there or is not; nobody was told.
            let syncing = master.syncing.take().map(|(_, image)| image);
            match choice {
                0 => {}
                1 => master.disk = syncing.unwrap_or_else(|| master.disk.clone()),
                _ => master.disk = proc.raft.image,
            }
            for id in proc.sessions.into_keys() {
                self.close(id, Way::ToMaster, !is_power_cut);
            }
            let errands = proc.waiting.into_values().filter_map(|(_, waiter)| match waiter {
                Waiter::Client(errand) => Some(errand),
                Waiter::Leader | Waiter::Session(_) => None,
            });
            for errand in errands.chain(proc.raising.into_iter().map(|raising| raising.errand)) {
                self.errand_answered(number, errand, Answered::Unavailable);
            }
        }
        let master = &mut self.masters[number];
        // Whatever is for the process that was finds none.
        master.life += 1;
        master.is_powered &= !is_power_cut;
        let life = master.life;
        self.after(down, Event::Begin { place: Place::Master(number), life });
    }

    pub(crate) fn wake_master(&mut self, number: usize) {
        let Some(proc) = &mut self.masters[number].proc else { return };
        if proc.wake_at.is_none_or(|at| at <= self.now) {
            proc.wake_at = None;
        }
        proc.raft.wake(self.now, &mut self.dice);
        self.settle_master(number);
    }

    pub(crate) fn receive_raft(&mut self, from: usize, to: usize, message: Message) {
        let knows = self.masters[to].knows;
        if let Message::Append { entries, .. } = &message
            && entries.iter().any(|entry| entry.version > knows)
            && self.masters[to].proc.is_some()
        {
            // It might look as if it could be read, and be kept with less in it.
            return self.refuse_newer(to);
        }
        let Some(proc) = &mut self.masters[to].proc else { return };
        proc.raft.receive(from, message, self.now, &mut self.dice);
        self.settle_master(to);
    }

    pub(crate) fn synced(&mut self, number: usize, life: u64, write: u64) {
        let master = &mut self.masters[number];
        if master.life != life {
            return;
        }
        let Some((syncing, image)) = master.syncing.take() else { return };
        if master.disk_fails_until > self.now {
            note!(self, "master {number} ends: its disk fails");
            self.coverage.disk_ends += 1;
            return self.end_master(number, false, RESTART);
        }
        debug_assert_eq!(syncing, write, "one write at a time");
        let last = image.last();
        master.disk = image;
        let proc = master.proc.as_mut().expect("its life is that of the process");
        proc.synced = write;
        proc.raft.synced(last);
        self.settle_master(number);
    }

    // Sessions.

    pub(crate) fn receive_dial(&mut self, id: u64) {
        let Some(conn) = self.conns.get(&id) else { return };
        let (number, agent) = (conn.master, conn.agent);
        let now = self.masters[number].proc.as_ref().map(|proc| self.clock(Place::Master(number), proc.began));
        let (Some(proc), Some(now)) = (&mut self.masters[number].proc, now) else {
            // A machine without power does not even refuse.
            if self.masters[number].is_powered {
                self.answer_dial(id, DialAnswer::Refused);
            }
            return;
        };
        if !proc.leads {
            let leader = proc.raft.leader.filter(|leader| *leader != number);
            return self.answer_dial(id, DialAnswer::NotLeading(leader));
        }
        let machine = &self.agents[agent];
        let mind = Session::new(machine.id(), HEARTBEAT, now);
        // The greeting travels with the request.
        let inbox = VecDeque::from([Heard::Hello(Box::new(machine.info()))]);
        proc.sessions.insert(id, Held { mind, inbox, is_waiting: false });
        self.coverage.sessions += 1;
        self.answer_dial(id, DialAnswer::Accepted);
        self.settle_master(number);
    }

    pub(crate) fn master_hears(&mut self, id: u64, heard: Heard) {
        let Some(number) = self.conns.get(&id).map(|conn| conn.master) else { return };
        let Some(proc) = &mut self.masters[number].proc else { return };
        let Some(held) = proc.sessions.get_mut(&id) else { return };
        held.inbox.push_back(heard);
        self.settle_master(number);
    }

    pub(crate) fn session_closed(&mut self, id: u64) {
        let Some(number) = self.conns.get(&id).map(|conn| conn.master) else { return };
        self.end_session(number, id, false);
    }

    fn end_session(&mut self, number: usize, id: u64, is_told: bool) {
        if let Some(proc) = &mut self.masters[number].proc {
            proc.sessions.remove(&id);
        }
        self.close(id, Way::ToMaster, is_told);
    }

    fn say(&mut self, id: u64, say: Say) {
        if let Say::Acknowledge(statuses) = &say {
            let verdict = self.truth.statuses_acknowledged(statuses);
            self.judge(verdict);
        }
        let said = match say {
            Say::Welcome => ToAgent::Welcome { heartbeat: HEARTBEAT },
            Say::Ping => ToAgent::Ping,
            Say::Assign(assignment) => ToAgent::Assign(assignment),
            Say::Acknowledge(statuses) => ToAgent::Acknowledge(statuses),
        };
        self.send(id, Way::ToAgent, Item::Said(said));
    }

    /// Takes in what waits in a session's inbox, until something has to be proposed.
    fn serve_session(&mut self, number: usize, id: u64) -> bool {
        let now = self.master_now(number);
        let Some(proc) = &mut self.masters[number].proc else { return false };
        let Some(held) = proc.sessions.get_mut(&id).filter(|held| !held.is_waiting) else { return false };
        let Some(heard) = held.inbox.pop_front() else { return false };
        if let Heard::Hello(_) = &heard {
            proc.heard.insert(held.mind.agent().clone(), now.steady);
        } else if let Some(at) = proc.heard.get_mut(held.mind.agent()) {
            *at = now.steady;
        }
        match held.mind.hear(heard, &proc.state, now) {
            Ok(Answer::Say(says)) => self.say_all(number, id, says),
            Ok(Answer::Propose(commands)) => {
                held.is_waiting = true;
                if self.mutant == Some(Mutant::AcknowledgesEarly)
                    && let Ok(says) = held.mind.proposed(true, &proc.state)
                {
                    self.say_all(number, id, says);
                }
                self.propose(number, commands, Waiter::Session(id));
            }
            Err(_ended) => self.end_session(number, id, true),
        }
        true
    }

    fn say_all(&mut self, number: usize, id: u64, says: Vec<Say>) {
        for say in says {
            if say == Say::Welcome
                && let Some(proc) = &mut self.masters[number].proc
            {
                proc.heard_of += 1;
            }
            self.say(id, say);
        }
    }

    // Proposals.

    pub(crate) fn propose(&mut self, number: usize, commands: Vec<Command>, waiter: Waiter) {
        self.proposals += 1;
        let origin = self.proposals;
        let (now, knows) = (self.now, self.masters[number].knows);
        let Some(proc) = &mut self.masters[number].proc else { return };
        let version = if self.mutant == Some(Mutant::WritesNewest) { knows } else { proc.state.version.0 };
        if proc.raft.is_leader() {
            let verdict = self.truth.is_written(version);
            self.judge(verdict);
        }
        let Some(proc) = &mut self.masters[number].proc else { return };
        match proc.raft.append(Entry { term: 0, version, origin, commands }, now) {
            Some(_) => drop(proc.waiting.insert(origin, (now + PATIENCE, waiter))),
            None => self.resolve(number, origin, waiter, Outcome::NotLeader),
        }
    }

    fn resolve(&mut self, number: usize, origin: u64, waiter: Waiter, outcome: Outcome) {
        if let Outcome::Applied(index, _) = &outcome {
            let verdict = self.truth.acknowledge(*index, origin);
            self.judge(verdict);
        }
        match waiter {
            Waiter::Leader => self.leader_resolved(number, &outcome),
            Waiter::Session(id) => {
                let is_applied = matches!(&outcome, Outcome::Applied(_, results) if results.iter().all(Result::is_ok));
                let Some(proc) = &mut self.masters[number].proc else { return };
                let Some(held) = proc.sessions.get_mut(&id) else { return };
                held.is_waiting = false;
                match held.mind.proposed(is_applied, &proc.state) {
                    Ok(says) => self.say_all(number, id, says),
                    Err(_ended) => self.end_session(number, id, true),
                }
            }
            Waiter::Client(errand) => {
                let answered = match outcome {
                    Outcome::Applied(index, results) => Answered::Decided(index, results),
                    Outcome::NotLeader => Answered::NotLeader,
                    Outcome::Unavailable => Answered::Unavailable,
                };
                self.errand_answered(number, errand, answered);
            }
        }
    }

    /// A client wants to know everything that was acknowledged.
    pub(crate) fn read(&mut self, number: usize) {
        let (now, acknowledged) = (self.now, self.truth.newest_acknowledged());
        let Some(proc) = &mut self.masters[number].proc else { return };
        let round = proc.raft.ask_round(now);
        proc.reads.push(Read { round, acknowledged, until: now + SILENCE });
    }

    // The leader.

    fn leader_resolved(&mut self, number: usize, outcome: &Outcome) {
        let now = self.master_now(number);
        let Some(proc) = &mut self.masters[number].proc else { return };
        let Phase::Proposing { leading, round, seen } = std::mem::replace(&mut proc.phase, Phase::Idle) else { return };
        let honoured = match outcome {
            Outcome::Applied(_, results) => results.iter().filter(|result| result.is_ok()).count(),
            Outcome::NotLeader | Outcome::Unavailable => 0,
        };
        proc.phase = match round.concluded(honoured, now) {
            Next::Decide => Phase::Resting { leading, until: self.now, seen },
            Next::Rest(rest) => Phase::Resting { leading, until: self.now + millis(rest), seen },
        };
    }

    /// One step of the leader's loop. Returns whether it did anything.
    fn lead(&mut self, number: usize) -> bool {
        let now = self.master_now(number);
        let Some(proc) = &mut self.masters[number].proc else { return false };
        let seen = (proc.applied, proc.heard_of);
        let mut leading = match std::mem::replace(&mut proc.phase, Phase::Idle) {
            Phase::Idle if proc.leads => Leading::new(Millis(AGENT_TIMEOUT), now),
            Phase::Idle => return false,
            phase @ Phase::Proposing { .. } => {
                proc.phase = phase;
                return false;
            }
            Phase::Resting { .. } if !proc.leads => {
                proc.heard.clear();
                return true;
            }
            Phase::Resting { leading, until, seen: before } => {
                if before == seen && until > self.now {
                    proc.phase = Phase::Resting { leading, until, seen: before };
                    return false;
                }
                leading
            }
        };
        let ids = &mut self.ids;
        let mut new_id = || {
            *ids += 1;
            format!("i{ids}")
        };
        self.coverage.decisions += 1;
        let mut round = leading.decide(&proc.state, proc.heard.clone(), now, &mut new_id);
        let verdict = what_does_not_run_has_a_reason(&proc.state, &round.decision)
            .and_then(|()| no_app_falls_below_its_minimum(&proc.state, &round.decision));
        let commands = round.take_commands();
        if commands.is_empty() {
            let Next::Rest(rest) = round.concluded(0, now) else { unreachable!("nothing was honoured") };
            proc.phase = Phase::Resting { leading, until: self.now + millis(rest), seen };
            self.judge(verdict);
            return true;
        }
        if self.trace.is_some() {
            let told: Vec<String> = commands.iter().map(describe).collect();
            note!(self, "master {number} proposes {}", told.join(", "));
        }
        let proc = self.masters[number].proc.as_mut().expect("it was just there");
        proc.phase = Phase::Proposing { leading, round, seen };
        self.judge(verdict);
        self.propose(number, commands, Waiter::Leader);
        true
    }

    /// Whether this master leads, by the word of a majority.
    fn keep_leadership(&mut self, number: usize) -> bool {
        let now = self.now;
        let may_notice = self.masters[number].watch_again_at <= now;
        let proc = self.masters[number].proc.as_mut().expect("it is settled");
        if proc.leads && !may_notice {
            return false;
        }
        if proc.leads {
            let stays = proc.raft.is_leader() && proc.raft.is_heard_by_majority(now, SILENCE);
            let clings = self.mutant == Some(Mutant::ClingsToSessions) && !stays;
            proc.leads = stays || clings;
            if clings {
                return false;
            }
            if !stays {
                note!(self, "master {number} leads no more");
                let proc = self.masters[number].proc.as_mut().expect("it is settled");
                let ids: Vec<u64> = proc.sessions.keys().copied().collect();
                ids.into_iter().for_each(|id| self.end_session(number, id, true));
            }
            return !stays;
        }
        if !proc.raft.is_leader() {
            proc.confirming = None;
            return false;
        }
        match proc.confirming {
            None if proc.confirm_again_at <= now => {
                proc.confirming = Some((proc.raft.ask_round(now), now + SILENCE));
                true
            }
            None => false,
            Some((round, _))
                if proc.raft.is_confirmed(round) && proc.raft.has_committed_in_term() && proc.applied >= proc.raft.commit =>
            {
                proc.confirming = None;
                proc.leads = true;
                self.coverage.leaders += 1;
                note!(self, "master {number} leads");
                true
            }
            Some((_, until)) if until <= now => {
                proc.confirming = None;
                proc.confirm_again_at = now + millis(REFUSED_PAUSE);
                false
            }
            Some(_) => false,
        }
    }

    // All of it.

    pub(crate) fn master_now(&self, number: usize) -> drover_core::time::Now {
        let began = self.masters[number].proc.as_ref().map_or(self.now, |proc| proc.began);
        self.clock(Place::Master(number), began)
    }

    /// Applies what is committed. Returns whether anything was.
    fn apply(&mut self, number: usize) -> bool {
        let mut any = false;
        loop {
            let knows = self.masters[number].knows;
            let Some(proc) = &mut self.masters[number].proc else { return any };
            if proc.applied >= proc.raft.commit {
                return any;
            }
            any = true;
            let index = proc.applied + 1;
            let Some(entry) = proc.raft.image.entry(index).cloned() else {
                let snapshot = proc.raft.image.snapshot().expect("what is committed is in the log or in the snapshot");
                if snapshot.version > knows {
                    self.refuse_newer(number);
                    return any;
                }
                proc.state = decode(snapshot);
                proc.applied = snapshot.index;
                self.coverage.snapshots_installed += 1;
                let (index, state) = (proc.applied, &proc.state);
                let verdict = self.truth.is_the_state_at(index, state);
                self.judge(verdict);
                continue;
            };
            if entry.version.max(proc.state.version_after(&entry.commands).0) > knows {
                self.refuse_newer(number);
                return any;
            }
            let results: Vec<Applied> = entry.commands.iter().map(|command| proc.state.apply(command)).collect();
            proc.applied = index;
            let outcome: Vec<Result<(), Refusal>> = results.iter().map(|applied| applied.result.clone()).collect();
            let waiter = proc.waiting.remove(&entry.origin);
            let verdict = self.truth.applied(index, &entry, results, &proc.state);
            self.judge(verdict);
            if let Some((_, waiter)) = waiter {
                self.resolve(number, entry.origin, waiter, Outcome::Applied(index, outcome));
            }
            self.keep_snapshot(number);
        }
    }

    fn refuse_newer(&mut self, number: usize) {
        note!(self, "master {number} ends: what comes is of a newer version");
        self.coverage.refused_newer += 1;
        self.end_master(number, false, RESTART);
    }

    fn keep_snapshot(&mut self, number: usize) {
        let proc = self.masters[number].proc.as_mut().expect("it applies");
        let before = proc.raft.image.snapshot().map_or(0, |snapshot| snapshot.index);
        if proc.applied >= before + SNAPSHOT_EVERY {
            let bytes = serde_json::to_vec(&proc.state).expect("the state is plain data");
            let (index, term, version) = (proc.applied, proc.raft.term_of(proc.applied), proc.state.version.0);
            proc.raft.keep_snapshot(Snapshot { index, term, version, bytes }, KEPT_BEHIND);
            self.coverage.snapshots += 1;
        }
    }

    /// Carries everything that follows from what just happened to a master.
    pub(crate) fn settle_master(&mut self, number: usize) {
        let mut turns = 0;
        loop {
            let mut any = self.apply(number);
            if self.masters[number].proc.is_none() {
                return;
            }
            any |= self.keep_leadership(number);
            any |= self.give_up_waiting(number);
            any |= self.finish_reads(number);
            any |= self.finish_raising(number);
            if self.masters[number].proc.is_none() {
                return;
            }
            let proc = self.masters[number].proc.as_ref().expect("it was just there");
            let ids: Vec<u64> = proc.sessions.keys().copied().collect();
            for id in ids {
                while self.serve_session(number, id) {
                    any = true;
                }
                self.tend_session(number, id);
            }
            any |= self.lead(number);
            turns += 1;
            if turns == TURNS_MAX {
                self.judge(Err(("a master comes to rest", format!("master {number} turned {turns} times in no time"))));
            }
            if !any || self.failure.is_some() {
                break;
            }
        }
        self.write(number);
        self.schedule_master(number);
    }

    /// What time and the log ask of a session.
    fn tend_session(&mut self, number: usize, id: u64) {
        let now = self.master_now(number);
        let Some(proc) = &mut self.masters[number].proc else { return };
        let Some(held) = proc.sessions.get_mut(&id).filter(|held| !held.is_waiting) else { return };
        let assignment = held.mind.applied(&proc.state);
        let due = if held.mind.due_at() <= now.steady { held.mind.due(now) } else { Ok(None) };
        if let Some(say) = assignment {
            self.say(id, say);
        }
        match due {
            Ok(Some(say)) => self.say(id, say),
            Ok(None) => {}
            Err(_ended) => self.end_session(number, id, true),
        }
    }

    /// Proposals that took too long, or were made by a leader that leads no more, may or may not happen.
    fn give_up_waiting(&mut self, number: usize) -> bool {
        let now = self.now;
        let proc = self.masters[number].proc.as_mut().expect("it is settled");
        let leads = proc.raft.is_leader();
        let over = proc.waiting.iter().filter(|(_, (until, _))| !leads || *until <= now).map(|(origin, _)| *origin);
        let over: Vec<u64> = over.collect();
        for origin in &over {
            let Some(proc) = &mut self.masters[number].proc else { break };
            if let Some((_, waiter)) = proc.waiting.remove(origin) {
                self.resolve(number, *origin, waiter, Outcome::Unavailable);
            }
        }
        !over.is_empty()
    }

    fn finish_reads(&mut self, number: usize) -> bool {
        let now = self.now;
        let proc = self.masters[number].proc.as_mut().expect("it is settled");
        let knows = proc.raft.has_committed_in_term() && proc.applied >= proc.raft.commit;
        let mut verdict = Ok(());
        proc.reads.retain(|read| {
            let is_confirmed = knows && proc.raft.is_confirmed(read.round);
            if is_confirmed {
                self.coverage.reads += 1;
                if proc.applied < read.acknowledged {
                    let seen = format!("master {number} is at {}, {} was acknowledged", proc.applied, read.acknowledged);
                    verdict = Err(("a confirmed leader knows what was acknowledged", seen));
                }
            }
            !is_confirmed && read.until > now && proc.raft.is_leader()
        });
        self.judge(verdict);
        false
    }

    /// Begins to write what is to be written, and lets go what waits for nothing.
    fn write(&mut self, number: usize) {
        let (sync, until) = self.masters[number].slow;
        let sync = if until > self.now { sync } else { self.dice.range(1, 8) };
        let master = &mut self.masters[number];
        let proc = master.proc.as_mut().expect("it is settled");
        if std::mem::take(&mut proc.raft.is_dirty) {
            proc.writes += 1;
        }
        let writes = proc.writes;
        proc.held.extend(proc.raft.take_out().into_iter().map(|(to, message)| (writes, to, message)));
        let is_lax = self.mutant == Some(Mutant::VotesUnsynced);
        let mut free = Vec::new();
        while proc.held.front().is_some_and(|(needed, _, _)| *needed <= proc.synced || is_lax) {
            free.extend(proc.held.pop_front().map(|(_, to, message)| (to, message)));
        }
        if master.syncing.is_none() && proc.synced < writes {
            master.syncing = Some((writes, proc.raft.image.clone()));
            let life = master.life;
            self.after(sync, Event::Synced { master: number, life, number: writes });
        }
        for (to, message) in free {
            self.send_raft(number, to, message);
        }
    }

    fn schedule_master(&mut self, number: usize) {
        let place = Place::Master(number);
        let proc = self.masters[number].proc.as_ref().expect("it is settled");
        let mut at = proc.raft.wake_at();
        let sessions = proc.sessions.values().filter(|held| !held.is_waiting);
        at = sessions.map(|held| proc.began + millis(held.mind.due_at())).fold(at, Ms::min);
        at = proc.waiting.values().map(|(until, _)| *until).fold(at, Ms::min);
        if let Some((_, until)) = proc.confirming {
            at = at.min(until);
        }
        at = proc.raising.iter().map(|raising| raising.until).fold(at, Ms::min);
        if let Phase::Resting { until, .. } = &proc.phase {
            at = at.min(*until);
        }
        if proc.raft.is_leader() {
            // What a majority's silence and a failed confirmation ask for is looked at with each heartbeat.
            at = at.min(proc.raft.wake_at());
        }
        let at = at.max(self.now + 1);
        let proc = self.masters[number].proc.as_mut().expect("it is settled");
        if proc.wake_at.is_none_or(|known| known > at) {
            proc.wake_at = Some(at);
            self.at(at, Event::Wake(place));
        }
    }

    /// The master that leads, if exactly one does.
    pub(crate) fn leader(&self) -> Option<&Proc> {
        let mut leading = self.masters.iter().filter_map(|master| master.proc.as_deref()).filter(|proc| proc.leads);
        let leader = leading.next();
        leader.filter(|_| leading.next().is_none())
    }
}

/// Whole milliseconds, never too early.
pub(crate) fn millis(span: Duration) -> Ms {
    u64::try_from(span.as_micros().div_ceil(1000)).expect("runs are short")
}

/// One line for the trace.
pub(crate) fn describe(command: &Command) -> String {
    match command {
        Command::LaunchTask { launch, .. } => format!("launch {} on {}", launch.task, launch.agent),
        Command::KillTask { task, why, .. } => format!("kill {task} ({why})"),
        Command::ExpungeTask { task, .. } => format!("expunge {task}"),
        Command::MarkAgentUnreachable { agent, .. } => format!("{agent} is unreachable"),
        Command::AdmitAgent { info, .. } => format!("admit {}", info.id),
        Command::AdvanceDeployment { id, from_step, .. } => format!("advance {id} from {from_step}"),
        Command::StartRun { run, .. } => format!("start run {}", run.id),
        Command::RetryRun { run, attempt, .. } => format!("retry {run} #{attempt}"),
        Command::FinishRun { run, outcome, .. } => format!("finish {run}: {outcome:?}"),
        Command::RecordStatus { status, .. } => format!("{} is {:?} #{}", status.task, status.state, status.seq),
        Command::ChangeApps { changes, .. } => format!("change {} apps", changes.len()),
        Command::PutJob { job, .. } => format!("put job {}", job.name),
        other => format!("{other:?}").chars().take(60).collect(),
    }
}

impl std::fmt::Display for Master {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.proc {
            Some(proc) => write!(f, "master {}: applied {}, leads {}", self.number, proc.applied, proc.leads),
            None => write!(f, "master {}: down", self.number),
        }
    }
}
