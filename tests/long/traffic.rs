//! Steady HTTP and TCP load from the callers' host, every failure kept with its time.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::backends::local;
use crate::http::Connection;
use crate::net::Host;

use super::world::{CACHE, ORDERS};

/// A request that was not answered well.
#[derive(Clone, Debug)]
pub struct Failed {
    /// When it was sent, since the load began.
    pub began: Duration,
    /// When it failed.
    pub ended: Duration,
    /// The protocol, and what came instead of an answer.
    pub what: String,
}

/// What a load saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Good answers, by the microseconds they took.
    pub took: Vec<u32>,
    /// All others.
    pub failed: Vec<Failed>,
}

/// A running load.
#[derive(Debug)]
pub struct Traffic {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    threads: Vec<JoinHandle<()>>,
}

impl Traffic {
    /// Sends `rate` requests per second, HTTP and TCP in equal parts, over [`CONNECTIONS`]
    /// connections of each kind; every [`REUSED`] requests a connection makes place for a new one.
    pub fn start(host: &Host, rate: u32, began: Instant) -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::default()));
        let interval = Duration::from_secs(1) * 2 * CONNECTIONS / rate;
        let threads = (0..2 * CONNECTIONS).map(|number| {
            let (host, stop, seen) = (host.clone(), Arc::clone(&stop), Arc::clone(&seen));
            let first = Instant::now() + interval * number / (2 * CONNECTIONS);
            let open = if number % 2 == 0 { Open::http } else { Open::tcp };
            let one = One { open, began, interval, stop, seen };
            std::thread::spawn(move || host.run(|| one.send(first)))
        });
        let threads = threads.collect();
        Self { stop, seen, threads }
    }

    /// Good answers and failures so far.
    ///
    /// # Panics
    /// If a load thread panicked.
    pub fn counts(&self) -> (usize, usize) {
        let seen = self.seen.lock().expect("load thread");
        (seen.took.len(), seen.failed.len())
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
        let mut seen = self.seen.lock().expect("load thread");
        std::mem::take(&mut seen)
    }
}

impl Seen {
    /// The figures of it.
    pub fn figures(&self) -> Value {
        let mut took = self.took.clone();
        took.sort_unstable();
        let at = |permille: usize| took.get((took.len() * permille / 1000).min(took.len() - 1));
        let at = |permille| if took.is_empty() { None } else { at(permille) };
        json!({
            "good": took.len(),
            "failed": self.failed.len(),
            "p50_us": at(500),
            "p99_us": at(990),
            "slowest_us": took.last(),
        })
    }
}

/// An open connection: one request and its answer.
enum Open {
    Http(Connection),
    Tcp(TcpStream),
}

impl Open {
    fn http() -> io::Result<Self> {
        Connection::open(local(ORDERS), "orders").map(Self::Http)
    }

    fn tcp() -> io::Result<Self> {
        tcp(local(CACHE)).map(Self::Tcp)
    }

    fn ask(&mut self) -> io::Result<()> {
        match self {
            Self::Http(connection) => {
                let answer = connection.get("/load")?;
                if answer.status == 200 {
                    return Ok(());
                }
                let body: String = answer.body.trim().chars().take(120).collect();
                Err(io::Error::other(format!("{} {body}", answer.status)))
            }
            Self::Tcp(stream) => ping(stream),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Tcp(_) => "tcp",
        }
    }
}

/// One thread of a load.
struct One {
    open: fn() -> io::Result<Open>,
    began: Instant,
    interval: Duration,
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
}

impl One {
    fn send(&self, first: Instant) {
        let (mut kept, mut next) = (None, first);
        while !self.stop.load(Ordering::Relaxed) {
            sleep(next.saturating_duration_since(Instant::now()));
            let asked = Instant::now();
            // What waited is not caught up with: the rate is a rate.
            next = (next + self.interval).max(asked);
            let answer = self.ask(&mut kept);
            let mut seen = self.seen.lock().expect("load thread");
            match answer {
                Ok(()) => {
                    seen.took.push(asked.elapsed().as_micros().try_into().unwrap_or(u32::MAX))
                }
                Err(what) => {
                    let began = asked.duration_since(self.began);
                    seen.failed.push(Failed { began, ended: self.began.elapsed(), what });
                }
            }
        }
    }

    fn ask(&self, kept: &mut Option<(Open, u32)>) -> Result<(), String> {
        let (mut open, used) = match kept.take() {
            Some(kept) => kept,
            None => ((self.open)().map_err(|why| format!("connect: {why}"))?, 0),
        };
        open.ask().map_err(|why| format!("{}, request {used}: {why}", open.name()))?;
        if used < REUSED {
            *kept = Some((open, used + 1));
        }
        Ok(())
    }
}

fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn ping(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer)?;
    if &answer == b"+PONG\r\n" { Ok(()) } else { Err(io::Error::other(format!("{answer:?}"))) }
}

/// Asks redis on a connection of its own.
///
/// # Errors
/// Those of the socket, or another answer.
pub fn ping_once(address: SocketAddr) -> io::Result<()> {
    ping(&mut tcp(address)?)
}

/// Connections of each kind.
const CONNECTIONS: u32 = 8;
/// Requests over one connection.
const REUSED: u32 = 50;
