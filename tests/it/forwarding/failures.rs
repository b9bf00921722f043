//! Destinations that fail, hang, ask to wait, refuse, and come back; and processes that are killed.

use super::collector::{Collector, Mode};
use super::{Site, events, metric, until_equal, users, visits, webhook};
use crate::support::clock::Clock;
use crate::support::until;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const OK: Mode = Mode::Accept("");
const LABEL: &str = "destination=\"webhook\"";

#[test]
fn every_exposure_and_event_arrives_with_the_numbers_of_the_results() {
    let collector = Collector::start(OK);
    let site = Site::with_webhook(&collector, "");
    for part in 0..4 {
        visits(&site.proxy, 40 * part..40 * (part + 1));
        until_equal(&site, || collector.accepted());
    }
    // Nothing failed, so nothing came twice.
    let accepted = collector.accepted();
    let ids: BTreeSet<_> = accepted
        .iter()
        .map(|it| it["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), accepted.len());
    until("their count", || {
        let counted = metric(&site.proxy, "messages_total", LABEL);
        (accepted.len() as u64 == counted)
            .then_some(())
            .ok_or(counted)
    });
    assert_eq!(metric(&site.proxy, "attempts_failed_total", LABEL), 0);
    // Requests share connections.
    assert!(
        collector.connections() < collector.seen().len(),
        "{}",
        collector.connections()
    );
}

#[test]
fn destination_that_fails_now_and_then_gets_everything() {
    let collector = Collector::start(Mode::FailHalf);
    let site = Site::with_webhook(&collector, "");
    visits(&site.proxy, 0..60);
    until_equal(&site, || collector.accepted());
    assert!(metric(&site.proxy, "attempts_failed_total", LABEL) > 0);
    collector.set(OK);
    until("no problem", || {
        let warnings = site.warnings();
        (!warnings.contains("gets nothing"))
            .then_some(())
            .ok_or(warnings)
    });
    assert!(
        site.log().contains("webhook gets records again"),
        "{}",
        site.log()
    );
}

#[test]
fn destination_that_closes_or_hangs_delays_only_itself() {
    let hanging = Collector::start(Mode::Hang);
    let closing = Collector::start(Mode::Close);
    let healthy = Collector::start(OK);
    let all = [
        (&hanging, "hanging"),
        (&closing, "closing"),
        (&healthy, "healthy"),
    ];
    let all = all.map(|(it, name)| webhook(it, &format!(", name: {name}")));
    let site = Site::start(&format!("[ {} ]", all.join(", ")), "", &[]);
    visits(&site.proxy, 0..60);
    until_equal(&site, || healthy.accepted());
    let warned = site.until_warned("the destination closing of `forward` gets nothing from");
    assert!(!warned.contains("destination healthy"), "{warned}");
    site.until_warned("the destination hanging of `forward` gets nothing from");
    site.until_warned("no response within 10s");
    hanging.set(OK);
    closing.set(OK);
    until_equal(&site, || hanging.accepted());
    until_equal(&site, || closing.accepted());
}

#[test]
fn destination_that_is_away_gets_everything_when_it_is_back() {
    let collector = Collector::start(OK);
    let address = collector.address;
    let mut site = Site::with_webhook(&collector, "");
    visits(&site.proxy, 0..30);
    until_equal(&site, || collector.accepted());
    let before = collector.accepted();
    drop(collector);
    visits(&site.proxy, 30..90);
    let warned = site.until_warned("the destination webhook of `forward` gets nothing from");
    assert!(
        warned.contains("start it, or correct its `address`"),
        "{warned}"
    );
    assert!(metric(&site.proxy, "records_waiting", LABEL) > 0);
    // It is away over a restart, too.
    site.proxy.results();
    site.proxy.signal("TERM");
    assert!(site.proxy.wait().success(), "{}", site.log());
    site.again();
    visits(&site.proxy, 90..120);
    let collector = Collector::on(address, OK);
    until_equal(&site, || [before.clone(), collector.accepted()].concat());
    // What it had before is not sent again.
    let again = users(&collector.accepted());
    let again: BTreeSet<_> = again.values().flatten().collect();
    let known = users(&before);
    assert!(
        known.values().flatten().all(|user| !again.contains(user)),
        "{again:?}"
    );
    until("nothing that waits", || {
        let waiting = metric(&site.proxy, "records_waiting", LABEL);
        (waiting == 0).then_some(()).ok_or(waiting)
    });
}

#[test]
fn destination_that_asks_to_wait_is_left_alone_for_so_long() {
    let collector = Collector::start(Mode::Refuse(429, "retry-after: 4\r\n"));
    let site = Site::with_webhook(&collector, "");
    visits(&site.proxy, 0..9);
    let seen = collector.until_seen(3);
    for pair in seen.windows(2) {
        let waited = pair[1].at - pair[0].at;
        assert!(waited >= Duration::from_secs(4), "{waited:?}");
    }
    site.until_warned("it responds 429");
    collector.set(OK);
    until_equal(&site, || collector.accepted());
}

#[test]
fn event_that_is_refused_loses_only_itself() {
    let collector = Collector::start(Mode::RefuseWith("user-7\""));
    let site = Site::with_webhook(&collector, "");
    visits(&site.proxy, 0..60);
    let warned = site.until_warned("1 messages were refused");
    assert!(warned.contains("one event is invalid"), "{warned}");
    let found = until("all others", || {
        let found = users(&collector.accepted());
        let found: BTreeSet<_> = found.into_values().flatten().collect();
        (found.len() == 59).then_some(found.clone()).ok_or(found)
    });
    assert!(!found.contains("user-7"));
    let dropped = format!("{LABEL},reason=\"refused\"");
    assert_eq!(metric(&site.proxy, "messages_dropped_total", &dropped), 1);
    // Those that were accepted beside it came once.
    let accepted = collector.accepted();
    let ids: BTreeSet<_> = accepted
        .iter()
        .map(|it| it["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), accepted.len());
}

#[test]
fn requests_that_are_too_large_are_divided() {
    let collector = Collector::start(Mode::RefuseLarge(2_000));
    let site = Site::with_webhook(&collector, "");
    visits(&site.proxy, 0..60);
    until_equal(&site, || collector.accepted());
    let dropped = format!("{LABEL},reason=\"refused\"");
    assert_eq!(metric(&site.proxy, "messages_dropped_total", &dropped), 0);
    assert!(collector.seen().iter().any(|post| post.status == 413));
}

/// A wrong key or address is no reason to lose events.
#[test]
fn destination_that_refuses_everything_loses_nothing() {
    for (status, advice) in [
        (400, "correct its `address` and its key"),
        (401, "correct its key"),
        (404, "correct its `address`"),
        (302, "write the final address"),
    ] {
        let collector = Collector::start(Mode::Refuse(status, "location: /other\r\n"));
        let site = Site::with_webhook(&collector, "");
        visits(&site.proxy, 0..6);
        let warned = site.until_warned(&format!("it responds {status}"));
        assert!(warned.contains(advice), "{warned}");
        // Nobody is sent elsewhere.
        assert!(collector.seen().iter().all(|post| post.path == "/in"));
        collector.set(OK);
        until_equal(&site, || collector.accepted());
        let dropped = format!("{LABEL},reason=\"refused\"");
        assert_eq!(metric(&site.proxy, "messages_dropped_total", &dropped), 0);
    }
}

#[test]
fn killed_process_loses_nothing() {
    let collector = Collector::start(Mode::FailHalf);
    let mut site = Site::with_webhook(&collector, "");
    let next = AtomicUsize::new(0);
    for _ in 0..4 {
        let stop = AtomicBool::new(false);
        let address = site.proxy.public;
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let Ok(mut client) = crate::support::client::Client::try_connect(address)
                    else {
                        return;
                    };
                    while !stop.load(Ordering::Relaxed) {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let cookie = format!("Cookie: uid=user-{number}\r\n");
                        if client.try_get("/?event=buy;amount=0.5", &cookie).is_err() {
                            return;
                        }
                    }
                });
            }
            // In the middle of a batch, as often as not.
            let before = collector.seen().len();
            collector.until_seen(before + 3);
            site.proxy.kill();
            stop.store(true, Ordering::Relaxed);
        });
        site.again();
    }
    collector.set(OK);
    visits(&site.proxy, 1_000_000..1_000_030);
    until_equal(&site, || collector.accepted());
}

/// Beyond `backlog` the journal deletes what a destination does not have. It is counted, and the results have it.
#[test]
fn records_beyond_the_backlog_are_counted() {
    let collector = Collector::start(Mode::Refuse(503, ""));
    let keys = ", backlog: 1MiB, exposures: true";
    let journal = "journal: { quota: 32MiB }\n";
    let site = Site::start(&webhook(&collector, keys), journal, &[]);
    // A segment goes when it is ten minutes old, or when half of the quota is used.
    let dropped = || metric(&site.proxy, "records_dropped_total", LABEL);
    let padding = "x".repeat(200);
    let mut client = site.proxy.client();
    for number in 0.. {
        client.get("/", &format!("Cookie: uid={padding}-{number}\r\n"));
        if number % 1_000 == 0 && dropped() > 0 {
            break;
        }
    }
    let warned = site.until_warned("records were deleted before they were sent");
    assert!(warned.contains("`backlog`"), "{warned}");
    collector.set(OK);
    // What is dropped and what arrives is everything.
    until("the rest", || {
        let results = site.proxy.results();
        let groups = results["experiments"][0]["groups"].as_array().unwrap();
        let all = groups.iter().map(|it| it["users"].as_u64().unwrap());
        let all: u64 = all.sum();
        let found = users(&collector.accepted());
        let found: usize = found.values().map(BTreeSet::len).sum();
        let dropped = dropped();
        let is_all = dropped > 0 && found as u64 + dropped == all;
        is_all.then_some(()).ok_or((found, dropped, all))
    });
}

#[test]
fn records_that_are_too_old_are_counted_and_not_sent() {
    let collector = Collector::start(Mode::Refuse(503, ""));
    let clock = Clock::new();
    let environment = clock.environment();
    let environment = environment.iter().map(|(name, value)| (&**name, &**value));
    let environment: Vec<_> = environment.collect();
    let site = Site::start(&webhook(&collector, ""), "", &environment);
    visits(&site.proxy, 0..30);
    site.until_warned("it responds 503");
    site.proxy.results();
    clock.set(2 * 86_400);
    collector.set(OK);
    visits(&site.proxy, 30..60);
    site.until_warned("messages were not sent, because they waited for longer than `max_age`");
    let found = until("those that are new", || {
        let found = users(&collector.accepted());
        let found: BTreeSet<_> = found.into_values().flatten().collect();
        (found.len() >= 30).then_some(found.clone()).ok_or(found)
    });
    let expected: BTreeSet<_> = (30..60).map(|number| format!("user-{number}")).collect();
    assert_eq!(found, expected);
    // 30 exposures, and two messages for each of 10 purchases.
    let dropped = format!("{LABEL},reason=\"age\"");
    assert_eq!(metric(&site.proxy, "messages_dropped_total", &dropped), 50);
}

#[test]
fn purchases_keep_their_values() {
    let collector = Collector::start(OK);
    let site = Site::with_webhook(&collector, ", exposures: false, events: [ revenue ]");
    let mut client = site.proxy.client();
    client.get("/?event=buy;amount=19.90;id=order-1", "Cookie: uid=ann\r\n");
    client.get("/?event=buy;amount=19.90;id=order-1", "Cookie: uid=ann\r\n");
    client.get("/?event=buy;amount=-3.5", "Cookie: uid=ann\r\n");
    client.get("/?event=buy;amount=7;id=order-1", "Cookie: uid=bob\r\n");
    let found = until("three purchases", || {
        let found = events(&collector.accepted(), "revenue");
        (found.len() >= 3).then_some(found.clone()).ok_or(found)
    });
    let mut values: Vec<_> = found
        .values()
        .map(|it| {
            (
                it["user_id"].as_str().unwrap(),
                it["value"].as_f64().unwrap(),
            )
        })
        .collect();
    values.sort_by(|a, b| a.1.total_cmp(&b.1));
    assert_eq!(values, [("ann", -3.5), ("bob", 7.0), ("ann", 19.9)]);
    assert!(collector.accepted().iter().all(|it| it["type"] == "event"));
}
