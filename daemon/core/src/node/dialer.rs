//! How an agent finds the leader and notices that it has lost it.

use crate::time::Millis;
use std::collections::VecDeque;
use std::time::Duration;

/// How long a master may take to answer at all: little at first, because one that lost its power takes for ever and the next
/// one may lead; more with every round, because a loaded one takes long.
const ANSWER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// First and longest wait between two rounds over all masters…
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// …and the longest while an election is likely to be under way, which is so long after a leader was lost.
const RETRY_ELECTION: (Duration, Duration) = (Duration::from_millis(800), Duration::from_secs(15));

/// Until the leader has said otherwise.
const HEARTBEAT_DEFAULT: Millis = Millis::from_secs(3);

/// A leader that is silent for so many heartbeats is given up.
const SILENT_HEARTBEATS: u32 = 3;

/// Chooses whom to ask. One round asks every master once; one that names the leader sends the agent there next.
#[derive(Debug)]
pub struct Dialer {
    masters: Vec<String>,
    /// Still to be asked in this round.
    candidates: VecDeque<String>,
    asked: Vec<String>,
    was_connected: bool,
    wait: Duration,
    patience: Duration,
    /// The leader lost last, and when.
    lost: Option<(String, Duration)>,
}

/// What to do while nobody is talked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Ask this master, for so long.
    Dial {
        /// Its address.
        master: String,
        /// Until its answer.
        patience: Duration,
    },
    /// Wait before the next round.
    Wait(Duration),
}

/// How it went with a master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Left {
    /// It does not lead; it may know who does.
    NotLeading(Option<String>),
    /// It did not answer, or not as it should.
    Failed,
    /// It led, and is gone.
    Lost,
}

impl Dialer {
    /// Knows these masters, and begins a round.
    pub fn new(masters: Vec<String>) -> Self {
        Self {
            candidates: masters.iter().cloned().collect(),
            masters,
            asked: Vec::new(),
            was_connected: false,
            wait: RETRY.0,
            patience: ANSWER.0,
            lost: None,
        }
    }

    /// What to do next. `dice`, any number, spreads the waits, so that agents that lost the same leader do not all come back at
    /// once.
    #[must_use]
    pub fn next(&mut self, now: Duration, dice: u32) -> Next {
        while let Some(master) = self.candidates.pop_front() {
            if !self.asked.contains(&master) {
                self.asked.push(master.clone());
                return Next::Dial { master, patience: self.patience };
            }
        }
        let is_election = self.lost.as_ref().is_some_and(|(_, at)| now.saturating_sub(*at) < RETRY_ELECTION.1);
        let longest = if is_election { RETRY_ELECTION.0 } else { RETRY.1 };
        (self.wait, self.patience) = match self.was_connected {
            true => (RETRY.0, ANSWER.0),
            false => ((self.wait * 2).min(longest), (self.patience * 2).min(ANSWER.1)),
        };
        self.candidates = self.masters.iter().cloned().collect();
        self.asked.clear();
        self.was_connected = false;
        Next::Wait(self.wait / 2 + self.wait * (dice % 1000) / 2000)
    }

    /// The master asked last leads, and knows these masters. It comes first from now on, then theirs, then those known before.
    pub fn welcomed(&mut self, leader: &str, masters: Vec<String>) {
        let mut known = vec![leader.to_owned()];
        for master in masters.into_iter().chain(std::mem::take(&mut self.masters)) {
            if !known.contains(&master) {
                known.push(master);
            }
        }
        self.masters = known;
    }

    /// `master` was left.
    pub fn left(&mut self, master: &str, how: Left, now: Duration) {
        match how {
            // A follower may not have noticed yet that the leader is gone; its turn comes last.
            Left::NotLeading(Some(leader)) if self.lost.as_ref().is_some_and(|(lost, _)| *lost == leader) => {}
            Left::NotLeading(Some(leader)) if !self.asked.contains(&leader) => self.candidates.push_front(leader),
            Left::NotLeading(_) | Left::Failed => {}
            Left::Lost => {
                // What led a moment ago is the least likely to lead now.
                self.masters.retain(|known| known != master);
                self.masters.push(master.to_owned());
                self.lost = Some((master.to_owned(), now));
                self.was_connected = true;
                self.candidates.clear();
            }
        }
    }
}

/// One conversation with a master: when to say something, and when silence has lasted too long.
#[derive(Debug)]
pub struct Conversation {
    heartbeat: Duration,
    heard_at: Duration,
    beat_at: Duration,
}

/// What a conversation's clock asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Say that the agent is there.
    Heartbeat,
    /// The master said nothing for so long: leave it.
    Silent(Duration),
}

impl Conversation {
    /// The master has answered.
    pub fn new(now: Duration) -> Self {
        Self { heartbeat: HEARTBEAT_DEFAULT.to_duration(), heard_at: now, beat_at: now }
    }

    /// It said something.
    pub fn heard(&mut self, now: Duration) {
        self.heard_at = now;
    }

    /// It leads, and wants to hear from the agent so often.
    pub fn welcomed(&mut self, heartbeat: Millis, now: Duration) {
        self.heartbeat = heartbeat.to_duration().max(Duration::from_millis(1));
        self.beat_at = now;
    }

    /// When [`Conversation::due`] is wanted.
    pub fn due_at(&self) -> Duration {
        self.beat_at.min(self.heard_at + self.silence())
    }

    /// What is due, if anything is.
    pub fn due(&mut self, now: Duration) -> Option<Due> {
        if now >= self.heard_at + self.silence() {
            return Some(Due::Silent(self.silence()));
        }
        (now >= self.beat_at).then(|| {
            self.beat_at = now + self.heartbeat;
            Due::Heartbeat
        })
    }

    fn silence(&self) -> Duration {
        self.heartbeat * SILENT_HEARTBEATS
    }
}
