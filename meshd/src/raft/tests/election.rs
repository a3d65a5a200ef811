//! Who leads, and what writes and reads do meanwhile.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_forwards_writes_and_reads_them_back() {
    let world = World::of(3, Options::default()).await;
    let (leader, follower) = (world.leader().await, world.follower().await);
    let outcome = world.nodes[&follower].propose(admin(), numbered(1)).await.unwrap();
    let revision = outcome.revision().unwrap();
    assert!(world.nodes[&leader].state().revision >= revision);
    for node in world.nodes.values() {
        node.linearizable(Duration::from_secs(5)).await.unwrap();
        assert!(holds(node, 1), "{:?}", node.name());
    }
    let again = world.nodes[&follower].propose(admin(), numbered(1)).await;
    assert!(matches!(again, Err(ProposeError::Rejected(_))), "{again:?}");
    world.converge().await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_resume_soon_after_the_leader_stops() {
    let mut world = World::of(3, Options::default()).await;
    let leader = world.leader().await;
    let failed = world.nodes[&leader].failed();
    world.halt(leader).await;
    tokio::time::timeout(Duration::from_secs(1), failed).await.expect("it says that it ended");
    let (_, some) = world.nodes.first_key_value().unwrap();
    let since = Instant::now();
    some.propose(admin(), numbered(1)).await.unwrap();
    assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
    assert_ne!(world.leader().await, leader);
    world.converge().await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_is_elected_when_the_old_one_is_cut_off() {
    let world = World::of(3, Options::default()).await;
    let leader = world.leader().await;
    world.cut(leader, true);
    let others = || world.nodes.values().filter(|node| node.id() != leader);
    let since = Instant::now();
    until("another leader", || others().any(Node::is_leader)).await;
    let elected = others().find(|node| node.is_leader()).unwrap();
    elected.propose(admin(), numbered(1)).await.unwrap();
    assert!(since.elapsed() < Duration::from_secs(6), "{:?}", since.elapsed());
    let cut_off = &world.nodes[&leader];
    assert!(cut_off.linearizable(Duration::from_millis(500)).await.is_err());
    let lost = cut_off.propose_within(admin(), numbered(2), Duration::from_millis(500)).await;
    assert!(lost.is_err(), "{lost:?}");
    world.cut(leader, false);
    world.leader().await;
    world.converge().await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_cut_off_does_not_disturb_the_others() {
    let world = World::of(3, Options::default()).await;
    let (leader, follower) = (world.leader().await, world.follower().await);
    let term = world.nodes[&leader].metrics().term;
    world.cut(follower, true);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(world.nodes[&follower].metrics().term, term, "it raised its term");
    world.nodes[&leader].propose(admin(), numbered(1)).await.unwrap();
    world.cut(follower, false);
    until("it caught up", || holds(&world.nodes[&follower], 1)).await;
    assert_eq!(world.leader().await, leader);
    assert!(world.nodes.values().all(|node| node.metrics().term == term));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_moves_where_it_is_sent() {
    let world = World::of(3, Options::default()).await;
    for target in [2, 3, 1] {
        world.leader().await;
        // Asked of any server.
        world.nodes[&1].transfer(Some(name(target))).await.unwrap();
        until("the target leads", || world.nodes[&target].is_leader()).await;
    }
    world.leader().await;
    let error = world.nodes[&1].transfer(Some(name(9))).await.unwrap_err();
    assert!(error.contains("no member"), "{error}");
    world.nodes[&2].propose(admin(), numbered(1)).await.unwrap();
    world.end().await;
}

/// A leader sends entries before its own disk has them, and they count once a majority has. Were it
/// to lead on in the same term after it was killed, it would give the same log ids to other
/// entries, which nobody could tell apart.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_killed_does_not_lead_on_in_its_term() {
    let mut world = World::of(3, Options::default()).await;
    let leader = world.leader().await;
    world.nodes[&leader].propose(admin(), numbered(1)).await.unwrap();
    world.converge().await;
    let term = world.nodes[&leader].metrics().term;
    let dir = world.machines[&leader].dir.path().to_owned();
    let unsynced = TempDir::new().unwrap();
    copy(&dir, unsynced.path());
    world.nodes[&leader].propose(admin(), numbered(2)).await.unwrap();
    world.converge().await;
    // The followers first, so that nobody takes over.
    let others: Vec<u64> = world.nodes.keys().copied().filter(|id| *id != leader).collect();
    for id in others.iter().chain([&leader]) {
        world.halt(*id).await;
    }
    std::fs::remove_dir_all(dir.join("raft")).unwrap();
    copy(unsynced.path(), &dir);
    for id in [leader].iter().chain(&others) {
        world.boot(*id, Start::Resume).await.unwrap();
    }
    let next = world.leader().await;
    assert_ne!(next, leader, "it lacks what was acknowledged");
    assert!(world.nodes[&next].metrics().term > term);
    world.nodes[&leader].propose(admin(), numbered(3)).await.unwrap();
    world.converge().await;
    assert!(world.nodes.values().all(|node| (1..=3).all(|number| holds(node, number))));
    world.end().await;
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}
