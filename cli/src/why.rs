//! `drover why`: for each node, each reason.

use crate::client::{encode, understand};
use crate::exit::{Exit, Failure};
use crate::names::{self, Target};
use crate::screen::{Mark, Style};
use crate::{Session, text};
use drover_api::drover::{Waiting, Why};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// How many nodes with the same reasons are named.
const NODES_NAMED_MAX: usize = 8;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  drover why /shop/web      for each node, each reason why nothing of it can run there
  drover why job:etl        a job with that name, whatever else is called so

Exit codes: 0 all that is wanted runs, 3 it does not, 4 no such thing.")]
pub(crate) struct WhyArgs {
    /// An app, a job or a task
    name: String,
}

/// `drover why NAME`.
pub(crate) async fn run(session: &Session, args: WhyArgs) -> Result<Exit, Failure> {
    let path = match names::any(&session.client, &args.name).await? {
        Target::App(id) => format!("/drover/v1/why/apps{}", encode(&id)),
        Target::Job(name) | Target::Run { job: name, .. } => format!("/drover/v1/why/jobs/{}", encode(&name)),
        Target::Task(id) => format!("/drover/v1/why/tasks/{}", encode(&id)),
        Target::Node(name) => {
            return Err(Failure::new(Exit::Usage, format!("{name} is a node")).try_this(format!("drover nodes show {name}")));
        }
    };
    let value = session.client.get(&path).await?;
    let why: Why = understand(&path, value.clone())?;
    session.screen.object(&value, &why.subject.name, || render(&why, session.screen.out, session.screen.now()))?;
    Ok(if why.running >= why.wanted && why.waiting.is_empty() { Exit::Ok } else { Exit::NotActive })
}

/// The screen.
fn render(why: &Why, style: Style, now: Timestamp) -> String {
    let mark = match (why.waiting.is_empty(), why.running >= why.wanted) {
        (true, true) => Mark::Good,
        (false, _) => Mark::Busy,
        (true, false) => Mark::Off,
    };
    // A job between two runs wants nothing, and nothing of it runs.
    let is_idle = why.wanted == 0 && why.running == 0;
    let mark = if is_idle && why.waiting.is_empty() { Mark::Off } else { mark };
    let mut out = format!("{} {}", style.mark(mark), why.subject.name);
    if !is_idle {
        out.push_str(&format!("  {}/{} running", why.running, why.wanted));
    }
    if !why.summary.is_empty() {
        out.push_str(&format!("  {}", why.summary));
    }
    out.push('\n');
    for waiting in &why.waiting {
        out.push_str(&format!("  {}\n", heading(waiting, now)));
        let lines = by_reason(waiting);
        let width = lines.iter().map(|(nodes, _)| nodes.chars().count()).max().unwrap_or(0);
        for (nodes, reasons) in lines {
            out.push_str(&format!("    {nodes:<width$}  {reasons}\n"));
        }
    }
    out
}

fn heading(waiting: &Waiting, now: Timestamp) -> String {
    let count = if waiting.count == 1 { String::new() } else { format!("{} × ", waiting.count) };
    let waited = text::span(now.as_millisecond() - waiting.since.millis());
    let held = waiting.held.as_ref().map(|held| format!(": {held}")).unwrap_or_default();
    let looked = if waiting.nodes.is_empty() {
        String::new()
    } else {
        format!("; {} looked at", text::count(waiting.nodes.len() as u64, "node"))
    };
    format!("needs {count}{}; waiting {waited}{looked}{held}", waiting.request)
}

/// Nodes with the same reasons on one line, those with the fewest reasons first: they are the nearest to fit.
fn by_reason(waiting: &Waiting) -> Vec<(String, String)> {
    let mut groups: BTreeMap<(usize, Vec<String>), Vec<&str>> = BTreeMap::new();
    for refusals in &waiting.nodes {
        let reasons: Vec<String> = refusals.reasons.iter().map(|reason| reason.message.clone()).collect();
        groups.entry((reasons.len(), reasons)).or_default().push(&refusals.node);
    }
    let line = |((_, reasons), nodes): ((usize, Vec<String>), Vec<&str>)| {
        let mut named = nodes.iter().take(NODES_NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
        if nodes.len() > NODES_NAMED_MAX {
            named.push_str(&format!(" and {} more", nodes.len() - NODES_NAMED_MAX));
        }
        (named, reasons.join("; "))
    };
    groups.into_iter().map(line).collect()
}

/// The same as evidence of a failure, a line each.
pub(crate) fn reasons(why: &Why) -> Vec<String> {
    let lines = why.waiting.iter().flat_map(by_reason).map(|(nodes, reasons)| format!("{nodes}: {reasons}"));
    let mut lines: Vec<String> = lines.collect();
    if lines.is_empty() {
        lines.push(why.summary.clone());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::tests::PLAIN;
    use serde_json::json;

    #[test]
    fn nodes_alike_share_a_line_and_the_nearest_come_first() {
        let refused = |node: &str, reasons: &[(&str, &str)]| json!({"node": node, "reasons": reasons.iter().map(|(kind, message)| json!({"kind": kind, "message": message})).collect::<Vec<_>>()});
        let why: Why = serde_json::from_value(json!({
            "apiVersion": "drover/v1", "subject": {"kind": "app", "name": "/batch/ml"}, "wanted": 1, "running": 0,
            "summary": "no node has 16G of memory free",
            "waiting": [{
                "request": "cpus 4, mem 16G, rack unlike r2", "since": "2026-11-22T10:00:00.000Z",
                "nodes": [
                    refused("n11", &[("cpus", "cpus: 4 needed, 2.5 free"), ("constraint", "constraint rack UNLIKE r2: it is r2")]),
                    refused("n01", &[("mem", "mem: 16384 MiB needed, 11468 MiB free")]),
                    refused("n02", &[("mem", "mem: 16384 MiB needed, 11468 MiB free")]),
                ],
            }],
        }))
        .unwrap();
        let now: Timestamp = "2026-11-22T10:12:00Z".parse().unwrap();
        assert_eq!(
            render(&why, PLAIN, now),
            "\
↻ /batch/ml  0/1 running  no node has 16G of memory free
  needs cpus 4, mem 16G, rack unlike r2; waiting 12min; 3 nodes looked at
    n01, n02  mem: 16384 MiB needed, 11468 MiB free
    n11       cpus: 4 needed, 2.5 free; constraint rack UNLIKE r2: it is r2
"
        );
        assert_eq!(reasons(&why)[0], "n01, n02: mem: 16384 MiB needed, 11468 MiB free");
    }
}
