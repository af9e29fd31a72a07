//! The leader's mind against simulated agents under virtual time: no socket, no systemd, no waiting. What an agent does is
//! reduced to its promises: it starts what it is assigned, ends what it is told to, and says so.

use super::session::{Answer, Ended, Heard, Say, Session};
use super::*;
use crate::agent::{AgentInfo, unreserved};
use crate::app::{Backoff, Constraint, KillSelection, Operator, Program, UnreachableStrategy, UpgradeStrategy};
use crate::change::{self, Edit};
use crate::ids::DeploymentId;
use crate::job::{Job, Trigger};
use crate::resources::Ports;
use crate::runs;
use crate::schedule;
use crate::state::{Applied, ClusterVersion};
use crate::task::{Reason, Task, TaskState, TaskStatus};
use std::collections::BTreeMap;

struct Sim {
    state: ClusterState,
    known: Knowledge,
    now: Timestamp,
    ids: u64,
    /// Agents that are cut off: they hear nothing and are not heard.
    cut: BTreeSet<AgentId>,
    /// Tasks that exit right after they started.
    crashing: bool,
    /// Every start of a run's task: (task, slot).
    run_starts: Vec<TaskId>,
    /// What runs on each agent, whatever the masters believe.
    running: BTreeMap<AgentId, BTreeMap<TaskId, u64>>,
    waiting: BTreeMap<Request, Waiting>,
}

impl Sim {
    fn new(hosts: &[&str]) -> Self {
        let mut sim = Self {
            state: ClusterState::default(),
            known: Knowledge {
                heard: BTreeMap::new(),
                leading_since: Duration::from_secs(1000),
                agent_timeout: Millis::from_secs(15),
                waiting: BTreeMap::new(),
            },
            now: Timestamp(1_000_000),
            ids: 0,
            cut: BTreeSet::new(),
            crashing: false,
            run_starts: Vec::new(),
            running: BTreeMap::new(),
            waiting: BTreeMap::new(),
        };
        for host in hosts {
            sim.connect(host);
        }
        sim
    }

    fn connect(&mut self, host: &str) {
        let scalars = Scalars { cpus_milli: 4000, mem_bytes: 8 << 30, disk_bytes: 10 << 30, gpus: 0 };
        let info = AgentInfo {
            id: AgentId::new(host),
            host: host.to_owned(),
            boot_id: "boot".into(),
            resources: unreserved(scalars, Ports::from_ranges([(31000, 31999)])),
            attributes: [("rack".to_owned(), host[..1].to_owned())].into(),
            systemd: 252,
            version: "0".into(),
            enforces: BTreeSet::new(),
            tasks_max: crate::agent::TASKS_MAX,
        };
        self.running.entry(info.id.clone()).or_default();
        assert_eq!(self.apply(Command::AdmitAgent { info: Box::new(info), at: self.now }).result, Ok(()));
    }

    fn apply(&mut self, command: Command) -> Applied {
        // What apply does must not depend on what is derived: a copy that went through a snapshot does the same.
        let mut copy: ClusterState = serde_json::from_str(&serde_json::to_string(&self.state).unwrap()).unwrap();
        copy.rebuild_indexes();
        let applied = self.state.apply(&command);
        assert_eq!(copy.apply(&command), applied);
        assert!(copy == self.state, "a master restored from a snapshot differs after {command:?}");
        self.check_invariants();
        applied
    }

    fn check_invariants(&self) {
        for agent in self.state.agents.values() {
            let held = self.state.tasks_of_agent(&agent.info.id).map(|task| task.allocation.total());
            let held = held.fold(Scalars::default(), Scalars::plus);
            assert!(agent.info.resources.total().hold(&held), "agent {} is over-committed: {held:?}", agent.info.id);
            assert!(
                self.state.tasks_of_agent(&agent.info.id).count() <= agent.info.tasks_max as usize,
                "more tasks than it takes"
            );
            let mut ports: Vec<u16> =
                self.state.tasks_of_agent(&agent.info.id).flat_map(|t| t.allocation.ports.clone()).collect();
            let all = ports.len();
            ports.sort_unstable();
            ports.dedup();
            assert_eq!(all, ports.len(), "a port was given out twice");
        }
    }

    /// A new leader takes over: it knows the replicated state and nothing else.
    fn new_leader(&mut self) {
        self.known = Knowledge {
            heard: BTreeMap::new(),
            leading_since: self.clock().steady,
            agent_timeout: self.known.agent_timeout,
            waiting: BTreeMap::new(),
        };
    }

    /// Decides and lets agents act until nothing changes any more.
    fn settle(&mut self) {
        for _ in 0..1000 {
            if !self.step() {
                return;
            }
        }
        panic!("it never settles: {:?}", self.state.tasks.values().map(|t| (&t.id, t.state)).collect::<Vec<_>>());
    }

    fn step(&mut self) -> bool {
        let steady = self.clock().steady;
        for id in self.running.keys().filter(|id| !self.cut.contains(*id)) {
            self.known.heard.insert(id.clone(), steady);
        }
        let mut ids = self.ids;
        let decision = decide(&self.state, &self.known, self.clock(), &mut || {
            ids += 1;
            format!("id{ids}")
        });
        self.ids = ids;
        self.known.waiting.clone_from(&decision.waiting);
        self.waiting = decision.waiting;
        let mut changed = !decision.commands.is_empty();
        for command in decision.commands {
            let applied = self.apply(command.clone());
            assert_eq!(applied.result, Ok(()), "nothing came between, so nothing is stale: {command:?}");
        }
        changed |= self.agents_act();
        changed
    }

    fn agents_act(&mut self) -> bool {
        let mut statuses = Vec::new();
        for (agent, running) in self.running.iter_mut().filter(|(agent, _)| !self.cut.contains(*agent)) {
            let assigned: BTreeMap<TaskId, bool> =
                self.state.tasks_of_agent(agent).map(|task| (task.id.clone(), task.kill.is_some())).collect();
            running.retain(|id, _| assigned.contains_key(id));
            for task in self.state.tasks_of_agent(agent) {
                let ends = task.kill.is_some();
                let seq = running.get(&task.id).copied().unwrap_or(task.seq);
                let state = match (ends, task.state) {
                    (true, _) => TaskState::Killed,
                    (false, TaskState::Running) => continue,
                    (false, _) if self.crashing => TaskState::Failed,
                    (false, _) => TaskState::Running,
                };
                if !ends && !running.contains_key(&task.id) && matches!(task.spec.owner, Owner::Run { .. }) {
                    self.run_starts.push(task.id.clone());
                }
                statuses.push((agent.clone(), task.id.clone(), seq + 1, state));
                if state == TaskState::Running {
                    running.insert(task.id.clone(), seq + 1)
                } else {
                    running.remove(&task.id)
                };
            }
        }
        let changed = !statuses.is_empty();
        for (agent, task, seq, state) in statuses {
            self.report(&agent, &task, seq, state);
        }
        changed
    }

    fn report(&mut self, agent: &AgentId, task: &TaskId, seq: u64, state: TaskState) {
        let status = Box::new(self.status(task, seq, state));
        let command = Command::RecordStatus { agent: agent.clone(), status, at: self.now };
        assert_eq!(self.apply(command).result, Ok(()));
    }

    fn status(&self, task: &TaskId, seq: u64, state: TaskState) -> TaskStatus {
        TaskStatus {
            task: task.clone(),
            seq,
            state,
            reason: Reason::Normal,
            message: String::new(),
            at: self.now,
            exit: None,
            invocation: None,
            usage: None,
        }
    }

    /// Ends every live task of a job with success.
    fn finish_runs(&mut self) {
        let live: Vec<_> = self
            .state
            .tasks
            .values()
            .filter(|task| task.state == TaskState::Running && matches!(task.spec.owner, Owner::Run { .. }))
            .map(|task| (task.agent.clone(), task.id.clone(), task.seq + 1))
            .collect();
        for (agent, task, seq) in live {
            if let Some(running) = self.running.get_mut(&agent) {
                running.remove(&task);
            }
            self.report(&agent, &task, seq, TaskState::Finished);
        }
    }

    fn clock(&self) -> Now {
        Now { time: self.now, steady: Duration::from_millis(self.now.0 as u64) }
    }

    fn pass(&mut self, millis: u64) {
        self.now = self.now + Millis(millis);
    }

    fn put(&mut self, edit: impl FnOnce(&mut App)) {
        let id = AppId::parse("/web").unwrap();
        let mut app = self.state.apps.get(&id).map_or_else(|| web(&id), |record| record.app.clone());
        edit(&mut app);
        self.ids += 1;
        let request = change::Request {
            edits: [(id, Edit::Put(Box::new(app)))].into(),
            force: false,
            preselected: BTreeSet::new(),
            deployment: DeploymentId::new(format!("d{}", self.ids)),
            now: self.now,
        };
        let command = change::plan(&self.state, request).expect("the change can be planned").command();
        assert_eq!(self.apply(command).result, Ok(()));
    }

    fn hosts(&self) -> Vec<&str> {
        let mut hosts: Vec<_> = self.state.tasks.values().map(|task| task.host.as_str()).collect();
        hosts.sort_unstable();
        hosts
    }

    fn really_running(&self) -> usize {
        self.running.values().map(BTreeMap::len).sum()
    }
}

fn web(id: &AppId) -> App {
    App {
        id: id.clone(),
        program: Program::Shell("exec web".into()),
        user: None,
        instances: 3,
        resources: Scalars { cpus_milli: 500, mem_bytes: 128 << 20, ..Scalars::default() },
        env: BTreeMap::new(),
        labels: BTreeMap::new(),
        ports: vec![PortDefinition { port: 0, protocol: "tcp".into(), name: None, labels: BTreeMap::new() }],
        require_ports: false,
        constraints: vec![],
        backoff: Backoff { initial: Millis(1000), factor_milli: 2000, max: Millis::from_secs(300) },
        kill_grace: None,
        kill_selection: KillSelection::YoungestFirst,
        upgrade: UpgradeStrategy { min_health_milli: 1000, max_over_milli: 1000 },
        unreachable: UnreachableStrategy::After { inactive: Millis(0), expunge: Millis(0) },
        accepted_roles: BTreeSet::new(),
        role: Role::any(),
        dependencies: BTreeSet::new(),
        properties: BTreeMap::new(),
        version: Timestamp(0),
        last_scaling_at: Timestamp(0),
        last_config_change_at: Timestamp(0),
    }
}

fn job(name: &str, schedule_text: &str, now: Timestamp) -> Job {
    Job {
        name: crate::ids::JobName::parse(name).unwrap(),
        trigger: Trigger::Schedule(schedule::parse(schedule_text, "", now).unwrap()),
        program: Program::Shell("true".into()),
        arguments: vec![],
        retries: 2,
        retry_delay: Millis::from_secs(60),
        epsilon: Millis::from_secs(60),
        resources: crate::job::JOB_RESOURCES_DEFAULT,
        disabled: false,
        concurrent: false,
        soft_error: false,
        high_priority: false,
        user: None,
        env: BTreeMap::new(),
        constraints: vec![],
        run_time_max: None,
        properties: BTreeMap::new(),
        owner: String::new(),
        owner_name: String::new(),
        description: String::new(),
        changed_at: now,
    }
}

#[test]
fn three_instances_spread_over_three_nodes_and_scale() {
    let mut sim = Sim::new(&["a1", "b1", "c1"]);
    sim.put(|_| {});
    sim.settle();
    assert_eq!(sim.hosts(), ["a1", "b1", "c1"]);
    assert!(sim.state.deployments.is_empty(), "the deployment is over");
    sim.pass(1000);
    sim.put(|app| app.instances = 10);
    sim.settle();
    assert_eq!((sim.state.tasks.len(), sim.really_running()), (10, 10));
    sim.pass(1000);
    sim.put(|app| app.instances = 0);
    sim.settle();
    assert_eq!((sim.state.tasks.len(), sim.really_running()), (0, 0));
}

#[test]
fn an_update_never_falls_below_the_minimum() {
    for (min, over, least) in [(1000, 1000, 4), (1000, 0, 4), (500, 0, 2), (500, 500, 2), (0, 0, 0)] {
        let mut sim = Sim::new(&["a1", "b1"]);
        sim.put(|app| {
            app.instances = 4;
            app.upgrade = UpgradeStrategy { min_health_milli: min, max_over_milli: over };
        });
        sim.settle();
        let old: BTreeSet<TaskId> = sim.state.tasks.keys().cloned().collect();
        sim.pass(1000);
        sim.put(|app| app.program = Program::Shell("exec web2".into()));
        let most = 4 + 4 * over as usize / 1000 + usize::from(min == 1000 && over == 0);
        while sim.step() {
            let up = sim.state.tasks.values().filter(|task| task.is_running()).count();
            assert!(up >= least, "{up} up with {min}/{over}");
            assert!(sim.state.tasks.len() <= most, "{} at once with {min}/{over}", sim.state.tasks.len());
        }
        assert_eq!(sim.really_running(), 4);
        assert!(sim.state.tasks.keys().all(|id| !old.contains(id)), "every instance was replaced");
        assert!(sim.state.deployments.is_empty());
    }
}

#[test]
fn a_lost_node_s_instances_run_elsewhere_and_its_return_leaves_no_duplicate() {
    let mut sim = Sim::new(&["a1", "b1", "c1"]);
    sim.put(|_| {});
    sim.settle();
    let lost = AgentId::new("a1");
    sim.cut.insert(lost.clone());
    sim.pass(10_000);
    sim.settle();
    assert_eq!(sim.hosts(), ["a1", "b1", "c1"], "ten seconds are no loss");
    sim.pass(10_000);
    sim.settle();
    assert!(!sim.hosts().contains(&"a1"));
    assert_eq!(sim.state.tasks.len(), 3);
    assert_eq!(sim.really_running(), 4, "the lost node still runs its own");
    sim.cut.clear();
    sim.connect("a1");
    sim.settle();
    assert_eq!((sim.state.tasks.len(), sim.really_running()), (3, 3));
}

#[test]
fn a_patient_app_keeps_its_instance_when_the_node_returns_in_time() {
    let mut sim = Sim::new(&["a1", "b1"]);
    let after = |inactive, expunge| UnreachableStrategy::After { inactive: Millis(inactive), expunge: Millis(expunge) };
    sim.put(|app| {
        app.instances = 2;
        app.unreachable = after(60_000, 120_000);
    });
    sim.settle();
    let before: BTreeSet<TaskId> = sim.state.tasks.keys().cloned().collect();
    sim.cut.insert(AgentId::new("a1"));
    sim.pass(20_000);
    sim.settle();
    assert!(sim.state.tasks.values().any(|task| task.state == TaskState::Unreachable));
    sim.cut.clear();
    sim.connect("a1");
    sim.settle();
    assert_eq!(sim.state.tasks.keys().cloned().collect::<BTreeSet<_>>(), before, "nothing was replaced");
    // Longer than inactive: replaced; back before expunge: the surplus is ended.
    sim.cut.insert(AgentId::new("a1"));
    sim.pass(20_000);
    sim.settle();
    sim.pass(70_000);
    sim.settle();
    assert_eq!(sim.state.tasks.len(), 3);
    sim.cut.clear();
    sim.connect("a1");
    sim.settle();
    assert_eq!((sim.state.tasks.len(), sim.really_running()), (2, 2));
}

#[test]
fn a_dying_app_waits_longer_each_time() {
    let mut sim = Sim::new(&["a1"]);
    sim.crashing = true;
    sim.put(|app| app.instances = 1);
    let mut launches = Vec::new();
    let start = sim.now;
    for _ in 0..16_000 {
        let before = sim.ids;
        sim.settle();
        if sim.ids > before && sim.state.apps.values().any(|r| r.failures.count as usize > launches.len()) {
            launches.push(sim.now.since(start).0);
        }
        sim.pass(1);
    }
    assert_eq!(launches, [0, 1000, 3000, 7000, 15_000], "delays of 1, 2, 4, 8 seconds");
    let request = Request::App(AppId::parse("/web").unwrap());
    assert!(sim.waiting[&request].delayed_until.is_some(), "and it says what it waits for");
}

#[test]
fn what_has_no_place_says_why_for_each_node() {
    let mut sim = Sim::new(&["a1", "b1"]);
    sim.put(|app| {
        app.constraints = vec![Constraint { field: "hostname".into(), operator: Operator::Unique, value: None }];
    });
    sim.settle();
    let waiting = &sim.waiting[&Request::App(AppId::parse("/web").unwrap())];
    assert_eq!(waiting.count, 1);
    assert_eq!(waiting.agents.len(), 2);
    assert!(waiting.agents.values().all(|reasons| matches!(reasons.as_slice(), [Against::Constraint { .. }])));
}

#[test]
fn a_node_is_given_no_more_tasks_than_it_takes_and_says_so() {
    let mut sim = Sim::new(&["a1", "b1"]);
    for (id, most) in [("a1", 2), ("b1", 3)] {
        let mut info = sim.state.agents[&AgentId::new(id)].info.clone();
        info.tasks_max = most;
        assert_eq!(sim.apply(Command::AdmitAgent { info: Box::new(info), at: sim.now }).result, Ok(()));
    }
    sim.put(|app| app.instances = 7);
    sim.settle();
    assert_eq!(sim.hosts(), ["a1", "a1", "b1", "b1", "b1"]);
    let waiting = &sim.waiting[&Request::App(AppId::parse("/web").unwrap())];
    assert_eq!(waiting.count, 2);
    let reasons: Vec<_> = waiting.agents.values().flatten().collect();
    assert_eq!(reasons, [&Against::Tasks { most: 2 }, &Against::Tasks { most: 3 }]);
}

#[test]
fn every_slot_of_a_job_runs_once_whoever_leads() {
    let mut sim = Sim::new(&["a1", "b1"]);
    let definition = job("tick", "R//PT1S", sim.now);
    let Trigger::Schedule(schedule) = &definition.trigger else { panic!("it has a schedule") };
    let (next, remaining) = runs::first_slot(schedule, sim.now);
    let put = Command::PutJob { job: Box::new(definition), next, remaining, based_on: None, at: sim.now };
    assert_eq!(sim.apply(put).result, Ok(()));
    for tick in 0..120u64 {
        // Now and then nobody leads for up to five seconds, and then somebody else does.
        if tick % 20 == 19 {
            sim.pass(tick % 7 * 700);
            sim.new_leader();
        }
        sim.settle();
        sim.finish_runs();
        sim.settle();
        sim.pass(500);
    }
    for _ in 0..20 {
        sim.settle();
        sim.finish_runs();
    }
    let slot = |task: &TaskId| task.as_str().split(':').nth(1).and_then(|ms| ms.parse::<i64>().ok()).expect("ct:<slot>:…");
    let slots: Vec<i64> = sim.run_starts.iter().map(slot).collect();
    assert!(slots.len() > 50, "{} slots", slots.len());
    for pair in slots.windows(2) {
        assert_eq!(pair[1] - pair[0], 1000, "slots follow each other without gap or repeat");
    }
}

#[test]
fn a_leader_proposes_nothing_that_the_cluster_s_version_does_not_know() {
    let mut sim = Sim::new(&["a1"]);
    sim.put(|_| {});
    sim.state.version = ClusterVersion(0);
    assert!(!sim.step(), "nothing is known to version 0");
    sim.state.version = ClusterVersion(1);
    assert!(sim.step());
}

#[test]
fn a_clock_that_is_set_makes_nobody_wait_and_nobody_silent() {
    let hour = Millis::from_secs(3600);
    let mut sim = Sim::new(&["a1", "b1"]);
    sim.put(|app| app.instances = 1);
    sim.settle();
    // The clock jumps; agents were heard of a moment ago by the one that does not.
    let decide = |sim: &Sim, now: Now| decide(&sim.state, &sim.known, now, &mut || unreachable!("nothing is launched"));
    let ahead = Now { time: sim.now + hour, ..sim.clock() };
    assert!(decide(&sim, ahead).commands.is_empty());
    // An end recorded while the leader's clock was ahead, then the clock is right again.
    let right = sim.now;
    sim.now = right + hour;
    let (task, agent) = sim.state.tasks.values().map(|task| (task.id.clone(), task.agent.clone())).next().unwrap();
    sim.report(&agent, &task, 9, TaskState::Failed);
    sim.running.values_mut().for_each(BTreeMap::clear);
    sim.now = right;
    sim.settle();
    assert_eq!(sim.really_running(), 1, "no back-off of an hour");
}

#[test]
fn a_leader_that_got_no_turn_gives_nobody_up() {
    let mut sim = Sim::new(&["a1"]);
    let at = |seconds: u64| Now { time: sim.now, steady: Duration::from_secs(seconds) };
    let mut leading = pace::Leading::new(Millis::from_secs(15), at(0));
    let heard: BTreeMap<AgentId, Duration> = [(AgentId::new("a1"), Duration::from_secs(1))].into();
    let mut decide = |sim: &Sim, now: Now| {
        let mut round = leading.decide(&sim.state, heard.clone(), now, &mut || unreachable!("nothing is launched"));
        round.take_commands()
    };
    for seconds in [1, 6, 11, 14] {
        assert_eq!(decide(&sim, at(seconds)), []);
    }
    // It was paused: what it did not hear meanwhile is no silence. When nothing comes after that either, it is.
    assert_eq!(decide(&sim, at(100)), []);
    assert_eq!(decide(&sim, at(110)), []);
    let given_up = decide(&sim, at(115));
    assert!(matches!(&given_up[..], [Command::MarkAgentUnreachable { .. }]), "{given_up:?}");
    sim.settle();
}

/// A deposed leader that has not noticed does not know the newest tasks. Its word that their ends are on record would be a
/// lie: nobody has recorded them.
#[test]
fn a_status_of_an_unknown_task_is_on_record_by_the_word_of_the_log_only() {
    let mut sim = Sim::new(&["a"]);
    let deposed = sim.state.clone();
    sim.put(|app| app.instances = 1);
    sim.settle();
    let task = sim.state.tasks.values().next().expect("it was launched");
    let (id, seq, now) = (&task.id, task.seq, sim.clock());
    let mut session = Session::new(AgentId::new("a"), Millis(1000), now);
    let mut hear = |status, state| session.hear(Heard::Statuses(vec![status]), state, now);

    let acknowledged = Say::Acknowledge(vec![(id.clone(), seq)]);
    assert_eq!(hear(sim.status(id, seq, TaskState::Running), &sim.state), Ok(Answer::Say(vec![acknowledged])));
    let end = sim.status(id, seq + 1, TaskState::Failed);
    let record = Command::RecordStatus { agent: AgentId::new("a"), status: Box::new(end.clone()), at: sim.now };
    assert_eq!(hear(end, &deposed), Ok(Answer::Propose(vec![record])));
    assert_eq!(session.proposed(false, &deposed), Err(Ended::NotLeading));
}

#[test]
fn an_instance_that_is_stopped_by_hand_is_not_the_one_to_keep() {
    let mut sim = Sim::new(&["a", "b"]);
    sim.put(|app| app.instances = 2);
    sim.settle();
    // By age it would stay: the youngest go first.
    let of_age = |task: &&Task| (task.staged_at, std::cmp::Reverse(task.id.clone()));
    let (oldest, youngest) = (sim.state.tasks.values().min_by_key(of_age), sim.state.tasks.values().max_by_key(of_age));
    let (oldest, stays) = (oldest.expect("there are two").clone(), youngest.expect("there are two").id.clone());
    sim.report(&oldest.agent, &oldest.id, oldest.seq + 1, TaskState::Killing);
    sim.put(|app| app.instances = 1);
    sim.settle();
    assert_eq!(sim.state.tasks.keys().collect::<Vec<_>>(), [&stays]);
}
