//! Real handshakes with every port that speaks TLS, by certificates that must not pass.
//!
//! Each port is also asked with a certificate that must, made in the same way: what is refused is
//! refused for its fault.

use std::fs;
use std::path::Path;

use mesh_core::identity::{CaRole, SpiffeId, server_name};
use mesh_net::csr;
use mesh_net::files::read_checked;
use mesh_net::pack;
use mesh_net::testing::TestCa;
use mesh_tests::cluster::path;
use mesh_tests::tls::{Dial, Outcome, RealCa, Shown};
use rcgen::KeyPair;

use crate::world::World;

const DAY: (i64, i64) = (-300, 86_400);
/// Ended, but begun after the CA was made: what is judged is the leaf.
const EXPIRED: (i64, i64) = (-120, -5);

/// The names that leaves are made of.
struct Names {
    web: SpiffeId,
    front: SpiffeId,
    server: SpiffeId,
}

pub(crate) fn only_the_right_certificates_are_let_in(world: &World) {
    let backup = world.mesh.folder("handshakes").join("mesh.backup");
    world.mesh.cli(&["snapshot", "save", path(&backup)]).good();
    let ca = RealCa::open(&backup, &world.mesh.server("ctl-1").dir.join("kek"));
    let (td, dc) = (&ca.trust_domain, &ca.datacenter);
    let names = Names {
        web: SpiffeId::service(td, dc, &"web".parse().unwrap()),
        front: SpiffeId::node(td, dc, &"front".parse().unwrap()),
        server: SpiffeId::server(td, dc, &"ctl-2".parse().unwrap()),
    };
    let front = world.front();
    front.run(|| {
        at_an_agent(world, &ca, &names);
        at_the_api(world, &ca, &names);
        at_the_raft_port(world, &ca, &names);
    });
}

fn refused(dial: Dial<'_>, what: &str, shown: Option<&Shown>) {
    match dial.handshake(shown) {
        Outcome::Refused(_) => {}
        Outcome::Open => panic!("{what} is let in at {dial:?}"),
    }
}

fn open(dial: Dial<'_>, what: &str, shown: Option<&Shown>) {
    assert_eq!(dial.handshake(shown), Outcome::Open, "{what} at {dial:?}");
}

/// Faults that no port may overlook, in a leaf that else would be let in as `id`.
fn faults(ca: &RealCa, id: &SpiffeId) -> Vec<(String, Shown)> {
    let role = id.issuer_role().unwrap();
    let (uri, own) = (id.to_string(), vec![id.to_string()]);
    let foreign = TestCa::new("other.mesh");
    let alike = TestCa::new(ca.trust_domain.as_str());
    let from = |ca: &TestCa, id: &SpiffeId| {
        let leaf = ca.leaf(id, |_| {});
        Shown::new(&leaf.chain_pem, leaf.key_der)
    };
    let foreign_id = uri.replace(ca.trust_domain.as_str(), "other.mesh").parse().unwrap();
    let two = vec![uri.clone(), format!("{uri}-2")];
    let mut faults = vec![
        ("a foreign trust domain".to_owned(), from(&foreign, &foreign_id)),
        ("a foreign CA that claims our trust domain".to_owned(), from(&alike, id)),
        (
            "a foreign trust domain by our CA".to_owned(),
            ca.leaf(role, &[foreign_id.to_string()], DAY),
        ),
        ("two URI names".to_owned(), ca.leaf(role, &two, DAY)),
        ("no URI name".to_owned(), ca.leaf(role, &[], DAY)),
        ("a life that begins tomorrow".to_owned(), ca.leaf(role, &own, (86_400, 172_800))),
    ];
    for other in CaRole::ALL.into_iter().filter(|other| *other != role) {
        faults.push((format!("the {} intermediate", other.as_str()), ca.leaf(other, &own, DAY)));
    }
    faults
}

fn at_an_agent(world: &World, ca: &RealCa, names: &Names) {
    let sni = server_name(&ca.trust_domain, &ca.datacenter, &"orders".parse().unwrap());
    let dial = Dial { address: (world.back().ip, 7443).into(), name: &sni, alpn: "mesh/1" };
    let web = [names.web.to_string()];
    open(dial, "a good service", Some(&ca.leaf(CaRole::Service, &web, DAY)));
    refused(dial, "no certificate", None);
    refused(dial, "an expired certificate", Some(&ca.leaf(CaRole::Service, &web, EXPIRED)));
    let server = ca.leaf(CaRole::Server, &[names.server.to_string()], DAY);
    refused(dial, "a server's certificate", Some(&server));
    for (what, shown) in faults(ca, &names.web) {
        refused(dial, &what, Some(&shown));
    }
    let other = Dial { name: "nobody.default.dc1.other.mesh", ..dial };
    refused(other, "another server name", Some(&ca.leaf(CaRole::Service, &web, DAY)));
}

fn at_the_api(world: &World, ca: &RealCa, names: &Names) {
    let address = (world.mesh.net.host("ctl-1").ip, 7300).into();
    let dial = Dial { address, name: "ctl-1", alpn: "http/1.1" };
    let (key, enrolled) = of_the_agent(&world.mesh.agent("front").dir);
    open(dial, "the node", Some(&enrolled));
    let (status, answer) = dial.ask(Some(&enrolled), "GET", "/v1/node/instances", "");
    assert_eq!(status, 200, "{answer}");
    let (status, answer) = dial.ask(None, "GET", "/v1/node/instances", "");
    assert_eq!(status, 401, "without a certificate: {answer}");
    for (what, shown) in faults(ca, &names.front) {
        refused(dial, &what, Some(&shown));
    }
    let stranger = ca.leaf(CaRole::Node, &[names.front.to_string()], DAY);
    let (status, answer) = dial.ask(Some(&stranger), "GET", "/v1/node/instances", "");
    assert!(matches!(status, 401 | 403), "another key of the node's name: {answer}");

    let pair = KeyPair::try_from(key.as_slice()).unwrap();
    let expired = ca.leaf_of(CaRole::Node, &[names.front.to_string()], EXPIRED, pair);
    for (method, at) in
        [("GET", "/v1/node/instances"), ("GET", "/v1/services"), ("POST", "/v1/issue")]
    {
        let csr = serde_json::json!({ "service": "web", "csr_pem": csr::csr_for(&key).unwrap() });
        let body = if method == "POST" { csr.to_string() } else { String::new() };
        let (status, answer) = dial.ask(Some(&expired), method, at, &body);
        assert!(matches!(status, 401 | 403), "expired, {at}: {answer}");
    }
    let body = serde_json::json!({ "csr_pem": csr::csr_for(&key).unwrap() }).to_string();
    let (status, answer) = dial.ask(Some(&expired), "POST", "/v1/renew", &body);
    assert_eq!(status, 200, "an expired certificate may renew: {answer}");
    let service = ca.leaf(CaRole::Service, &[names.web.to_string()], EXPIRED);
    refused(dial, "an expired certificate of a service", Some(&service));
}

fn at_the_raft_port(world: &World, ca: &RealCa, names: &Names) {
    let address = (world.mesh.net.host("ctl-1").ip, 7301).into();
    let dial = Dial { address, name: "ctl-1", alpn: "h2" };
    let data = world.mesh.server("ctl-2").dir.join("data");
    let chain = fs::read_to_string(data.join("server.pem")).unwrap();
    let member = Shown::new(&chain, fs::read(data.join("server.key")).unwrap());
    open(dial, "a member", Some(&member));
    refused(dial, "no certificate", None);
    let (_, agent) = of_the_agent(&world.mesh.agent("front").dir);
    refused(dial, "an agent's certificate", Some(&agent));
    let server = [names.server.to_string()];
    refused(dial, "an expired certificate", Some(&ca.leaf(CaRole::Server, &server, EXPIRED)));
    let service = ca.leaf(CaRole::Service, &[names.web.to_string()], DAY);
    refused(dial, "a service's certificate", Some(&service));
    for (what, shown) in faults(ca, &names.server) {
        refused(dial, &what, Some(&shown));
    }
}

/// The key and certificate that an agent lives by, as it keeps them.
fn of_the_agent(dir: &Path) -> (Vec<u8>, Shown) {
    let key = read_checked(&dir.join("data/keys/node.key"), 1 << 20).unwrap();
    let kept = read_checked(&dir.join("data/identity/node"), 1 << 20).unwrap();
    let kept: serde_json::Value = pack::from_slice(&kept).unwrap();
    let chain = kept["chain_pem"].as_str().expect("a chain");
    (key.clone(), Shown::new(chain, key))
}
