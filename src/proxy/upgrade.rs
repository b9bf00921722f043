//! Requests to leave HTTP: by `Upgrade` on a connection of HTTP/1.1, by extended CONNECT (RFC 8441)
//! on a stream of HTTP/2. Upstreams are asked by `Upgrade`.

use super::handle::Client;
use super::hops;
use super::line::Line;
use super::tunnel::{self, Quiet, Side};
use crate::upstream::{Turned, Upgraded};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{HeaderName, UPGRADE};
use http::{HeaderValue, Method, Request, StatusCode, Version, response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::rc::Rc;

const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");

/// A request that asks for another protocol.
#[derive(Debug)]
pub struct Upgrade {
    protocols: HeaderValue,
    by: By,
}

#[derive(Debug)]
enum By {
    Connection(Rc<Line>),
    Stream(OnUpgrade),
}

impl Upgrade {
    /// What a request asks to upgrade to, where that can be done. An extended CONNECT becomes the
    /// GET that asks for the same.
    pub fn asked(client: &Client, request: &mut Request<Incoming>) -> Option<Upgrade> {
        match &client.line {
            Some(line) => {
                let may = request.version() == Version::HTTP_11 && request.body().is_end_stream();
                let protocols = hops::upgrade(request.headers()).filter(|_| may)?;
                line.upgrading.set(true);
                let by = By::Connection(Rc::clone(line));
                Some(Upgrade { protocols, by })
            }
            None => Upgrade::asked_by_stream(request),
        }
    }

    fn asked_by_stream(request: &mut Request<Incoming>) -> Option<Upgrade> {
        let protocol = request.extensions().get::<Protocol>()?;
        // Nothing else is known to mean the same in both versions.
        if request.method() != Method::CONNECT || protocol.as_str() != "websocket" {
            return None;
        }
        let mut random = [0; 16];
        getrandom::fill(&mut random).ok()?;
        let key = HeaderValue::try_from(STANDARD.encode(random)).ok()?;
        let by = By::Stream(hyper::upgrade::on(&mut *request));
        *request.method_mut() = Method::GET;
        // What comes is no body, but what follows the agreement.
        request.headers_mut().insert(KEY, key);
        let protocols = HeaderValue::from_static("websocket");
        Some(Upgrade { protocols, by })
    }

    /// Asks the upstream.
    pub fn ask(&self, request: &mut http::request::Parts) {
        hops::set_upgrade(&mut request.headers, self.protocols.clone());
    }

    /// The upstream has agreed, in this head: its side is joined with the client's.
    pub fn agreed(
        self,
        head: &mut response::Parts,
        chosen: Option<HeaderValue>,
        upgraded: Option<Upgraded>,
        quiet: Quiet,
    ) {
        match self.by {
            By::Connection(line) => {
                hops::set_upgrade(&mut head.headers, chosen.unwrap_or(self.protocols));
                line.tunnel.set(upgraded);
            }
            By::Stream(client) => {
                head.status = StatusCode::OK;
                head.headers.remove(ACCEPT);
                tokio::task::spawn_local(join(client, upgraded, quiet));
            }
        }
    }
}

/// The protocol that an upstream's 101 names.
pub fn chosen(head: &response::Parts) -> Option<HeaderValue> {
    head.headers.get(UPGRADE).cloned()
}

async fn join(client: OnUpgrade, upgraded: Option<Upgraded>, quiet: Quiet) {
    let Some(upgraded) = upgraded else { return };
    let (Ok(client), Ok(Turned { stream, first })) = (client.await, upgraded.await) else {
        return;
    };
    let client = Side {
        stream: TokioIo::new(client),
        first: Vec::new(),
    };
    let upstream = Side {
        stream,
        first: first.into(),
    };
    if let Err(error) = tunnel::run(client, upstream, quiet).await {
        tracing::debug!("a tunnel broke: {error}");
    }
}
