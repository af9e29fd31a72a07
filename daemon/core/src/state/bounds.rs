//! Bounds that `apply` itself keeps. They are part of the state, because masters that kept different pasts would differ: the
//! leader proposes what its configuration says, and everybody goes by what was applied.

use super::ClusterState;
use serde::{Deserialize, Serialize};

/// How much of the past is kept, and how many runs a job may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Versions kept of each app, the present one included; at least that one.
    pub app_versions: u32,
    /// Ended runs kept of each job.
    pub run_history: u32,
    /// Runs of one job that may be queued or live.
    pub runs_live: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { app_versions: 50, run_history: 20, runs_live: 100 }
    }
}

impl ClusterState {
    /// Lower bounds take effect at once, on what is kept already.
    pub(super) fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
        for record in self.apps.values_mut() {
            record.forget_old_versions(&bounds);
        }
        for entry in self.jobs.values_mut() {
            entry.record.forget_old_runs(&bounds);
        }
    }
}

impl super::AppRecord {
    pub(super) fn forget_old_versions(&mut self, bounds: &Bounds) {
        while self.versions.len() > bounds.app_versions.max(1) as usize {
            self.versions.pop_first();
        }
    }
}

impl crate::job::JobRecord {
    pub(super) fn forget_old_runs(&mut self, bounds: &Bounds) {
        let surplus = self.history.len().saturating_sub(bounds.run_history as usize);
        self.history.drain(..surplus);
    }
}
