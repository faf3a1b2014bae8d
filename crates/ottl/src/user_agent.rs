//! What programs say they are in the header `User-Agent`.

use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock};

use aho_corasick::AhoCorasick;
use corten_signal::regex::{GoRegex, Groups, Template};
use regex_syntax::hir::{Hir, HirKind};

/// What a program or an operating system is called, and its version, which may be empty.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Product {
    pub(crate) name: String,
    pub(crate) version: String,
}

/// The program that calls itself so.
pub(crate) fn program(text: &str) -> Product {
    static TABLE: LazyLock<Table> = LazyLock::new(|| Table::new(PROGRAMS, OF_PROGRAMS));
    TABLE.find(text)
}

/// The operating system that a program says it runs on.
pub(crate) fn system(text: &str) -> Product {
    static TABLE: LazyLock<Table> = LazyLock::new(|| Table::new(SYSTEMS, OF_SYSTEMS));
    TABLE.find(text)
}

const PROGRAMS: &str = include_str!("user_agent/programs.txt");
const SYSTEMS: &str = include_str!("user_agent/systems.txt");

/// What is not recognised is called so.
const UNKNOWN: &str = "Other";
/// The name, and the parts of the version.
const FIELDS: usize = 5;
/// What the fields are where a line does not say it. Versions of programs have one part less.
const OF_PROGRAMS: [&str; FIELDS] = ["$1", "$2", "$3", "$4", ""];
/// As [`OF_PROGRAMS`].
const OF_SYSTEMS: [&str; FIELDS] = ["$1", "$2", "$3", "$4", "$5"];

/// A line of a table. Expressions are compiled when they are first tried: most never are.
#[derive(Debug)]
struct Line {
    expression: &'static str,
    fields: [&'static str; FIELDS],
    compiled: OnceLock<Option<(GoRegex, [Template; FIELDS])>>,
}

impl Line {
    fn new(line: &'static str, defaults: [&'static str; FIELDS]) -> Self {
        let mut parts = line.split('\t');
        let expression = parts.next().unwrap_or_default();
        let fields = defaults.map(|default| parts.next().filter(|part| !part.is_empty()).unwrap_or(default));
        Line { expression, fields, compiled: OnceLock::new() }
    }

    fn compiled(&self) -> Option<&(GoRegex, [Template; FIELDS])> {
        let compile = || {
            let regex = GoRegex::new(self.expression).ok()?;
            let fields = self.fields.map(|field| Template::new(field, &regex));
            Some((regex, fields))
        };
        self.compiled.get_or_init(compile).as_ref()
    }
}

/// The lines of a file, and in which texts they have to be looked for: trying hundreds of expressions on each text would
/// take a hundred times as long.
#[derive(Debug)]
struct Table {
    lines: Vec<Line>,
    /// The lines that any text may match.
    always: Vec<bool>,
    /// Texts of which one must be there for others to match. None where none could be made of the file.
    literals: Option<AhoCorasick>,
    /// The lines that each literal belongs to.
    of_literal: Vec<Vec<usize>>,
}

impl Table {
    fn new(file: &'static str, defaults: [&'static str; FIELDS]) -> Self {
        let lines = file.lines().filter(|line| !line.starts_with("# "));
        let lines: Vec<Line> = lines.map(|line| Line::new(line, defaults)).collect();
        let (mut literals, mut of_literal) = (HashMap::<Vec<u8>, usize>::new(), Vec::<Vec<usize>>::new());
        let always = lines.iter().enumerate().map(|(at, line)| {
            let hir = regex_syntax::parse(line.expression).ok();
            let Some(needed) = hir.as_ref().and_then(needed) else { return true };
            for literal in needed {
                let number = *literals.entry(literal).or_insert(of_literal.len());
                of_literal.resize_with(of_literal.len().max(number + 1), Vec::new);
                of_literal[number].push(at);
            }
            false
        });
        let always: Vec<bool> = always.collect();
        let mut sorted: Vec<(Vec<u8>, usize)> = literals.into_iter().collect();
        sorted.sort_by_key(|(_, number)| *number);
        let literals = AhoCorasick::new(sorted.iter().map(|(literal, _)| literal)).ok();
        Table { lines, always, literals, of_literal }
    }

    /// Which lines may match a text.
    fn candidates(&self, text: &str) -> Vec<bool> {
        let Some(literals) = &self.literals else { return vec![true; self.lines.len()] };
        let mut candidates = self.always.clone();
        for found in literals.find_overlapping_iter(text) {
            for line in &self.of_literal[found.pattern()] {
                candidates[*line] = true;
            }
        }
        candidates
    }

    fn find(&self, text: &str) -> Product {
        self.first(text, &self.candidates(text))
    }

    /// What the first of the candidates says that matches and gives a name.
    fn first(&self, text: &str, candidates: &[bool]) -> Product {
        let mut groups = Groups::new();
        let mut version = String::new();
        for (line, _) in self.lines.iter().zip(candidates).filter(|(_, is_candidate)| **is_candidate) {
            let Some((regex, fields)) = line.compiled() else { continue };
            if !regex.captures(text, &mut groups) {
                continue;
            }
            let [name, parts @ ..] = fields.each_ref().map(|field| {
                let mut value = String::new();
                field.expand(text, &groups, &mut value);
                value
            });
            // The version counts even if no line gives a name.
            version.clear();
            for (at, part) in parts.iter().enumerate().filter(|(_, part)| !part.is_empty()) {
                version.extend([if at > 0 { "." } else { "" }, part]);
            }
            if !name.is_empty() {
                return Product { name, version };
            }
        }
        Product { name: UNKNOWN.to_owned(), version }
    }
}

/// Texts of which one is in whatever an expression matches; none where nothing can be said. The longer the better.
fn needed(hir: &Hir) -> Option<Vec<Vec<u8>>> {
    match hir.kind() {
        HirKind::Literal(literal) => Some(vec![literal.0.to_vec()]),
        HirKind::Capture(capture) => needed(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min > 0 => needed(&repetition.sub),
        HirKind::Concat(parts) => {
            let shortest = |literals: &Vec<Vec<u8>>| literals.iter().map(Vec::len).min();
            parts.iter().filter_map(needed).max_by_key(shortest)
        }
        HirKind::Alternation(branches) => {
            let branches: Option<Vec<_>> = branches.iter().map(needed).collect();
            branches.map(|branches| branches.concat())
        }
        HirKind::Empty | HirKind::Class(_) | HirKind::Look(_) | HirKind::Repetition(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    static TABLES: LazyLock<[Table; 2]> =
        LazyLock::new(|| [Table::new(PROGRAMS, OF_PROGRAMS), Table::new(SYSTEMS, OF_SYSTEMS)]);

    #[test]
    fn every_expression_can_be_read_and_few_have_to_be_tried_always() {
        for (table, lines) in TABLES.iter().zip([365, 202]) {
            assert_eq!(table.lines.len(), lines);
            assert!(table.lines.iter().all(|line| line.compiled().is_some()));
            let always = table.always.iter().filter(|always| **always).count();
            assert!(always < 40, "{always} of {lines}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Texts of what the expressions are about.
        #[test]
        fn what_is_not_tried_does_not_match(
            words in prop::collection::vec(
                prop_oneof![
                    (0..567_usize, 0..200_usize, 1..40_usize).prop_map(|(line, at, len)| {
                        let line = [PROGRAMS, SYSTEMS].iter().flat_map(|file| file.lines()).nth(line).unwrap_or_default();
                        line.chars().filter(|c| !"()?|\\".contains(*c)).skip(at).take(len).collect::<String>()
                    }),
                    r"[A-Za-z]{1,8}[/ ][0-9]{1,3}\.[0-9.]{1,6}",
                    Just(" (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/1.2.3 Safari/4".to_owned()),
                ],
                1..5,
            )
        ) {
            let text = words.concat();
            for table in TABLES.iter() {
                let all = vec![true; table.lines.len()];
                prop_assert_eq!(table.find(&text), table.first(&text, &all), "{}", text);
            }
        }
    }
}
