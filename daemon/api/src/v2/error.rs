//! What this API says when it cannot do what it was asked.

use drover_core::ids::DeploymentId;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Everything wrong with a document: per path, every rule it breaks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults(BTreeMap<String, Vec<String>>);

impl Faults {
    /// Adds one. The path of the document itself is empty.
    pub fn push(&mut self, path: &str, why: impl Into<String>) {
        let path = if path.is_empty() { "/" } else { path };
        self.0.entry(path.to_owned()).or_default().push(why.into());
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As an error of status 422, unless nothing is wrong.
    ///
    /// # Errors
    /// These faults, if there are any.
    pub fn check(self) -> Result<(), Error> {
        if self.is_empty() { Ok(()) } else { Err(Error::Invalid(self)) }
    }

    fn details(&self) -> Value {
        self.0.iter().map(|(path, errors)| json!({ "path": path, "errors": errors })).collect()
    }
}

/// A refusal, in Marathon's shape.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The body is not JSON: what the parser says.
    #[error("Invalid JSON")]
    NotJson(String),
    /// The body is JSON, but not of the kind that belongs there.
    #[error("Invalid JSON")]
    WrongShape(Faults),
    /// The request makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// The document breaks rules.
    #[error("Object is not valid")]
    Invalid(Faults),
    /// A limit of this cluster is reached.
    #[error("{0}")]
    LimitReached(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The path is right, the method is not; what to do instead.
    #[error("{0}")]
    MethodNotAllowed(String),
    /// There is one already.
    #[error("{0}")]
    Exists(String),
    /// Deployments hold what should change.
    #[error(
        "App is locked by one or more deployments. Override with the option '?force=true'. \
         View details at '/v2/deployments/<DEPLOYMENT_ID>'."
    )]
    Locked(Vec<DeploymentId>),
    /// Others changed the same things again and again while this was tried.
    #[error("The apps were changed by others at the same time. Try again.")]
    Contended,
}

impl Error {
    /// The HTTP status. Never 5xx: clients take that for a dead master.
    pub fn status(&self) -> u16 {
        match self {
            Self::NotJson(_) | Self::WrongShape(_) | Self::BadRequest(_) => 400,
            Self::LimitReached(_) => 403,
            Self::NotFound(_) => 404,
            Self::MethodNotAllowed(_) => 405,
            Self::Exists(_) | Self::Locked(_) | Self::Contended => 409,
            Self::Invalid(_) => 422,
        }
    }

    /// The body.
    pub fn body(&self) -> Value {
        let message = self.to_string();
        match self {
            Self::NotJson(details) => json!({ "message": message, "details": details }),
            Self::WrongShape(faults) | Self::Invalid(faults) => json!({ "message": message, "details": faults.details() }),
            Self::Locked(ids) => {
                let deployments: Vec<Value> = ids.iter().map(|id| json!({ "id": id })).collect();
                json!({ "message": message, "deployments": deployments })
            }
            _ => json!({ "message": message }),
        }
    }
}
