//! Classic histograms as native ones with custom buckets.

use std::fmt;

use corten_signal::LabelsBuilder;
use corten_signal::labels::METRIC_NAME;
use corten_signal::metrics::{CUSTOM_BUCKETS_SCHEMA, Histogram, HistogramCounts, MetricType, ResetHint, Span};

use crate::exposition::{ParseError, SeriesText, TextSink, push_label_text, unescape, visit_series};
use crate::float::{go_float, parse_value};
use crate::histogram::{compact, validate};

/// The most buckets that a classic histogram may have to become a native one.
pub const BUCKETS_MAX: usize = 10_000;

/// How many empty buckets of whole counts are written out between two others. Float counts take eight bytes even when
/// they are 0, so of them none is.
const EMPTY_BUCKETS_MAX: u32 = 2;

/// Why the series of a classic histogram are no histogram.
#[derive(Clone, Debug, PartialEq)]
pub enum ClassicError {
    /// A bucket has less than no observations.
    NegativeBucket {
        /// Its bound.
        bound: f64,
        /// Its count.
        count: f64,
    },
    /// A bound that is not a number.
    BoundNan,
    /// Less than no observations.
    NegativeCount(f64),
    /// The last bucket does not hold all observations.
    CountMismatch {
        /// Of the histogram.
        count: f64,
        /// The bound of the last bucket.
        bound: f64,
        /// The count of the last bucket.
        bucket: f64,
    },
    /// A bucket has fewer observations than one that it includes.
    NotCumulative(f64, f64),
    /// More than [`BUCKETS_MAX`] buckets.
    TooManyBuckets,
}

impl fmt::Display for ClassicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClassicError::NegativeBucket { bound, count } => {
                write!(f, "bucket count must be non-negative: le={}, count={}", go_float(*bound), go_float(*count))
            }
            ClassicError::BoundNan => f.write_str("bucket boundary must not be NaN"),
            ClassicError::NegativeCount(count) => write!(f, "count must be non-negative: count={}", go_float(*count)),
            ClassicError::CountMismatch { count, bound, bucket } => {
                write!(
                    f,
                    "count mismatch: count={} != le={} count={}",
                    go_float(*count),
                    go_float(*bound),
                    go_float(*bucket)
                )
            }
            ClassicError::NotCumulative(count, below) => {
                write!(f, "count is not cumulative: {} < {}", go_float(*count), go_float(*below))
            }
            ClassicError::TooManyBuckets => write!(f, "more than {BUCKETS_MAX} buckets"),
        }
    }
}

impl std::error::Error for ClassicError {}

/// Collects the parts of a classic histogram. What is wrong with one shows when they are put together.
#[derive(Debug, Default)]
pub(crate) struct Classic {
    /// Bounds with cumulative counts, by bound.
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: f64,
    error: Option<ClassicError>,
}

impl Classic {
    pub(crate) fn clear(&mut self) {
        self.buckets.clear();
        self.count = None;
        self.sum = 0.0;
        self.error = None;
    }

    pub(crate) fn set_count(&mut self, count: f64) {
        if count < 0.0 {
            self.fail(ClassicError::NegativeCount(count));
        }
        self.count = Some(count);
    }

    pub(crate) fn set_sum(&mut self, sum: f64) {
        self.sum = sum;
    }

    /// A bucket. Of two with one bound the first counts.
    pub(crate) fn set_bucket(&mut self, bound: f64, count: f64) {
        if bound.is_nan() {
            return self.fail(ClassicError::BoundNan);
        }
        if count < 0.0 {
            return self.fail(ClassicError::NegativeBucket { bound, count });
        }
        if self.buckets.len() >= BUCKETS_MAX {
            return self.fail(ClassicError::TooManyBuckets);
        }
        // Buckets come in order, most often.
        let at = match self.buckets.last() {
            Some((last, _)) if *last >= bound => self.buckets.partition_point(|(b, _)| *b < bound),
            _ => self.buckets.len(),
        };
        if self.buckets.get(at).is_some_and(|(b, _)| *b == bound) {
            return;
        }
        if let Some((_, below)) = at.checked_sub(1).and_then(|i| self.buckets.get(i))
            && count < *below
        {
            return self.fail(ClassicError::NotCumulative(count, *below));
        }
        if let Some((_, above)) = self.buckets.get(at)
            && count > *above
        {
            return self.fail(ClassicError::NotCumulative(*above, count));
        }
        self.buckets.insert(at, (bound, count));
    }

    fn fail(&mut self, error: ClassicError) {
        self.error.get_or_insert(error);
    }

    /// The native histogram: with whole counts if all counts are.
    pub(crate) fn convert(&mut self) -> Result<Histogram, ClassicError> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        let last = self.buckets.last().copied();
        let count = self.count.or(last.map(|(_, count)| count)).unwrap_or(0.0);
        if last.is_none_or(|(bound, _)| bound != f64::INFINITY) {
            self.buckets.push((f64::INFINITY, count));
        }
        if let Some((bound, bucket)) = self.buckets.last().copied()
            && bucket != count
        {
            return Err(ClassicError::CountMismatch { count, bound, bucket });
        }
        let is_whole = |count: f64| count.fract() == 0.0 && count < i64::MAX as f64;
        let counts = if self.buckets.iter().all(|(_, count)| is_whole(*count)) {
            let (mut below, mut previous) = (0i64, 0i64);
            let deltas = self.buckets.iter().map(|(_, cumulative)| {
                let cumulative = *cumulative as i64;
                let count = cumulative - below;
                let delta = count - previous;
                (below, previous) = (cumulative, count);
                delta
            });
            let positive_deltas = deltas.collect();
            HistogramCounts::Int { count: count as u64, zero_count: 0, positive_deltas, negative_deltas: Vec::new() }
        } else {
            let mut below = 0.0;
            let counts = self.buckets.iter().map(|(_, cumulative)| {
                let count = cumulative - below;
                below = *cumulative;
                count
            });
            let positive_counts = counts.collect();
            HistogramCounts::Float { count, zero_count: 0.0, positive_counts, negative_counts: Vec::new() }
        };
        let empty_max = if matches!(counts, HistogramCounts::Int { .. }) { EMPTY_BUCKETS_MAX } else { 0 };
        let mut histogram = Histogram {
            schema: CUSTOM_BUCKETS_SCHEMA,
            zero_threshold: 0.0,
            sum: self.sum,
            reset_hint: ResetHint::Unknown,
            positive_spans: vec![Span { offset: 0, length: self.buckets.len() as u32 }],
            negative_spans: Vec::new(),
            counts,
            custom_values: self.buckets[..self.buckets.len() - 1].iter().map(|(bound, _)| *bound).collect(),
        };
        compact(&mut histogram, empty_max);
        Ok(histogram)
    }
}

/// Stands between a parser of a text format and a sink, and turns the series of each classic histogram into a native
/// histogram with custom buckets.
///
/// The series of a histogram stand one after another under its `# TYPE` line; what stands between them and belongs to
/// another label set ends it. Their exemplars and their start time become the native histogram's. A histogram whose
/// buckets do not fit each other is left out. Where a native histogram of the same series came first, the classic one
/// stays as it is.
///
/// The protobuf format converts by itself, see [`crate::protobuf_exposition::ProtobufOptions`]: there the parts of a
/// histogram need not be found.
#[derive(Debug)]
pub struct NhcbSink<'a, S: TextSink> {
    sink: &'a mut S,
    keep_classic: bool,
    /// The family of the last `# TYPE` line, if it is of histograms.
    family: Option<String>,
    state: State,
    /// What the series at hand is, between `series` and `sample`.
    current: Current,
    /// Of the series at hand: the name without the suffix of a part, the labels but for the bucket, and the same
    /// encoded.
    name: String,
    labels: LabelsBuilder,
    key: Vec<u8>,
    /// The same of the group.
    group_name: String,
    group_labels: LabelsBuilder,
    group_key: Vec<u8>,
    classic: Classic,
    timestamp_ms: Option<i64>,
    start_ms: Option<i64>,
    /// The exemplars of the group: ends of label texts in `exemplar_text`, values, times.
    exemplars: Vec<(usize, f64, Option<i64>)>,
    exemplar_text: Vec<u8>,
    text: SeriesText,
    label_text: Vec<u8>,
    /// An error of the sink from a call that cannot return one.
    error: Option<S::Error>,
    /// How many samples of the group are not handed on themselves.
    group_samples: u64,
    tally: NhcbTally,
}

/// What became of the samples and exemplars that were not handed on as they came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NhcbTally {
    /// Histograms that were made.
    pub made: u64,
    /// Samples of classic series that went into them and were not handed on themselves.
    pub joined: u64,
    /// Samples and exemplars of classic series that make no histogram.
    pub left_out: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    /// Series of a classic histogram are being collected.
    Collecting,
    /// A native histogram came: its classic series stay.
    Inhibiting,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Current {
    /// Not a part of a classic histogram.
    Other,
    Bucket(f64),
    Count,
    Sum,
}

impl<'a, S: TextSink> NhcbSink<'a, S> {
    /// Hands on to `sink`; with `keep_classic`, the classic series, too.
    pub fn new(sink: &'a mut S, keep_classic: bool) -> Self {
        NhcbSink {
            sink,
            keep_classic,
            family: None,
            state: State::Idle,
            current: Current::Other,
            name: String::new(),
            labels: LabelsBuilder::new(),
            key: Vec::new(),
            group_name: String::new(),
            group_labels: LabelsBuilder::new(),
            group_key: Vec::new(),
            classic: Classic::default(),
            timestamp_ms: None,
            start_ms: None,
            exemplars: Vec::new(),
            exemplar_text: Vec::new(),
            text: SeriesText::default(),
            label_text: Vec::new(),
            error: None,
            group_samples: 0,
            tally: NhcbTally::default(),
        }
    }

    /// What became of what came so far and was not handed on as it came.
    pub fn tally(&self) -> NhcbTally {
        self.tally
    }

    /// Makes the series at hand the first of a group.
    fn begin_group(&mut self, state: State) {
        self.state = state;
        std::mem::swap(&mut self.group_name, &mut self.name);
        std::mem::swap(&mut self.group_labels, &mut self.labels);
        std::mem::swap(&mut self.group_key, &mut self.key);
        self.start_ms = None;
    }

    /// Hands on what was collected.
    fn flush(&mut self) -> Result<(), S::Error> {
        if self.state != State::Collecting {
            return Ok(());
        }
        self.state = State::Idle;
        let converted = self.classic.convert().ok().filter(|h| validate(h).is_ok());
        self.classic.clear();
        let samples = std::mem::take(&mut self.group_samples);
        if let Some(histogram) = converted {
            self.tally.made += 1;
            self.tally.joined += samples;
            self.label_text.clear();
            for (name, value) in self.group_labels.iter() {
                push_label_text(&mut self.label_text, name, value);
            }
            self.text.write(&self.group_name, "", &self.label_text, None);
            self.text.announce(MetricType::Histogram, self.sink)?;
            if let Some(start_ms) = self.start_ms {
                self.sink.start_timestamp(start_ms)?;
            }
            self.sink.histogram(histogram, self.timestamp_ms)?;
            let mut from = 0;
            for &(end, value, timestamp_ms) in &self.exemplars {
                self.sink.exemplar(&self.exemplar_text[from..end], value, timestamp_ms)?;
                from = end;
            }
        } else {
            self.tally.left_out += samples + self.exemplars.len() as u64;
        }
        self.exemplars.clear();
        self.exemplar_text.clear();
        Ok(())
    }

    /// Hands on what was collected where an error cannot be returned.
    fn flush_later(&mut self) {
        if let Err(error) = self.flush() {
            self.error.get_or_insert(error);
        }
    }

    fn take_error(&mut self) -> Result<(), S::Error> {
        self.error.take().map_or(Ok(()), Err)
    }

    /// Reads a series: sets the name of what would be its histogram, and its labels, and returns what it is of it, and
    /// whether it has the name of a part.
    fn classify(&mut self, text: &[u8]) -> Result<(Current, bool), ParseError> {
        let NhcbSink { labels, name, key, .. } = self;
        let mut bound = None;
        labels.clear();
        name.clear();
        visit_series(text, |label, value| match &*label {
            METRIC_NAME => name.push_str(&value),
            "le" => bound = parse_value(value.as_bytes()).filter(|b| !b.is_nan()),
            _ => labels.push(&label, &value),
        })?;
        key.clear();
        // A label that stands twice is the sink's to refuse.
        let is_set = labels.encode_into(key).is_ok();
        let (mut part, mut has_suffix) = (Current::Other, false);
        for (suffix, of_suffix) in [
            ("_bucket", bound.map_or(Current::Other, Current::Bucket)),
            ("_sum", Current::Sum),
            ("_count", Current::Count),
            // No part, but it may stand among them.
            ("_created", Current::Other),
        ] {
            if let Some(base) = name.strip_suffix(suffix) {
                name.truncate(base.len());
                (part, has_suffix) = (of_suffix, true);
                break;
            }
        }
        let is_of_family = is_set && self.family.as_deref() == Some(name.as_str());
        Ok((if is_of_family { part } else { Current::Other }, has_suffix))
    }
}

impl<S: TextSink> TextSink for NhcbSink<'_, S> {
    type Error = S::Error;

    fn recognise(&mut self, line: &[u8], metric_type: MetricType) -> Option<usize> {
        if metric_type == MetricType::Histogram || self.error.is_some() {
            // The series must be read to know where it belongs.
            return None;
        }
        self.flush_later();
        if self.error.is_some() {
            return None;
        }
        self.state = State::Idle;
        self.current = Current::Other;
        self.sink.recognise(line, metric_type)
    }

    fn series(&mut self, text: &[u8], metric_type: MetricType) -> Result<(), S::Error> {
        self.take_error()?;
        if metric_type != MetricType::Histogram {
            self.flush()?;
            self.state = State::Idle;
            self.current = Current::Other;
            return self.sink.series(text, metric_type);
        }
        let (part, has_suffix) = self.classify(text)?;
        let is_same = self.name == self.group_name && self.key == self.group_key;
        if !is_same || !has_suffix {
            // What has no suffix may be a native histogram.
            self.flush()?;
        }
        if !is_same {
            self.state = State::Idle;
        }
        self.current = if self.state == State::Inhibiting { Current::Other } else { part };
        if self.current != Current::Other && self.state == State::Idle {
            self.begin_group(State::Collecting);
        }
        if self.current == Current::Other || self.keep_classic {
            self.text.copy(text);
            self.text.announce(metric_type, self.sink)?;
        }
        Ok(())
    }

    fn start_timestamp(&mut self, start_ms: i64) -> Result<(), S::Error> {
        if self.current != Current::Other {
            self.start_ms.get_or_insert(start_ms);
            if !self.keep_classic {
                return Ok(());
            }
        }
        self.sink.start_timestamp(start_ms)
    }

    fn sample(&mut self, value: f64, timestamp_ms: Option<i64>) -> Result<(), S::Error> {
        match self.current {
            Current::Other => return self.sink.sample(value, timestamp_ms),
            Current::Bucket(bound) => self.classic.set_bucket(bound, value),
            Current::Count => self.classic.set_count(value),
            Current::Sum => self.classic.set_sum(value),
        }
        self.timestamp_ms = timestamp_ms;
        if self.keep_classic {
            return self.sink.sample(value, timestamp_ms);
        }
        self.group_samples += 1;
        Ok(())
    }

    fn histogram(&mut self, histogram: Histogram, timestamp_ms: Option<i64>) -> Result<(), S::Error> {
        // Its series was announced, and was no part of a classic histogram.
        if self.family.is_some() {
            self.begin_group(State::Inhibiting);
        }
        self.sink.histogram(histogram, timestamp_ms)
    }

    fn exemplar(&mut self, labels: &[u8], value: f64, timestamp_ms: Option<i64>) -> Result<(), S::Error> {
        if self.current == Current::Other {
            return self.sink.exemplar(labels, value, timestamp_ms);
        }
        if self.exemplars.len() < BUCKETS_MAX {
            self.exemplar_text.extend_from_slice(labels);
            self.exemplars.push((self.exemplar_text.len(), value, timestamp_ms));
        } else {
            self.tally.left_out += 1;
        }
        Ok(())
    }

    fn family_type(&mut self, name: &[u8], metric_type: MetricType) {
        self.flush_later();
        self.state = State::Idle;
        self.family = match std::str::from_utf8(name) {
            Ok(name) if metric_type == MetricType::Histogram => Some(unescape(name).into_owned()),
            _ => None,
        };
        self.sink.family_type(name, metric_type);
    }

    fn family_help(&mut self, name: &[u8], help: &[u8]) {
        self.flush_later();
        self.sink.family_help(name, help);
    }

    fn family_unit(&mut self, name: &[u8], unit: &[u8]) {
        self.flush_later();
        self.sink.family_unit(name, unit);
    }

    fn end(&mut self) -> Result<(), S::Error> {
        self.take_error()?;
        self.flush()?;
        self.sink.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition::testing::{Record, Recorded, recorded, show};
    use crate::open_metrics::OpenMetricsParser;
    use crate::text::TextParser;
    use proptest::prelude::*;

    fn convert(buckets: &[(f64, f64)], count: Option<f64>, sum: f64) -> Result<String, String> {
        let mut classic = Classic::default();
        for (bound, value) in buckets {
            classic.set_bucket(*bound, *value);
        }
        if let Some(count) = count {
            classic.set_count(count);
        }
        classic.set_sum(sum);
        classic.convert().map(|h| show(&h)).map_err(|e| e.to_string())
    }

    const INF: f64 = f64::INFINITY;

    #[test]
    fn the_parts_of_a_classic_histogram_make_a_native_one() {
        for (buckets, count, want) in [
            (
                &[(1.0, 2.0), (2.0, 5.0), (INF, 6.0)][..],
                Some(6.0),
                "h-53 count=6 sum=1 zero=0<=0 pos=[0+3][2, 1, -2] neg=[][] custom=[1.0, 2.0] Unknown",
            ),
            // Without the infinite bucket, without a count.
            (&[(1.0, 2.0)], Some(6.0), "h-53 count=6 sum=1 zero=0<=0 pos=[0+2][2, 2] neg=[][] custom=[1.0] Unknown"),
            (
                &[(1.0, 2.0), (INF, 3.0)],
                None,
                "h-53 count=3 sum=1 zero=0<=0 pos=[0+2][2, -1] neg=[][] custom=[1.0] Unknown",
            ),
            (&[(1.0, 2.0)], None, "h-53 count=2 sum=1 zero=0<=0 pos=[0+1][2] neg=[][] custom=[1.0] Unknown"),
            (&[], Some(4.0), "h-53 count=4 sum=1 zero=0<=0 pos=[0+1][4] neg=[][] custom=[] Unknown"),
            (&[], None, "h-53 count=0 sum=1 zero=0<=0 pos=[][] neg=[][] custom=[] Unknown"),
            // In any order; of two with one bound the first counts.
            (
                &[(INF, 6.0), (2.0, 5.0), (1.0, 2.0), (2.0, 3.0), (INF, 9.0)],
                Some(6.0),
                "h-53 count=6 sum=1 zero=0<=0 pos=[0+3][2, 1, -2] neg=[][] custom=[1.0, 2.0] Unknown",
            ),
            // Runs of more than two empty buckets begin a new span.
            (
                &[(1.0, 1.0), (2.0, 1.0), (3.0, 1.0), (4.0, 1.0), (5.0, 2.0), (6.0, 2.0), (7.0, 3.0)],
                Some(3.0),
                "h-53 count=3 sum=1 zero=0<=0 pos=[0+1,3+3][1, 0, -1, 1] neg=[][] custom=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0] Unknown",
            ),
            // A count that is not whole makes all float.
            (
                &[(1.0, 0.5), (2.0, 0.5), (INF, 2.0)],
                Some(2.0),
                "h-53 count=2f sum=1 zero=0f<=0 pos=[0+1,1+1][0.5, 1.5] neg=[][] custom=[1.0, 2.0] Unknown",
            ),
            (
                &[(1.0, 1e19)],
                Some(1e19),
                "h-53 count=10000000000000000000f sum=1 zero=0f<=0 pos=[0+1][1e19] neg=[][] custom=[1.0] Unknown",
            ),
            (
                &[(-1.0, 1.0), (0.0, 1.0)],
                Some(1.0),
                "h-53 count=1 sum=1 zero=0<=0 pos=[0+1][1] neg=[][] custom=[-1.0, 0.0] Unknown",
            ),
        ] {
            assert_eq!(convert(buckets, count, 1.0).as_deref(), Ok(want), "{buckets:?}");
        }
    }

    #[test]
    fn parts_that_contradict_each_other_are_refused() {
        for (buckets, count, want) in [
            (&[(1.0, -1.0)][..], Some(1.0), "bucket count must be non-negative: le=1, count=-1"),
            (&[(f64::NAN, 1.0)], Some(1.0), "bucket boundary must not be NaN"),
            (&[], Some(-0.5), "count must be non-negative: count=-0.5"),
            (&[(1.0, 2.0), (2.0, 1.0)], Some(2.0), "count is not cumulative: 1 < 2"),
            (&[(1.0, 2.0), (3.0, 5.0), (2.0, 1.0)], Some(5.0), "count is not cumulative: 1 < 2"),
            (&[(1.0, 2.0), (3.0, 5.0), (2.0, 6.0)], Some(5.0), "count is not cumulative: 5 < 6"),
            (&[(1.0, 2.0), (INF, 5.0)], Some(6.0), "count mismatch: count=6 != le=+Inf count=5"),
            (&[(1.0, f64::NAN)], Some(1.0), ""),
        ] {
            let got = convert(buckets, count, 1.0);
            if want.is_empty() {
                assert!(got.is_ok(), "{got:?}");
            } else {
                assert_eq!(got, Err(want.to_owned()), "{buckets:?}");
            }
        }
        let many: Vec<(f64, f64)> = (0..=BUCKETS_MAX).map(|i| (-(i as f64), 0.0)).collect();
        assert_eq!(convert(&many, None, 0.0), Err("more than 10000 buckets".to_owned()));
    }

    fn through_text(body: &str, keep: bool) -> Vec<String> {
        let mut record = Record::default();
        let mut sink = NhcbSink::new(&mut record, keep);
        let mut parser = TextParser::new();
        parser.feed(body.as_bytes(), &mut sink).unwrap();
        parser.finish(&mut sink).unwrap();
        record.lines.into_iter().filter(|l| !l.starts_with("type") && !l.starts_with("help") && l != "end").collect()
    }

    const ONE: &str = "h-53 count=2 sum=3 zero=0<=0 pos=[0+2][1, 0] neg=[][] custom=[1.0] Unknown";

    #[test]
    fn series_of_one_label_set_become_one_histogram() {
        let group = |labels: &str, more: &str| {
            format!(
                "h_bucket{{{labels}le=\"1\"{more}}} 1\nh_bucket{{{labels}le=\"+Inf\"{more}}} 2\nh_sum{{{labels}{more}}} 3\nh_count{{{labels}{more}}} 2\n"
            )
        };
        let plain = group("", "");
        for (body, want) in [
            (format!("# TYPE h histogram\n{plain}"), vec![format!("__name__=h {ONE}")]),
            (format!("# TYPE h histogram\n{plain}# HELP i x\n# TYPE i gauge\ni 1\n"), vec![format!("__name__=h {ONE}"), "__name__=i 1".to_owned()]),
            (format!("# TYPE h histogram\n{plain}i 1\n"), vec![format!("__name__=h {ONE}"), "__name__=i 1".to_owned()]),
            (
                format!("# TYPE h histogram\n{}{}", group("a=\"b\",", ""), group("a=\"c\",", "")),
                vec![format!("__name__=h a=b {ONE}"), format!("__name__=h a=c {ONE}")],
            ),
            // The order of labels says nothing.
            (
                "# TYPE h histogram\nh_bucket{a=\"b\",c=\"d\",le=\"1\"} 1\nh_bucket{c=\"d\",le=\"+Inf\",a=\"b\"} 2\nh_count{c=\"d\",a=\"b\"} 2\nh_sum{a=\"b\",c=\"d\"} 3\n".to_owned(),
                vec![format!("__name__=h a=b c=d {ONE}")],
            ),
            // Without a type, of another type, or of another family they are series as before.
            (
                "h_sum 1\n# TYPE h summary\nh_sum 1\n# TYPE h histogram\ni_sum 1\nh_bucket 2\nh_bucket{le=\"x\"} 3\nh_bucket{le=\"NaN\"} 4\nh 5\n".to_owned(),
                vec![
                    "__name__=h_sum 1".to_owned(),
                    "__name__=h_sum 1".to_owned(),
                    "__name__=i_sum 1".to_owned(),
                    "__name__=h_bucket 2".to_owned(),
                    "__name__=h_bucket le=x 3".to_owned(),
                    "__name__=h_bucket le=NaN 4".to_owned(),
                    "__name__=h 5".to_owned(),
                ],
            ),
            // What contradicts itself disappears.
            ("# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 1\ni 1\n".to_owned(), vec!["__name__=i 1".to_owned()]),
            // A time is kept.
            ("# TYPE h histogram\nh_bucket{le=\"1\"} 2 5\nh_count 2 5\n".to_owned(), vec!["__name__=h h-53 count=2 sum=0 zero=0<=0 pos=[0+1][2] neg=[][] custom=[1.0] Unknown @5".to_owned()]),
            (
                "# TYPE \"h.x\" histogram\n{\"h.x_bucket\",\"a b\"=\"c\",le=\"1\"} 1\n{\"h.x_count\",\"a b\"=\"c\"} 2\n{\"h.x_sum\",\"a b\"=\"c\"} 3\n".to_owned(),
                vec![format!("__name__=h.x a b=c {ONE}")],
            ),
        ] {
            assert_eq!(through_text(&body, false), want, "{body}");
        }
    }

    #[test]
    fn bodies_of_text_are_read_as_the_reference_reads_them() {
        let cases = recorded(include_str!("../tests/data/text_exposition.txt"));
        assert!(cases.len() > 200);
        for case in &cases {
            for piece in [usize::MAX, 7] {
                let mut record = Record { sorted: true, ..Record::default() };
                let result = if case.option("nhcb") {
                    parse_text(case, piece, &mut NhcbSink::new(&mut record, case.option("keep")))
                } else {
                    parse_text(case, piece, &mut record)
                };
                case.check(record, result);
            }
        }
    }

    fn parse_text<S: TextSink<Error = ParseError>>(
        case: &Recorded,
        piece: usize,
        sink: &mut S,
    ) -> Result<(), ParseError> {
        if case.format == "text" {
            let mut parser = TextParser::new();
            case.body.chunks(piece).try_for_each(|piece| parser.feed(piece, sink))?;
            parser.finish(sink)
        } else {
            let mut parser = OpenMetricsParser::new(case.option("starts"));
            case.body.chunks(piece).try_for_each(|piece| parser.feed(piece, sink))?;
            parser.finish(sink)
        }
    }

    #[test]
    fn what_goes_into_histograms_and_what_makes_none_is_counted() {
        let one = "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n";
        let broken = "# TYPE g histogram\ng_bucket{le=\"1\"} 2 # {a=\"b\"} 0.5\ng_bucket{le=\"+Inf\"} 1\n";
        for (keep, expected) in [
            (false, NhcbTally { made: 1, joined: 4, left_out: 3 }),
            // The samples are handed on themselves, and the exemplar is not.
            (true, NhcbTally { made: 1, joined: 0, left_out: 1 }),
        ] {
            let mut record = Record::default();
            let mut sink = NhcbSink::new(&mut record, keep);
            let mut parser = OpenMetricsParser::new(false);
            parser.feed(format!("{one}{broken}# TYPE i gauge\ni 1\n# EOF\n").as_bytes(), &mut sink).unwrap();
            parser.finish(&mut sink).unwrap();
            assert_eq!(sink.tally(), expected);
        }
    }

    #[test]
    fn classic_series_stay_where_they_are_wanted() {
        let body = "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\ni 1\n";
        let want = [
            "__name__=h_bucket le=1.0 1",
            "__name__=h_bucket le=+Inf 2",
            "__name__=h_sum 3",
            "__name__=h_count 2",
            &format!("__name__=h {ONE}"),
            "__name__=i 1",
        ];
        assert_eq!(through_text(body, true), want);
    }

    #[test]
    fn a_created_series_does_not_part_a_histogram() {
        let body =
            "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_created 9\nh_sum 3\nh_count 2\n";
        assert_eq!(through_text(body, false), ["__name__=h_created 9", &format!("__name__=h {ONE}")]);
        // That of another label set does.
        let body = "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\nh_created{a=\"b\"} 9\n";
        assert_eq!(through_text(body, false), [&format!("__name__=h {ONE}"), "__name__=h_created a=b 9"]);
    }

    #[test]
    fn exemplars_and_the_start_time_go_to_the_histogram() {
        let body = "# TYPE h histogram\nh_bucket{le=\"1\"} 1 # {a=\"b\"} 0.5\nh_bucket{le=\"+Inf\"} 2 # {a=\"c\"} 5 7\nh_sum 3\nh_count 2\nh_created 9\n# EOF\n";
        let run = |keep: bool| {
            let mut record = Record::default();
            let mut sink = NhcbSink::new(&mut record, keep);
            let mut parser = OpenMetricsParser::new(true);
            parser.feed(body.as_bytes(), &mut sink).unwrap();
            parser.finish(&mut sink).unwrap();
            record.lines
        };
        let one = format!("__name__=h {ONE}");
        let histogram = ["start 9000", &one, "exemplar {a=b} 0.5", "exemplar {a=c} 5 @7000", "end"];
        assert_eq!(run(false)[1..], histogram);
        let classic = [
            "type h histogram",
            "start 9000",
            "__name__=h_bucket le=1.0 1",
            "start 9000",
            "__name__=h_bucket le=+Inf 2",
            "start 9000",
            "__name__=h_sum 3",
            "start 9000",
            "__name__=h_count 2",
        ];
        assert_eq!(run(true), [&classic[..], &histogram[..]].concat());
    }

    #[test]
    fn a_native_histogram_keeps_its_classic_series_as_they_are() {
        let mut record = Record::default();
        let mut sink = NhcbSink::new(&mut record, false);
        let native = crate::histogram::testing::int(0, &[(0, 1)], &[1]);
        sink.family_type(b"h", MetricType::Histogram);
        for (text, want) in [
            ("h{a=\"b\"}", None),
            ("h_sum{a=\"b\"}", Some(1.0)),
            ("h_sum{a=\"c\"}", Some(2.0)),
            ("h_count{a=\"c\"}", Some(3.0)),
        ] {
            assert_eq!(sink.recognise(text.as_bytes(), MetricType::Histogram), None);
            sink.series(text.as_bytes(), MetricType::Histogram).unwrap();
            match want {
                Some(value) => sink.sample(value, None).unwrap(),
                None => sink.histogram(native.clone(), None).unwrap(),
            }
        }
        sink.end().unwrap();
        let want = [
            "type h histogram",
            "__name__=h a=b h0 count=1 sum=1 zero=0<=0 pos=[0+1][1] neg=[][] custom=[] Unknown",
            "__name__=h_sum a=b 1",
            "__name__=h a=c h-53 count=3 sum=2 zero=0<=0 pos=[0+1][3] neg=[][] custom=[] Unknown",
            "end",
        ];
        assert_eq!(record.lines, want);
    }

    #[test]
    fn the_sink_recognises_what_it_saw_before() {
        let body = "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_count 2\n# TYPE i gauge\ni 1\n";
        let mut record = Record { remembers: true, ..Record::default() };
        for unknown in [4, 4] {
            let mut sink = NhcbSink::new(&mut record, true);
            let mut parser = TextParser::new();
            parser.feed(body.as_bytes(), &mut sink).unwrap();
            parser.finish(&mut sink).unwrap();
            assert_eq!(record.unknown, unknown);
        }
        let half = record.lines.len() / 2;
        assert_eq!(record.lines[..half], record.lines[half..]);
    }

    proptest! {
        #[test]
        fn what_is_converted_is_valid(buckets in proptest::collection::vec((-9i32..9, 0u32..5, any::<bool>()), 0..9), more in 0u32..3) {
            let mut classic = Classic::default();
            let (mut bound, mut count) = (-50.0, 0.0);
            for (step, observations, half) in &buckets {
                bound += f64::from(step.abs()) + 0.5;
                count += f64::from(*observations) + if *half { 0.5 } else { 0.0 };
                classic.set_bucket(bound, count);
            }
            classic.set_count(count + f64::from(more));
            let histogram = classic.convert().unwrap();
            prop_assert_eq!(validate(&histogram), Ok(()));
            prop_assert_eq!(histogram.custom_values.len(), buckets.len());
        }

        #[test]
        fn no_body_makes_it_panic(body in "(# TYPE [hi] (histogram|gauge)\n|[hi](_bucket|_sum|_count|)(\\{(le=\"[0-3.]{0,3}\",?)?(a=\"b\")?\\})? [-0-9.N]{1,3}\n){0,20}", keep: bool) {
            let mut record = Record::default();
            let mut sink = NhcbSink::new(&mut record, keep);
            let mut parser = TextParser::new();
            let _ = parser.feed(body.as_bytes(), &mut sink).and_then(|()| parser.finish(&mut sink));
        }
    }
}
