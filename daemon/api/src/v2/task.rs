//! A task as clients see it.

use super::Time;
use drover_core::app::App;
use drover_core::ids::{AgentId, AppId, TaskId};
use drover_core::state::{AppRecord, ClusterState};
use drover_core::task::{Owner, TaskState};
use drover_core::time::Timestamp;
use serde::Serialize;
use std::net::IpAddr;

/// An instance of an app.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Task<'a> {
    id: &'a TaskId,
    app_id: &'a AppId,
    host: &'a str,
    slave_id: &'a AgentId,
    state: &'static str,
    /// Host ports, in the order of the app's port definitions.
    ports: &'a [u16],
    service_ports: Vec<u16>,
    ip_addresses: Vec<IpAddress>,
    staged_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<Time>,
    version: Time,
    health_check_results: [(); 0],
    local_volumes: [(); 0],
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<&'a str>,
}

/// An address of a task.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IpAddress {
    ip_address: IpAddr,
    protocol: &'static str,
}

impl<'a> Task<'a> {
    /// Renders a task; `None` if it is no app's.
    pub fn of(state: &'a ClusterState, task: &'a drover_core::task::Task) -> Option<Self> {
        let (app, version) = owner(task)?;
        let definition = state.apps.get(app).map(|record| definition(record, version));
        let agent = state.agents.get(&task.agent);
        let place = |field: &str| agent.and_then(|agent| agent.attribute(field));
        Some(Self {
            id: &task.id,
            app_id: app,
            host: &task.host,
            slave_id: &task.agent,
            state: visible_state(task).wire(),
            ports: &task.allocation.ports,
            service_ports: definition.map(|app| app.ports.iter().map(|port| port.port).collect()).unwrap_or_default(),
            ip_addresses: addresses(&task.host),
            staged_at: Time(task.staged_at),
            started_at: task.started_at.map(Time),
            version: Time(version),
            health_check_results: [],
            local_volumes: [],
            region: place("@region"),
            zone: place("@zone"),
        })
    }
}

/// The app a task is an instance of, and the version it was launched from.
pub fn owner(task: &drover_core::task::Task) -> Option<(&AppId, Timestamp)> {
    match &task.spec.owner {
        Owner::App { app, version } => Some((app, *version)),
        Owner::Run { .. } => None,
    }
}

/// A task that was told to end shows as ending at once, so that balancers stop sending to it.
pub fn visible_state(task: &drover_core::task::Task) -> TaskState {
    match task.state {
        TaskState::Staging | TaskState::Starting | TaskState::Running if task.kill.is_some() => TaskState::Killing,
        state => state,
    }
}

/// On the host network a task's address is its host's. Host names are for clients to resolve; only numbers are addresses.
pub(super) fn addresses(host: &str) -> Vec<IpAddress> {
    let address = host.parse::<IpAddr>().ok();
    let named = |ip_address: IpAddr| {
        let protocol = if ip_address.is_ipv4() { "IPv4" } else { "IPv6" };
        IpAddress { ip_address, protocol }
    };
    address.map(named).into_iter().collect()
}

fn definition(record: &AppRecord, version: Timestamp) -> &App {
    record.versions.get(&version).unwrap_or(&record.app)
}

/// `GET /v2/tasks` as text: a line per app and service port with the `host:port` of each running task, for balancers
/// configured by scripts.
pub fn text<'a>(state: &ClusterState, apps: impl Iterator<Item = &'a App>) -> String {
    let mut out = String::new();
    for app in apps {
        let name = app.id.task_prefix();
        let running: Vec<_> = state.tasks_of_app(&app.id).filter(|task| visible_state(task) == TaskState::Running).collect();
        let mut line = |cell: String, mut cells: Vec<String>| {
            cells.sort();
            out.push_str(&format!("{name}\t{cell}\t"));
            cells.iter().for_each(|cell| out.push_str(&format!("{cell}\t")));
            out.push('\n');
        };
        if app.ports.is_empty() {
            line(" ".into(), running.iter().map(|task| task.host.clone()).collect());
        }
        for (index, port) in app.ports.iter().enumerate() {
            let host_port = |task: &&drover_core::task::Task| task.allocation.ports.get(index).copied().unwrap_or(0);
            line(port.port.to_string(), running.iter().map(|task| format!("{}:{}", task.host, host_port(task))).collect());
        }
    }
    out
}
