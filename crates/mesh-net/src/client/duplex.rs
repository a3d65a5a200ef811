//! The agents' stream over one full-duplex HTTP/2 request.

use std::convert::Infallible;

use bytes::Bytes;
use mesh_core::stream::{AgentHello1, ToAgent, ToServer};
use tokio::sync::mpsc;

use super::ClientError;
use super::call::{Client, Reply, next_chunk};
use crate::limits::client::OUTGOING_MAX;
use crate::stream::{FrameReader, encode};

/// The media type of the stream, both ways.
pub(super) const CONTENT: &str = "application/octet-stream";

/// Sends to the server; the stream ends when every clone is dropped.
#[derive(Clone, Debug)]
pub struct StreamSender {
    frames: mpsc::Sender<Bytes>,
    address: String,
}

/// Receives from the server.
#[derive(Debug)]
pub struct StreamReceiver {
    reply: Reply,
    reader: FrameReader<ToAgent>,
}

impl Client {
    /// Opens the agents' stream and sends `hello`.
    ///
    /// # Errors
    /// [`ClientError`] if no server takes it; the caller tries again after a pause.
    pub async fn stream(
        &self, hello: AgentHello1,
    ) -> Result<(StreamSender, StreamReceiver), ClientError> {
        let (frames, queue) = mpsc::channel(OUTGOING_MAX);
        let mut sender = StreamSender { frames, address: self.preferred() };
        sender.send(&ToServer::Hello(hello)).await?;
        let body = futures_util::stream::unfold(queue, async |mut queue| {
            queue.recv().await.map(|frame: Bytes| (Ok::<_, Infallible>(frame), queue))
        });
        let path = super::routes::path(mesh_core::api::RouteId::Stream, "");
        let reply = self.open(&path, || reqwest::Body::wrap_stream(body)).await?;
        if reply.response.version() != http::Version::HTTP_2 {
            let why = format!("it speaks {:?}, expected HTTP/2.0", reply.response.version());
            return Err(ClientError::Malformed { address: reply.address, why });
        }
        sender.address.clone_from(&reply.address);
        Ok((sender, StreamReceiver { reply, reader: FrameReader::new() }))
    }
}

impl StreamSender {
    /// Sends `message`; waits while too many others wait.
    ///
    /// Cancel safe: a message is queued whole or not at all.
    ///
    /// # Errors
    /// [`ClientError::Lost`] if the stream is over; [`ClientError::Malformed`] if the message is
    /// larger than any may be.
    pub async fn send(&self, message: &ToServer) -> Result<(), ClientError> {
        let frame = encode(message).map_err(|error| ClientError::Malformed {
            address: "this agent".to_owned(),
            why: error.to_string(),
        })?;
        self.frames.send(frame).await.map_err(|_| ClientError::Lost {
            address: self.address.clone(),
            why: "the stream is over".to_owned(),
        })
    }
}

impl StreamReceiver {
    /// The server at the other end, as `host:port`.
    pub fn server(&self) -> &str {
        &self.reply.address
    }

    /// The next message, or `None` when the server ended the stream.
    ///
    /// Cancel safe: what was received of a message is kept.
    ///
    /// # Errors
    /// [`ClientError::Lost`] if the connection broke or ended within a message;
    /// [`ClientError::Malformed`] if the server's bytes are no message. The stream is over then.
    pub async fn recv(&mut self) -> Result<Option<ToAgent>, ClientError> {
        loop {
            let message = self.reader.next().map_err(|error| ClientError::Malformed {
                address: self.reply.address.clone(),
                why: error.to_string(),
            })?;
            if message.is_some() {
                return Ok(message);
            }
            match next_chunk(&mut self.reply).await? {
                Some(chunk) => self.reader.push(chunk),
                None if self.reader.is_empty() => return Ok(None),
                None => {
                    let why = "it ended within a message".to_owned();
                    return Err(ClientError::Lost { address: self.reply.address.clone(), why });
                }
            }
        }
    }
}
