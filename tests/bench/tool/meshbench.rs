//! meshbench: load generator, backend and "floor" relay for the mesh-path benchmark.
//! Rust std only (a handful of libc symbols are declared by hand); build: rustc -O meshbench.rs
//!
//!   meshbench backend --http A:P --h2 A:P --tcp A:P [--body N]
//!   meshbench relay   --map LISTEN=TARGET [--map ...]          plaintext epoll relay (the floor)
//!   meshbench http    --target A:P --conns N --duration S [--rate R] [--close] [--host H] [--path P]
//!   meshbench h2      --target A:P --conns N --streams M --duration S [--rate R] [--grpc] [--host H]
//!   meshbench tcp     --target A:P --mode pingpong|upload|download|connect --conns N --duration S [--size B] [--rate R]
//!   meshbench idle    --target A:P --conns N --proto http|tcp   opens N, one exchange each, holds until stdin EOF
//!   any client: [--socks5 DST:P] to reach DST through a SOCKS5 listener at --target, [--warmup S],
//!               [--pids A,B] processes under test, [--other C] harness processes: their CPU seconds (schedstat) and
//!               voluntary context switches inside the measured window are added to the JSON
//!   meshbench spin    --secs S                                 SCHED_IDLE spinner: keeps an idle (virtual) core from halting
//!   meshbench syscall                                           cost of syscalls / pipe round trip / loopback ping-pong
//! Clients print one JSON object. Latencies are in microseconds; with --rate they are measured from the
//! *intended* send time (open loop, no coordinated omission).
mod backend;
mod client;
mod limits;
mod relay;

use std::collections::{HashMap, VecDeque};
use std::net::{SocketAddr, SocketAddrV4};
use std::os::raw::{c_int, c_long, c_void};

// ---------------------------------------------------------------- libc
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct EpollEvent { events: u32, data: u64 }
#[repr(C)]
struct Timespec { sec: i64, nsec: i64 }
#[repr(C)]
struct SockaddrIn { family: u16, port: u16, addr: u32, zero: [u8; 8] }
extern "C" {
    fn epoll_create1(f: c_int) -> c_int;
    fn epoll_ctl(ep: c_int, op: c_int, fd: c_int, ev: *mut EpollEvent) -> c_int;
    fn epoll_pwait2(ep: c_int, ev: *mut EpollEvent, max: c_int, ts: *const Timespec, mask: *const c_void) -> c_int;
    fn socket(d: c_int, t: c_int, p: c_int) -> c_int;
    fn bind(fd: c_int, a: *const SockaddrIn, l: u32) -> c_int;
    fn listen(fd: c_int, b: c_int) -> c_int;
    fn accept4(fd: c_int, a: *mut c_void, l: *mut c_void, f: c_int) -> c_int;
    fn connect(fd: c_int, a: *const SockaddrIn, l: u32) -> c_int;
    fn setsockopt(fd: c_int, lv: c_int, n: c_int, v: *const c_void, l: u32) -> c_int;
    fn getsockopt(fd: c_int, lv: c_int, n: c_int, v: *mut c_void, l: *mut u32) -> c_int;
    fn read(fd: c_int, b: *mut u8, n: usize) -> isize;
    fn write(fd: c_int, b: *const u8, n: usize) -> isize;
    fn shutdown(fd: c_int, how: c_int) -> c_int;
    fn close(fd: c_int) -> c_int;
    fn pipe(fds: *mut c_int) -> c_int;
    fn prctl(o: c_int, a: usize, b: usize, c: usize, d: usize) -> c_int;
    fn clock_gettime(c: c_int, t: *mut Timespec) -> c_int;
    fn syscall(n: c_long, ...) -> c_long;
}
const EPOLLIN: u32 = 1;
const EPOLLOUT: u32 = 4;
const EPOLLERR: u32 = 8;
const EPOLLHUP: u32 = 16;
const EPOLLRDHUP: u32 = 0x2000;
const NONBLOCK: c_int = 0o4000;
const CLOEXEC: c_int = 0o2000000;

fn now() -> u64 {
    let mut t = Timespec { sec: 0, nsec: 0 };
    unsafe { clock_gettime(1, &mut t) };
    t.sec as u64 * 1_000_000_000 + t.nsec as u64
}
fn cpu_now() -> f64 {
    let mut t = Timespec { sec: 0, nsec: 0 };
    unsafe { clock_gettime(2, &mut t) };
    t.sec as f64 + t.nsec as f64 / 1e9
}
fn errno() -> i32 { std::io::Error::last_os_error().raw_os_error().unwrap_or(0) }
fn again(e: i32) -> bool { e == 11 || e == 4 }
fn sockaddr(a: &SocketAddrV4) -> SockaddrIn {
    SockaddrIn { family: 2, port: a.port().to_be(), addr: u32::from_ne_bytes(a.ip().octets()), zero: [0; 8] }
}
fn set_int(fd: c_int, lv: c_int, name: c_int, v: c_int) {
    unsafe { setsockopt(fd, lv, name, &v as *const _ as *const c_void, 4) };
}
fn nodelay(fd: c_int) { set_int(fd, 6, 1, 1) }
fn tcp_connect(a: &SocketAddrV4) -> c_int {
    unsafe {
        let fd = socket(2, 1 | NONBLOCK | CLOEXEC, 0);
        assert!(fd >= 0, "socket: errno {}", errno());
        nodelay(fd);
        let sa = sockaddr(a);
        if connect(fd, &sa, 16) != 0 && errno() != 115 { let e = errno(); close(fd); return -e; }
        fd
    }
}
fn tcp_listen(a: &SocketAddrV4) -> c_int {
    unsafe {
        let fd = socket(2, 1 | NONBLOCK | CLOEXEC, 0);
        set_int(fd, 1, 2, 1);
        let sa = sockaddr(a);
        assert!(bind(fd, &sa, 16) == 0, "bind {}: errno {}", a, errno());
        assert!(listen(fd, 4096) == 0);
        fd
    }
}
struct Ep { fd: c_int, ev: Vec<EpollEvent> }
impl Ep {
    fn new() -> Ep { Ep { fd: unsafe { epoll_create1(CLOEXEC) }, ev: vec![EpollEvent { events: 0, data: 0 }; 512] } }
    fn ctl(&self, op: c_int, fd: c_int, events: u32, data: u64) {
        let mut e = EpollEvent { events, data };
        unsafe { epoll_ctl(self.fd, op, fd, &mut e) };
    }
    fn add(&self, fd: c_int, events: u32, data: u64) { self.ctl(1, fd, events, data) }
    fn modify(&self, fd: c_int, events: u32, data: u64) { self.ctl(3, fd, events, data) }
    /// timeout in ns; u64::MAX = forever
    fn wait(&mut self, ns: u64) -> usize {
        let ts = Timespec { sec: (ns / 1_000_000_000) as i64, nsec: (ns % 1_000_000_000) as i64 };
        let p = if ns == u64::MAX { std::ptr::null() } else { &ts as *const _ };
        let n = unsafe { epoll_pwait2(self.fd, self.ev.as_mut_ptr(), self.ev.len() as c_int, p, std::ptr::null()) };
        if n < 0 { 0 } else { n as usize }
    }
}

// ---------------------------------------------------------------- histogram (log-linear, 64 sub-buckets => <1.6 % error)
struct Hist { c: Vec<u64>, n: u64, sum: f64, max: u64 }
impl Hist {
    fn new() -> Hist { Hist { c: vec![0; 64 * 64], n: 0, sum: 0.0, max: 0 } }
    fn idx(v: u64) -> usize {
        if v < 64 { return v as usize; }
        let e = 63 - v.leading_zeros() as usize;
        (e - 5) * 64 + ((v >> (e - 6)) & 63) as usize
    }
    fn val(i: usize) -> u64 {
        if i < 64 { return i as u64; }
        let (e, s) = (i / 64 + 5, (i % 64) as u64);
        ((64 + s) << (e - 6)) + (1u64 << (e - 6)) / 2
    }
    fn add(&mut self, v: u64) { self.c[Self::idx(v)] += 1; self.n += 1; self.sum += v as f64; if v > self.max { self.max = v } }
    fn q(&self, q: f64) -> f64 {
        if self.n == 0 { return 0.0; }
        let want = (q * self.n as f64).ceil() as u64;
        let mut acc = 0;
        for (i, c) in self.c.iter().enumerate() { acc += c; if acc >= want { return Self::val(i) as f64 / 1e3; } }
        self.max as f64 / 1e3
    }
}

// ---------------------------------------------------------------- arguments
struct Args(HashMap<String, Vec<String>>);
impl Args {
    fn parse(v: &[String]) -> Args {
        let mut m: HashMap<String, Vec<String>> = HashMap::new();
        let mut i = 0;
        while i < v.len() {
            let k = v[i].trim_start_matches("--").to_string();
            if i + 1 < v.len() && !v[i + 1].starts_with("--") { m.entry(k).or_default().push(v[i + 1].clone()); i += 2 }
            else { m.entry(k).or_default().push(String::new()); i += 1 }
        }
        Args(m)
    }
    fn s(&self, k: &str) -> Option<&str> { self.0.get(k).map(|v| v[0].as_str()) }
    fn f(&self, k: &str, d: f64) -> f64 { self.s(k).map(|x| x.parse().expect(k)).unwrap_or(d) }
    fn n(&self, k: &str, d: usize) -> usize { self.f(k, d as f64) as usize }
    fn has(&self, k: &str) -> bool { self.0.contains_key(k) }
    fn addr(&self, k: &str) -> Option<SocketAddrV4> { self.s(k).map(parse_addr) }
}
fn parse_addr(s: &str) -> SocketAddrV4 {
    match s.parse::<SocketAddr>().unwrap_or_else(|_| panic!("bad address {s}")) { SocketAddr::V4(a) => a, _ => panic!("IPv4 only") }
}
fn find(h: &[u8], n: &[u8]) -> Option<usize> {
    if h.len() < n.len() { return None; }
    let last = h.len() - n.len();
    let mut i = 0;
    while i <= last {
        match h[i..=last].iter().position(|&b| b == n[0]) {
            None => return None,
            Some(p) => { i += p; if &h[i..i + n.len()] == n { return Some(i); } i += 1; }
        }
    }
    None
}
fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let t = std::str::from_utf8(head).ok()?;
    t.split("\r\n").skip(1).find_map(|l| { let (k, v) = l.split_once(':')?; if k.eq_ignore_ascii_case(name) { Some(v.trim()) } else { None } })
}

fn main() {
    let v: Vec<String> = std::env::args().skip(1).collect();
    if v.is_empty() { eprintln!("usage: see the head of meshbench.rs"); std::process::exit(2); }
    let a = Args::parse(&v[1..]);
    match v[0].as_str() {
        "backend" => backend::backend(&a), "relay" => relay::relay(&a), "syscall" => limits::limits(),
        "spin" => {
            extern "C" { fn sched_setscheduler(pid: c_int, pol: c_int, p: *const c_int) -> c_int; }
            let p: c_int = 0; unsafe { sched_setscheduler(0, 5, &p) };
            let end = now() + (a.f("secs", 10.0) * 1e9) as u64;
            while now() < end { for _ in 0..2000 { std::hint::spin_loop() } }
        }
        c @ ("http" | "h2" | "tcp" | "idle") => client::client(c, &a),
        c => { eprintln!("unknown command {c}"); std::process::exit(2); }
    }
}
