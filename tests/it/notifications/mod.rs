//! Webhooks: signed messages, each delivered at least once, by the fleet once.

mod delivery;
mod events;
mod receiver;
mod stores;

use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::until;
use serde_json::Value;
use watershed::experiment::UserId;
use watershed::experiment::assign::{Share, Split, Weight};

/// Two versions, and the file that divides users among them.
struct Site {
    current: Origin,
    next: Origin,
    redis: Option<Redis>,
}

impl Site {
    fn start(redis: Option<Redis>) -> Site {
        Site {
            current: Origin::start("current"),
            next: Origin::start("next"),
            redis,
        }
    }

    /// One site for each store.
    fn of_both_stores() -> [Site; 2] {
        [Site::start(None), Site::start(Some(Redis::start()))]
    }

    fn routes(&self, experiment: &str, webhooks: &str) -> String {
        let store = self
            .redis
            .as_ref()
            .map(|it| format!("store: {}\n", it.url()));
        format!(
            "{}upstreams: {{ current: \"http://{}\", next: \"http://{}\" }}\nuser: {{ header: X-User }}\n\
             experiments:\n  site: {{ control: current, experiment: next, percent: 50, min_duration: 0s{experiment} }}\n\
             metrics: {{ buy: {{ on: POST /buy -> 2xx, detect: 100% }} }}\n{webhooks}",
            store.unwrap_or_default(),
            self.current.address,
            self.next.address
        )
    }
}

fn act(proxy: &Proxy, action: &str, body: &str) -> u16 {
    let path = format!("/admin/experiments/site/{action}");
    Client::admin(proxy.admin).post(&path, "", body).status
}

/// Lets so many users of control and of the experiment come, of whom so many buy.
fn come(proxy: &Proxy, prefix: &str, [control, experiment]: [(usize, usize); 2]) {
    let half = Weight::new(50.0).unwrap();
    let split = Split::new(
        "site",
        Share::ALL,
        [("control", half), ("experiment", half)],
    );
    let mut client = proxy.client();
    let mut left = [control.0, experiment.0];
    let mut buying = [control.1, experiment.1];
    for number in 0.. {
        if left == [0, 0] {
            break;
        }
        let user = format!("{prefix}-{number}");
        let group = split
            .assign(UserId::new(user.as_bytes()).unwrap())
            .unwrap()
            .0;
        if left[group] == 0 {
            continue;
        }
        left[group] -= 1;
        let header = format!("X-User: {user}\r\n");
        client.get("/", &header);
        if buying[group] > 0 {
            buying[group] -= 1;
            client.post("/buy", &header, "");
        }
    }
}

fn metric(proxy: &Proxy, name: &str) -> f64 {
    let metrics = proxy.ask("/admin/metrics").text();
    let sum = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix("watershed_")?.strip_prefix(name)?;
        let is_it = rest.starts_with(['{', ' ']);
        is_it.then(|| rest.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
    });
    sum.sum()
}

/// Waits until so many analyses have begun and ended.
fn analyzed(proxy: &Proxy) {
    let enough = metric(proxy, "analyses_total") + 3.0;
    until("analyses", || {
        let count = metric(proxy, "analyses_total");
        (count >= enough).then_some(()).ok_or(count)
    });
}

fn experiment(proxy: &Proxy) -> Value {
    proxy.results()["experiments"][0].clone()
}
