//! `agent.sock`: line-delimited JSON, one request and one answer a line.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh_core::name::InstanceId;
use serde::{Deserialize, Serialize};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader,
};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::peer::{self, Owner, Peer};
use super::{HostCommand, HostState, Problem};
use crate::limits::host::{
    LINE_BYTES_MAX, SOCKET_ACCEPT_PAUSE, SOCKET_ANSWER, SOCKET_CONNECTIONS_MAX, SOCKET_IDLE,
};
use crate::status::Board;

/// What the command line asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Declares instances, or changes those declared this way.
    ServiceAdd {
        /// The text of a host file.
        file: String,
        /// If given, the one instance that the text must declare.
        #[serde(default)]
        name: Option<InstanceId>,
    },
    /// Takes an instance back that was declared by [`Request::ServiceAdd`].
    ServiceRemove {
        /// The instance.
        name: InstanceId,
    },
    /// What is declared.
    Services,
    /// The agent's state.
    Status,
}

/// What it is answered. `ok` tells the two apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// Done.
    Good {
        /// True.
        ok: bool,
        /// Depends on the request.
        result: serde_json::Value,
    },
    /// Not done.
    Bad {
        /// False.
        ok: bool,
        /// What was found and what is expected.
        error: String,
    },
}

impl Answer {
    fn of(result: Result<serde_json::Value, String>) -> Self {
        match result {
            Ok(result) => Self::Good { ok: true, result },
            Err(error) => Self::Bad { ok: false, error },
        }
    }
}

/// One of the answer to [`Request::Services`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ServiceLine {
    instance: InstanceId,
    service: String,
    address: String,
    source: String,
    health: Option<String>,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen at {path}", path = path.display())]
pub struct SocketError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Listens at `path` (0660, of the group `mesh` if there is one). A socket that nobody answers is
/// replaced; one that somebody answers is not, nor is another kind of file.
///
/// # Errors
/// [`SocketError`] if the path is taken or cannot be made.
pub fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    let wrong = |source| SocketError { path: path.to_owned(), source };
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(wrong)?;
    }
    if std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(wrong(io::ErrorKind::AddrInUse.into()));
        }
        std::fs::remove_file(path).map_err(wrong)?;
    }
    let listener = UnixListener::bind(path).map_err(wrong)?;
    if let Some(gid) = peer::group_id(GROUP) {
        // Only root may give it away; as another user the socket stays with the agent's own group.
        if let Err(why) = std::os::unix::fs::chown(path, None, Some(gid)) {
            tracing::warn!(path = %path.display(), "cannot give the socket to {GROUP}: {why}");
        }
    }
    let mode = std::fs::Permissions::from_mode(0o660);
    std::fs::set_permissions(path, mode).map_err(wrong)?;
    Ok(listener)
}

/// What requests are answered from.
pub(crate) struct Service {
    pub(crate) commands: mpsc::Sender<HostCommand>,
    pub(crate) host: watch::Receiver<Arc<HostState>>,
    pub(crate) board: Arc<Board>,
}

/// Answers requests until `shutdown`; owns its connections' tasks.
pub(crate) async fn serve(listener: UnixListener, service: Service, shutdown: CancellationToken) {
    let service = Arc::new(service);
    let owner = Owner { uid: rustix::process::geteuid().as_raw(), gid: peer::group_id(GROUP) };
    let mut connections = JoinSet::new();
    loop {
        // Cancel safe: accept and join_next take one item or none.
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < SOCKET_CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, service.clone(), owner));
                }
                Err(why) => {
                    tracing::warn!("cannot accept on the agent's socket: {why}");
                    tokio::time::sleep(SOCKET_ACCEPT_PAUSE).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

async fn converse(mut stream: UnixStream, service: Arc<Service>, owner: Owner) {
    let allowed = stream
        .peer_cred()
        .map_err(|why| format!("cannot tell who asks: {why}"))
        .map(|cred| Peer { uid: cred.uid(), gid: cred.gid() })
        .and_then(|peer| peer::may_ask(peer, owner, peer::is_member));
    if let Err(error) = allowed {
        // The peer may be gone, or not read: either way it gets no more.
        let _ = send(&mut stream, &Answer::of(Err(error))).await;
        return;
    }
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read);
    loop {
        let request = match timeout(SOCKET_IDLE, read_line(&mut lines)).await {
            Ok(Ok(Some(line))) => serde_json::from_slice::<Request>(&line),
            Ok(Ok(None)) | Err(_) => return,
            Ok(Err(error)) => {
                let _ = send(&mut write, &Answer::of(Err(error))).await;
                return;
            }
        };
        let answer = match request {
            Ok(request) => timeout(SOCKET_ANSWER, service.answer(request))
                .await
                .unwrap_or_else(|_| Err(format!("no answer within {SOCKET_ANSWER:?}"))),
            Err(why) => Err(format!("request is not understood: {why}")),
        };
        if send(&mut write, &Answer::of(answer)).await.is_err() {
            return;
        }
    }
}

/// One line without its end; `None` at the end of the stream.
async fn read_line(lines: &mut (impl AsyncBufRead + Unpin)) -> Result<Option<Vec<u8>>, String> {
    let mut line = Vec::new();
    let mut bounded = (&mut *lines).take(LINE_BYTES_MAX + 1);
    let read = bounded.read_until(b'\n', &mut line).await;
    match read.map_err(|why| format!("cannot read the request: {why}"))? {
        0 => Ok(None),
        n if n as u64 > LINE_BYTES_MAX => {
            Err(format!("request is longer than {LINE_BYTES_MAX} bytes"))
        }
        _ => Ok(Some(line)),
    }
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    timeout(SOCKET_ANSWER, stream.write_all(&line)).await.map_err(|_| io::ErrorKind::TimedOut)?
}

impl Service {
    async fn answer(&self, request: Request) -> Result<serde_json::Value, String> {
        match request {
            Request::ServiceAdd { file, name } => self.add(file, name).await,
            Request::ServiceRemove { name } => {
                let (reply, answer) = oneshot::channel();
                self.ask(HostCommand::Remove { instance: name, reply }, answer).await?;
                Ok(serde_json::Value::Null)
            }
            Request::Services => self.services(),
            Request::Status => serde_json::to_value(self.board.status()).map_err(|e| e.to_string()),
        }
    }

    async fn add(
        &self, text: String, name: Option<InstanceId>,
    ) -> Result<serde_json::Value, String> {
        if let Some(name) = name {
            let found = mesh_core::hostfile::parse("request", &text).unwrap_or_default();
            let names: Vec<&InstanceId> = found.iter().map(|file| &file.id).collect();
            // Text that does not parse is refused below, with its diagnostics.
            if !names.is_empty() && names != [&name] {
                return Err(format!("request declares {names:?}, expected {name} alone"));
            }
        }
        let (reply, answer) = oneshot::channel();
        let added = self.ask(HostCommand::Add { text, reply }, answer).await?;
        serde_json::to_value(added).map_err(|why| why.to_string())
    }

    async fn ask<T>(
        &self, command: HostCommand, answer: oneshot::Receiver<Result<T, String>>,
    ) -> Result<T, String> {
        let stopping = || "the agent is stopping".to_owned();
        self.commands.send(command).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }

    fn services(&self) -> Result<serde_json::Value, String> {
        #[derive(Serialize)]
        struct Services {
            services: Vec<ServiceLine>,
            problems: Vec<Problem>,
        }
        let host = self.host.borrow().clone();
        let health = self.board.status().instances;
        let services = host.instances.iter().map(|(id, declared)| ServiceLine {
            instance: id.clone(),
            service: declared.file.service.to_string(),
            address: declared.address().to_string(),
            source: declared.source.display().to_string(),
            health: health.get(id).map(|line| line.health.as_str().to_owned()),
        });
        let (services, problems) = (services.collect(), host.problems.clone());
        serde_json::to_value(Services { services, problems }).map_err(|why| why.to_string())
    }
}

const GROUP: &str = "mesh";
