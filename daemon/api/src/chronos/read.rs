//! Lenient reading of JSON members, as Chronos reads them: numbers and booleans may be text, null counts as absent.

use super::error::Faults;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A value and its path, `/constraints/0/1`.
#[derive(Debug, Clone)]
pub(super) struct At<'a> {
    pub(super) path: String,
    value: &'a Value,
}

/// A member of an object, if it is there and not null.
pub(super) fn member<'a>(object: &'a Map<String, Value>, path: &str, name: &str) -> Option<At<'a>> {
    let value = object.get(name).filter(|value| !value.is_null())?;
    Some(At { path: format!("{path}/{name}"), value })
}

impl<'a> At<'a> {
    /// Whether it asks for nothing: false, zero, or nothing inside.
    pub(super) fn is_blank(&self) -> bool {
        is_blank(self.value)
    }

    pub(super) fn text(&self, faults: &mut Faults) -> Option<String> {
        let text = match self.value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(value) => Some(value.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        };
        let text = self.claim(text, faults, "text")?;
        if text.contains('\0') {
            self.fault(faults, "must not contain a zero byte");
            return None;
        }
        Some(text)
    }

    pub(super) fn boolean(&self, faults: &mut Faults) -> Option<bool> {
        let value = match self.value {
            Value::Bool(value) => Some(*value),
            Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
            Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
            Value::Number(number) if number.as_u64() == Some(1) => Some(true),
            Value::Number(number) if number.as_u64() == Some(0) => Some(false),
            _ => None,
        };
        self.claim(value, faults, "true or false")
    }

    pub(super) fn number(&self, faults: &mut Faults) -> Option<f64> {
        let value = match self.value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        self.claim(value.filter(|value| value.is_finite()), faults, "a number")
    }

    /// A whole number from 0 to `max`.
    pub(super) fn whole(&self, faults: &mut Faults, max: u32) -> Option<u32> {
        let number = self.number(faults)?;
        let is_good = number.fract() == 0.0 && (0.0..=f64::from(max)).contains(&number);
        self.claim(is_good.then_some(number as u32), faults, &format!("a whole number from 0 to {max}"))
    }

    pub(super) fn list(&self, faults: &mut Faults) -> Option<Vec<At<'a>>> {
        let list = self.claim(self.value.as_array(), faults, "a list")?;
        let at = |(index, value)| At { path: format!("{}/{index}", self.path), value };
        Some(list.iter().enumerate().map(at).collect())
    }

    pub(super) fn texts(&self, faults: &mut Faults) -> Option<Vec<String>> {
        Some(self.list(faults)?.iter().filter_map(|item| item.text(faults)).collect())
    }

    pub(super) fn object(&self, faults: &mut Faults) -> Option<&'a Map<String, Value>> {
        self.claim(self.value.as_object(), faults, "an object")
    }

    pub(super) fn text_map(&self, faults: &mut Faults) -> Option<BTreeMap<String, String>> {
        let object = self.object(faults)?;
        let entry = |name: &String| Some((name.clone(), member(object, &self.path, name)?.text(faults)?));
        Some(object.keys().filter_map(entry).collect())
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

fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.trim().is_empty() || text.eq_ignore_ascii_case("false"),
        Value::Array(list) => list.iter().all(is_blank),
        Value::Object(object) => object.values().all(is_blank),
    }
}
