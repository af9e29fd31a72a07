//! What people and programs see: data on standard output as tables, JSON or names; talk on standard error.

use crate::exit::Failure;
use clap::ValueEnum;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};

/// What `-o` can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// A table with all columns.
    Wide,
    /// One JSON document.
    Json,
    /// One JSON object a line.
    Jsonl,
    /// One name a line.
    Name,
}

/// What `--color` can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How one of the two outputs is decorated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Style {
    /// With escape sequences.
    pub(crate) color: bool,
    /// With characters beyond ASCII.
    pub(crate) unicode: bool,
}

/// How things are with something, as the dot before a line shows it. Its word always stands beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// As it should be.
    Good,
    /// Switched off, or nothing to do.
    Off,
    /// On its way.
    Busy,
    /// Not as it should be.
    Bad,
}

/// Colours that carry a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tint {
    /// As it should be.
    Green,
    /// Attention.
    Yellow,
    /// Wrong.
    Red,
    /// By the way.
    Grey,
    /// Headings.
    Bold,
}

impl Mark {
    fn tint(self) -> Tint {
        match self {
            Self::Good => Tint::Green,
            Self::Off => Tint::Grey,
            Self::Busy => Tint::Yellow,
            Self::Bad => Tint::Red,
        }
    }
}

impl Style {
    /// The text in a colour, if there are any.
    pub(crate) fn paint(self, tint: Tint, text: &str) -> String {
        if !self.color || text.is_empty() {
            return text.to_owned();
        }
        let code = match tint {
            Tint::Green => "32",
            Tint::Yellow => "33",
            Tint::Red => "31",
            Tint::Grey => "90",
            Tint::Bold => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// The dot of a mark.
    pub(crate) fn mark(self, mark: Mark) -> String {
        let glyph = match (mark, self.unicode) {
            (Mark::Good, true) => "●",
            (Mark::Off, true) => "○",
            (Mark::Busy, true) => "↻",
            (Mark::Bad, true) => "×",
            (Mark::Good, false) => "*",
            (Mark::Off, false) => "o",
            (Mark::Busy, false) => "~",
            (Mark::Bad, false) => "x",
        };
        self.paint(mark.tint(), glyph)
    }

    /// Stands where a table has nothing to say.
    pub(crate) fn none(self) -> &'static str {
        if self.unicode { "–" } else { "-" }
    }

    /// From here to there.
    pub(crate) fn arrow(self) -> &'static str {
        if self.unicode { "→" } else { "->" }
    }

    /// A bar of ten parts and its percentage, `██████░░░░ 58%`.
    pub(crate) fn bar(self, used: f64, total: f64) -> String {
        let share = if total > 0.0 { (used / total).clamp(0.0, 1.0) } else { 0.0 };
        let (full, empty) = if self.unicode { ("█", "░") } else { ("#", ".") };
        let parts = (share * 10.0).round() as usize;
        let tint = match share {
            s if s >= 0.9 => Tint::Red,
            s if s >= 0.75 => Tint::Yellow,
            _ => Tint::Green,
        };
        let bar = format!("{}{}", self.paint(tint, &full.repeat(parts)), empty.repeat(10 - parts));
        format!("{bar} {:.0}%", share * 100.0)
    }
}

/// Rows under headings; each row may begin with a dot.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Row>,
}

#[derive(Debug, Clone)]
struct Row {
    mark: Option<Mark>,
    cells: Vec<String>,
}

impl Table {
    /// A table with these columns.
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// One more row. A cell that is empty shows as nothing known.
    pub(crate) fn row(&mut self, mark: Option<Mark>, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.headings.len(), "a cell for each column");
        self.rows.push(Row { mark, cells });
    }

    /// The text, every line ended. Columns are as wide as their widest cell.
    pub(crate) fn render(&self, style: Style, headings: bool) -> String {
        let marked = self.rows.iter().any(|row| row.mark.is_some());
        let shown = |cell: &str| if cell.is_empty() { style.none().to_owned() } else { cell.to_owned() };
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| shown(&row.cells[column]).chars().count());
            cells.chain(headings.then(|| self.headings[column].chars().count())).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.headings.len()).map(width).collect();
        let line = |dot: &str, cells: &[String], tint: Option<Tint>| {
            let mut text = String::new();
            for (cell, width) in cells.iter().zip(&widths) {
                text.push_str(&format!("{cell:<width$}  "));
            }
            let text = text.trim_end();
            let text = tint.map_or_else(|| text.to_owned(), |tint| style.paint(tint, text));
            if marked { format!("{dot} {text}\n") } else { format!("{text}\n") }
        };
        let mut text = String::new();
        if headings {
            let cells: Vec<String> = self.headings.iter().map(|heading| (*heading).to_owned()).collect();
            text.push_str(&line(" ", &cells, Some(Tint::Bold)));
        }
        for row in &self.rows {
            let cells: Vec<String> = row.cells.iter().map(|cell| shown(cell)).collect();
            let dot = row.mark.map_or_else(|| " ".to_owned(), |mark| style.mark(mark));
            text.push_str(&line(&dot, &cells, None));
        }
        text
    }
}

/// Lines of `name: value` with the colons below each other, as `systemctl status` has them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sheet {
    lines: Vec<(&'static str, String)>,
}

impl Sheet {
    /// One more line; left out if there is nothing to say.
    pub(crate) fn line(&mut self, name: &'static str, value: impl Into<String>) {
        let value = value.into();
        if !value.is_empty() {
            self.lines.push((name, value));
        }
    }

    /// The text, every line ended.
    pub(crate) fn render(&self) -> String {
        let width = self.lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        self.lines.iter().map(|(name, value)| format!("  {name:>width$}: {value}\n")).collect()
    }
}

/// A list, ready for every format.
#[derive(Debug)]
pub(crate) struct Listing<'a> {
    /// Its name in JSON, `apps`.
    pub(crate) kind: &'a str,
    /// Its items as the API gave them.
    pub(crate) items: &'a [Value],
    /// The name of each.
    pub(crate) names: Vec<String>,
    /// For people.
    pub(crate) table: Table,
    /// Said under the table when it is empty.
    pub(crate) empty: &'a str,
}

/// The two outputs, and how to use them.
#[derive(Debug, Clone)]
pub(crate) struct Screen {
    /// What the user asked for.
    pub(crate) format: Format,
    /// With headings.
    pub(crate) legend: bool,
    /// Standard output.
    pub(crate) out: Style,
    /// Standard error.
    pub(crate) err: Style,
    /// Whether questions can be asked and hints are welcome.
    pub(crate) interactive: bool,
    /// In which zone people are shown times.
    pub(crate) zone: TimeZone,
}

impl Screen {
    /// What the environment and the options make of it.
    pub(crate) fn new(format: Format, color: ColorChoice, legend: bool) -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        // The first of these that is set decides, as for every C program.
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(variable).unwrap_or_default().to_lowercase();
        let unicode = locale.contains("utf-8") || locale.contains("utf8");
        let wanted = |is_terminal: bool| match color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto if variable("NO_COLOR").is_some() => false,
            ColorChoice::Auto if variable("CLICOLOR_FORCE").is_some_and(|value| value != "0") => true,
            ColorChoice::Auto => is_terminal && variable("TERM").is_none_or(|term| term != "dumb"),
        };
        let style = |is_terminal| Style { color: wanted(is_terminal), unicode };
        Self {
            format,
            legend,
            out: style(std::io::stdout().is_terminal()),
            err: style(std::io::stderr().is_terminal()),
            interactive: std::io::stdin().is_terminal() && std::io::stderr().is_terminal(),
            zone: TimeZone::system(),
        }
    }

    /// The present.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// The present, in the user's zone.
    pub(crate) fn now_zoned(&self) -> Zoned {
        self.now().to_zoned(self.zone.clone())
    }

    /// Whether a program reads standard output.
    pub(crate) fn is_for_programs(&self) -> bool {
        matches!(self.format, Format::Json | Format::Jsonl | Format::Name)
    }

    /// Data.
    pub(crate) fn print(&self, text: &str) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        // Whoever closed the other end has read enough; there is no other way for this to fail that could be told anywhere.
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|_| Failure::nobody_reads())
    }

    /// Talk: one line on standard error.
    pub(crate) fn say(&self, line: &str) {
        // Talk that nobody hears is no reason to stop.
        writeln!(std::io::stderr(), "{line}").ok();
    }

    /// Talk for people at a terminal only: what one might do next.
    pub(crate) fn hint(&self, line: &str) {
        let wanted = std::env::var("DROVER_HINTS").map_or(true, |value| value != "0");
        if wanted && self.interactive && !self.is_for_programs() {
            self.say(&self.err.paint(Tint::Grey, line));
        }
    }

    /// A list in the format asked for.
    pub(crate) fn list(&self, listing: &Listing<'_>) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.json(&json!({"apiVersion": "drover/v1", listing.kind: listing.items})),
            Format::Jsonl => self.print(&listing.items.iter().map(|item| format!("{item}\n")).collect::<String>()),
            Format::Name => self.print(&listing.names.iter().map(|name| format!("{name}\n")).collect::<String>()),
            Format::Table | Format::Wide if listing.items.is_empty() => {
                self.say(listing.empty);
                Ok(())
            }
            Format::Table | Format::Wide => self.print(&listing.table.render(self.out, self.legend)),
        }
    }

    /// One object: JSON as it is, or its name, or what `text` makes of it.
    pub(crate) fn object(&self, value: &Value, name: &str, text: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.json(value),
            Format::Jsonl => self.print(&format!("{value}\n")),
            Format::Name => self.print(&format!("{name}\n")),
            Format::Table | Format::Wide => self.print(&text()),
        }
    }

    fn json(&self, value: &Value) -> Result<(), Failure> {
        self.print(&format!("{}\n", serde_json::to_string_pretty(value).expect("a JSON value prints")))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// No colours, UTF-8.
    pub(crate) const PLAIN: Style = Style { color: false, unicode: true };

    fn table() -> Table {
        let mut table = Table::new(&["NAME", "STATE", "NOTE"]);
        table.row(Some(Mark::Good), vec!["/größe".into(), "running".into(), String::new()]);
        table.row(Some(Mark::Bad), vec!["/x".into(), "failed".into(), "exit 3".into()]);
        table
    }

    #[test]
    fn columns_are_as_wide_as_needed() {
        assert_eq!(
            table().render(PLAIN, true),
            "  NAME    STATE    NOTE
● /größe  running  –
× /x      failed   exit 3
"
        );
        assert_eq!(table().render(PLAIN, false), "● /größe  running  –\n× /x      failed   exit 3\n");
    }

    #[test]
    fn ascii_says_the_same() {
        assert_eq!(
            table().render(Style::default(), true),
            "  NAME    STATE    NOTE\n* /größe  running  -\nx /x      failed   exit 3\n"
        );
    }

    #[test]
    fn colours_do_not_move_columns() {
        let coloured = table().render(Style { color: true, unicode: true }, true);
        let mut plain = String::new();
        let mut rest = coloured.as_str();
        while let Some(at) = rest.find('\x1b') {
            plain.push_str(&rest[..at]);
            rest = &rest[at + rest[at..].find('m').expect("escapes end in m") + 1..];
        }
        plain.push_str(rest);
        assert_ne!(coloured, plain);
        assert_eq!(plain, table().render(PLAIN, true));
    }

    #[test]
    fn bars_have_ten_parts() {
        assert_eq!(PLAIN.bar(5.8, 10.0), "██████░░░░ 58%");
        assert_eq!(Style::default().bar(0.0, 0.0), ".......... 0%");
    }

    #[test]
    fn sheets_align_their_colons() {
        let mut sheet = Sheet::default();
        sheet.line("State", "running");
        sheet.line("Nothing", "");
        sheet.line("Unit", "a.service");
        assert_eq!(sheet.render(), "  State: running\n   Unit: a.service\n");
    }
}
