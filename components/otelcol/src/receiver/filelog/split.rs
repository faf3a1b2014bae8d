//! What of a file becomes one entry.

use corten_config::{Arguments, CheckErrors};
use corten_files::tail::{Encoding, Line, Split};
use corten_signal::regex::{GoRegex, Groups, Lossy};

/// Joins lines to one entry.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub struct Multiline {
    /// A regular expression that matches where an entry begins. `^` matches at the beginning of a line.
    #[arg(default = "")]
    line_start_pattern: String,
    /// A regular expression that matches where an entry ends. `$` matches at the end of a line.
    #[arg(default = "")]
    line_end_pattern: String,
    /// Leaves what the pattern matches out of entries.
    #[arg(default = false)]
    omit_pattern: bool,
}

impl Multiline {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        let (start, end) = (!self.line_start_pattern.is_empty(), !self.line_end_pattern.is_empty());
        errors.require(
            start || end,
            &["line_start_pattern", "line_end_pattern"],
            "either line_start_pattern or line_end_pattern must be set",
        );
        errors.require(
            !(start && end),
            &["line_start_pattern", "line_end_pattern"],
            "only one of line_start_pattern or line_end_pattern can be set",
        );
        errors.into_result()
    }
}

#[derive(Debug)]
enum Kind {
    /// Each line.
    Lines,
    /// As much as there is.
    Everything,
    /// From one match to the next.
    Starts(GoRegex, bool),
    /// Up to a match.
    Ends(GoRegex, bool),
}

/// Splits what was read into what becomes one entry each.
#[derive(Debug)]
pub(super) struct Splitter {
    kind: Kind,
    bytes_max: usize,
}

impl Splitter {
    /// Splits as the arguments say. With `whole`, text is not looked at at all.
    pub(super) fn new(multiline: Option<&Multiline>, bytes_max: usize, whole: bool) -> Result<Self, String> {
        let none = Multiline::default();
        let multiline = multiline.unwrap_or(&none);
        let (start, end) = (&*multiline.line_start_pattern, &*multiline.line_end_pattern);
        let compile = |pattern: &str, name: &str| {
            GoRegex::new(&format!("(?m){pattern}")).map_err(|error| format!("compile line {name} regex: {error}"))
        };
        let kind = match (start, end) {
            ("", "") if whole => Kind::Everything,
            ("", "") => Kind::Lines,
            (_, "") if whole => return Err("line_start_pattern should not be set when using nop encoding".to_owned()),
            (..) if whole => return Err("line_end_pattern should not be set when using nop encoding".to_owned()),
            (pattern, "") => Kind::Starts(compile(pattern, "start")?, multiline.omit_pattern),
            (_, pattern) => Kind::Ends(compile(pattern, "end")?, multiline.omit_pattern),
        };
        Ok(Splitter { kind, bytes_max })
    }

    /// Finds lines.
    fn lines(&self, text: &[u8], mut from: usize, encoding: Encoding, lines: &mut Vec<Line>) -> usize {
        loop {
            match encoding.line(text, from) {
                Some((end, next)) if end - from <= self.bytes_max => {
                    put(lines, from, end);
                    from = next;
                }
                None if text.len() - from < self.bytes_max => return from,
                _ => {
                    let cut = from + self.cut(&text[from..], encoding);
                    put(lines, from, cut);
                    from = cut;
                }
            }
        }
    }

    /// How much of a text that is as long as an entry may be, or longer, is one: not more than there may be, up to where a
    /// character ends.
    fn cut(&self, text: &[u8], encoding: Encoding) -> usize {
        let max = self.bytes_max;
        if encoding.is_raw() {
            let is_within = |byte: &u8| byte & 0xc0 == 0x80;
            let Some(begin) = (max - 4..max).rev().find(|at| !text.get(*at).is_some_and(is_within)) else { return max };
            let width = match text.get(begin) {
                Some(0xc0..0xe0) => 2,
                Some(0xe0..0xf0) => 3,
                Some(0xf0..) => 4,
                _ => 1,
            };
            let character = &text[begin..text.len().min(begin + width)];
            let is_one = std::str::from_utf8(character).map_or_else(|error| error.error_len().is_none(), |_| true);
            return if begin + width > max && begin > 0 && is_one { begin } else { max };
        }
        let (mut decoded, mut places) = (Vec::new(), Vec::new());
        encoding.decode_with_places(&text[..text.len().min(max + 4)], &mut decoded, &mut places);
        places.truncate(places.partition_point(|(raw, _)| *raw <= max));
        // Of the last one there may be more to come.
        if text.len() == max && decoded.ends_with("\u{fffd}".as_bytes()) && places.len() > 1 {
            places.pop();
        }
        places.last().map_or(max, |(raw, _)| *raw)
    }

    /// Finds what a pattern begins or ends.
    fn matches(&self, text: &[u8], from: usize, at_end: bool, encoding: Encoding, lines: &mut Vec<Line>) -> usize {
        let mut lossy = Lossy::new();
        let mut decoded = Vec::new();
        let mut table = Vec::new();
        let raw = &text[from..];
        let (plain, places) = if encoding.is_raw() {
            let (plain, offsets) = lossy.text(raw);
            let is_same = plain.len() == raw.len();
            (plain, if is_same { Places::Same } else { Places::Lossy(offsets) })
        } else {
            encoding.decode_with_places(raw, &mut decoded, &mut table);
            (std::str::from_utf8(&decoded).unwrap_or_default(), Places::Table(&table))
        };
        let mut at = 0;
        loop {
            let rest = &plain[at..];
            let place = |offset: usize| places.raw(at + offset);
            let begin = place(0);
            match self.token(rest, at_end) {
                Some((start, end, next)) if place(end) - place(start) <= self.bytes_max => {
                    put(lines, from + place(start), from + place(end));
                    at += next;
                }
                None if raw.len() - begin < self.bytes_max => return from + begin,
                found => {
                    // As much as there may be, from where it begins.
                    let start = found.map_or(0, |(start, ..)| start);
                    let cut = places.cut(plain, at + start, place(start) + self.bytes_max);
                    put(lines, from + place(start), from + places.raw(cut));
                    at = cut;
                }
            }
        }
    }

    /// The first entry of a text, and where the next one begins; nothing if it has no end.
    fn token(&self, text: &str, at_end: bool) -> Option<(usize, usize, usize)> {
        match &self.kind {
            Kind::Starts(regex, omit) => {
                let first = regex.find(text)?;
                if first.start > 0 {
                    // What stands before the first one is an entry as well.
                    return Some((0, first.start, first.start));
                }
                if first.end == text.len() {
                    return None;
                }
                let second = following(regex, text, first.end)?;
                let start = if *omit { first.end } else { first.start };
                Some((start, second, second))
            }
            Kind::Ends(regex, omit) => {
                let found = regex.find(text)?;
                // A match that goes to the end of what there is may go on.
                if !at_end && found.end + 1 >= text.len() {
                    return None;
                }
                // What matches nothing ends nothing.
                (found.end > 0).then_some((0, if *omit { found.start } else { found.end }, found.end))
            }
            Kind::Lines | Kind::Everything => None,
        }
    }
}

/// Where the next match begins that does not follow the first one at once. The reference looks at three matches.
fn following(regex: &GoRegex, text: &str, first_end: usize) -> Option<usize> {
    let mut groups = Groups::new();
    let mut at = first_end;
    for _ in 0..2 {
        // An empty match right behind the one before does not count.
        loop {
            if !regex.captures_at(text, at, &mut groups) {
                return None;
            }
            let found = groups.get(0)?;
            if found.is_empty() && found.start == at {
                at += text[at..].chars().next()?.len_utf8();
                if found.start > first_end {
                    return Some(found.start);
                }
                continue;
            }
            if found.start > first_end {
                return Some(found.start);
            }
            at = found.end;
            break;
        }
    }
    None
}

/// Where places of a text are in the bytes that it was made of.
enum Places<'a> {
    Same,
    Lossy(corten_signal::regex::Offsets<'a>),
    /// Places in the bytes and in the text, in order.
    Table(&'a [(usize, usize)]),
}

impl Places<'_> {
    fn raw(&self, place: usize) -> usize {
        match self {
            Places::Same => place,
            Places::Lossy(offsets) => offsets.to_bytes(place),
            Places::Table(table) => {
                let at = table.partition_point(|(_, decoded)| *decoded < place);
                if place == 0 { 0 } else { table.get(at).or(table.last()).map_or(0, |(raw, _)| *raw) }
            }
        }
    }

    /// The last character behind `from` that begins at most so many bytes on; the next one at least.
    fn cut(&self, text: &str, from: usize, raw_max: usize) -> usize {
        let behind = |at: usize| text[at..].chars().next().map_or(text.len(), |c| at + c.len_utf8());
        let (mut low, mut high) = (from, text.len());
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            // Within a character places mean nothing.
            if self.raw(text.floor_char_boundary(middle)) <= raw_max { low = middle } else { high = middle - 1 }
        }
        let cut = text.floor_char_boundary(low);
        if cut > from { cut } else { behind(from) }
    }
}

fn put(lines: &mut Vec<Line>, start: usize, end: usize) {
    lines.push(Line { at: start as u32, len: end.saturating_sub(start) as u32 });
}

impl Split for Splitter {
    fn split(&self, text: &[u8], from: usize, at_end: bool, encoding: Encoding, lines: &mut Vec<Line>) -> usize {
        match &self.kind {
            Kind::Lines => self.lines(text, from, encoding, lines),
            Kind::Everything => {
                let mut at = from;
                while text.len() - at >= self.bytes_max || (at_end && at < text.len()) {
                    let end = (at + self.bytes_max).min(text.len());
                    put(lines, at, end);
                    at = end;
                }
                at
            }
            Kind::Starts(..) | Kind::Ends(..) => self.matches(text, from, at_end, encoding, lines),
        }
    }

    fn rest(&self, text: &[u8], from: usize, _: Encoding, lines: &mut Vec<Line>) {
        put(lines, from, text.len());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn multiline(start: &str, end: &str, omit_pattern: bool) -> Multiline {
        Multiline { line_start_pattern: start.to_owned(), line_end_pattern: end.to_owned(), omit_pattern }
    }

    fn split(splitter: &Splitter, text: &[u8], encoding: Encoding) -> (Vec<Vec<u8>>, usize) {
        let mut lines = Vec::new();
        let next = splitter.split(text, 0, true, encoding, &mut lines);
        (lines.into_iter().map(|line| line.of(text).to_vec()).collect(), next)
    }

    #[test]
    fn entries_begin_and_end_where_patterns_match() {
        for (start, end, omit, text, expected, rest) in [
            ("", "", false, "a\nb\r\n\nc", &["a", "b", ""][..], "c"),
            ("^LOG", "", false, "LOGa\nb\nLOGc\nLOGd", &["LOGa\nb\n", "LOGc\n"], "LOGd"),
            ("^LOG", "", false, "x\ny\nLOGa\nLOGb", &["x\ny\n", "LOGa\n"], "LOGb"),
            ("^LOG ", "", true, "LOG a\nb\nLOG c\nLOG d", &["a\nb\n", "c\n"], "LOG d"),
            ("LOGSTART", "", false, "aLOGSTARTbLOGSTARTc", &["a", "LOGSTARTb"], "LOGSTARTc"),
            ("^a", "", false, "zzz", &[], "zzz"),
            ("", "END$", false, "a\nb END\nc END\nd", &["a\nb END", "\nc END"], "\nd"),
            ("", "END", true, "aENDbENDc", &["a", "b"], "c"),
            ("", ";\\n", false, "a;\nb;\n", &["a;\n", "b;\n"], ""),
            ("x*", "", false, "abc", &[], "abc"),
        ] {
            let splitter = Splitter::new(Some(&multiline(start, end, omit)), 1000, false).unwrap();
            let (found, next) = split(&splitter, text.as_bytes(), Encoding::RAW);
            let found: Vec<&str> = found.iter().map(|line| std::str::from_utf8(line).unwrap()).collect();
            if start != "x*" {
                assert_eq!((&*found, &text[next..]), (expected, rest), "{start} {end} {text:?}");
            }
            // The same in two bytes a character.
            let encoding = Encoding::named("utf-16le").unwrap();
            let wide = |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
            let (in_wide, next_wide) = split(&splitter, &wide(text), encoding);
            let found: Vec<Vec<u8>> = found.into_iter().map(wide).collect();
            assert_eq!((in_wide, next_wide), (found, next * 2), "{start} {end} {text:?}");
        }
    }

    #[test]
    fn what_is_too_long_comes_in_pieces() {
        for (kind, text, expected, rest) in [
            (multiline("", "", false), "abcdefgh\nij\nklmno", &["abcd", "efgh", "ij", "klmn"][..], "o"),
            (multiline("", "", false), "aéé\na\u{1f600}b\n", &["aé", "é", "a", "\u{1f600}", "b"], ""),
            (multiline("^a", "", false), "abcdefgh\nax\n", &["abcd", "efgh", "\n"], "ax\n"),
            (multiline("", ";", false), "abcdefgh;ij;", &["abcd", "efgh", ";", "ij;"], ""),
            (multiline("", ";", false), "ééé;", &["éé", "é;"], ""),
        ] {
            let splitter = Splitter::new(Some(&kind), 4, false).unwrap();
            let (found, next) = split(&splitter, text.as_bytes(), Encoding::RAW);
            let found: Vec<&str> = found.iter().map(|line| std::str::from_utf8(line).unwrap()).collect();
            assert_eq!((&*found, &text[next..]), (expected, rest), "{text:?}");
        }
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters_of_any_encoding() {
        let utf16 = |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
        for (name, text, expected) in [
            ("utf-16le", utf16("abc\na\u{1f600}\n"), ["ab", "c", "a", "\u{1f600}"].map(utf16).to_vec()),
            ("gbk", b"a\xb2\xe2\xb2\xe2\xb2\xe2\n".to_vec(), vec![b"a\xb2\xe2\xb2\xe2".to_vec(), b"\xb2\xe2".to_vec()]),
        ] {
            let splitter = Splitter::new(None, 5, false).unwrap();
            let (found, next) = split(&splitter, &text, Encoding::named(name).unwrap());
            assert_eq!((found, next), (expected, text.len()), "{name}");
        }
        // What is no text is cut anywhere.
        let splitter = Splitter::new(None, 4, false).unwrap();
        assert_eq!(split(&splitter, &[0xff; 9], Encoding::RAW).0, [[0xff; 4]; 2]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_comes_twice(
            text in prop::collection::vec(prop::sample::select(&b"abE;\n\r\xff\xc3\xa9"[..]), 0..120),
            which in 0..5usize,
            bytes_max in 4..40usize,
            at_end in any::<bool>(),
        ) {
            let kind = [
                multiline("", "", false), multiline("^a", "", false), multiline("b", "", false), multiline("", "E", false),
                multiline("", ";*", false),
            ];
            let splitter = Splitter::new(Some(&kind[which]), bytes_max, false).unwrap();
            let mut lines = Vec::new();
            let next = splitter.split(&text, 0, at_end, Encoding::RAW, &mut lines);
            let mut at = 0;
            for line in &lines {
                // Between lines there is nothing but their ends.
                let gap = &text[at..line.at as usize];
                prop_assert!(gap.iter().all(|byte| which == 0 && matches!(byte, b'\n' | b'\r')), "{gap:?}");
                at = (line.at + line.len) as usize;
                prop_assert!(line.len as usize <= bytes_max.max(4));
            }
            prop_assert!(text[at..next].iter().all(|byte| matches!(byte, b'\n' | b'\r')));
        }
    }
}
