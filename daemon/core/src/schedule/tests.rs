//! Tables and properties of schedules.

use super::*;
use crate::time::Millis;
use proptest::prelude::*;

const NOW: Timestamp = Timestamp(1_780_000_000_123);

fn schedule(text: &str, zone: &str) -> Schedule {
    parse(text, zone, NOW).unwrap_or_else(|faults| panic!("{text} {zone}: {faults:?}"))
}

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap_or_else(|| panic!("{text} is no time"))
}

/// The first `n` slots from `from` on, on the schedule's own clock.
fn slots(schedule: &Schedule, from: &str, n: usize) -> Vec<String> {
    let first = schedule.slot_at_or_after(at(from));
    let slots = std::iter::successors(first, |slot| schedule.slot_after(*slot));
    slots.take(n).map(|slot| schedule.zone.print(slot)).collect()
}

#[test]
fn what_chronos_reads_is_read() {
    for (text, zone, times, start, period, next) in [
        ("R5/2008-03-01T13:00:00Z/P1D", "", Some(5), "2008-03-01T13:00:00.000Z", "P1D", "2008-03-02T13:00:00.000Z"),
        (
            "R/2008-03-01T13:00:00Z/P1D",
            "Europe/Paris",
            None,
            "2008-03-01T13:00:00.000+01:00",
            "P1D",
            "2008-03-02T13:00:00.000+01:00",
        ),
        ("R/2008-03-01/P1D", "PST", None, "2008-03-01T00:00:00.000-08:00", "P1D", "2008-03-02T00:00:00.000-08:00"),
        (
            "R/2008-03-01T13:00:00-04:00/PT24H",
            "",
            None,
            "2008-03-01T13:00:00.000-04:00",
            "PT24H",
            "2008-03-02T13:00:00.000-04:00",
        ),
        (
            "R/2008-03-01T13:00:00-04:00/PT24H",
            "pst",
            None,
            "2008-03-01T13:00:00.000-08:00",
            "PT24H",
            "2008-03-02T13:00:00.000-08:00",
        ),
        ("R0/2014-01-01T00:00:00Z/PT60M", "", Some(0), "2014-01-01T00:00:00.000Z", "PT60M", "2014-01-01T01:00:00.000Z"),
        (
            "R/2024-05-01T03:00/P1Y2M1W3DT4H5M6S",
            "utc",
            None,
            "2024-05-01T03:00:00.000Z",
            "P1Y2M1W3DT4H5M6S",
            "2025-07-11T07:05:06.000Z",
        ),
        ("R//PT1H", "", None, "2026-05-28T20:26:40.123Z", "PT1H", "2026-05-28T21:26:40.123Z"),
        ("R/2024-05-01T03:00:00.2509Z/PT1M", "", None, "2024-05-01T03:00:00.250Z", "PT1M", "2024-05-01T03:01:00.250Z"),
    ] {
        let schedule = schedule(text, zone);
        let Rule::Repeat(repeat) = &schedule.rule;
        assert_eq!(repeat.times, times, "{text}");
        assert_eq!(schedule.zone.print(schedule.start()), start, "{text} {zone}");
        assert_eq!(repeat.period.to_string(), period, "{text}");
        assert_eq!(schedule.zone.print(schedule.slot_after(schedule.start()).unwrap()), next, "{text}");
    }
}

#[test]
fn a_single_run_needs_no_period() {
    let once = schedule("R1//P", "");
    assert_eq!(once.start(), NOW);
    assert_eq!(once.slot_at_or_after(Timestamp(0)), Some(NOW));
    assert_eq!(once.slot_after(NOW), None);
    assert_eq!(once.latest_slot_at_or_before(Timestamp(i64::MAX)), Some(NOW));
}

#[test]
fn every_fault_is_told_at_once() {
    for (text, zone, expect) in [
        ("", "", vec![(Part::Form, "three parts")]),
        ("R/2008-03-01T13:00:00Z", "", vec![(Part::Form, "three parts")]),
        ("every day", "Mars", vec![(Part::Zone, "'Mars'"), (Part::Form, "three parts")]),
        ("R-1//PT1H", "", vec![(Part::Repeats, "'R-1'")]),
        ("R99999999999//PT1H", "", vec![(Part::Repeats, "at most")]),
        (
            "Rx/soon/never",
            "Europe/Berln",
            vec![
                (Part::Zone, "did you mean 'Europe/Berlin'"),
                (Part::Repeats, "'Rx'"),
                (Part::Period, "'never' is not"),
                (Part::Start, "'soon' is not"),
            ],
        ),
        ("R//P", "", vec![(Part::Period, "at least one second")]),
        ("R2//PT0S", "", vec![(Part::Period, "at least one second")]),
        ("R//PT0.5S", "", vec![(Part::Period, "fraction")]),
        ("R//PT", "", vec![(Part::Period, "'PT' is not")]),
        ("R//P1H", "", vec![(Part::Period, "'P1H' is not")]),
        ("R//P1D1Y", "", vec![(Part::Period, "'P1D1Y' is not")]),
        ("R//PD", "", vec![(Part::Period, "'PD' is not")]),
        ("R//P-1D", "", vec![(Part::Period, "'P-1D' is not")]),
        ("R//P10000Y", "", vec![(Part::Period, "'10000Y' is too long")]),
        ("R/P1D/2024-01-01", "", vec![(Part::Period, "the start must stand before")]),
        ("R/2024-02-30/P1D", "", vec![(Part::Start, "'2024-02-30' is not")]),
        ("R/1970-01-01T00:00:00Z/P1D", "", vec![(Part::Start, "must not be before 1970-01-01T00:00:01.000Z")]),
        ("R/2024-01-01T00:00:00+01:00[Europe/Paris]/P1D", "", vec![(Part::Start, "in brackets")]),
        ("R//P1D", "BST", vec![(Part::Zone, "Java took it for 'Asia/Dhaka'")]),
        ("R//P1D", "CST", vec![(Part::Zone, "Java took it for 'America/Chicago'")]),
        ("R//P1D", "berlin", vec![(Part::Zone, "'Europe/Berlin'")]),
        ("R//P1D", "PDT", vec![(Part::Zone, "'PDT' is not a zone")]),
        ("R//P1D", "Etc/Unknown", vec![(Part::Zone, "not a zone")]),
    ] {
        let faults = parse(text, zone, NOW).expect_err(text);
        assert_eq!(faults.len(), expect.len(), "{text}: {faults:?}");
        for (fault, (part, why)) in faults.iter().zip(expect) {
            assert!(fault.part == part && fault.why.contains(why), "{text}: {fault:?} instead of {part}: {why}");
        }
    }
}

#[test]
fn months_are_clipped_from_the_start_every_time() {
    assert_eq!(
        slots(&schedule("R/2024-01-31T06:00:00Z/P1M", ""), "2024-01-01T00:00:00Z", 5),
        ["2024-01-31", "2024-02-29", "2024-03-31", "2024-04-30", "2024-05-31"].map(|day| format!("{day}T06:00:00.000Z"))
    );
    assert_eq!(
        slots(&schedule("R/2024-02-29/P1Y", ""), "2026-01-01T00:00:00Z", 3),
        ["2026-02-28", "2027-02-28", "2028-02-29"].map(|day| format!("{day}T00:00:00.000Z"))
    );
}

#[test]
fn gaps_and_folds() {
    for (text, zone, from, expect) in [
        // Spring: a wall time that is skipped runs at the end of the gap, and the day after at its own time again.
        (
            "R/2026-03-28T02:30/P1D",
            "Europe/Berlin",
            "2026-03-28T00:00:00Z",
            vec!["2026-03-28T02:30:00.000+01:00", "2026-03-29T03:00:00.000+02:00", "2026-03-30T02:30:00.000+02:00"],
        ),
        // A start in the gap keeps the wall time that was meant.
        (
            "R/2026-03-29T02:30/P1D",
            "Europe/Berlin",
            "2026-03-28T00:00:00Z",
            vec!["2026-03-29T03:00:00.000+02:00", "2026-03-30T02:30:00.000+02:00"],
        ),
        (
            "R/2026-03-28T02:30/PT24H",
            "Europe/Berlin",
            "2026-03-28T00:00:00Z",
            vec!["2026-03-28T02:30:00.000+01:00", "2026-03-29T03:30:00.000+02:00", "2026-03-30T03:30:00.000+02:00"],
        ),
        // Autumn: a wall time that comes twice runs at the first.
        (
            "R/2026-10-24T02:30/P1D",
            "Europe/Berlin",
            "2026-10-24T00:00:00Z",
            vec!["2026-10-24T02:30:00.000+02:00", "2026-10-25T02:30:00.000+02:00", "2026-10-26T02:30:00.000+01:00"],
        ),
        // An hourly schedule runs every hour there is.
        (
            "R/2026-10-24T00:00/PT1H",
            "Europe/Berlin",
            "2026-10-24T23:30:00Z",
            vec!["2026-10-25T02:00:00.000+02:00", "2026-10-25T02:00:00.000+01:00", "2026-10-25T03:00:00.000+01:00"],
        ),
        (
            "R/2026-03-07T02:30/P1D",
            "America/New_York",
            "2026-03-08T00:00:00Z",
            vec!["2026-03-08T03:00:00.000-04:00", "2026-03-09T02:30:00.000-04:00"],
        ),
        // Half an hour's shift.
        (
            "R/2026-10-03T02:15/P1D",
            "Australia/Lord_Howe",
            "2026-10-03T00:00:00Z",
            vec!["2026-10-04T02:30:00.000+11:00", "2026-10-05T02:15:00.000+11:00"],
        ),
        (
            "R/2026-04-04T01:45/P1D",
            "Australia/Lord_Howe",
            "2026-04-04T00:00:00Z",
            vec!["2026-04-05T01:45:00.000+11:00", "2026-04-06T01:45:00.000+10:30"],
        ),
        // Samoa had no 30 December 2011. A slot of that day's midnight meets the next day's, and they are one.
        (
            "R/2011-12-29T10:00/P1D",
            "Pacific/Apia",
            "2011-12-29T00:00:00Z",
            vec!["2011-12-29T10:00:00.000-10:00", "2011-12-31T00:00:00.000+14:00", "2011-12-31T10:00:00.000+14:00"],
        ),
        (
            "R/2011-12-29T00:00/P1D",
            "Pacific/Apia",
            "2011-12-29T00:00:00Z",
            vec!["2011-12-29T00:00:00.000-10:00", "2011-12-31T00:00:00.000+14:00", "2012-01-01T00:00:00.000+14:00"],
        ),
        // Midnight that does not exist (Havana's clocks jump at 00:00).
        (
            "R/2026-03-07/P1D",
            "America/Havana",
            "2026-03-08T00:00:00Z",
            vec!["2026-03-08T01:00:00.000-04:00", "2026-03-09T00:00:00.000-04:00"],
        ),
    ] {
        let schedule = schedule(text, zone);
        assert_eq!(slots(&schedule, from, expect.len()), expect, "{text} {zone}");
    }
}

#[test]
fn two_years_of_daily_slots_keep_their_wall_time_but_in_gaps() {
    for (zone, odd_days) in [("Europe/Berlin", 2), ("America/New_York", 2), ("Australia/Lord_Howe", 2), ("UTC", 0)] {
        let schedule = schedule("R/2025-01-01T02:15:00/P1D", zone);
        let all = slots(&schedule, "2024-12-31T00:00:00Z", 730);
        assert_eq!(all.iter().filter(|slot| !slot.contains("T02:15:00.000")).count(), odd_days, "{zone}");
        let days: std::collections::BTreeSet<&str> = all.iter().map(|slot| &slot[..10]).collect();
        assert_eq!(days.len(), 730, "{zone}: one a day");
    }
}

#[test]
fn the_rewritten_form_counts_down_from_the_next_slot() {
    for (text, zone, next, remaining, expect) in [
        ("R5/2008-03-01T13:00:00Z/P1D", "", "2008-03-02T13:00:00Z", Some(4), "R4/2008-03-02T13:00:00.000Z/P1D"),
        ("R/2008-03-01T13:00:00-04:00/PT60M", "", "2008-03-01T18:00:00Z", None, "R/2008-03-01T14:00:00.000-04:00/PT60M"),
        ("R/2008-07-01T13:00/P1W", "Europe/Paris", "2008-07-08T11:00:00Z", None, "R/2008-07-08T13:00:00.000+02:00/P1W"),
        ("R1//P", "", "2008-07-08T11:00:00Z", Some(0), "R0/2008-07-08T11:00:00.000Z/PT0S"),
    ] {
        assert_eq!(schedule(text, zone).remaining_from(at(next), remaining), expect);
    }
}

#[test]
fn slots_far_from_the_start_are_found_without_walking() {
    let every_second = schedule("R/1970-01-02T00:00:00Z/PT1S", "");
    let late = at("2199-12-31T23:59:59.999Z");
    assert_eq!(every_second.slot_at_or_after(late), Some(at("2200-01-01T00:00:00Z")));
    assert_eq!(every_second.latest_slot_at_or_before(late), Some(at("2199-12-31T23:59:59Z")));
    let daily = schedule("R/1971-01-01T12:00/P1D", "Europe/London");
    assert_eq!(daily.slot_at_or_after(at("2199-07-01T00:00:00Z")), Some(at("2199-07-01T11:00:00Z")));
    assert_eq!(daily.slot_at_or_after(Timestamp(i64::MAX)), None, "the calendar ends");
    assert_eq!(daily.latest_slot_at_or_before(at("1970-12-31T00:00:00Z")), None, "it has not begun");
}

#[test]
fn what_is_stored_does_not_change_its_shape() {
    let schedule = schedule("R3/2024-01-31T06:00:00/P1M", "Europe/Berlin");
    let text = serde_json::to_string(&schedule).unwrap();
    assert_eq!(
        text,
        r#"{"text":"R3/2024-01-31T06:00:00/P1M","zone":{"named":"Europe/Berlin"},"rule":{"repeat":{"times":3,"start":1706677200000,"local":"2024-01-31T06:00:00","period":{"years":0,"months":1,"weeks":0,"days":0,"hours":0,"minutes":0,"seconds":0}}}}"#
    );
    assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), schedule);
}

#[test]
fn durations() {
    assert_eq!(parse_duration("PT60S"), Ok(Millis::from_secs(60)));
    assert_eq!(parse_duration("P1DT1H"), Ok(Millis::from_secs(25 * 3600)));
    assert_eq!(parse_duration("PT0S"), Ok(Millis(0)));
    assert!(parse_duration("P1M").is_err());
    assert!(parse_duration("60").is_err());
}

const ZONES: [&str; 8] = [
    "",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "America/Havana",
    "Asia/Kolkata",
    "Africa/Casablanca",
];

fn any_schedule() -> impl Strategy<Value = Schedule> {
    let period = prop_oneof![
        (1u32..40).prop_map(|days| Period { days, ..Period::default() }),
        (1u32..30).prop_map(|months| Period { months, ..Period::default() }),
        (1u32..3000).prop_map(|minutes| Period { minutes, ..Period::default() }),
        (0u32..2, 0u32..3, 0u32..2, 0u32..3, 0u32..30, 0u32..90, 1u32..90).prop_map(
            |(years, months, weeks, days, hours, minutes, seconds)| Period {
                years,
                months,
                weeks,
                days,
                hours,
                minutes,
                seconds
            }
        ),
    ];
    // Starts over twenty years, at any minute.
    (period, prop::sample::select(ZONES.to_vec()), 16_000_000i64..27_000_000, any::<bool>()).prop_map(
        |(period, zone, minute, month_end)| {
            let mut start = Timestamp(minute * 60_000).to_jiff().to_zoned(TimeZone::UTC).datetime();
            if month_end {
                start = start.last_of_month();
            }
            schedule(&format!("R/{start}/{period}"), zone)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Asking for slots one by one gives what counting gives, each once, rising.
    #[test]
    fn slots_rise_and_agree_with_counting(schedule in any_schedule(), skip in 0i64..2000) {
        let Rule::Repeat(repeat) = &schedule.rule;
        let mut counted: Vec<Timestamp> = (skip..skip + 60).map_while(|k| repeat.slot(&schedule.zone, k)).collect();
        prop_assert!(counted.is_sorted());
        counted.dedup();
        prop_assume!(counted.len() > 2);
        for pair in counted.windows(2) {
            let (one, two) = (pair[0], pair[1]);
            prop_assert_eq!(schedule.slot_at_or_after(one), Some(one));
            prop_assert_eq!(schedule.slot_after(one), Some(two));
            prop_assert_eq!(schedule.latest_slot_at_or_before(two), Some(two));
            prop_assert_eq!(schedule.latest_slot_at_or_before(Timestamp(two.0 - 1)), Some(one));
        }
    }

    /// What lies between is rounded the right way.
    #[test]
    fn any_time_lies_between_its_slots(schedule in any_schedule(), offset in -90i64 * DAY_MS..9000 * DAY_MS) {
        let t = Timestamp(schedule.start().0 + offset);
        let next = schedule.slot_at_or_after(t).expect("not at the end of the calendar");
        prop_assert!(next >= t);
        match schedule.latest_slot_at_or_before(t) {
            None => prop_assert!(t < schedule.start()),
            Some(last) => {
                prop_assert!(last <= t);
                prop_assert_eq!(schedule.slot_after(last), if next == t { schedule.slot_after(t) } else { Some(next) });
            }
        }
    }
}
