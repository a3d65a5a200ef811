//! Who asks: from the certificate of the connection or the bearer token of the request.

use axum::http::{HeaderMap, header};
use mesh_core::identity::{SpiffeId, Subject};
use mesh_core::state::MeshState;
use mesh_core::time::UnixMillis;
use mesh_core::trust::{Permission, Principal, TokenGrant};
use mesh_net::clock;
use mesh_net::tls::{OFFLINE_GRACE_MS, PeerIdentity};
use mesh_net::token::{JoinToken, TokenKind};

use super::Peer;
use super::error::{Failure, Kind};
use crate::server::Server;
use crate::tokens;

/// The principal of a request. A token, where one is shown, is what counts.
///
/// # Errors
/// 401 for a token that is not good: it is never passed over in favour of less. 503 for any token
/// while this server has no state.
pub(super) fn authenticate(
    server: &Server, headers: &HeaderMap, peer: Option<&Peer>,
) -> Result<Principal, Failure> {
    let (state, now) = (server.node.state(), clock::now());
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        if state.mesh.is_none() {
            // one that has just joined knows no token yet: another server may
            return Err(Failure::not_initialised());
        }
        let token = value.to_str().ok().and_then(bearer);
        return token.and_then(|token| by_token(&state, token, now)).ok_or_else(invalid_token);
    }
    let identity = peer.and_then(|peer| peer.identity.as_ref());
    let valid = identity.filter(|identity| !server.trust.is_revoked(identity));
    Ok(valid.map_or(Principal::Anonymous, |identity| by_certificate(&state, identity, now)))
}

/// The token of a `Bearer` value; the scheme is case-insensitive (RFC 9110 §11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

fn by_token(state: &MeshState, text: &str, now: UnixMillis) -> Option<Principal> {
    let shown: JoinToken = text.parse().ok()?;
    if shown.kind != TokenKind::Api {
        return None;
    }
    let known = state.tokens.get(&shown.id)?;
    if !tokens::is_valid(known, &shown.secret_hash(), now) {
        return None;
    }
    match &known.grant {
        TokenGrant::Api { role } => {
            Some(Principal::Token { id: known.id.clone(), role: role.clone() })
        }
        TokenGrant::JoinNode { .. } | TokenGrant::JoinServer { .. } => None,
    }
}

/// Whom a verified certificate speaks for: it must be of this mesh and datacenter, and nodes and
/// servers must be on record with this very key.
pub(super) fn by_certificate(
    state: &MeshState, identity: &PeerIdentity, now: UnixMillis,
) -> Principal {
    let Some(mesh) = state.mesh.as_ref() else { return Principal::Anonymous };
    let SpiffeId { trust_domain, subject } = &identity.id;
    if *trust_domain != mesh.trust_domain {
        return Principal::Anonymous;
    }
    let expired = identity.expired || now > identity.not_after;
    match subject {
        Subject::Node { dc, node } if *dc == mesh.datacenter => {
            let enrolled = state.nodes.get(node).is_some_and(|known| known.key == identity.key);
            let in_grace = now.since(identity.not_after) <= OFFLINE_GRACE_MS;
            match (enrolled, expired) {
                (true, false) => Principal::Node(node.clone()),
                (true, true) if in_grace => Principal::ExpiredNode(node.clone()),
                (true, true) | (false, _) => Principal::Anonymous,
            }
        }
        Subject::Server { dc, server } if *dc == mesh.datacenter && !expired => {
            let known = state.servers.get(server).is_some_and(|known| known.key == identity.key);
            if known { Principal::Server(server.clone()) } else { Principal::Anonymous }
        }
        Subject::Service { dc, service } if *dc == mesh.datacenter && !expired => {
            Principal::Service(service.clone())
        }
        Subject::Node { .. }
        | Subject::Server { .. }
        | Subject::Service { .. }
        | Subject::Ca(_) => Principal::Anonymous,
    }
}

/// Why `by` may not.
pub(super) fn refused(by: &Principal, permission: Permission) -> Failure {
    match by {
        Principal::Anonymous => {
            let text = "no valid certificate and no token: show a token of `mesh token create`";
            Failure::new(Kind::Unauthenticated, "unauthenticated", text)
        }
        Principal::ExpiredNode(node) => {
            let text = format!("the certificate of node {node} ended: renew it first");
            Failure::new(Kind::Forbidden, "certificate_expired", text)
        }
        Principal::Server(_)
        | Principal::Node(_)
        | Principal::Service(_)
        | Principal::Token { .. } => {
            let text = format!("{by} lacks the permission {permission:?}");
            Failure::new(Kind::Forbidden, "forbidden", text)
        }
    }
}

fn invalid_token() -> Failure {
    let text = "the token is unknown, expired or not for the API: ask for a new one";
    Failure::new(Kind::Unauthenticated, "token_invalid", text)
}
