//! gRPC: calls, streams, statuses in trailers, deadlines and cancellation, with HTTP/2 on both
//! sides.

use super::{Site, python, say, script};
use crate::support::proxy::Proxy;

#[test]
fn grpc_calls_streams_and_statuses_are_forwarded() {
    let site = Site::start(&["grpc_site.py", "serve"]);
    // The client passes without a proxy, so it must pass with one.
    for through in [false, true] {
        let proxy = Proxy::start(&format!(
            "upstreams: {{ current: \"h2c://{}\" }}\nuser: {{ header: x-user }}\n\
             experiments: {{ e: {{ control: current, experiment: current, percent: 50 }} }}",
            site.address
        ));
        let address = if through { proxy.public } else { site.address };
        let file = script("grpc_site.py");
        let said = say(&python(), &[&file, "call", &address.to_string()]);
        assert_eq!(said.trim(), "all is well");
        if through {
            let results = proxy.results();
            let groups = results["experiments"][0]["groups"].as_array().unwrap();
            let users = groups.iter().map(|group| group["users"].as_u64().unwrap());
            assert!(users.sum::<u64>() >= 1, "{results:#}");
        }
    }
}
