//! Reloads of `forward`.

use super::collector::{Collector, Mode};
use super::{Site, until_equal, users, visits, webhook};
use crate::support::until;
use std::collections::BTreeSet;

/// A new key and a new address take effect while the process runs.
#[test]
fn changes_of_a_destination_take_effect_at_a_reload() {
    let first = Collector::start(Mode::Refuse(401, ""));
    let second = Collector::start(Mode::Accept(""));
    let site = Site::with_webhook(&first, ", headers: { x-key: old }");
    visits(&site.proxy, 0..10);
    site.until_warned("correct its key");
    let changed = webhook(&second, ", headers: { x-key: new }");
    let before = webhook(&first, ", headers: { x-key: old }");
    site.proxy.write(&site.routes.replace(&before, &changed));
    until_equal(&site, || second.accepted());
    assert!(
        first
            .seen()
            .iter()
            .all(|post| post.header("x-key") == "old")
    );
    assert!(
        second
            .seen()
            .iter()
            .all(|post| post.header("x-key") == "new")
    );
    assert!(!site.log().contains("forward need"), "{}", site.log());
}

#[test]
fn another_destination_and_another_backlog_need_a_restart() {
    let collector = Collector::start(Mode::Accept(""));
    let other = Collector::start(Mode::Accept(""));
    let mut site = Site::with_webhook(&collector, "");
    visits(&site.proxy, 0..10);
    until_equal(&site, || collector.accepted());
    let before = webhook(&collector, "");
    let both = format!("[ {before}, {} ]", webhook(&other, ", name: other"));
    let routes = site.routes.replace(&before, &both);
    site.proxy.write(&routes);
    until("a report", || {
        let log = site.log();
        log.contains("forward need a restart")
            .then_some(())
            .ok_or(log)
    });
    visits(&site.proxy, 10..20);
    until_equal(&site, || collector.accepted());
    assert!(other.seen().is_empty());
    site.proxy.signal("TERM");
    assert!(site.proxy.wait().success());
    site.routes = routes;
    site.again();
    // It gets what the journals still have, too.
    visits(&site.proxy, 20..30);
    until_equal(&site, || other.accepted());
    until("the rest at the first", || {
        let found: BTreeSet<_> = users(&collector.accepted())
            .into_values()
            .flatten()
            .collect();
        (found.len() == 30).then_some(()).ok_or(found)
    });
}
