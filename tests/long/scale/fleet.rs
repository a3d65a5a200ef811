//! The agents together: which are there, and waiting for all of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use mesh_core::api::{CreateTokenRequest, TokenPurpose};
use mesh_core::catalog::NodePolicy;
use mesh_core::name::ServiceName;
use mesh_core::resource::ResourceKey;
use mesh_core::revision::Revision;
use mesh_net::client::Client;
use mesh_net::telemetry::Chain;
use tokio::task::JoinSet;

use super::agent::{Agent, Plan, address};
use super::{Options, UPSTREAMS};

/// Agents that join at once.
const JOINING_AT_ONCE: usize = 32;
const TOKENS_AT_ONCE: usize = 16;
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The agents, each with its task.
#[derive(Default)]
pub(super) struct Fleet {
    pub(super) agents: Vec<Arc<Agent>>,
    tasks: JoinSet<()>,
}

/// The name of a service by its number.
pub(super) fn service(number: usize, options: &Options) -> ServiceName {
    let name = format!("s-{}", number % options.services);
    name.parse().expect("a service's name")
}

/// What each agent is to be: they host the services in turn, and ask the servers in turn first.
pub(super) fn plans(options: &Options, ip: IpAddr, servers: &[String]) -> Vec<Plan> {
    let plan = |number: usize| {
        let mut servers = servers.to_vec();
        servers.rotate_left(number % options.servers);
        let upstreams = 1..=UPSTREAMS.min(options.services - 1);
        Plan {
            node: format!("n-{number}").parse().expect("a node's name"),
            service: service(number, options),
            upstreams: upstreams.map(|next| service(number + next, options)).collect(),
            address: address(ip),
            servers,
        }
    };
    (0..options.agents).map(plan).collect()
}

/// A join token for each plan.
pub(super) async fn tokens(admin: &Client, plans: &[Plan]) -> Result<Vec<String>, String> {
    let token = async |plan: &Plan| {
        let services = vec![plan.service.as_str().parse().expect("a service's name")];
        let name = Some(plan.node.clone());
        let purpose = TokenPurpose::Node { name, policy: NodePolicy { services } };
        let request = CreateTokenRequest { purpose, ttl_seconds: 3600, note: String::new() };
        let answer = admin.create_token(&request).await;
        answer.map(|answer| answer.token).map_err(|why| format!("no token: {}", Chain(&why)))
    };
    let all = stream::iter(plans).map(token).buffered(TOKENS_AT_ONCE);
    all.collect::<Vec<_>>().await.into_iter().collect()
}

impl Fleet {
    /// Lets every agent join, and starts each as soon as it has; how long each joining took.
    pub(super) async fn join(
        &mut self, plans: Vec<Plan>, tokens: Vec<String>,
    ) -> Result<Vec<Duration>, String> {
        let enrol = async |(plan, token): (Plan, String)| {
            let began = Instant::now();
            let node = plan.node.clone();
            let agent = Agent::enrol(plan, &token).await;
            agent.map(|agent| (agent, began.elapsed())).map_err(|why| format!("{node}: {why}"))
        };
        let joining = stream::iter(plans.into_iter().zip(tokens));
        let mut joining = std::pin::pin!(joining.map(enrol).buffer_unordered(JOINING_AT_ONCE));
        let mut times = Vec::new();
        while let Some(joined) = joining.next().await {
            let (agent, took) = joined?;
            times.push(took);
            self.tasks.spawn(agent.clone().run());
            self.agents.push(agent);
        }
        Ok(times)
    }

    /// The agents that want `key`.
    pub(super) fn wanting(&self, key: &ResourceKey) -> Vec<Arc<Agent>> {
        self.agents.iter().filter(|agent| agent.wants(key)).cloned().collect()
    }

    /// How many streams each server has open.
    pub(super) fn streams(&self) -> BTreeMap<String, usize> {
        let mut streams = BTreeMap::new();
        for server in self.agents.iter().filter_map(|agent| agent.seen().server.clone()) {
            *streams.entry(server).or_default() += 1;
        }
        streams
    }

    /// Forgets what was acknowledged so far.
    pub(super) fn forget_acks(&self) {
        self.agents.iter().for_each(|agent| agent.seen().acks.clear());
    }
}

/// When each of `agents` acknowledged `revision` or a later one, once all have.
///
/// # Errors
/// At `end`, who has not.
pub(super) async fn acknowledged(
    agents: &[Arc<Agent>], revision: Revision, end: Instant,
) -> Result<Vec<Instant>, String> {
    let first = |agent: &Agent| {
        let seen = agent.seen();
        seen.acks.iter().find(|(acked, _)| *acked >= revision).map(|(_, at)| *at)
    };
    all(agents, end, &format!("acknowledged {revision}"), first).await
}

/// What `look` finds at each of `agents`, once it finds something at all of them.
///
/// # Errors
/// At `end`, where it did not.
pub(super) async fn all<T>(
    agents: &[Arc<Agent>], end: Instant, what: &str, look: impl Fn(&Agent) -> Option<T>,
) -> Result<Vec<T>, String> {
    let mut found: Vec<Option<T>> = agents.iter().map(|_| None).collect();
    loop {
        let mut missing = Vec::new();
        for (agent, found) in agents.iter().zip(&mut found) {
            if found.is_none() {
                *found = look(agent);
            }
            if found.is_none() {
                missing.push(agent);
            }
        }
        if missing.is_empty() {
            return Ok(found.into_iter().flatten().collect());
        }
        if Instant::now() >= end {
            let count = missing.len();
            let first = missing.first().map(|agent| agent.describe()).unwrap_or_default();
            return Err(format!("{count} of {} agents have not {what}; {first}", agents.len()));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
