//! Answers that do not reach their end are told apart from those that do.

use crate::support::proxy::Proxy;
use crate::support::until;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

/// Answers by the target: `/whole`, `/cut` (half of what was promised), `/slow` (half, and silence).
fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut head = vec![0; 8192];
                while let Ok(read @ 1..) = stream.read(&mut head) {
                    let text = String::from_utf8_lossy(&head[..read]).into_owned();
                    let half = "x".repeat(500);
                    let promised = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
                    stream.write_all(promised).unwrap();
                    stream.write_all(half.as_bytes()).unwrap();
                    if text.starts_with("GET /whole") {
                        stream.write_all(half.as_bytes()).unwrap();
                        continue;
                    }
                    if text.starts_with("GET /slow") {
                        std::thread::sleep(Duration::from_secs(20));
                    }
                    return;
                }
            });
        }
    });
    address
}

#[test]
fn aborted_responses_are_not_counted_as_completed() {
    let origin = origin();
    let proxy = Proxy::start(&format!(
        "user: {{ cookie: uid }}\nupstreams: {{ a: \"http://{origin}\", b: \"http://{origin}\" }}\nexperiments: {{ shop: {{ control: a, experiment: b, percent: 50 }} }}\nmetrics: {{ m: /whole }}\n"
    ));
    for number in 0..12 {
        let cookie = format!("Cookie: uid=u{number}\r\n");
        let whole = proxy.client().try_get("/whole", &cookie).unwrap();
        assert_eq!(whole.body.len(), 1000);
        if number < 5 {
            let cut = proxy.client().try_get("/cut", &cookie);
            assert!(cut.is_err(), "a body that was cut looked whole");
        }
        if number < 3 {
            let mut leaving = proxy.client();
            leaving
                .say(format!("GET /slow HTTP/1.1\r\nHost: a\r\n{cookie}\r\n"))
                .unwrap();
            leaving.head().unwrap();
        }
    }
    until("what was left", || {
        let results = proxy.results();
        let stages = results["experiments"][0]["sample_ratio"]["stages"].clone();
        let of = |name: &str| {
            let stages = stages.as_array().unwrap();
            let stage = stages.iter().find(|stage| stage["stage"] == name).unwrap();
            let groups = stage["groups"].as_object().unwrap().values();
            groups.map(|count| count.as_u64().unwrap()).sum::<u64>()
        };
        let told = (of("answered"), of("completed"), of("exposed"));
        (told == (20, 12, 12)).then_some(()).ok_or(stages)
    });
}
