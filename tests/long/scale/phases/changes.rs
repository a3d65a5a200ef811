//! Changes of policy and of endpoints, and how long they take to reach everyone whom they concern.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_core::catalog::Health;
use mesh_core::resource::{EndpointState, ResourceKey};
use mesh_core::revision::Revision;
use serde_json::{Value, json};

use super::{Applied, CHANGE_MAX, Phases};
use crate::long::scale::agent::Agent;
use crate::long::scale::figures::spread;
use crate::long::scale::fleet::{acknowledged, all, service};

/// Times of the changes of one kind.
#[derive(Default)]
struct Times {
    applies: Vec<Duration>,
    /// From sending the change to each acknowledgement.
    acks: Vec<Duration>,
    /// From the commit, which was before its answer, to each acknowledgement.
    after_commit: Vec<Duration>,
    /// From the commit to the last acknowledgement of a change.
    last: Vec<Duration>,
}

impl Times {
    fn add(&mut self, applied: &Applied, acks: &[Instant]) {
        let after = |at: &Instant| at.saturating_duration_since(applied.answered);
        self.applies.push(applied.answered - applied.sent);
        self.acks.extend(acks.iter().map(|at| at.saturating_duration_since(applied.sent)));
        self.after_commit.extend(acks.iter().map(after));
        self.last.extend(acks.iter().map(after).max());
    }

    fn into_json(self) -> Value {
        json!({
            "apply_call": spread(self.applies),
            "sent_to_ack": spread(self.acks),
            "commit_to_ack": spread(self.after_commit),
            "commit_to_last_ack": spread(self.last),
        })
    }
}

impl Phases<'_> {
    /// Policy that concerns every agent, then policy that concerns the hosts of one service.
    pub(super) async fn policy_changes(&mut self) -> Result<(), String> {
        let (mut of_all, mut of_one) = (Times::default(), Times::default());
        for round in 0..self.options.rounds {
            self.policy_change(0..self.options.services, &mut of_all).await?;
            let one = round % self.options.services;
            self.policy_change(one..one + 1, &mut of_one).await?;
        }
        self.figures.insert("policy_of_all_services".to_owned(), of_all.into_json());
        self.figures.insert("policy_of_one_service".to_owned(), of_one.into_json());
        Ok(())
    }

    async fn policy_change(
        &mut self, services: std::ops::Range<usize>, times: &mut Times,
    ) -> Result<(), String> {
        let names: Vec<_> = services.clone().map(|number| service(number, self.options)).collect();
        let hosts = |agent: &&Arc<Agent>| names.contains(&agent.plan.service);
        let hosts: Vec<_> = self.fleet.agents.iter().filter(hosts).cloned().collect();
        self.fleet.forget_acks();
        let applied = self.apply_rules(services).await?;
        let acks = acknowledged(&hosts, applied.revision, self.by(CHANGE_MAX)).await?;
        times.add(&applied, &acks);
        let without = |agent: &&Arc<Agent>| !self.has_rule(agent, &agent.plan.service);
        if let Some(agent) = hosts.iter().find(without) {
            let (node, revision) = (&agent.plan.node, applied.revision);
            return Err(format!("{node} acknowledged {revision} without its rule"));
        }
        Ok(())
    }

    /// The health of an instance changes, and everyone who calls or hosts its service is told.
    pub(super) async fn endpoint_changes(&mut self) -> Result<(), String> {
        let mut times = Vec::new();
        for round in 0..self.options.rounds {
            let agent = self.fleet.agents[round * 7 % self.options.agents].clone();
            for (health, state) in [
                (Health::Critical, EndpointState::Critical),
                (Health::Passing, EndpointState::Healthy),
            ] {
                times.extend(self.health_change(&agent, health, state).await?);
            }
        }
        self.figures.insert("endpoint_change_to_ack".to_owned(), spread(times));
        Ok(())
    }

    async fn health_change(
        &self, changed: &Arc<Agent>, health: Health, state: EndpointState,
    ) -> Result<Vec<Duration>, String> {
        let service = &changed.plan.service;
        let told = self.fleet.wanting(&ResourceKey::Endpoints(service.clone()));
        self.fleet.forget_acks();
        let sent = Instant::now();
        changed.set_health(health);
        // The revision of the resource that tells of it is the same at all of them.
        let revision = |agent: &Agent| -> Option<Revision> {
            let now = agent.live.load();
            let all = now.endpoints.get(service)?;
            let own = all.endpoints.iter().find(|found| found.node == changed.plan.node)?;
            (own.state == state).then_some(all.revision)
        };
        let end = self.by(CHANGE_MAX);
        let what = format!("heard that {} is {state:?}", changed.plan.node);
        let revisions = all(&told, end, &what, revision).await?;
        let revision = revisions.into_iter().min().unwrap_or(Revision::ZERO);
        let acks = acknowledged(&told, revision, end).await?;
        Ok(acks.iter().map(|at| at.saturating_duration_since(sent)).collect())
    }
}
