//! The long forms, for seconds: so that they work when somebody wants them for long.

use std::time::Duration;

use mesh_tests::has;
use mesh_tests::long::{Outcome, chaos, soak, world};

use crate::turn;

#[test]
fn a_short_soak_finds_nothing() {
    let _turn = turn();
    if !has(world::NEEDS) {
        return;
    }
    let length = Duration::from_secs(10);
    let outcome = soak::run(&soak::Options { length, rate: 100, clock: 1, restarts: 1 });
    good("soak", &outcome);
    assert!(outcome.figures["policy_changes"].as_u64().unwrap() > 0);
}

/// The seed's first faults are the death of the leader and that of an application.
#[test]
fn a_short_chaos_finds_nothing() {
    let _turn = turn();
    if !has(&[world::NEEDS, chaos::NEEDS].concat()) {
        return;
    }
    let (length, longest) = (Duration::from_secs(6), Duration::from_secs(2));
    let outcome = chaos::run(&chaos::Options { length, seed: 23, longest, rate: 100 });
    good("chaos", &outcome);
    assert!(outcome.figures["steps"].as_array().unwrap().len() > 1, "{outcome:#?}");
}

fn good(name: &str, outcome: &Outcome) {
    assert!(outcome.failures.is_empty(), "{name}: {outcome:#?}");
    println!("measured: {name}, {}", outcome.figures["requests"]);
}
