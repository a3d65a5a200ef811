//! Every route has a method, and every method asks its route.

use std::collections::BTreeSet;

use bytes::Bytes;
use mesh_core::api::{
    AddressRequest, ApplyRequest, CreateTokenRequest, DeleteRequest, EnrolRequest, IssueRequest,
    JoinServerRequest, ROUTES, RenewRequest, RevokeRequest, RouteId, SyncRequest, TokenPurpose,
};
use mesh_core::catalog::NodePolicy;
use mesh_core::trust::{Revoked, Role};
use mesh_core::why::{WhyCaller, WhyQuery};

use super::server::{TestServer, answer};
use super::*;

#[tokio::test]
async fn every_route_has_a_method() {
    let ca = TestCa::new("td.example");
    // No answer fits all types: what was asked is what counts.
    let server = TestServer::start(&ca, async |_| answer(200, "1.7", "{}")).await;
    let client = client(&ca, &[&server.address]);
    reads(&client).await;
    writes(&client).await;
    let asked: BTreeSet<String> = server
        .asked()
        .iter()
        .map(|line| line.split(['?', ' ']).take(2).collect::<Vec<_>>().join(" "))
        .collect();
    let filled = |path: &str| {
        path.split('/')
            .map(|part| if part.starts_with('{') { "x" } else { part })
            .collect::<Vec<_>>()
            .join("/")
    };
    let want: BTreeSet<String> = ROUTES
        .iter()
        // Tested by itself: it does not end.
        .filter(|route| route.id != RouteId::Stream)
        .map(|route| format!("{} {}", route.method, filled(route.path)))
        .collect();
    assert_eq!(asked, want);
}

async fn reads(client: &Client) {
    let options = ReadOptions::default();
    let (node, service) = ("x".parse().unwrap(), "x".parse().unwrap());
    let _ = client.ready().await;
    let _ = client.openapi().await;
    let _ = client.bundle(options).await;
    let _ = client.metrics().await;
    let _ = client.status().await;
    let _ = client.servers(options).await;
    let _ = client.tokens(options).await;
    let _ = client.own_instances(options).await;
    let _ = client.nodes(options).await;
    let _ = client.node(&node, options).await;
    let _ = client.agents(options).await;
    let _ = client.services(options).await;
    let _ = client.service(&service, options).await;
    let _ = client.health(&service, true, options).await;
    let _ = client.policy(options).await;
    let _ = client.policy_object("allow.orders/a b&c", options).await;
    let _ = client.why(&why()).await;
    let _ = client.save_snapshot(&mut Vec::new()).await;
}

async fn writes(client: &Client) {
    let (node, server, token) = ("x".parse().unwrap(), "x".parse().unwrap(), "x".parse().unwrap());
    let text = String::new;
    let join = JoinServerRequest {
        token: "x".parse().unwrap(),
        secret: text(),
        name: "x".parse().unwrap(),
        api_address: text(),
        raft_address: text(),
        csr_pem: text(),
        wrap_key: text(),
        feature_level: 1,
    };
    let enrol = EnrolRequest {
        token: "x".parse().unwrap(),
        secret: text(),
        node: "x".parse().unwrap(),
        address: [127, 0, 0, 1].into(),
        port: 1,
        csr_pem: text(),
    };
    let purpose = TokenPurpose::Api { role: Role::Viewer };
    let create = CreateTokenRequest { purpose, ttl_seconds: 1, note: text() };
    let issue = IssueRequest { service: "x".parse().unwrap(), csr_pem: text() };
    let sync = SyncRequest { upsert: Vec::new(), remove: Vec::new() };
    let apply = ApplyRequest {
        expected: None,
        files: Vec::new(),
        prune: false,
        dry_run: true,
        message: text(),
    };
    let revoke = RevokeRequest { what: Revoked::Serial(text()), reason: text() };
    let _ = client.join_server(&join).await;
    let _ = client.transfer(&transfer()).await;
    let _ = client.remove_server(&server).await;
    let _ = client.create_token(&create).await;
    let _ = client.delete_token(&token).await;
    let _ = client.enrol(&enrol).await;
    let _ = client.renew(&RenewRequest { csr_pem: text() }).await;
    let _ = client.issue(&issue).await;
    let _ = client.sync_instances(&sync).await;
    let _ = client.set_address(&AddressRequest { address: [127, 0, 0, 1].into(), port: 1 }).await;
    let _ = client.set_node_policy(&node, &NodePolicy::default()).await;
    let _ = client.remove_node(&node).await;
    let _ = client.apply_policy(&apply).await;
    let _ = client.delete_policy(&DeleteRequest { expected: None, ids: Vec::new() }).await;
    let _ = client.revoke(&revoke).await;
    let _ = client.restore_snapshot(Bytes::from_static(b"x")).await;
}

fn why() -> WhyQuery {
    let from = WhyCaller::Service("x".parse().unwrap());
    WhyQuery { from, to: "x".parse().unwrap(), http: None }
}
