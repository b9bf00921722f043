//! What can be seen of single requests.

use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::proxy::{How, Proxy};
use crate::support::raw::{Raw, reset};
use crate::support::tools;
use crate::support::until;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn routes(first: &str, second: &str, more: &str) -> String {
    format!(
        "upstreams: {{ one: \"http://{first}\", two: \"http://{second}\" }}\nuser: {{ header: X-User }}\n\
         experiments: {{ site: {{ groups: {{ control: {{ weight: 1, upstream: one }}, other: {{ weight: 99999, upstream: two }} }} }} }}\n{more}"
    )
}

fn logging(origin: &Origin, log: &str) -> Proxy {
    let address = origin.address.to_string();
    Proxy::start(&routes(&address, &address, log))
}

fn read(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
    text.lines().map(line).collect()
}

/// The log, once it has so many lines.
#[track_caller]
fn lines(proxy: &Proxy, count: usize) -> Vec<Value> {
    let file = proxy.folder.path().join("access.log");
    until("the log's lines", || {
        let lines = read(&file);
        (lines.len() == count).then_some(lines.clone()).ok_or(lines)
    })
}

#[test]
fn client_behind_a_trusted_peer_is_logged() {
    let origin = Origin::start("two");
    let proxy = logging(&origin, "access_log: access.log\ntrust: 127.0.0.1");
    let mut client = proxy.client();
    for headers in [
        "",
        "X-Forwarded-For: 198.51.100.1, 203.0.113.7:4711\r\n",
        "Forwarded: for=\"[2001:db8::1]:80\"\r\n",
        "X-Forwarded-For: unknown\r\n",
    ] {
        client.get("/", headers);
    }
    let lines = lines(&proxy, 4);
    let clients: Vec<&str> = lines
        .iter()
        .map(|line| line["client"].as_str().unwrap())
        .collect();
    assert_eq!(
        clients,
        ["127.0.0.1", "203.0.113.7", "2001:db8::1", "127.0.0.1"]
    );
}

#[test]
fn request_is_logged_with_its_outcome() {
    let origin = Origin::start("two");
    let proxy = logging(&origin, "access_log: access.log");
    let mut client = proxy.client();
    let answer = client.post(
        "/buy?secret=1",
        "X-User: somebody\r\nUser-Agent: a \"quoted\\ agent\r\n",
        "hello",
    );
    let line = &lines(&proxy, 1)[0];
    let expected = [
        ("client", "127.0.0.1"),
        ("method", "POST"),
        ("host", "site.test"),
        ("path", "/buy"),
        ("protocol", "HTTP/1.1"),
        ("user_agent", "a \"quoted\\ agent"),
        ("experiments", "site=other"),
        ("assigned_by", "hash"),
        ("upstream", "two"),
        ("endpoint", &origin.address.to_string()),
        ("end", "complete"),
    ];
    for (key, value) in expected {
        assert_eq!(line[key], value, "{key} of {line}");
    }
    assert_eq!(line["status"], 200);
    assert_eq!(
        (&line["attempts"], &line["bytes_in"]),
        (&1.into(), &5.into())
    );
    assert_eq!(line["bytes_out"], answer.text().len());
    assert!(line["total_ms"].as_f64() >= line["head_ms"].as_f64());
    assert!(line["head_ms"].as_f64().unwrap() > 0.0);
    assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    let id = line["request_id"].as_str().unwrap();
    assert_eq!(answer.header("x-request-id"), Some(id));
    assert!(answer.text().contains(id), "the upstream knows it");
    for absent in ["error", "fallback", "trace_id"] {
        assert_eq!(line[absent], Value::Null);
    }
    assert!(!line.to_string().contains("somebody"), "IDs are hashed");
}

#[test]
fn logged_user_follows_the_configuration() {
    let origin = Origin::start("two");
    let users = |log: &str| {
        let proxy = logging(&origin, log);
        // One connection is one worker's, which logs in order.
        let mut client = proxy.client();
        for user in ["a", "b", "a"] {
            client.get("/x?y=1", &format!("X-User: {user}\r\n"));
        }
        let lines = lines(&proxy, 3);
        let text = |line: &Value| line["user"].as_str().map(str::to_owned);
        (lines.iter().map(text).collect::<Vec<_>>(), lines[0].clone())
    };
    let (hashed, _) = users("access_log: { to: access.log }");
    assert_eq!(hashed[0], hashed[2]);
    assert_ne!(hashed[0], hashed[1]);
    assert_eq!(hashed[0].as_ref().unwrap().len(), 32);
    assert_ne!(
        users("access_log: access.log").0[0],
        hashed[0],
        "a key of its own"
    );
    let keyed = "access_log: access.log\nidentity: { store: hashed, key: \"0123456789abcdef\" }";
    assert_eq!(users(keyed).0, users(keyed).0);
    let (raw, line) = users("access_log: { to: access.log, user: raw, query: true }");
    assert_eq!(raw[0].as_deref(), Some("a"));
    assert_eq!(line["path"], "/x?y=1");
    let (none, _) = users("access_log: { to: access.log, user: none }");
    assert_eq!(none, [None, None, None]);
}

#[test]
fn endings_are_distinguished() {
    let origin = Raw::start(|mut peer| {
        while let Some(head) = peer.request() {
            if head.starts_with("GET /break ") {
                peer.say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
                std::thread::sleep(Duration::from_millis(100));
                return;
            }
            if head.starts_with("GET /think ") || head.starts_with("GET /long ") {
                if head.starts_with("GET /long ") {
                    peer.say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
                }
                peer.is_left(Duration::from_secs(10));
                return;
            }
            peer.say("HTTP/1.1 204 No Content\r\n\r\n");
        }
    });
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = dead.local_addr().unwrap();
    drop(dead);
    let one = origin.address.to_string();
    let proxy = Proxy::start(&routes(
        &one,
        &nobody.to_string(),
        "access_log: { to: access.log, sample: 100% }",
    ));
    // Control answers for a group that is down.
    proxy.client().get("/", "X-User: a\r\n");
    let line = lines(&proxy, 1).pop().unwrap();
    assert_eq!(
        (&line["fallback"], &line["upstream"]),
        (&"site".into(), &"one".into())
    );
    assert_eq!(
        (&line["status"], &line["bytes_out"]),
        (&204.into(), &0.into())
    );
    assert!(proxy.client().try_get("/break", "").is_err());
    let line = lines(&proxy, 2).pop().unwrap();
    assert_eq!(
        (&line["end"], &line["bytes_out"]),
        (&"upstream_broke_off".into(), &4.into())
    );
    for (count, path, status) in [(3, "/long", Value::from(200)), (4, "/think", Value::Null)] {
        let mut client = proxy.client();
        let ask = format!("GET {path} HTTP/1.1\r\nHost: site.test\r\n\r\n");
        client.say(ask).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        reset(client.try_clone());
        drop(client);
        let line = lines(&proxy, count).pop().unwrap();
        assert_eq!(
            (&line["end"], &line["status"]),
            (&"client_left".into(), &status),
            "{path}"
        );
    }
    // What cannot be read is a line, too.
    proxy
        .client()
        .say("GET / HTTP/1.1\r\nBad header\r\n\r\n")
        .unwrap();
    let line = lines(&proxy, 5).pop().unwrap();
    assert_eq!(
        (&line["status"], &line["error"]),
        (&400.into(), &"malformed".into())
    );
    drop(origin);
}

#[test]
fn failures_are_always_logged() {
    let origin = Origin::start("two");
    let proxy = logging(&origin, "access_log: { to: access.log, sample: 0% }");
    let mut client = proxy.client();
    for _ in 0..50 {
        client.get("/", "");
    }
    client.get("/?status=500", "");
    client.get("/?status=404", "");
    drop(origin);
    client.get("/", "");
    let statuses: Vec<_> = lines(&proxy, 2)
        .iter()
        .map(|it| it["status"].clone())
        .collect();
    assert_eq!(statuses, [500, 502]);
}

#[test]
fn sampling_follows_the_trace() {
    let origin = Origin::start("two");
    let proxy = logging(&origin, "access_log: { to: access.log, sample: 50% }");
    let mut client = proxy.client();
    let trace = |low: &str| {
        format!(
            "traceparent: 00-{}{low}-b7ad6b7169203331-01\r\n",
            "1".repeat(24)
        )
    };
    for _ in 0..3 {
        client.get("/", &trace("7fffffff"));
        client.get("/", &trace("80000001"));
    }
    let lines = lines(&proxy, 3);
    assert!(
        lines
            .iter()
            .all(|it| it["trace_id"].as_str().unwrap().ends_with("7fffffff"))
    );
}

#[test]
fn sampling_follows_the_request_id_without_a_trace() {
    let origin = Origin::start("two");
    let both = [0, 0].map(|_| {
        let proxy = logging(
            &origin,
            "access_log: { to: access.log, sample: 50% }\ntrust: 127.0.0.1",
        );
        let mut client = proxy.client();
        for number in 0..64 {
            client.get("/", &format!("X-Request-Id: request-{number}\r\n"));
        }
        // Is logged whatever the sample, and last.
        client.get("/?status=500", "");
        let file = proxy.folder.path().join("access.log");
        let mut lines = until("the last line", || {
            let lines = read(&file);
            let done = lines.iter().any(|it| it["status"] == 500);
            done.then_some(lines.clone()).ok_or(lines)
        });
        lines.retain(|it| it["status"] == 200);
        let mut ids: Vec<_> = lines
            .iter()
            .map(|it| it["request_id"].to_string())
            .collect();
        ids.sort();
        ids
    });
    assert_eq!(both[0], both[1]);
    assert!((16..48).contains(&both[0].len()), "{}", both[0].len());
}

#[test]
fn refused_request_is_logged_with_its_id() {
    let origin = Origin::start("two");
    let proxy = logging(
        &origin,
        "access_log: { to: access.log, sample: 0% }\nlimits: { body: 3B }\nevents: { path: /seen }",
    );
    let refused = proxy.client().post("/", "", "too long");
    assert_eq!(refused.status, 413);
    let line = lines(&proxy, 1).pop().unwrap();
    assert_eq!(line["error"], "body_too_long");
    assert_eq!(
        refused.header("x-request-id"),
        line["request_id"].as_str(),
        "of a refusal"
    );
    assert!(line["request_id"].is_string());
    let report = proxy.client().get("/seen", "");
    assert_eq!(report.status, 405);
    assert!(report.header("x-request-id").is_some(), "of the beacon");
}

#[test]
fn request_id_and_trace_are_passed_on_by_default() {
    let origin = Origin::start("two");
    let brought = "X-Request-Id: mine\r\ntraceparent: junk\r\ntracestate: a=b\r\n";
    let ask = |more: &str| {
        let answer = logging(&origin, more).client().get("/", brought);
        let said = answer.json();
        let of = |name: &str| super::wire::sent(&said, name).join("|");
        let back = answer.header("x-request-id").map(str::to_owned);
        (
            of("x-request-id"),
            of("traceparent"),
            of("tracestate"),
            back,
        )
    };
    let (id, parent, state, back) = ask("");
    assert_eq!(
        (&*id, &*parent, &*state, back),
        ("mine", "junk", "a=b", None)
    );
    let (id, _, _, back) = ask("request_id: true");
    assert!(id != "mine" && back.as_deref() == Some(&*id));
    let (id, _, _, back) = ask("request_id: true\ntrust: 127.0.0.1");
    assert_eq!((&*id, back.as_deref()), ("mine", Some("mine")));
    let (_, parent, state, _) = ask("trace: true");
    assert!(
        parent.starts_with("00-") && parent.ends_with("-01"),
        "{parent}"
    );
    assert_eq!(state, "");
    let (_, parent, _, _) = ask("trace: 0%");
    assert!(parent.ends_with("-00"), "{parent}");
}

#[test]
fn moved_log_is_reopened_without_losing_a_line() {
    let origin = Origin::start("two");
    let proxy = logging(&origin, "access_log: access.log");
    let stop = Arc::new(AtomicBool::new(false));
    let client = |_| {
        let (stop, mut client) = (Arc::clone(&stop), Client::connect(proxy.public));
        std::thread::spawn(move || {
            let mut answered = 0;
            while !stop.load(Ordering::SeqCst) {
                answered += usize::from(client.get("/", "").status == 200);
            }
            answered
        })
    };
    let clients: Vec<_> = (0..4).map(client).collect();
    let place = |name: &str| proxy.folder.path().join(name);
    for number in 0..3 {
        until("lines", || {
            (!read(&place("access.log")).is_empty())
                .then_some(())
                .ok_or(())
        });
        std::fs::rename(place("access.log"), place(&format!("old.{number}"))).unwrap();
        proxy.signal("HUP");
        std::thread::sleep(Duration::from_millis(200));
    }
    stop.store(true, Ordering::SeqCst);
    let answered: usize = clients.into_iter().map(|it| it.join().unwrap()).sum();
    let all = ["old.0", "old.1", "old.2", "access.log"];
    until("all lines", || {
        let found: usize = all.iter().map(|name| read(&place(name)).len()).sum();
        (found == answered).then_some(()).ok_or((found, answered))
    });
}

#[test]
fn unwritable_log_fails_no_request() {
    let origin = Origin::start("two");
    let mut proxy = logging(&origin, "access_log: /dev/full");
    let mut client = proxy.client();
    for _ in 0..200 {
        assert_eq!(client.get("/", "").status, 200);
    }
    proxy.signal("TERM");
    assert!(proxy.wait().success());
}

#[test]
fn torn_line_does_not_damage_the_next() {
    let origin = Origin::start("two");
    let mount = "mkdir {}/small && mount -t tmpfs -o size=64k none {}/small && exec \"$@\"";
    let through = ["unshare", "-rm", "sh", "-c", mount, "sh"].map(str::to_owned);
    let how = How {
        through: through.to_vec(),
        ..How::default()
    };
    let address = origin.address.to_string();
    let routes = routes(&address, &address, "access_log: small/access.log");
    let proxy = Proxy::start_how(&routes, how);
    let small = proxy.as_it_sees("small");
    let file = small.join("access.log");
    std::fs::write(small.join("ballast"), [0; 16 << 10]).unwrap();
    let mut client = proxy.client();
    let length = || std::fs::read(&file).unwrap().len();
    until("a full disk", || {
        for _ in 0..50 {
            assert_eq!(client.get("/", "").status, 200);
        }
        let length = length();
        (length == 48 << 10).then_some(()).ok_or(length)
    });
    std::fs::remove_file(small.join("ballast")).unwrap();
    for _ in 0..10 {
        client.get("/again", "");
    }
    until("the lines after", || {
        let text = std::fs::read_to_string(&file).unwrap();
        let parsed = |line| serde_json::from_str::<Value>(line).map_err(|_| line);
        let (sound, unsound): (Vec<_>, Vec<_>) = text.lines().map(parsed).partition(Result::is_ok);
        let again = sound.iter().flatten().filter(|it| it["path"] == "/again");
        // None, where the disk was full between two lines; and never two in one.
        let mut unsound = unsound.iter().filter_map(|it| it.as_ref().err());
        let half = unsound.next();
        let alone = half.is_none_or(|half| half.matches("\"timestamp\"").count() == 1);
        let done = again.count() == 10 && alone && unsound.next().is_none();
        done.then_some(()).ok_or(text)
    });
}

#[test]
fn blocked_log_fails_no_request() {
    let origin = Origin::start("two");
    let folder = tempfile::TempDir::new().unwrap();
    let pipe = folder.path().join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    // Open, but not read: the pipe is full after 64 KiB.
    let reader = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&pipe)
        .unwrap();
    let mut proxy = logging(&origin, &format!("access_log: {}", pipe.display()));
    let mut client = proxy.client();
    for _ in 0..400 {
        assert_eq!(client.get("/", "").status, 200);
    }
    // Closed.
    drop(reader);
    for _ in 0..100 {
        assert_eq!(client.get("/", "").status, 200);
    }
    proxy.signal("TERM");
    assert!(proxy.wait().success());
}

#[test]
fn rotation_loses_and_tears_no_line() {
    use std::os::unix::fs::PermissionsExt;
    let origin = Origin::start("two");
    let proxy = logging(&origin, "workers: 2\naccess_log: access.log");
    let place = |name: &str| proxy.folder.path().join(name);
    let stop = Arc::new(AtomicBool::new(false));
    let client = |_| {
        let (stop, mut client) = (Arc::clone(&stop), proxy.client());
        std::thread::spawn(move || {
            let mut answered = 0;
            while !stop.load(Ordering::SeqCst) {
                assert_eq!(client.get("/", "X-User: a\r\n").status, 200);
                answered += 1;
            }
            answered
        })
    };
    let clients: Vec<_> = (0..3).map(client).collect();
    let mut files = vec!["access.log".to_owned()];
    for round in 0..10 {
        let moved = format!("access.log.{round}");
        std::fs::rename(place("access.log"), place(&moved)).unwrap();
        files.push(moved);
        proxy.signal(if round % 2 == 0 { "USR1" } else { "HUP" });
        until("a new file", || {
            let found = std::fs::metadata(place("access.log"));
            found.map(|found| assert_eq!(found.permissions().mode() & 0o777, 0o600))
        });
    }
    stop.store(true, Ordering::SeqCst);
    let answered: usize = clients.into_iter().map(|it| it.join().unwrap()).sum();
    until("every line, once", || {
        let count = |name: &String| read(&place(name)).len();
        let lines: usize = files.iter().map(count).sum();
        (lines == answered).then_some(()).ok_or((lines, answered))
    });
}

#[test]
fn log_file_is_reopened_without_traffic_and_sigusr1_needs_no_file() {
    let origin = Origin::start("two");
    let proxy = logging(&origin, "access_log: access.log");
    let file = proxy.folder.path().join("access.log");
    std::fs::rename(&file, file.with_extension("old")).unwrap();
    proxy.signal("USR1");
    until("a new file", || std::fs::metadata(&file));
    let proxy = logging(&origin, "");
    proxy.signal("USR1");
    until("a word about it", || {
        let log = proxy.log.lock().unwrap().clone();
        let said = log.contains("SIGUSR1: there is no log file to reopen");
        said.then_some(()).ok_or(log)
    });
    assert_eq!(proxy.client().get("/", "").status, 200);
}

/// The same answers, on the fast path, on the other one (which `TE` takes) and over HTTP/2, are
/// logged alike, and none of them counts as unfinished.
#[test]
fn chunked_response_with_trailers_is_logged_the_same_over_all_protocols() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                  3\r\nabc\r\n4\r\ndefg\r\n0\r\nX-Sum: 1\r\n\r\n";
    let origin = Raw::always(answer);
    let address = origin.address.to_string();
    let proxy = Proxy::start(&routes(&address, &address, "access_log: access.log"));
    for more in ["", "TE: trailers\r\nConnection: TE\r\n"] {
        let answer = proxy.client().get("/", &format!("X-User: a\r\n{more}"));
        assert_eq!(answer.text(), "abcdefg");
    }
    let url = format!("http://{}/", proxy.public);
    let curl = tools::command("curl")
        .args(["-s", "--http2-prior-knowledge", "-H", "X-User: a", &url])
        .output()
        .unwrap();
    assert_eq!(curl.stdout, b"abcdefg");
    for line in lines(&proxy, 3) {
        assert_eq!(
            (&line["end"], &line["bytes_out"]),
            (&"complete".into(), &7.into()),
            "{line}"
        );
    }
    // All of it is in the store.
    proxy.results();
    let store = rusqlite::Connection::open(proxy.folder.path().join("watershed.db")).unwrap();
    let sql = "SELECT count(*) FROM totals WHERE field LIKE '%unfinished' AND value != '0'";
    let unfinished: i64 = store.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(unfinished, 0);
}

#[test]
fn total_timeout_is_not_blamed_on_the_upstream() {
    let origin = Raw::start(|mut peer| {
        if peer.request().is_some() {
            peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
            // The rest never comes.
            peer.request();
        }
    });
    let address = origin.address.to_string();
    let log = "access_log: access.log\ntimeouts: { total: 300ms }";
    let proxy = Proxy::start(&routes(&address, &address, log));
    for (place, more) in ["", "TE: trailers\r\nConnection: TE\r\n"]
        .iter()
        .enumerate()
    {
        let mut client = proxy.client();
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{more}\r\n");
        client.say(&request).unwrap();
        assert!(client.answer(true).is_err(), "it is not whole");
        let line = lines(&proxy, place + 1).pop().unwrap();
        assert_eq!(
            (&line["end"], &line["bytes_out"]),
            (&"total_timeout".into(), &3.into()),
            "{line}"
        );
    }
}
