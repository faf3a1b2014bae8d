//! `stage.decolorize`.

use corten_config::Arguments;

use super::stage::{Build, Compile, Emit, Next, Stage, StageError, Work};

/// Removes ANSI escape sequences, such as those for colours, from the log line.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct DecolorizeStage {}

impl Build for DecolorizeStage {
    fn build(&self, _: &mut Compile<'_>) -> Result<Box<dyn Stage>, StageError> {
        Ok(Box::new(Decolorize))
    }
}

struct Decolorize;

impl Stage for Decolorize {
    fn run(&self, work: &mut Work, _: &mut Emit) -> Next {
        let plain = work.read(work.line(), |line, tools| {
            // Most lines have none.
            memchr::memchr2(0x1b, 0xc2, line)?;
            let mut found = false;
            let plain = tools.write(|out| found = decolorize(line, out));
            found.then_some(plain)
        });
        if let Some(plain) = plain {
            work.set_line(plain);
        }
        Next::Keep
    }
}

/// The length of the ANSI sequence at the beginning of a text; nothing if there is none.
///
/// It is what the reference's pattern matches, which prefers sequences that end with BEL:
/// `[ESC U+009B] [[\]()#;?]* ( ([a-zA-Z\d]*(;[a-zA-Z\d]*)*)? BEL | (\d{1,4}(;\d{0,4})*)? [\dA-PRZcf-ntqry=><~] )`.
fn sequence_len(text: &[u8]) -> Option<usize> {
    let start = match text {
        [0x1b, ..] => 1,
        // U+009B in UTF-8.
        [0xc2, 0x9b, ..] => 2,
        _ => return None,
    };
    let at = start + count(&text[start..], |byte| b"[]()#;?".contains(&byte));
    // The characters that may stand before BEL and those before the final one are searched from the same place: giving
    // back characters of the introduction helps neither.
    let bell = at + count(&text[at..], |byte| byte.is_ascii_alphanumeric() || byte == b';');
    if text.get(bell) == Some(&0x07) {
        return Some(bell + 1);
    }
    let digits = count(&text[at..], |byte| byte.is_ascii_digit()).min(4);
    let mut end = at + digits;
    // Behind the last digit of the parameters.
    let mut last_digit = end;
    while digits > 0 && text.get(end) == Some(&b';') {
        let more = count(&text[end + 1..], |byte| byte.is_ascii_digit()).min(4);
        end += 1 + more;
        if more > 0 {
            last_digit = end;
        }
    }
    match text.get(end) {
        Some(b'0'..=b'9' | b'A'..=b'P' | b'R' | b'Z' | b'c' | b'f'..=b'n' | b't' | b'q' | b'r' | b'y') => Some(end + 1),
        Some(b'=' | b'>' | b'<' | b'~') => Some(end + 1),
        // A digit may be the final character: without another one, it is the last of the parameters.
        _ if digits > 0 => Some(last_digit),
        _ => None,
    }
}

fn count(text: &[u8], wanted: impl Fn(u8) -> bool) -> usize {
    text.iter().take_while(|byte| wanted(**byte)).count()
}

/// Appends a text without its ANSI sequences to `out`; false, with nothing appended, if it has none.
fn decolorize(text: &[u8], out: &mut Vec<u8>) -> bool {
    let mut copied = 0;
    let mut at = 0;
    while let Some(found) = memchr::memchr2(0x1b, 0xc2, &text[at..]) {
        at += found;
        match sequence_len(&text[at..]) {
            None => at += 1,
            Some(len) => {
                out.extend_from_slice(&text[copied..at]);
                at += len;
                copied = at;
            }
        }
    }
    if copied > 0 {
        out.extend_from_slice(&text[copied..]);
    }
    copied > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_signal::regex::{GoRegex, Groups};
    use proptest::prelude::*;

    #[test]
    fn entries_become_what_the_reference_makes_of_them() {
        assert!(super::super::testing::recorded("decolorize") >= 3);
    }

    /// The pattern of the reference, for comparison.
    const PATTERN: &str = "[\u{1b}\u{9b}][[\\]()#;?]*(?:(?:(?:[a-zA-Z\\d]*(?:;[a-zA-Z\\d]*)*)?\u{7})|(?:(?:\\d{1,4}(?:;\\d{0,4})*)?[\\dA-PRZcf-ntqry=><~]))";

    fn plain(text: &str) -> String {
        let mut out = Vec::new();
        if decolorize(text.as_bytes(), &mut out) { String::from_utf8(out).unwrap() } else { text.to_owned() }
    }

    proptest! {
        #[test]
        fn sequences_are_those_of_the_pattern(
            text in "([\u{1b}\u{9b}][\\[\\]()#;?]{0,3}[0-9]{0,5}(;[0-9]{0,5}){0,3}[A-Zf-y=>~\u{7} é]?|[a-z;\u{7}é]{0,3}){0,6}",
        ) {
            let regex = GoRegex::new(PATTERN).unwrap();
            let (mut expected, mut at, mut groups) = (String::new(), 0, Groups::new());
            while regex.captures_at(&text, at, &mut groups) {
                let found = groups.get(0).unwrap();
                expected.push_str(&text[at..found.start]);
                at = found.end;
            }
            expected.push_str(&text[at..]);
            prop_assert_eq!(plain(&text), expected);
        }

        #[test]
        fn no_bytes_make_it_panic(text in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0x1b), Just(0xc2), Just(0x9b), Just(b'[')], 0..20)) {
            let mut out = Vec::new();
            let changed = decolorize(&text, &mut out);
            prop_assert!(changed != out.is_empty() || text.first().is_some_and(|first| *first == 0x1b || *first == 0xc2));
        }
    }
}
