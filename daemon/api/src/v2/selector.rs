//! Label selectors: `a==1, b in (x,y), !=…`, comma-separated; all must hold.

use std::collections::BTreeMap;

/// A parsed selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector(Vec<Term>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    key: String,
    rule: Rule,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    Exists,
    In(Vec<String>),
    NotIn(Vec<String>),
}

/// What is wrong with a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Couldn't parse selector expression '{text}': {expected} expected at character {at}")]
pub struct BadSelector {
    text: String,
    expected: &'static str,
    at: usize,
}

impl Selector {
    /// Reads a selector.
    ///
    /// # Errors
    /// Where it stops making sense.
    pub fn parse(text: &str) -> Result<Self, BadSelector> {
        let mut reader = Reader { text, at: 0 };
        let mut terms = vec![reader.term()?];
        while reader.take(",") {
            terms.push(reader.term()?);
        }
        reader.skip_spaces();
        if reader.at < text.len() { Err(reader.expected("','")) } else { Ok(Self(terms)) }
    }

    /// Whether `labels` fit. `!=` and `notin` still want the label to be there.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|term| match (labels.get(&term.key), &term.rule) {
            (None, _) => false,
            (Some(_), Rule::Exists) => true,
            (Some(value), Rule::In(values)) => values.contains(value),
            (Some(value), Rule::NotIn(values)) => !values.contains(value),
        })
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn term(&mut self) -> Result<Term, BadSelector> {
        let key = self.word("a label")?;
        let rule = if self.take("==") {
            Rule::In(vec![self.word("a value")?])
        } else if self.take("!=") {
            Rule::NotIn(vec![self.word("a value")?])
        } else if self.take_keyword("in") {
            Rule::In(self.set()?)
        } else if self.take_keyword("notin") {
            Rule::NotIn(self.set()?)
        } else {
            Rule::Exists
        };
        Ok(Term { key, rule })
    }

    fn set(&mut self) -> Result<Vec<String>, BadSelector> {
        if !self.take("(") {
            return Err(self.expected("'('"));
        }
        let mut values = vec![self.word("a value")?];
        while self.take(",") {
            values.push(self.word("a value")?);
        }
        if self.take(")") { Ok(values) } else { Err(self.expected("',' or ')'")) }
    }

    /// Letters, digits, `.`, `_` and `-`; anything else after a backslash.
    fn word(&mut self, kind: &'static str) -> Result<String, BadSelector> {
        self.skip_spaces();
        let mut word = String::new();
        let mut chars = self.text[self.at..].chars();
        while let Some(c) = chars.next() {
            let plain = c.is_ascii_alphanumeric() || "._-".contains(c);
            let taken = if plain { Some(c) } else { chars.next().filter(|_| c == '\\') };
            let Some(taken) = taken else { break };
            word.push(taken);
            self.at += c.len_utf8() + if plain { 0 } else { taken.len_utf8() };
        }
        if word.is_empty() { Err(self.expected(kind)) } else { Ok(word) }
    }

    fn take(&mut self, token: &str) -> bool {
        self.skip_spaces();
        let found = self.text[self.at..].starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    /// A word that only counts when it stands for itself: `in`, but not the beginning of `inner`.
    fn take_keyword(&mut self, keyword: &str) -> bool {
        self.skip_spaces();
        let rest = &self.text[self.at..];
        let alone = rest.strip_prefix(keyword).is_some_and(|rest| rest.starts_with([' ', '(', '\t']));
        alone && self.take(keyword)
    }

    fn skip_spaces(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    fn expected(&self, expected: &'static str) -> BadSelector {
        BadSelector { text: self.text.to_owned(), expected, at: self.text[..self.at].chars().count() + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_choose_by_label() {
        let labels: BTreeMap<String, String> =
            [("a", "1"), ("env", "prod eu"), ("in", "x")].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        for (text, expect) in [
            ("a", Ok(true)),
            ("b", Ok(false)),
            ("a==1", Ok(true)),
            (" a == 1 , env", Ok(true)),
            ("a!=1", Ok(false)),
            ("a!=2", Ok(true)),
            ("b!=2", Ok(false)),
            ("a in (1,2)", Ok(true)),
            ("a in(3)", Ok(false)),
            ("a notin (1, 2)", Ok(false)),
            ("b notin (1)", Ok(false)),
            (r"env==prod\ eu", Ok(true)),
            ("in", Ok(true)),
            ("in in (x)", Ok(true)),
            ("", Err("a label expected at character 1")),
            ("a==", Err("a value expected at character 4")),
            ("a=1", Err("',' expected at character 2")),
            ("a in 1", Err("'(' expected at character 6")),
            ("a in (1", Err("',' or ')' expected at character 8")),
            ("a, ,b", Err("a label expected at character 4")),
        ] {
            match (Selector::parse(text).map(|selector| selector.matches(&labels)), expect) {
                (Ok(got), Ok(expect)) => assert_eq!(got, expect, "{text}"),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{text}: {error}"),
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
    }
}
