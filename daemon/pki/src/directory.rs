//! A node's identity on disk: `<data dir>/<role>/pki`.
//!
//! ```text
//! ca.pem         the authority's certificate
//! ca.key         the authority's key            (masters only)
//! node.pem       this node's certificate
//! node.key       this node's key
//! identity.json  who this node is, and whom it may call
//! ```
//!
//! Directories are 0700 and files 0600. A directory is written under another name and renamed, so that it is
//! there whole or not at all; what is there is checked whole when it is loaded: files that do not belong
//! together are refused rather than used.

use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use uuid::Uuid;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::authority::{self, AuthorityError};
use crate::identity::{self, Identity, PeerIdentity, Role};
use crate::{Authority, files, random_master_id};

const AUTHORITY_CERTIFICATE: &str = "ca.pem";
const AUTHORITY_KEY: &str = "ca.key";
const NODE_CERTIFICATE: &str = "node.pem";
const NODE_KEY: &str = "node.key";
const IDENTITY: &str = "identity.json";

/// Why a node's identity could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing there.
    #[error("this node has no identity in {dir}: `drover cluster init` makes a new cluster, `drover node join` enters one")]
    Missing {
        /// Where it would be.
        dir: PathBuf,
    },
    /// Something is there already.
    #[error("{dir} already holds an identity: to give this node a new one, stop droverd and remove that directory first")]
    Exists {
        /// Where it is.
        dir: PathBuf,
    },
    /// A file that is none of ours, or broken.
    #[error("{path} is damaged ({what}): restore it from a backup, or remove {dir} and let this node join again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Its directory.
        dir: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Written by a later version.
    #[error(
        "{path} has format {found} and this version knows formats up to {}: install the version of drover that wrote it",
        Identity::FORMAT
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// An identity of another kind.
    #[error(
        "the identity in {dir} has the role {found}, not {wanted}: correct `data_dir`, or move the directory to where it belongs"
    )]
    WrongRole {
        /// The directory.
        dir: PathBuf,
        /// The role of its identity.
        found: Role,
        /// The role asked for.
        wanted: Role,
    },
    /// The certificate's time has not come or is over.
    #[error(
        "the certificate {path} is not valid now: correct this machine's clock; if it is right, remove {dir} and let this node join again"
    )]
    NotValidNow {
        /// The certificate.
        path: PathBuf,
        /// Its directory.
        dir: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A name that cannot be used.
    #[error(transparent)]
    Name(#[from] identity::BadName),
    /// The authority refused.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// A node's identity with what proves it: everything in the directory, read and checked.
#[derive(Clone)]
pub struct Credentials {
    /// Who this node is.
    pub identity: Identity,
    pub(crate) authority: CertificateDer<'static>,
    pub(crate) key: Arc<CertifiedKey>,
    not_after: SystemTime,
    dir: PathBuf,
}

/// What becomes the files of a directory.
pub(crate) struct Content<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) authority_pem: &'a str,
    pub(crate) authority_key_pem: Option<&'a str>,
    pub(crate) certificate_pem: &'a str,
    pub(crate) key_pem: &'a str,
}

/// Where the identity of a role lies under a data directory.
pub fn pki_dir(data_dir: &Path, role: Role) -> PathBuf {
    data_dir.join(role.to_string()).join("pki")
}

/// Whether there is an identity (whole or broken) for a role under a data directory.
pub fn exists(data_dir: &Path, role: Role) -> bool {
    pki_dir(data_dir, role).join(IDENTITY).exists()
}

/// Makes a cluster: an authority, this machine's identity as its first master and, if asked, as an agent.
///
/// Refuses if there is an identity of either kind already.
pub fn init_cluster(data_dir: &Path, name: &str, advertise: &str, with_agent: bool) -> Result<Identity, Error> {
    identity::check_name(name)?;
    for role in [Role::Master, Role::Agent] {
        let dir = pki_dir(data_dir, role);
        if dir.exists() {
            return Err(Error::Exists { dir });
        }
    }
    let cluster = Uuid::new_v4();
    let authority = Authority::generate(cluster)?;
    let master = Identity {
        format: Identity::FORMAT,
        cluster,
        role: Role::Master,
        id: random_master_id().to_string(),
        name: name.to_owned(),
        advertise: Some(advertise.to_owned()),
        peers: vec![advertise.to_owned()],
        founder: true,
        started: false,
    };
    if with_agent {
        // The agent first: a cluster is there as soon as its master is, and `init` can be repeated until then.
        let agent =
            Identity { role: Role::Agent, id: Uuid::new_v4().to_string(), advertise: None, founder: false, ..master.clone() };
        issue_into(data_dir, &authority, &agent)?;
    }
    issue_into(data_dir, &authority, &master)?;
    Ok(master)
}

fn issue_into(data_dir: &Path, authority: &Authority, identity: &Identity) -> Result<(), Error> {
    let hosts: Vec<String> = identity.advertise.as_deref().and_then(host_of).into_iter().collect();
    let (certificate_pem, key_pem) = authority.issue(&identity.peer(), &hosts)?;
    let authority_key_pem = (identity.role == Role::Master).then(|| authority.key_pem());
    create(
        data_dir,
        &Content {
            identity,
            authority_pem: authority.certificate_pem(),
            authority_key_pem: authority_key_pem.as_deref(),
            certificate_pem: &certificate_pem,
            key_pem: &key_pem,
        },
    )
}

/// The host of `host:port`, without the brackets of an IPv6 address.
pub fn host_of(address: &str) -> Option<String> {
    let (host, _port) = address.rsplit_once(':')?;
    Some(host.trim_start_matches('[').trim_end_matches(']').to_owned()).filter(|host| !host.is_empty())
}

/// Writes an identity where there is none.
pub(crate) fn create(data_dir: &Path, content: &Content<'_>) -> Result<(), Error> {
    let dir = pki_dir(data_dir, content.identity.role);
    if dir.exists() {
        return Err(Error::Exists { dir });
    }
    let staging = dir.with_extension("new");
    let failed = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { doing, path, source }
    };
    match std::fs::remove_dir_all(&staging) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &staging)(error)),
        _ => files::create_dir(&staging).map_err(failed("make the directory", &staging))?,
    }
    let identity = render_identity(content.identity);
    let mut parts = vec![
        (AUTHORITY_CERTIFICATE, content.authority_pem),
        (NODE_CERTIFICATE, content.certificate_pem),
        (NODE_KEY, content.key_pem),
        (IDENTITY, identity.as_str()),
    ];
    parts.extend(content.authority_key_pem.map(|key| (AUTHORITY_KEY, key)));
    for (name, text) in parts {
        let path = staging.join(name);
        files::write_atomically(&path, text.as_bytes()).map_err(failed("write", &path))?;
    }
    hand_over(&staging).map_err(failed("hand over", &staging))?;
    std::fs::rename(&staging, &dir).and_then(|()| files::sync_parent(&dir)).map_err(failed("move the new identity to", &dir))
}

/// Gives a directory and its files to whoever owns the one above. Root writes the identity of a daemon that has a user of its
/// own: systemd hands a state directory over when it makes it, and not again when a later identity is written into it.
fn hand_over(dir: &Path) -> io::Result<()> {
    let above = std::fs::metadata(dir.parent().expect("an identity lies in its role's directory"))?;
    if above.uid() == std::fs::metadata(dir)?.uid() {
        return Ok(());
    }
    for file in std::fs::read_dir(dir)? {
        chown(file?.path(), Some(above.uid()), Some(above.gid()))?;
    }
    chown(dir, Some(above.uid()), Some(above.gid()))
}

fn render_identity(identity: &Identity) -> String {
    let mut text = serde_json::to_string_pretty(identity).expect("an identity is plain data");
    text.push('\n');
    text
}

impl Credentials {
    /// Reads and checks the identity of a role under a data directory.
    pub fn load(data_dir: &Path, role: Role) -> Result<Self, Error> {
        crate::install_crypto_provider();
        let dir = pki_dir(data_dir, role);
        if !dir.exists() {
            return Err(Error::Missing { dir });
        }
        let identity = read_identity(&dir)?;
        if identity.role != role {
            return Err(Error::WrongRole { dir, found: identity.role, wanted: role });
        }
        let damaged = |name: &str, what: &str| Error::Damaged { path: dir.join(name), dir: dir.clone(), what: what.to_owned() };
        let certificate = |name: &str| {
            CertificateDer::from_pem_slice(read(&dir, name)?.as_bytes()).map_err(|_| damaged(name, "no certificate in it"))
        };
        let authority = certificate(AUTHORITY_CERTIFICATE)?;
        let own = certificate(NODE_CERTIFICATE)?;
        let key = PrivateKeyDer::from_pem_slice(read(&dir, NODE_KEY)?.as_bytes())
            .map_err(|_| damaged(NODE_KEY, "no private key in it"))?;

        if authority::cluster_of(&authority) != Some(identity.cluster) {
            return Err(damaged(AUTHORITY_CERTIFICATE, "it is not the authority of this node's cluster"));
        }
        match PeerIdentity::from_certificate(&own) {
            Ok(peer) if peer == identity.peer() => {}
            Ok(peer) => {
                let what = format!("it certifies {peer}, and {IDENTITY} says {}", identity.peer());
                return Err(damaged(NODE_CERTIFICATE, &what));
            }
            Err(error) => return Err(damaged(NODE_CERTIFICATE, &error.to_string())),
        }
        let not_after = check_signature_and_time(&authority, &own, &dir)?;
        let provider = rustls::crypto::ring::default_provider();
        // The authority's certificate goes along, for peers that know only its fingerprint.
        let key = CertifiedKey::from_der(vec![own, authority.clone()], key, &provider)
            .map_err(|_| damaged(NODE_KEY, "it does not belong to the certificate"))?;
        Ok(Self { identity, authority, key: Arc::new(key), not_after, dir })
    }

    /// The directory this was read from.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The authority, on a master.
    pub fn load_authority(&self) -> Result<Authority, Error> {
        let authority = Authority::from_pem(&read(&self.dir, AUTHORITY_CERTIFICATE)?, &read(&self.dir, AUTHORITY_KEY)?);
        authority.map_err(|error| Error::Damaged {
            path: self.dir.join(AUTHORITY_KEY),
            dir: self.dir.clone(),
            what: error.to_string(),
        })
    }

    /// The authority's certificate.
    pub fn authority(&self) -> &CertificateDer<'static> {
        &self.authority
    }

    /// The authority's certificate as it stands in `ca.pem`.
    pub fn authority_pem(&self) -> Result<String, Error> {
        read(&self.dir, AUTHORITY_CERTIFICATE)
    }

    /// Whether it is time to ask for a new certificate.
    pub fn is_renewal_due(&self) -> bool {
        self.not_after.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO) < authority::RENEW_BELOW
    }

    /// Gives a master, which holds the authority's key, a newer certificate if it is time for one.
    pub fn renewed_by_itself(self) -> Result<Self, Error> {
        if !self.is_renewal_due() {
            return Ok(self);
        }
        let hosts: Vec<String> = self.identity.advertise.as_deref().and_then(host_of).into_iter().collect();
        let (certificate_pem, key_pem) = self.load_authority()?.issue(&self.identity.peer(), &hosts)?;
        tracing::info!(name = %self.identity.name, "this master renewed its certificate");
        self.replace_certificate(&certificate_pem, &key_pem)
    }

    /// Replaces this node's key and certificate by newer ones for the same identity.
    ///
    /// The old certificate stays valid until its time is over. A crash between the two files leaves a pair that
    /// does not match and is refused as damaged; it is the one moment this directory is not changed atomically.
    pub fn replace_certificate(&self, certificate_pem: &str, key_pem: &str) -> Result<Self, Error> {
        for (name, text) in [(NODE_KEY, key_pem), (NODE_CERTIFICATE, certificate_pem)] {
            let path = self.dir.join(name);
            files::write_atomically(&path, text.as_bytes()).map_err(|source| Error::Io { doing: "write", path, source })?;
        }
        let data_dir = self.dir.parent().and_then(Path::parent).expect("a pki directory has its role's above it");
        Self::load(data_dir, self.identity.role)
    }

    /// Changes `identity.json`, for good before it returns.
    pub fn update_identity(&mut self, change: impl FnOnce(&mut Identity)) -> Result<(), Error> {
        let mut identity = self.identity.clone();
        change(&mut identity);
        if identity != self.identity {
            let path = self.dir.join(IDENTITY);
            files::write_atomically(&path, render_identity(&identity).as_bytes()).map_err(|source| Error::Io {
                doing: "write",
                path,
                source,
            })?;
            self.identity = identity;
        }
        Ok(())
    }
}

/// Shows who it is and no key.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("identity", &self.identity).finish_non_exhaustive()
    }
}

fn read(dir: &Path, name: &str) -> Result<String, Error> {
    let path = dir.join(name);
    std::fs::read_to_string(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Error::Damaged { path, dir: dir.to_owned(), what: "the file is missing".to_owned() },
        io::ErrorKind::InvalidData => Error::Damaged { path, dir: dir.to_owned(), what: "it is not text".to_owned() },
        _ => Error::Io { doing: "read", path, source },
    })
}

fn read_identity(dir: &Path) -> Result<Identity, Error> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let text = read(dir, IDENTITY)?;
    let path = dir.join(IDENTITY);
    let damaged =
        |error: serde_json::Error| Error::Damaged { path: path.clone(), dir: dir.to_owned(), what: error.to_string() };
    // The format first: a later one need not have the fields of this one.
    let Format { format } = serde_json::from_str(&text).map_err(damaged)?;
    if format > Identity::FORMAT {
        return Err(Error::Newer { path: path.clone(), found: format });
    }
    let identity: Identity = serde_json::from_str(&text).map_err(damaged)?;
    if identity.role == Role::Master && identity.master_id().is_none() {
        return Err(Error::Damaged { path: path.clone(), dir: dir.to_owned(), what: "a master's id is a number".to_owned() });
    }
    Ok(identity)
}

/// Checks a certificate against its authority and the clock. Returns when it ends.
fn check_signature_and_time(authority: &[u8], own: &[u8], dir: &Path) -> Result<SystemTime, Error> {
    let path = dir.join(NODE_CERTIFICATE);
    let read = |der| X509Certificate::from_der(der).map(|(_, certificate)| certificate).ok();
    let damaged = |what: &str| Error::Damaged { path: path.clone(), dir: dir.to_owned(), what: what.to_owned() };
    let (Some(authority), Some(own)) = (read(authority), read(own)) else {
        return Err(damaged("it cannot be read"));
    };
    own.verify_signature(Some(authority.public_key())).map_err(|_| damaged("another authority signed it"))?;
    if !own.validity().is_valid() {
        return Err(Error::NotValidNow { path: path.clone(), dir: dir.to_owned() });
    }
    let seconds = u64::try_from(own.validity().not_after.timestamp()).unwrap_or(0);
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn cluster() -> tempfile::TempDir {
        let data_dir = tempfile::tempdir().unwrap();
        init_cluster(data_dir.path(), "n1", "n1:7071", true).unwrap();
        data_dir
    }

    #[test]
    fn a_new_cluster_loads_and_is_private() {
        let data_dir = cluster();
        let master = Credentials::load(data_dir.path(), Role::Master).unwrap();
        let agent = Credentials::load(data_dir.path(), Role::Agent).unwrap();
        assert!(master.identity.founder && master.identity.master_id().is_some());
        assert!(!agent.identity.founder && agent.identity.master_id().is_none());
        assert_eq!(master.identity.cluster, agent.identity.cluster);
        assert_eq!(agent.identity.peers, ["n1:7071"]);
        assert_eq!(master.load_authority().unwrap().cluster(), master.identity.cluster);
        assert!(!agent.dir().join("ca.key").exists());
        assert!(!master.is_renewal_due());
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(master.dir()), 0o700);
        for entry in std::fs::read_dir(master.dir()).unwrap() {
            assert_eq!(mode(&entry.unwrap().path()), 0o600);
        }
    }

    #[test]
    fn a_second_cluster_in_the_same_place_is_refused() {
        let data_dir = cluster();
        let before = Credentials::load(data_dir.path(), Role::Master).unwrap().identity;
        assert!(matches!(init_cluster(data_dir.path(), "n2", "n2:7071", false), Err(Error::Exists { .. })));
        assert_eq!(Credentials::load(data_dir.path(), Role::Master).unwrap().identity, before);
    }

    #[test]
    fn nothing_there_says_what_to_do() {
        let data_dir = tempfile::tempdir().unwrap();
        let error = Credentials::load(data_dir.path(), Role::Agent).unwrap_err();
        assert!(error.to_string().contains("drover node join"), "{error}");
    }

    /// What somebody did to the directory, and what loading it must say.
    fn check_refused(damage: impl FnOnce(&Path), expected: &str) {
        let data_dir = cluster();
        damage(&pki_dir(data_dir.path(), Role::Master));
        let error = Credentials::load(data_dir.path(), Role::Master).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let other = cluster();
        let other = |name: &str| pki_dir(other.path(), Role::Master).join(name);
        let copy = |name: &'static str| {
            let from = other(name);
            move |dir: &Path| {
                std::fs::copy(from, dir.join(name)).unwrap();
            }
        };
        check_refused(copy("ca.pem"), "not the authority");
        check_refused(copy("node.pem"), "it certifies");
        check_refused(copy("node.key"), "does not belong to the certificate");
        check_refused(|dir| std::fs::remove_file(dir.join("node.key")).unwrap(), "missing");
        check_refused(|dir| std::fs::write(dir.join("identity.json"), "{").unwrap(), "damaged");
        check_refused(|dir| std::fs::write(dir.join("node.pem"), [0xff]).unwrap(), "not text");
        check_refused(|dir| std::fs::write(dir.join("identity.json"), r#"{"format": 2, "other": true}"#).unwrap(), "format 2");
        check_refused(
            |dir| {
                let agent = dir.parent().unwrap().parent().unwrap().join("agent/pki");
                std::fs::remove_dir_all(dir).unwrap();
                std::fs::rename(agent, dir).unwrap();
            },
            "has the role agent",
        );
    }

    #[test]
    fn a_change_of_the_identity_stays() {
        let data_dir = cluster();
        let mut credentials = Credentials::load(data_dir.path(), Role::Master).unwrap();
        credentials.update_identity(|identity| identity.started = true).unwrap();
        assert!(Credentials::load(data_dir.path(), Role::Master).unwrap().identity.started);
    }

    #[test]
    fn a_renewed_certificate_is_the_same_node() {
        let data_dir = cluster();
        let credentials = Credentials::load(data_dir.path(), Role::Master).unwrap();
        let (key, request) = authority::signing_request().unwrap();
        let certificate = credentials.load_authority().unwrap().certify(&credentials.identity.peer(), &[], &request).unwrap();
        let renewed = credentials.replace_certificate(&certificate, &key).unwrap();
        assert_eq!(renewed.identity, credentials.identity);
        assert_ne!(renewed.key.cert[0], credentials.key.cert[0]);
    }
}
