//! Writers and readers go on while servers are cut off, restarted and made leader: what was
//! acknowledged stays, and every linearizable read shows it.

use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use tokio::task::JoinSet;

use super::*;

/// Acknowledged numbers, and numbers of which nothing is known.
#[derive(Default)]
struct Seen {
    next: AtomicUsize,
    acknowledged: Mutex<Vec<usize>>,
    refused: Mutex<Vec<usize>>,
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_stays_and_what_was_refused_never_comes() {
    let options = Options { checkpoint_every: 50, ..Options::default() };
    let mut world = World::of(3, options).await;
    let seen = Arc::new(Seen::default());
    for round in 0..6 {
        let stop = Arc::new(AtomicBool::new(false));
        let mut writers = JoinSet::new();
        for node in world.nodes.values().cloned() {
            writers.spawn(read(node.clone(), Arc::clone(&seen), Arc::clone(&stop)));
            writers.spawn(write(node, Arc::clone(&seen), Arc::clone(&stop)));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let victim = round % 3 + 1;
        match round % 3 {
            0 => {
                world.cut(victim, true);
                tokio::time::sleep(Duration::from_millis(1500)).await;
                world.cut(victim, false);
            }
            1 => {
                // Fails when another is elected meanwhile, which is as good here.
                let _ = world.nodes[&1].transfer(Some(name(victim))).await;
            }
            _ => {
                world.halt(victim).await;
                world.boot(victim, Start::Resume).await.unwrap();
            }
        }
        stop.store(true, Ordering::Relaxed);
        writers.join_all().await;
    }
    world.leader().await;
    for node in world.nodes.values() {
        node.linearizable(Duration::from_secs(5)).await.unwrap();
    }
    world.converge().await;
    let acknowledged = seen.acknowledged.lock().unwrap().clone();
    let refused = seen.refused.lock().unwrap().clone();
    assert!(acknowledged.len() > 50, "only {} writes", acknowledged.len());
    for node in world.nodes.values() {
        let lost: Vec<_> = acknowledged.iter().filter(|n| !holds(node, **n)).collect();
        assert!(lost.is_empty(), "{} lost {lost:?}", node.name());
        let ghosts: Vec<_> = refused.iter().filter(|n| holds(node, **n)).collect();
        assert!(ghosts.is_empty(), "{} holds {ghosts:?}", node.name());
    }
    world.end().await;
}

/// What was acknowledged before a linearizable read began, it shows; by whichever server.
async fn read(node: Node, seen: Arc<Seen>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let told: Vec<usize> =
            seen.acknowledged.lock().unwrap().iter().rev().take(50).copied().collect();
        if node.linearizable(Duration::from_secs(2)).await.is_ok() {
            let missing: Vec<_> = told.iter().filter(|n| !holds(&node, **n)).collect();
            assert!(missing.is_empty(), "{} reads without {missing:?}", node.name());
        } else {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn write(node: Node, seen: Arc<Seen>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let number = seen.next.fetch_add(1, Ordering::Relaxed);
        let led = node.is_leader();
        match node.propose_within(admin(), numbered(number), Duration::from_secs(2)).await {
            Ok(_) => {
                let leads = led && node.is_leader();
                assert!(!leads || holds(&node, number), "it did not read its own write");
                seen.acknowledged.lock().unwrap().push(number);
            }
            Err(ProposeError::Unknown(_)) => {}
            Err(ProposeError::Rejected(why)) => panic!("{why}"),
            Err(_) => {
                seen.refused.lock().unwrap().push(number);
                // A server that is down refuses at once.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}
