//! What the two protocols of remote write share when a request is taken: options, errors, and how a batch is built.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use corten_signal::labels::METRIC_NAME;
use corten_signal::metrics::{Exemplar, Histogram, HistogramSample, Metadata, SeriesMetadata};
use corten_signal::{BlockBuilder, LabelError, LabelsBuilder, Sample, SeriesPart};

use crate::exposition::{ExemplarLabels, exemplar_fits};
use crate::histogram::HistogramError;
use crate::proto::ProtoError;

/// How a request is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeOptions {
    /// The highest time that is accepted, in milliseconds since the Unix epoch.
    pub latest_ms: i64,
    /// The most labels of a series. A series with more counts as one with invalid labels.
    pub labels_per_series_max: usize,
    /// The most memory that the batch may take, in bytes. A request of a few bytes can name much: what it makes of
    /// itself is what is limited.
    pub decoded_bytes_max: usize,
    /// The most errors whose texts are kept; others are counted.
    pub errors_max: usize,
    /// Whether metadata is taken; protocol 1 has none that belongs to series.
    pub metadata: bool,
    /// Whether type and unit of the metadata become the labels `__type__` and `__unit__`, in place of those that the
    /// series has.
    pub type_and_unit_labels: bool,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        DecodeOptions {
            latest_ms: i64::MAX,
            labels_per_series_max: 1024,
            decoded_bytes_max: 256 << 20,
            errors_max: 100,
            metadata: false,
            type_and_unit_labels: false,
        }
    }
}

/// What a request brought.
#[derive(Debug, Default)]
pub struct Decoded {
    /// The samples, histograms, exemplars and metadata.
    pub parts: Vec<SeriesPart>,
    /// How many samples.
    pub samples: u64,
    /// How many histograms.
    pub histograms: u64,
    /// How many exemplars.
    pub exemplars: u64,
    /// How many samples, histograms and exemplars the request had, with what was left out.
    pub seen: u64,
    /// How many exemplars were left out because they are too long or too far ahead. They are no errors.
    pub exemplars_left_out: u64,
    /// What was left out because of labels: series in protocol 1, samples and histograms in protocol 2.
    pub invalid: u64,
    /// Why something was left out; at most [`DecodeOptions::errors_max`] texts. In protocol 1 they are for the log, in
    /// protocol 2 for the answer.
    pub errors: Vec<String>,
    /// How many errors there were.
    pub errors_total: u64,
}

impl Decoded {
    pub(crate) fn error(&mut self, options: &DecodeOptions, text: impl FnOnce() -> String) {
        self.errors_total += 1;
        if self.errors.len() < options.errors_max {
            self.errors.push(text());
        }
    }
}

/// Why a request was refused as a whole.
#[derive(Clone, Debug, PartialEq)]
pub enum DecodeError {
    /// The message is broken.
    Proto(ProtoError),
    /// The batch would be longer than [`DecodeOptions::decoded_bytes_max`], in bytes.
    TooLarge(usize),
    /// A sample or histogram lies too far ahead.
    OutOfBounds,
    /// A histogram is not valid.
    Histogram(HistogramError),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Proto(error) => error.fmt(f),
            DecodeError::TooLarge(limit) => write!(f, "the decoded request is longer than the limit of {limit} bytes"),
            DecodeError::OutOfBounds => f.write_str("out of bounds: timestamp is too far in the future"),
            DecodeError::Histogram(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DecodeError {}

impl From<ProtoError> for DecodeError {
    fn from(error: ProtoError) -> Self {
        DecodeError::Proto(error)
    }
}

impl From<HistogramError> for DecodeError {
    fn from(error: HistogramError) -> Self {
        DecodeError::Histogram(error)
    }
}

/// What is wrong with the labels of a series.
#[derive(Debug)]
pub(crate) enum InvalidLabels {
    /// No name, a name that is not text, too many of them, or too long.
    Invalid,
    Duplicate(String),
}

/// Times are offsets of 32 bits to the base of a part. A span of 2^32 ms has one part; its base is the middle.
const SPAN_BITS: u32 = 32;

/// Builds the parts of a batch. Its blocks serve this batch alone.
pub(crate) struct Intake<'o> {
    options: &'o DecodeOptions,
    block: BlockBuilder,
    /// The parts of the block that is being built, by span of time, so that a series' samples come in order.
    open: BTreeMap<i64, OpenPart>,
    /// What came without a sample of its series, as Prometheus sends exemplars. It joins the last part: whatever time it is
    /// of, a receiver must have got the samples of the series before.
    loose: OpenPart,
    done: Vec<SeriesPart>,
    bytes: usize,
    /// The series at hand, and the span of its last sample.
    index: u32,
    span: Option<i64>,
}

#[derive(Default)]
struct OpenPart {
    samples: Vec<Sample>,
    histograms: Vec<HistogramSample>,
    exemplars: Vec<Exemplar>,
    metadata: Vec<SeriesMetadata>,
}

impl<'o> Intake<'o> {
    pub(crate) fn new(options: &'o DecodeOptions) -> Self {
        Intake {
            options,
            block: BlockBuilder::new(),
            open: BTreeMap::new(),
            loose: OpenPart::default(),
            done: Vec::new(),
            bytes: 0,
            index: 0,
            span: None,
        }
    }

    /// Counts memory that the batch will take.
    pub(crate) fn charge(&mut self, bytes: usize) -> Result<(), DecodeError> {
        self.bytes = self.bytes.saturating_add(bytes);
        let limit = self.options.decoded_bytes_max;
        if self.bytes > limit { Err(DecodeError::TooLarge(limit)) } else { Ok(()) }
    }

    /// Begins a series. What follows is of it.
    pub(crate) fn series(&mut self, labels: &mut LabelsBuilder) -> Result<Result<(), InvalidLabels>, DecodeError> {
        let name_is_missing = labels.get(METRIC_NAME).is_none_or(str::is_empty);
        if name_is_missing
            || labels.len() > self.options.labels_per_series_max
            || labels.iter().any(|(name, _)| name.is_empty())
        {
            return Ok(Err(InvalidLabels::Invalid));
        }
        if self.block.is_full() {
            self.seal();
        }
        self.charge(labels.iter().map(|(name, value)| name.len() + value.len() + 8).sum())?;
        match self.block.push(labels) {
            Ok(index) => self.index = index,
            Err(LabelError::Duplicate(name)) => return Ok(Err(InvalidLabels::Duplicate(name))),
            Err(LabelError::TooLong(_)) => return Ok(Err(InvalidLabels::Invalid)),
        }
        self.span = None;
        Ok(Ok(()))
    }

    /// Whether a time is accepted.
    pub(crate) fn is_in_bounds(&self, time_ms: i64) -> bool {
        time_ms <= self.options.latest_ms
    }

    pub(crate) fn sample(&mut self, time_ms: i64, value: f64) -> Result<(), DecodeError> {
        self.charge(size_of::<Sample>())?;
        let index = self.index;
        // The upper bits are the span; the lower ones, counted from its middle, are the offset.
        let offset_ms = (time_ms as u32).wrapping_sub(1 << (SPAN_BITS - 1)) as i32;
        self.part(time_ms).samples.push(Sample { value, index, offset_ms });
        Ok(())
    }

    pub(crate) fn histogram(&mut self, time_ms: i64, histogram: Histogram) {
        let index = self.index;
        let histogram = Arc::new(histogram);
        self.part(time_ms).histograms.push(HistogramSample { index, timestamp_ms: time_ms, histogram });
    }

    /// Adds an exemplar, unless it is too long or lies too far ahead: whether it was added.
    pub(crate) fn exemplar(&mut self, time_ms: i64, value: f64, labels: ExemplarLabels) -> Result<bool, DecodeError> {
        if !self.is_in_bounds(time_ms) || !exemplar_fits(labels.iter().map(|(n, v)| (&**n, &**v))) {
            return Ok(false);
        }
        let bytes: usize = labels.iter().map(|(n, v)| n.len() + v.len() + 2 * size_of::<Box<str>>()).sum();
        self.charge(size_of::<Exemplar>() + bytes)?;
        let index = self.index;
        self.part_of_series().exemplars.push(Exemplar { index, timestamp_ms: time_ms, value, labels });
        Ok(true)
    }

    pub(crate) fn metadata(&mut self, metadata: Metadata) -> Result<(), DecodeError> {
        let text = metadata.family.len() + metadata.help.len() + metadata.unit.len();
        self.charge(size_of::<SeriesMetadata>() + size_of::<Metadata>() + text)?;
        let (index, metadata) = (self.index, Arc::new(metadata));
        self.part_of_series().metadata.push(SeriesMetadata { index, metadata });
        Ok(())
    }

    fn part(&mut self, time_ms: i64) -> &mut OpenPart {
        let span = time_ms >> SPAN_BITS;
        self.span = Some(span);
        self.open.entry(span).or_default()
    }

    /// The part with the last sample of the series, if there is one.
    fn part_of_series(&mut self) -> &mut OpenPart {
        match self.span {
            Some(span) => self.open.entry(span).or_default(),
            None => &mut self.loose,
        }
    }

    fn seal(&mut self) {
        let loose = std::mem::take(&mut self.loose);
        if !loose.exemplars.is_empty() || !loose.metadata.is_empty() {
            let last = self.open.last_key_value().map_or(0, |(span, _)| *span);
            let part = self.open.entry(last).or_default();
            part.exemplars.extend(loose.exemplars);
            part.metadata.extend(loose.metadata);
        }
        let block = std::mem::take(&mut self.block).finish(false);
        self.done.extend(std::mem::take(&mut self.open).into_iter().map(|(span, part)| SeriesPart {
            block: Arc::clone(&block),
            base_ms: (span << SPAN_BITS) + (1 << (SPAN_BITS - 1)),
            samples: part.samples,
            histograms: part.histograms,
            exemplars: part.exemplars,
            metadata: part.metadata,
        }));
    }

    pub(crate) fn finish(mut self) -> Vec<SeriesPart> {
        self.seal();
        self.done
    }
}

/// Labels that are being read, and whether all of them are text.
#[derive(Default)]
pub(crate) struct RawLabels {
    pub(crate) labels: LabelsBuilder,
    is_text: bool,
    bytes: usize,
}

/// The longest label set that is read, in bytes; a longer one is invalid.
const RAW_LABELS_BYTES_MAX: usize = corten_signal::labels::ENCODED_BYTES_MAX;

impl RawLabels {
    pub(crate) fn clear(&mut self) {
        self.labels.clear();
        self.is_text = true;
        self.bytes = 0;
    }

    pub(crate) fn push(&mut self, name: &[u8], value: &[u8]) {
        // A label takes memory even where it is empty.
        self.bytes = self.bytes.saturating_add(name.len()).saturating_add(value.len()).saturating_add(16);
        if self.bytes > RAW_LABELS_BYTES_MAX {
            self.is_text = false;
            return;
        }
        match (std::str::from_utf8(name), std::str::from_utf8(value)) {
            (Ok(name), Ok(value)) => self.labels.push(name, value),
            _ => {
                self.is_text = false;
                self.labels.push(&String::from_utf8_lossy(name), &String::from_utf8_lossy(value));
            }
        }
    }

    /// Begins the series with these labels.
    pub(crate) fn begin(&mut self, intake: &mut Intake<'_>) -> Result<Result<(), InvalidLabels>, DecodeError> {
        if self.is_text { intake.series(&mut self.labels) } else { Ok(Err(InvalidLabels::Invalid)) }
    }

    /// The labels as the reference shows them, by name.
    pub(crate) fn show(&self) -> String {
        let mut labels: Vec<(&str, &str)> = self.labels.iter().collect();
        labels.sort();
        let shown: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        format!("{{{}}}", shown.join(", "))
    }

    pub(crate) fn error(&self, invalid: InvalidLabels) -> String {
        match invalid {
            InvalidLabels::Invalid => format!("invalid metric name or labels, got {}", self.show()),
            InvalidLabels::Duplicate(name) => {
                format!("invalid labels for series, labels {}, duplicated label {name}", self.show())
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! What tests of both protocols need.

    use super::*;
    use corten_signal::SeriesBlock;

    /// A block of label sets.
    pub(crate) fn block(sets: &[&[(&str, &str)]]) -> Arc<SeriesBlock> {
        let mut labels = LabelsBuilder::new();
        let mut block = BlockBuilder::new();
        for set in sets {
            labels.clear();
            set.iter().for_each(|(name, value)| labels.push(name, value));
            block.push(&mut labels).unwrap();
        }
        block.finish(false)
    }

    /// The content of parts, in lines.
    pub(crate) fn show(parts: &[SeriesPart]) -> Vec<String> {
        let mut out = Vec::new();
        for part in parts {
            let labels = |index: u32| part.block.labels(index).to_string();
            for s in &part.samples {
                out.push(format!("{} {:x} @{}", labels(s.index), s.value.to_bits(), part.timestamp_ms(s)));
            }
            for h in &part.histograms {
                out.push(format!("{} {:?} @{}", labels(h.index), h.histogram, h.timestamp_ms));
            }
            for e in &part.exemplars {
                out.push(format!("{} # {:?} {:x} @{}", labels(e.index), e.labels, e.value.to_bits(), e.timestamp_ms));
            }
            for m in &part.metadata {
                out.push(format!("{} {:?}", labels(m.index), m.metadata));
            }
        }
        out
    }
}
