//! The README's five minutes as they stand there: its commands typed, its files written, on hosts
//! with names, files and a `/run` of their own. What the page says of the outcome is held as well.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use mesh_tests::backends::nginx;
use mesh_tests::net::{Host, Net};
use mesh_tests::notify::Notify;
use mesh_tests::process::{Process, Ran, binary, output};
use mesh_tests::{Needs, eventually, has};

const NEEDS: &[Needs] = &[
    Needs::Root,
    Needs::Program("ip"),
    Needs::Program("nsenter"),
    Needs::Program("unshare"),
    Needs::Program("curl"),
    Needs::Program("nginx"),
];
const NAMES: [&str; 4] = ["ctl-1", "ctl-2", "ctl-3", "web-1"];
/// Longer than the README says that anything takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is done with a block of the page, in the order of the page.
enum Step {
    /// Typed on a host.
    Type(&'static str),
    /// Typed on a host, then on others with their name for the first one's.
    Each(&'static [&'static str]),
    /// Written to a file on a host; the page names both before the block.
    File(&'static str, &'static str),
}

#[test]
fn the_five_minutes_of_the_readme_work_as_written() {
    if !has(NEEDS) {
        return;
    }
    let _turn = crate::turn();
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let (_, tour) = page.split_once("\n## Five minutes\n").unwrap();
    let (two, three) = tour.split_once("\n### Three servers\n").unwrap();
    let (three, _) = three.split_once("\n## ").unwrap();
    let Some(units) = Units::make() else { return };
    let mut lab = Lab::new(units);
    let orders = lab.home.path().join("orders");
    fs::create_dir(&orders).unwrap();
    let _orders = nginx(&lab.at("ctl-1").host, &orders, "orders", 8081);

    lab.follow(
        two,
        &[
            Step::Type("ctl-1"),
            Step::Type("ctl-1"),
            Step::Each(&["ctl-1", "web-1"]),
            Step::File("ctl-1", "/etc/mesh/services.d/orders.toml"),
            Step::File("web-1", "/etc/mesh/services.d/web.toml"),
            Step::File("ctl-1", "policy/orders.toml"),
            Step::Type("ctl-1"),
            Step::Type("ctl-1"),
        ],
    );
    lab.only_web_gets_through();

    lab.follow(three, &[Step::Each(&["ctl-2", "ctl-3"]), Step::Each(&["ctl-2", "ctl-3"])]);
    lab.any_server_may_be_lost();
}

/// Hosts with files of their own, and what runs there.
struct Lab {
    machines: Vec<Machine>,
    units: Units,
    home: tempfile::TempDir,
    _net: Net,
}

impl Lab {
    fn new(units: Units) -> Self {
        let net = Net::new(&NAMES);
        let home = tempfile::tempdir().unwrap();
        let names = NAMES.map(|name| format!("{} {name}\n", net.host(name).ip)).concat();
        let hosts = home.path().join("hosts");
        fs::write(&hosts, format!("127.0.0.1 localhost\n{names}")).unwrap();
        let boot = |name| Machine::boot(net.host(name), home.path(), &hosts, &units.root);
        let machines = NAMES.map(boot).into();
        Self { machines, units, home, _net: net }
    }

    fn at(&self, name: &str) -> &Machine {
        self.machines.iter().find(|machine| machine.host.name == name).unwrap()
    }

    fn at_mut(&mut self, name: &str) -> &mut Machine {
        self.machines.iter_mut().find(|machine| machine.host.name == name).unwrap()
    }

    /// Takes the blocks of `part` one by one.
    fn follow(&mut self, part: &str, steps: &[Step]) {
        let blocks = blocks(part);
        let page: Vec<&str> = blocks.iter().map(|(_, block)| block.as_str()).collect();
        assert_eq!(blocks.len(), steps.len(), "the page has other blocks: {page:#?}");
        for (step, (before, block)) in steps.iter().zip(&blocks) {
            match step {
                Step::Type(host) => self.typed(host, block),
                Step::Each(hosts) => {
                    for host in *hosts {
                        self.typed_as(hosts[0], host, block);
                    }
                }
                Step::File(host, file) => {
                    let named =
                        [host, file].iter().all(|name| before.contains(&format!("`{name}`")));
                    assert!(named, "{file} on {host} is not what the page says: {before}");
                    self.at(host).write(file, block);
                }
            }
        }
    }

    /// The block of `first`, on `host` under its name. Tokens are made where the admin's is.
    fn typed_as(&mut self, first: &str, host: &str, block: &str) {
        if block.starts_with("mesh token create") {
            return self.typed("ctl-1", &block.replace(first, host));
        }
        let file = format!("/root/{host}.token");
        if host != "ctl-1" {
            let token = fs::read(self.at("ctl-1").path(&file)).unwrap();
            fs::write(self.at(host).path(&file), token).unwrap();
        }
        // The server that is joined keeps its name.
        let own = block.replace(&format!("/root/{first}.token"), &file);
        let own = if first == "ctl-1" { own } else { own.replace(first, host) };
        self.typed(host, &own);
    }

    fn typed(&mut self, host: &str, block: &str) {
        for line in block.lines() {
            let (command, comment) = line.split_once('#').unwrap_or((line, ""));
            self.at_mut(host).typed(command.trim(), comment);
        }
    }

    /// What the page says of callers: web may GET, nothing else, and nobody else may anything.
    fn only_web_gets_through(&self) {
        let code = |who: &str, method: &str| {
            let ran = self.call(who, &["-X", method, "http://127.0.0.1:9001/v2/x"]);
            ran.stdout.lines().last().map(str::to_owned)
        };
        assert_eq!(code("web.service", "GET").as_deref(), Some("200"));
        assert_eq!(code("web.service", "POST").as_deref(), Some("403"));
        assert_eq!(code("other.service", "GET").as_deref(), Some("403"));
    }

    /// curl on web-1 from within a unit; the last line is the status.
    fn call(&self, unit: &str, args: &[&str]) -> Ran {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$0\"/cgroup.procs && exec \"$@\""]);
        command.arg(self.units.unit(unit));
        let curl = self.at("web-1").host.command("curl");
        command.arg(curl.get_program()).args(curl.get_args());
        command.args(["-s", "-w", "\n%{http_code}", "--max-time", "5"]).args(args);
        output(command, Duration::from_secs(10))
    }

    /// Each server is stopped in turn: agents go to another, one of which takes writes.
    fn any_server_may_be_lost(&mut self) {
        let all = "MESH_ADDR=ctl-1:7300,ctl-2:7300,ctl-3:7300";
        let well = format!("{all} mesh status");
        let write = format!("{all} mesh token create --role metrics");
        self.at("ctl-1").until(&well, 0, PATIENCE);
        for lost in ["ctl-1", "ctl-2", "ctl-3"] {
            self.at_mut(lost).systemctl("stop meshd");
            self.at("ctl-1").until(&write, 0, PATIENCE);
            let other = format!("grep '\"server\": \"ctl-' | grep -v {lost}:7300");
            for host in ["ctl-1", "web-1"] {
                let asked = format!("curl -s 127.0.0.1:7302/status | {other}");
                self.at(host).until(&asked, 0, PATIENCE);
            }
            self.only_web_gets_through();
            self.at_mut(lost).systemctl("start meshd");
            self.at("ctl-1").until(&well, 0, PATIENCE);
        }
    }
}

/// The indented blocks of a page, each with the text before it.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    let (mut before, mut block) = (String::new(), String::new());
    for line in page.lines().chain(["end"]) {
        match line.strip_prefix("    ") {
            Some(line) => block.push_str(&format!("{line}\n")),
            None if line.is_empty() && !block.is_empty() => block.push('\n'),
            None if block.is_empty() => before.push_str(line),
            None => {
                let text = format!("{}\n", block.trim_end());
                all.push((std::mem::replace(&mut before, line.to_owned()), text));
                block.clear();
            }
        }
    }
    all
}

/// A host that looks as one does after the installation: its own name, `/etc`, `/root`, `/run` and
/// `/var/lib`. Nothing of that is on this machine's disk, and all of it ends with `init`.
struct Machine {
    host: Host,
    /// What runs, by unit.
    running: Vec<(String, Process, Notify)>,
    init: Process,
    dir: PathBuf,
    cgroup_root: PathBuf,
}

impl Machine {
    fn boot(host: &Host, home: &Path, hosts: &Path, cgroup_root: &Path) -> Self {
        let dir = home.join(&host.name);
        fs::create_dir_all(dir.join("files")).unwrap();
        let mut command = host.command("unshare");
        command.args(["--mount", "--uts", "sh", "-ec", BOOT, &host.name]).arg(&dir).arg(hosts);
        command.arg(binary("mesh").parent().unwrap());
        let init = Process::start(command, &dir.join("init.log"));
        eventually("a host is up", PATIENCE, || {
            fs::read_to_string(dir.join("init.log")).unwrap().contains("up\n").then_some(())
        });
        let cgroup_root = cgroup_root.to_owned();
        Self { host: host.clone(), running: Vec::new(), init, dir, cgroup_root }
    }

    /// A path of this host as it is reached from outside.
    fn path(&self, file: &str) -> PathBuf {
        let file = Path::new("/root").join(file);
        Path::new(&format!("/proc/{}/root", self.init.pid())).join(file.strip_prefix("/").unwrap())
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A command in this host, where the binaries are on the path.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let target = format!("--target={}", self.init.pid());
        command.args([&target, "--mount", "--uts", "--net"]).arg(program);
        command.env("PATH", format!("{BINARIES}:/usr/sbin:/usr/bin:/sbin:/bin"));
        command.env("MESH_AGENT_CGROUP_ROOT", &self.cgroup_root);
        command
    }

    fn shell(&self, line: &str) -> Ran {
        let mut command = self.command("sh");
        command.args(["-c", &format!("cd /root && {line}")]);
        output(command, Duration::from_secs(70))
    }

    /// Types a line; its comment on the page may tell the exit code and what is said.
    fn typed(&mut self, line: &str, comment: &str) {
        if let Some(args) = line.strip_prefix("systemctl ") {
            return self.systemctl(args);
        }
        let (code, said) = match comment.trim().strip_prefix("exit code ") {
            Some(promise) => promise.split_once(": ").unwrap(),
            None => ("0", ""),
        };
        let code = code.parse().unwrap();
        // The page gives it a moment: agents and checks are at work.
        let asks = line.starts_with("mesh why ") || line == "mesh status";
        let ran = self.until(line, code, if asks { PATIENCE } else { Duration::ZERO });
        // `allow.orders/readers, orders.toml:4`: names and places, not words
        let names = said.split(", ").filter(|name| name.contains(['/', ':']));
        for name in names {
            assert!(ran.stdout.contains(name), "{line}: {name} is promised: {ran:?}");
        }
    }

    /// Runs a line, again and again while there is patience, until it exits with `code`.
    fn until(&self, line: &str, code: i32, patience: Duration) -> Ran {
        let deadline = Instant::now() + patience;
        loop {
            let ran = self.shell(line);
            if ran.code == Some(code) {
                return ran;
            }
            let name = &self.host.name;
            assert!(Instant::now() < deadline, "{name}: {line}: {ran:?}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn logs(&self) -> String {
        self.running
            .iter()
            .map(|(unit, process, _)| format!("{unit}:\n{}", process.output()))
            .collect()
    }

    /// What systemd does with the units of this project: they notify, and stop when asked to.
    fn systemctl(&mut self, args: &str) {
        match args.rsplit_once(' ').unwrap() {
            ("enable --now" | "start", unit) => self.start(unit),
            ("stop", unit) => self.stop(unit),
            (verb, _) => panic!("systemctl {verb}"),
        }
    }

    fn start(&mut self, unit: &str) {
        let dir = self.dir.join(unit);
        fs::create_dir_all(&dir).unwrap();
        let mut command = self.command(&format!("{BINARIES}/{unit}"));
        let notify = Notify::bind(&dir, &mut command);
        let mut process = Process::start(command, &dir.join("log"));
        eventually(&format!("{unit} of {} is ready", self.host.name), PATIENCE, || {
            assert!(process.is_alive(), "{unit} of {}: {}", self.host.name, process.output());
            notify.said().iter().any(|line| line == "READY=1").then_some(())
        });
        self.running.push((unit.to_owned(), process, notify));
    }

    fn stop(&mut self, unit: &str) {
        let at = self.running.iter().position(|(name, ..)| name == unit).unwrap();
        let (_, mut process, _notify) = self.running.remove(at);
        assert_eq!(process.stop(PATIENCE), Some(0), "{unit}: {}", process.output());
    }
}

/// Where a host has the binaries: the tree itself may lie below what it has of its own.
const BINARIES: &str = "/run/binaries";
/// `$0` is the host's name, `$1` its folder, `$2` the file of all names, `$3` the binaries' folder.
const BOOT: &str = r#"
hostname "$0"
files=$1/files
mount -t tmpfs tmpfs "$files"
mkdir "$files/etc" "$files/root" "$files/run" "$files/lib"
cp -a /etc/. "$files/etc"
rm -rf "$files/etc/mesh" "$files/etc/hosts"
cp "$2" "$files/etc/hosts"
mkdir -p "$files/etc/mesh/services.d" "$files/run/mesh" "$files/run/binaries" "$files/lib/mesh-agent"
mount --bind "$3" "$files/run/binaries"
for pair in etc:/etc root:/root run:/run lib:/var/lib; do
    mount --rbind "$files/${pair%%:*}" "${pair#*:}"
done
echo up
exec sleep infinity
"#;

/// Units as systemd would make them, under a cgroup of the test.
struct Units {
    root: PathBuf,
}

impl Units {
    /// `None`, with the reason printed, where cgroup v2 cannot be written.
    fn make() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
        let mount = Path::new(mount.and_then(|line| line.split(' ').nth(1)).unwrap_or("/nowhere"));
        let root = mount.join(format!("mesh-readme-{}.slice", std::process::id()));
        let made = Self { root };
        let units = ["web.service", "other.service"].map(|unit| made.unit(unit));
        let Some(why) = units.iter().find_map(|unit| fs::create_dir_all(unit).err()) else {
            return Some(made);
        };
        let required = std::env::var("MESH_TESTS_REQUIRE").is_ok_and(|value| value == "all");
        assert!(!required, "no units in {}: {why}", made.root.display());
        println!("skipped: no units in {}: {why}", made.root.display());
        None
    }

    fn unit(&self, name: &str) -> PathBuf {
        self.root.join("system.slice").join(name)
    }
}

impl Drop for Units {
    fn drop(&mut self) {
        let units = ["web.service", "other.service"].map(|unit| self.unit(unit));
        let above = [self.root.join("system.slice"), self.root.clone()];
        for path in units.iter().chain(&above) {
            // What is left does no harm, and a test that failed says more.
            let _left = fs::remove_dir(path);
        }
    }
}
