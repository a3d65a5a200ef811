//! Files, credentials and wrapping of the key-encryption key.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::*;

/// A place for the key, beside a data directory.
struct Place {
    _root: tempfile::TempDir,
    etc: PathBuf,
    data: PathBuf,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let (etc, data) = (root.path().join("etc"), root.path().join("data"));
        for dir in [&etc, &data] {
            fs::create_dir(dir).unwrap();
        }
        Self { _root: root, etc, data }
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_stored_key_reads_back_and_is_its_owners_alone() {
    let place = Place::new();
    let path = place.etc.join("kek");
    let kek = Kek::generate().unwrap();
    kek.store(&path, &place.data).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(Kek::load(&path, &place.data).unwrap().bytes(), kek.bytes());
    set_mode(&path, 0o400);
    assert_eq!(Kek::load(&path, &place.data).unwrap().bytes(), kek.bytes());
    for mode in [0o640, 0o604, 0o660, 0o666] {
        set_mode(&path, mode);
        let error = Kek::load(&path, &place.data).err().unwrap();
        assert!(matches!(error, KekError::Access { .. }), "{mode:o}: {error}");
        assert!(error.to_string().contains(&format!("{mode:04o}, expected 0600")), "{error}");
    }
}

#[test]
fn a_key_is_never_replaced() {
    let place = Place::new();
    let path = place.etc.join("kek");
    let kek = Kek::generate().unwrap();
    kek.store(&path, &place.data).unwrap();
    let error = Kek::generate().unwrap().store(&path, &place.data).err().unwrap();
    assert!(matches!(error, KekError::Io { action: "create", .. }), "{error}");
    assert_eq!(Kek::load(&path, &place.data).unwrap().bytes(), kek.bytes());
}

#[test]
fn a_key_inside_the_data_directory_is_refused() {
    let place = Place::new();
    let kek = Kek::generate().unwrap();
    let inside = place.data.join("kek");
    let error = kek.store(&inside, &place.data).err().unwrap();
    assert!(matches!(error, KekError::InDataDirectory { .. }), "{error}");
    assert!(!inside.exists());
    // Neither a detour nor a link hides it.
    let detour = place.etc.join("../data/kek");
    assert!(matches!(kek.store(&detour, &place.data), Err(KekError::InDataDirectory { .. })));
    fs::write(&inside, "00".repeat(32)).unwrap();
    set_mode(&inside, 0o600);
    let link = place.etc.join("link");
    std::os::unix::fs::symlink(&inside, &link).unwrap();
    assert!(matches!(Kek::load(&link, &place.data), Err(KekError::InDataDirectory { .. })));
}

#[test]
fn what_is_no_key_is_refused() {
    let place = Place::new();
    let path = place.etc.join("kek");
    let missing = Kek::load(&path, &place.data).err().unwrap();
    assert!(matches!(missing, KekError::Io { action: "read", .. }), "{missing}");
    for bad in [Vec::new(), b"secret".to_vec(), vec![0; 32], vec![b'0'; 1 << 20]] {
        fs::write(&path, &bad).unwrap();
        set_mode(&path, 0o600);
        let error = Kek::load(&path, &place.data).err().unwrap();
        assert!(matches!(error, KekError::Form { .. }), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    let directory = Kek::load(&place.etc, &place.data).err().unwrap();
    assert!(matches!(directory, KekError::Access { .. }), "{directory}");
}

#[test]
fn a_credential_is_read_where_systemd_puts_it() {
    let place = Place::new();
    let kek = Kek::generate().unwrap();
    kek.store(&place.etc.join("kek"), &place.data).unwrap();
    set_mode(&place.etc.join("kek"), 0o440);
    let read = Kek::load_credential(Some(place.etc.as_os_str())).unwrap();
    assert_eq!(read.bytes(), kek.bytes());
    set_mode(&place.etc.join("kek"), 0o444);
    let open = Kek::load_credential(Some(place.etc.as_os_str())).err().unwrap();
    assert!(matches!(open, KekError::Access { .. }), "{open}");
    assert!(matches!(Kek::load_credential(None), Err(KekError::NoCredentials)));
}

#[test]
fn a_wrapped_key_opens_for_its_server_only() {
    let kek = Kek::generate().unwrap();
    let (newcomer, other) = (WrapKey::generate().unwrap(), WrapKey::generate().unwrap());
    let wrapped = kek.wrap(&newcomer.public_hex()).unwrap();
    assert_eq!(newcomer.unwrap(&wrapped).unwrap().bytes(), kek.bytes());
    assert_eq!(other.unwrap(&wrapped).err(), Some(WrapError::Mismatch));
    assert!(!wrapped.contains(&hex::encode(kek.bytes())));
    assert_ne!(wrapped, kek.wrap(&newcomer.public_hex()).unwrap(), "a fresh key each time");
}

#[test]
fn a_changed_or_malformed_wrapping_is_refused() {
    let newcomer = WrapKey::generate().unwrap();
    let wrapped = Kek::generate().unwrap().wrap(&newcomer.public_hex()).unwrap();
    let bytes = hex::decode(&wrapped).unwrap();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(newcomer.unwrap(&hex::encode(changed)).is_err(), "byte {at}");
    }
    for bad in ["", "00", &wrapped[2..], &format!("{wrapped}00"), &"é".repeat(92)] {
        assert!(matches!(newcomer.unwrap(bad).err(), Some(WrapError::Form { .. })), "{bad}");
    }
}

#[test]
fn a_useless_wrap_key_is_refused() {
    let kek = Kek::generate().unwrap();
    // The point of order 1: every secret agreed with it would be zero.
    assert_eq!(kek.wrap(&"00".repeat(32)), Err(WrapError::PublicKey));
    assert!(matches!(kek.wrap("abc"), Err(WrapError::Form { .. })));
}
