//! Requests per second of CPU beside hyper's server, by h2load; run by hand, in a release build:
//!
//! ```text
//! cargo test --release -p mesh-agent --lib http2::tests::measure -- --ignored --nocapture
//! ```

use std::process::Command;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use super::*;

/// Answers at once, with as many bytes as the path has digits for.
struct Quick;

fn quick(path: &str) -> Response<Full<Bytes>> {
    static DATA: [u8; 1 << 20] = [b'x'; 1 << 20];
    let len = path.trim_start_matches('/').parse().unwrap_or(0);
    Response::new(Full::new(Bytes::from_static(DATA.get(..len).unwrap_or_default())))
}

impl Service for Quick {
    type Body = Full<Bytes>;

    async fn call(&self, request: Request<RecvBody>) -> Response<Full<Bytes>> {
        quick(request.uri().path())
    }

    fn refuse(&self, _reject: &Reject) -> Response<Full<Bytes>> {
        quick("/")
    }
}

/// Nanoseconds this thread ran so far.
fn ran() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

/// Has h2load ask one server for `path`; requests per second of the server's CPU.
fn rate(ours: bool, path: &str, requests: u32) -> f64 {
    let (tell, address) = std::sync::mpsc::channel();
    let (done, stop) = tokio::sync::oneshot::channel::<()>();
    let server = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            let accept = async {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    stream.set_nodelay(true).unwrap();
                    if ours {
                        let config = Config { rest: Duration::from_secs(60), ..CONFIG };
                        let closing = CancellationToken::new();
                        tokio::spawn(async move { serve(stream, &Quick, &config, &closing).await });
                    } else {
                        let service = service_fn(|request: Request<hyper::body::Incoming>| {
                            let answer = quick(request.uri().path());
                            async move { Ok::<_, Infallible>(answer) }
                        });
                        let executor = TokioExecutor::new();
                        let builder = hyper::server::conn::http2::Builder::new(executor);
                        let serving = builder.serve_connection(TokioIo::new(stream), service);
                        tokio::spawn(serving);
                    }
                }
            };
            tokio::select! {
                () = accept => {}
                _ = stop => {}
            }
        });
        ran()
    });
    let address = address.recv().unwrap();
    let out = Command::new("h2load")
        .args(["-c", "4", "-m", "32", "-t", "1", "-n", &requests.to_string()])
        .arg(format!("http://{address}{path}"))
        .output()
        .expect("h2load of nghttp2-client is installed");
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(text.contains(&format!("{requests} succeeded, 0 failed")), "{text}");
    done.send(()).unwrap();
    let seconds = server.join().unwrap() as f64 / 1e9;
    f64::from(requests) / seconds
}

#[test]
#[ignore = "measures, and needs h2load"]
fn requests_per_second_of_cpu() {
    for (path, requests) in [("/0", 400_000), ("/1024", 200_000), ("/100000", 10_000)] {
        for round in 0..3 {
            let (ours, theirs) = (rate(true, path, requests), rate(false, path, requests));
            println!(
                "GET {path} round {round}: {ours:.0} requests per second of CPU, hyper {theirs:.0}, \
                 {:.2} times",
                ours / theirs
            );
        }
    }
}
