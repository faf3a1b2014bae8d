//! What is counted of spans: series of calls, durations and events, by resources.

use std::time::Duration;

use corten_component::Logger;
use corten_otlp::metrics::{CUMULATIVE, DELTA, Exemplar, Metric, Number, NumberPoint, Points};
use corten_otlp::{Arena, Batch, Data, Map, OfResource, OfScope, Resource, Scope, Span, Text, Value};
use corten_signal::ledger::{Pass, Row};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::adjusted::Adjusted;
use super::dimensions::{Dimensions, Found};
use crate::connector::durations::{Counted, Durations, Ranges, points};
use crate::connector::traces_to_metrics::{NO_SERVICE, Observe};
use crate::identity::{ByHash, Hasher, Recent};
use crate::periodic::{Collect, now_ns};
use crate::resend::Seldom;

const SCOPE: &[u8] = b"spanmetricsconnector";
const SERVICE_NAME: &[u8] = b"service.name";
const OVERFLOW_KEY: &[u8] = b"otel.metric.overflow";
/// The series for what is beyond the limit. No other one has this hash.
const OVERFLOW: u128 = 0;
/// How many series there are of a component, at most, whatever its own limit says.
const SERIES_MAX: usize = 1 << 20;
/// How much memory resources and series take at most before there are no further series, in bytes, about.
const BYTES_MAX: usize = 256 << 20;
/// How much they may grow beyond that. Then resources are forgotten: those first that wait for their last flush, and then those
/// whose last span is longest ago.
const GROWTH_BYTES_MAX: usize = BYTES_MAX / 4;
/// What a series takes in maps, or a resource, in bytes.
const OVERHEAD_BYTES: usize = 96;
/// How often the log says that there is too much.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// How many resources wait for the next flush after they had to make room for others.
const EVICTED_MAX: usize = 10_000;

/// What the arguments say of counting.
#[derive(Debug)]
pub(crate) struct Settings {
    /// What has to be the same for counts to go on under other arguments.
    pub(super) shape: super::SpanMetricsArguments,
    pub(super) with_service: bool,
    pub(super) with_name: bool,
    pub(super) with_kind: bool,
    pub(super) with_status: bool,
    /// The instance of the collector, where series have it.
    pub(super) instance: Option<String>,
    pub(super) scopes: Vec<Box<[u8]>>,
    pub(super) resource_keys: Vec<Box<[u8]>>,
    pub(super) dimensions: Dimensions,
    pub(super) calls_dimensions: Dimensions,
    pub(super) duration_dimensions: Dimensions,
    pub(super) event_dimensions: Dimensions,
    pub(super) histogram: Option<Buckets>,
    pub(super) events: bool,
    /// How many exemplars a point has at most.
    pub(super) exemplars_max: usize,
    pub(super) delta: bool,
    pub(super) names: Names,
    /// How many series a resource has of a metric at most.
    pub(super) series_max: usize,
    pub(super) resources_max: usize,
    pub(super) timestamps_max: usize,
    pub(super) resource_age_max: Duration,
    pub(super) series_age_max: Duration,
}

/// How durations are counted.
#[derive(Debug)]
pub(super) struct Buckets {
    /// How many nanoseconds the unit has.
    pub(super) unit_ns: f64,
    pub(super) unit: &'static str,
    pub(super) ranges: Ranges,
}

/// The names of the metrics.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) calls: String,
    pub(super) duration: String,
    pub(super) events: String,
}

/// What is counted.
pub(crate) struct State {
    inner: Mutex<Inner>,
    logger: Logger,
    said: Seldom,
}

struct Inner {
    settings: Settings,
    counted: All,
    adjusted: Adjusted,
    /// When series were last flushed whose counts start anew with every flush.
    flushed: Recent<u64>,
}

#[derive(Default)]
struct All {
    hasher: Hasher,
    resources: Recent<OfOne>,
    /// Resources that are no longer remembered, but have yet to be flushed.
    evicted: ByHash<OfOne>,
    all: Amount,
}

/// How much there is of all resources.
#[derive(Debug, Default)]
struct Amount {
    series: usize,
    /// How much memory they take, in bytes, about.
    bytes: usize,
    /// How many series came for which there was no room, and how many resources were forgotten for want of it.
    beyond: usize,
}

/// What is counted of one resource.
struct OfOne {
    arena: Arena,
    attributes: Map,
    seen: Instant,
    calls: Table<u64>,
    durations: Table<Durations>,
    events: Table<u64>,
    /// How much memory it takes, in bytes, about.
    bytes: usize,
}

type Table<T> = ByHash<Series<T>>;

struct Series<T> {
    attributes: Map,
    start_ns: u64,
    seen: Instant,
    /// Whether it was never flushed.
    is_new: bool,
    value: T,
    exemplars: Vec<Exemplar>,
}

/// When something is counted.
#[derive(Clone, Copy)]
struct Moment {
    seen: Instant,
    now_ns: u64,
}

impl State {
    pub(super) fn new(settings: Settings, logger: Logger) -> Self {
        let inner =
            Inner { settings, counted: All::default(), adjusted: Adjusted::default(), flushed: Recent::default() };
        State { inner: Mutex::new(inner), logger, said: Seldom::default() }
    }

    /// Whether other arguments make the same series.
    pub(super) fn fits(&self, settings: &Settings) -> bool {
        self.inner.lock().settings.shape == settings.shape
    }

    /// Goes on counting under other arguments that make the same series.
    pub(super) fn go_on(&self, settings: Settings) {
        let mut inner = self.inner.lock();
        let instance = inner.settings.instance.take();
        inner.settings = Settings { instance, ..settings };
    }
}

impl Observe for State {
    fn observe(&self, batch: &Batch<Span>, pass: &mut Pass<'_>) -> usize {
        let parts: Vec<_> = batch.data().collect();
        let moment = Moment { seen: Instant::now(), now_ns: now_ns() };
        let mut inner = self.inner.lock();
        let no_service = parts.iter().map(|data| inner.observe(data, moment)).sum();
        let all = &mut inner.counted.all;
        if std::mem::take(&mut all.beyond) > 0 && self.said.is_time(SAY_EVERY) {
            let fields = [("series", all.series.into()), ("bytes", all.bytes.into())];
            self.logger.warn("too many series: further ones count as one, or take the place of others", &fields);
        }
        drop(inner);
        pass.dropped(NO_SERVICE, no_service);
        no_service
    }

    fn counts(&self) -> Vec<(&'static str, usize)> {
        let counted = &self.inner.lock().counted;
        vec![
            ("series", counted.all.series),
            ("resources", counted.resources.len()),
            ("series_bytes", counted.all.bytes),
        ]
    }
}

/// A span with what it stands in.
struct Seen<'a> {
    arena: &'a Arena,
    service: Text,
    resource: Map,
    scope: &'a Scope,
    span: &'a Span,
}

impl Inner {
    /// Looks at spans; of how many nothing says which service they are of.
    fn observe(&mut self, data: &Data<Span>, moment: Moment) -> usize {
        let mut no_service = 0;
        let Inner { settings, counted, adjusted, .. } = self;
        let arena = &data.arena;
        for of in &data.resources {
            let resource = of.resource.attributes;
            let service = match arena.get(resource, SERVICE_NAME) {
                Some(Value::Str(name)) => name,
                Some(_) => Text::EMPTY,
                None => {
                    no_service += of.scopes.iter().map(|scope| scope.records.len()).sum::<usize>();
                    continue;
                }
            };
            let All { hasher, resources, evicted, all } = counted;
            let one = OfOne::at(settings, hasher, (resources, evicted, all), arena, resource, moment.seen);
            one.seen = moment.seen;
            let before = all.bytes;
            for scope in &of.scopes {
                for span in &scope.records {
                    let count = adjusted.count(arena.bytes(span.trace_state));
                    let seen = Seen { arena, service, resource, scope: &scope.scope, span };
                    one.count(settings, hasher, all, &seen, count, moment);
                }
            }
            one.bytes += all.bytes - before;
            counted.make_room();
        }
        no_service
    }
}

impl All {
    /// Forgets resources until there is not too much.
    fn make_room(&mut self) {
        loop {
            let too_large = self.all.bytes > BYTES_MAX + GROWTH_BYTES_MAX;
            let one = if self.evicted.len() > EVICTED_MAX || too_large && !self.evicted.is_empty() {
                self.evicted.shift_remove_index(0)
            } else if too_large {
                self.resources.pop_beyond(0)
            } else {
                None
            };
            let Some((_, one)) = one else { return };
            self.all.beyond += 1;
            self.all.series = self.all.series.saturating_sub(one.len());
            self.all.bytes = self.all.bytes.saturating_sub(one.bytes);
        }
    }
}

impl Settings {
    /// Writes what tells the series of a span from others, but for the dimensions of single metrics.
    #[inline]
    fn write_key(&self, hasher: &mut Hasher, seen: &Seen<'_>, event: Map) {
        let Seen { arena, span, .. } = seen;
        if self.with_service {
            hasher.text(arena.bytes(seen.service));
        }
        if self.with_name {
            hasher.text(arena.bytes(span.name));
        }
        let kind = if self.with_kind { known(span.kind, 5) } else { 0 };
        let status = if self.with_status { known(span.status.code, 2) } else { 0 };
        hasher.number(u64::from(kind) << 8 | u64::from(status));
        if let Some((name, version)) = self.scope_of(seen) {
            hasher.text(name);
            hasher.text(version);
        }
        write_dimensions(&self.dimensions, hasher, seen, event);
    }

    /// The name and the version of the scope, where series have them.
    fn scope_of<'a>(&self, seen: &Seen<'a>) -> Option<(&'a [u8], &'a [u8])> {
        if self.scopes.is_empty() || seen.scope.name.is_empty() {
            return None;
        }
        let name = seen.arena.bytes(seen.scope.name);
        self.scopes.iter().any(|scope| **scope == *name).then(|| (name, seen.arena.bytes(seen.scope.version)))
    }

    /// The attributes of a series.
    fn attributes(&self, to: &mut Arena, seen: &Seen<'_>, event: Map, own: &Dimensions) -> Map {
        let Seen { arena, span, .. } = seen;
        let mut map = Map::default();
        let mut put = |key: &[u8], value: &[u8]| {
            let value = Value::Str(to.own(value));
            to.put(&mut map, key, value);
        };
        if self.with_service {
            put(SERVICE_NAME, arena.bytes(seen.service));
        }
        if self.with_name {
            put(b"span.name", arena.bytes(span.name));
        }
        if self.with_kind {
            put(b"span.kind", KINDS.get(span.kind as usize).copied().unwrap_or_default().as_bytes());
        }
        if self.with_status {
            put(b"status.code", STATUSES.get(span.status.code as usize).copied().unwrap_or_default().as_bytes());
        }
        if let Some(instance) = &self.instance {
            put(b"collector.instance.id", instance.as_bytes());
        }
        if let Some((name, version)) = self.scope_of(seen) {
            put(b"span.instrumentation.scope.name", name);
            if !version.is_empty() {
                put(b"span.instrumentation.scope.version", version);
            }
        }
        for dimensions in [&self.dimensions, own] {
            dimensions.each(arena, [span.attributes, event, seen.resource], |name, found| {
                let value = match found {
                    Found::Attribute(value) => to.carry(arena, value),
                    Found::Default(text) => Value::Str(to.own(text)),
                };
                to.put(&mut map, name, value);
            });
        }
        map
    }

    /// Whether there may be a further series where there are so many of a metric of a resource, and so much in all.
    fn has_room(&self, of_metric: usize, all: &mut Amount) -> bool {
        let has_room = all.series < SERIES_MAX && all.bytes < BYTES_MAX;
        all.beyond += usize::from(!has_room);
        has_room && of_metric < self.series_max
    }
}

const KINDS: [&str; 6] = [
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];
const STATUSES: [&str; 3] = ["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];

/// A number of an enumeration; all that it does not have are one.
fn known(value: i32, max: u8) -> u8 {
    u8::try_from(value).ok().filter(|value| *value <= max).unwrap_or(u8::MAX)
}

#[inline]
fn write_dimensions(dimensions: &Dimensions, hasher: &mut Hasher, seen: &Seen<'_>, event: Map) {
    dimensions.each(seen.arena, [seen.span.attributes, event, seen.resource], |name, found| {
        hasher.text(name);
        match found {
            Found::Attribute(value) => hasher.shown(seen.arena, value),
            Found::Default(text) => hasher.text(text),
        }
    });
}

impl OfOne {
    /// What is counted of a resource. The one that makes room for it waits for the next flush.
    fn at<'a>(
        settings: &Settings,
        hasher: &mut Hasher,
        (resources, evicted, all): (&'a mut Recent<OfOne>, &mut ByHash<OfOne>, &mut Amount),
        arena: &Arena,
        attributes: Map,
        seen: Instant,
    ) -> &'a mut Self {
        let keys = &settings.resource_keys;
        let hash =
            hasher.attributes_if(arena, attributes, |key| keys.is_empty() || keys.iter().any(|own| **own == *key));
        if !resources.contains(hash) {
            let one = evicted.shift_remove(&hash).unwrap_or_else(|| {
                let mut own = Arena::default();
                let attributes = own.carry_map(arena, attributes);
                let bytes = own.held_bytes() + size_of::<OfOne>() + OVERHEAD_BYTES;
                all.bytes += bytes;
                OfOne {
                    bytes,
                    arena: own,
                    attributes,
                    seen,
                    calls: Table::default(),
                    durations: Table::default(),
                    events: Table::default(),
                }
            });
            let mut over = resources.insert(hash, one, settings.resources_max.max(1));
            // There may be more of them since the arguments allowed more.
            while let Some((hash, one)) = over {
                evicted.insert(hash, one);
                over = resources.pop_beyond(settings.resources_max.max(1));
            }
        }
        resources.get(hash).expect("it was put there just now")
    }

    /// How many series there are.
    fn len(&self) -> usize {
        self.calls.len() + self.durations.len() + self.events.len()
    }

    #[inline]
    fn count(
        &mut self,
        settings: &Settings,
        hasher: &mut Hasher,
        all: &mut Amount,
        seen: &Seen<'_>,
        count: u64,
        moment: Moment,
    ) {
        let Seen { span, .. } = seen;
        let none = Map::default();
        let duration_ns = span.end_time_ns.saturating_sub(span.start_time_ns);
        let duration = duration_ns as f64 / settings.histogram.as_ref().map_or(1e6, |buckets| buckets.unit_ns);
        settings.write_key(hasher, seen, none);
        let mark = hasher.mark();
        write_dimensions(&settings.calls_dimensions, hasher, seen, none);
        let calls_key = hasher.finish_to(mark);
        let mut counting = Counting { settings, seen, duration, moment, all, arena: &mut self.arena };
        let calls = counting.series(&mut self.calls, calls_key, none, &settings.calls_dimensions, || 0);
        *calls = calls.saturating_add(count);
        if let Some(buckets) = &settings.histogram {
            let key = if settings.calls_dimensions.is_empty() && settings.duration_dimensions.is_empty() {
                calls_key
            } else {
                write_dimensions(&settings.duration_dimensions, hasher, seen, none);
                hasher.finish_to(mark)
            };
            let heap_bytes = &mut 0;
            let new = || {
                let durations = Durations::new(&buckets.ranges);
                *heap_bytes = durations.heap_bytes();
                durations
            };
            let durations = counting.series(&mut self.durations, key, none, &settings.duration_dimensions, new);
            let before = durations.heap_bytes();
            durations.observe(&buckets.ranges, duration, count);
            counting.all.bytes = (counting.all.bytes + durations.heap_bytes() + *heap_bytes).saturating_sub(before);
        }
        hasher.clear();
        if settings.events {
            for event in &span.events {
                settings.write_key(hasher, seen, event.attributes);
                write_dimensions(&settings.event_dimensions, hasher, seen, event.attributes);
                let key = hasher.finish();
                let own = &settings.event_dimensions;
                let events = counting.series(&mut self.events, key, event.attributes, own, || 0);
                *events = events.saturating_add(count);
            }
        }
    }

    /// Forgets series that were not seen for a while.
    fn expire(&mut self, age_max: Duration, now: Instant) {
        let before = self.len();
        let is_young = |seen: Instant| now.saturating_duration_since(seen) < age_max;
        self.calls.retain(|_, series| is_young(series.seen));
        self.durations.retain(|_, series| is_young(series.seen));
        self.events.retain(|_, series| is_young(series.seen));
        if self.len() < before {
            // Their attributes go, too.
            let old = std::mem::take(&mut self.arena);
            self.attributes = self.arena.carry_map(&old, self.attributes);
            let maps = self.calls.values_mut().map(|series| &mut series.attributes);
            let maps = maps.chain(self.durations.values_mut().map(|series| &mut series.attributes));
            for map in maps.chain(self.events.values_mut().map(|series| &mut series.attributes)) {
                *map = self.arena.carry_map(&old, *map);
            }
        }
    }

    fn clear_exemplars(&mut self) {
        self.calls.values_mut().for_each(|series| series.exemplars = Vec::new());
        self.durations.values_mut().for_each(|series| series.exemplars = Vec::new());
        self.events.values_mut().for_each(|series| series.exemplars = Vec::new());
    }

    /// Looks how much memory it takes.
    fn measure(&mut self) {
        fn of<T>(table: &Table<T>, heap_bytes: impl Fn(&T) -> usize) -> usize {
            let of_one = |series: &Series<T>| {
                size_of::<Series<T>>()
                    + OVERHEAD_BYTES
                    + series.exemplars.len() * size_of::<Exemplar>()
                    + heap_bytes(&series.value)
            };
            table.values().map(of_one).sum()
        }
        self.bytes = self.arena.held_bytes()
            + size_of::<OfOne>()
            + OVERHEAD_BYTES
            + of(&self.calls, |_| 0)
            + of(&self.durations, Durations::heap_bytes)
            + of(&self.events, |_| 0);
    }
}

/// What counting one span needs.
struct Counting<'a> {
    settings: &'a Settings,
    seen: &'a Seen<'a>,
    duration: f64,
    moment: Moment,
    all: &'a mut Amount,
    arena: &'a mut Arena,
}

impl Counting<'_> {
    /// The series of a hash.
    #[inline]
    fn series<'t, T>(
        &mut self,
        table: &'t mut Table<T>,
        hash: u128,
        event: Map,
        own: &Dimensions,
        new: impl FnOnce() -> T,
    ) -> &'t mut T {
        let at = match table.get_index_of(&hash) {
            Some(at) => at,
            None => self.new_series(table, hash, event, own, new),
        };
        let (hash, series) = table.get_index_mut(at).expect("it is there");
        series.seen = self.moment.seen;
        let span = self.seen.span;
        let exemplars_max = self.settings.exemplars_max;
        if series.exemplars.len() < exemplars_max && *hash != OVERFLOW && span.trace_id != [0; 16] {
            self.all.bytes += size_of::<Exemplar>();
            series.exemplars.push(Exemplar {
                value: Number::Double(self.duration),
                trace_id: span.trace_id,
                span_id: span.span_id,
                ..Exemplar::default()
            });
        }
        &mut series.value
    }

    /// Makes a series, or says which one stands for what is beyond the limit.
    #[cold]
    fn new_series<T>(
        &mut self,
        table: &mut Table<T>,
        hash: u128,
        event: Map,
        own: &Dimensions,
        new: impl FnOnce() -> T,
    ) -> usize {
        let mut hash = hash;
        let held = self.arena.held_bytes();
        let attributes = if self.settings.has_room(table.len(), self.all) {
            self.settings.attributes(self.arena, self.seen, event, own)
        } else {
            hash = OVERFLOW;
            if let Some(at) = table.get_index_of(&hash) {
                return at;
            }
            let mut map = Map::default();
            self.arena.put(&mut map, OVERFLOW_KEY, Value::Bool(true));
            map
        };
        self.all.series += 1;
        self.all.bytes += size_of::<Series<T>>() + OVERHEAD_BYTES + self.arena.held_bytes() - held;
        let Moment { seen, now_ns } = self.moment;
        let series = Series { attributes, start_ns: now_ns, seen, is_new: true, value: new(), exemplars: Vec::new() };
        table.insert_full(hash, series).0
    }
}

/// Counts that were handed out, and with whose flush they start anew.
pub(crate) struct Kept(Vec<(u128, OfOne)>);

impl Collect for State {
    type Kept = Kept;

    fn collect(&self) -> Option<(Batch<Metric>, Kept)> {
        self.inner.lock().collect(now_ns(), Instant::now())
    }

    /// Counts that would have started anew go on.
    fn put_back(&self, _: Batch<Metric>, kept: Kept, _: &Row) {
        self.inner.lock().put_back(kept);
    }
}

/// The hash of a series among those of all resources.
fn overall(resource: u128, series: u128) -> u128 {
    resource.rotate_left(64) ^ series
}

impl Inner {
    fn collect(&mut self, now_ns: u64, now: Instant) -> Option<(Batch<Metric>, Kept)> {
        let mut data = Data::default();
        let hashes: Vec<u128> = self.counted.resources.hashes().collect();
        let mut kept = Vec::new();
        if self.settings.delta {
            kept.extend(hashes.iter().filter_map(|hash| Some((*hash, self.counted.resources.remove(*hash)?))));
            kept.extend(std::mem::take(&mut self.counted.evicted));
            self.counted.all = Amount::default();
            for (hash, one) in &mut kept {
                let flushed = &mut self.flushed;
                let max = self.settings.timestamps_max;
                one.begin_with(|series| flushed.get(overall(*hash, series)).copied());
                one.each_hash(|series| {
                    flushed.insert(overall(*hash, series), now_ns, max);
                });
                self.settings.write(&mut data, one, now_ns);
            }
        } else {
            for hash in &hashes {
                if let Some(one) = self.counted.resources.peek(*hash) {
                    self.settings.write(&mut data, one, now_ns);
                }
            }
            for one in self.counted.evicted.values_mut() {
                self.settings.write(&mut data, one, now_ns);
            }
            // The last counts of what is no longer remembered go once more if nobody takes them.
            kept.extend(std::mem::take(&mut self.counted.evicted));
            self.expire(&hashes, now);
        }
        (!data.resources.is_empty()).then(|| (Batch::of(data, Default::default()), Kept(kept)))
    }

    /// Forgets what was not seen for a while.
    fn expire(&mut self, hashes: &[u128], now: Instant) {
        let Inner { settings, counted, .. } = self;
        counted.all = Amount::default();
        for hash in hashes {
            let Some(one) = counted.resources.peek(*hash) else { continue };
            one.clear_exemplars();
            if !settings.series_age_max.is_zero() {
                one.expire(settings.series_age_max, now);
            }
            one.measure();
            counted.all.series += one.len();
            counted.all.bytes += one.bytes;
            let age = now.saturating_duration_since(one.seen);
            if !settings.resource_age_max.is_zero()
                && age >= settings.resource_age_max
                && let Some(one) = counted.resources.remove(*hash)
            {
                // It is flushed once more, so that the last of its counts is there for a while.
                counted.evicted.insert(*hash, one);
            }
        }
    }

    fn put_back(&mut self, kept: Kept) {
        for (hash, one) in kept.0 {
            one.each_hash(|series| {
                self.flushed.remove(overall(hash, series));
            });
            let counted = &mut self.counted;
            if !self.settings.delta {
                // What came again meanwhile counts anew.
                if !counted.resources.contains(hash) && !counted.evicted.contains_key(&hash) {
                    counted.all.series += one.len();
                    counted.all.bytes += one.bytes;
                    counted.evicted.insert(hash, one);
                }
                continue;
            }
            let known = if counted.resources.contains(hash) {
                counted.resources.peek(hash)
            } else {
                counted.evicted.get_mut(&hash)
            };
            match known {
                Some(known) => known.merge(one, &mut counted.all),
                None => {
                    counted.all.series += one.len();
                    counted.all.bytes += one.bytes;
                    if let Some((hash, one)) = counted.resources.insert(hash, one, self.settings.resources_max) {
                        counted.evicted.insert(hash, one);
                    }
                }
            }
        }
    }
}

impl OfOne {
    /// Adds earlier counts.
    fn merge(&mut self, earlier: OfOne, all: &mut Amount) {
        let OfOne { arena, calls, durations, events, .. } = earlier;
        let add = |count: &mut u64, more: &u64| *count = count.saturating_add(*more);
        let before = self.len();
        merge_table(&mut self.calls, calls, &mut self.arena, &arena, add);
        merge_table(&mut self.durations, durations, &mut self.arena, &arena, Durations::merge);
        merge_table(&mut self.events, events, &mut self.arena, &arena, add);
        all.series += self.len() - before;
        let bytes = self.bytes;
        self.measure();
        all.bytes = (all.bytes + self.bytes).saturating_sub(bytes);
    }

    /// Says since when series count, where that is known.
    fn begin_with(&mut self, mut start_ns: impl FnMut(u128) -> Option<u64>) {
        fn begin<T>(table: &mut Table<T>, start_ns: &mut impl FnMut(u128) -> Option<u64>) {
            for (hash, series) in table {
                series.start_ns = start_ns(*hash).unwrap_or(series.start_ns);
            }
        }
        begin(&mut self.calls, &mut start_ns);
        begin(&mut self.durations, &mut start_ns);
        begin(&mut self.events, &mut start_ns);
    }

    fn each_hash(&self, each: impl FnMut(u128)) {
        self.calls.keys().chain(self.durations.keys()).chain(self.events.keys()).copied().for_each(each);
    }
}

fn merge_table<T>(table: &mut Table<T>, earlier: Table<T>, to: &mut Arena, from: &Arena, merge: impl Fn(&mut T, &T)) {
    for (hash, mut series) in earlier {
        match table.get_mut(&hash) {
            Some(known) => {
                merge(&mut known.value, &series.value);
                known.start_ns = series.start_ns;
            }
            None => {
                series.attributes = to.carry_map(from, series.attributes);
                table.insert(hash, series);
            }
        }
    }
}

impl Settings {
    /// Writes the metrics of a resource.
    fn write(&self, data: &mut Data<Metric>, one: &mut OfOne, now_ns: u64) {
        let arena = &mut data.arena;
        let temporality = if self.delta { DELTA } else { CUMULATIVE };
        let mut metrics = vec![Metric {
            name: arena.own(self.names.calls.as_bytes()),
            points: Points::Sum {
                points: self.numbers(arena, &one.arena, &mut one.calls, now_ns),
                temporality,
                monotonic: true,
            },
            ..Metric::default()
        }];
        if let Some(buckets) = &self.histogram {
            let counted = one.durations.values().map(|series| Counted {
                attributes: series.attributes,
                start_ns: series.start_ns,
                exemplars: series.exemplars(now_ns),
                durations: &series.value,
            });
            metrics.push(Metric {
                name: arena.own(self.names.duration.as_bytes()),
                unit: arena.own(buckets.unit.as_bytes()),
                points: points(&buckets.ranges, temporality, counted, (&mut *arena, &one.arena), now_ns),
                ..Metric::default()
            });
        }
        if self.events {
            let points = self.numbers(arena, &one.arena, &mut one.events, now_ns);
            metrics.push(Metric {
                name: arena.own(self.names.events.as_bytes()),
                points: Points::Sum { points, temporality, monotonic: true },
                ..Metric::default()
            });
        }
        let attributes = arena.carry_map(&one.arena, one.attributes);
        let name = arena.own(SCOPE);
        data.resources.push(OfResource {
            resource: Resource { attributes, ..Resource::default() },
            schema_url: Text::EMPTY,
            scopes: vec![OfScope {
                scope: Scope { name, ..Scope::default() },
                schema_url: Text::EMPTY,
                records: metrics,
            }],
        });
    }

    fn numbers(&self, to: &mut Arena, from: &Arena, table: &mut Table<u64>, now_ns: u64) -> Vec<NumberPoint> {
        let number = |series: &mut Series<u64>| {
            // What starts with a value would be no increase to whoever compares it with nothing: a series starts with 0.
            let starts = std::mem::take(&mut series.is_new) && !self.delta;
            NumberPoint {
                attributes: to.carry_map(from, series.attributes),
                start_time_ns: series.start_ns,
                time_ns: now_ns,
                value: Number::Int(if starts { 0 } else { i64::try_from(series.value).unwrap_or(i64::MAX) }),
                exemplars: series.exemplars(now_ns),
                flags: 0,
            }
        };
        table.values_mut().map(number).collect()
    }
}

impl<T> Series<T> {
    fn exemplars(&self, now_ns: u64) -> Vec<Exemplar> {
        self.exemplars.iter().map(|exemplar| Exemplar { time_ns: now_ns, ..*exemplar }).collect()
    }
}
