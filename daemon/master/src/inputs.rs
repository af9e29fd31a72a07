//! What comes to a master from outside, as bytes, read and decided as the master does it: no listener, no clock, no other master.
//! The way in for those who try whether any bytes can break it (`drover-fuzz`).

pub use crate::consensus::{Frame, Held, Sealed, apply_entry, read_directory, seal, segment};
pub use crate::http::{Answered, Asked, answer};
