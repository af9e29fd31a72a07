//! Groups as clients see them: the tree that the paths of the apps make.

use super::Time;
use super::app::App;
use super::embed::Embed;
use drover_core::ids::{AppId, GroupId};
use drover_core::state::{AppRecord, ClusterState};
use drover_core::time::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;

/// A group.
#[derive(Debug, Clone, Serialize)]
pub struct Group<'a> {
    id: String,
    apps: Vec<App<'a>>,
    groups: Vec<Group<'a>>,
    pods: [(); 0],
    dependencies: [(); 0],
    version: Time,
}

impl<'a> Group<'a> {
    /// Renders a group and everything below it; `None` if no app makes it one.
    pub fn of(state: &'a ClusterState, id: &GroupId, embed: &Embed, now: Timestamp) -> Option<Self> {
        let apps: BTreeMap<&AppId, &AppRecord> = apps_below(state, id).collect();
        let is_root = *id == GroupId::root();
        (is_root || !apps.is_empty()).then(|| {
            let mut group = Self::render(state, id.as_str(), &apps, embed, now);
            if is_root {
                group.version = Time(state.last_version);
            }
            group
        })
    }

    /// The newest version of anything in it.
    pub fn version(&self) -> Time {
        self.version
    }

    fn render(
        state: &'a ClusterState,
        path: &str,
        apps: &BTreeMap<&'a AppId, &'a AppRecord>,
        embed: &Embed,
        now: Timestamp,
    ) -> Self {
        let prefix = path.trim_end_matches('/');
        let mut own = Vec::new();
        let mut below: BTreeMap<&str, BTreeMap<&AppId, &AppRecord>> = BTreeMap::new();
        for (id, record) in apps {
            let rest = &id.as_str()[prefix.len() + 1..];
            match rest.split_once('/') {
                None if embed.apps => own.push(App::of(state, record, embed, now)),
                None => {}
                Some((name, _)) => {
                    below.entry(name).or_default().insert(id, record);
                }
            }
        }
        let child = |(name, apps): (&str, _)| Self::render(state, &format!("{prefix}/{name}"), &apps, embed, now);
        Self {
            id: path.to_owned(),
            apps: own,
            groups: if embed.groups { below.into_iter().map(child).collect() } else { Vec::new() },
            pods: [],
            dependencies: [],
            version: Time(apps.values().map(|record| record.app.version).max().unwrap_or_default()),
        }
    }
}

/// The apps in a group and below it, in the order of their paths.
pub fn apps_below<'a>(state: &'a ClusterState, group: &GroupId) -> impl Iterator<Item = (&'a AppId, &'a AppRecord)> {
    let group = group.clone();
    state.apps.iter().filter(move |(id, _)| group.contains(id))
}
