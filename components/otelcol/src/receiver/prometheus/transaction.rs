//! From a batch of series to metrics by resources and scopes.

use std::borrow::Cow;
use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher as _;

use corten_otlp::{Data, Map, Metric, OfResource, OfScope, Scope};
use corten_signal::labels::METRIC_NAME;
use corten_signal::ledger::Pass;
use corten_signal::metrics::{CUSTOM_BUCKETS_SCHEMA, Metadata, MetricType, Origin, is_stale};
use corten_signal::{Labels, MetricsBatch};
use indexmap::IndexMap;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::families::{Family, GAPS_MAX, Gaps, Known, Writer, stem};
use super::resource;

/// What the reference calls the scope of series that do not name theirs.
const SCOPE: &str = "otelcol/prometheusreceiver";

/// How many problems of a batch are told of.
const WARNINGS_MAX: usize = 10;

/// What a batch became.
pub(super) struct Converted {
    pub(super) data: Data<Metric>,
    pub(super) warnings: Vec<Warning>,
    /// How many samples became a part of it.
    pub(super) samples: usize,
    pub(super) lost: Lost,
}

/// How many samples did not become parts of points.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Lost {
    /// They do not fit what is known of their family.
    pub(super) malformed: usize,
    /// Native histograms with too many buckets.
    pub(super) too_many_buckets: usize,
    /// Others that make a point with them are missing.
    pub(super) incomplete: usize,
    /// Exemplars of series without a sample.
    pub(super) no_series: usize,
    /// Another family of the same name came after theirs.
    pub(super) other_family: usize,
}

impl Lost {
    /// Counts them.
    pub(super) fn tell(&self, pass: &mut Pass<'_>) {
        let Lost { malformed, too_many_buckets, incomplete, no_series, other_family } = *self;
        for (reason, count) in [
            ("malformed", malformed),
            ("too many buckets", too_many_buckets),
            ("incomplete", incomplete),
            ("no series", no_series),
            ("other family", other_family),
        ] {
            pass.dropped(reason, count);
        }
    }
}

/// Something about a series that its owner should know.
#[derive(Debug, PartialEq)]
pub(super) struct Warning {
    pub(super) what: &'static str,
    /// What is wrong; empty if `what` says it all.
    pub(super) error: String,
    pub(super) labels: String,
}

/// A part of a program that series can say they come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct ScopeId<'a> {
    name: &'a str,
    version: &'a str,
    schema_url: &'a str,
}

#[derive(Default)]
struct ScopeFamilies<'a> {
    families: Vec<Family<'a>>,
    /// Where families stand, by their names: those of samples and those of native histograms.
    places: [HashMap<String, usize>; 2],
}

/// What is known of a resource.
struct ResourceFamilies<'a> {
    job: &'a str,
    instance: &'a str,
    /// Labels that say something of the target.
    info: Vec<Labels<'a>>,
    scopes: Vec<(ScopeId<'a>, ScopeFamilies<'a>)>,
    places: HashMap<ScopeId<'a>, usize>,
    scope_info: HashMap<ScopeId<'a>, Labels<'a>>,
}

struct Transaction<'a> {
    origin: Option<&'a Origin>,
    resources: Vec<ResourceFamilies<'a>>,
    places: HashMap<(&'a str, &'a str), usize>,
    seed: u64,
    buffer: Vec<u8>,
    warnings: Vec<Warning>,
    /// How many samples say something of resources and scopes.
    infos: usize,
    lost: Lost,
}

/// What the labels of a series say.
struct Series<'a> {
    labels: Labels<'a>,
    name: &'a str,
    resource: usize,
    scope: ScopeId<'a>,
}

/// Converts a batch. `version` is that of the program.
///
/// # Errors
///
/// A series does not say what it is or where it comes from.
pub(super) fn convert(batch: &MetricsBatch, version: &str) -> Result<Converted, String> {
    let mut transaction = Transaction {
        origin: batch.origin.as_ref(),
        resources: Vec::new(),
        places: HashMap::new(),
        seed: RandomState::new().hash_one(0),
        buffer: Vec::new(),
        warnings: Vec::new(),
        infos: 0,
        lost: Lost::default(),
    };
    for part in &batch.parts {
        for sample in &part.samples {
            let series = transaction.series(part.block.labels(sample.index))?;
            transaction.sample(&series, part.timestamp_ms(sample), sample.value);
        }
        let mut native = HashSet::new();
        for sample in &part.histograms {
            native.insert(sample.index);
            let series = transaction.series(part.block.labels(sample.index))?;
            let own_bounds = sample.histogram.schema == CUSTOM_BUCKETS_SCHEMA;
            let (family, hash) = transaction.family(&series, true, own_bounds);
            let added = family.add_histogram(hash, series.name, series.labels, sample.timestamp_ms, &sample.histogram);
            if let Err(error) = added {
                transaction.lost.malformed += 1;
                transaction.warn("failed to add histogram datapoint", error, series.labels);
            }
        }
        for exemplar in &part.exemplars {
            let series = transaction.series(part.block.labels(exemplar.index))?;
            let (family, hash) = transaction.family(&series, native.contains(&exemplar.index), false);
            let is_added = family.add_exemplar(hash, exemplar);
            transaction.lost.no_series += usize::from(!is_added);
        }
    }
    let mut gaps = Gaps { left: GAPS_MAX, ..Gaps::default() };
    let data = transaction.data(version, &mut gaps);
    if gaps.left_out > 0 {
        let error = format!("{} native histograms have too many buckets and are left out", gaps.left_out);
        let what = "failed to add histogram datapoint";
        transaction.warnings.push(Warning { what, error, labels: String::new() });
    }
    let lost = Lost { too_many_buckets: gaps.left_out_samples, incomplete: gaps.incomplete, ..transaction.lost };
    Ok(Converted { data, warnings: transaction.warnings, samples: gaps.samples + transaction.infos, lost })
}

impl<'a> Transaction<'a> {
    fn warn(&mut self, what: &'static str, error: String, labels: Labels<'_>) {
        if self.warnings.len() < WARNINGS_MAX {
            self.warnings.push(Warning { what, error, labels: labels.to_string() });
        }
    }

    /// Reads the labels that say where a series belongs.
    fn series(&mut self, labels: Labels<'a>) -> Result<Series<'a>, String> {
        let (mut name, mut job, mut instance) = ("", "", "");
        let mut scope = ScopeId::default();
        for (label, value) in labels.iter() {
            match label {
                METRIC_NAME => name = value,
                "job" => job = value,
                "instance" => instance = value,
                "otel_scope_name" => scope.name = value,
                "otel_scope_version" => scope.version = value,
                "otel_scope_schema_url" => scope.schema_url = value,
                _ => {}
            }
        }
        if let Some(origin) = self.origin {
            if job.is_empty() {
                job = &origin.target.job;
            }
            if instance.is_empty() {
                instance = &origin.target.instance;
            }
        }
        if job.is_empty() || instance.is_empty() {
            return Err("job or instance cannot be found from labels".to_owned());
        }
        let resources = &mut self.resources;
        let resource = match resources.last() {
            // One after the other they are mostly of one target.
            Some(last) if last.job == job && last.instance == instance => resources.len() - 1,
            _ => *self.places.entry((job, instance)).or_insert_with(|| {
                resources.push(ResourceFamilies {
                    job,
                    instance,
                    info: Vec::new(),
                    scopes: Vec::new(),
                    places: HashMap::new(),
                    scope_info: HashMap::new(),
                });
                resources.len() - 1
            }),
        };
        if name.is_empty() {
            return Err("metricName not found from labels".to_owned());
        }
        Ok(Series { labels, name, resource, scope })
    }

    fn sample(&mut self, series: &Series<'a>, time_ms: i64, value: f64) {
        if series.name == "up" && value != 1.0 && !is_stale(value) {
            let what = if value == 0.0 {
                "Failed to scrape Prometheus endpoint"
            } else {
                "The 'up' metric contains invalid value"
            };
            self.warn(what, String::new(), series.labels);
        }
        match series.name {
            "target_info" => {
                self.infos += 1;
                return self.resources[series.resource].info.push(series.labels);
            }
            "otel_scope_info" => {
                self.infos += 1;
                self.resources[series.resource].scope_info.insert(series.scope.clone(), series.labels);
                return;
            }
            _ => {}
        }
        // What ends a native histogram does not say that it was one.
        if is_stale(value)
            && let Some(known) = self.known(series.name)
            && known.metric_type == MetricType::Histogram
        {
            let (family, hash) = self.family(series, true, false);
            let is_added = family.add_stale_histogram(hash, series.labels, time_ms, value);
            self.lost.malformed += usize::from(!is_added);
            return;
        }
        let (family, hash) = self.family(series, false, false);
        if let Err(error) = family.add(hash, series.name, series.labels, time_ms, value) {
            self.lost.malformed += 1;
            self.warn("failed to add datapoint", error, series.labels);
        }
    }

    /// What the target said of a family.
    fn known(&self, name: &str) -> Option<&'a Metadata> {
        self.origin.and_then(|origin| origin.families.get(name)).map(|metadata| &**metadata)
    }

    /// The family of a series, and the hash of the series within it.
    fn family(&mut self, series: &Series<'a>, native: bool, own_bounds: bool) -> (&mut Family<'a>, u128) {
        let name = series.name;
        let resource = &self.resources[series.resource];
        let scope = match resource.scopes.last() {
            Some((last, _)) if *last == series.scope => Some(resource.scopes.len() - 1),
            _ => resource.places.get(&series.scope).copied(),
        };
        let known = scope.and_then(|scope| {
            let (_, families) = &resource.scopes[scope];
            let places = &families.places[usize::from(native)];
            let of_stem = || {
                let stem = if self.known(name).is_some() { name } else { stem(name) };
                places.get(stem).copied().filter(|place| families.families[*place].includes(name))
            };
            places.get(name).copied().or_else(of_stem)
        });
        let new = known.is_none().then(|| Family::new(self.describe(name), native, own_bounds, self.origin.is_none()));
        let resource = &mut self.resources[series.resource];
        let scope = scope.unwrap_or_else(|| {
            resource.scopes.push((series.scope.clone(), ScopeFamilies::default()));
            resource.places.insert(series.scope.clone(), resource.scopes.len() - 1);
            resource.scopes.len() - 1
        });
        let families = &mut resource.scopes[scope].1;
        let place = known.unwrap_or(families.families.len());
        if let Some(family) = new {
            // One that had the name before is forgotten, as it is in the reference.
            if let Some(before) = families.places[usize::from(native)].insert(family.name().to_owned(), place) {
                self.lost.other_family += families.families[before].clear();
            }
            families.families.push(family);
        }
        let family = &mut families.families[place];
        self.buffer.clear();
        let inner = family.inner_label();
        for (label, value) in series.labels.iter() {
            let elsewhere =
                matches!(label, METRIC_NAME | "instance" | "job" | "__scheme__" | "__metrics_path__") || label == inner;
            if !elsewhere && !matches!(label, "otel_scope_name" | "otel_scope_version" | "otel_scope_schema_url") {
                for text in [label, value] {
                    self.buffer.extend_from_slice(text.as_bytes());
                    self.buffer.push(0xff);
                }
            }
        }
        (family, xxh3_128_with_seed(&self.buffer, self.seed))
    }

    /// What is known of the family of a series of this name, and what the metric is called.
    fn describe(&self, name: &str) -> Known<'a> {
        let unknown = |help: &str, metric_type, unit: &str| {
            Cow::Owned(Metadata { family: name.to_owned(), metric_type, help: help.to_owned(), unit: unit.to_owned() })
        };
        let scrape = match name {
            "up" => Some(("The scraping was successful", "")),
            "scrape_duration_seconds" => Some(("Duration of the scrape", "seconds")),
            "scrape_samples_scraped" => Some(("The number of samples the target exposed", "")),
            "scrape_series_added" => Some(("The approximate number of new series in this scrape", "")),
            "scrape_samples_post_metric_relabeling" => {
                Some(("The number of samples remaining after metric relabeling was applied", ""))
            }
            _ => None,
        };
        if let Some((help, unit)) = scrape {
            return Known { name: name.to_owned(), metadata: unknown(help, MetricType::Gauge, unit) };
        }
        if let Some(known) = self.known(name) {
            return Known { name: name.to_owned(), metadata: Cow::Borrowed(known) };
        }
        let stem = stem(name);
        match self.known(stem) {
            // Counters keep their ends.
            Some(known) if known.metric_type == MetricType::Counter => {
                Known { name: name.to_owned(), metadata: Cow::Borrowed(known) }
            }
            Some(known) => Known { name: stem.to_owned(), metadata: Cow::Borrowed(known) },
            None => Known { name: name.to_owned(), metadata: unknown("", MetricType::Unknown, "") },
        }
    }

    /// The metrics.
    fn data(&self, version: &str, gaps: &mut Gaps) -> Data<Metric> {
        let mut data = Data::default();
        for resource in &self.resources {
            let mut writer = Writer { arena: &mut data.arena, names: HashMap::new(), gaps };
            let mut scopes = Vec::new();
            for (id, families) in &resource.scopes {
                let records: Vec<Metric> =
                    families.families.iter().filter_map(|family| family.metric(&mut writer)).collect();
                scopes.push((id, records));
            }
            if scopes.iter().all(|(_, records)| records.is_empty()) {
                continue;
            }
            let arena = &mut data.arena;
            let mut of = OfResource::default();
            of.resource.attributes = resource::attributes(arena, resource.job, resource.instance, self.origin);
            // The last value of a name counts. There can be very many names.
            let info: IndexMap<&str, &str> =
                resource.info.iter().flat_map(Labels::iter).filter(|(name, _)| !is_identity(name)).collect();
            let known = of.resource.attributes;
            for (name, value) in info {
                let value = arena.own_str(value);
                match arena.position(known, name.as_bytes()) {
                    Some(_) => arena.put(&mut of.resource.attributes, name.as_bytes(), value),
                    None => {
                        let name = arena.own(name.as_bytes());
                        arena.push(&mut of.resource.attributes, name, value);
                    }
                }
            }
            for (id, records) in scopes {
                let mut made = OfScope { records, ..OfScope::default() };
                if *id == ScopeId::default() {
                    let (name, version) = (arena.own(SCOPE.as_bytes()), arena.own(version.as_bytes()));
                    made.scope = Scope { name, version, ..Scope::default() };
                } else {
                    made.scope.name = arena.own(id.name.as_bytes());
                    made.scope.version = arena.own(id.version.as_bytes());
                    made.schema_url = arena.own(id.schema_url.as_bytes());
                    let mut attributes = Map::default();
                    for (name, value) in resource.scope_info.get(id).into_iter().flat_map(Labels::iter) {
                        let of_scope =
                            matches!(name, "otel_scope_name" | "otel_scope_version" | "otel_scope_schema_url");
                        if !of_scope && !is_identity(name) {
                            let value = arena.own_str(value);
                            arena.put(&mut attributes, name.as_bytes(), value);
                        }
                    }
                    made.scope.attributes = attributes;
                }
                of.scopes.push(made);
            }
            data.resources.push(of);
        }
        data
    }
}

fn is_identity(name: &str) -> bool {
    matches!(name, "job" | "instance" | METRIC_NAME)
}
