//! One server, made by init and started on loopback.

use std::path::Path;
use std::sync::Arc;

use mesh_core::api::{CreateTokenRequest, EnrolRequest, SyncRequest, TokenPurpose, Written};
use mesh_core::catalog::{Health, InstanceSpec, NodePolicy};
use mesh_core::policy::AccessMode;
use mesh_core::trust::Role;
use mesh_net::client::{Client, ClientBuilder, ClientError, Trust};
use mesh_net::csr;
use mesh_net::tls::{Svid, SvidSource};
use mesh_net::token::{JoinToken, Secret};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::config::{Config, KekSource};
use crate::init::{InitOptions, init};
use crate::server::Server;
use crate::{Deps, RunError, start};

/// A running server.
pub(super) struct World {
    pub(super) dir: tempfile::TempDir,
    pub(super) address: String,
    pub(super) ca_pem: String,
    pub(super) admin: Client,
    pub(super) server: Arc<Server>,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), RunError>>,
}

/// An enrolled node.
pub(super) struct Node {
    pub(super) key: Zeroizing<Vec<u8>>,
    pub(super) svid: Arc<SvidSource>,
    pub(super) client: Client,
}

pub(super) fn config(dir: &Path) -> Config {
    let mut config = Config::new("ctl-1".parse().unwrap(), dir.join("data"), "127.0.0.1");
    config.api = ([127, 0, 0, 1], 0).into();
    config.raft = ([127, 0, 0, 1], 0).into();
    config.kek = KekSource::File(dir.join("kek"));
    config
}

pub(super) fn init_options(dir: &Path) -> InitOptions {
    InitOptions {
        config: config(dir),
        trust_domain: Some("test.mesh.internal".parse().unwrap()),
        datacenter: "dc1".parse().unwrap(),
        access: AccessMode::Enforce,
        token_out: dir.join("admin.token"),
    }
}

impl World {
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        init(init_options(dir.path())).await.unwrap();
        let config = config(dir.path());
        Self::start(dir, config).await
    }

    pub(super) async fn start(dir: tempfile::TempDir, config: Config) -> Self {
        let shutdown = CancellationToken::new();
        let deps = Deps { shutdown: shutdown.clone(), ..Deps::default() };
        let running = start(config, deps).await.unwrap();
        let server = Arc::clone(running.server());
        // a server that was just started has to elect itself first
        let elected = async {
            while server.node.leader().is_none() || server.node.state().mesh.is_none() {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), elected).await.unwrap();
        let address = format!("127.0.0.1:{}", running.api().port());
        let running = tokio::spawn(running.wait());
        let ca_pem = std::fs::read_to_string(dir.path().join("ca.pem")).unwrap();
        let token = Secret::from_file(&dir.path().join("admin.token")).unwrap();
        let admin = ClientBuilder::new([address.clone()])
            .trust(Trust::Pem(ca_pem.clone()))
            .token(token)
            .build()
            .unwrap();
        Self { dir, address, ca_pem, admin, server, shutdown, running }
    }

    /// Stops the server and starts it again from its directory.
    pub(super) async fn restart(self) -> Self {
        let Self { dir, shutdown, running, .. } = self;
        shutdown.cancel();
        running.await.unwrap().unwrap();
        let config = config(dir.path());
        Self::start(dir, config).await
    }

    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        self.running.await.unwrap().unwrap();
    }

    pub(super) fn client(&self) -> ClientBuilder {
        ClientBuilder::new([self.address.clone()]).trust(Trust::Pem(self.ca_pem.clone()))
    }

    /// A client with a new API token of `role`.
    pub(super) async fn with_role(&self, role: Role) -> Client {
        let token = self.token(TokenPurpose::Api { role }).await;
        self.client().token(Secret::new(token)).build().unwrap()
    }

    pub(super) async fn token(&self, purpose: TokenPurpose) -> String {
        let request = CreateTokenRequest { purpose, ttl_seconds: 600, note: String::new() };
        self.admin.create_token(&request).await.unwrap().token
    }

    /// A token for one node that may host what `globs` say.
    pub(super) async fn node_token(&self, globs: &[&str]) -> JoinToken {
        let services = globs.iter().map(|glob| glob.parse().unwrap()).collect();
        let policy = NodePolicy { services };
        self.token(TokenPurpose::Node { name: None, policy }).await.parse().unwrap()
    }

    pub(super) async fn enrol(&self, name: &str, globs: &[&str]) -> Node {
        let token = self.node_token(globs).await;
        self.enrol_with(&token, name).await.unwrap()
    }

    pub(super) async fn enrol_with(
        &self, token: &JoinToken, name: &str,
    ) -> Result<Node, ClientError> {
        let (key, csr_pem) = csr::generate().unwrap();
        let request = EnrolRequest {
            token: token.id.clone(),
            secret: token.secret_hex().to_string(),
            node: name.parse().unwrap(),
            address: "10.0.0.7".parse().unwrap(),
            port: 7443,
            csr_pem,
        };
        let pinned = ClientBuilder::new([self.address.clone()]).trust(Trust::Pin(token.ca));
        let answer = pinned.build().unwrap().enrol(&request).await?;
        assert_eq!(answer.roots_pem, self.ca_pem);
        let svid = SvidSource::new(Svid::from_pem(&answer.chain_pem, &key).unwrap());
        let client = self.client().identity(Arc::clone(&svid)).build().unwrap();
        Ok(Node { key, svid, client })
    }
}

impl Node {
    /// Registers one healthy instance of each service.
    pub(super) async fn register(&self, services: &[&str]) -> Result<Written, ClientError> {
        let upsert = services.iter().map(|service| spec(service)).collect();
        self.client.sync_instances(&SyncRequest { upsert, remove: Vec::new() }).await
    }
}

pub(super) fn spec(service: &str) -> InstanceSpec {
    InstanceSpec {
        id: format!("{service}-1").parse().unwrap(),
        service: service.parse().unwrap(),
        port: 8080,
        meta: Default::default(),
        upstreams: Vec::new(),
        health: Health::Passing,
        checks: Default::default(),
    }
}
