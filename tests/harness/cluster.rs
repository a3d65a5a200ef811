//! A mesh of real processes: servers and agents, each on a host of its own, and the CLI.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::http;
use crate::net::{Host, Net};
use crate::notify::Notify;
use crate::operator::Operator;
use crate::process::{Process, Ran, binary, output};
use crate::{eventually, within};

/// A mesh; all of it ends when this is dropped.
#[derive(Debug)]
pub struct Mesh {
    // Processes before the network and the folders that they use.
    agents: Vec<Agent>,
    servers: Vec<Server>,
    home: TempDir,
    /// The hosts.
    pub net: Net,
}

/// One control server.
#[derive(Debug)]
pub struct Server {
    /// Its host.
    pub host: Host,
    /// Its folder: settings, key-encryption key, `data`, `log`.
    pub dir: PathBuf,
    /// Its process, if it was started.
    pub process: Option<Process>,
    /// What it tells the service manager.
    pub notify: Option<Notify>,
}

/// One agent.
#[derive(Debug)]
pub struct Agent {
    /// Its host.
    pub host: Host,
    /// Its folder: settings, `services.d`, `data`, `agent.sock`, `log`.
    pub dir: PathBuf,
    /// Its process, if it was started.
    pub process: Option<Process>,
    /// What it tells the service manager.
    pub notify: Option<Notify>,
}

impl Mesh {
    /// A mesh without servers yet.
    ///
    /// # Panics
    /// If there is no room for its files.
    pub fn new(net: Net) -> Self {
        let home = tempfile::tempdir().expect("temporary folder");
        // Other users reach their sockets, and are refused there.
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(home.path(), open).expect("temporary folder");
        Self { agents: Vec::new(), servers: Vec::new(), home, net }
    }

    /// A mesh with a server on each host named, the first by `mesh init`, the others by token.
    ///
    /// # Panics
    /// If anything of that fails.
    pub fn start(net: Net, servers: &[&str]) -> Self {
        let mut mesh = Self::new(net);
        for name in servers {
            mesh.add_server(name);
        }
        mesh
    }

    /// Sets a further server up and starts it.
    ///
    /// # Panics
    /// If that fails.
    pub fn add_server(&mut self, name: &str) {
        let dir = self.folder(name);
        let server = Server::new(self.net.host(name).clone(), dir);
        self.servers.push(server);
        let server = &self.servers[self.servers.len() - 1];
        if self.servers.len() == 1 {
            let ran = server.init(&self.admin_token());
            assert_eq!(ran.code, Some(0), "mesh init: {ran:?}");
        } else {
            let token = server.dir.join("join.token");
            self.cli(&["token", "create", "--server", name, "--out", path(&token)]).good();
            let ran = server.join(&token, &self.servers[0].api());
            assert_eq!(ran.code, Some(0), "join of {name}: {ran:?}");
        }
        self.start_server(name);
    }

    /// Starts the process of a server that was set up, and waits until it is ready.
    ///
    /// # Panics
    /// If it is not ready within 20 s.
    pub fn start_server(&mut self, name: &str) {
        self.server_mut(name).start();
        self.wait_server(name);
    }

    /// Waits until a server says that it is ready.
    ///
    /// # Panics
    /// If it does not within 20 s.
    pub fn wait_server(&self, name: &str) {
        let server = self.server(name);
        let url = format!("https://{}/v1/ready", server.api());
        let waited = within(Duration::from_secs(20), || {
            let mut curl = server.host.command("curl");
            curl.args(["-sk", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "2", &url]);
            (output(curl, Duration::from_secs(5)).stdout == "200").then_some(())
        });
        assert!(waited.is_some(), "server {name} does not get ready:\n{}", log_of(&server.dir));
    }

    /// Joins `host` as a node that may host `services`, declares `files` there, starts its agent,
    /// and waits until it is ready.
    ///
    /// # Panics
    /// If that fails.
    pub fn add_agent(&mut self, host: &str, services: &str, files: &str) {
        let token = self.token(&["--node", host, "--service", services]);
        self.prepare_agent(host, &token, files);
        self.agent_mut(host).start();
        self.wait_ready(host);
    }

    /// The text of a new token.
    ///
    /// # Panics
    /// If none is made.
    pub fn token(&self, what: &[&str]) -> String {
        let ran = self.cli(&[&["token", "create"], what].concat()).good();
        ran.stdout.trim().to_owned()
    }

    /// Sets an agent up on `host` that will join by `token`, and declares `files` there.
    ///
    /// # Panics
    /// If its files cannot be written.
    pub fn prepare_agent(&mut self, host: &str, token: &str, files: &str) {
        let dir = self.folder(host);
        let servers: Vec<String> =
            self.servers.iter().map(|server| format!("\"{}\"", server.api())).collect();
        let at = dir.display();
        let text = format!(
            "node = \"{host}\"\nservers = [{}]\ntoken_file = \"{at}/join.token\"\n\
             data_dir = \"{at}/data\"\nservices_dir = \"{at}/services.d\"\n\
             socket = \"{at}/agent.sock\"\naddress = \"{}\"\n",
            servers.join(", "),
            self.net.host(host).ip,
        );
        fs::write(dir.join("agent.toml"), text).expect("agent.toml");
        fs::create_dir_all(dir.join("services.d")).expect("services.d");
        fs::write(dir.join("services.d/host.toml"), files).expect("services.d");
        self.agents.push(Agent {
            host: self.net.host(host).clone(),
            dir,
            process: None,
            notify: None,
        });
        self.agents[self.agents.len() - 1].give_token(token);
    }

    /// Waits until an agent says that it is ready.
    ///
    /// # Panics
    /// If it does not within 20 s.
    pub fn wait_ready(&self, host: &str) {
        let agent = self.agent(host);
        let admin: SocketAddr = ([127, 0, 0, 1], 7302).into();
        let ready = || {
            let answer = agent.host.run(|| http::get(admin, "localhost", "/ready"));
            answer.is_ok_and(|answer| answer.status == 200).then_some(())
        };
        let waited = within(Duration::from_secs(20), ready);
        assert!(waited.is_some(), "agent {host} does not get ready:\n{}", log_of(&agent.dir));
    }

    /// The server on `name`.
    ///
    /// # Panics
    /// If there is none.
    pub fn server(&self, name: &str) -> &Server {
        self.servers.iter().find(|server| server.host.name == name).expect("a server there")
    }

    /// The server on `name`, to change it.
    ///
    /// # Panics
    /// If there is none.
    pub fn server_mut(&mut self, name: &str) -> &mut Server {
        self.servers.iter_mut().find(|server| server.host.name == name).expect("a server there")
    }

    /// The names of the servers.
    pub fn server_names(&self) -> Vec<String> {
        self.servers.iter().map(|server| server.host.name.clone()).collect()
    }

    /// The agent on `host`.
    ///
    /// # Panics
    /// If there is none.
    pub fn agent(&self, host: &str) -> &Agent {
        self.agents.iter().find(|agent| agent.host.name == host).expect("an agent there")
    }

    /// The agent on `host`, to change it.
    ///
    /// # Panics
    /// If there is none.
    pub fn agent_mut(&mut self, host: &str) -> &mut Agent {
        self.agents.iter_mut().find(|agent| agent.host.name == host).expect("an agent there")
    }

    /// A folder of its own for `name`, on no other host.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn folder(&self, name: &str) -> PathBuf {
        let dir = self.home.path().join(name);
        fs::create_dir_all(&dir).expect("folder");
        dir
    }

    /// The file of the first admin token.
    pub fn admin_token(&self) -> PathBuf {
        self.home.path().join("admin.token")
    }

    /// Runs `mesh` on the first server's host with the admin token.
    pub fn cli(&self, args: &[&str]) -> Ran {
        self.cli_at(&self.servers[0].host, args)
    }

    /// Runs `mesh` on `host` with the admin token.
    pub fn cli_at(&self, host: &Host, args: &[&str]) -> Ran {
        Operator { host: host.clone(), ..self.operator() }.cli(args)
    }

    /// Who runs `mesh` on the first server's host with the admin token.
    pub fn operator(&self) -> Operator {
        let servers = self.servers.iter().map(Server::api).collect();
        Operator { host: self.servers[0].host.clone(), servers, token: self.admin_token() }
    }

    /// The JSON that `mesh ... -o json` prints.
    ///
    /// # Panics
    /// If it prints none.
    pub fn json(&self, args: &[&str]) -> Value {
        let ran = self.cli(&[args, &["-o", "json"]].concat());
        serde_json::from_str(&ran.stdout).unwrap_or_else(|why| panic!("{args:?}: {why}: {ran:?}"))
    }

    /// Puts `text` in force as the policy file `name`.
    ///
    /// # Panics
    /// If it is refused.
    pub fn apply(&self, name: &str, text: &str) -> Ran {
        let file = self.home.path().join(name);
        fs::write(&file, text).expect("policy file");
        self.cli(&["apply", path(&file)]).good()
    }

    /// Waits until `mesh status` finds nothing wrong and every agent is connected and synced.
    ///
    /// # Panics
    /// If that takes over 20 s.
    pub fn wait_synced(&self) {
        let mut last = None;
        let agents = self.agents.iter().filter(|agent| agent.process.is_some()).count();
        let waited = within(Duration::from_secs(20), || {
            let ran = self.cli(&["status", "-o", "json", "--timeout", "3s"]);
            let status: Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
            let all = status["agents"].as_array().map_or(0, Vec::len);
            let synced = ran.code == Some(0) && all == agents;
            last = Some(ran);
            synced.then_some(())
        });
        assert!(waited.is_some(), "{agents} agents are not synced: {last:#?}");
    }

    /// Waits until every server has the same state at the same revision, by its own word.
    ///
    /// # Panics
    /// If that takes over 20 s.
    pub fn wait_same_state(&self) {
        let mut last = Value::Null;
        let waited = within(Duration::from_secs(20), || {
            last = self.json(&["status"])["servers"].take();
            let states = last.as_array()?.iter().map(|one| {
                let status = &one["status"];
                Some((status["revision"].as_str()?, status["state_hash"].as_str()?))
            });
            let states: Vec<(&str, &str)> = states.collect::<Option<_>>()?;
            let same = states.windows(2).all(|pair| pair[0] == pair[1]);
            (states.len() == self.servers.len() && same).then_some(())
        });
        assert!(waited.is_some(), "the servers' states differ: {last:#}");
    }

    /// The leader, as the servers say.
    ///
    /// # Panics
    /// If there is none within 10 s.
    pub fn leader(&self) -> String {
        eventually("a leader", Duration::from_secs(10), || {
            let ran = self.cli(&["status", "-o", "json"]);
            let status: Value = serde_json::from_str(&ran.stdout).ok()?;
            status["status"]["leader"].as_str().map(str::to_owned)
        })
    }
}

impl Server {
    fn new(host: Host, dir: PathBuf) -> Self {
        Self { host, dir, process: None, notify: None }
    }

    fn settings(&self) -> [(&'static str, String); 7] {
        let (at, ip) = (self.dir.display(), self.host.ip);
        [
            ("name", self.host.name.clone()),
            ("data-dir", format!("{at}/data")),
            ("kek-file", format!("{at}/kek")),
            ("api", format!("{ip}:7300")),
            ("api-address", format!("{ip}:7300")),
            ("raft", format!("{ip}:7301")),
            ("raft-address", format!("{ip}:7301")),
        ]
    }

    /// Starts its process.
    pub fn start(&mut self) {
        let mut command = self.host.mesh("meshd");
        command.arg("--config").arg(self.config());
        self.notify = Some(Notify::bind(&self.dir, &mut command));
        self.process = Some(Process::start(command, &self.dir.join("log")));
    }

    /// Kills its process.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Its API, as `host:port`.
    pub fn api(&self) -> String {
        format!("{}:7300", self.host.ip)
    }

    /// Its settings file, which `mesh init` writes.
    pub fn config(&self) -> PathBuf {
        self.dir.join("meshd.toml")
    }

    fn init(&self, admin_token: &Path) -> Ran {
        let mut command = self.host.mesh("mesh");
        command.args(["init", "--token-out", path(admin_token), "--config", path(&self.config())]);
        for (key, value) in self.settings() {
            command.arg(format!("--{key}")).arg(value);
        }
        output(command, Duration::from_secs(30))
    }

    fn join(&self, token: &Path, first: &str) -> Ran {
        let line =
            |(key, value): (&str, String)| format!("{} = \"{value}\"\n", key.replace('-', "_"));
        let text: String = self.settings().into_iter().map(line).collect();
        fs::write(self.config(), text).expect("meshd.toml");
        let mut command = self.host.mesh("mesh");
        command.args(["server", "join", first, "--token-file", path(token)]);
        command.arg("--config").arg(self.config());
        output(command, Duration::from_secs(30))
    }
}

impl Agent {
    /// Starts its process.
    pub fn start(&mut self) {
        let mut command = self.host.mesh("mesh-agent");
        command.arg("--config").arg(self.dir.join("agent.toml"));
        self.notify = Some(Notify::bind(&self.dir, &mut command));
        self.process = Some(Process::start(command, &self.dir.join("log")));
    }

    /// Kills its process.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Puts a join token where it will look for one.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn give_token(&self, token: &str) {
        let file = self.dir.join("join.token");
        fs::write(&file, token).expect("join.token");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("join.token");
    }

    /// Runs `mesh service ...` against its socket, as another user if given.
    ///
    /// # Panics
    /// If it cannot be run.
    pub fn local_cli(&self, uid: Option<u32>, args: &[&str]) -> Ran {
        let mut command = match uid {
            Some(uid) => {
                // Where Cargo puts it may be out of reach for others.
                let copy = self.dir.join("mesh");
                fs::copy(binary("mesh"), &copy).expect("copy of mesh");
                self.host.command_as(uid, path(&copy))
            }
            None => self.host.mesh("mesh"),
        };
        command.args(args).arg("--socket").arg(self.dir.join("agent.sock"));
        output(command, Duration::from_secs(20))
    }

    /// A page of its admin listener.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn admin(&self, page: &str) -> String {
        let admin: SocketAddr = ([127, 0, 0, 1], 7302).into();
        self.host.run(|| http::get(admin, "localhost", page)).expect("admin page").body
    }
}

fn log_of(dir: &Path) -> String {
    fs::read_to_string(dir.join("log")).unwrap_or_default()
}

/// A path that the tests made, as text.
///
/// # Panics
/// If it is not UTF-8.
pub fn path(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
