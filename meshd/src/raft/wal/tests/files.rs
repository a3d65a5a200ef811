//! Real files: what an operator sees after a cut, a flipped bit, a lost file.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;

use crate::raft::wal::sim::Sim;
use crate::raft::wal::{Options, Wal, WalError};

use super::{body, mark, small};

fn open(dir: &Path) -> Result<Wal, WalError> {
    Wal::open(dir, small())
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "wal"))
        .collect();
    paths.sort();
    paths
}

fn fill(wal: &Wal, count: u64) {
    for index in 1..=count {
        wal.append_blocking(vec![(index, body(format!("entry {index} ").repeat(20)))]).unwrap();
    }
}

fn indices(wal: &Wal) -> Vec<u64> {
    wal.read(.., usize::MAX).unwrap().into_iter().map(|(index, _)| index).collect()
}

#[test]
fn a_log_reopens_with_everything_and_its_files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("deep/wal");
    let wal = open(&dir).unwrap();
    wal.save_vote_blocking(body("term 3")).unwrap();
    fill(&wal, 40);
    wal.save_committed(Some(mark(30))).unwrap();
    let before = wal.state().unwrap();
    drop(wal);
    assert!(segments(&dir).len() > 2);
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    for path in segments(&dir) {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let wal = open(&dir).unwrap();
    assert_eq!(wal.state().unwrap(), before);
    assert_eq!(indices(&wal), (1..=40).collect::<Vec<_>>());
}

#[test]
fn purging_drops_whole_front_segments_and_keeps_the_vote() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path()).unwrap();
    wal.save_vote_blocking(body("term 3")).unwrap();
    fill(&wal, 60);
    let before = segments(dir.path()).len();
    wal.purge(mark(50)).unwrap();
    wal.append_blocking(vec![]).unwrap();
    wal.close().unwrap();
    let after = segments(dir.path()).len();
    assert!(after < before && after >= 2, "{before} -> {after}");
    let wal = open(dir.path()).unwrap();
    let state = wal.state().unwrap();
    assert_eq!(state.vote, Some(body("term 3")), "its segment is gone, it is not");
    assert_eq!((state.purged, state.first), (Some(mark(50)), Some(51)));
}

#[test]
fn a_second_handle_is_refused_until_the_first_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(error, WalError::Locked { .. }), "{error}");
    first.close().unwrap();
    open(dir.path()).unwrap();
    assert!(matches!(first.state(), Err(WalError::Closed)));
}

#[test]
fn a_torn_tail_is_dropped_and_the_log_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path()).unwrap();
    fill(&wal, 5);
    let path = segments(dir.path()).pop().unwrap();
    let torn = fs::read(&path).unwrap();
    drop(wal);
    fs::write(&path, &torn[..torn.len() - 7]).unwrap();
    let wal = open(dir.path()).unwrap();
    assert_eq!(indices(&wal), [1, 2, 3, 4]);
    wal.append_blocking(vec![(5, body("again"))]).unwrap();
    drop(wal);
    assert_eq!(indices(&open(dir.path()).unwrap()), [1, 2, 3, 4, 5]);
}

#[test]
fn damage_in_the_middle_is_refused_with_its_remedy() {
    for whole_log in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let wal = open(dir.path()).unwrap();
        fill(&wal, 30);
        wal.close().unwrap();
        let paths = segments(dir.path());
        let path = if whole_log { &paths[0] } else { paths.last().unwrap() };
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, &bytes).unwrap();
        let error = open(dir.path()).unwrap_err().to_string();
        for want in ["corrupt, not torn", path.to_str().unwrap(), "remove this server", "new id"] {
            assert!(error.contains(want), "{want:?} in {error}");
        }
        assert_eq!(fs::read(path).unwrap(), bytes, "nothing was touched");
    }
}

#[test]
fn a_closed_log_is_sealed_so_damage_to_its_last_entry_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path()).unwrap();
    fill(&wal, 2);
    wal.close().unwrap();
    let path = segments(dir.path()).pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let last_entry = bytes.len() - 40;
    bytes[last_entry] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(matches!(open(dir.path()), Err(WalError::Corrupt { .. })));
}

#[test]
fn lost_segments_are_noticed() {
    let cases: &[(&str, usize, &str)] =
        &[("first", 0, "is missing"), ("middle", 1, "is missing"), ("second", 2, "is missing")];
    for (name, at, want) in cases {
        let dir = tempfile::tempdir().unwrap();
        let wal = open(dir.path()).unwrap();
        fill(&wal, 40);
        drop(wal);
        fs::remove_file(&segments(dir.path())[*at]).unwrap();
        let error = open(dir.path()).unwrap_err().to_string();
        assert!(error.contains(want), "{name}: {error}");
    }
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path()).unwrap();
    fill(&wal, 40);
    wal.purge(mark(1)).unwrap();
    fill_from(&wal, 41, 60);
    drop(wal);
    fs::remove_file(&segments(dir.path())[0]).unwrap();
    let error = open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("expected 2"), "{error}");
}

fn fill_from(wal: &Wal, first: u64, last: u64) {
    for index in first..=last {
        wal.append_blocking(vec![(index, body("x".repeat(200)))]).unwrap();
    }
}

#[test]
fn what_an_interrupted_roll_left_is_removed_and_foreign_files_stay() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path()).unwrap();
    fill(&wal, 3);
    drop(wal);
    let (tmp, foreign) = (dir.path().join("0000000000000002.wal.tmp"), dir.path().join("notes"));
    fs::write(&tmp, "half").unwrap();
    fs::write(&foreign, "mine").unwrap();
    assert_eq!(indices(&open(dir.path()).unwrap()), [1, 2, 3]);
    assert!(!tmp.exists() && foreign.exists());
}

/// A log of twelve one-entry batches, unsealed as after a crash.
fn crashed() -> Sim {
    let sim = Sim::default();
    let options = Options { segment_bytes: 1_500, ..small() };
    let wal = Wal::open_on(Arc::new(sim.mount()), Path::new("/w"), options).unwrap();
    fill(&wal, 12);
    let images: Vec<(PathBuf, Vec<u8>)> = {
        use crate::raft::wal::Vfs;
        let disk = sim.mount();
        sim.segments().into_iter().map(|path| (path.clone(), disk.read(&path).unwrap())).collect()
    };
    drop(wal);
    for (path, image) in images {
        sim.edit(&path, |bytes| *bytes = image);
    }
    sim
}

fn reopen(sim: Sim) -> Result<Wal, WalError> {
    Wal::open_on(Arc::new(sim.mount()), Path::new("/w"), small())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn one_changed_byte_is_refused_or_costs_the_last_batch(
        file: prop::sample::Index,
        at: prop::sample::Index,
        flip in 1_u8..,
    ) {
        let sim = crashed();
        let paths = sim.segments();
        sim.edit(&paths[file.index(paths.len())], |bytes| {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
        });
        if let Ok(wal) = reopen(sim) {
            prop_assert_eq!(indices(&wal), (1..12).collect::<Vec<u64>>());
        }
    }

    #[test]
    fn any_damage_opens_without_a_hole_or_is_refused(
        edits in prop::collection::vec((any::<[prop::sample::Index; 3]>(), any::<u8>()), 1..9),
        cut in 0_usize..400,
    ) {
        let sim = crashed();
        let paths = sim.segments();
        sim.edit(&paths[paths.len() - 1], |bytes| bytes.truncate(bytes.len().saturating_sub(cut)));
        for ([file, at, run], value) in edits {
            sim.edit(&paths[file.index(paths.len())], |bytes| {
                let at = at.index(bytes.len() + 1);
                let end = bytes.len().min(at + run.index(600));
                bytes[at..end].fill(value);
            });
        }
        if let Ok(wal) = reopen(sim) {
            let found = indices(&wal);
            prop_assert_eq!(&found, &(1..=found.len() as u64).collect::<Vec<u64>>());
        }
    }
}
