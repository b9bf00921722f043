//! The command line: what it says and how it exits.

use crate::support::proxy::BINARY;
use crate::support::refusing_address;
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
fn invalid_start_is_an_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    refuses(
        &ROUTES.replacen(":0", &format!(":{port}"), 1),
        1,
        &format!("cannot listen on 127.0.0.1:{port}: Address already in use"),
        "another program listens there",
    );
    refuses(
        &format!("{ROUTES}journal: {{ path: routes.yaml }}\n"),
        1,
        "cannot write the journal at DIR/routes.yaml",
        "there is a file instead of the folder: move it away",
    );
    refuses(
        "upstreams: { a: b }\n",
        2,
        "DIR/routes.yaml:1:17: upstreams.a: found \"b\"",
        "an address such as",
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
fn unreachable_upstreams_are_logged_and_serving_continues() {
    let routes = "upstreams: { gone: \"http://127.0.0.1:1\", misspelt: \"http://no-such-host.invalid:80\" }\n";
    let proxy = crate::support::proxy::Proxy::start(routes);
    for says in [
        "upstreams.gone: cannot connect to 127.0.0.1:1: Connection refused",
        "upstreams.misspelt: cannot connect to no-such-host.invalid:80",
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
fn check_describes_a_file_or_reports_all_errors() {
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
fn explain_follows_the_page_that_referer_names() {
    let folder = TempDir::new().unwrap();
    let routes = "upstreams: { shop: \"http://127.0.0.1:1\", next: \"http://127.0.0.1:2\" }\ndefault: shop\n\
                  user: { cookie: uid }\nroutes: [ { match: /old, redirect: /new } ]\n\
                  experiments: { pay: { match: /checkout/**, control: shop, experiment: next, percent: 100 } }\n";
    let file = file(&folder, routes);
    let explain = |target: &str, headers: &[&str]| {
        let mut arguments = vec![
            "explain",
            "-c",
            &*file,
            "--request",
            target,
            "--user",
            "ann",
        ];
        for header in headers {
            arguments.extend(["-H", header]);
        }
        let said = run(&arguments);
        assert_eq!(said.code, 0, "{}", said.err);
        said.out
    };
    let host = "Host: www.example.com";
    let of_page = "Referer: https://www.example.com/checkout/pay";
    let said = explain("GET /assets/app.js", &[host, of_page]);
    let page = "with the page that `Referer` names: pay=experiment";
    assert!(
        said.contains(page) && said.ends_with("upstream: next\n"),
        "{said}"
    );
    let other = "Referer: https://www.example.com/home";
    for headers in [&[host, other][..], &[host]] {
        let said = explain("GET /assets/app.js", headers);
        assert!(
            !said.contains("Referer") && said.ends_with("upstream: shop\n"),
            "{said}"
        );
    }
    let said = explain("GET /old", &[host, of_page]);
    assert!(
        said.contains("routes.0: /old is redirected to /new"),
        "{said}"
    );
}

#[test]
fn check_recommends_a_max_for_browser_values() {
    let folder = TempDir::new().unwrap();
    let advised = |more: &str, max: &str| {
        let metric = format!("{{ event: purchase, value: amount, kind: mean{max} }}");
        let text =
            format!("{ROUTES}{more}metrics: {{ revenue: {metric}, buys: \"/buy -> 2xx\" }}\n");
        let said = run(&["check", "-c", &file(&folder, &text)]);
        assert_eq!(said.code, 0, "{}", said.err);
        said.out.matches("advice: ").count() == 1
            && said
                .out
                .contains("metrics.revenue: any browser can report a `amount` of up to 10000000000")
    };
    assert!(advised("", ""));
    assert!(!advised("", ", max: 500"));
    assert!(!advised("events: { browser: false }\n", ""));
}

#[test]
fn demo_runs_to_its_end() {
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
fn demo_on_a_taken_port_names_its_options() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let said = run(&["demo", "--exit", "--port", &port, "--admin-port", "0"]);
    assert_eq!(said.code, 1);
    assert!(
        said.err
            .contains(&format!("cannot listen on 127.0.0.1:{port}: "))
            && said.err.contains("watershed demo --port 0 --admin-port 0"),
        "{}",
        said.err
    );
}

#[test]
fn results_without_a_server_are_an_error() {
    let free = refusing_address();
    let said = run(&["results", "--url", &format!("http://{free}")]);
    assert_eq!(said.code, 1);
    assert!(
        said.err.contains("no response from") && said.err.contains("hint: is watershed running?"),
        "{}",
        said.err
    );
}

#[test]
fn healthcheck_succeeds_only_while_the_process_serves() {
    let mut proxy =
        crate::support::proxy::Proxy::start("upstreams: { a: \"http://127.0.0.1:1\" }\n");
    let url = format!("http://{}", proxy.admin);
    let asked = run(&["healthcheck", "--url", &url]);
    assert_eq!((asked.code, &*asked.out), (0, "ready\n"), "{}", asked.err);
    // The address of the file, as this machine reaches it.
    let folder = TempDir::new().unwrap();
    let port = proxy.admin.port();
    let written = |admin: &str| {
        let upstreams = "upstreams: { a: \"http://127.0.0.1:1\" }";
        file(&folder, &format!("admin: {{ {admin} }}\n{upstreams}\n"))
    };
    let health = format!("listen: \"127.0.0.1:1\", health: \"0.0.0.0:{port}\"");
    assert_eq!(run(&["healthcheck", "-c", &written(&health)]).code, 0);
    let any = run(&["healthcheck", "-c", &written("listen: \"127.0.0.1:0\"")]);
    assert_eq!(any.code, 1);
    assert!(
        any.err.contains("hint: give the address with --url"),
        "{}",
        any.err
    );
    assert_eq!(run(&["healthcheck", "-c", &written("listen: x")]).code, 2);
    proxy.kill();
    let listen = format!("listen: \"127.0.0.1:{port}\"");
    let gone = run(&["healthcheck", "-c", &written(&listen)]);
    assert_eq!(gone.code, 1);
    assert!(gone.err.contains("no response from"), "{}", gone.err);
}

#[test]
fn override_for_an_unknown_group_is_an_error() {
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
            .contains("hint: known: e")
    );
    assert!(
        run(&["override", "e", "b", "-c", &on])
            .err
            .contains("hint: known: control, experiment")
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
fn files_of_the_image_exist() {
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

#[test]
fn plan_reports_users_who_would_move() {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, experiments: &str| {
        let text = format!(
            "upstreams: {{ a: \"http://127.0.0.1:1\", b: \"http://127.0.0.1:2\" }}\nexperiments:\n{experiments}"
        );
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let old = write(
        "old.yaml",
        "  site: { control: a, experiment: b, percent: 10 }\n  gone: { control: a, experiment: b, percent: 50 }",
    );
    let new = write(
        "new.yaml",
        "  site: { control: a, experiment: b, percent: 50 }\n  fresh: { control: a, experiment: b, percent: 50 }",
    );
    let said = run(&["plan", &old, &new, "--users", "20000"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let lines: Vec<&str> = said.out.lines().collect();
    assert!(lines[0].starts_with("site: other weights"), "{}", said.out);
    let share = |line: &str| -> f64 {
        let number = line.split('%').next().unwrap();
        number.trim().parse().unwrap()
    };
    // Widening a group moves users into it, and nobody else.
    assert!(
        lines[1].ends_with("control (a) -> experiment (b)"),
        "{}",
        said.out
    );
    assert!((share(lines[1]) - 40.0).abs() < 1.5, "{}", said.out);
    assert!(lines[2].ends_with("stay") && (share(lines[1]) + share(lines[2]) - 100.0).abs() < 0.02);
    assert!(said.out.contains("gone: removed") && said.out.contains("fresh: new"));
    // Those who are asked for, and nothing to say.
    let ids = folder.path().join("ids");
    std::fs::write(&ids, "ann\n\nbob\r\n").unwrap();
    let said = run(&["plan", &old, &old, "--ids", ids.to_str().unwrap()]);
    assert!(
        said.out
            .starts_with("site: unchanged assignment\n  100.00 %  stay\n"),
        "{}",
        said.out
    );
    let salted = write(
        "salted.yaml",
        "  site: { control: a, experiment: b, percent: 10, salt: x }",
    );
    let said = run(&["plan", &old, &salted]);
    assert!(said.out.contains("a new phase begins"), "{}", said.out);
    std::fs::write(&ids, "").unwrap();
    let said = run(&["plan", &old, &old, "--ids", ids.to_str().unwrap()]);
    assert_eq!(
        (said.code, &*said.err),
        (1, "error: there are no user IDs\n")
    );
    assert_eq!(run(&["plan", &old, "/nowhere.yaml"]).code, 2);
}

#[test]
fn completions_and_man_page_list_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let said = run(&["completions", shell]);
        assert_eq!(said.code, 0);
        for command in ["rollback", "simulate", "override"] {
            assert!(said.out.contains(command), "{shell}: {command}");
        }
    }
    // What the shell itself makes of it.
    let folder = TempDir::new().unwrap();
    let script = folder.path().join("watershed.bash");
    std::fs::write(&script, run(&["completions", "bash"]).out).unwrap();
    let ask = "source \"$0\"; COMP_WORDS=(watershed rol); COMP_CWORD=1; _watershed watershed rol watershed; echo \"${COMPREPLY[@]}\"";
    let asked = Command::new("bash")
        .args(["-c", ask])
        .arg(&script)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(asked.stdout).unwrap().trim(), "rollback");
    let page = run(&["man"]).out;
    assert!(page.contains(".TH watershed 1") && page.contains("watershed PROMOTE"));
}

/// What a command shows in a terminal (util-linux's `script` is one).
fn in_terminal(arguments: &[&str], env: &[(&str, &str)]) -> String {
    let quoted = arguments
        .iter()
        .map(|it| format!("'{it}'"))
        .collect::<Vec<_>>();
    let command = format!("{BINARY} {}", quoted.join(" "));
    let done = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .envs(env.iter().copied())
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn results_are_coloured_in_a_terminal() {
    let origin = crate::support::origin::Origin::start("site");
    let proxy = crate::support::proxy::Proxy::start(&format!(
        "upstreams: {{ a: \"http://{0}\", b: \"http://{0}\" }}\nuser: {{ header: X-User }}\n\
         experiments: {{ site: {{ control: a, experiment: b, percent: 50 }}, other: {{ control: a, experiment: b, percent: 50, match: {{ path: /o }} }} }}\n\
         metrics: {{ buy: \"POST /buy -> 2xx\" }}",
        origin.address
    ));
    let mut client = proxy.client();
    for number in 0..200 {
        let user = format!("X-User: user-{number}\r\n");
        client.get("/", &user);
        if number % 3 == 0 {
            client.post("/buy", &user, "");
        }
    }
    proxy.results();
    let url = format!("http://{}", proxy.admin);
    let coloured = in_terminal(&["results", "--url", &url], &[]);
    assert!(coloured.contains("\x1b[33mcollecting\x1b[0m"), "{coloured}");
    assert!(
        coloured.contains('●') && coloured.contains('┿'),
        "a bar: {coloured}"
    );
    for env in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let plain = in_terminal(&["results", "--url", &url], &[env]);
        assert!(
            !plain.contains('\x1b') && plain.contains('●'),
            "{env:?}: {plain}"
        );
    }
    let piped = run(&["results", "site", "--url", &url]);
    assert_eq!(piped.code, 0);
    assert!(
        !piped.out.contains('\x1b') && piped.out.contains("buy experiment"),
        "{}",
        piped.out
    );
    assert!(!piped.out.contains("other"), "{}", piped.out);
    // Tables and bars fit a terminal; sentences are wrapped by it.
    let lines = piped.out.lines().skip_while(|line| !line.is_empty());
    let drawn = lines.filter(|line| line.contains("  ") || line.contains('─'));
    let widest = drawn.map(|line| line.chars().count()).max();
    assert!((60..=80).contains(&widest.unwrap()), "{}", piped.out);
    assert!(piped.out.contains("\nWhat to do now: Keep it running"));

    // Shown again and again, and what comes in between with it.
    let mut watching = Command::new(BINARY)
        .args(["results", "site", "--watch", "--url", &url])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(watching.stdout.take().unwrap()));
    let mut heads = lines
        .map_while(Result::ok)
        .filter(|line| line.starts_with("site ("));
    assert_eq!(heads.next().as_deref(), Some("site (running)"));
    crate::support::client::Client::admin(proxy.admin).post(
        "/admin/experiments/site/pause",
        "",
        "",
    );
    assert!(heads.by_ref().take(3).any(|head| head == "site (paused)"));
    watching.kill().unwrap();
    watching.wait().unwrap();
}
