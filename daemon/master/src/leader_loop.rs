//! Runs the leader's mind while this master leads: decide, propose, wait until everything proposed was applied or refused,
//! decide again. All choices are made by [`drover_core::leader`]; this file only carries them.

use crate::agents::Agents;
use crate::board::Board;
use crate::clock;
use crate::config::MasterConfig;
use crate::consensus::Consensus;
use crate::metrics;
use crate::subject::Subject;
use drover_core::leader::pace::{Leading, Next, REFUSED_PAUSE, Round};
use drover_core::state::{ClusterState, Command};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// The leader loop and what it reads and writes beside the log.
pub(crate) struct LeaderLoop {
    pub(crate) consensus: Consensus,
    pub(crate) agents: Arc<Agents>,
    pub(crate) board: Arc<Board>,
    pub(crate) config: Arc<MasterConfig>,
}

impl LeaderLoop {
    /// Waits to lead, leads, and waits again, until shut down.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut leadership = self.consensus.leadership();
        loop {
            let is_me = leadership.borrow_and_update().is_me;
            if is_me {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = self.lead() => {}
                }
                self.board.publish(BTreeMap::new());
                self.agents.forget();
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = leadership.changed(), if !is_me => if changed.is_err() { return },
                () = std::future::ready(()), if is_me => {}
            }
        }
    }

    /// Leads until leadership is lost.
    async fn lead(&self) {
        let mut leadership = self.consensus.leadership();
        let term = leadership.borrow_and_update().term;
        // A new leader's state may lag behind what its predecessor acknowledged; once it has confirmed, it does not.
        if let Err(error) = self.consensus.confirm_leadership().await {
            debug!(%error, "not leading after all");
            tokio::time::sleep(REFUSED_PAUSE).await;
            return;
        }
        info!(term, "leading");
        self.propose(self.settings()).await;
        let mut leading = Leading::new(self.config.agent_timeout, clock::both());
        let mut applied = self.consensus.applied();
        let mut heard_of = self.agents.heard_of();
        loop {
            applied.borrow_and_update();
            heard_of.borrow_and_update();
            let mut round = self.decide(&mut leading);
            self.board.publish(std::mem::take(&mut round.decision.waiting));
            let honoured = self.propose(round.take_commands()).await;
            let Next::Rest(rest) = round.concluded(honoured, clock::both()) else { continue };
            tokio::select! {
                changed = applied.changed() => if changed.is_err() { return },
                changed = heard_of.changed() => if changed.is_err() { return },
                changed = leadership.changed() => {
                    if changed.is_err() || !leadership.borrow_and_update().is_me {
                        return;
                    }
                }
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    fn decide(&self, leading: &mut Leading) -> Round {
        let began = Instant::now();
        let heard = self.agents.heard();
        let round = self.consensus.read(|state| leading.decide(state, heard, clock::both(), &mut clock::new_id));
        metrics::DECISION.took([], began.elapsed());
        round
    }

    /// Proposes and waits for each to be applied or refused. Returns how many were honoured.
    async fn propose(&self, commands: Vec<Command>) -> usize {
        if commands.is_empty() {
            return 0;
        }
        let told: Vec<(&'static str, Subject)> = self
            .consensus
            .read(|state| commands.iter().map(|command| (metrics::command(command), Subject::of(command, state))).collect());
        told.iter().for_each(|(_, subject)| subject.tell_proposed());
        let results = self.consensus.propose_all(commands).await;
        let mut honoured = 0;
        for ((command, subject), result) in told.iter().zip(&results) {
            metrics::COMMANDS.inc([command, if result.is_ok() { "applied" } else { "refused" }]);
            match result {
                Ok(index) => {
                    honoured += 1;
                    subject.tell_applied(*index);
                }
                Err(error) => subject.tell_refused(error),
            }
        }
        if honoured == 0
            && let Some(Err(error)) = results.last()
        {
            warn!(%error, proposed = results.len(), "nothing of what was proposed was honoured");
        }
        honoured
    }

    /// What the configuration asks for and the state does not have: roles' weights, bounds.
    fn settings(&self) -> Vec<Command> {
        let at = clock::now();
        let differs = |state: &ClusterState| {
            let wanted = self.config.weights_milli.iter();
            let weights = wanted
                .filter(|(role, weight)| state.roles.get(*role).map_or(1000, |record| record.weight_milli) != **weight)
                .map(|(role, weight_milli)| Command::SetRoleWeight { role: role.clone(), weight_milli: *weight_milli, at });
            let bounds = self.config.limits.bounds;
            let bounds = (state.bounds != bounds).then_some(Command::SetBounds { bounds, at });
            weights.chain(bounds).filter(|command| state.may_be_written(command)).collect()
        };
        self.consensus.read(differs)
    }
}
