//! Commands about apps and their deployments.

use super::{AppChange, AppRecord, ClusterState, Refusal, Told};
use crate::app::Failures;
use crate::deployment::Deployment;
use crate::event::EventKind;
use crate::ids::{AppId, DeploymentId};
use std::collections::{BTreeMap, BTreeSet};

impl ClusterState {
    pub(super) fn change_apps(
        &mut self,
        changes: &[AppChange],
        deployment: &Deployment,
        force: bool,
        told: &mut Told,
    ) -> Result<(), Refusal> {
        for change in changes {
            let current = self.apps.get(&change.id).map(|record| record.app.version);
            match (change.based_on, current) {
                (based_on, current) if based_on == current => {}
                (None, Some(_)) => return Err(Refusal::Exists(format!("app {}", change.id))),
                (Some(_), None) => return Err(Refusal::NotFound(format!("app {}", change.id))),
                _ => return Err(Refusal::Stale(format!("app {}", change.id))),
            }
        }
        // Service ports, paths and the order of dependencies were chosen against the apps of then: whoever was first, wins.
        if deployment.version <= self.last_version {
            return Err(Refusal::Stale("the set of apps".into()));
        }
        let holders: BTreeSet<&DeploymentId> =
            deployment.apps().iter().filter_map(|app| self.index.held_by.get(*app)).collect();
        let conflicts: Vec<DeploymentId> = holders.into_iter().cloned().collect();
        if !conflicts.is_empty() && !force {
            return Err(Refusal::Locked(conflicts));
        }
        if self.deployments.contains_key(&deployment.id) {
            return Err(Refusal::Exists(format!("deployment {}", deployment.id)));
        }
        for id in &conflicts {
            self.cancel_deployment(id, told).expect("it was found among the deployments");
        }
        for change in changes {
            match &change.to {
                None => {
                    self.apps.remove(&change.id);
                    told.push(EventKind::AppRemoved(change.id.clone()));
                }
                Some(app) => {
                    let record = self.apps.entry(change.id.clone()).or_insert_with(|| AppRecord {
                        app: app.clone(),
                        versions: BTreeMap::new(),
                        failures: Failures::default(),
                        last_failure: None,
                    });
                    if record.app.last_config_change_at != app.last_config_change_at {
                        record.failures = Failures::default();
                    }
                    record.app = app.clone();
                    record.versions.insert(app.version, app.clone());
                    record.forget_old_versions(&self.bounds);
                    told.push(EventKind::AppChanged(Box::new(app.clone())));
                }
            }
        }
        self.last_version = deployment.version;
        told.push(EventKind::DeploymentStarted(Box::new(deployment.clone())));
        if deployment.steps.is_empty() {
            told.push(EventKind::DeploymentSucceeded(Box::new(deployment.clone())));
        } else {
            self.index.hold(deployment);
            self.deployments.insert(deployment.id.clone(), deployment.clone());
        }
        Ok(())
    }

    pub(super) fn advance_deployment(&mut self, id: &DeploymentId, from_step: usize, told: &mut Told) -> Result<(), Refusal> {
        let deployment = self.deployments.get_mut(id).ok_or_else(|| Refusal::NotFound(format!("deployment {id}")))?;
        if deployment.current != from_step {
            return Err(Refusal::Stale(format!("deployment {id}")));
        }
        told.push(EventKind::DeploymentStepSucceeded(Box::new(deployment.clone())));
        deployment.current += 1;
        if deployment.current >= deployment.steps.len() {
            let done = self.deployments.remove(id).expect("it was just found");
            self.index.let_go(&done);
            told.push(EventKind::DeploymentSucceeded(Box::new(done)));
        }
        Ok(())
    }

    pub(super) fn cancel_deployment(&mut self, id: &DeploymentId, told: &mut Told) -> Result<(), Refusal> {
        let deployment = self.deployments.remove(id).ok_or_else(|| Refusal::NotFound(format!("deployment {id}")))?;
        self.index.let_go(&deployment);
        told.push(EventKind::DeploymentFailed(Box::new(deployment)));
        Ok(())
    }

    pub(super) fn reset_failures(&mut self, id: &AppId) -> Result<(), Refusal> {
        let record = self.apps.get_mut(id).ok_or_else(|| Refusal::NotFound(format!("app {id}")))?;
        record.failures = Failures::default();
        Ok(())
    }
}
