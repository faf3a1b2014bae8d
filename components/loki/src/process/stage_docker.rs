//! `stage.docker`.

use std::ops::Range;

use corten_config::Arguments;

use super::stage::{Build, Compile, Emit, Next, Slot, Stage, StageError, Text, Value, Work};
use super::stage_cri::parse_time;
use super::stage_split_json::{skip_key, skip_space, skip_string, skip_value, unescape};

/// Takes the lines of Docker's JSON files apart.
///
/// The field `log` becomes the line, with the line feed at its end, `stream` becomes a label, and `time` the time of
/// the entry. They are also extracted, as `output`, `stream` and `timestamp`. Other lines stay as they are.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct DockerStage {}

impl Build for DockerStage {
    fn build(&self, cx: &mut Compile<'_>) -> Result<Box<dyn Stage>, StageError> {
        Ok(Box::new(Docker {
            output: cx.slot("output"),
            stream: cx.slot("stream"),
            timestamp: cx.slot("timestamp"),
            label: cx.text("stream"),
        }))
    }
}

struct Docker {
    output: Slot,
    stream: Slot,
    timestamp: Slot,
    label: Text,
}

impl Stage for Docker {
    fn run(&self, work: &mut Work, _: &mut Emit) -> Next {
        let line = work.line();
        let texts = work.read(line, |bytes, tools| {
            let found = parse(bytes)?;
            let mut read = |place: Option<Range<usize>>| {
                let Some(place) = place else { return Text::EMPTY };
                let inner = place.start + 1..place.end - 1;
                if is_plain(&bytes[inner.clone()]) {
                    return line.slice(inner);
                }
                tools.write(|out| unescape(&bytes[inner], out))
            };
            Some((read(found.log), read(found.stream), read(found.time)))
        });
        let Some((log, stream, time)) = texts.filter(|(log, ..)| !log.is_empty()) else { return Next::Keep };
        work.set_value(self.output, Value::Text(log));
        work.set_value(self.stream, Value::Text(stream));
        work.set_value(self.timestamp, Value::Text(time));
        work.set_line(log);
        work.set_label(self.label, stream);
        if let Some(timestamp_ns) = parse_time(work.bytes(time)) {
            work.set_timestamp_ns(timestamp_ns);
        }
        Next::Keep
    }
}

/// Whether a string stands for what is between its quotes.
fn is_plain(inner: &[u8]) -> bool {
    memchr::memchr(b'\\', inner).is_none() && std::str::from_utf8(inner).is_ok()
}

/// Where the strings of a line of Docker's are, with their quotes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct DockerLine {
    log: Option<Range<usize>>,
    stream: Option<Range<usize>>,
    time: Option<Range<usize>>,
}

/// Takes a line apart; nothing if it is no JSON object, or if one of the three is neither a string nor null.
///
/// As in the reference, names are taken in any case, and the last of several counts.
fn parse(line: &[u8]) -> Option<DockerLine> {
    let mut found = DockerLine::default();
    let mut at = skip_space(line, 0);
    if line.get(at) != Some(&b'{') {
        return None;
    }
    at = skip_space(line, at + 1);
    if line.get(at) == Some(&b'}') {
        at += 1;
    } else {
        loop {
            let key = at..skip_string(line, at)?;
            let start = skip_key(line, at)?;
            let end = skip_value(line, start, 1)?;
            if let Some(field) = found.field(&line[key.start + 1..key.end - 1]) {
                match line[start] {
                    b'"' => *field = Some(start..end),
                    b'n' => {}
                    _ => return None,
                }
            }
            at = skip_space(line, end);
            match line.get(at)? {
                b',' => at = skip_space(line, at + 1),
                b'}' => break,
                _ => return None,
            }
        }
        at += 1;
    }
    (skip_space(line, at) == line.len()).then_some(found)
}

impl DockerLine {
    /// What a field of this name, without its quotes, sets.
    fn field(&mut self, name: &[u8]) -> Option<&mut Option<Range<usize>>> {
        let is = |name: &[u8], wanted: &[u8]| name.eq_ignore_ascii_case(wanted);
        let mut plain = Vec::new();
        let mut name = name;
        if !name.is_ascii() || name.contains(&b'\\') {
            unescape(name, &mut plain);
            // The long s is an s in another case.
            plain = String::from_utf8_lossy(&plain).replace('\u{17f}', "s").into_bytes();
            name = &plain;
        }
        if is(name, b"log") {
            Some(&mut self.log)
        } else if is(name, b"stream") {
            Some(&mut self.stream)
        } else if is(name, b"time") {
            Some(&mut self.time)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn entries_become_what_the_reference_makes_of_them() {
        assert!(super::super::testing::recorded("docker") >= 2);
    }

    #[test]
    fn fields_are_found_in_any_case_and_the_last_counts() {
        for (line, expected) in [
            (r#"{"log":"a"}"#, Some([Some("\"a\""), None, None])),
            (r#" {"LOG":"a","Stream":"s","tImE":"t"} "#, Some([Some("\"a\""), Some("\"s\""), Some("\"t\"")])),
            (r#"{"log":"a","log":"b","log":null}"#, Some([Some("\"b\""), None, None])),
            (r#"{"\u006cog":"a","ſtream":"s"}"#, Some([Some("\"a\""), Some("\"s\""), None])),
            (r#"{"x":[{"log":1}],"log":"a"}"#, Some([Some("\"a\""), None, None])),
            (r#"{}"#, Some([None, None, None])),
            (r#"{"log":1}"#, None),
            (r#"{"log":"a",}"#, None),
            (r#"{"log":"a"} x"#, None),
            (r#"["log"]"#, None),
            ("", None),
        ] {
            let found = parse(line.as_bytes())
                .map(|found| [found.log, found.stream, found.time].map(|place| place.map(|place| &line[place])));
            assert_eq!(found, expected, "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(\\{|\\}|\"log\"|:|,|\"a\\\\u00e4\\\\n\"|\"|\\\\|[0-9]|null| ){0,12}") {
            let _ = parse(text.as_bytes());
        }
    }
}
