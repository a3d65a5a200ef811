//! What an apply changes, and what in it was perhaps not meant.

use std::collections::{BTreeMap, BTreeSet};

use crate::limits::api::DIFF_WARNINGS_MAX;
use mesh_core::name::ServiceName;
use mesh_core::policy::{PolicyFile, PolicyObject, Source, text};
use mesh_core::state::MeshState;

/// Ids of objects, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Diff {
    pub(super) added: Vec<String>,
    pub(super) changed: Vec<String>,
    pub(super) removed: Vec<String>,
}

/// How `after` differs from `before`. An object that only moved within or between files is the
/// same.
pub(super) fn diff<'a>(
    before: impl Iterator<Item = &'a PolicyFile>, after: impl Iterator<Item = &'a PolicyFile>,
) -> Diff {
    let (before, after) = (texts(before), texts(after));
    let added = after.keys().filter(|id| !before.contains_key(*id)).cloned().collect();
    let removed = before.keys().filter(|id| !after.contains_key(*id)).cloned().collect();
    let changed = after.iter().filter(|(id, text)| before.get(*id).is_some_and(|b| b != *text));
    Diff { added, changed: changed.map(|(id, _)| id.clone()).collect(), removed }
}

fn texts<'a>(files: impl Iterator<Item = &'a PolicyFile>) -> BTreeMap<String, String> {
    files
        .flat_map(|file| &file.objects)
        .map(|object| (object.id(), text::print(std::slice::from_ref(object))))
        .collect()
}

/// Services that the files speak of and that neither anyone registered nor policy declares.
pub(super) fn warnings(state: &MeshState, files: &[PolicyFile]) -> Vec<String> {
    let declared: BTreeSet<&ServiceName> = files
        .iter()
        .chain(state.policy.files.values().map(|in_force| &in_force.file))
        .flat_map(|file| &file.objects)
        .filter_map(|object| match object {
            PolicyObject::Service(policy) => Some(&policy.service),
            PolicyObject::Rule(_) => None,
        })
        .collect();
    let known =
        |name: &ServiceName| declared.contains(name) || state.instances(name).next().is_some();
    let mut warnings = Vec::new();
    for object in files.iter().flat_map(|file| &file.objects) {
        for name in named(object).into_iter().filter(|name| !known(name)) {
            let (origin, id) = (object.origin(), object.id());
            warnings.push(format!(
                "{origin}: {id} names service {name}, which nobody registered: is it spelled right?"
            ));
            if warnings.len() == DIFF_WARNINGS_MAX {
                return warnings;
            }
        }
    }
    warnings
}

/// The services that an object names, apart from one it declares itself.
fn named(object: &PolicyObject) -> BTreeSet<&ServiceName> {
    match object {
        PolicyObject::Service(policy) => {
            let targets = policy.routes.iter().flat_map(|route| &route.to);
            targets.filter_map(|target| target.service.as_ref()).collect()
        }
        PolicyObject::Rule(rule) => {
            let callers = rule.from.iter().filter_map(|source| match source {
                Source::Service { service, .. } => Some(service),
                Source::Any | Source::Node(_) | Source::Spiffe(_) => None,
            });
            callers.chain([&rule.id.service]).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    fn file(name: &str, source: &str) -> PolicyFile {
        text::parse(name, source).unwrap()
    }

    #[test]
    fn moves_are_no_changes() {
        let rule = "[[allow.orders]]\nname = \"a\"\nfrom = [\"web\"]\n";
        let other = "[[allow.orders]]\nname = \"a\"\nfrom = [\"job\"]\n";
        let before = [file("a.toml", rule)];
        let moved = [file("b.toml", &format!("# moved\n\n{rule}"))];
        assert_eq!(diff(before.iter(), moved.iter()), Diff::default());
        let changed = diff(before.iter(), [file("a.toml", other)].iter());
        assert_eq!(changed.changed, ["allow.orders/a"]);
        let added = diff([].iter(), before.iter());
        assert_eq!(added.added, ["allow.orders/a"]);
        assert_eq!(diff(before.iter(), [].iter()).removed, ["allow.orders/a"]);
    }

    #[test]
    fn unknown_services_are_warned_of() {
        let files = [file("a.toml", "[service.orders]\n\n[[allow.orders]]\nfrom = [\"wbe\"]\n")];
        let warnings = warnings(&MeshState::default(), &files);
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].starts_with("a.toml:3: "), "{warnings:?}");
        assert!(warnings[0].contains("service wbe"), "{warnings:?}");
    }
}
