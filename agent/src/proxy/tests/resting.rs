//! What a connection holds while it rests.

use super::super::outbound;

fn size<A, B, C, D, F>(_serve: impl Fn(A, B, C, D) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn b_limits_a_resting_connection_is_small() {
    // beside it there is what the kernel and the runtime hold: no buffer, and no place for a call
    let size = size(outbound::serve_explicit);
    assert!(size <= 2 << 10, "a local connection at rest takes {size} bytes");
}
