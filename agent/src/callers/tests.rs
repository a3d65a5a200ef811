#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use super::*;

const NOBODY: u32 = 65534;

fn rule(service: &str, unit: Option<&str>, uid: Option<u32>) -> CallerRule {
    let unit = unit.map(|unit| unit.parse().unwrap());
    CallerRule { service: service.parse().unwrap(), unit, uid }
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn service(name: &str) -> Caller {
    Caller::Service(name.parse().unwrap())
}

fn unknown(reason: UnknownReason) -> Caller {
    Caller::Unknown { reason }
}

fn listen(at: &str) -> Option<TcpListener> {
    let listener = TcpListener::bind(at);
    if listener.is_err() {
        println!("skipped {at}: this machine has no such address");
    }
    listener.ok()
}

/// A shell of `uid` that connects to `port` when told to, and holds the connection.
struct Client {
    shell: Child,
}

impl Client {
    fn start(uid: Option<u32>, port: u16) -> io::Result<Self> {
        let script = "echo up; read go; exec 3<>\"/dev/tcp/127.0.0.1/$0\"; read stop";
        let mut command = Command::new("bash");
        command.args(["-c", script, &port.to_string()]).current_dir("/");
        if let Some(uid) = uid {
            command.uid(uid).gid(uid);
        }
        let shell = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut client = Self { shell };
        let mut line = String::new();
        BufReader::new(client.shell.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        Ok(client)
    }

    fn connect(&mut self, listener: &TcpListener) -> TcpStream {
        self.shell.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
        listener.accept().unwrap().0
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // The end of its input ends the shell; the kill is for a test that failed before.
        drop(self.shell.stdin.take());
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

#[test]
fn our_own_user_is_seen_over_either_family() {
    let callers = Callers::new(None, vec![rule("me", None, Some(own_uid()))]).unwrap();
    let cases = [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1"), ("[::]:0", "127.0.0.1")];
    for (at, dial) in cases {
        let Some(listener) = listen(at) else { continue };
        let port = listener.local_addr().unwrap().port();
        let _client = TcpStream::connect((dial, port)).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(callers.identify_inline(&accepted), service("me"), "{at}");
        let here = SocketAddr::new(dial.parse().unwrap(), port);
        assert_eq!(callers.identify_redirected_inline(&accepted, here), service("me"), "{at}");
    }
}

#[test]
fn new_rules_are_in_force_at_once() {
    let callers = Callers::new(None, vec![]).unwrap();
    let listener = listen("127.0.0.1:0").unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    assert_eq!(callers.identify_inline(&accepted), Caller::Other { uid: own_uid() });
    callers.set_rules(vec![rule("me", None, Some(own_uid()))]);
    assert_eq!(callers.identify_inline(&accepted), service("me"));
}

#[test]
fn another_user_is_told_from_us() {
    let rules = vec![rule("me", None, Some(own_uid())), rule("them", None, Some(NOBODY))];
    let callers = Callers::new(None, rules).unwrap();
    let listener = listen("127.0.0.1:0").unwrap();
    let mut client = match Client::start(Some(NOBODY), listener.local_addr().unwrap().port()) {
        Ok(client) if own_uid() != NOBODY => client,
        Ok(_) => return println!("skipped: we are that other user"),
        Err(error) => return println!("skipped: cannot start another user's process: {error}"),
    };
    let accepted = client.connect(&listener);
    assert_eq!(callers.identify_inline(&accepted), service("them"));
    callers.set_rules(vec![rule("me", None, Some(own_uid()))]);
    assert_eq!(callers.identify_inline(&accepted), Caller::Other { uid: NOBODY });
}

#[test]
fn a_client_that_sends_and_closes_is_unknown() {
    let callers = Callers::new(None, vec![rule("root", None, Some(0))]).unwrap();
    let listener = listen("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    drop(client);
    let (mut accepted, _) = listener.accept().unwrap();
    assert_eq!(callers.identify_inline(&accepted), unknown(UnknownReason::Gone));
    let mut bytes = [0; 3];
    accepted.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"GET", "its bytes were there to be read, under uid 0");
}

#[test]
fn a_half_closed_client_is_unknown() {
    let callers = Callers::new(None, vec![rule("me", None, Some(own_uid()))]).unwrap();
    let listener = listen("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    assert_eq!(callers.identify_inline(&accepted), unknown(UnknownReason::Gone));
}

/// The theft that the look at our own end stops: send, reset, let another take the port.
#[test]
fn a_port_taken_over_lends_no_identity_to_who_reset_it() {
    let callers = Callers::new(None, vec![rule("me", None, Some(own_uid()))]).unwrap();
    let listener = listen("127.0.0.1:0").unwrap();
    let to = SockAddr::from(listener.local_addr().unwrap());
    let connect = |from: &SockAddr| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(from).unwrap();
        socket.connect(&to).unwrap();
        socket
    };
    let thief = connect(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into());
    let from = thief.local_addr().unwrap();
    (&thief).write_all(b"take").unwrap();
    thief.set_linger(Some(Duration::ZERO)).unwrap();
    drop(thief);
    let victim = connect(&from);

    let (stolen, _) = listener.accept().unwrap();
    assert_eq!(callers.identify_inline(&stolen), unknown(UnknownReason::Ended));
    let (honest, peer) = listener.accept().unwrap();
    assert_eq!(Some(peer), from.as_socket(), "both used one port");
    assert_eq!(callers.identify_inline(&honest), service("me"));
    drop(victim);
}

#[test]
fn sockets_that_are_no_tcp_callers_are_unknown() {
    let callers = Callers::new(None, vec![rule("me", None, Some(own_uid()))]).unwrap();
    let (unix, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
    assert_eq!(callers.identify_inline(&unix), unknown(UnknownReason::Ended));
    let listener = listen("127.0.0.1:0").unwrap();
    assert_eq!(callers.identify_inline(&listener), unknown(UnknownReason::Ended), "a listener");

    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let elsewhere = "127.0.0.9:9".parse().unwrap();
    let seen = callers.identify_redirected_inline(&accepted, elsewhere);
    assert_eq!(seen, unknown(UnknownReason::Gone), "it dialled no such address");
}

#[test]
fn identifying_costs_little_and_workers_share_it() {
    let callers = Callers::new(None, vec![rule("me", None, Some(own_uid()))]).unwrap();
    let listener = listen("127.0.0.1:0").unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    assert_eq!(callers.identify_inline(&accepted), service("me"));
                }
            });
        }
    });
    println!("2000 answers to 4 threads in {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(20), "orders of magnitude over the usual");
}

/// Runs itself again in a network namespace of its own, where a rule redirects port 81 to 8181.
#[test]
fn a_redirected_caller_is_known_by_where_it_dialled() {
    const INSIDE: &str = "MESH_TEST_REDIRECTED";
    const SETUP: &str = "ip link set lo up && nft -f - <<< 'table inet t { chain out { type nat \
        hook output priority -100; tcp dport 81 redirect to :8181; }; }' || exit 77; exec \"$@\"";
    if std::env::var_os(INSIDE).is_some() {
        return redirected_caller();
    }
    let name = "callers::tests::a_redirected_caller_is_known_by_where_it_dialled";
    let own = std::env::current_exe().unwrap();
    let ran = Command::new("unshare")
        .args(["--net", "bash", "-c", SETUP, "bash"])
        .arg(own)
        .args(["--exact", name])
        .env(INSIDE, "1")
        .output();
    let skip = |why: String| {
        let required = std::env::var("MESH_TESTS_REQUIRE").is_ok_and(|value| value == "all");
        assert!(!required, "{why}");
        println!("skipped: {why}");
    };
    match ran {
        Err(error) => skip(format!("no unshare here: {error}")),
        Ok(ran) if matches!(ran.status.code(), Some(1 | 77)) => {
            skip(format!("cannot redirect: {}", String::from_utf8_lossy(&ran.stderr)));
        }
        Ok(ran) => {
            let output = String::from_utf8_lossy(&ran.stdout);
            assert!(ran.status.success() && output.contains("1 passed"), "{output}");
        }
    }
}

fn redirected_caller() {
    let callers = Callers::new(None, vec![rule("me", None, Some(own_uid()))]).unwrap();
    for (at, dial) in [("127.0.0.1", "127.0.0.5"), ("::1", "::1"), ("::", "127.0.0.5")] {
        let Some(listener) = listen(&SocketAddr::new(at.parse().unwrap(), 8181).to_string()) else {
            continue;
        };
        let dialled = SocketAddr::new(dial.parse().unwrap(), 81);
        let _client = TcpStream::connect(dialled).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let original = mesh_sys::original_dst::original_dst(&accepted).unwrap();
        assert_eq!(original, Some(dialled), "{at}");
        let plainly = callers.identify_inline(&accepted);
        assert_eq!(plainly, unknown(UnknownReason::Gone), "{at}: it did not dial us");
        assert_eq!(callers.identify_redirected_inline(&accepted, dialled), service("me"), "{at}");
    }
}

/// A cgroup of the test's own, removed at its end.
struct OwnCgroup(PathBuf);

impl OwnCgroup {
    /// `None`, with the reason printed, where the machine allows none.
    fn make(root: &Path, name: &str) -> Option<Self> {
        let path = root.join(format!("{name}-{}", std::process::id()));
        match fs::create_dir(&path) {
            Ok(()) => Some(Self(path)),
            Err(error) => {
                println!("skipped: cannot make a cgroup under {}: {error}", root.display());
                None
            }
        }
    }

    fn unit(&self, root: &Path) -> String {
        format!("/{}", self.0.strip_prefix(root).unwrap().display())
    }

    fn take(&self, client: &Client) -> io::Result<()> {
        fs::write(self.0.join("cgroup.procs"), client.shell.id().to_string())
    }
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        // A process that was just reaped may hold its cgroup for a moment.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        println!("left behind: {}", self.0.display());
    }
}

#[test]
fn a_unit_is_told_by_the_cgroup_of_the_process() {
    let Some(root) = cgroups::find_root().unwrap() else {
        println!("skipped: this machine mounts no cgroup v2 tree");
        return;
    };
    let Some(web) = OwnCgroup::make(&root, "mesh-callers-test") else { return };
    let Some(evil) = OwnCgroup::make(&root, "mesh-callers-test-evil") else { return };
    let callers = Callers::new(Some(root.clone()), vec![]).unwrap();
    callers.set_rules(vec![rule("web", Some(&web.unit(&root)), None)]);
    let listener = listen("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();

    let mut inside = Client::start(None, port).unwrap();
    let mut outside = Client::start(None, port).unwrap();
    for (cgroup, client) in [(&web, &inside), (&evil, &outside)] {
        if let Err(error) = cgroup.take(client) {
            println!("skipped: cannot move a process into a cgroup: {error}");
            return;
        }
    }
    let accepted = inside.connect(&listener);
    let other = outside.connect(&listener);
    assert_eq!(callers.identify_inline(&accepted), service("web"));
    assert_eq!(callers.identify_inline(&other), Caller::Other { uid: own_uid() });

    // A cgroup made later, below the unit, is found by walking again.
    let Some(sub) = OwnCgroup::make(&web.0, "sub") else { return };
    let mut below = Client::start(None, port).unwrap();
    sub.take(&below).unwrap();
    let accepted = below.connect(&listener);
    assert_eq!(callers.identify_inline(&accepted), service("web"));
    let deeper = rule("sub", Some(&sub.unit(&root)), None);
    callers.set_rules(vec![rule("web", Some(&web.unit(&root)), None), deeper]);
    assert_eq!(callers.identify_inline(&accepted), service("sub"));

    drop((inside, outside, below)); // a cgroup is removed once no process is in it
    drop((sub, evil, web));
}

#[test]
fn a_configured_root_must_be_a_cgroup_tree() {
    let error = Callers::new(Some("/".into()), vec![]).unwrap_err();
    assert!(matches!(error, CallersError::NotCgroup2 { .. }), "{error}");
    let error = Callers::new(Some("/no/such/place".into()), vec![]).unwrap_err();
    assert!(matches!(error, CallersError::Mounts(_)), "{error}");
}
