//! Who calls is the kernel's word: ports of a service refuse the processes of others.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
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
/// A user that no service runs as.
const NOBODY: u32 = 65_534;

fn curl(mut command: Command, port: u16, path: &str) -> Ran {
    let url = format!("http://127.0.0.1:{port}{path}");
    command.args(["-s", "-w", " %{http_code}", "--max-time", "5", "-H", "host: orders", &url]);
    output(command, Duration::from_secs(10))
}

/// Ports that name a user or a unit, and those who have no business there.
pub(crate) fn ports_belong_to_their_service(world: &World) {
    may_host_and_call(world);
    by_host_and_gone_at_once(world);
    let units = Units::make();
    declare(world, units.as_ref());
    let front = world.front();
    eventually("the job's user is let in", Duration::from_secs(10), || {
        let ran = curl(front.command_as(JOB_UID, "curl"), JOB_ORDERS, "/job");
        ran.stdout.ends_with(" 200").then_some(())
    });
    let ran = curl(front.command_as(JOB_UID, "curl"), JOB_ORDERS, "/job");
    assert!(ran.stdout.contains("/svc/job"), "the backend is told of another caller: {ran:?}");
    for uid in [0, NOBODY, JOB_UID + 1] {
        let ran = curl(front.command_as(uid, "curl"), JOB_ORDERS, "/stolen-by-user");
        assert!(!ran.stdout.ends_with(" 200"), "user {uid} uses the job's port: {ran:?}");
    }
    by_host(world);
    sent_and_closed_at_once(world, JOB_ORDERS);
    if let Some(units) = &units {
        only_its_unit_is_let_in(world, units);
        by_host_and_unit(world, units);
    }
    let passed = world.asked("/stolen");
    assert_eq!(passed, 0, "requests of others reached the backend");
}

/// The Host-routed listener: who calls decides as whom.
fn by_host(world: &World) {
    let front = world.front();
    let ran = curl(front.command_as(JOB_UID, "curl"), BY_HOST, "/job-by-host");
    assert!(ran.stdout.ends_with(" 200") && ran.stdout.contains("/svc/job"), "{ran:?}");
    for uid in [0, NOBODY, JOB_UID + 1] {
        let ran = curl(front.command_as(uid, "curl"), BY_HOST, "/stolen-by-host");
        assert!(is_nobody_here(&ran, uid), "user {uid} uses the listener: {ran:?}");
    }
}

/// Whether the listener itself refused `uid`, whatever the rules of the callee are.
fn is_nobody_here(ran: &Ran, uid: u32) -> bool {
    let told = ran.stdout.contains(&format!("caller is uid {uid}, which is no service"));
    told && ran.stdout.ends_with(" 403")
}

/// The same by systemd unit: a process in the unit's cgroup is the service, and no other is.
fn by_host_and_unit(world: &World, units: &Units) {
    let front = world.front();
    let inside = units.command_in(&units.inside, &front.command("curl"));
    let ran = curl(inside, BY_HOST, "/cron-by-host");
    assert!(ran.stdout.ends_with(" 200") && ran.stdout.contains("/svc/cron"), "{ran:?}");
    for (who, command) in units.others(&front.command("curl")) {
        let ran = curl(command, BY_HOST, "/stolen-by-host");
        assert!(is_nobody_here(&ran, 0), "{who} uses the listener: {ran:?}");
    }
}

/// A socket whose maker is gone says that it is root's while what was sent can still be read. So
/// there is a service that runs as root, and a stranger who is gone at once must not become it. No
/// service names a unit meanwhile: that alone would make callers without a cgroup unknown.
fn by_host_and_gone_at_once(world: &World) {
    let front = world.front();
    let text = "[instance.chief-1]\nservice = \"chief\"\nport = 8103\nuser = \"root\"\n";
    let file = world.mesh.agent("front").dir.join("services.d/chief.toml");
    fs::write(&file, text).unwrap();
    eventually("root is let in as chief", Duration::from_secs(10), || {
        let ran = curl(front.command("curl"), BY_HOST, "/chief");
        (ran.stdout.ends_with(" 200") && ran.stdout.contains("/svc/chief")).then_some(())
    });
    front.run(|| {
        let nobody = rustix::thread::Uid::from_raw(NOBODY);
        // Of this thread alone, which ends here: its sockets are that user's.
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        let waited = mesh_tests::http::get(local(BY_HOST), "orders", "/stolen-by-nobody").unwrap();
        assert_eq!(waited.status, 403, "who waits is known: {waited:?}");
        send_and_close(BY_HOST);
    });
    nothing_came_of_it(world);
    fs::remove_file(&file).unwrap();
    eventually("root is nobody again", Duration::from_secs(10), || {
        let ran = curl(front.command("curl"), BY_HOST, "/chief-no-more");
        is_nobody_here(&ran, 0).then_some(())
    });
}

/// Lets the callers' host have the services of these tests, and those call orders.
fn may_host_and_call(world: &World) {
    let mesh = &world.mesh;
    let node = ["node", "policy", "front", "--service", "web,batch,job,cron,chief"];
    mesh.cli(&node).good();
    let rule = "[[allow.orders]]\nname = \"more\"\nfrom = [\"job\", \"cron\", \"chief\"]\n";
    mesh.apply("callers.toml", rule);
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
    // The agent watches the folder.
    fs::write(world.mesh.agent("front").dir.join("services.d/callers.toml"), text).unwrap();
}

/// As root, who is not the job: the agent must not take the socket's word once its maker is gone.
fn sent_and_closed_at_once(world: &World, port: u16) {
    world.front().run(|| send_and_close(port));
    nothing_came_of_it(world);
}

/// Sends whole requests to `port` and is gone, in three ways.
fn send_and_close(port: u16) {
    for round in 0..150 {
        let path = format!("/stolen-at-once-{round}");
        let request = format!("GET {path} HTTP/1.1\r\nhost: orders\r\nconnection: close\r\n\r\n");
        let Ok(mut stream) = TcpStream::connect_timeout(&local(port), Duration::from_secs(2))
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
}

/// A request that may pass, after those of [`send_and_close`]: what they sent would be in the log
/// by then.
fn nothing_came_of_it(world: &World) {
    std::thread::sleep(Duration::from_millis(300));
    let before = world.asked("/after-them");
    let after =
        world.front().run(|| mesh_tests::http::get(local(WEB_ORDERS), "orders", "/after-them"));
    assert_eq!(after.unwrap().status, 200);
    // nginx writes its line after it has answered.
    eventually("the request is in the log", Duration::from_secs(5), || {
        (world.asked("/after-them") == before + 1).then_some(())
    });
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
    for (who, command) in units.others(&front.command("curl")) {
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

    /// `command` by processes that are not the unit's, and who those are.
    fn others(&self, command: &Command) -> [(&'static str, Command); 3] {
        let mut nowhere = Command::new(command.get_program());
        nowhere.args(command.get_args());
        [
            ("no unit", nowhere),
            ("another unit", self.command_in(&self.other, command)),
            // As a user could make it: alike in its last part.
            ("a unit of the same name", self.command_in(&self.alike, command)),
        ]
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
