//! Writes through a follower: the rules hold for who asks, not for the server that forwards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::api::{ApplyRequest, CreateTokenRequest, TokenPurpose};
use mesh_core::catalog::Health;
use mesh_core::command::{
    ApplyPolicy1, CommandKind, HealthChange, Rejected, SetHealth1, SetNodeAddress1, SyncInstances1,
};
use mesh_core::name::NodeName;
use mesh_core::policy::text;
use mesh_core::trust::{Principal, Role};
use mesh_net::client::{ClientError, ReadOptions};
use mesh_net::token::{JoinToken, Secret};

use super::cluster::{first, further, until, voters};
use super::world::{Node, World, spec};
use crate::raft::ProposeError;

const ORDERS: &str = "[service.orders]\nprotocol = \"http\"\n";
const PAY: &str = "[service.pay-eu]\nprotocol = \"http\"\n";

const LIMIT: Duration = Duration::from_secs(30);

/// A leader and its follower.
async fn pair() -> (World, World) {
    let leader = first().await;
    let follower = further(&leader, "ctl-2").await;
    until("two voters", LIMIT, async || voters(&leader).await == 2).await;
    let leads = |world: &World| world.server.node.is_leader();
    until("one leads", LIMIT, async || leads(&leader) != leads(&follower)).await;
    if leads(&leader) { (leader, follower) } else { (follower, leader) }
}

/// Waits until `follower` knows what was written before.
async fn caught_up(follower: &World) {
    follower.admin.nodes(ReadOptions::consistent()).await.unwrap();
}

async fn end(leader: World, follower: World) {
    follower.stop().await;
    leader.stop().await;
}

/// Status, code and words of a refusal.
fn words<T>(refused: Result<T, ClientError>) -> (u16, String, String) {
    match refused {
        Err(ClientError::Api { status, error }) => (status, error.code, error.message),
        Err(other) => panic!("expected a refusal, found {other}"),
        Ok(_) => panic!("expected a refusal"),
    }
}

fn apply(name: &str, text: &str) -> ApplyRequest {
    ApplyRequest {
        expected: None,
        files: vec![(name.to_owned(), text.to_owned())],
        prune: false,
        dry_run: false,
        message: String::new(),
    }
}

fn command(text: &str) -> CommandKind {
    let files = vec![text::parse("pay.toml", text).unwrap()];
    let (remove, message) = (Vec::new(), String::new());
    CommandKind::ApplyPolicy1(ApplyPolicy1 { expected: None, files, remove, message })
}

/// Proposes past the follower's own checks, so that the leader's are what refuses.
async fn refused_by_the_log(follower: &World, by: &Principal, kind: CommandKind) {
    let said = follower.server.node.propose(by.clone(), kind.clone()).await;
    let who = by.to_string();
    let right = matches!(
        &said,
        Err(ProposeError::Rejected(Rejected::Forbidden { by })) if *by == who
    );
    assert!(right, "{kind:?}: {said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_writes_as_the_operator_that_asked() {
    let (leader, follower) = pair().await;
    let role = Role::Operator { services: vec!["pay-*".parse().unwrap()] };
    let token = leader.token(TokenPurpose::Api { role: role.clone() }).await;
    caught_up(&follower).await;
    let client = |at: &World| at.client().token(Secret::new(token.clone())).build().unwrap();
    let (here, there) = (client(&leader), client(&follower));

    let foreign = apply("orders.toml", ORDERS);
    let by_leader = words(here.apply_policy(&foreign).await);
    assert_eq!((by_leader.0, by_leader.1.as_str()), (403, "forbidden"));
    assert_eq!(words(there.apply_policy(&foreign).await), by_leader);
    let purpose = TokenPurpose::Api { role: Role::Admin };
    let more = CreateTokenRequest { purpose, ttl_seconds: 600, note: String::new() };
    let by_leader = words(here.create_token(&more).await);
    assert_eq!((by_leader.0, by_leader.1.as_str()), (403, "forbidden"));
    assert_eq!(words(there.create_token(&more).await), by_leader);

    let id = token.parse::<JoinToken>().unwrap().id.clone();
    let by = Principal::Token { id, role };
    refused_by_the_log(&follower, &by, command(ORDERS)).await;
    follower.server.node.propose(by.clone(), command(PAY)).await.unwrap();
    there.apply_policy(&apply("pay.toml", PAY)).await.unwrap();
    let policy = leader.admin.policy(ReadOptions::consistent()).await.unwrap().value;
    let ids: Vec<&str> = policy.objects.iter().map(|object| object.id.as_str()).collect();
    assert_eq!(ids, ["service.pay-eu"]);
    end(leader, follower).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_writes_as_the_node_that_asked() {
    let (leader, follower) = pair().await;
    let web = leader.enrol("web-7", &["web"]).await;
    let db = leader.enrol("db-1", &["db"]).await;
    caught_up(&follower).await;
    let through = |node: &Node| {
        let client = follower.client().identity(Arc::clone(&node.svid)).build().unwrap();
        Node { key: node.key.clone(), svid: Arc::clone(&node.svid), client }
    };
    through(&web).register(&["web"]).await.unwrap();
    let by_leader = words(db.register(&["web"]).await);
    assert_eq!((by_leader.0, by_leader.1.as_str()), (403, "node_policy"));
    assert_eq!(words(through(&db).register(&["web"]).await), by_leader);

    let node: NodeName = "web-7".parse().unwrap();
    let change = HealthChange { health: Health::Critical, checks: BTreeMap::new() };
    let changes = BTreeMap::from([("web-1".parse().unwrap(), change)]);
    let address = "10.0.0.9".parse().unwrap();
    let of_web = |node: NodeName| {
        [
            CommandKind::SetHealth1(SetHealth1 { node: node.clone(), changes: changes.clone() }),
            CommandKind::SetNodeAddress1(SetNodeAddress1 { node: node.clone(), address, port: 1 }),
            CommandKind::SyncInstances1(SyncInstances1 {
                node,
                upsert: vec![spec("web")],
                remove: Vec::new(),
            }),
        ]
    };
    let before = leader.admin.node(&node, ReadOptions::consistent()).await.unwrap().value;
    for kind in of_web(node.clone()) {
        refused_by_the_log(&follower, &Principal::Node("db-1".parse().unwrap()), kind).await;
    }
    let after = leader.admin.node(&node, ReadOptions::consistent()).await.unwrap().value;
    assert_eq!(after, before);
    for kind in of_web(node.clone()) {
        follower.server.node.propose(Principal::Node(node.clone()), kind).await.unwrap();
    }
    let after = leader.admin.node(&node, ReadOptions::consistent()).await.unwrap().value;
    assert_eq!(after.node.address, address);
    end(leader, follower).await;
}
