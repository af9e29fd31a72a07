//! A deployment as clients see it, in `/v2/deployments` and, more briefly, in events.

use super::Time;
use drover_core::deployment::{Action, ActionKind, Deployment};
use drover_core::ids::{AppId, DeploymentId};
use serde::Serialize;
use std::collections::BTreeSet;

/// An entry of `/v2/deployments`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress<'a> {
    id: &'a DeploymentId,
    version: Time,
    affected_apps: BTreeSet<&'a AppId>,
    affected_pods: [(); 0],
    steps: Vec<Step<'a>>,
    current_actions: Vec<CurrentAction<'a>>,
    /// From 1.
    current_step: usize,
    total_steps: usize,
}

/// The actions of one step.
#[derive(Debug, Clone, Serialize)]
pub struct Step<'a> {
    actions: Vec<PlannedAction<'a>>,
}

/// One action.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedAction<'a> {
    action: &'static str,
    app: &'a AppId,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct CurrentAction<'a> {
    #[serde(flatten)]
    action: PlannedAction<'a>,
    readiness_check_results: [(); 0],
}

/// A deployment's plan in an event. `original` and `target` are empty and must be there: a client fails without them.
#[derive(Debug, Clone, Serialize)]
pub struct Plan<'a> {
    id: &'a DeploymentId,
    version: Time,
    steps: Vec<Step<'a>>,
    original: Empty,
    target: Empty,
}

/// `{}`.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Empty {}

impl<'a> Progress<'a> {
    /// Renders one under way.
    pub fn of(deployment: &'a Deployment) -> Self {
        let current = deployment.current_actions().iter();
        Self {
            id: &deployment.id,
            version: Time(deployment.version),
            affected_apps: deployment.apps(),
            affected_pods: [],
            steps: deployment.steps.iter().map(|step| Step::of(step)).collect(),
            current_actions: current
                .map(|action| CurrentAction { action: PlannedAction::of(action), readiness_check_results: [] })
                .collect(),
            current_step: deployment.current + 1,
            total_steps: deployment.steps.len(),
        }
    }
}

impl<'a> Plan<'a> {
    /// Renders the plan.
    pub fn of(deployment: &'a Deployment) -> Self {
        Self {
            id: &deployment.id,
            version: Time(deployment.version),
            steps: deployment.steps.iter().map(|step| Step::of(step)).collect(),
            original: Empty {},
            target: Empty {},
        }
    }
}

impl<'a> Step<'a> {
    /// Renders a step.
    pub fn of(actions: &'a [Action]) -> Self {
        Self { actions: actions.iter().map(PlannedAction::of).collect() }
    }
}

impl<'a> PlannedAction<'a> {
    fn of(action: &'a Action) -> Self {
        let name = match action.kind {
            ActionKind::StopApplication => "StopApplication",
            ActionKind::StartApplication => "StartApplication",
            ActionKind::ScaleApplication => "ScaleApplication",
            ActionKind::RestartApplication => "RestartApplication",
        };
        Self { action: name, app: &action.app }
    }
}
