//! `TE`, and `Max-Forwards` of TRACE and OPTIONS.

use super::http2::{connect, run, whole};
use super::plain;
use crate::support::raw::Raw;
use hyper::Request;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const PATHS: [&str; 2] = ["workers: 1", "workers: 1\ntimeouts: { total: 60s }"];

#[test]
fn options_without_a_path_is_forwarded_as_asterisk() {
    for more in PATHS {
        let origin = Raw::always(OK);
        let proxy = plain(origin.address, more);
        let mut client = proxy.client();
        // Pipelined, each with its own target.
        for targets in [
            &[
                ("http://b", "*"),
                ("http://b/", "/"),
                ("*", "*"),
                ("http://b?x", "/?x"),
            ][..],
            &[
                ("HTTP://b:80", "*"),
                ("/a", "/a"),
                ("http://b", "*"),
                ("http://b/a", "/a"),
            ],
        ] {
            let asked = targets
                .iter()
                .map(|(target, _)| format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
            let before = origin.seen().len();
            client.say(asked.collect::<String>()).unwrap();
            for _ in targets {
                assert_eq!(client.answer(true).unwrap().status, 200, "{more}");
            }
            let seen = origin.seen()[before..].to_owned();
            let lines = seen
                .split("\r\n")
                .filter_map(|line| line.strip_prefix("OPTIONS "));
            let expected = targets
                .iter()
                .map(|(_, target)| format!("{target} HTTP/1.1"));
            assert_eq!(
                lines.collect::<Vec<_>>(),
                expected.collect::<Vec<_>>(),
                "{more}"
            );
        }
        // The target of GET does not become `*`.
        client
            .say("GET http://b HTTP/1.1\r\nHost: a\r\n\r\n")
            .unwrap();
        assert_eq!(client.answer(true).unwrap().status, 200);
        assert!(origin.seen().contains("GET / HTTP/1.1\r\n"));
    }
}

#[test]
fn max_forwards_is_decremented_and_zero_is_not_forwarded() {
    for more in PATHS {
        let origin = Raw::always(OK);
        let proxy = plain(origin.address, more);
        let ask = |method: &str, fields: &str| {
            let mut client = proxy.client();
            client
                .say(format!("{method} / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))
                .unwrap();
            client.answer(true).unwrap()
        };
        let passed_on = |method: &str, said: &str, expected: &str| {
            let before = origin.seen().len();
            assert_eq!(
                ask(method, &format!("Max-Forwards: {said}\r\n")).text(),
                "ok"
            );
            let seen = origin.seen()[before..].to_lowercase();
            assert!(
                seen.contains(&format!("\r\nmax-forwards: {expected}\r\n")),
                "{said}: {seen}"
            );
        };
        for method in ["OPTIONS", "TRACE"] {
            passed_on(method, "1", "0");
            passed_on(method, "010", "9");
            passed_on(method, "99999999999999999999999", "1000");
        }
        passed_on("GET", "0", "0");
        let before = origin.seen().len();
        let answer = ask("OPTIONS", "Max-Forwards: 0\r\n");
        assert_eq!(
            (answer.status, answer.header("content-length")),
            (200, Some("0"))
        );
        assert!(
            answer
                .header("allow")
                .is_some_and(|allow| allow.contains("OPTIONS"))
        );
        let answer = ask("TRACE", "Max-Forwards: 0\r\nCookie: secret\r\n");
        assert_eq!(
            (answer.status, answer.text().contains("secret")),
            (405, false)
        );
        for said in [
            "Max-Forwards: x\r\n",
            "Max-Forwards: -1\r\n",
            "Max-Forwards:\r\n",
            "Max-Forwards: 1\r\nMax-Forwards: 1\r\n",
        ] {
            assert_eq!(ask("OPTIONS", said).status, 400, "{said}");
        }
        assert_eq!(
            origin.seen().len(),
            before,
            "something reached the upstream"
        );
        run(async {
            let mut sender = connect(proxy.public).await;
            let request = Request::options("http://a/").header("max-forwards", "0");
            let answer = sender
                .send_request(request.body(whole("")).unwrap())
                .await
                .unwrap();
            assert_eq!(answer.status(), 200);
        });
    }
}

#[test]
fn te_is_listed_in_connection() {
    let upgrade = "Connection: Upgrade, TE\r\nUpgrade: x\r\nTE: trailers\r\n";
    for more in PATHS {
        for (fields, connection) in [
            ("TE: trailers\r\n", Some("te")),
            ("TE: gzip, trailers;q=1\r\nConnection: te\r\n", Some("te")),
            ("TE: gzip\r\nConnection: TE\r\n", None),
            (upgrade, Some("upgrade, te")),
        ] {
            let origin = Raw::always(OK);
            let proxy = plain(origin.address, more);
            let mut client = proxy.client();
            for _ in 0..2 {
                assert_eq!(client.get("/", fields).status, 200, "{fields} {more}");
            }
            let seen = origin.seen().to_lowercase();
            let said = |name: &str| {
                let lines = seen
                    .split("\r\n")
                    .filter_map(|line| line.strip_prefix(name));
                lines.map(str::to_owned).collect::<Vec<_>>()
            };
            let te = connection.map(|_| "trailers");
            assert_eq!(
                said("te: "),
                vec![te; 2].into_iter().flatten().collect::<Vec<_>>()
            );
            assert_eq!(
                said("connection: "),
                vec![connection; 2]
                    .into_iter()
                    .flatten()
                    .collect::<Vec<_>>()
            );
        }
    }
}
