//! The sample's hosts: an agent each, with its applications, on a runtime of their own.

use std::sync::Arc;

use mesh_agent::Deps;
use mesh_agent::config::Config;
use mesh_core::api::{CreateTokenRequest, TokenPurpose};
use mesh_core::catalog::NodePolicy;
use mesh_net::client::Client;
use prometheus_client::registry::Registry;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::apps::{self, App};
use super::place::{ADMIN, Block, HTTP, INBOUND, Place};
use super::sample::{self, SampleHost};
use crate::error::CliError;

/// Life of a join token of the sample, in seconds.
const TOKEN_SECONDS: u64 = 600;

/// Where the applications of a host listen: an address that its agent does not advertise, as
/// 127.0.0.1 is on a host of its own.
pub(super) fn inside(host: &SampleHost) -> u8 {
    host.number + 100
}

/// Starts the applications of `host` as tasks of `tasks`.
pub(super) async fn start_apps(
    host: &SampleHost, block: &Block, stop: &CancellationToken,
    tasks: &mut JoinSet<Result<(), CliError>>,
) -> Result<(), CliError> {
    for app in host.apps {
        let calls = app.upstreams.first().filter(|_| app.service == "orders");
        let app = App {
            name: format!("{}-v{}", app.service, app.version),
            listen: block.port(inside(host), app.port),
            calls: calls.map(|(_, port)| block.port(inside(host), *port)),
        };
        let serving = apps::bind(app, stop.clone()).await?;
        tasks.spawn(async move {
            serving.await;
            Ok(())
        });
    }
    Ok(())
}

/// Makes a join token for `host` and starts its agent as a task of `tasks`.
pub(super) async fn start_agent(
    host: &SampleHost, block: &Block, place: &Place, client: &Client, servers: &[String],
    stop: &CancellationToken, tasks: &mut JoinSet<Result<(), CliError>>,
) -> Result<(), CliError> {
    let config = config(host, block, place, client, servers).await?;
    let node = host.node;
    let deps = Deps {
        clock: Arc::new(mesh_net::clock::now),
        registry: Registry::default(),
        shutdown: stop.clone(),
    };
    tasks.spawn(async move {
        mesh_agent::run(config, deps).await.map_err(|why| {
            let why = mesh_net::telemetry::Chain(&why);
            CliError::Refused(format!("agent {node} failed: {why}"))
        })
    });
    Ok(())
}

async fn config(
    host: &SampleHost, block: &Block, place: &Place, client: &Client, servers: &[String],
) -> Result<Config, CliError> {
    let invalid = |why: String| CliError::Refused(format!("sample host {}: {why}", host.node));
    let node = host.node.parse().map_err(|why| invalid(format!("{why}")))?;
    let services: Result<_, _> = sample::services(host).iter().map(|name| name.parse()).collect();
    let policy = NodePolicy { services: services.map_err(|why| invalid(format!("{why}")))? };
    let purpose = TokenPurpose::Node { name: Some(node), policy };
    let note = format!("mesh dev, {}", host.node);
    let request = CreateTokenRequest { purpose, ttl_seconds: TOKEN_SECONDS, note };
    let token = client.create_token(&request).await.map_err(|why| invalid(why.to_string()))?;
    let folder = format!("hosts/{}", host.node);
    let file = sample::host_file(host, block.ip(inside(host)));
    let services_file = place.write(&format!("{folder}/services.d/sample.toml"), &file)?;
    let token_file = place.write(&format!("{folder}/join.token"), &token.token)?;
    let data_dir = place.dir.join(&folder).join("data");
    let node = host.node.parse().map_err(|why| invalid(format!("{why}")))?;
    let mut config = Config::new(node, servers.to_vec(), data_dir);
    // many agents share this machine
    config.workers = 1;
    config.token_file = Some(token_file);
    if let Some(services_dir) = services_file.parent() {
        config.services_dir = services_dir.to_owned();
    }
    config.address = Some(block.ip(host.number));
    config.inbound = block.port(host.number, INBOUND);
    config.http = Some(block.port(host.number, HTTP));
    config.admin = Some(block.port(host.number, ADMIN));
    config.socket = Some(place.dir.join(&folder).join("agent.sock"));
    Ok(config)
}
