//! `drover logs`: the journals of all machines in one stream. A followed task or run ends it, and its exit status is told.

use crate::client::{LineStream, encode, own_code};
use crate::exit::{Exit, Failure};
use crate::jobs::{ended_line, exit_of};
use crate::names::{self, Target, short_task};
use crate::screen::{Format, Screen, Style, Tint};
use crate::{Session, text};
use drover_api::drover::{LogEntry, LogItem, Time};
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Lines to begin with.
const LINES_DEFAULT: u64 = 100;
/// The same when new ones are waited for.
const LINES_DEFAULT_FOLLOW: u64 = 10;
/// How long a screen waits for the lines that it ends with.
const A_MOMENT: Duration = Duration::from_secs(3);
/// Before a broken stream is opened again.
const REOPEN_AFTER: Duration = Duration::from_secs(1);
/// How long a stream that broke is tried to be opened again before the masters are given up.
const REOPEN_TRIES_MAX: u32 = 60;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A target is an app, a job, a run (JOB@SLOT, JOB@last), a task or a node; app:, job:, task: or node: before it says which.
With -f the stream of a task or a run ends with it, and the exit code is that of its process.

Examples:
  drover logs -f /shop/web
  drover logs etl@last -S yesterday
  drover logs /shop/web /shop/api -n 50 -p warning")]
pub(crate) struct LogsArgs {
    /// What to show
    #[arg(required = true, value_name = "TARGET")]
    targets: Vec<String>,
    /// Stay and show what comes
    #[arg(short, long)]
    follow: bool,
    /// How many of the newest lines to begin with, or `all` [default: 100, with -f 10]
    #[arg(short = 'n', long, value_name = "N", value_parser = parse_lines)]
    lines: Option<Lines>,
    /// From this time on: -10min, yesterday, 10:30, 2026-11-22 10:30:00
    #[arg(short = 'S', long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// Only lines at least this important: a number 0 to 7 or err, warning, info, …
    #[arg(short, long, value_name = "PRIORITY", value_parser = parse_priority)]
    priority: Option<u8>,
    /// What the programs wrote and nothing else: no time, no origin, no word of systemd
    #[arg(long)]
    raw: bool,
    /// Task ids in full
    #[arg(long)]
    full: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lines {
    All,
    Newest(u64),
}

fn parse_lines(text: &str) -> Result<Lines, String> {
    match text {
        "all" => Ok(Lines::All),
        number => number.parse().map(Lines::Newest).map_err(|_| "write a number or `all`".to_owned()),
    }
}

fn parse_priority(text: &str) -> Result<u8, String> {
    const WORDS: [&[&str]; 8] =
        [&["emerg"], &["alert"], &["crit"], &["err", "error"], &["warning", "warn"], &["notice"], &["info"], &["debug"]];
    let number = text.parse::<u8>().ok().filter(|number| *number < 8);
    let word = WORDS.iter().position(|words| words.contains(&text)).and_then(|at| u8::try_from(at).ok());
    number.or(word).ok_or_else(|| "write 0 to 7 or emerg, alert, crit, err, warning, notice, info, debug".to_owned())
}

/// `drover logs TARGET…`.
pub(crate) async fn run(session: &Session, args: LogsArgs) -> Result<Exit, Failure> {
    if session.screen.format == Format::Name {
        return Err(Failure::new(Exit::Usage, "log lines have no names").try_this("drover logs TARGET -o jsonl"));
    }
    let since = match &args.since {
        None => None,
        Some(text) => {
            let at = text::parse_instant(text, &session.screen.now_zoned()).map_err(|why| Failure::new(Exit::Usage, why))?;
            Some(Time(at.as_microsecond()))
        }
    };
    let mut selection = Vec::new();
    let mut ends = true;
    for target in &args.targets {
        let (key, value) = match names::any(&session.client, target).await? {
            Target::App(id) => ("app", id),
            Target::Job(name) => ("job", name),
            Target::Run { run, .. } => ("run", run),
            Target::Task(id) => ("task", id),
            Target::Node(name) => ("node", name),
        };
        ends &= matches!(key, "run" | "task");
        selection.push(format!("{key}={}", encode(&value)));
    }
    // Who says since when wants all of it.
    let lines = args.lines.unwrap_or(match (since, args.follow) {
        (Some(_), _) => Lines::All,
        (None, true) => Lines::Newest(LINES_DEFAULT_FOLLOW),
        (None, false) => Lines::Newest(LINES_DEFAULT),
    });
    let follower = Follower { session, args: &args, selection: selection.join("&"), ends };
    let interrupt = tokio::signal::ctrl_c();
    tokio::select! {
        outcome = follower.run(since, lines) => outcome,
        // Nothing goes on that could be detached from: reading is over, as asked.
        _ = interrupt => Ok(Exit::Detached),
    }
}

/// The newest lines of an app, a job, a run, a task or a node, each ended; for screens that end with them. They do without what the
/// journals do not give in a moment.
pub(crate) async fn newest(session: &Session, key: &str, value: &str, lines: u64, style: Style) -> Vec<String> {
    let path = format!("/drover/v1/logs?{key}={}&lines={lines}", encode(value));
    let mut newest = Vec::new();
    let read = async {
        let Ok(mut stream) = session.client.open_lines(&path).await else { return };
        while let Ok(Some(line)) = stream.next().await {
            if let Ok(LogItem::Entry(entry)) = serde_json::from_str(&line) {
                newest.push(render(&entry, style, &session.screen.zone, false));
            }
        }
    };
    // What came until then is shown either way.
    tokio::time::timeout(A_MOMENT, read).await.unwrap_or_default();
    newest
}

struct Follower<'a> {
    session: &'a Session,
    args: &'a LogsArgs,
    selection: String,
    /// Whether everything that is followed comes to an end by itself.
    ends: bool,
}

impl Follower<'_> {
    async fn run(&self, since: Option<Time>, lines: Lines) -> Result<Exit, Failure> {
        let mut seen = Seen::default();
        let mut exit = None;
        let mut stream = self.open(since, lines).await?;
        loop {
            let broke = match self.read(&mut stream, &mut seen, &mut exit).await {
                Ok(()) => None,
                Err(failure) if self.args.follow && failure.is_transient() => Some(failure),
                Err(failure) => return Err(failure),
            };
            let is_over = !self.args.follow || exit.is_some() || (self.ends && broke.is_none());
            if is_over {
                return Ok(exit.unwrap_or(Exit::Ok));
            }
            // The leader changed, or the master went away. Go on where it stopped: some entries come again and are known.
            let because = broke.map_or_else(|| "the master ended the stream".to_owned(), |failure| failure.error);
            self.session.screen.say(&self.note(&format!("-- {because}; reading on --")));
            stream = self.reopen(seen.resume_at().or(since)).await?;
        }
    }

    async fn open(&self, since: Option<Time>, lines: Lines) -> Result<LineStream, Failure> {
        let mut path = format!("/drover/v1/logs?{}", self.selection);
        if self.args.follow {
            path.push_str("&follow=1");
        }
        if let Lines::Newest(lines) = lines {
            path.push_str(&format!("&lines={lines}"));
        }
        if let Some(since) = since {
            path.push_str(&format!("&since={}", encode(&since.to_string())));
        }
        self.session.client.open_lines(&path).await
    }

    async fn reopen(&self, since: Option<Time>) -> Result<LineStream, Failure> {
        let mut tries = 0;
        loop {
            tokio::time::sleep(REOPEN_AFTER).await;
            match self.open(since, Lines::All).await {
                Err(failure) if failure.is_transient() && tries < REOPEN_TRIES_MAX => tries += 1,
                other => return other,
            }
        }
    }

    async fn read(&self, stream: &mut LineStream, seen: &mut Seen, exit: &mut Option<Exit>) -> Result<(), Failure> {
        let screen = &self.session.screen;
        while let Some(line) = stream.next().await? {
            if line.is_empty() {
                continue;
            }
            let item: LogItem = serde_json::from_str(&line).map_err(|error| {
                Failure::new(Exit::Failed, "a line of the stream makes no sense")
                    .because(&line)
                    .caused_by(&error)
                    .code(own_code::NONSENSE)
            })?;
            match item {
                LogItem::Entry(entry) => {
                    if seen.is_new(&entry) && self.args.priority.is_none_or(|priority| entry.priority <= priority) {
                        self.print(&line, &entry)?;
                    }
                }
                LogItem::Missing { missing } => screen.say(&self.note(&format!("-- {}: {} --", missing.node, missing.because))),
                LogItem::Ended { ended } => {
                    if screen.is_for_programs() {
                        screen.print(&format!("{line}\n"))?;
                    }
                    screen.say(&self.note(&ended_line(&ended.task, ended.state, ended.exit, &ended.message)));
                    let code = exit_of(ended.state, ended.exit);
                    // Of several, the first that failed decides. Who only looks back has not waited for it.
                    if self.args.follow && matches!(exit, None | Some(Exit::Ok)) {
                        *exit = Some(code);
                    }
                }
            }
        }
        Ok(())
    }

    fn print(&self, line: &str, entry: &LogEntry) -> Result<(), Failure> {
        let screen = &self.session.screen;
        match screen.format {
            _ if self.args.raw && is_of_systemd(entry) => Ok(()),
            _ if self.args.raw => screen.print(&format!("{}\n", entry.message)),
            Format::Json | Format::Jsonl | Format::Name => screen.print(&format!("{line}\n")),
            Format::Table | Format::Wide => {
                screen.print(&render(entry, screen.out, &screen.zone, self.args.full || screen.format == Format::Wide))
            }
        }
    }

    fn note(&self, text: &str) -> String {
        let screen: &Screen = &self.session.screen;
        screen.err.paint(Tint::Grey, text)
    }
}

/// Newer versions of systemd put a task's fields on their own messages about its unit as well.
fn is_of_systemd(entry: &LogEntry) -> bool {
    entry.pid == Some(1)
}

/// An entry as the journal prints it: `Nov 22 10:51:02 n03 web.1[4711]: slow query 812ms`.
fn render(entry: &LogEntry, style: Style, zone: &TimeZone, full: bool) -> String {
    let task = match (is_of_systemd(entry), full) {
        (true, _) => "systemd".to_owned(),
        (false, true) => entry.task.clone(),
        (false, false) => short_task(&entry.task),
    };
    let pid = entry.pid.map(|pid| format!("[{pid}]")).unwrap_or_default();
    let tint = match entry.priority {
        0..=3 => Some(Tint::Red),
        4 => Some(Tint::Yellow),
        5 => Some(Tint::Bold),
        6 => None,
        _ => Some(Tint::Grey),
    };
    let paint = |line: &str| tint.map_or_else(|| line.to_owned(), |tint| style.paint(tint, line));
    let head = format!("{} {} {task}{pid}: ", text::journal(entry.at, zone), entry.node);
    // A message of several lines keeps its lines below each other, as journalctl has it.
    let indent = " ".repeat(head.chars().count());
    let mut out = head;
    for (at, line) in entry.message.split('\n').enumerate() {
        if at > 0 {
            out.push_str(&indent);
        }
        out.push_str(&paint(line));
        out.push('\n');
    }
    out
}

/// What was shown, as far as it is needed to read on after a break without showing it again: of each node the newest time, and what
/// it said then.
#[derive(Debug, Default)]
struct Seen {
    nodes: BTreeMap<String, (Time, BTreeSet<(String, String)>)>,
}

impl Seen {
    /// Whether an entry was not shown before. Entries of one node come in order.
    fn is_new(&mut self, entry: &LogEntry) -> bool {
        let key = || (entry.task.clone(), entry.message.clone());
        let (newest, said) = self.nodes.entry(entry.node.clone()).or_insert_with(|| (Time(i64::MIN), BTreeSet::new()));
        match entry.at.cmp(newest) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => said.insert(key()),
            std::cmp::Ordering::Greater => {
                *newest = entry.at;
                said.clear();
                said.insert(key())
            }
        }
    }

    /// From when to read on: nothing later than this was shown of every node.
    fn resume_at(&self) -> Option<Time> {
        self.nodes.values().map(|(newest, _)| *newest).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::tests::PLAIN;

    fn entry(node: &str, us: i64, message: &str) -> LogEntry {
        LogEntry {
            at: Time(1_795_344_667_000_000 + us),
            node: node.into(),
            task: "shop_web.0b1c2d3e-4f5a".into(),
            app: Some("/shop/web".into()),
            job: None,
            run: None,
            priority: 6,
            pid: Some(4711),
            message: message.into(),
        }
    }

    #[test]
    fn lines_look_like_the_journal() {
        assert_eq!(
            render(&entry("n03", 0, "slow query"), PLAIN, &TimeZone::UTC, false),
            "Nov 22 10:51:07 n03 shop_web.0b1c2d3e[4711]: slow query\n"
        );
        let two = render(&entry("n03", 0, "a\nb"), PLAIN, &TimeZone::UTC, true);
        assert_eq!(two, format!("Nov 22 10:51:07 n03 shop_web.0b1c2d3e-4f5a[4711]: a\n{}b\n", " ".repeat(50)));
    }

    #[test]
    fn what_systemd_says_of_a_unit_is_told_as_its_own() {
        let started = LogEntry { pid: Some(1), ..entry("n03", 0, "Started a.service.") };
        assert_eq!(render(&started, PLAIN, &TimeZone::UTC, false), "Nov 22 10:51:07 n03 systemd[1]: Started a.service.\n");
    }

    #[test]
    fn what_was_shown_is_not_shown_again() {
        let mut seen = Seen::default();
        for (node, us, message, new) in [
            ("n1", 5, "a", true),
            ("n1", 5, "b", true),
            ("n2", 9, "a", true),
            // The stream broke here and was opened again at 5.
            ("n1", 5, "a", false),
            ("n1", 5, "b", false),
            ("n2", 9, "a", false),
            ("n1", 5, "c", true),
            ("n1", 6, "a", true),
        ] {
            assert_eq!(seen.is_new(&entry(node, us, message)), new, "{node} {us} {message}");
        }
        assert_eq!(seen.resume_at(), Some(entry("n1", 6, "").at));
    }

    #[test]
    fn numbers_and_words_are_read() {
        assert_eq!(parse_lines("all"), Ok(Lines::All));
        assert_eq!(parse_lines("7"), Ok(Lines::Newest(7)));
        assert!(parse_lines("-1").is_err());
        assert_eq!(parse_priority("err"), Ok(3));
        assert_eq!(parse_priority("7"), Ok(7));
        assert!(parse_priority("8").is_err() && parse_priority("loud").is_err());
    }
}
