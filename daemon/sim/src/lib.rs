//! A whole drover cluster in one process under virtual time: the real state, the real minds of leader, sessions and agents, and
//! around them simulated consensus, network, disks, clocks and systemds that fail as a seed says. After every event invariants
//! are checked; after the last fault everything must heal within a stated time.
//!
//! ```text
//!  seed ─▶ Plan (wishes, faults) ─▶ World: queue of events ─▶ masters: Raft (model) ─▶ ClusterState, Session, Leading (drover)
//!                                     │    ▲                  agents:  Node, Dialer, Conversation (drover) ─▶ systemd (model)
//!                                     ▼    │
//!                                   Truth: what was committed, started, stopped: every invariant
//! ```
//!
//! The same seed gives the same run. A failing one is shrunk by leaving parts of its plan out ([`shrink`]).

mod agent;
mod client;
mod dice;
mod heal;
mod master;
mod plan;
mod raft;
mod raise;
mod shrink;
mod systemd;
mod truth;
mod world;

pub use plan::{Crash, Fault, Ms, Place, Plan, Program, Wish};
pub use shrink::shrink;

use std::collections::BTreeMap;
use world::World;

/// Something broken on purpose in what the simulation itself provides, to see the invariants fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// An agent does things before they are on disk.
    ActsFirst,
    /// An agent never syncs its ledger.
    NeverSyncs,
    /// An agent takes assignments of any generation.
    TakesOldAssignments,
    /// A leader acknowledges statuses before they are applied.
    AcknowledgesEarly,
    /// A master keeps its sessions when it leads no more.
    ClingsToSessions,
    /// A master votes and answers before that is on disk.
    VotesUnsynced,
    /// A master writes entries at the newest version that it knows itself.
    WritesNewest,
    /// A leader raises the version without waiting for the other masters' word.
    RaisesUnasked,
}

impl Mutant {
    /// All of them, by name.
    pub const ALL: [(&'static str, Mutant); 8] = [
        ("acts-first", Mutant::ActsFirst),
        ("never-syncs", Mutant::NeverSyncs),
        ("takes-old-assignments", Mutant::TakesOldAssignments),
        ("acknowledges-early", Mutant::AcknowledgesEarly),
        ("clings-to-sessions", Mutant::ClingsToSessions),
        ("votes-unsynced", Mutant::VotesUnsynced),
        ("writes-newest", Mutant::WritesNewest),
        ("raises-unasked", Mutant::RaisesUnasked),
    ];
}

/// How to run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Keep a line for everything of note.
    pub trace: bool,
    /// Break something.
    pub mutant: Option<Mutant>,
}

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub invariant: &'static str,
    /// What was seen.
    pub seen: String,
    /// When.
    pub at: Ms,
}

/// What a run met with; a run that met with nothing proves nothing.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Coverage {
    pub events: u64,
    pub virtual_ms: u64,
    pub entries: u64,
    pub leaders: u64,
    pub decisions: u64,
    pub sessions: u64,
    pub snapshots: u64,
    pub snapshots_installed: u64,
    pub refused_newer: u64,
    pub raised: u64,
    pub raises_refused: u64,
    pub acknowledged: u64,
    pub reads: u64,
    pub slots: u64,
    pub agent_starts: u64,
    pub crashes_in_writes: u64,
    pub disk_ends: u64,
    pub older_assignments: u64,
    pub starts: u64,
    pub executed: u64,
    pub stops: u64,
    pub investigations: u64,
    pub lost: u64,
    pub replaced: u64,
    pub heal_longest: Ms,
    pub faults: BTreeMap<&'static str, u64>,
}

impl Coverage {
    /// Adds another run's.
    pub fn add(&mut self, other: &Coverage) {
        macro_rules! sum {
            ($($field:ident)*) => { $(self.$field += other.$field;)* };
        }
        sum!(events virtual_ms entries leaders decisions sessions snapshots snapshots_installed refused_newer acknowledged reads);
        sum!(slots agent_starts crashes_in_writes disk_ends older_assignments starts executed stops investigations lost replaced);
        sum!(raised raises_refused);
        self.heal_longest = self.heal_longest.max(other.heal_longest);
        for (name, count) in &other.faults {
            *self.faults.entry(name).or_default() += count;
        }
    }
}

/// How a run went.
#[derive(Debug, Clone)]
pub struct Report {
    /// The first invariant that did not hold.
    pub failure: Option<Failure>,
    /// What it met with.
    pub coverage: Coverage,
    /// Of everything that happened: the same for the same plan.
    pub hash: u64,
    /// If asked for.
    pub trace: Vec<String>,
}

/// Runs a plan to its end, or to the first invariant that does not hold.
pub fn run(plan: &Plan, options: Options) -> Report {
    let mut world = World::new(plan.clone(), options);
    let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run()));
    if let Err(panic) = ran {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned()));
        world.judge(Err(("nothing panics", words.unwrap_or_default())));
    }
    let mut coverage = std::mem::take(&mut world.coverage);
    (coverage.virtual_ms, coverage.entries, coverage.slots) = (world.now, world.truth.index(), world.truth.slots_begun);
    coverage.raised = u64::from(world.truth.state.version.0 > 1);
    let text = serde_json::to_string(&world.truth.state).expect("the state is plain data");
    let hash = text.bytes().fold(world.hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    Report { failure: world.failure, coverage, hash, trace: world.trace.unwrap_or_default() }
}
