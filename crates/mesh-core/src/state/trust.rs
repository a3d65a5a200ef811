//! Tokens, enrolment of servers and the deny list.

use std::sync::Arc;

use imbl::OrdMap;

use super::MeshState;
use super::apply::{at_most, not_found};
use crate::catalog::KeyHash;
use crate::command::{EnrolServer1, Outcome, Rejected, ServerRecord};
use crate::identity::SpiffeId;
use crate::limits;
use crate::name::{ServerName, TokenId};
use crate::time::UnixMillis;
use crate::trust::{Revocation, Revoked, Token, TokenGrant, TokenUse};

impl MeshState {
    pub(super) fn create_token(&mut self, token: &Token) -> Result<(), Rejected> {
        if self.tokens.contains_key(&token.id) {
            let (what, name) = ("token".to_owned(), token.id.to_string());
            return Err(Rejected::Exists { what, name });
        }
        self.forget_expired_tokens();
        at_most("number of tokens", self.tokens.len() + 1, limits::TOKENS_MAX)?;
        self.tokens.insert(token.id.clone(), Arc::new(token.clone()));
        Ok(())
    }

    pub(super) fn delete_token(&mut self, id: &TokenId) -> Result<(), Rejected> {
        self.tokens.remove(id).map(|_| ()).ok_or_else(|| not_found("token", id))
    }

    /// Drops tokens that ended over a day ago: kept that long so that their error can say so.
    fn forget_expired_tokens(&mut self) {
        const KEPT_MS: u64 = 24 * 3600 * 1000;
        let ended = |token: &Token| token.expires_at.is_some_and(|e| self.clock > e.plus(KEPT_MS));
        let old: Vec<_> =
            self.tokens.iter().filter(|(_, t)| ended(t)).map(|(id, _)| id.clone()).collect();
        for id in &old {
            self.tokens.remove(id);
        }
    }

    /// Uses up the single-use token `id` for `key`. The same key may repeat itself, so that an
    /// answer lost on the way does not cost a token; what it enrolled must then be there still.
    pub(super) fn use_token(
        &mut self, id: &TokenId, secret: &KeyHash, key: &KeyHash,
    ) -> Result<Granted, Rejected> {
        let token = self.tokens.get_mut(id).ok_or(Rejected::TokenInvalid)?;
        if token.secret != *secret {
            return Err(Rejected::TokenInvalid);
        }
        match &token.used {
            Some(used) if used.key != *key => return Err(Rejected::TokenUsed(used.at)),
            Some(used) => {
                return Ok(Granted { grant: token.grant.clone(), used_before: Some(used.at) });
            }
            None => {}
        }
        if let Some(end) = token.expires_at.filter(|end| *end <= self.clock) {
            return Err(Rejected::TokenExpired(end));
        }
        Arc::make_mut(token).used = Some(TokenUse { at: self.clock, key: *key });
        Ok(Granted { grant: token.grant.clone(), used_before: None })
    }

    /// The tokens once `backup` is restored: a use, or a deletion, is not undone by it.
    pub(super) fn tokens_after_restore(&self, backup: &Self) -> OrdMap<TokenId, Arc<Token>> {
        let born = |state: &Self| state.mesh.as_ref().map(|mesh| mesh.created_at);
        if born(self) == born(backup) {
            // the same mesh at an earlier time: what it lacks now was deleted or expired
            return self.tokens.clone();
        }
        self.tokens.clone().union(backup.tokens.clone())
    }

    pub(super) fn enrol_server(&mut self, enrol: &EnrolServer1) -> Result<Outcome, Rejected> {
        let granted = self.use_token(&enrol.token, &enrol.secret, &enrol.key)?;
        let TokenGrant::JoinServer { server } = granted.grant else {
            return Err(scope("something else", format!("server {}", enrol.name)));
        };
        if let Some(server) = server.filter(|server| *server != enrol.name) {
            return Err(scope(format!("server {server}"), format!("server {}", enrol.name)));
        }
        let id = self.server_id(&enrol.name);
        let found = format!("server {}", enrol.name);
        if let Some(known) = self.servers.get(&enrol.name) {
            if known.key != enrol.key {
                let (what, name) = ("server".to_owned(), enrol.name.to_string());
                return Err(Rejected::Exists { what, name });
            }
            self.refuse_denied(&enrol.key, id.as_ref(), &found)?;
            return Ok(Outcome::Server { revision: self.revision, id: known.id });
        }
        if let Some(at) = granted.used_before {
            return Err(Rejected::TokenUsed(at));
        }
        // it would get the key to the CA's keys
        self.refuse_denied(&enrol.key, id.as_ref(), &found)?;
        if enrol.feature_level < self.feature_level {
            // it could not read what the others write
            let (now, found) = (self.feature_level, enrol.feature_level);
            return Err(Rejected::FeatureLevel { now, found });
        }
        self.server_id_last += 1;
        let id = self.server_id_last;
        let record = ServerRecord {
            name: enrol.name.clone(),
            id,
            api_address: enrol.api_address.clone(),
            raft_address: enrol.raft_address.clone(),
            key: enrol.key,
            feature_level: enrol.feature_level,
        };
        self.servers.insert(enrol.name.clone(), Arc::new(record));
        Ok(Outcome::Server { revision: self.revision, id })
    }

    pub(super) fn remove_server(&mut self, name: &ServerName) -> Result<(), Rejected> {
        let server = self.servers.remove(name).ok_or_else(|| not_found("server", name))?;
        // its certificate outlives its membership: the key is denied, as a removed node's is
        self.revoke(&Revocation {
            what: Revoked::Key(server.key),
            at: self.clock,
            reason: format!("server {name} was removed"),
        })
    }

    pub(super) fn revoke(&mut self, revocation: &Revocation) -> Result<(), Rejected> {
        if self.revoked.iter().any(|known| known.what == revocation.what) {
            return Ok(());
        }
        if self.revoked.len() >= limits::REVOCATIONS_MAX {
            self.forget_old_revocations();
        }
        at_most("number of revocations", self.revoked.len() + 1, limits::REVOCATIONS_MAX)?;
        self.revoked.insert(revocation.clone());
        self.trust_modified = self.revision;
        Ok(())
    }

    /// Drops denied keys and serials whose certificates are long past use: a leaf lives for a day,
    /// and may be renewed for 90 more. Identities stay: they can be certified anew.
    fn forget_old_revocations(&mut self) {
        const KEPT_MS: u64 = 120 * 24 * 3600 * 1000;
        let kept = self.revoked.iter().filter(|denied| {
            matches!(denied.what, Revoked::Identity(_)) || self.clock.since(denied.at) <= KEPT_MS
        });
        self.revoked = kept.cloned().collect();
    }

    /// Refuses to enrol whom the deny list names by key or identity.
    pub(super) fn refuse_denied(
        &self, key: &KeyHash, id: Option<&SpiffeId>, found: &str,
    ) -> Result<(), Rejected> {
        let denied = self.revoked.iter().find_map(|denied| match &denied.what {
            Revoked::Key(denied) => (denied == key).then_some("key"),
            Revoked::Identity(denied) => (Some(denied) == id).then_some("identity"),
            Revoked::Serial(_) => None,
        });
        match denied {
            Some(what) => {
                Err(Rejected::Forbidden { by: format!("{found}, whose {what} is denied,") })
            }
            None => Ok(()),
        }
    }

    fn server_id(&self, server: &ServerName) -> Option<SpiffeId> {
        let mesh = self.mesh.as_ref()?;
        Some(SpiffeId::server(&mesh.trust_domain, &mesh.datacenter, server))
    }
}

/// What a token grants, and when it was used before by the same key.
pub(super) struct Granted {
    pub(super) grant: TokenGrant,
    pub(super) used_before: Option<UnixMillis>,
}

/// "The token is for ... ".
pub(super) fn scope(expected: impl Into<String>, found: impl Into<String>) -> Rejected {
    Rejected::TokenScope { expected: expected.into(), found: found.into() }
}
