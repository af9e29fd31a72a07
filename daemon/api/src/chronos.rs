//! The shapes of Chronos' HTTP API, version 3 (`/v1/scheduler`) and 2 (`/scheduler`): jobs in and out, summaries, statistics,
//! the graph, and errors. Where Chronos is careless drover is not: every fault of a job is told at once, and what drover cannot
//! honour is refused instead of dropped.
//!
//! drover adds three members to a job: `unit`, properties of the systemd unit its runs become; `retryDelay`, the wait before a
//! retry; and `epsilon`, which version 2 had, the lateness allowed. They are shown when they are not the default, so that a
//! listing looks to a client as Chronos' does.

mod definition;
mod error;
mod read;
mod report;
mod shown;

#[cfg(test)]
mod tests;

pub use definition::{Kind, SCHEDULE_WHEN_MISSING, read_job};
pub use error::{Error, Faults};
pub use report::{Leader, Percentile, Stat, graph_csv, graph_dot, percentile, stat, summary};
pub use shown::{Version, job, jobs, search};
