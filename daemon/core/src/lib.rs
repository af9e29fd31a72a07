//! drover's nouns, its replicated state and its decisions: functions over plain data.
//!
//! Nothing here reads a clock, a random number, the environment, a file or a socket; `clippy.toml` beside this crate holds
//! that fence. Time and new ids come in as arguments, effects go out as data with a reason.
//!
//! Reading order: names and numbers, nouns, state, then the deciders. Deciders never import each other. Last the two minds that run
//! them: the leader's and the node's.

pub mod ids;
pub mod resources;
pub mod time;

pub mod agent;
pub mod app;
pub mod event;
pub mod framework;
pub mod job;
pub mod task;

pub mod sandbox;
pub mod unit;

pub mod deployment;
pub mod schedule;
pub mod state;

pub mod allocator;
pub mod app_spec;
pub mod change;
pub mod job_change;
pub mod liveness;
pub mod matcher;
pub mod runs;
pub mod scaling;

pub mod leader;

pub mod node;
