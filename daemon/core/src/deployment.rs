//! A deployment: the ordered way from the apps as they were to the apps as they shall be. Its steps are chosen by
//! [`crate::change`]; whether the current one is complete is seen by [`crate::scaling`].

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

impl Deployment {
    /// The apps it touches.
    pub fn apps(&self) -> BTreeSet<&AppId> {
        self.steps.iter().flatten().map(|action| &action.app).collect()
    }

    /// Whether `app` must wait for an earlier step.
    pub fn holds_back(&self, app: &AppId) -> bool {
        let brings_up = |action: &Action| action.app == *app && action.kind != ActionKind::StartApplication;
        let turn = self.steps.iter().position(|step| step.iter().any(brings_up));
        turn.is_some_and(|turn| turn > self.current)
    }

    /// The actions under way.
    pub fn current_actions(&self) -> &[Action] {
        self.steps.get(self.current).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(kind: ActionKind, app: &str) -> Action {
        Action { kind, app: AppId::parse(app).unwrap() }
    }

    #[test]
    fn an_app_waits_for_the_step_that_brings_it_up() {
        use ActionKind::{ScaleApplication, StartApplication, StopApplication};
        let mut deployment = Deployment {
            id: DeploymentId::new("d"),
            version: Timestamp(1),
            started_at: Timestamp(1),
            steps: vec![
                vec![action(StopApplication, "/old")],
                vec![action(StartApplication, "/db"), action(StartApplication, "/web")],
                vec![action(ScaleApplication, "/db")],
                vec![action(ScaleApplication, "/web")],
            ],
            current: 0,
            originals: BTreeMap::new(),
            preselected: BTreeSet::new(),
        };
        let waiting = |deployment: &Deployment| -> Vec<bool> {
            ["/old", "/db", "/web", "/other"].iter().map(|id| deployment.holds_back(&AppId::parse(id).unwrap())).collect()
        };
        assert_eq!(waiting(&deployment), [false, true, true, false]);
        deployment.current = 2;
        assert_eq!(waiting(&deployment), [false, false, true, false]);
        deployment.current = 3;
        assert_eq!(waiting(&deployment), [false; 4]);
    }
}
