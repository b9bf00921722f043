//! `request_id:` and `trace:`: request IDs, traces, and the collector of spans.

use super::logging::{SHARE, share};
use super::plan::{EndpointAddress, Otlp, Tracing, Transport};
use super::reader::Node;
use super::tls::{self, Watched};
use super::upstreams::is_itself;
use crate::experiment::assign::Share;
use crate::features::Feature;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use std::net::SocketAddr;

const OTLP: &str = "the address of a collector such as http://127.0.0.1:4318, true (the address in OTEL_EXPORTER_OTLP_ENDPOINT), or { to, service, headers, tls }";
const TO: &str = "an address such as http://127.0.0.1:4318 (or https://) of OTLP over HTTP; /v1/traces is appended";
const VALUE: &str = "a text; or ${NAME}, or file:PATH";

/// The default address of OTLP over HTTP.
const USUAL: &str = "http://localhost:4318";
const PATH: &str = "/v1/traces";
/// Headers of a post that the file must not set, because they describe its body.
const OURS: &[&str] = &[
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "transfer-encoding",
];

/// Reads request IDs and traces. With an access log, requests have an ID by default.
pub(super) fn read(
    root: &Node<'_>,
    logged: bool,
    listen: SocketAddr,
    watched: &mut Watched,
) -> Tracing {
    let request_id = root.get("request_id").and_then(|node| node.boolean());
    let mut tracing = Tracing {
        request_id: request_id.unwrap_or(logged),
        start: None,
        otlp: None,
    };
    let Some(node) = root.get("trace") else {
        return tracing;
    };
    if !node.is_map() {
        tracing.start = match node.flag() {
            Some(true) => Some(Share::ALL),
            Some(false) => None,
            None => share(&node),
        };
        return tracing;
    }
    node.keys(&[("sample", SHARE), ("otlp", OTLP)]);
    let sample = node.get("sample").and_then(|node| share(&node));
    tracing.start = Some(sample.unwrap_or(Share::ALL));
    tracing.otlp = node
        .get("otlp")
        .and_then(|node| otlp(&node, listen, watched));
    tracing
}

fn otlp(node: &Node<'_>, listen: SocketAddr, watched: &mut Watched) -> Option<Otlp> {
    if node.flag() == Some(false) {
        return None;
    }
    node.needs(
        Feature::Otlp,
        "leave `otlp` out (trace headers are passed on without it)",
    );
    let to = match node.is_map() {
        true => {
            node.keys(&[
                ("to", TO),
                ("service", "the service name of the spans"),
                (
                    "headers",
                    "a name for each header of a post, then its value",
                ),
                (
                    "tls",
                    "{ ca, cert, key, name }, for a collector at https://",
                ),
            ]);
            match node.get("to") {
                Some(to) => collector(&to),
                None => by_environment(node),
            }
        }
        false if node.flag().is_some() => by_environment(node),
        false => collector(node),
    };
    // All keys are read, so that all errors are reported.
    let service = node.get("service").and_then(|node| {
        node.read("a name of 1 to 255 bytes", |text| {
            (1..=255).contains(&text.len()).then(|| text.into())
        })
    });
    let headers = node.get("headers").map(|node| headers(&node));
    let to = to?;
    let over_tls = to.scheme_str() == Some("https");
    if let Some(tls) = node.get("tls").filter(|_| !over_tls) {
        tls.problem(
            "the collector is reached without TLS",
            "write https:// in its address, or leave `tls` out",
        );
    }
    if is_itself(host(&to), port(&to), listen) {
        node.problem(
            "this is an address of watershed itself",
            "each post would be a traced request: write the collector's address",
        );
    }
    Some(Otlp {
        endpoint: EndpointAddress {
            socket: None,
            is_srv: false,
            ip: None,
            transport: match over_tls {
                true => Transport::Https(tls::upstream(node, watched)?),
                false => Transport::Http,
            },
            host: host(&to).into(),
            port: port(&to),
        },
        to,
        service,
        headers: headers.unwrap_or_default(),
    })
}

fn collector(node: &Node<'_>) -> Option<Uri> {
    node.read(TO, |text| with_path(address(text)?))
}

/// Reads the address in the environment, by OpenTelemetry's rules.
fn by_environment(node: &Node<'_>) -> Option<Uri> {
    let said = |name| {
        let text = (node.reading.environment)(name)?;
        (!text.is_empty()).then_some((name, text))
    };
    let (name, found) = if let Some((name, text)) = said("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
        (name, address(&text))
    } else if let Some((name, text)) = said("OTEL_EXPORTER_OTLP_ENDPOINT") {
        (name, address(&text).and_then(with_path))
    } else {
        return address(USUAL).and_then(with_path);
    };
    if found.is_none() {
        // Its value may hold a password.
        node.problem(format!("{name} in the environment is not an address"), TO);
    }
    found
}

fn address(text: &str) -> Option<Uri> {
    let uri: Uri = text.parse().ok()?;
    let authority = uri.authority()?.as_str();
    let port_written = authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.contains(']'));
    let sound = matches!(uri.scheme_str(), Some("http" | "https"))
        && uri.query().is_none()
        && !authority.contains('@')
        && !host(&uri).is_empty()
        && (!port_written || uri.port_u16().is_some_and(|port| port > 0));
    sound.then_some(uri)
}

/// Appends the path of traces, unless the address ends with it.
fn with_path(uri: Uri) -> Option<Uri> {
    let path = uri.path().trim_end_matches('/');
    if path.ends_with(PATH) {
        return Some(uri);
    }
    let path = format!("{path}{PATH}");
    let mut parts = uri.into_parts();
    parts.path_and_query = path.parse().ok();
    Uri::from_parts(parts).ok()
}

fn host(uri: &Uri) -> &str {
    let host = uri.host().unwrap_or_default();
    host.trim_start_matches('[').trim_end_matches(']')
}

fn port(uri: &Uri) -> u16 {
    let usual = match uri.scheme_str() {
        Some("https") => 443,
        _ => 80,
    };
    uri.port_u16().unwrap_or(usual)
}

/// Reads header fields of posts. Their values are secrets.
pub(super) fn headers(node: &Node<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, node) in node.named("header") {
        let known = name.parse::<HeaderName>().ok();
        let Some(known) = known.filter(|name| !OURS.contains(&name.as_str())) else {
            node.problem(
                format!("a header {name:?} cannot be sent"),
                "letters, digits and -; no header that describes the body",
            );
            continue;
        };
        let Some(value) = node.secret(VALUE) else {
            continue;
        };
        match HeaderValue::try_from(value.reveal()) {
            Ok(mut value) => {
                value.set_sensitive(true);
                headers.insert(known, value);
            }
            Err(_) => node.problem("not a valid header value", VALUE),
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use crate::config::plan::Tracing;
    use crate::experiment::assign::Share;
    use std::path::Path;

    fn read(trace: &str, environment: &[(&str, &str)]) -> Result<Tracing, Vec<String>> {
        let text =
            format!("listen: 127.0.0.1:8080\nupstreams: {{ a: \"http://127.0.0.1:1\" }}\n{trace}");
        let of = |name: &str| {
            let found = environment.iter().find(|(known, _)| *known == name)?;
            Some(found.1.to_owned())
        };
        let read = crate::config::parse(&text, Path::new("routes.yaml"), &of);
        read.map(|plan| plan.tracing).map_err(|invalid| {
            let diagnostics = invalid.diagnostics.iter();
            diagnostics
                .map(|it| format!("{}: {}", it.key, it.found))
                .collect()
        })
    }

    #[track_caller]
    fn goes(trace: &str, environment: &[(&str, &str)], to: Option<&str>) {
        let tracing = read(&format!("trace: {trace}"), environment).unwrap();
        let found = tracing.otlp.map(|otlp| otlp.to.to_string());
        assert_eq!(found.as_deref(), to);
    }

    #[track_caller]
    fn fails(trace: &str, environment: &[(&str, &str)], diagnostics: &[&str]) {
        let found = read(&format!("trace: {trace}"), environment).unwrap_err();
        assert_eq!(found, diagnostics);
    }

    #[test]
    fn earlier_forms_mean_the_same() {
        let start = |trace: &str| {
            let tracing = read(trace, &[]).unwrap();
            assert!(tracing.otlp.is_none());
            tracing.start
        };
        assert_eq!(start(""), None);
        assert_eq!(start("trace: false"), None);
        assert_eq!(start("trace: true"), Some(Share::ALL));
        assert_eq!(start("trace: 10%"), Share::new(0.1));
        assert_eq!(start("trace: { sample: 10% }"), Share::new(0.1));
        assert_eq!(start("trace: { otlp: false }"), Some(Share::ALL));
    }

    #[test]
    fn address_comes_from_the_file_or_the_environment() {
        let with = |to: &str| format!("{{ otlp: \"{to}\" }}");
        let usual = Some("http://localhost:4318/v1/traces");
        goes(&with("http://a:1"), &[], Some("http://a:1/v1/traces"));
        goes(
            &with("http://[::1]:1/"),
            &[],
            Some("http://[::1]:1/v1/traces"),
        );
        // The test must not depend on the roots of this machine.
        let folder = tempfile::TempDir::new().unwrap();
        let ca = folder.path().join("ca.pem");
        let own = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        std::fs::write(&ca, own.cert.pem()).unwrap();
        let tls = format!("tls: {{ ca: \"{}\" }}", ca.display());
        goes(
            &format!("{{ otlp: {{ to: \"https://a/otlp\", {tls} }} }}"),
            &[],
            Some("https://a/otlp/v1/traces"),
        );
        goes(&with("http://a/v1/traces"), &[], Some("http://a/v1/traces"));
        goes("{ otlp: true }", &[], usual);
        goes("{ otlp: { service: shop } }", &[], usual);
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://b:2/c");
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://d:3/e");
        goes(
            &with("http://a:1"),
            &[all, own],
            Some("http://a:1/v1/traces"),
        );
        goes("{ otlp: true }", &[all], Some("http://b:2/c/v1/traces"));
        goes("{ otlp: true }", &[all, own], Some("http://d:3/e"));
        goes("{ otlp: true }", &[(all.0, "")], usual);
        goes("{ otlp: false }", &[all], None);
    }

    #[test]
    fn all_errors_are_reported() {
        for to in [
            "a:4318",
            "ftp://a",
            "http://",
            "http://a:0",
            "http://a:99999",
            "http://u:p@a",
            "http://a?b=c",
        ] {
            // A password is not shown.
            let found = format!("trace.otlp: found {to:?}").replace("u:p@", "(secret)@");
            fails(&format!("{{ otlp: \"{to}\" }}"), &[], &[&found]);
        }
        fails(
            "{ sample: 10, otlp: { to: 1, servce: a, service: \"\", headers: { \"a b\": c, Host: d, e: \"${NONE}\" } } }",
            &[],
            &[
                "trace.sample: found \"10\"",
                "trace.otlp.to: found \"1\"",
                "trace.otlp.servce: unknown key",
                "trace.otlp.service: found \"\"",
                "trace.otlp.headers.a b: a header \"a b\" cannot be sent",
                "trace.otlp.headers.Host: a header \"Host\" cannot be sent",
                "trace.otlp.headers.e: the environment has no NONE",
            ],
        );
        fails(
            "{ otlp: { to: \"http://a\", tls: { name: a } } }",
            &[],
            &["trace.otlp.tls: the collector is reached without TLS"],
        );
        fails(
            "{ otlp: \"http://127.0.0.1:8080\" }",
            &[],
            &["trace.otlp: this is an address of watershed itself"],
        );
        let secret = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:secret@a");
        fails(
            "{ otlp: true }",
            &[secret],
            &["trace.otlp: OTEL_EXPORTER_OTLP_ENDPOINT in the environment is not an address"],
        );
    }

    #[test]
    fn headers_are_secret() {
        let trace = "trace: { otlp: { headers: { X-Key: \"${KEY}\" } } }";
        let otlp = read(trace, &[("KEY", "hidden")]).unwrap().otlp.unwrap();
        assert_eq!(otlp.headers["x-key"], "hidden");
        assert!(!format!("{otlp:?}").contains("hidden"));
    }
}
