//! Workers: one thread with one runtime each, and all that the data path keeps is a worker's own.
//!
//! A connection stays on the worker that has it, so pools, buffers and what was learned of
//! endpoints are never fought over. All that a worker runs ends with its runtime.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::Proxy;
use crate::limits::proxy::ACCEPT_PAUSE;

/// The thread of one worker.
#[derive(Debug)]
pub(super) struct Thread {
    thread: JoinHandle<()>,
    stop: CancellationToken,
}

/// How even the workers' shares of a listener's connections are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// Exactly: each connection carries much.
    Even,
    /// Nearly: handing a connection over costs a wake-up of another core.
    Near,
}

impl Share {
    /// How many connections more than the least loaded worker one may have.
    fn slack(self) -> usize {
        match self {
            Self::Even => 0,
            Self::Near => 4,
        }
    }
}

/// Starts worker `number`; its runtime is driven until [`Thread::stop`].
///
/// # Errors
/// If the kernel gives no thread or no epoll.
pub(super) fn start(number: usize) -> io::Result<(Thread, Handle)> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let thread = std::thread::Builder::new()
        .name(format!("proxy-{number}"))
        .spawn(move || runtime.block_on(stopped.cancelled()))?;
    Ok((Thread { thread, stop }, handle))
}

impl Thread {
    /// Ends the worker's runtime, and every task on it. Blocks until that is done.
    pub(super) fn stop(self) {
        self.stop.cancel();
        // a panic of a task is the task's; the thread itself does nothing that could
        let _ = self.thread.join();
    }
}

/// Accepts on every worker until `stop`, each connection as a task of the worker that has least.
/// At the cap new ones wait in the kernel's backlog. The listener is one open file, whatever the
/// number of workers.
///
/// # Errors
/// If the listener cannot be shared.
pub(super) fn accept<F>(
    workers: &[Arc<Proxy>], listener: &std::net::TcpListener, share: Share,
    stop: &CancellationToken,
    serve: impl Fn(Arc<Proxy>, TcpStream, SocketAddr) -> F + Clone + Send + Sync + 'static,
) -> io::Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let Some(first) = workers.first() else { return Ok(()) };
    let places = Arc::new(Semaphore::new(first.limits.connections_max));
    let open: Arc<[AtomicUsize]> = workers.iter().map(|_| AtomicUsize::new(0)).collect();
    for (here, worker) in workers.iter().enumerate() {
        let accepting = Accepting {
            workers: workers.to_vec(),
            here,
            open: Arc::clone(&open),
            share,
            places: Arc::clone(&places),
        };
        let (listener, stop, serve) = (listener.try_clone()?, stop.clone(), serve.clone());
        worker.spawn_accepting(async move {
            // here, so that it is this worker's runtime that waits for it
            match TcpListener::from_std(listener) {
                Ok(listener) => accepting.run(&listener, &stop, serve).await,
                Err(error) => tracing::error!(%error, "cannot listen"),
            }
        });
    }
    Ok(())
}

/// One worker's loop of one listener.
struct Accepting {
    workers: Vec<Arc<Proxy>>,
    /// Which of them this is.
    here: usize,
    /// Connections of this listener open on each.
    open: Arc<[AtomicUsize]>,
    share: Share,
    places: Arc<Semaphore>,
}

impl Accepting {
    async fn run<F>(
        &self, listener: &TcpListener, stop: &CancellationToken,
        serve: impl Fn(Arc<Proxy>, TcpStream, SocketAddr) -> F + Clone + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        loop {
            let accepted = async {
                let place = Arc::clone(&self.places).acquire_owned().await;
                (listener.accept().await, place)
            };
            let (accepted, place) = tokio::select! {
                accepted = accepted => accepted,
                () = stop.cancelled() => return,
            };
            match accepted {
                Ok((stream, from)) => {
                    let at = self.choose();
                    let counted = Counted::new(&self.open, at, place);
                    self.deal(at, stream, from, counted, serve.clone());
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn choose(&self) -> usize {
        let open = self.open.iter().map(|open| open.load(Ordering::Relaxed));
        choose(open, self.here, self.share.slack())
    }

    /// Serves the connection as a task of worker `at`.
    fn deal<F>(
        &self, at: usize, stream: TcpStream, from: SocketAddr, counted: Counted,
        serve: impl Fn(Arc<Proxy>, TcpStream, SocketAddr) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let worker = Arc::clone(&self.workers[at]);
        if at == self.here {
            // boxed, or the task would hold its place once more at each step on the way in
            let serving = Box::pin(serve(Arc::clone(&worker), stream, from));
            worker.spawn(async move {
                serving.await;
                drop(counted);
            });
            return;
        }
        let stream = match stream.into_std() {
            Ok(stream) => stream,
            Err(error) => return tracing::warn!(%error, "a connection could not be handed over"),
        };
        let target = Arc::clone(&worker);
        worker.spawn_accepting(async move {
            match TcpStream::from_std(stream) {
                Ok(stream) => {
                    let serving = Box::pin(serve(Arc::clone(&target), stream, from));
                    target.spawn(async move {
                        serving.await;
                        drop(counted);
                    });
                }
                Err(error) => tracing::warn!(%error, "a connection could not be taken over"),
            }
        });
    }
}

/// The worker for a connection that was accepted at `here`: that one, unless it has over `slack`
/// more than the one that has least.
fn choose(mut open: impl Iterator<Item = usize> + Clone, here: usize, slack: usize) -> usize {
    let least = open.clone().enumerate().min_by_key(|(_, open)| *open);
    let mine = open.nth(here).unwrap_or(0);
    match least {
        Some((at, least)) if mine > least.saturating_add(slack) => at,
        Some(_) | None => here,
    }
}

/// A connection counted for its worker, and its place under the cap, until dropped.
struct Counted {
    open: Arc<[AtomicUsize]>,
    at: usize,
    _place: Result<tokio::sync::OwnedSemaphorePermit, tokio::sync::AcquireError>,
}

impl Counted {
    fn new(
        open: &Arc<[AtomicUsize]>, at: usize,
        place: Result<tokio::sync::OwnedSemaphorePermit, tokio::sync::AcquireError>,
    ) -> Self {
        open[at].fetch_add(1, Ordering::Relaxed);
        Self { open: Arc::clone(open), at, _place: place }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.open[self.at].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_stays_where_it_was_accepted_unless_that_is_uneven() {
        let cases: &[(&str, &[usize], usize, Share, usize)] = &[
            ("alone", &[7], 0, Share::Even, 0),
            ("all alike", &[3, 3, 3], 1, Share::Even, 1),
            ("one more is uneven", &[3, 4, 3], 1, Share::Even, 0),
            ("the least of several", &[9, 4, 2], 0, Share::Even, 2),
            ("near enough", &[1, 5], 1, Share::Near, 1),
            ("no longer near", &[1, 6], 1, Share::Near, 0),
            ("the least keeps its own", &[1, 60], 0, Share::Near, 0),
        ];
        for (name, open, here, share, expected) in cases {
            let at = choose(open.iter().copied(), *here, share.slack());
            assert_eq!(at, *expected, "{name}");
        }
    }
}
