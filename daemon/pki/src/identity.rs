//! What a node is: on disk (`identity.json`) and as its peer sees it (the certificate).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What a node does in the cluster. One machine may hold both, each with a certificate of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Replicates the state, decides when it leads, serves the HTTP API.
    Master,
    /// Runs tasks.
    Agent,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Master => "master",
            Role::Agent => "agent",
        })
    }
}

/// A word that is no [`Role`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a role: say master or agent")]
pub struct UnknownRole(String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "master" => Ok(Role::Master),
            "agent" => Ok(Role::Agent),
            other => Err(UnknownRole(other.to_owned())),
        }
    }
}

/// The content of `identity.json`: who this node is, and whom it may call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The shape of this file; see [`Identity::FORMAT`].
    pub format: u32,
    /// The cluster, the same on every node of it.
    pub cluster: Uuid,
    /// What this node is there.
    pub role: Role,
    /// Never reused: a decimal number for a master (its Raft node id), a UUID for an agent.
    pub id: String,
    /// The node's name, unique among the cluster's masters and among its agents.
    pub name: String,
    /// Where masters and agents reach this node (`host:port`); only masters have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// Masters known when the file was written (`host:port`); enough to find the others.
    #[serde(default)]
    pub peers: Vec<String>,
    /// This master made the cluster, and starts it alone the first time it runs.
    #[serde(default)]
    pub founder: bool,
    /// A Raft log was made for this identity. If the log is missing later, it is lost, and so is the identity.
    #[serde(default)]
    pub started: bool,
}

impl Identity {
    /// The newest shape of `identity.json` that this version reads and the one it writes.
    pub const FORMAT: u32 = 1;

    /// The Raft node id of a master's identity.
    pub fn master_id(&self) -> Option<u64> {
        master_id(self.role, &self.id)
    }

    /// What this node's certificate says about it.
    pub fn peer(&self) -> PeerIdentity {
        PeerIdentity { cluster: self.cluster, role: self.role, id: self.id.clone(), name: self.name.clone() }
    }
}

/// What a verified certificate says about the peer at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The cluster it belongs to.
    pub cluster: Uuid,
    /// What it is there.
    pub role: Role,
    /// Its id, as in [`Identity::id`].
    pub id: String,
    /// Its name.
    pub name: String,
}

/// Why a certificate says nothing about who its holder is.
#[derive(Debug, thiserror::Error)]
pub enum NotAPeer {
    /// Not a certificate at all.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// No URI of ours among its names.
    #[error("the certificate names no drover:// identity")]
    NoUri,
    /// A URI of ours that does not parse.
    #[error("the certificate's identity {0:?} is malformed")]
    BadUri(String),
}

impl PeerIdentity {
    /// The Raft node id, if the peer is a master.
    pub fn master_id(&self) -> Option<u64> {
        master_id(self.role, &self.id)
    }

    /// The URI that stands in the certificate.
    pub fn uri(&self) -> String {
        format!("drover://{}/{}/{}", self.cluster, self.role, self.id)
    }

    /// Reads the identity out of a certificate in DER. Does not verify anything.
    pub fn from_certificate(der: &[u8]) -> Result<Self, NotAPeer> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| NotAPeer::Unreadable)?;
        let names = certificate.subject_alternative_name().map_err(|_| NotAPeer::Unreadable)?;
        let uri = names
            .iter()
            .flat_map(|names| &names.value.general_names)
            .find_map(|name| match name {
                GeneralName::URI(uri) if uri.starts_with("drover://") => Some(*uri),
                _ => None,
            })
            .ok_or(NotAPeer::NoUri)?;
        let name = certificate.subject().iter_common_name().find_map(|name| name.as_str().ok()).unwrap_or_default();
        Self::parse(uri, name).ok_or_else(|| NotAPeer::BadUri(uri.to_owned()))
    }

    fn parse(uri: &str, name: &str) -> Option<Self> {
        let mut parts = uri.strip_prefix("drover://")?.split('/');
        let peer = PeerIdentity {
            cluster: parts.next()?.parse().ok()?,
            role: parts.next()?.parse().ok()?,
            id: parts.next().filter(|id| !id.is_empty())?.to_owned(),
            name: name.to_owned(),
        };
        let well_formed = parts.next().is_none() && (peer.role == Role::Agent || peer.master_id().is_some());
        well_formed.then_some(peer)
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.role, self.name, self.id)
    }
}

fn master_id(role: Role, id: &str) -> Option<u64> {
    (role == Role::Master).then(|| id.parse().ok()).flatten()
}

/// A node name that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} cannot be a node's name: use 1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit")]
pub struct BadName {
    name: String,
}

/// Accepts the names that fit into a certificate, a path and a host name alike.
pub fn check_name(name: &str) -> Result<(), BadName> {
    let fits = (1..=63).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    if fits { Ok(()) } else { Err(BadName { name: name.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_reads_back_as_what_was_written() {
        let peer =
            PeerIdentity { cluster: Uuid::from_u128(7), role: Role::Master, id: "9007199254740991".into(), name: "n1".into() };
        assert_eq!(PeerIdentity::parse(&peer.uri(), "n1"), Some(peer));
    }

    #[test]
    fn malformed_uris_are_nobody() {
        let cluster = Uuid::from_u128(7);
        for uri in [
            "https://example.org/".to_owned(),
            format!("drover://{cluster}/master"),
            format!("drover://{cluster}/master/"),
            format!("drover://{cluster}/master/not-a-number"),
            format!("drover://{cluster}/king/1"),
            format!("drover://{cluster}/master/1/2"),
            "drover://nowhere/master/1".to_owned(),
        ] {
            assert_eq!(PeerIdentity::parse(&uri, "x"), None, "{uri}");
        }
    }

    /// What format 1 looks like on disk. A change here is a change of the format: add to it, never edit.
    #[test]
    fn an_identity_of_format_1_is_read() {
        let text = r#"{"format":1,"cluster":"00000000-0000-0000-0000-000000000007","role":"master","id":"42","name":"n1","advertise":"n1:7071","peers":["n1:7071"],"founder":true,"started":false}"#;
        let identity: Identity = serde_json::from_str(text).unwrap();
        assert_eq!(identity.master_id(), Some(42));
        assert_eq!(serde_json::to_string(&identity).unwrap(), text);
    }

    #[test]
    fn names() {
        for good in ["n1", "web-3.example.org", "A_b", &"x".repeat(63)] {
            assert_eq!(check_name(good), Ok(()));
        }
        for bad in ["", "-n", ".", "a b", "a/b", "ä", &"x".repeat(64)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }
}
