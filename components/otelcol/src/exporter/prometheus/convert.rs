//! From points of OpenTelemetry to samples of series.
//!
//! A point is known again by a keyed hash of what its series are made of. One that was seen before costs that hash and a
//! push for each of its series: no labels are built, and nothing is written as text.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use corten_otlp::metrics::{
    self as otlp, CUMULATIVE, ExponentialPoint, HistogramPoint, Metric, NO_RECORDED_VALUE, NumberPoint, Points,
    SummaryPoint,
};
use corten_otlp::{Arena, Data, Map, OfResource, OfScope, Pair, Value};
use corten_signal::labels::METRIC_NAME;
use corten_signal::metrics::{Exemplar, Histogram, HistogramCounts, Metadata, MetricType, ResetHint, STALE_NAN};
use corten_signal::{LabelsBuilder, MetricsBatch};

use super::histograms;
use super::store::{Series, Store, StoreError, Undo};
use crate::identity::{ByHash, Hasher};
use crate::translate::labels::LastCounts;
use crate::translate::names::{self, Shape};

/// What is made of metrics.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Options {
    pub(super) target_info: bool,
    pub(super) scope_info: bool,
    pub(super) suffixes: bool,
    pub(super) resource_labels: bool,
    pub(super) metadata: bool,
    pub(super) own_bounds: bool,
    pub(super) keep_identifying: bool,
    pub(super) start_zeros: bool,
}

/// The most bounds of a histogram that is taken: each becomes a series.
const BOUNDS_MAX: usize = 10_000;
/// How many families are known of which something was said.
const FAMILIES_MAX: usize = 1 << 16;
/// How many more points than series may be known: the same series can come of several points.
const POINTS_MORE_MAX: usize = 1 << 16;
/// How many problems of a batch are told of.
const PROBLEMS_MAX: usize = 10;

/// Why no sample comes of a point: its metric is not cumulative, which is all that is any use to Prometheus.
const NOT_CUMULATIVE: &str = "not cumulative";
/// It is older than the one before it.
const OUT_OF_ORDER: &str = "out of order";
/// It has no name and no attributes.
const NO_LABELS: &str = "no labels";
/// Its name or attributes make no acceptable labels.
const BAD_LABELS: &str = "invalid labels";
const TOO_MANY_SERIES: &str = "too many series";
/// It has more bounds or quantiles than are taken.
const TOO_MANY_BOUNDS: &str = "too many buckets";
/// It cannot become a native histogram.
const BAD_HISTOGRAM: &str = "invalid histogram";

/// What could not be converted.
#[derive(Debug, PartialEq)]
pub(super) struct Problem {
    /// What was tried.
    pub(super) what: &'static str,
    /// The name of the family.
    pub(super) family: String,
    /// What went wrong.
    pub(super) error: String,
}

/// What a batch became.
pub(super) struct Converted {
    pub(super) batch: MetricsBatch,
    /// How many points no sample came of, and why.
    pub(super) dropped: Vec<(&'static str, usize)>,
    pub(super) problems: Vec<Problem>,
    /// For [`Converter::undo`].
    pub(super) undo: Undo,
}

/// The series of a point, in the order in which its values are given to them.
#[derive(Debug)]
enum Run {
    One(Series),
    Many(Box<[Series]>),
}

impl Run {
    fn series(&self) -> &[Series] {
        match self {
            Run::One(one) => std::slice::from_ref(one),
            Run::Many(many) => many,
        }
    }
}

/// Converts metrics, and remembers what it made of them.
pub(super) struct Converter {
    options: Options,
    store: Store,
    /// What points have become.
    points: ByHash<Run>,
    families: HashMap<Box<str>, Arc<Metadata>>,
    hasher: Hasher,
    labels: LastCounts,
    builder: LabelsBuilder,
    counts: Vec<u64>,
    dropped: Vec<(&'static str, usize)>,
    problems: Vec<Problem>,
}

/// What a point belongs to.
struct Subject<'a> {
    arena: &'a Arena,
    /// The attributes of the resource.
    resource: Map,
    /// Of what the resource gives to the labels of its points.
    hash: u128,
}

/// The metric that is being converted.
struct Family<'a> {
    of: &'a Subject<'a>,
    metric: &'a Metric,
    shape: Shape,
    /// Of the subject, and what the names of the metric's series are made of.
    hash: u128,
    /// What is said of the family, and whether that is new.
    metadata: Option<(Arc<Metadata>, bool)>,
}

/// What a point says besides its values.
struct When {
    time_ns: i64,
    time_ms: i64,
    /// 0 if it does not say so.
    start_ns: u64,
    stale: bool,
}

impl When {
    fn new(time_ns: u64, start_ns: u64, flags: u32) -> Self {
        let time_ns = time_ns as i64;
        When { time_ns, time_ms: to_ms(time_ns), start_ns, stale: flags & NO_RECORDED_VALUE != 0 }
    }
}

fn to_ms(time_ns: i64) -> i64 {
    time_ns.div_euclid(1_000_000)
}

/// The attributes of a resource that its points' labels `job` and `instance` are made of.
const NAME: &[u8] = b"service.name";
const NAMESPACE: &[u8] = b"service.namespace";
const INSTANCE: &[u8] = b"service.instance.id";

impl Converter {
    pub(super) fn new(options: Options) -> Self {
        Converter {
            options,
            store: Store::default(),
            points: ByHash::default(),
            families: HashMap::new(),
            hasher: Hasher::default(),
            labels: LastCounts::default(),
            builder: LabelsBuilder::new(),
            counts: Vec::new(),
            dropped: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Says everything of families again that is known of them.
    pub(super) fn forget_families(&mut self) {
        self.families.clear();
    }

    /// How many series there are, and how much memory they take, in bytes, about.
    pub(super) fn size(&self) -> (usize, usize) {
        let points = self.points.capacity() * (size_of::<(u128, Run)>() + 16);
        (self.store.len(), self.store.held_bytes() + points)
    }

    /// Forgets the series that no batch had since then, in seconds of the clock that batches are converted by.
    pub(super) fn forget_unseen(&mut self, since_s: u32) {
        self.store.forget_unseen(since_s);
        let store = &self.store;
        self.points.retain(|_, run| run.series().iter().all(|series| store.has(*series, since_s)));
        self.points.shrink_to(self.points.len() * 2);
    }

    /// Converts a batch that arrived now: milliseconds since the Unix epoch, and seconds since any time.
    pub(super) fn convert<'a>(
        &mut self,
        batch: impl IntoIterator<Item = &'a Data<Metric>>,
        now_ms: i64,
        now_s: u32,
    ) -> Converted {
        if self.store.is_crowded() {
            // Nothing is lost but the times of last points: whoever is there is made again.
            self.points = ByHash::default();
            self.store = Store::default();
        }
        self.store.begin(now_ms, now_s);
        for data in batch {
            for of in &data.resources {
                self.resource(&data.arena, of, now_ms);
            }
        }
        let batch = MetricsBatch::of(self.store.finish());
        if self.points.len() > 2 * self.store.len() + POINTS_MORE_MAX {
            self.points = ByHash::default();
        }
        Converted {
            batch,
            dropped: std::mem::take(&mut self.dropped),
            problems: std::mem::take(&mut self.problems),
            undo: self.store.take_undo(),
        }
    }

    /// Nobody took what a batch became: its points are taken once more, and what it said of families is said again.
    pub(super) fn undo(&mut self, undo: Undo) {
        self.store.undo(undo);
        self.forget_families();
    }

    fn resource(&mut self, arena: &Arena, of: &OfResource<Metric>, now_ms: i64) {
        let resource = of.resource.attributes;
        for key in [NAME, NAMESPACE, INSTANCE] {
            match arena.get(resource, key) {
                Some(value) => self.hasher.value(arena, value),
                None => self.hasher.number(u64::MAX),
            }
        }
        if self.options.resource_labels {
            self.attributes(arena, resource);
        }
        let hash = self.hasher.finish();
        let subject = Subject { arena, resource, hash };
        if self.options.target_info {
            self.hasher.hash(hash);
            self.attributes(arena, resource);
            self.hasher.text(b"target_info");
            let key = self.hasher.finish();
            self.info(key, "target_info", "Target metadata", now_ms, |this| this.target_info_labels(&subject));
        }
        for scope in &of.scopes {
            self.scope(&subject, scope, now_ms);
        }
    }

    fn scope(&mut self, subject: &Subject<'_>, of: &OfScope<Metric>, now_ms: i64) {
        let arena = subject.arena;
        if self.options.scope_info {
            self.hasher.hash(subject.hash);
            self.hasher.text(arena.bytes(of.scope.name));
            self.hasher.text(arena.bytes(of.scope.version));
            self.attributes(arena, of.scope.attributes);
            self.hasher.text(b"otel_scope_info");
            let key = self.hasher.finish();
            self.info(key, "otel_scope_info", "", now_ms, |this| {
                this.labels.clear();
                this.labels.set(METRIC_NAME, "otel_scope_info");
                this.set_job_and_instance(subject);
                this.labels.set("otel_scope_name", &arena.text(of.scope.name));
                this.labels.set("otel_scope_version", &arena.text(of.scope.version));
                for pair in arena.pairs(of.scope.attributes) {
                    this.labels.set_attribute(arena, arena.bytes(pair.key), pair.value);
                }
            });
        }
        for metric in &of.records {
            self.metric(subject, metric);
        }
    }

    fn metric(&mut self, of: &Subject<'_>, metric: &Metric) {
        let (metric_type, shape) = match &metric.points {
            Points::None => return,
            Points::Gauge(_) => (MetricType::Gauge, Shape::Gauge),
            // Only cumulative values are any use to Prometheus.
            Points::Sum { temporality, .. }
            | Points::Histogram { temporality, .. }
            | Points::Exponential { temporality, .. }
                if *temporality != CUMULATIVE =>
            {
                return self.drop_points(NOT_CUMULATIVE, metric.points.len());
            }
            Points::Sum { monotonic: true, .. } => (MetricType::Counter, Shape::Counter),
            Points::Sum { .. } => (MetricType::Gauge, Shape::Other),
            Points::Histogram { .. } | Points::Exponential { .. } => (MetricType::Histogram, Shape::Other),
            Points::Summary(_) => (MetricType::Summary, Shape::Other),
        };
        self.hasher.hash(of.hash);
        self.hasher.text(of.arena.bytes(metric.name));
        self.hasher.text(of.arena.bytes(metric.unit));
        self.hasher.number(metric_type as u64 | (shape as u64) << 8);
        let hash = self.hasher.finish();
        let mut family = Family { of, metric, shape, hash, metadata: None };
        if self.options.metadata {
            family.metadata = Some(self.metadata(&family, metric_type));
        }
        match &metric.points {
            Points::None => {}
            Points::Gauge(points) => self.numbers(&family, points, false),
            Points::Sum { points, monotonic, .. } => self.numbers(&family, points, *monotonic),
            Points::Histogram { points, .. } if self.options.own_bounds => {
                for point in points {
                    let when = When::new(point.time_ns, point.start_time_ns, point.flags);
                    let what = "failed to convert classic histogram to native histogram with custom buckets";
                    let made = || histograms::with_own_bounds(point);
                    self.native(&family, point.attributes, &when, what, made, &point.exemplars);
                }
            }
            Points::Histogram { points, .. } => points.iter().for_each(|point| self.histogram(&family, point)),
            Points::Exponential { points, .. } => {
                for point in points {
                    self.exponential(&family, point);
                }
            }
            Points::Summary(points) => points.iter().for_each(|point| self.summary(&family, point)),
        }
    }

    /// What is known of the family now, and whether that is news.
    fn metadata(&mut self, family: &Family<'_>, metric_type: MetricType) -> (Arc<Metadata>, bool) {
        let arena = family.of.arena;
        let metadata = Metadata {
            family: self.family_name(family),
            metric_type,
            help: arena.text(family.metric.description).into_owned(),
            unit: arena.text(family.metric.unit).into_owned(),
        };
        self.note_metadata(metadata)
    }

    fn note_metadata(&mut self, metadata: Metadata) -> (Arc<Metadata>, bool) {
        match self.families.get(&*metadata.family) {
            Some(known) if **known == metadata => return (Arc::clone(known), false),
            _ => {}
        }
        if self.families.len() >= FAMILIES_MAX {
            self.families.clear();
        }
        let metadata = Arc::new(metadata);
        self.families.insert(metadata.family.as_str().into(), Arc::clone(&metadata));
        (metadata, true)
    }

    fn family_name(&self, family: &Family<'_>) -> String {
        let (arena, metric) = (family.of.arena, family.metric);
        if self.options.suffixes {
            names::with_suffixes(arena.bytes(metric.name), arena.bytes(metric.unit), family.shape)
        } else {
            names::as_it_is(arena.bytes(metric.name))
        }
    }

    /// No sample comes of some points.
    fn drop_points(&mut self, reason: &'static str, points: usize) {
        match self.dropped.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += points,
            None if points > 0 => self.dropped.push((reason, points)),
            None => {}
        }
    }

    fn problem(&mut self, what: &'static str, family: impl FnOnce(&Self) -> String, error: impl ToString) {
        if self.problems.len() < PROBLEMS_MAX {
            let problem = Problem { what, family: family(self), error: error.to_string() };
            self.problems.push(problem);
        }
    }

    /// Writes attributes to the hasher. Their order counts, because of labels of one name the last one stays.
    #[inline]
    fn attributes(&mut self, arena: &Arena, map: Map) {
        for pair in arena.pairs(map) {
            self.hasher.text(arena.bytes(pair.key));
            self.hasher.value(arena, pair.value);
        }
        self.hasher.number(map.len() as u64);
    }

    /// A series whose value is 1 now, and which says something by its labels.
    fn info(&mut self, key: u128, name: &str, help: &str, now_ms: i64, labels: impl FnOnce(&mut Self)) {
        let at = match self.points.get_index_of(&key) {
            Some(at) => at,
            None => {
                labels(self);
                let series = match self.make() {
                    Ok(Some(series)) => series,
                    Ok(None) => return,
                    Err(error) => return self.problem("failed to write metric sample", |_| name.to_owned(), error),
                };
                self.points.insert_full(key, Run::One(series)).0
            }
        };
        let metadata = self.options.metadata.then(|| {
            self.note_metadata(Metadata {
                family: name.to_owned(),
                metric_type: MetricType::Gauge,
                help: help.to_owned(),
                unit: String::new(),
            })
        });
        for series in self.points[at].series() {
            self.store.touch(*series);
            self.store.push(*series, now_ms, 1.0);
            if let Some((metadata, news)) = &metadata {
                self.store.describe(*series, metadata, *news);
            }
        }
    }

    fn target_info_labels(&mut self, subject: &Subject<'_>) {
        let arena = subject.arena;
        self.labels.clear();
        self.labels.set(METRIC_NAME, "target_info");
        self.set_job_and_instance(subject);
        for pair in arena.pairs(subject.resource) {
            let key = arena.bytes(pair.key);
            if self.options.keep_identifying || ![NAME, NAMESPACE, INSTANCE].contains(&key) {
                self.labels.set_attribute(arena, key, pair.value);
            }
        }
    }

    fn set_job_and_instance(&mut self, subject: &Subject<'_>) {
        let get = |key| subject.arena.get(subject.resource, key).map(|value| subject.arena.to_text(value));
        if let Some(name) = get(NAME) {
            match get(NAMESPACE) {
                Some(namespace) => self.labels.set("job", &format!("{namespace}/{name}")),
                None => self.labels.set("job", &name),
            }
        }
        if let Some(instance) = get(INSTANCE) {
            self.labels.set("instance", &instance);
        }
    }

    /// The series with the labels that were set; none where no label is left.
    fn make(&mut self) -> Result<Option<Series>, StoreError> {
        self.builder.clear();
        self.labels.fill(&mut self.builder);
        if self.builder.is_empty() {
            return Ok(None);
        }
        self.store.find_or_make(&mut self.builder).map(Some)
    }

    /// The series of a metric with the attributes of a point, and with a label that says which one of the point's it is.
    fn series(
        &mut self,
        family: &Family<'_>,
        attributes: &[(&[u8], Value)],
        name: &str,
        label: Option<(&str, &str)>,
    ) -> Result<Option<Series>, StoreError> {
        self.labels.clear();
        self.labels.set(METRIC_NAME, name);
        self.set_job_and_instance(family.of);
        if let Some((name, value)) = label {
            self.labels.set(name, value);
        }
        for (key, value) in attributes {
            self.labels.set_attribute(family.of.arena, key, *value);
        }
        self.make()
    }

    /// The attributes of a point; those of its resource among them if that is asked for.
    fn attributes_of<'a>(&self, of: &Subject<'a>, attributes: Map) -> Vec<(&'a [u8], Value)> {
        let arena = of.arena;
        let pairs = |map| arena.pairs(map).iter().map(|Pair { key, value }| (arena.bytes(*key), *value));
        let mut all: Vec<(&[u8], Value)> = pairs(attributes).collect();
        if self.options.resource_labels {
            // They take the places of the point's, of which the first of a key counts.
            let mut places = HashMap::with_capacity(all.len());
            for (place, (key, _)) in all.iter().enumerate() {
                places.entry(*key).or_insert(place);
            }
            for (key, value) in pairs(of.resource) {
                let place = *places.entry(key).or_insert(all.len());
                match all.get_mut(place) {
                    Some(pair) => pair.1 = value,
                    None => all.push((key, value)),
                }
            }
        }
        all
    }

    /// Where in the table of points a point stands whose hash is finished. If it is new its series are made: of each name's
    /// end and label.
    fn point(
        &mut self,
        family: &Family<'_>,
        attributes: Map,
        ends: impl FnOnce(&mut Vec<(&'static str, Option<(&'static str, String)>)>),
    ) -> Option<usize> {
        let key = self.hasher.finish();
        if let Some(at) = self.points.get_index_of(&key) {
            return Some(at);
        }
        let mut wanted = Vec::new();
        ends(&mut wanted);
        let name = self.family_name(family);
        let attributes = self.attributes_of(family.of, attributes);
        let mut made = Vec::with_capacity(wanted.len());
        let mut full_name = String::new();
        for (end, label) in &wanted {
            full_name.clear();
            // Writing to memory does not fail.
            let _ = write!(full_name, "{name}{end}");
            let label = label.as_ref().map(|(name, value)| (*name, value.as_str()));
            match self.series(family, &attributes, &full_name, label) {
                Ok(Some(series)) => made.push(series),
                // Nobody could tell it from others.
                Ok(None) => {
                    self.drop_points(NO_LABELS, 1);
                    return None;
                }
                Err(error) => {
                    let reason = if error == StoreError::Full { TOO_MANY_SERIES } else { BAD_LABELS };
                    self.drop_points(reason, 1);
                    self.problem("failed to write metric sample", |_| name, error);
                    return None;
                }
            }
        }
        let run = match &*made {
            [one] => Run::One(*one),
            _ => Run::Many(made.into()),
        };
        Some(self.points.insert_full(key, run).0)
    }

    /// Begins the hash of a point.
    #[inline]
    fn begin(&mut self, family: &Family<'_>, attributes: Map) {
        self.hasher.hash(family.hash);
        self.attributes(family.of.arena, attributes);
    }

    /// Gives a value to one of a point's series. Whether a sample came of it.
    #[inline]
    fn write(&mut self, at: usize, nth: usize, family: &Family<'_>, when: &When, value: f64, counts: bool) -> bool {
        let series = self.points[at].series()[nth];
        let store = &mut self.store;
        if counts && self.options.start_zeros && when.start_ns != 0 {
            let start_ms = to_ms(when.start_ns as i64);
            if store.takes_start(series, start_ms, when.time_ms) {
                store.push(series, start_ms, 0.0);
            }
        }
        let takes = store.takes(series, when.time_ns);
        if takes {
            if self.options.start_zeros {
                store.note_sample(series, when.time_ms);
            }
            store.push(series, when.time_ms, if when.stale { STALE_NAN } else { value });
        }
        if let Some((metadata, news)) = &family.metadata {
            store.describe(series, metadata, *news);
        }
        takes
    }

    fn exemplar(&mut self, at: usize, nth: usize, exemplar: &otlp::Exemplar) {
        let series = self.points[at].series()[nth];
        if self.store.takes_exemplar(series, exemplar.time_ns as i64) {
            self.store.push_exemplar(series, exemplar_of(exemplar));
        }
    }

    fn numbers(&mut self, family: &Family<'_>, points: &[NumberPoint], counts: bool) {
        for point in points {
            self.begin(family, point.attributes);
            let Some(at) = self.point(family, point.attributes, |ends| ends.push(("", None))) else { continue };
            let when = When::new(point.time_ns, point.start_time_ns, point.flags);
            if !self.write(at, 0, family, &when, point.value.as_double(), counts) {
                self.drop_points(OUT_OF_ORDER, 1);
            }
            if counts {
                point.exemplars.iter().for_each(|exemplar| self.exemplar(at, 0, exemplar));
            }
        }
    }

    fn histogram(&mut self, family: &Family<'_>, point: &HistogramPoint) {
        let len = point.explicit_bounds.len().min(point.bucket_counts.len());
        if len > BOUNDS_MAX {
            let error = format!("{len} bounds are more than {BOUNDS_MAX}");
            self.drop_points(TOO_MANY_BOUNDS, 1);
            return self.problem("failed to write metric sample", |this| this.family_name(family), error);
        }
        let bounds = &point.explicit_bounds[..len];
        self.begin(family, point.attributes);
        bounds.iter().for_each(|bound| self.hasher.number(bound.to_bits()));
        self.hasher.number(u64::from(point.sum.is_some()));
        let at = self.point(family, point.attributes, |ends| {
            ends.extend(point.sum.map(|_| ("_sum", None)));
            ends.push(("_count", None));
            ends.extend(bounds.iter().map(|bound| ("_bucket", Some(("le", decimal(*bound))))));
            ends.push(("_bucket", Some(("le", "+Inf".to_owned()))));
        });
        let Some(at) = at else { return };
        let when = When::new(point.time_ns, point.start_time_ns, point.flags);
        let mut counts = std::mem::take(&mut self.counts);
        histograms::counts_up_to(point, &mut counts);
        counts.push(point.count);
        let values = point.sum.into_iter().chain([point.count as f64]).chain(counts.iter().map(|count| *count as f64));
        let first_bucket = 1 + usize::from(point.sum.is_some());
        let mut written = false;
        for (nth, value) in values.enumerate() {
            written |= self.write(at, nth, family, &when, value, true);
        }
        if !written {
            self.drop_points(OUT_OF_ORDER, 1);
        }
        self.counts = counts;
        if point.exemplars.is_empty() {
            return;
        }
        // Whole numbers are 0 here, as they are in the reference.
        let double = |exemplar: &otlp::Exemplar| match exemplar.value {
            otlp::Number::Double(value) => value + 0.0,
            _ => 0.0,
        };
        let mut exemplars: Vec<&otlp::Exemplar> = point.exemplars.iter().collect();
        exemplars.sort_by(|a, b| double(a).total_cmp(&double(b)));
        let mut exemplars = exemplars.into_iter().peekable();
        for (nth, bound) in bounds.iter().enumerate() {
            while let Some(exemplar) = exemplars.next_if(|exemplar| double(exemplar) < *bound) {
                self.exemplar(at, first_bucket + nth, exemplar);
            }
        }
        for exemplar in exemplars {
            self.exemplar(at, first_bucket + bounds.len(), exemplar);
        }
    }

    fn exponential(&mut self, family: &Family<'_>, point: &ExponentialPoint) {
        let when = When::new(point.time_ns, point.start_time_ns, point.flags);
        let what = "failed to convert exponential histogram to native histogram";
        self.native(family, point.attributes, &when, what, || histograms::native(point), &point.exemplars);
    }

    fn native(
        &mut self,
        family: &Family<'_>,
        attributes: Map,
        when: &When,
        what: &'static str,
        make: impl FnOnce() -> Result<Histogram, String>,
        exemplars: &[otlp::Exemplar],
    ) {
        self.begin(family, attributes);
        let Some(at) = self.point(family, attributes, |ends| ends.push(("", None))) else { return };
        let series = self.points[at].series()[0];
        if !self.store.takes(series, when.time_ns) {
            return self.drop_points(OUT_OF_ORDER, 1);
        }
        let histogram = match make() {
            Ok(histogram) => histogram,
            Err(error) => {
                self.drop_points(BAD_HISTOGRAM, 1);
                return self.problem(what, |this| this.family_name(family), error);
            }
        };
        if self.options.start_zeros {
            let start_ms = to_ms(when.start_ns as i64);
            if when.start_ns != 0 && self.store.takes_start(series, start_ms, when.time_ms) {
                self.store.push_histogram(series, start_ms, empty_like(&histogram));
            }
            self.store.note_sample(series, when.time_ms);
        }
        self.store.push_histogram(series, when.time_ms, histogram);
        exemplars.iter().for_each(|exemplar| self.exemplar(at, 0, exemplar));
        if let Some((metadata, news)) = &family.metadata {
            self.store.describe(series, metadata, *news);
        }
    }

    fn summary(&mut self, family: &Family<'_>, point: &SummaryPoint) {
        if point.quantiles.len() > BOUNDS_MAX {
            let error = format!("{} quantiles are more than {BOUNDS_MAX}", point.quantiles.len());
            self.drop_points(TOO_MANY_BOUNDS, 1);
            return self.problem("failed to write metric sample", |this| this.family_name(family), error);
        }
        self.begin(family, point.attributes);
        point.quantiles.iter().for_each(|(quantile, _)| self.hasher.number(quantile.to_bits()));
        let at = self.point(family, point.attributes, |ends| {
            ends.extend([("_sum", None), ("_count", None)]);
            ends.extend(point.quantiles.iter().map(|(quantile, _)| ("", Some(("quantile", decimal(*quantile))))));
        });
        let Some(at) = at else { return };
        let when = When::new(point.time_ns, point.start_time_ns, point.flags);
        let mut written = self.write(at, 0, family, &when, point.sum, true);
        written |= self.write(at, 1, family, &when, point.count as f64, true);
        for (nth, (_, value)) in point.quantiles.iter().enumerate() {
            written |= self.write(at, 2 + nth, family, &when, *value, false);
        }
        if !written {
            self.drop_points(OUT_OF_ORDER, 1);
        }
    }
}

/// A number without an exponent.
fn decimal(number: f64) -> String {
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    number.to_string()
}

fn exemplar_of(exemplar: &otlp::Exemplar) -> Exemplar {
    let ids = [("span_id", &exemplar.span_id[..]), ("trace_id", &exemplar.trace_id[..])];
    let set = ids.iter().filter(|(_, id)| id.iter().any(|byte| *byte != 0));
    Exemplar {
        index: 0,
        timestamp_ms: to_ms(exemplar.time_ns as i64),
        value: exemplar.value.as_double(),
        labels: set.map(|(name, id)| ((*name).into(), corten_golang::hex(id).into())).collect(),
    }
}

/// A histogram without observations that can stand before another.
fn empty_like(histogram: &Histogram) -> Histogram {
    Histogram {
        schema: histogram.schema,
        zero_threshold: histogram.zero_threshold,
        sum: 0.0,
        reset_hint: ResetHint::Yes,
        positive_spans: Vec::new(),
        negative_spans: Vec::new(),
        counts: HistogramCounts::Int {
            count: 0,
            zero_count: 0,
            positive_deltas: Vec::new(),
            negative_deltas: Vec::new(),
        },
        custom_values: histogram.custom_values.clone(),
    }
}
