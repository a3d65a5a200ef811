//! The sample's control servers: each on a runtime of its own, so that stopping the runtime is
//! what a crash is to a process.

use std::path::PathBuf;
use std::time::Duration;

use mesh_core::api::{CreateTokenRequest, ServerInfo, TokenPurpose};
use mesh_core::name::ServerName;
use mesh_core::policy::AccessMode;
use mesh_net::client::{Client, ClientBuilder, ReadOptions, Trust};
use mesh_net::telemetry::Chain;
use mesh_net::token::Secret;
use meshd::config::{Config, KekSource};
use meshd::init::{InitOptions, init};
use meshd::join::{JoinOptions, join};
use meshd::{Deps, Running};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::place::{API, Block, Place, RAFT};
use crate::error::CliError;
use crate::limits::dev::{SERVERS_JOIN, SERVERS_STOP};

/// One running server.
struct One {
    name: ServerName,
    runtime: Runtime,
    serving: JoinHandle<Result<(), meshd::RunError>>,
    shutdown: CancellationToken,
}

/// All servers of the sample, and how to talk to them.
pub(super) struct Servers {
    running: Vec<One>,
    /// Their API addresses.
    pub(super) addresses: Vec<String>,
    /// The file with the admin token.
    pub(super) token_file: PathBuf,
    /// The file with the CA's certificate.
    pub(super) ca_file: PathBuf,
}

impl Servers {
    /// Makes a mesh with one server.
    pub(super) async fn first(block: &Block, place: &Place) -> Result<Self, CliError> {
        let config = config(1, block, place)?;
        let token_file = place.dir.join("admin.token");
        let options = InitOptions {
            config: config.clone(),
            trust_domain: None,
            datacenter: "dc1".parse().map_err(|why| failed("datacenter", &why))?,
            access: AccessMode::Enforce,
            token_out: token_file,
        };
        let made = init(options).await.map_err(|why| failed("mesh init", &why))?;
        let address = config.api_address.clone();
        let one = start(config).await?;
        let (token_file, ca_file) = (made.token_file, made.ca_file);
        Ok(Self { running: vec![one], addresses: vec![address], token_file, ca_file })
    }

    /// Adds servers until there are `wanted`, each a voter before the next.
    pub(super) async fn grow(
        &mut self, wanted: u8, block: &Block, place: &Place,
    ) -> Result<(), CliError> {
        for number in 2..=wanted {
            let config = config(number, block, place)?;
            let client = self.client()?;
            let purpose = TokenPurpose::Server { name: Some(config.name.clone()) };
            let note = "mesh dev".to_owned();
            let request = CreateTokenRequest { purpose, ttl_seconds: 600, note };
            let token =
                client.create_token(&request).await.map_err(|why| failed("server token", &why))?;
            let file = place.write(&format!("{}/join.token", config.name), &token.token)?;
            restrict(&file)?;
            let server = self.addresses[0].clone();
            let options = JoinOptions { config: config.clone(), token_file: file, server };
            join(options).await.map_err(|why| failed("server join", &why))?;
            let name = config.name.clone();
            self.addresses.push(config.api_address.clone());
            self.running.push(start(config).await?);
            voter(&client, &name).await?;
        }
        Ok(())
    }

    /// A client with the admin token.
    pub(super) fn client(&self) -> Result<Client, CliError> {
        let token = Secret::from_file(&self.token_file).map_err(|why| failed("token", &why))?;
        let pem = std::fs::read_to_string(&self.ca_file)
            .map_err(|why| CliError::file("read", &self.ca_file, why))?;
        ClientBuilder::new(self.addresses.clone())
            .trust(Trust::Pem(pem))
            .token(token)
            .build()
            .map_err(|why| failed("client", &why))
    }

    /// How many run.
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    /// Stops the leader's runtime, as a crash would; says who it was.
    pub(super) async fn stop_leader(&mut self, client: &Client) -> Result<ServerName, String> {
        let status = client.status().await.map_err(|why| why.to_string())?;
        let leader = status.value.leader.ok_or("no leader is known")?;
        let at = self.running.iter().position(|one| one.name == leader);
        let one = self.running.swap_remove(at.ok_or("the leader is no server of this process")?);
        one.runtime.shutdown_background();
        Ok(leader)
    }

    /// The first server that ended by itself, with its reason.
    pub(super) async fn failure(&mut self) -> CliError {
        loop {
            for one in &mut self.running {
                if one.serving.is_finished() {
                    let name = one.name.clone();
                    return match (&mut one.serving).await {
                        Ok(Err(why)) => failed(&format!("server {name}"), &why),
                        Ok(Ok(())) | Err(_) => {
                            CliError::Refused(format!("server {name} ended by itself"))
                        }
                    };
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Stops all, one after the other.
    pub(super) async fn stop(self) {
        for one in self.running {
            one.shutdown.cancel();
            if tokio::time::timeout(SERVERS_STOP, one.serving).await.is_err() {
                tracing::warn!(server = %one.name, "server did not stop in time");
            }
            one.runtime.shutdown_background();
        }
    }
}

fn config(number: u8, block: &Block, place: &Place) -> Result<Config, CliError> {
    let name: ServerName =
        format!("server-{number}").parse().map_err(|why| failed("server name", &why))?;
    let (api, raft) = (block.port(number, API), block.port(number, RAFT));
    let data_dir = place.dir.join(name.as_str()).join("data");
    let mut config = Config::new(name.clone(), data_dir, &api.ip().to_string());
    config.api = api;
    config.api_address = api.to_string();
    config.raft = raft;
    config.raft_address = raft.to_string();
    config.kek = KekSource::File(place.dir.join(name.as_str()).join("kek"));
    Ok(config)
}

async fn start(config: Config) -> Result<One, CliError> {
    let name = config.name.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name(name.as_str())
        .enable_all()
        .build()
        .map_err(|why| failed("runtime", &why))?;
    let shutdown = CancellationToken::new();
    let deps = Deps { shutdown: shutdown.clone(), ..Deps::default() };
    let started = runtime.spawn(meshd::start(config, deps)).await;
    let running: Running = started
        .map_err(|why| failed("server", &why))?
        .map_err(|why| failed(&format!("server {name}"), &why))?;
    let serving = runtime.spawn(running.wait());
    Ok(One { name, runtime, serving, shutdown })
}

async fn voter(client: &Client, name: &ServerName) -> Result<(), CliError> {
    let joining = async {
        loop {
            let answer = client.servers(ReadOptions::default()).await;
            let votes = |server: &ServerInfo| server.name == *name && server.voter;
            if answer.is_ok_and(|answer| answer.value.iter().any(votes)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SERVERS_JOIN, joining).await.map_err(|_| {
        CliError::Unavailable(format!(
            "server {name} did not become a voter within {SERVERS_JOIN:?}"
        ))
    })
}

/// Token files are read only if nobody else can.
pub(super) fn restrict(file: &std::path::Path) -> Result<(), CliError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(file, mode).map_err(|why| CliError::file("restrict", file, why))
}

/// That `what` failed, with its causes.
pub(super) fn failed(what: &str, why: &(dyn std::error::Error + 'static)) -> CliError {
    CliError::Refused(format!("{what}: {}", Chain(why)))
}
