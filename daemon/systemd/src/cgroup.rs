//! What the kernel enforces here, and what it refused a task.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";

/// The controllers that the tasks' manager has in the kernel's version 2 tree. A property without its controller is accepted
/// by systemd and does nothing, so what is not in here is not enforced.
pub fn enforced_controllers(manager_cgroup: Option<&Path>) -> BTreeSet<String> {
    let directory = manager_cgroup.map_or(PathBuf::from(ROOT), |path| Path::new(ROOT).join(path));
    // Version 1 has no such file; a mixed tree has it with the controllers that version 1 left over.
    let Ok(text) = std::fs::read_to_string(directory.join("cgroup.controllers")) else { return BTreeSet::new() };
    text.split_whitespace().map(str::to_owned).collect()
}

/// How often the kernel refused a unit another process, as long as its control group is there.
pub fn forks_refused(slice: &str, unit: &str) -> Option<u64> {
    let text = std::fs::read_to_string(directory_of(slice, unit).join("pids.events")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("max ")).and_then(|count| count.parse().ok())
}

/// `drover-apps-web.slice` lies in `drover-apps.slice` in `drover.slice`, below the root PID 1 was given.
fn directory_of(slice: &str, unit: &str) -> PathBuf {
    let mut directory = Path::new(ROOT).join(init_root());
    let stem = slice.strip_suffix(".slice").unwrap_or(slice);
    for (at, _) in stem.match_indices('-') {
        directory.push(format!("{}.slice", &stem[..at]));
    }
    directory.push(slice);
    directory.push(unit);
    directory
}

/// Where PID 1's own tree begins: not at the root in a container that shares its host's cgroup namespace.
fn init_root() -> PathBuf {
    let text = std::fs::read_to_string("/proc/1/cgroup").unwrap_or_default();
    let path = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    PathBuf::from(path.strip_suffix("init.scope").unwrap_or(path).trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_lie_in_slices() {
        let path = directory_of("drover-apps-my\\x2dweb.slice", "drover-x.service");
        let path = path.to_str().unwrap();
        assert!(path.ends_with("/drover.slice/drover-apps.slice/drover-apps-my\\x2dweb.slice/drover-x.service"), "{path}");
    }
}
