//! Names as people type them: exact, else a beginning that only one thing has, else (of apps) an end that only one has, `web` for
//! `/shop/web`. What fits several is answered by the candidates.

use crate::client::{Client, encode, own_code};
use crate::exit::{Exit, Failure};
use drover_api::drover::{JobDetail, Jobs, Node, Nodes, Run, Task, Tasks, code};
use serde_json::Value;

/// How many candidates are shown.
const CANDIDATES_MAX: usize = 12;

/// What a name can mean to commands that take several kinds of things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// An app, by its id.
    App(String),
    /// A job, by its name.
    Job(String),
    /// One run of a job.
    Run {
        /// The job.
        job: String,
        /// The run's id.
        run: String,
    },
    /// A task, by its id.
    Task(String),
    /// A node, by its name.
    Node(String),
}

/// Chooses the name that is `text`, or the only one that begins with it, or the only path that ends with it. `noun` is for the
/// message, as in `app`.
fn choose<'a>(noun: &str, text: &str, names: impl Iterator<Item = &'a str> + Clone) -> Result<&'a str, Failure> {
    if let Some(exact) = names.clone().find(|name| *name == text) {
        return Ok(exact);
    }
    let mut fitting: Vec<&str> = names.clone().filter(|name| name.starts_with(text)).collect();
    if fitting.is_empty() {
        fitting = names.clone().filter(|name| is_end_of_path(name, text)).collect();
    }
    match fitting.as_slice() {
        [one] => Ok(one),
        [] => Err(not_found(noun, text, names)),
        several => Err(ambiguous(text, several.iter().map(|name| format!("{noun} {name}")))),
    }
}

/// Whether `/shop/web` ends in the whole segments `/web` (or `web`).
fn is_end_of_path(name: &str, text: &str) -> bool {
    let text = text.trim_start_matches('/');
    let rest = name.strip_suffix(text).filter(|_| name.starts_with('/') && !text.is_empty());
    rest.is_some_and(|rest| rest.ends_with('/'))
}

fn not_found<'a>(noun: &str, text: &str, names: impl Iterator<Item = &'a str>) -> Failure {
    let failure = Failure::new(Exit::NotFound, format!("there is no {noun} {text:?}")).code(code::NOT_FOUND);
    let near: Vec<&str> = names.filter(|name| is_near(name, text)).take(CANDIDATES_MAX).collect();
    let failure = failure.try_this(format!("drover {noun}s list"));
    if near.is_empty() { failure } else { failure.because(format!("did you mean {}?", near.join(", "))) }
}

fn ambiguous(text: &str, candidates: impl Iterator<Item = String>) -> Failure {
    let candidates: Vec<String> = candidates.collect();
    let mut failure = Failure::new(Exit::NotFound, format!("{text:?} fits several things")).code(own_code::AMBIGUOUS);
    failure.because.extend(candidates.iter().take(CANDIDATES_MAX).cloned());
    if candidates.len() > CANDIDATES_MAX {
        failure = failure.because(format!("… and {} more", candidates.len() - CANDIDATES_MAX));
    }
    failure
}

/// One holds the other, or one letter is wrong, missing, too many, or swapped with its neighbour.
fn is_near(name: &str, text: &str) -> bool {
    let name = name.trim_start_matches('/').to_lowercase();
    let text = text.trim_start_matches('/').to_lowercase();
    if text.is_empty() {
        return false;
    }
    if name.contains(&text) {
        return true;
    }
    let (a, b): (Vec<char>, Vec<char>) = (name.chars().collect(), text.chars().collect());
    if a.len() < 3 {
        return false;
    }
    let same_start = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let rest = |skip_a: usize, skip_b: usize| a.get(same_start + skip_a..) == b.get(same_start + skip_b..);
    let swapped = a.get(same_start) == b.get(same_start + 1) && a.get(same_start + 1) == b.get(same_start) && rest(2, 2);
    rest(1, 1) || rest(1, 0) || rest(0, 1) || swapped
}

fn strings<'a>(list: &'a Value, kind: &str, key: &str) -> Vec<&'a str> {
    let items = list.get(kind).and_then(Value::as_array).into_iter().flatten();
    items.filter_map(|item| item.get(key).and_then(Value::as_str)).collect()
}

/// The id of an app: `/prod/web`, `prod/web`, or the beginning of it.
pub(crate) async fn app(client: &Client, text: &str) -> Result<String, Failure> {
    let path = format!("/{}", text.trim_matches('/'));
    if path != "/" && client.find(&format!("/v2/apps{}", encode(&path))).await?.is_some_and(|found| found.get("app").is_some())
    {
        return Ok(path);
    }
    let all = client.get("/v2/apps").await?;
    choose("app", &path, strings(&all, "apps", "id").into_iter()).map(str::to_owned)
}

/// A job with its runs.
pub(crate) async fn job(client: &Client, text: &str) -> Result<JobDetail, Failure> {
    let path = |name: &str| format!("/drover/v1/jobs/{}", encode(name));
    if !text.is_empty()
        && !text.contains('/')
        && let Some(found) = client.find(&path(text)).await?
    {
        return crate::client::understand(&path(text), found);
    }
    let all: Jobs = client.read("/drover/v1/jobs").await?;
    let name = choose("job", text, all.jobs.iter().map(|job| job.name.as_str()))?;
    client.read(&path(name)).await
}

/// One run: `JOB@` and its slot in milliseconds or the beginning of it; `JOB@last` for the newest.
pub(crate) async fn run(client: &Client, text: &str) -> Result<(JobDetail, Run), Failure> {
    let (job_text, run_text) = text.split_once('@').unwrap_or((text, "last"));
    let detail = job(client, job_text).await?;
    if run_text == "last" {
        let newest = detail.runs.first().cloned().ok_or_else(|| {
            Failure::new(Exit::NotFound, format!("job {} has not run yet", detail.job.name))
                .try_this(format!("drover jobs run {}", detail.job.name))
                .code(code::NOT_FOUND)
        })?;
        return Ok((detail, newest));
    }
    let wanted = format!("{}@{run_text}", detail.job.name);
    let id = choose("run", &wanted, detail.runs.iter().map(|run| run.id.as_str()))
        .map_err(|failure| failure.try_this(format!("drover jobs history {}", detail.job.name)))?
        .to_owned();
    let run = detail.runs.iter().find(|run| run.id == id).cloned().expect("it was chosen among them");
    Ok((detail, run))
}

/// A task that is, or may be, there.
pub(crate) async fn task(client: &Client, text: &str) -> Result<Task, Failure> {
    let all: Tasks = client.read("/drover/v1/tasks").await?;
    let id = choose("task", text, all.tasks.iter().map(|task| task.id.as_str()))?.to_owned();
    Ok(all.tasks.into_iter().find(|task| task.id == id).expect("it was chosen among them"))
}

/// A node, by name or id.
pub(crate) async fn node(client: &Client, text: &str) -> Result<Node, Failure> {
    let all: Nodes = client.read("/drover/v1/nodes").await?;
    if let Some(by_id) = all.nodes.iter().find(|node| node.id == text) {
        return Ok(by_id.clone());
    }
    let name = choose("node", text, all.nodes.iter().map(|node| node.name.as_str()))?.to_owned();
    Ok(all.nodes.into_iter().find(|node| node.name == name).expect("it was chosen among them"))
}

/// Whatever has that name. `app:`, `job:`, `task:` and `node:` before it say which kind is meant; `/…` is an app, `JOB@RUN` a run.
pub(crate) async fn any(client: &Client, text: &str) -> Result<Target, Failure> {
    match text.split_once(':') {
        Some(("app", rest)) => return app(client, rest).await.map(Target::App),
        Some(("job", rest)) => return job_or_run(client, rest).await,
        Some(("task", rest)) => return task(client, rest).await.map(|task| Target::Task(task.id)),
        Some(("node", rest)) => return node(client, rest).await.map(|node| Target::Node(node.name)),
        // A job's task: it may be over and yet have a journal.
        Some(("ct", _)) if text.ends_with(':') => return Ok(Target::Task(text.to_owned())),
        _ => {}
    }
    if text.starts_with('/') {
        return app(client, text).await.map(Target::App);
    }
    if text.contains('@') {
        return job_or_run(client, text).await;
    }
    let (apps, jobs, tasks, nodes) = tokio::try_join!(
        client.get("/v2/apps"),
        client.get("/drover/v1/jobs"),
        client.get("/drover/v1/tasks"),
        client.get("/drover/v1/nodes")
    )?;
    let mut known: Vec<(String, Target)> = Vec::new();
    known.extend(
        strings(&apps, "apps", "id").into_iter().map(|id| (id.trim_start_matches('/').to_owned(), Target::App(id.to_owned()))),
    );
    known.extend(strings(&jobs, "jobs", "name").into_iter().map(|name| (name.to_owned(), Target::Job(name.to_owned()))));
    known.extend(strings(&nodes, "nodes", "name").into_iter().map(|name| (name.to_owned(), Target::Node(name.to_owned()))));
    known.extend(strings(&tasks, "tasks", "id").into_iter().map(|id| (id.to_owned(), Target::Task(id.to_owned()))));
    choose_any(text, &known)
}

fn choose_any(text: &str, known: &[(String, Target)]) -> Result<Target, Failure> {
    let exact: Vec<_> = known.iter().filter(|(name, _)| name == text).collect();
    let fitting: Vec<_> = match exact.is_empty() {
        false => exact,
        true => {
            let all: Vec<_> = known.iter().filter(|(name, _)| name.starts_with(text)).collect();
            // `we` means app /web also while its tasks `web.…` run.
            let without_tasks: Vec<_> = all.iter().copied().filter(|(_, target)| !matches!(target, Target::Task(_))).collect();
            let ends = || known.iter().filter(|(_, target)| matches!(target, Target::App(id) if is_end_of_path(id, text)));
            match (without_tasks.is_empty(), all.is_empty()) {
                (false, _) => without_tasks,
                (true, false) => all,
                (true, true) => ends().collect(),
            }
        }
    };
    match fitting.as_slice() {
        [(_, one)] => Ok(one.clone()),
        [] => {
            let near: Vec<String> =
                known.iter().filter(|(name, _)| is_near(name, text)).map(|(_, target)| describe(target)).collect();
            let failure = Failure::new(Exit::NotFound, format!("nothing is called {text:?}"))
                .code(code::NOT_FOUND)
                .try_this("drover apps list");
            Err(if near.is_empty() { failure } else { failure.because(format!("did you mean {}?", near.join(", "))) })
        }
        several => Err(ambiguous(text, several.iter().map(|(_, target)| describe(target)))
            .try_this(format!("say which kind is meant: app:{text}, job:{text}, task:{text} or node:{text}"))),
    }
}

fn describe(target: &Target) -> String {
    match target {
        Target::App(id) => format!("app {id}"),
        Target::Job(name) => format!("job {name}"),
        Target::Run { run, .. } => format!("run {run}"),
        Target::Task(id) => format!("task {id}"),
        Target::Node(name) => format!("node {name}"),
    }
}

async fn job_or_run(client: &Client, text: &str) -> Result<Target, Failure> {
    if !text.contains('@') {
        return job(client, text).await.map(|detail| Target::Job(detail.job.name));
    }
    let (detail, run) = run(client, text).await?;
    Ok(Target::Run { job: detail.job.name, run: run.id })
}

/// A task's id short enough for a column: `prod_web.0b1c2d3e` of an app's, `etl@1704103200000` of a job's.
pub(crate) fn short_task(id: &str) -> String {
    let mut parts = id.split(':');
    if let (Some("ct"), Some(slot), Some(attempt), Some(job)) = (parts.next(), parts.next(), parts.next(), parts.next()) {
        return if attempt == "0" { format!("{job}@{slot}") } else { format!("{job}@{slot}#{attempt}") };
    }
    match id.rsplit_once('.') {
        Some((prefix, unique)) if unique.len() > 8 => format!("{prefix}.{}", unique.chars().take(8).collect::<String>()),
        _ => id.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(text: &str, names: &[&str]) -> Result<String, Failure> {
        choose("app", text, names.iter().copied()).map(str::to_owned)
    }

    #[test]
    fn exact_goes_before_prefix_and_prefix_must_be_unique() {
        let names = ["/web", "/web2", "/shop/api"];
        assert_eq!(chosen("/web", &names), Ok("/web".into()));
        assert_eq!(chosen("/sh", &names), Ok("/shop/api".into()));
        let failure = chosen("/we", &names).unwrap_err();
        assert_eq!((failure.exit, failure.because), (Exit::NotFound, vec!["app /web".to_owned(), "app /web2".to_owned()]));
        assert_eq!(chosen("/api", &names), Ok("/shop/api".into()));
        assert!(chosen("/pi", &names).is_err(), "an end is whole segments");
        assert_eq!(chosen("/web", &["/a/web", "/b/web"]).unwrap_err().because.len(), 2);
    }

    #[test]
    fn what_is_not_there_comes_with_what_is_near() {
        let failure = chosen("/wbe", &["/web", "/shop/api"]).unwrap_err();
        assert_eq!(failure.because, ["did you mean /web?"]);
        assert!(chosen("/other", &["/web"]).unwrap_err().because.is_empty());
        for (name, text, near) in [
            ("/web", "/wev", true),
            ("/web", "/wb", true),
            ("/web", "/webb", true),
            ("/web", "/bew", false),
            ("/shop/web", "web", true),
        ] {
            assert_eq!(is_near(name, text), near, "{name} {text}");
        }
    }

    #[test]
    fn one_name_of_two_kinds_is_ambiguous() {
        let known = [
            ("web".to_owned(), Target::App("/web".into())),
            ("web".to_owned(), Target::Job("web".into())),
            ("web.1".to_owned(), Target::Task("web.1".into())),
            ("etl".to_owned(), Target::Job("etl".into())),
            ("shop/api".to_owned(), Target::App("/shop/api".into())),
        ];
        assert_eq!(choose_any("api", &known), Ok(Target::App("/shop/api".into())));
        assert_eq!(choose_any("etl", &known), Ok(Target::Job("etl".into())));
        assert_eq!(choose_any("web.", &known), Ok(Target::Task("web.1".into())));
        assert_eq!(choose_any("web", &known).unwrap_err().because, ["app /web", "job web"]);
        assert_eq!(choose_any("we", &known[2..4]), Ok(Target::Task("web.1".into())));
        assert_eq!(choose_any("zzz", &known).unwrap_err().exit, Exit::NotFound);
    }

    #[test]
    fn task_ids_get_short() {
        assert_eq!(short_task("prod_web.0b1c2d3e-4f5a-6b7c-8d9e-0f1a2b3c4d5e"), "prod_web.0b1c2d3e");
        assert_eq!(short_task("ct:1704103200000:0:etl:"), "etl@1704103200000");
        assert_eq!(short_task("ct:1704103200000:2:etl:"), "etl@1704103200000#2");
        assert_eq!(short_task("x"), "x");
    }
}
