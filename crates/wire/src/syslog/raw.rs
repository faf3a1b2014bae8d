//! Lines as they are, with a priority in front perhaps.

/// The priority of a line, and its text without spaces around it.
pub fn parse(line: &[u8]) -> (Option<u8>, &[u8]) {
    let (priority, rest) = split_priority(line).map_or((None, line), |(priority, rest)| (Some(priority), rest));
    (priority, trim(rest))
}

/// Any number up to 255 counts as a priority here.
fn split_priority(line: &[u8]) -> Option<(u8, &[u8])> {
    let rest = line.strip_prefix(b"<").filter(|_| line.len() >= 3)?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 || rest.get(digits) != Some(&b'>') {
        return None;
    }
    let value = rest[..digits].iter().try_fold(0u8, |value, digit| value.checked_mul(10)?.checked_add(digit - b'0'))?;
    Some((value, &rest[digits + 1..]))
}

/// Takes off what Unicode calls white space.
pub fn trim(mut text: &[u8]) -> &[u8] {
    loop {
        let head = &text[..text.len().min(4)];
        let Some(space) = (1..=head.len()).find_map(|len| one_char(&head[..len])).filter(|c| c.is_whitespace()) else {
            break;
        };
        text = &text[space.len_utf8()..];
    }
    loop {
        let start = text.len().saturating_sub(4);
        let Some(space) = (start..text.len()).rev().find_map(|at| one_char(&text[at..])).filter(|c| c.is_whitespace())
        else {
            return text;
        };
        text = &text[..text.len() - space.len_utf8()];
    }
}

fn one_char(bytes: &[u8]) -> Option<char> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut chars = text.chars();
    chars.next().filter(|_| chars.next().is_none())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_priority_in_front_is_taken_off() {
        for (line, priority, text) in [
            ("<34>a b ", Some(34), "a b"),
            ("<255> a", Some(255), "a"),
            ("<256>a", None, "<256>a"),
            ("<99999999999999999999999>a", None, "<99999999999999999999999>a"),
            ("<>a", None, "<>a"),
            ("<1a>b", None, "<1a>b"),
            ("<0>", Some(0), ""),
            ("<007>x", Some(7), "x"),
            ("<1", None, "<1"),
            ("CEF:0|x", None, "CEF:0|x"),
            ("\u{a0}\u{2003}x\u{85}\t", None, "x"),
            ("", None, ""),
        ] {
            assert_eq!(parse(line.as_bytes()), (priority, text.as_bytes()), "{line}");
        }
    }

    proptest! {
        #[test]
        fn text_is_trimmed_as_rust_does(text in "[ \u{a0}\u{2003}\taé\u{85}]*") {
            prop_assert_eq!(trim(text.as_bytes()), text.trim().as_bytes());
        }

        #[test]
        fn no_line_makes_it_panic(line: Vec<u8>) {
            parse(&line);
        }
    }
}
