//! `embed=`: what a client wants to see beside the definition.

/// What to show of each app, and which parts of a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Embed {
    /// `tasks`, and with them the deployments.
    pub tasks: bool,
    /// The four numbers of tasks.
    pub counts: bool,
    /// Ids of the deployments that touch the app.
    pub deployments: bool,
    /// `readinessCheckResults`.
    pub readiness: bool,
    /// `lastTaskFailure`.
    pub last_task_failure: bool,
    /// `taskStats`.
    pub task_stats: bool,
    /// `unit`: drover's own, left out unless asked for since some clients fail on keys they do not know.
    pub unit: bool,
    /// A group's sub-groups.
    pub groups: bool,
    /// A group's apps.
    pub apps: bool,
    /// A group's pods; drover has none.
    pub pods: bool,
}

impl Embed {
    /// What lists of apps show without being asked.
    pub fn list() -> Self {
        Self { counts: true, deployments: true, ..Self::default() }
    }

    /// What one app shows without being asked.
    pub fn one() -> Self {
        Self { tasks: true, last_task_failure: true, ..Self::list() }
    }

    /// Adds what the values of `embed` ask for. Unknown ones are ignored.
    #[must_use]
    pub fn with<'a>(mut self, values: impl IntoIterator<Item = &'a str>) -> Self {
        for value in values {
            let of_app = ["group.apps.", "apps.", "app."].iter().find_map(|prefix| value.strip_prefix(prefix));
            match of_app.unwrap_or(value) {
                "tasks" => (self.tasks, self.deployments) = (true, true),
                "count" | "counts" => self.counts = true,
                "deployments" => self.deployments = true,
                "readiness" => self.readiness = true,
                "lastTaskFailure" => self.last_task_failure = true,
                "failures" => (self.last_task_failure, self.tasks, self.deployments) = (true, true, true),
                "taskStats" => self.task_stats = true,
                "unit" => self.unit = true,
                "group.groups" => self.groups = true,
                "group.apps" => self.apps = true,
                "group.pods" => self.pods = true,
                _ => {}
            }
        }
        self
    }

    /// For groups: with none of the three kinds asked for, all three are shown.
    #[must_use]
    pub fn or_whole_group(self) -> Self {
        if self.groups || self.apps || self.pods { self } else { Self { groups: true, apps: true, pods: true, ..self } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prefix_is_understood_and_nonsense_ignored() {
        for text in ["tasks", "apps.tasks", "app.tasks", "group.apps.tasks"] {
            let embed = Embed::default().with([text, "apps.nonsense", ""]);
            assert_eq!(embed, Embed { tasks: true, deployments: true, ..Embed::default() }, "{text}");
        }
        assert!(Embed::default().with(["apps.count"]).counts && Embed::default().with(["counts"]).counts);
        assert!(Embed::default().or_whole_group().pods);
        assert!(!Embed::default().with(["group.apps"]).or_whole_group().groups);
    }
}
