//! Groups, read only: the tree that the apps' paths make. Writing them comes with the work on groups; until then a write is
//! refused by [`super::route`].

use super::answer::{Answer, Outcome, World};
use super::ask::Ask;
use super::route::group_id;
use drover_api::v2::Error;
use drover_api::v2::app::App;
use drover_api::v2::embed::Embed;
use drover_api::v2::group::{Group, apps_below};
use drover_core::ids::GroupId;
use hyper::StatusCode;

pub(super) fn show(ask: &Ask<'_>, world: &World<'_>, path: &[&str]) -> Outcome {
    match path {
        [group @ .., "apps"] => apps(ask, world, &group_id(group)?),
        [group @ .., "versions"] => {
            let group = find(world, &group_id(group)?, &Embed::default())?;
            Answer::json(StatusCode::OK, &[group.version()]).into()
        }
        [id @ .., "versions", version] => {
            let id = group_id(id)?;
            let group = find(world, &id, &ask.embed(Embed::default()).or_whole_group())?;
            if group.version().0.to_string() != *version {
                return Err(Error::NotFound(format!("Group '{id}' does not exist in version {version}")));
            }
            Answer::json(StatusCode::OK, &group).into()
        }
        id => {
            let group = find(world, &group_id(id)?, &ask.embed(Embed::default()).or_whole_group())?;
            Answer::json(StatusCode::OK, &group).into()
        }
    }
}

fn apps(ask: &Ask<'_>, world: &World<'_>, id: &GroupId) -> Outcome {
    find(world, id, &Embed::default())?;
    let embed = ask.embed(Embed::default());
    let apps = apps_below(world.state, id);
    let apps: Vec<App<'_>> = apps.map(|(_, record)| App::of(world.state, record, &embed, world.now)).collect();
    Answer::json(StatusCode::OK, &apps).into()
}

fn find<'a>(world: &World<'a>, id: &GroupId, embed: &Embed) -> Result<Group<'a>, Error> {
    Group::of(world.state, id, embed, world.now).ok_or_else(|| Error::NotFound(format!("Group '{id}' does not exist")))
}
