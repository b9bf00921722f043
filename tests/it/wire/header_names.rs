//! Header names that upstreams trust: clients can neither add nor remove them.

use super::http2::{connect, run, text, whole};
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::raw::Raw;
use base64::Engine;
use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::Request;
use hyper::body::Frame;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::SocketAddr;

const FILE: &str = "workers: 1
user: [{ header: X-User }, { cookie: uid }]
experiments:
  beta: { match: { headers: { X_Beta: yes } }, control: current, experiment: current, percent: 50 }
  site: { match: { headers: { X-Plan: pro } }, control: current, experiment: current, percent: 50 }
metrics: { buy: POST /buy -> 2xx }
";
/// Keys that change how a request is handled.
const PATHS: [&str; 3] = ["", "timeouts: { total: 60s }\n", "trust: [127.0.0.1]\n"];

fn proxy(origin: SocketAddr, more: &str) -> Proxy {
    Proxy::start(&format!(
        "upstreams: {{ current: \"http://{origin}\" }}\n{FILE}{more}"
    ))
}

/// Variants of trusted names; none is forwarded.
const DISGUISED: &[&str] = &[
    "Watershed_User",
    "watershed_experiment",
    "Watershed-_User",
    "X_Forwarded_For",
    "X_Forwarded-Proto",
    "X-Forwarded_Host",
    "x_forwarded_anything",
    "X.Forwarded.For",
    "X~Forwarded~For",
    "X_Real_IP",
    "X_Request_Id",
    "Content_Length",
    "Transfer_Encoding",
    "Keep_Alive",
    "Max_Forwards",
    "Proxy_Authorization",
    "X_User",
    "X.Plan",
    "X-Beta",
];

#[track_caller]
fn names_of(said: &Value) -> BTreeSet<String> {
    let lines = said["headers"].as_array().unwrap().iter();
    lines
        .map(|line| line[0].as_str().unwrap().to_owned())
        .collect()
}

#[track_caller]
fn only_genuine_names_arrived(said: &Value, how: &str) {
    let names = names_of(said);
    for name in DISGUISED {
        // Headers with the prefix of watershed come from watershed only.
        assert!(
            !names.contains(&name.to_lowercase()),
            "{name} {how}: {said}"
        );
    }
    for name in [
        "x_other",
        "x.y",
        "content_type",
        "x-user",
        "x_beta",
        "x-plan",
    ] {
        assert!(names.contains(name), "{name} {how}: {said}");
    }
    let user = super::sent(said, "watershed-user");
    assert_eq!(user, ["genuine"], "{how}");
}

#[test]
fn variants_of_trusted_header_names_are_not_forwarded() {
    let origin = Origin::start("current");
    let lines: String = DISGUISED
        .iter()
        .map(|name| format!("{name}: forged\r\n"))
        .collect();
    let genuine = "X-User: genuine\r\nX_Beta: yes\r\nX-Plan: pro\r\nX_Other: 1\r\nX.Y: 1\r\nContent_Type: a\r\n";
    for more in PATHS {
        let proxy = proxy(origin.address, more);
        let mut client = proxy.client();
        let said = client.get("/", &format!("{genuine}{lines}")).json();
        only_genuine_names_arrived(&said, more);
        // With `TE`, which is handled separately.
        let said = client
            .get("/", &format!("TE: trailers\r\n{lines}{genuine}"))
            .json();
        only_genuine_names_arrived(&said, more);
        run(async {
            let mut sender = connect(proxy.public).await;
            let mut request = Request::get("http://site.test/");
            for line in genuine.lines().chain(lines.lines()) {
                let (name, value) = line.split_once(": ").unwrap();
                // HTTP/2 forbids some of these names.
                request = request.header(name.to_lowercase(), value);
            }
            let sent = sender.send_request(request.body(whole("")).unwrap());
            let said = serde_json::from_str(&text(sent.await.unwrap()).await).unwrap();
            only_genuine_names_arrived(&said, &format!("HTTP/2 {more}"));
        });
    }
}

#[test]
fn variants_of_trusted_header_names_are_not_forwarded_with_an_upgrade() {
    let origin = Raw::start(|mut peer| {
        if peer.head().is_some() {
            peer.say(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
            );
        }
    });
    let proxy = proxy(origin.address, "");
    let mut client = proxy.client();
    client
        .say("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, X-User\r\nUpgrade: x\r\nX_User: forged\r\nX-User: genuine\r\nX_Forwarded_For: 6.6.6.6\r\n\r\n")
        .unwrap();
    assert_eq!(client.head().unwrap().0, 101);
    let seen = origin.seen().to_lowercase();
    assert!(seen.contains("\r\nx-user: genuine\r\n"), "{seen}");
    assert!(
        !seen.contains("forged") && !seen.contains("6.6.6.6"),
        "{seen}"
    );
}

#[test]
fn connection_header_cannot_remove_forwarded_headers() {
    let origin = Origin::start("current");
    let kept = [
        ("x-user", "genuine"),
        ("x-plan", "pro"),
        ("authorization", "Basic eA=="),
        ("cookie", "a=b"),
        ("x-real-ip", "1.1.1.1"),
        ("x-request-id", "r"),
        ("traceparent", "00-1-2-00"),
        ("cache-control", "no-cache"),
        ("content-type", "text/plain"),
        ("if-match", "\"x\""),
        ("range", "bytes=0-1"),
        ("via", "1.0 other"),
    ];
    let ours = [
        "host",
        "x-forwarded-for",
        "x-forwarded-proto",
        "forwarded",
        "watershed-user",
        "watershed-experiment",
    ];
    for more in PATHS {
        // The ID and trace of the client stay. The next test covers those of the proxy.
        let proxy = proxy(
            origin.address,
            &format!("{more}request_id: false\ntrace: false\n"),
        );
        let names = kept.iter().map(|(name, _)| *name).chain(ours);
        let names: Vec<&str> = names.chain(["x-hop", "X_Hop", "content-length"]).collect();
        let lines: String = kept
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let headers = format!(
            "Connection: {}\r\nForwarded: for=1.1.1.1\r\nX-Hop: 1\r\nX_Hop: 1\r\n{lines}",
            names.join(", ")
        );
        let said = proxy.client().post("/", &headers, "body").json();
        assert_eq!(said["body_bytes"], 4, "{more}");
        for (name, value) in kept {
            assert!(
                super::sent(&said, name).contains(&value),
                "{name} {more}: {said}"
            );
        }
        for name in ours {
            assert_eq!(super::sent(&said, name).len(), 1, "{name} {more}: {said}");
        }
        for name in ["x-hop", "x_hop", "connection"] {
            assert!(super::sent(&said, name).is_empty(), "{name} {more}: {said}");
        }
    }
}

#[test]
fn connection_header_cannot_remove_request_id_or_trace() {
    let origin = Origin::start("current");
    let proxy = proxy(origin.address, "request_id: true\ntrace: true\n");
    let said = proxy
        .client()
        .get("/", "Connection: x-request-id, traceparent\r\n")
        .json();
    assert_eq!(super::sent(&said, "x-request-id").len(), 1, "{said}");
    assert_eq!(super::sent(&said, "traceparent").len(), 1, "{said}");
}

/// Trailers that are not allowed after a body, and one that is.
const TRAILERS: &[&str] = &[
    "X-User",
    "X_User",
    "X-Forwarded-For",
    "x_forwarded_for",
    "Watershed-User",
    "Watershed-Event",
    "Watershed-Group",
    "watershed_group",
    "Content-Length",
    "Content_Length",
    "Transfer-Encoding",
    "Host",
    "Authorization",
    "Cookie",
    "Set-Cookie",
    "Content-Type",
    "Content-Encoding",
    "Cache-Control",
    "If-Match",
    "Expect",
    "Proxy-Authorization",
    "X-Real-IP",
    "X-Sum",
];

#[test]
fn client_trailers_cannot_carry_trusted_fields() {
    let origin = Raw::always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let lines: String = TRAILERS
        .iter()
        .map(|name| format!("{name}: forged\r\n"))
        .collect();
    for more in PATHS {
        let proxy = proxy(origin.address, more);
        let mut client = proxy.client();
        let announced = TRAILERS.join(", ");
        client
            .say(format!(
                "POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: {announced}\r\n\r\n2\r\nok\r\n0\r\n{lines}\r\n"
            ))
            .unwrap();
        assert_eq!(client.answer(true).unwrap().status, 200, "{more}");
        let seen = origin.seen();
        let body = seen.rsplit("\r\n\r\n2\r\nok\r\n0\r\n").next().unwrap();
        assert_eq!(body.to_lowercase(), "x-sum: forged\r\n\r\n", "{more}");
        run(async {
            let mut sender = connect(proxy.public).await;
            let mut trailers = http::HeaderMap::new();
            for name in TRAILERS.iter().filter(|name| !name.starts_with("Transfer")) {
                let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
                trailers.append(name, http::HeaderValue::from_static("forged2"));
            }
            let frames = [
                Ok(Frame::data(Bytes::from("2"))),
                Ok(Frame::trailers(trailers)),
            ];
            let body = StreamBody::new(futures_util::stream::iter(frames)).boxed();
            let request = Request::post("http://a/2").header("trailer", announced);
            let response = sender
                .send_request(request.body(body).unwrap())
                .await
                .unwrap();
            assert_eq!(response.status(), 200);
        });
        let seen = origin.seen().to_lowercase();
        assert!(
            seen.ends_with("\r\n0\r\nx-sum: forged2\r\n\r\n"),
            "{more}: {seen}"
        );
    }
}

#[test]
fn upstream_trailers_cannot_carry_trusted_fields() {
    let lines: String = TRAILERS
        .iter()
        .map(|name| format!("{name}: forged\r\n"))
        .collect();
    let announced = TRAILERS.join(", ");
    let origin = Raw::always(format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: {announced}\r\n\r\n2\r\nok\r\n0\r\n{lines}\r\n"
    ));
    for more in PATHS {
        let proxy = proxy(origin.address, more);
        let mut client = proxy.client();
        client
            .say("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: close, te\r\n\r\n")
            .unwrap();
        let answer = client.rest().unwrap();
        let body = answer.split("\r\n\r\n2\r\nok\r\n0\r\n").nth(1).unwrap();
        assert_eq!(body.to_lowercase(), "x-sum: forged\r\n\r\n", "{more}");
        run(async {
            let mut sender = connect(proxy.public).await;
            let request = Request::get("http://a/").header("te", "trailers");
            let response = sender
                .send_request(request.body(whole("")).unwrap())
                .await
                .unwrap();
            let collected = response.into_body().collect().await.unwrap();
            let trailers = collected.trailers().unwrap();
            let names: Vec<&str> = trailers.keys().map(|name| name.as_str()).collect();
            assert_eq!(names, ["x-sum"], "{more}");
        });
    }
}

/// `Watershed-User` contains exactly the recorded ID, whatever whitespace the client put around it.
#[test]
fn whitespace_around_an_id_is_ignored() {
    let origin = Origin::start("current");
    let token = |sub: &str| {
        let claims = format!("{{\"sub\":\"{sub}\"}}");
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims);
        format!("authorization: Bearer x.{claims}.y")
    };
    let cases = [
        (
            "cookie: uid",
            "/",
            "cookie: a=b; uid= \tann \t; c=d".to_owned(),
        ),
        ("cookie: uid", "/", "cookie: uid=ann ".to_owned()),
        ("header: X-User", "/", "x-user:  \tann\t ".to_owned()),
        ("query: u", "/?u=%20%09ann+%20", "x-other: 1".to_owned()),
        ("query: u", "/?u=ann%09", "x-other: 1".to_owned()),
        ("jwt: { claim: sub }", "/", token(" ann  ")),
        ("jwt: { claim: sub }", "/", token("ann\\t")),
    ];
    for more in ["", "timeouts: { total: 60s }\n", "access_log: {}\n"] {
        for (source, target, line) in &cases {
            let proxy = Proxy::start(&format!(
                "upstreams: {{ current: \"http://{}\" }}\nworkers: 1\nuser: {{ {source} }}\nexperiments: {{ site: {{ control: current, experiment: current, percent: 50 }} }}\nmetrics: {{ buy: POST /buy -> 2xx }}\n{more}",
                origin.address
            ));
            // `TE` changes how the request is handled.
            for besides in ["", "TE: trailers\r\n"] {
                let mut client = proxy.client();
                let said = client.get(target, &format!("{line}\r\n{besides}")).json();
                let how = format!("{source} {line:?} {besides:?} {more}");
                assert_eq!(super::sent(&said, "watershed-user"), ["ann"], "{how}");
            }
            run(async {
                let mut sender = connect(proxy.public).await;
                let (name, value) = line.split_once(':').unwrap();
                let mut value = value.to_owned();
                if name != "x-user" {
                    value = value.trim_start().to_owned();
                }
                let request = Request::get(format!("http://site.test{target}"));
                let request = request.header(name, value);
                let sent = sender.send_request(request.body(whole("")).unwrap());
                let answer = sent.await;
                let answer = text(answer.unwrap()).await;
                let said: Value =
                    serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{answer}"));
                let how = format!("HTTP/2 {source} {line:?} {more}");
                assert_eq!(super::sent(&said, "watershed-user"), ["ann"], "{how}");
            });
            // All requests count as one user. The admin API also ignores whitespace around an ID.
            let results = proxy.results();
            let groups = results["experiments"][0]["groups"].as_array().unwrap();
            let users = groups.iter().map(|it| it["users"].as_u64().unwrap());
            assert_eq!(users.sum::<u64>(), 1, "{source} {line:?} {more}");
            for user in ["ann", "%20ann%09"] {
                let known = proxy.ask(&format!("/admin/assignments?user={user}")).json();
                assert!(!known["experiments"][0]["recorded"].is_null(), "{known}");
            }
        }
    }
}
