//! Links of the documentation: files and anchors exist, and the book has every page.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// A Markdown file: the anchors that it has, and its links to other places of the repository.
struct Page {
    anchors: BTreeSet<String>,
    links: Vec<String>,
}

impl Page {
    fn read(text: &str) -> Page {
        let mut anchors = BTreeSet::new();
        let mut links = Vec::new();
        let mut in_code = false;
        for line in text.lines() {
            if line.trim_start().starts_with("```") {
                in_code = !in_code;
            }
            if in_code {
                continue;
            }
            if let Some(heading) = line.strip_prefix('#') {
                anchors.insert(unused(
                    &anchors,
                    slug(heading.trim_start_matches('#').trim()),
                ));
            }
            let ids = line.split("<a id=\"").skip(1);
            anchors.extend(ids.filter_map(|it| Some(it.split_once('"')?.0.to_owned())));
        }
        // A link may go over the end of a line.
        let prose = without_code(text);
        for part in prose.split("](").skip(1) {
            if let Some((target, _)) = part.split_once(')') {
                links.push(target.trim().to_owned());
            }
        }
        Page { anchors, links }
    }
}

/// The anchor of a heading, as GitHub and mdBook make it.
fn slug(heading: &str) -> String {
    let kept = heading.chars().filter_map(|letter| match letter {
        ' ' => Some('-'),
        '-' | '_' => Some(letter),
        _ => letter.is_alphanumeric().then_some(letter),
    });
    kept.flat_map(char::to_lowercase).collect()
}

/// The second heading of the same words gets a number.
fn unused(anchors: &BTreeSet<String>, slug: String) -> String {
    let numbered = (1..).map(|number| format!("{slug}-{number}"));
    let mut all = std::iter::once(slug.clone()).chain(numbered);
    all.find(|it| !anchors.contains(it)).unwrap()
}

/// The text without code blocks and code spans, whose brackets are no links.
fn without_code(text: &str) -> String {
    let mut kept = String::new();
    let mut in_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
            continue;
        }
        if !in_code {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    // A code span may go over the end of a line, and contain `](`. The name of a link is kept empty.
    kept.split('`').step_by(2).collect()
}

/// Resolves `..` without asking the file system.
fn normal(path: &Path) -> PathBuf {
    let mut parts = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                parts.pop();
            }
            Component::CurDir => {}
            other => parts.push(other),
        }
    }
    parts
}

fn markdown_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            markdown_below(&path, found);
        } else if path.extension().is_some_and(|it| it == "md") {
            found.push(path);
        }
    }
}

fn pages() -> BTreeMap<PathBuf, Page> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    markdown_below(&root.join("docs"), &mut files);
    let beside = fs::read_dir(root).unwrap().map(|it| it.unwrap().path());
    files.extend(beside.filter(|it| it.extension().is_some_and(|it| it == "md")));
    let read = |path: PathBuf| {
        let page = Page::read(&fs::read_to_string(&path).unwrap());
        (path, page)
    };
    files.into_iter().map(read).collect()
}

#[test]
fn links_lead_to_files_and_anchors_that_exist() {
    let pages = pages();
    assert!(pages.len() > 40, "{}", pages.len());
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut wrong = Vec::new();
    for (path, page) in &pages {
        for link in page
            .links
            .iter()
            .filter(|it| !it.contains("://") && !it.starts_with("mailto:"))
        {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => path.clone(),
                file => normal(&path.parent().unwrap().join(file)),
            };
            let says = |what: &str| format!("{}: {link}: {what}", path.display());
            if !target.exists() {
                wrong.push(says("there is no such file"));
            } else if path.starts_with(&docs) && !target.starts_with(&docs) {
                wrong.push(says("it leaves docs/, so the book cannot show it"));
            }
            let known = |page: &Page| page.anchors.contains(anchor);
            if !anchor.is_empty() && !pages.get(&target).is_some_and(known) {
                wrong.push(says("there is no such heading"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_book_and_llms_txt_have_every_page() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let pages = pages();
    for list in ["SUMMARY.md", "llms.txt"] {
        let list = docs.join(list);
        let listed = Page::read(&fs::read_to_string(&list).unwrap()).links;
        let listed: BTreeSet<PathBuf> = listed.iter().map(|it| docs.join(it)).collect();
        let own = |path: &&PathBuf| path.starts_with(&docs) && !path.ends_with("SUMMARY.md");
        let missing: Vec<_> = pages
            .keys()
            .filter(own)
            .filter(|it| !listed.contains(*it))
            .collect();
        assert!(missing.is_empty(), "{} lacks {missing:?}", list.display());
        let gone: Vec<_> = listed.iter().filter(|it| !it.exists()).collect();
        assert!(gone.is_empty(), "{} has {gone:?}", list.display());
    }
}

#[test]
fn every_error_of_the_proxy_and_every_alert_has_its_fix() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    let terms = read("src/proxy/error_response.rs");
    let terms = terms.split("fn terms(self)").nth(1).unwrap();
    let terms = terms.split("\n    }\n").next().unwrap();
    let tokens: Vec<&str> = terms.split('"').skip(1).step_by(2).collect();
    assert!(tokens.len() > 25, "{tokens:?}");
    let page = read("docs/reference/errors.md");
    for token in tokens {
        assert!(
            page.contains(&format!("`{token}`")),
            "{token} is not in docs/reference/errors.md"
        );
    }
    let rules = read("dashboards/alerts.yaml");
    let alerts: Vec<&str> = rules
        .lines()
        .filter_map(|it| it.trim().strip_prefix("- alert: "))
        .collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    let page = read("docs/operate/alerts.md");
    for alert in alerts {
        assert!(
            page.contains(&format!("`{alert}`")),
            "{alert} is not in docs/operate/alerts.md"
        );
    }
}

#[test]
fn anchors_are_those_of_github() {
    let page = Page::read(
        "# What a `metric` counts, and when?\n## Twice\n## Twice\n[a](b.md#c) `[x](y)`\n```\n[d](e)\n```\n",
    );
    let anchors: Vec<&str> = page.anchors.iter().map(String::as_str).collect();
    assert_eq!(
        anchors,
        ["twice", "twice-1", "what-a-metric-counts-and-when"]
    );
    assert_eq!(page.links, ["b.md#c"]);
}
