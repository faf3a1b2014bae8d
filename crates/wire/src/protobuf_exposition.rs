//! The Prometheus protobuf exposition format: messages `io.prometheus.client.MetricFamily`, each with its length in
//! front.
//!
//! A body is taken a family at a time. The parts of a histogram or summary become series as in the text formats, and each
//! series is named to the sink in the text that [the text format](crate::text) has for it: so a sink remembers a series
//! in one way, whatever format it comes in.

use corten_signal::metrics::{Histogram, HistogramCounts, MetricType, ResetHint, Span};

use crate::exposition::{ParseError, SeriesText, TextSink, push_escaped, push_escaped_help, push_label_text};
use crate::float::push_open_metrics_float;
use crate::histogram::compact;
use crate::nhcb::Classic;
use crate::proto::{Field, Fields, ProtoError, take_varint};

/// The longest message of a family that is accepted, in bytes.
pub const FAMILY_BYTES_MAX: usize = 256 << 20;

/// The longest length in front of a message, in bytes: a message has less than 2^32.
const LENGTH_BYTES_MAX: usize = 5;

/// What is made of histograms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProtobufOptions {
    /// Whether native histograms are taken. Otherwise, what is native of a histogram is not looked at.
    pub native: bool,
    /// Whether a histogram that is native and has classic buckets, too, or that is converted, gives classic series as
    /// well.
    pub keep_classic: bool,
    /// Whether classic histograms become native ones with custom buckets.
    pub convert_classic: bool,
}

/// Parses a body in pieces.
#[derive(Debug)]
pub struct ProtobufParser {
    /// The start of a family whose end has not arrived, its length included.
    partial: Vec<u8>,
    walker: Walker,
}

impl ProtobufParser {
    /// A parser at the start of a body.
    pub fn new(options: ProtobufOptions) -> Self {
        ProtobufParser { partial: Vec::new(), walker: Walker { options, ..Walker::default() } }
    }

    /// Takes the next piece of the body.
    ///
    /// # Errors
    ///
    /// Of the format, with the name of the family where it is known, or of the sink. The parser is of no use afterwards.
    pub fn feed<S: TextSink>(&mut self, mut piece: &[u8], sink: &mut S) -> Result<(), S::Error> {
        loop {
            if self.partial.is_empty() {
                match frame(piece)? {
                    Frame::Whole { start, end } => {
                        self.walker.family(&piece[start..end], sink)?;
                        piece = &piece[end..];
                    }
                    Frame::Lacks(_) => {
                        self.partial.extend_from_slice(piece);
                        return Ok(());
                    }
                }
            } else {
                match frame(&self.partial)? {
                    Frame::Whole { start, end } => {
                        self.walker.family(&self.partial[start..end], sink)?;
                        self.partial.clear();
                    }
                    Frame::Lacks(_) if piece.is_empty() => return Ok(()),
                    Frame::Lacks(lacking) => {
                        // Only what the family lacks is copied.
                        let (now, later) = piece.split_at(lacking.min(piece.len()));
                        self.partial.extend_from_slice(now);
                        piece = later;
                    }
                }
            }
        }
    }

    /// Takes the end of the body.
    ///
    /// # Errors
    ///
    /// Where the body ends within a family, or of the sink.
    pub fn finish<S: TextSink>(&mut self, sink: &mut S) -> Result<(), S::Error> {
        match frame(&self.partial)? {
            Frame::Lacks(lacking) if !self.partial.is_empty() => {
                let found = self.partial.len();
                let needed = found + lacking;
                Err(error(format!(
                    "insufficient length of buffer, expected at least {needed} bytes, got {found} bytes"
                ))
                .into())
            }
            _ => sink.end(),
        }
    }
}

/// What stands at the front of a body.
enum Frame {
    /// A family, between these bytes.
    Whole { start: usize, end: usize },
    /// A part of one that lacks at least so many bytes.
    Lacks(usize),
}

fn frame(bytes: &[u8]) -> Result<Frame, ParseError> {
    let mut rest = &bytes[..bytes.len().min(LENGTH_BYTES_MAX)];
    let len = match take_varint(&mut rest) {
        Ok(len) => len,
        Err(ProtoError::Truncated) if bytes.len() < LENGTH_BYTES_MAX => return Ok(Frame::Lacks(1)),
        Err(_) => return Err(error("invalid varint encountered".to_owned())),
    };
    let start = bytes.len().min(LENGTH_BYTES_MAX) - rest.len();
    match usize::try_from(len) {
        Ok(len) if len <= FAMILY_BYTES_MAX => {
            let end = start + len;
            Ok(if end <= bytes.len() { Frame::Whole { start, end } } else { Frame::Lacks(end - bytes.len()) })
        }
        _ => Err(error(format!("a metric family of {len} bytes is longer than the limit of {FAMILY_BYTES_MAX} bytes"))),
    }
}

#[cold]
fn error(message: String) -> ParseError {
    ParseError { line: 0, message }
}

/// Takes families apart. What it holds is kept from metric to metric for its allocations.
#[derive(Debug, Default)]
struct Walker {
    options: ProtobufOptions,
    /// The texts of the labels of the metric at hand, and of the one before it.
    labels: Vec<u8>,
    last_labels: Vec<u8>,
    text: SeriesText,
    escaped: Vec<u8>,
    bounds: Bounds,
    classic: Classic,
}

/// What a family says of itself.
struct Family<'a> {
    name: &'a str,
    metric_type: MetricType,
}

/// What a metric holds; of its type's part only.
#[derive(Debug, Default)]
struct Metric<'a> {
    /// Labels of this metric and of the one before it, each with the end of its text. Metrics beside each other have most
    /// labels in common, and what is in common is not read again.
    labels: Vec<(&'a [u8], usize)>,
    last_labels: Vec<(&'a [u8], usize)>,
    timestamp_ms: i64,
    start_ms: i64,
    value: f64,
    exemplar: Option<&'a [u8]>,
    /// Quantiles of a summary with their values.
    quantiles: Vec<(f64, f64)>,
    count: u64,
    count_float: f64,
    sum: f64,
    buckets: Vec<Bucket<'a>>,
    schema: i32,
    zero_threshold: f64,
    zero_count: u64,
    zero_count_float: f64,
    negative_spans: Vec<Span>,
    negative_deltas: Vec<i64>,
    negative_counts: Vec<f64>,
    positive_spans: Vec<Span>,
    positive_deltas: Vec<i64>,
    positive_counts: Vec<f64>,
    exemplars: Vec<&'a [u8]>,
}

/// A bucket of a classic histogram.
#[derive(Debug, Default)]
struct Bucket<'a> {
    count: u64,
    count_float: f64,
    bound: f64,
    exemplar: Option<&'a [u8]>,
}

impl Bucket<'_> {
    fn value(&self) -> f64 {
        if self.count_float == 0.0 { self.count as f64 } else { self.count_float }
    }
}

impl Metric<'_> {
    /// The time, for which 0 stands where there is none.
    fn time(&self) -> Option<i64> {
        (self.timestamp_ms != 0).then_some(self.timestamp_ms)
    }

    fn count_value(&self) -> f64 {
        if self.count_float == 0.0 { self.count as f64 } else { self.count_float }
    }

    fn is_native(&self) -> bool {
        !self.positive_spans.is_empty()
            || !self.negative_spans.is_empty()
            || self.zero_threshold > 0.0
            || self.zero_count > 0
    }

    /// The native histogram.
    fn take_native(&mut self, is_gauge: bool) -> Result<Histogram, String> {
        let counts = if self.count_float > 0.0 || self.zero_count_float > 0.0 {
            HistogramCounts::Float {
                count: self.count_float,
                zero_count: self.zero_count_float,
                positive_counts: std::mem::take(&mut self.positive_counts),
                negative_counts: std::mem::take(&mut self.negative_counts),
            }
        } else {
            HistogramCounts::Int {
                count: self.count,
                zero_count: self.zero_count,
                positive_deltas: std::mem::take(&mut self.positive_deltas),
                negative_deltas: std::mem::take(&mut self.negative_deltas),
            }
        };
        let mut histogram = Histogram {
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            sum: self.sum,
            reset_hint: if is_gauge { ResetHint::Gauge } else { ResetHint::Unknown },
            positive_spans: std::mem::take(&mut self.positive_spans),
            negative_spans: std::mem::take(&mut self.negative_spans),
            counts,
            custom_values: Vec::new(),
        };
        let (positive, negative) = crate::histogram::side_lens(&histogram);
        for (side, spans, found) in
            [("positive", &histogram.positive_spans, positive), ("negative", &histogram.negative_spans, negative)]
        {
            let needed: u64 = spans.iter().map(|s| u64::from(s.length)).sum();
            if needed != found as u64 {
                return Err(format!("{side} side: spans require {needed} buckets, have {found}"));
            }
        }
        compact(&mut histogram, 0);
        Ok(histogram)
    }
}

impl Walker {
    fn family<S: TextSink>(&mut self, message: &[u8], sink: &mut S) -> Result<(), S::Error> {
        let Some(family) = self.describe(message, sink)? else {
            return Ok(());
        };
        let mut metric = Metric::default();
        let mut fields = Fields::new(message);
        let broken = |e: ProtoError| error(format!("metric family {:?}: {e}", family.name));
        while let Some(field) = fields.next().map_err(broken)? {
            if field.number == 4 {
                self.read_metric(&field, family.metric_type, &mut metric)
                    .map_err(|e| error(format!("metric family {:?}: {e}", family.name)))?;
                self.emit(&family, &mut metric, sink)?;
            }
        }
        Ok(())
    }

    /// Reads what a family says of itself and hands it on, unless it has no metrics. All of a message must be looked at:
    /// the unit stands behind the metrics.
    fn describe<'a, S: TextSink>(&mut self, message: &'a [u8], sink: &mut S) -> Result<Option<Family<'a>>, ParseError> {
        let broken = |e: ProtoError| error(format!("metric family: {e}"));
        let (mut name, mut help, mut unit) = (&b""[..], &b""[..], &b""[..]);
        let (mut type_number, mut has_metrics) = (0, false);
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next().map_err(broken)? {
            match field.number {
                1 => name = field.bytes().map_err(broken)?,
                2 => help = field.bytes().map_err(broken)?,
                3 => type_number = field.uint64().map_err(broken)?,
                4 => has_metrics = true,
                5 => unit = field.bytes().map_err(broken)?,
                _ => {}
            }
        }
        if !has_metrics {
            return Ok(None);
        }
        let name = match std::str::from_utf8(name) {
            Ok(name) if !name.is_empty() => name,
            _ => return Err(error(format!("invalid metric name: {}", String::from_utf8_lossy(name)))),
        };
        let help = std::str::from_utf8(help)
            .map_err(|_| error(format!("invalid help for metric {name:?}: {}", String::from_utf8_lossy(help))))?;
        let metric_type = match type_number {
            0 => MetricType::Counter,
            1 => MetricType::Gauge,
            2 => MetricType::Summary,
            3 => MetricType::Unknown,
            4 => MetricType::Histogram,
            5 => MetricType::GaugeHistogram,
            other => return Err(error(format!("unknown metric type for metric {name:?}: {other}"))),
        };
        self.escaped.clear();
        push_escaped(&mut self.escaped, name);
        let name_len = self.escaped.len();
        push_escaped_help(&mut self.escaped, help);
        let (escaped_name, escaped_help) = self.escaped.split_at(name_len);
        sink.family_help(escaped_name, escaped_help);
        if !unit.is_empty() {
            sink.family_unit(escaped_name, unit);
        }
        sink.family_type(escaped_name, metric_type);
        Ok(Some(Family { name, metric_type }))
    }

    /// Reads a metric. Its labels go to `self.labels`.
    fn read_metric<'a>(
        &mut self,
        field: &Field<'a>,
        metric_type: MetricType,
        metric: &mut Metric<'a>,
    ) -> Result<(), String> {
        let text = |e: ProtoError| e.to_string();
        metric.clear(metric_type);
        std::mem::swap(&mut self.labels, &mut self.last_labels);
        self.labels.clear();
        let mut fields = field.message().map_err(text)?;
        while let Some(field) = fields.next().map_err(text)? {
            let is_of_type = match metric_type {
                MetricType::Gauge => field.number == 2,
                MetricType::Counter => field.number == 3,
                MetricType::Summary => field.number == 4,
                MetricType::Histogram | MetricType::GaugeHistogram => field.number == 7,
                _ => field.number == 5,
            };
            if field.number == 1 {
                self.read_metric_label(&field, metric)?;
            } else if field.number == 6 {
                metric.timestamp_ms = field.int64().map_err(text)?;
            } else if is_of_type {
                match metric_type {
                    MetricType::Summary => metric.read_summary(&field),
                    MetricType::Histogram | MetricType::GaugeHistogram => metric.read_histogram(&field),
                    _ => metric.read_value(&field, metric_type == MetricType::Counter),
                }
                .map_err(text)?;
            }
        }
        Ok(())
    }

    fn read_metric_label<'a>(&mut self, field: &Field<'a>, metric: &mut Metric<'a>) -> Result<(), String> {
        let label = field.bytes().map_err(|e| e.to_string())?;
        let place = metric.labels.len();
        match metric.last_labels.get(place) {
            Some((same, end)) if *same == label => {
                let start = place.checked_sub(1).map_or(0, |before| metric.last_labels[before].1);
                self.labels.extend_from_slice(&self.last_labels[start..*end]);
            }
            _ => {
                let (name, value) = field.pair().map_err(|e| e.to_string())?;
                let shown = String::from_utf8_lossy;
                let name_text = std::str::from_utf8(name).ok().filter(|name| !name.is_empty());
                let name_text = name_text.ok_or_else(|| format!("invalid label name: {}", shown(name)))?;
                let value = std::str::from_utf8(value).map_err(|_| format!("invalid label value: {}", shown(value)))?;
                push_label_text(&mut self.labels, name_text, value);
            }
        }
        metric.labels.push((label, self.labels.len()));
        Ok(())
    }

    fn emit<S: TextSink>(
        &mut self,
        family: &Family<'_>,
        metric: &mut Metric<'_>,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        match family.metric_type {
            MetricType::Summary => {
                self.sample(family, "_count", None, metric.count as f64, metric, sink)?;
                self.sample(family, "_sum", None, metric.sum, metric, sink)?;
                for (i, (quantile, value)) in metric.quantiles.iter().enumerate() {
                    self.sample(family, "", Some(("quantile", i, *quantile)), *value, metric, sink)?;
                }
                Ok(())
            }
            MetricType::Histogram | MetricType::GaugeHistogram => self.emit_histogram(family, metric, sink),
            _ => {
                self.sample(family, "", None, metric.value, metric, sink)?;
                metric.exemplar.map_or(Ok(()), |e| self.exemplar(family, e, false, sink))
            }
        }
    }

    fn emit_histogram<S: TextSink>(
        &mut self,
        family: &Family<'_>,
        metric: &mut Metric<'_>,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        let options = self.options;
        let is_gauge = family.metric_type == MetricType::GaugeHistogram;
        let of_histogram = |message: String| error(format!("histogram {:?}: {message}", family.name));
        if options.native && metric.is_native() {
            let histogram = metric.take_native(is_gauge).map_err(of_histogram)?;
            self.histogram(family, metric, histogram, sink)?;
            if options.keep_classic && !metric.buckets.is_empty() {
                self.classic(family, metric, sink)?;
            }
            return Ok(());
        }
        if options.keep_classic || !options.convert_classic {
            self.classic(family, metric, sink)?;
        }
        if options.convert_classic {
            self.classic.clear();
            self.classic.set_count(metric.count_value());
            self.classic.set_sum(metric.sum);
            for bucket in &metric.buckets {
                self.classic.set_bucket(bucket.bound, bucket.value());
            }
            let mut histogram = self.classic.convert().map_err(|e| of_histogram(e.to_string()))?;
            if is_gauge {
                histogram.reset_hint = ResetHint::Gauge;
            }
            self.histogram(family, metric, histogram, sink)?;
        }
        Ok(())
    }

    /// The series of a classic histogram.
    fn classic<S: TextSink>(&mut self, family: &Family<'_>, metric: &Metric<'_>, sink: &mut S) -> Result<(), S::Error> {
        self.sample(family, "_count", None, metric.count_value(), metric, sink)?;
        self.sample(family, "_sum", None, metric.sum, metric, sink)?;
        for (i, bucket) in metric.buckets.iter().enumerate() {
            self.sample(family, "_bucket", Some(("le", i, bucket.bound)), bucket.value(), metric, sink)?;
            if let Some(exemplar) = bucket.exemplar {
                self.exemplar(family, exemplar, false, sink)?;
            }
            if bucket.bound == f64::INFINITY {
                return Ok(());
            }
        }
        let infinite = Some(("le", metric.buckets.len(), f64::INFINITY));
        self.sample(family, "_bucket", infinite, metric.count_value(), metric, sink)
    }

    /// A sample; `more` is one label more, with its place among the labels of its kind and its value.
    fn sample<S: TextSink>(
        &mut self,
        family: &Family<'_>,
        suffix: &str,
        more: Option<(&str, usize, f64)>,
        value: f64,
        metric: &Metric<'_>,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        let more = more.map(|(name, place, bound)| (name, self.bounds.text(place, bound)));
        self.text.write(family.name, suffix, &self.labels, more);
        self.text.announce(family.metric_type, sink)?;
        if metric.start_ms != 0 {
            sink.start_timestamp(metric.start_ms)?;
        }
        sink.sample(value, metric.time())
    }

    fn histogram<S: TextSink>(
        &mut self,
        family: &Family<'_>,
        metric: &Metric<'_>,
        histogram: Histogram,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        self.text.write(family.name, "", &self.labels, None);
        self.text.announce(family.metric_type, sink)?;
        if metric.start_ms != 0 {
            sink.start_timestamp(metric.start_ms)?;
        }
        sink.histogram(histogram, metric.time())?;
        if !metric.exemplars.is_empty() {
            return metric.exemplars.iter().try_for_each(|e| self.exemplar(family, e, true, sink));
        }
        metric.buckets.iter().filter_map(|b| b.exemplar).try_for_each(|e| self.exemplar(family, e, true, sink))
    }

    /// An exemplar. Those of native histograms must have a time and are left out without one, and so is one whose labels
    /// are no text: it costs nobody the scrape.
    fn exemplar<S: TextSink>(
        &mut self,
        family: &Family<'_>,
        message: &[u8],
        needs_time: bool,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        let read = self
            .read_exemplar(message)
            .map_err(|e| error(format!("metric family {:?}: exemplar: {e}", family.name)))?;
        match read {
            Some((value, timestamp_ms)) if timestamp_ms.is_some() || !needs_time => {
                sink.exemplar(&self.escaped, value, timestamp_ms)
            }
            _ => Ok(()),
        }
    }

    /// Reads an exemplar: its value and time, unless its labels are no text. Their text goes to `self.escaped`.
    fn read_exemplar(&mut self, message: &[u8]) -> Result<Option<(f64, Option<i64>)>, ProtoError> {
        let (mut value, mut timestamp_ms) = (0.0, None);
        let mut is_text = true;
        self.escaped.clear();
        self.escaped.push(b'{');
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => {
                    let (name, value) = field.pair()?;
                    match (std::str::from_utf8(name), std::str::from_utf8(value)) {
                        (Ok(name), Ok(value)) => push_label_text(&mut self.escaped, name, value),
                        _ => is_text = false,
                    }
                }
                2 => value = field.double()?,
                3 => timestamp_ms = Some(read_time(&field)?),
                _ => {}
            }
        }
        if self.escaped.last() == Some(&b',') {
            self.escaped.pop();
        }
        self.escaped.push(b'}');
        Ok(is_text.then_some((value, timestamp_ms)))
    }
}

impl<'a> Metric<'a> {
    /// Makes it empty for a metric of this type: what another type has is never set.
    fn clear(&mut self, metric_type: MetricType) {
        std::mem::swap(&mut self.labels, &mut self.last_labels);
        self.labels.clear();
        self.timestamp_ms = 0;
        self.start_ms = 0;
        self.value = 0.0;
        self.exemplar = None;
        if !matches!(metric_type, MetricType::Summary | MetricType::Histogram | MetricType::GaugeHistogram) {
            return;
        }
        self.quantiles.clear();
        self.count = 0;
        self.count_float = 0.0;
        self.sum = 0.0;
        self.buckets.clear();
        self.schema = 0;
        self.zero_threshold = 0.0;
        self.zero_count = 0;
        self.zero_count_float = 0.0;
        self.negative_spans.clear();
        self.negative_deltas.clear();
        self.negative_counts.clear();
        self.positive_spans.clear();
        self.positive_deltas.clear();
        self.positive_counts.clear();
        self.exemplars.clear();
    }

    /// `Gauge`, `Counter` or `Untyped`.
    fn read_value(&mut self, field: &Field<'a>, is_counter: bool) -> Result<(), ProtoError> {
        let mut fields = field.message()?;
        while let Some(field) = fields.next()? {
            match field.number {
                1 => self.value = field.double()?,
                2 if is_counter => self.exemplar = Some(field.bytes()?),
                3 if is_counter => self.start_ms = read_time(&field)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn read_summary(&mut self, field: &Field<'a>) -> Result<(), ProtoError> {
        let mut fields = field.message()?;
        while let Some(field) = fields.next()? {
            match field.number {
                1 => self.count = field.uint64()?,
                2 => self.sum = field.double()?,
                3 => {
                    let (mut quantile, mut value) = (0.0, 0.0);
                    let mut fields = field.message()?;
                    while let Some(field) = fields.next()? {
                        match field.number {
                            1 => quantile = field.double()?,
                            2 => value = field.double()?,
                            _ => {}
                        }
                    }
                    self.quantiles.push((quantile, value));
                }
                4 => self.start_ms = read_time(&field)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn read_histogram(&mut self, field: &Field<'a>) -> Result<(), ProtoError> {
        let mut fields = field.message()?;
        while let Some(field) = fields.next()? {
            match field.number {
                1 => self.count = field.uint64()?,
                2 => self.sum = field.double()?,
                3 => self.buckets.push(read_bucket(&field)?),
                4 => self.count_float = field.double()?,
                5 => self.schema = field.sint32()?,
                6 => self.zero_threshold = field.double()?,
                7 => self.zero_count = field.uint64()?,
                8 => self.zero_count_float = field.double()?,
                9 => self.negative_spans.push(read_span(&field)?),
                10 => field.push_sint64s(&mut self.negative_deltas)?,
                11 => field.push_doubles(&mut self.negative_counts)?,
                12 => self.positive_spans.push(read_span(&field)?),
                13 => field.push_sint64s(&mut self.positive_deltas)?,
                14 => field.push_doubles(&mut self.positive_counts)?,
                15 => self.start_ms = read_time(&field)?,
                16 => self.exemplars.push(field.bytes()?),
                _ => {}
            }
        }
        Ok(())
    }
}

fn read_bucket<'a>(field: &Field<'a>) -> Result<Bucket<'a>, ProtoError> {
    let mut bucket = Bucket::default();
    let mut fields = field.message()?;
    while let Some(field) = fields.next()? {
        match field.number {
            1 => bucket.count = field.uint64()?,
            2 => bucket.bound = field.double()?,
            3 => bucket.exemplar = Some(field.bytes()?),
            4 => bucket.count_float = field.double()?,
            _ => {}
        }
    }
    Ok(bucket)
}

/// `BucketSpan`, which is the same message in all formats.
pub(crate) fn read_span(field: &Field<'_>) -> Result<Span, ProtoError> {
    let mut span = Span { offset: 0, length: 0 };
    let mut fields = field.message()?;
    while let Some(field) = fields.next()? {
        match field.number {
            1 => span.offset = field.sint32()?,
            2 => span.length = field.uint32()?,
            _ => {}
        }
    }
    Ok(span)
}

/// `google.protobuf.Timestamp`, in milliseconds.
fn read_time(field: &Field<'_>) -> Result<i64, ProtoError> {
    let (mut seconds, mut nanos) = (0i64, 0i32);
    let mut fields = field.message()?;
    while let Some(field) = fields.next()? {
        match field.number {
            1 => seconds = field.int64()?,
            2 => nanos = field.int64()? as i32,
            _ => {}
        }
    }
    Ok(seconds.saturating_mul(1000).saturating_add(i64::from(nanos / 1_000_000)))
}

/// The texts of bounds. The histograms of a family mostly have the same ones, so that each is written once and not for
/// each histogram.
#[derive(Debug, Default)]
struct Bounds {
    bits: Vec<u64>,
    ends: Vec<usize>,
    text: String,
}

impl Bounds {
    /// The text of the bound that stands at this place. Places are asked for in order, from 0.
    fn text(&mut self, place: usize, bound: f64) -> &str {
        let place = place.min(self.bits.len());
        let start = place.checked_sub(1).map_or(0, |before| self.ends[before]);
        if self.bits.get(place) != Some(&bound.to_bits()) {
            self.bits.truncate(place);
            self.ends.truncate(place);
            self.text.truncate(start);
            push_open_metrics_float(&mut self.text, bound);
            self.bits.push(bound.to_bits());
            self.ends.push(self.text.len());
        }
        &self.text[start..self.ends[place]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::testing::{Record, recorded};
    use crate::proto::{put_bytes, put_double, put_message, put_str, put_uint64};
    use corten_signal::labels::put_varint;
    use proptest::prelude::*;

    fn parse_in_pieces(
        body: &[u8],
        piece: usize,
        options: ProtobufOptions,
        sink: &mut Record,
    ) -> Result<(), ParseError> {
        let mut parser = ProtobufParser::new(options);
        for piece in body.chunks(piece.max(1)) {
            parser.feed(piece, sink)?;
        }
        parser.finish(sink)
    }

    fn parse(body: &[u8], options: ProtobufOptions) -> Result<Vec<String>, String> {
        let mut sink = Record::default();
        parse_in_pieces(body, usize::MAX, options, &mut sink).map_err(|e| e.to_string())?;
        assert_eq!(sink.lines.pop().as_deref(), Some("end"));
        Ok(sink.lines)
    }

    /// A family with its length.
    fn family(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let (mut message, mut out) = (Vec::new(), Vec::new());
        write(&mut message);
        put_varint(&mut out, message.len() as u64);
        out.extend_from_slice(&message);
        out
    }

    const NATIVE: ProtobufOptions = ProtobufOptions { native: true, keep_classic: false, convert_classic: false };

    #[test]
    fn bodies_are_read_as_the_reference_reads_them() {
        let cases = recorded(include_str!("../tests/data/protobuf_exposition.txt"));
        assert!(cases.len() > 50);
        for case in &cases {
            let options = ProtobufOptions {
                native: case.option("native"),
                keep_classic: case.option("keep"),
                convert_classic: case.option("convert"),
            };
            for piece in [usize::MAX, 1, 7] {
                let mut record = Record { sorted: true, ..Record::default() };
                let result = parse_in_pieces(&case.body, piece, options, &mut record);
                case.check(record, result);
            }
        }
    }

    #[test]
    fn a_series_is_known_by_the_text_that_the_text_format_has_for_it() {
        let body = family(|out| {
            put_str(out, 1, "h");
            put_uint64(out, 3, 4);
            put_message(out, 4, |out| {
                put_message(out, 1, |out| {
                    put_str(out, 1, "a");
                    put_str(out, 2, "b\"c");
                });
                put_message(out, 7, |out| put_uint64(out, 1, 5));
            });
        });
        let mut record = Record { remembers: true, ..Record::default() };
        parse_in_pieces(&body, usize::MAX, NATIVE, &mut record).unwrap();
        let texts: Vec<String> = record.known.iter().map(|(t, _)| String::from_utf8(t.clone()).unwrap()).collect();
        assert_eq!(texts, [r#"h_count{a="b\"c"}"#, r#"h_sum{a="b\"c"}"#, r#"h_bucket{a="b\"c",le="+Inf"}"#]);
        assert_eq!(record.unknown, 3);
        parse_in_pieces(&body, usize::MAX, NATIVE, &mut record).unwrap();
        assert_eq!(record.unknown, 3);
    }

    #[test]
    fn native_and_classic_histograms_may_stand_in_turn() {
        let classic = |out: &mut Vec<u8>| put_message(out, 4, |out| put_message(out, 7, |out| put_uint64(out, 1, 5)));
        let native = |out: &mut Vec<u8>| put_message(out, 4, |out| put_message(out, 7, |out| put_double(out, 6, 0.5)));
        let body = family(|out| {
            put_str(out, 1, "h");
            put_uint64(out, 3, 4);
            classic(out);
            native(out);
            classic(out);
        });
        let native = "__name__=h h0 count=0 sum=0 zero=0<=0.5 pos=[][] neg=[][] custom=[] Unknown";
        let classic = ["__name__=h_count 5", "__name__=h_sum 0", "__name__=h_bucket le=+Inf 5"];
        let want: Vec<&str> =
            ["help h ", "type h histogram"].into_iter().chain(classic).chain([native]).chain(classic).collect();
        assert_eq!(parse(&body, NATIVE).unwrap(), want);
        let converted = "__name__=h h-53 count=5 sum=0 zero=0<=0 pos=[0+1][5] neg=[][] custom=[] Unknown";
        let options = ProtobufOptions { convert_classic: true, ..NATIVE };
        assert_eq!(parse(&body, options).unwrap()[2..], [converted, native, converted]);
    }

    #[test]
    fn a_stale_marker_is_kept() {
        struct Bits(Vec<u64>);
        impl TextSink for Bits {
            type Error = ParseError;
            fn recognise(&mut self, _: &[u8], _: MetricType) -> Option<usize> {
                None
            }
            fn series(&mut self, _: &[u8], _: MetricType) -> Result<(), ParseError> {
                Ok(())
            }
            fn sample(&mut self, value: f64, _: Option<i64>) -> Result<(), ParseError> {
                self.0.push(value.to_bits());
                Ok(())
            }
        }
        let stale = corten_signal::metrics::STALE_NAN;
        let body = family(|out| {
            put_str(out, 1, "a");
            put_message(out, 4, |out| put_message(out, 3, |out| put_double(out, 1, stale)));
        });
        let mut sink = Bits(Vec::new());
        ProtobufParser::new(NATIVE).feed(&body, &mut sink).unwrap();
        assert_eq!(sink.0, [stale.to_bits()]);
    }

    #[test]
    fn an_exemplar_whose_labels_are_no_text_is_left_out() {
        let body = family(|out| {
            put_str(out, 1, "a");
            for value in [&b"x"[..], b"\xff"] {
                put_message(out, 4, |out| {
                    put_message(out, 3, |out| {
                        put_message(out, 2, |out| put_message(out, 1, |out| put_bytes(out, 2, value)))
                    });
                });
            }
        });
        let want = ["help a ", "type a counter", "__name__=a 0", "exemplar {=x} 0", "__name__=a 0"];
        assert_eq!(parse(&body, NATIVE).unwrap(), want);
    }

    #[test]
    fn labels_are_read_anew_where_they_differ_from_the_metric_before() {
        let sets: [&[(&str, &str)]; 6] = [
            &[("a", "1"), ("b", "2")],
            &[("a", "1"), ("b", "3")],
            &[("b", "3")],
            &[],
            &[("b", "3"), ("a", "1"), ("c", "\"")],
            &[("b", "3"), ("x", "1"), ("c", "\"")],
        ];
        let body = family(|out| {
            put_str(out, 1, "m");
            for set in sets {
                put_message(out, 4, |out| {
                    for (name, value) in set {
                        put_message(out, 1, |out| {
                            put_str(out, 1, name);
                            put_str(out, 2, value);
                        });
                    }
                });
            }
        });
        let lines = parse(&body, NATIVE).unwrap();
        for (line, set) in lines[2..].iter().zip(sets) {
            let labels: String = set.iter().map(|(name, value)| format!("{name}={value} ")).collect();
            assert_eq!(*line, format!("__name__=m {labels}0"));
        }
        assert_eq!(lines.len(), 8);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let gauge = |name: &'static [u8], more: &'static [u8]| {
            family(|out| {
                put_bytes(out, 1, name);
                put_bytes(out, 4, more);
            })
        };
        for (body, want) in [
            (b"\xff\xff\xff\xff\xff".to_vec(), "invalid varint encountered"),
            (b"\x05\x0a\x01a".to_vec(), "insufficient length of buffer, expected at least 6 bytes, got 4 bytes"),
            (b"\x80".to_vec(), "insufficient length of buffer, expected at least 2 bytes, got 1 bytes"),
            (
                b"\xff\xff\xff\xff\x0f".to_vec(),
                "a metric family of 4294967295 bytes is longer than the limit of 268435456 bytes",
            ),
            (b"\x01\x0a".to_vec(), "metric family: unexpected end of the message"),
            (gauge(b"", b""), "invalid metric name: "),
            (gauge(b"a", b"\x0a"), "metric family \"a\": unexpected end of the message"),
            (gauge(b"a", b"\x0a\x00"), "metric family \"a\": invalid label name: "),
            (gauge(b"a", b"\x0a\x06\x0a\x01b\x12\x01\xff"), "metric family \"a\": invalid label value: \u{fffd}"),
            (gauge(b"a", b"\x18\x01"), "metric family \"a\": wrong wire type for field 3"),
            (gauge(b"a", b"\x1a\x04\x12\x02\x10\x01"), "metric family \"a\": exemplar: wrong wire type for field 2"),
        ] {
            assert_eq!(parse(&body, NATIVE), Err(want.to_owned()), "{body:x?}");
        }
    }

    #[test]
    fn the_texts_of_bounds_are_kept_while_they_are_the_same() {
        let mut bounds = Bounds::default();
        for list in [&[0.5, 1.0, f64::INFINITY][..], &[0.5, 2.0], &[0.5, 2.0, 3.0], &[], &[f64::NAN]] {
            for (place, bound) in list.iter().enumerate() {
                let mut want = String::new();
                push_open_metrics_float(&mut want, *bound);
                assert_eq!(bounds.text(place, *bound), want);
            }
        }
    }

    proptest! {
        #[test]
        fn pieces_and_cuts_make_no_difference_and_no_panic(which: prop::sample::Index, at: prop::sample::Index, byte: u8, piece in 1usize..40, bits in 0u8..8) {
            let cases = recorded(include_str!("../tests/data/protobuf_exposition.txt"));
            let mut body = which.get(&cases).body.clone();
            if !body.is_empty() {
                let at = at.index(body.len());
                body[at] = byte;
            }
            let options = ProtobufOptions { native: bits & 1 > 0, keep_classic: bits & 2 > 0, convert_classic: bits & 4 > 0 };
            let (mut whole, mut pieces) = (Record::default(), Record::default());
            let want = parse_in_pieces(&body, usize::MAX, options, &mut whole);
            prop_assert_eq!(parse_in_pieces(&body, piece, options, &mut pieces), want);
            prop_assert_eq!(pieces.lines, whole.lines);
        }

        #[test]
        fn no_bytes_make_it_panic(body: Vec<u8>, piece in 1usize..50) {
            let options = ProtobufOptions { native: true, keep_classic: true, convert_classic: true };
            let _ = parse_in_pieces(&body, piece, options, &mut Record::default());
            let _ = parse_in_pieces(&family(|out| put_bytes(out, 4, &body)), piece, options, &mut Record::default());
        }
    }
}
