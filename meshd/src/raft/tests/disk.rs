//! What survives a restart, and what must not be started.

use super::*;
use crate::raft::wal::Wal;

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_all_keeps_everything() {
    let options = Options { checkpoint_every: 30, ..Options::default() };
    let mut world = World::of(3, options).await;
    for number in 0..50 {
        let via = number as u64 % 3 + 1;
        world.nodes[&via].propose(admin(), numbered(number)).await.unwrap();
    }
    world.converge().await;
    let before = state_hash(&world.nodes[&1].state()).unwrap();
    for id in 1..=3 {
        world.halt(id).await;
    }
    for id in 1..=3 {
        world.boot(id, Start::Resume).await.unwrap();
    }
    world.leader().await;
    world.nodes[&1].linearizable(Duration::from_secs(5)).await.unwrap();
    world.converge().await;
    assert_eq!(state_hash(&world.nodes[&1].state()).unwrap(), before);
    world.nodes[&2].propose(admin(), numbered(99)).await.unwrap();
    world.converge().await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_server_restarts_from_checkpoint_and_log() {
    let mut world = World::new(Options::default()).await;
    world.nodes[&1].propose(admin(), numbered(1)).await.unwrap();
    world.nodes[&1].checkpoint().await.unwrap();
    until("a checkpoint", || world.nodes[&1].metrics().checkpoint.is_some()).await;
    world.nodes[&1].propose(admin(), numbered(2)).await.unwrap();
    let before = world.nodes[&1].state();
    world.halt(1).await;
    world.boot(1, Start::Resume).await.unwrap();
    world.leader().await;
    world.nodes[&1].linearizable(Duration::from_secs(5)).await.unwrap();
    assert_eq!(world.nodes[&1].state(), before);
    let backup = world.nodes[&1].checkpoint_bytes().await.unwrap();
    assert_eq!(decode_backup(&backup).unwrap(), *before);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_checkpoint_is_made_up_for_by_an_older_one_and_the_log() {
    let options = Options { checkpoint_every: 20, ..Options::default() };
    let mut world = World::new(options).await;
    for number in 0..110 {
        world.nodes[&1].propose(admin(), numbered(number)).await.unwrap();
    }
    until("the log is purged", || world.nodes[&1].metrics().purged > Some(20)).await;
    let before = world.nodes[&1].state();
    world.halt(1).await;
    let root = world.machines[&1].dir.path().join("raft/checkpoints");
    let index = |path: &std::path::Path| -> u64 {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.split_once('-').unwrap().0.parse().unwrap()
    };
    let paths = std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path());
    let newest = paths.max_by_key(|path| index(path)).unwrap().join("state.msgpack");
    let mut bytes = std::fs::read(&newest).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&newest, bytes).unwrap();
    world.boot(1, Start::Resume).await.unwrap();
    world.leader().await;
    world.nodes[&1].linearizable(Duration::from_secs(5)).await.unwrap();
    assert_eq!(world.nodes[&1].state(), before);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_entries_do_not_stay_in_the_log() {
    const ENTRY: usize = 64 << 10;
    let options = Options { checkpoint_bytes: 1 << 20, ..Options::default() };
    let mut world = World::of(3, options).await;
    let large = |number: usize| {
        let mut token = token(&format!("l{}", number % 4), TokenGrant::Api { role: Role::Viewer });
        token.note = "x".repeat(ENTRY);
        token
    };
    for number in 0..160 {
        if number >= 4 {
            let id = large(number).id;
            world.nodes[&1].propose(admin(), CommandKind::DeleteToken1(id)).await.unwrap();
        }
        let write = CommandKind::CreateToken1(large(number));
        world.nodes[&1].propose(admin(), write).await.unwrap();
        // slower than the log's size is looked at, or no bound of it could be told
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let live = |node: &Node| node.metrics().log_bytes;
    let written = 160 * ENTRY;
    for (id, node) in &world.nodes {
        until("the log is cut", || live(node) <= written / 2).await;
        assert!(node.metrics().purged.is_some(), "server {id}");
    }
    world.converge().await;
    let before = world.nodes[&1].state();
    for id in 1..=3 {
        world.halt(id).await;
    }
    for id in 1..=3 {
        world.boot(id, Start::Resume).await.unwrap();
    }
    world.leader().await;
    world.nodes[&1].linearizable(Duration::from_secs(5)).await.unwrap();
    assert_eq!(world.nodes[&1].state(), before);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_its_log_does_not_start() {
    let mut world = World::new(Options::default()).await;
    world.halt(1).await;
    let dir = world.machines[&1].dir.path().join("raft");
    std::fs::rename(dir.join("wal"), dir.join("gone")).unwrap();
    let error = world.boot(1, Start::Init).await.unwrap_err();
    assert!(matches!(error, OpenError::Identity(IdentityError::DiskLost { .. })), "{error:?}");
    std::fs::rename(dir.join("gone"), dir.join("wal")).unwrap();
    std::fs::rename(dir.join("id"), dir.join("id.gone")).unwrap();
    let error = world.boot(1, Start::Init).await.unwrap_err();
    assert!(matches!(error, OpenError::Identity(IdentityError::Missing { .. })), "{error:?}");
    let error = world.boot(1, Start::Resume).await.unwrap_err();
    assert!(matches!(error, OpenError::Empty(_)), "{error:?}");
    std::fs::rename(dir.join("id.gone"), dir.join("id")).unwrap();
    world.boot(1, Start::Resume).await.unwrap();
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_belongs_to_one_server() {
    let mut world = World::new(Options::default()).await;
    world.halt(1).await;
    let machine = world.machines.remove(&1).unwrap();
    world.machines.insert(2, machine);
    let error = world.boot(2, Start::Resume).await.unwrap_err();
    assert!(matches!(error, OpenError::Identity(IdentityError::Other { .. })), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_cannot_be_read_stops_the_start() {
    let mut world = World::new(Options::default()).await;
    world.halt(1).await;
    let dir = world.machines[&1].dir.path().join("raft/wal");
    let options = world.options.wal.clone();
    let append = move || {
        let wal = Wal::open(&dir, options).unwrap();
        let next = wal.state().unwrap().last.unwrap().index + 1;
        wal.append_blocking(vec![(next, b"\x81\xa1x\x01".to_vec().into())]).unwrap();
        wal.close().unwrap();
    };
    tokio::task::spawn_blocking(append).await.unwrap();
    let error = world.boot(1, Start::Resume).await.unwrap_err();
    assert!(error.to_string().contains("cannot be decoded"), "{error}");
}
