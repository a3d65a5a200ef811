//! Asking the kernel twice: the shell around [`mesh_sys::sock_diag`].

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::available_parallelism;

use mesh_sys::sock_diag::{Diag, DiagError, SocketInfo, TcpState};
use rustix::net::sockopt::socket_cookie;
use rustix::net::{getpeername, getsockname};

use super::matching::UnknownReason;
use crate::limits::callers::KERNEL_SOCKETS_MAX;

/// Netlink sockets, about one a worker: a question holds one for some microseconds.
#[derive(Debug)]
pub(super) struct Kernel {
    /// `None` after an error, until the next question opens another.
    sockets: Box<[Mutex<Option<Diag>>]>,
    next: AtomicUsize,
}

impl Kernel {
    /// # Errors
    /// If the kernel gives no sock_diag socket.
    pub(super) fn open() -> io::Result<Self> {
        let cores = available_parallelism().map_or(1, usize::from);
        let first = Diag::open()?;
        let rest = (1..cores.min(KERNEL_SOCKETS_MAX)).map(|_| None);
        let sockets = std::iter::once(Some(first)).chain(rest).map(Mutex::new).collect();
        Ok(Self { sockets, next: AtomicUsize::new(0) })
    }

    /// The socket of this host at the other end of `accepted`.
    ///
    /// A client's port may be taken by another process as soon as the client has reset its
    /// connection, while what it sent can still be read here. So the answer counts only if our own
    /// end, known by its cookie, is still connected after the first look, and the second look sees
    /// the same socket.
    pub(super) fn owner(
        &self, accepted: BorrowedFd<'_>, dialled: Option<SocketAddr>,
    ) -> Result<SocketInfo, UnknownReason> {
        let ended = |_| UnknownReason::Ended;
        let cookie = socket_cookie(accepted).map_err(ended)?;
        let here = address(getsockname(accepted).map(Some))?;
        let client = address(getpeername(accepted))?;
        let ends = Ends { cookie, here, client, dialled: dialled.unwrap_or(here) };
        self.ask(|diag| ends.owner(diag))
    }

    fn ask<T>(
        &self, question: impl FnOnce(&mut Diag) -> Result<Result<T, UnknownReason>, DiagError>,
    ) -> Result<T, UnknownReason> {
        let failed = |error: &(dyn std::error::Error + 'static)| {
            tracing::warn!(error, "cannot ask the kernel who is calling");
            UnknownReason::Kernel
        };
        let mut slot = self.socket();
        let mut diag = match slot.take() {
            Some(diag) => diag,
            None => Diag::open().map_err(|error| failed(&error))?,
        };
        // The socket goes back only if it is in order: a late answer must not meet a new question.
        let answer = question(&mut diag).map_err(|error| failed(&error))?;
        *slot = Some(diag);
        answer
    }

    /// A socket nobody uses now, or the wait of microseconds for one.
    fn socket(&self) -> MutexGuard<'_, Option<Diag>> {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        let from = |at: usize| &self.sockets[(start.wrapping_add(at)) % self.sockets.len()];
        for at in 0..self.sockets.len() {
            match from(at).try_lock() {
                Ok(slot) => return slot,
                Err(TryLockError::Poisoned(slot)) => return slot.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        from(0).lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An accepted connection: our socket's cookie, and the addresses at both ends.
struct Ends {
    cookie: u64,
    here: SocketAddr,
    client: SocketAddr,
    /// Where the client's socket believes us to be.
    dialled: SocketAddr,
}

impl Ends {
    fn owner(&self, diag: &mut Diag) -> Result<Result<SocketInfo, UnknownReason>, DiagError> {
        let Some(first) = live(diag.lookup(self.client, self.dialled)?) else {
            return Ok(Err(UnknownReason::Gone));
        };
        match live(diag.lookup(self.here, self.client)?) {
            Some(own) if own.cookie == self.cookie => {}
            Some(_) | None => return Ok(Err(UnknownReason::Ended)),
        }
        Ok(match live(diag.lookup(self.client, self.dialled)?) {
            Some(second) if second == first => Ok(first),
            Some(_) => Err(UnknownReason::Changed),
            None => Err(UnknownReason::Gone),
        })
    }
}

/// A socket that is connected both ways and that a process holds.
fn live(socket: Option<SocketInfo>) -> Option<SocketInfo> {
    socket.filter(|socket| socket.state == TcpState::ESTABLISHED && socket.inode != 0)
}

/// An IP address of `accepted`; a reset connection has lost its peer's.
fn address(
    found: rustix::io::Result<Option<rustix::net::SocketAddrAny>>,
) -> Result<SocketAddr, UnknownReason> {
    let found = found.ok().flatten().ok_or(UnknownReason::Ended)?;
    SocketAddr::try_from(found).map_err(|_| UnknownReason::Ended)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn addresses_alone_do_not_make_it_our_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = listener.local_addr().unwrap();
        let client = TcpStream::connect(here).unwrap();
        let (accepted, from) = listener.accept().unwrap();
        let mut diag = Diag::open().unwrap();
        let mut owner = |cookie| {
            let ends = Ends { cookie, here, client: from, dialled: here };
            ends.owner(&mut diag).unwrap().map(|found| found.cookie)
        };
        let cookie = socket_cookie(&accepted).unwrap();
        assert_eq!(owner(cookie), Ok(socket_cookie(&client).unwrap()));
        // As if the port had changed hands between our reading its addresses and the first look.
        assert_eq!(owner(cookie + 1), Err(UnknownReason::Ended));
    }

    #[test]
    fn a_failed_socket_is_replaced() {
        let kernel = Kernel::open().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        for _ in 0..kernel.sockets.len() * 2 {
            let failed = kernel.ask::<()>(|_| Err(DiagError::NoAnswer));
            assert_eq!(failed, Err(UnknownReason::Kernel));
        }
        assert!(kernel.sockets.iter().all(|slot| slot.lock().unwrap().is_none()));
        for _ in 0..kernel.sockets.len() {
            kernel.owner(accepted.as_fd(), None).unwrap();
        }
        assert!(kernel.sockets.iter().all(|slot| slot.lock().unwrap().is_some()));
    }
}
