//! The callee's side: accept → verify → decide → send to the application.
//!
//! Access is decided here, on the request as received and against the service actually chosen.
//! Calls from the same host come through [`Proxy::answer`] and [`Proxy::take_tcp`] as well, so
//! they pass the same stages.

mod plain;
mod stream;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, Version, header};
use http_body::Body;
use mesh_core::access::{AccessRequest, Decision, decide};
use mesh_core::identity::{self, CaRole};
use mesh_core::name::ServiceName;
use mesh_core::path;
use mesh_core::resource::Protocol;
use mesh_core::snapshot::{Health, HostedInstance, ProxySnapshot};
use mesh_net::tls::{self, ClientAuth, PeerIdentity, Resolver, TlsError};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;

use super::Proxy;
use super::admit::is_plain;
use super::body::ProxyBody;
use super::connections::{Asked, Check, Registered};
use super::observe::{Record, Side};
use super::outbound::short;
use super::refusal::Refusal;
use super::worker::{self, Share};
use super::{grpc, headers, pool};
use crate::edge::RecvBody;
use crate::edge::http1::{SendError, Sent, Upgrade};
use crate::identity::Identities;
use crate::link::{
    self, Incoming, LinkServer, Open, ReadAhead, RequestHead, Responder, ResponseHead, Target,
};

pub(super) use stream::Taken;

/// A caller, verified, with what of it may be revoked.
pub(super) type Peer = Arc<PeerIdentity>;

/// The TLS side of the inbound port: TLS 1.3, a service's or node's certificate required, our
/// identity by the service asked for.
pub(super) fn acceptor(identities: &Arc<Identities>) -> Result<TlsAcceptor, TlsError> {
    let known = Arc::clone(identities);
    let find = move |sni: &str| {
        let trust_domain = known.trust().bundle().trust_domain.clone();
        let (service, _) = identity::parse_server_name(&trust_domain, sni)?;
        known.service(&service)
    };
    let roles = &[CaRole::Service, CaRole::Node];
    let config = tls::server_config(
        Resolver::BySni(Arc::new(find)),
        identities.trust(),
        ClientAuth::Required(roles),
        &[link::ALPN, b"h2", b"http/1.1"],
    )?;
    Ok(TlsAcceptor::from(config))
}

/// Serves other agents until the proxy closes.
///
/// # Errors
/// If the listener cannot be shared.
pub(super) fn serve(
    workers: &[Arc<Proxy>], listener: &TcpListener, acceptor: TlsAcceptor,
) -> io::Result<()> {
    let serve = move |proxy: Arc<Proxy>, stream, from| {
        let registered = proxy.connections.register(Check::Opening);
        serve_connection(proxy, stream, from, acceptor.clone(), registered)
    };
    worker::accept(workers, listener, Share::Even, &workers[0].closing, serve)
}

async fn serve_connection(
    proxy: Arc<Proxy>, stream: TcpStream, from: SocketAddr, acceptor: TlsAcceptor,
    registered: Registered,
) {
    if let Err(error) = pool::prepare(&stream) {
        tracing::debug!(%from, %error, "connection ended before its handshake");
        return;
    }
    let tls = match timeout(proxy.limits.handshake, acceptor.accept(ReadAhead::new(stream))).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => {
            proxy.metrics.handshake_refused();
            tracing::debug!(%from, why = tls::describe(&error), "handshake refused");
            return;
        }
        Err(_) => {
            proxy.metrics.handshake_refused();
            tracing::debug!(%from, "handshake took too long");
            return;
        }
    };
    let (_, session) = tls.get_ref();
    let host = proxy.load().host.clone();
    let asked = session
        .server_name()
        .and_then(|name| identity::parse_server_name(&host.trust_domain, name))
        .filter(|(_, datacenter)| *datacenter == host.datacenter);
    let peer = tls::peer_identity(session.peer_certificates()).ok().flatten();
    let is_link = session.alpn_protocol() == Some(link::ALPN);
    let (Some((service, _)), Some(peer)) = (asked, peer) else {
        proxy.metrics.handshake_refused();
        return;
    };
    // boxed, so that neither holds the other's place
    if is_link {
        Box::pin(serve_link(proxy, tls, Arc::new(peer), service, registered)).await;
    } else {
        Box::pin(plain::serve(proxy, tls, Arc::new(peer), service, registered)).await;
    }
}

/// How long a connection of `peer` to `service` may last: until a certificate of either ends.
fn life(proxy: &Proxy, peer: &PeerIdentity, service: &ServiceName) -> Duration {
    let own_end = proxy.identities.service(service).map(|source| source.current().not_after);
    pool::remaining(own_end.map_or(peer.not_after, |end| end.min(peer.not_after)))
}

/// Serves one link: its driver and its streams, until it ends, its peer is revoked, or a
/// certificate of either side ends.
async fn serve_link(
    proxy: Arc<Proxy>, tls: tokio_rustls::server::TlsStream<ReadAhead<TcpStream>>, peer: Peer,
    service: ServiceName, registered: Registered,
) {
    registered.becomes(Check::Link(Arc::clone(&peer)));
    // after it is registered: what is revoked from now on closes it
    if proxy.identities.trust().is_revoked(&peer) {
        return;
    }
    let life = life(&proxy, &peer, &service);
    let (server, driver) = link::server(tls, link::Config::default());
    let draining = server.clone();
    let streams = accept_streams(Arc::clone(&proxy), server, peer, service);
    proxy.spawn(streams);
    let closing = proxy.closing.clone();
    tokio::pin!(driver);
    let ended = tokio::select! {
        ended = &mut driver => ended,
        () = registered.close.cancelled() => return,
        () = tokio::time::sleep(life) => return,
        () = closing.cancelled() => {
            draining.close_gracefully();
            tokio::select! {
                ended = &mut driver => ended,
                () = registered.close.cancelled() => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "link ended");
    }
}

async fn accept_streams(proxy: Arc<Proxy>, server: LinkServer, peer: Peer, service: ServiceName) {
    while let Some(incoming) = server.accept().await {
        let (serving, peer, service) = (Arc::clone(&proxy), Arc::clone(&peer), service.clone());
        proxy.spawn(async move { serving.serve_stream(incoming, peer, service).await });
    }
}

/// What came of a request.
pub(super) enum Answer {
    /// An answer of HTTP.
    Http(Response<ProxyBody>),
    /// The application left HTTP, under a head with status 101.
    Switched(Response<Taken>),
}

impl Proxy {
    async fn serve_stream(self: Arc<Self>, incoming: Incoming, peer: Peer, service: ServiceName) {
        match &incoming.open {
            Open::Http(_) => self.serve_exchange(incoming, &peer, &service).await,
            Open::Tcp(_) => self.serve_tcp(incoming, &peer, &service).await,
        }
    }

    async fn serve_exchange(
        self: &Arc<Self>, incoming: Incoming, peer: &Peer, service: &ServiceName,
    ) {
        let Incoming { open, body, mut responder } = incoming;
        let Open::Http(head) = open else { return };
        // who asks for another protocol sends no body: what comes is of that protocol, or nothing
        let (body, switched) = if head.upgrade.is_empty() {
            (ProxyBody::link(body, &head.headers), None)
        } else {
            (ProxyBody::empty(), Some(body))
        };
        let answering = async {
            let request = match request_of(&head, body) {
                Ok(request) => request,
                Err(refusal) => return Ok(Answer::Http(refusal.response())),
            };
            self.answer(peer, service, &head.target, request).await
        };
        let answer = tokio::select! {
            answer = answering => answer,
            _ = responder.cancelled() => return,
        };
        match answer {
            Ok(Answer::Http(response)) => respond(responder, response).await,
            Ok(Answer::Switched(response)) => match switched {
                Some(body) => self.switch(responder, body, response),
                None => debug_assert!(false, "nobody asked for another protocol"),
            },
            // the caller's agent may try another instance: this one saw nothing
            Err(refusal) => responder.reset(refusal.link_code()),
        }
    }

    /// Decides a request and has the application answer it. `Err` is a call that the application
    /// surely never saw, which may be tried elsewhere.
    pub(super) async fn answer(
        self: &Arc<Self>, peer: &Peer, service: &ServiceName, target: &Target,
        mut request: Request<ProxyBody>,
    ) -> Result<Answer, Refusal> {
        let began = Instant::now();
        // what is decided on is what the application will see
        headers::to_app(request.headers_mut(), &peer.id);
        let upgrade = request.extensions().get::<Upgrade>().copied();
        headers::ask(request.headers_mut(), upgrade);
        let asked = Arc::new(Asked {
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            headers: request.headers().clone(),
        });
        let (of, wanted) = (service.clone(), Arc::clone(&asked));
        let check = Check::Http { peer: Arc::clone(peer), service: of, asked: wanted };
        let (registered, snapshot) = self.enter(check);
        let decided = self.decide(&snapshot, peer, service, Some(&asked));
        let rule = decided.as_ref().ok().map(|decision| decision.reason.id());
        let outcome = match decided.and_then(|_| local(&snapshot, service, target)) {
            Err(refusal) => Err(refusal),
            Ok(instance) => {
                let access = snapshot.access.get(service);
                let declared = access.and_then(|access| access.protocol).unwrap_or_default();
                self.ask_app(instance, service, declared, request, &registered).await
            }
        };
        let (code, refusal, upstream) = match &outcome {
            Ok(sent) => (sent.status().as_u16(), None, true),
            Err(refusal) => (refusal.status().as_u16(), Some(refusal), false),
        };
        self.observe(&Record {
            side: Side::Inbound,
            src: &short(&peer.id),
            dst: service.as_str(),
            request: Some((asked.method.as_str(), &asked.path)),
            code: &code.to_string(),
            upstream: upstream.then(|| target.instance.clone()),
            rule: rule.clone(),
            refusal,
            took: began.elapsed(),
            bytes: None,
        });
        match outcome {
            Ok(Sent::Answered(response)) => Ok(Answer::Http(answer_of(response, registered))),
            Ok(Sent::Switched(response)) => {
                let rule = rule.unwrap_or_default();
                let taken = |app| self.taken(app, registered, peer, service, rule);
                let mut response = response.map(taken);
                headers::from_app(response.headers_mut());
                Ok(Answer::Switched(response))
            }
            Err(
                refusal @ (Refusal::NotHosted(_) | Refusal::NoEndpoint(_) | Refusal::Connect(_)),
            ) => Err(refusal),
            Err(refusal) => {
                let is_grpc = grpc::is_call(&asked.headers);
                Ok(Answer::Http(refusal.response_to(is_grpc)))
            }
        }
    }

    /// Has the application answer a request that was allowed, for as long as it stays so.
    async fn ask_app(
        self: &Arc<Self>, instance: &HostedInstance, service: &ServiceName, declared: Protocol,
        mut request: Request<ProxyBody>, registered: &Registered,
    ) -> Result<Sent, Refusal> {
        let sending = async {
            match declared {
                Protocol::Tcp | Protocol::Http => self.apps.send(instance.address, request).await,
                Protocol::Http2 | Protocol::Grpc => {
                    if grpc::is_call(request.headers()) {
                        // gRPC servers look for it (PROTOCOL-HTTP2)
                        request
                            .headers_mut()
                            .insert(header::TE, HeaderValue::from_static("trailers"));
                    }
                    // boxed, for other calls need not carry its state
                    let sent = Box::pin(self.h2_apps.send(instance.address, request)).await;
                    sent.map(Sent::Answered)
                }
            }
        };
        let sending = timeout(self.limits.idle, sending);
        let answer = tokio::select! {
            sent = sending => sent,
            () = registered.close.cancelled() => {
                return Err(Refusal::Withdrawn(service.to_string()));
            }
        };
        let ms = u64::try_from(self.limits.idle.as_millis()).unwrap_or(u64::MAX);
        let slow = |_| Refusal::Timeout { what: "the application".to_owned(), ms };
        answer.map_err(slow)?.map_err(|why| refused(&why))
    }

    /// The one place where a call is allowed or denied. No rules are known of a service that is
    /// not hosted here, and then nothing is allowed.
    fn decide(
        &self, snapshot: &ProxySnapshot, peer: &Peer, service: &ServiceName, asked: Option<&Asked>,
    ) -> Result<Decision, Refusal> {
        let access =
            snapshot.access.get(service).ok_or_else(|| Refusal::NotHosted(service.to_string()))?;
        let declared = access.protocol.unwrap_or_default();
        match asked {
            Some(asked) => speaks(service, declared, grpc::is_call(&asked.headers))?,
            None if declared.is_http() => return Err(mismatch(service, declared, "tcp")),
            None => {}
        }
        if self.identities.trust().is_revoked(peer) {
            let (rule, caller) = ("revoked".to_owned(), peer.id.to_string());
            return Err(Refusal::Denied { rule, caller, service: service.to_string() });
        }
        let fields = asked.map(Asked::fields);
        let http = asked.zip(fields.as_deref()).map(|(asked, fields)| asked.request(fields));
        let decision = decide(access, &AccessRequest { caller: &peer.id, http });
        let src = short(&peer.id);
        self.metrics.decided(&src, service.as_str(), &decision);
        if decision.allowed {
            return Ok(decision);
        }
        let (rule, caller) = (decision.reason.id(), peer.id.to_string());
        Err(Refusal::Denied { rule, caller, service: service.to_string() })
    }
}

/// The instance of `service` on this host that takes the call: the one asked for, or any that
/// passes its checks.
fn local<'a>(
    snapshot: &'a ProxySnapshot, service: &ServiceName, target: &Target,
) -> Result<&'a Arc<HostedInstance>, Refusal> {
    let mut instances = snapshot.instances_of(service).peekable();
    if instances.peek().is_none() {
        return Err(Refusal::NotHosted(service.to_string()));
    }
    let asked = |instance: &&Arc<HostedInstance>| {
        target.instance.is_empty() || instance.id.as_str() == target.instance
    };
    let usable = |instance: &&Arc<HostedInstance>| match instance.health {
        Health::Passing => true,
        Health::Critical | Health::Draining => false,
    };
    instances
        .filter(asked)
        .find(usable)
        .ok_or_else(|| Refusal::NoEndpoint(format!("{service} on this host")))
}

/// The request as it came over the link, its path checked to be canonical: the other agent is a
/// peer, not a friend.
fn request_of(head: &RequestHead, body: ProxyBody) -> Result<Request<ProxyBody>, Refusal> {
    let bad = |why: &str| Refusal::BadRequest(why.to_owned());
    if head.method == Method::CONNECT || !is_plain(&head.method) {
        return Err(bad("method is CONNECT or not upper case"));
    }
    let bodiless = head.method == Method::GET && !head.headers.contains_key(header::CONTENT_LENGTH);
    if !head.upgrade.is_empty() && !bodiless {
        return Err(bad("another protocol is asked for by no GET, or by one with a body"));
    }
    let path_and_query = head.path.as_ref().ok_or_else(|| bad("CONNECT is not served here"))?;
    let canonical = path::canonical(path_and_query.path())
        .map_err(|why| Refusal::BadRequest(format!("path: {why}")))?;
    if canonical != path_and_query.path() {
        return Err(bad("path is not in canonical form"));
    }
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = path_and_query.as_str().parse().map_err(|_| bad("path is no path"))?;
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = head.headers.clone();
    let authority = head.authority.as_ref().ok_or_else(|| bad("Host is missing"))?;
    let canonical = path::canonical_host(authority.as_str())
        .map_err(|why| Refusal::BadRequest(format!("Host: {why}")))?;
    if authority.host() != canonical {
        return Err(bad("Host is not in canonical form"));
    }
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| bad("Host is no host"))?;
    request.headers_mut().insert(header::HOST, host);
    // one that is not known is not asked for: the answer is of HTTP then
    if let Some(upgrade) = Upgrade::named(&head.upgrade) {
        request.extensions_mut().insert(upgrade);
    }
    Ok(request)
}

fn refused(why: &SendError) -> Refusal {
    match why {
        SendError::Connect { address, source } => {
            Refusal::Connect(format!("the application on {address}: {source}"))
        }
        _ => {
            tracing::debug!(%why, "call failed at the application");
            Refusal::Broken("the application".to_owned())
        }
    }
}

/// Whether a service that declares `declared` takes HTTP calls, of gRPC or not. How they came, by
/// HTTP/1.1 or HTTP/2, ends at the agent.
pub(super) fn speaks(
    service: &ServiceName, declared: Protocol, is_grpc: bool,
) -> Result<(), Refusal> {
    match (declared, is_grpc) {
        (Protocol::Http, false) | (Protocol::Http2, _) | (Protocol::Grpc, true) => Ok(()),
        (Protocol::Tcp | Protocol::Http, true) => Err(mismatch(service, declared, "grpc")),
        (Protocol::Tcp | Protocol::Grpc, false) => Err(mismatch(service, declared, "http")),
    }
}

/// What the service declares, and what came.
pub(super) fn mismatch(service: &ServiceName, declared: Protocol, found: &'static str) -> Refusal {
    Refusal::Protocol { service: service.to_string(), declared: declared.as_str(), found }
}

/// The application's answer as the next hop may have it.
fn answer_of(response: Response<RecvBody>, registered: Registered) -> Response<ProxyBody> {
    let mut response = response.map(|body| ProxyBody::app(body).while_allowed(registered));
    headers::from_app(response.headers_mut());
    response
}

/// Sends an answer over the link.
async fn respond(mut responder: Responder, response: Response<ProxyBody>) {
    let (parts, body) = response.into_parts();
    let head = ResponseHead { status: parts.status, headers: parts.headers };
    let end = body.is_end_stream();
    match responder.respond(&head, end) {
        Ok(sink) if !end => {
            if let Err(error) = sink.send_body(body).await {
                tracing::debug!(%error, "answer was not sent to its end");
            }
        }
        Ok(_) => {}
        Err(error) => tracing::debug!(%error, "answer could not be sent"),
    }
}
