//! One file a noun. Each function asks, then prints.

mod host;
mod node;
mod policy;
mod server;
mod service;
#[cfg(feature = "dev")]
mod setup;
mod snapshot;
mod status;
mod token;
mod why;

use crate::args::{Command, pages};
use crate::context::Context;
use crate::error::CliError;
use crate::output::line;

/// Carries out `command`.
///
/// # Errors
/// [`CliError`] if it could not be done, or its answer is no.
pub(crate) async fn run(context: &Context, command: Command) -> Result<(), CliError> {
    match command {
        #[cfg(feature = "dev")]
        Command::Init(args) => setup::init(context, *args).await,
        Command::Join(args) => host::join(context, args),
        Command::Server(command) => server::run(context, command).await,
        Command::Token(command) => token::run(context, command).await,
        Command::Tokens => token::list(context).await,
        Command::Service(command) => service::run(context, command).await,
        Command::Services => service::services(context).await,
        Command::Node(command) => node::run(context, command).await,
        Command::Nodes => node::list(context).await,
        Command::Members => node::members(context).await,
        Command::Revoke(args) => node::revoke(context, args).await,
        Command::Apply(args) => policy::apply(context, args).await,
        Command::Lint { paths } => policy::lint(context, &paths),
        Command::Get(args) => policy::get(context, args).await,
        Command::Delete(args) => policy::delete(context, args).await,
        Command::Why(args) => why::why(context, args).await,
        Command::Status => status::status(context).await,
        Command::Wait(args) => status::wait(context, args).await,
        Command::Snapshot(command) => snapshot::run(context, command).await,
        #[cfg(feature = "dev")]
        Command::Dev(args) => crate::dev::run(args).await,
        Command::Completions { shell } => line(&pages::completions(shell)),
        Command::Man { dir } => pages::man(&dir),
        Command::Version => version(context),
    }
}

fn version(context: &Context) -> Result<(), CliError> {
    let version = env!("CARGO_PKG_VERSION");
    let value = serde_json::json!({ "version": version });
    context.output.show(&value, || format!("mesh {version}"))
}

/// Says that a write is in force.
fn written(
    context: &Context, written: mesh_core::api::Written, what: &str,
) -> Result<(), CliError> {
    context.output.show(&written, || format!("{what} (revision {})", written.revision))
}
