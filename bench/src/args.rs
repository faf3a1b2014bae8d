//! Command line options: `--name value` and `--flag`, each of which somebody has to take.

use std::{collections::VecDeque, str::FromStr, time::Duration};

use crate::error::{Error, Result};

/// What stands behind the name of the command and has not been taken yet.
#[derive(Debug)]
pub(crate) struct Args(VecDeque<String>);

impl Args {
    /// Holds the given words.
    pub(crate) fn new(words: impl IntoIterator<Item = String>) -> Self {
        Self(words.into_iter().collect())
    }

    /// Takes the first word that is not an option, for the command or the scenario. It must come first.
    pub(crate) fn positional(&mut self) -> Option<String> {
        if self.0.front()?.starts_with("--") { None } else { self.0.pop_front() }
    }

    /// Takes an option without a value; true if it was given.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let found = self.0.iter().position(|word| word == name);
        found.is_some_and(|at| self.0.remove(at).is_some())
    }

    /// Takes every occurrence of `--name value` or `--name=value`, in order.
    pub(crate) fn texts(&mut self, name: &str) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let mut rest = VecDeque::with_capacity(self.0.len());
        while let Some(word) = self.0.pop_front() {
            if word == name {
                found.push(self.0.pop_front().ok_or_else(|| Error::new(format!("option {name} needs a value")))?);
            } else if let Some(value) = word.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
                found.push(value.to_owned());
            } else {
                rest.push_back(word);
            }
        }
        self.0 = rest;
        Ok(found)
    }

    /// Takes an option that may be given once.
    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>> {
        let mut found = self.texts(name)?;
        match found.len() {
            0 | 1 => Ok(found.pop()),
            _ => Err(Error::new(format!("option {name} is given more than once"))),
        }
    }

    /// Takes an option and parses it, or gives the default.
    pub(crate) fn parsed<T: FromStr>(&mut self, name: &str, default: T) -> Result<T> {
        match self.text(name)? {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| Error::new(format!("option {name}: cannot read {text:?}"))),
        }
    }

    /// Takes an option that is a duration such as `500ms`, `5s` or `1m`.
    pub(crate) fn duration(&mut self, name: &str) -> Result<Option<Duration>> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let read = parse_duration(&text);
        read.map(Some).ok_or_else(|| Error::new(format!("option {name}: {text:?} is not a duration such as 30s")))
    }

    /// Fails if anything is left that nobody took.
    pub(crate) fn finish(self) -> Result<()> {
        match self.0.front() {
            None => Ok(()),
            Some(word) => Err(Error::new(format!("unknown argument {word:?}"))),
        }
    }
}

/// Reads a whole number with the unit `ms`, `s`, `m` or `h`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(unit_ms)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Args {
        Args::new(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_are_taken_once_and_what_nobody_takes_is_an_error() {
        let mut args = args("s1 --pairs 3 --ours a --quick --ours=b --window 30s");
        assert_eq!(args.positional().as_deref(), Some("s1"));
        assert_eq!(args.parsed("--pairs", 5_usize).unwrap(), 3);
        assert_eq!(args.parsed("--seed", 7_u64).unwrap(), 7);
        assert_eq!(args.texts("--ours").unwrap(), ["a", "b"]);
        assert!(args.flag("--quick") && !args.flag("--quick"));
        assert_eq!(args.duration("--window").unwrap(), Some(Duration::from_secs(30)));
        args.finish().unwrap();

        assert_eq!(self::args("--oops").finish().unwrap_err().to_string(), "unknown argument \"--oops\"");
        assert!(self::args("--pairs").parsed("--pairs", 1_u8).is_err());
        assert!(self::args("--pairs x").parsed("--pairs", 1_u8).is_err());
        assert!(self::args("--out a --out b").text("--out").is_err());
    }

    #[test]
    fn durations_need_a_number_and_a_unit() {
        assert_eq!(parse_duration("1500ms"), Some(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Some(Duration::from_secs(120)));
        for text in ["", "5", "s", "5 s", "1.5s", "-1s", "99999999999999999999s", "18446744073709551615h"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
