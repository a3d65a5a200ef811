//! Policy changes under open connections, and the whole state goes back to a backup.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use mesh_tests::cluster::path;
use mesh_tests::http::{self, Connection};
use mesh_tests::{eventually, within};
use serde_json::Value;

use crate::turn;
use crate::world::{BATCH_CACHE, BATCH_ORDERS, POLICY, WEB_CACHE, WEB_ORDERS, World, local};

/// What is promised; the test fails at three times that.
const REFUSED_WITHIN: Duration = Duration::from_secs(1);

#[test]
fn a_changed_policy_ends_what_it_denies_and_a_backup_brings_it_back() {
    let _turn = turn();
    let Some(world) = World::start() else { return };
    allow_becomes_deny(&world);
    a_restore_reaches_every_agent(&world);
}

fn policy_for(callers: &str) -> String {
    POLICY.replace("from = [\"web\"]", &format!("from = [{callers}]"))
}

/// A connection to redis that stays open.
struct Redis(TcpStream);

impl Redis {
    fn open(port: u16) -> Self {
        let stream = TcpStream::connect(local(port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        Self(stream)
    }

    fn ping(&mut self) -> std::io::Result<()> {
        self.0.write_all(b"PING\r\n")?;
        let mut answer = [0; 7];
        self.0.read_exact(&mut answer)?;
        assert_eq!(&answer, b"+PONG\r\n");
        Ok(())
    }
}

fn allow_becomes_deny(world: &World) {
    let front = world.front();
    world.mesh.apply("mesh.toml", &policy_for("\"web\", \"batch\""));
    world.mesh.wait_synced();
    front.run(|| {
        let mut web = Connection::open(local(WEB_ORDERS), "orders").unwrap();
        let mut batch = Connection::open(local(BATCH_ORDERS), "orders").unwrap();
        let mut before = Vec::new();
        let log = || world.mesh.agent("front").process.as_ref().unwrap().output();
        eventually("batch is allowed", Duration::from_secs(5), || {
            let answer = batch.get("/batch");
            let answer = answer.unwrap_or_else(|why| panic!("{why} after {before:#?}\n{}", log()));
            before.push(answer.clone());
            (answer.status == 200).then_some(())
        });
        assert_eq!(web.get("/web").unwrap().status, 200);
        let (mut web_redis, mut batch_redis) = (Redis::open(WEB_CACHE), Redis::open(BATCH_CACHE));
        web_redis.ping().unwrap();
        batch_redis.ping().unwrap();

        let began = Instant::now();
        world.mesh.apply("mesh.toml", &policy_for("\"batch\""));
        let applied = began.elapsed();
        let http = within(Duration::from_secs(10), || {
            let answer = web.get("/web");
            answer.map_or(true, |answer| answer.status == 403).then(|| began.elapsed())
        });
        let http = http.expect("the open HTTP connection still passes");
        let tcp =
            within(Duration::from_secs(10), || web_redis.ping().is_err().then(|| began.elapsed()));
        let tcp = tcp.expect("the open TCP connection still passes");
        println!(
            "measured: allow to deny, apply took {applied:?}; from its start the open HTTP \
             connection was refused after {http:?}, the open TCP connection after {tcp:?} \
             (promised {REFUSED_WITHIN:?})"
        );
        assert!(http < 3 * REFUSED_WITHIN && tcp < 3 * REFUSED_WITHIN);

        let answer = http::get(local(WEB_ORDERS), "orders", "/web").unwrap();
        assert_eq!(answer.status, 403, "a new connection: {answer:?}");
        for _ in 0..5 {
            assert_eq!(batch.get("/batch").expect("its connection stays open").status, 200);
            batch_redis.ping().expect("its connection stays open");
        }
    });
}

fn a_restore_reaches_every_agent(world: &World) {
    let (mesh, front) = (&world.mesh, world.front());
    mesh.apply("mesh.toml", POLICY);
    mesh.wait_synced();
    let backup = mesh.folder("backup").join("mesh.backup");
    mesh.cli(&["snapshot", "save", path(&backup)]).good();
    mesh.cli(&["snapshot", "inspect", path(&backup)]).good();
    let before = epoch(world);
    mesh.apply("mesh.toml", &policy_for("\"batch\""));
    mesh.apply("after.toml", "[[allow.cache]]\nname = \"after\"\nfrom = [\"*\"]\n");
    mesh.wait_synced();
    let status = |port| {
        front.run(|| http::get(local(port), "orders", "/").map_or(0, |answer| answer.status))
    };
    eventually("web is denied", Duration::from_secs(5), || {
        (status(WEB_ORDERS) == 403).then_some(())
    });

    let began = Instant::now();
    mesh.cli(&["snapshot", "restore", path(&backup), "--yes"]).good();
    eventually("web is allowed again", Duration::from_secs(15), || {
        (status(WEB_ORDERS) == 200).then_some(())
    });
    println!("measured: restore, old policy in force at the agents after {:?}", began.elapsed());
    assert_eq!(status(BATCH_ORDERS), 403);
    let after = epoch(world);
    assert!(after > before, "epoch {after} after the restore, {before} before");
    let lagging = || {
        let status = mesh.json(&["status"]);
        let agents = status["agents"].as_array().unwrap().clone();
        let applied = |agent: &Value| agent["report"]["applied"].as_str().unwrap().to_owned();
        let lags = |agent: &Value| !applied(agent).starts_with(&format!("{after}."));
        agents.into_iter().filter(lags).collect::<Vec<_>>()
    };
    let converged = within(Duration::from_secs(15), || lagging().is_empty().then_some(()));
    assert!(converged.is_some(), "not in epoch {after}: {:#?}", lagging());
    println!("measured: restore, every agent reports epoch {after} after {:?}", began.elapsed());
    mesh.wait_synced();
    mesh.wait_same_state();
    let objects = mesh.json(&["get"]).to_string();
    assert!(objects.contains("allow.cache/callers"), "{objects}");
    assert!(!objects.contains("allow.cache/after"), "{objects}");
    mesh.apply("mesh.toml", POLICY);
    mesh.wait_synced();
}

fn epoch(world: &World) -> u64 {
    let status = world.mesh.json(&["status"]);
    let revision = status["status"]["revision"].as_str().unwrap();
    revision.split('.').next().unwrap().parse().unwrap()
}
