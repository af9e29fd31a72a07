//! An app as clients see it: its definition in canonical form, and what else they ask to see beside it.

use super::embed::Embed;
use super::task::{Task, visible_state};
use super::{Decimal, Time};
use drover_core::app::{self, KillSelection};
use drover_core::ids::{AgentId, AppId, DeploymentId, Role, TaskId};
use drover_core::state::{AppRecord, ClusterState};
use drover_core::task::{Program, TaskFailure, TaskState};
use drover_core::time::{Millis, Timestamp};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// An app.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct App<'a> {
    #[serde(flatten)]
    definition: Definition<'a>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    counts: Option<Counts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deployments: Option<Vec<Id<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tasks: Option<Vec<Task<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_task_failure: Option<LastTaskFailure<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    readiness_check_results: Option<[(); 0]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_stats: Option<BTreeMap<&'static str, Stats>>,
    /// drover's own; only when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'a BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Id<'a> {
    id: &'a DeploymentId,
}

impl<'a> App<'a> {
    /// A definition and nothing else: a version of an app.
    pub fn definition(app: &'a app::App, embed: &Embed) -> Self {
        Self {
            definition: Definition::of(app),
            counts: None,
            deployments: None,
            tasks: None,
            last_task_failure: None,
            readiness_check_results: None,
            task_stats: None,
            unit: embed.unit.then_some(&app.properties),
        }
    }

    /// An app that is there.
    pub fn of(state: &'a ClusterState, record: &'a AppRecord, embed: &Embed, now: Timestamp) -> Self {
        let id = &record.app.id;
        let deployments = || state.deployments_of(id).map(|deployment| Id { id: &deployment.id }).collect();
        let failure = record.last_failure.as_ref().filter(|_| embed.last_task_failure);
        Self {
            counts: embed.counts.then(|| Counts::of(state.tasks_of_app(id))),
            deployments: embed.deployments.then(deployments),
            tasks: embed.tasks.then(|| state.tasks_of_app(id).filter_map(|task| Task::of(state, task)).collect()),
            last_task_failure: failure.map(|failure| LastTaskFailure::of(id, failure)),
            readiness_check_results: embed.readiness.then_some([]),
            task_stats: embed.task_stats.then(|| stats(state, &record.app, now)),
            ..Self::definition(&record.app, embed)
        }
    }

    /// An app that was just accepted and has no task yet.
    pub fn accepted(app: &'a app::App, deployment: &'a DeploymentId) -> Self {
        Self {
            counts: Some(Counts::default()),
            deployments: Some(vec![Id { id: deployment }]),
            tasks: Some(Vec::new()),
            ..Self::definition(app, &Embed::default())
        }
    }
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Definition<'a> {
    id: &'a AppId,
    #[serde(skip_serializing_if = "Option::is_none")]
    cmd: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    instances: u32,
    cpus: Decimal,
    mem: Decimal,
    disk: Decimal,
    gpus: u64,
    executor: &'static str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    env: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    constraints: Vec<Vec<&'a str>>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    dependencies: &'a BTreeSet<String>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    accepted_resource_roles: &'a BTreeSet<Role>,
    backoff_seconds: Decimal,
    backoff_factor: Decimal,
    max_launch_delay_seconds: Decimal,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_kill_grace_period_seconds: Option<Decimal>,
    kill_selection: KillSelection,
    labels: &'a BTreeMap<String, String>,
    networks: [Network; 1],
    require_ports: bool,
    port_definitions: Vec<PortDefinition<'a>>,
    upgrade_strategy: UpgradeStrategy,
    unreachable_strategy: UnreachableStrategy,
    role: &'a Role,
    version: Time,
    version_info: VersionInfo,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Network {
    mode: &'static str,
}

#[derive(Debug, Clone, Serialize)]
struct PortDefinition<'a> {
    port: u16,
    protocol: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
struct UpgradeStrategy {
    minimum_health_capacity: Decimal,
    maximum_over_capacity: Decimal,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(untagged)]
enum UnreachableStrategy {
    Disabled(&'static str),
    #[serde(rename_all = "camelCase")]
    After {
        inactive_after_seconds: Decimal,
        expunge_after_seconds: Decimal,
    },
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
struct VersionInfo {
    last_scaling_at: Time,
    last_config_change_at: Time,
}

impl<'a> Definition<'a> {
    fn of(app: &'a app::App) -> Self {
        let seconds = |span: Millis| Decimal::milli(span.0);
        let (cmd, args) = match &app.program {
            Program::Shell(line) => (Some(line.as_str()), None),
            Program::Argv(args) => (None, Some(args.as_slice())),
        };
        let constraint = |c: &'a app::Constraint| {
            [Some(c.field.as_str()), Some(c.operator.wire()), c.value.as_deref()].into_iter().flatten().collect()
        };
        let port = |port: &'a app::PortDefinition| PortDefinition {
            port: port.port,
            protocol: &port.protocol,
            name: port.name.as_deref(),
            labels: &port.labels,
        };
        Self {
            id: &app.id,
            cmd,
            args,
            user: app.user.as_deref(),
            instances: app.instances,
            cpus: Decimal::milli(app.resources.cpus_milli),
            mem: Decimal::mebibytes(app.resources.mem_bytes),
            disk: Decimal::mebibytes(app.resources.disk_bytes),
            gpus: app.resources.gpus,
            executor: "",
            env: &app.env,
            constraints: app.constraints.iter().map(constraint).collect(),
            dependencies: &app.dependencies,
            accepted_resource_roles: &app.accepted_roles,
            backoff_seconds: seconds(app.backoff.initial),
            backoff_factor: Decimal::milli(app.backoff.factor_milli),
            max_launch_delay_seconds: seconds(app.backoff.max),
            task_kill_grace_period_seconds: app.kill_grace.map(seconds),
            kill_selection: app.kill_selection,
            labels: &app.labels,
            networks: [Network { mode: "host" }],
            require_ports: app.require_ports,
            port_definitions: app.ports.iter().map(port).collect(),
            upgrade_strategy: UpgradeStrategy {
                minimum_health_capacity: Decimal::milli(app.upgrade.min_health_milli.into()),
                maximum_over_capacity: Decimal::milli(app.upgrade.max_over_milli.into()),
            },
            unreachable_strategy: match app.unreachable {
                app::UnreachableStrategy::Disabled => UnreachableStrategy::Disabled("disabled"),
                app::UnreachableStrategy::After { inactive, expunge } => UnreachableStrategy::After {
                    inactive_after_seconds: seconds(inactive),
                    expunge_after_seconds: seconds(expunge),
                },
            },
            role: &app.role,
            version: Time(app.version),
            version_info: VersionInfo {
                last_scaling_at: Time(app.last_scaling_at),
                last_config_change_at: Time(app.last_config_change_at),
            },
        }
    }
}

/// How many tasks are how far. A running task without health checks is neither healthy nor unhealthy.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    tasks_staged: usize,
    tasks_running: usize,
    tasks_healthy: usize,
    tasks_unhealthy: usize,
}

impl Counts {
    fn of<'a>(tasks: impl Iterator<Item = &'a drover_core::task::Task>) -> Self {
        tasks.fold(Self::default(), |mut counts, task| {
            match visible_state(task) {
                TaskState::Staging | TaskState::Starting => counts.tasks_staged += 1,
                TaskState::Running => counts.tasks_running += 1,
                _ => {}
            }
            counts
        })
    }
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct LastTaskFailure<'a> {
    app_id: &'a AppId,
    host: &'a str,
    message: &'a str,
    state: &'static str,
    task_id: &'a TaskId,
    timestamp: Time,
    version: Time,
    slave_id: &'a AgentId,
}

impl<'a> LastTaskFailure<'a> {
    fn of(app_id: &'a AppId, failure: &'a TaskFailure) -> Self {
        Self {
            app_id,
            host: &failure.host,
            message: &failure.message,
            state: failure.state.wire(),
            task_id: &failure.task,
            timestamp: Time(failure.at),
            version: Time(failure.version),
            slave_id: &failure.agent,
        }
    }
}

#[derive(Debug, Clone, Serialize)]
struct Stats {
    stats: StatsBody,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct StatsBody {
    counts: StatsCounts,
    #[serde(skip_serializing_if = "Option::is_none")]
    life_time: Option<LifeTime>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct StatsCounts {
    staged: usize,
    running: usize,
    healthy: usize,
    unhealthy: usize,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
struct LifeTime {
    average_seconds: Decimal,
    median_seconds: Decimal,
}

/// Statistics of an app's tasks by what they were launched from; groups without a task are left out.
fn stats(state: &ClusterState, app: &app::App, now: Timestamp) -> BTreeMap<&'static str, Stats> {
    let launched_from = |task: &drover_core::task::Task| super::task::owner(task).map(|(_, version)| version);
    let (first, last) = (Timestamp(i64::MIN), Timestamp(i64::MAX));
    let groups = [
        ("startedAfterLastScaling", app.last_scaling_at..last),
        ("withLatestConfig", app.last_config_change_at..last),
        ("withOutdatedConfig", first..app.last_config_change_at),
        ("totalSummary", first..last),
    ];
    let mut stats = BTreeMap::new();
    for (name, versions) in groups {
        let belongs = |task: &&_| launched_from(task).is_some_and(|version| versions.contains(&version));
        let tasks: Vec<_> = state.tasks_of_app(&app.id).filter(belongs).collect();
        if tasks.is_empty() {
            continue;
        }
        let Counts { tasks_staged, tasks_running, .. } = Counts::of(tasks.iter().copied());
        let counts = StatsCounts { staged: tasks_staged, running: tasks_running, healthy: 0, unhealthy: 0 };
        let mut ages: Vec<u64> = tasks.iter().filter_map(|task| Some(now.since(task.started_at?).0)).collect();
        ages.sort_unstable();
        let life_time = (!ages.is_empty()).then(|| LifeTime {
            average_seconds: Decimal::milli(ages.iter().sum::<u64>() / ages.len() as u64),
            median_seconds: Decimal::milli(ages[ages.len() / 2].midpoint(ages[(ages.len() - 1) / 2])),
        });
        stats.insert(name, Stats { stats: StatsBody { counts, life_time } });
    }
    stats
}
