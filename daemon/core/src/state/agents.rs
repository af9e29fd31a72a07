//! Commands about agents.

use super::{ClusterState, Refusal, Told};
use crate::agent::{Agent, AgentInfo, Reachability};
use crate::event::EventKind;
use crate::ids::{AgentId, TaskId};
use crate::task::{Reason, TaskState};
use crate::time::Timestamp;

impl ClusterState {
    pub(super) fn admit_agent(&mut self, info: &AgentInfo, at: Timestamp, told: &mut Told) -> Result<(), Refusal> {
        let agent = self.agents.entry(info.id.clone()).or_insert_with(|| Agent {
            info: info.clone(),
            reachability: Reachability::Up,
            generation: 0,
            admitted_at: at,
        });
        agent.info = info.clone();
        agent.reachability = Reachability::Up;
        // Its tasks stay UNREACHABLE until it has said of each what became of it.
        told.push(EventKind::AgentChanged {
            agent: info.id.clone(),
            host: info.host.clone(),
            reachability: Some(Reachability::Up),
        });
        Ok(())
    }

    pub(super) fn mark_agent_unreachable(&mut self, id: &AgentId, at: Timestamp, told: &mut Told) -> Result<(), Refusal> {
        let agent = self.agents.get_mut(id).ok_or_else(|| Refusal::NotFound(format!("agent {id}")))?;
        if !agent.is_up() {
            return Err(Refusal::Stale(format!("agent {id}")));
        }
        agent.reachability = Reachability::Unreachable(at);
        told.push(EventKind::AgentChanged {
            agent: id.clone(),
            host: agent.info.host.clone(),
            reachability: Some(agent.reachability),
        });
        let tasks: Vec<TaskId> = self.tasks_of_agent(id).map(|task| task.id.clone()).collect();
        for id in tasks {
            let task = self.tasks.get_mut(&id).expect("the index names tasks that exist");
            task.state = TaskState::Unreachable;
            task.reason = Reason::AgentUnreachable;
            task.message = "its agent does not answer".into();
            task.unreachable_since = Some(at);
            told.push(EventKind::TaskChanged(Box::new(task.clone())));
        }
        Ok(())
    }

    pub(super) fn remove_agent(&mut self, id: &AgentId, told: &mut Told) -> Result<(), Refusal> {
        if !self.agents.contains_key(id) {
            return Err(Refusal::NotFound(format!("agent {id}")));
        }
        let tasks: Vec<TaskId> = self.tasks_of_agent(id).map(|task| task.id.clone()).collect();
        for task in tasks {
            self.end_task(
                &task,
                TaskState::GoneByOperator,
                Reason::AgentGone,
                "its agent was removed by an operator",
                None,
                told,
            );
        }
        let agent = self.agents.remove(id).expect("checked above");
        told.push(EventKind::AgentChanged { agent: id.clone(), host: agent.info.host, reachability: None });
        Ok(())
    }
}
