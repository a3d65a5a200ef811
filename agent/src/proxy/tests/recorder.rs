//! An application that keeps every byte it receives, and reads them as strictly as they can be.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A request as the application saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) line: String,
    /// Names in lower case; a field given twice is an error but for `cookie`.
    pub(super) fields: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
}

/// See the module. Every request is answered with `ok`.
pub(super) struct Recorder {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Vec<Result<Seen, String>>>>,
    _serving: JoinSet<()>,
}

impl Recorder {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<_>>>::default();
        let all = Arc::clone(&seen);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(record(stream, Arc::clone(&all)));
            }
        });
        Self { address, seen, _serving: serving }
    }

    /// The requests seen since the last time, in their order.
    pub(super) fn take(&self) -> Vec<Seen> {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        seen.into_iter().map(|one| one.expect("the application saw no request")).collect()
    }
}

async fn record(mut stream: TcpStream, all: Arc<Mutex<Vec<Result<Seen, String>>>>) {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match read(&bytes) {
            Ok(Some((seen, len))) => {
                bytes.drain(..len);
                all.lock().unwrap().push(Ok(seen));
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                stream.write_all(answer).await.unwrap();
                continue;
            }
            Ok(None) => {}
            Err(why) => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                return all.lock().unwrap().push(Err(format!("{why}: {text:?}")));
            }
        }
        match stream.read(&mut buffer).await {
            Ok(len @ 1..) => bytes.extend_from_slice(&buffer[..len]),
            // what was begun and broken off is no request
            Ok(0) | Err(_) => return,
        }
    }
}

/// The first request of `bytes` and its length, once all of it is there.
fn read(bytes: &[u8]) -> Result<Option<(Seen, usize)>, String> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| "head is not UTF-8")?;
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap_or_default().to_owned();
    let parts: Vec<&str> = line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = parts[..] else { return Err("request line".to_owned()) };
    let plain = method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
    if !plain || !target.starts_with('/') || head.split("\r\n").any(|l| l.contains(['\r', '\n'])) {
        return Err("request line, or a line without its end".to_owned());
    }
    let mut fields = BTreeMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").ok_or("a field without its colon")?;
        let token = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if name.is_empty() || !name.bytes().all(token) || value != value.trim() {
            return Err(format!("field {name:?}"));
        }
        if fields.insert(name.to_owned(), value.to_owned()).is_some() && name != "cookie" {
            return Err(format!("{name} twice"));
        }
    }
    if !fields.contains_key("host") {
        return Err("no host".to_owned());
    }
    let rest = &bytes[end + 4..];
    let body = match (fields.get("content-length"), fields.get("transfer-encoding")) {
        (None, None) => Some((Vec::new(), 0)),
        (Some(length), None) => {
            let length: usize = length.parse().map_err(|_| "content-length")?;
            rest.get(..length).map(|body| (body.to_vec(), length))
        }
        (None, Some(coding)) if coding == "chunked" => chunks(rest)?,
        _ => return Err("two framings".to_owned()),
    };
    Ok(body.map(|(body, len)| (Seen { line, fields, body }, end + 4 + len)))
}

fn chunks(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, String> {
    let (mut at, mut body) = (0, Vec::new());
    loop {
        let rest = &bytes[at..];
        let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(&rest[..end]).map_err(|_| "chunk size")?;
        let size = usize::from_str_radix(size, 16).map_err(|_| "chunk size")?;
        let Some(data) = rest.get(end + 2..end + 2 + size) else { return Ok(None) };
        match rest.get(end + 2 + size..end + 4 + size) {
            None => return Ok(None),
            Some(b"\r\n") => {}
            Some(_) => return Err("chunk without its end, or trailers".to_owned()),
        }
        body.extend_from_slice(data);
        at += end + 4 + size;
        if size == 0 {
            return Ok(Some((body, at)));
        }
    }
}
