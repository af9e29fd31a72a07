//! From a task to the transient unit to ask systemd for.

use super::name::{sandbox_directory, shard_of, slice_of, unit_name};
use super::{FIELD_APP, FIELD_FRAMEWORK, FIELD_JOB, FIELD_RUN, FIELD_TASK};
use crate::ids::TaskId;
use crate::sandbox::{self, Fault, Manager, PropertyValue};
use crate::task::{Owner, Program, TaskSpec};
use crate::time::Millis;
use std::collections::{BTreeMap, BTreeSet};

/// Units in one slice, beyond which the next part of it is begun: what PID 1 spends on a start grows with a unit's siblings.
pub const SLICE_UNITS_MAX: usize = 100;

/// How many units each slice has.
pub type Occupancy = BTreeMap<String, usize>;

/// What a plan depends on besides the task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// This run of the manager: another one after a reboot, and then no unit of the last one is left.
    pub boot: String,
    /// systemd's version.
    pub systemd: u32,
    /// Which manager runs the tasks.
    pub manager: Manager,
    /// The slice above all of them, `drover.slice`.
    pub task_slice: String,
    /// Where that manager keeps state directories, `/var/lib`.
    pub state_root: String,
    /// Controllers that the kernel really enforces.
    pub enforces: BTreeSet<String>,
}

/// A transient unit to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitPlan {
    /// Its name.
    pub name: String,
    /// Its slice, also among the properties.
    pub slice: String,
    /// What it is, for people; also among the properties.
    pub description: String,
    /// Everything for `StartTransientUnit`.
    pub properties: Vec<(String, PropertyValue)>,
    /// Limits among them that this node's kernel will not enforce.
    pub unenforced: Vec<&'static str>,
}

/// Makes the unit of a task.
///
/// # Errors
/// Everything in the task that this node's systemd cannot honour.
pub fn plan(task: &TaskId, spec: &TaskSpec, facts: &NodeFacts, occupancy: &Occupancy) -> Result<UnitPlan, Vec<Fault>> {
    let mut faults = sandbox::check_env(&spec.env);
    let sandbox = sandbox::resolve(&spec.properties, spec.user.as_deref(), facts.manager, facts.systemd);
    if matches!(&spec.program, Program::Argv(argv) if argv.first().is_none_or(|program| program.is_empty())) {
        faults.push(Fault { property: "args".into(), why: "there is no program to execute".into() });
    }
    let sandbox = match sandbox {
        Ok(sandbox) if faults.is_empty() => sandbox,
        Ok(_) => return Err(faults),
        Err(more) => return Err(faults.into_iter().chain(more).collect()),
    };
    let name = unit_name(task);
    let slice = free_slice(&slice_of(&facts.task_slice, &spec.owner), occupancy);
    let description = describe(&spec.owner);
    let mut properties = BTreeMap::from(base_properties(task, spec, facts));
    properties.insert("Slice", PropertyValue::Text(slice.clone()));
    properties.insert("Description", PropertyValue::Text(description.clone()));
    let mut properties: BTreeMap<String, PropertyValue> =
        properties.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    properties.extend(as_asked(spec));
    // Last: what the task asks for is drover's default replaced. What it may not replace, it cannot ask for.
    properties.extend(sandbox);
    Ok(UnitPlan { name, slice, description, properties: properties.into_iter().collect(), unenforced: unenforced(spec, facts) })
}

fn base_properties(task: &TaskId, spec: &TaskSpec, facts: &NodeFacts) -> [(&'static str, PropertyValue); 19] {
    use PropertyValue as V;
    let text = |text: &str| V::Text(text.to_owned());
    let directory = sandbox_directory(task);
    let sandbox = format!("{}/{directory}", facts.state_root);
    let (argv, env) = command(spec, &sandbox);
    [
        // exec, not simple: a program that is missing fails the start instead of the run.
        ("Type", text("exec")),
        // Together they keep a unit after its end, good or bad, until the agent has it on record and lets it go.
        ("RemainAfterExit", V::Bool(true)),
        ("CollectMode", text("inactive")),
        // Whether to try again is the masters' decision.
        ("Restart", text("no")),
        // Otherwise a child that ran out of memory would die unnoticed.
        ("OOMPolicy", text("kill")),
        ("KillMode", text("control-group")),
        ("TimeoutStopUSec", V::U64(usec(spec.kill_grace))),
        ("RuntimeMaxUSec", V::U64(spec.run_time_max.map_or(u64::MAX, usec))),
        ("ExecStartEx", exec(argv)),
        ("Environment", V::Texts(env)),
        // A directory of its own that it may write, and starts in, whatever account it runs as.
        ("StateDirectory", V::Texts(vec![directory])),
        ("StateDirectoryMode", V::U32(0o750)),
        ("WorkingDirectory", V::Text(sandbox)),
        ("StandardOutput", text("journal")),
        ("StandardError", text("journal")),
        ("SyslogIdentifier", V::Text(identifier(&spec.owner))),
        ("LogExtraFields", V::ByteTexts(journal_fields(task, &spec.owner))),
        // journald's own limit drops lines and tells nobody; this one is above what a healthy program prints.
        ("LogRateLimitIntervalUSec", V::U64(1_000_000)),
        ("LogRateLimitBurst", V::U32(10_000)),
    ]
}

/// systemd takes zero for "never"; here it means "at once".
fn usec(span: Millis) -> u64 {
    span.0.saturating_mul(1000).max(1)
}

fn as_asked(spec: &TaskSpec) -> Vec<(String, PropertyValue)> {
    let weight = (spec.resources.cpus_milli / 10).clamp(1, 10_000);
    let mut asked = vec![("CPUWeight".to_owned(), PropertyValue::U64(weight))];
    if spec.resources.mem_bytes > 0 {
        asked.push(("MemoryMax".to_owned(), PropertyValue::U64(spec.resources.mem_bytes)));
        // Otherwise the limit only moves pages to swap.
        asked.push(("MemorySwapMax".to_owned(), PropertyValue::U64(0)));
    }
    if let Some(user) = &spec.user {
        asked.push(("User".to_owned(), PropertyValue::Text(user.clone())));
    }
    asked
}

fn unenforced(spec: &TaskSpec, facts: &NodeFacts) -> Vec<&'static str> {
    let wanted = [
        ("cpu", true),
        ("memory", spec.resources.mem_bytes > 0),
        ("pids", true),
        ("io", spec.properties.contains_key("IOWeight")),
    ];
    let missing = |(controller, is_wanted): &(&'static str, bool)| *is_wanted && !facts.enforces.contains(*controller);
    wanted.iter().filter(|one| missing(one)).map(|(controller, _)| *controller).collect()
}

/// The program as systemd must execute it, and the environment it can set.
fn command(spec: &TaskSpec, sandbox: &str) -> (Vec<String>, Vec<String>) {
    let mut env: BTreeMap<&str, &str> = spec.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    env.entry("MESOS_SANDBOX").or_insert(sandbox);
    // A dynamic user has no home; many programs want one they can write.
    if spec.user.is_none() {
        env.entry("HOME").or_insert(sandbox);
    }
    let (env, odd): (Vec<_>, Vec<_>) = env.into_iter().partition(|(name, _)| is_systemds_variable(name));
    let assign = |(name, value): (&str, &str)| format!("{name}={value}");
    let argv = match &spec.program {
        Program::Shell(line) => vec!["/bin/sh".into(), "-c".into(), line.clone()],
        Program::Argv(argv) => argv.clone(),
    };
    // systemd finds absolute paths, and bare names in its own search path. What else there is takes env(1): a path relative to
    // the working directory, a PATH of the task's own, and variables that systemd does not take but a program can have, such
    // as Marathon's PORT_HTTP-API. (A shell would drop those.)
    let program = &argv[0];
    let is_found = program.starts_with('/') || (!program.contains('/') && !spec.env.contains_key("PATH"));
    let argv = if is_found && odd.is_empty() {
        argv
    } else {
        // env would take such a program for a variable.
        let guard = program.contains('=').then_some(["/bin/sh", "-c", r#"exec "$0" "$@""#].map(str::to_owned));
        let by_env = std::iter::once("/usr/bin/env".to_owned()).chain(odd.into_iter().map(assign));
        by_env.chain(guard.into_iter().flatten()).chain(argv).collect()
    };
    (argv, env.into_iter().map(assign).collect())
}

fn is_systemds_variable(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !name.starts_with(|c: char| c.is_ascii_digit())
}

fn exec(argv: Vec<String>) -> PropertyValue {
    // Without this systemd would replace $NAME in the arguments by itself, before the shell or the program sees them.
    PropertyValue::Exec { path: argv[0].clone(), argv, flags: vec!["no-env-expand".into()] }
}

fn free_slice(base: &str, occupancy: &Occupancy) -> String {
    let is_free = |slice: &String| occupancy.get(slice).copied().unwrap_or(0) < SLICE_UNITS_MAX;
    (0..).map(|number| shard_of(base, number)).find(is_free).expect("some part of a slice is not full")
}

fn describe(owner: &Owner) -> String {
    match owner {
        Owner::App { app, .. } => format!("drover app {app}"),
        Owner::Run { job, attempt: 0, .. } => format!("drover job {job}"),
        Owner::Run { job, attempt, .. } => format!("drover job {job}, retry {attempt}"),
    }
}

fn identifier(owner: &Owner) -> String {
    match owner {
        Owner::App { app, .. } => app.task_prefix(),
        Owner::Run { job, .. } => job.to_string(),
    }
}

fn journal_fields(task: &TaskId, owner: &Owner) -> Vec<Vec<u8>> {
    let mut fields = vec![(FIELD_TASK, task.to_string()), (FIELD_FRAMEWORK, owner.framework().to_string())];
    match owner {
        Owner::App { app, .. } => fields.push((FIELD_APP, app.to_string())),
        Owner::Run { job, run, .. } => {
            fields.push((FIELD_JOB, job.to_string()));
            fields.push((FIELD_RUN, run.to_string()));
        }
    }
    fields.into_iter().map(|(name, value)| format!("{name}={value}").into_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{AppId, JobName, RunId};
    use crate::resources::Scalars;
    use crate::time::Timestamp;
    use PropertyValue as V;

    fn facts() -> NodeFacts {
        NodeFacts {
            boot: "b1".into(),
            systemd: 252,
            manager: Manager::System,
            task_slice: "drover.slice".into(),
            state_root: "/var/lib".into(),
            enforces: ["cpu", "memory", "pids"].map(str::to_owned).into(),
        }
    }

    fn spec(program: Program) -> TaskSpec {
        TaskSpec {
            owner: Owner::App { app: AppId::parse("/prod/web").unwrap(), version: Timestamp(1) },
            program,
            user: None,
            env: [("PORT0".to_owned(), "31000".to_owned())].into(),
            resources: Scalars { cpus_milli: 250, mem_bytes: 64 << 20, ..Scalars::default() },
            kill_grace: Millis::from_secs(3),
            run_time_max: None,
            properties: BTreeMap::new(),
        }
    }

    fn shell(line: &str) -> TaskSpec {
        spec(Program::Shell(line.into()))
    }

    fn argv(argv: &[&str]) -> TaskSpec {
        spec(Program::Argv(argv.iter().map(|arg| (*arg).to_owned()).collect()))
    }

    fn properties(spec: &TaskSpec) -> BTreeMap<String, PropertyValue> {
        let plan = plan(&TaskId::new("prod_web.1"), spec, &facts(), &Occupancy::new()).unwrap();
        plan.properties.into_iter().collect()
    }

    fn executed(spec: &TaskSpec) -> Vec<String> {
        match &properties(spec)["ExecStartEx"] {
            V::Exec { path, argv, flags } => {
                assert_eq!(path, &argv[0]);
                assert_eq!(flags, &["no-env-expand"]);
                argv.clone()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_app_becomes_a_unit() {
        let plan = plan(&TaskId::new("prod_web.1"), &shell("exec web --port $PORT0"), &facts(), &Occupancy::new()).unwrap();
        assert_eq!(plan.name, "drover-prod_web.1.service");
        assert_eq!(plan.slice, "drover-apps-prod-web.slice");
        assert_eq!(plan.description, "drover app /prod/web");
        assert!(plan.unenforced.is_empty());
        let properties: BTreeMap<_, _> = plan.properties.into_iter().collect();
        for (name, value) in [
            ("Slice", V::Text("drover-apps-prod-web.slice".into())),
            ("Type", V::Text("exec".into())),
            ("RemainAfterExit", V::Bool(true)),
            ("CPUWeight", V::U64(25)),
            ("MemoryMax", V::U64(64 << 20)),
            ("MemorySwapMax", V::U64(0)),
            ("TasksMax", V::U64(4096)),
            ("TimeoutStopUSec", V::U64(3_000_000)),
            ("RuntimeMaxUSec", V::U64(u64::MAX)),
            ("DynamicUser", V::Bool(true)),
            ("StateDirectory", V::Texts(vec!["drover/prod_web.1".into()])),
            ("WorkingDirectory", V::Text("/var/lib/drover/prod_web.1".into())),
            (
                "Environment",
                V::Texts(vec![
                    "HOME=/var/lib/drover/prod_web.1".into(),
                    "MESOS_SANDBOX=/var/lib/drover/prod_web.1".into(),
                    "PORT0=31000".into(),
                ]),
            ),
            (
                "LogExtraFields",
                V::ByteTexts(
                    [&b"DROVER_TASK=prod_web.1"[..], b"DROVER_FRAMEWORK=apps", b"DROVER_APP=/prod/web"]
                        .map(<[u8]>::to_vec)
                        .to_vec(),
                ),
            ),
        ] {
            assert_eq!(properties[name], value, "{name}");
        }
        assert!(!properties.contains_key("CPUQuotaPerSecUSec"), "only when asked for");
    }

    #[test]
    fn a_run_becomes_a_unit() {
        let job = JobName::parse("nightly").unwrap();
        let run = RunId::of(&job, 5);
        let mut spec = shell("true");
        spec.owner = Owner::Run { job, run, attempt: 2 };
        spec.run_time_max = Some(Millis::from_secs(60));
        spec.kill_grace = Millis(0);
        let properties = properties(&spec);
        assert_eq!(properties["Slice"], V::Text("drover-jobs-nightly.slice".into()));
        assert_eq!(properties["Description"], V::Text("drover job nightly, retry 2".into()));
        assert_eq!(properties["RuntimeMaxUSec"], V::U64(60_000_000));
        assert_eq!(properties["TimeoutStopUSec"], V::U64(1), "zero would be for ever");
        let V::ByteTexts(fields) = &properties["LogExtraFields"] else { panic!() };
        assert!(fields.contains(&b"DROVER_JOB=nightly".to_vec()) && fields.contains(&b"DROVER_RUN=nightly@5".to_vec()));
    }

    #[test]
    fn programs_reach_systemd_as_written() {
        assert_eq!(executed(&shell("echo $HOME; sleep 1")), ["/bin/sh", "-c", "echo $HOME; sleep 1"]);
        assert_eq!(executed(&argv(&["/usr/bin/web", "$PORT", "%n"])), ["/usr/bin/web", "$PORT", "%n"]);
        assert_eq!(executed(&argv(&["python3", "-m", "x"])), ["python3", "-m", "x"]);
        assert_eq!(executed(&argv(&["./run.sh", "a b"])), ["/usr/bin/env", "./run.sh", "a b"]);
        let mut own_path = argv(&["web"]);
        own_path.env.insert("PATH".into(), "/opt/web/bin".into());
        assert_eq!(executed(&own_path), ["/usr/bin/env", "web"]);
        let mut odd = argv(&["/bin/web"]);
        odd.env.insert("PORT_HTTP-API".into(), "1".into());
        assert_eq!(executed(&odd), ["/usr/bin/env", "PORT_HTTP-API=1", "/bin/web"]);
        assert!(!format!("{:?}", properties(&odd)["Environment"]).contains("HTTP-API"));
        odd.program = Program::Argv(vec!["/bin/a=b".into(), "c".into()]);
        let guarded = ["/usr/bin/env", "PORT_HTTP-API=1", "/bin/sh", "-c", "exec \"$0\" \"$@\"", "/bin/a=b", "c"];
        assert_eq!(executed(&odd), guarded);
    }

    #[test]
    fn what_was_asked_for_replaces_the_default() {
        let mut spec = shell("true");
        spec.user = Some("www-data".into());
        spec.properties =
            [("LogRateLimitBurst", "7"), ("WorkingDirectory", "/srv"), ("CPUQuota", "50%"), ("KillMode", "mixed")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into();
        let properties = properties(&spec);
        assert_eq!(properties["LogRateLimitBurst"], V::U32(7));
        assert_eq!(properties["WorkingDirectory"], V::Text("/srv".into()));
        assert_eq!(properties["CPUQuotaPerSecUSec"], V::U64(500_000));
        assert_eq!(properties["KillMode"], V::Text("mixed".into()));
        assert_eq!(properties["User"], V::Text("www-data".into()));
        assert!(!properties.contains_key("DynamicUser"));
        assert!(!format!("{:?}", properties["Environment"]).contains("HOME="));
    }

    #[test]
    fn full_slices_are_split() {
        let name = "drover-apps-prod-web";
        let at = |occupied: &[(&str, usize)]| {
            let occupancy = occupied.iter().map(|(slice, units)| (format!("{name}{slice}.slice"), *units)).collect();
            plan(&TaskId::new("prod_web.1"), &shell("true"), &facts(), &occupancy).unwrap().slice
        };
        assert_eq!(at(&[("", 99)]), format!("{name}.slice"));
        assert_eq!(at(&[("", 100)]), format!("{name}-_1.slice"));
        assert_eq!(at(&[("", 100), ("-_1", 100)]), format!("{name}-_2.slice"));
        assert_eq!(at(&[("", 3), ("-_1", 100)]), format!("{name}.slice"));
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let mut spec = argv(&[""]);
        spec.env.insert("A=B".into(), String::new());
        spec.properties = [("Slice", "x"), ("PrivatePIDs", "yes")].map(|(n, v)| (n.to_owned(), v.to_owned())).into();
        let faults = plan(&TaskId::new("t"), &spec, &facts(), &Occupancy::new()).unwrap_err();
        let names: Vec<&str> = faults.iter().map(|fault| fault.property.as_str()).collect();
        assert_eq!(names, ["A=B", "args", "Slice", "PrivatePIDs"]);
    }

    #[test]
    fn what_is_not_enforced_is_known() {
        let mut facts = facts();
        facts.enforces.clear();
        let plan = plan(&TaskId::new("t"), &shell("true"), &facts, &Occupancy::new()).unwrap();
        assert_eq!(plan.unenforced, ["cpu", "memory", "pids"]);
    }
}
