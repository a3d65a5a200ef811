//! Who gets a certificate: tokens once, keys from then on, services by policy.

use std::time::Duration;

use mesh_core::api::{EnrolRequest, IssueRequest, RenewRequest};
use mesh_core::identity::SpiffeId;
use mesh_core::time::UnixMillis;
use mesh_core::trust::Principal;
use mesh_net::client::{ClientBuilder, ErrorKind, ReadOptions, Trust};
use mesh_net::tls::{PeerIdentity, Svid, SvidSource};
use mesh_net::{clock, csr};

use super::world::World;
use crate::api::auth::by_certificate;
use crate::ca::CsrKey;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_enrols_once() {
    let world = World::new().await;
    let token = world.node_token(&["*"]).await;
    let both = tokio::join!(world.enrol_with(&token, "a"), world.enrol_with(&token, "a"));
    let (first, second) = (both.0.is_ok(), both.1.is_ok());
    assert!(first != second, "exactly one wins: {first} {second}");
    let late = world.enrol_with(&token, "b").await.err().unwrap();
    assert!(late.has_code("token_used"), "{late}");
    // The winner may repeat itself, should its answer get lost: same key, same name.
    let token = world.node_token(&["*"]).await;
    let (_, csr_pem) = csr::generate().unwrap();
    let request = EnrolRequest {
        token: token.id.clone(),
        secret: token.secret_hex().to_string(),
        node: "again".parse().unwrap(),
        address: "10.0.0.7".parse().unwrap(),
        port: 7443,
        csr_pem,
    };
    let client = ClientBuilder::new([world.address.clone()]).trust(Trust::Pin(token.ca));
    let client = client.build().unwrap();
    assert!(client.enrol(&request).await.is_ok());
    assert!(client.enrol(&request).await.is_ok());
    let other = ClientBuilder::new([world.address.clone()]).trust(Trust::Pin([7; 32]));
    assert!(other.build().unwrap().enrol(&request).await.is_err(), "another CA's pin");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guessing_is_bounded() {
    let world = World::new().await;
    let mut token = world.node_token(&["*"]).await;
    let right = token.secret;
    token.secret = [0; 32];
    for attempt in 0..10 {
        let error = world.enrol_with(&token, "a").await.err().unwrap();
        assert!(error.has_code("token_invalid"), "{attempt}: {error}");
    }
    token.secret = right;
    let error = world.enrol_with(&token, "a").await.err().unwrap();
    assert!(error.has_code("too_many_attempts"), "{error}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_bound_to_node_key_and_policy() {
    let world = World::new().await;
    let node = world.enrol("web-7", &["web"]).await;
    let (service_key, csr_pem) = csr::generate().unwrap();
    let ask = |service: &str| IssueRequest {
        service: service.parse().unwrap(),
        csr_pem: csr_pem.clone(),
    };
    let early = node.client.issue(&ask("web")).await.unwrap_err();
    assert!(early.has_code("not_registered"), "{early}");
    node.register(&["web"]).await.unwrap();
    let leaf = node.client.issue(&ask("web")).await.unwrap();
    let svid = Svid::from_pem(&leaf.chain_pem, &service_key).unwrap();
    assert_eq!(svid.id.to_string(), "spiffe://test.mesh.internal/ns/default/dc/dc1/svc/web");
    assert!(node.client.issue(&ask("orders")).await.unwrap_err().has_code("not_registered"));
    // Renewal is for the enrolled key and no other.
    let csr_pem = csr::csr_for(&node.key).unwrap();
    let renewed = node.client.renew(&RenewRequest { csr_pem }).await.unwrap();
    assert_eq!(renewed.id, node.svid.current().id);
    let (_, other) = csr::generate().unwrap();
    let refused = node.client.renew(&RenewRequest { csr_pem: other }).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_certificate_renews_and_nothing_else() {
    let world = World::new().await;
    let node = world.enrol("web-7", &["web"]).await;
    let csr_pem = csr::csr_for(&node.key).unwrap();
    let (server, key) = (&world.server, CsrKey::from_pem(&csr_pem).unwrap());
    let past = UnixMillis(clock::now().0 - 240_000);
    let id = &node.svid.current().id;
    let issuer = server.issuer(&server.node.state()).unwrap();
    let ended = issuer.issue(id, &key, Duration::from_secs(1), past).unwrap();
    let svid = Svid::from_pem(&ended.pem(), &node.key).unwrap();
    assert!(svid.not_after < clock::now());
    let client = world.client().identity(SvidSource::new(svid)).build().unwrap();
    let refused = client.own_instances(ReadOptions::default()).await.unwrap_err();
    assert!(refused.has_code("certificate_expired"), "{refused}");
    let (_, other) = csr::generate().unwrap();
    assert!(client.renew(&RenewRequest { csr_pem: other }).await.is_err());
    let renewed = client.renew(&RenewRequest { csr_pem }).await.unwrap();
    assert!(renewed.expires_at > clock::now());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_and_tokens_that_are_not_known_do_not_count() {
    let world = World::new().await;
    let anonymous = world.client().build().unwrap();
    let refused = anonymous.nodes(ReadOptions::default()).await.unwrap_err();
    assert!(refused.has_code("unauthenticated"), "{refused}");
    assert!(anonymous.bundle(ReadOptions::default()).await.is_ok(), "the bundle is public");
    let join = world.node_token(&["*"]).await.to_text().to_string();
    for text in ["rubbish".to_owned(), join] {
        let token = mesh_net::token::Secret::new(text);
        let client = world.client().token(token).build().unwrap();
        let refused = client.bundle(ReadOptions::default()).await.unwrap_err();
        assert!(refused.has_code("token_invalid"), "{refused}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_who_it_says_only_with_the_key_on_record() {
    let world = World::new().await;
    let state = world.server.node.state();
    let mesh = state.mesh.clone().unwrap();
    let server = state.servers.values().next().unwrap();
    let (domain, dc) = (&mesh.trust_domain, &mesh.datacenter);
    let id = SpiffeId::server(domain, dc, &server.name);
    let good = PeerIdentity {
        id,
        key: server.key,
        serial: "1".to_owned(),
        not_after: UnixMillis(1_000),
        expired: false,
    };
    let who = |peer: &PeerIdentity, now| by_certificate(&state, peer, UnixMillis(now));
    assert_eq!(who(&good, 999), Principal::Server(server.name.clone()));
    assert_eq!(who(&good, 1_001), Principal::Anonymous, "ended during the connection");
    let other_key = PeerIdentity { key: mesh_core::catalog::KeyHash([0; 32]), ..good.clone() };
    assert_eq!(who(&other_key, 999), Principal::Anonymous);
    let elsewhere = SpiffeId::server(domain, &"dc2".parse().unwrap(), &server.name);
    assert_eq!(who(&PeerIdentity { id: elsewhere, ..good.clone() }, 999), Principal::Anonymous);
    let (web, unknown) = ("web".parse().unwrap(), "web-9".parse().unwrap());
    let service = PeerIdentity { id: SpiffeId::service(domain, dc, &web), ..good.clone() };
    assert_eq!(who(&service, 999), Principal::Service(web));
    let node = PeerIdentity { id: SpiffeId::node(domain, dc, &unknown), ..good };
    assert_eq!(who(&node, 999), Principal::Anonymous, "a node that is not enrolled");
    world.stop().await;
}
