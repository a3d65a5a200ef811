//! Clients with a certificate of the mesh that are no agents: hyper over rustls.

use bytes::Bytes;
use http::{Request, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::identity::server_name;
use mesh_core::trust::{Revocation, Revoked};
use mesh_net::tls::{Expected, client_config};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::world::{World, service};

/// A connection to n2's `name` that shows a certificate of `who`.
async fn connect(
    world: &World, who: &str, name: &str, alpn: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let source = world.ca.source(&world.ca.service_id(who));
    let expected = Expected::Id(world.ca.service_id(name));
    let config = client_config(Some(source), world.ca.trust(), expected, alpn).unwrap();
    let tcp = TcpStream::connect(world.n2.handle.inbound()).await.unwrap();
    let sni = server_name(&world.ca.trust_domain, &world.ca.datacenter, &service(name));
    TlsConnector::from(config).connect(ServerName::try_from(sni).unwrap(), tcp).await
}

fn get(path: &str, version: Version) -> Request<Full<Bytes>> {
    let target = match version {
        Version::HTTP_2 => format!("https://orders.mesh{path}"),
        _ => path.to_owned(),
    };
    let request = Request::get(target).header("x-mesh-caller", "forged");
    let request = match version {
        Version::HTTP_2 => request,
        _ => request.header("host", "orders.mesh"),
    };
    request.body(Full::default()).unwrap()
}

/// Status and body of a GET, by HTTP/2 or HTTP/1.1.
async fn ask(tls: TlsStream<TcpStream>, path: &str, version: Version) -> (StatusCode, String) {
    let io = TokioIo::new(tls);
    let answer = if version == Version::HTTP_2 {
        let (mut client, driver) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        let driver = tokio::spawn(driver);
        let answer = client.send_request(get(path, version)).await.unwrap();
        let answer = answer.map(BodyExt::collect);
        let (parts, body) = answer.into_parts();
        let body = body.await.unwrap().to_bytes();
        driver.abort();
        (parts, body)
    } else {
        let (mut client, driver) = http1::handshake(io).await.unwrap();
        let driver = tokio::spawn(driver);
        let answer = client.send_request(get(path, version)).await.unwrap();
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        driver.abort();
        (parts, body)
    };
    (answer.0.status, String::from_utf8(answer.1.to_vec()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_clients_pass_the_stages_of_a_call() {
    let world = World::new().await;
    let cases: [(&[&[u8]], Version); 3] =
        [(&[b"h2"], Version::HTTP_2), (&[b"http/1.1"], Version::HTTP_11), (&[], Version::HTTP_11)];
    for (alpn, version) in cases {
        let tls = connect(&world, "web", "orders", alpn).await.unwrap();
        let (status, body) = ask(tls, "/a/./b?x=1", version).await;
        assert_eq!(status, StatusCode::OK, "{version:?}");
        assert!(body.starts_with("orders\nGET /a/b?x=1 HTTP/1.1\r\n"), "{version:?}: {body}");
        assert!(body.contains("/svc/web") && !body.contains("forged"), "{version:?}: {body}");
        let tls = connect(&world, "web", "orders", alpn).await.unwrap();
        let (status, body) = ask(tls, "/a%2fb", version).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{version:?}: {body}");
        let tls = connect(&world, "batch", "orders", alpn).await.unwrap();
        let (status, body) = ask(tls, "/", version).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{version:?}: {body}");
        // a service of TCP takes no HTTP
        let tls = connect(&world, "web", "db", alpn).await.unwrap();
        assert_eq!(ask(tls, "/", version).await.0, StatusCode::BAD_GATEWAY, "{version:?}");
    }
    let refused = connect(&world, "web", "orders", &[b"mesh/2"]).await;
    assert!(refused.is_err(), "an unknown protocol ends the handshake");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_client_that_is_revoked_is_cut_off() {
    let world = World::new().await;
    let tls = connect(&world, "web", "orders", &[b"h2"]).await.unwrap();
    let (mut client, driver) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
    let driver = tokio::spawn(driver);
    assert!(client.send_request(get("/", Version::HTTP_2)).await.is_ok());
    let mut bundle = world.ca.bundle();
    let what = Revoked::Identity(world.ca.service_id("web"));
    let reason = "stolen".to_owned();
    bundle.revoked.push(Revocation { what, at: mesh_net::clock::now(), reason });
    world.n2.identities.trust().update(&bundle).unwrap();
    // what is open is looked at when the snapshot changes
    world.deny("db");
    let ended = tokio::time::timeout(std::time::Duration::from_secs(5), driver).await;
    assert!(ended.is_ok(), "its connection is closed");
    world.stop().await;
}
