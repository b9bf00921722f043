//! `archive:`: where all records are written as Parquet.

use super::plan::{Archive, ArchiveTarget, BucketPath};
use super::reader::Node;
use crate::features::Feature;
use std::path::PathBuf;
use std::time::Duration;

const TO: &str = "s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, or the path of a directory, relative to this file";
const EVERY: &str = "how often files are written, from 1s to 1d; 5m unless given";
const EVERY_DEFAULT: Duration = Duration::from_secs(300);
const DAY: (Duration, &str) = (Duration::from_secs(86_400), "day");
/// The least backlog: the size of the smallest segment.
const BACKLOG_MIN: u64 = 1 << 20;

/// Reads `archive`. At most half of the journal, whose quota is `quota_bytes`, may wait for it: the rest is for an
/// unavailable store.
pub(super) fn read(root: &Node<'_>, quota_bytes: u64) -> Option<Archive> {
    let node = root.get("archive")?;
    let is_map = node.keys(&[
        ("to", TO),
        ("every", EVERY),
        (
            "backlog",
            "the most bytes of the journal that wait for an unavailable archive, such as 256MiB; a quarter of journal.quota unless given",
        ),
    ]);
    if !is_map {
        return None;
    }
    node.needs(Feature::Archive, "leave `archive` out");
    let every = every(&node, EVERY_DEFAULT, DAY, EVERY);
    let backlog_bytes = backlog(&node, quota_bytes);
    let Some(to) = node.get("to") else {
        node.missing("to", TO);
        return None;
    };
    Some(Archive {
        to: target(root, &to)?,
        every,
        backlog_bytes,
    })
}

/// Reads how long records gather: from a second to `most`, which has a name.
pub(super) fn every(
    node: &Node<'_>,
    default: Duration,
    (most, name): (Duration, &str),
    allowed: &str,
) -> Duration {
    let Some(node) = node.get("every") else {
        return default;
    };
    let every = node.duration().unwrap_or(default);
    if every < Duration::from_secs(1) {
        node.problem("more often than every second", allowed);
    } else if every > most {
        node.problem(format!("less often than every {name}"), allowed);
    }
    every
}

/// Reads the most bytes of the journal that wait for somebody who is unavailable.
pub(super) fn backlog(node: &Node<'_>, quota_bytes: u64) -> u64 {
    let bytes = node.get("backlog").and_then(|node| {
        let bytes = node.bytes()?;
        let most = quota_bytes / 2;
        let size = |bytes| bytesize::ByteSize::b(bytes).display().iec().to_string();
        if bytes < BACKLOG_MIN || bytes > most {
            node.problem(
                format!("found {}", size(bytes)),
                format!(
                    "at least {}, and at most half of journal.quota, which is {}: the other half is for an unavailable store",
                    size(BACKLOG_MIN),
                    size(most)
                ),
            );
        }
        Some(bytes)
    });
    bytes.unwrap_or(quota_bytes / 4)
}

fn target(root: &Node<'_>, node: &Node<'_>) -> Option<ArchiveTarget> {
    let text = node.path_text(TO)?;
    match parse(text) {
        Ok(ArchiveTarget::Folder(path)) => folder(node, root.file(path.to_str().unwrap_or(text))),
        Ok(target) => Some(target),
        Err(why) => {
            node.problem(why, TO);
            None
        }
    }
}

fn folder(node: &Node<'_>, path: PathBuf) -> Option<ArchiveTarget> {
    if std::fs::metadata(&path).is_ok_and(|found| !found.is_dir()) {
        node.problem(
            format!("{} is a file", path.display()),
            "the path of a directory, which is created if it is missing",
        );
        return None;
    }
    Some(ArchiveTarget::Folder(path))
}

/// Reads where an archive is. An error says what is wrong.
pub fn parse(text: &str) -> Result<ArchiveTarget, String> {
    let Some((scheme, place)) = text.split_once("://") else {
        return match text.is_empty() {
            true => Err("an empty text".to_owned()),
            false => Ok(ArchiveTarget::Folder(text.into())),
        };
    };
    let of_bucket: fn(BucketPath) -> ArchiveTarget = match scheme {
        "s3" => ArchiveTarget::S3,
        "gs" => ArchiveTarget::GoogleCloud,
        "az" => ArchiveTarget::Azure,
        _ => return Err(format!("{scheme}:// is not a known archive")),
    };
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    if bucket.is_empty() || bucket.contains(['@', '?', '#', ':', ' ']) {
        return Err(format!(
            "{scheme}:// is followed by the name of a bucket alone; credentials and endpoints come from the environment"
        ));
    }
    if prefix.contains(['?', '#']) {
        // A query may hold credentials, so it is not shown.
        return Err("a bucket and a prefix have no query and no fragment; credentials and endpoints come from the environment".to_owned());
    }
    let prefix = prefix.trim_matches('/');
    let is_sound = |part: &str| !part.is_empty() && part != "." && part != "..";
    if !prefix.is_empty() && !prefix.split('/').all(is_sound) {
        return Err(format!("{prefix:?} is not a prefix of keys"));
    }
    Ok(of_bucket(BucketPath {
        bucket: bucket.into(),
        prefix: prefix.into(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use std::path::Path;

    /// The archive of a file, or its problems.
    fn read(archive: &str) -> Result<Archive, Vec<String>> {
        let text = format!("upstreams: {{ a: \"http://127.0.0.1:1\" }}\narchive: {archive}");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("routes.yaml");
        let read = config::parse(&text, &path, &|_| None);
        read.map(|plan| plan.archive.unwrap()).map_err(|invalid| {
            let diagnostics = invalid.diagnostics.iter();
            diagnostics
                .map(|it| format!("{}: {}", it.key, it.found))
                .collect()
        })
    }

    #[test]
    fn targets_are_directories_beside_the_file_or_buckets() {
        let shown = |archive: &str| read(archive).unwrap().to.to_string();
        let folder = format!("{}/out", env!("CARGO_MANIFEST_DIR"));
        assert_eq!(shown("{ to: out }"), folder);
        assert_eq!(shown("{ to: /var/out }"), "/var/out");
        assert_eq!(shown("{ to: \"s3://b\" }"), "s3://b");
        assert_eq!(shown("{ to: \"gs://b/x/y/\" }"), "gs://b/x/y");
        assert_eq!(shown("{ to: \"az://c/x\" }"), "az://c/x");
        let archive = read("{ to: out }").unwrap();
        assert_eq!(archive.every, Duration::from_secs(300));
        assert_eq!(archive.backlog_bytes, 256 << 20);
        let archive = read("{ to: out, every: 1s, backlog: 512MiB }").unwrap();
        assert_eq!(archive.every, Duration::from_secs(1));
        assert_eq!(archive.backlog_bytes, 512 << 20);
    }

    #[test]
    fn invalid_archive_is_reported_where_it_is_written() {
        #[track_caller]
        fn check(archive: &str, expected: &str) {
            assert_eq!(read(archive).unwrap_err(), [expected], "{archive}");
        }
        let manifest = format!("{}/Cargo.toml is a file", env!("CARGO_MANIFEST_DIR"));
        let bucket = "archive.to: s3:// is followed by the name of a bucket alone; credentials and endpoints come from the environment";
        check("out", "archive: the text \"out\" instead of keys");
        check("{ every: 1m }", "archive: `to` is missing");
        check(
            "{ to: \"ftp://b\" }",
            "archive.to: ftp:// is not a known archive",
        );
        check("{ to: \"s3:///x\" }", bucket);
        check("{ to: \"s3://key:secret@b\" }", bucket);
        check(
            "{ to: \"s3://b/c?key=secret\" }",
            "archive.to: a bucket and a prefix have no query and no fragment; credentials and endpoints come from the environment",
        );
        check(
            "{ to: \"s3://b/../c\" }",
            "archive.to: \"../c\" is not a prefix of keys",
        );
        check("{ to: Cargo.toml }", &format!("archive.to: {manifest}"));
        check(
            "{ to: out, every: 999ms }",
            "archive.every: more often than every second",
        );
        check(
            "{ to: out, every: 2d }",
            "archive.every: less often than every day",
        );
        check(
            "{ to: out, backlog: 600MiB }",
            "archive.backlog: found 600.0 MiB",
        );
        check("{ to: out, ever: 1m }", "archive.ever: unknown key");
    }
}
