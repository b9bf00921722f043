//! What takes requests for one endpoint, in whatever HTTP it speaks.

use crate::config::plan;
use bytes::Bytes;
use http::header::{CONNECTION, HOST, TE, TRANSFER_ENCODING};
use http::uri::{Authority, Scheme, Uri};
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use std::error::Error;
use std::sync::Arc;

/// Takes requests. Of HTTP/2 there may be several for one connection.
#[derive(Debug)]
pub enum Sender<B> {
    /// One request at a time.
    Http1(http1::SendRequest<B>),
    /// As many as the endpoint allows.
    Http2(http2::SendRequest<B>, Arc<plan::Endpoint>),
}

impl<B: Body<Data = Bytes> + Unpin + 'static> Sender<B>
where
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// Sends a request; what was not sent at all is given back with the error.
    pub async fn try_send(
        &mut self,
        mut request: Request<B>,
    ) -> Result<Response<Incoming>, TrySendError<Request<B>>> {
        match self {
            Sender::Http1(sender) => {
                if request.uri().authority().is_some() {
                    to_http1(&mut request);
                }
                list_te(request.headers_mut());
                sender.try_send_request(request).await
            }
            Sender::Http2(sender, endpoint) => {
                to_http2(&mut request, endpoint);
                sender.try_send_request(request).await
            }
        }
    }

    /// Whether no request will be taken any more.
    pub fn is_closed(&self) -> bool {
        match self {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender, _) => sender.is_closed(),
        }
    }

    /// Waits until a request will be taken; false when none will be.
    pub async fn is_ready(&mut self) -> bool {
        match self {
            Sender::Http1(sender) => sender.ready().await.is_ok(),
            Sender::Http2(sender, _) => sender.ready().await.is_ok(),
        }
    }
}

/// RFC 9113, 8.3.1: what `Host` says is the target's authority.
fn to_http2<B>(request: &mut Request<B>, endpoint: &plan::Endpoint) {
    *request.version_mut() = Version::HTTP_2;
    // Framed by HTTP/2 itself. What a try in HTTP/1 has listed would be removed with the list.
    request.headers_mut().remove(TRANSFER_ENCODING);
    request.headers_mut().remove(CONNECTION);
    if request.uri().authority().is_some() {
        return;
    }
    let host = request.headers_mut().remove(HOST);
    let host = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let authority = host.or_else(|| Authority::try_from(endpoint.to_string()).ok());
    let mut parts = request.uri().clone().into_parts();
    parts.authority = authority;
    parts.scheme = Some(match endpoint.is_secure() {
        true => Scheme::HTTPS,
        false => Scheme::HTTP,
    });
    // Only `*` has no place behind an authority; it stays what it was.
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}

/// RFC 9110, 10.1.4: `TE` is of this connection, and says so.
fn list_te(headers: &mut HeaderMap) {
    if !headers.contains_key(TE) {
        return;
    }
    let listed = match headers.get(CONNECTION).map(HeaderValue::as_bytes) {
        None => "te",
        Some(b"upgrade") => "upgrade, te",
        // An earlier try has listed it.
        Some(_) => return,
    };
    headers.insert(CONNECTION, HeaderValue::from_static(listed));
}

/// A request that was made for HTTP/2 and was not sent.
fn to_http1<B>(request: &mut Request<B>) {
    *request.version_mut() = Version::HTTP_11;
    let parts = std::mem::take(request.uri_mut()).into_parts();
    if let Some(host) = parts.authority
        && let Ok(host) = HeaderValue::try_from(host.as_str())
    {
        request.headers_mut().insert(HOST, host);
    }
    if let Some(target) = parts.path_and_query {
        *request.uri_mut() = Uri::from(target);
    }
}
