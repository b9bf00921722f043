//! Chromium, over HTTPS and HTTP/2.

use super::{Site, secure};
use crate::support::proxy::Proxy;
use crate::support::tools;
use crate::support::until;
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::{Child, Stdio};
use tempfile::TempDir;

struct Browser(Child);

impl Browser {
    fn open(url: &str, folder: &TempDir) -> Browser {
        let data = format!("--user-data-dir={}", folder.path().display());
        let browser = tools::command("chromium")
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
            ])
            .args(["--no-first-run", "--disable-background-networking"])
            .args(["--disable-component-update", "--disable-sync"])
            .args(["--disable-dev-shm-usage", "--ignore-certificate-errors"])
            .args(["--remote-debugging-port=0", &data, url])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromium is missing: run ./scripts/test, which installs it");
        Browser(browser)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn browser_keeps_its_minted_id_and_group() {
    let sites = [
        Site::start(&["site.py", "old"]),
        Site::start(&["site.py", "new"]),
    ];
    let routes = format!(
        "robots: {{ never: [ HeadlessChrome ] }}\n\
         upstreams: {{ old: \"http://{}\", new: \"http://{}\" }}\n\
         experiments: {{ look: {{ control: old, experiment: new, percent: 50 }} }}\n\
         metrics:\n  purchase: {{ event: purchase, kind: count }}\n  revenue: {{ event: purchase, value: amount, kind: mean }}\n",
        sites[0].address, sites[1].address
    );
    let (proxy, tls, _certificate) = secure(&routes);
    let folder = TempDir::new().unwrap();
    let url = format!("https://{tls}/");
    let _browser = Browser::open(&url, &folder);
    let seen = until("the page's last word", || {
        let all: Vec<Vec<String>> = sites.iter().map(Site::seen).collect();
        let told = |word: &str| all.iter().flatten().any(|line| line.contains(word));
        assert!(!told("what=failed"), "{all:#?}");
        if told("what=done") { Ok(all) } else { Err(all) }
    });
    // The same group from the first load on.
    let group = usize::from(seen[0].is_empty());
    assert!(
        seen[1 - group].is_empty(),
        "both versions were shown: {seen:#?}"
    );
    let name = ["old", "new"][group];
    let lines: Vec<Value> = seen[group]
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let said = |what: &str| -> Vec<&str> {
        let begins = format!("/said?what={what}&value=");
        let targets = lines.iter().filter_map(|line| line["target"].as_str());
        targets
            .filter_map(|target| target.strip_prefix(&begins))
            .collect()
    };
    assert_eq!(said("group"), [name; 4]);
    assert_eq!(said("protocol"), ["h2"]);
    assert_eq!(said("socket"), ["from+the+browser"]);
    assert_eq!(said("events"), ["0%3B1%3B2%3B"]);
    assert_eq!(said("beacon"), ["true"]);
    assert_eq!(said("cookies"), [""], "scripts can read the ID");
    // One ID: set with the first response, and sent with every later request.
    let http: Vec<&Value> = lines
        .iter()
        .filter(|line| line["via"].is_string())
        .collect();
    let users: BTreeSet<&str> = http
        .iter()
        .filter_map(|line| line["watershed-user"].as_str())
        .collect();
    assert_eq!(users.len(), 1, "{http:#?}");
    let cookie = format!("watershed_id={}.", users.first().unwrap());
    assert!(http[0]["cookie"].is_null(), "{:#?}", http[0]);
    for line in &http[1..] {
        // The ID is followed by its tag.
        let brought = line["cookie"].as_str().unwrap();
        assert!(brought.starts_with(&cookie), "{line:#}");
        assert_eq!(line["cookie"], http[1]["cookie"], "{line:#}");
    }
    // The results have one user and one purchase, however often it is reported.
    let results = until("the beacon", || {
        let results = proxy.results();
        let counted = &results["experiments"][0]["metrics"][0]["groups"][group]["count"];
        if *counted == 1 {
            Ok(results)
        } else {
            Err(results)
        }
    });
    let experiment = &results["experiments"][0];
    let users: Vec<&Value> = (0..2)
        .map(|group| &experiment["groups"][group]["users"])
        .collect();
    assert_eq!((users[group], users[1 - group]), (&1.into(), &0.into()));
    assert_eq!(experiment["metrics"][1]["groups"][group]["sum"], 19.9);
}

#[test]
fn browser_on_ten_pages_is_one_user() {
    let sites = [Site::start(&["pages.py"]), Site::start(&["pages.py"])];
    let routes = format!(
        "robots: {{ never: [ HeadlessChrome ] }}\n\
         upstreams: {{ old: \"http://{}\", new: \"http://{}\" }}\n\
         experiments: {{ look: {{ control: old, experiment: new, percent: 50 }} }}\n\
         metrics:\n  calls: {{ on: {{ method: GET, path: /api/**, status: 2xx }}, kind: count }}\n",
        sites[0].address, sites[1].address
    );
    let proxy = Proxy::start(&routes);
    let folder = TempDir::new().unwrap();
    let _browser = Browser::open(&format!("http://{}/page/0", proxy.public), &folder);
    let lines = until("the last page", || {
        let lines: Vec<String> = sites.iter().flat_map(Site::seen).collect();
        match lines.iter().any(|line| line.contains("\"/done\"")) {
            true => Ok(lines),
            false => Err(lines),
        }
    });
    let asked = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
    // The browser did what this test is about.
    for what in [
        "\"/app.webmanifest\"",
        "\"/worker.js\"",
        "\"/offline\"",
        "\"font\"",
        "prefetch",
    ] {
        assert!(asked(what) > 0, "{what}: {lines:#?}");
    }
    assert!(asked("\"target\": \"/api/") == 10, "{lines:#?}");
    let experiment = proxy.results()["experiments"][0].clone();
    let sum = |name: &str| -> u64 {
        let groups = experiment["groups"].as_array().unwrap();
        groups
            .iter()
            .map(|group| group[name].as_u64().unwrap())
            .sum()
    };
    assert_eq!(sum("users"), 1, "{experiment:#} {lines:#?}");
    // A service worker fetches the manifest without cookies, like a script whose first request this is:
    // that may be a visitor whose ID comes back later, and is none until then.
    let without_id = |line: &&String| line.contains("webmanifest") && line.contains("empty");
    let without_id = lines.iter().filter(without_id).count() as u64;
    assert!(sum("seen_once") <= without_id, "{experiment:#} {lines:#?}");
    let calls = experiment["metrics"][0]["groups"].as_array().unwrap();
    let calls: u64 = calls
        .iter()
        .map(|group| group["count"].as_u64().unwrap())
        .sum();
    assert_eq!(calls, 10);
    // All that came with the ID, or was a page, is of one version.
    let of_user = |line: &String| line.contains("watershed_id=") || line.contains("navigate");
    let versions = sites.iter().filter(|site| site.seen().iter().any(of_user));
    assert_eq!(versions.count(), 1, "{lines:#?}");
}
