//! Breaking things, and mending them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::super::windows::Windows;
use super::super::world::{FRONT, World};
use super::plan::{Fault, SMALL_DISK, Server};
use crate::process::Process;
use crate::tmpfs::Tmpfs;
use crate::within;

/// `EX_IOERR` of sysexits(3): what a server with a full disk ends with.
const EXIT_DISK: i32 = 74;
/// What it says before.
const FULL: &str = "No space left";

/// A fault under way.
#[derive(Debug)]
pub(super) struct Broken {
    fault: Fault,
    servers: BTreeSet<String>,
    from: Duration,
    /// How often the server with the small disk had said that it is full.
    said_full: usize,
}

/// Breaks it.
pub(super) fn begin(world: &mut World, fault: Fault) -> Broken {
    let (from, said_full) = (world.elapsed(), world.logged(SMALL_DISK, FULL));
    let wanted = fault.servers().iter();
    let servers: BTreeSet<String> = wanted.map(|one| name_of(world, *one)).collect();
    match &fault {
        Fault::KillServers(_) => {
            servers.iter().for_each(|name| world.mesh.server_mut(name).kill());
        }
        Fault::PauseServer(_) => {
            servers.iter().for_each(|name| signal(&world.mesh.server(name).process, Signal::STOP));
        }
        Fault::CutServer(_) => servers.iter().for_each(|name| world.mesh.net.link(name, false)),
        Fault::FillDisk => world.disk.iter().for_each(Tmpfs::fill),
        Fault::BadLink { host, delay_ms, loss_permille } => {
            if !world.mesh.net.worsen(host, *delay_ms, *loss_permille) {
                world.say("this kernel has no netem: the cable loses, but is not slow");
            }
        }
        Fault::KillAgent(host) => world.mesh.agent_mut(host).kill(),
        Fault::PauseAgent(host) => signal(&world.mesh.agent(host).process, Signal::STOP),
        Fault::CutAgent(host) => world.mesh.net.link(host, false),
        Fault::KillBackend { host, instance } => {
            let at = world.backend(host, instance);
            world.backends[at].process = None;
        }
    }
    Broken { fault, servers, from, said_full }
}

impl Broken {
    /// Mends it; what is wrong besides.
    pub(super) fn mend(&self, world: &mut World) -> Vec<String> {
        let servers = self.servers.iter();
        match &self.fault {
            Fault::KillServers(_) => servers.for_each(|name| world.mesh.server_mut(name).start()),
            Fault::PauseServer(_) => {
                servers.for_each(|name| signal(&world.mesh.server(name).process, Signal::CONT));
            }
            Fault::CutServer(_) => servers.for_each(|name| world.mesh.net.link(name, true)),
            Fault::FillDisk => return self.room_again(world),
            Fault::BadLink { host, .. } => world.mesh.net.repair(host),
            Fault::KillAgent(host) => {
                world.mesh.agent_mut(host).start();
                if !world.agent_is_ready(host, READY) {
                    return vec![format!("the agent on {host} is not ready after {READY:?}")];
                }
            }
            Fault::PauseAgent(host) => signal(&world.mesh.agent(host).process, Signal::CONT),
            Fault::CutAgent(host) => world.mesh.net.link(host, true),
            Fault::KillBackend { host, instance } => {
                world.start_backend(world.backend(host, instance))
            }
        }
        Vec::new()
    }

    /// A server that has met the full disk ends, and is started again by whoever made room; one that
    /// had nothing to write meanwhile goes on.
    fn room_again(&self, world: &mut World) -> Vec<String> {
        if let Some(disk) = &world.disk {
            disk.empty();
        }
        let met_it = world.logged(SMALL_DISK, FULL) > self.said_full;
        let server = world.mesh.server_mut(SMALL_DISK);
        let Some(process) = &mut server.process else { return Vec::new() };
        if !met_it && process.is_alive() {
            return Vec::new();
        }
        if within(ENDS_WITHIN, || (!process.is_alive()).then_some(())).is_none() {
            return vec![format!("{SMALL_DISK} met a full disk and runs on for {ENDS_WITHIN:?}")];
        }
        let code = process.wait(Duration::ZERO);
        server.start();
        match code {
            Some(EXIT_DISK) => Vec::new(),
            code => vec![format!("{SMALL_DISK} ended with {code:?} on a full disk")],
        }
    }

    /// Says when calls may have failed for this: it was mended from `mending` to now. A fault that
    /// is `alone` is noticed within a grace, and later calls go elsewhere.
    pub(super) fn explain(
        &self, windows: &mut Windows, mending: Duration, now: Duration, alone: bool,
    ) {
        let grace = match &self.fault {
            Fault::KillServers(_)
            | Fault::PauseServer(_)
            | Fault::CutServer(_)
            | Fault::FillDisk
            | Fault::BadLink { .. } => return,
            // nobody else carries the callers' calls
            Fault::KillAgent(FRONT) => mending,
            Fault::KillAgent(_) | Fault::PauseAgent(_) | Fault::CutAgent(_) if alone => BY_LEASE,
            Fault::KillBackend { .. } if alone => BY_CHECK,
            Fault::KillAgent(_)
            | Fault::PauseAgent(_)
            | Fault::CutAgent(_)
            | Fault::KillBackend { .. } => mending,
        };
        let noticed = (self.from + grace).min(mending);
        windows.add(self.from, noticed, self.fault.to_string());
        windows.add(mending, now + AFTER, format!("{}, mended", self.fault));
    }
}

fn name_of(world: &World, server: Server) -> String {
    let leader = match server {
        Server::Leader => world.leader(),
        Server::Named(name) => Some(name.to_owned()),
    };
    leader.unwrap_or_else(|| SMALL_DISK.to_owned())
}

fn signal(process: &Option<Process>, signal: Signal) {
    if let Some(process) = process {
        process.signal(signal);
    }
}

/// Starts again what ended without having been told to; who it was.
pub(super) fn dead(world: &mut World) -> Vec<String> {
    let mut dead = Vec::new();
    let deadline = Instant::now() + READY;
    for name in world.mesh.server_names() {
        let server = world.mesh.server_mut(&name);
        if !server.process.as_mut().is_some_and(Process::is_alive) {
            server.start();
            dead.push(name);
        }
    }
    for name in world.agent_names() {
        let agent = world.mesh.agent_mut(&name);
        if !agent.process.as_mut().is_some_and(Process::is_alive) {
            agent.start();
            let left = deadline.saturating_duration_since(Instant::now());
            world.agent_is_ready(&name, left);
            dead.push(name);
        }
    }
    dead
}

/// A server with a full disk is gone after this.
const ENDS_WITHIN: Duration = Duration::from_secs(20);
/// Until an agent is ready.
const READY: Duration = Duration::from_secs(20);
/// An application that is gone is noticed by its check: three times 500 ms, and the way.
pub(super) const BY_CHECK: Duration = Duration::from_secs(8);
/// A host that is gone is noticed when its lease of 10 s ends, and its last heartbeat was 3 s old.
pub(super) const BY_LEASE: Duration = Duration::from_secs(20);
/// After the mending.
pub(super) const AFTER: Duration = Duration::from_secs(5);
