//! Reading of `R[n]/[start]/period`. All faults are told at once.

use super::{Period, Repeat, Rule, Schedule, Zone, zone};
use crate::time::{Millis, Timestamp};
use jiff::civil::Time;
use jiff::fmt::temporal::Pieces;
use std::fmt;

/// What is wrong with a schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Fault {
    /// With which part of it.
    pub part: Part,
    /// What, in words a user can act on.
    pub why: String,
}

/// The parts of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Its outer form.
    Form,
    /// `R[n]`.
    Repeats,
    /// The first slot.
    Start,
    /// From slot to slot.
    Period,
    /// The time zone.
    Zone,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Form => "form",
            Part::Repeats => "repeats",
            Part::Start => "start",
            Part::Period => "period",
            Part::Zone => "zone",
        })
    }
}

/// Chronos' lower bound of a start.
const START_MIN: Timestamp = Timestamp(1000);

/// Largest number of years in a period, and of anything else: what keeps every sum within 64 bits of milliseconds.
const YEARS_MAX: u32 = 9_999;
const COUNT_MAX: u32 = 999_999_999;

/// Reads a schedule. `zone` is the name of a time zone and empty when none was given; then the offset of the start counts, and
/// UTC if it has none. With a zone the wall time of the start is kept and its offset dropped, as Chronos does. An empty start
/// is `now`; a date alone is its midnight.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(text: &str, zone: &str, now: Timestamp) -> Result<Schedule, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut fault = |part, why: String| faults.push(Fault { part, why });

    let zone = match zone.trim() {
        "" => None,
        name => match zone::resolve(name) {
            Ok(name) => Some(Zone::Named(name)),
            Err(why) => {
                fault(Part::Zone, why);
                None
            }
        },
    };
    let form = text.trim().strip_prefix('R').and_then(|rest| {
        let (count, rest) = rest.split_once('/')?;
        let (start, period) = rest.rsplit_once('/')?;
        Some((count, start.trim(), period.trim()))
    });
    let Some((count, start, period)) = form else {
        let why = "must have the three parts R[n]/[start]/period, like R/2024-05-01T03:00:00Z/P1D or R5//PT1H".to_owned();
        fault(Part::Form, why);
        return Err(faults);
    };

    let times = match count {
        "" => None,
        _ if !count.bytes().all(|b| b.is_ascii_digit()) => {
            fault(Part::Repeats, format!("must be R (for ever) or R and a number of runs, not 'R{count}'"));
            None
        }
        _ => match count.parse::<u32>() {
            Ok(times) => Some(times),
            Err(_) => {
                fault(
                    Part::Repeats,
                    format!("must repeat at most {} times; leave the number out to repeat for ever", u32::MAX),
                );
                None
            }
        },
    };

    let period = match read_period(period) {
        Ok(period) if period.is_zero() && times.is_none_or(|times| times > 1) => {
            fault(
                Part::Period,
                "must be at least one second: a period of zero would fire without end (only R0 and R1 may have it)".into(),
            );
            period
        }
        Ok(period) => period,
        Err(_) if start.starts_with('P') => {
            fault(Part::Period, "the start must stand before the period, R[n]/[start]/period; ends are not supported".into());
            return Err(faults);
        }
        Err(why) => {
            fault(Part::Period, why);
            Period::default()
        }
    };

    let (start, local, zone) = match read_start(start, zone.as_ref(), now, &period) {
        Ok(read) => read,
        Err(why) => {
            fault(Part::Start, why);
            return Err(faults);
        }
    };
    if start < START_MIN {
        fault(Part::Start, format!("must not be before {START_MIN}"));
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    Ok(Schedule { text: text.trim().to_owned(), zone, rule: Rule::Repeat(Repeat { times, start, local, period }) })
}

/// Reads a span of clock time, `PT60S`, `PT1H30M`, also `P1D` and `P1W` as 24 hours a day.
///
/// # Errors
/// What is wrong with it.
pub fn parse_duration(text: &str) -> Result<Millis, String> {
    let period = read_period(text.trim())?;
    if period.months_total() > 0 {
        return Err("must not be in years or months, whose length varies".into());
    }
    let ms = period.days_total().saturating_mul(super::DAY_MS).saturating_add(period.clock_ms());
    Ok(Millis(u64::try_from(ms).expect("its parts are not negative")))
}

fn read_start(
    text: &str,
    zone: Option<&Zone>,
    now: Timestamp,
    period: &Period,
) -> Result<(Timestamp, jiff::civil::DateTime, Zone), String> {
    let out_of_range = || "is outside the calendar".to_owned();
    if text.is_empty() {
        let zone = zone.cloned().unwrap_or(Zone::Offset(0));
        let local = zone.reading(now).ok_or_else(out_of_range)?;
        let start = if period.is_clock_only() { now } else { zone.instant(local).ok_or_else(out_of_range)? };
        return Ok((start, local, zone));
    }
    let pieces = Pieces::parse(text).map_err(|_| {
        format!("'{text}' is not a date and time like 2024-05-01T03:00:00Z or 2024-05-01T03:00+02:00, a date, or empty for now")
    })?;
    if pieces.time_zone_annotation().is_some() {
        return Err("must not name a zone in brackets: give it as the time zone of the schedule".into());
    }
    let time = pieces.time().unwrap_or(Time::midnight());
    let millis = time.with().microsecond(0).nanosecond(0).build().expect("whole milliseconds of a time are a time");
    let local = pieces.date().to_datetime(millis);
    let offset = pieces.to_numeric_offset().map_or(0, |offset| offset.seconds());
    let zone = zone.cloned().unwrap_or(Zone::Offset(offset));
    let start = zone.instant(local).ok_or_else(out_of_range)?;
    // Calendar parts keep the wall time that was meant, even where the first day happens to skip it.
    let local = if period.is_clock_only() { zone.reading(start).ok_or_else(out_of_range)? } else { local };
    Ok((start, local, zone))
}

/// Reads `P[nY][nM][nW][nD][T[nH][nM][nS]]`; `P` alone is zero.
fn read_period(text: &str) -> Result<Period, String> {
    let not_one = || format!("'{text}' is not an ISO 8601 period like P1D, P1M, PT90M or P1DT12H");
    let rest = text.strip_prefix('P').ok_or_else(not_one)?;
    let (date, time) = match rest.split_once('T') {
        Some((_, "")) => return Err(not_one()),
        Some((date, time)) => (date, time),
        None => (rest, ""),
    };
    let mut period = Period::default();
    let Period { years, months, weeks, days, hours, minutes, seconds } = &mut period;
    let halves = [
        (date, vec![('Y', years), ('M', months), ('W', weeks), ('D', days)]),
        (time, vec![('H', hours), ('M', minutes), ('S', seconds)]),
    ];
    for (mut rest, units) in halves {
        let mut units = units.into_iter();
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, tail) = rest.split_at(digits);
            if tail.starts_with(['.', ',']) && digits > 0 {
                return Err(format!("'{text}' has a fraction: drover schedules whole seconds"));
            }
            let unit = tail.chars().next().ok_or_else(not_one)?;
            // Units come in this order, each at most once.
            let (_, value) = units.find(|(name, _)| *name == unit).ok_or_else(not_one)?;
            if number.is_empty() {
                return Err(not_one());
            }
            let max = if unit == 'Y' { YEARS_MAX } else { COUNT_MAX };
            *value =
                number.parse().ok().filter(|n| *n <= max).ok_or_else(|| format!("'{number}{unit}' is too long a period"))?;
            rest = &tail[unit.len_utf8()..];
        }
    }
    Ok(period)
}
