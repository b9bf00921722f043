//! What destinations must not get, and secrets that nothing must show.

use super::collector::{Collector, Mode};
use super::{Site, metric, until_equal, users, visits, webhook};
use crate::support::client::Client;
use crate::support::until;
use std::collections::BTreeSet;

const LABEL: &str = "destination=\"webhook\"";

fn all_users(collector: &Collector) -> BTreeSet<String> {
    let found = users(&collector.accepted());
    found.into_values().flatten().collect()
}

/// Waits until nothing waits for the destination.
#[track_caller]
fn until_sent(site: &Site) {
    site.proxy.results();
    until("a destination that has everything", || {
        let waiting = metric(&site.proxy, "records_waiting", LABEL);
        (waiting == 0)
            .then_some(())
            .ok_or_else(|| (waiting, site.log()))
    });
}

#[test]
fn hashed_ids_are_sent_as_they_are_kept() {
    let collector = Collector::start(Mode::Accept(""));
    let lines = "identity: { store: hashed, key: 0123456789abcdef0123456789abcdef }\n";
    let site = Site::start(&webhook(&collector, ""), lines, &[]);
    visits(&site.proxy, 0..20);
    until_equal(&site, || collector.accepted());
    let seen = collector.seen();
    assert!(
        seen.iter().all(|post| !post.raw.contains("user-")),
        "{seen:#?}"
    );
}

#[test]
fn nobody_without_consent_no_robot_and_no_test_is_sent() {
    let collector = Collector::start(Mode::Accept(""));
    let lines =
        "consent: { cookie: consent, value: \"yes\" }\noverrides: { secret: 0123456789abcdef }\n";
    let site = Site::start(&webhook(&collector, ""), lines, &[]);
    let file = site.proxy.file();
    let mut program = std::process::Command::new(crate::support::proxy::BINARY);
    let token = program
        .args(["override", "shop", "experiment", "-c"])
        .arg(file);
    let token = String::from_utf8(token.output().unwrap().stdout).unwrap();
    let mut client = site.proxy.client();
    for (path, headers) in [
        ("/?event=buy", "Cookie: uid=silent\r\n".to_owned()),
        (
            "/?event=buy",
            "Cookie: uid=robot; consent=yes\r\nUser-Agent: Googlebot/2.1\r\n".to_owned(),
        ),
        (
            "/?event=buy",
            format!(
                "Cookie: uid=tester; consent=yes\r\nWatershed-Override: {}\r\n",
                token.trim()
            ),
        ),
        ("/?event=buy", "Cookie: uid=ann; consent=yes\r\n".to_owned()),
    ] {
        assert_eq!(client.get(path, &headers).status, 200);
    }
    until("ann", || {
        let found = all_users(&collector);
        found.contains("ann").then_some(()).ok_or(found)
    });
    until_sent(&site);
    let accepted = collector.accepted();
    assert!(
        accepted.iter().all(|it| it["user_id"] == "ann"),
        "{accepted:#?}"
    );
    // An exposure, and two metrics of one event.
    assert_eq!(accepted.len(), 3, "{accepted:#?}");
}

/// Records of a user who is forgotten before they are sent are left out. Later ones of the same user are sent.
#[test]
fn forgotten_users_are_not_sent() {
    let collector = Collector::start(Mode::Refuse(503, ""));
    let site = Site::with_webhook(&collector, "");
    visits(&site.proxy, 0..10);
    site.until_warned("it responds 503");
    site.proxy.results();
    let mut client = Client::admin(site.proxy.admin);
    let host = site.proxy.admin;
    client
        .say(format!(
            "DELETE /admin/assignments?user=user-3 HTTP/1.1\r\nHost: {host}\r\n\r\n"
        ))
        .unwrap();
    let answer = client.answer(true).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    // The answer of `forget` names the destinations that may have the user.
    assert_eq!(
        answer.json()["forwarded_to"],
        serde_json::json!(["webhook"])
    );
    collector.set(Mode::Accept(""));
    until("the others", || {
        let found = all_users(&collector);
        (found.len() >= 9).then_some(()).ok_or(found)
    });
    until_sent(&site);
    assert!(!all_users(&collector).contains("user-3"));
    visits(&site.proxy, 3..4);
    until("the one who came back", || {
        let found = all_users(&collector);
        found.contains("user-3").then_some(()).ok_or(found)
    });
}

#[test]
fn new_ids_are_sent_unless_the_file_says_otherwise() {
    for (keys, new) in [("", 1), (", new_ids: false", 0)] {
        let collector = Collector::start(Mode::Accept(""));
        let site = Site::with_webhook(&collector, keys);
        let mut client = site.proxy.client();
        let answer = client.get("/", "");
        let cookie = answer
            .header("set-cookie")
            .unwrap()
            .split(';')
            .next()
            .unwrap()
            .to_owned();
        client.get("/", &format!("Cookie: {cookie}\r\n"));
        // Never seen again.
        client.get("/", "");
        let both = format!("Cookie: {cookie}; uid=known\r\n");
        client.get("/", &both);
        until("the known one", || {
            let found = all_users(&collector);
            found.contains("known").then_some(()).ok_or(found)
        });
        until_sent(&site);
        let accepted = collector.accepted();
        let is_new = accepted.iter().filter(|it| it["is_new"] == true);
        assert_eq!(is_new.count(), 2 * new, "{accepted:#?}");
        assert_eq!(all_users(&collector).len(), 2 + new);
        let known = accepted.iter().find(|it| it["user_id"] == "known").unwrap();
        let minted = known["minted_id"].as_str().unwrap();
        assert!(all_users(&collector).contains(minted), "{accepted:#?}");
    }
}

#[test]
fn no_secret_is_in_logs_results_history_and_metrics() {
    let collector = Collector::start(Mode::Refuse(401, ""));
    let address = collector.address;
    let forward = format!(
        "[ {{ to: segment, address: \"http://{address}\", write_key: \"${{KEY}}\", every: 1s }}, \
           {{ to: ga4, address: \"http://{address}\", measurement_id: G-1, api_secret: hidden-in-file, every: 1s }}, \
           {{ to: webhook, address: \"http://u:hidden-password@{address}/hidden-path\", secret: whsec_aGlkZGVuLWtleS1vZi13ZWJob29r, every: 1s }}, \
           {{ to: otlp, address: \"http://{address}\", headers: {{ x-key: hidden-header }}, every: 1s }} ]"
    );
    let site = Site::start(&forward, "", &[("KEY", "hidden-of-environment")]);
    visits(&site.proxy, 0..5);
    for name in ["segment", "ga4", "webhook", "otlp"] {
        site.until_warned(&format!(
            "the destination {name} of `forward` gets nothing from http://{address}"
        ));
    }
    // They are sent, of course.
    let seen = collector.seen();
    let sent = |text: &str| {
        seen.iter().any(|post| {
            post.path.contains(text) || post.headers.iter().any(|it| it.1.contains(text))
        })
    };
    // `hidden-of-environment:` and `u:hidden-password` in base64.
    for text in [
        "aGlkZGVuLW9mLWVudmlyb25tZW50Og==",
        "hidden-in-file",
        "dTpoaWRkZW4tcGFzc3dvcmQ=",
        "/hidden-path",
        "hidden-header",
    ] {
        assert!(sent(text), "{text}");
    }
    let mut shown = site.log();
    for path in [
        "/admin/results",
        "/admin/metrics",
        "/admin/history",
        "/admin/readyz",
        "/admin/plan",
    ] {
        shown.push_str(&site.proxy.ask(path).text());
    }
    let history = site.proxy.ask("/admin/history").text();
    assert!(history.contains("start"), "{history}");
    for secret in ["hidden", "aGlkZGVu", "dTpoaWRk"] {
        let place = shown
            .find(secret)
            .map(|at| &shown[at.saturating_sub(200)..at + 40]);
        assert_eq!(place, None, "{secret}");
    }
    let mut check = std::process::Command::new(crate::support::proxy::BINARY);
    let check = check.args(["check", "-c"]).arg(site.proxy.file());
    let check = check.env("KEY", "hidden-of-environment").output().unwrap();
    let shown = String::from_utf8([check.stdout, check.stderr].concat()).unwrap();
    assert!(
        check.status.success() && !shown.contains("hidden"),
        "{shown}"
    );
}
