//! `--json`: every command prints one JSON document on standard output, also for errors, with the same exit
//! code.

use crate::support::origin::Origin;
use crate::support::proxy::{BINARY, Proxy};
use crate::support::until;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

struct Site {
    proxy: Proxy,
    _origins: [Origin; 2],
    /// The commands that were run.
    run: BTreeSet<String>,
}

impl Site {
    fn start() -> Site {
        let origins = [Origin::start("current"), Origin::start("next")];
        let routes = format!(
            "upstreams: {{ current: \"http://{}\", next: \"http://{}\" }}\nuser: {{ header: X-User }}\n\
             overrides: {{ secret: 0123456789abcdef }}\n\
             experiments: {{ site: {{ control: current, experiment: next, percent: 50, min_duration: 0s }} }}\n\
             metrics: {{ buy: \"POST /buy -> 2xx\" }}\n",
            origins[0].address, origins[1].address
        );
        let proxy = Proxy::start(&routes);
        let mut client = proxy.client();
        for number in 0..40 {
            client.get("/", &format!("X-User: user-{number}\r\n"));
        }
        proxy.results();
        Site {
            proxy,
            _origins: origins,
            run: BTreeSet::new(),
        }
    }

    /// Runs a command with `--json`. Words `FILE`, `URL` and `FOLDER` stand for those of the site.
    #[track_caller]
    fn json(&mut self, code: i32, words: &str, input: &str) -> Value {
        let folder = self.proxy.folder.path().display().to_string();
        let file = self.proxy.file().display().to_string();
        let url = format!("http://{}", self.proxy.admin);
        let words = words.replace("FILE", &file).replace("URL", &url);
        let words = words.replace("FOLDER", &folder);
        let words: Vec<&str> = words.split(' ').collect();
        self.run.insert(words[0].to_owned());
        let mut command = Command::new(BINARY);
        let mut child = command
            .args(&words)
            .arg("--json")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let (out, err) = (
            output.stdout,
            String::from_utf8_lossy(&output.stderr).into_owned(),
        );
        let out = String::from_utf8(out).unwrap();
        assert_eq!(output.status.code(), Some(code), "{words:?}: {out}{err}");
        // One document: a second one would be an error.
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{words:?}: {error}: {out}{err}"))
    }
}

/// The commands that the help lists.
fn commands() -> BTreeSet<String> {
    let help = Command::new(BINARY).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let (_, rest) = help.split_once("Commands:\n").unwrap();
    let lines = rest.lines().take_while(|line| !line.is_empty());
    let named = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let named = named.map(|line| line.split_whitespace().next().unwrap().to_owned());
    named.filter(|name| name != "help").collect()
}

#[test]
fn every_command_prints_one_document() {
    let mut site = Site::start();
    let check = site.json(0, "check -c FILE", "");
    assert_eq!(check["valid"], true);
    assert_eq!(check["experiments"][0]["groups"][1]["share"], 0.5);
    let results = site.json(0, "results --url URL", "");
    assert_eq!(results["experiments"][0]["name"], "site");
    let one = site.json(0, "results site --url URL --fixed", "");
    assert_eq!(one["experiments"][0]["name"], "site");
    for (action, to) in [
        ("pause", "paused"),
        ("resume", "running"),
        ("promote", "promoted control"),
        ("rollback", "rolled_back"),
    ] {
        let group = if action == "promote" { " control" } else { "" };
        let done = site.json(0, &format!("{action} site{group} --url URL"), "");
        assert_eq!((&done["to"], &done["changed"]), (&to.into(), &true.into()));
    }
    let site_url = format!("http://{}/", site.proxy.public);
    let visited = site.json(0, &format!("doctor {site_url} --url URL -c FILE"), "");
    assert_eq!(visited["problems"], serde_json::json!([]), "{visited}");
    let explained = site.json(0, "explain --user user-1 -c FILE", "");
    assert_eq!(explained["user"], "user-1");
    assert_eq!(explained["experiments"][0]["name"], "site");
    let explained = site.json(0, "explain --request /shop -H X-User:user-1 -c FILE", "");
    assert_eq!(explained["experiments"][0]["exposed"], true);
    assert!(explained["upstream"].is_string(), "{explained}");
    let rows = site.json(0, "export -c FILE", "");
    assert_eq!(rows.as_array().unwrap().len(), 40);
    assert!(rows[0]["user_id"].is_string(), "{rows}");
    let written = site.json(0, "export --format jsonl -o FOLDER/rows -c FILE", "");
    assert_eq!(written["rows"], 40);
    let plan = site.json(0, "plan FILE FILE", "");
    assert_eq!(plan["experiments"][0]["meaning"], "unchanged assignment");
    let moves = plan["experiments"][0]["known_users"]["moves"]
        .as_array()
        .unwrap();
    assert_eq!(
        moves
            .iter()
            .map(|it| it["users"].as_u64().unwrap())
            .sum::<u64>(),
        40
    );
    let token = site.json(0, "override site experiment -c FILE", "");
    assert!(
        token["header"]
            .as_str()
            .unwrap()
            .starts_with("Watershed-Override: ")
    );
    let health = site.json(0, "healthcheck --url URL", "");
    assert_eq!(health["ready"], true);
    let token = site.json(0, "token ci --role read", "");
    assert!(token["hash"].as_str().unwrap().starts_with("sha256:"));
    let forgotten = site.json(0, "forget --user user-1 -c FILE", "");
    assert_eq!(forgotten["forgotten"], serde_json::json!(["site"]));
    let simulated = site.json(0, "simulate --runs 2 --looks 2 -c FILE", "");
    assert_eq!(simulated[0]["experiment"], "site");
    let wait = site.json(0, "wait site --for end --url URL", "");
    assert_eq!(wait["state"], "passed");
    assert_eq!(site.json(0, "schema", "")["title"], "watershed routes.yaml");
    let script = site.json(0, "completions bash", "");
    assert!(script["script"].as_str().unwrap().contains("watershed"));
    assert!(
        site.json(0, "man", "")["page"]
            .as_str()
            .unwrap()
            .contains(".TH")
    );
    let question = "{\"id\": 1, \"family\": \"unknown\", \"inputs\": {}}\n";
    let answers = site.json(0, "stats", &question.repeat(2));
    assert_eq!(answers.as_array().unwrap().len(), 2);
    let demo = site.json(0, "demo --visitors 20 --exit --port 0 --admin-port 0", "");
    assert!(demo["results"]["experiments"].is_array(), "{demo}");
    let init = "init --control 127.0.0.1:1 --experiment 127.0.0.1:2 -c FOLDER/first.yaml";
    let init = site.json(0, init, "");
    let file = std::path::Path::new(init["file"].as_str().unwrap());
    assert!(file.exists(), "{init}");
    let folder = site.proxy.folder.path().to_owned();
    let totals = "group,users,metric,converted\ncontrol,50,buy,5\nexperiment,50,buy,9\n";
    std::fs::write(folder.join("totals.csv"), totals).unwrap();
    let features =
        r#"{"features": {"new": {"rules": [{"variations": [0, 1], "hashAttribute": "id"}]}}}"#;
    std::fs::write(folder.join("features.json"), features).unwrap();
    let judge = "judge FOLDER/totals.csv --since 2026-01-01T00:00:00Z -c FILE";
    assert_eq!(site.json(0, judge, "")[0]["name"], "site");
    let imported = site.json(0, "import growthbook FOLDER/features.json", "");
    assert!(
        imported["routes"]
            .as_str()
            .unwrap()
            .contains("growthbook_v1")
    );
    let sql = site.json(0, "archive sql --for duckdb --from FOLDER/out", "");
    assert!(sql["sql"].as_str().unwrap().contains("watershed_users"));
    let nowhere = "replay --metric buy --from FOLDER/nowhere -c FILE";
    let nowhere = site.json(1, nowhere, "");
    let error = nowhere["error"].as_str().unwrap();
    assert!(error.contains("there is no directory"), "{error}");
    assert!(!folder.join("nowhere").exists());
    // No assistant has begun.
    let mcp = site.json(1, "mcp -c FILE", "");
    assert!(mcp["error"].is_string(), "{mcp}");
    // There is no cluster.
    let cluster = "kubernetes --once --gateway a --base FILE --write FOLDER/cluster.yaml";
    let cluster = site.json(1, cluster, "");
    assert!(cluster["error"].is_string(), "{cluster}");
    // `run` is tested below.
    site.run.insert("run".to_owned());
    let missing: Vec<String> = commands().difference(&site.run).cloned().collect();
    assert_eq!(missing, [""; 0], "commands that this test lacks");
}

#[test]
fn run_prints_where_it_serves() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("routes.yaml");
    let routes = "listen: 127.0.0.1:0\nadmin: { listen: 127.0.0.1:0 }\nupstreams: { a: \"http://127.0.0.1:1\" }\n";
    std::fs::write(&file, routes).unwrap();
    let mut child = Command::new(BINARY)
        .args(["run", "--json", "-c", file.to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    while !text.ends_with("}\n") {
        assert!(out.read_line(&mut text).unwrap() > 0, "{text}");
    }
    let found: Value = serde_json::from_str(&text).unwrap();
    let results = found["results"].as_str().unwrap();
    let address = results
        .strip_prefix("http://")
        .unwrap()
        .split('/')
        .next()
        .unwrap();
    let address: std::net::SocketAddr = address.parse().unwrap();
    until("the admin API", || {
        std::net::TcpStream::connect(address).map(drop)
    });
    Command::new("kill")
        .arg(child.id().to_string())
        .status()
        .unwrap();
    assert!(child.wait().unwrap().success());
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut out, &mut rest).unwrap();
    assert_eq!(rest, "");
}

#[test]
fn errors_are_documents_with_the_same_exit_codes() {
    let mut site = Site::start();
    let bad = site.proxy.folder.path().join("bad.yaml");
    std::fs::write(
        &bad,
        "upstreams: { a: \"http://127.0.0.1:1\" }\nlisen: 1\nworkers: x\n",
    )
    .unwrap();
    for command in [
        "check -c",
        "run -c",
        "explain --user a -c",
        "plan FILE",
        "simulate -c",
    ] {
        let found = site.json(2, &format!("{command} FOLDER/bad.yaml"), "");
        let problems = found["problems"].as_array().unwrap();
        let shown: Vec<_> = problems
            .iter()
            .map(|it| (&it["line"], &it["key"]))
            .collect();
        let expected = [(&2.into(), &"lisen".into()), (&3.into(), &"workers".into())];
        assert_eq!(shown, expected, "{command}");
        assert_eq!(problems[0]["meant"], "listen");
    }
    let away = "http://127.0.0.1:1";
    for (code, words, says) in [
        (
            1,
            "pause other --url URL",
            "there is no experiment \"other\"",
        ),
        (1, &format!("results --url {away}"), "no response from"),
        (1, &format!("healthcheck --url {away}"), "no response from"),
        (1, &format!("wait site --url {away}"), "no response from"),
        (1, "results --watch --url URL", "leave it out with --json"),
        (1, "override site nobody -c FILE", "has no group"),
        (1, "export other -c FILE", "the store has no experiment"),
        (2, "wait other --url URL", "there is no experiment"),
        (2, "wait site --for luck", "invalid value 'luck'"),
        (2, "explode", "unrecognized subcommand"),
        (2, "completions csh", "invalid value"),
    ] {
        let found = site.json(code, words, "");
        let error = found["error"].as_str().unwrap();
        assert!(error.contains(says), "{words}: {error}");
    }
    let found = site.json(3, "wait site --timeout 1ms --url URL", "");
    assert_eq!(found["state"], "timed_out");
    assert!(site.json(1, &format!("results --url {away}"), "")["hint"].is_string());
}
