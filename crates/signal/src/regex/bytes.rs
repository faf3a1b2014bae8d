//! Matching texts that need not be UTF-8.

use std::ops::Range;

use super::{GoRegex, Groups, NonMaxUsize};

/// Turns bytes into a text as Go's `regexp` sees them: every byte that is no part of UTF-8 is U+FFFD by itself. Reused from
/// text to text: it keeps its allocations.
#[derive(Clone, Debug, Default)]
pub struct Lossy {
    text: String,
    /// Where in `text` the characters stand that were made of a byte.
    replaced: Vec<usize>,
}

/// How many bytes longer the replacement is than what it stands for.
const GROWTH: usize = char::REPLACEMENT_CHARACTER.len_utf8() - 1;

impl Lossy {
    /// Room for texts.
    pub fn new() -> Self {
        Self::default()
    }

    /// The bytes as a text, which is the bytes themselves where they are UTF-8, and how to get back from it.
    pub fn text<'a>(&'a mut self, bytes: &'a [u8]) -> (&'a str, Offsets<'a>) {
        self.replaced.clear();
        if let Ok(text) = std::str::from_utf8(bytes) {
            return (text, Offsets(&self.replaced));
        }
        self.text.clear();
        for chunk in bytes.utf8_chunks() {
            self.text.push_str(chunk.valid());
            for _ in chunk.invalid() {
                self.replaced.push(self.text.len());
                self.text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        (&self.text, Offsets(&self.replaced))
    }
}

/// Places in the text of a [`Lossy`] and in the bytes that it was made of.
#[derive(Clone, Copy, Debug)]
pub struct Offsets<'a>(&'a [usize]);

impl Offsets<'_> {
    /// Where in the bytes a place in the text is.
    pub fn to_bytes(self, at: usize) -> usize {
        at - GROWTH * self.0.partition_point(|replaced| *replaced < at)
    }

    /// Where in the bytes a part of the text is.
    pub fn range(self, range: Range<usize>) -> Range<usize> {
        self.to_bytes(range.start)..self.to_bytes(range.end)
    }
}

impl GoRegex {
    /// As [`is_match`](Self::is_match), for bytes.
    pub fn is_match_bytes(&self, bytes: &[u8], lossy: &mut Lossy) -> bool {
        self.is_match(lossy.text(bytes).0)
    }

    /// As [`captures`](Self::captures), for bytes: the groups are places in these.
    pub fn captures_bytes(&self, bytes: &[u8], lossy: &mut Lossy, groups: &mut Groups) -> bool {
        let (text, offsets) = lossy.text(bytes);
        let found = self.captures(text, groups);
        if found && !offsets.0.is_empty() {
            for slot in groups.slots.iter_mut().flatten() {
                *slot = NonMaxUsize::new(offsets.to_bytes(slot.get())).unwrap_or(*slot);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_byte_that_is_no_text_is_a_character_by_itself() {
        for (pattern, bytes, expected) in [
            ("a(.*)b", &b"xa\xff\xfeby"[..], Some(2..4)),
            ("^(.{2})$", b"\xe2\x82", Some(0..2)),
            ("(\u{fffd})c", b"\xff\xe2\x82c", Some(2..3)),
            (r"(\w+)", b"\xff\xffword\xff", Some(2..6)),
            (r"é(.)", b"\xff\xc3\xa9\xff", Some(3..4)),
            (r"(\x{ff})", b"\xff", None),
            ("(.)$", b"ab\xff", Some(2..3)),
        ] {
            let regex = GoRegex::new(pattern).unwrap();
            let (mut lossy, mut groups) = (Lossy::new(), Groups::new());
            let found = regex.captures_bytes(bytes, &mut lossy, &mut groups);
            assert_eq!(found.then(|| groups.get(1)).flatten(), expected, "{pattern}");
            assert_eq!(regex.is_match_bytes(bytes, &mut lossy), found);
        }
    }

    proptest! {
        #[test]
        fn offsets_lead_back_to_the_bytes(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'a'), Just(0xc3), Just(0xa9)], 0..64)) {
            let mut lossy = Lossy::new();
            let (text, offsets) = lossy.text(&bytes);
            prop_assert_eq!(offsets.to_bytes(text.len()), bytes.len());
            for (at, character) in text.char_indices() {
                let place = offsets.range(at..at + character.len_utf8());
                let here = &bytes[place.clone()];
                if character == char::REPLACEMENT_CHARACTER {
                    prop_assert!(here.len() == 1 || here == [0xef, 0xbf, 0xbd]);
                } else {
                    prop_assert_eq!(here, character.to_string().into_bytes());
                }
            }
        }
    }
}
