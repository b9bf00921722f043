//! What the admin API reports of endpoints.

use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::until;
use serde_json::Value;
use std::net::{SocketAddr, TcpListener};

/// Where nobody listens yet.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn endpoints(proxy: &Proxy, upstream: usize) -> Value {
    let answer = proxy.ask("/admin/upstreams");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["upstreams"][upstream]["endpoints"].clone()
}

#[test]
fn endpoints_are_reported_with_their_state_and_its_reason() {
    let origin = Origin::start("a");
    let (sick, gone) = (free_address(), free_address());
    let proxy = Proxy::start(&format!(
        "upstreams:
  checked: {{ endpoints: [\"http://{0}\", \"http://{sick}\"], health: {{ path: /, interval: 100ms, successes: 1, failures: 1 }} }}
  plain: {{ endpoints: [\"http://{0}\", \"http://{gone}\"], balance: round_robin }}
experiments: {{ site: {{ control: plain, experiment: checked, percent: 1 }} }}
metrics: {{ buy: \"POST /buy -> 2xx\" }}
default: plain
",
        origin.address
    ));
    let unhealthy = until("an unhealthy endpoint", || {
        let found = endpoints(&proxy, 0);
        match found[1]["state"] == "unhealthy" {
            true => Ok(found),
            false => Err(found),
        }
    });
    assert_eq!(unhealthy[1]["address"], sick.to_string());
    assert!(unhealthy[1]["since"].is_string(), "{unhealthy}");
    let reason = unhealthy[1]["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("/: ") && reason.contains("refused"),
        "{reason}"
    );
    assert_eq!(unhealthy[0]["state"], "healthy");
    assert_eq!(
        (&unhealthy[0]["since"], &unhealthy[0]["reason"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(unhealthy[0]["checked"], true);

    // Nobody notices but who looks here: the other endpoint serves.
    let mut client = proxy.client();
    let ejected = until("an ejected endpoint", || {
        assert_eq!(client.get("/", "").status, 200);
        let found = endpoints(&proxy, 1);
        match found[1]["state"] == "ejected" {
            true => Ok(found),
            false => Err(found),
        }
    });
    let reason = ejected[1]["reason"].as_str().unwrap();
    assert!(reason.contains("refused"), "{reason}");
    assert!(ejected[1]["ejections"].as_u64() > Some(0), "{ejected}");
    assert_eq!(ejected[1]["checked"], false);
    assert_eq!(ejected[0]["state"], "healthy");

    let page = Client::admin(proxy.admin).get("/admin/upstreams", "Accept: text/html\r\n");
    let row = format!(
        ">http://{gone}</td><td data-label=\"state\"><strong class=\"bad\">ejected</strong></td>"
    );
    assert!(page.text().contains(&row), "{}", page.text());

    let _recovered = (Origin::on("a", sick), Origin::on("a", gone));
    let all = until("healthy endpoints", || {
        assert_eq!(client.get("/", "").status, 200);
        let found = [endpoints(&proxy, 0), endpoints(&proxy, 1)];
        let is_well = found.iter().all(|it| it[1]["state"] == "healthy");
        if is_well { Ok(found) } else { Err(found) }
    });
    assert!(all[0][1]["since"].is_string(), "{all:?}");
    assert_eq!(all[0][1]["reason"], Value::Null);
}
