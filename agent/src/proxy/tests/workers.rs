//! Connections are spread over the workers, and stay with the one that has them.

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
    assert_eq!(open(&world.n2), [1, 1], "each of the caller's workers has a link, on another worker");
    drop(clients);
    world.stop().await;
}
