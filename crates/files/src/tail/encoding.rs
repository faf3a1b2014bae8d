//! Encodings of files, by the names of the IANA registry. What is read is handed on as UTF-8.

use encoding_rs::{DecoderResult, Encoding as Other};

use super::code_pages::{self, CodePage};
use super::lines::Ends;

/// How the text of a file is encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encoding(Kind);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    /// Whatever it is, it is handed on as it is.
    #[default]
    Raw,
    Ascii,
    Latin1,
    /// The order of bytes is the network's unless a mark at the beginning says otherwise.
    Utf16 {
        big: bool,
    },
    Utf32 {
        big: bool,
    },
    Page(&'static CodePage),
    /// HZ, of RFC 1843.
    Hz,
    Other(&'static Other),
}

/// Names of the registry that are not in use on the web, by one that is.
const NAMES: [(&str, &[&str]); 23] = [
    ("utf-8", &["csutf8"]),
    ("gbk", &["csgbk", "cp936", "ms936", "windows-936"]),
    ("gb18030", &["csgb18030"]),
    ("euc-jp", &["extended_unix_code_packed_format_for_japanese"]),
    ("koi8-u", &["cskoi8u"]),
    ("iso-8859-6", &["iso_8859-6-e", "iso_8859-6-i"]),
    ("iso-8859-8", &["iso_8859-8-e"]),
    ("iso-8859-8-i", &["iso_8859-8-i"]),
    ("iso-8859-10", &["iso_8859-10:1992"]),
    ("iso-8859-13", &["csiso885913"]),
    ("iso-8859-14", &["iso_8859-14", "iso_8859-14:1998", "csiso885914", "iso-celtic", "iso-ir-199", "l8", "latin8"]),
    ("iso-8859-15", &["latin-9", "csiso885915"]),
    ("iso-8859-16", &["iso_8859-16", "iso_8859-16:2001", "csiso885916", "iso-ir-226", "l10", "latin10"]),
    ("windows-874", &["cswindows874"]),
    ("windows-1250", &["cswindows1250"]),
    ("windows-1251", &["cswindows1251"]),
    ("windows-1252", &["cswindows1252"]),
    ("windows-1253", &["cswindows1253"]),
    ("windows-1254", &["cswindows1254"]),
    ("windows-1255", &["cswindows1255"]),
    ("windows-1256", &["cswindows1256"]),
    ("windows-1257", &["cswindows1257"]),
    ("windows-1258", &["cswindows1258"]),
];

/// The marks of the order of bytes, which count more than what the user says.
const MARKS: [(&[u8], Kind); 3] =
    [(b"\xef\xbb\xbf", Kind::Raw), (b"\xfe\xff", Kind::Utf16 { big: true }), (b"\xff\xfe", Kind::Utf16 { big: false })];
/// The longest of them, in bytes.
pub(crate) const MARK_BYTES_MAX: usize = 3;

impl Encoding {
    /// Bytes that are handed on as they are.
    pub const RAW: Encoding = Encoding(Kind::Raw);

    /// The encoding of this name, in any case and with space around it: one of the IANA registry, or else of the web. An
    /// empty name is that of bytes that are handed on as they are.
    pub fn named(name: &str) -> Option<Self> {
        let lower = name.trim().to_ascii_lowercase();
        let kind = match lower.as_str() {
            "" => Kind::Raw,
            "us-ascii" | "ascii" | "ansi_x3.4-1968" | "iso-ir-6" | "ansi_x3.4-1986" | "iso_646.irv:1991"
            | "iso646-us" | "us" | "ibm367" | "cp367" | "csascii" => Kind::Ascii,
            "iso-8859-1" | "iso_8859-1" | "iso_8859-1:1987" | "iso-ir-100" | "latin1" | "l1" | "ibm819" | "cp819"
            | "csisolatin1" => Kind::Latin1,
            "utf-16" | "utf-16be" | "csutf16" | "csutf16be" => Kind::Utf16 { big: true },
            "utf-16le" | "csutf16le" => Kind::Utf16 { big: false },
            "utf-32" | "utf-32be" | "csutf32" | "csutf32be" => Kind::Utf32 { big: true },
            "utf-32le" | "csutf32le" => Kind::Utf32 { big: false },
            "hz-gb-2312" => Kind::Hz,
            // These names mean something else on the web than in the registry.
            "iso-8859-9" | "iso_8859-9" | "iso_8859-9:1989" | "iso-ir-148" | "latin5" | "l5" | "csisolatin5" => {
                Kind::Page(&code_pages::ISO_8859_9)
            }
            "replacement" | "x-user-defined" => return None,
            name => match code_pages::named(name) {
                Some(page) => Kind::Page(page),
                None => {
                    let found = NAMES.iter().find(|(_, names)| names.contains(&name));
                    let label = found.map_or(name, |(label, _)| *label);
                    Kind::Other(Other::for_label_no_replacement(label.as_bytes())?)
                }
            },
        };
        Some(Encoding(kind))
    }

    /// The encoding that a mark at the beginning of a file says, and how long the mark is.
    pub(crate) fn of_mark(first: &[u8]) -> Option<(Self, usize)> {
        let (mark, kind) = MARKS.iter().find(|(mark, _)| first.starts_with(mark))?;
        Some((Encoding(*kind), mark.len()))
    }

    /// Whether these bytes may be the beginning of a mark.
    pub(crate) fn may_be_mark(first: &[u8]) -> bool {
        MARKS.iter().any(|(mark, _)| mark.starts_with(first))
    }

    /// Whether bytes are handed on as they are.
    pub fn is_raw(self) -> bool {
        self.0 == Kind::Raw
    }

    /// How lines end.
    pub(crate) fn ends(self) -> Ends {
        match self.0 {
            Kind::Utf16 { big: true } => Ends { unit: 2, feed: *b"\0\n\0\0", carriage: *b"\0\r\0\0" },
            Kind::Utf16 { big: false } => Ends { unit: 2, feed: *b"\n\0\0\0", carriage: *b"\r\0\0\0" },
            Kind::Utf32 { big: true } => Ends { unit: 4, feed: *b"\0\0\0\n", carriage: *b"\0\0\0\r" },
            Kind::Utf32 { big: false } => Ends { unit: 4, feed: *b"\n\0\0\0", carriage: *b"\r\0\0\0" },
            Kind::Page(page) => Ends { unit: 1, feed: [page.feed(), 0, 0, 0], carriage: [page.carriage(), 0, 0, 0] },
            Kind::Raw | Kind::Ascii | Kind::Latin1 | Kind::Hz | Kind::Other(_) => Ends::ASCII,
        }
    }

    /// Where the line ends that begins at a place in a text, and where the next one begins; nothing if it has no end.
    pub fn line(self, text: &[u8], from: usize) -> Option<(usize, usize)> {
        let ends = self.ends();
        let at = if ends.unit == 1 {
            from + memchr::memchr(ends.feed[0], text.get(from..)?)?
        } else {
            let mut units = text.get(from..)?.chunks_exact(ends.unit);
            from + ends.unit * units.position(|unit| *unit == ends.feed[..ends.unit])?
        };
        let mut lines = Vec::new();
        ends.put(text, from, at, &mut lines);
        Some((from + lines.first().map_or(0, |line| line.len as usize), at + ends.unit))
    }

    /// Decodes a text, and says where in it and in what came of it characters end: pairs of places, in order.
    pub fn decode_with_places(self, text: &[u8], out: &mut Vec<u8>, places: &mut Vec<(usize, usize)>) {
        if let Kind::Other(other) = self.0 {
            let mut decoder = other.new_decoder_without_bom_handling();
            let mut room = [0; 32];
            for at in 0..text.len() {
                let (.., written, _) = decoder.decode_to_utf8(&text[at..=at], &mut room, at + 1 == text.len());
                out.extend_from_slice(&room[..written]);
                if written > 0 {
                    places.push((at + 1, out.len()));
                }
            }
            return;
        }
        let mut at = 0;
        while at < text.len() {
            let len = match self.0 {
                Kind::Utf16 { big } => {
                    let high = text.get(at + usize::from(!big)).is_some_and(|byte| (0xd8..0xdc).contains(byte));
                    let low = text.get(at + 2 + usize::from(!big)).is_some_and(|byte| (0xdc..0xe0).contains(byte));
                    if high && low { 4 } else { 2 }
                }
                Kind::Utf32 { .. } => 4,
                // What stands for what depends on the whole line.
                Kind::Hz => self.line(text, at).map_or(text.len(), |(_, next)| next) - at,
                _ => 1,
            };
            let end = (at + len).min(text.len());
            self.decode(&text[at..end], out);
            places.push((end, out.len()));
            at = end;
        }
    }

    /// Appends a line as UTF-8. What is no character becomes U+FFFD.
    pub(crate) fn decode(self, line: &[u8], out: &mut Vec<u8>) {
        match self.0 {
            Kind::Raw => out.extend_from_slice(line),
            Kind::Ascii => line.iter().for_each(|byte| put(out, if byte.is_ascii() { char::from(*byte) } else { BAD })),
            Kind::Latin1 => line.iter().for_each(|byte| put(out, char::from(*byte))),
            Kind::Page(page) => line.iter().for_each(|byte| put(out, page.character(*byte))),
            Kind::Utf16 { big } => {
                let units = line.as_chunks::<2>();
                let number =
                    |bytes: &[u8; 2]| if big { u16::from_be_bytes(*bytes) } else { u16::from_le_bytes(*bytes) };
                char::decode_utf16(units.0.iter().map(number)).for_each(|c| put(out, c.unwrap_or(BAD)));
                if !units.1.is_empty() {
                    put(out, BAD);
                }
            }
            Kind::Utf32 { big } => {
                let units = line.as_chunks::<4>();
                let number =
                    |bytes: &[u8; 4]| if big { u32::from_be_bytes(*bytes) } else { u32::from_le_bytes(*bytes) };
                units.0.iter().for_each(|unit| put(out, char::from_u32(number(unit)).unwrap_or(BAD)));
                if !units.1.is_empty() {
                    put(out, BAD);
                }
            }
            Kind::Hz => decode_hz(line, out),
            Kind::Other(other) => decode_other(other, line, out),
        }
    }
}

const BAD: char = char::REPLACEMENT_CHARACTER;

fn put(out: &mut Vec<u8>, c: char) {
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

/// Each line is decoded by itself, as if the file began there.
fn decode_other(other: &'static Other, line: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    decode_as_web(other, line, out);
    // On the web, bytes that stand for nothing are control characters of the same number.
    let is_control = |pair: &[u8]| pair[0] == 0xc2 && matches!(pair[1], 0x80..=0x9f);
    if other.is_single_byte() && out[start..].windows(2).any(is_control) {
        let text = String::from_utf8_lossy(&out.split_off(start)).into_owned();
        text.chars().for_each(|c| put(out, if matches!(c, '\u{80}'..='\u{9f}') { BAD } else { c }));
    }
}

fn decode_as_web(other: &'static Other, line: &[u8], out: &mut Vec<u8>) {
    let mut decoder = other.new_decoder_without_bom_handling();
    let mut rest = line;
    let mut buffer = [0; 1024];
    loop {
        let (result, read, written) = decoder.decode_to_utf8_without_replacement(rest, &mut buffer, true);
        out.extend_from_slice(&buffer[..written]);
        rest = &rest[read..];
        match result {
            DecoderResult::InputEmpty => return,
            DecoderResult::OutputFull => {}
            DecoderResult::Malformed(..) => put(out, BAD),
        }
    }
}

/// ASCII, and characters of GB 2312 as two bytes between `~{` and `~}` or the end of the line.
fn decode_hz(line: &[u8], out: &mut Vec<u8>) {
    let mut is_ascii = true;
    let mut rest = line;
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'\n', _) => {
                is_ascii = true;
                put(out, '\n');
            }
            // A line that goes on.
            (b'~', [] | [b'\n', ..]) => rest = after.get(1..).unwrap_or_default(),
            (b'~', [mode @ (b'{' | b'}'), after @ ..]) => {
                is_ascii = *mode == b'}';
                rest = after;
            }
            (b'~', [b'~', after @ ..]) if is_ascii => {
                put(out, '~');
                rest = after;
            }
            (byte, [second @ 0x21..=0x7e, after @ ..]) if !is_ascii && (0x21..=0x7d).contains(byte) => {
                decode_other(encoding_rs::GBK, &[byte | 0x80, second | 0x80], out);
                rest = after;
            }
            (byte, _) => put(out, if is_ascii && byte.is_ascii() && *byte != b'~' { char::from(*byte) } else { BAD }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn decoded(name: &str, line: &[u8]) -> String {
        let mut out = Vec::new();
        Encoding::named(name).unwrap().decode(line, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn names_are_those_of_the_registry_in_any_case() {
        for (name, line, expected) in [
            ("utf-8", &b"a\xc3\xa4\xff"[..], "aä\u{fffd}"),
            ("US-ASCII", b"a\x80", "a\u{fffd}"),
            ("ISO-8859-1", b"a\x80\xe4", "a\u{80}ä"),
            ("latin1", b"\x93", "\u{93}"),
            ("windows-1252", b"\x93", "\u{201c}"),
            ("ISO-8859-9", b"\x80\xdd\xf0", "\u{80}İğ"),
            ("ISO-8859-15", b"\xa4", "€"),
            ("UTF-16", b"\0a\x20\xac", "a€"),
            ("UTF-16BE", b"\xd8\x3d\xde\x00", "😀"),
            ("UTF-16LE", b"a\0\xac\x20\x3d\xd8", "a€\u{fffd}"),
            ("UTF-16LE", b"a\0b", "a\u{fffd}"),
            ("UTF-32LE", b"a\0\0\0\0\xd8\0\0", "a\u{fffd}"),
            ("UTF-32BE", b"\0\x01\xf6\0", "😀"),
            ("Shift_JIS", b"\x83\x65\x83\x58\x83\x67", "テスト"),
            ("EUC-JP", b"\xa5\xc6", "テ"),
            ("GB18030", b"\xb2\xe2", "测"),
            ("Big5", b"\xb4\xfa", "測"),
            ("HZ-GB-2312", b"a~~{~{2bJT~}b~{2b", "a~{测试b测"),
            ("HZ-GB-2312", b"~{2b2\nJT~", "测\u{fffd}\nJT"),
            ("KOI8-R", b"\xd4", "т"),
            ("IBM437", b"\x84\xe1", "äß"),
            ("IBM850", b"\x84\x9d", "äØ"),
            ("IBM037", b"\xc8\x85", "He"),
        ] {
            assert_eq!(decoded(name, line), expected, "{name}");
        }
        for name in ["utf-9", "replacement", "x-user-defined", "-"] {
            assert_eq!(Encoding::named(name), None, "{name:?}");
        }
    }

    /// Names and texts as the reference takes them: `canonical` is the name of the encoding and `newline` the end of a line
    /// in it, both in hexadecimal digits as `hex` is.
    fn recorded(of: &str) -> Vec<serde_json::Value> {
        let recorded: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/data/encodings.json")).expect("recorded cases");
        recorded[of].as_array().expect("cases").clone()
    }

    fn text<'a>(case: &'a serde_json::Value, of: &str) -> &'a str {
        case[of].as_str().expect("a text")
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("two digits");
        (0..hex.len()).step_by(2).map(byte).collect()
    }

    const MORE_NAMES: &str = "ascii big5-hkscs chinese cp1250 cp1252 csgb2312 csiso58gb231280 csksc56011987 csunicode csutf32 csutf32be csutf32le gb2312 gb_2312-80 iso-10646-ucs-2 iso-8859-11 iso-ir-149 iso-ir-58 korean ks_c_5601-1987 ks_c_5601-1989 ksc_5601 sjis tis-620 ucs-2 utf-32 utf-32be utf-32le utf8 windows-31j x-mac-cyrillic";

    #[test]
    fn names_mean_what_they_mean_to_the_reference() {
        let cases = recorded("names");
        assert_eq!(cases.len(), 1538);
        let mut more = BTreeSet::new();
        let mut differences = Vec::new();
        for case in &cases {
            let name = text(case, "name");
            let Some(encoding) = Encoding::named(name) else {
                if case.get("canonical").is_some() {
                    differences.push(format!("{case}"));
                }
                continue;
            };
            if case.get("canonical").is_none() {
                more.insert(name.to_ascii_lowercase());
                continue;
            }
            let newline = bytes(text(case, "newline"));
            let newline = newline.strip_prefix(b"\xfe\xff").unwrap_or(&newline);
            let ends = encoding.ends();
            let mut decoded = Vec::new();
            encoding.decode(newline, &mut decoded);
            if Encoding::named(text(case, "canonical")) != Some(encoding)
                || decoded != b"\n"
                || ends.feed[..ends.unit] != *newline
            {
                differences.push(format!("{case} {encoding:?}"));
            }
        }
        assert!(differences.is_empty(), "{}", differences.join("\n"));
        // What the reference does not know, but the web does.
        assert_eq!(more.into_iter().collect::<Vec<_>>().join(" "), MORE_NAMES);
    }

    #[test]
    fn texts_are_read_as_the_reference_reads_them() {
        let cases = recorded("decode");
        // What is broken, mostly: such a case has what comes out here as `ours`.
        let differ = cases.iter().filter(|case| case.get("ours").is_some()).count();
        assert_eq!((cases.len(), differ), (1767, 22));
        let mut differences = Vec::new();
        for case in &cases {
            let hex = bytes(text(case, "hex"));
            // A mark is taken off, and counts, before the first line is read.
            let (name, hex) = match Encoding::of_mark(&hex) {
                Some((encoding, len)) if text(case, "name") == "UTF-16" && len == 2 => (encoding, &hex[len..]),
                _ => (Encoding::named(text(case, "name")).expect("an encoding"), &hex[..]),
            };
            let mut is = Vec::new();
            name.decode(hex, &mut is);
            let is = String::from_utf8(is).expect("UTF-8");
            if is != text(case, if case.get("ours").is_some() { "ours" } else { "text" }) {
                differences.push(format!("{case}\n  is {}", serde_json::Value::from(is)));
            }
        }
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }

    #[test]
    fn a_mark_at_the_beginning_says_the_encoding() {
        let encoding = |name: &str| Encoding::named(name).unwrap();
        for (first, expected) in [
            (&b"\xef\xbb\xbfa"[..], Some((encoding(""), 3))),
            (b"\xfe\xff\0a", Some((encoding("utf-16be"), 2))),
            (b"\xff\xfea\0", Some((encoding("utf-16le"), 2))),
            (b"\xff\xfe\0\0", Some((encoding("utf-16le"), 2))),
            (b"\xef\xbb", None),
            (b"", None),
        ] {
            assert_eq!(Encoding::of_mark(first), expected, "{first:?}");
        }
    }

    #[test]
    fn places_lead_from_what_is_decoded_to_where_it_stands() {
        for (name, text, expected) in [
            ("utf-16le", &b"a\0\n\0\xe9\0\x3d\xd8\x00\xde"[..], &[(2, 1), (4, 2), (6, 4), (10, 8)][..]),
            ("utf-16be", b"\0a\xd8\x3d\xde\x00", &[(2, 1), (6, 5)]),
            ("iso-8859-1", b"a\xe9", &[(1, 1), (2, 3)]),
            ("big5", b"a\xa4\xa4b", &[(1, 1), (3, 4), (4, 5)]),
            ("shift_jis", b"\x82\xa0\n", &[(2, 3), (3, 4)]),
        ] {
            let encoding = Encoding::named(name).unwrap();
            let (mut out, mut places) = (Vec::new(), Vec::new());
            encoding.decode_with_places(text, &mut out, &mut places);
            assert_eq!(places, expected, "{name}");
            let mut whole = Vec::new();
            encoding.decode(text, &mut whole);
            assert_eq!(out, whole, "{name}");
        }
        let encoding = Encoding::named("utf-16le").unwrap();
        assert_eq!(encoding.line(b"a\0\r\0\n\0b\0", 0), Some((2, 6)));
        assert_eq!(encoding.line(b"a\0\r\0\n\0b\0", 6), None);
    }

    proptest! {
        #[test]
        fn what_is_decoded_is_utf8(
            name in prop::sample::select(&["utf-8", "us-ascii", "latin1", "utf-16", "utf-16le", "utf-32le", "shift_jis",
                "euc-jp", "iso-2022-jp", "gbk", "gb18030", "hz-gb-2312", "big5", "euc-kr", "koi8-u", "ibm850", "ibm037"][..]),
            line in prop::collection::vec(any::<u8>(), 0..3000),
        ) {
            decoded(name, &line);
        }
    }
}
