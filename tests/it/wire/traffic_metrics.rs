//! Metrics of traffic: each request is counted once, by its outcome.

use super::http2;
use super::tls::Authority;
use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::raw::{Raw, reset};
use crate::support::tools;
use crate::support::{refusing_address, until};
use http::Request;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

const OBSERVED: &str =
    "access_log: access.log\nrequest_id: true\ntrace: 10%\ntimeouts: { total: 10m }\n";
const REQUESTS: &str = "watershed_http_requests_total";

type Series = BTreeMap<String, f64>;

fn metrics(proxy: &Proxy) -> Series {
    let answer = proxy.ask("/admin/metrics");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = answer.text();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let samples = samples.map(|line| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        (series.to_owned(), value.parse().unwrap())
    });
    let all: Vec<(String, f64)> = samples.collect();
    let series: Series = all.iter().cloned().collect();
    assert_eq!(series.len(), all.len(), "a series is there twice: {text}");
    series
}

fn value(series: &Series, name: &str) -> f64 {
    let value = series.get(&format!("watershed_{name}"));
    *value.unwrap_or_else(|| panic!("{name} is not among {series:#?}"))
}

/// Returns the lines of counted requests, without their prefix.
fn requests(series: &Series) -> BTreeMap<&str, f64> {
    let counted = series.iter();
    let counted = counted.filter_map(|(name, value)| Some((name.strip_prefix(REQUESTS)?, *value)));
    counted.collect()
}

/// Returns the metrics once no request is in flight, because a client can read the end of its response
/// before that is counted.
fn settled(proxy: &Proxy) -> Series {
    until("no request in flight", || {
        let series = metrics(proxy);
        match value(&series, "requests_in_flight{}") {
            0.0 => Ok(series),
            more => Err(more),
        }
    })
}

fn series_of(upstream: &str, endpoint: &str, how: (&str, &str, &str)) -> String {
    let (protocol, class, responder) = how;
    format!(
        "{{upstream=\"{upstream}\",endpoint=\"{endpoint}\",protocol=\"{protocol}\",class=\"{class}\",responder=\"{responder}\"}}"
    )
}

/// Sends this on a new connection and reads everything.
fn say(address: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    String::from_utf8_lossy(&said).into_owned()
}

fn by_http2(address: SocketAddr, path: &str, host: &str) -> u16 {
    http2::run(async {
        let mut sender = http2::connect(address).await;
        let uri = format!("http://{host}{path}");
        let request = Request::get(uri).body(http2::whole("")).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        http2::text(response).await;
        status
    })
}

/// Sends requests of every protocol and class.
fn check_counts(more: &str) {
    let origin = Origin::start("current");
    let gone = refusing_address();
    let proxy = Proxy::start(&format!(
        "workers: 2\nupstreams: {{ current: \"http://{}\", gone: \"http://{gone}\" }}\ndefault: current\n\
         user: {{ header: X-User }}\n\
         experiments: {{ site: {{ match: {{ host: gone.test }}, control: gone, experiment: gone, percent: 50 }} }}\n{more}",
        origin.address
    ));
    let endpoint = origin.address.to_string();
    let mut expected = BTreeMap::new();
    let mut expect =
        |key: String, count: u32| *expected.entry(key).or_insert(0.0) += f64::from(count);
    for (status, class) in [(200, "2xx"), (302, "3xx"), (404, "4xx"), (503, "5xx")] {
        let path = format!("/?status={status}");
        for _ in 0..2 {
            let old = say(
                proxy.public,
                &format!("GET {path} HTTP/1.0\r\nHost: a\r\n\r\n"),
            );
            assert!(old.starts_with(&format!("HTTP/1.0 {status}")), "{old}");
            assert_eq!(Client::connect(proxy.public).get(&path, "").status, status);
            assert_eq!(by_http2(proxy.public, &path, "a"), status);
            for protocol in ["HTTP/1.0", "HTTP/1.1", "HTTP/2"] {
                let how = (protocol, class, "upstream");
                expect(series_of("current", &endpoint, how), 1);
            }
        }
    }
    // Responses of watershed: no upstream, no forwarding, an unreadable request.
    let mut client = Client::connect(proxy.public);
    client
        .say("GET / HTTP/1.1\r\nHost: gone.test\r\n\r\n")
        .unwrap();
    assert_eq!(client.answer(true).unwrap().status, 502);
    expect(series_of("gone", "", ("HTTP/1.1", "5xx", "watershed")), 1);
    assert_eq!(by_http2(proxy.public, "/", "gone.test"), 502);
    expect(series_of("gone", "", ("HTTP/2", "5xx", "watershed")), 1);
    let options = "OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\nConnection: close\r\n\r\n";
    assert!(say(proxy.public, options).starts_with("HTTP/1.1 200"));
    expect(series_of("", "", ("HTTP/1.1", "2xx", "watershed")), 1);
    for unreadable in [
        "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
    ] {
        assert!(say(proxy.public, unreadable).starts_with("HTTP/1.1 400"));
        expect(series_of("", "", ("HTTP/1.1", "4xx", "watershed")), 1);
    }
    let series = settled(&proxy);
    let counted = requests(&series);
    let expected: BTreeMap<&str, f64> = expected
        .iter()
        .map(|(key, count)| (&**key, *count))
        .collect();
    assert_eq!(counted, expected);
    // Other counters agree with them.
    let all: f64 = counted.values().sum();
    assert_eq!(value(&series, "requests_total{}"), all);
    for (upstream, count, heads) in [
        ("current", 24.0, Some(24.0)),
        ("gone", 2.0, Some(0.0)),
        ("", 3.0, None),
    ] {
        let of = |name: &str| format!("{name}{{upstream=\"{upstream}\"}}");
        let duration = "http_request_duration_seconds";
        assert_eq!(
            value(&series, &of(&format!("{duration}_count"))),
            count,
            "{upstream}"
        );
        let last = format!("{duration}_bucket{{le=\"+Inf\",upstream=\"{upstream}\"}}");
        assert_eq!(value(&series, &last), count, "{upstream}");
        let head = of("upstream_response_head_seconds_count");
        assert_eq!(
            series.get(&format!("watershed_{head}")).copied(),
            heads,
            "{upstream}"
        );
    }
    let bounds = series.keys().filter(|name| {
        name.starts_with("watershed_http_request_duration_seconds_bucket")
            && name.contains("\"gone\"")
    });
    assert_eq!(bounds.count(), 15);
    until("no open connection", || {
        let series = metrics(&proxy);
        let open = |protocol: &str| {
            let labels = format!("{{protocol=\"{protocol}\",tls=\"false\"}}");
            value(&series, &format!("client_connections_open{labels}"))
        };
        // The connection that is kept open here.
        match (
            open("HTTP/1"),
            open("HTTP/2"),
            value(&series, "connections_open{}"),
        ) {
            (1.0, 0.0, 1.0) => Ok(()),
            open => Err(open),
        }
    });
    for (protocol, count) in [("HTTP/1", 20.0), ("HTTP/2", 9.0)] {
        let name = format!("client_connections_total{{protocol=\"{protocol}\",tls=\"false\"}}");
        assert_eq!(value(&series, &name), count, "{protocol}");
    }
}

#[test]
fn requests_are_counted_by_upstream_endpoint_protocol_and_class() {
    check_counts("");
}

#[test]
fn access_log_does_not_change_request_counts() {
    check_counts(OBSERVED);
}

#[test]
fn disconnected_clients_are_counted_and_not_in_flight() {
    let (came, waiting) = mpsc::channel();
    let origin = Raw::start(move |mut peer| {
        if peer.head().is_some() {
            came.send(()).unwrap();
            peer.is_left(Duration::from_secs(20));
        }
    });
    let proxy = Proxy::start(&format!(
        "upstreams: {{ current: \"http://{}\" }}",
        origin.address
    ));
    let in_flight = |expected: f64| {
        until("so many in flight", || {
            let series = metrics(&proxy);
            let found = value(&series, "requests_in_flight{}");
            (found == expected).then_some(()).ok_or(found)
        })
    };
    let mut stream = TcpStream::connect(proxy.public).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    waiting.recv().unwrap();
    in_flight(1.0);
    reset(stream);
    in_flight(0.0);
    http2::run(async {
        let mut sender = http2::connect(proxy.public).await;
        let request = Request::get("http://a/").body(http2::whole("")).unwrap();
        let sent = tokio::spawn(sender.send_request(request));
        while waiting.try_recv().is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        sent.abort();
        assert!(sent.await.unwrap_err().is_cancelled());
    });
    let series = settled(&proxy);
    let endpoint = origin.address.to_string();
    let aborted = |protocol| series_of("current", &endpoint, (protocol, "aborted", "none"));
    let expected = [(aborted("HTTP/1.1"), 1.0), (aborted("HTTP/2"), 1.0)];
    let expected = expected.iter().map(|(key, count)| (&**key, *count));
    assert_eq!(requests(&series), expected.collect());
    assert_eq!(value(&series, "requests_total{}"), 2.0);
    let heads = "upstream_response_head_seconds_count{upstream=\"current\"}";
    assert_eq!(value(&series, heads), 0.0);
}

/// An endpoint that sends this to every request and then closes.
fn closing(address: SocketAddr, says: &'static str) -> (SocketAddr, mpsc::Sender<()>) {
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    let (alive, dead) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            if matches!(dead.try_recv(), Err(mpsc::TryRecvError::Disconnected)) {
                return;
            }
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(says.as_bytes());
        }
    });
    (address, alive)
}

#[test]
fn retries_ejections_and_returns_are_counted() {
    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
    let origin = Raw::always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    // It accepts requests and closes without a response.
    let (broken, alive) = closing(ANY, "");
    let proxy = Proxy::start(&format!(
        "workers: 1\nupstreams: {{ current: {{ endpoints: [\"http://{}\", \"http://{broken}\"], balance: round_robin }} }}",
        origin.address
    ));
    let mut client = proxy.client();
    let of_broken = |name: &str, more: &str| {
        format!("{name}{{upstream=\"current\",endpoint=\"{broken}\"{more}}}")
    };
    let ejections = of_broken("endpoint_ejections_total", ",cause=\"failures\"");
    let healthy = of_broken("endpoint_healthy", "");
    assert_eq!(value(&metrics(&proxy), &healthy), 1.0);
    let ejected = until("an ejection", || {
        assert_eq!(client.get("/", "").status, 200);
        let series = metrics(&proxy);
        (value(&series, &ejections) > 0.0)
            .then_some(series)
            .ok_or(())
    });
    // Each of its requests was retried, and counts at the endpoint that responded.
    let retries = value(&ejected, "upstream_retries_total{upstream=\"current\"}");
    let connections = of_broken("endpoint_connections_total", "");
    assert_eq!(retries, value(&ejected, &connections));
    assert!(retries >= 3.0, "{retries}");
    let series = settled(&proxy);
    let good = origin.address.to_string();
    let good = series_of("current", &good, ("HTTP/1.1", "2xx", "upstream"));
    assert_eq!(
        requests(&series).keys().copied().collect::<Vec<_>>(),
        [&good]
    );
    // The endpoint returns.
    drop(alive);
    let _ = TcpStream::connect(broken);
    let (_, _alive) = until("its address", || {
        std::panic::catch_unwind(|| {
            closing(
                broken,
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
            )
        })
        .map_err(|_| ())
    });
    let returns = of_broken("endpoint_returns_total", ",cause=\"failures\"");
    until("its return", || {
        assert_eq!(client.get("/", "").status, 200);
        let series = metrics(&proxy);
        let healthy = value(&series, &healthy);
        (value(&series, &returns) > 0.0 && healthy == 1.0)
            .then_some(())
            .ok_or(series)
    });
}

#[test]
fn counters_do_not_decrease_when_an_endpoint_is_removed_and_added() {
    let first = Raw::always("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let second = Raw::always("HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno");
    let file = |origin: &Raw| format!("upstreams: {{ current: \"http://{}\" }}", origin.address);
    let proxy = Proxy::start(&file(&first));
    let how = |origin: &Raw, class| {
        series_of(
            "current",
            &origin.address.to_string(),
            ("HTTP/1.1", class, "upstream"),
        )
    };
    let mut served = BTreeMap::new();
    for (origin, class) in [(&first, "2xx"), (&second, "4xx"), (&first, "2xx")] {
        proxy.write(&file(origin));
        let status = if class == "2xx" { 200 } else { 404 };
        until("the other endpoint", || {
            let got = Client::connect(proxy.public).get("/", "").status;
            let key = match got {
                200 => how(&first, "2xx"),
                _ => how(&second, "4xx"),
            };
            *served.entry(key).or_insert(0.0) += 1.0;
            (got == status).then_some(()).ok_or(got)
        });
        let series = settled(&proxy);
        let expected = served.iter().map(|(key, count)| (&**key, *count));
        assert_eq!(requests(&series), expected.collect());
    }
}

#[test]
fn metrics_contain_certificates_and_reloads() {
    let authority = Authority::new();
    authority.certify("site", &["a.test"]);
    let origin = Origin::start("current");
    let file = |more: &str| {
        format!(
            "upstreams: {{ current: \"http://{}\" }}\n\
             tls: {{ listen: 127.0.0.1:0, certificates: {{ cert: {}, key: {} }} }}\n{more}",
            origin.address,
            authority.file("site.pem"),
            authority.file("site.key")
        )
    };
    let proxy = Proxy::start(&file(""));
    let name = format!(
        "certificate_expiry_timestamp_seconds{{certificate=\"{}\",upstream=\"\"}}",
        authority.file("site.pem")
    );
    let expiry = || value(&metrics(&proxy), &name);
    let first = openssl_expiry(&authority.file("site.pem"));
    assert_eq!(expiry(), first);

    let reloads = |series: &Series| {
        let of = |name: &str| value(series, &format!("config_last_reload_{name}{{}}"));
        (of("successful"), of("success_timestamp_seconds"))
    };
    let (successful, began) = reloads(&metrics(&proxy));
    assert_eq!(successful, 1.0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    assert!(
        (0.0..120.0).contains(&(now.unwrap().as_secs_f64() - began)),
        "{began}"
    );
    proxy.write(&file("nonsense: 1"));
    until("a refused reload", || {
        let seen = reloads(&metrics(&proxy));
        (seen == (0.0, began)).then_some(()).ok_or(seen)
    });
    // A renewed certificate, and a valid file.
    let renewed = (2051, 2, 3);
    authority.certify_until("site", &["a.test"], renewed);
    proxy.write(&file("workers: 2"));
    until("a reload", || {
        let seen = reloads(&metrics(&proxy));
        (seen.0 == 1.0 && seen.1 > began).then_some(()).ok_or(seen)
    });
    let renewed = openssl_expiry(&authority.file("site.pem"));
    assert!(renewed > 0.0 && renewed != first);
    until("the renewed certificate", || {
        let seen = expiry();
        (seen == renewed).then_some(()).ok_or(seen)
    });
}

/// Returns the expiry of a certificate as openssl prints it.
fn openssl_expiry(file: &str) -> f64 {
    let asked = tools::command("openssl")
        .args([
            "x509", "-noout", "-enddate", "-dateopt", "iso_8601", "-in", file,
        ])
        .output()
        .unwrap();
    let said = String::from_utf8(asked.stdout).unwrap();
    let time = said
        .trim()
        .strip_prefix("notAfter=")
        .unwrap_or_else(|| panic!("{said}"));
    let time: jiff::Timestamp = time.replace(' ', "T").parse().unwrap();
    time.as_second() as f64
}

#[test]
fn process_metrics_have_the_names_of_client_libraries() {
    let origin = Origin::start("current");
    let proxy = Proxy::start(&format!(
        "upstreams: {{ current: \"http://{}\" }}",
        origin.address
    ));
    let before = metrics(&proxy);
    let of = |series: &Series, name: &str| {
        let found = series
            .iter()
            .find(|(key, _)| key.trim_end_matches("{}") == name);
        *found
            .unwrap_or_else(|| panic!("{name} is not among {series:#?}"))
            .1
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let started = now.unwrap().as_secs_f64() - of(&before, "process_start_time_seconds");
    assert!((-2.0..120.0).contains(&started), "{started}");
    assert!(of(&before, "process_resident_memory_bytes") > 1e6);
    assert!(of(&before, "process_max_fds") >= of(&before, "process_open_fds"));
    let cpu_ms = proxy.cpu_ms() as f64;
    until("CPU time", || {
        let seen = of(&metrics(&proxy), "process_cpu_seconds_total");
        (seen * 1000.0 >= cpu_ms).then_some(()).ok_or(seen)
    });
    // Open sockets count.
    let held: Vec<_> = (0..20)
        .map(|_| {
            let mut client = proxy.client();
            client.get("/", "");
            client
        })
        .collect();
    let more = of(&metrics(&proxy), "process_open_fds") - of(&before, "process_open_fds");
    assert!(more >= held.len() as f64, "{more}");
}

#[test]
fn promtool_accepts_the_metrics() {
    let origin = Origin::start("current");
    let gone = refusing_address();
    let proxy = Proxy::start(&format!(
        "upstreams: {{ current: \"http://{0}\", new: \"http://{0}\", gone: \"http://{gone}\" }}\n\
         default: current\nuser: {{ header: X-User }}\n\
         experiments: {{ site: {{ control: current, experiment: new, percent: 50 }}, lost: {{ match: {{ path: /lost }}, control: current, experiment: gone, percent: 50 }} }}\n\
         metrics: {{ buy: \"POST /buy -> 2xx\", sum: {{ event: sum, value: amount, kind: mean }} }}",
        origin.address
    ));
    let mut client = proxy.client();
    for number in 0..50 {
        let user = format!("X-User: user-{number}\r\n");
        client.get("/?event=sum;amount=2", &user);
        client.get("/lost", &user);
        client.post("/buy", &user, "");
    }
    proxy.results();
    let answer = Client::admin(proxy.admin).get("/admin/metrics", "Accept: text/plain\r\n");
    let kind = answer.header("content-type").unwrap();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    let mut linter = tools::command("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is missing: run ./scripts/test, which installs it");
    linter
        .stdin
        .take()
        .unwrap()
        .write_all(&answer.body)
        .unwrap();
    let linted = linter.wait_with_output().unwrap();
    let said = [linted.stdout, linted.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(linted.status.success() && said.is_empty(), "{said}");
    // The older format has every metric.
    let text = answer.text();
    let samples = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(samples(&text), samples(&proxy.ask("/admin/metrics").text()));
    for family in [
        "http_requests_total",
        "group_latency_seconds",
        "metric_rate",
    ] {
        let help = format!("# HELP watershed_{family} ");
        assert!(text.contains(&help), "{text}");
    }
}
