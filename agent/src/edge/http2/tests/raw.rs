//! A client that sends bytes as it is told, and what it sees.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;

use super::super::error::Code;
use super::super::frame::{self, Frame, HEADER_LEN, Header, PREFACE};
use super::super::head::{self, Fields};
use super::super::hpack::{Decoder, put_field};
use super::*;

pub(super) struct Client {
    pub(super) io: DuplexStream,
    pub(super) server: JoinHandle<Served>,
    pub(super) closing: CancellationToken,
    pub(super) app: Arc<App>,
    decoder: Decoder,
}

/// A frame that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Head(u32, u16, bool),
    Trailers(u32, String),
    Data(u32, Vec<u8>, bool),
    Reset(u32, Code),
    GoAway(u32, Code),
    Window(u32, u32),
    Pong([u8; 8]),
    Ping([u8; 8]),
    Settings,
    Ack,
}

/// A frame of these parts.
pub(super) fn frame_of(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let [s0, s1, s2, s3] = stream.to_be_bytes();
    [&[a, b, c, kind, flags, s0, s1, s2, s3][..], payload].concat()
}

/// A block of fields.
pub(super) fn block(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut block = bytes::BytesMut::new();
    for (name, value) in pairs {
        put_field(&mut block, name, value.as_bytes(), false);
    }
    block.to_vec()
}

/// A request's head.
pub(super) fn request(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let own = [(":method", method), (":scheme", "http"), (":authority", "x"), (":path", path)];
    block(&[&own[..], more].concat())
}

/// HEADERS of a request, with END_HEADERS and perhaps END_STREAM.
pub(super) fn head_of(stream: u32, method: &str, path: &str, end: bool) -> Vec<u8> {
    frame_of(1, if end { 5 } else { 4 }, stream, &request(method, path, &[]))
}

pub(super) fn data_of(stream: u32, data: &[u8], end: bool) -> Vec<u8> {
    frame_of(0, u8::from(end), stream, data)
}

impl Client {
    /// One that has sent nothing.
    pub(super) fn silent(config: Config) -> Self {
        let app = Arc::<App>::default();
        let (io, server) = duplex(1 << 20);
        let closing = CancellationToken::new();
        let server = serving(server, &app, config, &closing);
        Self { io, server, closing, app, decoder: Decoder::new() }
    }

    /// One that has greeted and was greeted.
    pub(super) async fn with(config: Config, settings: &[(u16, u32)]) -> Self {
        let mut client = Self::silent(config);
        let mut hello = bytes::BytesMut::from(PREFACE);
        frame::put_settings(&mut hello, settings);
        client.send(&hello).await;
        assert_eq!(client.next().await, Seen::Settings);
        assert!(matches!(client.next().await, Seen::Window(0, _)));
        assert_eq!(client.next().await, Seen::Ack);
        client
    }

    pub(super) async fn new() -> Self {
        Self::with(CONFIG, &[]).await
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        // a server that is gone is seen by what it said last
        let _ = self.io.write_all(bytes).await;
    }

    /// The next frame; none at the end.
    pub(super) async fn read(&mut self) -> Option<Seen> {
        let reading = async {
            let mut header = [0; HEADER_LEN];
            self.io.read_exact(&mut header).await.ok()?;
            let header = Header::read(&header).unwrap();
            let mut payload = vec![0; header.len];
            self.io.read_exact(&mut payload).await.ok()?;
            Some((header, payload))
        };
        let (header, payload) = timeout(Duration::from_secs(5), reading).await.expect("in time")?;
        header.check().unwrap();
        Some(match header.parse(&payload).unwrap() {
            Frame::Headers { stream, block, end_stream, end_headers: true, .. } => {
                self.fields(stream, block, end_stream)
            }
            Frame::Data { stream, data, end, .. } => Seen::Data(stream, data.to_vec(), end),
            Frame::Reset { stream, code } => Seen::Reset(stream, code),
            Frame::GoAway { last, code } => Seen::GoAway(last, code),
            Frame::WindowUpdate { stream, increment } => Seen::Window(stream, increment),
            Frame::Ping { ack: true, payload } => Seen::Pong(payload),
            Frame::Ping { ack: false, payload } => Seen::Ping(payload),
            Frame::Settings(_) => Seen::Settings,
            Frame::SettingsAck => Seen::Ack,
            other => panic!("{other:?}"),
        })
    }

    fn fields(&mut self, stream: u32, block: &[u8], end: bool) -> Seen {
        let read = |decoder: &mut Decoder| -> Fields { head::fields(decoder, block).unwrap() };
        let fields = read(&mut self.decoder);
        if fields.is_head() {
            let (head, _) = head::response(fields).unwrap();
            return Seen::Head(stream, head.status().as_u16(), end);
        }
        assert!(end, "trailers are the end");
        Seen::Trailers(stream, format!("{:?}", head::trailers(fields).unwrap()))
    }

    pub(super) async fn next(&mut self) -> Seen {
        self.read().await.expect("a frame")
    }

    /// The next frame but windows.
    pub(super) async fn message(&mut self) -> Seen {
        loop {
            match self.next().await {
                Seen::Window(..) => {}
                other => return other,
            }
        }
    }

    /// All frames until the connection ends, within a second, and how it ended.
    pub(super) async fn rest(mut self) -> (Vec<Seen>, Served) {
        let mut seen = Vec::new();
        let reading = async {
            while let Some(frame) = self.read().await {
                seen.push(frame);
            }
        };
        timeout(Duration::from_secs(1), reading).await.expect("an end within a second");
        drop(self.io);
        let served = timeout(Duration::from_secs(5), self.server).await.unwrap().unwrap();
        (seen, served)
    }

    /// Asserts that the connection works still.
    pub(super) async fn works(&mut self, stream: u32) {
        self.send(&head_of(stream, "GET", "/works", true)).await;
        loop {
            match self.next().await {
                Seen::Data(id, data, end) if id == stream => {
                    assert_eq!((data.as_slice(), end), (&b"GET /works 0"[..], true));
                    return;
                }
                Seen::GoAway(_, code) => panic!("{code:?}"),
                _ => {}
            }
        }
    }
}
