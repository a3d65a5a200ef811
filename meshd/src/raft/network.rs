//! openraft's calls to the other members.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use mesh_core::state::MeshState;
use mesh_core::time::UnixMillis;
use openraft::alias::{SnapshotOf, VoteOf};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::raft::{TransferLeaderRequest, TransferLeaderResponse};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::backup::encode_backup;
use super::codec;
use super::peers::{Peer, Peers};
use super::quorum::Quorum;
use super::types::{ServerNode, TypeConfig};
use super::wire::{self, Append, SnapshotHead, millis};

/// Makes a [`Network`] for each peer.
pub(crate) struct Factory {
    pub(crate) peers: Arc<Peers>,
    pub(crate) quorum: Arc<Quorum>,
    /// How long a message with entries may take. openraft's own figure, one heartbeat, is less than
    /// a disk may need to sync, or a link for a large entry; heartbeats have a lane of their own.
    pub(crate) append_max: Duration,
}

impl RaftNetworkFactory<TypeConfig> for Factory {
    type Network = Network;

    async fn new_client(&mut self, target: u64, node: &ServerNode) -> Network {
        let peer = self.peers.get(target, node);
        self.network(peer, Some(self.append_max))
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &ServerNode) -> Network {
        self.network(self.peers.get(target, node), None)
    }

    /// On a connection of its own, so that bulk never stands before heartbeats.
    async fn new_snapshot_client(&mut self, target: u64, node: &ServerNode) -> Network {
        self.network(self.peers.another(target, node), None)
    }
}

impl Factory {
    fn network(&self, peer: Arc<Peer>, append_max: Option<Duration>) -> Network {
        Network { peer, quorum: Arc::clone(&self.quorum), append_max }
    }
}

/// Calls one peer for openraft.
pub(crate) struct Network {
    peer: Arc<Peer>,
    quorum: Arc<Quorum>,
    append_max: Option<Duration>,
}

impl Network {
    async fn call<A: Serialize, B: DeserializeOwned>(
        &self, route: &str, message: &A, limit: Duration,
    ) -> Result<B, Unreachable<TypeConfig>> {
        let body = codec::encode(message).map_err(|e| Unreachable::new(&e))?;
        self.send(route, body.into(), limit).await
    }

    /// Dead, slow and unwilling peers are all "unreachable" to openraft: it then backs off.
    async fn send<B: DeserializeOwned>(
        &self, route: &str, body: Bytes, limit: Duration,
    ) -> Result<B, Unreachable<TypeConfig>> {
        let answer = self.peer.call(route, body, wire::META_BYTES_MAX, limit).await;
        let answer = answer.map_err(|e| Unreachable::new(&e))?;
        codec::decode(&answer).map_err(|e| Unreachable::new(&e))
    }
}

impl RaftNetworkV2<TypeConfig> for Network {
    type SnapshotData = Arc<MeshState>;

    async fn append_entries(
        &mut self, rpc: AppendEntriesRequest<TypeConfig>, option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let limit = self.append_max.unwrap_or(option.hard_ttl());
        let quorum_ms = self.quorum.age().map(millis);
        Ok(self.call(wire::APPEND, &Append { quorum_ms, rpc: &rpc }, limit).await?)
    }

    async fn vote(
        &mut self, rpc: VoteRequest<TypeConfig>, option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Ok(self.call(wire::VOTE, &rpc, option.hard_ttl()).await?)
    }

    async fn pre_vote(
        &mut self, rpc: VoteRequest<TypeConfig>, option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Ok(self.call(wire::PRE_VOTE, &rpc, option.hard_ttl()).await?)
    }

    async fn full_snapshot(
        &mut self, vote: VoteOf<TypeConfig>, snapshot: SnapshotOf<TypeConfig, Self::SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static, option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let encode = tokio::task::spawn_blocking(move || encode_snapshot(vote, &snapshot));
        let body = encode.await.map_err(|e| Unreachable::new(&e))?;
        let body = body.map_err(Unreachable::<TypeConfig>::from_string)?;
        tracing::info!(peer = self.peer.id(), bytes = body.len(), "sending a snapshot");
        // Both are cancel safe: a snapshot half sent is never installed.
        tokio::select! {
            answer = self.send(wire::SNAPSHOT, body, option.hard_ttl()) => Ok(answer?),
            closed = cancel => Err(closed.into()),
        }
    }

    async fn transfer_leader(
        &mut self, request: TransferLeaderRequest<TypeConfig>, option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        Ok(self.call(wire::TRANSFER, &request, option.hard_ttl()).await?)
    }
}

fn encode_snapshot(
    vote: VoteOf<TypeConfig>, snapshot: &SnapshotOf<TypeConfig, Arc<MeshState>>,
) -> Result<Bytes, String> {
    let head = codec::encode(&SnapshotHead { vote, meta: snapshot.meta.clone() });
    let head = head.map_err(|e| e.to_string())?;
    let len = u32::try_from(head.len()).map_err(|e| e.to_string())?;
    let state = encode_backup(&snapshot.snapshot, UnixMillis::default());
    let state = state.map_err(|e| e.to_string())?;
    let mut body = BytesMut::with_capacity(4 + head.len() + state.len());
    body.put_u32(len);
    body.put_slice(&head);
    body.put_slice(&state);
    Ok(body.freeze())
}
