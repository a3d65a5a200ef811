//! Clients and servers that were not written here, between two hosts: gRPC, HTTP/2, redis, PostgreSQL.

mod grpc;
mod http;
mod tcp;

use std::time::Duration;

use mesh_tests::cluster::Mesh;
use mesh_tests::net::{Host, Net};
use mesh_tests::process::Ran;
use mesh_tests::within;

/// The port to the service under test on the callers' host, and that of batch, which may not call.
const CALLED: u16 = 9001;
const BATCH: u16 = 9101;
/// What the application listens on.
const APP: u16 = 8081;

const FRONT: &str = r#"
[instance.web-1]
service = "web"
port = 8080
upstreams = [{ service = "app", listen = "127.0.0.1:9001" }]
[instance.batch-1]
service = "batch"
port = 8090
upstreams = [{ service = "app", listen = "127.0.0.1:9101" }]
"#;

const BACK: &str = "[instance.app-1]\nservice = \"app\"\nport = 8081\n";

/// The service `app` on the host `back`, which `web` on the host `front` may call.
struct Pair {
    mesh: Mesh,
    front: Host,
    back: Host,
}

impl Pair {
    /// With `app` speaking `protocol`, and `rules` besides.
    fn start(protocol: &str, rules: &str) -> Self {
        let mut mesh = Mesh::new(Net::new(&["ctl-1", "front", "back"]));
        mesh.add_server("ctl-1");
        mesh.add_agent("back", "app", BACK);
        mesh.add_agent("front", "web,batch", FRONT);
        let policy = format!(
            "[service.app]\nprotocol = \"{protocol}\"\n[[allow.app]]\nfrom = [\"web\"]\n{rules}"
        );
        mesh.apply("mesh.toml", &policy);
        mesh.wait_synced();
        let (front, back) = (mesh.net.host("front").clone(), mesh.net.host("back").clone());
        Self { mesh, front, back }
    }
}

/// Waits until what `ask` does is done well.
fn gets_there(what: &str, ask: impl Fn() -> Ran) -> Ran {
    let mut last = None;
    let good = within(Duration::from_secs(30), || {
        let ran = last.insert(ask());
        (ran.code == Some(0)).then(|| ran.clone())
    });
    good.unwrap_or_else(|| panic!("{what}: {last:?}"))
}
