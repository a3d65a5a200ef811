//! A host whose cable was out for longer than TCP waits between two tries.

use std::thread::sleep;
use std::time::{Duration, Instant};

use mesh_tests::http;
use mesh_tests::load::Load;

use crate::turn;
use crate::world::{WEB_ORDERS, World, local};

/// After so long a kernel tries again only 12 s later, whether the cable is back or not.
const OUT: Duration = Duration::from_secs(14);
/// A host is back once its agent has reconnected, and has its lease again; with what TCP waits it
/// was eleven seconds.
const BACK: Duration = Duration::from_secs(8);

#[test]
fn a_host_that_was_cut_off_is_called_again_soon() {
    let _turn = turn();
    let Some(world) = World::start() else { return };
    let calls = || Load::start(&world.front(), local(WEB_ORDERS), "/load", 100, 10);
    let before = calls();
    sleep(Duration::from_secs(2));
    world.mesh.net.link("back", false);
    sleep(OUT);
    world.mesh.net.link("back", true);
    let mended = Instant::now();
    drop(before.stop());
    let answers = || {
        let answer = world.front().run(|| http::get(local(WEB_ORDERS), "orders", "/"));
        answer.is_ok_and(|answer| answer.status == 200).then_some(())
    };
    let back = mesh_tests::within(BACK, answers);
    assert!(back.is_some(), "no call within {BACK:?} after the cable was back");
    let took = mended.elapsed();
    let after = calls();
    sleep(Duration::from_secs(15));
    let seen = after.stop();
    let shown: Vec<_> = seen.failed.iter().take(3).collect();
    assert!(seen.failed.is_empty(), "{} failed once it was back: {shown:?}", seen.failed.len());
    assert!(seen.slowest < Duration::from_secs(2), "{:?}", seen.slowest);
    println!("measured: called again {took:?} after a cut; then {} calls, none failed", seen.ok);
}
