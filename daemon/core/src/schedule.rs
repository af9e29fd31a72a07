//! Placeholder so that the nouns compile.
use crate::time::{Millis, Timestamp};
use serde::{Deserialize, Serialize};
/// x
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// As the user wrote it.
    pub text: String,
    /// First slot.
    pub start: Timestamp,
}
/// x
pub fn unused(_: Millis) {}
