//! Objects of policy, and what an apply did.

use mesh_core::api::{ApplyAnswer, PolicyList};

use crate::output::{plain, table};

/// The objects in force.
pub(crate) fn objects(list: &PolicyList) -> String {
    if list.objects.is_empty() {
        return "no policy yet: write some and run `mesh apply DIR`".to_owned();
    }
    let rows = list.objects.iter().map(|one| {
        vec![
            one.id.clone(),
            one.origin.to_string(),
            format!("v{}", one.version),
            one.summary.clone(),
        ]
    });
    let rows = table(&["ID", "AT", "VERSION", "SUMMARY"], rows);
    format!("{rows}\n\npolicy v{} is in force", list.version)
}

/// What an apply or delete did, or would do.
pub(crate) fn applied(answer: &ApplyAnswer, dry_run: bool) -> String {
    let mut lines: Vec<String> = Vec::new();
    let marks = [("+", &answer.added), ("~", &answer.changed), ("-", &answer.removed)];
    for (mark, ids) in marks {
        lines.extend(ids.iter().map(|id| format!("  {mark} {}", plain(id))));
    }
    let version = answer.version;
    lines.insert(
        0,
        match (lines.is_empty(), dry_run) {
            (true, _) => format!("nothing changes: policy v{version} is in force"),
            (false, true) => format!("would change policy v{version}:"),
            (false, false) => {
                format!("policy v{version} is in force (revision {}):", answer.revision)
            }
        },
    );
    lines.extend(answer.warnings.iter().map(|text| format!("warning: {}", plain(text))));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn an_apply_says_what_it_did() {
        let want = "\
policy v4 is in force (revision 1.42):
  + allow.orders/readers
  ~ service.orders
  - deny.orders/h-01234567
warning: service db has no instance";
        assert_eq!(applied(&samples::applied(), false), want);
        let dry = applied(&samples::applied(), true);
        assert!(dry.starts_with("would change policy v4:\n"), "{dry}");
        let mut same = samples::applied();
        same.added.clear();
        same.changed.clear();
        same.removed.clear();
        same.warnings.clear();
        assert_eq!(applied(&same, false), "nothing changes: policy v4 is in force");
    }

    #[test]
    fn objects_say_where_they_stand() {
        let want = "\
ID                    AT              VERSION  SUMMARY
allow.orders/readers  orders.toml:11  v3       web may GET /v2/*

policy v4 is in force";
        assert_eq!(objects(&samples::policy()), want);
    }
}
