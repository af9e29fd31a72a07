//! What systemd takes by itself to start tasks: the loop that an agent's rate of starts is measured against. In a
//! throw-away machine only.
//!
//! `bare_starts LEDGER COUNT AT_ONCE` makes COUNT units like those of the last task that the agent's ledger names, with the
//! same properties in the same slices, AT_ONCE at a time over one connection, and listens to nothing but the ends of their
//! unit jobs. It keeps no record, observes nothing and tells nobody. The units stay.

use anyhow::{Context, Result, bail, ensure};
use drover_core::ids::TaskId;
use drover_core::sandbox::Manager;
use drover_core::task::TaskSpec;
use drover_core::unit::{self, NodeFacts, Occupancy, Record, UnitPlan};
use futures_util::{StreamExt, TryStreamExt};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;
use zbus::connection::Builder;
use zbus::{Connection, MessageStream, OwnedObjectPath, Variant};

/// What the agent itself uses to write properties.
#[allow(dead_code, reason = "the agent reads properties, too")]
#[path = "../src/value.rs"]
mod value;

const SYSTEMD: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const BUS: &str = "org.freedesktop.DBus";

/// Who waits for the end of a unit's job.
type Waiting = Arc<Mutex<HashMap<String, oneshot::Sender<String>>>>;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [ledger, count, at_once] = arguments.as_slice() else { bail!("usage: bare_starts LEDGER COUNT AT_ONCE") };
    let plans = plans(&last_spec(ledger)?, count.parse().context("COUNT")?)?;

    let connection = Builder::system().build().await.context("the system bus cannot be reached")?;
    let waiting = Waiting::default();
    let rule = format!("type='signal',sender='{SYSTEMD}',interface='{MANAGER}',member='JobRemoved'");
    connection.call_method(Some(BUS), "/org/freedesktop/DBus", Some(BUS), "AddMatch", &(rule.as_str(),)).await?;
    connection.call_method(Some(SYSTEMD), PATH, Some(MANAGER), "Subscribe", &()).await?;
    tokio::spawn(hear(MessageStream::from(&connection), Arc::clone(&waiting)));

    futures_util::stream::iter(&plans)
        .map(|plan| start(&connection, &waiting, plan))
        .buffer_unordered(at_once.parse().context("AT_ONCE")?)
        .try_collect()
        .await
}

/// The last task that the leader wanted.
fn last_spec(ledger: &str) -> Result<TaskSpec> {
    let text = std::fs::read_to_string(ledger).with_context(|| ledger.to_owned())?;
    let of_record = |line| match serde_json::from_str(line) {
        Ok(Record::Assigned { mut tasks, .. }) => tasks.pop().map(|task| task.spec),
        // In a ledger that was rewritten.
        Ok(Record::Task { task, .. }) => Some(task.spec),
        _ => None,
    };
    text.lines().rev().find_map(of_record).context("no task is in the ledger")
}

fn plans(spec: &TaskSpec, count: usize) -> Result<Vec<UnitPlan>> {
    let facts = NodeFacts {
        boot: String::new(),
        systemd: 252,
        manager: Manager::System,
        task_slice: "drover.slice".into(),
        state_root: "/var/lib".into(),
        enforces: BTreeSet::new(),
    };
    let mut occupancy = Occupancy::new();
    let plan = |number| {
        // Names as long as a real one's, and of nobody.
        let task = TaskId::new(format!("bare.{:08x}-{number:027}", std::process::id()));
        let plan = unit::plan(&task, spec, &facts, &occupancy).map_err(|faults| anyhow::anyhow!("{faults:?}"))?;
        *occupancy.entry(plan.slice.clone()).or_default() += 1;
        Ok(plan)
    };
    (0..count).map(plan).collect()
}

async fn start(connection: &Connection, waiting: &Waiting, plan: &UnitPlan) -> Result<()> {
    let (ended, end) = oneshot::channel();
    waiting.lock().expect("nobody panics while holding it").insert(plan.name.clone(), ended);
    let properties: Vec<(&str, Variant<'_>)> =
        plan.properties.iter().map(|(name, value)| (name.as_str(), value::to_variant(value))).collect();
    let none: Vec<(&str, Vec<(&str, Variant<'_>)>)> = Vec::new();
    let body = (plan.name.as_str(), "fail", properties, none);
    connection.call_method(Some(SYSTEMD), PATH, Some(MANAGER), "StartTransientUnit", &body).await?;
    let result = end.await.context("the bus is gone")?;
    ensure!(result == "done", "{}: {result}", plan.name);
    Ok(())
}

async fn hear(mut signals: MessageStream, waiting: Waiting) {
    while let Some(Ok(message)) = signals.next().await {
        if message.header().member().is_some_and(|member| member.as_str() == "JobRemoved") {
            let body = message.body();
            let read: zbus::Result<(u32, OwnedObjectPath, String, String)> = body.deserialize();
            if let Ok((_, _, unit, result)) = read
                && let Some(waiter) = waiting.lock().expect("nobody panics while holding it").remove(&unit)
            {
                // Whoever waited is there until the end of the program.
                waiter.send(result).ok();
            }
        }
    }
}
