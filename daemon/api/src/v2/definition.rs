//! An app as a client describes it. One reader for all of POST, PUT and PATCH: what is said is laid over what is there (or
//! over the defaults), and the outcome is checked as a whole, so every fault is told at once wherever it comes from.

use super::error::{Error, Faults};
use super::fields;
use super::read::{At, parse};
use drover_core::app::{App, Backoff, Constraint, KillSelection, PortDefinition, UnreachableStrategy, UpgradeStrategy};
use drover_core::ids::{AppId, GroupId, Role};
use drover_core::sandbox;
use drover_core::task::Program;
use drover_core::time::{Millis, Timestamp};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Most instances of one app.
pub const INSTANCES_MAX: u32 = 100_000;
/// Most CPUs of one instance.
const CPUS_MAX: f64 = 1_000_000.0;
/// Most memory or disk of one instance, in MiB: a pebibyte.
const MEBIBYTES_MAX: f64 = 1_073_741_824.0;
/// Longest time that means anything, in seconds: a century.
const SECONDS_MAX: f64 = 3_153_600_000.0;

/// How a document relates to the app that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The whole definition; what it leaves out takes the default (`POST`, and `PUT` with `partialUpdate=false`).
    Full,
    /// Members given replace those of the app that is there; without one, as [`Mode::Full`] (`PUT`).
    Partial,
}

/// What a client wants of one app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// That it be like this. Version information is not set, service ports may be 0.
    Definition(Box<App>),
    /// That it be as it was at this version.
    Version(AppId, Timestamp),
}

impl Wish {
    /// Which app it is about.
    pub fn app(&self) -> &AppId {
        match self {
            Self::Definition(app) => &app.id,
            Self::Version(id, _) => id,
        }
    }
}

/// Reads one app. `url` is the id the request's path gives, if it gives one; `current` finds the app that is there.
///
/// # Errors
/// Not JSON, not an object, or every fault of the definition.
pub fn read_app<'a>(
    body: &[u8],
    url: Option<&AppId>,
    mode: Mode,
    current: impl Fn(&AppId) -> Option<&'a App>,
) -> Result<Wish, Error> {
    let value = parse(body)?;
    let mut faults = Faults::default();
    if !At::root(&value).is_object(&mut faults) {
        return Err(Error::WrongShape(faults));
    }
    let wish = read(&At::root(&value), url, mode, current, &mut faults);
    faults.check()?;
    Ok(wish.expect("a document without faults gives a wish"))
}

/// Reads a list of apps, each with its `id`.
///
/// # Errors
/// Not JSON, not a list of objects, or every fault of every definition.
pub fn read_apps<'a>(body: &[u8], mode: Mode, current: impl Fn(&AppId) -> Option<&'a App>) -> Result<Vec<Wish>, Error> {
    let value = parse(body)?;
    let mut faults = Faults::default();
    let Value::Array(items) = &value else {
        faults.push("", "must be a list of apps");
        return Err(Error::WrongShape(faults));
    };
    let items: Vec<At<'_>> = items.iter().enumerate().map(|(index, item)| At::item(item, index)).collect();
    if items.iter().filter(|item| !item.is_object(&mut faults)).count() > 0 {
        return Err(Error::WrongShape(faults));
    }
    let mut wishes: Vec<Wish> = Vec::with_capacity(items.len());
    let mut ids: BTreeSet<AppId> = BTreeSet::new();
    for item in &items {
        let Some(wish) = read(item, None, mode, &current, &mut faults) else { continue };
        if !ids.insert(wish.app().clone()) {
            faults.push(&format!("{}/id", item.path), "must not be in the list twice");
        }
        wishes.push(wish);
    }
    faults.check()?;
    Ok(wishes)
}

fn read<'a>(
    at: &At<'_>,
    url: Option<&AppId>,
    mode: Mode,
    current: impl Fn(&AppId) -> Option<&'a App>,
    faults: &mut Faults,
) -> Option<Wish> {
    let id = read_id(at, url, faults);
    let version = match mode {
        Mode::Full => None,
        Mode::Partial => at.get("version").map(|version| read_version(&version, faults)),
    };
    let update = Update::read(at, id.as_ref(), faults);
    let id = id?;
    if let Some(version) = version {
        if update.says_something {
            faults.push(&format!("{}/version", at.path), "The 'version' field may only be combined with the 'id' field.");
        }
        return version.map(|version| Wish::Version(id, version));
    }
    let current = match mode {
        Mode::Full => None,
        Mode::Partial => current(&id),
    };
    let app = update.complete(id, current, &at.path, faults)?;
    Some(Wish::Definition(Box::new(app)))
}

/// The id in the document, which may be left out where the URL has one.
fn read_id(at: &At<'_>, url: Option<&AppId>, faults: &mut Faults) -> Option<AppId> {
    let Some(given) = at.get("id") else {
        if url.is_none() {
            faults.push(&format!("{}/id", at.path), "must not be empty");
        }
        return url.cloned();
    };
    match (AppId::parse(given.text(faults)?), url) {
        (Ok(id), None) => Some(id),
        (Ok(id), Some(url)) => {
            if id != *url {
                given.fault(faults, format!("must be the id in the URL, {url}, or be left out"));
            }
            Some(url.clone())
        }
        (Err(error), url) => {
            given.fault(faults, error.0);
            url.cloned()
        }
    }
}

fn read_version(at: &At<'_>, faults: &mut Faults) -> Option<Timestamp> {
    let version = Timestamp::parse(at.text(faults)?);
    if version.is_none() {
        at.fault(faults, "must be a version of this app, such as 2024-01-01T10:00:00.000Z");
    }
    version
}

/// What a document says, member by member.
#[derive(Default)]
struct Update {
    says_something: bool,
    says_program: bool,
    program: Option<Program>,
    user: Option<String>,
    instances: Option<u32>,
    cpus_milli: Option<u64>,
    mem_bytes: Option<u64>,
    disk_bytes: Option<u64>,
    env: Option<BTreeMap<String, String>>,
    labels: Option<BTreeMap<String, String>>,
    ports: Option<Vec<PortDefinition>>,
    require_ports: Option<bool>,
    constraints: Option<Vec<Constraint>>,
    backoff_initial: Option<Millis>,
    backoff_factor_milli: Option<u64>,
    backoff_max: Option<Millis>,
    kill_grace: Option<Millis>,
    kill_selection: Option<KillSelection>,
    upgrade: Option<UpgradeStrategy>,
    unreachable: Option<UnreachableStrategy>,
    accepted_roles: Option<BTreeSet<Role>>,
    role: Option<Role>,
    dependencies: Option<BTreeSet<String>>,
    properties: Option<BTreeMap<String, String>>,
}

/// Every member that says something of the app; the others are read-only, unknown, or mean nothing any more.
const MEMBERS: [&str; 42] = [
    "acceptedResourceRoles",
    "args",
    "backoffFactor",
    "backoffSeconds",
    "check",
    "cmd",
    "constraints",
    "container",
    "cpus",
    "dependencies",
    "disk",
    "env",
    "executor",
    "executorResources",
    "fetch",
    "gpus",
    "healthChecks",
    "instances",
    "ipAddress",
    "killSelection",
    "labels",
    "maxLaunchDelaySeconds",
    "mem",
    "networks",
    "portDefinitions",
    "ports",
    "readinessChecks",
    "requirePorts",
    "residency",
    "resourceLimits",
    "role",
    "secrets",
    "taskKillGracePeriodSeconds",
    "tty",
    "unit",
    "unreachableStrategy",
    "upgradeStrategy",
    "uris",
    "user",
    // Accepted from very old clients, without meaning since Marathon 0.7.
    "storeUrls",
    "taskRateLimit",
    "versionsRetained",
];

impl Update {
    fn read(at: &At<'_>, id: Option<&AppId>, faults: &mut Faults) -> Self {
        fields::refuse_unsupported(at, faults);
        let seconds = |key: &str, faults: &mut Faults| {
            at.get(key).and_then(|value| value.scaled(faults, 1000.0, 0.0..=SECONDS_MAX)).map(Millis)
        };
        let mebibytes = |key: &str, faults: &mut Faults| {
            at.get(key).and_then(|value| value.scaled(faults, f64::from(1 << 20), 0.0..=MEBIBYTES_MAX))
        };
        Self {
            says_something: MEMBERS.iter().any(|member| at.get(member).is_some()),
            says_program: at.get("cmd").or(at.get("args")).is_some(),
            program: read_program(at, faults),
            user: at.get("user").and_then(|user| user.text(faults)).map(str::to_owned),
            instances: at.get("instances").and_then(|value| value.whole(faults, 0..=INSTANCES_MAX)),
            cpus_milli: at.get("cpus").and_then(|value| read_cpus(&value, faults)),
            mem_bytes: mebibytes("mem", faults),
            disk_bytes: mebibytes("disk", faults),
            env: at.get("env").and_then(|env| read_env(&env, faults)),
            labels: at.get("labels").and_then(|labels| labels.texts(faults)),
            ports: fields::ports(at, faults),
            require_ports: at.get("requirePorts").and_then(|value| value.boolean(faults)),
            constraints: at.get("constraints").and_then(|value| fields::constraints(&value, faults)),
            backoff_initial: seconds("backoffSeconds", faults),
            backoff_factor_milli: at.get("backoffFactor").and_then(|value| value.scaled(faults, 1000.0, 1.0..=1000.0)),
            backoff_max: seconds("maxLaunchDelaySeconds", faults),
            kill_grace: seconds("taskKillGracePeriodSeconds", faults),
            kill_selection: at.get("killSelection").and_then(|value| fields::kill_selection(&value, faults)),
            upgrade: at.get("upgradeStrategy").and_then(|value| fields::upgrade(&value, faults)),
            unreachable: at.get("unreachableStrategy").and_then(|value| fields::unreachable(&value, SECONDS_MAX, faults)),
            accepted_roles: at.get("acceptedResourceRoles").and_then(|value| fields::accepted_roles(&value, faults)),
            role: at.get("role").and_then(|value| fields::role(&value, faults)),
            dependencies: at.get("dependencies").and_then(|value| read_dependencies(&value, id, faults)),
            properties: at.get("unit").and_then(|value| value.texts(faults)),
        }
    }

    /// Lays this over `current`, or over the defaults, and checks what only shows in the whole.
    fn complete(self, id: AppId, current: Option<&App>, path: &str, faults: &mut Faults) -> Option<App> {
        let program = self.program.or_else(|| current.map(|app| app.program.clone()));
        if program.is_none() && !self.says_program {
            faults.push(path, "AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'.");
        }
        // Without a program there is no app, but the rest can be checked all the same.
        let is_app = program.is_some();
        let program = program.unwrap_or_else(|| Program::Argv(Vec::new()));
        let mut app = match current {
            Some(current) => App { program, ..current.clone() },
            None => App { ports: vec![fields::default_port()], ..App::new(id, program) },
        };
        fn set<T>(field: &mut T, said: Option<T>) {
            if let Some(said) = said {
                *field = said;
            }
        }
        if self.user.is_some() {
            app.user = self.user;
        }
        if self.kill_grace.is_some() {
            app.kill_grace = self.kill_grace;
        }
        let Backoff { initial, factor_milli, max } = &mut app.backoff;
        set(initial, self.backoff_initial);
        set(factor_milli, self.backoff_factor_milli);
        set(max, self.backoff_max);
        set(&mut app.instances, self.instances);
        set(&mut app.resources.cpus_milli, self.cpus_milli);
        set(&mut app.resources.mem_bytes, self.mem_bytes);
        set(&mut app.resources.disk_bytes, self.disk_bytes);
        set(&mut app.env, self.env);
        set(&mut app.labels, self.labels);
        set(&mut app.ports, self.ports);
        set(&mut app.require_ports, self.require_ports);
        set(&mut app.constraints, self.constraints);
        set(&mut app.kill_selection, self.kill_selection);
        set(&mut app.upgrade, self.upgrade);
        set(&mut app.unreachable, self.unreachable);
        set(&mut app.accepted_roles, self.accepted_roles);
        set(&mut app.role, self.role);
        set(&mut app.dependencies, self.dependencies);
        set(&mut app.properties, self.properties);
        check_whole(&app, path, faults);
        is_app.then_some(app)
    }
}

/// What only shows once everything is known.
fn check_whole(app: &App, path: &str, faults: &mut Faults) {
    let foreign = app.accepted_roles.iter().filter(|role| **role != Role::any() && **role != app.role);
    for role in foreign {
        let why = format!("must hold only '*' and the app's own role '{}'; '{role}' is neither", app.role);
        faults.push(&format!("{path}/acceptedResourceRoles"), why);
    }
    if app.labels.get("MARATHON_SINGLE_INSTANCE_APP").is_some_and(|value| value == "true") {
        if app.instances > 1 {
            faults.push(&format!("{path}/instances"), "must be at most 1 with the label MARATHON_SINGLE_INSTANCE_APP");
        }
        if app.upgrade != (UpgradeStrategy { min_health_milli: 0, max_over_milli: 0 }) {
            let why =
                "must be {\"minimumHealthCapacity\":0,\"maximumOverCapacity\":0} with the label MARATHON_SINGLE_INSTANCE_APP";
            faults.push(&format!("{path}/upgradeStrategy"), why);
        }
    }
    for fault in sandbox::check_with_user(&app.properties, app.user.as_deref()) {
        let owner = if app.properties.contains_key(&fault.property) { "/unit" } else { "" };
        faults.push(&format!("{path}{owner}/{}", fault.property), fault.why);
    }
    let environment: usize = app.env.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    if environment > ENVIRONMENT_BYTES_MAX {
        faults.push(&format!("{path}/env"), format!("must have at most {ENVIRONMENT_BYTES_MAX} bytes in all"));
    }
}

/// Longest argument, in bytes: the kernel takes 128 KiB (`MAX_ARG_STRLEN`), its final zero byte included.
const ARGUMENT_BYTES_MAX: usize = 128 * 1024 - 1;

/// What is left for a user's variables and arguments of the 2 MiB that the kernel hands to a new program.
const ENVIRONMENT_BYTES_MAX: usize = 1 << 20;

/// `cmd`, or `args`; both at once contradict each other, except for the empty list that old clients send along with `cmd`.
fn read_program(at: &At<'_>, faults: &mut Faults) -> Option<Program> {
    let cmd = at.get("cmd");
    let args = at.get("args").filter(|args| !(args.is_blank() && cmd.is_some()));
    let shell = cmd.as_ref().and_then(|cmd| read_argument(cmd, faults, true)).map(Program::Shell);
    let Some(args) = args else { return shell };
    if cmd.is_some() {
        faults.push(&at.path, "AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'.");
    }
    let items = args.list(faults)?;
    let mut argv = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        argv.extend(read_argument(item, faults, index == 0));
    }
    if items.is_empty() {
        args.fault(faults, "must not be empty");
    }
    if argv.iter().map(|argument| argument.len() + 1).sum::<usize>() > ENVIRONMENT_BYTES_MAX {
        args.fault(faults, format!("must have at most {ENVIRONMENT_BYTES_MAX} bytes in all"));
    }
    (!argv.is_empty()).then_some(Program::Argv(argv))
}

fn read_argument(at: &At<'_>, faults: &mut Faults, is_program: bool) -> Option<String> {
    let text = at.text(faults)?;
    if is_program && text.trim().is_empty() {
        at.fault(faults, "must not be empty");
    }
    if text.contains('\0') {
        at.fault(faults, "must not contain a zero byte");
    }
    if text.len() > ARGUMENT_BYTES_MAX {
        at.fault(faults, format!("must have at most {ARGUMENT_BYTES_MAX} bytes: the kernel takes no more"));
    }
    Some(text.to_owned())
}

fn read_cpus(at: &At<'_>, faults: &mut Faults) -> Option<u64> {
    let milli = at.scaled(faults, 1000.0, 0.0..=CPUS_MAX)?;
    if milli == 0 && !at.is_blank() {
        at.fault(faults, "must be 0 or at least 0.001");
    }
    Some(milli)
}

fn read_env(at: &At<'_>, faults: &mut Faults) -> Option<BTreeMap<String, String>> {
    let mut env = BTreeMap::new();
    for (name, value) in at.entries(faults)? {
        if value.get("secret").is_some() {
            value.fault(faults, "secrets are not supported by this version of drover yet");
            continue;
        }
        let Some(text) = value.text(faults) else { continue };
        env.insert(name.to_owned(), text.to_owned());
    }
    for fault in sandbox::check_env(&env) {
        faults.push(&format!("{}/{}", at.path, fault.property), fault.why);
    }
    Some(env)
}

/// Ids of apps or groups, relative to the app's own group.
fn read_dependencies(at: &At<'_>, id: Option<&AppId>, faults: &mut Faults) -> Option<BTreeSet<String>> {
    let base = id.map_or_else(GroupId::root, AppId::group);
    let mut dependencies = BTreeSet::new();
    for item in at.list(faults)? {
        let Some(text) = item.text(faults) else { continue };
        match GroupId::resolve(text, &base) {
            Ok(path) => {
                dependencies.insert(path.to_string());
            }
            Err(error) => item.fault(faults, error.0),
        }
    }
    Some(dependencies)
}
