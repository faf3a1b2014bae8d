//! Finds secrets in lines.
//!
//! One search looks for the keywords of all rules at once; only the rules whose keywords a line has are looked at further. A
//! regular expression is compiled when it is needed first, since most never are.

use std::ops::Range;
use std::sync::OnceLock;
use std::time::Instant;

use aho_corasick::AhoCorasick;
use corten_signal::regex::{GoRegex, Groups};

/// A rule that is built in.
#[derive(Debug)]
pub(super) struct Builtin {
    pub(super) id: &'static str,
    pub(super) shape: Shape,
    pub(super) entropy: f64,
    pub(super) keywords: &'static [&'static str],
}

/// How a secret is told from other text.
#[derive(Debug)]
pub(super) enum Shape {
    /// It is assigned to something in whose name this stands.
    Near(&'static str, &'static str),
    /// It stands by itself.
    Token(&'static str),
    /// As it says. The first group that matches something is the secret, or else all of it.
    Whole(&'static str),
}

/// What a secret ends before.
const END: &str = r#"(?:[\x60'"\s;]|\\[nrNR]|$)"#;

impl Shape {
    /// The regular expression.
    pub(super) fn pattern(&self) -> String {
        match self {
            // A name, what may stand behind it in one, an operator, quotes, and the secret.
            Shape::Near(name, secret) => format!(
                r#"(?i)(?:{name})[ \t\w.-]{{0,20}}[\s'"]{{0,3}}(?:=|>|:{{1,3}}=|\|\||:|=>|\?=|,)[\x60'"\s=]{{0,5}}({secret}){END}"#
            ),
            Shape::Token(secret) => format!(r"\b({secret}){END}"),
            Shape::Whole(pattern) => (*pattern).to_owned(),
        }
    }
}

/// What is no secret although it looks like one.
#[derive(Debug, Default)]
pub(super) struct Allow {
    /// All of the kinds that are given must hold, rather than one.
    pub(super) all: bool,
    pub(super) regexes: Vec<GoRegex>,
    pub(super) target: Target,
    /// In lower case.
    pub(super) stopwords: Vec<String>,
}

/// What the expressions of an [`Allow`] are held against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Target {
    #[default]
    Secret,
    Match,
    Line,
}

impl Allow {
    fn allows(&self, secret: &str, whole: &str, line: &str) -> bool {
        let text = match self.target {
            Target::Secret => secret,
            Target::Match => whole,
            Target::Line => line,
        };
        let regexes = (!self.regexes.is_empty()).then(|| self.regexes.iter().any(|regex| regex.is_match(text)));
        let stopwords = (!self.stopwords.is_empty()).then(|| {
            let secret = secret.to_lowercase();
            self.stopwords.iter().any(|word| secret.contains(word))
        });
        let mut kinds = [regexes, stopwords].into_iter().flatten().peekable();
        if self.all { kinds.peek().is_some() && kinds.all(|holds| holds) } else { kinds.any(|holds| holds) }
    }
}

/// A rule.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) id: String,
    pattern: String,
    regex: OnceLock<Option<GoRegex>>,
    /// A secret of this entropy or less is none; zero for no limit.
    pub(super) entropy: f64,
    /// The group that is the secret; zero for the first that matches something.
    pub(super) group: usize,
    /// In lower case; without any the rule is looked at in every line.
    pub(super) keywords: Vec<String>,
    pub(super) allows: Vec<Allow>,
}

impl Rule {
    /// A rule of an expression that is compiled already.
    pub(super) fn of(id: String, regex: GoRegex) -> Self {
        let pattern = regex.as_str().to_owned();
        let cell = OnceLock::new();
        let _ = cell.set(Some(regex));
        Rule { id, pattern, regex: cell, entropy: 0.0, group: 0, keywords: Vec::new(), allows: Vec::new() }
    }

    pub(super) fn builtin(builtin: &Builtin) -> Self {
        let mut allows = Vec::new();
        if let Some(regex) = allowed(builtin.id) {
            allows.extend(GoRegex::new(regex).ok().map(|regex| Allow { regexes: vec![regex], ..Allow::default() }));
        }
        Rule {
            id: builtin.id.to_owned(),
            pattern: builtin.shape.pattern(),
            regex: OnceLock::new(),
            entropy: builtin.entropy,
            group: 0,
            keywords: builtin.keywords.iter().map(|word| (*word).to_owned()).collect(),
            allows,
        }
    }

    /// A test shows that those which are built in are valid.
    fn regex(&self) -> Option<&GoRegex> {
        self.regex.get_or_init(|| GoRegex::new(&self.pattern).ok()).as_ref()
    }
}

/// What a rule that is built in takes for an example or a name.
fn allowed(id: &str) -> Option<&'static str> {
    match id {
        // Amazon's documentation uses such keys.
        "aws-access-token" => Some(".+EXAMPLE$"),
        // Words and names have no digits.
        "generic-api-key" => Some("^[a-zA-Z_.-]+$"),
        _ => None,
    }
}

/// What stands where a secret would: values that say nothing, and names of variables in the ways in which shells, templates and
/// the like write them.
pub(super) const PLACEHOLDERS: &[&str] = &[
    "(?i)^(?:true|false|null)$",
    r"^\$(?:\d+|\{\d+\}|[A-Z_]+|[a-z_]+)$",
    r"^\$\{(?:[A-Z_]+|[a-z_]+)\}$",
    r"^\$?\{\{[ \t]*[\w ().|\x22']+[ \t]*\}\}$",
    "^%(?:[A-Z_]+|[a-z_]+)%$",
    "^@(?:[A-Z_]+|[a-z_]+)@$",
    r"^%[+\-# 0]?[bcdeEfFgGoOpqstTUvxX]$",
    r"^\{\d{0,2}\}$",
];

/// A secret in a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// The place of the rule in the list.
    pub(super) rule: usize,
    /// The place of the secret in the line.
    pub(super) secret: Range<usize>,
}

/// Rules, ready to be used.
#[derive(Debug)]
pub(super) struct Scanner {
    pub(super) rules: Vec<Rule>,
    prefilter: AhoCorasick,
    /// The rules of each keyword.
    of_keyword: Vec<Vec<usize>>,
    always: Vec<usize>,
    allows: Vec<Allow>,
}

/// What is used again from line to line.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    wanted: Vec<bool>,
    groups: Groups,
}

/// Beyond so many pairs of findings, general ones stay beside others. They mask the same.
const COMPARISONS_MAX: usize = 10_000;

/// A line took too long; what was found until then stands in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TookTooLong;

impl Scanner {
    /// # Errors
    ///
    /// If there are too many keywords.
    pub(super) fn new(rules: Vec<Rule>, allows: Vec<Allow>) -> Result<Self, String> {
        let (mut keywords, mut of_keyword, mut always) = (Vec::<&str>::new(), Vec::<Vec<usize>>::new(), Vec::new());
        for (index, rule) in rules.iter().enumerate() {
            if rule.keywords.is_empty() {
                always.push(index);
            }
            for keyword in &rule.keywords {
                match keywords.iter().position(|known| known == keyword) {
                    Some(at) => of_keyword[at].push(index),
                    None => {
                        keywords.push(keyword);
                        of_keyword.push(vec![index]);
                    }
                }
            }
        }
        let prefilter = AhoCorasick::builder().ascii_case_insensitive(true).build(keywords);
        let prefilter = prefilter.map_err(|error| error.to_string())?;
        Ok(Scanner { rules, prefilter, of_keyword, always, allows })
    }

    /// Finds the secrets of a line.
    pub(super) fn scan(
        &self,
        line: &str,
        until: Option<Instant>,
        scratch: &mut Scratch,
        found: &mut Vec<Finding>,
    ) -> Result<(), TookTooLong> {
        found.clear();
        scratch.wanted.clear();
        scratch.wanted.resize(self.rules.len(), false);
        for hit in self.prefilter.find_overlapping_iter(line) {
            for &rule in &self.of_keyword[hit.pattern().as_usize()] {
                scratch.wanted[rule] = true;
            }
        }
        for &rule in &self.always {
            scratch.wanted[rule] = true;
        }
        let late = || until.is_some_and(|until| Instant::now() >= until);
        let mut outcome = Ok(());
        'rules: for (index, rule) in self.rules.iter().enumerate().filter(|(index, _)| scratch.wanted[*index]) {
            let Some(regex) = rule.regex() else { continue };
            let mut at = 0;
            loop {
                if late() {
                    outcome = Err(TookTooLong);
                    break 'rules;
                }
                if at > line.len() || !regex.captures_at(line, at, &mut scratch.groups) {
                    break;
                }
                let Some(whole) = scratch.groups.get(0) else { break };
                // An empty match must not be found for ever.
                at = if whole.end > at { whole.end } else { next_char(line, at) };
                let secret = match rule.group {
                    0 => (1..=regex.group_count())
                        .find_map(|group| scratch.groups.get(group).filter(|range| !range.is_empty())),
                    group => scratch.groups.get(group),
                };
                let secret = secret.unwrap_or_else(|| trimmed(line, whole.clone()));
                let text = &line[secret.clone()];
                let plain = rule.entropy > 0.0 && entropy(text) <= rule.entropy;
                let allows = |allow: &Allow| allow.allows(text, &line[whole.clone()], line);
                if text.is_empty() || plain || rule.allows.iter().chain(&self.allows).any(allows) {
                    continue;
                }
                found.push(Finding { rule: index, secret });
            }
        }
        // What a rule knows better needs no general one.
        let general = |finding: &Finding| self.rules[finding.rule].id.contains("generic");
        let specific: Vec<Range<usize>> =
            found.iter().filter(|finding| !general(finding)).map(|finding| finding.secret.clone()).collect();
        if specific.len().saturating_mul(found.len()) <= COMPARISONS_MAX {
            found.retain(|finding| {
                let within = |range: &Range<usize>| line[range.clone()].contains(&line[finding.secret.clone()]);
                !general(finding) || !specific.iter().any(within)
            });
        }
        outcome
    }
}

fn next_char(line: &str, at: usize) -> usize {
    line[at..].chars().next().map_or(line.len() + 1, |c| at + c.len_utf8())
}

/// A match without the line feeds around it.
fn trimmed(line: &str, range: Range<usize>) -> Range<usize> {
    let text = &line[range.clone()];
    let start = range.start + (text.len() - text.trim_start_matches('\n').len());
    let end = (range.start + text.trim_end_matches('\n').len()).max(start);
    start..end
}

/// Shannon's entropy of the characters, in bits a character.
fn entropy(text: &str) -> f64 {
    let mut chars: Vec<char> = text.chars().collect();
    chars.sort_unstable();
    let total = chars.len() as f64;
    chars.chunk_by(|a, b| a == b).map(|same| same.len() as f64 / total).map(|share| -share * share.log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::super::rules_table::RULES;
    use super::*;

    #[test]
    fn the_rules_that_are_built_in_are_valid() {
        for builtin in RULES {
            let pattern = builtin.shape.pattern();
            assert!(GoRegex::new(&pattern).is_ok(), "{}: {pattern}: {:?}", builtin.id, GoRegex::new(&pattern).err());
            assert!(!builtin.keywords.is_empty(), "{}", builtin.id);
            assert!(builtin.keywords.iter().all(|word| *word == word.to_lowercase()), "{}", builtin.id);
            assert!(allowed(builtin.id).is_none_or(|regex| GoRegex::new(regex).is_ok()));
        }
        assert!(PLACEHOLDERS.iter().all(|regex| GoRegex::new(regex).is_ok()));
    }

    #[test]
    fn entropy_is_of_characters() {
        assert_eq!(entropy("aaaa"), 0.0);
        assert_eq!(entropy("aabb"), 1.0);
        assert_eq!(entropy("\u{e9}\u{e8}"), 1.0);
        assert!((entropy("0123456789abcdef") - 4.0).abs() < 1e-9);
    }

    #[test]
    fn empty_matches_end() {
        let rule = Rule::of("r".to_owned(), GoRegex::new("x*").unwrap());
        let scanner = Scanner::new(vec![rule], Vec::new()).unwrap();
        let mut found = Vec::new();
        scanner.scan("a\u{e9}xxb", None, &mut Scratch::default(), &mut found).unwrap();
        assert_eq!(found, [Finding { rule: 0, secret: 3..5 }]);
    }

    #[test]
    fn a_time_that_is_over_stops_the_scan() {
        let rule = Rule::of("r".to_owned(), GoRegex::new("x").unwrap());
        let scanner = Scanner::new(vec![rule], Vec::new()).unwrap();
        let outcome = scanner.scan("x", Some(Instant::now()), &mut Scratch::default(), &mut Vec::new());
        assert_eq!(outcome, Err(TookTooLong));
    }

    #[test]
    fn what_is_allowed_is_one_or_all_of_the_kinds() {
        let allow = |all, regex: &str, word: &str| Allow {
            all,
            regexes: (!regex.is_empty()).then(|| GoRegex::new(regex).unwrap()).into_iter().collect(),
            stopwords: (!word.is_empty()).then(|| word.to_owned()).into_iter().collect(),
            target: Target::Match,
        };
        let allows = |allow: Allow| allow.allows("SECRET", "key=SECRET", "the line");
        assert!(allows(allow(false, "^key", "other")) && allows(allow(false, "", "secret")));
        assert!(!allows(allow(true, "^key", "other")) && allows(allow(true, "^key", "secret")));
        assert!(!allows(allow(true, "", "")) && !allows(allow(false, "", "")));
    }
}
