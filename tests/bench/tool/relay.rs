//! The floor: a plaintext relay on epoll.
use super::*;

struct Half { fd: c_int, peer: usize, out: Vec<u8>, want_out: bool, paused: bool, eof_in: bool, shut: bool, connecting: bool, dead: bool }
pub(super) fn relay(a: &Args) {
    let mut ep = Ep::new();
    let mut maps = vec![];
    for m in &a.0["map"] { let (l, t) = m.split_once('=').unwrap(); maps.push((tcp_listen(&parse_addr(l)), parse_addr(t))); }
    for (i, m) in maps.iter().enumerate() { ep.add(m.0, EPOLLIN, i as u64); }
    let mut hs: Vec<Option<Half>> = vec![];
    let mut free: Vec<usize> = vec![];
    let mut buf = vec![0u8; 64 * 1024];
    fn upd(ep: &Ep, h: &Half, id: usize) {
        let e = if h.paused || h.eof_in { 0 } else { EPOLLIN } | if h.want_out || h.connecting { EPOLLOUT } else { 0 };
        ep.modify(h.fd, e, 16 + id as u64);
    }
    println!("READY");
    loop {
        let n = ep.wait(u64::MAX);
        let mut freed: Vec<usize> = vec![];
        for k in 0..n {
            let EpollEvent { events, data } = ep.ev[k];
            if (data as usize) < maps.len() {
                let (lfd, t) = maps[data as usize];
                for _ in 0..64 {
                    let fd = unsafe { accept4(lfd, std::ptr::null_mut(), std::ptr::null_mut(), NONBLOCK | CLOEXEC) };
                    if fd < 0 { break; }
                    nodelay(fd);
                    let u = tcp_connect(&t);
                    if u < 0 { unsafe { close(fd) }; continue; }
                    let mut get = || free.pop().unwrap_or_else(|| { hs.push(None); hs.len() - 1 });
                    let (x, y) = (get(), get());
                    let mk = |fd, peer, connecting| Some(Half { fd, peer, out: vec![], want_out: false, paused: false, eof_in: false, shut: false, connecting, dead: false });
                    hs[x] = mk(fd, y, false); hs[y] = mk(u, x, true);
                    ep.add(fd, EPOLLIN, 16 + x as u64); ep.add(u, EPOLLIN | EPOLLOUT, 16 + y as u64);
                }
                continue;
            }
            let id = data as usize - 16;
            let Some(h) = hs[id].as_mut() else { continue };
            if h.dead { continue; }
            let (fd, peer) = (h.fd, h.peer);
            let mut dead = false;
            if h.connecting && events & EPOLLOUT != 0 { h.connecting = false; }
            if events & (EPOLLERR | EPOLLHUP) != 0 && events & EPOLLIN == 0 { dead = true; }
            if !dead && events & EPOLLOUT != 0 {
                if !h.out.is_empty() {
                    let w = unsafe { write(fd, h.out.as_ptr(), h.out.len()) };
                    if w < 0 { dead = !again(errno()) } else { h.out.drain(..w as usize); }
                }
                h.want_out = !h.out.is_empty();
                let empty = h.out.is_empty();
                upd(&ep, hs[id].as_ref().unwrap(), id);
                if empty { let p = hs[peer].as_mut().unwrap(); if p.paused { p.paused = false; upd(&ep, hs[peer].as_ref().unwrap(), peer); } }
            }
            if !dead && events & EPOLLIN != 0 {
                let r = unsafe { read(fd, buf.as_mut_ptr(), buf.len()) };
                if r == 0 { hs[id].as_mut().unwrap().eof_in = true; upd(&ep, hs[id].as_ref().unwrap(), id); }
                else if r < 0 { dead = !again(errno()); }
                else {
                    let p = hs[peer].as_mut().unwrap();
                    let d = &buf[..r as usize];
                    let mut off = 0;
                    if p.out.is_empty() && !p.connecting {
                        let w = unsafe { write(p.fd, d.as_ptr(), d.len()) };
                        if w < 0 { if !again(errno()) { dead = true } } else { off = w as usize }
                    }
                    if !dead && off < d.len() {
                        p.out.extend_from_slice(&d[off..]); p.want_out = true;
                        upd(&ep, hs[peer].as_ref().unwrap(), peer);
                        hs[id].as_mut().unwrap().paused = true; upd(&ep, hs[id].as_ref().unwrap(), id);
                    }
                }
            }
            // half-close propagation
            for (s, d) in [(id, peer), (peer, id)] {
                if hs[s].as_ref().unwrap().eof_in && !hs[d].as_ref().unwrap().shut && hs[d].as_ref().unwrap().out.is_empty() && !hs[d].as_ref().unwrap().connecting {
                    unsafe { shutdown(hs[d].as_ref().unwrap().fd, 1) }; hs[d].as_mut().unwrap().shut = true;
                }
            }
            if hs[id].as_ref().unwrap().shut && hs[peer].as_ref().unwrap().shut { dead = true; }
            if dead { for x in [id, peer] { let h = hs[x].as_mut().unwrap(); if !h.dead { h.dead = true; unsafe { close(h.fd) }; freed.push(x); } } }
        }
        for x in freed { hs[x] = None; free.push(x); }
    }
}
