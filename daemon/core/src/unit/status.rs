//! From a unit's state to a task's: one table, tested row by row.
//!
//! Two rows surprise. A unit is kept after success as `active (exited)`, so `inactive` means that somebody stopped it. And
//! systemd counts an end by SIGTERM, SIGINT, SIGHUP or SIGPIPE as success (systemd.service(5), `SuccessExitStatus=`), which for
//! a task that nobody asked to end it is not.

use super::observed::{ActiveState, Evidence, ObservedUnit};
use crate::sandbox::signal_name;
use crate::task::{Exit, Reason, TaskSpec, TaskState};
use crate::time::Millis;

/// What a task's unit says about the task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The state.
    pub state: TaskState,
    /// Why.
    pub reason: Reason,
    /// The same for people; empty when there is nothing to say.
    pub message: String,
    /// How the main process ended, if it has.
    pub exit: Option<Exit>,
}

impl Verdict {
    pub(super) fn new(state: TaskState, reason: Reason, message: impl Into<String>) -> Self {
        Self { state, reason, message: message.into(), exit: None }
    }

    fn with(self, exit: Option<Exit>) -> Self {
        Self { exit, ..self }
    }
}

/// What a unit's state means for its task. `kill` is why drover has asked it to end, if it has. `None`: not settled yet, look again.
pub fn status_of(unit: &ObservedUnit, spec: &TaskSpec, kill: Option<&str>) -> Option<Verdict> {
    let exit = exit_of(unit);
    let verdict = match (unit.active, kill) {
        (ActiveState::Activating, _) => Verdict::new(TaskState::Starting, Reason::Normal, ""),
        (ActiveState::Active, _) if unit.sub == "exited" => after_success(exit),
        (ActiveState::Active | ActiveState::Reloading, None) => Verdict::new(TaskState::Running, Reason::Normal, ""),
        (ActiveState::Active | ActiveState::Reloading | ActiveState::Deactivating, Some(why)) => {
            return Some(Verdict::new(TaskState::Killing, Reason::KillRequested, why));
        }
        // On its way to `failed`: the reason is known then.
        (ActiveState::Deactivating, None) if unit.result != "success" => return None,
        (ActiveState::Deactivating, None) => {
            return Some(Verdict::new(TaskState::Killing, Reason::StoppedOnNode, "its unit is being stopped on the node"));
        }
        // Just made, its start job not run yet.
        (ActiveState::Inactive, _) if unit.is_loaded && unit.has_job && !unit.was_active => {
            Verdict::new(TaskState::Starting, Reason::Normal, "")
        }
        (ActiveState::Inactive, Some(why)) => Verdict::new(TaskState::Killed, Reason::KillRequested, why),
        (ActiveState::Inactive, None) => stopped_on_node(),
        (ActiveState::Failed, Some(why)) => killed_the_hard_way(unit, spec, why),
        (ActiveState::Failed, None) => after_failure(unit, spec),
    };
    Some(verdict.with(exit))
}

/// What is to be made of a unit that has vanished: the journal's word, and what drover itself had asked.
pub(super) fn status_of_vanished(evidence: &Evidence, spec: &TaskSpec, kill: Option<&str>, was_started: bool) -> Verdict {
    match (evidence, kill) {
        (Evidence::Failed { result, code, status }, _) => {
            let unit = ObservedUnit {
                active: ActiveState::Failed,
                result: result.clone(),
                exec_main_code: *code,
                exec_main_status: *status,
                was_active: was_started,
                ..ObservedUnit::default()
            };
            let verdict = status_of(&unit, spec, kill).expect("failed is a settled state");
            Verdict { message: format!("{} (as the journal tells)", verdict.message), ..verdict }
        }
        (_, Some(why)) => Verdict::new(TaskState::Killed, Reason::KillRequested, why),
        (Evidence::Stopped, None) => stopped_on_node(),
        (Evidence::Nothing, None) if !was_started => Verdict::new(
            TaskState::Dropped,
            Reason::UnitMissing,
            "the agent was interrupted while it asked systemd for the unit; systemd has none, and the journal tells of none",
        ),
        (Evidence::Nothing, None) => Verdict::new(
            TaskState::Lost,
            Reason::UnitMissing,
            "systemd does not have its unit any more, and the journal does not tell how it ended",
        ),
    }
}

/// Why systemd would not start a unit, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartRefusal {
    /// A property is unknown to it or has a value it does not take.
    Description(String),
    /// It lacks memory, units, processes.
    Resources(String),
}

/// What a refused start means.
pub fn start_refused(refusal: &StartRefusal) -> Verdict {
    match refusal {
        StartRefusal::Description(text) => {
            Verdict::new(TaskState::Error, Reason::BadUnit, format!("systemd refused the unit: {text}"))
        }
        StartRefusal::Resources(text) => {
            Verdict::new(TaskState::Failed, Reason::Resources, format!("systemd could not make the unit: {text}"))
        }
    }
}

fn exit_of(unit: &ObservedUnit) -> Option<Exit> {
    match unit.exec_main_code {
        1 => Some(Exit::Code(unit.exec_main_status)),
        2 | 3 => Some(Exit::Signal(unit.exec_main_status)),
        _ => None,
    }
}

fn after_success(exit: Option<Exit>) -> Verdict {
    match exit {
        // systemd's "clean" signals; any other that got here was declared a success by the task's own SuccessExitStatus.
        Some(Exit::Signal(signal @ (1 | 2 | 13 | 15))) => Verdict::new(
            TaskState::Failed,
            Reason::Signal,
            format!("its main process was ended by {}, which drover did not send", signal_name(signal)),
        ),
        Some(Exit::Code(0)) | None => Verdict::new(TaskState::Finished, Reason::Normal, "ended with success"),
        Some(Exit::Code(code)) => {
            Verdict::new(TaskState::Finished, Reason::Normal, format!("exited with status {code}, a success by its own word"))
        }
        Some(Exit::Signal(signal)) => Verdict::new(
            TaskState::Finished,
            Reason::Normal,
            format!("ended by {}, a success by its own word", signal_name(signal)),
        ),
    }
}

fn stopped_on_node() -> Verdict {
    Verdict::new(
        TaskState::Killed,
        Reason::StoppedOnNode,
        "its unit was stopped on the node, by `systemctl stop` or because the node goes down",
    )
}

fn killed_the_hard_way(unit: &ObservedUnit, spec: &TaskSpec, why: &str) -> Verdict {
    let message = match unit.result.as_str() {
        "timeout" => format!("{why}; it did not end within {} and was killed", span(spec.kill_grace)),
        _ => why.to_owned(),
    };
    Verdict::new(TaskState::Killed, Reason::KillRequested, message)
}

fn after_failure(unit: &ObservedUnit, spec: &TaskSpec) -> Verdict {
    let (code, signal) = (unit.exec_main_status, signal_name(unit.exec_main_status));
    let failed = |reason, message: String| Verdict::new(TaskState::Failed, reason, message);
    match unit.result.as_str() {
        "exit-code"
            if !unit.was_active
                && let Some(words) = setup_failure(code) =>
        {
            failed(Reason::Exec, format!("{words} (systemd's status {code})"))
        }
        "exit-code" if unit.was_refused_a_process => failed(
            Reason::ExitCode,
            format!("exited with status {code}, after the kernel refused it another process: it had reached its TasksMax"),
        ),
        "exit-code" => failed(Reason::ExitCode, format!("exited with status {code}")),
        "signal" => failed(Reason::Signal, format!("its main process was ended by {signal}, which drover did not send")),
        "core-dump" => failed(Reason::CoreDump, format!("its main process was ended by {signal} and dumped core")),
        "oom-kill" => failed(
            Reason::OutOfMemory,
            match spec.resources.mem_bytes {
                0 => "the kernel ended it because memory ran out".into(),
                limit => format!("the kernel ended it because memory ran out; its limit is {} MiB", limit >> 20),
            },
        ),
        "watchdog" => failed(Reason::Watchdog, "it stopped telling its watchdog that it is alive".into()),
        "timeout" if !unit.was_active => failed(Reason::Timeout, "it was not started in time".into()),
        "timeout" => match spec.run_time_max {
            Some(limit) => failed(Reason::Timeout, format!("it ran longer than {} and was ended", span(limit))),
            // Nothing else can run out of time.
            None => Verdict::new(
                TaskState::Killed,
                Reason::StoppedOnNode,
                format!("it was stopped on the node, did not end within {} and was killed", span(spec.kill_grace)),
            ),
        },
        "start-limit-hit" => failed(Reason::StartLimit, "systemd refuses to start its unit that often".into()),
        "resources" => failed(
            Reason::Resources,
            "the node could not give what starting takes; the journal of the unit says what was missing".into(),
        ),
        "protocol" => failed(Reason::Protocol, "it did not do what its service type promises".into()),
        other => failed(Reason::Protocol, format!("its unit failed with result '{other}'")),
    }
}

/// Statuses of systemd's own, from before the program was executed (systemd.exec(5), "Process Exit Codes").
fn setup_failure(status: i32) -> Option<&'static str> {
    Some(match status {
        200 => "its working directory is missing or may not be entered",
        201..=202 | 204..=207 | 211..=215 | 218 | 220 | 223 | 227 | 230..=232 | 236 | 242 => {
            "systemd could not prepare its process"
        }
        203 => "its program is missing or may not be executed",
        208..=209 | 222 => "its output could not be connected to the journal",
        210 => "its root directory could not be entered",
        216 => "the group of its user is unknown on the node",
        217 => "its user is unknown on the node",
        219 => "its control group could not be made",
        225 => "its network namespace could not be made",
        226 => "its sandbox could not be made: a path that its properties name is missing, or the node does not allow mounts",
        228 => "the filter of system calls could not be set",
        233 | 235 | 238..=241 => "its directory could not be made",
        237 => "its keyring could not be made",
        243 => "its credentials could not be read",
        _ => return None,
    })
}

/// A span as people write it.
fn span(span: Millis) -> String {
    match span.0 {
        ms if ms % 1000 != 0 => format!("{ms} ms"),
        ms if ms % 60_000 != 0 || ms == 0 => format!("{} s", ms / 1000),
        ms => format!("{} min", ms / 60_000),
    }
}

#[cfg(test)]
mod tests;
