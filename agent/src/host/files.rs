//! Reads host files. A broken file keeps its last good content; the others still load.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh_core::hostfile::{self, CheckKind, InstanceFile};
use mesh_core::limits::{INSTANCES_PER_NODE_MAX, POLICY_FILE_BYTES_MAX};
use mesh_core::name::InstanceId;
use mesh_net::telemetry::Chain;
use tokio::sync::oneshot;

use super::kept::Kept;
use super::{Declared, HostCommand, HostState, Problem};
use crate::health::Exec;
use crate::limits::host::{FILES_MAX, PROBLEMS_MAX};

/// Reads the host's files, and remembers what was good in each.
#[derive(Debug)]
pub struct Loader {
    /// The administrator's directory.
    services_dir: PathBuf,
    /// What came over the socket.
    socket_dir: PathBuf,
    kept: Kept,
    held: BTreeMap<PathBuf, Held>,
}

#[derive(Clone, Debug)]
struct Held {
    stamp: Option<Stamp>,
    good: Vec<InstanceFile>,
    exec: Exec,
    problems: Vec<Problem>,
}

/// What changes when a file does.
type Stamp = (u64, u64, i64, i64, i64, i64, u32, u32);

/// The answer to a command, held back until its effect is visible.
pub(super) enum Reply {
    Added(oneshot::Sender<Result<Vec<InstanceId>, String>>, Result<Vec<InstanceId>, String>),
    Removed(oneshot::Sender<Result<(), String>>, Result<(), String>),
}

impl Reply {
    pub(super) fn send(self) {
        // Who asked may be gone.
        match self {
            Self::Added(to, answer) => drop(to.send(answer)),
            Self::Removed(to, answer) => drop(to.send(answer)),
        }
    }
}

impl Loader {
    /// A loader of `services_dir`, and of `data_dir/services` for what comes over the socket.
    pub fn new(services_dir: &Path, data_dir: &Path) -> Self {
        let socket_dir = data_dir.join("services");
        let (services_dir, kept) = (services_dir.to_owned(), Kept::new(data_dir));
        Self { services_dir, socket_dir, kept, held: BTreeMap::new() }
    }

    /// The directories to watch.
    pub fn dirs(&self) -> Vec<PathBuf> {
        vec![self.services_dir.clone(), self.socket_dir.clone()]
    }

    /// What the files declare now. Blocks on the disk.
    pub fn scan(&mut self) -> HostState {
        let mut problems = Vec::new();
        let mut paths = Vec::new();
        for dir in self.dirs() {
            match list(&dir) {
                Ok(found) => {
                    if dir == self.services_dir {
                        self.kept.retain(&found);
                    }
                    paths.extend(found);
                }
                // Nothing came over the socket yet.
                Err(why) if why.kind() == io::ErrorKind::NotFound && dir == self.socket_dir => {}
                Err(why) => {
                    problems.push(problem(&dir, format!("cannot list: {why}")));
                    if why.kind() != io::ErrorKind::NotFound {
                        paths.extend(self.held.keys().filter(|p| p.starts_with(&dir)).cloned());
                    }
                }
            }
        }
        self.held.retain(|path, _| paths.contains(path));
        for path in paths.iter().take(FILES_MAX) {
            self.load(path);
        }
        if paths.len() > FILES_MAX {
            let message = format!("{} files, expected at most {FILES_MAX}", paths.len());
            problems.push(problem(&self.services_dir, message));
        }
        self.fold(&paths, problems)
    }

    fn load(&mut self, path: &Path) {
        let old = self.held.get(path);
        let read = read(path, old.and_then(|held| held.stamp));
        let ours = path.starts_with(&self.services_dir);
        let kept = || match old {
            Some(held) => held.good.clone(),
            // this agent has just started
            None if ours => self.kept.get(path).unwrap_or_default(),
            None => Vec::new(),
        };
        let name = path.display().to_string();
        let held = match read {
            Ok(None) => return,
            Ok(Some((stamp, exec, bytes))) => match hostfile::parse_bytes(&name, &bytes) {
                Ok(good) => {
                    if ours {
                        self.kept.put(path, &bytes);
                    }
                    Held { stamp: Some(stamp), good, exec, problems: Vec::new() }
                }
                Err(found) => {
                    let problems = found.iter().map(|d| problem(path, d.to_string())).collect();
                    // What stays in force keeps the rights it was read with.
                    let exec = old.map_or(exec, |held| held.exec);
                    Held { stamp: Some(stamp), good: kept(), exec, problems }
                }
            },
            Err(why) => {
                let problems = vec![problem(path, format!("cannot read: {why}"))];
                let exec = old.map_or(Exec::Refused, |held| held.exec);
                Held { stamp: None, good: kept(), exec, problems }
            }
        };
        self.held.insert(path.to_owned(), held);
    }

    /// All files together; what two of them claim is the first one's.
    fn fold(&self, paths: &[PathBuf], problems: Vec<Problem>) -> HostState {
        let mut state = HostState { problems, ..HostState::default() };
        let mut listens: BTreeMap<SocketAddr, InstanceId> = BTreeMap::new();
        for (path, held) in paths.iter().filter_map(|path| Some((path, self.held.get(path)?))) {
            state.problems.extend(held.problems.iter().cloned());
            for file in &held.good {
                if let Some(wrong) = refusal(&state, path, file) {
                    state.problems.push(wrong);
                    continue;
                }
                let mut file = file.clone();
                state.problems.extend(take_listens(&mut listens, path, &mut file));
                if held.exec == Exec::Refused && runs_commands(&file) {
                    let message = format!("instance.{}: {}", file.id, crate::health::EXEC_REFUSED);
                    state.problems.push(problem(path, message));
                }
                let declared = Declared { source: path.clone(), exec: held.exec, file };
                state.instances.insert(declared.file.id.clone(), Arc::new(declared));
            }
        }
        state.problems.truncate(PROBLEMS_MAX);
        state
    }

    /// Writes or removes files in the socket's directory, as `command` asks. Blocks on the disk.
    pub(super) fn carry_out(&mut self, command: HostCommand) -> Reply {
        match command {
            HostCommand::Add { text, reply } => Reply::Added(reply, self.add(&text)),
            HostCommand::Remove { instance, reply } => {
                Reply::Removed(reply, self.remove(&instance))
            }
        }
    }

    fn add(&mut self, text: &str) -> Result<Vec<InstanceId>, String> {
        let files = hostfile::parse("request", text).map_err(|found| {
            found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        })?;
        if files.is_empty() {
            return Err("request declares no instance, expected [instance.NAME]".to_owned());
        }
        let state = self.scan();
        for file in &files {
            self.may_add(&state, file)?;
        }
        let new = files.iter().filter(|file| !state.instances.contains_key(&file.id)).count();
        if state.instances.len() + new > INSTANCES_PER_NODE_MAX {
            return Err(format!(
                "the host has {INSTANCES_PER_NODE_MAX} instances, and may not more"
            ));
        }
        fs::create_dir_all(&self.socket_dir).map_err(|why| self.cannot_write(&why))?;
        for file in &files {
            let text = hostfile::print(std::slice::from_ref(file));
            mesh_net::files::write_atomic(&self.socket_file(&file.id), text.as_bytes())
                .map_err(|why| format!("cannot keep instance.{}: {}", file.id, Chain(&why)))?;
        }
        Ok(files.into_iter().map(|file| file.id).collect())
    }

    fn may_add(&self, state: &HostState, file: &InstanceFile) -> Result<(), String> {
        if runs_commands(file) {
            return Err(format!("instance.{}: {}", file.id, crate::health::EXEC_REFUSED));
        }
        match state.instances.get(&file.id) {
            Some(held) if held.source != self.socket_file(&file.id) => {
                let source = held.source.display();
                Err(format!("instance.{} is declared in {source}, expected a new name", file.id))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn remove(&mut self, instance: &InstanceId) -> Result<(), String> {
        match fs::remove_file(self.socket_file(instance)) {
            Ok(()) => Ok(()),
            Err(why) if why.kind() == io::ErrorKind::NotFound => {
                let state = self.scan();
                Err(match state.instances.get(instance) {
                    Some(held) => format!(
                        "instance.{instance} is declared in {}: remove it there",
                        held.source.display()
                    ),
                    None => format!("instance.{instance} is not declared on this host"),
                })
            }
            Err(why) => Err(self.cannot_write(&why)),
        }
    }

    fn socket_file(&self, instance: &InstanceId) -> PathBuf {
        self.socket_dir.join(format!("socket-{instance}.toml"))
    }

    fn cannot_write(&self, why: &io::Error) -> String {
        format!("cannot write {}: {why}", self.socket_dir.display())
    }
}

/// Why `file` cannot join `state`.
fn refusal(state: &HostState, path: &Path, file: &InstanceFile) -> Option<Problem> {
    if let Some(first) = state.instances.get(&file.id) {
        let (id, line, other) = (&file.id, file.origin.line, &first.file.origin);
        let message =
            format!("line {line}: instance.{id} is declared twice, first at {other}, which stands");
        return Some(problem(path, message));
    }
    (state.instances.len() >= INSTANCES_PER_NODE_MAX).then(|| {
        let id = &file.id;
        problem(path, format!("instance.{id} is one too many, expected {INSTANCES_PER_NODE_MAX}"))
    })
}

/// Gives each listen address to the first who asks; the others lose that port, not more.
fn take_listens(
    listens: &mut BTreeMap<SocketAddr, InstanceId>, path: &Path, file: &mut InstanceFile,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for upstream in &mut file.upstreams {
        let Some(listen) = upstream.listen else { continue };
        match listens.get(&listen) {
            Some(first) => {
                let message = format!(
                    "instance.{}: listen address {listen} is taken by instance.{first}",
                    file.id
                );
                problems.push(problem(path, message));
                upstream.listen = None;
            }
            None => drop(listens.insert(listen, file.id.clone())),
        }
    }
    problems
}

fn runs_commands(file: &InstanceFile) -> bool {
    file.checks.iter().any(|check| matches!(check.kind, CheckKind::Exec(_)))
}

/// The host files of `dir`, in name order; hidden ones are left out, editors make such.
fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".toml") && !name.starts_with('.') {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// The bytes of a file and what it is trusted to do; `None` if it is as at `old`.
fn read(path: &Path, old: Option<Stamp>) -> io::Result<Option<(Stamp, Exec, Vec<u8>)>> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let stamp = (
        meta.ino(),
        meta.size(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec(),
        meta.uid(),
        meta.mode(),
    );
    if old == Some(stamp) {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    // One more than allowed, so that the parser sees that it is too long.
    file.take(POLICY_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    let exec = if is_roots(&meta) && path.parent().is_some_and(is_roots_dir) {
        Exec::Allowed
    } else {
        Exec::Refused
    };
    Ok(Some((stamp, exec, bytes)))
}

fn is_roots(meta: &fs::Metadata) -> bool {
    meta.uid() == 0 && meta.mode() & 0o022 == 0
}

fn is_roots_dir(dir: &Path) -> bool {
    fs::metadata(dir).is_ok_and(|meta| is_roots(&meta))
}

fn problem(path: &Path, message: String) -> Problem {
    Problem { file: path.display().to_string(), message }
}
