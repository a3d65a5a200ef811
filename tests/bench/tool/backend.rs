//! The backend: HTTP/1.1, HTTP/2 with prior knowledge, and raw TCP.
use super::*;

#[derive(Clone, Copy, PartialEq)]
enum Kind { Http, H2, Tcp }
struct BConn { fd: c_int, kind: Kind, inb: Vec<u8>, out: Vec<u8>, want_out: bool, mode: u8, eof: bool, preface: bool, h2: H2Srv }
#[derive(Default)]
struct H2Srv { win: i64, open: Vec<(u32, bool)>, pending: VecDeque<(u32, bool)>, consumed: u32 }
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(super) fn frame(out: &mut Vec<u8>, ty: u8, flags: u8, sid: u32, body: &[u8]) {
    let l = body.len();
    out.extend_from_slice(&[(l >> 16) as u8, (l >> 8) as u8, l as u8, ty, flags]);
    out.extend_from_slice(&sid.to_be_bytes());
    out.extend_from_slice(body);
}
pub(super) fn lit(out: &mut Vec<u8>, name: &str, val: &str) {
    out.push(0);
    out.push(name.len() as u8); out.extend_from_slice(name.as_bytes());
    out.push(val.len() as u8); out.extend_from_slice(val.as_bytes());
}
pub(super) fn backend(a: &Args) {
    let body = vec![b'x'; a.n("body", 64)];
    let http_resp = { let mut r = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes(); r.extend_from_slice(&body); r };
    let http_resp_close = { let mut r = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes(); r.extend_from_slice(&body); r };
    let h2_head = { let mut b = vec![0x88u8]; lit(&mut b, "content-type", "text/plain"); lit(&mut b, "content-length", &body.len().to_string()); b };
    let grpc_head = { let mut b = vec![0x88u8]; lit(&mut b, "content-type", "application/grpc"); b };
    let grpc_trailer = { let mut b = vec![]; lit(&mut b, "grpc-status", "0"); b };
    let grpc_body = { let mut b = vec![0u8]; b.extend_from_slice(&(body.len() as u32).to_be_bytes()); b.extend_from_slice(&body); b };
    let mut ep = Ep::new();
    let mut lst: Vec<(c_int, Kind)> = vec![];
    for (k, kind) in [("http", Kind::Http), ("h2", Kind::H2), ("tcp", Kind::Tcp)] {
        if let Some(ad) = a.addr(k) { lst.push((tcp_listen(&ad), kind)); }
    }
    for (i, (fd, _)) in lst.iter().enumerate() { ep.add(*fd, EPOLLIN, i as u64); }
    let mut conns: Vec<Option<BConn>> = vec![];
    let mut free: Vec<usize> = vec![];
    let mut buf = vec![0u8; 256 * 1024];
    let zeros = vec![0u8; 128 * 1024];
    println!("READY");
    loop {
        let n = ep.wait(u64::MAX);
        for k in 0..n {
            let EpollEvent { events, data } = ep.ev[k];
            if (data as usize) < lst.len() {
                let (lfd, kind) = lst[data as usize];
                for _ in 0..64 {
                    let fd = unsafe { accept4(lfd, std::ptr::null_mut(), std::ptr::null_mut(), NONBLOCK | CLOEXEC) };
                    if fd < 0 { break; }
                    nodelay(fd);
                    let id = free.pop().unwrap_or_else(|| { conns.push(None); conns.len() - 1 });
                    conns[id] = Some(BConn { fd, kind, inb: vec![], out: vec![], want_out: false, mode: 0, eof: false, preface: false, h2: H2Srv { win: 65535, ..Default::default() } });
                    ep.add(fd, EPOLLIN | EPOLLRDHUP, 16 + id as u64);
                }
                continue;
            }
            let id = data as usize - 16;
            let Some(c) = conns[id].as_mut() else { continue };
            let mut dead = events & (EPOLLERR | EPOLLHUP) != 0 && events & EPOLLIN == 0;
            if !dead && events & (EPOLLIN | EPOLLRDHUP) != 0 {
                let r = unsafe { read(c.fd, buf.as_mut_ptr(), buf.len()) };
                if r == 0 { c.eof = true; if c.out.is_empty() { dead = true; } }
                else if r < 0 { dead = !again(errno()); }
                else {
                    let d = &buf[..r as usize];
                    match c.kind {
                        Kind::Tcp => {
                            let mut d = d;
                            if c.mode == 0 { c.mode = d[0]; d = &d[1..]; }
                            if c.mode == b'E' { c.out.extend_from_slice(d); }
                        }
                        Kind::Http => {
                            c.inb.extend_from_slice(d);
                            let mut pos = 0;
                            while let Some(e) = find(&c.inb[pos..], b"\r\n\r\n") {
                                let head = &c.inb[pos..pos + e];
                                let mut need = e + 4;
                                let cl = if head[0] == b'P' { header(head, "content-length").and_then(|v| v.parse::<usize>().ok()).unwrap_or(0) } else { 0 };
                                need += cl;
                                if c.inb.len() - pos < need { break; }
                                let cls = find(head, b"lose").is_some() && header(head, "connection").map_or(false, |v| v.eq_ignore_ascii_case("close"));
                                if cls { c.out.extend_from_slice(&http_resp_close); c.eof = true; } else { c.out.extend_from_slice(&http_resp); }
                                pos += need;
                            }
                            c.inb.drain(..pos);
                        }
                        Kind::H2 => {
                            c.inb.extend_from_slice(d);
                            let mut p = 0;
                            if !c.preface && c.inb.len() >= PREFACE.len() {
                                if &c.inb[..PREFACE.len()] != PREFACE { dead = true; }
                                else { p = PREFACE.len(); c.preface = true; frame(&mut c.out, 4, 0, 0, &[0, 3, 0, 0, 4, 0]); }
                            }
                            while c.preface && !dead && c.inb.len() - p >= 9 {
                                let b = &c.inb[p..];
                                let len = (b[0] as usize) << 16 | (b[1] as usize) << 8 | b[2] as usize;
                                if b.len() < 9 + len { break; }
                                let (ty, fl) = (b[3], b[4]);
                                let sid = u32::from_be_bytes([b[5], b[6], b[7], b[8]]) & 0x7fffffff;
                                let pl = &b[9..9 + len];
                                match ty {
                                    1 => if fl & 1 != 0 { c.h2.pending.push_back((sid, false)) } else { c.h2.open.push((sid, true)) },
                                    0 => {
                                        c.h2.consumed += len as u32;
                                        if fl & 1 != 0 { if let Some(i) = c.h2.open.iter().position(|x| x.0 == sid) { let o = c.h2.open.swap_remove(i); c.h2.pending.push_back(o) } }
                                    }
                                    3 => { c.h2.open.retain(|x| x.0 != sid); }
                                    4 => if fl & 1 == 0 { frame(&mut c.out, 4, 1, 0, &[]) },
                                    6 => if fl & 1 == 0 { let q = pl.to_vec(); frame(&mut c.out, 6, 1, 0, &q) },
                                    8 => if sid == 0 { c.h2.win += (u32::from_be_bytes([pl[0], pl[1], pl[2], pl[3]]) & 0x7fffffff) as i64 },
                                    _ => {}
                                }
                                p += 9 + len;
                            }
                            c.inb.drain(..p);
                            if c.h2.consumed > 16384 { let w = c.h2.consumed; c.h2.consumed = 0; frame(&mut c.out, 8, 0, 0, &w.to_be_bytes()); }
                            while let Some(&(sid, grpc)) = c.h2.pending.front() {
                                let need = if grpc { grpc_body.len() } else { body.len() } as i64;
                                if c.h2.win < need { break; }
                                c.h2.win -= need;
                                c.h2.pending.pop_front();
                                if grpc { frame(&mut c.out, 1, 4, sid, &grpc_head); frame(&mut c.out, 0, 0, sid, &grpc_body); frame(&mut c.out, 1, 5, sid, &grpc_trailer); }
                                else { frame(&mut c.out, 1, 4, sid, &h2_head); frame(&mut c.out, 0, 1, sid, &body); }
                            }
                        }
                    }
                }
            }
            if !dead && c.mode == b'D' {
                let w = unsafe { write(c.fd, zeros.as_ptr(), zeros.len()) };
                if w < 0 && !again(errno()) { dead = true; }
                if !c.want_out { c.want_out = true; ep.modify(c.fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP, data); }
            } else if !dead && !c.out.is_empty() {
                let w = unsafe { write(c.fd, c.out.as_ptr(), c.out.len()) };
                if w < 0 { if !again(errno()) { dead = true; } } else { c.out.drain(..w as usize); }
                if c.out.is_empty() == c.want_out {
                    c.want_out = !c.out.is_empty();
                    ep.modify(c.fd, EPOLLIN | EPOLLRDHUP | if c.want_out { EPOLLOUT } else { 0 }, data);
                }
            }
            if dead || (c.eof && c.out.is_empty()) { unsafe { close(c.fd) }; conns[id] = None; free.push(id); }
        }
    }
}
