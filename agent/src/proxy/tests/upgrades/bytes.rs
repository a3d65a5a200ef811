//! The bytes of connections that left HTTP: all of them, in order, each way, to the end.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::app::Apps;
use super::{Caller, ways, within};

/// SplitMix64.
struct Draws(u64);

impl Draws {
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Sizes of which many are small and some large.
    fn size(&mut self) -> usize {
        let most = [1, 40, 1_500, 16 << 10, 70_000][self.below(5)];
        1 + self.below(most)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let words = (0..len.div_ceil(8)).flat_map(|_| self.next().to_be_bytes());
        words.take(len).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_close_is_carried_each_way() {
    let (world, apps) = Apps::behind_a_world().await;
    for port in ways(&world) {
        let mut caller = Caller::switched(port, "/echo").await;
        caller.send("last words").await;
        caller.0.shutdown().await.unwrap();
        assert_eq!(caller.rest().await.unwrap(), b"last words");

        let mut caller = Caller::switched(port, "/ends-first").await;
        assert_eq!(caller.rest().await.unwrap(), b"all there is");
        caller.send("x".repeat(100_000)).await;
        caller.0.shutdown().await.unwrap();
        assert_eq!(apps.heard().await, "ended after 100000 bytes");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_is_carried_as_one_each_way() {
    let (world, apps) = Apps::behind_a_world().await;
    for port in ways(&world) {
        let mut caller = Caller::switched(port, "/resets").await;
        caller.send("x").await;
        let ended = caller.rest().await;
        assert!(ended.is_err(), "a plain close would say that this is all there was: {ended:?}");

        let mut caller = Caller::switched(port, "/listens").await;
        caller.send("some").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        caller.0.set_zero_linger().unwrap();
        drop(caller);
        let heard = apps.heard().await;
        assert!(heard.starts_with("reset after "), "{heard}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_messages_come_back_as_they_went() {
    let (world, _apps) = Apps::behind_a_world().await;
    for port in ways(&world) {
        let mut draws = Draws(7);
        let mut caller = Caller::switched(port, "/echo").await;
        let mut back = Vec::new();
        for round in 0..1_000 {
            let len = draws.size();
            let message = draws.bytes(len);
            caller.send(&message).await;
            back.resize(len, 0);
            within(caller.0.read_exact(&mut back)).await.unwrap();
            assert!(back == message, "round {round} of {len} bytes");
        }
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_byte_is_lost_and_none_comes_from_another_however_they_are_cut() {
    let (world, _apps) = Apps::behind_a_world().await;
    let mut callers = JoinSet::new();
    for seed in 0..12 {
        // most share one link
        let port = ways(&world)[usize::from(seed % 3 == 2)];
        callers.spawn(async move {
            let caller = Caller::switched(port, "/echo").await;
            let (mut read, mut write) = caller.0.into_split();
            let sent = Draws(seed).bytes(1 << 20);
            let sending = sent.clone();
            let sending = async move {
                let (mut draws, mut left) = (Draws(seed + 100), &sending[..]);
                while !left.is_empty() {
                    let (part, rest) = left.split_at(draws.size().min(left.len()));
                    write.write_all(part).await.unwrap();
                    left = rest;
                    pause(&mut draws).await;
                }
                write.shutdown().await.unwrap();
            };
            let reading = async {
                let (mut draws, mut seen) = (Draws(seed + 200), Vec::new());
                loop {
                    let mut part = vec![0; draws.size()];
                    let len = read.read(&mut part).await.unwrap();
                    if len == 0 {
                        break seen;
                    }
                    seen.extend_from_slice(&part[..len]);
                    pause(&mut draws).await;
                }
            };
            let ((), seen) = tokio::time::timeout(Duration::from_secs(60), async {
                tokio::join!(sending, reading)
            })
            .await
            .expect("in time");
            let first = seen.iter().zip(&sent).position(|(found, want)| found != want);
            assert!(seen == sent, "seed {seed}: {} bytes, differs at {first:?}", seen.len());
        });
    }
    while let Some(done) = callers.join_next().await {
        done.unwrap();
    }
    world.stop().await;
}

async fn pause(draws: &mut Draws) {
    match draws.below(12) {
        0 => tokio::time::sleep(Duration::from_millis(1)).await,
        1..4 => tokio::task::yield_now().await,
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_nothing_holds_up_only_itself() {
    let (world, _apps) = Apps::behind_a_world().await;
    // the application sends without end, and nobody takes it
    let mut stalled = Vec::new();
    for port in ways(&world).into_iter().cycle().take(20) {
        stalled.push(Caller::switched(port, "/flood").await);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    for port in ways(&world) {
        let mut caller = Caller::switched(port, "/echo").await;
        let talking = async {
            for _ in 0..100 {
                caller.echoes("still quick").await;
            }
        };
        within(talking).await;
    }
    drop(stalled);
    world.stop().await;
}
