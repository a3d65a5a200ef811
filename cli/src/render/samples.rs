//! Answers for the tests of this folder: one small mesh.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use mesh_core::access::{Decision, Reason, RuleRef};
use mesh_core::api::{
    AgentStatus, ApplyAnswer, PolicyEntry, PolicyList, ServerInfo, ServerStatus, ServiceAnswer,
    ServiceSummary, TokenInfo, TokenPurpose,
};
use mesh_core::catalog::{Health, Instance, InstanceSpec, KeyHash, Liveness, Node, NodePolicy};
use mesh_core::policy::{AccessMode, Origin, Protocol};
use mesh_core::resource::{Endpoint, EndpointState};
use mesh_core::revision::Revision;
use mesh_core::route::RouteRef;
use mesh_core::stream::{ExposedPort, Heartbeat1};
use mesh_core::time::UnixMillis;
use mesh_core::trust::Role;
use mesh_core::why::{Loser, WhyAnswer, WhyBackend, WhyCaller, WhyEndpoint, WhyHttp, WhyQuery};

pub(super) const NOW: UnixMillis = UnixMillis(1_795_366_861_000);
const HOUR: u64 = 3_600_000;

fn ago(millis: u64) -> UnixMillis {
    UnixMillis(NOW.0 - millis)
}

fn origin(line: u32) -> Origin {
    Origin { file: "orders.toml".into(), line }
}

fn rule(id: &str, line: u32) -> RuleRef {
    RuleRef { id: id.parse().unwrap(), origin: origin(line), version: 3 }
}

fn endpoint(instance: &str, state: EndpointState) -> Endpoint {
    Endpoint {
        instance: instance.parse().unwrap(),
        node: "db-1".parse().unwrap(),
        address: "10.0.0.3:7443".parse().unwrap(),
        subsets: vec![],
        state,
    }
}

pub(super) fn why(path: &str) -> (WhyQuery, WhyAnswer) {
    let orders: mesh_core::name::ServiceName = "orders".parse().unwrap();
    let web = "web".parse().unwrap();
    let http = WhyHttp { method: "GET".into(), path: path.to_owned(), headers: vec![] };
    let query = WhyQuery { from: WhyCaller::Service(web), to: orders.clone(), http: Some(http) };
    let backend = |subset: Option<&str>, weight| {
        let (state, why) = match subset {
            Some(_) => (EndpointState::Healthy, "not in subset v2: its meta does not match"),
            None => (EndpointState::Critical, EndpointState::Critical.reason()),
        };
        let usable = endpoint("orders-2", EndpointState::Healthy);
        WhyBackend {
            service: orders.clone(),
            subset: subset.map(|name| name.parse().unwrap()),
            weight,
            decision: Decision {
                allowed: true,
                reason: Reason::Rule(rule("allow.orders/readers", 11)),
                audited: vec![],
            },
            losers: vec![Loser {
                rule: rule("deny.orders/no-batch", 16),
                why: "the caller is not in from = [batch]".into(),
            }],
            endpoints: vec![
                WhyEndpoint {
                    endpoint: endpoint("orders-1", state),
                    usable: false,
                    why: why.into(),
                },
                WhyEndpoint { endpoint: usable, usable: true, why: "healthy".into() },
            ],
        }
    };
    let answer = WhyAnswer {
        revision: Revision::new(1, 42),
        version: 4,
        caller: id("svc/web"),
        allowed: true,
        protocol: Some(Protocol::Http),
        path_before: Some(path.to_owned()),
        path_after: Some("/v2/x".into()),
        route: RouteRef {
            id: "service.orders/route[0]".into(),
            origin: Some(origin(7)),
            version: 3,
        },
        backends: vec![backend(Some("v2"), 10), backend(None, 90)],
        notes: vec![],
    };
    (query, answer)
}

fn id(tail: &str) -> mesh_core::identity::SpiffeId {
    format!("spiffe://0123456789ab.mesh.internal/ns/default/dc/dc1/{tail}").parse().unwrap()
}

pub(super) fn services() -> Vec<ServiceSummary> {
    let one = |service: &str, protocol, access, healthy, instances, rules, index| ServiceSummary {
        service: service.parse().unwrap(),
        protocol,
        access,
        healthy,
        instances,
        rules,
        modified: Revision::new(1, index),
    };
    vec![
        one("orders", Some(Protocol::Http), AccessMode::Enforce, 1, 2, 2, 40),
        one("db", None, AccessMode::Audit, 0, 1, 0, 12),
    ]
}

fn instance(id: &str, service: &str) -> Instance {
    let spec = InstanceSpec {
        id: id.parse().unwrap(),
        service: service.parse().unwrap(),
        port: 8080,
        meta: [("version".to_owned(), "2".to_owned())].into(),
        upstreams: vec![],
        health: Health::Passing,
        checks: Default::default(),
    };
    Instance { node: "db-1".parse().unwrap(), spec, modified: Revision::new(1, 40) }
}

pub(super) fn service() -> ServiceAnswer {
    ServiceAnswer {
        summary: services().remove(0),
        id: id("svc/orders"),
        endpoints: vec![
            endpoint("orders-1", EndpointState::Critical),
            endpoint("orders-2", EndpointState::Healthy),
        ],
        instances: vec![instance("orders-2", "orders")],
        policy: "[service.orders]\nprotocol = \"http\"\n".into(),
    }
}

pub(super) fn servers() -> Vec<ServerInfo> {
    let one = |id: u64| ServerInfo {
        name: format!("ctl-{id}").parse().unwrap(),
        id,
        api_address: format!("10.0.0.{id}:7300"),
        raft_address: format!("10.0.0.{id}:7301"),
        voter: true,
        leader: id == 1,
        feature_level: 1,
    };
    vec![one(1), one(2)]
}

pub(super) fn asked() -> Vec<super::Asked> {
    servers().into_iter().map(|info| super::Asked::new(info, Ok(status()))).collect()
}

pub(super) fn said() -> super::Said {
    let instances = vec![instance("db-1", "db")];
    let (servers, agents, nodes) = (asked(), agents(), nodes());
    super::Said { status: status(), servers, agents, nodes, instances }
}

pub(super) fn nodes() -> Vec<Node> {
    let one = |name: &str, address: &str, liveness, seen, services: &[&str]| Node {
        name: name.parse().unwrap(),
        address: address.parse().unwrap(),
        port: 7443,
        policy: NodePolicy { services: services.iter().map(|s| s.parse().unwrap()).collect() },
        key: KeyHash([7; 32]),
        enrolled_at: ago(48 * HOUR),
        liveness,
        last_seen: ago(seen),
        modified: Revision::new(1, 12),
    };
    vec![
        one("db-1", "10.0.0.3", Liveness::Gone, 180_000, &["orders", "batch-*"]),
        one("web-7", "10.0.0.7", Liveness::Alive, 4_000, &[]),
    ]
}

pub(super) fn status() -> ServerStatus {
    ServerStatus {
        server: "ctl-2".parse().unwrap(),
        id: 2,
        leader: Some("ctl-1".parse().unwrap()),
        term: 3,
        role: "follower".into(),
        revision: Revision::new(1, 42),
        applied_index: 42,
        state_hash: "00".into(),
        trust_domain: "0123456789ab.mesh.internal".parse().unwrap(),
        datacenter: "dc1".parse().unwrap(),
        access: AccessMode::Enforce,
        policy_version: 4,
        feature_level: 1,
        version: "0.1.0".into(),
        nodes: 2,
        services: 3,
        instances: 1,
    }
}

pub(super) fn agents() -> Vec<AgentStatus> {
    let one = |node: &str, connected, seen, index, leaf: (&str, UnixMillis), exposed| AgentStatus {
        node: node.parse().unwrap(),
        connected,
        server: None,
        generation: 1,
        version: "0.1.0".into(),
        seen: ago(seen),
        report: Heartbeat1 {
            applied: Revision::new(1, index),
            leaves: [(id(leaf.0).to_string(), leaf.1)].into(),
            exposed,
            warnings: vec![],
        },
        error: None,
        wanted: Revision::new(1, 42),
    };
    let port = ExposedPort {
        instance: "db-1".parse().unwrap(),
        address: "10.0.0.3:5432".parse().unwrap(),
    };
    vec![
        one("db-1", false, 180_000, 38, ("svc/db", ago(2 * HOUR)), vec![port]),
        one("web-7", true, 4_000, 42, ("svc/web", NOW.plus(11 * HOUR + 1)), vec![]),
    ]
}

pub(super) fn tokens() -> Vec<TokenInfo> {
    let one = |id: &str, purpose, expires_at, used_at, note: &str| TokenInfo {
        id: id.parse().unwrap(),
        purpose,
        expires_at,
        used_at,
        note: note.to_owned(),
    };
    let globs = |all: &[&str]| all.iter().map(|glob| glob.parse().unwrap()).collect::<Vec<_>>();
    let web = TokenPurpose::Node {
        name: Some("web-7".parse().unwrap()),
        policy: NodePolicy { services: globs(&["web"]) },
    };
    let operator = Role::Operator { services: globs(&["web", "batch-*"]) };
    vec![
        one("t-1", TokenPurpose::Api { role: Role::Admin }, None, None, "first"),
        one("t-2", web, Some(NOW.plus(HOUR - 1)), None, ""),
        one(
            "t-3",
            TokenPurpose::Server { name: None },
            Some(ago(2 * HOUR)),
            Some(ago(3 * HOUR)),
            "",
        ),
        one(
            "t-4",
            TokenPurpose::Api { role: operator },
            Some(NOW.plus(30 * 24 * HOUR - 1)),
            None,
            "ops",
        ),
    ]
}

pub(super) fn applied() -> ApplyAnswer {
    ApplyAnswer {
        version: 4,
        revision: Revision::new(1, 42),
        added: vec!["allow.orders/readers".into()],
        changed: vec!["service.orders".into()],
        removed: vec!["deny.orders/h-01234567".into()],
        warnings: vec!["service db has no instance".into()],
    }
}

pub(super) fn policy() -> PolicyList {
    let entry = PolicyEntry {
        id: "allow.orders/readers".into(),
        origin: origin(11),
        version: 3,
        summary: "web may GET /v2/*".into(),
    };
    PolicyList { version: 4, objects: vec![entry] }
}
