//! The small cluster that inputs meet: one agent, two apps with their tasks, a job with a schedule and one that waits for it.

use drover_core::agent::{AgentInfo, TASKS_MAX, unreserved};
use drover_core::ids::AgentId;
use drover_core::leader::{self, Knowledge};
use drover_core::resources::{Ports, Scalars};
use drover_core::sandbox::Manager;
use drover_core::state::{ClusterState, Command};
use drover_core::time::{Millis, Now, Timestamp};
use drover_core::unit::NodeFacts;
use drover_master::inputs::{Asked, answer};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::time::Duration;

/// 2024-05-01T12:00:00Z.
pub(crate) const NOW: Timestamp = Timestamp(1_714_564_800_000);

/// The agent.
pub(crate) fn agent() -> AgentId {
    AgentId::new("agent-1")
}

/// So long after the beginning.
pub(crate) fn after(millis: u64) -> Now {
    Now { time: NOW + Millis(millis), steady: Duration::from_secs(3600) + Duration::from_millis(millis) }
}

/// What the agent says of itself.
pub(crate) fn info() -> AgentInfo {
    let total = Scalars { cpus_milli: 64_000, mem_bytes: 64 << 30, disk_bytes: 64 << 30, gpus: 0 };
    AgentInfo {
        id: agent(),
        host: "n1".into(),
        boot_id: "boot".into(),
        resources: unreserved(total, Ports::from_ranges([(31000, 32000)])),
        attributes: BTreeMap::from([("zone".into(), "z1".into())]),
        systemd: 257,
        version: "0.1.0".into(),
        enforces: BTreeSet::new(),
        tasks_max: TASKS_MAX,
    }
}

/// What the agent knows of its machine.
pub(crate) fn facts() -> NodeFacts {
    NodeFacts {
        boot: "boot".into(),
        systemd: 257,
        manager: Manager::System,
        task_slice: "drover.slice".into(),
        state_root: "/var/lib".into(),
        enforces: BTreeSet::new(),
    }
}

/// The cluster.
pub(crate) fn cluster() -> ClusterState {
    static CLUSTER: OnceLock<ClusterState> = OnceLock::new();
    CLUSTER.get_or_init(build).clone()
}

fn build() -> ClusterState {
    let mut state = ClusterState::default();
    apply(&mut state, &[Command::AdmitAgent { info: Box::new(info()), at: NOW }]);
    let requests = [
        ("/v2/apps", r#"{"id":"/web","cmd":"sleep 1","instances":2,"ports":[0]}"#),
        (
            "/v2/apps",
            r#"{"id":"/shop/db","args":["/bin/db"],"labels":{"tier":"back"},"upgradeStrategy":{"minimumHealthCapacity":0.5}}"#,
        ),
        ("/v1/scheduler/iso8601", r#"{"name":"backup","command":"backup","schedule":"R/2024-05-01T13:00:00Z/PT1H"}"#),
        ("/v1/scheduler/dependency", r#"{"name":"report","command":"report","parents":["backup"]}"#),
    ];
    for ((target, body), at) in requests.into_iter().zip((0..).map(|n| NOW - Millis(5000 - 1000 * n))) {
        let asked = Asked { method: b"POST", target: target.as_bytes(), headers: &[], body: body.as_bytes() };
        let answered = answer(asked, &state, at).expect("it is a request");
        assert!(answered.status < 300, "{}", String::from_utf8_lossy(&answered.body));
        apply(&mut state, &answered.commands);
    }
    lead(&mut state, after(0));
    assert_eq!(state.tasks.len(), 3, "the cluster runs its apps");
    state
}

/// Applies what was planned on this very state: nothing of it may be refused.
pub(crate) fn apply(state: &mut ClusterState, commands: &[Command]) {
    for command in commands {
        let applied = state.apply(command);
        assert!(applied.result.is_ok(), "{command:?} is refused: {:?}", applied.result);
    }
}

/// Decides as the leader does, until there is nothing more to decide, and applies it.
pub(crate) fn lead(state: &mut ClusterState, now: Now) {
    let mut ids = 0;
    for _ in 0..8 {
        let known = Knowledge {
            heard: state.agents.keys().map(|agent| (agent.clone(), now.steady)).collect(),
            leading_since: Duration::ZERO,
            agent_timeout: Millis(15_000),
            waiting: BTreeMap::new(),
        };
        let decision = leader::decide(state, &known, now, &mut || {
            ids += 1;
            format!("{}-{ids}", now.time.0)
        });
        if decision.commands.is_empty() {
            break;
        }
        for command in &decision.commands {
            // One of a batch may make another stale; that it is told and not a panic is what counts.
            let _told = state.apply(command);
        }
    }
}
