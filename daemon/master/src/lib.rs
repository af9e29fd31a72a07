//! A drover master: takes part in consensus, leads when elected, serves the HTTP API.
//!
//! ```text
//!            clients                    agents, masters, joining nodes
//!               │ HTTP                          │ HTTP/2, mutual TLS
//!        api_listener                    cluster_listener
//!               └──────▶ http (dialects) ◀──────┤
//!                          │ propose            ├──▶ agents (sessions)
//!                          ▼                    ▼
//!        leader_loop ──▶ consensus (openraft, log on disk) ──▶ state, events
//! ```
//! Long-lived tasks: the two listeners (a task per connection below them), the leader loop, a task per agent session and
//! per event stream, and those of consensus. All end with the token given to [`run`]; consensus ends last, so that what was
//! acknowledged is on disk.

mod config;
mod run;

pub mod consensus;
pub mod inputs;

mod agents;
mod api_listener;
mod board;
mod clock;
mod cluster_listener;
mod doors;
mod http;
mod leader_loop;
mod metrics;
mod subject;

pub use config::{Limits, MasterConfig};
pub use metrics::MASTER as METRICS;
pub use run::run;
