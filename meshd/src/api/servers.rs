//! The control servers: taking one in, taking one out, handing leadership over.

use mesh_core::api::{JoinServerAnswer, JoinServerRequest, TransferRequest, Written};
use mesh_core::command::{CommandKind, EnrolServer1, Outcome};
use mesh_core::identity::SpiffeId;
use mesh_core::name::ServerName;

use super::Answer;
use super::enrol::{catch_up, sign, use_token};
use super::error::{Failure, Kind};
use super::read::{mesh, servers};
use super::request::Call;
use crate::ca::CsrKey;
use crate::server::roots_pem;
use mesh_net::settings::is_host_port;

pub(super) async fn join(call: &Call) -> Result<Answer, Failure> {
    let request: JoinServerRequest = call.json()?;
    let JoinServerRequest { token, secret, name, api_address, raft_address, .. } = &request;
    for (field, address) in [("api_address", api_address), ("raft_address", raft_address)] {
        if !is_host_port(address) {
            let text = format!("{field} is {address:?}, expected host:port such as \"ctl-2:7300\"");
            return Err(Failure::field(field, text));
        }
    }
    let level = call.server.node.state().feature_level;
    if request.feature_level < level {
        let found = request.feature_level;
        let text = format!("feature level is {found}, expected {level} or more: upgrade first");
        return Err(Failure::field("feature_level", text));
    }
    let key = CsrKey::from_pem(&request.csr_pem)?;
    // Before the token is used up, so that a bad key costs none.
    let wrapped_kek = call.server.kek.wrap(&request.wrap_key);
    let wrapped_kek = wrapped_kek.map_err(|e| Failure::field("wrap_key", e.to_string()))?;
    let by_secret = |secret| {
        CommandKind::EnrolServer1(EnrolServer1 {
            token: token.clone(),
            secret,
            name: name.clone(),
            api_address: api_address.clone(),
            raft_address: raft_address.clone(),
            key: key.hash(),
            feature_level: request.feature_level,
        })
    };
    let (revision, id) = match use_token(call, token, secret, by_secret).await? {
        Outcome::Server { revision, id } => (revision, id),
        Outcome::Done(_) | Outcome::Policy { .. } | Outcome::Rejected(_) => {
            return Err(Failure::new(Kind::Internal, "internal", "enrolment gave no server id"));
        }
    };
    catch_up(call, revision).await;
    let state = call.server.node.state();
    let mesh = mesh(&state)?;
    let identity = SpiffeId::server(&mesh.trust_domain, &mesh.datacenter, name);
    let leaf = sign(call, &state, &identity, &key)?;
    tracing::info!(server = %name, id, serial = leaf.serial, "a server enrolled");
    let answer = JoinServerAnswer {
        id,
        chain_pem: call.server.issuer(&state)?.pem_with_root(&leaf),
        roots_pem: roots_pem(&state),
        trust_domain: mesh.trust_domain.clone(),
        datacenter: mesh.datacenter.clone(),
        wrapped_kek,
        servers: servers(call, &state),
        revision,
    };
    Answer::json(&answer, revision)
}

pub(super) async fn transfer(call: &Call) -> Result<Answer, Failure> {
    let TransferRequest { to } = call.json()?;
    call.server.node.transfer(to).await.map_err(not_done)?;
    written(call)
}

pub(super) async fn remove(call: &Call) -> Result<Answer, Failure> {
    let name: ServerName = call.name()?;
    if !call.server.node.state().servers.contains_key(&name) {
        return Err(Failure::not_found("server", &name));
    }
    call.server.node.remove_server(name.clone()).await.map_err(not_done)?;
    tracing::info!(server = %name, by = %call.by, "a server was removed");
    written(call)
}

fn written(call: &Call) -> Result<Answer, Failure> {
    let revision = call.server.node.state().revision;
    Answer::json(&Written { revision }, revision)
}

fn not_done(why: String) -> Failure {
    Failure::new(Kind::Conflict, "not_done", why)
}
