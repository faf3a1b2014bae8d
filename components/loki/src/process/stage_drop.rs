//! `stage.drop`.

use corten_config::arguments::CheckErrors;
use corten_config::decode::{SignedDuration, TextType};
use corten_config::schema::Stability;
use corten_config::{Arguments, decode_text};
use corten_signal::regex::GoRegex;

use super::stage::{Build, Compile, Emit, Next, Reason, Slot, Stage, StageError, Text, Work, check, now_ns};

/// Drops entries for which all conditions hold.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct DropStage {
    /// Value of the label `reason` with which dropped entries are counted.
    #[arg(default = "drop_stage")]
    drop_counter_reason: String,
    /// Names of extracted values, with commas and nothing else between them. Alone, all of them must be there.
    #[arg(default = "")]
    source: String,
    /// Text that the values must be, with `separator` between those that are there.
    #[arg(default = "")]
    value: String,
    /// What is put between several values.
    #[arg(default = ";")]
    separator: String,
    /// Regular expression that must match somewhere in the values, or in the log line if there is no `source`.
    #[arg(default = "")]
    expression: String,
    /// Age that the time of the entry must exceed.
    older_than: Option<SignedDuration>,
    /// Size that the log line must exceed, such as `8KB`.
    longer_than: Option<Base2Bytes>,
}

impl DropStage {
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        check(self)
    }
}

impl Build for DropStage {
    fn build(&self, cx: &mut Compile<'_>) -> Result<Box<dyn Stage>, StageError> {
        let (source, value, expression) = (&self.source, &self.value, &self.expression);
        let longer_than = self.longer_than.map_or(0, |size| size.0);
        let older_than_ns = self.older_than.map_or(0, |age| age.nanoseconds);
        if source.is_empty() && expression.is_empty() && older_than_ns == 0 && longer_than == 0 {
            return Err(StageError::of(
                &["source", "expression", "older_than", "longer_than"],
                "drop stage config must contain at least one of `source`, `expression`, `older_than` or `longer_than`",
            ));
        }
        if !value.is_empty() && !expression.is_empty() {
            return Err(StageError::of(
                &["value", "expression"],
                "drop stage config error, `value` and `expression` cannot both be defined at the same time",
            ));
        }
        if !value.is_empty() && source.is_empty() {
            return Err(StageError::of(
                &["value", "source"],
                "drop stage config must contain `source` if `value` is specified",
            ));
        }
        let wanted = if !value.is_empty() {
            Some(Wanted::Value(value.clone()))
        } else if !expression.is_empty() {
            let error = |error| format!("drop stage regex compilation error: {error}");
            let regex = GoRegex::new(expression).map_err(|e| StageError::at("expression", error(e)))?;
            Some(Wanted::Match(Box::new(regex)))
        } else {
            None
        };
        let sources =
            if source.is_empty() { Vec::new() } else { source.split(',').map(|name| cx.slot(name)).collect() };
        let or = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
        Ok(Box::new(Drop {
            reason: cx.reason(&or(&self.drop_counter_reason, "drop_stage")),
            sources,
            separator: or(&self.separator, ";"),
            wanted,
            older_than_ns: (older_than_ns != 0).then_some(older_than_ns),
            longer_than: (longer_than != 0).then_some(longer_than),
        }))
    }
}

struct Drop {
    reason: Reason,
    sources: Vec<Slot>,
    separator: String,
    wanted: Option<Wanted>,
    older_than_ns: Option<i64>,
    longer_than: Option<i64>,
}

enum Wanted {
    Value(String),
    Match(Box<GoRegex>),
}

impl Stage for Drop {
    fn run(&self, work: &mut Work, _: &mut Emit) -> Next {
        if self.is_wanted(work) { Next::Drop(self.reason) } else { Next::Keep }
    }
}

impl Drop {
    fn is_wanted(&self, work: &mut Work) -> bool {
        let line = work.line();
        if self.longer_than.is_some_and(|longer_than| line.len() as i64 <= longer_than) {
            return false;
        }
        if self.older_than_ns.is_some_and(|older_than_ns| work.timestamp_ns() >= now_ns().saturating_sub(older_than_ns))
        {
            return false;
        }
        match &self.wanted {
            None => self.sources.iter().all(|source| work.value(*source).is_present()),
            Some(wanted) if self.sources.is_empty() => work.read(line, |line, tools| match wanted {
                Wanted::Value(value) => line == value.as_bytes(),
                Wanted::Match(regex) => regex.is_match_bytes(line, tools.lossy),
            }),
            Some(wanted) => {
                let mut joined = None;
                for source in &self.sources {
                    let value = work.value(*source);
                    if !value.is_present() {
                        continue;
                    }
                    let Some(text) = work.text_of(value) else { return false };
                    joined = Some(match joined {
                        None => text,
                        Some(before) => {
                            let before = work.bytes(before).to_vec();
                            work.read(text, |text, tools| {
                                tools.write(|out| {
                                    out.extend_from_slice(&before);
                                    out.extend_from_slice(self.separator.as_bytes());
                                    out.extend_from_slice(text);
                                })
                            })
                        }
                    });
                }
                work.read(joined.unwrap_or(Text::EMPTY), |joined, tools| match wanted {
                    Wanted::Value(value) => joined == value.as_bytes(),
                    Wanted::Match(regex) => regex.is_match_bytes(joined, tools.lossy),
                })
            }
        }
    }
}

/// A size in bytes, whose units are powers of 1024: `512B`, `8KB`, `1.5MiB`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Base2Bytes(pub(super) i64);

const UNITS: [&str; 7] = ["", "K", "M", "G", "T", "P", "E"];

impl TextType for Base2Bytes {
    fn parse(text: &str) -> Result<Self, String> {
        // A text has units of one of the two kinds.
        let bytes = parse_size(text, "iB").or_else(|_| parse_size(text, "B"))?;
        if !(-9_223_372_036_854_775_808.0..=9_223_372_036_854_775_807.0).contains(&bytes) {
            return Err("units: overflow parsing unit".to_owned());
        }
        Ok(Base2Bytes(bytes as i64))
    }

    fn text(&self) -> String {
        let mut parts = Vec::new();
        let mut rest = self.0;
        for (at, prefix) in UNITS.iter().enumerate() {
            if rest % 1024 != 0 || (at == 0 && rest == 0) {
                parts.push(format!("{}{prefix}{}", rest % 1024, if at == 0 { "B" } else { "iB" }));
            }
            rest /= 1024;
        }
        parts.reverse();
        parts.concat()
    }

    fn null() -> Option<Self> {
        Some(Base2Bytes(0))
    }
}

decode_text!(Base2Bytes);

/// Reads numbers with units, which are powers of 1024 with this suffix, and adds them up.
fn parse_size(text: &str, suffix: &str) -> Result<f64, String> {
    let invalid = || format!("units: invalid {text}");
    let (negative, mut rest) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    if rest == "0" {
        return Ok(0.0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut sum = 0.0;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let fraction = rest[digits..]
            .strip_prefix('.')
            .map_or(0, |fraction| 1 + fraction.len() - fraction.trim_start_matches(|c: char| c.is_ascii_digit()).len());
        let number = &rest[..digits + fraction];
        if digits + fraction.saturating_sub(1) == 0 || number.len() > 40 {
            return Err(invalid());
        }
        // Rust reads `5.` and `.5` as well.
        let number: f64 = number.parse().map_err(|_| invalid())?;
        rest = &rest[digits + fraction..];
        let end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = &rest[..end];
        let scale = if unit == "B" {
            Some(0)
        } else {
            let prefix = unit.strip_suffix(suffix);
            UNITS.iter().skip(1).position(|known| Some(*known) == prefix).map(|at| at + 1)
        };
        let scale = scale.ok_or_else(|| format!("units: unknown unit {unit} in {text}"))?;
        sum += number * 1024f64.powi(scale as i32);
        rest = &rest[end..];
    }
    Ok(if negative { -sum } else { sum })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn entries_become_what_the_reference_makes_of_them() {
        assert!(super::super::testing::recorded("drop") >= 47);
    }

    #[test]
    fn sizes_have_units() {
        for (text, expected) in [
            ("0", Ok(0)),
            ("5B", Ok(5)),
            ("1KB", Ok(1024)),
            ("1KiB", Ok(1024)),
            ("1.5KiB", Ok(1536)),
            (".5MB", Ok(512 << 10)),
            ("1KB2B", Ok(1026)),
            ("-5B", Ok(-5)),
            ("+1GiB1MiB", Ok((1 << 30) + (1 << 20))),
            ("many", Err("units: invalid many")),
            ("", Err("units: invalid ")),
            ("-", Err("units: invalid -")),
            (".B", Err("units: invalid .B")),
            ("5", Err("units: unknown unit  in 5")),
            ("1 KB", Err("units: unknown unit  KB in 1 KB")),
            ("1e3B", Err("units: unknown unit e in 1e3B")),
            ("1kB", Err("units: unknown unit kB in 1kB")),
            ("1KiB2KB", Err("units: unknown unit KiB in 1KiB2KB")),
            ("9999EB", Err("units: overflow parsing unit")),
        ] {
            let parsed = Base2Bytes::parse(text).map(|size| size.0);
            assert_eq!(parsed, expected.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn a_size_is_shown_with_its_units() {
        for (size, expected) in
            [(0, "0B"), (5, "5B"), (1024, "1KiB"), (1536, "1KiB512B"), (1 << 20, "1MiB"), (-5, "-5B")]
        {
            assert_eq!(Base2Bytes(size).text(), expected);
        }
    }

    proptest! {
        #[test]
        fn a_size_is_read_as_it_is_shown(size in 0..1i64 << 52) {
            prop_assert_eq!(Base2Bytes::parse(&Base2Bytes(size).text()), Ok(Base2Bytes(size)));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[0-9.BKMiE+-]{0,12}|\\PC{0,8}") {
            let _ = Base2Bytes::parse(&text);
        }
    }
}
