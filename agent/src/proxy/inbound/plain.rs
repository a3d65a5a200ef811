//! mTLS clients that are no agents: HTTP/1.1 or HTTP/2 by someone who holds a certificate of the
//! mesh. They pass the same stages as a call over a link, and are admitted like a local caller.

use std::sync::Arc;

use http::{HeaderValue, Request, Response, header};
use mesh_core::name::ServiceName;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::super::Proxy;
use super::super::admit::admit;
use super::super::body::ProxyBody;
use super::super::connections::{Check, Registered};
use super::super::observe::{Record, Side};
use super::super::outbound::short;
use super::super::refusal::Refusal;
use super::super::{grpc, headers};
use super::{Answer, Peer, life};
use crate::edge::{RecvBody, Reject, Service, Spoken, Transport, http1, http2, sniff};
use crate::link::{ReadAhead, Target};

impl Transport for TlsStream<ReadAhead<TcpStream>> {
    fn abort(&self) {
        // without the end that TLS asks for, which tells the client that it has not seen all
        self.get_ref().0.get_ref().abort();
    }
}

/// Serves one connection, until it ends, its peer is revoked, or a certificate of either side ends.
pub(super) async fn serve(
    proxy: Arc<Proxy>, tls: TlsStream<ReadAhead<TcpStream>>, peer: Peer, service: ServiceName,
    registered: Registered,
) {
    registered.becomes(Check::Link(Arc::clone(&peer)));
    // after it is registered: what is revoked from now on closes it
    if proxy.identities.trust().is_revoked(&peer) {
        return;
    }
    let life = life(&proxy, &peer, &service);
    let limits = &proxy.limits;
    let config = http1::Config { rest: limits.rest, head: limits.head };
    let plain = Plain { proxy: &proxy, peer, service };
    let serving = async {
        let Some((spoken, tls)) = Box::pin(sniff(tls, &config, &proxy.closing)).await else {
            return;
        };
        match spoken {
            Spoken::Http1 => drop(http1::serve(tls, &plain, &config, &proxy.closing).await),
            Spoken::Http2 => drop(http2::serve(tls, &plain, &config, &proxy.closing).await),
        }
    };
    tokio::select! {
        () = serving => {}
        () = registered.close.cancelled() => {}
        () = tokio::time::sleep(life) => {}
    }
}

/// The requests of one connection.
struct Plain<'a> {
    proxy: &'a Arc<Proxy>,
    peer: Peer,
    service: ServiceName,
}

impl Service for Plain<'_> {
    type Body = ProxyBody;

    async fn call(&self, request: Request<RecvBody>) -> Response<ProxyBody> {
        let is_grpc = grpc::is_call(request.headers());
        let answered = match admitted(request) {
            Ok(request) => {
                let any = Target::default();
                self.proxy.answer(&self.peer, &self.service, &any, request).await
            }
            Err(refusal) => {
                self.refused(&refusal);
                Err(refusal)
            }
        };
        match answered {
            Ok(Answer::Http(response)) => response,
            Ok(Answer::Switched(_)) => {
                debug_assert!(false, "nobody asked for another protocol");
                Refusal::Broken("the application".to_owned()).response()
            }
            Err(refusal) => refusal.response_to(is_grpc),
        }
    }

    fn refuse(&self, reject: &Reject) -> Response<ProxyBody> {
        let refusal = Refusal::Rejected(reject.clone());
        self.refused(&refusal);
        refusal.response()
    }

    fn refuse_called(&self, reject: &Reject) -> Response<ProxyBody> {
        // its record was written when the call ended
        Refusal::Rejected(reject.clone()).response()
    }
}

impl Plain<'_> {
    /// Counts and logs what was no request to decide on.
    fn refused(&self, refusal: &Refusal) {
        self.proxy.observe(&Record {
            side: Side::Inbound,
            src: &short(&self.peer.id),
            dst: self.service.as_str(),
            request: None,
            code: refusal.status().as_str(),
            upstream: None,
            rule: None,
            refusal: Some(refusal),
            took: std::time::Duration::ZERO,
            bytes: None,
        });
    }
}

/// The request in canonical form, without what only agents may say. An upgrade is not taken.
fn admitted(request: Request<RecvBody>) -> Result<Request<ProxyBody>, Refusal> {
    let (mut parts, body) = request.into_parts();
    let admitted = admit(&parts.method, &parts.uri, parts.version, &parts.headers)?;
    headers::from_caller(&mut parts.headers);
    let host = HeaderValue::from_str(admitted.authority.as_str());
    let host = host.map_err(|_| Refusal::BadRequest("Host is no host".to_owned()))?;
    parts.headers.insert(header::HOST, host);
    let mut request = Request::new(ProxyBody::caller(body));
    *request.method_mut() = admitted.method;
    *request.uri_mut() = admitted.path_and_query.into();
    *request.headers_mut() = parts.headers;
    Ok(request)
}
