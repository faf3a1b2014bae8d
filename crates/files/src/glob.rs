//! Patterns of paths, in the two dialects that configurations know.
//!
//! A pattern is compiled once, into segments between slashes; alternatives in braces become patterns of their own. All of
//! them are matched in one walk that reads each folder once, so that no path is found twice. What is found is sorted
//! within each folder, and a folder stands before what it holds.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::read::io_error_text;

/// The most patterns that alternatives in braces may stand for.
pub const ALTERNATIVES_MAX: usize = 1_000;

/// How deep a walk goes below the point where it begins, in folders.
pub const DEPTH_MAX: usize = 256;

/// The most paths that a walk finds.
pub const FOUND_MAX: usize = 1_000_000;

/// Which signs mean something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `*`, `?`, `[class]`, `[^class]` and `\` as escape, as Go's `filepath.Match` reads them.
    Go,
    /// These, and `**` as a whole segment for any number of folders, `{a,b}` for alternatives, and `[!class]`: as the
    /// `doublestar` library for Go reads them. `*` and `?` match a leading dot as well.
    DoubleStar,
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PatternError {
    /// A class or a brace is not closed, a class is empty, or an escape stands at the end.
    Syntax,
    /// There are more than [`ALTERNATIVES_MAX`] alternatives.
    TooManyAlternatives,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PatternError::Syntax => f.write_str("syntax error in pattern"),
            PatternError::TooManyAlternatives => {
                write!(f, "pattern has more than the limit of {ALTERNATIVES_MAX} alternatives")
            }
        }
    }
}

impl std::error::Error for PatternError {}

/// A compiled pattern.
#[derive(Clone, Debug)]
pub struct Pattern {
    dialect: Dialect,
    text: String,
    /// As it is matched against paths that are given.
    paths: Vec<Segments>,
    /// As the file system is walked by it: cleaned of `.`, `..` and superfluous slashes.
    walks: Vec<Segments>,
}

#[derive(Clone, Debug)]
struct Segments {
    absolute: bool,
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq)]
enum Segment {
    Literal(String),
    Tokens(Vec<Token>),
    /// Any number of folders.
    Any,
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Char(char),
    One,
    Many,
    Class { negated: bool, ranges: Vec<(char, char)> },
}

/// What a walk found.
#[derive(Debug, Default)]
pub struct Found {
    /// The paths, absolute if the pattern is.
    pub paths: Vec<PathBuf>,
    /// What could not be read, with the reason. What does not exist is no error.
    pub errors: Vec<String>,
    /// The first of what could not be read, with the reason, that the pattern says by name: nothing that it means can be
    /// found.
    pub refused: Option<String>,
    /// Whether the walk was ended early because of [`FOUND_MAX`].
    pub truncated: bool,
}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    ///
    /// What makes the text no pattern.
    pub fn new(text: &str, dialect: Dialect) -> Result<Self, PatternError> {
        let mut texts = Vec::new();
        match dialect {
            Dialect::Go => texts.push(text.to_owned()),
            Dialect::DoubleStar => expand(text, &mut texts)?,
        }
        let split = |clean: bool| texts.iter().map(|text| Segments::new(text, dialect, clean)).collect();
        let paths: Result<Vec<_>, _> = split(false);
        let walks: Result<Vec<_>, _> = split(true);
        Ok(Pattern { dialect, text: text.to_owned(), paths: paths?, walks: walks? })
    }

    /// The text that it was compiled from.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a path matches as a whole. The file system is not looked at.
    pub fn matches(&self, path: &str) -> bool {
        let names: Vec<&str> = path.split('/').collect();
        self.paths.iter().any(|pattern| pattern.matches(&names))
    }

    /// Walks the file system for what matches: files and folders. Links to folders are followed, but not into a folder
    /// that the walk is in already.
    pub fn walk(&self) -> Found {
        let mut paths = Vec::new();
        let found = self.walk_each(&mut |path| paths.push(path));
        Found { paths, ..found }
    }

    /// As [`walk`](Self::walk), with the paths given one by one, in the same order, rather than all together: there may be
    /// very many.
    pub fn walk_each(&self, each: &mut dyn FnMut(PathBuf)) -> Found {
        let mut found = Found::default();
        // Without a sign that means something the path stands for itself, as it is written.
        if self.dialect == Dialect::Go && !self.text.contains(['*', '?', '[', '\\']) {
            if !self.text.is_empty() && std::fs::symlink_metadata(&self.text).is_ok() {
                each(PathBuf::from(&self.text));
            }
            return found;
        }
        let mut count = 0;
        for absolute in [true, false] {
            let patterns: Vec<&[Segment]> =
                self.walks.iter().filter(|walk| walk.absolute == absolute).map(|walk| &*walk.segments).collect();
            if patterns.is_empty() {
                continue;
            }
            let base = PathBuf::from(if absolute { "/" } else { "" });
            let mut walk = Walk { patterns: &patterns, each, count, found: &mut found, links: Vec::new() };
            let mut states = BTreeSet::new();
            for at in 0..patterns.len() {
                walk.enter(&mut states, (at, 0));
            }
            walk.folder(&base, &states, 0, true);
            count = walk.count;
        }
        found
    }
}

impl Segments {
    fn new(text: &str, dialect: Dialect, clean: bool) -> Result<Self, PatternError> {
        let absolute = text.starts_with('/');
        let mut segments = Vec::new();
        // The empty pattern has no segment at all, and matches nothing but the empty path.
        for part in text.split('/') {
            if clean && (part.is_empty() || part == ".") {
                continue;
            }
            let segment = compile(part, dialect)?;
            if clean && segment == Segment::Literal("..".to_owned()) {
                match segments.last() {
                    Some(Segment::Literal(last)) if last == ".." => segments.push(segment),
                    Some(_) => drop(segments.pop()),
                    None if absolute => {}
                    None => segments.push(segment),
                }
                continue;
            }
            // Two in a row mean what one means.
            if segment == Segment::Any && segments.last() == Some(&Segment::Any) {
                continue;
            }
            segments.push(segment);
        }
        Ok(Segments { absolute, segments })
    }

    fn matches(&self, names: &[&str]) -> bool {
        let (mut segment, mut name) = (0, 0);
        // Where to go on if what follows does not match: after the last `**`, with one more name skipped.
        let mut back: Option<(usize, usize)> = None;
        loop {
            match self.segments.get(segment) {
                Some(Segment::Any) => {
                    back = Some((segment + 1, name));
                    segment += 1;
                    continue;
                }
                Some(pattern) if name < names.len() && pattern.matches(names[name]) => {
                    segment += 1;
                    name += 1;
                    continue;
                }
                None if name == names.len() => return true,
                Some(_) | None => {}
            }
            match back {
                Some((after, skipped)) if skipped < names.len() => {
                    back = Some((after, skipped + 1));
                    segment = after;
                    name = skipped + 1;
                }
                _ => return false,
            }
        }
    }
}

impl Segment {
    fn matches(&self, name: &str) -> bool {
        match self {
            Segment::Literal(text) => text == name,
            Segment::Tokens(tokens) => matches_tokens(tokens, name),
            Segment::Any => true,
        }
    }
}

fn matches_tokens(tokens: &[Token], name: &str) -> bool {
    let (mut token, mut rest) = (0, name);
    let mut back: Option<(usize, &str)> = None;
    loop {
        let mut characters = rest.chars();
        let next = characters.next();
        match (tokens.get(token), next) {
            (Some(Token::Many), _) => {
                token += 1;
                back = Some((token, rest));
                continue;
            }
            (Some(pattern), Some(c)) if pattern.matches(c) => {
                token += 1;
                rest = characters.as_str();
                continue;
            }
            (None, None) => return true,
            _ => {}
        }
        let Some((after, from)) = back else { return false };
        let mut characters = from.chars();
        if characters.next().is_none() {
            return false;
        }
        rest = characters.as_str();
        back = Some((after, rest));
        token = after;
    }
}

impl Token {
    fn matches(&self, c: char) -> bool {
        match self {
            Token::Char(own) => *own == c,
            Token::One => true,
            Token::Class { negated, ranges } => ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) != *negated,
            Token::Many => false,
        }
    }
}

/// Writes out the alternatives in braces.
fn expand(text: &str, out: &mut Vec<String>) -> Result<(), PatternError> {
    let mut waiting = vec![text.to_owned()];
    while let Some(text) = waiting.pop() {
        let Some(open) = find_unescaped(&text, 0, |c| c == '{') else {
            out.push(text);
            if out.len() > ALTERNATIVES_MAX {
                return Err(PatternError::TooManyAlternatives);
            }
            continue;
        };
        let mut depth = 0usize;
        let mut commas = Vec::new();
        let close = find_unescaped(&text, open + 1, |c| {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => return true,
                '}' => depth -= 1,
                _ => {}
            }
            false
        });
        let close = close.ok_or(PatternError::Syntax)?;
        let mut level = 0usize;
        find_unescaped_at(&text[..close], open + 1, |at, c| {
            match c {
                '{' => level += 1,
                '}' => level = level.saturating_sub(1),
                ',' if level == 0 => commas.push(at),
                _ => {}
            }
            false
        });
        if waiting.len() + commas.len() > ALTERNATIVES_MAX {
            return Err(PatternError::TooManyAlternatives);
        }
        let mut ends = commas.clone();
        ends.push(close);
        let starts = std::iter::once(open).chain(commas).map(|at| at + 1);
        let alternatives: Vec<String> = starts
            .zip(ends)
            .map(|(start, end)| format!("{}{}{}", &text[..open], &text[start..end], &text[close + 1..]))
            .collect();
        // The last to be taken is the last that was put there.
        waiting.extend(alternatives.into_iter().rev());
    }
    Ok(())
}

/// The place of the first character from `start` on that is wanted and not escaped.
fn find_unescaped(text: &str, start: usize, mut wanted: impl FnMut(char) -> bool) -> Option<usize> {
    find_unescaped_at(text, start, |_, c| wanted(c))
}

fn find_unescaped_at(text: &str, start: usize, mut wanted: impl FnMut(usize, char) -> bool) -> Option<usize> {
    let mut characters = text[start..].char_indices();
    let mut in_class = false;
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' => drop(characters.next()),
            '[' => in_class = true,
            ']' => in_class = false,
            // In a class braces and commas are what they are.
            _ if in_class => {}
            _ if wanted(start + at, c) => return Some(start + at),
            _ => {}
        }
    }
    None
}

/// Compiles what stands between two slashes.
fn compile(part: &str, dialect: Dialect) -> Result<Segment, PatternError> {
    if part == "**" && dialect == Dialect::DoubleStar {
        return Ok(Segment::Any);
    }
    let mut tokens = Vec::new();
    let mut characters = part.chars().peekable();
    while let Some(c) = characters.next() {
        tokens.push(match c {
            '*' => {
                if tokens.last() == Some(&Token::Many) {
                    continue;
                }
                Token::Many
            }
            '?' => Token::One,
            '}' if dialect == Dialect::DoubleStar => return Err(PatternError::Syntax),
            '\\' => Token::Char(characters.next().ok_or(PatternError::Syntax)?),
            '[' => {
                let negated = match characters.peek() {
                    Some('^') => true,
                    Some('!') => dialect == Dialect::DoubleStar,
                    _ => false,
                };
                if negated {
                    characters.next();
                }
                let mut ranges = Vec::new();
                loop {
                    let from = match characters.next() {
                        Some(']') if !ranges.is_empty() => break,
                        // A class is not empty, and what it begins or a range ends with is no sign.
                        None | Some(']' | '-') => return Err(PatternError::Syntax),
                        Some('\\') => characters.next().ok_or(PatternError::Syntax)?,
                        Some(c) => c,
                    };
                    let mut to = from;
                    if characters.peek() == Some(&'-') {
                        characters.next();
                        to = match characters.next() {
                            None | Some(']' | '-') => return Err(PatternError::Syntax),
                            Some('\\') => characters.next().ok_or(PatternError::Syntax)?,
                            Some(c) => c,
                        };
                    }
                    ranges.push((from, to));
                }
                Token::Class { negated, ranges }
            }
            c => Token::Char(c),
        });
    }
    let literal: Option<String> =
        tokens.iter().map(|token| if let Token::Char(c) = token { Some(*c) } else { None }).collect();
    Ok(literal.map_or(Segment::Tokens(tokens), Segment::Literal))
}

/// The place in a pattern that a walk has come to: which of the patterns, and its next segment.
type State = (usize, usize);

struct Walk<'a> {
    patterns: &'a [&'a [Segment]],
    each: &'a mut dyn FnMut(PathBuf),
    /// How many paths were found.
    count: usize,
    found: &'a mut Found,
    /// The links on the way from where the walk began: for each the real path that it leads to, and of the folder that
    /// holds it.
    links: Vec<(PathBuf, PathBuf)>,
}

impl Walk<'_> {
    /// Adds a state, and what it can go on to without a further name.
    fn enter(&self, states: &mut BTreeSet<State>, (pattern, mut segment): State) {
        while self.patterns[pattern].get(segment) == Some(&Segment::Any) {
            states.insert((pattern, segment));
            segment += 1;
        }
        states.insert((pattern, segment));
    }

    fn is_end(&self, (pattern, segment): State) -> bool {
        segment == self.patterns[pattern].len()
    }

    fn segment(&self, (pattern, segment): State) -> Option<&Segment> {
        self.patterns[pattern].get(segment)
    }

    /// Walks a folder in these states; `named` says whether the way to it is one of names, not of signs.
    fn folder(&mut self, path: &Path, states: &BTreeSet<State>, depth: usize, named: bool) {
        if depth > DEPTH_MAX {
            self.found.errors.push(format!("walk {}: folders are nested too deep", path.display()));
            return;
        }
        let by_name = |state: &State| matches!(self.segment(*state), Some(Segment::Literal(_)) | None);
        let literals: BTreeSet<String> = states
            .iter()
            .filter_map(|state| match self.segment(*state) {
                Some(Segment::Literal(name)) => Some(name.clone()),
                _ => None,
            })
            .collect();
        let mut names: Vec<String> = Vec::new();
        let all_by_name = states.iter().all(by_name);
        if all_by_name {
            names.extend(literals);
        } else {
            // A name that cannot be listed is no name of a file: it can be asked for nevertheless.
            names.extend(literals.iter().filter(|name| *name == "..").cloned());
            match list(path) {
                Ok(mut listed) => {
                    listed.append(&mut names);
                    names = listed;
                }
                Err(error) => {
                    names.extend(literals);
                    if !is_absence(&error) {
                        let text = format!("open {}: {}", path.display(), io_error_text(&error));
                        if named {
                            self.found.refused.get_or_insert_with(|| text.clone());
                        }
                        self.found.errors.push(text);
                    }
                }
            }
        }
        names.sort_unstable();
        names.dedup();
        for name in names {
            if self.found.truncated {
                return;
            }
            self.entry(path, &name, states, depth, named && all_by_name);
        }
    }

    fn entry(&mut self, folder: &Path, name: &str, states: &BTreeSet<State>, depth: usize, named: bool) {
        let mut next = BTreeSet::new();
        for state in states {
            match self.segment(*state) {
                // `..` is asked for by name only.
                Some(Segment::Any) if name != ".." => self.enter(&mut next, *state),
                Some(Segment::Tokens(_)) if name == ".." => {}
                Some(segment @ (Segment::Literal(_) | Segment::Tokens(_))) if segment.matches(name) => {
                    self.enter(&mut next, (state.0, state.1 + 1));
                }
                _ => {}
            }
        }
        if next.is_empty() {
            return;
        }
        let path = folder.join(name);
        let metadata = match std::fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) => {
                if named && !is_absence(&error) {
                    let text = format!("stat {}: {}", path.display(), io_error_text(&error));
                    self.found.refused.get_or_insert(text);
                }
                return;
            }
        };
        if next.iter().any(|state| self.is_end(*state)) {
            if self.count == FOUND_MAX {
                self.found.truncated = true;
                return;
            }
            self.count += 1;
            (self.each)(path.clone());
        }
        if next.iter().all(|state| self.is_end(*state)) {
            return;
        }
        if metadata.is_dir() {
            return self.folder(&path, &next, depth + 1, named);
        }
        if !metadata.is_symlink() || !path.is_dir() {
            return;
        }
        let (Ok(target), Ok(holder)) = (path.canonicalize(), real(folder)) else { return };
        // Where the pattern says how deep it goes, so does the walk.
        let endless = next.iter().any(|state| self.segment(*state) == Some(&Segment::Any));
        if endless && self.is_on_the_way(&target, &holder) {
            return;
        }
        self.links.push((target, holder));
        self.folder(&path, &next, depth + 1, named);
        self.links.pop();
    }

    /// Whether the walk is in a folder already that a link in `holder` leads to.
    fn is_on_the_way(&self, target: &Path, holder: &Path) -> bool {
        // Each stretch of the way leads from the target of one link to the folder that holds the next.
        let starts = std::iter::once(None).chain(self.links.iter().map(|(target, _)| Some(target.as_path())));
        let ends = self.links.iter().map(|(_, holder)| holder.as_path()).chain([holder]);
        starts
            .zip(ends)
            .any(|(start, end)| end.starts_with(target) && start.is_none_or(|start| target.starts_with(start)))
    }
}

fn is_absence(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

/// The names in a folder. Names that are no text cannot stand in a label, and are left out.
fn list(path: &Path) -> std::io::Result<Vec<String>> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path)? {
        // An entry that cannot be read is as good as gone.
        if let Ok(entry) = entry
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    Ok(names)
}

fn real(path: &Path) -> std::io::Result<PathBuf> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    path.canonicalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn double_star(text: &str) -> Pattern {
        Pattern::new(text, Dialect::DoubleStar).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn paths_match_as_in_doublestar() {
        for (pattern, path, matches) in [
            ("*", "", true),
            ("abc", "abc", true),
            ("abc", "abd", false),
            ("*", "a/b", false),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[^e-g]", "abc", true),
            ("ab[!e-g]", "abc", true),
            ("ab[^b-d]", "abc", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "aéb", true),
            ("a[^a]b", "aéb", true),
            ("[\\]a]", "]", true),
            ("[x\\-]", "-", true),
            ("a?b", "a/b", false),
            ("a*b", "a/b", false),
            (".*", ".hidden", true),
            ("*", ".hidden", true),
            ("a/**", "a", true),
            ("a/**", "a/b", true),
            ("a/**", "a/b/c", true),
            ("a/**/c", "a/c", true),
            ("a/**/c", "a/b/b/c", true),
            ("a/**/c", "a/b/b/d", false),
            ("**/c", "c", true),
            ("**/c", "/a/b/c", true),
            ("**", "a/b", true),
            ("a**", "a/b", false),
            ("a**", "abc", true),
            ("**/a/**/b/**", "x/a/y/b", true),
            ("**/a/**/b/**", "x/b/y/a", false),
            ("/a/**/x.log", "/a/b/c/x.log", true),
            ("/a/**/x.log", "a/b/c/x.log", false),
            ("a/{b,c}/d", "a/c/d", true),
            ("a/{b,c}/d", "a/e/d", false),
            ("{a,b/**}/d", "b/x/y/d", true),
            ("{a{b,c},d}e", "ace", true),
            ("{a{b,c},d}e", "de", true),
            ("{a{b,c},d}e", "ae", false),
            ("a{,b}", "a", true),
            ("a{,b}", "ab", true),
            ("a\\{b", "a{b", true),
            ("[{,}]", ",", true),
            ("*.{gz,zip}", "x.zip", true),
        ] {
            assert_eq!(double_star(pattern).matches(path), matches, "{pattern} on {path}");
        }
    }

    #[test]
    fn paths_match_as_in_go() {
        for (pattern, path, matches) in [
            ("a/*.json", "a/b.json", true),
            ("a/**/c", "a/c", false),
            ("a/**/c", "a/b/c", true),
            ("{a,b}", "a", false),
            ("{a,b}", "{a,b}", true),
            ("[!a]", "!", true),
            ("[^a]", "b", true),
            ("a}", "a}", true),
        ] {
            let pattern = Pattern::new(pattern, Dialect::Go).unwrap();
            assert_eq!(pattern.matches(path), matches, "{} on {path}", pattern.as_str());
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["[", "[]a]", "[-]", "[x-]", "[-x]", "[a-b-c", "a[", "[\\", "a\\", "{a", "a}", "{a,{b}", "{[}"] {
            assert_eq!(Pattern::new(text, Dialect::DoubleStar).map(|_| ()), Err(PatternError::Syntax), "{text}");
        }
        let many = "{a,b}".repeat(11);
        assert_eq!(Pattern::new(&many, Dialect::DoubleStar).map(|_| ()), Err(PatternError::TooManyAlternatives));
    }

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new(files: &[&str]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            for file in files {
                let path = dir.path().join(file);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, "").unwrap();
            }
            Tree(dir)
        }

        fn found(&self, pattern: &str, dialect: Dialect) -> Vec<String> {
            let root = self.0.path().to_str().unwrap();
            let found = Pattern::new(&format!("{root}/{pattern}"), dialect).unwrap().walk();
            assert_eq!((found.errors, found.truncated), (Vec::new(), false));
            let below = |path: &PathBuf| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            found.paths.iter().map(below).collect()
        }
    }

    #[test]
    fn a_walk_finds_what_matches_once_and_sorted() {
        let tree = Tree::new(&["b.log", "a.log", "x/c.log", "x/y/d.log", "x/y/d.txt", "z/y/e.log", ".h/f.log"]);
        for (pattern, found) in [
            ("*.log", "a.log b.log"),
            ("**/*.log", ".h/f.log a.log b.log x/c.log x/y/d.log z/y/e.log"),
            ("**/y/**/*.log", "x/y/d.log z/y/e.log"),
            ("{x/y/*,**/d.*}", "x/y/d.log x/y/d.txt"),
            ("x/**", "x x/c.log x/y x/y/d.log x/y/d.txt"),
            ("x/y/../c.log", "x/c.log"),
            ("x//./c.log", "x/c.log"),
            ("./?/y/*.log", "x/y/d.log z/y/e.log"),
            ("nothing/*.log", ""),
            ("a.log/*", ""),
            ("a.log", "a.log"),
            ("**/**/c.log", "x/c.log"),
        ] {
            assert_eq!(tree.found(pattern, Dialect::DoubleStar).join(" "), found, "{pattern}");
        }
        assert_eq!(tree.found("**/*.log", Dialect::Go).join(" "), ".h/f.log x/c.log");
        assert_eq!(tree.found("a.log", Dialect::Go).join(" "), "a.log");
    }

    #[cfg(unix)]
    #[test]
    fn links_to_folders_are_followed_but_not_in_circles() {
        use std::os::unix::fs::symlink;

        let tree = Tree::new(&["a/b/x.log", "c/y.log"]);
        let path = |name: &str| tree.0.path().join(name);
        symlink(path("c"), path("a/to_c")).unwrap();
        symlink(path("a"), path("a/b/up")).unwrap();
        symlink(path("a"), path("c/to_a")).unwrap();
        symlink(path("missing"), path("a/dangling.log")).unwrap();
        symlink(path("c/y.log"), path("a/linked.log")).unwrap();
        let found = tree.found("a/**/*.log", Dialect::DoubleStar);
        assert_eq!(found.join(" "), "a/b/x.log a/dangling.log a/linked.log a/to_c/y.log");
        // Where the pattern itself says how far, a circle is no harm.
        assert_eq!(tree.found("a/b/up/b/*.log", Dialect::DoubleStar).join(" "), "a/b/up/b/x.log");
    }

    #[test]
    fn ten_thousand_files_are_no_trouble() {
        let names: Vec<String> = (0..10_000).map(|n| format!("d{}/f{n}.log", n % 100)).collect();
        let tree = Tree::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(tree.found("**/*.log", Dialect::DoubleStar).len(), 10_000);
    }

    #[cfg(unix)]
    #[test]
    fn what_a_pattern_says_by_name_and_may_not_be_looked_into_is_told() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        let refused = |pattern: &str| {
            let pattern = dir.path().join(pattern).to_str().unwrap().to_owned();
            Pattern::new(&pattern, Dialect::DoubleStar).unwrap().walk().refused.map(|text| text.replace(&pattern, "*"))
        };
        // No folder can be asked for this name, whoever asks.
        let long = "n".repeat(300);
        assert_eq!(refused(&format!("a/{long}")).as_deref(), Some("stat *: file name too long"));
        for pattern in [format!("*/{long}"), "a/*".to_owned(), "nothing/*".to_owned(), "nothing".to_owned()] {
            assert_eq!(refused(&pattern), None, "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_pattern_or_refused(text in "[ab/*?{},!^\\[\\]\\\\-]{0,16}", path in "[ab/]{0,10}") {
            for dialect in [Dialect::Go, Dialect::DoubleStar] {
                if let Ok(pattern) = Pattern::new(&text, dialect) {
                    pattern.matches(&path);
                }
            }
        }

        #[test]
        fn any_characters_do_no_harm(text in any::<String>(), path in any::<String>()) {
            if let Ok(pattern) = Pattern::new(&text, Dialect::DoubleStar) {
                pattern.matches(&path);
            }
        }

        /// The matcher against one that tries everything.
        #[test]
        fn stars_match_as_a_naive_matcher_says(text in "[ab*?]{0,8}", name in "[ab]{0,8}") {
            fn naive(pattern: &[u8], name: &[u8]) -> bool {
                match (pattern.first(), name.first()) {
                    (None, None) => true,
                    (Some(b'*'), _) => {
                        naive(&pattern[1..], name) || (!name.is_empty() && naive(pattern, &name[1..]))
                    }
                    (Some(b'?'), Some(_)) => naive(&pattern[1..], &name[1..]),
                    (Some(a), Some(b)) if a == b => naive(&pattern[1..], &name[1..]),
                    _ => false,
                }
            }
            let pattern = Pattern::new(&text, Dialect::Go).unwrap();
            prop_assert_eq!(pattern.matches(&name), naive(text.as_bytes(), name.as_bytes()));
        }

        /// What a walk finds is what matching every path says.
        #[test]
        fn a_walk_finds_what_matches(pattern in "(\\*\\*|[ab]|\\*|\\?|\\{a,b/\\*\\*\\})(/(\\*\\*|[ab]|\\*|a\\*)){0,3}") {
            let tree = Tree::new(&["a/a/a", "a/b/b", "b/a/ab", "b/b"]);
            let all = ["a", "a/a", "a/a/a", "a/b", "a/b/b", "b", "b/a", "b/a/ab", "b/b"];
            let compiled = double_star(&pattern);
            let mut expected: Vec<&str> = all.iter().copied().filter(|path| compiled.matches(path)).collect();
            let mut found = tree.found(&pattern, Dialect::DoubleStar);
            // The folder in which the walk began is found by `**`, and stands for nothing here.
            found.retain(|path| !path.is_empty());
            found.sort();
            expected.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }
}
