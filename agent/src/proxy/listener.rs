//! Listeners: bound once, and kept while wanted.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use mesh_core::name::{InstanceId, ServiceName};
use mesh_core::snapshot::ProxySnapshot;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::connections::Check;
use super::worker::{self, Share};
use super::{Proxy, outbound};
use crate::limits::proxy::{BACKLOG, REBIND_PAUSE};

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
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // a listener in TIME_WAIT of an earlier process must not keep this one from starting; a live
    // listener on the port still does
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

/// Keeps the explicit ports as the snapshot has them, until the proxy ends.
pub(super) async fn follow(workers: Arc<[Arc<Proxy>]>, states: watch::Sender<Vec<ListenerState>>) {
    let proxy = &workers[0];
    let mut changed = proxy.live.changed();
    let mut running: BTreeMap<SocketAddr, Running> = BTreeMap::new();
    loop {
        let failed = reconcile(&workers, &mut running, &states);
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
fn reconcile(
    workers: &[Arc<Proxy>], running: &mut BTreeMap<SocketAddr, Running>,
    states: &watch::Sender<Vec<ListenerState>>,
) -> bool {
    let wanted = wanted(&workers[0].load());
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
            Entry::Vacant(place) => match start(workers, address, upstream.clone()) {
                Ok(stop) => {
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

fn start(
    workers: &[Arc<Proxy>], address: SocketAddr, upstream: Upstream,
) -> io::Result<CancellationToken> {
    let listener = bind(address)?;
    let stop = workers[0].closing.child_token();
    let upstream = Arc::new(upstream);
    let serve = move |proxy: Arc<Proxy>, stream: TcpStream, _| {
        let registered = proxy.connections.register(Check::Opening);
        outbound::serve_explicit(proxy, stream, Arc::clone(&upstream), registered)
    };
    worker::accept(workers, &listener, Share::Near, &stop, serve)?;
    Ok(stop)
}
