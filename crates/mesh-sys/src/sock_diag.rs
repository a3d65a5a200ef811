//! Asking the kernel who owns a TCP socket of this host (sock_diag(7)).
//!
//! One request, one answer: the socket is named by its two addresses, as its owner sees them. The
//! question needs no capability and takes a few microseconds, without leaving the calling thread.

mod wire;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recvfrom, sendto, socket_with,
};

use wire::{ANSWER_LEN_MAX, Reply, parse, request};

/// The longest wait for an answer. The kernel answers within the send, so this is never near.
pub const ANSWER_TIMEOUT: Duration = Duration::from_millis(100);

/// The most datagrams read while looking for the one that answers.
const DATAGRAMS_MAX: usize = 8;

/// The state of a TCP socket, as the kernel counts them (`TCP_ESTABLISHED` is 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpState(pub u8);

impl TcpState {
    /// Connected both ways: neither end has closed.
    pub const ESTABLISHED: Self = Self(1);
    /// Waiting for connections.
    pub const LISTEN: Self = Self(10);
}

/// What the kernel knows of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketInfo {
    /// Its state at the time of the answer.
    pub state: TcpState,
    /// The user who made it, in our user namespace. Means nothing while `inode` is 0.
    pub uid: u32,
    /// Its inode; 0 once no process holds it.
    pub inode: u32,
    /// The kernel's number of this very socket: never given to another until reboot.
    pub cookie: u64,
    /// The cgroup v2 its maker was in, if the kernel says (Linux 5.9 and later).
    pub cgroup_id: Option<u64>,
}

/// Why the kernel gave no answer. A socket that does not exist is an answer, not an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiagError {
    /// The question could not be sent.
    #[error("cannot ask sock_diag")]
    Send(#[source] io::Error),
    /// The answer could not be received.
    #[error("cannot receive the answer of sock_diag")]
    Receive(#[source] io::Error),
    /// The kernel refused the question.
    #[error("sock_diag refused the question")]
    Refused(#[source] io::Error),
    /// The answer is none we know how to read.
    #[error("the answer of sock_diag is malformed: {0}")]
    Malformed(&'static str),
    /// No answer to this question came in time.
    #[error("sock_diag gave no answer within {ANSWER_TIMEOUT:?}")]
    NoAnswer,
    /// The two addresses are of different families.
    #[error("a socket from {local} to {remote} cannot be, expected one address family")]
    Families {
        /// The socket's own address.
        local: SocketAddr,
        /// The address of its peer.
        remote: SocketAddr,
    },
}

/// An open netlink socket to the kernel's sock_diag, for any number of questions, one at a time.
///
/// After any [`DiagError`] but `Families` drop it and open another.
#[derive(Debug)]
pub struct Diag {
    socket: OwnedFd,
    sequence: u32,
}

impl Diag {
    /// Opens a socket to sock_diag, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// If the kernel gives no such socket (out of descriptors, or built without netlink).
    pub fn open() -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            Some(SOCK_DIAG),
        )?;
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_TIMEOUT))?;
        set_socket_timeout(&socket, Timeout::Send, Some(ANSWER_TIMEOUT))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Looks up the TCP socket bound to `local` and connected to `remote`, as its owner sees it.
    ///
    /// `None` if there is none. IPv4-mapped addresses are taken as the IPv4 ones they stand for,
    /// and find sockets of both families. Blocks the thread for microseconds, at the very most for
    /// twice [`ANSWER_TIMEOUT`].
    ///
    /// # Errors
    /// [`DiagError`] if the kernel did not answer, or not in a way that can be read.
    pub fn lookup(
        &mut self, local: SocketAddr, remote: SocketAddr,
    ) -> Result<Option<SocketInfo>, DiagError> {
        let question =
            wire::Question::new(local, remote).ok_or(DiagError::Families { local, remote })?;
        self.sequence = self.sequence.wrapping_add(1);
        let kernel = SocketAddrNetlink::new(0, 0);
        let bytes = request(&question, self.sequence);
        retry_on_intr(|| sendto(&self.socket, &bytes, SendFlags::empty(), &kernel))
            .map_err(|error| DiagError::Send(error.into()))?;
        self.answer(&question)
    }

    fn answer(&self, question: &wire::Question) -> Result<Option<SocketInfo>, DiagError> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let mut buffer = [0; ANSWER_LEN_MAX];
        for _ in 0..DATAGRAMS_MAX {
            let (len, from) = match recvfrom(&self.socket, &mut buffer[..], RecvFlags::TRUNC) {
                Ok((_, len, from)) => (len, from),
                Err(Errno::INTR) if Instant::now() < deadline => continue,
                Err(Errno::AGAIN | Errno::INTR) => return Err(DiagError::NoAnswer),
                Err(error) => return Err(DiagError::Receive(error.into())),
            };
            // Port 0 is the kernel: nothing else may answer for it.
            let from = from.and_then(|from| SocketAddrNetlink::try_from(from).ok());
            if from.is_none_or(|from| from.pid() != 0) {
                continue;
            }
            // Longer than the buffer: cut off, and longer than any answer to our question.
            let datagram = buffer.get(..len).ok_or(DiagError::Malformed("too long"))?;
            match parse(datagram, self.sequence, question)? {
                Reply::Found(info) => return Ok(Some(info)),
                Reply::Missing => return Ok(None),
                Reply::NotOurs if Instant::now() < deadline => {}
                Reply::NotOurs => break,
            }
        }
        Err(DiagError::NoAnswer)
    }
}

#[cfg(test)]
mod tests;
