//! Servers die while traffic flows.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use mesh_tests::cluster::Mesh;
use mesh_tests::http;
use mesh_tests::load::{Load, Seen};

use crate::turn;
use crate::world::{WEB_ORDERS, World, local};

const RATE: u32 = 500;
const CONNECTIONS: u32 = 20;
const WRITERS: usize = 3;
/// What is promised, and three times that: where the test fails.
const WRITES_WITHIN: Duration = Duration::from_secs(3);
const SERVES_WITHIN: Duration = Duration::from_secs(1);

#[test]
fn the_leader_and_then_every_server_dies_under_load() {
    let _turn = turn();
    let Some(mut world) = World::start() else { return };
    the_leader_dies(&mut world);
    every_server_dies(&mut world);
}

fn load(world: &World) -> Load {
    Load::start(&world.front(), local(WEB_ORDERS), "/load", RATE, CONNECTIONS)
}

fn nothing_failed(what: &str, seen: &Seen, at_least: u64) {
    let shown: Vec<_> = seen.failed.iter().take(5).collect();
    assert!(seen.failed.is_empty(), "{what}: {} failed: {shown:?}", seen.failed.len());
    assert!(seen.ok >= at_least, "{what}: only {} requests, expected {at_least}", seen.ok);
    println!("measured: {what}, {} requests, none failed, slowest {:?}", seen.ok, seen.slowest);
}

/// A write that was answered: when it began and ended, and its note.
struct Write {
    began: Instant,
    ended: Instant,
    note: String,
}

/// Writes again and again until told to stop, each time through the command.
fn write(mesh: &Mesh, writer: usize, stop: &AtomicBool, answered: &Mutex<Vec<Write>>) {
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let note = format!("write-{writer}-{number}");
        let began = Instant::now();
        let host = mesh.net.host(["ctl-1", "ctl-2", "ctl-3"][writer % 3]);
        let args = ["token", "create", "--role", "viewer", "--note", &note, "--timeout", "2s"];
        if mesh.cli_at(host, &args).code == Some(0) {
            answered.lock().unwrap().push(Write { began, ended: Instant::now(), note });
        }
    }
}

fn the_leader_dies(world: &mut World) {
    let leader = world.mesh.leader();
    let (stop, answered) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let load = load(world);
    let mesh = &world.mesh;
    let killed = std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (stop, answered) = (&stop, &answered);
            scope.spawn(move || write(mesh, writer, stop, answered));
        }
        sleep(Duration::from_secs(2));
        let process = mesh.server(&leader).process.as_ref().unwrap();
        process.signal(rustix::process::Signal::KILL);
        let killed = Instant::now();
        sleep(Duration::from_secs(6));
        stop.store(true, Ordering::Relaxed);
        killed
    });
    nothing_failed("leader killed under load", &load.stop(), 7 * u64::from(RATE));
    let answered = answered.into_inner().unwrap();
    let before = answered.iter().filter(|write| write.ended < killed).count();
    assert!(before > 0, "no write before the leader was killed");
    let resumed = answered.iter().filter(|write| write.began > killed).map(|write| write.ended);
    let resumed = resumed.min().expect("no write after the leader was killed") - killed;
    println!(
        "measured: leader kill, writes resumed after {} ms (promised {WRITES_WITHIN:?})",
        resumed.as_millis()
    );
    assert!(resumed < 3 * WRITES_WITHIN, "writes resumed after {resumed:?}");
    world.mesh.server_mut(&leader).kill();
    assert_ne!(world.mesh.leader(), leader);
    all_are_there(world, &answered, "after the leader was killed");
    world.mesh.start_server(&leader);
    world.mesh.wait_synced();
    all_are_there(world, &answered, "after it came back");
    world.mesh.wait_same_state();
}

fn all_are_there(world: &World, answered: &[Write], when: &str) {
    let tokens = world.mesh.json(&["tokens", "--consistent"]).to_string();
    let lost: Vec<&str> = answered
        .iter()
        .map(|write| write.note.as_str())
        .filter(|note| !tokens.contains(&format!("\"{note}\"")))
        .collect();
    assert!(lost.is_empty(), "{when}, {} acknowledged writes are lost: {lost:?}", lost.len());
    println!("measured: {when}, all {} acknowledged writes are there", answered.len());
}

fn every_server_dies(world: &mut World) {
    let running = load(world);
    sleep(Duration::from_secs(1));
    for name in world.mesh.server_names() {
        world.mesh.server_mut(&name).kill();
    }
    sleep(Duration::from_secs(3));
    nothing_failed("every server killed under load", &running.stop(), 3 * u64::from(RATE));
    restart_alone(world);
    for name in world.mesh.server_names() {
        world.mesh.server_mut(&name).start();
    }
    for name in world.mesh.server_names() {
        world.mesh.wait_server(&name);
    }
    world.mesh.wait_synced();
    world.mesh.wait_same_state();
}

/// The callers' agent is killed and starts while no server answers.
fn restart_alone(world: &mut World) {
    let front = world.front();
    let agent = world.mesh.agent_mut("front");
    agent.kill();
    let began = Instant::now();
    agent.start();
    let first = front.run(|| {
        while began.elapsed() < Duration::from_secs(20) {
            let answer = http::get(local(WEB_ORDERS), "orders", "/first");
            if answer.is_ok_and(|answer| answer.status == 200) {
                return Some(began.elapsed());
            }
            sleep(Duration::from_millis(5));
        }
        None
    });
    let log = agent.process.as_ref().unwrap().output();
    let first = first.unwrap_or_else(|| panic!("the agent does not serve alone:\n{log}"));
    println!(
        "measured: agent restart without any server, first 200 after {} ms (promised \
         {SERVES_WITHIN:?})",
        first.as_millis()
    );
    assert!(first < 3 * SERVES_WITHIN, "first 200 after {first:?}");
    let status = agent.admin("/status");
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert!(!status["stale_since"].is_null(), "the agent does not say that it is stale: {status}");
}
