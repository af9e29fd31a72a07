//! A deployment: the ordered way from the apps as they were to the apps as they shall be. The noun and its two decisions:
//! which steps a change takes, and whether the current step is complete.

use crate::app::App;
use crate::ids::{AppId, DeploymentId, TaskId};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What is done to one app in a step (Marathon's deployment actions).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ActionKind {
    /// End it and forget it.
    StopApplication,
    /// Register it, with no instance yet.
    StartApplication,
    /// Bring it to its count.
    ScaleApplication,
    /// Replace its instances by ones of the new version.
    RestartApplication,
}

/// One action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// What.
    pub kind: ActionKind,
    /// To which app.
    pub app: AppId,
}

/// Ordered steps; the actions of one step run side by side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// Its id.
    pub id: DeploymentId,
    /// The version it brings.
    pub version: Timestamp,
    /// When it began.
    pub started_at: Timestamp,
    /// What is to be done.
    pub steps: Vec<Vec<Action>>,
    /// Index of the step under way.
    pub current: usize,
    /// The apps as they were, `None` for new ones: what a rollback restores.
    pub originals: BTreeMap<AppId, Option<App>>,
    /// Instances to end first when scaling down, chosen by the user.
    pub preselected: BTreeSet<TaskId>,
}

/// Why two deployments cannot run side by side.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Apps depend on each other in a circle.
    #[error("Dependency graph has cyclic dependencies.")]
    Cycle,
}

impl Deployment {
    /// The apps it touches.
    pub fn apps(&self) -> BTreeSet<&AppId> {
        self.steps.iter().flatten().map(|action| &action.app).collect()
    }

    /// Whether `app` must wait for an earlier step.
    pub fn holds_back(&self, app: &AppId) -> bool {
        let due = self.steps.iter().take(self.current + 1).flatten();
        let later = self.steps.iter().skip(self.current + 1).flatten();
        let brought_up = |action: &Action| action.app == *app && action.kind != ActionKind::StartApplication;
        !due.into_iter().any(brought_up) && later.into_iter().any(brought_up)
    }

    /// The actions under way.
    pub fn current_actions(&self) -> &[Action] {
        self.steps.get(self.current).map_or(&[], Vec::as_slice)
    }
}

/// The steps from `before` to `after`, both restricted to the apps that change; `all` is every app afterwards, for the
/// dependencies between them. Stops first, then starts, then one step per layer of dependencies.
///
/// # Errors
/// The apps of `all` depend on each other in a circle.
pub fn plan(
    before: &BTreeMap<AppId, Option<App>>,
    after: &BTreeMap<AppId, Option<App>>,
    all: &BTreeMap<AppId, &App>,
) -> Result<Vec<Vec<Action>>, PlanError> {
    let layers = layers(all)?;
    let action = |kind, app: &AppId| Action { kind, app: app.clone() };
    let mut stops = Vec::new();
    let mut starts = Vec::new();
    let mut by_layer: BTreeMap<usize, Vec<Action>> = BTreeMap::new();
    for (id, to) in after {
        let from = before.get(id).and_then(Option::as_ref);
        let Some(to) = to else {
            stops.push(action(ActionKind::StopApplication, id));
            continue;
        };
        let kind = match from {
            None => {
                starts.push(action(ActionKind::StartApplication, id));
                ActionKind::ScaleApplication
            }
            Some(from) if from.last_config_change_at != to.last_config_change_at && to.instances > 0 => {
                ActionKind::RestartApplication
            }
            Some(from) if from.instances == to.instances && from.version == to.version => continue,
            Some(_) => ActionKind::ScaleApplication,
        };
        by_layer.entry(layers.get(id).copied().unwrap_or(0)).or_default().push(action(kind, id));
    }
    let steps = [stops, starts].into_iter().chain(by_layer.into_values());
    Ok(steps.filter(|step| !step.is_empty()).collect())
}

/// Each app's layer: 0 for those that depend on nothing, else one more than the highest they depend on.
fn layers(all: &BTreeMap<AppId, &App>) -> Result<BTreeMap<AppId, usize>, PlanError> {
    let mut done: BTreeMap<AppId, usize> = BTreeMap::new();
    while done.len() < all.len() {
        let mut progress = false;
        for (id, app) in all {
            if done.contains_key(id) {
                continue;
            }
            let mut needs = all.keys().filter(|other| {
                app.dependencies.iter().any(|dependency| {
                    dependency == other.as_str()
                        || other.as_str().starts_with(&format!("{}/", dependency.trim_end_matches('/')))
                })
            });
            let layer = needs.try_fold(
                0usize,
                |layer, other| {
                    if other == id { None } else { done.get(other).map(|l| layer.max(l + 1)) }
                },
            );
            if let Some(layer) = layer {
                done.insert(id.clone(), layer);
                progress = true;
            }
        }
        if !progress {
            return Err(PlanError::Cycle);
        }
    }
    Ok(done)
}
