//! `mesh dev --check`: registers, calls, is denied, loses its leader; each step says what it saw.

use std::time::{Duration, Instant};

use mesh_core::api::{CreateTokenRequest, TokenPurpose};
use mesh_core::trust::Role;
use mesh_net::client::{Client, ReadOptions};

use super::servers::Servers;
use super::traffic::Counts;
use crate::error::CliError;
use crate::limits::dev::{CHECK_STEP, CHECK_WATCH};

/// Runs every step in turn; the first that fails ends the check.
pub(super) async fn run(
    client: &Client, servers: &mut Servers, counts: &Counts,
) -> Result<(), CliError> {
    step("services are registered and healthy", registered(client).await)?;
    step("web calls orders through mTLS, both versions answer", called(counts).await)?;
    step("batch is denied", denied(counts).await)?;
    step("calls go on without their leader", leaderless(client, servers, counts).await)?;
    println!("ok: the mesh works");
    Ok(())
}

fn step(what: &str, outcome: Result<String, String>) -> Result<(), CliError> {
    match outcome {
        Ok(seen) => {
            println!("ok    {what}: {seen}");
            Ok(())
        }
        Err(why) => {
            println!("FAIL  {what}: {why}");
            Err(CliError::No)
        }
    }
}

/// Looks every 50 ms until `look` gives something, or says what was last missing.
async fn until<T>(
    within: Duration, mut look: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, String> {
    let deadline = Instant::now() + within;
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(why) if Instant::now() >= deadline => return Err(why),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn registered(client: &Client) -> Result<String, String> {
    until(CHECK_STEP, async || {
        let answer =
            client.services(ReadOptions::default()).await.map_err(|why| why.to_string())?;
        let healthy = |name: &str| {
            let found = answer.value.iter().find(|s| s.service.as_str() == name);
            found.map_or(0, |summary| summary.healthy)
        };
        let (web, orders, payments) = (healthy("web"), healthy("orders"), healthy("payments"));
        if (web, orders, payments) == (1, 2, 1) {
            return Ok(format!("{} services, 2 instances of orders", answer.value.len()));
        }
        Err(format!("healthy: web {web}, orders {orders}, payments {payments}; expected 1, 2, 1"))
    })
    .await
}

async fn called(counts: &Counts) -> Result<String, String> {
    until(CHECK_STEP, async || {
        let seen = counts.read();
        let count = seen.get(&("web", "orders")).ok_or("no answer yet")?;
        let of = |name: &str| count.by_instance.get(name).copied().unwrap_or(0);
        let (v1, v2) = (of("orders-v1"), of("orders-v2"));
        if count.ok >= 100 && v1 > v2 && v2 > 0 {
            return Ok(format!("{} answers, v1 {v1}, v2 {v2}", count.ok));
        }
        let last = count.last_failure.as_deref().unwrap_or("none");
        Err(format!("{} answers, v1 {v1}, v2 {v2}; last failure: {last}", count.ok))
    })
    .await
}

async fn denied(counts: &Counts) -> Result<String, String> {
    until(CHECK_STEP, async || {
        let seen = counts.read();
        let count = seen.get(&("batch", "orders")).ok_or("no answer yet")?;
        if count.ok > 0 {
            return Err(format!("{} calls of batch passed", count.ok));
        }
        if count.denied >= 3 {
            return Ok(format!("{} calls got 403, none passed", count.denied));
        }
        let last = count.last_failure.as_deref().unwrap_or("none");
        Err(format!("{} denials; last failure: {last}", count.denied))
    })
    .await
}

async fn leaderless(
    client: &Client, servers: &mut Servers, counts: &Counts,
) -> Result<String, String> {
    let before = counts.read().get(&("web", "orders")).cloned().unwrap_or_default();
    let leader = servers.stop_leader(client).await?;
    let lost = Instant::now();
    let wrote = if servers.running() > 1 {
        until(CHECK_STEP, async || write(client).await).await?;
        format!("writes resumed after {} ms", lost.elapsed().as_millis())
    } else {
        "no server is left to write to".to_owned()
    };
    tokio::time::sleep(CHECK_WATCH.saturating_sub(lost.elapsed())).await;
    let after = counts.read().get(&("web", "orders")).cloned().unwrap_or_default();
    let (more, failed) = (after.ok - before.ok, after.failed - before.failed);
    if failed > 0 || after.denied > before.denied || more == 0 {
        let last = after.last_failure.as_deref().unwrap_or("none");
        return Err(format!("{more} calls passed, {failed} failed; last failure: {last}"));
    }
    Ok(format!("{leader} stopped, {more} calls passed, none failed; {wrote}"))
}

async fn write(client: &Client) -> Result<(), String> {
    let purpose = TokenPurpose::Api { role: Role::Viewer };
    let note = "mesh dev --check".to_owned();
    let request = CreateTokenRequest { purpose, ttl_seconds: 60, note };
    let client = client.with_timeout(Duration::from_secs(2));
    client.create_token(&request).await.map(|_| ()).map_err(|why| why.to_string())
}
