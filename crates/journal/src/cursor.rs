//! Places in the journal.

use std::{cmp::Ordering, fmt, str::FromStr};

/// An entry's place: what `journalctl` calls its cursor.
///
/// The text is that of systemd (`sd_journal_get_cursor`): `s=` the id of a sequence of numbers, `i=` the number in it, `b=` the
/// boot, `m=` microseconds since that boot, `t=` microseconds since the epoch, `x=` a hash of the content; hexadecimal, with
/// semicolons between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The id of the sequence that numbers entries; files that one journald wrote share it.
    pub sequence: u128,
    /// The number in the sequence.
    pub number: u64,
    /// The boot.
    pub boot: u128,
    /// Microseconds since the boot.
    pub monotonic_us: u64,
    /// Microseconds since the epoch.
    pub realtime_us: u64,
    /// A hash of the content.
    pub hash: u64,
}

impl Cursor {
    /// Which of two entries is the earlier one. Two that are equal are one entry that is in two files.
    ///
    /// As systemd compares: numbers where they are of one sequence, else the time since the boot where that is one, else the
    /// time of the day.
    pub fn order(&self, other: &Self) -> Ordering {
        let same = self.boot == other.boot
            && self.monotonic_us == other.monotonic_us
            && self.realtime_us == other.realtime_us
            && self.hash == other.hash
            && (self.sequence != other.sequence || self.number == other.number);
        if same {
            return Ordering::Equal;
        }
        let mut order = Ordering::Equal;
        if self.sequence == other.sequence {
            order = self.number.cmp(&other.number);
        }
        if self.boot == other.boot {
            order = order.then(self.monotonic_us.cmp(&other.monotonic_us));
        }
        order.then(self.realtime_us.cmp(&other.realtime_us)).then(self.hash.cmp(&other.hash))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "s={:032x};i={:x};b={:032x};m={:x};t={:x};x={:x}",
            self.sequence, self.number, self.boot, self.monotonic_us, self.realtime_us, self.hash
        )
    }
}

/// A text is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadCursor;

impl fmt::Display for BadCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a cursor of the journal")
    }
}

impl std::error::Error for BadCursor {}

impl FromStr for Cursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let mut found = [None; 6];
        for part in text.split(';') {
            let (key, value) = part.split_once('=').ok_or(BadCursor)?;
            let Some(index) = ["s", "i", "b", "m", "t", "x"].iter().position(|known| *known == key) else {
                // A later systemd may say more.
                continue;
            };
            let wide = matches!(key, "s" | "b");
            let digits = if wide { value.len() == 32 } else { (1..=16).contains(&value.len()) };
            if !digits || !value.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(BadCursor);
            }
            found[index] = Some(u128::from_str_radix(value, 16).map_err(|_| BadCursor)?);
        }
        let get = |index: usize| found[index].ok_or(BadCursor);
        let short = |index: usize| get(index).and_then(|value| u64::try_from(value).map_err(|_| BadCursor));
        Ok(Self {
            sequence: get(0)?,
            number: short(1)?,
            boot: get(2)?,
            monotonic_us: short(3)?,
            realtime_us: short(4)?,
            hash: short(5)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str =
        "s=8f0ab1a1c1d44a86bd3a2f2c5a0b9d11;i=2f;b=0123456789abcdef0123456789abcdef;m=1e8480;t=6599e1c2a4a00;x=9f86";

    #[test]
    fn a_cursor_is_written_as_it_was_read() {
        let cursor: Cursor = TEXT.parse().unwrap();
        assert_eq!((cursor.number, cursor.monotonic_us), (0x2f, 2_000_000));
        assert_eq!(cursor.to_string(), TEXT);
        for bad in ["", "x", "s=1;i=2", &TEXT.replace("i=2f", "i="), &TEXT.replace("t=6", "t=+"), &TEXT[..60]] {
            assert_eq!(bad.parse::<Cursor>(), Err(BadCursor), "{bad}");
        }
        assert_eq!(format!("{TEXT};p=later").parse::<Cursor>().unwrap(), cursor);
    }

    #[test]
    fn numbers_order_one_sequence_boots_and_times_the_rest() {
        let base: Cursor = TEXT.parse().unwrap();
        let next = Cursor { number: base.number + 1, realtime_us: 1, monotonic_us: 1, ..base };
        assert_eq!(base.order(&next), Ordering::Less);
        let other = Cursor { sequence: 1, ..base };
        assert_eq!(base.order(&other), Ordering::Equal);
        let later = Cursor { monotonic_us: base.monotonic_us + 1, realtime_us: 1, ..other };
        assert_eq!(base.order(&later), Ordering::Less);
        let boot = Cursor { boot: 1, realtime_us: 1, ..other };
        assert_eq!(base.order(&boot), Ordering::Greater);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[sibmtx0-9a-f=;]{0,80}", any in ".{0,40}") {
            let _ = (text.parse::<Cursor>(), any.parse::<Cursor>());
        }
    }
}
