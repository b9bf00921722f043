//! A version of a site: a real HTTP server whose responses describe the request as JSON.
//!
//! `?status=`, `?event=` (the value of `Watershed-Event`), `?sleep_ms=`, `?cookies=` and `?echo` control
//! its response.

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, Request};
use axum::response::Response;
use http_body_util::BodyExt;
use serde_json::json;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

/// A running origin; it stops when this is dropped.
pub struct Origin {
    pub address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl Origin {
    pub fn start(name: &'static str) -> Origin {
        Origin::on(name, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    pub fn on(name: &'static str, address: SocketAddr) -> Origin {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind(address))
            .unwrap();
        let address = listener.local_addr().unwrap();
        let site = Router::new().fallback(move |query, request| answer(name, query, request));
        runtime.spawn(async move { axum::serve(listener, site).await.unwrap() });
        Origin {
            address,
            _runtime: runtime,
        }
    }
}

async fn answer(
    name: &str,
    Query(query): Query<HashMap<String, String>>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    if query.contains_key("echo") {
        // Streams the request body back.
        return Response::new(body);
    }
    if let Some(sleep) = query.get("sleep_ms") {
        tokio::time::sleep(Duration::from_millis(sleep.parse().unwrap())).await;
    }
    let bytes = body
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let headers: Vec<_> = head
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes())))
        .collect();
    let description = json!({
        "version": name,
        "method": head.method.as_str(),
        "target": head.uri.to_string(),
        "headers": headers,
        "body_bytes": bytes.len(),
    });
    let mut response = Response::builder()
        .header("content-type", "application/json")
        .header("server", name);
    if let Some(status) = query.get("status") {
        response = response.status(status.parse::<u16>().unwrap());
    }
    if let Some(event) = query.get("event") {
        response = response.header("watershed-event", event);
    }
    for cookie in query
        .get("cookies")
        .into_iter()
        .flat_map(|cookies| cookies.split(','))
    {
        response = response.header("set-cookie", cookie);
    }
    response.body(Body::from(description.to_string())).unwrap()
}
