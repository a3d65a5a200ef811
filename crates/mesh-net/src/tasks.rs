//! [`Tasks`]: the owner of a daemon's tasks. It names them, stops them and awaits them.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};

/// Why a daemon's tasks did not end well.
#[derive(Debug, thiserror::Error)]
pub enum TaskError<E: std::error::Error + 'static> {
    /// A task gave up.
    #[error("task {name} failed")]
    Failed {
        /// Which.
        name: &'static str,
        /// Why.
        #[source]
        source: E,
    },
    /// A task broke an invariant of its own.
    #[error("task {name} panicked: {message}")]
    Panicked {
        /// Which.
        name: &'static str,
        /// What it said.
        message: String,
    },
    /// Tasks that did not stop in time and were cut off.
    #[error("tasks {} did not stop within {within:?}", names.join(", "))]
    Slow {
        /// Which.
        names: Vec<&'static str>,
        /// The time they had.
        within: Duration,
    },
}

/// Named tasks that are stopped and awaited together. Dropped, it cuts them all off.
#[derive(Debug)]
pub struct Tasks<E> {
    set: JoinSet<Result<(), E>>,
    names: HashMap<Id, &'static str>,
    stop: watch::Sender<bool>,
}

/// Tells a task to stop. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Returns when the task is to stop. Cancel safe: it only waits.
    pub async fn requested(&mut self) {
        // A lost owner asks to stop as well.
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    /// Whether the task is to stop.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

impl<E> Default for Tasks<E> {
    fn default() -> Self {
        Self { set: JoinSet::new(), names: HashMap::new(), stop: watch::Sender::new(false) }
    }
}

impl<E: std::error::Error + Send + 'static> Tasks<E> {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What tells a task to stop.
    pub fn stop_signal(&self) -> Stop {
        Stop(self.stop.subscribe())
    }

    /// Runs `task` until it ends by itself, is told to stop, or is cut off.
    pub fn spawn<F>(&mut self, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let handle = self.set.spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// How many tasks have not been seen to end.
    pub fn len(&self) -> usize {
        self.set.len()
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// Returns when a task fails or panics; tasks may end well meanwhile.
    ///
    /// Cancel safe: no failure is lost.
    pub async fn failure(&mut self) -> TaskError<E> {
        loop {
            match self.set.join_next_with_id().await {
                Some(ended) => {
                    if let Some(error) = self.judge(ended) {
                        return error;
                    }
                }
                None => std::future::pending().await,
            }
        }
    }

    /// Tells every task to stop, awaits them for at most `within`, then cuts off the rest.
    ///
    /// # Errors
    /// The first failure, else [`TaskError::Slow`].
    pub async fn stop(mut self, within: Duration) -> Result<(), TaskError<E>> {
        self.stop.send_replace(true);
        let mut first = None;
        let deadline = tokio::time::Instant::now() + within;
        while let Ok(Some(ended)) =
            tokio::time::timeout_at(deadline, self.set.join_next_with_id()).await
        {
            let error = self.judge(ended);
            first = first.or(error);
        }
        let mut names: Vec<_> = self.names.values().copied().collect();
        names.sort_unstable();
        self.set.shutdown().await;
        let slow = (!names.is_empty()).then_some(TaskError::Slow { names, within });
        first.or(slow).map_or(Ok(()), Err)
    }

    fn judge(&mut self, ended: Result<(Id, Result<(), E>), JoinError>) -> Option<TaskError<E>> {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let name = self.names.remove(&id).unwrap_or("unknown");
        match ended {
            Ok((_, Ok(()))) => None,
            Ok((_, Err(source))) => Some(TaskError::Failed { name, source }),
            Err(error) if error.is_cancelled() => None,
            Err(error) => Some(TaskError::Panicked { name, message: panic_text(error) }),
        }
    }
}

fn panic_text(error: JoinError) -> String {
    let Ok(payload) = error.try_into_panic() else { return "cut off".to_owned() };
    payload
        .downcast::<String>()
        .map(|text| *text)
        .or_else(|payload| payload.downcast::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|_| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::fmt::Error;

    use super::*;

    #[tokio::test]
    async fn tasks_stop_when_told() {
        let mut tasks = Tasks::<Error>::new();
        let mut stop = tasks.stop_signal();
        tasks.spawn("waits", async move {
            stop.requested().await;
            assert!(stop.is_requested());
            Ok(())
        });
        assert!(tasks.stop(Duration::from_secs(1)).await.is_ok());
    }

    #[tokio::test]
    async fn slow_tasks_are_cut_off_and_named() {
        let mut tasks = Tasks::<Error>::new();
        tasks.spawn("deaf", std::future::pending());
        let error = tasks.stop(Duration::from_millis(20)).await.map_err(|e| e.to_string());
        assert_eq!(error, Err("tasks deaf did not stop within 20ms".to_owned()));
    }

    #[tokio::test]
    async fn the_first_failure_comes_out_by_name() {
        let mut tasks = Tasks::new();
        tasks.spawn("ends", async { Ok(()) });
        tasks.spawn("fails", async { Err(Error) });
        assert_eq!(tasks.failure().await.to_string(), "task fails failed");
        tasks.spawn("panics", async { panic!("broken") });
        assert_eq!(tasks.failure().await.to_string(), "task panics panicked: broken");
        let quiet = tokio::time::timeout(Duration::from_millis(20), tasks.failure()).await;
        assert!(quiet.is_err() && tasks.is_empty());
    }
}
