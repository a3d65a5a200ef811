//! Leaves of this CA through the mesh's own verifier, in real handshakes held in memory.

use std::sync::Arc;

use mesh_core::identity::CaRole;
use mesh_net::tls::{
    ClientAuth, Expected, Resolver, Svid, SvidSource, TrustStore, client_config, peer_identity,
    pinned_client_config, server_config,
};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

use super::*;

/// The leaf's identity as a source for handshakes, its root shown too if `with_root`.
fn source(mesh: &Mesh, id: &SpiffeId, with_root: bool) -> Arc<SvidSource> {
    let (leaf, pkcs8) = mesh.leaf(id);
    let pem = if with_root { mesh.issuer.pem_with_root(&leaf) } else { leaf.pem() };
    let svid = Svid::from_pem(&pem, &pkcs8).unwrap();
    assert_eq!((&svid.id, &svid.serial), (id, &leaf.serial));
    assert_eq!((svid.not_before, svid.not_after), (leaf.not_before, leaf.not_after));
    SvidSource::new(svid)
}

fn client(mesh: &Mesh, id: &SpiffeId, expected: Expected) -> Arc<ClientConfig> {
    let trust = TrustStore::new(&mesh.bundle()).unwrap();
    client_config(Some(source(mesh, id, false)), trust, expected, &[]).unwrap()
}

fn server(mesh: &Mesh, id: &SpiffeId, auth: ClientAuth) -> Arc<ServerConfig> {
    let trust = TrustStore::new(&mesh.bundle()).unwrap();
    server_config(Resolver::One(source(mesh, id, true)), trust, auth, &[]).unwrap()
}

/// Runs a handshake to its end, or to the first error of either side.
fn shake(
    client: Arc<ClientConfig>, server: Arc<ServerConfig>,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let mut client = ClientConnection::new(client, "meshd".try_into().unwrap())?;
    let mut server = ServerConnection::new(server)?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok((client, server))
}

const NODES: ClientAuth = ClientAuth::Required(&[CaRole::Node]);
const SERVICES: ClientAuth = ClientAuth::Required(&[CaRole::Service]);

#[test]
fn leaves_of_every_role_verify_at_both_ends() {
    let mesh = Mesh::new();
    let pairs = [
        (mesh.node("web-7"), mesh.server("ctl-1"), NODES),
        (mesh.service("web"), mesh.service("orders"), SERVICES),
    ];
    for (caller, callee, auth) in pairs {
        let from = client(&mesh, &caller, Expected::Id(callee.clone()));
        let (from, to) = shake(from, server(&mesh, &callee, auth)).unwrap();
        let seen = peer_identity(from.peer_certificates()).unwrap().unwrap();
        assert_eq!(seen.id, callee);
        let seen = peer_identity(to.peer_certificates()).unwrap().unwrap();
        assert_eq!(seen.id, caller);
    }
}

#[test]
fn a_joiner_verifies_a_server_by_the_pin_alone() {
    let mesh = Mesh::new();
    let auth = ClientAuth::Optional { roles: &[CaRole::Node], allow_expired: false };
    let server = server(&mesh, &mesh.server("ctl-1"), auth);
    let pin = mesh_net::hash::sha256(&mesh.issuer.root().0);
    assert!(shake(pinned_client_config(pin, &[]).unwrap(), server.clone()).is_ok());
    let other = mesh_net::hash::sha256(&Mesh::new().issuer.root().0);
    assert!(shake(pinned_client_config(other, &[]).unwrap(), server).is_err());
}

#[test]
fn another_role_or_another_mesh_is_refused() {
    let (mesh, other) = (Mesh::new(), Mesh::new());
    let node = mesh.node("web-7");
    let ctl = mesh.server("ctl-1");
    let as_service = server(&mesh, &ctl, SERVICES);
    assert!(shake(client(&mesh, &node, Expected::AnyServer), as_service).is_err());
    let to_service = server(&mesh, &mesh.service("orders"), NODES);
    assert!(shake(client(&mesh, &node, Expected::AnyServer), to_service).is_err());
    // The same trust domain under another root.
    let impostor = server(&other, &ctl, NODES);
    assert!(shake(client(&mesh, &node, Expected::AnyServer), impostor).is_err());
    let stranger = client(&other, &node, Expected::AnyServer);
    assert!(shake(stranger, server(&mesh, &ctl, NODES)).is_err());
}
