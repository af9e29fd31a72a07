//! The only place in the master that reads the clock and makes random ids; everything below gets them as arguments.

use drover_core::time::Timestamp;

/// Now, in whole milliseconds.
pub(crate) fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now().as_millisecond())
}

/// Unique text for a new task, deployment or stream.
pub(crate) fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
