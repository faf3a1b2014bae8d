//! The W3C trace state.

/// The most entries that there may be.
const ENTRIES_MAX: usize = 32;

/// Reads the entries of a W3C trace state in their order; nothing if it is not written as it should be.
pub fn parse(state: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut entries: Vec<(&[u8], &[u8])> = Vec::new();
    if state.is_empty() {
        return Some(entries);
    }
    for member in state.split(|byte| *byte == b',') {
        if member.is_empty() {
            continue;
        }
        let at = member.iter().position(|byte| *byte == b'=')?;
        let key = member[..at].trim_ascii_start();
        let value = member[at + 1..].trim_ascii_end();
        if !is_key(key) || !is_value(value) || entries.iter().any(|(known, _)| *known == key) {
            return None;
        }
        entries.push((key, value));
        if entries.len() > ENTRIES_MAX {
            return None;
        }
    }
    Some(entries)
}

/// The state with an entry in front; nothing if either is not written as it should be.
pub(crate) fn insert(state: &[u8], key: &[u8], value: &[u8]) -> Option<Vec<u8>> {
    let mut entries = parse(state)?;
    if !is_key(key) || !is_value(value) {
        return None;
    }
    entries.retain(|(known, _)| *known != key);
    entries.insert(0, (key, value));
    entries.truncate(ENTRIES_MAX);
    let members: Vec<Vec<u8>> = entries.iter().map(|(key, value)| [*key, b"=", value].concat()).collect();
    Some(members.join(&b','))
}

fn is_key(key: &[u8]) -> bool {
    let rest =
        |part: &[u8]| part.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/'));
    let starts = |part: &[u8], digits: bool| {
        part.first().is_some_and(|byte| byte.is_ascii_lowercase() || (digits && byte.is_ascii_digit()))
    };
    match key.iter().position(|byte| *byte == b'@') {
        None => starts(key, false) && key.len() <= 256 && rest(key),
        Some(at) => {
            let (tenant, system) = (&key[..at], &key[at + 1..]);
            starts(tenant, true)
                && tenant.len() <= 241
                && rest(tenant)
                && starts(system, false)
                && system.len() <= 14
                && rest(system)
        }
    }
}

fn is_value(value: &[u8]) -> bool {
    let is = |byte: &u8| matches!(byte, 0x20..=0x2b | 0x2d..=0x3c | 0x3e..=0x7e);
    value.last().is_some_and(|last| *last != b' ') && value.len() <= 256 && value.iter().all(is)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_and_written_to_the_front() {
        assert_eq!(parse(b"a=1, b@c=2").unwrap(), [(&b"a"[..], &b"1"[..]), (b"b@c", b"2")]);
        for wrong in [&b"a"[..], b"A=1", b"a=1,a=2", b"a=", b"a=b=c", b"a=\xff"] {
            assert_eq!(parse(wrong), None);
        }
        assert_eq!(insert(b"a=1,b=2", b"b", b"3").unwrap(), b"b=3,a=1");
        assert_eq!(insert(b"", b"x", b"y").unwrap(), b"x=y");
        assert_eq!(insert(b"a=1", b"X", b"y"), None);
    }
}
