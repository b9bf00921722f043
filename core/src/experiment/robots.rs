//! Robots, by the `User-Agent` that they send. PURE.
//!
//! A robot is a program that says so: a crawler, a monitor, a scanner, an agent of a language model. The list
//! is that of the npm package isbot, without its patterns for the mere shape of a name (`MyApp/1.0` and
//! `Amazon CloudFront` speak for people), and some of our own. Names of HTTP libraries do not count: a mobile
//! app or a back end uses one for a user whose ID it sends, and a script without an ID is
//! never counted, because its minted ID does not come back. Words that stand also in other names (`agent`,
//! `server`, `check`) make a robot only of who sends no ID of the site.

use regex::bytes::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};
use std::borrow::Cow;
use std::sync::LazyLock;

/// Longer texts are cut: real ones are shorter, and matching takes time in proportion.
const USER_AGENT_BYTES_MAX: usize = 1_024;

/// The product tokens of HTTP libraries, with a version.
const LIBRARIES: &str = r"\b(?:aiohttp|apache-httpclient|axios|curl|dart|faraday|go-http-client|got|guzzlehttp|h2load|http\.rb|httpclient|httpie|httpx|hyper|insomnia|java|java-http-client|ktor-client|libwww-perl|nghttp2?|node|node-fetch|nodejs|okhttp|php|postmanruntime|python|python-httpx|python-requests|python-urllib\d?|reqwest|rest-client|restsharp|resty|ruby|typhoeus|undici|unirest-java|wget)(?:/v?[\w.+-]+)?";

/// Words that only robots have in their names.
const CERTAIN: &str = r"bots?(?:\b|_)	 cubots?(?:\b|_)
crawl
spider
scrape
slurp
headless
lighthouse
pagespeed
pingdom
phantomjs
selenium
playwright
externalhit
google	(?: channel/|google/)google|google(?:wv|app|/google| pixel)";

/// Names that are certainly those of robots.
static KNOWN: LazyLock<List> = LazyLock::new(|| {
    let lines = [CERTAIN, include_str!("robots/own.txt")];
    List::read(lines.into_iter().flat_map(str::lines)).expect("a test reads the list")
});

/// Names that are probably those of robots.
static LISTED: LazyLock<List> = LazyLock::new(|| {
    List::read(include_str!("robots/list.txt").lines()).expect("a test reads the list")
});

/// What a `User-Agent` says about the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientKind {
    /// A person.
    Person,
    /// A robot, unless the request has an ID of the site.
    PerhapsRobot,
    /// A robot.
    Robot,
}

/// Patterns of one source.
struct List {
    libraries: Regex,
    patterns: RegexSet,
    /// Patterns, and what is removed before they are looked for.
    with_exceptions: Vec<(Regex, Regex)>,
}

fn regex(pattern: &str) -> Result<Regex, regex::Error> {
    let mut builder = RegexBuilder::new(pattern);
    builder.unicode(false).case_insensitive(true).build()
}

impl List {
    fn read<'a>(lines: impl Iterator<Item = &'a str>) -> Result<List, regex::Error> {
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let (mut patterns, mut with_exceptions) = (Vec::new(), Vec::new());
        for line in lines {
            match line.split_once('\t') {
                Some((pattern, exception)) => {
                    with_exceptions.push((regex(pattern)?, regex(exception)?));
                }
                None => patterns.push(line),
            }
        }
        let mut builder = RegexSetBuilder::new(patterns);
        Ok(List {
            libraries: regex(LIBRARIES)?,
            patterns: builder.unicode(false).case_insensitive(true).build()?,
            with_exceptions,
        })
    }

    fn has(&self, user_agent: &[u8]) -> bool {
        let without = self.libraries.replace_all(user_agent, &b" "[..]);
        let text = without.trim_ascii();
        self.patterns.is_match(text)
            || self.with_exceptions.iter().any(|(pattern, exception)| {
                let without: Cow<'_, [u8]> = exception.replace_all(text, &b" "[..]);
                pattern.is_match(&without)
            })
    }
}

/// What the file says about robots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Robots {
    /// Parts of `User-Agent` that robots have besides those of the list, in lower case.
    pub also: Box<[Box<str>]>,
    /// Parts of `User-Agent` that people have, whatever else is in it, in lower case.
    pub never: Box<[Box<str>]>,
}

impl Robots {
    /// What this `User-Agent` says about the client.
    pub fn client_kind(&self, user_agent: &[u8]) -> ClientKind {
        let text = &user_agent[..user_agent.len().min(USER_AGENT_BYTES_MAX)];
        let has = |part: &str| {
            let mut windows = text.windows(part.len());
            windows.any(|window| window.eq_ignore_ascii_case(part.as_bytes()))
        };
        if self.never.iter().any(|part| has(part)) {
            ClientKind::Person
        } else if self.also.iter().any(|part| has(part)) || KNOWN.has(text) {
            ClientKind::Robot
        } else if LISTED.has(text) {
            ClientKind::PerhapsRobot
        } else {
            ClientKind::Person
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn robots_are_those_that_name_themselves() {
        let robots = Robots::default();
        for user_agent in [
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; bingbot/2.0) Chrome/116 Safari/537.36",
            "Mozilla/5.0 (X11; Linux x86_64) HeadlessChrome/156.0.0.0 Safari/537.36",
            "kube-probe/1.29",
            "ELB-HealthChecker/2.0",
            "Prometheus/2.45.0",
            "GPTBot/1.0",
            "Bytespider",
            "facebookexternalhit/1.1",
            "python-requests/2.31 Nikto",
            "Googlebot-News",
            "FeedFetcher-Google; (+http://www.google.com/feedfetcher.html)",
        ] {
            let kind = robots.client_kind(user_agent.as_bytes());
            assert_eq!(kind, ClientKind::Robot, "{user_agent}");
        }
        for user_agent in [
            "W3C-checklink/4.3 libwww-perl/5.808",
            "our agent",
            "url-tools",
        ] {
            let kind = robots.client_kind(user_agent.as_bytes());
            assert_eq!(kind, ClientKind::PerhapsRobot, "{user_agent}");
        }
    }

    #[test]
    fn browsers_apps_and_libraries_are_no_robots() {
        let robots = Robots::default();
        for user_agent in [
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) Mobile/15E148 [FBAN/FBIOS;FBAV/440.0]",
            "Mozilla/5.0 (Linux; Android 9; CUBOT_X19 Build/PPR1) Chrome/90 Mobile",
            "Mozilla/5.0 (Linux; Android 14; Pixel 8) google Pixel GoogleApp/1",
            "Amazon CloudFront",
            "MyApp/1.0 CFNetwork/1494 Darwin/23.4.0",
            "curl/8.5.0",
            "python-requests/2.31.0",
            "Python/3.11 aiohttp/3.9.1",
            "Go-http-client/1.1",
            "okhttp/4.12.0",
            "Apache-HttpClient/4.5.14 (Java/17)",
            "h2load nghttp2/1.52.0",
            "",
            "\u{fffd}\u{7f}",
        ] {
            let kind = robots.client_kind(user_agent.as_bytes());
            assert_eq!(kind, ClientKind::Person, "{user_agent}");
        }
        assert_eq!(robots.client_kind(b"\xff\xfe\x80"), ClientKind::Person);
    }

    #[test]
    fn file_adds_robots_and_takes_some_out() {
        let robots = Robots {
            also: ["acme-monitor".into()].into(),
            never: ["headlesschrome".into()].into(),
        };
        assert_eq!(robots.client_kind(b"ACME-Monitor/3"), ClientKind::Robot);
        assert_eq!(robots.client_kind(b"Googlebot"), ClientKind::Robot);
        assert_eq!(
            robots.client_kind(b"Mozilla/5.0 HeadlessChrome/156"),
            ClientKind::Person
        );
    }

    #[test]
    fn long_user_agent_is_cut() {
        let long = [&b"x".repeat(100_000)[..], b" Googlebot"].concat();
        assert_eq!(Robots::default().client_kind(&long), ClientKind::Person);
    }
}
