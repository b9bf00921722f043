//! What happens when a part of the process panics or ends. Debug builds panic on request: when the
//! folder that `WATERSHED_PANIC` names has a file with the task's name.

use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::proxy::{BINARY, How, Proxy};
use crate::support::until;
use command_fds::{CommandFdExt, FdMapping};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Makes tasks of one process panic.
struct Saboteur(TempDir);

impl Saboteur {
    fn new() -> Saboteur {
        Saboteur(TempDir::new().unwrap())
    }

    fn start(&self, routes: &str) -> Proxy {
        let folder = self.0.path().to_str().unwrap().to_owned();
        let how = How {
            env: vec![("WATERSHED_PANIC".to_owned(), folder)],
            ..How::default()
        };
        Proxy::start_how(routes, how)
    }

    fn file(&self, task: &str) -> PathBuf {
        self.0.path().join(task)
    }

    fn ask(&self, task: &str) {
        std::fs::write(self.file(task), "").unwrap();
    }

    /// Makes a task panic, and waits until the log reports it.
    #[track_caller]
    fn panic(&self, proxy: &Proxy, task: &str) {
        let line = format!("panic in {task}: a test asked for it, at src/");
        let before = count(proxy, &line);
        self.ask(task);
        until(&line, || {
            let log = proxy.log.lock().unwrap().clone();
            (count(proxy, &line) > before).then_some(()).ok_or(log)
        });
    }
}

fn count(proxy: &Proxy, text: &str) -> usize {
    proxy.log.lock().unwrap().matches(text).count()
}

fn routes(origin: &Origin, more: &str) -> String {
    format!(
        "upstreams: {{ current: \"http://{0}\", next: \"http://{0}\" }}\nuser: {{ header: X-User }}\n\
         experiments: {{ site: {{ control: current, experiment: next, percent: 50 }} }}\n\
         metrics: {{ sale: {{ event: sale }} }}\n{more}",
        origin.address
    )
}

fn requests(results: &serde_json::Value) -> u64 {
    let groups = results["experiments"][0]["groups"].as_array().unwrap();
    groups
        .iter()
        .map(|it| it["requests"].as_u64().unwrap())
        .sum()
}

/// What the admin API answers, also while it is restarted.
fn admin(proxy: &Proxy, path: &str) -> String {
    until("the admin API", || {
        let asked = Client::try_connect(proxy.admin);
        let answer = asked.and_then(|mut client| {
            client.say(format!(
                "GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n",
                proxy.admin
            ))?;
            client.answer(true)
        });
        answer.map(|answer| answer.text())
    })
}

#[test]
fn task_that_panics_is_logged_and_restarted_and_nothing_is_lost() {
    let origin = Origin::start("a");
    let saboteur = Saboteur::new();
    let more = format!(
        "workers: 2\ntrace: {{ sample: 100%, otlp: \"http://{}\" }}\naccess_log: access.log\n",
        origin.address
    );
    let proxy = saboteur.start(&routes(&origin, &more));
    let mut kept = proxy.client();
    // By the task, what the log says of its restart.
    let tasks = [
        ("decisions", "decisions panicked"),
        ("spans", "spans panicked"),
        ("spans-thread", "spans failed: its thread panicked"),
        ("health-checks", "health-checks panicked"),
        ("ingestion", "ingestion panicked"),
        ("ingestion-thread", "ingestion panicked"),
        ("announcement", "announcement panicked"),
        ("server-events", "server-events panicked"),
        ("retention", "retention panicked"),
        ("reload", "reload panicked"),
        ("results", "results panicked"),
        ("admin", "admin panicked"),
        ("journal", "journal panicked"),
        ("worker", "worker panicked"),
    ];
    let mut answered = 0;
    let mut ask = |client: &mut Client| {
        answered += 1;
        let user = format!("X-User: user-{}\r\n", answered % 7);
        assert_eq!(client.get("/", &user).status, 200);
    };
    for (task, line) in tasks {
        ask(&mut kept);
        let restarted = format!("{line}: a test asked for it; restarting it in 100ms");
        let restarted = match task {
            "spans-thread" => "spans failed: its thread panicked; restarting it in".to_owned(),
            "ingestion-thread" => {
                "ingestion panicked: a test asked for it; restarting it in 200ms".to_owned()
            }
            _ => restarted,
        };
        let before = count(&proxy, &restarted);
        saboteur.panic(&proxy, task);
        until(&restarted, || {
            let log = proxy.log.lock().unwrap().clone();
            (count(&proxy, &restarted) > before)
                .then_some(())
                .ok_or(log)
        });
        // The connection that was open is served on; new ones are accepted by either worker.
        ask(&mut kept);
        for _ in 0..4 {
            ask(&mut proxy.client());
        }
    }
    // All of them work again.
    let reloaded = Client::admin(proxy.admin).post("/admin/reload", "", "");
    assert_eq!(reloaded.status, 200, "{}", reloaded.text());
    let event = r#"[{"event":"sale","user":"user-1"}]"#;
    let mut client = Client::admin(proxy.admin);
    let taken = client.post("/admin/events", "Content-Type: application/json\r\n", event);
    assert_eq!(taken.json()["accepted"], 1, "{}", taken.text());
    let results = proxy.results();
    assert_eq!(requests(&results), answered);
    assert_eq!(results["store"]["dropped_events"], 0);
    let metric = &results["experiments"][0]["metrics"][0]["groups"];
    let sales = metric.as_array().unwrap().iter();
    let sales = sales.map(|it| it["count"].as_u64().unwrap());
    assert_eq!(sales.sum::<u64>(), 1);
    let numbers = admin(&proxy, "/admin/metrics");
    for (task, _) in tasks {
        let line = format!("watershed_panics_total{{task=\"{task}\"}} 1\n");
        assert!(numbers.contains(&line), "{line} is not in {numbers}");
    }
}

#[test]
fn process_stops_cleanly_after_tasks_were_restarted() {
    let origin = Origin::start("a");
    let saboteur = Saboteur::new();
    let mut proxy = saboteur.start(&routes(&origin, "workers: 1\n"));
    for task in ["ingestion-thread", "results", "admin", "worker", "journal"] {
        saboteur.panic(&proxy, task);
    }
    assert_eq!(proxy.client().get("/", "X-User: a\r\n").status, 200);
    proxy.signal("TERM");
    assert!(proxy.wait().success(), "{}", proxy.log.lock().unwrap());
}

#[test]
fn worker_that_panics_again_and_again_stops_the_process_with_an_error() {
    let origin = Origin::start("a");
    let saboteur = Saboteur::new();
    let mut proxy = saboteur.start(&routes(&origin, "workers: 1\n"));
    let mut slow = proxy.client();
    slow.say("GET /?sleep_ms=5000 HTTP/1.1\r\nHost: site.test\r\nX-User: slow\r\n\r\n")
        .unwrap();
    let line = "worker panicked: a test asked for it, 6 times in a row; the process stops";
    until(line, || {
        saboteur.ask("worker");
        let log = proxy.log.lock().unwrap().clone();
        log.contains(line).then_some(()).ok_or(log)
    });
    // What runs is finished first.
    assert_eq!(slow.answer(true).unwrap().status, 200);
    assert_eq!(proxy.wait().code(), Some(1));
    until("the error", || {
        let log = proxy.log.lock().unwrap().clone();
        let said = log.contains("error: worker panicked: a test asked for it");
        said.then_some(()).ok_or(log)
    });
}

#[test]
fn request_that_panics_ends_its_connection_and_leaks_nothing() {
    let origin = Origin::start("a");
    // Both ways that requests of HTTP/1 go.
    for more in ["", "access_log: access.log\n", "timeouts: { total: 30s }\n"] {
        let saboteur = Saboteur::new();
        let file = format!(
            "workers: 1\nlimits: {{ connections: 8 }}\n\
             upstreams: {{ current: {{ endpoints: \"http://{0}\", limits: {{ connections: 2 }} }} }}\n\
             user: {{ header: X-User }}\n\
             experiments: {{ site: {{ groups: {{ control: {{ weight: 1, upstream: current }}, \
             same: {{ weight: 1, upstream: current }} }} }} }}\n{more}",
            origin.address
        );
        let proxy = saboteur.start(&file);
        let mut bystander = proxy.client();
        assert_eq!(bystander.get("/", "X-User: a\r\n").status, 200);
        // More than there is room for, of connections and of connections to the upstream.
        for _ in 0..20 {
            saboteur.ask("request");
            let mut client = proxy.client();
            let answer = client.try_get("/", "X-User: a\r\n");
            assert!(answer.is_err(), "{answer:?}");
        }
        for _ in 0..20 {
            assert_eq!(proxy.client().get("/", "X-User: a\r\n").status, 200);
        }
        assert_eq!(bystander.get("/", "X-User: a\r\n").status, 200);
        until("every panic in the log", || {
            let panics = count(&proxy, "panic in request: ");
            (panics == 20).then_some(()).ok_or(panics)
        });
        let numbers = proxy.ask("/admin/metrics").text();
        assert!(numbers.contains("watershed_panics_total{task=\"request\"} 20\n"));
        assert_eq!(requests(&proxy.results()), 22);
    }
}

#[test]
fn line_of_the_access_log_that_panics_is_the_only_one_lost() {
    let origin = Origin::start("a");
    let saboteur = Saboteur::new();
    let proxy = saboteur.start(&routes(&origin, "access_log: access.log\n"));
    saboteur.ask("access-log");
    let mut client = proxy.client();
    assert_eq!(client.get("/", "X-User: a\r\n").status, 200);
    // Lines that wait together are lost together.
    until("the panic in the log", || {
        let panics = count(&proxy, "panic in access-log: ");
        (panics == 1).then_some(()).ok_or(panics)
    });
    for _ in 0..2 {
        assert_eq!(client.get("/", "X-User: a\r\n").status, 200);
    }
    until("two lines", || {
        let text = std::fs::read_to_string(proxy.folder.path().join("access.log"));
        let lines = text.unwrap_or_default().lines().count();
        (lines == 2).then_some(()).ok_or(lines)
    });
}

#[test]
fn export_that_panics_breaks_off_instead_of_ending_early() {
    let origin = Origin::start("a");
    let saboteur = Saboteur::new();
    let proxy = saboteur.start(&routes(&origin, ""));
    for number in 0..20 {
        let user = format!("X-User: user-{number}\r\n");
        assert_eq!(proxy.client().get("/", &user).status, 200);
    }
    proxy.results();
    for format in ["csv", "jsonl", "parquet"] {
        let path = format!("/admin/export/site?format={format}");
        assert_eq!(proxy.ask(&path).status, 200);
        saboteur.ask("export-page");
        let answer = Client::admin(proxy.admin).try_get(&path, "");
        assert!(answer.is_err(), "{format}: {answer:?}");
    }
}

/// Sockets of a service manager are shared: it can shut one down.
#[test]
fn listener_that_is_lost_stops_the_process_with_an_error() {
    let origin = Origin::start("a");
    let folder = TempDir::new().unwrap();
    let public = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = public.local_addr().unwrap();
    let file = format!(
        "listen: {at}\nadmin: {{ listen: 127.0.0.1:0 }}\n{}",
        routes(&origin, "workers: 1\n")
    );
    let place = folder.path().join("routes.yaml");
    std::fs::write(&place, file).unwrap();
    let mapping = FdMapping {
        parent_fd: public.try_clone().unwrap().into(),
        child_fd: 3,
    };
    let child = Command::new(BINARY)
        .args(["run", "-c"])
        .arg(&place)
        .env("LISTEN_FDS", "1")
        .stderr(Stdio::piped())
        .fd_mappings(vec![mapping])
        .unwrap()
        .spawn()
        .unwrap();
    assert_eq!(Client::connect(at).get("/", "X-User: a\r\n").status, 200);
    let socket = socket2::SockRef::from(&public);
    socket.shutdown(std::net::Shutdown::Both).unwrap();
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(
        said.contains("error: worker failed: Invalid argument"),
        "{said}"
    );
}
