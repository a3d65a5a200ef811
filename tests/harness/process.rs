//! Processes of a test: started with a log file, ended by pid.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A running process with its output in a file; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

/// A binary of the mesh: in the folder that `MESH_TESTS_BIN` names, or as Cargo built it.
///
/// # Panics
/// If it is not there (`cargo build --workspace` first).
pub fn binary(name: &str) -> PathBuf {
    let given = std::env::var_os("MESH_TESTS_BIN").map(PathBuf::from);
    let folder = given.unwrap_or_else(|| {
        let own = std::env::current_exe().expect("the test's own path");
        let folder = own.parent().expect("target/PROFILE");
        // tests lie in `deps` below it
        let deps = folder.ends_with("deps").then(|| folder.parent()).flatten();
        deps.unwrap_or(folder).to_owned()
    });
    let path = folder.join(name);
    assert!(path.is_file(), "{} is missing: run `cargo build --workspace` first", path.display());
    path
}

impl Process {
    /// Starts `command` with both outputs appended to `log`.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(mut command: Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("log file");
        let copy = file.try_clone().expect("log file");
        command.stdin(Stdio::null()).stdout(file).stderr(copy);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, log: log.to_owned() }
    }

    /// Its pid. `nsenter` replaces itself, so this is the program's own.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid()) {
            // a process that is gone already is what the caller wants
            let _gone = kill_process(pid, signal);
        }
    }

    /// Kills it without a chance to clean up, and waits for its end.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        let _status = self.child.wait();
    }

    /// Asks it to stop and waits; the exit code, or `None` for a death by signal.
    ///
    /// # Panics
    /// If it does not stop within `within`.
    pub fn stop(&mut self, within: Duration) -> Option<i32> {
        self.signal(Signal::TERM);
        self.wait(within)
    }

    /// Waits for its end; the exit code, or `None` for a death by signal.
    ///
    /// # Panics
    /// If it does not end within `within`.
    pub fn wait(&mut self, within: Duration) -> Option<i32> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "did not end within {within:?}:\n{}", self.output());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it has printed so far, both outputs.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a command that ended has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// Its exit code, or `None` for a death by signal.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it said besides.
    pub stderr: String,
}

impl Ran {
    /// The same, having made sure that it succeeded.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub fn good(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// The same, having made sure that it failed with `code` and said `text` on standard error.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub fn bad(self, code: i32, text: &str) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stderr.contains(text), "{text:?} is not in {self:?}");
        self
    }
}

/// Runs `command` to its end within `within`, with its outputs apart.
///
/// # Panics
/// If it cannot be started or takes too long.
pub fn output(mut command: Command, within: Duration) -> Ran {
    let (out, err) = (temporary(), temporary());
    command.stdin(Stdio::null());
    command.stdout(out.reopen().expect("file")).stderr(err.reopen().expect("file"));
    let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut process = Process { child, log: err.path().to_owned() };
    let code = process.wait(within);
    let stdout = fs::read_to_string(out.path()).unwrap_or_default();
    Ran { code, stdout, stderr: process.output() }
}

fn temporary() -> tempfile::NamedTempFile {
    tempfile::NamedTempFile::new().expect("temporary file")
}

/// Runs `command` to its end within `within`: exit code and both outputs.
///
/// # Panics
/// If it cannot be started or takes too long.
pub fn run(mut command: Command, within: Duration) -> (Option<i32>, String) {
    let out = temporary();
    let file = out.reopen().expect("file");
    command.stdin(Stdio::null()).stdout(file.try_clone().expect("file")).stderr(file);
    let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut process = Process { child, log: out.path().to_owned() };
    let code = process.wait(within);
    (code, process.output())
}
