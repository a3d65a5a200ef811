//! What a panic leaves behind: release builds abort, so that nothing is dropped.

use std::fs;
use std::process::Command;

use rustix::process::{Pid, Signal, getpid, kill_process};

/// On the first panic of any thread says it, calls `tell` with it, ends the processes that this
/// one started and removes its network namespaces. Where panics unwind, only `tell` is called.
pub(crate) fn on_panic(tell: impl Fn(&str) + Send + Sync + 'static) {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        tell(&panic.to_string());
        if cfg!(panic = "abort") {
            end_children();
            remove_namespaces();
        }
    }));
}

fn end_children() {
    let own = getpid();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    for pid in pids.filter_map(Pid::from_raw).filter(|pid| parent(*pid) == Some(own)) {
        // one that ended meanwhile is what is wanted
        let _gone = kill_process(pid, Signal::KILL);
    }
}

fn parent(pid: Pid) -> Option<Pid> {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    Pid::from_raw(line.trim().parse().ok()?)
}

/// They are named after the process that made them.
fn remove_namespaces() {
    let prefix = format!("mt{}-", getpid().as_raw_nonzero());
    let all = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    for name in all.filter_map(|entry| entry.file_name().into_string().ok()) {
        if name.starts_with(&prefix) {
            let _result = Command::new("ip").args(["netns", "del", &name]).status();
        }
    }
}
