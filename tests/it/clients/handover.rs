//! Clients that keep their connections during a handover between two processes.

use super::secure;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::until;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const HANDOVERS: usize = 10;

type Body = Full<Bytes>;

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

/// How a client connects.
#[derive(Clone)]
struct Way {
    address: SocketAddr,
    tls: Option<TlsConnector>,
    http2: bool,
}

impl Way {
    async fn connect(&self) -> Sender {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        match &self.tls {
            None => self.speak(stream).await,
            Some(tls) => {
                let name = ServerName::try_from("site.test").unwrap();
                self.speak(tls.connect(name, stream).await.unwrap()).await
            }
        }
    }

    async fn speak<S>(&self, stream: S) -> Sender
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let stream = TokioIo::new(stream);
        if self.http2 {
            let made = http2::handshake(TokioExecutor::new(), stream).await;
            let (sender, connection) = made.unwrap();
            tokio::spawn(connection);
            return Sender::Http2(sender);
        }
        let (sender, connection) = http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        Sender::Http1(sender)
    }

    /// Posts repeatedly with this pause. Returns the number of responses; panics on any failure.
    async fn post(self, pause: Duration, stop: Arc<AtomicBool>) -> u64 {
        let mut sender = self.connect().await;
        let mut answered = 0;
        while !stop.load(Ordering::SeqCst) {
            let request = || {
                let uri = match self.http2 {
                    true => "http://site.test/",
                    false => "/",
                };
                let request = Request::post(uri).header("x-user", "somebody");
                let request = match self.http2 {
                    true => request,
                    false => request.header("host", "site.test"),
                };
                request.body(Full::from("hello")).unwrap()
            };
            let response = match &mut sender {
                Sender::Http1(http1) => {
                    // No connection may be closed without an announcement.
                    let ready = http1.ready().await;
                    ready.unwrap_or_else(|error| panic!("closed after {answered}: {error}"));
                    http1.send_request(request()).await
                }
                Sender::Http2(http2) => {
                    let sent = match http2.ready().await {
                        Ok(()) => http2.try_send_request(request()).await,
                        // GOAWAY was the announcement.
                        Err(_) => {
                            sender = self.connect().await;
                            continue;
                        }
                    };
                    match sent {
                        Ok(response) => Ok(response),
                        // GOAWAY announced that this stream is not served (RFC 9113, 6.8), and a
                        // pool sends the request on another connection.
                        Err(error) if is_go_away(error.error()) => {
                            sender = self.connect().await;
                            continue;
                        }
                        Err(error) => Err(error.into_error()),
                    }
                }
            };
            let response = response.unwrap_or_else(|error| panic!("after {answered}: {error:?}"));
            assert_eq!(response.status(), 200);
            let closes = response
                .headers()
                .get("connection")
                .is_some_and(|it| it == "close");
            response.into_body().collect().await.unwrap();
            answered += 1;
            if closes {
                sender = self.connect().await;
            }
            tokio::time::sleep(pause).await;
        }
        answered
    }
}

fn is_go_away(error: &hyper::Error) -> bool {
    let text = format!("{error:?}");
    error.is_canceled() || text.contains("GoAway(") && text.contains("NO_ERROR")
}

fn trusting(folder: &Path) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(folder.join("cert.pem")).unwrap();
    roots.add(certificate).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

fn with_alpn(tls: &TlsConnector, protocol: &str) -> TlsConnector {
    let mut config = (**tls.config()).clone();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// The processes that took over. They are not children of the test; dropping this ends them.
struct Heirs<'a>(&'a Proxy);

impl Heirs<'_> {
    fn pids(&self) -> Vec<String> {
        let log = self.0.log.lock().unwrap().clone();
        let lines = log
            .lines()
            .filter_map(|line| line.split_once(" is to take over"));
        lines
            .filter_map(|(before, _)| before.rsplit(' ').next().map(str::to_owned))
            .collect()
    }
}

impl Drop for Heirs<'_> {
    fn drop(&mut self) {
        let file = self.0.file().display().to_string();
        for pid in self.pids() {
            // Process IDs are reused.
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&words).contains(&file) {
                let _ = Command::new("kill").args(["-9", &pid]).status();
            }
        }
    }
}

#[track_caller]
fn await_log(proxy: &Proxy, text: &str, times: usize) {
    until(text, || {
        let log = proxy.log.lock().unwrap().clone();
        (log.matches(text).count() >= times)
            .then_some(())
            .ok_or(log)
    });
}

fn nothing_fails(more: &str) {
    let origin = Origin::start("a");
    let routes = format!(
        "workers: 2\nupstreams: {{ one: \"http://{0}\", two: \"http://{0}\" }}\nuser: {{ header: x-user }}\n\
         experiments: {{ site: {{ control: one, experiment: two, percent: 50 }} }}\n{more}",
        origin.address
    );
    let (proxy, tls, folder) = secure(&routes);
    let trusting = trusting(folder.path());
    let way = |address, tls, http2| Way {
        address,
        tls,
        http2,
    };
    let ways = [
        way(proxy.public, None, false),
        way(proxy.public, None, true),
        way(tls, Some(with_alpn(&trusting, "http/1.1")), false),
        way(tls, Some(with_alpn(&trusting, "h2")), true),
    ];
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for way in ways {
        for pause in [3, 50, 700] {
            let posting = way
                .clone()
                .post(Duration::from_millis(pause), Arc::clone(&stop));
            clients.push(runtime.spawn(posting));
        }
    }
    let heirs = Heirs(&proxy);
    for number in 1..=HANDOVERS {
        match heirs.pids().last() {
            None => proxy.signal("USR2"),
            Some(pid) => {
                let done = Command::new("kill").args(["-USR2", pid]).status();
                assert!(done.unwrap().success());
            }
        }
        await_log(&proxy, "serving on http://", number + 1);
        await_log(&proxy, "stopping: finishing requests in flight", number);
    }
    stop.store(true, Ordering::SeqCst);
    let mut answered = 0;
    for client in clients {
        answered += runtime.block_on(client).unwrap();
    }
    assert!(answered > 100, "{answered}");
    let results = until("everything that was answered", || {
        let results = proxy.results();
        let groups = results["experiments"][0]["groups"].as_array().unwrap();
        let requests: u64 = groups
            .iter()
            .map(|it| it["requests"].as_u64().unwrap())
            .sum();
        (requests >= answered)
            .then_some(requests)
            .ok_or((requests, answered))
    });
    assert_eq!(results, answered);
}

#[test]
fn handover_fails_no_request_on_a_kept_connection() {
    nothing_fails("timeouts: { shutdown: 60s }");
}

#[test]
fn handover_fails_no_request_on_a_kept_connection_with_an_access_log() {
    nothing_fails("timeouts: { shutdown: 60s }\naccess_log: access.log");
}
