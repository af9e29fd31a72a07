//! The only user of D-Bus and the journal. Speaks in the core's words: plans in, observed units out.
//!
//! ```text
//!             StartTransientUnit, StopUnit, GetAll, …
//!   Systemd ────────────────────────────────────────────▶ systemd
//!   Changes ◀── a map of what changed, per unit ◀── pump ◀── signals
//! ```
//!
//! Calls are thin and by hand: a proxy per unit would add a match rule and a cache each, and the fifteen calls here do not earn
//! generated code for all of systemd.
//!
//! Tasks: [`Systemd::connect`] starts one, the pump, which ends with the connection. It awaits nothing but the next message,
//! because a stream of messages that is not read stops every call on its connection. What it takes in is merged per unit into
//! a map bounded by [`changes::UNITS_CHANGED_MAX`]; beyond that it keeps only the fact that something was lost, and the
//! owner lists everything again. Journal readers run on tokio's blocking threads, one each while they read.

mod bus;
mod names;
mod value;

pub mod cgroup;
pub mod changes;
pub mod inputs;
pub mod journal;

pub use bus::{Error, JobEnd, Started, Systemd};
pub use changes::{Changes, News};
