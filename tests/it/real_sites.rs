//! Two versions of a real site, by Express and by Django, in a real browser: login, CSRF tokens, files named
//! by their content, a service worker, and redirects after forms. Whatever happens to the versions of users,
//! nobody sees a 403, a 404, or a page of both versions.

use crate::support::HANG;
use crate::support::browser::Driver;
use crate::support::client::Client as AdminClient;
use crate::support::proxy::Proxy;
use crate::support::site::Site;
use crate::support::tools;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, Locator};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use url::{ParseError, Url};

fn express() -> Command {
    let modules = tools::installed("sites-javascript");
    let mut command = tools::command("node");
    command
        .env("TEST_MODULES", modules)
        .arg(source("express/server.js"));
    command
}

fn django() -> Command {
    let mut command = Command::new(tools::installed("sites/bin/python"));
    command.arg(source("django/site.py"));
    command
}

fn source(place: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/sites")
        .join(place)
}

/// What the browser has logged since it was last asked.
#[derive(Debug)]
struct Log;

impl WebDriverCompatibleCommand for Log {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        base.join(&format!("session/{}/se/log", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &Url) -> (http::Method, Option<String>) {
        (
            http::Method::POST,
            Some(r#"{"type": "browser"}"#.to_owned()),
        )
    }
}

struct Visit<'a> {
    browser: &'a Client,
    proxy: &'a Proxy,
}

impl Visit<'_> {
    async fn open(&self, path: &str) {
        let url = format!("http://{}{path}", self.proxy.public);
        self.browser.goto(&url).await.unwrap();
    }

    async fn text(&self, selector: &str) -> String {
        let wait = self.browser.wait().at_most(HANG);
        let found = wait.for_element(Locator::Css(selector)).await.unwrap();
        found.text().await.unwrap()
    }

    /// The page, its script, its style and its calls are of this version.
    async fn is_whole(&self, version: &str) {
        assert_eq!(self.text("#version").await, version);
        let script = "const [done] = arguments; whoami().then(api => done([\
                      document.documentElement.dataset.script, \
                      getComputedStyle(document.documentElement).getPropertyValue('--version').replaceAll('\"', '').trim(), api]))";
        let found = self.browser.execute_async(script, vec![]).await.unwrap();
        let expected = Value::from(vec![version; 3]);
        assert_eq!(found, expected, "{}", self.browser.source().await.unwrap());
    }

    async fn send(&self) {
        let button = self.browser.find(Locator::Css("#send")).await.unwrap();
        button.click().await.unwrap();
    }

    async fn log_in(&self, version: &str) {
        self.open("/").await;
        self.is_whole(version).await;
        self.send().await;
        assert_eq!(self.text("#user").await, "ann");
        self.is_whole(version).await;
    }

    /// Sends the form of the page that is open.
    async fn order(&self, version: &str) {
        self.send().await;
        assert_eq!(self.text("#thanks").await, "thanks");
        self.is_whole(version).await;
    }

    /// Nothing was refused or missing.
    async fn complains_of_nothing(&self) {
        let log = self.browser.issue_cmd(Log).await.unwrap();
        let entries = log.as_array().unwrap().iter();
        let bad: Vec<&Value> = entries
            .filter(|entry| {
                let message = entry["message"].as_str().unwrap_or_default();
                ["403", "404", "502", "503"]
                    .iter()
                    .any(|it| message.contains(it))
            })
            .collect();
        assert!(bad.is_empty(), "{bad:#?}");
    }
}

fn load(proxy: &Proxy, routes: &str) {
    proxy.write(routes);
    let answer = AdminClient::admin(proxy.admin).post("/admin/reload", "", "");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn decide(proxy: &Proxy, action: &str, body: &str) {
    let path = format!("/admin/experiments/site/{action}");
    let answer = AdminClient::admin(proxy.admin).post(&path, "", body);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

async fn visit(command: fn() -> Command) {
    let mut versions = ["old", "new"].map(|name| Site::start(command().arg(name)));
    let [old, new] = [versions[0].port, versions[1].port];
    let routes = |percent: u32| {
        format!(
            "upstreams: {{ current: \"http://127.0.0.1:{old}\", next: \"http://127.0.0.1:{new}\" }}\n\
             experiments: {{ site: {{ control: current, experiment: next, percent: {percent}, cookies: isolate, when_down: other }} }}\n\
             metrics: {{ order: \"POST /order -> 303\" }}\nrobots: {{ never: [ HeadlessChrome ] }}\n"
        )
    };
    let proxy = Proxy::start(&routes(0));
    let driver = Driver::start();
    let browser = driver.browser().await;
    let visit = Visit {
        browser: &browser,
        proxy: &proxy,
    };
    visit.log_in("old").await;
    // A weight change, while a form is open.
    load(&proxy, &routes(100));
    visit.is_whole("old").await;
    visit.order("old").await;
    visit.complains_of_nothing().await;
    visit.log_in("new").await;
    // A promotion.
    decide(&proxy, "promote", r#"{"group": "control"}"#);
    visit.is_whole("new").await;
    visit.order("new").await;
    // The old session is still there.
    visit.open("/account").await;
    assert_eq!(visit.text("#user").await, "ann");
    visit.is_whole("old").await;
    visit.order("old").await;
    decide(&proxy, "resume", "{}");
    visit.open("/account").await;
    visit.order("new").await;
    visit.complains_of_nothing().await;
    // A version fails: the other one serves whole pages.
    versions[1].stop();
    visit.open("/").await;
    visit.is_whole("old").await;
    visit.open("/account").await;
    visit.order("old").await;
    visit.complains_of_nothing().await;
    browser.close().await.unwrap();
}

#[tokio::test]
async fn express_site_is_whole_through_changes_promotion_and_failure() {
    visit(express).await;
}

#[tokio::test]
async fn django_site_is_whole_through_changes_promotion_and_failure() {
    visit(django).await;
}
