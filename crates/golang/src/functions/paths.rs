//! Paths with slashes.

use super::Type::Text;
use super::{Function, Run, function, text};
use crate::template::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    function("base", &[Text], BASE),
    function("clean", &[Text], CLEAN),
    function("dir", &[Text], DIR),
    function("ext", &[Text], EXT),
    function("isAbs", &[Text], IS_ABS),
    function("osBase", &[Text], BASE),
    function("osClean", &[Text], CLEAN),
    function("osDir", &[Text], DIR),
    function("osExt", &[Text], EXT),
    function("osIsAbs", &[Text], IS_ABS),
];

const BASE: Run = |_, args| {
    let path = text(args, 0);
    if path.is_empty() {
        return Ok(Value::from("."));
    }
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
    let start = memchr::memrchr(b'/', &path[..end]).map_or(0, |at| at + 1);
    Ok(if end == 0 { Value::from("/") } else { Value::text(&path[start..end]) })
};
const CLEAN: Run = |_, args| Ok(Value::from(clean(text(args, 0))));
const DIR: Run = |_, args| {
    let path = text(args, 0);
    let end = memchr::memrchr(b'/', path).map_or(0, |at| at + 1);
    Ok(Value::from(clean(&path[..end])))
};
const EXT: Run = |_, args| {
    let path = text(args, 0);
    let name = memchr::memrchr(b'/', path).map_or(0, |at| at + 1);
    let at = memchr::memrchr(b'.', &path[name..]).map_or(path.len(), |at| name + at);
    Ok(Value::text(&path[at..]))
};
const IS_ABS: Run = |_, args| Ok(Value::Bool(text(args, 0).starts_with(b"/")));

/// The shortest path that leads to the same place.
fn clean(path: &[u8]) -> Vec<u8> {
    let rooted = path.starts_with(b"/");
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if parts.last().is_some_and(|last| *last != b"..") => _ = parts.pop(),
            b".." if rooted => {}
            _ => parts.push(part),
        }
    }
    let joined = parts.join(&b'/');
    match (rooted, joined.is_empty()) {
        (true, _) => [b"/", &joined[..]].concat(),
        (false, true) => b".".to_vec(),
        (false, false) => joined,
    }
}
