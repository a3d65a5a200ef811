//! [`CliError`]: what went wrong, how to mend it, and the exit code.

use std::path::{Path, PathBuf};

use mesh_core::policy::text::Diagnostic;
use mesh_net::client::{ClientError, ErrorKind};
use mesh_net::telemetry::Chain;

/// The exit codes: 0 is done or yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 1: the answer is no, or the request was refused.
    No = 1,
    /// 2: wrong usage.
    Usage = 2,
    /// 3: nobody answers.
    Unavailable = 3,
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// The command line or the settings cannot work.
    #[error("{0}")]
    Usage(String),
    /// Refused, or not possible.
    #[error("{0}")]
    Refused(String),
    /// Nobody answers.
    #[error("{0}")]
    Unavailable(String),
    /// Files of the user are wrong, with places.
    #[error("{}", shown(.0))]
    Files(Vec<Diagnostic>),
    /// A file cannot be used.
    #[error("cannot {action} {}: {why}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The answer cannot be printed.
    #[error("cannot write to standard output: {0}")]
    Output(#[source] std::io::Error),
    /// Said already; only the exit code is left.
    #[error("no")]
    No,
}

impl CliError {
    /// That `action` failed on `path`.
    pub fn file(action: &'static str, path: &Path, why: impl std::fmt::Display) -> Self {
        Self::File { action, path: path.to_owned(), why: why.to_string() }
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Unavailable(_) => Exit::Unavailable,
            Self::Refused(_) | Self::Files(_) | Self::File { .. } => Exit::No,
            Self::Output(_) | Self::No => Exit::No,
        }
    }

    /// The text for standard error; `None` if all was said.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::No => None,
            // A reader that went away, such as `head`, is no news.
            Self::Output(why) if why.kind() == std::io::ErrorKind::BrokenPipe => None,
            Self::Files(found) => Some(format!("{}\n{}", self, summary(found))),
            Self::Usage(_)
            | Self::Refused(_)
            | Self::Unavailable(_)
            | Self::File { .. }
            | Self::Output(_) => Some(format!("error: {self}")),
        }
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        let text = Chain(&error).to_string();
        match (&error, error.kind()) {
            (ClientError::Unreachable { .. }, _) => {
                let hint =
                    "check that meshd runs there, or name other servers by --addr or MESH_ADDR";
                Self::Unavailable(format!("{text}\n  hint: {hint}"))
            }
            (ClientError::Address { .. } | ClientError::Addresses { .. }, _) => {
                let hint = "--addr or MESH_ADDR takes HOST:PORT, several separated by commas";
                Self::Usage(format!("{text}\n  hint: {hint}"))
            }
            (ClientError::Api { status: 401, .. }, _) => {
                Self::Refused(format!("{text}\n  hint: {TOKEN_HINT}"))
            }
            (ClientError::Api { status: 403, .. }, _) => {
                let hint = "an admin can make a token that may: mesh token create --role ROLE";
                Self::Refused(format!("{text}\n  hint: {hint}"))
            }
            (_, ErrorKind::Unavailable) => Self::Unavailable(text),
            (_, ErrorKind::Unknown) => {
                let hint = "look whether it is in force before trying again";
                Self::Unavailable(format!("{text}\n  hint: {hint}"))
            }
            (
                _,
                ErrorKind::Invalid
                | ErrorKind::Forbidden
                | ErrorKind::NotFound
                | ErrorKind::Conflict,
            ) => Self::Refused(text),
        }
    }
}

/// Where a token comes from, for those who have none.
pub(crate) const TOKEN_HINT: &str = "\
give a token by --token-file, MESH_TOKEN_FILE or MESH_TOKEN; the first one is in the file that \
`mesh init` wrote on the first server (/etc/mesh/admin.token), more come from `mesh token create`";

fn shown(found: &[Diagnostic]) -> String {
    let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
    texts.join("\n")
}

fn summary(found: &[Diagnostic]) -> String {
    let mut files: Vec<&str> = found.iter().map(|one| one.file.as_str()).collect();
    files.sort_unstable();
    files.dedup();
    let errors = count(found.len(), "error");
    format!("error: {errors} in {}; nothing was changed", count(files.len(), "file"))
}

/// `1 file`, `2 files`.
pub(crate) fn count(number: usize, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

#[cfg(test)]
mod tests {
    use mesh_core::api::ApiError;

    use super::*;

    fn api(status: u16) -> CliError {
        let message = "the token is unknown".to_owned();
        let error = ApiError { code: "denied".to_owned(), message, field: None, request_id: None };
        ClientError::Api { status, error }.into()
    }

    #[test]
    fn no_server_says_which_were_tried_and_how_to_name_others() {
        let tried = vec!["ctl-1:7300: connection refused".to_owned()];
        let error = CliError::from(ClientError::Unreachable { tried });
        assert_eq!(error.exit(), Exit::Unavailable);
        let want = "\
error: cannot reach any server: ctl-1:7300: connection refused
  hint: check that meshd runs there, or name other servers by --addr or MESH_ADDR";
        assert_eq!(error.text().as_deref(), Some(want));
    }

    #[test]
    fn exit_codes_follow_whose_turn_it_is() {
        let cases = [(400, 1), (401, 1), (403, 1), (404, 1), (409, 1), (500, 3), (503, 3)];
        for (status, want) in cases {
            assert_eq!(api(status).exit() as u8, want, "{status}");
        }
        let wrong = CliError::from(ClientError::Address { found: "x".to_owned() });
        assert_eq!(wrong.exit(), Exit::Usage);
    }

    #[test]
    fn a_refused_token_says_where_tokens_come_from() {
        let text = api(401).text().unwrap_or_default();
        assert!(text.starts_with("error: the token is unknown (denied)\n  hint: give a token by"));
        assert!(text.contains("/etc/mesh/admin.token"), "{text}");
    }

    #[test]
    fn what_was_said_is_not_said_again() {
        assert_eq!(CliError::No.text(), None);
        let gone = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert_eq!(CliError::Output(gone).text(), None);
    }
}
