//! Putting policy in force: text is parsed and checked here, and what it says is written.

mod diff;

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::api::{ApplyAnswer, ApplyRequest, DeleteRequest};
use mesh_core::command::{ApplyPolicy1, CommandKind, Outcome};
use mesh_core::limits::{DIAGNOSTICS_MAX, POLICY_APPLY_BYTES_MAX, POLICY_FILES_MAX};
use mesh_core::policy::PolicyFile;
use mesh_core::policy::text::{self, Diagnostic};
use mesh_core::revision::Revision;
use mesh_core::state::MeshState;
use mesh_core::trust::{Principal, may_write};

use super::Answer;
use super::error::{Failure, Kind};
use super::nodes::check_text;
use super::request::Call;
use crate::limits::api::{MESSAGE_BYTES_MAX, POLICY_FRESH_MAX};
use diff::{Diff, diff, warnings};

/// What to put in force and what to remove.
struct Change {
    expected: Option<u64>,
    files: Vec<PolicyFile>,
    remove: Vec<String>,
    message: String,
    warnings: Vec<String>,
}

pub(super) async fn apply(call: &Call) -> Result<Answer, Failure> {
    let request: ApplyRequest = call.json()?;
    check_text("message", &request.message, MESSAGE_BYTES_MAX)?;
    check_sizes(&request.files)?;
    let state = newest(call).await?;
    let by = call.by.clone();
    let (dry_run, of_task) = (request.dry_run, Arc::clone(&state));
    let parse = move || {
        let change = read(request, &of_task)?;
        let diff = check(&of_task, &change, &by)?;
        Ok::<_, Failure>((change, diff))
    };
    let (change, diff) = tokio::task::spawn_blocking(parse).await??;
    if dry_run {
        return answer(state.policy.version, state.revision, diff, change.warnings);
    }
    write(call, change, diff).await
}

pub(super) async fn delete(call: &Call) -> Result<Answer, Failure> {
    let DeleteRequest { expected, ids } = call.json()?;
    let state = newest(call).await?;
    let by = call.by.clone();
    let remove = move || {
        let change = without(&state, expected, &ids)?;
        let diff = check(&state, &change, &by)?;
        Ok::<_, Failure>((change, diff))
    };
    let (change, diff) = tokio::task::spawn_blocking(remove).await??;
    write(call, change, diff).await
}

/// The state with everything written so far, so that the answer's difference is the real one.
async fn newest(call: &Call) -> Result<Arc<MeshState>, Failure> {
    call.server.node.linearizable(POLICY_FRESH_MAX).await?;
    Ok(call.server.node.state())
}

async fn write(call: &Call, change: Change, diff: Diff) -> Result<Answer, Failure> {
    let Change { expected, files, remove, message, warnings } = change;
    let kind = CommandKind::ApplyPolicy1(ApplyPolicy1 { expected, files, remove, message });
    match call.server.node.propose(call.by.clone(), kind).await? {
        Outcome::Policy { revision, version } => {
            tracing::info!(version, by = %call.by, "policy was applied");
            answer(version, revision, diff, warnings)
        }
        Outcome::Done(_) | Outcome::Server { .. } | Outcome::Rejected(_) => {
            Err(Failure::new(Kind::Internal, "internal", "an apply gave no policy version"))
        }
    }
}

fn answer(
    version: u64, revision: Revision, diff: Diff, warnings: Vec<String>,
) -> Result<Answer, Failure> {
    let Diff { added, changed, removed } = diff;
    let answer = ApplyAnswer { version, revision, added, changed, removed, warnings };
    Answer::json(&answer, revision)
}

fn check_sizes(files: &[(String, String)]) -> Result<(), Failure> {
    let bytes: usize = files.iter().map(|(_, text)| text.len()).sum();
    let too_large = |text| Err(Failure::new(Kind::TooLarge, "too_large", text));
    if files.len() > POLICY_FILES_MAX {
        let found = files.len();
        return too_large(format!("{found} files, expected at most {POLICY_FILES_MAX}"));
    }
    if bytes > POLICY_APPLY_BYTES_MAX {
        let max = POLICY_APPLY_BYTES_MAX;
        return too_large(format!("the files have {bytes} bytes, expected at most {max}"));
    }
    match files.iter().find(|(name, _)| !is_file_name(name)) {
        Some((name, _)) => {
            let text = format!(
                "file name is {name:?}, expected a relative path such as \"orders.toml\", at most 255 bytes"
            );
            Err(Failure::field("files", text))
        }
        None => Ok(()),
    }
}

/// Whether `name` is a relative path without detours and odd characters.
fn is_file_name(name: &str) -> bool {
    let plain = |c: char| !c.is_control() && c != '\\';
    let part = |part: &str| !part.is_empty() && part != "." && part != "..";
    (1..=255).contains(&name.len()) && name.chars().all(plain) && name.split('/').all(part)
}

/// Parses the files; all that is wrong in any of them is said at once.
fn read(request: ApplyRequest, state: &MeshState) -> Result<Change, Failure> {
    let ApplyRequest { expected, files, prune, message, dry_run: _ } = request;
    let (mut parsed, mut wrong): (Vec<PolicyFile>, Vec<Diagnostic>) = Default::default();
    for (name, source) in &files {
        match text::parse(name, source) {
            Ok(file) => parsed.push(file),
            Err(diagnostics) => wrong.extend(diagnostics),
        }
    }
    refuse(&wrong)?;
    let given = |name: &String| files.iter().any(|(given, _)| given == name);
    let in_force = state.policy.files.keys();
    let remove = in_force.filter(|name| prune && !given(name)).cloned().collect();
    let warnings = warnings(state, &parsed);
    Ok(Change { expected, files: parsed, remove, message, warnings })
}

fn refuse(wrong: &[Diagnostic]) -> Result<(), Failure> {
    if wrong.is_empty() {
        return Ok(());
    }
    let texts: Vec<String> = wrong.iter().take(DIAGNOSTICS_MAX).map(ToString::to_string).collect();
    Err(Failure::new(Kind::Invalid, "policy_invalid", texts.join("\n")))
}

/// Checks the whole set as it would be, and that the caller may change what changes.
fn check(state: &MeshState, change: &Change, by: &Principal) -> Result<Diff, Failure> {
    let now = state.policy.version;
    if let Some(expected) = change.expected.filter(|expected| *expected != now) {
        return Err(mesh_core::command::Rejected::Conflict { now, expected }.into());
    }
    let before: BTreeMap<&str, &PolicyFile> =
        state.policy.files.iter().map(|(name, f)| (name.as_str(), &f.file)).collect();
    let mut after = before.clone();
    change.remove.iter().for_each(|name| {
        after.remove(name.as_str());
    });
    let mut names = std::collections::BTreeSet::new();
    for file in &change.files {
        if !names.insert(&file.name) {
            return Err(Failure::field("files", format!("file {:?} is given twice", file.name)));
        }
        after.insert(&file.name, file);
    }
    let whole: Vec<PolicyFile> = after.values().map(|file| PolicyFile::clone(file)).collect();
    refuse(&text::check(&whole))?;
    let touched = change.files.iter().chain(
        change.remove.iter().chain(names).filter_map(|name| before.get(name.as_str()).copied()),
    );
    let foreign = touched.flat_map(|file| &file.objects).find(|o| !may_write(by, o.service()));
    if let Some(object) = foreign {
        let text = format!("{by} may not write policy about service {}", object.service());
        return Err(Failure::new(Kind::Forbidden, "forbidden", text));
    }
    Ok(diff(before.values().copied(), after.values().copied()))
}

/// The change that removes `ids`, which name objects or whole files.
fn without(state: &MeshState, expected: Option<u64>, ids: &[String]) -> Result<Change, Failure> {
    let (mut files, mut remove, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    let mut missing: Vec<&String> = ids.iter().collect();
    for (name, in_force) in &state.policy.files {
        if ids.contains(name) {
            missing.retain(|id| *id != name);
            remove.push(name.clone());
            continue;
        }
        let objects = &in_force.file.objects;
        missing.retain(|id| !objects.iter().any(|object| object.id() == **id));
        let kept: Vec<_> = objects.iter().filter(|o| !ids.contains(&o.id())).cloned().collect();
        if kept.len() == objects.len() {
            continue;
        }
        if kept.is_empty() {
            remove.push(name.clone());
            continue;
        }
        // Where an object stands changes with the text, so it is read again.
        let file = text::parse(name, &text::print(&kept)).map_err(|wrong| {
            let why = wrong.first().map_or_else(String::new, ToString::to_string);
            Failure::new(Kind::Internal, "internal", format!("{name} cannot be rewritten: {why}"))
        })?;
        warnings.push(format!("{name} was written anew without comments: apply your own copy"));
        files.push(file);
    }
    if let Some(id) = missing.first() {
        return Err(Failure::not_found("policy object or file", id));
    }
    let message =
        format!("removed {}", ids.join(", ")).chars().take(MESSAGE_BYTES_MAX / 4).collect();
    Ok(Change { expected, files, remove, message, warnings })
}

#[cfg(test)]
mod tests {
    use super::is_file_name;

    #[test]
    fn file_names_are_relative_paths() {
        for good in ["orders.toml", "pay/eu.toml", ".hidden", "ü.toml"] {
            assert!(is_file_name(good), "{good}");
        }
        for bad in ["", "/etc/x", "a//b", "../x", "a/./b", "a\nb", "a\\b", "x/"] {
            assert!(!is_file_name(bad), "{bad:?}");
        }
        assert!(!is_file_name(&"x".repeat(256)));
    }
}
