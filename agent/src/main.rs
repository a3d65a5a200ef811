//! `mesh-agent`: reads settings, runs the agent, and exits.

use std::process::ExitCode;
use std::sync::Arc;

use mesh_agent::args::{self, ArgsError};
use mesh_agent::config::Config;
use mesh_agent::{Deps, RunError};
use mesh_net::telemetry::{self, Chain};
use prometheus_client::registry::Registry;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let config = match args::read(std::env::args_os(), &host) {
        Ok(config) => config,
        Err(ArgsError::Usage(usage)) => usage.exit(),
        Err(why) => {
            eprintln!("mesh-agent: {}", Chain(&why));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    if let Err(why) = telemetry::init_at(config.log_format, &config.log) {
        eprintln!("mesh-agent: {}", Chain(&why));
        return ExitCode::from(EXIT_CONFIG);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(why) => {
            tracing::error!("cannot start the runtime: {why}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(serve(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            tracing::error!("{}", Chain(&why));
            ExitCode::FAILURE
        }
    }
}

/// Runs the agent until SIGTERM or SIGINT; a second one ends it at once.
async fn serve(config: Config) -> Result<(), RunError> {
    let shutdown = CancellationToken::new();
    let deps = Deps {
        clock: Arc::new(mesh_net::clock::now),
        registry: Registry::default(),
        shutdown: shutdown.clone(),
    };
    let agent = mesh_agent::run(config, deps);
    tokio::pin!(agent);
    for name in ["stopping", "stopping at once"] {
        // Cancel safe: the agent is pinned and goes on.
        tokio::select! {
            ended = &mut agent => return ended,
            () = asked_to_stop() => tracing::info!("{name}"),
        }
        shutdown.cancel();
    }
    Ok(())
}

async fn asked_to_stop() {
    let wait = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(why) => {
                tracing::error!("cannot listen for signals: {why}");
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = wait(SignalKind::terminate()) => {}
        () = wait(SignalKind::interrupt()) => {}
    }
}

/// EX_CONFIG of sysexits(3): systemd need not try again.
const EXIT_CONFIG: u8 = 78;
