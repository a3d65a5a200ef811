//! Who may do what, on one mesh: callers, handshakes, and what an eavesdropper or a thief sees.

use std::fs;
use std::path::PathBuf;

use mesh_net::token::JoinToken;
use mesh_tests::cluster::Mesh;
use mesh_tests::{Needs, has};

use crate::world::World;
use crate::{callers, capture, handshakes, keys, turn};

#[test]
fn identities_cannot_be_borrowed_and_traffic_cannot_be_read() {
    let _turn = turn();
    if !has(&[Needs::Program("setpriv"), Needs::Program("tcpdump")]) {
        return;
    }
    let Some(world) = World::start() else { return };
    capture::nothing_is_readable_between_hosts(&world);
    callers::ports_belong_to_their_service(&world);
    handshakes::only_the_right_certificates_are_let_in(&world);
    keys::no_key_leaves_its_host(&world);
    no_secret_lies_about(&world.mesh);
}

/// Neither tokens nor the key-encryption key are in logs, states or caches.
fn no_secret_lies_about(mesh: &Mesh) {
    let admin: JoinToken = fs::read_to_string(mesh.admin_token()).unwrap().trim().parse().unwrap();
    let viewer: JoinToken = mesh.token(&["--role", "viewer"]).parse().unwrap();
    let kek = fs::read_to_string(mesh.server("ctl-1").dir.join("kek")).unwrap();
    let mut secrets: Vec<Vec<u8>> = vec![kek.trim().into()];
    for token in [&admin, &viewer] {
        secrets.push(token.secret.to_vec());
        secrets.push(token.secret_hex().as_bytes().to_vec());
    }
    let hosts = ["ctl-1", "ctl-2", "ctl-3", "front", "back"];
    let dirs = hosts.map(|host| mesh.folder(host));
    let places = dirs.iter().flat_map(|dir| [dir.join("data"), dir.join("log")]);
    let files: Vec<PathBuf> = places.flat_map(|place| keys::files(&place)).collect();
    assert!(files.len() > 30, "only {} files were looked at", files.len());
    for file in &files {
        let bytes = fs::read(file).unwrap_or_default();
        let found = |secret: &&Vec<u8>| bytes.windows(secret.len()).any(|part| part == *secret);
        assert!(!secrets.iter().any(|secret| found(&secret)), "a secret is in {}", file.display());
    }
}
