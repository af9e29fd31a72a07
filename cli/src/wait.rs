//! Waiting until a change has come about. What is waited for is always read anew from the API; events only make the next look come
//! sooner, and carry the reasons of what went wrong in between. ^C stops the waiting and nothing else.

use crate::Session;
use crate::client::{EventStream, encode};
use crate::exit::{Exit, Failure};
use crate::names::short_task;
use crate::screen::{Mark, Tint};
use crate::{logs, text, why};
use drover_api::drover::{Event, EventType, Why};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// Failed tasks beyond one for each instance, none of the new version being up, before it is given up as broken.
const FAILURES_SPARE: usize = 2;
/// How many of them are named.
const FAILURES_NAMED: usize = 3;
/// Lines shown of a program that keeps failing.
const LAST_WORDS: u64 = 5;
/// Between two looks when events say nothing.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Without progress for so long, the reason is asked for and told.
const ASK_WHY_AFTER: Duration = Duration::from_secs(4);
/// Asked again after this.
const ASK_WHY_EVERY: Duration = Duration::from_secs(15);
/// Above so many apps one request for all is cheaper than one for each.
const SINGLE_READS_MAX: usize = 8;

/// Options of commands that wait.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct WaitArgs {
    /// Return as soon as the change is accepted
    #[arg(long, alias = "detach")]
    pub(crate) no_block: bool,
    /// How long to wait until all is up
    #[arg(long, value_name = "SPAN", default_value = "5min", value_parser = text::parse_span)]
    pub(crate) timeout: Duration,
}

/// A change that was accepted.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    /// Its deployment, if it made one.
    pub(crate) deployment: Option<String>,
    /// The version it brings.
    pub(crate) version: Option<String>,
    /// The apps it touches.
    pub(crate) apps: Vec<String>,
    /// Whether they are to be gone.
    pub(crate) removes: bool,
}

/// How an app stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Instances wanted.
    pub(crate) wanted: u64,
    /// Tasks of its present configuration that are up, with their host.
    pub(crate) fresh: BTreeMap<String, String>,
    /// All its tasks, with their host.
    pub(crate) tasks: BTreeMap<String, String>,
    /// Its version.
    pub(crate) version: String,
    /// Its last failure: task, and what was said.
    pub(crate) failure: Option<(String, String)>,
}

impl Standing {
    /// Reads Marathon's app JSON with its tasks.
    pub(crate) fn of(app: &Value) -> Self {
        let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let configured_at = app.get("versionInfo").map(|info| text(info, "lastConfigChangeAt")).unwrap_or_default();
        let has_checks = app.get("healthChecks").and_then(Value::as_array).is_some_and(|checks| !checks.is_empty());
        let mut standing = Self {
            wanted: app.get("instances").and_then(Value::as_u64).unwrap_or(0),
            version: text(app, "version"),
            ..Self::default()
        };
        for task in app.get("tasks").and_then(Value::as_array).into_iter().flatten() {
            let (id, host) = (text(task, "id"), text(task, "host"));
            let is_running = text(task, "state") == "TASK_RUNNING";
            let results = task.get("healthCheckResults").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let alive = |result: &Value| result.get("alive").and_then(Value::as_bool).unwrap_or(false);
            let is_healthy = !has_checks || (!results.is_empty() && results.iter().all(alive));
            // Versions are timestamps of one form, so their text sorts as they do.
            if is_running && is_healthy && text(task, "version") >= configured_at {
                standing.fresh.insert(id.clone(), host.clone());
            }
            standing.tasks.insert(id, host);
        }
        standing.failure = app.get("lastTaskFailure").map(|failure| {
            let said = text(failure, "message");
            let what = if said.is_empty() { text(failure, "state") } else { said };
            (text(failure, "taskId"), format!("{}: {what}", text(failure, "host")))
        });
        standing
    }

    fn is_settled(&self) -> bool {
        self.fresh.len() as u64 >= self.wanted && self.tasks.len() as u64 == self.wanted
    }
}

/// How the waiting ended well.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settled {
    /// Apps with wanted instances; without those that are gone.
    pub(crate) apps: BTreeMap<String, u64>,
    /// How long it took.
    pub(crate) took: Duration,
}

/// Listens from before the change is sent, so that nothing about it is missed.
pub(crate) struct Watch {
    events: Option<EventStream>,
    started: Instant,
}

impl Watch {
    /// Begins to listen. A master without an event stream costs only promptness.
    pub(crate) async fn open(session: &Session, wait: &WaitArgs) -> Self {
        let events = match wait.no_block {
            true => None,
            false => session.client.open_events("/drover/v1/events", None).await.ok(),
        };
        Self { events, started: Instant::now() }
    }

    /// Waits until the change has come about.
    pub(crate) async fn settle(self, session: &Session, change: &Change, timeout: Duration) -> Result<Settled, Failure> {
        let mut waiting = Waiting::new(session, change, self.started);
        let mut events = self.events;
        let deadline = tokio::time::sleep_until(self.started + timeout);
        tokio::pin!(deadline);
        let interrupt = tokio::signal::ctrl_c();
        tokio::pin!(interrupt);
        loop {
            match waiting.look().await {
                Ok(true) => return Ok(Settled { apps: waiting.wanted, took: self.started.elapsed() }),
                Ok(false) => {}
                // A leader is being elected, or a master went away: what was accepted is safe, so go on looking.
                Err(failure) if failure.is_transient() => waiting.tell_trouble(&failure),
                Err(failure) => return Err(failure),
            }
            let tick = tokio::time::sleep(LOOK_EVERY);
            tokio::pin!(tick);
            loop {
                tokio::select! {
                    _ = &mut deadline => return Err(waiting.timed_out(timeout).await),
                    _ = &mut interrupt => return Err(waiting.detached()),
                    _ = &mut tick => break,
                    event = next_event(&mut events) => match event {
                        None => events = None,
                        Some(event) if waiting.concerns(&event) => {
                            waiting.hear(&event);
                            break;
                        }
                        Some(_) => {}
                    }
                }
            }
        }
    }
}

/// The next event, or `None` once there are no more. Without a stream, never.
pub(crate) async fn next_event(events: &mut Option<EventStream>) -> Option<Event> {
    let Some(stream) = events else { return std::future::pending().await };
    loop {
        match stream.next().await {
            Ok(Some(event)) => {
                if let Ok(event) = serde_json::from_str(&event.data) {
                    return Some(event);
                }
            }
            Ok(None) | Err(_) => return None,
        }
    }
}

struct Waiting<'a> {
    session: &'a Session,
    change: &'a Change,
    started: Instant,
    last_progress: Instant,
    last_why: Option<Instant>,
    told_why: String,
    told_trouble: bool,
    cancelled: bool,
    up: BTreeSet<String>,
    before: BTreeMap<String, String>,
    wanted: BTreeMap<String, u64>,
    failures: BTreeMap<String, String>,
    last_failed: Option<String>,
    failures_before: Option<BTreeSet<String>>,
}

impl<'a> Waiting<'a> {
    fn new(session: &'a Session, change: &'a Change, started: Instant) -> Self {
        Self {
            session,
            change,
            started,
            last_progress: started,
            last_why: None,
            told_why: String::new(),
            told_trouble: false,
            cancelled: false,
            up: BTreeSet::new(),
            before: BTreeMap::new(),
            wanted: BTreeMap::new(),
            failures: BTreeMap::new(),
            last_failed: None,
            failures_before: None,
        }
    }

    fn concerns(&self, event: &Event) -> bool {
        event.deployment.is_some() && event.deployment == self.change.deployment
            || event.app.as_ref().is_some_and(|app| self.change.apps.contains(app))
    }

    fn hear(&mut self, event: &Event) {
        match event.kind {
            EventType::DeploymentFailed if event.deployment == self.change.deployment => self.cancelled = true,
            EventType::TaskChanged if matches!(event.state.as_deref(), Some("failed" | "error")) => {
                let node = event.node.as_deref().unwrap_or("?");
                self.note_failure(event.task.clone().unwrap_or_default(), format!("{node}: {}", event.message));
            }
            _ => {}
        }
    }

    fn note_failure(&mut self, task: String, what: String) {
        if self.failures.contains_key(&task) {
            return;
        }
        let mark = self.session.screen.err.mark(Mark::Bad);
        self.session.screen.say(&format!("{mark} {} failed on {what}", short_task(&task)));
        self.last_failed = Some(task.clone());
        self.failures.insert(task, what);
        self.last_progress = Instant::now();
    }

    /// Looks once. `Ok(true)` when all is as it shall be.
    async fn look(&mut self) -> Result<bool, Failure> {
        let under_way = match &self.change.deployment {
            None => false,
            Some(id) => {
                let list = self.session.client.get("/v2/deployments").await?;
                let ids = list.as_array().into_iter().flatten().filter_map(|deployment| deployment.get("id"));
                ids.into_iter().any(|known| known.as_str() == Some(id))
            }
        };
        let standings = self.read_standings().await?;
        self.told_trouble = false;
        self.tell_progress(&standings);
        if self.change.removes {
            let gone = standings.values().all(Option::is_none);
            return match (gone, under_way) {
                (_, true) => Ok(false),
                (true, false) => Ok(true),
                (false, false) => Err(self.overtaken()),
            };
        }
        if let Some((app, _)) = standings.iter().find(|(_, standing)| standing.is_none()) {
            return Err(Failure::new(Exit::DeploymentFailed, format!("app {app} was removed meanwhile")));
        }
        let settled = standings.values().flatten().all(Standing::is_settled);
        if settled && !under_way {
            return Ok(true);
        }
        let ours = |standing: &Standing| self.change.version.as_ref().is_none_or(|version| standing.version <= *version);
        if self.cancelled || (!under_way && !standings.values().flatten().all(ours)) {
            return Err(self.overtaken());
        }
        let any_up = standings.values().flatten().any(|standing| !standing.fresh.is_empty());
        let wanted: u64 = standings.values().flatten().map(|standing| standing.wanted).sum();
        if self.failures.len().saturating_sub(FAILURES_SPARE) as u64 >= wanted && !any_up {
            return Err(self.broken().await);
        }
        self.tell_why(&standings).await;
        Ok(false)
    }

    async fn read_standings(&self) -> Result<BTreeMap<String, Option<Standing>>, Failure> {
        let client = &self.session.client;
        let mut standings = BTreeMap::new();
        if self.change.apps.len() <= SINGLE_READS_MAX {
            for id in &self.change.apps {
                let found = client.find(&format!("/v2/apps{}", encode(id))).await?;
                standings.insert(id.clone(), found.as_ref().and_then(|found| found.get("app")).map(Standing::of));
            }
            return Ok(standings);
        }
        let all = client.get("/v2/apps?embed=apps.tasks&embed=apps.lastTaskFailure").await?;
        let all: BTreeMap<&str, &Value> = all
            .get("apps")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|app| Some((app.get("id")?.as_str()?, app)))
            .collect();
        for id in &self.change.apps {
            standings.insert(id.clone(), all.get(id.as_str()).map(|app| Standing::of(app)));
        }
        Ok(standings)
    }

    fn tell_progress(&mut self, standings: &BTreeMap<String, Option<Standing>>) {
        let screen = &self.session.screen;
        let present: Vec<&Standing> = standings.values().flatten().collect();
        let wanted: u64 = present.iter().map(|standing| standing.wanted).sum();
        self.wanted = standings.iter().filter_map(|(id, standing)| Some((id.clone(), standing.as_ref()?.wanted))).collect();
        let tasks: BTreeMap<String, String> = present.iter().flat_map(|standing| standing.tasks.clone()).collect();
        // What was there at the first look is no news.
        let is_first = self.failures_before.is_none();
        for (task, host) in present.iter().flat_map(|standing| &standing.fresh) {
            if self.up.insert(task.clone()) && !is_first {
                let at = self.up.iter().filter(|up| present.iter().any(|standing| standing.fresh.contains_key(*up))).count();
                screen.say(&format!("[{at}/{wanted}] {}  {host}  running  {}", short_task(task), self.elapsed()));
                self.last_progress = Instant::now();
            }
        }
        if is_first {
            self.before = tasks;
        } else {
            // Only of those that were there before: a new one that ends did not end by wish, and is told of as a failure.
            for (task, host) in self.before.extract_if(.., |task, _| !tasks.contains_key(task)) {
                screen.say(&format!("{} {}  {host}  ended", screen.err.mark(Mark::Off), short_task(&task)));
                self.last_progress = Instant::now();
            }
        }
        let failed: Vec<(String, String)> = present.iter().filter_map(|standing| standing.failure.clone()).collect();
        match &self.failures_before {
            None => self.failures_before = Some(failed.into_iter().map(|(task, _)| task).collect()),
            Some(before) => {
                let new: Vec<_> = failed.into_iter().filter(|(task, _)| !before.contains(task)).collect();
                for (task, what) in new {
                    self.note_failure(task, what);
                }
            }
        }
    }

    fn tell_trouble(&mut self, failure: &Failure) {
        if !std::mem::replace(&mut self.told_trouble, true) {
            let because = failure.because.first().map(|because| format!(" ({because})")).unwrap_or_default();
            self.session.screen.say(&format!("{}{because}; still waiting", failure.error));
        }
    }

    async fn tell_why(&mut self, standings: &BTreeMap<String, Option<Standing>>) {
        let stuck = self.last_progress.elapsed() >= ASK_WHY_AFTER;
        if !stuck || self.last_why.is_some_and(|at| at.elapsed() < ASK_WHY_EVERY) {
            return;
        }
        self.last_why = Some(Instant::now());
        let unsettled = standings.iter().find(|(_, standing)| standing.as_ref().is_some_and(|standing| !standing.is_settled()));
        let Some((app, _)) = unsettled else { return };
        // The reason is a courtesy; without it the waiting goes on all the same.
        let Ok(why) = self.session.client.read::<Why>(&format!("/drover/v1/why/apps{}", encode(app))).await else { return };
        if why.summary != self.told_why && !why.summary.is_empty() {
            let screen = &self.session.screen;
            screen.say(&format!("{} {app}: {}  ({})", screen.err.mark(Mark::Busy), why.summary, self.elapsed()));
            self.told_why = why.summary;
        }
    }

    fn elapsed(&self) -> String {
        text::span(i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX))
    }

    fn subject(&self) -> String {
        match self.change.apps.as_slice() {
            [app] => app.clone(),
            apps => text::count(apps.len() as u64, "app"),
        }
    }

    fn look_again(&self) -> String {
        match self.change.apps.as_slice() {
            [app] if !self.change.removes => format!("drover apps show {app}"),
            _ => "drover apps list".to_owned(),
        }
    }

    fn with_failures(&self, mut failure: Failure) -> Failure {
        for (task, what) in self.failures.iter().take(FAILURES_NAMED) {
            failure = failure.because(format!("{} failed on {what}", short_task(task)));
        }
        failure
    }

    fn overtaken(&self) -> Failure {
        let what = match &self.change.deployment {
            Some(id) => format!("deployment {id} of {} was cancelled", self.subject()),
            None => format!("another change of {} came in between", self.subject()),
        };
        self.with_failures(Failure::new(Exit::DeploymentFailed, what)).try_this(self.look_again())
    }

    /// Given up; with what the last of the failed ones said.
    async fn broken(&self) -> Failure {
        if let Some(task) = &self.last_failed {
            for line in logs::newest(self.session, "task", task, LAST_WORDS, self.session.screen.err).await {
                self.session.screen.say(&format!("  {}", line.trim_end()));
            }
        }
        let failure = Failure::new(Exit::DeploymentFailed, format!("{} keeps failing", self.subject()));
        let failure = self.with_failures(failure).because("drover goes on trying, more and more slowly");
        match self.change.apps.as_slice() {
            [app] => failure.try_this(format!("drover logs {app}")),
            _ => failure.try_this("drover apps list"),
        }
    }

    fn detached(&self) -> Failure {
        let screen = &self.session.screen;
        screen.say(&screen.err.paint(Tint::Bold, "detached; the change goes on in the cluster"));
        screen.say(&format!("look again: {}", self.look_again()));
        Failure::new(Exit::Detached, "")
    }

    /// Out of time: because nothing can be placed, or simply not done.
    async fn timed_out(&self, timeout: Duration) -> Failure {
        let span = text::span(i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX));
        for app in &self.change.apps {
            let Ok(why) = self.session.client.read::<Why>(&format!("/drover/v1/why/apps{}", encode(app))).await else {
                continue;
            };
            // After failures it waits for the end of its back-off, not for a place.
            let unplaced = why.waiting.iter().any(|waiting| waiting.held.is_none() || self.failures.is_empty());
            if unplaced {
                let mut failure = Failure::new(Exit::CannotPlace, format!("{app} found no place within {span}"));
                failure.because = why::reasons(&why);
                return self.with_failures(failure).try_this(format!("drover why {app}"));
            }
        }
        self.with_failures(Failure::new(
            Exit::TimedOut,
            format!("{} is not done after {span}; it goes on in the cluster", self.subject()),
        ))
        .try_this(self.look_again())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_tasks_of_the_present_configuration_count() {
        let task = |id: &str, state: &str, version: &str| json!({"id": id, "host": "n1", "state": state, "version": version});
        let app = json!({
            "id": "/web", "instances": 2, "version": "2024-01-03T00:00:00.000Z",
            "versionInfo": {"lastConfigChangeAt": "2024-01-02T00:00:00.000Z"},
            "tasks": [
                task("old", "TASK_RUNNING", "2024-01-01T00:00:00.000Z"),
                task("new", "TASK_RUNNING", "2024-01-02T00:00:00.000Z"),
                task("scaled", "TASK_STAGING", "2024-01-03T00:00:00.000Z"),
            ],
            "lastTaskFailure": {"taskId": "x", "host": "n2", "state": "TASK_FAILED", "message": "exit 3"},
        });
        let standing = Standing::of(&app);
        assert_eq!(standing.fresh.keys().collect::<Vec<_>>(), ["new"]);
        assert_eq!(standing.tasks.len(), 3);
        assert!(!standing.is_settled());
        assert_eq!(standing.failure, Some(("x".into(), "n2: exit 3".into())));
    }

    #[test]
    fn with_health_checks_running_is_not_enough() {
        let app = |results: Value| json!({"instances": 1, "healthChecks": [{}], "tasks": [{"id": "a", "state": "TASK_RUNNING", "version": "2", "healthCheckResults": results}]});
        assert!(!Standing::of(&app(json!([]))).is_settled());
        assert!(!Standing::of(&app(json!([{"alive": true}, {"alive": false}]))).is_settled());
        assert!(Standing::of(&app(json!([{"alive": true}]))).is_settled());
    }
}
