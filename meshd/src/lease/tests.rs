//! The rule of leases: tables, and a simulation with changing leaders.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::catalog::{KeyHash, Liveness, Node, NodePolicy};
use mesh_core::command::SetLiveness1;
use mesh_core::limits::RECONNECT_MS_MAX;
use mesh_core::name::NodeName;
use mesh_core::revision::Revision;
use mesh_core::state::MeshState;
use mesh_core::stream::{AgentHello1, Heartbeat1};
use mesh_core::time::UnixMillis;

use super::agents::STREAMS_PER_NODE_MAX;
use super::calls::{CALL_BYTES_MAX, Heartbeats, bodies};
use super::rule::{GUARD_NODES_MIN, GUARD_PERCENT, Leases, SUSPECT_MS, Time, step};
use super::{Agents, Rules, Tick};

const RULES: Rules = Rules { heartbeat: 3_000, ttl: 10_000 };
/// The wall clock at tick 0.
const WALL: u64 = 1_000_000;

fn name(index: usize) -> NodeName {
    format!("n-{index}").parse().unwrap()
}

fn state(count: usize) -> MeshState {
    let mut state = MeshState::default();
    for index in 0..count {
        let node = Node {
            name: name(index),
            address: "10.0.0.1".parse().unwrap(),
            port: 7443,
            policy: NodePolicy::default(),
            key: KeyHash([0; 32]),
            enrolled_at: UnixMillis(0),
            liveness: Liveness::Alive,
            last_seen: UnixMillis(WALL),
            modified: Revision::ZERO,
        };
        state.nodes.insert(name(index), Arc::new(node));
    }
    state
}

fn apply(state: &mut MeshState, set: &SetLiveness1) {
    for (name, liveness) in &set.nodes {
        Arc::make_mut(state.nodes.get_mut(name).unwrap()).liveness = *liveness;
    }
    for (name, seen) in &set.seen {
        Arc::make_mut(state.nodes.get_mut(name).unwrap()).last_seen = *seen;
    }
}

fn at(now: u64, leases: &Leases, state: &MeshState) -> SetLiveness1 {
    let none = SetLiveness1 { nodes: BTreeMap::new(), seen: BTreeMap::new() };
    step(RULES, Time { tick: Tick(now), wall: UnixMillis(WALL + now) }, leases, state)
        .unwrap_or(none)
}

fn with(mut state: MeshState, index: usize, liveness: Liveness) -> MeshState {
    Arc::make_mut(state.nodes.get_mut(&name(index)).unwrap()).liveness = liveness;
    state
}

#[test]
fn one_node_lives_by_its_heartbeats() {
    type Case<'a> = (&'a str, Liveness, Option<u64>, u64, Option<Liveness>);
    let cases: &[Case<'_>] = &[
        ("fresh", Liveness::Alive, Some(5_000), 14_999, None),
        ("expired", Liveness::Alive, Some(5_000), 15_000, Some(Liveness::Gone)),
        ("a new leader waits for those who come back", Liveness::Alive, None, 14_999, None),
        ("and no longer", Liveness::Alive, None, 15_000, Some(Liveness::Gone)),
        ("comes back", Liveness::Gone, Some(5_000), 5_001, Some(Liveness::Alive)),
        ("gone stays gone", Liveness::Gone, None, 60_000, None),
        ("suspect comes back", Liveness::Suspect, Some(5_000), 5_001, Some(Liveness::Alive)),
        ("suspect stays", Liveness::Suspect, None, SUSPECT_MS - 1, None),
        ("not for ever", Liveness::Suspect, None, SUSPECT_MS, Some(Liveness::Gone)),
    ];
    for (case, liveness, heard, now, want) in cases {
        let state = with(state(1), 0, *liveness);
        let mut leases = Leases::new(Tick(0));
        leases.heard.extend(heard.map(|heard| (name(0), Tick(heard))));
        let got = at(*now, &leases, &state).nodes.get(&name(0)).copied();
        assert_eq!(got, *want, "case: {case}");
    }
}

#[test]
fn a_new_node_has_a_whole_lease_to_call() {
    let mut state = state(1);
    Arc::make_mut(state.nodes.get_mut(&name(0)).unwrap()).enrolled_at = UnixMillis(WALL + 50_000);
    let leases = Leases::new(Tick(0));
    assert!(at(64_999, &leases, &state).nodes.is_empty());
    assert_eq!(at(65_000, &leases, &state).nodes.len(), 1);
}

/// `silent` of `count` nodes were last heard of at 0, the others just now.
fn silence(count: usize, silent: usize, now: u64) -> BTreeMap<NodeName, Liveness> {
    let mut leases = Leases::new(Tick(0));
    for index in 0..count {
        let heard = if index < silent { 0 } else { now };
        leases.heard.insert(name(index), Tick(heard));
    }
    at(now, &leases, &state(count)).nodes
}

#[test]
fn many_at_once_become_suspect() {
    let all = |nodes: &BTreeMap<NodeName, Liveness>, want| nodes.values().all(|l| *l == want);
    let few = silence(GUARD_NODES_MIN - 1, GUARD_NODES_MIN - 1, 10_000);
    assert!(few.len() == GUARD_NODES_MIN - 1 && all(&few, Liveness::Gone));
    for count in [GUARD_NODES_MIN, 100] {
        let share = count * GUARD_PERCENT / 100;
        let below = silence(count, share - 1, 10_000);
        assert!(below.len() == share - 1 && all(&below, Liveness::Gone), "{count}");
        let over = silence(count, share, 10_000);
        assert!(over.len() == share && all(&over, Liveness::Suspect), "{count}");
    }
}

#[test]
fn those_who_fail_within_one_lease_count_together() {
    // Ten nodes fall silent within a heartbeat of each other; the first to expire is suspect too.
    let mut leases = Leases::new(Tick(0));
    for index in 0..20 {
        let heard = if index < 10 { index as u64 * 300 } else { 10_000 };
        leases.heard.insert(name(index), Tick(heard));
    }
    let set = at(10_000, &leases, &state(20));
    assert_eq!(set.nodes, BTreeMap::from([(name(0), Liveness::Suspect)]));
}

#[test]
fn last_seen_is_coarse() {
    let mut leases = Leases::new(Tick(0));
    let mut state = state(2);
    leases.heard.insert(name(0), Tick(9_999));
    assert!(at(9_999, &leases, &state).seen.is_empty(), "less than ten seconds");
    leases.heard.insert(name(0), Tick(10_000));
    leases.heard.insert(name(1), Tick(9_000));
    let set = at(10_000, &leases, &state);
    assert_eq!(set.seen, BTreeMap::from([(name(0), UnixMillis(WALL + 10_000))]));
    leases.committed(&set, Tick(10_000));
    apply(&mut state, &set);
    leases.heard.insert(name(1), Tick(11_000));
    assert!(at(11_000, &leases, &state).seen.is_empty(), "not every second");
    leases.heard.extend([(name(0), Tick(15_000)), (name(1), Tick(20_000))]);
    assert_eq!(at(20_000, &leases, &state).seen.len(), 1);
}

#[test]
fn the_table_knows_whose_stream_counts() {
    let agents = Agents::new("ctl-1".parse().unwrap());
    let hello = |generation| AgentHello1 {
        node: name(0),
        generation,
        version: "1".to_owned(),
        applied: Revision::ZERO,
        subscriptions: Vec::new(),
    };
    let old = agents.opened(&hello(1)).unwrap();
    let new = agents.opened(&hello(2)).unwrap();
    agents.closed(&name(0), old);
    let report = Heartbeat1 { applied: Revision::new(1, 9), ..Heartbeat1::default() };
    agents.heard(&name(0), old, report.clone());
    let status = agents.page(None, 9).pop().unwrap();
    assert!(status.connected && status.generation == 2, "the old stream speaks no more");
    assert_eq!(status.report.applied, Revision::ZERO);
    agents.heard(&name(0), new, report);
    let told = agents.take_changes(9);
    assert_eq!(told.len(), 1);
    assert!(agents.take_changes(9).is_empty());
    agents.tell_again();
    assert_eq!(agents.take_changes(9).len(), 1);
    // A leader takes it in; an older word of another server changes nothing.
    let leader = Agents::new("ctl-2".parse().unwrap());
    leader.merge(told.clone());
    assert_eq!(leader.page(None, 9).len(), 1);
    let mut late = told[0].clone();
    late.age_ms = 60_000;
    late.status.server = Some("ctl-3".parse().unwrap());
    leader.merge(vec![late]);
    assert_eq!(leader.page(None, 9)[0].server.as_ref().unwrap().as_str(), "ctl-1");
    leader.prune(&std::collections::BTreeSet::new());
    assert!(leader.page(None, 9).is_empty());
}

fn hello(generation: u64) -> AgentHello1 {
    AgentHello1 {
        node: name(0),
        generation,
        version: generation.to_string(),
        applied: Revision::ZERO,
        subscriptions: Vec::new(),
    }
}

#[test]
fn a_stream_is_heard_whatever_another_server_tells() {
    // The agent's old process is at ctl-2 and goes on heartbeating; its new one is here.
    let other = Agents::new("ctl-2".parse().unwrap());
    let old = other.opened(&hello(1)).unwrap();
    let agents = Agents::new("ctl-1".parse().unwrap());
    let new = agents.opened(&hello(2)).unwrap();
    other.heard(&name(0), old, Heartbeat1::default());
    let told = other.take_changes(9);
    agents.merge(told);
    let report = Heartbeat1 { applied: Revision::new(1, 7), ..Heartbeat1::default() };
    agents.heard(&name(0), new, report);
    let status = agents.page(None, 9).pop().unwrap();
    assert_eq!((status.generation, status.version.as_str()), (2, "2"));
    assert_eq!(status.report.applied, Revision::new(1, 7), "its stream has lost its voice");
    // The other way round: the new process is there, and the old one here keeps the lease.
    let newer = other.opened(&hello(3)).unwrap();
    other.heard(&name(0), newer, Heartbeat1::default());
    agents.merge(other.take_changes(9));
    agents.heard(&name(0), new, Heartbeat1::default());
    assert_eq!(agents.page(None, 9)[0].generation, 3);
    // That one is gone: this one speaks again, and its end is the node's.
    other.closed(&name(0), newer);
    other.closed(&name(0), old);
    agents.merge(other.take_changes(9));
    assert!(!agents.page(None, 9)[0].connected);
    agents.heard(&name(0), new, Heartbeat1::default());
    let status = agents.page(None, 9).pop().unwrap();
    assert!(status.connected && status.generation == 2, "{status:?}");
    agents.closed(&name(0), new);
    assert!(!agents.page(None, 9)[0].connected);
}

#[test]
fn an_old_process_that_comes_back_takes_nothing_along() {
    let agents = Agents::new("ctl-1".parse().unwrap());
    let new = agents.opened(&hello(2)).unwrap();
    let old = agents.opened(&hello(1)).unwrap();
    agents.closed(&name(0), old);
    let report = Heartbeat1 { applied: Revision::new(1, 7), ..Heartbeat1::default() };
    agents.heard(&name(0), new, report);
    let status = agents.page(None, 9).pop().unwrap();
    assert!(status.connected && status.generation == 2);
    assert_eq!(status.report.applied, Revision::new(1, 7));
}

#[test]
fn streams_of_one_node_are_bounded() {
    let agents = Agents::new("ctl-1".parse().unwrap());
    let open: Vec<_> = (0..9).map(|n| agents.opened(&hello(n))).collect();
    assert_eq!(open.iter().filter(|stream| stream.is_ok()).count(), STREAMS_PER_NODE_MAX);
    agents.closed(&name(0), *open[0].as_ref().unwrap());
    assert!(agents.opened(&hello(9)).is_ok());
}

#[test]
fn one_agents_large_report_keeps_no_other_from_the_leader() {
    let agents = Agents::new("ctl-1".parse().unwrap());
    let leaf = |index: usize, bytes: usize| (format!("{index:0>bytes$}"), UnixMillis(1));
    for index in 0..40 {
        let hello = AgentHello1 { node: name(index), ..hello(1) };
        let stream = agents.opened(&hello).unwrap();
        let mut report = Heartbeat1 {
            leaves: (0..1_000).map(|leaf_| leaf(leaf_, 500)).collect(),
            ..Heartbeat1::default()
        };
        report.leaves.insert("x".repeat(4 << 20), UnixMillis(1));
        agents.heard(&name(index), stream, report);
    }
    let told = agents.take_changes(500);
    assert_eq!(told.len(), 40);
    assert!(told.iter().all(|report| report.status.report.leaves.len() == 1_000));
    let bodies = bodies(told).unwrap();
    assert!(bodies.len() > 1 && bodies.iter().all(|body| body.len() <= CALL_BYTES_MAX));
    let leader = Agents::new("ctl-2".parse().unwrap());
    for body in bodies {
        leader.merge(mesh_net::pack::from_slice::<Heartbeats>(&body).unwrap().agents);
    }
    assert_eq!(leader.page(None, 500).len(), 40);
}

#[test]
fn a_clock_that_was_ahead_keeps_no_dead_node_alive() {
    let mut state = state(1);
    let year = 365 * 24 * 3_600_000;
    Arc::make_mut(state.nodes.get_mut(&name(0)).unwrap()).enrolled_at = UnixMillis(WALL + year);
    let leases = Leases::new(Tick(0));
    let last = RULES.ttl + RECONNECT_MS_MAX;
    assert!(at(last - 1, &leases, &state).nodes.is_empty());
    assert_eq!(at(last, &leases, &state).nodes[&name(0)], Liveness::Gone);
}

/// The goal: whoever heartbeats is never taken for dead, and whoever does not is found out, however
/// often the leader changes.
struct World {
    rng: u64,
    now: u64,
    state: MeshState,
    leases: Leases,
    /// Since when each node is dead.
    dead: BTreeMap<usize, u64>,
    /// When each node beats next.
    next: Vec<u64>,
    /// What the servers hear, leader or not: agents' streams stay where they are.
    heard: BTreeMap<NodeName, Tick>,
}

impl World {
    fn new(seed: u64, count: usize) -> Self {
        let next = (0..count as u64).map(|index| index * 371 % RULES.heartbeat).collect();
        let (leases, heard) = (Leases::new(Tick(0)), BTreeMap::new());
        Self { rng: seed, now: 0, state: state(count), leases, dead: BTreeMap::new(), next, heard }
    }

    /// SplitMix64: no clock, no entropy of the system.
    fn draw(&mut self, below: u64) -> u64 {
        self.rng = self.rng.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.rng;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    fn second(&mut self, churn: bool) {
        self.now += 1_000;
        for index in 0..self.next.len() {
            if self.next[index] <= self.now && !self.dead.contains_key(&index) {
                self.heard.insert(name(index), Tick(self.now));
                self.next[index] = self.now + RULES.heartbeat;
            }
        }
        if churn && self.draw(8) == 0 {
            // A new leader: it has heard nothing, then is told what the others hear.
            self.leases = Leases::new(Tick(self.now));
            return;
        }
        self.leases.heard.clone_from(&self.heard);
        let set = at(self.now, &self.leases, &self.state);
        self.leases.committed(&set, Tick(self.now));
        apply(&mut self.state, &set);
    }

    fn liveness(&self, index: usize) -> Liveness {
        self.state.nodes[&name(index)].liveness
    }
}

#[test]
fn leaders_change_and_nobody_flaps_or_lingers() {
    for seed in 0..128 {
        let count = 4 + (seed as usize % 30);
        let mut world = World::new(seed, count);
        for step in 0..600 {
            if step % 40 == 0 {
                let index = world.draw(count as u64) as usize;
                let since = world.now;
                world.dead.entry(index).or_insert(since);
            }
            world.second(true);
            for index in (0..count).filter(|index| !world.dead.contains_key(index)) {
                assert_eq!(world.liveness(index), Liveness::Alive, "seed {seed} step {step}");
            }
        }
        // One leader stays: the dead are known once all others came back, and gone in ten minutes.
        (0..=(RULES.ttl + RECONNECT_MS_MAX) / 1_000).for_each(|_| world.second(false));
        for index in world.dead.keys() {
            assert_ne!(world.liveness(*index), Liveness::Alive, "seed {seed} node {index}");
        }
        (0..=SUSPECT_MS / 1_000).for_each(|_| world.second(false));
        for index in world.dead.clone().keys() {
            assert_eq!(world.liveness(*index), Liveness::Gone, "seed {seed} node {index}");
        }
        world.dead.clear();
        (0..=RULES.heartbeat / 1_000).for_each(|_| world.second(false));
        for index in 0..count {
            assert_eq!(world.liveness(index), Liveness::Alive, "seed {seed}: did not converge");
        }
    }
}
