//! Rules that a user writes: the configuration file of gitleaks.

use corten_signal::regex::GoRegex;
use toml::{Table, Value};

use super::rules_table::RULES;
use super::scan::{Allow, PLACEHOLDERS, Rule, Scanner, Target};

/// The largest file.
pub(super) const FILE_BYTES_MAX: u64 = 16 << 20;

/// Rules in a file.
const RULES_MAX: usize = 10_000;

/// The rules that are built in.
///
/// # Errors
///
/// None, as a test shows.
pub(super) fn builtin() -> Result<Scanner, String> {
    Scanner::new(RULES.iter().map(Rule::builtin).collect(), placeholders())
}

fn placeholders() -> Vec<Allow> {
    let regexes = PLACEHOLDERS.iter().filter_map(|regex| GoRegex::new(regex).ok()).collect();
    vec![Allow { regexes, stopwords: vec!["abcdefghijklmnopqrstuvwxyz".to_owned()], ..Allow::default() }]
}

/// The rules of a file.
///
/// # Errors
///
/// What is no TOML, an expression that is not valid, and what is not supported.
pub(super) fn read(text: &str) -> Result<Scanner, String> {
    let table: Table =
        text.parse().map_err(|error: toml::de::Error| format!("parse gitleaks config: {}", error.message()))?;
    let (mut rules, mut allows) = (Vec::new(), Vec::new());
    let mut disabled = Vec::new();
    let mut extends = false;
    if let Some(extend) = table.get("extend").and_then(Value::as_table) {
        for name in ["path", "url"] {
            if extend.get(name).and_then(Value::as_str).is_some_and(|text| !text.is_empty()) {
                return Err(format!("extend.{name} is not supported"));
            }
        }
        extends = extend.get("useDefault").and_then(Value::as_bool).unwrap_or(false);
        disabled = texts(extend, "disabledRules")?;
    }
    let written = table.get("rules").map_or(Ok(&[][..]), |rules| {
        rules.as_array().map(Vec::as_slice).ok_or_else(|| "rules is no list of tables".to_owned())
    })?;
    if written.len() > RULES_MAX {
        return Err(format!("more than {RULES_MAX} rules"));
    }
    for (index, rule) in written.iter().enumerate() {
        let rule = rule.as_table().ok_or_else(|| format!("rule {}: not a table", index + 1))?;
        let id = rule.get("id").and_then(Value::as_str).unwrap_or_default();
        let read = read_rule(id, rule).map_err(|error| {
            format!("rule {}: {error}", if id.is_empty() { "|id| is missing or empty" } else { id })
        })?;
        rules.extend(read);
    }
    if extends {
        allows.extend(placeholders());
        // Those of the file are looked at first, and take the place of the ones of their names.
        let mine: Vec<String> = rules.iter().map(|rule: &Rule| rule.id.clone()).collect();
        let others = RULES.iter().filter(|rule| !mine.iter().any(|id| id == rule.id));
        rules.extend(others.filter(|rule| !disabled.iter().any(|id| id == rule.id)).map(Rule::builtin));
    }
    for (name, value) in [("allowlist", table.get("allowlist")), ("allowlists", table.get("allowlists"))] {
        for (allow, only_for) in read_allows(name, value)? {
            if only_for.is_empty() {
                allows.push(allow);
                continue;
            }
            let (last, others) = only_for.split_last().unwrap_or((&only_for[0], &[]));
            if !others.is_empty() {
                return Err(format!("{name}: more than one of targetRules is not supported"));
            }
            match rules.iter_mut().find(|rule| rule.id == *last) {
                Some(rule) => rule.allows.push(allow),
                None => return Err(format!("{name}: there is no rule {last:?}")),
            }
        }
    }
    Scanner::new(rules, allows)
}

/// A rule; nothing for one that looks at the names of files alone.
fn read_rule(id: &str, rule: &Table) -> Result<Option<Rule>, String> {
    if id.is_empty() {
        return Err("missing id".to_owned());
    }
    if rule.get("required").is_some() {
        return Err("required is not supported".to_owned());
    }
    // A line is in no file.
    if let Some(path) = text(rule, "path")?.filter(|path| !path.is_empty())
        && !compile(path)?.is_match("")
    {
        return Ok(None);
    }
    let Some(pattern) = text(rule, "regex")?.filter(|pattern| !pattern.is_empty()) else {
        return if rule.get("path").is_some() { Ok(None) } else { Err("both |regex| and |path| are empty".to_owned()) };
    };
    let mut made = Rule::of(id.to_owned(), compile(pattern)?);
    made.entropy = match rule.get("entropy") {
        None => 0.0,
        Some(Value::Float(entropy)) => *entropy,
        Some(Value::Integer(entropy)) => *entropy as f64,
        Some(_) => return Err("entropy is no number".to_owned()),
    };
    if let Some(group) = rule.get("secretGroup") {
        let group = group.as_integer().and_then(|group| usize::try_from(group).ok());
        made.group = group.ok_or("secretGroup is no number of a group")?;
        let count = compile(pattern)?.group_count();
        if made.group > count {
            return Err(format!("invalid regex secret group {}, max regex secret group {count}", made.group));
        }
    }
    made.keywords = texts(rule, "keywords")?.into_iter().map(|word| word.to_lowercase()).collect();
    for (name, value) in [("allowlist", rule.get("allowlist")), ("allowlists", rule.get("allowlists"))] {
        made.allows.extend(read_allows(name, value)?.into_iter().map(|(allow, _)| allow));
    }
    Ok(Some(made))
}

/// What is allowed, and for which rules alone.
fn read_allows(name: &str, value: Option<&Value>) -> Result<Vec<(Allow, Vec<String>)>, String> {
    let tables: Vec<&Table> = match value {
        None => Vec::new(),
        Some(Value::Table(table)) => vec![table],
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_table).collect(),
        Some(_) => return Err(format!("{name} is no table")),
    };
    let read = |table: &&Table| -> Result<(Allow, Vec<String>), String> {
        let target = match text(table, "regexTarget")?.unwrap_or_default() {
            "" | "secret" => Target::Secret,
            "match" => Target::Match,
            "line" => Target::Line,
            other => return Err(format!("{name}: unknown regexTarget {other:?}")),
        };
        let all = match text(table, "condition")?.unwrap_or_default().to_uppercase().as_str() {
            "" | "OR" | "||" => false,
            // A line is in no file and in no commit: a condition on those never holds.
            "AND" | "&&" if texts(table, "paths")?.is_empty() && texts(table, "commits")?.is_empty() => true,
            "AND" | "&&" => return Ok((Allow::default(), texts(table, "targetRules")?)),
            other => return Err(format!("{name}: unknown condition {other:?}")),
        };
        let regexes = texts(table, "regexes")?.iter().map(|regex| compile(regex)).collect::<Result<_, _>>()?;
        let stopwords = texts(table, "stopwords")?.into_iter().map(|word| word.to_lowercase()).collect();
        Ok((Allow { all, regexes, target, stopwords }, texts(table, "targetRules")?))
    };
    tables.iter().map(read).collect()
}

fn compile(pattern: &str) -> Result<GoRegex, String> {
    GoRegex::new(pattern).map_err(|error| error.to_string())
}

fn text<'a>(table: &'a Table, name: &str) -> Result<Option<&'a str>, String> {
    match table.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("{name} is no text")),
    }
}

fn texts(table: &Table, name: &str) -> Result<Vec<String>, String> {
    let Some(value) = table.get(name) else { return Ok(Vec::new()) };
    let list = value.as_array().ok_or_else(|| format!("{name} is no list"))?;
    let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(|| format!("{name} is no list of texts"));
    list.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::scan::Scratch;
    use super::*;

    fn secrets(scanner: &Scanner, line: &str) -> Vec<(String, String)> {
        let mut found = Vec::new();
        scanner.scan(line, None, &mut Scratch::default(), &mut found).unwrap();
        let show = |finding: &super::super::scan::Finding| {
            (scanner.rules[finding.rule].id.clone(), line[finding.secret.clone()].to_owned())
        };
        found.iter().map(show).collect()
    }

    #[test]
    fn rules_of_a_file_are_used() {
        let scanner = read(
            r#"
            title = "mine"
            [[rules]]
            id = "ticket"
            regex = '''(ticket)-([0-9]{4,})'''
            secretGroup = 2
            keywords = ["TICKET"]
            [[rules.allowlists]]
            regexes = ['''^0+$''']
            [[rules.allowlists]]
            regexTarget = "line"
            regexes = ["public"]
            [[rules]]
            id = "files"
            path = '''\.pem$'''
            [[rules]]
            id = "entropic"
            regex = "x([a-z]+)x"
            entropy = 1
            [allowlist]
            stopwords = ["Fine"]
            "#,
        )
        .unwrap();
        let pair = |rule: &str, secret: &str| (rule.to_owned(), secret.to_owned());
        assert_eq!(secrets(&scanner, "Ticket-1 ticket-12345 ticket-0000"), [pair("ticket", "12345")]);
        assert_eq!(secrets(&scanner, "public ticket-12345"), []);
        assert_eq!(secrets(&scanner, "xabcx xaabbx xfinex"), [pair("entropic", "abc")]);
    }

    #[test]
    fn the_rules_that_are_built_in_can_be_extended() {
        let text =
            "[extend]\nuseDefault = true\ndisabledRules = [\"github-pat\"]\n[[rules]]\nid = \"x\"\nregex = \"zz9\"\n";
        let scanner = read(text).unwrap();
        assert_eq!(scanner.rules.len(), RULES.len());
        let line = "zz9 ghp_keuwTm8PRmUZL5oymVshykIWReeY3WchCGkt gho_kkjcHRTTYG6dYKptcEixPotHjDOiE6x8haz0";
        let ids: Vec<String> = secrets(&scanner, line).into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, ["x", "github-oauth"]);
    }

    #[test]
    fn what_cannot_be_used_is_an_error() {
        for (text, wanted) in [
            ("[", "parse gitleaks config: "),
            ("rules = 1", "rules is no list of tables"),
            ("[[rules]]\nregex = \"a\"", "rule |id| is missing or empty: missing id"),
            ("[[rules]]\nid = \"a\"", "rule a: both |regex| and |path| are empty"),
            ("[[rules]]\nid = \"a\"\nregex = \"(\"", "rule a: "),
            (
                "[[rules]]\nid = \"a\"\nregex = \"(a)\"\nsecretGroup = 2",
                "rule a: invalid regex secret group 2, max regex secret group 1",
            ),
            (
                "[[rules]]\nid = \"a\"\nregex = \"a\"\n[[rules.required]]\nid = \"b\"",
                "rule a: required is not supported",
            ),
            ("[extend]\npath = \"x\"", "extend.path is not supported"),
            ("[[allowlists]]\nregexTarget = \"x\"", "allowlists: unknown regexTarget \"x\""),
            ("[[allowlists]]\ntargetRules = [\"x\"]\nstopwords = [\"a\"]", "allowlists: there is no rule \"x\""),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(wanted), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_file_makes_it_panic(text in "(?s).{0,60}", value in "[a-z0-9\"\\[\\](|)]{0,12}") {
            let _ = read(&text);
            for name in ["id", "regex", "entropy", "secretGroup", "keywords", "allowlist", "required"] {
                let _ = read(&format!("[[rules]]\nid = \"a\"\nregex = \"b\"\n{name} = {value}\n"));
            }
        }
    }
}
