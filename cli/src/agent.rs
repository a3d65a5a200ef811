//! Asks the agent of this host over its socket: one line of JSON each way.

use std::io;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::error::CliError;
use crate::limits::agent::{ANSWER_BYTES_MAX, DEADLINE};

/// What the agent is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum Request {
    /// Declares the instances of a host file.
    ServiceAdd {
        /// Its text.
        file: String,
        /// The one instance it must declare, if given.
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// Takes back what was declared so.
    ServiceRemove {
        /// The instance.
        name: String,
    },
    /// What is declared.
    Services,
}

/// The answer to [`Request::Services`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostServices {
    /// The instances.
    pub(crate) services: Vec<HostService>,
    /// What is wrong with the files that declare them.
    pub(crate) problems: Vec<HostProblem>,
}

/// One instance of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostService {
    pub(crate) instance: String,
    pub(crate) service: String,
    pub(crate) address: String,
    pub(crate) source: String,
    pub(crate) health: Option<String>,
}

/// Something wrong with a file of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostProblem {
    pub(crate) file: String,
    pub(crate) message: String,
}

#[derive(Deserialize)]
struct Answer {
    ok: bool,
    #[serde(default)]
    result: serde_json::Value,
    #[serde(default)]
    error: String,
}

/// Asks the agent at `socket`; it has [`DEADLINE`] to answer.
///
/// # Errors
/// [`CliError::Unavailable`] if no agent answers, [`CliError::Refused`] if it says no.
pub(crate) async fn ask<T: DeserializeOwned>(
    socket: &Path, request: &Request,
) -> Result<T, CliError> {
    let line = match timeout(DEADLINE, exchange(socket, request)).await {
        Ok(Ok(line)) => line,
        Ok(Err(why)) => return Err(unreachable(socket, &why)),
        Err(_) => {
            let socket = socket.display();
            let text = format!("the agent at {socket} gave no answer within {DEADLINE:?}");
            return Err(CliError::Unavailable(text));
        }
    };
    let broken = |why| {
        let socket = socket.display();
        CliError::Unavailable(format!("the answer of {socket} is not understood: {why}"))
    };
    let answer: Answer = serde_json::from_slice(&line).map_err(broken)?;
    if !answer.ok {
        return Err(CliError::Refused(answer.error));
    }
    serde_json::from_value(answer.result).map_err(broken)
}

async fn exchange(socket: &Path, request: &Request) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(request)?;
    bytes.push(b'\n');
    let mut stream = UnixStream::connect(socket).await?;
    match stream.write_all(&bytes).await {
        // An agent that does not want this caller says so and closes, perhaps before this.
        Err(why) if why.kind() != io::ErrorKind::BrokenPipe => return Err(why),
        Ok(()) | Err(_) => {}
    }
    let mut line = Vec::new();
    let mut answer = BufReader::new(stream.take(ANSWER_BYTES_MAX));
    answer.read_until(b'\n', &mut line).await?;
    if line.last() == Some(&b'\n') { Ok(line) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn unreachable(socket: &Path, why: &io::Error) -> CliError {
    let at = socket.display();
    match why.kind() {
        io::ErrorKind::PermissionDenied => CliError::Refused(format!(
            "you may not use {at}: run this as root or as a member of the group mesh"
        )),
        _ => CliError::Unavailable(format!(
            "no agent answers at {at}: {why}\n  hint: check `systemctl status mesh-agent`, or name \
             another socket by --socket or MESH_AGENT_SOCKET"
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use tokio::net::UnixListener;

    use super::*;

    async fn answered(answer: &'static str) -> (Result<HostServices, CliError>, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let agent = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let mut asked = String::new();
            stream.read_line(&mut asked).await.unwrap();
            stream.get_mut().write_all(answer.as_bytes()).await.unwrap();
            asked
        };
        let request = Request::ServiceAdd { file: "x".into(), name: None };
        let (got, asked) = tokio::join!(ask(&path, &request), agent);
        (got, asked)
    }

    #[tokio::test]
    async fn requests_and_answers_are_lines() {
        let (got, asked) =
            answered("{\"ok\":true,\"result\":{\"services\":[],\"problems\":[]}}\n").await;
        assert_eq!(got.unwrap(), HostServices::default());
        assert_eq!(asked, "{\"op\":\"service_add\",\"file\":\"x\"}\n");
    }

    #[tokio::test]
    async fn refusals_and_nonsense_are_errors() {
        let (got, _) = answered("{\"ok\":false,\"error\":\"port is taken\"}\n").await;
        assert_eq!(got.unwrap_err().text().as_deref(), Some("error: port is taken"));
        for answer in ["", "{\"ok\":true", "[]\n", "{\"ok\":true,\"result\":7}\n"] {
            let (got, _) = answered(answer).await;
            assert_eq!(got.unwrap_err().exit() as u8, 3, "{answer:?}");
        }
    }

    #[tokio::test]
    async fn no_agent_says_how_to_start_one() {
        let error = ask::<HostServices>("/nowhere/agent.sock".as_ref(), &Request::Services).await;
        let error = error.unwrap_err();
        assert_eq!(error.exit() as u8, 3);
        assert!(error.to_string().contains("systemctl status mesh-agent"), "{error}");
    }
}
