//! HTTP for object stores, with the TLS of all other clients of this program.

use crate::store::chain;
use crate::tls::{self, Trust};
use async_trait::async_trait;
use futures_util::future::BoxFuture;
use http::Uri;
use http_body_util::BodyExt;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector as Tcp};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    HttpResponse, HttpResponseBody, HttpService,
};
use rustls::pki_types::ServerName;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tower_service::Service;

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long a response may take, from the request to its head.
const RESPOND_WITHIN: Duration = Duration::from_secs(30);
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Makes the HTTP client of an object store.
#[derive(Debug)]
pub(super) struct ObjectConnector;

impl HttpConnector for ObjectConnector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let fails =
            |error: Box<dyn std::error::Error + Send + Sync>| object_store::Error::Generic {
                store: "TLS",
                source: error,
            };
        let trust = Trust::system().map_err(|error| fails(error.fix("SSL_CERT_FILE").into()))?;
        let config = tls::client(trust, None).map_err(|error| fails(error.into()))?;
        let mut tcp = Tcp::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_WITHIN));
        let config = Arc::new(config);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .build(Dialer { tcp, config });
        Ok(HttpClient::new(HttpPool(client)))
    }
}

#[derive(Debug)]
struct HttpPool(Client<Dialer, HttpRequestBody>);

#[async_trait]
impl HttpService for HttpPool {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let responding = tokio::time::timeout(RESPOND_WITHIN, self.0.request(request));
        let response = match responding.await {
            Ok(response) => response.map_err(http_error)?,
            Err(slow) => return Err(HttpError::new(HttpErrorKind::Timeout, slow)),
        };
        let (head, body) = response.into_parts();
        let body = body.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error));
        Ok(HttpResponse::from_parts(head, HttpResponseBody::new(body)))
    }
}

fn http_error(error: Error) -> HttpError {
    let kind = match error.is_connect() {
        true => HttpErrorKind::Connect,
        false => HttpErrorKind::Request,
    };
    // Their text has no cause.
    HttpError::new(kind, io::Error::other(chain(&error)))
}

/// Opens connections, with TLS where the address says https.
#[derive(Clone, Debug)]
struct Dialer {
    tcp: Tcp,
    config: Arc<rustls::ClientConfig>,
}

impl Service<Uri> for Dialer {
    type Response = Dialed;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Dialed>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Dialer { mut tcp, config } = self.clone();
        Box::pin(async move {
            let is_secure = uri.scheme_str() == Some("https");
            let host = uri.host().unwrap_or_default().to_owned();
            let stream = tcp.call(uri).await.map_err(io::Error::other)?.into_inner();
            if !is_secure {
                return Ok(Dialed(TokioIo::new(Box::new(stream))));
            }
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
            let connector = tokio_rustls::TlsConnector::from(config);
            let shaking = tokio::time::timeout(CONNECT_WITHIN, connector.connect(name, stream));
            Ok(Dialed(TokioIo::new(Box::new(shaking.await??))))
        })
    }
}

trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// A connection, with or without TLS.
struct Dialed(TokioIo<Box<dyn ByteStream>>);

impl Connection for Dialed {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Dialed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, to)
    }
}

impl Write for Dialed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
