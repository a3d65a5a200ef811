//! The HTTPS API: the routes of [`mesh_core::api::ROUTES`] and nothing else.
//!
//! A request goes through plain functions in this order: [`listen`] takes the connection and the
//! caller's certificate, [`auth`] says who it is, the route's permission is checked, [`request`]
//! reads query and body, and [`dispatch`] calls the handler. [`error`] is the one table from errors
//! to statuses; [`openapi`] describes it all.

mod auth;
mod backup;
mod budget;
mod dispatch;
mod enrol;
mod error;
mod listen;
mod nodes;
mod openapi;
mod policy;
mod read;
mod request;
mod schema;
mod servers;
#[cfg(test)]
mod tests;
mod tokens;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use axum::routing::{MethodFilter, MethodRouter};
use mesh_core::api::{
    ApiError, LEADER_HEADER, REQUEST_ID_HEADER, REVISION_HEADER, ROUTES, RouteId, RouteSpec,
};
use mesh_core::revision::Revision;
use mesh_core::trust::permits;
use mesh_net::tls::PeerIdentity;
use serde::Serialize;

use crate::server::Server;

pub(crate) use budget::Budgets;
use error::{Failure, Kind};
pub use listen::ListenError;
pub(crate) use listen::{Listener, bind, serve};
use request::Call;

/// Who stands at the other end of a connection, as far as TLS knows.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// From where.
    pub(crate) address: SocketAddr,
    /// The verified certificate, if one was shown.
    pub(crate) identity: Option<PeerIdentity>,
}

/// What a handler gives.
struct Answer {
    body: Body,
    content: &'static str,
    /// The state it was read from or written to.
    revision: Option<Revision>,
}

impl Answer {
    /// `value` as JSON.
    fn json<T: Serialize>(value: &T, revision: Revision) -> Result<Self, Failure> {
        let body = serde_json::to_vec(value).map_err(|error| Failure::internal(&error))?;
        Ok(Self { body: body.into(), content: JSON, revision: Some(revision) })
    }

    /// A body of another kind.
    fn of(body: impl Into<Body>, content: &'static str, revision: Option<Revision>) -> Self {
        Self { body: body.into(), content, revision }
    }
}

/// The router: every route of the table, and JSON errors for everything else.
pub(crate) fn router(server: &Arc<Server>) -> Router {
    let mut router = Router::new();
    let mut paths: Vec<&'static str> = ROUTES.iter().map(|route| route.path).collect();
    paths.sort_unstable();
    paths.dedup();
    for path in paths {
        let of_path = ROUTES.iter().filter(|route| route.path == path);
        let methods = of_path.fold(MethodRouter::new(), |methods, spec| add(methods, spec, server));
        router = router.route(path, methods);
    }
    let (missing, wrong) = (Arc::clone(server), Arc::clone(server));
    router
        .fallback(move |request: Request<Body>| {
            let what = format!("no route {}", request.uri().path());
            let failure = Failure::new(Kind::NotFound, "no_route", what);
            std::future::ready(finish(&missing, &request_id(), Err(failure)))
        })
        .method_not_allowed_fallback(move |request: Request<Body>| {
            let what = format!("no {} on {}", request.method(), request.uri().path());
            let failure = Failure::new(Kind::Method, "wrong_method", what);
            std::future::ready(finish(&wrong, &request_id(), Err(failure)))
        })
}

fn add(methods: MethodRouter, spec: &'static RouteSpec, server: &Arc<Server>) -> MethodRouter {
    let method = Method::from_bytes(spec.method.as_bytes()).unwrap_or_default();
    let Ok(filter) = MethodFilter::try_from(method) else { return methods };
    let server = Arc::clone(server);
    methods.on(filter, move |request: Request<Body>| answer(Arc::clone(&server), spec, request))
}

/// One request, from authentication to the answer.
async fn answer(
    server: Arc<Server>, spec: &'static RouteSpec, request: Request<Body>,
) -> Response<Body> {
    let (id, began) = (request_id(), Instant::now());
    let answered = serve_route(&server, spec, request).await;
    let waits = spec.watch || spec.id == RouteId::Stream;
    if !waits {
        server.metrics.took(began.elapsed().as_secs_f64());
    }
    if let Err(failure) = &answered {
        failure.log(spec, &id);
    }
    let response = finish(&server, &id, answered);
    server.metrics.answered(spec.id, response.status().as_u16());
    response
}

async fn serve_route(
    server: &Arc<Server>, spec: &'static RouteSpec, request: Request<Body>,
) -> Result<Answer, Failure> {
    let (head, body) = request.into_parts();
    let peer = head.extensions.get::<Peer>();
    let by = auth::authenticate(server, &head.headers, peer)?;
    if !permits(&by, spec.permission) {
        return Err(auth::refused(&by, spec.permission));
    }
    let (call, stream) = Call::read(server, spec, by, &head, body).await?;
    dispatch::dispatch(call, stream).await
}

fn finish(server: &Server, id: &str, answered: Result<Answer, Failure>) -> Response<Body> {
    let (status, answer) = match answered {
        Ok(answer) => (StatusCode::OK, answer),
        Err(failure) => {
            let error = ApiError {
                code: failure.code.to_owned(),
                message: failure.message,
                field: failure.field,
                request_id: Some(id.to_owned()),
            };
            let body = serde_json::to_vec(&error).unwrap_or_default();
            (failure.kind.status(), Answer::of(body, JSON, None))
        }
    };
    let mut response = Response::new(answer.body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(answer.content));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let known = if server.node.leader().is_some() { "true" } else { "false" };
    headers.insert(LEADER_HEADER, HeaderValue::from_static(known));
    let texts = [
        (REQUEST_ID_HEADER, Some(id.to_owned())),
        (REVISION_HEADER, answer.revision.map(|revision| revision.to_string())),
    ];
    for (name, text) in texts {
        // Both hold ASCII only.
        if let Some(value) = text.and_then(|text| HeaderValue::from_str(&text).ok()) {
            headers.insert(name, value);
        }
    }
    response
}

/// Sixteen random hex digits; zeros if the system has no randomness, for ids only find log lines.
fn request_id() -> String {
    let mut bytes = [0; 8];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        bytes = [0; 8];
    }
    hex::encode(bytes)
}

const JSON: &str = "application/json";
const BINARY: &str = "application/octet-stream";
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
