//! Checks that need more than one object: over all policy files of an apply.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::Diagnostic;
use crate::limits::{
    DIAGNOSTICS_MAX, POLICY_APPLY_BYTES_MAX, POLICY_FILES_MAX, RULES_PER_SERVICE_MAX,
};
use crate::name::{ServiceName, SubsetName};
use crate::policy::{
    Origin, PolicyFile, PolicyObject, Protocol, Route, Rule, RuleKind, ServicePolicy, Target,
};

/// Checks `files` as a whole: ids, protocols, subsets and bounds.
///
/// Empty if nothing is wrong; at most [`DIAGNOSTICS_MAX`], in the order of files and lines.
pub fn check(files: &[PolicyFile]) -> Vec<Diagnostic> {
    let mut checker = Checker { found: Vec::new(), services: BTreeMap::new() };
    checker.files(files);
    checker.ids(files);
    for (at, file) in files.iter().enumerate() {
        for object in &file.objects {
            match object {
                PolicyObject::Service(policy) => checker.routes(at, policy),
                PolicyObject::Rule(rule) => checker.rule(at, rule),
            }
        }
    }
    checker.found.sort();
    checker.found.truncate(DIAGNOSTICS_MAX);
    let diagnostic = |found: Found| {
        let file = files.get(found.file)?;
        Some(Diagnostic::about_line(&file.name, &file.text, found.line, found.message))
    };
    checker.found.into_iter().filter_map(diagnostic).collect()
}

/// A message about one line of the file at an index.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    file: usize,
    line: u32,
    message: String,
}

struct Checker<'a> {
    found: Vec<Found>,
    services: BTreeMap<&'a ServiceName, &'a ServicePolicy>,
}

impl<'a> Checker<'a> {
    fn error(&mut self, file: usize, line: u32, message: String) {
        self.found.push(Found { file, line, message });
    }

    /// Names and bounds of the files.
    fn files(&mut self, files: &[PolicyFile]) {
        if files.len() > POLICY_FILES_MAX {
            let found = files.len();
            let message = format!("policy has {found} files, expected at most {POLICY_FILES_MAX}");
            self.error(0, 1, message);
        }
        let mut seen = BTreeMap::new();
        let mut bytes = 0_usize;
        let mut over = None;
        for (at, file) in files.iter().enumerate() {
            if seen.insert(&file.name, at).is_some() {
                self.error(at, 1, format!("file {:?} is given twice", file.name));
            }
            bytes = bytes.saturating_add(file.text.len());
            over = over.or((bytes > POLICY_APPLY_BYTES_MAX).then_some(at));
        }
        if let Some(at) = over {
            let max = POLICY_APPLY_BYTES_MAX;
            self.error(at, 1, format!("policy has {bytes} bytes in all, expected at most {max}"));
        }
    }

    /// Every id stands once; fills `services` with the first of each.
    fn ids(&mut self, files: &'a [PolicyFile]) {
        let mut first: BTreeMap<String, &Origin> = BTreeMap::new();
        let mut rules: BTreeMap<(RuleKind, &ServiceName), usize> = BTreeMap::new();
        let objects = files.iter().enumerate();
        for (at, object) in objects.flat_map(|(at, file)| file.objects.iter().map(move |o| (at, o)))
        {
            let origin = object.origin();
            match first.entry(object.id()) {
                Entry::Vacant(entry) => {
                    entry.insert(origin);
                }
                Entry::Occupied(entry) => {
                    let message = twice(object, entry.key(), entry.get());
                    self.error(at, origin.line, message);
                }
            }
            match object {
                PolicyObject::Service(policy) => {
                    self.services.entry(&policy.service).or_insert(policy);
                }
                PolicyObject::Rule(Rule { id, .. }) => {
                    let count = rules.entry((id.kind, &id.service)).or_default();
                    *count += 1;
                    if *count == RULES_PER_SERVICE_MAX + 1 {
                        let message = format!(
                            "{}.{} has more than {RULES_PER_SERVICE_MAX} rules",
                            id.kind.as_str(),
                            id.service
                        );
                        self.error(at, origin.line, message);
                    }
                }
            }
        }
    }

    /// A rule with HTTP matches needs a service whose requests can be told apart.
    fn rule(&mut self, file: usize, rule: &Rule) {
        if rule.http.is_empty() {
            return;
        }
        if let Some(why) = self.not_http(&rule.id.service) {
            let message = format!("{} has HTTP matches, but {why}", rule.id);
            self.error(file, rule.origin.line, message);
        }
    }

    fn routes(&mut self, file: usize, policy: &'a ServicePolicy) {
        for route in &policy.routes {
            if let Some(why) = self.not_http(&policy.service) {
                let message = format!("service.{} has a route, but {why}", policy.service);
                self.error(file, route.origin.line, message);
            }
            self.targets(file, policy, route);
        }
    }

    fn targets(&mut self, file: usize, policy: &'a ServicePolicy, route: &Route) {
        for Target { service, subset, .. } in &route.to {
            let line = route.origin.line;
            let to = service.as_ref().unwrap_or(&policy.service);
            if *to != policy.service
                && let Some(why) = self.not_http(to)
            {
                self.error(file, line, format!("route sends requests to {to}, but {why}"));
            }
            if let Some(subset) = subset
                && let Some(why) = self.no_subset(to, subset)
            {
                self.error(
                    file,
                    line,
                    format!("route sends requests to subset {subset}, but {why}"),
                );
            }
        }
    }

    /// Why `service` does not speak HTTP, as far as policy says.
    fn not_http(&self, service: &ServiceName) -> Option<String> {
        let expected = "expected protocol = \"http\", \"http2\" or \"grpc\"";
        let declared = self.services.get(service);
        match declared.and_then(|policy| policy.protocol.map(|protocol| (policy, protocol))) {
            Some((_, protocol)) if protocol.is_http() => None,
            Some((policy, protocol)) => {
                let Origin { file, line } = &policy.origin;
                Some(format!(
                    "service.{service} ({file}:{line}) has protocol = \"{protocol}\", {expected}"
                ))
            }
            None => Some(format!(
                "service.{service} declares no protocol and is opaque {}, {expected}",
                Protocol::default()
            )),
        }
    }

    /// Why `service` has no subset `name`.
    fn no_subset(&self, service: &ServiceName, name: &SubsetName) -> Option<String> {
        let subsets = self.services.get(service).map(|policy| &policy.subsets);
        if subsets.is_some_and(|subsets| subsets.contains_key(name)) {
            return None;
        }
        let names: Vec<&str> =
            subsets.into_iter().flat_map(|all| all.keys()).map(SubsetName::as_str).collect();
        Some(match names[..] {
            [] => format!("service.{service} has no subsets"),
            _ => format!("service.{service} has only {}", names.join(", ")),
        })
    }
}

fn twice(object: &PolicyObject, id: &str, first: &Origin) -> String {
    match object {
        PolicyObject::Rule(rule) if !rule.named => {
            format!("the same rule stands twice, first at {first} (its id is {id})")
        }
        PolicyObject::Rule(_) | PolicyObject::Service(_) => {
            format!("{id} is declared twice, first at {first}")
        }
    }
}
