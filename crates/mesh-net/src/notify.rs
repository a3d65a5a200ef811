//! What systemd is told (`sd_notify`). Without `NOTIFY_SOCKET` nothing happens.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::limits::notify::{AGAIN_SOON, ONCE};
use sd_notify::NotifyState;

/// Tells that the daemon serves.
pub fn ready() {
    send(&[NotifyState::Ready], ONCE);
}

/// Tells that the daemon stops.
pub fn stopping() {
    send(&[NotifyState::Stopping], ONCE);
}

/// Tells that the daemon reloads; [`ready`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now], ONCE),
        Err(error) => tracing::warn!(%error, "cannot read the monotonic clock"),
    }
}

/// Tells that `pid` is the main process from now on: a successor took over.
pub fn main_pid(pid: u32) {
    send(&[NotifyState::MainPid(pid)], ONCE);
}

/// Shows `text` in `systemctl status`, as one line.
pub fn status(text: &str) {
    let line = text.replace(['\n', '\r'], " ");
    send(&[NotifyState::Status(&line)], AGAIN_SOON);
}

/// Feeds the watchdog at a third of its time for as long as `healthy` says so.
///
/// Returns at once if systemd set none; else runs until dropped.
pub async fn watchdog(healthy: impl Fn() -> bool) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut ticks = tokio::time::interval((limit / 3).max(Duration::from_millis(1)));
    loop {
        ticks.tick().await;
        if healthy() {
            send(&[NotifyState::Watchdog], AGAIN_SOON);
        } else {
            tracing::warn!("unhealthy, the watchdog is not fed");
        }
    }
}

/// Failing to tell is not worth failing for: systemd acts by its own timeouts.
fn send(state: &[NotifyState<'_>], patience: Duration) {
    let Some(place) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let lines: String = state.iter().map(|one| format!("{one}\n")).collect();
    match tell(&place, &lines, patience) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock && patience == AGAIN_SOON => {
            tracing::debug!("the service manager does not read");
        }
        Err(error) => tracing::warn!(%error, "cannot notify the service manager"),
    }
}

/// Sends `lines` to the socket at `place`, an abstract one if that begins with `@`.
///
/// A service manager that does not read has a full socket, and a plain send waits on it without
/// end, in a thread that others need: this one waits for `patience` at most.
fn tell(place: &OsStr, lines: &str, patience: Duration) -> io::Result<()> {
    let address = match place.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(place)?,
    };
    let socket = UnixDatagram::unbound()?;
    match patience {
        Duration::ZERO => socket.set_nonblocking(true)?,
        patience => socket.set_write_timeout(Some(patience))?,
    }
    socket.connect_addr(&address)?;
    socket.send(lines.as_bytes()).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

    use std::sync::mpsc;

    use super::*;

    #[test]
    fn what_is_told_arrives_and_one_that_does_not_read_stops_nobody() {
        let home = tempfile::tempdir().unwrap();
        let place = home.path().join("notify");
        let socket = UnixDatagram::bind(&place).unwrap();
        let (say, heard) = mpsc::channel();
        // a thread of its own, so that one that waits without end fails the test
        std::thread::spawn(move || {
            let status =
                |number| tell(place.as_os_str(), &format!("STATUS={number}\n"), AGAIN_SOON);
            let told =
                (0..).find_map(|number| status(number).err().map(|why| (number, why.kind())));
            let once = tell(place.as_os_str(), "STOPPING=1\n", Duration::from_millis(50));
            say.send((told, once.map_err(|why| why.kind())))
        });
        let (told, once) = heard.recv_timeout(Duration::from_secs(20)).expect("it waits");
        let (told, why) = told.unwrap();
        assert_eq!((why, once), (io::ErrorKind::WouldBlock, Err(io::ErrorKind::WouldBlock)));
        assert!(told > 0, "nothing was told");
        let mut buffer = [0; 64];
        for number in 0..told {
            let len = socket.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..len], *format!("STATUS={number}\n").as_bytes());
        }
    }

    #[tokio::test]
    async fn nothing_happens_outside_of_systemd() {
        if std::env::var_os("NOTIFY_SOCKET").is_some() {
            return;
        }
        ready();
        status("two\nlines");
        stopping();
        watchdog(|| true).await;
    }
}
