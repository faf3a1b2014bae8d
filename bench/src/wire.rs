//! Walks a remote write 1 request by its field headers, without building anything.
//!
//! The format is `prometheus.WriteRequest` of `prompb/remote.proto` and `prompb/types.proto`: field 1 holds the
//! series, field 3 the metadata; a series has labels (1), samples (2), exemplars (3) and histograms (4).
//! This is written apart from the collector's own reader on purpose: what counts must not share its mistakes.

use std::fmt;

/// Why a message cannot be walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WireError {
    /// The message ends within a field.
    Truncated,
    /// A varint has more than ten bytes.
    Varint,
    /// A field number is zero or too large.
    FieldNumber,
    /// The wire type is a group or reserved, or not the one that the field has.
    WireType,
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "message ends within a field",
            Self::Varint => "varint is longer than ten bytes",
            Self::FieldNumber => "field number is out of range",
            Self::WireType => "unexpected wire type",
        })
    }
}

/// The value of one field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

impl<'a> Value<'a> {
    fn bytes(self) -> Result<&'a [u8], WireError> {
        if let Value::Bytes(bytes) = self { Ok(bytes) } else { Err(WireError::WireType) }
    }
}

/// The fields of one message, in order; it ends after the first error.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Walks the given message.
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Self(message)
    }

    fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(WireError::Truncated)?;
            self.0 = rest;
            // The tenth byte holds one bit; what stands above it is cut off, as every protobuf reader does.
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(WireError::Varint)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], WireError> {
        let length = usize::try_from(length).map_err(|_| WireError::Truncated)?;
        let (head, rest) = self.0.split_at_checked(length).ok_or(WireError::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(WireError::Truncated)?;
        self.0 = rest;
        Ok(*head)
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), WireError> {
        let key = self.varint()?;
        let number = key >> 3;
        if number == 0 || number > 0x1fff_ffff {
            return Err(WireError::FieldNumber);
        }
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(WireError::WireType),
        };
        Ok((number, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// One sample of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sample {
    /// The value's bits, since a stale marker is one certain NaN.
    pub(crate) bits: u64,
    /// Milliseconds since the epoch.
    pub(crate) timestamp_ms: i64,
}

/// The bits of the NaN that marks a series as gone (`model/value/value.go` of Prometheus).
pub(crate) const STALE_BITS: u64 = 0x7ff0_0000_0000_0002;

impl Sample {
    fn read(message: &[u8]) -> Result<Self, WireError> {
        // A default is not written, so that an absent value is 0.0 and an absent timestamp is 0.
        let mut sample = Self { bits: 0, timestamp_ms: 0 };
        for field in Fields::new(message) {
            match field? {
                (1, Value::Fixed64(bits)) => sample.bits = bits,
                (2, Value::Varint(timestamp)) => sample.timestamp_ms = timestamp.cast_signed(),
                (1 | 2, _) => return Err(WireError::WireType),
                _ => {}
            }
        }
        Ok(sample)
    }
}

/// One series of a request, still encoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Series<'a>(&'a [u8]);

impl<'a> Series<'a> {
    /// The value of the label, empty if the series has none of that name.
    pub(crate) fn label(&self, name: &str) -> Result<&'a [u8], WireError> {
        for field in Fields::new(self.0) {
            if let (1, label) = field? {
                let (mut found, mut value): (&[u8], &[u8]) = (&[], &[]);
                for part in Fields::new(label.bytes()?) {
                    match part? {
                        (1, part) => found = part.bytes()?,
                        (2, part) => value = part.bytes()?,
                        _ => {}
                    }
                }
                if found == name.as_bytes() {
                    return Ok(value);
                }
            }
        }
        Ok(&[])
    }

    /// Hands on each sample and counts the exemplars and histograms.
    pub(crate) fn contents(&self, mut sample: impl FnMut(Sample)) -> Result<(u64, u64), WireError> {
        let (mut exemplars, mut histograms) = (0, 0);
        for field in Fields::new(self.0) {
            match field? {
                (2, value) => sample(Sample::read(value.bytes()?)?),
                (3, _) => exemplars += 1,
                (4, _) => histograms += 1,
                _ => {}
            }
        }
        Ok((exemplars, histograms))
    }
}

/// Hands on each series of a request and returns the number of metadata entries.
pub(crate) fn walk<'a>(
    request: &'a [u8],
    mut series: impl FnMut(Series<'a>) -> Result<(), WireError>,
) -> Result<u64, WireError> {
    let mut metadata = 0;
    for field in Fields::new(request) {
        match field? {
            (1, value) => series(Series(value.bytes()?))?,
            (3, value) => {
                value.bytes()?;
                metadata += 1;
            }
            _ => {}
        }
    }
    Ok(metadata)
}

/// Writes messages for tests, byte by byte.
#[cfg(test)]
pub(crate) mod write {
    pub(crate) fn varint(out: &mut Vec<u8>, mut value: u64) {
        while value >= 0x80 {
            out.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }

    pub(crate) fn bytes(out: &mut Vec<u8>, number: u64, value: &[u8]) {
        varint(out, number << 3 | 2);
        varint(out, value.len() as u64);
        out.extend_from_slice(value);
    }

    pub(crate) fn series(labels: &[(&str, &str)], samples: &[(f64, i64)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, value) in labels {
            let mut label = Vec::new();
            bytes(&mut label, 1, name.as_bytes());
            bytes(&mut label, 2, value.as_bytes());
            bytes(&mut out, 1, &label);
        }
        for (value, timestamp) in samples {
            let mut sample = vec![1 << 3 | 1];
            sample.extend_from_slice(&value.to_bits().to_le_bytes());
            sample.push(2 << 3);
            varint(&mut sample, *timestamp as u64);
            bytes(&mut out, 2, &sample);
        }
        out
    }

    pub(crate) fn request(all: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for series in all {
            bytes(&mut out, 1, series);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Name and samples of each series.
    type Read = Vec<(Vec<u8>, Vec<Sample>)>;

    fn collect(request: &[u8]) -> Result<Read, WireError> {
        let mut all = Vec::new();
        walk(request, |series| {
            let mut samples = Vec::new();
            series.contents(|sample| samples.push(sample))?;
            all.push((series.label("__name__")?.to_vec(), samples));
            Ok(())
        })?;
        Ok(all)
    }

    #[test]
    fn a_handmade_request_is_read_to_the_last_sample() {
        // One series up{job="a"} 1 @1000, written down by hand from the format's description.
        let bytes = b"\x0a\x29\x0a\x0e\x0a\x08__name__\x12\x02up\x0a\x08\x0a\x03job\x12\x01a\
            \x12\x0c\x09\0\0\0\0\0\0\xf0\x3f\x10\xe8\x07";
        let mut bytes = bytes.to_vec();
        bytes[1] = (bytes.len() - 2) as u8;
        let samples = vec![Sample { bits: 1.0_f64.to_bits(), timestamp_ms: 1000 }];
        assert_eq!(collect(&bytes).unwrap(), [(b"up".to_vec(), samples)]);
    }

    #[test]
    fn defaults_that_are_not_written_are_zero_and_negative_timestamps_are_kept() {
        let mut series = Vec::new();
        write::bytes(&mut series, 2, &[]);
        series.extend(write::series(&[], &[(f64::from_bits(STALE_BITS), -5)]));
        let read = collect(&write::request(&[series])).unwrap();
        let expected = vec![Sample { bits: 0, timestamp_ms: 0 }, Sample { bits: STALE_BITS, timestamp_ms: -5 }];
        assert_eq!(read, [(Vec::new(), expected)]);
    }

    #[test]
    fn unknown_fields_are_skipped_and_metadata_exemplars_and_histograms_are_counted() {
        let mut series = write::series(&[("__name__", "a")], &[(1.0, 1)]);
        write::bytes(&mut series, 3, b"");
        write::bytes(&mut series, 4, b"");
        write::bytes(&mut series, 4, b"");
        write::bytes(&mut series, 99, b"later");
        let mut request = write::request(&[series]);
        request.extend([15 << 3 | 5, 1, 2, 3, 4, 14 << 3, 7]);
        write::bytes(&mut request, 3, b"");
        let mut counts = (0, 0);
        assert_eq!(walk(&request, |series| series.contents(|_| ()).map(|read| counts = read)), Ok(1));
        assert_eq!(counts, (1, 2));
    }

    #[test]
    fn damage_is_an_error_and_never_a_smaller_count() {
        let whole = write::request(&[write::series(&[("__name__", "a")], &[(1.0, 1)])]);
        for length in 1..whole.len() {
            assert_eq!(collect(&whole[..length]), Err(WireError::Truncated), "{length}");
        }
        assert_eq!(collect(&[0x02, 0x00]), Err(WireError::FieldNumber));
        assert_eq!(collect(&[0x0b]), Err(WireError::WireType));
        assert_eq!(collect(&[0x08, 0x01]), Err(WireError::WireType));
        assert_eq!(collect(&[0xff; 11]), Err(WireError::Varint));
        assert_eq!(collect(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), Err(WireError::Truncated));
    }

    proptest! {
        #[test]
        fn no_input_makes_the_walk_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = collect(&bytes);
            let _ = collect(&write::request(&[bytes]));
        }

        #[test]
        fn what_was_written_is_what_is_read(
            all in proptest::collection::vec(
                ("[a-z_]{0,12}", proptest::collection::vec((any::<u64>(), any::<i64>()), 0..5)), 0..8),
        ) {
            let request = write::request(&all.iter().map(|(name, samples)| {
                let samples: Vec<_> = samples.iter().map(|(bits, at)| (f64::from_bits(*bits), *at)).collect();
                write::series(&[("__name__", name), ("x", "y")], &samples)
            }).collect::<Vec<_>>());
            let read = collect(&request).unwrap();
            prop_assert_eq!(read.len(), all.len());
            for ((name, samples), (read_name, read_samples)) in all.iter().zip(&read) {
                prop_assert_eq!(name.as_bytes(), &read_name[..]);
                let samples: Vec<_> =
                    samples.iter().map(|&(bits, timestamp_ms)| Sample { bits, timestamp_ms }).collect();
                prop_assert_eq!(&samples, read_samples);
            }
        }
    }
}
