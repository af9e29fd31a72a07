//! What a master counts, and what it reads off its state when somebody scrapes it. `docs/metrics.md` describes each.

use crate::consensus::{Consensus, MemberRole, ProposeError};
use crate::http::Api;
use drover_api::drover::TaskState;
use drover_core::agent::Reachability;
use drover_core::job::RunState;
use drover_core::resources::Scalars;
use drover_core::state::{ClusterState, Command};
use drover_telemetry::{
    AtScrape, Counter, FAST, Format, Gauge, Histogram, PROCESS, SIZES, SLOW, Samples, observe_process, page as render,
};
use hyper::{Method, StatusCode};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

drover_telemetry::instruments! {
    /// Every number of a master.
    MASTER;

    // Consensus.
    TERM: AtScrape = AtScrape::gauge("drover_master_raft_term", &[], "The term this master knows.");
    IS_LEADER: AtScrape = AtScrape::gauge("drover_master_raft_is_leader", &[], "1 on the master that leads and is followed by a majority.");
    HAS_LEADER: AtScrape = AtScrape::gauge("drover_master_raft_has_leader", &[], "1 while this master knows of a leader.");
    LEADER_CHANGES: Counter = Counter::new("drover_master_raft_leader_changes_total", &[], "Leaders this master has seen come, itself included.");
    MEMBERS: AtScrape<1> = AtScrape::gauge("drover_master_raft_members", &["role"], "Masters by what they do: leader, follower, learner.");
    LOG_INDEX: AtScrape = AtScrape::gauge("drover_master_raft_log_index", &[], "The last entry in the log.");
    APPLIED_INDEX: AtScrape = AtScrape::gauge("drover_master_raft_applied_index", &[], "The last entry applied.");
    SNAPSHOT_INDEX: AtScrape = AtScrape::gauge("drover_master_raft_snapshot_index", &[], "The last entry in the newest snapshot.");
    PURGED_INDEX: AtScrape = AtScrape::gauge("drover_master_raft_purged_index", &[], "The last entry taken out of the log.");
    LAG: AtScrape<1> = AtScrape::gauge("drover_master_raft_replication_lag_entries", &["master"], "Entries a master is behind this leader; on the leader only.");
    SEEN: AtScrape<1> = AtScrape::gauge("drover_master_raft_peer_silence_seconds", &["master"], "How long ago a master answered this leader last; on the leader only.");
    PROPOSALS: Counter<1> = Counter::new("drover_master_raft_proposals_total", &["outcome"], "Commands proposed on this master: applied, refused, not-leader, unavailable, busy, too-large, too-new.");
    COMMIT: Histogram = Histogram::new("drover_master_raft_commit_seconds", &[], FAST, "From a proposal to its being applied on this master.");
    BATCH: Histogram = Histogram::new("drover_master_raft_entry_commands", &[], SIZES, "Commands in an entry that this master wrote.");
    APPEND: Histogram = Histogram::new("drover_master_raft_append_seconds", &[], FAST, "Writing entries to the log and syncing them to the disk.");
    SNAPSHOT: Histogram = Histogram::new("drover_master_raft_snapshot_seconds", &[], SLOW, "Writing a snapshot and syncing it to the disk.");
    SNAPSHOT_BYTES: AtScrape = AtScrape::gauge("drover_master_raft_snapshot_bytes", &[], "Size of the newest snapshot.");

    // The leader's decisions.
    DECISION: Histogram = Histogram::new("drover_master_leader_decision_seconds", &[], FAST, "One look at the whole state and what to do about it.");
    COMMANDS: Counter<2> = Counter::new("drover_master_leader_commands_total", &["command", "outcome"], "Commands the leader loop proposed: applied or refused.");
    WAITING_REQUESTS: AtScrape = AtScrape::gauge("drover_master_leader_waiting_requests", &[], "Apps and runs that wait for places; on the leader only.");
    WAITING_TASKS: AtScrape = AtScrape::gauge("drover_master_leader_waiting_tasks", &[], "Tasks that wait for places; on the leader only.");
    WAITING_AGE: AtScrape = AtScrape::gauge("drover_master_leader_waiting_age_seconds", &[], "How long the one that waits longest has waited; on the leader only.");

    // HTTP.
    REQUESTS: Counter<4> = Counter::new("drover_master_http_requests_total", &["dialect", "method", "origin", "status"], "Requests answered, by the class of their status; the origin is a client or another master.");
    REQUEST: Histogram<1> = Histogram::new("drover_master_http_request_seconds", &["dialect"], FAST, "From a request's head to its answer's.");
    REQUESTS_IN_FLIGHT: Gauge = Gauge::new("drover_master_http_requests_in_flight", &[], "Requests being answered.");
    CONNECTIONS: Gauge<1> = Gauge::new("drover_master_connections", &["listener"], "Connections: to the API, and to the cluster listener.");
    CONNECTIONS_REFUSED: Counter<2> = Counter::new("drover_master_connections_refused_total", &["listener", "limit"], "Connections turned away because of a limit.");
    CONNECTIONS_ENDED: Counter<1> = Counter::new("drover_master_connections_ended_total", &["reason"], "API connections ended because their client asked nothing (idle) or took nothing (stalled).");
    LIMITS_HIT: Counter<1> = Counter::new("drover_master_limit_refusals_total", &["limit"], "Requests refused because of a limit of [master.limits].");
    EVENT_SUBSCRIBERS: Gauge = Gauge::new("drover_master_event_subscribers", &[], "Event streams open.");
    EVENT_RESYNCS: Counter = Counter::new("drover_master_event_resyncs_total", &[], "Times a subscriber was further behind than events are kept.");
    EVENT_STREAMS_ENDED: Counter<1> = Counter::new("drover_master_event_streams_ended_total", &["reason"], "Event streams that ended: closed by the client, stalled, complete.");
    LOG_STREAMS: Gauge = Gauge::new("drover_master_log_streams", &[], "Log streams open.");

    // Agents.
    AGENTS_CONNECTED: AtScrape = AtScrape::gauge("drover_master_agents_connected", &[], "Agents with a session; on the leader only.");
    HEARTBEAT_AGE: AtScrape = AtScrape::gauge("drover_master_agent_silence_seconds", &[], "How long the most silent of the agents that count as up has been silent; on the leader only.");
    SESSIONS: Counter = Counter::new("drover_master_agent_sessions_total", &[], "Sessions of agents that began.");
    SESSIONS_ENDED: Counter<1> = Counter::new("drover_master_agent_sessions_ended_total", &["reason"], "Sessions of agents that ended.");
    STATUSES: Counter<1> = Counter::new("drover_master_task_statuses_total", &["state"], "Statuses of tasks that agents told and that were news, by the task's state.");
    ASSIGNMENTS: Counter = Counter::new("drover_master_assignments_total", &[], "Assignments sent to agents, whole ones and changes.");
    SENT_BYTES: Counter = Counter::new("drover_master_agent_sent_bytes_total", &[], "Bytes of messages sent to agents.");

    // What there is.
    APPS: AtScrape = AtScrape::gauge("drover_master_apps", &[], "Apps.");
    INSTANCES: AtScrape = AtScrape::gauge("drover_master_instances_wanted", &[], "Instances wanted of all apps.");
    DEPLOYMENTS: AtScrape = AtScrape::gauge("drover_master_deployments", &[], "Deployments under way.");
    JOBS: AtScrape<1> = AtScrape::gauge("drover_master_jobs", &["state"], "Jobs: enabled and disabled.");
    RUNS: AtScrape<1> = AtScrape::gauge("drover_master_runs", &["state"], "Runs that are not over: queued, active, ended (the attempt).");
    TASKS: AtScrape<1> = AtScrape::gauge("drover_master_tasks", &["state"], "Tasks that are, or may be, there.");
    AGENTS: AtScrape<1> = AtScrape::gauge("drover_master_agents", &["state"], "Agents: up and unreachable.");
    TOKENS: AtScrape = AtScrape::gauge("drover_master_join_tokens", &[], "Join tokens that are not used up.");
    TOTAL_CPUS: AtScrape = AtScrape::gauge("drover_master_cpus_total_cores", &[], "CPUs of the agents that are up.");
    USED_CPUS: AtScrape = AtScrape::gauge("drover_master_cpus_allocated_cores", &[], "CPUs held by tasks.");
    TOTAL_MEMORY: AtScrape = AtScrape::gauge("drover_master_memory_total_bytes", &[], "Memory of the agents that are up.");
    USED_MEMORY: AtScrape = AtScrape::gauge("drover_master_memory_allocated_bytes", &[], "Memory held by tasks.");
    TOTAL_DISK: AtScrape = AtScrape::gauge("drover_master_disk_total_bytes", &[], "Disk of the agents that are up.");
    USED_DISK: AtScrape = AtScrape::gauge("drover_master_disk_allocated_bytes", &[], "Disk held by tasks.");
    TOTAL_GPUS: AtScrape = AtScrape::gauge("drover_master_gpus_total_units", &[], "GPUs of the agents that are up.");
    USED_GPUS: AtScrape = AtScrape::gauge("drover_master_gpus_allocated_units", &[], "GPUs held by tasks.");
}

/// The page of this master.
pub(crate) fn page(api: &Api, format: Format) -> String {
    let mut samples = Samples::default();
    observe_process(&mut samples, env!("CARGO_PKG_VERSION"));
    observe_consensus(&mut samples, api);
    observe_leader(&mut samples, api);
    api.consensus.read(|state| observe_state(&mut samples, state));
    render(&[MASTER, PROCESS], samples, format)
}

fn flag(is: bool) -> f64 {
    if is { 1.0 } else { 0.0 }
}

fn observe_consensus(samples: &mut Samples, api: &Api) {
    let numbers = api.consensus.numbers();
    samples.put(&TERM, [], numbers.term as f64);
    let indexes = [
        (&LOG_INDEX, numbers.last_log_index),
        (&APPLIED_INDEX, numbers.applied_index),
        (&SNAPSHOT_INDEX, numbers.snapshot_index),
        (&PURGED_INDEX, numbers.purged_index),
    ];
    for (metric, index) in indexes {
        samples.put(metric, [], index.unwrap_or(0) as f64);
    }
    let snapshot = std::fs::metadata(api.config.data_dir.join("master/raft/snapshot"));
    samples.put(&SNAPSHOT_BYTES, [], snapshot.map_or(0, |file| file.len()) as f64);
    let leadership = api.consensus.leadership().borrow().clone();
    samples.put(&IS_LEADER, [], flag(leadership.is_me));
    samples.put(&HAS_LEADER, [], flag(leadership.leader.is_some()));
    let mut by_role = BTreeMap::from([("leader", 0_u32), ("follower", 0), ("learner", 0)]);
    for member in api.consensus.members() {
        let role = match member.role {
            MemberRole::Leader => "leader",
            MemberRole::Follower => "follower",
            MemberRole::Learner => "learner",
        };
        *by_role.entry(role).or_default() += 1;
        if member.name == api.config.name {
            continue;
        }
        if let Some(lag) = member.lag {
            samples.put(&LAG, [&member.name], lag as f64);
        }
        if let Some(ago) = member.seen_ago_ms {
            samples.put(&SEEN, [&member.name], ago as f64 / 1000.0);
        }
    }
    for (role, count) in by_role {
        samples.put(&MEMBERS, [role], f64::from(count));
    }
}

fn observe_leader(samples: &mut Samples, api: &Api) {
    if !api.consensus.leadership().borrow().is_me {
        return;
    }
    let now = crate::clock::now();
    let waiting = api.board.waiting();
    samples.put(&WAITING_REQUESTS, [], waiting.len() as f64);
    samples.put(&WAITING_TASKS, [], waiting.values().map(|waiting| f64::from(waiting.count)).sum());
    let oldest = waiting.values().map(|waiting| waiting.since).min();
    samples.put(&WAITING_AGE, [], oldest.map_or(0.0, |since| now.since(since).0 as f64 / 1000.0));
    samples.put(&AGENTS_CONNECTED, [], api.agents.connected() as f64);
    let heard = api.agents.heard();
    let most_silent = api.consensus.read(|state| {
        let up = state.agents.iter().filter(|(_, agent)| agent.is_up());
        up.filter_map(|(id, _)| heard.get(id)).min().copied()
    });
    samples.put(&HEARTBEAT_AGE, [], most_silent.map_or(0.0, |at| crate::clock::both().steady.saturating_sub(at).as_secs_f64()));
}

fn observe_state(samples: &mut Samples, state: &ClusterState) {
    samples.put(&APPS, [], state.apps.len() as f64);
    samples.put(&INSTANCES, [], state.apps.values().map(|record| f64::from(record.app.instances)).sum());
    samples.put(&DEPLOYMENTS, [], state.deployments.len() as f64);
    samples.put(&TOKENS, [], state.tokens.len() as f64);
    let disabled = state.jobs.values().filter(|entry| entry.job.disabled).count();
    samples.put(&JOBS, ["disabled"], disabled as f64);
    samples.put(&JOBS, ["enabled"], (state.jobs.len() - disabled) as f64);

    let mut runs = BTreeMap::from([("queued", 0_u32), ("active", 0), ("ended", 0)]);
    for run in state.runs.values() {
        let word = match run.state {
            RunState::Queued { .. } => "queued",
            RunState::Active { .. } => "active",
            RunState::AttemptEnded { .. } | RunState::Done { .. } => "ended",
        };
        *runs.entry(word).or_default() += 1;
    }
    for (word, count) in runs {
        samples.put(&RUNS, [word], f64::from(count));
    }

    let live = ["staging", "starting", "running", "killing", "unreachable"];
    let mut tasks: BTreeMap<&str, u32> = live.into_iter().map(|word| (word, 0)).collect();
    let mut held = Scalars::default();
    for task in state.tasks.values() {
        *tasks.entry(TaskState::from(task.state).word()).or_default() += 1;
        held = held.plus(task.allocation.total());
    }
    for (word, count) in tasks {
        samples.put(&TASKS, [word], f64::from(count));
    }

    let mut total = Scalars::default();
    let mut silent = 0_usize;
    for agent in state.agents.values() {
        match agent.reachability {
            Reachability::Up => total = total.plus(agent.info.resources.total()),
            Reachability::Unreachable(_) => silent += 1,
        }
    }
    samples.put(&AGENTS, ["up"], (state.agents.len() - silent) as f64);
    samples.put(&AGENTS, ["unreachable"], silent as f64);
    for (all, used, of) in [
        (&TOTAL_CPUS, &USED_CPUS, (|s: &Scalars| s.cpus_milli as f64 / 1000.0) as fn(&Scalars) -> f64),
        (&TOTAL_MEMORY, &USED_MEMORY, |s: &Scalars| s.mem_bytes as f64),
        (&TOTAL_DISK, &USED_DISK, |s: &Scalars| s.disk_bytes as f64),
        (&TOTAL_GPUS, &USED_GPUS, |s: &Scalars| s.gpus as f64),
    ] {
        samples.put(all, [], of(&total));
        samples.put(used, [], of(&held));
    }
}

/// Counts the leaders that come, until shut down.
pub(crate) async fn count_leaders(consensus: Consensus, shutdown: CancellationToken) {
    let mut leadership = consensus.leadership();
    let mut last: Option<(u64, u64)> = None;
    loop {
        let now = {
            let known = leadership.borrow_and_update();
            known.leader.as_ref().map(|leader| (known.term, leader.id))
        };
        if now.is_some() && now != last {
            LEADER_CHANGES.inc([]);
            last = now;
        }
        tokio::select! {
            changed = leadership.changed() => if changed.is_err() { return },
            () = shutdown.cancelled() => return,
        }
    }
}

/// A request is answered.
pub(crate) fn count_request([dialect, method, origin]: [&'static str; 3], status: StatusCode, took: Duration) {
    let class = match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    };
    REQUESTS.inc([dialect, method, origin, class]);
    REQUEST.took([dialect], took);
}

/// The name of a method, of a fixed set.
pub(crate) fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// What became of a proposal, in a word.
pub(crate) fn outcome<T>(result: &Result<T, ProposeError>) -> &'static str {
    match result {
        Ok(_) => "applied",
        Err(ProposeError::Refused(_)) => "refused",
        Err(ProposeError::NotLeader { .. }) => "not-leader",
        Err(ProposeError::Unavailable) => "unavailable",
        Err(ProposeError::TooBusy) => "busy",
        Err(ProposeError::TooLarge { .. }) => "too-large",
        Err(ProposeError::TooNew { .. }) => "too-new",
    }
}

/// The name of a command.
pub(crate) fn command(command: &Command) -> &'static str {
    match command {
        Command::AdmitAgent { .. } => "admit-agent",
        Command::MarkAgentUnreachable { .. } => "mark-agent-unreachable",
        Command::RemoveAgent { .. } => "remove-agent",
        Command::SetRoleWeight { .. } => "set-role-weight",
        Command::SetBounds { .. } => "set-bounds",
        Command::RaiseVersion { .. } => "raise-version",
        Command::ChangeApps { .. } => "change-apps",
        Command::AdvanceDeployment { .. } => "advance-deployment",
        Command::CancelDeployment { .. } => "cancel-deployment",
        Command::ResetFailures { .. } => "reset-failures",
        Command::LaunchTask { .. } => "launch-task",
        Command::KillTask { .. } => "kill-task",
        Command::RecordStatus { .. } => "record-status",
        Command::ExpungeTask { .. } => "expunge-task",
        Command::PutJob { .. } => "put-job",
        Command::RemoveJob { .. } => "remove-job",
        Command::StartRun { .. } => "start-run",
        Command::RetryRun { .. } => "retry-run",
        Command::FinishRun { .. } => "finish-run",
        Command::MarkJobSuccess { .. } => "mark-job-success",
        Command::PutJoinToken { .. } => "put-join-token",
        Command::UseJoinToken { .. } => "use-join-token",
    }
}
