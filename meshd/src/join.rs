//! `meshd join`: makes this host a further server of a mesh.

use std::path::{Path, PathBuf};

use mesh_core::api::{JoinServerAnswer, JoinServerRequest};
use mesh_core::command::FEATURE_LEVEL;
use mesh_core::identity::TrustDomain;
use mesh_net::client::{ClientBuilder, ClientError, Trust};
use mesh_net::csr::{self, CsrError};
use mesh_net::files::FileError;
use mesh_net::hash;
use mesh_net::tls::{TlsError, roots_from_pem};
use mesh_net::token::{InvalidToken, JoinToken, Secret, TokenKind};

use crate::ca::kek::WrapError;
use crate::ca::{Kek, KekError, WrapKey};
use crate::config::{Config, KekSource};
use crate::disk::{Disk, DiskError};
use crate::raft::ServerIdentity;
use crate::run::load_kek;

/// Which mesh to join, and as what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinOptions {
    /// The settings of this server.
    pub config: Config,
    /// The file with the join token.
    pub token_file: PathBuf,
    /// The API of any server of the mesh, as `host:port`.
    pub server: String,
}

/// What this server is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinAnswer {
    /// The mesh.
    pub trust_domain: TrustDomain,
    /// This server's Raft id.
    pub id: u64,
    /// The other servers, by name.
    pub servers: Vec<String>,
}

/// Why this server did not join.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The data directory is in use, or cannot be written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The token cannot be read.
    #[error("cannot read the join token")]
    TokenFile(#[from] FileError),
    /// It is no token.
    #[error("{} holds no join token", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: InvalidToken,
    },
    /// It is a token for something else.
    #[error("the token is for {found}, expected one of `mesh token create --server {expected}`")]
    TokenKind {
        /// What it is for.
        found: &'static str,
        /// This server.
        expected: String,
    },
    /// No key.
    #[error(transparent)]
    Csr(#[from] CsrError),
    /// The server did not take this one in.
    #[error("the mesh did not take this server in")]
    Call(#[from] Box<ClientError>),
    /// The answer's certificates are not those the token names.
    #[error("the roots of the answer are not the CA that the token names")]
    OtherCa,
    /// The answer's certificates do not parse.
    #[error("the answer's certificates are not usable")]
    Tls(#[from] Box<TlsError>),
    /// The key-encryption key was not wrapped to this server.
    #[error("cannot unwrap the key-encryption key")]
    Wrap(#[from] WrapError),
    /// The key-encryption key cannot be kept.
    #[error(
        "cannot keep the key-encryption key; move away the file of another mesh, if there is one"
    )]
    Kek(#[from] Box<KekError>),
    /// A thread for blocking work failed.
    #[error("cannot work on the disk")]
    Thread(#[from] tokio::task::JoinError),
}

/// Joins. Afterwards the server is started by [`crate::run()`], and the leader takes it into the
/// cluster as soon as its Raft port answers.
///
/// # Errors
/// [`JoinError`]. A token that was sent is used up, but for this same request.
pub async fn join(options: JoinOptions) -> Result<JoinAnswer, JoinError> {
    let JoinOptions { config, token_file, server } = options;
    let disk = Disk::new(&config.data_dir);
    let token = {
        let (disk, config) = (disk.clone(), config.clone());
        tokio::task::spawn_blocking(move || prepare(&disk, &config, token_file)).await??
    };
    let wrap_key = WrapKey::generate()?;
    let (key, csr_pem) = csr::generate()?;
    let request = JoinServerRequest {
        token: token.id.clone(),
        secret: token.secret_hex().to_string(),
        name: config.name.clone(),
        api_address: config.api_address.clone(),
        raft_address: config.raft_address.clone(),
        csr_pem,
        wrap_key: wrap_key.public_hex(),
        feature_level: FEATURE_LEVEL,
    };
    let client = ClientBuilder::new([server]).trust(Trust::Pin(token.ca)).build();
    let client = client.map_err(Box::new)?;
    let answer = client.join_server(&request).await.map_err(Box::new)?;
    check_roots(&answer, &token)?;
    let kek = wrap_key.unwrap(&answer.wrapped_kek)?;
    tokio::task::spawn_blocking(move || keep(&disk, &config, &key, &kek, answer)).await?
}

/// Makes the data directory and reads the token.
fn prepare(disk: &Disk, config: &Config, path: PathBuf) -> Result<JoinToken, JoinError> {
    let text = Secret::from_file(&path)?;
    let token: JoinToken =
        text.reveal().parse().map_err(|source| JoinError::Token { path, source })?;
    let found = match token.kind {
        TokenKind::JoinServer => {
            disk.create()?;
            return Ok(token);
        }
        TokenKind::JoinNode => "enrolling a node",
        TokenKind::Api => "the API",
    };
    Err(JoinError::TokenKind { found, expected: config.name.to_string() })
}

/// The chain was verified against the pin; the roots to trust from now on must hold it too.
fn check_roots(answer: &JoinServerAnswer, token: &JoinToken) -> Result<(), JoinError> {
    let roots = roots_from_pem(&answer.roots_pem).map_err(Box::new)?;
    let pinned = roots.iter().any(|root| hash::equal(&hash::sha256(&root.0), &token.ca));
    if pinned { Ok(()) } else { Err(JoinError::OtherCa) }
}

fn keep(
    disk: &Disk, config: &Config, key: &[u8], kek: &Kek, answer: JoinServerAnswer,
) -> Result<JoinAnswer, JoinError> {
    match &config.kek {
        // A server that joins again has it already.
        KekSource::File(path) if has_same(path, config, kek) => {}
        KekSource::File(path) => kek.store(path, &config.data_dir).map_err(Box::new)?,
        // Whoever uses a credential brings the mesh's key there; it must be readable.
        KekSource::Credential => drop(load_kek(config).map_err(Box::new)?),
    }
    disk.write_identity(key, &answer.chain_pem, &answer.roots_pem)?;
    let JoinServerAnswer { id, trust_domain, datacenter, servers, .. } = answer;
    let name = config.name.clone();
    let identity = ServerIdentity { id, name, trust_domain: trust_domain.clone(), datacenter };
    disk.write_membership(&identity)?;
    let servers = servers.into_iter().map(|server| server.name.to_string()).collect();
    Ok(JoinAnswer { trust_domain, id, servers })
}

fn has_same(path: &Path, config: &Config, kek: &Kek) -> bool {
    Kek::load(path, &config.data_dir).is_ok_and(|found| hash::equal(found.bytes(), kek.bytes()))
}
