//! The world of the proxy's tests: two agents, applications behind them, and one CA.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use mesh_core::catalog::Health;
use mesh_core::name::ServiceName;
use mesh_core::policy::{AccessMode, Mode, Origin, Protocol, RuleId, Source};
use mesh_core::resource::{
    CompiledRule, Endpoint, EndpointState, ServiceAccess, ServiceEndpoints, ServiceRoutes,
};
use mesh_core::revision::Revision;
use mesh_core::snapshot::{HostIdentity, HostedInstance, ProxySnapshot, UpstreamListener};
use mesh_core::trust::Bundle;
use mesh_net::testing::TestCa;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::super::*;

/// A port that was free a moment ago, on a loopback address that no other test takes one on.
pub(super) async fn free_port() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let listener = TcpListener::bind((Ipv4Addr::new(127, 9, high, low), 0)).await.unwrap();
    listener.local_addr().unwrap()
}

pub(super) fn service(name: &str) -> ServiceName {
    name.parse().unwrap()
}

/// One agent's proxy.
pub(super) struct Agent {
    pub(super) live: Arc<Live>,
    pub(super) identities: Arc<Identities>,
    pub(super) handle: ProxyHandle,
    pub(super) shutdown: CancellationToken,
    pub(super) registry: Registry,
}

/// `web` on n1 calls `orders` (HTTP) and `db` (TCP) on n2; `local` (HTTP) is on n1 too.
pub(super) struct World {
    pub(super) ca: TestCa,
    pub(super) n1: Agent,
    pub(super) n2: Agent,
    pub(super) db_app: SocketAddr,
    pub(super) to_orders: SocketAddr,
    pub(super) to_db: SocketAddr,
    pub(super) to_local: SocketAddr,
    pub(super) batch_to_orders: SocketAddr,
    apps: JoinSet<()>,
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with(LocalCallers::Deny).await
    }

    pub(super) async fn with(local_callers: LocalCallers) -> Self {
        let ca = TestCa::new("test.mesh");
        let mut apps = JoinSet::new();
        let (orders, db, local) = (
            http_app(&mut apps, "orders").await,
            tcp_app(&mut apps).await,
            http_app(&mut apps, "local").await,
        );
        let (to_orders, to_db, to_local, batch_to_orders) =
            (free_port().await, free_port().await, free_port().await, free_port().await);
        let n2 = agent(&ca, "n2", &["orders", "db"], local_callers).await;
        let n1 = agent(&ca, "n1", &["web", "local", "batch"], local_callers).await;
        let mut snapshot = empty(&ca, "n1");
        snapshot.revision = Revision::new(1, 1);
        for (name, protocol) in [("orders", Protocol::Http), ("db", Protocol::Tcp)] {
            routes(&ca, &mut snapshot, name, protocol);
            endpoint(&mut snapshot, name, "n2", n2.handle.inbound());
        }
        routes(&ca, &mut snapshot, "local", Protocol::Http);
        endpoint(&mut snapshot, "local", "n1", n1.handle.inbound());
        access(&ca, &mut snapshot, "local", Protocol::Http, &["web"]);
        hosted(&mut snapshot, "local", local, &[]);
        let ports = [("orders", to_orders), ("db", to_db), ("local", to_local)];
        hosted(&mut snapshot, "web", free_port().await, &ports);
        hosted(&mut snapshot, "batch", free_port().await, &[("orders", batch_to_orders)]);
        assert!(n1.live.publish(snapshot));
        let mut snapshot = empty(&ca, "n2");
        snapshot.revision = Revision::new(1, 1);
        access(&ca, &mut snapshot, "orders", Protocol::Http, &["web"]);
        access(&ca, &mut snapshot, "db", Protocol::Tcp, &["web"]);
        hosted(&mut snapshot, "orders", orders, &[]);
        hosted(&mut snapshot, "db", db, &[]);
        assert!(n2.live.publish(snapshot));
        let db_app = db;
        let world = Self { ca, n1, n2, db_app, to_orders, to_db, to_local, batch_to_orders, apps };
        for port in [to_orders, to_db, to_local, batch_to_orders] {
            listening(port).await;
        }
        world
    }

    /// Takes the only allow of `name` away at the callee.
    pub(super) fn deny(&self, name: &str) {
        let mut next = (*self.n2.live.load()).clone();
        next.revision.index += 1;
        let access = Arc::make_mut(next.access.get_mut(&service(name)).unwrap());
        access.rules.clear();
        assert!(self.n2.live.publish(next));
    }

    pub(super) async fn stop(mut self) {
        for agent in [self.n1, self.n2] {
            agent.shutdown.cancel();
            let stopping = tokio::time::timeout(Duration::from_secs(10), agent.handle.stopped());
            stopping.await.expect("the proxy stops within its drain");
        }
        self.apps.shutdown().await;
    }
}

pub(super) async fn listening(port: SocketAddr) {
    for _ in 0..200 {
        if TcpStream::connect(port).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nothing listens on {port}");
}

/// Puts a changed snapshot in force at `agent`.
pub(super) fn swap(agent: &Agent, change: impl FnOnce(&mut ProxySnapshot)) {
    let mut next = (*agent.live.load()).clone();
    next.revision.index += 1;
    change(&mut next);
    assert!(agent.live.publish(next));
}

async fn agent(ca: &TestCa, node: &str, services: &[&str], local_callers: LocalCallers) -> Agent {
    let live = Live::new(empty(ca, node));
    let identities = Identities::new(ca.source(&ca.node_id(node)), ca.trust());
    for name in services {
        identities.put(&service(name), ca.svid(&ca.service_id(name)));
    }
    let identities = Arc::new(identities);
    let shutdown = CancellationToken::new();
    let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let mut registry = Registry::default();
    let handle = start(ProxyDeps {
        live: Arc::clone(&live),
        identities: Arc::clone(&identities),
        callers: Arc::new(Callers::new(None, Vec::new()).unwrap()),
        metrics: ProxyMetrics::register(&mut registry),
        access_log: AccessLog::All,
        local_callers,
        inbound: loopback,
        http: Some(loopback),
        zone: "mesh".to_owned(),
        limits: ProxyLimits { drain: Duration::from_secs(2), ..ProxyLimits::default() },
        workers: 2,
        shutdown: shutdown.clone(),
    });
    Agent { live, identities, handle: handle.await.unwrap(), shutdown, registry }
}

fn empty(ca: &TestCa, node: &str) -> ProxySnapshot {
    let host = HostIdentity {
        trust_domain: ca.trust_domain.clone(),
        datacenter: ca.datacenter.clone(),
        node: node.parse().unwrap(),
    };
    let bundle: Bundle = ca.bundle();
    ProxySnapshot::empty(host, bundle)
}

pub(super) fn routes(ca: &TestCa, snapshot: &mut ProxySnapshot, name: &str, protocol: Protocol) {
    let routes = ServiceRoutes {
        service: service(name),
        id: ca.service_id(name),
        revision: snapshot.revision,
        protocol: Some(protocol),
        timeout_ms: 2_000,
        connect_timeout_ms: 4_000,
        origin: None,
        version: 1,
        routes: Vec::new(),
    };
    snapshot.routes.insert(service(name), Arc::new(routes));
}

pub(super) fn endpoint(snapshot: &mut ProxySnapshot, name: &str, node: &str, address: SocketAddr) {
    let endpoint = Endpoint {
        instance: format!("{name}-1").parse().unwrap(),
        node: node.parse().unwrap(),
        address,
        subsets: Vec::new(),
        state: EndpointState::Healthy,
    };
    let (service, revision) = (service(name), snapshot.revision);
    let endpoints = ServiceEndpoints { service, revision, endpoints: vec![endpoint] };
    snapshot.endpoints.insert(endpoints.service.clone(), Arc::new(endpoints));
}

pub(super) fn access(
    ca: &TestCa, snapshot: &mut ProxySnapshot, name: &str, protocol: Protocol, from: &[&str],
) {
    let id: RuleId = format!("allow.{name}/callers").parse().unwrap();
    let source = |name: &&str| Source::Service { service: service(name), dc: None };
    let rule = CompiledRule {
        id,
        from: from.iter().map(source).collect(),
        http: Vec::new(),
        mode: Mode::Enforce,
        origin: Origin { file: "test.toml".to_owned(), line: 1 },
        version: 1,
    };
    let access = ServiceAccess {
        service: service(name),
        id: ca.service_id(name),
        revision: snapshot.revision,
        protocol: Some(protocol),
        mode: AccessMode::Enforce,
        version: 1,
        rules: vec![rule],
    };
    snapshot.access.insert(service(name), Arc::new(access));
}

pub(super) fn hosted(
    snapshot: &mut ProxySnapshot, name: &str, address: SocketAddr, ports: &[(&str, SocketAddr)],
) {
    let upstream = |(name, listen): &(&str, SocketAddr)| UpstreamListener {
        service: service(name),
        listen: *listen,
    };
    let instance = HostedInstance {
        id: format!("{name}-1").parse().unwrap(),
        service: service(name),
        address,
        health: Health::Passing,
        exclusive: false,
        upstreams: ports.iter().map(upstream).collect(),
    };
    snapshot.hosted.insert(instance.id.clone(), Arc::new(instance));
}

/// An application that answers with its name, the request line and the headers it saw, in plain
/// bytes, so that nothing of ours interprets what it received.
async fn http_app(apps: &mut JoinSet<()>, name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    apps.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(answer_each(stream, name));
        }
    });
    address
}

async fn answer_each(mut stream: TcpStream, name: &'static str) {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(len @ 1..) = stream.read(&mut buffer).await {
        seen.extend_from_slice(&buffer[..len]);
        while let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&seen[..end]).into_owned();
            seen.drain(..end + 4);
            let length =
                head.lines().find_map(|l| l.strip_prefix("content-length: ")).unwrap_or("0");
            let length: usize = length.parse().unwrap();
            while seen.len() < length {
                let len = stream.read(&mut buffer).await.unwrap();
                seen.extend_from_slice(&buffer[..len]);
            }
            let body: Vec<u8> = seen.drain(..length).collect();
            let text = format!("{name}\n{head}\n\n{}", String::from_utf8_lossy(&body));
            let special = match head.split(' ').nth(1) {
                Some("/stream") => "200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n",
                Some("/204") => "204 No Content\r\n\r\n",
                Some("/304") => "304 Not Modified\r\ncontent-length: 7\r\n\r\n",
                Some("/101") => "101 Switching Protocols\r\nupgrade: x\r\n\r\nraw",
                Some("/old") => "200 OK\r\nmesh-error: denied\r\ncontent-length: 2\r\n\r\nhi",
                _ if head.starts_with("HEAD") => "200 OK\r\ncontent-length: 7\r\n\r\n",
                _ => "",
            };
            if !special.is_empty() {
                let version = if head.contains("/old") { "HTTP/1.0" } else { "HTTP/1.1" };
                stream.write_all(format!("{version} {special}").as_bytes()).await.unwrap();
                continue;
            }
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }
}

/// An application that greets first and then echoes.
async fn tcp_app(apps: &mut JoinSet<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    apps.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            connections.spawn(async move {
                stream.write_all(b"hello\n").await.unwrap();
                let (mut read, mut write) = stream.split();
                let _ended = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

/// A client's connection, for requests as plain text.
pub(super) struct Client(TcpStream);

impl Client {
    pub(super) async fn open(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    /// Sends `request` with its blank line; the answer's head and body, or nothing if the
    /// connection was closed.
    pub(super) async fn ask(&mut self, request: &str) -> Option<(String, String)> {
        self.0.write_all(request.as_bytes()).await.ok()?;
        let mut seen = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let len = tokio::time::timeout(Duration::from_secs(5), self.0.read(&mut buffer)).await;
            let len = len.expect("an answer in time").ok().filter(|len| *len > 0)?;
            seen.extend_from_slice(&buffer[..len]);
            let text = String::from_utf8_lossy(&seen).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length: BTreeMap<&str, &str> =
                head.lines().filter_map(|line| line.split_once(": ")).collect();
            let length: usize = length.get("content-length").map_or(0, |l| l.parse().unwrap());
            if body.len() >= length {
                return Some((head.to_owned(), body.to_owned()));
            }
        }
    }

    /// Sends bytes as they are.
    pub(super) async fn send(&mut self, bytes: &str) {
        self.0.write_all(bytes.as_bytes()).await.unwrap();
    }

    /// What arrives until `end` was seen, or the connection ended.
    pub(super) async fn until(&mut self, end: &str) -> String {
        let mut seen = Vec::new();
        let mut buffer = [0; 4096];
        while !String::from_utf8_lossy(&seen).ends_with(end) {
            let len = tokio::time::timeout(Duration::from_secs(5), self.0.read(&mut buffer)).await;
            match len.expect("something in time") {
                Ok(len @ 1..) => seen.extend_from_slice(&buffer[..len]),
                Ok(0) | Err(_) => break,
            }
        }
        String::from_utf8_lossy(&seen).into_owned()
    }

    /// Whether the other side ends the connection in time.
    pub(super) async fn ends(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let reading = async { while let Ok(1..) = self.0.read(&mut buffer).await {} };
        tokio::time::timeout(Duration::from_secs(2), reading).await.is_ok()
    }

    pub(super) async fn get(&mut self, path: &str) -> Option<(String, String)> {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: orders\r\n\r\n")).await
    }
}
