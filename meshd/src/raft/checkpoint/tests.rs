#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod golden;

use std::os::unix::fs::FileExt;

use mesh_core::time::UnixMillis;
use openraft::vote::RaftLeaderId;
use tempfile::TempDir;

use super::*;
use crate::raft::types::TypeConfig;

fn checkpoint(index: u64) -> Checkpoint {
    let leader = openraft::alias::LeaderIdOf::<TypeConfig>::new(3, 1);
    let meta = SnapshotMeta {
        last_log_id: Some(LogId::new(leader.to_committed(), index)),
        last_membership: Membership::default(),
    };
    let state = MeshState {
        revision: Revision::new(1, index),
        clock: UnixMillis(index * 10),
        ..MeshState::default()
    };
    Checkpoint { meta, state: Arc::new(state) }
}

fn index(found: &Option<Checkpoint>) -> Option<u64> {
    found.as_ref().map(|found| found.meta.last_log_id.unwrap().index)
}

fn names(root: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_newest_two_are_kept_and_the_newest_is_read() {
    let root = TempDir::new().unwrap();
    assert!(newest(root.path(), None).unwrap().is_none());
    for index in [8, 9, 10, 10] {
        write(root.path(), &checkpoint(index)).unwrap();
    }
    assert_eq!(names(root.path()), ["10-3", "9-3"]);
    let found = newest(root.path(), Some(5)).unwrap().unwrap();
    assert_eq!(found.meta, checkpoint(10).meta);
    assert_eq!(*found.state, *checkpoint(10).state);
}

#[test]
fn leftovers_of_a_crash_are_removed() {
    let root = TempDir::new().unwrap();
    write(root.path(), &checkpoint(1)).unwrap();
    fs::create_dir(root.path().join("2-3.tmp")).unwrap();
    fs::write(root.path().join("2-3.tmp/MANIFEST"), "{").unwrap();
    assert_eq!(index(&newest(root.path(), None).unwrap()), Some(1));
    assert_eq!(names(root.path()), ["1-3"]);
}

#[test]
fn any_flipped_byte_is_found_and_the_older_one_used() {
    let root = TempDir::new().unwrap();
    for file in [MANIFEST, STATE] {
        let len = {
            write(root.path(), &checkpoint(1)).unwrap();
            write(root.path(), &checkpoint(2)).unwrap();
            fs::metadata(root.path().join("2-3").join(file)).unwrap().len()
        };
        for at in (0..len).step_by(7) {
            write(root.path(), &checkpoint(2)).unwrap();
            let path = root.path().join("2-3").join(file);
            let flip = File::options().read(true).write(true).open(&path).unwrap();
            let mut byte = [0];
            flip.read_exact_at(&mut byte, at).unwrap();
            flip.write_all_at(&[byte[0] ^ 1], at).unwrap();
            let found = newest(root.path(), Some(1)).unwrap();
            assert_eq!(index(&found), Some(1), "{file} byte {at}");
        }
    }
    assert_eq!(names(root.path()), ["1-3", "last.corrupt"]);
}

#[test]
fn a_hole_between_checkpoint_and_log_is_refused() {
    let root = TempDir::new().unwrap();
    let error = newest(root.path(), Some(4)).unwrap_err();
    assert!(matches!(error, CheckpointError::NotCovered { purged: 4, newest: None, .. }));
    write(root.path(), &checkpoint(3)).unwrap();
    write(root.path(), &checkpoint(7)).unwrap();
    fs::remove_file(root.path().join("7-3").join(STATE)).unwrap();
    let error = newest(root.path(), Some(4)).unwrap_err();
    assert!(matches!(error, CheckpointError::NotCovered { purged: 4, newest: Some(3), .. }));
    assert!(error.to_string().contains("let it join under a new id"), "{error}");
}
