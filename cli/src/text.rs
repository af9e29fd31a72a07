//! Spans, sizes and instants in the words of systemd (`2h 3min`, `512M`, `Sun 2026-11-22 11:00:00 CET`), written and read.

use drover_api::drover::Time;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};

/// A span as systemd writes it, its two largest units: `2h 3min`, `41s`, and `3.2s` or `120ms` when short.
pub(crate) fn span(ms: i64) -> String {
    const UNITS: [(i64, &str); 5] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s"), (1, "ms")];
    let ms = ms.max(0);
    if ms < 1_000 {
        return if ms == 0 { "0s".to_owned() } else { format!("{ms}ms") };
    }
    if ms < 10_000 {
        let tenths = ms / 100;
        return if tenths % 10 == 0 { format!("{}s", tenths / 10) } else { format!("{}.{}s", tenths / 10, tenths % 10) };
    }
    let first = UNITS.iter().position(|(size, _)| ms >= *size).expect("at least ten seconds");
    let (size, unit) = UNITS[first];
    let mut text = format!("{}{unit}", ms / size);
    if let Some((smaller, unit)) = UNITS[..4].get(first + 1) {
        let rest = ms % size / smaller;
        if rest > 0 {
            text.push_str(&format!(" {rest}{unit}"));
        }
    }
    text
}

/// One unit is enough where columns are narrow: `2h`, `4min`, `3d`.
pub(crate) fn span_short(ms: i64) -> String {
    let text = span(ms);
    text.split_once(' ').map_or(text.clone(), |(first, _)| first.to_owned())
}

/// `2h ago`, `in 4min`.
pub(crate) fn relative(at: Time, now: Timestamp) -> String {
    let ms = now.as_millisecond() - at.millis();
    if ms >= 0 { format!("{} ago", span_short(ms)) } else { format!("in {}", span_short(-ms)) }
}

/// Bytes as systemd writes them: `512M`, `1.5G`, `0B`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "T"), (1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")];
    for (size, unit) in UNITS {
        if bytes >= size {
            // Tenths, rounded; exact for every size a person would write.
            let tenths = (u128::from(bytes) * 10 + u128::from(size) / 2) / u128::from(size);
            return if tenths % 10 == 0 {
                format!("{}{unit}", tenths / 10)
            } else {
                format!("{}.{}{unit}", tenths / 10, tenths % 10)
            };
        }
    }
    format!("{bytes}B")
}

/// A number without a needless fraction: `2`, `0.25`.
pub(crate) fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `1 instance`, `3 instances`.
pub(crate) fn count(n: u64, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// `Sun 2026-11-22 11:00:00 CET`.
pub(crate) fn instant(at: Time, zone: &TimeZone) -> String {
    zoned(at, zone).strftime("%a %Y-%m-%d %H:%M:%S %Z").to_string()
}

/// `Nov 22 10:51:02`, as the journal prints it.
pub(crate) fn journal(at: Time, zone: &TimeZone) -> String {
    zoned(at, zone).strftime("%b %d %H:%M:%S").to_string()
}

fn zoned(at: Time, zone: &TimeZone) -> Zoned {
    Timestamp::from_microsecond(at.0).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(zone.clone())
}

/// Reads a span in systemd's words: `90`, `2h`, `5min 20s`, `1.5h`, `1h30min`. A bare number is seconds.
pub(crate) fn parse_span(text: &str) -> Result<std::time::Duration, String> {
    const UNITS: [(&str, f64); 22] = [
        ("ms", 0.001),
        ("msec", 0.001),
        ("", 1.0),
        ("s", 1.0),
        ("sec", 1.0),
        ("second", 1.0),
        ("seconds", 1.0),
        ("m", 60.0),
        ("min", 60.0),
        ("minute", 60.0),
        ("minutes", 60.0),
        ("h", 3_600.0),
        ("hr", 3_600.0),
        ("hour", 3_600.0),
        ("hours", 3_600.0),
        ("d", 86_400.0),
        ("day", 86_400.0),
        ("days", 86_400.0),
        ("w", 604_800.0),
        ("week", 604_800.0),
        ("weeks", 604_800.0),
        ("y", 31_557_600.0),
    ];
    let bad = || format!("{text:?} is no span of time: write `90s`, `5min` or `1h 30min`");
    let mut rest = text.trim();
    let mut seconds = 0.0;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let tail = tail.trim_start();
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let number: f64 = number.parse().map_err(|_| bad())?;
        let (_, size) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
        seconds += number * size;
        rest = tail.trim_start();
    }
    std::time::Duration::try_from_secs_f64(seconds).map_err(|_| bad())
}

/// Reads a point in time as systemd.time(7) does, as far as people type it: `-10min`, `10min ago`, `2h`, `now`, `today`,
/// `yesterday`, `2026-11-22`, `2026-11-22 10:00`, `10:00`, RFC 3339. A bare span means that long ago.
pub(crate) fn parse_instant(text: &str, now: &Zoned) -> Result<Timestamp, String> {
    let bad = || format!("{text:?} is no time: write `-10min`, `yesterday`, `10:30` or `2026-11-22 10:30:00`");
    let trimmed = text.trim();
    if let Ok(at) = trimmed.parse::<Timestamp>() {
        return Ok(at);
    }
    let midnight = |day: Zoned| day.start_of_day().map(|at| at.timestamp()).map_err(|_| bad());
    match trimmed {
        "now" => return Ok(now.timestamp()),
        "today" => return midnight(now.clone()),
        "yesterday" => return midnight(now.checked_sub(1.day()).map_err(|_| bad())?),
        _ => {}
    }
    let ago = trimmed.strip_prefix('-').or_else(|| trimmed.strip_suffix("ago")).unwrap_or(trimmed);
    if let Ok(span) = parse_span(ago) {
        return now.timestamp().checked_sub(span).map_err(|_| bad());
    }
    // The date first: jiff reads a time of day out of a date with a time as well.
    let written = trimmed.parse::<jiff::civil::DateTime>().or_else(|_| trimmed.parse::<jiff::civil::Date>().map(Into::into));
    let time_of_day = || trimmed.parse::<jiff::civil::Time>().map(|time| now.date().to_datetime(time));
    let at = written.or_else(|_| time_of_day()).and_then(|at| at.to_zoned(now.time_zone().clone()));
    at.map(|at| at.timestamp()).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn spans_have_their_two_largest_units() {
        for (ms, text) in [
            (-5, "0s"),
            (0, "0s"),
            (120, "120ms"),
            (3_000, "3s"),
            (3_240, "3.2s"),
            (41_900, "41s"),
            (60_000, "1min"),
            (7_380_000, "2h 3min"),
            (7_200_000, "2h"),
            (93_600_000, "1d 2h"),
        ] {
            assert_eq!(span(ms), text, "{ms}");
        }
        assert_eq!(span_short(7_380_000), "2h");
    }

    #[test]
    fn sizes_and_numbers_are_short() {
        for (bytes, text) in
            [(0, "0B"), (512 << 20, "512M"), (3 << 29, "1.5G"), (1 << 40, "1T"), (1000, "1000B"), ((1 << 30) - 1, "1024M")]
        {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(number(2.0), "2");
        assert_eq!(number(0.25), "0.25");
        assert_eq!(number(100.0), "100");
    }

    #[test]
    fn spans_are_read() {
        for (text, ms) in [
            ("90", 90_000),
            ("250ms", 250),
            ("5min 20s", 320_000),
            ("1h30min", 5_400_000),
            ("1.5h", 5_400_000),
            ("2 d", 172_800_000),
        ] {
            assert_eq!(parse_span(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "min", "5 parsecs", "1..2s", "-5s"] {
            assert!(parse_span(text).is_err(), "{text}");
        }
    }

    #[test]
    fn instants_are_read() {
        let now: Zoned = "2026-11-22T10:30:00[Europe/Berlin]".parse().unwrap();
        for (text, expect) in [
            ("-10min", "2026-11-22T09:20:00Z"),
            ("10min ago", "2026-11-22T09:20:00Z"),
            ("10min", "2026-11-22T09:20:00Z"),
            ("today", "2026-11-21T23:00:00Z"),
            ("yesterday", "2026-11-20T23:00:00Z"),
            ("08:15", "2026-11-22T07:15:00Z"),
            ("2026-11-01", "2026-10-31T23:00:00Z"),
            ("2026-11-01 12:00:00", "2026-11-01T11:00:00Z"),
            ("2026-11-01T12:00:00Z", "2026-11-01T12:00:00Z"),
        ] {
            assert_eq!(parse_instant(text, &now).map(|at| at.to_string()), Ok(expect.to_owned()), "{text}");
        }
        assert!(parse_instant("soon", &now).is_err());
    }

    #[test]
    fn instants_are_shown_in_the_zone() {
        let at = Time::from_parts(1_795_341_600_000, 0);
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        assert_eq!(instant(at, &zone), "Sun 2026-11-22 11:00:00 CET");
        assert_eq!(journal(at, &TimeZone::UTC), "Nov 22 10:00:00");
        let now = Timestamp::from_millisecond(1_795_341_600_000 - 250_000).unwrap();
        assert_eq!(relative(at, now), "in 4min");
    }
}
