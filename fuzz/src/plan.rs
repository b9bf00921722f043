//! A configuration for targets whose subject needs one.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use watershed::config::{self, plan::Plan};
use watershed::proxy::fuzzing::headers::PlanHeaders;

/// The client's address; trusted by the second plan.
pub const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3));

const ROUTES: &str = "
listen: 127.0.0.1:1
user: [{ header: x-user }, { cookie: uid }, { query: u }]
trust: TRUST
request_id: true
trace: 50%
upstreams: { a: http://127.0.0.1:3, b: http://127.0.0.1:2 }
experiments:
  told: { match: { headers: { x-beta: yes } }, groups: { control: { weight: 1 }, experiment: { weight: 1 } } }
  site: { match: { path: /a/** }, control: a, experiment: b, percent: 50 }
  host: { match: { host: b.example }, control: a, experiment: b, percent: 10 }
metrics: { buy: POST /buy -> 2xx, sold: { kind: mean, event: purchase, value: amount } }
";

/// Plans that differ in whether they trust [`PEER`], each with its words.
struct Plans([(Plan, PlanHeaders); 2]);

/// Gives a plan, made once, that trusts [`PEER`] or not.
pub fn with<T>(trusted: bool, use_it: impl FnOnce(&Plan, &PlanHeaders) -> T) -> T {
    thread_local! {
        static PLANS: Plans = Plans::new();
    }
    PLANS.with(|plans| {
        let (plan, words) = &plans.0[usize::from(trusted)];
        use_it(plan, words)
    })
}

impl Plans {
    fn new() -> Plans {
        Plans(["[]", "[10.0.0.0/8]"].map(|trust| {
            let text = ROUTES.replace("TRUST", trust);
            let plan = config::parse(&text, Path::new("routes.yaml"), &|_| None);
            let plan = plan.unwrap_or_else(|error| panic!("{error:?}"));
            let words = PlanHeaders::new(&plan);
            (plan, words)
        }))
    }
}
