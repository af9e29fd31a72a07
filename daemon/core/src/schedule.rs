//! When a job runs: ISO 8601 repeats as Chronos writes them, `R[n]/[start]/period`.
//!
//! A schedule is an endless, strictly increasing sequence of **slots**. Slot `k` is counted from the start and never from the
//! slot before it, so slots do not drift and a month's end that was clipped once is not clipped for ever:
//! `R/2024-01-31T00:00Z/P1M` gives 31 January, 29 February, 31 March. `n` says how many slots are *run*; it is kept apart from
//! the sequence, so a slot that passed unused costs nothing.
//!
//! Years, months, weeks and days are counted on the calendar of the schedule's zone, hours, minutes and seconds on the clock:
//! in a zone with daylight saving `P1D` keeps its wall time, `PT24H` does not. `k` periods are the calendar parts `k` times and
//! then the clock parts `k` times.
//!
//! - **Gap**: a wall time that a zone skips is replaced by the next instant that exists, the end of the gap (02:30 becomes 03:00
//!   when clocks jump from 02:00 to 03:00). Two slots that would meet there are one slot.
//! - **Fold**: a wall time that a zone has twice means the first.
//!
//! Zone rules are the ones compiled into drover, never the machine's, so all masters of one version agree. A slot that was chosen
//! is written to the log as an instant; masters of two versions cannot disagree about the past.

mod parse;
mod zone;

#[cfg(test)]
mod tests;

pub use parse::{Fault, Part, parse, parse_duration};

use crate::time::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{SignedDuration, Span};
use serde::{Deserialize, Serialize};
use std::fmt;

/// When a job runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// As the user wrote it.
    pub text: String,
    /// Whose calendar and clock it follows.
    pub zone: Zone,
    /// What it means.
    pub rule: Rule,
}

/// Whose calendar and clock a schedule follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Zone {
    /// A fixed offset, seconds east of UTC; 0 when nothing was said.
    Offset(i32),
    /// A zone of the IANA database, by its proper name.
    Named(String),
}

/// The kinds of schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Rule {
    /// Every so often from a start.
    Repeat(Repeat),
}

/// `R[n]/start/period`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeat {
    /// Slots to run, `None` for ever.
    pub times: Option<u32>,
    /// Slot 0.
    pub start: Timestamp,
    /// The wall time that calendar parts are counted from. Differs from `start` only if that lies in a gap.
    pub local: DateTime,
    /// From slot to slot. Zero only if `times` is 0 or 1: then slot 0 is the only one.
    pub period: Period,
}

/// An ISO 8601 period, part by part as written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Period {
    pub years: u32,
    pub months: u32,
    pub weeks: u32,
    pub days: u32,
    pub hours: u32,
    pub minutes: u32,
    pub seconds: u32,
}

const DAY_MS: i64 = 86_400_000;

/// More than any two offsets of one zone differ, and more than any gap is long.
const ZONE_SLACK_MS: i64 = 3 * DAY_MS;

impl Schedule {
    /// Slots to run, `None` for ever.
    pub fn repeats(&self) -> Option<u32> {
        let Rule::Repeat(repeat) = &self.rule;
        repeat.times
    }

    /// Its first slot.
    pub fn start(&self) -> Timestamp {
        let Rule::Repeat(repeat) = &self.rule;
        repeat.start
    }

    /// Whether it was written without a start, which means from when it is defined.
    pub fn has_empty_start(&self) -> bool {
        self.text.split('/').nth(1).is_some_and(|start| start.trim().is_empty())
    }

    /// The first slot that is not before `t`; `None` past the end of the calendar (the year 9999).
    pub fn slot_at_or_after(&self, t: Timestamp) -> Option<Timestamp> {
        let Rule::Repeat(repeat) = &self.rule;
        repeat.slot(&self.zone, repeat.index_at_or_after(&self.zone, t))
    }

    /// The first slot after `t`.
    pub fn slot_after(&self, t: Timestamp) -> Option<Timestamp> {
        self.slot_at_or_after(Timestamp(t.0.checked_add(1)?))
    }

    /// The last slot that is not after `t`; `None` if there is none yet.
    pub fn latest_slot_at_or_before(&self, t: Timestamp) -> Option<Timestamp> {
        let Rule::Repeat(repeat) = &self.rule;
        let after = repeat.index_at_or_after(&self.zone, Timestamp(t.0.saturating_add(1)));
        (after > 0).then(|| repeat.slot(&self.zone, after - 1))?
    }

    /// The schedule as Chronos rewrites it after each launch: what is left, from the slot that is next, `R4/2008-03-02T13:00:00.000Z/P1D`.
    pub fn remaining_from(&self, next: Timestamp, remaining: Option<u32>) -> String {
        let Rule::Repeat(repeat) = &self.rule;
        let count = remaining.map(|n| n.to_string()).unwrap_or_default();
        format!("R{count}/{}/{}", self.zone.print(next), repeat.period)
    }
}

impl Repeat {
    /// The least `k` whose slot is not before `t`. Slots past the end of the calendar count as after everything.
    fn index_at_or_after(&self, zone: &Zone, t: Timestamp) -> i64 {
        if t <= self.start {
            return 0;
        }
        if self.period.is_zero() {
            return 1;
        }
        // Slots rise with `k`, so bracket `k` by the shortest and the longest a period can be, then bisect.
        let distance = t.0.saturating_sub(self.start.0);
        let (mut low, mut high) = match self.period.is_clock_only() {
            true => (distance / self.period.clock_ms(), distance / self.period.clock_ms() + 1),
            false => (
                distance.saturating_sub(ZONE_SLACK_MS) / self.period.longest_ms(),
                distance.saturating_add(ZONE_SLACK_MS) / self.period.shortest_ms() + 1,
            ),
        };
        low = low.max(0);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.slot(zone, middle) {
                Some(slot) if slot < t => low = middle + 1,
                _ => high = middle,
            }
        }
        low
    }

    fn slot(&self, zone: &Zone, k: i64) -> Option<Timestamp> {
        if self.period.is_zero() {
            return (k == 0).then_some(self.start);
        }
        let clock_ms = self.period.clock_ms().checked_mul(k)?;
        let from = match self.period.is_clock_only() {
            true => self.start,
            false => {
                let months = self.period.months_total().checked_mul(k)?;
                let days = self.period.days_total().checked_mul(k)?;
                let span = Span::new().try_months(months).ok()?.try_days(days).ok()?;
                zone.instant(self.local.checked_add(span).ok()?)?
            }
        };
        let slot = Timestamp(from.0.checked_add(clock_ms)?);
        (slot.0 <= jiff::Timestamp::MAX.as_millisecond()).then_some(slot)
    }
}

impl Zone {
    /// The name for the API: empty for a fixed offset, which the start's text carries.
    pub fn name(&self) -> &str {
        match self {
            Zone::Offset(_) => "",
            Zone::Named(name) => name,
        }
    }

    /// `t` on this zone's clock, with milliseconds and offset, `Z` for none.
    pub fn print(&self, t: Timestamp) -> String {
        let Some(zone) = self.rules() else { return t.to_string() };
        let zoned = t.to_jiff().to_zoned(zone);
        let text = format!("{}.{:03}", zoned.strftime("%Y-%m-%dT%H:%M:%S"), zoned.millisecond());
        match zoned.offset().seconds() {
            0 => format!("{text}Z"),
            _ => format!("{text}{}", zoned.strftime("%:z")),
        }
    }

    /// `None` only for a name that a later zone database dropped, which has not happened yet: such a schedule has no slots.
    fn rules(&self) -> Option<TimeZone> {
        match self {
            Zone::Offset(seconds) => Some(TimeZone::fixed(Offset::from_seconds(*seconds).ok()?)),
            Zone::Named(name) => zone::rules(name),
        }
    }

    fn reading(&self, t: Timestamp) -> Option<DateTime> {
        Some(self.rules()?.to_datetime(t.to_jiff()))
    }

    /// The instant of a wall time: the first of two, or the end of the gap it falls in.
    fn instant(&self, local: DateTime) -> Option<Timestamp> {
        let zone = self.rules()?;
        let instant = match zone.to_ambiguous_timestamp(local).offset() {
            AmbiguousOffset::Unambiguous { offset } | AmbiguousOffset::Fold { before: offset, .. } => {
                offset.to_timestamp(local).ok()?
            }
            AmbiguousOffset::Gap { after, .. } => {
                // Read with the offset that holds after the gap, a skipped time names an instant just before the gap.
                let before_gap = after.to_timestamp(local).ok()?;
                zone.following(before_gap.checked_sub(SignedDuration::from_secs(1)).ok()?).next()?.timestamp()
            }
        };
        Some(Timestamp(instant.as_millisecond()))
    }
}

impl Period {
    /// Whether it leads nowhere.
    pub fn is_zero(&self) -> bool {
        *self == Period::default()
    }

    /// Whether it counts on the clock alone.
    pub fn is_clock_only(&self) -> bool {
        self.months_total() == 0 && self.days_total() == 0
    }

    fn months_total(&self) -> i64 {
        i64::from(self.years) * 12 + i64::from(self.months)
    }

    fn days_total(&self) -> i64 {
        i64::from(self.weeks) * 7 + i64::from(self.days)
    }

    fn clock_ms(&self) -> i64 {
        ((i64::from(self.hours) * 60 + i64::from(self.minutes)) * 60 + i64::from(self.seconds)) * 1000
    }

    fn shortest_ms(&self) -> i64 {
        (self.months_total() * 28 + self.days_total()) * DAY_MS + self.clock_ms()
    }

    fn longest_ms(&self) -> i64 {
        (self.months_total() * 31 + self.days_total()) * DAY_MS + self.clock_ms()
    }
}

/// Its ISO 8601 form, `P1M`, `PT24H`; `PT0S` for nothing.
impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("PT0S");
        }
        f.write_str("P")?;
        for (count, unit) in [(self.years, 'Y'), (self.months, 'M'), (self.weeks, 'W'), (self.days, 'D')] {
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
        }
        if self.clock_ms() > 0 {
            f.write_str("T")?;
        }
        for (count, unit) in [(self.hours, 'H'), (self.minutes, 'M'), (self.seconds, 'S')] {
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
        }
        Ok(())
    }
}
