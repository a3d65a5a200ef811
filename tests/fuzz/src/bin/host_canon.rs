//! Hosts: one canonical form, the same by two readings, and canonical again.
#![no_main]

use mesh_core::path::{canonical_host, host_and_port};

libfuzzer_sys::fuzz_target!(|host: &str| {
    let got = host_and_port(host).ok().map(|(name, port)| (name, port.map(|port| port.get())));
    assert_eq!(got, mesh_fuzz::host::canonical(host), "{host:?}");
    if let Some((name, _)) = got {
        assert_eq!(canonical_host(&name).as_ref(), Ok(&name), "{host:?}");
    }
});
