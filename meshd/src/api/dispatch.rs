//! From a route's id to its handler: exhaustive, so that a route without one does not compile.

use axum::body::Body;
use axum::http::Version;
use mesh_core::api::RouteId;

use super::error::{Failure, Kind};
use super::request::Call;
use super::{Answer, BINARY, JSON, METRICS};
use super::{backup, enrol, nodes, openapi, policy, read, servers, tokens};
use crate::watch::{self, Caller};

pub(super) async fn dispatch(call: Call, stream: Option<Body>) -> Result<Answer, Failure> {
    match call.spec.id {
        RouteId::Ready => read::ready(&call),
        RouteId::OpenApi => Ok(Answer::of(openapi::text(), JSON, None)),
        RouteId::Metrics => metrics(&call),
        RouteId::Status => read::status(&call).await,
        RouteId::Agents => read::agents(&call).await,
        RouteId::Why => read::why(&call),
        RouteId::Bundle
        | RouteId::Servers
        | RouteId::Tokens
        | RouteId::OwnInstances
        | RouteId::Nodes
        | RouteId::Node
        | RouteId::Services
        | RouteId::Service
        | RouteId::Health
        | RouteId::Policy
        | RouteId::PolicyObject => read::watched(&call).await,
        RouteId::JoinServer => servers::join(&call).await,
        RouteId::TransferLeader => servers::transfer(&call).await,
        RouteId::RemoveServer => servers::remove(&call).await,
        RouteId::CreateToken => tokens::create(&call).await,
        RouteId::DeleteToken => tokens::delete(&call).await,
        RouteId::Enrol => enrol::enrol(&call).await,
        RouteId::Renew => enrol::renew(&call),
        RouteId::Issue => enrol::issue(&call).await,
        RouteId::Stream => open_stream(call, stream),
        RouteId::SyncInstances => nodes::sync(&call).await,
        RouteId::SetAddress => nodes::set_address(&call).await,
        RouteId::SetNodePolicy => nodes::set_policy(&call).await,
        RouteId::RemoveNode => nodes::remove(&call).await,
        RouteId::Revoke => nodes::revoke(&call).await,
        RouteId::ApplyPolicy => policy::apply(&call).await,
        RouteId::DeletePolicy => policy::delete(&call).await,
        RouteId::SaveSnapshot => backup::save(&call).await,
        RouteId::RestoreSnapshot => backup::restore(&call).await,
    }
}

fn metrics(call: &Call) -> Result<Answer, Failure> {
    call.server.metrics.raft(&call.server.node.metrics());
    let mut text = String::new();
    let registry = &call.server.registry;
    let registry = registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    prometheus_client::encoding::text::encode(&mut text, &registry)
        .map_err(|error| Failure::internal(&error))?;
    Ok(Answer::of(text, METRICS, None))
}

fn open_stream(call: Call, stream: Option<Body>) -> Result<Answer, Failure> {
    use futures_util::TryStreamExt;
    if call.version != Version::HTTP_2 {
        let text = format!("the stream came by {:?}, expected HTTP/2", call.version);
        return Err(Failure::new(Kind::Invalid, "http2_required", text));
    }
    let node = nodes::own(&call)?;
    let peer = call.peer.and_then(|peer| peer.identity);
    let (Some(peer), Some(body)) = (peer, stream) else {
        return Err(Failure::new(Kind::Unauthenticated, "unauthenticated", "no certificate"));
    };
    let incoming = body.into_data_stream().map_err(|error| error.to_string());
    let outgoing = watch::open(&call.server, Caller { node, peer }, incoming);
    Ok(Answer::of(Body::new(outgoing), BINARY, None))
}
