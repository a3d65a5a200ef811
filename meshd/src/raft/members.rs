//! Changes of membership, one at a time, by the leader.
//!
//! Two changes at once may leave a joint configuration behind; so one task makes them all, and
//! looks at what came of each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mesh_core::command::{CommandKind, Outcome, Rejected, ServerRecord};
use mesh_core::name::ServerName;
use mesh_core::trust::Principal;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::{ChangeMembers, RaftMetrics};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::cluster::Cluster;
use super::peers::describe;
use super::types::{ServerNode, TypeConfig};
use super::wire::{Change, ChangeReply, ProposeReply};
use crate::limits::raft::{MEMBERS_CHANGE_MAX, MEMBERS_WRITE_MAX};

/// A change and who waits for it.
pub(crate) type Asked = (Change, oneshot::Sender<ChangeReply>);

/// Makes changes until `stop`.
pub(crate) async fn run(
    cluster: Arc<Cluster>, mut changes: mpsc::Receiver<Asked>, transfer_max: Duration,
    stop: CancellationToken,
) {
    // `recv` is cancel safe; a change under way when the server stops is cut off, and its caller
    // told.
    let work = async {
        while let Some((change, reply)) = changes.recv().await {
            let done = timeout(MEMBERS_CHANGE_MAX, make(&cluster, change, transfer_max)).await;
            let done = done.unwrap_or_else(|_| Err(Failure::Failed(format!(
                "not done within {MEMBERS_CHANGE_MAX:?}: is the server up, and its Raft port in reach?"
            ))));
            let answer = match done {
                Ok(()) => ChangeReply::Done,
                Err(Failure::NotLeader) => ChangeReply::NotLeader,
                Err(Failure::Failed(why)) => ChangeReply::Failed(why),
            };
            // The caller may have given up.
            let _ = reply.send(answer);
        }
    };
    stop.run_until_cancelled(work).await;
}

enum Failure {
    NotLeader,
    Failed(String),
}

async fn make(cluster: &Cluster, change: Change, transfer_max: Duration) -> Result<(), Failure> {
    if !cluster.is_leader() {
        return Err(Failure::NotLeader);
    }
    match change {
        Change::Add(record) => add(cluster, record).await,
        Change::Remove(name) => remove(cluster, &name, transfer_max).await,
        Change::Transfer(to) => transfer(cluster, to.as_ref(), transfer_max).await,
    }
}

/// Takes the server in as a learner, waits until it has caught up, and lets it vote.
async fn add(cluster: &Cluster, record: ServerRecord) -> Result<(), Failure> {
    let ServerRecord { name, id, api_address, raft_address, .. } = record;
    let node = ServerNode { name, raft_address, api_address };
    let membership = metrics(cluster).membership_config;
    let namesake = membership.nodes().find(|(other, n)| n.name == node.name && **other != id);
    if let Some((other, _)) = namesake {
        let text = format!("server {} is a member with id {other}: remove it first", node.name);
        return Err(Failure::Failed(text));
    }
    match membership.get_node(&id) {
        Some(known) if *known == node => {}
        Some(_) => {
            let moved = ChangeMembers::SetNodes(BTreeMap::from([(id, node.clone())]));
            commit(cluster, moved, true).await?;
        }
        None => {}
    }
    cluster.raft.add_learner(id, node, true).await.map(drop).map_err(refused)?;
    commit(cluster, ChangeMembers::AddVoterIds(BTreeSet::from([id])), true).await?;
    settle(cluster).await
}

/// Takes the server out of the membership, then out of the state.
async fn remove(
    cluster: &Cluster, name: &ServerName, transfer_max: Duration,
) -> Result<(), Failure> {
    let now = metrics(cluster);
    let found = now.membership_config.nodes().find(|(_, node)| node.name == *name);
    if let Some((id, _)) = found {
        let id = *id;
        let voters: BTreeSet<u64> = now.membership_config.voter_ids().collect();
        if voters == BTreeSet::from([id]) {
            let text = format!("server {name} is the only voter, and cannot be removed");
            return Err(Failure::Failed(text));
        }
        if id == now.id {
            transfer(cluster, None, transfer_max).await?;
            return Err(Failure::NotLeader);
        }
        let change = BTreeSet::from([id]);
        let change = if voters.contains(&id) {
            ChangeMembers::RemoveVoters(change)
        } else {
            ChangeMembers::RemoveNodes(change)
        };
        commit(cluster, change, false).await?;
        settle(cluster).await?;
    }
    let by = Principal::Server(cluster.peers.me().name.clone());
    let kind = CommandKind::RemoveServer1(name.clone());
    match cluster.propose_here(by, kind, MEMBERS_WRITE_MAX).await {
        ProposeReply::Done(Outcome::Rejected(
            Rejected::NotFound { .. } | Rejected::NotInitialised,
        )) if found.is_some() => Ok(()),
        ProposeReply::Done(Outcome::Rejected(why)) => Err(Failure::Failed(why.to_string())),
        ProposeReply::Done(_) => Ok(()),
        ProposeReply::NotLeader => Err(Failure::NotLeader),
        ProposeReply::Unavailable(why) | ProposeReply::Unknown(why) => Err(Failure::Failed(why)),
    }
}

/// Hands leadership to `to`, or to the voter that is furthest along; returns once it is gone.
pub(crate) async fn hand_over(
    cluster: &Cluster, to: Option<&ServerName>, limit: Duration,
) -> Result<(), String> {
    let now = metrics(cluster);
    let target = match to {
        Some(name) => successor_named(&now, name)?,
        None => successor(&now).ok_or("there is no other voter")?,
    };
    if target == now.id {
        return Ok(());
    }
    cluster.raft.trigger().transfer_leader(target).await.map_err(|e| describe(&e))?;
    let gone = |m: &RaftMetrics<TypeConfig>| m.current_leader.is_some_and(|id| id != m.id);
    let waited = cluster.raft.wait(Some(limit)).metrics(gone, "hand over").await;
    waited.map(drop).map_err(|_| format!("leadership did not move within {limit:?}"))
}

async fn transfer(
    cluster: &Cluster, to: Option<&ServerName>, limit: Duration,
) -> Result<(), Failure> {
    hand_over(cluster, to, limit).await.map_err(Failure::Failed)
}

fn successor_named(now: &RaftMetrics<TypeConfig>, name: &ServerName) -> Result<u64, String> {
    let membership = &now.membership_config;
    let found = membership.nodes().find(|(_, node)| node.name == *name).map(|(id, _)| *id);
    let id = found.ok_or_else(|| format!("server {name} is no member of the cluster"))?;
    if membership.voter_ids().any(|voter| voter == id) {
        return Ok(id);
    }
    Err(format!("server {name} does not vote yet"))
}

/// The other voter with the longest log, as the leader knows it.
fn successor(now: &RaftMetrics<TypeConfig>) -> Option<u64> {
    let progress = now.replication.as_ref();
    let matched = |id: &u64| progress.and_then(|all| all.get(id).copied().flatten());
    now.membership_config.voter_ids().filter(|id| *id != now.id).max_by_key(matched)
}

/// Makes one step of membership and waits until it is committed.
async fn commit(
    cluster: &Cluster, change: ChangeMembers<u64, ServerNode>, retain: bool,
) -> Result<(), Failure> {
    cluster.raft.change_membership(change, retain).await.map(drop).map_err(refused)
}

/// Leaves a joint configuration, should one have stayed.
async fn settle(cluster: &Cluster) -> Result<(), Failure> {
    if metrics(cluster).membership_config.get_joint_config().len() > 1 {
        commit(cluster, ChangeMembers::AddVoterIds(BTreeSet::new()), true).await?;
    }
    Ok(())
}

fn refused(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> Failure {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => Failure::NotLeader,
        error => Failure::Failed(describe(&error)),
    }
}

fn metrics(cluster: &Cluster) -> RaftMetrics<TypeConfig> {
    cluster.raft.metrics().borrow_watched().clone()
}
