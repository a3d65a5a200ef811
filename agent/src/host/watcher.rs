//! Tells when a watched directory changed. Best effort: the caller also looks from time to time.

use std::path::PathBuf;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

/// Watches directories, as far as the kernel lets it.
pub(super) struct Watcher {
    dirs: Vec<PathBuf>,
    /// `None` if there are no watches to be had.
    inner: Option<RecommendedWatcher>,
    watched: Vec<PathBuf>,
    dirty: mpsc::Receiver<()>,
}

impl Watcher {
    pub(super) fn new(dirs: Vec<PathBuf>) -> Self {
        let (tell, dirty) = mpsc::channel(1);
        let inner = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading a file is an event too, and this agent's scans are reads.
            let reads = matches!(&event, Ok(event) if matches!(event.kind, EventKind::Access(_)));
            if !reads {
                // Full means that it is already known.
                let _ = tell.try_send(());
            }
        });
        let inner = inner
            .inspect_err(|why| tracing::warn!("cannot watch files, will only rescan: {why}"))
            .ok();
        let mut watcher = Self { dirs, inner, watched: Vec::new(), dirty };
        watcher.rewatch();
        watcher
    }

    /// Watches the directories that could not be watched before, such as missing ones, and again
    /// those that were replaced.
    pub(super) fn rewatch(&mut self) {
        let Some(inner) = &mut self.inner else { return };
        self.watched.retain(|dir| dir.is_dir());
        for dir in &self.dirs {
            if self.watched.contains(dir) || !dir.is_dir() {
                continue;
            }
            match inner.watch(dir, RecursiveMode::NonRecursive) {
                Ok(()) => self.watched.push(dir.clone()),
                Err(why) => tracing::debug!(dir = %dir.display(), "cannot watch: {why}"),
            }
        }
    }

    /// Waits for a change. Cancel safe.
    pub(super) async fn changed(&mut self) {
        if self.dirty.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// Forgets changes so far: the caller is about to look.
    pub(super) fn seen(&mut self) {
        while self.dirty.try_recv().is_ok() {}
    }
}
