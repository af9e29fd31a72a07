//! Reads a TOML table key by key and collects every fault with its path, so that a bad file is mended in one go.
//! A key that nobody asked for is a fault too.

use drover_core::time::Millis;
use std::collections::BTreeMap;
use toml::{Table, Value};

/// A fault in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where, `agent.resources.mem`.
    pub path: String,
    /// What is wrong, and what would be right.
    pub why: String,
}

/// One table, read by taking its keys out.
pub(crate) struct Reader<'f> {
    path: String,
    table: Table,
    asked: Vec<&'static str>,
    faults: &'f mut Vec<Fault>,
}

impl<'f> Reader<'f> {
    /// The whole document.
    pub(crate) fn new(table: Table, faults: &'f mut Vec<Fault>) -> Self {
        Self { path: String::new(), table, asked: Vec::new(), faults }
    }

    fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Notes a fault of `key`.
    pub(crate) fn fault(&mut self, key: &str, why: impl Into<String>) {
        let path = self.at(key);
        self.faults.push(Fault { path, why: why.into() });
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.asked.push(key);
        self.table.remove(key)
    }

    /// A value as `read` understands it; `default` when it is absent or faulty.
    pub(crate) fn value<T>(&mut self, key: &'static str, default: T, read: impl FnOnce(&Value) -> Result<T, String>) -> T {
        self.optional(key, read).unwrap_or(default)
    }

    /// As [`Reader::value`], without a default.
    pub(crate) fn optional<T>(&mut self, key: &'static str, read: impl FnOnce(&Value) -> Result<T, String>) -> Option<T> {
        let value = self.take(key)?;
        match read(&value) {
            Ok(value) => Some(value),
            Err(why) => {
                self.fault(key, why);
                None
            }
        }
    }

    /// Whether a sub-table is there.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Reads a sub-table; one that is absent reads as empty.
    pub(crate) fn table<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Reader<'_>) -> T) -> T {
        let value = self.take(key);
        self.sub_table(key, value, read)
    }

    /// Reads every sub-table below `key`, whatever they are called.
    pub(crate) fn tables<T>(&mut self, key: &'static str, mut read: impl FnMut(&mut Reader<'_>) -> T) -> BTreeMap<String, T> {
        let Some(value) = self.take(key) else { return BTreeMap::new() };
        let Value::Table(tables) = value else {
            self.fault(key, "must be a table of tables");
            return BTreeMap::new();
        };
        let tables = tables.into_iter();
        tables.map(|(name, value)| (name.clone(), self.sub_table(&format!("{key}.{name}"), Some(value), &mut read))).collect()
    }

    fn sub_table<T>(&mut self, key: &str, value: Option<Value>, read: impl FnOnce(&mut Reader<'_>) -> T) -> T {
        let table = match value {
            None => Table::new(),
            Some(Value::Table(table)) => table,
            Some(_) => {
                self.fault(key, format!("must be a table, [{}]", self.at(key)));
                Table::new()
            }
        };
        let mut reader = Reader { path: self.at(key), table, asked: Vec::new(), faults: self.faults };
        let result = read(&mut reader);
        reader.finish();
        result
    }

    /// Complains about keys that nobody asked for.
    pub(crate) fn finish(mut self) {
        let unknown: Vec<String> = self.table.keys().cloned().collect();
        for key in unknown {
            let near = self.asked.iter().min_by_key(|known| distance(known, &key)).copied();
            let hint = near.filter(|known| distance(known, &key) <= 2).map(|known| format!("; did you mean {known}?"));
            self.fault(&key, format!("unknown key{}", hint.unwrap_or_default()));
        }
    }
}

/// Text, not empty.
pub(crate) fn text(value: &Value) -> Result<String, String> {
    match value.as_str() {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err("must be a text that is not empty".into()),
    }
}

/// A list of texts.
pub(crate) fn texts(value: &Value) -> Result<Vec<String>, String> {
    let list = value.as_array().ok_or("must be a list of texts")?;
    list.iter().map(|item| text(item).map_err(|_| "must be a list of texts that are not empty".to_owned())).collect()
}

/// A table of texts; numbers and booleans are taken as they are written.
pub(crate) fn text_map(value: &Value) -> Result<BTreeMap<String, String>, String> {
    let table = value.as_table().ok_or("must be a table of texts")?;
    let read = |(key, value): (&String, &Value)| match value {
        Value::String(text) => Ok((key.clone(), text.clone())),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Ok((key.clone(), value.to_string())),
        _ => Err(format!("{key} must be a text")),
    };
    table.iter().map(read).collect()
}

/// A count within bounds.
pub(crate) fn count(bounds: std::ops::RangeInclusive<u64>) -> impl FnOnce(&Value) -> Result<u64, String> {
    move |value| {
        let given = value.as_integer().and_then(|n| u64::try_from(n).ok()).filter(|n| bounds.contains(n));
        given.ok_or_else(|| format!("must be a whole number from {} to {}", bounds.start(), bounds.end()))
    }
}

/// A number that is not negative, in thousandths.
pub(crate) fn milli(value: &Value) -> Result<u64, String> {
    let number = value.as_float().or_else(|| value.as_integer().map(|n| n as f64));
    match number {
        Some(number) if number.is_finite() && (0.0..=1e9).contains(&number) => Ok((number * 1000.0).round() as u64),
        _ => Err("must be a number from 0 to 1000000000".into()),
    }
}

/// A duration: `"250ms"`, `"5min 20s"`, or a number of seconds. Not zero.
pub(crate) fn duration(value: &Value) -> Result<Millis, String> {
    let wrong = || "must be a duration such as \"250ms\", \"15s\" or \"5min 20s\"".to_owned();
    let millis = match value {
        Value::Integer(seconds) => u64::try_from(*seconds).ok().map(|s| s.saturating_mul(1000)),
        Value::String(text) => {
            let parsed = jiff::fmt::friendly::SpanParser::new().parse_unsigned_duration(text).ok();
            parsed.and_then(|d| u64::try_from(d.as_millis()).ok())
        }
        _ => None,
    };
    millis.filter(|ms| *ms > 0).map(Millis).ok_or_else(wrong)
}

/// A size in bytes: `"512M"`, `"4G"` (powers of 1024, as in systemd), or a number of bytes.
pub(crate) fn size(value: &Value) -> Result<u64, String> {
    let wrong = || "must be a size such as \"512M\", \"4G\" or a number of bytes".to_owned();
    match value {
        Value::Integer(bytes) => u64::try_from(*bytes).map_err(|_| wrong()),
        Value::String(text) => {
            let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
            let shift = match text[digits.len()..].trim_end_matches("iB").trim_end_matches('B') {
                "" => 0,
                "K" => 10,
                "M" => 20,
                "G" => 30,
                "T" => 40,
                "P" => 50,
                _ => return Err(wrong()),
            };
            let number: f64 = digits.trim().parse().map_err(|_| wrong())?;
            let bytes = number * (1u64 << shift) as f64;
            if !(0.0..9e18).contains(&bytes) {
                return Err(wrong());
            }
            Ok(bytes as u64)
        }
        _ => Err(wrong()),
    }
}

/// Edit distance, for "did you mean".
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}
