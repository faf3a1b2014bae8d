//! Names in other cases, as the library has it that the collector uses.

/// `HelloWorld`, `hello world` and `hello-world` as `hello_world`.
pub(crate) fn snake(text: &str) -> String {
    let text = text.trim();
    let mut out = String::with_capacity(text.len() + 2);
    let bytes = text.as_bytes();
    // Only ASCII has cases here, and what is beyond it is copied byte by byte.
    let mut copied = Vec::with_capacity(text.len() + 2);
    for (at, byte) in bytes.iter().copied().enumerate() {
        let lower = byte.to_ascii_lowercase();
        if let Some(next) = bytes.get(at + 1).copied() {
            let (upper_case, lower_case, digit) =
                (byte.is_ascii_uppercase(), byte.is_ascii_lowercase(), byte.is_ascii_digit());
            let (next_upper, next_lower, next_digit) =
                (next.is_ascii_uppercase(), next.is_ascii_lowercase(), next.is_ascii_digit());
            // A change of case, or between letters and digits.
            if (upper_case && (next_lower || next_digit))
                || (lower_case && (next_upper || next_digit))
                || (digit && (next_upper || next_lower))
            {
                if upper_case && next_lower && at > 0 && bytes[at - 1].is_ascii_uppercase() {
                    copied.push(b'_');
                }
                copied.push(lower);
                if lower_case || digit || next_digit {
                    copied.push(b'_');
                }
                continue;
            }
        }
        copied.push(if matches!(byte, b' ' | b'_' | b'-' | b'.') { b'_' } else { lower });
    }
    out.push_str(&String::from_utf8_lossy(&copied));
    out
}

/// `hello_world`, `hello world` and `hello-world` as `HelloWorld`. What is neither a letter nor a digit goes.
pub(crate) fn camel(text: &str) -> String {
    let (mut capital, mut after_capital) = (true, false);
    let mut out = String::with_capacity(text.len());
    for byte in text.trim().bytes() {
        let is_capital = byte.is_ascii_uppercase();
        if byte.is_ascii_alphabetic() {
            out.push(char::from(match (capital, after_capital && is_capital) {
                (true, _) => byte.to_ascii_uppercase(),
                (false, true) => byte.to_ascii_lowercase(),
                (false, false) => byte,
            }));
            capital = false;
        } else if byte.is_ascii_digit() {
            out.push(char::from(byte));
            capital = true;
        } else {
            capital = matches!(byte, b'_' | b' ' | b'-' | b'.');
        }
        after_capital = is_capital;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_change_their_case() {
        for (text, snaked, cameled) in [
            ("", "", ""),
            ("simple", "simple", "Simple"),
            ("HelloWorld", "hello_world", "HelloWorld"),
            ("JSONData", "json_data", "Jsondata"),
            ("userID2name", "user_id_2_name", "UserId2Name"),
            ("a-b c.d_e", "a_b_c_d_e", "ABCDE"),
            (" trimmed/x ", "trimmed/x", "Trimmedx"),
        ] {
            assert_eq!((snake(text), camel(text)), (snaked.to_owned(), cameled.to_owned()), "{text}");
        }
    }
}
