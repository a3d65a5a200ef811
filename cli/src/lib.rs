//! `mesh`, the operator's command. [`run`] does what a command line says; only `main` exits.
//!
//! Reading order: [`args`] is the command line, [`context`] where servers and tokens come from,
//! `commands` ask and print, `render` makes text of answers and is pure.

pub mod args;
mod limits;

pub mod context;

pub mod error;

pub mod output;

mod times;

mod files;

mod agent;

mod render;

mod commands;

#[cfg(feature = "dev")]
mod dev;

use args::Cli;
use context::Context;
use error::CliError;

/// Does what `cli` says.
///
/// # Errors
/// [`CliError`] if it could not be done, or the answer is no; it carries the exit code.
pub async fn run(cli: Cli) -> Result<(), CliError> {
    let context = Context::new(cli.global)?;
    commands::run(&context, cli.command).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    async fn outcome(words: &[&str]) -> Result<(), CliError> {
        let words = ["mesh"].iter().chain(words).map(std::ffi::OsString::from);
        run(args::parse(words).unwrap()).await
    }

    #[tokio::test]
    async fn bad_files_are_refused_before_tokens_or_servers_matter() {
        let dir = tempfile::tempdir().unwrap();
        let (bad, good) = (dir.path().join("bad.toml"), dir.path().join("good.toml"));
        std::fs::write(&bad, "[service.orders]\nprotocl = \"http\"\n").unwrap();
        std::fs::write(&good, "[service.orders]\nprotocol = \"http\"\n").unwrap();
        let settings = dir.path().join("cli.toml");
        std::fs::write(&settings, "").unwrap();
        let at = |path: &std::path::Path| path.to_str().unwrap().to_owned();
        let (bad, good, settings) = (at(&bad), at(&good), at(&settings));

        let error = outcome(&["apply", &bad, "--settings", &settings]).await.unwrap_err();
        assert_eq!(error.exit(), error::Exit::No);
        assert!(error.to_string().contains("bad.toml:2:1: unknown key"), "{error}");
        let error = outcome(&["apply", &good, "--settings", &settings]).await.unwrap_err();
        assert!(error.to_string().contains("no API token"), "{error}");

        let error = outcome(&["lint", &bad, "--settings", &settings]).await.unwrap_err();
        assert_eq!((error.exit(), error.text()), (error::Exit::No, None), "lint said it already");
        assert!(outcome(&["lint", &good, "--settings", &settings]).await.is_ok());
    }
}
