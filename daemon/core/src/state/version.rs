//! The version of what is replicated, and how a cluster gets from one to the next while masters of two versions serve it.
//!
//! ```text
//! every master knows 1 ── one master after the other is upgraded ──▶ all know 2, the cluster is at 1
//!          ▲                                                             │            │
//!          └────────────────────── and back again ◀──────────────────────┘            │ RaiseVersion
//!                                                                                     ▼
//!                                        the cluster is at 2: who knows only 1 goes on no more
//! ```
//!
//! What is written to the log and to snapshots is of the *cluster's* version, whatever the masters know beyond it: then any of
//! them can be replaced by the version before. An operator raises it once every master knows the next one.
//!
//! Who adds to a shape that is replicated raises [`STATE_VERSION`], says in [`Command::since`] which commands need it, and sees
//! to it that a state of the version before is written without what is new (`skip_serializing_if`) and read without it
//! (`default`). `apply` may act upon what is new only where the cluster's version knows it.

use super::{ClusterState, Command, Refusal, Told};
use crate::event::EventKind;
use serde::{Deserialize, Serialize};

/// The newest version of the replicated shapes (commands in the log, the state in snapshots) that this build knows. It reads all
/// versions up to it.
///
/// With the feature `next-version` it is one more than that, so that tests have a build of tomorrow.
pub const STATE_VERSION: u32 = if cfg!(feature = "next-version") { LATEST + 1 } else { LATEST };

/// The newest version that is described here.
const LATEST: u32 = 1;

/// The version that a cluster's log and snapshots are written at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterVersion(pub u32);

impl Default for ClusterVersion {
    /// Every cluster begins at the first, and so does one whose snapshot says nothing of versions.
    fn default() -> Self {
        Self(1)
    }
}

/// Something was written by a drover that knows more than this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "version {0} of what masters replicate is needed, and this drover knows versions up to {STATE_VERSION}: install the newer \
     drover that the other masters run (`drover masters list` shows it)"
)]
pub struct TooNew(pub u32);

/// Whether this build can read what is of a version.
pub fn check_known(version: u32) -> Result<(), TooNew> {
    if version > STATE_VERSION { Err(TooNew(version)) } else { Ok(()) }
}

impl Command {
    /// The version that brought this command. A cluster of an earlier one must not find it in its log.
    pub fn since(&self) -> u32 {
        match self {
            Self::AdmitAgent { .. }
            | Self::MarkAgentUnreachable { .. }
            | Self::RemoveAgent { .. }
            | Self::SetRoleWeight { .. }
            | Self::SetBounds { .. }
            | Self::RaiseVersion { .. }
            | Self::ChangeApps { .. }
            | Self::AdvanceDeployment { .. }
            | Self::CancelDeployment { .. }
            | Self::ResetFailures { .. }
            | Self::LaunchTask { .. }
            | Self::KillTask { .. }
            | Self::RecordStatus { .. }
            | Self::ExpungeTask { .. }
            | Self::PutJob { .. }
            | Self::RemoveJob { .. }
            | Self::StartRun { .. }
            | Self::RetryRun { .. }
            | Self::FinishRun { .. }
            | Self::MarkJobSuccess { .. }
            | Self::PutJoinToken { .. }
            | Self::UseJoinToken { .. } => 1,
        }
    }
}

impl ClusterState {
    /// Whether every master of this cluster's version can read the command.
    pub fn may_be_written(&self, command: &Command) -> bool {
        command.since() <= self.version.0
    }

    /// The cluster's version once these commands are applied.
    pub fn version_after(&self, commands: &[Command]) -> ClusterVersion {
        let raised = commands.iter().filter_map(|command| match command {
            Command::RaiseVersion { to, .. } => Some(*to),
            _ => None,
        });
        raised.fold(self.version, ClusterVersion::max)
    }

    pub(super) fn raise_version(&mut self, to: ClusterVersion, told: &mut Told) -> Result<(), Refusal> {
        if to <= self.version {
            return Err(Refusal::Stale(format!("the cluster's version, {} now,", self.version.0)));
        }
        self.version = to;
        told.push(EventKind::VersionRaised(to.0));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;
    use crate::ids::Role;
    use crate::state::Applied;
    use crate::time::Timestamp;

    fn raise(to: u32) -> Command {
        Command::RaiseVersion { to: ClusterVersion(to), at: Timestamp(5) }
    }

    #[test]
    fn a_version_goes_up_only_and_tells_so() {
        let mut state = ClusterState::default();
        assert_eq!(state.version, ClusterVersion(1));
        assert_eq!(state.version_after(&[raise(3), raise(2)]), ClusterVersion(3));
        for (to, is_honoured, then) in [(1, false, 1), (0, false, 1), (3, true, 3), (3, false, 3), (2, false, 3), (4, true, 4)]
        {
            assert_eq!(state.version_after(&[raise(to)]).0, then, "to {to}, foretold");
            let Applied { result, events } = state.apply(&raise(to));
            assert_eq!((result.is_ok(), state.version.0), (is_honoured, then), "to {to}");
            let told = Event { at: Timestamp(5), kind: EventKind::VersionRaised(to) };
            assert_eq!(events, if is_honoured { vec![told] } else { vec![] });
            assert!(matches!(result, Ok(()) | Err(Refusal::Stale(_))));
        }
    }

    #[test]
    fn a_state_from_before_there_were_versions_is_of_the_first() {
        let mut state = serde_json::to_value(ClusterState::default()).unwrap();
        assert_eq!(state["version"], 1);
        state.as_object_mut().unwrap().remove("version");
        assert_eq!(serde_json::from_value::<ClusterState>(state).unwrap(), ClusterState::default());
    }

    #[test]
    fn what_a_version_does_not_know_is_not_written() {
        let command = Command::SetRoleWeight { role: Role::any(), weight_milli: 1, at: Timestamp(0) };
        let known_since = |version| ClusterState { version: ClusterVersion(version), ..ClusterState::default() };
        assert!(known_since(1).may_be_written(&command) && known_since(2).may_be_written(&command));
        assert!(!known_since(0).may_be_written(&command));
    }

    #[test]
    fn a_build_knows_all_versions_up_to_its_own() {
        assert_eq!(check_known(1), Ok(()));
        assert_eq!(check_known(STATE_VERSION), Ok(()));
        let refused = check_known(STATE_VERSION + 1).unwrap_err().to_string();
        assert!(refused.contains("install the newer drover"), "{refused}");
    }
}
