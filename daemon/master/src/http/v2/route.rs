//! Which decision a request is for. Ids contain slashes: everything up to a reserved last segment is the id.

use super::answer::{Answer, Outcome, Step, World};
use super::ask::Ask;
use super::{apps, deployments, groups, tasks};
use drover_api::v2::Error;
use drover_api::v2::info::Info;
use drover_api::v2::queue::{Queue, QueueEmbed};
use drover_core::ids::{AppId, GroupId, TaskId};
use drover_core::leader::Request;
use drover_core::state::{ClusterState, Command};
use hyper::header::ALLOW;
use hyper::{Method, StatusCode};

/// Decides about a request.
pub(super) fn decide(ask: &Ask<'_>, world: &World<'_>) -> Outcome {
    let path: Vec<&str> = ask.path.iter().map(String::as_str).collect();
    match path.as_slice() {
        ["apps"] => match ask.method {
            Method::GET => apps::list(ask, world),
            Method::POST => apps::create(ask, world),
            Method::PUT => apps::change_many(ask, world, true),
            Method::PATCH => apps::change_many(ask, world, false),
            _ => refuse_method("GET, POST, PUT, PATCH"),
        },
        ["apps", rest @ ..] => decide_app(ask, world, AppPath::of(rest, &ask.method, world.state)?),
        ["tasks"] => match ask.method {
            Method::GET => tasks::list_all(ask, world),
            _ => refuse_method("GET"),
        },
        ["tasks", "delete"] => match ask.method {
            Method::POST => tasks::kill_listed(ask, world),
            _ => refuse_method("POST"),
        },
        ["deployments"] => match ask.method {
            Method::GET => deployments::list(world),
            _ => refuse_method("GET"),
        },
        ["deployments", id] => match ask.method {
            Method::GET => deployments::show(world, id),
            Method::DELETE => deployments::cancel(ask, world, id),
            _ => refuse_method("GET, DELETE"),
        },
        ["queue"] => match ask.method {
            Method::GET => queue(ask, world),
            _ => refuse_method("GET"),
        },
        ["queue", id @ .., "delay"] if !id.is_empty() => match ask.method {
            Method::DELETE => reset_delay(world, &id.join("/")),
            _ => refuse_method("DELETE"),
        },
        ["groups", rest @ ..] => match ask.method {
            Method::GET => groups::show(ask, world, rest),
            _ => Err(Error::MethodNotAllowed(
                "Groups cannot be written by this version of drover yet: write their apps, at /v2/apps.".into(),
            )),
        },
        ["info"] => match ask.method {
            Method::GET => info(world),
            _ => refuse_method("GET"),
        },
        ["leader"] => match (&ask.method, &world.server.leader) {
            (&Method::GET, Some(leader)) => Answer::named("leader", leader).into(),
            (&Method::GET, None) => Err(Error::NotFound("There is no leader".into())),
            _ => refuse_method("GET"),
        },
        _ => Err(Error::NotFound("URI not found".into())),
    }
}

/// What a path below `/v2/apps` means.
#[derive(Debug, PartialEq, Eq)]
enum AppPath {
    App(AppId),
    Below(GroupId),
    TasksBelow(GroupId),
    Restart(AppId),
    Tasks(AppId),
    Task(AppId, TaskId),
    Versions(AppId),
    Version(AppId, String),
}

impl AppPath {
    fn of(rest: &[&str], method: &Method, state: &ClusterState) -> Result<Self, Error> {
        // A path can be an app's id and a part of another app at once (`/a/versions/b`); the app that is there wins.
        let is_app = || state.apps.contains_key(format!("/{}", rest.join("/")).as_str());
        Ok(match rest {
            [group @ .., "*"] => Self::Below(group_id(group)?),
            [group @ .., "*", "tasks"] => Self::TasksBelow(group_id(group)?),
            [id @ .., "restart"] if !id.is_empty() => Self::Restart(app_id(id)?),
            [id @ .., "tasks"] if !id.is_empty() => Self::Tasks(app_id(id)?),
            [id @ .., "versions"] if !id.is_empty() => Self::Versions(app_id(id)?),
            [id @ .., "tasks", task] if !id.is_empty() && *method == Method::DELETE && !is_app() => {
                Self::Task(app_id(id)?, TaskId::new(*task))
            }
            [id @ .., "versions", version] if !id.is_empty() && *method == Method::GET && !is_app() => {
                Self::Version(app_id(id)?, (*version).to_owned())
            }
            id => Self::App(match (AppId::parse(&id.join("/")), method) {
                (Ok(id), _) => id,
                (Err(error), &Method::PUT) => {
                    let mut faults = drover_api::v2::Faults::default();
                    faults.push("/id", error.0);
                    return Err(Error::Invalid(faults));
                }
                (Err(_), _) => return Err(unknown_app(&id.join("/"))),
            }),
        })
    }
}

/// No app can have an id that is none.
fn app_id(segments: &[&str]) -> Result<AppId, Error> {
    AppId::parse(&segments.join("/")).map_err(|_| unknown_app(&segments.join("/")))
}

pub(super) fn group_id(segments: &[&str]) -> Result<GroupId, Error> {
    let path = segments.join("/");
    GroupId::parse(&path).map_err(|_| Error::NotFound(format!("Group '/{path}' does not exist")))
}

pub(super) fn unknown_app(path: &str) -> Error {
    Error::NotFound(format!("App '/{}' does not exist", path.trim_start_matches('/')))
}

fn decide_app(ask: &Ask<'_>, world: &World<'_>, path: AppPath) -> Outcome {
    match (path, &ask.method) {
        (AppPath::App(id), &Method::GET) => apps::show(ask, world, &id),
        (AppPath::App(id), &Method::PUT) => apps::put(ask, world, &id),
        (AppPath::App(id), &Method::PATCH) => apps::patch(ask, world, &id),
        (AppPath::App(id), &Method::DELETE) => apps::remove(ask, world, id),
        (AppPath::App(_), _) => refuse_method("GET, PUT, PATCH, DELETE"),
        (AppPath::Below(group), &Method::GET) => apps::list_below(ask, world, &group),
        (AppPath::TasksBelow(group), &Method::GET) => tasks::list_below(ask, world, &group),
        (AppPath::Restart(id), &Method::POST) => apps::restart(ask, world, id),
        (AppPath::Restart(_), _) => refuse_method("POST"),
        (AppPath::Tasks(id), &Method::GET) => tasks::list(ask, world, &id),
        (AppPath::Tasks(id), &Method::DELETE) => tasks::kill_of_app(ask, world, &id),
        (AppPath::Tasks(_), _) => refuse_method("GET, DELETE"),
        (AppPath::Task(app, task), _) => tasks::kill_one(ask, world, &app, &task),
        (AppPath::Versions(id), &Method::GET) => apps::versions(world, &id),
        (AppPath::Version(id, version), _) => apps::show_version(ask, world, &id, &version),
        (AppPath::Below(_) | AppPath::TasksBelow(_) | AppPath::Versions(_), _) => refuse_method("GET"),
    }
}

fn refuse_method(allowed: &str) -> Outcome {
    let message = format!("Method not allowed here; these are: {allowed}");
    let answer = Answer::message(StatusCode::METHOD_NOT_ALLOWED, &message);
    answer.with(ALLOW, allowed).into()
}

fn queue(ask: &Ask<'_>, world: &World<'_>) -> Outcome {
    let embed = QueueEmbed { last_unused_offers: ask.values("embed").any(|value| value == "lastUnusedOffers") };
    Answer::json(StatusCode::OK, &Queue::of(world.state, world.waiting, embed, world.now)).into()
}

fn reset_delay(world: &World<'_>, path: &str) -> Outcome {
    let unknown = || Error::NotFound(format!("Application /{} not found in tasks queue.", path.trim_start_matches('/')));
    let id = AppId::parse(path).map_err(|_| unknown())?;
    if !world.waiting.contains_key(&Request::App(id.clone())) || !world.state.apps.contains_key(&id) {
        return Err(unknown());
    }
    let commands = vec![Command::ResetFailures { app: id, at: world.now }];
    Ok(Step::Propose { commands, answer: Answer::empty(StatusCode::NO_CONTENT) })
}

fn info(world: &World<'_>) -> Outcome {
    let server = world.server;
    let version = env!("CARGO_PKG_VERSION");
    let versions = world.state.bounds.app_versions;
    let info = Info::new(version, server.is_leader, server.leader.clone(), &server.host, server.port, versions);
    Answer::json(StatusCode::OK, &info).into()
}
