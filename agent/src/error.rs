//! Why an agent does not run.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use mesh_net::client::ClientError;
use mesh_net::tasks::TaskError;
use mesh_net::tls::TlsError;

use crate::callers::CallersError;
use crate::host::SocketError;
use crate::identity::{EnrolError, StoreError};
use crate::proxy::ProxyError;

/// Why an agent did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The data directory cannot be used.
    #[error("cannot use the data directory {path}", path = path.display())]
    DataDir {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another agent uses it.
    #[error("another agent uses the data directory {path}", path = path.display())]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// No address under which others could dial this host.
    #[error(
        "cannot tell this host's address towards the servers ({}): check their names, or set address in agent.toml",
        tried.join("; ")
    )]
    Address {
        /// Each server, and why not by it.
        tried: Vec<String>,
    },
    /// No identity.
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    /// Identities cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The roots on disk cannot be used.
    #[error("cannot use the mesh's roots")]
    Trust(#[source] TlsError),
    /// The client cannot be set up.
    #[error("cannot set up the client of the servers' API")]
    Client(#[source] ClientError),
    /// Callers cannot be told apart.
    #[error(transparent)]
    Callers(#[from] CallersError),
    /// The command line's socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The admin listener.
    #[error(
        "cannot listen on {address} for the admin pages: change admin in agent.toml or stop the process that does"
    )]
    Admin {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The proxy.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// A part of the agent stopped working.
    #[error(transparent)]
    Task(#[from] TaskError<std::convert::Infallible>),
}
