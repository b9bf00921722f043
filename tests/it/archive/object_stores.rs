//! Archives in object stores: servers of S3 and Azure on this machine.

use super::{Site, assert_equal, metric, visits};
use crate::support::tools;
use crate::support::until;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

const OBJECTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/archive/objects.py");
const AZURE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A server of objects; it is killed when this is dropped.
struct ObjectServer {
    name: &'static str,
    address: String,
    child: Child,
    _folder: TempDir,
}

fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn objects(words: &[&str]) -> Command {
    let mut command = Command::new(tools::installed("archive/bin/python"));
    command.arg(OBJECTS).args(words);
    command
}

impl ObjectServer {
    /// moto, with the bucket `shop`.
    fn s3() -> ObjectServer {
        let address = free();
        let mut command = objects(&["serve", &address.port().to_string()]);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        ObjectServer {
            name: "s3",
            address: format!("http://{address}"),
            child,
            _folder: TempDir::new().unwrap(),
        }
    }

    /// Azurite, with the container `shop`.
    fn azure() -> ObjectServer {
        let address = free();
        let folder = TempDir::new().unwrap();
        let program = tools::installed("azurite/node_modules/azurite/dist/src/blob/main.js");
        let child = tools::command("node")
            .arg(program)
            .args([
                "--silent",
                "--skipApiVersionCheck",
                "--disableTelemetry",
                "--inMemoryPersistence",
            ])
            .args(["--blobPort", &address.port().to_string()])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until("Azurite", || {
            TcpStream::connect(address)
                .map(drop)
                .map_err(|it| it.to_string())
        });
        let server = ObjectServer {
            name: "azure",
            address: format!("http://{address}"),
            child,
            _folder: folder,
        };
        assert!(
            objects(&["bucket", &server.address])
                .status()
                .unwrap()
                .success()
        );
        server
    }

    /// Copies all objects to a directory.
    fn copy(&self, to: &Path) {
        let words = ["copy", self.name, &self.address, to.to_str().unwrap()];
        assert!(objects(&words).status().unwrap().success());
    }

    fn signal(&self, name: &str) {
        let words = [format!("-{name}"), self.child.id().to_string()];
        assert!(Command::new("kill").args(words).status().unwrap().success());
    }

    /// The environment of programs that use it.
    fn environment(&self) -> Vec<(&'static str, String)> {
        match self.name {
            "s3" => vec![
                ("AWS_ENDPOINT_URL", self.address.clone()),
                ("AWS_ACCESS_KEY_ID", "k".to_owned()),
                ("AWS_SECRET_ACCESS_KEY", "s".to_owned()),
                ("AWS_REGION", "us-east-1".to_owned()),
            ],
            _ => vec![
                ("AZURE_STORAGE_ACCOUNT_NAME", "devstoreaccount1".to_owned()),
                ("AZURE_STORAGE_ACCOUNT_KEY", AZURE_KEY.to_owned()),
                (
                    "AZURE_STORAGE_ENDPOINT",
                    format!("{}/devstoreaccount1", self.address),
                ),
            ],
        }
    }

    fn site(&self, bucket: &str) -> Site {
        let environment = self.environment();
        let environment: Vec<(&str, &str)> = environment
            .iter()
            .map(|(name, value)| (*name, &**value))
            .collect();
        let scheme = if self.name == "s3" { "s3" } else { "az" };
        let archive = format!("{{ to: \"{scheme}://{bucket}/some/prefix\", every: 1s }}");
        Site::start(&archive, "", &environment)
    }
}

impl Drop for ObjectServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// It is killed and started again, and forgets a user on the way.
fn check(server: &ObjectServer) {
    let mut site = server.site("shop");
    visits(&site.proxy, 0..60);
    site.archived();
    site.proxy.kill();
    let routes = site.routes.clone();
    site.proxy.again(&routes);
    visits(&site.proxy, 60..90);
    let results = site.end();
    let folder = TempDir::new().unwrap();
    server.copy(folder.path());
    assert_equal(&results, &folder.path().join("some/prefix"));

    let environment = server.environment();
    let file = site.proxy.file();
    let forgotten = Command::new(crate::support::proxy::BINARY)
        .args(["forget", "--user", "user-3", "-c", file.to_str().unwrap()])
        .envs(environment)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&forgotten.stdout).into_owned();
    let errors = String::from_utf8_lossy(&forgotten.stderr);
    assert!(
        forgotten.status.success() && said.contains("archive: "),
        "{said}{errors}"
    );
    let folder = TempDir::new().unwrap();
    server.copy(folder.path());
    let warehouse = super::Warehouse::of(super::Engine::Duckdb, &folder.path().join("some/prefix"));
    let of = |user: &str| {
        warehouse.number(&format!(
            "SELECT COUNT(*) FROM watershed_events WHERE user_id = '{user}'"
        ))
    };
    assert_eq!(of("user-3"), 0);
    assert!(of("user-8") > 0);
}

#[test]
fn archive_in_s3_has_the_numbers_of_the_results() {
    check(&ObjectServer::s3());
}

#[test]
fn archive_in_azure_has_the_numbers_of_the_results() {
    check(&ObjectServer::azure());
}

#[test]
fn object_store_that_stops_delays_only_the_archive() {
    let server = ObjectServer::s3();
    let mut site = server.site("shop");
    visits(&site.proxy, 0..30);
    site.archived();
    server.signal("STOP");
    visits(&site.proxy, 30..60);
    let results = site.proxy.results();
    let users = &results["experiments"][0]["groups"][0]["users"];
    assert!(users.as_u64().unwrap() > 0);
    let archived = metric(&site.proxy, "archive_records_total");
    assert!(archived < metric(&site.proxy, "folded_facts_total"));
    server.signal("CONT");
    site.archived();
    let results = site.end();
    let folder = TempDir::new().unwrap();
    server.copy(folder.path());
    assert_equal(&results, &folder.path().join("some/prefix"));
}

#[test]
fn unknown_bucket_and_unreachable_store_are_reported_with_the_fix() {
    let server = ObjectServer::s3();
    #[track_caller]
    fn check(site: &Site, expected: &str) {
        visits(&site.proxy, 0..3);
        until("a report", || {
            let text = site.proxy.ask("/admin/readyz").text();
            text.contains(expected).then_some(()).ok_or(text)
        });
    }
    let unknown = server.site("nowhere");
    check(
        &unknown,
        "the archive s3://nowhere/some/prefix is not written: there is no bucket or container of this name; create it, or correct `archive.to`",
    );
    drop(server);
    let gone = format!("http://{}", free());
    let environment = [
        ("AWS_ENDPOINT_URL", &*gone),
        ("AWS_ACCESS_KEY_ID", "k"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
    ];
    let site = Site::start("{ to: \"s3://shop\", every: 1s }", "", &environment);
    check(&site, "Connection refused");
    check(&site, "start it or correct `archive.to`");
}
