//! `Vary` and `Cache-Control` for shared caches (RFC 9110, 12.5.5; RFC 9111, 5.2.2).

use crate::support::client::Answer;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::raw::Raw;

fn proxy(origin: &Origin, experiments: &str, more: &str) -> Proxy {
    Proxy::start(&format!(
        "upstreams: {{ a: \"http://{0}\", b: \"http://{0}\" }}\nuser: {{ header: X-User }}\nexperiments:\n{experiments}\n{more}",
        origin.address
    ))
}

fn vary(proxy: &Proxy, path: &str, headers: &str) -> Option<String> {
    let answer = proxy.client().get(path, headers);
    assert_eq!(answer.status, 200);
    let all = answer.all("vary");
    (!all.is_empty()).then(|| all.join(", "))
}

const USER: &str = "X-User: somebody\r\n";
const BOTH: Option<&str> = Some("cookie, x-user");

#[test]
fn response_that_depends_on_the_user_has_vary() {
    let origin = Origin::start("a");
    let proxy = proxy(
        &origin,
        "  split: { match: /split, control: a, experiment: b, percent: 50 }\n  \
           few: { match: /few, control: a, experiment: b, percent: 50 }\n  \
           told: { match: /told, groups: { control: { weight: 1 }, other: { weight: 1 } } }\n  \
           won: { match: /won, control: a, experiment: b, percent: 50, winner: experiment }\n  \
           beta: { match: { path: /beta, headers: { X-Beta: \"1\" } }, control: a, experiment: b, percent: 50 }",
        "",
    );
    let vary = |path, headers| vary(&proxy, path, headers);
    assert_eq!(vary("/split", USER).as_deref(), BOTH);
    assert_eq!(vary("/none", USER), None);
    assert_eq!(vary("/told", USER), None, "off by default");
    assert_eq!(vary("/won", USER), None, "all users get the same");
    // The response depends on whether the request meets the condition.
    let beta = format!("{USER}X-Beta: 1\r\n");
    assert_eq!(
        vary("/beta", &beta).as_deref(),
        Some("cookie, x-user, x-beta")
    );
    assert_eq!(vary("/beta", USER).as_deref(), Some("x-beta"));
}

#[test]
fn vary_is_also_sent_to_users_outside_the_experiment() {
    let origin = Origin::start("a");
    let proxy = proxy(
        &origin,
        "  few: { traffic: 0%, control: a, experiment: b, percent: 50 }",
        "consent: { cookie: ok, value: \"yes\" }",
    );
    // Without consent, and with consent but outside the traffic share.
    assert_eq!(vary(&proxy, "/", USER).as_deref(), BOTH);
    let consents = format!("{USER}Cookie: ok=yes\r\n");
    assert_eq!(vary(&proxy, "/", &consents).as_deref(), BOTH);
}

#[test]
fn cache_key_selects_vary_and_cache_control() {
    let origin = Origin::start("a");
    let experiments = "  split: { match: /split, control: a, experiment: b, percent: 50 }\n  \
                       told: { match: /told, groups: { control: { weight: 1 }, other: { weight: 1 } } }";
    let check = |cache: &str, path: &str, expected: (bool, bool)| {
        let proxy = proxy(&origin, experiments, cache);
        let answer = proxy.client().get(path, USER);
        let said = |name: &str| answer.header(name).is_some();
        assert_eq!((said("vary"), said("cache-control")), expected, "{cache}");
    };
    check("cache: off", "/split", (false, false));
    check("cache: private", "/split", (true, true));
    check("cache: { header: vary }", "/told", (true, false));
    check("cache: { header: private }", "/told", (true, true));
    check("cache: { header: private }", "/split", (true, false));
}

#[test]
fn parts_of_the_site_have_cache_rules_of_their_own() {
    let origin = Raw::always(
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nCache-Control: public, max-age=60\r\n\r\n",
    );
    let proxy = Proxy::start(&format!(
        "upstreams: {{ a: \"http://{0}\", b: \"http://{0}\" }}\nuser: {{ cookie: uid }}\n\
         experiments: {{ split: {{ control: a, experiment: b, percent: 50 }} }}\n\
         cache:\n  upstream: private\n  routes:\n    \
         - {{ match: /static/mixed/**, upstream: vary }}\n    \
         - {{ match: {{ path: [/static/**, /fonts/**], method: GET }}, upstream: off }}",
        origin.address
    ));
    let said = |path: &str, fields: &str| {
        let answer = proxy.client().get(path, fields);
        let cache = answer.header("cache-control").map(str::to_owned);
        let cookie = answer.header("set-cookie").is_some();
        (answer.header("vary").is_some(), cache.unwrap(), cookie)
    };
    let user = "Cookie: uid=anna\r\n";
    let public = || "public, max-age=60".to_owned();
    let private = || "max-age=60, private".to_owned();
    assert_eq!(said("/", user), (true, private(), false));
    assert_eq!(said("/static/mixed/a.js", user), (true, public(), false));
    assert_eq!(said("/fonts/a.woff2", user), (false, public(), false));
    // A new visitor and a robot get what everybody gets; their pages stay theirs.
    assert_eq!(said("/static/a.js", ""), (false, public(), false));
    let robot = "User-Agent: Googlebot/2.1\r\n";
    assert_eq!(said("/static/a.js", robot), (false, public(), false));
    assert_eq!(said("/", ""), (true, private(), true));
    assert_eq!(said("/", robot), (true, private(), false));
    // What a rule is not for.
    let answer = proxy.client().post("/static/a.js", user, "");
    assert!(answer.header("vary").is_some());
}

fn of_a_public_answer(more: &str, headers: &str) -> Answer {
    let origin = Raw::always(
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nVary: Accept-Encoding, Cookie\r\n\
         Cache-Control: public, max-age=60, s-maxage=600\r\nCDN-Cache-Control: max-age=600\r\n\r\n",
    );
    let proxy = Proxy::start(&format!(
        "upstreams: {{ a: \"http://{0}\", b: \"http://{0}\" }}\nuser: {{ header: X-User }}\n\
         experiments: {{ split: {{ control: a, experiment: b, percent: 50 }} }}\n{more}",
        origin.address
    ));
    proxy.client().get("/", headers)
}

#[test]
fn cache_headers_of_the_upstream_are_extended_only() {
    let answer = of_a_public_answer("", USER);
    assert_eq!(answer.all("vary"), ["Accept-Encoding, Cookie", "x-user"]);
    let cache = "public, max-age=60, s-maxage=600";
    assert_eq!(answer.all("cache-control"), [cache]);
    assert_eq!(answer.header("cdn-cache-control"), Some("max-age=600"));
}

#[test]
fn response_with_a_minted_id_is_not_cacheable() {
    let answer = of_a_public_answer("", "");
    assert!(answer.header("set-cookie").is_some());
    assert_eq!(answer.all("cache-control"), ["max-age=60, private"]);
    assert_eq!(answer.header("cdn-cache-control"), None);
}

#[test]
fn response_to_an_override_is_not_cacheable() {
    use watershed::experiment::override_token::{Override, sign};
    let secret = "an override secret";
    let forced = Override {
        experiment: "split".into(),
        group: "experiment".into(),
        expires_s: 9_999_999_999,
    };
    let token = sign(secret.as_bytes(), &forced);
    let headers = format!("{USER}Watershed-Override: {token}\r\n");
    let answer = of_a_public_answer(&format!("overrides: {{ secret: {secret} }}"), &headers);
    assert_eq!(answer.header("set-cookie"), None);
    assert_eq!(answer.all("cache-control"), ["max-age=60, private"]);
}
