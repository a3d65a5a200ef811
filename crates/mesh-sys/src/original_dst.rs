//! Where a connection was going before the packet filter redirected it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::{getsockname, sockopt};

/// The destination `connected` was dialled at, as connection tracking remembers it.
///
/// Also given, as the socket's own address, for a tracked connection that was not redirected.
/// `None` if the kernel tracks no such connection. A v4 connection accepted on a v6 socket
/// answers in v4.
///
/// # Errors
/// If `connected` is no TCP socket over IP, or its connection is already gone.
pub fn original_dst(connected: impl AsFd) -> io::Result<Option<SocketAddr>> {
    let own = SocketAddr::try_from(getsockname(&connected)?).map_err(io::Error::from)?;
    let answer = if own.ip().to_canonical().is_ipv4() {
        sockopt::ip_original_dst(&connected).map(SocketAddr::V4)
    } else {
        sockopt::ipv6_original_dst(&connected).map(SocketAddr::V6)
    };
    match answer {
        Ok(addr) => Ok(Some(addr)),
        // No entry for this connection, or no connection tracking in this kernel.
        Err(Errno::NOENT | Errno::NOPROTOOPT | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn direct_connection_has_its_own_address_or_none() {
        for at in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(at) else {
                println!("skipped {at}: this machine has no such address");
                continue;
            };
            let own = listener.local_addr().unwrap();
            let _client = TcpStream::connect(own).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            let seen = original_dst(&accepted).unwrap();
            assert!(seen.is_none_or(|seen| seen == own), "{at}: {seen:?}");
        }
    }

    #[test]
    fn other_socket_families_are_an_error() {
        let (left, _right) = UnixStream::pair().unwrap();
        assert!(original_dst(&left).is_err());
    }
}
