//! How messages reach their receivers.

use super::receiver::{Message, Mode, Receiver, SECRET};
use super::{Site, act, metric};
use crate::support::client::Client;
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::until;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Decides so many times, pausing and resuming in turn.
fn decide(proxy: &Proxy, times: usize) {
    for turn in 0..times {
        let action = if turn % 2 == 0 { "pause" } else { "resume" };
        assert_eq!(act(proxy, action, ""), 200);
    }
}

fn ids(messages: &[Message]) -> BTreeSet<&str> {
    messages.iter().map(Message::id).collect()
}

#[test]
fn receiver_that_fails_half_the_time_gets_every_message_with_its_id() {
    for site in Site::of_both_stores() {
        let receiver = Receiver::start(Mode::FailHalf);
        let proxy = Proxy::start(&site.routes("", &receiver.key("")));
        decide(&proxy, 6);
        let accepted = receiver.until_accepted("decision", 6);
        until("an empty queue", || {
            let pending = metric(&proxy, "webhook_messages_pending");
            (pending == 0.0).then_some(()).ok_or(pending)
        });
        assert_eq!(ids(&accepted).len(), 6, "each once");
        let seen = receiver.seen();
        assert_eq!(ids(&seen), ids(&accepted));
        assert!(seen.len() > 6, "half of the attempts fail");
        for message in &seen {
            message.check_signature(SECRET);
            assert!(message.id().starts_with("msg_"));
            assert_eq!(message.header("content-type"), "application/json");
            assert_eq!(message.body["type"], "decision");
            assert_eq!(message.body["experiment"], "site");
            assert!(message.body["timestamp"].as_str().unwrap().ends_with('Z'));
            let text = message.body["text"].as_str().unwrap();
            assert!(text.starts_with("site: pause by") || text.starts_with("site: resume by"));
            assert_eq!(message.body["data"]["by"], "the admin API");
            // The attempts of a message differ in their time at most.
            let first = seen.iter().find(|it| it.id() == message.id()).unwrap();
            assert_eq!(message.raw, first.raw);
        }
        // The first retry comes within five seconds.
        for failed in seen.iter().filter(|it| it.status == 500) {
            let retry = seen
                .iter()
                .find(|it| it.id() == failed.id() && it.at > failed.at);
            let is_first = seen.iter().find(|it| it.id() == failed.id()).unwrap().at == failed.at;
            let later = retry.unwrap().at - failed.at;
            assert!(!is_first || later < Duration::from_secs(5), "{later:?}");
        }
        assert_eq!(metric(&proxy, "webhook_messages_delivered_total"), 6.0);
        assert_eq!(
            metric(&proxy, "webhook_attempts_failed_total"),
            (seen.len() - 6) as f64
        );
    }
}

/// Kills the program while a message waits, or is being sent, and starts it again.
fn killed_with_a_pending_message(site: &Site, mode: Mode, attempts: usize) {
    let receiver = Receiver::start(mode);
    let routes = site.routes("", &receiver.key(""));
    let mut proxy = Proxy::start(&routes);
    decide(&proxy, 1);
    until("attempts", || {
        let seen = receiver.seen().len();
        (seen >= attempts).then_some(()).ok_or(seen)
    });
    proxy.kill();
    receiver.set(Mode::Accept(""));
    let begun = Instant::now();
    proxy.again(&routes);
    let accepted = receiver.until_accepted("decision", 1);
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(accepted[0].id(), receiver.seen()[0].id());
    accepted[0].check_signature(SECRET);
    // What was told before the kill is not told again.
    decide(&proxy, 2);
    let accepted = receiver.until_accepted("decision", 2);
    assert_eq!(accepted.len(), ids(&accepted).len());
}

#[test]
fn pending_message_survives_a_kill_and_is_sent_at_once() {
    for site in Site::of_both_stores() {
        // After the third attempt the next one would come in half a minute.
        killed_with_a_pending_message(&site, Mode::Refuse(503, String::new()), 3);
    }
}

#[test]
fn message_that_was_being_sent_at_a_kill_is_sent_again_at_once() {
    for site in Site::of_both_stores() {
        killed_with_a_pending_message(&site, Mode::Hang, 1);
    }
}

#[test]
fn two_replicas_with_one_redis_send_one_message() {
    let site = Site::start(Some(Redis::start()));
    let receiver = Receiver::start(Mode::Accept(""));
    let routes = site.routes("", &receiver.key(""));
    let proxies = [Proxy::start(&routes), Proxy::start(&routes)];
    for turn in 0..6 {
        let action = if turn % 2 == 0 { "pause" } else { "resume" };
        assert_eq!(act(&proxies[turn / 2 % 2], action, ""), 200);
        receiver.until_accepted("decision", turn + 1);
    }
    // Both see the same winner, too.
    super::come(&proxies[0], "a", [(60, 2), (60, 55)]);
    receiver.until_accepted("winner", 1);
    for proxy in &proxies {
        super::analyzed(proxy);
    }
    assert_eq!(act(&proxies[1], "pause", ""), 200);
    receiver.until_accepted("decision", 7);
    let seen = receiver.seen();
    let count = |kind: &str| seen.iter().filter(|it| it.kind() == kind).count();
    assert_eq!((count("decision"), count("winner")), (7, 1), "{seen:#?}");
    assert_eq!(ids(&seen).len(), seen.len());
    let sent = proxies
        .iter()
        .map(|it| metric(it, "webhook_messages_delivered_total"));
    assert_eq!(sent.sum::<f64>(), seen.len() as f64);
}

#[test]
fn receiver_that_never_answers_delays_nobody() {
    let site = Site::start(None);
    let (deaf, other) = (
        Receiver::start(Mode::Hang),
        Receiver::start(Mode::Accept("")),
    );
    let webhooks = format!(
        "webhooks: [ {{ url: \"{}\" }}, {{ url: \"{}\" }} ]\n",
        deaf.url(),
        other.url()
    );
    let proxy = Proxy::start(&site.routes("", &webhooks));
    decide(&proxy, 4);
    let begun = Instant::now();
    let accepted = other.until_accepted("decision", 4);
    // Below the time limit of the attempts that hang.
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(
        accepted[0].header("webhook-signature"),
        "",
        "without a secret"
    );
    until("hanging attempts", || {
        let hanging = deaf.seen().len();
        (hanging == 4).then_some(()).ok_or(hanging)
    });
    // Requests are served and ingested meanwhile.
    let mut client = proxy.client();
    let begun = Instant::now();
    for number in 0..100 {
        assert_eq!(
            client.get("/", &format!("X-User: u{number}\r\n")).status,
            200
        );
    }
    assert_eq!(proxy.results()["store"]["lag_events"], 0);
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
    // An attempt ends after ten seconds, and is repeated with the same ID.
    let again = until("another attempt", || {
        let seen = deaf.seen();
        (seen.len() > 4).then_some(seen.clone()).ok_or(seen.len())
    });
    assert_eq!(ids(&again).len(), 4);
    let waited = again[4].at - again[0].at;
    assert!(waited >= Duration::from_secs(10), "{waited:?}");
    // A stop waits for no receiver.
    let mut proxy = proxy;
    let begun = Instant::now();
    proxy.signal("TERM");
    assert!(proxy.wait().success());
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn slow_redirect_is_a_failure_that_is_not_followed() {
    let site = Site::start(None);
    let elsewhere = Receiver::start(Mode::Accept(""));
    let location = format!("location: {}\r\n", elsewhere.url());
    let receiver = Receiver::start(Mode::Refuse(302, location));
    let proxy = Proxy::start(&site.routes("", &receiver.key("")));
    decide(&proxy, 1);
    until("a second attempt", || {
        let seen = receiver.seen().len();
        (seen >= 2).then_some(()).ok_or(seen)
    });
    let log = proxy.log.lock().unwrap().clone();
    assert!(
        log.contains("it redirects (302 Found): write the final address"),
        "{log}"
    );
    assert!(!log.contains("secret-path"), "{log}");
    assert_eq!(elsewhere.seen().len(), 0);
    receiver.set(Mode::Accept(""));
    receiver.until_accepted("decision", 1);
}

#[test]
fn receiver_that_is_gone_gets_no_retry() {
    let site = Site::start(None);
    let receiver = Receiver::start(Mode::Refuse(410, String::new()));
    let proxy = Proxy::start(&site.routes("", &receiver.key("")));
    decide(&proxy, 1);
    until("a message that is given up", || {
        let dropped = metric(&proxy, "webhook_messages_dropped_total");
        (dropped == 1.0).then_some(()).ok_or(dropped)
    });
    receiver.set(Mode::Accept(""));
    decide(&proxy, 2);
    receiver.until_accepted("decision", 1);
    let first = receiver.seen()[0].id().to_owned();
    assert_eq!(
        receiver.seen().iter().filter(|it| it.id() == first).count(),
        1
    );
}

#[test]
fn reload_changes_receivers_and_secrets_and_shows_none() {
    let site = Site::start(None);
    let (first, second) = (
        Receiver::start(Mode::Accept("")),
        Receiver::start(Mode::Accept("")),
    );
    let proxy = Proxy::start(&site.routes("", ""));
    decide(&proxy, 1);
    // What was decided before there was a webhook is not told.
    proxy.write(&site.routes("", &first.key(", on: [winner, decision]")));
    let loaded = |has: &str| {
        until("the file", || {
            let config = proxy.ask("/admin/config").text();
            config.contains(has).then_some(config.clone()).ok_or(config)
        })
    };
    let config = loaded("webhooks");
    assert!(
        !config.contains("MfKQ9r8G") && !config.contains("secret-path"),
        "{config}"
    );
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(act(&proxy, "resume", ""), 200);
    let accepted = first.until_accepted("decision", 1);
    assert_eq!(accepted[0].body["data"]["action"], "resume");
    assert_eq!(first.seen().len(), 1, "only what came later");
    // A secret in a file, relative to the routes file, and what a webhook does not want.
    let other = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    std::fs::write(proxy.folder.path().join("hook.key"), format!("{other}\n")).unwrap();
    let (url, quiet) = (second.url(), first.url());
    proxy.write(&site.routes(
        "",
        &format!(
            "webhooks: [ {{ url: \"{url}\", secret: \"file:hook.key\" }}, {{ url: \"{quiet}\", on: winner }} ]\n"
        ),
    ));
    loaded("file:hook.key");
    assert_eq!(act(&proxy, "pause", ""), 200);
    second.until_accepted("decision", 1)[0].check_signature(other);
    assert_eq!(first.seen().len(), 1, "it is told of winners only");
}

#[test]
fn messages_of_a_lost_store_survive_a_kill_and_requests_are_served() {
    let mut site = Site::start(Some(Redis::start()));
    let receiver = Receiver::start(Mode::Refuse(500, String::new()));
    let routes = site.routes("", &receiver.key(", on: [store_down]"));
    let mut proxy = Proxy::start(&routes);
    proxy.results();
    site.redis.as_mut().unwrap().kill();
    until("an attempt", || {
        let seen = receiver.seen().len();
        (seen >= 1)
            .then_some(())
            .ok_or(proxy.log.lock().unwrap().clone())
    });
    for number in 0..20 {
        let user = format!("X-User: u{number}\r\n");
        assert_eq!(Client::connect(proxy.public).get("/", &user).status, 200);
    }
    proxy.kill();
    receiver.set(Mode::Accept(""));
    // The store is still away.
    proxy.again(&routes);
    let accepted = receiver.until_accepted("store_down", 1);
    assert_eq!(accepted[0].id(), receiver.seen()[0].id());
    accepted[0].check_signature(SECRET);
    let body = &accepted[0].body;
    assert_eq!(
        (&body["experiment"], &body["data"]["store"]),
        (&().into(), &"redis".into())
    );
    assert!(
        body["text"]
            .as_str()
            .unwrap()
            .starts_with("the store is unavailable: "),
        "{body}"
    );
    // One loss of the store is told once, though it lasts.
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(receiver.accepted("store_down").len(), 1);
    site.redis.as_mut().unwrap().up();
    proxy.results();
}
