//! What the mind promises whoever carries it. What it promises a cluster is seen in the simulation.

use super::*;
use crate::sandbox::Manager;
use crate::task::{Owner, Program, TaskSpec, TaskState};
use std::convert::Infallible;

fn at(millis: u64) -> Now {
    Now { time: Timestamp(1_000_000), steady: Duration::from_millis(millis) }
}

fn spec() -> TaskSpec {
    TaskSpec {
        owner: Owner::App { app: crate::ids::AppId::parse("/web").unwrap(), version: Timestamp(1) },
        program: Program::Shell("true".into()),
        user: None,
        env: BTreeMap::new(),
        resources: crate::resources::Scalars::default(),
        kill_grace: Millis(3000),
        run_time_max: None,
        properties: BTreeMap::new(),
    }
}

fn node() -> Node {
    let facts = NodeFacts {
        boot: String::new(),
        systemd: 252,
        manager: Manager::System,
        task_slice: "drover.slice".into(),
        state_root: "/var/lib".into(),
        enforces: BTreeSet::new(),
    };
    let mut node = Node::new(Ledger::default(), facts, "boot".into(), at(0));
    assert_eq!(settle(&mut node), [Effect::Connect]);
    node
}

fn settle(node: &mut Node) -> Vec<Effect> {
    node.put_on_record(|_, _| Ok::<_, Infallible>(())).unwrap()
}

fn assign(node: &mut Node, generation: u64, tasks: &[&str]) -> Result<(), Ignored> {
    let wanted = |id: &&str| WantedTask { id: TaskId::new(*id), spec: spec(), kill: None, told: 0 };
    let tasks = tasks.iter().map(wanted).collect();
    node.take_in(Input::Assigned(Assignment { generation, full: true, tasks, removed: vec![] }), at(0))
}

#[test]
fn nothing_is_done_before_it_is_on_disk() {
    let mut node = node();
    node.take_in(Input::Done(Done::Connected { began_at: 1, units: vec![] }), at(0)).unwrap();
    node.take_in(Input::Connected, at(0)).unwrap();
    assign(&mut node, 1, &["a"]).unwrap();
    node.turn(at(10));
    assert_eq!(node.take_statuses(at(50)), [], "what it would say is not on disk");
    node.put_on_record(|_, _| Err("the disk is full")).expect_err("and nothing is let go");
    let mut written = Vec::new();
    let effects = node.put_on_record(|records, ledger| {
        written = records.to_vec();
        assert_eq!(ledger.generation, 1);
        Ok::<_, Infallible>(())
    });
    let starting = Record::Starting { task: TaskId::new("a"), boot: "boot/1".into() };
    assert!(written.contains(&starting), "{written:?}");
    assert!(matches!(&effects.unwrap()[..], [Effect::Start { task, .. }] if task.as_str() == "a"));
    let told: Vec<TaskState> = node.take_statuses(at(50)).iter().map(|status| status.state).collect();
    assert_eq!(told, [TaskState::Starting]);
}

#[test]
fn nothing_is_told_before_systemd_was_looked_at() {
    let mut node = node();
    node.take_in(Input::Connected, at(0)).unwrap();
    assert_eq!(node.tell_at(), None);
    assign(&mut node, 1, &["a"]).unwrap();
    node.turn(at(10));
    assert_eq!(settle(&mut node), []);
    assert_eq!(node.tell_at(), None);
    node.take_in(Input::Done(Done::Connected { began_at: 1, units: vec![] }), at(20)).unwrap();
    node.turn(at(20));
    assert_eq!(settle(&mut node).len(), 1, "a start");
    assert_eq!(node.tell_at(), Some(Duration::from_millis(40)), "after others had the time to join in");
}

/// The bus went while systemd was asked for a unit, and systemd makes it later, just when the journal is asked.
#[test]
fn a_unit_that_is_made_after_its_answer_was_lost_is_the_task_s() {
    let (mut node, task) = (node(), TaskId::new("a"));
    let unit = unit_name(&task);
    node.take_in(Input::Done(Done::Connected { began_at: 1, units: vec![] }), at(0)).unwrap();
    assign(&mut node, 1, &["a"]).unwrap();
    node.turn(at(10));
    assert!(matches!(&settle(&mut node)[..], [Effect::Start { .. }]));
    node.take_in(Input::BusLost, at(20)).unwrap();
    let outcome = StartOutcome::NoAnswer;
    node.take_in(Input::Done(Done::Started { task: task.clone(), unit: unit.clone(), outcome }), at(20)).unwrap();
    node.take_in(Input::Done(Done::Connected { began_at: 1, units: vec![] }), at(30)).unwrap();
    node.take_in(Input::Tick, at(30)).unwrap();
    node.turn(at(40));
    assert!(matches!(&settle(&mut node)[..], [Effect::Connect, Effect::Investigate { .. }]));

    let invocation = Some("i1".to_owned());
    let appears = UnitPatch {
        active: Some(ActiveState::Active),
        sub: Some("running".into()),
        was_active: Some(true),
        invocation: Some(invocation.clone()),
        is_loaded: Some(true),
        ..UnitPatch::default()
    };
    let units = BTreeMap::from([(unit.clone(), appears)]);
    node.take_in(Input::News { units, must_relist: false }, at(50)).unwrap();
    let evidence = Some(Evidence::Nothing);
    node.take_in(Input::Done(Done::Investigated { task: task.clone(), unit: unit.clone(), evidence }), at(60)).unwrap();
    node.turn(at(70));
    assert!(matches!(&settle(&mut node)[..], [Effect::Start { .. }]), "{:?}", node.ledger().tasks[&task].status);
    let outcome = StartOutcome::Exists;
    node.take_in(Input::Done(Done::Started { task: task.clone(), unit: unit.clone(), outcome }), at(80)).unwrap();
    assert_eq!(settle(&mut node), [Effect::Observe { unit: unit.clone() }]);
    let seen = ObservedUnit {
        name: unit.clone(),
        is_loaded: true,
        active: ActiveState::Active,
        sub: "running".into(),
        was_active: true,
        invocation,
        task: Some(task.clone()),
        ..ObservedUnit::default()
    };
    node.take_in(Input::Done(Done::Observed { unit, outcome: Ok(Some(Box::new(seen))) }), at(90)).unwrap();
    node.turn(at(100));
    let status = node.ledger().tasks[&task].status.as_ref();
    assert_eq!(status.map(|status| status.state), Some(TaskState::Running));
}

#[test]
fn an_older_assignment_is_ignored_and_the_same_one_is_no_news() {
    let mut node = node();
    assign(&mut node, 2, &["a"]).unwrap();
    assert_eq!(assign(&mut node, 1, &[]), Err(Ignored::OlderAssignment { offered: 1, held: 2 }));
    settle(&mut node);
    assign(&mut node, 2, &["a"]).unwrap();
    node.put_on_record(|records, _| -> Result<(), Infallible> { panic!("{records:?}") }).unwrap();
}

#[test]
fn a_dialer_asks_each_once_a_round_and_follows_who_names_the_leader() {
    let mut dialer = Dialer::new(["a", "b", "c"].map(str::to_owned).into());
    let dial = |dialer: &mut Dialer| match dialer.next(Duration::ZERO, 0) {
        Next::Dial { master, .. } => master,
        Next::Wait(wait) => format!("wait {wait:?}"),
    };
    assert_eq!(dial(&mut dialer), "a");
    dialer.left("a", Left::NotLeading(Some("c".into())), Duration::ZERO);
    assert_eq!(dial(&mut dialer), "c");
    dialer.left("c", Left::Failed, Duration::ZERO);
    assert_eq!(dial(&mut dialer), "b");
    dialer.left("b", Left::NotLeading(Some("c".into())), Duration::ZERO);
    assert_eq!(dial(&mut dialer), "wait 200ms");
    assert_eq!(dial(&mut dialer), "a");
    dialer.welcomed("a", vec!["d".into(), "b".into()]);
    dialer.left("a", Left::Lost, Duration::ZERO);
    assert_eq!(dial(&mut dialer), "wait 100ms", "soon, since it was connected");
    assert_eq!(dial(&mut dialer), "d", "what led a moment ago comes last");
    // Nobody else answers yet; a follower that has not noticed names the one that is lost.
    dialer.left("d", Left::NotLeading(Some("a".into())), Duration::ZERO);
    assert_eq!([dial(&mut dialer), dial(&mut dialer), dial(&mut dialer)], ["b", "c", "a"]);
}

#[test]
fn a_conversation_beats_and_ends_by_silence() {
    let second = Duration::from_secs(1);
    let mut conversation = Conversation::new(Duration::ZERO);
    assert_eq!(conversation.due(Duration::ZERO), Some(Due::Heartbeat));
    conversation.welcomed(Millis(1000), second);
    assert_eq!((conversation.due(second), conversation.due(second)), (Some(Due::Heartbeat), None));
    conversation.heard(second);
    assert_eq!(conversation.due_at(), second * 2);
    assert_eq!(conversation.due(second * 4), Some(Due::Silent(second * 3)));
}
