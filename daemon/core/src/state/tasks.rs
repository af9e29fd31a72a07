//! Commands about tasks.

use super::{ClusterState, Refusal, Told};
use crate::app::{Failures, UnreachableStrategy};
use crate::event::EventKind;
use crate::framework::Launch;
use crate::ids::{AgentId, TaskId};
use crate::job::RunState;
use crate::task::{KillRequest, Owner, Reason, Task, TaskFailure, TaskState, TaskStatus};
use crate::time::Timestamp;

impl ClusterState {
    pub(super) fn launch_task(&mut self, launch: &Launch, at: Timestamp, told: &mut Told) -> Result<(), Refusal> {
        if self.tasks.contains_key(&launch.task) {
            return Err(Refusal::Exists(format!("task {}", launch.task)));
        }
        let agent = self.agents.get(&launch.agent).ok_or_else(|| Refusal::NotFound(format!("agent {}", launch.agent)))?;
        if !agent.is_up() {
            return Err(Refusal::NoRoom(format!("agent {} does not answer", launch.agent)));
        }
        if agent.places(self.tasks_of_agent(&launch.agent).count()) == 0 {
            return Err(Refusal::NoRoom(format!("agent {} has as many tasks as it takes", launch.agent)));
        }
        let free = self.free_on(agent);
        let fits = launch.allocation.scalars.iter().all(|(role, part)| free.scalars.get(role).is_some_and(|f| f.hold(part)))
            && launch.allocation.ports.iter().all(|port| free.ports.values().any(|ports| ports.contains(*port)));
        if !fits {
            return Err(Refusal::NoRoom(format!("agent {} has not that much free any more", launch.agent)));
        }
        let host = agent.info.host.clone();
        self.check_wanted(&launch.spec.owner)?;
        let task = Task {
            id: launch.task.clone(),
            agent: launch.agent.clone(),
            host,
            spec: launch.spec.clone(),
            allocation: launch.allocation.clone(),
            state: TaskState::Staging,
            reason: Reason::Normal,
            message: String::new(),
            seq: 0,
            staged_at: at,
            started_at: None,
            invocation: None,
            kill: None,
            unreachable_since: None,
            exit: None,
        };
        if let Owner::Run { run, .. } = &task.spec.owner {
            let run = self.runs.get_mut(run).expect("checked above");
            run.state = RunState::Active { task: task.id.clone() };
            run.host = Some(task.host.clone());
            told.push(EventKind::RunChanged(Box::new(run.clone())));
        }
        told.push(EventKind::TaskChanged(Box::new(task.clone())));
        self.insert_task(task);
        self.raise_generation(&launch.agent);
        Ok(())
    }

    /// Whether its owner still wants one more: what keeps two leaders from launching the same instance or attempt twice.
    fn check_wanted(&self, owner: &Owner) -> Result<(), Refusal> {
        match owner {
            Owner::App { app: id, version } => {
                let record = self.apps.get(id).ok_or_else(|| Refusal::NotFound(format!("app {id}")))?;
                if record.app.version != *version {
                    return Err(Refusal::Stale(format!("app {id}")));
                }
                let since = record.app.last_config_change_at;
                let current = self
                    .tasks_of_app(id)
                    .filter(|task| task.is_active())
                    .filter(|task| matches!(&task.spec.owner, Owner::App { version, .. } if *version >= since))
                    .count();
                if current >= record.app.instances as usize {
                    return Err(Refusal::Stale(format!("app {id}")));
                }
            }
            Owner::Run { job: _, run: id, attempt } => {
                let run = self.runs.get(id).ok_or_else(|| Refusal::NotFound(format!("run {id}")))?;
                if run.attempt != *attempt || !matches!(run.state, RunState::Queued { .. }) {
                    return Err(Refusal::Stale(format!("run {id}")));
                }
            }
        }
        Ok(())
    }

    pub(super) fn kill_task(&mut self, id: &TaskId, why: &str, at: Timestamp, told: &mut Told) -> Result<(), Refusal> {
        let task = self.tasks.get_mut(id).ok_or_else(|| Refusal::NotFound(format!("task {id}")))?;
        if task.kill.is_some() {
            return Err(Refusal::Stale(format!("task {id}")));
        }
        task.kill = Some(KillRequest { at, why: why.to_owned() });
        let agent = task.agent.clone();
        told.push(EventKind::TaskChanged(Box::new(task.clone())));
        self.raise_generation(&agent);
        Ok(())
    }

    pub(super) fn record_status(&mut self, agent: &AgentId, status: &TaskStatus, told: &mut Told) -> Result<(), Refusal> {
        // A status of a task nobody knows, of an older number or from a wrong agent is a repeat of the past: taken, so that
        // the agent stops sending it, and without effect.
        let Some(task) = self.tasks.get_mut(&status.task).filter(|task| task.agent == *agent) else { return Ok(()) };
        let is_back = task.state == TaskState::Unreachable && status.seq >= task.seq;
        if status.seq <= task.seq && !is_back {
            return Ok(());
        }
        task.seq = status.seq;
        if status.invocation.is_some() {
            task.invocation.clone_from(&status.invocation);
        }
        task.unreachable_since = None;
        if status.state.is_terminal() {
            self.end_task(&status.task, status.state, status.reason, &status.message, Some(status), told);
            return Ok(());
        }
        if status.state == TaskState::Running && task.started_at.is_none() {
            task.started_at = Some(status.at);
        }
        task.state = status.state;
        task.reason = status.reason;
        task.message.clone_from(&status.message);
        let task = task.clone();
        if let Owner::Run { run, .. } = &task.spec.owner
            && let Some(run) = self.runs.get_mut(run)
            && run.started_at != task.started_at
        {
            run.started_at = task.started_at;
            told.push(EventKind::RunChanged(Box::new(run.clone())));
        }
        told.push(EventKind::TaskChanged(Box::new(task)));
        Ok(())
    }

    pub(super) fn expunge_task(
        &mut self,
        id: &TaskId,
        state: TaskState,
        message: &str,
        _at: Timestamp,
        told: &mut Told,
    ) -> Result<(), Refusal> {
        let task = self.tasks.get(id).ok_or_else(|| Refusal::NotFound(format!("task {id}")))?;
        if task.unreachable_since.is_none() {
            return Err(Refusal::Stale(format!("task {id}")));
        }
        self.end_task(id, state, Reason::AgentUnreachable, message, None, told);
        Ok(())
    }

    /// Takes a task off the books: its resources are free, its agent may forget it, its owner learns how it ended.
    pub(super) fn end_task(
        &mut self,
        id: &TaskId,
        state: TaskState,
        reason: Reason,
        message: &str,
        status: Option<&TaskStatus>,
        told: &mut Told,
    ) {
        let Some(mut task) = self.take_task(id) else { return };
        task.state = state;
        task.reason = reason;
        task.message = message.to_owned();
        task.exit = status.and_then(|status| status.exit);
        let at = status.map_or(told.at, |status| status.at);
        self.raise_generation(&task.agent);
        match &task.spec.owner {
            Owner::App { app, version } => {
                if let Some(record) = self.apps.get_mut(app) {
                    // Waits are counted from when the end was recorded: the clock of an agent may be wrong by hours.
                    if counts_as_failure(&task) && *version >= record.app.last_config_change_at {
                        record.failures = after_failure(record.failures, told.at, record.app.backoff.max);
                    }
                    if counts_as_failure(&task) && state != TaskState::Finished {
                        record.last_failure = Some(TaskFailure {
                            task: task.id.clone(),
                            agent: task.agent.clone(),
                            host: task.host.clone(),
                            state,
                            message: message.to_owned(),
                            at,
                            version: *version,
                        });
                    }
                }
            }
            Owner::Run { run, .. } => {
                if let Some(run) = self.runs.get_mut(run) {
                    run.state = RunState::AttemptEnded { state, at: told.at };
                    run.exit = status.and_then(|status| status.exit);
                    run.message = message.to_owned();
                    told.push(EventKind::RunChanged(Box::new(run.clone())));
                }
            }
        }
        told.push(EventKind::TaskChanged(Box::new(task)));
    }
}

/// Ends that nobody wished for. An exit with success counts too: an app is meant to stay.
fn counts_as_failure(task: &Task) -> bool {
    task.kill.is_none()
        && matches!(
            task.state,
            // Killed, and not by drover: an operator stopped its unit on the node.
            TaskState::Finished
                | TaskState::Failed
                | TaskState::Killed
                | TaskState::Error
                | TaskState::Dropped
                | TaskState::Gone
        )
}

/// Failures further apart than the longest delay are not in a row.
fn after_failure(failures: Failures, at: Timestamp, quiet: crate::time::Millis) -> Failures {
    let in_a_row = failures.count > 0 && at.since(failures.last_at) <= quiet;
    Failures { count: if in_a_row { failures.count.saturating_add(1) } else { 1 }, last_at: at }
}

impl UnreachableStrategy {
    /// When an instance that fell silent at `since` is replaced, if ever.
    pub fn inactive_at(self, since: Timestamp) -> Option<Timestamp> {
        match self {
            UnreachableStrategy::Disabled => None,
            UnreachableStrategy::After { inactive, .. } => Some(since + inactive),
        }
    }

    /// When it is forgotten, if ever.
    pub fn expunge_at(self, since: Timestamp) -> Option<Timestamp> {
        match self {
            UnreachableStrategy::Disabled => None,
            UnreachableStrategy::After { expunge, .. } => Some(since + expunge),
        }
    }
}
