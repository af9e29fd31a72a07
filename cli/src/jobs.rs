//! `drover jobs`: programs run on a schedule or after others. Definitions are Chronos'; runs are drover's own.

use crate::client::{EventStream, encode, understand};
use crate::exit::{Exit, Failure};
use crate::names::{self, short_task};
use crate::screen::{Format, Listing, Mark, Sheet, Style, Table, Tint};
use crate::{Session, text, wait};
use clap::ValueEnum;
use drover_api::drover::{Cause, ExitStatus, Job, JobDetail, Jobs, Run, RunStarted, RunState, TaskState};
use hyper::Method;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use std::time::Duration;

/// Between two looks at a run when events say nothing.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Subcommand)]
pub(crate) enum JobsCommand {
    /// All jobs, the next to run first
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  drover jobs list
  drover jobs list -o name"
    )]
    List,
    /// One job with its newest runs
    #[command(after_help = "\
Examples:
  drover jobs show etl
  drover jobs show etl -o json | jq .definition")]
    Show {
        /// Its name, or the beginning of it
        job: String,
    },
    /// Run a job now
    #[command(after_help = "\
With --wait the exit code is that of the job's process.

Examples:
  drover jobs run etl
  drover jobs run etl --wait -- --day 21")]
    Run {
        /// Its name, or the beginning of it
        job: String,
        /// Wait until the run is over, retries included
        #[arg(long)]
        wait: bool,
        /// Wait no longer than this
        #[arg(long, value_name = "SPAN", value_parser = text::parse_span, requires = "wait")]
        timeout: Option<Duration>,
        /// Appended to the job's own arguments
        #[arg(last = true, value_name = "ARGS")]
        arguments: Vec<String>,
    },
    /// Runs of a job, newest first
    #[command(after_help = "\
Examples:
  drover jobs history etl
  drover jobs history etl -n 3")]
    History {
        /// Its name, or the beginning of it
        job: String,
        /// How many
        #[arg(short = 'n', long, value_name = "N")]
        lines: Option<usize>,
    },
    /// Let schedule and parents start it again
    #[command(after_help = "\
Examples:
  drover jobs enable etl
  drover jobs disable etl")]
    Enable {
        /// Its name, or the beginning of it
        job: String,
    },
    /// Let neither schedule nor parents start it
    #[command(after_help = "\
Examples:
  drover jobs disable etl
  drover jobs run etl           runs it by hand; it stays disabled")]
    Disable {
        /// Its name, or the beginning of it
        job: String,
    },
    /// End what runs of it and forget it. Jobs that run after it get its parents
    #[command(
        visible_alias = "rm",
        after_help = "\
Examples:
  drover jobs delete etl
  drover jobs delete etl --children inherit --yes     without a question"
    )]
    Delete {
        /// Its name; here in full
        job: String,
        /// What becomes of jobs that run after it, if it has a schedule: they get it, or keep their other parents
        #[arg(long, value_enum, value_name = "HOW")]
        children: Option<Children>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// What becomes of the jobs that run after one that is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Children {
    /// They get its schedule
    Inherit,
    /// They keep their other parents
    Detach,
}

/// `drover jobs …`.
pub(crate) async fn run(session: &Session, command: JobsCommand) -> Result<Exit, Failure> {
    match command {
        JobsCommand::List => list(session).await,
        JobsCommand::Show { job } => {
            let detail = names::job(&session.client, &job).await?;
            show(session, &detail).await.map(|_| Exit::Ok)
        }
        JobsCommand::Run { job, wait, timeout, arguments } => start(session, &job, wait, timeout, arguments).await,
        JobsCommand::History { job, lines } => history(session, &job, lines).await,
        JobsCommand::Enable { job } => switch(session, &job, false).await,
        JobsCommand::Disable { job } => switch(session, &job, true).await,
        JobsCommand::Delete { job, children, yes } => delete(session, &job, children, yes).await,
    }
}

async fn list(session: &Session) -> Result<Exit, Failure> {
    let path = "/drover/v1/jobs";
    let answer = session.client.get(path).await?;
    let mut items = answer["jobs"].as_array().cloned().unwrap_or_default();
    let jobs: Jobs = understand(path, answer)?;
    let mut order: Vec<(usize, &Job)> = jobs.jobs.iter().enumerate().collect();
    order.sort_by(|(_, a), (_, b)| (a.next.is_none(), a.next, &a.name).cmp(&(b.next.is_none(), b.next, &b.name)));
    items = order.iter().map(|(at, _)| items[*at].clone()).collect();
    let sorted: Vec<&Job> = order.into_iter().map(|(_, job)| job).collect();
    let screen = &session.screen;
    let listing = Listing {
        kind: "jobs",
        names: sorted.iter().map(|job| job.name.clone()).collect(),
        table: table(&sorted, screen.format == Format::Wide, screen.out, &screen.zone, screen.now()),
        items: &items,
        empty: "No jobs. Create one: drover apply -f FILE",
    };
    screen.list(&listing)?;
    Ok(Exit::Ok)
}

/// How a job is.
pub(crate) fn standing(job: &Job) -> Mark {
    match () {
        () if !job.live.is_empty() => Mark::Busy,
        () if job.last.as_ref().is_some_and(has_failed) => Mark::Bad,
        () if job.disabled => Mark::Off,
        () => Mark::Good,
    }
}

/// The table of `jobs list`.
fn table(jobs: &[&Job], wide: bool, style: Style, zone: &TimeZone, now: Timestamp) -> Table {
    let mut headings = vec!["JOB", "ZONE", "SCHEDULE", "NEXT", "LEFT", "LAST", "RESULT", "DURATION", "OWNER"];
    if wide {
        headings.extend(["OK", "FAILED", "RUN", "NODE", "ABOUT"]);
    }
    let mut table = Table::new(&headings);
    for job in jobs {
        let schedule = match (&job.schedule, job.parents.as_slice()) {
            (Some(schedule), _) => schedule.clone(),
            (None, []) => String::new(),
            (None, parents) => format!("{} {}", parents.join(" + "), style.arrow()),
        };
        let next = match (job.next, job.disabled) {
            (_, true) => "disabled".to_owned(),
            (Some(at), false) => text::instant(at, zone),
            (None, false) if !job.parents.is_empty() => format!("after {}", job.parents.join(", ")),
            (None, false) => String::new(),
        };
        let left = job.next.filter(|_| !job.disabled);
        let newest = job.live.last().or(job.last.as_ref());
        let of_newest = |tell: &dyn Fn(&Run) -> String| newest.map(tell).unwrap_or_default();
        let mut cells = vec![
            job.name.clone(),
            job.zone.clone().unwrap_or_default(),
            schedule,
            next,
            left.map(|at| text::span_short(at.millis() - now.as_millisecond())).unwrap_or_default(),
            of_newest(&|run| text::relative(run.started_at.unwrap_or(run.queued_at), now)),
            of_newest(&outcome),
            of_newest(&|run| duration(run, now)),
            job.owner.clone(),
        ];
        if wide {
            cells.extend([
                job.success_count.to_string(),
                job.error_count.to_string(),
                of_newest(&|run| run.id.clone()),
                of_newest(&|run| run.node.clone().unwrap_or_default()),
                job.description.clone(),
            ]);
        }
        table.row(Some(standing(job)), cells);
    }
    table
}

fn has_failed(run: &Run) -> bool {
    run.state == RunState::Done
        && !matches!(run.result, Some(TaskState::Finished | TaskState::Killed | TaskState::Dropped) | None)
}

/// How a run came out, or where it is, in a word or two.
pub(crate) fn outcome(run: &Run) -> String {
    match (run.state, run.result) {
        (RunState::Queued, _) if run.attempt > 0 => format!("retry {}", run.attempt),
        (RunState::Queued, _) => "queued".to_owned(),
        (RunState::Active, _) => "running".to_owned(),
        (RunState::Ending | RunState::Done, Some(TaskState::Finished)) => "ok".to_owned(),
        (RunState::Ending | RunState::Done, Some(state)) => ended_as(state, run.exit),
        (RunState::Ending | RunState::Done, None) => "ended".to_owned(),
    }
}

/// `exit 3`, `signal 9`, or the state's own word.
pub(crate) fn ended_as(state: TaskState, exit: ExitStatus) -> String {
    match (state, exit.exit_code, exit.signal) {
        (TaskState::Failed, Some(code), _) if code != 0 => format!("exit {code}"),
        (TaskState::Failed, _, Some(signal)) => format!("signal {signal}"),
        (state, _, _) => state.word().to_owned(),
    }
}

/// The exit code that stands for the end of a process.
pub(crate) fn exit_of(state: TaskState, exit: ExitStatus) -> Exit {
    match (state, exit.exit_code, exit.signal) {
        (TaskState::Finished, _, _) => Exit::Ok,
        (_, Some(code), _) if code != 0 => Exit::Process(u8::try_from(code).unwrap_or(1)),
        (_, _, Some(signal)) => Exit::Process(u8::try_from(128 + signal).unwrap_or(255)),
        _ => Exit::Failed,
    }
}

fn duration(run: &Run, now: Timestamp) -> String {
    // Between two attempts nothing of it runs.
    if run.state == RunState::Queued {
        return String::new();
    }
    let Some(started) = run.started_at else { return String::new() };
    let end = run.ended_at.map_or(now.as_millisecond(), |at| at.millis());
    text::span(end - started.millis())
}

fn run_mark(run: &Run) -> Mark {
    match (run.state, run.result) {
        (RunState::Queued | RunState::Active, _) => Mark::Busy,
        (_, Some(TaskState::Finished)) => Mark::Good,
        (_, Some(TaskState::Killed | TaskState::Dropped)) => Mark::Off,
        _ => Mark::Bad,
    }
}

fn runs_table(runs: &[Run], zone: &TimeZone, now: Timestamp) -> Table {
    let mut table = Table::new(&["RUN", "STARTED", "PASSED", "DURATION", "RESULT", "NODE", "CAUSE", "TRY", "MESSAGE"]);
    for run in runs {
        let began = run.started_at.unwrap_or(run.queued_at);
        let cause = match run.cause {
            Cause::Slot => "schedule",
            Cause::Manual => "by hand",
            Cause::Parents => "parents",
        };
        table.row(
            Some(run_mark(run)),
            vec![
                run.id.clone(),
                text::instant(began, zone),
                text::relative(began, now),
                duration(run, now),
                outcome(run),
                run.node.clone().unwrap_or_default(),
                cause.to_owned(),
                (run.attempt + 1).to_string(),
                run.message.clone(),
            ],
        );
    }
    table
}

/// Shows one job; returns how it is.
pub(crate) async fn show(session: &Session, detail: &JobDetail) -> Result<Mark, Failure> {
    let definition = session.client.get(&format!("/v1/scheduler/job/{}", encode(&detail.job.name))).await?;
    let screen = &session.screen;
    let value = json!({"apiVersion": "drover/v1", "job": detail.job, "runs": detail.runs, "definition": definition});
    screen.object(&value, &detail.job.name, || page(detail, &definition, screen.out, &screen.zone, screen.now()))?;
    Ok(standing(&detail.job))
}

/// The screen of `jobs show`.
fn page(detail: &JobDetail, definition: &Value, style: Style, zone: &TimeZone, now: Timestamp) -> String {
    let job = &detail.job;
    let newest = job.live.last().or(job.last.as_ref());
    let state = match (job.disabled, newest) {
        (true, _) if job.live.is_empty() => "disabled".to_owned(),
        (_, None) => "has not run yet".to_owned(),
        (_, Some(run)) => outcome(run),
    };
    let mut out = format!("{} {}  {state}\n", style.mark(standing(job)), job.name);
    let text_of = |key: &str| definition[key].as_str().unwrap_or_default().to_owned();
    let mut sheet = Sheet::default();
    sheet.line("About", job.description.clone());
    let arguments =
        definition["arguments"].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(" ");
    sheet.line("Command", format!("{} {arguments}", text_of("command")).trim().to_owned());
    let zone_text = job.zone.as_ref().map(|zone| format!(" ({zone})")).unwrap_or_default();
    sheet.line("Schedule", job.schedule.as_ref().map(|schedule| format!("{schedule}{zone_text}")).unwrap_or_default());
    sheet.line("After", job.parents.join(", "));
    let left = job.remaining.map(|left| format!("; {} left", text::count(left.into(), "run"))).unwrap_or_default();
    sheet.line(
        "Next",
        job.next.map(|at| format!("{}; {}{left}", text::instant(at, zone), text::relative(at, now))).unwrap_or_default(),
    );
    let number = |key: &str| definition[key].as_f64().unwrap_or(0.0);
    // Chronos counts memory in MiB.
    sheet.line("Each", format!("cpu {}, mem {}", text::number(number("cpus")), text::size((number("mem") * 1048576.0) as u64)));
    sheet.line("Retries", definition["retries"].as_u64().map(|retries| retries.to_string()).unwrap_or_default());
    sheet.line("Owner", job.owner.clone());
    sheet.line("Runs", format!("{} ok, {} failed", job.success_count, job.error_count));
    out.push_str(&sheet.render());
    if !detail.runs.is_empty() {
        out.push_str(&runs_table(&detail.runs[..detail.runs.len().min(10)], zone, now).render(style, true));
    }
    out
}

async fn history(session: &Session, name: &str, lines: Option<usize>) -> Result<Exit, Failure> {
    let mut detail = names::job(&session.client, name).await?;
    detail.runs.truncate(lines.unwrap_or(usize::MAX));
    let items: Vec<Value> = detail.runs.iter().map(|run| serde_json::to_value(run).expect("a run is plain data")).collect();
    let screen = &session.screen;
    let empty = format!("{} has not run yet. Run it: drover jobs run {}", detail.job.name, detail.job.name);
    let listing = Listing {
        kind: "runs",
        names: detail.runs.iter().map(|run| run.id.clone()).collect(),
        table: runs_table(&detail.runs, &screen.zone, screen.now()),
        items: &items,
        empty: &empty,
    };
    screen.list(&listing)?;
    if let Some(run) = detail.runs.first() {
        screen.hint(&format!("next: drover logs {}", run.id));
    }
    Ok(Exit::Ok)
}

async fn start(
    session: &Session,
    name: &str,
    wait: bool,
    timeout: Option<Duration>,
    arguments: Vec<String>,
) -> Result<Exit, Failure> {
    let detail = names::job(&session.client, name).await?;
    let events = if wait { session.client.open_events("/drover/v1/events", None).await.ok() } else { None };
    let path = format!("/drover/v1/jobs/{}/run", encode(&detail.job.name));
    let answer = session.client.send(Method::POST, &path, Some(&json!({"arguments": arguments}))).await?;
    let started: RunStarted = understand(&path, answer.body.clone())?;
    let screen = &session.screen;
    if !wait {
        screen.object(&answer.body, &started.run.id, || {
            format!("{} {}  queued\n", screen.out.mark(Mark::Busy), started.run.id)
        })?;
        screen.hint(&format!("next: drover logs -f {}", started.run.id));
        return Ok(Exit::Ok);
    }
    let run = until_over(session, &started.run, events, timeout).await?;
    let value = json!({"apiVersion": "drover/v1", "run": run});
    screen.object(&value, &run.id, || {
        let node = run.node.as_ref().map(|node| format!(" on {node}")).unwrap_or_default();
        let took = duration(&run, screen.now());
        let took = if took.is_empty() { String::new() } else { format!(" after {took}") };
        format!("{} {}  {}{took}{node}\n", screen.out.mark(run_mark(&run)), run.id, outcome(&run))
    })?;
    Ok(run.result.map_or(Exit::Failed, |state| exit_of(state, run.exit)))
}

/// Looks at a run until it is over, telling what becomes of it.
async fn until_over(
    session: &Session,
    run: &Run,
    mut events: Option<EventStream>,
    timeout: Option<Duration>,
) -> Result<Run, Failure> {
    let screen = &session.screen;
    let path = format!("/drover/v1/jobs/{}", encode(&run.job));
    let deadline = async {
        match timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(deadline);
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    let look_again = format!("drover logs -f {}", run.id);
    let mut told = String::new();
    loop {
        match session.client.read::<JobDetail>(&path).await {
            Ok(detail) => {
                let Some(present) = detail.runs.iter().find(|known| known.id == run.id) else {
                    return Err(Failure::new(Exit::Failed, format!("run {} is not on record any more", run.id))
                        .try_this(format!("drover jobs history {}", run.job)));
                };
                if present.state == RunState::Done {
                    return Ok(present.clone());
                }
                let news = news(present);
                if news != told {
                    screen.say(&format!("{} {}  {news}", screen.err.mark(Mark::Busy), run.id));
                    told = news;
                }
            }
            Err(failure) if failure.is_transient() => {
                if told != failure.error {
                    screen.say(&format!("{}; still waiting", failure.error));
                    told = failure.error;
                }
            }
            Err(failure) => return Err(failure),
        }
        let tick = tokio::time::sleep(LOOK_EVERY);
        tokio::pin!(tick);
        loop {
            tokio::select! {
                () = &mut deadline => {
                    return Err(Failure::new(Exit::TimedOut, format!("run {} is not over yet; it goes on", run.id)).try_this(look_again));
                }
                _ = &mut interrupt => {
                    screen.say(&screen.err.paint(Tint::Bold, &format!("detached; run {} goes on", run.id)));
                    screen.say(&format!("look again: {look_again}"));
                    return Err(Failure::new(Exit::Detached, ""));
                }
                () = &mut tick => break,
                event = wait::next_event(&mut events) => match event {
                    None => events = None,
                    Some(event) if event.run.as_deref() == Some(run.id.as_str()) => break,
                    Some(_) => {}
                }
            }
        }
    }
}

fn news(run: &Run) -> String {
    let node = run.node.as_ref().map(|node| format!(" on {node}")).unwrap_or_default();
    match (run.state, run.attempt) {
        (RunState::Active, 0) => format!("running{node}"),
        (RunState::Active, attempt) => format!("attempt {} running{node}", attempt + 1),
        (RunState::Queued, 0) => "queued".to_owned(),
        (RunState::Queued, attempt) => {
            let said = if run.message.is_empty() { String::new() } else { format!(" ({})", run.message) };
            format!("attempt {attempt} failed{said}; the next is queued")
        }
        (RunState::Ending | RunState::Done, _) => outcome(run),
    }
}

async fn switch(session: &Session, name: &str, disabled: bool) -> Result<Exit, Failure> {
    let detail = names::job(&session.client, name).await?;
    let name = &detail.job.name;
    let mut definition = session.client.get(&format!("/v1/scheduler/job/{}", encode(name))).await?;
    let word = if disabled { "disabled" } else { "enabled" };
    definition["disabled"] = Value::Bool(disabled);
    let path = if detail.job.parents.is_empty() { "/v1/scheduler/iso8601" } else { "/v1/scheduler/dependency" };
    session.client.send(Method::POST, path, Some(&definition)).await?;
    let value = json!({"apiVersion": "drover/v1", "job": name, "disabled": disabled});
    let mark = if disabled { Mark::Off } else { Mark::Good };
    session.screen.object(&value, name, || format!("{} {name}  {word}\n", session.screen.out.mark(mark)))?;
    Ok(Exit::Ok)
}

async fn delete(session: &Session, name: &str, fate: Option<Children>, yes: bool) -> Result<Exit, Failure> {
    let detail = names::job(&session.client, name).await?;
    if detail.job.name != name {
        return Err(Failure::new(Exit::NotFound, format!("there is no job {name:?}"))
            .because("a job to be deleted must be named in full")
            .try_this(format!("drover jobs delete {}", detail.job.name)));
    }
    let jobs: Jobs = session.client.read("/drover/v1/jobs").await?;
    let children: Vec<&str> =
        jobs.jobs.iter().filter(|job| job.parents.iter().any(|parent| parent == name)).map(|job| job.name.as_str()).collect();
    let mut what = format!("This forgets job {name} and its history");
    if !detail.job.live.is_empty() {
        what.push_str(&format!(", ends {}", text::count(detail.job.live.len() as u64, "run")));
    }
    match (children.is_empty(), detail.job.parents.is_empty(), fate) {
        (true, _, _) => {}
        (false, false, _) => what.push_str(&format!(", and gives {} its parents", children.join(", "))),
        (false, true, Some(Children::Inherit)) => what.push_str(&format!(", and gives {} its schedule", children.join(", "))),
        (false, true, Some(Children::Detach)) => {
            what.push_str(&format!(", and takes it from the parents of {}", children.join(", ")))
        }
        (false, true, None) => {
            return Err(Failure::new(Exit::Usage, format!("other jobs run after {name}"))
                .because(children.join(", "))
                .try_this(format!("drover jobs delete {name} --children inherit   # or detach")));
        }
    }
    session.confirm(&what, yes)?;
    let query = match fate {
        None => "",
        Some(Children::Inherit) => "?children=inherit",
        Some(Children::Detach) => "?children=detach",
    };
    session.client.send(Method::DELETE, &format!("/v1/scheduler/job/{}{query}", encode(name)), None).await?;
    let value = json!({"apiVersion": "drover/v1", "job": name, "outcome": "deleted"});
    session.screen.object(&value, name, || format!("{} {name}  deleted\n", session.screen.out.mark(Mark::Off)))?;
    Ok(Exit::Ok)
}

/// What a task of a job is called in a sentence.
pub(crate) fn ended_line(task: &str, state: TaskState, exit: ExitStatus, message: &str) -> String {
    let how = ended_as(state, exit);
    let said = if message.is_empty() || message == how { String::new() } else { format!(" ({message})") };
    format!("-- {} ended: {how}{said} --", short_task(task))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::tests::PLAIN;

    fn now() -> Timestamp {
        "2026-11-22T10:56:00Z".parse().unwrap()
    }

    fn run_of(job: &str, more: Value) -> Value {
        let mut run = json!({
            "id": format!("{job}@1795341600000"), "job": job, "slot": "2026-11-22T10:00:00.000Z", "cause": "slot", "attempt": 0, "state": "done",
            "result": "finished", "node": "n04", "queuedAt": "2026-11-22T10:00:00.000Z", "startedAt": "2026-11-22T10:00:02.000Z", "endedAt": "2026-11-22T10:00:05.100Z",
        });
        run.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        run
    }

    fn jobs() -> Vec<Job> {
        serde_json::from_value(json!([
            {"name": "billing-close", "schedule": "0 * * * *", "zone": "Europe/Berlin", "owner": "anna", "next": "2026-11-22T11:00:00.000Z", "last": run_of("billing-close", json!({}))},
            {"name": "invoice-mail", "parents": ["billing-close"], "live": [run_of("invoice-mail", json!({"state": "active", "result": null, "endedAt": null}))]},
            {"name": "etl", "schedule": "R/2026-01-01T03:10:00Z/P1D", "next": "2026-11-23T03:10:00.000Z", "last": run_of("etl", json!({"result": "failed", "exitCode": 3, "attempt": 2}))},
            {"name": "off", "schedule": "R/2026-01-01T00:00:00Z/P1D", "disabled": true},
        ]))
        .unwrap()
    }

    #[test]
    fn the_list_says_what_comes_next() {
        let jobs = jobs();
        let sorted: Vec<&Job> = jobs.iter().collect();
        assert_eq!(
            table(&sorted, false, PLAIN, &TimeZone::UTC, now()).render(PLAIN, true),
            "  JOB            ZONE           SCHEDULE                    NEXT                         LEFT  LAST       RESULT   DURATION   OWNER
● billing-close  Europe/Berlin  0 * * * *                   Sun 2026-11-22 11:00:00 UTC  4min  55min ago  ok       3.1s       anna
↻ invoice-mail   –              billing-close →             after billing-close          –     55min ago  running  55min 58s  –
× etl            –              R/2026-01-01T03:10:00Z/P1D  Mon 2026-11-23 03:10:00 UTC  16h   55min ago  exit 3   3.1s       –
○ off            –              R/2026-01-01T00:00:00Z/P1D  disabled                     –     –          –        –          –
"
        );
    }

    #[test]
    fn a_process_end_becomes_an_exit_code() {
        let exit = |exit_code, signal| ExitStatus { exit_code, signal };
        for (state, exit, code, words) in [
            (TaskState::Finished, exit(Some(0), None), 0, "finished"),
            (TaskState::Failed, exit(Some(3), None), 3, "exit 3"),
            (TaskState::Failed, exit(None, Some(9)), 137, "signal 9"),
            (TaskState::Failed, exit(None, None), 1, "failed"),
            (TaskState::Killed, exit(None, Some(15)), 143, "killed"),
            (TaskState::Failed, exit(Some(-1), None), 1, "exit -1"),
        ] {
            assert_eq!((exit_of(state, exit).code(), ended_as(state, exit).as_str()), (code, words), "{state:?} {exit:?}");
        }
    }

    #[test]
    fn the_page_shows_definition_and_runs() {
        let detail = JobDetail {
            job: jobs().remove(2),
            runs: vec![
                serde_json::from_value(run_of("etl", json!({"result": "failed", "exitCode": 3, "message": "exit 3"}))).unwrap(),
            ],
            ..JobDetail::default()
        };
        let definition = json!({"command": "/usr/bin/etl", "arguments": ["--all"], "cpus": 0.1, "mem": 128.0, "retries": 2});
        assert_eq!(
            page(&detail, &definition, PLAIN, &TimeZone::UTC, now()),
            "\
× etl  exit 3
   Command: /usr/bin/etl --all
  Schedule: R/2026-01-01T03:10:00Z/P1D
      Next: Mon 2026-11-23 03:10:00 UTC; in 16h
      Each: cpu 0.1, mem 128M
   Retries: 2
      Runs: 0 ok, 0 failed
  RUN                STARTED                      PASSED     DURATION  RESULT  NODE  CAUSE     TRY  MESSAGE
× etl@1795341600000  Sun 2026-11-22 10:00:02 UTC  55min ago  3.1s      exit 3  n04   schedule  1    exit 3
"
        );
    }
}
