//! The routes file and the files that its `files` names, merged into one value.

use super::diagnostic::Diagnostic;
use super::environment::{self, Environment};
use super::file::{self, Value};
use super::source_map::{Position, SourceMap};
use std::path::{Path, PathBuf};

/// The keys of which an included file may have entries, and what one entry is.
const SECTIONS: &[(&str, &str)] = &[
    ("upstreams", "upstream"),
    ("experiments", "experiment"),
    ("metrics", "metric"),
];
/// The most files that may be included: far more than anybody writes.
const FILES_MAX: usize = 1000;

/// A file that was read, or that could not be read.
#[derive(Clone, Debug)]
pub(super) struct SourceFile {
    /// Its path, as the user named it.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// The routes file with the files that it includes.
#[derive(Debug)]
pub(super) struct RoutesDocument {
    /// All values, as they are written.
    pub value: Value,
    /// The positions of all keys.
    pub source_map: SourceMap,
    /// The routes file, then the included ones.
    pub files: Vec<SourceFile>,
    /// The patterns of `files`: a new file that matches one is a change.
    pub patterns: Vec<String>,
    /// The errors of included files, each with its position.
    pub diagnostics: Vec<(Position, Diagnostic)>,
    /// What is valid in `files`, but probably not meant.
    pub warnings: Vec<(Position, Diagnostic)>,
}

impl RoutesDocument {
    /// Parses the text of the routes file, and reads the files that it includes. The error is that of
    /// a routes file that is not YAML.
    pub(super) fn read(
        path: &Path,
        text: &str,
        environment: &Environment<'_>,
    ) -> Result<RoutesDocument, Box<Diagnostic>> {
        let (value, source_map) = file::parse(path, text, 0)?;
        let mut document = RoutesDocument {
            value,
            source_map,
            files: vec![SourceFile {
                path: path.to_owned(),
                text: text.to_owned(),
            }],
            patterns: Vec::new(),
            diagnostics: Vec::new(),
            warnings: Vec::new(),
        };
        for (key, named) in document.named_files(environment) {
            for path in document.paths_of(&key, &named) {
                document.include(&key, path);
            }
        }
        Ok(document)
    }

    /// Returns the items of `files`, each with its path in the document. Others than texts are reported
    /// when `files` is read.
    fn named_files(&self, environment: &Environment<'_>) -> Vec<(Vec<String>, String)> {
        let Value::Map(root) = &self.value else {
            return Vec::new();
        };
        let files = root.iter().find(|(key, _)| key == "files");
        let text = |value: &Value| match value {
            Value::Text(text) => environment::expand(text, environment).ok(),
            _ => None,
        };
        match files.map(|(_, value)| value) {
            Some(Value::List(items)) => {
                let items = items.iter().enumerate();
                let item = |(place, value): (usize, &Value)| {
                    Some((vec!["files".to_owned(), place.to_string()], text(value)?))
                };
                items.filter_map(item).collect()
            }
            Some(value) => {
                let only = text(value).map(|text| (vec!["files".to_owned()], text));
                only.into_iter().collect()
            }
            None => Vec::new(),
        }
    }

    /// Returns the files of an item: the path, or all that match a pattern, sorted.
    fn paths_of(&mut self, key: &[String], named: &str) -> Vec<PathBuf> {
        let folder = self.files[0].path.parent().unwrap_or(Path::new(""));
        if !named.contains(['*', '?', '[']) {
            return vec![folder.join(named)];
        }
        let pattern = match Path::new(named).is_absolute() || folder == Path::new("") {
            true => named.to_owned(),
            false => format!(
                "{}/{named}",
                glob::Pattern::escape(&folder.display().to_string())
            ),
        };
        match matching(&pattern) {
            Ok(paths) => {
                if paths.is_empty() {
                    let warning = self.problem_of(
                        key,
                        format!("no file matches {named:?}"),
                        "a pattern is relative to this file, and matches no folders and no hidden files",
                    );
                    self.warnings.push(warning);
                }
                self.patterns.push(pattern);
                paths
            }
            Err(error) => {
                let found = format!("{named:?} is not a pattern: {error}");
                self.report(
                    key,
                    found,
                    "a path, or a pattern such as experiments/*.yaml",
                );
                Vec::new()
            }
        }
    }

    /// Includes a file, once.
    fn include(&mut self, key: &[String], path: PathBuf) {
        let same = |known: &SourceFile| {
            known.path == path
                || matches!(
                    (known.path.canonicalize(), path.canonicalize()),
                    (Ok(known), Ok(path)) if known == path
                )
        };
        if self.files.iter().any(same) {
            return;
        }
        if self.files.len() > FILES_MAX {
            return self.report(
                key,
                format!("more than {FILES_MAX} files"),
                "is this the right pattern?",
            );
        }
        let index = self.files.len();
        let read = file::read_regular(&path);
        let text = read.as_ref().cloned().unwrap_or_default();
        self.files.push(SourceFile {
            path: path.clone(),
            text: text.clone(),
        });
        if let Err(error) = read {
            let why = error.found.trim_start_matches("cannot be read: ");
            let found = format!("{} cannot be read: {why}", path.display());
            let allowed = "name a file that exists, relative to this one";
            return self.report(key, found, allowed);
        }
        match file::parse(&path, &text, index) {
            Ok((value, source_map)) => self.merge(value, source_map, index),
            Err(error) => {
                let (line, column) = error.place.unwrap_or((1, 1));
                let position = Position {
                    file: index,
                    line,
                    column,
                };
                self.diagnostics.push((position, *error));
            }
        }
    }

    /// Adds the entries of an included file.
    fn merge(&mut self, included: Value, positions: SourceMap, index: usize) {
        let allowed = "an included file has upstreams, experiments and metrics";
        let mut entries = Vec::new();
        let mut faults = Vec::new();
        match included {
            Value::Nothing => {}
            Value::Map(sections) => entries = sections,
            _ => {
                let found = "this file has no keys".to_owned();
                faults.push((Vec::new(), found, allowed.to_owned()));
            }
        }
        for (section, value) in entries {
            let Some((_, what)) = SECTIONS.iter().find(|(name, _)| *name == section) else {
                let found = format!("`{section}` stands in an included file");
                let main = self.files[0].path.display();
                let allowed = format!("{allowed}; move `{section}` to {main}");
                faults.push((vec![section], found, allowed));
                continue;
            };
            let named = match value {
                Value::Map(named) => named,
                Value::Nothing => continue,
                _ => {
                    let allowed = format!("write a name for each {what}, then what it is");
                    faults.push((vec![section], "there are no names".to_owned(), allowed));
                    continue;
                }
            };
            for (name, value) in named {
                let path = vec![section.clone(), name.clone()];
                if !self.add(&section, name, value) {
                    let first = self.source_map.find(&path).key;
                    let file = self.files[first.file].path.display();
                    let found = format!(
                        "this {what} is also defined at {file}:{}:{}",
                        first.line, first.column
                    );
                    faults.push((
                        path,
                        found,
                        "delete one of the two, or rename it".to_owned(),
                    ));
                }
            }
        }
        for (path, found, allowed) in faults {
            let at = positions.find(&path).key;
            let at = Position { file: index, ..at };
            let problem = self.diagnostic(&path, at, found, &allowed);
            self.diagnostics.push((at, problem));
        }
        self.source_map.include(positions);
    }

    /// Adds an entry to a section, unless there is one of this name.
    fn add(&mut self, section: &str, name: String, value: Value) -> bool {
        let Value::Map(root) = &mut self.value else {
            return true;
        };
        let place = root.iter().position(|(key, _)| key == section);
        let place = place.unwrap_or_else(|| {
            root.push((section.to_owned(), Value::Nothing));
            root.len() - 1
        });
        let held = &mut root[place].1;
        if *held == Value::Nothing {
            *held = Value::Map(Vec::new());
        }
        // Anything else is reported when the section is read.
        let Value::Map(entries) = held else {
            return true;
        };
        let is_new = entries.iter().all(|(known, _)| *known != name);
        if is_new {
            entries.push((name, value));
        }
        is_new
    }

    fn report(&mut self, key: &[String], found: String, allowed: &str) {
        let problem = self.problem_of(key, found, allowed);
        self.diagnostics.push(problem);
    }

    fn problem_of(&self, key: &[String], found: String, allowed: &str) -> (Position, Diagnostic) {
        let at = self.source_map.find(key).value;
        (at, self.diagnostic(key, at, found, allowed))
    }

    fn diagnostic(&self, key: &[String], at: Position, found: String, allowed: &str) -> Diagnostic {
        Diagnostic {
            place: Some((at.line, at.column)),
            key: key.join("."),
            ..Diagnostic::of_file(&self.files[at.file].path, found, allowed)
        }
    }
}

/// Returns the files that match a pattern, sorted. A `*` does not match hidden files.
pub fn matching(pattern: &str) -> Result<Vec<PathBuf>, glob::PatternError> {
    let how = glob::MatchOptions {
        require_literal_leading_dot: true,
        require_literal_separator: true,
        ..glob::MatchOptions::default()
    };
    let found = glob::glob_with(pattern, how)?;
    // A folder that cannot be read has no files.
    Ok(found.flatten().filter(|path| !path.is_dir()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn included_files_are_merged_and_duplicates_name_both_places() {
        let folder = tempfile::TempDir::new().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        std::fs::create_dir(folder.path().join("d")).unwrap();
        write(
            "d/b.yaml",
            "metrics:\n  m: { event: m }\n  n: { event: n }\n",
        );
        write(
            "d/a.yaml",
            "upstreams: { b: http://127.0.0.1:2 }\nlisten: 1\nmetrics:\n",
        );
        write("d/.hidden.yaml", "listen: 1");
        write("c.yaml", "experiments: 1\n");
        let text = "files: [ \"d/*.yaml\", c.yaml, d/a.yaml, \"${NONE:-gone}.yaml\" ]\nmetrics:\n  m: { event: x }\n";
        let main = folder.path().join("routes.yaml");
        let document = RoutesDocument::read(&main, text, &|_| None).unwrap();
        let Value::Map(root) = &document.value else {
            panic!("{:?}", document.value);
        };
        let names = |section: &str| -> Vec<&str> {
            match root.iter().find(|(key, _)| key == section) {
                Some((_, Value::Map(map))) => map.iter().map(|(name, _)| &**name).collect(),
                _ => Vec::new(),
            }
        };
        assert_eq!(names("metrics"), ["m", "n"]);
        assert_eq!(names("upstreams"), ["b"]);
        let shown: Vec<String> = document
            .diagnostics
            .iter()
            .map(|(_, it)| {
                it.to_string()
                    .replace(&*folder.path().to_string_lossy(), "")
            })
            .collect();
        let starts = [
            "error: /d/a.yaml:2:1: listen: `listen` stands in an included file\n",
            "error: /d/b.yaml:2:3: metrics.m: this metric is also defined at /routes.yaml:3:3\n",
            "error: /c.yaml:1:1: experiments: there are no names\n",
            "error: /routes.yaml:1:40: files.3: /gone.yaml cannot be read: there is no such file\n",
        ];
        assert_eq!(shown.len(), starts.len(), "{shown:#?}");
        for (shown, start) in shown.iter().zip(starts) {
            assert!(shown.starts_with(start), "{shown}\n{start}");
        }
        let at = document
            .source_map
            .find(&["metrics".to_owned(), "n".to_owned()]);
        assert_eq!((at.key.file, at.key.line), (2, 3));
    }
}
