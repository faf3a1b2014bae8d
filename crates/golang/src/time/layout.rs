//! What a layout consists of.

/// An element of a layout, named after how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    January,
    Jan,
    Month {
        padded: bool,
    },
    Monday,
    Mon,
    /// `2`, `_2` and `02`.
    Day(Padding),
    /// `__2` and `002`.
    YearDay(Padding),
    /// `15`.
    Hour,
    /// `3` and `03`.
    Hour12 {
        padded: bool,
    },
    Minute {
        padded: bool,
    },
    Second {
        padded: bool,
    },
    /// `2006`.
    LongYear,
    /// `06`.
    Year,
    /// `PM` and `pm`.
    HalfDay {
        upper: bool,
    },
    /// `MST`.
    ZoneName,
    /// `-0700` and its kin; `Z0700` where `z`.
    Offset {
        z: bool,
        form: Offset,
    },
    /// `.000`.
    Fraction {
        digits: u8,
    },
    /// `.999`.
    OptionalFraction {
        digits: u8,
        comma: bool,
    },
    /// `,000`: as with a point, but printed with a comma.
    FractionComma {
        digits: u8,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Padding {
    None,
    Space,
    Zero,
}

/// How an offset is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offset {
    /// `-07`
    Hours,
    /// `-0700`
    Minutes,
    /// `-07:00`
    ColonMinutes,
    /// `-070000`
    Seconds,
    /// `-07:00:00`
    ColonSeconds,
}

impl Offset {
    /// As it is written behind the sign.
    const ALL: [(&'static str, Offset); 5] = [
        ("070000", Offset::Seconds),
        ("07:00:00", Offset::ColonSeconds),
        ("0700", Offset::Minutes),
        ("07:00", Offset::ColonMinutes),
        ("07", Offset::Hours),
    ];
}

/// A layout of Go's package `time`, split into its elements.
///
/// There is no wrong layout: what is no element stands for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// What stands before each element, and the element.
    pub(super) parts: Vec<(Box<[u8]>, Element)>,
    /// What stands behind the last.
    pub(super) end: Box<[u8]>,
}

impl Layout {
    /// Reads a layout.
    pub fn new(layout: &str) -> Self {
        let mut rest = layout.as_bytes();
        let mut parts = Vec::new();
        let mut at = 0;
        while at < rest.len() {
            // The element may begin later than here: of `_2006` the underscore stands for itself.
            match element(rest, at) {
                Some((skip, element, len)) => {
                    parts.push((rest[..at + skip].into(), element));
                    rest = &rest[at + skip + len..];
                    at = 0;
                }
                None => at += 1,
            }
        }
        Layout { parts, end: rest.into() }
    }
}

/// The element that begins at a place: how many bytes further, and how long it is.
fn element(layout: &[u8], at: usize) -> Option<(usize, Element, usize)> {
    let rest = &layout[at..];
    let begins = |word: &str| rest.starts_with(word.as_bytes());
    // `January` but not `Janitor`.
    let abbreviates = |word: &str| begins(word) && !rest.get(3).is_some_and(u8::is_ascii_lowercase);
    let found = match rest[0] {
        b'J' if begins("January") => (Element::January, 7),
        b'J' if abbreviates("Jan") => (Element::Jan, 3),
        b'M' if begins("Monday") => (Element::Monday, 6),
        b'M' if abbreviates("Mon") => (Element::Mon, 3),
        b'M' if begins("MST") => (Element::ZoneName, 3),
        b'0' if begins("01") => (Element::Month { padded: true }, 2),
        b'0' if begins("02") => (Element::Day(Padding::Zero), 2),
        b'0' if begins("03") => (Element::Hour12 { padded: true }, 2),
        b'0' if begins("04") => (Element::Minute { padded: true }, 2),
        b'0' if begins("05") => (Element::Second { padded: true }, 2),
        b'0' if begins("06") => (Element::Year, 2),
        b'0' if begins("002") => (Element::YearDay(Padding::Zero), 3),
        b'1' if begins("15") => (Element::Hour, 2),
        b'1' => (Element::Month { padded: false }, 1),
        b'2' if begins("2006") => (Element::LongYear, 4),
        b'2' => (Element::Day(Padding::None), 1),
        b'_' if begins("_2006") => return Some((1, Element::LongYear, 4)),
        b'_' if begins("_2") => (Element::Day(Padding::Space), 2),
        b'_' if begins("__2") => (Element::YearDay(Padding::Space), 3),
        b'3' => (Element::Hour12 { padded: false }, 1),
        b'4' => (Element::Minute { padded: false }, 1),
        b'5' => (Element::Second { padded: false }, 1),
        b'P' if begins("PM") => (Element::HalfDay { upper: true }, 2),
        b'p' if begins("pm") => (Element::HalfDay { upper: false }, 2),
        sign @ (b'-' | b'Z') => {
            let (text, form) = Offset::ALL.into_iter().find(|(text, _)| rest[1..].starts_with(text.as_bytes()))?;
            (Element::Offset { z: sign == b'Z', form }, 1 + text.len())
        }
        mark @ (b'.' | b',') => {
            let digit = *rest.get(1).filter(|digit| matches!(digit, b'0' | b'9'))?;
            let digits = rest[1..].iter().take_while(|byte| **byte == digit).count();
            if rest.get(1 + digits).is_some_and(u8::is_ascii_digit) {
                return None;
            }
            let (len, comma) = (1 + digits, mark == b',');
            // More than nine have no meaning of their own; a count that is huge must not make others of it.
            let digits = digits.min(255) as u8;
            match (digit, comma) {
                (b'9', comma) => (Element::OptionalFraction { digits, comma }, len),
                (_, true) => (Element::FractionComma { digits }, len),
                (_, false) => (Element::Fraction { digits }, len),
            }
        }
        _ => return None,
    };
    Some((0, found.0, found.1))
}
