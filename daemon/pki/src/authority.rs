//! The cluster's certificate authority: made once by `drover cluster init`, held by every master.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use uuid::Uuid;

use crate::identity::{self, PeerIdentity};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How long an authority lasts: longer than any cluster is expected to, because replacing one means letting
/// every node in again.
pub const AUTHORITY_LIFETIME: Duration = DAY.saturating_mul(365 * 20);

/// How long a node's certificate lasts. A node whose certificate has less than [`RENEW_BELOW`] left asks for a
/// new one whenever it starts.
pub const NODE_LIFETIME: Duration = DAY.saturating_mul(365 * 5);

/// What is left of a certificate when it should be renewed.
pub const RENEW_BELOW: Duration = DAY.saturating_mul(365 * 4);

/// Certificates are valid from a day before they are made, so that a node whose clock is late accepts them.
const BACKDATED: Duration = DAY;

/// Signs the certificates of a cluster's nodes.
pub struct Authority {
    cluster: Uuid,
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Why an authority could not be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The certificate is none, or none of a drover cluster.
    #[error("this is not the certificate of a drover cluster's authority")]
    NotAnAuthority,
    /// The key and the certificate are not a pair.
    #[error("the authority's key does not belong to its certificate")]
    WrongKey,
    /// A signing request that cannot be read, or whose signature is wrong.
    #[error("the signing request is malformed or not signed by its own key")]
    BadRequest(#[source] rcgen::Error),
    /// The name of a node is not acceptable.
    #[error(transparent)]
    BadName(#[from] identity::BadName),
    /// Something to be put into the certificate that it cannot hold.
    #[error("{0:?} can stand in no certificate")]
    BadHost(String),
    /// Anything else the library refuses.
    #[error("the certificate could not be made")]
    Certificate(#[from] rcgen::Error),
}

impl Authority {
    /// Makes the authority of a new cluster.
    pub fn generate(cluster: Uuid) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&format!("drover {cluster}"));
        params.subject_alt_names = vec![SanType::URI(format!("drover://{cluster}").try_into()?)];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, AUTHORITY_LIFETIME);
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            cluster,
            certificate: certificate.der().clone(),
            certificate_pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        })
    }

    /// Reads an authority from the two files that hold it.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        let certificate =
            CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(|_| AuthorityError::NotAnAuthority)?;
        let (cluster, public_key) = read_authority(&certificate).ok_or(AuthorityError::NotAnAuthority)?;
        let key = KeyPair::from_pem(key_pem)?;
        if key.subject_public_key_info() != public_key {
            return Err(AuthorityError::WrongKey);
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { cluster, certificate, certificate_pem: certificate_pem.to_owned(), issuer })
    }

    /// The cluster this is the authority of.
    pub fn cluster(&self) -> Uuid {
        self.cluster
    }

    /// The authority's certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The authority's certificate as it stands in `ca.pem`.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The authority's private key as it stands in `ca.key`. Whoever reads it can enter the cluster as anybody.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Certifies that the key of a signing request (PEM) belongs to `peer`.
    ///
    /// Only the key is taken from the request; what the certificate says is the authority's decision. `hosts`
    /// are further names and addresses, besides the node's name, localhost and 127.0.0.1.
    pub fn certify(&self, peer: &PeerIdentity, hosts: &[String], request_pem: &str) -> Result<String, AuthorityError> {
        let request = CertificateSigningRequestParams::from_pem(request_pem).map_err(AuthorityError::BadRequest)?;
        self.sign(peer, hosts, &request.public_key)
    }

    /// Makes a key and certifies it, for a node on the machine that holds the authority. Returns certificate and key.
    pub fn issue(&self, peer: &PeerIdentity, hosts: &[String]) -> Result<(String, String), AuthorityError> {
        let key = KeyPair::generate()?;
        Ok((self.sign(peer, hosts, &key)?, key.serialize_pem()))
    }

    fn sign(&self, peer: &PeerIdentity, hosts: &[String], key: &impl PublicKeyData) -> Result<String, AuthorityError> {
        identity::check_name(&peer.name)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&peer.name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let own_names = [peer.name.as_str(), "localhost", "127.0.0.1"];
        for host in own_names.into_iter().chain(hosts.iter().map(String::as_str)) {
            let name = subject_name(host)?;
            if !params.subject_alt_names.contains(&name) {
                params.subject_alt_names.push(name);
            }
        }
        params.subject_alt_names.push(SanType::URI(peer.uri().try_into()?));
        set_validity(&mut params, NODE_LIFETIME);
        Ok(params.signed_by(key, &self.issuer)?.pem())
    }
}

/// Shows whose authority it is and not the key.
impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// A new private key (PEM) and the request (PEM) to have it certified.
pub fn signing_request() -> Result<(String, String), AuthorityError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key)?.pem()?;
    Ok((key.serialize_pem(), request))
}

/// The cluster that an authority's certificate (DER) is for, or nothing if it is not one.
pub fn cluster_of(certificate: &[u8]) -> Option<Uuid> {
    read_authority(certificate).map(|(cluster, _)| cluster)
}

fn read_authority(certificate: &[u8]) -> Option<(Uuid, Vec<u8>)> {
    use x509_parser::extensions::GeneralName;
    use x509_parser::prelude::{FromDer, X509Certificate};
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let cluster = names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix("drover://")?.parse().ok(),
        _ => None,
    })?;
    certificate.is_ca().then(|| (cluster, certificate.public_key().raw.to_vec()))
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn subject_name(host: &str) -> Result<SanType, AuthorityError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let plausible =
        (1..=253).contains(&host.len()) && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    match host.to_owned().try_into() {
        Ok(name) if plausible => Ok(SanType::DnsName(name)),
        _ => Err(AuthorityError::BadHost(host.to_owned())),
    }
}

fn set_validity(params: &mut CertificateParams, lifetime: Duration) {
    let now = SystemTime::now();
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + lifetime).into();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Role;

    fn peer(cluster: Uuid) -> PeerIdentity {
        PeerIdentity { cluster, role: Role::Agent, id: Uuid::from_u128(3).to_string(), name: "n1".into() }
    }

    #[test]
    fn a_request_is_certified_as_what_the_authority_says() {
        let authority = Authority::generate(Uuid::from_u128(1)).unwrap();
        let authority = Authority::from_pem(authority.certificate_pem(), &authority.key_pem()).unwrap();
        let (_key, request) = signing_request().unwrap();
        let pem = authority.certify(&peer(authority.cluster()), &["10.0.0.1".into(), "n1".into()], &request).unwrap();
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        assert_eq!(PeerIdentity::from_certificate(&der).unwrap(), peer(authority.cluster()));
        assert_eq!(cluster_of(&der), None, "a node's certificate is no authority");
        assert_eq!(cluster_of(authority.certificate()), Some(Uuid::from_u128(1)));
    }

    #[test]
    fn nonsense_is_refused() {
        let authority = Authority::generate(Uuid::from_u128(1)).unwrap();
        let other = Authority::generate(Uuid::from_u128(1)).unwrap();
        assert!(matches!(Authority::from_pem(authority.certificate_pem(), &other.key_pem()), Err(AuthorityError::WrongKey)));
        let (_key, request) = signing_request().unwrap();
        let certify = |peer: &PeerIdentity, host: &str, request: &str| authority.certify(peer, &[host.to_owned()], request);
        let good = peer(authority.cluster());
        let nameless = PeerIdentity { name: String::new(), ..good.clone() };
        assert!(matches!(certify(&nameless, "a", &request), Err(AuthorityError::BadName(_))));
        assert!(matches!(certify(&good, "a b", &request), Err(AuthorityError::BadHost(_))));
        assert!(matches!(certify(&good, "a", "rubbish"), Err(AuthorityError::BadRequest(_))));
        assert!(matches!(certify(&good, "a", authority.certificate_pem()), Err(AuthorityError::BadRequest(_))));
    }
}
