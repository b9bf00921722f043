//! Posts to a collector.

use crate::config::plan::Otlp;
use crate::upstream::PostClient;
use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use http_body_util::Full;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long one post may take, from the connection to the last byte of the answer.
const WITHIN: Duration = Duration::from_secs(5);
/// The longest word of a collector's that is told, in characters.
const WORD_MAX: usize = 200;

/// The way to a collector.
#[derive(Debug)]
pub(super) struct Way {
    client: PostClient,
    headers: HeaderMap,
    heard: Arc<Heard>,
}

/// What a collector said.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Spans that it took and did not keep.
    rejected: AtomicU64,
    /// Why, or why it did not take them.
    why: Mutex<Option<String>>,
}

impl Heard {
    /// How many spans were rejected since this was last asked.
    pub(super) fn rejected(&self) -> u64 {
        self.rejected.swap(0, Ordering::Relaxed)
    }

    /// What went wrong last, since this was last asked.
    pub(super) fn why(&self) -> Option<String> {
        let mut why = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        why.take()
    }

    fn note(&self, why: &str) {
        let why = why.chars().take(WORD_MAX).collect();
        *self.why.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }
}

impl Way {
    /// The way to where the file says; and where one hears how it went.
    pub(super) fn to(otlp: &Otlp) -> (Way, Arc<Heard>) {
        let heard = Arc::<Heard>::default();
        let way = Way {
            client: PostClient::to(otlp.endpoint.clone()),
            headers: otlp.headers.clone(),
            heard: Arc::clone(&heard),
        };
        (way, heard)
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (mut head, body) = request.into_parts();
        if let Some(authority) = head.uri.authority() {
            head.headers
                .insert(HOST, HeaderValue::try_from(authority.as_str())?);
        }
        // Whoever serves a path is asked for the path alone.
        let path = head.uri.path_and_query().cloned();
        head.uri = path.map_or(Uri::from_static("/"), Uri::from);
        head.headers.insert(CONTENT_LENGTH, body.len().into());
        for (name, value) in &self.headers {
            head.headers.insert(name, value.clone());
        }
        let request = Request::from_parts(head, Full::new(body));
        let posted = self.client.send(request).await?;
        let mut response = Response::new(posted.body?);
        *response.status_mut() = posted.status;
        *response.headers_mut() = posted.headers;
        Ok(response)
    }

    /// A collector may take a post and still keep only a part of it.
    fn read(&self, answer: &Response<Bytes>) {
        if !answer.status().is_success() {
            return self.heard.note(&format!("it answers {}", answer.status()));
        }
        let said = ExportTraceServiceResponse::decode(answer.body().clone());
        if let Some(partial) = said.ok().and_then(|said| said.partial_success) {
            let rejected = u64::try_from(partial.rejected_spans).unwrap_or(0);
            self.heard.rejected.fetch_add(rejected, Ordering::Relaxed);
            if rejected > 0 {
                self.heard.note(&partial.error_message);
            }
        }
    }
}

#[async_trait]
impl HttpClient for Way {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let sent = tokio::time::timeout(WITHIN, self.send(request)).await;
        let sent = sent.unwrap_or_else(|_| Err(format!("no answer within {WITHIN:?}").into()));
        match &sent {
            Ok(answer) => self.read(answer),
            Err(error) => self.heard.note(&chain(&**error)),
        }
        sent
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
