//! Commands about policy.

use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;
use mesh_core::why::WhyCaller;

use super::Service;

/// `mesh apply`.
#[derive(Clone, Debug, Args)]
pub struct ApplyArgs {
    /// Files or directories (all *.toml below), - for standard input
    #[arg(required_unless_present = "file", value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// The same by a flag
    #[arg(long, short, env = "MESH_APPLY_FILE", value_name = "PATH")]
    pub file: Vec<PathBuf>,
    /// Take files out of force that are not given
    #[arg(long, env = "MESH_APPLY_PRUNE", value_parser = FalseyValueParser::new())]
    pub prune: bool,
    /// Refuse unless this is the version in force, such as 12 or v12
    #[arg(long, env = "MESH_APPLY_IF_VERSION", value_parser = version, value_name = "VERSION")]
    pub if_version: Option<u64>,
    /// Only say what would change
    #[arg(long, env = "MESH_APPLY_DRY_RUN", value_parser = FalseyValueParser::new())]
    pub dry_run: bool,
    /// Why, for people
    #[arg(long, short, env = "MESH_APPLY_MESSAGE", default_value = "")]
    pub message: String,
}

/// `mesh get`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:\n  \
mesh get                        every object of policy\n  \
mesh get allow.orders/readers   one object as TOML\n  \
mesh get service.orders         the policy of a service as TOML\n  \
mesh get service orders         a service of the catalog\n  \
mesh get services|nodes|members|tokens|servers")]
pub struct GetArgs {
    /// An object's id, or a kind of thing
    pub id: Option<String>,
    /// The name of a service or node
    pub name: Option<String>,
}

/// `mesh delete`.
#[derive(Clone, Debug, Args)]
pub struct DeleteArgs {
    /// Objects by id, such as allow.orders/readers, or files by name
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
    /// Refuse unless this is the version in force, such as 12 or v12
    #[arg(long, env = "MESH_DELETE_IF_VERSION", value_parser = version, value_name = "VERSION")]
    pub if_version: Option<u64>,
}

/// `mesh why`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:\n  \
mesh why web db\n  \
mesh why web orders GET /v2/items -H 'x-canary: 1'\n  \
mesh why node:web-7 orders\n\n\
Exits with 0 if the call would pass, and with 1 if it is denied or nobody could answer it.")]
pub struct WhyArgs {
    /// Who calls: a service, node:NAME or spiffe://...
    #[arg(value_parser = caller)]
    pub caller: WhyCaller,
    /// The service called
    pub service: Service,
    /// The HTTP method
    #[arg(requires = "path")]
    pub method: Option<String>,
    /// The path
    pub path: Option<String>,
    /// A header of the request, as 'name: value'
    #[arg(long, short = 'H', env = "MESH_WHY_HEADER", value_parser = header, value_name = "NAME: VALUE", requires = "method")]
    pub header: Vec<(String, String)>,
}

fn version(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix('v').unwrap_or(text);
    digits.parse().map_err(|_| format!("version is {text:?}, expected such as 12 or v12"))
}

fn caller(text: &str) -> Result<WhyCaller, String> {
    if let Some(node) = text.strip_prefix("node:") {
        return node.parse().map(WhyCaller::Node).map_err(|why| format!("{why}"));
    }
    if text.starts_with("spiffe://") {
        return text.parse().map(WhyCaller::Spiffe).map_err(|why| format!("{why}"));
    }
    text.parse()
        .map(WhyCaller::Service)
        .map_err(|why| format!("{why}; a caller is a service, node:NAME or spiffe://..."))
}

/// `name: value`, as curl takes it, or `name=value`.
fn header(text: &str) -> Result<(String, String), String> {
    let cut = text.split_once([':', '=']);
    match cut.map(|(name, value)| (name.trim(), value.trim())) {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err(format!("header is {text:?}, expected 'name: value'")),
    }
}
