//! What a body is, as headers say it.

/// The media type of a content type in lower case, as Go's `mime.ParseMediaType` reads it.
///
/// # Errors
///
/// Its words for what is no media type.
pub fn media_type(content_type: &str) -> Result<String, &'static str> {
    let is_token = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&b))
    };
    let (base, mut rest) = content_type.split_at(content_type.find(';').unwrap_or(content_type.len()));
    let base = base.trim().to_ascii_lowercase();
    match base.split_once('/') {
        _ if base.is_empty() => return Err("mime: no media type"),
        None if !is_token(&base) => return Err("mime: expected slash after first token"),
        Some((kind, _)) if !is_token(kind) => return Err("mime: no media type"),
        Some((_, "")) => return Err("mime: expected token after slash"),
        Some((_, subtype)) if !is_token(subtype) => return Err("mime: unexpected content after media subtype"),
        _ => {}
    }
    const INVALID: &str = "mime: invalid media parameter";
    let mut names: Vec<String> = Vec::new();
    loop {
        rest = rest.trim_start();
        let Some(behind) = rest.strip_prefix(';') else {
            return if rest.is_empty() { Ok(base) } else { Err(INVALID) };
        };
        let behind = behind.trim_start();
        if behind.is_empty() {
            return Ok(base);
        }
        let (name, behind) = behind.split_once('=').ok_or(INVALID)?;
        let name = name.trim_end().to_ascii_lowercase();
        if !is_token(&name) {
            return Err(INVALID);
        }
        let behind = behind.trim_start();
        rest = match behind.strip_prefix('"') {
            Some(quoted) => {
                let mut escaped = false;
                let end = quoted.char_indices().find(|(_, c)| {
                    let ends = *c == '"' && !escaped;
                    escaped = *c == '\\' && !escaped;
                    ends
                });
                &quoted[end.ok_or(INVALID)?.0 + 1..]
            }
            None => {
                let end = behind.find(|c: char| c == ';' || c.is_whitespace()).unwrap_or(behind.len());
                if !is_token(&behind[..end]) {
                    return Err(INVALID);
                }
                &behind[end..]
            }
        };
        if names.contains(&name) {
            return Err("mime: duplicate parameter name");
        }
        names.push(name);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn media_types_are_read_as_go_reads_them() {
        for (text, expected) in [
            ("application/json", Ok("application/json")),
            (" Application/JSON ; charset=utf-8", Ok("application/json")),
            ("application/json;", Ok("application/json")),
            ("application/json; charset=\"a;\\\"b\"; x=y", Ok("application/json")),
            ("x", Ok("x")),
            ("", Err("mime: no media type")),
            (";a=b", Err("mime: no media type")),
            ("a b", Err("mime: expected slash after first token")),
            ("a/", Err("mime: expected token after slash")),
            ("a/b c", Err("mime: unexpected content after media subtype")),
            ("a/b; c", Err("mime: invalid media parameter")),
            ("a/b; c=", Err("mime: invalid media parameter")),
            ("a/b; c=\"d", Err("mime: invalid media parameter")),
            ("a/b; c=d; C=e", Err("mime: duplicate parameter name")),
        ] {
            assert_eq!(media_type(text).as_deref(), expected.as_ref().copied(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(text in any::<String>()) {
            let _ = media_type(&text);
            let _ = media_type(&format!("a/b;{text}"));
        }
    }
}
