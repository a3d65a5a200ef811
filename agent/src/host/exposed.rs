//! Finds ports of local services that answer without the agent.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh_core::stream::ExposedPort;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::HostState;
use crate::limits::host::{EVERY_EXPOSED, EXPOSED_EVERY, EXPOSED_TRY};

/// What is already known of a host's ports, and what must be tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Exposed by their own declaration.
    pub exposed: Vec<ExposedPort>,
    /// Exposed if something answers there.
    pub to_try: Vec<ExposedPort>,
}

/// Sorts the ports of `host`, whose agent is reached at `advertised`. Pure.
///
/// An application on another address than loopback can be reached around the agent. One that
/// declares loopback may still listen on all addresses.
pub fn plan(host: &HostState, advertised: IpAddr) -> Plan {
    let mut plan = Plan::default();
    for (id, declared) in &host.instances {
        let address = declared.address();
        let port = |address| ExposedPort { instance: id.clone(), address };
        if !address.ip().is_loopback() {
            plan.exposed.push(port(address));
            continue;
        }
        let outside = SocketAddr::new(advertised, address.port());
        let other = host.instances.values().any(|other| other.address() == outside);
        // What answers there then is the other instance, not this one.
        if !advertised.is_loopback() && !other {
            plan.to_try.push(port(outside));
        }
    }
    plan
}

/// Publishes the exposed ports until `shutdown`: looks at each change of `host` and every minute,
/// and every five seconds while one is exposed, so that who mends it soon sees that it is mended.
pub async fn run(
    mut host: watch::Receiver<Arc<HostState>>, advertised: IpAddr,
    exposed: watch::Sender<Vec<ExposedPort>>, shutdown: CancellationToken,
) {
    loop {
        let state = host.borrow_and_update().clone();
        let Some(found) = shutdown.run_until_cancelled(look(plan(&state, advertised))).await else {
            return;
        };
        exposed.send_if_modified(|held| {
            let changed = *held != found;
            for port in found.iter().filter(|port| !held.contains(port)) {
                let (instance, address) = (&port.instance, port.address);
                tracing::warn!(%instance, %address, "port can be reached around the agent");
            }
            if changed {
                held.clone_from(&found);
            }
            changed
        });
        let pause = if exposed.borrow().is_empty() { EXPOSED_EVERY } else { EVERY_EXPOSED };
        // Cancel safe: nothing is taken.
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            changed = host.changed() => if changed.is_err() { return },
        }
    }
}

async fn look(plan: Plan) -> Vec<ExposedPort> {
    let mut found = plan.exposed;
    for port in plan.to_try {
        if matches!(timeout(EXPOSED_TRY, TcpStream::connect(port.address)).await, Ok(Ok(_))) {
            found.push(port);
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

    use super::super::tests::host;
    use super::*;

    #[test]
    fn ports_are_sorted_by_where_they_listen() {
        let host = host(
            "[instance.a]\nservice = \"a\"\nport = 80\n\
             [instance.b]\nservice = \"b\"\nport = 81\naddress = \"10.0.0.7\"\n\
             [instance.c]\nservice = \"c\"\nport = 81\n",
        );
        let port = |id: &str, address: &str| ExposedPort {
            instance: id.parse().unwrap(),
            address: address.parse().unwrap(),
        };
        let found = plan(&host, "10.0.0.7".parse().unwrap());
        assert_eq!(found.exposed, [port("b", "10.0.0.7:81")]);
        assert_eq!(found.to_try, [port("a", "10.0.0.7:80")], "c's is b's");
        let local = plan(&host, "127.0.0.1".parse().unwrap());
        assert_eq!(local.to_try, [], "nothing outside to be reached from");
    }
}
