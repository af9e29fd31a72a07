//! What is told of jobs beside their definition: summaries, statistics, the graph.

use drover_core::ids::JobName;
use drover_core::job::{Run, RunState, Trigger};
use drover_core::job_change::parents_of;
use drover_core::runs::{rewritten_schedule, task_id};
use drover_core::state::{ClusterState, JobEntry};
use drover_core::task::TaskState;
use drover_core::time::{Millis, Timestamp};
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Answer of `/jobs/summary`.
#[derive(Debug, Serialize)]
pub struct Summary<'a> {
    jobs: Vec<SummaryOfJob<'a>>,
}

#[derive(Debug, Serialize)]
struct SummaryOfJob<'a> {
    name: &'a str,
    status: &'static str,
    state: String,
    schedule: String,
    parents: Vec<&'a str>,
    disabled: bool,
}

/// Answer of `/leader`.
#[derive(Debug, Serialize)]
pub struct Leader {
    /// `host:port`.
    pub leader: String,
}

/// One line of `/stats/{percentile}`.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Percentile<'a> {
    job_name_label: &'a str,
    /// Seconds.
    time: f64,
}

/// Answer of `/job/stat/{name}`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stat {
    histogram: Histogram,
    task_stat_history: Vec<TaskStat>,
}

/// Milliseconds from the queue to the end, of the successful runs that are remembered.
#[derive(Debug, Serialize)]
struct Histogram {
    #[serde(rename = "75thPercentile")]
    p75: f64,
    #[serde(rename = "95thPercentile")]
    p95: f64,
    #[serde(rename = "98thPercentile")]
    p98: f64,
    #[serde(rename = "99thPercentile")]
    p99: f64,
    median: f64,
    mean: f64,
    count: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TaskStat {
    task_id: String,
    job_name: String,
    slave_id: String,
    start_time: String,
    end_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<String>,
    status: &'static str,
}

/// Every job in a line.
pub fn summary(state: &ClusterState) -> Summary<'_> {
    let runs = runs_by_job(state);
    let of_job = |entry: &'_ JobEntry| runs.get(&entry.job.name).cloned().unwrap_or_default();
    let jobs = state.jobs.values().map(|entry| SummaryOfJob {
        name: entry.job.name.as_str(),
        status: last(entry),
        state: present(&of_job(entry)),
        schedule: rewritten_schedule(entry).unwrap_or_default(),
        parents: parents_of(&entry.job).into_iter().map(JobName::as_str).collect(),
        disabled: entry.job.disabled,
    });
    Summary { jobs: jobs.collect() }
}

/// A job's times and runs, the newest first.
pub fn stat(state: &ClusterState, entry: &JobEntry) -> Stat {
    let mut live: Vec<&Run> = state.runs_of_job(&entry.job.name).collect();
    live.sort_by_key(|run| Reverse(run.queued_at));
    let ended = entry.record.history.iter().rev();
    Stat { histogram: Histogram::of(entry), task_stat_history: live.into_iter().chain(ended).map(TaskStat::of).collect() }
}

/// One number of every job's histogram, the largest first; nothing for an unknown one.
pub fn percentile<'a>(state: &'a ClusterState, which: &str) -> Vec<Percentile<'a>> {
    let pick = |histogram: Histogram| match which {
        "75thPercentile" => Some(histogram.p75),
        "95thPercentile" => Some(histogram.p95),
        "98thPercentile" => Some(histogram.p98),
        "99thPercentile" => Some(histogram.p99),
        "median" => Some(histogram.median),
        "mean" => Some(histogram.mean),
        _ => None,
    };
    let line = |entry: &'a JobEntry| {
        let time = pick(Histogram::of(entry))? / 1000.0;
        Some(Percentile { job_name_label: entry.job.name.as_str(), time })
    };
    let mut lines: Vec<Percentile<'_>> = state.jobs.values().filter_map(line).collect();
    lines.sort_by(|a, b| b.time.total_cmp(&a.time));
    lines
}

/// `node,<name>,<last>,<now>` for each job, then `link,<parent>,<child>` for each edge between jobs that exist.
pub fn graph_csv(state: &ClusterState) -> String {
    let runs = runs_by_job(state);
    let mut text = String::new();
    for (name, entry) in &state.jobs {
        let now = present(runs.get(name).map_or(&[], Vec::as_slice));
        writeln!(text, "node,{name},{},{now}", last(entry)).expect("writing to text");
    }
    for (parent, child) in edges(state) {
        writeln!(text, "link,{parent},{child}").expect("writing to text");
    }
    text
}

/// The same graph for Graphviz.
pub fn graph_dot(state: &ClusterState) -> String {
    let numbers: BTreeMap<&JobName, usize> = state.jobs.keys().zip(1..).collect();
    let mut text = String::from("digraph G {\n");
    for (name, number) in &numbers {
        writeln!(text, "  {number} [ label=\"{name}\" ];").expect("writing to text");
    }
    for (parent, child) in edges(state) {
        writeln!(text, "  {} -> {};", numbers[parent], numbers[child]).expect("writing to text");
    }
    text.push_str("}\n");
    text
}

fn edges(state: &ClusterState) -> impl Iterator<Item = (&JobName, &JobName)> {
    let of_child = |entry: &'_ JobEntry| match &entry.job.trigger {
        Trigger::Parents(_) => true,
        Trigger::Schedule(_) => false,
    };
    state.jobs.values().filter(move |entry| of_child(entry)).flat_map(move |entry| {
        let there = parents_of(&entry.job).into_iter().filter(|parent| state.jobs.contains_key(*parent));
        there.map(|parent| (parent, &entry.job.name))
    })
}

fn runs_by_job(state: &ClusterState) -> BTreeMap<&JobName, Vec<&Run>> {
    let mut by_job: BTreeMap<&JobName, Vec<&Run>> = BTreeMap::new();
    for run in state.runs.values() {
        by_job.entry(&run.job).or_default().push(run);
    }
    by_job
}

/// How it went last.
fn last(entry: &JobEntry) -> &'static str {
    match (entry.record.last_success, entry.record.last_error) {
        (None, None) => "fresh",
        (success, error) if success > error => "success",
        _ => "failure",
    }
}

/// What it does now.
fn present(runs: &[&Run]) -> String {
    let running = runs.iter().filter(|run| matches!(run.state, RunState::Active { .. })).count();
    match running {
        0 if runs.is_empty() => "idle".into(),
        0 => "queued".into(),
        n => format!("{n} running"),
    }
}

impl Histogram {
    fn of(entry: &JobEntry) -> Self {
        let took = |run: &Run| match run.state {
            RunState::Done { state: TaskState::Finished, at } => Some(at.since(run.queued_at).0 as f64),
            _ => None,
        };
        let mut times: Vec<f64> = entry.record.history.iter().filter_map(took).collect();
        times.sort_by(f64::total_cmp);
        let mean = if times.is_empty() { 0.0 } else { times.iter().sum::<f64>() / times.len() as f64 };
        Self {
            p75: quantile(&times, 0.75),
            p95: quantile(&times, 0.95),
            p98: quantile(&times, 0.98),
            p99: quantile(&times, 0.99),
            median: quantile(&times, 0.5),
            mean,
            count: times.len(),
        }
    }
}

/// Between the two samples it falls among, in proportion.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let position = part * (sorted.len() + 1) as f64;
    let (Some(first), Some(last)) = (sorted.first(), sorted.last()) else { return 0.0 };
    match position as usize {
        0 => *first,
        n if n >= sorted.len() => *last,
        n => sorted[n - 1] + position.fract() * (sorted[n] - sorted[n - 1]),
    }
}

impl TaskStat {
    fn of(run: &Run) -> Self {
        let (status, ended) = match run.state {
            RunState::Queued { .. } | RunState::AttemptEnded { .. } => ("Idle", None),
            RunState::Active { .. } => ("Running", None),
            RunState::Done { state: TaskState::Finished, at } => ("Success", Some(at)),
            RunState::Done { at, .. } => ("Fail", Some(at)),
        };
        Self {
            task_id: task_id(run).to_string(),
            job_name: run.job.to_string(),
            slave_id: run.host.clone().unwrap_or_default(),
            start_time: clock(run.started_at),
            end_time: clock(ended),
            duration: run.started_at.zip(ended).map(|(from, to)| words(to.since(from))),
            status,
        }
    }
}

/// `MM/dd/yy HH:mm:ss`, UTC.
fn clock(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "N/A".to_owned(), |at| at.to_jiff().strftime("%m/%d/%y %H:%M:%S").to_string())
}

/// `1h2m3s`.
fn words(span: Millis) -> String {
    let seconds = span.0 / 1000;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}
