//! Which file uses which, and the cycles among them.

use crate::source::Source;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The files of the crate by the path of their module.
pub struct Crate<'a> {
    modules: BTreeMap<Vec<String>, &'a Source>,
}

enum Found<'a> {
    Item(&'a Source),
    Module(&'a Source),
}

impl<'a> Crate<'a> {
    pub fn new(sources: &'a [Source]) -> Crate<'a> {
        let modules = sources
            .iter()
            .map(|source| (source.module(), source))
            .collect();
        Crate { modules }
    }

    /// The names of the files that `source` uses. A re-export that the file itself does not use
    /// is no use: who names the re-exported item uses the file that defines it.
    pub fn uses(&self, source: &'a Source) -> BTreeSet<&'a str> {
        let mentioned: BTreeSet<&str> = source
            .paths
            .iter()
            .map(|used| used.path[0].as_str())
            .collect();
        let module = source.module();
        let imports = source
            .imports
            .iter()
            .filter(|import| !import.public || mentioned.contains(import.alias.as_str()))
            .map(|import| (import.alias == "*", import.path.as_slice()));
        let paths = source
            .paths
            .iter()
            .map(|used| (false, used.path.as_slice()))
            .filter(|(_, path)| path.len() > 1);
        imports
            .chain(paths)
            .filter_map(|(glob, path)| {
                let path = &path[..path.len() - usize::from(glob)];
                match self.find(&module, path, 0)? {
                    Found::Item(used) => Some(used),
                    // The import of a module that has modules is a prefix: what is named below it
                    // counts.
                    Found::Module(used) => {
                        Some(used).filter(|used| glob || !self.has_children(used))
                    }
                }
            })
            .map(|used| used.name.as_str())
            .filter(|used| *used != source.name)
            .collect()
    }

    fn has_children(&self, source: &Source) -> bool {
        let module = source.module();
        self.modules
            .keys()
            .any(|other| other.len() > module.len() && other.starts_with(&module))
    }

    /// The file that `path`, written in the module `from`, leads to; `None` outside the crate.
    fn find(&self, from: &[String], path: &[String], hops: usize) -> Option<Found<'a>> {
        if hops > 8 {
            return None;
        }
        let mut at = from.to_vec();
        let mut inside = false;
        for (n, word) in path.iter().enumerate() {
            match word.as_str() {
                "crate" => (at, inside) = (Vec::new(), true),
                "self" => inside = true,
                "super" => {
                    at.pop();
                    inside = true;
                }
                _ => {
                    let child: Vec<String> = at.iter().chain([word]).cloned().collect();
                    if self.modules.contains_key(&child) {
                        (at, inside) = (child, true);
                        continue;
                    }
                    let file = *self.modules.get(&at)?;
                    return self
                        .find_in(file, &path[n..], hops)
                        .or(inside.then_some(Found::Item(file)));
                }
            }
        }
        self.modules.get(&at).map(|file| Found::Module(file))
    }

    /// What a file defines or imports under the first name of `path`.
    fn find_in(&self, file: &'a Source, path: &[String], hops: usize) -> Option<Found<'a>> {
        if file.items.contains(&path[0]) {
            return Some(Found::Item(file));
        }
        let module = file.module();
        let import = |import: &crate::source::Import| {
            let found = import
                .path
                .iter()
                .chain(&path[1..])
                .cloned()
                .collect::<Vec<_>>();
            // `use libc;` leads out of the crate, not to itself.
            (found != path).then_some(found)
        };
        if let Some(named) = file.imports.iter().find(|import| import.alias == path[0]) {
            return self.find(&module, &import(named)?, hops + 1);
        }
        file.imports
            .iter()
            .filter(|import| import.alias == "*")
            .find_map(|glob| {
                let prefix = &glob.path[..glob.path.len() - 1];
                match self.find(&module, prefix, hops + 1)? {
                    Found::Module(other) if other.name != file.name => {
                        self.find_in(other, path, hops + 1)
                    }
                    _ => None,
                }
            })
    }
}

/// A shortest way from a file back to itself, for each file that has one.
pub fn cycles<'a>(uses: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeMap<&'a str, Vec<&'a str>> {
    let mut cycles = BTreeMap::new();
    for start in uses.keys() {
        let mut before: BTreeMap<&str, &str> = BTreeMap::new();
        let mut queue = VecDeque::from([*start]);
        while let Some(at) = queue.pop_front() {
            for next in uses.get(at).into_iter().flatten() {
                if !before.contains_key(next) {
                    before.insert(next, at);
                    queue.push_back(next);
                }
            }
        }
        if before.contains_key(start) {
            let mut way = vec![*start];
            loop {
                let at = before[way[way.len() - 1]];
                way.push(at);
                if at == *start {
                    break;
                }
            }
            way.reverse();
            cycles.insert(*start, way);
        }
    }
    cycles
}
