//! Load at a fixed rate over kept connections, every failure kept with its reason.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::http::Connection;
use crate::net::Host;

/// What a load saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Answers with status 200.
    pub ok: u64,
    /// Everything else: when, and what.
    pub failed: Vec<(Duration, String)>,
    /// The slowest answer.
    pub slowest: Duration,
}

/// A running load.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Sends `rate` GETs of `path` per second from `host` to `address` over `connections` kept
    /// connections, until stopped.
    pub fn start(
        host: &Host, address: SocketAddr, path: &str, rate: u32, connections: u32,
    ) -> Self {
        let (stop, seen) =
            (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Seen::default())));
        let began = Instant::now();
        let interval = Duration::from_secs(1) * connections / rate;
        let threads = (0..connections)
            .map(|number| {
                let (host, path) = (host.clone(), path.to_owned());
                let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
                let first = began + interval * number / connections;
                std::thread::spawn(move || {
                    host.run(|| one(address, &path, began, first, interval, &stop, &seen));
                })
            })
            .collect();
        Self { stop, seen, threads }
    }

    /// What was seen so far.
    ///
    /// # Panics
    /// If a load thread panicked.
    pub fn seen(&self) -> Seen {
        self.seen.lock().expect("load thread").clone()
    }

    /// Stops, and says what was seen.
    ///
    /// # Panics
    /// If a load thread panicked.
    pub fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("load thread");
        }
        let seen = self.seen.lock().expect("load thread");
        seen.clone()
    }
}

fn one(
    address: SocketAddr, path: &str, began: Instant, first: Instant, interval: Duration,
    stop: &AtomicBool, seen: &Mutex<Seen>,
) {
    let mut connection = None;
    let mut next = first;
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        next += interval;
        let asked = Instant::now();
        let answer = match connection.take() {
            Some(open) => Ok(open),
            None => Connection::open(address, "load"),
        }
        .and_then(|mut open| {
            let answer = open.get(path)?;
            if answer.headers.get("connection").is_none_or(|value| value != "close") {
                connection = Some(open);
            }
            Ok(answer)
        });
        let mut seen = seen.lock().expect("load thread");
        seen.slowest = seen.slowest.max(asked.elapsed());
        match answer {
            Ok(answer) if answer.status == 200 => seen.ok += 1,
            Ok(answer) => {
                let what = format!("{} {}", answer.status, answer.body.trim());
                seen.failed.push((began.elapsed(), what));
            }
            Err(error) => seen.failed.push((began.elapsed(), error.to_string())),
        }
    }
}
