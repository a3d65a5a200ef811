//! Who takes part.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_latecomer_catches_up_by_a_snapshot() {
    let options = Options { checkpoint_every: 20, ..Options::default() };
    let mut world = World::of(2, options).await;
    for number in 0..120 {
        world.nodes[&1].propose(admin(), numbered(number)).await.unwrap();
    }
    let leader = world.leader().await;
    until("the log is purged", || world.nodes[&leader].metrics().purged > Some(30)).await;
    world.join(3).await;
    let latecomer = &world.nodes[&3];
    until("it has it all", || (0..120).all(|number| holds(latecomer, number))).await;
    assert!(latecomer.metrics().checkpoint > Some(30), "{:?}", latecomer.metrics());
    world.converge().await;
    world.halt(3).await;
    world.boot(3, Start::Resume).await.unwrap();
    world.leader().await;
    world.converge().await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_added_once_and_removed_for_good() {
    let world = World::of(3, Options::default()).await;
    // Adding again changes nothing.
    world.nodes[&2].add_server(world.record(3)).await.unwrap();
    let members = world.nodes[&1].members();
    assert!(members.iter().all(|member| member.voter), "{members:?}");
    assert_eq!(members.len(), 3);
    let reused = ServerRecord { id: 4, ..world.record(3) };
    let error = world.nodes[&1].add_server(reused).await.unwrap_err();
    assert!(error.contains("remove it first"), "{error}");

    let leader = world.leader().await;
    let asked = world.follower().await;
    world.nodes[&asked].remove_server(name(leader)).await.unwrap();
    let rest = || world.nodes.values().filter(|node| node.id() != leader);
    until("two are left", || rest().all(|node| node.members().len() == 2)).await;
    until("the record is gone", || {
        rest().all(|node| !node.state().servers.contains_key(&name(leader)))
    })
    .await;
    rest().next().unwrap().propose(admin(), numbered(1)).await.unwrap();
    let removed = &world.nodes[&leader];
    let refused = removed.propose_within(admin(), numbered(2), Duration::from_secs(1)).await;
    assert!(refused.is_err(), "{refused:?}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_voter_stays() {
    let world = World::new(Options::default()).await;
    let error = world.nodes[&1].remove_server(name(1)).await.unwrap_err();
    assert!(error.contains("only voter"), "{error}");
    world.end().await;
}
