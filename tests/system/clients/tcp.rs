//! Opaque TCP: redis, PostgreSQL with its own TLS inside, and bulk both ways.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mesh_tests::backends::redis;
use mesh_tests::cluster::path;
use mesh_tests::net::Host;
use mesh_tests::process::{Process, Ran, output};
use mesh_tests::{Needs, has};

use super::{APP, CALLED, Pair, gets_there};
use crate::turn;

/// Moved each way if `MESH_TESTS_TRANSFER_MIB` does not say how much.
const TRANSFER_MIB: u64 = 256;

#[test]
fn redis_benchmark_ends_without_an_error() {
    let _turn = turn();
    let needs = ["ip", "nsenter", "curl", "redis-server", "redis-benchmark"].map(Needs::Program);
    if !has(&[&[Needs::Root][..], &needs].concat()) {
        return;
    }
    let pair = Pair::start("tcp", "");
    let _redis = redis(&pair.back, &pair.mesh.folder("redis"), APP);
    let port = CALLED.to_string();
    let cli = |args: &[&str]| {
        let mut command = pair.front.command("redis-cli");
        command.args(["-p", &port]).args(args);
        output(command, Duration::from_secs(5))
    };
    gets_there("redis", || {
        let ran = cli(&["ping"]);
        // redis-cli ends well whatever it got
        let code = (ran.stdout == "PONG\n").then_some(0);
        Ran { code, ..ran }
    });
    let mut command = pair.front.command("redis-benchmark");
    command.args(["-p", &port, "-n", "20000", "-c", "50", "-P", "4", "-q", "-t", "set,get,incr"]);
    let ran = output(command, Duration::from_secs(120)).good();
    let said = format!("{}{}", ran.stdout, ran.stderr).to_lowercase();
    assert!(!said.contains("err"), "{ran:?}");
    let lines = ran.stdout.split(['\r', '\n']).filter(|line| line.contains("per second"));
    let lines: Vec<&str> = lines.map(str::trim).collect();
    assert_eq!(lines.len(), 3, "{ran:?}");
    println!("measured: redis-benchmark of 50, pipelined by 4: {}", lines.join("; "));
    // each of them was carried out once
    assert_eq!(cli(&["get", "counter:__rand_int__"]).good().stdout, "20000\n");
}

/// PostgreSQL on a host of a test.
struct Postgres {
    /// Where its programs are: some are not on the path.
    programs: PathBuf,
    uid: u32,
    folder: PathBuf,
}

impl Postgres {
    /// Of the newest version that is installed.
    fn programs() -> Option<PathBuf> {
        let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
        let found = versions.map(|version| version.unwrap().path().join("bin"));
        found.filter(|bin| bin.join("pgbench").is_file() && bin.join("initdb").is_file()).max()
    }

    fn new(programs: PathBuf, folder: PathBuf) -> Self {
        let mut command = Command::new("id");
        command.args(["-u", "postgres"]);
        let uid = output(command, Duration::from_secs(5)).good().stdout.trim().parse().unwrap();
        std::os::unix::fs::chown(&folder, Some(uid), None).unwrap();
        Self { programs, uid, folder }
    }

    fn command(&self, host: &Host, program: &str) -> Command {
        let mut command = host.command_as(self.uid, path(&self.programs.join(program)));
        // a home of its own, where no certificate of a client lies
        command.current_dir(&self.folder).env("HOME", &self.folder).env("LC_ALL", "C");
        command
    }

    /// The server on `host`, which takes connections by TLS alone.
    fn start(&self, host: &Host) -> Process {
        let data = self.folder.join("data");
        let mut initdb = self.command(host, "initdb");
        initdb.args(["-D", path(&data), "-A", "trust", "--no-sync", "-U", "tests"]);
        output(initdb, Duration::from_secs(60)).good();
        let mut openssl = host.command_as(self.uid, "openssl");
        openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=app"]);
        openssl.args(["-keyout", path(&data.join("server.key"))]);
        openssl.args(["-out", path(&data.join("server.crt"))]);
        output(openssl, Duration::from_secs(60)).good();
        fs::write(data.join("pg_hba.conf"), "hostssl all all 127.0.0.1/32 trust\n").unwrap();
        let mut command = self.command(host, "postgres");
        command.args(["-D", path(&data), "-p", &APP.to_string(), "-k", path(&self.folder)]);
        command.args(["-c", "ssl=on", "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]);
        Process::start(command, &self.folder.join("log"))
    }

    /// One of its clients on `host`, through the port to it.
    fn client(&self, host: &Host, program: &str, args: &[&str]) -> Ran {
        let mut command = self.command(host, program);
        command.env("PGSSLMODE", "require").env("PGCONNECT_TIMEOUT", "5");
        command.args(["-h", "127.0.0.1", "-p", &CALLED.to_string(), "-U", "tests"]).args(args);
        output(command, Duration::from_secs(60))
    }
}

#[test]
fn postgres_with_its_own_tls_is_called() {
    let _turn = turn();
    let needs = ["ip", "nsenter", "curl", "setpriv", "openssl"].map(Needs::Program);
    if !has(&[&[Needs::Root][..], &needs].concat()) {
        return;
    }
    let Some(programs) = Postgres::programs() else {
        assert!(!has(&[Needs::Program("postgresql's initdb and pgbench")]));
        return;
    };
    let pair = Pair::start("tcp", "");
    let postgres = Postgres::new(programs, pair.mesh.folder("postgres"));
    let mut server = postgres.start(&pair.back);
    let asked = "select version from pg_stat_ssl where pid = pg_backend_pid()";
    let ran = gets_there("PostgreSQL", || {
        postgres.client(&pair.front, "psql", &["-d", "postgres", "-Atc", asked])
    });
    assert!(ran.stdout.starts_with("TLSv1."), "{ran:?}");
    postgres.client(&pair.front, "pgbench", &["-i", "-s", "1", "-q", "postgres"]).good();
    let bench = ["-c", "8", "-j", "2", "-T", "3", "postgres"];
    let ran = postgres.client(&pair.front, "pgbench", &bench).good();
    let line = |start: &str| {
        let found = ran.stdout.lines().find(|line| line.starts_with(start));
        found.unwrap_or_else(|| panic!("{start:?} is not in {ran:?}"))
    };
    let done = line("number of transactions actually processed: ");
    let number: u64 = done.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(number > 0, "{ran:?}");
    assert!(line("number of failed transactions: ").contains(": 0 "), "{ran:?}");
    // killed, it would leave memory that is shared behind
    assert_eq!(server.stop(Duration::from_secs(30)), Some(0), "{}", server.output());
    println!("measured: pgbench of 8 for 3 s by TLS inside, {done}, {}", line("tps = "));
}

#[test]
fn bulk_arrives_whole_both_ways() {
    let _turn = turn();
    let needs = ["ip", "nsenter", "curl", "python3"].map(Needs::Program);
    if !has(&[&[Needs::Root][..], &needs].concat()) {
        return;
    }
    let given = std::env::var("MESH_TESTS_TRANSFER_MIB").ok();
    let mib = given.map_or(TRANSFER_MIB, |text| text.parse().expect("MESH_TESTS_TRANSFER_MIB"));
    let pair = Pair::start("tcp", "");
    let folder = pair.mesh.folder("bulk");
    let script = folder.join("bulk.py");
    fs::write(&script, include_str!("bulk.py")).unwrap();
    let server = bulk(&pair.back, &script, &["serve", &APP.to_string()]);
    let _server = Process::start(server, &folder.join("log"));
    let move_mib = |mib: u64| {
        let args = ["move", &CALLED.to_string(), &mib.to_string()];
        output(bulk(&pair.front, &script, &args), Duration::from_secs(120 + mib / 2))
    };
    gets_there("bulk", || move_mib(0));
    let ran = move_mib(mib).good();
    println!("measured: {mib} MiB each way at once: {}", ran.stdout.trim());
}

fn bulk(host: &Host, script: &Path, args: &[&str]) -> Command {
    let mut command = host.command("python3");
    command.arg(script).args(args);
    command
}
