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
