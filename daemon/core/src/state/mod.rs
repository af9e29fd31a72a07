//! The replicated state: wishes and records. [`ClusterState::apply`] is its only writer; it is total and deterministic, it
//! checks and records, and it never plans. A decision that went stale before it reached the log is refused here.

mod agents;
mod apps;
mod bounds;
mod command;
mod jobs;
mod tasks;
mod tokens;
mod version;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_apps;
#[cfg(test)]
mod tests_jobs;

pub use bounds::Bounds;
pub use command::{AppChange, Command, JobChange, RunOutcome};
pub use tokens::{JoinToken, NodeRole};
pub use version::{ClusterVersion, STATE_VERSION, TooNew, check_known};

use crate::agent::Agent;
use crate::app::{App, Failures};
use crate::deployment::Deployment;
use crate::event::{Event, EventKind};
use crate::framework::Framework;
use crate::ids::{AgentId, AppId, DeploymentId, FrameworkId, JobName, Role, RunId, TaskId};
use crate::job::{Job, JobRecord, Run};
use crate::resources::Pools;
use crate::task::{Owner, Task, TaskFailure};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// An app and what is remembered of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppRecord {
    /// As it shall be.
    pub app: App,
    /// Its definitions by version, the newest included.
    pub versions: BTreeMap<Timestamp, App>,
    /// Failures in a row of its present configuration.
    pub failures: Failures,
    /// The last failure, for people.
    pub last_failure: Option<TaskFailure>,
}

/// A job and what is remembered of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobEntry {
    /// Its definition.
    pub job: Job,
    /// Slots, counters, history.
    pub record: JobRecord,
}

/// A role's claim on the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleRecord {
    /// Thousandths; a role of weight 2000 gets twice the share of one of 1000.
    pub weight_milli: u64,
}

/// Everything the masters agree on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
    /// What the log and snapshots are written at. Every master of the cluster knows it.
    #[serde(default)]
    pub version: ClusterVersion,
    /// Admitted agents.
    pub agents: BTreeMap<AgentId, Agent>,
    /// Roles that were given a weight; others weigh 1000.
    pub roles: BTreeMap<Role, RoleRecord>,
    /// Registered frameworks beside the two inside the leader.
    pub frameworks: BTreeMap<FrameworkId, Framework>,
    /// Apps.
    pub apps: BTreeMap<AppId, AppRecord>,
    /// Deployments under way.
    pub deployments: BTreeMap<DeploymentId, Deployment>,
    /// Tasks that are, or may be, there.
    pub tasks: BTreeMap<TaskId, Task>,
    /// Jobs.
    pub jobs: BTreeMap<JobName, JobEntry>,
    /// Runs that are not over.
    pub runs: BTreeMap<RunId, Run>,
    /// Unused join tokens by the SHA-256 of their secret, in hex.
    pub tokens: BTreeMap<String, JoinToken>,
    /// The newest version given to anything; the next one must be later.
    pub last_version: Timestamp,
    /// How much of the past is kept, and how many runs a job may have.
    #[serde(default)]
    pub bounds: Bounds,
    #[serde(skip)]
    index: Index,
}

/// Derived look-ups; never written, never compared between masters by their own right.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Index {
    by_agent: BTreeMap<AgentId, BTreeSet<TaskId>>,
    by_app: BTreeMap<AppId, BTreeSet<TaskId>>,
    /// The one deployment that touches an app.
    held_by: BTreeMap<AppId, DeploymentId>,
}

/// Why a command was not honoured. Each says what was in its way, so that the proposer can look again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// What it was based on has changed since.
    #[error("{0} has changed meanwhile")]
    Stale(String),
    /// There is no such thing.
    #[error("{0} does not exist")]
    NotFound(String),
    /// There is one already.
    #[error("{0} exists already")]
    Exists(String),
    /// These deployments hold it.
    #[error("locked by deployments")]
    Locked(Vec<DeploymentId>),
    /// It does not fit on the agent any more.
    #[error("{0}")]
    NoRoom(String),
    /// A join token that is unknown, expired, used up or for another role.
    #[error("{0}")]
    BadToken(String),
}

/// What one command did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Applied {
    /// Whether it was honoured. A refused command changed nothing.
    pub result: Result<(), Refusal>,
    /// What happened by it.
    pub events: Vec<Event>,
}

/// Collects the events of one command.
struct Told {
    at: Timestamp,
    events: Vec<Event>,
}

impl Told {
    fn push(&mut self, kind: EventKind) {
        self.events.push(Event { at: self.at, kind });
    }
}

impl ClusterState {
    /// Honours or refuses one command. Total: whatever is in the log, this returns.
    pub fn apply(&mut self, command: &Command) -> Applied {
        let mut told = Told { at: command.at(), events: Vec::new() };
        let result = self.dispatch(command, &mut told);
        debug_assert!(result.is_ok() || told.events.is_empty(), "a refused command told {:?}", told.events);
        Applied { result, events: told.events }
    }

    fn dispatch(&mut self, command: &Command, told: &mut Told) -> Result<(), Refusal> {
        match command {
            Command::AdmitAgent { info, at } => self.admit_agent(info, *at, told),
            Command::MarkAgentUnreachable { agent, at } => self.mark_agent_unreachable(agent, *at, told),
            Command::RemoveAgent { agent, at: _ } => self.remove_agent(agent, told),
            Command::SetRoleWeight { role, weight_milli, at: _ } => {
                self.roles.insert(role.clone(), RoleRecord { weight_milli: *weight_milli });
                Ok(())
            }
            Command::SetBounds { bounds, at: _ } => {
                self.set_bounds(*bounds);
                Ok(())
            }
            Command::RaiseVersion { to, at: _ } => self.raise_version(*to, told),
            Command::ChangeApps { changes, deployment, force, at: _ } => self.change_apps(changes, deployment, *force, told),
            Command::AdvanceDeployment { id, from_step, at: _ } => self.advance_deployment(id, *from_step, told),
            Command::CancelDeployment { id, at: _ } => self.cancel_deployment(id, told),
            Command::ResetFailures { app, at: _ } => self.reset_failures(app),
            Command::LaunchTask { launch, at } => self.launch_task(launch, *at, told),
            Command::KillTask { task, why, at } => self.kill_task(task, why, *at, told),
            Command::RecordStatus { agent, status, at: _ } => self.record_status(agent, status, told),
            Command::ExpungeTask { task, state, message, at } => self.expunge_task(task, *state, message, *at, told),
            Command::PutJob { job, next, remaining, based_on, at: _ } => self.put_job(job, *next, *remaining, *based_on, told),
            Command::RemoveJob { name, children, at } => self.remove_job(name, children, *at, told),
            Command::StartRun { run, expected_next, next, remaining, at: _ } => {
                self.start_run(run, *expected_next, *next, *remaining, told)
            }
            Command::RetryRun { run, attempt, not_before, at: _ } => self.retry_run(run, *attempt, *not_before, told),
            Command::FinishRun { run, outcome, release, disable, at } => {
                self.finish_run(run, *outcome, *release, *disable, *at, told)
            }
            Command::MarkJobSuccess { job, at } => self.mark_job_success(job, *at, told),
            Command::PutJoinToken { hash, token, at } => self.put_join_token(hash, token, *at),
            Command::UseJoinToken { hash, role, at } => self.use_join_token(hash, *role, *at),
        }
    }

    /// Rebuilds the look-ups that are not stored. To be called once after decoding.
    pub fn rebuild_indexes(&mut self) {
        self.index = Index::default();
        for task in self.tasks.values() {
            self.index.add(task);
        }
        for deployment in self.deployments.values() {
            self.index.hold(deployment);
        }
    }

    /// The tasks that are, or may be, on an agent.
    pub fn tasks_of_agent<'a>(&'a self, agent: &AgentId) -> impl Iterator<Item = &'a Task> + use<'a> {
        let ids = self.index.by_agent.get(agent).into_iter().flatten();
        ids.filter_map(|id| self.tasks.get(id))
    }

    /// The tasks of an app, of all its versions.
    pub fn tasks_of_app<'a>(&'a self, app: &AppId) -> impl Iterator<Item = &'a Task> + use<'a> {
        let ids = self.index.by_app.get(app).into_iter().flatten();
        ids.filter_map(|id| self.tasks.get(id))
    }

    /// Apps that still have tasks, whether or not they still exist.
    pub fn apps_with_tasks(&self) -> impl Iterator<Item = &AppId> {
        self.index.by_app.keys()
    }

    /// What is free on an agent.
    pub fn free_on(&self, agent: &Agent) -> Pools {
        agent.free(self.tasks_of_agent(&agent.info.id).map(|task| &task.allocation))
    }

    /// The deployments that touch an app: none or one, since no two may touch the same.
    pub fn deployments_of(&self, app: &AppId) -> impl Iterator<Item = &Deployment> + use<'_> {
        self.index.held_by.get(app).and_then(|id| self.deployments.get(id)).into_iter()
    }

    fn insert_task(&mut self, task: Task) {
        self.index.add(&task);
        self.tasks.insert(task.id.clone(), task);
    }

    fn take_task(&mut self, id: &TaskId) -> Option<Task> {
        let task = self.tasks.remove(id)?;
        self.index.remove(&task);
        Some(task)
    }

    fn raise_generation(&mut self, agent: &AgentId) {
        if let Some(agent) = self.agents.get_mut(agent) {
            agent.generation += 1;
        }
    }
}

impl Index {
    fn hold(&mut self, deployment: &Deployment) {
        for app in deployment.apps() {
            self.held_by.insert(app.clone(), deployment.id.clone());
        }
    }

    fn let_go(&mut self, deployment: &Deployment) {
        for app in deployment.apps() {
            self.held_by.remove(app);
        }
    }

    fn add(&mut self, task: &Task) {
        self.by_agent.entry(task.agent.clone()).or_default().insert(task.id.clone());
        if let Owner::App { app, .. } = &task.spec.owner {
            self.by_app.entry(app.clone()).or_default().insert(task.id.clone());
        }
    }

    fn remove(&mut self, task: &Task) {
        fn drop_from<K: Ord>(map: &mut BTreeMap<K, BTreeSet<TaskId>>, key: &K, id: &TaskId) {
            if let Some(ids) = map.get_mut(key) {
                ids.remove(id);
                if ids.is_empty() {
                    map.remove(key);
                }
            }
        }
        drop_from(&mut self.by_agent, &task.agent, &task.id);
        if let Owner::App { app, .. } = &task.spec.owner {
            drop_from(&mut self.by_app, app, &task.id);
        }
    }
}
