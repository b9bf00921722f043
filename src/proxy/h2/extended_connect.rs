//! Requests of HTTP/2 to leave HTTP, by extended CONNECT (RFC 8441). Upstreams are asked by
//! `Upgrade`.

use crate::proxy::tunnel::{self, IdleLimits, TunnelSide};
use crate::upstream::PooledConnection;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::HeaderName;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");

/// Makes an extended CONNECT for a WebSocket the GET that asks for the same. The client's side of
/// the connection that it asks for.
pub fn asked(request: &mut Request<Incoming>) -> Option<OnUpgrade> {
    let protocol = request.extensions().get::<Protocol>()?;
    // Nothing else is known to mean the same in both versions.
    if request.method() != Method::CONNECT || protocol.as_str() != "websocket" {
        return None;
    }
    let mut random = [0; 16];
    getrandom::fill(&mut random).ok()?;
    let key = HeaderValue::try_from(STANDARD.encode(random)).ok()?;
    let client = hyper::upgrade::on(&mut *request);
    *request.method_mut() = Method::GET;
    request.headers_mut().insert(KEY, key);
    Some(client)
}

/// Makes the head of an upstream's agreement that of HTTP/2.
pub fn agreed(head: &mut Response<()>) {
    *head.status_mut() = StatusCode::OK;
    head.headers_mut().remove(ACCEPT);
}

/// Joins a client's stream with an upstream, of which `first` was read.
pub async fn join(
    client: OnUpgrade,
    connection: PooledConnection,
    first: Vec<u8>,
    quiet: IdleLimits,
) {
    let Ok(client) = client.await else {
        return;
    };
    let client = TunnelSide {
        stream: TokioIo::new(client),
        first: Vec::new(),
    };
    let upstream = TunnelSide {
        stream: connection.stream,
        first,
    };
    if let Err(error) = tunnel::run(client, upstream, quiet).await {
        tracing::debug!("a tunnel broke: {error}");
    }
}
