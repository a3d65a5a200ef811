//! How a connection ends: at once, or with what is under way.

use super::super::error::{Code, Fault};
use super::super::frame::{self, WINDOW_LIMIT};
use super::super::output::Output;
use super::super::stream::{Gone, Stream};
use super::{DRAINED, Going, Greeting, Over, Role, State};

impl State {
    /// Ends the connection for what the other side did.
    pub(in super::super) fn fail(&mut self, code: Code, why: &'static str) {
        tracing::debug!(why, "connection ended for what came on it");
        let last = if self.role == Role::Server { self.last } else { 0 };
        self.out.put(|out| frame::put_goaway(out, last, code, why));
        self.end(Over::Refused);
    }

    /// The other side left, or takes nothing any more.
    pub(in super::super) fn left(&mut self) {
        self.end(if self.is_resting() { Over::Left } else { Over::Gone });
        self.out = Output::default();
    }

    /// Nothing comes any more; every stream ends.
    fn end(&mut self, over: Over) {
        self.over.get_or_insert(over);
        self.block = None;
        self.accepted.clear();
        self.queue.clear();
        let is_client = self.role == Role::Client;
        // an answer that came whole is still there to be read
        let cut = |stream: &&mut Stream| !(is_client && stream.incoming.ended);
        for stream in self.streams.values_mut().filter(cut) {
            stream.end(Gone::Closed);
        }
        self.live = self.streams.values().filter(|stream| stream.gone.is_none()).count();
        self.notify_freed();
    }

    /// Tells a client to open no more streams; those on their way are still taken.
    pub(in super::super) fn announce(&mut self) {
        if self.going == Going::No && self.greeting == Greeting::Done {
            self.going = Going::Announced;
            self.out.put(|out| {
                frame::put_goaway(out, WINDOW_LIMIT, Code::No, "");
                frame::put_ping(out, DRAINED, false);
            });
        } else if self.greeting != Greeting::Done {
            self.go();
        }
    }

    /// From now on no more streams are taken.
    pub(in super::super) fn go(&mut self) {
        if !matches!(self.going, Going::After(_)) {
            let last = if self.role == Role::Server { self.last } else { 0 };
            self.going = Going::After(last);
            if self.greeting != Greeting::Preface {
                self.out.put(|out| frame::put_goaway(out, last, Code::No, ""));
            }
        }
    }

    /// Whether the connection is to end once nothing is under way.
    pub(in super::super) fn is_going(&self) -> bool {
        matches!(self.going, Going::After(_) | Going::Told)
    }

    pub(super) fn told_to_go(&mut self, last: u32, code: Code) -> Result<(), Fault> {
        self.budget.frame()?;
        if self.role == Role::Server {
            return Ok(());
        }
        tracing::debug!(?code, "application asks for no more streams");
        self.going = Going::Told;
        for (id, stream) in &mut self.streams {
            if *id > last && stream.gone.is_none() {
                self.live -= 1;
                stream.end(Gone::Unseen);
            }
        }
        self.notify_freed();
        Ok(())
    }
}
