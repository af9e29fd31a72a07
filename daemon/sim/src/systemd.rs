//! A node's systemd, as far as an agent can tell: units under names, starts that take time, ends that wait to be let go, and a
//! journal that remembers. What it does by itself later is returned as [`Later`]; what it says, as [`Told`].

use drover_core::ids::TaskId;
use drover_core::node::{Done, Effect, StartOutcome, Trouble};
use drover_core::task::Usage;
use drover_core::unit::{
    ActiveState, Evidence, FIELD_TASK, ListedUnit, ObservedUnit, PropertyValue, StartRefusal, UnitPatch, UnitPlan,
};
use std::collections::BTreeMap;

/// What a task's program does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Behaviour {
    /// Ends by itself after so long, with this status.
    pub(crate) ends: Option<(u64, i32)>,
    /// Does not heed SIGTERM.
    pub(crate) is_stubborn: bool,
    /// Cannot be executed.
    pub(crate) is_missing: bool,
    /// systemd does not take its description.
    pub(crate) is_refused: bool,
}

impl Behaviour {
    /// Out of its command line: words as in `exit 3 after 2000`, `stubborn`, `missing`, `refused`, `forever`.
    fn of(line: &str) -> Self {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |word: &str| {
            let at = words.iter().position(|known| *known == word)?;
            words.get(at + 1)?.parse::<i64>().ok()
        };
        Self {
            ends: number("after").map(|after| (after as u64, number("exit").unwrap_or(0) as i32)),
            is_stubborn: words.contains(&"stubborn"),
            is_missing: words.contains(&"missing"),
            is_refused: words.contains(&"refused"),
        }
    }
}

/// A call of the agent that waits for an answer.
pub(crate) type CallId = u64;

#[derive(Debug)]
struct Unit {
    seen: ObservedUnit,
    behaviour: Behaviour,
    grace: u64,
    frozen_until: u64,
    /// A start that waits for its job.
    starter: Option<(CallId, TaskId)>,
    /// Stops that wait for theirs.
    stoppers: Vec<CallId>,
}

/// Something systemd is going to do.
#[derive(Debug, Clone)]
pub(crate) struct Later {
    pub(crate) after: u64,
    pub(crate) unit: String,
    pub(crate) invocation: String,
    pub(crate) what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// The program is executed.
    Execute,
    /// It ends by itself.
    End,
    /// It ends because it was asked to.
    Heed,
    /// It did not, and is killed.
    Kill,
}

/// What came of a call or of the passing of time.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) answers: Vec<(CallId, Done)>,
    pub(crate) news: Vec<(String, UnitPatch)>,
    pub(crate) later: Vec<Later>,
    /// A unit was made for this task.
    pub(crate) made: Option<TaskId>,
    /// This unit was up and is stopped at the agent's wish.
    pub(crate) stopped: Option<TaskId>,
    /// The program of this unit was executed.
    pub(crate) executed: bool,
}

/// One node's manager.
#[derive(Debug, Default)]
pub(crate) struct Systemd {
    units: BTreeMap<String, Unit>,
    /// By invocation, and the newest by unit.
    journal: BTreeMap<String, Evidence>,
    invocations: u64,
    pub(crate) boot: u64,
    pub(crate) began_at: u64,
}

impl Systemd {
    /// The machine was started anew.
    pub(crate) fn reboot(&mut self, began_at: u64) {
        self.units.clear();
        self.boot += 1;
        self.began_at = began_at;
    }

    pub(crate) fn observe_all(&self) -> Vec<ObservedUnit> {
        self.units.values().map(|unit| unit.seen.clone()).collect()
    }

    /// Tasks whose unit is up.
    pub(crate) fn up(&self) -> impl Iterator<Item = &TaskId> {
        let is_up = |unit: &&Unit| match unit.seen.active {
            ActiveState::Active => unit.seen.sub == "running",
            ActiveState::Activating | ActiveState::Deactivating => true,
            _ => false,
        };
        self.units.values().filter(is_up).filter_map(|unit| unit.seen.task.as_ref())
    }

    /// Every unit of a task that is loaded.
    pub(crate) fn loaded(&self) -> usize {
        self.units.len()
    }

    pub(crate) fn evidence(&self, unit: &str, invocation: Option<&str>) -> Evidence {
        self.journal.get(invocation.unwrap_or(unit)).cloned().unwrap_or(Evidence::Nothing)
    }

    /// A call has arrived. `dice` says how long what it begins takes, 0 to 999.
    pub(crate) fn call(&mut self, call: CallId, effect: Effect, dice: u64) -> Told {
        let mut told = Told::default();
        match effect {
            Effect::Start { task, plan, .. } => self.start(call, task, *plan, dice, &mut told),
            Effect::Stop { unit, .. } => self.stop(Some(call), &unit, dice, &mut told),
            Effect::LetGo { unit, has_failed: false, .. } => self.stop(Some(call), &unit, dice, &mut told),
            Effect::LetGo { unit, has_failed: true, .. } => {
                let outcome = match self.units.get(&unit) {
                    None => Err(Trouble::NoSuchUnit),
                    Some(known) => {
                        if known.seen.active == ActiveState::Failed {
                            self.unload(&unit, &mut told);
                        }
                        Ok(())
                    }
                };
                told.answers.push((call, Done::Stopped { unit, outcome }));
            }
            Effect::Observe { unit } => {
                let outcome = Ok(self.seen(&unit));
                told.answers.push((call, Done::Observed { unit, outcome }));
            }
            Effect::Account { unit } => {
                let usage = Usage { cpu_nanos: self.units.contains_key(&unit).then_some(1), mem_peak_bytes: None };
                told.answers.push((call, Done::Accounted { unit, usage }));
            }
            Effect::List => {
                let units = self.units.values().map(|unit| ListedUnit {
                    name: unit.seen.name.clone(),
                    active: word(unit.seen.active).to_owned(),
                    sub: unit.seen.sub.clone(),
                });
                told.answers.push((call, Done::Listed { units: Some(units.collect()) }));
            }
            Effect::Sweep { tasks, .. } => told.answers.push((call, Done::Swept { tasks, are_gone: true })),
            Effect::Connect | Effect::Investigate { .. } => unreachable!("answered without a call"),
        }
        told
    }

    /// A unit as a look at it shows it.
    pub(crate) fn seen(&self, unit: &str) -> Option<Box<ObservedUnit>> {
        let usage = Some(Usage { cpu_nanos: Some(1), mem_peak_bytes: None });
        self.units.get(unit).map(|known| Box::new(ObservedUnit { usage, ..known.seen.clone() }))
    }

    fn start(&mut self, call: CallId, task: TaskId, plan: UnitPlan, dice: u64, told: &mut Told) {
        let UnitPlan { name, slice, properties, .. } = plan;
        if self.units.contains_key(&name) {
            let outcome = StartOutcome::Exists;
            return told.answers.push((call, Done::Started { task, unit: name, outcome }));
        }
        let property = |wanted: &str| properties.iter().find(|(name, _)| name == wanted).map(|(_, value)| value);
        let Some(PropertyValue::Exec { argv, .. }) = property("ExecStartEx") else { panic!("every unit executes something") };
        let behaviour = Behaviour::of(argv.last().expect("a program has words"));
        if behaviour.is_refused {
            let outcome = StartOutcome::Refused(StartRefusal::Description("no such property".into()));
            return told.answers.push((call, Done::Started { task, unit: name, outcome }));
        }
        let grace = match property("TimeoutStopUSec") {
            Some(PropertyValue::U64(micros)) => micros / 1000,
            _ => 10_000,
        };
        let field = format!("{FIELD_TASK}={task}").into_bytes();
        assert!(
            matches!(property("LogExtraFields"), Some(PropertyValue::ByteTexts(fields)) if fields.contains(&field)),
            "a unit names its task"
        );
        let invocation = self.next_invocation();
        let seen = ObservedUnit {
            name: name.clone(),
            is_loaded: true,
            active: ActiveState::Activating,
            sub: "start".into(),
            result: "success".into(),
            has_job: true,
            invocation: Some(invocation.clone()),
            task: Some(task.clone()),
            slice,
            ..ObservedUnit::default()
        };
        told.made = Some(task.clone());
        let starter = Some((call, task));
        self.units.insert(name.clone(), Unit { seen, behaviour, grace, frozen_until: 0, starter, stoppers: Vec::new() });
        self.tell(&name, told);
        // Most are executed at once; some take their time, as on a loaded machine.
        let after = if dice > 980 { dice * 5 } else { 1 + dice % 20 };
        told.later.push(Later { after, unit: name, invocation, what: What::Execute });
    }

    fn next_invocation(&mut self) -> String {
        self.invocations += 1;
        format!("b{}i{}", self.boot, self.invocations)
    }

    /// `call` is `None` when an operator does it.
    fn stop(&mut self, call: Option<CallId>, name: &str, dice: u64, told: &mut Told) {
        let Some(unit) = self.units.get_mut(name) else {
            let outcome = Err(Trouble::NoSuchUnit);
            return told.answers.extend(call.map(|call| (call, Done::Stopped { unit: name.to_owned(), outcome })));
        };
        let is_up = unit.seen.active != ActiveState::Failed && unit.seen.sub != "exited";
        if !is_up {
            if unit.seen.active != ActiveState::Failed {
                self.journal_end(name, Evidence::Stopped);
                self.unload(name, told);
            }
            return told.answers.extend(call.map(|call| (call, Done::Stopped { unit: name.to_owned(), outcome: Ok(()) })));
        }
        if call.is_some() {
            told.stopped.clone_from(&unit.seen.task);
        }
        unit.stoppers.extend(call);
        if unit.seen.active == ActiveState::Deactivating {
            return;
        }
        if let Some((starter, task)) = unit.starter.take() {
            let done = Done::Started { task, unit: name.to_owned(), outcome: StartOutcome::Made };
            told.answers.push((starter, done));
        }
        unit.seen.active = ActiveState::Deactivating;
        unit.seen.sub = "stop-sigterm".into();
        unit.seen.has_job = true;
        unit.frozen_until = 0;
        let (what, after) = match unit.behaviour.is_stubborn {
            true => (What::Kill, unit.grace.max(1)),
            false => (What::Heed, 1 + dice / 5),
        };
        let invocation = unit.seen.invocation.clone().expect("what was started has one");
        told.later.push(Later { after, unit: name.to_owned(), invocation, what });
        self.tell(name, told);
    }

    /// What was to happen later happens now.
    pub(crate) fn pass(&mut self, later: &Later, now: u64) -> Told {
        let mut told = Told::default();
        let Some(unit) = self.units.get_mut(&later.unit) else { return told };
        if unit.seen.invocation.as_deref() != Some(&*later.invocation) {
            return told;
        }
        if unit.frozen_until > now {
            told.later.push(Later { after: unit.frozen_until - now, ..later.clone() });
            return told;
        }
        let state = unit.seen.active;
        match later.what {
            What::Execute if state == ActiveState::Activating => {
                unit.seen.has_job = false;
                if unit.behaviour.is_missing {
                    self.fail(&later.unit, "exit-code", 1, 203, &mut told);
                } else {
                    unit.seen.active = ActiveState::Active;
                    unit.seen.sub = "running".into();
                    unit.seen.was_active = true;
                    told.executed = true;
                    if let Some((after, _)) = unit.behaviour.ends {
                        told.later.push(Later { after, what: What::End, ..later.clone() });
                    }
                    self.tell(&later.unit, &mut told);
                }
                let unit = self.units.get_mut(&later.unit).expect("it is still there");
                if let Some((call, task)) = unit.starter.take() {
                    let done = Done::Started { task, unit: later.unit.clone(), outcome: StartOutcome::Made };
                    told.answers.push((call, done));
                }
            }
            What::End if state == ActiveState::Active && unit.seen.sub == "running" => {
                let (_, status) = unit.behaviour.ends.expect("it ends by itself");
                if status == 0 {
                    unit.seen.sub = "exited".into();
                    unit.seen.exec_main_code = 1;
                    self.tell(&later.unit, &mut told);
                } else {
                    self.fail(&later.unit, "exit-code", 1, status, &mut told);
                }
            }
            What::Heed | What::Kill if state == ActiveState::Deactivating => {
                let stoppers = std::mem::take(&mut unit.stoppers);
                unit.seen.has_job = false;
                if later.what == What::Kill {
                    self.fail(&later.unit, "timeout", 2, 9, &mut told);
                } else {
                    self.journal_end(&later.unit, Evidence::Stopped);
                    self.unload(&later.unit, &mut told);
                }
                let done = |call| (call, Done::Stopped { unit: later.unit.clone(), outcome: Ok(()) });
                told.answers.extend(stoppers.into_iter().map(done));
            }
            What::Execute | What::End | What::Heed | What::Kill => {}
        }
        told
    }

    fn fail(&mut self, name: &str, result: &str, code: i32, status: i32, told: &mut Told) {
        let unit = self.units.get_mut(name).expect("it is there");
        unit.seen.active = ActiveState::Failed;
        unit.seen.sub = "failed".into();
        unit.seen.result = result.to_owned();
        (unit.seen.exec_main_code, unit.seen.exec_main_status) = (code, status);
        self.journal_end(name, Evidence::Failed { result: result.to_owned(), code, status });
        self.tell(name, told);
    }

    fn journal_end(&mut self, name: &str, evidence: Evidence) {
        let invocation = self.units[name].seen.invocation.clone().expect("what was started has one");
        self.journal.insert(invocation, evidence.clone());
        self.journal.insert(name.to_owned(), evidence);
    }

    fn unload(&mut self, name: &str, told: &mut Told) {
        let unit = self.units.remove(name).expect("it was there");
        let patch = UnitPatch {
            active: Some(ActiveState::Inactive),
            sub: Some("dead".into()),
            has_job: Some(false),
            is_loaded: Some(false),
            ..patch_of(&unit.seen)
        };
        told.news.push((name.to_owned(), patch));
    }

    fn tell(&self, name: &str, told: &mut Told) {
        told.news.push((name.to_owned(), patch_of(&self.units[name].seen)));
    }

    fn nth_up(&self, nth: usize) -> Option<String> {
        let running: Vec<&String> =
            self.units.iter().filter(|(_, unit)| unit.seen.sub == "running").map(|(name, _)| name).collect();
        (!running.is_empty()).then(|| running[nth % running.len()].clone())
    }

    /// `systemctl stop` by an operator. Returns whose unit it was.
    pub(crate) fn stop_by_hand(&mut self, nth: usize, dice: u64) -> Option<Told> {
        let name = self.nth_up(nth)?;
        let mut told = Told::default();
        self.stop(None, &name, dice, &mut told);
        Some(told)
    }

    /// `systemctl kill -s KILL` by an operator.
    pub(crate) fn kill_by_hand(&mut self, nth: usize) -> Option<Told> {
        let name = self.nth_up(nth)?;
        let mut told = Told::default();
        self.fail(&name, "signal", 2, 9, &mut told);
        Some(told)
    }

    /// `systemctl restart` by an operator.
    pub(crate) fn restart_by_hand(&mut self, nth: usize) -> Option<Told> {
        let name = self.nth_up(nth)?;
        let mut told = Told::default();
        self.journal_end(&name, Evidence::Stopped);
        let invocation = self.next_invocation();
        let unit = self.units.get_mut(&name).expect("it is up");
        unit.seen.invocation = Some(invocation.clone());
        if let Some((after, _)) = unit.behaviour.ends {
            told.later.push(Later { after, unit: name.clone(), invocation, what: What::End });
        }
        self.tell(&name, &mut told);
        Some(told)
    }

    /// `systemctl freeze` by an operator.
    pub(crate) fn freeze_by_hand(&mut self, nth: usize, until: u64) {
        if let Some(name) = self.nth_up(nth) {
            self.units.get_mut(&name).expect("it is up").frozen_until = until;
        }
    }
}

fn patch_of(seen: &ObservedUnit) -> UnitPatch {
    UnitPatch {
        active: Some(seen.active),
        sub: Some(seen.sub.clone()),
        result: Some(seen.result.clone()),
        exec_main_code: Some(seen.exec_main_code),
        exec_main_status: Some(seen.exec_main_status),
        was_active: Some(seen.was_active),
        has_job: Some(seen.has_job),
        invocation: Some(seen.invocation.clone()),
        is_loaded: Some(true),
    }
}

fn word(state: ActiveState) -> &'static str {
    match state {
        ActiveState::Active => "active",
        ActiveState::Reloading => "reloading",
        ActiveState::Inactive => "inactive",
        ActiveState::Failed => "failed",
        ActiveState::Activating => "activating",
        ActiveState::Deactivating => "deactivating",
    }
}
