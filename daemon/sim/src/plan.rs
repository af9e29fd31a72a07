//! What is going to happen in a run, as plain data: the cluster, what clients wish and when, what breaks and when. Made from a
//! seed before anything runs, so that a failing run is shrunk by leaving parts of its plan out.

use crate::dice::Dice;
use serde::{Deserialize, Serialize};

/// Milliseconds of virtual time.
pub type Ms = u64;

/// Everything a run depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Of the small things: delays, timeouts, who is asked first.
    pub seed: u64,
    /// Masters: 1, 3 or 5.
    pub masters: usize,
    /// Agents.
    pub agents: usize,
    /// When the last fault is over.
    pub calm_at: Ms,
    /// What clients do, in order of time.
    pub wishes: Vec<(Ms, Wish)>,
    /// What breaks, in order of time.
    pub faults: Vec<(Ms, Fault)>,
}

/// What a task's program does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    /// Runs until it is told to end.
    Forever,
    /// The same, and does not heed SIGTERM.
    Stubborn,
    /// Ends by itself.
    Ends {
        /// After so long.
        after: Ms,
        /// With this status.
        status: i32,
    },
    /// Cannot be executed.
    Missing,
    /// systemd does not take it.
    Refused,
}

impl Program {
    /// As the simulated systemd reads it.
    pub(crate) fn line(self) -> String {
        match self {
            Program::Forever => "forever".into(),
            Program::Stubborn => "stubborn".into(),
            Program::Ends { after, status } => format!("exit {status} after {after}"),
            Program::Missing => "missing".into(),
            Program::Refused => "refused".into(),
        }
    }
}

/// What a client does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields say themselves what they are; each variant is documented")]
pub enum Wish {
    /// Defines or redefines an app.
    PutApp {
        app: u8,
        instances: u32,
        program: Program,
        cpus_milli: u64,
        min_health: u32,
        over: u32,
        patience: Option<(Ms, Ms)>,
        unique: bool,
        force: bool,
    },
    /// Changes its instances.
    Scale { app: u8, instances: u32 },
    /// Replaces its instances.
    Restart { app: u8 },
    /// Removes it.
    DeleteApp { app: u8 },
    /// Ends one of its tasks.
    KillTask { app: u8, nth: usize },
    /// Defines or redefines a job: by schedule, or after others.
    PutJob {
        job: u8,
        times: Option<u32>,
        every_s: u64,
        parents: Vec<u8>,
        program: Program,
        retries: u32,
        epsilon_s: u64,
        concurrent: bool,
        disabled: bool,
    },
    /// Runs it once by hand.
    Trigger { job: u8 },
    /// Removes it.
    DeleteJob { job: u8 },
    /// Asks a leader to confirm that it knows everything.
    Read,
    /// Has the cluster's version raised to the newest that the leader knows.
    Raise,
}

/// Where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Place {
    /// A master.
    Master(usize),
    /// An agent.
    Agent(usize),
}

/// How a process ends before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Crash {
    /// Now.
    Now,
    /// An agent: the next time it writes its ledger, before anything is written.
    BeforeWrite,
    /// In the middle of the write: so many thousandths of it are there.
    TornWrite(u64),
    /// After the write, with so many of the effects begun.
    AfterWrite(usize),
}

/// What breaks. Spans are in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields say themselves what they are; each variant is documented")]
pub enum Fault {
    /// The network loses and doubles so many of a thousand messages, and delays all by up to so much.
    Weather { loss: u64, double: u64, delay: Ms, span: Ms },
    /// Nothing gets from one place to another.
    Cut { from: Place, to: Place, span: Ms },
    /// A place is cut off from all others.
    Isolate { place: Place, span: Ms },
    /// Masters below the number cannot speak with those from it on, and so the agents below it.
    Split { masters: usize, agents: usize, span: Ms },
    /// An agent's connection breaks.
    Break { agent: usize },
    /// The process ends, and is started again.
    Kill { place: Place, crash: Crash, down: Ms },
    /// The machine loses its power, and what was not on disk.
    PowerCut { place: Place, crash: Crash, down: Ms },
    /// Everything loses its power at once.
    Blackout { down: Ms },
    /// The process gets no turn.
    Pause { place: Place, span: Ms },
    /// Whoever leads gets no turn until another leads; when it goes on, it has not noticed yet, and agents look for a leader.
    Deposed { span: Ms },
    /// Writes fail.
    DiskFails { place: Place, span: Ms },
    /// Writes take long.
    DiskSlow { master: usize, sync: Ms, span: Ms },
    /// The machine's clock is set.
    ClockStep { place: Place, by: i64 },
    /// `daemon-reload`: systemd answers nothing meanwhile.
    Reload { agent: usize, span: Ms },
    /// D-Bus is away.
    BusAway { agent: usize, span: Ms },
    /// Signals of systemd are lost.
    SignalsLost { agent: usize, span: Ms },
    /// The journal cannot be read.
    JournalAway { agent: usize, span: Ms },
    /// An operator stops a unit.
    StopByHand { agent: usize, nth: usize },
    /// An operator kills a unit's processes.
    KillByHand { agent: usize, nth: usize },
    /// An operator restarts a unit.
    RestartByHand { agent: usize, nth: usize },
    /// An operator freezes a unit.
    FreezeByHand { agent: usize, nth: usize, span: Ms },
    /// A master is replaced by one of the next version.
    Upgrade { master: usize },
    /// A master is replaced by one of the first version, though the cluster's may be raised: then it cannot go on.
    Downgrade { master: usize },
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Self {
        // Runs are of different tempers: quiet ones find what is wrong without any fault.
        let mut dice = Dice::new(seed ^ 0x5eed_0fd2_04e2);
        let masters = dice.pick(&[1, 3, 3, 3, 3, 5]);
        let agents = dice.range(1, 4) as usize;
        let calm_at = dice.range(30, 150) * 1000;
        let mut wishes: Vec<(Ms, Wish)> = Vec::new();
        for app in 0..dice.range(1, 3) as u8 {
            wishes.push((dice.range(3_000, 15_000), put_app(app, &mut dice)));
        }
        for job in 0..dice.range(0, 3) as u8 {
            wishes.push((dice.range(3_000, 20_000), put_job(job, &mut dice)));
        }
        for _ in 0..dice.range(0, 12) {
            wishes.push((dice.range(10_000, calm_at), any_wish(&mut dice)));
        }
        let many = dice.pick(&[0, 3, 6, 12, 20]);
        // Some runs meet one kind of fault only, again and again.
        let kinds: Vec<u64> = (0..dice.pick(&[1, 3, 6, 30])).map(|_| dice.range(0, KINDS - 1)).collect();
        let mut faults: Vec<(Ms, Fault)> = Vec::new();
        for _ in 0..many {
            let at = dice.range(2_000, calm_at - 1_000);
            let kind = dice.pick(&kinds);
            faults.push((at, any_fault(kind, masters, agents, calm_at - at, &mut dice)));
        }
        // Of numbers of their own: plans without it stay what they were.
        let mut dice = Dice::new(seed ^ 0x0dd5_eed5_0f2a_7e25);
        if dice.chance(250) {
            roll_through(masters, calm_at, &mut wishes, &mut faults, &mut dice);
        }
        wishes.sort_by_key(|(at, _)| *at);
        faults.sort_by_key(|(at, _)| *at);
        Self { seed, masters, agents, calm_at, wishes, faults }
    }
}

/// Masters are replaced by newer ones one after the other, some of them go back, and somebody has the version raised, too early
/// perhaps.
fn roll_through(masters: usize, calm_at: Ms, wishes: &mut Vec<(Ms, Wish)>, faults: &mut Vec<(Ms, Fault)>, dice: &mut Dice) {
    let step = dice.range(500, calm_at / 8);
    let mut at = dice.range(2_000, calm_at / 3);
    for master in 0..masters {
        faults.push((at, Fault::Upgrade { master }));
        at = (at + step).min(calm_at - 1_000);
    }
    if dice.chance(300) {
        faults.push((dice.range(2_000, calm_at - 1_000), Fault::Downgrade { master: dice.below(masters) }));
    }
    for _ in 0..dice.range(1, 4) {
        wishes.push((dice.range(2_000, calm_at), Wish::Raise));
    }
}

fn program(dice: &mut Dice) -> Program {
    match dice.range(0, 9) {
        0..=4 => Program::Forever,
        5 => Program::Stubborn,
        6 => Program::Ends { after: dice.range(10, 20_000), status: 0 },
        7 | 8 => Program::Ends { after: dice.range(10, 20_000), status: dice.range(1, 3) as i32 },
        _ => dice.pick(&[Program::Missing, Program::Refused]),
    }
}

fn put_app(app: u8, dice: &mut Dice) -> Wish {
    Wish::PutApp {
        app,
        instances: dice.range(0, 4) as u32,
        program: program(dice),
        cpus_milli: dice.range(1, 5) * 100,
        min_health: dice.pick(&[0, 500, 1000]),
        over: dice.pick(&[0, 500, 1000]),
        patience: dice.chance(300).then(|| {
            let inactive = dice.range(0, 60_000);
            (inactive, inactive + dice.range(0, 60_000))
        }),
        unique: dice.chance(150),
        force: dice.chance(600),
    }
}

fn put_job(job: u8, dice: &mut Dice) -> Wish {
    let program = match dice.range(0, 9) {
        0..=6 => Program::Ends { after: dice.range(10, 15_000), status: 0 },
        7 | 8 => Program::Ends { after: dice.range(10, 5_000), status: 1 },
        _ => dice.pick(&[Program::Missing, Program::Refused]),
    };
    Wish::PutJob {
        job,
        times: dice.chance(500).then(|| dice.range(1, 4) as u32),
        every_s: dice.range(3, 40),
        parents: if job > 0 && dice.chance(300) { vec![dice.below(usize::from(job)) as u8] } else { Vec::new() },
        program,
        retries: dice.range(0, 2) as u32,
        epsilon_s: dice.pick(&[0, 10, 60]),
        concurrent: dice.chance(300),
        disabled: dice.chance(100),
    }
}

fn any_wish(dice: &mut Dice) -> Wish {
    let (app, job) = (dice.range(0, 2) as u8, dice.range(0, 2) as u8);
    match dice.range(0, 11) {
        0 | 1 => put_app(app, dice),
        2 | 3 => Wish::Scale { app, instances: dice.range(0, 5) as u32 },
        4 => Wish::Restart { app },
        5 => Wish::DeleteApp { app },
        6 => Wish::KillTask { app, nth: dice.below(4) },
        7 => put_job(job, dice),
        8 | 9 => Wish::Trigger { job },
        10 => Wish::DeleteJob { job },
        _ => Wish::Read,
    }
}

const KINDS: u64 = 23;

fn any_fault(kind: u64, masters: usize, agents: usize, left: Ms, dice: &mut Dice) -> Fault {
    let agent = dice.below(agents);
    let master = dice.below(masters);
    let nth = dice.below(8);
    let place = |dice: &mut Dice| match dice.chance(500) {
        true => Place::Master(dice.below(masters)),
        false => Place::Agent(dice.below(agents)),
    };
    let short = dice.range(100, 20_000).min(left);
    let long = dice.range(100, 70_000).min(left);
    let span = if dice.chance(800) { short } else { long };
    let crash = match dice.range(0, 5) {
        0..=1 => Crash::Now,
        2 => Crash::BeforeWrite,
        3 => Crash::TornWrite(dice.range(0, 1000)),
        _ => Crash::AfterWrite(dice.below(4)),
    };
    match kind {
        0 => Fault::Weather { loss: dice.range(0, 300), double: dice.range(0, 300), delay: dice.range(0, 2_000), span: long },
        1 => {
            let (from, to) = (place(dice), place(dice));
            Fault::Cut { from, to, span }
        }
        2 => Fault::Isolate { place: place(dice), span },
        3 => Fault::Split { masters: dice.below(masters) + 1, agents: dice.below(agents + 1), span },
        4 => Fault::Break { agent },
        5 => Fault::Kill { place: Place::Master(master), crash: Crash::Now, down: span },
        6 | 7 => Fault::Kill { place: Place::Agent(agent), crash, down: dice.range(50, 5_000).min(left) },
        8 => Fault::PowerCut { place: Place::Master(master), crash: Crash::Now, down: span },
        9 | 10 => Fault::PowerCut { place: Place::Agent(agent), crash, down: span },
        11 => Fault::Pause { place: place(dice), span },
        12 => Fault::DiskFails { place: place(dice), span },
        13 => Fault::DiskSlow { master, sync: dice.range(10, 800), span },
        14 => {
            let by = dice.range(1, 7_200_000) as i64;
            Fault::ClockStep { place: place(dice), by: if dice.chance(500) { by } else { -by } }
        }
        15 => Fault::Reload { agent, span: short },
        16 => Fault::BusAway { agent, span: short },
        17 => Fault::SignalsLost { agent, span },
        18 => Fault::JournalAway { agent, span },
        19 => match dice.range(0, 3) {
            0 => Fault::StopByHand { agent, nth },
            1 => Fault::KillByHand { agent, nth },
            2 => Fault::RestartByHand { agent, nth },
            _ => Fault::FreezeByHand { agent, nth, span },
        },
        20 => Fault::Blackout { down: short },
        21 => Fault::Deposed { span: dice.range(10_000, 25_000).min(left) },
        _ => Fault::Upgrade { master },
    }
}
