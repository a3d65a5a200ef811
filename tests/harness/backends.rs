//! Applications that were not written here: nginx and redis.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::cluster::path;
use crate::eventually;
use crate::net::Host;
use crate::process::Process;

/// An address on the host's own loopback.
pub fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// nginx on `host`, answering every GET with its name and keeping no log of requests.
///
/// # Panics
/// If it does not listen within 10 s.
pub fn nginx(host: &Host, dir: &Path, name: &str, port: u16) -> Process {
    nginx_that(host, dir, port, "off", name)
}

/// nginx on `host`, answering every GET with its name, the request and the caller it was told of, and
/// logging requests to `access.log` in `dir`.
///
/// # Panics
/// As [`nginx`].
pub fn nginx_that_tells(host: &Host, dir: &Path, name: &str, port: u16) -> Process {
    let answer = format!("{name} $request_uri $http_x_mesh_caller $http_x_marker");
    nginx_that(host, dir, port, path(&dir.join("access.log")), &answer)
}

fn nginx_that(host: &Host, dir: &Path, port: u16, log: &str, answer: &str) -> Process {
    let at = dir.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary: String =
        temporary.iter().map(|kind| format!("{kind}_temp_path {at}/{kind};\n")).collect();
    let text = format!(
        "daemon off; master_process off; pid {at}/pid; error_log stderr warn;\n\
         events {{ worker_connections 1024; }}\nhttp {{\naccess_log {log};\n{temporary}\
         server {{ listen 127.0.0.1:{port}; location / {{ return 200 \"{answer}\"; }} }}\n}}\n"
    );
    fs::write(dir.join("nginx.conf"), text).expect("nginx.conf");
    let mut command = host.command("nginx");
    command.args(["-p", path(dir), "-c", path(&dir.join("nginx.conf"))]);
    let process = Process::start(command, &dir.join("log"));
    listening(host, port);
    process
}

/// redis on `host`, keeping nothing on disk.
///
/// # Panics
/// If it does not listen within 10 s.
pub fn redis(host: &Host, dir: &Path, port: u16) -> Process {
    let mut command = host.command("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""]);
    command.args(["--dir", path(dir)]);
    let process = Process::start(command, &dir.join("log"));
    listening(host, port);
    process
}

fn listening(host: &Host, port: u16) {
    eventually("the backend listens", Duration::from_secs(10), || {
        host.run(|| std::net::TcpStream::connect(local(port)).ok()).map(drop)
    });
}
