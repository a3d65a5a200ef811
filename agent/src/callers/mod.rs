//! Who is calling: the kernel's word on a local connection, and the service it stands for.
//!
//! The kernel is asked at accept, before a byte is read: once a client has closed, its socket no
//! longer tells its owner, while what it sent can still be read.

mod cgroups;
mod kernel;
mod matching;
mod unit;
mod users;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;

pub use matching::{Caller, CallerRule, KernelAnswer, Place, UnknownReason, resolve};
pub use unit::{InvalidUnit, UnitPath};
pub use users::{GETENT_TIMEOUT, UserError, uid_of};

use cgroups::{Found, Index};
use kernel::Kernel;

/// Tells the services of this host apart by their connections; one for all workers.
///
/// Ephemeral, but for the rules, which come from the registrations.
#[derive(Debug)]
pub struct Callers {
    kernel: Kernel,
    cgroup_root: Option<PathBuf>,
    /// The rules with the index of their units, swapped as one: an index knows no other units.
    known: ArcSwap<Known>,
}

#[derive(Debug)]
struct Known {
    rules: Vec<CallerRule>,
    /// `None` where no cgroup v2 tree is mounted. Never locked over an await.
    units: Option<Mutex<Index>>,
}

/// Why callers cannot be told apart.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallersError {
    /// The kernel gives no sock_diag socket.
    #[error("cannot open sock_diag")]
    Kernel(#[source] io::Error),
    /// The table of mounts, or the configured root, cannot be read.
    #[error("cannot find the cgroup v2 tree")]
    Mounts(#[source] io::Error),
    /// The configured root is something else.
    #[error("{root} is no cgroup v2 mount, expected one", root = root.display())]
    NotCgroup2 {
        /// The configured root.
        root: PathBuf,
    },
}

impl Callers {
    /// Tells callers apart by `rules`, in the network namespace of the calling thread.
    ///
    /// `cgroup_root` is where cgroup v2 is mounted; `None` looks for it. On a host without such a
    /// mount rules that name a unit make their possible callers unknown.
    ///
    /// # Errors
    /// [`CallersError`] if the kernel cannot be asked, or `cgroup_root` is no cgroup v2 mount.
    pub fn new(cgroup_root: Option<PathBuf>, rules: Vec<CallerRule>) -> Result<Self, CallersError> {
        let cgroup_root = match cgroup_root {
            None => cgroups::find_root().map_err(CallersError::Mounts)?,
            Some(root) if cgroups::is_cgroup2(&root).map_err(CallersError::Mounts)? => Some(root),
            Some(root) => return Err(CallersError::NotCgroup2 { root }),
        };
        let kernel = Kernel::open().map_err(CallersError::Kernel)?;
        let known = ArcSwap::from_pointee(Known::new(cgroup_root.as_ref(), rules));
        Ok(Self { kernel, cgroup_root, known })
    }

    /// Puts `rules` in force for the connections identified from now on.
    pub fn set_rules(&self, rules: Vec<CallerRule>) {
        self.known.store(Arc::new(Known::new(self.cgroup_root.as_ref(), rules)));
    }

    /// Whether units can be told on this host: a cgroup v2 tree is mounted.
    pub fn tells_units(&self) -> bool {
        self.cgroup_root.is_some()
    }

    /// Who is at the other end of the TCP connection `accepted`. Call it right after accept,
    /// before reading.
    ///
    /// Not async on purpose: it is some six system calls on loopback structures, tens of
    /// microseconds in all, cheaper than a trip to another thread. Only the first caller from a
    /// new cgroup costs more: the directories of the units that rules name are read again, under
    /// a budget.
    pub fn identify_inline(&self, accepted: impl AsFd) -> Caller {
        self.identify(accepted.as_fd(), None)
    }

    /// As [`Self::identify_inline`], for a connection that was redirected to us: the caller
    /// dialled `dialled` ([`mesh_sys::original_dst::original_dst`]).
    pub fn identify_redirected_inline(&self, accepted: impl AsFd, dialled: SocketAddr) -> Caller {
        self.identify(accepted.as_fd(), Some(dialled))
    }

    fn identify(&self, accepted: BorrowedFd<'_>, dialled: Option<SocketAddr>) -> Caller {
        let owner = match self.kernel.owner(accepted, dialled) {
            Ok(owner) => owner,
            Err(reason) => return Caller::Unknown { reason },
        };
        let known = self.known.load();
        let found = known.find(owner.cgroup_id);
        let place = match &found {
            Some(Found::At(path)) => Place::At(path),
            Some(Found::Elsewhere) => Place::Elsewhere,
            Some(Found::Unresolved) => Place::Unresolved,
            None => Place::Unavailable,
        };
        resolve(KernelAnswer { uid: owner.uid, place }, &known.rules)
    }
}

impl Known {
    fn new(cgroup_root: Option<&PathBuf>, rules: Vec<CallerRule>) -> Self {
        let named = rules.iter().filter_map(|rule| rule.unit.clone()).collect();
        let index = cgroup_root.map(|root| Index::new(root.clone(), named, Instant::now()));
        Self { rules, units: index.map(Mutex::new) }
    }

    /// `None` if units cannot be told.
    fn find(&self, cgroup: Option<u64>) -> Option<Found> {
        let index = self.units.as_ref()?;
        let id = cgroup?;
        // A panic in the index leaves at worst a half-filled map, which the next walk replaces.
        let mut index = index.lock().unwrap_or_else(PoisonError::into_inner);
        Some(index.find(id, Instant::now()))
    }
}

#[cfg(test)]
mod tests;
