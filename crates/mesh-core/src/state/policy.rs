//! Policy versions: files in, what they say per service out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::apply::{at_most, not_found};
use super::{FileInForce, MeshState, PolicyOfService};
use crate::command::{ApplyPolicy1, Outcome, Rejected};
use crate::limits;
use crate::name::ServiceName;
use crate::policy::{PolicyFile, PolicyObject, text};
use crate::trust::{Principal, may_write};

impl MeshState {
    /// The checks of [`text::check`] run here, on the whole set, because two applies may each be
    /// sound and not fit together. A change of what they refuse is a new feature level.
    pub(super) fn apply_policy(
        &mut self, by: &Principal, apply: &ApplyPolicy1,
    ) -> Result<Outcome, Rejected> {
        let now = self.policy.version;
        if let Some(expected) = apply.expected.filter(|expected| *expected != now) {
            return Err(Rejected::Conflict { now, expected });
        }
        if let Some(name) = given_twice(&apply.files) {
            return Err(Rejected::Policy(vec![format!("file {name:?} is given twice")]));
        }
        let mut files = self.policy.files.clone();
        let replaced = apply.files.iter().map(|file| &file.name).chain(&apply.remove);
        let objects = replaced.filter_map(|name| files.get(name)).flat_map(|f| &f.file.objects);
        if let Some(object) = objects.into_iter().find(|o| !may_write(by, o.service())) {
            return Err(Rejected::Forbidden { by: format!("{by} (writing {})", object.id()) });
        }
        for name in &apply.remove {
            files.remove(name).ok_or_else(|| not_found("policy file", name))?;
        }
        for file in &apply.files {
            let same = files.get(&file.name).is_some_and(|known| known.file == *file);
            if !same {
                let in_force = FileInForce { file: file.clone(), version: now + 1 };
                files.insert(file.name.clone(), Arc::new(in_force));
            }
        }
        at_most("number of policy files", files.len(), limits::POLICY_FILES_MAX)?;
        let revision = self.revision;
        if files == self.policy.files {
            return Ok(Outcome::Policy { revision, version: now });
        }
        let parsed: Vec<_> = files.values().map(|in_force| &in_force.file).cloned().collect();
        let problems = text::check(&parsed);
        if !problems.is_empty() {
            return Err(Rejected::Policy(problems.iter().map(ToString::to_string).collect()));
        }
        self.policy.files = files;
        self.policy.version = now + 1;
        self.index_policy();
        let found = self.policy.services.len();
        at_most("number of services in policy", found, limits::SERVICES_MAX)?;
        Ok(Outcome::Policy { revision, version: now + 1 })
    }

    /// Rebuilds what policy says per service, and marks the services for which that changed.
    pub(super) fn index_policy(&mut self) {
        let mut next: BTreeMap<ServiceName, PolicyOfService> = BTreeMap::new();
        for in_force in self.policy.files.values() {
            for object in &in_force.file.objects {
                let entry = next.entry(object.service().clone()).or_default();
                match object {
                    PolicyObject::Service(policy) => {
                        entry.service = Some(policy.clone());
                        entry.service_version = in_force.version;
                    }
                    PolicyObject::Rule(rule) => entry.rules.push((rule.clone(), in_force.version)),
                }
            }
        }
        let known: BTreeSet<_> = self.policy.services.keys().cloned().collect();
        for name in known {
            next.entry(name).or_default();
        }
        for (name, mut entry) in next {
            entry.rules.sort_by(|(a, _), (b, _)| a.id.cmp(&b.id));
            let known = self.policy.services.get(&name);
            entry.modified = known.map_or(self.revision, |known| known.modified);
            if known.is_none_or(|known| **known != entry) {
                entry.modified = self.revision;
                self.policy.services.insert(name, Arc::new(entry));
            }
        }
    }
}

/// The first name that two of `files` have.
fn given_twice(files: &[PolicyFile]) -> Option<&str> {
    let mut seen = BTreeSet::new();
    files.iter().map(|file| file.name.as_str()).find(|name| !seen.insert(*name))
}
