//! The only place in the master that reads the clock and makes random ids; everything below gets them as arguments.

use drover_core::time::{Now, Timestamp};
use std::sync::OnceLock;
use std::time::Duration;
use tokio::time::Instant;

/// What the steady clock counts from.
fn began() -> Instant {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    *BEGAN.get_or_init(Instant::now)
}

/// Now, in whole milliseconds.
pub(crate) fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_millisecond())
}

/// Both clocks.
pub(crate) fn both() -> Now {
    Now { time: now(), steady: began().elapsed() }
}

/// A moment of the steady clock, to wait for.
pub(crate) fn instant(steady: Duration) -> Instant {
    began() + steady
}

/// Unique text for a new task, deployment or stream.
pub(crate) fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
