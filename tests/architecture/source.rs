//! A Rust file as far as the rules need it: tokens without comments and tests, paths, imports,
//! items and functions. It is no compiler: macros are read as they are written.

use std::collections::BTreeSet;

/// One token; a literal is one token without its content.
#[derive(Debug, Clone)]
pub struct Token {
    pub text: String,
    pub line: usize,
    pub last_line: usize,
}

/// `use a::b as c`; `alias` is `*` for a glob.
#[derive(Debug)]
pub struct Import {
    pub line: usize,
    pub path: Vec<String>,
    pub alias: String,
    pub public: bool,
}

/// `a::b::c` as it is written, outside `use`.
#[derive(Debug)]
pub struct PathUse {
    pub path: Vec<String>,
    pub line: usize,
}

#[derive(Debug)]
pub struct Function {
    pub name: String,
    pub line: usize,
    /// Lines that have code.
    pub lines: usize,
}

#[derive(Debug)]
pub struct PublicType {
    pub name: String,
    pub line: usize,
}

#[derive(Debug)]
pub struct Source {
    /// The path below `src/`, such as `proxy/mod.rs`.
    pub name: String,
    pub tokens: Vec<Token>,
    pub imports: Vec<Import>,
    pub paths: Vec<PathUse>,
    /// Names that the file defines.
    pub items: BTreeSet<String>,
    pub functions: Vec<Function>,
    pub public_types: Vec<PublicType>,
    /// Child modules that exist for tests only.
    pub test_modules: Vec<String>,
    /// Lines, without tests.
    pub lines: usize,
    pub claims_purity: bool,
}

impl Source {
    pub fn parse(name: &str, text: &str) -> Source {
        let mut tokens = lex(text);
        let (test_modules, test_lines) = remove_tests(&mut tokens);
        let (imports, paths) = paths(&tokens);
        Source {
            name: name.to_owned(),
            imports,
            paths,
            items: items(&tokens),
            functions: functions(&tokens),
            public_types: public_types(&tokens),
            test_modules,
            lines: text.lines().count() - test_lines,
            claims_purity: claims_purity(text),
            tokens,
        }
    }

    /// Every path in the file, those of imports included, with its line.
    pub fn all_paths(&self) -> impl Iterator<Item = (&[String], usize)> {
        let imports = self.imports.iter().map(|used| (&*used.path, used.line));
        imports.chain(self.paths.iter().map(|used| (&*used.path, used.line)))
    }

    /// The path of the file's module: `["proxy", "h1"]` for `proxy/h1/mod.rs` and `proxy/h1.rs`.
    pub fn module(&self) -> Vec<String> {
        let mut path: Vec<String> = self
            .name
            .trim_end_matches(".rs")
            .split('/')
            .map(str::to_owned)
            .collect();
        if ["mod", "lib"].contains(&path[path.len() - 1].as_str()) {
            path.pop();
        }
        path
    }

    /// The folder or file right below `src/` that the file belongs to.
    pub fn top_module(&self) -> &str {
        let first = self.name.split('/').next().unwrap_or_default();
        first.trim_end_matches(".rs")
    }
}

/// A file says in its first comment that it is pure as a whole: with the word `PURE.`
fn claims_purity(text: &str) -> bool {
    text.lines()
        .take_while(|line| line.starts_with("//!"))
        .any(|line| line.contains("PURE.") || line.contains("PURE:"))
}

fn lex(text: &str) -> Vec<Token> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < bytes.len() {
        let start = at;
        let first_line = line;
        let rest = &text[at..];
        let mut token = None;
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if rest.starts_with("/*") {
            at = after_block_comment(bytes, at);
        } else if let Some(end) = string_end(bytes, at) {
            at = end;
            token = Some("\"\"".to_owned());
        } else if bytes[at] == b'\'' {
            at = quote_end(text, at);
            token = Some("'".to_owned());
        } else if is_name(bytes[at]) {
            while at < bytes.len() && is_name(bytes[at]) {
                at += 1;
            }
            token = Some(text[start..at].to_owned());
        } else if rest.starts_with("::") {
            at += 2;
            token = Some("::".to_owned());
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
            token = Some(text[start..at].to_owned()).filter(|text| !text.trim().is_empty());
        }
        line += text[start..at].matches('\n').count();
        if let Some(text) = token {
            tokens.push(Token {
                text,
                line: first_line,
                last_line: line,
            });
        }
    }
    tokens
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn after_block_comment(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// The end of the string literal that begins here: `"…"`, `b"…"`, `c"…"`, `r#"…"#`.
fn string_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    while at < bytes.len() && at - start < 2 && b"brc".contains(&bytes[at]) {
        at += 1;
    }
    let raw = bytes[start..at].contains(&b'r');
    let mut hashes = 0;
    while raw && bytes.get(at) == Some(&b'#') {
        hashes += 1;
        at += 1;
    }
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    at += 1;
    while at < bytes.len() {
        if !raw && bytes[at] == b'\\' {
            at += 2;
        } else if bytes[at] == b'"' && bytes[at + 1..].iter().take(hashes).all(|b| *b == b'#') {
            return Some(at + 1 + hashes);
        } else {
            at += 1;
        }
    }
    Some(bytes.len())
}

/// The end of a character, or of the quote of a lifetime.
fn quote_end(text: &str, start: usize) -> usize {
    let mut chars = text[start + 1..].char_indices();
    match chars.next() {
        Some((_, '\\')) => {
            let body = &text[start + 3..];
            start + 3 + body.find('\'').map_or(body.len(), |at| at + 1)
        }
        Some((_, c)) if text[start + 1 + c.len_utf8()..].starts_with('\'') => {
            start + 2 + c.len_utf8()
        }
        _ => start + 1,
    }
}

fn is(tokens: &[Token], at: usize, text: &str) -> bool {
    tokens.get(at).is_some_and(|token| token.text == text)
}

fn starts_with(tokens: &[Token], at: usize, texts: &[&str]) -> bool {
    (0..texts.len()).all(|n| is(tokens, at + n, texts[n]))
}

/// The index after the bracket that closes the one at `at`.
fn after_group(tokens: &[Token], mut at: usize) -> usize {
    let mut depth = 0;
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return at;
        }
    }
    at
}

/// Where the item that begins here ends, and where its body begins if it has one.
fn item_end(tokens: &[Token], mut at: usize) -> (usize, Option<usize>) {
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            ";" => return (at + 1, None),
            "{" => return (after_group(tokens, at), Some(at)),
            "(" | "[" => at = after_group(tokens, at),
            _ => at += 1,
        }
    }
    (at, None)
}

/// Takes out items under `#[cfg(test)]`. Returns the modules among them that are files, and the
/// number of lines.
fn remove_tests(tokens: &mut Vec<Token>) -> (Vec<String>, usize) {
    let (mut modules, mut lines, mut at) = (Vec::new(), 0, 0);
    while at < tokens.len() {
        if !starts_with(tokens, at, &["#", "[", "cfg", "(", "test", ")", "]"]) {
            at += 1;
            continue;
        }
        let mut item = at + 7;
        while is(tokens, item, "#") {
            item = after_group(tokens, item + 1);
        }
        let (end, body) = item_end(tokens, item);
        if is(tokens, item, "mod") && body.is_none() {
            modules.push(tokens[item + 1].text.clone());
        }
        lines += tokens[end - 1].last_line - tokens[at].line + 1;
        tokens.drain(at..end);
    }
    (modules, lines)
}

fn paths(tokens: &[Token]) -> (Vec<Import>, Vec<PathUse>) {
    let (mut imports, mut paths) = (Vec::new(), Vec::new());
    // Where the inline modules around this place end.
    let mut inline: Vec<usize> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        inline.retain(|end| *end > at);
        let name_follows = |at: usize| {
            tokens
                .get(at)
                .is_some_and(|t| is_name(t.text.as_bytes()[0]))
        };
        if is(tokens, at, "mod") && name_follows(at + 1) && is(tokens, at + 2, "{") {
            inline.push(after_group(tokens, at + 2));
            at += 3;
        } else if is(tokens, at, "use") && (name_follows(at + 1) || is(tokens, at + 1, "::")) {
            let public = at > 0 && (is(tokens, at - 1, "pub") || is(tokens, at - 1, ")"));
            let mut prefix = Vec::new();
            let first = imports.len();
            at = use_tree(tokens, at + 1, &mut prefix, public, &mut imports);
            for import in &mut imports[first..] {
                leave_inline_modules(&mut import.path, inline.len());
            }
        } else if name_follows(at) && !(at > 0 && is(tokens, at - 1, ".")) {
            let mut path = vec![tokens[at].text.clone()];
            let line = tokens[at].line;
            at += 1;
            while is(tokens, at, "::") && name_follows(at + 1) {
                path.push(tokens[at + 1].text.clone());
                at += 2;
            }
            leave_inline_modules(&mut path, inline.len());
            paths.push(PathUse { path, line });
        } else {
            at += 1;
        }
    }
    (imports, paths)
}

/// Reads one branch of a `use`; returns the index after it.
fn use_tree(
    tokens: &[Token],
    mut at: usize,
    prefix: &mut Vec<String>,
    public: bool,
    imports: &mut Vec<Import>,
) -> usize {
    let depth = prefix.len();
    loop {
        match tokens.get(at).map(|token| token.text.as_str()) {
            Some("::") => at += 1,
            Some("{") => {
                let end = after_group(tokens, at);
                at += 1;
                while at < end - 1 {
                    at = use_tree(tokens, at, prefix, public, imports);
                }
                prefix.truncate(depth);
                return if is(tokens, end, ",") || is(tokens, end, ";") {
                    end + 1
                } else {
                    end
                };
            }
            Some("," | ";" | "}") | None => {
                if prefix.len() > depth {
                    let mut path = prefix.clone();
                    let mut alias = path[path.len() - 1].clone();
                    if let Some(word) = path.iter().position(|word| word == "as") {
                        alias = path[word + 1].clone();
                        path.truncate(word);
                    }
                    if path.len() > 1 && path[path.len() - 1] == "self" {
                        path.pop();
                        if alias == "self" {
                            alias = path[path.len() - 1].clone();
                        }
                    }
                    imports.push(Import {
                        line: tokens[at - 1].line,
                        path,
                        alias,
                        public,
                    });
                }
                prefix.truncate(depth);
                return if is(tokens, at, "}") { at } else { at + 1 };
            }
            Some(word) => {
                prefix.push(word.to_owned());
                at += 1;
            }
        }
    }
}

/// Makes a path that is written inside inline modules one of the file.
fn leave_inline_modules(path: &mut Vec<String>, depth: usize) {
    let supers = path.iter().take_while(|word| *word == "super").count();
    let left = supers.min(depth);
    path.drain(..left);
    if left > 0 && path.first().is_none_or(|word| word != "super") {
        path.insert(0, "self".to_owned());
    }
}

fn items(tokens: &[Token]) -> BTreeSet<String> {
    const KEYWORDS: &[&str] = &[
        "fn", "struct", "enum", "trait", "type", "const", "static", "union",
    ];
    let mut items = BTreeSet::new();
    for at in 1..tokens.len() {
        let keyword = tokens[at - 1].text.as_str();
        if KEYWORDS.contains(&keyword) && is_name(tokens[at].text.as_bytes()[0]) {
            items.insert(tokens[at].text.clone());
        }
        if keyword == "!" && at > 1 && tokens[at - 2].text == "macro_rules" {
            items.insert(tokens[at].text.clone());
        }
    }
    items
}

fn functions(tokens: &[Token]) -> Vec<Function> {
    let mut functions = Vec::new();
    for at in 0..tokens.len() {
        if !is(tokens, at, "fn")
            || !tokens
                .get(at + 1)
                .is_some_and(|t| is_name(t.text.as_bytes()[0]))
        {
            continue;
        }
        let (end, Some(_)) = item_end(tokens, at) else {
            continue;
        };
        let lines: BTreeSet<usize> = tokens[at..end]
            .iter()
            .flat_map(|token| token.line..=token.last_line)
            .collect();
        functions.push(Function {
            name: tokens[at + 1].text.clone(),
            line: tokens[at].line,
            lines: lines.len(),
        });
    }
    functions
}

fn public_types(tokens: &[Token]) -> Vec<PublicType> {
    let mut types = Vec::new();
    for at in 0..tokens.len() {
        if !is(tokens, at, "pub") {
            continue;
        }
        let keyword = if is(tokens, at + 1, "(") {
            after_group(tokens, at + 1)
        } else {
            at + 1
        };
        if ["struct", "enum", "trait", "union", "type"]
            .iter()
            .any(|word| is(tokens, keyword, word))
        {
            types.push(PublicType {
                name: tokens[keyword + 1].text.clone(),
                line: tokens[at].line,
            });
        }
    }
    types
}
