//! [`Context`]: where the servers are, whom to trust and what to show, from flags, environment
//! and the settings file, in this order.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh_core::limits::POLICY_APPLY_BYTES_MAX;
use mesh_net::client::{Client, ClientBuilder, Consistency, ReadOptions, Trust};
use mesh_net::files;
use mesh_net::token::{JoinToken, Secret, TOKEN_BYTES_MAX, TokenKind};
use serde::Deserialize;

use crate::args::GlobalArgs;
use crate::error::{CliError, TOKEN_HINT};
use crate::output::Output;

/// Where settings are read from unless `--settings` says otherwise.
pub const SETTINGS_FILE: &str = "/etc/mesh/cli.toml";
/// Where servers are looked for if nothing says where they are.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:7300";

/// What holds for a whole command.
#[derive(Debug)]
pub struct Context {
    args: GlobalArgs,
    settings: Settings,
    /// Where answers go.
    pub output: Output,
}

/// The settings file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Servers, as `host:port`.
    #[serde(default)]
    addr: Vec<String>,
    /// CA certificates in PEM.
    cacert: Option<PathBuf>,
    /// The API token.
    token_file: Option<PathBuf>,
}

/// What servers are shown, and how they are recognised.
#[derive(Clone, Debug)]
pub struct Credentials {
    token: Secret,
    trust: Trust,
    timeout: Duration,
}

impl Credentials {
    /// A client of these servers. Connects to nobody yet.
    ///
    /// # Errors
    /// [`CliError`] if an address is none, or the trust cannot be used.
    pub fn client(&self, addresses: Vec<String>) -> Result<Client, CliError> {
        let builder = ClientBuilder::new(addresses).trust(self.trust.clone());
        Ok(builder.token(self.token.clone()).call_timeout(self.timeout).build()?)
    }
}

impl Context {
    /// Reads the settings file, if there is one.
    ///
    /// # Errors
    /// [`CliError::Usage`] if it does not parse, or was asked for and cannot be read.
    pub fn new(args: GlobalArgs) -> Result<Self, CliError> {
        let (path, asked) = match &args.settings {
            Some(path) => (path.clone(), true),
            None => (PathBuf::from(SETTINGS_FILE), false),
        };
        let settings = match std::fs::read_to_string(&path) {
            Ok(text) => parse_settings(&path, &text)?,
            // The default file may be missing, or be for others: then only flags count.
            Err(_) if !asked => Settings::default(),
            Err(why) => {
                return Err(CliError::Usage(format!("cannot read {}: {why}", path.display())));
            }
        };
        let output = Output::new(args.output);
        Ok(Self { args, settings, output })
    }

    /// A client with this context's servers, trust and token. Connects to nobody yet.
    ///
    /// # Errors
    /// [`CliError`] if there is no token, or something given cannot be used.
    pub fn client(&self) -> Result<Client, CliError> {
        self.credentials()?.client(self.addresses())
    }

    /// This context's trust and token, for clients of several servers.
    ///
    /// # Errors
    /// As [`Self::client`].
    pub fn credentials(&self) -> Result<Credentials, CliError> {
        let (token, pin) = self.api_token()?;
        let trust = match self.args.cacert.as_ref().or(self.settings.cacert.as_ref()) {
            Some(path) => Trust::Pem(read_text(path)?),
            None => Trust::Pin(pin),
        };
        Ok(Credentials { token, trust, timeout: self.args.timeout })
    }

    /// How reads are done.
    pub fn read(&self) -> ReadOptions {
        let consistency = match (self.args.consistent, self.args.stale) {
            (true, _) => Consistency::Consistent,
            (false, true) => Consistency::Stale,
            (false, false) => Consistency::Default,
        };
        ReadOptions { consistency, wait: None }
    }

    /// The servers to ask, never none.
    pub fn addresses(&self) -> Vec<String> {
        let given = |from: &[String]| -> Vec<String> {
            from.iter()
                .map(|one| one.trim())
                .filter(|one| !one.is_empty())
                .map(Into::into)
                .collect()
        };
        let all = [given(&self.args.addr), given(&self.settings.addr)];
        let first = all.into_iter().find(|all| !all.is_empty());
        first.unwrap_or_else(|| vec![DEFAULT_ADDRESS.to_owned()])
    }

    /// The join token given for this command, which must be of `kind`.
    ///
    /// # Errors
    /// [`CliError::Usage`] if there is none, or it is for something else.
    pub fn join_token(&self, kind: TokenKind) -> Result<JoinToken, CliError> {
        let how = create_command(kind);
        let hint = format!(
            "give one by --token-file FILE (- is standard input); an admin makes it by `{how}`"
        );
        let secret = self.given_token(&hint)?;
        let secret =
            secret.ok_or_else(|| CliError::Usage(format!("no join token\n  hint: {hint}")))?;
        let token = parse_token(&secret)?;
        if token.kind == kind { Ok(token) } else { Err(wrong_kind(token.kind, kind)) }
    }

    fn api_token(&self) -> Result<(Secret, [u8; 32]), CliError> {
        let read = |path: &Path| read_token(path, TOKEN_HINT);
        let secret = match self.given_token(TOKEN_HINT)? {
            Some(secret) => Some(secret),
            None => self.settings.token_file.as_deref().map(read).transpose()?,
        };
        let secret =
            secret.ok_or_else(|| CliError::Usage(format!("no API token\n  hint: {TOKEN_HINT}")))?;
        let token = parse_token(&secret)?;
        match token.kind {
            TokenKind::Api => Ok((secret, token.ca)),
            TokenKind::JoinNode | TokenKind::JoinServer => {
                Err(wrong_kind(token.kind, TokenKind::Api))
            }
        }
    }

    fn given_token(&self, hint: &str) -> Result<Option<Secret>, CliError> {
        match (&self.args.token, &self.args.token_file) {
            (Some(text), _) if !text.trim().is_empty() => Ok(Some(Secret::new(text.clone()))),
            (_, Some(path)) if !path.as_os_str().is_empty() => read_token(path, hint).map(Some),
            _ => Ok(None),
        }
    }
}

fn parse_settings(path: &Path, text: &str) -> Result<Settings, CliError> {
    toml::from_str(text).map_err(|why| CliError::Usage(format!("{}: {why}", path.display())))
}

fn parse_token(secret: &Secret) -> Result<JoinToken, CliError> {
    let text = secret.reveal();
    if text.is_empty() {
        return Err(CliError::Usage("the token given is empty".to_owned()));
    }
    text.parse().map_err(|why| CliError::Usage(format!("the token given is none: {why}")))
}

fn wrong_kind(found: TokenKind, expected: TokenKind) -> CliError {
    let name = |kind| match kind {
        TokenKind::JoinNode => "a join token for a node",
        TokenKind::JoinServer => "a join token for a server",
        TokenKind::Api => "an API token",
    };
    let (found, wanted, how) = (name(found), name(expected), create_command(expected));
    CliError::Usage(format!(
        "the token given is {found}, expected {wanted}\n  hint: an admin makes one by `{how}`"
    ))
}

fn create_command(kind: TokenKind) -> &'static str {
    match kind {
        TokenKind::JoinNode => "mesh token create --node NAME --service SERVICE",
        TokenKind::JoinServer => "mesh token create --server NAME",
        TokenKind::Api => "mesh token create --role ROLE",
    }
}

/// Reads a token; `hint` says where such a token comes from.
fn read_token(path: &Path, hint: &str) -> Result<Secret, CliError> {
    if is_stdin(path) {
        let bytes = read_stdin(TOKEN_BYTES_MAX)?;
        let text = String::from_utf8(bytes);
        return text.map(Secret::new).map_err(|_| CliError::Usage("the token is no text".into()));
    }
    Secret::from_file(path).map_err(|why| {
        let why = mesh_net::telemetry::Chain(&why).to_string();
        CliError::Usage(format!("no token: {why}\n  hint: {hint}"))
    })
}

/// Whether `path` is `-`.
pub(crate) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// All of standard input, at most `max` bytes.
pub(crate) fn read_stdin(max: u64) -> Result<Vec<u8>, CliError> {
    let path = Path::new("standard input");
    let mut bytes = Vec::new();
    let mut input = std::io::stdin().lock().take(max.saturating_add(1));
    input.read_to_end(&mut bytes).map_err(|why| CliError::file("read", path, why))?;
    if bytes.len() as u64 > max {
        return Err(CliError::file("read", path, format!("more than {max} bytes")));
    }
    Ok(bytes)
}

/// A text file, or standard input for `-`.
pub(crate) fn read_text(path: &Path) -> Result<String, CliError> {
    let max = POLICY_APPLY_BYTES_MAX as u64;
    let bytes = if is_stdin(path) {
        read_stdin(max)?
    } else {
        files::read_bounded(path, max)
            .map_err(|why| CliError::Refused(mesh_net::telemetry::Chain(&why).to_string()))?
    };
    String::from_utf8(bytes).map_err(|_| CliError::file("read", path, "it is not UTF-8"))
}

/// The host's name, as the default of a name.
pub(crate) fn host_name<T: std::str::FromStr<Err: std::fmt::Display>>(
    flag: &str,
) -> Result<T, CliError> {
    let whole = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let short = whole.trim().split('.').next().unwrap_or_default().to_lowercase();
    short.parse().map_err(|why| {
        CliError::Usage(format!("the host's name is no name: {why}\n  hint: give one by {flag}"))
    })
}

#[cfg(test)]
mod tests;
