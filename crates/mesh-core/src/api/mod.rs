//! Wire types of the HTTPS API, version 1, and the table of its routes. JSON at the edge.

mod routes;
mod types;

pub use routes::{Body, ROUTES, RouteId, RouteSpec};
pub use types::*;

/// Header of every answer: the revision of the state it was read from or written to.
pub const REVISION_HEADER: &str = "x-mesh-revision";
/// Header of every answer: whether the server knows a leader.
pub const LEADER_HEADER: &str = "x-mesh-known-leader";
/// Header of every answer: an id that stands in the server's log.
pub const REQUEST_ID_HEADER: &str = "x-mesh-request-id";
