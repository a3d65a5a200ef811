//! Tokens: made, listed without their secrets, forgotten.

use mesh_core::api::{CreateTokenAnswer, CreateTokenRequest, TokenInfo, TokenPurpose};
use mesh_core::command::CommandKind;
use mesh_core::state::MeshState;
use mesh_core::trust::TokenGrant;
use mesh_net::clock;

use super::Answer;
use super::error::Failure;
use super::nodes::{check_text, write};
use super::read::mesh;
use super::request::Call;
use crate::limits::api::{NOTE_BYTES_MAX, TTL_SECONDS_MAX};
use crate::tokens::{self, NewToken};

pub(super) async fn create(call: &Call) -> Result<Answer, Failure> {
    let CreateTokenRequest { purpose, ttl_seconds, note } = call.json()?;
    check_text("note", &note, NOTE_BYTES_MAX)?;
    if !(1..=TTL_SECONDS_MAX).contains(&ttl_seconds) {
        let text = format!("ttl_seconds is {ttl_seconds}, expected 1 to {TTL_SECONDS_MAX}");
        return Err(Failure::field("ttl_seconds", text));
    }
    let state = call.server.node.state();
    let root = &mesh(&state)?.ca.root;
    let expires_at = clock::now().plus(ttl_seconds * 1000);
    let made = tokens::create(grant(purpose), Some(expires_at), note, root);
    let NewToken { record, bearer } = made.map_err(|error| Failure::internal(&error))?;
    let id = record.id.clone();
    let kind = CommandKind::CreateToken1(record);
    let revision = call.server.node.propose(call.by.clone(), kind).await?.revision()?;
    let token = bearer.to_text().to_string();
    Answer::json(&CreateTokenAnswer { id, token, expires_at, revision }, revision)
}

pub(super) async fn delete(call: &Call) -> Result<Answer, Failure> {
    write(call, CommandKind::DeleteToken1(call.name()?)).await
}

pub(super) fn list(state: &MeshState) -> Vec<TokenInfo> {
    state
        .tokens
        .values()
        .map(|token| TokenInfo {
            id: token.id.clone(),
            purpose: purpose(token.grant.clone()),
            expires_at: token.expires_at,
            used_at: token.used.as_ref().map(|used| used.at),
            note: token.note.clone(),
        })
        .collect()
}

fn grant(purpose: TokenPurpose) -> TokenGrant {
    match purpose {
        TokenPurpose::Node { name, policy } => TokenGrant::JoinNode { node: name, policy },
        TokenPurpose::Server { name } => TokenGrant::JoinServer { server: name },
        TokenPurpose::Api { role } => TokenGrant::Api { role },
    }
}

fn purpose(grant: TokenGrant) -> TokenPurpose {
    match grant {
        TokenGrant::JoinNode { node, policy } => TokenPurpose::Node { name: node, policy },
        TokenGrant::JoinServer { server } => TokenPurpose::Server { name: server },
        TokenGrant::Api { role } => TokenPurpose::Api { role },
    }
}
