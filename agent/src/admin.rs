//! The admin listener: readiness, metrics, config and status, for this host only.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::limits::admin::{ACCEPT_PAUSE, CONNECTION, CONNECTIONS_MAX, HEAD, HEAD_BYTES_MAX};
use crate::live::Live;
use crate::metrics::ControlMetrics;
use crate::status::Board;

/// What requests are answered from.
pub(crate) struct Admin {
    pub(crate) live: Arc<Live>,
    pub(crate) board: Arc<Board>,
    pub(crate) metrics: ControlMetrics,
    pub(crate) registry: Registry,
}

/// Answers requests until `shutdown`; owns its connections' tasks.
pub(crate) async fn serve(listener: TcpListener, admin: Admin, shutdown: CancellationToken) {
    let admin = Arc::new(admin);
    let mut connections = JoinSet::new();
    loop {
        // Cancel safe: accept and join_next take one item or none.
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, admin.clone()));
                }
                Err(why) => {
                    tracing::warn!("cannot accept on the admin listener: {why}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

async fn converse(stream: TcpStream, admin: Arc<Admin>) {
    let answer = service_fn(|request: Request<Incoming>| {
        let admin = admin.clone();
        async move { Ok::<_, Infallible>(admin.answer(&request)) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), answer);
    if let Ok(Err(why)) = timeout(CONNECTION, connection).await {
        tracing::debug!("admin connection: {why}");
    }
}

impl Admin {
    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if !is_local(request.headers()) {
            // A page in a browser may have got its own name resolved to loopback.
            let why = "the Host header does not name this host's loopback\n";
            return text(StatusCode::MISDIRECTED_REQUEST, why.to_owned());
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "expected GET\n".to_owned());
        }
        match request.uri().path() {
            "/ready" => match self.board.status().ready() {
                Ok(()) => text(StatusCode::OK, "ready\n".to_owned()),
                Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
            },
            "/metrics" => self.metrics(),
            "/status" => json(&self.board.status()),
            "/config" => json(&*self.live.load()),
            _ => {
                let known = "expected /ready, /metrics, /status or /config\n";
                text(StatusCode::NOT_FOUND, known.to_owned())
            }
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        self.metrics.show(&self.board.status());
        let mut body = String::new();
        // Writing to a string cannot fail, an encoder can.
        match prometheus_client::encoding::text::encode(&mut body, &self.registry) {
            Ok(()) => with_type(StatusCode::OK, OPENMETRICS, body),
            Err(why) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n")),
        }
    }
}

/// Whether the one Host header names loopback, with any port.
fn is_local(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Ok(host) = host.to_str() else { return false };
    if let Ok(address) = host.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        Some(_) | None => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn json(value: &impl serde::Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_string_pretty(value) {
        Ok(body) => with_type(StatusCode::OK, "application/json", body + "\n"),
        Err(why) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n")),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    with_type(status, "text/plain; charset=utf-8", body)
}

fn with_type(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    response
}

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

    use http_body_util::BodyExt;
    use mesh_core::revision::Revision;
    use mesh_core::time::UnixMillis;

    use super::*;
    use crate::live::tests::empty;

    fn admin() -> Admin {
        let mut registry = Registry::default();
        Admin {
            live: Live::new(empty()),
            board: Arc::new(Board::new("web-7".parse().unwrap(), 1, UnixMillis(1))),
            metrics: ControlMetrics::register(&mut registry),
            registry,
        }
    }

    async fn get(admin: &Admin, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).header("host", "localhost:7302").body(()).unwrap();
        let response = admin.answer(&request);
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn ready_follows_the_board() {
        let admin = admin();
        let (status, why) = get(&admin, "/ready").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(why.starts_with("no config in force"), "{why}");
        admin.board.update(|status| {
            status.revision = Revision::new(1, 1);
            status.listening = true;
        });
        assert_eq!(get(&admin, "/ready").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn pages_are_what_they_say() {
        let admin = admin();
        let (_, status) = get(&admin, "/status").await;
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        assert_eq!(status["node"], "web-7");
        assert_eq!(status["stale_since"], 1);
        let (_, config) = get(&admin, "/config").await;
        let config: serde_json::Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["host"]["node"], "web-7");
        let (_, metrics) = get(&admin, "/metrics").await;
        assert!(metrics.ends_with("# EOF\n") && metrics.contains("mesh_agent_connected 0"));
        assert_eq!(get(&admin, "/other").await.0, StatusCode::NOT_FOUND);
    }

    #[test]
    fn only_loopback_names_are_answered() {
        let admin = admin();
        let cases = [
            (Some("localhost"), true),
            (Some("LOCALHOST:7302"), true),
            (Some("127.0.0.1:7302"), true),
            (Some("[::1]:7302"), true),
            (Some("[::1]"), true),
            (Some("evil.example"), false),
            (Some("127.0.0.1.evil.example:7302"), false),
            (Some("localhost.evil.example"), false),
            (Some("10.0.0.7:7302"), false),
            (Some(""), false),
            (None, false),
        ];
        for (host, want) in cases {
            let mut request = Request::get("/ready").body(()).unwrap();
            if let Some(host) = host {
                request.headers_mut().insert(header::HOST, host.parse().unwrap());
            }
            let refused = admin.answer(&request).status() == StatusCode::MISDIRECTED_REQUEST;
            assert_eq!(!refused, want, "{host:?}");
        }
        let two = Request::get("/ready").header("host", "localhost").header("host", "localhost");
        let refused = admin.answer(&two.body(()).unwrap()).status();
        assert_eq!(refused, StatusCode::MISDIRECTED_REQUEST);
        let post = Request::post("/ready").header("host", "localhost").body(()).unwrap();
        assert_eq!(admin.answer(&post).status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}
