//! Simulated visitors: HTTP clients with cookies that visit pages and sometimes order.

use anyhow::{Context, anyhow};
use http::header::{COOKIE, SET_COOKIE};
use http::{Method, Request};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::task::JoinSet;

/// The number of visitors at the same time.
const AT_ONCE: u64 = 32;

type Http = Client<HttpConnector, Empty<Bytes>>;

/// Sends this many visitors to the site. Calls `seen` for each one that has finished.
pub(super) async fn visit(
    site: SocketAddr,
    visitors: u64,
    seen: impl Fn() + Send + Sync + 'static,
) -> anyhow::Result<()> {
    let next = Arc::new(AtomicU64::new(0));
    let seen = Arc::new(seen);
    let mut crowd: JoinSet<anyhow::Result<()>> = JoinSet::new();
    for _ in 0..AT_ONCE.min(visitors) {
        let (next, seen) = (Arc::clone(&next), Arc::clone(&seen));
        // Each visitor has a client of its own, as browsers share no connections.
        let client: Http = Client::builder(TokioExecutor::new()).build_http();
        crowd.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= visitors {
                    return Ok(());
                }
                one(&client, site, number).await?;
                seen();
            }
        });
    }
    while let Some(ended) = crowd.join_next().await {
        ended??;
    }
    Ok(())
}

/// One visitor: visits the landing page, perhaps the product page, and perhaps orders. Its number decides
/// what it wants; the version of the site decides how easily it orders.
async fn one(client: &Http, site: SocketAddr, number: u64) -> anyhow::Result<()> {
    let mut jar = Vec::new();
    get(client, site, Method::GET, "/", &mut jar).await?;
    // As browsers do for every page: so the minted ID comes back, and the visitor is counted.
    get(client, site, Method::GET, "/style.css", &mut jar).await?;
    if chance(number, 1) < 0.6 {
        let page = get(client, site, Method::GET, "/product", &mut jar).await?;
        // A shorter button gets more orders.
        let easy = page.contains("Buy now");
        if chance(number, 2) < if easy { 0.26 } else { 0.20 } {
            get(client, site, Method::POST, "/order", &mut jar).await?;
        }
    }
    Ok(())
}

async fn get(
    client: &Http,
    site: SocketAddr,
    method: Method,
    path: &str,
    jar: &mut Vec<String>,
) -> anyhow::Result<String> {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("http://{site}{path}"));
    if !jar.is_empty() {
        request = request.header(COOKIE, jar.join("; "));
    }
    let response = client
        .request(request.body(Empty::new())?)
        .await
        .context("a visitor got no response")?;
    for cookie in response.headers().get_all(SET_COOKIE) {
        let pair = cookie.to_str()?.split(';').next().unwrap_or_default();
        jar.push(pair.to_owned());
    }
    let status = response.status();
    if !status.is_success() {
        return Err(anyhow!("a visitor got status {status}"));
    }
    let body = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// Returns a number from 0 to 1 that depends on the visitor and the decision only, so that a demo is
/// reproducible.
fn chance(visitor: u64, decision: u64) -> f64 {
    let key = format!("demo/{decision}/{visitor}");
    f64::from(crate::experiment::assign::murmur3_32(key.as_bytes())) / f64::from(u32::MAX)
}
