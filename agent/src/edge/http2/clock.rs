//! [`Clock`]: what a connection may take its time for, and how long.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::conn::State;
use super::error::Code;
use crate::edge::limits::{DRAIN, LINGER, WINDOW_STALL, WRITE_STALL};

/// How long a connection waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// For a stream, while there is none.
    pub(super) rest: Duration,
    /// For the rest of a head.
    pub(super) head: Duration,
}

/// Since when things are as they are, on one timer.
#[derive(Debug)]
pub(super) struct Clock {
    timing: Timing,
    timer: Option<Pin<Box<Sleep>>>,
    resting: Option<Instant>,
    head: Option<Instant>,
    /// Bytes wait that the transport does not take.
    stuck: Option<Instant>,
    draining: Option<Instant>,
    closing: Option<Instant>,
    /// When the streams were last looked at.
    looked: Option<Instant>,
}

impl Clock {
    pub(super) fn new(timing: Timing) -> Self {
        Self {
            timing,
            timer: None,
            resting: None,
            head: None,
            stuck: None,
            draining: None,
            closing: None,
            looked: None,
        }
    }

    /// From now on the connection is to end; whether that is news.
    pub(super) fn drain(&mut self) -> bool {
        let news = self.draining.is_none();
        self.draining.get_or_insert_with(Instant::now);
        news
    }

    /// The transport takes nothing.
    pub(super) fn stuck(&mut self) {
        self.stuck.get_or_insert_with(Instant::now);
    }

    /// The transport took something.
    pub(super) fn moved(&mut self) {
        self.stuck = None;
    }

    /// Does what is due, and waits for what is next; whether something was done. `cut` is what
    /// came of the next frame.
    pub(super) fn poll(&mut self, state: &mut State, cut: &[u8], cx: &mut Context<'_>) -> bool {
        let now = Instant::now();
        mark(&mut self.resting, state.is_resting(), now);
        mark(&mut self.head, state.awaits_head(cut), now);
        mark(&mut self.looked, !state.is_resting(), now);
        let due = |since: Option<Instant>, wait| since.is_some_and(|since| now >= since + wait);
        if due(self.stuck, WRITE_STALL) {
            state.left();
            return true;
        }
        if due(self.head, self.timing.head) {
            state.fail(Code::Calm, "head took too long");
            return true;
        }
        if due(self.looked, WINDOW_STALL / 2) {
            self.looked = Some(now);
            state.end_stalled(now, WINDOW_STALL);
            return true;
        }
        let is_over = due(self.resting, self.timing.rest) || due(self.draining, DRAIN);
        if is_over && !state.is_going() {
            state.go();
            return true;
        }
        let draining = self.draining.filter(|_| !state.is_going());
        let next = [
            self.stuck.map(|since| since + WRITE_STALL),
            self.head.map(|since| since + self.timing.head),
            self.looked.map(|since| since + WINDOW_STALL / 2),
            self.resting.map(|since| since + self.timing.rest),
            draining.map(|since| since + DRAIN),
        ];
        let next = next.into_iter().flatten().min();
        next.is_some_and(|next| self.poll_until(next, cx).is_ready())
    }

    /// Waits for the end of what a connection may take to close.
    pub(super) fn poll_closing(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let since = *self.closing.get_or_insert_with(Instant::now);
        self.poll_until(since + LINGER, cx)
    }

    /// The timer is moved to earlier only: moving it at every turn would cost more than that it
    /// rings in vain now and then. Ready if it is to be looked at again.
    fn poll_until(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if at < timer.deadline() || timer.is_elapsed() {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx)
    }
}

fn mark(since: &mut Option<Instant>, is: bool, now: Instant) {
    match (is, &since) {
        (false, Some(_)) => *since = None,
        (true, None) => *since = Some(now),
        (true, Some(_)) | (false, None) => {}
    }
}
