//! Deployments: watching, reverting and stopping them.

use super::answer::{Answer, Outcome, Step, World};
use super::apps::plan_request;
use super::ask::Ask;
use drover_api::v2::Error;
use drover_api::v2::deployment::Progress;
use drover_core::change;
use drover_core::deployment::Deployment;
use drover_core::state::Command;
use hyper::StatusCode;
use std::collections::BTreeSet;

pub(super) fn list(world: &World<'_>) -> Outcome {
    let deployments: Vec<Progress<'_>> = world.state.deployments.values().map(Progress::of).collect();
    Answer::json(StatusCode::OK, &deployments).into()
}

pub(super) fn show(world: &World<'_>, id: &str) -> Outcome {
    Answer::json(StatusCode::OK, &Progress::of(find(world, id)?)).into()
}

/// With `force`, stops it where it stands. Without, starts a deployment that puts back what this one changed.
pub(super) fn cancel(ask: &Ask<'_>, world: &World<'_>, id: &str) -> Outcome {
    let deployment = find(world, id)?;
    let stop = Command::CancelDeployment { id: deployment.id.clone(), at: world.now };
    if ask.flag("force", false) {
        return Ok(Step::Propose { commands: vec![stop], answer: Answer::empty(StatusCode::ACCEPTED) });
    }
    let request = change::Request {
        edits: change::edits_to_revert(world.state, deployment),
        force: true,
        preselected: BTreeSet::new(),
        deployment: world.new_id.clone(),
        now: world.now,
    };
    let plan = plan_request(world, request, &|_| String::new())?;
    let mut commands = vec![plan.command()];
    // The new deployment cancels the old one if it touches the same apps; else nobody would.
    if plan.deployment.apps().is_disjoint(&deployment.apps()) {
        commands.push(stop);
    }
    Ok(Step::Propose { commands, answer: Answer::deployment(StatusCode::OK, &plan) })
}

fn find<'a>(world: &World<'a>, id: &str) -> Result<&'a Deployment, Error> {
    let unknown = || Error::NotFound(format!("DeploymentPlan {id} does not exist"));
    world.state.deployments.get(id).ok_or_else(unknown)
}
