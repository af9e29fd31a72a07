//! Reading JSON with every fault collected instead of the first one thrown.

use super::error::{Error, Faults};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Parses a body.
///
/// # Errors
/// It is not JSON.
pub(super) fn parse(body: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(body).map_err(|error| Error::NotJson(error.to_string()))
}

/// A value and where it stands in its document.
#[derive(Debug, Clone)]
pub(super) struct At<'a> {
    pub(super) path: String,
    value: &'a Value,
}

impl<'a> At<'a> {
    /// The document itself.
    pub(super) fn root(value: &'a Value) -> Self {
        Self { path: String::new(), value }
    }

    /// A document inside a list of documents.
    pub(super) fn item(value: &'a Value, index: usize) -> Self {
        Self { path: format!("/({index})"), value }
    }

    /// A member of an object; `None` if there is none, or `null`.
    pub(super) fn get(&self, key: &str) -> Option<At<'a>> {
        let value = self.value.get(key).filter(|value| !value.is_null())?;
        Some(At { path: format!("{}/{key}", self.path), value })
    }

    pub(super) fn is_object(&self, faults: &mut Faults) -> bool {
        self.claim(self.value.as_object(), faults, "an object").is_some()
    }

    /// Whether it holds nothing: `""`, `[]`, `{}`, `0` or `false`.
    pub(super) fn is_blank(&self) -> bool {
        match self.value {
            Value::Null => true,
            Value::Bool(value) => !value,
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(members) => members.is_empty(),
        }
    }

    pub(super) fn text(&self, faults: &mut Faults) -> Option<&'a str> {
        self.claim(self.value.as_str(), faults, "a string")
    }

    pub(super) fn boolean(&self, faults: &mut Faults) -> Option<bool> {
        self.claim(self.value.as_bool(), faults, "true or false")
    }

    /// A number, in multiples of `1 / unit`, rounded to the nearest.
    pub(super) fn scaled(&self, faults: &mut Faults, unit: f64, range: RangeInclusive<f64>) -> Option<u64> {
        let number = self.claim(self.value.as_f64(), faults, "a number")?;
        if !range.contains(&number) {
            self.fault(faults, format!("must be from {} to {}", range.start(), range.end()));
            return None;
        }
        // In range and not negative, so this neither wraps nor cuts.
        Some((number * unit).round() as u64)
    }

    /// A whole number.
    pub(super) fn whole(&self, faults: &mut Faults, range: RangeInclusive<u32>) -> Option<u32> {
        let whole = self.value.as_f64().filter(|number| number.fract() == 0.0);
        let whole = whole.filter(|number| (f64::from(*range.start())..=f64::from(*range.end())).contains(number));
        if whole.is_none() {
            self.fault(faults, format!("must be a whole number from {} to {}", range.start(), range.end()));
        }
        whole.map(|number| number as u32)
    }

    pub(super) fn list(&self, faults: &mut Faults) -> Option<Vec<At<'a>>> {
        let items = self.claim(self.value.as_array(), faults, "a list")?.iter().enumerate();
        Some(items.map(|(index, value)| At { path: format!("{}({index})", self.path), value }).collect())
    }

    /// The members of an object used as a map; those that are `null` are left out.
    pub(super) fn entries(&self, faults: &mut Faults) -> Option<Vec<(&'a str, At<'a>)>> {
        let members = self.claim(self.value.as_object(), faults, "an object")?.iter().filter(|(_, value)| !value.is_null());
        Some(members.map(|(key, value)| (key.as_str(), At { path: format!("{}/{key}", self.path), value })).collect())
    }

    /// A map of strings.
    pub(super) fn texts(&self, faults: &mut Faults) -> Option<BTreeMap<String, String>> {
        let entries = self.entries(faults)?.into_iter();
        Some(entries.filter_map(|(key, value)| Some((key.to_owned(), value.text(faults)?.to_owned()))).collect())
    }

    pub(super) fn fault(&self, faults: &mut Faults, why: impl Into<String>) {
        faults.push(&self.path, why);
    }

    fn claim<T>(&self, found: Option<T>, faults: &mut Faults, kind: &str) -> Option<T> {
        if found.is_none() {
            self.fault(faults, format!("must be {kind}"));
        }
        found
    }
}
