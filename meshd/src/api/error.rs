//! [`Failure`]: the one table from what went wrong to a status and a stable code.

use axum::http::StatusCode;
use mesh_core::api::RouteSpec;
use mesh_core::command::Rejected;

use crate::ca::{CsrError, IssueError};
use crate::raft::{BackupError, ProposeError, ReadError};
use crate::server::NoIssuer;

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The request is wrong.
    Invalid,
    /// Nobody known asks.
    Unauthenticated,
    /// Somebody known may not.
    Forbidden,
    /// No such thing.
    NotFound,
    /// No such method there.
    Method,
    /// The body did not come in time.
    Slow,
    /// Somebody else was first.
    Conflict,
    /// Over a bound.
    TooLarge,
    /// Too often.
    TooMany,
    /// Surely not done: try again later.
    Unavailable,
    /// Perhaps done: read before trying again.
    Unknown,
    /// Ours.
    Internal,
}

impl Kind {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Invalid => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unknown => StatusCode::GATEWAY_TIMEOUT,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// Why a request has no good answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    /// Stable, for programs.
    pub(super) code: &'static str,
    /// For people.
    pub(super) message: String,
    /// What in the request is wrong, if one thing is.
    pub(super) field: Option<String>,
}

impl Failure {
    pub(super) fn new(kind: Kind, code: &'static str, message: impl Into<String>) -> Self {
        Self { kind, code, message: message.into(), field: None }
    }

    /// `field` of the request is wrong.
    pub(super) fn field(field: &str, message: impl Into<String>) -> Self {
        let field = Some(field.to_owned());
        Self { field, ..Self::new(Kind::Invalid, "invalid", message) }
    }

    pub(super) fn not_found(what: &str, name: impl std::fmt::Display) -> Self {
        Self::new(Kind::NotFound, "not_found", format!("{what} \"{name}\" does not exist"))
    }

    /// Something of ours: the caller is told no details.
    pub(super) fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        let error = mesh_net::telemetry::Chain(error);
        tracing::error!(%error, "a request failed");
        let message = "the server failed; its log says why, by the request id";
        Self::new(Kind::Internal, "internal", message)
    }

    pub(super) fn not_initialised() -> Self {
        Self::from(Rejected::NotInitialised)
    }

    pub(super) fn log(&self, spec: &RouteSpec, request_id: &str) {
        let Self { kind, code, message: why, field: _ } = self;
        let route = spec.path;
        match kind {
            Kind::Unknown | Kind::Internal => {
                tracing::error!(route, request_id, code, why, "a request failed");
            }
            Kind::Unauthenticated | Kind::Forbidden | Kind::TooMany | Kind::Unavailable => {
                tracing::info!(route, request_id, code, why, "a request was refused");
            }
            Kind::Invalid
            | Kind::NotFound
            | Kind::Method
            | Kind::Slow
            | Kind::Conflict
            | Kind::TooLarge => {
                tracing::debug!(route, request_id, code, why, "a request was refused");
            }
        }
    }
}

impl From<ProposeError> for Failure {
    fn from(error: ProposeError) -> Self {
        let (kind, code) = match error {
            ProposeError::NoLeader(_) | ProposeError::Unavailable(_) => {
                (Kind::Unavailable, "no_leader")
            }
            ProposeError::Unknown(_) => (Kind::Unknown, "outcome_unknown"),
            ProposeError::TooLarge { .. } => (Kind::TooLarge, "too_large"),
            ProposeError::Rejected(why) => return why.into(),
        };
        Self::new(kind, code, error.to_string())
    }
}

impl From<Rejected> for Failure {
    fn from(why: Rejected) -> Self {
        let (kind, code) = match &why {
            Rejected::Initialised(_) => (Kind::Conflict, "initialised"),
            Rejected::NotInitialised => (Kind::Unavailable, "not_initialised"),
            Rejected::NotFound { .. } => (Kind::NotFound, "not_found"),
            Rejected::Exists { .. } => (Kind::Conflict, "exists"),
            Rejected::TokenInvalid => (Kind::Unauthenticated, "token_invalid"),
            Rejected::TokenExpired(_) => (Kind::Forbidden, "token_expired"),
            Rejected::TokenUsed(_) => (Kind::Forbidden, "token_used"),
            Rejected::TokenScope { .. } => (Kind::Forbidden, "token_scope"),
            Rejected::NodePolicy { .. } => (Kind::Forbidden, "node_policy"),
            Rejected::Instance(_) => (Kind::Invalid, "invalid"),
            Rejected::Conflict { .. } => (Kind::Conflict, "conflict"),
            Rejected::Policy(_) => (Kind::Invalid, "policy_invalid"),
            Rejected::TooMany { .. } => (Kind::Conflict, "too_many"),
            Rejected::Restore(_) => (Kind::Invalid, "restore"),
            Rejected::Forbidden { .. } => (Kind::Forbidden, "forbidden"),
            Rejected::FeatureLevel { .. } | Rejected::ServerBehind { .. } => {
                (Kind::Conflict, "feature_level")
            }
        };
        Self::new(kind, code, why.to_string())
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        let code = match error {
            ReadError::NoLeader(_) => "no_leader",
            ReadError::Behind(_) => "behind",
        };
        Self::new(Kind::Unavailable, code, error.to_string())
    }
}

impl From<CsrError> for Failure {
    fn from(error: CsrError) -> Self {
        Self::field("csr_pem", error.to_string())
    }
}

impl From<IssueError> for Failure {
    fn from(error: IssueError) -> Self {
        Self::internal(&error)
    }
}

impl From<NoIssuer> for Failure {
    fn from(error: NoIssuer) -> Self {
        match error {
            NoIssuer::NotInitialised => Self::not_initialised(),
            NoIssuer::Ca(error) => Self::internal(&error),
        }
    }
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        let text = mesh_net::tls::describe(&error);
        match error {
            BackupError::TooLarge { .. } => Self::new(Kind::TooLarge, "too_large", text),
            _ => Self::new(Kind::Invalid, "restore", text),
        }
    }
}

impl From<tokio::task::JoinError> for Failure {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::internal(&error)
    }
}
