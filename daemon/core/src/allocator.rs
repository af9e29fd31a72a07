//! Who is offered what: weighted dominant-resource fairness over roles. Knows frameworks, roles and agents; knows no apps
//! and no jobs.

use crate::framework::{Framework, Offer};
use crate::ids::{AgentId, FrameworkId, OfferId, Role};
use crate::resources::{Allocation, Pools, Scalars};
use std::collections::{BTreeMap, BTreeSet};

/// The books of one allocation: what is free where, what each role holds, who has said no to what.
#[derive(Debug, Default)]
pub struct Books {
    /// Free resources per agent that answers.
    pub free: BTreeMap<AgentId, Pools>,
    /// How many more tasks each of them takes.
    pub places: BTreeMap<AgentId, u32>,
    /// What each role's tasks hold already.
    pub held: BTreeMap<Role, Scalars>,
    /// Everything the cluster has; what shares are measured against.
    pub total: Scalars,
    /// Thousandths per role; absent means 1000.
    pub weights_milli: BTreeMap<Role, u64>,
    /// Frameworks that declined an agent; not asked again in this allocation.
    pub declined: BTreeSet<(FrameworkId, Role, AgentId)>,
    offers_made: u64,
}

impl Books {
    /// One round: offers each agent's free resources to the framework with the smallest share that has not declined it.
    /// What is offered counts as held for the rest of the round, so the frameworks take turns.
    pub fn offer_round(&mut self, frameworks: &[Framework]) -> Vec<Offer> {
        let mut tentative = self.held.clone();
        let mut offers = Vec::new();
        for (agent, free) in &self.free {
            let open = frameworks.iter().filter(|f| !self.declined.contains(&(f.id.clone(), f.role.clone(), agent.clone())));
            let Some(framework) = open.min_by_key(|f| (self.share(&tentative, &f.role), &f.id, &f.role)) else { continue };
            let resources = free.visible_to(&framework.role);
            let held = tentative.entry(framework.role.clone()).or_default();
            *held = held.plus(resources.total());
            self.offers_made += 1;
            offers.push(Offer {
                id: OfferId::new(format!("O{}", self.offers_made)),
                framework: framework.id.clone(),
                role: framework.role.clone(),
                agent: agent.clone(),
                resources,
                places: self.places.get(agent).copied().unwrap_or(0),
            });
        }
        offers
    }

    /// Books a launch on an offer.
    pub fn accept(&mut self, offer: &Offer, allocation: &Allocation) {
        if let Some(free) = self.free.get_mut(&offer.agent) {
            free.subtract(allocation);
        }
        if let Some(places) = self.places.get_mut(&offer.agent) {
            *places = places.saturating_sub(1);
        }
        let held = self.held.entry(offer.role.clone()).or_default();
        *held = held.plus(allocation.total());
    }

    /// Books a refusal.
    pub fn decline(&mut self, offer: &Offer) {
        self.declined.insert((offer.framework.clone(), offer.role.clone(), offer.agent.clone()));
    }

    /// Dominant share divided by weight, in billionths.
    fn share(&self, held: &BTreeMap<Role, Scalars>, role: &Role) -> u128 {
        let Some(held) = held.get(role) else { return 0 };
        let part = |have: u64, of: u64| if of == 0 { 0 } else { u128::from(have) * 1_000_000_000 / u128::from(of) };
        let dominant = part(held.cpus_milli, self.total.cpus_milli)
            .max(part(held.mem_bytes, self.total.mem_bytes))
            .max(part(held.disk_bytes, self.total.disk_bytes))
            .max(part(held.gpus, self.total.gpus));
        dominant * 1000 / u128::from(self.weights_milli.get(role).copied().unwrap_or(1000).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::unreserved;
    use crate::resources::Ports;
    use proptest::prelude::*;

    fn framework(name: &str) -> Framework {
        Framework { id: FrameworkId::new(name), role: Role::new(name) }
    }

    fn scalars(cpus_milli: u64) -> Scalars {
        Scalars { cpus_milli, mem_bytes: cpus_milli, ..Scalars::default() }
    }

    fn books(agents: u64, cpus_milli: u64) -> Books {
        let free: BTreeMap<_, _> =
            (0..agents).map(|n| (AgentId::new(format!("a{n}")), unreserved(scalars(cpus_milli), Ports::default()))).collect();
        Books { total: scalars(agents * cpus_milli), free, ..Books::default() }
    }

    /// Runs rounds in which every framework takes one task of `size` from each offer, until nobody takes anything.
    fn fill(books: &mut Books, frameworks: &[Framework], size: u64) {
        loop {
            let offers = books.offer_round(frameworks);
            if offers.is_empty() {
                return;
            }
            for offer in offers {
                let mut rest = offer.resources.clone();
                match rest.take(&offer.role, scalars(size), &[]) {
                    Some(taken) => books.accept(&offer, &taken),
                    None => books.decline(&offer),
                }
            }
        }
    }

    #[test]
    fn equal_weights_get_equal_shares_and_double_weight_a_double_share() {
        let frameworks = [framework("apps"), framework("jobs")];
        let mut even = books(10, 1000);
        fill(&mut even, &frameworks, 100);
        assert_eq!(even.held[&Role::new("apps")], even.held[&Role::new("jobs")]);

        let mut weighted = books(12, 1000);
        weighted.weights_milli.insert(Role::new("apps"), 2000);
        fill(&mut weighted, &frameworks, 100);
        assert_eq!(weighted.held[&Role::new("apps")].cpus_milli, 8000);
        assert_eq!(weighted.held[&Role::new("jobs")].cpus_milli, 4000);
    }

    proptest! {
        #[test]
        fn never_gives_more_than_there_is(agents in 1u64..6, cpus in 0u64..3000, size in 1u64..1500) {
            let mut books = books(agents, cpus);
            fill(&mut books, &[framework("apps"), framework("jobs")], size);
            let held: u64 = books.held.values().map(|s| s.cpus_milli).sum();
            let left: u64 = books.free.values().map(|p| p.total().cpus_milli).sum();
            prop_assert_eq!(held + left, agents * cpus);
            prop_assert!(books.free.values().all(|p| p.total().cpus_milli < size));
        }
    }
}
