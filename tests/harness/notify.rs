//! The service manager's end of sd_notify: what a process says of itself.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::within;

/// Collects what one process says.
#[derive(Debug)]
pub struct Notify {
    said: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
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
        socket.set_read_timeout(Some(LOOK_EVERY)).expect("notify socket");
        command.env("NOTIFY_SOCKET", &path);
        let (said, stop) = (Arc::new(Mutex::default()), Arc::new(AtomicBool::new(false)));
        let reader = {
            let (said, stop) = (Arc::clone(&said), Arc::clone(&stop));
            // At all times, as a service manager does: a full socket is another test.
            std::thread::spawn(move || read(&socket, &said, &stop))
        };
        Self { said, stop, reader: Some(reader) }
    }

    /// Every line said so far, in order.
    ///
    /// # Panics
    /// If a thread panicked here before.
    pub fn said(&self) -> Vec<String> {
        self.said.lock().expect("said").clone()
    }

    /// Whether it said that it is ready, and later that it stops.
    pub fn ready_then_stopping(&self) -> bool {
        let look = || {
            let said = self.said();
            let at = |line: &str| said.iter().position(|one| one == line);
            at("READY=1").zip(at("STOPPING=1")).map(|(ready, stopping)| ready < stopping)
        };
        // the last words of one that ended may still be under way to the reader
        within(Duration::from_secs(1), look) == Some(true)
    }
}

impl Drop for Notify {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            // it can only have panicked, which was shown
            let _ended = reader.join();
        }
    }
}

fn read(socket: &UnixDatagram, said: &Mutex<Vec<String>>, stop: &AtomicBool) {
    let mut buffer = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        if let Ok(len) = socket.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..len]);
            said.lock().expect("said").extend(text.lines().map(str::to_owned));
        }
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(50);
