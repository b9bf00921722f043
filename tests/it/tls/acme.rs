//! Certificates by ACME, of a real ACME server.

use super::{Curl, curl};
use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::pebble::{Pebble, Rules};
use crate::support::proxy::{How, Proxy};
use crate::support::redis::Redis;
use crate::support::until;
use crate::wire::tls::{Authority, serve};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Starts a site at the ports where Pebble checks names, on this address.
fn start(pebble: &Pebble, address: Ipv4Addr, keys: &str, more: &str) -> (Origin, Proxy) {
    let origin = Origin::start("current");
    let how = How {
        listen: Some(SocketAddr::from((address, pebble.http_port))),
        ..How::default()
    };
    let proxy = Proxy::start_how(&routes(&origin, pebble, address, keys, more), how);
    (origin, proxy)
}

fn routes(origin: &Origin, pebble: &Pebble, address: Ipv4Addr, keys: &str, more: &str) -> String {
    format!(
        "workers: 1\nupstreams: {{ current: \"http://{}\" }}\ntls: {{ listen: {address}:{}, {keys} }}\n{more}",
        origin.address, pebble.tls_port
    )
}

fn site(pebble: &Pebble, name: &str, address: Ipv4Addr, words: &[&str]) -> Curl {
    let port = pebble.tls_port;
    let resolve = format!("{name}:{port}:{address}");
    let (url, roots) = (format!("https://{name}:{port}/"), pebble.roots());
    let all = ["--cacert", &roots, "--resolve", &resolve, &url];
    curl(&[&all, words].concat())
}

const HOME: Ipv4Addr = Ipv4Addr::LOCALHOST;
const AWAY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Waits until a site has a certificate that the authority's root verifies.
#[track_caller]
fn until_served(pebble: &Pebble, proxy: &Proxy, name: &str, address: Ipv4Addr) {
    until("a certificate", || {
        let asked = site(pebble, name, address, &[]);
        let is_served = asked.code == 0 && asked.body.contains("\"version\":\"current\"");
        is_served
            .then_some(())
            .ok_or_else(|| format!("{asked:?}\n{}", proxy.log.lock().unwrap()))
    });
}

/// The certificate that is presented, as openssl prints it.
fn certificate(pebble: &Pebble, name: &str, address: Ipv4Addr, words: &[&str]) -> String {
    let shown = Command::new("openssl")
        .args(["s_client", "-connect"])
        .arg(format!("{address}:{}", pebble.tls_port))
        .args(["-servername", name])
        .args(words)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    let pem = text.split("-----BEGIN CERTIFICATE-----").nth(1);
    let pem = pem.and_then(|rest| rest.split("-----END").next());
    pem.unwrap_or_default().to_owned()
}

#[test]
fn first_start_obtains_a_certificate_by_http_01_and_keeps_it() {
    let mut pebble = Pebble::start(Rules::default());
    let keys = format!("acme: {{ {} }}", pebble.keys("a.test, www.a.test"));
    // Neither a redirect to https nor a rate stands in the way of the authority.
    let more = "https: { redirect: true }\nlimits: { rate: 1/s }";
    let (origin, mut proxy) = start(&pebble, HOME, &keys, more);
    let log = proxy.log.lock().unwrap().clone();
    assert!(
        log.contains("there is no certificate for a.test, www.a.test yet"),
        "{log}"
    );
    // Plain HTTP is served meanwhile.
    let plain = Client::connect(proxy.public).get("/", "Host: a.test\r\n");
    assert!(plain.status != 502, "{}", plain.status);
    until_served(&pebble, &proxy, "a.test", HOME);
    until_served(&pebble, &proxy, "www.a.test", HOME);
    assert_eq!(pebble.issued(), 1);
    // Another name is not in it.
    assert!(site(&pebble, "b.test", HOME, &[]).code != 0);
    let metrics = proxy.ask("/admin/metrics").text();
    let expiry = "watershed_certificate_expiry_timestamp_seconds{certificate=\"acme:a.test\",upstream=\"\"} ";
    assert!(metrics.contains(expiry), "{metrics}");
    assert!(
        metrics.contains("watershed_acme_failures_total{} 0"),
        "{metrics}"
    );
    // Nothing that people read has a private key.
    let history = proxy.ask("/admin/history").text();
    let results = proxy.ask("/admin/results").text();
    let config = proxy.ask("/admin/config").text();
    let log = proxy.log.lock().unwrap().clone();
    for text in [metrics, history, results, config, log] {
        assert!(
            !text.contains("PRIVATE KEY") && !text.contains("key_pkcs8"),
            "{text}"
        );
    }
    // A restart has it, although the authority is away.
    let before = certificate(&pebble, "a.test", HOME, &[]);
    pebble.kill();
    proxy.signal("TERM");
    proxy.wait();
    proxy.again(&routes(&origin, &pebble, HOME, &keys, more));
    let after = site(&pebble, "a.test", HOME, &[]);
    assert_eq!(after.code, 0, "{after:?}");
    assert_eq!(certificate(&pebble, "a.test", HOME, &[]), before);
}

#[test]
fn questions_that_nobody_asked_for_go_to_the_upstream() {
    let pebble = Pebble::start(Rules::default());
    let keys = format!("acme: {{ {} }}", pebble.keys("a.test"));
    let (_origin, proxy) = start(&pebble, HOME, &keys, "");
    until_served(&pebble, &proxy, "a.test", HOME);
    let answer = Client::connect(proxy.public).get("/.well-known/acme-challenge/other", "");
    assert_eq!(answer.json()["target"], "/.well-known/acme-challenge/other");
    // A reload keeps the certificate.
    let before = certificate(&pebble, "a.test", HOME, &[]);
    let file = proxy.file();
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text + "show_group: true\n").unwrap();
    until("the reload", || {
        let log = proxy.log.lock().unwrap().clone();
        log.contains("reloaded ").then_some(()).ok_or(log)
    });
    assert_eq!(certificate(&pebble, "a.test", HOME, &[]), before);
    assert_eq!(pebble.issued(), 1);
}

#[test]
fn certificate_is_obtained_by_tls_alpn_01_although_clients_need_certificates() {
    let pebble = Pebble::start(Rules::default());
    let clients = Authority::new();
    clients.certify("ann", &["ann.test"]);
    let keys = format!(
        "acme: {{ {}, challenge: tls-alpn-01 }}, client_certificates: {{ ca: {} }}",
        pebble.keys("a.test"),
        clients.file("ca.pem")
    );
    let (_origin, proxy) = start(&pebble, HOME, &keys, "access_log: stderr");
    let (cert, key) = (clients.file("ann.pem"), clients.file("ann.key"));
    until("a certificate", || {
        let asked = site(&pebble, "a.test", HOME, &["--cert", &cert, "--key", &key]);
        let log = proxy.log.lock().unwrap().clone();
        (asked.code == 0).then_some(()).ok_or((asked, log))
    });
    assert!(site(&pebble, "a.test", HOME, &[]).code != 0);
    let presented = certificate(&pebble, "a.test", HOME, &[]);
    assert!(!presented.is_empty());
    // Only an authority is shown a proof, and only while it checks one.
    let proof = certificate(&pebble, "a.test", HOME, &["-alpn", "acme-tls/1"]);
    assert_eq!(proof, "");
    let others = certificate(&pebble, "a.test", HOME, &["-alpn", "acme-tls/1,http/1.1"]);
    assert_eq!(others, presented);
    let log = proxy.log.lock().unwrap().clone();
    assert!(!log.contains("acme-challenge"), "{log}");
}

#[test]
fn replicas_on_one_redis_get_one_certificate() {
    let pebble = Pebble::start(Rules::default());
    let mut redis = Redis::start();
    let keys = format!("acme: {{ {} }}", pebble.keys("a.test, b.test"));
    let more = format!("store: {}\n", redis.url());
    // Each name leads to one of them, so that both have to answer, whichever has ordered it.
    let (_here, home) = start(&pebble, HOME, &keys, &more);
    let (origin, mut away) = start(&pebble, AWAY, &keys, &more);
    until_served(&pebble, &home, "a.test", HOME);
    until_served(&pebble, &away, "b.test", AWAY);
    assert_eq!(
        certificate(&pebble, "a.test", HOME, &[]),
        certificate(&pebble, "a.test", AWAY, &[])
    );
    assert_eq!(pebble.issued(), 1, "{}", pebble.log.lock().unwrap());
    let orders: usize = [&home, &away]
        .iter()
        .map(|proxy| {
            let metrics = proxy.ask("/admin/metrics").text();
            metrics.matches("watershed_acme_orders_total{} 1").count()
        })
        .sum();
    assert_eq!(orders, 1);
    // The answers are gone.
    let entries = redis.command(&["HKEYS", "ws:{acme}:entries"]).unwrap();
    assert!(
        entries.contains("certificate:") && entries.contains("account:"),
        "{entries}"
    );
    assert!(
        !entries.contains("-01:") && !entries.contains("attempt:"),
        "{entries}"
    );
    // A replica that starts while the store is away has the certificate, too.
    redis.kill();
    away.kill();
    away.again(&routes(&origin, &pebble, AWAY, &keys, &more));
    let served = site(&pebble, "b.test", AWAY, &["-o", "/dev/null"]);
    assert_eq!(served.code, 0, "{served:?}");
}

#[test]
fn certificate_is_renewed_and_kept_while_the_authority_is_away() {
    let valid_s = Some(60);
    let mut pebble = Pebble::start(Rules {
        valid_s,
        ..Rules::default()
    });
    let keys = format!("acme: {{ {} }}", pebble.keys("a.test"));
    let (_origin, proxy) = start(&pebble, HOME, &keys, "");
    until_served(&pebble, &proxy, "a.test", HOME);
    let first = certificate(&pebble, "a.test", HOME, &[]);
    let roots = std::fs::read(pebble.roots()).unwrap();
    pebble.kill();
    // The renewal fails, and a problem is reported.
    until("a failure", || {
        let results = proxy.ask("/admin/metrics").text();
        let log = proxy.log.lock().unwrap().clone();
        let is_told = log.contains(
            "no certificate by tls.acme (2 in a row failed): no success with the authority: ",
        ) && !results.contains("watershed_acme_failures_total{} 0");
        is_told.then_some(()).ok_or(log)
    });
    assert_eq!(certificate(&pebble, "a.test", HOME, &[]), first);
    let served = site(&pebble, "a.test", HOME, &["-o", "/dev/null"]);
    assert_eq!(served.code, 0, "{served:?}");
    // The authority has lost all accounts meanwhile.
    pebble.up();
    assert_ne!(std::fs::read(pebble.roots()).unwrap(), roots);
    until_served(&pebble, &proxy, "a.test", HOME);
    assert_ne!(certificate(&pebble, "a.test", HOME, &[]), first);
    until("the end of the problem", || {
        let results = proxy.results();
        let problems = results["store"]["problems"].to_string();
        (!problems.contains("acme")).then_some(()).ok_or(problems)
    });
}

#[test]
fn wrong_configuration_is_told_and_not_repeated_at_once() {
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let pebble = Pebble::start(Rules {
        external_key: Some(key),
        ..Rules::default()
    });
    let acme = |more: &str, names: &str| format!("acme: {{ {}{more} }}", pebble.keys(names));
    let (origin, proxy) = start(&pebble, HOME, &acme("", "a.test"), "");
    let told = |expected: &str| {
        until("the problem", || {
            let log = proxy.log.lock().unwrap().clone();
            log.contains(expected).then_some(()).ok_or(log)
        });
    };
    told("no certificate by tls.acme (1 in a row failed): the authority refuses: ");
    told("externalAccountRequired");
    // b.test leads to an address where nobody listens.
    let account = format!(", external_account: {{ id: kid-1, key: {key} }}");
    proxy.write(&routes(
        &origin,
        &pebble,
        HOME,
        &acme(&account, "a.test, b.test"),
        "",
    ));
    told("b.test: the authority could not check this name: ");
    let failures = "watershed_acme_failures_total{} 2";
    let metrics = proxy.ask("/admin/metrics").text();
    assert!(metrics.contains(failures), "{metrics}");
    let results = proxy.results();
    assert!(
        results["store"]["problems"].to_string().contains("b.test"),
        "{results:#}"
    );
    // The corrected file is tried at once.
    proxy.write(&routes(
        &origin,
        &pebble,
        HOME,
        &acme(&account, "a.test"),
        "",
    ));
    until_served(&pebble, &proxy, "a.test", HOME);
    let metrics = proxy.ask("/admin/metrics").text();
    assert!(metrics.contains(failures), "{metrics}");
}

/// A directory of Pebble's that also says when certificates are to be renewed (RFC 9773), which this version of
/// Pebble does not. It answers so many questions for the directory, and then none. Returns its URL, and the paths
/// that it is asked for.
fn directory_with_renewals(pebble: &Pebble, answers: usize) -> (String, Arc<Mutex<Vec<String>>>) {
    let ca = pebble.authority().file("ca.pem");
    let directory = curl(&["--cacert", &ca, &pebble.directory()]).body;
    let directory: serde_json::Value = serde_json::from_str(&directory).unwrap();
    let acceptor = pebble.authority().server("pebble", &[], false);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let address = serve(move |stream| {
        let address = stream.local_addr().unwrap();
        let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
        let mut directory = directory.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).await.unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..read]).into_owned();
            let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
            let body = match &*path {
                "/dir" => {
                    directory["renewalInfo"] = format!("https://{address}/renewal").into();
                    directory.to_string()
                }
                _ => r#"{"suggestedWindow":{"start":"2030-01-01T00:00:00Z","end":"2030-01-02T00:00:00Z"}}"#.to_owned(),
            };
            let count = {
                let mut seen = seen.lock().unwrap();
                seen.push(path);
                seen.iter().filter(|path| *path == "/dir").count()
            };
            if count > answers {
                return;
            }
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nRetry-After: 21600\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (format!("https://{address}/dir"), asked)
}

#[test]
fn authority_is_asked_when_to_renew() {
    let pebble = Pebble::start(Rules::default());
    let (directory, asked) = directory_with_renewals(&pebble, usize::MAX);
    let keys = format!("acme: {{ {} }}", pebble.keys_of(&directory, "a.test"));
    let (_origin, proxy) = start(&pebble, HOME, &keys, "");
    until_served(&pebble, &proxy, "a.test", HOME);
    let path = until("the question", || {
        let asked = asked.lock().unwrap().clone();
        let found = asked.iter().find(|path| path.starts_with("/renewal/"));
        found.cloned().ok_or(asked)
    });
    // The identifier is the authority's key and the serial number, as openssl reads them.
    let pem = proxy.folder.path().join("presented.pem");
    let presented = certificate(&pebble, "a.test", HOME, &[]);
    let text = format!("-----BEGIN CERTIFICATE-----{presented}-----END CERTIFICATE-----\n");
    std::fs::write(&pem, text).unwrap();
    let shown = Command::new("openssl")
        .args([
            "x509",
            "-noout",
            "-serial",
            "-ext",
            "authorityKeyIdentifier",
            "-in",
        ])
        .arg(&pem)
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let serial = shown
        .split("serial=")
        .nth(1)
        .unwrap()
        .lines()
        .next()
        .unwrap();
    let authority = shown.lines().last().unwrap().trim().replace(':', "");
    let hex = |text: &str| -> String {
        use base64::Engine;
        let bytes = (0..text.len()).step_by(2);
        let bytes = bytes.map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap());
        let mut bytes: Vec<u8> = bytes.collect();
        // DER has a zero in front of a positive number that would look negative.
        if text.len() == serial.len() && text == serial && bytes[0] > 127 {
            bytes.insert(0, 0);
        }
        base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(bytes)
    };
    assert_eq!(
        path,
        format!(
            "/renewal/{}.{}",
            hex(authority.trim_start_matches("keyid")),
            hex(serial)
        )
    );
    let renewal = renewal(&proxy);
    let at_ms = renewal["at_ms"].as_u64().unwrap();
    let (from_ms, to_ms) = (1_893_456_000_000, 1_893_542_400_000);
    assert!((from_ms..=to_ms).contains(&at_ms), "{renewal}");
    assert_eq!(pebble.issued(), 1);
}

/// What the store knows of the renewal, once it does.
fn renewal(proxy: &Proxy) -> serde_json::Value {
    let store = rusqlite::Connection::open(proxy.folder.path().join("watershed.db")).unwrap();
    until("the answer in the store", || {
        let sql = "SELECT text FROM acme WHERE name LIKE 'certificate:%'";
        let text: String = store.query_row(sql, [], |row| row.get(0)).unwrap();
        let entry: serde_json::Value = serde_json::from_str(&text).unwrap();
        let renewal = entry["renewal"].clone();
        (!renewal.is_null())
            .then_some(renewal)
            .ok_or(entry["obtained_ms"].clone())
    })
}

#[test]
fn authority_that_cannot_be_asked_when_to_renew_is_no_failure() {
    let pebble = Pebble::start(Rules::default());
    // The account is made with the first answer.
    let (directory, asked) = directory_with_renewals(&pebble, 1);
    let keys = format!("acme: {{ {} }}", pebble.keys_of(&directory, "a.test"));
    let (_origin, proxy) = start(&pebble, HOME, &keys, "");
    until_served(&pebble, &proxy, "a.test", HOME);
    let renewal = renewal(&proxy);
    assert!(renewal["at_ms"].is_null(), "{renewal}");
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked, ["/dir", "/dir"], "it is asked again an hour later");
    let metrics = proxy.ask("/admin/metrics").text();
    let failures = "watershed_acme_failures_total{} 0";
    assert!(metrics.contains(failures), "{metrics}");
    let log = proxy.log.lock().unwrap().clone();
    assert!(!log.contains("no certificate by tls.acme"), "{log}");
}
