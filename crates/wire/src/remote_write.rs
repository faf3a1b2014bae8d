//! Prometheus remote write 1: `prometheus.WriteRequest` of the remote write specification 1.0.
//!
//! A request is written as a run of its top fields, so that requests join by concatenation: a record holds one or more
//! of them, and the sender joins records without decoding them.

use corten_signal::Labels;
use corten_signal::labels::{put_varint, varint_len};
use corten_signal::metrics::{Exemplar, Histogram, HistogramCounts, Metadata, MetricType, ResetHint, Span};

use crate::exposition::ExemplarLabels;
use crate::histogram::{SCHEMA_MAX, has_custom_buckets, limit_schema, validate};
pub use crate::intake::{DecodeError, DecodeOptions, Decoded};
use crate::intake::{Intake, RawLabels};
use crate::proto::{
    Field, Fields, ProtoError, put_double, put_double_always, put_doubles, put_int64, put_message, put_sint32,
    put_sint64s, put_str, put_uint64, put_uint64_always,
};
use crate::protobuf_exposition::read_span;

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

/// Appends a `TimeSeries` with one native histogram. One with custom buckets cannot be said in this protocol: it is left
/// out. Whether it was appended.
#[must_use]
pub fn push_histogram(out: &mut Vec<u8>, labels: Labels<'_>, histogram: &Histogram, timestamp_ms: i64) -> bool {
    if has_custom_buckets(histogram) {
        return false;
    }
    put_message(out, 1, |out| {
        out.extend_from_slice(labels.as_encoded());
        put_message(out, 4, |out| put_histogram(out, histogram, timestamp_ms, 0));
    });
    true
}

/// Appends a `TimeSeries` with one exemplar.
pub fn push_exemplar(out: &mut Vec<u8>, labels: Labels<'_>, exemplar: &Exemplar) {
    put_message(out, 1, |out| {
        out.extend_from_slice(labels.as_encoded());
        put_message(out, 3, |out| {
            for (name, value) in &exemplar.labels {
                put_message(out, 1, |out| {
                    put_str(out, 1, name);
                    put_str(out, 2, value);
                });
            }
            put_double(out, 2, exemplar.value);
            put_int64(out, 3, exemplar.timestamp_ms);
        });
    });
}

/// Appends a `MetricMetadata`: what is known of a family.
pub fn push_metadata(out: &mut Vec<u8>, metadata: &Metadata) {
    put_message(out, 3, |out| {
        put_uint64(out, 1, type_number(metadata.metric_type));
        put_str(out, 2, &metadata.family);
        put_str(out, 4, &metadata.help);
        put_str(out, 5, &metadata.unit);
    });
}

/// The number of a type, which is the same in both protocols.
pub(crate) fn type_number(metric_type: MetricType) -> u64 {
    match metric_type {
        MetricType::Unknown => 0,
        MetricType::Counter => 1,
        MetricType::Gauge => 2,
        MetricType::Histogram => 3,
        MetricType::GaugeHistogram => 4,
        MetricType::Summary => 5,
        MetricType::Info => 6,
        MetricType::StateSet => 7,
    }
}

/// Writes the fields of a `Histogram`, which are the same in both protocols but for the start time.
pub(crate) fn put_histogram(out: &mut Vec<u8>, histogram: &Histogram, timestamp_ms: i64, start_ms: i64) {
    let h = histogram;
    let put_spans = |out: &mut Vec<u8>, field: u32, spans: &[Span]| {
        for span in spans {
            put_message(out, field, |out| {
                put_sint32(out, 1, span.offset);
                put_uint64(out, 2, u64::from(span.length));
            });
        }
    };
    // Which of the fields for a count stands there says what kind of histogram it is, so they stand there for 0, too.
    match &h.counts {
        HistogramCounts::Int { count, .. } => put_uint64_always(out, 1, *count),
        HistogramCounts::Float { count, .. } => put_double_always(out, 2, *count),
    }
    put_double(out, 3, h.sum);
    put_sint32(out, 4, h.schema);
    put_double(out, 5, h.zero_threshold);
    match &h.counts {
        HistogramCounts::Int { zero_count, .. } => put_uint64_always(out, 6, *zero_count),
        HistogramCounts::Float { zero_count, .. } => put_double_always(out, 7, *zero_count),
    }
    put_spans(out, 8, &h.negative_spans);
    match &h.counts {
        HistogramCounts::Int { negative_deltas, .. } => put_sint64s(out, 9, negative_deltas),
        HistogramCounts::Float { negative_counts, .. } => put_doubles(out, 10, negative_counts),
    }
    put_spans(out, 11, &h.positive_spans);
    match &h.counts {
        HistogramCounts::Int { positive_deltas, .. } => put_sint64s(out, 12, positive_deltas),
        HistogramCounts::Float { positive_counts, .. } => put_doubles(out, 13, positive_counts),
    }
    let hint = match h.reset_hint {
        ResetHint::Unknown => 0,
        ResetHint::Yes => 1,
        ResetHint::No => 2,
        ResetHint::Gauge => 3,
    };
    put_uint64(out, 14, hint);
    put_int64(out, 15, timestamp_ms);
    put_doubles(out, 16, &h.custom_values);
    put_int64(out, 17, start_ms);
}

/// Reads a `WriteRequest`.
///
/// A series without a name, with labels that are not text, or with a label that stands twice is left out and counted;
/// metadata is not looked at, because it belongs to no series. Everything else that is wrong makes the whole request
/// wrong. Resolutions that are too high are lowered.
///
/// # Errors
///
/// Where the message is broken, too large, has a histogram that is not valid, or a sample that lies too far ahead.
pub fn decode_write_request(message: &[u8], options: &DecodeOptions) -> Result<Decoded, DecodeError> {
    let mut intake = Intake::new(options);
    let mut decoded = Decoded::default();
    let mut labels = RawLabels::default();
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next()? {
        if field.number == 1 {
            decode_series(field.message()?, options, &mut labels, &mut intake, &mut decoded)?;
        }
    }
    decoded.parts = intake.finish();
    Ok(decoded)
}

fn decode_series(
    series: Fields<'_>,
    options: &DecodeOptions,
    labels: &mut RawLabels,
    intake: &mut Intake<'_>,
    decoded: &mut Decoded,
) -> Result<(), DecodeError> {
    labels.clear();
    let mut fields = series;
    while let Some(field) = fields.next()? {
        match field.number {
            1 => {
                let (name, value) = field.pair()?;
                labels.push(name, value);
            }
            2..=4 => decoded.seen += 1,
            _ => {}
        }
    }
    if let Err(invalid) = labels.begin(intake)? {
        decoded.invalid += 1;
        decoded.error(options, || labels.error(invalid));
        return Ok(());
    }
    let mut fields = series;
    while let Some(field) = fields.next()? {
        match field.number {
            2 => {
                let (time_ms, value) = read_sample(&field)?;
                if !intake.is_in_bounds(time_ms) {
                    return Err(DecodeError::OutOfBounds);
                }
                intake.sample(time_ms, value)?;
                decoded.samples += 1;
            }
            3 => {
                let (time_ms, value, exemplar_labels) = read_exemplar(&field, intake)?;
                if intake.exemplar(time_ms, value, exemplar_labels)? {
                    decoded.exemplars += 1;
                } else {
                    decoded.exemplars_left_out += 1;
                }
            }
            4 => {
                let (histogram, time_ms) = read_histogram(&field, intake)?;
                if !intake.is_in_bounds(time_ms) {
                    return Err(DecodeError::OutOfBounds);
                }
                intake.histogram(time_ms, accept_histogram(histogram)?);
                decoded.histograms += 1;
            }
            _ => {}
        }
    }
    Ok(())
}

/// `Sample`: time and value.
pub(crate) fn read_sample(field: &Field<'_>) -> Result<(i64, f64), ProtoError> {
    let (mut time_ms, mut value) = (0, 0.0);
    let mut fields = field.message()?;
    while let Some(field) = fields.next()? {
        match field.number {
            1 => value = field.double()?,
            2 => time_ms = field.int64()?,
            _ => {}
        }
    }
    Ok((time_ms, value))
}

/// What an exemplar costs before it is known whether it is kept, in bytes for each byte of its message: an empty label
/// has two bytes and takes two references.
const EXEMPLAR_COST: usize = size_of::<(Box<str>, Box<str>)>() / 2;

/// `Exemplar`: time, value, labels.
fn read_exemplar(field: &Field<'_>, intake: &mut Intake<'_>) -> Result<(i64, f64, ExemplarLabels), DecodeError> {
    let (mut time_ms, mut value, mut labels) = (0, 0.0, Vec::new());
    intake.charge(EXEMPLAR_COST * field.bytes()?.len())?;
    let mut fields = field.message()?;
    while let Some(field) = fields.next()? {
        match field.number {
            1 => {
                let (name, value) = field.pair()?;
                labels.push((Box::from(String::from_utf8_lossy(name)), Box::from(String::from_utf8_lossy(value))));
            }
            2 => value = field.double()?,
            3 => time_ms = field.int64()?,
            _ => {}
        }
    }
    labels.sort();
    Ok((time_ms, value, labels))
}

/// What a histogram costs at most, in bytes for each byte of its message: a packed delta of one byte takes eight.
const HISTOGRAM_COST: usize = 8;

/// `Histogram`, in the fields of either protocol: the histogram, unchecked, and its time.
pub(crate) fn read_histogram(field: &Field<'_>, intake: &mut Intake<'_>) -> Result<(Histogram, i64), DecodeError> {
    intake.charge(size_of::<Histogram>() + 64 + HISTOGRAM_COST * field.bytes()?.len())?;
    let (mut count, mut count_float, mut zero_count, mut zero_count_float) = (0, 0.0, 0, 0.0);
    let (mut positive_deltas, mut negative_deltas) = (Vec::new(), Vec::new());
    let (mut positive_counts, mut negative_counts) = (Vec::new(), Vec::new());
    let (mut is_float, mut time_ms) = (false, 0);
    let mut histogram = Histogram {
        schema: 0,
        zero_threshold: 0.0,
        sum: 0.0,
        reset_hint: ResetHint::Unknown,
        positive_spans: Vec::new(),
        negative_spans: Vec::new(),
        counts: HistogramCounts::Int {
            count: 0,
            zero_count: 0,
            positive_deltas: Vec::new(),
            negative_deltas: Vec::new(),
        },
        custom_values: Vec::new(),
    };
    let mut fields = field.message()?;
    while let Some(field) = fields.next()? {
        match field.number {
            1 => (count, is_float) = (field.uint64()?, false),
            2 => (count_float, is_float) = (field.double()?, true),
            3 => histogram.sum = field.double()?,
            4 => histogram.schema = field.sint32()?,
            5 => histogram.zero_threshold = field.double()?,
            6 => (zero_count, zero_count_float) = (field.uint64()?, 0.0),
            7 => (zero_count, zero_count_float) = (0, field.double()?),
            8 => histogram.negative_spans.push(read_span(&field)?),
            9 => field.push_sint64s(&mut negative_deltas)?,
            10 => field.push_doubles(&mut negative_counts)?,
            11 => histogram.positive_spans.push(read_span(&field)?),
            12 => field.push_sint64s(&mut positive_deltas)?,
            13 => field.push_doubles(&mut positive_counts)?,
            14 => {
                histogram.reset_hint = match field.uint64()? {
                    1 => ResetHint::Yes,
                    2 => ResetHint::No,
                    3 => ResetHint::Gauge,
                    _ => ResetHint::Unknown,
                }
            }
            15 => time_ms = field.int64()?,
            16 => field.push_doubles(&mut histogram.custom_values)?,
            _ => {}
        }
    }
    // Of the two kinds of counts, those are the histogram's that go with its total.
    histogram.counts = if is_float {
        HistogramCounts::Float { count: count_float, zero_count: zero_count_float, positive_counts, negative_counts }
    } else {
        HistogramCounts::Int { count, zero_count, positive_deltas, negative_deltas }
    };
    Ok((histogram, time_ms))
}

/// A histogram as it is taken: valid, and of a resolution that is used.
pub(crate) fn accept_histogram(mut histogram: Histogram) -> Result<Histogram, DecodeError> {
    limit_schema(&mut histogram, SCHEMA_MAX)?;
    validate(&histogram)?;
    Ok(histogram)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::testing::{exponential, int};
    use crate::intake::testing::{block, show};
    use crate::proto::{from_hex, put_bytes};
    use corten_signal::metrics::STALE_NAN;
    use proptest::prelude::*;

    /// A series of raw labels, with what `more` writes.
    fn series(out: &mut Vec<u8>, labels: &[(&[u8], &[u8])], more: impl FnOnce(&mut Vec<u8>)) {
        put_message(out, 1, |out| {
            for (name, value) in labels {
                put_message(out, 1, |out| {
                    put_bytes(out, 1, name);
                    put_bytes(out, 2, value);
                });
            }
            more(out);
        });
    }

    fn sample(out: &mut Vec<u8>, value: f64, time_ms: i64) {
        put_message(out, 2, |out| {
            put_double(out, 1, value);
            put_int64(out, 2, time_ms);
        });
    }

    #[test]
    fn a_sample_is_a_time_series_of_the_specification() {
        let block = block(&[&[("a", "b")]]);
        let mut out = Vec::new();
        push_sample(&mut out, block.labels(0), 1.5, 300);
        assert_eq!(out, b"\x0a\x16\x0a\x06\x0a\x01a\x12\x01b\x12\x0c\x09\0\0\0\0\0\0\xf8\x3f\x10\xac\x02");
        out.clear();
        push_sample(&mut out, block.labels(0), 0.0, -1);
        assert_eq!(out[out.len() - 11..], *b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    }

    /// A histogram of whole counts with all that it can have.
    fn whole() -> Histogram {
        Histogram {
            schema: -2,
            zero_threshold: 0.5,
            sum: -1.5,
            reset_hint: ResetHint::No,
            positive_spans: vec![Span { offset: -3, length: 2 }, Span { offset: 4, length: 1 }],
            negative_spans: vec![Span { offset: 300, length: 2 }],
            counts: HistogramCounts::Int {
                count: 14,
                zero_count: 3,
                positive_deltas: vec![1, 2, -2],
                negative_deltas: vec![4, -2],
            },
            custom_values: Vec::new(),
        }
    }

    /// One of float counts, whose sum is a staleness marker.
    fn float() -> Histogram {
        Histogram {
            schema: 3,
            zero_threshold: 0.0,
            sum: STALE_NAN,
            reset_hint: ResetHint::Gauge,
            positive_spans: vec![Span { offset: 0, length: 2 }],
            negative_spans: vec![Span { offset: 1, length: 1 }],
            counts: HistogramCounts::Float {
                count: 2.5,
                zero_count: 0.0,
                positive_counts: vec![1.0, 0.5],
                negative_counts: vec![1.0],
            },
            custom_values: Vec::new(),
        }
    }

    /// The bytes are those that the reference writes for the same content.
    #[test]
    fn what_is_written_is_what_the_reference_writes() {
        let block = block(&[&[("__name__", "h"), ("a", "ä")]]);
        let labels = block.labels(0);
        let exemplar = |value: f64, timestamp_ms: i64, labels: &[(&str, &str)]| Exemplar {
            index: 0,
            timestamp_ms,
            value,
            labels: labels.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect(),
        };
        let metadata = Metadata {
            family: "f".to_owned(),
            metric_type: MetricType::StateSet,
            help: "h".to_owned(),
            unit: "u".to_owned(),
        };
        let mut out = Vec::new();
        let mut check = |write: &dyn Fn(&mut Vec<u8>), want: &str| {
            out.clear();
            write(&mut out);
            assert_eq!(out, from_hex(want));
        };
        check(
            &|out| assert!(push_histogram(out, labels, &whole(), 1_700_000_000_123)),
            "0a570a0d0a085f5f6e616d655f5f1201680a070a01611202c3a4223d080e19000000000000f8bf200329000000000000e03f3003420508d80410024a0208035a04080510025a04080810016203020403700278fbd095ffbc31",
        );
        check(
            &|out| assert!(push_histogram(out, labels, &float(), -5)),
            "0a6a0a0d0a085f5f6e616d655f5f1201680a070a01611202c3a4225011000000000000044019020000000000f07f20063900000000000000004204080210015208000000000000f03f5a0210026a10000000000000f03f000000000000e03f700378fbffffffffffffffff01",
        );
        check(
            &|out| push_exemplar(out, labels, &exemplar(2.5, 77, &[("trace_id", "x"), ("z", "y")])),
            "0a3c0a0d0a085f5f6e616d655f5f1201680a070a01611202c3a41a220a0d0a0874726163655f69641201780a060a017a120179110000000000000440184d",
        );
        check(
            &|out| push_exemplar(out, labels, &exemplar(0.0, 0, &[])),
            "0a1a0a0d0a085f5f6e616d655f5f1201680a070a01611202c3a41a00",
        );
        check(
            &|out| push_sample(out, labels, 2.5, -77),
            "0a2e0a0d0a085f5f6e616d655f5f1201680a070a01611202c3a4121409000000000000044010b3ffffffffffffffff01",
        );
        check(&|out| push_metadata(out, &metadata), "1a0b08071201662201682a0175");
    }

    #[test]
    fn what_the_reference_writes_is_read() {
        let request = from_hex(
            "0ae7010a0d0a085f5f6e616d655f5f1201680a070a01611202c3a4120b09000000000000f03f1005120210061a0b11000000000000004018052238080e19000000000000f8bf200329000000000000e03f3003420508d80410024a0208035a04080510025a0408081001620302040370027805224711000000000000044019020000000000f07f20063900000000000000004204080210015208000000000000f03f5a0210026a10000000000000f03f000000000000e03f70037806222c0803190000000000001040206930005a021002620202027807820110000000000000e03f0000000000001c401a050801120166",
        );
        let decoded = decode_write_request(&request, &DecodeOptions::default()).unwrap();
        let custom = Histogram { sum: 4.0, custom_values: vec![0.5, 7.0], ..int(-53, &[(0, 2)], &[1, 1]) };
        let labels = r#"{__name__="h", a="ä"}"#;
        let want = [
            format!("{labels} 3ff0000000000000 @5"),
            format!("{labels} 0 @6"),
            format!("{labels} {:?} @5", whole()),
            format!("{labels} {:?} @6", float()),
            format!("{labels} {custom:?} @7"),
            format!("{labels} # [] 4000000000000000 @5"),
        ];
        assert_eq!(show(&decoded.parts), want);
        assert_eq!(decoded.parts[0].histograms[1].histogram.sum.to_bits(), STALE_NAN.to_bits());
    }

    #[test]
    fn a_histogram_with_custom_buckets_is_left_out() {
        let block = block(&[&[("a", "b")]]);
        let mut out = Vec::new();
        let custom = Histogram { custom_values: vec![1.0], ..int(-53, &[(0, 1)], &[1]) };
        assert!(!push_histogram(&mut out, block.labels(0), &custom, 1));
        assert!(out.is_empty());
        assert!(push_histogram(&mut out, block.labels(0), &int(0, &[(0, 1)], &[1]), 1));
    }

    #[test]
    fn series_with_invalid_labels_are_left_out_and_counted() {
        let mut out = Vec::new();
        let good: &[(&[u8], &[u8])] = &[(b"b", b"2"), (b"__name__", b"up"), (b"empty", b"")];
        series(&mut out, good, |out| sample(out, 1.0, 5));
        for labels in [
            &[][..],
            &[(&b"a"[..], &b"b"[..])],
            &[(b"__name__", b"")],
            &[(b"__name__", b"up"), (b"", b"x")],
            &[(b"__name__", b"up"), (b"a", b"1"), (b"a", b"2")],
            &[(b"__name__", b"up"), (b"a", b"\xff")],
            &[(b"__name__", b"up"), (b"a", b"1"), (b"b", b"1"), (b"c", b"1")],
        ] {
            series(&mut out, labels, |out| sample(out, 1.0, 5));
        }
        // Metadata and fields of later versions are not looked at.
        push_metadata(&mut out, &Metadata { family: "up".to_owned(), ..Metadata::default() });
        put_str(&mut out, 99, "later");
        let options = DecodeOptions { labels_per_series_max: 3, errors_max: 5, ..DecodeOptions::default() };
        let decoded = decode_write_request(&out, &options).unwrap();
        assert_eq!(show(&decoded.parts), [r#"{__name__="up", b="2"} 3ff0000000000000 @5"#]);
        assert_eq!((decoded.invalid, decoded.errors_total, decoded.samples), (7, 7, 1));
        assert_eq!(decoded.seen, 8, "what is left out was seen");
        let want = [
            "invalid metric name or labels, got {}",
            r#"invalid metric name or labels, got {a="b"}"#,
            r#"invalid metric name or labels, got {__name__=""}"#,
            r#"invalid metric name or labels, got {="x", __name__="up"}"#,
            r#"invalid labels for series, labels {__name__="up", a="1", a="2"}, duplicated label a"#,
        ];
        assert_eq!(decoded.errors, want);
    }

    #[test]
    fn what_lies_too_far_ahead_refuses_the_request_but_for_an_exemplar() {
        let options = DecodeOptions { latest_ms: 100, ..DecodeOptions::default() };
        let up: &[(&[u8], &[u8])] = &[(b"__name__", b"up")];
        let mut out = Vec::new();
        series(&mut out, up, |out| {
            sample(out, 1.0, 100);
            for time in [100, 101] {
                put_message(out, 3, |out| put_int64(out, 3, time));
            }
        });
        let decoded = decode_write_request(&out, &options).unwrap();
        assert_eq!((decoded.samples, decoded.exemplars, decoded.exemplars_left_out), (1, 1, 1));
        for write in [
            |out: &mut Vec<u8>| sample(out, 1.0, 101),
            |out: &mut Vec<u8>| put_message(out, 4, |out| put_histogram(out, &int(0, &[], &[]), 101, 0)),
        ] {
            out.clear();
            series(&mut out, up, write);
            assert_eq!(decode_write_request(&out, &options).unwrap_err(), DecodeError::OutOfBounds);
        }
    }

    #[test]
    fn an_invalid_histogram_refuses_the_request() {
        let mut out = Vec::new();
        let bad = int(0, &[(0, 2)], &[1]);
        series(&mut out, &[(b"__name__", b"h")], |out| put_message(out, 4, |out| put_histogram(out, &bad, 1, 0)));
        let error = decode_write_request(&out, &DecodeOptions::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "positive side: spans need 2 buckets, have 1 buckets: histogram spans specify different number of buckets than provided"
        );
    }

    #[test]
    fn a_resolution_that_is_too_high_is_lowered() {
        let mut out = Vec::new();
        let fine = int(9, &[(1, 2)], &[1, 0]);
        series(&mut out, &[(b"__name__", b"h")], |out| put_message(out, 4, |out| put_histogram(out, &fine, 1, 0)));
        let decoded = decode_write_request(&out, &DecodeOptions::default()).unwrap();
        assert_eq!(*decoded.parts[0].histograms[0].histogram, int(8, &[(1, 1)], &[2]));
    }

    #[test]
    fn a_request_cannot_make_much_of_little() {
        let options = DecodeOptions { decoded_bytes_max: 100_000, ..DecodeOptions::default() };
        let up: &[(&[u8], &[u8])] = &[(b"__name__", b"up")];
        for field in [2u32, 3, 4] {
            let mut out = Vec::new();
            series(&mut out, up, |out| (0..20_000).for_each(|_| put_bytes(out, field, b"")));
            assert_eq!(decode_write_request(&out, &options).unwrap_err(), DecodeError::TooLarge(100_000), "{field}");
        }
        let mut out = Vec::new();
        series(&mut out, up, |out| put_message(out, 4, |out| put_bytes(out, 12, &[0; 20_000])));
        assert_eq!(decode_write_request(&out, &options).unwrap_err(), DecodeError::TooLarge(100_000));
        let mut out = Vec::new();
        series(&mut out, up, |out| put_message(out, 3, |out| (0..20_000).for_each(|_| put_bytes(out, 1, b""))));
        assert_eq!(decode_write_request(&out, &options).unwrap_err(), DecodeError::TooLarge(100_000));
        let value = vec![b'x'; 10_000];
        let mut out = Vec::new();
        (0..20).for_each(|_| series(&mut out, &[(b"__name__", b"up"), (b"a", &value)], |_| {}));
        assert_eq!(decode_write_request(&out, &options).unwrap_err(), DecodeError::TooLarge(100_000));
    }

    #[test]
    fn exemplars_come_behind_the_samples_of_their_series_whatever_time_they_are_of() {
        let up: &[(&[u8], &[u8])] = &[(b"__name__", b"up")];
        let mut out = Vec::new();
        // As Prometheus sends them: each item is a series of its own.
        for time in [1_700_000_000_000, 1] {
            series(&mut out, up, |out| put_message(out, 3, |out| put_int64(out, 3, time)));
        }
        series(&mut out, up, |out| sample(out, 1.0, 1_800_000_000_000));
        let decoded = decode_write_request(&out, &DecodeOptions::default()).unwrap();
        assert_eq!(
            show(&decoded.parts),
            [
                r#"{__name__="up"} 3ff0000000000000 @1800000000000"#,
                r#"{__name__="up"} # [] 0 @1700000000000"#,
                r#"{__name__="up"} # [] 0 @1"#,
            ]
        );
    }

    #[test]
    fn times_far_apart_keep_their_order_in_a_series() {
        let times = [i64::MIN, -1, 0, 1, 1 << 31, (1 << 32) - 1, 1 << 32, 1_700_000_000_000, i64::MAX];
        let mut out = Vec::new();
        series(&mut out, &[(b"__name__", b"up")], |out| times.iter().for_each(|t| sample(out, 0.0, *t)));
        let decoded = decode_write_request(&out, &DecodeOptions::default()).unwrap();
        let back: Vec<i64> = decoded.parts.iter().flat_map(|p| p.samples.iter().map(|s| p.timestamp_ms(s))).collect();
        assert_eq!(back, times);
    }

    #[test]
    fn many_series_stand_in_several_blocks() {
        let mut out = Vec::new();
        for i in 0..70_000 {
            let name = format!("m{i}");
            series(&mut out, &[(b"__name__", name.as_bytes())], |out| sample(out, 1.0, 5));
        }
        let decoded = decode_write_request(&out, &DecodeOptions::default()).unwrap();
        assert_eq!(decoded.samples, 70_000);
        assert_eq!(decoded.parts.iter().map(|p| p.samples.len()).sum::<usize>(), 70_000);
        assert!(decoded.parts.len() >= 2);
        let last = decoded.parts.last().unwrap();
        let sample = last.samples.last().unwrap();
        assert_eq!(last.block.labels(sample.index).get("__name__"), Some("m69999"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            points in proptest::collection::vec((0u32..3, any::<u64>(), any::<i64>()), 0..20),
            histograms in proptest::collection::vec((exponential(), any::<i64>()), 0..4),
            exemplar in (proptest::collection::btree_map("[a-z]{1,5}", "\\PC{0,20}", 0..3), any::<u64>(), any::<i64>()),
        ) {
            let block = block(&[&[("__name__", "a")], &[("__name__", "b"), ("x", "y")], &[("__name__", "ä"), ("ö.ü", "\n")]]);
            let (mut out, mut want) = (Vec::new(), Vec::new());
            for (index, bits, time_ms) in points {
                push_sample(&mut out, block.labels(index), f64::from_bits(bits), time_ms);
                want.push(format!("{} {bits:x} @{time_ms}", block.labels(index)));
            }
            for (histogram, time_ms) in histograms {
                prop_assert!(push_histogram(&mut out, block.labels(1), &histogram, time_ms));
                want.push(format!("{} {histogram:?} @{time_ms}", block.labels(1)));
            }
            let labels: Vec<(Box<str>, Box<str>)> = exemplar.0.into_iter().map(|(n, v)| (n.into(), v.into())).collect();
            let exemplar = Exemplar { index: 2, timestamp_ms: exemplar.2, value: f64::from_bits(exemplar.1), labels };
            push_exemplar(&mut out, block.labels(2), &exemplar);
            want.push(format!("{} # {:?} {:x} @{}", block.labels(2), exemplar.labels, exemplar.value.to_bits(), exemplar.timestamp_ms));
            let decoded = decode_write_request(&out, &DecodeOptions::default()).unwrap();
            let mut back = show(&decoded.parts);
            back.sort();
            want.sort();
            prop_assert_eq!(back, want);
        }

        #[test]
        fn no_bytes_make_it_panic(message: Vec<u8>, at: prop::sample::Index, byte: u8, histogram in exponential()) {
            let options = DecodeOptions { decoded_bytes_max: 1 << 20, ..DecodeOptions::default() };
            let _ = decode_write_request(&message, &options);
            let mut framed = Vec::new();
            put_bytes(&mut framed, 1, &message);
            let _ = decode_write_request(&framed, &options);
            // And of a request that was well formed.
            let block = block(&[&[("__name__", "a"), ("b", "c")]]);
            let mut out = Vec::new();
            push_sample(&mut out, block.labels(0), 1.0, 2);
            prop_assert!(push_histogram(&mut out, block.labels(0), &histogram, 3));
            let exemplar = Exemplar { index: 0, timestamp_ms: 1, value: 2.0, labels: vec![("a".into(), "b".into())] };
            push_exemplar(&mut out, block.labels(0), &exemplar);
            let at = at.index(out.len());
            out[at] = byte;
            let _ = decode_write_request(&out, &options);
        }
    }
}
