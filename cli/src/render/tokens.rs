//! Tokens, without secrets.

use mesh_core::api::{TokenInfo, TokenPurpose};
use mesh_core::catalog::ServiceGlob;
use mesh_core::time::UnixMillis;
use mesh_core::trust::Role;

use crate::output::table;
use crate::times::relative;

/// All tokens.
pub(crate) fn tokens(all: &[TokenInfo], now: UnixMillis) -> String {
    let rows = all.iter().map(|one| {
        let used = one.used_at.map_or_else(|| "-".to_owned(), |at| relative(at, now));
        vec![one.id.to_string(), purpose(&one.purpose), expires(one, now), used, one.note.clone()]
    });
    table(&["ID", "FOR", "EXPIRES", "USED", "NOTE"], rows)
}

fn expires(token: &TokenInfo, now: UnixMillis) -> String {
    match token.expires_at {
        None => "never".to_owned(),
        Some(at) if at <= now => format!("expired {}", relative(at, now)),
        Some(at) => relative(at, now),
    }
}

/// What a token is for, in words.
pub(crate) fn purpose(purpose: &TokenPurpose) -> String {
    let or_any = |name: Option<String>| name.unwrap_or_else(|| "(any name)".to_owned());
    match purpose {
        TokenPurpose::Node { name, policy } => {
            let name = or_any(name.as_ref().map(ToString::to_string));
            format!("node {name}, may host {}", globs(&policy.services))
        }
        TokenPurpose::Server { name } => {
            format!("server {}", or_any(name.as_ref().map(ToString::to_string)))
        }
        TokenPurpose::Api { role: Role::Admin } => "API as admin".to_owned(),
        TokenPurpose::Api { role: Role::Operator { services } } => {
            format!("API as operator of {}", globs(services))
        }
        TokenPurpose::Api { role: Role::Viewer } => "API as viewer".to_owned(),
        TokenPurpose::Api { role: Role::Metrics } => "API for metrics".to_owned(),
    }
}

fn globs(all: &[ServiceGlob]) -> String {
    let texts: Vec<String> = all.iter().map(ToString::to_string).collect();
    if texts.is_empty() { "nothing".to_owned() } else { texts.join(",") }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{self, NOW};
    use super::*;

    #[test]
    fn tokens_show_what_for_and_how_long() {
        let want = "\
ID   FOR                             EXPIRES         USED    NOTE
t-1  API as admin                    never           -       first
t-2  node web-7, may host web        in 59m          -
t-3  server (any name)               expired 2h ago  3h ago
t-4  API as operator of web,batch-*  in 29d          -       ops";
        assert_eq!(tokens(&samples::tokens(), NOW), want);
    }
}
