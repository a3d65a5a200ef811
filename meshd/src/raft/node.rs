//! [`Node`]: the handle of this server's part in the cluster.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mesh_core::command::{CommandKind, Outcome, ServerRecord};
use mesh_core::name::ServerName;
use mesh_core::revision::Revision;
use mesh_core::state::MeshState;
use mesh_core::trust::Principal;
use mesh_net::tls::TrustStore;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::backup::{BackupError, encode_backup};
use super::checkpoint;
use super::cluster::{Cluster, ProposeError, ReadError, check_size};
use super::compact;
use super::identity::{IdentityError, LOG, ServerIdentity};
use super::log_store::LogStore;
use super::machine::Machine;
use super::members;
use super::network::Factory;
use super::options::Options;
use super::parts::{Member, Metrics, NodeFailed, OpenError, Parts, Role, Start};
use super::peers::{CallError, Me, Peers, describe};
use super::quorum::Quorum;
use super::server;
use super::service::{AppHandler, Service};
use super::types::ServerNode;
use super::wal::{Wal, WalError, WalState};
use super::wire::{Change, ProposeReply};
use crate::limits::raft::{CHANGES_MAX, MEMBERS_MAX, PROPOSE_MAX, STOP_MAX, TRANSFER_MAX};

/// This server's part in the cluster. Clones share it; end it with [`Node::shutdown`].
#[derive(Clone)]
pub struct Node {
    cluster: Arc<Cluster>,
    wal: Wal,
    app: Arc<OnceLock<Arc<dyn AppHandler>>>,
    tasks: Arc<Mutex<JoinSet<()>>>,
    stop: CancellationToken,
    options: Options,
}

impl Node {
    /// Opens the data directory and takes part. Returns once the state is as far as the log on
    /// disk is known to be committed.
    ///
    /// # Errors
    /// [`OpenError`]; nothing runs then.
    pub async fn open(start: Start, parts: Parts) -> Result<Self, OpenError> {
        let (wal, machine) = {
            let (dir, identity) = (parts.dir.clone(), parts.identity.clone());
            let options = parts.options.wal.clone();
            let open = move || open_disk(start, dir, &identity, options);
            let opened = tokio::task::spawn_blocking(open).await;
            opened.map_err(|e| OpenError::Raft(e.to_string()))??
        };
        let ServerIdentity { id, name, trust_domain, datacenter } = parts.identity;
        let me = Me {
            id,
            name: name.clone(),
            trust_domain,
            datacenter,
            identity: parts.svid,
            trust: parts.trust,
            #[cfg(test)]
            cut: parts.cut,
        };
        let acceptor = server::acceptor(&me)?;
        let raft_error = |e: &(dyn std::error::Error + 'static)| OpenError::Raft(describe(e));
        let config = parts.options.config(&me.trust_domain).map_err(|e| raft_error(&e))?;
        let peers = Peers::new(me);
        let append_max = parts.options.timing.append_deadline();
        let quorum = Arc::new(Quorum::new(parts.options.timing.lease()));
        let factory =
            Factory { peers: Arc::clone(&peers), quorum: Arc::clone(&quorum), append_max };
        let published = machine.published();
        let store = LogStore::new(wal.clone());
        let raft = openraft::Raft::new(id, config, factory, store, machine).await;
        let raft = raft.map_err(|e| raft_error(&e))?;
        quorum.follow(&raft);
        let (changes, asked) = mpsc::channel(CHANGES_MAX);
        let clock = parts.clock;
        let cluster = Arc::new(Cluster { raft, published, peers, quorum, clock, changes });
        let node = Self {
            cluster,
            wal,
            app: Arc::default(),
            tasks: Arc::default(),
            stop: CancellationToken::new(),
            options: parts.options,
        };
        node.run(parts.listener, acceptor, asked, parts.dir.join(checkpoint::DIR));
        if start == Start::Init {
            let (raft_address, api_address) = (parts.raft_address, parts.api_address);
            let first = ServerNode { name, raft_address, api_address };
            if let Err(error) = node.initialise(first).await {
                // What is wrong with the log, if anything, is what made this fail.
                let _ = node.shutdown().await;
                return Err(error);
            }
        }
        Ok(node)
    }

    fn run(
        &self, listener: TcpListener, acceptor: tokio_rustls::TlsAcceptor,
        asked: mpsc::Receiver<members::Asked>, checkpoints: PathBuf,
    ) {
        let service = Service { cluster: Arc::clone(&self.cluster), app: Arc::clone(&self.app) };
        let serve = server::serve(listener, acceptor, Arc::new(service), self.stop.clone());
        let transfer_max = self.options.timing.transfer_deadline();
        let cluster = Arc::clone(&self.cluster);
        let change = members::run(cluster, asked, transfer_max, self.stop.clone());
        let (cluster, bytes) = (Arc::clone(&self.cluster), self.options.checkpoint_bytes);
        let compact =
            compact::run(cluster, self.wal.clone(), checkpoints, bytes, self.stop.clone());
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.spawn(serve);
        tasks.spawn(change);
        tasks.spawn(compact);
    }

    /// Makes this server the only voter of a cluster of one, unless it is in one.
    async fn initialise(&self, node: ServerNode) -> Result<(), OpenError> {
        let raft = &self.cluster.raft;
        let done = raft.is_initialized().await.map_err(|e| OpenError::Raft(describe(&e)))?;
        if done {
            return Ok(());
        }
        let members = std::collections::BTreeMap::from([(self.id(), node)]);
        raft.initialize(members).await.map_err(|e| OpenError::Raft(describe(&e)))
    }

    /// Says who answers generic calls; only the first counts. Until then callers are told to wait.
    pub fn set_app(&self, app: Arc<dyn AppHandler>) {
        if self.app.set(app).is_err() {
            tracing::warn!("the handler of calls was set before");
        }
    }

    /// This server's Raft id.
    pub fn id(&self) -> u64 {
        self.cluster.peers.me().id
    }

    /// This server's name.
    pub fn name(&self) -> &ServerName {
        &self.cluster.peers.me().name
    }

    /// Whom this server trusts: the cell it was opened with.
    pub fn trust(&self) -> &Arc<TrustStore> {
        &self.cluster.peers.me().trust
    }

    /// The state in force here: never waits, may be behind the leader's.
    pub fn state(&self) -> Arc<MeshState> {
        self.cluster.published.load()
    }

    /// Tells of each new revision of [`Node::state`], or of the newest of several.
    pub fn changed(&self) -> watch::Receiver<Revision> {
        self.cluster.published.changed()
    }

    /// Writes with a deadline of 10 s; see [`Node::propose_within`].
    ///
    /// # Errors
    /// As [`Node::propose_within`].
    pub async fn propose(&self, by: Principal, kind: CommandKind) -> Result<Outcome, ProposeError> {
        self.propose_within(by, kind, PROPOSE_MAX).await
    }

    /// Writes through the leader, wherever it is, on behalf of `by`; the leader stamps the time.
    /// Waits for a leader within `limit`. On the leader, [`Node::state`] has the write when this
    /// returns.
    ///
    /// # Errors
    /// [`ProposeError`]: only `Unknown` leaves open whether the write was or will be applied.
    pub async fn propose_within(
        &self, by: Principal, kind: CommandKind, limit: Duration,
    ) -> Result<Outcome, ProposeError> {
        check_size(&kind)?;
        self.cluster.propose(by, kind, limit).await
    }

    /// Writes if this server leads, and never forwards: for what only a leader can know.
    ///
    /// # Errors
    /// As [`Node::propose_within`]; `NoLeader` at once if another server leads.
    pub async fn propose_as_leader(
        &self, by: Principal, kind: CommandKind, limit: Duration,
    ) -> Result<Outcome, ProposeError> {
        check_size(&kind)?;
        match self.cluster.propose_here(by, kind, limit).await {
            ProposeReply::Done(Outcome::Rejected(why)) => Err(why.into()),
            ProposeReply::Done(outcome) => Ok(outcome),
            ProposeReply::NotLeader => Err(ProposeError::NoLeader(Duration::ZERO)),
            ProposeReply::Unavailable(why) => Err(ProposeError::Unavailable(why)),
            ProposeReply::Unknown(why) => Err(ProposeError::Unknown(why)),
        }
    }

    /// Returns once [`Node::state`] has every write that was acknowledged before the call,
    /// anywhere.
    ///
    /// # Errors
    /// [`ReadError`] after `limit`.
    pub async fn linearizable(&self, limit: Duration) -> Result<(), ReadError> {
        self.cluster.linearizable(limit).await
    }

    /// The leader this server knows of, while it has a majority behind it.
    pub fn leader(&self) -> Option<ServerName> {
        self.cluster.leader_node().map(|(_, node)| node.name)
    }

    /// Whether this server leads, as far as it knows: a majority answered it within a lease, but
    /// another may have been elected since.
    pub fn is_leader(&self) -> bool {
        self.cluster.is_leader()
    }

    /// All members, by id.
    pub fn members(&self) -> Vec<Member> {
        let leader = self.cluster.quorum.leader();
        let metrics = self.cluster.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = &metrics.membership_config;
        let matched = |id| match &metrics.replication {
            _ if id == metrics.id => metrics.last_log_index,
            Some(all) => all.get(&id).copied().flatten().map(|log_id| log_id.index),
            None => None,
        };
        let member = |(id, node): (&u64, &ServerNode)| Member {
            id: *id,
            node: node.clone(),
            voter: membership.voter_ids().any(|voter| voter == *id),
            leader: leader == Some(*id),
            matched: matched(*id),
        };
        membership.nodes().map(member).collect()
    }

    /// Moves leadership to `to`, or to the voter that is furthest along.
    ///
    /// # Errors
    /// Why not, for people.
    pub async fn transfer(&self, to: Option<ServerName>) -> Result<(), String> {
        self.cluster.change(Change::Transfer(to), TRANSFER_MAX).await
    }

    /// Takes an enrolled server into the cluster: as a learner until it has caught up, then as a
    /// voter. Its node must run, opened with [`Start::Join`]. May take 90 s, and may be repeated.
    ///
    /// # Errors
    /// Why not, for people.
    pub async fn add_server(&self, record: ServerRecord) -> Result<(), String> {
        self.cluster.change(Change::Add(record), MEMBERS_MAX).await
    }

    /// Takes a server out of the cluster and out of the state. A leader hands over first.
    ///
    /// # Errors
    /// Why not, for people.
    pub async fn remove_server(&self, name: ServerName) -> Result<(), String> {
        self.cluster.change(Change::Remove(name), MEMBERS_MAX).await
    }

    /// Asks the member `to` by [`AppHandler`]; bodies are bounded at 4 MiB.
    ///
    /// # Errors
    /// [`CallError`], which says whether the other side may have acted.
    pub async fn call(
        &self, to: &ServerName, name: &str, body: Bytes, limit: Duration,
    ) -> Result<Bytes, CallError> {
        self.cluster.call(to, name, body, limit).await
    }

    /// The state as a backup. Costs a pass over the whole state, on a thread for blocking work.
    ///
    /// # Errors
    /// [`BackupError`] if the state is over the bound.
    pub async fn checkpoint_bytes(&self) -> Result<Vec<u8>, BackupError> {
        let (state, now) = (self.state(), (self.cluster.clock)());
        let encoded = tokio::task::spawn_blocking(move || encode_backup(&state, now)).await;
        encoded.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    /// Has a checkpoint written soon.
    ///
    /// # Errors
    /// [`NodeFailed`].
    pub async fn checkpoint(&self) -> Result<(), NodeFailed> {
        self.cluster.raft.trigger().snapshot().await.map_err(|e| NodeFailed(describe(&e)))
    }

    /// Raft at this moment.
    pub fn metrics(&self) -> Metrics {
        let leads = self.is_leader();
        let metrics = self.cluster.raft.metrics();
        let metrics = metrics.borrow_watched();
        Metrics {
            term: metrics.current_term,
            role: match metrics.state {
                ServerState::Leader if leads => Role::Leader,
                ServerState::Leader | ServerState::Candidate => Role::Candidate,
                ServerState::Follower => Role::Follower,
                ServerState::Learner => Role::Learner,
                ServerState::Shutdown => Role::Stopped,
            },
            last_log: metrics.last_log_index,
            applied: metrics.last_applied.map(|id| id.index),
            checkpoint: metrics.snapshot.map(|id| id.index),
            purged: metrics.purged.map(|id| id.index),
            // a log that failed holds nothing that counts
            log_bytes: self.wal.state().map_or(0, |state| state.live_bytes),
        }
    }

    /// Waits until this node fails; the server must end then. Cancel safe; never ends otherwise,
    /// but by
    /// [`Node::shutdown`].
    pub fn failed(&self) -> impl Future<Output = NodeFailed> + Send + use<> {
        let mut metrics = self.cluster.raft.metrics();
        let mut log = self.wal.failed();
        async move {
            loop {
                if let Err(fatal) = &metrics.borrow_watched().running_state {
                    return NodeFailed(describe(fatal));
                }
                tokio::select! {
                    changed = metrics.changed() => if changed.is_err() {
                        return NodeFailed("its core ended".to_owned());
                    },
                    Ok(error) = log.wait_for(Option::is_some) => {
                        let error = error.clone();
                        let text = error.map_or_else(String::new, |error| describe(&error));
                        return NodeFailed(text);
                    }
                }
            }
        }
    }

    /// Hands leadership over if this server has it, then stops everything and closes the log.
    ///
    /// # Errors
    /// [`WalError`] if the log had failed.
    pub async fn shutdown(&self) -> Result<(), WalError> {
        if self.is_leader() && self.members().iter().filter(|member| member.voter).count() > 1 {
            let limit = self.options.timing.transfer_deadline();
            if let Err(why) = members::hand_over(&self.cluster, None, limit).await {
                tracing::warn!(why, "leadership was not handed over");
            }
        }
        if let Err(error) = self.cluster.raft.shutdown().await {
            tracing::error!(%error, "Raft did not stop well");
        }
        self.stop.cancel();
        let mut tasks = {
            let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *tasks)
        };
        let all = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_MAX, all).await.is_err() {
            tasks.shutdown().await;
        }
        self.cluster.peers.close();
        let wal = self.wal.clone();
        let closed = tokio::task::spawn_blocking(move || wal.close()).await;
        closed.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// Opens log and state. The identity is checked before the log is opened, which would make a new
/// one, and kept after, so that a crash in between leaves an empty log without a name: a fresh
/// start.
fn open_disk(
    start: Start, dir: PathBuf, identity: &ServerIdentity, options: super::wal::Options,
) -> Result<(Wal, Machine), OpenError> {
    let io = |op, path: &std::path::Path| {
        let path = path.to_owned();
        move |source| OpenError::from(IdentityError::Io { op, path, source })
    };
    std::fs::create_dir_all(&dir).map_err(io("create", &dir))?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        let synced = std::fs::File::open(parent).and_then(|parent| parent.sync_all());
        synced.map_err(io("sync", parent))?;
    }
    if start == Start::Resume && ServerIdentity::read(&dir)?.is_none() {
        return Err(OpenError::Empty(dir));
    }
    identity.check(&dir)?;
    let wal = Wal::open(&dir.join(LOG), options)?;
    let WalState { vote, purged, last, .. } = wal.state()?;
    identity.keep(&dir, vote.is_none() && purged.is_none() && last.is_none())?;
    let purged = purged.map(|mark| mark.index);
    let machine = Machine::open(dir.join(checkpoint::DIR), purged)?;
    Ok((wal, machine))
}
