//! Names of things. Each is checked where it is made, so the rest of drover never meets a bad one.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a name was refused: the rule that was broken, in words a user can act on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadName(pub String);

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

macro_rules! opaque {
    ($($name:ident),*) => {
        $(impl $name {
            /// Takes a name that this cluster (or a certificate of it) made; any text is allowed.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }
        })*
    };
}

name! {
    /// Absolute path of an app, `/prod/web` (Marathon's app id).
    AppId
}
name! {
    /// Absolute path of a group of apps, `/` or `/prod`.
    GroupId
}
name! {
    /// A job's name: letters, digits, `_`, `.`, `-` (Chronos 3).
    JobName
}
name! {
    /// One launch of an app instance or of a job's attempt. Never used twice.
    TaskId
}
name! {
    /// An agent, for as long as it keeps its certificate. A uuid.
    AgentId
}
name! {
    /// A registered framework. The app layer is `apps`, the job layer `jobs`.
    FrameworkId
}
name! {
    /// A role: who resources are shared between and reserved for. `*` is everybody.
    Role
}
name! {
    /// A deployment. A uuid.
    DeploymentId
}
name! {
    /// One firing of a job: `<job>@<milliseconds of its slot>`.
    RunId
}
name! {
    /// An offer, known only to the leader that made it.
    OfferId
}
opaque!(TaskId, AgentId, FrameworkId, Role, DeploymentId, OfferId);

/// Longest app id or job name, in bytes: what leaves room for a uuid in the 255 bytes of a unit's name.
pub const NAME_BYTES_MAX: usize = 180;

impl AppId {
    /// Makes an id absolute relative to `base` and checks it.
    ///
    /// # Errors
    /// The first rule broken: an empty path, a segment that is not lower-case letters, digits, inner hyphens and dots,
    /// a reserved last segment, or a name too long for a unit.
    pub fn resolve(text: &str, base: &GroupId) -> Result<Self, BadName> {
        let path = resolve_path(text, base.as_str())?;
        let Some(last) = path.rsplit('/').next().filter(|last| !last.is_empty()) else {
            return Err(BadName("must not be the root path".into()));
        };
        if ["restart", "tasks", "versions"].contains(&last) {
            return Err(BadName(format!("must not end in the reserved word '{last}'")));
        }
        Ok(Self(path))
    }

    /// Checks an absolute or root-relative id.
    ///
    /// # Errors
    /// As [`AppId::resolve`].
    pub fn parse(text: &str) -> Result<Self, BadName> {
        Self::resolve(text, &GroupId::root())
    }

    /// The path's segments, `["prod", "web"]`.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|segment| !segment.is_empty())
    }

    /// The group the app is in.
    pub fn group(&self) -> GroupId {
        parent_of(&self.0)
    }

    /// `prod_web`: the prefix of the app's task ids.
    pub fn task_prefix(&self) -> String {
        self.segments().collect::<Vec<_>>().join("_")
    }
}

impl GroupId {
    /// The root group `/`.
    pub fn root() -> Self {
        Self("/".into())
    }

    /// Checks a group's path.
    ///
    /// # Errors
    /// The first rule broken, as for apps.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        resolve_path(text, "/").map(Self)
    }

    /// Makes a path absolute relative to `base` and checks it.
    ///
    /// # Errors
    /// The first rule broken, as for apps.
    pub fn resolve(text: &str, base: &GroupId) -> Result<Self, BadName> {
        resolve_path(text, base.as_str()).map(Self)
    }

    /// The enclosing group; the root encloses itself.
    pub fn parent(&self) -> GroupId {
        parent_of(&self.0)
    }

    /// Whether `app` lies in this group or below it.
    pub fn contains(&self, app: &AppId) -> bool {
        self.0 == "/" || app.0.strip_prefix(&self.0).is_some_and(|rest| rest.starts_with('/'))
    }
}

fn parent_of(path: &str) -> GroupId {
    match path.rfind('/') {
        Some(0) | None => GroupId::root(),
        Some(at) => GroupId(path[..at].to_owned()),
    }
}

fn resolve_path(text: &str, base: &str) -> Result<String, BadName> {
    let mut segments: Vec<&str> = Vec::new();
    if !text.starts_with('/') {
        segments.extend(base.split('/').filter(|segment| !segment.is_empty()));
    }
    for segment in text.split('/').filter(|segment| !segment.is_empty()) {
        match segment {
            "." => {}
            ".." => {
                segments.pop().ok_or_else(|| BadName(format!("'{text}' leads above the root")))?;
            }
            _ => {
                check_segment(segment)?;
                segments.push(segment);
            }
        }
    }
    let path = format!("/{}", segments.join("/"));
    if path.len() > NAME_BYTES_MAX {
        return Err(BadName(format!("must have at most {NAME_BYTES_MAX} bytes, so that a systemd unit can be named after it")));
    }
    Ok(path)
}

fn check_segment(segment: &str) -> Result<(), BadName> {
    let good = segment.split('.').all(|label| {
        let bytes = label.as_bytes();
        let ends_well = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        ends_well(bytes.first())
            && ends_well(bytes.last())
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
    });
    if good {
        return Ok(());
    }
    Err(BadName(format!(
        "must consist of lower-case letters, digits, inner hyphens and dots between them; '{segment}' does not"
    )))
}

impl JobName {
    /// Checks a job's name.
    ///
    /// # Errors
    /// Empty, too long, or a character outside `[A-Za-z0-9_.-]`.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        if text.is_empty() {
            return Err(BadName("must not be empty".into()));
        }
        if text.len() > NAME_BYTES_MAX {
            return Err(BadName(format!(
                "must have at most {NAME_BYTES_MAX} bytes, so that a systemd unit can be named after it"
            )));
        }
        match text.chars().find(|c| !(c.is_ascii_alphanumeric() || "_.-".contains(*c))) {
            None => Ok(Self(text.to_owned())),
            Some(bad) => Err(BadName(format!("must consist of letters, digits, '_', '.' and '-'; {bad:?} is none of them"))),
        }
    }
}

impl RunId {
    /// Reads `<job>@<milliseconds>`.
    pub fn parse(text: &str) -> Option<Self> {
        let (job, slot) = text.rsplit_once('@')?;
        (JobName::parse(job).is_ok() && slot.parse::<i64>().is_ok()).then(|| Self(text.to_owned()))
    }

    /// The run of `job` for the slot (or the trigger) at `slot_ms`.
    pub fn of(job: &JobName, slot_ms: i64) -> Self {
        Self(format!("{job}@{slot_ms}"))
    }
}

impl TaskId {
    /// An instance of `app`; `unique` comes from outside, since the core knows no randomness.
    pub fn of_app(app: &AppId, unique: &str) -> Self {
        Self(format!("{}.{unique}", app.task_prefix()))
    }

    /// Attempt `attempt` (from 0) of the run of `job` at `slot_ms`, in Chronos' five-part form.
    pub fn of_run(job: &JobName, slot_ms: i64, attempt: u32) -> Self {
        Self(format!("ct:{slot_ms}:{attempt}:{job}:"))
    }
}

impl Role {
    /// `*`: unreserved resources, everybody's role.
    pub fn any() -> Self {
        Self("*".into())
    }
}

impl FrameworkId {
    /// The app layer.
    pub fn apps() -> Self {
        Self("apps".into())
    }

    /// The job layer.
    pub fn jobs() -> Self {
        Self("jobs".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_ids_become_absolute_or_are_refused() {
        let base = GroupId::parse("/prod").unwrap();
        for (text, expect) in [
            ("web", Ok("/prod/web")),
            ("/web", Ok("/web")),
            ("//web/", Ok("/web")),
            ("../web", Ok("/web")),
            ("./db-1.c2", Ok("/prod/db-1.c2")),
            ("/", Err("root")),
            ("../../x", Err("above the root")),
            ("/Web", Err("'Web' does not")),
            ("/-web", Err("'-web' does not")),
            ("/a..b", Err("'a..b' does not")),
            ("/a/restart", Err("reserved")),
            (&"x".repeat(181), Err("at most 180 bytes")),
        ] {
            match (AppId::resolve(text, &base), expect) {
                (Ok(id), Ok(path)) => assert_eq!(id.as_str(), path),
                (Err(e), Err(part)) => assert!(e.0.contains(part), "{text}: {e}"),
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
    }

    #[test]
    fn groups_contain_what_is_below_them() {
        let web = AppId::parse("/prod/web").unwrap();
        assert!(GroupId::root().contains(&web));
        assert!(GroupId::parse("/prod").unwrap().contains(&web));
        assert!(!GroupId::parse("/pro").unwrap().contains(&web));
        assert_eq!(web.group().as_str(), "/prod");
        assert_eq!(web.task_prefix(), "prod_web");
    }
}
