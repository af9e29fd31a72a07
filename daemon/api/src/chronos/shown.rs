//! A job as a client is shown it: Chronos' keys in Chronos' order, every one always there.

use drover_core::app::Operator;
use drover_core::job::{EPSILON_DEFAULT, Job, RETRY_DELAY_DEFAULT, Trigger};
use drover_core::runs::rewritten_schedule;
use drover_core::state::{ClusterState, JobEntry};
use drover_core::task::Program;
use drover_core::time::{Millis, Timestamp};
use serde::Serialize;
use std::collections::BTreeMap;

/// Which of Chronos' versions a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// `/scheduler`: `epsilon` and `async` are always there.
    Two,
    /// `/v1/scheduler`.
    Three,
}

/// A job, ready to be encoded.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown<'a> {
    name: &'a str,
    command: &'a str,
    shell: bool,
    executor: &'static str,
    executor_flags: &'static str,
    task_info_data: &'static str,
    retries: u32,
    owner: &'a str,
    owner_name: &'a str,
    description: &'a str,
    success_count: u64,
    error_count: u64,
    last_success: String,
    last_error: String,
    cpus: f64,
    disk: f64,
    mem: f64,
    disabled: bool,
    soft_error: bool,
    data_processing_job_type: bool,
    errors_since_last_success: u64,
    fetch: [(); 0],
    uris: [(); 0],
    environment_variables: Vec<Variable<'a>>,
    arguments: &'a [String],
    high_priority: bool,
    run_as_user: &'a str,
    concurrent: bool,
    max_completion_time: u64,
    constraints: Vec<[&'a str; 3]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epsilon: Option<String>,
    #[serde(rename = "async", skip_serializing_if = "Option::is_none")]
    is_async: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_delay: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    unit: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parents: Option<Vec<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule_time_zone: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct Variable<'a> {
    name: &'a str,
    value: &'a str,
}

/// One job.
pub fn job(entry: &JobEntry, version: Version) -> Shown<'_> {
    let JobEntry { job, record } = entry;
    let (command, shell) = command(job);
    let date = |at: Option<Timestamp>| at.map(|at| at.to_string()).unwrap_or_default();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let is_legacy = version == Version::Two;
    let (parents, zone) = match &job.trigger {
        Trigger::Parents(parents) => (Some(parents.iter().map(|parent| parent.as_str()).collect()), None),
        Trigger::Schedule(schedule) => (None, Some(schedule.zone.name())),
    };
    Shown {
        name: job.name.as_str(),
        command,
        shell,
        executor: "",
        executor_flags: "",
        task_info_data: "",
        retries: job.retries,
        owner: &job.owner,
        owner_name: &job.owner_name,
        description: &job.description,
        success_count: record.success_count,
        error_count: record.error_count,
        last_success: date(record.last_success),
        last_error: date(record.last_error),
        cpus: job.resources.cpus_milli as f64 / 1000.0,
        disk: mib(job.resources.disk_bytes),
        mem: mib(job.resources.mem_bytes),
        disabled: job.disabled,
        soft_error: job.soft_error,
        data_processing_job_type: false,
        errors_since_last_success: record.errors_since_success,
        fetch: [],
        uris: [],
        environment_variables: job.env.iter().map(|(name, value)| Variable { name, value }).collect(),
        arguments: &job.arguments,
        high_priority: job.high_priority,
        run_as_user: job.user.as_deref().unwrap_or_default(),
        concurrent: job.concurrent,
        max_completion_time: job.run_time_max.map_or(0, |limit| limit.0 / 1000),
        constraints: job
            .constraints
            .iter()
            .map(|c| [&*c.field, operator(c.operator), c.value.as_deref().unwrap_or_default()])
            .collect(),
        epsilon: (is_legacy || job.epsilon != EPSILON_DEFAULT).then(|| duration(job.epsilon)),
        is_async: is_legacy.then_some(false),
        retry_delay: (job.retry_delay != RETRY_DELAY_DEFAULT).then(|| duration(job.retry_delay)),
        unit: &job.properties,
        parents,
        schedule: rewritten_schedule(entry),
        schedule_time_zone: zone,
    }
}

/// Every job, by name.
pub fn jobs(state: &ClusterState, version: Version) -> Vec<Shown<'_>> {
    state.jobs.values().map(|entry| job(entry, version)).collect()
}

/// How many a search finds unless it says.
const SEARCH_LIMIT: usize = 10;

/// The jobs a search finds: those whose name contains `name` and whose command contains `command`, or, if `any` is given,
/// those where either contains it. Letters' case does not matter. (In Chronos `any` alone finds every job.)
///
/// # Errors
/// A `limit` or `offset` that is no number.
pub fn search<'a>(
    state: &'a ClusterState,
    query: &[(String, String)],
    version: Version,
) -> Result<Vec<Shown<'a>>, super::Error> {
    let given = |name: &str| query.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value);
    let words = |name: &str| given(name).map(|value| value.to_lowercase());
    let number = |name: &str, default: usize| match given(name) {
        None => Ok(default),
        Some(value) => value.parse().map_err(|_| super::Error::BadRequest(format!("{name} must be a number, not '{value}'"))),
    };
    let (limit, offset) = (number("limit", SEARCH_LIMIT)?, number("offset", 0)?);
    let (name, command_part, any) = (words("name"), words("command"), words("any"));
    let is_asked = |entry: &&JobEntry| {
        let (own_name, own_command) = (entry.job.name.as_str().to_lowercase(), command(&entry.job).0.to_lowercase());
        let both = name.as_ref().is_none_or(|part| own_name.contains(part))
            && command_part.as_ref().is_none_or(|part| own_command.contains(part));
        match &any {
            None => both,
            Some(any) => {
                let is_narrowed = name.is_some() || command_part.is_some();
                own_name.contains(any) || own_command.contains(any) || (is_narrowed && both)
            }
        }
    };
    Ok(state.jobs.values().filter(is_asked).skip(offset).take(limit).map(|entry| job(entry, version)).collect())
}

/// The command as it was given, without the arguments that are part of the program; and whether a shell reads it.
fn command(job: &Job) -> (&str, bool) {
    match &job.program {
        Program::Argv(words) => (words.first().map_or("", String::as_str), false),
        Program::Shell(line) if job.arguments.is_empty() => (line, true),
        Program::Shell(line) => {
            let arguments = format!(" {}", job.arguments.join(" ").replace(';', ""));
            (line.strip_suffix(arguments.as_str()).unwrap_or(line), true)
        }
    }
}

fn operator(operator: Operator) -> &'static str {
    match operator {
        Operator::Is => "EQUALS",
        other => other.wire(),
    }
}

fn duration(span: Millis) -> String {
    format!("PT{}S", span.0 / 1000)
}
