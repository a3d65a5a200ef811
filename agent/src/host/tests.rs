#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]
use std::time::Duration;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use mesh_core::hostfile;
use mesh_core::time::UnixMillis;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::*;
use crate::status::Board;

const WEB: &str = "[instance.web-1]\nservice = \"web\"\nport = 8080\n";
const DB: &str = "[instance.db-1]\nservice = \"db\"\nport = 5432\n";

pub(crate) fn host(text: &str) -> HostState {
    let files = hostfile::parse("test.toml", text).unwrap();
    let declared = files.into_iter().map(|file| {
        let source = "test.toml".into();
        (file.id.clone(), Arc::new(Declared { file, source, exec: Exec::Refused }))
    });
    HostState { instances: declared.collect(), problems: vec![] }
}

struct Host {
    services: TempDir,
    data: TempDir,
}

impl Host {
    fn new(files: &[(&str, &str)]) -> Self {
        let host =
            Self { services: tempfile::tempdir().unwrap(), data: tempfile::tempdir().unwrap() };
        files.iter().for_each(|(name, text)| host.write(name, text));
        host
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.services.path().join(name)
    }

    fn loader(&self) -> Loader {
        Loader::new(self.services.path(), self.data.path())
    }
}

fn names(state: &HostState) -> Vec<&str> {
    state.instances.keys().map(InstanceId::as_str).collect()
}

#[test]
fn a_broken_file_keeps_its_last_good_content() {
    let host = Host::new(&[("a.toml", WEB), ("b.toml", DB), (".c.toml", "x"), ("d.txt", "x")]);
    let mut loader = host.loader();
    let state = loader.scan();
    assert_eq!(names(&state), ["db-1", "web-1"]);
    assert_eq!(state.problems, []);

    host.write("a.toml", "[instance.web-1]\nservice = \"web\"\nprot = 1\n");
    let state = loader.scan();
    assert_eq!(names(&state), ["db-1", "web-1"], "web-1 stays as it was");
    let unknown = |p: &Problem| p.message.contains("a.toml:3:1: unknown key \"prot\"");
    assert!(state.problems.iter().any(unknown), "{state:?}");

    host.write("a.toml", &WEB.replace("8080", "8081"));
    let state = loader.scan();
    assert_eq!(state.instances["web-1"].file.port, 8081);
    assert_eq!(state.problems, []);

    fs::remove_file(host.path("b.toml")).unwrap();
    assert_eq!(names(&loader.scan()), ["web-1"]);
}

#[test]
fn an_agent_that_starts_while_a_file_is_broken_forgets_nothing() {
    let host = Host::new(&[("a.toml", WEB), ("b.toml", DB)]);
    assert_eq!(names(&host.loader().scan()), ["db-1", "web-1"]);
    host.write("a.toml", "[instance.web-1\n");
    let mut restarted = host.loader();
    let state = restarted.scan();
    assert_eq!(names(&state), ["db-1", "web-1"]);
    assert!(state.problems[0].message.contains("a.toml:1:"), "{state:?}");

    // what was removed, by itself or while no agent ran, does not come back
    fs::remove_file(host.path("a.toml")).unwrap();
    assert_eq!(names(&host.loader().scan()), ["db-1"]);
    host.write("a.toml", "[instance.web-1\n");
    assert_eq!(names(&host.loader().scan()), ["db-1"]);
}

#[test]
fn duplicates_name_both_files() {
    let host = Host::new(&[("a.toml", WEB), ("b.toml", &WEB.replace("8080", "1"))]);
    let state = host.loader().scan();
    assert_eq!(state.instances["web-1"].file.port, 8080, "the first stands");
    let problem = &state.problems[0];
    assert!(
        problem.file.ends_with("b.toml") && problem.message.contains("a.toml:1"),
        "{problem:?}"
    );
}

#[test]
fn listen_addresses_belong_to_the_first() {
    let up = |id: &str| {
        format!(
            "[instance.{id}]\nservice = \"{id}\"\nport = 1\nupstreams = \
             [{{ service = \"db\", listen = \"127.0.0.1:9001\" }}]\n"
        )
    };
    let host = Host::new(&[("a.toml", &up("a")), ("b.toml", &up("b"))]);
    let state = host.loader().scan();
    assert!(state.instances["a"].file.upstreams[0].listen.is_some());
    assert_eq!(state.instances["b"].file.upstreams[0].listen, None);
    assert!(state.problems[0].message.contains("is taken by instance.a"), "{:?}", state.problems);
}

#[test]
fn commands_need_a_file_of_roots() {
    let text = format!("{WEB}check = [{{ exec = [\"/bin/true\"] }}]\n");
    let host = Host::new(&[("a.toml", &text)]);
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let root = rustix::process::geteuid().is_root();
    mode(host.services.path(), 0o755);
    mode(&host.path("a.toml"), 0o644);
    let want = if root { Exec::Allowed } else { Exec::Refused };
    assert_eq!(host.loader().scan().instances["web-1"].exec, want);
    mode(&host.path("a.toml"), 0o666);
    let state = host.loader().scan();
    assert_eq!(state.instances["web-1"].exec, Exec::Refused);
    assert!(state.problems[0].message.contains("exec checks run only from files"), "{state:?}");
}

#[test]
fn a_missing_directory_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let state = Loader::new(&dir.path().join("none"), dir.path()).scan();
    assert!(state.instances.is_empty());
    assert!(state.problems[0].message.starts_with("cannot list"), "{:?}", state.problems);
}

struct Running {
    state: watch::Receiver<Arc<HostState>>,
    socket: PathBuf,
    shutdown: CancellationToken,
    tasks: tokio::task::JoinSet<()>,
}

fn start(host: &Host) -> Running {
    let mut loader = host.loader();
    let state = watch::Sender::new(Arc::new(loader.scan()));
    let (commands, taken) = mpsc::channel(8);
    let shutdown = CancellationToken::new();
    let socket = host.data.path().join("agent.sock");
    let board = Arc::new(Board::new("web-7".parse().unwrap(), 1, UnixMillis(1)));
    let service = Service { commands, host: state.subscribe(), board };
    let seen = state.subscribe();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(serve(bind(&socket).unwrap(), service, shutdown.clone()));
    tasks.spawn(run(loader, state, taken, shutdown.clone()));
    Running { state: seen, socket, shutdown, tasks }
}

async fn ask(stream: &mut BufReader<UnixStream>, line: &str) -> serde_json::Value {
    stream.get_mut().write_all(format!("{line}\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(Duration::from_secs(5), stream.read_line(&mut answer)).await.unwrap().unwrap();
    serde_json::from_str(&answer).unwrap()
}

#[tokio::test]
async fn changed_files_are_seen_soon() {
    let host = Host::new(&[("a.toml", WEB)]);
    let mut running = start(&host);
    host.write("b.toml", DB);
    let both = running.state.wait_for(|state| state.instances.len() == 2);
    assert!(timeout(Duration::from_secs(5), both).await.is_ok(), "not seen");
    running.shutdown.cancel();
    timeout(Duration::from_secs(5), running.tasks.join_all()).await.unwrap();
}

#[tokio::test]
async fn the_socket_adds_and_removes() {
    let host = Host::new(&[("a.toml", WEB)]);
    let running = start(&host);
    let mode = fs::metadata(&running.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let mut stream = BufReader::new(UnixStream::connect(&running.socket).await.unwrap());

    let add = serde_json::json!({ "op": "service_add", "file": DB, "name": "db-1" }).to_string();
    let answer = ask(&mut stream, &add).await;
    assert_eq!(answer, serde_json::json!({ "ok": true, "result": ["db-1"] }));
    assert_eq!(names(&running.state.borrow()), ["db-1", "web-1"], "visible once answered");
    assert_eq!(names(&host.loader().scan()), ["db-1", "web-1"], "kept on disk");

    let cases = [
        (r#"{"op":"service_add","file":"[instance.x]\nport=1"}"#, "instance.x has no service"),
        (
            r#"{"op":"service_add","file":"[instance.web-1]\nservice=\"w\"\nport=1"}"#,
            "is declared in",
        ),
        (
            r#"{"op":"service_add","file":"[instance.x]\nservice=\"w\"\nport=1\ncheck=[{exec=[\"/x\"]}]"}"#,
            "exec checks run only",
        ),
        (
            r#"{"op":"service_add","file":"[instance.x]\nservice=\"w\"\nport=1","name":"y"}"#,
            "expected y alone",
        ),
        (r#"{"op":"service_remove","name":"web-1"}"#, "remove it there"),
        (r#"{"op":"service_remove","name":"../x"}"#, "not understood"),
        (r#"{"op":"other"}"#, "not understood"),
        ("[", "not understood"),
    ];
    for (line, want) in cases {
        let answer = ask(&mut stream, line).await;
        assert_eq!(answer["ok"], false, "{line}");
        assert!(answer["error"].to_string().contains(want), "{line} gave {answer}");
    }
    let services = ask(&mut stream, r#"{"op":"services"}"#).await;
    assert_eq!(services["result"]["services"][0]["instance"], "db-1");
    let status = ask(&mut stream, r#"{"op":"status"}"#).await;
    assert_eq!(status["result"]["node"], "web-7");

    let answer = ask(&mut stream, r#"{"op":"service_remove","name":"db-1"}"#).await;
    assert_eq!(answer["ok"], true);
    assert_eq!(names(&running.state.borrow()), ["web-1"]);
    running.shutdown.cancel();
    timeout(Duration::from_secs(5), running.tasks.join_all()).await.unwrap();
}

#[tokio::test]
async fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    drop(bind(&path).unwrap());
    let live = bind(&path);
    assert!(live.is_ok());
    assert!(bind(&path).is_err(), "someone answers there");
    drop(live);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "mine").unwrap();
    assert!(bind(&path).is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine", "no socket: not ours to remove");
}
