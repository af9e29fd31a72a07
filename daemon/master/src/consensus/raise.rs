//! Raising the cluster's version: what the masters write from then on is of it, and drover of before cannot read that.
//!
//! Every master, learners included, has to say first that it knows the new version. Each says so with every answer to a
//! message of the leader (see [`network`](super::network)), so the leader waits for one more answer of each. No master joins
//! meanwhile; one that is replaced by an older drover in this very moment stops itself at the entry that raises the version.

use std::time::Instant;

use drover_core::state::{ClusterVersion, Command, STATE_VERSION};
use drover_core::time::Timestamp;
use futures_util::future::join_all;

use super::membership::CHANGE_PATIENCE;
use super::{Consensus, Knows, Master, ProposeError};

/// Why the version was not raised.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RaiseError {
    /// Only the leader can.
    #[error("this master does not lead")]
    NotLeader {
        /// Who does, if that is known.
        leader: Option<Master>,
    },
    /// Some masters do not know it, or cannot be asked: each by its name, with why.
    #[error("not every master is known to read what version {to} writes")]
    Masters {
        /// The version.
        to: u32,
        /// What is in the way.
        faults: Vec<(String, String)>,
    },
    /// Versions go up only.
    #[error("the cluster is at version {at}, and there is no way back to {to}")]
    Lower {
        /// The cluster's.
        at: u32,
        /// What was asked for.
        to: u32,
    },
    /// The masters are changing.
    #[error("a change of the masters is under way: try again in a moment")]
    Busy,
    /// It was not written.
    #[error(transparent)]
    Propose(#[from] ProposeError),
}

impl Consensus {
    /// Raises the cluster's version to the one asked for, or to the newest that a master knows. Returns the cluster's version
    /// then. Asking for the version that it is at changes nothing.
    pub async fn raise_version(&self, to: Option<u32>, at: Timestamp) -> Result<u32, RaiseError> {
        // Nobody is taken in meanwhile who was not asked.
        let turn = tokio::time::timeout(CHANGE_PATIENCE, self.inner.membership.lock()).await;
        let _turn = turn.map_err(|_| RaiseError::Busy)?;
        let leadership = self.inner.leadership.borrow().clone();
        if !leadership.is_me {
            return Err(RaiseError::NotLeader { leader: leadership.leader });
        }
        let known = self.ask_all().await;
        let newest = known.iter().filter_map(|(_, knows)| knows.as_ref().map(|knows| knows.version)).max();
        let (to, at_now) = (to.or(newest).unwrap_or(STATE_VERSION), self.read(|state| state.version.0));
        let faults = faults(to, known);
        if to < at_now {
            return Err(RaiseError::Lower { at: at_now, to });
        }
        if to == at_now {
            return Ok(at_now);
        }
        if !faults.is_empty() {
            return Err(RaiseError::Masters { to, faults });
        }
        self.propose(Command::RaiseVersion { to: ClusterVersion(to), at }).await?;
        tracing::info!(version = to, "the cluster's version is raised");
        Ok(to)
    }

    /// What each master says now that it knows; `None` if it does not answer.
    async fn ask_all(&self) -> Vec<(String, Option<Knows>)> {
        let began = Instant::now();
        let asked = self.members().into_iter().map(|member| async move {
            if member.id == self.inner.me.id {
                return (member.name, Some(Knows::ours()));
            }
            let answered = self.inner.network.answers_after(member.id, began);
            (member.name, tokio::time::timeout(self.inner.silence, answered).await.ok().flatten())
        });
        join_all(asked).await
    }
}

fn faults(to: u32, known: Vec<(String, Option<Knows>)>) -> Vec<(String, String)> {
    let fault = |(name, knows): (String, Option<Knows>)| {
        let why = match knows {
            Some(knows) if knows.version >= to => return None,
            Some(Knows { version, release }) => {
                format!("it runs drover {release} and knows versions up to {version}: install the newer drover there")
            }
            None => "it does not answer, so nobody knows what it can read: bring it back, or remove it".to_owned(),
        };
        Some((name, why))
    };
    known.into_iter().filter_map(fault).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_told_at_once() {
        let knows = |version| Some(Knows { version, release: "0.9.0".to_owned() });
        let known = vec![("n1".to_owned(), knows(2)), ("n2".to_owned(), knows(1)), ("n3".to_owned(), None)];
        let told = faults(2, known.clone());
        let names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["n2", "n3"]);
        assert!(told[0].1.contains("drover 0.9.0 and knows versions up to 1"), "{}", told[0].1);
        assert!(told[1].1.contains("does not answer"), "{}", told[1].1);
        assert_eq!(faults(1, known).len(), 1);
    }
}
