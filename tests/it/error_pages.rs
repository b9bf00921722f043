//! Own pages for the errors that watershed answers.

use crate::support::client::Client;
use crate::support::proxy::Proxy;
use crate::support::raw::Raw;
use std::process::Command;

#[test]
fn errors_have_the_pages_of_the_file() {
    let more = "error_pages: { 502: { body: \"<h1>We are back soon</h1>\", headers: { Content-Type: text/html, Retry-After: 30 } }, \
                503: { file: busy.html } }\n";
    let proxy = Proxy::start("upstreams: { current: \"http://127.0.0.1:1\" }\n");
    let folder = proxy.folder.path();
    std::fs::write(folder.join("busy.html"), "<h1>Busy</h1>").unwrap();
    proxy.write(&format!(
        "upstreams: {{ current: \"http://127.0.0.1:1\" }}\n{more}"
    ));
    let answer = Client::admin(proxy.admin).post("/admin/reload", "", "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mut client = proxy.client();
    for _ in 0..2 {
        let answer = client.get("/", "");
        assert_eq!(
            (answer.status, &*answer.text()),
            (502, "<h1>We are back soon</h1>")
        );
        assert_eq!(answer.header("watershed-error"), Some("upstream_refused"));
        assert_eq!(answer.all("content-type"), ["text/html"]);
        assert_eq!(answer.all("retry-after"), ["30"]);
    }
    client.say("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let answer = client.answer(false).unwrap();
    assert_eq!(
        (answer.status, answer.header("content-length")),
        (502, Some("25"))
    );
    assert_eq!(
        client.get("/", "").status,
        502,
        "the connection is still good"
    );
    // Another status keeps the usual text, and an upstream's own page stays.
    let origin = Raw::start(|mut peer| {
        while let Some(request) = peer.request() {
            match request.starts_with("GET /slow") {
                // Longer than any response may take: until the proxy leaves.
                true => {
                    peer.is_left(std::time::Duration::from_secs(10));
                    return;
                }
                false => peer.say("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\n\r\nmine"),
            }
        }
    });
    proxy.write(&format!(
        "upstreams: {{ current: {{ endpoints: [ \"http://{}\" ], limits: {{ connections: 1 }} }} }}\ntimeouts: {{ response: 300ms, connect: 100ms }}\n{more}",
        origin.address
    ));
    let answer = Client::admin(proxy.admin).post("/admin/reload", "", "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(proxy.client().get("/", "").text(), "mine");
    let answer = proxy.client().get("/slow", "");
    assert_eq!(
        (answer.status, &*answer.text()),
        (504, "504 Gateway Timeout: upstream_response_timeout\n")
    );
    // A changed page is loaded with the file.
    std::fs::write(folder.join("busy.html"), "<h1>Later</h1>").unwrap();
}

#[test]
fn pages_that_can_never_be_served_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("routes.yaml");
    let check = |pages: &str, expected: &str| {
        let text = format!("upstreams: {{ a: \"http://a.test\" }}\nerror_pages: {{ {pages} }}\n");
        std::fs::write(&path, text).unwrap();
        let output = Command::new(crate::support::proxy::BINARY)
            .args(["check", "-c"])
            .arg(&path)
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{pages}: {error}");
        assert!(error.contains(expected), "{pages}: {error}");
    };
    check("404: { body: x }", "413, 429, 502, 503 or 504");
    check("\"5xx\": { body: x }", "a page for `5xx`");
    check("502: { }", "file");
    check("502: { body: x, file: y }", "one of them");
    check("502: { file: missing.html }", "cannot be read");
    check("502: { body: x, status: 200 }", "status");
    check(
        "502: { body: x, headers: { Content-Length: 3 } }",
        "Content-Length",
    );
}
