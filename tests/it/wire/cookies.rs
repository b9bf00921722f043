//! Cookies of watershed, which never reach an upstream.

use super::http2::{connect, run, text, whole};
use super::{plain, sent};
use crate::support::client::Client;
use crate::support::origin::Origin;
use serde_json::Value;

/// Keys that change how a request is handled.
const WAYS: [&str; 3] = [
    "workers: 1",
    "workers: 1\ntimeouts: { total: 20s }",
    "workers: 1\naccess_log: stderr",
];

const CASES: &[(&[&str], &[&str])] = &[
    (&["watershed_session=secret"], &[]),
    (&["watershed_session=secret; a=1"], &["a=1"]),
    (&["a=1; watershed_session=secret"], &["a=1"]),
    (
        &["a=\"x, y\";  watershed_session=secret ;b= =2; c"],
        &["a=\"x, y\";b= =2; c"],
    ),
    (
        &[
            "a=1",
            "watershed_session=secret",
            "b=2; watershed_session=secret; c=3",
        ],
        &["a=1", "b=2; c=3"],
    ),
    (
        &["watershed_sessions=1; x=watershed_session=2"],
        &["watershed_sessions=1; x=watershed_session=2"],
    ),
    (&["watershed_session =secret; a=1"], &["a=1"]),
];

#[test]
fn admin_session_cookie_never_reaches_an_upstream_over_http_1() {
    let origin = Origin::start("current");
    for way in WAYS {
        let proxy = plain(origin.address, way);
        for (lines, kept) in CASES {
            let lines: String = lines.iter().map(|it| format!("Cookie: {it}\r\n")).collect();
            let said = proxy.client().get("/", &lines).json();
            assert_eq!(sent(&said, "cookie"), *kept, "{way}: {lines}");
            // The same for a later request on the connection.
            let mut client = proxy.client();
            for _ in 0..2 {
                let upload = format!("Transfer-Encoding: chunked\r\n{lines}");
                client
                    .say(format!(
                        "POST / HTTP/1.1\r\nHost: site.test\r\n{upload}\r\n1\r\nx\r\n0\r\n\r\n"
                    ))
                    .unwrap();
                let said = client.answer(true).unwrap().json();
                assert_eq!(sent(&said, "cookie"), *kept, "{way}: {lines}");
            }
        }
        let mut old = Client::connect(proxy.public);
        old.say("GET / HTTP/1.0\r\nHost: a\r\nCookie: watershed_session=secret; a=1\r\n\r\n")
            .unwrap();
        let said = old.answer(true).unwrap().json();
        assert_eq!(sent(&said, "cookie"), ["a=1"], "{way}");
    }
}

#[test]
fn admin_session_cookie_never_reaches_an_upstream_over_http_2() {
    let origin = Origin::start("current");
    for way in WAYS {
        let proxy = plain(origin.address, way);
        run(async {
            let mut sender = connect(proxy.public).await;
            for (crumbs, kept) in CASES {
                let mut request = http::Request::get("http://site.test/");
                for crumb in *crumbs {
                    request = request.header("cookie", *crumb);
                }
                let request = request.body(whole("")).unwrap();
                let response = sender.send_request(request).await.unwrap();
                let said: Value = serde_json::from_str(&text(response).await).unwrap();
                let kept = kept.join("; ");
                let sent = sent(&said, "cookie").join("; ");
                assert!(!sent.contains("secret"), "{way}: {crumbs:?}: {sent}");
                assert_eq!(sent, kept, "{way}: {crumbs:?}");
            }
        });
    }
}
