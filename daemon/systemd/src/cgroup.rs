//! What the kernel enforces here, and what it refused a task.

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use std::collections::{BTreeSet, HashMap};
use std::io;
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

/// Hears when the kernel refuses a unit another process. A unit's control group is removed with its last process, so its
/// counters cannot be read after its end; the kernel's notification stays.
#[derive(Debug)]
pub struct ForkWatch {
    inotify: Inotify,
    units: HashMap<WatchDescriptor, String>,
    watched: BTreeSet<String>,
}

impl ForkWatch {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// The machine has no inotify instance left.
    pub fn new() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        Ok(Self { inotify, units: HashMap::new(), watched: BTreeSet::new() })
    }

    /// Watches a unit from now on, if its control group is there. Calling it again does nothing.
    pub fn watch(&mut self, slice: &str, unit: &str) {
        if self.watched.contains(unit) {
            return;
        }
        let file = directory_of(slice, unit).join("pids.events");
        if let Ok(descriptor) = self.inotify.add_watch(&file, AddWatchFlags::IN_MODIFY) {
            self.units.insert(descriptor, unit.to_owned());
            self.watched.insert(unit.to_owned());
        }
    }

    /// The units that were refused a process since the last call. Does not wait.
    pub fn refused(&mut self) -> Vec<String> {
        let mut refused = Vec::new();
        while let Ok(events) = self.inotify.read_events() {
            for event in events {
                if event.mask.contains(AddWatchFlags::IN_MODIFY) {
                    refused.extend(self.units.get(&event.wd).cloned());
                }
                // The control group is gone, and the watch with it.
                if event.mask.contains(AddWatchFlags::IN_IGNORED)
                    && let Some(unit) = self.units.remove(&event.wd)
                {
                    self.watched.remove(&unit);
                }
            }
        }
        refused
    }
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
