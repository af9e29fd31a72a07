//! `drover events`: what happens in the cluster, in order.

use crate::Session;
use crate::client::own_code;
use crate::exit::{Exit, Failure};
use crate::names::short_task;
use crate::screen::{Format, Style, Tint};
use crate::text;
use drover_api::drover::{Event, EventType};
use jiff::tz::TimeZone;
use std::time::Duration;

/// Before a broken stream is opened again.
const REOPEN_AFTER: Duration = Duration::from_secs(1);
/// Masters that do not know `follow=0` keep the stream open. What they had has come once they are silent for so long.
const SILENCE: Duration = Duration::from_secs(2);
/// How often, before the masters are given up.
const REOPEN_TRIES_MAX: u32 = 60;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Types: app, deployment, task, job, run, node; or a full one, as task-changed.

Examples:
  drover events                       those the master still has
  drover events -f --type task,node   from now on")]
pub(crate) struct EventsArgs {
    /// Stay and show what comes
    #[arg(short, long)]
    follow: bool,
    /// From the one after this index on
    #[arg(long, value_name = "INDEX")]
    after: Option<u64>,
    /// Only these types
    #[arg(long = "type", value_name = "TYPE[,TYPE…]", value_delimiter = ',')]
    types: Vec<String>,
}

/// `drover events`.
pub(crate) async fn run(session: &Session, args: EventsArgs) -> Result<Exit, Failure> {
    if session.screen.format == Format::Name {
        return Err(Failure::new(Exit::Usage, "events have no names").try_this("drover events -o jsonl"));
    }
    let interrupt = tokio::signal::ctrl_c();
    tokio::select! {
        outcome = follow(session, &args) => outcome,
        // Nothing goes on that could be detached from: reading is over, as asked.
        _ = interrupt => Ok(Exit::Detached),
    }
}

async fn follow(session: &Session, args: &EventsArgs) -> Result<Exit, Failure> {
    let path = if args.follow { "/drover/v1/events" } else { "/drover/v1/events?follow=0" };
    // Without -f the past is wanted, with it the future, unless told from where.
    let mut after = args.after.or(if args.follow { None } else { Some(0) }).map(|index| index.to_string());
    let mut stream = session.client.open_events(path, after.as_deref()).await?;
    loop {
        match read(session, args, &mut stream, &mut after).await {
            Ok(()) if !args.follow => return Ok(Exit::Ok),
            Ok(()) => session.screen.say("-- the master ended the stream; reading on --"),
            Err(failure) if args.follow && failure.is_transient() => {
                session.screen.say(&format!("-- {}; reading on --", failure.error))
            }
            Err(failure) => return Err(failure),
        }
        let mut tries = 0;
        stream = loop {
            tokio::time::sleep(REOPEN_AFTER).await;
            match session.client.open_events(path, after.as_deref()).await {
                Err(failure) if failure.is_transient() && tries < REOPEN_TRIES_MAX => tries += 1,
                other => break other?,
            }
        };
    }
}

async fn read(
    session: &Session,
    args: &EventsArgs,
    stream: &mut crate::client::EventStream,
    after: &mut Option<String>,
) -> Result<(), Failure> {
    let screen = &session.screen;
    loop {
        let next = match args.follow {
            true => stream.next().await?,
            false => tokio::time::timeout(SILENCE, stream.next()).await.unwrap_or(Ok(None))?,
        };
        let Some(raw) = next else { return Ok(()) };
        if raw.name == "resync" {
            screen.say(&screen.err.paint(Tint::Yellow, "-- older events are not kept any more --"));
            *after = raw.id.or(after.take());
            continue;
        }
        let event: Event = serde_json::from_str(&raw.data).map_err(|error| {
            Failure::new(Exit::Failed, "an event makes no sense").because(&raw.data).caused_by(&error).code(own_code::NONSENSE)
        })?;
        if is_wanted(&args.types, event.kind, &raw.name) {
            match screen.format {
                Format::Json | Format::Jsonl | Format::Name => screen.print(&format!("{}\n", raw.data))?,
                Format::Table | Format::Wide => screen.print(&render(&event, &raw.name, screen.out, &screen.zone))?,
            }
        }
        // Only now it has been shown: were the stream to break here, it is not to come again.
        if raw.id.is_some() {
            *after = raw.id;
        }
    }
}

/// A type is wanted by its own word or by what it is about, the word's first part.
fn is_wanted(types: &[String], kind: EventType, name: &str) -> bool {
    let word = if kind == EventType::Unknown { name } else { kind.word() };
    let about = word.split('-').next().unwrap_or(word);
    types.is_empty() || types.iter().any(|wanted| wanted == word || wanted.trim_end_matches('s') == about)
}

/// `Nov 22 10:51:07 task /shop/web shop_web.0b1c2d3e n07 failed: exit 1  (88123)`.
fn render(event: &Event, name: &str, style: Style, zone: &TimeZone) -> String {
    let word = if event.kind == EventType::Unknown { name } else { event.kind.word() };
    let mut parts = vec![text::journal(event.at, zone), style.paint(Tint::Bold, word)];
    let subject = [&event.app, &event.run, &event.job].into_iter().flatten().next();
    parts.extend(subject.cloned());
    // The first attempt of a run is called as the run is.
    let task = event.task.as_ref().map(|task| short_task(task));
    parts.extend(task.filter(|task| event.run.as_ref() != Some(task)));
    parts.extend(event.node.clone());
    parts.extend(event.deployment.as_ref().map(|id| format!("deployment {}", id.chars().take(8).collect::<String>())));
    if let Some(state) = &event.state {
        let tint = match state.as_str() {
            "running" | "up" | "finished" => Tint::Green,
            "failed" | "error" | "lost" | "unreachable" | "gone" | "gone-by-operator" => Tint::Red,
            _ => Tint::Yellow,
        };
        parts.push(style.paint(tint, state));
    }
    let said = subject.is_none_or(|subject| *subject != event.message) && !event.message.is_empty();
    let said = if said { format!(": {}", event.message) } else { String::new() };
    format!("{}{said}  {}\n", parts.join(" "), style.paint(Tint::Grey, &format!("({})", event.index)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::tests::PLAIN;
    use serde_json::json;

    #[test]
    fn an_event_is_a_line() {
        let event: Event = serde_json::from_value(json!({
            "apiVersion": "drover/v1", "index": 88123, "at": "2026-11-22T10:51:07.000Z", "type": "task-changed",
            "app": "/shop/web", "task": "shop_web.0b1c2d3e-4f5a", "node": "n07", "state": "failed", "message": "exit 1",
        }))
        .unwrap();
        assert_eq!(
            render(&event, "", PLAIN, &TimeZone::UTC),
            "Nov 22 10:51:07 task-changed /shop/web shop_web.0b1c2d3e n07 failed: exit 1  (88123)\n"
        );
        let later: Event = serde_json::from_value(
            json!({"apiVersion": "drover/v1", "index": 1, "at": "2026-11-22T10:51:07.000Z", "type": "quota-changed"}),
        )
        .unwrap();
        assert_eq!(render(&later, "quota-changed", PLAIN, &TimeZone::UTC), "Nov 22 10:51:07 quota-changed  (1)\n");
    }

    #[test]
    fn types_are_chosen_by_word_or_subject() {
        let wanted = |types: &[&str], kind| {
            is_wanted(&types.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>(), kind, "quota-changed")
        };
        assert!(wanted(&[], EventType::TaskChanged));
        assert!(wanted(&["tasks"], EventType::TaskChanged));
        assert!(wanted(&["node", "task-changed"], EventType::TaskChanged));
        assert!(!wanted(&["task-ended", "deployment"], EventType::TaskChanged));
        assert!(wanted(&["quota"], EventType::Unknown));
    }
}
