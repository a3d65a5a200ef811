//! The load generator, and the accounting of the processes under test.
use super::backend::{PREFACE, frame, lit};
use super::*;

fn pid_list(a: &Args, k: &str) -> Vec<u32> { a.s(k).map(|s| s.split(',').filter_map(|x| x.parse().ok()).collect()).unwrap_or_default() }
/// (cpu seconds, context switches) of all live threads
fn pid_cpu(pid: u32) -> (f64, u64) {
    let (mut ns, mut sw) = (0u64, 0u64);
    if let Ok(d) = std::fs::read_dir(format!("/proc/{pid}/task")) {
        for t in d.flatten() {
            if let Ok(s) = std::fs::read_to_string(t.path().join("schedstat")) {
                let mut it = s.split_whitespace();
                ns += it.next().and_then(|x| x.parse::<u64>().ok()).unwrap_or(0);
                sw += it.nth(1).and_then(|x| x.parse::<u64>().ok()).unwrap_or(0);
            }
        }
    }
    (ns as f64 / 1e9, sw)
}
/// machine-wide (busy, steal) seconds
fn machine() -> (f64, f64) {
    let s = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let v: Vec<f64> = s.lines().next().unwrap_or("").split_whitespace().skip(1).map(|x| x.parse().unwrap_or(0.0)).collect();
    if v.len() < 8 { return (0.0, 0.0); }
    ((v[0] + v[1] + v[2] + v[5] + v[6]) / 100.0, v[7] / 100.0)
}

// ---------------------------------------------------------------- load generator
#[derive(Clone, Copy, PartialEq, Debug)]
enum Mode { Http, H2, Ping, Upload, Download, TcpConn }
#[derive(Clone, Copy, PartialEq)]
enum St { Connecting, Socks1, Socks2, Idle, Busy, Stream }
struct C { fd: c_int, st: St, t: u64, inb: Vec<u8>, out: Vec<u8>, want_out: bool, got: usize, first: bool, next_sid: u32, inflight: HashMap<u32, u64>, used: usize, explen: usize }
struct Lg {
    ep: Ep, cs: Vec<C>, mode: Mode, target: SocketAddrV4, socks: Option<SocketAddrV4>, req: Vec<u8>, grpc: Vec<u8>, close_each: bool,
    size: usize, streams: usize, rate: f64, idle: VecDeque<usize>, due: VecDeque<u64>, hist: Hist, ok: u64, err: u64, reconn: u64, bytes: u64,
    measuring: bool, running: bool, non2xx: u64, errs: HashMap<String, u64>, hold: bool, maxq: usize,
}
impl Lg {
    fn open(&mut self, i: usize) {
        let fd = tcp_connect(&self.target);
        if fd < 0 { self.fail(&format!("connect errno {}", -fd)); self.cs[i].fd = -1; return; }
        let c = &mut self.cs[i];
        c.fd = fd; c.st = St::Connecting; c.inb.clear(); c.out.clear(); c.want_out = true; c.got = 0; c.first = true; c.next_sid = 1; c.inflight.clear(); c.used = 0;
        if self.close_each || self.mode == Mode::TcpConn { if self.rate == 0.0 { c.t = now(); } }
        self.ep.add(fd, EPOLLIN | EPOLLOUT, i as u64);
    }
    fn fail(&mut self, why: &str) { if self.measuring { self.err += 1; } *self.errs.entry(why.to_string()).or_default() += 1; }
    fn shut(&mut self, i: usize) { if self.cs[i].fd >= 0 { unsafe { close(self.cs[i].fd) }; self.cs[i].fd = -1; } }
    fn flush(&mut self, i: usize) -> bool {
        let c = &mut self.cs[i];
        if !c.out.is_empty() {
            let w = unsafe { write(c.fd, c.out.as_ptr(), c.out.len()) };
            if w < 0 { if !again(errno()) { return false; } } else if w as usize == c.out.len() { c.out.clear() } else { c.out.drain(..w as usize); }
        }
        let want = !c.out.is_empty();
        if want != c.want_out { c.want_out = want; self.ep.modify(c.fd, EPOLLIN | if want { EPOLLOUT } else { 0 }, i as u64); }
        true
    }
    /// put one request with intended time t on conn i
    fn send(&mut self, i: usize, t: u64) {
        let size = self.size;
        let c = &mut self.cs[i];
        match self.mode {
            Mode::Http => { c.t = t; c.st = St::Busy; c.out.extend_from_slice(&self.req); }
            Mode::Ping | Mode::TcpConn => { c.t = t; c.st = St::Busy; c.got = 0; if c.first { c.out.push(b'E'); c.first = false; } let l = c.out.len(); c.out.resize(l + size, b'p'); }
            Mode::H2 => {
                let sid = c.next_sid; c.next_sid += 2;
                let g = !self.grpc.is_empty();
                frame(&mut c.out, 1, if g { 4 } else { 5 }, sid, &self.req);
                if g { frame(&mut c.out, 0, 1, sid, &self.grpc); }
                c.inflight.insert(sid, t);
            }
            _ => {}
        }
    }
    fn done(&mut self, t: u64, nowt: u64) { if self.measuring { self.ok += 1; self.hist.add(nowt.saturating_sub(t)); } }
    /// conn i can take another request
    fn ready(&mut self, i: usize, nowt: u64) {
        if self.hold { self.cs[i].st = St::Idle; return; }
        if !self.running { self.cs[i].st = St::Idle; return; }
        if self.rate > 0.0 {
            if let Some(t) = self.due.pop_front() { self.send(i, t) } else { if self.mode != Mode::H2 { self.cs[i].st = St::Idle; } self.idle.push_back(i); }
        } else { self.send(i, nowt) }
    }
    fn established(&mut self, i: usize) {
        let n = now();
        match self.mode {
            Mode::Upload => { self.cs[i].st = St::Stream; self.cs[i].out.push(b'S'); }
            Mode::Download => { self.cs[i].st = St::Stream; self.cs[i].out.push(b'D'); }
            Mode::H2 => {
                self.cs[i].st = St::Stream;
                self.cs[i].out.extend_from_slice(PREFACE);
                frame(&mut self.cs[i].out, 4, 0, 0, &[0, 2, 0, 0, 0, 0, 0, 4, 0x3f, 0xff, 0xff, 0xff]);
                frame(&mut self.cs[i].out, 8, 0, 0, &(0x7fffffffu32 - 65535).to_be_bytes());
                for _ in 0..self.streams { self.ready(i, n); }
            }
            Mode::Http | Mode::Ping | Mode::TcpConn => {
                if self.hold { self.send(i, n); }
                else if self.close_each || self.mode == Mode::TcpConn { let t = self.cs[i].t; self.send(i, t); }
                else { self.ready(i, n) }
            }
        }
    }
    fn again_conn(&mut self, i: usize) {
        self.shut(i);
        if self.hold { return; }
        if self.rate > 0.0 && (self.close_each || self.mode == Mode::TcpConn) {
            if let Some(t) = self.due.pop_front() { self.cs[i].t = t; self.open(i) } else { self.idle.push_back(i) }
        } else if self.running { self.open(i) }
    }
    fn broken(&mut self, i: usize, why: &str) {
        let c = &self.cs[i];
        let lost = match self.mode { Mode::H2 => c.inflight.len(), _ => (c.st == St::Busy || c.st == St::Connecting) as usize };
        if lost > 0 || self.mode == Mode::Upload || self.mode == Mode::Download { for _ in 0..lost.max(1) { self.fail(why); } } else { self.reconn += 1; }
        self.idle.retain(|x| *x != i);
        self.again_conn(i);
    }
    /// parse one HTTP/1.1 response at the head of inb; Some(len) when complete
    fn http_len(b: &[u8]) -> Result<Option<(usize, bool, u16)>, ()> {
        let Some(e) = find(b, b"\r\n\r\n") else { return Ok(None) };
        let head = &b[..e];
        if head.len() < 12 || &head[..5] != b"HTTP/" { return Err(()); }
        let code: u16 = std::str::from_utf8(&head[9..12]).ok().and_then(|s| s.parse().ok()).ok_or(())?;
        let cls = header(head, "connection").map_or(false, |v| v.eq_ignore_ascii_case("close"));
        if let Some(cl) = header(head, "content-length") { let n = e + 4 + cl.parse::<usize>().map_err(|_| ())?; return Ok(if b.len() >= n { Some((n, cls, code)) } else { None }); }
        if header(head, "transfer-encoding").is_some() { return Ok(find(&b[e..], b"\r\n0\r\n\r\n").map(|p| (e + p + 7, cls, code))); }
        Ok(Some((e + 4, cls, code)))
    }
    fn on_event(&mut self, i: usize, events: u32, buf: &mut [u8]) {
        if self.cs[i].fd < 0 { return; }
        if self.cs[i].st == St::Connecting {
            if events & (EPOLLOUT | EPOLLERR | EPOLLHUP) == 0 { return; }
            let (mut e, mut l): (c_int, u32) = (0, 4);
            unsafe { getsockopt(self.cs[i].fd, 1, 4, &mut e as *mut _ as *mut c_void, &mut l) };
            if e != 0 { return self.broken(i, &format!("connect so_error {e}")); }
            if self.socks.is_some() { self.cs[i].st = St::Socks1; self.cs[i].out.extend_from_slice(&[5, 1, 0]); }
            else { self.established(i); }
            if !self.flush(i) { return self.broken(i, "write"); }
            if self.mode == Mode::Upload { self.cs[i].want_out = true; self.ep.modify(self.cs[i].fd, EPOLLIN | EPOLLOUT, i as u64); }
            return;
        }
        if self.mode == Mode::Upload && self.cs[i].st == St::Stream {
            if events & EPOLLOUT != 0 {
                let n = self.size.min(buf.len());
                let w = unsafe { write(self.cs[i].fd, buf.as_ptr(), n) };
                if w > 0 { if self.measuring { self.bytes += w as u64 } } else if !again(errno()) { return self.broken(i, "write"); }
            }
            if events & (EPOLLERR | EPOLLHUP) != 0 { self.broken(i, "hangup"); }
            return;
        }
        if events & (EPOLLIN | EPOLLERR | EPOLLHUP) != 0 {
            let r = unsafe { read(self.cs[i].fd, buf.as_mut_ptr(), buf.len()) };
            if r == 0 { return self.broken(i, "eof"); }
            if r < 0 { let e = errno(); if again(e) { return; } return self.broken(i, &format!("read errno {e}")); }
            let d = &buf[..r as usize];
            let n = now();
            match self.cs[i].st {
                St::Socks1 => {
                    let s = self.socks.unwrap(); let mut v = vec![5, 1, 0, 1]; v.extend_from_slice(&s.ip().octets()); v.extend_from_slice(&s.port().to_be_bytes());
                    self.cs[i].out.extend_from_slice(&v); self.cs[i].st = St::Socks2;
                }
                St::Socks2 => {
                    if d.len() < 10 || d[1] != 0 { return self.broken(i, "socks"); }
                    self.established(i);
                    if self.mode == Mode::Upload { self.flush(i); self.cs[i].want_out = true; self.ep.modify(self.cs[i].fd, EPOLLIN | EPOLLOUT, i as u64); return; }
                }
                _ => match self.mode {
                    Mode::Download => { if self.measuring { self.bytes += r as u64 } }
                    Mode::Ping | Mode::TcpConn => {
                        self.cs[i].got += r as usize;
                        if self.cs[i].st == St::Busy && self.cs[i].got >= self.size {
                            let t = self.cs[i].t; self.done(t, n);
                            if self.mode == Mode::TcpConn && !self.hold { return self.again_conn(i); }
                            self.ready(i, n);
                        }
                    }
                    Mode::Http => {
                        let c = &mut self.cs[i];
                        // fast path: same length and status as the last fully parsed response
                        let fast = c.inb.is_empty() && c.explen == d.len() && d.starts_with(b"HTTP/1.1 200") && !self.close_each;
                        let mut cls = false;
                        if !fast {
                            c.inb.extend_from_slice(d);
                            match Self::http_len(&c.inb) {
                                Err(()) => return self.broken(i, "bad response"),
                                Ok(None) => return,
                                Ok(Some((len, cl, code))) => {
                                    cls = cl; if code / 100 != 2 { self.non2xx += self.measuring as u64; }
                                    c.explen = if code == 200 && !cl { len } else { 0 };
                                    c.inb.drain(..len);
                                }
                            }
                        }
                        let t = c.t; self.done(t, n);
                        self.cs[i].st = St::Idle;
                        if (self.close_each || cls) && !self.hold { return self.again_conn(i); }
                        self.ready(i, n);
                    }
                    Mode::H2 => {
                        self.cs[i].inb.extend_from_slice(d);
                        let mut inb = std::mem::take(&mut self.cs[i].inb);
                        let mut p = 0;
                        let mut fin = 0usize;
                        while inb.len() - p >= 9 {
                            let b = &inb[p..];
                            let len = (b[0] as usize) << 16 | (b[1] as usize) << 8 | b[2] as usize;
                            if b.len() < 9 + len { break; }
                            let (ty, fl) = (b[3], b[4]);
                            let sid = u32::from_be_bytes([b[5], b[6], b[7], b[8]]) & 0x7fffffff;
                            let pl = &b[9..9 + len];
                            let mut end = false;
                            match ty {
                                1 => { end = fl & 1 != 0; let mut k = 0; while k < pl.len() && pl[k] & 0xe0 == 0x20 { let more = pl[k] & 0x1f == 0x1f; k += 1; if more { while k < pl.len() && pl[k] & 0x80 != 0 { k += 1 } k += 1; } }
                                       // the first header block of a stream must say :status 200 (static index 8); trailers do not start with a pseudo header
                                       if k < pl.len() && (0x89..=0x8e).contains(&pl[k]) { self.non2xx += self.measuring as u64; } }
                                0 => end = fl & 1 != 0,
                                3 => { if self.cs[i].inflight.remove(&sid).is_some() { self.fail("rst_stream"); fin += 1; } }
                                4 => if fl & 1 == 0 { frame(&mut self.cs[i].out, 4, 1, 0, &[]) },
                                6 => if fl & 1 == 0 { let q = pl.to_vec(); frame(&mut self.cs[i].out, 6, 1, 0, &q) },
                                7 => { self.cs[i].inb.clear(); let code = if pl.len() >= 8 { u32::from_be_bytes([pl[4], pl[5], pl[6], pl[7]]) } else { 0 };
                                       if code != 0 { return self.broken(i, &format!("goaway {code}")); } self.cs[i].next_sid = u32::MAX; }
                                _ => {}
                            }
                            if end { if let Some(t) = self.cs[i].inflight.remove(&sid) { self.done(t, n); fin += 1; } }
                            p += 9 + len;
                        }
                        inb.drain(..p);
                        self.cs[i].inb = inb;
                        if self.cs[i].next_sid > 0x7ff00000 { if self.cs[i].inflight.is_empty() { self.idle.retain(|x| *x != i); self.reconn += 1; return self.again_conn(i); } return; }
                        for _ in 0..fin { self.ready(i, n); }
                    }
                    _ => {}
                },
            }
        }
        if !self.flush(i) { self.broken(i, "write"); }
    }
}
pub(super) fn client(cmd: &str, a: &Args) {
    unsafe { prctl(29, 1, 0, 0, 0) }; // timer slack 1 ns
    let conns = a.n("conns", 1);
    let (dur, warm) = (a.f("duration", 3.0), a.f("warmup", 0.5));
    let host = a.s("host").unwrap_or("svc-0.mesh").to_string();
    let path = a.s("path").unwrap_or("/").to_string();
    let close_each = a.has("close");
    let proto = if cmd == "idle" { a.s("proto").unwrap_or("http") } else { cmd };
    let mode = match (proto, a.s("mode").unwrap_or("pingpong")) {
        ("http", _) => Mode::Http, ("h2", _) => Mode::H2, ("tcp", "pingpong") => Mode::Ping, ("tcp", "upload") => Mode::Upload,
        ("tcp", "download") => Mode::Download, ("tcp", "connect") => Mode::TcpConn, x => panic!("mode {x:?}") };
    let (mut req, mut grpc) = (vec![], vec![]);
    if mode == Mode::Http { req = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: meshbench\r\nAccept: */*\r\n{}\r\n", if close_each { "Connection: close\r\n" } else { "" }).into_bytes(); }
    if mode == Mode::H2 {
        if a.has("grpc") {
            req.extend_from_slice(&[0x83, 0x86]); req.push(0x04); let p = "/bench.Echo/Unary"; req.push(p.len() as u8); req.extend_from_slice(p.as_bytes());
            lit(&mut req, ":authority", &host); lit(&mut req, "content-type", "application/grpc"); lit(&mut req, "te", "trailers");
            grpc = vec![0, 0, 0, 0, 64]; grpc.extend_from_slice(&[b'q'; 64]);
        } else { req.extend_from_slice(&[0x82, 0x86, 0x84]); lit(&mut req, ":authority", &host); lit(&mut req, "user-agent", "meshbench"); }
    }
    let size = a.n("size", match mode { Mode::Upload => 128 * 1024, Mode::TcpConn => 1, _ => 64 });
    let mut g = Lg { ep: Ep::new(), cs: vec![], mode, target: a.addr("target").expect("--target"), socks: a.addr("socks5"), req, grpc, close_each, size,
        streams: a.n("streams", 1), rate: a.f("rate", 0.0), idle: VecDeque::new(), due: VecDeque::new(), hist: Hist::new(), ok: 0, err: 0, reconn: 0, bytes: 0,
        measuring: false, running: true, non2xx: 0, errs: HashMap::new(), hold: cmd == "idle", maxq: 0 };
    let mut buf = vec![0u8; 256 * 1024];
    for _ in 0..conns { g.cs.push(C { fd: -1, st: St::Idle, t: 0, inb: vec![], out: vec![], want_out: false, got: 0, first: true, next_sid: 1, inflight: HashMap::new(), used: 0, explen: 0 }); }
    if g.hold {
        // open in waves of 32, then hold
        let t0 = now();
        g.measuring = true;
        let mut i = 0;
        while i < conns {
            let e = (i + 32).min(conns);
            for j in i..e { g.open(j); }
            let until = now() + 5_000_000_000;
            while g.ok + g.err < e as u64 && now() < until { let n = g.ep.wait(100_000_000); for k in 0..n { let EpollEvent { events, data } = g.ep.ev[k]; g.on_event(data as usize, events, &mut buf); } }
            i = e;
        }
        println!("READY {} errors {} ms {}", g.ok, g.err, (now() - t0) / 1_000_000);
        let mut s = String::new();
        let _ = std::io::stdin().read_line(&mut s);
        let open = g.cs.iter().filter(|c| c.fd >= 0).count();
        println!("{{\"opened\":{},\"errors\":{},\"still_open\":{}}}", g.ok, g.err, open);
        return;
    }
    let per_req_conn = close_each || mode == Mode::TcpConn;
    let t_start = now();
    if g.rate > 0.0 && per_req_conn { for i in 0..conns { g.idle.push_back(i); } }
    else { for i in 0..conns { g.open(i); } }
    let t_meas = t_start + (warm * 1e9) as u64;
    let t_end = t_meas + (dur * 1e9) as u64;
    let gap = if g.rate > 0.0 { 1e9 / g.rate } else { 0.0 };
    let mut k_req: u64 = 0;
    let (mut cpu0, mut m0) = (cpu_now(), now());
    let (pids, other) = (pid_list(a, "pids"), pid_list(a, "other"));
    let snap = |l: &Vec<u32>| l.iter().map(|p| pid_cpu(*p)).collect::<Vec<_>>();
    let (mut p0, mut o0, mut mc0) = (snap(&pids), snap(&other), machine());
    loop {
        let n = now();
        if !g.measuring && n >= t_meas { g.measuring = true; p0 = snap(&pids); o0 = snap(&other); mc0 = machine(); cpu0 = cpu_now(); m0 = now(); }
        if n >= t_end { break; }
        if g.measuring && g.err > 2000 && g.err > g.ok { break; }
        let mut to = (t_end - n).min(50_000_000);
        if !g.measuring { to = to.min(t_meas - n); }
        if g.rate > 0.0 {
            loop {
                let t = t_start + (k_req as f64 * gap) as u64;
                if t > n { to = to.min(t - n); break; }
                k_req += 1; g.due.push_back(t);
            }
            if g.due.len() > g.maxq { g.maxq = g.due.len(); }
            while !g.due.is_empty() {
                let Some(i) = g.idle.pop_front() else { break };
                let t = g.due.pop_front().unwrap();
                if per_req_conn { g.cs[i].t = t; g.open(i) }
                else if g.cs[i].fd >= 0 { g.send(i, t); if !g.flush(i) { g.broken(i, "write"); } }
                else { g.due.push_front(t); }
            }
        }
        // connections that died while connecting are reopened slowly
        if g.errs.len() > 0 { for i in 0..conns { if g.cs[i].fd < 0 && !(g.rate > 0.0 && per_req_conn) { g.open(i); } } }
        let m = g.ep.wait(to);
        for k in 0..m { let EpollEvent { events, data } = g.ep.ev[k]; g.on_event(data as usize, events, &mut buf); }
    }
    g.running = false;
    let secs = (now() - m0) as f64 / 1e9;
    let lgc = cpu_now() - cpu0;
    let (p1, o1, mc1) = (snap(&pids), snap(&other), machine());
    let each: Vec<f64> = p0.iter().zip(&p1).map(|(a, b)| b.0 - a.0).collect();
    let (pc, oc): (f64, f64) = (each.iter().sum(), o0.iter().zip(&o1).map(|(a, b)| b.0 - a.0).sum());
    let sw: u64 = p0.iter().zip(&p1).map(|(a, b)| b.1.saturating_sub(a.1)).sum();
    let foreign = ((mc1.0 - mc0.0) - pc - oc - lgc).max(0.0);
    let h = &g.hist;
    let errs: Vec<String> = g.errs.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
    println!("{{\"ok\":{},\"errors\":{},\"non2xx\":{},\"reconnects\":{},\"secs\":{:.3},\"rps\":{:.1},\"mean\":{:.1},\"p50\":{:.1},\"p90\":{:.1},\"p99\":{:.1},\"p999\":{:.1},\"max\":{:.1},\"gbps\":{:.4},\"lg_cpu\":{:.3},\"backlog_max\":{},\"proxy_cpu\":{:.4},\"proxy_cpu_each\":{:?},\"other_cpu\":{:.3},\"proxy_switches\":{},\"foreign_cores\":{:.3},\"steal_cores\":{:.3},\"errs\":{{{}}}}}",
        g.ok, g.err, g.non2xx, g.reconn, secs, g.ok as f64 / secs, if h.n > 0 { h.sum / h.n as f64 / 1e3 } else { 0.0 }, h.q(0.5), h.q(0.9), h.q(0.99), h.q(0.999), h.max as f64 / 1e3,
        g.bytes as f64 * 8.0 / secs / 1e9, lgc, g.maxq, pc, each, oc, sw, foreign / secs, (mc1.1 - mc0.1) / secs, errs.join(","));
}
