//! Against another implementation: hyper's client and server.

use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::duplex;
use tokio::time::timeout;

use super::*;

type PeerBody = BoxBody<Bytes, Infallible>;

/// hyper's client on our server.
struct Caller {
    send: SendRequest<PeerBody>,
    server: JoinHandle<Served>,
    driver: JoinHandle<hyper::Result<()>>,
    closing: CancellationToken,
    app: Arc<App>,
}

async fn caller() -> Caller {
    let app = Arc::<App>::default();
    let (io, server) = duplex(256 << 10);
    let closing = CancellationToken::new();
    let server = serving(server, &app, CONFIG, &closing);
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(64 << 10).initial_connection_window_size(64 << 10);
    let (send, connection) = builder.handshake(TokioIo::new(io)).await.unwrap();
    let driver = tokio::spawn(connection);
    Caller { send, server, driver, closing, app }
}

fn ask(path: &str, body: PeerBody) -> Request<PeerBody> {
    Request::post(format!("http://orders.mesh{path}")).body(body).unwrap()
}

fn no_body() -> PeerBody {
    BodyExt::boxed(Empty::new())
}

async fn collect<B>(response: Response<B>) -> (usize, Option<HeaderMap>)
where
    B: Body<Data = Bytes, Error: std::fmt::Debug>,
{
    let whole = timeout(Duration::from_secs(20), response.into_body().collect());
    let whole = whole.await.expect("in time").unwrap();
    let fields = whole.trailers().cloned();
    (whole.to_bytes().len(), fields)
}

#[tokio::test]
async fn hyper_gets_bodies_and_trailers_both_ways() {
    let mut caller = caller().await;
    let body = BodyExt::boxed(Parts::new(LARGE, Some(trailers())));
    let response = caller.send.send_request(ask("/echo", body)).await.unwrap();
    let (len, fields) = collect(response).await;
    let fields = fields.unwrap();
    assert_eq!((len, fields.len()), (LARGE, 1));
    assert_eq!(fields["grpc-status"], "0");

    let response = caller.send.send_request(ask("/large", no_body())).await.unwrap();
    assert_eq!(response.headers()["content-length"], LARGE.to_string());
    assert_eq!(collect(response).await, (LARGE, None));
    let body = BodyExt::boxed(Full::new(Bytes::from(vec![1; LARGE])));
    let response = caller.send.send_request(ask("/count", body)).await.unwrap();
    let text = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(text, format!("POST /count {LARGE}"));
}

#[tokio::test]
async fn hyper_gets_a_hundred_answers_at_once() {
    let caller = caller().await;
    let asks = (0..100).map(|n| {
        let mut send = caller.send.clone();
        async move {
            let body = BodyExt::boxed(Parts::new(n * 1_000, None));
            let response = send.send_request(ask("/echo", body)).await.unwrap();
            assert_eq!(collect(response).await, (n * 1_000, None));
        }
    });
    timeout(Duration::from_secs(20), futures_util::future::join_all(asks)).await.unwrap();
    assert_eq!(caller.app.begun.load(Ordering::SeqCst), 100);
}

/// One body that nobody reads stops no other.
#[tokio::test]
async fn a_slow_reader_stalls_only_itself() {
    let mut caller = caller().await;
    let slow = caller.send.send_request(ask("/large", no_body())).await.unwrap();
    // hyper's own window of the connection is full with it: so on the way to the server
    let body = BodyExt::boxed(Parts::new(LARGE, None));
    let never = caller.send.send_request(ask("/never", body));
    let never = tokio::spawn(never);
    let body = BodyExt::boxed(Parts::new(LARGE, None));
    let counted = tokio::spawn(caller.send.send_request(ask("/count", body)));
    eventually("calls begin", || caller.app.begun.load(Ordering::SeqCst) == 3).await;
    assert_eq!(collect(slow).await.0, LARGE);
    let response = timeout(Duration::from_secs(20), counted).await.unwrap().unwrap().unwrap();
    assert_eq!(response.status(), 200);
    never.abort();
    eventually("the call ends", || caller.app.running() == 0).await;
}

#[tokio::test]
async fn hyper_may_give_up_and_leave() {
    let mut caller = caller().await;
    let response = caller.send.send_request(ask("/endless", no_body())).await.unwrap();
    drop(response);
    let never =
        timeout(Duration::from_millis(50), caller.send.send_request(ask("/never", no_body())));
    assert!(never.await.is_err());
    eventually("calls end", || caller.app.running() == 0).await;
    let response = caller.send.send_request(ask("/echo", no_body())).await.unwrap();
    assert_eq!(collect(response).await, (0, None));
    drop(caller.send);
    let served = timeout(Duration::from_secs(5), caller.server).await.unwrap().unwrap();
    assert_eq!(served, Served::Done);
    caller.driver.await.unwrap().unwrap();
}

#[tokio::test]
async fn hyper_is_drained() {
    let mut caller = caller().await;
    let (parts, body) = {
        let response = caller.send.send_request(ask("/echo", {
            let parts = Parts::new(LARGE, Some(trailers()));
            BodyExt::boxed(parts)
        }));
        response.await.unwrap().into_parts()
    };
    caller.closing.cancel();
    assert_eq!(collect(Response::from_parts(parts, body)).await.0, LARGE);
    let served = timeout(Duration::from_secs(5), caller.server).await.unwrap().unwrap();
    assert_eq!(served, Served::Done);
    assert!(caller.send.send_request(ask("/echo", no_body())).await.is_err());
}
