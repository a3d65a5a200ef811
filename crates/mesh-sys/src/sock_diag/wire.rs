//! The netlink messages as bytes: `nlmsghdr`, `inet_diag_req_v2` and `inet_diag_msg`
//! (linux/netlink.h, linux/inet_diag.h). Pure.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{DiagError, SocketInfo, TcpState};

/// The longest answer read, in bytes; the kernel's are under 300.
pub(super) const ANSWER_LEN_MAX: usize = 4096;

/// A question: one socket, by its addresses, of one family and never IPv4-mapped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    local: (IpAddr, u16),
    remote: (IpAddr, u16),
    /// The interface of a link-local IPv6 address, or 0.
    scope: u32,
}

/// What a datagram says to our question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Found(SocketInfo),
    Missing,
    /// Late, from an earlier question.
    NotOurs,
}

impl Question {
    pub(super) fn new(local: SocketAddr, remote: SocketAddr) -> Option<Self> {
        let scope = match local {
            SocketAddr::V6(v6) => v6.scope_id(),
            SocketAddr::V4(_) => 0,
        };
        let local = (local.ip().to_canonical(), local.port());
        let remote = (remote.ip().to_canonical(), remote.port());
        (local.0.is_ipv4() == remote.0.is_ipv4()).then_some(Self { local, remote, scope })
    }
}

/// The request for exactly the socket of `question`.
pub(super) fn request(question: &Question, sequence: u32) -> [u8; REQUEST_LEN] {
    let family = if question.local.0.is_ipv4() { AF_INET } else { AF_INET6 };
    let mut bytes = [0; REQUEST_LEN];
    let mut at = 0;
    let mut put = |field: &[u8]| {
        bytes[at..at + field.len()].copy_from_slice(field);
        at += field.len();
    };
    put(&(REQUEST_LEN as u32).to_ne_bytes());
    put(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    put(&NLM_F_REQUEST.to_ne_bytes());
    put(&sequence.to_ne_bytes());
    put(&0_u32.to_ne_bytes()); // our port: the kernel knows it
    // No extension: the cgroup id comes unasked, and has no bit in this byte.
    put(&[family, IPPROTO_TCP, 0, 0]);
    put(&u32::MAX.to_ne_bytes()); // states; an exact lookup ignores them
    put(&question.local.1.to_be_bytes());
    put(&question.remote.1.to_be_bytes());
    put(&address(question.local.0));
    put(&address(question.remote.0));
    put(&question.scope.to_ne_bytes());
    put(&u64::MAX.to_ne_bytes()); // any cookie
    bytes
}

/// Reads `datagram` as an answer to `question`, asked under `sequence`.
pub(super) fn parse(
    datagram: &[u8], sequence: u32, question: &Question,
) -> Result<Reply, DiagError> {
    let mut rest = datagram;
    while !rest.is_empty() {
        let header: [u8; HEADER_LEN] = field(rest, 0)?;
        let len = u32::from_ne_bytes(field(&header, 0)?) as usize;
        let kind = u16::from_ne_bytes(field(&header, 4)?);
        let body = rest.get(HEADER_LEN..len).ok_or(DiagError::Malformed("wrong length"))?;
        if u32::from_ne_bytes(field(&header, 8)?) == sequence {
            return parse_body(kind, body, question);
        }
        rest = rest.get(aligned(len)..).unwrap_or_default();
    }
    Ok(Reply::NotOurs)
}

fn parse_body(kind: u16, body: &[u8], question: &Question) -> Result<Reply, DiagError> {
    match kind {
        SOCK_DIAG_BY_FAMILY => parse_socket(body, question),
        NLMSG_ERROR => match i32::from_ne_bytes(field(body, 0)?) {
            ENOENT => Ok(Reply::Missing),
            code if code < 0 => {
                let code = code.checked_neg().unwrap_or(i32::MAX);
                Err(DiagError::Refused(io::Error::from_raw_os_error(code)))
            }
            _ => Err(DiagError::Malformed("an acknowledgement, expected a socket")),
        },
        _ => Err(DiagError::Malformed("unknown message type")),
    }
}

fn parse_socket(body: &[u8], question: &Question) -> Result<Reply, DiagError> {
    let message: [u8; SOCKET_LEN] = field(body, 0)?;
    let local = (read_address(message[0], field(&message, 8)?)?, 4);
    let remote = (read_address(message[0], field(&message, 24)?)?, 6);
    let port = |at| field(&message, at).map(u16::from_be_bytes);
    // Where no connection fits the kernel offers a listener of that address: not what was asked.
    if (local.0, port(local.1)?) != question.local || (remote.0, port(remote.1)?) != question.remote
    {
        return Ok(Reply::Missing);
    }
    let word = |at| field(&message, at).map(u32::from_ne_bytes);
    Ok(Reply::Found(SocketInfo {
        state: TcpState(message[1]),
        cookie: u64::from(word(44)?) | u64::from(word(48)?) << 32,
        uid: word(64)?,
        inode: word(68)?,
        cgroup_id: parse_cgroup(&body[SOCKET_LEN..])?,
    }))
}

/// The cgroup id among the attributes (`nlattr`: length, type, value, padded to 4 bytes).
fn parse_cgroup(mut attributes: &[u8]) -> Result<Option<u64>, DiagError> {
    while attributes.len() >= ATTRIBUTE_LEN {
        let len = usize::from(u16::from_ne_bytes(field(attributes, 0)?));
        let kind = u16::from_ne_bytes(field(attributes, 2)?);
        let value =
            attributes.get(ATTRIBUTE_LEN..len).ok_or(DiagError::Malformed("wrong length"))?;
        if kind == INET_DIAG_CGROUP_ID {
            return field(value, 0).map(|id| Some(u64::from_ne_bytes(id)));
        }
        attributes = attributes.get(aligned(len)..).unwrap_or_default();
    }
    Ok(None)
}

fn read_address(family: u8, bytes: [u8; 16]) -> Result<IpAddr, DiagError> {
    match family {
        AF_INET => field(&bytes, 0).map(|v4: [u8; 4]| Ipv4Addr::from(v4).into()),
        // An IPv6 socket may hold an IPv4 connection.
        AF_INET6 => Ok(IpAddr::from(Ipv6Addr::from(bytes)).to_canonical()),
        _ => Err(DiagError::Malformed("unknown address family")),
    }
}

fn address(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&v4.octets());
            bytes
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], DiagError> {
    bytes
        .get(at..)
        .and_then(|tail| tail.first_chunk())
        .copied()
        .ok_or(DiagError::Malformed("short"))
}

fn aligned(len: usize) -> usize {
    len.next_multiple_of(4)
}

const HEADER_LEN: usize = 16;
pub(super) const REQUEST_LEN: usize = HEADER_LEN + 56;
pub(super) const SOCKET_LEN: usize = 72;
const ATTRIBUTE_LEN: usize = 4;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const INET_DIAG_CGROUP_ID: u16 = 21;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const ENOENT: i32 = -2;
