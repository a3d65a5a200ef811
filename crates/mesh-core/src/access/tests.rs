//! The evaluator against a reference written from the words of the design, and named cases.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod cases;
mod props;
mod reference;

use super::*;
use crate::policy::{PathMatch, text};
use crate::testing::{World, name};

/// The access of `orders` under this policy, in a mesh that denies by default.
fn access(toml: &str) -> ServiceAccess {
    let mut world = World::new();
    world.policy("orders.toml", toml);
    crate::compile::access(&world.state, &name("orders")).unwrap()
}

/// [`access`], where `orders` speaks HTTP.
fn http_access(rules: &str) -> ServiceAccess {
    access(&format!("[service.orders]\nprotocol = \"http\"\n{rules}"))
}

fn id(path: &str) -> SpiffeId {
    name(&format!("spiffe://td.mesh.internal/{path}"))
}

fn service(service: &str) -> SpiffeId {
    id(&format!("ns/default/dc/dc1/svc/{service}"))
}

fn ask(access: &ServiceAccess, caller: &SpiffeId, http: Option<HttpRequest<'_>>) -> Decision {
    decide(access, &AccessRequest { caller, http })
}

fn get<'a>(path: &'a str, headers: &'a [(&'a str, &'a [u8])]) -> Option<HttpRequest<'a>> {
    Some(HttpRequest { method: "GET", path, headers })
}
