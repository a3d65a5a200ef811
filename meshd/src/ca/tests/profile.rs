//! Every field of every certificate, as another parser reads it.

use mesh_core::identity::CaRole;
use mesh_core::trust::CertDer;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use super::*;

fn parse(cert: &CertDer) -> X509Certificate<'_> {
    let (rest, cert) = X509Certificate::from_der(&cert.0).unwrap();
    assert!(rest.is_empty());
    cert
}

/// Every alternative name of `cert`, and whether the extension is critical.
fn names<'a>(cert: &'a X509Certificate<'_>) -> (Vec<&'a str>, bool) {
    let names = cert.subject_alternative_name().unwrap().unwrap();
    let uri = |name: &'a GeneralName<'_>| match name {
        GeneralName::URI(uri) => *uri,
        other => panic!("expected URI names only, found {other}"),
    };
    (names.value.general_names.iter().map(uri).collect(), names.critical)
}

fn key_ids(cert: &X509Certificate<'_>) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let (mut subject, mut authority) = (None, None);
    for extension in cert.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => subject = Some(id.0.to_vec()),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                authority = id.key_identifier.as_ref().map(|id| id.0.to_vec());
            }
            _ => {}
        }
    }
    (subject, authority)
}

fn check_ca(cert: &X509Certificate<'_>, uri: &str, path_len: u32) {
    assert_eq!(names(cert), (vec![uri], false));
    let constraints = cert.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(path_len));
    let usage = cert.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
    assert_eq!(usage.value.flags.count_ones(), 2, "{}", usage.value);
    assert!(cert.extended_key_usage().unwrap().is_none());
    assert!(cert.name_constraints().unwrap().is_none());
    assert!(cert.subject().iter_common_name().next().is_some());
    assert_serial(cert);
}

/// At most 20 octets, positive (RFC 5280 §4.1.2.2), and too many to be small by chance.
fn assert_serial(cert: &X509Certificate<'_>) {
    let raw = cert.raw_serial();
    assert!((12..=20).contains(&raw.len()), "{}", raw.len());
    assert!(raw[0] & 0x80 == 0, "negative");
}

/// Life in days, the backdating aside.
fn days(cert: &X509Certificate<'_>, made: UnixMillis) -> i64 {
    let made = i64::try_from(made.0 / 1000).unwrap();
    assert_eq!(made - cert.validity().not_before.timestamp(), 300);
    (cert.validity().not_after.timestamp() - made) / 86_400
}

#[test]
fn the_root_signs_itself_and_only_intermediates() {
    let made = now();
    let mesh = Mesh::at("td.mesh.internal", made);
    let root = parse(&mesh.ca.root);
    check_ca(&root, "spiffe://td.mesh.internal", 2);
    assert_eq!(days(&root, made), 3650);
    assert_eq!(root.subject(), root.issuer());
    assert_eq!(
        root.public_key().algorithm.parameters.as_ref().unwrap().as_oid().unwrap().to_id_string(),
        "1.3.132.0.34"
    );
    root.verify_signature(None).unwrap();
}

#[test]
fn an_intermediate_says_its_role_and_signs_only_leaves() {
    let made = now();
    let mesh = Mesh::at("td.mesh.internal", made);
    let root = parse(&mesh.ca.root);
    assert_eq!(mesh.ca.intermediates.keys().copied().collect::<Vec<_>>(), CaRole::ALL);
    for (role, intermediate) in &mesh.ca.intermediates {
        let cert = parse(&intermediate.cert);
        let uri = format!("spiffe://td.mesh.internal/ca/{}", role.as_str());
        check_ca(&cert, &uri, 0);
        assert_eq!(days(&cert, made), 1825);
        assert_eq!(cert.issuer(), root.subject());
        assert_eq!(key_ids(&cert).1, key_ids(&root).0);
        cert.verify_signature(Some(root.public_key())).unwrap();
    }
}

#[test]
fn no_two_authorities_share_a_subject_or_a_serial() {
    let (one, two) = (Mesh::new(), Mesh::new());
    let certs = [&one, &two]
        .into_iter()
        .flat_map(|mesh| mesh.ca.intermediates.values().map(|i| &i.cert).chain([&mesh.ca.root]));
    let certs: Vec<_> = certs.map(parse).collect();
    let subjects: std::collections::BTreeSet<_> =
        certs.iter().map(|cert| cert.subject().to_string()).collect();
    let serials: std::collections::BTreeSet<_> =
        certs.iter().map(|cert| cert.raw_serial()).collect();
    assert_eq!((subjects.len(), serials.len()), (8, 8));
}

#[test]
fn a_leaf_keeps_the_profile() {
    let mesh = Mesh::new();
    let issued = now();
    let cases = [
        (mesh.service("orders"), CaRole::Service),
        (mesh.node("web-7"), CaRole::Node),
        (mesh.server("ctl-1"), CaRole::Server),
    ];
    for (id, role) in cases {
        let key = key();
        let leaf = mesh.issuer.issue(&id, &key, LEAF_LIFETIME, issued).unwrap();
        assert_eq!(leaf.chain[1], mesh.ca.intermediates[&role].cert);
        let (cert, issuer) = (parse(&leaf.chain[0]), parse(&leaf.chain[1]));
        assert_eq!(names(&cert), (vec![id.to_string().as_str()], true));
        let constraints = cert.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && !constraints.value.ca);
        assert_eq!(constraints.value.path_len_constraint, None);
        let usage = cert.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.digital_signature());
        assert_eq!(usage.value.flags.count_ones(), 1, "{}", usage.value);
        let extended = cert.extended_key_usage().unwrap().unwrap();
        assert!(extended.value.server_auth && extended.value.client_auth);
        assert!(
            !extended.value.any && !extended.value.code_signing && extended.value.other.is_empty()
        );
        assert_eq!(key_ids(&cert).1, key_ids(&issuer).0);
        assert!(key_ids(&cert).1.is_some());
        assert_eq!(cert.subject().iter().count(), 0);
        assert_eq!(cert.issuer(), issuer.subject());
        assert_eq!(cert.public_key().raw, key.spki());
        assert_serial(&cert);
        assert_eq!(leaf.serial, hex::encode(cert.raw_serial()));
        assert_eq!(leaf.key, key.hash());
        assert_eq!(days(&cert, issued), 1);
        let seconds = |at: UnixMillis| i64::try_from(at.0 / 1000).unwrap();
        assert_eq!(cert.validity().not_before.timestamp(), seconds(leaf.not_before));
        assert_eq!(cert.validity().not_after.timestamp(), seconds(leaf.not_after));
        cert.verify_signature(Some(issuer.public_key())).unwrap();
    }
}

#[test]
fn no_leaf_outlasts_or_precedes_its_intermediate() {
    let made = UnixMillis(1_800_000_000_123);
    let mesh = Mesh::at("td", made);
    let id = mesh.service("orders");
    let issue = |lifetime, at| mesh.issuer.issue(&id, &key(), lifetime, at);
    let decades = issue(Duration::from_secs(u64::MAX), made).unwrap();
    let end = parse(&mesh.ca.intermediates[&CaRole::Service].cert).validity().not_after;
    let end = UnixMillis(u64::try_from(end.timestamp()).unwrap() * 1000);
    assert_eq!(decades.not_after, end);
    let last = issue(HOUR, UnixMillis(end.0 - 1000)).unwrap();
    assert_eq!(last.not_after, end);
    assert_eq!(
        parse(&last.chain[0]).validity().not_after.timestamp() * 1000,
        i64::try_from(end.0).unwrap()
    );
    let late = issue(HOUR, end).unwrap_err();
    assert!(matches!(late, IssueError::IssuerValidity { .. }), "{late}");
    let early = issue(HOUR, UnixMillis(made.0 - 301_000)).unwrap_err();
    assert!(matches!(early, IssueError::IssuerValidity { .. }), "{early}");
    let first = issue(HOUR, UnixMillis(made.0 - 200_000)).unwrap();
    assert_eq!(first.not_before, UnixMillis(made.0 / 1000 * 1000 - 300_000));
    let short = issue(Duration::from_millis(999), made).unwrap_err();
    assert!(matches!(short, IssueError::Lifetime(_)), "{short}");
}

#[test]
fn only_identities_of_this_mesh_get_a_leaf() {
    let mesh = Mesh::new();
    let other = Mesh::at("other.internal", now());
    let foreign = mesh.issuer.issue(&other.node("web-7"), &key(), HOUR, now()).unwrap_err();
    assert!(matches!(foreign, IssueError::TrustDomain { .. }), "{foreign}");
    for role in CaRole::ALL {
        let ca = SpiffeId::ca(&mesh.trust_domain, role);
        let error = mesh.issuer.issue(&ca, &key(), HOUR, now()).unwrap_err();
        assert!(matches!(error, IssueError::NotALeaf(_)), "{error}");
    }
}
