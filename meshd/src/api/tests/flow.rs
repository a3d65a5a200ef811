//! From init to traffic: enrol, register, apply, ask why, watch.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_core::api::{ApplyRequest, DeleteRequest, RevokeRequest, SyncRequest};
use mesh_core::catalog::Health;
use mesh_core::command::HealthChange;
use mesh_core::name::ServiceName;
use mesh_core::resource::{Resource, ResourceKey};
use mesh_core::revision::Revision;
use mesh_core::stream::{
    Ack1, AgentHello1, HealthReport1, Heartbeat1, Subscribe1, ToAgent, ToServer,
};
use mesh_core::trust::{Revoked, Role};
use mesh_core::why::{WhyCaller, WhyHttp, WhyQuery};
use mesh_net::client::{Consistency, ErrorKind, ReadOptions, StreamReceiver, Wait};
use tokio::time::timeout;

use super::world::{World, init_options};
use crate::init::{InitError, init};

const POLICY: &str = "[service.orders]\nprotocol = \"http\"\n\n\
    [[allow.orders]]\nname = \"readers\"\nfrom = [\"web\"]\n\
    http = [{ methods = [\"GET\"], path_prefix = \"/v2/\" }]\n";

fn apply(text: &str) -> ApplyRequest {
    ApplyRequest {
        expected: None,
        files: vec![("orders.toml".to_owned(), text.to_owned())],
        prune: false,
        dry_run: false,
        message: "test".to_owned(),
    }
}

fn ask(method: &str, path: &str) -> WhyQuery {
    let (method, path) = (method.to_owned(), path.to_owned());
    WhyQuery {
        from: WhyCaller::Service("web".parse().unwrap()),
        to: "orders".parse().unwrap(),
        http: Some(WhyHttp { method, path, headers: Vec::new() }),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mesh_from_init_to_why() {
    let world = World::new().await;
    let status = world.admin.status().await.unwrap().value;
    assert_eq!((status.role.as_str(), status.server.as_str()), ("leader", "ctl-1"));
    assert_eq!(status.trust_domain.as_str(), "test.mesh.internal");
    let node = world.enrol("web-7", &["web", "orders"]).await;
    let written = node.register(&["web", "orders"]).await.unwrap();
    let refused = node.register(&["payments"]).await.unwrap_err();
    assert!(refused.has_code("node_policy"), "{refused}");
    let plan = ApplyRequest { dry_run: true, ..apply(POLICY) };
    let planned = world.admin.apply_policy(&plan).await.unwrap();
    assert_eq!((planned.version, planned.added.len()), (0, 2));
    let applied = world.admin.apply_policy(&apply(POLICY)).await.unwrap();
    assert_eq!(applied.version, 1);
    assert_eq!(applied.added, ["allow.orders/readers", "service.orders"]);
    assert!(applied.revision > written.revision && applied.warnings.is_empty());
    let yes = world.admin.why(&ask("GET", "/v2/x")).await.unwrap().value;
    assert!(yes.allowed && yes.version == 1, "{yes:?}");
    let no = world.admin.why(&ask("DELETE", "/v2/x")).await.unwrap().value;
    assert!(!no.allowed);
    let stale = ApplyRequest { expected: Some(7), ..apply(POLICY) };
    let conflict = world.admin.apply_policy(&stale).await.unwrap_err();
    assert_eq!(conflict.kind(), ErrorKind::Conflict);
    let wrong =
        world.admin.apply_policy(&apply("[service.orders]\nprotcol = 1")).await.unwrap_err();
    assert!(wrong.to_string().contains("orders.toml:2:1"), "{wrong}");
    let world = world.restart().await;
    let again = world.admin.status().await.unwrap().value;
    assert_eq!((again.policy_version, again.nodes, again.instances), (1, 1, 2));
    let gone = DeleteRequest { expected: None, ids: vec!["allow.orders/readers".to_owned()] };
    let gone = world.admin.delete_policy(&gone).await.unwrap();
    assert_eq!((gone.version, gone.removed.len(), gone.warnings.len()), (2, 1, 1));
    let entries = world.admin.policy(ReadOptions::consistent()).await.unwrap().value.objects;
    assert_eq!(entries.len(), 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn init_refuses_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    init(init_options(dir.path())).await.unwrap();
    let mut options = init_options(dir.path());
    let error = init(options.clone()).await.unwrap_err();
    assert!(matches!(error, InitError::Exists(_)), "{error}");
    options.token_out = dir.path().join("sub");
    std::fs::create_dir(&options.token_out).unwrap();
    options.token_out.push("token");
    let error = init(options).await.unwrap_err();
    assert!(error.to_string().contains("not empty"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_write_only_their_services() {
    let world = World::new().await;
    let role = Role::Operator { services: vec!["pay-*".parse().unwrap()] };
    let operator = world.with_role(role).await;
    let refused = operator.apply_policy(&apply(POLICY)).await.unwrap_err();
    assert!(refused.has_code("forbidden"), "{refused}");
    world.admin.apply_policy(&apply(POLICY)).await.unwrap();
    // Not by replacing somebody else's file either, nor by pruning it.
    let own = "[service.pay-eu]\n";
    for (name, prune) in [("orders.toml", false), ("pay.toml", true)] {
        let files = vec![(name.to_owned(), own.to_owned())];
        let request = ApplyRequest { files, prune, ..apply("") };
        let refused = operator.apply_policy(&request).await.unwrap_err();
        assert!(refused.has_code("forbidden"), "{name}: {refused}");
    }
    let files = vec![("pay.toml".to_owned(), own.to_owned())];
    assert!(operator.apply_policy(&ApplyRequest { files, ..apply("") }).await.is_ok());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocking_queries_wait_for_what_they_ask() {
    let world = World::new().await;
    let orders: ServiceName = "orders".parse().unwrap();
    let options = |index| ReadOptions {
        consistency: Consistency::Default,
        wait: Some(Wait { index, wait: Duration::from_secs(30) }),
    };
    let now = world.admin.status().await.unwrap().revision;
    let at_once = Duration::from_secs(5);
    let admin = world.admin.clone();
    let (name, waits) = (orders.clone(), options(now));
    let waiting = tokio::spawn(async move { admin.health(&name, false, waits).await });
    let node = world.enrol("web-7", &["orders"]).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished(), "woken by a node that hosts nothing");
    node.register(&["orders"]).await.unwrap();
    let answer = timeout(at_once, waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(answer.value.len(), 1);
    assert!(answer.revision > now);
    // Older, and of another epoch: at once.
    for index in [Revision::new(1, 1), Revision::new(9, 9)] {
        let read = world.admin.health(&orders, true, options(index));
        assert_eq!(timeout(at_once, read).await.unwrap().unwrap().value.len(), 1);
    }
    world.stop().await;
}

async fn batch(stream: &mut StreamReceiver) -> (mesh_core::stream::Batch1, Vec<Resource>) {
    let next = async {
        loop {
            if let ToAgent::Batch(head) = stream.recv().await.unwrap().unwrap() {
                let mut resources = Vec::new();
                for _ in 0..head.resources {
                    let Some(ToAgent::Resource(resource)) = stream.recv().await.unwrap() else {
                        panic!("expected a resource")
                    };
                    resources.push(resource);
                }
                return (head, resources);
            }
        }
    };
    timeout(Duration::from_secs(10), next).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_sends_what_the_agent_may_know() {
    let world = World::new().await;
    let node = world.enrol("web-7", &["orders"]).await;
    let orders: ServiceName = "orders".parse().unwrap();
    let keys = [
        ResourceKey::Routes(orders.clone()),
        ResourceKey::Endpoints(orders.clone()),
        ResourceKey::Access(orders.clone()),
    ];
    let hello = AgentHello1 {
        node: "web-7".parse().unwrap(),
        generation: 1,
        version: "0".to_owned(),
        applied: Revision::ZERO,
        subscriptions: keys.iter().map(|key| (key.clone(), Revision::ZERO)).collect(),
    };
    let (sender, mut receiver) = node.client.stream(hello.clone()).await.unwrap();
    let (head, resources) = batch(&mut receiver).await;
    let got: Vec<ResourceKey> = resources.iter().map(Resource::key).collect();
    assert!(head.full);
    let without_access = [ResourceKey::Bundle, keys[0].clone(), keys[1].clone()];
    assert_eq!(got, without_access, "access is for hosts only");
    node.register(&["orders"]).await.unwrap();
    let mut got = Vec::new();
    while !got.contains(&keys[2]) {
        let (head, resources) = batch(&mut receiver).await;
        assert!(!head.full);
        got.extend(resources.iter().map(Resource::key));
    }
    let revision = world.admin.apply_policy(&apply(POLICY)).await.unwrap().revision;
    let (head, resources) = loop {
        let (head, resources) = batch(&mut receiver).await;
        if head.revision >= revision {
            break (head, resources);
        }
    };
    assert_eq!((head.revision, resources.len()), (revision, 3), "one batch for one revision");
    sender.send(&ToServer::Ack(Ack1 { revision })).await.unwrap();
    let web: ServiceName = "web".parse().unwrap();
    let add = vec![ResourceKey::Routes(web)];
    sender.send(&ToServer::Subscribe(Subscribe1 { add, remove: Vec::new() })).await.unwrap();
    let (_, resources) = loop {
        let next = batch(&mut receiver).await;
        if !next.1.is_empty() {
            break next;
        }
    };
    assert_eq!(resources.len(), 1);
    let beat =
        Heartbeat1 { applied: revision, warnings: vec!["w".to_owned()], ..Default::default() };
    sender.send(&ToServer::Heartbeat(beat)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let agents = world.admin.agents(ReadOptions::default()).await.unwrap().value;
    assert_eq!(agents.len(), 1);
    assert!(agents[0].connected && agents[0].report.applied == revision, "{agents:?}");
    assert_eq!(agents[0].report.warnings, ["w"]);
    let change = HealthChange { health: Health::Critical, checks: BTreeMap::new() };
    let changes = BTreeMap::from([("orders-1".parse().unwrap(), change)]);
    sender.send(&ToServer::Health(HealthReport1 { changes })).await.unwrap();
    let critical = async || {
        let all = world.admin.health(&orders, false, ReadOptions::default()).await.unwrap();
        all.value[0].instance.spec.health == Health::Critical
    };
    timeout(Duration::from_secs(5), async {
        while !critical().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
    let what = Revoked::Key(node.svid.current().key_hash);
    let revoke = RevokeRequest { what, reason: "test".to_owned() };
    world.admin.revoke(&revoke).await.unwrap();
    let ended = async {
        loop {
            match receiver.recv().await {
                Ok(Some(ToAgent::Goodbye(_)) | None) | Err(_) => return,
                Ok(Some(_)) => {}
            }
        }
    };
    timeout(Duration::from_secs(5), ended).await.unwrap();
    assert!(node.client.stream(hello).await.is_err(), "a revoked node comes in");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_brings_the_state_back_in_a_new_epoch() {
    let world = World::new().await;
    world.admin.apply_policy(&apply(POLICY)).await.unwrap();
    let mut backup = Vec::new();
    world.admin.save_snapshot(&mut backup).await.unwrap();
    let gone = DeleteRequest { expected: None, ids: vec!["orders.toml".to_owned()] };
    world.admin.delete_policy(&gone).await.unwrap();
    let mut damaged = backup.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let error = world.admin.restore_snapshot(damaged.into()).await.unwrap_err();
    assert!(error.has_code("restore"), "{error}");
    let restored = world.admin.restore_snapshot(backup.into()).await.unwrap().revision;
    assert_eq!(restored.epoch, 2);
    let policy = world.admin.policy(ReadOptions::default()).await.unwrap().value;
    assert_eq!(policy.objects.len(), 2);
    assert!(policy.version > 2, "a version is never used twice");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_come_and_go() {
    let world = World::new().await;
    let node = world.enrol("web-7", &["*"]).await;
    node.register(&["a", "b"]).await.unwrap();
    let own = node.client.own_instances(ReadOptions::default()).await.unwrap().value;
    assert_eq!(own.len(), 2);
    let remove = vec!["a-1".parse().unwrap()];
    let sync = SyncRequest { upsert: Vec::new(), remove };
    node.client.sync_instances(&sync).await.unwrap();
    let services = world.admin.services(ReadOptions::default()).await.unwrap().value;
    let counts: Vec<_> = services.iter().map(|s| (s.service.as_str(), s.instances)).collect();
    assert_eq!(counts, [("b", 1)]);
    world.admin.remove_node(&"web-7".parse().unwrap()).await.unwrap();
    let refused = node.client.own_instances(ReadOptions::default()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Forbidden, "{refused}");
    world.stop().await;
}
