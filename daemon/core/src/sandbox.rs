//! What a task is kept from, and what its owner may say about its unit.
//!
//! Every task starts with [`DEFAULTS`]; `properties` of an app or job loosen or tighten them one by one, in the words of unit
//! files (`ProtectHome=read-only`, `LimitNOFILE=65536`). The list of what may be said is closed: what would let a task out of
//! its slice, run something beside it, or become somebody it is not, is refused with the reason (`table`).
//!
//! [`check`] is for whoever takes definitions from users; [`resolve`] is for the unit plan. Both read the same table.

mod table;
mod value;

pub use value::PropertyValue;
pub(crate) use value::signal_name;

use std::collections::BTreeMap;
use table::{Known, REFUSED, known};

/// What is wrong with one property. `why` is for the one who wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{property}: {why}")]
pub struct Fault {
    /// The property, as written.
    pub property: String,
    /// What must be different.
    pub why: String,
}

/// Which systemd runs the tasks of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Manager {
    /// PID 1.
    #[default]
    System,
    /// A user's own manager: no other accounts, no mounts, no devices to hide.
    User,
}

/// What every task is kept from unless it asks otherwise: `(property, value, whether a user's manager can do it)`.
///
/// Chosen so that an ordinary service (an interpreter, a JVM, a web server) runs unchanged. Left out on purpose: a list of
/// system calls and `MemoryDenyWriteExecute=` (break interpreters that compile), `RestrictAddressFamilies=` (programs ask
/// netlink for their addresses), `PrivateNetwork=` (tasks serve on their host's ports), `PrivateUsers=` (hides who owns files).
pub const DEFAULTS: &[(&str, &str, bool)] = &[
    ("CapabilityBoundingSet", table::CAPABILITIES_KEPT, false),
    ("LockPersonality", "yes", true),
    ("NoNewPrivileges", "yes", true),
    ("PrivateDevices", "yes", false),
    ("PrivateTmp", "yes", false),
    ("ProtectClock", "yes", false),
    ("ProtectControlGroups", "yes", false),
    ("ProtectHome", "yes", false),
    ("ProtectHostname", "yes", false),
    ("ProtectKernelLogs", "yes", false),
    ("ProtectKernelModules", "yes", false),
    ("ProtectKernelTunables", "yes", false),
    ("ProtectProc", "invisible", false),
    ("ProtectSystem", "strict", false),
    ("RemoveIPC", "yes", false),
    ("RestrictNamespaces", "yes", true),
    ("RestrictRealtime", "yes", true),
    ("RestrictSUIDSGID", "yes", true),
    ("TasksMax", "4096", true),
];

/// Implied by a dynamic user whatever the unit says (`DynamicUser=` in systemd.exec(5)): asking for these values without
/// naming a user would silently do nothing.
const FIXED_BY_DYNAMIC_USER: &[&str] =
    &["NoNewPrivileges", "PrivateTmp", "ProtectHome", "ProtectSystem", "RemoveIPC", "RestrictSUIDSGID"];

/// Finds everything wrong with a definition's properties. Empty means that each is known, allowed and well formed.
pub fn check(properties: &BTreeMap<String, String>) -> Vec<Fault> {
    properties.iter().filter_map(|(name, text)| look_up(name, text).err()).collect()
}

/// As [`check`], with the account the task is to run as: some properties mean nothing without one.
pub fn check_with_user(properties: &BTreeMap<String, String>, user: Option<&str>) -> Vec<Fault> {
    let mut faults = check(properties);
    faults.extend(user.and_then(check_user));
    if user.is_none() {
        faults.extend(properties.iter().filter(|(name, text)| is_moot(name, text)).map(|(name, text)| Fault {
            property: name.clone(),
            why: format!("{text} has no effect on a task that runs as a dynamic user: name a user, or leave the property out"),
        }));
    }
    faults
}

/// Finds what is wrong with an environment. Anything a program can be given is allowed.
pub fn check_env(env: &BTreeMap<String, String>) -> Vec<Fault> {
    let fault = |name: &str, why: &str| Some(Fault { property: name.to_owned(), why: why.to_owned() });
    let one = |(name, value): (&String, &String)| {
        if name.is_empty() {
            fault(name, "a variable's name must not be empty")
        } else if name.contains(['=', '\0']) {
            fault(name, "a variable's name must contain neither '=' nor a null character")
        } else if value.contains('\0') {
            fault(name, "a variable's value must not contain a null character")
        } else if name.len() + value.len() + 2 > ENV_STRING_BYTES_MAX {
            fault(name, "a variable must have less than 128 KiB, name included: the kernel takes no longer ones")
        } else {
            None
        }
    };
    env.iter().filter_map(one).collect()
}

/// Linux's `MAX_ARG_STRLEN`, the terminating null included.
const ENV_STRING_BYTES_MAX: usize = 128 * 1024;

/// The oldest systemd on which all of `properties` work. Unknown ones do not count: they are [`check`]'s.
pub fn systemd_needed(properties: &BTreeMap<String, String>) -> u32 {
    properties.keys().filter_map(|name| known(name)).map(|known| known.since).max().unwrap_or(0)
}

/// The properties of a task's sandbox on a node, ready for D-Bus: the defaults, overridden by what was asked.
///
/// # Errors
/// Everything [`check_with_user`] finds, and what this node's systemd is too old or too small for.
pub fn resolve(
    properties: &BTreeMap<String, String>,
    user: Option<&str>,
    manager: Manager,
    systemd: u32,
) -> Result<Vec<(String, PropertyValue)>, Vec<Fault>> {
    let is_dynamic = user.is_none() && manager == Manager::System;
    let mut faults =
        if is_dynamic { check_with_user(properties, None) } else { check_with_user(properties, user.or(Some("root"))) };
    if manager == Manager::User
        && let Some(user) = user
    {
        faults.push(Fault {
            property: "user".into(),
            why: format!("this node runs tasks under a user's own systemd, which cannot start them as {user}"),
        });
    }
    let mut resolved: BTreeMap<String, PropertyValue> = BTreeMap::new();
    if is_dynamic {
        resolved.insert("DynamicUser".into(), PropertyValue::Bool(true));
    }
    let defaults = DEFAULTS
        .iter()
        .filter(|(name, _, in_user)| !properties.contains_key(*name) && (manager == Manager::System || *in_user));
    for (name, text, _) in defaults {
        resolved.extend(look_up(name, text).expect("drover's own defaults are well formed").1);
    }
    for (name, text) in properties {
        let Ok((entry, values)) = look_up(name, text) else { continue };
        if entry.since > systemd {
            faults
                .push(Fault { property: name.clone(), why: format!("needs systemd {}; this node has {systemd}", entry.since) });
        }
        resolved.extend(values);
    }
    if faults.is_empty() { Ok(resolved.into_iter().collect()) } else { Err(faults) }
}

type Values = Vec<(String, PropertyValue)>;

fn look_up(name: &str, text: &str) -> Result<(&'static Known, Values), Fault> {
    let fault = |why: String| Fault { property: name.to_owned(), why };
    let Some(entry) = known(name) else { return Err(fault(why_not(name))) };
    let values = entry.kind.parse(entry.name, text.trim()).map_err(|why| fault(format!("{why}; {text:?} is not")))?;
    Ok((entry, values))
}

fn why_not(name: &str) -> String {
    if let Some((_, why)) = REFUSED.iter().find(|(prefix, _)| match prefix.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => *prefix == name,
    }) {
        return (*why).to_owned();
    }
    // D-Bus spells some properties differently from unit files; people who know one write the other.
    if let Some(twin) = name.strip_suffix("USec").map(|stem| format!("{stem}Sec")).filter(|twin| known(twin).is_some()) {
        return format!("write {twin}, as in a unit file");
    }
    if let Some(twin) = table::KNOWN.iter().find(|entry| entry.name.eq_ignore_ascii_case(name)) {
        return format!("write {}: property names are spelled exactly", twin.name);
    }
    "is not a unit property that drover lets a task set".into()
}

fn is_moot(name: &str, text: &str) -> bool {
    FIXED_BY_DYNAMIC_USER.contains(&name) && value::parse_bool(text.trim()) == Some(false)
}

fn check_user(user: &str) -> Option<Fault> {
    // Narrower than what systemd takes (https://systemd.io/USER_NAMES); numbers are good, an account need not have a name.
    let good = user.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
        && user.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && user.len() <= 31;
    (!good).then(|| Fault {
        property: "user".into(),
        why: format!("must be an account's name or number: letters, digits, '_', '.' and '-', at most 31; {user:?} is not"),
    })
}

#[cfg(test)]
mod tests;
