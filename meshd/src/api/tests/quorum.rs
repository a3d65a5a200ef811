//! Reads of a server that is cut off: refused within a bounded time, or from its own copy.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, Response};
use mesh_core::api::{ApiError, LEADER_HEADER, ServerStatus};
use tower::ServiceExt;

use super::cluster::{first, further, until, voters};
use super::world::World;
use crate::api::{Peer, router};

/// What a read may take that waits for a leader.
const ANSWER_MAX: Duration = Duration::from_secs(5);

async fn get(world: &World, path: &str) -> Response<Body> {
    let token = std::fs::read_to_string(world.dir.path().join("admin.token")).unwrap();
    let request = Request::get(path).header("authorization", format!("Bearer {}", token.trim()));
    let peer = Peer { address: ([127, 0, 0, 1], 9).into(), identity: None };
    let request = request.extension(peer).body(Body::empty()).unwrap();
    router(&world.server).oneshot(request).await.unwrap()
}

async fn body<T: serde::de::DeserializeOwned>(response: Response<Body>) -> T {
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    serde_json::from_slice(&body).unwrap()
}

async fn status(world: &World) -> ServerStatus {
    body(get(world, "/v1/status").await).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_a_majority_answers_stale_reads_only() {
    let limit = Duration::from_secs(30);
    let one = first().await;
    let two = further(&one, "ctl-2").await;
    until("two voters", limit, async || voters(&one).await == 2).await;
    until("one leads", limit, async || status(&one).await.role == "leader").await;
    let paths = ["/v1/nodes", "/v1/services", "/v1/agents", "/v1/policy"];
    for path in paths {
        let answer = get(&one, path).await;
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(answer.headers()[LEADER_HEADER], "true", "{path}");
    }
    let waits = format!("/v1/nodes?wait=5s&index={}", status(&one).await.revision);
    let waiting = async {
        let answer = get(&one, &waits).await;
        (answer.status().as_u16(), body::<ApiError>(answer).await.code)
    };
    let cut_off = async {
        two.stop().await;
        until("it leads no more", limit, async || status(&one).await.role != "leader").await;
    };
    let (waited, ()) = tokio::join!(waiting, cut_off);
    assert_eq!(waited, (503, "no_leader".to_owned()), "a query that waited");
    assert_eq!(status(&one).await.leader, None);

    for path in paths.map(str::to_owned).into_iter().chain([format!("{}?consistent", paths[0])]) {
        let asked = Instant::now();
        let answer = get(&one, &path).await;
        assert!(asked.elapsed() < ANSWER_MAX, "{path}: {:?}", asked.elapsed());
        assert_eq!(answer.status(), 503, "{path}");
        assert_eq!(answer.headers()[LEADER_HEADER], "false", "{path}");
        assert_eq!(body::<ApiError>(answer).await.code, "no_leader", "{path}");
    }
    for path in paths {
        let answer = get(&one, &format!("{path}?stale")).await;
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(answer.headers()[LEADER_HEADER], "false", "{path}");
    }
    let ready = get(&one, "/v1/ready").await;
    assert_eq!(ready.status(), 503);
    assert_eq!(body::<ApiError>(ready).await.code, "not_ready");
    one.stop().await;
}
