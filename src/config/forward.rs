//! `forward:`: where exposures and events are sent.

use super::archive::{backlog, every};
use super::http_target::{self, TargetKey, basic};
use super::name::check_name;
use super::plan::{Destination, DestinationFormat, ForwardedEvents, Journal, Secret};
use super::reader::Node;
use super::tls::Watched;
use super::upstreams::is_itself;
use super::{tracing, webhooks};
use crate::experiment::metric::Metric;
use http::Uri;
use http::uri::PathAndQuery;
use std::net::SocketAddr;
use std::time::Duration;

/// The most destinations: each reads the journals.
const DESTINATIONS_MAX: usize = 16;
const NAME: &str = "a name, where two destinations have the same `to`";
const ADDRESS: &str =
    "an address such as https://events.example.com (or http://); or ${NAME}, or file:PATH";
const SECRET: &str = "a text without spaces; or ${NAME}, or file:PATH";
const MEASUREMENT_ID: &str = "the ID of the data stream, such as G-AB12CD34EF";
const EVENTS: &str = "true, false, or a list of metrics whose events are sent; true unless given";
const EVERY: &str = "how long records gather, from 1s to 1h; 5s unless given";
const EVERY_DEFAULT: Duration = Duration::from_secs(5);
const HOUR: (Duration, &str) = (Duration::from_secs(3600), "hour");
const DAY: Duration = Duration::from_secs(86_400);
const MAX_AGE_DEFAULT: Duration = DAY;

/// Who receives, as the file names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vendor {
    Segment,
    PostHog,
    GoogleAnalytics,
    Snowplow,
    Webhook,
    OpenTelemetry,
}

const VENDORS: [(&str, Vendor); 6] = [
    ("segment", Vendor::Segment),
    ("posthog", Vendor::PostHog),
    ("ga4", Vendor::GoogleAnalytics),
    ("snowplow", Vendor::Snowplow),
    ("webhook", Vendor::Webhook),
    ("otlp", Vendor::OpenTelemetry),
];

const KEYS: &[(&str, &str)] = &[
    ("to", "segment, posthog, ga4, snowplow, webhook or otlp"),
    ("name", NAME),
    ("address", ADDRESS),
    (
        "write_key",
        "of segment: the write key of the source; or ${NAME}, or file:PATH",
    ),
    (
        "api_key",
        "of posthog: the API key of the project; or ${NAME}, or file:PATH",
    ),
    (
        "measurement_id",
        "of ga4: the ID of the data stream, such as G-AB12CD34EF",
    ),
    (
        "api_secret",
        "of ga4: the API secret of the data stream; or ${NAME}, or file:PATH",
    ),
    (
        "app_id",
        "of snowplow: the ID of the application; watershed unless given",
    ),
    (
        "secret",
        "of webhook: the key that signs, as that of `webhooks`",
    ),
    (
        "service",
        "of otlp: the service name of the records; watershed unless given",
    ),
    (
        "headers",
        "of webhook and otlp: a name for each header of a post, then its value",
    ),
    ("tls", "{ ca, cert, key, name }, for an address at https://"),
    (
        "exposures",
        "whether exposures are sent: true or false; true unless given",
    ),
    ("events", EVENTS),
    (
        "new_ids",
        "whether records of IDs are sent that were given with the same response, also to clients without cookies: true or false; true unless given",
    ),
    ("every", EVERY),
    (
        "max_age",
        "the age from which on a record is not sent any more, such as 1d, at most 30d; 1d unless given",
    ),
    (
        "backlog",
        "the most bytes of the journal that wait for it while it is unavailable, such as 256MiB; a quarter of journal.quota unless given",
    ),
];

impl Vendor {
    /// The keys that others do not have.
    fn own_keys(self) -> &'static [&'static str] {
        match self {
            Vendor::Segment => &["write_key"],
            Vendor::PostHog => &["api_key"],
            Vendor::GoogleAnalytics => &["measurement_id", "api_secret"],
            Vendor::Snowplow => &["app_id"],
            Vendor::Webhook => &["secret", "headers"],
            Vendor::OpenTelemetry => &["service", "headers"],
        }
    }

    fn name(self) -> &'static str {
        let mut known = VENDORS.iter().filter(|(_, vendor)| *vendor == self);
        known.next().map_or("", |(name, _)| name)
    }

    fn default_address(self) -> Option<&'static str> {
        match self {
            Vendor::Segment => Some("https://api.segment.io"),
            Vendor::PostHog => Some("https://us.i.posthog.com"),
            Vendor::GoogleAnalytics => Some("https://www.google-analytics.com"),
            Vendor::Snowplow | Vendor::Webhook | Vendor::OpenTelemetry => None,
        }
    }

    /// The path that follows the address.
    fn path(self) -> &'static str {
        match self {
            Vendor::Segment => "/v1/batch",
            Vendor::PostHog => "/batch/",
            Vendor::GoogleAnalytics => "/mp/collect",
            Vendor::Snowplow => "/com.snowplowanalytics.snowplow/tp2",
            Vendor::Webhook => "",
            Vendor::OpenTelemetry => "/v1/logs",
        }
    }

    /// The age from which on the vendor refuses events.
    fn age_max(self) -> Duration {
        match self {
            Vendor::GoogleAnalytics => 3 * DAY,
            _ => 30 * DAY,
        }
    }
}

/// Reads `forward`. `listen` is the public address, which cannot be a destination; a part of the journal's quota
/// may wait for a destination.
pub(super) fn read(
    root: &Node<'_>,
    (listen, journal, metrics): (SocketAddr, &Journal, &[Metric]),
    watched: &mut Watched,
) -> Box<[Destination]> {
    let Some(node) = root.get("forward") else {
        return Box::default();
    };
    let mut all: Vec<Destination> = Vec::new();
    let items = node.items();
    if items.len() > DESTINATIONS_MAX {
        node.problem(
            format!("{} destinations", items.len()),
            format!("at most {DESTINATIONS_MAX}, because each of them reads the journals"),
        );
    }
    for node in items {
        let Some(destination) = destination(&node, (journal.quota_bytes, metrics), watched) else {
            continue;
        };
        if all.iter().any(|it| it.name == destination.name) {
            node.problem(
                format!("another destination is named {:?}", &*destination.name),
                "a `name` of its own: it names how far the destination is in the journals",
            );
        }
        let endpoint = &destination.target.endpoint;
        if is_itself(&endpoint.host, endpoint.port, listen) {
            node.problem(
                "this is an address of watershed itself",
                "each post would be recorded and sent again: write the address of the destination",
            );
        }
        all.push(destination);
    }
    all.into()
}

fn destination(
    node: &Node<'_>,
    (quota_bytes, metrics): (u64, &[Metric]),
    watched: &mut Watched,
) -> Option<Destination> {
    if !node.keys(KEYS) {
        return None;
    }
    let Some(to) = node.get("to") else {
        node.missing("to", KEYS[0].1);
        return None;
    };
    let vendor = to.word(&VENDORS)?;
    refuse_others(node, vendor);
    // All keys are read, so that all errors are reported.
    let (exposures, events) = (truth(node, "exposures"), events(node, metrics));
    if !exposures && events == ForwardedEvents::Of(Box::default()) {
        node.problem(
            "neither exposures nor events are sent",
            "`exposures: true`, or metrics at `events`; or leave the destination out",
        );
    }
    let every = every(node, EVERY_DEFAULT, HOUR, EVERY);
    let max_age = max_age(node, vendor);
    let backlog_bytes = backlog(node, quota_bytes);
    let new_ids = truth(node, "new_ids");
    let headers = node.get("headers").map(|node| tracing::headers(&node));
    let name = name(node, vendor);
    let format = format(node, vendor);
    let at = TargetKey {
        key: "address",
        holds: ADDRESS,
        default: vendor.default_address(),
    };
    let target = http_target::read(node, &at, watched);
    let query = query(node, vendor);
    let (uri, mut target) = target?;
    target.path = path(node, vendor, &uri, query?)?;
    if vendor == Vendor::Segment {
        target.authorization = write_key(node);
    }
    Some(Destination {
        name,
        format: format?,
        target,
        headers: headers.unwrap_or_default(),
        exposures,
        events,
        new_ids,
        every,
        max_age,
        backlog_bytes,
    })
}

/// Reports keys of other vendors.
fn refuse_others(node: &Node<'_>, vendor: Vendor) {
    let own = vendor.own_keys();
    let others = VENDORS.iter().flat_map(|(_, it)| it.own_keys());
    let mut seen: Vec<&str> = Vec::new();
    for key in others.filter(|key| !own.contains(key)) {
        if let Some(found) = node.get(key)
            && !seen.contains(key)
        {
            seen.push(key);
            // It may be a secret.
            found.hide();
            found.problem(
                format!("{} has no `{key}`", vendor.name()),
                format!("leave it out; {} has: {}", vendor.name(), own.join(", ")),
            );
        }
    }
}

fn name(node: &Node<'_>, vendor: Vendor) -> Box<str> {
    let Some(own) = node.get("name") else {
        return vendor.name().into();
    };
    let text = own.text(NAME).unwrap_or(vendor.name());
    check_name(&own, text);
    text.into()
}

fn format(node: &Node<'_>, vendor: Vendor) -> Option<DestinationFormat> {
    let word = |key: &str| {
        let word = node.get(key).map(|node| {
            node.read("a text of 1 to 255 bytes", |text| {
                (1..=255).contains(&text.len()).then(|| text.into())
            })
        });
        word.unwrap_or_else(|| Some("watershed".into()))
    };
    Some(match vendor {
        Vendor::Segment => DestinationFormat::Segment,
        Vendor::PostHog => DestinationFormat::PostHog {
            api_key: secret(node, "api_key")?,
        },
        Vendor::GoogleAnalytics => DestinationFormat::GoogleAnalytics,
        Vendor::Snowplow => DestinationFormat::Snowplow {
            app_id: word("app_id")?,
        },
        Vendor::Webhook => DestinationFormat::Webhook {
            key: match node.get("secret") {
                Some(node) => Some(webhooks::signing_key(&node)?),
                None => None,
            },
        },
        Vendor::OpenTelemetry => DestinationFormat::OpenTelemetry {
            service: word("service")?,
        },
    })
}

fn write_key(node: &Node<'_>) -> Option<http::HeaderValue> {
    let key = secret(node, "write_key")?;
    basic(format!("{}:", key.reveal()).as_bytes())
}

/// Reads a secret that must be there.
fn secret(node: &Node<'_>, key: &str) -> Option<Secret> {
    let Some(own) = node.get(key) else {
        node.missing(key, SECRET);
        return None;
    };
    let secret = own.secret(SECRET)?;
    let text = secret.reveal();
    if text.is_empty()
        || text.contains(|letter: char| letter.is_whitespace() || letter.is_control())
    {
        own.problem("an empty text, or one with spaces", SECRET);
        return None;
    }
    Some(secret)
}

/// Returns the query of requests; empty for none. `None` where it cannot be read.
fn query(node: &Node<'_>, vendor: Vendor) -> Option<String> {
    if vendor != Vendor::GoogleAnalytics {
        return Some(String::new());
    }
    let id = match node.get("measurement_id") {
        Some(own) => own.read(MEASUREMENT_ID, |text| {
            let is_sound = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            let is_id = text.starts_with("G-") && text.bytes().all(is_sound);
            is_id.then(|| text.to_owned())
        }),
        None => {
            node.missing("measurement_id", MEASUREMENT_ID);
            None
        }
    };
    let secret = secret(node, "api_secret");
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("measurement_id", &id?);
    query.append_pair("api_secret", secret?.reveal());
    Some(format!("?{}", query.finish()))
}

/// Returns the path of requests: that of the address, and the vendor's.
fn path(node: &Node<'_>, vendor: Vendor, uri: &Uri, query: String) -> Option<PathAndQuery> {
    if vendor == Vendor::Webhook {
        return uri.path_and_query().cloned();
    }
    if uri.query().is_some() {
        let address = node.get("address");
        address.as_ref().unwrap_or(node).problem(
            "an address with a query",
            format!("an address alone: the path {} is appended", vendor.path()),
        );
        return None;
    }
    let (base, own) = (uri.path().trim_end_matches('/'), vendor.path());
    let path = match base.ends_with(own.trim_end_matches('/')) {
        true => base.to_owned(),
        false => format!("{base}{own}"),
    };
    format!("{path}{query}").parse().ok()
}

fn truth(node: &Node<'_>, key: &str) -> bool {
    let truth = node.get(key).and_then(|node| node.boolean());
    truth.unwrap_or(true)
}

fn events(node: &Node<'_>, metrics: &[Metric]) -> ForwardedEvents {
    let Some(node) = node.get("events") else {
        return ForwardedEvents::All;
    };
    match node.flag() {
        Some(true) => return ForwardedEvents::All,
        Some(false) => return ForwardedEvents::Of(Box::default()),
        None => {}
    }
    let mut names = Vec::new();
    for item in node.items() {
        let Some(name) = item.text(EVENTS) else {
            continue;
        };
        match metrics.iter().any(|metric| &*metric.name == name) {
            true => names.push(name.into()),
            false => item.unknown("metric", name, metrics.iter().map(|it| &*it.name)),
        }
    }
    ForwardedEvents::Of(names.into())
}

fn max_age(node: &Node<'_>, vendor: Vendor) -> Duration {
    let Some(node) = node.get("max_age") else {
        return MAX_AGE_DEFAULT;
    };
    let age = node.duration().unwrap_or(MAX_AGE_DEFAULT);
    let most = vendor.age_max();
    if age < Duration::from_secs(60) || age > most {
        let days = most.as_secs() / DAY.as_secs();
        node.problem(
            format!("found {}", humantime::format_duration(age)),
            format!("from 1m to {days}d: {} takes nothing older", vendor.name()),
        );
    }
    age
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use std::path::Path;

    /// The destinations of a file, or its problems.
    fn read(forward: &str) -> Result<Vec<Destination>, Vec<String>> {
        let text = format!(
            "listen: 127.0.0.1:8080\nupstreams: {{ a: \"http://127.0.0.1:1\" }}\nmetrics: {{ buy: {{ event: buy }} }}\nforward: {forward}"
        );
        let environment = |name: &str| (name == "KEY").then(|| "hidden-key".to_owned());
        let read = config::parse(&text, Path::new("routes.yaml"), &environment);
        read.map(|plan| plan.forward.to_vec()).map_err(|invalid| {
            let diagnostics = invalid.diagnostics.iter();
            diagnostics
                .map(|it| format!("{}: {}", it.key, it.found))
                .collect()
        })
    }

    #[test]
    fn each_vendor_has_its_path_and_its_credentials() {
        #[track_caller]
        fn check(forward: &str, path: &str, authorization: Option<&str>) {
            let all = read(forward).unwrap();
            let target = &all[0].target;
            assert_eq!(target.path.to_string(), path);
            let found = target.authorization.as_ref();
            assert_eq!(found.map(|it| it.to_str().unwrap()), authorization);
            // Nothing shows the key.
            let shown = format!("{all:?} {target}");
            assert!(
                !shown.contains("hidden") && !shown.contains("aGlkZGVuLWtleTo"),
                "{shown}"
            );
        }
        let at = "address: \"http://a:1\"";
        check(
            &format!("{{ to: segment, {at}, write_key: \"${{KEY}}\" }}"),
            "/v1/batch",
            Some("Basic aGlkZGVuLWtleTo="),
        );
        check(
            &format!("{{ to: posthog, {at}, api_key: \"${{KEY}}\" }}"),
            "/batch/",
            None,
        );
        check(
            &format!("{{ to: ga4, {at}, measurement_id: G-1, api_secret: \"${{KEY}}\" }}"),
            "/mp/collect?measurement_id=G-1&api_secret=hidden-key",
            None,
        );
        check(
            "{ to: snowplow, address: \"http://u:p@a/base/\" }",
            "/base/com.snowplowanalytics.snowplow/tp2",
            Some("Basic dTpw"),
        );
        check(
            "{ to: webhook, address: \"http://a/x?y=z\" }",
            "/x?y=z",
            None,
        );
        check(
            "{ to: otlp, address: \"http://a/v1/logs\" }",
            "/v1/logs",
            None,
        );
    }

    #[test]
    fn defaults_and_all_keys_are_read() {
        let all = read("[ { to: otlp, address: \"http://a\" }, { to: otlp, name: other, address: \"http://a\", service: shop, headers: { x-key: \"${KEY}\" }, exposures: false, events: [ buy ], new_ids: false, every: 1m, max_age: 2h, backlog: 2MiB } ]").unwrap();
        let [first, second] = &all[..] else {
            panic!("{all:?}");
        };
        assert_eq!(
            (&*first.name, first.exposures, first.new_ids),
            ("otlp", true, true)
        );
        assert_eq!(
            (&first.events, first.every),
            (&ForwardedEvents::All, EVERY_DEFAULT)
        );
        assert_eq!((first.max_age, first.backlog_bytes), (DAY, 256 << 20));
        assert_eq!(
            (&*second.name, second.exposures, second.new_ids),
            ("other", false, false)
        );
        assert_eq!(second.events, ForwardedEvents::Of(["buy".into()].into()));
        assert_eq!(
            (second.every.as_secs(), second.max_age.as_secs()),
            (60, 7200)
        );
        assert_eq!(
            (second.backlog_bytes, &second.headers["x-key"]),
            (2 << 20, &"hidden-key".parse().unwrap())
        );
        let events = |events: &str| {
            read(&format!(
                "{{ to: otlp, address: \"http://a\", events: {events} }}"
            ))
            .unwrap()[0]
                .events
                .clone()
        };
        assert_eq!(events("true"), ForwardedEvents::All);
        assert_eq!(events("false"), ForwardedEvents::Of(Box::default()));
    }

    #[test]
    fn all_errors_are_reported_and_no_secret_is_shown() {
        let found = read(
            "[ { to: mixpanel }, { address: \"http://a\" }, { to: segment, address: \"http://a\" }, \
             { to: posthog, address: \"ftp://hidden\", api_key: \"a b\", app_id: x }, \
             { to: ga4, address: \"http://a\", measurement_id: UA-1 }, \
             { to: snowplow, address: \"http://a?b=c\", every: 10ms, max_age: 31d, backlog: 1KiB }, \
             { to: webhook, secret: hidden }, \
             { to: otlp, address: \"http://127.0.0.1:8080\", exposures: false, events: false }, \
             { to: otlp, address: \"http://a\", name: \"a/b\", events: [ by ], evry: 1s }, \
             { to: ga4, address: \"http://a\", measurement_id: G-1, api_secret: x, max_age: 4d }, \
             { to: ga4, address: \"http://a\", measurement_id: G-2, api_secret: x }, segment ]",
        );
        let expected = [
            "forward.0.to: found \"mixpanel\"",
            "forward.1: `to` is missing",
            "forward.2: `write_key` is missing",
            "forward.3.address: this is not an address",
            "forward.3.api_key: an empty text, or one with spaces",
            "forward.3.app_id: posthog has no `app_id`",
            "forward.4: `api_secret` is missing",
            "forward.4.measurement_id: found \"UA-1\"",
            "forward.5.address: an address with a query",
            "forward.5.every: more often than every second",
            "forward.5.max_age: found 1month 13h 26m 24s",
            "forward.5.backlog: found 1.0 KiB",
            "forward.6: `address` is missing",
            "forward.6.secret: this is not a secret of a webhook",
            "forward.7: neither exposures nor events are sent",
            "forward.7: this is an address of watershed itself",
            "forward.8.name: \"a/b\" is not a valid name",
            "forward.8.events.0: there is no metric \"by\"",
            "forward.8.evry: unknown key",
            "forward.9.max_age: found 4days",
            "forward.10: another destination is named \"ga4\"",
            "forward.11: the text \"segment\" instead of keys",
        ];
        let mut found = found.unwrap_err();
        let mut expected = expected.map(str::to_owned);
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
    }
}
