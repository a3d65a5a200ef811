#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]
use std::time::Duration;

use mesh_core::catalog::Health;
use mesh_core::hostfile;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;

fn host(text: &str) -> Arc<HostState> {
    let files = hostfile::parse("web.toml", text).unwrap();
    let declared = files.into_iter().map(|file| {
        let source = "web.toml".into();
        (file.id.clone(), Arc::new(Declared { file, source, exec: Exec::Refused }))
    });
    Arc::new(HostState { instances: declared.collect(), problems: vec![] })
}

fn id(text: &str) -> InstanceId {
    text.parse().unwrap()
}

async fn until(report: &mut watch::Receiver<Arc<Report>>, instance: &str, want: Option<Health>) {
    let found = |report: &Arc<Report>| report.get(&id(instance)).map(|c| c.health) == want;
    let waited = timeout(Duration::from_secs(10), report.wait_for(found)).await;
    assert!(waited.is_ok(), "{instance} did not become {want:?}");
}

#[test]
fn check_names_are_unique_and_short() {
    let long = format!("/{}", "x".repeat(900));
    let text = format!(
        "[instance.a]\nservice = \"a\"\nport = 1\ncheck = [{{ tcp = true }}, {{ tcp = true }}, \
         {{ http = \"/h\" }}, {{ http = \"{long}\" }}]"
    );
    let host = host(&text);
    let names: Vec<_> =
        named(&host.instances[&id("a")].file.checks).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names[..3], ["tcp", "tcp#2", "http:/h"]);
    assert_eq!(names[3].len(), 60);
}

#[tokio::test]
async fn instances_follow_their_checks_and_files() {
    let dir = tempfile::tempdir().unwrap();
    let up = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = up.local_addr().unwrap().port();
    let check = "check = [{ tcp = true, interval = \"100ms\", rise = 1, fall = 1 }]";
    let text = format!(
        "[instance.a]\nservice = \"a\"\nport = {port}\n{check}\n[instance.b]\nservice = \"b\"\nport = 1\n"
    );
    let (hosts, host_rx) = watch::channel(host(&text));
    let report = watch::Sender::new(Arc::default());
    let mut seen = report.subscribe();
    let shutdown = CancellationToken::new();
    let store = HealthStore::new(dir.path());
    let task = tokio::spawn(run(host_rx, report.clone(), store, shutdown.clone()));

    until(&mut seen, "b", Some(Health::Passing)).await;
    until(&mut seen, "a", Some(Health::Passing)).await;
    drop(up);
    until(&mut seen, "a", Some(Health::Critical)).await;
    hosts.send(host("[instance.b]\nservice = \"b\"\nport = 1\n")).unwrap();
    until(&mut seen, "a", None).await;
    hosts.send(host(&text)).unwrap();
    until(&mut seen, "a", Some(Health::Critical)).await;

    shutdown.cancel();
    timeout(Duration::from_secs(5), task).await.unwrap().unwrap();
    let kept = HealthStore::new(dir.path()).load();
    assert!(kept.contains_key(&id("a")) && kept.contains_key(&id("b")));
}

#[test]
fn the_first_health_is_the_last_one_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = HealthStore::new(dir.path());
    let status = CheckStatus { passing: true, output: "up".to_owned() };
    let checks = BTreeMap::from([("tcp".to_owned(), status)]);
    let change = HealthChange { health: Health::Passing, checks };
    store.save(&Report::from([(id("a"), change.clone())]));
    let check = "check = [{ tcp = true }]";
    let host = host(&format!(
        "[instance.a]\nservice = \"a\"\nport = 1\n{check}\n\
         [instance.b]\nservice = \"b\"\nport = 2\n{check}\n\
         [instance.c]\nservice = \"c\"\nport = 3\n"
    ));
    let report = initial(&host, &store);
    assert_eq!(report[&id("a")], change);
    assert_eq!(report[&id("b")].health, Health::Critical, "never tried");
    assert_eq!(report[&id("c")].health, Health::Passing, "nothing to try");
}

#[tokio::test]
async fn outcomes_survive_a_restart_until_the_first_try() {
    let (results, _outcomes) = mpsc::channel(1);
    let status = CheckStatus { passing: true, output: "up".to_owned() };
    let restored = BTreeMap::from([(id("a"), BTreeMap::from([("tcp".to_owned(), status)]))]);
    let mut checker = Checker::new(restored, results);
    let text = "[instance.a]\nservice = \"a\"\nport = 1\ncheck = [{ tcp = true }]\n";
    checker.reconcile(&host(text));
    let held = &checker.instances[&id("a")];
    assert_eq!(held.report().health, Health::Passing);
    let run = held.checks[0].run;
    let tried = Try { good: false, output: "down".to_owned() };
    checker.take(Outcome { instance: id("a"), run: run + 1, tried: tried.clone() });
    assert_eq!(checker.instances[&id("a")].report().health, Health::Passing, "another run's");
    checker.take(Outcome { instance: id("a"), run, tried });
    assert_eq!(checker.instances[&id("a")].report().health, Health::Critical);
}
