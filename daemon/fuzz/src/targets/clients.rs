//! What clients send, and are sent.

use super::same_again;
use crate::fixture::{self, NOW};
use drover_api::drover as api;
use drover_api::v2::app::App;
use drover_api::v2::definition::{Mode, Wish, read_app, read_apps};
use drover_api::v2::embed::Embed;
use drover_api::{agent, chronos, v2};
use drover_core::app;
use drover_core::app_spec::task_spec;
use drover_core::ids::{AppId, TaskId};
use drover_core::job_change;
use drover_core::state::{ClusterState, Command};
use drover_core::task::TaskSpec;
use drover_core::time::Millis;
use drover_core::unit::{Occupancy, plan};
use drover_master::inputs::{Asked, answer};
use serde_json::Value;

/// Requests in one input.
const REQUESTS_MAX: usize = 8;

/// Requests one after the other, on a cluster that each changes and that runs what they ask for.
pub(super) fn requests(bytes: &[u8]) {
    let mut state = fixture::cluster();
    let mut at = 0;
    for text in split(bytes, b"\n%%\n").take(REQUESTS_MAX) {
        let Some((head, body)) = split_head(text) else { continue };
        let mut head = head.split(|byte| *byte == b'\n');
        let mut line = head.next().unwrap_or_default().splitn(2, |byte| *byte == b' ');
        let (method, target) = (line.next().unwrap_or_default(), line.next().unwrap_or_default());
        let headers: Vec<(&[u8], &[u8])> =
            head.filter_map(|line| Some(line.split_at(line.iter().position(|byte| *byte == b':')?))).collect();
        let headers: Vec<(&[u8], &[u8])> = headers.into_iter().map(|(name, value)| (name, value[1..].trim_ascii())).collect();
        at += 1000;
        let now = fixture::after(at);
        let before = state.clone();
        let Some(answered) = answer(Asked { method, target, headers: &headers, body }, &state, now.time) else { continue };
        assert_eq!(state, before, "deciding changes nothing");
        assert!((200..500).contains(&answered.status), "status {}", answered.status);
        assert!(!answered.id.is_empty() && answered.id.bytes().all(|byte| byte.is_ascii_graphic()), "id {:?}", answered.id);
        if answered.status >= 400 {
            check_refusal(&answered.body);
            assert!(answered.commands.is_empty(), "a refusal proposes nothing");
        }
        for command in &answered.commands {
            // Two kills of one request may be about one task.
            let may_be_moot = matches!(command, Command::KillTask { .. });
            let applied = state.apply(command);
            assert!(may_be_moot || applied.result.is_ok(), "{command:?} is refused: {:?}", applied.result);
        }
        fixture::lead(&mut state, now);
    }
    state.tasks.values().for_each(|task| check_unit(&task.id, &task.spec));
    check_state(&state);
}

fn split<'a>(bytes: &'a [u8], by: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let all = rest?;
        match all.windows(by.len()).position(|window| window == by) {
            Some(at) => {
                rest = Some(&all[at + by.len()..]);
                Some(&all[..at])
            }
            None => rest.take(),
        }
    })
}

fn split_head(text: &[u8]) -> Option<(&[u8], &[u8])> {
    match text.windows(2).position(|window| window == b"\n\n") {
        Some(at) => Some((&text[..at], &text[at + 2..])),
        None => (!text.is_empty()).then_some((text, &[])),
    }
}

/// Whatever is refused is refused in words; faults come with their places.
fn check_refusal(body: &[u8]) {
    let body: Value = serde_json::from_slice(body).expect("a refusal is JSON");
    let said = body.get("message").or(body.get("error")).and_then(Value::as_str).expect("a refusal says something");
    assert!(!said.is_empty());
    let faults = body.get("details").or(body.get("faults")).and_then(Value::as_array);
    for fault in faults.into_iter().flatten() {
        let path = fault["path"].as_str().expect("a fault has a path");
        assert!(path.starts_with('/'), "path {path:?}");
        let why = [&fault["message"], &fault["errors"][0]];
        assert!(why.iter().any(|why| why.as_str().is_some_and(|why| !why.is_empty())), "a fault says why");
    }
}

/// A state is what its snapshot says, and every dialect can show all of it.
fn check_state(state: &ClusterState) {
    let mut again: ClusterState =
        serde_json::from_slice(&serde_json::to_vec(state).expect("a state is plain data")).expect("a state reads back");
    again.rebuild_indexes();
    assert_eq!(*state, again, "from its snapshot it is another");
    let everything = Embed { tasks: true, counts: true, deployments: true, task_stats: true, ..Embed::one() };
    for record in state.apps.values() {
        serde_json::to_vec(&App::of(state, record, &everything, NOW)).expect("an app can be shown");
    }
    for version in [chronos::Version::Two, chronos::Version::Three] {
        serde_json::to_vec(&chronos::jobs(state, version)).expect("jobs can be shown");
    }
}

/// A task is one that its node can make a unit of, or refuse with every reason.
fn check_unit(task: &TaskId, spec: &TaskSpec) {
    if let Err(faults) = plan(task, spec, &fixture::facts(), &Occupancy::new()) {
        assert!(!faults.is_empty(), "refused without a fault");
        assert!(faults.iter().all(|fault| !fault.property.is_empty() && !fault.why.is_empty()), "{faults:?}");
    }
}

/// An app's definition: refused with faults, or shown and read again as the same.
pub(super) fn app(bytes: &[u8]) {
    let state = fixture::cluster();
    let current = |id: &AppId| state.apps.get(id).map(|record| &record.app);
    let full = read_app(bytes, None, Mode::Full, current).map(|wish| vec![wish]);
    let partial = read_app(bytes, None, Mode::Partial, current).map(|wish| vec![wish]);
    for read in [full, partial, read_apps(bytes, Mode::Full, current), read_apps(bytes, Mode::Partial, current)] {
        match read {
            Err(error) => check_fault(&error),
            Ok(wishes) => wishes.iter().for_each(check_wish),
        }
    }
}

fn check_fault(error: &v2::Error) {
    assert!((400..500).contains(&error.status()), "status {}", error.status());
    let body = error.body();
    check_refusal(body.to_string().as_bytes());
    if error.status() == 422 {
        assert!(body["details"].as_array().is_some_and(|faults| !faults.is_empty()), "refused without a fault: {body}");
    }
}

fn check_wish(wish: &Wish) {
    let Wish::Definition(app) = wish else { return };
    let embed = Embed { unit: true, ..Embed::default() };
    let shown = serde_json::to_vec(&App::definition(app, &embed)).expect("an app can be shown");
    match read_app(&shown, None, Mode::Full, |_| None) {
        Ok(Wish::Definition(again)) => {
            // Which version it is is the state's to say, not the definition's.
            let (version, last_scaling_at) = (app.version, app.last_scaling_at);
            let again = app::App { version, last_scaling_at, last_config_change_at: app.last_config_change_at, ..*again };
            assert_eq!(again, **app, "shown and read again it is another: {}", String::from_utf8_lossy(&shown));
        }
        other => panic!("an app that was accepted is refused as it is shown: {other:?}: {}", String::from_utf8_lossy(&shown)),
    }
    let task = TaskId::of_app(&app.id, "1");
    let ports = vec![31000; app.ports.len()];
    check_unit(&task, &task_spec(app, &task, &ports, "n1"));
}

/// A job's definition, as [`app`].
pub(super) fn chronos_job(bytes: &[u8]) {
    let state = fixture::cluster();
    for kind in [chronos::Kind::Scheduled, chronos::Kind::Dependent] {
        let job = match chronos::read_job(bytes, kind, NOW) {
            Ok(job) => job,
            Err(error) => {
                assert!((400..500).contains(&error.status()), "status {}", error.status());
                check_refusal(error.body("reason").to_string().as_bytes());
                continue;
            }
        };
        let mut with = state.clone();
        let Ok(put) = job_change::plan_put(&with, job.clone(), usize::MAX, NOW) else { continue };
        fixture::apply(&mut with, &[put]);
        let entry = &with.jobs[&job.name];
        let shown = serde_json::to_vec(&chronos::job(entry, chronos::Version::Three)).expect("a job can be shown");
        match chronos::read_job(&shown, kind, NOW) {
            Ok(again) => {
                let again = serde_json::to_value(chronos::job(
                    &drover_core::state::JobEntry { job: again, record: entry.record.clone() },
                    chronos::Version::Three,
                ));
                let shown: Value = serde_json::from_slice(&shown).expect("it was JSON a moment ago");
                assert_eq!(again.expect("a job can be shown"), shown, "shown and read again it is another");
            }
            Err(error) => {
                panic!("a job that was accepted is refused as it is shown: {error:?}: {}", String::from_utf8_lossy(&shown))
            }
        }
        for later in [0, 1000, 3_600_000, 366 * 24 * 3_600_000] {
            fixture::lead(&mut with, fixture::after(later));
        }
        check_state(&with);
    }
}

/// What drover's own API says and is told.
pub(super) fn drover_api(bytes: &[u8]) {
    same_again::<api::TokenRequest>(bytes);
    same_again::<api::RunRequest>(bytes);
    same_again::<api::Problem>(bytes);
    same_again::<api::Status>(bytes);
    same_again::<api::Nodes>(bytes);
    same_again::<api::Tasks>(bytes);
    same_again::<api::Jobs>(bytes);
    same_again::<api::JobDetail>(bytes);
    same_again::<api::Masters>(bytes);
    same_again::<api::HeldState>(bytes);
    same_again::<api::Why>(bytes);
    same_again::<api::Token>(bytes);
    same_again::<api::Event>(bytes);
    same_again::<api::LogItem>(bytes);
    if let Some(line) = same_again::<agent::LogLine>(bytes) {
        let entry = serde_json::to_vec(&api::LogItem::Entry(line.into())).expect("an entry can be sent");
        assert!(same_again::<api::LogItem>(&entry).is_some(), "an entry is read by its client");
    }
    for (method, target) in [("POST", "/drover/v1/tokens"), ("POST", "/drover/v1/jobs/backup/run")] {
        let asked = Asked { method: method.as_bytes(), target: target.as_bytes(), headers: &[], body: bytes };
        let answered = answer(asked, &fixture::cluster(), NOW + Millis(1)).expect("it is a request");
        if answered.status >= 400 {
            check_refusal(&answered.body);
        }
        fixture::apply(&mut fixture::cluster(), &answered.commands);
    }
}
