//! Semantic versions, and constraints on them.

use std::cmp::Ordering;
use std::fmt;
use std::rc::Rc;
use std::sync::LazyLock;

use corten_signal::regex::{GoRegex, Groups};

use super::Type::{self, Text};
use super::{Answer, Function, Run, any, function, text};
use crate::numbers::parse_uint;
use crate::template::Value;

/// The longest version, in bytes.
const VERSION_BYTES_MAX: usize = 256;
/// The longest constraint, in bytes.
const CONSTRAINT_BYTES_MAX: usize = 512;
/// The most alternatives that a constraint may have.
const ALTERNATIVES_MAX: usize = 32;

pub(super) const FUNCTIONS: &[Function] = &[
    function("semver", &[Text], |_, args| Ok(Value::Version(Rc::new(Version::parse(text(args, 0))?)))),
    function("semverCompare", &[Text, Text], |_, args| {
        let constraint = Constraint::parse(text(args, 0))?;
        let version = Version::parse(text(args, 1))?;
        Ok(Value::Bool(constraint.allows(&version)))
    }),
];

const COMPARED: &[Type] = &[Type::Version];

const fn method(name: &'static str, run: Run) -> Function {
    function(name, &[], run)
}

pub(super) const METHODS: &[Function] = &[
    function("Compare", COMPARED, |_, args| compared(args, |order| Value::Int(i64::from(order as i8)))),
    function("Equal", COMPARED, |_, args| compared(args, |order| Value::Bool(order.is_eq()))),
    function("GreaterThan", COMPARED, |_, args| compared(args, |order| Value::Bool(order.is_gt()))),
    method("IncMajor", |_, args| {
        changed(args, |version| (version.major, version.minor, version.patch) = (version.major.saturating_add(1), 0, 0))
    }),
    method("IncMinor", |_, args| {
        changed(args, |version| (version.minor, version.patch) = (version.minor.saturating_add(1), 0))
    }),
    method("IncPatch", |_, args| {
        // A version before a release leads to that release.
        changed(args, |version| version.patch += u64::from(version.pre.is_empty() && version.patch < u64::MAX))
    }),
    function("LessThan", COMPARED, |_, args| compared(args, |order| Value::Bool(order.is_lt()))),
    method("Major", |_, args| read(args, |version| Value::Int64(version.major as i64))),
    method("Metadata", |_, args| read(args, |version| Value::from(version.metadata.clone()))),
    method("Minor", |_, args| read(args, |version| Value::Int64(version.minor as i64))),
    method("Original", |_, args| read(args, |version| Value::from(version.original.clone()))),
    method("Patch", |_, args| read(args, |version| Value::Int64(version.patch as i64))),
    method("Prerelease", |_, args| read(args, |version| Value::from(version.pre.clone()))),
    method("String", |_, args| read(args, |version| Value::from(version.to_string()))),
];

fn read(args: &[Value], what: fn(&Version) -> Value) -> Answer {
    match any(args, 0) {
        Value::Version(version) => Ok(what(version)),
        _ => Ok(Value::Nil),
    }
}

fn compared(args: &[Value], answer: fn(Ordering) -> Value) -> Answer {
    match (any(args, 0), any(args, 1)) {
        (Value::Version(a), Value::Version(b)) => Ok(answer(a.compare(b))),
        _ => Err("runtime error: invalid memory address or nil pointer dereference".to_owned()),
    }
}

fn changed(args: &[Value], change: fn(&mut Version)) -> Answer {
    let Value::Version(version) = any(args, 0) else { return Ok(Value::Nil) };
    let mut version = Version::clone(version);
    change(&mut version);
    version.pre.clear();
    version.metadata.clear();
    let prefix = if version.original.starts_with('v') { "v" } else { "" };
    version.original = format!("{prefix}{version}");
    Ok(Value::Version(Rc::new(version)))
}

/// A version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    major: u64,
    minor: u64,
    patch: u64,
    /// What stands behind the hyphen.
    pre: String,
    /// What stands behind the plus sign.
    metadata: String,
    original: String,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)?;
        if !self.pre.is_empty() {
            write!(f, "-{}", self.pre)?;
        }
        if !self.metadata.is_empty() {
            write!(f, "+{}", self.metadata)?;
        }
        Ok(())
    }
}

/// What may stand behind the numbers of a version.
const SUFFIXES: &str = r"(-([0-9A-Za-z\-]+(?:\.[0-9A-Za-z\-]+)*))?(?:\+([0-9A-Za-z\-]+(?:\.[0-9A-Za-z\-]+)*))?";
/// A version in which numbers may be left open. It has five groups: three numbers, and the suffixes.
const OPEN: &str = r"v?([0-9|x|X|\*]+)(\.[0-9|x|X|\*]+)?(\.[0-9|x|X|\*]+)?";
const OPERATORS: &str = r"=||!=|>|<|>=|=>|<=|=<|~|~>|\^";

/// A pattern of this file.
fn compiled(pattern: &str) -> Option<GoRegex> {
    GoRegex::new(pattern).ok()
}

/// The groups of a match; nothing if there is none.
fn groups<'a>(regex: &Option<GoRegex>, text: &'a str, at: usize) -> Option<Vec<Option<(usize, &'a str)>>> {
    let regex = regex.as_ref()?;
    let mut found = Groups::new();
    if !regex.captures_at(text, at, &mut found) {
        return None;
    }
    let group = |index| found.get(index).map(|range| (range.start, &text[range]));
    Some((0..=regex.group_count()).map(group).collect())
}

impl Version {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        static PATTERN: LazyLock<Option<GoRegex>> =
            LazyLock::new(|| compiled(&format!(r"^v?([0-9]+)(\.[0-9]+)?(\.[0-9]+)?{SUFFIXES}$")));
        if bytes.len() > VERSION_BYTES_MAX {
            return Err(format!("version string is too long (max {VERSION_BYTES_MAX} bytes)"));
        }
        let invalid = || "invalid semantic version".to_owned();
        let original = std::str::from_utf8(bytes).map_err(|_| invalid())?;
        let found = groups(&PATTERN, original, 0).ok_or_else(invalid)?;
        let group = |index: usize| found.get(index).copied().flatten().map_or("", |(_, text)| text);
        let number = |index: usize| {
            let digits = group(index).trim_start_matches('.');
            if digits.is_empty() {
                return Ok(0);
            }
            parse_uint(digits.as_bytes(), 10).map_err(|_| {
                let quoted = crate::text::quote(digits.as_bytes());
                format!("error parsing version segment: strconv.ParseUint: parsing {quoted}: value out of range")
            })
        };
        let version = Version {
            major: number(1)?,
            minor: number(2)?,
            patch: number(3)?,
            pre: group(5).to_owned(),
            metadata: group(6).to_owned(),
            original: original.to_owned(),
        };
        let leading_zero =
            |part: &str| part.len() > 1 && part.starts_with('0') && part.bytes().all(|byte| byte.is_ascii_digit());
        if version.pre.split('.').any(leading_zero) {
            return Err("version segment starts with 0".to_owned());
        }
        Ok(version)
    }

    /// The order of two versions, in which metadata does not count.
    fn compare(&self, other: &Version) -> Ordering {
        let numbers = |version: &Version| (version.major, version.minor, version.patch);
        numbers(self).cmp(&numbers(other)).then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => compare_pre(&self.pre, &other.pre),
        })
    }
}

fn compare_pre(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a.split('.'), b.split('.'));
    loop {
        let (a, b) = match (left.next(), right.next()) {
            (None, None) => return Ordering::Equal,
            (a, b) => (a.unwrap_or(""), b.unwrap_or("")),
        };
        if a == b {
            continue;
        }
        return match (a.is_empty(), b.is_empty()) {
            (true, _) => Ordering::Less,
            (_, true) => Ordering::Greater,
            _ => match (parse_uint(a.as_bytes(), 10), parse_uint(b.as_bytes(), 10)) {
                (Ok(a), Ok(b)) => a.cmp(&b),
                (Ok(_), Err(_)) => Ordering::Less,
                (Err(_), Ok(_)) => Ordering::Greater,
                (Err(_), Err(_)) => a.cmp(b),
            },
        };
    }
}

/// A condition on a version.
struct Condition {
    operator: String,
    version: Version,
    /// Whether anything is left open, the minor number, the patch.
    open: bool,
    minor_open: bool,
    patch_open: bool,
}

/// Alternatives, in each of which all conditions have to hold.
struct Constraint(Vec<Vec<Condition>>);

impl Constraint {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        static VALID: LazyLock<Option<GoRegex>> = LazyLock::new(|| {
            let one = format!(r"(?:{OPERATORS})\s*(?:{OPEN}{SUFFIXES})\s*");
            compiled(&format!(r"^(?:\s*{one})(?:(?:\s+|,\s*){one})*$"))
        });
        static FIND: LazyLock<Option<GoRegex>> =
            LazyLock::new(|| compiled(&format!(r"(?:{OPERATORS})\s*(?:{OPEN}{SUFFIXES})")));
        if bytes.len() > CONSTRAINT_BYTES_MAX {
            return Err(format!("constraint string is too long (max {CONSTRAINT_BYTES_MAX} bytes)"));
        }
        let improper = |text: &str| format!("improper constraint: {}", crate::text::quote(text.as_bytes()));
        let text = std::str::from_utf8(bytes).map_err(|_| improper(&String::from_utf8_lossy(bytes)))?;
        let text = ranges_rewritten(text);
        let alternatives: Vec<&str> = text.split("||").collect();
        if alternatives.len() > ALTERNATIVES_MAX {
            return Err(format!("too many constraint groups (max {ALTERNATIVES_MAX})"));
        }
        let mut parsed = Vec::new();
        for alternative in alternatives {
            if groups(&VALID, alternative, 0).is_none() {
                return Err(improper(alternative));
            }
            let mut conditions = Vec::new();
            let mut at = 0;
            while let Some(found) = groups(&FIND, alternative, at) {
                let Some((start, whole)) = found[0] else { break };
                conditions.push(Condition::parse(whole).ok_or_else(|| improper(whole))?);
                at = start + whole.len();
            }
            parsed.push(conditions);
        }
        Ok(Constraint(parsed))
    }

    fn allows(&self, version: &Version) -> bool {
        self.0.iter().any(|conditions| {
            // Versions before a release count only where a condition names one.
            let pre = conditions.iter().any(|condition| !condition.version.pre.is_empty());
            conditions.iter().all(|condition| (pre || version.pre.is_empty()) && condition.allows(version))
        })
    }
}

/// `1.2 - 2.0` as `>= 1.2, <= 2.0`.
fn ranges_rewritten(text: &str) -> String {
    static RANGE: LazyLock<Option<GoRegex>> =
        LazyLock::new(|| compiled(&format!(r"\s*({OPEN}{SUFFIXES})\s+-\s+({OPEN}{SUFFIXES})\s*")));
    let mut out = String::new();
    let mut at = 0;
    while let Some(found) = groups(&RANGE, text, at) {
        let (Some((start, whole)), Some((_, low))) = (found[0], found[1]) else { break };
        let Some((_, high)) = found[8] else { break };
        out.push_str(&text[at..start]);
        out.push_str(&format!(">= {low}, <= {high} "));
        at = start + whole.len();
    }
    out.push_str(&text[at..]);
    out
}

impl Condition {
    fn parse(text: &str) -> Option<Self> {
        static ONE: LazyLock<Option<GoRegex>> =
            LazyLock::new(|| compiled(&format!(r"^\s*({OPERATORS})\s*(?:{OPEN}{SUFFIXES})\s*$")));
        let found = groups(&ONE, text, 0)?;
        let group = |index: usize| found.get(index).copied().flatten().map_or("", |(_, text)| text);
        let is_open = |part: &str| matches!(part.trim_start_matches('.'), "" | "x" | "X" | "*");
        let (major, minor, patch, pre) = (group(2), group(3), group(4), group(5));
        let metadata = if group(7).is_empty() { String::new() } else { format!("+{}", group(7)) };
        let (mut minor_open, mut patch_open, mut open) = (false, false, true);
        let version = if is_open(major) {
            format!("0.0.0{pre}")
        } else if is_open(minor) {
            minor_open = true;
            format!("{major}.0.0{pre}")
        } else if is_open(patch) {
            patch_open = true;
            format!("{major}{minor}.0{pre}")
        } else {
            open = false;
            format!("{major}{minor}{patch}{pre}{metadata}")
        };
        let version = Version::parse(version.as_bytes()).ok()?;
        Some(Condition { operator: group(1).to_owned(), version, open, minor_open, patch_open })
    }

    fn allows(&self, version: &Version) -> bool {
        let wanted = &self.version;
        let order = version.compare(wanted);
        match self.operator.as_str() {
            "!=" if self.open => {
                if version.major != wanted.major || version.minor != wanted.minor && !self.minor_open {
                    return true;
                }
                if self.minor_open {
                    return false;
                }
                if version.patch != wanted.patch && !self.patch_open {
                    return true;
                }
                if self.patch_open {
                    let pre = !version.pre.is_empty() || !wanted.pre.is_empty();
                    return pre && compare_pre(&version.pre, &wanted.pre).is_ne();
                }
                order.is_ne()
            }
            "!=" => order.is_ne(),
            ">" if self.open => match version.major.cmp(&wanted.major) {
                Ordering::Equal if self.minor_open => false,
                Ordering::Equal if self.patch_open => version.minor > wanted.minor,
                Ordering::Equal => order.is_gt(),
                other => other.is_gt(),
            },
            ">" => order.is_gt(),
            "<" => order.is_lt(),
            ">=" | "=>" => order.is_ge(),
            "<=" | "=<" if self.open => {
                version.major < wanted.major
                    || version.major == wanted.major && (version.minor <= wanted.minor || self.minor_open)
            }
            "<=" | "=<" => order.is_le(),
            "^" => self.caret(version, order),
            "~" | "~>" => self.tilde(version, order),
            _ if self.open => self.tilde(version, order),
            _ => order.is_eq(),
        }
    }

    fn tilde(&self, version: &Version, order: Ordering) -> bool {
        let wanted = &self.version;
        if order.is_lt() {
            return false;
        }
        let zero = wanted.major == 0 && wanted.minor == 0 && wanted.patch == 0;
        if zero && !self.minor_open && !self.patch_open {
            return true;
        }
        version.major == wanted.major && (version.minor == wanted.minor || self.minor_open)
    }

    fn caret(&self, version: &Version, order: Ordering) -> bool {
        let wanted = &self.version;
        if order.is_lt() {
            return false;
        }
        if wanted.major > 0 || self.minor_open {
            return version.major == wanted.major;
        }
        if version.major > 0 {
            return false;
        }
        if wanted.minor > 0 || self.patch_open {
            return version.minor == wanted.minor;
        }
        version.minor == 0 && version.patch == wanted.patch
    }
}
