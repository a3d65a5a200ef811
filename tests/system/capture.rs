//! What an eavesdropper reads between hosts: nothing. The same capture on the plain legs, between
//! an application and its agent, reads all of it.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use mesh_tests::eventually;
use mesh_tests::process::Process;

use crate::world::{WEB_CACHE, WEB_ORDERS, World, local};

/// What goes from one host to the other and back.
const HTTP: [&str; 4] = ["marker-7f3a91-header", "marker-c05d42-body", "/marked", "x-marker"];
const REDIS: [&str; 2] = ["marker-51be08-key", "marker-d9e417-value"];
/// In the clear on the same wire.
const CLEAR: &str = "marker-000000-clear";

/// A tcpdump that runs, and what it has written.
struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    fn start(world: &World, name: &str, mut tcpdump: Command, interface: &str) -> Self {
        let dir = world.mesh.folder("capture");
        let file = dir.join(format!("{name}.pcap"));
        tcpdump.args(["-i", interface, "-s", "0", "-U", "-Z", "root", "-w"]).arg(&file);
        let process = Process::start(tcpdump, &dir.join(format!("{name}.log")));
        eventually("the capture runs", Duration::from_secs(10), || {
            process.output().contains("listening on").then_some(())
        });
        Self { process, file }
    }

    fn holds(&self, text: &str) -> bool {
        let bytes = fs::read(&self.file).unwrap_or_default();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    }

    fn wait_for(&self, text: &str) {
        let what = format!("{text:?} is in {}", self.file.display());
        eventually(&what, Duration::from_secs(10), || self.holds(text).then_some(()));
    }

    /// Ends it with all that it saw written; how many bytes that is.
    fn stop(&mut self) -> u64 {
        let code = self.process.stop(Duration::from_secs(10));
        assert_eq!(code, Some(0), "{}", self.process.output());
        fs::metadata(&self.file).unwrap().len()
    }
}

/// Neither HTTP nor TCP, neither heads nor bodies, one way or the other.
pub(crate) fn nothing_is_readable_between_hosts(world: &World) {
    let (front, back) = (world.front(), world.back());
    let switch = world.mesh.net.on_switch("tcpdump");
    let mut between = Capture::start(world, "between", switch, "br0");
    let mut plain = [("front", &front), ("back", &back)]
        .map(|(name, host)| Capture::start(world, name, host.command("tcpdump"), "lo"));
    front.run(|| {
        marked_http();
        eventually("web reaches cache", Duration::from_secs(20), || marked_redis().ok());
        let plain: SocketAddr = (back.ip, 9).into();
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(CLEAR.as_bytes(), plain).unwrap();
    });
    between.wait_for(CLEAR);
    for leg in &plain {
        HTTP.iter().chain(&REDIS).for_each(|text| leg.wait_for(text));
    }
    let bytes = between.stop();
    let legs: u64 = plain.iter_mut().map(Capture::stop).sum();
    for text in HTTP.iter().chain(&REDIS) {
        assert!(!between.holds(text), "{text:?} can be read between the hosts");
    }
    println!("measured: {bytes} bytes captured between hosts hold no marker, {legs} beside do");
}

fn marked_http() {
    let [header, body, path, name] = HTTP;
    let mut open = mesh_tests::http::Connection::open(local(WEB_ORDERS), "orders").unwrap();
    for _ in 0..5 {
        let answer = open.send("POST", path, &[(name, header)], body).unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.body.contains(header), "the marker went there and back: {answer:?}");
    }
}

/// Fails while the agent does not know the way to redis yet.
fn marked_redis() -> io::Result<()> {
    let [key, value] = REDIS;
    let mut stream = TcpStream::connect(local(WEB_CACHE))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let answer = format!("+OK\r\n${}\r\n{value}\r\n", value.len());
    stream.write_all(format!("SET {key} {value}\r\nGET {key}\r\n").as_bytes())?;
    let mut read = vec![0; answer.len()];
    stream.read_exact(&mut read)?;
    assert_eq!(String::from_utf8_lossy(&read), answer);
    Ok(())
}
