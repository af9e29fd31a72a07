//! A task as a unit of systemd: which unit to ask for, what its state means, and what to do about a node's units now.
//!
//! ```text
//!  assignment ─▶ Ledger ─┐
//!  systemd ─▶ units ─────┼─▶ reconcile ─▶ UnitActions ─▶ (the agent does them and writes Records) ─▶ Ledger
//!  journal ─▶ evidence ──┘
//! ```
//!
//! The invariants everything here keeps:
//! * A task is started at most once. The intent is on disk before systemd is asked, and a unit's name is taken by the first start.
//! * Only the start that is on record is adopted or stopped: an invocation id tells it from a later one under the same name.
//! * An end is on disk before its unit is let go.
//!
//! Start-up, restart and steady state are the same call of [`reconcile`].

mod ledger;
mod name;
mod observed;
mod plan;
mod reconcile;
mod status;

pub use ledger::{
    Assignment, Damaged, FORMAT, Ledger, LedgerTask, LedgerText, Phase, Record, WantedTask, ledger_text, read_ledger,
};
pub use name::{is_unit_of_a_task, sandbox_directory, unit_name};
pub use observed::{ActiveState, Evidence, ListedUnit, ObservedUnit, UnitPatch};
pub use plan::{NodeFacts, Occupancy, SLICE_UNITS_MAX, UnitPlan, plan};
pub use reconcile::{UnitAction, View, reconcile};
pub use status::{StartRefusal, Verdict, start_refused, status_of};

pub use crate::sandbox::PropertyValue;

/// Journal field that carries the task's id; also what marks a unit as drover's.
pub const FIELD_TASK: &str = "DROVER_TASK";
/// Journal field of an app's tasks.
pub const FIELD_APP: &str = "DROVER_APP";
/// Journal field of a job's tasks.
pub const FIELD_JOB: &str = "DROVER_JOB";
/// Journal field of a run's tasks.
pub const FIELD_RUN: &str = "DROVER_RUN";
/// Journal field of every task: who launched it.
pub const FIELD_FRAMEWORK: &str = "DROVER_FRAMEWORK";
