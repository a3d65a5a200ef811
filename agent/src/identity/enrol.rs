//! Enrolment: a join token, once; afterwards what is on disk.

use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;

use mesh_core::api::EnrolRequest;
use mesh_core::name::NodeName;
use mesh_core::snapshot::HostIdentity;
use mesh_net::client::{Client, ClientBuilder, ClientError, ErrorKind, Trust};
use mesh_net::csr::{self, CsrError};
use mesh_net::files::FileError;
use mesh_net::telemetry::Chain;
use mesh_net::tls::Svid;
use mesh_net::token::{InvalidToken, JoinToken, Secret, TokenKind};

use super::{Enrolled, IdentityStore, LeafError, StoreError, leaf};
use crate::control::backoff;

/// What an enrolment asks for.
#[derive(Clone, Copy, Debug)]
pub struct Join<'a> {
    /// The name wanted.
    pub node: &'a NodeName,
    /// API addresses of servers.
    pub servers: &'a [String],
    /// The join token.
    pub token_file: Option<&'a Path>,
    /// Where other agents dial this one.
    pub address: IpAddr,
    /// On which port.
    pub port: u16,
}

/// Why a host has no identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnrolError {
    /// What is on disk cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The certificate on disk, or the one issued, cannot be used.
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// Not enrolled, and nothing to enrol with.
    #[error(
        "this host has not joined a mesh: make a token with \"mesh token create\", and set token_file to a file that holds it"
    )]
    NoToken,
    /// The token's file cannot be read.
    #[error("cannot read the join token")]
    TokenFile(#[source] FileError),
    /// It holds no token.
    #[error("token_file holds no join token")]
    Token(#[source] InvalidToken),
    /// It holds another kind of token.
    #[error(
        "token_file holds a token of another kind, expected one of \"mesh token create\" for a node"
    )]
    TokenKind,
    /// No key could be made.
    #[error("cannot make the node's key")]
    Key(#[from] CsrError),
    /// The config names another node than the one that enrolled.
    #[error(
        "this host joined the mesh as node {enrolled}, and agent.toml says {configured}: names are kept for life; set node = \"{enrolled}\", or empty the data directory and join anew"
    )]
    OtherNode {
        /// The name on disk.
        enrolled: NodeName,
        /// The name in the config.
        configured: NodeName,
    },
    /// A server refused, for good.
    #[error("the mesh refused this host")]
    Refused(#[source] ClientError),
    /// The client could not be set up.
    #[error("cannot set up the client of the servers' API")]
    Client(#[source] ClientError),
}

/// The host's identity: from disk, or else by enrolling, which is tried until it succeeds or is
/// refused. The caller bounds it by dropping it: cancel safe, a later call repeats the request
/// with the same key.
///
/// # Errors
/// [`EnrolError`].
pub async fn load_or_enrol(
    store: &IdentityStore, join: Join<'_>,
) -> Result<(Enrolled, Svid), EnrolError> {
    if let (Some(enrolled), Some(key)) = (store.enrolled()?, store.node_key()?) {
        if enrolled.host.node != *join.node {
            let (enrolled, configured) = (enrolled.host.node, join.node.clone());
            return Err(EnrolError::OtherNode { enrolled, configured });
        }
        let svid = leaf(&enrolled.chain_pem, &key, &enrolled.host.node_id())?;
        return Ok((enrolled, svid));
    }
    let token = read_token(join.token_file.ok_or(EnrolError::NoToken)?)?;
    // On disk before the token is spent: after a crash the same key repeats the request.
    let key = node_key(store)?;
    let client = ClientBuilder::new(join.servers)
        .trust(Trust::Pin(token.ca))
        .build()
        .map_err(EnrolError::Client)?;
    let request = EnrolRequest {
        token: token.id.clone(),
        secret: token.secret_hex().to_string(),
        node: join.node.clone(),
        address: join.address,
        port: join.port,
        csr_pem: csr::csr_for(&key)?,
    };
    let enrolled = ask(&client, &request, join.servers).await?;
    let svid = leaf(&enrolled.chain_pem, &key, &enrolled.host.node_id())?;
    store.put_enrolled(&enrolled)?;
    tracing::info!(node = %join.node, mesh = %enrolled.host.trust_domain, "joined the mesh");
    forget_token(join.token_file);
    Ok((enrolled, svid))
}

async fn ask(
    client: &Client, request: &EnrolRequest, servers: &[String],
) -> Result<Enrolled, EnrolError> {
    let mut attempt = 0;
    let answer = loop {
        match client.enrol(request).await {
            Ok(answer) => break answer,
            Err(why) => match why.kind() {
                ErrorKind::Unavailable | ErrorKind::Unknown => {
                    attempt += 1;
                    let wait = backoff::wait_before(attempt, backoff::random_permille());
                    tracing::warn!("cannot join the mesh yet: {}", Chain(&why));
                    mesh_net::notify::status(&format!("joining the mesh: {}", Chain(&why)));
                    tokio::time::sleep(wait).await;
                }
                ErrorKind::Invalid
                | ErrorKind::Forbidden
                | ErrorKind::NotFound
                | ErrorKind::Conflict => return Err(EnrolError::Refused(why)),
            },
        }
    };
    let host = HostIdentity {
        trust_domain: answer.trust_domain,
        datacenter: answer.datacenter,
        node: request.node.clone(),
    };
    let servers = if answer.servers.is_empty() { servers.to_vec() } else { answer.servers };
    let (chain_pem, roots_pem) = (answer.chain_pem, answer.roots_pem);
    Ok(Enrolled { host, chain_pem, roots_pem, servers })
}

fn read_token(path: &Path) -> Result<JoinToken, EnrolError> {
    let secret = Secret::from_file(path).map_err(|why| match why.is_not_found() {
        true => EnrolError::NoToken,
        false => EnrolError::TokenFile(why),
    })?;
    let token = JoinToken::from_str(secret.reveal()).map_err(EnrolError::Token)?;
    match token.kind {
        TokenKind::JoinNode => Ok(token),
        TokenKind::JoinServer | TokenKind::Api => Err(EnrolError::TokenKind),
    }
}

/// The node's key, made at the first call.
fn node_key(store: &IdentityStore) -> Result<Vec<u8>, EnrolError> {
    if let Some(key) = store.node_key()? {
        return Ok(key);
    }
    let (key, _) = csr::generate()?;
    store.put_node_key(&key)?;
    Ok(key.to_vec())
}

/// A used token is worth nothing, so that it does not matter if it stays.
fn forget_token(path: Option<&Path>) {
    let Some(path) = path else { return };
    if let Err(why) = std::fs::remove_file(path) {
        tracing::debug!(path = %path.display(), "the used join token stays: {why}");
    }
}
