//! What the machine itself costs.
use super::*;

/// ns per call: the best of 200 short batches, so that being descheduled does not count
fn best(batch: u64, mut f: impl FnMut()) -> f64 {
    let mut m = f64::MAX;
    for _ in 0..200 { let t = now(); for _ in 0..batch { f() } m = m.min((now() - t) as f64 / batch as f64); }
    m
}
pub(super) fn limits() {
    let getpid = best(2000, || unsafe { syscall(39); });
    let mut p = [0 as c_int; 2]; unsafe { pipe(p.as_mut_ptr()) };
    let mut b = [0u8; 65536];
    let bp = b.as_mut_ptr();
    let pipe_wr = best(500, || unsafe { write(p[1], bp, 1); read(p[0], bp, 1); });
    // loopback TCP, both ends in one thread: no other task is woken
    let l = tcp_listen(&parse_addr("127.0.0.1:0"));
    let port = { extern "C" { fn getsockname(fd: c_int, a: *mut SockaddrIn, l: *mut u32) -> c_int; } let mut s = SockaddrIn { family: 0, port: 0, addr: 0, zero: [0; 8] }; let mut n = 16u32; unsafe { getsockname(l, &mut s, &mut n) }; u16::from_be(s.port) };
    let c = tcp_connect(&parse_addr(&format!("127.0.0.1:{port}")));
    std::thread::sleep(std::time::Duration::from_millis(20));
    let s = unsafe { accept4(l, std::ptr::null_mut(), std::ptr::null_mut(), NONBLOCK) };
    nodelay(s);
    let tcp = |n: usize| best(200, || unsafe { write(c, bp, n); let mut g = 0; while g < n as isize { let r = read(s, bp, 65536); if r > 0 { g += r } } });
    let (t64, t16k) = (tcp(64), tcp(16384));
    let eagain = best(500, || unsafe { read(s, bp, 64); });
    let ep = Ep::new(); ep.add(c, EPOLLOUT, 0);
    let mut ep = ep;
    let epw = best(500, || { ep.wait(0); });
    let conn = best(50, || { let c = tcp_connect(&parse_addr(&format!("127.0.0.1:{port}"))); unsafe { let mut s = accept4(l, std::ptr::null_mut(), std::ptr::null_mut(), NONBLOCK); while s < 0 { s = accept4(l, std::ptr::null_mut(), std::ptr::null_mut(), NONBLOCK); } close(c); close(s); } });
    println!("{{\"getpid_ns\":{getpid:.1},\"pipe_write_read_ns\":{pipe_wr:.1},\"tcp_write_read_64B_ns\":{t64:.1},\"tcp_write_read_16K_ns\":{t16k:.1},\"tcp_read_eagain_ns\":{eagain:.1},\"epoll_wait_1ready_ns\":{epw:.1},\"tcp_connect_accept_close_ns\":{conn:.1}}}");
}
