//! What an agent counts. `docs/metrics.md` describes each. Nothing here is about one task: a node's tasks come and go by the
//! thousand.

use drover_api::drover::TaskState;
use drover_core::unit::Ledger;
use drover_telemetry::{
    Counter, FAST, Format, Gauge, Histogram, PROCESS, SIZES, SLOW, Samples, observe_process, page as render,
};
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

drover_telemetry::instruments! {
    /// Every number of an agent.
    AGENT;

    // Tasks.
    TASKS: Gauge<1> = Gauge::new("drover_agent_tasks", &["state"], "Tasks in the ledger by their newest state; assigned: not begun yet.");
    TASKS_MAX: Gauge = Gauge::new("drover_agent_tasks_max", &[], "Tasks this node takes at most.");
    GENERATION: Gauge = Gauge::new("drover_agent_assignment_generation", &[], "Version of the assignment this agent holds.");
    STARTS: Counter<1> = Counter::new("drover_agent_starts_total", &["outcome"], "Units asked for: made, exists, refused, no-answer.");
    START: Histogram = Histogram::new("drover_agent_start_seconds", &[], SLOW, "From asking systemd for a unit to the end of its start job, successful ones.");
    STARTING: Gauge = Gauge::new("drover_agent_starts_in_flight", &[], "Starts under way.");
    STOPS: Counter<1> = Counter::new("drover_agent_stops_total", &["outcome"], "Units stopped or let go: done, gone, failed.");
    STATUSES: Counter<1> = Counter::new("drover_agent_task_statuses_total", &["state"], "Statuses made, by the task's state.");
    OUTBOX: Gauge = Gauge::new("drover_agent_outbox_statuses", &[], "Statuses that the leader has not been told.");
    UNACKNOWLEDGED: Gauge = Gauge::new("drover_agent_unacknowledged_statuses", &[], "Tasks whose newest status is not acknowledged.");

    // The driver.
    RECONCILE: Histogram = Histogram::new("drover_agent_reconcile_seconds", &[], FAST, "Comparing assignment, ledger and units, and putting what follows on record.");
    INPUTS: Counter<1> = Counter::new("drover_agent_inputs_total", &["kind"], "What the driver took in: leader, systemd, operation, tick.");
    LEDGER: Histogram = Histogram::new("drover_agent_ledger_append_seconds", &[], FAST, "Writing records to the ledger and syncing them to the disk.");
    LEDGER_RECORDS: Histogram = Histogram::new("drover_agent_ledger_append_records", &[], SIZES, "Records written together.");
    LEDGER_BYTES: Gauge = Gauge::new("drover_agent_ledger_bytes", &[], "Size of the ledger.");

    // systemd and the journal.
    BUS_CONNECTED: Gauge = Gauge::new("drover_agent_bus_connected", &[], "1 while systemd can be asked.");
    BUS_CONNECTS: Counter = Counter::new("drover_agent_bus_connects_total", &[], "Times systemd was reached, the first included.");
    BUS_ERRORS: Counter<1> = Counter::new("drover_agent_bus_errors_total", &["call"], "Calls to systemd that failed, beside starts and stops: observe, account, list, sweep.");
    QUESTIONS: Counter<1> = Counter::new("drover_agent_journal_questions_total", &["outcome"], "Questions to the journal about how a task ended: answered, failed.");
    LOG_STREAMS: Gauge = Gauge::new("drover_agent_log_streams", &[], "Log streams open.");
    LOG_STREAMS_REFUSED: Counter = Counter::new("drover_agent_log_streams_refused_total", &[], "Log streams that stayed empty because of [agent.limits] log_streams.");

    // The session.
    CONNECTED: Gauge = Gauge::new("drover_agent_session_connected", &[], "1 while a leader has admitted this agent.");
    SESSIONS: Counter = Counter::new("drover_agent_sessions_total", &[], "Sessions in which a leader admitted this agent.");
    HEARD: Gauge = Gauge::new("drover_agent_leader_heard_timestamp_seconds", &[], "When the leader was last heard, in seconds since 1970; 0 before the first time.");
}

/// The page of this agent.
pub(crate) fn page(format: Format) -> String {
    let mut samples = Samples::default();
    observe_process(&mut samples, env!("CARGO_PKG_VERSION"));
    render(&[AGENT, PROCESS], samples, format)
}

/// The leader was heard.
pub(crate) fn heard() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    HEARD.set([], i64::try_from(now).unwrap_or(i64::MAX));
}

/// What the ledger says, looked at with every tick of the driver.
pub(crate) fn observe(ledger: &Ledger, bytes: u64, outbox: usize, has_bus: bool) {
    let mut tasks: BTreeMap<&'static str, i64> =
        ["assigned", "starting", "running", "killing"].into_iter().map(|word| (word, 0)).collect();
    let mut ended = 0;
    let mut unacknowledged = 0;
    for task in ledger.tasks.values() {
        unacknowledged += i64::from(task.unacknowledged().is_some());
        match &task.status {
            None => *tasks.entry("assigned").or_default() += 1,
            Some(status) if status.state.is_terminal() => ended += 1,
            Some(status) => *tasks.entry(TaskState::from(status.state).word()).or_default() += 1,
        }
    }
    tasks.insert("ended", ended);
    for (word, count) in tasks {
        TASKS.set([word], count);
    }
    UNACKNOWLEDGED.set([], unacknowledged);
    OUTBOX.set([], i64::try_from(outbox).unwrap_or(i64::MAX));
    GENERATION.set([], i64::try_from(ledger.generation).unwrap_or(i64::MAX));
    LEDGER_BYTES.set([], i64::try_from(bytes).unwrap_or(i64::MAX));
    BUS_CONNECTED.set([], i64::from(has_bus));
}
