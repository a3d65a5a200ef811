//! One connection of bytes at the caller's side: TCP, or what left HTTP.

use std::sync::Arc;
use std::time::Duration;

use mesh_core::name::ServiceName;
use mesh_core::resource::{Endpoint, ServiceRoutes};
use mesh_core::route::{Found, find};
use mesh_core::snapshot::ProxySnapshot;
use mesh_net::tls::{PeerIdentity, SvidSource};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::super::Proxy;
use super::super::endpoints::InFlight;
use super::super::inbound::{Peer, Taken};
use super::super::listener::Upstream;
use super::super::observe::{Record, Side};
use super::super::pool::{LinkKey, remaining};
use super::super::refusal::Refusal;
use super::super::tcp::{self, Copied, Ended};
use super::{Source, short};
use crate::edge::Transport;
use crate::limits::proxy::STREAM_TRIES;
use crate::link::{LinkError, LinkStream, Target, TcpOpen};

/// The other end of a connection.
#[derive(Debug)]
pub(in crate::proxy) enum Carried {
    /// An instance of this host.
    Here(Box<Taken>),
    /// An instance of another, through its agent.
    There(LinkStream),
}

/// What a caller's connection is for once it left HTTP.
#[derive(Debug)]
pub(in crate::proxy) struct Switched {
    /// Its other end.
    pub(in crate::proxy) carried: Carried,
    /// The service there.
    pub(in crate::proxy) service: ServiceName,
}

/// Carries a connection of `src` that left HTTP, in flight until it ends.
pub(super) async fn switched(
    proxy: &Arc<Proxy>, caller: impl Transport,
    (switched, _flight): (Box<Switched>, Option<InFlight>), src: String, close: &CancellationToken,
) {
    let began = Instant::now();
    let Switched { carried, service } = *switched;
    let _open = proxy.metrics.open(Side::Outbound, &src, service.as_str());
    let (ended, copied) = carry(proxy, caller, carried, close).await;
    proxy.observe(&Record {
        side: Side::Outbound,
        src: &src,
        dst: service.as_str(),
        request: None,
        code: ended,
        upstream: None,
        rule: None,
        refusal: None,
        took: began.elapsed(),
        bytes: copied,
    });
}

/// Serves one TCP connection to `upstream`'s target. A refused one is closed.
pub(super) async fn serve(
    proxy: &Arc<Proxy>, caller: TcpStream, source: Result<Source, Refusal>, upstream: &Upstream,
    routes: Result<(Arc<ProxySnapshot>, Arc<ServiceRoutes>), Refusal>, close: &CancellationToken,
) {
    let began = Instant::now();
    let src = source.as_ref().map_or_else(|_| "unknown".to_owned(), |source| short(&source.id));
    let carried = async {
        let source = source?;
        let (snapshot, routes) = routes?;
        connect(proxy, &source, &snapshot, &routes, upstream).await
    };
    let (ended, copied, refusal) = match carried.await {
        Ok((carried, endpoint, _flight)) => {
            let _open = proxy.metrics.open(Side::Outbound, &src, upstream.target.as_str());
            tracing::debug!(dst = %upstream.target, endpoint, "connection carried");
            let (ended, copied) = carry(proxy, caller, carried, close).await;
            (ended, copied, None)
        }
        Err(refusal) => ("refused", None, Some(refusal)),
    };
    proxy.observe(&Record {
        side: Side::Outbound,
        src: &src,
        dst: upstream.target.as_str(),
        request: None,
        code: ended,
        upstream: None,
        rule: None,
        refusal: refusal.as_ref(),
        took: began.elapsed(),
        bytes: copied,
    });
}

async fn carry(
    proxy: &Arc<Proxy>, mut caller: impl Transport, carried: Carried, close: &CancellationToken,
) -> (&'static str, Option<Copied>) {
    let (copied, ended) = match carried {
        // the callee's side counts the bytes
        Carried::Here(taken) => tokio::select! {
            // boxed, for connections that leave the host need not carry its state
            ended = Box::pin(proxy.carry(*taken, &mut caller)) => (None, ended),
            () = close.cancelled() => (None, Ended::Closed),
        },
        Carried::There(stream) => {
            let copying = tcp::copy(&mut caller, stream, proxy.limits.idle, close);
            let (copied, ended) = copying.await;
            (Some(copied), ended)
        }
    };
    if ended != Ended::Done {
        caller.abort();
    }
    (ended.as_str(), copied)
}

async fn connect(
    proxy: &Arc<Proxy>, source: &Source, snapshot: &ProxySnapshot, routes: &ServiceRoutes,
    upstream: &Upstream,
) -> Result<(Carried, String, InFlight), Refusal> {
    debug_assert!(matches!(find(routes, None), Found::Default), "routes match requests only");
    let none = || Refusal::NoEndpoint(upstream.target.to_string());
    let endpoints = snapshot.endpoints.get(&upstream.target).ok_or_else(none)?;
    let mut tried: Vec<&Endpoint> = Vec::with_capacity(STREAM_TRIES);
    let mut last = None;
    while tried.len() < STREAM_TRIES {
        let Some(endpoint) = proxy.endpoints.pick(endpoints, None, &tried) else { break };
        let flight = proxy.endpoints.begin(&upstream.target, endpoint);
        let deadline = Instant::now() + Duration::from_millis(routes.connect_timeout_ms);
        let outcome = connect_to(proxy, source, snapshot, upstream, endpoint, deadline).await;
        flight.done(outcome.is_ok());
        match outcome {
            Ok(carried) => {
                return Ok((carried, format!("{}/{}", endpoint.node, endpoint.instance), flight));
            }
            Err((refusal, again)) => {
                last = Some(refusal);
                tried.push(endpoint);
                if !again {
                    break;
                }
            }
        }
    }
    Err(last.unwrap_or_else(none))
}

/// Connects to one endpoint, or says why not and whether another may be tried.
async fn connect_to(
    proxy: &Arc<Proxy>, source: &Source, snapshot: &ProxySnapshot, upstream: &Upstream,
    endpoint: &Endpoint, deadline: Instant,
) -> Result<Carried, (Refusal, bool)> {
    let target = Target { instance: endpoint.instance.to_string(), port: 0 };
    if endpoint.node == snapshot.host.node {
        let peer = proxy.valid_here(source, &upstream.target).map_err(|why| (why, true))?;
        let taken = proxy.take_tcp(&peer, &upstream.target, &target).await;
        let taken = taken.map_err(|refusal| {
            let denied = matches!(refusal, Refusal::Denied { .. });
            (refusal, !denied)
        })?;
        return Ok(Carried::Here(Box::new(taken)));
    }
    proxy.valid(source).map_err(|refusal| (refusal, false))?;
    let key = LinkKey {
        source: source.id.clone(),
        destination: snapshot.host.service_id(&upstream.target),
        address: endpoint.address,
    };
    let link = proxy.link(&key, &source.svid, deadline).await.map_err(|why| (why, true))?;
    let refused = |why: LinkError| {
        let service = upstream.target.to_string();
        tracing::debug!(service, %why, "connection refused on the link");
        let again = why.unprocessed();
        let refusal = match why {
            LinkError::Reset(code) if code == crate::link::Code::DENIED => Refusal::Denied {
                rule: "the callee's rules".to_owned(),
                caller: source.id.to_string(),
                service,
            },
            _ => Refusal::Connect(service),
        };
        (refusal, again)
    };
    let open = TcpOpen { target, headers: http::HeaderMap::new() };
    let stream = link.open_tcp(open).map_err(refused)?;
    match timeout_at(deadline, stream.connected()).await {
        Ok(Ok(())) => Ok(Carried::There(stream)),
        Ok(Err(why)) => Err(refused(why)),
        Err(_) => Err((Refusal::Connect(format!("{} (too slow)", upstream.target)), true)),
    }
}

impl Proxy {
    /// The caller as its certificate shows it, which must be valid now and not denied.
    pub(super) fn valid(&self, source: &Source) -> Result<Peer, Refusal> {
        self.shown(&source.svid)
    }

    /// [`Self::valid`] for a call on this host, where no handshake looks at the certificate of
    /// `service` either.
    pub(super) fn valid_here(
        &self, source: &Source, service: &ServiceName,
    ) -> Result<Peer, Refusal> {
        let peer = self.valid(source)?;
        let callee = self.identities.service(service);
        let callee = callee.ok_or_else(|| Refusal::NoIdentity(service.to_string()))?;
        self.shown(&callee).map(|_| peer)
    }

    fn shown(&self, source: &SvidSource) -> Result<Peer, Refusal> {
        let svid = source.current();
        let expired = remaining(svid.not_after).is_zero();
        let peer = PeerIdentity {
            id: svid.id.clone(),
            key: svid.key_hash,
            serial: svid.serial.clone(),
            not_after: svid.not_after,
            expired,
        };
        if expired || self.identities.trust().is_revoked(&peer) {
            return Err(Refusal::NoIdentity(short(&peer.id)));
        }
        Ok(Arc::new(peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::http1::Raw;
    use crate::link::LinkStream;

    fn size<A, B, C, F>(_carry: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    fn size_of_five<A, B, C, D, E, F>(_carry: impl Fn(A, B, C, D, E) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn b_limits_what_left_http_is_small_at_rest() {
        type Caller = Raw<tcp::Counted<TcpStream>>;
        // what each hop holds besides a connection at rest: no buffer, and no place for a call
        type Close<'a> = &'a CancellationToken;
        type Far = (Box<Switched>, Option<InFlight>);
        let there = size_of_five::<&Arc<Proxy>, Caller, Far, String, Close<'_>, _>(switched);
        let here = size::<&Arc<Proxy>, Taken, &mut LinkStream, _>(Proxy::carry);
        println!("measured: {there} bytes at the caller's agent, {here} at the callee's");
        assert!(there <= 2 << 10, "at the caller's agent it takes {there} bytes");
        assert!(here <= 2 << 10, "at the callee's agent it takes {here} bytes");
    }
}
