//! Files of earlier versions (tests/fixtures): routes files stay valid, and stores and journals are read,
//! counted once, and written on.

use crate::support::origin::Origin;
use crate::support::proxy::{BINARY, Proxy};
use crate::support::until;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The versions whose store and journal `tests/fixtures/make` made: 40 users, 10 of whom bought.
const VERSIONS: [&str; 1] = ["2026-11-29"];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

#[test]
fn routes_files_of_release_0_1_0_are_valid() {
    let folder = fixtures().join("0.1.0/routes");
    let mut seen = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let checked = Command::new(BINARY)
            .args(["check", "-c"])
            .arg(&path)
            .output()
            .unwrap();
        assert!(checked.status.success(), "{}: {checked:?}", path.display());
        let said = String::from_utf8(checked.stdout).unwrap();
        // Each has an experiment with a split.
        assert!(said.contains("0000 % to "), "{said}");
        seen += 1;
    }
    assert_eq!(seen, 4);
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        fs::copy(from, to).unwrap();
    }
}

/// Returns users, and users who bought.
fn counts(proxy: &Proxy) -> (u64, u64) {
    let results = proxy.results();
    let sum = |groups: &serde_json::Value, field: &str| {
        let groups = groups.as_array().into_iter().flatten();
        groups.map(|it| it[field].as_u64().unwrap()).sum()
    };
    let shop = &results["experiments"][0];
    let buy = &shop["metrics"][0]["groups"];
    (sum(&shop["groups"], "users"), sum(buy, "converted"))
}

#[test]
fn stores_and_journals_of_earlier_versions_are_read_once() {
    let origins = [Origin::start("a"), Origin::start("b")];
    let routes = format!(
        "workers: 1\nuser: {{ cookie: uid }}\nupstreams: {{ a: \"http://{}\", b: \"http://{}\" }}\n\
         experiments: {{ shop: {{ control: a, experiment: b, percent: 50 }} }}\nmetrics: {{ buy: GET /buy.html -> 2xx }}\n",
        origins[0].address, origins[1].address
    );
    for version in VERSIONS {
        let made = fixtures().join(version);
        for parts in [
            &["watershed.db"][..],
            &["journal"],
            &["watershed.db", "journal"],
        ] {
            let mut proxy = Proxy::start(&routes);
            proxy.signal("TERM");
            proxy.wait();
            for file in fs::read_dir(proxy.folder.path()).unwrap() {
                let path = file.unwrap().path();
                if path.to_str().unwrap().contains("watershed.db") {
                    fs::remove_file(path).unwrap();
                }
            }
            for part in parts {
                let name = part.replace("journal", "watershed-journal");
                copy(&made.join(part), &proxy.folder.path().join(name));
            }
            proxy.again(&routes);
            until(&format!("{version}: {parts:?}"), || match counts(&proxy) {
                (40, 10) => Ok(()),
                other => Err(other),
            });
            let mut client = proxy.client();
            client.get("/", "Cookie: uid=user-41\r\n");
            client.get("/buy.html", "Cookie: uid=user-2\r\n");
            assert_eq!(counts(&proxy), (41, 11), "{version}: {parts:?}");
        }
    }
}
