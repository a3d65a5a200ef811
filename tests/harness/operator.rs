//! An operator: runs `mesh` against the servers, from any thread, while the mesh changes.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::net::Host;
use crate::process::{Ran, output};

/// Where the servers are and the token to show them.
#[derive(Clone, Debug)]
pub struct Operator {
    /// Where it sits.
    pub host: Host,
    /// The servers' addresses, in the order in which they are tried.
    pub servers: Vec<String>,
    /// The file of its token.
    pub token: PathBuf,
}

impl Operator {
    /// Runs `mesh`.
    ///
    /// # Panics
    /// If it takes over 60 s.
    pub fn cli(&self, args: &[&str]) -> Ran {
        let mut command = self.host.mesh("mesh");
        command.env("MESH_ADDR", self.servers.join(",")).env("MESH_TOKEN_FILE", &self.token);
        command.args(args);
        output(command, Duration::from_secs(60))
    }

    /// The JSON that `mesh ... -o json` prints, whatever its exit code; null if it prints none.
    ///
    /// # Panics
    /// As [`Self::cli`].
    pub fn json(&self, args: &[&str]) -> Value {
        let ran = self.cli(&[args, &["-o", "json"]].concat());
        serde_json::from_str(&ran.stdout).unwrap_or_default()
    }
}
