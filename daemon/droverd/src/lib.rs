//! What of the daemon others look at as well: its configuration.

pub mod config;
