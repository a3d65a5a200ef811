//! Three servers, two agents, nginx and redis: everything in reach of a newcomer works.

use std::time::Duration;

use mesh_tests::eventually;
use mesh_tests::http;
use mesh_tests::load::Load;
use mesh_tests::process::output;
use serde_json::Value;

use crate::turn;
use crate::world::{BATCH_CACHE, BATCH_ORDERS, WEB_CACHE, WEB_ORDERS, World, local, nginx};

const SOON: Duration = Duration::from_secs(15);

#[test]
fn three_servers_and_two_agents_carry_http_and_tcp() {
    let _turn = turn();
    let Some(mut world) = World::start() else { return };
    http_reaches_both_instances(&world);
    tcp_reaches_redis(&world);
    what_is_not_allowed_is_refused_by_rule(&world);
    commands_say_what_is(&world);
    the_api_describes_itself(&world);
    the_host_declares_and_takes_back(&world);
    a_failing_check_takes_an_instance_out(&mut world);
    agents_stop_cleanly(&mut world);
}

fn http_reaches_both_instances(world: &World) {
    let front = world.front();
    let answer = front.run(|| http::get(local(WEB_ORDERS), "orders", "/items/1?q=1")).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.contains("/items/1?q=1"), "{answer:?}");
    assert!(answer.body.contains("/svc/web"), "the backend is not told who calls: {answer:?}");
    // Calls that overlap are spread; one at a time may well stay with the faster instance.
    let load = Load::start(&front, local(WEB_ORDERS), "/spread", 500, 20);
    std::thread::sleep(Duration::from_secs(3));
    let seen = load.stop();
    assert!(seen.failed.is_empty(), "{:?}", seen.failed);
    let of = |name| world.asked_of(name, "/spread");
    println!("measured: {} calls spread as {} and {}", seen.ok, of("orders-1"), of("orders-2"));
    assert!(of("orders-1") > 100 && of("orders-2") > 100);
}

fn tcp_reaches_redis(world: &World) {
    let mut command = world.front().command("redis-benchmark");
    let port = WEB_CACHE.to_string();
    command.args(["-p", &port, "-n", "2000", "-c", "10", "-q", "-t", "ping,set,get,lpush"]);
    let ran = output(command, Duration::from_secs(60)).good();
    assert!(ran.stdout.contains("GET:"), "{ran:?}");
    for line in ran.stdout.split(['\r', '\n']).filter(|line| line.contains("requests per second")) {
        println!("measured: redis-benchmark through two agents, {}", line.trim());
    }
}

fn what_is_not_allowed_is_refused_by_rule(world: &World) {
    let front = world.front();
    let answer = front.run(|| http::get(local(BATCH_ORDERS), "orders", "/"));
    assert_eq!(answer.unwrap().status, 403);
    let mut command = front.command("redis-cli");
    command.args(["-p", &BATCH_CACHE.to_string(), "PING"]);
    let ran = output(command, Duration::from_secs(10));
    assert!(!ran.stdout.contains("PONG"), "batch reaches redis: {ran:?}");
    let metrics = world.mesh.agent("back").admin("/metrics");
    for service in ["orders", "cache"] {
        let counted = |line: &&str| {
            line.starts_with("mesh_denied_total{")
                && line.contains("src=\"batch\"")
                && line.contains(&format!("dst=\"{service}\""))
        };
        let line = metrics.lines().find(counted);
        assert!(line.is_some(), "the denial at {service} is not counted in:\n{metrics}");
    }
    let log = world.mesh.agent("back").process.as_ref().unwrap().output();
    let logged = |line: &str| line.contains("access") && line.contains("batch");
    assert!(
        log.lines().any(|line| logged(line) && line.contains("denied")),
        "no line of it: {log}"
    );
}

fn names(list: &Value, field: &str) -> Vec<String> {
    let all = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
    all.iter().map(|one| one[field].as_str().unwrap_or_default().to_owned()).collect()
}

fn commands_say_what_is(world: &World) {
    let mesh = &world.mesh;
    let services = mesh.json(&["services"]);
    assert_eq!(names(&services, "service"), ["batch", "cache", "orders", "web"]);
    let members = mesh.cli(&["members"]).good().stdout;
    for name in ["ctl-1", "ctl-2", "ctl-3", "front", "back"] {
        assert!(members.contains(name), "{name} is not in:\n{members}");
    }
    let status = mesh.json(&["status"]);
    assert_eq!(status["ok"], true, "{status:#}");
    assert_eq!(names(&mesh.json(&["server", "list"]), "name"), ["ctl-1", "ctl-2", "ctl-3"]);
    mesh.wait_same_state();
    assert_eq!(names(&status["agents"], "node"), ["back", "front"]);
    let allowed = mesh.json(&["why", "web", "orders", "GET", "/v2/../x"]);
    assert_eq!(allowed["allowed"], true, "{allowed:#}");
    assert_eq!(allowed["path_after"], "/x");
    let why = mesh.cli(&["why", "web", "orders", "GET", "/x"]).good().stdout;
    assert!(why.contains("allow.orders/callers") && why.contains("mesh.toml:4"), "{why}");
    let denied = mesh.cli(&["why", "batch", "orders", "GET", "/x", "-o", "json"]);
    assert_eq!(denied.code, Some(1), "{denied:?}");
    let rule = mesh.cli(&["get", "allow.orders/callers"]).good().stdout;
    assert!(rule.contains("[[allow.orders]]") && rule.contains("\"web\""), "{rule}");
    assert!(names(&mesh.json(&["get"])["objects"], "id").contains(&"service.orders".to_owned()));
    let listed = mesh.cli(&["service", "list"]);
    assert_ne!(listed.code, Some(0), "there is no agent's socket at the usual place: {listed:?}");
}

fn the_api_describes_itself(world: &World) {
    let ctl = world.mesh.net.host("ctl-1");
    let mut curl = ctl.command("curl");
    curl.args(["-sk", "--max-time", "5", &format!("https://{}:7300/v1/openapi.json", ctl.ip)]);
    let text = output(curl, Duration::from_secs(10)).good().stdout;
    let document: Value = serde_json::from_str(&text).unwrap();
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.")));
    for path in ["/v1/services", "/v1/enrol", "/v1/policy/apply", "/v1/nodes/{node}"] {
        assert!(document["paths"][path].is_object(), "{path} is not described");
    }
}

/// By the command on the agent's host, not by a file.
fn the_host_declares_and_takes_back(world: &World) {
    let agent = world.mesh.agent("back");
    let known = || {
        let answer = world.mesh.json(&["get", "service", "orders"]);
        let instances = answer["instances"].as_array().expect("instances");
        instances.iter().any(|one| one["spec"]["id"] == "orders-3")
    };
    assert!(!known());
    let add = ["service", "add", "orders", "--name", "orders-3", "--port", "8082"];
    agent.local_cli(None, &add).good();
    eventually("it is registered", SOON, || known().then_some(()));
    agent.local_cli(None, &["service", "remove", "orders-3"]).good();
    eventually("it is gone", SOON, || (!known()).then_some(()));
    let other = ["service", "add", "payments", "--port", "8083"];
    let added = agent.local_cli(None, &other);
    let refused = || {
        let status = agent.admin("/status");
        (status.contains("payments") && status.contains("node policy")).then_some(())
    };
    eventually(&format!("payments is refused by node policy: {added:?}"), SOON, refused);
    agent.local_cli(None, &["service", "remove", "payments"]);
}

fn usable(world: &World, instance: &str) -> Option<bool> {
    let why = world.mesh.json(&["why", "web", "orders", "GET", "/x"]);
    let endpoints = why["backends"][0]["endpoints"].as_array()?.clone();
    let found = endpoints.iter().find(|one| one["endpoint"]["instance"] == instance)?;
    found["usable"].as_bool()
}

fn a_failing_check_takes_an_instance_out(world: &mut World) {
    assert_eq!(usable(world, "orders-1"), Some(true));
    world.backends[0].kill();
    eventually("its check fails", SOON, || (!usable(world, "orders-1")?).then_some(()));
    let front = world.front();
    let ask = || front.run(|| http::get(local(WEB_ORDERS), "orders", "/rest"));
    // What the servers know is at the agents at once, not before it.
    eventually("only the other is asked", SOON, || {
        let all: Vec<_> = (0..20).map(|_| ask()).collect();
        let good = all.iter().all(|one| one.as_ref().is_ok_and(|answer| answer.status == 200));
        good.then_some(())
    });
    let host = world.back();
    world.backends[0] = nginx(&world.mesh, &host, "orders-1", 8081);
    eventually("its check passes", SOON, || usable(world, "orders-1")?.then_some(()));
}

fn agents_stop_cleanly(world: &mut World) {
    let listed = world.mesh.agent("back").local_cli(None, &["service", "list"]).good().stdout;
    for instance in ["orders-1", "orders-2", "cache-1"] {
        assert!(listed.contains(instance), "{listed}");
    }
    let metrics = world.mesh.agent("back").admin("/metrics");
    assert!(metrics.contains("# EOF") && metrics.contains("mesh_"), "{metrics}");
    for host in ["front", "back"] {
        let agent = world.mesh.agent_mut(host);
        let process = agent.process.as_mut().unwrap();
        assert_eq!(process.stop(Duration::from_secs(15)), Some(0), "{}", process.output());
        let notify = agent.notify.as_ref().unwrap();
        assert!(notify.ready_then_stopping(), "{host} told systemd {:?}", notify.said());
    }
    for name in world.mesh.server_names() {
        let server = world.mesh.server_mut(&name);
        let process = server.process.as_mut().unwrap();
        assert_eq!(process.stop(Duration::from_secs(20)), Some(0), "{}", process.output());
        let notify = server.notify.as_ref().unwrap();
        assert!(notify.ready_then_stopping(), "{name} told systemd {:?}", notify.said());
    }
}
