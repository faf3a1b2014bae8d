//! Commands of Redis and Valkey, with the values hidden that they hold.

use crate::processor::redaction::trim;

/// Hides the values in commands, one a line. What is hidden depends on the command: keys, indexes and options stay.
pub(super) fn hide(text: &[u8]) -> Vec<u8> {
    let mut words = Words { text: trim(text), at: 0, in_command: true };
    let mut out = Vec::with_capacity(text.len());
    let mut command: Vec<u8> = Vec::new();
    let mut arguments: Vec<Vec<u8>> = Vec::new();
    loop {
        let is_last = match words.next() {
            Word { text, is_command: true, is_last } => {
                if !command.is_empty() {
                    write(&command, &mut arguments, &mut out);
                    out.push(b'\n');
                }
                command = text;
                arguments.clear();
                is_last
            }
            Word { text, is_last, .. } => {
                arguments.push(text);
                is_last
            }
        };
        if is_last {
            write(&command, &mut arguments, &mut out);
            return out;
        }
    }
}

/// A command, up to the first space, or one of its arguments.
struct Word {
    text: Vec<u8>,
    is_command: bool,
    is_last: bool,
}

struct Words<'a> {
    text: &'a [u8],
    at: usize,
    in_command: bool,
}

impl Words<'_> {
    fn next(&mut self) -> Word {
        if self.in_command { self.command() } else { self.argument() }
    }

    fn command(&mut self) -> Word {
        let mut text = Vec::new();
        let mut started = false;
        while let Some(byte) = self.text.get(self.at) {
            self.at += 1;
            match byte {
                b' ' if started => {
                    self.in_command = false;
                    self.skip_blanks();
                    return Word { text, is_command: true, is_last: false };
                }
                b' ' => self.skip_blanks(),
                b'\n' => return Word { text, is_command: true, is_last: false },
                byte => text.push(*byte),
            }
            started = true;
        }
        Word { text, is_command: true, is_last: true }
    }

    fn argument(&mut self) -> Word {
        let mut text = Vec::new();
        let (mut is_quoted, mut is_escaped) = (false, false);
        while let Some(byte) = self.text.get(self.at) {
            self.at += 1;
            match byte {
                b'\n' if !is_quoted => {
                    self.in_command = true;
                    return Word { text, is_command: false, is_last: false };
                }
                b' ' if !is_quoted => {
                    self.skip_blanks();
                    return Word { text, is_command: false, is_last: false };
                }
                b'"' => is_quoted ^= !is_escaped,
                _ => {}
            }
            text.push(*byte);
            is_escaped = *byte == b'\\' && !is_escaped;
        }
        Word { text, is_command: false, is_last: true }
    }

    /// Goes on to what follows the blanks that have begun. A line end among them is the end of the command.
    fn skip_blanks(&mut self) {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\r')) {
            self.at += 1;
        }
        if self.text.get(self.at) == Some(&b'\n') {
            self.at += 1;
            self.in_command = true;
        }
    }
}

/// Which arguments of a command hold values.
enum Values {
    /// All of them together.
    All,
    /// The one with this number.
    One(usize),
    /// All from this number on, together.
    From(usize),
    /// Behind so many, the last one of each so many.
    Each(usize, usize),
}

fn write(command: &[u8], arguments: &mut Vec<Vec<u8>>, out: &mut Vec<u8>) {
    out.extend_from_slice(command);
    if arguments.is_empty() {
        return;
    }
    let is = |at: usize, name: &[u8]| arguments[at].eq_ignore_ascii_case(name);
    let values = match &*command.to_ascii_uppercase() {
        b"AUTH" => Some(Values::All),
        b"APPEND" | b"GETSET" | b"LPUSHX" | b"GEORADIUSBYMEMBER" | b"RPUSHX" | b"SET" | b"SETNX" | b"SISMEMBER"
        | b"ZRANK" | b"ZREVRANK" | b"ZSCORE" => Some(Values::One(1)),
        b"HSETNX" | b"LREM" | b"LSET" | b"SETBIT" | b"SETEX" | b"PSETEX" | b"SETRANGE" | b"ZINCRBY" | b"SMOVE"
        | b"RESTORE" => Some(Values::One(2)),
        b"LINSERT" => Some(Values::One(3)),
        b"GEOHASH" | b"GEOPOS" | b"GEODIST" | b"LPUSH" | b"RPUSH" | b"SREM" | b"ZREM" | b"SADD" => {
            Some(Values::From(1))
        }
        b"GEOADD" => Some(Values::Each(1, 3)),
        b"HSET" | b"HMSET" => Some(Values::Each(1, 2)),
        b"MSET" | b"MSETNX" => Some(Values::Each(0, 2)),
        b"CONFIG" => is(0, b"SET").then_some(Values::One(2)),
        b"BITFIELD" => {
            // The value that is set stands behind the type and the offset. The last `SET` before the first value counts.
            let mut set = 0;
            (0..arguments.len()).find_map(|at| {
                if is(at, b"SET") {
                    set = at;
                }
                (set > 0 && at - set == 3).then_some(Values::One(at))
            })
        }
        b"ZADD" => {
            let is_option = |at: &usize| [&b"NX"[..], b"XX", b"CH", b"INCR"].contains(&&*arguments[*at]);
            let last = arguments.len() - 1;
            Some(Values::Each((1..last).find(|at| !is_option(at)).unwrap_or(last), 2))
        }
        _ => None,
    };
    let hidden = || b"?".to_vec();
    match values {
        None => {}
        Some(Values::All) => *arguments = vec![hidden()],
        Some(Values::From(at)) if at < arguments.len() => {
            arguments.truncate(at);
            arguments.push(hidden());
        }
        Some(Values::One(at) | Values::From(at)) => {
            if let Some(argument) = arguments.get_mut(at) {
                *argument = hidden();
            }
        }
        Some(Values::Each(start, step)) => {
            arguments.iter_mut().skip(start + step - 1).step_by(step).for_each(|argument| *argument = hidden());
        }
    }
    for argument in arguments {
        out.push(b' ');
        out.extend_from_slice(argument);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_command_makes_it_panic_and_no_password_is_seen(
            any in any::<Vec<u8>>(),
            near in "[ \t\r\n\"\\\\aSET]{0,60}",
            password in "[b-z]{1,9}",
        ) {
            hide(&any);
            hide(near.as_bytes());
            let hidden = hide(format!("auth {password}\nget key").as_bytes());
            prop_assert_eq!(hidden, b"auth ?\nget key");
        }
    }
}
