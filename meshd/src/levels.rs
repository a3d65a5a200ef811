//! Feature levels: each server says what it speaks, and the leader raises what is in force once
//! all speak more. Only then may commands of that level enter the log.

use mesh_core::command::{CommandKind, FEATURE_LEVEL, SetServerLevel1};
use mesh_core::name::ServerName;
use mesh_core::state::MeshState;
use mesh_core::trust::Principal;

use crate::server::Server;

/// What the server `me`, which speaks `level`, has to say now. Pure.
fn next(state: &MeshState, me: &ServerName, level: u32, leader: bool) -> Option<CommandKind> {
    let record = state.servers.get(me)?;
    if record.feature_level != level && level >= state.feature_level {
        let server = me.clone();
        return Some(CommandKind::SetServerLevel1(SetServerLevel1 { server, level }));
    }
    let spoken = state.servers.values().map(|server| server.feature_level).min()?;
    let raise = leader && spoken > state.feature_level;
    raise.then_some(CommandKind::SetFeatureLevel1(spoken))
}

/// Says what is to be said. A failure is said again at the next look.
pub(crate) async fn tell(server: &Server) {
    let leader = server.node.is_leader();
    let Some(kind) = next(&server.node.state(), &server.name, FEATURE_LEVEL, leader) else {
        return;
    };
    let by = Principal::Server(server.name.clone());
    match server.node.propose(by, kind).await {
        Ok(_) => tracing::info!(level = FEATURE_LEVEL, "told the feature level"),
        Err(error) => tracing::debug!(%error, "the feature level was not told yet"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mesh_core::catalog::KeyHash;
    use mesh_core::command::ServerRecord;

    use super::*;

    fn state(in_force: u32, servers: &[(&str, u32)]) -> MeshState {
        let mut state = MeshState { feature_level: in_force, ..MeshState::default() };
        for (id, (name, level)) in (1..).zip(servers) {
            let name: ServerName = name.parse().unwrap();
            let address = "127.0.0.1:7300".to_owned();
            let record = ServerRecord {
                name: name.clone(),
                id,
                api_address: address.clone(),
                raft_address: address,
                key: KeyHash([0; 32]),
                feature_level: *level,
            };
            state.servers.insert(name, Arc::new(record));
        }
        state
    }

    #[test]
    fn the_level_rises_once_every_server_speaks_it() {
        let me: ServerName = "a".parse().unwrap();
        let own = |level| {
            let server = me.clone();
            Some(CommandKind::SetServerLevel1(SetServerLevel1 { server, level }))
        };
        let cases = [
            ("all is said", state(1, &[("a", 1), ("b", 1)]), 1, true, None),
            ("new software", state(1, &[("a", 1), ("b", 1)]), 2, false, own(2)),
            ("one is behind", state(1, &[("a", 2), ("b", 1)]), 2, true, None),
            (
                "all speak more",
                state(1, &[("a", 3), ("b", 2)]),
                3,
                true,
                Some(CommandKind::SetFeatureLevel1(2)),
            ),
            ("only the leader raises", state(1, &[("a", 2), ("b", 2)]), 2, false, None),
            ("one version back", state(1, &[("a", 2), ("b", 2)]), 1, true, own(1)),
            ("too far back says nothing", state(2, &[("a", 2), ("b", 2)]), 1, true, None),
            ("not in the records yet", state(1, &[("b", 1)]), 1, true, None),
        ];
        for (name, state, level, leader, want) in cases {
            assert_eq!(next(&state, &me, level, leader), want, "case: {name}");
        }
    }
}
