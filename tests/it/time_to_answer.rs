//! How long an answer takes at an uneven split, and at an even one.

use crate::support::origin::Origin;
use crate::support::proxy::{BINARY, Proxy};
use crate::support::until;
use std::process::Command;

fn check(routes: &str, arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("routes.yaml");
    std::fs::write(&file, routes).unwrap();
    let run = Command::new(BINARY)
        .args(["check", "-c"])
        .arg(file)
        .args(arguments)
        .output()
        .unwrap();
    assert!(run.status.success(), "{run:?}");
    let text = String::from_utf8(run.stdout).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("  time: "));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn check_compares_an_uneven_split_with_an_even_one() {
    let routes = |experiment: &str| {
        format!(
            "upstreams: {{ a: \"http://127.0.0.1:1\", b: \"http://127.0.0.1:2\" }}\nexperiments: {{ site: {{ control: a, experiment: b, {experiment} }} }}\nmetrics: {{ buy: {{ event: buy, detect: 20% }} }}\n"
        )
    };
    let ten = check(&routes("percent: 10"), &[]);
    let start = "  time: experiments.site: to detect a lift of 20 % in buy, this split takes 2.";
    assert!(ten.starts_with(start), "{ten}");
    assert!(
        ten.ends_with(
            " times as many users and days as 50/50 (`--users-per-day N` says how many days)"
        ),
        "{ten}"
    );
    // An even split needs no sentence.
    assert_eq!(check(&routes("percent: 50"), &[]), "");
    assert_eq!(
        check(&routes("percent: 100"), &[]),
        "  time: experiments.site: nobody new gets control, so there is nothing to compare"
    );
    let days = |routes: &str, per_day: &str| -> Vec<u32> {
        let said = check(routes, &["--users-per-day", per_day]);
        let words = said.split(|it: char| !it.is_ascii_digit());
        let numbers = words.filter_map(|word| word.parse().ok());
        // Without the lift and the rate.
        numbers.skip(2).filter(|number| *number != 50).collect()
    };
    let ten = days(&routes("percent: 10"), "5000");
    let fifty = days(&routes("percent: 50"), "5000");
    assert_eq!(ten.len(), 2, "{ten:?}");
    assert_eq!(fifty, ten[1..], "{ten:?}");
    assert!(ten[0] > 2 * ten[1] && ten[1] >= 7, "{ten:?}");
    // Half of the traffic takes twice as long.
    let half = days(&routes("percent: 10, traffic: 50%"), "5000");
    assert!(half[0].abs_diff(2 * ten[0]) <= 1, "{half:?} {ten:?}");
}

#[test]
fn results_say_what_an_even_split_would_take() {
    let (current, next) = (Origin::start("current"), Origin::start("next"));
    let proxy = Proxy::start(&format!(
        "upstreams: {{ current: \"http://{}\", next: \"http://{}\" }}\nuser: {{ header: X-User }}\n\
         experiments: {{ site: {{ control: current, experiment: next, percent: 10, min_duration: 0s }} }}\n\
         metrics: {{ buy: \"POST /buy -> 2xx\" }}\n",
        current.address, next.address
    ));
    let mut client = proxy.client();
    for user in 0..1200 {
        let user_header = format!("X-User: user-{user}\r\n");
        client.get("/", &user_header);
        if user % 4 == 0 {
            client.post("/buy", &user_header, "");
        }
    }
    let planning = until("a plan", || {
        let planning = proxy.results()["experiments"][0]["planning"].clone();
        let known = planning["seconds_in_all"].is_number();
        known.then_some(planning.clone()).ok_or(planning)
    });
    let even = &planning["even_split"];
    let factor = even["factor"].as_f64().unwrap();
    assert!((factor - 2.7778).abs() < 0.001, "{planning:#}");
    let needed = planning["users_needed"].as_f64().unwrap();
    let of_even = even["users_needed"].as_f64().unwrap();
    assert!((needed / of_even - factor).abs() < 0.01, "{planning:#}");
    let (now, then) = (&planning["seconds_in_all"], &even["seconds_in_all"]);
    assert!(now.as_f64() > then.as_f64(), "{planning:#}");
    let text = proxy.ask("/admin/results?format=text").text();
    assert!(text.contains("This split takes about "), "{text}");
}
