//! How a machine becomes a node: `POST /join/v1` to any master, with a token and a signing request.
//!
//! ```text
//! new machine                                  master (forwards to the leader)
//!   makes a key
//!   TLS, pinned to the token's fingerprint ───►
//!   {token, role, name, hosts, csr}        ───►  uses the token up, in the replicated log
//!                                          ◄───  {ca, certificate, identity, caKey for masters}
//!   writes <data dir>/<role>/pki
//! ```

use std::path::Path;

use hyper::{Request, StatusCode};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use crate::authority::{self, AuthorityError};
use crate::client::{self, ClientError, ClusterClient};
use crate::directory::{self, Content};
use crate::identity::{self, Identity, Role};
use crate::{Credentials, JoinToken};

/// Where a master takes joining nodes.
pub const JOIN_PATH: &str = "/join/v1";

/// Where a node with a certificate gets a newer one.
pub const RENEW_PATH: &str = "/renew/v1";

const ANSWER_LIMIT: usize = 64 * 1024;

/// What a joining node asks.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JoinRequest {
    /// The token in clear.
    pub token: String,
    /// What it wants to be.
    pub role: Role,
    /// What it calls itself.
    pub name: String,
    /// Further names and addresses for its certificate.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Where a master will be reached; masters only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// The signing request, PEM.
    pub csr: String,
}

/// What it gets.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinResponse {
    /// The authority's certificate, PEM.
    pub ca: String,
    /// The node's certificate, PEM.
    pub certificate: String,
    /// The node's identity.
    pub identity: Identity,
    /// The authority's key, PEM; masters only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_key: Option<String>,
}

/// What a node asks that wants its certificate renewed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RenewRequest {
    /// Further names and addresses for its certificate.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// The signing request, PEM.
    pub csr: String,
}

/// What it gets.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RenewResponse {
    /// The node's new certificate, PEM.
    pub certificate: String,
}

/// Why a machine did not become a node.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The identity could not be written, or is there already.
    #[error(transparent)]
    Directory(#[from] directory::Error),
    /// The name cannot be used.
    #[error(transparent)]
    Name(#[from] identity::BadName),
    /// The key could not be made.
    #[error(transparent)]
    Key(#[from] AuthorityError),
    /// The master could not be asked.
    #[error("the master could not be asked")]
    Client(#[from] ClientError),
    /// The master said no.
    #[error("the master refused: {0}")]
    Refused(String),
    /// The master's answer makes no sense.
    #[error("the master's answer makes no sense: {0}")]
    Nonsense(String),
}

/// What a machine wants to become, and where.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// Where its identity is to be written.
    pub data_dir: &'a Path,
    /// What it wants to be.
    pub role: Role,
    /// What it is called.
    pub name: &'a str,
    /// Where a master will be reached (`host:port`).
    pub advertise: Option<&'a str>,
}

/// Joins this machine to the cluster of a token through any of its masters, and writes its identity.
pub async fn join(token: &JoinToken, master: &str, wish: Wish<'_>) -> Result<Identity, JoinError> {
    identity::check_name(wish.name)?;
    let dir = directory::pki_dir(wish.data_dir, wish.role);
    if dir.exists() {
        return Err(directory::Error::Exists { dir }.into());
    }
    let (key_pem, csr) = authority::signing_request()?;
    let request = JoinRequest {
        token: token.to_string(),
        role: wish.role,
        name: wish.name.to_owned(),
        hosts: wish.advertise.and_then(directory::host_of).into_iter().collect(),
        advertise: wish.advertise.map(str::to_owned),
        csr,
    };
    let answer: JoinResponse = post(&ClusterClient::joining(token, master), JOIN_PATH, &request).await?;

    let authority = CertificateDer::from_pem_slice(answer.ca.as_bytes())
        .map_err(|_| JoinError::Nonsense("no certificate of an authority in it".to_owned()))?;
    if !token.names_authority(&authority) {
        return Err(JoinError::Nonsense("its authority is not the one the token names".to_owned()));
    }
    let mut identity = answer.identity;
    if identity.role != wish.role || identity.name != wish.name {
        return Err(JoinError::Nonsense(format!("it is for {}", identity.peer())));
    }
    // The address that worked from here comes first among those to try again.
    identity.peers.retain(|peer| peer != master);
    identity.peers.insert(0, master.to_owned());
    directory::create(
        wish.data_dir,
        &Content {
            identity: &identity,
            authority_pem: &answer.ca,
            authority_key_pem: answer.ca_key.as_deref(),
            certificate_pem: &answer.certificate,
            key_pem: &key_pem,
        },
    )?;
    // What was written is what will be loaded at the next start: find out now whether it can be.
    Ok(Credentials::load(wish.data_dir, wish.role)?.identity)
}

/// Gets this node a newer certificate (with a new key) from a master, and writes it.
pub async fn renew(credentials: &Credentials, client: &ClusterClient) -> Result<Credentials, JoinError> {
    let (key_pem, csr) = authority::signing_request()?;
    let hosts = credentials.identity.advertise.as_deref().and_then(directory::host_of).into_iter().collect();
    let answer: RenewResponse = post(client, RENEW_PATH, &RenewRequest { hosts, csr }).await?;
    Ok(credentials.replace_certificate(&answer.certificate, &key_pem)?)
}

async fn post<A: for<'a> Deserialize<'a>>(
    client: &ClusterClient,
    path: &str,
    request: &impl Serialize,
) -> Result<A, JoinError> {
    let body = serde_json::to_vec(request).expect("requests are plain data");
    let request = Request::post(path)
        .header("content-type", "application/json")
        .body(client::full(body))
        .expect("a constant path makes a request");
    let answer = client.call(request, ANSWER_LIMIT).await?;
    if answer.status() != StatusCode::OK {
        return Err(JoinError::Refused(explanation(answer.status(), answer.body())));
    }
    serde_json::from_slice(answer.body()).map_err(|error| JoinError::Nonsense(error.to_string()))
}

/// What a refusal says: drover's problem documents name an error, its cause and a remedy.
fn explanation(status: StatusCode, body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Problem {
        error: String,
        because: Option<String>,
        r#try: Option<String>,
    }
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => {
            let mut text = problem.error;
            if let Some(because) = problem.because {
                text.push_str(", because ");
                text.push_str(&because);
            }
            if let Some(remedy) = problem.r#try {
                text.push_str("; ");
                text.push_str(&remedy);
            }
            text
        }
        Err(_) => format!("HTTP status {status}"),
    }
}
