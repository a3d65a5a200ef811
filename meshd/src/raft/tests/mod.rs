//! Clusters in one process, over real loopback sockets and TLS.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod change;

mod chaos;

mod election;

mod quorum;

mod disk;

mod edge;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mesh_core::catalog::KeyHash;
use mesh_core::command::{
    CommandKind, EnrolServer1, FEATURE_LEVEL, InitMesh1, Outcome, ServerRecord,
};
use mesh_core::name::ServerName;
use mesh_core::policy::AccessMode;
use mesh_core::trust::{CertAuthority, CertDer, Principal, Role, SealedKey, Token, TokenGrant};
use mesh_net::testing::TestCa;
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::*;

/// What stays of a server while it is down.
pub(crate) struct Machine {
    pub(crate) dir: TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) cut: Arc<AtomicBool>,
}

/// A mesh's servers, by Raft id.
pub(crate) struct World {
    pub(crate) ca: TestCa,
    pub(crate) options: Options,
    pub(crate) machines: BTreeMap<u64, Machine>,
    pub(crate) nodes: BTreeMap<u64, Node>,
}

pub(crate) fn name(id: u64) -> ServerName {
    format!("s{id}").parse().unwrap()
}

pub(crate) fn admin() -> Principal {
    Principal::Token { id: "admin".parse().unwrap(), role: Role::Admin }
}

pub(crate) fn token(id: &str, grant: TokenGrant) -> Token {
    let (secret, id) = (KeyHash([7; 32]), id.parse().unwrap());
    Token { id, secret, grant, expires_at: None, used: None, note: String::new() }
}

/// A write that can be told from others by its number.
pub(crate) fn numbered(number: usize) -> CommandKind {
    let grant = TokenGrant::Api { role: Role::Viewer };
    CommandKind::CreateToken1(token(&format!("n{number}"), grant))
}

pub(crate) fn holds(node: &Node, number: usize) -> bool {
    node.state().tokens.contains_key(format!("n{number}").as_str())
}

/// Waits until `done`, 10 s at most.
pub(crate) async fn until(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < end, "not within 10 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl World {
    /// A mesh of one server, initialised.
    pub(crate) async fn new(options: Options) -> Self {
        let ca = TestCa::new("abc.mesh.internal");
        let (machines, nodes) = (BTreeMap::new(), BTreeMap::new());
        let mut world = Self { ca, options, machines, nodes };
        world.boot(1, Start::Init).await.unwrap();
        let server = world.record(1);
        let ca = CertAuthority {
            root: CertDer(vec![1]),
            root_key: SealedKey(vec![2]),
            intermediates: BTreeMap::new(),
        };
        let init = InitMesh1 {
            trust_domain: world.ca.trust_domain.clone(),
            datacenter: world.ca.datacenter.clone(),
            access: AccessMode::Enforce,
            ca,
            token: token("admin", TokenGrant::Api { role: Role::Admin }),
            server,
        };
        let kind = CommandKind::InitMesh1(Box::new(init));
        world.nodes[&1].propose(Principal::Server(name(1)), kind).await.unwrap();
        world
    }

    /// A mesh of `count` voters.
    pub(crate) async fn of(count: u64, options: Options) -> Self {
        let mut world = Self::new(options).await;
        for id in 2..=count {
            world.join(id).await;
        }
        world
    }

    /// Starts the server, on a new machine if it has none.
    pub(crate) async fn boot(&mut self, id: u64, start: Start) -> Result<(), OpenError> {
        let listener = match self.machines.get(&id) {
            Some(machine) => TcpListener::bind(machine.address).await.unwrap(),
            None => TcpListener::bind("127.0.0.1:0").await.unwrap(),
        };
        let address = listener.local_addr().unwrap();
        let machine = self.machines.entry(id).or_insert_with(|| Machine {
            dir: TempDir::new().unwrap(),
            address,
            cut: Arc::default(),
        });
        let parts = Parts {
            dir: machine.dir.path().join("raft"),
            identity: ServerIdentity {
                id,
                name: name(id),
                trust_domain: self.ca.trust_domain.clone(),
                datacenter: self.ca.datacenter.clone(),
            },
            raft_address: address.to_string(),
            api_address: format!("127.0.0.1:{id}"),
            listener,
            svid: self.ca.source(&self.ca.server_id(name(id).as_str())),
            trust: self.ca.trust(),
            clock: Arc::new(mesh_net::clock::now),
            options: self.options.clone(),
            cut: Arc::clone(&machine.cut),
        };
        let node = Node::open(start, parts).await?;
        self.nodes.insert(id, node);
        Ok(())
    }

    pub(crate) fn record(&self, id: u64) -> ServerRecord {
        ServerRecord {
            name: name(id),
            id,
            api_address: format!("127.0.0.1:{id}"),
            raft_address: self.machines[&id].address.to_string(),
            key: KeyHash([id as u8; 32]),
            feature_level: FEATURE_LEVEL,
        }
    }

    /// Enrols a server, starts it and makes it a voter.
    pub(crate) async fn join(&mut self, id: u64) {
        self.boot(id, Start::Join).await.unwrap();
        let (record, some) = (self.record(id), self.nodes[&1].clone());
        let join = token(&format!("join{id}"), TokenGrant::JoinServer { server: None });
        some.propose(admin(), CommandKind::CreateToken1(join.clone())).await.unwrap();
        let enrol = CommandKind::EnrolServer1(EnrolServer1 {
            token: join.id,
            secret: join.secret,
            name: record.name.clone(),
            api_address: record.api_address.clone(),
            raft_address: record.raft_address.clone(),
            key: record.key,
            feature_level: FEATURE_LEVEL,
        });
        let outcome = some.propose(Principal::Anonymous, enrol).await.unwrap();
        assert!(matches!(outcome, Outcome::Server { id: found, .. } if found == id));
        some.add_server(record).await.unwrap();
    }

    /// Stops the server; what it has on disk stays.
    pub(crate) async fn halt(&mut self, id: u64) {
        self.nodes.remove(&id).unwrap().shutdown().await.unwrap();
    }

    pub(crate) async fn end(self) {
        let all = self.nodes.values().map(Node::shutdown);
        let ended =
            tokio::time::timeout(Duration::from_secs(10), futures_util::future::join_all(all));
        assert!(ended.await.unwrap().iter().all(Result::is_ok));
    }

    pub(crate) fn cut(&self, id: u64, cut: bool) {
        self.machines[&id].cut.store(cut, Ordering::Relaxed);
    }

    /// Waits until all running servers agree on one of them as leader.
    pub(crate) async fn leader(&self) -> u64 {
        let agreed = || {
            let named: Vec<_> = self.nodes.values().map(Node::leader).collect();
            let leading = self.nodes.values().find(|node| node.is_leader())?;
            let same = named.iter().all(|n| n.as_ref() == Some(leading.name()));
            same.then(|| leading.id())
        };
        until("one leader", || agreed().is_some()).await;
        agreed().unwrap()
    }

    pub(crate) async fn follower(&self) -> u64 {
        let leader = self.leader().await;
        *self.nodes.keys().find(|id| **id != leader).unwrap()
    }

    /// Waits until all running servers have applied the same, and checks that it is the same.
    pub(crate) async fn converge(&self) {
        let same = || {
            let mut revisions = self.nodes.values().map(|node| node.state().revision);
            let first = revisions.next().unwrap();
            revisions.all(|revision| revision == first)
        };
        until("the same revision everywhere", same).await;
        let hash = |node: &Node| state_hash(&node.state()).unwrap();
        let first = hash(self.nodes.values().next().unwrap());
        assert!(self.nodes.values().all(|node| hash(node) == first), "states differ");
    }
}
