//! `find`: which route takes this request? First match wins, top down.

use serde::{Deserialize, Serialize};

use crate::access::{HttpRequest, any_value_is};
use crate::policy::{Origin, RouteMatch};
use crate::resource::{Backend, CompiledRoute, ServiceRoutes};

/// The route found, with its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// This route matched first.
    Route(&'a CompiledRoute),
    /// None matched: all endpoints of the service.
    Default,
}

/// A route, as named in logs and answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteRef {
    /// `service.orders/route[0]`, or `service.orders/default`.
    pub id: String,
    /// Where it stands, if anywhere.
    pub origin: Option<Origin>,
    /// The version of the file it stands in; 0 if there is none.
    pub version: u64,
}

/// The first route of `routes` that takes `request`; a connection whose requests are not seen
/// (`None`) takes the default.
pub fn find<'a>(routes: &'a ServiceRoutes, request: Option<&HttpRequest<'_>>) -> Found<'a> {
    let Some(request) = request else {
        return Found::Default;
    };
    let first = routes.routes.iter().find(|route| takes(&route.matches, request));
    first.map_or(Found::Default, Found::Route)
}

/// Whether a route with `wanted` takes `request`.
pub fn takes(wanted: &RouteMatch, request: &HttpRequest<'_>) -> bool {
    let method = wanted.methods.is_empty()
        || wanted.methods.iter().any(|method| method.as_str() == request.method);
    method
        && wanted.path.matches(request.path)
        && wanted.headers.iter().all(|header| any_value_is(header, request))
}

impl Found<'_> {
    /// The route as named in logs and answers.
    pub fn reference(&self, routes: &ServiceRoutes) -> RouteRef {
        let (id, origin) = match self {
            Self::Route(route) => {
                let id = format!("service.{}/route[{}]", routes.service, route.index);
                (id, Some(route.origin.clone()))
            }
            Self::Default => (format!("service.{}/default", routes.service), routes.origin.clone()),
        };
        RouteRef { id, origin, version: routes.version }
    }

    /// Longest time for one request, in milliseconds.
    pub fn timeout_ms(&self, routes: &ServiceRoutes) -> u64 {
        match self {
            Self::Route(route) => route.timeout_ms,
            Self::Default => routes.timeout_ms,
        }
    }

    /// The backend for a draw in `0..total weight`, where `draw` is any number; `None` is all
    /// endpoints of the service itself.
    pub fn backend(&self, draw: u64) -> Option<&Backend> {
        let Self::Route(route) = self else {
            return None;
        };
        let total: u64 = route.backends.iter().map(|backend| u64::from(backend.weight)).sum();
        let mut at = draw % total.max(1);
        for backend in &route.backends {
            let weight = u64::from(backend.weight);
            if at < weight {
                return Some(backend);
            }
            at -= weight;
        }
        route.backends.last()
    }
}

#[cfg(test)]
mod tests;
