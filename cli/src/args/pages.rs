//! Completions and manual pages, made from the command line's own description.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;
use crate::error::CliError;
use crate::output::note;

/// The completions for `shell`.
pub(crate) fn completions(shell: Shell) -> String {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "mesh", &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// Writes a manual page for every command into `dir`.
pub(crate) fn man(dir: &Path) -> Result<(), CliError> {
    std::fs::create_dir_all(dir).map_err(|why| CliError::file("make", dir, why))?;
    clap_mangen::generate_to(Cli::command(), dir)
        .map_err(|why| CliError::file("write manual pages to", dir, why))?;
    note(&format!("manual pages are in {}; read one by: man -l {0}/mesh.1", dir.display()));
    Ok(())
}
