//! From what the host declares to what the proxy goes by: its part of the snapshot, and how to
//! recognise its services' processes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_core::catalog::Health;
use mesh_core::name::{InstanceId, ServiceName};
use mesh_core::snapshot::{HostedInstance, UpstreamListener};
use mesh_core::stream::ExposedPort;
use mesh_net::telemetry::Chain;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Declared, HostState, Problem};
use crate::callers::{CallerRule, Callers, uid_of};
use crate::health::Report;
use crate::limits::host::LOOK_AGAIN;
use crate::live::{Hosted, Live};
use crate::status::{Board, InstanceLine};

/// What the local part works with.
pub(crate) struct Local {
    pub(crate) live: Arc<Live>,
    pub(crate) callers: Arc<Callers>,
    pub(crate) board: Arc<Board>,
    pub(crate) host: watch::Receiver<Arc<HostState>>,
    pub(crate) health: watch::Receiver<Arc<Report>>,
    pub(crate) exposed: watch::Receiver<Vec<ExposedPort>>,
}

/// Keeps the local part of the snapshot, the callers' rules and the board what the host declares,
/// until `shutdown`.
pub(crate) async fn run(mut local: Local, shutdown: CancellationToken) {
    let mut known = Vec::new();
    let work = async {
        loop {
            local.publish();
            // A user's number can change, and a directory server can come back.
            local.recognise(&mut known).await;
            // Cancel safe: nothing is taken.
            let gone = tokio::select! {
                changed = local.host.changed() => changed.is_err(),
                changed = local.health.changed() => changed.is_err(),
                changed = local.exposed.changed() => changed.is_err(),
                () = tokio::time::sleep(LOOK_AGAIN) => false,
            };
            if gone {
                return;
            }
        }
    };
    let _: Option<()> = shutdown.run_until_cancelled(work).await;
}

impl Local {
    /// Puts the host's instances in force.
    pub(crate) fn publish(&mut self) {
        let host = self.host.borrow_and_update().clone();
        let health = self.health.borrow_and_update().clone();
        let exposed = self.exposed.borrow_and_update().clone();
        self.live.publish_local(&hosted(&host, &health));
        self.board.update(|status| {
            status.instances = lines(&host, &health);
            status.exposed = exposed;
        });
    }

    /// Puts the rules in force by which callers are recognised.
    pub(crate) async fn recognise(&mut self, known: &mut Vec<CallerRule>) {
        let host = self.host.borrow().clone();
        let (rules, mut problems) = rules(&host).await;
        if rules != *known {
            self.callers.set_rules(rules.clone());
            *known = rules;
        }
        problems.splice(0..0, host.problems.iter().cloned());
        self.board.update(|status| status.problems = problems);
    }
}

/// The instances of `host` as the proxy sees them. Pure.
pub(crate) fn hosted(host: &HostState, health: &Report) -> Hosted {
    let recognised: BTreeSet<&ServiceName> = host
        .instances
        .values()
        .filter(|declared| declared.file.unit.is_some() || declared.file.user.is_some())
        .map(|declared| &declared.file.service)
        .collect();
    let instance = |(id, declared): (&InstanceId, &Arc<Declared>)| {
        let file = &declared.file;
        let listeners = file.upstreams.iter().filter_map(|upstream| {
            let listen = upstream.listen?;
            Some(UpstreamListener { service: upstream.service.clone(), listen })
        });
        let hosted = HostedInstance {
            id: id.clone(),
            service: file.service.clone(),
            address: declared.address(),
            health: health_of(health, id),
            exclusive: recognised.contains(&file.service),
            upstreams: listeners.collect(),
        };
        (id.clone(), Arc::new(hosted))
    };
    host.instances.iter().map(instance).collect()
}

fn lines(host: &HostState, health: &Report) -> BTreeMap<InstanceId, InstanceLine> {
    let line = |(id, declared): (&InstanceId, &Arc<Declared>)| {
        let checks = health.get(id).map(|change| &change.checks).into_iter().flatten();
        let failing = checks.filter(|(_, status)| !status.passing);
        let line = InstanceLine {
            service: declared.file.service.clone(),
            address: declared.address(),
            health: health_of(health, id),
            failing: failing.map(|(name, s)| (name.clone(), s.output.clone())).collect(),
        };
        (id.clone(), line)
    };
    host.instances.iter().map(line).collect()
}

fn health_of(health: &Report, id: &InstanceId) -> Health {
    health.get(id).map_or(Health::Critical, |change| change.health)
}

/// How to recognise the processes of the host's services, and where that is not possible.
///
/// An instance whose user or unit is not understood recognises nobody: less than it asks for is
/// never taken instead.
async fn rules(host: &HostState) -> (Vec<CallerRule>, Vec<Problem>) {
    let (mut rules, mut problems) = (Vec::new(), Vec::new());
    for declared in host.instances.values() {
        match rule(declared).await {
            Ok(rule) if rules.contains(&rule) => {}
            Ok(rule) if rule.unit.is_none() && rule.uid.is_none() => {}
            Ok(rule) => rules.push(rule),
            Err(why) => {
                let message = format!("instance.{}: {why}", declared.file.id);
                problems.push(Problem { file: declared.source.display().to_string(), message });
            }
        }
    }
    (rules, problems)
}

async fn rule(declared: &Declared) -> Result<CallerRule, String> {
    let file = &declared.file;
    let unit = file.unit.as_deref().map(str::parse).transpose();
    let unit = unit.map_err(|why| Chain(&why).to_string())?;
    let uid = match &file.user {
        Some(user) => Some(uid_of(user).await.map_err(|why| Chain(&why).to_string())?),
        None => None,
    };
    Ok(CallerRule { service: file.service.clone(), unit, uid })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

    use super::super::tests::host;
    use super::*;

    #[test]
    fn instances_show_their_explicit_ports_and_health() {
        let host = host(
            "[instance.web-1]\nservice = \"web\"\nport = 80\n\
             upstreams = [\"mail\", { service = \"db\", listen = \"127.0.0.1:9001\" }]\n",
        );
        let hosted = hosted(&host, &Report::new());
        let web = &hosted["web-1"];
        assert_eq!(web.address, "127.0.0.1:80".parse().unwrap());
        assert_eq!(web.health, Health::Critical, "not known yet");
        assert_eq!(web.upstreams.len(), 1, "mail has no port");
    }

    #[tokio::test]
    async fn rules_ask_for_no_less_than_declared() {
        let host = host(
            "[instance.a]\nservice = \"a\"\nport = 1\nuser = \"root\"\n\
             [instance.b]\nservice = \"b\"\nport = 2\nuser = \"no-such-user-here\"\nunit = \"b.service\"\n\
             [instance.c]\nservice = \"c\"\nport = 3\n\
             [instance.d]\nservice = \"d\"\nport = 4\nunit = \"d.service\"\n",
        );
        let (rules, problems) = rules(&host).await;
        let services: Vec<&str> = rules.iter().map(|rule| rule.service.as_str()).collect();
        assert_eq!(services, ["a", "d"]);
        assert_eq!(rules[0].uid, Some(0));
        assert!(rules[1].unit.is_some());
        assert!(problems[0].message.contains("instance.b"), "{problems:?}");
    }
}
