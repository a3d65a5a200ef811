//! The short form of the scale test: few agents, and everything that is asked of many.

use std::time::Duration;

use mesh_tests::has;
use mesh_tests::long::scale::{NEEDS, Options, run};

use crate::turn;

#[test]
fn thirty_agents_get_every_change_and_come_back_after_their_servers() {
    let _turn = turn();
    if !has(NEEDS) {
        return;
    }
    let options = Options {
        agents: 30,
        services: 6,
        servers: 3,
        rounds: 2,
        idle: Duration::from_secs(1),
        away: Duration::ZERO,
        limit: Duration::from_secs(120),
    };
    let outcome = run(&options);
    println!("measured: {}", outcome.figures);
    assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
}
