//! Read views: the replicated state, and what this leader has heard, in the shapes of `/drover/v1`.

use super::{Api, Refused};
use crate::clock;
use crate::consensus::{Member, MemberRole};
use drover_api::drover::{
    AgentCounts, ApiVersion, AppCounts, AppProgress, Capacity, Job, JobCounts, JobDetail, Jobs, Leader, Master, MasterRole,
    Masters, NextRun, Node, NodeState, Nodes, Resources, Run, Status, Task, TaskCounts, Tasks, Warning,
};
use drover_core::agent::{Agent, Reachability};
use drover_core::ids::{JobName, Role};
use drover_core::job::Trigger;
use drover_core::leader::{Request, Waiting};
use drover_core::resources::{Ports, Scalars};
use drover_core::scaling;
use drover_core::state::{ClusterState, JobEntry};
use drover_core::task::{self, Owner, TaskState};
use drover_core::time::Timestamp;
use std::time::Duration;

/// Unsettled apps named in the status.
const UNSETTLED_MAX: usize = 10;

/// A request that waits this long without being delayed on purpose is worth a warning.
const WAIT_WARNING_MS: u64 = 30_000;

pub(super) fn status(api: &Api) -> Status {
    let leadership = api.consensus.leadership().borrow().clone();
    let waiting = api.board.waiting();
    let now = clock::now();
    api.consensus.read(|state| Status {
        api_version: ApiVersion,
        cluster: api.cluster.to_string(),
        leader: leadership.leader.as_ref().map(|l| Leader { name: l.name.clone(), address: l.address.clone() }),
        term: leadership.term,
        version: state.version.0,
        masters: api.consensus.members().into_iter().map(master).collect(),
        agents: agent_counts(state),
        capacity: capacity(state),
        apps: app_counts(state),
        jobs: job_counts(state),
        tasks: task_counts(state),
        warnings: warnings(state, &waiting, now),
    })
}

fn master(member: Member) -> Master {
    let role = match member.role {
        MemberRole::Leader => MasterRole::Leader,
        MemberRole::Follower => MasterRole::Follower,
        MemberRole::Learner => MasterRole::Learner,
    };
    let (knows, release) = member.knows.map(|knows| (knows.version, knows.release)).unzip();
    let Member { id, name, address, lag, seen_ago_ms, .. } = member;
    Master { id, name, address, role, lag, seen_ago_ms, knows, release }
}

pub(super) fn masters(api: &Api) -> Masters {
    let term = api.consensus.leadership().borrow().term;
    let mut masters: Vec<Master> = api.consensus.members().into_iter().map(master).collect();
    masters.sort_by(|a, b| a.name.cmp(&b.name));
    let version = api.consensus.read(|state| state.version.0);
    Masters { api_version: ApiVersion, term, version, masters }
}

fn agent_counts(state: &ClusterState) -> AgentCounts {
    let up = count(state.agents.values().filter(|agent| agent.is_up()));
    AgentCounts { up, unreachable: count(state.agents.values()) - up }
}

fn capacity(state: &ClusterState) -> Capacity {
    let mut total = Scalars::default();
    let mut used = Scalars::default();
    for agent in state.agents.values().filter(|agent| agent.is_up()) {
        total = total.plus(agent.info.resources.total());
        used = used.plus(used_on(state, agent));
    }
    Capacity { total: total.into(), used: used.into() }
}

fn used_on(state: &ClusterState, agent: &Agent) -> Scalars {
    let tasks = state.tasks_of_agent(&agent.info.id);
    tasks.fold(Scalars::default(), |sum, task| sum.plus(task.allocation.total()))
}

fn app_counts(state: &ClusterState) -> AppCounts {
    let mut counts = AppCounts { total: count(state.apps.keys()), ..AppCounts::default() };
    for (id, record) in &state.apps {
        let deploying = state.deployments_of(id).next().is_some();
        counts.deploying += u32::from(deploying);
        if !deploying && scaling::is_settled(state, id) {
            counts.healthy += 1;
        } else if counts.unsettled.len() < UNSETTLED_MAX {
            let running = count(state.tasks_of_app(id).filter(|task| task.is_running()));
            counts.unsettled.push(AppProgress { id: id.to_string(), running, instances: record.app.instances, deploying });
        }
    }
    counts
}

fn job_counts(state: &ClusterState) -> JobCounts {
    let due = state.jobs.values().filter(|entry| !entry.job.disabled).filter_map(|entry| Some((entry.record.next?, entry)));
    let next = due.min_by_key(|(at, _)| *at).map(|(at, entry)| NextRun { job: entry.job.name.to_string(), at: at.into() });
    let failing = count(state.jobs.values().filter(|entry| entry.record.errors_since_success > 0));
    JobCounts { total: count(state.jobs.keys()), failing, next }
}

fn task_counts(state: &ClusterState) -> TaskCounts {
    let running = count(state.tasks.values().filter(|task| task.state == TaskState::Running));
    let coming = |task: &&task::Task| matches!(task.state, TaskState::Staging | TaskState::Starting);
    TaskCounts { running, staging: count(state.tasks.values().filter(coming)) }
}

fn warnings(state: &ClusterState, waiting: &std::collections::BTreeMap<Request, Waiting>, now: Timestamp) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for agent in state.agents.values() {
        if let Reachability::Unreachable(since) = agent.reachability {
            let message = format!("node {} does not answer since {since}", agent.info.host);
            warnings.push(Warning { message, remedy: Some("drover nodes list".into()) });
        }
    }
    for (request, entry) in waiting {
        let waits_ms = now.since(entry.since).0;
        if entry.delayed_until.is_none() && waits_ms >= WAIT_WARNING_MS {
            let name = match (request, &entry.job) {
                (Request::App(app), _) => app.to_string(),
                (Request::Run(_), Some(job)) => job.to_string(),
                (Request::Run(run), None) => run.to_string(),
            };
            let message = format!("{name} has waited {} s for a place", waits_ms / 1000);
            warnings.push(Warning { message, remedy: Some(format!("drover why {name}")) });
        }
    }
    warnings
}

pub(super) fn nodes(api: &Api) -> Nodes {
    let heard = api.agents.heard();
    let now = clock::both().steady;
    let seen_ago_ms = |at: &Duration| u64::try_from(now.saturating_sub(*at).as_millis()).unwrap_or(u64::MAX);
    let mut nodes: Vec<Node> = api.consensus.read(|state| {
        let agents = state.agents.iter();
        agents.map(|(id, agent)| node(state, agent, heard.get(id).map(seen_ago_ms))).collect()
    });
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    Nodes { api_version: ApiVersion, nodes }
}

fn node(state: &ClusterState, agent: &Agent, seen_ago_ms: Option<u64>) -> Node {
    let info = &agent.info;
    let all_ports = Ports::from_ranges(info.resources.ports.values().flat_map(|ports| ports.ranges().iter().copied()));
    let used_ports = state.tasks_of_agent(&info.id).flat_map(|task| task.allocation.ports.iter().map(|port| (*port, *port)));
    let reserved = info.resources.scalars.iter().filter(|(role, _)| **role != Role::any());
    let reserved = reserved.map(|(role, scalars)| {
        let ports = info.resources.ports.get(role).cloned().unwrap_or_default();
        (role.to_string(), Resources::from(*scalars).with_ports(&ports))
    });
    Node {
        id: info.id.to_string(),
        name: info.host.clone(),
        state: NodeState::from(agent.reachability),
        unreachable_since: match agent.reachability {
            Reachability::Up => None,
            Reachability::Unreachable(since) => Some(since.into()),
        },
        resources: Resources::from(info.resources.total()).with_ports(&all_ports),
        used: Resources::from(used_on(state, agent)).with_ports(&Ports::from_ranges(used_ports)),
        reserved: reserved.collect(),
        attributes: info.attributes.clone(),
        tasks: count(state.tasks_of_agent(&info.id)),
        systemd: info.systemd,
        version: info.version.clone(),
        enforces: info.enforces.iter().cloned().collect(),
        boot_id: info.boot_id.clone(),
        seen_ago_ms,
    }
}

pub(super) fn tasks(api: &Api, parameters: &[(String, String)]) -> Tasks {
    let wanted = |key: &str, value: Option<&str>| {
        let mut given = parameters.iter().filter(|(name, _)| name == key).peekable();
        given.peek().is_none() || given.any(|(_, wanted)| Some(wanted.as_str()) == value)
    };
    let tasks = api.consensus.read(|state| {
        let shown = state.tasks.values().map(task).filter(|task| {
            wanted("app", task.app.as_deref()) && wanted("job", task.job.as_deref()) && wanted("node", Some(&task.node))
        });
        shown.collect()
    });
    Tasks { api_version: ApiVersion, tasks }
}

fn task(task: &task::Task) -> Task {
    let (mut app, mut version, mut job, mut run, mut attempt) = (None, None, None, None, None);
    match &task.spec.owner {
        Owner::App { app: id, version: of } => {
            app = Some(id.to_string());
            version = Some((*of).into());
        }
        Owner::Run { job: name, run: id, attempt: number } => {
            job = Some(name.to_string());
            run = Some(id.to_string());
            attempt = Some(*number);
        }
    }
    Task {
        id: task.id.to_string(),
        app,
        version,
        job,
        run,
        attempt,
        node: task.host.clone(),
        state: task.state.into(),
        reason: serde_json::to_value(task.reason).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default(),
        message: task.message.clone(),
        ending: task.kill.as_ref().map(|kill| kill.why.clone()),
        unit: format!("drover-{}.service", task.id),
        invocation_id: task.invocation.clone(),
        ports: task.allocation.ports.clone(),
        staged_at: task.staged_at.into(),
        started_at: task.started_at.map(Into::into),
        unreachable_since: task.unreachable_since.map(Into::into),
    }
}

pub(super) fn jobs(api: &Api) -> Jobs {
    let jobs = api.consensus.read(|state| state.jobs.values().map(|entry| job_of(state, entry)).collect());
    Jobs { api_version: ApiVersion, jobs }
}

pub(super) fn job(api: &Api, name: &str) -> Result<JobDetail, Refused> {
    let missing = || Refused::not_found(format!("job {name}")).remedy("drover jobs list");
    let name = JobName::parse(name).map_err(|_| missing())?;
    api.consensus
        .read(|state| {
            let entry = state.jobs.get(&name)?;
            let job = job_of(state, entry);
            let ended = entry.record.history.iter().map(Run::from);
            let mut runs: Vec<Run> = ended.chain(job.live.iter().cloned()).collect();
            runs.reverse();
            Some(JobDetail { api_version: ApiVersion, job, runs })
        })
        .ok_or_else(missing)
}

fn job_of(state: &ClusterState, entry: &JobEntry) -> Job {
    let JobEntry { job, record } = entry;
    let (mut schedule, mut zone, mut parents) = (None, None, Vec::new());
    match &job.trigger {
        Trigger::Schedule(given) => {
            schedule = Some(given.text.clone());
            zone = Some(given.zone.name().to_owned()).filter(|zone| !zone.is_empty());
        }
        Trigger::Parents(names) => parents = names.iter().map(ToString::to_string).collect(),
    }
    let mut live: Vec<Run> = state.runs.values().filter(|run| run.job == job.name).map(Run::from).collect();
    live.sort_by_key(|run| run.slot);
    Job {
        name: job.name.to_string(),
        schedule,
        zone,
        parents,
        disabled: job.disabled,
        next: record.next.map(Into::into),
        remaining: record.remaining,
        live,
        last: record.history.last().map(Run::from),
        success_count: record.success_count,
        error_count: record.error_count,
        owner: job.owner.clone(),
        description: job.description.clone(),
    }
}

pub(super) fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}
