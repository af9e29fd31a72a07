//! What can be written to the log. Each carries what it was based on and the time `at` which it was proposed; everything
//! that takes a choice was chosen before.

use super::{Bounds, ClusterVersion, JoinToken, NodeRole};
use crate::agent::AgentInfo;
use crate::app::App;
use crate::deployment::Deployment;
use crate::framework::Launch;
use crate::ids::{AgentId, AppId, DeploymentId, JobName, Role, RunId, TaskId};
use crate::job::{Job, Run};
use crate::task::{TaskState, TaskStatus};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// One change of the replicated state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields say themselves what they are; each variant is documented")]
pub enum Command {
    /// An agent connected with something new to say of itself, or came back.
    AdmitAgent { info: Box<AgentInfo>, at: Timestamp },
    /// An agent was silent for too long.
    MarkAgentUnreachable { agent: AgentId, at: Timestamp },
    /// An operator says the agent will not come back; its tasks are gone.
    RemoveAgent { agent: AgentId, at: Timestamp },
    /// A role's share.
    SetRoleWeight { role: Role, weight_milli: u64, at: Timestamp },
    /// How much of the past is kept, and how many runs a job may have.
    SetBounds { bounds: Bounds, at: Timestamp },
    /// From now on the log and snapshots are written at a later version. Refused unless it is later.
    RaiseVersion { to: ClusterVersion, at: Timestamp },
    /// Apps are created, changed or removed, in one deployment. All or nothing.
    ChangeApps { changes: Vec<AppChange>, deployment: Box<Deployment>, force: bool, at: Timestamp },
    /// The current step is complete.
    AdvanceDeployment { id: DeploymentId, from_step: usize, at: Timestamp },
    /// Stop it where it stands.
    CancelDeployment { id: DeploymentId, at: Timestamp },
    /// Forget an app's failures: no back-off.
    ResetFailures { app: AppId, at: Timestamp },
    /// Place a task.
    LaunchTask { launch: Box<Launch>, at: Timestamp },
    /// End a task.
    KillTask { task: TaskId, why: String, at: Timestamp },
    /// What an agent said of a task.
    RecordStatus { agent: AgentId, status: Box<TaskStatus>, at: Timestamp },
    /// Forget a task that cannot be asked any more.
    ExpungeTask { task: TaskId, state: TaskState, message: String, at: Timestamp },
    /// Define or redefine a job. `based_on` is the definition it replaces, `None` for a new name.
    PutJob { job: Box<Job>, next: Option<Timestamp>, remaining: Option<u32>, based_on: Option<Timestamp>, at: Timestamp },
    /// Remove a job, end its tasks, redefine its children.
    RemoveJob { name: JobName, children: Vec<JobChange>, at: Timestamp },
    /// Begin a run. One that stands for a slot is refused unless the job's next slot is `expected_next`.
    StartRun { run: Box<Run>, expected_next: Option<Timestamp>, next: Option<Timestamp>, remaining: Option<u32>, at: Timestamp },
    /// Queue a run's next attempt.
    RetryRun { run: RunId, attempt: u32, not_before: Timestamp, at: Timestamp },
    /// Close a run; `release` counts it for its dependents, `disable` switches its job off.
    FinishRun { run: RunId, outcome: RunOutcome, release: bool, disable: bool, at: Timestamp },
    /// Count a success of a job that did not run here.
    MarkJobSuccess { job: JobName, at: Timestamp },
    /// A new join token.
    PutJoinToken { hash: String, token: JoinToken, at: Timestamp },
    /// A node joins with a token.
    UseJoinToken { hash: String, role: NodeRole, at: Timestamp },
}

/// A change of one app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppChange {
    /// Which.
    pub id: AppId,
    /// The version it replaces; `None` if there must be none.
    pub based_on: Option<Timestamp>,
    /// As it shall be; `None` removes it.
    pub to: Option<App>,
}

/// A job redefined because another was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobChange {
    /// As it shall be.
    pub job: Job,
    /// Its next slot.
    pub next: Option<Timestamp>,
    /// Slots left.
    pub remaining: Option<u32>,
    /// The definition it replaces.
    pub based_on: Timestamp,
}

/// How a run came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RunOutcome {
    /// An attempt succeeded.
    Succeeded,
    /// The retries are used up.
    Failed,
    /// It was ended, or dropped, by wish: neither success nor failure.
    Cancelled,
}

impl Command {
    /// When it was proposed, by the proposer's clock.
    pub fn at(&self) -> Timestamp {
        match self {
            Self::AdmitAgent { at, .. }
            | Self::MarkAgentUnreachable { at, .. }
            | Self::RemoveAgent { at, .. }
            | Self::SetRoleWeight { at, .. }
            | Self::SetBounds { at, .. }
            | Self::RaiseVersion { at, .. }
            | Self::ChangeApps { at, .. }
            | Self::AdvanceDeployment { at, .. }
            | Self::CancelDeployment { at, .. }
            | Self::ResetFailures { at, .. }
            | Self::LaunchTask { at, .. }
            | Self::KillTask { at, .. }
            | Self::RecordStatus { at, .. }
            | Self::ExpungeTask { at, .. }
            | Self::PutJob { at, .. }
            | Self::RemoveJob { at, .. }
            | Self::StartRun { at, .. }
            | Self::RetryRun { at, .. }
            | Self::FinishRun { at, .. }
            | Self::MarkJobSuccess { at, .. }
            | Self::PutJoinToken { at, .. }
            | Self::UseJoinToken { at, .. } => *at,
        }
    }
}
