use super::*;
use crate::ids::AppId;
use crate::resources::Scalars;
use crate::task::{Owner, Program};
use crate::time::Timestamp;
use std::collections::BTreeMap;

fn spec() -> TaskSpec {
    TaskSpec {
        owner: Owner::App { app: AppId::parse("/web").unwrap(), version: Timestamp(1) },
        program: Program::Shell("true".into()),
        user: None,
        env: BTreeMap::new(),
        resources: Scalars { mem_bytes: 128 << 20, ..Scalars::default() },
        kill_grace: Millis(3000),
        run_time_max: None,
        properties: BTreeMap::new(),
    }
}

/// `state/sub result code/status`, as systemctl would put it; `*` after the state: never was active.
fn unit(text: &str) -> ObservedUnit {
    let mut words = text.split(' ');
    let (state, sub) = words.next().unwrap().split_once('/').unwrap();
    let (code, status) = words.clone().nth(1).unwrap_or("0/0").split_once('/').unwrap();
    ObservedUnit {
        is_loaded: true,
        active: ActiveState::parse(state.trim_end_matches('*')),
        was_active: !state.ends_with('*'),
        sub: sub.into(),
        result: words.next().unwrap_or("success").into(),
        exec_main_code: code.parse().unwrap(),
        exec_main_status: status.parse().unwrap(),
        ..ObservedUnit::default()
    }
}

fn check(row: &str, kill: Option<&str>, expect: &str) {
    let said = status_of(&unit(row), &spec(), kill).map_or("nothing".into(), |verdict| {
        let exit = match verdict.exit {
            None => String::new(),
            Some(Exit::Code(code)) => format!(" code={code}"),
            Some(Exit::Signal(signal)) => format!(" signal={signal}"),
        };
        format!("{:?} {:?}{exit}: {}", verdict.state, verdict.reason, verdict.message)
    });
    assert_eq!(said, expect, "{row} kill={kill:?}");
}

#[test]
fn every_row_of_the_table() {
    for (row, expect) in [
        ("activating*/start", "Starting Normal: "),
        ("active/running", "Running Normal: "),
        ("reloading/reload", "Running Normal: "),
        ("refreshing/refresh-extensions", "Running Normal: "),
        ("active/exited success 1/0", "Finished Normal code=0: ended with success"),
        ("active/exited success 0/0", "Finished Normal: ended with success"),
        ("active/exited success 1/75", "Finished Normal code=75: exited with status 75, a success by its own word"),
        ("active/exited success 2/10", "Finished Normal signal=10: ended by SIGUSR1, a success by its own word"),
        (
            "active/exited success 2/15",
            "Failed Signal signal=15: its main process was ended by SIGTERM, which drover did not send",
        ),
        ("deactivating/stop-sigterm success", "Killing StoppedOnNode: its unit is being stopped on the node"),
        ("deactivating/final-sigterm exit-code 1/1", "nothing"),
        ("deactivating/stop-sigterm timeout", "nothing"),
        (
            "inactive/dead success 2/15",
            "Killed StoppedOnNode signal=15: its unit was stopped on the node, by `systemctl stop` or because the node goes down",
        ),
        ("failed/failed exit-code 1/7", "Failed ExitCode code=7: exited with status 7"),
        ("failed/failed exit-code 1/203", "Failed ExitCode code=203: exited with status 203"),
        (
            "failed*/failed exit-code 1/203",
            "Failed Exec code=203: its program is missing or may not be executed (systemd's status 203)",
        ),
        ("failed*/failed exit-code 1/217", "Failed Exec code=217: its user is unknown on the node (systemd's status 217)"),
        (
            "failed*/failed exit-code 1/200",
            "Failed Exec code=200: its working directory is missing or may not be entered (systemd's status 200)",
        ),
        ("failed*/failed exit-code 1/3", "Failed ExitCode code=3: exited with status 3"),
        (
            "failed/failed signal 2/9",
            "Failed Signal signal=9: its main process was ended by SIGKILL, which drover did not send",
        ),
        ("failed/failed core-dump 3/11", "Failed CoreDump signal=11: its main process was ended by SIGSEGV and dumped core"),
        (
            "failed/failed oom-kill 2/9",
            "Failed OutOfMemory signal=9: the kernel ended it because memory ran out; its limit is 128 MiB",
        ),
        ("failed/failed watchdog 2/6", "Failed Watchdog signal=6: it stopped telling its watchdog that it is alive"),
        ("failed*/failed timeout", "Failed Timeout: it was not started in time"),
        (
            "failed/failed timeout 2/9",
            "Killed StoppedOnNode signal=9: it was stopped on the node, did not end within 3 s and was killed",
        ),
        ("failed*/failed start-limit-hit", "Failed StartLimit: systemd refuses to start its unit that often"),
        (
            "failed*/failed resources",
            "Failed Resources: the node could not give what starting takes; the journal of the unit says what was missing",
        ),
        ("failed/failed protocol", "Failed Protocol: it did not do what its service type promises"),
        ("failed/failed exec-condition", "Failed Protocol: its unit failed with result 'exec-condition'"),
    ] {
        check(row, None, expect);
    }
    for (row, expect) in [
        ("active/running", "Killing KillRequested: scaled down"),
        ("deactivating/stop-sigterm", "Killing KillRequested: scaled down"),
        ("active/exited success 1/0", "Finished Normal code=0: ended with success"),
        ("inactive/dead success 2/15", "Killed KillRequested signal=15: scaled down"),
        ("failed/failed exit-code 1/1", "Killed KillRequested code=1: scaled down"),
        ("failed/failed timeout 2/9", "Killed KillRequested signal=9: scaled down; it did not end within 3 s and was killed"),
    ] {
        check(row, Some("scaled down"), expect);
    }
}

#[test]
fn a_unit_just_made_is_starting_and_a_stopped_one_is_not() {
    let mut made = unit("inactive*/dead");
    made.has_job = true;
    assert_eq!(status_of(&made, &spec(), None).unwrap().state, TaskState::Starting);
    made.was_active = true;
    assert_eq!(status_of(&made, &spec(), None).unwrap().state, TaskState::Killed, "between stop and start of a restart");
}

#[test]
fn limits_explain_ends() {
    let mut timed = spec();
    timed.run_time_max = Some(Millis::from_secs(120));
    let verdict = status_of(&unit("failed/failed timeout 2/15"), &timed, None).unwrap();
    assert_eq!(verdict.message, "it ran longer than 2 min and was ended");
    let mut forked = unit("failed/failed exit-code 1/254");
    forked.was_refused_a_process = true;
    let verdict = status_of(&forked, &spec(), None).unwrap();
    assert!(verdict.message.contains("refused it another process: it had reached its TasksMax"), "{}", verdict.message);
}

#[test]
fn vanished_units_end_as_the_journal_says() {
    let say = |evidence: &Evidence, kill, was_started| {
        let verdict = status_of_vanished(evidence, &spec(), kill, was_started);
        (verdict.state, verdict.reason, verdict.exit)
    };
    let failed = Evidence::Failed { result: "exit-code".into(), code: 1, status: 7 };
    assert_eq!(say(&failed, None, true), (TaskState::Failed, Reason::ExitCode, Some(Exit::Code(7))));
    assert_eq!(say(&failed, Some("x"), true), (TaskState::Killed, Reason::KillRequested, Some(Exit::Code(7))));
    assert_eq!(say(&Evidence::Stopped, None, true), (TaskState::Killed, Reason::StoppedOnNode, None));
    assert_eq!(say(&Evidence::Nothing, None, true), (TaskState::Lost, Reason::UnitMissing, None));
    assert_eq!(say(&Evidence::Nothing, None, false), (TaskState::Dropped, Reason::UnitMissing, None));
    assert_eq!(say(&Evidence::Nothing, Some("x"), true), (TaskState::Killed, Reason::KillRequested, None));
}
