//! Certificates for nodes and services: enrolment by a join token, renewal, issuance.
//!
//! A request for a certificate gives a public key and the proof that its sender holds it; whom the
//! certificate names comes from the state.

use std::net::IpAddr;

use mesh_core::api::{EnrolAnswer, EnrolRequest, IssueRequest, LeafAnswer, RenewRequest};
use mesh_core::catalog::KeyHash;
use mesh_core::command::{CommandKind, EnrolNode1, Outcome, Rejected};
use mesh_core::identity::SpiffeId;
use mesh_core::name::TokenId;
use mesh_core::revision::Revision;
use mesh_core::state::MeshState;
use mesh_core::trust::Principal;
use mesh_net::clock;
use tokio::time::timeout;

use super::Answer;
use super::error::{Failure, Kind};
use super::nodes::{check_address, own};
use super::read::mesh;
use super::request::Call;
use crate::ca::{CsrKey, LEAF_LIFETIME, Leaf};
use crate::limits::api::ENROL_FRESH_MAX;
use crate::raft::ProposeError;
use crate::server::roots_pem;
use crate::tokens;

pub(super) async fn enrol(call: &Call) -> Result<Answer, Failure> {
    let EnrolRequest { token, secret, node, address, port, csr_pem } = call.json()?;
    check_address(address, port)?;
    let key = CsrKey::from_pem(&csr_pem)?;
    let by_secret = |secret| {
        let (token, node, key) = (token.clone(), node.clone(), key.hash());
        CommandKind::EnrolNode1(EnrolNode1 { token, secret, node, key, address, port })
    };
    let revision = use_token(call, &token, &secret, by_secret).await?.revision()?;
    catch_up(call, revision).await;
    let state = call.server.node.state();
    let id = state.node_id(&node).ok_or_else(Failure::not_initialised)?;
    let leaf = sign(call, &state, &id, &key)?;
    let mesh = mesh(&state)?;
    tracing::info!(%node, serial = leaf.serial, "a node enrolled");
    let answer = EnrolAnswer {
        chain_pem: leaf.pem(),
        roots_pem: roots_pem(&state),
        trust_domain: mesh.trust_domain.clone(),
        datacenter: mesh.datacenter.clone(),
        servers: state.servers.values().map(|record| record.api_address.clone()).collect(),
        revision,
    };
    Answer::json(&answer, revision)
}

pub(super) fn renew(call: &Call) -> Result<Answer, Failure> {
    let RenewRequest { csr_pem } = call.json()?;
    let node = match &call.by {
        Principal::Node(node) | Principal::ExpiredNode(node) => node,
        Principal::Anonymous
        | Principal::Server(_)
        | Principal::Service(_)
        | Principal::Token { .. } => {
            let text = format!("{} has no node certificate to renew", call.by);
            return Err(Failure::new(Kind::Forbidden, "forbidden", text));
        }
    };
    let key = CsrKey::from_pem(&csr_pem)?;
    let state = call.server.node.state();
    let known = state.nodes.get(node).ok_or_else(|| Failure::not_found("node", node))?;
    if known.key != key.hash() {
        let text = format!("the key is another one than node {node} enrolled with");
        return Err(Failure::field("csr_pem", text));
    }
    call.server.budgets.take_issue(node, 0)?;
    let id = state.node_id(node).ok_or_else(Failure::not_initialised)?;
    let leaf = sign(call, &state, &id, &key)?;
    tracing::info!(%node, serial = leaf.serial, "a node renewed its certificate");
    leaf_answer(&state, &leaf)
}

pub(super) async fn issue(call: &Call) -> Result<Answer, Failure> {
    let IssueRequest { service, csr_pem } = call.json()?;
    let node = own(call)?;
    // By the newest state: a server that is cut off must not certify what was taken away since, and
    // one that lags not refuse what was just registered.
    call.server.node.linearizable(ENROL_FRESH_MAX).await?;
    let state = call.server.node.state();
    let known = state.nodes.get(&node).ok_or_else(|| Failure::not_found("node", &node))?;
    if known.key != key_of(call)? {
        let text = format!("node {node} is not enrolled with the key of this certificate");
        return Err(Failure::new(Kind::Forbidden, "forbidden", text));
    }
    let hosts = state.instances_on(&node).any(|instance| instance.spec.service == service);
    if !hosts {
        let text = format!("node {node} has registered no instance of service {service}");
        return Err(Failure::new(Kind::Forbidden, "not_registered", text));
    }
    if !known.policy.allows(&service) {
        let text = format!("the node policy of {node} does not allow service {service}");
        return Err(Failure::new(Kind::Forbidden, "node_policy", text));
    }
    let key = CsrKey::from_pem(&csr_pem)?;
    call.server.budgets.take_issue(&node, state.instances_on(&node).count())?;
    let id = state.service_id(&service).ok_or_else(Failure::not_initialised)?;
    let leaf = sign(call, &state, &id, &key)?;
    tracing::info!(%node, %service, serial = leaf.serial, "issued a certificate");
    leaf_answer(&state, &leaf)
}

/// Uses up the join token `id` by the command that `kind` makes with the hash of the secret shown.
/// A refusal of the token, or of a malformed secret, counts as a failed attempt.
pub(super) async fn use_token(
    call: &Call, id: &TokenId, secret: &str, kind: impl FnOnce(KeyHash) -> CommandKind,
) -> Result<Outcome, Failure> {
    let (budgets, address) = (&call.server.budgets, address_of(call));
    let Some(secret) = tokens::secret_hash(secret) else {
        budgets.take_guess(address)?;
        return Err(Rejected::TokenInvalid.into());
    };
    let is_right = tokens::is_secret_of(&call.server.node.state(), id, &secret);
    match is_right {
        true => budgets.may_try(address)?,
        false => budgets.take_guess(address)?,
    }
    let outcome = call.server.node.propose(Principal::Anonymous, kind(secret)).await;
    let refused = matches!(
        &outcome,
        Err(ProposeError::Rejected(
            Rejected::TokenInvalid
                | Rejected::TokenExpired(_)
                | Rejected::TokenUsed(_)
                | Rejected::TokenScope { .. },
        ))
    );
    match (is_right, refused) {
        // Counted afterwards, as far as there is room: he may try no more then.
        (true, true) => drop(budgets.take_guess(address)),
        (false, false) => budgets.give_back(address),
        (true, false) | (false, true) => {}
    }
    Ok(outcome?)
}

/// Waits until this server, perhaps a follower, has `revision` too: whom it took in comes back in a
/// moment. What is still missing then shows by itself.
pub(super) async fn catch_up(call: &Call, revision: Revision) {
    let mut changed = call.server.node.changed();
    // Cancel safe; late, or stopping: both show later.
    let _ = timeout(ENROL_FRESH_MAX, changed.wait_for(|now| *now >= revision)).await;
}

/// The key of the certificate that the caller showed.
fn key_of(call: &Call) -> Result<KeyHash, Failure> {
    let identity = call.peer.as_ref().and_then(|peer| peer.identity.as_ref());
    identity
        .map(|identity| identity.key)
        .ok_or_else(|| Failure::new(Kind::Unauthenticated, "unauthenticated", "no certificate"))
}

/// Signs a leaf of `id` for the holder of `key`.
pub(super) fn sign(
    call: &Call, state: &MeshState, id: &SpiffeId, key: &CsrKey,
) -> Result<Leaf, Failure> {
    Ok(call.server.issuer(state)?.issue(id, key, LEAF_LIFETIME, clock::now())?)
}

fn leaf_answer(state: &MeshState, leaf: &Leaf) -> Result<Answer, Failure> {
    let answer = LeafAnswer {
        id: leaf.id.clone(),
        chain_pem: leaf.pem(),
        roots_pem: roots_pem(state),
        expires_at: leaf.not_after,
    };
    Answer::json(&answer, state.revision)
}

fn address_of(call: &Call) -> IpAddr {
    let unknown = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
    call.peer.as_ref().map_or(unknown, |peer| peer.address.ip())
}
