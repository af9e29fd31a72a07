//! `drover apps`: programs kept running. Speaks Marathon's `/v2`.

use crate::apply::{differences, make_so};
use crate::client::encode;
use crate::documents;
use crate::exit::{Exit, Failure};
use crate::names::{self, short_task};
use crate::screen::{Format, Listing, Mark, Sheet, Style, Table};
use crate::wait::{Change, WaitArgs, Watch};
use crate::{Session, text};
use drover_api::drover::Time;
use hyper::Method;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum AppsCommand {
    /// All apps and how they are
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  drover apps list
  drover apps list -o json | jq '.apps[].id'"
    )]
    List,
    /// One app with its instances
    #[command(after_help = "\
Examples:
  drover apps show /shop/web
  drover apps show web -o json")]
    Show {
        /// Its id, or the beginning of it
        app: String,
    },
    /// Create or change apps from a file, and wait until they are up
    #[command(after_help = "\
Examples:
  drover apps deploy -f web.toml
  drover apps deploy -f web.json --timeout 30s")]
    Deploy {
        /// JSON or TOML, or - for standard input; may be repeated
        #[arg(short, long = "file", value_name = "FILE", required = true)]
        file: Vec<PathBuf>,
        /// End deployments that are in the way
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Change how many instances run
    #[command(after_help = "\
Examples:
  drover apps scale /shop/web=6
  drover apps scale web=+2 api=50%")]
    Scale {
        /// APP=N, APP=+N, APP=-N or APP=P%
        #[arg(value_name = "APP=N", required = true)]
        targets: Vec<String>,
        /// End deployments that are in the way
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Replace all instances, as many at once as the app's upgrade strategy allows
    #[command(after_help = "\
Examples:
  drover apps restart /shop/web
  drover apps restart web --no-block")]
    Restart {
        /// Its id, or the beginning of it
        app: String,
        /// End deployments that are in the way
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Scale to nothing, and keep the definition
    #[command(after_help = "\
Examples:
  drover apps stop /shop/web
  drover apps scale /shop/web=4      starts it again")]
    Stop {
        /// Its id, or the beginning of it
        app: String,
        /// End deployments that are in the way
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// End all instances and forget the app
    #[command(
        visible_alias = "rm",
        after_help = "\
Examples:
  drover apps delete /shop/web
  drover apps delete /shop/web --yes     without a question"
    )]
    Delete {
        /// Its id; here in full
        app: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// The versions that are kept of an app, newest first
    #[command(after_help = "\
Examples:
  drover apps history /shop/web
  drover apps history web -o json")]
    History {
        /// Its id, or the beginning of it
        app: String,
    },
    /// Go back to an older version
    #[command(after_help = "\
Examples:
  drover apps rollback /shop/web                              to the one before
  drover apps rollback web 2026-11-22T10:00:00.000Z           to that one")]
    Rollback {
        /// Its id, or the beginning of it
        app: String,
        /// As `apps history` shows it; without it, the newest that differs
        version: Option<String>,
        /// End deployments that are in the way
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        wait: WaitArgs,
    },
}

/// `drover apps …`.
pub(crate) async fn run(session: &Session, command: AppsCommand) -> Result<Exit, Failure> {
    match command {
        AppsCommand::List => list(session).await,
        AppsCommand::Show { app } => {
            let id = names::app(&session.client, &app).await?;
            show(session, &id).await.map(|_| Exit::Ok)
        }
        AppsCommand::Deploy { file, force, wait } => {
            let documents = documents::read(&file, false)?;
            if let Some((job, _)) = documents.jobs.first() {
                return Err(Failure::new(Exit::Usage, format!("{job} is a job, not an app")).try_this("drover apply -f FILE"));
            }
            make_so(session, &documents, force, &wait).await
        }
        AppsCommand::Scale { targets, force, wait } => scale(session, &targets, force, &wait).await,
        AppsCommand::Restart { app, force, wait } => {
            let id = names::app(&session.client, &app).await?;
            let path = format!("/v2/apps{}/restart?force={force}", encode(&id));
            change(session, Method::POST, &path, None, vec![id], false, &wait).await
        }
        AppsCommand::Stop { app, force, wait } => {
            let id = names::app(&session.client, &app).await?;
            let path = format!("/v2/apps{}?force={force}", encode(&id));
            change(session, Method::PUT, &path, Some(json!({"instances": 0})), vec![id], false, &wait).await
        }
        AppsCommand::Delete { app, yes, wait } => delete(session, &app, yes, &wait).await,
        AppsCommand::History { app } => history(session, &app).await,
        AppsCommand::Rollback { app, version, force, wait } => rollback(session, &app, version, force, &wait).await,
    }
}

/// Sends a change, and waits for it unless told not to.
async fn change(
    session: &Session,
    method: Method,
    path: &str,
    body: Option<Value>,
    apps: Vec<String>,
    removes: bool,
    wait: &WaitArgs,
) -> Result<Exit, Failure> {
    let watch = Watch::open(session, wait).await;
    let answer = session.client.send(method, path, body.as_ref()).await?;
    let text = |key: &str| answer.body.get(key).and_then(Value::as_str).map(str::to_owned);
    let deployment = answer.deployment.clone().or_else(|| text("deploymentId"));
    let change = Change { deployment, version: text("version"), apps, removes };
    finish(session, watch, change, wait).await
}

/// Waits for an accepted change, unless told not to, and tells the outcome.
pub(crate) async fn finish(session: &Session, watch: Watch, change: Change, wait: &WaitArgs) -> Result<Exit, Failure> {
    let screen = &session.screen;
    let names = change.apps.join("\n");
    if wait.no_block {
        let value =
            json!({"apiVersion": "drover/v1", "outcome": "accepted", "deployment": change.deployment, "apps": change.apps});
        screen.object(&value, &names, || {
            format!("{} accepted\n", change.deployment.as_deref().map_or("change".to_owned(), |id| format!("deployment {id}")))
        })?;
        return Ok(Exit::Ok);
    }
    let settled = watch.settle(session, &change, wait.timeout).await?;
    let took_ms = i64::try_from(settled.took.as_millis()).unwrap_or(i64::MAX);
    let apps: Vec<Value> = settled.apps.iter().map(|(id, instances)| json!({"id": id, "instances": instances})).collect();
    let value = json!({"apiVersion": "drover/v1", "outcome": "settled", "deployment": change.deployment, "apps": apps, "elapsedMs": took_ms});
    screen.object(&value, &names, || {
        let after = text::span(took_ms);
        let mut out = String::new();
        for (id, instances) in &settled.apps {
            out.push_str(&match instances {
                0 => format!("{} {id}  stopped after {after}\n", screen.out.mark(Mark::Off)),
                n => format!("{} {id}  {n}/{n} running after {after}\n", screen.out.mark(Mark::Good)),
            });
        }
        if change.removes {
            for id in &change.apps {
                out.push_str(&format!("{} {id}  gone after {after}\n", screen.out.mark(Mark::Off)));
            }
        }
        out
    })?;
    if let ([id], false) = (change.apps.as_slice(), change.removes) {
        screen.hint(&format!("next: drover logs -f {id}"));
    }
    Ok(Exit::Ok)
}

/// How an app is, in a word.
pub(crate) fn health(app: &Value) -> (Mark, &'static str) {
    let number = |key: &str| app.get(key).and_then(Value::as_u64).unwrap_or(0);
    let has = |key: &str| app.get(key).and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    let (wanted, running) = (number("instances"), number("tasksRunning"));
    let healthy = if has("healthChecks") { number("tasksHealthy") } else { running };
    match () {
        () if has("deployments") => (Mark::Busy, "deploying"),
        () if wanted == 0 && running == 0 => (Mark::Off, "stopped"),
        () if number("tasksUnhealthy") > 0 => (Mark::Bad, "unhealthy"),
        () if healthy >= wanted && has("healthChecks") => (Mark::Good, "healthy"),
        () if healthy >= wanted => (Mark::Good, "running"),
        () if number("tasksStaged") > 0 => (Mark::Busy, "starting"),
        () => (Mark::Bad, "waiting"),
    }
}

async fn list(session: &Session) -> Result<Exit, Failure> {
    let answer = session.client.get("/v2/apps").await?;
    let mut apps = answer.get("apps").and_then(Value::as_array).cloned().unwrap_or_default();
    apps.sort_by(|a, b| a["id"].as_str().cmp(&b["id"].as_str()));
    let screen = &session.screen;
    let listing = Listing {
        kind: "apps",
        names: apps.iter().map(|app| app["id"].as_str().unwrap_or_default().to_owned()).collect(),
        table: table(&apps, screen.format == Format::Wide, screen.now()),
        items: &apps,
        empty: "No apps. Create one: drover apps deploy -f FILE",
    };
    screen.list(&listing)?;
    Ok(Exit::Ok)
}

/// The table of `apps list`.
fn table(apps: &[Value], wide: bool, now: Timestamp) -> Table {
    let mut headings = vec!["APP", "HEALTH", "INST", "CPU", "MEM", "PORTS", "DEPLOY", "CHANGED"];
    if wide {
        headings.extend(["VERSION", "COMMAND"]);
    }
    let mut table = Table::new(&headings);
    for app in apps {
        let (mark, word) = health(app);
        let number = |key: &str| app.get(key).and_then(Value::as_f64).unwrap_or(0.0);
        let deployments = app.get("deployments").and_then(Value::as_array).into_iter().flatten();
        let deployments: Vec<String> = deployments
            .filter_map(|deployment| deployment.get("id")?.as_str())
            .map(|id| id.chars().take(8).collect())
            .collect();
        let changed = app["version"].as_str().and_then(parse_time).map(|at| text::relative(at, now)).unwrap_or_default();
        let mut cells = vec![
            app["id"].as_str().unwrap_or_default().to_owned(),
            word.to_owned(),
            format!("{}/{}", app["tasksRunning"].as_u64().unwrap_or(0), app["instances"].as_u64().unwrap_or(0)),
            text::number(number("cpus")),
            megabytes(number("mem")),
            service_ports(app),
            deployments.join(","),
            changed,
        ];
        if wide {
            cells.push(app["version"].as_str().unwrap_or_default().to_owned());
            cells.push(command(app));
        }
        table.row(Some(mark), cells);
    }
    table
}

fn parse_time(text: &str) -> Option<Time> {
    text.parse::<Timestamp>().ok().map(|at| Time(at.as_microsecond()))
}

/// Marathon counts memory and disk in MiB.
fn megabytes(amount: f64) -> String {
    // Negative or absurd amounts become 0 or the greatest; the server refuses them anyway.
    text::size((amount * 1048576.0) as u64)
}

fn service_ports(app: &Value) -> String {
    let definitions = app.get("portDefinitions").and_then(Value::as_array).into_iter().flatten();
    let ports: Vec<String> = definitions.filter_map(|port| port.get("port")?.as_u64()).map(|port| port.to_string()).collect();
    ports.join(",")
}

fn command(app: &Value) -> String {
    if let Some(cmd) = app["cmd"].as_str() {
        return cmd.to_owned();
    }
    let args = app["args"].as_array().into_iter().flatten().filter_map(Value::as_str);
    args.collect::<Vec<_>>().join(" ")
}

/// Shows one app; returns how it is.
pub(crate) async fn show(session: &Session, id: &str) -> Result<Mark, Failure> {
    let answer = session.client.get(&format!("/v2/apps{}", encode(id))).await?;
    let app = answer.get("app").cloned().unwrap_or(Value::Null);
    let screen = &session.screen;
    let value = json!({"apiVersion": "drover/v1", "app": app});
    screen.object(&value, id, || page(&app, screen.out, &screen.zone, screen.now()))?;
    Ok(health(&app).0)
}

/// The screen of `apps show`.
fn page(app: &Value, style: Style, zone: &TimeZone, now: Timestamp) -> String {
    let (mark, word) = health(app);
    let text_of = |key: &str| app[key].as_str().unwrap_or_default();
    let number = |key: &str| app.get(key).and_then(Value::as_f64).unwrap_or(0.0);
    let running = app["tasksRunning"].as_u64().unwrap_or(0);
    let wanted = app["instances"].as_u64().unwrap_or(0);
    let mut out = format!("{} {}  {word}  {running}/{wanted} instances\n", style.mark(mark), text_of("id"));
    let when = |text: &str| parse_time(text).map(|at| format!("{}; {}", text::instant(at, zone), text::relative(at, now)));
    let mut sheet = Sheet::default();
    sheet.line("Command", command(app));
    sheet.line("User", text_of("user"));
    let mut each = format!("cpu {}, mem {}", text::number(number("cpus")), megabytes(number("mem")));
    if number("disk") > 0.0 {
        each.push_str(&format!(", disk {}", megabytes(number("disk"))));
    }
    sheet.line("Each", each);
    sheet.line("Ports", service_ports(app));
    let pairs = |key: &str| {
        let map = app[key].as_object().into_iter().flatten();
        map.map(|(name, value)| format!("{name}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
            .collect::<Vec<_>>()
            .join(" ")
    };
    sheet.line("Env", pairs("env"));
    sheet.line("Labels", pairs("labels"));
    let constraints = app["constraints"].as_array().into_iter().flatten();
    let constraints =
        constraints.map(|parts| parts.as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(" "));
    sheet.line("Constraints", constraints.collect::<Vec<_>>().join("; "));
    let upgrade = &app["upgradeStrategy"];
    if let (Some(minimum), Some(over)) = (upgrade["minimumHealthCapacity"].as_f64(), upgrade["maximumOverCapacity"].as_f64()) {
        sheet.line("Upgrade", format!("at least {:.0}% up, at most {:.0}% more", minimum * 100.0, over * 100.0));
    }
    sheet.line("Version", when(text_of("version")).unwrap_or_default());
    let deployments = app["deployments"].as_array().into_iter().flatten().filter_map(|deployment| deployment["id"].as_str());
    sheet.line("Deployment", deployments.collect::<Vec<_>>().join(", "));
    if let Some(failure) = app.get("lastTaskFailure") {
        let at = failure["timestamp"]
            .as_str()
            .and_then(parse_time)
            .map(|at| format!(", {}", text::relative(at, now)))
            .unwrap_or_default();
        let said = failure["message"].as_str().unwrap_or_default();
        sheet.line(
            "Last failure",
            format!(
                "{} on {}{at}: {said}",
                short_task(failure["taskId"].as_str().unwrap_or_default()),
                failure["host"].as_str().unwrap_or_default()
            ),
        );
    }
    out.push_str(&sheet.render());
    let tasks: Vec<&Value> = app["tasks"].as_array().into_iter().flatten().collect();
    if !tasks.is_empty() {
        let mut table = Table::new(&["TASK", "NODE", "STATE", "SINCE", "HEALTH", "PORTS", "VERSION"]);
        for task in tasks {
            table.row(Some(task_mark(task)), task_cells(task, app, now));
        }
        out.push_str(&table.render(style, true));
    }
    out
}

fn task_mark(task: &Value) -> Mark {
    match task["state"].as_str() {
        Some("TASK_RUNNING") if task_health(task) == "failing" => Mark::Bad,
        Some("TASK_RUNNING") => Mark::Good,
        Some("TASK_STAGING" | "TASK_STARTING" | "TASK_KILLING") => Mark::Busy,
        _ => Mark::Bad,
    }
}

fn task_health(task: &Value) -> &'static str {
    let results = task["healthCheckResults"].as_array().map(Vec::as_slice).unwrap_or_default();
    match results {
        [] => "",
        all if all.iter().all(|result| result["alive"] == json!(true)) => "ok",
        _ => "failing",
    }
}

fn task_cells(task: &Value, app: &Value, now: Timestamp) -> Vec<String> {
    let text_of = |key: &str| task[key].as_str().unwrap_or_default();
    let since = [text_of("startedAt"), text_of("stagedAt")].into_iter().find_map(parse_time);
    let ports = task["ports"].as_array().into_iter().flatten().filter_map(Value::as_u64);
    let is_old = text_of("version") < app["versionInfo"]["lastConfigChangeAt"].as_str().unwrap_or_default();
    vec![
        short_task(text_of("id")),
        text_of("host").to_owned(),
        text_of("state").trim_start_matches("TASK_").to_lowercase().replace('_', "-"),
        since.map(|at| text::span(now.as_millisecond() - at.millis())).unwrap_or_default(),
        task_health(task).to_owned(),
        ports.map(|port| port.to_string()).collect::<Vec<_>>().join(","),
        if is_old { "old".to_owned() } else { "current".to_owned() },
    ]
}

async fn scale(session: &Session, targets: &[String], force: bool, wait: &WaitArgs) -> Result<Exit, Failure> {
    let mut bodies = Vec::new();
    for target in targets {
        let (name, amount) = target.rsplit_once('=').ok_or_else(|| {
            Failure::new(Exit::Usage, format!("{target:?} does not say how many"))
                .try_this(format!("drover apps scale {target}=2"))
        })?;
        let id = names::app(&session.client, name).await?;
        let answer = session.client.get(&format!("/v2/apps{}", encode(&id))).await?;
        let present = answer["app"]["instances"].as_u64().unwrap_or(0);
        let instances = scaled(present, amount)
            .map_err(|why| Failure::new(Exit::Usage, why).try_this(format!("drover apps scale {name}=2")))?;
        session.screen.say(&format!("{id}: {present}{}{instances}", session.screen.err.arrow()));
        bodies.push((id, instances));
    }
    if let [(id, instances)] = bodies.as_slice() {
        let path = format!("/v2/apps{}?force={force}", encode(id));
        return change(session, Method::PUT, &path, Some(json!({"instances": instances})), vec![id.clone()], false, wait).await;
    }
    let body = bodies.iter().map(|(id, instances)| json!({"id": id, "instances": instances})).collect();
    let apps = bodies.into_iter().map(|(id, _)| id).collect();
    change(session, Method::PUT, &format!("/v2/apps?force={force}"), Some(Value::Array(body)), apps, false, wait).await
}

/// `6`, `+2`, `-1` or `50%` of the present count. Half an instance is a whole one.
fn scaled(present: u64, amount: &str) -> Result<u64, String> {
    let bad = || format!("{amount:?} is no number of instances: write 6, +2, -1 or 50%");
    let number = |text: &str| text.parse::<u64>().map_err(|_| bad());
    let instances = if let Some(more) = amount.strip_prefix('+') {
        present.checked_add(number(more)?).ok_or_else(bad)?
    } else if let Some(fewer) = amount.strip_prefix('-') {
        let fewer = number(fewer)?;
        present.checked_sub(fewer).ok_or_else(|| format!("there are only {present}, not {fewer} to take away"))?
    } else if let Some(percent) = amount.strip_suffix('%') {
        present.checked_mul(number(percent)?).ok_or_else(bad)?.div_ceil(100)
    } else {
        number(amount)?
    };
    if instances > u64::from(u32::MAX) { Err(bad()) } else { Ok(instances) }
}

async fn delete(session: &Session, name: &str, yes: bool, wait: &WaitArgs) -> Result<Exit, Failure> {
    // What is destroyed must be named in full.
    let id = format!("/{}", name.trim_matches('/'));
    let Some(answer) = session.client.find(&format!("/v2/apps{}", encode(&id))).await? else {
        let near = names::app(&session.client, name).await;
        let failure = Failure::new(Exit::NotFound, format!("there is no app {id:?}"));
        return Err(match near {
            Ok(near) => {
                failure.because("an app to be deleted must be named in full").try_this(format!("drover apps delete {near}"))
            }
            Err(failure) => failure,
        });
    };
    let instances = answer["app"]["tasksRunning"].as_u64().unwrap_or(0);
    session.confirm(&format!("This ends {} of {id} and forgets its definition", text::count(instances, "instance")), yes)?;
    change(session, Method::DELETE, &format!("/v2/apps{}", encode(&id)), None, vec![id], true, wait).await
}

async fn versions(session: &Session, id: &str) -> Result<Vec<String>, Failure> {
    let answer = session.client.get(&format!("/v2/apps{}/versions", encode(id))).await?;
    let listed = answer["versions"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    let mut listed: Vec<String> = listed.collect();
    listed.sort_unstable_by(|a, b| b.cmp(a));
    Ok(listed)
}

async fn version(session: &Session, id: &str, version: &str) -> Result<Value, Failure> {
    session.client.get(&format!("/v2/apps{}/versions/{}", encode(id), encode(version))).await
}

async fn history(session: &Session, name: &str) -> Result<Exit, Failure> {
    let id = names::app(&session.client, name).await?;
    let listed = versions(session, &id).await?;
    let mut definitions = Vec::new();
    for one in &listed {
        definitions.push(version(session, &id, one).await?);
    }
    let screen = &session.screen;
    let mut table = Table::new(&["VERSION", "CHANGED", "INST", "CHANGES"]);
    for (at, (text_of, definition)) in listed.iter().zip(&definitions).enumerate() {
        let changes = definitions.get(at + 1).map(|older| differences(older, definition));
        let changes = match changes {
            None => "first kept".to_owned(),
            Some(changes) if changes.is_empty() => "restart".to_owned(),
            Some(changes) => changes.iter().map(|change| change.render(screen.out.arrow())).collect::<Vec<_>>().join("  "),
        };
        let changed = parse_time(text_of).map(|at| text::relative(at, screen.now())).unwrap_or_default();
        let mark = if at == 0 { Mark::Good } else { Mark::Off };
        table.row(
            Some(mark),
            vec![text_of.clone(), changed, definition["instances"].as_u64().unwrap_or(0).to_string(), changes],
        );
    }
    screen.list(&Listing { kind: "versions", names: listed, table, items: &definitions, empty: "No versions are kept." })?;
    Ok(Exit::Ok)
}

async fn rollback(
    session: &Session,
    name: &str,
    wanted: Option<String>,
    force: bool,
    wait: &WaitArgs,
) -> Result<Exit, Failure> {
    let id = names::app(&session.client, name).await?;
    let listed = versions(session, &id).await?;
    let Some(newest) = listed.first() else {
        return Err(Failure::new(Exit::NotFound, format!("no versions are kept of {id}")));
    };
    let present = version(session, &id, newest).await?;
    let mut target = None;
    for candidate in listed.iter().skip(1) {
        if wanted.as_ref().is_some_and(|wanted| !candidate.starts_with(wanted.as_str())) {
            continue;
        }
        let changes = differences(&present, &version(session, &id, candidate).await?);
        if wanted.is_some() || !changes.is_empty() {
            target = Some((candidate.clone(), changes));
            break;
        }
    }
    let Some((to, changes)) = target else {
        let what = wanted.map_or_else(
            || format!("{id} has no older version that differs"),
            |wanted| format!("{id} has no older version {wanted}"),
        );
        return Err(Failure::new(Exit::NotFound, what).try_this(format!("drover apps history {id}")));
    };
    let arrow = session.screen.err.arrow();
    let changes: Vec<String> = changes.iter().map(|change| change.render(arrow)).collect();
    session.screen.say(&format!("{id}: back to {to}  {}", changes.join("  ")));
    let path = format!("/v2/apps{}?force={force}", encode(&id));
    change(session, Method::PUT, &path, Some(json!({"version": to})), vec![id], false, wait).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::tests::PLAIN;

    fn now() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    fn app(id: &str, wanted: u64, running: u64, more: Value) -> Value {
        let mut app = json!({
            "id": id, "cmd": "run", "instances": wanted, "tasksRunning": running, "tasksStaged": 0, "tasksHealthy": 0, "tasksUnhealthy": 0,
            "cpus": 0.5, "mem": 512, "deployments": [], "portDefinitions": [{"port": 10000}], "version": "2026-11-22T10:00:00.000Z",
        });
        app.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        app
    }

    #[test]
    fn the_list_says_how_each_app_is() {
        let apps = [
            app("/shop/web", 4, 4, json!({"healthChecks": [{}], "tasksHealthy": 4})),
            app("/shop/api", 4, 2, json!({"deployments": [{"id": "1f3c0000-1111"}]})),
            app("/old", 0, 0, json!({"portDefinitions": []})),
            app("/sick", 1, 1, json!({"tasksUnhealthy": 1})),
            app("/ml", 1, 0, json!({"cpus": 4, "mem": 16384})),
            app("/new", 2, 1, json!({"tasksStaged": 1})),
        ];
        assert_eq!(
            table(&apps, false, now()).render(PLAIN, true),
            "  APP        HEALTH     INST  CPU  MEM   PORTS  DEPLOY    CHANGED
● /shop/web  healthy    4/4   0.5  512M  10000  –         2h ago
↻ /shop/api  deploying  2/4   0.5  512M  10000  1f3c0000  2h ago
○ /old       stopped    0/0   0.5  512M  –      –         2h ago
× /sick      unhealthy  1/1   0.5  512M  10000  –         2h ago
× /ml        waiting    0/1   4    16G   10000  –         2h ago
↻ /new       starting   1/2   0.5  512M  10000  –         2h ago
"
        );
    }

    #[test]
    fn the_page_shows_definition_and_instances() {
        let shown = app(
            "/shop/web",
            2,
            1,
            json!({
                "env": {"CACHE": "on"}, "constraints": [["rack", "UNIQUE"]],
                "upgradeStrategy": {"minimumHealthCapacity": 1, "maximumOverCapacity": 0.5},
                "versionInfo": {"lastConfigChangeAt": "2026-11-22T10:00:00.000Z"},
                "lastTaskFailure": {"taskId": "shop_web.aaaaaaaa-1", "host": "n2", "message": "exit 3", "timestamp": "2026-11-22T11:59:00.000Z"},
                "tasks": [{
                    "id": "shop_web.0b1c2d3e-4f5a", "host": "n1", "state": "TASK_RUNNING", "ports": [31000],
                    "startedAt": "2026-11-22T11:00:00.000Z", "version": "2026-11-22T10:00:00.000Z", "healthCheckResults": [],
                }],
            }),
        );
        assert_eq!(
            page(&shown, PLAIN, &TimeZone::UTC, now()),
            "\
× /shop/web  waiting  1/2 instances
       Command: run
          Each: cpu 0.5, mem 512M
         Ports: 10000
           Env: CACHE=on
   Constraints: rack UNIQUE
       Upgrade: at least 100% up, at most 50% more
       Version: Sun 2026-11-22 10:00:00 UTC; 2h ago
  Last failure: shop_web.aaaaaaaa on n2, 1min ago: exit 3
  TASK               NODE  STATE    SINCE  HEALTH  PORTS  VERSION
● shop_web.0b1c2d3e  n1    running  1h     –       31000  current
"
        );
    }

    #[test]
    fn amounts_are_read() {
        for (present, amount, expect) in [
            (4, "6", Some(6)),
            (4, "+2", Some(6)),
            (4, "-1", Some(3)),
            (5, "50%", Some(3)),
            (4, "0", Some(0)),
            (1, "-2", None),
            (4, "x", None),
            (4, "", None),
            (4, "5000000000", None),
        ] {
            assert_eq!(scaled(present, amount).ok(), expect, "{amount}");
        }
    }
}
