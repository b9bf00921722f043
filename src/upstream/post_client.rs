//! A client of one server that does not serve visitors: a collector, a receiver of webhooks, a destination of events.
//! It speaks HTTP/1.1, keeps connections, and follows no redirects: they would send data to somebody whom the file
//! does not name.

use super::dial::RawConnection;
use super::stream::Stream;
use crate::config::plan::EndpointAddress;
use crate::tasks;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The longest response that is read, in bytes.
const RESPONSE_BYTES_MAX: usize = 64 << 10;

/// A client of one server.
#[derive(Debug)]
pub struct PostClient {
    endpoint: EndpointAddress,
    /// Connections without a request. There are no more of them than there were requests at once.
    kept: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

/// A response.
#[derive(Debug)]
pub struct PostResponse {
    /// Its status.
    pub status: StatusCode,
    /// Its header fields.
    pub headers: HeaderMap,
    /// Its body, or why it was not read to its end.
    pub body: Result<Bytes, PostError>,
}

/// Why a request got no response.
pub type PostError = Box<dyn Error + Send + Sync>;

impl PostClient {
    /// Makes a client, which connects when it is used.
    pub fn to(endpoint: EndpointAddress) -> PostClient {
        PostClient {
            endpoint,
            kept: Mutex::default(),
        }
    }

    /// Sends a request, and reads the response. Nothing limits the time.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<PostResponse, PostError> {
        let mut request = request;
        loop {
            let (mut sender, is_new) = self.sender().await?;
            let sent = match sender.try_send_request(request).await {
                Ok(sent) => sent,
                Err(mut error) => match error.take_message() {
                    // The server closed a kept connection before it had the request.
                    Some(unsent) if !is_new => {
                        request = unsent;
                        continue;
                    }
                    _ => return Err(error.into_error().into()),
                },
            };
            let (head, body) = sent.into_parts();
            let body = Limited::new(body, RESPONSE_BYTES_MAX).collect().await;
            if body.is_ok() {
                self.kept().push(sender);
            }
            return Ok(PostResponse {
                status: head.status,
                headers: head.headers,
                body: body.map(|body| body.to_bytes()),
            });
        }
    }

    /// Returns a connection, and whether it is new.
    async fn sender(&self) -> Result<(SendRequest<Full<Bytes>>, bool), PostError> {
        loop {
            let kept = self.kept().pop();
            let Some(mut kept) = kept else {
                break;
            };
            if kept.ready().await.is_ok() {
                return Ok((kept, false));
            }
        }
        let raw = RawConnection::to(&self.endpoint).await?;
        let stream = Stream::open(raw, &self.endpoint, true, None).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the server, or when the sender is dropped.
        tasks::spawn("post-connection", connection);
        Ok((sender, true))
    }

    fn kept(&self) -> MutexGuard<'_, Vec<SendRequest<Full<Bytes>>>> {
        // No code that holds this lock can leave the list half-changed.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns how long a server asks to wait: a number of seconds, or a time.
pub fn retry_after(headers: &HeaderMap, now: std::time::SystemTime) -> Option<Duration> {
    let text = headers
        .get(http::header::RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let at = httpdate::parse_http_date(text).ok()?;
            Some(at.duration_since(now).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn server_asks_for_seconds_or_for_a_time() {
        let asked = |text: &str| {
            let headers = [(http::header::RETRY_AFTER, text.parse().unwrap())];
            let headers = headers.into_iter().collect();
            // 1994-11-06T08:49:30Z
            let now = UNIX_EPOCH + Duration::from_secs(784_111_770);
            retry_after(&headers, now).map(|it| it.as_secs())
        };
        assert_eq!(asked("120"), Some(120));
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT"), Some(7));
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:20 GMT"), Some(0));
        assert_eq!(asked("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new(), UNIX_EPOCH), None);
    }
}
