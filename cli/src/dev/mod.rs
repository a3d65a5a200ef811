//! `mesh dev`: the whole mesh in one process on loopback, without root.
//!
//! Servers, agents as hosts on their own loopback addresses, sample applications, traffic and a
//! live table: everything is the real thing, only the hosts are addresses. State kind: all of it
//! lives in a directory that is removed at the end, unless the user names it.

mod apps;
mod check;
mod hosts;
mod place;
mod sample;
mod servers;
mod table;
mod traffic;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use http::StatusCode;
use mesh_core::api::ApplyRequest;
use mesh_net::client::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::args::DevArgs;
use crate::error::CliError;
use crate::limits::dev::{REFRESH, STOP};
use place::{ADMIN, Block, Place};
use sample::{BATCH_TO_ORDERS, HOSTS, POLICY, WEB_TO_ORDERS};
use servers::{Servers, failed};
use traffic::{Calls, Counts};

/// A running sample mesh.
struct Dev {
    block: Block,
    servers: Servers,
    client: Client,
    counts: Counts,
    /// Agents, applications and traffic.
    tasks: JoinSet<Result<(), CliError>>,
    stop: CancellationToken,
    place: Place,
}

/// Runs a whole mesh until Ctrl-C, or checks it and says whether it works.
///
/// # Errors
/// [`CliError`] if a part does not start or fails, or a check's answer is no.
pub(crate) async fn run(args: DevArgs) -> Result<(), CliError> {
    let began = Instant::now();
    let mut dev = Dev::start(&args, began).await?;
    let wanted = if args.check { 3 } else { args.servers };
    let grown = dev.servers.grow(wanted, &dev.block, &dev.place).await;
    let outcome = match grown {
        Ok(()) => {
            dev.client = dev.servers.client()?;
            if args.check { dev.check().await } else { dev.show(args.dir.is_some()).await }
        }
        Err(why) => Err(why),
    };
    dev.end().await;
    outcome
}

impl Dev {
    async fn start(args: &DevArgs, began: Instant) -> Result<Self, CliError> {
        let place = Place::take(args.dir.as_ref())?;
        let block = Block::take()?;
        say(began, "starting a control server");
        let servers = Servers::first(&block, &place).await?;
        let client = servers.client()?;
        let mut dev = Self {
            block,
            servers,
            client,
            counts: Counts::default(),
            tasks: JoinSet::new(),
            stop: CancellationToken::new(),
            place,
        };
        say(began, "starting applications, and an agent on each of 4 hosts");
        dev.start_hosts().await?;
        dev.apply_policy().await?;
        dev.first_answers(began).await?;
        dev.start_traffic();
        Ok(dev)
    }

    async fn start_hosts(&mut self) -> Result<(), CliError> {
        for host in &HOSTS {
            hosts::start_apps(host, &self.block, &self.stop, &mut self.tasks).await?;
            hosts::start_agent(
                host,
                &self.block,
                &self.place,
                &self.client,
                &self.servers.addresses,
                &self.stop,
                &mut self.tasks,
            )
            .await?;
        }
        Ok(())
    }

    async fn apply_policy(&self) -> Result<(), CliError> {
        for (name, text) in POLICY {
            self.place.write(&format!("policy/{name}"), text)?;
        }
        let request = ApplyRequest {
            expected: None,
            files: POLICY.map(|(name, text)| (name.to_owned(), text.to_owned())).to_vec(),
            prune: false,
            dry_run: false,
            message: "mesh dev".to_owned(),
        };
        self.client.apply_policy(&request).await.map_err(|why| failed("policy", &why))?;
        Ok(())
    }

    fn start_traffic(&mut self) {
        let inside = hosts::inside(&HOSTS[0]);
        let port = |port| self.block.port(inside, port);
        let calls = [
            Calls { from: "web", to: "orders", port: port(WEB_TO_ORDERS), rate: 50 },
            Calls { from: "batch", to: "orders", port: port(BATCH_TO_ORDERS), rate: 5 },
        ];
        for calls in calls {
            let (counts, stop) = (self.counts.clone(), self.stop.clone());
            self.tasks.spawn(async move {
                traffic::run(calls, counts, stop).await;
                Ok(())
            });
        }
    }

    /// Calls orders as web until both versions have answered.
    async fn first_answers(&mut self, began: Instant) -> Result<(), CliError> {
        let port = self.block.port(hosts::inside(&HOSTS[0]), WEB_TO_ORDERS);
        let deadline = began + Duration::from_secs(30);
        let canary = [("x-canary", "1")];
        for (headers, version, what) in [
            (&canary[..0], "orders-v1", "first request through mTLS"),
            (&canary[..], "orders-v2", "the canary"),
        ] {
            loop {
                let last = match apps::get(port, "/", headers).await {
                    Ok((StatusCode::OK, body)) if body.starts_with(version) => break,
                    Ok((status, body)) => format!("{status} {}", body.trim()),
                    Err(why) => why,
                };
                if let Some(ended) = self.tasks.try_join_next() {
                    return Err(unexpected(ended));
                }
                if Instant::now() > deadline {
                    let why = format!("no request passed in 30 s: {last}");
                    return Err(CliError::Unavailable(why));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            say(began, &format!("{what} answered"));
        }
        Ok(())
    }

    async fn check(&mut self) -> Result<(), CliError> {
        check::run(&self.client, &mut self.servers, &self.counts).await
    }

    /// Prints what to try, and the table each second, until Ctrl-C.
    async fn show(&mut self, kept: bool) -> Result<(), CliError> {
        println!("{}", self.hints(kept));
        let redraw = std::io::stdout().is_terminal();
        let mut terminated =
            signal(SignalKind::terminate()).map_err(|why| failed("signal", &why))?;
        let mut before = self.counts.read();
        let mut at = Instant::now();
        let mut ticks = tokio::time::interval(REFRESH);
        ticks.tick().await;
        let mut lines = 0;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = tokio::signal::ctrl_c() => return stopping(),
                _ = terminated.recv() => return stopping(),
                Some(ended) = self.tasks.join_next() => return Err(unexpected(ended)),
                why = self.servers.failure() => return Err(why),
            }
            let now = self.counts.read();
            let text = table::render(&before, &now, at.elapsed());
            if redraw && lines > 0 {
                // back up over the last table and draw over it
                print!("\x1b[{lines}A\x1b[J");
            }
            lines = text.lines().count();
            print!("{text}");
            before = now;
            at = Instant::now();
        }
    }

    fn hints(&self, kept: bool) -> String {
        let admin = self.block.port(HOSTS[0].number, ADMIN);
        let web = self.block.port(hosts::inside(&HOSTS[0]), WEB_TO_ORDERS);
        let policy = self.place.dir.join("policy");
        let gone = if kept { "" } else { " (removed at the end; --keep DIR keeps it)" };
        format!(
            "\nweb calls orders v1 and v2, which call payments; batch is denied.\n\
             Everything is in {dir}{gone}\n\n\
             Try, in another shell:\n\
             {path}\x20 export MESH_ADDR={addr} MESH_TOKEN_FILE={token} MESH_CACERT={ca}\n\
             \x20 mesh services\n\
             \x20 mesh status\n\
             \x20 mesh why web orders GET /v2/x\n\
             \x20 mesh why batch orders GET /v2/x\n\
             \x20 curl -i http://{web}/v2/list              # as web, through mTLS\n\
             \x20 curl -H 'x-canary: 1' http://{web}/        # to v2\n\
             \x20 $EDITOR {policy}/orders.toml && mesh apply {policy}\n\
             \x20 curl http://{admin}/metrics               # of one agent\n\
             Ctrl-C stops it.\n",
            dir = self.place.dir.display(),
            path = path_hint(),
            addr = self.servers.addresses.join(","),
            token = self.servers.token_file.display(),
            ca = self.servers.ca_file.display(),
            policy = policy.display(),
        )
    }

    async fn end(self) {
        let Self { mut tasks, servers, stop, place, .. } = self;
        stop.cancel();
        let ending = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP, ending).await.is_err() {
            tracing::warn!("some parts did not stop in time");
        }
        tasks.shutdown().await;
        servers.stop().await;
        drop(place);
    }
}

/// How a shell finds this `mesh`, if it does not yet.
fn path_hint() -> String {
    let folder = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    match folder {
        Some(folder) if !std::env::split_paths(&path).any(|known| known == folder) => {
            format!("  export PATH={}:$PATH\n", folder.display())
        }
        Some(_) | None => String::new(),
    }
}

fn stopping() -> Result<(), CliError> {
    println!("\nstopping");
    Ok(())
}

fn say(began: Instant, what: &str) {
    println!("[{:>5.2} s] {what}", began.elapsed().as_secs_f64());
}

fn unexpected(ended: Result<Result<(), CliError>, tokio::task::JoinError>) -> CliError {
    match ended {
        Ok(Err(why)) => why,
        Ok(Ok(())) => CliError::Refused("a part of the mesh ended by itself".to_owned()),
        Err(why) => failed("a part of the mesh", &why),
    }
}
