//! Which requests are meant: conditions, and how they are combined.

use super::device::DeviceClass;
use super::http_view::{HeaderView, RequestView};
use super::language::{self, LanguageRange};
use super::pattern::{HostPattern, PathPattern, ValueTest};
use http::Method;
use http::header::{ACCEPT_LANGUAGE, COOKIE, HeaderName};
use ipnet::IpNet;

/// A condition on a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// All of them hold; an empty list always holds.
    All(Box<[Condition]>),
    /// At least one of them holds; an empty list never holds.
    Any(Box<[Condition]>),
    /// It does not hold.
    Not(Box<Condition>),
    /// The path in normal form, without its query.
    Path(PathPattern),
    /// The host, without its port.
    Host(HostPattern),
    /// The method.
    Method(Method),
    /// The value of a query parameter, decoded.
    Query(Box<str>, ValueTest),
    /// The value of a header.
    Header(HeaderName, ValueTest),
    /// The value of a cookie, as it came.
    Cookie(Box<str>, ValueTest),
    /// The language that the user prefers.
    Language(LanguageRange),
    /// The class of the client's device.
    Device(DeviceClass),
    /// The network of the client. It does not hold for a client without a known address.
    Network(IpNet),
}

impl Condition {
    /// The condition that always holds.
    pub fn always() -> Condition {
        Condition::All(Box::default())
    }

    /// Whether it is about the client, and not about what the client asks for.
    fn is_of_client(&self) -> bool {
        match self {
            Condition::All(list) | Condition::Any(list) => list.iter().any(Condition::is_of_client),
            Condition::Not(condition) => condition.is_of_client(),
            Condition::Path(_)
            | Condition::Host(_)
            | Condition::Method(_)
            | Condition::Query(..) => false,
            Condition::Header(..)
            | Condition::Cookie(..)
            | Condition::Language(_)
            | Condition::Device(_)
            | Condition::Network(_) => true,
        }
    }

    /// The same condition, in the order that is judged fastest: what does not depend on the client may
    /// settle the rest.
    fn ordered(self) -> Condition {
        let ordered = |list: Box<[Condition]>| -> Box<[Condition]> {
            let mut list: Vec<_> = list.into_iter().map(Condition::ordered).collect();
            list.sort_by_key(Condition::is_of_client);
            list.into()
        };
        match self {
            Condition::All(list) => Condition::All(ordered(list)),
            Condition::Any(list) => Condition::Any(ordered(list)),
            Condition::Not(condition) => Condition::Not(Box::new(condition.ordered())),
            other => other,
        }
    }

    /// Calls `visit` for all conditions that are not made of others.
    pub fn for_each_simple(&self, visit: &mut impl FnMut(&Condition)) {
        match self {
            Condition::All(list) | Condition::Any(list) => {
                list.iter().for_each(|it| it.for_each_simple(visit));
            }
            Condition::Not(condition) => condition.for_each_simple(visit),
            simple => visit(simple),
        }
    }

    fn judge<'a>(&self, request: impl RequestView<'a>) -> Eligibility {
        match self {
            Condition::All(list) => {
                let mut all = Eligibility::YES;
                for condition in list {
                    let one = condition.judge(request);
                    if one == Eligibility::NO {
                        return one;
                    }
                    all.is_met &= one.is_met;
                    all.by_client |= one.by_client;
                }
                all
            }
            Condition::Any(list) => {
                let mut any = Eligibility::NO;
                for condition in list {
                    let one = condition.judge(request);
                    if one == Eligibility::YES {
                        return one;
                    }
                    any.is_met |= one.is_met;
                    any.by_client |= one.by_client;
                }
                any
            }
            Condition::Not(condition) => {
                let one = condition.judge(request);
                Eligibility {
                    is_met: !one.is_met,
                    ..one
                }
            }
            simple => Eligibility {
                is_met: simple.holds(request),
                by_client: simple.is_of_client(),
            },
        }
    }

    /// Whether a condition holds that is not made of others.
    fn holds<'a>(&self, request: impl RequestView<'a>) -> bool {
        match self {
            Condition::All(_) | Condition::Any(_) | Condition::Not(_) => self.judge(request).is_met,
            Condition::Path(pattern) => pattern.matches(&request.normal_path()),
            Condition::Host(pattern) => pattern.matches(request.host()),
            Condition::Method(method) => request.has_method(method),
            Condition::Query(name, test) => {
                let query = request.query().unwrap_or_default();
                let pairs = form_urlencoded::parse(query.as_bytes());
                let values = pairs.filter(|(found, _)| **found == **name);
                test.holds(values.map(|(_, value)| value.into_owned()))
            }
            Condition::Header(name, test) => test.holds(request.fields().all(name)),
            Condition::Cookie(name, test) => test.holds(request.fields().cookie_texts(name)),
            Condition::Language(range) => {
                language::preferred(request.fields()).is_some_and(|it| range.has(it))
            }
            Condition::Device(class) => DeviceClass::of(request.fields()) == *class,
            Condition::Network(network) => request
                .client()
                .is_some_and(|client| network.contains(&client)),
        }
    }
}

/// Which requests are meant, and what that depends on.
#[derive(Clone, Debug)]
pub struct Matcher {
    condition: Condition,
    fields: Box<[HeaderName]>,
    reads_address: bool,
}

impl Default for Matcher {
    fn default() -> Matcher {
        Matcher::new(Condition::always())
    }
}

impl Matcher {
    /// Means the requests for which a condition holds.
    pub fn new(condition: Condition) -> Matcher {
        let mut fields = Vec::new();
        let mut reads_address = false;
        condition.for_each_simple(&mut |simple| match simple {
            Condition::Header(name, _) => fields.push(name.clone()),
            Condition::Cookie(..) => fields.push(COOKIE),
            Condition::Language(_) => fields.push(ACCEPT_LANGUAGE),
            Condition::Device(_) => fields.extend(DeviceClass::FIELDS),
            Condition::Network(_) => reads_address = true,
            _ => {}
        });
        let mut known: Vec<HeaderName> = Vec::new();
        for name in fields {
            if !known.contains(&name) {
                known.push(name);
            }
        }
        Matcher {
            condition: condition.ordered(),
            fields: known.into(),
            reads_address,
        }
    }

    /// Whether the request is meant.
    pub fn matches<'a>(&self, request: impl RequestView<'a>) -> bool {
        self.judge(request).is_met
    }

    /// Whether the request is meant, and whether that depends on the client.
    pub fn judge<'a>(&self, request: impl RequestView<'a>) -> Eligibility {
        self.condition.judge(request)
    }

    /// Returns the condition.
    pub fn condition(&self) -> &Condition {
        &self.condition
    }

    /// Returns the names of the fields that its conditions read, each once.
    pub fn fields(&self) -> &[HeaderName] {
        &self.fields
    }

    /// Whether one of its conditions reads the client's address.
    pub fn reads_address(&self) -> bool {
        self.reads_address
    }
}

/// Whether a request is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eligibility {
    /// Whether the conditions hold.
    pub is_met: bool,
    /// Whether that might be otherwise for the same method and URL, with other fields or from another
    /// address. A cache must know then.
    pub by_client: bool,
}

impl Eligibility {
    /// The conditions hold for every client.
    pub const YES: Eligibility = Eligibility {
        is_met: true,
        by_client: false,
    };
    /// The conditions hold for no client.
    pub const NO: Eligibility = Eligibility {
        is_met: false,
        by_client: false,
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::http_view::ClientAddress;
    use crate::experiment::pattern::ValuePattern;
    use http::request;

    fn request(uri: &str, headers: &[(&str, &str)]) -> request::Parts {
        let mut request = http::Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn path(text: &str) -> Condition {
        Condition::Path(PathPattern::new(text).unwrap())
    }

    fn header(name: &'static str) -> Condition {
        Condition::Header(HeaderName::from_static(name), ValueTest::Present)
    }

    fn all(list: impl Into<Box<[Condition]>>) -> Condition {
        Condition::All(list.into())
    }

    fn any(list: impl Into<Box<[Condition]>>) -> Condition {
        Condition::Any(list.into())
    }

    fn not(condition: Condition) -> Condition {
        Condition::Not(Box::new(condition))
    }

    fn one_of(values: &[&str]) -> ValueTest {
        ValueTest::OneOf(values.iter().map(|text| ValuePattern::new(text)).collect())
    }

    #[track_caller]
    fn check(condition: &Condition, request: &request::Parts, is_met: bool, by_client: bool) {
        let expected = Eligibility { is_met, by_client };
        let found = Matcher::new(condition.clone()).judge(request);
        assert_eq!(found, expected, "{condition:?} {request:?}");
    }

    #[test]
    fn only_what_clients_decide_is_by_client() {
        let (a, b) = (request("/a", &[]), request("/b", &[("x-a", "1")]));
        check(&Condition::always(), &a, true, false);
        check(&any([]), &a, false, false);
        let both = all([header("x-a"), path("/b")]);
        check(&both, &a, false, false);
        check(&both, &b, true, true);
        check(&both, &request("/b", &[]), false, true);
        let either = any([header("x-a"), path("/a")]);
        check(&either, &a, true, false);
        check(&either, &b, true, true);
        check(&either, &request("/c", &[]), false, true);
        check(&not(both.clone()), &a, true, false);
        check(&not(both), &b, false, true);
        check(&not(path("/a")), &a, false, false);
        check(&all([not(path("/a")), header("x-a")]), &a, false, false);
        check(&any([not(path("/a")), header("x-a")]), &b, true, false);
        // A later condition settles it, whatever the fields say.
        check(
            &all([any([header("x-a"), path("/x")]), path("/y")]),
            &b,
            false,
            false,
        );
    }

    #[test]
    fn values_are_present_absent_or_one_of_some() {
        let of = |test| Condition::Query("q".into(), test);
        for (query, present, listed) in [
            ("", false, false),
            ("?q", true, false),
            ("?q=", true, false),
            ("?x=1&q=%61b", true, true),
            ("?q=no&q=ab", true, true),
            ("?qq=ab", false, false),
            ("?q=a+b", true, true),
        ] {
            let asked = request(&format!("/{query}"), &[]);
            check(&of(ValueTest::Present), &asked, present, false);
            check(&of(ValueTest::Absent), &asked, !present, false);
            check(&of(one_of(&["ab", "a *"])), &asked, listed, false);
        }
        let cookie = |test| Condition::Cookie("c".into(), test);
        let asked = request("/", &[("cookie", "a=1; c=x-1"), ("x-a", "1"), ("x-a", "2")]);
        check(&cookie(one_of(&["x-*"])), &asked, true, true);
        check(&cookie(ValueTest::Absent), &asked, false, true);
        let header = |test| Condition::Header(HeaderName::from_static("x-a"), test);
        check(&header(one_of(&["2"])), &asked, true, true);
        check(&header(one_of(&["1, 2"])), &asked, false, true);
    }

    #[test]
    fn language_device_and_network_are_of_the_client() {
        let phone = "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Mobile/15E148";
        let headers = [("accept-language", "de-AT,en;q=0.5"), ("user-agent", phone)];
        let mut asked = request("/", &headers);
        let language = |text| Condition::Language(LanguageRange::new(text).unwrap());
        check(&language("de"), &asked, true, true);
        check(&language("en"), &asked, false, true);
        check(&Condition::Device(DeviceClass::Mobile), &asked, true, true);
        check(&Condition::Device(DeviceClass::Tablet), &asked, false, true);
        let network = Condition::Network("10.0.0.0/8".parse().unwrap());
        check(&network, &asked, false, true);
        let client = |text: &str| ClientAddress(text.parse().unwrap());
        asked.extensions.insert(client("10.1.2.3"));
        check(&network, &asked, true, true);
        asked.extensions.insert(client("11.1.2.3"));
        check(&network, &asked, false, true);
        check(&not(network), &asked, true, true);
    }

    #[test]
    fn paths_and_hosts_are_compared_in_normal_form() {
        let asked = request("/%7Ea//b/./c%2fd", &[("host", "Shop.example.com.:8080")]);
        check(&path("/~a/b/c%2Fd"), &asked, true, false);
        let host = |text| Condition::Host(HostPattern::new(text).unwrap());
        check(&host("shop.example.com"), &asked, true, false);
        check(&host("*.example.com."), &asked, true, false);
        check(&host("example.com"), &asked, false, false);
    }

    #[test]
    fn fields_are_those_that_conditions_read() {
        let condition = all([
            not(any([header("x-a"), header("x-b"), header("x-a")])),
            Condition::Cookie("c".into(), ValueTest::Present),
            Condition::Device(DeviceClass::Mobile),
            Condition::Language(LanguageRange::new("de").unwrap()),
            path("/"),
        ]);
        let matcher = Matcher::new(condition);
        let mut names: Vec<&str> = matcher.fields().iter().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let expected = [
            "accept-language",
            "cookie",
            "sec-ch-ua-mobile",
            "user-agent",
            "x-a",
            "x-b",
        ];
        assert_eq!(names, expected);
        assert!(!matcher.reads_address());
        let network = Condition::Network("10.0.0.0/8".parse().unwrap());
        assert!(Matcher::new(not(network)).reads_address());
    }
}
