//! Answers requests on the Raft port.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Request, Response, StatusCode, request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use mesh_core::identity::SpiffeId;
use mesh_core::name::ServerName;
use mesh_net::tls::PeerIdentity;
use openraft::alias::SnapshotOf;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use openraft::vote::RaftLeaderId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::backup::decode_backup;
use super::cluster::Cluster;
use super::codec;
use super::peers::describe;
use super::types::TypeConfig;
use super::wire::{self, ProposeReply, ReadReply, SnapshotHead};
use crate::limits::raft::SERVICE_BODY_MAX;

/// Answers calls that are not Raft's own: heartbeats of agents, joining.
pub trait AppHandler: Send + Sync {
    /// Answers the call `name` of the server `from`, which was authenticated.
    ///
    /// An error's text reaches the caller.
    fn call<'a>(
        &'a self, from: ServerName, name: &'a str, body: Bytes,
    ) -> BoxFuture<'a, Result<Bytes, String>>;
}

/// Everything behind the Raft port.
pub(crate) struct Service {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) app: Arc<OnceLock<Arc<dyn AppHandler>>>,
}

type Append = wire::Append<AppendEntriesRequest<TypeConfig>>;
type RaftError = openraft::errors::RaftError<TypeConfig>;

/// Why a request is not answered: before anything was done, or perhaps after.
enum Refusal {
    Not(StatusCode, String),
    Failed(String),
}

impl Service {
    pub(crate) async fn answer(
        &self, peer: &PeerIdentity, request: Request<Incoming>,
    ) -> Response<Full<Bytes>> {
        let (status, body) = match self.route(peer, request).await {
            Ok(body) => (StatusCode::OK, body),
            Err(Refusal::Not(status, why)) => (status, why.into()),
            Err(Refusal::Failed(why)) => (StatusCode::INTERNAL_SERVER_ERROR, why.into()),
        };
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        response
    }

    async fn route(
        &self, peer: &PeerIdentity, request: Request<Incoming>,
    ) -> Result<Bytes, Refusal> {
        let (head, body) = request.into_parts();
        if head.method != Method::POST {
            return Err(Refusal::Not(StatusCode::METHOD_NOT_ALLOWED, "expected POST".to_owned()));
        }
        let from = self.admit(peer, &head)?;
        let raft = &self.cluster.raft;
        match head.uri.path() {
            wire::APPEND => {
                let append = read(body, wire::APPEND_BYTES_MAX).await?;
                write(&self.append(append).await.map_err(failed)?)
            }
            wire::VOTE => {
                let rpc = read(body, wire::META_BYTES_MAX).await?;
                write(&raft.vote(rpc).await.map_err(failed)?)
            }
            wire::PRE_VOTE => {
                let rpc = read(body, wire::META_BYTES_MAX).await?;
                write(&raft.pre_vote(rpc).await.map_err(failed)?)
            }
            wire::TRANSFER => {
                let rpc = read(body, wire::META_BYTES_MAX).await?;
                write(&raft.handle_transfer_leader(rpc).await.map_err(failed)?)
            }
            wire::SNAPSHOT => self.snapshot(collect(body, wire::SNAPSHOT_BYTES_MAX).await?).await,
            wire::PROPOSE => {
                let wire::Propose { by, kind, timeout_ms } =
                    read(body, wire::COMMAND_BYTES_MAX).await?;
                write::<ProposeReply>(&self.cluster.propose_here(by, kind, limit(timeout_ms)).await)
            }
            wire::READ_INDEX => {
                let wire::ReadIndex { timeout_ms } = read(body, wire::META_BYTES_MAX).await?;
                write::<ReadReply>(&self.cluster.read_index_here(limit(timeout_ms)).await)
            }
            wire::MEMBERS => {
                let change = read(body, wire::META_BYTES_MAX).await?;
                write(&self.cluster.change_here(change).await)
            }
            path => match path.strip_prefix(wire::CALL) {
                Some(name) => self.call(from, name, body).await,
                None => Err(Refusal::Not(StatusCode::NOT_FOUND, format!("no route {path:?}"))),
            },
        }
    }

    async fn append(&self, append: Append) -> Result<AppendEntriesResponse<TypeConfig>, RaftError> {
        let wire::Append { quorum_ms, rpc } = append;
        let (at, leader) = (Instant::now(), *rpc.vote.leader_id().node_id());
        let answer = self.cluster.raft.append_entries(rpc).await?;
        let followed = !matches!(answer, AppendEntriesResponse::HigherVote(_));
        if let Some(age) = quorum_ms.filter(|_| followed) {
            self.cluster.quorum.hear(leader, at, Duration::from_millis(age));
        }
        Ok(answer)
    }

    async fn call(&self, from: ServerName, name: &str, body: Incoming) -> Result<Bytes, Refusal> {
        let app = self.app.get().ok_or_else(|| {
            Refusal::Not(StatusCode::SERVICE_UNAVAILABLE, "the server is starting".to_owned())
        })?;
        let body = collect(body, wire::CALL_BYTES_MAX).await?;
        let answer = timeout(wire::FORWARD_MAX, app.call(from, name, body)).await;
        let answer = answer.map_err(|_| Refusal::Failed("it took too long".to_owned()))?;
        answer.map_err(Refusal::Failed)
    }

    async fn snapshot(&self, mut body: Bytes) -> Result<Bytes, Refusal> {
        let cut = || bad("snapshot was cut");
        let len = usize::try_from(body.try_get_u32().map_err(|_| cut())?).map_err(|_| cut())?;
        if len > body.len() {
            return Err(cut());
        }
        let head = body.split_to(len);
        let SnapshotHead { vote, meta } = codec::decode(&head).map_err(|e| bad(describe(&e)))?;
        tracing::info!(bytes = body.len(), "received a snapshot");
        let decode = tokio::task::spawn_blocking(move || decode_backup(&body));
        let state = decode.await.map_err(failed)?.map_err(|e| bad(describe(&e)))?;
        let snapshot = SnapshotOf::<TypeConfig, _> { meta, snapshot: Arc::new(state) };
        write(&self.cluster.raft.install_full_snapshot(vote, snapshot).await.map_err(failed)?)
    }

    /// The caller's name, if it is a server of this cluster that means us.
    ///
    /// Checked at each request, because connections outlive membership.
    fn admit(&self, peer: &PeerIdentity, head: &request::Parts) -> Result<ServerName, Refusal> {
        let (me, headers) = (self.cluster.peers.me(), &head.headers);
        let refuse = |why: String| Refusal::Not(StatusCode::FORBIDDEN, why);
        if me.is_cut() {
            return Err(refuse("cut off by a test".to_owned()));
        }
        let cluster = header(headers, wire::CLUSTER)?;
        if cluster != me.trust_domain.as_str() {
            return Err(refuse(format!("cluster is {}, found {cluster:?}", me.trust_domain)));
        }
        let to = header(headers, wire::TO)?;
        if to != me.id.to_string() {
            return Err(refuse(format!("this is server {} with id {}, not {to}", me.name, me.id)));
        }
        let from: u64 = header(headers, wire::FROM)?.parse().map_err(|_| bad("bad sender id"))?;
        if mesh_net::clock::now() > peer.not_after {
            return Err(refuse("certificate has expired".to_owned()));
        }
        if me.trust.is_revoked(peer) {
            return Err(refuse("certificate is on the deny list".to_owned()));
        }
        let name =
            peer.id.as_server().ok_or_else(|| refuse(format!("{} is no server", peer.id)))?;
        if peer.id != SpiffeId::server(&me.trust_domain, &me.datacenter, name) {
            return Err(refuse(format!("{} is of another datacenter", peer.id)));
        }
        let newcomer = head.uri.path().starts_with(wire::RAFT) && self.is_newer_than_us(from);
        if !newcomer && !self.is_known(name, from) {
            return Err(refuse(format!("server {name} with id {from} is no member")));
        }
        Ok(name.clone())
    }

    fn is_known(&self, name: &ServerName, id: u64) -> bool {
        let state = self.cluster.published.load();
        if state.servers.get(name).is_some_and(|record| record.id == id) {
            return true;
        }
        let metrics = self.cluster.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.get_node(&id).is_some_and(|node| node.name == *name)
    }

    /// Whether our state is older than that server. Then it may lead us without our knowing it, and
    /// must be heard, though only as Raft's peer. One that was removed has an id that we saw given
    /// out.
    fn is_newer_than_us(&self, id: u64) -> bool {
        id > self.cluster.published.load().server_id_last
    }
}

async fn collect(body: Incoming, max: usize) -> Result<Bytes, Refusal> {
    let collected = timeout(SERVICE_BODY_MAX, Limited::new(body, max).collect()).await;
    let collected = collected.map_err(|_| bad(format!("no body within {SERVICE_BODY_MAX:?}")))?;
    Ok(collected.map_err(|e| bad(e.to_string()))?.to_bytes())
}

async fn read<T: DeserializeOwned>(body: Incoming, max: usize) -> Result<T, Refusal> {
    let body = collect(body, max).await?;
    codec::decode(&body).map_err(|error| {
        let why = describe(&error);
        tracing::error!(why, "a member sent what this release cannot read");
        bad(why)
    })
}

fn write<T: Serialize>(answer: &T) -> Result<Bytes, Refusal> {
    codec::encode(answer).map(Bytes::from).map_err(failed)
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, Refusal> {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.ok_or_else(|| bad(format!("no {name}")))
}

fn limit(timeout_ms: u64) -> Duration {
    Duration::from_millis(timeout_ms).min(wire::FORWARD_MAX)
}

fn bad(why: impl Into<String>) -> Refusal {
    Refusal::Not(StatusCode::BAD_REQUEST, why.into())
}

fn failed(error: impl std::error::Error + 'static) -> Refusal {
    Refusal::Failed(describe(&error))
}
