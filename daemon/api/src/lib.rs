//! Every shape that drover puts on a wire, and its way to and from the core. Edge types are separate types: a change inside
//! never changes what a client sees by accident.

pub mod agent;
pub mod chronos;
pub mod drover;
pub mod request_id;
pub mod v2;
