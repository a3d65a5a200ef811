//! The private keys of hosts and services: each is in one file of its own host, and nowhere else
//! that anything is written to.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use mesh_core::trust;
use mesh_net::files::read_checked;
use mesh_net::{hash, pack};
use mesh_tests::cluster::path;
use rcgen::{KeyPair, PublicKeyData};
use serde::Deserialize;

use crate::world::World;

/// A service's key as the agent keeps it.
#[derive(Deserialize)]
struct Kept {
    #[expect(dead_code, reason = "the file has it")]
    chain_pem: String,
    #[serde(with = "trust::bytes")]
    key_der: Vec<u8>,
}

/// A private key, and the one file that may hold it.
struct Key {
    file: PathBuf,
    der: Vec<u8>,
}

/// Looks through all that servers and agents have written, a backup and every log.
pub(crate) fn no_key_leaves_its_host(world: &World) {
    let mesh = &world.mesh;
    let backup = mesh.folder("keys").join("mesh.backup");
    mesh.cli(&["snapshot", "save", path(&backup)]).good();
    let agents = ["front", "back"].into_iter();
    let keys: Vec<Key> = agents.flat_map(|host| keys_of(&mesh.agent(host).dir)).collect();
    let servers = ["ctl-1", "ctl-2", "ctl-3"].map(|host| mesh.folder(host));
    let dirs = servers.iter().cloned().chain(["front", "back", "keys"].map(|one| mesh.folder(one)));
    let written: Vec<PathBuf> = dirs.flat_map(|dir| files(&dir)).collect();
    let contents: BTreeMap<&PathBuf, Content> =
        written.iter().map(|file| (file, Content::read(file))).collect();
    for key in &keys {
        let forms = forms(&scalar(&key.der));
        let found: Vec<_> = contents.iter().filter(|(_, c)| c.hold_any(&forms)).collect();
        let found: Vec<&PathBuf> = found.into_iter().map(|(file, _)| *file).collect();
        assert_eq!(found, [&key.file], "the key in {} is elsewhere", key.file.display());
    }
    every_form_is_found(&keys[0], &mesh.folder("forms"));
    // Of what the servers do keep of a node: so the search sees what is in their files.
    let node = keys.iter().find(|key| key.file.ends_with("node.key")).unwrap();
    let public = KeyPair::try_from(node.der.as_slice()).unwrap().subject_public_key_info();
    let public = vec![hex(&hash::sha256(&public)), latin(&hash::sha256(&public))];
    for place in servers.iter().map(|dir| dir.join("data")).chain([backup]) {
        let in_it = contents.iter().filter(|(file, _)| file.starts_with(&place));
        let seen = in_it.filter(|(_, content)| content.hold_any(&public)).count();
        assert!(seen > 0, "the public key of a node is not found in {}", place.display());
    }
    println!("measured: {} keys, each in one of {} files", keys.len(), contents.len());
}

/// The keys of the agent in `dir`: its node's and one for each service.
fn keys_of(dir: &Path) -> Vec<Key> {
    let all = files(&dir.join("data/keys"));
    assert!(all.len() >= 3, "only {all:?}");
    let key = |file: PathBuf| {
        let bytes = read_checked(&file, 1 << 20).unwrap();
        let der = match file.extension().and_then(|name| name.to_str()) {
            Some("key") => bytes,
            Some("svid") => pack::from_slice::<Kept>(&bytes).unwrap().key_der,
            other => panic!("{}: a key of kind {other:?}", file.display()),
        };
        Key { file, der }
    };
    all.into_iter().map(key).collect()
}

/// The search finds a key in whatever form it would be written.
fn every_form_is_found(key: &Key, dir: &Path) {
    let pem = KeyPair::try_from(key.der.as_slice()).unwrap().serialize_pem();
    let scalar = scalar(&key.der);
    let texts: [(&str, Vec<u8>); 7] = [
        ("DER", key.der.clone()),
        ("the number alone", scalar.clone()),
        ("PEM", pem.clone().into_bytes()),
        ("PEM in JSON", serde_json::json!({ "key": pem }).to_string().into_bytes()),
        ("JSON", serde_json::to_vec(&serde_json::json!({ "key": scalar })).unwrap()),
        ("MessagePack", pack::to_vec(&scalar).unwrap()),
        ("hex", hex(&key.der).into_bytes()),
    ];
    let forms = forms(&scalar);
    for (what, text) in texts {
        let file = dir.join("form");
        fs::write(&file, [b"before ", &*text, b" after"].concat()).unwrap();
        assert!(Content::read(&file).hold_any(&forms), "a key as {what} is not found");
    }
}

/// The secret number of a P-256 key in PKCS#8 (RFC 5915: version 1, then an octet string).
fn scalar(der: &[u8]) -> Vec<u8> {
    let before = [0x02, 0x01, 0x01, 0x04, 0x20];
    let at = der.windows(5).position(|five| five == before).expect("a P-256 key") + 5;
    der[at..at + 32].to_vec()
}

/// `secret` in the forms in which bytes are written.
fn forms(secret: &[u8]) -> Vec<String> {
    let numbers: Vec<String> = secret.iter().map(u8::to_string).collect();
    let packed = pack::to_vec(secret).unwrap();
    let mut forms = vec![latin(secret), hex(secret), hex(secret).to_uppercase(), numbers.join(",")];
    // Past the length, which other bytes around it would change.
    forms.push(latin(&packed[3..]));
    forms.extend((0..3).map(|before| base64_within(secret, before)));
    forms
}

/// What stands in base64 of any bytes that hold `secret` behind `3n + before` others.
fn base64_within(secret: &[u8], before: usize) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let whole = &secret[(3 - before) % 3..];
    let three = |three: &[u8]| {
        let bits = three.iter().fold(0, |bits: u32, byte| bits << 8 | u32::from(*byte));
        [18, 12, 6, 0].map(|shift| char::from(DIGITS[(bits >> shift & 63) as usize]))
    };
    whole.chunks_exact(3).flat_map(three).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes as text, one character each: text is searched fast.
fn latin(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// What is in a file, as it is and without line ends and blanks.
struct Content {
    whole: String,
    joined: String,
}

impl Content {
    fn read(file: &Path) -> Self {
        // A socket has no content.
        let whole = latin(&fs::read(file).unwrap_or_default());
        let joined = whole.replace("\\n", "").replace(['\n', '\r', ' '], "");
        Self { whole, joined }
    }

    fn hold_any(&self, forms: &[String]) -> bool {
        forms.iter().any(|form| self.whole.contains(form) || self.joined.contains(form))
    }
}

/// Every file below `place`.
pub(crate) fn files(place: &Path) -> Vec<PathBuf> {
    match fs::read_dir(place) {
        Ok(entries) => entries.flat_map(|entry| files(&entry.unwrap().path())).collect(),
        Err(_) => vec![place.to_owned()],
    }
}
