//! `apply`, `lint`, `get` and `delete`.

use std::path::PathBuf;

use mesh_core::api::{ApplyAnswer, ApplyRequest, DeleteRequest};
use serde::Serialize;

use crate::args::{ApplyArgs, DeleteArgs, GetArgs};
use crate::context::Context;
use crate::error::{CliError, count};
use crate::files::{Checked, check_any, check_policy, collect};
use crate::render;

/// Checks the files here, then has the servers put them in force.
pub(super) async fn apply(context: &Context, args: ApplyArgs) -> Result<(), CliError> {
    let paths: Vec<PathBuf> = args.paths.into_iter().chain(args.file).collect();
    let files = collect(&paths)?;
    let checked = check_policy(&files);
    if !checked.wrong.is_empty() {
        return Err(CliError::Files(checked.wrong));
    }
    let client = context.client()?;
    let texts = checked.policy.into_iter().map(|file| (file.name, file.text));
    let request = ApplyRequest {
        expected: args.if_version,
        files: texts.collect(),
        prune: args.prune,
        dry_run: args.dry_run,
        message: args.message,
    };
    let answer = client.apply_policy(&request).await?;
    show(context, &answer, args.dry_run)
}

fn show(context: &Context, answer: &ApplyAnswer, dry_run: bool) -> Result<(), CliError> {
    context.output.show(answer, || render::applied(answer, dry_run))
}

/// What `mesh lint -o json` prints.
#[derive(Serialize)]
struct Linted<'a> {
    ok: bool,
    policy_files: usize,
    objects: usize,
    host_files: usize,
    instances: usize,
    wrong: &'a [mesh_core::policy::text::Diagnostic],
}

/// Checks files without a server.
pub(super) fn lint(context: &Context, paths: &[PathBuf]) -> Result<(), CliError> {
    let checked = check_any(&collect(paths)?);
    let linted = Linted {
        ok: checked.wrong.is_empty(),
        policy_files: checked.policy.len(),
        objects: checked.policy.iter().map(|file| file.objects.len()).sum(),
        host_files: checked.host_files,
        instances: checked.instances,
        wrong: &checked.wrong,
    };
    let ok = linted.ok;
    context.output.show(&linted, || linted_text(&checked, linted.objects))?;
    if ok { Ok(()) } else { Err(CliError::No) }
}

fn linted_text(checked: &Checked, objects: usize) -> String {
    if checked.wrong.is_empty() {
        let policy = count(checked.policy.len(), "policy file");
        let host = count(checked.host_files, "host file");
        let (objects, instances) = (count(objects, "object"), count(checked.instances, "instance"));
        return format!("ok: {policy} ({objects}), {host} ({instances})");
    }
    let mut lines: Vec<String> = checked.wrong.iter().map(ToString::to_string).collect();
    lines.push(count(checked.wrong.len(), "error"));
    lines.join("\n")
}

/// Lists objects, or prints one.
pub(super) async fn get(context: &Context, args: GetArgs) -> Result<(), CliError> {
    match (args.id.as_deref(), args.name.as_deref()) {
        (None | Some("policy" | "policies" | "rules" | "routes"), None) => objects(context).await,
        (Some("services"), None) => super::service::services(context).await,
        (Some("nodes"), None) => super::node::list(context).await,
        (Some("members"), None) => super::node::members(context).await,
        (Some("servers"), None) => super::server::list(context).await,
        (Some("tokens"), None) => super::token::list(context).await,
        (Some("service"), Some(name)) => super::service::show(context, &parse(name)?).await,
        (Some("node"), Some(name)) => super::node::show(context, &parse(name)?).await,
        (Some(id), None) => object(context, id).await,
        (Some(kind), Some(_)) => Err(CliError::Usage(format!(
            "{kind:?} takes no name, expected `mesh get service NAME` or `mesh get node NAME`"
        ))),
        (None, Some(_)) => Err(CliError::Usage("expected an id".to_owned())),
    }
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(name: &str) -> Result<T, CliError> {
    name.parse().map_err(|why| CliError::Usage(format!("{why}")))
}

async fn objects(context: &Context) -> Result<(), CliError> {
    let list = context.client()?.policy(context.read()).await?.value;
    context.output.show(&list, || render::objects(&list))
}

async fn object(context: &Context, id: &str) -> Result<(), CliError> {
    let found = context.client()?.policy_object(id, context.read()).await?.value;
    context.output.show(&found, || found.text.clone())
}

/// Takes objects or files out of force.
pub(super) async fn delete(context: &Context, args: DeleteArgs) -> Result<(), CliError> {
    let request = DeleteRequest { expected: args.if_version, ids: args.ids };
    let answer = context.client()?.delete_policy(&request).await?;
    show(context, &answer, false)
}
