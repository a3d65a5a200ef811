//! A control server that knows only what these tests need.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Channel, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::api::{
    AddressRequest, ApiError, EnrolAnswer, EnrolRequest, IssueRequest, LeafAnswer, Ready,
    RenewRequest, SyncRequest, Written,
};
use mesh_core::catalog::{Instance, InstanceSpec};
use mesh_core::identity::{CaRole, SpiffeId};
use mesh_core::name::InstanceId;
use mesh_core::resource::{Resource, ResourceKey, ServiceEndpoints};
use mesh_core::revision::Revision;
use mesh_core::stream::{Batch1, Heartbeat1, ServerHello1, ToAgent, ToServer};
use mesh_core::time::UnixMillis;
use mesh_net::stream::{FrameReader, encode};
use mesh_net::testing::TestCa;
use mesh_net::tls::{ClientAuth, Resolver, peer_identity, server_config};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// The service that no node may host here.
pub(super) const FORBIDDEN: &str = "secret";

/// What the server was told, and how it answers.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) token_error: Option<String>,
    pub(super) keys: BTreeSet<String>,
    pub(super) registered: BTreeMap<InstanceId, InstanceSpec>,
    pub(super) address: Option<AddressRequest>,
    pub(super) hellos: Vec<(u64, Revision)>,
    pub(super) subscribed: BTreeSet<ResourceKey>,
    pub(super) acked: Option<Revision>,
    pub(super) health: BTreeMap<InstanceId, mesh_core::command::HealthChange>,
    pub(super) beat: Option<Heartbeat1>,
    pub(super) issued: u32,
}

pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) ca: Arc<TestCa>,
    pub(super) seen: Arc<Mutex<Seen>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) const REVISION: Revision = Revision { epoch: 1, index: 7 };

impl Server {
    pub(super) async fn start(ca: Arc<TestCa>) -> Self {
        Self::start_at(ca, "127.0.0.1:0".parse().unwrap()).await
    }

    pub(super) async fn start_at(ca: Arc<TestCa>, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let identity = Resolver::One(ca.source(&ca.server_id("ctl-1")));
        let auth = ClientAuth::Optional { roles: &[CaRole::Node], allow_expired: true };
        let config = server_config(identity, ca.trust(), auth, &[b"h2"]).unwrap();
        let acceptor = TlsAcceptor::from(config);
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let world = World { ca: ca.clone(), seen: seen.clone(), address: address.to_string() };
        let task = tokio::spawn(async move {
            // Dropped with the server: its connections end with it.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, world) = (acceptor.clone(), world.clone());
                connections.spawn(async move {
                    let Ok(tls) = acceptor.accept(stream).await else { return };
                    let peer = peer_identity(tls.get_ref().1.peer_certificates()).unwrap();
                    let expired = peer.is_some_and(|peer| peer.expired);
                    let service = service_fn(move |request| {
                        let world = world.clone();
                        async move { Ok::<_, Infallible>(world.answer(request, expired).await) }
                    });
                    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(tls), service)
                        .await;
                });
            }
        });
        Self { address, ca, seen, task }
    }
}

#[derive(Clone)]
struct World {
    ca: Arc<TestCa>,
    seen: Arc<Mutex<Seen>>,
    address: String,
}

type Body = BoxBody<Bytes, Infallible>;

impl World {
    async fn answer(&self, request: Request<Incoming>, expired: bool) -> Response<Body> {
        let path = request.uri().path().to_owned();
        if expired && path != "/v1/renew" && path != "/v1/ready" {
            return error(StatusCode::FORBIDDEN, "expired", "certificate has expired: renew it");
        }
        if path == "/v1/stream" {
            return self.stream(request);
        }
        let get = request.method() == http::Method::GET;
        let body = request.into_body().collect().await.unwrap().to_bytes();
        match (path.as_str(), get) {
            ("/v1/ready", _) => json(&Ready { ready: true, reason: None }),
            ("/v1/enrol", _) => self.enrol(&serde_json::from_slice(&body).unwrap()),
            ("/v1/renew", _) => {
                let asked: RenewRequest = serde_json::from_slice(&body).unwrap();
                json(&self.leaf(&asked.csr_pem, self.ca.node_id("web-7")))
            }
            ("/v1/issue", _) => self.issue(&serde_json::from_slice(&body).unwrap()),
            ("/v1/node/address", _) => {
                self.seen.lock().unwrap().address = Some(serde_json::from_slice(&body).unwrap());
                written()
            }
            ("/v1/node/instances", true) => {
                let node: mesh_core::name::NodeName = "web-7".parse().unwrap();
                let registered = self.seen.lock().unwrap().registered.clone();
                let known = registered.into_values().map(|spec| Instance {
                    node: node.clone(),
                    spec,
                    modified: REVISION,
                });
                json(&known.collect::<Vec<_>>())
            }
            ("/v1/node/instances", false) => self.sync(serde_json::from_slice(&body).unwrap()),
            _ => error(StatusCode::NOT_FOUND, "not_found", &path),
        }
    }

    fn enrol(&self, asked: &EnrolRequest) -> Response<Body> {
        let mut seen = self.seen.lock().unwrap();
        if let Some(why) = &seen.token_error {
            return error(StatusCode::FORBIDDEN, "token_used", why);
        }
        seen.keys.insert(asked.csr_pem.clone());
        json(&EnrolAnswer {
            chain_pem: self.ca.sign_csr(&asked.csr_pem, &self.ca.node_id(asked.node.as_str())),
            roots_pem: self.ca.root_pem(),
            trust_domain: self.ca.trust_domain.clone(),
            datacenter: self.ca.datacenter.clone(),
            servers: vec![self.address.clone()],
            revision: REVISION,
        })
    }

    fn leaf(&self, csr_pem: &str, id: SpiffeId) -> LeafAnswer {
        let chain_pem = self.ca.sign_csr(csr_pem, &id);
        let expires_at = UnixMillis(0);
        LeafAnswer { id, chain_pem, roots_pem: self.ca.root_pem(), expires_at }
    }

    fn issue(&self, asked: &IssueRequest) -> Response<Body> {
        let mut seen = self.seen.lock().unwrap();
        if !seen.registered.values().any(|spec| spec.service == asked.service) {
            return error(StatusCode::FORBIDDEN, "not_hosted", "the node does not host it");
        }
        seen.issued += 1;
        let id = self.ca.service_id(asked.service.as_str());
        drop(seen);
        json(&self.leaf(&asked.csr_pem, id))
    }

    fn sync(&self, asked: SyncRequest) -> Response<Body> {
        if asked.upsert.iter().any(|spec| spec.service.as_str() == FORBIDDEN) {
            return error(StatusCode::FORBIDDEN, "node_policy", "the node may not host secret");
        }
        let mut seen = self.seen.lock().unwrap();
        asked.remove.iter().for_each(|id| drop(seen.registered.remove(id)));
        seen.registered.extend(asked.upsert.into_iter().map(|spec| (spec.id.clone(), spec)));
        written()
    }

    fn stream(&self, request: Request<Incoming>) -> Response<Body> {
        let (mut sender, body) = Channel::<Bytes>::new(16);
        let world = self.clone();
        tokio::spawn(async move {
            let mut incoming = request.into_body();
            let mut reader = FrameReader::<ToServer>::new();
            while let Some(Ok(frame)) = incoming.frame().await {
                reader.push(frame.into_data().unwrap_or_default());
                while let Ok(Some(message)) = reader.next() {
                    for answer in world.told(message) {
                        if sender.send_data(encode(&answer).unwrap()).await.is_err() {
                            return;
                        }
                    }
                }
            }
        });
        Response::new(body.boxed())
    }

    fn told(&self, message: ToServer) -> Vec<ToAgent> {
        let mut seen = self.seen.lock().unwrap();
        match message {
            ToServer::Hello(hello) => {
                seen.hellos.push((hello.generation, hello.applied));
                let keys: Vec<_> = hello.subscriptions.into_iter().map(|(key, _)| key).collect();
                seen.subscribed.extend(keys.iter().cloned());
                let greeting = ToAgent::Hello(ServerHello1 {
                    server: "ctl-1".parse().unwrap(),
                    revision: REVISION,
                    heartbeat_ms: 100,
                    lease_ms: 1_000,
                    servers: vec![self.address.clone()],
                });
                std::iter::once(greeting).chain(self.batch(&keys)).collect()
            }
            ToServer::Subscribe(change) => {
                seen.subscribed.extend(change.add.iter().cloned());
                self.batch(&change.add)
            }
            ToServer::Ack(ack) => {
                seen.acked = Some(ack.revision);
                vec![]
            }
            ToServer::Nack(nack) => panic!("agent refused: {nack:?}"),
            ToServer::Heartbeat(beat) => {
                seen.beat = Some(beat);
                vec![]
            }
            ToServer::Health(report) => {
                seen.health.extend(report.changes);
                vec![]
            }
        }
    }

    fn batch(&self, keys: &[ResourceKey]) -> Vec<ToAgent> {
        let resource = |key: &ResourceKey| match key {
            ResourceKey::Bundle => Some(Resource::Bundle(self.ca.bundle())),
            ResourceKey::Endpoints(service) => {
                let (service, endpoints) = (service.clone(), vec![]);
                let revision = REVISION;
                Some(Resource::Endpoints(ServiceEndpoints { service, revision, endpoints }))
            }
            ResourceKey::Routes(_) | ResourceKey::Access(_) => None,
        };
        let found: Vec<Resource> = keys.iter().filter_map(resource).collect();
        let resources = found.len() as u32;
        let head = ToAgent::Batch(Batch1 { revision: REVISION, full: false, resources });
        std::iter::once(head).chain(found.into_iter().map(ToAgent::Resource)).collect()
    }
}

fn written() -> Response<Body> {
    json(&Written { revision: REVISION })
}

fn json(value: &impl serde::Serialize) -> Response<Body> {
    let body = Full::new(Bytes::from(serde_json::to_vec(value).unwrap())).boxed();
    let builder = Response::builder().header("content-type", "application/json");
    builder.header(mesh_core::api::REVISION_HEADER, REVISION.to_string()).body(body).unwrap()
}

fn error(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let (code, message) = (code.to_owned(), message.to_owned());
    let mut response = json(&ApiError { code, message, field: None, request_id: None });
    *response.status_mut() = status;
    response
}
