//! The first minutes: no file, a first file, several files, and files with mistakes.

use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::proxy::{BINARY, Proxy};
use crate::support::until;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Runs the program in a folder, without a terminal.
fn run_with(folder: &Path, environment: &[(&str, &str)], arguments: &[&str]) -> Output {
    Command::new(BINARY)
        .args(arguments)
        .current_dir(folder)
        .env_remove("RUST_LOG")
        .env_remove("WATERSHED_CONFIG")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn run(folder: &TempDir, arguments: &[&str]) -> (i32, String) {
    let output = run_with(folder.path(), &[], arguments);
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    (output.status.code().unwrap(), text)
}

#[test]
fn init_writes_a_file_that_is_served_and_never_overwrites_one() {
    let (current, redesign) = (Origin::start("current"), Origin::start("redesign"));
    let folder = TempDir::new().unwrap();
    let of = |origin: &Origin| format!("http://{}", origin.address);
    let init = [
        "init",
        "--control",
        &of(&current),
        "--experiment",
        &of(&redesign),
    ];
    let (code, said) = run(&folder, &init);
    assert_eq!(code, 0, "{said}");
    assert_eq!(said.matches("answers (200").count(), 2, "{said}");
    assert!(said.contains("wrote config/routes.yaml"), "{said}");
    let days = |before: &str| -> f64 {
        let text = said.split(before).next().unwrap();
        let text = text.trim_end().strip_suffix("days").unwrap().trim_end();
        text.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(days("at 10 %") > 2.0 * days("at 50 %"), "{said}");

    let file = folder.path().join("config/routes.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.lines().filter(|line| line.starts_with("# ")).count() > 5);
    let (code, said) = run(&folder, &["check"]);
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("new-site: control 90.0000 % to current"),
        "{said}"
    );

    std::fs::write(&file, "mine").unwrap();
    let (code, said) = run(&folder, &init);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("exists already") && said.contains("--force"),
        "{said}"
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    let (code, said) = run(
        &folder,
        &[&init[..], &["--force", "--percent", "50"]].concat(),
    );
    assert_eq!(code, 0, "{said}");
    assert!(
        std::fs::read_to_string(&file)
            .unwrap()
            .contains("percent: 50")
    );
}

#[test]
fn init_reports_what_is_wrong_before_it_writes() {
    let folder = TempDir::new().unwrap();
    let (code, said) = run(&folder, &["init"]);
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("--control is missing, and there is no terminal"),
        "{said}"
    );
    let (code, said) = run(
        &folder,
        &[
            "init",
            "--control",
            "http://127.0.0.1:99999",
            "--experiment",
            "localhost:1",
        ],
    );
    assert_eq!(code, 2, "{said}");
    // There is no file yet, so there is no line to show.
    assert!(said.contains("error: --control: found"), "{said}");
    assert!(!said.contains("routes.yaml"), "{said}");
    assert!(!folder.path().join("config").exists());
    // A version that is not started yet is no reason not to write the file.
    let (code, said) = run(
        &folder,
        &[
            "init",
            "--control",
            "127.0.0.1:1",
            "--experiment",
            "localhost:1",
            "-c",
            "a.yaml",
        ],
    );
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("warning: current: http://127.0.0.1:1 does not answer"),
        "{said}"
    );
    assert!(folder.path().join("a.yaml").exists());
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn run_serves_two_addresses_without_a_file() {
    let (current, redesign) = (Origin::start("current"), Origin::start("redesign"));
    let folder = TempDir::new().unwrap();
    let mut child = Command::new(BINARY)
        .args(["run", "--percent", "50", "--goal", "POST /buy -> 2xx"])
        .args(["--control", &format!("http://{}", current.address)])
        .args(["--experiment", &format!("http://{}", redesign.address)])
        .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .current_dir(folder.path())
        .env("RUST_LOG", "info")
        .env_remove("WATERSHED_CONFIG")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    let _running = Running(child);
    let serving = log.lines().map_while(Result::ok);
    let line = serving
        .into_iter()
        .find(|line| line.contains("serving on "))
        .unwrap();
    let address = |before: &str| -> SocketAddr {
        let rest = line.split(before).nth(1).unwrap();
        rest.split(['/', ' ']).next().unwrap().parse().unwrap()
    };
    let public = address("serving on http://");
    let mut seen: Vec<String> = (0..40)
        .map(|user| {
            Client::connect(public)
                .get("/", &format!("Cookie: uid={user}\r\n"))
                .text()
        })
        .collect();
    seen.sort();
    seen.dedup();
    assert!(seen.iter().any(|text| text.contains("current")), "{seen:?}");
    assert!(
        seen.iter().any(|text| text.contains("redesign")),
        "{seen:?}"
    );
    let results = Client::admin(address("results at http://"))
        .get("/admin/results", "")
        .json();
    assert_eq!(
        results["experiments"][0]["metrics"][0]["name"], "goal",
        "{results}"
    );
    for name in ["watershed.db", "watershed-journal"] {
        assert!(folder.path().join(name).exists(), "{name}");
    }
    let (code, said) = run(&folder, &["run", "--control", "http://127.0.0.1:1"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("--experiment"), "{said}");
}

const ROUTES: &str = "upstreams: { a: \"http://127.0.0.1:1\", b: \"http://127.0.0.1:2\" }\nexperiments: { e: { control: a, experiment: b, percent: 50 } }\n";

#[test]
fn commands_read_the_admin_address_and_token_of_the_file() {
    let token = "a-token-of-the-file-1234";
    let how = crate::support::proxy::How {
        admin_keys: format!(
            "tokens: {{ boss: {{ role: operate, token: {token} }}, ro: {{ role: read, token: other-token-of-the-file }} }}"
        ),
        ..Default::default()
    };
    let proxy = Proxy::start_how(ROUTES, how);
    let folder = TempDir::new().unwrap();
    std::fs::create_dir(folder.path().join("config")).unwrap();
    let place = folder.path().join("config/routes.yaml");
    // The address of a file with a mistake elsewhere counts, too: a roll-back must not wait.
    let text = std::fs::read_to_string(proxy.file()).unwrap();
    let listen = format!("listen: {}", proxy.admin);
    assert!(
        text.contains("listen: 127.0.0.1:0") && !text.contains(&listen),
        "{text}"
    );
    let text = text.replace(
        "admin: { listen: 127.0.0.1:0",
        &format!("admin: {{ {listen}"),
    );
    std::fs::write(&place, format!("{text}mistake: 1\n")).unwrap();
    let (code, said) = run(&folder, &["pause", "e"]);
    assert_eq!((code, &*said), (0, "e: running -> paused\n"));
    let (code, said) = run(&folder, &["results"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("e (paused)"), "{said}");

    let other = folder.path().join("other.yaml");
    std::fs::rename(&place, &other).unwrap();
    let (code, said) = run(&folder, &["resume", "e", "-c", "other.yaml"]);
    assert_eq!((code, &*said), (0, "e: paused -> running\n"));
    let environment = [("WATERSHED_CONFIG", "other.yaml")];
    let output = run_with(folder.path(), &environment, &["rollback", "e"]);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "e: running -> rolled_back\n"
    );
    // The token of a file is not sent to another address.
    let url = format!("http://{}", proxy.admin);
    std::fs::rename(&other, &place).unwrap();
    let (code, said) = run(&folder, &["results", "--url", &url]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("401"), "{said}");
}

#[test]
fn file_is_found_in_the_documented_order() {
    let folder = TempDir::new().unwrap();
    let (code, said) = run(&folder, &["check"]);
    assert_eq!(code, 2, "{said}");
    assert!(
        said.contains("config/routes.yaml: there is no such file")
            && said.contains("watershed init"),
        "{said}"
    );
    std::fs::write(folder.path().join("by-variable.yaml"), ROUTES).unwrap();
    std::fs::write(folder.path().join("by-argument.yaml"), ROUTES).unwrap();
    let environment = [("WATERSHED_CONFIG", "by-variable.yaml")];
    let said = |arguments: &[&str]| {
        let output = run_with(folder.path(), &environment, arguments);
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(said(&["check"]).starts_with("by-variable.yaml is valid"));
    assert!(said(&["check", "-c", "by-argument.yaml"]).starts_with("by-argument.yaml is valid"));
    std::fs::create_dir(folder.path().join("config")).unwrap();
    std::fs::write(folder.path().join("config/routes.yaml"), ROUTES).unwrap();
    assert!(said(&["check"]).starts_with("by-variable.yaml is valid"));
    let (code, said) = run(&folder, &["check"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.starts_with("config/routes.yaml is valid"), "{said}");
}

#[test]
fn errors_show_the_line_with_a_marker_and_without_secrets() {
    let folder = TempDir::new().unwrap();
    let check = |text: &str| {
        std::fs::write(folder.path().join("r.yaml"), text).unwrap();
        let (code, said) = run(&folder, &["check", "-c", "r.yaml"]);
        assert_eq!(code, 2, "{said}");
        said
    };
    assert_eq!(
        check(&ROUTES.replace("percent: 50", "percnt: 50"))
            .lines()
            .take(6)
            .collect::<Vec<_>>(),
        [
            "error: r.yaml:2:48: experiments.e.percnt: unknown key",
            "",
            "  |",
            "2 | experiments: { e: { control: a, experiment: b, percnt: 50 } }",
            "  |                                                ^^^^^^",
            "",
        ][..]
    );
    let said = check(&format!(
        "{ROUTES}admin: {{ tokens: {{ x: {{ role: rea, token: hunter2-hunter2 }} }} }}\n"
    ));
    assert!(
        said.contains("3 | admin: { tokens: { x: { role: rea, token: (secret) } } }\n  |                               ^^^\n"),
        "{said}"
    );
    for text in [
        "overides: { secret: hunter2hunter2hunter2 }\n",
        "overrides: [ hunter2 ]\n",
        "admin: { token: hunter2: x }\n",
        "store: ftp://u:hunter2@a\n",
    ] {
        let said = check(&format!("{ROUTES}{text}"));
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn several_files_are_one_and_errors_name_the_right_one() {
    let proxy =
        Proxy::start("files: [ \"more/*.yaml\" ]\nupstreams: { a: \"http://127.0.0.1:1\" }\n");
    let more = proxy.folder.path().join("more");
    std::fs::create_dir(&more).unwrap();
    let experiments = || {
        let results = proxy.results();
        let all = results["experiments"].as_array().unwrap();
        all.iter()
            .map(|it| it["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(experiments(), [""; 0]);
    // A new file that matches the pattern is noticed.
    let one = "upstreams: { b: \"http://127.0.0.1:2\" }\nexperiments:\n  one: { control: a, experiment: b, percent: 50 }\n";
    std::fs::write(more.join("one.yaml"), one).unwrap();
    until("the new file", || match experiments() {
        names if names == ["one"] => Ok(()),
        other => Err(other),
    });
    // A mistake leaves what runs, and is found in its file.
    std::fs::write(
        more.join("two.yaml"),
        "experiments:\n  one: { control: a, experiment: b, percent: 50 }\n",
    )
    .unwrap();
    until("the error", || {
        let log = proxy.log.lock().unwrap().clone();
        let two = "more/two.yaml:2:3: experiments.one: this experiment is also defined at ";
        (log.contains(two) && log.contains("more/one.yaml:3:3"))
            .then_some(())
            .ok_or(log)
    });
    assert_eq!(experiments(), ["one"]);
    // The file that was refused is watched, too.
    std::fs::write(
        more.join("two.yaml"),
        "experiments:\n  two: { control: a, experiment: b, percent: 50 }\n",
    )
    .unwrap();
    until("the corrected file", || match experiments() {
        names if names == ["one", "two"] => Ok(()),
        other => Err(other),
    });
}

#[test]
fn file_that_is_being_written_is_loaded_when_it_rests_or_when_asked() {
    let proxy = Proxy::start(ROUTES);
    let whole = std::fs::read_to_string(proxy.file()).unwrap();
    let loads = || proxy.log.lock().unwrap().matches("reloaded ").count();
    // Every state is valid on its own, and none rests for a second.
    let begun = Instant::now();
    let mut text = whole.clone();
    while begun.elapsed() < Duration::from_secs(4) {
        text.push_str("# still being written\n");
        std::fs::write(proxy.file(), &text).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(loads(), 0, "{:?}", begun.elapsed());
    }
    until("the load of the file that rests", || match loads() {
        0 => Err(loads()),
        loads => Ok(loads),
    });
    // On request it is loaded at once.
    std::fs::write(proxy.file(), format!("{whole}show_group: true\n")).unwrap();
    let answer = Client::admin(proxy.admin).post("/admin/reload", "", "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let config = Client::admin(proxy.admin).get("/admin/config", "").text();
    assert!(config.contains("show_group"), "{config}");
}
