//! What every exporter tells of its own process, under the names that Prometheus' libraries use.

use crate::instrument::AtScrape;
use crate::page::Samples;
use nix::unistd::{SysconfVar, sysconf};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

crate::instruments! {
    /// The process and its build.
    PROCESS;
    BUILD: AtScrape<1> = AtScrape::gauge("drover_build_info", &["version"], "Always 1; says which drover this is.");
    CPU: AtScrape = AtScrape::counter("process_cpu_seconds_total", &[], "CPU time used, by the program and for it, in seconds.");
    RESIDENT: AtScrape = AtScrape::gauge("process_resident_memory_bytes", &[], "Memory in use, in bytes.");
    VIRTUAL: AtScrape = AtScrape::gauge("process_virtual_memory_bytes", &[], "Address space in use, in bytes.");
    FDS: AtScrape = AtScrape::gauge("process_open_fds", &[], "Open file descriptors.");
    FDS_MAX: AtScrape = AtScrape::gauge("process_max_fds", &[], "File descriptors that may be open.");
    THREADS: AtScrape = AtScrape::gauge("process_threads", &[], "Threads.");
    STARTED: AtScrape = AtScrape::gauge("process_start_time_seconds", &[], "When the process began, in seconds since 1970.");
}

static BEGAN: OnceLock<f64> = OnceLock::new();

/// Notes that the process begins. To be called first.
pub fn begin() {
    BEGAN.get_or_init(now);
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Reads what the kernel says of this process. What it does not say is left out.
pub fn observe_process(samples: &mut Samples, version: &str) {
    samples.put(&BUILD, [version], 1.0);
    samples.put(&STARTED, [], *BEGAN.get_or_init(now));
    if let Some(stat) = std::fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::parse) {
        samples.put(&CPU, [], stat.cpu_ticks as f64 / per(SysconfVar::CLK_TCK, 100.0));
        samples.put(&RESIDENT, [], stat.resident_pages as f64 * per(SysconfVar::PAGE_SIZE, 4096.0));
        samples.put(&VIRTUAL, [], stat.virtual_bytes as f64);
        samples.put(&THREADS, [], stat.threads as f64);
    }
    if let Ok(fds) = std::fs::read_dir("/proc/self/fd") {
        // The directory being read is one of them.
        samples.put(&FDS, [], fds.count().saturating_sub(1) as f64);
    }
    if let Some(max) = std::fs::read_to_string("/proc/self/limits").ok().as_deref().and_then(soft_fd_limit) {
        samples.put(&FDS_MAX, [], max);
    }
}

fn per(what: SysconfVar, usual: f64) -> f64 {
    sysconf(what).ok().flatten().map_or(usual, |value| value as f64)
}

/// The part of /proc/self/stat that is told (proc_pid_stat(5)).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The program's name stands in parentheses and may hold anything; what follows it begins with field 3.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

fn soft_fd_limit(limits: &str) -> Option<f64> {
    limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_understood() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 9 0 0 0 120 30 0 0 20 0 11 0 5 8192 42 184 1 1 0 0 0 0 0 0 0";
        let expected = Stat { cpu_ticks: 150, threads: 11, virtual_bytes: 8192, resident_pages: 42 };
        assert_eq!(Stat::parse(stat), Some(expected));
        assert_eq!(
            soft_fd_limit("Limit\nMax open files            1024                 524288               files"),
            Some(1024.0)
        );
        let mut samples = Samples::default();
        observe_process(&mut samples, "1.2.3");
        let told = |metric: &AtScrape| samples.of(crate::Instrument::about(metric).name).map(|(_, value)| *value).next();
        assert!(told(&RESIDENT).is_some_and(|bytes| bytes > 100_000.0));
        assert!(told(&FDS).is_some_and(|fds| fds >= 3.0) && told(&FDS_MAX) >= told(&FDS));
        assert!(told(&STARTED).is_some_and(|at| at > 1.6e9));
    }
}
