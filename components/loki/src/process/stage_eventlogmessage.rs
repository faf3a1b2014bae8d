//! `stage.eventlogmessage`.

use corten_config::Arguments;
use corten_config::arguments::CheckErrors;

use super::stage::{Build, Compile, Emit, Next, Reason, Slot, Stage, StageError, Value, Work};

/// Extracts the values of a message of the Windows event log.
///
/// Every line `name: value` of the message sets an extracted value. Lines without a colon are left out.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct EventLogMessageStage {
    /// Name of the extracted value that is the message.
    #[arg(default = "message")]
    source: String,
    /// Whether to leave out values whose names are not valid. Otherwise, what is wrong in a name is replaced by
    /// underscores.
    #[arg(default = false)]
    drop_invalid_labels: bool,
    /// Whether to replace extracted values that are there already. Otherwise, `_extracted` is put behind the name.
    #[arg(default = false)]
    overwrite_existing: bool,
}

impl EventLogMessageStage {
    fn check(&self) -> Result<(), CheckErrors> {
        if is_label_name(self.source.as_bytes()) {
            return Ok(());
        }
        Err(CheckErrors::of(&["source"], format!("invalid label name: {}", self.source)))
    }
}

impl Build for EventLogMessageStage {
    fn build(&self, cx: &mut Compile<'_>) -> Result<Box<dyn Stage>, StageError> {
        // Whether a name is there already decides about the next one, even if no stage reads it.
        cx.need_all_values();
        let naming = Naming { drop_invalid: self.drop_invalid_labels, overwrite: self.overwrite_existing };
        Ok(Box::new(EventLogMessage { source: cx.slot(&self.source), naming, no_text: cx.uncounted("no text") }))
    }
}

struct EventLogMessage {
    source: Slot,
    naming: Naming,
    no_text: Reason,
}

impl Stage for EventLogMessage {
    fn run(&self, work: &mut Work, _: &mut Emit) -> Next {
        let value = work.value(self.source);
        if !value.is_present() {
            return Next::Keep;
        }
        // The reference drops an entry whose message is no text, and does not count it.
        let Some(message) = work.text_of(value) else { return Next::Drop(self.no_text) };
        let message = work.bytes(message).to_vec();
        extract(&message, self.naming, work);
        Next::Keep
    }
}

/// The extracted map, as stages see it that find names in what they read.
pub(super) trait Found {
    /// Whether the map has a name.
    fn has(&self, name: &str) -> bool;

    /// Sets a name.
    fn set(&mut self, name: &str, value: &str);
}

impl Found for Work {
    fn has(&self, name: &str) -> bool {
        self.has_named(name.as_bytes())
    }

    fn set(&mut self, name: &str, value: &str) {
        let (name, value) = (self.add(name.as_bytes()), self.add(value.as_bytes()));
        self.set_value_named(name, Value::Text(value));
    }
}

/// What is done with names that are not valid or there already.
#[derive(Clone, Copy, Debug)]
pub(super) struct Naming {
    /// Leave out names that are not valid, instead of replacing what is wrong in them.
    pub(super) drop_invalid: bool,
    /// Replace values of names that are there, instead of setting the name with `_extracted` behind it.
    pub(super) overwrite: bool,
}

impl Naming {
    /// Sets a value; `is_valid` says whether the name is.
    pub(super) fn set(self, name: &[u8], is_valid: bool, value: &str, found: &mut impl Found) {
        let mut name = match std::str::from_utf8(name) {
            Ok(name) if is_valid => name.to_owned(),
            _ if self.drop_invalid => return,
            _ => sanitized(name),
        };
        if !self.overwrite && found.has(&name) {
            name.push_str("_extracted");
        }
        found.set(&name, value);
    }
}

/// Whether a name consists of letters, digits and underscores, and does not begin with a digit.
pub(super) fn is_label_name(name: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    name.first().is_some_and(|first| !first.is_ascii_digit()) && name.iter().all(is_part)
}

/// A name with an underscore for each character that may not be there.
fn sanitized(name: &[u8]) -> String {
    if name.is_empty() {
        return "_".to_owned();
    }
    let mut out = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            let is_first_digit = out.is_empty() && character.is_ascii_digit();
            let stays = (character.is_ascii_alphanumeric() && !is_first_digit) || character == '_';
            out.push(if stays { character } else { '_' });
        }
        out.extend(std::iter::repeat_n('_', chunk.invalid().len()));
    }
    out
}

/// Splits at each of a separator.
pub(super) fn split<'t>(text: &'t [u8], separator: &'t [u8]) -> impl Iterator<Item = &'t [u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        match memchr::memmem::find(text, separator) {
            Some(at) => {
                rest = Some(&text[at + separator.len()..]);
                Some(&text[..at])
            }
            None => rest.take(),
        }
    })
}

/// Splits at the first colon.
pub(super) fn split_pair(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b':', line)?;
    Some((&line[..at], &line[at + 1..]))
}

/// Sets what the lines `name: value` of a message say.
fn extract(message: &[u8], naming: Naming, found: &mut impl Found) {
    for (name, value) in split(message, b"\r\n").filter_map(split_pair) {
        if let Ok(value) = std::str::from_utf8(value) {
            naming.set(name, is_label_name(name), value.trim(), found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn entries_become_what_the_reference_makes_of_them() {
        assert!(super::super::testing::recorded("eventlogmessage") >= 9);
    }

    impl Found for BTreeMap<String, String> {
        fn has(&self, name: &str) -> bool {
            self.contains_key(name)
        }

        fn set(&mut self, name: &str, value: &str) {
            self.insert(name.to_owned(), value.to_owned());
        }
    }

    #[test]
    fn names_are_cleaned_or_left_out() {
        let found = |message: &str, drop_invalid: bool, overwrite: bool| {
            let mut found = BTreeMap::from([("app".to_owned(), "old".to_owned())]);
            extract(message.as_bytes(), Naming { drop_invalid, overwrite }, &mut found);
            found.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(found("a: 1 \r\nno\r\nb:c:d\r\ne:", false, false), "a=1 app=old b=c:d e=");
        assert_eq!(found("bad-key:1\r\n9x:2\r\n:3\r\né:4", false, false), "_=3 __extracted=4 _x=2 app=old bad_key=1");
        assert_eq!(found("bad-key:1\r\n9x:2\r\n:3\r\né:4", true, false), "app=old");
        assert_eq!(found("app:1\r\napp:2", false, false), "app=old app_extracted=2");
        assert_eq!(found("app:1\r\napp:2", false, true), "app=2");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(message in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b':'), Just(b'\r'), Just(b'\n')], 0..40), drop_invalid: bool, overwrite: bool) {
            let mut found = BTreeMap::new();
            extract(&message, Naming { drop_invalid, overwrite }, &mut found);
            prop_assert!(found.keys().all(|name| is_label_name(name.as_bytes())));
        }
    }
}
