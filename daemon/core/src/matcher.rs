//! Whether an agent can take a task, and which agent takes it best. Every reason against an agent is told, not only the first.

use crate::agent::Agent;
use crate::app::{Constraint, Operator};
use crate::framework::Offer;
use crate::ids::{AgentId, Role};
use crate::resources::{Allocation, Pools, Ports, Scalars};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A host port a task asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortWish {
    /// Any that is free.
    Any,
    /// This one.
    Fixed(u16),
}

/// What a task needs of its agent.
#[derive(Debug, Clone)]
pub struct Needs {
    /// Countable resources.
    pub scalars: Scalars,
    /// Host ports.
    pub ports: Vec<PortWish>,
    /// Rules.
    pub constraints: Vec<Rule>,
    /// Which roles' resources it may use; empty means any it is offered.
    pub accepted_roles: BTreeSet<Role>,
    /// systemd must be at least this (unit properties may need a newer one than drover does).
    pub systemd_min: u32,
}

/// A constraint with its expression compiled.
#[derive(Debug, Clone)]
pub struct Rule {
    constraint: Constraint,
    pattern: Option<regex::Regex>,
}

impl Rule {
    /// Compiles a constraint. An expression that does not compile (the edge refuses such) matches nothing.
    pub fn new(constraint: &Constraint) -> Self {
        let pattern = match constraint.operator {
            Operator::Like | Operator::Unlike => compile(constraint.value.as_deref().unwrap_or_default()).ok(),
            _ => None,
        };
        Self { constraint: constraint.clone(), pattern }
    }
}

/// Compiles the expression of `LIKE` and `UNLIKE`, which must match a whole value.
///
/// # Errors
/// What is wrong with the expression.
pub fn compile(expression: &str) -> Result<regex::Regex, regex::Error> {
    regex::RegexBuilder::new(&format!("^(?:{expression})$")).size_limit(1 << 20).build()
}

/// A reason against an agent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Against {
    /// It does not answer.
    Unreachable,
    /// A constraint.
    Constraint {
        /// The rule, `rack UNIQUE`.
        rule: String,
        /// What stands against it here.
        why: String,
    },
    /// What is free is kept for other roles.
    Role {
        /// The roles the task may use.
        accepted: Vec<Role>,
    },
    /// Thousandths of CPUs.
    Cpus {
        /// Wanted.
        wanted_milli: u64,
        /// Free there.
        free_milli: u64,
    },
    /// Memory.
    Memory {
        /// Wanted bytes.
        wanted: u64,
        /// Free there.
        free: u64,
    },
    /// Disk.
    Disk {
        /// Wanted bytes.
        wanted: u64,
        /// Free there.
        free: u64,
    },
    /// GPUs.
    Gpus {
        /// Wanted.
        wanted: u64,
        /// Free there.
        free: u64,
    },
    /// Host ports.
    Ports {
        /// How many are wanted.
        wanted: usize,
        /// How many are free there.
        free: usize,
        /// Asked-for ports that are taken or not offered.
        missing: Vec<u16>,
    },
    /// A unit property needs a newer systemd.
    Systemd {
        /// At least.
        wanted: u32,
        /// There.
        is: u32,
    },
    /// It has as many tasks as it takes.
    Tasks {
        /// So many.
        most: u32,
    },
}

/// Where instances of the same app or job already are, for constraints that count them, and which values exist at all.
#[derive(Debug, Default, Clone)]
pub struct Spread {
    counts: BTreeMap<String, BTreeMap<String, u32>>,
    known: BTreeMap<String, BTreeSet<String>>,
    on_agent: BTreeMap<AgentId, u32>,
}

impl Spread {
    /// From the agents that answer and the agents of the live instances.
    pub fn new<'a>(rules: &[Rule], agents: impl Iterator<Item = &'a Agent>, placed: impl Iterator<Item = &'a Agent>) -> Self {
        let mut spread = Self::default();
        for agent in agents {
            for rule in rules {
                if let Some(value) = agent.attribute(&rule.constraint.field) {
                    spread.known.entry(rule.constraint.field.clone()).or_default().insert(value.to_owned());
                }
            }
        }
        placed.for_each(|agent| spread.add(rules, agent));
        spread
    }

    /// One more instance on `agent`.
    pub fn add(&mut self, rules: &[Rule], agent: &Agent) {
        *self.on_agent.entry(agent.info.id.clone()).or_default() += 1;
        let fields: BTreeSet<&str> = rules.iter().map(|rule| rule.constraint.field.as_str()).collect();
        for field in fields {
            if let Some(value) = agent.attribute(field) {
                *self.counts.entry(field.to_owned()).or_default().entry(value.to_owned()).or_default() += 1;
            }
        }
    }

    fn count(&self, field: &str, value: &str) -> u32 {
        self.counts.get(field).and_then(|counts| counts.get(value)).copied().unwrap_or(0)
    }
}

/// Every reason against placing one more task with `needs` on `agent`, whose free resources (as far as they are offered)
/// are `free` and which takes `places` more tasks. Empty means it fits.
pub fn against(needs: &Needs, spread: &Spread, agent: &Agent, free: &Pools, places: u32) -> Vec<Against> {
    let mut reasons = Vec::new();
    if !agent.is_up() {
        reasons.push(Against::Unreachable);
    }
    if places == 0 {
        reasons.push(Against::Tasks { most: agent.info.tasks_max });
    }
    for rule in &needs.constraints {
        if let Err(why) = holds(rule, spread, agent) {
            reasons.push(Against::Constraint { rule: describe(&rule.constraint), why });
        }
    }
    if agent.info.systemd < needs.systemd_min {
        reasons.push(Against::Systemd { wanted: needs.systemd_min, is: agent.info.systemd });
    }
    let usable = usable(needs, free);
    let total = usable.total();
    let wanted = needs.scalars;
    let unrestricted = free.total();
    if !total.hold(&wanted) && unrestricted.hold(&wanted) {
        reasons.push(Against::Role { accepted: needs.accepted_roles.iter().cloned().collect() });
    } else {
        if wanted.cpus_milli > total.cpus_milli {
            reasons.push(Against::Cpus { wanted_milli: wanted.cpus_milli, free_milli: total.cpus_milli });
        }
        if wanted.mem_bytes > total.mem_bytes {
            reasons.push(Against::Memory { wanted: wanted.mem_bytes, free: total.mem_bytes });
        }
        if wanted.disk_bytes > total.disk_bytes {
            reasons.push(Against::Disk { wanted: wanted.disk_bytes, free: total.disk_bytes });
        }
        if wanted.gpus > total.gpus {
            reasons.push(Against::Gpus { wanted: wanted.gpus, free: total.gpus });
        }
    }
    if let Err(reason) = pick_ports(&needs.ports, &usable, 0) {
        reasons.push(reason);
    }
    reasons
}

/// The best of `offers` for one task, and what it takes out of it: the agent with the fewest instances of the same owner,
/// then the one with most left. `seed` varies which ports are picked.
pub fn choose<'a>(
    needs: &Needs,
    spread: &Spread,
    agents: &BTreeMap<AgentId, Agent>,
    offers: impl Iterator<Item = &'a Offer>,
    seed: u64,
) -> Option<(&'a Offer, Allocation)> {
    let fitting = offers.filter_map(|offer| {
        let agent = agents.get(&offer.agent)?;
        against(needs, spread, agent, &offer.resources, offer.places).is_empty().then(|| {
            let here = spread.on_agent.get(&offer.agent).copied().unwrap_or(0);
            (here, fullness(agent, &offer.resources), offer)
        })
    });
    let (_, _, offer) = fitting.min_by_key(|(here, full, offer)| (*here, *full, &offer.agent))?;
    let mut pools = usable(needs, &offer.resources);
    let ports = pick_ports(&needs.ports, &pools, seed).ok()?;
    let allocation = pools.take(&offer.role, needs.scalars, &ports)?;
    Some((offer, allocation))
}

/// How much of an agent is in use, in thousandths of its scarcer resource.
fn fullness(agent: &Agent, free: &Pools) -> u64 {
    let (all, free) = (agent.info.resources.total(), free.total());
    let part =
        |free: u64, all: u64| if all == 0 { 0 } else { 1000 - (u128::from(free) * 1000 / u128::from(all)).min(1000) as u64 };
    part(free.cpus_milli, all.cpus_milli).max(part(free.mem_bytes, all.mem_bytes))
}

fn usable(needs: &Needs, free: &Pools) -> Pools {
    if needs.accepted_roles.is_empty() {
        return free.clone();
    }
    let keep = |role: &Role| needs.accepted_roles.contains(role);
    Pools {
        scalars: free.scalars.iter().filter(|(role, _)| keep(role)).map(|(r, s)| (r.clone(), *s)).collect(),
        ports: free.ports.iter().filter(|(role, _)| keep(role)).map(|(r, p)| (r.clone(), p.clone())).collect(),
    }
}

fn pick_ports(wishes: &[PortWish], free: &Pools, seed: u64) -> Result<Vec<u16>, Against> {
    let mut left = Ports::from_ranges(free.ports.values().flat_map(|ports| ports.ranges().iter().copied()));
    let free = left.len();
    let mut missing = Vec::new();
    for wish in wishes {
        if let PortWish::Fixed(port) = wish {
            if left.contains(*port) { left.remove(*port) } else { missing.push(*port) }
        }
    }
    let any = wishes.iter().filter(|wish| **wish == PortWish::Any).count();
    if !missing.is_empty() || left.len() < any {
        return Err(Against::Ports { wanted: wishes.len(), free, missing });
    }
    let skip = if left.is_empty() { 0 } else { (seed % left.len() as u64) as usize };
    let mut open = left.iter().skip(skip).chain(left.iter().take(skip));
    let pick = |wish: &PortWish| match wish {
        PortWish::Fixed(port) => *port,
        PortWish::Any => open.next().expect("there are as many free ports as wishes"),
    };
    Ok(wishes.iter().map(pick).collect())
}

fn describe(constraint: &Constraint) -> String {
    let value = constraint.value.as_deref().map(|value| format!(" {value}")).unwrap_or_default();
    format!("{} {}{value}", constraint.field, constraint.operator.wire())
}

fn holds(rule: &Rule, spread: &Spread, agent: &Agent) -> Result<(), String> {
    let Constraint { field, operator, value: wanted } = &rule.constraint;
    let Some(value) = agent.attribute(field) else {
        return match operator {
            Operator::Unlike => Ok(()),
            _ => Err(format!("the node has no attribute {field}")),
        };
    };
    let is = || format!("{field} is {value}");
    let matches = || rule.pattern.as_ref().is_some_and(|pattern| pattern.is_match(value));
    match operator {
        Operator::Unique => match spread.count(field, value) {
            0 => Ok(()),
            _ => Err(format!("an instance with {field} {value} exists")),
        },
        Operator::Cluster => {
            let chosen = match wanted {
                Some(wanted) => Some(wanted.as_str()),
                None => spread.counts.get(field).and_then(|counts| counts.keys().next()).map(String::as_str),
            };
            if chosen.is_none_or(|chosen| chosen == value) { Ok(()) } else { Err(is()) }
        }
        Operator::GroupBy => {
            let here = spread.count(field, value);
            let known = spread.known.get(field).into_iter().flatten();
            let least = known.map(|other| spread.count(field, other)).min().unwrap_or(0);
            // With more values expected than there are yet, those still to come count as empty.
            let expected = wanted.as_deref().and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
            let used = spread.counts.get(field).map_or(0, BTreeMap::len);
            if here == 0 || (here <= least && used >= expected) {
                Ok(())
            } else {
                Err(format!("{field} {value} has {here} instances already, others have {least}"))
            }
        }
        Operator::MaxPer => {
            let most = wanted.as_deref().and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
            let here = spread.count(field, value);
            if here < most { Ok(()) } else { Err(format!("{field} {value} has {here} instances already")) }
        }
        Operator::Like => matches().then_some(()).ok_or_else(is),
        Operator::Unlike => (!matches()).then_some(()).ok_or_else(is),
        Operator::Is => {
            let same = |wanted: &str| match (wanted.parse::<f64>(), value.parse::<f64>()) {
                (Ok(a), Ok(b)) => (a * 1000.0).round() == (b * 1000.0).round(),
                _ => wanted == value,
            };
            wanted.as_deref().is_some_and(same).then_some(()).ok_or_else(is)
        }
    }
}

/// Words for people.
impl std::fmt::Display for Against {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = |bytes: &u64| format!("{} MiB", bytes >> 20);
        let cpus = |milli: &u64| {
            format!("{}.{:03}", milli / 1000, milli % 1000).trim_end_matches('0').trim_end_matches('.').to_owned()
        };
        match self {
            Self::Unreachable => write!(f, "the node does not answer"),
            Self::Constraint { rule, why } => write!(f, "constraint {rule}: {why}"),
            Self::Role { accepted } => {
                let roles: Vec<_> = accepted.iter().map(Role::as_str).collect();
                write!(f, "what is free is not for the accepted roles {}", roles.join(", "))
            }
            Self::Cpus { wanted_milli, free_milli } => {
                write!(f, "cpus: {} needed, {} free", cpus(wanted_milli), cpus(free_milli))
            }
            Self::Memory { wanted, free } => write!(f, "mem: {} needed, {} free", mib(wanted), mib(free)),
            Self::Disk { wanted, free } => write!(f, "disk: {} needed, {} free", mib(wanted), mib(free)),
            Self::Gpus { wanted, free } => write!(f, "gpus: {wanted} needed, {free} free"),
            Self::Ports { wanted, free, missing } if missing.is_empty() => write!(f, "ports: {wanted} needed, {free} free"),
            Self::Ports { missing, .. } => {
                let ports: Vec<_> = missing.iter().map(u16::to_string).collect();
                write!(f, "ports: {} taken or not offered", ports.join(", "))
            }
            Self::Systemd { wanted, is } => write!(f, "systemd: {wanted} needed, {is} there"),
            Self::Tasks { most } => write!(f, "tasks: it has {most} already, the most it takes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{AgentInfo, Reachability, unreserved};
    use crate::time::Timestamp;

    fn agent(host: &str, rack: Option<&str>) -> Agent {
        let scalars = Scalars { cpus_milli: 1000, mem_bytes: 1 << 30, ..Scalars::default() };
        Agent {
            info: AgentInfo {
                id: AgentId::new(host),
                host: host.into(),
                boot_id: "b".into(),
                resources: unreserved(scalars, Ports::from_ranges([(31000, 31003)])),
                attributes: rack.map(|rack| ("rack".to_owned(), rack.to_owned())).into_iter().collect(),
                systemd: 252,
                version: String::new(),
                enforces: BTreeSet::new(),
                tasks_max: 7,
            },
            reachability: Reachability::Up,
            generation: 0,
            admitted_at: Timestamp(0),
        }
    }

    /// Which of three nodes (a in rack r1, b in r2, c in none) refuse one more, with instances on `placed` already.
    fn check(operator: Operator, field: &str, value: Option<&str>, placed: &[&str], expect: &[&str]) {
        let nodes = [agent("a", Some("r1")), agent("b", Some("r2")), agent("c", None)];
        let rules = vec![Rule::new(&Constraint { field: field.into(), operator, value: value.map(str::to_owned) })];
        let at = |name: &&str| nodes.iter().find(|n| n.info.host == *name).expect("a, b or c");
        let spread = Spread::new(&rules, nodes.iter(), placed.iter().map(at));
        let needs = Needs {
            scalars: Scalars::default(),
            ports: vec![],
            constraints: rules,
            accepted_roles: BTreeSet::new(),
            systemd_min: 252,
        };
        let refused: Vec<&str> = nodes
            .iter()
            .filter(|node| !against(&needs, &spread, node, &node.info.resources, 1).is_empty())
            .map(|node| node.info.host.as_str())
            .collect();
        assert_eq!(refused, expect, "{operator:?} {field} {value:?} with {placed:?}");
    }

    #[test]
    fn constraints_refuse_the_right_nodes() {
        use Operator::{Cluster, GroupBy, Is, Like, MaxPer, Unique, Unlike};
        check(Unique, "hostname", None, &[], &[]);
        check(Unique, "hostname", None, &["a"], &["a"]);
        check(Unique, "rack", None, &["b"], &["b", "c"]);
        check(Cluster, "rack", Some("r2"), &[], &["a", "c"]);
        check(Cluster, "rack", None, &["a"], &["b", "c"]);
        check(Cluster, "rack", None, &[], &["c"]);
        check(GroupBy, "rack", None, &["a"], &["a", "c"]);
        check(GroupBy, "rack", None, &["a", "b"], &["c"]);
        check(GroupBy, "rack", Some("3"), &["a", "b"], &["a", "b", "c"]);
        check(MaxPer, "rack", Some("2"), &["a", "a"], &["a", "c"]);
        check(Like, "rack", Some("r[12]"), &[], &["c"]);
        check(Like, "rack", Some("r"), &[], &["a", "b", "c"]);
        check(Unlike, "rack", Some("r1"), &[], &["a"]);
        check(Is, "rack", Some("r1"), &[], &["b", "c"]);
    }

    #[test]
    fn every_reason_is_told_at_once() {
        let node = agent("a", None);
        let needs = Needs {
            scalars: Scalars { cpus_milli: 1500, mem_bytes: 2 << 30, disk_bytes: 1 << 20, gpus: 0 },
            ports: vec![PortWish::Fixed(80), PortWish::Any],
            constraints: vec![Rule::new(&Constraint { field: "rack".into(), operator: Operator::Unique, value: None })],
            accepted_roles: BTreeSet::new(),
            systemd_min: 257,
        };
        let words: Vec<String> =
            against(&needs, &Spread::default(), &node, &node.info.resources, 0).iter().map(Against::to_string).collect();
        assert_eq!(
            words,
            [
                "tasks: it has 7 already, the most it takes",
                "constraint rack UNIQUE: the node has no attribute rack",
                "systemd: 257 needed, 252 there",
                "cpus: 1.5 needed, 1 free",
                "mem: 2048 MiB needed, 1024 MiB free",
                "disk: 1 MiB needed, 0 MiB free",
                "ports: 80 taken or not offered",
            ]
        );
    }
}
