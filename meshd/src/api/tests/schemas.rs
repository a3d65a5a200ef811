//! What the server sends is what its OpenAPI document says.

use mesh_core::api::{ApplyRequest, CreateTokenRequest, RevokeRequest, TokenPurpose};
use mesh_core::catalog::NodePolicy;
use mesh_core::trust::{Revoked, Role};
use mesh_core::why::{WhyCaller, WhyHttp, WhyQuery};
use mesh_net::client::ReadOptions;
use serde::Serialize;

use super::world::World;
use crate::api::schema::{body, check};

fn fits<T: Serialize>(name: &str, value: &T) {
    let value = serde_json::to_value(value).unwrap();
    check(&value, &body(name), name).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_fit_their_schemas() {
    let world = World::new().await;
    let node = world.enrol("web-7", &["orders"]).await;
    let written = node.register(&["orders"]).await.unwrap();
    fits("Written", &written);
    let text = "[service.orders]\nprotocol = \"http\"\n[[allow.orders]]\nfrom = [\"web\"]\n\
        [[deny.orders]]\nfrom = [\"job\"]\nhttp = [{ methods = [\"GET\"] }]\n";
    let apply = ApplyRequest {
        expected: None,
        files: vec![("orders.toml".to_owned(), text.to_owned())],
        prune: false,
        dry_run: false,
        message: String::new(),
    };
    fits("ApplyRequest", &apply);
    let admin = &world.admin;
    fits("ApplyAnswer", &admin.apply_policy(&apply).await.unwrap());
    let read = ReadOptions::default;
    let (name, service) = ("web-7".parse().unwrap(), "orders".parse().unwrap());
    fits("ServerStatus", &admin.status().await.unwrap().value);
    fits("Ready", &admin.ready().await.unwrap());
    fits("BundleAnswer", &admin.bundle(read()).await.unwrap().value);
    fits("Vec<ServerInfo>", &admin.servers(read()).await.unwrap().value);
    fits("Vec<TokenInfo>", &admin.tokens(read()).await.unwrap().value);
    fits("Vec<Node>", &admin.nodes(read()).await.unwrap().value);
    fits("NodeAnswer", &admin.node(&name, read()).await.unwrap().value);
    fits("Vec<ServiceSummary>", &admin.services(read()).await.unwrap().value);
    fits("ServiceAnswer", &admin.service(&service, read()).await.unwrap().value);
    fits("Vec<InstanceHealth>", &admin.health(&service, false, read()).await.unwrap().value);
    fits("PolicyList", &admin.policy(read()).await.unwrap().value);
    fits("PolicyText", &admin.policy_object("service.orders", read()).await.unwrap().value);
    fits("Vec<AgentStatus>", &admin.agents(ReadOptions::default()).await.unwrap().value);
    for method in ["GET", "PUT"] {
        let (method, path) = (method.to_owned(), "/".to_owned());
        let query = WhyQuery {
            from: WhyCaller::Service("web".parse().unwrap()),
            to: service.clone(),
            http: Some(WhyHttp { method, path, headers: vec![("a".to_owned(), "b".to_owned())] }),
        };
        fits("WhyQuery", &query);
        fits("WhyAnswer", &admin.why(&query).await.unwrap().value);
    }
    let metrics = admin.metrics().await.unwrap();
    assert!(metrics.contains("meshd_raft_leader 1"), "{metrics}");
    let openapi = admin.openapi().await.unwrap();
    assert_eq!(openapi["openapi"], "3.1.0");
    world.stop().await;
}

#[test]
fn requests_fit_their_schemas() {
    let services = vec!["pay-*".parse().unwrap()];
    let purposes = [
        TokenPurpose::Node { name: None, policy: NodePolicy { services: services.clone() } },
        TokenPurpose::Server { name: Some("ctl-2".parse().unwrap()) },
        TokenPurpose::Api { role: Role::Operator { services } },
        TokenPurpose::Api { role: Role::Viewer },
    ];
    for purpose in purposes {
        let note = String::new();
        fits("CreateTokenRequest", &CreateTokenRequest { purpose, ttl_seconds: 1, note });
    }
    let whats =
        [Revoked::Serial("1f".to_owned()), Revoked::Key(mesh_core::catalog::KeyHash([0; 32]))];
    for what in whats {
        fits("RevokeRequest", &RevokeRequest { what, reason: String::new() });
    }
}
