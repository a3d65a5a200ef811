//! The `exec` check: a command in a process group of its own, killed whole at its deadline.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use crate::limits::health::{EXEC_REAP, OUTPUT_BYTES_MAX};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Runs `words` (command and arguments) for at most `limit`; exit code 0 is good.
pub(super) async fn run(words: &[String], limit: Duration) -> Result<String, String> {
    let Some((command, arguments)) = words.split_first() else {
        return Err("no command".to_owned());
    };
    let child = Command::new(command)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|why| format!("cannot run {command}: {why}"))?;
    let mut group = Group::of(child);
    let ended = timeout(limit, group.finish()).await;
    // What the command left running in its group must not outlive the try.
    group.kill();
    match ended {
        Ok(Ok((status, said))) => judge(status, &said),
        Ok(Err(why)) => Err(format!("cannot wait for {command}: {why}")),
        Err(_) => {
            // Reaps the process that was just killed; SIGKILL leaves nothing to wait for long.
            let _ = timeout(EXEC_REAP, group.child.wait()).await;
            Err(format!("{command} did not end within {limit:?}"))
        }
    }
}

fn judge(status: ExitStatus, said: &[u8]) -> Result<String, String> {
    let said = String::from_utf8_lossy(said);
    let said = said.trim();
    if status.success() {
        return Ok(said.to_owned());
    }
    Err(format!("{status}: {said}").trim_end_matches([':', ' ']).to_owned())
}

/// A command and everything it started.
struct Group {
    child: Child,
    id: Option<Pid>,
}

impl Group {
    fn of(child: Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Self { child, id }
    }

    async fn finish(&mut self) -> std::io::Result<(ExitStatus, Vec<u8>)> {
        let mut said = Vec::new();
        if let Some(stdout) = self.child.stdout.take() {
            said = read_start(stdout).await?;
        }
        Ok((self.child.wait().await?, said))
    }

    fn kill(&mut self) {
        if let Some(id) = self.id {
            // Fails if the group is already empty, which is what is wanted.
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The first bytes of `stdout`; the rest is read and dropped, so that the command can go on.
async fn read_start(mut stdout: impl AsyncRead + Unpin) -> std::io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let n = stdout.read(&mut chunk).await?;
        if n == 0 {
            return Ok(kept);
        }
        let room = OUTPUT_BYTES_MAX.saturating_sub(kept.len()).min(n);
        kept.extend_from_slice(chunk.get(..room).unwrap_or_default());
    }
}
