//! The functions that the reference adds itself. Their subject comes first.

use sha2::Digest as _;

use super::Type::{Int, Text};
use super::strings::{in_set, replaced};
use super::{Function, Type, function, int, text};
use crate::template::Value;
use crate::text::{map, to_lower, to_upper, trim_end, trim_start};

const TWO: &[Type] = &[Text, Text];

pub(super) const FUNCTIONS: &[Function] = &[
    function("Hash", TWO, |_, args| {
        let mut hash = sha3::Sha3_256::new();
        hash.update(text(args, 0));
        hash.update(text(args, 1));
        Ok(Value::from(crate::hex(&hash.finalize())))
    }),
    function("Replace", &[Text, Text, Text, Int], |_, args| {
        replaced(text(args, 0), text(args, 1), text(args, 2), int(args, 3))
    }),
    function("Sha2Hash", TWO, |_, args| {
        let mut hash = sha2::Sha256::new();
        hash.update(text(args, 0));
        hash.update(text(args, 1));
        Ok(Value::from(crate::hex(&hash.finalize())))
    }),
    function("ToLower", &[Text], |_, args| Ok(Value::from(map(text(args, 0), to_lower)))),
    function("ToUpper", &[Text], |_, args| Ok(Value::from(map(text(args, 0), to_upper)))),
    function("Trim", TWO, |_, args| {
        let set = in_set(text(args, 1));
        Ok(Value::text(trim_end(trim_start(text(args, 0), &set), &set)))
    }),
    function("TrimLeft", TWO, |_, args| Ok(Value::text(trim_start(text(args, 0), in_set(text(args, 1)))))),
    function("TrimPrefix", TWO, |_, args| {
        let subject = text(args, 0);
        Ok(subject.strip_prefix(&text(args, 1)[..]).map_or_else(|| Value::Text(subject.clone()), Value::text))
    }),
    function("TrimRight", TWO, |_, args| Ok(Value::text(trim_end(text(args, 0), in_set(text(args, 1)))))),
    function("TrimSpace", &[Text], |_, args| {
        let is = char::is_whitespace;
        Ok(Value::text(trim_end(trim_start(text(args, 0), is), is)))
    }),
    function("TrimSuffix", TWO, |_, args| {
        let subject = text(args, 0);
        Ok(subject.strip_suffix(&text(args, 1)[..]).map_or_else(|| Value::Text(subject.clone()), Value::text))
    }),
];
