//! Every rule through real handshakes, both ways, in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use mesh_core::identity::{CaRole, SpiffeId};
use mesh_core::trust::Revoked;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ServerConfig, ServerConnection};
use std::sync::Arc;

use super::*;
use crate::testing::{TestCa, TestLeaf, set_life, uri_name};

const DAY: i64 = 24 * 3600;
const REQUIRED: ClientAuth = ClientAuth::Required(&CaRole::ALL);
const GRACE: ClientAuth = ClientAuth::Optional { roles: &CaRole::ALL, allow_expired: true };

/// What each end says of the handshake.
struct Ends {
    client: Result<ClientConnection, rustls::Error>,
    server: Result<ServerConnection, rustls::Error>,
}

impl Ends {
    fn server_says(&self) -> String {
        self.server.as_ref().map_or_else(|error| describe(error), |_| "ok".to_owned())
    }

    fn client_says(&self) -> String {
        self.client.as_ref().map_or_else(|error| describe(error), |_| "ok".to_owned())
    }

    /// The caller as the server knows it.
    fn caller(&self) -> Option<PeerIdentity> {
        peer_identity(self.server.as_ref().unwrap().peer_certificates()).unwrap()
    }
}

fn handshake(client: Arc<ClientConfig>, server: Arc<ServerConfig>, name: &str) -> Ends {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = Ok(ClientConnection::new(client, name).unwrap());
    let mut server = Ok(ServerConnection::new(server).unwrap());
    for _ in 0..10 {
        let mut wire = Vec::new();
        if let Ok(end) = &mut client {
            while end.wants_write() {
                end.write_tls(&mut wire).unwrap();
            }
        }
        server = server.and_then(|mut end: ServerConnection| feed(&mut end, &wire).map(|()| end));
        let mut wire = Vec::new();
        if let Ok(end) = &mut server {
            while end.wants_write() {
                end.write_tls(&mut wire).unwrap();
            }
        }
        client = client.and_then(|mut end: ClientConnection| feed(&mut end, &wire).map(|()| end));
    }
    Ends { client, server }
}

fn feed<D>(end: &mut rustls::ConnectionCommon<D>, mut wire: &[u8]) -> Result<(), rustls::Error>
where
    D: rustls::SideData,
{
    while !wire.is_empty() {
        end.read_tls(&mut wire).unwrap();
        end.process_new_packets()?;
    }
    Ok(())
}

fn dial(ca: &TestCa, identity: Option<Svid>, expected: Expected) -> Arc<ClientConfig> {
    client_config(identity.map(SvidSource::new), ca.trust(), expected, &[b"mesh/1"]).unwrap()
}

fn listen(ca: &TestCa, identity: Svid, auth: ClientAuth) -> Arc<ServerConfig> {
    let resolver = Resolver::One(SvidSource::new(identity));
    server_config(resolver, ca.trust(), auth, &[b"mesh/1"]).unwrap()
}

/// `leaf` dials a good server of `ca`, then serves a good dialler: what the verifying ends say.
fn both_ways(ca: &TestCa, leaf: &TestLeaf, id: &SpiffeId) -> (String, String) {
    let server = ca.server_id("ctl-1");
    let good = ca.svid(&server);
    // Bad leaves cannot become an `Svid`: configure rustls with them directly.
    let chain = trust::certs_from_pem(&leaf.chain_pem).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(leaf.key_der.clone());
    let mut client = Arc::unwrap_or_clone(dial(ca, None, Expected::Id(server)));
    let raw = rustls::sign::CertifiedKey::new(
        chain,
        provider().key_provider.load_private_key(key.into()).unwrap(),
    );
    let raw = Arc::new(rustls::sign::SingleCertAndKey::from(raw));
    client.client_auth_cert_resolver = raw.clone();
    let as_client = handshake(Arc::new(client), listen(ca, good.clone(), REQUIRED), "mesh");
    let mut listener = Arc::unwrap_or_clone(listen(ca, good.clone(), REQUIRED));
    listener.cert_resolver = raw;
    let dialler = dial(ca, Some(good), Expected::Id(id.clone()));
    let as_server = handshake(dialler, Arc::new(listener), "mesh");
    (as_client.server_says(), as_server.client_says())
}

#[test]
fn good_identities_meet() {
    let ca = TestCa::new("td.example");
    for id in [ca.service_id("web"), ca.node_id("web-7"), ca.server_id("ctl-1")] {
        let leaf = ca.leaf(&id, |_| {});
        assert_eq!(both_ways(&ca, &leaf, &id), ("ok".to_owned(), "ok".to_owned()), "{id}");
        let ends = handshake(
            dial(&ca, Some(leaf.svid()), Expected::AnyServer),
            listen(&ca, ca.svid(&ca.server_id("ctl-1")), REQUIRED),
            "mesh",
        );
        let caller = ends.caller().unwrap();
        let svid = leaf.svid();
        assert_eq!(caller.id, id);
        assert_eq!((caller.key, &caller.serial), (svid.key_hash, &svid.serial));
        assert_eq!((caller.not_after, caller.expired), (svid.not_after, false));
        let client = ends.client.unwrap();
        assert_eq!(client.alpn_protocol(), Some(&b"mesh/1"[..]));
        assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    }
}

#[test]
fn leaves_that_break_a_rule_are_refused_both_ways() {
    type Change = fn(&mut CertificateParams);
    let ca = TestCa::new("td.example");
    let id = ca.node_id("web-7");
    let cases: &[(&str, Change, &str)] = &[
        (
            "two URI names",
            |p| p.subject_alt_names.push(uri_name("spiffe://td.example/dc/dc1/node/web-8")),
            "certificate has 2 URI names, expected exactly 1",
        ),
        ("no names", |p| p.subject_alt_names.clear(), "certificate has 0 URI names"),
        (
            "foreign trust domain, our CA",
            |p| p.subject_alt_names = vec![uri_name("spiffe://other/dc/dc1/node/web-7")],
            "trust domain of spiffe://other/dc/dc1/node/web-7 is \"other\", expected \"td.example\"",
        ),
        (
            "no shape of ours",
            |p| p.subject_alt_names = vec![uri_name("spiffe://td.example/ns/default/web")],
            "unknown path",
        ),
        (
            "the name of a CA",
            |p| p.subject_alt_names = vec![uri_name("spiffe://td.example/ca/node")],
            "expected a service, node or server",
        ),
        (
            "CA:TRUE",
            |p| p.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained),
            "has CA:TRUE, expected CA:FALSE",
        ),
        (
            "no key usage",
            |p| p.key_usages.clear(),
            "key usage of spiffe://td.example/dc/dc1/node/web-7 is absent",
        ),
        (
            "keyCertSign",
            |p| p.key_usages.push(KeyUsagePurpose::KeyCertSign),
            "expected neither keyCertSign nor cRLSign",
        ),
        (
            "cRLSign",
            |p| p.key_usages.push(KeyUsagePurpose::CrlSign),
            "expected neither keyCertSign nor cRLSign",
        ),
        (
            "no digitalSignature",
            |p| p.key_usages = vec![KeyUsagePurpose::KeyAgreement],
            "expected digitalSignature",
        ),
        ("no EKU", |p| p.extended_key_usages.clear(), "lacks both"),
        (
            "server only",
            |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
            "lacks clientAuth",
        ),
        (
            "client only",
            |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
            "lacks serverAuth",
        ),
        ("expired", |p| set_life(p, -DAY, -10), "ended at"),
        ("not yet valid", |p| set_life(p, 600, DAY), "begins at"),
    ];
    for (name, change, want) in cases {
        let (as_client, as_server) = both_ways(&ca, &ca.leaf(&id, change), &id);
        assert!(as_client.contains(want), "case: {name}, as client: {as_client}");
        assert!(as_server.contains(want), "case: {name}, as server: {as_server}");
    }
}

#[test]
fn only_the_issuer_of_its_role_vouches_for_a_leaf() {
    let ca = TestCa::new("td.example");
    let ids = [ca.service_id("web"), ca.node_id("web-7"), ca.server_id("ctl-1")];
    for id in &ids {
        for role in CaRole::ALL {
            let leaf = ca.leaf_by(role, id, |_| {});
            let (as_client, as_server) = both_ways(&ca, &leaf, id);
            let right = id.issuer_role() == Some(role);
            assert_eq!(as_client == "ok", right, "{id} by {role:?}: {as_client}");
            assert_eq!(as_server == "ok", right, "{id} by {role:?}: {as_server}");
            let found = format!("issuer of {id} is spiffe://td.example/ca/{}", role.as_str());
            assert!(right || as_client.contains(&found), "{as_client}");
        }
    }
    let id = &ids[2];
    let (by_leaf, _) = both_ways(&ca, &ca.leaf_by_leaf(id), id);
    assert!(by_leaf.contains("no valid chain"), "{by_leaf}");
    let (by_root, _) = both_ways(&ca, &ca.leaf_by_root(id), id);
    assert!(by_root.contains("is the root itself, expected /ca/server"), "{by_root}");
}

#[test]
fn an_intermediate_of_the_right_role_beside_the_path_does_not_help() {
    let ca = TestCa::new("td.example");
    let id = ca.server_id("ctl-1");
    let mut leaf = ca.leaf_by(CaRole::Service, &id, |_| {});
    // The right issuer stands second, but the signature is the service intermediate's.
    let end = "-----END CERTIFICATE-----\n";
    let first = leaf.chain_pem.replace('\r', "").find(end).unwrap() + end.len();
    leaf.chain_pem = leaf.chain_pem.replace('\r', "");
    leaf.chain_pem.insert_str(first, &ca.intermediate_pem(CaRole::Server).replace('\r', ""));
    let (as_client, as_server) = both_ways(&ca, &leaf, &id);
    for said in [as_client, as_server] {
        assert!(said.contains("is spiffe://td.example/ca/service, expected /ca/server"), "{said}");
    }
}

#[test]
fn strangers_are_refused() {
    let (ca, other) = (TestCa::new("td.example"), TestCa::new("other.example"));
    let twin = TestCa::new("td.example");
    let id = other.node_id("web-7");
    let (as_client, as_server) = both_ways(&ca, &other.leaf(&id, |_| {}), &id);
    for said in [as_client, as_server] {
        assert!(said.contains("is \"other.example\", expected \"td.example\""), "{said}");
    }
    let id = twin.node_id("web-7");
    let (as_client, as_server) = both_ways(&ca, &twin.leaf(&id, |_| {}), &id);
    for said in [as_client, as_server] {
        assert!(said.contains("no valid chain to a trusted root: "), "{said}");
    }
}

#[test]
fn no_certificate_is_refused_unless_optional() {
    let ca = TestCa::new("td.example");
    let server = ca.svid(&ca.server_id("ctl-1"));
    let nobody = || dial(&ca, None, Expected::AnyServer);
    let ends = handshake(nobody(), listen(&ca, server.clone(), REQUIRED), "mesh");
    assert_eq!(ends.server_says(), "peer sent no certificates");
    let ends = handshake(nobody(), listen(&ca, server, GRACE), "mesh");
    assert_eq!((ends.server_says().as_str(), ends.caller()), ("ok", None));
}

#[test]
fn ports_take_their_roles_only() {
    let ca = TestCa::new("td.example");
    let server = ca.svid(&ca.server_id("ctl-1"));
    let auth = ClientAuth::Required(&[CaRole::Server]);
    let cases =
        [(ca.server_id("ctl-2"), true), (ca.node_id("n"), false), (ca.service_id("s"), false)];
    for (id, ok) in cases {
        let caller = dial(&ca, Some(ca.svid(&id)), Expected::AnyServer);
        let said = handshake(caller, listen(&ca, server.clone(), auth), "mesh").server_says();
        assert_eq!(said == "ok", ok, "{said}");
        assert!(ok || said.contains("expected a certificate issued for: server"), "{said}");
    }
}

#[test]
fn diallers_take_whom_they_dialled() {
    let (ca, other) = (TestCa::new("td.example"), TestCa::new("td.example"));
    let me = ca.svid(&ca.node_id("web-7"));
    let cases = [
        (ca.service_id("orders"), Expected::Id(ca.service_id("orders")), true),
        (ca.service_id("orders"), Expected::Id(ca.service_id("pay")), false),
        (ca.server_id("ctl-1"), Expected::AnyServer, true),
        (ca.service_id("orders"), Expected::AnyServer, false),
        (ca.server_id("ctl-1"), Expected::Pin(ca.pin()), true),
        (ca.service_id("orders"), Expected::Pin(ca.pin()), false),
        (ca.server_id("ctl-1"), Expected::Pin([7; 32]), false),
        (ca.server_id("ctl-1"), Expected::Roots(ca.bundle().roots), true),
        (ca.service_id("orders"), Expected::Roots(ca.bundle().roots), false),
        (ca.server_id("ctl-1"), Expected::Roots(other.bundle().roots), false),
    ];
    for (id, expected, ok) in cases {
        let caller = dial(&ca, Some(me.clone()), expected.clone());
        let said = handshake(caller, listen(&ca, ca.svid(&id), REQUIRED), "mesh").client_says();
        assert_eq!(said == "ok", ok, "{id} as {expected:?}: {said}");
    }
}

#[test]
fn a_pin_needs_no_trust_store_and_the_root_in_the_chain() {
    let ca = TestCa::new("td.example");
    let good = ca.leaf(&ca.server_id("ctl-1"), |_| {});
    let rootless = Svid::from_der(good.svid().chain[..2].to_vec(), &good.key_der).unwrap();
    let said = |pin, svid: Svid| {
        let joiner = pinned_client_config(pin, &[b"mesh/1"]).unwrap();
        handshake(joiner, listen(&ca, svid, GRACE), "mesh").client_says()
    };
    assert_eq!(said(ca.pin(), good.svid()), "ok");
    for (pin, svid) in [([7; 32], good.svid()), (ca.pin(), rootless)] {
        let wrong = said(pin, svid);
        assert!(wrong.contains("no certificate of the chain has SHA-256"), "{wrong}");
    }
    // The pin of another mesh's root, presented beside a chain that it did not sign.
    let other = TestCa::new("td.example");
    let mut leaf = ca.leaf(&ca.server_id("ctl-1"), |_| {});
    leaf.chain_pem.push_str(&other.root_pem());
    let beside = said(other.pin(), leaf.svid());
    assert!(beside.contains("no valid chain"), "{beside}");
}

#[test]
fn an_expired_node_is_let_in_to_renew_within_its_grace_and_marked() {
    let ca = TestCa::new("td.example");
    let node = ca.node_id("web-7");
    let leaf = |id: &SpiffeId, days: i64| {
        ca.leaf(id, |p| set_life(p, -(days + 1) * DAY, -days * DAY)).svid()
    };
    let try_in = |svid: Svid, auth| {
        let server = listen(&ca, ca.svid(&ca.server_id("ctl-1")), auth);
        handshake(dial(&ca, Some(svid), Expected::AnyServer), server, "mesh")
    };
    let in_grace = try_in(leaf(&node, 30), GRACE);
    assert!(in_grace.caller().is_some_and(|caller| caller.expired && caller.id == node));
    let strict = ClientAuth::Optional { roles: &CaRole::ALL, allow_expired: false };
    for refused in [
        try_in(leaf(&node, 30), REQUIRED),
        try_in(leaf(&node, 30), strict),
        try_in(leaf(&node, 91), GRACE),
        try_in(leaf(&ca.service_id("web"), 30), GRACE),
        try_in(leaf(&ca.server_id("ctl-2"), 30), GRACE),
    ] {
        assert!(refused.server_says().contains("ended at"), "{}", refused.server_says());
    }
}

#[test]
fn the_deny_list_holds_by_identity_key_and_serial() {
    let ca = TestCa::new("td.example");
    let (id, innocent) = (ca.node_id("web-7"), ca.node_id("web-8"));
    let (svid, other) = (ca.svid(&id), ca.svid(&innocent));
    let entries = [
        (Revoked::Identity(id), "revoked by identity spiffe://"),
        (Revoked::Key(svid.key_hash), "revoked by key "),
        (Revoked::Serial(svid.serial.clone()), "revoked by serial "),
    ];
    for (what, want) in entries {
        let trust = TrustStore::new(&ca.bundle_without(what)).unwrap();
        let listener = Resolver::One(ca.source(&ca.server_id("ctl-1")));
        let server = server_config(listener, trust.clone(), GRACE, &[]).unwrap();
        let ends =
            handshake(dial(&ca, Some(svid.clone()), Expected::AnyServer), server.clone(), "mesh");
        assert!(ends.server_says().contains(want), "{}", ends.server_says());
        let ends = handshake(dial(&ca, Some(other.clone()), Expected::AnyServer), server, "mesh");
        assert_eq!(ends.server_says(), "ok");
        assert!(!trust.is_revoked(&ends.caller().unwrap()));
    }
}

#[test]
fn swaps_apply_to_the_next_handshake() {
    let (ca, next) = (TestCa::new("td.example"), TestCa::new("td.example"));
    let node = ca.node_id("web-7");
    let (mine, trust) = (ca.source(&node), ca.trust());
    let client = client_config(Some(mine.clone()), ca.trust(), Expected::AnyServer, &[]).unwrap();
    let listener = Resolver::One(ca.source(&ca.server_id("ctl-1")));
    let server = server_config(listener, trust.clone(), REQUIRED, &[]).unwrap();
    let shake = || handshake(client.clone(), server.clone(), "mesh");
    assert_eq!(shake().caller().unwrap().serial, mine.current().serial);
    mine.swap(next.svid(&node));
    assert!(shake().server_says().contains("no valid chain"));
    let mut both = ca.bundle();
    both.roots.extend(next.bundle().roots);
    trust.update(&both).unwrap();
    let ends = shake();
    assert_eq!(ends.caller().unwrap().serial, mine.current().serial);
    trust.update(&ca.bundle_without(Revoked::Identity(node))).unwrap();
    assert!(trust.is_revoked(&ends.caller().unwrap()));
    assert!(shake().server_says().contains("revoked"));
    let foreign = TestCa::new("other.example").bundle();
    assert!(matches!(trust.update(&foreign), Err(TlsError::BundleDomain { .. })));
}

#[test]
fn no_session_is_ever_resumed() {
    let ca = TestCa::new("td.example");
    let client = dial(&ca, Some(ca.svid(&ca.node_id("web-7"))), Expected::AnyServer);
    let server = listen(&ca, ca.svid(&ca.server_id("ctl-1")), REQUIRED);
    for _ in 0..3 {
        let ends = handshake(client.clone(), server.clone(), "mesh");
        assert_eq!(ends.client.unwrap().handshake_kind(), Some(HandshakeKind::Full));
        let server = ends.server.unwrap();
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
        assert!(server.peer_certificates().is_some());
    }
}

#[test]
fn listeners_choose_by_server_name_and_refuse_unknown_ones() {
    let ca = TestCa::new("td.example");
    let orders = ca.service_id("orders");
    let source = ca.source(&orders);
    let find = move |name: &str| (name == "orders.default.dc1.td.example").then(|| source.clone());
    let server = server_config(Resolver::BySni(Arc::new(find)), ca.trust(), REQUIRED, &[]).unwrap();
    let me = ca.svid(&ca.node_id("web-7"));
    let dialler = dial(&ca, Some(me), Expected::Id(orders));
    let cases = [("orders.default.dc1.td.example", true), ("pay.x", false), ("127.0.0.1", false)];
    for (name, ok) in cases {
        let ends = handshake(dialler.clone(), server.clone(), name);
        assert_eq!(ends.client.is_ok() && ends.server.is_ok(), ok, "{name}");
    }
}

#[test]
fn an_unknown_protocol_is_refused() {
    let ca = TestCa::new("td.example");
    let server = ca.svid(&ca.server_id("ctl-1"));
    let me = ca.source(&ca.node_id("web-7"));
    let client = client_config(Some(me), ca.trust(), Expected::AnyServer, &[b"mesh/2"]).unwrap();
    let ends = handshake(client, listen(&ca, server, REQUIRED), "mesh");
    assert!(ends.server_says().contains("known protocol"), "{}", ends.server_says());
}

#[test]
fn bounds_of_chains_and_bundles_hold() {
    let ca = TestCa::new("td.example");
    let id = ca.node_id("web-7");
    let mut long = ca.leaf(&id, |_| {});
    for _ in 0..4 {
        long.chain_pem.push_str(&ca.root_pem());
    }
    let (as_client, as_server) = both_ways(&ca, &long, &id);
    for said in [as_client, as_server] {
        assert!(said.contains("chain has 7 certificates, expected at most 6"), "{said}");
    }
    let large = ca.leaf(&id, |p| {
        let content = vec![0; CERT_BYTES_MAX];
        let extension = rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 1], content);
        p.custom_extensions.push(extension);
    });
    let (as_client, _) = both_ways(&ca, &large, &id);
    assert!(as_client.contains("bytes, expected at most 16384"), "{as_client}");
    let mut bundle = ca.bundle();
    bundle.roots.clear();
    assert!(matches!(TrustStore::new(&bundle), Err(TlsError::Roots { found: 0 })));
    bundle.roots = vec![ca.bundle().roots[0].clone(); ROOTS_MAX + 1];
    assert!(matches!(TrustStore::new(&bundle), Err(TlsError::Roots { .. })));
    bundle.roots = vec![mesh_core::trust::CertDer(vec![1, 2, 3])];
    assert!(matches!(TrustStore::new(&bundle), Err(TlsError::Root { index: 0, .. })));
    assert_eq!(roots_from_pem(&ca.root_pem()).unwrap(), ca.bundle().roots);
    assert!(roots_from_pem("nothing").is_err());
}

#[test]
fn a_key_of_another_leaf_is_refused() {
    let ca = TestCa::new("td.example");
    let (one, two) = (ca.leaf(&ca.node_id("a"), |_| {}), ca.leaf(&ca.node_id("b"), |_| {}));
    assert!(matches!(Svid::from_pem(&one.chain_pem, &two.key_der), Err(TlsError::Key(_))));
    let svid = one.svid();
    assert!(svid.not_before < svid.half_life() && svid.half_life() < svid.not_after);
    assert!(!format!("{svid:?}").contains("PrivateKey"));
}
