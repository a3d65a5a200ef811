//! The last good config on disk, so that a host boots and serves with every server dead.
//!
//! Two files, written in turn: damage to the newest falls back to the older.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh_core::snapshot::{HostIdentity, ProxySnapshot};
use mesh_net::telemetry::Chain;
use mesh_net::{files, pack};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::limits::control::{CACHE_BYTES_MAX, WRITE_PAUSE};
use crate::live::Live;

/// The cache of one agent. One writer at a time: the process that holds the data directory.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: PathBuf,
    /// Rises with each write; its lowest bit names the file.
    next: u64,
}

/// What was found on disk.
#[derive(Debug)]
pub struct Found {
    /// The newest good config.
    pub snapshot: Option<ProxySnapshot>,
    /// What was found, for people.
    pub note: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    sequence: u64,
    snapshot: ProxySnapshot,
}

#[derive(Serialize)]
struct KeptRef<'a> {
    sequence: u64,
    snapshot: &'a ProxySnapshot,
}

impl Cache {
    /// Opens the cache in `cache` of the data directory, and reads the newest good config of
    /// `host`. Blocks on the disk.
    pub fn open(data_dir: &Path, host: &HostIdentity) -> (Self, Found) {
        let dir = data_dir.join("cache");
        let mut good: Vec<Kept> = Vec::new();
        let mut bad: Vec<String> = Vec::new();
        for slot in 0..2 {
            match read(&slot_path(&dir, slot), host) {
                Ok(kept) => good.extend(kept),
                Err(why) => bad.push(why),
            }
        }
        good.sort_by_key(|kept| kept.sequence);
        let next = good.last().map_or(0, |kept| kept.sequence + 1);
        let snapshot = good.pop().map(|kept| kept.snapshot);
        let note = note(snapshot.as_ref(), &bad);
        if !bad.is_empty() {
            tracing::error!("{note}");
        }
        // The next write must not go over the only good file.
        (Self { dir, next }, Found { snapshot, note })
    }

    /// Keeps `snapshot` in place of the older of the two files. Blocks on the disk.
    ///
    /// # Errors
    /// Why it is not kept, for people.
    pub fn write(&mut self, snapshot: &ProxySnapshot) -> Result<(), String> {
        std::fs::create_dir_all(&self.dir)
            .map_err(|why| format!("cannot make {}: {why}", self.dir.display()))?;
        let bytes = pack::to_vec(&KeptRef { sequence: self.next, snapshot })
            .map_err(|why| Chain(&why).to_string())?;
        files::write_checked(&slot_path(&self.dir, self.next % 2), &bytes)
            .map_err(|why| Chain(&why).to_string())?;
        self.next += 1;
        Ok(())
    }
}

/// Keeps what servers sent to `live`, at most once a second, until `shutdown`; `kept` is on disk
/// already, or has nothing worth keeping.
pub async fn run(
    mut cache: Cache, live: Arc<Live>, mut kept: Arc<ProxySnapshot>, shutdown: CancellationToken,
) {
    let mut changed = live.changed();
    loop {
        // Before the look, so that what was published last is not missed.
        let stopping = shutdown.is_cancelled();
        let now = live.load();
        if !same_mesh(&kept, &now) {
            cache = write(cache, now.clone()).await;
            kept = now;
            let _ = shutdown.run_until_cancelled(tokio::time::sleep(WRITE_PAUSE)).await;
        }
        if stopping {
            return;
        }
        // Cancel safe: nothing is taken.
        tokio::select! {
            () = shutdown.cancelled() => {}
            gone = changed.changed() => if gone.is_err() { return },
        }
    }
}

/// A config that cannot be written is not tried again: the next one will be.
async fn write(cache: Cache, snapshot: Arc<ProxySnapshot>) -> Cache {
    let mut writer = cache.clone();
    let written = tokio::task::spawn_blocking(move || writer.write(&snapshot).map(|()| writer));
    match written.await.map_err(|why| why.to_string()) {
        Ok(Ok(writer)) => writer,
        Ok(Err(why)) | Err(why) => {
            tracing::error!("config is not kept on disk: {why}");
            cache
        }
    }
}

/// Whether both hold the same of what servers sent.
fn same_mesh(a: &ProxySnapshot, b: &ProxySnapshot) -> bool {
    a.revision == b.revision
        && a.bundle == b.bundle
        && a.routes == b.routes
        && a.endpoints == b.endpoints
        && a.access == b.access
}

fn slot_path(dir: &Path, slot: u64) -> PathBuf {
    dir.join(format!("snapshot.{slot}"))
}

/// `None` if there is no such file.
fn read(path: &Path, host: &HostIdentity) -> Result<Option<Kept>, String> {
    let bytes = match files::read_checked(path, CACHE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(why) if why.is_not_found() => return Ok(None),
        Err(why) => return Err(Chain(&why).to_string()),
    };
    let kept: Kept =
        pack::from_slice(&bytes).map_err(|why| format!("{}: {}", path.display(), Chain(&why)))?;
    let found = &kept.snapshot.host;
    if found != host {
        let (found, expected) = (found.node_id(), host.node_id());
        return Err(format!("{} is of {found}, expected {expected}", path.display()));
    }
    Ok(Some(kept))
}

fn note(snapshot: Option<&ProxySnapshot>, bad: &[String]) -> String {
    match (snapshot.map(|snapshot| snapshot.revision), bad) {
        (Some(revision), []) => format!("serving revision {revision} from disk"),
        (Some(revision), bad) => {
            format!("serving revision {revision} from disk, another is lost: {}", bad.join("; "))
        }
        (None, []) => "nothing on disk yet".to_owned(),
        (None, bad) => format!("starting without a config: {}", bad.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]
    use std::time::Duration;

    use std::collections::BTreeSet;

    use mesh_core::resource::ResourceKey;
    use mesh_core::revision::Revision;

    use super::*;
    use crate::live::MeshBatch;
    use crate::live::tests::{empty, endpoints};

    fn at(index: u64) -> ProxySnapshot {
        let revision = Revision::new(1, index);
        empty().with_batch(revision, true, vec![endpoints("db", revision)]).unwrap()
    }

    fn damage(path: &Path) {
        let mut bytes = std::fs::read(path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn damage_falls_back_to_the_older_file_then_to_none() {
        let dir = tempfile::tempdir().unwrap();
        let host = empty().host;
        let (mut cache, found) = Cache::open(dir.path(), &host);
        assert!(found.snapshot.is_none() && found.note == "nothing on disk yet");
        for index in 1..=3 {
            cache.write(&at(index)).unwrap();
        }
        let (_, found) = Cache::open(dir.path(), &host);
        assert_eq!(found.snapshot.unwrap(), at(3));

        damage(&dir.path().join("cache/snapshot.0"));
        let (mut cache, found) = Cache::open(dir.path(), &host);
        assert_eq!(found.snapshot.unwrap(), at(2), "{}", found.note);
        assert!(found.note.contains("another is lost"), "{}", found.note);
        cache.write(&at(4)).unwrap();
        let (_, found) = Cache::open(dir.path(), &host);
        assert_eq!(found.snapshot.unwrap(), at(4), "went over the damaged file");

        damage(&dir.path().join("cache/snapshot.0"));
        damage(&dir.path().join("cache/snapshot.1"));
        let (_, found) = Cache::open(dir.path(), &host);
        assert!(found.snapshot.is_none());
        assert!(found.note.starts_with("starting without a config"), "{}", found.note);
    }

    #[test]
    fn a_cache_of_another_node_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let (mut cache, _) = Cache::open(dir.path(), &empty().host);
        cache.write(&at(1)).unwrap();
        let host = HostIdentity { node: "other".parse().unwrap(), ..empty().host };
        let (_, found) = Cache::open(dir.path(), &host);
        assert!(found.snapshot.is_none() && found.note.contains("node/other"), "{}", found.note);
    }

    #[tokio::test]
    async fn what_servers_send_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, _) = Cache::open(dir.path(), &empty().host);
        let live = Live::new(empty());
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(run(cache, live.clone(), live.load(), shutdown.clone()));
        let revision = Revision::new(1, 7);
        let resources = vec![endpoints("db", revision)];
        let wanted = BTreeSet::from([ResourceKey::Endpoints("db".parse().unwrap())]);
        live.publish_mesh(&MeshBatch { revision, full: true, resources }, &wanted).unwrap();
        shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(5), task).await.unwrap().unwrap();
        let (_, found) = Cache::open(dir.path(), &empty().host);
        assert_eq!(found.snapshot.unwrap().revision, revision);
    }
}
