//! Nodes, members and revocation.

use mesh_core::api::RevokeRequest;
use mesh_core::catalog::NodePolicy;
use mesh_core::name::NodeName;
use mesh_core::trust::Revoked;
use mesh_net::clock::now;

use super::written;
use crate::args::{NodeCommand, RevokeArgs};
use crate::context::Context;
use crate::error::CliError;
use crate::render;

/// `mesh node`.
pub(super) async fn run(context: &Context, command: NodeCommand) -> Result<(), CliError> {
    match command {
        NodeCommand::List => list(context).await,
        NodeCommand::Show { node } => show(context, &node).await,
        NodeCommand::Policy(args) => {
            let policy = NodePolicy { services: args.service };
            let answer = context.client()?.set_node_policy(&args.node, &policy).await?;
            let globs: Vec<String> = policy.services.iter().map(ToString::to_string).collect();
            written(context, answer, &format!("{} may host {}", args.node, globs.join(", ")))
        }
        NodeCommand::Remove { node } => {
            let answer = context.client()?.remove_node(&node).await?;
            written(context, answer, &format!("{node} is removed and its key refused"))
        }
    }
}

/// The nodes.
pub(super) async fn list(context: &Context) -> Result<(), CliError> {
    let all = context.client()?.nodes(context.read()).await?.value;
    context.output.show(&all, || render::nodes(&all, now()))
}

/// One node.
pub(super) async fn show(context: &Context, node: &NodeName) -> Result<(), CliError> {
    let answer = context.client()?.node(node, context.read()).await?.value;
    context.output.show(&answer, || render::node(&answer, now()))
}

/// Servers and nodes.
pub(super) async fn members(context: &Context) -> Result<(), CliError> {
    let client = context.client()?;
    let servers = client.servers(context.read()).await?.value;
    let nodes = client.nodes(context.read()).await?.value;
    let value = serde_json::json!({ "servers": servers, "nodes": nodes });
    context.output.show(&value, || render::members(&servers, &nodes, now()))
}

/// `mesh revoke`.
pub(super) async fn revoke(context: &Context, args: RevokeArgs) -> Result<(), CliError> {
    let (what, name) = match (args.identity, args.key, args.serial) {
        (Some(id), _, _) => (Revoked::Identity(id.clone()), id.to_string()),
        (_, Some(key), _) => (Revoked::Key(key), format!("key {key}")),
        (_, _, Some(serial)) => {
            let serial = serial_hex(&serial)?;
            (Revoked::Serial(serial.clone()), format!("serial {serial}"))
        }
        (None, None, None) => {
            return Err(CliError::Usage("expected an identity, --key or --serial".to_owned()));
        }
    };
    let request = RevokeRequest { what, reason: args.reason };
    let answer = context.client()?.revoke(&request).await?;
    written(context, answer, &format!("{name} is refused from now on"))
}

/// The serial as the mesh writes it: lower-case hex without separators or leading zero bytes.
fn serial_hex(text: &str) -> Result<String, CliError> {
    let digits: String = text.chars().filter(|c| *c != ':').collect::<String>().to_lowercase();
    let even = if digits.len() % 2 == 1 { format!("0{digits}") } else { digits };
    let bytes = hex::decode(&even).map_err(|_| {
        CliError::Usage(format!("serial is {text:?}, expected hex digits such as 0f3a or 0F:3A"))
    })?;
    let from = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    Ok(hex::encode(bytes.get(from..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::serial_hex;

    #[test]
    fn serials_come_in_the_forms_that_tools_print() {
        let cases =
            [("0F:3A", Some("0f3a")), ("f3a", Some("0f3a")), ("00ff", Some("ff")), ("xy", None)];
        for (text, want) in cases {
            assert_eq!(serial_hex(text).ok().as_deref(), want, "{text}");
        }
    }
}
