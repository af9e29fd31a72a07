//! Makes a failing plan small: parts are left out for as long as the same invariant fails.

use crate::{Failure, Options, Plan, run};

/// The smallest plan found that breaks the same invariant, and how it does.
pub fn shrink(plan: &Plan, failure: &Failure, options: Options) -> (Plan, Failure) {
    let mut best = (plan.clone(), failure.clone());
    let fails = |plan: &Plan| run(plan, options).failure.filter(|found| found.invariant == failure.invariant);
    loop {
        let before = size(&best.0);
        // Large parts first, then single ones.
        for parts in [2, 4, 8, usize::MAX] {
            best = without_parts(best, parts, |plan| &mut plan.faults, &fails);
            best = without_parts(best, parts, |plan| &mut plan.wishes, &fails);
        }
        for (masters, agents) in [(1, best.0.agents), (3, best.0.agents), (best.0.masters, best.0.agents - 1)] {
            let smaller = Plan { masters, agents, ..best.0.clone() };
            if agents > 0
                && masters < best.0.masters + usize::from(agents < best.0.agents)
                && names_only_what_is_there(&smaller)
                && let Some(found) = fails(&smaller)
            {
                best = (smaller, found);
            }
        }
        if size(&best.0) >= before {
            return best;
        }
    }
}

fn size(plan: &Plan) -> usize {
    plan.faults.len() + plan.wishes.len() + plan.masters + plan.agents
}

fn without_parts<T: Clone>(
    mut best: (Plan, Failure),
    parts: usize,
    list: impl Fn(&mut Plan) -> &mut Vec<T>,
    fails: &impl Fn(&Plan) -> Option<Failure>,
) -> (Plan, Failure) {
    let mut from = 0;
    loop {
        let mut smaller = best.0.clone();
        let items = list(&mut smaller);
        if from >= items.len() {
            return best;
        }
        let step = (items.len() / parts).max(1);
        items.drain(from..(from + step).min(items.len()));
        match fails(&smaller) {
            Some(found) => best = (smaller, found),
            None => from += step,
        }
    }
}

/// A fault of a machine that is left out would have nowhere to happen.
fn names_only_what_is_there(plan: &Plan) -> bool {
    use crate::{Fault, Place};
    let is_there = |place: &Place| match place {
        Place::Master(master) => *master < plan.masters,
        Place::Agent(agent) => *agent < plan.agents,
    };
    plan.faults.iter().all(|(_, fault)| match fault {
        Fault::Weather { .. } | Fault::Split { .. } | Fault::Blackout { .. } | Fault::Deposed { .. } => true,
        Fault::Cut { from, to, .. } => is_there(from) && is_there(to),
        Fault::Isolate { place, .. }
        | Fault::Kill { place, .. }
        | Fault::PowerCut { place, .. }
        | Fault::Pause { place, .. }
        | Fault::DiskFails { place, .. }
        | Fault::ClockStep { place, .. } => is_there(place),
        Fault::DiskSlow { master, .. } | Fault::Upgrade { master } | Fault::Downgrade { master } => *master < plan.masters,
        Fault::Break { agent }
        | Fault::Reload { agent, .. }
        | Fault::BusAway { agent, .. }
        | Fault::SignalsLost { agent, .. }
        | Fault::JournalAway { agent, .. }
        | Fault::StopByHand { agent, .. }
        | Fault::KillByHand { agent, .. }
        | Fault::RestartByHand { agent, .. }
        | Fault::FreezeByHand { agent, .. } => *agent < plan.agents,
    })
}
