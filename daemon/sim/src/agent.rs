//! An agent: the real minds of drover ([`drover_core::node`]) over a simulated disk, systemd and network.

use crate::Mutant;
use crate::master::millis;
use crate::plan::{Crash, Ms, Place};
use crate::systemd::{CallId, Later, Systemd, Told};
use crate::world::{DialAnswer, EPOCH, Event, Item, Way, World, note};
use drover_core::agent::{AgentInfo, unreserved};
use drover_core::ids::{AgentId, TaskId};
use drover_core::leader::session::Heard;
use drover_core::node::{Conversation, Dialer, Done, Due, Effect, Input, Left, Next, Node, StartOutcome, TICK, Trouble};
use drover_core::resources::{Ports, Scalars};
use drover_core::sandbox::Manager;
use drover_core::task::Usage;
use drover_core::time::Millis;
use drover_core::unit::{Assignment, FORMAT, Ledger, NodeFacts, Record, UnitPatch, ledger_text, read_ledger, unit_name};
use std::collections::{BTreeMap, BTreeSet};

/// Lines beyond which a ledger is rewritten; far fewer than in earnest, so that it happens.
const LINES_MAX: usize = 300;

/// How long an agent that ended by itself stays down.
const RESTART: Ms = 1_000;

/// What a master says to an agent.
#[derive(Debug, Clone)]
pub(crate) enum ToAgent {
    Welcome { heartbeat: Millis },
    Ping,
    Assign(Assignment),
    Acknowledge(Vec<(TaskId, u64)>),
}

/// A node's machine.
#[derive(Debug)]
pub(crate) struct Machine {
    number: usize,
    pub(crate) systemd: Systemd,
    /// The ledger as it is on disk, and as it was written.
    disk: Vec<u8>,
    written: Vec<u8>,
    lines: usize,
    pub(crate) proc: Option<Box<Proc>>,
    /// Counts its processes.
    pub(crate) life: u64,
    pub(crate) is_powered: bool,
    pub(crate) offset: i64,
    pub(crate) paused_until: Ms,
    pub(crate) disk_fails_until: Ms,
    pub(crate) signals_lost_until: Ms,
    pub(crate) journal_away_until: Ms,
    bus_away_until: Ms,
    /// systemd reads its configuration.
    busy_until: Ms,
    /// A crash that waits for its moment: how, whether the machine goes with it, and for how long.
    pub(crate) armed: Option<(Crash, bool, Ms)>,
    /// Tasks whose unit an operator has had in hand.
    by_hand: BTreeSet<TaskId>,
    /// Counts calls over all processes: what systemd answers to one that is gone is no answer to the next.
    calls_made: CallId,
}

/// An agent's process.
#[derive(Debug)]
pub(crate) struct Proc {
    pub(crate) node: Node,
    dialer: Dialer,
    phase: Phase,
    began: Ms,
    tick_at: Ms,
    /// Effects under way.
    calls: BTreeMap<CallId, Effect>,
    /// Signals are asked for.
    is_subscribed: bool,
    /// The connection to systemd is told to the mind.
    has_bus: bool,
    news: BTreeMap<String, UnitPatch>,
    must_relist: bool,
    is_news_coming: bool,
    wake_at: Option<Ms>,
}

#[derive(Debug)]
enum Phase {
    Idle,
    Waiting(Ms),
    Dialling { conn: u64, master: String, until: Ms },
    Talking { conn: u64, master: String, mind: Conversation, is_welcomed: bool },
}

/// Why an agent ends.
enum Fatal {
    DiskFails,
    Crash,
}

impl Machine {
    pub(crate) fn new(number: usize) -> Self {
        Self {
            number,
            systemd: Systemd::default(),
            disk: Vec::new(),
            written: Vec::new(),
            lines: 0,
            proc: None,
            life: 0,
            is_powered: false,
            offset: 0,
            paused_until: 0,
            disk_fails_until: 0,
            signals_lost_until: 0,
            journal_away_until: 0,
            bus_away_until: 0,
            busy_until: 0,
            armed: None,
            by_hand: BTreeSet::new(),
            calls_made: 0,
        }
    }

    pub(crate) fn id(&self) -> AgentId {
        AgentId::new(format!("a{}", self.number))
    }

    fn boot_id(&self) -> String {
        format!("boot{}", self.systemd.boot)
    }

    pub(crate) fn info(&self) -> AgentInfo {
        let scalars = Scalars { cpus_milli: 2000, mem_bytes: 4 << 30, disk_bytes: 10 << 30, gpus: 0 };
        AgentInfo {
            id: self.id(),
            host: format!("n{}", self.number),
            boot_id: self.boot_id(),
            resources: unreserved(scalars, Ports::from_ranges([(31000, 31005)])),
            attributes: BTreeMap::new(),
            systemd: 252,
            version: String::new(),
            enforces: BTreeSet::new(),
            tasks_max: 12,
        }
    }

    /// Whether everything a leader was told by it is settled.
    pub(crate) fn owes_nothing(&self) -> bool {
        self.proc.as_ref().is_some_and(|proc| {
            proc.node.is_connected() && proc.node.ledger().tasks.values().all(|task| task.unacknowledged().is_none())
        })
    }
}

impl World {
    pub(crate) fn begin_agent(&mut self, number: usize, life: u64) {
        let now = self.now;
        let masters: Vec<String> = (0..self.masters.len()).map(|master| format!("m{master}")).collect();
        let machine = &mut self.agents[number];
        if machine.proc.is_some() || machine.life != life {
            return;
        }
        if !machine.is_powered {
            machine.is_powered = true;
            let began_at = u64::try_from(EPOCH + now as i64 + machine.offset).unwrap_or(0);
            machine.systemd.reboot(began_at);
            (machine.busy_until, machine.bus_away_until) = (0, 0);
        }
        machine.life += 1;
        let read = read_ledger(&machine.written).expect("a ledger is torn at its end only");
        machine.written.truncate(read.good);
        machine.disk.clone_from(&machine.written);
        machine.lines = read.lines;
        let mut ledger = read.ledger;
        if ledger.agent.is_none() {
            let first = Record::Opened { format: FORMAT, agent: machine.id() };
            ledger.apply(&first);
            if machine.disk_fails_until > now {
                return self.restart_agent(number);
            }
            machine.written.extend(ledger_text(&[first]));
            machine.disk.clone_from(&machine.written);
            machine.lines += 1;
        }
        let facts = NodeFacts {
            boot: String::new(),
            systemd: 252,
            manager: Manager::System,
            task_slice: "drover.slice".into(),
            state_root: "/var/lib".into(),
            enforces: BTreeSet::new(),
        };
        let (id, boot_id) = (machine.id(), machine.boot_id());
        let verdict = self.truth.ledger_kept(&id, &ledger);
        self.judge(verdict);
        let node = Node::new(ledger, facts, boot_id, self.clock(Place::Agent(number), now));
        note!(self, "agent {number} begins");
        self.agents[number].proc = Some(Box::new(Proc {
            node,
            dialer: Dialer::new(masters),
            phase: Phase::Idle,
            began: now,
            tick_at: now,
            calls: BTreeMap::new(),
            is_subscribed: false,
            has_bus: false,
            news: BTreeMap::new(),
            must_relist: false,
            is_news_coming: false,
            wake_at: None,
        }));
        self.coverage.agent_starts += 1;
        self.settle_agent(number);
    }

    /// A crash now, or at the next write.
    pub(crate) fn crash_agent(&mut self, number: usize, crash: Crash, is_power_cut: bool, down: Ms) {
        match crash {
            Crash::Now => self.end_agent(number, is_power_cut, down),
            _ => self.agents[number].armed = Some((crash, is_power_cut, down)),
        }
    }

    pub(crate) fn end_agent(&mut self, number: usize, is_power_cut: bool, down: Ms) {
        let machine = &mut self.agents[number];
        machine.armed = None;
        if let Some(proc) = machine.proc.take()
            && let Phase::Dialling { conn, .. } | Phase::Talking { conn, .. } = proc.phase
        {
            self.close(conn, Way::ToAgent, !is_power_cut);
        }
        let machine = &mut self.agents[number];
        if is_power_cut {
            machine.is_powered = false;
            machine.written.clone_from(&machine.disk);
        }
        machine.life += 1;
        let life = machine.life;
        note!(self, "agent {number} ends{}", if is_power_cut { " with its machine" } else { "" });
        self.after(down, Event::Begin { place: Place::Agent(number), life });
    }

    fn restart_agent(&mut self, number: usize) {
        self.end_agent(number, false, RESTART);
    }

    pub(crate) fn wake_agent(&mut self, number: usize) {
        let now = self.agent_now(number);
        let Some(proc) = &mut self.agents[number].proc else { return };
        if proc.wake_at.is_none_or(|at| at <= self.now) {
            proc.wake_at = None;
        }
        if proc.tick_at <= self.now {
            proc.tick_at = self.now + millis(TICK);
            self.take_in(number, Input::Tick);
        }
        let Some(proc) = &mut self.agents[number].proc else { return };
        proc.node.turn(now);
        self.settle_agent(number);
    }

    fn agent_now(&self, number: usize) -> drover_core::time::Now {
        let began = self.agents[number].proc.as_ref().map_or(self.now, |proc| proc.began);
        self.clock(Place::Agent(number), began)
    }

    fn take_in(&mut self, number: usize, input: Input) {
        let now = self.agent_now(number);
        let Some(proc) = &mut self.agents[number].proc else { return };
        let input = match input {
            Input::Assigned(mut assignment) if self.mutant == Some(Mutant::TakesOldAssignments) => {
                let held = proc.node.ledger().generation;
                assignment.generation = if assignment.generation > held { assignment.generation } else { held + 1 };
                Input::Assigned(assignment)
            }
            input => input,
        };
        if let Err(ignored) = proc.node.take_in(input, now) {
            self.coverage.older_assignments += 1;
            note!(self, "agent {number}: {ignored}");
        }
    }

    // The session.

    fn converse(&mut self, number: usize) {
        let began = self.agents[number].proc.as_ref().map_or(self.now, |proc| proc.began);
        let now = self.agent_now(number);
        loop {
            let dice = u32::try_from(self.dice.range(0, 999)).expect("below a thousand");
            let Some(proc) = &mut self.agents[number].proc else { return };
            match &mut proc.phase {
                Phase::Waiting(until) if *until > self.now => return,
                Phase::Idle | Phase::Waiting(_) => match proc.dialer.next(now.steady, dice) {
                    Next::Wait(wait) => proc.phase = Phase::Waiting(self.now + millis(wait)),
                    Next::Dial { master, patience } => {
                        let until = self.now + millis(patience);
                        let to = master[1..].parse().expect("masters have numbers");
                        let conn = self.dial(number, to);
                        let proc = self.agents[number].proc.as_mut().expect("it was just there");
                        proc.phase = Phase::Dialling { conn, master, until };
                    }
                },
                Phase::Dialling { conn, until, .. } => {
                    if *until > self.now {
                        return;
                    }
                    let conn = *conn;
                    self.leave(number, conn, Left::Failed);
                }
                Phase::Talking { conn, mind, is_welcomed, .. } => {
                    let conn = *conn;
                    let is_welcomed = *is_welcomed;
                    if began + millis(mind.due_at()) > self.now {
                        return;
                    }
                    match mind.due(now.steady) {
                        Some(Due::Heartbeat) => self.send(conn, Way::ToMaster, Item::Heard(Heard::Heartbeat)),
                        Some(Due::Silent(_)) => {
                            self.leave(number, conn, if is_welcomed { Left::Lost } else { Left::Failed });
                        }
                        None => return,
                    }
                }
            }
        }
    }

    /// Gives a master up.
    fn leave(&mut self, number: usize, conn: u64, how: Left) {
        let now = self.agent_now(number);
        self.close(conn, Way::ToAgent, true);
        let Some(proc) = &mut self.agents[number].proc else { return };
        let (Phase::Dialling { master, .. } | Phase::Talking { master, .. }) = std::mem::replace(&mut proc.phase, Phase::Idle)
        else {
            return;
        };
        let is_lost = how == Left::Lost;
        proc.dialer.left(&master, how, now.steady);
        if is_lost {
            self.take_in(number, Input::Lost);
        }
    }

    pub(crate) fn receive_answer(&mut self, conn: u64, answer: DialAnswer) {
        let Some(number) = self.conns.get(&conn).map(|conn| conn.agent) else { return };
        let now = self.agent_now(number);
        let is_current = self.agents[number].life == self.conns[&conn].agent_life;
        let Some(proc) = &mut self.agents[number].proc else { return };
        let Phase::Dialling { conn: own, master, .. } = &proc.phase else { return };
        if *own != conn || !is_current {
            return;
        }
        match answer {
            DialAnswer::Accepted => {
                let (master, mind) = (master.clone(), Conversation::new(now.steady));
                proc.phase = Phase::Talking { conn, master, mind, is_welcomed: false };
            }
            DialAnswer::NotLeading(leader) => {
                self.leave(number, conn, Left::NotLeading(leader.map(|leader| format!("m{leader}"))));
            }
            DialAnswer::Refused => self.leave(number, conn, Left::Failed),
        }
        self.settle_agent(number);
    }

    pub(crate) fn agent_hears(&mut self, conn: u64, said: ToAgent) {
        let Some(number) = self.conns.get(&conn).map(|conn| conn.agent) else { return };
        let now = self.agent_now(number);
        let masters = (0..self.masters.len()).map(|master| format!("m{master}")).collect();
        let Some(proc) = &mut self.agents[number].proc else { return };
        let Phase::Talking { conn: own, master, mind, is_welcomed } = &mut proc.phase else { return };
        if *own != conn {
            return;
        }
        mind.heard(now.steady);
        match said {
            ToAgent::Ping => {}
            ToAgent::Welcome { heartbeat } => {
                *is_welcomed = true;
                mind.welcomed(heartbeat, now.steady);
                proc.dialer.welcomed(master, masters);
                self.take_in(number, Input::Connected);
            }
            ToAgent::Assign(assignment) => self.take_in(number, Input::Assigned(assignment)),
            ToAgent::Acknowledge(statuses) => self.take_in(number, Input::Acknowledged(statuses)),
        }
        self.settle_agent(number);
    }

    pub(crate) fn conversation_closed(&mut self, conn: u64) {
        let Some(number) = self.conns.get(&conn).map(|conn| conn.agent) else { return };
        let Some(proc) = &mut self.agents[number].proc else { return };
        match &proc.phase {
            Phase::Talking { conn: own, is_welcomed, .. } if *own == conn => {
                let how = if *is_welcomed { Left::Lost } else { Left::Failed };
                self.leave(number, conn, how);
            }
            Phase::Dialling { conn: own, .. } if *own == conn => self.leave(number, conn, Left::Failed),
            _ => self.close(conn, Way::ToAgent, false),
        }
        self.settle_agent(number);
    }

    /// What the agent has to say goes out, if anybody listens.
    fn tell_statuses(&mut self, number: usize) {
        let now = self.agent_now(number);
        let Some(proc) = &mut self.agents[number].proc else { return };
        if proc.node.tell_at().is_none_or(|at| at > now.steady) {
            return;
        }
        let statuses = proc.node.take_statuses(now);
        if let Phase::Talking { conn, is_welcomed: true, .. } = proc.phase
            && !statuses.is_empty()
        {
            self.send(conn, Way::ToMaster, Item::Heard(Heard::Statuses(statuses)));
        }
    }

    // The ledger, and what waits for it.

    /// Carries everything that follows from what just happened to an agent.
    fn settle_agent(&mut self, number: usize) {
        self.converse(number);
        if self.put_on_record(number).is_err() {
            return;
        }
        self.tell_statuses(number);
        self.schedule_agent(number);
    }

    fn put_on_record(&mut self, number: usize) -> Result<(), ()> {
        let Some(mut proc) = self.agents[number].proc.take() else { return Err(()) };
        let (now, mutant) = (self.now, self.mutant);
        let machine = &mut self.agents[number];
        let armed = machine.armed;
        let mut kept = None;
        let mut written = false;
        let result = proc.node.put_on_record(|records, ledger| {
            written = true;
            if mutant == Some(Mutant::ActsFirst) && matches!(armed, Some((Crash::AfterWrite(_), ..))) {
                // What is done first is not yet on disk when the end comes.
            } else {
                machine.write(records, ledger, armed.map(|(crash, ..)| crash), now, mutant)?;
            }
            kept = Some(ledger.clone());
            Ok::<_, Fatal>(())
        });
        self.agents[number].proc = Some(proc);
        let effects = match result {
            Ok(effects) => effects,
            Err(Fatal::DiskFails) => {
                note!(self, "agent {number} ends: its disk fails");
                self.coverage.disk_ends += 1;
                self.restart_agent(number);
                return Err(());
            }
            Err(Fatal::Crash) => {
                let (_, is_power_cut, down) = armed.expect("a crash was armed");
                self.coverage.crashes_in_writes += 1;
                self.end_agent(number, is_power_cut, down);
                return Err(());
            }
        };
        if let Some(ledger) = kept {
            let verdict = self.truth.ledger_kept(&self.agents[number].id(), &ledger);
            self.judge(verdict);
        }
        let crash_after = match armed {
            Some((Crash::AfterWrite(count), is_power_cut, down)) if written => Some((count, is_power_cut, down)),
            _ => None,
        };
        for (at, effect) in effects.into_iter().enumerate() {
            if crash_after.is_some_and(|(count, ..)| at >= count) {
                break;
            }
            self.carry_out(number, effect);
        }
        if let Some((_, is_power_cut, down)) = crash_after {
            self.coverage.crashes_in_writes += 1;
            self.end_agent(number, is_power_cut, down);
            return Err(());
        }
        Ok(())
    }

    fn carry_out(&mut self, number: usize, effect: Effect) {
        let latency = self.dice.range(1, 4);
        let journal = self.dice.range(5, 60);
        let machine = &mut self.agents[number];
        let (life, boot) = (machine.life, machine.systemd.boot);
        let proc = machine.proc.as_mut().expect("it is settled");
        machine.calls_made += 1;
        let call = machine.calls_made;
        proc.calls.insert(call, effect.clone());
        match effect {
            Effect::Investigate { task, unit, invocation, .. } => {
                let is_away = machine.journal_away_until > self.now;
                let done = match machine.systemd.seen(&unit).filter(|seen| seen.is_start(invocation.as_deref())) {
                    Some(seen) => Done::Observed { unit, outcome: Ok(Some(seen)) },
                    None => {
                        self.coverage.investigations += 1;
                        let evidence = (!is_away).then(|| machine.systemd.evidence(&unit, invocation.as_deref()));
                        Done::Investigated { task, unit, evidence }
                    }
                };
                self.after(journal, Event::Ended { agent: number, life, call, done });
            }
            effect => {
                if let Effect::Start { task, reason, .. } = &effect {
                    note!(self, "agent {number} starts {task}: {reason}");
                }
                if let Effect::Stop { unit, reason, .. } = &effect {
                    note!(self, "agent {number} stops {unit}: {reason}");
                }
                self.after(latency, Event::Call { agent: number, boot, life, call, effect });
            }
        }
    }

    // systemd.

    pub(crate) fn receive_call(&mut self, number: usize, boot: u64, life: u64, call: CallId, effect: Effect) {
        let dice = self.dice.range(0, 999);
        let latency = self.dice.range(1, 4);
        let machine = &mut self.agents[number];
        if !machine.is_powered || machine.systemd.boot != boot {
            return;
        }
        if machine.busy_until > self.now {
            let until = machine.busy_until;
            return self.at(until, Event::Call { agent: number, boot, life, call, effect });
        }
        if machine.bus_away_until > self.now {
            if effect == Effect::Connect {
                // Tried again until the bus is there.
                let again = self.dice.range(100, 5_000);
                return self.after(again, Event::Call { agent: number, boot, life, call, effect });
            }
            let done = failed(effect);
            return self.after(latency, Event::Ended { agent: number, life, call, done });
        }
        if effect == Effect::Connect {
            if machine.life != life {
                return;
            }
            let proc = machine.proc.as_mut().expect("its life is that of the process");
            proc.is_subscribed = true;
            proc.news.clear();
            let done = Done::Connected { began_at: machine.systemd.began_at, units: machine.systemd.observe_all() };
            return self.after(latency, Event::Ended { agent: number, life, call, done });
        }
        // A call that was made takes effect, whether or not its caller still is there.
        let told = machine.systemd.call(call, effect, dice);
        self.systemd_told(number, Some(life), told);
    }

    fn systemd_told(&mut self, number: usize, life: Option<u64>, told: Told) {
        let id = self.agents[number].id();
        if let Some(task) = &told.made {
            self.coverage.starts += 1;
            let verdict = self.truth.unit_made(&id, task);
            self.judge(verdict);
        }
        if let Some(task) = &told.stopped {
            self.coverage.stops += 1;
            let was_touched = self.agents[number].by_hand.contains(task);
            let verdict = self.truth.unit_stopped(&id, task, was_touched);
            self.judge(verdict);
        }
        let (machine, now) = (&mut self.agents[number], self.now);
        let boot = machine.systemd.boot;
        let life = life.unwrap_or(machine.life);
        let hears = machine.signals_lost_until <= now;
        let mut is_coming = false;
        if let Some(proc) = &mut machine.proc
            && proc.is_subscribed
            && hears
        {
            for (unit, patch) in told.news {
                proc.news.entry(unit).or_default().merge(patch);
            }
            is_coming = !std::mem::replace(&mut proc.is_news_coming, true);
        }
        if is_coming {
            let (delay, life) = (self.dice.range(1, 5), self.agents[number].life);
            self.after(delay, Event::Signals { agent: number, life });
        }
        for later in told.later {
            self.after(later.after, Event::Unit { agent: number, boot, later });
        }
        for (call, done) in told.answers {
            // Behind the signals that systemd sent before it answered.
            let delay = self.dice.range(5, 9);
            self.after(delay, Event::Ended { agent: number, life, call, done });
        }
    }

    pub(crate) fn unit_passes(&mut self, number: usize, boot: u64, later: &Later) {
        let machine = &mut self.agents[number];
        if machine.systemd.boot != boot || !machine.is_powered {
            return;
        }
        let told = machine.systemd.pass(later, self.now);
        self.coverage.executed += u64::from(told.executed);
        self.systemd_told(number, None, told);
    }

    pub(crate) fn by_hand(&mut self, number: usize, told: Option<Told>) {
        let Some(told) = told else { return };
        for (unit, _) in &told.news {
            let tasks = self.truth.state.tasks.keys().filter(|task| unit_name(task) == *unit).cloned();
            let tasks: Vec<TaskId> = tasks.collect();
            self.agents[number].by_hand.extend(tasks);
        }
        self.systemd_told(number, None, told);
    }

    pub(crate) fn receive_signals(&mut self, number: usize, life: u64) {
        let machine = &mut self.agents[number];
        if machine.life != life {
            return;
        }
        let Some(proc) = &mut machine.proc else { return };
        proc.is_news_coming = false;
        if !proc.has_bus {
            return;
        }
        let (units, must_relist) = (std::mem::take(&mut proc.news), std::mem::take(&mut proc.must_relist));
        if !units.is_empty() || must_relist {
            self.take_in(number, Input::News { units, must_relist });
        }
        self.settle_agent(number);
    }

    pub(crate) fn receive_end(&mut self, number: usize, life: u64, call: CallId, done: Done) {
        let machine = &mut self.agents[number];
        if machine.life != life {
            return;
        }
        let Some(proc) = &mut machine.proc else { return };
        if proc.calls.remove(&call).is_none() {
            return;
        }
        let mut follow = false;
        if let Done::Connected { .. } = &done {
            proc.has_bus = true;
            follow = !proc.news.is_empty();
        }
        self.take_in(number, Input::Done(done));
        self.settle_agent(number);
        if follow {
            self.receive_signals(number, life);
        }
    }

    pub(crate) fn reload_systemd(&mut self, number: usize, span: Ms) {
        // Calls that wait for the end of a longer one must not be overtaken.
        let until = self.agents[number].busy_until.max(self.now + span);
        let machine = &mut self.agents[number];
        machine.busy_until = until;
        let life = machine.life;
        if let Some(proc) = &mut machine.proc
            && proc.is_subscribed
        {
            proc.must_relist = true;
            self.at(until, Event::Signals { agent: number, life });
        }
    }

    /// The bus is gone for a while: calls under way have no answer, and nothing is heard.
    pub(crate) fn lose_bus(&mut self, number: usize, span: Ms) {
        self.agents[number].bus_away_until = self.now + span;
        let Some(proc) = &mut self.agents[number].proc else { return };
        proc.is_subscribed = false;
        proc.news.clear();
        let told = std::mem::replace(&mut proc.has_bus, false);
        let on_bus = |effect: &Effect| !matches!(effect, Effect::Connect | Effect::Investigate { .. });
        let calls: Vec<CallId> = proc.calls.iter().filter(|(_, effect)| on_bus(effect)).map(|(call, _)| *call).collect();
        let ended: Vec<Done> = calls.iter().filter_map(|call| proc.calls.remove(call)).map(failed).collect();
        if told {
            self.take_in(number, Input::BusLost);
        }
        for done in ended {
            self.take_in(number, Input::Done(done));
        }
        self.settle_agent(number);
    }

    fn schedule_agent(&mut self, number: usize) {
        let Some(proc) = &self.agents[number].proc else { return };
        let began = proc.began;
        let mut at = proc.tick_at;
        for wanted in [proc.node.turn_at(), proc.node.tell_at()].into_iter().flatten() {
            at = at.min(began + millis(wanted));
        }
        at = match &proc.phase {
            Phase::Idle => self.now,
            Phase::Waiting(until) | Phase::Dialling { until, .. } => at.min(*until),
            Phase::Talking { mind, .. } => at.min(began + millis(mind.due_at())),
        };
        let at = at.max(self.now + 1);
        let proc = self.agents[number].proc.as_mut().expect("it was just there");
        if proc.wake_at.is_none_or(|known| known > at) {
            proc.wake_at = Some(at);
            self.at(at, Event::Wake(Place::Agent(number)));
        }
    }
}

impl Machine {
    fn write(
        &mut self,
        records: &[Record],
        after: &Ledger,
        crash: Option<Crash>,
        now: Ms,
        mutant: Option<Mutant>,
    ) -> Result<(), Fatal> {
        let text = ledger_text(records);
        match crash {
            Some(Crash::BeforeWrite) => return Err(Fatal::Crash),
            Some(Crash::TornWrite(thousandths)) => {
                // Part of it reaches the disk, whatever becomes of the machine.
                let part = text.len() * thousandths as usize / 1000;
                self.written.extend(&text[..part]);
                self.disk.clone_from(&self.written);
                return Err(Fatal::Crash);
            }
            _ => {}
        }
        if self.disk_fails_until > now {
            let part = text.len() / 2;
            self.written.extend(&text[..part]);
            return Err(Fatal::DiskFails);
        }
        self.written.extend(text);
        self.lines += records.len();
        if self.lines > LINES_MAX {
            let records = after.compacted();
            self.written = ledger_text(&records);
            self.lines = records.len();
        }
        if mutant != Some(Mutant::NeverSyncs) {
            self.disk.clone_from(&self.written);
        }
        Ok(())
    }
}

/// The end of a call that nobody answers.
fn failed(effect: Effect) -> Done {
    match effect {
        Effect::Start { task, plan, .. } => Done::Started { task, unit: plan.name, outcome: StartOutcome::NoAnswer },
        Effect::Stop { unit, .. } | Effect::LetGo { unit, .. } => Done::Stopped { unit, outcome: Err(Trouble::Other) },
        Effect::Observe { unit } => Done::Observed { unit, outcome: Err(Trouble::Other) },
        Effect::Account { unit } => Done::Accounted { unit, usage: Usage { cpu_nanos: None, mem_peak_bytes: None } },
        Effect::List => Done::Listed { units: None },
        Effect::Sweep { tasks, .. } => Done::Swept { tasks, are_gone: false },
        Effect::Connect | Effect::Investigate { .. } => unreachable!("they do not end with the bus"),
    }
}
