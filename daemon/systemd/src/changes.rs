//! What systemd says by itself: signals, read without delay and merged per unit until somebody asks.
//!
//! A burst of a thousand starts is sixteen thousand signals; merged it is at most a thousand patches, and the last word on
//! each unit is what counts.

use crate::names::{may_be_a_task, unit_of};
use crate::value::{self, Properties};
use drover_core::unit::{ActiveState, UnitPatch};
use futures_util::StreamExt;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{Notify, mpsc};
use zbus::MessageStream;
use zbus::message::Message;

/// Units whose changes are held for the reader. More than any node runs; beyond it everything is to be listed again.
pub const UNITS_CHANGED_MAX: usize = 65_536;

/// What the properties of either interface of a unit say of it.
pub(crate) fn patch_of(properties: &Properties) -> UnitPatch {
    UnitPatch {
        active: value::text(properties, "ActiveState").map(ActiveState::parse),
        sub: value::text(properties, "SubState").map(str::to_owned),
        result: value::text(properties, "Result").map(str::to_owned),
        exec_main_code: value::i32(properties, "ExecMainCode"),
        exec_main_status: value::i32(properties, "ExecMainStatus"),
        was_active: value::u64(properties, "ActiveEnterTimestampMonotonic").map(|at| at > 0),
        has_job: value::has_job(properties),
        invocation: value::invocation(properties),
        is_loaded: None,
    }
}

/// What happened since it was last asked.
#[derive(Debug, Default)]
pub struct News {
    /// Units that changed.
    pub units: BTreeMap<String, UnitPatch>,
    /// Whether everything must be listed again: signals were lost, or systemd has read its configuration anew.
    pub must_relist: bool,
    /// Whether the connection is gone. Nothing follows.
    pub is_disconnected: bool,
}

impl News {
    fn is_empty(&self) -> bool {
        self.units.is_empty() && !self.must_relist && !self.is_disconnected
    }
}

/// The reading end: one for each connection.
#[derive(Debug)]
pub struct Changes {
    shared: Arc<Shared>,
}

impl Changes {
    /// Waits until something happened and takes all of it. After `is_disconnected` it is to be dropped.
    ///
    /// Safe to cancel: what is not returned is not taken.
    pub async fn next(&mut self) -> News {
        loop {
            if let Some(news) = self.take() {
                return news;
            }
            // A notice that came in between is kept by the notifier: there is one waiter.
            self.shared.arrived.notified().await;
        }
    }

    /// What has happened already, without waiting. All that systemd said before a unit job ended is in it when the call that
    /// waited for that job returns.
    pub fn take(&mut self) -> Option<News> {
        let mut news = self.shared.news();
        (!news.is_empty()).then(|| std::mem::take(&mut *news))
    }
}

/// How a unit job of a unit ended: the job's object path, and systemd's word.
pub(crate) type JobRemoved = (String, String);

/// What the pump writes and others read.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    news: Mutex<News>,
    arrived: Notify,
    /// Who waits for jobs of which unit. A unit has few jobs while anybody waits, so their channels need no bound.
    waiters: Mutex<HashMap<String, Vec<mpsc::UnboundedSender<JobRemoved>>>>,
}

impl Shared {
    pub(crate) fn new() -> (Arc<Self>, Changes) {
        let shared = Arc::new(Self::default());
        (shared.clone(), Changes { shared })
    }

    /// Hears of every job of `unit` that ends from now on. Ends when signals were lost.
    pub(crate) fn await_jobs_of(&self, unit: &str) -> mpsc::UnboundedReceiver<JobRemoved> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut waiters = self.waiters.lock().expect("no holder of this lock panics");
        let of_unit = waiters.entry(unit.to_owned()).or_default();
        of_unit.retain(|waiter| !waiter.is_closed());
        of_unit.push(sender);
        receiver
    }

    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().expect("no holder of this lock panics")
    }

    fn tell(&self, change: impl FnOnce(&mut News)) {
        let mut news = self.news();
        change(&mut news);
        drop(news);
        self.arrived.notify_one();
    }

    fn patch(&self, unit: String, patch: UnitPatch) {
        let mut overflows = false;
        self.tell(|news| {
            overflows = news.units.len() >= UNITS_CHANGED_MAX && !news.units.contains_key(&unit);
            if overflows {
                news.units.clear();
                news.must_relist = true;
            } else {
                news.units.entry(unit).or_default().merge(patch);
            }
        });
        if overflows {
            self.waiters.lock().expect("no holder of this lock panics").clear();
        }
    }

    fn end_job(&self, unit: &str, job: String, result: String) {
        let mut waiters = self.waiters.lock().expect("no holder of this lock panics");
        if let Some(of_unit) = waiters.get_mut(unit) {
            of_unit.retain(|waiter| waiter.send((job.clone(), result.clone())).is_ok());
            if of_unit.is_empty() {
                waiters.remove(unit);
            }
        }
    }

    fn disconnect(&self) {
        self.waiters.lock().expect("no holder of this lock panics").clear();
        self.tell(|news| news.is_disconnected = true);
    }
}

/// Reads signals until the connection ends.
pub(crate) async fn pump(mut stream: MessageStream, shared: Arc<Shared>) {
    while let Some(message) = stream.next().await {
        match message {
            Ok(message) => {
                if let Err(error) = take_in(&message, &shared) {
                    tracing::debug!(%error, "cannot read a signal, listing everything again");
                    shared.tell(|news| news.must_relist = true);
                }
            }
            Err(error) => tracing::debug!(%error, "the bus connection breaks"),
        }
    }
    shared.disconnect();
}

/// What one message says, or that it cannot be read: then everything is to be listed again.
pub(crate) fn news_of(message: &Message) -> zbus::Result<News> {
    let (shared, mut changes) = Shared::new();
    take_in(message, &shared)?;
    Ok(changes.take().unwrap_or_default())
}

fn take_in(message: &Message, shared: &Shared) -> zbus::Result<()> {
    let header = message.header();
    let (Some(interface), Some(member)) = (header.interface(), header.member()) else { return Ok(()) };
    match (interface.as_str(), member.as_str()) {
        ("org.freedesktop.DBus.Properties", "PropertiesChanged") => {
            let path = header.path().map(|path| path.as_str()).filter(|path| may_be_a_task(path));
            let Some(unit) = path.and_then(unit_of) else { return Ok(()) };
            let body = message.body();
            let (_, properties, _): (String, Properties, Vec<String>) = body.deserialize()?;
            let patch = patch_of(&properties);
            if patch != UnitPatch::default() {
                shared.patch(unit, patch);
            }
        }
        ("org.freedesktop.systemd1.Manager", "JobRemoved") => {
            let body = message.body();
            let (_, job, unit, result): (u32, zbus::OwnedObjectPath, String, String) = body.deserialize()?;
            shared.end_job(&unit, job.as_str().to_owned(), result);
        }
        ("org.freedesktop.systemd1.Manager", "UnitNew" | "UnitRemoved") => {
            let body = message.body();
            let (unit, _): (String, zbus::OwnedObjectPath) = body.deserialize()?;
            if drover_core::unit::is_unit_of_a_task(&unit) {
                let is_loaded = Some(member.as_str() == "UnitNew");
                shared.patch(unit, UnitPatch { is_loaded, ..UnitPatch::default() });
            }
        }
        ("org.freedesktop.systemd1.Manager", "Reloading") => {
            let is_beginning: bool = message.body().deserialize()?;
            if !is_beginning {
                shared.tell(|news| news.must_relist = true);
            }
        }
        // systemd left the bus, or came back to it: what it had subscribed for us may be gone.
        ("org.freedesktop.DBus", "NameOwnerChanged") => {
            let body = message.body();
            let (name, _, new): (String, String, String) = body.deserialize()?;
            if name == crate::bus::SYSTEMD && !new.is_empty() {
                shared.tell(|news| news.must_relist = true);
            }
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_core::unit::ObservedUnit;

    fn active(state: ActiveState) -> UnitPatch {
        UnitPatch { active: Some(state), ..UnitPatch::default() }
    }

    #[tokio::test]
    async fn the_last_word_on_a_unit_counts() {
        let (shared, mut changes) = Shared::new();
        shared.patch("a".into(), active(ActiveState::Activating));
        shared.patch("b".into(), active(ActiveState::Active));
        shared.patch("a".into(), UnitPatch { sub: Some("failed".into()), ..active(ActiveState::Failed) });
        let news = changes.next().await;
        assert_eq!(news.units.len(), 2);
        let mut unit = ObservedUnit::default();
        assert!(news.units["a"].clone().apply_to(&mut unit));
        assert_eq!((unit.active, unit.sub.as_str()), (ActiveState::Failed, "failed"));
        assert!(!news.units["a"].clone().apply_to(&mut unit), "repeats change nothing");
    }

    #[tokio::test]
    async fn a_flood_becomes_one_listing_and_wakes_who_waits_for_jobs() {
        let (shared, mut changes) = Shared::new();
        let mut jobs = shared.await_jobs_of("unit 1");
        for n in 0..=UNITS_CHANGED_MAX {
            shared.patch(format!("unit {n}"), active(ActiveState::Active));
        }
        let news = changes.next().await;
        assert!(news.must_relist && news.units.is_empty());
        assert_eq!(jobs.recv().await, None);
    }

    #[tokio::test]
    async fn jobs_reach_those_who_wait_for_them() {
        let (shared, mut changes) = Shared::new();
        let mut one = shared.await_jobs_of("a");
        let mut other = shared.await_jobs_of("a");
        shared.end_job("b", "/job/1".into(), "done".into());
        shared.end_job("a", "/job/2".into(), "failed".into());
        assert_eq!(one.recv().await, Some(("/job/2".into(), "failed".into())));
        assert_eq!(other.recv().await, Some(("/job/2".into(), "failed".into())));
        shared.disconnect();
        assert_eq!(one.recv().await, None);
        assert!(changes.next().await.is_disconnected);
    }
}
