//! What servers ask each other about agents, over the Raft port.

use std::sync::Weak;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use mesh_core::api::AgentStatus;
use mesh_core::name::{NodeName, ServerName};
use mesh_net::pack;
use serde::{Deserialize, Serialize};

use super::agents::AgentReport;
pub(super) use crate::limits::lease::CALL_BYTES_MAX;
use crate::limits::lease::{CALL_AGENTS, CALL_MAX};
use crate::raft::{AppHandler, CallError};
use crate::server::Server;

/// A server's agents, for the leader.
pub(super) const HEARTBEATS: &str = "heartbeats";
/// All agents, of the leader.
const AGENTS: &str = "agents";

/// See [`HEARTBEATS`].
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Heartbeats {
    pub(super) agents: Vec<AgentReport>,
}

/// See [`AGENTS`].
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AgentsAfter {
    after: Option<NodeName>,
}

/// Answers the other servers. Weak, because the server owns the Raft node that holds this.
pub(crate) struct App(pub(crate) Weak<Server>);

impl AppHandler for App {
    fn call<'a>(
        &'a self, _from: ServerName, name: &'a str, body: Bytes,
    ) -> BoxFuture<'a, Result<Bytes, String>> {
        async move {
            let server = self.0.upgrade().ok_or("the server is stopping")?;
            if !server.node.is_leader() {
                return Err("this server does not lead".to_owned());
            }
            match name {
                HEARTBEATS => {
                    let Heartbeats { agents } = read(&body)?;
                    server.agents.merge(agents);
                    Ok(Bytes::new())
                }
                AGENTS => {
                    let AgentsAfter { after } = read(&body)?;
                    page(&server, after.as_ref())
                }
                _ => Err(format!("no call {name:?}")),
            }
        }
        .boxed()
    }
}

/// All agents as the leader knows them, asked of it if that is another server.
///
/// # Errors
/// Why the leader did not answer, for people.
pub(crate) async fn all_agents(server: &Server) -> Result<Vec<AgentStatus>, String> {
    if server.node.is_leader() {
        return Ok(server.agents.all());
    }
    let leader = server.node.leader().ok_or("no leader is known")?;
    let mut all: Vec<AgentStatus> = Vec::new();
    loop {
        let after = AgentsAfter { after: all.last().map(|status| status.node.clone()) };
        let body = pack::to_vec(&after).map_err(|error| error.to_string())?;
        let answer = server.node.call(&leader, AGENTS, body.into(), CALL_MAX).await;
        let answer = answer.map_err(|error: CallError| error.to_string())?;
        let page: Vec<AgentStatus> = read(&answer)?;
        if page.is_empty() || all.len() > mesh_core::limits::NODES_MAX {
            return Ok(all);
        }
        all.extend(page);
    }
}

/// The agents after `after`, as many as fit into an answer; none at the end.
fn page(server: &Server, after: Option<&NodeName>) -> Result<Bytes, String> {
    let mut max = CALL_AGENTS;
    loop {
        let page = server.agents.page(after, max);
        let body = pack::to_vec(&page).map_err(|error| error.to_string())?;
        if body.len() <= CALL_BYTES_MAX || page.len() <= 1 {
            return Ok(body.into());
        }
        max = page.len() / 2;
    }
}

/// Bodies of one call each that hold all of `agents`, in order.
pub(super) fn bodies(mut agents: Vec<AgentReport>) -> Result<Vec<Bytes>, String> {
    let mut bodies = Vec::new();
    while !agents.is_empty() {
        let heartbeats = Heartbeats { agents };
        let body = pack::to_vec(&heartbeats).map_err(|error| error.to_string())?;
        let Heartbeats { agents: mut first } = heartbeats;
        if body.len() <= CALL_BYTES_MAX || first.len() == 1 {
            bodies.push(body.into());
            return Ok(bodies);
        }
        let rest = first.split_off(first.len() / 2);
        bodies.extend(self::bodies(first)?);
        agents = rest;
    }
    Ok(bodies)
}

fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    pack::from_slice(body).map_err(|error| mesh_net::tls::describe(&error))
}
