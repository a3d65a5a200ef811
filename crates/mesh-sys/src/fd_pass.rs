//! Passing open descriptors to another process over a unix socket (`SCM_RIGHTS`, unix(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// The most descriptors one message carries; hand over more in several messages.
///
/// Below the kernel's own bound of 253, and small enough for a stack buffer.
pub const FDS_MAX: usize = 64;

/// What one message brought.
#[derive(Debug)]
pub struct Received {
    /// Bytes written to the front of the caller's buffer; 0 is the end of the stream.
    pub len: usize,
    /// The descriptors, close-on-exec, in the sender's order; at most [`FDS_MAX`].
    pub fds: Vec<OwnedFd>,
}

/// Sends `bytes` with `fds` attached to their first byte; answers how many bytes went.
///
/// On a stream socket fewer bytes than given may go, with all of `fds`: send the rest without.
/// Waits as the socket does: a non-blocking socket that is full is [`io::ErrorKind::WouldBlock`]
/// with nothing sent.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] for no bytes (descriptors travel with a byte) or more than
/// [`FDS_MAX`] descriptors; otherwise the kernel's.
pub fn send_fds(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    if bytes.is_empty() {
        return Err(invalid("found no bytes to send, expected at least 1".to_owned()));
    }
    if fds.len() > FDS_MAX {
        return Err(invalid(format!(
            "found {} descriptors, expected at most {FDS_MAX}",
            fds.len()
        )));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(invalid(format!("{} descriptors do not fit one message", fds.len())));
    }
    // NOSIGNAL: a receiver that went away is an error here, not a signal to the process.
    Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

/// Receives bytes into `buffer`, and the descriptors that came with them.
///
/// Waits as the socket does. Every descriptor that arrives is either returned or closed.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] if the sender attached more than [`FDS_MAX`] descriptors (some
/// were lost: the message as a whole is refused); otherwise the kernel's.
pub fn recv_fds(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message =
        recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let fds: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    if message.flags.contains(ReturnFlags::CTRUNC) || fds.len() > FDS_MAX {
        let why = format!("found more descriptors in a message than the {FDS_MAX} expected");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(Received { len: message.bytes, fds })
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_pipe_end_crosses_and_works() {
        let (left, right) = UnixStream::pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        assert_eq!(send_fds(&left, b"take", &[writer.as_fd()]).unwrap(), 4);
        drop(writer);

        let mut buffer = [0; 16];
        let got = recv_fds(&right, &mut buffer).unwrap();
        assert_eq!((got.fds.len(), &buffer[..got.len]), (1, &b"take"[..]));
        let flags = rustix::io::fcntl_getfd(&got.fds[0]).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC), "must not leak into children");

        let mut passed = File::from(got.fds.into_iter().next().unwrap());
        passed.write_all(b"through").unwrap();
        drop(passed);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }

    #[test]
    fn the_number_of_descriptors_is_bounded() {
        let (left, right) = UnixStream::pair().unwrap();
        let full = [left.as_fd(); FDS_MAX];
        assert_eq!(send_fds(&left, b"x", &full).unwrap(), 1);
        assert_eq!(recv_fds(&right, &mut [0; 4]).unwrap().fds.len(), FDS_MAX);

        let over = [left.as_fd(); FDS_MAX + 1];
        let error = send_fds(&left, b"x", &over).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let error = send_fds(&left, b"", &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_sender_without_our_bound_is_refused() {
        let (left, right) = UnixStream::pair().unwrap();
        let over = [left.as_fd(); FDS_MAX + 20];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX + 20))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&over)));
        sendmsg(&left, &[IoSlice::new(b"x")], &mut control, SendFlags::empty()).unwrap();
        let error = recv_fds(&right, &mut [0; 4]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn plain_bytes_and_the_end_bring_no_descriptors() {
        let (mut left, right) = UnixStream::pair().unwrap();
        left.write_all(b"hi").unwrap();
        let got = recv_fds(&right, &mut [0; 8]).unwrap();
        assert_eq!((got.len, got.fds.len()), (2, 0));
        drop(left);
        assert_eq!(recv_fds(&right, &mut [0; 8]).unwrap().len, 0);
        assert!(send_fds(&right, b"x", &[]).is_err(), "a gone receiver is an error, not a signal");
    }
}
