//! `mesh init`: makes a new mesh, of which this host is the first server.

use std::path::{Path, PathBuf};

use mesh_core::catalog::KeyHash;
use mesh_core::command::{CommandKind, FEATURE_LEVEL, InitMesh1, ServerRecord};
use mesh_core::identity::{InvalidTrustDomain, SpiffeId, TrustDomain};
use mesh_core::name::Datacenter;
use mesh_core::policy::AccessMode;
use mesh_core::trust::{CertAuthority, Principal, Role, TokenGrant};
use mesh_net::files::{self, FileError};
use mesh_net::{clock, csr, hash};

use crate::api::ListenError;
use crate::ca::{self, CaError, CsrKey, Issuer, Kek, KekError, LEAF_LIFETIME, pem};
use crate::config::{Config, KekSource};
use crate::disk::{Disk, DiskError};
use crate::limits::init::COMMIT_MAX;
use crate::raft::{Node, OpenError, ProposeError, ServerIdentity, Start};
use crate::run::{load_kek, parts};
use crate::tokens::{self, NewToken, NoRandomness};

/// What the new mesh is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitOptions {
    /// The settings of its first server.
    pub config: Config,
    /// The namespace of all identities, for good; `None` makes `<12 hex>.mesh.internal`.
    pub trust_domain: Option<TrustDomain>,
    /// This datacenter, for good.
    pub datacenter: Datacenter,
    /// What happens to calls that no rule allows.
    pub access: AccessMode,
    /// Where the first admin token goes (0600); `ca.pem` is written beside it.
    pub token_out: PathBuf,
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitAnswer {
    /// The namespace of all identities.
    pub trust_domain: TrustDomain,
    /// SHA-256 of the root certificate, as tokens carry it.
    pub ca_sha256: KeyHash,
    /// The first admin token.
    pub token_file: PathBuf,
    /// The root certificate as PEM.
    pub ca_file: PathBuf,
}

/// Why no mesh was made. Nothing of it is usable then; the data directory must be emptied first.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// The data directory is in use, or cannot be written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A file that would be written exists.
    #[error("{} exists already: move it away, or name another with --token-out", .0.display())]
    Exists(PathBuf),
    /// The key-encryption key cannot be made or read.
    #[error("cannot make or read the key-encryption key")]
    Kek(#[from] Box<KekError>),
    /// The CA cannot be made.
    #[error("cannot make the CA")]
    Ca(#[from] Box<CaError>),
    /// This server's certificate cannot be made.
    #[error("cannot make this server's certificate: {0}")]
    Leaf(String),
    /// The random trust domain.
    #[error(transparent)]
    TrustDomain(#[from] InvalidTrustDomain),
    /// The system gives no randomness.
    #[error(transparent)]
    Random(#[from] NoRandomness),
    /// The Raft port is taken.
    #[error(transparent)]
    Listen(#[from] Box<ListenError>),
    /// Raft cannot start.
    #[error("cannot start the cluster")]
    Open(#[from] Box<OpenError>),
    /// The first command was not written.
    #[error("cannot write the first state")]
    Propose(#[from] Box<ProposeError>),
    /// The log was not closed well.
    #[error("cannot close the log: {0}")]
    Close(String),
    /// The token or the CA certificate cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A thread for blocking work failed.
    #[error("cannot work on the disk")]
    Thread(#[from] tokio::task::JoinError),
}

/// Makes a new mesh. Afterwards the server is started by [`crate::run()`].
///
/// # Errors
/// [`InitError`].
pub async fn init(options: InitOptions) -> Result<InitAnswer, InitError> {
    let made = {
        let options = options.clone();
        tokio::task::spawn_blocking(move || make(&options)).await??
    };
    let Made { disk, identity, server_key, ca } = &made;
    let NewToken { record, bearer } = tokens::create(
        TokenGrant::Api { role: Role::Admin },
        None,
        "the first admin token".to_owned(),
        &ca.root,
    )?;
    let config = &options.config;
    let server = ServerRecord {
        name: identity.name.clone(),
        id: identity.id,
        api_address: config.api_address.clone(),
        raft_address: config.raft_address.clone(),
        key: *server_key,
        feature_level: FEATURE_LEVEL,
    };
    let command = CommandKind::InitMesh1(Box::new(InitMesh1 {
        trust_domain: identity.trust_domain.clone(),
        datacenter: identity.datacenter.clone(),
        access: options.access,
        ca: ca.clone(),
        token: record,
        server,
    }));
    commit(config, disk, identity, command).await?;
    let (ca_file, token_file) = (ca_file(&options.token_out), options.token_out.clone());
    let answer = InitAnswer {
        trust_domain: identity.trust_domain.clone(),
        ca_sha256: hash::key_hash(&ca.root.0),
        token_file: token_file.clone(),
        ca_file: ca_file.clone(),
    };
    let (text, root) = (bearer.to_text(), pem::certificates([&ca.root]));
    let write = move || {
        files::write_atomic(&ca_file, root.as_bytes())?;
        // public: operators and tools verify by it
        Disk::world_readable(&ca_file)?;
        files::write_atomic(&token_file, format!("{}\n", text.as_str()).as_bytes())?;
        // Last: from here on the server can start.
        made.disk.write_membership(&made.identity)?;
        Ok::<_, InitError>(())
    };
    tokio::task::spawn_blocking(write).await??;
    Ok(answer)
}

/// What is on disk before the first command.
struct Made {
    disk: Disk,
    identity: ServerIdentity,
    server_key: KeyHash,
    ca: CertAuthority,
}

fn make(options: &InitOptions) -> Result<Made, InitError> {
    let config = &options.config;
    for path in [&options.token_out, &ca_file(&options.token_out)] {
        if path.exists() {
            return Err(InitError::Exists(path.clone()));
        }
    }
    let disk = Disk::new(&config.data_dir);
    disk.create()?;
    let kek = make_kek(config).map_err(Box::new)?;
    let trust_domain = match &options.trust_domain {
        Some(given) => given.clone(),
        None => random_trust_domain()?,
    };
    let now = clock::now();
    let ca = ca::create(&trust_domain, &options.datacenter, &kek, now).map_err(Box::new)?;
    let (datacenter, name) = (options.datacenter.clone(), config.name.clone());
    let identity = ServerIdentity { id: 1, name, trust_domain, datacenter };
    let (key, request) = csr::generate().map_err(|e| InitError::Leaf(e.to_string()))?;
    let request = CsrKey::from_pem(&request).map_err(|e| InitError::Leaf(e.to_string()))?;
    let ServerIdentity { trust_domain, datacenter, name, .. } = &identity;
    let id = SpiffeId::server(trust_domain, datacenter, name);
    let issuer = Issuer::open(trust_domain, &ca, &kek).map_err(Box::new)?;
    let leaf = issuer.issue(&id, &request, LEAF_LIFETIME, now);
    let leaf = leaf.map_err(|e| InitError::Leaf(mesh_net::tls::describe(&e)))?;
    let roots = pem::certificates([&ca.root]);
    disk.write_identity(&key, &issuer.pem_with_root(&leaf), &roots)?;
    Ok(Made { disk, identity, server_key: request.hash(), ca })
}

/// The key-encryption key: a new one, unless one lies there.
fn make_kek(config: &Config) -> Result<Kek, KekError> {
    match &config.kek {
        KekSource::File(path) if !path.exists() => {
            let kek = Kek::generate()?;
            kek.store(path, &config.data_dir)?;
            Ok(kek)
        }
        KekSource::File(_) | KekSource::Credential => load_kek(config),
    }
}

fn random_trust_domain() -> Result<TrustDomain, InitError> {
    let mut bytes = [0; 6];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(format!("{}.mesh.internal", hex::encode(bytes)).parse()?)
}

/// Runs the cluster of one just long enough to write its first command.
async fn commit(
    config: &Config, disk: &Disk, identity: &ServerIdentity, command: CommandKind,
) -> Result<(), InitError> {
    let (svid, trust) = {
        let (disk, identity) = (disk.clone(), identity.clone());
        let read = move || Ok::<_, DiskError>((disk.svid(&disk.key()?)?, disk.trust(&identity)?));
        tokio::task::spawn_blocking(read).await??
    };
    let listener = crate::api::bind("raft", config.raft).await.map_err(Box::new)?;
    let parts = parts(config, disk, identity.clone(), listener, &svid, &trust);
    let node = Node::open(Start::Init, parts).await.map_err(Box::new)?;
    let by = Principal::Server(identity.name.clone());
    let written = node.propose_within(by, command, COMMIT_MAX).await;
    let closed = node.shutdown().await;
    written.map_err(Box::new)?;
    closed.map_err(|error| InitError::Close(mesh_net::tls::describe(&error)))
}

fn ca_file(token_out: &Path) -> PathBuf {
    token_out.with_file_name("ca.pem")
}
