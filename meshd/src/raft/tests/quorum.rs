//! A leader that no majority answers is none: not to itself, and not to those it still reaches.

use super::*;

/// How long a leader may be believed in after its majority is gone: a lease, with room for a slow
/// machine.
const BELIEVED_MAX: Duration = Duration::from_secs(3);

fn nobody_leads(node: &Node) -> bool {
    let claims = node.is_leader() || node.metrics().role == crate::raft::Role::Leader;
    let names = node.leader().is_some() || node.members().iter().any(|member| member.leader);
    !claims && !names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_followers_are_gone_leads_no_more() {
    let world = World::of(3, Options::default()).await;
    let leader = world.leader().await;
    let lone = &world.nodes[&leader];
    let others = || world.nodes.keys().filter(|id| **id != leader);
    let since = Instant::now();
    others().for_each(|id| world.cut(*id, true));
    for node in world.nodes.values() {
        until("nobody is taken for the leader", || nobody_leads(node)).await;
    }
    assert!(since.elapsed() < BELIEVED_MAX, "{:?}", since.elapsed());
    let read = lone.linearizable(Duration::from_secs(1)).await;
    assert!(matches!(read, Err(ReadError::NoLeader(_))), "{read:?}");
    // Surely not done, and said so: it did not enter the log.
    let last = lone.metrics().last_log;
    let write = lone.propose_within(admin(), numbered(1), Duration::from_secs(1)).await;
    assert!(matches!(write, Err(ProposeError::NoLeader(_))), "{write:?}");
    assert_eq!(lone.metrics().last_log, last);
    others().for_each(|id| world.cut(*id, false));
    world.leader().await;
    lone.propose(admin(), numbered(2)).await.unwrap();
    world.converge().await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_of_such_a_leader_believes_it_no_more() {
    let world = World::of(4, Options::default()).await;
    let leader = world.leader().await;
    let others: Vec<u64> = world.nodes.keys().copied().filter(|id| *id != leader).collect();
    let (follower, lost) = others.split_first().unwrap();
    lost.iter().for_each(|id| world.cut(*id, true));
    let pair = [&world.nodes[&leader], &world.nodes[follower]];
    for node in pair {
        until("nobody is taken for the leader", || nobody_leads(node)).await;
    }
    // It goes on calling its follower, with pauses of three seconds: through one of each.
    let end = Instant::now() + Duration::from_secs(7);
    while Instant::now() < end {
        assert!(pair.into_iter().all(nobody_leads), "the follower believes a heartbeat");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    lost.iter().for_each(|id| world.cut(*id, false));
    world.leader().await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_voter_is_a_majority() {
    let world = World::new(Options::default()).await;
    let node = &world.nodes[&1];
    until("it leads", || node.is_leader()).await;
    tokio::time::sleep(Options::default().timing.lease() * 2).await;
    assert!(node.is_leader() && node.metrics().role == crate::raft::Role::Leader);
    node.linearizable(Duration::from_secs(1)).await.unwrap();
    world.end().await;
}
