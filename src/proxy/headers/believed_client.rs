//! Who the client is: the peer, or whom a peer in `trust` names. PURE.

use crate::config::plan::Plan;
use crate::experiment::http_view::HeaderView;
use crate::proxy::headers::hop_by_hop::{FORWARDED_FOR, FORWARDED_PROTO};
use http::header::FORWARDED;
use smallvec::SmallVec;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is believed of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BelievedClient {
    /// Its address.
    pub address: IpAddr,
    /// Whether it uses TLS, here or at a trusted peer.
    pub over_tls: bool,
}

/// What a proxy says of the client that it served: its address and whether it used TLS, as far as they are
/// known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Hop {
    address: Option<IpAddr>,
    over_tls: Option<bool>,
}

/// Whether this peer is believed.
pub(crate) fn trusts(plan: &Plan, peer: IpAddr) -> bool {
    plan.trust.iter().any(|network| network.contains(&peer))
}

/// Returns the client of a request that came from `peer`, over TLS if `secure`. It is the last address that
/// a trusted peer names and that is not trusted itself. `X-Forwarded-For` is read before `Forwarded`.
pub fn believed_client<'a>(
    plan: &Plan,
    fields: impl HeaderView<'a>,
    (peer, secure): (IpAddr, bool),
) -> BelievedClient {
    let mut client = BelievedClient {
        address: peer,
        over_tls: secure,
    };
    if !trusts(plan, peer) {
        return client;
    }
    let hops = match fields.first(&FORWARDED_FOR) {
        Some(_) => forwarded_for(fields),
        None => forwarded(fields),
    };
    let mut named_tls = None;
    for hop in hops.into_iter().rev() {
        let Some(address) = hop.address else {
            break;
        };
        client.address = address;
        named_tls = hop.over_tls;
        if !trusts(plan, address) {
            break;
        }
    }
    let named_tls = first_proto(fields).or(named_tls);
    client.over_tls |= named_tls.unwrap_or(false);
    client
}

type Hops = SmallVec<[Hop; 4]>;

/// The addresses in `X-Forwarded-For`, in order.
fn forwarded_for<'a>(fields: impl HeaderView<'a>) -> Hops {
    let name = FORWARDED_FOR;
    let items = fields.all(&name).flat_map(elements);
    let hop = |item| Hop {
        address: address(item),
        over_tls: None,
    };
    items.map(hop).collect()
}

/// The elements of `Forwarded` (RFC 7239, 4), in order.
fn forwarded<'a>(fields: impl HeaderView<'a>) -> Hops {
    let elements = fields.all(&FORWARDED).flat_map(elements);
    let hop = |element| {
        let mut hop = Hop::default();
        for pair in parts(element, b';') {
            let Some(equals) = memchr::memchr(b'=', pair) else {
                continue;
            };
            let (name, value) = (pair[..equals].trim_ascii(), &pair[equals + 1..]);
            if name.eq_ignore_ascii_case(b"for") {
                hop.address = address(value);
            } else if name.eq_ignore_ascii_case(b"proto") {
                hop.over_tls = Some(is_tls(value));
            }
        }
        hop
    };
    elements.map(hop).collect()
}

/// The elements of a list. Empty ones are none (RFC 9110, 5.6.1).
fn elements(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    parts(line, b',').filter(|element| !element.trim_ascii().is_empty())
}

/// Whether the first item of `X-Forwarded-Proto` names TLS: each proxy adds its own behind.
fn first_proto<'a>(fields: impl HeaderView<'a>) -> Option<bool> {
    let line = fields.first(&FORWARDED_PROTO)?;
    parts(line, b',').next().map(is_tls)
}

/// Some proxies name WebSockets.
fn is_tls(proto: &[u8]) -> bool {
    let proto = unquoted(proto);
    proto.eq_ignore_ascii_case(b"https") || proto.eq_ignore_ascii_case(b"wss")
}

/// The parts between separators that are not in quotation marks.
fn parts(line: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut is_quoted = false;
    line.split(move |&byte| {
        is_quoted ^= byte == b'"';
        byte == separator && !is_quoted
    })
}

fn unquoted(text: &[u8]) -> &[u8] {
    match text.trim_ascii() {
        [b'"', inside @ .., b'"'] => inside.trim_ascii(),
        text => text,
    }
}

/// Reads an address, with or without a port (RFC 7239, 6), brackets, quotation marks and a zone. `None` for
/// `unknown` and for names.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(unquoted(text)).ok()?;
    let address = if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        if !port.is_empty() && !port.strip_prefix(':').is_some_and(is_port) {
            return None;
        }
        let address = address.split('%').next().unwrap_or_default();
        IpAddr::V6(address.parse::<Ipv6Addr>().ok()?)
    } else if let Some((address, port)) = text.split_once(':')
        && is_port(port)
        && let Ok(address) = address.parse::<Ipv4Addr>()
    {
        IpAddr::V4(address)
    } else {
        text.split('%').next().unwrap_or_default().parse().ok()?
    };
    Some(address.to_canonical())
}

/// A number, or a word that stands for one (RFC 7239, 6).
fn is_port(text: &str) -> bool {
    let is_word = text.starts_with('_') && text.len() > 1;
    is_word || (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use http::HeaderMap;
    use std::path::Path;

    #[track_caller]
    fn check(lines: &[(&'static str, &str)], expected: &str, over_tls: bool) {
        let routes = "upstreams: { a: http://127.0.0.1:3 }\ntrust: [ 10.0.0.0/8, \"fd00::/8\" ]\n";
        let plan = config::parse(routes, Path::new("routes.yaml"), &|_| None).unwrap();
        let mut fields = HeaderMap::new();
        for (name, value) in lines {
            fields.append(*name, value.parse().unwrap());
        }
        let peer = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        let found = believed_client(&plan, &fields, (peer, false));
        let address = expected.parse().unwrap();
        assert_eq!(found, BelievedClient { address, over_tls }, "{lines:?}");
        let stranger = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9));
        let found = believed_client(&plan, &fields, (stranger, false));
        assert_eq!(
            (found.address, found.over_tls),
            (stranger, false),
            "{lines:?}"
        );
    }

    #[test]
    fn addresses_have_ports_brackets_and_quotation_marks() {
        let of = |value: &str, expected: &str| {
            check(&[("x-forwarded-for", value)], expected, false);
            let quoted = format!("for=\"{}\"", value.trim_matches('"'));
            check(&[("forwarded", &quoted)], expected, false);
        };
        of("203.0.113.7", "203.0.113.7");
        of("203.0.113.7:4711", "203.0.113.7");
        of("\"203.0.113.7:4711\"", "203.0.113.7");
        of("2001:db8::1", "2001:db8::1");
        of("[2001:db8::1]", "2001:db8::1");
        of("[2001:db8::1]:4711", "2001:db8::1");
        of("\"[2001:db8::1]:_port\"", "2001:db8::1");
        of("fe80::1%eth0", "fe80::1");
        of("[fe80::1%25eth0]:1", "fe80::1");
        of("::ffff:203.0.113.7", "203.0.113.7");
        // What is no address ends the search.
        for text in [
            "unknown",
            "_hidden",
            "",
            "203.0.113.7:",
            "203.0.113.7:x",
            "[203.0.113.7]",
            "[2001:db8::1",
            "[2001:db8::1]x",
            "example.com",
            "1.2.3",
        ] {
            of(text, "10.0.0.1");
        }
    }

    #[test]
    fn last_address_that_is_not_trusted_is_the_client() {
        let of =
            |value: &str, expected: &str| check(&[("x-forwarded-for", value)], expected, false);
        of("198.51.100.1, 203.0.113.7:1, 10.0.0.2", "203.0.113.7");
        of("198.51.100.1, unknown, 10.0.0.2", "10.0.0.2");
        of("10.0.0.3, [fd00::1]:80", "10.0.0.3");
        let lines = [
            ("x-forwarded-for", "198.51.100.1"),
            ("x-forwarded-for", "203.0.113.7"),
        ];
        check(&lines, "203.0.113.7", false);
        let line = "for=198.51.100.1;proto=http, For=\"203.0.113.7:1\";by=10.0.0.9;Proto=HTTPS, for=10.0.0.2;proto=http";
        check(&[("forwarded", line)], "203.0.113.7", true);
        check(
            &[("forwarded", "for=\"a,b;c\";proto=https")],
            "10.0.0.1",
            false,
        );
        check(
            &[("forwarded", "proto=https;for=203.0.113.7;host=\"a,b\"")],
            "203.0.113.7",
            true,
        );
        check(&[("forwarded", "proto=https")], "10.0.0.1", false);
        // The client may have sent what the balancer does not write.
        let both = [
            ("forwarded", "for=198.51.100.1;proto=https"),
            ("x-forwarded-for", "203.0.113.7"),
        ];
        check(&both, "203.0.113.7", false);
    }

    #[test]
    fn first_protocol_of_a_list_is_that_of_the_client() {
        for (value, over_tls) in [
            ("https", true),
            ("HTTPS , http", true),
            ("https,http", true),
            ("http, https", false),
            ("\"https\"", true),
            ("wss", true),
            ("httpsx", false),
            ("", false),
        ] {
            check(&[("x-forwarded-proto", value)], "10.0.0.1", over_tls);
        }
        let both = [
            ("x-forwarded-proto", "http"),
            ("forwarded", "for=203.0.113.7;proto=https"),
        ];
        check(&both, "203.0.113.7", false);
    }
}
