//! Relabelling rules, as Prometheus and its relatives apply them to the labels of targets, series and streams.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use corten_config::arguments::CheckErrors;
use corten_config::decode::{CapsuleType, Decode, Mismatches, ValueContext};
use corten_config::error::ValueError;
use corten_config::schema::{CapsuleInfo, Shape};
use corten_config::value::{Capsule, Value};
use corten_config::{Arguments, StringEnum, convert};
use corten_syntax::quote;
use md5::{Digest, Md5};

use crate::labels::LabelsBuilder;
use crate::regex::{GoRegex, Groups, RegexError, Template};

/// The longest value or name that `replace` and `labelmap` write, in bytes. A rule that would write a longer one does
/// nothing: rules that double a value would otherwise fill the memory.
pub const WRITTEN_BYTES_MAX: usize = 1 << 20;

/// What a rule does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, StringEnum)]
#[string_enum(refusal = refuse_action)]
pub enum Action {
    /// Sets `target_label` to `replacement` where the source value matches `regex`.
    #[default]
    #[value(zero)]
    Replace,
    /// Drops what does not match.
    Keep,
    /// Drops what matches.
    Drop,
    /// Drops what differs from the value of `target_label`.
    #[value(name = "keepequal")]
    KeepEqual,
    /// Drops what equals the value of `target_label`.
    #[value(name = "dropequal")]
    DropEqual,
    /// Sets `target_label` to a hash of the source value, modulo `modulus`.
    #[value(name = "hashmod")]
    HashMod,
    /// Copies labels whose names match to the name that `replacement` gives.
    #[value(name = "labelmap")]
    LabelMap,
    /// Removes labels whose names match.
    #[value(name = "labeldrop")]
    LabelDrop,
    /// Removes labels whose names do not match.
    #[value(name = "labelkeep")]
    LabelKeep,
    /// Sets `target_label` to the source value in lower case.
    Lowercase,
    /// Sets `target_label` to the source value in upper case.
    Uppercase,
}

fn refuse_action(name: &str) -> String {
    format!("unrecognized action type {}", quote(name))
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A regular expression that has to match as a whole, as it is written. It is known to be well-formed where it was
/// decoded from a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Arc<str>);

impl Pattern {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Pattern {
    fn from(text: &str) -> Self {
        Pattern(text.into())
    }
}

impl Decode for Pattern {
    const SHAPE: Shape = Shape::String;

    fn decode(value: &Value, _: &ValueContext) -> Result<Self, Mismatches> {
        let text = convert::to_text(value)?;
        GoRegex::check_anchored(&text).map_err(|error| ValueError::new(value, error.to_string()))?;
        Ok(Pattern(text))
    }

    fn zero() -> Option<Self> {
        Some(Pattern("".into()))
    }

    fn to_value(&self) -> Value {
        Value::string(Arc::clone(&self.0))
    }
}

/// One relabelling rule as it is written.
#[derive(Arguments, Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The labels whose values, joined by `separator`, are the source value. A label that is missing counts as empty.
    #[arg(optional)]
    pub source_labels: Vec<String>,
    /// What stands between the values of several source labels.
    #[arg(default = ";")]
    pub separator: String,
    /// The regular expression that the source value, or for `labelmap`, `labeldrop` and `labelkeep` a label's name, has
    /// to match as a whole.
    #[arg(default = "(.*)")]
    pub regex: Pattern,
    /// What `hashmod` divides by.
    #[arg(optional)]
    pub modulus: u64,
    /// The label that is written or compared. `replace` expands `$1` and the like in it.
    #[arg(optional)]
    pub target_label: String,
    /// What `replace` writes, and the new name for `labelmap`; `$1` and the like stand for groups of `regex`.
    #[arg(default = "$1")]
    pub replacement: String,
    /// What to do.
    #[arg(default = "replace")]
    pub action: Action,
}

/// The separator of a rule that does not say otherwise.
const DEFAULT_SEPARATOR: &str = ";";
/// The regular expression of a rule that does not say otherwise.
const DEFAULT_REGEX: &str = "(.*)";
/// The replacement of a rule that does not say otherwise.
const DEFAULT_REPLACEMENT: &str = "$1";

impl Default for Rule {
    fn default() -> Self {
        Rule {
            source_labels: Vec::new(),
            separator: DEFAULT_SEPARATOR.to_owned(),
            regex: DEFAULT_REGEX.into(),
            modulus: 0,
            target_label: String::new(),
            replacement: DEFAULT_REPLACEMENT.to_owned(),
            action: Action::Replace,
        }
    }
}

/// Why a rule was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    /// The field at fault, as it is written in configurations.
    pub field: &'static str,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for RuleError {}

impl From<RegexError> for RuleError {
    fn from(error: RegexError) -> Self {
        RuleError { field: "regex", message: error.to_string() }
    }
}

impl Rule {
    /// Checks what can be checked without compiling: which fields an action needs and allows. The texts are the
    /// reference's.
    ///
    /// # Errors
    ///
    /// The first that is wrong.
    pub fn check(&self) -> Result<(), CheckErrors> {
        self.check_fields().map_err(|error| CheckErrors::of(&[error.field, "action"], error.message))
    }

    fn check_fields(&self) -> Result<(), RuleError> {
        let action = self.action;
        let fail = |field, message| Err(RuleError { field, message });
        let bad_target = || {
            fail("target_label", format!("{} is invalid 'target_label' for {action} action", quote(&self.target_label)))
        };
        if action == Action::HashMod && self.modulus == 0 {
            return fail("modulus", "relabel configuration for hashmod requires non-zero modulus".to_owned());
        }
        let compares = matches!(action, Action::KeepEqual | Action::DropEqual);
        let changes_case = matches!(action, Action::Lowercase | Action::Uppercase);
        let writes = changes_case || matches!(action, Action::Replace | Action::HashMod);
        if (writes || compares) && self.target_label.is_empty() {
            let message = format!("relabel configuration for {action} action requires 'target_label' value");
            return fail("target_label", message);
        }
        // Any other text is a valid name here; whether it is one for a series is looked at when the rule is applied.
        if action == Action::Replace && self.target_label.contains('$') && !is_name_template(&self.target_label) {
            return bad_target();
        }
        if (changes_case || compares) && self.replacement != DEFAULT_REPLACEMENT {
            return fail("replacement", format!("'replacement' can not be set for {action} action"));
        }
        if action == Action::LabelMap && !is_name_template(&self.replacement) {
            let replacement = quote(&self.replacement);
            return fail("replacement", format!("{replacement} is invalid 'replacement' for {action} action"));
        }
        let only_names = matches!(action, Action::LabelDrop | Action::LabelKeep);
        let superfluous = [
            ("source_labels", only_names && !self.source_labels.is_empty()),
            ("target_label", only_names && !self.target_label.is_empty()),
            ("regex", compares && self.regex.as_str() != DEFAULT_REGEX),
            ("modulus", self.modulus != 0),
            ("separator", self.separator != DEFAULT_SEPARATOR),
            ("replacement", self.replacement != DEFAULT_REPLACEMENT),
        ];
        if (only_names || compares)
            && let Some((field, _)) = superfluous.into_iter().find(|(_, set)| *set)
        {
            let allowed = if only_names { "'regex'" } else { "'source_labels' and 'target_label'" };
            return fail(field, format!("{action} action requires only {allowed}, and no other fields"));
        }
        Ok(())
    }
}

/// Whether a text is made of letters, digits and `_` of ASCII and of references like `$1` and `${name}`, and does not
/// begin with a digit.
fn is_name_template(text: &str) -> bool {
    let is_word = |c: char| c == '_' || c.is_ascii_alphanumeric();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        let valid = match rest.strip_prefix('{') {
            _ if c != '$' => is_word(c),
            Some(inner) => match inner.split_once('}') {
                Some((name, behind)) => {
                    rest = behind;
                    !name.is_empty() && name.chars().all(is_word)
                }
                None => false,
            },
            // What follows the first character of the name is valid with or without being part of it.
            None => rest.starts_with(is_word),
        };
        if !valid {
            return false;
        }
    }
    text.starts_with(|c: char| !c.is_ascii_digit())
}

/// Which names of labels are valid where rules are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameScheme {
    /// Names of series in Prometheus before UTF-8: letters, digits and `_` of ASCII, not beginning with a digit.
    Legacy,
    /// Any text but the empty one.
    Utf8,
}

impl NameScheme {
    /// Whether a text is a valid name of a label.
    pub fn is_valid(self, name: &str) -> bool {
        match self {
            NameScheme::Utf8 => !name.is_empty(),
            NameScheme::Legacy => {
                name.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic())
                    && name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
            }
        }
    }
}

/// Rules that are ready to be applied.
#[derive(Debug, Default)]
pub struct Rules {
    rules: Box<[Compiled]>,
}

/// What applying rules needs besides the labels. Reused from set to set: it keeps its allocations.
#[derive(Clone, Debug, Default)]
pub struct RelabelScratch {
    source: String,
    name: String,
    value: String,
    groups: Groups,
    // The labels that `labelmap` adds: (end of name, end of value) in `value`.
    added: Vec<(usize, usize)>,
}

impl RelabelScratch {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }
}

#[derive(Debug)]
struct Compiled {
    source: Source,
    step: Step,
}

/// Where the source value comes from.
#[derive(Debug)]
enum Source {
    One(Box<str>),
    /// The labels and what stands between their values. With no labels the value is empty.
    Joined(Box<[Box<str>]>, Box<str>),
}

#[derive(Debug)]
enum Step {
    Keep(GoRegex),
    Drop(GoRegex),
    KeepEqual(Box<str>),
    DropEqual(Box<str>),
    Replace(Box<Replace>),
    HashMod(u64, Box<str>),
    LabelMap(Box<LabelMap>),
    LabelDrop(GoRegex),
    LabelKeep(GoRegex),
    Lowercase(Box<str>),
    Uppercase(Box<str>),
    /// Does nothing, ever.
    Nothing,
}

#[derive(Debug)]
struct LabelMap {
    regex: GoRegex,
    /// Whether only groups are referred to that are the whole name.
    whole: bool,
    name: Template,
}

#[derive(Debug)]
struct Replace {
    regex: GoRegex,
    /// Whether only groups are referred to that are the whole source value.
    whole: bool,
    names: NameScheme,
    target: Template,
    value: Template,
}

impl Rules {
    /// Checks and compiles rules.
    ///
    /// # Errors
    ///
    /// The first rule that is wrong, by its place, and what is wrong with it.
    pub fn new(rules: &[Rule], names: NameScheme) -> Result<Self, (usize, RuleError)> {
        let compiled =
            rules.iter().enumerate().map(|(place, rule)| compile(rule, names).map_err(|error| (place, error)));
        Ok(Rules { rules: compiled.collect::<Result<_, _>>()? })
    }

    /// Whether there is no rule, so that every set of labels stays as it is.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Applies the rules in order. False if one of them drops the labels, which are then in an undefined state.
    ///
    /// The names of the labels have to be unique. A label without a value counts as absent. What is written is never
    /// empty and has never an empty name.
    pub fn apply(&self, labels: &mut LabelsBuilder, scratch: &mut RelabelScratch) -> bool {
        self.apply_why(labels, scratch).is_ok()
    }

    /// Applies the rules as [`apply`](Self::apply) does, and says which of them drops the labels.
    ///
    /// # Errors
    ///
    /// The place of that rule.
    pub fn apply_why(&self, labels: &mut LabelsBuilder, scratch: &mut RelabelScratch) -> Result<(), usize> {
        match self.rules.iter().position(|rule| !rule.apply(labels, scratch)) {
            Some(place) => Err(place),
            None => Ok(()),
        }
    }

    /// How what a rule drops is counted: its number, from 1 on, and what it does, as `rule 1 drop`.
    pub fn reason(&self, place: usize) -> String {
        match self.rules.get(place).map(|rule| rule.step.action()) {
            Some(action) => format!("rule {} {action}", place + 1),
            None => format!("rule {}", place + 1),
        }
    }
}

impl Step {
    /// The action that it was compiled from.
    fn action(&self) -> Action {
        match self {
            Step::Keep(_) => Action::Keep,
            Step::Drop(_) => Action::Drop,
            Step::KeepEqual(_) => Action::KeepEqual,
            Step::DropEqual(_) => Action::DropEqual,
            Step::Replace(_) | Step::Nothing => Action::Replace,
            Step::HashMod(..) => Action::HashMod,
            Step::LabelMap(_) => Action::LabelMap,
            Step::LabelDrop(_) => Action::LabelDrop,
            Step::LabelKeep(_) => Action::LabelKeep,
            Step::Lowercase(_) => Action::Lowercase,
            Step::Uppercase(_) => Action::Uppercase,
        }
    }
}

fn compile(rule: &Rule, names: NameScheme) -> Result<Compiled, RuleError> {
    rule.check_fields()?;
    let source = match &*rule.source_labels {
        [only] => Source::One(only.as_str().into()),
        labels => {
            Source::Joined(labels.iter().map(|label| label.as_str().into()).collect(), rule.separator.as_str().into())
        }
    };
    // Compiled for every action: a wrong pattern is refused even where it is not used.
    let regex = GoRegex::anchored(rule.regex.as_str())?;
    let target = || rule.target_label.as_str().into();
    let step = match rule.action {
        Action::Replace => {
            let target = Template::new(&rule.target_label, &regex);
            let value = Template::new(&rule.replacement, &regex);
            if target.as_text().is_some_and(|name| !names.is_valid(name)) {
                Step::Nothing
            } else {
                let whole = regex.is_whole(target.last_group().max(value.last_group()));
                Step::Replace(Box::new(Replace { regex, whole, names, target, value }))
            }
        }
        Action::Keep => Step::Keep(regex),
        Action::Drop => Step::Drop(regex),
        Action::KeepEqual => Step::KeepEqual(target()),
        Action::DropEqual => Step::DropEqual(target()),
        Action::HashMod => Step::HashMod(rule.modulus, target()),
        Action::LabelMap => {
            let name = Template::new(&rule.replacement, &regex);
            let whole = regex.is_whole(name.last_group());
            Step::LabelMap(Box::new(LabelMap { regex, whole, name }))
        }
        Action::LabelDrop => Step::LabelDrop(regex),
        Action::LabelKeep => Step::LabelKeep(regex),
        Action::Lowercase => Step::Lowercase(target()),
        Action::Uppercase => Step::Uppercase(target()),
    };
    Ok(Compiled { source, step })
}

impl Source {
    /// The source value. Only what is joined is copied.
    fn read<'a>(&self, labels: &'a LabelsBuilder, joined: &'a mut String) -> &'a str {
        match self {
            Source::One(name) => labels.get(name).unwrap_or(""),
            Source::Joined(names, separator) => {
                joined.clear();
                for (place, name) in names.iter().enumerate() {
                    if place > 0 {
                        joined.push_str(separator);
                    }
                    joined.push_str(labels.get(name).unwrap_or(""));
                }
                joined
            }
        }
    }
}

impl Compiled {
    /// False if the labels are to be dropped.
    fn apply(&self, labels: &mut LabelsBuilder, scratch: &mut RelabelScratch) -> bool {
        let RelabelScratch { source, name, value, groups, added } = scratch;
        match &self.step {
            Step::Keep(regex) => return regex.is_match(self.source.read(labels, source)),
            Step::Drop(regex) => return !regex.is_match(self.source.read(labels, source)),
            Step::KeepEqual(target) => return labels.get(target).unwrap_or("") == self.source.read(labels, source),
            Step::DropEqual(target) => return labels.get(target).unwrap_or("") != self.source.read(labels, source),
            Step::Replace(replace) => {
                let source = self.source.read(labels, source);
                if let Some((name, value)) = replace.evaluate(source, groups, name, value) {
                    set(labels, name, value);
                }
            }
            Step::HashMod(modulus, target) => {
                let hash = hash(self.source.read(labels, source));
                // Zero is refused when the rule is checked.
                if let Some(rest) = hash.checked_rem(*modulus) {
                    value.clear();
                    push_decimal(value, rest);
                    set(labels, target, value);
                }
            }
            Step::LabelMap(map) => {
                // What is added is not looked at again, as if the labels had been read all at once.
                value.clear();
                added.clear();
                for (name, old) in labels.iter().filter(|(_, value)| !value.is_empty()) {
                    let start = value.len();
                    if !map.rename(name, groups, value) || value.len() == start {
                        value.truncate(start);
                        continue;
                    }
                    let middle = value.len();
                    value.push_str(old);
                    added.push((middle, value.len()));
                }
                let mut start = 0;
                for &(middle, end) in added.iter() {
                    set(labels, &value[start..middle], &value[middle..end]);
                    start = end;
                }
            }
            Step::LabelDrop(regex) => labels.retain(|name, _| !regex.is_match(name)),
            Step::LabelKeep(regex) => labels.retain(|name, _| regex.is_match(name)),
            Step::Lowercase(target) => {
                change_case(self.source.read(labels, source), value, str::make_ascii_lowercase, to_lower);
                set(labels, target, value);
            }
            Step::Uppercase(target) => {
                change_case(self.source.read(labels, source), value, str::make_ascii_uppercase, to_upper);
                set(labels, target, value);
            }
            Step::Nothing => {}
        }
        true
    }
}

impl Replace {
    /// What to set to what, if the source value matches.
    fn evaluate<'a>(
        &'a self,
        source: &str,
        groups: &mut Groups,
        name: &'a mut String,
        value: &'a mut String,
    ) -> Option<(&'a str, &'a str)> {
        let matched =
            if self.whole { self.regex.captures_whole(source, groups) } else { self.regex.captures(source, groups) };
        if !matched {
            return None;
        }
        let name = match self.target.as_text() {
            // Found valid when the rule was compiled.
            Some(name) => name,
            None => {
                let name = expand(&self.target, source, groups, name)?;
                self.names.is_valid(name).then_some(name)?
            }
        };
        let value = match self.value.as_text() {
            Some(value) => value,
            None => expand(&self.value, source, groups, value)?,
        };
        Some((name, value))
    }
}

/// Expands a template in place of what `out` held, unless that would be too long.
fn expand<'a>(template: &Template, text: &str, groups: &Groups, out: &'a mut String) -> Option<&'a str> {
    if template.expanded_len(groups) > WRITTEN_BYTES_MAX {
        return None;
    }
    out.clear();
    template.expand(text, groups, out);
    Some(out)
}

impl LabelMap {
    /// Appends the new name of a label. False if the name does not match, or the new one is too long; what was
    /// appended is then of no use.
    fn rename(&self, name: &str, groups: &mut Groups, out: &mut String) -> bool {
        // Most names do not match.
        if !self.regex.is_match(name) {
            return false;
        }
        if !self.regex.is_anchored() {
            // A pattern such as `a)|(b` undoes the anchors; then a name may have several matches.
            return self.regex.replace_within(name, &self.name, groups, out, WRITTEN_BYTES_MAX);
        }
        if self.whole {
            self.regex.captures_whole(name, groups);
        } else {
            self.regex.captures(name, groups);
        }
        let fits = self.name.expanded_len(groups) <= WRITTEN_BYTES_MAX;
        if fits {
            self.name.expand(name, groups, out);
        }
        fits
    }
}

/// Sets a label unless it has the value already. Every copy in the builder is kept until it is cleared.
fn set(labels: &mut LabelsBuilder, name: &str, value: &str) {
    if labels.get(name) != Some(value) {
        labels.set(name, value);
    }
}

/// The last eight bytes of the MD5 of a text.
fn hash(text: &str) -> u64 {
    let digest: [u8; 16] = Md5::digest(text.as_bytes()).into();
    digest[8..].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn push_decimal(out: &mut String, number: u64) {
    if number >= 10 {
        push_decimal(out, number / 10);
    }
    out.push(char::from(b'0' + (number % 10) as u8));
}

/// Writes a text in another case in place of what `out` held.
fn change_case(text: &str, out: &mut String, ascii: fn(&mut str), other: fn(char) -> char) {
    out.clear();
    if text.is_ascii() {
        out.push_str(text);
        ascii(out);
    } else {
        out.extend(text.chars().map(other));
    }
}

/// The lower case of a character as one character, as Go's `strings.ToLower` maps it.
fn to_lower(c: char) -> char {
    match c {
        'İ' => 'i',
        _ => c.to_lowercase().next().unwrap_or(c),
    }
}

/// The upper case of a character as one character, as Go's `strings.ToUpper` maps it.
fn to_upper(c: char) -> char {
    let mut upper = c.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(one), None) => one,
        // In full, these become several characters. As one, Greek letters with a subscript iota have it beside them,
        // and the others stay.
        _ => match c {
            '\u{1f80}'..='\u{1f87}' | '\u{1f90}'..='\u{1f97}' | '\u{1fa0}'..='\u{1fa7}' => offset(c, 8),
            '\u{1fb3}' | '\u{1fc3}' | '\u{1ff3}' => offset(c, 9),
            _ => c,
        },
    }
}

fn offset(c: char, by: u32) -> char {
    char::from_u32(u32::from(c) + by).unwrap_or(c)
}

/// Rules as one component exports them to another: as they are written, because whoever applies them decides which
/// names are valid.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RelabelRules(pub Arc<[Rule]>);

impl Capsule for RelabelRules {
    fn type_name(&self) -> &'static str {
        Self::INFO.type_name
    }

    fn equals(&self, other: &dyn Capsule) -> bool {
        other.as_any().downcast_ref::<Self>() == Some(self)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl CapsuleType for RelabelRules {
    const INFO: &'static CapsuleInfo =
        &CapsuleInfo { type_name: "relabel.Rules", shown: "RelabelRules", object_like: false, from: &[] };

    fn null() -> Option<Self> {
        Some(Self::default())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use corten_config::decode::{self, DecodeContext};
    use corten_config::schema::Stability;
    use corten_syntax::{Stmt, parse};
    use proptest::prelude::*;

    use super::*;

    #[derive(Arguments, Clone, Debug, PartialEq)]
    struct Config {
        /// Rules.
        #[block(name = "rule")]
        rules: Vec<Rule>,
    }

    /// The rules of a configuration in which each line is the body of a rule, its attributes between semicolons.
    fn read(lines: &str) -> Result<Vec<Rule>, String> {
        let body: Vec<String> = lines
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(|line| format!("rule {{\n{}\n}}", line.replace(" | ", "\n")))
            .collect();
        let parsed = parse("test", &format!("component {{\n{}\n}}", body.join("\n")));
        let [Stmt::Block(block)] = &*parsed.file.body else { panic!("{lines}: {}", parsed.diagnostics) };
        let cx = DecodeContext { scope: &(), minimum: Stability::GenerallyAvailable };
        match decode::decode::<Config>(block, &cx) {
            Ok(config) => Ok(config.value.rules),
            Err(errors) => Err(errors.into_diagnostics().to_string()),
        }
    }

    /// Labels written as `a=1,b=2`, where a value has no comma.
    fn labels(text: &str) -> LabelsBuilder {
        let mut labels = LabelsBuilder::new();
        for pair in text.split(',').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap();
            labels.push(name, value);
        }
        labels
    }

    fn shown(labels: &LabelsBuilder) -> String {
        let sorted: BTreeMap<&str, &str> = labels.iter().collect();
        assert_eq!(sorted.len(), labels.len(), "a name stands twice: {labels:?}");
        sorted.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
    }

    /// What rules make of labels; `dropped` if they are dropped.
    fn relabel(rules: &[Rule], names: NameScheme, input: &str) -> String {
        let rules = Rules::new(rules, names).unwrap_or_else(|(place, error)| panic!("rule {place}: {error}"));
        let mut labels = labels(input);
        match rules.apply(&mut labels, &mut RelabelScratch::new()) {
            true => shown(&labels),
            false => "dropped".to_owned(),
        }
    }

    /// Rules, labels, and what comes out, with names that are UTF-8.
    #[rustfmt::skip]
    const CASES: &[(&str, &str, &str)] = &[
        // replace
        (r#"source_labels = ["a"] | regex = "f(.*)" | target_label = "d" | replacement = "ch${1}-ch${1}""#,
            "a=foo,b=bar,c=baz", "a=foo,b=bar,c=baz,d=choo-choo"),
        (r#"source_labels = ["a", "b"] | regex = "f(.*);(.*)r" | target_label = "a" | replacement = "b${1}${2}m"
            source_labels = ["c", "a"] | regex = "(b).*b(.*)ba(.*)" | target_label = "d" | replacement = "$1$2$2$3""#,
            "a=foo,b=bar,c=baz", "a=boobam,b=bar,c=baz,d=boooom"),
        (r#"source_labels = ["a"] | regex = ".*(b).*" | target_label = "d""#, "a=abc", "a=abc,d=b"),
        (r#"source_labels = ["a"] | regex = "f" | target_label = "b" | replacement = "bar""#, "a=boo", "a=boo"),
        (r#"source_labels = ["a"] | regex = "foo" | target_label = "b" | replacement = "x""#, "a=foobar", "a=foobar"),
        (r#"source_labels = ["a"] | target_label = "b""#, "a=1", "a=1,b=1"),
        (r#"source_labels = ["a"] | target_label = "b""#, "b=1", ""),
        (r#"source_labels = ["a"] | target_label = "a""#, "a=1,b=2", "a=1,b=2"),
        (r#"source_labels = ["a", "b"] | target_label = "c""#, "a=1,b=2", "a=1,b=2,c=1;2"),
        (r#"source_labels = ["a", "x", "b"] | target_label = "c" | separator = "--""#, "a=1,b=2", "a=1,b=2,c=1----2"),
        (r#"source_labels = ["a", "b"] | target_label = "c" | separator = """#, "a=1,b=2", "a=1,b=2,c=12"),
        (r#"target_label = "cluster" | replacement = "eu""#, "a=1", "a=1,cluster=eu"),
        (r#"target_label = "a" | replacement = """#, "a=1,b=2", "b=2"),
        (r#"target_label = "a" | regex = "" | replacement = "x""#, "a=1", "a=x"),
        (r#"target_label = "a" | regex = ".+" | replacement = "x""#, "a=1", "a=1"),
        (r#"source_labels = ["missing"] | target_label = "a" | replacement = "set""#, "", "a=set"),
        (r#"source_labels = ["missing"] | regex = "(.+)" | target_label = "a" | replacement = "set""#, "", ""),
        (r#"source_labels = ["a"] | regex = "(f).*" | target_label = "$1" | replacement = "$2""#,
            "a=foo,f=baz", "a=foo"),
        (r#"source_labels = ["a"] | regex = "some-([^-]+)-([^,]+)" | target_label = "${1}" | replacement = "${2}""#,
            "a=some-name-value", "a=some-name-value,name=value"),
        (r#"source_labels = ["a"] | regex = "some-([^-]+)-([^,]+)" | target_label = "${1}" | replacement = "${3}""#,
            "a=some-name-value", "a=some-name-value"),
        (r#"source_labels = ["a"] | regex = "some-([^-]+)-([^,]+)" | target_label = "${3}" | replacement = "${1}""#,
            "a=some-name-0", "a=some-name-0"),
        (r#"source_labels = ["t"] | regex = "(?:.+;|^)path:(/[^;]+).*" | target_label = "__metrics_path__"
            source_labels = ["t"] | regex = "(?:.+;|^)job:([^;]+).*" | target_label = "job"
            source_labels = ["t"] | regex = "(?:.+;|^)label:([^=]+)-([^;]+).*" | target_label = "${1}" | replacement = "${2}""#,
            "t=path:/secret;job:some-job;label:foo-bar",
            "__metrics_path__=/secret,foo=bar,job=some-job,t=path:/secret;job:some-job;label:foo-bar"),
        (r#"source_labels = ["a"] | regex = "line1.*line2" | target_label = "d" | replacement = "match${1}""#,
            "a=line1\nline2", "a=line1\nline2,d=match"),
        (r#"source_labels = ["a"] | regex = "(x).*(?<second>y)" | target_label = "l_$1" | replacement = "v_$second""#,
            "a=x-y", "a=x-y,l_x=v_y"),
        (r#"source_labels = ["utf-8.label"] | target_label = "d.e""#, "utf-8.label=1", "d.e=1,utf-8.label=1"),
        (r#"source_labels = ["a"] | regex = "(.*)" | target_label = "b" | replacement = "$1x""#, "a=1,b=2", "a=1"),
        (r#"source_labels = ["a"] | regex = "(.*)" | target_label = "b" | replacement = "${1}x""#, "a=1", "a=1,b=1x"),
        (r#"source_labels = ["a"] | target_label = "b" | replacement = "$$1""#, "a=1", "a=1,b=$1"),
        (r#"source_labels = ["a"] | target_label = "b" | replacement = "5$""#, "a=1", "a=1,b=5$"),
        (r#"source_labels = ["a"] | regex = "a)|(b" | target_label = "b" | replacement = "<$1>""#,
            "a=xb", "a=xb,b=<b>"),
        (r#"source_labels = ["a"] | regex = "(?i)TRUE" | target_label = "b" | replacement = "1""#,
            "a=tRue", "a=tRue,b=1"),
        (r#"source_labels = ["__name__"] | regex = ".*_total$" | target_label = "t" | replacement = "counter""#,
            "__name__=http_requests_total", "__name__=http_requests_total,t=counter"),
        // keep and drop
        (r#"source_labels = ["a"] | regex = ".*o.*" | action = "drop"
            source_labels = ["a"] | regex = "f(.*)" | target_label = "d""#, "a=foo", "dropped"),
        (r#"source_labels = ["a"] | regex = "no-match" | action = "drop""#, "a=foo", "a=foo"),
        (r#"source_labels = ["a"] | regex = "f|o" | action = "drop""#, "a=foo", "a=foo"),
        (r#"source_labels = ["a"] | regex = "" | action = "drop""#, "b=foo", "dropped"),
        (r#"source_labels = ["a"] | regex = "no-match" | action = "keep""#, "a=foo", "dropped"),
        (r#"source_labels = ["a"] | regex = "f.*" | action = "keep""#, "a=foo", "a=foo"),
        (r#"source_labels = ["missing"] | regex = "f.*" | action = "keep""#, "a=foo", "dropped"),
        (r#"source_labels = ["missing"] | action = "keep""#, "a=foo", "a=foo"),
        (r#"action = "drop""#, "a=foo", "dropped"),
        (r#"action = "keep" | regex = "x""#, "a=foo", "dropped"),
        (r#"source_labels = ["a", "b"] | regex = "1;2" | action = "keep""#, "a=1,b=2", "a=1,b=2"),
        // keepequal and dropequal
        (r#"source_labels = ["t"] | target_label = "p" | action = "keepequal""#, "t=1,p=1,q=2", "p=1,q=2,t=1"),
        (r#"source_labels = ["t"] | target_label = "q" | action = "keepequal""#, "t=1,p=1,q=2", "dropped"),
        (r#"source_labels = ["t"] | target_label = "p" | action = "dropequal""#, "t=1,p=1,q=2", "dropped"),
        (r#"source_labels = ["t"] | target_label = "q" | action = "dropequal""#, "t=1,p=1,q=2", "p=1,q=2,t=1"),
        (r#"source_labels = ["x"] | target_label = "y" | action = "keepequal""#, "a=1", "a=1"),
        (r#"source_labels = ["x"] | target_label = "y" | action = "dropequal""#, "a=1", "dropped"),
        (r#"target_label = "a" | action = "keepequal""#, "a=1", "dropped"),
        // hashmod
        (r#"source_labels = ["c"] | target_label = "d" | action = "hashmod" | modulus = 1000"#, "c=baz", "c=baz,d=976"),
        (r#"source_labels = ["a"] | target_label = "b" | action = "hashmod" | modulus = 1000"#,
            "a=foo\nbar", "a=foo\nbar,b=734"),
        (r#"source_labels = ["a", "b"] | target_label = "c" | action = "hashmod" | modulus = 18446744073709551615"#,
            "", "c=4718772755342097393"),
        (r#"target_label = "c" | action = "hashmod" | modulus = 1"#, "c=5", "c=0"),
        // labelmap
        (r#"regex = "(b.*)" | replacement = "bar_${1}" | action = "labelmap""#,
            "a=foo,b1=bar,b2=baz", "a=foo,b1=bar,b2=baz,bar_b1=bar,bar_b2=baz"),
        (r#"regex = "__meta_(my.*)" | replacement = "${1}" | action = "labelmap""#,
            "a=foo,__meta_my_bar=aaa,__meta_my_baz=bbb,__meta_other=ccc",
            "__meta_my_bar=aaa,__meta_my_baz=bbb,__meta_other=ccc,a=foo,my_bar=aaa,my_baz=bbb"),
        (r#"regex = "a" | replacement = "aa" | action = "labelmap"
            regex = "a+" | replacement = "b" | action = "labelmap""#, "a=1", "a=1,aa=1,b=1"),
        // What is added is not mapped again.
        (r#"regex = "(a+)" | replacement = "$1a" | action = "labelmap""#, "a=1", "a=1"),
        (r#"regex = "(a+)" | replacement = "a${1}" | action = "labelmap""#, "a=1", "a=1,aa=1"),
        (r#"regex = "x_(.*)" | action = "labelmap""#, "x_=1,x_a=2", "a=2,x_=1,x_a=2"),
        (r#"regex = "x_(.*)" | action = "labelmap""#, "x_a=,a=2", "a=2,x_a="),
        (r#"regex = "a)|(b" | replacement = "c" | action = "labelmap""#, "xb=1,ay=2", "ay=2,cy=2,xb=1,xc=1"),
        // labeldrop and labelkeep
        (r#"regex = "(b.*)" | action = "labelkeep""#, "a=foo,b1=bar,b2=baz", "b1=bar,b2=baz"),
        (r#"regex = "(b.*)" | action = "labeldrop""#, "a=foo,b1=bar,b2=baz", "a=foo"),
        (r#"regex = "__.*" | action = "labeldrop""#, "__name__=x,__address__=y,a=1", "a=1"),
        (r#"regex = "x" | action = "labelkeep""#, "a=1", ""),
        (r#"regex = "^m_port$" | action = "labeldrop"
            source_labels = ["m_annotation"] | regex = "(.+)" | replacement = "metrics" | target_label = "m_port"
            source_labels = ["m_port"] | regex = "^metrics$" | action = "keep""#,
            "m_port=foo,m_annotation=9091", "m_annotation=9091,m_port=metrics"),
        // lowercase and uppercase
        (r#"source_labels = ["foo"] | action = "uppercase" | target_label = "u"
            source_labels = ["foo"] | action = "lowercase" | target_label = "l""#,
            "foo=bAr123Foo", "foo=bAr123Foo,l=bar123foo,u=BAR123FOO"),
        (r#"source_labels = ["a", "b"] | action = "uppercase" | target_label = "a""#, "a=x,b=y", "a=X;Y,b=y"),
        (r#"source_labels = ["missing"] | action = "lowercase" | target_label = "a""#, "a=X,b=1", "b=1"),
        (r#"source_labels = ["a"] | action = "uppercase" | target_label = "u""#,
            "a=straße ŉ ᾳ ﬁ", "a=straße ŉ ᾳ ﬁ,u=STRAßE ŉ ᾼ ﬁ"),
        (r#"source_labels = ["a"] | action = "lowercase" | target_label = "l""#, "a=İΣΑΣ", "a=İΣΑΣ,l=iσασ"),
    ];

    #[test]
    fn rules_do_what_the_reference_does() {
        for (rules, input, expected) in CASES {
            let rules = read(rules).unwrap();
            assert_eq!(relabel(&rules, NameScheme::Utf8, input), *expected, "{rules:?} on {input}");
        }
    }

    #[test]
    fn no_rules_change_nothing() {
        let rules = Rules::new(&[], NameScheme::Utf8).unwrap();
        assert!(rules.is_empty());
        let mut labels = labels("b=1,a=2");
        assert!(rules.apply(&mut labels, &mut RelabelScratch::new()));
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("b", "1"), ("a", "2")]);
    }

    #[test]
    fn replace_writes_names_of_series_only_if_they_were_valid_before_utf_8() {
        let cases = [
            (r#"target_label = "a-b" | replacement = "x""#, "", "a-b=x"),
            (r#"source_labels = ["n"] | target_label = "${1}" | replacement = "x""#, "n=a.b", "a.b=x,n=a.b"),
            (r#"source_labels = ["n"] | target_label = "${1}" | replacement = "x""#, "n=1a", "1a=x,n=1a"),
            (r#"source_labels = ["n"] | target_label = "${1}" | replacement = "x""#, "n=é", "n=é,é=x"),
            // The other actions do not look at names.
            (r#"source_labels = ["n"] | target_label = "a-b" | action = "uppercase""#, "n=x", "a-b=X,n=x"),
            (r#"target_label = "a-b" | modulus = 1 | action = "hashmod""#, "", "a-b=0"),
            (r#"regex = "(.+)" | replacement = "${1}" | action = "labelmap""#, "a-b=1", "a-b=1"),
        ];
        for (place, (rules, input, expected)) in cases.into_iter().enumerate() {
            let rules = read(rules).unwrap();
            assert_eq!(relabel(&rules, NameScheme::Utf8, input), expected);
            let legacy = if place < 4 { input } else { expected };
            assert_eq!(relabel(&rules, NameScheme::Legacy, input), legacy);
        }
        for (name, utf8, legacy) in [
            ("a", true, true),
            ("_1", true, true),
            ("a:b", true, false),
            ("1a", true, false),
            ("", false, false),
            ("é", true, false),
        ] {
            assert_eq!((NameScheme::Utf8.is_valid(name), NameScheme::Legacy.is_valid(name)), (utf8, legacy), "{name}");
        }
    }

    #[test]
    fn rules_that_make_no_sense_are_refused() {
        let cases = [
            (r#"action = "Replace""#, "unrecognized action type \"Replace\""),
            (r#"action = "x\ty""#, "unrecognized action type \"x\\ty\""),
            (
                r#"action = "hashmod" | target_label = "a""#,
                "relabel configuration for hashmod requires non-zero modulus",
            ),
            (r#"regex = "a""#, "relabel configuration for replace action requires 'target_label' value"),
            (
                r#"action = "hashmod" | modulus = 1"#,
                "relabel configuration for hashmod action requires 'target_label' value",
            ),
            (r#"action = "lowercase""#, "relabel configuration for lowercase action requires 'target_label' value"),
            (r#"action = "uppercase""#, "relabel configuration for uppercase action requires 'target_label' value"),
            (r#"action = "keepequal""#, "relabel configuration for keepequal action requires 'target_label' value"),
            (r#"action = "dropequal""#, "relabel configuration for dropequal action requires 'target_label' value"),
            (r#"target_label = "0${3}""#, "\"0${3}\" is invalid 'target_label' for replace action"),
            (r#"target_label = "-${3}""#, "\"-${3}\" is invalid 'target_label' for replace action"),
            (
                r#"action = "lowercase" | target_label = "a" | replacement = "x""#,
                "'replacement' can not be set for lowercase action",
            ),
            (
                r#"action = "keepequal" | target_label = "a" | replacement = "x""#,
                "'replacement' can not be set for keepequal action",
            ),
            (r#"action = "labelmap" | replacement = "a-b""#, "\"a-b\" is invalid 'replacement' for labelmap action"),
            (r#"action = "labelmap" | replacement = """#, "\"\" is invalid 'replacement' for labelmap action"),
            (
                r#"action = "keepequal" | target_label = "a" | regex = "a""#,
                "keepequal action requires only 'source_labels' and 'target_label', and no other fields",
            ),
            (
                r#"action = "dropequal" | target_label = "a" | separator = ",""#,
                "dropequal action requires only 'source_labels' and 'target_label', and no other fields",
            ),
            (
                r#"action = "dropequal" | target_label = "a" | modulus = 1"#,
                "dropequal action requires only 'source_labels' and 'target_label', and no other fields",
            ),
            (
                r#"action = "labeldrop" | regex = "a" | source_labels = ["a"]"#,
                "labeldrop action requires only 'regex', and no other fields",
            ),
            (
                r#"action = "labelkeep" | target_label = "a""#,
                "labelkeep action requires only 'regex', and no other fields",
            ),
            (r#"action = "labelkeep" | modulus = 1"#, "labelkeep action requires only 'regex', and no other fields"),
            (r#"action = "labelkeep" | separator = """#, "labelkeep action requires only 'regex', and no other fields"),
            (
                r#"action = "labelkeep" | replacement = """#,
                "labelkeep action requires only 'regex', and no other fields",
            ),
            (r#"target_label = "a" | regex = "(a""#, "error parsing regexp: missing closing ): `^(?s:(a)$`"),
            (r#"action = "keep" | regex = "(?=a)""#, "error parsing regexp: invalid or unsupported Perl syntax: `(?=`"),
        ];
        for (line, expected) in cases {
            let error = read(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn rules_that_need_little_are_accepted() {
        for line in [
            r#"target_label = "a b""#,
            r#"target_label = "é""#,
            r#"action = "lowercase" | target_label = "${3}""#,
            r#"action = "keep""#,
            r#"action = "labelmap""#,
            r#"action = "labeldrop""#,
            r#"action = "keepequal" | target_label = "a" | regex = "(.*)" | separator = ";" | replacement = "$1" | modulus = 0"#,
            r#"target_label = "a" | regex = 5"#,
        ] {
            assert!(read(line).is_ok_and(|rules| Rules::new(&rules, NameScheme::Legacy).is_ok()), "{line}");
        }
    }

    #[test]
    fn the_defaults_of_a_block_are_those_of_the_struct() {
        let rules = read(r#"action = "keep""#).unwrap();
        assert_eq!(rules, [Rule { action: Action::Keep, ..Rule::default() }]);
    }

    #[test]
    fn templates_of_names_are_told_from_other_texts() {
        for (text, expected) in [
            ("-label", false),
            ("label", true),
            ("label${1}", true),
            ("${1}label", true),
            ("${1}", true),
            ("${", false),
            ("$", false),
            ("${}", false),
            ("foo${", false),
            ("$1", true),
            ("asd$2asd", true),
            ("-foo${1}bar-", false),
            ("bar.foo${1}bar", false),
            ("_${1}_", true),
            ("foo${bar}foo", true),
            ("", false),
            ("1", false),
            ("$1$", false),
            ("$é", false),
            ("a$1é", false),
            ("$${1}", false),
            ("a1$1", true),
            ("${a-b}", false),
            ("${é}", false),
        ] {
            assert_eq!(is_name_template(text), expected, "{text}");
        }
        // The form in which the reference has it.
        let reference = GoRegex::new(r"^(?:(?:[a-zA-Z_]|\$(?:\{\w+\}|\w+))+\w*)+$").unwrap();
        proptest!(|(text in "[a1$${}_é-]{0,7}")| {
            prop_assert_eq!(is_name_template(&text), reference.is_match(&text), "{}", text);
        });
    }

    #[test]
    fn case_is_changed_one_character_for_one() {
        for (from, lower, upper) in [
            ('a', 'a', 'A'),
            ('Ω', 'ω', 'Ω'),
            ('ß', 'ß', 'ß'),
            ('ſ', 'ſ', 'S'),
            ('ǆ', 'ǆ', 'Ǆ'),
            ('ǅ', 'ǆ', 'Ǆ'),
            ('ı', 'ı', 'I'),
            ('İ', 'i', 'İ'),
            ('ᾀ', 'ᾀ', 'ᾈ'),
            ('ᾈ', 'ᾀ', 'ᾈ'),
            ('ῳ', 'ῳ', 'ῼ'),
            ('ῼ', 'ῳ', 'ῼ'),
            ('ᾶ', 'ᾶ', 'ᾶ'),
            ('ﬀ', 'ﬀ', 'ﬀ'),
            ('漢', '漢', '漢'),
        ] {
            assert_eq!((to_lower(from), to_upper(from)), (lower, upper), "{from}");
        }
    }

    #[test]
    fn rules_cannot_fill_the_memory() {
        let double = Rule {
            source_labels: vec!["a".to_owned()],
            target_label: "a".to_owned(),
            replacement: "$1$1".to_owned(),
            ..Rule::default()
        };
        let rename = Rule { action: Action::LabelMap, replacement: "${1}${1}".to_owned(), ..Rule::default() };
        let drop = Rule { action: Action::LabelKeep, regex: "(aa)*".into(), ..Rule::default() };
        let rules: Vec<Rule> = (0..40).flat_map(|_| [double.clone(), rename.clone(), drop.clone()]).collect();
        let rules = Rules::new(&rules[..60], NameScheme::Utf8).unwrap();
        let mut labels = labels("a=x");
        assert!(rules.apply(&mut labels, &mut RelabelScratch::new()));
        assert!(labels.iter().all(|(name, value)| name.len().max(value.len()) <= WRITTEN_BYTES_MAX));
    }

    #[test]
    fn the_first_rule_that_is_wrong_is_named() {
        let wrong = Rule { regex: "(".into(), ..Rule::default() };
        let right = Rule { action: Action::Keep, ..Rule::default() };
        let (place, error) = Rules::new(&[right.clone(), wrong.clone()], NameScheme::Utf8).unwrap_err();
        assert_eq!((place, error.field), (1, "target_label"));
        let wrong = Rule { action: Action::Drop, ..wrong };
        let (place, error) = Rules::new(&[wrong, right], NameScheme::Utf8).unwrap_err();
        assert_eq!((place, error.field), (0, "regex"));
    }

    #[test]
    fn exported_rules_are_the_same_if_they_say_the_same() {
        let rules = |action| RelabelRules(Arc::new([Rule { action, ..Rule::default() }]));
        let value = rules(Action::Keep).to_value();
        assert_eq!(value.describe(), "capsule(\"relabel.Rules\")");
        let cx = ValueContext { minimum: Stability::GenerallyAvailable, checking: false };
        assert_eq!(RelabelRules::decode(&value, &cx).unwrap(), rules(Action::Keep));
        assert!(RelabelRules::decode(&Value::string("x"), &cx).is_err());
        assert!(rules(Action::Keep).equals(&rules(Action::Keep)));
        assert!(!rules(Action::Keep).equals(&rules(Action::Drop)));
    }

    fn rule() -> impl Strategy<Value = Rule> {
        let name =
            || proptest::sample::select(vec!["a", "b", "ab", "__name__", "é", "a-b", ""]).prop_map(str::to_owned);
        let regex = proptest::sample::select(vec![
            "(.*)",
            "",
            "a",
            "a|b",
            "(a)(b)?",
            "(.+)",
            "a.*",
            ".*b",
            "(?i)A",
            "a)|(b",
            "(?P<n>.)(.*)",
            "[^;]*",
            "é",
            "(",
        ]);
        let template = proptest::sample::select(vec!["$1", "${1}x", "$0", "x", "", "$n", "a", "${2}", "$$", "$1$1"]);
        let action = (0..11usize).prop_map(|index| Action::from_index(index).unwrap_or_default());
        (
            proptest::collection::vec(name(), 0..3),
            proptest::sample::select(vec![";", "", "--"]),
            regex,
            0..4u64,
            prop_oneof![name(), template.clone().prop_map(str::to_owned)],
            prop_oneof![Just("$1"), template],
            action,
        )
            .prop_map(|(source_labels, separator, regex, modulus, target_label, replacement, action)| Rule {
                source_labels,
                separator: separator.to_owned(),
                regex: regex.into(),
                modulus,
                target_label,
                replacement: replacement.to_owned(),
                action,
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_rules_keep_names_unique_and_values_present(
            rules in proptest::collection::vec(rule(), 0..12),
            input in proptest::collection::btree_map("[abé_;-]{1,3}", "[abAéß;]{1,4}", 0..6),
            legacy: bool,
        ) {
            let names = if legacy { NameScheme::Legacy } else { NameScheme::Utf8 };
            let rules: Vec<Rule> = rules.into_iter().filter(|rule| Rules::new(std::slice::from_ref(rule), names).is_ok()).collect();
            let compiled = Rules::new(&rules, names).unwrap();
            let mut labels = LabelsBuilder::new();
            for (name, value) in &input {
                labels.push(name, value);
            }
            let mut scratch = RelabelScratch::new();
            let why = compiled.apply_why(&mut labels, &mut scratch);
            let kept = why.is_ok();
            if let Err(place) = why {
                // Those before it let the labels pass, and it alone does not.
                let mut labels = LabelsBuilder::new();
                input.iter().for_each(|(name, value)| labels.push(name, value));
                let before = Rules::new(&rules[..place], names).unwrap();
                prop_assert!(before.apply(&mut labels, &mut RelabelScratch::new()));
                let it = Rules::new(&rules[place..=place], names).unwrap();
                prop_assert_eq!(it.apply_why(&mut labels, &mut RelabelScratch::new()), Err(0));
                prop_assert_eq!(compiled.reason(place), format!("rule {} {}", place + 1, rules[place].action));
            }
            if kept {
                prop_assert!(labels.iter().all(|(name, value)| !name.is_empty() && !value.is_empty()));
                prop_assert!(labels.encode_into(&mut Vec::new()).is_ok());
            }
            // What was applied before leaves no trace in the scratch space.
            let again = |scratch: &mut RelabelScratch| {
                let mut labels = LabelsBuilder::new();
                input.iter().for_each(|(name, value)| labels.push(name, value));
                compiled.apply(&mut labels, scratch).then(|| shown(&labels))
            };
            prop_assert_eq!(again(&mut scratch), again(&mut RelabelScratch::new()));
        }

        #[test]
        fn any_text_is_a_rule_or_refused(
            regex in "\\PC{0,12}", target in "\\PC{0,6}", replacement in "\\PC{0,8}", value in "\\PC{0,8}", index in 0..11usize,
        ) {
            let rule = Rule {
                source_labels: vec!["a".to_owned()],
                regex: regex.as_str().into(),
                target_label: target,
                replacement,
                modulus: 7,
                action: Action::from_index(index).unwrap_or_default(),
                ..Rule::default()
            };
            if let Ok(rules) = Rules::new(&[rule], NameScheme::Utf8) {
                let mut labels = LabelsBuilder::new();
                labels.set("a", &value);
                rules.apply(&mut labels, &mut RelabelScratch::new());
            }
        }
    }
}
