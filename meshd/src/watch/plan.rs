//! What a stream must be sent: a pure function of the state and of what the agent holds.

use std::collections::BTreeMap;

use mesh_core::compile;
use mesh_core::name::NodeName;
use mesh_core::resource::ResourceKey;
use mesh_core::revision::Revision;
use mesh_core::state::MeshState;

/// What an agent subscribes to, with the revision it holds of each; [`Revision::ZERO`] for none.
pub(super) type Held = BTreeMap<ResourceKey, Revision>;

/// What to send in one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The state that the batch brings the agent to.
    pub(super) revision: Revision,
    /// Whether it replaces all that the agent holds.
    pub(super) full: bool,
    /// Resources, each with the revision that last touched it.
    pub(super) resources: Vec<(ResourceKey, Revision)>,
}

/// The batch that brings the agent of `node` from `cursor` to `state`.
///
/// `None` if `state` is not newer than what the agent has: a server that lags sends nothing. A
/// higher epoch than the agent's replaces everything; else only what changed since the agent got
/// it is sent, which may be nothing.
pub(super) fn plan(
    state: &MeshState, node: &NodeName, held: &Held, cursor: Revision,
) -> Option<Plan> {
    let revision = state.revision;
    if revision < cursor {
        return None;
    }
    let full = revision.epoch > cursor.epoch;
    let resources: Vec<_> = held
        .iter()
        .filter(|(key, _)| may_know(state, node, key))
        .map(|(key, has)| (key, compile::modified(state, key), has))
        .filter(|(_, modified, has)| full || modified > has)
        .map(|(key, modified, _)| (key.clone(), modified))
        .collect();
    let nothing = resources.is_empty() && revision == cursor;
    (!nothing).then_some(Plan { revision, full, resources })
}

/// The newest revision that touches something the agent subscribes to.
pub(super) fn wanted(state: &MeshState, node: &NodeName, held: &Held) -> Revision {
    held.keys()
        .filter(|key| may_know(state, node, key))
        .map(|key| compile::modified(state, key))
        .max()
        .unwrap_or(Revision::ZERO)
}

/// Whether the agent of `node` may get `key`: who may call a service is told to its hosts only.
fn may_know(state: &MeshState, node: &NodeName, key: &ResourceKey) -> bool {
    match key {
        ResourceKey::Bundle | ResourceKey::Routes(_) | ResourceKey::Endpoints(_) => true,
        ResourceKey::Access(service) => state
            .services
            .get(service)
            .and_then(|entry| entry.instances.get(node))
            .is_some_and(|of_node| !of_node.is_empty()),
    }
}
