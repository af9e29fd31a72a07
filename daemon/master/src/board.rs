//! What the leader last thought, for everybody who asks why something does not run. Empty on a master that does not lead.

use drover_core::leader::{Request, Waiting};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Shared between the leader loop, which writes it, and the HTTP handlers, which read it.
#[derive(Debug, Default)]
pub(crate) struct Board {
    waiting: Mutex<Arc<BTreeMap<Request, Waiting>>>,
}

impl Board {
    /// Requests without a place, as of the last decision.
    pub(crate) fn waiting(&self) -> Arc<BTreeMap<Request, Waiting>> {
        Arc::clone(&self.waiting.lock().expect("nobody panics while holding the board"))
    }

    pub(crate) fn publish(&self, waiting: BTreeMap<Request, Waiting>) {
        *self.waiting.lock().expect("nobody panics while holding the board") = Arc::new(waiting);
    }
}
