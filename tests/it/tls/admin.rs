//! TLS of the admin API, and the commands that ask it.

use super::curl;
use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::proxy::{BINARY, How, Proxy};
use crate::support::until;
use crate::wire::tls::Authority;
use std::io::Write;
use std::net::TcpStream;
use std::process::Command;

const TOKEN: &str = "a-token-of-more-than-16-letters";

/// An authority, and a process whose admin API has the certificate of `admin.test`.
struct Server {
    authority: Authority,
    origin: Origin,
    proxy: Proxy,
}

impl Server {
    fn start(more: &str) -> Server {
        let authority = Authority::new();
        authority.certify("admin", &["admin.test"]);
        let origin = Origin::start("current");
        let tls = tls_keys(&authority);
        let how = How {
            admin_keys: format!("token: {TOKEN}, {tls}, {more}"),
            ..How::default()
        };
        let routes = format!(
            "workers: 1\nupstreams: {{ current: \"http://{}\" }}",
            origin.address
        );
        let proxy = Proxy::start_how(&routes, how);
        // Commands read the address there.
        proxy.write(&routes);
        Server {
            authority,
            origin,
            proxy,
        }
    }

    /// Asks with curl.
    fn asks(&self, path: &str, words: &[&str]) -> super::Curl {
        let port = self.proxy.admin.port();
        let resolve = format!("admin.test:{port}:127.0.0.1");
        let ca = self.authority.file("ca.pem");
        let url = format!("https://admin.test:{port}{path}");
        let all = ["--cacert", &ca, "--resolve", &resolve, &url];
        curl(&[&all, words].concat())
    }

    /// Runs a command of the program. Returns whether it succeeded, and what it printed.
    fn runs(&self, words: &[&str]) -> (bool, String) {
        let run = Command::new(BINARY)
            .args(words)
            .env("SSL_CERT_FILE", self.authority.file("admin.pem"))
            .output()
            .unwrap();
        let text = [run.stdout, run.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        (run.status.success(), text)
    }
}

fn tls_keys(authority: &Authority) -> String {
    format!(
        "tls: {{ cert: {}, key: {} }}",
        authority.file("admin.pem"),
        authority.file("admin.key")
    )
}

#[test]
fn admin_api_speaks_tls_and_commands_know_it() {
    let server = Server::start("");
    let admin = server.proxy.admin;
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let asked = server.asks("/admin/results?format=json", &["-H", &bearer]);
    assert!(asked.body.starts_with('{'), "{asked:?}");
    // A session of a browser never travels without TLS.
    let dump = ["-D", "-", "-d", &format!("token={TOKEN}")].map(str::to_owned);
    let dump: Vec<&str> = dump.iter().map(String::as_str).collect();
    let login = server.asks("/admin/login", &dump).body.to_lowercase();
    assert!(
        login.contains("set-cookie: watershed_session=") && login.contains("; secure"),
        "{login}"
    );
    // The commands of this machine trust the certificate of the file, although it has another name.
    let file = server.proxy.file();
    let file = file.to_str().unwrap();
    for words in [&["healthcheck", "-c", file][..], &["results", "-c", file]] {
        let (succeeded, said) = server.runs(words);
        assert!(succeeded, "{words:?}: {said}");
    }
    // Elsewhere, an authority is named, or a root of the machine verifies the server.
    let url = format!("https://localhost:{}", admin.port());
    let ca = server.authority.file("ca.pem");
    let (succeeded, said) = server.runs(&["healthcheck", "--url", &url, "--ca", &ca]);
    assert!(
        !succeeded && said.contains("not valid for name"),
        "the name is another one: {said}"
    );
    server
        .authority
        .certify("admin", &["admin.test", "localhost"]);
    until("the changed certificate", || {
        let (succeeded, said) = server.runs(&["healthcheck", "--url", &url, "--ca", &ca]);
        succeeded.then_some(()).ok_or(said)
    });
    let (succeeded, said) = server.runs(&["results", "--url", &url, "--token", TOKEN, "--ca", &ca]);
    assert!(succeeded, "{said}");
    let stranger = Authority::new();
    let other = stranger.file("ca.pem");
    let (succeeded, said) = server.runs(&["healthcheck", "--url", &url, "--ca", &other]);
    assert!(
        !succeeded && said.contains("invalid peer certificate"),
        "{said}"
    );
    let none = stranger.file("none.pem");
    let (succeeded, said) = server.runs(&["healthcheck", "--url", &url, "--ca", &none]);
    assert!(!succeeded && said.contains("none.pem: "), "{said}");
    assert!(said.contains("with --ca"), "{said}");
    // Metrics have the expiry.
    let metrics = server.asks("/admin/metrics", &["-H", &bearer]).body;
    let line = "watershed_certificate_expiry_timestamp_seconds{certificate=\"";
    assert!(metrics.contains(line), "{metrics}");
}

#[test]
fn plain_http_and_silence_do_not_block_the_admin_api() {
    let server = Server::start("health: 127.0.0.1:0");
    let admin = server.proxy.admin;
    let told = Client::admin(admin).get("/admin/results", "");
    assert_eq!(told.status, 400);
    assert!(told.text().contains("https://"), "{}", told.text());
    let (succeeded, said) = server.runs(&["healthcheck", "--url", &format!("http://{admin}")]);
    assert!(!succeeded && said.contains("https://"), "{said}");
    // Clients that begin no handshake, or never end it.
    let mut silent: Vec<TcpStream> = Vec::new();
    for bytes in [&b""[..], b"\x16\x03\x01\x02\x00"].repeat(50) {
        let mut stream = TcpStream::connect(admin).unwrap();
        stream.write_all(bytes).unwrap();
        silent.push(stream);
    }
    assert!(server.asks("/admin/healthz", &[]).code == 0);
    // The health listener has no TLS.
    let log = server.proxy.log.lock().unwrap().clone();
    let health = log.split("health checks and metrics at http://").nth(1);
    let health = health.and_then(|rest| rest.split('/').next()?.parse().ok());
    let mut client = Client::connect(health.unwrap());
    assert_eq!(client.get("/readyz", "").status, 200);
}

#[test]
fn reload_turns_tls_of_the_admin_api_on_and_off() {
    let server = Server::start("");
    let origin = server.origin.address;
    let write = |tls: &str| {
        let file = server.proxy.file();
        let text = format!(
            "listen: {}\nadmin: {{ listen: {}, token: {TOKEN}, {tls} }}\nworkers: 1\nupstreams: {{ current: \"http://{origin}\" }}\n",
            server.proxy.public, server.proxy.admin
        );
        std::fs::write(file, text).unwrap();
    };
    write("");
    until("the admin API without TLS", || {
        let answer = Client::admin(server.proxy.admin).try_get("/admin/healthz", "");
        match answer {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(answer.text()),
            Err(error) => Err(error.to_string()),
        }
    });
    write(&tls_keys(&server.authority));
    until("the admin API with TLS", || {
        let asked = server.asks("/admin/healthz", &[]);
        (asked.code == 0).then_some(()).ok_or(asked)
    });
}
