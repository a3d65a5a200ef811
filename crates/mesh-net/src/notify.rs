//! What systemd is told (`sd_notify`). Without `NOTIFY_SOCKET` nothing happens.

use std::time::Duration;

use sd_notify::NotifyState;

/// Tells that the daemon serves.
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// Tells that the daemon stops.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// Tells that the daemon reloads; [`ready`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "cannot read the monotonic clock"),
    }
}

/// Tells that `pid` is the main process from now on: a successor took over.
pub fn main_pid(pid: u32) {
    send(&[NotifyState::MainPid(pid)]);
}

/// Shows `text` in `systemctl status`, as one line.
pub fn status(text: &str) {
    let line = text.replace(['\n', '\r'], " ");
    send(&[NotifyState::Status(&line)]);
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
            send(&[NotifyState::Watchdog]);
        } else {
            tracing::warn!("unhealthy, the watchdog is not fed");
        }
    }
}

/// Failing to tell is not worth failing for: systemd acts by its own timeouts.
fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn nothing_happens_outside_of_systemd() {
        if std::env::var_os("NOTIFY_SOCKET").is_some() {
            return;
        }
        super::ready();
        super::status("two\nlines");
        super::stopping();
        super::watchdog(|| true).await;
    }
}
