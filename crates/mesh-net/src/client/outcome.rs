//! What a failed attempt allows: whether another server may be asked.

use std::time::Duration;

use http::StatusCode;
use mesh_core::api::ApiError;
use tokio::time::Instant;

use super::call::{Reply, collect};
use super::error::certificate_alert;
use super::{ANSWER_BYTES_MAX, ClientError};
use crate::telemetry::Chain;

/// The code of the answer of a server that did not apply a write because it knows no leader.
const NO_LEADER: &str = "no_leader";

/// Why one server gave no answer, and what that allows.
pub(super) enum Miss {
    /// Surely not sent: the next server may be asked.
    NotSent(ClientError),
    /// Refused and surely not applied, for want of a leader.
    NoLeader(ClientError),
    /// Sent, and no answer: reads only may ask the next.
    Lost(ClientError),
    /// An answer, and not a good one.
    Final(ClientError),
}

impl Miss {
    pub(super) fn into_error(self) -> ClientError {
        match self {
            Self::NotSent(error)
            | Self::NoLeader(error)
            | Self::Lost(error)
            | Self::Final(error) => error,
        }
    }
}

/// What a request that was not answered allows.
pub(super) fn judge(error: &reqwest::Error, address: &str, safe: bool) -> Miss {
    let (address, why) = (address.to_owned(), Chain(error).to_string());
    if error.is_connect() || error.is_builder() {
        return Miss::NotSent(ClientError::Lost { address, why });
    }
    if let Some(why) = certificate_alert(error) {
        return Miss::Final(ClientError::Rejected { address, why });
    }
    Miss::Lost(match safe {
        true => ClientError::Lost { address, why },
        false => ClientError::Unknown { address, why },
    })
}

/// The error of a request that was not answered in time.
pub(super) fn late(address: &str, after: Duration, safe: bool) -> ClientError {
    let address = address.to_owned();
    match safe {
        true => ClientError::Timeout { address, after },
        false => ClientError::Unknown { address, why: format!("none within {after:?}") },
    }
}

/// The error of a write whose answer was lost.
pub(super) fn unknown(error: ClientError, address: &str) -> ClientError {
    ClientError::Unknown { address: address.to_owned(), why: Chain(&error).to_string() }
}

/// What an answer that is not 2xx allows.
pub(super) async fn refused(reply: Reply, until: Instant, safe: bool) -> Miss {
    let status = reply.response.status();
    let body = tokio::time::timeout_at(until, collect(reply, ANSWER_BYTES_MAX)).await;
    let body = body.ok().and_then(Result::ok).unwrap_or_default();
    let error = serde_json::from_slice(&body).unwrap_or_else(|_| foreign_error(status, &body));
    let no_leader = status == StatusCode::SERVICE_UNAVAILABLE && error.code == NO_LEADER;
    let error = ClientError::Api { status: status.as_u16(), error };
    match status {
        StatusCode::SERVICE_UNAVAILABLE if no_leader => Miss::NoLeader(error),
        // Another server may be able to answer a read.
        StatusCode::SERVICE_UNAVAILABLE if safe => Miss::Lost(error),
        _ => Miss::Final(error),
    }
}

/// The error of something that does not speak our API, such as a load balancer between.
fn foreign_error(status: StatusCode, body: &[u8]) -> ApiError {
    let text = String::from_utf8_lossy(&body[..body.len().min(256)]);
    let message = format!("server answered {status}: {}", text.trim());
    ApiError { code: format!("http_{}", status.as_u16()), message, field: None, request_id: None }
}
