//! What this machine has: read once at start, and told to the leader with every session.

use crate::config::{AgentConfig, Amounts};
use anyhow::Context;
use drover_core::ids::Role;
use drover_core::resources::{Pools, Ports, Scalars};
use drover_core::sandbox::Manager;
use std::path::{Path, PathBuf};

/// The systemd that moved users' state directories out of their configuration.
const SYSTEMD_USER_STATE: u32 = 254;

/// Host ports offered when nothing is said (Mesos' default).
const PORTS_DEFAULT: (u16, u16) = (31_000, 32_000);

/// Memory left to the machine's own services when nothing is said: a tenth, at least this.
const MEM_KEPT_BYTES: u64 = 256 << 20;

/// Disk left to the machine when nothing is said: a tenth of the file system under the data directory, at least this.
const DISK_KEPT_BYTES: u64 = 1 << 30;

/// The kernel's id of this boot: a new one after each reboot.
///
/// # Errors
/// `/proc` is not there.
pub(crate) fn boot_id() -> std::io::Result<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned())
}

/// The control group of a user's manager; PID 1's is the root.
pub(crate) fn manager_cgroup(manager: Manager) -> Option<PathBuf> {
    match manager {
        Manager::System => None,
        Manager::User => {
            let uid = nix::unistd::geteuid();
            Some(PathBuf::from(format!("user.slice/user-{uid}.slice/user@{uid}.service")))
        }
    }
}

/// Where a manager keeps state directories (systemd.exec(5), `StateDirectory=`).
///
/// # Errors
/// A user's manager, and the environment does not say where the user's files are.
pub(crate) fn state_root(manager: Manager, systemd: u32) -> anyhow::Result<String> {
    let (variable, below_home) = match manager {
        Manager::System => return Ok("/var/lib".to_owned()),
        Manager::User if systemd >= SYSTEMD_USER_STATE => ("XDG_STATE_HOME", ".local/state"),
        Manager::User => ("XDG_CONFIG_HOME", ".config"),
    };
    let given = std::env::var(variable).ok();
    given
        .or_else(|| std::env::var("HOME").ok().map(|home| format!("{home}/{below_home}")))
        .with_context(|| format!("neither {variable} nor HOME is set"))
}

/// `252` of `252.36-1~deb12u1`.
pub(crate) fn leading_number(version: &str) -> u32 {
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..digits].parse().unwrap_or(0)
}

/// What to offer, per role. A reservation is a part of the whole; one that asks for more than there is gets what there is.
pub(crate) fn resources(config: &AgentConfig) -> Pools {
    let (whole, ports) = resolve(&config.resources, machine(&config.data_dir), Ports::from_ranges([PORTS_DEFAULT]));
    let mut rest = whole;
    let mut rest_ports = ports;
    let mut pools = Pools::default();
    for (role, amounts) in &config.reserved {
        let (wanted, wanted_ports) = resolve(amounts, Scalars::default(), Ports::default());
        let part = wanted.min(rest);
        rest = rest.minus(part);
        let kept = Ports::from_ranges(wanted_ports.iter().filter(|port| rest_ports.contains(*port)).map(|port| (port, port)));
        kept.iter().for_each(|port| rest_ports.remove(port));
        pools.scalars.insert(role.clone(), part);
        if !kept.is_empty() {
            pools.ports.insert(role.clone(), kept);
        }
    }
    pools.scalars.insert(Role::any(), rest);
    pools.ports.insert(Role::any(), rest_ports);
    pools
}

fn resolve(said: &Amounts, has: Scalars, ports: Ports) -> (Scalars, Ports) {
    let scalars = Scalars {
        cpus_milli: said.cpus_milli.unwrap_or(has.cpus_milli),
        mem_bytes: said.mem_bytes.unwrap_or(has.mem_bytes),
        disk_bytes: said.disk_bytes.unwrap_or(has.disk_bytes),
        gpus: said.gpus.unwrap_or(has.gpus),
    };
    (scalars, said.ports.clone().unwrap_or(ports))
}

/// What the machine has, less what its own services need. A fact that cannot be read counts as zero, so that nothing is
/// promised that may not be there; the configuration can say it.
fn machine(data_dir: &Path) -> Scalars {
    let cpus = std::thread::available_parallelism().map_or(0, |n| n.get() as u64);
    let mem = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| mem_total(&text)).unwrap_or(0);
    let existing = data_dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    let disk = nix::sys::statvfs::statvfs(existing).map_or(0, |fs| fs.blocks() * fs.fragment_size());
    Scalars {
        cpus_milli: cpus * 1000,
        mem_bytes: less_kept(mem, MEM_KEPT_BYTES),
        disk_bytes: less_kept(disk, DISK_KEPT_BYTES),
        gpus: 0,
    }
}

fn less_kept(has: u64, at_least: u64) -> u64 {
    has.saturating_sub((has / 10).max(at_least))
}

fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_are_parts_of_the_whole() {
        let mut config = AgentConfig::new("n1", "/nowhere".into(), vec![]);
        config.resources = Amounts {
            cpus_milli: Some(4000),
            mem_bytes: Some(1000),
            disk_bytes: Some(0),
            gpus: None,
            ports: Some(Ports::from_ranges([(100, 109)])),
        };
        let db = Role::new("db");
        let part = Amounts {
            cpus_milli: Some(1000),
            mem_bytes: Some(5000),
            ports: Some(Ports::from_ranges([(105, 200)])),
            ..Amounts::default()
        };
        config.reserved.insert(db.clone(), part);
        let pools = resources(&config);
        assert_eq!(pools.total().cpus_milli, 4000);
        assert_eq!(pools.scalars[&db].mem_bytes, 1000, "no more than there is");
        assert_eq!(pools.scalars[&Role::any()].mem_bytes, 0);
        assert_eq!(pools.ports[&db].ranges(), [(105, 109)]);
        assert_eq!(pools.ports[&Role::any()].ranges(), [(100, 104)]);
    }

    #[test]
    fn versions_begin_with_a_number() {
        for (text, number) in [("252.36-1~deb12u1", 252), ("257", 257), ("v1", 0)] {
            assert_eq!(leading_number(text), number);
        }
    }

    #[test]
    fn memory_is_read_from_meminfo() {
        assert_eq!(mem_total("MemFree: 1 kB\nMemTotal:       16384 kB\n"), Some(16 << 20));
        assert_eq!(mem_total(""), None);
    }
}
