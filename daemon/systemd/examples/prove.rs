//! Proves this crate against the systemd of the machine it runs on: `prove [names…]`, in a throw-away machine only.
//!
//! Each check starts units of its own and takes them away again. The status is 1 when any check failed. The checks that
//! break the bus or PID 1 (`dbus`, `reexec`, `reload`) run by name alone.

use anyhow::{Context, Result, bail, ensure};
use drover_core::ids::{AppId, TaskId};
use drover_core::resources::Scalars;
use drover_core::sandbox::Manager;
use drover_core::task::{Exit, Owner, Program, Reason, TaskSpec, TaskState};
use drover_core::time::{Millis, Timestamp};
use drover_core::unit::{self, Evidence, NodeFacts, ObservedUnit, Occupancy, UnitPlan};
use drover_systemd::{Changes, Started, Systemd, journal};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

#[tokio::main]
async fn main() -> Result<()> {
    let comm = std::fs::read_to_string("/proc/1/comm").unwrap_or_default();
    ensure!(comm.trim() == "systemd", "PID 1 is {}, not systemd", comm.trim());
    let asked: BTreeSet<String> = std::env::args().skip(1).collect();
    let (systemd, changes) = Systemd::connect(Manager::System).await?;
    let version = systemd.version().await?;
    println!("systemd {version}; enforced: {:?}", drover_systemd::cgroup::enforced_controllers(None));
    let mut bench = Bench { systemd, changes, units: BTreeMap::new(), version: leading_number(&version), count: 0 };
    let mut failed = 0;
    for name in CHECKS {
        let is_asked = if asked.is_empty() { !NEEDS_ASKING.contains(name) } else { asked.contains(*name) };
        if !is_asked {
            continue;
        }
        let began = Instant::now();
        match tokio::time::timeout(Duration::from_secs(60), bench.check(name)).await {
            Ok(Ok(())) => println!("ok      {name} ({} ms)", began.elapsed().as_millis()),
            Ok(Err(error)) => {
                failed += 1;
                println!("FAILED  {name}: {error:#}");
            }
            Err(_) => {
                failed += 1;
                println!("FAILED  {name}: no end after 60 s; units: {:#?}", bench.units);
            }
        }
    }
    ensure!(failed == 0, "{failed} checks failed");
    Ok(())
}

const CHECKS: &[&str] = &[
    "exit", "fail", "missing", "user", "chdir", "argv", "env", "signal", "stop", "grace", "runtime", "sandbox", "python",
    "root", "exists", "refused", "byhand", "usage", "loosened", "vanished", "logs", "clean", "many", "children", "reload",
    "reexec", "dbus", "cost",
];
const NEEDS_ASKING: &[&str] = &["reload", "reexec", "dbus", "cost"];

struct Bench {
    systemd: Systemd,
    changes: Changes,
    units: BTreeMap<String, ObservedUnit>,
    version: u32,
    count: u32,
}

fn leading_number(text: &str) -> u32 {
    text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0)
}

fn spec(program: Program) -> TaskSpec {
    TaskSpec {
        owner: Owner::App { app: AppId::parse("/prove/it-all").expect("a good id"), version: Timestamp(1) },
        program,
        user: None,
        env: BTreeMap::new(),
        resources: Scalars { cpus_milli: 500, mem_bytes: 128 << 20, ..Scalars::default() },
        kill_grace: Millis(2000),
        run_time_max: None,
        properties: BTreeMap::new(),
    }
}

fn sh(line: &str) -> TaskSpec {
    spec(Program::Shell(line.into()))
}

fn argv(argv: &[&str]) -> TaskSpec {
    spec(Program::Argv(argv.iter().map(|arg| (*arg).to_owned()).collect()))
}

impl Bench {
    async fn check(&mut self, name: &str) -> Result<()> {
        match name {
            "exit" => self.ends(&sh("exit 0"), TaskState::Finished, Reason::Normal, Some(Exit::Code(0))).await.map(drop),
            "fail" => {
                self.ends(&sh("sleep 0.3; exit 7"), TaskState::Failed, Reason::ExitCode, Some(Exit::Code(7))).await.map(drop)
            }
            "missing" => {
                self.ends(&argv(&["/no/such/program"]), TaskState::Failed, Reason::Exec, Some(Exit::Code(203))).await?;
                self.ends(&argv(&["no-such-program"]), TaskState::Failed, Reason::Exec, Some(Exit::Code(203))).await.map(drop)
            }
            "user" => {
                let mut spec = sh("true");
                spec.user = Some("nosuchuser".into());
                self.ends(&spec, TaskState::Failed, Reason::Exec, Some(Exit::Code(217))).await.map(drop)
            }
            "chdir" => {
                let mut spec = sh("true");
                spec.properties.insert("WorkingDirectory".into(), "/no/such/directory".into());
                self.ends(&spec, TaskState::Failed, Reason::Exec, Some(Exit::Code(200))).await.map(drop)
            }
            "argv" => self.argv().await,
            "env" => self.env().await,
            "signal" => {
                for (signal, name) in [(15, "TERM"), (9, "KILL")] {
                    let id = self.start(&sh("sleep 1000")).await?;
                    self.until(&id, |unit| unit.sub == "running").await?;
                    self.systemd.kill(&unit::unit_name(&id), signal).await?;
                    let (state, reason, exit) = self.end_of(&id, &sh(""), None).await?;
                    ensure!((state, reason) == (TaskState::Failed, Reason::Signal), "{name}: {state:?} {reason:?}");
                    ensure!(exit == Some(Exit::Signal(signal)), "{name}: {exit:?}");
                    self.let_go(&id).await?;
                }
                Ok(())
            }
            "stop" => {
                let id = self.start(&sh("exec sleep 1000")).await?;
                self.until(&id, |unit| unit.sub == "running").await?;
                let end = self.systemd.stop(&unit::unit_name(&id)).await?;
                ensure!(end == "done", "{end}");
                let (state, reason, exit) = self.end_of(&id, &sh(""), Some("asked")).await?;
                ensure!((state, reason) == (TaskState::Killed, Reason::KillRequested), "{state:?} {reason:?}");
                ensure!(exit == Some(Exit::Signal(15)), "{exit:?}");
                ensure!(self.systemd.observe(&unit::unit_name(&id)).await?.is_none(), "still there");
                Ok(())
            }
            "grace" => {
                let spec = sh("trap '' TERM; while :; do sleep 0.1; done");
                let id = self.start(&spec).await?;
                self.until(&id, |unit| unit.sub == "running").await?;
                let began = Instant::now();
                self.systemd.stop(&unit::unit_name(&id)).await?;
                ensure!(began.elapsed() > Duration::from_millis(1800), "killed too early: {:?}", began.elapsed());
                let unit = self.until(&id, ObservedUnit::has_ended).await?;
                let verdict = unit::status_of(&unit, &spec, Some("asked")).context("no verdict")?;
                ensure!(verdict.message.contains("did not end within 2 s"), "{verdict:?}");
                self.let_go(&id).await
            }
            "runtime" => {
                let mut spec = sh("exec sleep 1000");
                spec.run_time_max = Some(Millis(500));
                self.ends(&spec, TaskState::Failed, Reason::Timeout, Some(Exit::Signal(15))).await.map(drop)
            }
            "sandbox" => self.sandbox().await,
            "python" => self.python().await,
            "root" => {
                let mut spec = sh(
                    "test $(id -u) = 0 && ! touch /etc/x 2>/dev/null && ! mount -t tmpfs none /mnt 2>/dev/null && touch here",
                );
                spec.user = Some("root".into());
                self.ends(&spec, TaskState::Finished, Reason::Normal, Some(Exit::Code(0))).await.map(drop)
            }
            "exists" => {
                let id = self.start(&sh("exec sleep 1000")).await?;
                let again = self.systemd.start(&self.plan(&id, &sh("true"))?).await?;
                ensure!(again == Started::Exists, "{again:?}");
                self.let_go(&id).await
            }
            "refused" => {
                let id = TaskId::new("prove.refused");
                let mut plan = self.plan(&id, &sh("true"))?;
                plan.properties.push(("NoSuchThing".into(), unit::PropertyValue::Bool(true)));
                let error = self.systemd.start(&plan).await.err().context("taken")?;
                ensure!(error.start_refusal().is_some(), "{error:?}");
                println!("        {error}");
                Ok(())
            }
            "byhand" => {
                let id = self.start(&sh("exec sleep 1000")).await?;
                self.until(&id, |unit| unit.sub == "running").await?;
                run("systemctl", &["stop", &unit::unit_name(&id)])?;
                let (state, reason, exit) = self.end_of(&id, &sh(""), None).await?;
                ensure!((state, reason) == (TaskState::Killed, Reason::StoppedOnNode), "{state:?} {reason:?} {exit:?}");
                Ok(())
            }
            "usage" => {
                let id = self.start(&sh("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exit 3")).await?;
                self.until(&id, ObservedUnit::has_ended).await?;
                let usage = self.systemd.usage(&unit::unit_name(&id)).await?;
                println!("        {usage:?}");
                self.let_go(&id).await
            }
            "loosened" => self.loosened().await,
            "vanished" => self.vanished().await,
            "logs" => self.logs().await,
            "clean" => self.clean().await,
            "many" => self.many().await,
            "children" => {
                let id = self.start(&sh("(sleep 1000 &) ; exit 0")).await?;
                self.until(&id, ObservedUnit::has_ended).await?;
                self.let_go(&id).await?;
                let left = run("sh", &["-c", "pgrep -x sleep || true"])?;
                ensure!(left.trim().is_empty(), "children live on: {left}");
                Ok(())
            }
            "reload" => self.survives(|| run("systemctl", &["daemon-reload"]), false).await,
            "reexec" => self.survives(|| run("systemctl", &["daemon-reexec"]), false).await,
            "dbus" => {
                let restart = "systemctl kill -s KILL dbus.service dbus-broker.service 2>/dev/null; true";
                self.survives(|| run("sh", &["-c", restart]), true).await
            }
            "cost" => self.cost().await,
            other => bail!("no check named {other}"),
        }
    }

    fn facts(&self) -> NodeFacts {
        NodeFacts {
            boot: "b".into(),
            systemd: self.version,
            manager: Manager::System,
            task_slice: "drover.slice".into(),
            state_root: "/var/lib".into(),
            enforces: BTreeSet::new(),
        }
    }

    fn plan(&self, id: &TaskId, spec: &TaskSpec) -> Result<UnitPlan> {
        unit::plan(id, spec, &self.facts(), &Occupancy::new()).map_err(|faults| anyhow::anyhow!("{faults:?}"))
    }

    async fn start(&mut self, spec: &TaskSpec) -> Result<TaskId> {
        self.count += 1;
        let id = TaskId::new(format!("prove.{}-{}", std::process::id(), self.count));
        let plan = self.plan(&id, spec)?;
        let started = self.systemd.start(&plan).await?;
        ensure!(matches!(started, Started::Job(_)), "{started:?}");
        Ok(id)
    }

    /// Waits for what the signals alone tell of a unit.
    async fn until(&mut self, id: &TaskId, is_it: impl Fn(&ObservedUnit) -> bool) -> Result<ObservedUnit> {
        let name = unit::unit_name(id);
        loop {
            if let Some(unit) = self.units.get(&name).filter(|unit| is_it(unit)) {
                return Ok(unit.clone());
            }
            let news = self.changes.next().await;
            ensure!(!news.is_disconnected, "disconnected");
            for (name, patch) in news.units {
                let unit = self.units.entry(name.clone()).or_insert_with(|| ObservedUnit {
                    name,
                    is_loaded: true,
                    ..ObservedUnit::default()
                });
                patch.apply_to(unit);
            }
        }
    }

    async fn end_of(&mut self, id: &TaskId, spec: &TaskSpec, kill: Option<&str>) -> Result<(TaskState, Reason, Option<Exit>)> {
        let unit = self.until(id, |unit| unit.has_ended() && unit.invocation.is_some()).await?;
        let verdict = unit::status_of(&unit, spec, kill).context("no verdict")?;
        Ok((verdict.state, verdict.reason, verdict.exit))
    }

    async fn let_go(&mut self, id: &TaskId) -> Result<()> {
        let name = unit::unit_name(id);
        if let Some(unit) = self.systemd.observe(&name).await? {
            match unit.active {
                unit::ActiveState::Failed => self.systemd.reset_failed(&name).await?,
                _ => drop(self.systemd.stop(&name).await?),
            }
        }
        self.until(id, |unit| !unit.is_loaded).await.map(drop)
    }

    async fn ends(&mut self, spec: &TaskSpec, state: TaskState, reason: Reason, exit: Option<Exit>) -> Result<TaskId> {
        let id = self.start(spec).await?;
        let found = self.end_of(&id, spec, None).await?;
        let unit = self.systemd.observe(&unit::unit_name(&id)).await?.context("an ended unit is kept")?;
        ensure!(found == (state, reason, exit), "{found:?}; {}; {unit:?}", self.journal_of(&id)?);
        ensure!(unit.task.as_ref() == Some(&id), "{unit:?}");
        ensure!(
            unit.slice == "drover-prove-it\\x2dall.slice" || unit.slice == "drover-apps-prove-it\\x2dall.slice",
            "{}",
            unit.slice
        );
        let by_signal = &self.units[&unit.name];
        ensure!(
            (by_signal.active, &by_signal.sub, &by_signal.result, by_signal.exec_main_status, &by_signal.invocation)
                == (unit.active, &unit.sub, &unit.result, unit.exec_main_status, &unit.invocation),
            "signals and properties differ: {by_signal:?} {unit:?}"
        );
        self.let_go(&id).await?;
        Ok(id)
    }

    fn journal_of(&self, id: &TaskId) -> Result<String> {
        run("journalctl", &["-q", "--no-pager", "-o", "cat", "-u", &unit::unit_name(id)])
    }

    fn output_of(&self, id: &TaskId) -> Result<Vec<String>> {
        run("journalctl", &["--sync"])?;
        let mut lines = Vec::new();
        let query = journal::Query { any_of: vec![("DROVER_TASK".into(), id.to_string())], ..journal::Query::default() };
        journal::read(
            &query,
            || true,
            |entry| {
                if entry.pid != Some(1) {
                    lines.push(entry.message);
                }
                true
            },
        )?;
        Ok(lines)
    }

    async fn succeeds_printing(&mut self, spec: &TaskSpec, expect: &[&str]) -> Result<()> {
        let id = self.ends(spec, TaskState::Finished, Reason::Normal, Some(Exit::Code(0))).await?;
        let lines = self.output_of(&id)?;
        ensure!(lines == expect, "printed {lines:?}, not {expect:?}");
        Ok(())
    }

    async fn argv(&mut self) -> Result<()> {
        self.succeeds_printing(&argv(&["/bin/echo", "$HOME", "%n", "${X}", "a  b"]), &["$HOME %n ${X} a  b"]).await?;
        self.succeeds_printing(&argv(&["echo", "bare"]), &["bare"]).await?;
        self.succeeds_printing(
            &sh("echo \"$MESOS_SANDBOX\" | grep -c '^/var/lib/drover/prove'; echo %n '$x'"),
            &["1", "%n $x"],
        )
        .await?;
        let mut with_path = argv(&["echo", "x"]);
        with_path.env.insert("PATH".into(), "/bin".into());
        self.succeeds_printing(&with_path, &["x"]).await
    }

    async fn env(&mut self) -> Result<()> {
        // Not through a shell: dash drops the variables whose names it does not know how to write.
        let mut spec = argv(&["printenv", "A", "B", "PORT_HTTP-API"]);
        spec.env = [("A", "%n $HOME \"q\" 'x' \\n"), ("B", "one\ntwo\t."), ("PORT_HTTP-API", "31000")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        self.succeeds_printing(&spec, &["%n $HOME \"q\" 'x' \\n", "one", "two\t.", "31000"]).await
    }

    async fn sandbox(&mut self) -> Result<()> {
        let line = "set -e
            test $(id -u) -ge 61184
            echo x > here; test -f \"$MESOS_SANDBOX/here\"; test \"$(pwd -P)\" = \"$(cd $MESOS_SANDBOX; pwd -P)\"
            echo x > /tmp/x; echo x > \"$HOME/x\"; echo x > \"$STATE_DIRECTORY/y\"
            for path in /etc/x /usr/x /var/x /root/x /home/x /run/x /sys/x /dev/shm/../x; do
                if (echo x > $path) 2>/dev/null; then echo wrote $path; fi
            done
            test ! -e /dev/kmsg || { head -c1 /dev/kmsg 2>/dev/null && echo kmsg; } || true
            ls /root 2>/dev/null && echo root || true
            grep -q 'NoNewPrivs:.1' /proc/self/status
            grep -q 'CapEff:.0*$' /proc/self/status
            unshare -U true 2>/dev/null && echo namespace || true
            ps ax 2>/dev/null | grep -q '[s]ystemd-journald' && echo sees others || true
            echo done";
        self.succeeds_printing(&sh(line), &["done"]).await
    }

    async fn python(&mut self) -> Result<()> {
        let mut spec = argv(&["python3", "-m", "http.server", "38123"]);
        if run("sh", &["-c", "command -v python3"]).is_err() {
            println!("        no python3 here; perl or sh instead");
            spec = sh("exec sleep 1000");
        }
        let id = self.start(&spec).await?;
        self.until(&id, |unit| unit.sub == "running").await?;
        if matches!(spec.program, Program::Argv(_)) {
            let until = Instant::now() + Duration::from_secs(10);
            while tokio::net::TcpStream::connect("127.0.0.1:38123").await.is_err() {
                ensure!(Instant::now() < until, "does not serve: {}", self.journal_of(&id)?);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        self.let_go(&id).await
    }

    async fn loosened(&mut self) -> Result<()> {
        // Every property a task may set, on a systemd that has it, in a value that runs.
        let mut spec = sh("true");
        spec.user = Some("nobody".into());
        let pairs: &[(&str, &str)] = &[
            ("AmbientCapabilities", "CAP_NET_BIND_SERVICE"),
            ("CapabilityBoundingSet", "~CAP_CHOWN"),
            ("NoNewPrivileges", "no"),
            ("UMask", "0027"),
            ("KeyringMode", "shared"),
            ("Nice", "5"),
            ("OOMScoreAdjust", "100"),
            ("LimitNOFILE", "1000:2000"),
            ("LimitCORE", "0"),
            ("LimitMEMLOCK", "64K"),
            ("ProtectSystem", "no"),
            ("ProtectHome", "read-only"),
            ("ProtectProc", "default"),
            ("ProcSubset", "all"),
            ("ReadWritePaths", "/var/tmp"),
            ("ReadOnlyPaths", "-/srv"),
            ("InaccessiblePaths", "-/media"),
            ("PrivateTmp", "no"),
            ("PrivateDevices", "no"),
            ("PrivateIPC", "yes"),
            ("PrivateMounts", "yes"),
            ("PrivateNetwork", "yes"),
            ("PrivateUsers", "no"),
            ("ProtectClock", "no"),
            ("ProtectControlGroups", "no"),
            ("ProtectHostname", "no"),
            ("ProtectKernelLogs", "no"),
            ("ProtectKernelModules", "no"),
            ("ProtectKernelTunables", "no"),
            ("RestrictAddressFamilies", "AF_INET AF_UNIX"),
            ("RestrictNamespaces", "user mnt"),
            ("RestrictRealtime", "no"),
            ("RestrictSUIDSGID", "no"),
            ("LockPersonality", "no"),
            ("MemoryDenyWriteExecute", "yes"),
            ("RemoveIPC", "no"),
            ("SystemCallFilter", "~@reboot @swap"),
            ("SystemCallArchitectures", "native"),
            ("StandardOutput", "null"),
            ("StandardError", "null"),
            ("SyslogIdentifier", "me"),
            ("SyslogLevelPrefix", "no"),
            ("LogLevelMax", "notice"),
            ("LogRateLimitIntervalSec", "5s"),
            ("LogRateLimitBurst", "100"),
            ("CPUQuota", "150%"),
            ("MemoryHigh", "100M"),
            ("MemorySwapMax", "infinity"),
            ("TasksMax", "100"),
            ("IOWeight", "50"),
            ("DevicePolicy", "closed"),
            ("KillMode", "mixed"),
            ("KillSignal", "SIGINT"),
            ("SendSIGHUP", "yes"),
            ("SuccessExitStatus", "75 SIGUSR1"),
            ("TimeoutStartSec", "30s"),
            ("WatchdogSec", "30s"),
            ("WorkingDirectory", "/tmp"),
            ("ExecPaths", "/"),
            ("NoExecPaths", "/srv"),
            ("LimitNPROC", "infinity"),
        ];
        for (name, value) in pairs {
            // One by one: a refusal names itself.
            let mut one = sh("true");
            one.user = spec.user.clone();
            one.properties.insert((*name).to_owned(), (*value).to_owned());
            self.ends(&one, TaskState::Finished, Reason::Normal, Some(Exit::Code(0)))
                .await
                .with_context(|| (*name).to_owned())?;
            if !["ProtectHome", "PrivateUsers", "MemoryDenyWriteExecute"].contains(name) {
                spec.properties.insert((*name).to_owned(), (*value).to_owned());
            }
        }
        if self.version >= 257 {
            for (name, value) in [("PrivatePIDs", "yes"), ("MemoryZSwapMax", "0"), ("MemoryKSM", "no")] {
                let mut one = sh("true");
                one.properties.insert(name.to_owned(), value.to_owned());
                self.ends(&one, TaskState::Finished, Reason::Normal, Some(Exit::Code(0)))
                    .await
                    .with_context(|| name.to_owned())?;
            }
        }
        let _together =
            self.ends(&spec, TaskState::Finished, Reason::Normal, Some(Exit::Code(0))).await.context("all together")?;
        Ok(())
    }

    async fn vanished(&mut self) -> Result<()> {
        for (line, expect) in [
            ("exec sleep 1000", Evidence::Stopped),
            ("exit 9", Evidence::Failed { result: "exit-code".into(), code: 1, status: 9 }),
        ] {
            let id = self.start(&sh(line)).await?;
            let name = unit::unit_name(&id);
            let unit = self.until(&id, |unit| unit.invocation.is_some() && (unit.sub == "running" || unit.has_ended())).await?;
            if line == "exit 9" {
                self.until(&id, ObservedUnit::has_ended).await?;
            }
            self.let_go(&id).await?;
            let invocation = unit.invocation.clone();
            let found = tokio::task::spawn_blocking(move || {
                journal::evidence(&name, invocation.as_deref(), Manager::System, Duration::from_secs(3))
            })
            .await??;
            ensure!(found == expect, "{line}: {found:?}");
        }
        Ok(())
    }

    async fn logs(&mut self) -> Result<()> {
        let id =
            self.start(&sh("for i in 1 2 3 4 5; do echo line $i; sleep 0.1; done; echo '<3>bad' >&2; exec sleep 1000")).await?;
        let query =
            journal::Query { any_of: vec![("DROVER_TASK".into(), id.to_string())], follow: true, ..journal::Query::default() };
        let began = Instant::now();
        let lines = tokio::task::spawn_blocking(move || {
            let mut lines = Vec::new();
            journal::read(
                &query,
                || began.elapsed() < Duration::from_secs(10),
                |entry| {
                    if entry.pid != Some(1) {
                        lines.push((entry.priority, entry.message, entry.app));
                    }
                    lines.len() < 6
                },
            )
            .map(|()| lines)
        })
        .await??;
        let app = Some("/prove/it-all".to_owned());
        ensure!(lines.first() == Some(&(6, "line 1".into(), app.clone())), "{lines:?}");
        ensure!(lines.last() == Some(&(3, "bad".into(), app)), "{lines:?}");
        for (count, expect) in [(Some(2), vec!["line 5", "bad"]), (Some(0), vec![]), (Some(1), vec!["bad"])] {
            let query = journal::Query {
                any_of: vec![("DROVER_TASK".into(), id.to_string())],
                lines: count,
                ..journal::Query::default()
            };
            let mut found = Vec::new();
            journal::read(
                &query,
                || true,
                |entry| {
                    found.push(entry.message);
                    true
                },
            )?;
            ensure!(found == expect, "{count:?}: {found:?}");
        }
        // Following a task that has not said anything yet.
        let silent = self.start(&sh("sleep 0.5; echo at last; exec sleep 1000")).await?;
        for start in [None, Some(0), Some(10)] {
            let query = journal::Query {
                any_of: vec![("DROVER_TASK".into(), silent.to_string())],
                follow: true,
                lines: start,
                ..journal::Query::default()
            };
            if start == Some(0) {
                // Its line is there by now, so wait for another.
                continue;
            }
            let found = tokio::task::spawn_blocking(move || {
                let mut found = Vec::new();
                let began = Instant::now();
                journal::read(
                    &query,
                    || began.elapsed() < Duration::from_secs(5),
                    |entry| {
                        let is_it = entry.message == "at last";
                        found.push(entry.message);
                        !is_it
                    },
                )
                .map(|()| found)
            })
            .await??;
            ensure!(found.last().map(String::as_str) == Some("at last"), "{start:?}: {found:?}");
        }
        self.let_go(&silent).await?;
        self.let_go(&id).await
    }

    async fn clean(&mut self) -> Result<()> {
        let mut as_root = sh("echo x > file");
        as_root.user = Some("root".into());
        let one = self.ends(&sh("mkdir d; echo x > d/file"), TaskState::Finished, Reason::Normal, Some(Exit::Code(0))).await?;
        let other = self.ends(&as_root, TaskState::Finished, Reason::Normal, Some(Exit::Code(0))).await?;
        let directories = vec![unit::sandbox_directory(&one), unit::sandbox_directory(&other)];
        let paths: Vec<String> =
            directories.iter().flat_map(|path| [format!("/var/lib/{path}"), format!("/var/lib/private/{}", path)]).collect();
        let is_there = || paths.iter().filter(|path| std::fs::symlink_metadata(path).is_ok()).count();
        ensure!(is_there() == 3, "{paths:?}");
        self.systemd.remove_state_directories("drover-sweep.service", "drover.slice", directories).await?;
        let until = Instant::now() + Duration::from_secs(5);
        while is_there() > 0 {
            ensure!(Instant::now() < until, "left: {}", run("ls", &["-laR", "/var/lib/drover", "/var/lib/private/drover"])?);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        while !self.systemd.list("drover-sweep*").await?.is_empty() {
            ensure!(Instant::now() < until, "the sweeping unit stays: {:?}", self.systemd.list("drover-sweep*").await?);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn many(&mut self) -> Result<()> {
        const MANY: usize = 100;
        let began = Instant::now();
        let mut starts = tokio::task::JoinSet::new();
        let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(8));
        let mut ids = Vec::new();
        for _ in 0..MANY {
            self.count += 1;
            let id = TaskId::new(format!("prove.{}-{}", std::process::id(), self.count));
            let (plan, systemd, gate) = (self.plan(&id, &sh("exec sleep 1000"))?, self.systemd.clone(), gate.clone());
            ids.push(id);
            starts.spawn(async move {
                let _turn = gate.acquire_owned().await;
                systemd.start(&plan).await
            });
        }
        while let Some(started) = starts.join_next().await {
            ensure!(started?? == Started::Job("done".into()), "not started");
        }
        let took = began.elapsed();
        println!("        {MANY} starts in {took:?}: {:.0}/s", MANY as f64 / took.as_secs_f64());
        for id in &ids {
            self.until(id, |unit| unit.sub == "running" && unit.invocation.is_some()).await?;
        }
        let mut stops = tokio::task::JoinSet::new();
        for id in &ids {
            let (systemd, name) = (self.systemd.clone(), unit::unit_name(id));
            stops.spawn(async move { systemd.stop(&name).await });
        }
        while let Some(stopped) = stops.join_next().await {
            ensure!(stopped?? == "done", "not stopped");
        }
        for id in &ids {
            self.until(id, |unit| !unit.is_loaded).await?;
        }
        Ok(())
    }

    /// What each part of the sandbox adds to the CPU time of a task that does nothing.
    async fn cost(&mut self) -> Result<()> {
        let full = self.cost_without(&[]).await?;
        println!("        all of it: {full} us");
        let names: Vec<String> =
            self.plan(&TaskId::new("x"), &sh("true"))?.properties.into_iter().map(|(name, _)| name).collect();
        let sandbox: Vec<&str> =
            drover_core::sandbox::DEFAULTS.iter().map(|(name, _, _)| *name).chain(["DynamicUser"]).collect();
        println!("        none of it: {} us", self.cost_without(&sandbox).await?);
        let mounts = [
            "PrivateDevices",
            "PrivateTmp",
            "ProtectControlGroups",
            "ProtectHome",
            "ProtectKernelTunables",
            "ProtectProc",
            "ProtectSystem",
            "DynamicUser",
        ];
        let seccomp: Vec<&str> = sandbox.iter().copied().filter(|name| !mounts.contains(name)).collect();
        println!("        no filters: {} us", self.cost_without(&seccomp).await?);
        println!("        no mounts: {} us", self.cost_without(&mounts).await?);
        for one in mounts {
            let others: Vec<&str> = sandbox.iter().copied().filter(|name| *name != one).collect();
            println!("        only {one}: {} us", self.cost_without(&others).await?);
        }
        for one in &seccomp {
            let others: Vec<&str> = sandbox.iter().copied().filter(|name| name != one).collect();
            println!("        only {one}: {} us", self.cost_without(&others).await?);
        }
        for name in sandbox.iter().filter(|name| names.iter().any(|known| known == *name)) {
            println!("        without {name}: {} us", self.cost_without(&[name]).await?);
        }
        Ok(())
    }

    async fn cost_without(&mut self, left_out: &[&str]) -> Result<u64> {
        let mut costs = Vec::new();
        for _ in 0..9 {
            self.count += 1;
            let id = TaskId::new(format!("prove.{}-{}", std::process::id(), self.count));
            let mut plan = self.plan(&id, &argv(&["/bin/true"]))?;
            plan.properties.retain(|(name, _)| !left_out.contains(&name.as_str()));
            self.systemd.start(&plan).await?;
            self.until(&id, ObservedUnit::has_ended).await?;
            costs.push(self.systemd.usage(&plan.name).await?.cpu_nanos.unwrap_or(0) / 1000);
            self.let_go(&id).await?;
        }
        costs.sort_unstable();
        Ok(costs[costs.len() / 2])
    }

    /// A running and an ended unit are the same before and after, and news keep coming.
    async fn survives(&mut self, disturb: impl FnOnce() -> Result<String>, bus_breaks: bool) -> Result<()> {
        let running = self.start(&sh("exec sleep 1000")).await?;
        let ended = self.start(&sh("exit 5")).await?;
        self.until(&running, |unit| unit.sub == "running").await?;
        self.until(&ended, ObservedUnit::has_ended).await?;
        let names = [unit::unit_name(&running), unit::unit_name(&ended)];
        let began = self.systemd.began_at().await?;
        let mut before = Vec::new();
        for name in &names {
            before.push(self.systemd.observe(name).await?.context("there")?);
        }
        disturb()?;
        if bus_breaks {
            while !self.changes.next().await.is_disconnected {}
            let until = Instant::now() + Duration::from_secs(30);
            (self.systemd, self.changes) = loop {
                match Systemd::connect(Manager::System).await {
                    Ok(connected) => break connected,
                    Err(error) => ensure!(Instant::now() < until, "{error:?}"),
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            };
        } else {
            while !self.changes.next().await.must_relist {}
        }
        ensure!(self.systemd.began_at().await? == began, "the manager seems to be another");
        for (name, before) in names.iter().zip(&before) {
            let mut after = self.systemd.observe(name).await?.context("gone")?;
            after.usage = before.usage;
            ensure!(&after == before, "{after:?} {before:?}");
        }
        self.let_go(&running).await?;
        self.let_go(&ended).await?;
        self.ends(&sh("exit 0"), TaskState::Finished, Reason::Normal, Some(Exit::Code(0))).await.map(drop)
    }
}

fn run(program: &str, args: &[&str]) -> Result<String> {
    let output = std::process::Command::new(program).args(args).output().with_context(|| program.to_owned())?;
    ensure!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
