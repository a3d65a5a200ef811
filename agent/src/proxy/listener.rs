//! Listeners: bound once, kept while wanted, and each accepting under a cap.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::name::{InstanceId, ServiceName};
use mesh_core::snapshot::ProxySnapshot;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::connections::Check;
use super::{Proxy, outbound};
use crate::limits::proxy::{ACCEPT_PAUSE, BACKLOG, REBIND_PAUSE};

/// An explicit port: which instance it serves, and whom it calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Upstream {
    /// The instance whose file declares the port.
    pub(super) instance: InstanceId,
    /// The service that whoever connects acts as.
    pub(super) source: ServiceName,
    /// Whether only callers known as `source` may use it.
    pub(super) exclusive: bool,
    /// The service called.
    pub(super) target: ServiceName,
}

/// An explicit port, and whether it is bound.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ListenerState {
    /// Where it listens.
    pub address: SocketAddr,
    /// The instance whose file declares it.
    pub instance: InstanceId,
    /// The service called through it.
    pub service: ServiceName,
    /// Why it is not bound, if it is not.
    pub error: Option<String>,
}

struct Running {
    upstream: Upstream,
    stop: CancellationToken,
}

/// Binds `address` for listening.
pub(super) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // a listener in TIME_WAIT of an earlier process must not keep this one from starting; a live
    // listener on the port still does
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Keeps the explicit ports as the snapshot has them, until the proxy ends.
pub(super) async fn follow(proxy: Arc<Proxy>, states: watch::Sender<Vec<ListenerState>>) {
    let mut changed = proxy.live.changed();
    let mut running: BTreeMap<SocketAddr, Running> = BTreeMap::new();
    loop {
        let failed = reconcile(&proxy, &mut running, &states).await;
        let retry = async {
            if failed {
                tokio::time::sleep(REBIND_PAUSE).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            changed = changed.changed() => if changed.is_err() { return },
            () = retry => {}
            () = proxy.closing.cancelled() => break,
        }
    }
    for (_, listener) in running {
        listener.stop.cancel();
    }
}

/// Starts and stops listeners; says whether one could not be bound.
async fn reconcile(
    proxy: &Arc<Proxy>, running: &mut BTreeMap<SocketAddr, Running>,
    states: &watch::Sender<Vec<ListenerState>>,
) -> bool {
    let wanted = wanted(&proxy.load());
    running.retain(|address, listener| {
        let keep = wanted.get(address) == Some(&listener.upstream);
        if !keep {
            listener.stop.cancel();
        }
        keep
    });
    let mut report = Vec::with_capacity(wanted.len());
    for (address, upstream) in wanted {
        let error = match running.entry(address) {
            Entry::Occupied(_) => None,
            Entry::Vacant(place) => match bind(address).await {
                Ok(listener) => {
                    let stop = start(proxy, listener, upstream.clone());
                    place.insert(Running { upstream: upstream.clone(), stop });
                    None
                }
                Err(error) => {
                    tracing::warn!(%address, instance = %upstream.instance, %error, "cannot bind an upstream's port, trying again; is another process on it?");
                    Some(format!("cannot listen on {address}: {error}"))
                }
            },
        };
        let (instance, service) = (upstream.instance, upstream.target);
        report.push(ListenerState { address, instance, service, error });
    }
    let failed = report.iter().any(|state| state.error.is_some());
    states.send_replace(report);
    failed
}

/// The explicit ports of the snapshot; of two claims on one port the first by instance name holds.
fn wanted(snapshot: &ProxySnapshot) -> BTreeMap<SocketAddr, Upstream> {
    let mut wanted = BTreeMap::new();
    for instance in snapshot.hosted.values() {
        for upstream in &instance.upstreams {
            wanted.entry(upstream.listen).or_insert_with(|| Upstream {
                instance: instance.id.clone(),
                source: instance.service.clone(),
                exclusive: instance.exclusive,
                target: upstream.service.clone(),
            });
        }
    }
    wanted
}

fn start(proxy: &Arc<Proxy>, listener: TcpListener, upstream: Upstream) -> CancellationToken {
    let stop = proxy.closing.child_token();
    let upstream = Arc::new(upstream);
    let accepting = {
        let (proxy, stop) = (Arc::clone(proxy), stop.clone());
        async move {
            let accepted = |stream: TcpStream, _| {
                let (proxy, upstream) = (Arc::clone(&proxy), Arc::clone(&upstream));
                let registered = proxy.connections.register(Check::Opening);
                outbound::serve_explicit(proxy, stream, upstream, registered)
            };
            accept(&proxy, &listener, &stop, accepted).await;
        }
    };
    proxy.spawn_accepting(accepting);
    stop
}

/// Accepts until `stop`, each connection as a task of the proxy; at the cap new ones wait in the
/// kernel's backlog.
pub(super) async fn accept<F>(
    proxy: &Arc<Proxy>, listener: &TcpListener, stop: &CancellationToken,
    serve: impl Fn(TcpStream, SocketAddr) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(proxy.limits.connections_max));
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            accepted = accepted => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, from)) => {
                // boxed, or the task would hold its place once more at each step on the way in
                let serving = Box::pin(serve(stream, from));
                proxy.spawn(async move {
                    serving.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
