//! Metrics and their points.

use crate::arena::{Arena, Map, Text};
use crate::data::{Output, Range, Record, Schema, Source, id_bytes};
use crate::proto::{BYTES, Back, FIXED64, Malformed, Reader, VARINT};
use crate::schema::METRICS;

/// A metric with its points.
#[derive(Clone, Debug, Default)]
pub struct Metric {
    /// Its name.
    pub name: Text,
    /// What it measures.
    pub description: Text,
    /// In what, in UCUM.
    pub unit: Text,
    /// What else is known of it.
    pub metadata: Map,
    /// Its points.
    pub points: Points,
}

/// The points of a metric.
#[derive(Clone, Debug, Default)]
pub enum Points {
    /// There is nothing that says what kind it is.
    #[default]
    None,
    /// Values that go up and down.
    Gauge(Vec<NumberPoint>),
    /// Values that can be added up.
    Sum {
        /// The points.
        points: Vec<NumberPoint>,
        /// Since when values count.
        temporality: i32,
        /// Whether they never go down.
        monotonic: bool,
    },
    /// Counts by ranges.
    Histogram {
        /// The points.
        points: Vec<HistogramPoint>,
        /// Since when counts count.
        temporality: i32,
    },
    /// Counts by ranges that grow exponentially.
    Exponential {
        /// The points.
        points: Vec<ExponentialPoint>,
        /// Since when counts count.
        temporality: i32,
    },
    /// Quantiles.
    Summary(Vec<SummaryPoint>),
}

/// Values count since the point before.
pub const DELTA: i32 = 1;
/// Values count since a fixed time.
pub const CUMULATIVE: i32 = 2;
/// The flag of a point that says that there is no value any more.
pub const NO_RECORDED_VALUE: u32 = 1;

/// A number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Number {
    /// None.
    #[default]
    None,
    /// A whole one.
    Int(i64),
    /// Any.
    Double(f64),
}

impl Number {
    /// The number as a double; 0 if there is none.
    pub fn as_double(self) -> f64 {
        match self {
            Number::None => 0.0,
            Number::Int(value) => value as f64,
            Number::Double(value) => value,
        }
    }
}

/// A value at a time.
#[derive(Clone, Debug, Default)]
pub struct NumberPoint {
    /// What tells the point from others of the metric.
    pub attributes: Map,
    /// Since when the value counts, in nanoseconds since the Unix epoch; 0 if that is not known.
    pub start_time_ns: u64,
    /// When it was measured, in nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// The value.
    pub value: Number,
    /// Examples of what was counted.
    pub exemplars: Vec<Exemplar>,
    /// See [`NO_RECORDED_VALUE`].
    pub flags: u32,
}

/// Counts by ranges at a time.
#[derive(Clone, Debug, Default)]
pub struct HistogramPoint {
    /// What tells the point from others of the metric.
    pub attributes: Map,
    /// Since when the counts count, in nanoseconds since the Unix epoch; 0 if that is not known.
    pub start_time_ns: u64,
    /// When they were taken, in nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// How many values there were.
    pub count: u64,
    /// Their sum.
    pub sum: Option<f64>,
    /// How many fell into each range.
    pub bucket_counts: Vec<u64>,
    /// The upper ends of the ranges but the last.
    pub explicit_bounds: Vec<f64>,
    /// Examples of what was counted.
    pub exemplars: Vec<Exemplar>,
    /// See [`NO_RECORDED_VALUE`].
    pub flags: u32,
    /// The smallest value.
    pub min: Option<f64>,
    /// The largest value.
    pub max: Option<f64>,
}

/// Counts by ranges that grow exponentially, at a time.
#[derive(Clone, Debug, Default)]
pub struct ExponentialPoint {
    /// What tells the point from others of the metric.
    pub attributes: Map,
    /// Since when the counts count, in nanoseconds since the Unix epoch; 0 if that is not known.
    pub start_time_ns: u64,
    /// When they were taken, in nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// How many values there were.
    pub count: u64,
    /// Their sum.
    pub sum: Option<f64>,
    /// How fine the ranges are: each is 2^(2^-scale) times as wide as the one before.
    pub scale: i32,
    /// How many values were about 0.
    pub zero_count: u64,
    /// Those above 0.
    pub positive: Buckets,
    /// Those below 0.
    pub negative: Buckets,
    /// See [`NO_RECORDED_VALUE`].
    pub flags: u32,
    /// Examples of what was counted.
    pub exemplars: Vec<Exemplar>,
    /// The smallest value.
    pub min: Option<f64>,
    /// The largest value.
    pub max: Option<f64>,
    /// What is nearer to 0 than this counts as 0.
    pub zero_threshold: f64,
}

/// Ranges that grow exponentially.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buckets {
    /// Which range the first count is of.
    pub offset: i32,
    /// How many values fell into each.
    pub counts: Vec<u64>,
}

/// Quantiles at a time.
#[derive(Clone, Debug, Default)]
pub struct SummaryPoint {
    /// What tells the point from others of the metric.
    pub attributes: Map,
    /// Since when the counts count, in nanoseconds since the Unix epoch; 0 if that is not known.
    pub start_time_ns: u64,
    /// When they were taken, in nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// How many values there were.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// Quantiles, from 0 to 1, and their values.
    pub quantiles: Vec<(f64, f64)>,
    /// See [`NO_RECORDED_VALUE`].
    pub flags: u32,
}

/// An example of what was counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Exemplar {
    /// Attributes that the point does not have.
    pub filtered_attributes: Map,
    /// When it was measured, in nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// Its value.
    pub value: Number,
    /// The span that it was measured in; zeros if in none.
    pub span_id: [u8; 8],
    /// The trace that it was measured in; zeros if in none.
    pub trace_id: [u8; 16],
}

impl Points {
    /// How many points there are.
    pub fn len(&self) -> usize {
        match self {
            Points::None => 0,
            Points::Gauge(points) | Points::Sum { points, .. } => points.len(),
            Points::Histogram { points, .. } => points.len(),
            Points::Exponential { points, .. } => points.len(),
            Points::Summary(points) => points.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A kind of points.
trait Point: Sized + Default {
    /// Reads a field that is not an attribute, a list or a message; `false` if it is not known.
    fn field(&mut self, number: u32, wire_type: u32, reader: &mut Reader<'_>) -> Result<bool, Malformed>;

    /// The number of the field of attributes, and of the one of exemplars.
    const FIELDS: (u32, u32);

    fn set(&mut self, attributes: Map, exemplars: Vec<Exemplar>);

    fn write(&self, arena: &Arena, out: &mut Back);

    fn carried(&self, from: &Arena, to: &mut Arena) -> Self;

    fn read(from: &mut Source<'_>, message: Range) -> Result<Self, Malformed> {
        let mut point = Self::default();
        let mut examples = std::mem::take(&mut from.inner);
        examples.clear();
        let (attributes, exemplars) = Self::FIELDS;
        let attributes = from.attributed(message, attributes, |number, wire_type, reader| {
            if (number, wire_type) == (exemplars, BYTES) {
                examples.push((number, reader.bytes()?));
                return Ok(true);
            }
            point.field(number, wire_type, reader)
        })?;
        let read: Result<Vec<_>, _> = examples.iter().map(|(_, range)| Exemplar::read(from, *range)).collect();
        from.inner = examples;
        point.set(attributes, read?);
        Ok(point)
    }
}

fn carried_exemplars(exemplars: &[Exemplar], from: &Arena, to: &mut Arena) -> Vec<Exemplar> {
    let carried = exemplars.iter();
    carried.map(|e| Exemplar { filtered_attributes: to.carry_map(from, e.filtered_attributes), ..*e }).collect()
}

/// Reads a repeated field of 64 bits, be it packed or not.
fn push_fixed64(wire_type: u32, reader: &mut Reader<'_>, mut push: impl FnMut(u64)) -> Result<(), Malformed> {
    if wire_type == FIXED64 {
        push(reader.fixed64()?);
        return Ok(());
    }
    let mut packed = reader.message()?;
    while !packed.is_empty() {
        push(packed.fixed64()?);
    }
    Ok(())
}

impl Point for NumberPoint {
    const FIELDS: (u32, u32) = (7, 5);

    fn field(&mut self, number: u32, wire_type: u32, reader: &mut Reader<'_>) -> Result<bool, Malformed> {
        match (number, wire_type) {
            (2, FIXED64) => self.start_time_ns = reader.fixed64()?,
            (3, FIXED64) => self.time_ns = reader.fixed64()?,
            (4, FIXED64) => self.value = Number::Double(reader.double()?),
            (6, FIXED64) => self.value = Number::Int(reader.fixed64()? as i64),
            (8, VARINT) => self.flags = reader.varint()? as u32,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn set(&mut self, attributes: Map, exemplars: Vec<Exemplar>) {
        (self.attributes, self.exemplars) = (attributes, exemplars);
    }

    fn write(&self, arena: &Arena, out: &mut Back) {
        out.uint(8, u64::from(self.flags));
        arena.write_map(self.attributes, 7, out);
        write_number(self.value, 4, 6, out);
        write_exemplars(&self.exemplars, 5, arena, out);
        out.fixed64(3, self.time_ns);
        out.fixed64(2, self.start_time_ns);
    }

    fn carried(&self, from: &Arena, to: &mut Arena) -> Self {
        NumberPoint {
            attributes: to.carry_map(from, self.attributes),
            exemplars: carried_exemplars(&self.exemplars, from, to),
            ..*self
        }
    }
}

impl Point for HistogramPoint {
    const FIELDS: (u32, u32) = (9, 8);

    fn field(&mut self, number: u32, wire_type: u32, reader: &mut Reader<'_>) -> Result<bool, Malformed> {
        match (number, wire_type) {
            (2, FIXED64) => self.start_time_ns = reader.fixed64()?,
            (3, FIXED64) => self.time_ns = reader.fixed64()?,
            (4, FIXED64) => self.count = reader.fixed64()?,
            (5, FIXED64) => self.sum = Some(reader.double()?),
            (6, FIXED64 | BYTES) => push_fixed64(wire_type, reader, |count| self.bucket_counts.push(count))?,
            (7, FIXED64 | BYTES) => {
                push_fixed64(wire_type, reader, |bits| self.explicit_bounds.push(f64::from_bits(bits)))?;
            }
            (10, VARINT) => self.flags = reader.varint()? as u32,
            (11, FIXED64) => self.min = Some(reader.double()?),
            (12, FIXED64) => self.max = Some(reader.double()?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn set(&mut self, attributes: Map, exemplars: Vec<Exemplar>) {
        (self.attributes, self.exemplars) = (attributes, exemplars);
    }

    fn write(&self, arena: &Arena, out: &mut Back) {
        write_optional(self.max, 12, out);
        write_optional(self.min, 11, out);
        out.uint(10, u64::from(self.flags));
        arena.write_map(self.attributes, 9, out);
        write_exemplars(&self.exemplars, 8, arena, out);
        write_packed(self.explicit_bounds.iter().map(|bound| bound.to_bits()), 7, out);
        write_packed(self.bucket_counts.iter().copied(), 6, out);
        write_optional(self.sum, 5, out);
        out.fixed64(4, self.count);
        out.fixed64(3, self.time_ns);
        out.fixed64(2, self.start_time_ns);
    }

    fn carried(&self, from: &Arena, to: &mut Arena) -> Self {
        HistogramPoint {
            attributes: to.carry_map(from, self.attributes),
            exemplars: carried_exemplars(&self.exemplars, from, to),
            ..self.clone()
        }
    }
}

impl Point for ExponentialPoint {
    const FIELDS: (u32, u32) = (1, 11);

    fn field(&mut self, number: u32, wire_type: u32, reader: &mut Reader<'_>) -> Result<bool, Malformed> {
        match (number, wire_type) {
            (2, FIXED64) => self.start_time_ns = reader.fixed64()?,
            (3, FIXED64) => self.time_ns = reader.fixed64()?,
            (4, FIXED64) => self.count = reader.fixed64()?,
            (5, FIXED64) => self.sum = Some(reader.double()?),
            (6, VARINT) => self.scale = unzigzag(reader.varint()?),
            (7, FIXED64) => self.zero_count = reader.fixed64()?,
            (8, BYTES) => self.positive = Buckets::read(reader.message()?)?,
            (9, BYTES) => self.negative = Buckets::read(reader.message()?)?,
            (10, VARINT) => self.flags = reader.varint()? as u32,
            (12, FIXED64) => self.min = Some(reader.double()?),
            (13, FIXED64) => self.max = Some(reader.double()?),
            (14, FIXED64) => self.zero_threshold = reader.double()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn set(&mut self, attributes: Map, exemplars: Vec<Exemplar>) {
        (self.attributes, self.exemplars) = (attributes, exemplars);
    }

    fn write(&self, arena: &Arena, out: &mut Back) {
        out.fixed64(14, self.zero_threshold.to_bits());
        write_optional(self.max, 13, out);
        write_optional(self.min, 12, out);
        write_exemplars(&self.exemplars, 11, arena, out);
        out.uint(10, u64::from(self.flags));
        out.message(9, |out| self.negative.write(out));
        out.message(8, |out| self.positive.write(out));
        out.fixed64(7, self.zero_count);
        out.uint(6, zigzag(self.scale));
        write_optional(self.sum, 5, out);
        out.fixed64(4, self.count);
        out.fixed64(3, self.time_ns);
        out.fixed64(2, self.start_time_ns);
        arena.write_map(self.attributes, 1, out);
    }

    fn carried(&self, from: &Arena, to: &mut Arena) -> Self {
        ExponentialPoint {
            attributes: to.carry_map(from, self.attributes),
            exemplars: carried_exemplars(&self.exemplars, from, to),
            ..self.clone()
        }
    }
}

impl Point for SummaryPoint {
    /// There are no exemplars, and no field 0.
    const FIELDS: (u32, u32) = (7, 0);

    fn field(&mut self, number: u32, wire_type: u32, reader: &mut Reader<'_>) -> Result<bool, Malformed> {
        match (number, wire_type) {
            (2, FIXED64) => self.start_time_ns = reader.fixed64()?,
            (3, FIXED64) => self.time_ns = reader.fixed64()?,
            (4, FIXED64) => self.count = reader.fixed64()?,
            (5, FIXED64) => self.sum = reader.double()?,
            (6, BYTES) => {
                let (mut quantile, mut value) = (0.0, 0.0);
                let mut reader = reader.message()?;
                while let Some((number, wire_type)) = reader.field()? {
                    match (number, wire_type) {
                        (1, FIXED64) => quantile = reader.double()?,
                        (2, FIXED64) => value = reader.double()?,
                        _ => reader.skip(wire_type)?,
                    }
                }
                self.quantiles.push((quantile, value));
            }
            (8, VARINT) => self.flags = reader.varint()? as u32,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn set(&mut self, attributes: Map, _: Vec<Exemplar>) {
        self.attributes = attributes;
    }

    fn write(&self, arena: &Arena, out: &mut Back) {
        out.uint(8, u64::from(self.flags));
        arena.write_map(self.attributes, 7, out);
        for (quantile, value) in self.quantiles.iter().rev() {
            out.message(6, |out| {
                out.fixed64(2, value.to_bits());
                out.fixed64(1, quantile.to_bits());
            });
        }
        out.fixed64(5, self.sum.to_bits());
        out.fixed64(4, self.count);
        out.fixed64(3, self.time_ns);
        out.fixed64(2, self.start_time_ns);
    }

    fn carried(&self, from: &Arena, to: &mut Arena) -> Self {
        SummaryPoint { attributes: to.carry_map(from, self.attributes), ..self.clone() }
    }
}

impl Buckets {
    fn read(mut reader: Reader<'_>) -> Result<Self, Malformed> {
        let mut buckets = Buckets::default();
        while let Some((number, wire_type)) = reader.field()? {
            match (number, wire_type) {
                (1, VARINT) => buckets.offset = unzigzag(reader.varint()?),
                (2, VARINT) => buckets.counts.push(reader.varint()?),
                (2, BYTES) => {
                    let mut packed = reader.message()?;
                    while !packed.is_empty() {
                        buckets.counts.push(packed.varint()?);
                    }
                }
                _ => reader.skip(wire_type)?,
            }
        }
        Ok(buckets)
    }

    fn write(&self, out: &mut Back) {
        if !self.counts.is_empty() {
            out.message(2, |out| {
                for count in self.counts.iter().rev() {
                    out.varint(*count);
                }
            });
        }
        out.uint(1, zigzag(self.offset));
    }
}

impl Exemplar {
    fn read(from: &mut Source<'_>, message: Range) -> Result<Self, Malformed> {
        let mut exemplar = Exemplar::default();
        exemplar.filtered_attributes = from.attributed(message, 7, |number, wire_type, reader| {
            match (number, wire_type) {
                (2, FIXED64) => exemplar.time_ns = reader.fixed64()?,
                (3, FIXED64) => exemplar.value = Number::Double(reader.double()?),
                (4, BYTES) => exemplar.span_id = reader.id()?,
                (5, BYTES) => exemplar.trace_id = reader.id()?,
                (6, FIXED64) => exemplar.value = Number::Int(reader.fixed64()? as i64),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(exemplar)
    }
}

fn write_exemplars(exemplars: &[Exemplar], field: u32, arena: &Arena, out: &mut Back) {
    for exemplar in exemplars.iter().rev() {
        out.message(field, |out| {
            arena.write_map(exemplar.filtered_attributes, 7, out);
            write_number(exemplar.value, 3, 6, out);
            out.bytes(5, id_bytes(&exemplar.trace_id));
            out.bytes(4, id_bytes(&exemplar.span_id));
            out.fixed64(2, exemplar.time_ns);
        });
    }
}

fn write_number(number: Number, double: u32, int: u32, out: &mut Back) {
    match number {
        Number::None => {}
        Number::Int(value) => out.fixed64_always(int, value as u64),
        Number::Double(value) => out.fixed64_always(double, value.to_bits()),
    }
}

fn write_optional(value: Option<f64>, field: u32, out: &mut Back) {
    if let Some(value) = value {
        out.fixed64_always(field, value.to_bits());
    }
}

fn write_packed(values: impl DoubleEndedIterator<Item = u64> + ExactSizeIterator, field: u32, out: &mut Back) {
    if values.len() > 0 {
        out.message(field, |out| {
            for value in values.rev() {
                out.raw(&value.to_le_bytes());
            }
        });
    }
}

fn unzigzag(value: u64) -> i32 {
    let value = value as u32;
    (value >> 1) as i32 ^ -((value & 1) as i32)
}

fn zigzag(value: i32) -> u64 {
    u64::from(((value << 1) ^ (value >> 31)) as u32)
}

fn read_points<P: Point>(from: &mut Source<'_>, points: &mut Vec<P>, range: Range) -> Result<(), Malformed> {
    points.push(P::read(from, range)?);
    Ok(())
}

fn write_points<P: Point>(points: &[P], arena: &Arena, out: &mut Back) {
    for point in points.iter().rev() {
        out.message(1, |out| point.write(arena, out));
    }
}

impl Record for Metric {
    const SIGNAL: &'static str = "metrics";
    const SCHEMA: Schema = Schema(&METRICS);

    fn items(&self) -> usize {
        self.points.len()
    }

    fn read(from: &mut Source<'_>, message: Range) -> Result<Self, Malformed> {
        let (mut metric, data) = Metric::read_head(from, message)?;
        if let Some((kind, mut data)) = data {
            metric.points = Points::of(kind);
            while let Some((number, wire_type)) = data.field()? {
                match (number, wire_type) {
                    (1, BYTES) => metric.points.read_point(from, data.bytes()?)?,
                    _ => metric.points.read_field(number, wire_type, &mut data)?,
                }
            }
        }
        Ok(metric)
    }

    fn write(&self, arena: &Arena, Output(out): &mut Output<'_>) {
        arena.write_map(self.metadata, 12, out);
        match &self.points {
            Points::None => {}
            Points::Gauge(points) => out.message(5, |out| write_points(points, arena, out)),
            Points::Sum { points, temporality, monotonic } => out.message(7, |out| {
                out.uint(3, u64::from(*monotonic));
                out.uint(2, *temporality as u64);
                write_points(points, arena, out);
            }),
            Points::Histogram { points, temporality } => out.message(9, |out| {
                out.uint(2, *temporality as u64);
                write_points(points, arena, out);
            }),
            Points::Exponential { points, temporality } => out.message(10, |out| {
                out.uint(2, *temporality as u64);
                write_points(points, arena, out);
            }),
            Points::Summary(points) => out.message(11, |out| write_points(points, arena, out)),
        }
        out.bytes(3, arena.bytes(self.unit));
        out.bytes(2, arena.bytes(self.description));
        out.bytes(1, arena.bytes(self.name));
    }

    fn carried(&self, from: &Arena, to: &mut Arena) -> Self {
        fn all<P: Point>(points: &[P], from: &Arena, to: &mut Arena) -> Vec<P> {
            points.iter().map(|point| point.carried(from, to)).collect()
        }
        Metric {
            name: to.carry_text(from, self.name),
            description: to.carry_text(from, self.description),
            unit: to.carry_text(from, self.unit),
            metadata: to.carry_map(from, self.metadata),
            points: match &self.points {
                Points::None => Points::None,
                Points::Gauge(points) => Points::Gauge(all(points, from, to)),
                Points::Sum { points, temporality, monotonic } => {
                    Points::Sum { points: all(points, from, to), temporality: *temporality, monotonic: *monotonic }
                }
                Points::Histogram { points, temporality } => {
                    Points::Histogram { points: all(points, from, to), temporality: *temporality }
                }
                Points::Exponential { points, temporality } => {
                    Points::Exponential { points: all(points, from, to), temporality: *temporality }
                }
                Points::Summary(points) => Points::Summary(all(points, from, to)),
            },
        }
    }
}

impl Metric {
    /// Reads all but the points; what they are, and where they stand.
    fn read_head<'a>(from: &mut Source<'a>, message: Range) -> Result<(Self, Option<(u32, Reader<'a>)>), Malformed> {
        let mut metric = Metric::default();
        let mut data = None;
        metric.metadata = from.attributed(message, 12, |number, wire_type, reader| {
            match (number, wire_type) {
                (1, BYTES) => metric.name = Text::received(reader.bytes()?),
                (2, BYTES) => metric.description = Text::received(reader.bytes()?),
                (3, BYTES) => metric.unit = Text::received(reader.bytes()?),
                (5 | 7 | 9 | 10 | 11, BYTES) => data = Some((number, reader.message()?)),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok((metric, data))
    }

    /// Reads a metric point by point, as one that has no other, until one is not wanted any more. Whether more are.
    pub(crate) fn each_point(
        from: &mut Source<'_>,
        message: Range,
        take: &mut dyn FnMut(&Arena, &Metric) -> bool,
    ) -> Result<bool, Malformed> {
        let (mut metric, data) = Metric::read_head(from, message)?;
        let Some((kind, data)) = data else { return Ok(true) };
        metric.points = Points::of(kind);
        // What is said of all of them may stand behind them.
        let mut reader = data;
        while let Some((number, wire_type)) = reader.field()? {
            metric.points.read_field(number, wire_type, &mut reader)?;
        }
        let mut reader = data;
        while let Some((number, wire_type)) = reader.field()? {
            if (number, wire_type) != (1, BYTES) {
                reader.skip(wire_type)?;
                continue;
            }
            let mark = from.arena.mark();
            metric.points.clear();
            metric.points.read_point(from, reader.bytes()?)?;
            if !take(from.arena, &metric) {
                return Ok(false);
            }
            from.arena.forget_since(mark);
        }
        Ok(true)
    }

    /// The metric without its points but one.
    pub(crate) fn with_point(&self, at: usize) -> Self {
        fn one<P: Clone>(points: &[P], at: usize) -> Vec<P> {
            points.get(at).cloned().into_iter().collect()
        }
        let points = match &self.points {
            Points::None => Points::None,
            Points::Gauge(points) => Points::Gauge(one(points, at)),
            Points::Sum { points, temporality, monotonic } => {
                Points::Sum { points: one(points, at), temporality: *temporality, monotonic: *monotonic }
            }
            Points::Histogram { points, temporality } => {
                Points::Histogram { points: one(points, at), temporality: *temporality }
            }
            Points::Exponential { points, temporality } => {
                Points::Exponential { points: one(points, at), temporality: *temporality }
            }
            Points::Summary(points) => Points::Summary(one(points, at)),
        };
        let Metric { name, description, unit, metadata, .. } = *self;
        Metric { name, description, unit, metadata, points }
    }
}

impl Points {
    /// None yet, of the kind that a field of a metric has.
    fn of(field: u32) -> Self {
        match field {
            5 => Points::Gauge(Vec::new()),
            7 => Points::Sum { points: Vec::new(), temporality: 0, monotonic: false },
            9 => Points::Histogram { points: Vec::new(), temporality: 0 },
            10 => Points::Exponential { points: Vec::new(), temporality: 0 },
            _ => Points::Summary(Vec::new()),
        }
    }

    fn clear(&mut self) {
        match self {
            Points::None => {}
            Points::Gauge(points) | Points::Sum { points, .. } => points.clear(),
            Points::Histogram { points, .. } => points.clear(),
            Points::Exponential { points, .. } => points.clear(),
            Points::Summary(points) => points.clear(),
        }
    }

    fn read_point(&mut self, from: &mut Source<'_>, range: Range) -> Result<(), Malformed> {
        match self {
            Points::None => Ok(()),
            Points::Gauge(points) | Points::Sum { points, .. } => read_points(from, points, range),
            Points::Histogram { points, .. } => read_points(from, points, range),
            Points::Exponential { points, .. } => read_points(from, points, range),
            Points::Summary(points) => read_points(from, points, range),
        }
    }

    /// Reads what is said of all points, and passes over everything else.
    fn read_field(&mut self, number: u32, wire_type: u32, reader: &mut Reader<'_>) -> Result<(), Malformed> {
        match (number, wire_type) {
            (2, VARINT) => {
                let read = reader.varint()? as i32;
                if let Points::Sum { temporality, .. }
                | Points::Histogram { temporality, .. }
                | Points::Exponential { temporality, .. } = self
                {
                    *temporality = read;
                }
                Ok(())
            }
            (3, VARINT) => {
                let read = reader.varint()? != 0;
                if let Points::Sum { monotonic, .. } = self {
                    *monotonic = read;
                }
                Ok(())
            }
            _ => reader.skip(wire_type),
        }
    }
}
