//! What the log acknowledged survives the end of its process, and a power cut.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use mesh_tests::process::{Process, run};
use mesh_tests::wal::Acknowledged;
use mesh_tests::{Needs, has};

use crate::turn;

const KILLS: u32 = 200;
const CUTS: u32 = 10;

/// Runs a writer on the log in `dir` for `life`, then kills it; what it printed.
fn write_until_killed(dir: &Path, log: &Path, life: Duration) -> String {
    File::create(log).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_wal-writer"));
    command.arg(dir);
    let mut writer = Process::start(command, log);
    std::thread::sleep(life);
    assert!(writer.is_alive(), "the writer ended by itself:\n{}", writer.output());
    writer.kill();
    writer.output()
}

#[test]
fn what_was_acknowledged_survives_two_hundred_kills() {
    let _turn = turn();
    let began = Instant::now();
    let home = tempfile::tempdir().unwrap();
    let (dir, log) = (home.path().join("wal"), home.path().join("printed"));
    let mut acknowledged = Acknowledged::default();
    for round in 0..KILLS {
        // From before the log is open to a few segments in.
        let life = Duration::from_millis(u64::from(4 + round * 7 % 45));
        acknowledged.read(&write_until_killed(&dir, &log, life));
        acknowledged.check(&dir);
    }
    let count = acknowledged.count;
    assert!(count > u64::from(KILLS), "only {count} acknowledgements: the rounds are too short");
    println!("measured: {KILLS} kills, {count} acknowledgements kept, {:?}", began.elapsed());
}

/// An ext4 file system in a file; unmounted when dropped.
struct Disk {
    at: PathBuf,
}

impl Disk {
    fn mount(image: &Path, at: &Path) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let mut command = Command::new("mount");
        // No commit by the clock: what is on the disk is what was synced.
        command.args(["-o", "loop,commit=300"]).args([image, at]);
        let (code, output) = run(command, Duration::from_secs(20));
        assert_eq!(code, Some(0), "mount: {output}");
        Self { at: at.to_owned() }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let mut command = Command::new("umount");
        command.arg(&self.at);
        let _result = run(command, Duration::from_secs(20));
    }
}

fn shell(program: &str, args: &[&Path]) {
    let mut command = Command::new(program);
    command.args(args);
    let (code, output) = run(command, Duration::from_secs(20));
    assert_eq!(code, Some(0), "{program}: {output}");
}

fn new_image(path: &Path) {
    File::create(path).unwrap().set_len(64 << 20).unwrap();
    shell("mkfs.ext4", &[Path::new("-q"), path]);
}

fn can_mount(home: &Path) -> bool {
    let image = home.join("probe");
    new_image(&image);
    std::fs::create_dir_all(home.join("probed")).unwrap();
    let mut command = Command::new("mount");
    command.args(["-o", "loop"]).args([&image, &home.join("probed")]);
    let (code, output) = run(command, Duration::from_secs(20));
    if code == Some(0) {
        drop(Disk { at: home.join("probed") });
        return true;
    }
    let required = std::env::var("MESH_TESTS_REQUIRE").is_ok_and(|value| value == "all");
    assert!(!required, "cannot mount a loop device: {output}");
    println!("skipped: cannot mount a loop device: {}", output.trim());
    false
}

#[test]
fn what_was_acknowledged_survives_ten_power_cuts() {
    let _turn = turn();
    if !has(&[Needs::Root, Needs::Program("mkfs.ext4"), Needs::Program("mount")]) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    if !can_mount(home.path()) {
        return;
    }
    let (mut image, at) = (home.path().join("disk-0"), home.path().join("disk"));
    new_image(&image);
    let mut acknowledged = Acknowledged::default();
    for round in 0..CUTS {
        let disk = Disk::mount(&image, &at);
        acknowledged.check(&at.join("wal"));
        let life = Duration::from_millis(u64::from(40 + round * 31 % 200));
        let printed = write_until_killed(&at.join("wal"), &home.path().join("printed"), life);
        acknowledged.read(&printed);
        std::fs::write(at.join("not-synced"), vec![b'x'; 1 << 20]).unwrap();
        // What the disk holds now is what a machine finds that lost its power now.
        let cut = home.path().join(format!("disk-{}", round + 1));
        shell("cp", &[Path::new("--sparse=always"), &image, &cut]);
        drop(disk);
        std::fs::remove_file(&image).unwrap();
        image = cut;
        let disk = Disk::mount(&image, &at);
        let kept = std::fs::read(at.join("not-synced")).unwrap_or_default();
        assert!(!kept.contains(&b'x'), "this was no power cut: unsynced bytes are there");
        acknowledged.check(&at.join("wal"));
        drop(disk);
    }
    let count = acknowledged.count;
    assert!(count > u64::from(CUTS), "only {count} acknowledgements");
    println!("measured: {CUTS} power cuts, {count} acknowledgements kept");
}
