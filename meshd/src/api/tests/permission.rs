//! Every role at every route: nobody gets further than the table of permissions says.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use mesh_core::api::{ApiError, Body as Kinds, ROUTES, RouteSpec, TokenPurpose};
use mesh_core::trust::{Permission, Principal, Role, permits};
use mesh_net::token::JoinToken;
use tower::ServiceExt;

use super::world::World;
use crate::api::{Peer, router};

fn request(route: &RouteSpec, token: Option<&str>, peer: &Peer) -> Request<Body> {
    let path: Vec<&str> = route
        .path
        .split('/')
        .map(|part| if part.starts_with('{') { "nothing" } else { part })
        .collect();
    let mut request = Request::builder().method(route.method).uri(path.join("/"));
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    // Bodies that no handler takes: what is tested comes before.
    let body = match route.request {
        Kinds::None => Body::empty(),
        Kinds::Json(_) | Kinds::Binary | Kinds::Stream => Body::from("nonsense"),
    };
    let mut request = request.body(body).unwrap();
    request.extensions_mut().insert(peer.clone());
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_get_exactly_what_the_table_says() {
    let world = World::new().await;
    let routes = router(&world.server);
    let roles = [
        None,
        Some(Role::Admin),
        Some(Role::Operator { services: vec!["web".parse().unwrap()] }),
        Some(Role::Viewer),
        Some(Role::Metrics),
    ];
    let peer = Peer { address: ([127, 0, 0, 1], 9).into(), identity: None };
    for role in roles {
        let (by, token) = match role {
            None => (Principal::Anonymous, None),
            Some(role) => {
                let token = world.token(TokenPurpose::Api { role: role.clone() }).await;
                let id = token.parse::<JoinToken>().unwrap().id.clone();
                (Principal::Token { id, role }, Some(token))
            }
        };
        for route in ROUTES {
            let response =
                routes.clone().oneshot(request(route, token.as_deref(), &peer)).await.unwrap();
            let status = response.status();
            let refused = status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN;
            let want = !permits(&by, route.permission);
            assert_eq!(refused, want, "{by} {} {}: {status}", route.method, route.path);
            assert_ne!(
                status,
                StatusCode::INTERNAL_SERVER_ERROR,
                "{} {}",
                route.method,
                route.path
            );
            if !status.is_success() {
                let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
                let error: ApiError = serde_json::from_slice(&body).unwrap();
                assert!(error.request_id.is_some(), "{error:?}");
            }
        }
    }
    let public = ROUTES.iter().filter(|route| route.permission == Permission::Public).count();
    assert_eq!(public, 5, "a new public route needs a look at what it gives away");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_route_is_told_so() {
    let world = World::new().await;
    let routes = router(&world.server);
    let cases = [
        ("GET", "/", StatusCode::NOT_FOUND),
        ("GET", "/v1/nodes/a/b", StatusCode::NOT_FOUND),
        ("PATCH", "/v1/nodes", StatusCode::METHOD_NOT_ALLOWED),
        ("GET", "/v1/ready", StatusCode::OK),
    ];
    for (method, path, want) in cases {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let status = routes.clone().oneshot(request).await.unwrap().status();
        assert_eq!(status, want, "{method} {path}");
    }
    world.stop().await;
}
