//! Remote write 1 and back, written for these tests alone.

/// A sample as it stands in a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    /// The labels as `{name="value",...}` in the order of the request.
    pub(super) series: String,
    pub(super) value: f64,
    pub(super) time_ms: i64,
}

/// The bits of a staleness marker.
pub(super) const STALE: u64 = 0x7ff0_0000_0000_0002;

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A field of bytes.
pub(super) fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A series with one sample, as a field of a request.
pub(super) fn put_series(out: &mut Vec<u8>, labels: &[(&str, &str)], value: f64, time_ms: i64) {
    let mut series = Vec::new();
    for (name, value) in labels {
        let mut label = Vec::new();
        put_bytes(&mut label, 1, name.as_bytes());
        put_bytes(&mut label, 2, value.as_bytes());
        put_bytes(&mut series, 1, &label);
    }
    let mut sample = vec![1 << 3 | 1];
    sample.extend_from_slice(&value.to_le_bytes());
    sample.push(2 << 3);
    put_varint(&mut sample, time_ms as u64);
    put_bytes(&mut series, 2, &sample);
    put_bytes(out, 1, &series);
}

/// A message as it stands in the body of a request.
pub(super) fn compress(message: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(message).expect("a message of a size that can be compressed")
}

/// What stands in the body of a request. Only a correct one is expected here.
pub(super) fn decode(body: &[u8]) -> Vec<Sample> {
    let message = snap::raw::Decoder::new().decompress_vec(body).expect("a body in snappy");
    let mut samples = Vec::new();
    for (field, series) in fields(&message) {
        assert_eq!(field, 1, "a request holds series");
        let (mut name, mut found) = (String::from("{"), Vec::new());
        for (field, content) in fields(series.bytes()) {
            match field {
                1 => {
                    let label: Vec<&str> = fields(content.bytes())
                        .map(|(_, text)| std::str::from_utf8(text.bytes()).expect("a label is text"))
                        .collect();
                    let [label, value] = label[..] else { panic!("a label has a name and a value") };
                    let comma = if name.len() > 1 { "," } else { "" };
                    name.push_str(&format!("{comma}{label}={value:?}"));
                }
                2 => {
                    let (mut value, mut time_ms) = (0.0, 0);
                    for (field, content) in fields(content.bytes()) {
                        match (field, content) {
                            (1, Field::Double(bits)) => value = f64::from_bits(bits),
                            (2, Field::Number(number)) => time_ms = number as i64,
                            other => panic!("a sample has a value and a time: {other:?}"),
                        }
                    }
                    found.push((value, time_ms));
                }
                other => panic!("a series has labels and samples: {other}"),
            }
        }
        name.push('}');
        samples.extend(found.into_iter().map(|(value, time_ms)| Sample { series: name.clone(), value, time_ms }));
    }
    samples
}

#[derive(Clone, Copy, Debug)]
enum Field<'m> {
    Number(u64),
    Double(u64),
    Bytes(&'m [u8]),
}

impl<'m> Field<'m> {
    fn bytes(self) -> &'m [u8] {
        match self {
            Field::Bytes(bytes) => bytes,
            other => panic!("bytes, not {other:?}"),
        }
    }
}

/// The fields of a message, with their numbers.
fn fields(mut message: &[u8]) -> impl Iterator<Item = (u64, Field<'_>)> {
    std::iter::from_fn(move || {
        if message.is_empty() {
            return None;
        }
        let key = varint(&mut message);
        let field = match key & 7 {
            0 => Field::Number(varint(&mut message)),
            1 => Field::Double(u64::from_le_bytes(take(&mut message, 8).try_into().expect("eight bytes"))),
            2 => {
                let len = varint(&mut message) as usize;
                Field::Bytes(take(&mut message, len))
            }
            other => panic!("no field of type {other} stands in a request"),
        };
        Some((key >> 3, field))
    })
}

fn take<'m>(message: &mut &'m [u8], len: usize) -> &'m [u8] {
    let (taken, rest) = message.split_at(len);
    *message = rest;
    taken
}

fn varint(message: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let byte = take(message, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

#[test]
fn what_is_written_is_read() {
    let mut message = Vec::new();
    put_series(&mut message, &[("__name__", "a"), ("b", "\"")], -1.5, 1_700_000_000_123);
    put_series(&mut message, &[("__name__", "c")], f64::INFINITY, 0);
    let sample = |series: &str, value, time_ms| Sample { series: series.to_owned(), value, time_ms };
    let expected =
        [sample(r#"{__name__="a",b="\""}"#, -1.5, 1_700_000_000_123), sample(r#"{__name__="c"}"#, f64::INFINITY, 0)];
    assert_eq!(decode(&compress(&message)), expected);
}
