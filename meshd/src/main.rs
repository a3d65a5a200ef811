//! The daemon: arguments, logs, signals and the exit code.

use std::process::ExitCode;

use mesh_net::telemetry::{self, Chain};
use meshd::args::{Action, ArgsError};
use meshd::{Deps, RunError};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let action = match meshd::args::read(std::env::args_os(), &host) {
        Ok(action) => action,
        Err(ArgsError::Usage(error)) => {
            // The terminal is gone if this fails: nobody to tell.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1));
        }
        Err(error) => return fail(&error, 1),
    };
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(act(action)),
        Err(error) => fail(&error, 1),
    }
}

async fn act(action: Action) -> ExitCode {
    match action {
        Action::Run(config) => match serve(config).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let remedy = error.remedy().map(|text| format!("; {text}")).unwrap_or_default();
                eprintln!("meshd: {}{remedy}", Chain(&error));
                ExitCode::from(error.exit_code())
            }
        },
        Action::Init(options) => match meshd::init::init(options).await {
            Ok(made) => {
                println!("mesh {} is initialised", made.trust_domain);
                println!("CA      sha256:{} ({})", made.ca_sha256, made.ca_file.display());
                println!("token   {} (admin, keep it safe)", made.token_file.display());
                println!("next    systemctl enable --now meshd");
                ExitCode::SUCCESS
            }
            Err(error) => fail(&error, 1),
        },
        Action::Join(options) => match meshd::join::join(options).await {
            Ok(joined) => {
                println!("joined mesh {} as server id {}", joined.trust_domain, joined.id);
                println!("next    systemctl enable --now meshd");
                ExitCode::SUCCESS
            }
            Err(error) => fail(&error, 1),
        },
    }
}

async fn serve(config: meshd::Config) -> Result<(), RunError> {
    if let Err(error) = telemetry::init_at(config.log_format, &config.log) {
        eprintln!("meshd: {}", Chain(&error));
    }
    let shutdown = CancellationToken::new();
    let deps = Deps { shutdown: shutdown.clone(), notify: true, ..Deps::default() };
    let watched = async move {
        match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(mut terminate), Ok(mut interrupt)) => {
                // Cancel safe, both.
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                shutdown.cancel();
            }
            (Err(error), _) | (_, Err(error)) => {
                tracing::error!(%error, "cannot watch signals");
            }
        }
        std::future::pending::<()>().await;
    };
    // The watcher never ends by itself; neither does the watchdog once it is on.
    tokio::select! {
        ended = meshd::run(config, deps) => ended,
        () = watched => Ok(()),
        () = feed() => Ok(()),
    }
}

/// Feeds systemd's watchdog for as long as this runtime turns.
async fn feed() {
    mesh_net::notify::watchdog(|| true).await;
    std::future::pending().await
}

fn fail(error: &(dyn std::error::Error + 'static), code: u8) -> ExitCode {
    eprintln!("meshd: {}", Chain(error));
    ExitCode::from(code)
}
