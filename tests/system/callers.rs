//! Who calls is the kernel's word: ports of a service refuse the processes of others.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mesh_tests::eventually;
use mesh_tests::process::{Ran, output};
use rustix::net::sockopt::set_socket_linger;

use crate::world::{WEB_ORDERS, World, local};

/// The user of the service `job`, and its port to orders.
const JOB_UID: u32 = 4242;
const JOB_ORDERS: u16 = 9201;
/// The port to orders of the service `cron`, which is told by its unit.
const CRON_ORDERS: u16 = 9301;
/// The listener that routes by Host.
const BY_HOST: u16 = 7380;

fn curl(mut command: Command, port: u16, path: &str) -> Ran {
    let url = format!("http://127.0.0.1:{port}{path}");
    command.args(["-s", "-w", " %{http_code}", "--max-time", "5", "-H", "host: orders", &url]);
    output(command, Duration::from_secs(10))
}

/// Ports that name a user or a unit, and those who have no business there.
pub(crate) fn ports_belong_to_their_service(world: &World) {
    let units = Units::make();
    declare(world, units.as_ref());
    let front = world.front();
    eventually("the job's user is let in", Duration::from_secs(10), || {
        let ran = curl(front.command_as(JOB_UID, "curl"), JOB_ORDERS, "/job");
        ran.stdout.ends_with(" 200").then_some(())
    });
    let ran = curl(front.command_as(JOB_UID, "curl"), JOB_ORDERS, "/job");
    assert!(ran.stdout.contains("/svc/job"), "the backend is told of another caller: {ran:?}");
    for uid in [0, 65_534, JOB_UID + 1] {
        let ran = curl(front.command_as(uid, "curl"), JOB_ORDERS, "/stolen-by-user");
        assert!(!ran.stdout.ends_with(" 200"), "user {uid} uses the job's port: {ran:?}");
    }
    by_host(world);
    sent_and_closed_at_once(world);
    if let Some(units) = &units {
        only_its_unit_is_let_in(world, units);
    }
    let passed = world.asked("/stolen");
    assert_eq!(passed, 0, "requests of others reached the backend");
}

/// The Host-routed listener: who calls decides as whom.
fn by_host(world: &World) {
    let front = world.front();
    let ran = curl(front.command_as(JOB_UID, "curl"), BY_HOST, "/job-by-host");
    assert!(ran.stdout.ends_with(" 200") && ran.stdout.contains("/svc/job"), "{ran:?}");
    let ran = curl(front.command_as(65_534, "curl"), BY_HOST, "/stolen-by-host");
    assert!(ran.stdout.ends_with(" 403"), "a stranger uses the listener: {ran:?}");
}

fn declare(world: &World, units: Option<&Units>) {
    let mut text = format!(
        "[instance.job-1]\nservice = \"job\"\nport = 8101\nuser = \"{JOB_UID}\"\n\
         upstreams = [{{ service = \"orders\", listen = \"127.0.0.1:{JOB_ORDERS}\" }}]\n"
    );
    if let Some(units) = units {
        text.push_str(&format!(
            "[instance.cron-1]\nservice = \"cron\"\nport = 8102\nunit = \"{}\"\n\
             upstreams = [{{ service = \"orders\", listen = \"127.0.0.1:{CRON_ORDERS}\" }}]\n",
            units.unit
        ));
    }
    let mesh = &world.mesh;
    let node = ["node", "policy", "front", "--service", "web,batch,job,cron"];
    mesh.cli(&node).good();
    mesh.apply("callers.toml", "[[allow.orders]]\nname = \"more\"\nfrom = [\"job\", \"cron\"]\n");
    // The agent watches the folder.
    fs::write(mesh.agent("front").dir.join("services.d/callers.toml"), text).unwrap();
}

/// As root, who is not the job: the agent must not take the socket's word once its maker is gone.
fn sent_and_closed_at_once(world: &World) {
    let front = world.front();
    let address = local(JOB_ORDERS);
    front.run(|| {
        for round in 0..150 {
            let path = format!("/stolen-at-once-{round}");
            let request =
                format!("GET {path} HTTP/1.1\r\nhost: orders\r\nconnection: close\r\n\r\n");
            let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(2))
            else {
                continue;
            };
            match round % 3 {
                // A reset instead of an orderly end, before anything is read.
                0 => set_socket_linger(&stream, Some(Duration::ZERO)).unwrap(),
                1 => stream.set_nodelay(true).unwrap(),
                _ => {}
            }
            // The agent may be faster and have closed already.
            let _closed = stream.write_all(request.as_bytes());
        }
    });
    // A request that may pass, after them: what they sent would be in the log by now.
    std::thread::sleep(Duration::from_millis(300));
    let after = front.run(|| mesh_tests::http::get(local(WEB_ORDERS), "orders", "/after-them"));
    assert_eq!(after.unwrap().status, 200);
    assert_eq!(world.asked("/after-them"), 1);
    assert_eq!(world.asked("/stolen-at-once"), 0, "a client that sent and closed got through");
}

fn only_its_unit_is_let_in(world: &World, units: &Units) {
    let front = world.front();
    eventually("the unit is let in", Duration::from_secs(10), || {
        let ran =
            curl(units.command_in(&units.inside, &front.command("curl")), CRON_ORDERS, "/cron");
        ran.stdout.ends_with(" 200").then_some(())
    });
    let ran = curl(units.command_in(&units.inside, &front.command("curl")), CRON_ORDERS, "/cron");
    assert!(ran.stdout.contains("/svc/cron"), "the backend is told of another caller: {ran:?}");
    let others = [
        ("no unit", front.command("curl")),
        ("another unit", units.command_in(&units.other, &front.command("curl"))),
        // As a user could make it: alike in its last part.
        ("a unit of the same name", units.command_in(&units.alike, &front.command("curl"))),
    ];
    for (who, command) in others {
        let ran = curl(command, CRON_ORDERS, "/stolen-by-unit");
        assert!(!ran.stdout.ends_with(" 200"), "{who} uses the unit's port: {ran:?}");
    }
}

/// Three cgroups as systemd would make them; removed when dropped.
struct Units {
    root: PathBuf,
    /// The unit's path as a host file names it.
    unit: String,
    inside: PathBuf,
    other: PathBuf,
    alike: PathBuf,
}

impl Units {
    /// `None`, with the reason printed, where cgroup v2 cannot be written.
    fn make() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
        let mount = mount.and_then(|line| line.split(' ').nth(1)).map(Path::new);
        let slice = format!("mesh-test-{}.slice", std::process::id());
        let made = mount.ok_or_else(|| "there is no cgroup v2".to_owned()).and_then(|mount| {
            let root = mount.join(&slice);
            let paths = ["cron.service", "other.service", "user.slice/cron.service"];
            let [inside, other, alike] = paths.map(|path| root.join(path));
            let unit = format!("/{slice}/cron.service");
            for path in [&inside, &other, &alike] {
                fs::create_dir_all(path).map_err(|why| format!("{}: {why}", path.display()))?;
            }
            Ok(Self { root, unit, inside, other, alike })
        });
        let required = std::env::var("MESH_TESTS_REQUIRE").is_ok_and(|value| value == "all");
        match made {
            Ok(units) => Some(units),
            Err(why) if required => panic!("no units: {why}"),
            Err(why) => {
                println!("skipped: callers by unit: {why}");
                None
            }
        }
    }

    /// `command`, started from within the cgroup at `unit`.
    fn command_in(&self, unit: &Path, command: &Command) -> Command {
        let mut within = Command::new("sh");
        within.args(["-c", "echo $$ > \"$0\"/cgroup.procs && exec \"$@\""]).arg(unit);
        within.arg(command.get_program()).args(command.get_args());
        within
    }
}

impl Drop for Units {
    fn drop(&mut self) {
        let parent = self.alike.parent().unwrap_or(&self.root);
        for path in [&self.inside, &self.other, &self.alike, parent, &self.root] {
            // What is left does no harm, and a test that failed says more.
            let _left = fs::remove_dir(path);
        }
    }
}

/// Between hosts nothing can be read: neither headers nor bodies, one way or the other.
pub(crate) fn nothing_is_readable_between_hosts(world: &World) {
    let pcap = world.mesh.folder("capture").join("traffic.pcap");
    let mut tcpdump = world.mesh.net.on_switch("tcpdump");
    tcpdump.args(["-i", "br0", "-s", "0", "-U", "-Z", "root", "-w"]).arg(&pcap);
    let log = world.mesh.folder("capture").join("log");
    let mut capture = mesh_tests::process::Process::start(tcpdump, &log);
    eventually("the capture runs", Duration::from_secs(10), || {
        capture.output().contains("listening on").then_some(())
    });
    let (header, body) = ("marker-7f3a91-header", "marker-c05d42-body");
    let front = world.front();
    front.run(|| {
        let mut open = mesh_tests::http::Connection::open(local(WEB_ORDERS), "orders").unwrap();
        for _ in 0..5 {
            let answer = open.send("POST", "/marked", &[("x-marker", header)], body).unwrap();
            assert_eq!(answer.status, 200);
            assert!(answer.body.contains(header), "the marker went there and back: {answer:?}");
        }
        // In the clear, so that the capture is known to see what passes.
        let plain: SocketAddr = (world.back().ip, 9).into();
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(b"marker-000000-clear", plain).unwrap();
    });
    let read = || fs::read(&pcap).unwrap_or_default();
    let holds = |bytes: &[u8], text: &str| {
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    };
    eventually("the capture holds what was in the clear", Duration::from_secs(10), || {
        holds(&read(), "marker-000000-clear").then_some(())
    });
    assert_eq!(capture.stop(Duration::from_secs(10)), Some(0), "{}", capture.output());
    let bytes = read();
    for text in [header, body, "/marked", "x-marker"] {
        assert!(!holds(&bytes, text), "{text:?} can be read between the hosts");
    }
    println!("measured: capture of {} bytes between hosts, no marker in it", bytes.len());
}
