//! Forwarding: every exposure and event that counts reaches each destination at least once.

mod collector;
mod configuration;
mod failures;
mod privacy;
mod vendors;

use crate::support::origin::Origin;
use crate::support::proxy::{How, Proxy};
use crate::support::until;
use collector::Collector;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A site with an experiment and two metrics.
pub struct Site {
    pub proxy: Proxy,
    pub routes: String,
    _origins: [Origin; 2],
}

impl Site {
    /// Starts a site with these destinations, and more lines of the file.
    pub fn start(forward: &str, lines: &str, env: &[(&str, &str)]) -> Site {
        let origins = [Origin::start("a"), Origin::start("b")];
        let [a, b] = origins.each_ref().map(|origin| origin.address);
        let routes = format!(
            "{lines}workers: 2\nuser: {{ cookie: uid }}\nforward: {forward}\nupstreams: {{ a: \"http://{a}\", b: \"http://{b}\" }}
experiments:
  shop: {{ control: a, experiment: b, percent: 50, guardrails: {{ errors: {{ max_increase: 5% }} }} }}
metrics:
  buy: {{ event: buy }}
  revenue: {{ event: buy, value: amount, kind: mean }}
"
        );
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let how = How {
            env: env.iter().map(pair).collect(),
            ..How::default()
        };
        Site {
            proxy: Proxy::start_how(&routes, how),
            routes,
            _origins: origins,
        }
    }

    /// Starts a site with one webhook.
    pub fn with_webhook(collector: &Collector, keys: &str) -> Site {
        Site::start(&webhook(collector, keys), "", &[])
    }

    /// Starts the program again with the same file.
    pub fn again(&mut self) {
        let routes = self.routes.clone();
        self.proxy.again(&routes);
    }

    pub fn log(&self) -> String {
        self.proxy.log.lock().unwrap().clone()
    }

    /// The problems that results show.
    pub fn warnings(&self) -> String {
        let results = self.proxy.ask("/admin/results").json();
        results["warnings"].to_string() + &results["store"].to_string()
    }

    /// Waits for a problem with this text.
    #[track_caller]
    pub fn until_warned(&self, text: &str) -> String {
        until(text, || {
            let warnings = self.warnings();
            warnings
                .contains(text)
                .then_some(warnings.clone())
                .ok_or(warnings)
        })
    }
}

/// A webhook at a collector.
pub fn webhook(collector: &Collector, keys: &str) -> String {
    let address = collector.address;
    format!("{{ to: webhook, address: \"http://{address}/in\", every: 1s{keys} }}")
}

/// A number of `/admin/metrics` of a destination.
pub fn metric(proxy: &Proxy, name: &str, labels: &str) -> u64 {
    let text = proxy.ask("/admin/metrics").text();
    let line = format!("watershed_forward_{name}{{{labels}}} ");
    let mut found = text.lines().filter_map(|it| it.strip_prefix(&line));
    let number: f64 = found
        .next()
        .unwrap_or_else(|| panic!("{line}: {text}"))
        .parse()
        .unwrap();
    number as u64
}

/// Visits of users with these numbers: each sees the site, and every third one buys.
pub fn visits(proxy: &Proxy, numbers: std::ops::Range<usize>) {
    let mut client = proxy.client();
    for number in numbers {
        let cookie = format!("Cookie: uid=user-{number}\r\n");
        let event = if number % 3 == 0 {
            "?event=buy;amount=1.25"
        } else {
            ""
        };
        assert_eq!(client.get(&format!("/{event}"), &cookie).status, 200);
    }
}

/// The users of each group by accepted exposures, each once.
pub fn users(messages: &[Value]) -> BTreeMap<String, BTreeSet<String>> {
    let mut users: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for message in messages.iter().filter(|it| it["type"] == "exposure") {
        let group = message["variation_id"].as_str().unwrap();
        let user = message["user_id"].as_str().unwrap();
        users
            .entry(group.to_owned())
            .or_default()
            .insert(user.to_owned());
    }
    users
}

/// The events of a metric, each ID once.
pub fn events(messages: &[Value], metric: &str) -> BTreeMap<String, Value> {
    let events = messages.iter().filter(|it| it["event"] == metric);
    let pair = |it: &Value| (it["id"].as_str().unwrap().to_owned(), it.clone());
    events.map(pair).collect()
}

/// Without duplicates, the messages have the numbers of the results.
#[track_caller]
pub fn assert_equal(results: &Value, messages: &[Value]) {
    let experiment = &results["experiments"][0];
    let users = users(messages);
    for group in experiment["groups"].as_array().unwrap() {
        let found = users
            .get(group["name"].as_str().unwrap())
            .map_or(0, BTreeSet::len);
        assert_eq!(found as u64, group["users"].as_u64().unwrap(), "{group:#}");
    }
    for metric in experiment["metrics"].as_array().unwrap() {
        let name = metric["name"].as_str().unwrap();
        if !["buy", "revenue"].contains(&name) {
            continue;
        }
        let groups = metric["groups"].as_array().unwrap().iter();
        let (mut count, mut sum) = (0, 0.0);
        for group in groups {
            count += group["count"].as_u64().unwrap();
            sum += group["sum"].as_f64().unwrap();
        }
        let events = events(messages, name);
        assert_eq!(events.len() as u64, count, "{metric:#}");
        let values = events
            .values()
            .map(|it| it["value"].as_f64().unwrap_or(0.0));
        assert!((values.sum::<f64>() - sum).abs() < 1e-6, "{metric:#}");
    }
}

/// Waits until the messages of a collector have the users and events of the results.
#[track_caller]
pub fn until_equal(site: &Site, messages: impl Fn() -> Vec<Value>) {
    let results = site.proxy.results();
    let groups = results["experiments"][0]["groups"]
        .as_array()
        .unwrap()
        .iter();
    let all: u64 = groups.map(|group| group["users"].as_u64().unwrap()).sum();
    let counted = results["experiments"][0]["metrics"][0]["groups"]
        .as_array()
        .unwrap()
        .iter();
    let bought: u64 = counted.map(|group| group["count"].as_u64().unwrap()).sum();
    until("all messages", || {
        let messages = messages();
        let found: usize = users(&messages).values().map(BTreeSet::len).sum();
        let bought_found = events(&messages, "buy").len();
        let is_all = found as u64 >= all && bought_found as u64 >= bought;
        is_all
            .then_some(())
            .ok_or_else(|| (found, bought_found, all, bought, site.log()))
    });
    assert_equal(&results, &messages());
}
