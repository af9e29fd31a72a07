//! Join tokens: what lets a new machine ask for a certificate. Only the hash of a token's secret is ever stored.

use super::{ClusterState, Refusal};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// What a certificate entitles to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeRole {
    /// Take part in consensus, hand out certificates.
    Master,
    /// Run tasks.
    Agent,
}

/// A token that has not been used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// What it is good for.
    pub role: NodeRole,
    /// Until when.
    pub expires_at: Timestamp,
    /// How often it can still be used.
    pub uses_left: u32,
}

impl ClusterState {
    /// Join tokens that can still be used.
    pub fn unexpired_tokens(&self, now: Timestamp) -> usize {
        self.tokens.values().filter(|token| token.expires_at > now).count()
    }

    pub(super) fn put_join_token(&mut self, hash: &str, token: &JoinToken, at: Timestamp) -> Result<(), Refusal> {
        self.tokens.retain(|_, known| known.expires_at > at);
        self.tokens.insert(hash.to_owned(), *token);
        Ok(())
    }

    pub(super) fn use_join_token(&mut self, hash: &str, role: NodeRole, at: Timestamp) -> Result<(), Refusal> {
        let bad = |why: &str| Err(Refusal::BadToken(why.to_owned()));
        let Some(token) = self.tokens.get_mut(hash) else {
            return bad("the join token is unknown or used up; make a new one with `drover token create`");
        };
        if token.expires_at <= at {
            return bad("the join token has expired; make a new one with `drover token create`");
        }
        if token.role != role {
            return bad("the join token is for the other role; make one with `drover token create --role`");
        }
        token.uses_left = token.uses_left.saturating_sub(1);
        if token.uses_left == 0 {
            self.tokens.remove(hash);
        }
        Ok(())
    }
}
