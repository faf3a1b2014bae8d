//! Prometheus remote write 1: `prometheus.WriteRequest` of the remote write specification 1.0.

use corten_signal::Labels;
use corten_signal::labels::{put_varint, varint_len};

/// Appends a `TimeSeries` with one sample to the `timeseries` field of a `WriteRequest`. A request is such fields one
/// after another, so requests join by concatenation.
#[inline]
pub fn push_sample(out: &mut Vec<u8>, labels: Labels<'_>, value: f64, timestamp_ms: i64) {
    let encoded = labels.as_encoded();
    // Negative times are sign-extended to ten bytes, as the format has it for int64.
    let time_len = varint_len(timestamp_ms as u64);
    let sample_len = 9 + 1 + time_len;
    let series_len = encoded.len() + 2 + sample_len;
    out.reserve(series_len + 12);
    out.push(0x0a);
    put_varint(out, series_len as u64);
    out.extend_from_slice(encoded);
    out.extend_from_slice(&[0x12, sample_len as u8, 0x09]);
    out.extend_from_slice(&value.to_le_bytes());
    out.push(0x10);
    put_varint(out, timestamp_ms as u64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use corten_signal::{BlockBuilder, LabelsBuilder};

    #[test]
    fn a_sample_is_a_time_series_of_the_specification() {
        let mut labels = LabelsBuilder::new();
        labels.push("a", "b");
        let mut block = BlockBuilder::new();
        block.push(&mut labels).unwrap();
        let mut out = Vec::new();
        push_sample(&mut out, block.labels(0), 1.5, 300);
        assert_eq!(out, b"\x0a\x16\x0a\x06\x0a\x01a\x12\x01b\x12\x0c\x09\0\0\0\0\0\0\xf8\x3f\x10\xac\x02");
        out.clear();
        push_sample(&mut out, block.labels(0), 0.0, -1);
        assert_eq!(out[out.len() - 11..], *b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    }
}
