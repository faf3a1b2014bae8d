//! Prometheus remote write 2: `io.prometheus.write.v2.Request` of the remote write specification 2.0.
//!
//! A request holds each string once, and series refer to strings by number. So requests are not joined by putting one behind
//! the other: see [`RequestEncoder::push_request`].

use corten_signal::labels::{METRIC_NAME, put_varint, varint_len};
use corten_signal::metrics::{Exemplar, Histogram, Metadata, MetricType};
use corten_signal::{Labels, SeriesPart};
use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use crate::exposition::{ExemplarLabels, type_name};
pub use crate::intake::{DecodeError, DecodeOptions, Decoded};
use crate::intake::{Intake, RawLabels};
use crate::proto::{Field, Fields, ProtoError, put_bytes, put_double, put_int64, put_message, put_uint64, take_varint};
use crate::remote_write::{accept_histogram, put_histogram, read_histogram, read_sample, type_number};

/// Writes requests, one after another. It keeps its allocations.
#[derive(Debug)]
pub struct RequestEncoder {
    symbols: Symbols,
    /// The `timeseries` field.
    series: Vec<u8>,
    /// The labels of the series that was written last: series beside each other have most labels in common.
    last: Vec<LastLabel>,
    last_labels: Vec<u8>,
    current: Vec<LastLabel>,
    refs: Vec<u8>,
}

/// A label of the series that was written last: where it lies in the label set, and its references.
#[derive(Clone, Copy, Debug)]
struct LastLabel {
    start: usize,
    end: usize,
    name_ref: u32,
    value_ref: u32,
}

/// What of a part goes into requests besides samples.
#[derive(Clone, Copy, Debug)]
pub struct PartKinds {
    /// Whether native histograms are written.
    pub histograms: bool,
    /// Whether exemplars are written.
    pub exemplars: bool,
}

/// How far a part was written.
#[derive(Debug, Default)]
pub struct PartCursor {
    sample: usize,
    histogram: usize,
    /// The exemplars by the hashes of their series, and for each whether it was written.
    exemplars: Option<Vec<(u32, bool)>>,
}

/// What was added to a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PushedCounts {
    /// How many samples.
    pub samples: usize,
    /// How many histograms.
    pub histograms: usize,
    /// How many exemplars.
    pub exemplars: usize,
    /// How many series had metadata.
    pub metadata: usize,
}

impl PushedCounts {
    /// Samples, histograms and exemplars together.
    pub fn items(&self) -> usize {
        self.samples + self.histograms + self.exemplars
    }
}

impl std::ops::AddAssign for PushedCounts {
    fn add_assign(&mut self, other: Self) {
        self.samples += other.samples;
        self.histograms += other.histograms;
        self.exemplars += other.exemplars;
        self.metadata += other.metadata;
    }
}

impl Default for RequestEncoder {
    fn default() -> Self {
        RequestEncoder {
            symbols: Symbols::new(),
            series: Vec::new(),
            last: Vec::new(),
            last_labels: Vec::new(),
            current: Vec::new(),
            refs: Vec::new(),
        }
    }
}

impl RequestEncoder {
    /// An encoder of an empty request.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the request has no series.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// The length of the request so far, in bytes.
    pub fn encoded_len(&self) -> usize {
        self.symbols.encoded.len() + self.series.len()
    }

    /// Appends the request to `out` and begins another.
    pub fn finish_into(&mut self, out: &mut Vec<u8>) {
        out.reserve(self.encoded_len());
        out.extend_from_slice(&self.symbols.encoded);
        out.append(&mut self.series);
        self.symbols.clear();
        self.last.clear();
    }

    /// Adds the series of another request, in their order. What its series hold is copied as it is; only its strings are
    /// numbered anew.
    ///
    /// # Errors
    ///
    /// Where it is no request. A part of it was added then.
    pub fn push_request(&mut self, request: &[u8]) -> Result<(), NotARequest> {
        let mut ids = Vec::new();
        let mut fields = Fields::new(request);
        while let Some(field) = fields.next()? {
            if field.number == 4 {
                ids.push(self.symbols.id(field.bytes()?));
            }
        }
        let id_of = |old: u64| usize::try_from(old).ok().and_then(|at| ids.get(at)).copied().ok_or(NotARequest);
        let mut fields = Fields::new(request);
        while let Some(field) = fields.next()? {
            if field.number == 5 {
                put_renumbered(&mut self.series, 5, field.message()?, SERIES, &id_of)?;
            }
        }
        Ok(())
    }

    /// Adds a series with one sample. A `start_ms` of 0 is none.
    pub fn push_sample(
        &mut self,
        labels: Labels<'_>,
        value: f64,
        timestamp_ms: i64,
        start_ms: i64,
        metadata: Option<&Metadata>,
    ) {
        self.push(labels, metadata, |out, _| put_sample(out, value, timestamp_ms, start_ms));
    }

    /// Adds a series with one native histogram. A `start_ms` of 0 is none.
    pub fn push_histogram(
        &mut self,
        labels: Labels<'_>,
        histogram: &Histogram,
        timestamp_ms: i64,
        start_ms: i64,
        metadata: Option<&Metadata>,
    ) {
        self.push(labels, metadata, |out, _| {
            put_message(out, 3, |out| put_histogram(out, histogram, timestamp_ms, start_ms));
        });
    }

    /// Adds the sample or histogram that is next, and moves the cursor past it. Exemplars go with the first sample or
    /// histogram of their series, without which the protocol cannot carry them. Nothing is added at the end of the part.
    pub fn push_next(
        &mut self,
        part: &SeriesPart,
        at: &mut PartCursor,
        kinds: PartKinds,
        metadata: Option<&Metadata>,
    ) -> PushedCounts {
        let mut pushed = PushedCounts::default();
        let Some(next) = at.next(part, kinds) else { return pushed };
        at.sort_exemplars(part, kinds);
        let order = at.exemplars.get_or_insert_default();
        match next {
            Next::Sample => {
                let sample = &part.samples[at.sample];
                let time_ms = part.timestamp_ms(sample);
                self.push(part.block.labels(sample.index), metadata, |out, symbols| {
                    put_sample(out, sample.value, time_ms, 0);
                    pushed.exemplars += put_exemplars_of(out, sample.index, part, order, symbols);
                });
                pushed.samples += 1;
                at.sample += 1;
            }
            Next::Histogram => {
                let sample = &part.histograms[at.histogram];
                self.push(part.block.labels(sample.index), metadata, |out, symbols| {
                    put_message(out, 3, |out| put_histogram(out, &sample.histogram, sample.timestamp_ms, 0));
                    pushed.exemplars += put_exemplars_of(out, sample.index, part, order, symbols);
                });
                pushed.histograms += 1;
                at.histogram += 1;
            }
        }
        pushed.metadata += usize::from(metadata.is_some());
        pushed
    }

    fn push(
        &mut self,
        labels: Labels<'_>,
        metadata: Option<&Metadata>,
        write: impl FnOnce(&mut Vec<u8>, &mut Symbols),
    ) {
        self.symbolize(labels);
        let RequestEncoder { symbols, series, refs, .. } = self;
        put_message(series, 5, |out| {
            put_bytes(out, 1, refs);
            write(out, symbols);
            if let Some(metadata) = metadata {
                let (help, unit) = (symbols.id(metadata.help.as_bytes()), symbols.id(metadata.unit.as_bytes()));
                put_message(out, 5, |out| {
                    put_uint64(out, 1, type_number(metadata.metric_type));
                    put_uint64(out, 3, u64::from(help));
                    put_uint64(out, 4, u64::from(unit));
                });
            }
        });
    }

    /// Writes the references of labels to `self.refs`.
    fn symbolize(&mut self, labels: Labels<'_>) {
        let RequestEncoder { symbols, last, current, last_labels, refs, .. } = self;
        let encoded = labels.as_encoded();
        current.clear();
        refs.clear();
        let (mut from, mut at) = (0, 0);
        while let Some((start, end)) = field_at(encoded, from) {
            from = end;
            let label = &encoded[start..end];
            let (name_ref, value_ref) = match last.get(at) {
                Some(same) if last_labels[same.start..same.end] == *label => {
                    at += 1;
                    (same.name_ref, same.value_ref)
                }
                _ => {
                    let (name, value) = name_and_value(label);
                    // Both sets are sorted: what the other one has before this name is passed over.
                    while last.get(at).is_some_and(|l| symbols.text(l.name_ref) < name) {
                        at += 1;
                    }
                    match last.get(at) {
                        Some(l) if symbols.text(l.name_ref) == name => {
                            at += 1;
                            let is_same = symbols.text(l.value_ref) == value;
                            (l.name_ref, if is_same { l.value_ref } else { symbols.id(value) })
                        }
                        _ => (symbols.id(name), symbols.id(value)),
                    }
                }
            };
            put_varint(refs, u64::from(name_ref));
            put_varint(refs, u64::from(value_ref));
            current.push(LastLabel { start, end, name_ref, value_ref });
        }
        last_labels.clear();
        last_labels.extend_from_slice(encoded);
        std::mem::swap(last, current);
    }
}

/// Where the body of the field lies that begins at `from`: all fields of a label set have a length.
fn field_at(encoded: &[u8], from: usize) -> Option<(usize, usize)> {
    let mut rest = encoded.get(from + 1..)?;
    let len = take_varint(&mut rest).ok()? as usize;
    let start = encoded.len() - rest.len();
    (len <= rest.len()).then_some((start, start + len))
}

/// Name and value of an encoded label.
fn name_and_value(label: &[u8]) -> (&[u8], &[u8]) {
    let name = field_at(label, 0).unwrap_or_default();
    let value = field_at(label, name.1).unwrap_or_default();
    (&label[name.0..name.1], &label[value.0..value.1])
}

/// What a cursor has before it.
enum Next {
    Sample,
    Histogram,
}

impl PartCursor {
    /// A cursor at the start of a part.
    pub fn new() -> Self {
        Self::default()
    }

    /// The series of what comes next; none at the end of the part.
    pub fn series(&self, part: &SeriesPart, kinds: PartKinds) -> Option<u32> {
        Some(match self.next(part, kinds)? {
            Next::Sample => part.samples[self.sample].index,
            Next::Histogram => part.histograms[self.histogram].index,
        })
    }

    /// The time of what comes next, in milliseconds since the Unix epoch; none at the end of the part.
    pub fn timestamp_ms(&self, part: &SeriesPart, kinds: PartKinds) -> Option<i64> {
        Some(match self.next(part, kinds)? {
            Next::Sample => part.timestamp_ms(&part.samples[self.sample]),
            Next::Histogram => part.histograms[self.histogram].timestamp_ms,
        })
    }

    /// How many exemplars were not written so far.
    pub fn left_over(&self, part: &SeriesPart, kinds: PartKinds) -> usize {
        match &self.exemplars {
            Some(exemplars) => exemplars.iter().filter(|(_, is_written)| !is_written).count(),
            None if kinds.exemplars => part.exemplars.len(),
            None => 0,
        }
    }

    fn next(&self, part: &SeriesPart, kinds: PartKinds) -> Option<Next> {
        if self.sample < part.samples.len() {
            Some(Next::Sample)
        } else if kinds.histograms && self.histogram < part.histograms.len() {
            Some(Next::Histogram)
        } else {
            None
        }
    }

    fn sort_exemplars(&mut self, part: &SeriesPart, kinds: PartKinds) {
        if self.exemplars.is_none() {
            let count = if kinds.exemplars { part.exemplars.len() as u32 } else { 0 };
            let mut order: Vec<(u32, bool)> = (0..count).map(|exemplar| (exemplar, false)).collect();
            order.sort_by_key(|(exemplar, _)| part.block.hash64(part.exemplars[*exemplar as usize].index));
            self.exemplars = Some(order);
        }
    }
}

fn put_sample(out: &mut Vec<u8>, value: f64, timestamp_ms: i64, start_ms: i64) {
    let number_len = |number: i64| if number == 0 { 0 } else { 1 + varint_len(number as u64) };
    let value_len = if value.to_bits() == 0 { 0 } else { 9 };
    // The longest sample has 31 bytes, so that its length takes one.
    out.extend_from_slice(&[0x12, (value_len + number_len(timestamp_ms) + number_len(start_ms)) as u8]);
    put_double(out, 1, value);
    put_int64(out, 2, timestamp_ms);
    put_int64(out, 3, start_ms);
}

/// Writes the exemplars of a series that were not written, and returns how many.
fn put_exemplars_of(
    out: &mut Vec<u8>,
    index: u32,
    part: &SeriesPart,
    order: &mut [(u32, bool)],
    symbols: &mut Symbols,
) -> usize {
    if order.is_empty() {
        return 0;
    }
    // A sender may bring the exemplars of a series apart from its samples, and then it has two places in the block.
    let (hash, labels) = (part.block.hash64(index), part.block.labels(index));
    let hash_of = |i: u32| part.block.hash64(part.exemplars[i as usize].index);
    let start = order.partition_point(|(i, _)| hash_of(*i) < hash);
    let mut written = 0;
    for (i, is_written) in &mut order[start..] {
        let exemplar = &part.exemplars[*i as usize];
        if hash_of(*i) != hash {
            break;
        }
        if exemplar.index != index && part.block.labels(exemplar.index) != labels {
            continue;
        }
        if *is_written {
            break;
        }
        put_exemplar(out, exemplar, symbols);
        *is_written = true;
        written += 1;
    }
    written
}

fn put_exemplar(out: &mut Vec<u8>, exemplar: &Exemplar, symbols: &mut Symbols) {
    put_message(out, 4, |out| {
        if !exemplar.labels.is_empty() {
            put_message(out, 1, |out| {
                for (name, value) in &exemplar.labels {
                    put_varint(out, u64::from(symbols.id(name.as_bytes())));
                    put_varint(out, u64::from(symbols.id(value.as_bytes())));
                }
            });
        }
        put_double(out, 2, exemplar.value);
        put_int64(out, 3, exemplar.timestamp_ms);
    });
}

/// A request that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotARequest;

impl std::fmt::Display for NotARequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not a request of remote write 2")
    }
}

impl std::error::Error for NotARequest {}

impl From<ProtoError> for NotARequest {
    fn from(_: ProtoError) -> Self {
        NotARequest
    }
}

/// Where a message refers to strings.
struct Referring {
    /// The field of a list of references.
    list: Option<u32>,
    /// The fields that are one reference.
    single: &'static [u32],
    /// The fields that are messages with references in them.
    messages: &'static [(u32, Referring)],
}

const SERIES: &Referring = &Referring { list: Some(1), single: &[], messages: &[(4, EXEMPLAR), (5, METADATA)] };
const EXEMPLAR: Referring = Referring { list: Some(1), single: &[], messages: &[] };
const METADATA: Referring = Referring { list: None, single: &[3, 4], messages: &[] };

/// Writes a message with other numbers in place of its references.
fn put_renumbered(
    out: &mut Vec<u8>,
    number: u32,
    mut message: Fields<'_>,
    referring: &Referring,
    id_of: &impl Fn(u64) -> Result<u32, NotARequest>,
) -> Result<(), NotARequest> {
    let mut outcome = Ok(());
    put_message(out, number, |out| {
        outcome = (|| {
            while let Some((field, raw)) = message.next_raw()? {
                if referring.list == Some(field.number) {
                    let mut refs = Vec::new();
                    field.push_uint32s(&mut refs)?;
                    let ids: Vec<u32> =
                        refs.into_iter().map(|old| id_of(u64::from(old))).collect::<Result<_, NotARequest>>()?;
                    put_message(out, field.number, |out| ids.iter().for_each(|id| put_varint(out, u64::from(*id))));
                } else if referring.single.contains(&field.number) {
                    put_uint64(out, field.number, u64::from(id_of(field.uint64()?)?));
                } else if let Some((_, inner)) = referring.messages.iter().find(|(n, _)| *n == field.number) {
                    put_renumbered(out, field.number, field.message()?, inner, id_of)?;
                } else {
                    out.extend_from_slice(raw);
                }
            }
            Ok(())
        })();
    });
    outcome
}

/// The strings of a request. The first is the empty one.
#[derive(Debug)]
struct Symbols {
    /// The `symbols` field.
    encoded: Vec<u8>,
    /// Where in `encoded` each string lies.
    places: Vec<(u32, u32)>,
    table: HashTable<u32>,
}

/// The field of the empty string.
const EMPTY_SYMBOL: &[u8] = b"\x22\0";

impl Symbols {
    fn new() -> Self {
        Symbols { encoded: EMPTY_SYMBOL.to_vec(), places: vec![(2, 2)], table: HashTable::new() }
    }

    fn clear(&mut self) {
        self.encoded.truncate(EMPTY_SYMBOL.len());
        self.places.truncate(1);
        self.table.clear();
    }

    fn text(&self, id: u32) -> &[u8] {
        let (start, end) = self.places[id as usize];
        &self.encoded[start as usize..end as usize]
    }

    /// The number of a string, which is added if it is new.
    fn id(&mut self, text: &[u8]) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let hash = xxh3_64(text);
        if let Some(id) = self.table.find(hash, |id| self.text(*id) == text) {
            return *id;
        }
        let id = self.places.len() as u32;
        put_bytes(&mut self.encoded, 4, text);
        let end = self.encoded.len();
        self.places.push(((end - text.len()) as u32, end as u32));
        let (encoded, places) = (&self.encoded, &self.places);
        self.table.insert_unique(hash, id, |id| {
            let (start, end) = places[*id as usize];
            xxh3_64(&encoded[start as usize..end as usize])
        });
        id
    }
}

/// Reads a `Request`.
///
/// What is wrong with a series, a sample or a histogram is noted, and the rest is taken: see [`Decoded::errors`].
/// Resolutions that are too high are lowered.
///
/// # Errors
///
/// Where the message is broken or too large.
pub fn decode_request(message: &[u8], options: &DecodeOptions) -> Result<Decoded, DecodeError> {
    let mut reader = Reader {
        options,
        symbols: Vec::new(),
        labels: RawLabels::default(),
        refs: Vec::new(),
        intake: Intake::new(options),
        decoded: Decoded::default(),
    };
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next()? {
        if field.number == 4 {
            reader.intake.charge(size_of::<&[u8]>())?;
            reader.symbols.push(field.bytes()?);
        }
    }
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next()? {
        if field.number == 5 {
            reader.series(field.message()?)?;
        }
    }
    let mut decoded = reader.decoded;
    decoded.parts = reader.intake.finish();
    Ok(decoded)
}

struct Reader<'a, 'o> {
    options: &'o DecodeOptions,
    symbols: Vec<&'a [u8]>,
    labels: RawLabels,
    refs: Vec<u32>,
    intake: Intake<'o>,
    decoded: Decoded,
}

impl<'a> Reader<'a, '_> {
    fn error(&mut self, text: impl FnOnce(&RawLabels) -> String) {
        let labels = &self.labels;
        self.decoded.error(self.options, || text(labels));
    }

    fn series(&mut self, series: Fields<'a>) -> Result<(), DecodeError> {
        self.refs.clear();
        let mut metadata = None;
        let (mut points, mut exemplars) = (0, 0);
        let mut fields = series;
        while let Some(field) = fields.next()? {
            match field.number {
                1 => push_refs(&field, &mut self.refs)?,
                2 | 3 => points += 1,
                4 => exemplars += 1,
                5 => metadata = Some(read_metadata(&field)?),
                _ => {}
            }
        }
        self.decoded.seen += points + exemplars;
        if let Err(error) = self.read_labels() {
            let shown = show_refs(&self.refs);
            self.error(|_| format!("parsing labels for series {shown}: {error}"));
            self.decoded.invalid += points;
            return Ok(());
        }
        let metadata = match metadata.map(|m| self.resolve_metadata(m)).transpose() {
            Ok(metadata) => metadata.unwrap_or_default(),
            Err(error) => {
                let shown = show_refs(&self.refs);
                self.error(|_| format!("parsing metadata for series {shown}: {error}"));
                return Ok(());
            }
        };
        if self.options.type_and_unit_labels {
            self.add_type_and_unit(&metadata);
        }
        if let Err(invalid) = self.labels.begin(&mut self.intake)? {
            self.error(|labels| labels.error(invalid));
            self.decoded.invalid += points;
            return Ok(());
        }
        // The protocol wants points of every series. Prometheus sends exemplars as series of their own all the same.
        if points == 0 && exemplars == 0 {
            self.error(|labels| {
                format!("TimeSeries must contain at least one sample or histogram for series {}", labels.show())
            });
            return Ok(());
        }
        let mut fields = series;
        while let Some(field) = fields.next()? {
            match field.number {
                2 => {
                    let (time_ms, value) = read_sample(&field)?;
                    if self.intake.is_in_bounds(time_ms) {
                        self.intake.sample(time_ms, value)?;
                        self.decoded.samples += 1;
                    } else {
                        self.error(|labels| format!("{} for series {}", DecodeError::OutOfBounds, labels.show()));
                    }
                }
                3 => self.histogram(&field)?,
                _ => {}
            }
        }
        let mut fields = series;
        while let Some(field) = fields.next()? {
            if field.number == 4 {
                self.exemplar(&field)?;
            }
        }
        let is_known =
            metadata.metric_type != MetricType::Unknown || !metadata.help.is_empty() || !metadata.unit.is_empty();
        if self.options.metadata && is_known {
            let family = self.labels.labels.get(METRIC_NAME).unwrap_or_default().to_owned();
            self.intake.metadata(Metadata { family, ..metadata })?;
        }
        Ok(())
    }

    /// Reads the labels that `self.refs` refers to.
    fn read_labels(&mut self) -> Result<(), String> {
        self.labels.clear();
        let (pairs, rest) = self.refs.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(format!("invalid labelRefs length {}", self.refs.len()));
        }
        for [name, value] in pairs {
            let (name, value) = self.pair(*name, *value)?;
            self.labels.push(name, value);
        }
        Ok(())
    }

    fn pair(&self, name: u32, value: u32) -> Result<(&'a [u8], &'a [u8]), String> {
        match (self.symbols.get(name as usize), self.symbols.get(value as usize)) {
            (Some(name), Some(value)) => Ok((name, value)),
            _ => {
                let size = self.symbols.len();
                Err(format!("labelRefs {name} (name) = {value} (value) outside of symbols table (size {size})"))
            }
        }
    }

    fn resolve_metadata(&self, (number, help, unit): (u64, u32, u32)) -> Result<Metadata, String> {
        let text = |id: u32, what: &str| {
            let size = self.symbols.len();
            let text = self.symbols.get(id as usize);
            // A request without metadata may leave out even the empty symbol.
            let text = text.copied().or((id == 0).then_some(&b""[..]));
            text.map(|t| String::from_utf8_lossy(t).into_owned())
                .ok_or_else(|| format!("metadata {what} {id} outside of symbols table (size {size})"))
        };
        let metric_type = match number {
            1 => MetricType::Counter,
            2 => MetricType::Gauge,
            3 => MetricType::Histogram,
            4 => MetricType::GaugeHistogram,
            5 => MetricType::Summary,
            6 => MetricType::Info,
            7 => MetricType::StateSet,
            _ => MetricType::Unknown,
        };
        let unit = text(unit, "unit_ref")?;
        Ok(Metadata { family: String::new(), metric_type, help: text(help, "help_ref")?, unit })
    }

    fn add_type_and_unit(&mut self, metadata: &Metadata) {
        let has_type = metadata.metric_type != MetricType::Unknown;
        if !has_type && metadata.unit.is_empty() {
            return;
        }
        self.labels.labels.retain(|name, _| name != "__type__" && name != "__unit__");
        if has_type {
            self.labels.push(b"__type__", type_name(metadata.metric_type).as_bytes());
        }
        if !metadata.unit.is_empty() {
            self.labels.push(b"__unit__", metadata.unit.as_bytes());
        }
    }

    fn histogram(&mut self, field: &Field<'_>) -> Result<(), DecodeError> {
        let (histogram, time_ms) = read_histogram(field, &mut self.intake)?;
        let accepted =
            if self.intake.is_in_bounds(time_ms) { accept_histogram(histogram) } else { Err(DecodeError::OutOfBounds) };
        match accepted {
            Ok(histogram) => {
                self.intake.histogram(time_ms, histogram);
                self.decoded.histograms += 1;
            }
            Err(error) => self.error(|labels| format!("{error} for series {}", labels.show())),
        }
        Ok(())
    }

    fn exemplar(&mut self, field: &Field<'_>) -> Result<(), DecodeError> {
        let (mut time_ms, mut value) = (0, 0.0);
        let mut refs = Vec::new();
        let mut fields = field.message()?;
        while let Some(field) = fields.next()? {
            match field.number {
                1 => push_refs(&field, &mut refs)?,
                2 => value = field.double()?,
                3 => time_ms = field.int64()?,
                _ => {}
            }
        }
        match self.exemplar_labels(&refs)? {
            Ok(labels) => {
                if self.intake.exemplar(time_ms, value, labels)? {
                    self.decoded.exemplars += 1;
                } else {
                    self.decoded.exemplars_left_out += 1;
                }
            }
            Err(error) => {
                self.error(|labels| format!("parsing exemplar for series {}: {error}", labels.show()));
            }
        }
        Ok(())
    }

    fn exemplar_labels(&mut self, refs: &[u32]) -> Result<Result<ExemplarLabels, String>, DecodeError> {
        let (pairs, rest) = refs.as_chunks::<2>();
        if !rest.is_empty() {
            return Ok(Err(format!("invalid labelRefs length {}", refs.len())));
        }
        let mut labels = Vec::new();
        for [name, value] in pairs {
            let (name, value) = match self.pair(*name, *value) {
                Ok(pair) => pair,
                Err(error) => return Ok(Err(error)),
            };
            self.intake.charge(2 * size_of::<Box<str>>() + name.len() + value.len())?;
            labels.push((Box::from(String::from_utf8_lossy(name)), Box::from(String::from_utf8_lossy(value))));
        }
        labels.sort();
        Ok(Ok(labels))
    }
}

/// The longest list of references that is read, in bytes: one of a byte takes four.
const REFS_BYTES_MAX: usize = 1 << 20;

fn push_refs(field: &Field<'_>, refs: &mut Vec<u32>) -> Result<(), DecodeError> {
    let len = field.bytes().map_or(1, <[u8]>::len);
    if len + refs.len() > REFS_BYTES_MAX {
        return Err(DecodeError::TooLarge(REFS_BYTES_MAX));
    }
    Ok(field.push_uint32s(refs)?)
}

/// `Metadata`: the number of the type, the references of help and unit.
fn read_metadata(field: &Field<'_>) -> Result<(u64, u32, u32), ProtoError> {
    let (mut number, mut help, mut unit) = (0, 0, 0);
    let mut fields = field.message()?;
    while let Some(field) = fields.next()? {
        match field.number {
            1 => number = field.uint64()?,
            3 => help = field.uint32()?,
            4 => unit = field.uint32()?,
            _ => {}
        }
    }
    Ok((number, help, unit))
}

/// References as the reference shows them: `[1 2 3]`; of many, the first.
fn show_refs(refs: &[u32]) -> String {
    const SHOWN_MAX: usize = 64;
    let shown: Vec<String> = refs.iter().take(SHOWN_MAX).map(u32::to_string).collect();
    let dots = if refs.len() > SHOWN_MAX { " ..." } else { "" };
    format!("[{}{dots}]", shown.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::testing::{exponential, int};
    use crate::intake::testing::{block, show};
    use crate::proto::from_hex;
    use corten_signal::metrics::HistogramSample;
    use corten_signal::{BlockBuilder, LabelsBuilder, Sample};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn counter() -> Metadata {
        let (family, help) = (String::new(), "some help".to_owned());
        Metadata { family, metric_type: MetricType::Counter, help, unit: "bytes".to_owned() }
    }

    fn finish(encoder: &mut RequestEncoder) -> Vec<u8> {
        let mut out = Vec::new();
        encoder.finish_into(&mut out);
        out
    }

    fn options() -> DecodeOptions {
        DecodeOptions { metadata: true, ..DecodeOptions::default() }
    }

    fn exemplar(index: u32, value: f64, labels: &[(&str, &str)]) -> Exemplar {
        let labels = labels.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
        Exemplar { index, timestamp_ms: 5, value, labels }
    }

    /// Writes fields.
    type Write<'a> = &'a dyn Fn(&mut Vec<u8>);

    /// A request of raw fields: symbols, then series.
    fn raw(symbols: &[&[u8]], series: &[Write<'_>]) -> Vec<u8> {
        let mut out = Vec::new();
        symbols.iter().for_each(|s| put_bytes(&mut out, 4, s));
        series.iter().for_each(|write| put_message(&mut out, 5, |out| write(out)));
        out
    }

    #[test]
    fn what_the_reference_writes_is_read() {
        let request = from_hex(
            "220022085f5f6e616d655f5f2201682201612202c3a4220874726163655f69642201782209736f6d652068656c70220562797465732202c3b62a320a0401020304120d09000000000000f03f1005180312021006220f0a02050611000000000000004018052a060801180720082abc010a04010203091a38080e19000000000000f8bf200329000000000000e03f3003420508d80410024a0208035a04080510025a04080810016203020403700278051a4711000000000000044019020000000000f07f20063900000000000000004204080210015208000000000000f03f5a0210026a10000000000000f03f000000000000e03f700378061a2f0803190000000000001040206930005a021002620202027807820110000000000000e03f0000000000001c408801022a00",
        );
        let decoded = decode_request(&request, &options()).unwrap();
        let whole = "Histogram { schema: -2, zero_threshold: 0.5, sum: -1.5, reset_hint: No, positive_spans: [Span { offset: -3, length: 2 }, Span { offset: 4, length: 1 }], negative_spans: [Span { offset: 300, length: 2 }], counts: Int { count: 14, zero_count: 3, positive_deltas: [1, 2, -2], negative_deltas: [4, -2] }, custom_values: [] }";
        let float = "Histogram { schema: 3, zero_threshold: 0.0, sum: NaN, reset_hint: Gauge, positive_spans: [Span { offset: 0, length: 2 }], negative_spans: [Span { offset: 1, length: 1 }], counts: Float { count: 2.5, zero_count: 0.0, positive_counts: [1.0, 0.5], negative_counts: [1.0] }, custom_values: [] }";
        let custom = Histogram { sum: 4.0, custom_values: vec![0.5, 7.0], ..int(-53, &[(0, 2)], &[1, 1]) };
        let metadata = Metadata { family: "h".to_owned(), ..counter() };
        let want = [
            r#"{__name__="h", a="ä"} 3ff0000000000000 @5"#.to_owned(),
            r#"{__name__="h", a="ä"} 0 @6"#.to_owned(),
            format!(r#"{{__name__="h", a="ö"}} {whole} @5"#),
            format!(r#"{{__name__="h", a="ö"}} {float} @6"#),
            format!(r#"{{__name__="h", a="ö"}} {custom:?} @7"#),
            r#"{__name__="h", a="ä"} # [("trace_id", "x")] 4000000000000000 @5"#.to_owned(),
            format!(r#"{{__name__="h", a="ä"}} {metadata:?}"#),
        ];
        assert_eq!(show(&decoded.parts), want);
        assert_eq!((decoded.samples, decoded.histograms, decoded.exemplars, decoded.errors_total), (2, 3, 1, 0));
    }

    #[test]
    fn a_string_stands_in_a_request_once() {
        let block = block(&[
            &[("__name__", "a"), ("job", "x")],
            &[("__name__", "b"), ("job", "x"), ("le", "a")],
            &[("__name__", "b"), ("zone", "x")],
        ]);
        let mut encoder = RequestEncoder::new();
        let mut first = Vec::new();
        for _ in 0..2 {
            assert!(encoder.is_empty());
            for index in 0..3 {
                encoder.push_sample(block.labels(index), 1.0, 5, 0, None);
            }
            let request = finish(&mut encoder);
            let mut fields = Fields::new(&request);
            let (mut symbols, mut refs) = (Vec::new(), Vec::new());
            while let Some(field) = fields.next().unwrap() {
                if field.number == 4 {
                    symbols.push(std::str::from_utf8(field.bytes().unwrap()).unwrap());
                    continue;
                }
                let mut series = field.message().unwrap();
                let mut of_series = Vec::new();
                series.next().unwrap().unwrap().push_uint32s(&mut of_series).unwrap();
                refs.push(of_series);
            }
            assert_eq!(symbols, ["", "__name__", "a", "job", "x", "b", "le", "zone"]);
            assert_eq!(refs, [&[1, 2, 3, 4][..], &[1, 5, 3, 4, 6, 2], &[1, 5, 7, 4]]);
            assert!(first.is_empty() || first == request);
            first = request;
        }
    }

    #[test]
    fn start_times_and_metadata_are_written() {
        let block = block(&[&[("__name__", "a")]]);
        let mut encoder = RequestEncoder::new();
        encoder.push_sample(block.labels(0), 0.0, 5, 3, Some(&counter()));
        encoder.push_histogram(block.labels(0), &int(0, &[], &[]), 6, 4, None);
        // The reference's decoder reads from these bytes: symbols "", __name__, a, "some help", bytes; a sample of 0 at 5
        // from 3 of a counter; and an empty histogram at 6 from 4.
        let want = "220022085f5f6e616d655f5f2201612209736f6d652068656c70220562797465732a120a0201021204100518032a060801180320042a180a0201021a12080019000000000000f03f30007806880104";
        assert_eq!(finish(&mut encoder), from_hex(want));
    }

    fn part() -> SeriesPart {
        let block = block(&[&[("__name__", "a")], &[("__name__", "b")], &[("__name__", "c")], &[("__name__", "d")]]);
        let sample = |index: u32, value: f64| Sample { value, index, offset_ms: 1 };
        let mut part = SeriesPart::of_samples(block, 4, vec![sample(1, 1.0), sample(0, 2.0), sample(1, 3.0)]);
        let histogram = Arc::new(int(0, &[(0, 1)], &[1]));
        part.histograms = vec![HistogramSample { index: 2, timestamp_ms: 5, histogram }];
        part.exemplars =
            vec![exemplar(3, 1.0, &[]), exemplar(1, 2.0, &[("x", "y")]), exemplar(2, 3.0, &[]), exemplar(1, 4.0, &[])];
        part
    }

    const ALL: PartKinds = PartKinds { histograms: true, exemplars: true };

    #[test]
    fn exemplars_go_with_a_sample_of_their_series() {
        let part = part();
        let mut encoder = RequestEncoder::new();
        let mut at = PartCursor::new();
        let known = counter();
        let mut pushed = PushedCounts::default();
        while let Some(series) = at.series(&part, ALL) {
            pushed += encoder.push_next(&part, &mut at, ALL, (series == 1).then_some(&known));
        }
        assert_eq!(pushed, PushedCounts { samples: 3, histograms: 1, exemplars: 3, metadata: 2 });
        assert_eq!(at.left_over(&part, ALL), 1);
        assert_eq!(encoder.push_next(&part, &mut at, ALL, None), PushedCounts::default());
        let decoded = decode_request(&finish(&mut encoder), &options()).unwrap();
        assert_eq!((decoded.samples, decoded.histograms, decoded.exemplars), (3, 1, 3));
        assert_eq!(decoded.errors, [""; 0]);
    }

    #[test]
    fn an_exemplar_finds_its_series_by_labels_too() {
        let block = block(&[&[("__name__", "a")], &[("__name__", "b")], &[("__name__", "a")], &[("__name__", "a")]]);
        let mut part = SeriesPart::of_samples(block, 0, vec![Sample { value: 1.0, index: 0, offset_ms: 5 }]);
        part.samples.push(Sample { value: 2.0, index: 3, offset_ms: 6 });
        part.exemplars = vec![exemplar(2, 1.0, &[]), exemplar(1, 2.0, &[]), exemplar(2, 3.0, &[])];
        let (mut encoder, mut at) = (RequestEncoder::new(), PartCursor::new());
        assert_eq!(encoder.push_next(&part, &mut at, ALL, None).exemplars, 2);
        assert_eq!(encoder.push_next(&part, &mut at, ALL, None).exemplars, 0);
        assert_eq!(at.left_over(&part, ALL), 1);
        let decoded = decode_request(&finish(&mut encoder), &options()).unwrap();
        assert_eq!((decoded.samples, decoded.exemplars, decoded.errors.len()), (2, 2, 0));
    }

    #[test]
    fn a_part_can_go_into_many_requests() {
        let part = part();
        for (histograms, exemplars, requests) in
            [(true, true, 4), (true, false, 4), (false, false, 3), (false, true, 3)]
        {
            let kinds = PartKinds { histograms, exemplars };
            let mut encoder = RequestEncoder::new();
            let mut at = PartCursor::new();
            let (mut count, mut all) = (0, PushedCounts::default());
            while at.series(&part, kinds).is_some() {
                let pushed = encoder.push_next(&part, &mut at, kinds, None);
                assert!(pushed.items() > 0);
                all += pushed;
                decode_request(&finish(&mut encoder), &options()).unwrap();
                count += 1;
            }
            let left_over = at.left_over(&part, kinds);
            assert_eq!(all.exemplars + left_over, if exemplars { 4 } else { 0 });
            let exemplars = match (exemplars, histograms) {
                (true, true) => 3,
                (true, false) => 2,
                (false, _) => 0,
            };
            let want = PushedCounts { samples: 3, histograms: usize::from(histograms), exemplars, metadata: 0 };
            assert_eq!((count, all), (requests, want), "{kinds:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_series_is_said_and_the_rest_is_taken() {
        let refs = |refs: &'static [u8]| move |out: &mut Vec<u8>| put_bytes(out, 1, refs);
        let sample = |out: &mut Vec<u8>| put_sample(out, 1.0, 5, 0);
        let symbols: &[&[u8]] = &[b"", b"__name__", b"up", b"a", b"\xff"];
        let good = |out: &mut Vec<u8>| {
            refs(&[1, 2])(out);
            sample(out);
        };
        for (series, want, invalid) in [
            (
                &(|out: &mut Vec<u8>| {
                    refs(&[1, 2, 3])(out);
                    sample(out);
                    sample(out);
                }) as Write<'_>,
                "parsing labels for series [1 2 3]: invalid labelRefs length 3",
                2,
            ),
            (
                &|out: &mut Vec<u8>| {
                    refs(&[1, 99])(out);
                    sample(out);
                },
                "parsing labels for series [1 99]: labelRefs 1 (name) = 99 (value) outside of symbols table (size 5)",
                1,
            ),
            (
                &|out: &mut Vec<u8>| {
                    refs(&[1, 2])(out);
                    sample(out);
                    put_message(out, 5, |out| put_uint64(out, 3, 9));
                },
                "parsing metadata for series [1 2]: metadata help_ref 9 outside of symbols table (size 5)",
                0,
            ),
            (
                &|out: &mut Vec<u8>| {
                    refs(&[1, 2])(out);
                    sample(out);
                    put_message(out, 5, |out| put_uint64(out, 4, 9));
                },
                "parsing metadata for series [1 2]: metadata unit_ref 9 outside of symbols table (size 5)",
                0,
            ),
            (
                &|out: &mut Vec<u8>| {
                    refs(&[3, 2])(out);
                    sample(out);
                },
                r#"invalid metric name or labels, got {a="up"}"#,
                1,
            ),
            (
                &|out: &mut Vec<u8>| {
                    refs(&[1, 2, 3, 4])(out);
                    sample(out);
                },
                "invalid metric name or labels, got {__name__=\"up\", a=\"\u{fffd}\"}",
                1,
            ),
            (
                &|out: &mut Vec<u8>| {
                    refs(&[1, 2, 3, 2, 3, 3])(out);
                    put_message(out, 3, |out| put_histogram(out, &int(0, &[], &[]), 5, 0));
                },
                r#"invalid labels for series, labels {__name__="up", a="a", a="up"}, duplicated label a"#,
                1,
            ),
            (
                &refs(&[1, 2]),
                r#"TimeSeries must contain at least one sample or histogram for series {__name__="up"}"#,
                0,
            ),
            (
                &|out: &mut Vec<u8>| {
                    refs(&[1, 2])(out);
                    put_sample(out, 1.0, 101, 0);
                },
                r#"out of bounds: timestamp is too far in the future for series {__name__="up"}"#,
                0,
            ),
            (
                &|out: &mut Vec<u8>| {
                    refs(&[1, 2])(out);
                    put_message(out, 3, |out| put_histogram(out, &int(0, &[], &[]), 101, 0));
                },
                r#"out of bounds: timestamp is too far in the future for series {__name__="up"}"#,
                0,
            ),
            (
                &|out: &mut Vec<u8>| {
                    refs(&[1, 2])(out);
                    put_message(out, 3, |out| put_histogram(out, &int(99, &[], &[]), 5, 0));
                },
                r#"histogram has an invalid schema, which must be between -4 and 8 for exponential buckets, or -53 for custom buckets, got schema 99 for series {__name__="up"}"#,
                0,
            ),
        ] {
            let request = raw(symbols, &[&good, series, &good]);
            let options = DecodeOptions { latest_ms: 100, ..DecodeOptions::default() };
            let decoded = decode_request(&request, &options).unwrap();
            assert_eq!((decoded.errors, decoded.invalid), (vec![want.to_owned()], invalid));
            assert_eq!(decoded.samples, 2, "{want}");
        }
    }

    #[test]
    fn an_exemplar_that_is_wrong_costs_itself() {
        let symbols: &[&[u8]] = &[b"", b"__name__", b"up", &[b'x'; 130]];
        let series = |out: &mut Vec<u8>| {
            put_bytes(out, 1, &[1, 2]);
            put_sample(out, 1.0, 5, 0);
            for (refs, time_ms) in [(&[1u8, 2][..], 5), (&[1], 5), (&[1, 9], 5), (&[2, 3], 5), (&[], 101)] {
                put_message(out, 4, |out| {
                    put_bytes(out, 1, refs);
                    put_int64(out, 3, time_ms);
                });
            }
        };
        let options = DecodeOptions { latest_ms: 100, ..DecodeOptions::default() };
        let decoded = decode_request(&raw(symbols, &[&series]), &options).unwrap();
        assert_eq!((decoded.samples, decoded.exemplars, decoded.exemplars_left_out), (1, 1, 2));
        let want = [
            r#"parsing exemplar for series {__name__="up"}: invalid labelRefs length 1"#,
            r#"parsing exemplar for series {__name__="up"}: labelRefs 1 (name) = 9 (value) outside of symbols table (size 4)"#,
        ];
        assert_eq!(decoded.errors, want);
    }

    #[test]
    fn requests_that_are_joined_say_what_they_said_apart() {
        let block = block(&[&[("__name__", "a"), ("x", "1")], &[("__name__", "b"), ("x", "2")]]);
        let mut requests = Vec::new();
        let mut encoder = RequestEncoder::new();
        for (index, metadata) in [(1, None), (0, Some(counter())), (1, Some(counter()))] {
            encoder.push_sample(block.labels(index), 1.5, 7, 0, metadata.as_ref());
            encoder.push_histogram(block.labels(index), &int(0, &[], &[]), 8, 0, metadata.as_ref());
            requests.push(finish(&mut encoder));
        }
        let mut with_exemplar = Vec::new();
        put_bytes(&mut with_exemplar, 1, &[1, 2]);
        put_sample(&mut with_exemplar, 1.0, 5, 0);
        put_message(&mut with_exemplar, 4, |out| {
            put_bytes(out, 1, &[3, 2]);
            put_int64(out, 3, 5);
        });
        let series = |out: &mut Vec<u8>| out.extend_from_slice(&with_exemplar);
        requests.push(raw(&[b"", b"__name__", b"b", b"trace_id"], &[&series]));

        let options = DecodeOptions { metadata: true, ..DecodeOptions::default() };
        let mut apart = Vec::new();
        for request in &requests {
            apart.extend(show(&decode_request(request, &options).unwrap().parts));
            encoder.push_request(request).unwrap();
        }
        let joined = decode_request(&finish(&mut encoder), &options).unwrap();
        assert_eq!((joined.samples, joined.histograms, joined.exemplars), (4, 3, 1));
        assert_eq!(joined.parts.iter().map(|part| part.metadata.len()).sum::<usize>(), 4);
        let mut together = show(&joined.parts);
        together.sort();
        apart.sort();
        assert_eq!(together, apart);
        assert_eq!(encoder.push_request(&raw(&[b""], &[&series])), Err(NotARequest));
    }

    #[test]
    fn a_series_may_bring_nothing_but_exemplars() {
        let symbols: &[&[u8]] = &[b"", b"__name__", b"up", b"trace_id", b"7"];
        let series = |out: &mut Vec<u8>| {
            put_bytes(out, 1, &[1, 2]);
            put_message(out, 4, |out| {
                put_bytes(out, 1, &[3, 4]);
                put_int64(out, 3, 5);
            });
        };
        let decoded = decode_request(&raw(symbols, &[&series]), &DecodeOptions::default()).unwrap();
        assert_eq!((decoded.samples, decoded.exemplars, decoded.errors_total), (0, 1, 0), "{:?}", decoded.errors);
        let part = &decoded.parts[0];
        assert_eq!(part.block.labels(part.exemplars[0].index).to_string(), r#"{__name__="up"}"#);
    }

    #[test]
    fn type_and_unit_become_labels_where_they_are_wanted() {
        let block = block(&[&[("__name__", "a"), ("__type__", "x"), ("__unit__", "y")]]);
        let mut encoder = RequestEncoder::new();
        let unitless = Metadata { unit: String::new(), ..counter() };
        for metadata in [Some(&counter()), Some(&unitless), Some(&Metadata::default()), None] {
            encoder.push_sample(block.labels(0), 0.0, 5, 0, metadata);
        }
        let options = DecodeOptions { type_and_unit_labels: true, ..DecodeOptions::default() };
        let decoded = decode_request(&finish(&mut encoder), &options).unwrap();
        let want = [
            r#"{__name__="a", __type__="counter", __unit__="bytes"} 0 @5"#,
            r#"{__name__="a", __type__="counter"} 0 @5"#,
            r#"{__name__="a", __type__="x", __unit__="y"} 0 @5"#,
            r#"{__name__="a", __type__="x", __unit__="y"} 0 @5"#,
        ];
        assert_eq!(show(&decoded.parts), want);
    }

    #[test]
    fn a_request_cannot_make_much_of_little() {
        let options = DecodeOptions { decoded_bytes_max: 1 << 20, ..DecodeOptions::default() };
        let long = vec![b'x'; 100_000];
        let series = |out: &mut Vec<u8>| {
            put_bytes(out, 1, &[1, 2]);
            put_sample(out, 1.0, 5, 0);
        };
        let many: Vec<Write<'_>> = vec![&series; 20];
        let request = raw(&[b"", b"__name__", &long], &many);
        assert!(request.len() < 101_000);
        assert_eq!(decode_request(&request, &options).unwrap_err(), DecodeError::TooLarge(1 << 20));
        let request = raw(&[&b""[..]; 100_000], &[]);
        assert_eq!(decode_request(&request, &options).unwrap_err(), DecodeError::TooLarge(1 << 20));
        let refs = |out: &mut Vec<u8>| put_bytes(out, 1, &vec![0; 2 << 20]);
        assert_eq!(decode_request(&raw(&[], &[&refs]), &options).unwrap_err(), DecodeError::TooLarge(1 << 20));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            sets in proptest::collection::vec(proptest::collection::btree_map("[a-d]{1,2}", "[x-z]{1,2}|\\PC{0,9}", 0..5), 1..6),
            points in proptest::collection::vec((any::<prop::sample::Index>(), any::<u64>(), any::<i64>()), 0..20),
            histograms in proptest::collection::vec((any::<prop::sample::Index>(), exponential(), any::<i64>()), 0..4),
        ) {
            let mut labels = LabelsBuilder::new();
            let mut block = BlockBuilder::new();
            for set in &sets {
                labels.clear();
                labels.push("__name__", "n");
                set.iter().for_each(|(name, value)| labels.push(name, value));
                block.push(&mut labels).unwrap();
            }
            let block = block.finish(true);
            let mut encoder = RequestEncoder::new();
            let mut want = Vec::new();
            for (which, bits, time_ms) in points {
                let index = which.index(sets.len()) as u32;
                encoder.push_sample(block.labels(index), f64::from_bits(bits), time_ms, 0, None);
                want.push(format!("{} {bits:x} @{time_ms}", block.labels(index)));
            }
            for (which, histogram, time_ms) in histograms {
                let index = which.index(sets.len()) as u32;
                encoder.push_histogram(block.labels(index), &histogram, time_ms, 0, None);
                want.push(format!("{} {histogram:?} @{time_ms}", block.labels(index)));
            }
            let request = finish(&mut encoder);
            // Written anew among other strings, it is still the same.
            encoder.symbols.id(b"another");
            encoder.push_request(&request).unwrap();
            for request in [request, finish(&mut encoder)] {
                let decoded = decode_request(&request, &options()).unwrap();
                let mut back = show(&decoded.parts);
                back.sort();
                want.sort();
                prop_assert_eq!(&back, &want);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(message: Vec<u8>, refs: Vec<u8>, at: prop::sample::Index, byte: u8) {
            let options = DecodeOptions { decoded_bytes_max: 1 << 20, type_and_unit_labels: true, ..options() };
            let _ = decode_request(&message, &options);
            let _ = RequestEncoder::new().push_request(&message);
            let series = |out: &mut Vec<u8>| {
                put_bytes(out, 1, &refs);
                out.extend_from_slice(&message);
            };
            let broken = raw(&[b"", b"a", b"__name__"], &[&series]);
            let _ = decode_request(&broken, &options);
            let _ = RequestEncoder::new().push_request(&broken);
            let part = part();
            let mut encoder = RequestEncoder::new();
            let mut cursor = PartCursor::new();
            while encoder.push_next(&part, &mut cursor, ALL, None).items() > 0 {}
            let mut request = finish(&mut encoder);
            let at = at.index(request.len());
            request[at] = byte;
            let _ = decode_request(&request, &options);
            let _ = encoder.push_request(&request);
        }
    }
}
