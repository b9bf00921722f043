//! Users who are forgotten are in no file of the archive.

use super::warehouse::{Engine, Warehouse};
use super::{Site, files, visits};
use crate::support::client::Client;
use crate::support::proxy::{BINARY, Proxy};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

fn forget(proxy: &Proxy, user: &str) -> Value {
    let mut client = Client::admin(proxy.admin);
    let host = proxy.admin;
    client
        .say(format!(
            "DELETE /admin/assignments?user={user} HTTP/1.1\r\nHost: {host}\r\n\r\n"
        ))
        .unwrap();
    let answer = client.answer(true).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// Rows of a user in all tables, under this ID.
fn rows(archive: &Path, user: &str) -> u64 {
    Warehouse::of(Engine::Duckdb, archive).number(&format!(
        "SELECT (SELECT COUNT(*) FROM watershed_exposures WHERE user_id = '{user}')
              + (SELECT COUNT(*) FROM watershed_events WHERE user_id = '{user}')
              + (SELECT COUNT(*) FROM watershed_identities WHERE '{user}' IN (user_id, minted_id))"
    ))
}

fn all_rows(archive: &Path) -> u64 {
    Warehouse::of(Engine::Duckdb, archive).number(
        "SELECT (SELECT COUNT(*) FROM watershed_exposures) + (SELECT COUNT(*) FROM watershed_events)",
    )
}

#[test]
fn forgotten_users_leave_archived_files_for_good() {
    let mut site = Site::start("{ to: out, every: 1s }", "", &[]);
    visits(&site.proxy, 0..60);
    // This one was minted, and then known.
    let mut client = site.proxy.client();
    let answer = client.get("/?event=buy;amount=1.5", "");
    let cookie = answer
        .header("set-cookie")
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    client.get("/", &format!("Cookie: {cookie}; uid=person\r\n"));
    site.archived();
    let minted = Warehouse::of(Engine::Duckdb, &site.out())
        .ask("SELECT minted_id FROM watershed_identities WHERE user_id = 'person'");
    let minted = minted[0]["minted_id"].as_str().unwrap().to_owned();
    let before = all_rows(&site.out());
    let theirs = format!("WHERE user_id IN ('person', 'user-3', '{minted}')");
    let theirs = Warehouse::of(Engine::Duckdb, &site.out()).number(&format!(
        "SELECT (SELECT COUNT(*) FROM watershed_exposures {theirs}) + (SELECT COUNT(*) FROM watershed_events {theirs})"
    ));
    assert!(rows(&site.out(), "user-3") > 0 && rows(&site.out(), &minted) > 0);
    let names = files(&site.out());

    let answer = forget(&site.proxy, "person");
    assert!(
        answer["archive"]["rewritten"].as_u64().unwrap() > 0,
        "{answer}"
    );
    assert_eq!(
        [rows(&site.out(), "person"), rows(&site.out(), &minted)],
        [0, 0]
    );
    // The command does the same, beside the process.
    let file = site.proxy.file();
    let words = ["forget", "--user", "user-3", "-c", file.to_str().unwrap()];
    let done = Command::new(BINARY).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(
        said.contains("archive: "),
        "{said}{}",
        String::from_utf8_lossy(&done.stderr)
    );
    assert_eq!(rows(&site.out(), "user-3"), 0);
    assert_eq!(all_rows(&site.out()), before - theirs, "other users stay");
    // Files keep their names, so nobody writes them again: also not from the journals, which still have the user.
    let kept: Vec<_> = files(&site.out())
        .into_iter()
        .filter(|it| !it.ends_with("_lock"))
        .collect();
    assert_eq!(kept, names);
    site.proxy.kill();
    std::fs::remove_dir_all(site.out().join("_batches")).unwrap();
    let routes = site.routes.clone();
    site.proxy.again(&routes);
    // A forgotten user who comes back counts as a new user.
    site.proxy.client().get("/", "Cookie: uid=user-3\r\n");
    site.end();
    assert_eq!(
        [rows(&site.out(), "person"), rows(&site.out(), &minted)],
        [0, 0]
    );
    let exposures = "SELECT COUNT(*) FROM watershed_exposures WHERE user_id = 'user-3'";
    let warehouse = Warehouse::of(Engine::Duckdb, &site.out());
    assert_eq!(warehouse.number(exposures), 1);
    let doubled = "SELECT COUNT(*) FROM (SELECT 1 FROM watershed_exposures GROUP BY journal, seq, experiment_id HAVING COUNT(*) > 1)";
    assert_eq!(
        warehouse.number(doubled),
        0,
        "positions are in the names of files, too"
    );
}

/// Records of a forgotten user that wait in the journal are not archived later.
#[test]
fn forgotten_users_do_not_come_out_of_the_journal() {
    let mut site = Site::start("{ to: out, every: 1h }", "", &[]);
    site.archived();
    visits(&site.proxy, 0..20);
    site.proxy.results();
    forget(&site.proxy, "user-3");
    site.end();
    assert_eq!(rows(&site.out(), "user-3"), 0);
    assert!(rows(&site.out(), "user-8") > 0);
}
