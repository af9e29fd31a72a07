//! What the shell tells of a unit.

use crate::ids::TaskId;
use crate::task::Usage;

/// systemd's `ActiveState`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ActiveState {
    /// Up; also a unit that ended with success and is kept (`SubState=exited`).
    Active,
    /// Up, and changing its configuration (`reloading`, `refreshing`).
    Reloading,
    /// Not there, or not any more.
    #[default]
    Inactive,
    /// Ended badly, and kept.
    Failed,
    /// On its way up.
    Activating,
    /// On its way down.
    Deactivating,
}

impl ActiveState {
    /// Reads systemd's word. One that is not known here is a state between others: nothing is concluded from it.
    pub fn parse(word: &str) -> Self {
        match word {
            "active" => Self::Active,
            "inactive" => Self::Inactive,
            "failed" => Self::Failed,
            "activating" => Self::Activating,
            "deactivating" => Self::Deactivating,
            _ => Self::Reloading,
        }
    }
}

/// A unit as last seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedUnit {
    /// Its name.
    pub name: String,
    /// Whether systemd still has it. If not, the rest is the last that was seen of it.
    pub is_loaded: bool,
    /// `ActiveState`.
    pub active: ActiveState,
    /// `SubState`.
    pub sub: String,
    /// `Result`, `success` unless something went wrong.
    pub result: String,
    /// `ExecMainCode`: 1 exited, 2 killed, 3 dumped core, 0 not ended.
    pub exec_main_code: i32,
    /// `ExecMainStatus`: exit status or signal.
    pub exec_main_status: i32,
    /// Whether it was ever active in this invocation, that is, whether its program was executed.
    pub was_active: bool,
    /// Whether a unit job waits or runs for it.
    pub has_job: bool,
    /// `InvocationID`, in hex.
    pub invocation: Option<String>,
    /// The task its journal fields name: set on what drover started.
    pub task: Option<TaskId>,
    /// `Slice`.
    pub slice: String,
    /// What it used, as far as accounted.
    pub usage: Option<Usage>,
    /// Whether the kernel refused it another process.
    pub was_refused_a_process: bool,
}

impl ObservedUnit {
    /// Whether it has ended, well or badly, and stays so.
    pub fn has_ended(&self) -> bool {
        match self.active {
            ActiveState::Failed => true,
            ActiveState::Active => self.sub == "exited",
            ActiveState::Inactive => !self.has_job,
            ActiveState::Reloading | ActiveState::Activating | ActiveState::Deactivating => false,
        }
    }

    /// Whether systemd has it as it was started with this invocation, or at all when none is on record. One that was
    /// restarted by hand is another start: how this one ended, only the journal tells.
    pub fn is_start(&self, invocation: Option<&str>) -> bool {
        self.is_loaded && invocation.is_none_or(|invocation| self.invocation.as_deref() == Some(invocation))
    }
}

/// What changed of a unit; what is `None` did not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitPatch {
    /// `ActiveState`.
    pub active: Option<ActiveState>,
    /// `SubState`.
    pub sub: Option<String>,
    /// `Result`.
    pub result: Option<String>,
    /// `ExecMainCode`.
    pub exec_main_code: Option<i32>,
    /// `ExecMainStatus`.
    pub exec_main_status: Option<i32>,
    /// Whether it was ever active in this invocation.
    pub was_active: Option<bool>,
    /// Whether a unit job waits or runs for it.
    pub has_job: Option<bool>,
    /// `InvocationID`; `Some(None)` when it was taken away.
    pub invocation: Option<Option<String>>,
    /// Whether systemd has it.
    pub is_loaded: Option<bool>,
}

impl UnitPatch {
    /// Brings what is known of a unit up to date. Returns whether that changed anything.
    pub fn apply_to(self, unit: &mut ObservedUnit) -> bool {
        fn set<T: PartialEq>(place: &mut T, value: Option<T>) -> bool {
            match value {
                Some(value) if *place != value => {
                    *place = value;
                    true
                }
                Some(_) | None => false,
            }
        }
        [
            set(&mut unit.active, self.active),
            set(&mut unit.sub, self.sub),
            set(&mut unit.result, self.result),
            set(&mut unit.exec_main_code, self.exec_main_code),
            set(&mut unit.exec_main_status, self.exec_main_status),
            set(&mut unit.was_active, self.was_active),
            set(&mut unit.has_job, self.has_job),
            // A unit that has been collected loses its invocation on the way; whose end it was stays known.
            self.invocation.flatten().is_some_and(|invocation| set(&mut unit.invocation, Some(Some(invocation)))),
            set(&mut unit.is_loaded, self.is_loaded),
        ]
        .contains(&true)
    }

    /// Takes what a newer patch says over what this one does.
    pub fn merge(&mut self, newer: UnitPatch) {
        fn take<T>(place: &mut Option<T>, newer: Option<T>) {
            if newer.is_some() {
                *place = newer;
            }
        }
        take(&mut self.active, newer.active);
        take(&mut self.sub, newer.sub);
        take(&mut self.result, newer.result);
        take(&mut self.exec_main_code, newer.exec_main_code);
        take(&mut self.exec_main_status, newer.exec_main_status);
        take(&mut self.was_active, newer.was_active);
        take(&mut self.has_job, newer.has_job);
        take(&mut self.invocation, newer.invocation);
        take(&mut self.is_loaded, newer.is_loaded);
    }
}

/// A unit as systemd lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedUnit {
    /// Its name.
    pub name: String,
    /// `ActiveState`.
    pub active: String,
    /// `SubState`.
    pub sub: String,
}

/// What the journal says of a unit that systemd does not have any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// It was stopped, and ended as asked.
    Stopped,
    /// It failed; the fields are systemd's `UNIT_RESULT`, `EXIT_CODE` (as in [`ObservedUnit::exec_main_code`]), `EXIT_STATUS`.
    Failed {
        /// `UNIT_RESULT`.
        result: String,
        /// How the main process ended.
        code: i32,
        /// With what.
        status: i32,
    },
    /// Nothing about its end.
    Nothing,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_by_hand_is_another_start() {
        let unit = ObservedUnit { is_loaded: true, invocation: Some("i2".into()), ..ObservedUnit::default() };
        assert!(unit.is_start(Some("i2")) && unit.is_start(None));
        assert!(!unit.is_start(Some("i1")), "a question about the first would never be answered");
        assert!(!ObservedUnit { is_loaded: false, ..unit }.is_start(Some("i2")));
    }

    #[test]
    fn a_collected_unit_keeps_its_invocation() {
        let mut unit = ObservedUnit { invocation: Some("i1".into()), ..ObservedUnit::default() };
        UnitPatch { invocation: Some(None), is_loaded: Some(false), ..UnitPatch::default() }.apply_to(&mut unit);
        assert_eq!(unit.invocation.as_deref(), Some("i1"));
    }
}
