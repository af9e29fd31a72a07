//! Apps: reading, creating, changing, restarting and removing them.

use super::answer::{Answer, Outcome, Step, World};
use super::ask::Ask;
use super::route::unknown_app;
use drover_api::v2::app::App;
use drover_api::v2::definition::{Mode, Wish, read_app, read_apps};
use drover_api::v2::embed::Embed;
use drover_api::v2::group::apps_below;
use drover_api::v2::selector::Selector;
use drover_api::v2::{Error, Faults};
use drover_core::app;
use drover_core::change::{self, Edit, Plan, Refused};
use drover_core::ids::{AppId, GroupId, TaskId};
use drover_core::state::AppRecord;
use drover_core::task::Program;
use drover_core::time::Timestamp;
use hyper::StatusCode;
use hyper::header::LOCATION;
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn list(ask: &Ask<'_>, world: &World<'_>) -> Outcome {
    let selector = match ask.value("label").map(Selector::parse).transpose() {
        Ok(selector) => selector,
        Err(error) => {
            let mut faults = Faults::default();
            faults.push("/label", error.to_string());
            return Err(Error::Invalid(faults));
        }
    };
    let part_of = |name: &str| ask.value(name).map(str::to_lowercase);
    let (cmd, id) = (part_of("cmd"), part_of("id"));
    let fits = |app: &app::App| {
        id.as_ref().is_none_or(|part| app.id.as_str().contains(part))
            && cmd
                .as_ref()
                .is_none_or(|part| matches!(&app.program, Program::Shell(line) if line.to_lowercase().contains(part)))
            && selector.as_ref().is_none_or(|selector| selector.matches(&app.labels))
    };
    let embed = ask.embed(Embed::list());
    let apps = world.state.apps.values().filter(|record| fits(&record.app));
    let apps: Vec<App<'_>> = apps.map(|record| App::of(world.state, record, &embed, world.now)).collect();
    Answer::named("apps", &apps).into()
}

pub(super) fn show(ask: &Ask<'_>, world: &World<'_>, id: &AppId) -> Outcome {
    let record = record(world, id)?;
    let embed = ask.embed(Embed::one());
    Answer::named("app", &App::of(world.state, record, &embed, world.now)).into()
}

pub(super) fn list_below(ask: &Ask<'_>, world: &World<'_>, group: &GroupId) -> Outcome {
    let embed = ask.embed(Embed::list());
    let apps = apps_below(world.state, group);
    let apps: Vec<App<'_>> = apps.map(|(_, record)| App::of(world.state, record, &embed, world.now)).collect();
    if apps.is_empty() {
        return Err(Error::NotFound(format!("Group '{group}' does not exist")));
    }
    Answer::named("*", &apps).into()
}

/// Newest first.
pub(super) fn versions(world: &World<'_>, id: &AppId) -> Outcome {
    let versions: Vec<String> = record(world, id)?.versions.keys().rev().map(Timestamp::to_string).collect();
    Answer::named("versions", &versions).into()
}

pub(super) fn show_version(ask: &Ask<'_>, world: &World<'_>, id: &AppId, version: &str) -> Outcome {
    let record = record(world, id)?;
    let Some(version) = Timestamp::parse(version) else {
        let mut faults = Faults::default();
        faults.push("/version", format!("must be a version of this app, such as 2024-01-01T10:00:00.000Z; '{version}' is not"));
        return Err(Error::Invalid(faults));
    };
    let app = record.versions.get(&version).ok_or_else(|| unknown_version(id, version))?;
    Answer::json(StatusCode::OK, &App::definition(app, &ask.embed(Embed::default()))).into()
}

pub(super) fn create(ask: &Ask<'_>, world: &World<'_>) -> Outcome {
    let wish = read_app(ask.body, None, Mode::Full, |_| None)?;
    let Wish::Definition(wished) = wish else { unreachable!("a whole definition is no wish for a version") };
    let id = wished.id.clone();
    if world.state.apps.contains_key(&id) {
        return Err(Error::Exists(format!("An app with id [{id}] already exists.")));
    }
    let plan = plan(ask, world, BTreeMap::from([(id.clone(), Edit::Put(wished))]), &|_| String::new())?;
    let app = plan.app(&id).expect("a new app is a change");
    let answer = Answer::json(StatusCode::CREATED, &App::accepted(app, &plan.deployment.id));
    Ok(propose(&plan, answer.started(&plan).with(LOCATION, id.as_str())))
}

pub(super) fn put(ask: &Ask<'_>, world: &World<'_>, id: &AppId) -> Outcome {
    let mode = if ask.flag("partialUpdate", true) { Mode::Partial } else { Mode::Full };
    let existed = world.state.apps.contains_key(id);
    let wish = read_app(ask.body, Some(id), mode, |id| current(world, id))?;
    let edits = BTreeMap::from([(id.clone(), edit(world, wish)?)]);
    let plan = plan(ask, world, edits, &|_| String::new())?;
    Ok(propose(
        &plan,
        match existed {
            true => Answer::deployment(StatusCode::OK, &plan),
            false => Answer::deployment(StatusCode::CREATED, &plan).with(LOCATION, id.as_str()),
        },
    ))
}

pub(super) fn patch(ask: &Ask<'_>, world: &World<'_>, id: &AppId) -> Outcome {
    record(world, id)?;
    let wish = read_app(ask.body, Some(id), Mode::Partial, |id| current(world, id))?;
    let plan = plan(ask, world, BTreeMap::from([(id.clone(), edit(world, wish)?)]), &|_| String::new())?;
    Ok(propose(&plan, Answer::deployment(StatusCode::OK, &plan)))
}

/// A list of apps in one deployment. `creates` tells `PUT`, which makes those that are missing, from `PATCH`.
pub(super) fn change_many(ask: &Ask<'_>, world: &World<'_>, creates: bool) -> Outcome {
    let mode = if !creates || ask.flag("partialUpdate", true) { Mode::Partial } else { Mode::Full };
    let wishes = read_apps(ask.body, mode, |id| current(world, id))?;
    let mut edits = BTreeMap::new();
    let mut places = BTreeMap::new();
    for (index, wish) in wishes.into_iter().enumerate() {
        if !creates {
            record(world, wish.app())?;
        }
        places.insert(wish.app().clone(), format!("/({index})"));
        edits.insert(wish.app().clone(), edit(world, wish)?);
    }
    let plan = plan(ask, world, edits, &|id| places.get(id).cloned().unwrap_or_default())?;
    Ok(propose(&plan, Answer::deployment(StatusCode::OK, &plan)))
}

pub(super) fn restart(ask: &Ask<'_>, world: &World<'_>, id: AppId) -> Outcome {
    let plan = plan(ask, world, BTreeMap::from([(id, Edit::Restart)]), &|_| String::new())?;
    Ok(propose(&plan, Answer::deployment(StatusCode::OK, &plan)))
}

/// The one change that cancels what is in its way unless told not to.
pub(super) fn remove(ask: &Ask<'_>, world: &World<'_>, id: AppId) -> Outcome {
    let request =
        change::Request { force: ask.flag("force", true), ..request(ask, world, BTreeMap::from([(id, Edit::Remove)])) };
    let plan = plan_request(world, request, &|_| String::new())?;
    Ok(propose(&plan, Answer::deployment(StatusCode::OK, &plan)))
}

/// Fewer instances of some apps, `victims` going first.
pub(super) fn scale_down(ask: &Ask<'_>, world: &World<'_>, by: &BTreeMap<AppId, u32>, victims: BTreeSet<TaskId>) -> Outcome {
    let smaller = |(id, count): (&AppId, &u32)| {
        let app = current(world, id)?;
        let smaller = app::App { instances: app.instances.saturating_sub(*count), ..app.clone() };
        Some((id.clone(), Edit::Put(Box::new(smaller))))
    };
    let edits = by.iter().filter_map(smaller).collect();
    let request = change::Request { preselected: victims, ..request(ask, world, edits) };
    let plan = plan_request(world, request, &|_| String::new())?;
    Ok(propose(&plan, Answer::deployment(StatusCode::OK, &plan)))
}

pub(super) fn propose(plan: &Plan, answer: Answer) -> Step {
    Step::Propose { commands: vec![plan.command()], answer }
}

/// `place` gives an app's path in the document, for faults that only show in the whole.
fn plan(
    ask: &Ask<'_>,
    world: &World<'_>,
    edits: BTreeMap<AppId, Edit>,
    place: &dyn Fn(&AppId) -> String,
) -> Result<Plan, Error> {
    plan_request(world, request(ask, world, edits), place)
}

fn request(ask: &Ask<'_>, world: &World<'_>, edits: BTreeMap<AppId, Edit>) -> change::Request {
    change::Request {
        edits,
        force: ask.flag("force", false),
        preselected: BTreeSet::new(),
        deployment: world.new_id.clone(),
        now: world.now,
    }
}

pub(super) fn plan_request(
    world: &World<'_>,
    request: change::Request,
    place: &dyn Fn(&AppId) -> String,
) -> Result<Plan, Error> {
    let is_new = |(id, edit): &(&AppId, &Edit)| matches!(edit, Edit::Put(_)) && !world.state.apps.contains_key(*id);
    let new = request.edits.iter().filter(is_new).count();
    if new > 0 && world.state.apps.len() + new > world.limits.apps {
        let max = world.limits.apps;
        return Err(Error::LimitReached(format!(
            "This cluster may have {max} apps at most, and has {}. Raise [master.limits] apps, or remove some.",
            world.state.apps.len()
        )));
    }
    let fault = |app: &AppId, member: &str, why: String| {
        let mut faults = Faults::default();
        faults.push(&format!("{}/{member}", place(app)), why);
        Error::Invalid(faults)
    };
    let mut wanted: usize = world.state.apps.values().map(|record| record.app.instances as usize).sum();
    let mut is_more = false;
    for (id, edit) in &request.edits {
        let before = world.state.apps.get(id).map_or(0, |record| record.app.instances as usize);
        let after = match edit {
            Edit::Put(app) => app.instances as usize,
            Edit::Restart => before,
            Edit::Remove => 0,
        };
        // What is there already may stay, and may shrink, also after a limit was lowered.
        if after > before && after > world.limits.instances {
            return Err(fault(
                id,
                "instances",
                format!("must be at most {}: [master.limits] instances", world.limits.instances),
            ));
        }
        is_more |= after > before;
        wanted = (wanted + after).saturating_sub(before);
    }
    if is_more && wanted > world.limits.instances_total {
        return Err(Error::LimitReached(format!(
            "This cluster may have {} instances of all apps together, and would have {wanted}. Raise [master.limits] \
             instances_total, or remove some.",
            world.limits.instances_total
        )));
    }
    change::plan(world.state, request).map_err(|refused| {
        let why = refused.to_string();
        match refused {
            Refused::Unknown(id) => unknown_app(id.as_str()),
            Refused::Locked(deployments) => Error::Locked(deployments),
            Refused::Cycle(app) => fault(&app, "dependencies", why),
            Refused::AppAndGroup { app, .. } => fault(&app, "id", why),
            Refused::NoServicePort(app) => fault(&app, "portDefinitions", why),
        }
    })
}

/// The edit that makes a wish come true.
fn edit(world: &World<'_>, wish: Wish) -> Result<Edit, Error> {
    match wish {
        Wish::Definition(app) => Ok(Edit::Put(app)),
        Wish::Version(id, version) => {
            let app = record(world, &id)?.versions.get(&version);
            app.map(|app| Edit::Put(Box::new(app.clone()))).ok_or_else(|| unknown_version(&id, version))
        }
    }
}

pub(super) fn record<'a>(world: &World<'a>, id: &AppId) -> Result<&'a AppRecord, Error> {
    world.state.apps.get(id).ok_or_else(|| unknown_app(id.as_str()))
}

fn current<'a>(world: &World<'a>, id: &AppId) -> Option<&'a app::App> {
    world.state.apps.get(id).map(|record| &record.app)
}

fn unknown_version(id: &AppId, version: Timestamp) -> Error {
    Error::NotFound(format!("App '{id}' does not exist in version {version}"))
}
