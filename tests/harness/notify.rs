//! The service manager's end of sd_notify: what a process says of itself.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

/// Collects what one process says.
#[derive(Debug)]
pub struct Notify {
    socket: UnixDatagram,
    said: Mutex<Vec<String>>,
}

impl Notify {
    /// A socket in `dir` that `command` will be told of.
    ///
    /// # Panics
    /// If it cannot be bound.
    pub fn bind(dir: &Path, command: &mut Command) -> Self {
        let path = dir.join("notify");
        // of an earlier process
        let _gone = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).expect("notify socket");
        socket.set_nonblocking(true).expect("notify socket");
        command.env("NOTIFY_SOCKET", &path);
        Self { socket, said: Mutex::default() }
    }

    /// Every line said so far, in order.
    ///
    /// # Panics
    /// If a thread panicked here before.
    pub fn said(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let mut said = self.said.lock().expect("said");
        while let Ok(len) = self.socket.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
            said.extend(text.lines().map(str::to_owned));
        }
        said.clone()
    }

    /// Whether it said that it is ready, and later that it stops.
    pub fn ready_then_stopping(&self) -> bool {
        let said = self.said();
        let at = |line: &str| said.iter().position(|one| one == line);
        at("READY=1").zip(at("STOPPING=1")).is_some_and(|(ready, stopping)| ready < stopping)
    }
}
