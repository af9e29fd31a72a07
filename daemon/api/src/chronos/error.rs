//! What this API says when it cannot do what it was asked: Chronos' two keys and status codes, a sentence where Chronos has a
//! stack trace, and every fault by its path.

use drover_core::job_change::Refused;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Everything wrong with a document: per path, every rule it breaks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults(BTreeMap<String, Vec<String>>);

impl Faults {
    /// Adds one.
    pub fn push(&mut self, path: &str, why: impl Into<String>) {
        self.0.entry(path.to_owned()).or_default().push(why.into());
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The body is not a JSON object: what the parser says.
    #[error("the body must be a JSON object: {0}")]
    NotJson(String),
    /// The job breaks rules.
    #[error("{}", sentence(.0))]
    Invalid(Faults),
    /// The request makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// There is no such path.
    #[error("{0}")]
    NoSuchPath(String),
    /// The path is right, the method is not.
    #[error("{0}")]
    MethodNotAllowed(String),
    /// It cannot be done to the job as it is.
    #[error("{0}")]
    Conflict(String),
    /// A limit of this cluster is reached.
    #[error("{0}")]
    LimitReached(String),
    /// The masters cannot answer for it now.
    #[error("{0}")]
    Unavailable(String),
}

fn sentence(faults: &Faults) -> String {
    let all = faults.0.iter().flat_map(|(path, whys)| whys.iter().map(move |why| format!("{path}: {why}")));
    all.collect::<Vec<_>>().join("; ")
}

impl Error {
    /// The HTTP status. An unknown job is 400, as in Chronos.
    pub fn status(&self) -> u16 {
        match self {
            Self::NotJson(_) | Self::Invalid(_) | Self::BadRequest(_) => 400,
            Self::LimitReached(_) => 403,
            Self::NoSuchPath(_) => 404,
            Self::MethodNotAllowed(_) => 405,
            Self::Conflict(_) => 409,
            Self::Unavailable(_) => 503,
        }
    }

    /// The body; `reason` is the status in words.
    pub fn body(&self, reason: &str) -> Value {
        let mut body = json!({ "message": self.to_string(), "status": reason });
        if let Self::Invalid(faults) = self {
            body["details"] = faults.0.iter().map(|(path, errors)| json!({ "path": path, "errors": errors })).collect();
        }
        body
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        let said = refused.to_string();
        match refused {
            Refused::Unknown(_) => Self::BadRequest(said),
            Refused::TooMany(_) => Self::LimitReached(said),
            Refused::Cycle(_) => Self::at("/parents", said),
            Refused::UnknownParents(_) => Self::at("/parents", format!("{said}; define them first")),
            Refused::HasChildren { .. } => Self::Conflict(format!(
                "{said}; say what becomes of them: ?children=inherit gives them its schedule (what Chronos does), \
                 ?children=detach lets them depend on their other parents only"
            )),
            Refused::OnlyParent { .. } => Self::Conflict(format!(
                "{said}; redefine or delete those first, or give them its schedule by ?children=inherit"
            )),
        }
    }
}

impl Error {
    fn at(path: &str, why: String) -> Self {
        let mut faults = Faults::default();
        faults.push(path, why);
        Self::Invalid(faults)
    }
}
