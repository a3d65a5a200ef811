//! A small blocking HTTP/1.1 client, so that tests see exactly what was answered on which
//! connection.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// One keep-alive connection.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
    host: String,
}

/// An answer, read whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Names in lower case; the last value of each.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
}

impl Connection {
    /// Connects to `address`; requests will be for `host`.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn open(address: SocketAddr, host: &str) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), host: host.to_owned() })
    }

    /// Sends a GET and reads the answer; the connection stays open.
    ///
    /// # Errors
    /// Those of the socket, or an answer that is no HTTP/1.1.
    pub fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.send("GET", path, &[], "")
    }

    /// Sends a request and reads the answer.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn send(
        &mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str,
    ) -> io::Result<Answer> {
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.host);
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            request.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        request.push_str("\r\n");
        request.push_str(body);
        self.stream.get_mut().write_all(request.as_bytes())?;
        self.read()
    }

    fn read(&mut self) -> io::Result<Answer> {
        let first = self.line()?;
        let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status: {first:?}")))?;
        let mut headers = BTreeMap::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':') {
                headers.insert(name.to_lowercase(), value.trim().to_owned());
            }
        }
        let body = self.body(&headers)?;
        Ok(Answer { status, headers, body })
    }

    fn body(&mut self, headers: &BTreeMap<String, String>) -> io::Result<String> {
        let mut body = Vec::new();
        if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
            loop {
                let size = self.line()?;
                let size = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
                let mut chunk = vec![0; size + 2];
                self.stream.read_exact(&mut chunk)?;
                if size == 0 {
                    break;
                }
                body.extend_from_slice(&chunk[..size]);
            }
        } else if let Some(length) = headers.get("content-length") {
            body = vec![0; length.parse().map_err(io::Error::other)?];
            self.stream.read_exact(&mut body)?;
        }
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }
}

/// One request on a connection of its own.
///
/// # Errors
/// As [`Connection::get`].
pub fn get(address: SocketAddr, host: &str, path: &str) -> io::Result<Answer> {
    Connection::open(address, host)?.get(path)
}
