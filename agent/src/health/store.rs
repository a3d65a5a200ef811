//! The last outcomes of checks, on disk. Losing them costs one round of first tries.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mesh_core::catalog::CheckStatus;
use mesh_core::name::InstanceId;
use mesh_net::telemetry::Chain;
use mesh_net::{files, pack};

use super::Report;
use crate::limits::health::FILE_BYTES_MAX;

/// Keeps outcomes in `health` of the data directory.
#[derive(Clone, Debug)]
pub struct HealthStore {
    path: PathBuf,
}

impl HealthStore {
    /// The store of the agent with this data directory.
    pub fn new(data_dir: &Path) -> Self {
        Self { path: data_dir.join("health") }
    }

    /// The outcomes of the process before; empty if there are none or they are damaged.
    pub fn load(&self) -> BTreeMap<InstanceId, BTreeMap<String, CheckStatus>> {
        let bytes = match files::read_checked(&self.path, FILE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(why) if why.is_not_found() => return BTreeMap::new(),
            Err(why) => {
                tracing::warn!("kept health is not used: {}", Chain(&why));
                return BTreeMap::new();
            }
        };
        pack::from_slice(&bytes)
            .inspect_err(|why| tracing::warn!("kept health is not used: {}", Chain(why)))
            .unwrap_or_default()
    }

    /// Keeps the outcomes of `report`. Blocks on the disk, for one small file.
    pub fn save(&self, report: &Report) {
        let outcomes: BTreeMap<&InstanceId, &BTreeMap<String, CheckStatus>> =
            report.iter().map(|(id, change)| (id, &change.checks)).collect();
        let saved =
            pack::to_vec(&outcomes).map_err(|why| Chain(&why).to_string()).and_then(|bytes| {
                files::write_checked(&self.path, &bytes).map_err(|why| Chain(&why).to_string())
            });
        if let Err(why) = saved {
            tracing::warn!("health is not kept: {why}");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

    use mesh_core::catalog::Health;
    use mesh_core::command::HealthChange;

    use super::*;

    #[test]
    fn outcomes_come_back_and_damage_costs_only_them() {
        let dir = tempfile::tempdir().unwrap();
        let store = HealthStore::new(dir.path());
        assert!(store.load().is_empty());
        let status = CheckStatus { passing: true, output: "up".to_owned() };
        let checks = BTreeMap::from([("tcp".to_owned(), status)]);
        let id: InstanceId = "web-1".parse().unwrap();
        let change = HealthChange { health: Health::Passing, checks: checks.clone() };
        store.save(&BTreeMap::from([(id.clone(), change)]));
        assert_eq!(store.load(), BTreeMap::from([(id, checks)]));
        std::fs::write(dir.path().join("health"), "damaged").unwrap();
        assert!(store.load().is_empty());
    }
}
