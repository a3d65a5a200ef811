//! A simulated agent: an agent's own session, config and registration on real connections, without
//! a proxy and without a disk.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mesh_agent::control::backoff;
use mesh_agent::control::register::{Specs, diff};
use mesh_agent::control::session::{Event, Session};
use mesh_agent::live::{Live, MeshBatch};
use mesh_core::api::{AddressRequest, EnrolRequest, IssueRequest};
use mesh_core::catalog::{Health, InstanceSpec};
use mesh_core::command::HealthChange;
use mesh_core::name::{NodeName, ServiceName};
use mesh_core::resource::{EndpointState, Resource, ResourceKey};
use mesh_core::revision::Revision;
use mesh_core::snapshot::{HostIdentity, ProxySnapshot};
use mesh_core::stream::{Ack1, AgentHello1, HealthReport1, Heartbeat1, Nack1, ToServer};
use mesh_core::time::UnixMillis;
use mesh_core::trust::Bundle;
use mesh_net::client::{Client, ClientBuilder, ReadOptions, StreamReceiver, StreamSender, Trust};
use mesh_net::csr;
use mesh_net::telemetry::Chain;
use mesh_net::tls::{Svid, SvidSource, TrustStore, roots_from_pem};
use mesh_net::token::JoinToken;
use tokio::sync::watch;
use tokio::time::timeout;

/// What an agent is to be.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) node: NodeName,
    pub(super) service: ServiceName,
    pub(super) upstreams: Vec<ServiceName>,
    pub(super) address: AddressRequest,
    /// API addresses; the first is asked first.
    pub(super) servers: Vec<String>,
}

/// An agent that is enrolled.
pub(super) struct Agent {
    pub(super) plan: Plan,
    pub(super) live: Arc<Live>,
    client: Client,
    trust: Arc<TrustStore>,
    wanted: BTreeSet<ResourceKey>,
    health: watch::Sender<Health>,
    seen: Mutex<Seen>,
}

/// What an agent saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The server of the stream that is open.
    pub(super) server: Option<String>,
    /// When the last stream was greeted on.
    pub(super) greeted: Option<Instant>,
    /// Whether its instance is registered, as it last asked, and its service
    /// has a certificate.
    pub(super) registered: bool,
    /// What was put in force and acknowledged, and when.
    pub(super) acks: Vec<(Revision, Instant)>,
    /// What must never happen.
    pub(super) faults: Vec<String>,
    /// Why streams ended.
    pub(super) ends: Vec<String>,
    /// Endpoints that came as gone.
    pub(super) gone: usize,
    /// Endpoints that came as suspect: many fell silent at once.
    pub(super) suspect: usize,
    leaves: BTreeMap<String, UnixMillis>,
}

/// Why a stream, or a registration, came to nothing.
type Ended = String;

fn chained(why: &(impl std::error::Error + 'static)) -> Ended {
    Chain(why).to_string()
}

impl Agent {
    /// Joins the mesh by the text of a token.
    ///
    /// # Errors
    /// Why not; unavailable servers are tried no further.
    pub(super) async fn enrol(plan: Plan, token: &str) -> Result<Arc<Self>, Ended> {
        let token = JoinToken::from_str(token).map_err(|why| chained(&why))?;
        let (key, csr_pem) = csr::generate().map_err(|why| chained(&why))?;
        let pinned = ClientBuilder::new(plan.servers.clone()).trust(Trust::Pin(token.ca));
        let pinned = pinned.build().map_err(|why| chained(&why))?;
        let AddressRequest { address, port } = plan.address;
        let secret = token.secret_hex().to_string();
        let node = plan.node.clone();
        let request =
            EnrolRequest { token: token.id.clone(), secret, node, address, port, csr_pem };
        let answer = pinned.enrol(&request).await.map_err(|why| chained(&why))?;
        let svid = Svid::from_pem(&answer.chain_pem, &key).map_err(|why| chained(&why))?;
        let roots = roots_from_pem(&answer.roots_pem).map_err(|why| chained(&why))?;
        let host = HostIdentity {
            trust_domain: answer.trust_domain.clone(),
            datacenter: answer.datacenter,
            node: plan.node.clone(),
        };
        let bundle = Bundle { trust_domain: answer.trust_domain, roots, revoked: Vec::new() };
        Self::new(plan, host, bundle, svid)
    }

    fn new(plan: Plan, host: HostIdentity, bundle: Bundle, svid: Svid) -> Result<Arc<Self>, Ended> {
        let trust = TrustStore::new(&bundle).map_err(|why| chained(&why))?;
        let leaves = BTreeMap::from([(svid.id.to_string(), svid.not_after)]);
        let client = ClientBuilder::new(plan.servers.clone())
            .trust(Trust::Store(trust.clone()))
            .identity(SvidSource::new(svid))
            .build()
            .map_err(|why| chained(&why))?;
        let hosted = [(&plan.service, plan.upstreams.as_slice())];
        Ok(Arc::new(Self {
            wanted: ProxySnapshot::wanted(hosted).into_iter().collect(),
            live: Live::new(ProxySnapshot::empty(host, bundle)),
            client,
            trust,
            health: watch::Sender::new(Health::Passing),
            seen: Mutex::new(Seen { leaves, ..Seen::default() }),
            plan,
        }))
    }

    /// What it saw so far.
    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the health of its instance.
    pub(super) fn set_health(&self, health: Health) {
        self.health.send_replace(health);
    }

    /// Whether it holds everything it wants, and is registered.
    pub(super) fn is_whole(&self) -> bool {
        let held = self.live.load().held();
        self.seen().registered && self.wanted.iter().all(|key| held.contains_key(key))
    }

    /// Whether it subscribes to `key`.
    pub(super) fn wants(&self, key: &ResourceKey) -> bool {
        self.wanted.contains(key)
    }

    /// How it fares, for whoever must find out why.
    pub(super) fn describe(&self) -> String {
        let (seen, held) = (self.seen(), self.live.load().held());
        let missing = self.wanted.iter().filter(|key| !held.contains_key(key)).count();
        format!(
            "{}: server {:?}, registered {}, revision {}, {missing} resources missing, ended by {:?}",
            self.plan.node,
            seen.server,
            seen.registered,
            self.live.load().revision,
            seen.ends.last(),
        )
    }

    /// Keeps a stream to some server, as the agent does, until dropped.
    pub(super) async fn run(self: Arc<Self>) {
        let mut attempt: u32 = 0;
        loop {
            let before = self.seen().greeted;
            let Err(why) = self.converse().await;
            let greeted = {
                let mut seen = self.seen();
                seen.server = None;
                seen.ends.push(why);
                seen.greeted != before
            };
            self.client.prefer_next();
            attempt = if greeted { 1 } else { attempt.saturating_add(1) };
            tokio::time::sleep(backoff::wait_before(attempt, backoff::random_permille())).await;
        }
    }

    /// Opens a stream and serves it until it ends.
    async fn converse(&self) -> Result<std::convert::Infallible, Ended> {
        let opened = timeout(OPEN, self.client.stream(self.hello())).await;
        let opened = opened.map_err(|_| "not opened in time".to_owned())?;
        let (sender, mut receiver) = opened.map_err(|why| chained(&why))?;
        let mut session = Session::default();
        let first = timeout(OPEN, self.next(&mut session, &mut receiver)).await;
        let Event::Hello(hello) = first.map_err(|_| "not greeted in time".to_owned())?? else {
            return Err("server did not greet".to_owned());
        };
        {
            let mut seen = self.seen();
            seen.server = Some(receiver.server().to_owned());
            seen.greeted = Some(Instant::now());
        }
        let mut heartbeat = tokio::time::interval(Duration::from_millis(hello.heartbeat_ms));
        let mut health = self.health.subscribe();
        let registering = self.register();
        tokio::pin!(registering);
        let mut registered = false;
        loop {
            // Cancel safe: `next` keeps what it has, the others take nothing or are pinned.
            tokio::select! {
                event = self.next(&mut session, &mut receiver) => match event? {
                    Event::Batch(batch) => self.apply(&sender, &batch).await?,
                    Event::Servers(_) => {}
                    Event::Goodbye(reason) => return Err(format!("goodbye: {reason}")),
                    Event::Hello(_) => return Err("a second hello".to_owned()),
                },
                _ = heartbeat.tick() => {
                    let (applied, leaves) = (self.live.load().revision, self.seen().leaves.clone());
                    let beat = Heartbeat1 { applied, leaves, ..Heartbeat1::default() };
                    send(&sender, ToServer::Heartbeat(beat)).await?;
                }
                Ok(()) = health.changed() => {
                    let health = *health.borrow_and_update();
                    let change = HealthChange { health, checks: BTreeMap::new() };
                    let changes = BTreeMap::from([(self.spec().id, change)]);
                    send(&sender, ToServer::Health(HealthReport1 { changes })).await?;
                }
                () = &mut registering, if !registered => registered = true,
            }
        }
    }

    fn hello(&self) -> AgentHello1 {
        let now = self.live.load();
        let held = now.held();
        let revision = |key: &ResourceKey| held.get(key).copied().unwrap_or(Revision::ZERO);
        AgentHello1 {
            node: self.plan.node.clone(),
            generation: 1,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            applied: now.revision,
            subscriptions: self.wanted.iter().map(|key| (key.clone(), revision(key))).collect(),
        }
    }

    async fn next(
        &self, session: &mut Session, receiver: &mut StreamReceiver,
    ) -> Result<Event, Ended> {
        loop {
            let message = receiver.recv().await.map_err(|why| chained(&why))?;
            let message = message.ok_or_else(|| "server ended the stream".to_owned())?;
            let taken = session.take(message).inspect_err(|why| self.fault(why.to_string()));
            if let Some(event) = taken.map_err(|why| why.to_string())? {
                return Ok(event);
            }
        }
    }

    /// Puts a batch in force and acknowledges it. What is refused is a fault: servers must not
    /// send it.
    async fn apply(&self, sender: &StreamSender, batch: &MeshBatch) -> Result<(), Ended> {
        self.inspect(batch);
        let revision = batch.revision;
        if let Err(why) = self.live.publish_mesh(batch, &self.wanted) {
            self.fault(why.to_string());
            let error = why.to_string();
            return send(sender, ToServer::Nack(Nack1 { revision, error })).await;
        }
        let sent = send(sender, ToServer::Ack(Ack1 { revision })).await;
        self.seen().acks.push((revision, Instant::now()));
        sent
    }

    /// Looks for what a batch must not hold.
    fn inspect(&self, batch: &MeshBatch) {
        let held = self.live.load().held();
        for resource in &batch.resources {
            let (key, revision) = (resource.key(), revision_of(resource));
            if !self.wanted.contains(&key) {
                self.fault(format!("{key:?} was not subscribed to"));
            }
            let before = held.get(&key).copied().filter(|_| !batch.full);
            if let (Some(before), Some(revision)) = (before, revision)
                && revision < before
            {
                self.fault(format!("{key:?} fell from {before} to {revision}"));
            }
            if let Resource::Bundle(bundle) = resource
                && let Err(why) = self.trust.update(bundle)
            {
                self.fault(chained(&why));
            }
            if let Resource::Endpoints(of) = resource {
                let count = |state| of.endpoints.iter().filter(|one| one.state == state).count();
                let mut seen = self.seen();
                seen.gone += count(EndpointState::Gone);
                seen.suspect += count(EndpointState::Suspect);
            }
        }
    }

    fn fault(&self, what: String) {
        self.seen().faults.push(format!("{}: {what}", self.plan.node));
    }

    fn spec(&self) -> InstanceSpec {
        InstanceSpec {
            #[expect(clippy::expect_used, reason = "a name made here")]
            id: format!("{}-1", self.plan.service).parse().expect("an instance's name"),
            service: self.plan.service.clone(),
            port: 8080,
            meta: BTreeMap::new(),
            upstreams: self.plan.upstreams.clone(),
            health: Health::Passing,
            checks: BTreeMap::new(),
        }
    }

    /// Compares what it hosts with what the servers know, as after each new stream, and gets the
    /// certificate of its service at the first time.
    async fn register(&self) {
        let mut attempt = 0;
        while let Err(why) = self.try_register().await {
            attempt += 1;
            self.seen().ends.push(format!("registration: {why}"));
            tokio::time::sleep(backoff::wait_before(attempt, backoff::random_permille())).await;
        }
        self.seen().registered = true;
    }

    async fn try_register(&self) -> Result<(), Ended> {
        // The node's own comes with its enrolment.
        let first = self.seen().leaves.len() < 2;
        if first {
            self.client.set_address(&self.plan.address).await.map_err(|why| chained(&why))?;
        }
        let known = self.client.own_instances(ReadOptions::consistent()).await;
        let known = known.map_err(|why| chained(&why))?.value;
        let known: Specs = known.into_iter().map(|i| (i.spec.id.clone(), i.spec)).collect();
        let spec = self.spec();
        let request = diff(&Specs::from([(spec.id.clone(), spec)]), &known);
        if !request.upsert.is_empty() || !request.remove.is_empty() {
            self.client.sync_instances(&request).await.map_err(|why| chained(&why))?;
        }
        if first {
            let (key, csr_pem) = csr::generate().map_err(|why| chained(&why))?;
            let request = IssueRequest { service: self.plan.service.clone(), csr_pem };
            let answer = self.client.issue(&request).await.map_err(|why| chained(&why))?;
            let svid = Svid::from_pem(&answer.chain_pem, &key).map_err(|why| chained(&why))?;
            self.seen().leaves.insert(svid.id.to_string(), svid.not_after);
        }
        Ok(())
    }
}

/// An address for the agents: nobody dials them.
pub(super) fn address(ip: IpAddr) -> AddressRequest {
    AddressRequest { address: ip, port: 7443 }
}

async fn send(sender: &StreamSender, message: ToServer) -> Result<(), Ended> {
    let sent = timeout(SEND, sender.send(&message)).await;
    sent.map_err(|_| "not sent in time".to_owned())?.map_err(|why| chained(&why))
}

/// The revision that a resource carries; the bundle carries none.
fn revision_of(resource: &Resource) -> Option<Revision> {
    match resource {
        Resource::Bundle(_) => None,
        Resource::Routes(routes) => Some(routes.revision),
        Resource::Endpoints(endpoints) => Some(endpoints.revision),
        Resource::Access(access) => Some(access.revision),
    }
}

const OPEN: Duration = Duration::from_secs(15);
const SEND: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use mesh_core::resource::{Endpoint, ServiceEndpoints};
    use mesh_net::testing::TestCa;

    use super::*;

    fn agent() -> Arc<Agent> {
        let ca = TestCa::new("td");
        let node: NodeName = "n-1".parse().unwrap();
        let plan = Plan {
            node: node.clone(),
            service: "s-1".parse().unwrap(),
            upstreams: Vec::new(),
            address: address([10, 0, 0, 1].into()),
            servers: vec!["ctl-1:7300".to_owned()],
        };
        let datacenter = "dc1".parse().unwrap();
        let host = HostIdentity { trust_domain: ca.trust_domain.clone(), datacenter, node };
        Agent::new(plan, host, ca.bundle(), ca.svid(&ca.node_id("n-1"))).unwrap()
    }

    fn batch(index: u64, service: &str, state: EndpointState) -> MeshBatch {
        let endpoint = Endpoint {
            instance: "i-1".parse().unwrap(),
            node: "n-2".parse().unwrap(),
            address: ([10, 0, 0, 2], 7443).into(),
            subsets: Vec::new(),
            state,
        };
        let (service, revision) = (service.parse().unwrap(), Revision::new(1, index));
        let endpoints = ServiceEndpoints { service, revision, endpoints: vec![endpoint] };
        MeshBatch { revision, full: false, resources: vec![Resource::Endpoints(endpoints)] }
    }

    #[test]
    fn what_servers_must_not_send_is_a_fault() {
        let agent = agent();
        let faults = |batch: &MeshBatch| {
            agent.inspect(batch);
            let refused = agent.live.publish_mesh(batch, &agent.wanted).is_err();
            (std::mem::take(&mut agent.seen().faults), refused)
        };
        let healthy = EndpointState::Healthy;
        assert_eq!(faults(&batch(5, "s-1", healthy)), (Vec::new(), false));
        assert_eq!(faults(&batch(5, "s-1", healthy)), (Vec::new(), false));
        let (other, _) = faults(&batch(6, "s-2", healthy));
        assert!(other[0].contains("not subscribed to"), "{other:?}");
        let mut late = batch(4, "s-1", healthy);
        late.revision = Revision::new(1, 7);
        let (fell, refused) = faults(&late);
        assert!(fell[0].contains("fell from 1.5 to 1.4") && !refused, "{fell:?}");
        let (_, refused) = faults(&batch(3, "s-1", healthy));
        assert!(refused, "an older batch is put in force");
    }

    #[test]
    fn endpoints_that_lapsed_are_counted() {
        let agent = agent();
        agent.inspect(&batch(1, "s-1", EndpointState::Critical));
        agent.inspect(&batch(2, "s-1", EndpointState::Suspect));
        let counts = |agent: &Agent| {
            let seen = agent.seen();
            (seen.gone, seen.suspect)
        };
        assert_eq!(counts(&agent), (0, 1));
        agent.inspect(&batch(3, "s-1", EndpointState::Gone));
        assert_eq!(counts(&agent), (1, 1));
    }
}
