//! What comes on streams: heads, bodies, trailers, their end.

use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode};
use http_body::Frame as BodyFrame;

use super::super::error::{Code, Fault};
use super::super::frame;
use super::super::head::{self, Fields, HeadError};
use super::super::stream::{Expects, Gone, Stream, keep, wake};
use super::{Accepted, Block, Role, State, protocol};
use crate::edge::body::BodyError;
use crate::edge::limits::{
    BLOCK_BYTES_MAX, BLOCK_FRAMES_MAX, CONNECTION_WINDOW, INFORMED_MAX, LATE_DATA_LEAST,
    STREAM_WINDOW, STREAMS_MAX,
};

impl State {
    pub(super) fn headers(
        &mut self, stream: u32, bytes: &[u8], end_stream: bool, end_headers: bool,
        fault: Option<&'static str>,
    ) -> Result<(), Fault> {
        if stream.is_multiple_of(2) {
            return Err(protocol("a stream has an even number"));
        }
        if end_headers {
            return self.fields(stream, bytes, end_stream, fault);
        }
        let bytes = BytesMut::from(bytes);
        self.block = Some(Block { stream, bytes, frames: 1, end_stream, fault });
        Ok(())
    }

    pub(super) fn continuation(
        &mut self, stream: u32, bytes: &[u8], end_headers: bool,
    ) -> Result<(), Fault> {
        let Some(block) = self.block.as_mut().filter(|block| block.stream == stream) else {
            return Err(protocol("a block of fields is continued on another stream"));
        };
        block.frames += 1;
        block.bytes.extend_from_slice(bytes);
        // CVE-2024-30255: what is dropped for its size must still end
        if block.frames > BLOCK_FRAMES_MAX || block.bytes.len() > BLOCK_BYTES_MAX {
            return Err(Fault::connection(Code::Calm, "a block of fields is too large"));
        }
        match self.block.take_if(|_| end_headers) {
            Some(block) => self.fields(stream, &block.bytes, block.end_stream, block.fault),
            None => Ok(()),
        }
    }

    /// Takes a whole block.
    fn fields(
        &mut self, id: u32, bytes: &[u8], end: bool, fault: Option<&'static str>,
    ) -> Result<(), Fault> {
        let fields = head::fields(&mut self.decoder, bytes)
            .map_err(|why| Fault::connection(Code::Compression, why))?;
        if self.is_late(id) {
            // it was told, and will send this elsewhere
            return self.budget.frame();
        }
        let is_new = self.role == Role::Server && id > self.last;
        if is_new {
            self.last = id;
        }
        if let Some(why) = fault {
            return Err(Fault::stream(id, Code::Protocol, why));
        }
        self.budget.message();
        if is_new {
            return self.request(id, fields, end);
        }
        let Some(stream) = self.streams.get_mut(&id) else { return self.on_ended(id, 0) };
        if stream.gone.is_some() {
            return after_gone(stream);
        }
        if stream.incoming.ended {
            return Err(Fault::stream(id, Code::StreamClosed, "fields follow the end of a stream"));
        }
        match stream.expects {
            Expects::Head { informed, bodiless } => {
                answer(id, stream, fields, end, informed, bodiless)
            }
            Expects::Trailers if !end => {
                Err(Fault::stream(id, Code::Protocol, "trailers are not the end of their stream"))
            }
            Expects::Trailers => {
                let trailers =
                    head::trailers(fields).map_err(|why| Fault::stream(id, Code::Protocol, why))?;
                whole(id, stream)?;
                stream.incoming.trailers = trailers;
                stream.incoming.ended = true;
                wake(&mut stream.incoming.reader);
                Ok(())
            }
        }
    }

    /// Takes the head of a request.
    fn request(&mut self, id: u32, fields: Fields, end: bool) -> Result<(), Fault> {
        if self.live >= STREAMS_MAX {
            return Err(Fault::stream(id, Code::Refused, "more than 100 streams are open"));
        }
        let (accepted, declared) = match head::request(fields) {
            Ok((_, Some(1..))) if end => {
                let why = "content-length without a body";
                return Err(Fault::stream(id, Code::Protocol, why));
            }
            Ok((head, declared)) => {
                (Accepted::Request { head: Box::new(head), ended: end }, declared)
            }
            Err(HeadError::Refused(reject)) => (Accepted::Refused(reject), None),
            Err(HeadError::Malformed(why)) => return Err(Fault::stream(id, Code::Protocol, why)),
        };
        let window = i64::from(self.peer_window);
        self.streams.insert(id, Stream::new(window, declared, end, Expects::Trailers));
        self.live += 1;
        self.accepted.push_back((id, accepted));
        Ok(())
    }

    /// Something came on a stream that is no more: so much data, or fields.
    fn on_ended(&mut self, id: u32, data: u32) -> Result<(), Fault> {
        if self.is_idle(id) {
            return Err(protocol("a frame is on a stream that was not opened"));
        }
        let late = self.is_late(id);
        match self.how_ended(id) {
            // it was on its way, and is paid for by its bytes
            Some(true) if data >= LATE_DATA_LEAST => Ok(()),
            None if late && data >= LATE_DATA_LEAST => Ok(()),
            Some(true) => self.budget.frame(),
            None if late => self.budget.frame(),
            Some(false) => {
                Err(Fault::connection(Code::StreamClosed, "a frame follows the end of its stream"))
            }
            None => Err(protocol("a stream's number is lower than one before")),
        }
    }

    pub(super) fn data(
        &mut self, id: u32, data: &[u8], flow: u32, end: bool, whole_read: Option<&Bytes>,
    ) -> Result<(), Fault> {
        self.recv_window -= i64::from(flow);
        if self.recv_window < 0 {
            let why = "data is over the connection's window";
            return Err(Fault::connection(Code::FlowControl, why));
        }
        if data.is_empty() && !end {
            self.budget.frame()?;
        }
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.gone.is_none()) else {
            self.taken += flow;
            self.allow();
            return match self.streams.get(&id) {
                Some(stream) => after_gone(stream),
                None => self.on_ended(id, flow),
            };
        };
        if !data.is_empty() {
            self.budget.message();
        }
        // paddings are taken at once; the rest when somebody takes it, or nobody will
        let padding = flow.saturating_sub(u32::try_from(data.len()).unwrap_or(flow));
        let dropped = if stream.incoming.wanted { padding } else { flow };
        self.taken += dropped;
        stream.incoming.taken += padding;
        let taken = take_data(id, stream, data, flow, end, whole_read);
        if taken.is_err() && stream.incoming.wanted {
            self.taken += flow - padding;
        }
        self.allow();
        taken
    }

    /// The client gave a stream up, or the application did.
    pub(super) fn reset_by_peer(&mut self, id: u32, code: Code) -> Result<(), Fault> {
        if self.is_idle(id) {
            return Err(protocol("a stream is reset that was not opened"));
        }
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.gone.is_none()) else {
            return self.budget.frame();
        };
        // an answer that is whole stands, though the request was not taken to its end
        if self.role == Role::Client && stream.incoming.ended && code == Code::No {
            stream.sent = true;
            wake(&mut stream.sender);
            return Ok(());
        }
        let (unread, answered) = (stream.incoming.discard(), stream.answered);
        stream.by_peer = true;
        stream.end(match code {
            Code::Refused => Gone::Unseen,
            other => Gone::Reset(other),
        });
        self.live -= 1;
        self.taken += unread;
        self.allow();
        self.notify_freed();
        if self.role == Role::Server && !answered { self.budget.reset() } else { Ok(()) }
    }

    /// The next part of a stream's body.
    pub(in super::super) fn poll_body(
        &mut self, id: u32, cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, BodyError>>> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Some(Err(BodyError::Incomplete)));
        };
        match stream.gone {
            None => {}
            Some(Gone::Malformed(why)) => {
                return Poll::Ready(Some(Err(BodyError::Malformed(why))));
            }
            Some(Gone::Reset(_) | Gone::Unseen | Gone::Closed) => {
                return Poll::Ready(Some(Err(BodyError::Incomplete)));
            }
        }
        let incoming = &mut stream.incoming;
        if let Some(data) = incoming.pop() {
            let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
            incoming.taken += len;
            self.taken += len;
            // nothing more comes on a stream that has ended
            if !incoming.ended && incoming.taken >= STREAM_WINDOW / 2 {
                let taken = std::mem::take(&mut incoming.taken);
                incoming.window += i64::from(taken);
                self.out.put(|out| frame::put_window_update(out, id, taken));
            }
            self.allow();
            return Poll::Ready(Some(Ok(BodyFrame::data(data))));
        }
        if incoming.ended {
            let trailers = incoming.trailers.take();
            return Poll::Ready(trailers.map(|fields| Ok(BodyFrame::trailers(fields))));
        }
        keep(&mut incoming.reader, cx);
        Poll::Pending
    }

    /// What is wrong with a stream's body, if something is.
    pub(in super::super) fn malformed(&self, id: u32) -> Option<&'static str> {
        match self.streams.get(&id)?.gone? {
            Gone::Malformed(why) => Some(why),
            Gone::Reset(_) | Gone::Unseen | Gone::Closed => None,
        }
    }

    /// Nobody reads a stream's body any more.
    pub(in super::super) fn unwanted(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.incoming.wanted = false;
            self.taken += stream.incoming.discard();
            self.allow();
        }
    }

    /// Lets more come on the connection, once it is worth a frame.
    pub(super) fn allow(&mut self) {
        if self.taken >= CONNECTION_WINDOW / 2 && self.over.is_none() {
            let taken = std::mem::take(&mut self.taken);
            self.recv_window += i64::from(taken);
            self.out.put(|out| frame::put_window_update(out, 0, taken));
        }
    }
}

fn take_data(
    id: u32, stream: &mut Stream, data: &[u8], flow: u32, end: bool, whole_read: Option<&Bytes>,
) -> Result<(), Fault> {
    let fault = |code, why| Err(Fault::stream(id, code, why));
    let incoming = &mut stream.incoming;
    if incoming.ended {
        return fault(Code::StreamClosed, "data follows the end of its stream");
    }
    if matches!(stream.expects, Expects::Head { .. }) {
        return fault(Code::Protocol, "data comes before the answer's head");
    }
    incoming.window -= i64::from(flow);
    if incoming.window < 0 {
        return fault(Code::FlowControl, "data is over the stream's window");
    }
    if let Some(left) = &mut incoming.declared {
        match left.checked_sub(data.len() as u64) {
            Some(rest) if rest == 0 || !end => *left = rest,
            Some(_) | None => return fault(Code::Protocol, LENGTH),
        }
    }
    if incoming.wanted {
        incoming.push(data, whole_read);
    }
    incoming.ended = end;
    wake(&mut incoming.reader);
    Ok(())
}

/// Something came on a stream that ended before its time, and is not forgotten yet.
fn after_gone(stream: &Stream) -> Result<(), Fault> {
    if stream.by_peer {
        let why = "a frame follows the reset of its stream";
        return Err(Fault::connection(Code::StreamClosed, why));
    }
    // it may have been on its way
    Ok(())
}

const LENGTH: &str = "data is not as long as content-length says";

/// Whether as much data came as was declared.
fn whole(id: u32, stream: &Stream) -> Result<(), Fault> {
    match stream.incoming.declared {
        None | Some(0) => Ok(()),
        Some(_) => Err(Fault::stream(id, Code::Protocol, LENGTH)),
    }
}

/// Takes the head of an answer.
fn answer(
    id: u32, stream: &mut Stream, fields: Fields, end: bool, informed: usize, bodiless: bool,
) -> Result<(), Fault> {
    let fault = |why| Fault::stream(id, Code::Protocol, why);
    let (head, declared) = head::response(fields).map_err(fault)?;
    if head.status().is_informational() {
        if end || informed >= INFORMED_MAX || head.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(fault("a preliminary answer ends its stream, or is one too many"));
        }
        stream.expects = Expects::Head { informed: informed + 1, bodiless };
        return Ok(());
    }
    let bodiless = bodiless || is_bodiless(&head);
    stream.incoming.declared = if bodiless { Some(0) } else { declared };
    stream.expects = Expects::Trailers;
    if end {
        whole(id, stream)?;
        stream.incoming.ended = true;
    }
    stream.head = Some(Box::new(head));
    wake(&mut stream.sender);
    Ok(())
}

fn is_bodiless(head: &Response<()>) -> bool {
    matches!(head.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}
