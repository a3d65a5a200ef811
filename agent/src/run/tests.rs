#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod server;
use std::time::Duration;

use std::fs;
use std::path::PathBuf;
use std::sync::MutexGuard;

use mesh_core::catalog::Health;
use mesh_net::testing::TestCa;
use mesh_net::token::{JoinToken, TokenKind};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::status::Status;
use server::{FORBIDDEN, REVISION, Seen, Server};

/// A host's disk, which outlives the agent's processes.
struct Host {
    dir: TempDir,
}

impl Host {
    fn new(ca: &TestCa) -> Self {
        let host = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(host.path("services.d")).unwrap();
        let (kind, id) = (TokenKind::JoinNode, "t-1".parse().unwrap());
        let token = JoinToken { kind, id, secret: [7; 32], ca: ca.pin() };
        fs::write(host.path("token"), token.to_text().as_str()).unwrap();
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn declare(&self, name: &str, service: &str) {
        let text =
            format!("[instance.{name}]\nservice = \"{service}\"\nport = 1\nupstreams = [\"db\"]\n");
        fs::write(self.path(&format!("services.d/{name}.toml")), text).unwrap();
    }

    fn config(&self, server: &str) -> Config {
        let servers = vec![server.to_owned()];
        let mut config = Config::new("web-7".parse().unwrap(), servers, self.path("data"));
        config.token_file = Some(self.path("token"));
        config.services_dir = self.path("services.d");
        config.inbound = "127.0.0.1:0".parse().unwrap();
        config.http = None;
        config.admin = None;
        config.socket = Some(self.path("agent.sock"));
        config.limits.drain = Duration::from_millis(100);
        config
    }

    fn boot(&self, server: &str) -> Agent {
        let shutdown = CancellationToken::new();
        let deps = Deps {
            clock: Arc::new(mesh_net::clock::now),
            registry: Registry::default(),
            shutdown: shutdown.clone(),
        };
        let task = tokio::spawn(run(self.config(server), deps));
        Agent { socket: self.path("agent.sock"), shutdown, task }
    }
}

/// A process of the agent.
struct Agent {
    socket: PathBuf,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), RunError>>,
}

impl Agent {
    /// What the agent says over its socket; `None` until it listens.
    async fn status(&self) -> Option<Status> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::UnixStream::connect(&self.socket).await.ok()?;
        stream.write_all(b"{\"op\":\"status\"}\n").await.ok()?;
        stream.shutdown().await.ok()?;
        let mut line = String::new();
        stream.read_to_string(&mut line).await.ok()?;
        let answer: serde_json::Value = serde_json::from_str(&line).ok()?;
        serde_json::from_value(answer["result"].clone()).ok()
    }

    async fn until(&self, what: &str, good: impl Fn(&Status) -> bool) -> Status {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let status = self.status().await;
            if let Some(status) = status.clone().filter(|status| good(status)) {
                return status;
            }
            assert!(Instant::now() < deadline, "no {what}: {status:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn stop(self) {
        let started = Instant::now();
        self.shutdown.cancel();
        timeout(Duration::from_secs(10), self.task).await.unwrap().unwrap().unwrap();
        assert!(started.elapsed() < Duration::from_secs(5), "took {:?}", started.elapsed());
    }
}

async fn until(server: &Server, what: &str, good: impl Fn(&Seen) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !good(&seen(server)) {
        assert!(Instant::now() < deadline, "no {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn seen(server: &Server) -> MutexGuard<'_, Seen> {
    server.seen.lock().unwrap()
}

fn ca() -> Arc<TestCa> {
    Arc::new(TestCa::new("abc.mesh.internal"))
}

#[tokio::test]
async fn a_new_host_joins_registers_and_serves() {
    let server = Server::start(ca()).await;
    let host = Host::new(&server.ca);
    host.declare("web-1", "web");
    host.declare("secret-1", FORBIDDEN);
    let agent = host.boot(&server.address.to_string());

    let web = server.ca.service_id("web").to_string();
    let status = agent
        .until("certificate of web and refusal of secret", |status| {
            status.leaves.contains_key(&web) && !status.refused.is_empty()
        })
        .await;
    assert_eq!(status.revision, REVISION);
    assert_eq!(status.ready(), Ok(()));
    assert_eq!(status.stale_since, None);
    assert_eq!(status.refused["secret-1"], "the node may not host secret (node_policy)");
    assert!(!host.path("token").exists(), "the used token is gone");

    until(&server, "heartbeat with the leaf", |seen| {
        seen.beat.as_ref().is_some_and(|beat| beat.leaves.contains_key(&web))
    })
    .await;
    until(&server, "health", |seen| {
        seen.health.get("web-1").is_some_and(|change| change.health == Health::Passing)
    })
    .await;
    {
        let seen = seen(&server);
        assert_eq!(seen.acked, Some(REVISION));
        assert_eq!(seen.registered.len(), 1);
        assert!(seen.address.is_some());
        assert!(
            seen.subscribed
                .contains(&mesh_core::resource::ResourceKey::Routes("db".parse().unwrap()))
        );
    }
    host.declare("mail-1", "mail");
    until(&server, "registration of mail", |seen| seen.registered.contains_key("mail-1")).await;
    fs::remove_file(host.path("services.d/mail-1.toml")).unwrap();
    until(&server, "removal of mail", |seen| !seen.registered.contains_key("mail-1")).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_host_boots_with_every_server_dead_and_comes_back() {
    let server = Server::start(ca()).await;
    let host = Host::new(&server.ca);
    host.declare("web-1", "web");
    let address = server.address.to_string();
    let agent = host.boot(&address);
    let web = server.ca.service_id("web").to_string();
    let before = agent.until("certificate of web", |s| s.leaves.contains_key(&web)).await;
    agent.stop().await;
    let ca = server.ca.clone();
    drop(server);

    let agent = host.boot(&address);
    let status = agent.until("status", |_| true).await;
    assert_eq!(status.ready(), Ok(()), "serves from disk");
    assert_eq!(status.revision, REVISION);
    assert!(status.stale_since.is_some());
    assert_eq!(status.leaves, before.leaves, "the same certificates");
    assert!(status.cache.contains("from disk"), "{}", status.cache);
    assert_eq!(status.generation, before.generation + 1);
    agent.stop().await;

    let server = Server::start(ca).await;
    let agent = host.boot(&server.address.to_string());
    agent.until("live stream", |status| status.stale_since.is_none()).await;
    let (_, applied) = seen(&server).hellos[0];
    assert_eq!(applied, REVISION, "resumes from what it holds");
    assert!(seen(&server).keys.is_empty(), "did not enrol again");
    agent.stop().await;
}

#[tokio::test]
async fn after_a_reconnect_everything_is_compared_again() {
    let server = Server::start(ca()).await;
    let (ca, address) = (server.ca.clone(), server.address);
    let host = Host::new(&ca);
    host.declare("web-1", "web");
    let agent = host.boot(&address.to_string());
    until(&server, "registration", |seen| seen.registered.contains_key("web-1")).await;
    drop(server);
    let status = agent.until("loss", |status| status.stale_since.is_some()).await;
    assert!(status.stream_error.is_some());
    assert_eq!(status.ready(), Ok(()), "serves on");
    host.declare("mail-1", "mail");

    // A server that forgot everything, and knows of an instance that is none of ours.
    let server = Server::start_at(ca, address).await;
    let other = host::tests::host("[instance.old-1]\nservice = \"old\"\nport = 1\n");
    let other = register::desired(&other, &Report::new());
    seen(&server).registered.extend(other);
    until(&server, "the same list", |seen| {
        let names: Vec<_> = seen.registered.keys().map(|id| id.as_str()).collect();
        names == ["mail-1", "web-1"]
    })
    .await;
    until(&server, "health", |seen| seen.health.len() == 2).await;
    agent.until("live stream", |status| status.stale_since.is_none()).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_host_that_was_off_renews_its_expired_certificate() {
    let server = Server::start(ca()).await;
    let host = Host::new(&server.ca);
    host.declare("web-1", "web");
    let id = server.ca.node_id("web-7");
    let leaf = server.ca.leaf(&id, |params| mesh_net::testing::set_life(params, -7_200, -3_600));
    let store = IdentityStore::open(&host.path("data")).unwrap();
    store.put_node_key(&leaf.key_der).unwrap();
    let enrolled = Enrolled {
        host: mesh_core::snapshot::HostIdentity {
            trust_domain: server.ca.trust_domain.clone(),
            datacenter: server.ca.datacenter.clone(),
            node: "web-7".parse().unwrap(),
        },
        chain_pem: leaf.chain_pem,
        roots_pem: server.ca.root_pem(),
        servers: vec![],
    };
    store.put_enrolled(&enrolled).unwrap();

    let agent = host.boot(&server.address.to_string());
    let web = server.ca.service_id("web").to_string();
    let status = agent
        .until("live stream and certificate", |status| {
            status.stale_since.is_none() && status.leaves.contains_key(&web)
        })
        .await;
    assert!(status.leaves[&id.to_string()] > mesh_net::clock::now());
    assert!(seen(&server).keys.is_empty(), "did not enrol again");
    let kept = store.enrolled().unwrap().unwrap();
    assert_ne!(kept.chain_pem, enrolled.chain_pem, "the new one is on disk");
    agent.stop().await;
}

#[tokio::test]
async fn a_refused_token_is_said_in_the_servers_words() {
    let server = Server::start(ca()).await;
    seen(&server).token_error = Some("token t-1 was used on 2026-11-22".to_owned());
    let host = Host::new(&server.ca);
    let agent = host.boot(&server.address.to_string());
    let error = timeout(Duration::from_secs(10), agent.task).await.unwrap().unwrap().unwrap_err();
    let text = mesh_net::telemetry::Chain(&error).to_string();
    assert_eq!(text, "the mesh refused this host: token t-1 was used on 2026-11-22 (token_used)");
    assert!(host.path("token").exists());
    assert!(host.path("data/keys/node.key").exists(), "the key waits for another token");
}

#[tokio::test]
async fn one_process_uses_a_data_directory() {
    let server = Server::start(ca()).await;
    let host = Host::new(&server.ca);
    let agent = host.boot(&server.address.to_string());
    agent.until("status", |_| true).await;
    let second = host.boot(&server.address.to_string());
    let error = timeout(Duration::from_secs(10), second.task).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, RunError::InUse { .. }), "{error:?}");
    agent.stop().await;
}
