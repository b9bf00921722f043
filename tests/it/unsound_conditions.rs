//! Conditions that can never hold, cookie domains that browsers refuse, and the messages about them.

use std::path::Path;
use watershed::config::{self, plan::Plan};

fn parse(more: &str) -> Result<Plan, String> {
    let text = format!("upstreams: {{ a: http://127.0.0.1:1, b: http://127.0.0.1:2 }}\n{more}\n");
    let plan = config::parse(&text, Path::new("routes.yaml"), &|_| None);
    plan.map_err(|unsound| unsound.to_string())
}

fn with_match(conditions: &str) -> Result<Plan, String> {
    parse(&format!(
        "experiments: {{ e: {{ match: {conditions}, control: a, experiment: b, percent: 50 }} }}"
    ))
}

#[track_caller]
fn sound(conditions: &str) {
    let plan = with_match(conditions);
    let plan = plan.unwrap_or_else(|unsound| panic!("{conditions}: {unsound}"));
    assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
}

#[track_caller]
fn unsound(conditions: &str, place: &str, found: &str) {
    let said = with_match(conditions).expect_err(conditions);
    assert_eq!(said.matches("error: ").count(), 1, "one sentence: {said}");
    let place = format!(": experiments.e.match{place}: ");
    assert!(
        said.contains(&place) && said.contains(found),
        "{conditions}: {said}"
    );
}

#[test]
fn conditions_that_may_hold_are_valid() {
    for conditions in [
        "/",
        "[ /a, /b ]",
        "{ path: [ /a, { regex: \"^/b\" } ], host: [ a.example, \"*.b.example\" ], method: [ GET, PUT ] }",
        "{ headers: { x-a: true, x-b: false, x-c: [ \"1\", \"2*\" ] }, header: { x-d: \"\" }, query: { a: 1 } }",
        "{ network: [ 10.0.0.0/8, 192.0.2.7, \"2001:db8::/32\" ], language: [ de, pt-BR ], device: [ phone, tablet ] }",
        "{ any: [ /a, { not: { host: b } } ], all: [ { path: /** }, { method: GET } ] }",
        "{ not: [ /a, /b ] }",
        "{ path: /a/**, not: /a/b }",
        "{ headers: { x-a: \"1\" }, not: { headers: { x-a: \"2\" } } }",
        "{ host: \"[::1]\" }",
        "\"/[a-c]/x\"",
        "{ query: { q: \" a;b \" }, headers: { x: \"a b;c\", y: \"* \u{fc}*\" }, cookie: { c: \" a b\" } }",
        "{ any: { any: { any: { any: { any: { any: { any: { any: /a } } } } } } } }",
    ] {
        sound(conditions);
    }
}

#[test]
fn conditions_that_can_never_hold_are_errors() {
    unsound("\"/a?b=c\"", "", "a path has no `?`");
    unsound("\"/a#b\"", "", "clients do not send `#`");
    unsound("{ path: [ /a, \"/b?\" ] }", ".path.1", "a path has no `?`");
    unsound("/a//b", "", "are removed from paths");
    unsound("/a/../b", "", "are removed from paths");
    unsound(
        "{ path: \"https://a.example/\" }",
        ".path",
        "a path that begins with /",
    );
    unsound("\"/[\u{e9}]\"", "", "several bytes");
    unsound("\"/{a,b\"", "", "no glob");
    unsound("{ path: [] }", ".path", "an empty list");
    unsound("[]", "", "an empty list");
    unsound("{ any: [] }", ".any", "an empty list");
    unsound("{ query: { a: [] } }", ".query.a", "an empty list");
    unsound(
        "{ host: m\u{fc}nchen.example }",
        ".host",
        "write xn--mnchen-3ya.example",
    );
    unsound(
        "{ host: \"*.\u{4f8b}\u{3048}.jp\" }",
        ".host",
        "write *.xn--r8jz45g.jp",
    );
    unsound(
        "{ host: \"a.example:8080\" }",
        ".host",
        "ports are not compared",
    );
    unsound("{ host: \"*\" }", ".host", "`*` stands only in front");
    unsound(
        "{ host: [ a, \"shop.*.example\" ] }",
        ".host.1",
        "`*` stands only in front",
    );
    unsound("{ host: .example.com }", ".host", "a host without port");
    unsound(
        "{ host: \"https://a.example\" }",
        ".host",
        "a host without port",
    );
    unsound(
        "{ headers: { \"x-*\": true } }",
        ".headers.x-*",
        "not a header name",
    );
    unsound(
        "{ cookie: { \"a*\": true } }",
        ".cookie.a*",
        "not a cookie's name",
    );
    unsound(
        "{ query: { \"a*\": true } }",
        ".query.a*",
        "not the name of a query parameter",
    );
    unsound("{ method: \"*\" }", ".method", "a method in capitals");
    unsound("{ language: de_AT }", ".language", "such as de");
    unsound("{ language: \"de-*\" }", ".language", "such as de");
    unsound("{ device: watch }", ".device", "one of: mobile");
    unsound(
        "{ network: 10.0.0.0/33 }",
        ".network",
        "a network or an address",
    );
    unsound(
        "{ path: { regex: \"[\" } }",
        ".path.regex",
        "no regular expression",
    );
    unsound(
        "{ path: { regex: \"(?=x)\" } }",
        ".path.regex",
        "no look-around",
    );
    unsound(
        "{ path: { regex: \"[ab]*a[ab]{60}\" } }",
        ".path.regex",
        "too large",
    );
    unsound(
        "{ path: { regex: \"(x{1,100}){1,100}\" } }",
        ".path.regex",
        "too large",
    );
    unsound(
        "{ path: { regex: /\u{e9} } }",
        ".path.regex",
        "percent-encoded",
    );
    unsound("\"/[ ]x\"", "", "several bytes");
    for glob in ["/[z-a]", "/a/{b,[/]}"] {
        unsound(&format!("\"{glob}\""), "", "no character of a path");
    }
    for name in ["headers", "cookie"] {
        let place = format!(".{name}.x");
        unsound(
            &format!("{{ {name}: {{ x: \"a \" }} }}"),
            &place,
            "spaces around",
        );
        let breaks = format!("{{ {name}: {{ x: [ b, \"a\\nb\" ] }} }}");
        unsound(&breaks, &format!("{place}.1"), "no line breaks");
    }
    unsound("{ header: { x: \" a*\" } }", ".header.x", "spaces around");
    unsound("{ cookie: { x: \"a;b\" } }", ".cookie.x", "no `;`");
    unsound("{ path: {} }", ".path", "`regex` is missing");
    unsound("{ paths: /a }", ".paths", "unknown key");
    let deep = format!("{}/a{}", "{ not: ".repeat(9), " }".repeat(9));
    unsound(&deep, &".not".repeat(9), "nested more than 8 times");
    let many: Vec<String> = (0..1_001).map(|number| format!("/{number}")).collect();
    unsound(&format!("[ {} ]", many.join(", ")), "", "1001 conditions");
}

#[test]
fn contradictions_are_errors() {
    for conditions in [
        "{ path: /a, all: [ /b ] }",
        "{ all: [ { host: a }, { host: b } ] }",
        "{ all: [ { method: GET }, { method: [ PUT, POST ] } ] }",
        "{ path: /a/b, not: /a/** }",
        "{ headers: { x-a: true }, header: { x-a: false } }",
        "{ network: 10.1.0.0/16, not: { network: 10.0.0.0/8 } }",
        "{ device: phone, not: { device: [ mobile, tablet ] } }",
        "{ not: { path: [ /a, /** ] }, path: /b }",
        "{ any: [ { path: /a, not: /a } ] }",
        "{ not: { any: [ { method: GET }, { not: { method: GET } } ] } }",
        "{ cookie: { plan: [ a, b ] }, not: [ { cookie: { plan: a } }, { cookie: { plan: b } } ] }",
        "{ not: { device: [ mobile, tablet, desktop, other ] } }",
    ] {
        unsound(conditions, "", "no request can meet these conditions");
    }
}

/// The warnings about a file with these experiments and routes.
#[track_caller]
fn warnings(more: &str) -> Vec<String> {
    let plan = parse(more).unwrap_or_else(|unsound| panic!("{more}: {unsound}"));
    plan.warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn what_earlier_experiments_serve_together_is_named() {
    let split = "control: a, experiment: b";
    let file = |third: &str| {
        format!(
            "experiments:
  one: {{ match: {{ method: GET }}, {split} }}
  two: {{ match: {{ path: /a/**, not: {{ method: GET }} }}, {split} }}
  three: {{ match: {third}, {split} }}"
        )
    };
    let said = warnings(&file("/a/b"));
    assert_eq!(said.len(), 1, "{said:?}");
    let expected = "no user can reach this experiment: `one` and `two` together always choose";
    assert!(said[0].contains(expected), "{said:?}");
    assert_eq!(warnings(&file("/b")), [""; 0]);
    let routes = |path: &str| {
        format!(
            "experiments: {{ one: {{ match: {{ method: GET }}, {split} }} }}
routes: [ {{ match: {{ not: {{ method: [ GET, PUT ] }} }}, upstream: a }}, {{ match: {{ path: {path}, not: {{ method: PUT }} }}, upstream: b }} ]"
        )
    };
    let said = warnings(&routes("/b"));
    let expected = "`routes.0` and the experiment `one` together take all of them";
    assert!(said.len() == 1 && said[0].contains(expected), "{said:?}");
    let cache = "cache: { routes: [ { match: { method: GET }, upstream: \"off\" }, { match: { not: { method: GET } }, upstream: \"off\" }, { match: /a, upstream: \"off\" } ] }";
    let said = warnings(cache);
    let expected = "`cache.routes.0` and `cache.routes.1` together take all of them";
    assert!(said.len() == 1 && said[0].contains(expected), "{said:?}");
}

#[test]
fn experiments_that_admit_nobody_and_ids_in_two_lists_are_named() {
    let of = |more: &str| {
        warnings(&format!(
            "experiments: {{ e: {{ control: a, experiment: b, {more} }} }}"
        ))
    };
    let said = of("traffic: 0%");
    assert!(
        said.len() == 1 && said[0].contains("nobody takes part"),
        "{said:?}"
    );
    for admits in [
        "traffic: 0.1%",
        "traffic: 0%, include: { experiment: [ ann ] }",
        "traffic: 0%, winner: control",
    ] {
        assert_eq!(of(admits), [""; 0], "{admits}");
    }
    let said = of("include: { control: [ ann, \" bob\" ], experiment: [ bob ] }");
    let expected = "`bob` in experiment and in control: they get control";
    assert!(said.len() == 1 && said[0].contains(expected), "{said:?}");
    let folder = tempfile::TempDir::new().unwrap();
    let list = folder.path().join("ids");
    std::fs::write(&list, "bob\nann\ncyd\n").unwrap();
    let said = of(&format!(
        "include: {{ control: [ ann, bob ], experiment: \"file:{}\" }}",
        list.display()
    ));
    assert!(
        said.len() == 1 && said[0].contains("2 of these IDs in experiment"),
        "{said:?}"
    );
}

#[test]
fn metrics_have_the_same_paths() {
    let metric = |rule: &str| parse(&format!("metrics: {{ m: {rule} }}"));
    for rule in [
        "POST /caf\u{e9}/* -> 2xx",
        "{ on: { path: { regex: \"^/a\" } } }",
        "{ on: { header: \"X-Done: y*\" } }",
    ] {
        assert!(metric(rule).is_ok(), "{rule}");
    }
    for (rule, found) in [
        ("\"POST /buy?x=1 -> 2xx\"", "a path has no `?`"),
        ("\"/buy#x\"", "clients do not send `#`"),
        ("{ on: { path: \"/a?\" } }", "a path has no `?`"),
        ("{ on: { path: /a//b } }", "are removed from paths"),
        (
            "{ on: { path: { regex: \"(\" } } }",
            "no regular expression",
        ),
        ("{ on: { header: \"X-*: y\" } }", "`Name` or `Name: value`"),
        (
            "{ event: e, kind: ratio, per: { on: { path: \"/a?\" } } }",
            "a path has no `?`",
        ),
    ] {
        let said = metric(rule).expect_err(rule);
        assert!(said.contains(found), "{rule}: {said}");
    }
}

#[test]
fn cookie_domains_that_browsers_refuse_are_errors() {
    let domain = |domain: &str| parse(&format!("identity: {{ domain: \"{domain}\" }}"));
    let read = |text: &str| domain(text).unwrap().identity.mint.domain;
    assert_eq!(read("example.com").as_deref(), Some("example.com"));
    assert_eq!(
        read(".Shop.example.com").as_deref(),
        Some("shop.example.com")
    );
    for wrong in [
        "com",
        "localhost",
        "co.uk",
        "github.io",
        "127.0.0.1",
        "::1",
        "..example.com",
        "example.com:80",
        "https://example.com",
        "*.example.com",
        "example.com.",
        "m\u{fc}nchen.example",
    ] {
        let said = domain(wrong).expect_err(wrong);
        assert!(
            said.contains("identity.domain: browsers refuse"),
            "{wrong}: {said}"
        );
    }
    let none = parse("identity: { same_site: None, secure: false }").unwrap_err();
    assert!(none.contains("SameSite=None"), "{none}");
}

#[test]
fn cookie_names_that_browsers_or_watershed_use_otherwise_are_checked() {
    let check = |identity: &str, found: &str| {
        let said = parse(&format!("identity: {{ {identity} }}")).expect_err(identity);
        assert!(said.contains(found), "{identity}: {said}");
    };
    let refused = "browsers refuse a cookie named";
    check(
        "name: __Host-id, domain: example.com",
        &format!("identity.domain: {refused}"),
    );
    check(
        "name: __host-id, path: /x",
        &format!("identity.path: {refused}"),
    );
    check(
        "name: __Host-id, secure: false",
        &format!("identity.secure: {refused}"),
    );
    check(
        "name: __Secure-id, secure: false",
        &format!("identity.secure: {refused}"),
    );
    for name in [
        "watershed_groups",
        "watershed_pages",
        "watershed_override",
        "watershed_session",
    ] {
        let found = "watershed has a cookie of this name";
        check(&format!("name: {name}"), &format!("identity.name: {found}"));
        let said = parse(&format!("user: {{ cookie: {name} }}")).expect_err(name);
        assert!(said.contains(found), "{said}");
    }
    // What browsers demand is done without a word in the file.
    let mint = parse("identity: { name: __Host-id }")
        .unwrap()
        .identity
        .mint;
    assert_eq!(mint.secure, Some(true));
    assert!(parse("identity: { name: __Secure-id, path: /x, domain: example.com }").is_ok());
}

#[test]
fn metrics_on_requests_that_are_never_counted_are_errors() {
    for rule in [
        "HEAD /h -> 2xx",
        "TRACE /h",
        "{ on: { method: HEAD, path: /h } }",
    ] {
        let said = parse(&format!("metrics: {{ m: {rule} }}")).expect_err(rule);
        assert!(
            said.contains("HEAD and TRACE requests are never counted"),
            "{said}"
        );
    }
}

#[test]
fn path_of_reported_events_can_be_asked_for() {
    let of = |path: &str| parse(&format!("events: {{ path: \"{path}\" }}"));
    assert_eq!(&*of("/e/\u{e9}").unwrap().beacon.path, "/e/%C3%A9");
    for (path, found) in [
        ("/e?x", "no `?`"),
        ("/e#x", "`#`"),
        ("/e/*", "a glob"),
        ("e", "begins with /"),
    ] {
        let said = of(path).expect_err(path);
        assert!(
            said.contains("events.path: ") && said.contains(found),
            "{path}: {said}"
        );
    }
}

#[test]
fn parts_of_user_agents_have_no_globs() {
    let of = |part: &str| parse(&format!("robots: {{ also: [ \"{part}\" ] }}"));
    assert!(of("acme-monitor").is_ok());
    let said = of("acme*").unwrap_err();
    assert!(
        said.contains("robots.also.0: ") && said.contains("without `*`"),
        "{said}"
    );
}
