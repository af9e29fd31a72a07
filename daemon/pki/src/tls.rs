//! TLS as the cluster speaks it: version 1.3, HTTP/2, certificates of the cluster's own authority.
//!
//! A server lets anybody connect, because a joining node has no certificate yet, and refuses certificates of
//! other authorities; who may ask for what is decided per request from the peer's [`PeerIdentity`]. A client
//! checks that it reached a master of its own cluster, and which one if it must be a certain one.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use uuid::Uuid;

use crate::identity::{PeerIdentity, Role};
use crate::{Credentials, JoinToken};

/// The protocol both sides insist on.
const ALPN: &[u8] = b"h2";

/// Which master a client is willing to talk to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Any master of the client's cluster.
    AnyMaster,
    /// The one with this Raft node id: anybody else at its address is as bad as nobody.
    Master(u64),
}

/// What a master's cluster listener presents and demands.
pub fn server_config(credentials: &Credentials) -> Arc<ServerConfig> {
    let provider = provider();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(&credentials.authority)), provider.clone())
        .allow_unauthenticated()
        .build()
        .expect("one root is enough for a verifier");
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring speaks TLS 1.3")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(credentials.key.clone())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    Arc::new(config)
}

/// What a node presents to a master and demands of it.
pub fn client_config(credentials: &Credentials, expect: Expect) -> Arc<ClientConfig> {
    let trust =
        Trust::Authority { roots: Arc::new(roots(&credentials.authority)), cluster: credentials.identity.cluster, expect };
    let config = client_builder(trust).with_client_cert_resolver(Arc::new(SingleCertAndKey::from(credentials.key.clone())));
    finish(config)
}

/// What a node without a certificate demands of a master: the authority that its token names.
pub fn joining_config(token: &JoinToken) -> Arc<ClientConfig> {
    finish(client_builder(Trust::Token(token.clone())).with_no_client_auth())
}

fn provider() -> Arc<CryptoProvider> {
    crate::install_crypto_provider();
    CryptoProvider::get_default().expect("installed a line above").clone()
}

fn roots(authority: &CertificateDer<'static>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).expect("the authority's certificate was read before");
    roots
}

fn client_builder(trust: Trust) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let provider = provider();
    let verifier = MasterVerifier { trust, provider: provider.clone() };
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring speaks TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
}

fn finish(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session skips the verifier, and with it the question which master this is. Connections are few
    // and long, so nothing is lost.
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

#[derive(Debug)]
enum Trust {
    Authority { roots: Arc<RootCertStore>, cluster: Uuid, expect: Expect },
    Token(JoinToken),
}

/// Accepts masters by authority, role and id; host names play no part.
#[derive(Debug)]
struct MasterVerifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl MasterVerifier {
    fn verify_chain(
        &self,
        roots: &RootCertStore,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<PeerIdentity, rustls::Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms)?;
        let peer = PeerIdentity::from_certificate(certificate).map_err(|error| refusal(error.to_string()))?;
        match peer.role {
            Role::Master => Ok(peer),
            Role::Agent => Err(refusal(format!("the peer is {peer}, not a master"))),
        }
    }
}

impl ServerCertVerifier for MasterVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.trust {
            Trust::Authority { roots, cluster, expect } => {
                let peer = self.verify_chain(roots, end_entity, intermediates, now)?;
                if peer.cluster != *cluster {
                    return Err(refusal(format!("the peer is a master of another cluster, {}", peer.cluster)));
                }
                match expect {
                    Expect::Master(id) if peer.master_id() != Some(*id) => {
                        Err(refusal(format!("the peer is {peer}, not the master with id {id}")))
                    }
                    Expect::Master(_) | Expect::AnyMaster => Ok(ServerCertVerified::assertion()),
                }
            }
            Trust::Token(token) => {
                let authority = intermediates
                    .iter()
                    .find(|certificate| token.names_authority(certificate))
                    .ok_or(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
                let roots = roots(&authority.clone().into_owned());
                self.verify_chain(&roots, end_entity, intermediates, now)?;
                Ok(ServerCertVerified::assertion())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn refusal(why: String) -> rustls::Error {
    rustls::Error::General(why)
}

/// Who is at the other end of a server's connection; nobody if it showed no certificate.
///
/// rustls verified the certificate before this is called; one that names no identity of ours is treated like
/// none.
pub fn peer_of(connection: &rustls::ServerConnection) -> Option<PeerIdentity> {
    PeerIdentity::from_certificate(connection.peer_certificates()?.first()?).ok()
}
