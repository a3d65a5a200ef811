//! One HTTP exchange at the caller's side.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use http_body::Body;
use mesh_core::access::HttpRequest;
use mesh_core::name::{ServiceName, SubsetName};
use mesh_core::resource::{Endpoint, ServiceRoutes};
use mesh_core::route::find;
use mesh_core::snapshot::ProxySnapshot;
use tokio::time::{Instant, timeout_at};

use super::super::admit::{Admitted, admit};
use super::super::body::ProxyBody;
use super::super::endpoints::InFlight;
use super::super::inbound::{Answer, mismatch, speaks};
use super::super::observe::{Record, Side};
use super::super::pool::LinkKey;
use super::super::refusal::Refusal;
use super::super::{Proxy, grpc, headers};
use super::{Carried, Source, Switched, Targets, name_of};
use crate::edge::http1::Upgrade;
use crate::edge::{RecvBody, Reject};
use crate::limits::proxy::{EXCHANGE_TRIES, FIRST_USES};
use crate::link::{BodySink, LinkBody, LinkError, LinkStream, RequestHead, ResponseHead, Target};

/// What a call found on its way, for the log.
#[derive(Debug, Default)]
struct Trail {
    service: Option<ServiceName>,
    method: String,
    path: String,
    upstream: Option<String>,
}

/// Where a call goes.
#[derive(Debug)]
struct Plan {
    snapshot: Arc<ProxySnapshot>,
    service: ServiceName,
    subset: Option<SubsetName>,
    timeout: Duration,
    connect: Duration,
}

/// Serves one request of a local caller. Every failure is an answer that says why.
pub(super) async fn serve(
    proxy: &Arc<Proxy>, source: &Result<Source, Refusal>, targets: &Targets,
    request: Request<RecvBody>,
) -> Response<ProxyBody> {
    let began = Instant::now();
    let mut trail = Trail::default();
    let fate = request.body().fate();
    let is_grpc = grpc::is_call(request.headers());
    let outcome = match source {
        Ok(source) => exchange(proxy, source, targets, request, &mut trail).await,
        Err(refusal) => Err(refusal.clone()),
    };
    // whatever was made of it: the request itself was none
    let malformed = fate.malformed().map(|why| Err(Refusal::Rejected(Reject::bad(why))));
    let outcome = malformed.unwrap_or(outcome);
    drop(fate);
    let identified = source.is_ok();
    let code = match &outcome {
        Ok(response) => response.status(),
        Err(refusal) => refusal.status(),
    };
    proxy.observe(&Record {
        side: Side::Outbound,
        src: &name_of(source),
        dst: trail.service.as_ref().map_or("unknown", ServiceName::as_str),
        request: Some((&trail.method, &trail.path)),
        code: code.as_str(),
        upstream: trail.upstream,
        rule: None,
        refusal: outcome.as_ref().err(),
        took: began.elapsed(),
        bytes: None,
    });
    let ambiguous = matches!(outcome, Err(Refusal::BadRequest(_) | Refusal::Rejected(_)));
    let mut response = outcome.unwrap_or_else(|refusal| refusal.response_to(is_grpc));
    if !identified || ambiguous {
        // who calls is asked once a connection: the next one may fare better; and after a request
        // with two readings nothing on its connection has one
        let close = http::HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

/// The answer to what is no request that has one reading.
pub(super) fn refuse(
    proxy: &Arc<Proxy>, source: &Result<Source, Refusal>, reject: &Reject,
) -> Response<ProxyBody> {
    let refusal = Refusal::Rejected(reject.clone());
    proxy.observe(&Record {
        side: Side::Outbound,
        src: &name_of(source),
        dst: "unknown",
        request: None,
        code: refusal.status().as_str(),
        upstream: None,
        rule: None,
        refusal: Some(&refusal),
        took: Duration::ZERO,
        bytes: None,
    });
    refusal.response()
}

async fn exchange(
    proxy: &Arc<Proxy>, source: &Source, targets: &Targets, request: Request<RecvBody>,
    trail: &mut Trail,
) -> Result<Response<ProxyBody>, Refusal> {
    let (mut parts, body) = request.into_parts();
    trail.method = parts.method.to_string();
    let admitted = admit(&parts.method, &parts.uri, parts.version, &parts.headers)?;
    trail.path.clone_from(&admitted.path);
    let asked = match targets {
        Targets::One(service) => service.clone(),
        Targets::ByHost => by_host(&admitted.host, &proxy.zone)?,
    };
    let upgrade =
        Upgrade::asked(&parts.method, parts.version, &parts.headers, body.is_end_stream())
            .map_err(|reject| Refusal::BadRequest(reject.to_string()))?;
    headers::from_caller(&mut parts.headers);
    if let Some(upgrade) = upgrade {
        // routes see it, as rules do
        parts.headers.insert(header::UPGRADE, upgrade.value());
        parts.headers.remove(header::CONTENT_LENGTH);
    }
    let is_grpc = grpc::is_call(&parts.headers);
    let known = proxy.routes(&asked).await?;
    speaks(&asked, known.1.protocol.unwrap_or_default(), is_grpc)?;
    // only now: a name from the wire must not become a metric's label
    trail.service = Some(asked.clone());
    let mut plan = route(proxy, &asked, known, &admitted, &parts.headers).await?;
    if is_grpc && let Some(limit) = grpc::deadline(&parts.headers) {
        plan.timeout = plan.timeout.min(limit);
    }
    trail.service = Some(plan.service.clone());
    parts.headers.remove(header::UPGRADE);
    let call =
        Call { proxy, source, plan: &plan, admitted: &admitted, headers: &parts.headers, upgrade };
    call.send(ProxyBody::caller(body), trail).await
}

/// The service that `host` names: `NAME` or `NAME.<zone>`.
fn by_host(host: &str, zone: &str) -> Result<ServiceName, Refusal> {
    let name = host.strip_suffix(zone).and_then(|rest| rest.strip_suffix('.')).unwrap_or(host);
    name.parse().map_err(|_| Refusal::NoService(host.to_owned(), zone.to_owned()))
}

/// Finds where the call goes, all by one snapshot. A route to a service that is not known here
/// yet waits for it, and then the way is found anew.
async fn route(
    proxy: &Arc<Proxy>, asked: &ServiceName,
    (mut snapshot, mut routes): (Arc<ProxySnapshot>, Arc<ServiceRoutes>), admitted: &Admitted,
    fields: &http::HeaderMap,
) -> Result<Plan, Refusal> {
    let draw = proxy.endpoints.draw();
    for _ in 0..FIRST_USES {
        let plan = plan(asked, snapshot, &routes, admitted, fields, draw)?;
        if plan.service == *asked || plan.snapshot.endpoints.contains_key(&plan.service) {
            return Ok(plan);
        }
        proxy.routes(&plan.service).await?;
        (snapshot, routes) = proxy.routes(asked).await?;
    }
    Err(Refusal::NoRoutes(asked.to_string()))
}

fn plan(
    asked: &ServiceName, snapshot: Arc<ProxySnapshot>, routes: &ServiceRoutes, admitted: &Admitted,
    fields: &http::HeaderMap, draw: u64,
) -> Result<Plan, Refusal> {
    let declared = routes.protocol.unwrap_or_default();
    if !declared.is_http() {
        return Err(mismatch(asked, declared, "http"));
    }
    // without routes nothing looks at them
    let looked_at = fields.iter().filter(|_| !routes.routes.is_empty());
    let pairs: Vec<(&str, &[u8])> = looked_at.map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
    let request =
        HttpRequest { method: admitted.method.as_str(), path: &admitted.path, headers: &pairs };
    let found = find(routes, Some(&request));
    let (service, subset) = match found.backend(draw) {
        Some(backend) => (backend.service.clone(), backend.subset.clone()),
        None => (asked.clone(), None),
    };
    let timeout = Duration::from_millis(found.timeout_ms(routes));
    let connect = Duration::from_millis(routes.connect_timeout_ms);
    Ok(Plan { snapshot, service, subset, timeout, connect })
}

/// One call on its way to an endpoint.
struct Call<'a> {
    proxy: &'a Arc<Proxy>,
    source: &'a Source,
    plan: &'a Plan,
    admitted: &'a Admitted,
    headers: &'a http::HeaderMap,
    /// The protocol it asks for.
    upgrade: Option<Upgrade>,
}

/// A try that failed: whether another endpoint may be tried, and the body if it is still whole.
struct Failed {
    refusal: Refusal,
    body: Option<Box<ProxyBody>>,
    /// The link was retired under the call: the same endpoint may be tried on another.
    stale: bool,
}

impl Failed {
    fn new(refusal: Refusal, body: Option<ProxyBody>) -> Self {
        Self { refusal, body: body.map(Box::new), stale: false }
    }
}

impl Call<'_> {
    /// Sends to one endpoint after the other while the ones before surely saw nothing.
    async fn send(
        &self, body: ProxyBody, trail: &mut Trail,
    ) -> Result<Response<ProxyBody>, Refusal> {
        let Plan { snapshot, service, subset, timeout, .. } = self.plan;
        let none = || Refusal::NoEndpoint(service.to_string());
        let endpoints = snapshot.endpoints.get(service).ok_or_else(none)?;
        let deadline = Instant::now() + *timeout;
        let mut tried: Vec<&Endpoint> = Vec::with_capacity(EXCHANGE_TRIES);
        let mut last = None;
        let mut body = Some(body);
        while tried.len() < EXCHANGE_TRIES {
            let Some(endpoint) = self.proxy.endpoints.pick(endpoints, subset.as_ref(), &tried)
            else {
                break;
            };
            let Some(whole) = body.take() else { break };
            trail.upstream = Some(format!("{}/{}", endpoint.node, endpoint.instance));
            let flight = self.proxy.endpoints.begin(service, endpoint);
            match self.send_to(endpoint, whole, deadline, flight).await {
                Ok(response) => return Ok(response),
                Err(failed) => {
                    tried.push(endpoint);
                    body = failed.body.map(|body| *body);
                    last = Some(failed.refusal);
                }
            }
        }
        Err(last.unwrap_or_else(none))
    }

    async fn send_to(
        &self, endpoint: &Endpoint, body: ProxyBody, deadline: Instant, flight: InFlight,
    ) -> Result<Response<ProxyBody>, Failed> {
        let local = endpoint.node == self.plan.snapshot.host.node;
        let sending = async {
            if local {
                // boxed, for calls that leave the host need not carry its state
                Box::pin(self.send_here(endpoint, body)).await
            } else {
                self.send_over_link(endpoint, body, &flight).await
            }
        };
        let outcome = timeout_at(deadline, sending).await.unwrap_or_else(|_| {
            let ms = u64::try_from(self.plan.timeout.as_millis()).unwrap_or(u64::MAX);
            let refusal = Refusal::Timeout { what: self.plan.service.to_string(), ms };
            Err(Failed::new(refusal, None))
        });
        let ok = outcome.as_ref().is_ok_and(|response| !response.status().is_server_error());
        flight.done(ok);
        outcome.map(|mut response| {
            headers::of_answer(response.headers_mut());
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                headers::ask(response.headers_mut(), self.upgrade);
            }
            response.map(|body| body.counted(flight))
        })
    }

    /// Same host: the callee's stages in process, without TLS. Nothing is shown, so that the own
    /// certificate is still valid and not revoked is checked here.
    async fn send_here(
        &self, endpoint: &Endpoint, body: ProxyBody,
    ) -> Result<Response<ProxyBody>, Failed> {
        let end = body.is_end_stream();
        // what `answer` refuses was surely not seen; without a body it can be made again
        let keep = |refusal| Failed::new(refusal, end.then(ProxyBody::empty));
        let peer = self.proxy.valid_here(self.source, &self.plan.service).map_err(keep)?;
        let head = self.head(endpoint);
        let mut request = Request::new(body);
        *request.method_mut() = head.method;
        *request.uri_mut() = self.admitted.path_and_query.clone().into();
        *request.headers_mut() = head.headers;
        let host = http::HeaderValue::from_str(self.admitted.authority.as_str());
        if let Ok(host) = host {
            request.headers_mut().insert(header::HOST, host);
        }
        if let Some(upgrade) = self.upgrade {
            request.extensions_mut().insert(upgrade);
        }
        let answering = self.proxy.answer(&peer, &self.plan.service, &head.target, request);
        Ok(match answering.await.map_err(keep)? {
            Answer::Http(response) => response,
            Answer::Switched(response) => {
                response.map(|taken| self.switched(Carried::Here(Box::new(taken))))
            }
        })
    }

    async fn send_over_link(
        &self, endpoint: &Endpoint, body: ProxyBody, flight: &InFlight,
    ) -> Result<Response<ProxyBody>, Failed> {
        let key = LinkKey {
            source: self.source.id.clone(),
            destination: self.plan.snapshot.host.service_id(&self.plan.service),
            address: endpoint.address,
        };
        if let Err(refusal) = self.proxy.valid(self.source) {
            return Err(Failed::new(refusal, None));
        }
        match self.send_on_link(&key, endpoint, body, flight).await {
            Err(Failed { body: Some(body), stale: true, .. }) => {
                self.send_on_link(&key, endpoint, *body, flight).await
            }
            outcome => outcome,
        }
    }

    async fn send_on_link(
        &self, key: &LinkKey, endpoint: &Endpoint, body: ProxyBody, flight: &InFlight,
    ) -> Result<Response<ProxyBody>, Failed> {
        let by = Instant::now() + self.plan.connect;
        let link = match self.proxy.link(key, &self.source.svid, by).await {
            Ok(link) => link,
            Err(refusal) => return Err(Failed::new(refusal, Some(body))),
        };
        flight.link_ready();
        let failed = |why: &LinkError, body: Option<ProxyBody>| {
            let body = body.filter(|_| why.unprocessed()).map(Box::new);
            Failed { refusal: self.refused(why), body, stale: !link.is_open() }
        };
        let end = body.is_end_stream();
        let ends = end && self.upgrade.is_none();
        let (sink, answer) = match link.open_http(self.head(endpoint), ends) {
            Ok(open) => open,
            Err(why) => return Err(failed(&why, Some(body))),
        };
        let mut open = None;
        if end {
            open = Some(sink).filter(|_| !ends);
        } else {
            // ends with the exchange: the answer's end, or its being dropped, ends the stream
            self.proxy.spawn(async move {
                if let Err(error) = sink.send_body(body).await {
                    tracing::debug!(%error, "request was not sent to its end");
                }
            });
        }
        match answer.await {
            Ok((head, body)) => self.answer_of(head, body, open),
            // without a body the same request can be made again; with one it is spent
            Err(why) => Err(failed(&why, end.then(ProxyBody::empty))),
        }
    }

    /// The other agent's answer, its body held to what its head says. `sink` is left open for what
    /// may become of the stream.
    fn answer_of(
        &self, head: ResponseHead, body: LinkBody, sink: Option<BodySink>,
    ) -> Result<Response<ProxyBody>, Failed> {
        let bodiless = self.admitted.method == Method::HEAD
            || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let body = match (head.status, sink) {
            (StatusCode::SWITCHING_PROTOCOLS, Some(sink)) => {
                self.switched(Carried::There(LinkStream::new(sink, body)))
            }
            // nobody asked to
            (StatusCode::SWITCHING_PROTOCOLS, None) => {
                return Err(Failed::new(Refusal::Broken(self.plan.service.to_string()), None));
            }
            (_, sink) => {
                if let Some(Err(error)) = sink.map(BodySink::finish) {
                    tracing::debug!(%error, "stream ended with its answer");
                }
                if bodiless { ProxyBody::empty() } else { ProxyBody::link(body, &head.headers) }
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        Ok(response)
    }

    fn switched(&self, carried: Carried) -> ProxyBody {
        ProxyBody::switched(Switched { carried, service: self.plan.service.clone() })
    }

    fn head(&self, endpoint: &Endpoint) -> RequestHead {
        RequestHead {
            target: Target { instance: endpoint.instance.to_string(), port: 0 },
            method: self.admitted.method.clone(),
            path: Some(self.admitted.path_and_query.clone()),
            authority: Some(self.admitted.authority.clone()),
            upgrade: self.upgrade.map_or("", Upgrade::as_str).to_owned(),
            headers: self.headers.clone(),
        }
    }

    fn refused(&self, why: &LinkError) -> Refusal {
        tracing::debug!(service = %self.plan.service, %why, "call failed on the link");
        if let LinkError::HeadTooLarge { .. } | LinkError::TooManyHeaders { .. } = why {
            Refusal::BadRequest(why.to_string())
        } else if why.unprocessed() {
            Refusal::Connect(self.plan.service.to_string())
        } else {
            Refusal::Broken(self.plan.service.to_string())
        }
    }
}
