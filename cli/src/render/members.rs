//! Servers and nodes.

use mesh_core::api::{NodeAnswer, ServerInfo};
use mesh_core::catalog::{Liveness, Node};
use mesh_core::time::UnixMillis;

use super::services::instances;
use crate::output::table;
use crate::times::relative;

/// Servers, then nodes.
pub(crate) fn members(all: &[ServerInfo], hosts: &[Node], now: UnixMillis) -> String {
    format!("{}\n\n{}", servers(all), nodes(hosts, now))
}

/// The control servers.
pub(crate) fn servers(all: &[ServerInfo]) -> String {
    let rows = all.iter().map(|one| {
        vec![
            one.name.to_string(),
            role(one).to_owned(),
            one.api_address.clone(),
            one.raft_address.clone(),
            one.feature_level.to_string(),
        ]
    });
    table(&["SERVER", "ROLE", "API", "RAFT", "LEVEL"], rows)
}

pub(super) fn role(server: &ServerInfo) -> &'static str {
    match (server.leader, server.voter) {
        (true, _) => "leader",
        (false, true) => "voter",
        (false, false) => "learner",
    }
}

/// The nodes.
pub(crate) fn nodes(all: &[Node], now: UnixMillis) -> String {
    if all.is_empty() {
        return "no nodes yet: `mesh token create --node NAME --service SERVICE`, then `mesh join` on the host".to_owned();
    }
    let rows = all.iter().map(|one| {
        vec![
            one.name.to_string(),
            liveness(one.liveness).to_owned(),
            address(one),
            relative(one.last_seen, now),
            hosts(one),
        ]
    });
    table(&["NODE", "STATE", "AGENT", "SEEN", "MAY HOST"], rows)
}

/// One node, with its instances.
pub(crate) fn node(answer: &NodeAnswer, now: UnixMillis) -> String {
    let one = &answer.node;
    let mut out = format!(
        "node      {}\nstate     {}, seen {}\nagent     {}\nmay host  {}\nenrolled  {} ({})\nkey       {}\n",
        one.name,
        liveness(one.liveness),
        relative(one.last_seen, now),
        address(one),
        hosts(one),
        one.enrolled_at,
        relative(one.enrolled_at, now),
        one.key,
    );
    if !answer.instances.is_empty() {
        out = format!("{out}\n{}", instances(&answer.instances));
    }
    out
}

fn liveness(liveness: Liveness) -> &'static str {
    match liveness {
        Liveness::Alive => "alive",
        Liveness::Suspect => "suspect",
        Liveness::Gone => "gone",
    }
}

fn address(node: &Node) -> String {
    std::net::SocketAddr::new(node.address, node.port).to_string()
}

fn hosts(node: &Node) -> String {
    let globs: Vec<String> = node.policy.services.iter().map(ToString::to_string).collect();
    if globs.is_empty() { "nothing".to_owned() } else { globs.join(",") }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{self, NOW};
    use super::*;

    #[test]
    fn members_show_who_lives() {
        let want = "\
SERVER  ROLE    API            RAFT           LEVEL
ctl-1   leader  10.0.0.1:7300  10.0.0.1:7301  1
ctl-2   voter   10.0.0.2:7300  10.0.0.2:7301  1

NODE   STATE  AGENT          SEEN    MAY HOST
db-1   gone   10.0.0.3:7443  3m ago  orders,batch-*
web-7  alive  10.0.0.7:7443  4s ago  nothing";
        assert_eq!(members(&samples::servers(), &samples::nodes(), NOW), want);
    }

    #[test]
    fn no_nodes_says_how_to_get_one() {
        assert!(nodes(&[], NOW).contains("mesh join"));
    }
}
