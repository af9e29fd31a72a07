//! Tasks: reading and killing them. A killed task is replaced at once, without back-off; killed with `scale`, it is not.

use super::answer::{Answer, Outcome, Step, World};
use super::apps::{record, scale_down};
use super::ask::Ask;
use drover_api::v2::group::apps_below;
use drover_api::v2::task::{self, owner, visible_state};
use drover_api::v2::{Error, Faults};
use drover_core::app::App;
use drover_core::ids::{AppId, GroupId, TaskId};
use drover_core::state::Command;
use drover_core::task::{Task, TaskState};
use serde_json::Value;
use std::collections::BTreeMap;

pub(super) fn list_all(ask: &Ask<'_>, world: &World<'_>) -> Outcome {
    if ask.wants_text {
        return text(world, world.state.apps.values().map(|record| &record.app));
    }
    let wanted: Vec<&str> = ask.values("status").chain(ask.values("status[]")).collect();
    let fits = |task: &&Task| {
        let state = match visible_state(task) {
            TaskState::Staging | TaskState::Starting => "staging",
            TaskState::Running => "running",
            _ => "",
        };
        wanted.is_empty() || wanted.iter().any(|wanted| wanted.eq_ignore_ascii_case(state))
    };
    tasks(world, world.state.tasks.values().filter(fits))
}

pub(super) fn list(ask: &Ask<'_>, world: &World<'_>, id: &AppId) -> Outcome {
    let record = record(world, id)?;
    if ask.wants_text {
        return text(world, std::iter::once(&record.app));
    }
    tasks(world, world.state.tasks_of_app(id))
}

pub(super) fn list_below(ask: &Ask<'_>, world: &World<'_>, group: &GroupId) -> Outcome {
    let mut apps = apps_below(world.state, group).peekable();
    if apps.peek().is_none() {
        return Err(Error::NotFound(format!("Group '{group}' does not exist")));
    }
    if ask.wants_text {
        return text(world, apps.map(|(_, record)| &record.app));
    }
    tasks(world, apps.flat_map(|(id, _)| world.state.tasks_of_app(id)))
}

pub(super) fn kill_of_app(ask: &Ask<'_>, world: &World<'_>, id: &AppId) -> Outcome {
    record(world, id)?;
    let host = ask.value("host").unwrap_or("*");
    let tasks = world.state.tasks_of_app(id).filter(|task| host == "*" || task.host == host).collect();
    kill(ask, world, tasks, |tasks| Answer::named("tasks", &tasks))
}

pub(super) fn kill_one(ask: &Ask<'_>, world: &World<'_>, app: &AppId, id: &TaskId) -> Outcome {
    record(world, app)?;
    let task = world.state.tasks_of_app(app).find(|task| task.id == *id);
    let task = task.ok_or_else(|| Error::NotFound(format!("Task '{id}' does not exist")))?;
    kill(ask, world, vec![task], |tasks| Answer::named("task", &tasks.first()))
}

/// `{"ids":[…]}`; those that do not exist are passed over.
pub(super) fn kill_listed(ask: &Ask<'_>, world: &World<'_>) -> Outcome {
    let body: Value = serde_json::from_slice(ask.body).map_err(|error| Error::NotJson(error.to_string()))?;
    let mut faults = Faults::default();
    let ids = body.get("ids").and_then(Value::as_array);
    let Some(ids) = ids else {
        faults.push("/ids", "must be a list of task ids");
        return Err(Error::Invalid(faults));
    };
    let mut tasks = Vec::with_capacity(ids.len());
    for (index, id) in ids.iter().enumerate() {
        let Some(id) = id.as_str() else {
            faults.push(&format!("/ids({index})"), "must be a string");
            continue;
        };
        if id.rsplit_once('.').is_none_or(|(app, unique)| app.is_empty() || unique.is_empty()) {
            return Err(Error::BadRequest(format!("'{id}' is no id of an app's task")));
        }
        tasks.extend(world.state.tasks.get(id).filter(|task| owner(task).is_some()));
    }
    faults.check()?;
    kill(ask, world, tasks, |tasks| Answer::named("tasks", &tasks))
}

fn kill<'a>(
    ask: &Ask<'_>,
    world: &World<'a>,
    tasks: Vec<&'a Task>,
    answer: impl FnOnce(Vec<task::Task<'a>>) -> Answer,
) -> Outcome {
    let scale = ask.flag("scale", false);
    // There are no volumes yet that `wipe` could wipe, so it changes nothing.
    if scale && ask.flag("wipe", false) {
        return Err(Error::BadRequest("You cannot use scale and wipe at the same time.".into()));
    }
    if scale {
        let alive = tasks.iter().filter(|task| task.kill.is_none());
        let mut by: BTreeMap<AppId, u32> = BTreeMap::new();
        for (app, _) in alive.clone().filter_map(|task| owner(task)) {
            *by.entry(app.clone()).or_default() += 1;
        }
        return scale_down(ask, world, &by, alive.map(|task| task.id.clone()).collect());
    }
    let answer = answer(tasks.iter().filter_map(|task| task::Task::of(world.state, task)).collect());
    let kill = |task: &&Task| Command::KillTask { task: task.id.clone(), why: "a client asked for it".into(), at: world.now };
    let commands: Vec<Command> = tasks.iter().filter(|task| task.kill.is_none()).map(kill).collect();
    Ok(if commands.is_empty() { Step::Answer(answer) } else { Step::Propose { commands, answer } })
}

fn tasks<'a>(world: &World<'a>, tasks: impl Iterator<Item = &'a Task>) -> Outcome {
    let tasks: Vec<task::Task<'_>> = tasks.filter_map(|task| task::Task::of(world.state, task)).collect();
    Answer::named("tasks", &tasks).into()
}

fn text<'a>(world: &World<'_>, apps: impl Iterator<Item = &'a App>) -> Outcome {
    Answer::text(task::text(world.state, apps)).into()
}
