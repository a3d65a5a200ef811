//! Services: of the mesh, by the servers; of this host, by its agent.

use mesh_core::hostfile;
use mesh_core::name::ServiceName;
use serde_json::Value;

use crate::agent::{HostServices, Request, ask};
use crate::args::{Check, ServiceAddArgs, ServiceCommand, SocketArgs};
use crate::context::{Context, read_text};
use crate::error::CliError;
use crate::render;

/// `mesh service`.
pub(super) async fn run(context: &Context, command: ServiceCommand) -> Result<(), CliError> {
    match command {
        ServiceCommand::Add(args) => add(context, args).await,
        ServiceCommand::List(socket) => list(context, &socket).await,
        ServiceCommand::Remove { name, socket } => {
            let request = Request::ServiceRemove { name: name.to_string() };
            let _: Value = ask(&socket.socket, &request).await?;
            let removed = serde_json::json!({ "removed": name });
            context.output.show(&removed, || format!("{name} is no longer declared"))
        }
        ServiceCommand::Show { service } => show(context, &service).await,
    }
}

/// The services of the mesh.
pub(super) async fn services(context: &Context) -> Result<(), CliError> {
    let all = context.client()?.services(context.read()).await?.value;
    context.output.show(&all, || render::services(&all))
}

/// One service of the mesh.
pub(super) async fn show(context: &Context, service: &ServiceName) -> Result<(), CliError> {
    let answer = context.client()?.service(service, context.read()).await?.value;
    context.output.show(&answer, || render::service(&answer))
}

async fn list(context: &Context, socket: &SocketArgs) -> Result<(), CliError> {
    let host: HostServices = ask(&socket.socket, &Request::Services).await?;
    context.output.show(&host, || render::host_services(&host))
}

async fn add(context: &Context, args: ServiceAddArgs) -> Result<(), CliError> {
    let (name, text) = match &args.file {
        Some(path) => (path.display().to_string(), read_text(path)?),
        None => ("command line".to_owned(), host_file(&args)?),
    };
    hostfile::parse(&name, &text).map_err(CliError::Files)?;
    let only = args.name.as_ref().filter(|_| args.file.is_some()).map(ToString::to_string);
    let request = Request::ServiceAdd { file: text, name: only };
    let added: Vec<String> = ask(&args.socket.socket, &request).await?;
    let value = serde_json::json!({ "added": added });
    context.output.show(&value, || match added.as_slice() {
        [] => "nothing declared".to_owned(),
        all => format!("declared {}; see `mesh service list`", all.join(", ")),
    })
}

/// The host file that the flags amount to.
fn host_file(args: &ServiceAddArgs) -> Result<String, CliError> {
    let missing = || CliError::Usage("expected a service and --port, or --file".to_owned());
    let service = args.service.as_ref().ok_or_else(missing)?;
    let port = args.port.ok_or_else(missing)?;
    let name = args.name.as_ref().map_or(service.as_str(), |name| name.as_str());
    let mut lines = vec![
        format!("[instance.{name}]"),
        format!("service = {}", quoted(service.as_str())),
        format!("port = {port}"),
    ];
    let address = args.address.map(|address| address.to_string());
    let optional = [("address", &address), ("unit", &args.unit), ("user", &args.user)];
    for (key, value) in optional {
        lines.extend(value.as_ref().map(|value| format!("{key} = {}", quoted(value))));
    }
    if !args.meta.is_empty() {
        let pairs =
            args.meta.iter().map(|(key, value)| format!("{} = {}", quoted(key), quoted(value)));
        lines.push(format!("meta = {{ {} }}", pairs.collect::<Vec<_>>().join(", ")));
    }
    if !args.upstream.is_empty() {
        let all = args.upstream.iter().map(|(service, listen)| match listen {
            None => quoted(service.as_str()),
            Some(listen) => format!("{{ service = \"{service}\", listen = \"{listen}\" }}"),
        });
        lines.push(format!("upstreams = [{}]", all.collect::<Vec<_>>().join(", ")));
    }
    for check in &args.check {
        lines.push(format!("\n[[instance.{name}.check]]"));
        lines.push(match check {
            Check::Http(path) => format!("http = {}", quoted(path)),
            Check::Tcp => "tcp = true".to_owned(),
        });
    }
    Ok(lines.join("\n") + "\n")
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn flags(words: &[&str]) -> ServiceAddArgs {
        let cli = Cli::try_parse_from(["mesh", "service", "add"].iter().chain(words)).unwrap();
        match cli.command {
            Command::Service(ServiceCommand::Add(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_amount_to_a_host_file() {
        let words = [
            "web",
            "--port",
            "8080",
            "--name",
            "web-1",
            "--unit",
            "web.service",
            "--meta",
            "version=2",
            "--meta",
            "note=a \"b\"",
            "--upstream",
            "orders=127.0.0.1:9001",
            "--upstream",
            "db",
            "--check",
            "http:/health",
            "--check",
            "tcp",
        ];
        let text = host_file(&flags(&words)).unwrap();
        let instances = hostfile::parse("command line", &text).unwrap();
        let want = "\
[instance.web-1]
service = \"web\"
port = 8080
unit = \"web.service\"
meta = { note = 'a \"b\"', version = \"2\" }
upstreams = [{ service = \"orders\", listen = \"127.0.0.1:9001\" }, \"db\"]

[[instance.web-1.check]]
http = \"/health\"

[[instance.web-1.check]]
tcp = true
";
        let printed = hostfile::print(&instances).replace("\"a \\\"b\\\"\"", "'a \"b\"'");
        assert_eq!(printed, want);
    }
}
