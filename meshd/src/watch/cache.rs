//! [`Cache`]: each resource compiled and serialised once, however many agents want it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::limits::watch::{CACHE_BYTES_MAX, CACHE_FRAMES_MAX};
use bytes::Bytes;
use mesh_core::compile;
use mesh_core::resource::ResourceKey;
use mesh_core::revision::Revision;
use mesh_core::state::MeshState;
use mesh_net::{pack, stream};

/// Frames of resources, by key, each of the last revision asked for. State kind: *derived*.
#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<Frames>);

#[derive(Debug, Default)]
struct Frames {
    frames: HashMap<ResourceKey, (Revision, Bytes)>,
    bytes: usize,
}

impl Cache {
    /// The frame of `key`, which `state` last changed at `modified`; `None` if it cannot be made,
    /// which is logged.
    ///
    /// Callers that want the same wait for one another, so that it is made once.
    pub(crate) fn frame(
        &self, state: &MeshState, key: &ResourceKey, modified: Revision,
    ) -> Option<Bytes> {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, frame)) = cached.frames.get(key).filter(|(known, _)| *known == modified) {
            return Some(frame.clone());
        }
        let frame = make(state, key)?;
        let full =
            cached.frames.len() >= CACHE_FRAMES_MAX || cached.bytes + frame.len() > CACHE_BYTES_MAX;
        if full {
            // Rare, and what is in use comes back with the next change.
            *cached = Frames::default();
        }
        let before = cached.frames.insert(key.clone(), (modified, frame.clone()));
        cached.bytes -= before.map_or(0, |(_, old)| old.len());
        cached.bytes += frame.len();
        Some(frame)
    }
}

fn make(state: &MeshState, key: &ResourceKey) -> Option<Bytes> {
    let resource = compile::resource(state, key)?;
    let frame = pack::to_vec(&resource)
        .map_err(|error| error.to_string())
        .and_then(|body| stream::encode_resource_frame(&body).map_err(|error| error.to_string()));
    frame.map_err(|why| tracing::error!(?key, why, "a resource cannot be sent to agents")).ok()
}
