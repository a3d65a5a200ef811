//! [`Watch`]: a read repeated for as long as somebody wants to know.

use std::future::Future;
use std::time::Duration;

use futures_util::Stream;
use mesh_core::revision::Revision;
use tokio::time::Instant;

use super::{Answer, Client, ClientError, Consistency, ReadOptions, Wait};
use crate::limits::client::{ERROR_PAUSE_MAX, POLL_PAUSE};

/// Gives a value now, and again each time it may have changed.
///
/// By the rules of Consul's blocking queries: each poll carries the revision of the last answer;
/// if a revision goes backwards, because the mesh was restored or another server lags, the next
/// poll starts over without one.
#[derive(Debug)]
pub struct Watch<F> {
    client: Client,
    read: F,
    consistency: Consistency,
    wait: Duration,
    last: Revision,
    errors: u32,
}

impl Client {
    /// Watches what `read` reads; each poll waits for at most `wait`.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use mesh_net::client::{Client, ClientError, Consistency};
    /// # async fn example(client: Client) -> Result<(), ClientError> {
    /// let minute = Duration::from_secs(60);
    /// let mut nodes = client.watch(Consistency::Default, minute, async |client: Client, options| {
    ///     client.nodes(options).await
    /// });
    /// loop {
    ///     println!("{} nodes", nodes.next().await?.value.len());
    /// }
    /// # }
    /// ```
    pub fn watch<T, F, Fut>(&self, consistency: Consistency, wait: Duration, read: F) -> Watch<F>
    where
        F: FnMut(Client, ReadOptions) -> Fut,
        Fut: Future<Output = Result<Answer<T>, ClientError>>,
    {
        let (client, last) = (self.clone(), Revision::ZERO);
        Watch { client, read, consistency, wait, last, errors: 0 }
    }
}

impl<F> Watch<F> {
    /// The revision of the last answer; [`Revision::ZERO`] before it and after a step backwards.
    pub fn revision(&self) -> Revision {
        self.last
    }

    /// The next answer that is not of the revision given before.
    ///
    /// Cancel safe: a poll that is dropped is repeated.
    ///
    /// # Errors
    /// Those of the read. The watch goes on after an error, more slowly after several.
    pub async fn next<T, Fut>(&mut self) -> Result<Answer<T>, ClientError>
    where
        F: FnMut(Client, ReadOptions) -> Fut,
        Fut: Future<Output = Result<Answer<T>, ClientError>>,
    {
        if self.errors > 0 {
            let pause = POLL_PAUSE * (1 << self.errors.min(8));
            tokio::time::sleep(pause.min(ERROR_PAUSE_MAX)).await;
        }
        loop {
            let wait =
                (self.last > Revision::ZERO).then_some(Wait { index: self.last, wait: self.wait });
            let options = ReadOptions { consistency: self.consistency, wait };
            let started = Instant::now();
            let answer = match (self.read)(self.client.clone(), options).await {
                Ok(answer) => answer,
                Err(error) => {
                    self.errors = self.errors.saturating_add(1);
                    return Err(error);
                }
            };
            self.errors = 0;
            if wait.is_some() && answer.revision == self.last {
                tokio::time::sleep_until(started + POLL_PAUSE).await;
                continue;
            }
            let backwards = answer.revision < self.last;
            self.last = if backwards { Revision::ZERO } else { answer.revision };
            return Ok(answer);
        }
    }

    /// The answers as a stream without end.
    pub fn into_stream<T, Fut>(self) -> impl Stream<Item = Result<Answer<T>, ClientError>>
    where
        F: FnMut(Client, ReadOptions) -> Fut,
        Fut: Future<Output = Result<Answer<T>, ClientError>>,
    {
        futures_util::stream::unfold(self, async |mut watch| Some((watch.next().await, watch)))
    }
}
