//! Exact resource arithmetic. CPUs in thousandths, memory and disk in bytes, ports as ranges; floats stay at the edge.

use crate::ids::Role;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The countable resources.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scalars {
    /// Thousandths of a CPU.
    pub cpus_milli: u64,
    /// Bytes of memory.
    pub mem_bytes: u64,
    /// Bytes of disk.
    pub disk_bytes: u64,
    /// Whole GPUs.
    pub gpus: u64,
}

impl Scalars {
    /// Sum, saturating.
    #[must_use]
    pub fn plus(self, other: Scalars) -> Scalars {
        Scalars {
            cpus_milli: self.cpus_milli.saturating_add(other.cpus_milli),
            mem_bytes: self.mem_bytes.saturating_add(other.mem_bytes),
            disk_bytes: self.disk_bytes.saturating_add(other.disk_bytes),
            gpus: self.gpus.saturating_add(other.gpus),
        }
    }

    /// Difference, never below zero: an agent that came back smaller simply has nothing free.
    #[must_use]
    pub fn minus(self, other: Scalars) -> Scalars {
        Scalars {
            cpus_milli: self.cpus_milli.saturating_sub(other.cpus_milli),
            mem_bytes: self.mem_bytes.saturating_sub(other.mem_bytes),
            disk_bytes: self.disk_bytes.saturating_sub(other.disk_bytes),
            gpus: self.gpus.saturating_sub(other.gpus),
        }
    }

    /// The part of this that `other` can give.
    #[must_use]
    pub fn min(self, other: Scalars) -> Scalars {
        Scalars {
            cpus_milli: self.cpus_milli.min(other.cpus_milli),
            mem_bytes: self.mem_bytes.min(other.mem_bytes),
            disk_bytes: self.disk_bytes.min(other.disk_bytes),
            gpus: self.gpus.min(other.gpus),
        }
    }

    /// Whether `wanted` fits in this.
    pub fn hold(&self, wanted: &Scalars) -> bool {
        wanted.cpus_milli <= self.cpus_milli
            && wanted.mem_bytes <= self.mem_bytes
            && wanted.disk_bytes <= self.disk_bytes
            && wanted.gpus <= self.gpus
    }

    /// Whether there is nothing.
    pub fn is_zero(&self) -> bool {
        *self == Scalars::default()
    }
}

/// Inclusive port ranges, sorted, disjoint and not touching.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ports(Vec<(u16, u16)>);

impl Ports {
    /// Ranges in any order, overlapping or not. An inverted range counts as empty.
    pub fn from_ranges(ranges: impl IntoIterator<Item = (u16, u16)>) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().filter(|(low, high)| low <= high).collect();
        ranges.sort_unstable();
        let mut merged: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
        for (low, high) in ranges {
            match merged.last_mut() {
                Some(last) if u32::from(low) <= u32::from(last.1) + 1 => last.1 = last.1.max(high),
                _ => merged.push((low, high)),
            }
        }
        Self(merged)
    }

    /// The ranges, lowest first.
    pub fn ranges(&self) -> &[(u16, u16)] {
        &self.0
    }

    /// Every port, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.0.iter().flat_map(|(low, high)| *low..=*high)
    }

    /// Whether `port` is among them.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|(low, high)| (*low..=*high).contains(&port))
    }

    /// How many ports there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(|(low, high)| usize::from(high - low) + 1).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes one port away.
    pub fn remove(&mut self, port: u16) {
        if let Some(at) = self.0.iter().position(|(low, high)| (*low..=*high).contains(&port)) {
            let (low, high) = self.0[at];
            let mut rest = Vec::with_capacity(2);
            if low < port {
                rest.push((low, port - 1));
            }
            if port < high {
                rest.push((port + 1, high));
            }
            self.0.splice(at..=at, rest);
        }
    }
}

/// What an agent has, or has free, per role. [`Role::any`] holds the unreserved part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pools {
    /// Countable resources per role.
    pub scalars: BTreeMap<Role, Scalars>,
    /// Ports per role.
    pub ports: BTreeMap<Role, Ports>,
}

impl Pools {
    /// Everything, whoever it is kept for.
    pub fn total(&self) -> Scalars {
        self.scalars.values().fold(Scalars::default(), |sum, part| sum.plus(*part))
    }

    /// What a framework of `role` may use: its own reservation and what nobody reserved.
    pub fn usable_by(&self, role: &Role) -> Scalars {
        let own = self.scalars.get(role).copied().unwrap_or_default();
        if *role == Role::any() {
            return own;
        }
        own.plus(self.scalars.get(&Role::any()).copied().unwrap_or_default())
    }

    /// Ports a framework of `role` may use.
    pub fn ports_usable_by(&self, role: &Role) -> Ports {
        let any = Role::any();
        let pools = self.ports.iter().filter(|(pool, _)| *pool == role || **pool == any);
        Ports::from_ranges(pools.flat_map(|(_, ports)| ports.ranges().iter().copied()))
    }

    /// The offer of these pools to one role: what it may use, and nothing reserved for others.
    #[must_use]
    pub fn visible_to(&self, role: &Role) -> Pools {
        let keep = |r: &Role| r == role || *r == Role::any();
        Pools {
            scalars: self.scalars.iter().filter(|(r, _)| keep(r)).map(|(r, s)| (r.clone(), *s)).collect(),
            ports: self.ports.iter().filter(|(r, _)| keep(r)).map(|(r, p)| (r.clone(), p.clone())).collect(),
        }
    }

    /// Carves `wanted` and `ports` out for `role`: from its reservation first, then from the unreserved part.
    /// `None`, and nothing taken, when it does not fit.
    pub fn take(&mut self, role: &Role, wanted: Scalars, ports: &[u16]) -> Option<Allocation> {
        if !self.usable_by(role).hold(&wanted) {
            return None;
        }
        let usable = self.ports_usable_by(role);
        if !ports.iter().all(|port| usable.contains(*port)) {
            return None;
        }
        let mut allocation = Allocation::default();
        let mut rest = wanted;
        for pool in [role.clone(), Role::any()] {
            let Some(free) = self.scalars.get_mut(&pool) else { continue };
            let part = rest.min(*free);
            if !part.is_zero() {
                *free = free.minus(part);
                rest = rest.minus(part);
                allocation.scalars.insert(pool, part);
            }
        }
        for pool in self.ports.values_mut() {
            ports.iter().for_each(|port| pool.remove(*port));
        }
        allocation.ports = ports.to_vec();
        Some(allocation)
    }

    /// Takes away what a known task holds, without asking whether it fits.
    pub fn subtract(&mut self, allocation: &Allocation) {
        for (role, part) in &allocation.scalars {
            if let Some(free) = self.scalars.get_mut(role) {
                *free = free.minus(*part);
            }
        }
        for pool in self.ports.values_mut() {
            allocation.ports.iter().for_each(|port| pool.remove(*port));
        }
    }
}

/// What one task holds, and out of whose part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    /// Countable resources per role they came from.
    pub scalars: BTreeMap<Role, Scalars>,
    /// Host ports, in the order the task asked for them.
    pub ports: Vec<u16>,
}

impl Allocation {
    /// Everything it holds.
    pub fn total(&self) -> Scalars {
        self.scalars.values().fold(Scalars::default(), |sum, part| sum.plus(*part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scalars(cpus_milli: u64, mem_bytes: u64) -> Scalars {
        Scalars { cpus_milli, mem_bytes, ..Scalars::default() }
    }

    #[test]
    fn a_reservation_is_used_before_the_common_part() {
        let db = Role::new("db");
        let mut pools = Pools {
            scalars: [(Role::any(), scalars(1000, 100)), (db.clone(), scalars(500, 50))].into(),
            ports: [(Role::any(), Ports::from_ranges([(31000, 31001)]))].into(),
        };
        assert_eq!(pools.take(&Role::new("web"), scalars(1100, 0), &[]), None, "web may not use db's reservation");
        let taken = pools.take(&db, scalars(700, 10), &[31001]).expect("it fits");
        assert_eq!(taken.scalars[&db], scalars(500, 10));
        assert_eq!(taken.scalars[&Role::any()], scalars(200, 0));
        assert_eq!(pools.usable_by(&db), scalars(800, 140));
        assert_eq!(pools.take(&db, scalars(0, 0), &[31001]), None, "the port is gone");
    }

    proptest! {
        #[test]
        fn ports_behave_like_a_set(ranges in prop::collection::vec((0u16..300, 0u16..300), 0..8), gone in prop::collection::vec(0u16..300, 0..20)) {
            let mut set: std::collections::BTreeSet<u16> = ranges.iter().flat_map(|(a, b)| *a..=*b).collect();
            let mut ports = Ports::from_ranges(ranges);
            for port in gone {
                set.remove(&port);
                ports.remove(port);
            }
            prop_assert_eq!(ports.iter().collect::<Vec<_>>(), set.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(ports.len(), set.len());
        }
    }
}
