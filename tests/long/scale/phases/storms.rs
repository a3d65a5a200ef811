//! Servers die, and their agents come back all at once.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{CHANGE_MAX, Phases};
use crate::long::scale::agent::Agent;
use crate::long::scale::figures::{millis, spread};
use crate::long::scale::fleet::{acknowledged, all};

/// Longest time to wait for agents to come back: longer than their longest pause.
const BACK_MAX: Duration = Duration::from_secs(90);
const TRY_EVERY: Duration = Duration::from_millis(50);

impl Phases<'_> {
    /// The leader is killed, with its share of the agents; it stays away until all are back.
    pub(super) async fn leader_dies(&mut self) -> Result<(), String> {
        let leader = self.mesh.leader();
        let api = self.mesh.server(&leader).api();
        let streams = self.fleet.streams().get(&api).copied().unwrap_or(0);
        let killed = Instant::now();
        self.forget_streams_of(&api);
        self.mesh.server_mut(&leader).kill();
        let (written, synced) = self.until_in_sync(killed).await?;
        let back = self.back_after(killed).await?;
        let figure = json!({
            "its_agents": streams,
            "agents_back": spread(back),
            "written_again_ms": millis(written),
            "all_in_sync_ms": millis(synced),
        });
        self.figures.insert("leader_killed".to_owned(), figure);
        self.mesh.start_server(&leader);
        self.mesh.wait_same_state();
        Ok(())
    }

    /// All servers are killed at once and, after a while, started again.
    pub(super) async fn all_servers_die(&mut self) -> Result<(), String> {
        let names = self.mesh.server_names();
        for name in &names {
            self.forget_streams_of(&self.mesh.server(name).api());
        }
        let killed = Instant::now();
        for name in &names {
            self.mesh.server_mut(name).kill();
        }
        tokio::time::sleep(self.options.away).await;
        for name in &names {
            self.mesh.server_mut(name).start();
        }
        for name in &names {
            self.mesh.wait_server(name);
        }
        let ready = killed.elapsed();
        let (written, synced) = self.until_in_sync(killed).await?;
        let back = self.back_after(killed).await?;
        let used = self.usage().iter().map(|usage| usage.cpu).sum::<Duration>();
        let figure = json!({
            "servers_ready_ms": millis(ready),
            "agents_back": spread(back),
            "written_again_ms": millis(written),
            "all_in_sync_ms": millis(synced),
            "servers_cpu_ms_per_agent": self.each(used.as_secs_f64() * 1e3),
            "streams": self.fleet.streams(),
        });
        self.figures.insert("all_servers_killed".to_owned(), figure);
        Ok(())
    }

    /// Agents whose stream is to `api` count as away until they are greeted again.
    fn forget_streams_of(&self, api: &str) {
        for agent in &self.fleet.agents {
            let mut seen = agent.seen();
            if seen.server.as_deref() == Some(api) {
                (seen.greeted, seen.registered) = (None, false);
            }
        }
    }

    /// How long after `killed` each agent that was away was greeted; all have compared their
    /// registration too.
    async fn back_after(&self, killed: Instant) -> Result<Vec<Duration>, String> {
        let greeted = |agent: &Agent| {
            let seen = agent.seen();
            seen.greeted.filter(|_| seen.server.is_some() && seen.registered)
        };
        let back = all(&self.fleet.agents, self.by(BACK_MAX), "come back", greeted).await?;
        let after = |at: Instant| at.checked_duration_since(killed);
        Ok(back.into_iter().filter_map(after).collect())
    }

    /// Tries to change policy until that works, and waits until every agent has it; both since
    /// `killed`.
    async fn until_in_sync(&mut self, killed: Instant) -> Result<(Duration, Duration), String> {
        self.fleet.forget_acks();
        let end = self.by(CHANGE_MAX);
        let applied = loop {
            match self.apply_rules(0..self.options.services).await {
                Ok(applied) => break applied,
                Err(why) if Instant::now() >= end => return Err(why),
                Err(_) => tokio::time::sleep(TRY_EVERY).await,
            }
        };
        let end = self.by(BACK_MAX);
        let acks = acknowledged(&self.fleet.agents, applied.revision, end).await?;
        let last = acks.into_iter().max().unwrap_or(applied.answered);
        Ok((applied.answered - killed, last - killed))
    }
}
