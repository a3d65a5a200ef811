//! Where a dev mesh lives: a block of loopback addresses and a directory.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;

use crate::error::CliError;

/// First octets of every address of a dev mesh.
const PREFIX: (u8, u8) = (127, 77);
/// The API port of every server.
pub(super) const API: u16 = 7300;
/// The Raft port of every server.
pub(super) const RAFT: u16 = 7301;
/// The inbound port of every agent.
pub(super) const INBOUND: u16 = 7443;
/// The admin port of every agent.
pub(super) const ADMIN: u16 = 7302;
/// The Host-routed listener of every agent.
pub(super) const HTTP: u16 = 7380;

/// A block `127.77.N.0/24` that no other dev mesh uses, held while the value lives.
#[derive(Debug)]
pub(super) struct Block {
    third: u8,
    _held: TcpListener,
}

impl Block {
    /// The first free block.
    pub(super) fn take() -> Result<Self, CliError> {
        for third in 0..=u8::MAX {
            let address = Ipv4Addr::new(PREFIX.0, PREFIX.1, third, 254);
            // holding a port of the block keeps other dev meshes off it
            if let Ok(held) = TcpListener::bind((address, API)) {
                return Ok(Self { third, _held: held });
            }
        }
        Err(CliError::Unavailable(
            "no free block of loopback addresses in 127.77.0.0/16; stop another `mesh dev`".into(),
        ))
    }

    /// The address of the host with this number.
    pub(super) fn ip(&self, host: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(PREFIX.0, PREFIX.1, self.third, host))
    }

    /// A port of the host with this number.
    pub(super) fn port(&self, host: u8, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip(host), port)
    }
}

/// The directory of keys, state and policy files; removed at the end unless the user named it.
#[derive(Debug)]
pub(super) struct Place {
    /// The directory.
    pub(super) dir: PathBuf,
    kept: bool,
}

impl Place {
    /// `wanted`, which must be empty or new, or a new temporary directory.
    pub(super) fn take(wanted: Option<&PathBuf>) -> Result<Self, CliError> {
        let (dir, kept) = match wanted {
            Some(dir) => (dir.clone(), true),
            None => (std::env::temp_dir().join(format!("mesh-dev-{}", std::process::id())), false),
        };
        std::fs::create_dir_all(&dir).map_err(|why| CliError::file("create", &dir, why))?;
        let mut content =
            std::fs::read_dir(&dir).map_err(|why| CliError::file("read", &dir, why))?;
        if content.next().is_some() {
            let why = "it is not empty; name a new directory, or remove it";
            return Err(CliError::file("use", &dir, why));
        }
        Ok(Self { dir, kept })
    }

    /// Writes a file below the directory.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf, CliError> {
        let path = self.dir.join(name);
        let folder = path.parent().unwrap_or(&self.dir);
        std::fs::create_dir_all(folder).map_err(|why| CliError::file("create", folder, why))?;
        std::fs::write(&path, text).map_err(|why| CliError::file("write", &path, why))?;
        Ok(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.kept && std::fs::remove_dir_all(&self.dir).is_err() {
            tracing::warn!(dir = %self.dir.display(), "the directory could not be removed");
        }
    }
}
