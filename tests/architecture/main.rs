//! The rules of the modules: which module may depend on which, no import cycles, what pure files
//! must not use, unique names of public types, and sizes. Standard library only.

#![allow(unreachable_pub, reason = "everything in a test is for this test")]

mod imports;
mod links;
mod source;

use imports::{Crate, cycles};
use source::Source;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// The modules of `src/`, lower ones first, and the modules that each may depend on. `cli` and
/// `main` may depend on everything.
const MODULES: &[(&str, &[&str])] = &[
    ("experiment", &[]),
    ("stats", &[]),
    ("telemetry", &[]),
    ("rate_limit", &[]),
    ("private_file", &[]),
    ("regular_file", &[]),
    ("tasks", &["telemetry"]),
    ("tls", &[]),
    ("postgres_address", &["tls"]),
    ("redis_address", &["tls"]),
    ("features", &[]),
    (
        "config",
        &[
            "experiment",
            "features",
            "postgres_address",
            "redis_address",
            "regular_file",
            "tls",
        ],
    ),
    ("upstream", &["config", "experiment", "tasks", "telemetry"]),
    ("otel", &["config", "tasks", "upstream", "telemetry"]),
    ("journal", &["experiment", "regular_file", "tasks"]),
    (
        "store",
        &[
            "journal",
            "experiment",
            "postgres_address",
            "redis_address",
            "regular_file",
            "tasks",
            "tls",
            "telemetry",
        ],
    ),
    (
        "archive",
        &[
            "config",
            "experiment",
            "journal",
            "store",
            "tasks",
            "telemetry",
            "tls",
        ],
    ),
    (
        "acme",
        &[
            "config",
            "private_file",
            "regular_file",
            "store",
            "tasks",
            "telemetry",
            "tls",
        ],
    ),
    (
        "notify",
        &[
            "config",
            "experiment",
            "store",
            "tasks",
            "telemetry",
            "upstream",
        ],
    ),
    ("gateway", &[]),
    (
        "forward",
        &[
            "config",
            "experiment",
            "journal",
            "notify",
            "store",
            "telemetry",
            "upstream",
        ],
    ),
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
            "tls",
        ],
    ),
    (
        "admin",
        &[
            "archive",
            "store",
            "stats",
            "config",
            "experiment",
            "features",
            "notify",
            "rate_limit",
            "tasks",
            "tls",
            "upstream",
            "telemetry",
        ],
    ),
    (
        "server",
        &[
            "acme",
            "admin",
            "archive",
            "config",
            "experiment",
            "features",
            "forward",
            "journal",
            "store",
            "private_file",
            "proxy",
            "rate_limit",
            "regular_file",
            "notify",
            "otel",
            "tasks",
            "tls",
            "upstream",
            "telemetry",
        ],
    ),
];

/// Plain values in and out: no clock, no randomness, no files, no sockets. A file that is pure says
/// `PURE.` in its first comment.
const PURE: &[&str] = &[
    "experiment/",
    "stats/",
    "gateway/",
    "journal/frame.rs",
    "journal/layout.rs",
    "journal/ranges.rs",
    "journal/declarations.rs",
    "tls/client_certificate.rs",
    "acme/entries.rs",
    "acme/schedule.rs",
    "admin/csv_escape.rs",
    "admin/decisions/action.rs",
    "admin/format.rs",
    "admin/http/metrics/text_format.rs",
    "admin/http/session.rs",
    "admin/results/conversion_window.rs",
    "admin/results/gate.rs",
    "admin/results/hours.rs",
    "admin/results/recent_traffic.rs",
    "admin/results/stats_input.rs",
    "admin/results/time_series.rs",
    "admin/view/advice.rs",
    "admin/view/bars.rs",
    "admin/view/buttons.rs",
    "admin/view/changes.rs",
    "admin/view/chart.rs",
    "admin/view/csv.rs",
    "admin/view/details.rs",
    "admin/view/interval_plot.rs",
    "admin/view/lifecycle.rs",
    "admin/view/lift_scale.rs",
    "admin/view/list.rs",
    "admin/view/metric_values.rs",
    "admin/view/mirror.rs",
    "admin/view/narrative.rs",
    "admin/view/planning_text.rs",
    "admin/view/scorecard.rs",
    "admin/view/segments.rs",
    "admin/view/table.rs",
    "admin/view/tips.rs",
    "admin/view/verdict_text.rs",
    "store/apply_semantics.rs",
    "store/delta_rows.rs",
    "store/buckets.rs",
    "store/event_ids.rs",
    "store/aggregate.rs",
    "store/identities.rs",
    "store/running_minima.rs",
    "store/keys.rs",
    "store/applied_cache.rs",
    "store/seen_once.rs",
    "store/waiting.rs",
    "forward/message.rs",
    "forward/payload.rs",
    "forward/payload/google_analytics.rs",
    "forward/payload/library.rs",
    "forward/payload/requests.rs",
    "forward/payload/opentelemetry.rs",
    "forward/payload/posthog.rs",
    "forward/payload/segment.rs",
    "forward/payload/snowplow.rs",
    "forward/payload/webhook.rs",
    "forward/selection.rs",
    "notify/audit.rs",
    "notify/notification.rs",
    "notify/schedule.rs",
    "notify/signature.rs",
    "upstream/balancer.rs",
    "proxy/client.rs",
    "proxy/h1/framing.rs",
    "proxy/h1/grammar.rs",
    "proxy/h1/header_block.rs",
    "proxy/h1/partial_head.rs",
    "proxy/h1/request_head.rs",
    "proxy/h1/response_head.rs",
    "proxy/h1/sixteen_bytes.rs",
    "proxy/h2/hpack.rs",
    "proxy/h2/translate.rs",
    "proxy/headers/believed_client.rs",
    "proxy/headers/cache_control.rs",
    "proxy/headers/edit.rs",
    "proxy/headers/forwarding.rs",
    "proxy/headers/hop_by_hop.rs",
    "proxy/headers/isolated_cookies.rs",
    "proxy/headers/plan_headers.rs",
    "proxy/headers/public_names.rs",
    "proxy/headers/reserved.rs",
    "proxy/headers/validators.rs",
    "proxy/headers/version_headers.rs",
    "proxy/headers/version_mark.rs",
    "proxy/min_rate.rs",
    "proxy/observe/logged_request.rs",
    "proxy/observe/trace_context.rs",
    "upstream/health.rs",
    "otel/sampled_request.rs",
    "otel/semantics.rs",
];
const IMPURE: &[&str] = &[
    "tokio",
    "hyper",
    "redis",
    "rusqlite",
    "std::fs",
    "TcpStream",
    "TcpListener",
    "SystemTime",
    "Instant::now",
    "getrandom",
    "now_v7",
    "std::env",
];

/// Types of the core have no serialized form of their own: files, wire and disk have theirs at
/// the edges.
const NOT_SERIALIZED: &[&str] = &["experiment/", "stats/", "config/plan.rs", "config/plan/"];

/// Routes of the admin API are in its document, because both are made from the attribute of the
/// handler.
const UNDOCUMENTED_ROUTES: &[&str] = &["route", "route_service", "nest_service"];

/// Lines of a file, without tests.
const FILE_LINES_MAX: usize = 600;
/// Lines of a function that have code.
const FUNCTION_LINES_MAX: usize = 70;

/// Functions that may be longer, and why. At most three.
const LONG_FUNCTIONS: &[(&str, &str)] = &[];

/// Public types that may share a name.
const SHARED_NAMES: &[&str] = &["Arguments"];

#[test]
fn modules_depend_only_on_what_they_may() {
    check(&dependency_faults(sources()));
    for (n, (module, allowed)) in MODULES.iter().enumerate() {
        for used in *allowed {
            assert!(
                MODULES[..n].iter().any(|(lower, _)| lower == used),
                "`{module}` may depend on `{used}`, which is not listed above it"
            );
        }
    }
}

#[test]
fn pure_files_use_no_clock_randomness_files_or_sockets() {
    check(&purity_faults(sources()));
}

#[test]
fn types_of_the_core_are_not_serialized() {
    check(&serialization_faults(sources()));
}

#[test]
fn admin_routes_are_in_the_api_document() {
    check(&route_faults(sources()));
}

#[test]
fn files_have_at_most_600_lines() {
    check(&file_size_faults(sources()));
}

#[test]
fn functions_have_at_most_70_lines() {
    let sources = sources();
    let long = long_functions(sources);
    assert!(LONG_FUNCTIONS.len() <= 3, "at most three exceptions");
    let mut faults: Vec<String> = LONG_FUNCTIONS
        .iter()
        .filter(|(place, _)| !long.contains_key(*place))
        .map(|(place, _)| format!("{place} is no longer long: delete it from LONG_FUNCTIONS"))
        .collect();
    let is_excepted = |place: &String| LONG_FUNCTIONS.iter().any(|(it, _)| it == place);
    let too_long = long.iter().filter(|(place, _)| !is_excepted(place));
    faults.extend(too_long.map(|(_, fault)| fault.clone()));
    check(&faults);
}

#[test]
fn files_of_a_module_form_no_import_cycle() {
    let cycles = import_cycles(sources()).into_iter();
    let faults = cycles.map(|(file, way)| format!("src/{file}: import cycle: {}", way.join(" → ")));
    check(&faults.collect::<Vec<_>>());
}

#[test]
fn names_of_public_types_are_unique() {
    let shared = shared_names(sources());
    let shared = shared
        .iter()
        .filter(|(name, _)| !SHARED_NAMES.contains(name));
    let faults = shared.map(|(name, places)| {
        format!(
            "`{name}` is the name of several public types: {}: rename all but one",
            places.join(", ")
        )
    });
    check(&faults.collect::<Vec<_>>());
}

#[track_caller]
fn check(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

/// The files of `src/` and `core/src/`, without those that exist for tests only.
fn sources() -> &'static [Source] {
    static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(read_sources);
    &SOURCES
}

fn read_sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The modules of the core are also modules of the program.
    let mut sources = Vec::new();
    for (src, skipped) in [("src", "main.rs"), ("core/src", "lib.rs")] {
        let src = root.join(src);
        let mut files = Vec::new();
        list(&src, &mut files);
        assert!(
            files.len() > 30,
            "the files of {} were not found",
            src.display()
        );
        let name = |file: &PathBuf| {
            file.strip_prefix(&src)
                .unwrap()
                .to_str()
                .unwrap()
                .replace('\\', "/")
        };
        let parsed = files
            .iter()
            .map(|file| Source::parse(&name(file), &fs::read_to_string(file).unwrap()));
        sources.extend(parsed.filter(|source| source.name != skipped));
    }
    let tests: BTreeSet<Vec<String>> = sources
        .iter()
        .flat_map(|source| {
            let module = source.module();
            let child = move |name: &String| module.iter().chain([name]).cloned().collect();
            source.test_modules.iter().map(child)
        })
        .collect();
    let is_test = |source: &Source| {
        (1..=source.module().len()).any(|n| tests.contains(&source.module()[..n]))
    };
    sources
        .into_iter()
        .filter(|source| !is_test(source))
        .collect()
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

fn dependency_faults(sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    for source in sources {
        let (name, module) = (&source.name, source.top_module());
        if ["lib", "cli"].contains(&module) {
            continue;
        }
        let Some((_, allowed)) = MODULES.iter().find(|(known, _)| *known == module) else {
            faults.push(format!("src/{name}: `{module}` is not a known module: add it to MODULES in tests/architecture with what it may depend on"));
            continue;
        };
        for (path, place) in source.all_paths() {
            let Some(used) = path.get(1).filter(|_| path[0] == "crate") else {
                continue;
            };
            if used != module
                && !allowed.contains(&used.as_str())
                && used.as_bytes()[0].is_ascii_lowercase()
            {
                faults.push(format!(
                    "src/{name}:{place}: `{module}` must not depend on `{used}`: move what both need to a module below both, or pass it in"
                ));
            }
        }
    }
    faults
}

fn purity_faults(sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    for source in sources {
        let name = &source.name;
        let pure = matches_any(PURE, name);
        if source.claims_purity && !pure {
            faults.push(format!(
                "src/{name} says that it is pure: add it to PURE in tests/architecture"
            ));
        }
        if pure {
            for (path, place) in source.all_paths() {
                let path = path.join("::");
                for word in IMPURE.iter().filter(|word| contains_path(&path, word)) {
                    faults.push(format!("src/{name}:{place}: a pure file uses `{word}`: take the value as an argument"));
                }
            }
        }
    }
    for place in PURE {
        let exists = |source: &Source| {
            source.name == *place || (place.ends_with('/') && source.name.starts_with(place))
        };
        if sources.len() > 30 && !sources.iter().any(exists) {
            faults.push(format!(
                "src/{place} does not exist: correct PURE in tests/architecture"
            ));
        }
    }
    faults
}

/// Whether `words` (such as `std::fs`) stand in `path` as whole names.
fn contains_path(path: &str, words: &str) -> bool {
    format!("::{path}::").contains(&format!("::{words}::"))
}

fn serialization_faults(sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    for source in sources
        .iter()
        .filter(|source| matches_any(NOT_SERIALIZED, &source.name))
    {
        for (path, place) in source.all_paths() {
            if path.last().is_some_and(|word| word == "Serialize") {
                faults.push(format!(
                    "src/{}:{place}: `Serialize` in the core: give the edge a type of its own",
                    source.name
                ));
            }
        }
    }
    faults
}

fn route_faults(sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    for source in sources
        .iter()
        .filter(|source| source.top_module() == "admin")
    {
        for pair in source.tokens.windows(3) {
            let route = pair[0].text == "."
                && pair[2].text == "("
                && UNDOCUMENTED_ROUTES.contains(&pair[1].text.as_str());
            if route {
                faults.push(format!(
                    "src/{}:{}: `.{}(` adds a route that is not in the API document: put `#[utoipa::path]` on its handler, and add it with `.routes(routes!(…))`",
                    source.name, pair[1].line, pair[1].text
                ));
            }
        }
    }
    faults
}

fn file_size_faults(sources: &[Source]) -> Vec<String> {
    sources
        .iter()
        .filter(|source| source.lines > FILE_LINES_MAX)
        .map(|source| {
            format!(
                "src/{}: {} lines: split it by meaning (at most {FILE_LINES_MAX} without tests)",
                source.name, source.lines
            )
        })
        .collect()
}

/// Functions over the limit by their place, such as `proxy/worker.rs::run`.
fn long_functions(sources: &[Source]) -> BTreeMap<String, String> {
    let mut long = BTreeMap::new();
    for source in sources {
        for function in source
            .functions
            .iter()
            .filter(|function| function.lines > FUNCTION_LINES_MAX)
        {
            let name = &source.name;
            let fault = format!(
                "src/{name}:{}: `{}` has {} lines of code (at most {FUNCTION_LINES_MAX})",
                function.line, function.name, function.lines
            );
            long.insert(format!("{name}::{}", function.name), fault);
        }
    }
    long
}

fn import_cycles(sources: &[Source]) -> BTreeMap<&str, Vec<&str>> {
    let files = Crate::new(sources);
    let uses = sources
        .iter()
        .map(|source| (source.name.as_str(), files.uses(source)))
        .collect();
    cycles(&uses)
}

/// The places of public types whose name is not unique.
fn shared_names(sources: &[Source]) -> BTreeMap<&str, Vec<String>> {
    let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for source in sources {
        for found in &source.public_types {
            places
                .entry(&found.name)
                .or_default()
                .push(format!("src/{}:{}", source.name, found.line));
        }
    }
    places.retain(|_, places| places.len() > 1);
    places
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

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn crate_of(files: &[(&str, &str)]) -> Vec<Source> {
        files
            .iter()
            .map(|(name, text)| Source::parse(name, text))
            .collect()
    }

    #[track_caller]
    fn finds(faults: Vec<String>, expected: &str) {
        assert!(
            faults.iter().any(|fault| fault.contains(expected)),
            "{faults:?} does not contain {expected:?}"
        );
    }

    #[track_caller]
    fn cyclic(files: &[(&str, &str)], expected: &[&str]) {
        let sources = crate_of(files);
        let found: Vec<&str> = import_cycles(&sources).into_keys().collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_dependency_on_a_higher_module_is_found() {
        let check = |name, text| dependency_faults(&crate_of(&[(name, text)]));
        finds(
            check("experiment/a.rs", "use crate::config::plan;"),
            "`experiment` must not depend on `config`",
        );
        finds(
            check("admin/a.rs", "fn f() { crate::proxy::run(); }"),
            "`admin` must not depend on `proxy`",
        );
        finds(
            check(
                "stats/a.rs",
                "use crate::{\n stats::b,\n store::{c, d},\n};",
            ),
            "a.rs:3: `stats` must not depend on `store`",
        );
        finds(check("attic/a.rs", ""), "`attic` is not a known module");
        assert_eq!(check("cli/a.rs", "use crate::proxy::worker;"), [""; 0]);
        assert_eq!(
            check(
                "store/a.rs",
                "use crate::journal::Reader; // crate::proxy\nconst A: &str = \"crate::proxy\";"
            ),
            [""; 0]
        );
        assert_eq!(
            check(
                "stats/a.rs",
                "#[cfg(test)]\nmod tests { use crate::proxy; }"
            ),
            [""; 0]
        );
    }

    #[test]
    fn an_impure_path_in_a_pure_file_is_found() {
        let check = |name, text| purity_faults(&crate_of(&[(name, text)]));
        finds(
            check("stats/a.rs", "fn f() { std::time::SystemTime::now(); }"),
            "uses `SystemTime`",
        );
        finds(check("stats/a.rs", "use std::{fmt, fs};"), "uses `std::fs`");
        finds(check("config/a.rs", "//! Names. PURE.\n"), "add it to PURE");
        assert_eq!(
            check("stats/a.rs", "//! No redis here.\nfn f(redis_keys: u8) {}"),
            [""; 0]
        );
    }

    #[test]
    fn serialization_in_the_core_is_found() {
        let sources = crate_of(&[("stats/a.rs", "#[derive(Debug, Serialize)] struct A;")]);
        finds(serialization_faults(&sources), "`Serialize` in the core");
    }

    #[test]
    fn a_route_that_is_not_documented_is_found() {
        let sources = crate_of(&[("admin/a.rs", "fn f() { router.route(\"/new\", get(new)); }")]);
        finds(route_faults(&sources), "not in the API document");
    }

    #[test]
    fn lines_of_tests_do_not_count() {
        let lines = "x();\n".repeat(600);
        let check = |text: String| file_size_faults(&crate_of(&[("proxy/a.rs", &text)]));
        finds(check(format!("x();\n{lines}")), "601 lines");
        assert_eq!(
            check(format!("{lines}#[cfg(test)]\nmod tests {{\n{lines}}}\n")),
            [""; 0]
        );
    }

    #[test]
    fn lines_without_code_do_not_count_in_functions() {
        let check = |lines: usize| {
            let text = format!("fn f() {{\n{}\n// Comment.\n\n}}\n", "x();\n".repeat(lines));
            long_functions(&crate_of(&[("proxy/a.rs", &text)]))
        };
        assert_eq!(check(68).len(), 0);
        assert_eq!(check(69).into_keys().collect::<Vec<_>>(), ["proxy/a.rs::f"]);
    }

    #[test]
    fn public_types_with_one_name_are_found() {
        let sources = crate_of(&[
            (
                "proxy/a.rs",
                "pub struct A; pub(crate) enum B {} struct C; fn pub_struct() {}",
            ),
            (
                "admin/b.rs",
                "pub trait A {} pub(super) type B = u8; pub struct C;",
            ),
        ]);
        assert_eq!(
            shared_names(&sources).into_keys().collect::<Vec<_>>(),
            ["A", "B"]
        );
    }

    #[test]
    fn cycles_are_found_through_nested_imports_reexports_and_paths() {
        let nested = "use super::{c::{D, E as F}, g};";
        cyclic(
            &[("x/b.rs", nested), ("x/c.rs", "use super::b::B;")],
            &["x/b.rs", "x/c.rs"],
        );
        // The name is re-exported by the parent, which is no part of the cycle.
        let parent = ("x/mod.rs", "mod b; mod c; pub use b::B; pub use c::*;");
        cyclic(
            &[
                parent,
                ("x/b.rs", "pub struct B; use super::C;"),
                ("x/c.rs", "pub struct C; use crate::x::B;"),
            ],
            &["x/b.rs", "x/c.rs"],
        );
        cyclic(
            &[
                parent,
                ("x/b.rs", "pub struct B; use super::C;"),
                ("x/c.rs", "pub struct C;"),
            ],
            &[],
        );
        // The parent uses what it re-exports, and a child uses the parent.
        let parent = ("x/mod.rs", "mod b; pub use b::B; pub struct A(B);");
        cyclic(
            &[parent, ("x/b.rs", "pub struct B(super::A);")],
            &["x/b.rs", "x/mod.rs"],
        );
        // Paths without an import, also from inline modules.
        cyclic(
            &[
                ("x/mod.rs", "mod b; mod c;"),
                ("x/b.rs", "mod m { fn f() { super::super::c::f() } }"),
                ("x/c.rs", "fn f() { crate::x::b::f() }"),
            ],
            &["x/b.rs", "x/c.rs"],
        );
        let test = "#[cfg(test)]\nmod tests { use crate::x::b; }";
        cyclic(&[("x/b.rs", "use super::c::f;"), ("x/c.rs", test)], &[]);
    }
}
