//! Which entries are wanted.

use std::fmt;

/// Fields that entries must have: values of one field are alternatives, different fields must all match, as
/// `sd_journal_add_match` joins them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matches(Vec<(String, Vec<Vec<u8>>)>);

/// A text is no match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadMatch(String);

impl fmt::Display for BadMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "incorrect match format: {:?} is not FIELD=value", self.0)
    }
}

impl std::error::Error for BadMatch {}

/// The longest name of a field that journald takes.
const FIELD_BYTES_MAX: usize = 64;

impl Matches {
    /// Reads `FIELD=value` words with white space between; none match everything.
    ///
    /// # Errors
    ///
    /// If a word has no `=`, or what stands before it is no name of a field.
    pub fn parse(text: &str) -> Result<Self, BadMatch> {
        let mut matches = Self::default();
        for word in text.split_whitespace() {
            let bad = || BadMatch(word.to_owned());
            let (field, value) = word.split_once('=').ok_or_else(bad)?;
            let upper = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
            let digit = field.bytes().next().is_none_or(|byte| byte.is_ascii_digit());
            if digit || field.len() > FIELD_BYTES_MAX || !field.bytes().all(upper) {
                return Err(bad());
            }
            let value = value.as_bytes().to_vec();
            match matches.0.iter_mut().find(|(known, _)| known == field) {
                Some((_, values)) => values.push(value),
                None => matches.0.push((field.to_owned(), vec![value])),
            }
        }
        Ok(matches)
    }

    /// Whether an entry with these fields is wanted. A field may be there more than once.
    pub fn wants<'a>(&self, fields: impl Iterator<Item = (&'a str, &'a [u8])> + Clone) -> bool {
        self.0.iter().all(|(wanted, values)| {
            fields.clone().any(|(name, value)| name == wanted && values.iter().any(|one| one == value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_field_are_alternatives_and_fields_add_up() {
        let matches = Matches::parse(" _SYSTEMD_UNIT=a.service\tPRIORITY=3 _SYSTEMD_UNIT=b=c ").unwrap();
        let wants =
            |fields: &[(&str, &str)]| matches.wants(fields.iter().map(|(name, value)| (*name, value.as_bytes())));
        assert!(wants(&[("PRIORITY", "3"), ("_SYSTEMD_UNIT", "a.service")]));
        assert!(wants(&[("_SYSTEMD_UNIT", "x"), ("_SYSTEMD_UNIT", "b=c"), ("PRIORITY", "3")]));
        assert!(!wants(&[("_SYSTEMD_UNIT", "a.service"), ("PRIORITY", "4")]));
        assert!(!wants(&[("PRIORITY", "3")]));
        assert!(Matches::default().wants(std::iter::empty()));
    }

    #[test]
    fn what_journald_would_not_take_is_refused() {
        for bad in ["x", "=y", "lower=y", "1A=y", "A B=c", &format!("{}=x", "A".repeat(65))] {
            assert!(Matches::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Matches::parse("x").unwrap_err().to_string(), "incorrect match format: \"x\" is not FIELD=value");
    }
}
