#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::net::{TcpListener, TcpStream};

use rustix::net::sockopt::socket_cookie;

use super::wire::{Question, SOCKET_LEN};
use super::*;

fn connect(at: &str) -> Option<(TcpListener, TcpStream, TcpStream)> {
    let Ok(listener) = TcpListener::bind(at) else {
        println!("skipped {at}: this machine has no such address");
        return None;
    };
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    Some((listener, client, accepted))
}

#[test]
fn a_connected_client_is_found_with_its_owner() {
    let mut diag = Diag::open().unwrap();
    for at in ["127.0.0.1:0", "127.0.0.7:0", "[::1]:0"] {
        let Some((_listener, client, accepted)) = connect(at) else { continue };
        let from = client.local_addr().unwrap();
        let to = accepted.local_addr().unwrap();
        let seen = diag.lookup(from, to).unwrap().unwrap();
        assert_eq!(seen.state, TcpState::ESTABLISHED, "{at}");
        assert_eq!(seen.uid, rustix::process::geteuid().as_raw(), "{at}");
        assert_ne!(seen.inode, 0, "{at}");
        println!("{at}: cgroup {:?}", seen.cgroup_id);
        assert_eq!(seen.cookie, socket_cookie(&client).unwrap(), "{at}");
        let again = diag.lookup(from, to).unwrap().unwrap();
        assert_eq!(again, seen, "{at}: a second look sees the same socket");
        let ours = diag.lookup(to, from).unwrap().unwrap();
        assert_eq!(ours.cookie, socket_cookie(&accepted).unwrap(), "{at}: the other end");
    }
}

#[test]
fn ipv4_mapped_addresses_find_sockets_of_both_families() {
    let Some((listener, client, accepted)) = connect("[::]:0") else { return };
    let mut diag = Diag::open().unwrap();
    let port = listener.local_addr().unwrap().port();
    for to in ["127.0.0.1", "::ffff:127.0.0.1"] {
        // An IPv4 socket, then an IPv6 one that holds an IPv4 connection.
        let client = TcpStream::connect((to, port)).unwrap();
        let (accepted, mapped) = listener.accept().unwrap();
        assert!(mapped.is_ipv6(), "the listener sees a mapped address");
        let seen = diag.lookup(mapped, accepted.local_addr().unwrap()).unwrap().unwrap();
        assert_eq!(seen.cookie, socket_cookie(&client).unwrap(), "{to}");
    }
    drop((client, accepted));
}

#[test]
fn a_closed_client_is_not_established_or_has_no_owner() {
    let mut diag = Diag::open().unwrap();
    let (_listener, client, accepted) = connect("127.0.0.1:0").unwrap();
    let (from, to) = (client.local_addr().unwrap(), accepted.local_addr().unwrap());
    drop(client);
    let seen = diag.lookup(from, to).unwrap();
    assert!(seen.is_none_or(|seen| seen.state != TcpState::ESTABLISHED && seen.inode == 0));
}

#[test]
fn a_listener_is_not_taken_for_a_connection() {
    let mut diag = Diag::open().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let here = listener.local_addr().unwrap();
    assert_eq!(diag.lookup(here, "127.0.0.1:9".parse().unwrap()).unwrap(), None);
    let families = diag.lookup(here, "[::1]:9".parse().unwrap());
    assert!(matches!(families, Err(DiagError::Families { .. })));
}

#[test]
fn a_question_costs_little() {
    let mut diag = Diag::open().unwrap();
    let (_listener, client, accepted) = connect("127.0.0.1:0").unwrap();
    let (from, to) = (client.local_addr().unwrap(), accepted.local_addr().unwrap());
    let start = Instant::now();
    for _ in 0..1_000 {
        diag.lookup(from, to).unwrap().unwrap();
    }
    let each = start.elapsed() / 1_000;
    println!("a lookup takes {each:?}");
    assert!(each < Duration::from_millis(5), "{each:?}: orders of magnitude over the usual");
}

/// A good answer, as the kernel would write it, with a cgroup id behind another attribute.
fn answer(sequence: u32) -> Vec<u8> {
    let mut socket = [0; SOCKET_LEN];
    (socket[0], socket[1]) = (2, 1);
    socket[4..8].copy_from_slice(&[0x10, 0, 0x20, 0]);
    socket[8..12].copy_from_slice(&[127, 0, 0, 1]);
    socket[24..28].copy_from_slice(&[127, 0, 0, 2]);
    socket[44..52].copy_from_slice(&0x1_0000_0002_u64.to_ne_bytes());
    socket[64..68].copy_from_slice(&1000_u32.to_ne_bytes());
    socket[68..72].copy_from_slice(&77_u32.to_ne_bytes());
    let mut body = socket.to_vec();
    body.extend([5, 0, 8, 0, 0, 0, 0, 0]); // one byte of value, three of padding
    body.extend([12, 0, 21, 0]);
    body.extend(4242_u64.to_ne_bytes());
    message(20, sequence, &body)
}

fn message(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = (16 + body.len() as u32).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(0_u16.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend(body);
    bytes
}

fn question() -> Question {
    Question::new("127.0.0.1:4096".parse().unwrap(), "127.0.0.2:8192".parse().unwrap()).unwrap()
}

#[test]
fn answers_are_read_by_the_letter() {
    let found = Reply::Found(SocketInfo {
        state: TcpState::ESTABLISHED,
        uid: 1000,
        inode: 77,
        cookie: if cfg!(target_endian = "little") { 0x1_0000_0002 } else { 0x2_0000_0001 },
        cgroup_id: Some(4242),
    });
    let other = Question::new("127.0.0.1:4097".parse().unwrap(), "127.0.0.2:8192".parse().unwrap());
    assert_eq!(parse(&answer(7), 7, &question()).unwrap(), found);
    assert_eq!(parse(&answer(7), 8, &question()).unwrap(), Reply::NotOurs, "an earlier answer");
    assert_eq!(parse(&answer(7), 7, &other.unwrap()).unwrap(), Reply::Missing, "another socket");
    assert_eq!(parse(&[], 7, &question()).unwrap(), Reply::NotOurs);
    let both = [answer(6), answer(7)].concat();
    assert_eq!(parse(&both, 7, &question()).unwrap(), found, "two messages in a datagram");
}

#[test]
fn refusals_are_told_from_absence() {
    let error = |code: i32| parse(&message(2, 7, &code.to_ne_bytes()), 7, &question());
    assert_eq!(error(-2).unwrap(), Reply::Missing);
    assert!(matches!(error(-1), Err(DiagError::Refused(e)) if e.raw_os_error() == Some(1)));
    assert!(matches!(error(i32::MIN), Err(DiagError::Refused(_))));
    assert!(matches!(error(0), Err(DiagError::Malformed(_))));
    assert!(matches!(parse(&message(3, 7, &[]), 7, &question()), Err(DiagError::Malformed(_))));
}

#[test]
fn no_bytes_make_the_parser_panic() {
    let good = answer(7);
    for len in 0..good.len() {
        let _ = parse(&good[..len], 7, &question());
        // Cut, but with a length that agrees.
        let mut cut = good[..len].to_vec();
        if len >= 4 {
            cut[..4].copy_from_slice(&(len as u32).to_ne_bytes());
        }
        let _ = parse(&cut, 7, &question());
    }
    let mut rng: u64 = 1;
    for _ in 0..200_000 {
        let mut bytes = good.clone();
        for _ in 0..3 {
            rng =
                rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (rng >> 33) as usize % bytes.len();
            bytes[at] = (rng >> 17) as u8;
        }
        let _ = parse(&bytes, 7, &question());
    }
}
