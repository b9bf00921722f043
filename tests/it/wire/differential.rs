//! The same raw bytes through several configurations: an access log, request IDs, traces or a total
//! timeout must not change what client, upstream, results and metrics see, and HTTP/2 clients must get
//! the same responses.

use super::http2;
use crate::support::HANG;
use crate::support::proxy::Proxy;
use crate::support::raw::Raw;
use http_body_util::BodyExt;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

const OBSERVED: &str =
    "access_log: access.log\nrequest_id: true\ntrace: 10%\ntimeouts: { total: 10m }\n";
/// Sent after each case on the same connection, to show whether it is still usable.
const LAST: &str = "GET /last HTTP/1.1\r\nHost: a\r\nX-User: last\r\nConnection: close\r\n\r\n";
/// Header lines that differ with each request or depend on the configuration.
const VARYING: &[&str] = &[
    "date:",
    "x-request-id:",
    "traceparent:",
    "set-cookie:",
    "host: 127.0.0.1:",
];

/// Cases whose responses differ between the configurations, and the reason.
const DIFFERENCES: &[&str] = &[];
/// Responses that differ for a client of HTTP/2, and the reason.
const DIFFERENCES_HTTP2: &[(&str, &str)] = &[(
    "head of 100 KiB",
    "the client of this test takes no larger head",
)];

fn post(fields: &str, body: &str) -> String {
    format!("POST /p HTTP/1.1\r\nHost: a\r\nX-User: u\r\n{fields}\r\n{body}")
}

fn get(fields: &str) -> String {
    format!("GET /g?x=1 HTTP/1.1\r\nHost: a\r\nX-User: u\r\n{fields}\r\n")
}

/// A request of a known user, because a minted ID would differ each time.
fn identified(request: &str) -> String {
    let with = |end: &str| request.replacen(end, &format!("{end}X-User: u{end}"), 1);
    match request.contains("\r\nHost") || request.contains(".0\r\n") {
        true => {
            let (first, rest) = request.trim_start().split_once("\r\n").unwrap();
            let empty = request.len() - request.trim_start().len();
            format!("{}{first}\r\nX-User: u\r\n{rest}", &request[..empty])
        }
        false if request.contains("\nHost") => with("\n"),
        false => request.to_owned(),
    }
}

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

fn with_field(line: &str) -> String {
    get(&format!("{line}\r\n"))
}

/// The requests of clients.
fn requests() -> Vec<String> {
    let mut cases: Vec<String> = [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /#f HTTP/1.1\r\nHost: a\r\n\r\n",
        "G@T / HTTP/1.1\r\nHost: a\r\n\r\n",
        "PURGE /p HTTP/1.1\r\nHost: a\r\n\r\n",
        "HEAD /h HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://b.example/abs?q HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://b.example?q HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://u@b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET ftp://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS http://b.example HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS /o HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n",
        "OPTIONS /o HTTP/1.1\r\nHost: a\r\nMax-Forwards: 3\r\n\r\n",
        "TRACE /t HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n",
        "TRACE /t HTTP/1.1\r\nHost: a\r\nMax-Forwards: x\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX",
        "nonsense\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
    ]
    .map(identified)
    .into();
    for line in [
        "Connection: close",
        "Connection: keep-alive, X-Hop\r\nX-Hop: 1",
        "Connection: host, x-user",
        "Connection: te\r\nTE: trailers",
        "TE: gzip",
        "Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive",
        "Forwarded: for=1.1.1.1",
        "X-Forwarded-For: 1.1.1.1",
        "Cookie: a=b; watershed_override=x; c=d",
        "Cookie: watershed_session=x",
        "Watershed-Override: x",
        "Watershed-User: forged",
        "X_User: other",
        "X-Request-Id: a\tb",
        "Upgrade: h2c\r\nConnection: upgrade",
        "Upgrade: websocket",
        "Upgrade: websocket\r\nConnection: Upgrade",
        "Expect: 200-ok",
        "Content-Length: 0",
        "Content-Length: 00",
        "Content-Length: x",
        "Content-Length: 1, 1",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
    ] {
        cases.push(with_field(line));
    }
    cases.push(get("").replace("x=1", "a=b&watershed_override=x&c=d"));
    cases.push(with_field(&format!("X: {}", "x".repeat(70 << 10))));
    cases.push(get("").replace("/g", &format!("/{}", "x".repeat(20 << 10))));
    cases.push(get(&"X: y\r\n".repeat(101)));
    cases.push(get(&"X: y\r\n".repeat(90)));
    cases.push(format!(
        "{}{}{}",
        get(""),
        post(CHUNKED, "1\r\na\r\n0\r\n\r\n"),
        get("")
    ));
    for body in [
        "3\r\nabc\r\n0\r\n\r\n",
        "000003;a=\"b\"\r\nabc\r\n0\r\n\r\n",
        "1\r\na\r\n0\r\nX-Sum: 1\r\nWatershed-Event: buy\r\n\r\n",
        "0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "g\r\n",
        "3\r\na",
        "1\r\na\r\n0\r\nX : y\r\n\r\n",
        "fffffffffffffffff\r\n",
    ] {
        cases.push(post(CHUNKED, body));
    }
    let expect = "Expect: 100-continue\r\n";
    cases.push(post(&format!("{expect}{CHUNKED}"), "3\r\nabc\r\n0\r\n\r\n"));
    cases.push(post(&format!("{expect}Content-Length: 3\r\n"), "abc"));
    cases.push(post("Content-Length: 3\r\n", "abc"));
    // No truncated body: how much of it the upstream sees depends on time.
    cases.push(post("Content-Length: 60000\r\n", &"x".repeat(60_000)));
    cases.push(post("", "").replace("/p", "/_watershed/events"));
    cases.push(
        post("Content-Length: 16\r\n", "{\"event\": \"buy\"}").replace("/p", "/_watershed/events"),
    );
    cases
}

/// The responses of upstreams: a name and the bytes.
fn responses() -> Vec<(&'static str, Vec<u8>)> {
    let ok = |fields: &str, body: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}");
    let chunked = |body: &str| ok(CHUNKED, body);
    let fields = |count: usize| {
        ok(
            &format!("{}Content-Length: 2\r\n", "X: y\r\n".repeat(count)),
            "ok",
        )
    };
    let text = [
        ("plain", ok("Content-Length: 2\r\n", "ok")),
        ("close-delimited", ok("", "hello")),
        ("HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\nhello".into()),
        (
            "HTTP/1.0 with length",
            "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok".into(),
        ),
        (
            "HTTP/1.0 short",
            "HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\nok".into(),
        ),
        (
            "HTTP/1.0 chunked",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
        ),
        ("HTTP/1.2", "HTTP/1.2 200 OK\r\n\r\n".into()),
        ("HTTP/2.0", "HTTP/2.0 200 OK\r\n\r\n".into()),
        ("short", ok("Content-Length: 9\r\n", "ok")),
        ("long", ok("Content-Length: 2\r\n", "okay")),
        ("chunked", chunked("2\r\nok\r\n0\r\n\r\n")),
        (
            "chunked with trailers",
            chunked("2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n"),
        ),
        (
            "chunked with extension",
            chunked("2;a=b\r\nok\r\n0\r\n\r\n"),
        ),
        ("chunked padded", chunked("00002\r\nok\r\n0\r\n\r\n")),
        (
            "chunked padded much",
            chunked(&format!("{}2\r\nok\r\n0\r\n\r\n", "0".repeat(20))),
        ),
        ("chunked bare LF", chunked("2\nok\r\n0\r\n\r\n")),
        ("chunked unsound", chunked("x\r\n")),
        ("chunked space", chunked("2 \r\nok\r\n0\r\n\r\n")),
        ("chunked short", chunked("2\r\nok\r\n")),
        ("chunked unsound later", chunked("2\r\nok\r\nx\r\n")),
        (
            "two framings",
            ok(&format!("{CHUNKED}Content-Length: 2\r\n"), "ok"),
        ),
        (
            "two lengths",
            ok("Content-Length: 2\r\nContent-Length: 2\r\n", "ok"),
        ),
        ("no length", ok("Content-Length: x\r\n", "ok")),
        ("gzip coding", ok("Transfer-Encoding: gzip\r\n", "ok")),
        (
            "CRLF before",
            "\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".into(),
        ),
        ("bare LF", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok".into()),
        (
            "204 with length",
            "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n".into(),
        ),
        ("204", "HTTP/1.1 204 No Content\r\n\r\n".into()),
        (
            "304 with length",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n".into(),
        ),
        ("304", "HTTP/1.1 304 Not Modified\r\n\r\n".into()),
        (
            "no phrase",
            "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok".into(),
        ),
        (
            "empty phrase",
            "HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok".into(),
        ),
        (
            "phrase with tab",
            "HTTP/1.1 200 a\tb\r\nContent-Length: 2\r\n\r\nok".into(),
        ),
        (
            "phrase with NUL",
            "HTTP/1.1 200 a\0b\r\nContent-Length: 2\r\n\r\nok".into(),
        ),
        ("status of two digits", "HTTP/1.1 20 OK\r\n\r\n".into()),
        (
            "status 999",
            "HTTP/1.1 999 What\r\nContent-Length: 2\r\n\r\nok".into(),
        ),
        ("status 000", "HTTP/1.1 000 What\r\n\r\n".into()),
        (
            "switching",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n".into(),
        ),
        (
            "early hints",
            format!(
                "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{}",
                ok("Content-Length: 2\r\n", "ok")
            ),
        ),
        (
            "continue",
            format!(
                "HTTP/1.1 100 Continue\r\n\r\n{}",
                ok("Content-Length: 2\r\n", "ok")
            ),
        ),
        (
            "hops",
            ok(
                "Connection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: a\r\nWatershed-Group: x\r\nContent-Length: 2\r\n",
                "ok",
            ),
        ),
        ("folded", ok("X: a\r\n b\r\nContent-Length: 2\r\n", "ok")),
        (
            "space before colon",
            ok("X : a\r\nContent-Length: 2\r\n", "ok"),
        ),
        (
            "control in value",
            ok("X: a\u{1}b\r\nContent-Length: 2\r\n", "ok"),
        ),
        ("100 fields", fields(99)),
        ("200 fields", fields(199)),
        ("256 fields", fields(255)),
        ("300 fields", fields(299)),
        (
            "head of 100 KiB",
            ok(
                &format!("X: {}\r\nContent-Length: 2\r\n", "x".repeat(100 << 10)),
                "ok",
            ),
        ),
        (
            "head of 500 KB",
            ok(
                &format!("X: {}\r\nContent-Length: 2\r\n", "x".repeat(500_000)),
                "ok",
            ),
        ),
        ("cut in head", "HTTP/1.1 200 OK\r\nContent-".into()),
        ("nothing", String::new()),
        ("nonsense", "nonsense\r\n\r\n".into()),
        (
            "event",
            ok("Watershed-Event: buy\r\nContent-Length: 2\r\n", "ok"),
        ),
    ];
    let text = text
        .into_iter()
        .map(|(name, text)| (name, text.into_bytes()));
    let phrase = b"HTTP/1.1 200 \xc3\xa9\xff\r\nContent-Length: 2\r\n\r\nok".to_vec();
    text.chain([("phrase beyond ASCII", phrase)]).collect()
}

/// Answers `/case/N` with the response of that place, and closes; all else with `ok`.
fn origin() -> Raw {
    let responses = responses();
    Raw::start(move |mut peer| {
        while let Some(request) = peer.request() {
            let place = request.split("/case/").nth(1);
            let place = place.and_then(|rest| rest.split(' ').next()?.parse::<usize>().ok());
            match place {
                Some(place) => {
                    peer.say(&responses[place].1);
                    let _ = peer.stream.shutdown(Shutdown::Write);
                    // The response must arrive before the end of the connection.
                    peer.is_left(Duration::from_secs(5));
                    return;
                }
                None if request.starts_with("HEAD") => {
                    peer.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
                }
                None => peer.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            }
        }
    })
}

/// A proxy with its origin.
struct Seen {
    origin: Raw,
    proxy: Proxy,
    taken: usize,
}

impl Seen {
    fn start(more: &str) -> Seen {
        let origin = origin();
        let upstream = origin.address;
        let proxy = Proxy::start(&format!(
            "workers: 1\nuser: {{ header: x-user }}\noverrides: {{ secret: 0123456789abcdef0123456789abcdef }}\nevents: {{ path: /_watershed/events }}\n\
             upstreams: {{ a: \"http://{upstream}\", b: \"http://{upstream}\" }}\n\
             experiments: {{ site: {{ control: a, experiment: b, percent: 50 }} }}\n\
             metrics: {{ buy: {{ event: buy }} }}\n{more}"
        ));
        Seen {
            origin,
            proxy,
            taken: 0,
        }
    }

    /// Sends these bytes. Returns what the client and the upstream see.
    fn case(&mut self, request: &str) -> String {
        let mut client = TcpStream::connect(self.proxy.public).unwrap();
        client.set_read_timeout(Some(HANG)).unwrap();
        // The proxy may close the connection before all is written.
        let _ = client.write_all(format!("{request}{LAST}").as_bytes());
        let _ = client.shutdown(Shutdown::Write);
        let mut said = Vec::new();
        // Whether unread bytes cause a reset depends on time.
        let _ = client.read_to_end(&mut said);
        let mut seen = format!("client\n{}", told(&said));
        let all = self.origin.seen();
        let _ = write!(seen, "\nupstream\n{}", told(&all.as_bytes()[self.taken..]));
        self.taken = all.len();
        let metrics = self.proxy.ask("/admin/metrics").text();
        for line in metrics.lines() {
            let counts = ["watershed_requests_total", "watershed_refusals_total"];
            if counts.iter().any(|name| line.starts_with(name)) {
                let _ = write!(seen, "\n{line}");
            }
        }
        seen
    }

    /// Returns the results of all cases.
    fn results(&self) -> String {
        let results = self.proxy.results();
        let experiment = &results["experiments"][0];
        let mut seen = String::new();
        for group in experiment["metrics"][0]["groups"].as_array().unwrap() {
            let _ = write!(seen, "{} {} ", group["users"], group["count"]);
        }
        for group in experiment["groups"].as_array().unwrap() {
            let _ = write!(
                seen,
                "{} {} {}",
                group["users"], group["requests"], group["responses"]
            );
        }
        seen
    }
}

/// Removes what differs each time, and interim responses, which depend on timing.
fn told(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).replace("HTTP/1.1 100 Continue\r\n\r\n", "");
    let lines = text.split_inclusive('\n').filter(|line| {
        let line = line.to_lowercase();
        !VARYING.iter().any(|name| line.starts_with(name))
    });
    lines.collect()
}

#[track_caller]
fn compare(name: &str, plain: &str, observed: &str, differing: &mut Vec<String>) {
    if plain != observed {
        differing.push(name.to_owned());
        if !DIFFERENCES.contains(&name) {
            eprintln!("{name:?} differs\n--- plain\n{plain}\n--- observed\n{observed}");
        }
    }
}

#[test]
fn no_configuration_key_changes_what_client_and_upstream_see() {
    let (mut plain, mut observed) = (Seen::start(""), Seen::start(OBSERVED));
    let mut differing = Vec::new();
    let requests = requests().into_iter().map(|request| {
        let name = request.chars().take(200).collect::<String>();
        (name, request)
    });
    let responses = responses()
        .into_iter()
        .enumerate()
        .flat_map(|(place, (name, _))| {
            let request =
                |first: &str| format!("{first}\r\nHost: a\r\nX-User: user-{place}\r\n\r\n");
            [
                (
                    name.to_owned(),
                    request(&format!("GET /case/{place} HTTP/1.1")),
                ),
                (
                    format!("{name} to HEAD"),
                    request(&format!("HEAD /case/{place} HTTP/1.1")),
                ),
                (
                    format!("{name} to HTTP/1.0"),
                    request(&format!("GET /case/{place} HTTP/1.0")),
                ),
            ]
        });
    for (name, request) in requests.chain(responses) {
        let (plain, observed) = (plain.case(&request), observed.case(&request));
        compare(&name, &plain, &observed, &mut differing);
    }
    compare(
        "results",
        &plain.results(),
        &observed.results(),
        &mut differing,
    );
    assert_eq!(differing, DIFFERENCES);
}

/// The status, the error, and the body or that it is truncated.
fn of_http2(proxy: &Proxy, path: &str) -> String {
    http2::run(async {
        let mut sender = http2::connect(proxy.public).await;
        let request = hyper::Request::get(format!("http://a{path}"));
        let request = request
            .header("x-user", "u")
            .body(http2::whole(""))
            .unwrap();
        let response = match sender.send_request(request).await {
            Ok(response) => response,
            // The head may be lost with the body.
            Err(_) => return "breaks off".to_owned(),
        };
        let (head, body) = response.into_parts();
        let error = head.headers.get("watershed-error");
        let body = match body.collect().await {
            Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
            Err(_) => return "breaks off".to_owned(),
        };
        format!("{} {error:?} {body:?}", head.status.as_u16())
    })
}

/// Decodes chunks up to the last one.
fn unchunked(mut rest: &str) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    loop {
        let (line, behind) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(line.split(';').next()?, 16).ok()?;
        if size == 0 {
            return behind.ends_with("\r\n").then_some(data);
        }
        data.extend_from_slice(behind.get(..size)?.as_bytes());
        rest = behind.get(size..)?.strip_prefix("\r\n")?;
    }
}

/// The same for HTTP/1.
fn of_http1(proxy: &Proxy, path: &str) -> String {
    let mut client = proxy.client();
    client
        .say(format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nX-User: u\r\nConnection: close\r\n\r\n"
        ))
        .unwrap();
    let (mut status, mut headers) = client.head().unwrap();
    while status < 200 {
        (status, headers) = client.head().unwrap();
    }
    let header = |name: &str| {
        let found = headers
            .iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    };
    let mut read = || -> std::io::Result<Vec<u8>> {
        let mut body = Vec::new();
        if matches!(status, 204 | 304) {
        } else if header("transfer-encoding").is_some() {
            body = unchunked(&client.rest()?).ok_or(std::io::ErrorKind::UnexpectedEof)?;
        } else {
            let length: usize = header("content-length").unwrap().parse().unwrap();
            body = client.rest()?.into_bytes();
            if body.len() != length {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(body)
    };
    let body = match read() {
        Ok(body) => String::from_utf8_lossy(&body).into_owned(),
        Err(_) => return "breaks off".to_owned(),
    };
    format!("{status} {:?} {body:?}", header("watershed-error"))
}

#[test]
fn clients_of_http_2_get_the_same_responses() {
    for more in ["", OBSERVED] {
        let seen = Seen::start(more);
        let mut differing = Vec::new();
        for (place, (name, _)) in responses().iter().enumerate() {
            let path = format!("/case/{place}");
            let (first, second) = (of_http1(&seen.proxy, &path), of_http2(&seen.proxy, &path));
            if first != second {
                differing.push(*name);
                if !DIFFERENCES_HTTP2.iter().any(|(known, _)| known == name) {
                    eprintln!("{name:?}: HTTP/1 {first}, HTTP/2 {second}");
                }
            }
        }
        let known: Vec<_> = DIFFERENCES_HTTP2.iter().map(|(name, _)| *name).collect();
        assert_eq!(differing, known);
    }
}
