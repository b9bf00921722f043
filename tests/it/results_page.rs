//! The results page in a real browser: its content, updates, decisions and accessibility.

use crate::support::HANG;
use crate::support::browser::{Chromium, Driver};
use crate::support::client::Client as AdminClient;
use crate::support::clock::Clock;
use crate::support::origin::Origin;
use crate::support::proxy::{How, Proxy};
use crate::support::redis::Redis;
use crate::support::tools;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fantoccini::actions::{InputSource, KeyAction, KeyActions};
use fantoccini::{Client, Locator};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const WAIT: Duration = HANG;

/// A site with visitors of the last two days.
struct Shop {
    proxy: Proxy,
    clock: Clock,
    _origins: [Origin; 2],
}

const HOUR: i64 = 3600;
const OPERATE: &str = "Authorization: Bearer operate-secret\r\n";

impl Shop {
    fn start() -> Shop {
        let origins = [Origin::start("current"), Origin::start("next")];
        let clock = Clock::new();
        clock.set(-40 * HOUR);
        let how = How {
            env: clock.environment(),
            admin_keys: "tokens: { anna: { role: operate, token: operate-secret }, ben: { role: read, token: read-secret } }".to_owned(),
            ..How::default()
        };
        let routes = format!(
            "upstreams: {{ current: \"http://{}\", next: \"http://{}\" }}\nuser: {{ header: X-User }}\n\
             experiments: {{ site: {{ control: current, experiment: next, percent: 50, guardrails: {{ errors: {{ max_increase: 10% }} }} }} }}\n\
             metrics: {{ buy: {{ on: {{ method: POST, path: /buy, status: 2xx }}, detect: 30% }} }}\n",
            origins[0].address, origins[1].address
        );
        let proxy = Proxy::start_how(&routes, how);
        let shop = Shop {
            proxy,
            clock,
            _origins: origins,
        };
        for hour in 0..8 {
            shop.clock.set((5 * hour - 40) * HOUR);
            shop.visitors(hour as usize * 150, 150);
        }
        shop.clock.set(0);
        shop.visitors(1200, 40);
        shop
    }

    /// Sends visitors, of whom every third buys in the new version, and every fifth in the current one.
    fn visitors(&self, from: usize, count: usize) {
        let mut client = self.proxy.client();
        for user in from..from + count {
            let who = format!("X-User: user-{user}\r\n");
            let version = client.get("/", &who).json()["version"].clone();
            let each = if version == "next" { 3 } else { 5 };
            if user % each == 0 {
                client.post("/buy", &who, "");
            }
        }
        self.caught_up();
    }

    fn caught_up(&self) {
        crate::support::until("a store that has caught up", || {
            let results = self.results();
            (results["store"]["lag_events"] == 0)
                .then_some(())
                .ok_or(results)
        });
    }

    fn results(&self) -> Value {
        AdminClient::admin(self.proxy.admin)
            .get("/admin/results", OPERATE)
            .json()
    }

    fn url(&self) -> String {
        format!("http://{}/admin/results", self.proxy.admin)
    }
}

async fn log_in(browser: &Client, shop: &Shop, token: &str) {
    browser.goto(&shop.url()).await.unwrap();
    let field = browser.find(Locator::Id("token")).await.unwrap();
    field.send_keys(token).await.unwrap();
    browser
        .find(Locator::Css("main button"))
        .await
        .unwrap()
        .click()
        .await
        .unwrap();
    wait(browser, "#as-of").await;
}

async fn wait(browser: &Client, css: &str) {
    let wait = browser.wait().at_most(WAIT);
    wait.for_element(Locator::Css(css)).await.unwrap();
}

/// Waits until a part of the page contains the text.
async fn wait_for(browser: &Client, css: &str, text: &str) {
    let begun = std::time::Instant::now();
    loop {
        let found = browser.execute(
            "return document.querySelector(arguments[0])?.innerText ?? ''",
            vec![json!(css)],
        );
        let found = found.await.unwrap();
        if found.as_str().unwrap_or_default().contains(text) {
            return;
        }
        assert!(
            begun.elapsed() < WAIT,
            "{css} does not contain {text:?} but {found}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Saves a screenshot of the whole page for people.
async fn picture(browser: &Client, name: &str) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("screenshots");
    std::fs::create_dir_all(&folder).unwrap();
    let all = "const it = document.documentElement; return { x: 0, y: 0, width: it.clientWidth, height: it.scrollHeight, scale: 1 }";
    let all = says(browser, all).await;
    let how = json!({ "format": "png", "captureBeyondViewport": true, "clip": all });
    let taken = tell(browser, "Page.captureScreenshot", how).await;
    let png = STANDARD.decode(taken["data"].as_str().unwrap()).unwrap();
    std::fs::write(folder.join(format!("{name}.png")), png).unwrap();
}

/// Fails if axe found violations of accessibility rules.
#[track_caller]
fn assert_usable(found: &Value, what: &str) {
    assert_eq!(found, &json!([]), "{what}: {found:#}");
}

async fn axe(browser: &Client) -> Value {
    let axe = std::fs::read_to_string(tools::installed("axe/axe.min.js")).unwrap();
    browser.execute(&axe, vec![]).await.unwrap();
    let ask = "const done = arguments[0]; axe.run(document, { resultTypes: ['violations'] }).then(\
        (found) => done(found.violations.map((one) => [one.id, one.nodes.map((node) => node.html)])), (error) => done(String(error)))";
    browser.execute_async(ask, vec![]).await.unwrap()
}

/// Emulates a media feature, such as `prefers-color-scheme`.
async fn medium(browser: &Client, kind: &str, name: &str, value: &str) {
    let wanted = json!({ "media": kind, "features": [{ "name": name, "value": value }] });
    tell(browser, "Emulation.setEmulatedMedia", wanted).await;
}

async fn tell(browser: &Client, command: &str, parameters: Value) -> Value {
    let command = json!({ "cmd": command, "params": parameters });
    let told = browser.issue_cmd(Chromium("goog/cdp/execute", command));
    told.await.unwrap()
}

/// Sets the width of the viewport in CSS pixels, because browser windows cannot be as narrow as phones.
async fn wide(browser: &Client, width: u32) {
    let metrics = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
    tell(browser, "Emulation.setDeviceMetricsOverride", metrics).await;
}

async fn says(browser: &Client, script: &str) -> Value {
    browser.execute(script, vec![]).await.unwrap()
}

/// Returns the browser's log, which has violations of the content security policy, for example.
async fn complaints(browser: &Client) -> Vec<Value> {
    let log = browser
        .issue_cmd(Chromium("se/log", json!({ "type": "browser" })))
        .await
        .unwrap();
    let all = log.as_array().unwrap().iter();
    // The status 401 before the login is expected.
    let expected = |entry: &&Value| entry["message"].as_str().unwrap().contains("401");
    all.filter(|entry| !expected(entry)).cloned().collect()
}

/// Moves the focus to an element with the Tab key. Fails if the focus is not visible there.
async fn tab_to(browser: &Client, id: &str) {
    for _ in 0..40 {
        if says(browser, "return document.activeElement.id").await == id {
            let outline = says(
                browser,
                "return getComputedStyle(document.activeElement).outlineStyle",
            );
            assert_eq!(
                outline.await,
                json!("solid"),
                "{id} is not shown as focused"
            );
            return;
        }
        // Not to an element: live results may replace it at this moment.
        let tab = KeyActions::new("keyboard".to_owned())
            .then(KeyAction::Down { value: '\u{e004}' })
            .then(KeyAction::Up { value: '\u{e004}' });
        browser.perform_actions(tab).await.unwrap();
    }
    panic!("{id} is not reachable with the Tab key");
}

/// Runs a test with a shop and a browser, in a runtime of its own because tests block.
fn drive(test: impl AsyncFnOnce(&Shop, &Client)) {
    let (shop, driver) = (Shop::start(), Driver::start());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let browser = driver.browser().await;
        test(&shop, &browser).await;
        browser.close().await.unwrap();
    });
}

#[test]
fn page_shows_results_makes_decisions_and_updates() {
    drive(see_and_decide);
}

async fn see_and_decide(shop: &Shop, browser: &Client) {
    browser.set_window_size(1200, 1000).await.unwrap();
    browser.goto(&shop.url()).await.unwrap();
    assert_usable(&axe(browser).await, "the login page");
    log_in(browser, shop, "operate-secret").await;
    wait_for(browser, "#live", "live").await;
    wait(browser, "td.plot svg.bar").await;
    wait(
        browser,
        "svg[role=img][aria-label^='buy over time: control went from']",
    )
    .await;
    let over_time =
        AdminClient::admin(shop.proxy.admin).get("/admin/results?over_time=true", OPERATE);
    assert_grows_to_the_present(&over_time.json());
    assert_eq!(
        shop.results()["experiments"][0]["metrics"][0]["over_time"],
        Value::Null
    );
    for scheme in ["light", "dark"] {
        medium(browser, "", "prefers-color-scheme", scheme).await;
        assert_usable(&axe(browser).await, scheme);
        picture(browser, &format!("results-{scheme}")).await;
    }
    wide(browser, 390).await;
    let cut_off = "const seen = [...document.querySelectorAll('.score .lift, .score .plot')].map((it) => it.getBoundingClientRect());\
        return seen.length > 1 && seen.every((it) => it.width > 40 && it.left >= 0 && it.right <= document.documentElement.clientWidth)";
    assert_eq!(
        says(browser, cut_off).await,
        json!(true),
        "lifts are cut off"
    );
    assert_usable(&axe(browser).await, "a phone");
    picture(browser, "results-phone").await;
    wide(browser, 360).await;
    let too_wide =
        "return document.documentElement.scrollWidth > document.documentElement.clientWidth";
    assert_eq!(
        says(browser, too_wide).await,
        json!(false),
        "a narrow screen shows all"
    );
    picture(browser, "results-narrow").await;
    wide(browser, 1200).await;
    medium(browser, "", "prefers-color-scheme", "light").await;

    // A term is explained without a mouse or a script.
    let focus = "document.querySelector('.score .tip').focus()";
    browser.execute(focus, vec![]).await.unwrap();
    let button = browser.active_element().await.unwrap();
    button.send_keys("\u{e007}").await.unwrap();
    wait_for(browser, ":popover-open", "true lift is in it").await;
    assert_usable(&axe(browser).await, "an explanation");
    picture(browser, "results-explained").await;
    button.send_keys("\u{e00c}").await.unwrap();
    let closed = "return document.querySelector(':popover-open') === null";
    assert_eq!(says(browser, closed).await, json!(true));

    // New visitors appear without a reload, and open details stay open.
    let open = "window.here = true; const all = document.querySelector('details.health'); all.open = true; all.querySelector('summary').focus();";
    browser.execute(open, vec![]).await.unwrap();
    tokio::task::block_in_place(|| shop.visitors(5000, 60));
    let users: u64 = shop.results()["experiments"][0]["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| group["users"].as_u64().unwrap())
        .sum();
    assert_eq!(users, 1300);
    wait_for(browser, "main", "1,300 so far").await;
    let still = "return window.here === true && document.querySelector('details.health').open";
    assert_eq!(browser.execute(still, vec![]).await.unwrap(), json!(true));

    // A version is promoted without a mouse, after a page that shows the effects.
    tab_to(browser, "promote-site-experiment").await;
    let button = browser.active_element().await.unwrap();
    button.send_keys("\u{e007}").await.unwrap();
    wait(browser, "#confirm").await;
    wait_for(
        browser,
        "main",
        "All matching users get experiment (upstream next)",
    )
    .await;
    assert_usable(&axe(browser).await, "the confirmation");
    picture(browser, "confirm").await;
    let reason = browser.find(Locator::Id("reason")).await.unwrap();
    reason.send_keys("<b>it is better</b>").await.unwrap();
    browser
        .find(Locator::Id("confirm"))
        .await
        .unwrap()
        .click()
        .await
        .unwrap();
    wait_for(browser, "h2 small", "promoted (experiment)").await;
    wait_for(browser, "#decisions", "<b>it is better</b>").await;
    wait_for(browser, "#decisions", "anna").await;
    assert_eq!(shop.results()["experiments"][0]["status"], "promoted");
    assert_usable(&axe(browser).await, "after a decision");

    // With role `read` there are no buttons.
    browser
        .find(Locator::Css("header button"))
        .await
        .unwrap()
        .click()
        .await
        .unwrap();
    wait(browser, "#token").await;
    log_in(browser, shop, "read-secret").await;
    wait_for(browser, "header", "ben").await;
    assert!(
        browser
            .find_all(Locator::Css(".acts"))
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(complaints(browser).await, [] as [Value; 0]);
}

/// The last point equals the results, and the number of users never falls.
fn assert_grows_to_the_present(results: &Value) {
    let metric = &results["experiments"][0]["metrics"][0];
    let moments = metric["over_time"].as_array().unwrap();
    assert!((9..=48).contains(&moments.len()), "{}", moments.len());
    let mut times: Vec<&str> = moments
        .iter()
        .map(|it| it["at"].as_str().unwrap())
        .collect();
    assert!(times.is_sorted(), "{times:?}");
    times.dedup();
    assert_eq!(times.len(), moments.len());
    for group in metric["groups"].as_array().unwrap() {
        let of = |moment: &Value| moment["groups"][group["name"].as_str().unwrap()].clone();
        let users: Vec<u64> = moments
            .iter()
            .map(|it| of(it)["users"].as_u64().unwrap())
            .collect();
        assert!(users.is_sorted() && users[0] > 0, "{users:?}");
        let last = of(moments.last().unwrap());
        for same in ["users", "rate", "interval"] {
            assert_eq!(last[same], group[same], "{same}");
        }
    }
}

#[test]
fn page_is_left_when_its_session_ends() {
    drive(async |shop, browser| {
        log_in(browser, shop, "read-secret").await;
        wait_for(browser, "#live", "live").await;
        let cookies = browser.get_all_cookies().await.unwrap();
        let session = format!("Cookie: {}\r\n", cookies[0].stripped());
        let form = says(
            browser,
            "return document.querySelector('[name=form]').value",
        )
        .await;
        let form = format!("form={}", form.as_str().unwrap());
        let kind = "Content-Type: application/x-www-form-urlencoded\r\n";
        let mut elsewhere = AdminClient::admin(shop.proxy.admin);
        let left = elsewhere.post("/admin/logout", &format!("{session}{kind}"), &form);
        assert_eq!(left.status, 303);
        wait(browser, "#token").await;
    });
}

#[test]
fn overview_lists_experiments_and_an_unavailable_store() {
    let origin = Origin::start("site");
    let mut redis = Redis::start();
    let long = "x".repeat(64);
    let proxy = Proxy::start(&format!(
        "store: {1}\nupstreams: {{ a: \"http://{0}\", b: \"http://{0}\" }}\nuser: {{ header: X-User }}\n\
         overrides: {{ secret: 0123456789abcdef }}\nexperiments:\n\
         \u{20} site: {{ control: a, experiment: b, percent: 50, match: /s }}\n\
         \u{20} {long}: {{ match: /l, count_overrides: true, groups: {{ control: {{ weight: 1, upstream: a }}, {long}: {{ weight: 1, upstream: b }} }} }}\n\
         metrics: {{ buy: \"POST /buy -> 2xx\", views: {{ on: {{ path: /**, status: 2xx }}, kind: count }} }}",
        origin.address,
        redis.url()
    ));
    let mut client = proxy.client();
    for number in 0..60 {
        let user = format!("X-User: user-{number}\r\n");
        client.get(if number % 2 == 0 { "/s" } else { "/l" }, &user);
    }
    proxy.results();
    let hostile = json!({ "by": "<img src=x onerror=window.hurt=1>", "reason": "\"><script>window.hurt=1</script>" });
    let pause = AdminClient::admin(proxy.admin).post(
        "/admin/experiments/site/pause",
        "",
        &hostile.to_string(),
    );
    assert_eq!(pause.status, 200);
    let driver = Driver::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let browser = driver.browser().await;
        let url = format!("http://{}/admin/results", proxy.admin);
        browser.goto(&url).await.unwrap();
        wait_for(&browser, "#live", "live").await;
        wait_for(&browser, "#overview", "site Paused").await;
        wait_for(&browser, "#overview", "check data quality").await;
        wait_for(
            &browser,
            &format!("#doubts-{long}"),
            "with an override are counted",
        )
        .await;
        wait_for(&browser, "#decisions", "<img src=x").await;
        assert_eq!(says(&browser, "return window.hurt").await, Value::Null);
        for (width, name) in [
            (1200, "several"),
            (360, "several-narrow"),
            (600, "several-zoomed"),
        ] {
            wide(&browser, width).await;
            let too_wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
            assert_eq!(says(&browser, too_wide).await, json!(0), "{width}");
            assert_usable(&axe(&browser).await, name);
            picture(&browser, name).await;
        }
        wide(&browser, 1200).await;
        medium(&browser, "", "forced-colors", "active").await;
        assert_usable(&axe(&browser).await, "forced colours");
        picture(&browser, "several-forced-colours").await;
        medium(&browser, "print", "forced-colors", "none").await;
        let hidden = "return getComputedStyle(document.querySelector('.acts')).display";
        assert_eq!(says(&browser, hidden).await, json!("none"));
        picture(&browser, "several-printed").await;
        medium(&browser, "", "forced-colors", "none").await;

        pages_of_several(&browser, &url).await;
        browser.goto(&url).await.unwrap();
        wait_for(&browser, "#live", "live").await;

        // The last results stay below the error, which disappears once the store is back.
        redis.kill();
        wait_for(&browser, "#alarms", "store is unavailable").await;
        wait_for(&browser, "main", "What to do now").await;
        assert_usable(&axe(&browser).await, "a store that is away");
        picture(&browser, "store-away").await;
        browser.goto(&url).await.unwrap();
        wait_for(&browser, "#alarms", "store is unavailable").await;
        // A fresh page has the last results, too, and does not call them live.
        wait_for(&browser, "#overview", "site Paused").await;
        wait_for(&browser, "#live", "the store is away").await;
        redis.up();
        wait_for(&browser, "#overview", "site Paused").await;
        wait_for(&browser, "#live", "live").await;
        let complaints = complaints(&browser).await;
        let others = complaints
            .iter()
            .filter(|it| !it.to_string().contains("503"));
        assert_eq!(others.collect::<Vec<_>>(), [] as [&Value; 0]);
        browser.close().await.unwrap();
    });
}

/// Searches the list, and opens the other pages.
async fn pages_of_several(browser: &Client, url: &str) {
    browser.goto(&format!("{url}?q=SITE+paused")).await.unwrap();
    wait_for(browser, "#overview", "site Paused").await;
    let found = "return document.querySelectorAll('#overview .name').length";
    assert_eq!(says(browser, found).await, json!(1));
    // In one step, as the page replaces its parts when there are new results.
    let open = "document.getElementById('o-site').click(); return true";
    assert_eq!(says(browser, open).await, json!(true));
    wait(browser, "#verdict-site").await;
    let others = "return document.querySelectorAll('section[id^=e-]').length";
    assert_eq!(says(browser, others).await, json!(1));
    wait_for(browser, ".marks", "pause by <img src=x").await;
    picture(browser, "one-of-several").await;

    let upstreams = url.replace("/results", "/upstreams");
    browser.goto(&upstreams).await.unwrap();
    wait_for(browser, "#table-upstreams", "healthy").await;
    wait_for(browser, "#table-replicas", "this one").await;
    assert_usable(&axe(browser).await, "upstreams");
    picture(browser, "upstreams").await;

    let new = url.replace("/results", "/new");
    browser.goto(&new).await.unwrap();
    for (field, text) in [("name", "new-cart"), ("rule", "POST /cart -> 2xx")] {
        let field = browser.find(Locator::Id(field)).await.unwrap();
        field.send_keys(text).await.unwrap();
    }
    let write = browser.find(Locator::Css("main .due")).await.unwrap();
    write.click().await.unwrap();
    wait_for(
        browser,
        "#lines",
        "new-cart-success: { on: { method: \"POST\", path: \"/cart\"",
    )
    .await;
    wait_for(browser, ".durations", "10 % of users").await;
    for width in [1200, 390] {
        wide(browser, width).await;
        assert_usable(&axe(browser).await, "a new experiment");
        picture(browser, &format!("new-{width}")).await;
    }
    wide(browser, 1200).await;
}

#[test]
fn page_works_without_scripts() {
    drive(decide_without_scripts);
}

async fn decide_without_scripts(shop: &Shop, browser: &Client) {
    let off = json!({ "cmd": "Emulation.setScriptExecutionDisabled", "params": { "value": true } });
    browser
        .issue_cmd(Chromium("goog/cdp/execute", off))
        .await
        .unwrap();
    log_in(browser, shop, "operate-secret").await;
    browser
        .find(Locator::Id("pause-site-"))
        .await
        .unwrap()
        .click()
        .await
        .unwrap();
    wait(browser, "#confirm").await;
    browser
        .find(Locator::Id("confirm"))
        .await
        .unwrap()
        .click()
        .await
        .unwrap();
    wait(browser, "#resume-site-").await;
    assert_eq!(shop.results()["experiments"][0]["status"], "paused");
}
