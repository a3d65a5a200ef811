//! Taking enrolled servers into the cluster, by the leader.

use std::convert::Infallible;
use std::sync::Arc;

use mesh_core::command::ServerRecord;
use mesh_net::tasks::Stop;
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, timeout};

use crate::levels;
use crate::limits::membership::{DIAL_MAX, EVERY};
use crate::raft::Member;
use crate::server::Server;

/// The enrolled server to take in next: one that does not vote yet, by Raft id.
///
/// `waiting` is what the last look said: a server that is being removed leaves the membership
/// first and the state a moment later, and must not come back in between; so a server is taken in
/// only when it was missing at two looks.
pub(crate) fn next<'a>(
    servers: impl Iterator<Item = &'a ServerRecord>, members: &[Member], waiting: &[u64],
) -> Option<&'a ServerRecord> {
    servers
        .filter(|record| is_missing(record, members) && waiting.contains(&record.id))
        .min_by_key(|record| record.id)
}

fn is_missing(record: &ServerRecord, members: &[Member]) -> bool {
    !members.iter().any(|member| member.id == record.id && member.voter)
}

/// Takes servers in while this server leads, one after another; until `stop`.
pub(crate) async fn run(server: Arc<Server>, mut stop: Stop) -> Result<(), Infallible> {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut waiting = Vec::new();
    loop {
        // Cancel safe; a change that is cut off is made again by the next leader.
        tokio::select! {
            () = stop.requested() => return Ok(()),
            _ = ticks.tick() => {}
        }
        tokio::select! {
            () = stop.requested() => return Ok(()),
            seen = turn(&server, &waiting) => waiting = seen,
        }
        tokio::select! {
            () = stop.requested() => return Ok(()),
            () = levels::tell(&server) => {}
        }
    }
}

/// Returns the ids of servers that are missing now.
async fn turn(server: &Server, waiting: &[u64]) -> Vec<u64> {
    if !server.node.is_leader() {
        return Vec::new();
    }
    let (state, members) = (server.node.state(), server.node.members());
    let records = || state.servers.values().map(Arc::as_ref);
    let missing: Vec<_> = records().filter(|r| is_missing(r, &members)).collect();
    // One that is down must not hold up the others for as long as a change may take.
    let mut reachable = Vec::new();
    for record in &missing {
        let dial = TcpStream::connect(&record.raft_address);
        if matches!(timeout(DIAL_MAX, dial).await, Ok(Ok(_))) {
            reachable.push(*record);
        }
    }
    if let Some(record) = next(reachable.iter().copied(), &members, waiting) {
        tracing::info!(server = %record.name, id = record.id, "taking a server into the cluster");
        match server.node.add_server(record.clone()).await {
            Ok(()) => tracing::info!(server = %record.name, "the server votes now"),
            Err(why) => tracing::warn!(server = %record.name, why, "the server was not taken in"),
        }
    }
    missing.iter().map(|record| record.id).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use mesh_core::catalog::KeyHash;

    use super::*;
    use crate::raft::ServerNode;

    fn record(id: u64) -> ServerRecord {
        ServerRecord {
            name: format!("ctl-{id}").parse().unwrap(),
            id,
            api_address: "a:1".to_owned(),
            raft_address: "a:2".to_owned(),
            key: KeyHash([0; 32]),
            feature_level: 1,
        }
    }

    fn member(id: u64, voter: bool) -> Member {
        let ServerRecord { name, raft_address, api_address, .. } = record(id);
        let node = ServerNode { name, raft_address, api_address };
        Member { id, node, voter, leader: id == 1, matched: None }
    }

    #[test]
    fn missing_servers_are_taken_in_one_by_one_at_the_second_look() {
        let servers = [record(3), record(1), record(2)];
        let voter = [member(1, true)];
        let learner = [member(1, true), member(2, false)];
        let all = [member(1, true), member(2, true), member(3, true)];
        type Case<'a> = (&'a str, &'a [Member], &'a [u64], Option<u64>);
        let cases: &[Case<'_>] = &[
            ("first look", &voter, &[], None),
            ("second look", &voter, &[2, 3], Some(2)),
            ("only one was seen before", &voter, &[3], Some(3)),
            ("a learner is promoted", &learner, &[2, 3], Some(2)),
            ("nothing to do", &all, &[2, 3], None),
        ];
        for (name, members, waiting, want) in cases {
            let got = next(servers.iter(), members, waiting).map(|record| record.id);
            assert_eq!(got, *want, "case: {name}");
        }
    }
}
