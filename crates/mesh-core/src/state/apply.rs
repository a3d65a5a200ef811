//! `apply`: one match, one call per command. Deterministic, total, without side effects.

use std::sync::Arc;

use super::{Mesh, MeshState};
use crate::command::{
    Command, CommandKind, InitMesh1, Outcome, Rejected, Restore1, SetServerLevel1, may_propose,
};
use crate::revision::Revision;

impl MeshState {
    /// Applies the log's entry `index`: the state afterwards is a function of the state before and
    /// the entry. A rejected command changes nothing.
    pub fn apply(&mut self, index: u64, command: &Command) -> Outcome {
        let revision = Revision::new(self.revision.epoch.max(1), index);
        let mut next = self.clone();
        next.revision = revision;
        next.clock = self.clock.max(command.at);
        match next.change(command) {
            Ok(outcome) => {
                *self = next;
                outcome
            }
            Err(why) => Outcome::Rejected(why),
        }
    }

    fn change(&mut self, command: &Command) -> Result<Outcome, Rejected> {
        let Command { at: _, by, kind } = command;
        if !may_propose(by, kind) {
            return Err(Rejected::Forbidden { by: by.to_string() });
        }
        if let CommandKind::InitMesh1(init) = kind {
            return self.init(init);
        }
        if self.mesh.is_none() {
            return Err(Rejected::NotInitialised);
        }
        let (now, found) = (self.feature_level, kind.level());
        if found > now {
            return Err(Rejected::FeatureLevel { now, found });
        }
        match kind {
            CommandKind::InitMesh1(init) => return self.init(init),
            CommandKind::CreateToken1(token) => self.create_token(token)?,
            CommandKind::DeleteToken1(id) => self.delete_token(id)?,
            CommandKind::EnrolNode1(enrol) => self.enrol_node(enrol)?,
            CommandKind::EnrolServer1(enrol) => return self.enrol_server(enrol),
            CommandKind::RemoveServer1(name) => self.remove_server(name)?,
            CommandKind::SetNodeAddress1(set) => self.set_node_address(set)?,
            CommandKind::SetNodePolicy1 { node, policy } => self.set_node_policy(node, policy)?,
            CommandKind::RemoveNode1(node) => self.remove_node(node)?,
            CommandKind::SyncInstances1(sync) => self.sync_instances(sync)?,
            CommandKind::SetHealth1(set) => self.set_health(set)?,
            CommandKind::SetLiveness1(set) => self.set_liveness(set),
            CommandKind::ApplyPolicy1(apply) => return self.apply_policy(by, apply),
            CommandKind::Revoke1(revocation) => self.revoke(revocation)?,
            CommandKind::Restore1(restore) => self.restore(restore)?,
            CommandKind::SetFeatureLevel1(level) => self.set_feature_level(*level)?,
            CommandKind::SetServerLevel1(set) => self.set_server_level(set)?,
        }
        Ok(Outcome::Done(self.revision))
    }

    fn init(&mut self, init: &InitMesh1) -> Result<Outcome, Rejected> {
        if let Some(mesh) = &self.mesh {
            return Err(Rejected::Initialised(mesh.trust_domain.clone()));
        }
        self.mesh = Some(Arc::new(Mesh {
            trust_domain: init.trust_domain.clone(),
            datacenter: init.datacenter.clone(),
            access: init.access,
            ca: init.ca.clone(),
            created_at: self.clock,
        }));
        self.feature_level = init.server.feature_level;
        self.server_id_last = init.server.id;
        self.servers.insert(init.server.name.clone(), Arc::new(init.server.clone()));
        self.tokens.insert(init.token.id.clone(), Arc::new(init.token.clone()));
        self.trust_modified = self.revision;
        Ok(Outcome::Done(self.revision))
    }

    /// The backup's content comes back; who the servers are, and the ids they used, stays.
    fn restore(&mut self, restore: &Restore1) -> Result<(), Rejected> {
        let ours = self.mesh.as_ref().ok_or(Rejected::NotInitialised)?;
        let refuse = |why: String| Err(Rejected::Restore(why));
        let Some(theirs) = &restore.state.mesh else {
            return refuse("it holds no initialised mesh".to_owned());
        };
        if ours.trust_domain != theirs.trust_domain {
            let (found, expected) = (&theirs.trust_domain, &ours.trust_domain);
            return refuse(format!("its trust domain is {found}, expected {expected}"));
        }
        let seen = self.revision.epoch.max(restore.state.revision.epoch);
        if restore.epoch <= seen {
            return refuse(format!("epoch {} is not above {seen}", restore.epoch));
        }
        // what counts up from here must never overflow
        let counters = [restore.epoch, restore.state.policy.version, restore.state.server_id_last];
        if let Some(found) = counters.into_iter().find(|found| *found > COUNTER_MAX) {
            return refuse(format!("it counts up to {found}, expected at most {COUNTER_MAX}"));
        }
        let mut next = (*restore.state).clone();
        next.revision = Revision::new(restore.epoch, self.revision.index);
        next.clock = self.clock.max(next.clock);
        next.feature_level = self.feature_level;
        next.servers = self.servers.clone();
        next.server_id_last = self.server_id_last.max(next.server_id_last);
        next.policy.version = next.policy.version.max(self.policy.version) + 1;
        next.tokens = self.tokens_after_restore(&next);
        // what was refused before the restore stays refused: a backup must not bring access back
        next.revoked = next.revoked.union(self.revoked.clone());
        next.index_policy();
        next.touch_all();
        *self = next;
        Ok(())
    }

    /// Marks everything as changed now, so that no receiver keeps a resource of another epoch.
    fn touch_all(&mut self) {
        let revision = self.revision;
        self.trust_modified = revision;
        self.services = std::mem::take(&mut self.services)
            .into_iter()
            .map(|(name, mut entry)| {
                Arc::make_mut(&mut entry).modified = revision;
                (name, entry)
            })
            .collect();
        self.policy.services = std::mem::take(&mut self.policy.services)
            .into_iter()
            .map(|(name, mut entry)| {
                Arc::make_mut(&mut entry).modified = revision;
                (name, entry)
            })
            .collect();
    }

    /// The level only rises, and only to what every server says it speaks.
    fn set_feature_level(&mut self, level: u32) -> Result<(), Rejected> {
        if level <= self.feature_level {
            return Err(Rejected::FeatureLevel { now: self.feature_level, found: level });
        }
        if let Some(behind) = self.servers.values().find(|server| server.feature_level < level) {
            let (server, speaks) = (behind.name.clone(), behind.feature_level);
            return Err(Rejected::ServerBehind { server, speaks, level });
        }
        self.feature_level = level;
        Ok(())
    }

    /// A server may go back a version, but not below what the log is written in.
    fn set_server_level(&mut self, set: &SetServerLevel1) -> Result<(), Rejected> {
        if set.level < self.feature_level {
            return Err(Rejected::FeatureLevel { now: self.feature_level, found: set.level });
        }
        let record = self.servers.get_mut(&set.server);
        let record = record.ok_or_else(|| not_found("server", &set.server))?;
        Arc::make_mut(record).feature_level = set.level;
        Ok(())
    }
}

/// Nothing that counts by ones gets here.
const COUNTER_MAX: u64 = u64::MAX / 2;

/// "Does not exist", for any kind of thing.
pub(super) fn not_found(what: &str, name: impl ToString) -> Rejected {
    Rejected::NotFound { what: what.to_owned(), name: name.to_string() }
}

/// Refuses `found` of `what` above `max`.
pub(super) fn at_most(what: &str, found: usize, max: usize) -> Result<(), Rejected> {
    if found <= max {
        return Ok(());
    }
    Err(Rejected::TooMany { what: what.to_owned(), found: found as u64, max: max as u64 })
}
