//! Files with apps and jobs, JSON or TOML: one app or job, a list of them, or `{apps: […], jobs: […]}`. All files are read before
//! anything is sent, and all faults are told at once.

use crate::client::own_code;
use crate::exit::{Exit, Failure};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What the files hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Documents {
    /// Apps by id, absolute.
    pub(crate) apps: BTreeMap<String, Value>,
    /// Jobs, parents before their children.
    pub(crate) jobs: Vec<(String, Value)>,
}

/// Reads files, the `.json` and `.toml` files of directories, and `-` for standard input.
pub(crate) fn read(paths: &[PathBuf], recursive: bool) -> Result<Documents, Failure> {
    let mut reader = Reader::default();
    for path in paths {
        reader.path(path, recursive, true);
    }
    reader.finish()
}

#[derive(Default)]
struct Reader {
    found: Documents,
    sources: BTreeMap<String, String>,
    faults: Vec<String>,
}

impl Reader {
    fn path(&mut self, path: &Path, recursive: bool, named: bool) {
        if path.as_os_str() == "-" {
            let mut text = String::new();
            match std::io::stdin().read_to_string(&mut text) {
                Ok(_) => self.text("standard input", &text, !text.trim_start().starts_with(['{', '[']) || is_toml_table(&text)),
                Err(error) => self.faults.push(format!("standard input: {error}")),
            }
            return;
        }
        if path.is_dir() {
            if named || recursive {
                self.directory(path, recursive);
            }
            return;
        }
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if !named && !matches!(extension, "json" | "toml") {
            return;
        }
        match std::fs::read_to_string(path) {
            Ok(text) => {
                let is_toml = match extension {
                    "toml" => true,
                    "json" => false,
                    _ => !text.trim_start().starts_with(['{', '[']) || is_toml_table(&text),
                };
                self.text(&path.display().to_string(), &text, is_toml);
            }
            Err(error) => self.faults.push(format!("{}: {error}", path.display())),
        }
    }

    fn directory(&mut self, path: &Path, recursive: bool) {
        let entries = std::fs::read_dir(path)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>());
        match entries {
            Ok(mut entries) => {
                entries.sort();
                entries.iter().for_each(|entry| self.path(entry, recursive, false));
            }
            Err(error) => self.faults.push(format!("{}: {error}", path.display())),
        }
    }

    fn text(&mut self, source: &str, text: &str, is_toml: bool) {
        let value = match is_toml {
            true => {
                text.parse::<toml::Table>().map(|table| from_toml(toml::Value::Table(table))).map_err(|error| error.to_string())
            }
            false => serde_json::from_str(text).map_err(|error| error.to_string()),
        };
        match value {
            Ok(value) => self.value(source, value),
            Err(error) => {
                // TOML's messages draw the place over several lines; each becomes a line of evidence.
                self.faults.extend(error.trim_end().lines().map(|line| format!("{source}: {line}")));
            }
        }
    }

    fn value(&mut self, source: &str, value: Value) {
        match value {
            Value::Array(items) => items.into_iter().for_each(|item| self.value(source, item)),
            Value::Object(map) => self.object(source, map),
            _ => self.faults.push(format!("{source}: neither an app nor a job, but {value}")),
        }
    }

    fn object(&mut self, source: &str, mut map: Map<String, Value>) {
        let text = |key: &str| map.get(key).and_then(Value::as_str).map(str::to_owned);
        let is_job = map.contains_key("schedule") || map.contains_key("parents");
        match (text("id"), text("name")) {
            (Some(_), _) if map.contains_key("apps") || map.contains_key("groups") => {
                self.faults.push(format!("{source}: groups are not taken here; list the apps themselves"));
            }
            (Some(id), _) => {
                let id = format!("/{}", id.trim_matches('/'));
                map.insert("id".to_owned(), Value::String(id.clone()));
                if self.is_new(source, format!("app {id}")) {
                    self.found.apps.insert(id, Value::Object(map));
                }
            }
            (None, Some(name)) if is_job => {
                if self.is_new(source, format!("job {name}")) {
                    self.found.jobs.push((name, Value::Object(map)));
                }
            }
            (None, None) if map.contains_key("apps") || map.contains_key("jobs") => {
                for key in ["apps", "jobs"] {
                    if let Some(list) = map.remove(key) {
                        self.value(source, list);
                    }
                }
                self.faults
                    .extend(map.keys().map(|key| format!("{source}: {key:?} beside \"apps\" and \"jobs\" has no meaning")));
            }
            (None, Some(name)) => self
                .faults
                .push(format!("{source}: job {name:?} has neither \"schedule\" nor \"parents\"; an app has an \"id\"")),
            (None, None) => self.faults.push(format!("{source}: an app has an \"id\", a job has a \"name\"; this has neither")),
        }
    }

    fn is_new(&mut self, source: &str, what: String) -> bool {
        match self.sources.get(&what) {
            None => {
                self.sources.insert(what, source.to_owned());
                true
            }
            Some(first) => {
                self.faults.push(format!("{source}: {what} is defined in {first} already"));
                false
            }
        }
    }

    fn finish(mut self) -> Result<Documents, Failure> {
        if self.faults.is_empty() && self.found == Documents::default() {
            self.faults.push("no app and no job in them".to_owned());
        }
        match parents_first(&mut self.found.jobs) {
            Ok(()) => {}
            Err(circle) => self.faults.push(format!("jobs wait for each other in a circle: {}", circle.join(", "))),
        }
        if self.faults.is_empty() {
            return Ok(self.found);
        }
        let mut failure = Failure::new(Exit::Usage, "the files cannot be used; nothing was sent").code(own_code::BAD_FILE);
        failure.because = self.faults;
        Err(failure)
    }
}

/// `[[apps]]` begins like a JSON list and is none.
fn is_toml_table(text: &str) -> bool {
    let first = text.trim_start().lines().next().unwrap_or_default().trim_end();
    first.starts_with('[') && first.ends_with(']') && serde_json::from_str::<Value>(first).is_err()
}

/// Dates become text, as JSON has none.
fn from_toml(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(number) => Value::from(number),
        toml::Value::Float(number) => Value::from(number),
        toml::Value::Boolean(truth) => Value::Bool(truth),
        toml::Value::Datetime(at) => Value::String(at.to_string()),
        toml::Value::Array(items) => Value::Array(items.into_iter().map(from_toml).collect()),
        toml::Value::Table(table) => Value::Object(table.into_iter().map(|(key, value)| (key, from_toml(value))).collect()),
    }
}

/// Sorts so that a job comes after those of its parents that are defined here too. Otherwise the order stays.
fn parents_first(jobs: &mut Vec<(String, Value)>) -> Result<(), Vec<String>> {
    let mut rest = std::mem::take(jobs);
    while !rest.is_empty() {
        let waiting: Vec<String> = rest.iter().map(|(name, _)| name.clone()).collect();
        let (ready, later): (Vec<_>, Vec<_>) = rest.into_iter().partition(|(_, job)| {
            let parents = job.get("parents").and_then(Value::as_array).into_iter().flatten();
            !parents.filter_map(Value::as_str).any(|parent| waiting.iter().any(|name| name == parent))
        });
        if ready.is_empty() {
            return Err(waiting);
        }
        jobs.extend(ready);
        rest = later;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read_files(files: &[(&str, &str)], recursive: bool) -> Result<Documents, Failure> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        read(&[dir.path().to_owned()], recursive)
    }

    #[test]
    fn json_and_toml_say_the_same() {
        let documents = read_files(
            &[
                ("a.json", r#"{"id": "shop/web", "cmd": "run", "cpus": 0.5}"#),
                ("b.toml", "[[apps]]\nid = \"/b\"\ncmd = \"run\"\nenv = { A = \"1\" }\n[[jobs]]\nname = \"etl\"\nschedule = \"R/2026-01-01T00:00:00Z/P1D\"\n"),
                ("c.json", r#"[{"id": "/c"}, {"name": "report", "parents": ["etl"]}]"#),
                ("notes.txt", "not read"),
                ("deeper/d.json", r#"{"id": "/d"}"#),
            ],
            false,
        )
        .unwrap();
        assert_eq!(documents.apps.keys().collect::<Vec<_>>(), ["/b", "/c", "/shop/web"]);
        assert_eq!(documents.apps["/b"], json!({"id": "/b", "cmd": "run", "env": {"A": "1"}}));
        assert_eq!(documents.apps["/shop/web"]["id"], json!("/shop/web"));
        assert_eq!(documents.jobs.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["etl", "report"]);
        assert!(read_files(&[("deeper/d.json", r#"{"id": "/d"}"#)], true).unwrap().apps.contains_key("/d"));
    }

    #[test]
    fn parents_are_sent_before_their_children() {
        let job = |name: &str, parents: &[&str]| (name.to_owned(), json!({"name": name, "parents": parents}));
        let mut jobs = vec![job("c", &["b", "elsewhere"]), job("b", &["a"]), job("a", &[])];
        assert_eq!(parents_first(&mut jobs), Ok(()));
        assert_eq!(jobs.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert!(parents_first(&mut vec![job("a", &["b"]), job("b", &["a"])]).is_err());
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let failure = read_files(
            &[
                ("a.json", r#"{"id": "/a"}"#),
                ("b.json", r#"[{"id": "a"}, {"cmd": "x"}, 7]"#),
                ("c.toml", "id = \n"),
                ("d.json", r#"{"name": "j"}"#),
                ("e.json", r#"{"apps": [], "job": []}"#),
            ],
            false,
        )
        .unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        let text = failure.because.join("\n");
        for part in ["app /a is defined in", "neither", "but 7", "c.toml: ", "neither \"schedule\" nor", "\"job\" beside"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(read_files(&[("notes.txt", "")], false).unwrap_err().because[0].contains("no app and no job"));
    }

    #[test]
    fn what_looks_like_json_may_be_toml() {
        assert!(is_toml_table("\n[[apps]]\nid = \"/a\""));
        assert!(is_toml_table("[env]\nA = 1"));
        assert!(!is_toml_table("[{\"id\": \"/a\"}]"));
        assert!(!is_toml_table("[]"));
    }
}
