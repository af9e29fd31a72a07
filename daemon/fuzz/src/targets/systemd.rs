//! What systemd and journald say.

use super::same_again;
use crate::fixture;
use drover_api::agent::LogLine;
use drover_api::drover::LogItem;
use drover_core::node::{Done, Input, Node};
use drover_core::unit::{Ledger, is_unit_of_a_task};
use drover_systemd::inputs::{self, Read};
use std::convert::Infallible;

/// A message: lost, or news that an agent can live with.
pub(super) fn dbus(bytes: &[u8]) {
    let mut parts = bytes.splitn(5, |byte| *byte == b'\n');
    let mut text = || std::str::from_utf8(parts.next()?).ok();
    let (Some(interface), Some(member), Some(path), Some(signature)) = (text(), text(), text(), text()) else { return };
    let Some(read) = inputs::message(interface, member, path, signature, parts.next().unwrap_or_default()) else { return };
    let mut node = Node::new(Ledger::default(), fixture::facts(), "boot".into(), fixture::after(0));
    let mut take_in = |input| {
        node.take_in(input, fixture::after(1)).expect("only assignments are left unheeded");
        node.turn(fixture::after(20));
        let Ok(_effects) = node.put_on_record(|_, _| Ok::<_, Infallible>(()));
    };
    take_in(Input::Done(Done::Connected { began_at: 1, units: Vec::new() }));
    match read {
        Read::News(news) => {
            assert!(news.units.keys().all(|unit| is_unit_of_a_task(unit)), "{:?} are not all of tasks", news.units.keys());
            take_in(Input::News { units: news.units, must_relist: news.must_relist });
        }
        Read::Listed(units) => take_in(Input::Done(Done::Listed { units: Some(units) })),
        Read::Observed(unit) => {
            let hex = unit.invocation.as_deref().unwrap_or_default();
            assert!(hex.len() % 2 == 0 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()), "invocation {hex:?}");
            let name = unit.name.clone();
            take_in(Input::Done(Done::Observed { unit: name, outcome: Ok(Some(unit)) }));
        }
        Read::Unreadable => {}
    }
}

/// Entries: each is a line that arrives at the client as what was written, and together they tell of a unit's end.
pub(super) fn journal(bytes: &[u8]) {
    let mut entries: Vec<Vec<(&str, &[u8])>> = vec![Vec::new()];
    for line in bytes.split(|byte| *byte == b'\n') {
        if line.is_empty() {
            entries.push(Vec::new());
        } else if let Some(at) = line.iter().position(|byte| *byte == b'=')
            && let Ok(name) = std::str::from_utf8(&line[..at])
        {
            entries.last_mut().expect("there is a first").push((name, &line[at + 1..]));
        }
    }
    for fields in &entries {
        let stamp = fields.iter().find(|(name, _)| *name == "__REALTIME_TIMESTAMP").map_or(&b""[..], |(_, value)| value);
        let at_us = std::str::from_utf8(stamp).ok().and_then(|stamp| stamp.parse().ok()).unwrap_or(1_714_564_800_000_001);
        let entry = inputs::journal_entry(at_us, fields);
        if let Some((_, written)) = fields.iter().find(|(name, _)| *name == "MESSAGE") {
            assert_eq!(entry.message, String::from_utf8_lossy(written));
        }
        let line = drover_agent::to_line(entry, "n1");
        assert!(line.priority <= 7, "priority {}", line.priority);
        assert!(line.at_us < 1000, "{} microseconds in a millisecond", line.at_us);
        let sent = serde_json::to_vec(&line).expect("a line can be sent");
        assert!(!sent.contains(&b'\n'), "a line is one line");
        assert_eq!(same_again::<LogLine>(&sent), Some(line.clone()), "the leader reads what the agent sent");
        let shown = serde_json::to_vec(&LogItem::Entry(line.into())).expect("an entry can be sent");
        assert!(matches!(same_again::<LogItem>(&shown), Some(LogItem::Entry(_))), "the client reads an entry");
    }
    inputs::evidence(&entries);
}
