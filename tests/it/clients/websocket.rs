//! A WebSocket library at both ends.

use super::{Site, python, say, script};
use crate::support::proxy::Proxy;
use crate::support::until;

#[test]
fn websocket_messages_fragments_pings_and_close_are_forwarded() {
    let site = Site::start(&["site.py", "current"]);
    let proxy = Proxy::start(&format!(
        "upstreams: {{ current: \"http://{}\" }}\ntimeouts: {{ idle: 1s, head: 1s, body: 1s, response: 1s }}",
        site.address
    ));
    let file = script("websocket.py");
    // The client passes without a proxy, so it must pass with one.
    let direct = site.address.to_string();
    assert_eq!(
        say(&python(), &[&file, &direct, "direct"]).trim(),
        "all is well"
    );
    assert_eq!(
        say(&python(), &[&file, &proxy.public.to_string()]).trim(),
        "all is well"
    );
    until("both ends told why it ended", || {
        let seen = site.seen();
        let closed = seen
            .iter()
            .filter(|line| line.contains("{\"closed\": 4321}"));
        if closed.count() == 2 {
            Ok(())
        } else {
            Err(seen)
        }
    });
}
