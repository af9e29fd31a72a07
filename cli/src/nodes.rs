//! `drover nodes`: the machines that run tasks; and `node join`, which makes this machine one of them (or a master).

use crate::client::understand;
use crate::exit::{Exit, Failure};
use crate::screen::{Format, Listing, Mark, Sheet, Style, Table};
use crate::{Session, cluster, names, tasks, text};
use drover_api::drover::{Node, NodeState, Nodes, Resources, Tasks};
use jiff::Timestamp;
use serde_json::json;

/// Limits are kept only where the kernel has these.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

#[derive(Debug, clap::Subcommand)]
pub(crate) enum NodesCommand {
    /// All machines that run tasks
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  drover nodes list
  drover nodes list -o wide"
    )]
    List,
    /// One machine with its tasks
    #[command(after_help = "\
Examples:
  drover nodes show n07
  drover nodes show n07 -o json")]
    Show {
        /// Its name, the beginning of it, or its id
        node: String,
    },
    /// Let this machine into a cluster: gets its certificate and writes it below the data directory
    #[command(after_help = "\
Examples:
  drover node join --master n1:7071 --token-file /run/token
  drover node join --master n1:7071 --token drover1.… --role master --advertise n2:7071")]
    Join(cluster::JoinArgs),
}

/// `drover nodes …`.
pub(crate) async fn run(session: &Session, command: NodesCommand) -> Result<Exit, Failure> {
    match command {
        NodesCommand::List => list(session).await,
        NodesCommand::Show { node } => {
            let node = names::node(&session.client, &node).await?;
            show(session, &node).await.map(|_| Exit::Ok)
        }
        NodesCommand::Join(args) => cluster::join(session, args).await,
    }
}

async fn list(session: &Session) -> Result<Exit, Failure> {
    let path = "/drover/v1/nodes";
    let answer = session.client.get(path).await?;
    let items = answer["nodes"].as_array().cloned().unwrap_or_default();
    let nodes: Nodes = understand(path, answer)?;
    let screen = &session.screen;
    let listing = Listing {
        kind: "nodes",
        names: nodes.nodes.iter().map(|node| node.name.clone()).collect(),
        table: table(&nodes.nodes, screen.format == Format::Wide),
        items: &items,
        empty: "No nodes. Let one in: drover token create",
    };
    screen.list(&listing)?;
    Ok(Exit::Ok)
}

fn mark(node: &Node) -> Mark {
    match node.state {
        NodeState::Up => Mark::Good,
        NodeState::Unreachable => Mark::Bad,
        NodeState::Gone => Mark::Off,
    }
}

fn word(node: &Node) -> &'static str {
    match node.state {
        NodeState::Up => "up",
        NodeState::Unreachable => "unreachable",
        NodeState::Gone => "gone",
    }
}

fn seen(node: &Node) -> String {
    node.seen_ago_ms.map(|ms| format!("{} ago", text::span_short(i64::try_from(ms).unwrap_or(i64::MAX)))).unwrap_or_default()
}

/// The table of `nodes list`.
fn table(nodes: &[Node], wide: bool) -> Table {
    let mut headings = vec!["NODE", "STATE", "CPU", "MEM", "TASKS", "ZONE", "SYSTEMD", "AGENT", "SEEN"];
    if wide {
        headings.extend(["DISK", "ENFORCES", "ATTRIBUTES", "ID"]);
    }
    let mut table = Table::new(&headings);
    for node in nodes {
        let of = |used: String, total: String| format!("{used}/{total}");
        let mut cells = vec![
            node.name.clone(),
            word(node).to_owned(),
            of(text::number(node.used.cpus), text::number(node.resources.cpus)),
            of(text::size(node.used.mem_bytes), text::size(node.resources.mem_bytes)),
            node.tasks.to_string(),
            node.attributes.get("zone").cloned().unwrap_or_default(),
            node.systemd.to_string(),
            node.version.clone(),
            seen(node),
        ];
        if wide {
            cells.extend([
                of(text::size(node.used.disk_bytes), text::size(node.resources.disk_bytes)),
                node.enforces.join(","),
                attributes(node),
                node.id.clone(),
            ]);
        }
        table.row(Some(mark(node)), cells);
    }
    table
}

fn attributes(node: &Node) -> String {
    node.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}

/// Shows one node; returns how it is.
pub(crate) async fn show(session: &Session, node: &Node) -> Result<Mark, Failure> {
    let path = format!("/drover/v1/tasks?node={}", crate::client::encode(&node.name));
    let there: Tasks = session.client.read(&path).await?;
    let screen = &session.screen;
    let value = json!({"apiVersion": "drover/v1", "node": node, "tasks": there.tasks});
    screen.object(&value, &node.name, || {
        let mut out = page(node, screen.out, screen.now());
        if !there.tasks.is_empty() {
            out.push_str(&tasks::table(&there.tasks, false, screen.now()).render(screen.out, true));
        }
        out
    })?;
    Ok(mark(node))
}

fn page(node: &Node, style: Style, now: Timestamp) -> String {
    let mut out = format!("{} {}  {}\n", style.mark(mark(node)), node.name, word(node));
    let mut sheet = Sheet::default();
    sheet
        .line("Unreachable", node.unreachable_since.map(|at| format!("since {}", text::relative(at, now))).unwrap_or_default());
    let bar = |used: f64, total: f64, shown: String| {
        if total > 0.0 { format!("{}  {shown}", style.bar(used, total)) } else { String::new() }
    };
    let (used, total) = (&node.used, &node.resources);
    sheet.line("CPU", bar(used.cpus, total.cpus, format!("{} of {}", text::number(used.cpus), text::number(total.cpus))));
    sheet.line(
        "Memory",
        bar(
            used.mem_bytes as f64,
            total.mem_bytes as f64,
            format!("{} of {}", text::size(used.mem_bytes), text::size(total.mem_bytes)),
        ),
    );
    sheet.line(
        "Disk",
        bar(
            used.disk_bytes as f64,
            total.disk_bytes as f64,
            format!("{} of {}", text::size(used.disk_bytes), text::size(total.disk_bytes)),
        ),
    );
    sheet.line("Ports", total.ports.join(", "));
    for (role, part) in &node.reserved {
        sheet.line("Reserved", format!("for {role}: {}", amounts(part)));
    }
    sheet.line("Attributes", attributes(node));
    let missing: Vec<&str> =
        CONTROLLERS.into_iter().filter(|controller| !node.enforces.iter().any(|known| known == controller)).collect();
    sheet.line(
        "Limits",
        if missing.is_empty() { "enforced".to_owned() } else { format!("{} NOT enforced by this kernel", missing.join(", ")) },
    );
    sheet.line("systemd", node.systemd.to_string());
    sheet.line("Agent", node.version.clone());
    sheet.line("Id", node.id.clone());
    sheet.line("Boot", node.boot_id.clone());
    sheet.line("Seen", seen(node));
    out.push_str(&sheet.render());
    out
}

fn amounts(part: &Resources) -> String {
    let mut parts = Vec::new();
    if part.cpus > 0.0 {
        parts.push(format!("cpu {}", text::number(part.cpus)));
    }
    if part.mem_bytes > 0 {
        parts.push(format!("mem {}", text::size(part.mem_bytes)));
    }
    if part.disk_bytes > 0 {
        parts.push(format!("disk {}", text::size(part.disk_bytes)));
    }
    if !part.ports.is_empty() {
        parts.push(format!("ports {}", part.ports.join(" ")));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::tests::PLAIN;

    fn nodes() -> Vec<Node> {
        serde_json::from_value(json!([
            {"id": "a1", "name": "n01", "state": "up", "resources": {"cpus": 4.0, "memBytes": 8589934592u64, "diskBytes": 0, "gpus": 0, "ports": ["31000-32000"]},
             "used": {"cpus": 1.5, "memBytes": 536870912}, "reserved": {"db": {"cpus": 1.0, "memBytes": 1073741824}}, "attributes": {"rack": "a", "zone": "z1"},
             "tasks": 3, "systemd": 252, "version": "0.1.0", "enforces": ["cpu", "memory", "pids"], "bootId": "b", "seenAgoMs": 1200},
            {"id": "a2", "name": "n02", "state": "unreachable", "unreachableSince": "2026-11-22T10:00:00.000Z", "resources": {}, "used": {}, "tasks": 0, "systemd": 257, "bootId": "b", "seenAgoMs": null},
        ]))
        .unwrap()
    }

    #[test]
    fn the_list_says_what_is_used() {
        assert_eq!(
            table(&nodes(), false).render(PLAIN, true),
            "  NODE  STATE        CPU    MEM      TASKS  ZONE  SYSTEMD  AGENT  SEEN
● n01   up           1.5/4  512M/8G  3      z1    252      0.1.0  1.2s ago
× n02   unreachable  0/0    0B/0B    0      –     257      –      –
"
        );
    }

    #[test]
    fn the_page_says_what_is_not_enforced() {
        let now: Timestamp = "2026-11-22T10:12:00Z".parse().unwrap();
        assert_eq!(
            page(&nodes()[0], PLAIN, now),
            "\
● n01  up
         CPU: ████░░░░░░ 38%  1.5 of 4
      Memory: █░░░░░░░░░ 6%  512M of 8G
       Ports: 31000-32000
    Reserved: for db: cpu 1, mem 1G
  Attributes: rack=a zone=z1
      Limits: enforced
     systemd: 252
       Agent: 0.1.0
          Id: a1
        Boot: b
        Seen: 1.2s ago
"
        );
        let silent = page(&nodes()[1], PLAIN, now);
        assert!(silent.contains("cpu, memory, pids NOT enforced") && silent.contains("since 12min ago"), "{silent}");
    }
}
