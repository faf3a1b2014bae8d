//! Compression of messages, as HTTP names it in `Content-Encoding` and gRPC in `grpc-encoding`.
//!
//! Whatever is unpacked is unpacked within a limit: what is sent says how much it unpacks to, or does not, and is not
//! believed.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};

/// A way to pack a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950, which HTTP calls `deflate`, too.
    Zlib,
    /// RFC 8878.
    Zstd,
    /// The block format of snappy. Unpacking takes the framing format as well.
    Snappy,
    /// The framing format of snappy.
    SnappyFramed,
    /// The frame format of LZ4.
    Lz4,
}

/// Why a message could not be unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CodingError {
    /// It is longer than the limit, in bytes.
    TooLarge(usize),
    /// It is not what it says.
    Corrupt(String),
}

impl fmt::Display for CodingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CodingError::TooLarge(limit) => write!(f, "the unpacked message is longer than the limit of {limit} bytes"),
            CodingError::Corrupt(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for CodingError {}

/// Why a message could not be packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackError(pub String);

impl fmt::Display for PackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the message cannot be packed: {}", self.0)
    }
}

impl std::error::Error for PackError {}

/// How a snappy stream in the framing format begins.
const SNAPPY_STREAM: &[u8] = b"\xff\x06\0\0sNaPpY";
/// The largest window of a zstd frame, in bytes: what its format asks every decoder to support.
const ZSTD_WINDOW_BYTES_MAX: u64 = 8 << 20;

impl Coding {
    /// The coding of a name in lower case.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "gzip" => Coding::Gzip,
            "zlib" | "deflate" => Coding::Zlib,
            "zstd" => Coding::Zstd,
            "snappy" => Coding::Snappy,
            "x-snappy-framed" => Coding::SnappyFramed,
            "lz4" => Coding::Lz4,
            _ => return None,
        })
    }

    /// Unpacks a message that may be at most so long.
    ///
    /// # Errors
    ///
    /// It is longer, or not packed in this way.
    pub fn unpack(self, packed: &[u8], bytes_max: usize) -> Result<Vec<u8>, CodingError> {
        match self {
            Coding::Gzip => read("gzip", MultiGzDecoder::new(packed), bytes_max),
            Coding::Zlib => read("zlib", ZlibDecoder::new(packed), bytes_max),
            Coding::Zstd => unpack_zstd(packed, bytes_max),
            Coding::Snappy if !packed.starts_with(SNAPPY_STREAM) => unpack_snappy(packed, bytes_max),
            Coding::Snappy | Coding::SnappyFramed => read("snappy", snap::read::FrameDecoder::new(packed), bytes_max),
            Coding::Lz4 => read("lz4", lz4_flex::frame::FrameDecoder::new(packed), bytes_max),
        }
    }

    /// Packs a message that stands in pieces. The level is that of gzip and zlib, 0 to 9; the others have one.
    ///
    /// # Errors
    ///
    /// It cannot be packed in this way: a block of snappy holds less than 4 GiB.
    pub fn pack<'a>(
        self,
        level: Option<u32>,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Vec<u8>, PackError> {
        let level = level.map_or(Compression::default(), |level| Compression::new(level.min(9)));
        let packed = match self {
            Coding::Gzip => written(GzEncoder::new(Vec::new(), level), pieces, GzEncoder::finish),
            Coding::Zlib => written(ZlibEncoder::new(Vec::new(), level), pieces, ZlibEncoder::finish),
            Coding::Zstd => {
                let all = joined(pieces);
                Ok(ruzstd::encoding::compress_to_vec(&all[..], ruzstd::encoding::CompressionLevel::Fastest))
            }
            Coding::Snappy => snap::raw::Encoder::new().compress_vec(&joined(pieces)).map_err(io::Error::other),
            Coding::SnappyFramed => written(snap::write::FrameEncoder::new(Vec::new()), pieces, |encoder| {
                encoder.into_inner().map_err(|error| error.into_error())
            }),
            Coding::Lz4 => written(lz4_flex::frame::FrameEncoder::new(Vec::new()), pieces, |encoder| {
                encoder.finish().map_err(io::Error::other)
            }),
        };
        packed.map_err(|error| PackError(error.to_string()))
    }
}

/// The pieces as one. A single one is not copied.
fn joined<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Cow<'a, [u8]> {
    let mut pieces = pieces.into_iter();
    let mut all = Cow::Borrowed(pieces.next().unwrap_or_default());
    for piece in pieces {
        all.to_mut().extend_from_slice(piece);
    }
    all
}

fn written<'a, W: Write>(
    mut encoder: W,
    pieces: impl IntoIterator<Item = &'a [u8]>,
    finish: impl FnOnce(W) -> io::Result<Vec<u8>>,
) -> io::Result<Vec<u8>> {
    for piece in pieces {
        encoder.write_all(piece)?;
    }
    finish(encoder)
}

fn corrupt(name: &str, why: impl fmt::Display) -> CodingError {
    CodingError::Corrupt(format!("invalid {name}: {why}"))
}

fn read(name: &str, packed: impl Read, bytes_max: usize) -> Result<Vec<u8>, CodingError> {
    let mut out = Vec::new();
    let mut limited = packed.take(bytes_max as u64 + 1);
    limited.read_to_end(&mut out).map_err(|error| corrupt(name, error))?;
    if out.len() > bytes_max { Err(CodingError::TooLarge(bytes_max)) } else { Ok(out) }
}

fn unpack_snappy(packed: &[u8], bytes_max: usize) -> Result<Vec<u8>, CodingError> {
    let len = snap::raw::decompress_len(packed).map_err(|error| corrupt("snappy", error))?;
    if len > bytes_max {
        return Err(CodingError::TooLarge(bytes_max));
    }
    // A block unpacks to at most some twenty times its length: whoever says more lies.
    if len / 32 > packed.len() {
        return Err(corrupt("snappy", "the length is not that of the content"));
    }
    snap::raw::Decoder::new().decompress_vec(packed).map_err(|error| corrupt("snappy", error))
}

fn unpack_zstd(mut packed: &[u8], bytes_max: usize) -> Result<Vec<u8>, CodingError> {
    let mut out = Vec::new();
    while !packed.is_empty() {
        let decoder = ruzstd::decoding::StreamingDecoder::new_with_max_window_size(&mut packed, ZSTD_WINDOW_BYTES_MAX);
        let mut decoder = decoder.map_err(|error| corrupt("zstd", error))?;
        let room = (bytes_max - out.len()) as u64;
        let mut limited = (&mut decoder).take(room + 1);
        limited.read_to_end(&mut out).map_err(|error| corrupt("zstd", error))?;
        if out.len() > bytes_max {
            return Err(CodingError::TooLarge(bytes_max));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Coding; 6] =
        [Coding::Gzip, Coding::Zlib, Coding::Zstd, Coding::Snappy, Coding::SnappyFramed, Coding::Lz4];

    #[test]
    fn a_bomb_is_not_unpacked() {
        let zeros = vec![0; 64 << 20];
        for coding in ALL {
            let packed = coding.pack(None, [&zeros[..]]).unwrap();
            assert!(packed.len() < 8 << 20, "{coding:?}: {}", packed.len());
            assert_eq!(coding.unpack(&packed, 1 << 20), Err(CodingError::TooLarge(1 << 20)), "{coding:?}");
        }
    }

    #[test]
    fn a_length_that_is_a_lie_costs_no_memory() {
        let packed = [&[0x80, 0x80, 0x80, 0x80, 0x04][..], b"x"].concat();
        assert!(matches!(Coding::Snappy.unpack(&packed, usize::MAX >> 1), Err(CodingError::Corrupt(_))));
    }

    #[test]
    fn snappy_is_told_from_its_framing() {
        let packed = Coding::SnappyFramed.pack(None, [&b"hello"[..]]).unwrap();
        assert_eq!(Coding::Snappy.unpack(&packed, 5), Ok(b"hello".to_vec()));
    }

    #[test]
    fn streams_may_follow_each_other() {
        for coding in [Coding::Gzip, Coding::Zstd] {
            let packed = ["one ", "two"].map(|text| coding.pack(None, [text.as_bytes()]).unwrap()).concat();
            assert_eq!(coding.unpack(&packed, 7), Ok(b"one two".to_vec()), "{coding:?}");
            assert_eq!(coding.unpack(&packed, 6), Err(CodingError::TooLarge(6)), "{coding:?}");
        }
    }

    #[test]
    fn what_cannot_be_packed_is_an_error_and_no_empty_message() {
        let fails = |_| Err(io::Error::from(io::ErrorKind::StorageFull));
        let refused = written(Vec::new(), [&b"x"[..]], fails);
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::StorageFull);
        // Beyond what its length of four bytes can say. The system gives no memory for zeros that are not looked at.
        let long = vec![0; 1 << 32];
        let refused = Coding::Snappy.pack(None, [&long[..]]).unwrap_err().to_string();
        assert!(refused.starts_with("the message cannot be packed: snappy: "), "{refused}");
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3000), 0..5), level in 0u32..12) {
            let all = pieces.concat();
            for coding in ALL {
                let packed = coding.pack(Some(level), pieces.iter().map(|piece| &piece[..])).unwrap();
                prop_assert_eq!(coding.unpack(&packed, all.len()), Ok(all.clone()), "{:?}", coding);
                if !all.is_empty() {
                    prop_assert_eq!(coding.unpack(&packed, all.len() - 1), Err(CodingError::TooLarge(all.len() - 1)), "{:?}", coding);
                }
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, at: usize, bit in 0u8..8) {
            for coding in ALL {
                let _ = coding.unpack(&bytes, 1 << 16);
                let mut packed = coding.pack(None, [&bytes[..]]).unwrap();
                if !packed.is_empty() {
                    let at = at % packed.len();
                    packed[at] ^= 1 << bit;
                    let _ = coding.unpack(&packed, 1 << 16);
                }
            }
        }
    }
}
