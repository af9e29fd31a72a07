//! Masters of two versions: replaced by newer and by older ones, and the cluster's version raised between them. What `apply`, the
//! version of the state and `version_after` do is drover's own; who is asked, and when that is enough, is modelled.

use crate::Mutant;
use crate::client::{Answered, Errand};
use crate::master::{Master, SILENCE, Waiter};
use crate::plan::Ms;
use crate::truth::Broken;
use crate::world::World;
use drover_core::state::{ClusterVersion, Command};

/// The newest version that a drover of the simulation knows; all masters begin with the one before.
pub(crate) const NEWEST: u32 = 2;

/// The cluster's version is to be raised, once every master has answered that it knows the next.
#[derive(Debug)]
pub(crate) struct Raising {
    to: u32,
    round: u64,
    asked_at: Ms,
    pub(crate) until: Ms,
    pub(crate) errand: Errand,
}

impl World {
    /// Its drover is replaced by one that knows versions up to `knows`.
    pub(crate) fn replace_master(&mut self, number: usize, knows: u32, down: Ms) {
        let master = &mut self.masters[number];
        if knows < master.knows {
            master.went_back_at = Some(self.now);
        }
        master.knows = knows;
        self.end_master(number, false, down);
    }

    /// A client wants the cluster's version raised to the newest that this master knows.
    pub(crate) fn raise(&mut self, number: usize, errand: Errand) {
        let (now, to) = (self.now, self.masters[number].knows);
        let proc = self.masters[number].proc.as_mut().expect("it leads");
        if to <= proc.state.version.0 {
            let answered = Answered::Decided(proc.applied, Vec::new());
            return self.errand_answered(number, errand, answered);
        }
        let round = proc.raft.ask_round(now);
        proc.raising.push(Raising { to, round, asked_at: now, until: now + SILENCE, errand });
        self.settle_master(number);
    }

    /// Whoever waited for the masters' word has it, or not in time.
    pub(crate) fn finish_raising(&mut self, number: usize) -> bool {
        let now = self.now;
        let is_rash = self.mutant == Some(Mutant::RaisesUnasked);
        let proc = self.masters[number].proc.as_mut().expect("it is settled");
        let is_over = |raising: &mut Raising| {
            is_rash || proc.raft.known_by_all(raising.round).is_some() || raising.until <= now || !proc.raft.is_leader()
        };
        let Some(at) = proc.raising.iter_mut().position(is_over) else { return false };
        let Raising { to, round, asked_at, errand, .. } = proc.raising.remove(at);
        match proc.raft.known_by_all(round).filter(|_| proc.raft.is_leader()) {
            Some(known) if known < to && !is_rash => {
                self.coverage.raises_refused += 1;
                self.errand_answered(number, errand, Answered::Decided(0, Vec::new()));
            }
            None if !is_rash => self.errand_answered(number, errand, Answered::Unavailable),
            Some(_) | None => {
                let at = self.master_now(number).time;
                let has_known = |master: &Master| master.knows >= to || master.went_back_at.is_some_and(|at| at >= asked_at);
                let unasked: Vec<usize> = self.masters.iter().filter(|m| !has_known(m)).map(|m| m.number).collect();
                self.judge(a_version_is_raised_with_every_masters_word(to, &unasked));
                let raise = Command::RaiseVersion { to: ClusterVersion(to), at };
                self.propose(number, vec![raise], Waiter::Client(errand));
            }
        }
        true
    }
}

/// Each master knew the version when it was asked; these did not.
fn a_version_is_raised_with_every_masters_word(to: u32, unasked: &[usize]) -> Result<(), Broken> {
    if !unasked.is_empty() {
        return Err(("a version is raised with every master's word", format!("to {to}, without {unasked:?}")));
    }
    Ok(())
}
