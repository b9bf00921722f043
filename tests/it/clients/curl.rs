//! curl, with every version of HTTP that it supports.

use super::{say, secure};
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::raw::Raw;
use crate::wire::sent;
use serde_json::Value;
use std::net::SocketAddr;

fn plain(origin: SocketAddr, more: &str) -> Proxy {
    Proxy::start(&format!(
        "upstreams: {{ current: \"http://{origin}\" }}\n{more}"
    ))
}

#[track_caller]
fn curl(words: &[&str]) -> String {
    let mut all = vec!["--silent", "--show-error", "--max-time", "30"];
    all.extend(words);
    say("curl", &all)
}

/// Returns the request as the origin describes it, and curl's data on the connection.
#[track_caller]
fn told(words: &[&str], write_out: &str) -> (Value, String) {
    let all = curl(&[words, &["--write-out", &format!("\n{write_out}")]].concat());
    let (said, told) = all.rsplit_once('\n').unwrap();
    let said = serde_json::from_str(said).unwrap_or_else(|error| panic!("{error}: {all}"));
    (said, told.to_owned())
}

#[test]
fn curl_gets_responses_over_every_http_version() {
    let origin = Origin::start("current");
    let routes = format!(
        "upstreams: {{ current: \"http://{}\" }}\n{}",
        origin.address,
        // Every visitor gets an ID here.
        "experiments: { e: { control: current, experiment: current, percent: 50 } }"
    );
    let (proxy, tls, folder) = secure(&routes);
    let clear = format!("http://{}/a%20b?c=%2F", proxy.public);
    let safe = format!("https://site.test:{}/a%20b?c=%2F", tls.port());
    let resolve = format!("site.test:{}:127.0.0.1", tls.port());
    let certificate = folder.path().join("cert.pem");
    let trust: Vec<&str> = vec![
        "--cacert",
        certificate.to_str().unwrap(),
        "--resolve",
        &resolve,
        &safe,
    ];
    let check = |version: &str, via: &str, words: &[&str]| {
        let (said, told) = told(words, "%{http_version} %{http_code}");
        assert_eq!(told, format!("{version} 200"), "{words:?}");
        assert_eq!(said["target"], "/a%20b?c=%2F", "{words:?}");
        assert_eq!(sent(&said, "via"), [format!("{via} watershed")]);
        assert!(sent(&said, "user-agent")[0].starts_with("curl/"));
        let scheme = if words.contains(&&*safe) {
            "https"
        } else {
            "http"
        };
        assert_eq!(sent(&said, "x-forwarded-proto"), [scheme]);
    };
    check("1.1", "1.1", &["--http1.1", &clear]);
    check("1", "1.0", &["--http1.0", &clear]);
    // A request to upgrade to h2c is ignored (RFC 9113, 3.1).
    check("1.1", "1.1", &["--http2", &clear]);
    check("2", "2", &["--http2-prior-knowledge", &clear]);
    check("2", "2", &[&["--http2"], &trust[..]].concat());
    check("1.1", "1.1", &[&["--http1.1"], &trust[..]].concat());
    // The cookie jar keeps the minted cookie, so the second response sets none.
    let jar = folder.path().join("jar");
    let jar = jar.to_str().unwrap();
    let dump =
        |first: &[&str]| curl(&[first, &trust[..], &["-o", "/dev/null", "-D", "-"]].concat());
    let keep = ["--http2", "--cookie", jar, "--cookie-jar", jar];
    let (first, second) = (dump(&keep), dump(&keep));
    assert_eq!(
        first.matches("set-cookie: watershed_id=").count(),
        1,
        "{first}"
    );
    assert!(first.contains("; Secure"), "{first}");
    assert_eq!(second.matches("set-cookie:").count(), 0, "{second}");
}

#[test]
fn curl_reuses_its_connection() {
    let origin = Origin::start("current");
    let (proxy, tls, _certificate) = secure(&format!(
        "upstreams: {{ current: \"http://{}\" }}",
        origin.address
    ));
    // With prior knowledge, this curl sends its preface again.
    for (version, url) in [
        ("--http1.1", format!("http://{}/[1-5]", proxy.public)),
        ("--http1.1", format!("https://{tls}/[1-5]")),
        ("--http2", format!("https://{tls}/[1-5]")),
    ] {
        let write = "%{http_code}:%{num_connects} ";
        let words = [version, "--insecure", "-o", "/dev/null", "-w", write, &url];
        assert_eq!(
            curl(&words),
            "200:1 200:0 200:0 200:0 200:0 ",
            "{version} {url}"
        );
    }
    let head = curl(&["--head", &format!("http://{}/", proxy.public)]);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
}

#[test]
fn curl_upload_arrives_complete() {
    let origin = Origin::start("current");
    let proxy = plain(origin.address, "");
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("upload");
    let bytes: Vec<u8> = (0..5_000_000_u32)
        .map(|number| (number * 7) as u8)
        .collect();
    std::fs::write(&file, &bytes).unwrap();
    let file = file.to_str().unwrap();
    let url = format!("http://{}/up", proxy.public);
    let chunked = ["-H", "Transfer-Encoding: chunked"];
    for (words, framing) in [
        (
            &["--http1.1", "-H", "Expect: 100-continue"][..],
            "content-length",
        ),
        (&["--http1.1", "-H", "Expect:"], "content-length"),
        (
            &[&["--http1.1"], &chunked[..]].concat(),
            "transfer-encoding",
        ),
        (&["--http2-prior-knowledge"], "content-length"),
    ] {
        let all = [words, &["-T", file, &url]].concat();
        let (said, code) = told(&all, "%{http_code}");
        assert_eq!((code.as_str(), &said["method"]), ("200", &"PUT".into()));
        assert_eq!(said["body_bytes"], bytes.len(), "{words:?}");
        assert_eq!(sent(&said, framing).len(), 1, "{words:?}: {said}");
        // And back again.
        let echo = format!("http://{}/up?echo", proxy.public);
        let back = folder.path().join("back");
        let back = back.to_str().unwrap();
        curl(&[words, &["-X", "POST", "-T", file, "-o", back, &echo]].concat());
        assert!(std::fs::read(back).unwrap() == bytes, "{words:?}");
    }
    // curl waits for 100 Continue and receives it.
    let trace = folder.path().join("trace");
    let trace = trace.to_str().unwrap();
    let expect = ["-H", "Expect: 100-continue", "--expect100-timeout", "20"];
    let output = ["--trace-ascii", trace, "-o", "/dev/null", "-T", file, &url];
    curl(&[&expect[..], &output[..]].concat());
    let trace = std::fs::read_to_string(trace).unwrap();
    let (before, after) = trace
        .split_once("HTTP/1.1 100 Continue")
        .expect(&trace[..800]);
    assert!(!before.contains("=> Send data"), "the body did not wait");
    assert!(after.contains("=> Send data"));
}

#[test]
fn oversized_upload_of_curl_returns_413() {
    let origin = Origin::start("current");
    let proxy = plain(origin.address, "limits: { body: 1KiB }");
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("upload");
    std::fs::write(&file, vec![b'x'; 3_000_000]).unwrap();
    let url = format!("http://{}/up", proxy.public);
    // Over HTTP/2 this curl drops a response whose stream ends with NO_ERROR.
    let file = file.to_str().unwrap();
    let words = ["-o", "/dev/null", "-w", "%{http_code}", "-T", file, &url];
    assert_eq!(curl(&words), "413");
}

#[test]
fn curl_gets_trailers_and_early_hints() {
    let origin = Raw::always(
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Checksum\r\n\r\n\
         2\r\nok\r\n0\r\nChecksum: abc\r\n\r\n",
    );
    let proxy = plain(origin.address, "");
    let url = format!("http://{}/", proxy.public);
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let said = curl(&[version, "-H", "TE: trailers", "-D", "-", &url]);
        let lower = said.to_lowercase();
        assert!(lower.contains("checksum: abc"), "{version}: {said}");
        assert!(lower.contains("\r\nok"), "{version}: {said}");
        let hints = match version {
            "--http1.1" => "http/1.1 103 early hints\r\nlink: ",
            _ => "http/2 103 \r\nlink: ",
        };
        assert!(lower.starts_with(hints), "{version}: {said}");
    }
}

#[test]
fn proxy_protocol_header_is_accepted_from_trusted_peers() {
    let origin = Origin::start("current");
    let proxy = plain(origin.address, "trust: [ 127.0.0.1 ]");
    let url = format!("http://{}/", proxy.public);
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let (said, code) = told(&["--haproxy-protocol", version, &url], "%{http_code}");
        assert_eq!(code, "200");
        assert_eq!(sent(&said, "x-forwarded-for"), ["127.0.0.1"], "{version}");
    }
    let proxy = plain(origin.address, "");
    let url = format!("http://{}/", proxy.public);
    let words = [
        "--haproxy-protocol",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        &url,
    ];
    assert_eq!(curl(&words), "400");
}
