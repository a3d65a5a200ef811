//! The caller's side: accept → identify → route → pick → send.
//!
//! The caller's agent never decides an allow: it only finds who calls, whom, and where.

mod exchange;
mod stream;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use http::{Request, Response};
use mesh_core::identity::SpiffeId;
use mesh_core::name::ServiceName;
use mesh_core::resource::ServiceRoutes;
use mesh_core::snapshot::ProxySnapshot;
use mesh_net::tls::SvidSource;
use tokio::net::TcpStream;

use super::body::ProxyBody;
use super::connections::{Check, Registered};
use super::listener::Upstream;
use super::refusal::Refusal;
use super::worker::{self, Share};
use super::{LocalCallers, Proxy, tcp};
use crate::callers::Caller;
use crate::edge::{RecvBody, Reject, Service, Spoken, http1, http2, sniff};

pub(super) use stream::{Carried, Switched};

/// Who calls, with the certificate to show.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// The identity.
    id: SpiffeId,
    /// Its certificate, while it is valid.
    svid: Arc<SvidSource>,
}

/// Whom a local HTTP connection may call.
#[derive(Clone, Debug)]
enum Targets {
    /// One service, whatever the Host says.
    One(ServiceName),
    /// The one that the Host names.
    ByHost,
}

/// The short name of an identity for metrics and logs: a service's name, or `node:NAME`.
pub(super) fn short(id: &SpiffeId) -> String {
    if let Some((_, service)) = id.as_service() {
        return service.to_string();
    }
    match id.as_node() {
        Some(node) => format!("node:{node}"),
        None => "other".to_owned(),
    }
}

/// Serves the Host-routed listener until the proxy closes.
///
/// # Errors
/// If the listener cannot be shared.
pub(super) fn serve_http_listener(
    workers: &[Arc<Proxy>], listener: &TcpListener,
) -> io::Result<()> {
    let serve = |proxy: Arc<Proxy>, stream: TcpStream, _| {
        let registered = proxy.connections.register(Check::Opening);
        serve_by_host(proxy, stream, registered)
    };
    worker::accept(workers, listener, Share::Near, &workers[0].closing, serve)
}

async fn serve_by_host(proxy: Arc<Proxy>, stream: TcpStream, registered: Registered) {
    let source = proxy.identify(&stream, None);
    serve_http(proxy, stream, source, Targets::ByHost, registered).await;
}

/// Serves one connection on an explicit port.
pub(super) async fn serve_explicit(
    proxy: Arc<Proxy>, stream: TcpStream, upstream: Arc<Upstream>, registered: Registered,
) {
    let source = proxy.identify(&stream, Some(&upstream));
    // boxed here and below: what is done once takes no place in a connection that lasts
    let routes = Box::pin(proxy.routes(&upstream.target)).await;
    let is_http =
        routes.as_ref().is_ok_and(|(_, routes)| routes.protocol.is_some_and(|p| p.is_http()));
    if is_http {
        let target = Targets::One(upstream.target.clone());
        return serve_http(proxy, stream, source, target, registered).await;
    }
    registered.becomes(check(&source));
    let close = &registered.close;
    Box::pin(stream::serve(&proxy, stream, source, &upstream, routes, close)).await;
}

/// A connection lasts as long as the host has the service that it acts as.
fn check(source: &Result<Source, Refusal>) -> Check {
    let service = source.as_ref().ok().and_then(|source| source.id.as_service());
    Check::Local(service.map(|(_, service)| service.clone()))
}

/// Made before it is awaited, for an `async fn` holds its arguments twice.
fn serve_http(
    proxy: Arc<Proxy>, stream: TcpStream, source: Result<Source, Refusal>, targets: Targets,
    registered: Registered,
) -> impl Future<Output = ()> + Send {
    registered.becomes(check(&source));
    let config = http1::Config { rest: proxy.limits.rest, head: proxy.limits.head };
    let ready = stream.set_nodelay(true);
    let (stream, moved) = tcp::counted(stream);
    let service = Local { proxy, source, targets };
    async move {
        if let Err(error) = ready {
            tracing::debug!(%error, "local connection ended at once");
            return;
        }
        let closing = &service.proxy.closing;
        let serving = async {
            // boxed, as what is over once the connection rests
            let (spoken, stream) = Box::pin(sniff(stream, &config, closing)).await?;
            // once the proxy closes, what is in flight finishes and the client comes back elsewhere
            Some(match spoken {
                Spoken::Http1 => http1::serve(stream, &service, &config, closing).await,
                // boxed, for most connections need not carry its state
                Spoken::Http2 => {
                    let served = Box::pin(http2::serve(stream, &service, &config, closing));
                    http1::Outcome::Ended(served.await)
                }
            })
        };
        let outcome = tokio::select! {
            outcome = serving => outcome,
            () = registered.close.cancelled() => None,
            () = moved.stalled(service.proxy.limits.idle) => None,
        };
        match outcome {
            Some(http1::Outcome::Switched(caller, body)) => match body.into_switched() {
                Some(far) => {
                    let (src, close) = (name_of(&service.source), &registered.close);
                    Box::pin(stream::switched(&service.proxy, caller, far, src, close)).await;
                }
                None => debug_assert!(false, "only what switched is answered 101"),
            },
            Some(http1::Outcome::Ended(served)) => {
                tracing::trace!(?served, "local connection ended");
            }
            None => {}
        }
    }
}

/// The short name of who calls, or `unknown`.
fn name_of(source: &Result<Source, Refusal>) -> String {
    source.as_ref().map_or_else(|_| "unknown".to_owned(), |source| short(&source.id))
}

/// The requests of one local connection.
struct Local {
    proxy: Arc<Proxy>,
    source: Result<Source, Refusal>,
    targets: Targets,
}

impl Service for Local {
    type Body = ProxyBody;

    async fn call(&self, request: Request<RecvBody>) -> Response<ProxyBody> {
        exchange::serve(&self.proxy, &self.source, &self.targets, request).await
    }

    fn refuse(&self, reject: &Reject) -> Response<ProxyBody> {
        exchange::refuse(&self.proxy, &self.source, reject)
    }

    fn refuse_called(&self, reject: &Reject) -> Response<ProxyBody> {
        // its record was written when the call ended
        Refusal::Rejected(reject.clone()).response()
    }
}

impl Proxy {
    /// Who calls on `stream`, asked of the kernel before a byte is read.
    fn identify(&self, stream: &TcpStream, upstream: Option<&Upstream>) -> Result<Source, Refusal> {
        let identified = match upstream {
            // the port alone says who calls, for the service names neither unit nor user
            Some(upstream) if !upstream.exclusive => self.source(&upstream.source),
            _ => self.identify_caller(stream, upstream.map(|upstream| &upstream.source)),
        };
        if let Err(refusal) = &identified {
            self.metrics.caller_refused(refusal.code());
            tracing::info!(target: "mesh::access", side = "outbound", why = %refusal, "local caller refused");
        }
        identified
    }

    fn identify_caller(
        &self, stream: &TcpStream, owner: Option<&ServiceName>,
    ) -> Result<Source, Refusal> {
        let service = match self.callers.identify_inline(stream) {
            Caller::Service(service) => Some(service),
            Caller::Other { uid } => match (owner, self.local_callers) {
                (None, LocalCallers::Node) => None,
                (None, LocalCallers::Deny) => return Err(Refusal::CallerNoService(uid)),
                (Some(owner), _) => return Err(Refusal::PortOfOther(owner.to_string())),
            },
            Caller::Unknown { reason } => return Err(Refusal::CallerUnknown(reason.as_str())),
        };
        match (service, owner) {
            (Some(service), Some(owner)) if service != *owner => {
                Err(Refusal::PortOfOther(owner.to_string()))
            }
            (Some(service), _) => self.source(&service),
            (None, _) => {
                let host = &self.load().host;
                Ok(Source { id: host.node_id(), svid: self.identities.node() })
            }
        }
    }

    fn source(&self, service: &ServiceName) -> Result<Source, Refusal> {
        let svid = self.identities.service(service);
        let svid = svid.ok_or_else(|| Refusal::NoIdentity(service.to_string()))?;
        Ok(Source { id: self.load().host.service_id(service), svid })
    }

    /// The snapshot in force and the routes of `service` in it; asks for them at first use.
    async fn routes(
        &self, service: &ServiceName,
    ) -> Result<(Arc<ProxySnapshot>, Arc<ServiceRoutes>), Refusal> {
        let unknown = || Refusal::NoRoutes(service.to_string());
        let found = |snapshot: Arc<ProxySnapshot>| {
            let routes = snapshot.routes.get(service).cloned();
            // routes without endpoints are half of what a call needs
            let whole = routes.filter(|_| snapshot.endpoints.contains_key(service));
            whole.map(|routes| (snapshot, routes))
        };
        if let Some(both) = found(self.load()) {
            return Ok(both);
        }
        // before it is asked for, and before it is looked for again
        let mut changed = self.live.changed();
        if !self.live.want(service) {
            return Err(unknown());
        }
        let arrives = async {
            loop {
                if let Some(both) = found(self.load()) {
                    return Some(both);
                }
                changed.changed().await.ok()?;
            }
        };
        let arrived = tokio::time::timeout(self.limits.first_use, arrives).await;
        arrived.ok().flatten().ok_or_else(unknown)
    }
}
