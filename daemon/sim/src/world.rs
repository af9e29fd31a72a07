//! The world: virtual time, the queue of what is going to happen, machines with their clocks, and the network between them.
//! What masters and agents do in it is in [`crate::master`] and [`crate::agent`].

use crate::agent::{Machine, ToAgent};
use crate::client::Errand;
use crate::dice::Dice;
use crate::master::Master;
use crate::plan::{Crash, Fault, Ms, Place, Plan};
use crate::raft::Message;
use crate::raise::NEWEST;
use crate::systemd::{CallId, Later};
use crate::truth::{Broken, Truth};
use crate::{Coverage, Failure, Mutant, Options};
use drover_core::leader::session::Heard;
use drover_core::node::{Done, Effect};
use drover_core::time::{Now, Timestamp};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

/// What the clocks of all machines show at the beginning: 2024-05-01T12:00:00Z.
pub(crate) const EPOCH: i64 = 1_714_564_800_000;

/// Silence after which an agent counts as unreachable.
pub(crate) const AGENT_TIMEOUT: u64 = 15_000;

/// Something that is going to happen.
#[derive(Debug)]
pub(crate) enum Event {
    /// A process looks at its clock.
    Wake(Place),
    /// A process begins.
    Begin {
        place: Place,
        life: u64,
    },
    Raft {
        from: usize,
        to: usize,
        message: Message,
    },
    /// A master's writes are on disk.
    Synced {
        master: usize,
        life: u64,
        number: u64,
    },
    /// An agent asks a master for a session.
    Dial {
        conn: u64,
    },
    /// What the master said to that.
    Dialled {
        conn: u64,
        answer: DialAnswer,
    },
    /// Something arrives on a connection.
    Stream {
        conn: u64,
        way: Way,
        number: u64,
        item: Item,
    },
    /// A call arrives at systemd, if that still runs.
    Call {
        agent: usize,
        boot: u64,
        life: u64,
        call: CallId,
        effect: Effect,
    },
    /// An effect has ended.
    Ended {
        agent: usize,
        life: u64,
        call: CallId,
        done: Done,
    },
    /// Signals arrive.
    Signals {
        agent: usize,
        life: u64,
    },
    /// systemd does something by itself.
    Unit {
        agent: usize,
        boot: u64,
        later: Later,
    },
    /// A client does something.
    Client(Errand),
    /// A fault begins…
    Fault(usize),
    /// Every agent's connection breaks.
    AllBreak,
    /// …and what was cut is whole again.
    Mended,
    /// The world is looked at as a whole.
    Look,
}

#[derive(Debug, Clone)]
pub(crate) enum DialAnswer {
    Accepted,
    NotLeading(Option<usize>),
    Refused,
}

/// Which way something goes on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    ToMaster = 0,
    ToAgent = 1,
}

#[derive(Debug, Clone)]
pub(crate) enum Item {
    Heard(Heard),
    Said(ToAgent),
    /// The other end has closed.
    Closed,
}

/// A connection from an agent to a master: two ordered streams that may stall and break.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) agent: usize,
    pub(crate) master: usize,
    /// Of the process at each end.
    pub(crate) agent_life: u64,
    pub(crate) master_life: u64,
    /// Which ends are open.
    open: [bool; 2],
    sent: [u64; 2],
    last_at: [Ms; 2],
    /// Waits for a cut to be mended.
    stalled: [VecDeque<(u64, Item)>; 2],
    /// When the connection broke, what was on its way behind this is lost.
    cut_off: [u64; 2],
}

struct Queued {
    at: Ms,
    number: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// The network as it is at the moment.
#[derive(Debug, Default)]
struct Net {
    /// From, to, until when.
    cuts: Vec<(Place, Place, Ms)>,
    loss: u64,
    double: u64,
    delay: Ms,
    weather_until: Ms,
}

/// A run.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) now: Ms,
    queue: BinaryHeap<Reverse<Queued>>,
    queued: u64,
    pub(crate) dice: Dice,
    pub(crate) masters: Vec<Master>,
    pub(crate) agents: Vec<Machine>,
    net: Net,
    pub(crate) conns: BTreeMap<u64, Conn>,
    conns_made: u64,
    pub(crate) proposals: u64,
    pub(crate) ids: u64,
    pub(crate) truth: Truth,
    pub(crate) coverage: Coverage,
    pub(crate) failure: Option<Failure>,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) trace: Option<Vec<String>>,
    /// Of everything that happened, in order.
    pub(crate) hash: u64,
    pub(crate) ending: crate::heal::Ending,
    pub(crate) is_over: bool,
}

macro_rules! note {
    ($world:expr, $($words:tt)*) => {
        if $world.trace.is_some() {
            let line = format!($($words)*);
            $world.tell(line);
        }
    };
}
pub(crate) use note;

impl World {
    pub(crate) fn new(plan: Plan, options: Options) -> Self {
        let mut world = Self {
            now: 0,
            queue: BinaryHeap::new(),
            queued: 0,
            dice: Dice::new(plan.seed),
            masters: (0..plan.masters).map(Master::new).collect(),
            agents: (0..plan.agents).map(Machine::new).collect(),
            net: Net::default(),
            conns: BTreeMap::new(),
            conns_made: 0,
            proposals: 0,
            ids: 0,
            truth: Truth::default(),
            coverage: Coverage::default(),
            failure: None,
            mutant: options.mutant,
            trace: options.trace.then(Vec::new),
            hash: 0xcbf2_9ce4_8422_2325,
            ending: crate::heal::Ending::default(),
            is_over: false,
            plan,
        };
        for master in 0..world.plan.masters {
            world.at(world.dice.clone().range(0, 300), Event::Begin { place: Place::Master(master), life: 0 });
        }
        for agent in 0..world.plan.agents {
            let at = world.dice.range(0, 2000);
            world.at(at, Event::Begin { place: Place::Agent(agent), life: 0 });
        }
        for (number, (at, _)) in world.plan.wishes.clone().into_iter().enumerate() {
            world.at(at, Event::Client(Errand::new(number)));
            world.ending.errands_open += 1;
        }
        for (number, (at, _)) in world.plan.faults.clone().into_iter().enumerate() {
            world.at(at, Event::Fault(number));
        }
        world.at(world.plan.calm_at, Event::Look);
        world
    }

    pub(crate) fn run(&mut self) {
        while !self.is_over
            && self.failure.is_none()
            && let Some(Reverse(Queued { at, event, .. })) = self.queue.pop()
        {
            self.now = self.now.max(at);
            self.happen(event);
        }
    }

    pub(crate) fn at(&mut self, at: Ms, event: Event) {
        self.queued += 1;
        self.queue.push(Reverse(Queued { at: at.max(self.now), number: self.queued, event }));
    }

    pub(crate) fn after(&mut self, span: Ms, event: Event) {
        self.at(self.now + span, event);
    }

    pub(crate) fn tell(&mut self, line: String) {
        let line = format!("{:>9.3} s  {line}", self.now as f64 / 1000.0);
        if let Some(trace) = &mut self.trace {
            trace.push(line);
        }
    }

    /// Mixes something that happened into the hash of the run.
    fn mix(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(0x0100_0000_01b3);
    }

    /// An invariant is broken.
    pub(crate) fn judge(&mut self, verdict: Result<(), Broken>) {
        if let Err((invariant, seen)) = verdict
            && self.failure.is_none()
        {
            note!(self, "BROKEN: {invariant}: {seen}");
            self.failure = Some(Failure { invariant, seen, at: self.now });
        }
    }

    /// What the clocks of a machine show to a process that began at `began`.
    pub(crate) fn clock(&self, place: Place, began: Ms) -> Now {
        let offset = match place {
            Place::Master(master) => self.masters[master].offset,
            Place::Agent(agent) => self.agents[agent].offset,
        };
        let time = Timestamp(EPOCH + i64::try_from(self.now).expect("runs are short") + offset);
        Now { time, steady: Duration::from_millis(self.now - began) }
    }

    fn paused_until(&self, place: Place) -> Ms {
        match place {
            Place::Master(master) => self.masters[master].paused_until,
            Place::Agent(agent) => self.agents[agent].paused_until,
        }
    }

    /// Whose turn an event takes.
    fn whose(&self, event: &Event) -> Option<Place> {
        match event {
            Event::Wake(place) => Some(*place),
            Event::Raft { to, .. } => Some(Place::Master(*to)),
            Event::Synced { master, .. } => Some(Place::Master(*master)),
            Event::Dial { conn } | Event::Stream { conn, way: Way::ToMaster, .. } => {
                self.conns.get(conn).map(|conn| Place::Master(conn.master))
            }
            Event::Dialled { conn, .. } | Event::Stream { conn, way: Way::ToAgent, .. } => {
                self.conns.get(conn).map(|conn| Place::Agent(conn.agent))
            }
            Event::Ended { agent, .. } | Event::Signals { agent, .. } => Some(Place::Agent(*agent)),
            Event::Begin { .. }
            | Event::Call { .. }
            | Event::Unit { .. }
            | Event::Client(_)
            | Event::Fault(_)
            | Event::AllBreak
            | Event::Mended
            | Event::Look => None,
        }
    }

    fn happen(&mut self, event: Event) {
        if let Some(place) = self.whose(&event) {
            let until = self.paused_until(place);
            if until > self.now {
                // It waits for the process, in order.
                return self.at(until, event);
            }
        }
        self.coverage.events += 1;
        self.mix(self.now);
        match event {
            Event::Wake(Place::Master(master)) => self.wake_master(master),
            Event::Wake(Place::Agent(agent)) => self.wake_agent(agent),
            Event::Begin { place: Place::Master(master), life } => self.begin_master(master, life),
            Event::Begin { place: Place::Agent(agent), life } => self.begin_agent(agent, life),
            Event::Raft { from, to, message } => self.receive_raft(from, to, message),
            Event::Synced { master, life, number } => self.synced(master, life, number),
            Event::Dial { conn } => self.receive_dial(conn),
            Event::Dialled { conn, answer } => self.receive_answer(conn, answer),
            Event::Stream { conn, way, number, item } => self.deliver(conn, way, number, item),
            Event::Call { agent, boot, life, call, effect } => self.receive_call(agent, boot, life, call, effect),
            Event::Ended { agent, life, call, done } => self.receive_end(agent, life, call, done),
            Event::Signals { agent, life } => self.receive_signals(agent, life),
            Event::Unit { agent, boot, later } => self.unit_passes(agent, boot, &later),
            Event::Client(errand) => self.run_errand(errand),
            Event::Fault(number) => self.break_something(number),
            Event::AllBreak => (0..self.agents.len()).for_each(|agent| self.break_connections(agent)),
            Event::Mended => self.flush_stalled(),
            Event::Look => self.look(),
        }
    }

    // The network.

    fn is_cut(&self, from: Place, to: Place) -> bool {
        self.net.cuts.iter().any(|(a, b, until)| *a == from && *b == to && *until > self.now)
    }

    fn delay(&mut self) -> Ms {
        let weather = if self.net.weather_until > self.now { self.net.delay } else { 0 };
        1 + self.dice.range(0, 4) + self.dice.range(0, weather)
    }

    fn is_weather(&self) -> bool {
        self.net.weather_until > self.now
    }

    /// One message between masters: each may be lost, late, out of order or doubled.
    pub(crate) fn send_raft(&mut self, from: usize, to: usize, message: Message) {
        if self.is_cut(Place::Master(from), Place::Master(to)) {
            return;
        }
        if self.is_weather() {
            if self.dice.chance(self.net.loss) {
                self.coverage.lost += 1;
                return;
            }
            if self.dice.chance(self.net.double) {
                let delay = self.delay();
                self.after(delay, Event::Raft { from, to, message: message.clone() });
            }
        }
        let delay = self.delay();
        self.after(delay, Event::Raft { from, to, message });
    }

    /// Opens a connection; whether anybody answers is seen later.
    pub(crate) fn dial(&mut self, agent: usize, master: usize) -> u64 {
        self.conns_made += 1;
        let id = self.conns_made;
        let conn = Conn {
            agent,
            master,
            agent_life: self.agents[agent].life,
            master_life: 0,
            open: [false, true],
            sent: [0; 2],
            last_at: [0; 2],
            stalled: Default::default(),
            cut_off: [u64::MAX; 2],
        };
        self.conns.insert(id, conn);
        let is_lost = self.is_weather() && self.dice.chance(self.net.loss);
        if !is_lost && !self.is_cut(Place::Agent(agent), Place::Master(master)) {
            let delay = self.delay();
            self.after(delay, Event::Dial { conn: id });
        }
        id
    }

    pub(crate) fn answer_dial(&mut self, id: u64, answer: DialAnswer) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let (agent, master) = (conn.agent, conn.master);
        conn.open[Way::ToMaster as usize] = matches!(answer, DialAnswer::Accepted);
        conn.master_life = self.masters[master].life;
        if self.is_cut(Place::Master(master), Place::Agent(agent)) {
            return;
        }
        let delay = self.delay();
        // Nothing that is said afterwards overtakes it.
        self.conns.get_mut(&id).expect("it was just there").last_at[Way::ToAgent as usize] = self.now + delay;
        self.after(delay, Event::Dialled { conn: id, answer });
    }

    /// Says something on a connection.
    pub(crate) fn send(&mut self, id: u64, way: Way, item: Item) {
        let w = way as usize;
        let delay = self.delay();
        // A lost packet is sent again by the kernel.
        let again = if self.is_weather() && self.dice.chance(self.net.loss) { self.dice.range(200, 3000) } else { 0 };
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.sent[w] += 1;
        let number = conn.sent[w];
        let (from, to) = ends(conn, way);
        let is_cut = self.is_cut(from, to);
        let conn = self.conns.get_mut(&id).expect("it was just there");
        if is_cut || !conn.stalled[w].is_empty() {
            conn.stalled[w].push_back((number, item));
            return;
        }
        let at = (self.now + delay + again).max(conn.last_at[w]);
        conn.last_at[w] = at;
        self.at(at, Event::Stream { conn: id, way, number, item });
    }

    fn flush_stalled(&mut self) {
        let ids: Vec<u64> = self.conns.keys().copied().collect();
        for id in ids {
            for way in [Way::ToMaster, Way::ToAgent] {
                let w = way as usize;
                let conn = &self.conns[&id];
                let (from, to) = ends(conn, way);
                if conn.stalled[w].is_empty() || self.is_cut(from, to) {
                    continue;
                }
                let mut waiting = std::mem::take(&mut self.conns.get_mut(&id).expect("it is listed").stalled[w]);
                while let Some((number, item)) = waiting.pop_front() {
                    let delay = self.delay();
                    let conn = self.conns.get_mut(&id).expect("it is listed");
                    let at = (self.now + delay).max(conn.last_at[w]);
                    conn.last_at[w] = at;
                    self.at(at, Event::Stream { conn: id, way, number, item });
                }
            }
        }
    }

    fn deliver(&mut self, id: u64, way: Way, number: u64, item: Item) {
        let w = way as usize;
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let (from, to) = ends(conn, way);
        if number > conn.cut_off[w] {
            return;
        }
        if self.is_cut(from, to) {
            let conn = self.conns.get_mut(&id).expect("it was just there");
            return conn.stalled[w].push_back((number, item));
        }
        let conn = &self.conns[&id];
        if !self.is_listening(conn, way) {
            // A machine that is up answers for a process that is not: the connection is reset.
            if self.is_powered(to) && !matches!(item, Item::Closed) {
                let other = if way == Way::ToMaster { Way::ToAgent } else { Way::ToMaster };
                self.send(id, other, Item::Closed);
            }
            return;
        }
        match (way, item) {
            (Way::ToMaster, Item::Heard(heard)) => self.master_hears(id, heard),
            (Way::ToMaster, _) => self.session_closed(id),
            (Way::ToAgent, Item::Said(said)) => self.agent_hears(id, said),
            (Way::ToAgent, _) => self.conversation_closed(id),
        }
    }

    fn is_listening(&self, conn: &Conn, way: Way) -> bool {
        let is_same = match way {
            Way::ToMaster => self.masters[conn.master].life == conn.master_life,
            Way::ToAgent => self.agents[conn.agent].life == conn.agent_life,
        };
        conn.open[way as usize] && is_same
    }

    fn is_powered(&self, place: Place) -> bool {
        match place {
            Place::Master(master) => self.masters[master].is_powered,
            Place::Agent(agent) => self.agents[agent].is_powered,
        }
    }

    /// One end closes; the other learns of it when it is told.
    pub(crate) fn close(&mut self, id: u64, end: Way, is_told: bool) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if !std::mem::replace(&mut conn.open[end as usize], false) {
            return;
        }
        if is_told {
            let other = if end == Way::ToMaster { Way::ToAgent } else { Way::ToMaster };
            self.send(id, other, Item::Closed);
        }
        let conn = &self.conns[&id];
        if conn.open == [false; 2] {
            self.conns.remove(&id);
        }
    }

    /// The connection breaks in the middle: of what is on its way, only the first part arrives.
    fn break_conn(&mut self, id: u64) {
        for way in [Way::ToMaster, Way::ToAgent] {
            let (lost, delay) = (self.dice.range(0, 3), self.delay());
            let conn = self.conns.get_mut(&id).expect("it is there");
            let w = way as usize;
            conn.cut_off[w] = conn.sent[w].saturating_sub(lost);
            conn.stalled[w].clear();
            let (at, number) = (conn.last_at[w].max(self.now + delay), conn.cut_off[w]);
            // The end is told behind the last thing that arrives.
            self.at(at, Event::Stream { conn: id, way, number, item: Item::Closed });
        }
    }

    /// Whether a client at one master reaches another.
    pub(crate) fn reaches(&self, from: usize, to: usize) -> bool {
        from == to
            || !self.is_cut(Place::Master(from), Place::Master(to)) && !self.is_cut(Place::Master(to), Place::Master(from))
    }

    // Faults.

    fn break_something(&mut self, number: usize) {
        let fault = self.plan.faults[number].1.clone();
        note!(self, "FAULT {fault:?}");
        *self.coverage.faults.entry(fault_name(&fault)).or_default() += 1;
        let until = |span: Ms| self.now + span;
        match fault {
            Fault::Weather { loss, double, delay, span } => {
                (self.net.loss, self.net.double, self.net.delay) = (loss, double, delay);
                self.net.weather_until = until(span);
            }
            Fault::Cut { from, to, span } => self.cut(&[(from, to)], span),
            Fault::Isolate { place, span } => {
                let pairs: Vec<_> =
                    self.places().into_iter().filter(|other| *other != place).flat_map(|o| [(place, o), (o, place)]).collect();
                self.cut(&pairs, span);
            }
            Fault::Split { masters, agents, span } => {
                let side = |place: &Place| match place {
                    Place::Master(master) => *master < masters,
                    Place::Agent(agent) => *agent < agents,
                };
                let places = self.places();
                let pairs: Vec<_> = places
                    .iter()
                    .flat_map(|a| places.iter().map(move |b| (*a, *b)))
                    .filter(|(a, b)| side(a) != side(b))
                    .collect();
                self.cut(&pairs, span);
            }
            Fault::Break { agent } => self.break_connections(agent),
            Fault::Deposed { span } => {
                let leads = |master: &Master| master.proc.as_ref().is_some_and(|proc| proc.leads);
                if let Some(leader) = self.masters.iter().position(leads) {
                    self.pause_master(leader, span);
                    self.after(span, Event::AllBreak);
                }
            }
            Fault::Kill { place: Place::Master(master), down, .. } => self.end_master(master, false, down),
            Fault::PowerCut { place: Place::Master(master), down, .. } => self.end_master(master, true, down),
            Fault::Kill { place: Place::Agent(agent), crash, down } => self.crash_agent(agent, crash, false, down),
            Fault::PowerCut { place: Place::Agent(agent), crash, down } => self.crash_agent(agent, crash, true, down),
            Fault::Blackout { down } => {
                (0..self.masters.len()).for_each(|master| self.end_master(master, true, down));
                (0..self.agents.len()).for_each(|agent| self.crash_agent(agent, Crash::Now, true, down));
            }
            Fault::Pause { place: Place::Master(master), span } => self.pause_master(master, span),
            Fault::Pause { place: Place::Agent(agent), span } => {
                // What waits for the end of a longer pause must not be overtaken.
                let paused = &mut self.agents[agent].paused_until;
                *paused = (*paused).max(until(span));
            }
            Fault::DiskFails { place: Place::Master(master), span } => self.masters[master].disk_fails_until = until(span),
            Fault::DiskFails { place: Place::Agent(agent), span } => self.agents[agent].disk_fails_until = until(span),
            Fault::DiskSlow { master, sync, span } => self.masters[master].slow = (sync, until(span)),
            Fault::ClockStep { place: Place::Master(master), by } => self.masters[master].offset += by,
            Fault::ClockStep { place: Place::Agent(agent), by } => self.agents[agent].offset += by,
            Fault::Reload { agent, span } => self.reload_systemd(agent, span),
            Fault::BusAway { agent, span } => self.lose_bus(agent, span),
            Fault::SignalsLost { agent, span } => self.agents[agent].signals_lost_until = until(span),
            Fault::JournalAway { agent, span } => self.agents[agent].journal_away_until = until(span),
            Fault::StopByHand { agent, nth } => {
                let dice = self.dice.range(0, 999);
                let told = self.agents[agent].systemd.stop_by_hand(nth, dice);
                self.by_hand(agent, told);
            }
            Fault::KillByHand { agent, nth } => {
                let told = self.agents[agent].systemd.kill_by_hand(nth);
                self.by_hand(agent, told);
            }
            Fault::RestartByHand { agent, nth } => {
                let told = self.agents[agent].systemd.restart_by_hand(nth);
                self.by_hand(agent, told);
            }
            Fault::FreezeByHand { agent, nth, span } => {
                let until = until(span);
                self.agents[agent].systemd.freeze_by_hand(nth, until);
            }
            Fault::Upgrade { master } => self.replace_master(master, NEWEST, 1000),
            Fault::Downgrade { master } => self.replace_master(master, NEWEST - 1, 1000),
        }
    }

    fn pause_master(&mut self, master: usize, span: Ms) {
        // What watches over its leadership gets its turn a little after the rest.
        let turn = self.dice.range(0, 300);
        // What waits for the end of a longer pause must not be overtaken.
        let until = self.masters[master].paused_until.max(self.now + span);
        self.masters[master].paused_until = until;
        self.masters[master].watch_again_at = until + turn;
    }

    fn break_connections(&mut self, agent: usize) {
        let of_agent = |(_, conn): &(&u64, &Conn)| conn.agent == agent && conn.open == [true; 2];
        let ids: Vec<u64> = self.conns.iter().filter(of_agent).map(|(id, _)| *id).collect();
        ids.into_iter().for_each(|id| self.break_conn(id));
    }

    fn cut(&mut self, pairs: &[(Place, Place)], span: Ms) {
        let until = self.now + span;
        self.net.cuts.retain(|(_, _, until)| *until > self.now);
        self.net.cuts.extend(pairs.iter().map(|(from, to)| (*from, *to, until)));
        self.at(until, Event::Mended);
    }

    /// All faults are over: clocks are right, nothing is cut, everything that is down comes up.
    pub(crate) fn calm(&mut self) {
        self.net = Net::default();
        for master in &mut self.masters {
            (master.offset, master.paused_until, master.disk_fails_until, master.slow) = (0, 0, 0, (0, 0));
        }
        for agent in &mut self.agents {
            (agent.offset, agent.paused_until, agent.disk_fails_until) = (0, 0, 0);
            (agent.signals_lost_until, agent.journal_away_until, agent.armed) = (0, 0, None);
        }
        self.flush_stalled();
        // The clocks of all were set: whoever waits for a time looks again.
        for place in self.places() {
            self.at(self.now, Event::Wake(place));
        }
        // An upgrade that was begun is brought to its end: who went back after the version was raised cannot go on.
        if self.plan.faults.iter().any(|(_, fault)| matches!(fault, Fault::Upgrade { .. })) {
            for number in 0..self.masters.len() {
                if self.masters[number].knows < NEWEST {
                    self.replace_master(number, NEWEST, 500);
                }
            }
        }
    }

    fn places(&self) -> Vec<Place> {
        let masters = (0..self.masters.len()).map(Place::Master);
        masters.chain((0..self.agents.len()).map(Place::Agent)).collect()
    }
}

fn ends(conn: &Conn, way: Way) -> (Place, Place) {
    let (agent, master) = (Place::Agent(conn.agent), Place::Master(conn.master));
    match way {
        Way::ToMaster => (agent, master),
        Way::ToAgent => (master, agent),
    }
}

fn fault_name(fault: &Fault) -> &'static str {
    match fault {
        Fault::Weather { .. } => "bad network",
        Fault::Cut { .. } => "one-way cut",
        Fault::Isolate { .. } => "isolation",
        Fault::Split { .. } => "partition",
        Fault::Break { .. } => "broken connection",
        Fault::Kill { place: Place::Master(_), .. } => "master killed",
        Fault::Kill { .. } => "agent killed",
        Fault::PowerCut { place: Place::Master(_), .. } => "master's power cut",
        Fault::PowerCut { .. } => "agent's power cut",
        Fault::Blackout { .. } => "blackout",
        Fault::Pause { .. } => "pause",
        Fault::Deposed { .. } => "leader deposed unnoticed",
        Fault::DiskFails { .. } => "disk error",
        Fault::DiskSlow { .. } => "slow disk",
        Fault::ClockStep { .. } => "clock step",
        Fault::Reload { .. } => "daemon-reload",
        Fault::BusAway { .. } => "bus away",
        Fault::SignalsLost { .. } => "signals lost",
        Fault::JournalAway { .. } => "journal away",
        Fault::StopByHand { .. } => "stop by hand",
        Fault::KillByHand { .. } => "kill by hand",
        Fault::RestartByHand { .. } => "restart by hand",
        Fault::FreezeByHand { .. } => "freeze by hand",
        Fault::Upgrade { .. } => "upgrade",
        Fault::Downgrade { .. } => "downgrade",
    }
}
