//! Join tokens: what an administrator carries from a running cluster to a new machine.
//!
//! A token is `drover1.<SHA-256 of the authority's certificate>.<secret>`. The fingerprint lets the new machine
//! know the cluster before it trusts anybody; the secret lets the cluster know the machine. Masters store and
//! replicate only the secret's hash.

use std::fmt;
use std::str::FromStr;

use rustls_pki_types::CertificateDer;

use crate::{random_hex, sha256_hex};

const PREFIX: &str = "drover1";
const SECRET_BYTES: usize = 32;

/// A join token in clear.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    fingerprint: String,
    secret: String,
}

/// A text that is no join token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is not a join token: `drover token create` prints one, a line beginning with \"drover1.\"")]
pub struct MalformedToken;

impl JoinToken {
    /// A new token with a secret nobody has seen.
    pub fn generate(authority: &CertificateDer<'_>) -> Self {
        Self { fingerprint: sha256_hex(authority), secret: random_hex(SECRET_BYTES) }
    }

    /// What masters store in place of the token.
    pub fn hash(&self) -> String {
        // The secret has 256 random bits, so one round without salt is as good as a slow hash.
        sha256_hex(self.secret.as_bytes())
    }

    /// Whether a certificate is that of the authority the token was made for.
    pub fn names_authority(&self, certificate: &[u8]) -> bool {
        sha256_hex(certificate) == self.fingerprint
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}.{}.{}", self.fingerprint, self.secret)
    }
}

/// Never shows the secret, so that a token cannot end up in a log by accident.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({PREFIX}.{}.…)", self.fingerprint)
    }
}

impl FromStr for JoinToken {
    type Err = MalformedToken;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_hex = |text: &str| text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let mut parts = text.trim().split('.');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(PREFIX), Some(fingerprint), Some(secret), None) if is_hex(fingerprint) && is_hex(secret) => {
                Ok(Self { fingerprint: fingerprint.to_owned(), secret: secret.to_owned() })
            }
            _ => Err(MalformedToken),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_and_hides_its_secret() {
        let authority = CertificateDer::from(b"authority".to_vec());
        let token = JoinToken::generate(&authority);
        let read: JoinToken = format!("  {token}\n").parse().unwrap();
        assert_eq!(read, token);
        assert!(read.names_authority(b"authority") && !read.names_authority(b"another"));
        assert_eq!(read.hash().len(), 64);
        assert!(!format!("{token:?}").contains(&token.secret));
        assert_ne!(token, JoinToken::generate(&authority));
    }

    #[test]
    fn anything_else_is_refused() {
        let hex = "a".repeat(64);
        for text in [
            String::new(),
            "drover1".into(),
            format!("drover1.{hex}"),
            format!("drover2.{hex}.{hex}"),
            format!("drover1.{hex}.{hex}.x"),
            format!("drover1.{hex}.{}", "A".repeat(64)),
            format!("drover1.{hex}.abc"),
        ] {
            assert_eq!(text.parse::<JoinToken>(), Err(MalformedToken), "{text}");
        }
    }
}
