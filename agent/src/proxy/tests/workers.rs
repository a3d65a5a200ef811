//! Connections are spread over the workers, and stay with the one that has them.

use std::time::Duration;

use super::world::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_and_links_are_spread_over_all_workers() {
    let world = World::new().await;
    let mut clients = Vec::new();
    for n in 0..64 {
        let mut client = Client::open(world.to_orders).await;
        let (head, _) = client.get("/").await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "caller {n}: {head}");
        clients.push(client);
    }
    let open = |agent: &Agent| -> Vec<usize> {
        agent.handle.workers.iter().map(|worker| worker.connections.open()).collect()
    };
    // 64 callers over two, four more on one than on the other at most, and a link each
    let callers = open(&world.n1);
    assert!(callers.iter().all(|open| (30..=36).contains(open)), "{callers:?}");
    // a link of each of the caller's workers to orders, and one to db; the last call may just be ending
    let is_even = |open: &[usize]| open.iter().sum::<usize>() == 3 && open.contains(&1);
    let even = async {
        while !is_even(&open(&world.n2)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let even = tokio::time::timeout(Duration::from_secs(5), even).await;
    assert!(even.is_ok(), "{:?}", open(&world.n2));
    drop(clients);
    world.stop().await;
}
