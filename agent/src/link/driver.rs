//! Puts a [`Connection`] on a transport: one future per link, owned by the caller.
//!
//! Handles change the connection under a short lock and wake the driver, which moves bytes.
//! It yields once before it writes, so that everything made ready in one turn of the event loop
//! leaves in one write.

use std::future::Future;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::connection::{Connection, Role};
use super::error::LinkError;
use super::handle::{LinkClient, LinkServer};
use super::limits::{CLOSE_TIMEOUT, IDLE_LOOK, Limits, READ_SIZE, READS_PER_TURN, WRITES_PER_TURN};

/// How a link is run.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// What it takes at most.
    pub limits: Limits,
    /// Silence after which the peer is asked for a sign of life; none to never ask.
    pub keepalive: Option<Duration>,
    /// How long the peer may stay silent after being asked.
    pub pong_timeout: Duration,
    /// How long the peer may take to say hello.
    pub hello_timeout: Duration,
    /// How long the transport may take no byte of what waits, and to close at the end.
    pub write_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            keepalive: Some(Duration::from_secs(20)),
            pong_timeout: Duration::from_secs(5),
            hello_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(30),
        }
    }
}

/// Starts a link on `io` as the caller's side. Spawn the driver; it ends when the link does.
pub fn client<IO>(io: IO, config: Config) -> (LinkClient, Driver<IO>) {
    let (shared, driver) = start(io, Role::Client, config);
    (LinkClient::new(shared), driver)
}

/// Starts a link on `io` as the callee's side. Spawn the driver; it ends when the link does.
pub fn server<IO>(io: IO, config: Config) -> (LinkServer, Driver<IO>) {
    let (shared, driver) = start(io, Role::Server, config);
    (LinkServer::new(shared), driver)
}

fn start<IO>(io: IO, role: Role, config: Config) -> (Arc<Shared>, Driver<IO>) {
    let connection = Connection::new(role, config.limits);
    let state = Mutex::new(State { connection, driver: None });
    let shared = Arc::new(Shared { state });
    let driver = Driver {
        io,
        shared: Arc::clone(&shared),
        config,
        out: BytesMut::new(),
        yielded: false,
        unflushed: false,
        closing: false,
        outcome: Ok(()),
        clock: None,
    };
    (shared, driver)
}

/// What handles and driver share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    connection: Connection,
    driver: Option<Waker>,
}

impl Shared {
    /// Works on the connection and lets the driver know if something is to be sent.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Connection) -> T) -> T {
        let mut state = self.lock();
        let result = work(&mut state.connection);
        let due = state.connection.has_output() || state.connection.finished();
        if due && let Some(driver) = state.driver.take() {
            driver.wake();
        }
        result
    }

    /// A panic elsewhere leaves plain data; each step of the connection stands for itself.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Moves the bytes of one link. Resolves once the link is over: `Ok` when it was retired or the
/// peer closed it with no stream open.
///
/// Dropping it ends the link, and its streams with [`LinkError::Dropped`].
#[derive(Debug)]
#[must_use = "a link does nothing until its driver is spawned"]
pub struct Driver<IO> {
    io: IO,
    shared: Arc<Shared>,
    config: Config,
    out: BytesMut,
    yielded: bool,
    unflushed: bool,
    closing: bool,
    outcome: Result<(), LinkError>,
    clock: Option<Clock>,
}

/// The deadlines of a link, on one timer.
#[derive(Debug)]
struct Clock {
    started: Instant,
    /// When the peer last gave a byte.
    heard: Instant,
    /// When it was asked for one.
    asked: Option<Instant>,
    /// Since when bytes wait that the transport does not take.
    stuck: Option<Instant>,
    closing: Option<Instant>,
    /// A PING was queued that the driver has not seen.
    pinged: bool,
    timer: Pin<Box<Sleep>>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Future for Driver<IO> {
    type Output = Result<(), LinkError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if !this.closing {
            this.poll_read(cx);
            if this.poll_turn(cx).is_pending() {
                return Poll::Pending;
            }
        }
        let wrote = this.poll_write(cx);
        if wrote.is_ready() && this.finished() {
            this.closing = true;
            if Pin::new(&mut this.io).poll_shutdown(cx).is_ready() {
                return Poll::Ready(this.outcome.clone());
            }
        }
        this.poll_clock(cx)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Driver<IO> {
    /// Feeds what the transport has to the connection, a bounded part a turn.
    fn poll_read(&mut self, cx: &mut Context<'_>) {
        for _ in 0..READS_PER_TURN {
            // On the stack, so that an idle link holds no buffer.
            let mut space = [const { MaybeUninit::uninit() }; READ_SIZE];
            let mut bytes = ReadBuf::uninit(&mut space);
            match Pin::new(&mut self.io).poll_read(cx, &mut bytes) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) if bytes.filled().is_empty() => return self.peer_left(),
                Poll::Ready(Ok(())) => {
                    let now = Instant::now();
                    if let Some(clock) = &mut self.clock {
                        clock.heard = now;
                    }
                    let mut state = self.shared.lock();
                    if let Err(error) = state.connection.input(now.into_std(), bytes.filled()) {
                        self.outcome = Err(error);
                        self.closing = true;
                        return;
                    }
                }
                Poll::Ready(Err(error)) => return self.fail(LinkError::Io(error.kind())),
            }
        }
        cx.waker().wake_by_ref();
    }

    fn peer_left(&mut self) {
        let idle = self.shared.lock().connection.active() == 0;
        self.fail(LinkError::PeerGone);
        if idle {
            self.outcome = Ok(());
        }
    }

    fn fail(&mut self, error: LinkError) {
        self.shared.lock().connection.end(error.clone());
        self.outcome = Err(error);
        self.closing = true;
    }

    /// Lets the other tasks of this turn add their frames before a write.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.shared.lock();
        match &state.driver {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => state.driver = Some(cx.waker().clone()),
        }
        if state.connection.has_output() && !self.yielded && !self.closing {
            self.yielded = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.yielded = false;
        Poll::Ready(())
    }

    /// Writes until nothing waits and the transport has all.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..WRITES_PER_TURN {
            if self.out.is_empty() {
                self.shared.lock().connection.output(&mut self.out);
            }
            if self.out.is_empty() {
                self.out = BytesMut::new(); // an idle link holds no buffer
                return self.poll_flush(cx);
            }
            match Pin::new(&mut self.io).poll_write(cx, &self.out) {
                Poll::Pending => return self.stuck(),
                Poll::Ready(Ok(0)) => return self.write_failed(std::io::ErrorKind::WriteZero),
                Poll::Ready(Ok(len)) => self.out.advance(len),
                Poll::Ready(Err(error)) => return self.write_failed(error.kind()),
            }
            self.unflushed = true;
            if let Some(clock) = &mut self.clock {
                clock.stuck = None;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.unflushed {
            match Pin::new(&mut self.io).poll_flush(cx) {
                Poll::Pending => return self.stuck(),
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => return self.write_failed(error.kind()),
            }
        }
        if let Some(clock) = &mut self.clock {
            clock.stuck = None;
        }
        Poll::Ready(())
    }

    /// Nothing can be sent any more; what waits is dropped.
    fn write_failed(&mut self, kind: std::io::ErrorKind) -> Poll<()> {
        if !self.closing {
            self.fail(LinkError::Io(kind));
        }
        self.shared.lock().connection.output(&mut self.out);
        self.out = BytesMut::new();
        self.unflushed = false;
        Poll::Ready(())
    }

    fn stuck(&mut self) -> Poll<()> {
        if let Some(clock) = &mut self.clock {
            clock.stuck.get_or_insert_with(Instant::now);
        }
        Poll::Pending
    }

    fn finished(&self) -> bool {
        self.closing || self.shared.lock().connection.finished()
    }

    /// Checks the deadlines and waits for the next.
    fn poll_clock(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        let (shared, config, closing) = (&self.shared, &self.config, self.closing);
        let clock = self.clock.get_or_insert_with(Clock::new);
        loop {
            let now = Instant::now();
            let next = {
                let connection = &mut shared.lock().connection;
                clock.check(now, config, connection, closing)
            };
            match next {
                Ok(next) => {
                    if next < clock.timer.deadline() || clock.timer.is_elapsed() {
                        clock.timer.as_mut().reset(next);
                    }
                    if std::mem::take(&mut clock.pinged) {
                        cx.waker().wake_by_ref();
                    }
                    ready!(clock.timer.as_mut().poll(cx));
                }
                Err(_) if closing => return Poll::Ready(self.outcome.clone()),
                Err(error) => {
                    self.fail(error);
                    cx.waker().wake_by_ref(); // to send the news and close
                    return Poll::Pending;
                }
            }
        }
    }
}

impl Clock {
    fn new() -> Self {
        let now = Instant::now();
        let timer = Box::pin(tokio::time::sleep_until(now));
        Self {
            started: now,
            heard: now,
            asked: None,
            stuck: None,
            closing: None,
            pinged: false,
            timer,
        }
    }

    /// Asks for a sign of life when it is time, and says when to look again.
    fn check(
        &mut self, now: Instant, config: &Config, connection: &mut Connection, closing: bool,
    ) -> Result<Instant, LinkError> {
        if closing {
            let since = *self.closing.get_or_insert(now);
            return due(now, since + config.write_timeout.min(CLOSE_TIMEOUT), "close");
        }
        let mut next = now + IDLE_LOOK;
        if !connection.greeted() {
            next = next.min(due(now, self.started + config.hello_timeout, "hello")?);
        }
        if let Some(stuck) = self.stuck {
            next = next.min(due(now, stuck + config.write_timeout, "write")?);
        }
        if let Some(keepalive) = config.keepalive.filter(|_| connection.greeted()) {
            if now >= self.heard + keepalive && !connection.awaits_pong() {
                connection.ping();
                self.pinged = true;
            }
            next = next.min((self.heard + keepalive).max(now + config.pong_timeout / 4));
        }
        if connection.awaits_pong() {
            let asked = *self.asked.get_or_insert(now);
            next = next.min(due(now, asked.max(self.heard) + config.pong_timeout, "pong")?);
        } else {
            self.asked = None;
        }
        Ok(next)
    }
}

fn due(now: Instant, at: Instant, what: &'static str) -> Result<Instant, LinkError> {
    if now >= at { Err(LinkError::TooSlow(what)) } else { Ok(at) }
}

impl<IO> Drop for Driver<IO> {
    fn drop(&mut self) {
        self.shared.lock().connection.end(LinkError::Dropped);
    }
}
