//! Connections of bytes at the callee's side: TCP, and what left HTTP.

use std::sync::Arc;

use http::Response;
use mesh_core::name::ServiceName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::super::Proxy;
use super::super::connections::{Check, Registered};
use super::super::observe::{OpenGuard, Record, Side};
use super::super::outbound::short;
use super::super::refusal::Refusal;
use super::super::tcp;
use super::{Peer, local, refused};
use crate::edge::Transport;
use crate::edge::http1::{self, Raw};
use crate::link::{Incoming, LinkBody, LinkStream, Responder, ResponseHead, Target};

/// A connection of bytes that was allowed, with the application at its other end.
#[derive(Debug)]
pub(in crate::proxy) struct Taken {
    app: Raw<TcpStream>,
    registered: Registered,
    began: Instant,
    rule: String,
    src: String,
    dst: ServiceName,
    _open: OpenGuard,
}

impl Proxy {
    pub(super) async fn serve_tcp(
        self: &Arc<Self>, mut incoming: Incoming, peer: &Peer, service: &ServiceName,
    ) {
        let target = incoming.open.target().clone();
        match self.take_tcp(peer, service, &target).await {
            Ok(taken) => match incoming.accept_tcp() {
                Ok(stream) => self.carry_apart(taken, stream),
                Err(error) => tracing::debug!(%error, "stream ended before it was carried"),
            },
            Err(refusal) => incoming.responder.reset(refusal.link_code()),
        }
    }

    /// Decides a TCP connection and connects it to the application.
    pub(in crate::proxy) async fn take_tcp(
        self: &Arc<Self>, peer: &Peer, service: &ServiceName, target: &Target,
    ) -> Result<Taken, Refusal> {
        let began = Instant::now();
        let check = Check::Tcp { peer: Arc::clone(peer), service: service.clone() };
        let (registered, snapshot) = self.enter(check);
        let taken = async {
            let decision = self.decide(&snapshot, peer, service, None)?;
            let instance = local(&snapshot, service, target)?;
            let app = http1::connect(instance.address).await.map_err(|why| refused(&why))?;
            Ok((app, decision.reason.id()))
        };
        let src = short(&peer.id);
        match taken.await {
            Ok((app, rule)) => {
                let mut taken = self.taken(Raw::new(app), registered, peer, service, rule);
                taken.began = began;
                Ok(taken)
            }
            Err(refusal) => {
                self.observe(&Record {
                    side: Side::Inbound,
                    src: &src,
                    dst: service.as_str(),
                    request: None,
                    code: "refused",
                    upstream: None,
                    rule: None,
                    refusal: Some(&refusal),
                    took: began.elapsed(),
                    bytes: None,
                });
                Err(refusal)
            }
        }
    }

    /// A connection to `app` that was allowed by `rule`, and begins now.
    pub(super) fn taken(
        &self, app: Raw<TcpStream>, registered: Registered, peer: &Peer, service: &ServiceName,
        rule: String,
    ) -> Taken {
        let (src, dst) = (short(&peer.id), service.clone());
        let open = self.metrics.open(Side::Inbound, &src, service.as_str());
        Taken { app, registered, began: Instant::now(), rule, src, dst, _open: open }
    }

    /// Tells the caller that its exchange left HTTP, and carries what it is from now on: `body` is
    /// what comes from the caller.
    pub(super) fn switch(
        self: &Arc<Self>, mut responder: Responder, body: LinkBody, response: Response<Taken>,
    ) {
        let (parts, taken) = response.into_parts();
        let head = ResponseHead { status: parts.status, headers: parts.headers };
        match responder.respond(&head, false) {
            Ok(sink) => self.carry_apart(taken, LinkStream::new(sink, body)),
            Err(error) => tracing::debug!(%error, "stream ended before it was carried"),
        }
    }

    /// [`Self::carry`] as a task of its own: the one that decided is large, and this may last.
    fn carry_apart(self: &Arc<Self>, taken: Taken, mut caller: LinkStream) {
        let proxy = Arc::clone(self);
        self.spawn(async move {
            proxy.carry(taken, &mut caller).await;
        });
    }

    /// Copies a connection that was taken, until it ends.
    pub(in crate::proxy) async fn carry<S>(
        self: &Arc<Self>, mut taken: Taken, caller: &mut S,
    ) -> tcp::Ended
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let close = taken.registered.close.clone();
        let (copied, ended) = tcp::copy(caller, &mut taken.app, self.limits.idle, &close).await;
        if ended != tcp::Ended::Done {
            taken.app.abort();
        }
        self.observe(&Record {
            side: Side::Inbound,
            src: &taken.src,
            dst: taken.dst.as_str(),
            request: None,
            code: ended.as_str(),
            upstream: None,
            rule: Some(taken.rule),
            refusal: None,
            took: taken.began.elapsed(),
            bytes: Some(copied),
        });
        ended
    }
}
