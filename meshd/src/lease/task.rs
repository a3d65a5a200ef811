//! Every second: a follower tells the leader what it heard, a leader writes what changed.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;

use mesh_core::command::CommandKind;
use mesh_core::name::ServerName;
use mesh_core::trust::Principal;
use mesh_net::clock;
use mesh_net::tasks::Stop;
use tokio::time::MissedTickBehavior;

use super::agents::AgentReport;
use super::calls::{HEARTBEATS, bodies};
use super::rule::{Leases, Rules, Time, step};
use crate::limits::lease::{PAUSE_MAX_MS, PROPOSE_MAX, SEEN_BATCH, SEEN_CALL_MAX, TURN_EVERY};
use crate::server::Server;

/// Runs until `stop`.
pub(crate) async fn run(
    server: Arc<Server>, rules: Rules, mut stop: Stop,
) -> Result<(), Infallible> {
    let mut ticks = tokio::time::interval(TURN_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known_leader: Option<ServerName> = None;
    let mut leases: Option<Leases> = None;
    let mut last = server.agents.now();
    loop {
        // Both branches are cancel safe.
        tokio::select! {
            () = stop.requested() => return Ok(()),
            _ = ticks.tick() => {}
        }
        let (now, before) = (server.agents.now(), last);
        last = now;
        if now.since(before) > PAUSE_MAX_MS && leases.take().is_some() {
            // It was suspended, or starved: the silence was its own. All get a whole lease again.
            tracing::warn!(ms = now.since(before), "this server was paused, leases begin anew");
        }
        prune(&server);
        let leader = server.node.leader();
        if leader != known_leader {
            server.agents.tell_again();
            (known_leader, leases) = (leader.clone(), None);
        }
        let turn = async {
            match leader {
                Some(leader) if leader == server.name => {
                    let leases = leases.get_or_insert_with(|| Leases::new(server.agents.now()));
                    lead(&server, rules, leases).await;
                }
                Some(leader) => tell(&server, &leader).await,
                None => {}
            }
        };
        // A turn that is cut off writes nothing, or what the next one would write again.
        tokio::select! {
            () = stop.requested() => return Ok(()),
            () = turn => {}
        }
    }
}

async fn lead(server: &Server, rules: Rules, leases: &mut Leases) {
    let state = server.node.state();
    if state.mesh.is_none() {
        return;
    }
    leases.heard = server.agents.heard_at();
    let now = Time { tick: server.agents.now(), wall: clock::now() };
    let Some(set) = step(rules, now, leases, &state) else { return };
    for (node, liveness) in &set.nodes {
        tracing::info!(%node, ?liveness, "the lease of a node changed");
    }
    let by = Principal::Server(server.name.clone());
    let kind = CommandKind::SetLiveness1(set.clone());
    // Never forwarded: a leader that is none any more knows nothing of leases.
    match server.node.propose_as_leader(by, kind, PROPOSE_MAX).await {
        Ok(_) => leases.committed(&set, now.tick),
        Err(error) => tracing::warn!(%error, "liveness was not written, trying again"),
    }
}

/// Forgets agents of nodes that were removed, on leaders and followers.
fn prune(server: &Server) {
    let state = server.node.state();
    // Before the state has arrived nobody is known.
    if state.mesh.is_some() {
        let keep: BTreeSet<_> = state.nodes.keys().cloned().collect();
        server.agents.prune(&keep);
    }
}

async fn tell(server: &Server, leader: &ServerName) {
    loop {
        let agents = server.agents.take_changes(SEEN_BATCH);
        if agents.is_empty() {
            return;
        }
        let last = agents.len() < SEEN_BATCH;
        if let Err(why) = send(server, leader, agents).await {
            tracing::debug!(why, %leader, "the leader did not take the heartbeats");
            server.agents.tell_again();
            return;
        }
        if last {
            return;
        }
    }
}

async fn send(
    server: &Server, leader: &ServerName, agents: Vec<AgentReport>,
) -> Result<(), String> {
    for body in bodies(agents)? {
        let sent = server.node.call(leader, HEARTBEATS, body, SEEN_CALL_MAX).await;
        sent.map_err(|error| error.to_string())?;
    }
    Ok(())
}
