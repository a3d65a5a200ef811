//! [`Client`]: calls to applications, many at once on a connection.

mod call;

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body::Body;
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use self::call::{Call, Outcome};
use super::clock::Timing;
use super::conn::{Conn, Role};
use super::pump::Pump;
use crate::edge::RecvBody;
use crate::edge::http1::{SendError, connect};
use crate::edge::limits::{
    APP_CONNECT, APP_CONNECTIONS_MAX, APP_HEAD, APP_REST, APP_STREAM_WAIT, APP_TRIES_MAX,
};

/// Runs the connections: whoever gives it owns them, and awaits them.
type Spawn = Box<dyn Fn(Pin<Box<dyn Future<Output = ()> + Send>>) + Send + Sync>;

/// The connections to applications on this host: one for each, more once it takes no more
/// streams. Dropped, they end as soon as nothing is under way on them.
pub struct Client {
    apps: Arc<Mutex<HashMap<SocketAddr, Arc<App>>>>,
    spawn: Spawn,
}

/// One application.
struct App {
    conns: Mutex<Vec<Arc<Conn>>>,
    /// Whoever holds it may connect: those who come meanwhile share what it makes.
    connecting: Semaphore,
    /// A stream became free, or a connection.
    freed: Arc<Notify>,
}

impl Client {
    /// `spawn` runs what is given to it to its end.
    pub fn new(
        spawn: impl Fn(Pin<Box<dyn Future<Output = ()> + Send>>) + Send + Sync + 'static,
    ) -> Self {
        Self { apps: Arc::default(), spawn: Box::new(spawn) }
    }

    /// Sends `request` to the application on `address`. One that the application surely has not
    /// looked at is sent again, as long as none of its body was.
    ///
    /// # Errors
    /// [`SendError`]; [`SendError::Connect`] if the application saw nothing of the request.
    pub async fn send<B>(
        &self, address: SocketAddr, request: Request<B>,
    ) -> Result<Response<RecvBody>, SendError>
    where
        B: Body<Data = Bytes, Error: std::fmt::Display> + Send + Unpin + 'static,
    {
        let mut call = Call::new(request);
        let until = Instant::now() + APP_STREAM_WAIT;
        for _ in 0..APP_TRIES_MAX {
            let opened = timeout_at(until, self.open(address, &mut call)).await;
            let stream = opened.map_err(|_| unseen(address, "it takes no more streams"))??;
            match call.answer(stream).await {
                Outcome::Answered(response) => return Ok(response),
                Outcome::Unseen(again) => call = *again,
                Outcome::Failed(why) => return Err(why),
                Outcome::Lost => return Err(unseen(address, "it refused the request")),
            }
        }
        Err(unseen(address, "it refused the request again and again"))
    }

    /// Opens a stream, on a new connection if need be.
    async fn open<B>(
        &self, address: SocketAddr, call: &mut Call<B>,
    ) -> Result<(Arc<Conn>, u32), SendError>
    where
        B: Body<Data = Bytes, Error: std::fmt::Display> + Send + Unpin + 'static,
    {
        let app = self.app(address);
        loop {
            let freed = app.freed.notified();
            let mut freed = std::pin::pin!(freed);
            freed.as_mut().enable();
            if let Some(stream) = app.open(call) {
                return Ok(stream);
            }
            let Ok(_permit) = app.connecting.acquire().await else { continue };
            // somebody may have connected meanwhile
            if let Some(stream) = app.open(call) {
                return Ok(stream);
            }
            if app.lock().len() < APP_CONNECTIONS_MAX {
                self.connect(address, &app).await?;
            } else {
                drop(_permit);
                freed.await;
            }
        }
    }

    fn app(&self, address: SocketAddr) -> Arc<App> {
        let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(apps.entry(address).or_insert_with(|| Arc::new(App::new())))
    }

    /// Connects, and waits for the application to say how many streams it takes.
    async fn connect(&self, address: SocketAddr, app: &Arc<App>) -> Result<(), SendError> {
        let stream = connect(address).await?;
        let conn = self.run(stream, address, app);
        let greeted = async {
            loop {
                let mut freed = std::pin::pin!(app.freed.notified());
                freed.as_mut().enable();
                let (greeted, over) = {
                    let state = conn.lock();
                    (state.is_greeted(), state.over().is_some())
                };
                if greeted || over {
                    return greeted;
                }
                freed.await;
            }
        };
        if timeout(APP_CONNECT, greeted).await.unwrap_or(false) {
            return Ok(());
        }
        conn.with(super::conn::State::go);
        Err(unseen(address, "it does not greet as HTTP/2"))
    }

    /// Has a connection run until nothing is left of it.
    fn run(&self, stream: TcpStream, address: SocketAddr, app: &Arc<App>) -> Arc<Conn> {
        let timing = Timing { rest: APP_REST, head: APP_HEAD };
        let mut pump = Pump::new(stream, Role::Client, timing);
        let conn = Arc::clone(&pump.conn);
        conn.lock().freed = Some(Arc::clone(&app.freed));
        app.lock().push(Arc::clone(&conn));
        let (apps, app, running) = (Arc::clone(&self.apps), Arc::clone(app), Arc::clone(&conn));
        (self.spawn)(Box::pin(async move {
            let ended = poll_fn(|cx| pump.poll(cx, |_| {})).await;
            tracing::trace!(?ended, "connection to an application ended");
            app.lock().retain(|other| !Arc::ptr_eq(other, &running));
            app.freed.notify_waiters();
            let mut apps = apps.lock().unwrap_or_else(PoisonError::into_inner);
            let is_last = |app: &mut Arc<App>| app.lock().is_empty() && Arc::strong_count(app) <= 2;
            if apps.get_mut(&address).is_some_and(is_last) {
                apps.remove(&address);
            }
        }));
        conn
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        for app in apps.values() {
            for conn in app.lock().iter() {
                conn.with(super::conn::State::go);
            }
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("Client").field("apps", &apps.keys()).finish_non_exhaustive()
    }
}

impl App {
    fn new() -> Self {
        Self {
            conns: Mutex::default(),
            connecting: Semaphore::new(1),
            freed: Arc::new(Notify::new()),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Conn>>> {
        self.conns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a stream on the first connection that has room.
    fn open<B>(&self, call: &mut Call<B>) -> Option<(Arc<Conn>, u32)>
    where
        B: Body<Data = Bytes, Error: std::fmt::Display> + Send + Unpin + 'static,
    {
        let conns = self.lock();
        let opened = |conn: &Arc<Conn>| {
            let open = |state: &mut super::conn::State| state.has_room().then(|| call.open(state));
            conn.with(open).map(|id| (Arc::clone(conn), id))
        };
        conns.iter().find_map(opened)
    }
}

/// The application saw nothing of a request.
fn unseen(address: SocketAddr, why: &'static str) -> SendError {
    let source = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, why);
    SendError::Connect { address, source }
}

/// The fields of a request's head, which are the same on every connection.
fn head_of(parts: &http::request::Parts) -> Bytes {
    let mut head = BytesMut::with_capacity(256);
    super::head::put_request(&mut head, parts);
    head.freeze()
}
