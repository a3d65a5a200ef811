//! Connections to the other members: one kept-alive HTTP/2 connection over mutual TLS for each.
//!
//! State kind: *ephemeral*. A connection is made on first use, by a task of its own, so that a
//! short deadline of one call does not keep it from ever standing; any error drops it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use mesh_core::identity::{SpiffeId, TrustDomain};
use mesh_core::name::{Datacenter, ServerName};
use mesh_net::tls::{Expected, Svid, SvidSource, TrustStore, client_config};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::types::ServerNode;
use super::wire;
pub(crate) use crate::limits::raft::{KEEP_ALIVE, KEEP_ALIVE_MAX, WINDOW};
use crate::limits::raft::{PEERS_CONNECT_MAX, PEERS_TEXT_MAX};

/// Who this server is among its peers.
#[derive(Clone, Debug)]
pub(crate) struct Me {
    pub(crate) id: u64,
    pub(crate) name: ServerName,
    pub(crate) trust_domain: TrustDomain,
    pub(crate) datacenter: Datacenter,
    pub(crate) identity: Arc<SvidSource>,
    pub(crate) trust: Arc<TrustStore>,
    /// Cuts this server off, in tests.
    #[cfg(test)]
    pub(crate) cut: Arc<std::sync::atomic::AtomicBool>,
}

impl Me {
    /// Whether a test cut this server off.
    pub(crate) fn is_cut(&self) -> bool {
        #[cfg(test)]
        return self.cut.load(std::sync::atomic::Ordering::Relaxed);
        #[cfg(not(test))]
        false
    }
}

/// Why a call has no answer.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// Nothing was sent: the peer has not seen the request.
    #[error("cannot reach server {peer}: {why}")]
    Unreachable {
        /// Whom.
        peer: ServerName,
        /// Why.
        why: String,
    },
    /// The peer refused before it did anything.
    #[error("server {peer} refused: {why}")]
    Refused {
        /// Who.
        peer: ServerName,
        /// Its words.
        why: String,
    },
    /// The request was sent; what came of it is not known.
    #[error("no answer from server {peer}: {why}")]
    Lost {
        /// Whose.
        peer: ServerName,
        /// Why.
        why: String,
    },
}

impl CallError {
    /// Whether the peer surely did nothing.
    pub fn was_not_done(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Refused { .. } => true,
            Self::Lost { .. } => false,
        }
    }
}

/// All peers, by Raft id.
#[derive(Debug)]
pub(crate) struct Peers {
    me: Me,
    peers: Mutex<BTreeMap<u64, Arc<Peer>>>,
}

impl Peers {
    pub(crate) fn new(me: Me) -> Arc<Self> {
        Arc::new(Self { me, peers: Mutex::default() })
    }

    pub(crate) fn me(&self) -> &Me {
        &self.me
    }

    /// The peer with this id, as `node` names it now.
    pub(crate) fn get(&self, id: u64, node: &ServerNode) -> Arc<Peer> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        match peers.get(&id) {
            Some(peer) if peer.node == *node => Arc::clone(peer),
            _ => {
                let peer = self.another(id, node);
                peers.insert(id, Arc::clone(&peer));
                peer
            }
        }
    }

    /// A connection of its own to that peer, for bulk.
    pub(crate) fn another(&self, id: u64, node: &ServerNode) -> Arc<Peer> {
        let (state, _) = watch::channel(State::Down(None));
        let connecting = Mutex::default();
        let node = node.clone();
        Arc::new(Peer { me: self.me.clone(), id, node, state: Arc::new(state), connecting })
    }

    /// Drops all connections.
    pub(crate) fn close(&self) {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// One peer and the connection to it.
pub(crate) struct Peer {
    me: Me,
    id: u64,
    node: ServerNode,
    state: Arc<watch::Sender<State>>,
    connecting: Mutex<Option<AbortOnDropHandle<()>>>,
}

#[derive(Clone)]
enum State {
    /// Not connected; the last attempt failed with this.
    Down(Option<String>),
    Connecting,
    Up(Arc<Connection>),
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// With what we proved who we are: a renewed certificate needs a new connection.
    svid: Arc<Svid>,
    _driver: AbortOnDropHandle<()>,
}

impl Peer {
    pub(crate) fn name(&self) -> &ServerName {
        &self.node.name
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// POSTs `body` and returns the answer's body of at most `max` bytes, within `limit`.
    ///
    /// # Errors
    /// [`CallError`], which says whether the peer may have acted.
    pub(crate) async fn call(
        &self, route: &str, body: Bytes, max: usize, limit: Duration,
    ) -> Result<Bytes, CallError> {
        let end = Instant::now() + limit;
        if self.me.is_cut() {
            return Err(self.unreachable("cut off by a test"));
        }
        let connection = timeout_at(end, self.connection())
            .await
            .map_err(|_| self.unreachable(format!("no connection within {limit:?}")))?
            .map_err(|why| self.unreachable(why))?;
        let request = self.request(route, body).map_err(|e| self.unreachable(e))?;
        let answer = timeout_at(end, exchange(&connection, request, max)).await;
        let failed = match answer {
            Ok(Ok((StatusCode::OK, body))) => return Ok(body),
            Ok(Ok((StatusCode::INTERNAL_SERVER_ERROR, body))) => self.lost(text(&body)),
            Ok(Ok((_, body))) => {
                CallError::Refused { peer: self.node.name.clone(), why: text(&body) }
            }
            Ok(Err(why)) => self.lost(why),
            // The connection may be sound and the peer only slow; its own keep-alive finds out.
            Err(_) => return Err(self.lost(format!("none within {limit:?}"))),
        };
        self.drop_connection(&connection);
        Err(failed)
    }

    /// The connection, made if there is none. Cancel safe.
    async fn connection(&self) -> Result<Arc<Connection>, String> {
        let mut state = self.state.subscribe();
        let mut waited = false;
        loop {
            let now = state.borrow_and_update().clone();
            match now {
                State::Up(connection) if self.is_usable(&connection) => return Ok(connection),
                State::Down(Some(why)) if waited => return Err(why),
                State::Connecting => {}
                State::Up(_) | State::Down(_) => self.connect(),
            }
            waited = true;
            state.changed().await.map_err(|_| "closed".to_owned())?;
        }
    }

    fn is_usable(&self, connection: &Connection) -> bool {
        !connection.sender.is_closed() && Arc::ptr_eq(&connection.svid, &self.me.identity.current())
    }

    /// Starts one attempt, unless one is under way.
    fn connect(&self) {
        let mut connecting = self.connecting.lock().unwrap_or_else(PoisonError::into_inner);
        let started = self.state.send_if_modified(|state| match state {
            State::Connecting => false,
            State::Up(connection) if self.is_usable(connection) => false,
            State::Up(_) | State::Down(_) => {
                *state = State::Connecting;
                true
            }
        });
        if !started {
            return;
        }
        let (me, node, state) = (self.me.clone(), self.node.clone(), Arc::clone(&self.state));
        let attempt = async move {
            let next = match timeout(PEERS_CONNECT_MAX, dial(&me, &node)).await {
                Ok(Ok(connection)) => State::Up(Arc::new(connection)),
                Ok(Err(why)) => State::Down(Some(why)),
                Err(_) => State::Down(Some(format!("no connection within {PEERS_CONNECT_MAX:?}"))),
            };
            state.send_replace(next);
        };
        *connecting = Some(AbortOnDropHandle::new(tokio::spawn(attempt)));
    }

    fn drop_connection(&self, bad: &Arc<Connection>) {
        self.state.send_if_modified(|state| match state {
            State::Up(connection) if Arc::ptr_eq(connection, bad) => {
                *state = State::Down(None);
                true
            }
            State::Up(_) | State::Down(_) | State::Connecting => false,
        });
    }

    fn request(&self, route: &str, body: Bytes) -> Result<Request<Full<Bytes>>, http::Error> {
        Request::post(format!("https://{TLS_NAME}{route}"))
            .header(wire::CLUSTER, self.me.trust_domain.as_str())
            .header(wire::TO, self.id)
            .header(wire::FROM, self.me.id)
            .body(Full::new(body))
    }

    fn unreachable(&self, why: impl ToString) -> CallError {
        CallError::Unreachable { peer: self.node.name.clone(), why: why.to_string() }
    }

    fn lost(&self, why: impl ToString) -> CallError {
        CallError::Lost { peer: self.node.name.clone(), why: why.to_string() }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("id", &self.id).field("node", &self.node).finish()
    }
}

async fn exchange(
    connection: &Connection, request: Request<Full<Bytes>>, max: usize,
) -> Result<(StatusCode, Bytes), String> {
    let mut sender = connection.sender.clone();
    let response = sender.send_request(request).await.map_err(|e| describe(&e))?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, max).collect().await.map_err(|e| describe(&*e))?;
    Ok((head.status, body.to_bytes()))
}

/// Connects and proves both ends; refuses anybody but the server meant.
async fn dial(me: &Me, node: &ServerNode) -> Result<Connection, String> {
    let svid = me.identity.current();
    let id = SpiffeId::server(&me.trust_domain, &me.datacenter, &node.name);
    let (identity, trust) = (Arc::clone(&me.identity), Arc::clone(&me.trust));
    let config = client_config(Some(identity), trust, Expected::Id(id), &[ALPN])
        .map_err(|e| describe(&e))?;
    let stream = TcpStream::connect(&node.raft_address).await.map_err(|e| describe(&e))?;
    stream.set_nodelay(true).map_err(|e| describe(&e))?;
    let name = rustls_pki_types::ServerName::try_from(TLS_NAME).map_err(|e| describe(&e))?;
    let stream =
        TlsConnector::from(config).connect(name, stream).await.map_err(|e| describe(&e))?;
    if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
        return Err("it does not speak HTTP/2".to_owned());
    }
    let (sender, connection) = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_MAX)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| describe(&e))?;
    let driver = tokio::spawn(async move {
        // How it ended is told to those who wait for answers.
        let _ = connection.await;
    });
    Ok(Connection { sender, svid, _driver: AbortOnDropHandle::new(driver) })
}

/// An error and all its causes, in one line.
pub(crate) fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    mesh_net::tls::describe(error)
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(PEERS_TEXT_MAX)]).into_owned()
}

pub(crate) const ALPN: &[u8] = b"h2";
/// Servers are told apart by their SPIFFE ID; this name stands where TLS and HTTP want one.
const TLS_NAME: &str = "raft.mesh.internal";
