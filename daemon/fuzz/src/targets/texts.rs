//! The configuration, and small texts that stand in paths, headers, bodies and files.

use crate::fixture::NOW;
use drover_api::request_id::RequestId;
use drover_api::v2::selector::Selector;
use drover_core::ids::{AppId, GroupId, JobName, RunId, TaskId};
use drover_core::schedule;
use drover_core::time::Timestamp;
use drover_core::unit::{is_unit_of_a_task, sandbox_directory, unit_name};
use drover_pki::JoinToken;
use droverd::config::{Config, ConfigError};
use std::path::Path;
use std::time::{Duration, Instant};

/// A file that is refused says every fault with its place; one that is taken can be run with.
pub(super) fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let config = match Config::parse(text, "n1", Path::new("drover.toml")) {
        Ok(config) => config,
        Err(ConfigError::Faulty { faults, .. }) => {
            assert!(!faults.is_empty(), "refused without a fault");
            // A key may be empty in TOML, and then so is its place.
            assert!(faults.iter().all(|fault| !fault.why.is_empty()), "{faults:?}");
            return;
        }
        Err(error) => {
            assert!(error.to_string().contains("drover.toml"));
            return;
        }
    };
    assert!(config.master.is_some() || config.agent.is_some(), "there is nothing to do");
    if let Some(master) = config.master {
        let timer = |span: Duration| Instant::now().checked_add(span * 10).expect("a timer can be set");
        timer(master.heartbeat_interval);
        timer(master.election_timeout);
        timer(master.agent_timeout.to_duration());
        timer(master.agent_heartbeat.to_duration());
        for span in
            [master.limits.head_timeout, master.limits.body_timeout, master.limits.idle_timeout, master.limits.stall_timeout]
        {
            timer(span);
        }
    }
    if let Some(agent) = config.agent {
        assert!(!agent.masters.is_empty(), "there is nobody to ask");
    }
}

/// A schedule that is taken has slots that rise, and is printed as what it is.
pub(super) fn schedule(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (text, zone) = text.split_once('\n').unwrap_or((text, ""));
    let read = match schedule::parse(text, zone, NOW) {
        Ok(read) => read,
        Err(faults) => {
            assert!(!faults.is_empty() && faults.iter().all(|fault| !fault.why.is_empty()), "{faults:?}");
            return;
        }
    };
    let written = serde_json::to_vec(&read).expect("a schedule is plain data");
    assert_eq!(serde_json::from_slice::<schedule::Schedule>(&written).expect("a schedule reads back"), read);
    let mut last: Option<Timestamp> = None;
    let mut next = read.slot_at_or_after(NOW);
    for _ in 0..6 {
        let Some(slot) = next else { break };
        assert!(slot >= NOW && last.is_none_or(|last| last < slot), "{last:?} is followed by {slot:?}");
        assert_eq!(read.latest_slot_at_or_before(slot), Some(slot), "a slot is the latest at its own time");
        assert_eq!(read.slot_at_or_after(slot), Some(slot), "a slot is the first at its own time");
        let rest = read.remaining_from(slot, read.repeats());
        let again = schedule::parse(&rest, zone, NOW).unwrap_or_else(|faults| panic!("{rest:?} is not read: {faults:?}"));
        assert_eq!(again.slot_at_or_after(slot), Some(slot), "{rest:?} goes on elsewhere");
        (last, next) = (Some(slot), read.slot_after(slot));
    }
    for far in [i64::MIN, 0, i64::MAX] {
        read.slot_at_or_after(Timestamp(far));
        read.slot_after(Timestamp(far));
        read.latest_slot_at_or_before(Timestamp(far));
    }
}

/// Names of all kinds: what is one is written as what it is.
pub(super) fn names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(app) = AppId::parse(text) {
        assert_eq!(AppId::parse(app.as_str()).as_ref(), Ok(&app), "an id is what it is written as");
        assert!(app.segments().count() > 0 && app.group().contains(&app), "{app} is in its group");
        check_task(&TaskId::of_app(&app, "1"));
    }
    if let Ok(group) = GroupId::parse(text) {
        assert_eq!(GroupId::parse(group.as_str()).as_ref(), Ok(&group), "an id is what it is written as");
        let (mut above, mut steps) = (group.clone(), 0);
        while above != GroupId::root() {
            (above, steps) = (above.parent(), steps + 1);
            assert!(steps <= text.len(), "{group} is below the root");
        }
        if let Ok(app) = AppId::resolve(text, &group) {
            assert_eq!(AppId::parse(app.as_str()), Ok(app));
        }
    }
    if let Ok(job) = JobName::parse(text) {
        assert_eq!(JobName::parse(job.as_str()).as_ref(), Ok(&job), "a name is what it is written as");
        check_task(&TaskId::of_run(&job, NOW.0, 0));
        let run = RunId::of(&job, NOW.0);
        assert_eq!(RunId::parse(run.as_str()), Some(run), "a run's id is what it is written as");
    }
    check_task(&TaskId::new(text));
    if let Ok(selector) = Selector::parse(text) {
        let labels = std::collections::BTreeMap::from([("tier".to_owned(), "back".to_owned())]);
        assert_eq!(selector.matches(&labels), selector.matches(&labels));
    }
    if let Ok(token) = text.parse::<JoinToken>() {
        assert_eq!(token.to_string(), text.trim(), "a token is what it is written as");
    }
    if let Some(at) = Timestamp::parse(text) {
        assert_eq!(Timestamp::parse(&at.to_string()), Some(at), "a time is what it is written as");
    }
    if let Some(id) = RequestId::given(Some(text), Some(text)) {
        assert!(!id.as_str().is_empty() && id.as_str().bytes().all(|byte| byte.is_ascii_graphic()), "{id:?}");
    }
    if let Ok(span) = schedule::parse_duration(text) {
        assert!(span.to_duration() >= Duration::ZERO);
    }
    assert_eq!(
        drover_systemd::inputs::unit_of(&drover_systemd::inputs::path_of(text)).as_deref(),
        Some(text),
        "a unit's object is its own"
    );
    drover_systemd::inputs::unit_of(text);
}

/// Whatever a task is called, its unit and its directory have names that systemd takes and that stay below drover's own.
fn check_task(task: &TaskId) {
    let unit = unit_name(task);
    assert!(is_unit_of_a_task(&unit), "{unit:?} is known for a task's");
    assert!(unit.len() <= 255, "{unit:?} is too long for systemd");
    assert!(unit.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte)), "{unit:?} is no unit's name");
    let directory = sandbox_directory(task);
    assert!(
        !directory.starts_with('/') && directory.split('/').all(|part| part != ".." && !part.contains('\0')),
        "{directory:?}"
    );
    assert!(directory.split('/').all(|part| part.len() <= 255), "{directory:?} is too long for a file system");
}
