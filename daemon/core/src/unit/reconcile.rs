//! What to do about a node's units now: the whole ledger against everything systemd has, each time anew.

use super::ledger::{Ledger, LedgerTask, Phase};
use super::name::{is_unit_of_a_task, unit_name};
use super::observed::{ActiveState, Evidence, ObservedUnit};
use super::plan::{NodeFacts, Occupancy, UnitPlan, plan};
use super::status::{StartRefusal, Verdict, start_refused, status_of, status_of_vanished};
use crate::ids::TaskId;
use crate::task::{Reason, TaskState, TaskStatus};
use crate::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// All that is known, at one moment.
#[derive(Debug)]
pub struct View<'a> {
    /// What is on disk.
    pub ledger: &'a Ledger,
    /// Units by name, those included that were seen and are gone since the agent runs.
    pub units: &'a BTreeMap<String, ObservedUnit>,
    /// Units that something is being done about: nothing more is asked for until that is over.
    pub busy: &'a BTreeSet<String>,
    /// What the journal said of tasks asked about by [`UnitAction::Investigate`].
    pub evidence: &'a BTreeMap<TaskId, Evidence>,
    /// Tasks that this process asked systemd to start and whose answer was lost with the bus. They are asked for again once
    /// neither systemd nor the journal knows of their unit.
    pub unanswered: &'a BTreeSet<TaskId>,
    /// Tasks whose unit systemd would not make, and why.
    pub refused: &'a BTreeMap<TaskId, StartRefusal>,
    /// How many starts may be begun now. The others wait without a trace, so that a crash does not leave them in doubt.
    pub starts_max: usize,
    /// The node.
    pub facts: &'a NodeFacts,
    /// Whether a leader has told the whole assignment since the agent runs. Before, an unknown unit may be wanted.
    pub has_heard_leader: bool,
    /// The time.
    pub now: Timestamp,
}

/// One thing to do. Each can be repeated, and carries its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitAction {
    /// Put the intent on record, then ask systemd for the unit.
    Start {
        /// The task.
        task: TaskId,
        /// Its unit.
        plan: Box<UnitPlan>,
        /// Why.
        reason: &'static str,
    },
    /// Put on record that this start of the unit is the task's.
    Adopt {
        /// The task.
        task: TaskId,
        /// Its unit.
        unit: String,
        /// Of which start.
        invocation: String,
        /// Why.
        reason: &'static str,
    },
    /// Ask systemd to end it.
    Stop {
        /// The task, unless nobody knows it.
        task: Option<TaskId>,
        /// The unit.
        unit: String,
        /// Why.
        reason: String,
    },
    /// Put a status on record and send it.
    Report {
        /// The status.
        status: Box<TaskStatus>,
    },
    /// Let an ended unit go.
    Clean {
        /// The unit.
        unit: String,
        /// Whether it failed: a failed unit is reset, another stopped.
        has_failed: bool,
        /// Why.
        reason: &'static str,
    },
    /// Ask the journal how a vanished unit ended.
    Investigate {
        /// The task.
        task: TaskId,
        /// Its unit.
        unit: String,
        /// Which start of it, if any is on record.
        invocation: Option<String>,
        /// Why.
        reason: &'static str,
    },
    /// Strike the task off the ledger.
    Forget {
        /// The task.
        task: TaskId,
        /// Why.
        reason: &'static str,
    },
}

/// Decides what to do. In order of task ids; the shell may do everything at once, since each action is about another unit
/// or only about the ledger.
pub fn reconcile(view: &View<'_>) -> Vec<UnitAction> {
    let mut room = Room { occupancy: Occupancy::new(), starts: view.starts_max };
    for unit in view.units.values().filter(|unit| unit.is_loaded || view.busy.contains(&unit.name)) {
        *room.occupancy.entry(unit.slice.clone()).or_default() += 1;
    }
    let mut actions = Vec::new();
    let mut claimed = BTreeSet::new();
    for (id, task) in &view.ledger.tasks {
        let name = unit_name(id);
        let case = Case { id, task, unit: view.units.get(&name), is_busy: view.busy.contains(&name), name: &name, view };
        case.decide(&mut room, &mut actions);
        claimed.insert(name);
    }
    if view.has_heard_leader {
        let strays = view.units.values().filter(|unit| !claimed.contains(&unit.name) && !view.busy.contains(&unit.name));
        actions.extend(strays.filter_map(stop_stray));
    }
    actions
}

/// A unit that was started for a task which neither the ledger nor the leader knows: its task was given up while this node
/// was away.
fn stop_stray(unit: &ObservedUnit) -> Option<UnitAction> {
    let task =
        unit.task.as_ref().filter(|task| unit.is_loaded && is_unit_of_a_task(&unit.name) && unit_name(task) == unit.name)?;
    let name = unit.name.clone();
    match unit.active {
        ActiveState::Active if unit.sub == "exited" => Some(UnitAction::Clean {
            unit: name,
            has_failed: false,
            reason: "it has ended, and neither ledger nor leader knows its task",
        }),
        ActiveState::Failed => Some(UnitAction::Clean {
            unit: name,
            has_failed: true,
            reason: "it has failed, and neither ledger nor leader knows its task",
        }),
        ActiveState::Active | ActiveState::Reloading | ActiveState::Activating => Some(UnitAction::Stop {
            task: None,
            unit: name,
            reason: format!("neither ledger nor leader knows its task {task}"),
        }),
        ActiveState::Inactive | ActiveState::Deactivating => None,
    }
}

/// What there is room for, used up as the tasks are gone through.
struct Room {
    occupancy: Occupancy,
    starts: usize,
}

/// One task and everything that bears on it.
struct Case<'a> {
    id: &'a TaskId,
    task: &'a LedgerTask,
    name: &'a str,
    unit: Option<&'a ObservedUnit>,
    is_busy: bool,
    view: &'a View<'a>,
}

impl Case<'_> {
    fn decide(&self, room: &mut Room, actions: &mut Vec<UnitAction>) {
        match &self.task.phase {
            Phase::Assigned => self.not_started(room, actions),
            Phase::Starting { boot } | Phase::Started { boot, .. } if *boot != self.view.facts.boot => {
                let message = "its node was started anew, and with it all units";
                actions.extend(self.report(&Verdict::new(TaskState::Gone, Reason::Reboot, message), None));
            }
            Phase::Starting { .. } => self.may_be_started(room, actions),
            Phase::Started { invocation, .. } => self.started(invocation, actions),
            Phase::Ended { invocation } => self.ended(invocation.as_deref(), actions),
        }
    }

    fn not_started(&self, room: &mut Room, actions: &mut Vec<UnitAction>) {
        if !self.task.is_wanted {
            let reason = "it is not assigned any more and was never started";
            actions.push(UnitAction::Forget { task: self.id.clone(), reason });
        } else if let Some(why) = &self.task.kill {
            let message = format!("{why}; it had not been started");
            actions.extend(self.report(&Verdict::new(TaskState::Killed, Reason::KillRequested, message), None));
        } else if !self.is_busy {
            match self.unit.filter(|unit| unit.is_loaded) {
                None if self.task.acknowledged > 0 => {
                    let message =
                        "it was started before, by the word of a ledger that is lost, and systemd does not have its unit";
                    actions.extend(self.report(&Verdict::new(TaskState::Lost, Reason::UnitMissing, message), None));
                }
                None => self.start("it is assigned to this node", room, actions),
                Some(unit) if self.is_own(unit) => {
                    let reason = "the leader assigns a task whose unit is here, and the ledger has lost its start";
                    actions.extend(self.adopt(unit, reason));
                }
                Some(_) => actions.extend(self.in_the_way()),
            }
        }
    }

    fn in_the_way(&self) -> Option<UnitAction> {
        let message = format!("the node has a unit {} that is not drover's", self.name);
        self.report(&Verdict::new(TaskState::Error, Reason::BadUnit, message), None)
    }

    fn start(&self, reason: &'static str, room: &mut Room, actions: &mut Vec<UnitAction>) {
        if room.starts == 0 {
            return;
        }
        match plan(self.id, &self.task.spec, self.view.facts, &room.occupancy) {
            Ok(plan) => {
                room.starts -= 1;
                *room.occupancy.entry(plan.slice.clone()).or_default() += 1;
                actions.push(UnitAction::Start { task: self.id.clone(), plan: Box::new(plan), reason });
                actions.extend(self.report(&Verdict::new(TaskState::Starting, Reason::Normal, ""), None));
            }
            Err(faults) => {
                let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
                actions.extend(self.report(&Verdict::new(TaskState::Error, Reason::BadUnit, faults.join("; ")), None));
            }
        }
    }

    /// The intent is on record and nothing else: the agent was cut off around the call, or the call is under way.
    fn may_be_started(&self, room: &mut Room, actions: &mut Vec<UnitAction>) {
        match self.unit {
            Some(unit) if unit.is_loaded && self.is_own(unit) => {
                actions.extend(self.adopt(unit, "its start was on record, and its unit is there"));
            }
            Some(unit) if !unit.is_loaded && unit.invocation.is_some() && unit.has_ended() => {
                self.settle(status_of(unit, &self.task.spec, self.task.end_wanted()), Some(unit), actions);
            }
            _ if self.is_busy => {}
            _ if let Some(refusal) = self.view.refused.get(self.id) => {
                actions.extend(self.report(&start_refused(refusal), None));
            }
            Some(unit) if unit.is_loaded && !self.is_own(unit) => actions.extend(self.in_the_way()),
            Some(unit) if unit.is_loaded => {}
            // The same process asked, so it was no crash that hides how far it came: no trace means not started.
            _ if self.view.unanswered.contains(self.id) && self.view.evidence.get(self.id) == Some(&Evidence::Nothing) => {
                match self.task.end_wanted() {
                    Some(why) => {
                        let verdict = Verdict::new(TaskState::Killed, Reason::KillRequested, why);
                        actions.extend(self.report(&verdict, None));
                    }
                    None => self.start("systemd's answer to its start was lost, and no such unit was made", room, actions),
                }
            }
            _ => self.vanished(None, actions),
        }
    }

    fn started(&self, invocation: &str, actions: &mut Vec<UnitAction>) {
        // What was seen of a unit that is gone counts only if its end was seen.
        let same =
            self.unit.filter(|unit| unit.invocation.as_deref() == Some(invocation) && (unit.is_loaded || unit.has_ended()));
        let Some(unit) = same else {
            if !self.is_busy {
                self.vanished(Some(invocation), actions);
            }
            return;
        };
        let verdict = status_of(unit, &self.task.spec, self.task.end_wanted());
        let is_up =
            unit.is_loaded && matches!(unit.active, ActiveState::Active | ActiveState::Reloading | ActiveState::Activating);
        let has_ended = verdict.as_ref().is_some_and(|verdict| verdict.state.is_terminal());
        if let Some(why) = self.task.end_wanted()
            && is_up
            && !has_ended
            && !self.is_busy
        {
            actions.push(UnitAction::Stop { task: Some(self.id.clone()), unit: self.name.to_owned(), reason: why.to_owned() });
        }
        self.settle(verdict, Some(unit), actions);
    }

    fn ended(&self, invocation: Option<&str>, actions: &mut Vec<UnitAction>) {
        let own = self.unit.filter(|unit| unit.is_loaded && self.is_own(unit));
        match own {
            Some(_) if self.is_busy => {}
            Some(unit) => match unit.active {
                ActiveState::Failed => actions.push(UnitAction::Clean {
                    unit: self.name.to_owned(),
                    has_failed: true,
                    reason: "its end is on record",
                }),
                ActiveState::Active if unit.sub == "exited" => actions.push(UnitAction::Clean {
                    unit: self.name.to_owned(),
                    has_failed: false,
                    reason: "its end is on record",
                }),
                ActiveState::Active | ActiveState::Reloading | ActiveState::Activating => {
                    let reason = if unit.invocation.as_deref() == invocation {
                        "its task was given up for lost"
                    } else {
                        "it was started again by hand after its task had ended"
                    };
                    let reason = reason.to_owned();
                    actions.push(UnitAction::Stop { task: Some(self.id.clone()), unit: self.name.to_owned(), reason });
                }
                ActiveState::Inactive | ActiveState::Deactivating => {}
            },
            None if !self.task.is_wanted && self.task.unacknowledged().is_none() && !self.is_busy => {
                let reason = "the masters have its end on record";
                actions.push(UnitAction::Forget { task: self.id.clone(), reason });
            }
            None => {}
        }
    }

    fn vanished(&self, invocation: Option<&str>, actions: &mut Vec<UnitAction>) {
        match self.view.evidence.get(self.id) {
            Some(evidence) => {
                let verdict = status_of_vanished(evidence, &self.task.spec, self.task.end_wanted(), invocation.is_some());
                actions.extend(self.report(&verdict, None));
            }
            None => actions.push(UnitAction::Investigate {
                task: self.id.clone(),
                unit: self.name.to_owned(),
                invocation: invocation.map(str::to_owned),
                reason: "systemd does not have its unit any more",
            }),
        }
    }

    fn settle(&self, verdict: Option<Verdict>, unit: Option<&ObservedUnit>, actions: &mut Vec<UnitAction>) {
        if let Some(verdict) = verdict {
            actions.extend(self.report(&verdict, unit));
        }
    }

    /// A unit drover started for this very task.
    fn is_own(&self, unit: &ObservedUnit) -> bool {
        unit.task.as_ref() == Some(self.id)
    }

    fn adopt(&self, unit: &ObservedUnit, reason: &'static str) -> Option<UnitAction> {
        // Without an invocation its start has not begun; the next signal brings one.
        let invocation = unit.invocation.clone()?;
        Some(UnitAction::Adopt { task: self.id.clone(), unit: self.name.to_owned(), invocation, reason })
    }

    /// The next status of the task, unless it says what the last one said.
    fn report(&self, verdict: &Verdict, unit: Option<&ObservedUnit>) -> Option<UnitAction> {
        let last = self.task.status.as_ref();
        let invocation = match (&self.task.phase, unit) {
            (Phase::Started { invocation, .. }, _) => Some(invocation.clone()),
            (_, Some(unit)) => unit.invocation.clone(),
            (_, None) => None,
        };
        let is_news = last.is_none_or(|last| last.state != verdict.state || last.reason != verdict.reason);
        is_news.then(|| UnitAction::Report {
            status: Box::new(TaskStatus {
                task: self.id.clone(),
                seq: last.map_or(self.task.acknowledged, |last| last.seq) + 1,
                state: verdict.state,
                reason: verdict.reason,
                message: verdict.message.clone(),
                at: self.view.now,
                exit: verdict.exit,
                invocation,
                usage: unit.filter(|_| verdict.state.is_terminal()).and_then(|unit| unit.usage),
            }),
        })
    }
}

#[cfg(test)]
mod tests;
