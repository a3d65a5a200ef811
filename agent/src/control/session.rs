//! The messages of one stream, in order: what a server may send when, and what it amounts to.
//! Pure.

use mesh_core::resource::Resource;
use mesh_core::stream::{Batch1, ServerHello1, ToAgent};

use crate::limits::control::RESOURCES_MAX;
use crate::live::MeshBatch;

/// Puts a server's messages together.
#[derive(Debug, Default)]
pub struct Session {
    greeted: bool,
    pending: Option<(Batch1, Vec<Resource>)>,
}

/// What a message completed.
#[derive(Clone, Debug)]
pub enum Event {
    /// The server greets.
    Hello(ServerHello1),
    /// A whole batch is here.
    Batch(MeshBatch),
    /// The servers are others now.
    Servers(Vec<String>),
    /// The server ends the stream, for this reason.
    Goodbye(String),
}

/// What a server did that it must not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Something before the greeting.
    #[error("server sent {0} before its hello")]
    BeforeHello(&'static str),
    /// A second greeting.
    #[error("server sent a second hello")]
    SecondHello,
    /// A batch while another is not complete.
    #[error("server began a batch while {missing} resources of the last one are missing")]
    BatchInBatch {
        /// How many.
        missing: u32,
    },
    /// A resource that no batch announced.
    #[error("server sent a resource outside of a batch")]
    NoBatch,
    /// More than an agent can have subscribed to.
    #[error("batch has {found} resources, expected at most {RESOURCES_MAX}")]
    TooLarge {
        /// How many.
        found: u32,
    },
}

impl Session {
    /// Takes the next message; gives what it completed, if anything.
    ///
    /// # Errors
    /// [`ProtocolError`]; the stream is then to be closed.
    pub fn take(&mut self, message: ToAgent) -> Result<Option<Event>, ProtocolError> {
        match message {
            ToAgent::Hello(_) if self.greeted => Err(ProtocolError::SecondHello),
            ToAgent::Hello(hello) => {
                self.greeted = true;
                Ok(Some(Event::Hello(hello)))
            }
            // A server that stops may say so at any time.
            ToAgent::Goodbye(goodbye) => Ok(Some(Event::Goodbye(goodbye.reason))),
            ToAgent::Batch(_) if !self.greeted => Err(ProtocolError::BeforeHello("a batch")),
            ToAgent::Servers(_) if !self.greeted => Err(ProtocolError::BeforeHello("its servers")),
            ToAgent::Servers(told) => Ok(Some(Event::Servers(told.servers))),
            ToAgent::Batch(batch) => self.begin(batch),
            ToAgent::Resource(resource) => self.add(resource),
        }
    }

    fn begin(&mut self, batch: Batch1) -> Result<Option<Event>, ProtocolError> {
        if let Some((open, got)) = &self.pending {
            let got = u32::try_from(got.len()).unwrap_or(u32::MAX);
            return Err(ProtocolError::BatchInBatch { missing: open.resources - got });
        }
        if batch.resources > RESOURCES_MAX {
            return Err(ProtocolError::TooLarge { found: batch.resources });
        }
        self.pending = Some((batch, Vec::new()));
        Ok(self.completed())
    }

    fn add(&mut self, resource: Resource) -> Result<Option<Event>, ProtocolError> {
        let (_, resources) = self.pending.as_mut().ok_or(ProtocolError::NoBatch)?;
        resources.push(resource);
        Ok(self.completed())
    }

    fn completed(&mut self) -> Option<Event> {
        let whole = |(batch, got): &mut (Batch1, Vec<Resource>)| {
            got.len() == usize::try_from(batch.resources).unwrap_or(usize::MAX)
        };
        let (batch, resources) = self.pending.take_if(whole)?;
        let Batch1 { revision, full, .. } = batch;
        Some(Event::Batch(MeshBatch { revision, full, resources }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

    use mesh_core::revision::Revision;
    use mesh_core::stream::{Goodbye1, Servers1};

    use super::*;
    use crate::live::tests::endpoints;

    fn hello() -> ToAgent {
        ToAgent::Hello(ServerHello1 {
            server: "ctl-1".parse().unwrap(),
            revision: Revision::new(1, 1),
            heartbeat_ms: 1,
            lease_ms: 1,
            servers: vec![],
        })
    }

    fn batch(resources: u32) -> ToAgent {
        ToAgent::Batch(Batch1 { revision: Revision::new(1, 2), full: false, resources })
    }

    fn resource() -> ToAgent {
        ToAgent::Resource(endpoints("db", Revision::new(1, 2)))
    }

    fn servers() -> ToAgent {
        ToAgent::Servers(Servers1 { servers: vec!["ctl-2:7300".to_owned()] })
    }

    fn run(messages: Vec<ToAgent>) -> Result<Option<Event>, ProtocolError> {
        let mut session = Session::default();
        let mut last = Ok(None);
        for message in messages {
            last = session.take(message);
        }
        last
    }

    #[test]
    fn batches_are_put_together() {
        let whole = run(vec![hello(), batch(2), resource(), resource()]);
        assert!(matches!(whole, Ok(Some(Event::Batch(b))) if b.resources.len() == 2));
        let empty = run(vec![hello(), batch(0)]);
        assert!(matches!(empty, Ok(Some(Event::Batch(b))) if b.resources.is_empty()));
        assert!(matches!(run(vec![hello(), batch(2), resource()]), Ok(None)));
        let told = run(vec![hello(), batch(0), servers()]);
        assert!(matches!(told, Ok(Some(Event::Servers(all))) if all == ["ctl-2:7300"]));
        let again = run(vec![hello(), batch(0), batch(1), resource()]);
        assert!(matches!(again, Ok(Some(Event::Batch(_)))));
    }

    #[test]
    fn messages_out_of_order_are_errors() {
        let goodbye = ToAgent::Goodbye(Goodbye1 { reason: "restart".to_owned() });
        assert!(matches!(run(vec![goodbye]), Ok(Some(Event::Goodbye(_)))));
        let cases = [
            (vec![batch(0)], ProtocolError::BeforeHello("a batch")),
            (vec![servers()], ProtocolError::BeforeHello("its servers")),
            (vec![resource()], ProtocolError::NoBatch),
            (vec![hello(), hello()], ProtocolError::SecondHello),
            (vec![hello(), resource()], ProtocolError::NoBatch),
            (
                vec![hello(), batch(2), resource(), batch(1)],
                ProtocolError::BatchInBatch { missing: 1 },
            ),
            (vec![hello(), batch(0), resource()], ProtocolError::NoBatch),
            (vec![hello(), batch(u32::MAX)], ProtocolError::TooLarge { found: u32::MAX }),
        ];
        for (messages, want) in cases {
            assert_eq!(run(messages).err(), Some(want));
        }
    }
}
