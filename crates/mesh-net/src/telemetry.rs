//! Logs of a daemon: where they go, how they look, and errors in one line.

use std::error::Error;
use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;

use serde::Deserialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

/// The environment variable that overrides the level, such as `debug` or `mesh_net=trace,info`.
pub const LEVEL_VARIABLE: &str = "MESH_LOG";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = TelemetryError;

    fn from_str(text: &str) -> Result<Self, TelemetryError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(TelemetryError::Format(text.to_owned())),
        }
    }
}

/// Why logs cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// No such format.
    #[error("log format is {0:?}, expected \"text\" or \"json\"")]
    Format(String),
    /// No such level.
    #[error("log level is {found:?}, expected such as \"info\" or \"mesh_net=debug,info\"")]
    Level {
        /// The text found.
        found: String,
        /// Why.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Somebody else did.
    #[error("cannot set up logs")]
    Init(#[source] tracing_subscriber::util::TryInitError),
}

/// Sends logs to standard error from now on, at level `info` unless `MESH_LOG` says otherwise.
///
/// # Errors
/// [`TelemetryError`] if `MESH_LOG` is no level, or logs were set up before in this process.
pub fn init(format: LogFormat) -> Result<(), TelemetryError> {
    init_at(format, "info")
}

/// The same at `level`, unless `MESH_LOG` says otherwise.
///
/// # Errors
/// As [`init`], and if `level` is none.
pub fn init_at(format: LogFormat, level: &str) -> Result<(), TelemetryError> {
    let found = std::env::var(LEVEL_VARIABLE).ok().filter(|found| !found.is_empty());
    let found = found.unwrap_or_else(|| level.to_owned());
    let filter = EnvFilter::builder()
        .parse(&found)
        .map_err(|source| TelemetryError::Level { found, source })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let journald = std::env::var_os("JOURNAL_STREAM").is_some();
    match (format, journald) {
        (LogFormat::Json, _) => lines.json().flatten_event(true).finish().try_init(),
        // The journal stamps lines itself.
        (LogFormat::Text, true) => lines.without_time().finish().try_init(),
        (LogFormat::Text, false) => lines.finish().try_init(),
    }
    .map_err(TelemetryError::Init)
}

/// An error and all its sources in one line, joined by `: `. For log lines and the CLI, at the
/// one place where an error is handled.
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::tls::describe(self.0))
    }
}

impl fmt::Debug for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read the bundle")]
    struct Outer(#[source] io::Error);

    #[test]
    fn chains_join_their_sources() {
        let error = Outer(io::Error::from(io::ErrorKind::NotFound));
        assert_eq!(Chain(&error).to_string(), "cannot read the bundle: entity not found");
    }

    #[test]
    fn chains_name_the_rule_a_certificate_broke() {
        let rule = crate::tls::TlsError::UriNames { found: 2 }.into_rustls();
        let error = Outer(io::Error::new(io::ErrorKind::InvalidData, rule));
        let want = "cannot read the bundle: certificate has 2 URI names, expected exactly 1";
        assert_eq!(Chain(&error).to_string(), want);
    }

    #[test]
    fn formats_parse() {
        assert!(matches!("json".parse(), Ok(LogFormat::Json)));
        assert!("xml".parse::<LogFormat>().is_err());
        assert!(init_at(LogFormat::Text, "no=such=level").is_err());
    }
}
