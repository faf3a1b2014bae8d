//! Regular expressions. A byte that is no UTF-8 is matched as U+FFFD, and becomes it where a replacement refers to it.

use std::ops::Range;

use corten_signal::regex::{GoRegex, Groups, Lossy, Template as Replacement};

use super::Type::{Int, Text};
use super::{Answer, Function, Type, function, int, text};
use crate::template::{Exec, ListKind, OUTPUT_BYTES_MAX, Value};

const TWO: &[Type] = &[Text, Text];
const COUNTED: &[Type] = &[Text, Text, Int];
const THREE: &[Type] = &[Text, Text, Text];

pub(super) const FUNCTIONS: &[Function] = &[
    function("mustRegexFind", TWO, find),
    function("mustRegexFindAll", COUNTED, find_all),
    function("mustRegexMatch", TWO, matches),
    function("mustRegexReplaceAll", THREE, replace),
    function("mustRegexReplaceAllLiteral", THREE, replace_literal),
    function("mustRegexSplit", COUNTED, split),
    function("regexFind", TWO, find),
    function("regexFindAll", COUNTED, find_all),
    // A pattern that cannot be read matches nothing.
    function("regexMatch", TWO, |exec, args| matches(exec, args).or(Ok(Value::Bool(false)))),
    function("regexQuoteMeta", &[Text], |_, args| {
        let mut out = Vec::new();
        for byte in text(args, 0) {
            if b"\\.+*?()|[]{}^$".contains(byte) {
                out.push(b'\\');
            }
            out.push(*byte);
        }
        Ok(Value::from(out))
    }),
    function("regexReplaceAll", THREE, replace),
    function("regexReplaceAllLiteral", THREE, replace_literal),
    function("regexSplit", COUNTED, split),
];

fn matches(exec: &mut Exec<'_>, args: &[Value]) -> Answer {
    Ok(Value::Bool(exec.regex(text(args, 0))?.is_match_bytes(text(args, 1), &mut Lossy::new())))
}

fn find(exec: &mut Exec<'_>, args: &[Value]) -> Answer {
    let subject = text(args, 1);
    let found = all(&*exec.regex(text(args, 0))?, subject, 1, |_, _| ());
    Ok(found.into_iter().next().map_or(Value::from(""), |range| Value::Text(subject.slice(range))))
}

/// Where matches are, at most so many. An empty one right behind another does not count. The function sees each with the
/// text in which the places of its groups are.
fn all(regex: &GoRegex, subject: &[u8], count_max: usize, mut see: impl FnMut(&str, &Groups)) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let (mut groups, mut lossy) = (Groups::new(), Lossy::new());
    let (subject, offsets) = lossy.text(subject);
    let (mut at, mut end) = (0, None);
    while at <= subject.len() && found.len() < count_max && regex.captures_at(subject, at, &mut groups) {
        let Some(range) = groups.get(0) else { break };
        let step = subject[at..].chars().next().map_or(1, char::len_utf8);
        at = if range.end > at { range.end } else { at + step };
        if !range.is_empty() || end != Some(range.start) {
            see(subject, &groups);
            found.push(offsets.range(range.clone()));
        }
        end = Some(range.end);
    }
    found
}

fn count_max(args: &[Value]) -> usize {
    usize::try_from(int(args, 2)).unwrap_or(usize::MAX)
}

fn find_all(exec: &mut Exec<'_>, args: &[Value]) -> Answer {
    let subject = text(args, 1);
    let found = all(&*exec.regex(text(args, 0))?, subject, count_max(args), |_, _| ());
    exec.charge(found.len() * 32)?;
    if found.is_empty() {
        return Ok(Value::nil_list(ListKind::Text));
    }
    exec.list(ListKind::Text, found.into_iter().map(|range| Value::Text(subject.slice(range))).collect())
}

fn split(exec: &mut Exec<'_>, args: &[Value]) -> Answer {
    let (subject, count) = (text(args, 1), int(args, 2));
    let regex = exec.regex(text(args, 0))?;
    if count == 0 {
        return Ok(Value::nil_list(ListKind::Text));
    }
    if subject.is_empty() && !regex.as_str().is_empty() {
        return exec.list(ListKind::Text, vec![Value::from("")]);
    }
    let mut parts = Vec::new();
    let (mut start, mut end) = (0, 0);
    for found in all(&regex, subject, count_max(args), |_, _| ()) {
        if count > 0 && parts.len() as i64 == count - 1 {
            break;
        }
        end = found.start;
        if found.end != 0 {
            parts.push(Value::Text(subject.slice(start..end)));
        }
        start = found.end;
    }
    if end != subject.len() {
        parts.push(Value::Text(subject.slice(start..)));
    }
    exec.charge(parts.len() * 32)?;
    exec.list(ListKind::Text, parts)
}

/// The text with all matches replaced by what the function makes of each.
fn replaced(exec: &mut Exec<'_>, args: &[Value], mut make: impl FnMut(&GoRegex, &str, &Groups) -> Vec<u8>) -> Answer {
    let regex = exec.regex(text(args, 0))?;
    let subject = text(args, 1);
    let mut made = Vec::new();
    let mut left = OUTPUT_BYTES_MAX;
    let found = all(&regex, subject, usize::MAX, |subject, groups| {
        // What is too large is not made; that is found below.
        let replacement = if left > 0 { make(&regex, subject, groups) } else { Vec::new() };
        left = left.saturating_sub(replacement.len());
        made.push(replacement);
    });
    if left == 0 {
        return Err(format!("result is larger than {OUTPUT_BYTES_MAX} bytes"));
    }
    exec.charge(found.len() * 32)?;
    let mut out = Vec::with_capacity(subject.len());
    let mut copied = 0;
    for (range, replacement) in found.into_iter().zip(made) {
        out.extend_from_slice(&subject[copied..range.start]);
        out.extend_from_slice(&replacement);
        copied = range.end;
    }
    out.extend_from_slice(&subject[copied..]);
    Ok(Value::from(out))
}

fn replace(exec: &mut Exec<'_>, args: &[Value]) -> Answer {
    let replacement = String::from_utf8_lossy(text(args, 2));
    let mut template = None;
    replaced(exec, args, |regex, subject, groups| {
        let template = template.get_or_insert_with(|| Replacement::new(&replacement, regex));
        let mut out = String::new();
        template.expand(subject, groups, &mut out);
        out.into_bytes()
    })
}

fn replace_literal(exec: &mut Exec<'_>, args: &[Value]) -> Answer {
    replaced(exec, args, |_, _, _| text(args, 2).to_vec())
}
