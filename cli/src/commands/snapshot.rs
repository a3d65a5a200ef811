//! `mesh snapshot`.

use std::io::{BufRead, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use mesh_core::limits::RESTORE_BYTES_MAX;
use mesh_net::files;
use mesh_net::telemetry::Chain;
use tokio::fs::OpenOptions;
use tokio::io::AsyncWrite;

use super::written;
use crate::args::SnapshotCommand;
use crate::context::{Context, is_stdin, read_stdin};
use crate::error::CliError;
use crate::output::note;

/// `mesh snapshot`.
pub(super) async fn run(context: &Context, command: SnapshotCommand) -> Result<(), CliError> {
    match command {
        SnapshotCommand::Save { file } => save(context, &file).await,
        SnapshotCommand::Restore { file, yes } => restore(context, &file, yes).await,
        SnapshotCommand::Inspect { file } => inspect(context, &file),
    }
}

/// Saves to a file beside, then renames: a backup is there whole or not at all.
async fn save(context: &Context, path: &Path) -> Result<(), CliError> {
    let client = context.client()?;
    if is_stdin(path) {
        let wrong = |why| CliError::file("write", path, why);
        let stdout = std::io::stdout().as_fd().try_clone_to_owned().map_err(wrong)?;
        let mut stdout = tokio::fs::File::from_std(stdout.into());
        client.save_snapshot(&mut stdout).await?;
        return Ok(());
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let beside = PathBuf::from(beside);
    let saved = save_to(&client, &beside).await;
    let renamed = saved.and_then(|bytes| {
        let wrong = |why| CliError::file("write", path, why);
        std::fs::rename(&beside, path).map_err(wrong).map(|()| bytes)
    });
    let bytes = renamed.inspect_err(|_| {
        // What counts is the first error.
        let _ = std::fs::remove_file(&beside);
    })?;
    let value = serde_json::json!({ "file": path, "bytes": bytes });
    context.output.show(&value, || format!("{} bytes saved to {}", bytes, path.display()))
}

async fn save_to(client: &mesh_net::client::Client, path: &Path) -> Result<u64, CliError> {
    let wrong = |why| CliError::file("write", path, why);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let file = options.open(path).await.map_err(wrong)?;
    let mut sink = Counted { file, bytes: 0, said: 0 };
    let bytes = client.save_snapshot(&mut sink).await?;
    sink.file.sync_all().await.map_err(wrong)?;
    Ok(bytes)
}

async fn restore(context: &Context, path: &Path, yes: bool) -> Result<(), CliError> {
    let bytes = read(path)?;
    let client = context.client()?;
    if !yes {
        let status = client.status().await?.value;
        confirm(&format!(
            "This replaces the whole state of {} ({} nodes, policy v{}) by the backup; changes \
             since it was made are lost.",
            status.trust_domain, status.nodes, status.policy_version
        ))?;
    }
    note(&format!("sending {} bytes", bytes.len()));
    let answer = client.restore_snapshot(bytes.into()).await?;
    written(context, answer, "restored in a new epoch; agents resync by themselves")
}

fn confirm(text: &str) -> Result<(), CliError> {
    let mut input = std::io::stdin().lock();
    if !input.is_terminal() {
        let hint = "give --yes to go on without a question";
        return Err(CliError::Usage(format!("{text}\n  hint: {hint}")));
    }
    let mut err = std::io::stderr().lock();
    let asked = write!(err, "{text}\nType yes to go on: ").and_then(|()| err.flush());
    let mut answer = String::new();
    let read = asked.and_then(|()| input.read_line(&mut answer));
    match read {
        Ok(_) if answer.trim() == "yes" => Ok(()),
        Ok(_) | Err(_) => Err(CliError::Refused("not restored".to_owned())),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let max = RESTORE_BYTES_MAX as u64;
    if is_stdin(path) {
        return read_stdin(max);
    }
    files::read_bounded(path, max).map_err(|why| CliError::Refused(Chain(&why).to_string()))
}

/// Says how far a long save has come.
struct Counted {
    file: tokio::fs::File,
    bytes: u64,
    said: u64,
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>, buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        let polled = std::pin::Pin::new(&mut self.file).poll_write(cx, buf);
        if let std::task::Poll::Ready(Ok(n)) = &polled {
            self.bytes += *n as u64;
            if self.bytes - self.said >= SAY_EVERY {
                self.said = self.bytes;
                note(&format!("{} MiB", self.bytes >> 20));
            }
        }
        polled
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.file).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.file).poll_shutdown(cx)
    }
}

const SAY_EVERY: u64 = 16 << 20;

#[cfg(feature = "dev")]
fn inspect(context: &Context, path: &Path) -> Result<(), CliError> {
    let bytes = read(path)?;
    let found = meshd::raft::inspect(&bytes)
        .map_err(|why| CliError::Refused(format!("{}: {}", path.display(), Chain(&why))))?;
    let header = &found.header;
    let value = serde_json::json!({
        "trust_domain": header.trust_domain,
        "made_at": header.made_at,
        "release": header.release,
        "revision": header.revision,
        "state_hash": hex::encode(header.state_hash),
        "bytes": found.bytes,
        "servers": found.servers,
        "nodes": found.nodes,
        "services": found.services,
        "policy_version": found.policy_version,
    });
    context.output.show(&value, || {
        let mesh = header.trust_domain.as_ref().map_or("none yet", |name| name.as_str());
        let age = crate::times::relative(header.made_at, mesh_net::clock::now());
        format!(
            "backup    whole, {} bytes\nmesh      {mesh}\nmade      {} ({age}) by release {}\n\
             revision  {}\npolicy    v{}\nholds     {} servers, {} nodes, {} services\n\
             hash      {}",
            found.bytes,
            header.made_at,
            crate::output::plain(&header.release),
            header.revision,
            found.policy_version,
            found.servers,
            found.nodes,
            found.services,
            hex::encode(header.state_hash),
        )
    })
}

#[cfg(not(feature = "dev"))]
fn inspect(_: &Context, _: &Path) -> Result<(), CliError> {
    Err(CliError::Refused("this mesh was built without the servers' code (feature dev)".into()))
}
