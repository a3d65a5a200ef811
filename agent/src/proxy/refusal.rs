//! [`Refusal`]: every way in which the proxy itself ends a call, and how callers see it.

use http::{HeaderValue, Response, StatusCode};

use super::body::ProxyBody;
use super::grpc;
use crate::edge::Reject;
use crate::link::Code;

/// Header that names the refusal's code.
pub(super) const ERROR_HEADER: &str = "mesh-error";

/// Header that names the rule that denied.
pub(super) const RULE_HEADER: &str = "mesh-rule";

/// Why the proxy ended a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// The request cannot be forwarded unambiguously.
    #[error("request refused: {0}")]
    BadRequest(String),
    /// It is no request that has one reading.
    #[error("request refused: {0}")]
    Rejected(Reject),
    /// No telling who calls.
    #[error("caller unknown: {0}")]
    CallerUnknown(&'static str),
    /// The caller is no service of this host.
    #[error(
        "caller is uid {0}, which is no service of this host; name its unit or user in services.d, or set local_callers = \"node\""
    )]
    CallerNoService(u32),
    /// The port belongs to another service.
    #[error("this port belongs to service {0}")]
    PortOfOther(String),
    /// The callee's rules deny it.
    #[error("denied by {rule}: {caller} may not call {service}")]
    Denied {
        /// The deciding rule, or `default`.
        rule: String,
        /// Who called.
        caller: String,
        /// Whom.
        service: String,
    },
    /// Policy, revocation or identity changed while the call was under way.
    #[error("access to {0} was withdrawn while the call was under way")]
    Withdrawn(String),
    /// The Host names no service.
    #[error("no service in Host {0:?}, expected NAME or NAME.{1}")]
    NoService(String, String),
    /// Nothing is known of the service.
    #[error("nothing is known of service {0} yet")]
    NoRoutes(String),
    /// It has no endpoint that may be used.
    #[error("no healthy endpoint of {0}")]
    NoEndpoint(String),
    /// The service is not what the caller speaks.
    #[error("service {service} speaks {declared}, found {found}")]
    Protocol {
        /// The service.
        service: String,
        /// What it declares.
        declared: &'static str,
        /// What came.
        found: &'static str,
    },
    /// The other agent, or the application, cannot be reached.
    #[error("cannot connect to {0}")]
    Connect(String),
    /// It broke off.
    #[error("{0} broke off before it answered")]
    Broken(String),
    /// It took too long.
    #[error("{what} did not answer within {ms} ms")]
    Timeout {
        /// Who.
        what: String,
        /// How long it had.
        ms: u64,
    },
    /// This host has no valid certificate for the caller.
    #[error("no valid certificate for {0}")]
    NoIdentity(String),
    /// The service is not, or no longer, hosted here.
    #[error("service {0} is not hosted here")]
    NotHosted(String),
}

impl Refusal {
    /// Stable, for metrics, logs and the `mesh-error` header.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::BadRequest(_) | Self::Rejected(_) => "bad_request",
            Self::CallerUnknown(_) => "caller_unknown",
            Self::CallerNoService(_) => "caller_no_service",
            Self::PortOfOther(_) => "port_of_other",
            Self::Denied { .. } => "denied",
            Self::Withdrawn(_) => "withdrawn",
            Self::NoService(..) => "no_service",
            Self::NoRoutes(_) => "no_routes",
            Self::NoEndpoint(_) => "no_endpoint",
            Self::Protocol { .. } => "protocol",
            Self::Connect(_) => "connect",
            Self::Broken(_) => "broken",
            Self::Timeout { .. } => "timeout",
            Self::NoIdentity(_) => "no_identity",
            Self::NotHosted(_) => "not_hosted",
        }
    }

    /// As an HTTP status.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Rejected(reject) => reject.status,
            Self::CallerUnknown(_)
            | Self::CallerNoService(_)
            | Self::PortOfOther(_)
            | Self::Denied { .. }
            | Self::Withdrawn(_) => StatusCode::FORBIDDEN,
            Self::NoService(..) => StatusCode::NOT_FOUND,
            Self::NoRoutes(_) | Self::NoEndpoint(_) | Self::NoIdentity(_) | Self::NotHosted(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Protocol { .. } | Self::Connect(_) | Self::Broken(_) => StatusCode::BAD_GATEWAY,
            Self::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// As the code of a link's reset, for TCP streams.
    pub(super) fn link_code(&self) -> Code {
        match self {
            Self::Denied { .. } | Self::Withdrawn(_) | Self::Protocol { .. } => Code::DENIED,
            Self::NotHosted(_) | Self::NoEndpoint(_) => Code::REFUSED,
            Self::Timeout { .. } => Code::TIMEOUT,
            Self::BadRequest(_)
            | Self::Rejected(_)
            | Self::CallerUnknown(_)
            | Self::CallerNoService(_)
            | Self::PortOfOther(_)
            | Self::NoService(..)
            | Self::NoRoutes(_)
            | Self::Connect(_)
            | Self::Broken(_)
            | Self::NoIdentity(_) => Code::UNAVAILABLE,
        }
    }

    /// As the whole answer to a call of gRPC, or of any other kind.
    pub(super) fn response_to(&self, is_grpc: bool) -> Response<ProxyBody> {
        if is_grpc { grpc::answer(self) } else { self.response() }
    }

    /// As the whole answer.
    pub(super) fn response(&self) -> Response<ProxyBody> {
        let mut response = Response::new(ProxyBody::own(format!("mesh: {self}\n")));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert("content-type", HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(ERROR_HEADER, HeaderValue::from_static(self.code()));
        if let Self::Denied { rule, .. } = self
            && let Ok(rule) = HeaderValue::from_str(rule)
        {
            headers.insert(RULE_HEADER, rule);
        }
        response
    }
}
