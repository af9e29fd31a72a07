//! `drover apply`: the cluster becomes what files say.

use crate::apps::finish;
use crate::client::encode;
use crate::documents::{self, Documents};
use crate::exit::{Exit, Failure};
use crate::screen::{Screen, Tint};
use crate::wait::{Change, WaitArgs, Watch};
use crate::{Session, text};
use hyper::Method;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// How many changed fields of one app are named.
const FIELDS_NAMED_MAX: usize = 8;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Files are JSON or TOML: one app (has an id) or job (has a name), a list of them, or {apps: […], jobs: […]}.
An app becomes exactly what its file says; what the file leaves out takes its default.

Examples:
  drover apply -f shop/                      every .json and .toml file there
  drover apply -f web.toml -f jobs.json --no-block")]
pub(crate) struct ApplyArgs {
    /// A file, a directory, or - for standard input; may be repeated
    #[arg(short, long = "file", value_name = "FILE|DIR", required = true)]
    file: Vec<PathBuf>,
    /// Directories with all that is below them
    #[arg(short = 'R', long)]
    recursive: bool,
    /// End deployments that are in the way
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

/// `drover apply -f …`.
pub(crate) async fn run(session: &Session, args: ApplyArgs) -> Result<Exit, Failure> {
    let documents = documents::read(&args.file, args.recursive)?;
    make_so(session, &documents, args.force, &args.wait).await
}

/// Sends the documents: all apps in one deployment, then the jobs, parents first. Then waits for the apps.
pub(crate) async fn make_so(session: &Session, documents: &Documents, force: bool, wait: &WaitArgs) -> Result<Exit, Failure> {
    let watch = Watch::open(session, wait).await;
    let change = if documents.apps.is_empty() { None } else { Some(send_apps(session, &documents.apps, force).await?) };
    for (at, (name, job)) in documents.jobs.iter().enumerate() {
        if let Err(mut failure) = send_job(session, name, job).await {
            let done = documents.apps.keys().chain(documents.jobs[..at].iter().map(|(name, _)| name));
            let done: Vec<&str> = done.map(String::as_str).collect();
            if !done.is_empty() {
                failure = failure.because(format!("accepted before: {}", done.join(", ")));
            }
            failure.error = format!("job {name}: {}", failure.error);
            return Err(failure);
        }
    }
    match change {
        Some(change) => finish(session, watch, change, wait).await,
        None => {
            let jobs: Vec<&str> = documents.jobs.iter().map(|(name, _)| name.as_str()).collect();
            let value = serde_json::json!({"apiVersion": "drover/v1", "outcome": "settled", "apps": [], "jobs": jobs});
            session
                .screen
                .object(&value, &jobs.join("\n"), || format!("{} applied\n", text::count(jobs.len() as u64, "job")))?;
            Ok(Exit::Ok)
        }
    }
}

async fn send_apps(session: &Session, apps: &BTreeMap<String, Value>, force: bool) -> Result<Change, Failure> {
    let before = definitions(session, apps.keys()).await?;
    let body = Value::Array(apps.values().cloned().collect());
    let path = format!("/v2/apps?partialUpdate=false&force={force}");
    let answer = session.client.send(Method::PUT, &path, Some(&body)).await?;
    let text = |key: &str| answer.body.get(key).and_then(Value::as_str).map(str::to_owned);
    let change = Change {
        deployment: answer.deployment.clone().or_else(|| text("deploymentId")),
        version: text("version"),
        apps: apps.keys().cloned().collect(),
        removes: false,
    };
    let after = definitions(session, apps.keys()).await?;
    for (id, app) in &after {
        tell_change(&session.screen, id, before.get(id), app);
    }
    Ok(change)
}

/// The apps as they are defined now, without those that are not there.
async fn definitions(session: &Session, ids: impl Iterator<Item = &String>) -> Result<BTreeMap<String, Value>, Failure> {
    let mut found = BTreeMap::new();
    for id in ids {
        if let Some(answer) = session.client.find(&format!("/v2/apps{}", encode(id))).await?
            && let Some(app) = answer.get("app")
        {
            found.insert(id.clone(), app.clone());
        }
    }
    Ok(found)
}

async fn send_job(session: &Session, name: &str, job: &Value) -> Result<(), Failure> {
    let is_known = session.client.find(&format!("/drover/v1/jobs/{}", encode(name))).await?.is_some();
    let has_parents = job.get("parents").and_then(Value::as_array).is_some_and(|parents| !parents.is_empty());
    let path = if has_parents { "/v1/scheduler/dependency" } else { "/v1/scheduler/iso8601" };
    session.client.send(Method::POST, path, Some(job)).await?;
    session.screen.say(&format!("{} job {name}", if is_known { "applied" } else { "created" }));
    Ok(())
}

/// Says what became of an app's definition.
fn tell_change(screen: &Screen, id: &str, before: Option<&Value>, after: &Value) {
    let Some(before) = before else {
        let instances = after.get("instances").and_then(Value::as_u64).unwrap_or(0);
        screen.say(&format!("{} {id}, {}", screen.err.paint(Tint::Green, "created"), text::count(instances, "instance")));
        return;
    };
    let changes = differences(before, after);
    if changes.is_empty() {
        screen.say(&format!("unchanged {id}"));
        return;
    }
    let shown: Vec<String> = changes.iter().take(FIELDS_NAMED_MAX).map(|change| change.render(screen.err.arrow())).collect();
    let more = changes.len().saturating_sub(FIELDS_NAMED_MAX);
    let more = if more == 0 { String::new() } else { format!("  and {more} more") };
    screen.say(&format!("{} {id}  {}{more}", screen.err.paint(Tint::Yellow, "changed"), shown.join("  ")));
}

/// One field that differs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Difference {
    path: String,
    from: Option<Value>,
    to: Option<Value>,
}

impl Difference {
    /// `env.CACHE "off"→"on"`.
    pub(crate) fn render(&self, arrow: &str) -> String {
        let shown = |value: &Option<Value>| value.as_ref().map_or_else(|| "(unset)".to_owned(), Value::to_string);
        format!("{} {}{arrow}{}", self.path, shown(&self.from), shown(&self.to))
    }
}

/// What differs between two definitions of an app as the API shows them, without what the server adds of its own.
pub(crate) fn differences(before: &Value, after: &Value) -> Vec<Difference> {
    const ADDED: [&str; 14] = [
        "id",
        "version",
        "versionInfo",
        "tasks",
        "tasksStaged",
        "tasksRunning",
        "tasksHealthy",
        "tasksUnhealthy",
        "deployments",
        "lastTaskFailure",
        "readinessCheckResults",
        "taskStats",
        "tasksStats",
        "fetchedAt",
    ];
    fn flatten(prefix: &str, value: &Value, out: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                for (key, value) in map {
                    flatten(&format!("{prefix}.{key}"), value, out);
                }
            }
            // An empty map and no map at all mean the same in every definition.
            Value::Object(_) | Value::Null => {}
            Value::Array(items) if items.is_empty() => {}
            other => {
                out.insert(prefix.trim_start_matches('.').to_owned(), other.clone());
            }
        }
    }
    let flat = |value: &Value| {
        let mut out = BTreeMap::new();
        for (key, value) in value.as_object().into_iter().flatten() {
            if !ADDED.contains(&key.as_str()) {
                flatten(key, value, &mut out);
            }
        }
        out
    };
    let (before, after) = (flat(before), flat(after));
    let paths: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let difference =
        |path: &String| Difference { path: path.clone(), from: before.get(path).cloned(), to: after.get(path).cloned() };
    paths.into_iter().map(difference).filter(|difference| difference.from != difference.to).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_the_user_can_say_differs() {
        let before =
            json!({"id": "/a", "version": "1", "env": {"A": "1", "B": "2"}, "cpus": 1, "labels": {}, "tasks": [1], "args": []});
        let after =
            json!({"id": "/a", "version": "2", "env": {"A": "0", "C": "3"}, "cpus": 1, "constraints": [["rack", "UNIQUE"]]});
        let shown: Vec<String> = differences(&before, &after).iter().map(|change| change.render("→")).collect();
        assert_eq!(
            shown,
            [r#"constraints (unset)→[["rack","UNIQUE"]]"#, r#"env.A "1"→"0""#, r#"env.B "2"→(unset)"#, r#"env.C (unset)→"3""#]
        );
        assert!(differences(&before, &before).is_empty());
    }
}
