//! Cases one by one, then a node under random faults.

use super::*;
use crate::ids::AppId;
use crate::resources::Scalars;
use crate::sandbox::Manager;
use crate::task::{Owner, Program, TaskSpec};
use crate::time::Millis;
use crate::unit::{Record, WantedTask};
use proptest::prelude::*;

fn spec() -> TaskSpec {
    TaskSpec {
        owner: Owner::App { app: AppId::parse("/web").unwrap(), version: Timestamp(1) },
        program: Program::Shell("true".into()),
        user: None,
        env: BTreeMap::new(),
        resources: Scalars::default(),
        kill_grace: Millis(3000),
        run_time_max: None,
        properties: BTreeMap::new(),
    }
}

fn facts(boot: &str) -> NodeFacts {
    NodeFacts {
        boot: boot.into(),
        systemd: 257,
        manager: Manager::System,
        task_slice: "drover.slice".into(),
        state_root: "/var/lib".into(),
        enforces: BTreeSet::new(),
    }
}

fn id(name: &str) -> TaskId {
    TaskId::new(name)
}

fn wanted(name: &str, kill: Option<&str>) -> WantedTask {
    WantedTask { id: id(name), spec: spec(), kill: kill.map(str::to_owned), told: 0 }
}

fn assigned(tasks: Vec<WantedTask>) -> Record {
    Record::Assigned { generation: 1, full: true, tasks, removed: vec![] }
}

fn starting(name: &str) -> Record {
    Record::Starting { task: id(name), boot: "b1".into() }
}

fn started(name: &str, invocation: &str) -> Record {
    Record::Started { task: id(name), boot: "b1".into(), invocation: invocation.into() }
}

fn running(name: &str, invocation: &str) -> ObservedUnit {
    ObservedUnit {
        name: unit_name(&id(name)),
        is_loaded: true,
        active: ActiveState::Active,
        sub: "running".into(),
        result: "success".into(),
        was_active: true,
        invocation: Some(invocation.into()),
        task: Some(id(name)),
        slice: "drover-apps-web.slice".into(),
        ..ObservedUnit::default()
    }
}

fn exited(name: &str, invocation: &str) -> ObservedUnit {
    ObservedUnit { sub: "exited".into(), exec_main_code: 1, ..running(name, invocation) }
}

fn failed(name: &str, invocation: &str, code: i32) -> ObservedUnit {
    ObservedUnit {
        active: ActiveState::Failed,
        sub: "failed".into(),
        result: "exit-code".into(),
        exec_main_code: 1,
        exec_main_status: code,
        ..running(name, invocation)
    }
}

/// What a node would do, in words.
#[derive(Default)]
struct Given {
    records: Vec<Record>,
    units: Vec<ObservedUnit>,
    busy: Vec<&'static str>,
    evidence: Vec<(&'static str, Evidence)>,
    unanswered: Vec<&'static str>,
    refused: Vec<(&'static str, StartRefusal)>,
    has_heard_leader: bool,
    boot: Option<&'static str>,
}

impl Given {
    fn check(self, expect: &[&str]) {
        let mut ledger = Ledger::default();
        self.records.iter().for_each(|record| ledger.apply(record));
        let actions = reconcile(&View {
            ledger: &ledger,
            units: &self.units.into_iter().map(|unit| (unit.name.clone(), unit)).collect(),
            busy: &self.busy.iter().map(|name| unit_name(&id(name))).collect(),
            evidence: &self.evidence.into_iter().map(|(name, evidence)| (id(name), evidence)).collect(),
            unanswered: &self.unanswered.into_iter().map(id).collect(),
            refused: &self.refused.into_iter().map(|(name, refusal)| (id(name), refusal)).collect(),
            starts_max: 200,
            facts: &facts(self.boot.unwrap_or("b1")),
            has_heard_leader: self.has_heard_leader,
            now: Timestamp(9),
        });
        let said: Vec<String> = actions.iter().map(tell).collect();
        assert_eq!(said, expect);
    }
}

fn tell(action: &UnitAction) -> String {
    match action {
        UnitAction::Start { task, plan, .. } => format!("start {task} in {}", plan.slice),
        UnitAction::Adopt { task, invocation, .. } => format!("adopt {task} {invocation}"),
        UnitAction::Stop { task, unit, reason } => {
            format!("stop {}: {reason}", task.as_ref().map_or(unit.as_str(), |task| task.as_str()))
        }
        UnitAction::Report { status } => {
            format!("report {} #{} {:?} {:?}", status.task, status.seq, status.state, status.reason)
        }
        UnitAction::Clean { unit, has_failed, .. } => format!("clean {unit} failed={has_failed}"),
        UnitAction::Investigate { task, invocation, .. } => format!("investigate {task} {invocation:?}"),
        UnitAction::Forget { task, .. } => format!("forget {task}"),
    }
}

#[test]
fn a_new_task_is_started_once() {
    Given { records: vec![assigned(vec![wanted("a", None)])], ..Given::default() }
        .check(&["start a in drover-apps-web.slice", "report a #1 Starting Normal"]);
    Given { records: vec![assigned(vec![wanted("a", None)]), starting("a")], busy: vec!["a"], ..Given::default() }.check(&[]);
}

#[test]
fn a_kill_before_the_start_starts_nothing() {
    Given { records: vec![assigned(vec![wanted("a", Some("scaled down"))])], ..Given::default() }
        .check(&["report a #1 Killed KillRequested"]);
    let gone = Record::Assigned { generation: 2, full: false, tasks: vec![], removed: vec![id("a")] };
    Given { records: vec![assigned(vec![wanted("a", None)]), gone], ..Given::default() }.check(&["forget a"]);
}

#[test]
fn an_impossible_task_is_an_error_with_its_reasons() {
    let mut task = wanted("a", None);
    task.spec.properties.insert("Slice".into(), "x".into());
    Given { records: vec![assigned(vec![task])], ..Given::default() }.check(&["report a #1 Error BadUnit"]);
}

#[test]
fn a_restarted_agent_adopts_and_stops_nothing() {
    let records =
        || vec![assigned(vec![wanted("a", None), wanted("b", None)]), starting("a"), starting("b"), started("b", "i2")];
    Given {
        records: records(),
        units: vec![running("a", "i1"), running("b", "i2"), running("stray", "i3")],
        ..Given::default()
    }
    .check(&["adopt a i1", "report b #1 Running Normal"]);
}

#[test]
fn a_new_ledger_takes_over_what_runs_and_starts_nothing_again() {
    let told = |name| WantedTask { told: 2, ..wanted(name, None) };
    let records = || vec![assigned(vec![told("a"), told("b"), wanted("c", None)])];
    Given { records: records(), units: vec![running("a", "i1")], ..Given::default() }.check(&[
        "adopt a i1",
        "report b #3 Lost UnitMissing",
        "start c in drover-apps-web.slice",
        "report c #1 Starting Normal",
    ]);
    let adopted = [records(), vec![started("a", "i1")]].concat();
    Given { records: adopted, units: vec![failed("a", "i1", 3)], busy: vec!["b", "c"], ..Given::default() }
        .check(&["report a #3 Failed ExitCode"]);
}

#[test]
fn strays_go_once_the_leader_was_heard() {
    let mut foreign = running("foreign", "i9");
    foreign.task = None;
    let mut misnamed = running("x", "i8");
    misnamed.task = Some(id("y"));
    let units =
        || vec![running("stray", "i3"), failed("stray2", "i4", 1), exited("stray3", "i5"), foreign.clone(), misnamed.clone()];
    Given { units: units(), ..Given::default() }.check(&[]);
    Given { units: units(), has_heard_leader: true, ..Given::default() }.check(&[
        "stop drover-stray.service: neither ledger nor leader knows its task stray",
        "clean drover-stray2.service failed=true",
        "clean drover-stray3.service failed=false",
    ]);
}

#[test]
fn ends_are_reported_then_cleaned_then_forgotten() {
    let mut records = vec![assigned(vec![wanted("a", None)]), starting("a"), started("a", "i1")];
    Given { records: records.clone(), units: vec![failed("a", "i1", 7)], ..Given::default() }
        .check(&["report a #1 Failed ExitCode"]);
    let status = TaskStatus {
        task: id("a"),
        seq: 1,
        state: TaskState::Failed,
        reason: Reason::ExitCode,
        message: String::new(),
        at: Timestamp(1),
        exit: None,
        invocation: Some("i1".into()),
        usage: None,
    };
    records.push(Record::Status(Box::new(status)));
    for (invocation, why) in [("i1", "given up for lost"), ("i2", "started again by hand after its task had ended")] {
        let why = if invocation == "i1" { format!("its task was {why}") } else { format!("it was {why}") };
        Given { records: records.clone(), units: vec![running("a", invocation)], ..Given::default() }
            .check(&[&format!("stop a: {why}")]);
    }
    Given { records: records.clone(), units: vec![failed("a", "i1", 7)], ..Given::default() }
        .check(&["clean drover-a.service failed=true"]);
    Given { records: records.clone(), ..Given::default() }.check(&[]);
    records.push(Record::Acknowledged { task: id("a"), seq: 1 });
    // A stale assignment must not find the task unknown and start it anew: it is kept until it is not assigned any more.
    Given { records: records.clone(), ..Given::default() }.check(&[]);
    records.push(Record::Assigned { generation: 2, full: false, tasks: vec![], removed: vec![id("a")] });
    Given { records, ..Given::default() }.check(&["forget a"]);
}

#[test]
fn a_kill_stops_the_recorded_start_only() {
    let records = || vec![assigned(vec![wanted("a", Some("scaled down"))]), starting("a"), started("a", "i1")];
    Given { records: records(), units: vec![running("a", "i1")], ..Given::default() }
        .check(&["stop a: scaled down", "report a #1 Killing KillRequested"]);
    Given { records: records(), units: vec![running("a", "i1")], busy: vec!["a"], ..Given::default() }
        .check(&["report a #1 Killing KillRequested"]);
    // Another start under its name is not ours to stop; what became of ours is asked of the journal.
    Given { records: records(), units: vec![running("a", "i2")], ..Given::default() }.check(&["investigate a Some(\"i1\")"]);
    let mut ghost = running("a", "i1");
    (ghost.is_loaded, ghost.active) = (false, ActiveState::Inactive);
    Given { records: records(), units: vec![ghost], ..Given::default() }.check(&["report a #1 Killed KillRequested"]);
}

#[test]
fn what_is_not_assigned_any_more_is_stopped() {
    let gone = Record::Assigned { generation: 2, full: true, tasks: vec![], removed: vec![] };
    let records = vec![assigned(vec![wanted("a", None)]), starting("a"), started("a", "i1"), gone];
    Given { records, units: vec![running("a", "i1")], ..Given::default() }
        .check(&["stop a: it is not assigned to this node any more", "report a #1 Killing KillRequested"]);
}

#[test]
fn a_reboot_takes_everything_with_it() {
    let records = vec![assigned(vec![wanted("a", None), wanted("b", None)]), starting("a"), starting("b"), started("b", "i2")];
    Given { records, boot: Some("b2"), ..Given::default() }.check(&["report a #1 Gone Reboot", "report b #1 Gone Reboot"]);
}

#[test]
fn a_vanished_unit_is_investigated_and_then_reported() {
    let records = || vec![assigned(vec![wanted("a", None)]), starting("a"), started("a", "i1")];
    Given { records: records(), ..Given::default() }.check(&["investigate a Some(\"i1\")"]);
    Given { records: records(), evidence: vec![("a", Evidence::Stopped)], ..Given::default() }
        .check(&["report a #1 Killed StoppedOnNode"]);
    Given { records: records(), evidence: vec![("a", Evidence::Nothing)], ..Given::default() }
        .check(&["report a #1 Lost UnitMissing"]);
    let before_the_call = vec![assigned(vec![wanted("a", None)]), starting("a")];
    Given { records: before_the_call.clone(), evidence: vec![("a", Evidence::Nothing)], ..Given::default() }
        .check(&["report a #1 Dropped UnitMissing"]);
    Given { records: before_the_call.clone(), unanswered: vec!["a"], ..Given::default() }.check(&["investigate a None"]);
    let nothing = vec![("a", Evidence::Nothing)];
    Given { records: before_the_call, unanswered: vec!["a"], evidence: nothing, ..Given::default() }
        .check(&["start a in drover-apps-web.slice", "report a #1 Starting Normal"]);
}

#[test]
fn what_systemd_refuses_is_reported() {
    let records = || vec![assigned(vec![wanted("a", None)]), starting("a")];
    let refused = StartRefusal::Description("no such property".into());
    Given { records: records(), refused: vec![("a", refused)], ..Given::default() }.check(&["report a #1 Error BadUnit"]);
    let refused = StartRefusal::Resources("out of memory".into());
    Given { records: records(), refused: vec![("a", refused)], ..Given::default() }.check(&["report a #1 Failed Resources"]);
}

#[test]
fn what_is_not_drovers_is_left_alone() {
    let mut foreign = running("a", "i1");
    foreign.task = None;
    Given {
        records: vec![assigned(vec![wanted("a", None)])],
        units: vec![foreign],
        has_heard_leader: true,
        ..Given::default()
    }
    .check(&["report a #1 Error BadUnit"]);
}

#[test]
fn many_starts_at_once_are_spread_over_slices() {
    let names: Vec<String> = (0..130).map(|n| format!("t{n:03}")).collect();
    let mut ledger = Ledger::default();
    ledger.apply(&assigned(names.iter().map(|name| wanted(name, None)).collect()));
    let view = View {
        ledger: &ledger,
        units: &BTreeMap::new(),
        busy: &BTreeSet::new(),
        evidence: &BTreeMap::new(),
        unanswered: &BTreeSet::new(),
        refused: &BTreeMap::new(),
        starts_max: 200,
        facts: &facts("b1"),
        has_heard_leader: true,
        now: Timestamp(1),
    };
    let actions = reconcile(&view);
    let second = actions.iter().filter(|action| tell(action).ends_with("drover-apps-web-_1.slice")).count();
    assert_eq!(second, 30);
    let few: Vec<String> = reconcile(&View { starts_max: 1, ..view }).iter().map(tell).collect();
    assert_eq!(few, ["start t000 in drover-apps-web.slice", "report t000 #1 Starting Normal"], "the others wait untouched");
}

/// A machine, its journal and the masters, as far as they matter here.
#[derive(Default)]
struct Node {
    /// On disk.
    records: Vec<Record>,
    /// systemd.
    units: BTreeMap<String, ObservedUnit>,
    journal: BTreeMap<String, Evidence>,
    boot: u32,
    invocations: u32,
    /// How often each task's program was executed.
    executed: BTreeMap<TaskId, u32>,
    /// The leader.
    generation: u64,
    wishes: BTreeMap<TaskId, Option<String>>,
    statuses: BTreeMap<TaskId, TaskStatus>,
    /// Lost with the agent's process.
    evidence: BTreeMap<TaskId, Evidence>,
    unanswered: BTreeSet<TaskId>,
    has_heard_leader: bool,
}

/// Something that happens.
#[derive(Debug, Clone)]
enum Step {
    Assign(u8),
    Kill(u8),
    Expunge(u8),
    End(u8, i32),
    StopByHand(u8),
    RestartByHand(u8),
    /// One pass, cut off after so many actions, and in the middle of the next.
    Pass(u8, bool),
    Acknowledge,
    HearLeader,
    AgentCrash,
    BusLoss,
    Reboot,
    Compact,
}

impl Node {
    fn boot(&self) -> String {
        format!("boot{}", self.boot)
    }

    fn ledger(&self) -> Ledger {
        let mut ledger = Ledger::default();
        self.records.iter().for_each(|record| ledger.apply(record));
        ledger
    }

    fn step(&mut self, step: &Step) {
        let task = |n: u8| id(&format!("t{n}"));
        match step {
            Step::Assign(n) => {
                // A task id is never used twice.
                if !self.statuses.contains_key(&task(*n)) && !self.wishes.contains_key(&task(*n)) {
                    self.wishes.insert(task(*n), None);
                    self.generation += 1;
                }
            }
            Step::Kill(n) => {
                if let Some(kill) = self.wishes.get_mut(&task(*n)) {
                    *kill = Some("asked".into());
                    self.generation += 1;
                }
            }
            Step::Expunge(n) => {
                if self.wishes.remove(&task(*n)).is_some() {
                    self.generation += 1;
                    let status = TaskStatus { state: TaskState::Gone, ..blank(task(*n)) };
                    self.statuses.entry(task(*n)).or_insert(status);
                }
            }
            Step::End(n, code) => {
                if let Some(unit) = self.units.get_mut(&unit_name(&task(*n))).filter(|unit| unit.sub == "running") {
                    let invocation = unit.invocation.clone().unwrap();
                    *unit = if *code == 0 {
                        exited(task(*n).as_str(), &invocation)
                    } else {
                        failed(task(*n).as_str(), &invocation, *code)
                    };
                }
            }
            Step::StopByHand(n) => {
                if let Some(unit) = self.units.remove(&unit_name(&task(*n))) {
                    self.journal.insert(unit.name, Evidence::Stopped);
                    self.journal.insert(unit.invocation.unwrap(), Evidence::Stopped);
                }
            }
            Step::RestartByHand(n) => {
                if let Some(unit) = self.units.remove(&unit_name(&task(*n))) {
                    self.journal.insert(unit.invocation.unwrap(), Evidence::Stopped);
                    self.invocations += 1;
                    let again = running(task(*n).as_str(), &format!("i{}", self.invocations));
                    self.units.insert(again.name.clone(), again);
                }
            }
            Step::Pass(count, call_is_made) => self.pass(usize::from(*count), *call_is_made),
            Step::Acknowledge => self.acknowledge(),
            Step::HearLeader => self.hear_leader(),
            Step::AgentCrash => self.crash(),
            Step::BusLoss => self.evidence.clear(),
            Step::Reboot => {
                self.crash();
                self.boot += 1;
                self.units.clear();
            }
            Step::Compact => self.records = self.ledger().compacted(),
        }
    }

    fn crash(&mut self) {
        self.evidence.clear();
        self.unanswered.clear();
        self.has_heard_leader = false;
    }

    fn hear_leader(&mut self) {
        self.has_heard_leader = true;
        let tasks = self.wishes.iter().map(|(id, kill)| wanted(id.as_str(), kill.as_deref())).collect();
        if self.ledger().accepts(self.generation, true) {
            self.records.push(Record::Assigned { generation: self.generation, full: true, tasks, removed: vec![] });
        }
    }

    fn acknowledge(&mut self) {
        for (id, task) in self.ledger().tasks {
            let Some(status) = task.status else { continue };
            if let Some(known) = self.statuses.get(&id)
                && known.state.is_terminal()
            {
                assert!(status.state.is_terminal() || known.state == TaskState::Gone, "{id} came back to life: {status:?}");
            }
            if status.state.is_terminal() && self.wishes.remove(&id).is_some() {
                self.generation += 1;
            }
            self.records.push(Record::Acknowledged { task: id.clone(), seq: status.seq });
            self.statuses.insert(id, status);
        }
    }

    fn pass(&mut self, count: usize, call_is_made: bool) {
        let ledger = self.ledger();
        let actions = reconcile(&View {
            ledger: &ledger,
            units: &self.units,
            busy: &BTreeSet::new(),
            evidence: &self.evidence,
            unanswered: &self.unanswered,
            refused: &BTreeMap::new(),
            starts_max: 2,
            facts: &facts(&self.boot()),
            has_heard_leader: self.has_heard_leader,
            now: Timestamp(1),
        });
        for (at, action) in actions.iter().enumerate() {
            let is_last = at == count;
            match action {
                UnitAction::Start { task, plan, .. } => {
                    self.records.push(Record::Starting { task: task.clone(), boot: self.boot() });
                    self.evidence.remove(task);
                    self.unanswered.remove(task);
                    if !is_last || call_is_made {
                        self.start(task, &plan.name);
                    }
                    // The answer is lost with the bus, not with the agent; whether the call arrived is not known.
                    if is_last {
                        self.unanswered.insert(task.clone());
                    }
                }
                UnitAction::Adopt { task, invocation, .. } => {
                    let (task, invocation) = (task.clone(), invocation.clone());
                    self.records.push(Record::Started { task, boot: self.boot(), invocation });
                }
                UnitAction::Stop { task, unit, .. } => {
                    if let Some(task) = task
                        && let Phase::Started { invocation, .. } = &ledger.tasks[task].phase
                    {
                        assert_eq!(
                            self.units[unit].invocation.as_ref(),
                            Some(invocation),
                            "stopped a start that is not on record"
                        );
                    }
                    assert!(task.is_some() || self.has_heard_leader, "stopped a stray before a leader was heard");
                    let ended = self.units.remove(unit).unwrap();
                    self.journal.insert(ended.invocation.unwrap(), Evidence::Stopped);
                }
                UnitAction::Report { status } => {
                    let last = ledger.tasks[&status.task].status.as_ref();
                    assert_eq!(status.seq, last.map_or(1, |last| last.seq + 1));
                    self.records.push(Record::Status(status.clone()));
                }
                UnitAction::Clean { unit, .. } => {
                    let unit = self.units.remove(unit).unwrap();
                    let on_record = ledger.tasks.get(unit.task.as_ref().unwrap());
                    assert!(on_record.is_none_or(LedgerTask::has_ended), "an end was let go before it was on record");
                }
                UnitAction::Investigate { task, invocation, .. } => {
                    let name = unit_name(task);
                    let found = self.journal.get(invocation.as_ref().unwrap_or(&name));
                    self.evidence.insert(task.clone(), found.cloned().unwrap_or(Evidence::Nothing));
                }
                UnitAction::Forget { task, .. } => {
                    self.records.push(Record::Forgotten { task: task.clone(), at: Timestamp(1) });
                }
            }
            if is_last {
                break;
            }
        }
        for (id, task) in &self.ledger().tasks {
            if task.has_ended() {
                self.evidence.remove(id);
            }
        }
    }

    fn start(&mut self, task: &TaskId, name: &str) {
        if self.units.contains_key(name) {
            return;
        }
        self.invocations += 1;
        self.units.insert(name.to_owned(), running(task.as_str(), &format!("i{}", self.invocations)));
        *self.executed.entry(task.clone()).or_default() += 1;
        assert_eq!(self.executed[task], 1, "{task} was executed twice");
    }

    fn settle(&mut self) {
        for _ in 0..15 {
            self.hear_leader();
            self.pass(usize::MAX, true);
            self.acknowledge();
        }
        let ledger = self.ledger();
        for (id, kill) in &self.wishes {
            assert_eq!(kill, &None, "{id} was never killed");
            let unit = &self.units[&unit_name(id)];
            assert_eq!((unit.sub.as_str(), self.statuses[id].state), ("running", TaskState::Running), "{id}");
        }
        for unit in self.units.values() {
            assert!(self.wishes.contains_key(unit.task.as_ref().unwrap()), "{} is left over", unit.name);
        }
        assert!(ledger.tasks.keys().eq(self.wishes.keys()), "the ledger forgets what is over: {:?}", ledger.tasks.keys());
    }
}

fn blank(task: TaskId) -> TaskStatus {
    TaskStatus {
        task,
        seq: 0,
        state: TaskState::Staging,
        reason: Reason::Normal,
        message: String::new(),
        at: Timestamp(0),
        exit: None,
        invocation: None,
        usage: None,
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6u8).prop_map(Step::Assign),
        2 => (0..6u8).prop_map(Step::Kill),
        1 => (0..6u8).prop_map(Step::Expunge),
        3 => ((0..6u8), (0..2i32)).prop_map(|(n, code)| Step::End(n, code)),
        1 => (0..6u8).prop_map(Step::StopByHand),
        1 => (0..6u8).prop_map(Step::RestartByHand),
        8 => ((0..6u8), any::<bool>()).prop_map(|(count, made)| Step::Pass(count, made)),
        4 => Just(Step::Acknowledge),
        4 => Just(Step::HearLeader),
        2 => Just(Step::AgentCrash),
        1 => Just(Step::BusLoss),
        1 => Just(Step::Reboot),
        1 => Just(Step::Compact),
    ]
}

proptest! {
    /// Whatever happens, nothing runs twice, nothing ends unrecorded; and when it stops happening, all is as wished.
    #[test]
    fn faults_neither_lose_nor_double_a_task(steps in prop::collection::vec(step(), 1..80)) {
        let mut node = Node::default();
        for step in &steps {
            node.step(step);
        }
        node.settle();
    }
}
