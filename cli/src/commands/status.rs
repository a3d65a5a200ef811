//! `status` and `wait`.

use mesh_core::api::{AgentStatus, ServerInfo};
use mesh_core::name::ServerName;
use mesh_core::revision::Revision;
use mesh_net::client::{Client, ReadOptions};
use mesh_net::clock::now;
use tokio::time::{Instant, sleep};

use crate::args::WaitArgs;
use crate::context::{Context, Credentials};
use crate::error::{CliError, count};
use crate::limits::commands::{NAMES_SHOWN, STATUS_ANSWER, STATUS_POLL};
use crate::output::note;
use crate::render::{self, Asked};

/// Whether the mesh is well; what is wrong makes exit code 1.
pub(super) async fn status(context: &Context) -> Result<(), CliError> {
    let credentials = context.credentials()?;
    let client = credentials.client(context.addresses())?;
    let status = client.status().await?.value;
    // Without a leader only stale reads are answered, and that is when status matters.
    let (read, heard) = match status.leader {
        Some(_) => (context.read(), ReadOptions::default()),
        None => (ReadOptions::stale(), ReadOptions::stale()),
    };
    let servers = each(&credentials, client.servers(read).await?.value).await?;
    let agents = client.agents(heard).await?.value;
    let nodes = client.nodes(read).await?.value;
    let mut instances = Vec::new();
    for agent in agents.iter().filter(|agent| !agent.report.exposed.is_empty()) {
        // A node may be gone by now; what it exposed is said without its service then.
        let node = client.node(&agent.node, read).await;
        instances.extend(node.map(|answer| answer.value.instances).unwrap_or_default());
    }
    let now = now();
    let said = render::Said { status, servers, agents, nodes, instances };
    let health = render::judge(said, now);
    context.output.show(&health, || render::status(&health, now))?;
    if health.ok { Ok(()) } else { Err(CliError::No) }
}

/// Asks every server itself, all at once: what one says of the others may be old.
async fn each(with: &Credentials, servers: Vec<ServerInfo>) -> Result<Vec<Asked>, CliError> {
    let asked = servers.into_iter().map(async |info| {
        let own = with.client(vec![info.api_address.clone()])?.with_timeout(STATUS_ANSWER);
        let status = own.status().await;
        let status = status.map(|answer| answer.value).map_err(|why| why.to_string());
        Ok::<_, CliError>(Asked::new(info, status))
    });
    futures_util::future::try_join_all(asked).await
}

/// Waits until every connected agent has a revision.
pub(super) async fn wait(context: &Context, args: WaitArgs) -> Result<(), CliError> {
    let client = context.client()?;
    let wanted = match args.revision {
        Some(revision) => revision,
        None => client.status().await?.value.revision,
    };
    let until = Instant::now() + args.limit;
    let mut said = String::new();
    loop {
        let waiting = laggards(&client, wanted).await?;
        let text = waiting.text(wanted);
        if let Waiting::Agents { connected, names } = &waiting
            && names.is_empty()
        {
            let value = serde_json::json!({ "revision": wanted, "agents": connected });
            return context.output.show(&value, || text);
        }
        if Instant::now() >= until {
            return Err(CliError::Refused(format!("{text}, after {:?}", args.limit)));
        }
        if said != text {
            note(&text);
            said = text;
        }
        sleep(STATUS_POLL).await;
    }
}

/// Who is not there yet.
enum Waiting {
    /// The server asked, at this revision itself.
    Server { name: ServerName, at: Revision },
    /// These of so many connected agents; none is left when the waiting is over.
    Agents { connected: usize, names: Vec<String> },
}

impl Waiting {
    fn text(&self, wanted: Revision) -> String {
        let (connected, names) = match self {
            Self::Server { name, at } => {
                return format!("server {name} is at revision {at}, not yet at {wanted}");
            }
            Self::Agents { connected: 0, .. } => {
                return format!("the servers have revision {wanted}; no agent is connected");
            }
            Self::Agents { connected, names } => (count(*connected, "connected agent"), names),
        };
        if names.is_empty() {
            return format!("{connected} at revision {wanted} or past it");
        }
        let shown: Vec<&str> = names.iter().map(String::as_str).take(NAMES_SHOWN).collect();
        let more = if names.len() > NAMES_SHOWN { ", ..." } else { "" };
        let (still, shown) = (names.len(), shown.join(", "));
        format!("{still} of {connected} not at revision {wanted}: {shown}{more}")
    }
}

async fn laggards(client: &Client, wanted: Revision) -> Result<Waiting, CliError> {
    let status = client.status().await?.value;
    if status.revision < wanted {
        return Ok(Waiting::Server { name: status.server, at: status.revision });
    }
    let agents = client.agents(ReadOptions::default()).await?.value;
    let connected = agents.iter().filter(|agent| agent.connected);
    let names = connected.clone().filter(|agent| lags(agent, wanted));
    let names = names.map(|agent| agent.node.to_string()).collect();
    Ok(Waiting::Agents { connected: connected.count(), names })
}

/// An agent that needs nothing as new as `wanted` never gets it, and lacks nothing.
fn lags(agent: &AgentStatus, wanted: Revision) -> bool {
    agent.report.applied < wanted.min(agent.wanted)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn who_is_waited_for_is_named() {
        let agents = |connected, names: &[&str]| Waiting::Agents {
            connected,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let behind = Waiting::Server { name: "ctl-1".parse().unwrap(), at: revision(7) };
        let cases = [
            (behind, "server ctl-1 is at revision 1.7, not yet at 1.9"),
            (agents(0, &[]), "the servers have revision 1.9; no agent is connected"),
            (agents(2, &[]), "2 connected agents at revision 1.9 or past it"),
            (agents(1, &["web-1"]), "1 of 1 connected agent not at revision 1.9: web-1"),
        ];
        for (waiting, want) in cases {
            assert_eq!(waiting.text(revision(9)), want);
        }
    }

    fn revision(index: u64) -> Revision {
        format!("1.{index}").parse().unwrap()
    }
}
