//! Who is who in a cluster: the certificate authority, the identity of each node on disk, the tokens that let
//! a node in, and TLS as masters, agents and joining nodes speak it.
//!
//! One cluster has one authority, made by `drover cluster init`. Every master holds its key, so that any of
//! them can let a node in. A node's private key is made on the node and never leaves it: a joining node sends
//! a signing request and gets a certificate back.
//!
//! Nobody is trusted for a host name. A certificate says what its holder is in a URI,
//! `drover://<cluster>/<role>/<id>`, and the peer's authority and that URI are what both sides check; an
//! address may change, or be a tunnel, without anybody's certificate being wrong.
//!
//! Suggested reading order: [`identity`], [`authority`], [`directory`], [`token`], [`tls`], [`client`], [`join`].
//!
//! Tasks: a [`client::ClusterClient`] starts one task per connection, which drives that connection's HTTP/2 and
//! ends with it. Nothing else here runs in the background.

pub mod identity;

pub mod authority;

pub mod directory;

pub mod token;

pub mod tls;

pub mod client;

pub mod join;

mod files;

pub use authority::Authority;
pub use directory::{Credentials, Error};
pub use identity::{Identity, PeerIdentity, Role};
pub use token::JoinToken;

/// Makes ring the process's TLS provider. Calling it again does nothing.
///
/// rustls wants exactly one provider to be chosen before the first configuration is built; every function of
/// this crate that builds one calls this first, so a caller needs it only if it uses rustls directly.
pub fn install_crypto_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error means that another thread was quicker with the same provider.
        rustls::crypto::ring::default_provider().install_default().ok();
    }
}

/// The SHA-256 of some bytes in lower-case hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

/// So many random bytes in lower-case hexadecimal digits, fit for a secret.
pub(crate) fn random_hex(bytes: usize) -> String {
    use ring::rand::SecureRandom as _;
    use std::fmt::Write as _;
    let mut buffer = vec![0u8; bytes];
    ring::rand::SystemRandom::new().fill(&mut buffer).expect("the kernel's random source does not fail");
    buffer.iter().fold(String::with_capacity(bytes * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

/// A new random Raft node id. Ids are never reused, so that a master that lost its disk cannot be taken for
/// the one it was; 53 bits survive every JSON reader.
pub fn random_master_id() -> u64 {
    use ring::rand::SecureRandom as _;
    let mut bytes = [0u8; 8];
    ring::rand::SystemRandom::new().fill(&mut bytes).expect("the kernel's random source does not fail");
    (u64::from_le_bytes(bytes) >> 11).max(1)
}
