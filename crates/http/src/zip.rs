//! Archives in the zip format (PKWARE's APPNOTE, 4.3), written from the front to the back: as much of the format as a support
//! bundle takes. An archive is smaller than 4 GiB and has fewer than 65,536 entries.

use std::io::{self, Write as _};

use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};

/// The version of the format that has compression.
const VERSION: u16 = 20;
/// As [`VERSION`], with the system whose file modes the archive has: Unix.
const MADE_BY: u16 = 3 << 8 | VERSION;
/// Names are in UTF-8.
const UTF8: u16 = 1 << 11;
const STORED: u16 = 0;
const DEFLATE: u16 = 8;
/// An ordinary file that its owner writes and everybody reads.
const MODE: u32 = 0o100_644 << 16;
/// The first day that the format has a number for, 1980-01-01: archives say nothing of when their entries were made.
const FIRST_DAY: u16 = 1 << 5 | 1;

/// An archive that is being written.
#[derive(Debug, Default)]
pub(crate) struct Zip {
    bytes: Vec<u8>,
    /// How many bytes were taken out already.
    taken: usize,
    /// The list of entries, which stands at the end.
    directory: Vec<u8>,
    entries: u16,
}

impl Zip {
    /// Adds a file.
    ///
    /// # Errors
    ///
    /// The archive would get too large for the format.
    pub(crate) fn add(&mut self, name: &str, contents: &[u8]) -> io::Result<()> {
        let mut encoder = DeflateEncoder::new(Vec::with_capacity(contents.len() / 8), Compression::fast());
        encoder.write_all(contents)?;
        self.entry(name, contents, DEFLATE, &encoder.finish()?)
    }

    /// As [`add`](Self::add), for a file that is not packed: its contents are the last bytes of the archive then.
    ///
    /// # Errors
    ///
    /// As those of [`add`](Self::add).
    pub(crate) fn store(&mut self, name: &str, contents: &[u8]) -> io::Result<()> {
        self.entry(name, contents, STORED, contents)
    }

    fn entry(&mut self, name: &str, contents: &[u8], method: u16, packed: &[u8]) -> io::Result<()> {
        let large = || io::Error::new(io::ErrorKind::FileTooLarge, "the archive is too large");
        let mut sum = Crc::new();
        sum.update(contents);
        let offset = u32::try_from(self.taken + self.bytes.len()).map_err(|_| large())?;
        let (packed_bytes, contents_bytes) = (u32::try_from(packed.len()), u32::try_from(contents.len()));
        let (packed_bytes, contents_bytes) = (packed_bytes.map_err(|_| large())?, contents_bytes.map_err(|_| large())?);
        let name_bytes = u16::try_from(name.len()).map_err(|_| large())?;
        self.entries = self.entries.checked_add(1).ok_or_else(large)?;

        // What the head of the entry and its line in the list have in common.
        let mut common = Vec::with_capacity(26);
        push16(&mut common, &[VERSION, UTF8, method, 0, FIRST_DAY]);
        push32(&mut common, &[sum.sum(), packed_bytes, contents_bytes]);
        push16(&mut common, &[name_bytes, 0]);

        self.bytes.extend(b"PK\x03\x04");
        self.bytes.extend(&common);
        self.bytes.extend(name.as_bytes());
        self.bytes.extend(packed);

        self.directory.extend(b"PK\x01\x02");
        push16(&mut self.directory, &[MADE_BY]);
        self.directory.extend(common);
        push16(&mut self.directory, &[0, 0, 0]);
        push32(&mut self.directory, &[MODE, offset]);
        self.directory.extend(name.as_bytes());
        Ok(())
    }

    /// What was written since this was asked last.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.taken += self.bytes.len();
        std::mem::take(&mut self.bytes)
    }

    /// The rest of the archive.
    ///
    /// # Errors
    ///
    /// It is too large for the format.
    pub(crate) fn finish(mut self) -> io::Result<Vec<u8>> {
        let large = |_| io::Error::new(io::ErrorKind::FileTooLarge, "the archive is too large");
        let offset = u32::try_from(self.taken + self.bytes.len()).map_err(large)?;
        let length = u32::try_from(self.directory.len()).map_err(large)?;
        self.bytes.append(&mut self.directory);
        self.bytes.extend(b"PK\x05\x06");
        push16(&mut self.bytes, &[0, 0, self.entries, self.entries]);
        push32(&mut self.bytes, &[length, offset]);
        push16(&mut self.bytes, &[0]);
        Ok(self.bytes)
    }
}

fn push16(out: &mut Vec<u8>, numbers: &[u16]) {
    out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
}

fn push32(out: &mut Vec<u8>, numbers: &[u32]) {
    out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use proptest::prelude::*;

    use super::*;

    fn two(bytes: &[u8], at: usize) -> usize {
        usize::from(u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap()))
    }

    fn four(bytes: &[u8], at: usize) -> usize {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
    }

    /// The files of an archive, found by the list at its end.
    fn files(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
        let end = archive.len() - 22;
        assert_eq!(&archive[end..end + 4], b"PK\x05\x06");
        let mut at = four(archive, end + 16);
        assert_eq!(at + four(archive, end + 12), end);
        let mut files = Vec::new();
        for _ in 0..two(archive, end + 10) {
            let (packed, length, name) = (four(archive, at + 20), four(archive, at + 24), two(archive, at + 28));
            let (offset, name_at) = (four(archive, at + 42), at + 46);
            assert_eq!(archive[offset + 4..offset + 30], archive[at + 6..at + 32], "both heads say the same");
            let data = &archive[offset + 30 + name..offset + 30 + name + packed];
            let mut contents = Vec::new();
            match two(archive, at + 10) as u16 {
                STORED => contents.extend(data),
                _ => _ = flate2::read::DeflateDecoder::new(data).read_to_end(&mut contents).unwrap(),
            }
            let mut sum = Crc::new();
            sum.update(&contents);
            assert_eq!((contents.len(), sum.sum() as usize), (length, four(archive, at + 16)));
            files.push((String::from_utf8(archive[name_at..name_at + name].to_vec()).unwrap(), contents));
            at = name_at + name;
        }
        files
    }

    #[test]
    fn an_archive_without_files_is_one() {
        assert_eq!(files(&Zip::default().finish().unwrap()), []);
    }

    #[test]
    fn what_is_stored_stands_at_the_end() {
        let mut zip = Zip::default();
        zip.store("a", b"hello").unwrap();
        let bytes = zip.take();
        assert!(bytes.starts_with(b"PK\x03\x04") && bytes.ends_with(b"ahello"));
        // The sum that every archiver writes for these bytes.
        assert_eq!(four(&bytes, 14), 0x3610_a686);
    }

    proptest! {
        #[test]
        fn what_is_written_in_parts_is_read_again(
            entries in proptest::collection::vec(("[a-zé/]{1,8}", any::<Vec<u8>>(), any::<bool>(), any::<bool>()), 0..6)
        ) {
            let (mut zip, mut archive) = (Zip::default(), Vec::new());
            for (name, contents, store, take) in &entries {
                if *store { zip.store(name, contents) } else { zip.add(name, contents) }.unwrap();
                if *take {
                    archive.extend(zip.take());
                }
            }
            archive.extend(zip.finish().unwrap());
            let expected: Vec<(String, Vec<u8>)> =
                entries.into_iter().map(|(name, contents, ..)| (name, contents)).collect();
            prop_assert_eq!(files(&archive), expected);
        }
    }
}
