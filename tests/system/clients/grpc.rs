//! gRPC by the library of its makers.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh_tests::cluster::path;
use mesh_tests::net::Host;
use mesh_tests::process::{Process, Ran, output};
use mesh_tests::{Needs, has, python};

use super::{APP, BATCH, CALLED, Pair, gets_there};
use crate::turn;

/// What is installed from PyPI.
const LIBRARY: &str = "grpcio==1.71.0";

const DENIED: &str = r#"
[[deny.app]]
name = "no-secrets"
from = ["*"]
http = [{ path = "/tests.App/secret" }]
"#;

/// The programs, and a Python that has [`LIBRARY`].
struct Python {
    venv: PathBuf,
    folder: PathBuf,
}

impl Python {
    /// Puts the programs into `folder`.
    fn new(venv: PathBuf, folder: PathBuf) -> Self {
        fs::write(folder.join("server.py"), include_str!("grpc_server.py")).unwrap();
        fs::write(folder.join("client.py"), include_str!("grpc_client.py")).unwrap();
        Self { venv, folder }
    }

    /// The server on `host`.
    fn server(&self, host: &Host) -> Process {
        let mut command = host.command(path(&self.venv.join("bin/python")));
        command.arg(self.folder.join("server.py")).arg(APP.to_string());
        Process::start(command, &self.folder.join("server.log"))
    }

    /// Has the client do `what` through `port` of `host`.
    fn client(&self, host: &Host, what: &str, port: u16) -> Ran {
        let mut command = host.command(path(&self.venv.join("bin/python")));
        command.arg(self.folder.join("client.py")).arg(what).arg(port.to_string());
        output(command, Duration::from_secs(120))
    }
}

#[test]
fn grpc_of_others_passes() {
    let _turn = turn();
    let needs = ["ip", "nsenter", "curl", "python3"].map(Needs::Program);
    if !has(&[&[Needs::Root][..], &needs].concat()) {
        return;
    }
    let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let Some(venv) = python::venv(root, LIBRARY) else { return };
    let pair = Pair::start("grpc", DENIED);
    let python = Python::new(venv, pair.mesh.folder("python"));
    let server = python.server(&pair.back);
    let ran = gets_there("gRPC", || python.client(&pair.front, "caller", CALLED));
    assert!(ran.stdout.trim().ends_with("/svc/web"), "{ran:?}");
    let ran = python.client(&pair.front, "all", CALLED).good();
    println!("measured: gRPC, {}", ran.stdout.trim().replace('\n', ", "));
    let by_rule = python.client(&pair.front, "denied_method", CALLED).good();
    assert!(by_rule.stdout.contains("deny.app/no-secrets"), "{by_rule:?}");
    let by_none = python.client(&pair.front, "denied", BATCH).good();
    assert!(by_none.stdout.contains("denied by default"), "{by_none:?}");
    println!("measured: {}; {}", by_rule.stdout.trim(), by_none.stdout.trim());
    let said = server.output();
    assert!(said.is_empty(), "the application complains: {said}");
}
