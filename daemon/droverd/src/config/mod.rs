//! `drover.toml`: what it may say, checked all at once. Every default is written once: here, or at the role's own config.

mod reader;

pub use reader::Fault;

use drover_agent::{AgentConfig, Manager, MetricsListen};
use drover_core::ids::Role;
use drover_core::resources::Ports;
use drover_core::state::Bounds;
use drover_master::{Limits, MasterConfig};
use reader::{Reader, count, duration, milli, size, text, text_map, texts};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the daemon keeps what it must not lose, unless told otherwise.
pub const DATA_DIR: &str = "/var/lib/droverd";

/// What the file says, resolved.
#[derive(Debug, Clone)]
pub struct Config {
    /// Present if the file has `[master]`.
    pub master: Option<MasterConfig>,
    /// Present if the file has `[agent]`.
    pub agent: Option<AgentConfig>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path} cannot be read")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no TOML.
    #[error("{path} is not TOML: {message}")]
    NotToml {
        /// Which.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// It has faults; every one of them.
    #[error("{path} has {} faults", faults.len())]
    Faulty {
        /// Which.
        path: PathBuf,
        /// All of them.
        faults: Vec<Fault>,
    },
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`]; a faulty file is told with every fault it has.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let content =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&content, &host_name(), path)
    }

    /// Checks a file's content. `host` is the machine's name; `path` is for what is said of the file.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(content: &str, host: &str, path: &Path) -> Result<Self, ConfigError> {
        let table: toml::Table = content
            .parse()
            .map_err(|error: toml::de::Error| ConfigError::NotToml { path: path.to_owned(), message: error.to_string() })?;
        let mut faults = Vec::new();
        let mut reader = Reader::new(table, &mut faults);
        let name = reader.value("name", host.to_owned(), text);
        if let Err(bad) = drover_pki::identity::check_name(&name) {
            reader.fault("name", bad.to_string());
        }
        let data_dir = PathBuf::from(reader.value("data_dir", DATA_DIR.to_owned(), absolute));
        let has = (reader.has("master"), reader.has("agent"));
        let master = reader.table("master", |reader| master(reader, &name, &data_dir));
        let agent = reader.table("agent", |reader| agent(reader, &name, &data_dir));
        if has == (false, false) {
            reader.fault("master", "the file must have [master], [agent] or both: there is nothing to do otherwise");
        }
        if has.1 && agent.masters.is_empty() && !has.0 {
            reader.fault("agent.masters", "must name at least one master, such as [\"n1:7071\"]");
        }
        reader.finish();
        if !faults.is_empty() {
            return Err(ConfigError::Faulty { path: path.to_owned(), faults });
        }
        let mut agent = has.1.then_some(agent);
        if let (Some(agent), true) = (&mut agent, has.0)
            && agent.masters.is_empty()
        {
            agent.masters = vec![format!("127.0.0.1:{}", master.cluster_listen.port())];
        }
        Ok(Self { master: has.0.then_some(master), agent })
    }
}

/// The machine's name up to the first dot.
pub fn host_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let short = name.split('.').next().unwrap_or_default();
    if short.is_empty() { "localhost".to_owned() } else { short.to_owned() }
}

fn absolute(value: &toml::Value) -> Result<String, String> {
    text(value).ok().filter(|path| path.starts_with('/')).ok_or_else(|| "must be an absolute path".to_owned())
}

fn address(value: &toml::Value) -> Result<SocketAddr, String> {
    let wrong = || "must be an address and a port such as \"127.0.0.1:7070\"".to_owned();
    text(value).ok().and_then(|text| text.parse().ok()).ok_or_else(wrong)
}

fn host_and_port(text: &str) -> Result<(), String> {
    let wrong = || format!("{text:?} must be a host and a port such as \"n1:7071\"");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    if host.is_empty() || port.parse::<u16>().is_err() { Err(wrong()) } else { Ok(()) }
}

fn span(value: &toml::Value) -> Result<Duration, String> {
    duration(value).map(|millis| Duration::from_millis(millis.0))
}

fn master(reader: &mut Reader<'_>, name: &str, data_dir: &Path) -> MasterConfig {
    let default = MasterConfig::new(name, data_dir.to_owned());
    let cluster_listen = reader.value("cluster_listen", default.cluster_listen, address);
    let advertise = reader.value("advertise", format!("{name}:{}", cluster_listen.port()), |value| {
        let advertise = text(value)?;
        host_and_port(&advertise).map(|()| advertise)
    });
    let config = MasterConfig {
        api_listen: reader.value("api_listen", default.api_listen, address),
        cluster_listen,
        advertise,
        heartbeat_interval: reader.value("heartbeat_interval", default.heartbeat_interval, span),
        election_timeout: reader.value("election_timeout", default.election_timeout, span),
        snapshot_every: reader.value("snapshot_every", default.snapshot_every, count(100..=10_000_000)),
        agent_timeout: reader.value("agent_timeout", default.agent_timeout, duration),
        agent_heartbeat: reader.value("agent_heartbeat", default.agent_heartbeat, duration),
        limits: reader.table("limits", |reader| limits(reader, default.limits)),
        weights_milli: reader
            .tables("roles", |reader| reader.value("weight", 1000, weight))
            .into_iter()
            .map(|(role, weight)| (Role::new(role), weight))
            .collect(),
        ..default
    };
    if config.election_timeout < config.heartbeat_interval * 4 {
        reader.fault(
            "election_timeout",
            "must be at least four times heartbeat_interval, or followers stand for election while the leader lives",
        );
    }
    if config.agent_timeout.0 < config.agent_heartbeat.0.saturating_mul(2) {
        reader.fault("agent_timeout", "must be at least twice agent_heartbeat, or healthy agents count as unreachable");
    }
    config
}

fn weight(value: &toml::Value) -> Result<u64, String> {
    milli(value).ok().filter(|weight| *weight > 0).ok_or_else(|| "must be a number above 0".to_owned())
}

fn limits(reader: &mut Reader<'_>, default: Limits) -> Limits {
    let mut number =
        |key: &'static str, default: usize, least: u64, most: u64| fit(reader.value(key, default as u64, count(least..=most)));
    let limits = Limits {
        headers: number("headers", default.headers, 10, 1000),
        connections: number("connections", default.connections, 1, 1_000_000),
        connections_per_peer: number("connections_per_peer", default.connections_per_peer, 1, 1_000_000),
        requests: number("requests", default.requests, 1, 1_000_000),
        events_buffered: number("events_buffered", default.events_buffered, 1, 10_000_000),
        event_subscribers: number("event_subscribers", default.event_subscribers, 0, 1_000_000),
        log_streams: number("log_streams", default.log_streams, 0, 1_000_000),
        apps: number("apps", default.apps, 0, 10_000_000),
        jobs: number("jobs", default.jobs, 0, 10_000_000),
        instances: number("instances", default.instances, 0, 10_000_000),
        instances_total: number("instances_total", default.instances_total, 0, 10_000_000),
        tokens: number("tokens", default.tokens, 0, 1_000_000),
        agents: number("agents", default.agents, 1, 1_000_000),
        cluster_connections: number("cluster_connections", default.cluster_connections, 1, 1_000_000),
        cluster_connections_per_peer: number(
            "cluster_connections_per_peer",
            default.cluster_connections_per_peer,
            1,
            1_000_000,
        ),
        bounds: Bounds {
            app_versions: narrow(number("app_versions", default.bounds.app_versions as usize, 1, 1000)),
            run_history: narrow(number("run_history", default.bounds.run_history as usize, 0, 10_000)),
            runs_live: narrow(number("runs_live", default.bounds.runs_live as usize, 1, 10_000)),
        },
        ..default
    };
    Limits {
        head: fit(reader.value("head", default.head as u64, size_within(8 << 10, 1 << 20, "8K", "1M"))),
        body: fit(reader.value("body", default.body as u64, size_within(1 << 10, 1 << 30, "1K", "1G"))),
        event_backlog: fit(reader.value(
            "event_backlog",
            default.event_backlog as u64,
            size_within(1 << 10, 1 << 30, "1K", "1G"),
        )),
        // A follower takes messages of 64 MiB from its leader, an entry included.
        proposal: fit(reader.value("proposal", default.proposal as u64, size_within(1 << 10, 32 << 20, "1K", "32M"))),
        agent_message: fit(reader.value(
            "agent_message",
            default.agent_message as u64,
            size_within(64 << 10, 1 << 30, "64K", "1G"),
        )),
        head_timeout: reader.value("head_timeout", default.head_timeout, span),
        body_timeout: reader.value("body_timeout", default.body_timeout, span),
        idle_timeout: reader.value("idle_timeout", default.idle_timeout, span),
        stall_timeout: reader.value("stall_timeout", default.stall_timeout, span),
        ..limits
    }
}

fn fit(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

fn narrow(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// A size within bounds, which are also given as people write them.
fn size_within(
    least: u64,
    most: u64,
    low: &'static str,
    high: &'static str,
) -> impl FnOnce(&toml::Value) -> Result<u64, String> {
    move |value| {
        let within = size(value).ok().filter(|n| (least..=most).contains(n));
        within.ok_or_else(|| format!("must be a size from {low} to {high}"))
    }
}

fn agent(reader: &mut Reader<'_>, name: &str, data_dir: &Path) -> AgentConfig {
    let masters = reader.value("masters", Vec::new(), |value| {
        let masters = texts(value)?;
        masters.iter().try_for_each(|master| host_and_port(master)).map(|()| masters)
    });
    let mut config = AgentConfig::new(name, data_dir.to_owned(), masters);
    config.attributes = reader.value("attributes", BTreeMap::new(), text_map);
    config.manager = reader.value("manager", config.manager, |value| match value.as_str() {
        Some("system") => Ok(Manager::System),
        Some("user") => Ok(Manager::User),
        _ => Err("must be \"system\" or \"user\"".to_owned()),
    });
    config.task_slice = reader.value("task_slice", config.task_slice.clone(), |value| {
        text(value).ok().filter(|slice| slice.ends_with(".slice")).ok_or_else(|| "must end in .slice".to_owned())
    });
    if let Some(listen) = reader.optional("metrics_listen", metrics_listen) {
        config.metrics_listen = listen;
    }
    config.limits = reader.table("limits", |reader| agent_limits(reader, config.limits));
    config.resources = reader.table("resources", |reader| resources(reader, config.resources.clone()));
    config.reserved = reader
        .tables("reserved", |reader| resources(reader, Default::default()))
        .into_iter()
        .map(|(role, part)| (Role::new(role), part))
        .collect();
    config
}

fn metrics_listen(value: &toml::Value) -> Result<MetricsListen, String> {
    if value.as_str() == Some("off") {
        return Ok(MetricsListen::Off);
    }
    address(value)
        .map(MetricsListen::At)
        .map_err(|_| "must be \"off\", or an address and a port such as \"127.0.0.1:7072\"".to_owned())
}

fn agent_limits(reader: &mut Reader<'_>, default: drover_agent::Limits) -> drover_agent::Limits {
    let tasks = reader.value("tasks", u64::from(default.tasks), count(0..=100_000));
    drover_agent::Limits {
        tasks: u32::try_from(tasks).unwrap_or(u32::MAX),
        log_streams: fit(reader.value("log_streams", default.log_streams as u64, count(0..=10_000))),
        message: fit(reader.value("message", default.message as u64, size_within(1 << 20, 1 << 30, "1M", "1G"))),
    }
}

fn resources(reader: &mut Reader<'_>, default: drover_agent::Amounts) -> drover_agent::Amounts {
    drover_agent::Amounts {
        cpus_milli: reader.optional("cpus", milli).or(default.cpus_milli),
        mem_bytes: reader.optional("mem", size).or(default.mem_bytes),
        disk_bytes: reader.optional("disk", size).or(default.disk_bytes),
        gpus: reader.optional("gpus", count(0..=1024)).or(default.gpus),
        ports: reader.optional("ports", ports).or(default.ports),
    }
}

fn ports(value: &toml::Value) -> Result<Ports, String> {
    let wrong = |text: &str| format!("{text:?} must be a port or a range such as \"31000-32000\"");
    let mut ranges = Vec::new();
    for text in texts(value)? {
        let (low, high) = text.split_once('-').unwrap_or((&text, &text));
        match (low.trim().parse::<u16>(), high.trim().parse::<u16>()) {
            (Ok(low), Ok(high)) if low > 0 && low <= high => ranges.push((low, high)),
            _ => return Err(wrong(&text)),
        }
    }
    Ok(Ports::from_ranges(ranges))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(content: &str) -> Vec<String> {
        match Config::parse(content, "n1", Path::new("drover.toml")) {
            Ok(_) => Vec::new(),
            Err(ConfigError::Faulty { faults, .. }) => faults.iter().map(|f| format!("{}: {}", f.path, f.why)).collect(),
            Err(other) => vec![other.to_string()],
        }
    }

    #[test]
    fn a_full_file_is_read() {
        let content = r#"
            name = "m1"
            data_dir = "/srv/drover"
            [master]
            api_listen = "0.0.0.0:7070"
            heartbeat_interval = "100ms"
            agent_timeout = 20
            [master.limits]
            body = "1M"
            stall_timeout = "7s"
            run_history = 3
            [master.roles.apps]
            weight = 2.5
            [agent]
            masters = ["m1:7071", "m2:7071"]
            metrics_listen = "0.0.0.0:9100"
            attributes = { rack = "a", slots = 3 }
            [agent.resources]
            cpus = 1.5
            mem = "4G"
            ports = ["31000-31010", "8080"]
            [agent.reserved.db]
            mem = "1G"
            [agent.limits]
            tasks = 200
        "#;
        let config = Config::parse(content, "n1", Path::new("x")).unwrap();
        let (master, agent) = (config.master.unwrap(), config.agent.unwrap());
        assert_eq!(master.advertise, "m1:7071");
        assert_eq!(master.heartbeat_interval, Duration::from_millis(100));
        assert_eq!(master.agent_timeout.0, 20_000);
        assert_eq!(master.limits.body, 1 << 20);
        assert_eq!(master.limits.stall_timeout, Duration::from_secs(7));
        assert_eq!(master.limits.bounds, Bounds { run_history: 3, ..Bounds::default() });
        assert_eq!(agent.metrics_listen, MetricsListen::At("0.0.0.0:9100".parse().unwrap()));
        assert_eq!(agent.limits, drover_agent::Limits { tasks: 200, ..drover_agent::Limits::default() });
        assert_eq!(master.weights_milli[&Role::new("apps")], 2500);
        assert_eq!(agent.data_dir, Path::new("/srv/drover"));
        assert_eq!(agent.attributes["slots"], "3");
        assert_eq!(agent.resources.mem_bytes, Some(4 << 30));
        assert_eq!(agent.resources.ports.unwrap().len(), 12);
        assert_eq!(agent.reserved[&Role::new("db")].mem_bytes, Some(1 << 30));
    }

    #[test]
    fn an_empty_agent_beside_a_master_finds_it() {
        let config = Config::parse("[master]\n[agent]\n", "n1", Path::new("x")).unwrap();
        assert_eq!(config.agent.unwrap().masters, ["127.0.0.1:7071"]);
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let content = r#"
            nmae = "m1"
            data_dir = "relative"
            [master]
            api_listen = "localhost"
            heartbeat_interval = "soon"
            election_timeout = "300ms"
            [master.limits]
            body = "7"
            connections = 0
            [master.roles.apps]
            weight = 0
            [agent]
            masters = ["m1"]
            manager = "runit"
            metrics_listen = "7072"
            [agent.resources]
            mem = "lots"
            ports = ["9-3"]
        "#;
        assert_eq!(
            faults(content),
            [
                "data_dir: must be an absolute path",
                "master.api_listen: must be an address and a port such as \"127.0.0.1:7070\"",
                "master.heartbeat_interval: must be a duration such as \"250ms\", \"15s\" or \"5min 20s\"",
                "master.limits.connections: must be a whole number from 1 to 1000000",
                "master.limits.body: must be a size from 1K to 1G",
                "master.roles.apps.weight: must be a number above 0",
                "master.election_timeout: must be at least four times heartbeat_interval, or followers stand for election while the leader lives",
                "agent.masters: \"m1\" must be a host and a port such as \"n1:7071\"",
                "agent.manager: must be \"system\" or \"user\"",
                "agent.metrics_listen: must be \"off\", or an address and a port such as \"127.0.0.1:7072\"",
                "agent.resources.mem: must be a size such as \"512M\", \"4G\" or a number of bytes",
                "agent.resources.ports: \"9-3\" must be a port or a range such as \"31000-32000\"",
                "nmae: unknown key; did you mean name?",
            ]
        );
        assert_eq!(faults(""), ["master: the file must have [master], [agent] or both: there is nothing to do otherwise"]);
        assert_eq!(faults("[agent]"), ["agent.masters: must name at least one master, such as [\"n1:7071\"]"]);
        assert!(faults("[master")[0].contains("is not TOML"));
    }
}
