//! Each vendor's requests, as its server sees them. Golden files have their bodies.

use super::collector::{Collector, Mode, Post};
use super::{Site, metric, visits};
use crate::support::until;
use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

/// Waits until a destination with these keys got 30 users, whom `users` finds in a request. Returns its requests.
#[track_caller]
fn posts(keys: &str, users: impl Fn(&Post) -> Vec<String>) -> Vec<Post> {
    let collector = Collector::start(Mode::Accept(""));
    let address = collector.address;
    let forward = format!("{{ {keys}, address: \"http://{address}\", every: 1s }}");
    let site = Site::start(&forward, "", &[("KEY", "the-key")]);
    visits(&site.proxy, 0..30);
    until("30 users", || {
        let found: BTreeSet<_> = collector.seen().iter().flat_map(&users).collect();
        (found.len() == 30)
            .then_some(())
            .ok_or_else(|| (found, site.log()))
    });
    let seen = collector.seen();
    assert!(
        seen.iter()
            .all(|it| it.header("content-type") == "application/json")
    );
    assert!(
        seen.iter()
            .all(|it| it.header("host") == address.to_string())
    );
    seen
}

/// The texts at a place of each element of a list.
fn each(post: &Post, list: &str, place: &str) -> Vec<String> {
    let all = post
        .body
        .pointer(list)
        .unwrap_or_else(|| panic!("{list}: {:#}", post.body));
    let texts = all.as_array().unwrap().iter().map(|it| it.pointer(place));
    texts
        .flatten()
        .map(|it| it.as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn segment_gets_track_calls_with_its_key() {
    let posts = posts("to: segment, write_key: \"${KEY}\"", |post| {
        each(post, "/batch", "/userId")
    });
    for post in &posts {
        assert_eq!(post.path, "/v1/batch");
        assert_eq!(post.header("authorization"), "Basic dGhlLWtleTo=");
    }
}

#[test]
fn posthog_gets_batches_with_its_key() {
    let posts = posts("to: posthog, api_key: \"${KEY}\"", |post| {
        each(post, "/batch", "/properties/distinct_id")
    });
    for post in &posts {
        assert_eq!(
            (&*post.path, &post.body["api_key"]),
            ("/batch/", &"the-key".into())
        );
    }
}

#[test]
fn google_gets_one_request_for_each_user() {
    let posts = posts(
        "to: ga4, measurement_id: G-1, api_secret: \"${KEY}\"",
        |post| vec![post.body["user_id"].as_str().unwrap().to_owned()],
    );
    for post in &posts {
        assert_eq!(
            post.path,
            "/mp/collect?measurement_id=G-1&api_secret=the-key"
        );
        let names = each(post, "/events", "/name");
        assert!(
            names
                .iter()
                .all(|it| ["experience_impression", "buy", "revenue"].contains(&&**it))
        );
    }
}

#[test]
fn snowplow_gets_structured_events() {
    let posts = posts("to: snowplow, app_id: shop", |post| {
        each(post, "/data", "/uid")
    });
    for post in &posts {
        assert_eq!(post.path, "/com.snowplowanalytics.snowplow/tp2");
        let schema = "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4";
        assert_eq!(post.body["schema"], schema);
    }
}

#[test]
fn webhook_gets_signed_batches() {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let posts = posts(&format!("to: webhook, secret: {secret}"), |post| {
        each(post, "/batch", "/user_id")
    });
    let script = "import sys, hmac, hashlib, base64\n\
        key = base64.b64decode(sys.argv[1].removeprefix('whsec_'))\n\
        digest = hmac.new(key, sys.stdin.buffer.read(), hashlib.sha256).digest()\n\
        print('v1,' + base64.b64encode(digest).decode(), end='')";
    for post in &posts {
        let (id, at) = (post.header("webhook-id"), post.header("webhook-timestamp"));
        let mut python = Command::new("python3")
            .args(["-c", script, secret])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let signed = format!("{id}.{at}.{}", post.raw);
        python
            .stdin
            .take()
            .unwrap()
            .write_all(signed.as_bytes())
            .unwrap();
        let output = python.wait_with_output().unwrap();
        let expected = String::from_utf8(output.stdout).unwrap();
        assert_eq!(post.header("webhook-signature"), expected);
    }
}

#[test]
fn collector_gets_feature_flag_evaluations_and_may_reject_some() {
    let records = "/resourceLogs/0/scopeLogs/0/logRecords";
    let of_users = |post: &Post| -> Vec<String> {
        let evaluations = post.body.pointer(records).unwrap().as_array().unwrap();
        let evaluations = evaluations
            .iter()
            .filter(|it| it["eventName"] == "feature_flag.evaluation");
        let user = |it: &serde_json::Value| {
            let mut all = it["attributes"].as_array().unwrap().iter();
            let user = all
                .find(|it| it["key"] == "feature_flag.context.id")
                .unwrap();
            user["value"]["stringValue"].as_str().unwrap().to_owned()
        };
        evaluations.map(user).collect()
    };
    let posts = posts(
        "to: otlp, service: shop, headers: { x-key: \"${KEY}\" }",
        of_users,
    );
    for post in &posts {
        assert_eq!((&*post.path, post.header("x-key")), ("/v1/logs", "the-key"));
    }
    // It takes a request, and keeps only a part of it.
    let partial = r#"{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"too old"}}"#;
    let collector = Collector::start(Mode::Accept(partial));
    let forward = format!(
        "{{ to: otlp, address: \"http://{}\", every: 1s }}",
        collector.address
    );
    let site = Site::start(&forward, "", &[]);
    visits(&site.proxy, 0..3);
    let warned = site.until_warned("messages were refused (too old), and others accepted");
    assert!(
        warned.contains("the destination otlp of `forward` does not have everything"),
        "{warned}"
    );
    let refused = metric(
        &site.proxy,
        "messages_dropped_total",
        "destination=\"otlp\",reason=\"refused\"",
    );
    assert!(refused > 0 && refused as usize <= collector.seen().len());
}
