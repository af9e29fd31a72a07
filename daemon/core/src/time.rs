//! Time as drover replicates it: whole milliseconds. Nothing here reads a clock.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

/// A span in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

/// What a machine's two clocks show at one moment. The first tells the time and may be set, by hours and either way; the second
/// only measures, and nobody sets it. Spans that end in an effect are taken from the second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// The time of day.
    pub time: Timestamp,
    /// Time passed since some moment of the process' own choice.
    pub steady: Duration,
}

impl Now {
    /// What the first clock will show when the second shows `steady`, if nobody sets it.
    pub fn after(self, steady: Duration) -> Timestamp {
        let left = steady.saturating_sub(self.steady).as_micros().div_ceil(1000);
        self.time + Millis(u64::try_from(left).unwrap_or(u64::MAX))
    }
}

impl Millis {
    /// The same for timers.
    pub const fn to_duration(self) -> Duration {
        Duration::from_millis(self.0)
    }

    /// Whole seconds as milliseconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }
}

impl Timestamp {
    /// How long after `earlier` this is; zero if it is not after it.
    pub fn since(self, earlier: Timestamp) -> Millis {
        Millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The same instant for calendar work.
    pub fn to_jiff(self) -> jiff::Timestamp {
        jiff::Timestamp::from_millisecond(self.0).unwrap_or(if self.0 < 0 {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        })
    }

    /// Reads RFC 3339 text (`2024-01-01T10:00:00.000Z`), cut to milliseconds.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse::<jiff::Timestamp>().ok().map(|t| Self(t.as_millisecond()))
    }
}

/// How far the clocks of machines may be apart without anything being concluded from it.
const CLOCKS_APART: Millis = Millis::from_secs(60);

/// Whether something recorded as happened `at` shows that the clock has been set back since: a wait that is counted from there
/// would last until the clock has caught up.
pub fn was_set_back(at: Timestamp, now: Timestamp) -> bool {
    at > now + CLOCKS_APART
}

impl Add<Millis> for Timestamp {
    type Output = Timestamp;
    fn add(self, span: Millis) -> Timestamp {
        Timestamp(self.0.saturating_add(i64::try_from(span.0).unwrap_or(i64::MAX)))
    }
}

impl Sub<Millis> for Timestamp {
    type Output = Timestamp;
    fn sub(self, span: Millis) -> Timestamp {
        Timestamp(self.0.saturating_sub(i64::try_from(span.0).unwrap_or(i64::MAX)))
    }
}

/// UTC with exactly three fraction digits, the form that every dialect of the API prints.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.to_jiff().to_zoned(jiff::tz::TimeZone::UTC);
        write!(f, "{}.{:03}Z", time.strftime("%Y-%m-%dT%H:%M:%S"), time.millisecond())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_three_digits_and_reads_them_back() {
        let t = Timestamp(1_704_103_200_005);
        assert_eq!(t.to_string(), "2024-01-01T10:00:00.005Z");
        assert_eq!(Timestamp::parse(&t.to_string()), Some(t));
        assert_eq!(Timestamp::parse("2024-01-01T11:00:00+01:00"), Some(Timestamp(1_704_103_200_000)));
        assert_eq!(Timestamp::parse("yesterday"), None);
    }
}
