//! From what a user wants of some apps to the one command that brings it: versions, service ports and the steps of a
//! deployment. Called by the HTTP handlers of the leader; what was planned on an old state is refused when applied, and is
//! then planned again.

use crate::app::App;
use crate::deployment::{Action, ActionKind, Deployment};
use crate::ids::{AppId, DeploymentId, TaskId};
use crate::state::{AppChange, ClusterState, Command};
use crate::time::{Millis, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, RangeInclusive};

#[cfg(test)]
mod tests;

/// Where service ports come from when an app asks for port 0 (`local_port_min` to `local_port_max`).
pub const SERVICE_PORTS: RangeInclusive<u16> = 10_000..=20_000;

/// What shall become of one app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// There shall be one like this. Its version information is not looked at, and a port 0 is assigned.
    Put(Box<App>),
    /// Its instances shall be replaced although nothing changes.
    Restart,
    /// There shall be none.
    Remove,
}

/// A change of any number of apps, made in one deployment.
#[derive(Debug, Clone)]
pub struct Request {
    /// What shall become of which app.
    pub edits: BTreeMap<AppId, Edit>,
    /// Cancel the deployments in the way.
    pub force: bool,
    /// Instances to end first when scaling down.
    pub preselected: BTreeSet<TaskId>,
    /// Id of the new deployment.
    pub deployment: DeploymentId,
    /// The present.
    pub now: Timestamp,
}

/// A change ready to be proposed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The apps that really change.
    pub changes: Vec<AppChange>,
    /// The way there; without steps when nothing changes.
    pub deployment: Deployment,
    /// Cancel the deployments in the way.
    pub force: bool,
    /// When it was planned.
    pub at: Timestamp,
}

/// Why a change cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such app.
    #[error("App '{0}' does not exist")]
    Unknown(AppId),
    /// Deployments hold some of the apps.
    #[error("App is locked by one or more deployments.")]
    Locked(Vec<DeploymentId>),
    /// The dependencies run in a circle through this app.
    #[error("Dependency graph has cyclic dependencies.")]
    Cycle(AppId),
    /// A path would be an app and a group at once.
    #[error("Groups and Applications may not have the same identifier: '{taken}' is an app and the group of '{below}'.")]
    AppAndGroup {
        /// The app to be made.
        app: AppId,
        /// The path that would be both.
        taken: AppId,
        /// An app below it.
        below: AppId,
    },
    /// Every service port is in use.
    #[error("no service port is left between {} and {}", SERVICE_PORTS.start(), SERVICE_PORTS.end())]
    NoServicePort(AppId),
}

impl Plan {
    /// The command that brings it.
    pub fn command(&self) -> Command {
        Command::ChangeApps {
            changes: self.changes.clone(),
            deployment: Box::new(self.deployment.clone()),
            force: self.force,
            at: self.at,
        }
    }

    /// What becomes of `app`, if the plan changes it and does not remove it.
    pub fn app(&self, id: &AppId) -> Option<&App> {
        self.changes.iter().find(|change| change.id == *id).and_then(|change| change.to.as_ref())
    }
}

/// Plans a change.
///
/// # Errors
/// The first thing in its way.
pub fn plan(state: &ClusterState, request: Request) -> Result<Plan, Refused> {
    let version = request.now.max(state.last_version + Millis(1));
    let mut after: BTreeMap<AppId, Option<App>> = BTreeMap::new();
    let mut ports = ServicePorts::new(state, &request.edits);
    for (id, edit) in request.edits {
        let current = state.apps.get(&id).map(|record| &record.app);
        let to = match (edit, current) {
            (Edit::Put(app), _) => changed(ports.assign(*app, current)?, current, version),
            (Edit::Restart, Some(current)) => Some(Some(App { version, last_config_change_at: version, ..current.clone() })),
            (Edit::Remove, Some(_)) => Some(None),
            (Edit::Restart | Edit::Remove, None) => return Err(Refused::Unknown(id)),
        };
        if let Some(to) = to {
            after.insert(id, to);
        }
    }
    let apps = Overlay { state, after: &after };
    apps.check_paths()?;
    let steps = steps(&apps)?;
    let deployment = Deployment {
        id: request.deployment,
        version,
        started_at: request.now,
        steps,
        current: 0,
        originals: after.keys().map(|id| (id.clone(), state.apps.get(id).map(|record| record.app.clone()))).collect(),
        preselected: request.preselected,
    };
    if !request.force {
        let touched = deployment.apps();
        let held_by = |other: &&Deployment| other.steps.iter().flatten().any(|action| touched.contains(&action.app));
        let locks: Vec<DeploymentId> = state.deployments.values().filter(held_by).map(|other| other.id.clone()).collect();
        if !locks.is_empty() {
            return Err(Refused::Locked(locks));
        }
    }
    let changes = after.into_iter().map(|(id, to)| {
        let based_on = state.apps.get(&id).map(|record| record.app.version);
        AppChange { id, based_on, to }
    });
    Ok(Plan { changes: changes.collect(), deployment, force: request.force, at: request.now })
}

/// The edits that put back what `deployment` changed. What was changed again since then stays.
pub fn edits_to_revert(state: &ClusterState, deployment: &Deployment) -> BTreeMap<AppId, Edit> {
    let mut edits = BTreeMap::new();
    for (id, original) in &deployment.originals {
        let current = state.apps.get(id).map(|record| &record.app);
        if current.is_some_and(|app| app.version != deployment.version) {
            continue;
        }
        match (original, current) {
            (Some(original), _) => {
                edits.insert(id.clone(), Edit::Put(Box::new(original.clone())));
            }
            (None, Some(_)) => {
                edits.insert(id.clone(), Edit::Remove);
            }
            (None, None) => {}
        }
    }
    edits
}

/// `wish` with version information, or `None` when nothing changes.
#[expect(clippy::option_option, reason = "the inner one is the app as it shall be, as in the command")]
fn changed(wish: App, current: Option<&App>, version: Timestamp) -> Option<Option<App>> {
    let mut app = App { version, last_scaling_at: version, last_config_change_at: version, ..wish };
    if let Some(current) = current.filter(|current| current.same_config(&app)) {
        if current.instances == app.instances {
            return None;
        }
        app.last_config_change_at = current.last_config_change_at;
    }
    Some(Some(app))
}

/// Gives out service ports, each to one app.
struct ServicePorts<'a> {
    state: &'a ClusterState,
    /// Ports the edits ask for by number, so that none of them is given to another app of the same request.
    asked: BTreeSet<u16>,
    /// Which ports nobody has, and which of them come next. Made when the first is needed: most changes need none.
    free: Option<(Vec<bool>, RangeInclusive<u16>)>,
}

impl<'a> ServicePorts<'a> {
    fn new(state: &'a ClusterState, edits: &BTreeMap<AppId, Edit>) -> Self {
        let apps = edits.values().filter_map(|edit| if let Edit::Put(app) = edit { Some(app) } else { None });
        Self { state, asked: apps.flat_map(|app| app.ports.iter().map(|port| port.port)).collect(), free: None }
    }

    /// Fills in the ports left at 0: what the app had at that position, else the lowest that nobody has.
    fn assign(&mut self, mut app: App, current: Option<&App>) -> Result<App, Refused> {
        let mut own: BTreeSet<u16> = app.ports.iter().map(|port| port.port).filter(|port| *port != 0).collect();
        for index in 0..app.ports.len() {
            if app.ports[index].port != 0 {
                continue;
            }
            let before = current.and_then(|current| current.ports.get(index)).map(|port| port.port);
            let port = match before.filter(|port| *port != 0 && !own.contains(port)) {
                Some(port) => port,
                None => self.next().ok_or_else(|| Refused::NoServicePort(app.id.clone()))?,
            };
            own.insert(port);
            app.ports[index].port = port;
        }
        Ok(app)
    }

    fn next(&mut self) -> Option<u16> {
        let (is_free, rest) = self.free.get_or_insert_with(|| {
            let mut is_free = vec![true; usize::from(u16::MAX) + 1];
            let apps = self.state.apps.values().map(|record| &record.app);
            let taken = apps.flat_map(|app| app.ports.iter().map(|port| port.port));
            taken.chain(self.asked.iter().copied()).for_each(|port| is_free[usize::from(port)] = false);
            (is_free, SERVICE_PORTS)
        });
        rest.find(|port| is_free[usize::from(*port)])
    }
}

/// The apps as they will be.
struct Overlay<'a> {
    state: &'a ClusterState,
    after: &'a BTreeMap<AppId, Option<App>>,
}

impl<'a> Overlay<'a> {
    fn get(&self, path: &str) -> Option<&'a App> {
        match self.after.get(path) {
            Some(to) => to.as_ref(),
            None => self.state.apps.get(path).map(|record| &record.app),
        }
    }

    /// Every app below a group's path.
    fn below(&self, group: &str) -> impl Iterator<Item = &'a App> {
        let low = format!("{}/", group.trim_end_matches('/'));
        // '0' follows '/', so this is the first path that does not begin with `low`.
        let high = format!("{}0", group.trim_end_matches('/'));
        let range = (Bound::Excluded(low.as_str()), Bound::Excluded(high.as_str()));
        let after = self.after;
        let old = self.state.apps.range::<str, _>(range).filter(|(id, _)| !after.contains_key(*id));
        let new = self.after.range::<str, _>(range).filter_map(|(_, to)| to.as_ref());
        old.map(|(_, record)| &record.app).chain(new)
    }

    /// No path may be an app and a group.
    fn check_paths(&self) -> Result<(), Refused> {
        for (id, to) in self.after {
            if to.is_none() || self.state.apps.contains_key(id) {
                continue;
            }
            if let Some(below) = self.below(id.as_str()).next() {
                return Err(Refused::AppAndGroup { app: id.clone(), taken: id.clone(), below: below.id.clone() });
            }
            let mut group = id.group();
            while group != group.parent() {
                if let Some(above) = self.get(group.as_str()) {
                    return Err(Refused::AppAndGroup { app: id.clone(), taken: above.id.clone(), below: id.clone() });
                }
                group = group.parent();
            }
        }
        Ok(())
    }
}

/// Stops first, then starts, then one step per layer of dependencies.
fn steps(apps: &Overlay<'_>) -> Result<Vec<Vec<Action>>, Refused> {
    let layers = layers(apps)?;
    let action = |kind, app: &AppId| Action { kind, app: app.clone() };
    let mut stops = Vec::new();
    let mut starts = Vec::new();
    let mut by_layer: BTreeMap<usize, Vec<Action>> = BTreeMap::new();
    for (id, to) in apps.after {
        let Some(to) = to else {
            stops.push(action(ActionKind::StopApplication, id));
            continue;
        };
        let kind = match apps.state.apps.get(id).map(|record| &record.app) {
            None => {
                starts.push(action(ActionKind::StartApplication, id));
                ActionKind::ScaleApplication
            }
            Some(from) if from.last_config_change_at != to.last_config_change_at && to.instances > 0 => {
                ActionKind::RestartApplication
            }
            Some(_) => ActionKind::ScaleApplication,
        };
        by_layer.entry(layers.get(id.as_str()).copied().unwrap_or(0)).or_default().push(action(kind, id));
    }
    let steps = [stops, starts].into_iter().chain(by_layer.into_values());
    Ok(steps.filter(|step| !step.is_empty()).collect())
}

/// How deep each changed app stands in the graph of dependencies: 0 for one that depends on nothing, else one more than the
/// highest it depends on. A group stands as high as the highest app in it. Walks with a stack of its own, since users decide
/// how long a chain is.
fn layers<'a>(apps: &Overlay<'a>) -> Result<BTreeMap<&'a str, usize>, Refused> {
    struct Frame<'a> {
        path: &'a str,
        is_app: bool,
        needs: Vec<&'a str>,
        layer: Option<usize>,
    }
    let open = |path: &'a str| match apps.get(path) {
        Some(app) => {
            let needs = app.dependencies.iter().map(String::as_str).collect();
            Frame { path, is_app: true, needs, layer: Some(0) }
        }
        None => Frame { path, is_app: false, needs: apps.below(path).map(|app| app.id.as_str()).collect(), layer: None },
    };
    // `None` for what is neither an app nor a group with apps: nobody waits for it.
    let mut done: BTreeMap<&str, Option<usize>> = BTreeMap::new();
    let changed = apps.after.iter().filter(|(_, to)| to.is_some()).map(|(id, _)| id);
    for id in changed.clone() {
        if done.contains_key(id.as_str()) {
            continue;
        }
        let mut on_path = BTreeSet::from([id.as_str()]);
        let mut stack = vec![open(id.as_str())];
        while let Some(top) = stack.last_mut() {
            let Some(next) = top.needs.last().copied() else {
                let finished = stack.pop().expect("it was just seen");
                on_path.remove(finished.path);
                done.insert(finished.path, finished.layer);
                continue;
            };
            if let Some(layer) = done.get(next) {
                let above = usize::from(top.is_app);
                top.layer = top.layer.max(layer.map(|layer| layer + above));
                top.needs.pop();
            } else if on_path.insert(next) {
                stack.push(open(next));
            } else {
                return Err(Refused::Cycle(id.clone()));
            }
        }
    }
    Ok(changed.map(|id| (id.as_str(), done[id.as_str()].unwrap_or(0))).collect())
}
