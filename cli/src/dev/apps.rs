//! The sample's applications: plain HTTP servers on loopback that know nothing of the mesh but
//! the port by which they call others.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::error::CliError;
use crate::limits::dev::{APPS_BODY_MAX, APPS_CONNECTIONS_MAX};

/// One application.
#[derive(Clone, Debug)]
pub(super) struct App {
    /// How it names itself in answers.
    pub(super) name: String,
    /// Where it listens.
    pub(super) listen: SocketAddr,
    /// The port by which it calls another service before it answers.
    pub(super) calls: Option<SocketAddr>,
}

/// Binds `app` and gives its serving as a future, which ends with `stop`.
pub(super) async fn bind(
    app: App, stop: CancellationToken,
) -> Result<impl Future<Output = ()>, CliError> {
    let listener = TcpListener::bind(app.listen).await.map_err(|why| {
        CliError::Unavailable(format!("cannot listen on {} for {}: {why}", app.listen, app.name))
    })?;
    Ok(serve(app, listener, stop))
}

async fn serve(app: App, listener: TcpListener, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = listener.accept(), if connections.len() < APPS_CONNECTIONS_MAX => accepted,
            Some(_) = connections.join_next(), if connections.len() >= APPS_CONNECTIONS_MAX => continue,
            () = stop.cancelled() => break,
        };
        if let Ok((stream, _)) = accepted {
            connections.spawn(serve_connection(app.clone(), stream));
        }
    }
    connections.shutdown().await;
}

async fn serve_connection(app: App, stream: TcpStream) {
    let answering = service_fn(|request| {
        let app = &app;
        async move { Ok::<_, Infallible>(answer(app, request).await) }
    });
    let served = server::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(30))
        .serve_connection(TokioIo::new(stream), answering)
        .await;
    if let Err(error) = served {
        tracing::debug!(app = app.name, %error, "connection ended");
    }
}

async fn answer(app: &App, request: Request<Incoming>) -> Response<Full<Bytes>> {
    if request.uri().path() == "/health" {
        return Response::new(Full::from("ok\n"));
    }
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let caller = header("x-mesh-caller").unwrap_or("nobody");
    let mut text = format!("{} called by {caller}\n", app.name);
    if let Some(address) = app.calls {
        match get(address, "/", &[]).await {
            Ok((StatusCode::OK, body)) => text.push_str(&body),
            Ok((status, body)) => {
                let mut response = Response::new(Full::from(format!("{text}{body}")));
                *response.status_mut() = status;
                return response;
            }
            Err(why) => {
                let mut response = Response::new(Full::from(format!("{text}{why}\n")));
                *response.status_mut() = StatusCode::BAD_GATEWAY;
                return response;
            }
        }
    }
    Response::new(Full::from(text))
}

/// GETs `path` from `address` on a connection of its own: status and body.
pub(super) async fn get(
    address: SocketAddr, path: &str, headers: &[(&'static str, &'static str)],
) -> Result<(StatusCode, String), String> {
    let asking = async {
        let stream = TcpStream::connect(address).await.map_err(|why| why.to_string())?;
        let (mut sender, connection) =
            client::handshake(TokioIo::new(stream)).await.map_err(|why| why.to_string())?;
        let mut request = Request::get(path).header("host", address.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::<Bytes>::default()).map_err(|why| why.to_string())?;
        let answering = async {
            let response = sender.send_request(request).await.map_err(|why| why.to_string())?;
            let status = response.status();
            let body = Limited::new(response.into_body(), APPS_BODY_MAX).collect().await;
            let body = body.map_err(|why| why.to_string())?.to_bytes();
            Ok((status, String::from_utf8_lossy(&body).into_owned()))
        };
        tokio::pin!(answering);
        tokio::select! {
            answer = &mut answering => answer,
            // the connection may end once all of the answer was read
            _ = connection => answering.await,
        }
    };
    let answer = tokio::time::timeout(Duration::from_secs(10), asking).await;
    answer.unwrap_or_else(|_| Err(format!("{address} did not answer within 10 s")))
}
