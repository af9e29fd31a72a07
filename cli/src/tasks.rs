//! `drover tasks`: the units that run now, or may.

use crate::client::{encode, understand};
use crate::exit::{Exit, Failure};
use crate::names::{self, short_task};
use crate::screen::{Format, Listing, Mark, Sheet, Style, Table};
use crate::{Session, text};
use drover_api::drover::{Task, TaskState, Tasks};
use hyper::Method;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum TasksCommand {
    /// All tasks that are, or may be, there
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  drover tasks list --node n07
  drover tasks list --app /shop/web -o wide"
    )]
    List {
        /// Only instances of this app
        #[arg(long)]
        app: Option<String>,
        /// Only runs of this job
        #[arg(long)]
        job: Option<String>,
        /// Only on this node
        #[arg(long)]
        node: Option<String>,
    },
    /// One task, and its unit on the node
    #[command(after_help = "\
Examples:
  drover tasks show shop_web.0b1c
  drover tasks show shop_web.0b1c -o json")]
    Show {
        /// Its id, or the beginning of it
        task: String,
    },
    /// End a task. An app's is replaced, a job's run is not tried again
    #[command(
        visible_alias = "kill",
        after_help = "\
Examples:
  drover tasks stop shop_web.0b1c
  drover tasks stop shop_web.0b1c --scale     and want one instance less"
    )]
    Stop {
        /// Ids, or the beginnings of them
        #[arg(required = true)]
        tasks: Vec<String>,
        /// Do not replace it: the app is scaled down by one
        #[arg(long)]
        scale: bool,
    },
}

/// `drover tasks …`.
pub(crate) async fn run(session: &Session, command: TasksCommand) -> Result<Exit, Failure> {
    match command {
        TasksCommand::List { app, job, node } => list(session, app, job, node).await,
        TasksCommand::Show { task } => {
            let task = names::task(&session.client, &task).await?;
            show(session, &task).map(|_| Exit::Ok)
        }
        TasksCommand::Stop { tasks, scale } => stop(session, &tasks, scale).await,
    }
}

async fn list(session: &Session, app: Option<String>, job: Option<String>, node: Option<String>) -> Result<Exit, Failure> {
    let client = &session.client;
    let mut query = Vec::new();
    if let Some(app) = app {
        query.push(format!("app={}", encode(&names::app(client, &app).await?)));
    }
    if let Some(job) = job {
        query.push(format!("job={}", encode(&names::job(client, &job).await?.job.name)));
    }
    if let Some(node) = node {
        query.push(format!("node={}", encode(&names::node(client, &node).await?.name)));
    }
    let path = match query.as_slice() {
        [] => "/drover/v1/tasks".to_owned(),
        parts => format!("/drover/v1/tasks?{}", parts.join("&")),
    };
    let answer = client.get(&path).await?;
    let items = answer["tasks"].as_array().cloned().unwrap_or_default();
    let tasks: Tasks = understand(&path, answer)?;
    let screen = &session.screen;
    let listing = Listing {
        kind: "tasks",
        names: tasks.tasks.iter().map(|task| task.id.clone()).collect(),
        table: table(&tasks.tasks, screen.format == Format::Wide, screen.now()),
        items: &items,
        empty: "No tasks.",
    };
    screen.list(&listing)?;
    Ok(Exit::Ok)
}

fn mark(task: &Task) -> Mark {
    match task.state {
        TaskState::Running => Mark::Good,
        TaskState::Staging | TaskState::Starting | TaskState::Killing => Mark::Busy,
        TaskState::Finished | TaskState::Killed => Mark::Off,
        _ => Mark::Bad,
    }
}

fn owner(task: &Task) -> String {
    task.app.clone().or_else(|| task.run.clone()).or_else(|| task.job.clone()).unwrap_or_default()
}

fn since(task: &Task, now: Timestamp) -> String {
    text::span(now.as_millisecond() - task.started_at.unwrap_or(task.staged_at).millis())
}

fn ports(task: &Task) -> String {
    task.ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",")
}

/// The table of `tasks list`.
pub(crate) fn table(tasks: &[Task], wide: bool, now: Timestamp) -> Table {
    let mut headings = vec!["TASK", "OF", "NODE", "STATE", "SINCE", "PORTS"];
    if wide {
        headings.extend(["UNIT", "INVOCATION", "MESSAGE"]);
    }
    let mut table = Table::new(&headings);
    for task in tasks {
        let id = if wide { task.id.clone() } else { short_task(&task.id) };
        let state = if task.ending.is_some() && task.state != TaskState::Killing { "ending" } else { task.state.word() };
        let mut cells = vec![id, owner(task), task.node.clone(), state.to_owned(), since(task, now), ports(task)];
        if wide {
            cells.extend([task.unit.clone(), task.invocation_id.clone().unwrap_or_default(), task.message.clone()]);
        }
        table.row(Some(mark(task)), cells);
    }
    table
}

/// Shows one task; returns how it is.
pub(crate) fn show(session: &Session, task: &Task) -> Result<Mark, Failure> {
    let screen = &session.screen;
    let value = json!({"apiVersion": "drover/v1", "task": task});
    screen.object(&value, &task.id, || page(task, screen.out, &screen.zone, screen.now()))?;
    screen.hint(&format!("next: drover logs -f {}", task.id));
    Ok(mark(task))
}

fn page(task: &Task, style: Style, zone: &TimeZone, now: Timestamp) -> String {
    let mut out = format!("{} {}  {}\n", style.mark(mark(task)), task.id, task.state.word());
    let when = |at| format!("{}; {}", text::instant(at, zone), text::relative(at, now));
    let mut sheet = Sheet::default();
    sheet.line("App", task.app.clone().unwrap_or_default());
    sheet.line("Job", task.job.clone().unwrap_or_default());
    sheet.line(
        "Run",
        task.run.clone().map(|run| format!("{run}, attempt {}", task.attempt.unwrap_or(0) + 1)).unwrap_or_default(),
    );
    sheet.line("Node", task.node.clone());
    sheet.line("Unit", task.unit.clone());
    sheet.line("Invocation", task.invocation_id.clone().unwrap_or_default());
    sheet.line("Ports", ports(task));
    sheet.line("Placed", when(task.staged_at));
    sheet.line("Running since", task.started_at.map(when).unwrap_or_default());
    sheet.line("Unreachable since", task.unreachable_since.map(when).unwrap_or_default());
    sheet.line("Ending", task.ending.clone().unwrap_or_default());
    sheet.line("Reason", if task.reason == "normal" { String::new() } else { task.reason.clone() });
    sheet.line("Message", task.message.clone());
    out.push_str(&sheet.render());
    out
}

async fn stop(session: &Session, names: &[String], scale: bool) -> Result<Exit, Failure> {
    let mut tasks = Vec::new();
    for name in names {
        tasks.push(names::task(&session.client, name).await?);
    }
    let (of_apps, of_jobs): (Vec<&Task>, Vec<&Task>) = tasks.iter().partition(|task| task.app.is_some());
    if scale && let Some(task) = of_jobs.first() {
        return Err(Failure::new(Exit::Usage, format!("{} belongs to a job, which has no count to scale", task.id)));
    }
    if !of_apps.is_empty() {
        let ids: Vec<&str> = of_apps.iter().map(|task| task.id.as_str()).collect();
        session.client.send(Method::POST, &format!("/v2/tasks/delete?scale={scale}"), Some(&json!({"ids": ids}))).await?;
    }
    for task in of_jobs {
        session.client.send(Method::POST, &format!("/drover/v1/tasks/{}/stop", encode(&task.id)), None).await?;
    }
    let ids: Vec<Value> = tasks.iter().map(|task| json!(task.id)).collect();
    let value = json!({"apiVersion": "drover/v1", "outcome": "accepted", "tasks": ids});
    let lines =
        tasks.iter().map(|task| format!("{} {}  told to end on {}\n", session.screen.out.mark(Mark::Busy), task.id, task.node));
    let names = tasks.iter().map(|task| task.id.as_str()).collect::<Vec<_>>().join("\n");
    session.screen.object(&value, &names, || lines.collect())?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::tests::PLAIN;

    fn tasks() -> Vec<Task> {
        serde_json::from_value(json!([
            {"id": "shop_web.0b1c2d3e-4f5a-6b7c", "app": "/shop/web", "node": "n1", "state": "running", "reason": "normal", "unit": "drover-shop_web.0b1c2d3e-4f5a-6b7c.service",
             "invocationId": "00ff", "ports": [31000, 31001], "stagedAt": "2026-11-22T10:00:00.000Z", "startedAt": "2026-11-22T10:00:01.000Z"},
            {"id": "ct:1795341600000:1:etl:", "job": "etl", "run": "etl@1795341600000", "attempt": 1, "node": "n2", "state": "unreachable", "reason": "agent-unreachable", "unit": "u",
             "message": "n2 is silent", "stagedAt": "2026-11-22T10:00:00.000Z", "unreachableSince": "2026-11-22T10:20:00.000Z"},
            {"id": "old.1", "app": "/old", "node": "n1", "state": "running", "reason": "normal", "unit": "u", "ending": "scaled down", "stagedAt": "2026-11-22T10:00:00.000Z"},
        ]))
        .unwrap()
    }

    #[test]
    fn the_list_says_where_each_is() {
        let now: Timestamp = "2026-11-22T10:30:01Z".parse().unwrap();
        assert_eq!(
            table(&tasks(), false, now).render(PLAIN, true),
            "  TASK                 OF                 NODE  STATE        SINCE     PORTS
● shop_web.0b1c2d3e    /shop/web          n1    running      30min     31000,31001
× etl@1795341600000#1  etl@1795341600000  n2    unreachable  30min 1s  –
● old.1                /old               n1    ending       30min 1s  –
"
        );
        assert_eq!(
            page(&tasks()[1], PLAIN, &TimeZone::UTC, now),
            "\
× ct:1795341600000:1:etl:  unreachable
                Job: etl
                Run: etl@1795341600000, attempt 2
               Node: n2
               Unit: u
             Placed: Sun 2026-11-22 10:00:00 UTC; 30min ago
  Unreachable since: Sun 2026-11-22 10:20:00 UTC; 10min ago
             Reason: agent-unreachable
            Message: n2 is silent
"
        );
    }
}
