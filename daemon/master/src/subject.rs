//! What a command is about: one line for the journal and the ids that lead from a request to its tasks. Master and agent use
//! the same field names, so that one `journalctl DROVER_TASK_ID=…` over all nodes tells a task's story.

use drover_core::ids::AppId;
use drover_core::state::{ClusterState, Command};
use drover_core::task::Owner;
use drover_core::time::Timestamp;
use tracing::{debug, info};

/// A command's line and ids.
#[derive(Debug, Default, Clone)]
pub(crate) struct Subject {
    line: String,
    task_id: Option<String>,
    agent_id: Option<String>,
    app_id: Option<String>,
    job_id: Option<String>,
    run_id: Option<String>,
    deployment_id: Option<String>,
}

impl Subject {
    /// Of a command that is about to be proposed on `state`.
    pub(crate) fn of(command: &Command, state: &ClusterState) -> Self {
        let mut subject = Self { line: describe(command), ..Self::default() };
        match command {
            Command::LaunchTask { launch, .. } => {
                subject.task_id = Some(launch.task.to_string());
                subject.agent_id = Some(launch.agent.to_string());
                subject.own(&launch.spec.owner, state);
            }
            Command::KillTask { task, .. } | Command::ExpungeTask { task, .. } => {
                subject.task_id = Some(task.to_string());
                if let Some(known) = state.tasks.get(task) {
                    subject.agent_id = Some(known.agent.to_string());
                    subject.own(&known.spec.owner, state);
                }
            }
            Command::MarkAgentUnreachable { agent, .. } | Command::RemoveAgent { agent, .. } => {
                subject.agent_id = Some(agent.to_string());
            }
            Command::ChangeApps { changes, deployment, .. } => {
                subject.deployment_id = Some(deployment.id.to_string());
                if let [change] = changes.as_slice() {
                    subject.app_id = Some(change.id.to_string());
                }
            }
            Command::AdvanceDeployment { id, .. } | Command::CancelDeployment { id, .. } => {
                subject.deployment_id = Some(id.to_string());
            }
            Command::ResetFailures { app, .. } => subject.app_id = Some(app.to_string()),
            Command::PutJob { job, .. } => subject.job_id = Some(job.name.to_string()),
            Command::RemoveJob { name, .. } | Command::MarkJobSuccess { job: name, .. } => {
                subject.job_id = Some(name.to_string())
            }
            Command::StartRun { run, .. } => {
                subject.job_id = Some(run.job.to_string());
                subject.run_id = Some(run.id.to_string());
            }
            Command::RetryRun { run, .. } | Command::FinishRun { run, .. } => {
                subject.job_id = state.runs.get(run).map(|run| run.job.to_string());
                subject.run_id = Some(run.to_string());
            }
            Command::AdmitAgent { .. }
            | Command::SetRoleWeight { .. }
            | Command::SetBounds { .. }
            | Command::RaiseVersion { .. }
            | Command::RecordStatus { .. }
            | Command::PutJoinToken { .. }
            | Command::UseJoinToken { .. } => {}
        }
        subject
    }

    fn own(&mut self, owner: &Owner, state: &ClusterState) {
        let deployment_of = |app: &AppId| state.deployments_of(app).next().map(|deployment| deployment.id.to_string());
        match owner {
            Owner::App { app, .. } => {
                self.deployment_id = deployment_of(app);
                self.app_id = Some(app.to_string());
            }
            Owner::Run { job, run, .. } => {
                self.job_id = Some(job.to_string());
                self.run_id = Some(run.to_string());
            }
        }
    }

    /// It is to be proposed.
    pub(crate) fn tell_proposed(&self) {
        let Self { line, task_id, agent_id, app_id, job_id, run_id, deployment_id } = self;
        debug!(task_id, agent_id, app_id, job_id, run_id, deployment_id, "proposing: {line}");
    }

    /// It is on record.
    pub(crate) fn tell_applied(&self, index: u64) {
        let Self { line, task_id, agent_id, app_id, job_id, run_id, deployment_id } = self;
        info!(index, task_id, agent_id, app_id, job_id, run_id, deployment_id, "{line}");
    }

    /// It was not honoured.
    pub(crate) fn tell_refused(&self, error: &dyn std::error::Error) {
        let Self { line, task_id, agent_id, app_id, job_id, run_id, deployment_id } = self;
        debug!(%error, task_id, agent_id, app_id, job_id, run_id, deployment_id, "not done: {line}");
    }
}

/// One line for the journal: what is decided, and why.
fn describe(command: &Command) -> String {
    let until = |at: &Timestamp| at.to_string();
    match command {
        Command::LaunchTask { launch, .. } => format!("launch {} on {}", launch.task, launch.agent),
        Command::KillTask { task, why, .. } => format!("end {task}: {why}"),
        Command::ExpungeTask { task, message, .. } => format!("give up {task}: {message}"),
        Command::MarkAgentUnreachable { agent, .. } => format!("agent {agent} does not answer"),
        Command::AdvanceDeployment { id, from_step, .. } => format!("deployment {id}: step {} is complete", from_step + 1),
        Command::StartRun { run, .. } => format!("start run {} ({:?})", run.id, run.cause),
        Command::RetryRun { run, attempt, not_before, .. } => {
            format!("retry run {run}, attempt {attempt}, at {}", until(not_before))
        }
        Command::FinishRun { run, outcome, .. } => format!("run {run} is over: {outcome:?}"),
        Command::SetRoleWeight { role, weight_milli, .. } => format!("role {role} weighs {weight_milli}/1000"),
        Command::ChangeApps { changes, deployment, .. } => {
            let apps: Vec<&str> = changes.iter().map(|change| change.id.as_str()).take(10).collect();
            format!(
                "deployment {} begins: {} apps, {} steps ({})",
                deployment.id,
                changes.len(),
                deployment.steps.len(),
                apps.join(" ")
            )
        }
        Command::CancelDeployment { id, .. } => format!("deployment {id} is cancelled"),
        Command::PutJob { job, .. } => format!("job {} is defined", job.name),
        Command::RemoveJob { name, .. } => format!("job {name} is removed"),
        Command::SetBounds { bounds, .. } => format!("{bounds:?}"),
        Command::RaiseVersion { to, .. } => format!("the cluster is at version {}", to.0),
        other => format!("{other:?}"),
    }
}
