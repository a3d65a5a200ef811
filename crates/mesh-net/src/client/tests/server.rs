//! A small API server over real TLS, whose answers the tests script.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::testing::TestCa;
use crate::tls::{ClientAuth, Resolver, peer_identity, server_config};
use mesh_core::identity::{CaRole, SpiffeId};

pub(super) type Body = UnsyncBoxBody<Bytes, std::io::Error>;
type Answering = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;
type Handler = Arc<dyn Fn(Request<Incoming>) -> Answering + Send + Sync>;

/// Serves until dropped.
pub(super) struct TestServer {
    pub(super) address: String,
    log: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl TestServer {
    /// What was asked: method, path with query, and the caller's serial or `-`.
    pub(super) fn asked(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    pub(super) async fn start<F, Fut>(ca: &TestCa, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Response<Body>> + Send + 'static,
    {
        let auth = ClientAuth::Optional { roles: &CaRole::ALL, allow_expired: false };
        Self::start_as(ca, &ca.server_id("ctl-1"), auth, handler).await
    }

    pub(super) async fn start_as<F, Fut>(
        ca: &TestCa, id: &SpiffeId, auth: ClientAuth, handler: F,
    ) -> Self
    where
        F: Fn(Request<Incoming>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Response<Body>> + Send + 'static,
    {
        let resolver = Resolver::One(ca.source(id));
        let config = server_config(resolver, ca.trust(), auth, &[b"h2", b"http/1.1"]).unwrap();
        let acceptor = TlsAcceptor::from(config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let log = Arc::new(Mutex::new(Vec::new()));
        let handler: Handler = Arc::new(move |request| Box::pin(handler(request)));
        let mut tasks = JoinSet::new();
        let shared = log.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                connections.spawn(serve(tcp, acceptor.clone(), handler.clone(), shared.clone()));
            }
        });
        Self { address, log, _tasks: tasks }
    }
}

async fn serve(
    tcp: tokio::net::TcpStream, acceptor: TlsAcceptor, handler: Handler,
    log: Arc<Mutex<Vec<String>>>,
) {
    let Ok(tls) = acceptor.accept(tcp).await else { return };
    let peer = peer_identity(tls.get_ref().1.peer_certificates()).unwrap();
    let serial = peer.map_or_else(|| "-".to_owned(), |peer| peer.serial);
    let service = service_fn(move |request: Request<Incoming>| {
        let line =
            format!("{} {} {serial}", request.method(), request.uri().path_and_query().unwrap());
        log.lock().unwrap().push(line);
        let handler = handler.clone();
        async move {
            let answer = handler(request).await;
            // The scripted way to break the connection without an answer.
            if answer.status() == http::StatusCode::IM_A_TEAPOT {
                return Err(std::io::Error::other("broken on purpose"));
            }
            Ok(answer)
        }
    });
    let _ =
        auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(tls), service).await;
}

/// An answer with `status`, revision, and a JSON text.
pub(super) fn answer(status: u16, revision: &str, json: impl Into<Bytes>) -> Response<Body> {
    Response::builder()
        .status(status)
        .header("x-mesh-revision", revision)
        .header("x-mesh-known-leader", "true")
        .body(Full::new(json.into()).map_err(|never| match never {}).boxed_unsync())
        .unwrap()
}

/// An error of the API.
pub(super) fn refuse(status: u16, code: &str) -> Response<Body> {
    answer(status, "0.0", format!(r#"{{"code":"{code}","message":"because of {code}"}}"#))
}

/// Hands each chunk of the request back in the answer, while the request still goes on.
pub(super) fn echo(
    request: Request<Incoming>, change: impl Fn(Bytes) -> Bytes + Send + Sync + 'static,
) -> Response<Body> {
    let frames = request
        .into_body()
        .into_data_stream()
        // The end of a request may come as an empty piece.
        .try_filter(|chunk| std::future::ready(!chunk.is_empty()))
        .map_ok(move |chunk| Frame::data(change(chunk)))
        .map_err(std::io::Error::other)
        .boxed();
    Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)))
}
