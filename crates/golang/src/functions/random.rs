//! What differs from call to call.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::Type::{Int, Text};
use super::{Answer, Function, function, int, text};
use crate::template::{OUTPUT_BYTES_MAX, Value};
use crate::text::{chars, push};

pub(super) const FUNCTIONS: &[Function] = &[
    function("randAlpha", &[Int], |_, args| {
        choose(int(args, 0), b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
    }),
    function("randAlphaNum", &[Int], |_, args| {
        choose(int(args, 0), b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
    }),
    function("randAscii", &[Int], |_, args| choose(int(args, 0), &PRINTABLE)),
    function("randBytes", &[Int], |_, args| {
        let count =
            usize::try_from(int(args, 0)).map_err(|_| "runtime error: makeslice: len out of range".to_owned())?;
        if count > OUTPUT_BYTES_MAX / 4 * 3 {
            return Err(format!("result is larger than {OUTPUT_BYTES_MAX} bytes"));
        }
        let mut bytes = vec![0; count];
        fill(&mut bytes)?;
        Ok(Value::from(BASE64_STANDARD.encode(bytes)))
    }),
    function("randInt", &[Int, Int], |_, args| {
        let (low, high) = (int(args, 0), int(args, 1));
        let span = high.wrapping_sub(low);
        let below = u64::try_from(span).ok().filter(|span| *span > 0);
        let below = below.ok_or_else(|| "invalid argument to Intn".to_owned())?;
        Ok(Value::Int(low.wrapping_add(number(below)? as i64)))
    }),
    function("randNumeric", &[Int], |_, args| choose(int(args, 0), b"0123456789")),
    function("shuffle", &[Text], |_, args| {
        let mut characters: Vec<char> = chars(text(args, 0)).map(|(_, character, _)| character).collect();
        for index in (1..characters.len()).rev() {
            let other = number(index as u64 + 1)? as usize;
            characters.swap(index, other);
        }
        let mut out = Vec::new();
        for character in characters {
            push(&mut out, character);
        }
        Ok(Value::from(out))
    }),
    function("uuidv4", &[], |_, _| Ok(Value::from(uuid::Uuid::new_v4().to_string()))),
];

/// The characters from space to tilde.
const PRINTABLE: [u8; 95] = {
    let mut all = [0; 95];
    let mut at = 0;
    while at < all.len() {
        all[at] = at as u8 + b' ';
        at += 1;
    }
    all
};

/// Random bytes that nobody can guess.
pub(super) fn fill(bytes: &mut [u8]) -> Result<(), String> {
    SystemRandom::new().fill(bytes).map_err(|_| "the system gives no random bytes".to_owned())
}

/// A number below a bound, each as likely as any other.
fn number(below: u64) -> Result<u64, String> {
    let zone = u64::MAX - u64::MAX % below;
    loop {
        let mut bytes = [0; 8];
        fill(&mut bytes)?;
        let value = u64::from_le_bytes(bytes);
        if value < zone {
            return Ok(value % below);
        }
    }
}

/// So many characters of a set, which has at most 256.
fn choose(count: i64, set: &[u8]) -> Answer {
    // The reference answers a negative count with nothing.
    let count = usize::try_from(count).unwrap_or(0);
    if count > OUTPUT_BYTES_MAX {
        return Err(format!("result is larger than {OUTPUT_BYTES_MAX} bytes"));
    }
    let zone = 256 - 256 % set.len();
    let mut out = Vec::with_capacity(count);
    let mut bytes = [0; 256];
    while out.len() < count {
        fill(&mut bytes)?;
        let fair = bytes.iter().map(|byte| usize::from(*byte)).filter(|value| *value < zone);
        out.extend(fair.take(count - out.len()).map(|value| set[value % set.len()]));
    }
    Ok(Value::from(out))
}
