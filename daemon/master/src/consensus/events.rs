//! What happened lately, for those who follow: the newest events with the index of the entry that caused them.
//!
//! A follower holds a cursor into a bounded ring rather than a queue of its own, so that a slow one costs
//! nothing. One that falls off the ring is told so, and has to look at the state instead.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use drover_core::event::Event;
use tokio::sync::watch;

/// The events of one log entry. Resuming after an index never cuts an entry in two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The entry's index in the log, the same on every master.
    pub index: u64,
    /// In the order in which they happened; never empty.
    pub events: Vec<Event>,
}

/// The events that a follower asks for are not kept any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("events up to {oldest} are not kept any more: read the state, and follow from {newest}")]
pub struct Gap {
    /// Events of entries up to here are gone.
    pub oldest: u64,
    /// The newest entry applied.
    pub newest: u64,
}

/// The ring; clones share it.
#[derive(Debug, Clone)]
pub struct EventLog {
    ring: Arc<Mutex<Ring>>,
    newest: watch::Sender<u64>,
}

#[derive(Debug)]
struct Ring {
    entries: VecDeque<Arc<Published>>,
    events: usize,
    events_max: usize,
    /// Events of entries up to here are not in the ring.
    gone: u64,
    newest: u64,
}

impl EventLog {
    /// An empty ring for at most so many events, of a state that begins at `index`.
    pub(super) fn new(events_max: usize, index: u64) -> Self {
        let ring = Ring { entries: VecDeque::new(), events: 0, events_max, gone: index, newest: index };
        Self { ring: Arc::new(Mutex::new(ring)), newest: watch::Sender::new(index) }
    }

    /// Adds what an entry did. Called for every entry, in order.
    pub(super) fn publish(&self, index: u64, events: Vec<Event>) {
        let mut ring = self.ring.lock().expect("nothing panics while it holds the ring");
        ring.newest = index;
        if events.is_empty() {
            return;
        }
        ring.events += events.len();
        ring.entries.push_back(Arc::new(Published { index, events }));
        while ring.events > ring.events_max {
            let Some(oldest) = ring.entries.pop_front() else { break };
            ring.events -= oldest.events.len();
            ring.gone = oldest.index;
        }
        drop(ring);
        self.newest.send_replace(index);
    }

    /// Begins anew behind an index: what led there was never told.
    pub(super) fn skip_to(&self, index: u64) {
        let mut ring = self.ring.lock().expect("nothing panics while it holds the ring");
        ring.entries.clear();
        (ring.events, ring.gone, ring.newest) = (0, index, index);
        drop(ring);
        self.newest.send_replace(index);
    }

    /// Follows from now on.
    pub fn follow(&self) -> Follower {
        let after = self.ring.lock().expect("nothing panics while it holds the ring").newest;
        self.follow_after(after)
    }

    /// Follows from the entry after `index` on; a [`Gap`] shows when the first event is asked for.
    pub fn follow_after(&self, index: u64) -> Follower {
        Follower { log: self.clone(), changed: self.newest.subscribe(), after: index }
    }

    fn next_after(&self, after: u64) -> Result<Option<Arc<Published>>, Gap> {
        let ring = self.ring.lock().expect("nothing panics while it holds the ring");
        if after < ring.gone {
            return Err(Gap { oldest: ring.gone, newest: ring.newest });
        }
        let at = ring.entries.partition_point(|entry| entry.index <= after);
        Ok(ring.entries.get(at).cloned())
    }
}

/// A place in the ring.
#[derive(Debug)]
pub struct Follower {
    log: EventLog,
    changed: watch::Receiver<u64>,
    after: u64,
}

impl Follower {
    /// The next entry that did something, as soon as there is one. Cancel safe.
    pub async fn next(&mut self) -> Result<Arc<Published>, Gap> {
        loop {
            self.changed.mark_unchanged();
            if let Some(entry) = self.log.next_after(self.after)? {
                self.after = entry.index;
                return Ok(entry);
            }
            self.changed.changed().await.expect("the follower holds the sender");
        }
    }

    /// The next entry that did something, if there is one already.
    pub fn try_next(&mut self) -> Result<Option<Arc<Published>>, Gap> {
        let entry = self.log.next_after(self.after)?;
        if let Some(entry) = &entry {
            self.after = entry.index;
        }
        Ok(entry)
    }

    /// Everything up to this index was seen.
    pub fn position(&self) -> u64 {
        self.after
    }
}

#[cfg(test)]
mod tests {
    use drover_core::event::EventKind;
    use drover_core::ids::AppId;
    use drover_core::time::Timestamp;

    use super::*;

    fn events(count: usize) -> Vec<Event> {
        let app = AppId::parse("/a").unwrap();
        (0..count).map(|at| Event { at: Timestamp(at as i64), kind: EventKind::AppRemoved(app.clone()) }).collect()
    }

    fn indexes(follower: &mut Follower) -> Vec<u64> {
        std::iter::from_fn(|| follower.try_next().unwrap()).map(|entry| entry.index).collect()
    }

    #[test]
    fn a_follower_resumes_where_it_was_and_learns_of_a_gap() {
        let log = EventLog::new(5, 10);
        for index in 11..=15 {
            log.publish(index, events(usize::from(index != 12)));
        }
        assert_eq!(indexes(&mut log.follow_after(10)), [11, 13, 14, 15]);
        assert_eq!(indexes(&mut log.follow_after(12)), [13, 14, 15]);
        assert!(indexes(&mut log.follow()).is_empty());
        assert_eq!(log.follow_after(9).try_next(), Err(Gap { oldest: 10, newest: 15 }));

        log.publish(16, events(3));
        assert_eq!(log.follow_after(12).try_next(), Err(Gap { oldest: 13, newest: 16 }));
        assert_eq!(indexes(&mut log.follow_after(13)), [14, 15, 16]);
        log.publish(17, events(9));
        assert_eq!(log.follow_after(16).try_next(), Err(Gap { oldest: 17, newest: 17 }));
        log.skip_to(40);
        assert_eq!(log.follow_after(17).try_next(), Err(Gap { oldest: 40, newest: 40 }));
        assert_eq!(log.follow().position(), 40);
    }

    #[tokio::test]
    async fn a_follower_waits_for_what_comes() {
        let log = EventLog::new(100, 0);
        let mut follower = log.follow();
        let waiting = tokio::spawn(async move { follower.next().await.unwrap().index });
        tokio::task::yield_now().await;
        log.publish(1, Vec::new());
        log.publish(2, events(1));
        assert_eq!(waiting.await.unwrap(), 2);
    }
}
