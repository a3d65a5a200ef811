//! The `http` check: a GET on the instance's own address. Redirects are answers, not orders.

use std::net::SocketAddr;

use crate::limits::health::{BODY_BYTES_MAX, HEAD_BYTES_MAX};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Gets `path` at `address`; 2xx is good. The caller bounds the time.
///
/// Cancel safe: the connection closes when the future is dropped.
pub(super) async fn get(address: SocketAddr, path: &str) -> Result<String, String> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|why| format!("cannot connect to {address}: {why}"))?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|why| format!("cannot speak HTTP to {address}: {why}"))?;
    let request = Request::get(path)
        .header(header::HOST, address.to_string())
        .header(header::USER_AGENT, "mesh-agent")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|why| format!("cannot ask for {path}: {why}"))?;
    let exchange = async {
        let response = sender.send_request(request).await;
        let response = response.map_err(|why| format!("no answer from {address}: {why}"))?;
        judge(response).await
    };
    tokio::pin!(exchange);
    // The connection ends by itself once the answer is read; both are polled here, so that
    // neither outlives the try.
    tokio::select! {
        outcome = &mut exchange => outcome,
        ended = connection => match ended {
            Ok(()) => exchange.await,
            Err(why) => Err(format!("no answer from {address}: {why}")),
        },
    }
}

async fn judge(response: http::Response<Incoming>) -> Result<String, String> {
    let status = response.status();
    // The body is read for what it says; a longer or broken one does not undo the status.
    let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
    let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned());
    let text = text.unwrap_or_default();
    let output = format!("{}: {}", reason(status), text.trim());
    let output = output.trim_end_matches([':', ' ']).to_owned();
    if status.is_success() { Ok(output) } else { Err(output) }
}

fn reason(status: StatusCode) -> String {
    format!("HTTP {status}")
}
