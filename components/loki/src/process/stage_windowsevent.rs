//! `stage.windowsevent`.

use corten_config::Arguments;
use corten_config::arguments::CheckErrors;

use super::stage::{Build, Compile, Emit, Next, Reason, Slot, Stage, StageError, Work};
use super::stage_eventlogmessage::{Found, Naming, split, split_pair};

/// Extracts the values of a message of the Windows event log, section by section.
///
/// Empty lines separate the sections. The first becomes the extracted value `Description`. Every line `name: value` of
/// the others sets an extracted value, with the name of the section before it, if it has one. Lines without a colon are
/// further values of the one before.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct WindowsEventStage {
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

impl WindowsEventStage {
    fn check(&self) -> Result<(), CheckErrors> {
        if !self.source.is_empty() {
            return Ok(());
        }
        Err(CheckErrors::of(&["source"], format!("invalid label name: {}", self.source)))
    }
}

impl Build for WindowsEventStage {
    fn build(&self, cx: &mut Compile<'_>) -> Result<Box<dyn Stage>, StageError> {
        // Whether a name is there already decides about the next one, even if no stage reads it.
        cx.need_all_values();
        let naming = Naming { drop_invalid: self.drop_invalid_labels, overwrite: self.overwrite_existing };
        Ok(Box::new(WindowsEvent { source: cx.slot(&self.source), naming, no_text: cx.uncounted("no text") }))
    }
}

struct WindowsEvent {
    source: Slot,
    naming: Naming,
    no_text: Reason,
}

impl Stage for WindowsEvent {
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

/// The name of the first section.
const DESCRIPTION: &str = "Description";

/// Sets what the sections of a message say, which empty lines separate: the description, and then values, whose names
/// have the name of their section before them.
fn extract(message: &[u8], naming: Naming, found: &mut impl Found) {
    let mut sections = split(message, b"\r\n\r\n");
    set(DESCRIPTION.as_bytes(), sections.next().unwrap_or_default(), naming, found);
    for section in sections {
        let mut lines = split(section, b"\r\n").enumerate().peekable();
        let mut prefix: &[u8] = b"";
        while let Some((number, line)) = lines.next() {
            let Some((name, value)) = split_pair(line) else { continue };
            if value.is_empty() {
                if number == 0 {
                    prefix = name;
                }
                continue;
            }
            let mut value = value.to_vec();
            // Lines without a name are further values of the last one.
            while let Some((_, more)) = lines.next_if(|(_, line)| !line.is_empty() && !line.contains(&b':')) {
                value.push(b',');
                value.extend_from_slice(more);
            }
            let name = if prefix.is_empty() { name.to_vec() } else { [prefix, b"_", name].concat() };
            set(&name, &value, naming, found);
        }
    }
}

fn set(name: &[u8], value: &[u8], naming: Naming, found: &mut impl Found) {
    let name: Vec<u8> = name.iter().copied().filter(|byte| !b"\t\r\n ".contains(byte)).collect();
    let is_valid = !name.is_empty() && std::str::from_utf8(&name).is_ok();
    let value: Vec<u8> = value.iter().copied().filter(|byte| !b"\t\r\n".contains(byte)).collect();
    if let Ok(value) = std::str::from_utf8(&value) {
        naming.set(&name, is_valid, value.trim(), found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn entries_become_what_the_reference_makes_of_them() {
        assert!(super::super::testing::recorded("windowsevent") >= 7);
    }

    #[test]
    fn names_have_those_of_their_sections_before_them() {
        let mut found = BTreeMap::new();
        let message = "It  was.\r\n\r\nSubject:\r\n\tSecurity ID:\t\tS-1\r\n\tPrivileges:\tA\r\n\t\tB\r\n\r\nType:\t3\r\nx:\r\ny:4";
        extract(message.as_bytes(), Naming { drop_invalid: false, overwrite: false }, &mut found);
        let found: Vec<String> = found.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            found,
            ["Description=It  was.", "Subject_Privileges=A,B", "Subject_SecurityID=S-1", "Type=3", "y=4"]
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(message in "([a-z]|:|\r\n|\t| |\r\n\r\n|é){0,30}", drop_invalid: bool, overwrite: bool) {
            let mut found: BTreeMap<String, String> = BTreeMap::new();
            extract(message.as_bytes(), Naming { drop_invalid, overwrite }, &mut found);
            prop_assert!(found.contains_key(DESCRIPTION));
        }
    }
}
