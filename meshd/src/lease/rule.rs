//! Which changes of liveness the leader writes: a pure step over what it heard.

use std::collections::BTreeMap;

use mesh_core::catalog::{Liveness, Node};
use mesh_core::command::SetLiveness1;
use mesh_core::limits::RECONNECT_MS_MAX;
use mesh_core::name::NodeName;
use mesh_core::state::MeshState;
use mesh_core::time::UnixMillis;

use super::Tick;
use crate::limits::lease::{GONE_KEPT_MS, SEEN_MS};
pub(super) use crate::limits::lease::{GUARD_NODES_MIN, GUARD_PERCENT, SUSPECT_MS};

/// The times that leases go by, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// How often agents heartbeat.
    pub(crate) heartbeat: u64,
    /// After how long without one a lease expires.
    pub(crate) ttl: u64,
}

/// One moment on both clocks: the steady one measures, the wall clock dates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time {
    pub(crate) tick: Tick,
    pub(crate) wall: UnixMillis,
}

/// What a leader learned since it leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leases {
    /// Since when it leads: everyone is granted one whole lease from here.
    pub(crate) since: Tick,
    /// When each node was last heard of.
    pub(crate) heard: BTreeMap<NodeName, Tick>,
    /// When leases expired lately.
    gone: Vec<Tick>,
    /// Since when nodes are suspect.
    suspect: BTreeMap<NodeName, Tick>,
    /// When last-seen times were last written.
    seen_at: Option<Tick>,
}

impl Leases {
    /// A leader that has heard nothing yet.
    pub(crate) fn new(since: Tick) -> Self {
        Self { since, ..Self::default() }
    }

    /// Remembers what was written at `now`.
    pub(crate) fn committed(&mut self, set: &SetLiveness1, now: Tick) {
        for (node, liveness) in &set.nodes {
            match liveness {
                Liveness::Alive => {
                    self.suspect.remove(node);
                }
                Liveness::Suspect => {
                    self.suspect.entry(node.clone()).or_insert(now);
                }
                Liveness::Gone => {
                    self.suspect.remove(node);
                    self.gone.push(now);
                }
            }
        }
        if !set.seen.is_empty() {
            self.seen_at = Some(now);
        }
        self.gone.retain(|at| now.since(*at) < GONE_KEPT_MS);
    }

    fn last(&self, node: &Node) -> Option<Tick> {
        self.heard.get(&node.name).copied()
    }
}

/// What to write at `now`, or `None`.
///
/// A node heard of within the last lease is alive. One that is not expires, counted from when it
/// was heard last, or from when this server began to lead, and then [`RECONNECT_MS_MAX`] later. Where [`GUARD_NODES_MIN`] nodes or more
/// are known and [`GUARD_PERCENT`] of them or more fall silent within one lease, they become
/// suspect instead of gone, for at most [`SUSPECT_MS`].
pub(crate) fn step(
    rules: Rules, now: Time, leases: &Leases, state: &MeshState,
) -> Option<SetLiveness1> {
    let guarded = is_mass_failure(rules, now, leases, state);
    let nodes: BTreeMap<NodeName, Liveness> = state
        .nodes
        .values()
        .filter_map(|node| Some((node.name.clone(), change(rules, now, leases, node, guarded)?)))
        .collect();
    let wall_of = |heard: Tick| UnixMillis(now.wall.0.saturating_sub(now.tick.since(heard)));
    let seen_due = leases.seen_at.is_none_or(|at| now.tick.since(at) >= SEEN_MS);
    let seen: BTreeMap<NodeName, UnixMillis> = state
        .nodes
        .values()
        .filter_map(|node| {
            let seen = wall_of(leases.last(node)?);
            let stale = seen_due && seen.since(node.last_seen) >= SEEN_MS;
            (stale || nodes.contains_key(&node.name)).then(|| (node.name.clone(), seen))
        })
        .collect();
    (!nodes.is_empty() || !seen.is_empty()).then_some(SetLiveness1 { nodes, seen })
}

/// The new liveness of `node`, if it changes.
fn change(
    rules: Rules, now: Time, leases: &Leases, node: &Node, guarded: bool,
) -> Option<Liveness> {
    if is_fresh(rules, now, leases, node) {
        return (node.liveness != Liveness::Alive).then_some(Liveness::Alive);
    }
    match node.liveness {
        Liveness::Gone => None,
        Liveness::Suspect => {
            let since = leases.suspect.get(&node.name).copied().unwrap_or(leases.since);
            (now.tick.since(since) >= SUSPECT_MS).then_some(Liveness::Gone)
        }
        Liveness::Alive if silence(rules, now, leases, node) < granted(rules, leases, node) => None,
        Liveness::Alive => Some(if guarded { Liveness::Suspect } else { Liveness::Gone }),
    }
}

fn is_mass_failure(rules: Rules, now: Time, leases: &Leases, state: &MeshState) -> bool {
    let lately = leases.gone.iter().filter(|at| now.tick.since(**at) < rules.ttl).count();
    let (mut known, mut silent) = (lately, lately);
    for node in state.nodes.values() {
        let is_silent = match node.liveness {
            Liveness::Gone => continue,
            Liveness::Suspect => !is_fresh(rules, now, leases, node),
            // missed two: will expire within this lease unless heard of
            Liveness::Alive => silence(rules, now, leases, node) >= rules.heartbeat * 2,
        };
        known += 1;
        silent += usize::from(is_silent);
    }
    known >= GUARD_NODES_MIN && silent * 100 >= known * GUARD_PERCENT
}

fn is_fresh(rules: Rules, now: Time, leases: &Leases, node: &Node) -> bool {
    leases.last(node).is_some_and(|heard| now.tick.since(heard) < rules.ttl)
}

/// How long the node may be silent. One that this leader has not heard of may be on its way back
/// from a server that is gone, and pause before it tries the next.
fn granted(rules: Rules, leases: &Leases, node: &Node) -> u64 {
    let is_heard = leases.last(node).is_some_and(|heard| heard >= leases.since);
    if is_heard { rules.ttl } else { rules.ttl + RECONNECT_MS_MAX }
}

/// Milliseconds since the node was heard of, since this server leads, or since the node enrolled,
/// whichever is last.
fn silence(rules: Rules, now: Time, leases: &Leases, node: &Node) -> u64 {
    match leases.last(node) {
        Some(heard) => now.tick.since(heard.max(leases.since)),
        None => {
            let lead = now.tick.since(leases.since);
            // Enrolled in the future: by a clock that was wrong. It must not live until then.
            let is_odd = node.enrolled_at.since(now.wall) > rules.ttl;
            if is_odd { lead } else { lead.min(now.wall.since(node.enrolled_at)) }
        }
    }
}
