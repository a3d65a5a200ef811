//! What `tests/fuzz` may call of what is private, and nothing else. Only with the feature `fuzzing`.

/// A namespace: each function stands beside what it calls.
#[derive(Debug)]
pub struct Fuzzing;

/// A request that was admitted.
#[derive(Debug)]
pub struct Admitted {
    /// What is matched, decided on, logged and forwarded.
    pub path: String,
    /// The same with its query.
    pub path_and_query: String,
    /// What is routed by.
    pub host: String,
    /// What is forwarded as Host.
    pub authority: String,
}
