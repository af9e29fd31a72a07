//! "Why is it not running?": for each node, each reason, out of the leader's last decision.

use super::views::count;
use super::{Api, Refused};
use drover_api::drover::{ApiVersion, NodeRefusals, Refusal, Subject, SubjectKind, Waiting, Why};
use drover_core::ids::{AppId, JobName, TaskId};
use drover_core::leader::{self, Request};
use drover_core::matcher::Against;
use drover_core::resources::Scalars;
use drover_core::scaling;
use drover_core::state::ClusterState;

pub(super) fn app(api: &Api, path: &str) -> Result<Why, Refused> {
    let missing = || Refused::not_found(format!("app {path}")).remedy("drover apps list");
    let id = AppId::parse(path).map_err(|_| missing())?;
    let board = api.board.waiting();
    api.consensus
        .read(|state| {
            let record = state.apps.get(&id)?;
            let app = &record.app;
            let running = count(state.tasks_of_app(&id).filter(|task| task.is_running()));
            let mut waiting: Vec<Waiting> = Vec::new();
            if let Some(entry) = board.get(&Request::App(id.clone())) {
                waiting.push(waits(state, needs(&app.resources, app.ports.len(), &app.constraints), entry));
            }
            let held = state.deployments_of(&id).find(|deployment| deployment.holds_back(&id));
            let summary = if let Some(deployment) = held {
                format!("deployment {} has not come to this app yet: others must be up first", deployment.id)
            } else if let Some(entry) = waiting.first() {
                sentence(entry)
            } else if scaling::is_settled(state, &id) {
                format!("all {} instances run", app.instances)
            } else {
                let started = "the others are being started or ended".to_owned();
                record.last_failure.as_ref().map_or(started, |failure| {
                    format!("the last failure: {} on {}: {}", failure.task, failure.host, failure.message)
                })
            };
            Some(Why {
                api_version: ApiVersion,
                subject: Subject { kind: SubjectKind::App, name: id.to_string() },
                wanted: app.instances,
                running,
                waiting,
                summary,
            })
        })
        .ok_or_else(missing)
}

pub(super) fn job(api: &Api, name: &str) -> Result<Why, Refused> {
    let missing = || Refused::not_found(format!("job {name}")).remedy("drover jobs list");
    let id = JobName::parse(name).map_err(|_| missing())?;
    let board = api.board.waiting();
    api.consensus
        .read(|state| {
            let entry = state.jobs.get(&id)?;
            let job = &entry.job;
            let live: Vec<_> = state.runs.values().filter(|run| run.job == id).collect();
            let waiting: Vec<Waiting> = live
                .iter()
                .filter_map(|run| board.get(&Request::Run(run.id.clone())))
                .map(|entry| waits(state, needs(&job.resources, 0, &job.constraints), entry))
                .collect();
            let summary = if let Some(entry) = waiting.first() {
                sentence(entry)
            } else if job.disabled {
                "the job is disabled".to_owned()
            } else if !live.is_empty() {
                "a run is under way".to_owned()
            } else if let Some(next) = entry.record.next {
                format!("the next run is due at {next}")
            } else if entry.record.edges.is_empty() {
                "its schedule has run out".to_owned()
            } else {
                let open = entry.record.edges.iter().filter(|(_, count)| **count == 0).map(|(parent, _)| parent.as_str());
                format!("waits for the success of {}", open.collect::<Vec<_>>().join(", "))
            };
            Some(Why {
                api_version: ApiVersion,
                subject: Subject { kind: SubjectKind::Job, name: id.to_string() },
                wanted: count(live.iter()),
                running: count(live.iter().filter(|run| run.started_at.is_some())),
                waiting,
                summary,
            })
        })
        .ok_or_else(missing)
}

pub(super) fn task(api: &Api, id: &str) -> Result<Why, Refused> {
    let id = TaskId::new(id);
    api.consensus
        .read(|state| {
            let task = state.tasks.get(&id)?;
            let mut summary =
                format!("{} on {} since {}", task.state.wire(), task.host, task.started_at.unwrap_or(task.staged_at));
            if !task.message.is_empty() {
                summary = format!("{summary}: {}", task.message);
            }
            if let Some(kill) = &task.kill {
                summary = format!("{summary}; it is being ended: {}", kill.why);
            }
            Some(Why {
                api_version: ApiVersion,
                subject: Subject { kind: SubjectKind::Task, name: id.to_string() },
                wanted: u32::from(task.kill.is_none()),
                running: u32::from(task.is_running()),
                waiting: Vec::new(),
                summary,
            })
        })
        .ok_or_else(|| Refused::not_found(format!("task {id}")).remedy("drover tasks list"))
}

fn needs(scalars: &Scalars, ports: usize, constraints: &[drover_core::app::Constraint]) -> String {
    let mut needs = vec![format!("cpus {}", scalars.cpus_milli as f64 / 1000.0), format!("mem {}M", scalars.mem_bytes >> 20)];
    if scalars.disk_bytes > 0 {
        needs.push(format!("disk {}M", scalars.disk_bytes >> 20));
    }
    if ports > 0 {
        needs.push(format!("{ports} ports"));
    }
    for constraint in constraints {
        let value = constraint.value.as_deref().unwrap_or_default();
        needs.push(format!("{} {} {value}", constraint.field, constraint.operator.wire()).trim_end().to_owned());
    }
    needs.join(", ")
}

fn waits(state: &ClusterState, request: String, entry: &leader::Waiting) -> Waiting {
    let held = match entry.delayed_until {
        Some(until) => Some(format!("back-off after failures: the next attempt is made at {until}")),
        None if entry.behind => Some("another run of the job is not over yet".to_owned()),
        None if state.agents.is_empty() => Some("no node has joined the cluster".to_owned()),
        None => None,
    };
    let nodes = entry.agents.iter().filter(|(_, reasons)| !reasons.is_empty()).map(|(agent, reasons)| NodeRefusals {
        node: state.agents.get(agent).map_or_else(|| agent.to_string(), |agent| agent.info.host.clone()),
        reasons: reasons.iter().map(refusal).collect(),
    });
    Waiting { request, count: entry.count, since: entry.since.into(), held, nodes: nodes.collect() }
}

fn refusal(against: &Against) -> Refusal {
    let kind = match against {
        Against::Unreachable => "unreachable",
        Against::Constraint { .. } => "constraint",
        Against::Role { .. } => "role",
        Against::Cpus { .. } => "cpus",
        Against::Memory { .. } => "mem",
        Against::Disk { .. } => "disk",
        Against::Gpus { .. } => "gpus",
        Against::Ports { .. } => "ports",
        Against::Systemd { .. } => "systemd",
        Against::Tasks { .. } => "tasks",
    };
    Refusal { kind: kind.to_owned(), message: against.to_string() }
}

fn sentence(waiting: &Waiting) -> String {
    match &waiting.held {
        Some(held) => held.clone(),
        None => format!(
            "{} more wanted, and none of {} nodes takes one: see each node's reasons",
            waiting.count,
            waiting.nodes.len()
        ),
    }
}
