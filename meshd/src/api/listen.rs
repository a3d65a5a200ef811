//! The API's port: TLS, HTTP/1.1 and HTTP/2 with bounds, and an orderly end.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use mesh_core::identity::CaRole;
use mesh_net::tasks::Stop;
use mesh_net::tls::{
    ClientAuth, Resolver, SvidSource, TlsError, TrustStore, describe, peer_identity, server_config,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{Peer, router};
use crate::limits::api::{
    ACCEPT_PAUSE, DRAIN_MAX, HANDSHAKE_MAX, HEADER_MAX, PING_EVERY, PONG_MAX,
};
use crate::server::Server;

/// The port, bound and ready to serve.
pub(crate) struct Listener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    connections_max: usize,
}

/// Why the port cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The system refused.
    #[error(
        "cannot listen on {address} ({what}): is another program using the port? `ss -ltnp` names it"
    )]
    Bind {
        /// Which port: `api` or `raft`.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS on the API")]
    Tls(#[from] TlsError),
}

impl Listener {
    /// Binds the API's port.
    ///
    /// # Errors
    /// [`ListenError`].
    pub(crate) async fn bind(
        address: SocketAddr, identity: &Arc<SvidSource>, trust: &Arc<TrustStore>,
        connections_max: usize,
    ) -> Result<Self, ListenError> {
        let auth = ClientAuth::Optional { roles: &CALLERS, allow_expired: true };
        let identity = Resolver::One(Arc::clone(identity));
        let config = server_config(identity, Arc::clone(trust), auth, &[H2, HTTP1])?;
        let listener = bind("api", address).await?;
        Ok(Self { listener, acceptor: TlsAcceptor::from(config), connections_max })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Binds a port; `what` names it in the error.
///
/// # Errors
/// [`ListenError::Bind`].
pub(crate) async fn bind(
    what: &'static str, address: SocketAddr,
) -> Result<TcpListener, ListenError> {
    let failed = |source| ListenError::Bind { what, address, source };
    TcpListener::bind(address).await.map_err(failed)
}

/// Serves until `stop`; then lets requests end for [`DRAIN_MAX`].
pub(crate) async fn serve(
    server: Arc<Server>, listener: Listener, mut stop: Stop,
) -> Result<(), Infallible> {
    let Listener { listener, acceptor, connections_max } = listener;
    let room = Arc::new(Semaphore::new(connections_max));
    let (routes, ending) = (router(&server), CancellationToken::new());
    let mut connections = JoinSet::new();
    loop {
        // All branches are cancel safe.
        let accepted = tokio::select! {
            () = stop.requested() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the API cannot accept");
                // Out of descriptors, most likely: let some close.
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            server.metrics.connections_refused.inc();
            continue;
        };
        let (acceptor, routes) = (acceptor.clone(), routes.clone());
        let (gauge, ending) = (server.metrics.connections.clone(), ending.clone());
        gauge.inc();
        connections.spawn(async move {
            let _permit = permit;
            if let Err(why) = connection(stream, address, &acceptor, routes, ending).await {
                tracing::debug!(%address, why, "a connection to the API ended");
            }
            gauge.dec();
        });
    }
    drop(listener);
    ending.cancel();
    let drained = async { while connections.join_next().await.is_some() {} };
    if timeout(DRAIN_MAX, drained).await.is_err() {
        connections.shutdown().await;
    }
    Ok(())
}

async fn connection(
    stream: TcpStream, address: SocketAddr, acceptor: &TlsAcceptor, routes: Router,
    ending: CancellationToken,
) -> Result<(), String> {
    stream.set_nodelay(true).map_err(|e| describe(&e))?;
    let stream = timeout(HANDSHAKE_MAX, acceptor.accept(stream))
        .await
        .map_err(|_| format!("no handshake within {HANDSHAKE_MAX:?}"))?
        .map_err(|e| describe(&e))?;
    let identity = peer_identity(stream.get_ref().1.peer_certificates());
    let peer = Peer { address, identity: identity.map_err(|e| describe(&e))? };
    let builder = builder(&stream);
    let answer = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer.clone());
        routes.clone().oneshot(request)
    });
    let connection = builder.serve_connection(TokioIo::new(stream), answer);
    tokio::pin!(connection);
    // The connection is polled on after the signal, not dropped.
    tokio::select! {
        ended = connection.as_mut() => return ended.map_err(|e| describe(&*e)),
        () = ending.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await.map_err(|e| describe(&*e))
}

/// What ALPN settled on, with bounds for callers nobody knows yet: hyper's own are for trusted
/// ones.
fn builder(stream: &TlsStream<TcpStream>) -> Builder<TokioExecutor> {
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(H2);
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_MAX)
        .max_headers(100)
        .max_buf_size(64 << 10)
        .half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(100)
        .initial_stream_window_size(256 << 10)
        .initial_connection_window_size(1 << 20)
        .max_header_list_size(16 << 10)
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(200)
        .max_send_buf_size(64 << 10)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_MAX);
    // Told by ALPN, never by looking at bytes that may not come.
    if is_h2 { builder.http2_only() } else { builder.http1_only() }
}

/// Certificates that the API takes. A service's is known, and may do nothing yet.
const CALLERS: [CaRole; 3] = [CaRole::Node, CaRole::Server, CaRole::Service];
const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";
