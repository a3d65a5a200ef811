//! One call: which server, how often, until when, and what came back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, header};
use mesh_core::api::{LEADER_HEADER, REVISION_HEADER};
use mesh_core::revision::Revision;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::builder::check_addresses;
use super::error::certificate_alert;
use super::outcome::{Miss, judge, late, refused, unknown};
use super::shared::Shared;
use super::{ANSWER_BYTES_MAX, ClientError};
use crate::limits::client::{LEADER_PAUSE, READ_SHARE_MIN};
use crate::telemetry::Chain;

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// Whatever the server has, also one cut off from the others.
    Stale,
    /// What the server has, while it knows a leader.
    #[default]
    Default,
    /// Everything that was written before the read began.
    Consistent,
}

/// Waits for a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The answer is given once the state is newer than this.
    pub index: Revision,
    /// Or at the latest after this time.
    pub wait: Duration,
}

/// How to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// How fresh.
    pub consistency: Consistency,
    /// Whether to wait for a change.
    pub wait: Option<Wait>,
}

impl ReadOptions {
    /// Reads everything that was written before.
    pub fn consistent() -> Self {
        Self { consistency: Consistency::Consistent, wait: None }
    }

    /// Reads also from a server that is cut off.
    pub fn stale() -> Self {
        Self { consistency: Consistency::Stale, wait: None }
    }

    fn query(&self) -> Vec<(&'static str, String)> {
        let mut query = Vec::new();
        match self.consistency {
            Consistency::Stale => query.push(("stale", String::new())),
            Consistency::Default => {}
            Consistency::Consistent => query.push(("consistent", String::new())),
        }
        if let Some(Wait { index, wait }) = self.wait {
            query.push(("index", index.to_string()));
            query.push(("wait", format!("{}ms", wait.as_millis())));
        }
        query
    }
}

/// What a read gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// The answer itself.
    pub value: T,
    /// The state it was read from; [`Revision::ZERO`] on routes that read none.
    pub revision: Revision,
    /// Whether the server knew a leader: if not, the answer may be old.
    pub known_leader: bool,
}

/// The client of the servers' API. Clones share connections; see the [module](super).
#[derive(Clone, Debug)]
pub struct Client {
    pub(super) shared: Arc<Shared>,
    pub(super) call_timeout: Duration,
}

/// A request before it is known who answers it.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) body: Option<(&'static str, Bytes)>,
    /// Whether repeating it changes nothing.
    pub(super) safe: bool,
    /// How long the server may wait before it answers.
    pub(super) wait: Duration,
}

/// The head of an answer of 2xx; its body is still to be read.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) address: String,
    pub(super) response: reqwest::Response,
}

impl Client {
    /// The same client with another limit on how long a call may take.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { shared: self.shared.clone(), call_timeout: timeout }
    }

    /// The addresses that are tried, in order.
    pub fn addresses(&self) -> Arc<Vec<String>> {
        self.shared.addresses.load_full()
    }

    /// Tries these addresses from now on; for all clones.
    ///
    /// # Errors
    /// [`ClientError::Address`] or [`ClientError::Addresses`]; the old ones stay.
    pub fn set_addresses(&self, addresses: Vec<String>) -> Result<(), ClientError> {
        let addresses = check_addresses(addresses)?;
        // Keep to the server that answers, if it is still one of them.
        let good = self.preferred();
        let index = addresses.iter().position(|address| *address == good).unwrap_or(0);
        self.shared.addresses.store(Arc::new(addresses));
        self.shared.good.store(index, Ordering::Relaxed);
        Ok(())
    }

    /// The server that is asked first: the one that answered last.
    pub fn preferred(&self) -> String {
        let addresses = self.shared.addresses.load();
        let good = self.shared.good.load(Ordering::Relaxed) % addresses.len();
        addresses[good].clone()
    }

    /// Asks another server first from now on.
    pub fn prefer_next(&self) {
        self.shared.good.fetch_add(1, Ordering::Relaxed);
    }

    /// Reads a JSON answer.
    pub(super) async fn read<T: DeserializeOwned>(
        &self, call: Call,
    ) -> Result<Answer<T>, ClientError> {
        let (headers, address, body) = self.bytes(call, ANSWER_BYTES_MAX).await?;
        let malformed = |why: String| ClientError::Malformed { address: address.clone(), why };
        let value = serde_json::from_slice(&body).map_err(|e| malformed(e.to_string()))?;
        let revision = match headers.get(REVISION_HEADER).map(HeaderValue::to_str) {
            None => Revision::ZERO,
            Some(text) => text
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| malformed(format!("{REVISION_HEADER} is no revision")))?,
        };
        let known_leader = headers.get(LEADER_HEADER).is_some_and(|value| value == "true");
        Ok(Answer { value, revision, known_leader })
    }

    /// The whole body of an answer, at most `max` bytes.
    pub(super) async fn bytes(
        &self, call: Call, max: usize,
    ) -> Result<(HeaderMap, String, Bytes), ClientError> {
        let deadline = Instant::now() + self.call_timeout + call.wait;
        let safe = call.safe;
        let mut reply = self.send(call, deadline).await?;
        let headers = std::mem::take(reply.response.headers_mut());
        let address = reply.address.clone();
        let collected = tokio::time::timeout_at(deadline, collect(reply, max)).await;
        let body = collected.unwrap_or_else(|_| {
            let (address, after) = (address.clone(), self.call_timeout);
            Err(ClientError::Timeout { address, after })
        });
        // The status of a write said 2xx: it is in force, only the answer's body is missing.
        let body = body.map_err(|error| if safe { error } else { unknown(error, &address) })?;
        Ok((headers, address, body))
    }

    /// Sends `call` until a server answers it with 2xx, or it may not be sent again.
    pub(super) async fn send(&self, call: Call, deadline: Instant) -> Result<Reply, ClientError> {
        loop {
            let error = match self.round(&call, deadline).await {
                Ok(reply) => return Ok(reply),
                Err(Miss::NoLeader(error)) => error,
                Err(Miss::NotSent(error) | Miss::Lost(error) | Miss::Final(error)) => {
                    return Err(error);
                }
            };
            if Instant::now() + LEADER_PAUSE >= deadline {
                return Err(error);
            }
            tokio::time::sleep(LEADER_PAUSE).await;
        }
    }

    /// Asks each server at most once, the good one first.
    async fn round(&self, call: &Call, deadline: Instant) -> Result<Reply, Miss> {
        let addresses = self.shared.addresses.load_full();
        let first = self.shared.good.load(Ordering::Relaxed);
        let mut tried = Vec::new();
        let mut worst = None;
        for step in 0..addresses.len() {
            let index = (first + step) % addresses.len();
            let address = &addresses[index];
            let until = share(call, deadline, addresses.len() - step);
            match self.attempt(call, address, until).await {
                Ok(reply) => {
                    self.shared.good.store(index, Ordering::Relaxed);
                    return Ok(reply);
                }
                Err(Miss::NotSent(error)) => tried.push(format!("{address}: {}", Chain(&error))),
                Err(Miss::Lost(error)) if call.safe => worst = Some(Miss::Lost(error)),
                Err(Miss::NoLeader(error)) => worst = Some(Miss::NoLeader(error)),
                Err(other) => return Err(other),
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        Err(worst.unwrap_or(Miss::NotSent(ClientError::Unreachable { tried })))
    }

    /// Asks one server once.
    async fn attempt(&self, call: &Call, address: &str, until: Instant) -> Result<Reply, Miss> {
        let http = self.shared.http().map_err(Miss::Final)?;
        let url = format!("https://{address}{}", call.path);
        let mut request = http.client.request(call.method.clone(), url);
        if !call.query.is_empty() {
            request = request.query(&call.query);
        }
        if let Some(value) = &self.shared.authorization {
            request = request.header(header::AUTHORIZATION, value.clone());
        }
        if let Some((content_type, body)) = &call.body {
            request = request.header(header::CONTENT_TYPE, *content_type).body(body.clone());
        }
        let started = Instant::now();
        let response = match tokio::time::timeout_at(until, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(judge(&error, address, call.safe)),
            Err(_) => return Err(Miss::Lost(late(address, started.elapsed(), call.safe))),
        };
        let reply = Reply { address: address.to_owned(), response };
        if reply.response.status().is_success() {
            return Ok(reply);
        }
        Err(refused(reply, until, call.safe).await)
    }

    /// The full-duplex request of the agents' stream, sent to the first server that takes it.
    pub(super) async fn open(
        &self, path: &str, body: impl FnOnce() -> reqwest::Body,
    ) -> Result<Reply, ClientError> {
        let deadline = Instant::now() + self.call_timeout;
        // A body can be sent once only: find a server that can be connected to first.
        let probe = Call {
            method: Method::GET,
            path: "/v1/ready".to_owned(),
            query: Vec::new(),
            body: None,
            safe: true,
            wait: Duration::ZERO,
        };
        let address = self.send(probe, deadline).await?.address;
        let http = self.shared.http()?;
        let url = format!("https://{address}{path}");
        let request = http.client.post(url).header(header::CONTENT_TYPE, super::duplex::CONTENT);
        let sent = tokio::time::timeout_at(deadline, request.body(body()).send()).await;
        let response = match sent {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(judge(&error, &address, true).into_error()),
            Err(_) => return Err(late(&address, self.call_timeout, true)),
        };
        let reply = Reply { address, response };
        if reply.response.status().is_success() {
            return Ok(reply);
        }
        Err(refused(reply, deadline, true).await.into_error())
    }
}

/// Until when one server may take, with `left` of them still to ask: a read that hangs at one must
/// leave time for the others. Writes and watches have all of it.
fn share(call: &Call, deadline: Instant, left: usize) -> Instant {
    if !call.safe || !call.wait.is_zero() {
        return deadline;
    }
    let now = Instant::now();
    let parts = u32::try_from(left).unwrap_or(u32::MAX).max(1);
    let part = (deadline - now.min(deadline)) / parts;
    deadline.min(now + part.max(READ_SHARE_MIN))
}

/// Reads a body of at most `max` bytes.
pub(super) async fn collect(mut reply: Reply, max: usize) -> Result<Bytes, ClientError> {
    let mut body = BytesMut::new();
    while let Some(chunk) = next_chunk(&mut reply).await? {
        if body.len() + chunk.len() > max {
            return Err(ClientError::TooLarge { address: reply.address, max });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// The next bytes of a body, or `None` at its end. Cancel safe: bytes stay in the response.
pub(super) async fn next_chunk(reply: &mut Reply) -> Result<Option<Bytes>, ClientError> {
    reply.response.chunk().await.map_err(|error| {
        let (address, why) = (reply.address.clone(), Chain(&error).to_string());
        match certificate_alert(&error) {
            Some(why) => ClientError::Rejected { address, why },
            None => ClientError::Lost { address, why },
        }
    })
}

impl Call {
    /// A read with these options.
    pub(super) fn query_of(options: &ReadOptions) -> (Vec<(&'static str, String)>, Duration) {
        (options.query(), options.wait.map_or(Duration::ZERO, |wait| wait.wait))
    }
}
