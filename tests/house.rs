//! The rules of the house: which room may lean on which, what pure rooms must not touch, and
//! how long a file may grow. Standard library only.

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms, and the rooms of ours that each may lean on.
const ROOMS: &[(&str, &[&str])] = &[
    ("experiment", &[]),
    ("stats", &[]),
    ("telemetry", &[]),
    ("rate_limit", &[]),
    ("tasks", &["telemetry"]),
    ("tls", &[]),
    ("config", &["experiment", "tls"]),
    ("upstream", &["config", "experiment", "tasks", "telemetry"]),
    ("otel", &["config", "tasks", "upstream", "telemetry"]),
    ("journal", &["experiment", "tasks"]),
    ("store", &["journal", "experiment", "tls", "telemetry"]),
    (
        "proxy",
        &[
            "config",
            "experiment",
            "upstream",
            "journal",
            "rate_limit",
            "otel",
            "tasks",
            "telemetry",
        ],
    ),
    (
        "admin",
        &[
            "store",
            "stats",
            "config",
            "experiment",
            "rate_limit",
            "tasks",
            "upstream",
            "telemetry",
        ],
    ),
    (
        "server",
        &[
            "admin",
            "config",
            "experiment",
            "journal",
            "store",
            "proxy",
            "rate_limit",
            "otel",
            "tasks",
            "tls",
            "upstream",
            "telemetry",
        ],
    ),
];

/// Plain values in and out: no clock, no dice, no files, no sockets.
const PURE: &[&str] = &[
    "experiment/",
    "stats/",
    "journal/frame.rs",
    "journal/layout.rs",
    "journal/ranges.rs",
    "journal/declared.rs",
    "admin/view/advice.rs",
    "admin/csv_escape.rs",
    "admin/view/chart.rs",
    "admin/format.rs",
    "admin/view/interval_plot.rs",
    "admin/results/recent_traffic.rs",
    "admin/http/session.rs",
    "admin/results/time_series.rs",
    "admin/results/conversion_window.rs",
    "store/account.rs",
    "store/buckets.rs",
    "store/event_ids.rs",
    "store/fold.rs",
    "store/identities.rs",
    "store/kept.rs",
    "store/keys.rs",
    "store/known.rs",
    "store/waiting.rs",
    "upstream/balance.rs",
    "proxy/cache.rs",
    "proxy/direct/answer.rs",
    "proxy/direct/forwarded.rs",
    "proxy/direct/lines.rs",
    "proxy/direct/partial.rs",
    "proxy/direct/request.rs",
    "proxy/direct/transcript.rs",
    "proxy/edit.rs",
    "proxy/framing.rs",
    "proxy/grammar.rs",
    "proxy/headers.rs",
    "proxy/hops.rs",
    "proxy/hpack.rs",
    "proxy/reserved.rs",
    "proxy/trace.rs",
    "proxy/trickle.rs",
    "otel/exchange.rs",
    "otel/semantics.rs",
];
const IMPURE: &[&str] = &[
    "tokio::",
    "hyper::",
    "redis::",
    "rusqlite::",
    "std::fs",
    "std::net::Tcp",
    "SystemTime",
    "Instant::now",
    "getrandom",
    "now_v7",
    "std::env",
];

/// The inside has no shape of its own on the wire or the disk.
const SHAPELESS: &[&str] = &["experiment/", "stats/", "config/plan.rs", "config/plan/"];

/// Routes of the door are in its document, because both are made of what stands at the handler.
const UNWRITTEN: &[&str] = &[
    ".route(",
    ".route_service(",
    ".nest_service(",
    "axum::routing",
];

const LINES_MAX: usize = 600;

#[test]
fn every_file_keeps_the_rules() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut faults = Vec::new();
    let mut files = Vec::new();
    list(&src, &mut files);
    assert!(files.len() > 30, "the files of src/ were not found");
    for file in files {
        let name = file
            .strip_prefix(&src)
            .unwrap()
            .to_str()
            .unwrap()
            .replace('\\', "/");
        faults.extend(check(&name, &fs::read_to_string(&file).unwrap()));
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn the_rules_find_what_breaks_them() {
    let finds = |name: &str, text: &str, what: &str| {
        let faults = check(name, text);
        assert!(
            faults.iter().any(|fault| fault.contains(what)),
            "{name}: {faults:?} does not say {what:?}"
        );
    };
    let passes = |name: &str, text: &str| assert_eq!(check(name, text), Vec::<String>::new());
    finds(
        "experiment/a.rs",
        "use crate::config::plan;",
        "`experiment` must not lean on `config`",
    );
    finds(
        "admin/a.rs",
        "    crate::proxy::run();",
        "`admin` must not lean on `proxy`",
    );
    finds(
        "store/fold.rs",
        "let now = std::time::SystemTime::now();",
        "SystemTime",
    );
    finds("stats/a.rs", "#[derive(Debug, Serialize)]", "Serialize");
    finds(
        "admin/http/router.rs",
        "        .route(\"/admin/new\", get(new))",
        "beside the document",
    );
    finds("proxy/a.rs", &"x;\n".repeat(LINES_MAX + 1), "601 lines");
    finds("attic/a.rs", "", "no room `attic`");
    passes("cli/a.rs", "use crate::proxy::worker;");
    passes(
        "store/folder.rs",
        "use crate::journal::Reader; // crate::proxy is only named here",
    );
    passes(
        "proxy/a.rs",
        &format!(
            "#[cfg(test)]\nmod tests {{\n{}}}\n",
            "x;\n".repeat(LINES_MAX)
        ),
    );
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            list(&path, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
}

/// What is wrong with a file of `src/`.
fn check(name: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let code: Vec<(usize, &str)> = text
        .lines()
        .take_while(|line| line.trim() != "#[cfg(test)]")
        .enumerate()
        .map(|(number, line)| (number + 1, line.split("//").next().unwrap_or_default()))
        .collect();
    if code.len() > LINES_MAX {
        faults.push(format!(
            "src/{name}: {} lines: split it by meaning (at most {LINES_MAX} without tests)",
            code.len()
        ));
    }
    let room = name.split('/').next().unwrap().trim_end_matches(".rs");
    if ["lib", "main", "cli"].contains(&room) {
        return faults;
    }
    let Some((_, allowed)) = ROOMS.iter().find(|(known, _)| *known == room) else {
        faults.push(format!("src/{name}: there is no room `{room}`: add it to ROOMS in tests/house.rs with what it may lean on"));
        return faults;
    };
    for (number, line) in code {
        for used in line.split("crate::").skip(1) {
            let used: String = used
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            if used != room
                && ROOMS.iter().any(|(known, _)| *known == used)
                && !allowed.contains(&&*used)
            {
                faults.push(format!(
                    "src/{name}:{number}: `{room}` must not lean on `{used}`: move what both need to a room below both, or pass it in"
                ));
            }
        }
        if matches_any(PURE, name) {
            for word in IMPURE.iter().filter(|word| line.contains(*word)) {
                faults.push(format!(
                    "src/{name}:{number}: a pure file names `{word}`: take the value as an argument"
                ));
            }
        }
        for word in UNWRITTEN.iter().filter(|word| line.contains(*word)) {
            if room == "admin" {
                faults.push(format!(
                    "src/{name}:{number}: `{word}` is a route beside the document: say `#[utoipa::path]` at its handler, and `.routes(routes!(…))`"
                ));
            }
        }
        if matches_any(SHAPELESS, name) && line.contains("derive(") && line.contains("Serialize") {
            faults.push(format!(
                "src/{name}:{number}: Serialize on an inner type: give the edge a shape of its own"
            ));
        }
    }
    faults
}

fn matches_any(places: &[&str], name: &str) -> bool {
    places.iter().any(|place| {
        if place.ends_with('/') {
            name.starts_with(place)
        } else {
            name == *place
        }
    })
}
