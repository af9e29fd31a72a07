//! The members of an app's definition that have an inside.

use super::error::Faults;
use super::read::At;
use drover_core::app::{Constraint, KillSelection, Operator, PortDefinition, UnreachableStrategy, UpgradeStrategy};
use drover_core::ids::Role;
use drover_core::matcher;
use drover_core::time::Millis;
use std::collections::{BTreeMap, BTreeSet};

/// Members that mean something drover does not do yet; a blank one asks for nothing and passes.
const UNSUPPORTED: [&str; 13] = [
    "check",
    "container",
    "executorResources",
    "fetch",
    "gpus",
    "healthChecks",
    "ipAddress",
    "readinessChecks",
    "residency",
    "resourceLimits",
    "secrets",
    "tty",
    "uris",
];

const NOT_YET: &str = "is not supported by this version of drover yet";

/// Refuses what is asked for and would silently not happen.
pub(super) fn refuse_unsupported(at: &At<'_>, faults: &mut Faults) {
    for member in UNSUPPORTED {
        if let Some(value) = at.get(member).filter(|value| !value.is_blank()) {
            value.fault(faults, NOT_YET);
        }
    }
    if let Some(executor) = at.get("executor")
        && let Some(text) = executor.text(faults)
        && !["", "//cmd"].contains(&text)
    {
        executor.fault(faults, "must be '' or '//cmd': drover has no custom executors");
    }
    if let Some(networks) = at.get("networks") {
        refuse_networks(&networks, faults);
    }
}

fn refuse_networks(at: &At<'_>, faults: &mut Faults) {
    let Some(networks) = at.list(faults) else { return };
    if networks.len() > 1 {
        at.fault(
            faults,
            "must hold at most one network of mode 'host'; others are not supported by this version of drover yet",
        );
    }
    for network in networks {
        if !network.is_object(faults) {
            continue;
        }
        // Marathon's default for a network that does not say its mode.
        let mode = network.get("mode").map_or(Some("container"), |mode| mode.text(faults));
        if mode != Some("host") {
            faults.push(
                &format!("{}/mode", network.path),
                "must be 'host': others are not supported by this version of drover yet",
            );
            continue;
        }
        for member in ["name", "labels"] {
            if let Some(value) = network.get(member).filter(|value| !value.is_blank()) {
                value.fault(faults, "must not be given for the host network");
            }
        }
    }
}

/// The port an app gets that says nothing of ports.
pub(super) fn default_port() -> PortDefinition {
    PortDefinition { name: Some("default".into()), ..port(0) }
}

fn port(port: u16) -> PortDefinition {
    PortDefinition { port, protocol: "tcp".into(), name: None, labels: BTreeMap::new() }
}

/// Most ports of one app. Each is told to the task in four variables, and the kernel bounds the environment.
const PORTS_MAX: usize = 1000;

/// `portDefinitions`, or the older `ports`.
pub(super) fn ports(at: &At<'_>, faults: &mut Faults) -> Option<Vec<PortDefinition>> {
    let (list, ports) = match (at.get("portDefinitions"), at.get("ports")) {
        (None, None) => return None,
        (Some(definitions), None) => {
            let items = definitions.list(faults)?;
            let ports: Vec<PortDefinition> = items.iter().filter_map(|item| port_definition(item, faults)).collect();
            (definitions, ports)
        }
        (None, Some(numbers)) => {
            let items = numbers.list(faults)?;
            (numbers, items.iter().filter_map(|item| Some(port(port_number(item, faults)?))).collect())
        }
        (Some(_), Some(numbers)) => {
            numbers.fault(faults, "must not be given together with 'portDefinitions'");
            return None;
        }
    };
    if ports.len() > PORTS_MAX {
        list.fault(faults, format!("must hold at most {PORTS_MAX} ports"));
    }
    let mut numbers = BTreeSet::new();
    let mut names = BTreeSet::new();
    for port in &ports {
        if port.port != 0 && !numbers.insert(port.port) {
            list.fault(faults, format!("Ports must be unique; {} is there twice", port.port));
        }
        if let Some(name) = port.name.as_ref().filter(|name| !names.insert(name.as_str())) {
            list.fault(faults, format!("Port names must be unique; '{name}' is there twice"));
        }
    }
    Some(ports)
}

fn port_number(at: &At<'_>, faults: &mut Faults) -> Option<u16> {
    at.whole(faults, 0..=u32::from(u16::MAX)).and_then(|number| u16::try_from(number).ok())
}

fn port_definition(at: &At<'_>, faults: &mut Faults) -> Option<PortDefinition> {
    if !at.is_object(faults) {
        return None;
    }
    let mut definition = port(at.get("port").map_or(Some(0), |number| port_number(&number, faults))?);
    if let Some(protocol) = at.get("protocol") {
        match protocol.text(faults)? {
            known @ ("tcp" | "udp" | "udp,tcp") => definition.protocol = known.into(),
            "tcp,udp" => definition.protocol = "udp,tcp".into(),
            _ => protocol.fault(faults, "must be 'tcp', 'udp' or 'udp,tcp'"),
        }
    }
    if let Some(name) = at.get("name") {
        let text = name.text(faults)?;
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if text.is_empty() || !text.chars().all(inner) || text.starts_with('-') || text.ends_with('-') {
            name.fault(faults, "must consist of lower-case letters, digits and inner hyphens");
        }
        definition.name = Some(text.to_owned());
    }
    if let Some(labels) = at.get("labels") {
        definition.labels = labels.texts(faults)?;
    }
    Some(definition)
}

/// `[[field, operator, value?], …]`.
pub(super) fn constraints(at: &At<'_>, faults: &mut Faults) -> Option<Vec<Constraint>> {
    let items = at.list(faults)?;
    Some(items.iter().filter_map(|item| constraint(item, faults)).collect())
}

fn constraint(at: &At<'_>, faults: &mut Faults) -> Option<Constraint> {
    let parts: Vec<Option<&str>> = at.list(faults)?.iter().map(|part| part.text(faults)).collect();
    let (field, operator, value) = match parts.as_slice() {
        [Some(field), Some(operator)] => (*field, *operator, None),
        [Some(field), Some(operator), Some(value)] => (*field, *operator, Some(*value)),
        [None, ..] | [_, None, ..] | [_, _, None, ..] => return None,
        _ => {
            at.fault(faults, "must hold a field, an operator and at most one value");
            return None;
        }
    };
    if field.is_empty() {
        at.fault(faults, "the field must not be empty");
    }
    let Some((_, operator)) = Operator::ALL.into_iter().find(|(wire, _)| *wire == operator) else {
        let known = Operator::ALL.map(|(wire, _)| wire).join(", ");
        at.fault(faults, format!("the operator must be one of {known}; '{operator}' is not"));
        return None;
    };
    if let Err(why) = check_constraint_value(operator, value) {
        at.fault(faults, why);
    }
    Some(Constraint { field: field.to_owned(), operator, value: value.map(str::to_owned) })
}

fn check_constraint_value(operator: Operator, value: Option<&str>) -> Result<(), String> {
    let name = operator.wire();
    let is_count = |value: &str| value.parse::<u32>().is_ok_and(|count| count > 0);
    match (operator, value) {
        (Operator::Unique, None) | (Operator::Cluster | Operator::GroupBy, None) | (Operator::Cluster, Some(_)) => Ok(()),
        (Operator::Unique, Some(_)) => Err("UNIQUE takes no value".into()),
        (Operator::GroupBy | Operator::MaxPer, Some(value)) if is_count(value) => Ok(()),
        (Operator::GroupBy | Operator::MaxPer, Some(_)) => Err(format!("the value of {name} must be a whole number above 0")),
        (Operator::Is, Some(_)) => Ok(()),
        (Operator::Like | Operator::Unlike, Some(expression)) => match matcher::compile(expression) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("the value of {name} must be a regular expression: {error}")),
        },
        (Operator::MaxPer | Operator::Is | Operator::Like | Operator::Unlike, None) => Err(format!("{name} needs a value")),
    }
}

pub(super) fn kill_selection(at: &At<'_>, faults: &mut Faults) -> Option<KillSelection> {
    match at.text(faults)? {
        "YOUNGEST_FIRST" => Some(KillSelection::YoungestFirst),
        "OLDEST_FIRST" => Some(KillSelection::OldestFirst),
        _ => {
            at.fault(faults, "must be 'YOUNGEST_FIRST' or 'OLDEST_FIRST'");
            None
        }
    }
}

pub(super) fn upgrade(at: &At<'_>, faults: &mut Faults) -> Option<UpgradeStrategy> {
    if !at.is_object(faults) {
        return None;
    }
    // Two thirds of three must stay two, so the rest beyond thousandths is cut and not rounded up.
    let capacity = |key: &str, faults: &mut Faults| match at.get(key) {
        None => Some(1000),
        Some(value) => value.scaled(faults, 1_000_000.0, 0.0..=1.0).map(|millionths| (millionths / 1000) as u32),
    };
    let min_health_milli = capacity("minimumHealthCapacity", faults);
    let max_over_milli = capacity("maximumOverCapacity", faults);
    Some(UpgradeStrategy { min_health_milli: min_health_milli?, max_over_milli: max_over_milli? })
}

pub(super) fn unreachable(at: &At<'_>, seconds_max: f64, faults: &mut Faults) -> Option<UnreachableStrategy> {
    if let Some(text) = at.text(&mut Faults::default()) {
        if text == "disabled" {
            return Some(UnreachableStrategy::Disabled);
        }
        at.fault(faults, "must be 'disabled' or an object");
        return None;
    }
    if !at.is_object(faults) {
        return None;
    }
    let seconds = |key: &str, faults: &mut Faults| match at.get(key) {
        None => Some(Millis(0)),
        Some(value) => value.scaled(faults, 1000.0, 0.0..=seconds_max).map(Millis),
    };
    let inactive = seconds("inactiveAfterSeconds", faults);
    let expunge = seconds("expungeAfterSeconds", faults);
    let (inactive, expunge) = (inactive?, expunge?);
    if inactive > expunge {
        at.fault(faults, "'inactiveAfterSeconds' must not be greater than 'expungeAfterSeconds'");
    }
    Some(UnreachableStrategy::After { inactive, expunge })
}

pub(super) fn accepted_roles(at: &At<'_>, faults: &mut Faults) -> Option<BTreeSet<Role>> {
    let items = at.list(faults)?;
    if items.is_empty() {
        at.fault(faults, "must not be empty: leave it out to accept any");
    }
    Some(items.iter().filter_map(|item| role(item, faults)).collect())
}

/// A role's name, under the rules of Mesos.
pub(super) fn role(at: &At<'_>, faults: &mut Faults) -> Option<Role> {
    let name = at.text(faults)?;
    let bad = |c: char| c.is_whitespace() || c.is_control() || "/\\".contains(c);
    if name.is_empty() || name == "." || name == ".." || name.starts_with('-') || name.contains(bad) || name.len() > 128 {
        at.fault(faults, "must be a role: not empty, without spaces, slashes and a leading '-'");
        return None;
    }
    Some(Role::new(name))
}
