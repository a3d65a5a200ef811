//! `mesh server`.

use mesh_core::api::TransferRequest;

use super::written;
use crate::args::ServerCommand;
use crate::context::Context;
use crate::error::CliError;
use crate::render;

/// `mesh server`.
pub(super) async fn run(context: &Context, command: ServerCommand) -> Result<(), CliError> {
    match command {
        ServerCommand::List => list(context).await,
        #[cfg(feature = "dev")]
        ServerCommand::Join(args) => super::setup::join(context, *args).await,
        ServerCommand::Remove { server } => {
            let answer = context.client()?.remove_server(&server).await?;
            written(context, answer, &format!("{server} is no longer a member"))
        }
        ServerCommand::Transfer(args) => {
            let request = TransferRequest { to: args.to };
            let answer = context.client()?.transfer(&request).await?;
            let to = request.to.map_or_else(|| "another server".to_owned(), |to| to.to_string());
            written(context, answer, &format!("leadership goes to {to}"))
        }
    }
}

/// The control servers.
pub(super) async fn list(context: &Context) -> Result<(), CliError> {
    let all = context.client()?.servers(context.read()).await?.value;
    context.output.show(&all, || render::servers(&all))
}
