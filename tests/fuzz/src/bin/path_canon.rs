//! Paths: one canonical form, the same by two readings, and canonical again.
#![no_main]

use mesh_core::path::canonical;

libfuzzer_sys::fuzz_target!(|path: &str| {
    let got = canonical(path).ok();
    assert_eq!(got, mesh_fuzz::path::canonical(path), "{path:?}");
    if let Some(once) = got {
        assert_eq!(canonical(&once).as_ref(), Ok(&once), "{path:?}");
    }
});
