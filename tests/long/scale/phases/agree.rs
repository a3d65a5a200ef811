//! At the end, with nothing changing: all agents hold the same, and what the servers say is true.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_core::catalog::Liveness;
use mesh_core::name::ServiceName;
use mesh_core::resource::ServiceEndpoints;
use mesh_net::client::ReadOptions;
use mesh_net::telemetry::Chain;

use super::{CHANGE_MAX, Phases};
use crate::long::scale::agent::Agent;
use crate::long::scale::fleet::{acknowledged, service};

const LOOK_EVERY: Duration = Duration::from_millis(200);

impl Phases<'_> {
    /// # Errors
    /// If agents do not get to the state of the servers.
    pub(super) async fn agents_agree(&mut self) -> Result<(), String> {
        self.fleet.forget_acks();
        let applied = self.apply_rules(0..self.options.services).await?;
        acknowledged(&self.fleet.agents, applied.revision, self.by(CHANGE_MAX)).await?;
        let lacking = self.fleet.agents.iter().filter(|agent| !self.is_true(agent)).count();
        if lacking > 0 {
            self.failures.push(format!("{lacking} agents hold what they were not told to"));
        }
        self.endpoints_agree().await?;
        self.servers_know_all().await
    }

    /// Whether an agent holds all it wants, and the rule applied last.
    fn is_true(&self, agent: &Agent) -> bool {
        agent.is_whole() && self.has_rule(agent, &agent.plan.service)
    }

    /// The endpoints of each service are the same at everyone, and those of the servers.
    async fn endpoints_agree(&mut self) -> Result<(), String> {
        let mut found: BTreeMap<ServiceName, Arc<ServiceEndpoints>> = BTreeMap::new();
        let mut differ = Vec::new();
        for agent in &self.fleet.agents {
            for (service, endpoints) in &agent.live.load().endpoints {
                let first = found.entry(service.clone()).or_insert_with(|| endpoints.clone());
                if first != endpoints {
                    differ.push(format!("{} has other endpoints of {service}", agent.plan.node));
                }
            }
        }
        for number in 0..self.options.services {
            let name = service(number, self.options);
            let answer = self.admin.service(&name, ReadOptions::consistent()).await;
            let answer = answer.map_err(|why| format!("no {name}: {}", Chain(&why)))?.value;
            if found.get(&name).is_none_or(|held| held.endpoints != answer.endpoints) {
                differ.push(format!("endpoints of {name} are not those of the servers"));
            }
        }
        self.failures.extend(differ.into_iter().take(super::FAULTS_SHOWN));
        Ok(())
    }

    /// The servers take every agent for connected, in sync and alive.
    async fn servers_know_all(&mut self) -> Result<(), String> {
        let end: Instant = self.by(CHANGE_MAX);
        loop {
            let agents = self.admin.agents(ReadOptions::default()).await;
            let agents = agents.map_err(|why| Chain(&why).to_string())?.value;
            let nodes = self.admin.nodes(ReadOptions::consistent()).await;
            let nodes = nodes.map_err(|why| Chain(&why).to_string())?.value;
            let alive = nodes.iter().filter(|node| node.liveness == Liveness::Alive).count();
            let synced = agents.iter().filter(|agent| {
                agent.connected && agent.error.is_none() && agent.report.applied >= agent.wanted
            });
            let (synced, all) = (synced.count(), self.options.agents);
            if (synced, alive) == (all, all) {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(format!(
                    "servers take {synced} agents for in sync and {alive} for alive, of {all}"
                ));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
