//! `drover` and `drover status`: the cluster on one screen, or one thing with its last log lines.

use crate::client::understand;
use crate::exit::{Exit, Failure};
use crate::names::{self, Target};
use crate::screen::{Mark, Style, Tint};
use crate::{Session, apps, jobs, logs, nodes, tasks, text};
use drover_api::drover::{Master, MasterRole, Status};
use jiff::Timestamp;

/// Log lines under one thing.
const LINES: u64 = 10;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  drover status              the cluster
  drover status /shop/web    one app, its instances and its last log lines

Exit codes of `status NAME`: 0 active, 3 not active, 4 no such thing.")]
pub(crate) struct StatusArgs {
    /// Apps, jobs, tasks or nodes
    names: Vec<String>,
}

/// `drover status [NAME…]`.
pub(crate) async fn run(session: &Session, args: StatusArgs) -> Result<Exit, Failure> {
    if args.names.is_empty() {
        return overview(session).await;
    }
    let mut exit = Exit::Ok;
    for name in &args.names {
        let (mark, log) = match names::any(&session.client, name).await? {
            Target::App(id) => (apps::show(session, &id).await?, ("app", id)),
            Target::Job(name) => (jobs::show(session, &names::job(&session.client, &name).await?).await?, ("job", name)),
            Target::Run { job, run } => (jobs::show(session, &names::job(&session.client, &job).await?).await?, ("run", run)),
            Target::Task(id) => {
                let task = names::task(&session.client, &id).await?;
                (tasks::show(session, &task)?, ("task", task.id))
            }
            Target::Node(name) => {
                let node = names::node(&session.client, &name).await?;
                (nodes::show(session, &node).await?, ("node", node.name))
            }
        };
        if !session.screen.is_for_programs() {
            let lines = logs::newest(session, log.0, &log.1, LINES, session.screen.out).await;
            session.screen.print(&lines.concat())?;
        }
        if matches!(mark, Mark::Off | Mark::Bad) {
            exit = Exit::NotActive;
        }
    }
    Ok(exit)
}

/// The first screen.
pub(crate) async fn overview(session: &Session) -> Result<Exit, Failure> {
    let path = "/drover/v1/status";
    let answer = session.client.get(path).await?;
    let status: Status = understand(path, answer.clone())?;
    let screen = &session.screen;
    screen.object(&answer, &status.cluster, || page(&status, screen.out, screen.now()))?;
    if status.agents.up + status.agents.unreachable == 0 {
        screen.hint("next: drover token create, and drover node join on another machine");
    } else if status.apps.total == 0 && status.jobs.total == 0 {
        screen.hint("next: drover apps deploy -f FILE");
    }
    Ok(if status.leader.is_some() { Exit::Ok } else { Exit::Unavailable })
}

/// `12 up, 1 unreachable`: only what there is.
fn counts(parts: &[(u32, &str)]) -> String {
    let parts = parts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}"));
    parts.collect::<Vec<_>>().join(", ")
}

/// While an upgrade is under way: what the masters write, and what each of them could read.
fn versions(status: &Status) -> String {
    let newest = status.masters.iter().filter_map(|master| master.knows).max().unwrap_or(status.version);
    if newest <= status.version {
        return String::new();
    }
    let is_behind = |master: &&Master| master.knows.is_none_or(|knows| knows < newest);
    let behind: Vec<&str> = status.masters.iter().filter(is_behind).map(|master| master.name.as_str()).collect();
    match behind.is_empty() {
        true => format!("  version {}: all masters know {newest} (drover cluster raise-version)\n", status.version),
        false => format!("  version {}: {newest} is known to all masters but {}\n", status.version, behind.join(", ")),
    }
}

fn page(status: &Status, style: Style, now: Timestamp) -> String {
    let warnings = status.warnings.len();
    let (mark, word) = match (&status.leader, warnings) {
        (None, _) => (Mark::Bad, "no leader".to_owned()),
        (Some(_), 0) => (Mark::Good, "healthy".to_owned()),
        (Some(_), n) => (Mark::Good, text::count(n as u64, "warning")),
    };
    // A cluster's id is a uuid; its beginning is enough to tell clusters apart.
    let cluster = if status.cluster.len() == 36 { &status.cluster[..8] } else { &status.cluster };
    let voting = status.masters.iter().filter(|master| master.role != MasterRole::Learner).count();
    let leader = status.leader.as_ref().map_or_else(
        || format!("no leader (term {}, {})", status.term, text::count(voting as u64, "master")),
        |leader| format!("leader {} (term {}, {})", leader.name, status.term, text::count(voting as u64, "master")),
    );
    let mut out = format!("{} {cluster}  {word}        {leader}\n", style.mark(mark));

    let (used, total) = (&status.capacity.used, &status.capacity.total);
    let nodes = counts(&[(status.agents.up, "up"), (status.agents.unreachable, "unreachable")]);
    out.push_str(&format!("  nodes {}", if nodes.is_empty() { "none" } else { &nodes }));
    if total.cpus > 0.0 {
        out.push_str(&format!("   cpu {}", style.bar(used.cpus, total.cpus)));
        out.push_str(&format!("   mem {}", style.bar(used.mem_bytes as f64, total.mem_bytes as f64)));
    }
    out.push('\n');

    out.push_str(&format!("  apps  {}", status.apps.total));
    let waiting = status.apps.total.saturating_sub(status.apps.healthy + status.apps.deploying);
    let apps =
        counts(&[(status.apps.healthy, "healthy"), (status.apps.deploying, "deploying"), (waiting, "not as it should be")]);
    if !apps.is_empty() {
        out.push_str(&format!(": {apps}"));
    }
    let unsettled = status.apps.unsettled.iter().take(3).map(|app| format!("{} {}/{}", app.id, app.running, app.instances));
    let unsettled: Vec<String> = unsettled.collect();
    if !unsettled.is_empty() {
        let more = if status.apps.unsettled.len() > unsettled.len() { ", …" } else { "" };
        out.push_str(&format!(" ({}{more})", unsettled.join(", ")));
    }
    let tasks = counts(&[(status.tasks.running, "running"), (status.tasks.staging, "starting")]);
    out.push_str(&format!("      tasks {}\n", if tasks.is_empty() { "none" } else { &tasks }));

    out.push_str(&format!("  jobs  {}", status.jobs.total));
    let mut about = Vec::new();
    if let Some(next) = &status.jobs.next {
        about.push(format!("next {} {}", next.job, text::relative(next.at, now)));
    }
    if status.jobs.failing > 0 {
        about.push(format!("{} failing", status.jobs.failing));
    }
    if !about.is_empty() {
        out.push_str(&format!(": {}", about.join("; ")));
    }
    out.push('\n');
    out.push_str(&versions(status));
    let width = status.warnings.iter().map(|warning| warning.message.chars().count()).max().unwrap_or(0);
    for warning in &status.warnings {
        let line = match &warning.remedy {
            Some(remedy) => format!("  {} {:<width$}   try: {remedy}\n", style.paint(Tint::Yellow, "!"), warning.message),
            None => format!("  {} {}\n", style.paint(Tint::Yellow, "!"), warning.message),
        };
        out.push_str(&line);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::tests::PLAIN;
    use serde_json::json;

    fn status() -> Status {
        serde_json::from_value(json!({
            "apiVersion": "drover/v1", "cluster": "prod", "leader": {"name": "m2", "address": "m2:7071"}, "term": 7,
            "masters": [
                {"id": 1, "name": "m1", "address": "m1:7071", "role": "follower"},
                {"id": 2, "name": "m2", "address": "m2:7071", "role": "leader"},
                {"id": 3, "name": "m3", "address": "m3:7071", "role": "follower"},
            ],
            "agents": {"up": 12, "unreachable": 1},
            "capacity": {"total": {"cpus": 100.0, "memBytes": 1000}, "used": {"cpus": 58.0, "memBytes": 790}},
            "apps": {"total": 41, "healthy": 40, "deploying": 1, "unsettled": [{"id": "/shop/web", "running": 2, "instances": 4, "deploying": true}]},
            "jobs": {"total": 63, "failing": 1, "next": {"job": "billing-close", "at": "2026-11-22T11:00:00.000Z"}},
            "tasks": {"running": 165, "staging": 2},
            "warnings": [{"message": "/batch/ml waits 12min for memory", "try": "drover why /batch/ml"}],
        }))
        .unwrap()
    }

    #[test]
    fn the_cluster_fits_on_one_screen() {
        let now: Timestamp = "2026-11-22T10:56:00Z".parse().unwrap();
        assert_eq!(
            page(&status(), PLAIN, now),
            "\
● prod  1 warning        leader m2 (term 7, 3 masters)
  nodes 12 up, 1 unreachable   cpu ██████░░░░ 58%   mem ████████░░ 79%
  apps  41: 40 healthy, 1 deploying (/shop/web 2/4)      tasks 165 running, 2 starting
  jobs  63: next billing-close in 4min; 1 failing
  ! /batch/ml waits 12min for memory   try: drover why /batch/ml
"
        );
    }

    #[test]
    fn an_upgrade_that_is_under_way_has_a_line() {
        let mut status = Status { version: 1, ..status() };
        assert_eq!(versions(&status), "");
        status.masters.iter_mut().zip([Some(2), Some(1), None]).for_each(|(master, knows)| master.knows = knows);
        assert_eq!(versions(&status), "  version 1: 2 is known to all masters but m2, m3\n");
        status.masters[1].knows = Some(2);
        status.masters[2].knows = Some(2);
        assert_eq!(versions(&status), "  version 1: all masters know 2 (drover cluster raise-version)\n");
        assert_eq!(versions(&Status { version: 2, ..status }), "");
    }

    #[test]
    fn an_empty_cluster_without_a_leader_says_so() {
        let empty = Status { cluster: "0b1c2d3e-4f5a-4b6c-8d7e-9f0a1b2c3d4e".into(), ..Status::default() };
        assert_eq!(
            page(&empty, Style::default(), Timestamp::UNIX_EPOCH),
            "x 0b1c2d3e  no leader        no leader (term 0, 0 masters)\n  nodes none\n  apps  0      tasks none\n  jobs  0\n"
        );
    }
}
