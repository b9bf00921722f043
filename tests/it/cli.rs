//! The command line: what it says and how it exits.

use crate::support::origin::Origin;
use crate::support::proxy::BINARY;
use crate::support::redis::Redis;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

struct Said {
    code: i32,
    out: String,
    err: String,
}

/// Runs to the end, which must come within a while.
#[track_caller]
fn run(arguments: &[&str]) -> Said {
    let mut child = Command::new(BINARY)
        .args(arguments)
        .env_remove("RUST_LOG")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("{arguments:?} does not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().unwrap();
    Said {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn file(folder: &TempDir, text: &str) -> String {
    let path = folder.path().join("routes.yaml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

const ROUTES: &str = "listen: 127.0.0.1:0\nadmin: { listen: 127.0.0.1:0 }\nupstreams: { a: \"http://127.0.0.1:1\" }\n";

/// `watershed run` with this file ends at once with this error and this hint.
#[track_caller]
fn refuses(routes: &str, code: i32, error: &str, hint: &str) {
    let folder = TempDir::new().unwrap();
    let said = run(&["run", "-c", &file(&folder, routes)]);
    let plain = said.err.replace(folder.path().to_str().unwrap(), "DIR");
    assert_eq!(said.code, code, "{plain}");
    assert!(
        plain.contains(&format!("error: {error}")) && plain.contains(&format!("hint: {hint}")),
        "{plain}"
    );
    assert!(!plain.contains("panicked"), "{plain}");
}

#[test]
fn starting_makes_no_sense() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    refuses(
        &ROUTES.replacen(":0", &format!(":{port}"), 1),
        1,
        &format!("cannot listen on 127.0.0.1:{port}: Address already in use"),
        "something else listens there",
    );
    refuses(
        &format!("{ROUTES}store: missing/folder/watershed.db\n"),
        1,
        "cannot open the embedded store DIR/missing/folder/watershed.db",
        "make the file's folder writable",
    );
    refuses(
        &format!("{ROUTES}journal: {{ path: routes.yaml }}\n"),
        1,
        "cannot write the journal at DIR/routes.yaml",
        "make the folder writable",
    );
    refuses(
        "upstreams: { a: b }\n",
        2,
        "DIR/routes.yaml:1:17: upstreams.a: found \"b\"",
        "an address such as",
    );
    let guarded = Redis::with(&["--requirepass", "sesame"]);
    let redis = format!("{ROUTES}store: {}\n", guarded.url());
    refuses(
        &redis,
        1,
        "cannot use the Redis store: it refuses the user or password",
        "correct the address at `store`",
    );
    let site = Origin::start("site");
    refuses(
        &format!("{ROUTES}store: redis://{}\n", site.address),
        1,
        "cannot use the Redis store: what listens there does not answer like Redis",
        "correct the address at `store`",
    );
    let missing = run(&["run", "-c", "no/such/file.yaml"]);
    assert_eq!(
        (missing.code, &*missing.err),
        (
            2,
            "error: no/such/file.yaml: there is no such file\n\nhint: name a routes file with -c FILE; `watershed demo` needs none\n"
        )
    );
}

#[test]
fn upstreams_that_are_not_there_are_named_and_serving_goes_on() {
    let routes = "upstreams: { gone: \"http://127.0.0.1:1\", misspelt: \"http://no-such-host.invalid:80\" }\n";
    let proxy = crate::support::proxy::Proxy::start(routes);
    for says in [
        "upstreams.gone: 127.0.0.1:1 cannot be connected to: Connection refused",
        "upstreams.misspelt: no-such-host.invalid:80 cannot be connected to",
        "start it, or correct its address",
    ] {
        crate::support::until(says, || {
            let log = proxy.log.lock().unwrap().clone();
            if log.contains(says) { Ok(()) } else { Err(log) }
        });
    }
    assert_eq!(proxy.client().get("/", "").status, 502);
}

#[test]
fn check_says_what_a_file_does_or_all_that_is_wrong() {
    let folder = TempDir::new().unwrap();
    let sound = run(&[
        "check",
        "-c",
        &file(
            &folder,
            &format!(
                "{ROUTES}experiments: {{ e: {{ control: a, experiment: a, percent: 25 }} }}\n"
            ),
        ),
    ]);
    assert_eq!(sound.code, 0, "{}", sound.err);
    assert!(
        sound
            .out
            .contains("e: control 75.0000 % to a, experiment 25.0000 % to a"),
        "{}",
        sound.out
    );
    let unsound = run(&[
        "check",
        "-c",
        &file(&folder, "upstreams: { a: b, c: d }\nlisten: x\n"),
    ]);
    assert_eq!(
        (unsound.code, unsound.err.matches("error: ").count()),
        (2, 3),
        "{}",
        unsound.err
    );
}

#[test]
fn the_demo_runs_to_its_end() {
    let said = run(&[
        "demo",
        "--visitors",
        "400",
        "--exit",
        "--port",
        "0",
        "--admin-port",
        "0",
    ]);
    assert_eq!(said.code, 0, "{}", said.err);
    for says in [
        "the site     http://127.0.0.1:",
        "new-site (running)",
        "400 users",
        "control",
        "experiment",
        "purchase",
    ] {
        assert!(said.out.contains(says), "{says:?}: {}", said.out);
    }
}

#[test]
fn results_of_nobody_are_an_error() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let said = run(&["results", "--url", &format!("http://{free}")]);
    assert_eq!(said.code, 1);
    assert!(
        said.err.contains("does not answer") && said.err.contains("hint: is watershed running?"),
        "{}",
        said.err
    );
}

#[test]
fn overrides_are_made_only_for_what_there_is() {
    let folder = TempDir::new().unwrap();
    let experiment = "experiments: { e: { control: a, experiment: a, percent: 25 } }\n";
    let off = file(&folder, &format!("{ROUTES}{experiment}"));
    assert!(
        run(&["override", "e", "control", "-c", &off])
            .err
            .contains("overrides are off")
    );
    let on = file(
        &folder,
        &format!("{ROUTES}{experiment}overrides: {{ secret: 0123456789abcdef }}\n"),
    );
    assert!(
        run(&["override", "f", "control", "-c", &on])
            .err
            .contains("hint: there are: e")
    );
    assert!(
        run(&["override", "e", "b", "-c", &on])
            .err
            .contains("hint: there are: control, experiment")
    );
    assert!(
        run(&["override", "e", "control", "-c", &on])
            .out
            .starts_with("v1.")
    );
}

#[test]
fn help_names_every_command() {
    let help = run(&["--help"]).out;
    for command in ["run", "check", "demo", "results", "explain", "override"] {
        assert!(
            help.contains(&format!("\n  {command}")),
            "{command}: {help}"
        );
    }
    assert_eq!(run(&["fly"]).code, 2);
}

#[test]
fn what_the_image_copies_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dockerfile = std::fs::read_to_string(root.join("Dockerfile")).unwrap();
    let copied = dockerfile
        .lines()
        .filter(|line| line.starts_with("COPY ") && !line.contains("--from"));
    let mut seen = 0;
    for line in copied {
        let words: Vec<&str> = line.split_whitespace().collect();
        for path in &words[1..words.len() - 1] {
            assert!(root.join(path).exists(), "{path}");
            seen += 1;
        }
    }
    assert!(seen >= 6, "{seen}");
}
