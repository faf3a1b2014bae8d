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
    Other(&'static Other),
}

/// The marks of the order of bytes, which count more than what the user says.
const MARKS: [(&[u8], Kind); 3] =
    [(b"\xef\xbb\xbf", Kind::Raw), (b"\xfe\xff", Kind::Utf16 { big: true }), (b"\xff\xfe", Kind::Utf16 { big: false })];
/// The longest of them, in bytes.
pub(crate) const MARK_BYTES_MAX: usize = 3;

impl Encoding {
    /// Bytes that are handed on as they are.
    pub const RAW: Encoding = Encoding(Kind::Raw);

    /// The encoding of this name, in any case. An empty name is that of bytes that are handed on as they are.
    pub fn named(name: &str) -> Option<Self> {
        let lower = name.to_ascii_lowercase();
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
            // These names mean something else on the web than in the registry.
            "iso-8859-9" | "iso_8859-9" | "iso_8859-9:1989" | "iso-ir-148" | "latin5" | "l5" | "csisolatin5" => {
                Kind::Page(&code_pages::ISO_8859_9)
            }
            "replacement" | "x-user-defined" => return None,
            name => match code_pages::named(name) {
                Some(page) => Kind::Page(page),
                None => Kind::Other(Other::for_label_no_replacement(name.as_bytes())?),
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
    pub(crate) fn is_raw(self) -> bool {
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
            Kind::Raw | Kind::Ascii | Kind::Latin1 | Kind::Other(_) => Ends::ASCII,
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

#[cfg(test)]
mod tests {
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
            ("KOI8-R", b"\xd4", "т"),
            ("IBM437", b"\x84\xe1", "äß"),
            ("IBM850", b"\x84\x9d", "äØ"),
            ("IBM037", b"\xc8\x85", "He"),
        ] {
            assert_eq!(decoded(name, line), expected, "{name}");
        }
        for name in ["utf-9", "replacement", "x-user-defined", " "] {
            assert_eq!(Encoding::named(name), None, "{name:?}");
        }
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

    proptest! {
        #[test]
        fn what_is_decoded_is_utf8(
            name in prop::sample::select(&["utf-8", "us-ascii", "latin1", "utf-16", "utf-16le", "utf-32le", "shift_jis",
                "euc-jp", "iso-2022-jp", "gbk", "gb18030", "big5", "euc-kr", "koi8-u", "ibm850", "ibm037"][..]),
            line in prop::collection::vec(any::<u8>(), 0..3000),
        ) {
            decoded(name, &line);
        }
    }
}
