//! `mesh why`.

use mesh_core::why::{WhyHttp, WhyQuery};

use crate::args::WhyArgs;
use crate::context::Context;
use crate::error::CliError;
use crate::output::{bad, good};
use crate::render;

/// Says whether a call would pass, and why; no is exit code 1.
pub(super) async fn why(context: &Context, args: WhyArgs) -> Result<(), CliError> {
    let http = args.method.zip(args.path).map(|(method, path)| {
        // The query is no part of what rules and routes see.
        let path = path.split(['?', '#']).next().unwrap_or_default().to_owned();
        WhyHttp { method: method.to_uppercase(), path, headers: args.header }
    });
    let query = WhyQuery { from: args.caller, to: args.service, http };
    let answer = context.client()?.why(&query).await?.value;
    context.output.show(&answer, || painted(&render::why(&query, &answer)))?;
    if answer.allowed { Ok(()) } else { Err(CliError::No) }
}

/// `text` with its first word in the colour of the verdict.
fn painted(text: &str) -> String {
    match text.split_once(' ') {
        Some(("ALLOWED", rest)) => format!("{} {rest}", good("ALLOWED")),
        Some((word, rest)) => format!("{} {rest}", bad(word)),
        None => text.to_owned(),
    }
}
