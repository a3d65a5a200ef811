//! The Raft port: accepts control servers and nobody else.

use std::sync::Arc;

use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use mesh_core::identity::CaRole;
use mesh_net::tls::{ClientAuth, PeerIdentity, Resolver, TlsError, peer_identity, server_config};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::peers::{ALPN, KEEP_ALIVE, KEEP_ALIVE_MAX, Me, WINDOW, describe};
use super::service::Service;
use crate::limits::raft::{
    HEADER_BYTES_MAX, SERVER_ACCEPT_PAUSE, SERVER_CONNECTIONS_MAX, SERVER_HANDSHAKE_MAX,
    SERVER_STREAMS_MAX,
};

/// Who may even finish a handshake here.
pub(crate) fn acceptor(me: &Me) -> Result<TlsAcceptor, TlsError> {
    let identity = Resolver::One(Arc::clone(&me.identity));
    let roles = ClientAuth::Required(&[CaRole::Server]);
    let config = server_config(identity, Arc::clone(&me.trust), roles, &[ALPN])?;
    Ok(TlsAcceptor::from(config))
}

/// Serves until `stop`; then drops what is open.
pub(crate) async fn serve(
    listener: TcpListener, acceptor: TlsAcceptor, service: Arc<Service>, stop: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(SERVER_CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        // All branches are cancel safe.
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the Raft port cannot accept");
                // Out of descriptors, most likely: let some close.
                tokio::time::sleep(SERVER_ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            tracing::warn!(max = SERVER_CONNECTIONS_MAX, "the Raft port has too many connections");
            continue;
        };
        let (acceptor, service) = (acceptor.clone(), Arc::clone(&service));
        connections.spawn(async move {
            let _permit = permit;
            if let Err(why) = connection(stream, acceptor, service).await {
                tracing::debug!(why, "a connection on the Raft port ended");
            }
        });
    }
    connections.shutdown().await;
}

async fn connection(
    stream: TcpStream, acceptor: TlsAcceptor, service: Arc<Service>,
) -> Result<(), String> {
    stream.set_nodelay(true).map_err(|e| describe(&e))?;
    let stream = timeout(SERVER_HANDSHAKE_MAX, acceptor.accept(stream))
        .await
        .map_err(|_| format!("no handshake within {SERVER_HANDSHAKE_MAX:?}"))?
        .map_err(|e| describe(&e))?;
    let peer = identify(stream.get_ref().1)?;
    let answer = service_fn(move |request| {
        let (service, peer) = (Arc::clone(&service), Arc::clone(&peer));
        async move { Ok::<_, std::convert::Infallible>(service.answer(&peer, request).await) }
    });
    Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_MAX)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_concurrent_streams(SERVER_STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), answer)
        .await
        .map_err(|e| describe(&e))
}

fn identify(connection: &rustls::ServerConnection) -> Result<Arc<PeerIdentity>, String> {
    let peer = peer_identity(connection.peer_certificates()).map_err(|e| describe(&e))?;
    peer.map(Arc::new).ok_or_else(|| "it has no certificate".to_owned())
}
