//! How many instances each app lacks or has too many, and whether a deployment's step is complete. Looks at whole states,
//! so an upgrade interrupted by a new leader goes on where the tasks stand.

use crate::app::{App, Backoff, Failures, KillSelection, Operator};
use crate::deployment::{Action, ActionKind};
use crate::ids::{AppId, TaskId};
use crate::state::{AppRecord, ClusterState, Command};
use crate::task::{Owner, Task, TaskState};
use crate::time::{Millis, Timestamp, was_set_back};
use std::collections::{BTreeMap, BTreeSet};

/// A placed task that its agent has not seen running for this long is ended and launched anew (`task_launch_timeout`).
pub const LAUNCH_TIMEOUT: Millis = Millis::from_secs(300);

/// What apps need.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scaling {
    /// Kills and deployment steps.
    pub commands: Vec<Command>,
    /// Instances to launch now.
    pub missing: BTreeMap<AppId, u32>,
    /// Instances to launch once the back-off is over.
    pub delayed: BTreeMap<AppId, (u32, Timestamp)>,
    /// When to look again although nothing happens.
    pub wake_at: Option<Timestamp>,
}

/// Decides for every app.
pub fn decide(state: &ClusterState, now: Timestamp) -> Scaling {
    let mut scaling = Scaling::default();
    for (id, record) in &state.apps {
        if !state.deployments_of(id).any(|deployment| deployment.holds_back(id)) {
            scaling.decide_app(state, record, now);
        }
    }
    for id in state.apps_with_tasks().filter(|id| !state.apps.contains_key(*id)) {
        let orphans = state.tasks_of_app(id).filter(|task| task.kill.is_none());
        scaling.commands.extend(orphans.map(|task| kill(task, "its app was deleted", now)));
    }
    for deployment in state.deployments.values() {
        if deployment.current_actions().iter().all(|action| is_complete(state, action)) {
            scaling.commands.push(Command::AdvanceDeployment {
                id: deployment.id.clone(),
                from_step: deployment.current,
                at: now,
            });
        }
    }
    scaling
}

impl Scaling {
    fn decide_app(&mut self, state: &ClusterState, record: &AppRecord, now: Timestamp) {
        let app = &record.app;
        let tasks = Instances::of(state, app, now);
        self.wake_at = [self.wake_at, tasks.wake_at].into_iter().flatten().min();
        let wanted = app.instances as usize;
        let preselected: BTreeSet<&TaskId> = state.deployments_of(&app.id).flat_map(|d| &d.preselected).collect();

        for task in &tasks.overdue {
            self.commands.push(kill(task, "it did not start in time", now));
        }
        if tasks.new.len() > wanted {
            let victims = victims(state, app, &tasks.new, tasks.new.len() - wanted, &preselected);
            self.commands.extend(victims.into_iter().map(|task| kill(task, "the app was scaled down", now)));
        }
        let allowed = if tasks.old.is_empty() && tasks.old_ending == 0 { wanted } else { self.replace_old(app, &tasks, now) };
        let missing = wanted.min(allowed).saturating_sub(tasks.new.len());
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        if missing == 0 {
            return;
        }
        let until = delayed_until(record.failures, app.backoff).filter(|until| *until > now);
        match until.filter(|_| !was_set_back(record.failures.last_at, now)) {
            None => {
                self.missing.insert(app.id.clone(), missing);
            }
            Some(until) => {
                self.delayed.insert(app.id.clone(), (missing, until));
                self.wake_at = Some(self.wake_at.map_or(until, |at| at.min(until)));
            }
        }
    }

    /// Ends as many instances of older versions as may go now. Returns how many of the new version may exist meanwhile.
    fn replace_old(&mut self, app: &App, tasks: &Instances<'_>, now: Timestamp) -> usize {
        let wanted = app.instances as usize;
        let limits = ReplacementLimits::of(app);
        let (up, not_up): (Vec<&&Task>, Vec<&&Task>) = tasks.old.iter().partition(|task| task.is_running());
        let healthy = up.len() + tasks.new.iter().filter(|task| task.is_running()).count();
        // Ending what does not run costs no health.
        let mut go: Vec<&Task> = not_up.into_iter().copied().collect();
        let spare = healthy.saturating_sub(limits.min_healthy);
        let surplus = tasks.old.len().saturating_sub(go.len()).saturating_sub(wanted);
        let mut running: Vec<&Task> = up.into_iter().copied().collect();
        running.sort_by_key(|task| age_order(app, task));
        go.extend(running.into_iter().take(spare.max(surplus)));
        self.commands.extend(go.into_iter().map(|task| kill(task, "a new version replaces it", now)));
        limits.max_capacity.saturating_sub(tasks.old.len() + tasks.old_ending + tasks.new_ending)
    }
}

/// Marathon's arithmetic of a rolling replacement.
struct ReplacementLimits {
    min_healthy: usize,
    max_capacity: usize,
}

impl ReplacementLimits {
    fn of(app: &App) -> Self {
        let n = u64::from(app.instances);
        let min_healthy = (n * u64::from(app.upgrade.min_health_milli)).div_ceil(1000);
        let max_capacity = n + n * u64::from(app.upgrade.max_over_milli) / 1000;
        // With no room to add and no leave to remove, nothing would ever move.
        let max_capacity = if max_capacity == min_healthy { max_capacity + 1 } else { max_capacity };
        let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        Self { min_healthy: count(min_healthy), max_capacity: count(max_capacity) }
    }
}

/// An app's tasks, sorted by what they mean for its count.
struct Instances<'a> {
    /// Of the present configuration, there or coming.
    new: Vec<&'a Task>,
    /// Of the present configuration, told to end but not gone.
    new_ending: usize,
    /// Of an older configuration, not told to end.
    old: Vec<&'a Task>,
    /// Of an older configuration, told to end but not gone.
    old_ending: usize,
    /// Placed for too long without running.
    overdue: Vec<&'a Task>,
    wake_at: Option<Timestamp>,
}

impl<'a> Instances<'a> {
    fn of(state: &'a ClusterState, app: &App, now: Timestamp) -> Self {
        let mut sorted =
            Self { new: Vec::new(), new_ending: 0, old: Vec::new(), old_ending: 0, overdue: Vec::new(), wake_at: None };
        for task in state.tasks_of_app(&app.id) {
            let is_new = is_current(app, task);
            if task.kill.is_some() {
                *(if is_new { &mut sorted.new_ending } else { &mut sorted.old_ending }) += 1;
                continue;
            }
            if let Some(since) = task.unreachable_since {
                match app.unreachable.inactive_at(since) {
                    // No wait is over at once, whatever the clock says.
                    Some(at) if at <= now || at == since => continue,
                    Some(at) => sorted.wake(at),
                    None => {}
                }
            }
            if matches!(task.state, TaskState::Staging | TaskState::Starting) {
                let due = task.staged_at + LAUNCH_TIMEOUT;
                if due <= now {
                    sorted.overdue.push(task);
                    continue;
                }
                sorted.wake(due);
            }
            if is_new { sorted.new.push(task) } else { sorted.old.push(task) }
        }
        sorted
    }

    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}

/// Whether `task` runs the app's present configuration.
pub fn is_current(app: &App, task: &Task) -> bool {
    matches!(&task.spec.owner, Owner::App { version, .. } if *version >= app.last_config_change_at)
}

/// How long after the last of `failures` the next instance waits: `initial × factor^(count - 1)`, at most `max`.
pub fn delayed_until(failures: Failures, backoff: Backoff) -> Option<Timestamp> {
    if failures.count == 0 {
        return None;
    }
    let mut delay = backoff.initial.0.min(backoff.max.0);
    for _ in 1..failures.count {
        delay = (u128::from(delay) * u128::from(backoff.factor_milli) / 1000).min(u128::from(backoff.max.0)) as u64;
        if delay == backoff.max.0 || delay == 0 {
            break;
        }
    }
    Some(failures.last_at + Millis(delay))
}

/// Which `count` of `tasks` go when there are too many: those the user chose, then those that leave the rest evenly spread,
/// then those that are least up, then by age.
fn victims<'a>(
    state: &ClusterState,
    app: &App,
    tasks: &[&'a Task],
    count: usize,
    preselected: &BTreeSet<&TaskId>,
) -> Vec<&'a Task> {
    let field = app.constraints.iter().find(|c| c.operator == Operator::GroupBy).map(|c| c.field.as_str());
    let place = |task: &Task| {
        let agent = state.agents.get(&task.agent)?;
        field.and_then(|field| agent.attribute(field)).map(str::to_owned)
    };
    let mut left: Vec<&Task> = tasks.to_vec();
    let mut gone = Vec::with_capacity(count);
    for _ in 0..count {
        let mut crowd: BTreeMap<Option<String>, usize> = BTreeMap::new();
        left.iter().for_each(|task| *crowd.entry(place(task)).or_default() += 1);
        let next = left.iter().enumerate().min_by_key(|(_, task)| {
            (
                !preselected.contains(&task.id),
                std::cmp::Reverse(if field.is_some() { crowd[&place(task)] } else { 0 }),
                condition_order(task),
                age_order(app, task),
            )
        });
        let Some((at, _)) = next else { break };
        gone.push(left.swap_remove(at));
    }
    gone
}

fn condition_order(task: &Task) -> u8 {
    match task.state {
        TaskState::Unreachable => 0,
        // Somebody stops its unit by hand: it is up for a moment only, and must not be the one that is kept.
        TaskState::Killing => 1,
        TaskState::Staging => 2,
        TaskState::Starting => 3,
        _ => 4,
    }
}

fn age_order(app: &App, task: &Task) -> (i64, TaskId) {
    let at = task.staged_at.0;
    let order = match app.kill_selection {
        KillSelection::YoungestFirst => -at,
        KillSelection::OldestFirst => at,
    };
    (order, task.id.clone())
}

fn kill(task: &Task, why: &str, now: Timestamp) -> Command {
    Command::KillTask { task: task.id.clone(), why: why.to_owned(), at: now }
}

/// Whether what `action` asks for has come true.
fn is_complete(state: &ClusterState, action: &Action) -> bool {
    match action.kind {
        ActionKind::StartApplication => true,
        ActionKind::StopApplication => state.tasks_of_app(&action.app).next().is_none(),
        ActionKind::ScaleApplication | ActionKind::RestartApplication => {
            let Some(record) = state.apps.get(&action.app) else { return true };
            let app = &record.app;
            // What is unreachable can neither finish starting nor finish ending; it holds no deployment up.
            let mut tasks = state.tasks_of_app(&action.app).filter(|task| task.state != TaskState::Unreachable);
            let (mut running, mut other) = (0, 0);
            tasks.by_ref().for_each(|task| {
                let counts = is_current(app, task) && task.is_running();
                *(if counts { &mut running } else { &mut other }) += 1;
            });
            running == app.instances as usize && other == 0
        }
    }
}

/// Whether an app has what it wants: for people and for `drover apps`.
pub fn is_settled(state: &ClusterState, app: &AppId) -> bool {
    is_complete(state, &Action { kind: ActionKind::ScaleApplication, app: app.clone() })
}
