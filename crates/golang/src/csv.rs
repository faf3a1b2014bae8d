//! Rows of comma-separated values, as Go's `encoding/csv` reads them.

/// The fields of one row. Further lines continue the last field of the one before.
///
/// # Errors
///
/// Quotes where none may stand, or that are not closed; a text without a row.
pub fn row(text: &str, delimiter: char, lazy_quotes: bool) -> Result<Vec<String>, String> {
    if matches!(delimiter, '"' | '\r' | '\n' | char::REPLACEMENT_CHARACTER) {
        return Err("read csv line: csv: invalid field or comment delimiter".to_owned());
    }
    let mut lines = text.split_inclusive('\n');
    let mut fields: Vec<String> = Vec::new();
    while let Some(line) = lines.next() {
        let trimmed = line.strip_suffix("\r\n").or_else(|| line.strip_suffix('\n')).unwrap_or(line);
        if trimmed.is_empty() && line.ends_with('\n') {
            // Empty lines are skipped.
            continue;
        }
        let record = record(line, &mut lines, delimiter, lazy_quotes)?;
        match fields.last_mut() {
            None => fields = record,
            Some(last) => {
                let mut record = record.into_iter();
                last.push('\n');
                last.push_str(&record.next().unwrap_or_default());
                fields.extend(record);
            }
        }
    }
    if fields.is_empty() { Err("no csv lines found".to_owned()) } else { Ok(fields) }
}

/// A line without its end, and whether it had one.
fn without_end(line: &str) -> (&str, bool) {
    match line.strip_suffix("\r\n").or_else(|| line.strip_suffix('\n')) {
        Some(line) => (line, true),
        // A carriage return at the very end is dropped as well.
        None => (line.strip_suffix('\r').unwrap_or(line), false),
    }
}

fn record<'a>(
    line: &'a str,
    lines: &mut impl Iterator<Item = &'a str>,
    delimiter: char,
    lazy_quotes: bool,
) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let (mut rest, mut has_end) = without_end(line);
    'fields: loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, more) = match rest.split_once(delimiter) {
                Some((field, more)) => (field, Some(more)),
                None => (rest, None),
            };
            if !lazy_quotes && field.contains('"') {
                return Err("read csv line: parse error: bare \" in non-quoted-field".to_owned());
            }
            fields.push(field.to_owned());
            match more {
                Some(more) => rest = more,
                None => return Ok(fields),
            }
            continue;
        };
        rest = quoted;
        let mut field = String::new();
        loop {
            let Some((before, behind)) = rest.split_once('"') else {
                field.push_str(rest);
                // The field goes on in the next line.
                let next = if has_end { lines.next() } else { None };
                match next {
                    Some(line) => {
                        field.push('\n');
                        (rest, has_end) = without_end(line);
                    }
                    None if lazy_quotes => {
                        if has_end {
                            field.push('\n');
                        }
                        fields.push(field);
                        return Ok(fields);
                    }
                    None => {
                        return Err("read csv line: parse error: extraneous or missing \" in quoted-field".to_owned());
                    }
                }
                continue;
            };
            field.push_str(before);
            if let Some(behind) = behind.strip_prefix('"') {
                field.push('"');
                rest = behind;
            } else if let Some(behind) = behind.strip_prefix(delimiter) {
                fields.push(field);
                rest = behind;
                continue 'fields;
            } else if behind.is_empty() {
                fields.push(field);
                return Ok(fields);
            } else if lazy_quotes {
                field.push('"');
                rest = behind;
            } else {
                return Err("read csv line: parse error: extraneous or missing \" in quoted-field".to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rows_are_read_as_go_reads_them() {
        for (text, lazy, expected) in [
            ("a,b,c", false, Some(&["a", "b", "c"][..])),
            ("a,\"b,\"\"x\"\"\",c", false, Some(&["a", "b,\"x\"", "c"])),
            ("a,,", false, Some(&["a", "", ""])),
            ("a,\"b\nc\",d", false, Some(&["a", "b\nc", "d"])),
            ("aa,b\nb,cc,d\nd,ee", false, Some(&["aa", "b\nb", "cc", "d\nd", "ee"])),
            ("a,b\"c", false, None),
            ("a,b\"c", true, Some(&["a", "b\"c"])),
            ("\"a\"b,c", false, None),
            ("\"a\"b\",c", true, Some(&["a\"b", "c"])),
            ("\"a", false, None),
            ("\"a", true, Some(&["a"])),
            ("", false, None),
            ("\n\n", false, None),
            ("a\r\n", false, Some(&["a"])),
        ] {
            let found = row(text, ',', lazy).ok();
            let expected = expected.map(|fields| fields.iter().map(|field| (*field).to_owned()).collect::<Vec<_>>());
            assert_eq!(found, expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_row_panics(text in "[a,\"\r\n;]{0,30}", lazy in any::<bool>()) {
            let _ = row(&text, ',', lazy);
        }
    }
}
