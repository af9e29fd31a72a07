//! Commands about apps: what is honoured, what is refused, and what is remembered.

use super::{AppChange, Bounds, ClusterState, Command, Refusal};
use crate::app::App;
use crate::change::{self, Edit, Plan, Request};
use crate::deployment::Deployment;
use crate::event::EventKind;
use crate::ids::{AppId, DeploymentId};
use crate::task::Program;
use crate::time::{Millis, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

const NOW: Timestamp = Timestamp(1_704_103_200_000);

fn id(text: &str) -> AppId {
    AppId::parse(text).unwrap()
}

fn app(text: &str) -> App {
    App::new(id(text), Program::Shell("true".into()))
}

fn plan(state: &ClusterState, deployment: &str, force: bool, edits: impl IntoIterator<Item = (AppId, Edit)>) -> Plan {
    let request = Request {
        edits: edits.into_iter().collect(),
        force,
        preselected: BTreeSet::new(),
        deployment: DeploymentId::new(deployment),
        now: NOW,
    };
    change::plan(state, request).unwrap()
}

fn put(app: App) -> (AppId, Edit) {
    (app.id.clone(), Edit::Put(Box::new(app)))
}

fn with(apps: &[&str]) -> ClusterState {
    let mut state = ClusterState::default();
    let plan = plan(&state, "first", false, apps.iter().map(|text| put(app(text))));
    apply(&mut state, &plan.command()).unwrap();
    finish(&mut state, "first");
    state
}

/// Applies a command and checks what must hold whatever it was: a refused one changes nothing and tells nothing, and the
/// look-ups are those that a snapshot of the state would rebuild.
fn apply(state: &mut ClusterState, command: &Command) -> Result<Vec<String>, Refusal> {
    let before = state.clone();
    let applied = state.apply(command);
    let mut rebuilt = state.clone();
    rebuilt.rebuild_indexes();
    assert!(rebuilt == *state, "the look-ups went astray in {command:?}");
    match applied.result {
        Err(refusal) => {
            assert!(*state == before && applied.events.is_empty(), "a refused command changed something: {command:?}");
            Err(refusal)
        }
        Ok(()) => Ok(applied.events.iter().map(|event| words(&event.kind)).collect()),
    }
}

fn words(kind: &EventKind) -> String {
    match kind {
        EventKind::AppChanged(app) => format!("changed {}", app.id),
        EventKind::AppRemoved(id) => format!("removed {id}"),
        EventKind::DeploymentStarted(deployment) => format!("started {}", deployment.id),
        EventKind::DeploymentStepSucceeded(deployment) => format!("step {} of {}", deployment.current, deployment.id),
        EventKind::DeploymentSucceeded(deployment) => format!("succeeded {}", deployment.id),
        EventKind::DeploymentFailed(deployment) => format!("failed {}", deployment.id),
        other => format!("{other:?}"),
    }
}

fn finish(state: &mut ClusterState, deployment: &str) {
    while let Some(Deployment { id, current, .. }) = state.deployments.get(deployment).cloned() {
        apply(state, &Command::AdvanceDeployment { id, from_step: current, at: NOW }).unwrap();
    }
}

#[test]
fn a_new_app_is_told_step_by_step() {
    let mut state = ClusterState::default();
    let create = plan(&state, "d", false, [put(app("/a"))]);
    assert_eq!(apply(&mut state, &create.command()).unwrap(), ["changed /a", "started d"]);
    let advance = |from_step| Command::AdvanceDeployment { id: DeploymentId::new("d"), from_step, at: NOW };
    assert_eq!(apply(&mut state, &advance(0)).unwrap(), ["step 0 of d"]);
    assert_eq!(
        apply(&mut state, &advance(0)),
        Err(Refusal::Stale("deployment d".into())),
        "two leaders may both see a step done"
    );
    assert_eq!(apply(&mut state, &advance(1)).unwrap(), ["step 1 of d", "succeeded d"]);
    assert_eq!(apply(&mut state, &advance(2)), Err(Refusal::NotFound("deployment d".into())));
    assert_eq!(state.deployments_of(&id("/a")).count(), 0);
}

#[test]
fn a_change_of_nothing_is_over_at_once() {
    let mut state = with(&["/a"]);
    let before = state.apps.clone();
    let nothing = plan(&state, "d", false, [put(app("/a"))]);
    assert_eq!(apply(&mut state, &nothing.command()).unwrap(), ["started d", "succeeded d"]);
    assert!(state.apps == before && state.deployments.is_empty());
}

#[test]
fn what_was_planned_on_an_older_state_is_refused() {
    let state = with(&["/a"]);
    let mut changed = app("/a");
    changed.instances = 5;
    let change = plan(&state, "change", false, [put(changed)]).command();
    let create = plan(&state, "create", false, [put(app("/b"))]).command();
    let remove = plan(&state, "remove", false, [(id("/a"), Edit::Remove)]).command();

    // Whatever comes first wins; the others must look again, even when they are about other apps.
    for first in [&change, &create, &remove] {
        for second in [&change, &create, &remove] {
            let mut state = state.clone();
            apply(&mut state, first).unwrap();
            let refusal = apply(&mut state, second).expect_err("it was planned on an older state");
            let name = |command: &Command| match command {
                Command::ChangeApps { deployment, .. } => deployment.id.to_string(),
                _ => unreachable!("all three change apps"),
            };
            let expect = match (name(first).as_str(), name(second).as_str()) {
                ("create", "create") => Refusal::Exists("app /b".into()),
                ("remove", "change" | "remove") => Refusal::NotFound("app /a".into()),
                ("change", "change" | "remove") => Refusal::Stale("app /a".into()),
                _ => Refusal::Stale("the set of apps".into()),
            };
            assert_eq!(refusal, expect);
        }
    }
}

#[test]
fn a_held_app_is_locked_unless_forced() {
    let mut state = with(&["/a", "/b", "/c"]);
    let both = plan(&state, "both", false, [(id("/a"), Edit::Restart), (id("/b"), Edit::Restart)]);
    apply(&mut state, &both.command()).unwrap();
    let c = plan(&state, "c", false, [(id("/c"), Edit::Restart)]);
    apply(&mut state, &c.command()).unwrap();

    let gentle = Plan { force: false, ..plan(&state, "d", true, [(id("/b"), Edit::Remove), (id("/c"), Edit::Restart)]) };
    let locked = vec![DeploymentId::new("both"), DeploymentId::new("c")];
    assert_eq!(apply(&mut state, &gentle.command()), Err(Refusal::Locked(locked)));
    let forced = Plan { force: true, ..gentle };
    assert_eq!(
        apply(&mut state, &forced.command()).unwrap(),
        ["failed both", "failed c", "removed /b", "changed /c", "started d"]
    );
    assert_eq!(state.deployments_of(&id("/a")).count(), 0, "what was cancelled holds nothing");
    assert_eq!(state.deployments_of(&id("/b")).count(), 1, "a removed app is held until it is gone");
}

#[test]
fn the_newest_versions_are_kept() {
    let mut state = with(&["/a"]);
    for instances in 2..70 {
        let mut app = app("/a");
        app.instances = instances;
        let plan = plan(&state, &format!("d{instances}"), true, [put(app)]);
        apply(&mut state, &plan.command()).unwrap();
    }
    let record = &state.apps["/a"];
    assert_eq!(record.versions.len(), 50);
    assert_eq!(record.versions.last_key_value().unwrap().1, &record.app);
    assert_eq!(record.app.version, NOW + Millis(68), "each write has a version of its own in the same millisecond");
    assert_eq!(record.app.last_config_change_at, NOW);

    let bounds = Bounds { app_versions: 3, ..Bounds::default() };
    apply(&mut state, &Command::SetBounds { bounds, at: NOW }).unwrap();
    let record = &state.apps["/a"];
    assert_eq!(record.versions.len(), 3, "what is kept already is cut down at once");
    assert!(record.versions.contains_key(&record.app.version));
}

#[test]
fn failures_are_forgotten_with_the_configuration_that_failed() {
    let mut state = with(&["/a"]);
    let fail = |state: &mut ClusterState| state.apps.get_mut(&id("/a")).unwrap().failures.count = 7;
    let failures = |state: &ClusterState| state.apps["/a"].failures.count;

    fail(&mut state);
    let mut bigger = app("/a");
    bigger.instances = 2;
    let scale = plan(&state, "scale", true, [put(bigger)]);
    apply(&mut state, &scale.command()).unwrap();
    assert_eq!(failures(&state), 7);

    let restart = plan(&state, "restart", true, [(id("/a"), Edit::Restart)]);
    apply(&mut state, &restart.command()).unwrap();
    assert_eq!(failures(&state), 0);

    fail(&mut state);
    apply(&mut state, &Command::ResetFailures { app: id("/a"), at: NOW }).unwrap();
    assert_eq!(failures(&state), 0);
    let unknown = Command::ResetFailures { app: id("/b"), at: NOW };
    assert_eq!(apply(&mut state, &unknown), Err(Refusal::NotFound("app /b".into())));
}

#[test]
fn a_command_that_no_plan_makes_is_refused_and_not_believed() {
    let mut state = with(&["/a"]);
    let restart = plan(&state, "first", false, [(id("/a"), Edit::Restart)]);
    apply(&mut state, &restart.command()).unwrap();
    // Two changes with one deployment id.
    let again = Plan { force: false, ..plan(&state, "first", true, [put(app("/b"))]) };
    assert_eq!(apply(&mut state, &again.command()), Err(Refusal::Exists("deployment first".into())));
    // A removal of what was never there.
    let nothing = Plan {
        changes: vec![AppChange { id: id("/x"), based_on: Some(NOW), to: None }],
        deployment: Deployment { originals: BTreeMap::new(), ..again.deployment.clone() },
        ..again
    };
    assert_eq!(apply(&mut state, &nothing.command()), Err(Refusal::NotFound("app /x".into())));
    let cancel = Command::CancelDeployment { id: DeploymentId::new("none"), at: NOW };
    assert_eq!(apply(&mut state, &cancel), Err(Refusal::NotFound("deployment none".into())));
}
