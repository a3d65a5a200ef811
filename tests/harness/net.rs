//! Hosts in network namespaces on one bridge: `10.88.0.0/24`, reachable from nowhere else.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::{binary, run};

/// A bridge with hosts; removed when dropped.
#[derive(Debug)]
pub struct Net {
    id: String,
    hosts: Vec<Host>,
}

/// One host: a network namespace with an address.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its name within the test.
    pub name: String,
    /// Its address on the bridge.
    pub ip: IpAddr,
    namespace: String,
    env: Vec<(String, String)>,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

fn ip(args: &[&str]) {
    let mut command = Command::new("ip");
    command.args(args);
    let (code, output) = run(command, Duration::from_secs(10));
    assert_eq!(code, Some(0), "ip {args:?}: {output}");
}

impl Net {
    /// A bridge with one host for each name, in order from `10.88.0.1`.
    ///
    /// # Panics
    /// Without root, or if a namespace cannot be made.
    pub fn new(names: &[&str]) -> Self {
        let id = format!("mt{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let switch = format!("{id}-sw");
        ip(&["netns", "add", &switch]);
        let mut net = Self { id, hosts: Vec::new() };
        ip(&["-n", &switch, "link", "set", "lo", "up"]);
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge", "forward_delay", "0"]);
        ip(&["-n", &switch, "link", "set", "br0", "up"]);
        for (name, number) in names.iter().zip(1u8..) {
            net.add(name, number);
        }
        net
    }

    fn add(&mut self, name: &str, number: u8) {
        let (switch, namespace) = (format!("{}-sw", self.id), format!("{}-{name}", self.id));
        let (address, port) = (Ipv4Addr::new(10, 88, 0, number), format!("v{number}"));
        ip(&["netns", "add", &namespace]);
        let host = Host { name: name.to_owned(), ip: address.into(), namespace, env: Vec::new() };
        let inside = host.namespace.clone();
        self.hosts.push(host);
        let peer = ["type", "veth", "peer", "name", "eth0", "netns", &inside];
        ip(&[&["-n", &switch, "link", "add", &port], &peer[..]].concat());
        ip(&["-n", &switch, "link", "set", &port, "master", "br0", "up"]);
        ip(&["-n", &inside, "link", "set", "lo", "up"]);
        ip(&["-n", &inside, "addr", "add", &format!("{address}/24"), "dev", "eth0"]);
        ip(&["-n", &inside, "link", "set", "eth0", "up"]);
    }

    /// The host called `name`.
    ///
    /// # Panics
    /// If there is none.
    pub fn host(&self, name: &str) -> &Host {
        self.hosts.iter().find(|host| host.name == name).expect("a host of this net")
    }

    /// Gives `name` to the environment of the mesh's own processes on all hosts taken from now on.
    pub fn set_env(&mut self, name: &str, value: &str) {
        for host in &mut self.hosts {
            host.env.push((name.to_owned(), value.to_owned()));
        }
    }

    /// A command that runs where all traffic between hosts passes.
    pub fn on_switch(&self, program: &str) -> Command {
        in_namespace(&format!("{}-sw", self.id), program)
    }

    /// Cuts or plugs the cable of the host called `name`.
    pub fn link(&self, name: &str, up: bool) {
        let state = if up { "up" } else { "down" };
        ip(&["-n", &format!("{}-sw", self.id), "link", "set", &self.port(name), state]);
    }

    /// Makes the cable of the host called `name` bad, both ways: slow by `delay_ms` where the kernel
    /// has netem, and losing `loss_permille` of a thousand packets. Whether it is slow.
    ///
    /// # Panics
    /// If neither netem nor nftables can do it.
    pub fn worsen(&self, name: &str, delay_ms: u64, loss_permille: u64) -> bool {
        let (loss, rest) = (loss_permille / 10, loss_permille % 10);
        let (delay, jitter) = (format!("{delay_ms}ms"), format!("{}ms", delay_ms / 4));
        let netem = ["netem", "delay", &delay, &jitter, "loss", &format!("{loss}.{rest}%")];
        let slow = self.cable(name).into_iter().all(|(mut tc, device)| {
            tc.args(["qdisc", "replace", "dev", &device, "root"]).args(netem);
            run(tc, Duration::from_secs(10)).0 == Some(0)
        });
        if !slow {
            let lose = format!("numgen random mod 1000 < {loss_permille} drop");
            let table = format!(
                "table inet bad {{ \
                 chain in {{ type filter hook input priority 0; iifname eth0 {lose}; }}; \
                 chain out {{ type filter hook output priority 0; oifname eth0 {lose}; }}; }}"
            );
            let mut nft = self.host(name).command("nft");
            nft.arg(&table);
            let (code, output) = run(nft, Duration::from_secs(10));
            assert_eq!(code, Some(0), "nft {table}: {output}");
        }
        slow
    }

    /// Makes the cable of the host called `name` good again.
    pub fn repair(&self, name: &str) {
        for (mut tc, device) in self.cable(name) {
            tc.args(["qdisc", "del", "dev", &device, "root"]);
            // one of the two is there
            let _result = run(tc, Duration::from_secs(10));
        }
        let mut nft = self.host(name).command("nft");
        nft.args(["delete", "table", "inet", "bad"]);
        let _result = run(nft, Duration::from_secs(10));
    }

    /// `tc` at both ends of a host's cable, with the end's name.
    fn cable(&self, name: &str) -> [(Command, String); 2] {
        [
            (self.on_switch("tc"), self.port(name)),
            (self.host(name).command("tc"), "eth0".to_owned()),
        ]
    }

    /// The switch's end of a host's cable.
    fn port(&self, name: &str) -> String {
        let at = self.hosts.iter().position(|host| host.name == name).expect("a host");
        format!("v{}", at + 1)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let names = self.hosts.iter().map(|host| host.namespace.clone());
        for name in names.chain([format!("{}-sw", self.id)]) {
            let mut command = Command::new("ip");
            command.args(["netns", "del", &name]);
            let _result = run(command, Duration::from_secs(10));
        }
    }
}

fn in_namespace(namespace: &str, program: &str) -> Command {
    // Not `ip netns exec`: that hides the cgroup tree below a new /sys.
    let mut command = Command::new("nsenter");
    command.args([&format!("--net=/run/netns/{namespace}"), program]);
    command
}

impl Host {
    /// A command that runs on this host.
    pub fn command(&self, program: &str) -> Command {
        in_namespace(&self.namespace, program)
    }

    /// A command of the mesh's own, with the environment that such processes have there.
    ///
    /// # Panics
    /// If it was not built.
    pub fn mesh(&self, name: &str) -> Command {
        let program = binary(name);
        let mut command = self.command(program.to_str().expect("a path in UTF-8"));
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// A command that runs on this host as another user.
    pub fn command_as(&self, uid: u32, program: &str) -> Command {
        let mut command = in_namespace(&self.namespace, "setpriv");
        let (user, group) = (format!("--reuid={uid}"), format!("--regid={uid}"));
        command.args([&user, &group, "--clear-groups", program]);
        command
    }

    /// Runs `work` on a thread of this host: sockets it makes are the host's.
    ///
    /// # Panics
    /// If the namespace cannot be entered, or `work` panics.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.namespace);
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let namespace = std::fs::File::open(&path).expect("namespace");
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(namespace.as_fd(), kind).expect("enter the namespace");
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}
