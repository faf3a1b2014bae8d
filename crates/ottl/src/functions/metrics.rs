//! The functions of metrics and their points.

use corten_otlp::metrics::{
    Buckets, CUMULATIVE, DELTA, Exemplar, ExponentialPoint, HistogramPoint, Number, NumberPoint, Points, SummaryPoint,
};
use corten_otlp::{Arena, Map, Metric, Pair, Value};

use super::Kind::{ConstBool, ConstDouble, ConstDoubles, ConstText, ConstTexts, DoubleLike, Text as TextKind};
use super::editors::one_of;
use super::types::{double_like, to_int};
use super::{Arg, Function, Got, Param, Prepared, const_str, const_texts, optional, param, plain};
use crate::error::EvalError;
use crate::item::Item;
use crate::program::{Call, Ex};
use crate::value::{Const, Val, copy_map};

const TEMPORALITY: Param = param("string_agg_temp", ConstText);
const MONOTONIC: Param = param("monotonic", ConstBool);
const SUFFIX: Param = optional("suffix", ConstText);
const AGGREGATIONS: &[&str] = &["sum", "mean", "min", "max", "median", "count"];

/// The functions of metrics.
pub(super) const METRICS: &[Function] = &[
    Function {
        name: "extract_sum_metric",
        params: &[MONOTONIC, SUFFIX],
        prepare: plain,
        run: |call, item| extract(call, item, "extract_sum_metric", "_sum", true),
    },
    Function {
        name: "extract_count_metric",
        params: &[MONOTONIC, SUFFIX],
        prepare: plain,
        run: |call, item| extract(call, item, "extract_count_metric", "_count", false),
    },
    Function {
        name: "extract_percentile_metric",
        params: &[param("percentile", ConstDouble), SUFFIX],
        prepare: |args| match const_double(args, 0) {
            Some(percentile) if percentile > 0.0 && percentile < 100.0 => Ok(Prepared::Nothing),
            _ => Err((0, "the percentile must be greater than 0 and less than 100".to_owned())),
        },
        run: extract_percentile,
    },
    Function {
        name: "convert_gauge_to_sum",
        params: &[TEMPORALITY, MONOTONIC],
        prepare: |args| one_of(args, 0, &["delta", "cumulative"]),
        run: |call, item| {
            let (temporality, monotonic) = (temporality(call), call.const_bool(1).unwrap_or(false));
            let metric = metric(item)?;
            if let Points::Gauge(points) = &mut metric.points {
                metric.points = Points::Sum { points: std::mem::take(points), temporality, monotonic };
            }
            Ok(Val::Nil)
        },
    },
    Function {
        name: "convert_sum_to_gauge",
        params: &[],
        prepare: plain,
        run: |_, item| {
            let metric = metric(item)?;
            if let Points::Sum { points, .. } = &mut metric.points {
                metric.points = Points::Gauge(std::mem::take(points));
            }
            Ok(Val::Nil)
        },
    },
    Function {
        name: "convert_summary_quantile_val_to_gauge",
        params: &[optional("attribute_key", ConstText), SUFFIX],
        prepare: plain,
        run: |call, item| {
            let Points::Summary(points) = metric(item)?.points.clone() else { return Ok(Val::Nil) };
            let key = item.arena.own(call.const_text(0).unwrap_or(b"quantile"));
            let mut gauge = Vec::new();
            for point in &points {
                for (quantile, value) in &point.quantiles {
                    let mut attributes = copy_map(item.arena, point.attributes);
                    put(item.arena, &mut attributes, key, Value::Double(*quantile));
                    gauge.push(number(attributes, point.start_time_ns, point.time_ns, Number::Double(*value)));
                }
            }
            add(item, call.const_text(1).unwrap_or(b".quantiles"), None, Points::Gauge(gauge))
        },
    },
    Function {
        name: "copy_metric",
        params: &[optional("name", TextKind), optional("description", TextKind), optional("unit", TextKind)],
        prepare: plain,
        run: copy_metric,
    },
    Function {
        name: "scale_metric",
        params: &[param("multiplier", ConstDouble), optional("unit", TextKind)],
        prepare: plain,
        run: scale,
    },
    Function {
        name: "aggregate_on_attributes",
        params: &[param("aggregation_function", ConstText), optional("attributes", ConstTexts)],
        prepare: |args| one_of(args, 0, AGGREGATIONS),
        run: |call, item| {
            if matches!(metric(item)?.points, Points::Summary(_)) {
                return Err("aggregate_on_attributes does not support aggregating Summary metrics".into());
            }
            if let Some(kept) = const_texts(&call.args, 1) {
                each_attributes(item, |arena, map| {
                    arena.retain(map, |arena, pair| kept.contains(&arena.bytes(pair.key)));
                })?;
            }
            aggregate(call, item)
        },
    },
    Function {
        name: "aggregate_on_attribute_value",
        params: &[
            param("aggregation_function", ConstText),
            param("attribute", ConstText),
            param("values", ConstTexts),
            param("new_value", ConstText),
        ],
        prepare: |args| one_of(args, 0, AGGREGATIONS),
        run: |call, item| {
            let (attribute, new) = (call.const_text(1).unwrap_or_default(), call.const_text(3).unwrap_or_default());
            let values = const_texts(&call.args, 2).unwrap_or_default();
            let new = Value::Str(item.arena.own(new));
            each_attributes(item, |arena, map| {
                let Some(at) = arena.position(*map, attribute) else { return };
                let text = match arena.pairs(*map)[at].value {
                    Value::Str(text) => arena.bytes(text),
                    // What is no text counts as an empty one.
                    _ => b"",
                };
                if values.contains(&text) {
                    arena.pairs_mut(*map)[at].value = new;
                }
            })?;
            aggregate(call, item)
        },
    },
    Function {
        name: "convert_exponential_histogram_to_histogram",
        params: &[param("distribution_fn", ConstText), param("explicit_bounds", ConstDoubles)],
        prepare: |args| {
            one_of(args, 0, &["", "upper", "midpoint", "random", "uniform"])?;
            match &args[1] {
                Some(Arg::Many(bounds)) if bounds.is_empty() => Err((1, "there must be bounds".to_owned())),
                _ => Ok(Prepared::Nothing),
            }
        },
        run: to_explicit,
    },
    Function {
        name: "HasAttrKeyOnDatapoint",
        params: &[param("key", ConstText)],
        prepare: plain,
        run: |call, item| {
            let key = call.const_text(0).unwrap_or_default();
            has_attribute(item, |arena, map| arena.position(map, key).is_some())
        },
    },
    Function {
        name: "HasAttrOnDatapoint",
        params: &[param("key", ConstText), param("expected_val", ConstText)],
        prepare: plain,
        run: |call, item| {
            let (key, expected) = (call.const_text(0).unwrap_or_default(), call.const_text(1).unwrap_or_default());
            has_attribute(item, |arena, map| match arena.get(map, key) {
                Some(Value::Str(text)) => arena.bytes(text) == expected,
                Some(_) => expected.is_empty(),
                None => false,
            })
        },
    },
];

/// The functions of points.
pub(super) const POINTS: &[Function] = &[
    Function {
        name: "convert_summary_sum_val_to_sum",
        params: &[TEMPORALITY, MONOTONIC, SUFFIX],
        prepare: |args| one_of(args, 0, &["delta", "cumulative"]),
        run: |call, item| summary_to_sum(call, item, b"_sum", |point| Number::Double(point.sum)),
    },
    Function {
        name: "convert_summary_count_val_to_sum",
        params: &[TEMPORALITY, MONOTONIC, SUFFIX],
        prepare: |args| one_of(args, 0, &["delta", "cumulative"]),
        run: |call, item| summary_to_sum(call, item, b"_count", |point| Number::Int(point.count as i64)),
    },
    Function {
        name: "merge_histogram_buckets",
        params: &[param("target_value", DoubleLike), optional("method", ConstText)],
        prepare: |args| {
            one_of(args, 1, &[REMOVE_BOUND, LIMIT_BUCKETS])?;
            let limits = const_str(args, 1).is_some_and(|method| method == LIMIT_BUCKETS);
            match &args[0] {
                Some(Arg::One(Ex::Const(Const::Nil))) => Err((0, "target_value must not be nil".to_owned())),
                Some(Arg::One(Ex::Const(Const::Int(value)))) if limits => {
                    buckets_max(*value as f64).map(|_| Prepared::Nothing).map_err(|what| (0, what))
                }
                Some(Arg::One(Ex::Const(Const::Double(value)))) if limits => {
                    buckets_max(*value).map(|_| Prepared::Nothing).map_err(|what| (0, what))
                }
                _ => Ok(Prepared::Nothing),
            }
        },
        run: merge_buckets,
    },
];

fn const_double(args: &[Option<Arg>], at: usize) -> Option<f64> {
    match args.get(at)?.as_ref()? {
        Arg::One(Ex::Const(Const::Double(value))) => Some(*value),
        _ => None,
    }
}

fn metric<'a>(item: &'a mut Item<'_>) -> Result<&'a mut Metric, EvalError> {
    item.metric().ok_or_else(|| "there is no metric".into())
}

fn temporality(call: &Call) -> i32 {
    if call.const_text(0) == Some(b"delta") { DELTA } else { CUMULATIVE }
}

fn number(attributes: Map, start_time_ns: u64, time_ns: u64, value: Number) -> NumberPoint {
    NumberPoint { attributes, start_time_ns, time_ns, value, exemplars: Vec::new(), flags: 0 }
}

/// Gives a key, which is a text of the arena, a value.
fn put(arena: &mut Arena, map: &mut Map, key: corten_otlp::Text, value: Value) {
    let found = arena.pairs(*map).iter().position(|pair| arena.bytes(pair.key) == arena.bytes(key));
    match found {
        Some(at) => arena.pairs_mut(*map)[at].value = value,
        None => arena.push(map, key, value),
    }
}

/// Adds a metric, which is named after the item's, behind all others.
fn add<'p>(item: &mut Item<'_>, suffix: &[u8], unit: Option<&[u8]>, points: Points) -> Got<'p> {
    let of = metric(item)?;
    let (name, description, old_unit) = (of.name, of.description, of.unit);
    let name = [item.arena.bytes(name), suffix].concat();
    let name = item.arena.own(&name);
    let unit = unit.map_or(old_unit, |unit| item.arena.own(unit));
    let Some((metrics, _)) = item.metrics() else { return Err("there are no metrics".into()) };
    metrics.push(Metric { name, description, unit, metadata: Map::default(), points });
    Ok(Val::Nil)
}

/// The sum or the count of histograms and summaries, by themselves.
fn extract<'p>(call: &'p Call, item: &mut Item<'_>, function: &str, suffix: &str, sum: bool) -> Got<'p> {
    let monotonic = call.const_bool(0).unwrap_or(false);
    let wrong = |kind: &str| {
        let what = format!(
            "{function} requires an input metric of type Histogram, ExponentialHistogram or Summary, got {kind}"
        );
        EvalError::new(what)
    };
    let one = |attributes, start, time, count: u64, of_sum: Option<f64>| {
        let value = if sum { of_sum.map(Number::Double) } else { Some(Number::Int(count as i64)) };
        value.map(|value| number(attributes, start, time, value))
    };
    let (mut points, temporality): (Vec<NumberPoint>, i32) = match &metric(item)?.points {
        Points::Histogram { points, temporality } => {
            let of = points.iter().filter_map(|p| one(p.attributes, p.start_time_ns, p.time_ns, p.count, p.sum));
            (of.collect(), *temporality)
        }
        Points::Exponential { points, temporality } => {
            let of = points.iter().filter_map(|p| one(p.attributes, p.start_time_ns, p.time_ns, p.count, p.sum));
            (of.collect(), *temporality)
        }
        Points::Summary(points) => {
            let of = points.iter().filter_map(|p| one(p.attributes, p.start_time_ns, p.time_ns, p.count, Some(p.sum)));
            (of.collect(), CUMULATIVE)
        }
        Points::Gauge(_) => return Err(wrong("Gauge")),
        Points::Sum { .. } => return Err(wrong("Sum")),
        Points::None => return Err(wrong("Empty")),
    };
    if temporality == 0 {
        return Err(wrong("one without aggregation temporality"));
    }
    if points.is_empty() {
        return Ok(Val::Nil);
    }
    for point in &mut points {
        point.attributes = copy_map(item.arena, point.attributes);
    }
    let unit = if sum { None } else { Some(&b"1"[..]) };
    add(item, call.const_text(1).unwrap_or(suffix.as_bytes()), unit, Points::Sum { points, temporality, monotonic })
}

fn summary_to_sum<'p>(
    call: &'p Call,
    item: &mut Item<'_>,
    suffix: &[u8],
    value: fn(&SummaryPoint) -> Number,
) -> Got<'p> {
    let (temporality, monotonic) = (temporality(call), call.const_bool(1).unwrap_or(false));
    let Points::Summary(points) = &metric(item)?.points else { return Ok(Val::Nil) };
    let mut points: Vec<NumberPoint> =
        points.iter().map(|point| number(point.attributes, point.start_time_ns, point.time_ns, value(point))).collect();
    for point in &mut points {
        point.attributes = copy_map(item.arena, point.attributes);
    }
    add(item, call.const_text(2).unwrap_or(suffix), None, Points::Sum { points, temporality, monotonic })
}

fn copy_metric<'p>(call: &'p Call, item: &mut Item<'_>) -> Got<'p> {
    let mut texts = [None; 3];
    for (at, text) in texts.iter_mut().enumerate() {
        if call.has(at) {
            let bytes = call.owned(at, item)?;
            *text = Some(item.arena.own(&bytes));
        }
    }
    let mut copy = metric(item)?.clone();
    copy.metadata = copy_map(item.arena, copy.metadata);
    let arena = &mut *item.arena;
    each(&mut copy.points, |attributes| *attributes = copy_map(arena, *attributes));
    copy.name = texts[0].unwrap_or(copy.name);
    copy.description = texts[1].unwrap_or(copy.description);
    copy.unit = texts[2].unwrap_or(copy.unit);
    let Some((metrics, _)) = item.metrics() else { return Err("there are no metrics".into()) };
    metrics.push(copy);
    Ok(Val::Nil)
}

/// The attributes of all points.
fn each(points: &mut Points, mut change: impl FnMut(&mut Map)) {
    match points {
        Points::None => {}
        Points::Gauge(points) | Points::Sum { points, .. } => points.iter_mut().for_each(|p| change(&mut p.attributes)),
        Points::Histogram { points, .. } => points.iter_mut().for_each(|p| change(&mut p.attributes)),
        Points::Exponential { points, .. } => points.iter_mut().for_each(|p| change(&mut p.attributes)),
        Points::Summary(points) => points.iter_mut().for_each(|p| change(&mut p.attributes)),
    }
}

fn each_attributes(item: &mut Item<'_>, mut change: impl FnMut(&mut Arena, &mut Map)) -> Result<(), EvalError> {
    let mut points = std::mem::take(&mut metric(item)?.points);
    each(&mut points, |map| change(item.arena, map));
    metric(item)?.points = points;
    Ok(())
}

fn has_attribute<'p>(item: &mut Item<'_>, has: impl Fn(&Arena, Map) -> bool) -> Got<'p> {
    let mut found = false;
    each_attributes(item, |arena, map| found |= has(arena, *map))?;
    Ok(Val::Bool(found))
}

fn scale<'p>(call: &'p Call, item: &mut Item<'_>) -> Got<'p> {
    let factor = const_double(&call.args, 0).unwrap_or(1.0);
    let unit = if call.has(1) { Some(call.owned(1, item)?) } else { None };
    let scaled = |number: &mut Number| match number {
        Number::None => {}
        Number::Int(value) => *value = to_int(*value as f64 * factor),
        Number::Double(value) => *value *= factor,
    };
    match &mut metric(item)?.points {
        Points::Gauge(points) | Points::Sum { points, .. } => points.iter_mut().for_each(|p| scaled(&mut p.value)),
        Points::Histogram { points, .. } => {
            for point in points {
                for value in [&mut point.sum, &mut point.min, &mut point.max].into_iter().flatten() {
                    *value *= factor;
                }
                point.explicit_bounds.iter_mut().for_each(|bound| *bound *= factor);
                point.exemplars.iter_mut().for_each(|exemplar: &mut Exemplar| scaled(&mut exemplar.value));
            }
        }
        Points::Summary(points) => {
            for point in points {
                point.sum *= factor;
                point.quantiles.iter_mut().for_each(|(_, value)| *value *= factor);
            }
        }
        Points::Exponential { .. } => {
            return Err("exponential histograms are not supported by the 'scale_metric' function".into());
        }
        Points::None => return Err("unsupported metric type: 'Empty'".into()),
    }
    if let Some(unit) = unit {
        let unit = item.arena.own(&unit);
        metric(item)?.unit = unit;
    }
    Ok(Val::Nil)
}

/// Puts together the points of equal attributes and times, in the order in which they were first met.
fn groups<P>(points: Vec<P>, same: impl Fn(&P, &P) -> bool, hash: impl Fn(&P) -> u64) -> Vec<Vec<P>> {
    let mut groups: Vec<Vec<P>> = Vec::new();
    let mut places: std::collections::HashMap<u64, Vec<usize>> = std::collections::HashMap::new();
    for point in points {
        let known = places.entry(hash(&point)).or_default();
        match known.iter().find(|at| same(&groups[**at][0], &point)) {
            Some(at) => groups[*at].push(point),
            None => {
                known.push(groups.len());
                groups.push(vec![point]);
            }
        }
    }
    groups
}

/// A hash of attributes in any order, and a time.
fn hash_of(arena: &Arena, map: Map, time_ns: u64) -> u64 {
    let pairs = arena.pairs(map).iter().map(|pair: &Pair| {
        let mut bytes = arena.bytes(pair.key).to_vec();
        bytes.push(0);
        arena.write_text(pair.value, &mut bytes);
        xxhash_rust::xxh3::xxh3_64(&bytes)
    });
    pairs.fold(time_ns, u64::wrapping_add)
}

fn aggregate<'p>(call: &'p Call, item: &mut Item<'_>) -> Got<'p> {
    let how = call.const_text(0).unwrap_or_default();
    let points = std::mem::take(&mut metric(item)?.points);
    let arena = &*item.arena;
    let new = match points {
        Points::Gauge(points) => Points::Gauge(aggregate_numbers(arena, points, false, how)),
        Points::Sum { points, temporality, monotonic } => {
            Points::Sum { points: aggregate_numbers(arena, points, temporality == DELTA, how), temporality, monotonic }
        }
        Points::Histogram { points, temporality } => {
            let by_start = temporality == DELTA;
            let same = |a: &HistogramPoint, b: &HistogramPoint| {
                a.time_ns == b.time_ns
                    && (!by_start || a.start_time_ns == b.start_time_ns)
                    && a.explicit_bounds == b.explicit_bounds
                    && a.bucket_counts.len() == b.bucket_counts.len()
                    && (a.min.is_some(), a.max.is_some(), a.flags) == (b.min.is_some(), b.max.is_some(), b.flags)
                    && arena.same_map(a.attributes, arena, b.attributes)
            };
            let groups = groups(points, same, |p| hash_of(arena, p.attributes, p.time_ns));
            Points::Histogram { points: groups.into_iter().filter_map(merge_histograms).collect(), temporality }
        }
        Points::Exponential { points, temporality } => {
            let by_start = temporality == DELTA;
            let same = |a: &ExponentialPoint, b: &ExponentialPoint| {
                a.time_ns == b.time_ns
                    && (!by_start || a.start_time_ns == b.start_time_ns)
                    && a.scale == b.scale
                    && (a.min.is_some(), a.max.is_some(), a.flags) == (b.min.is_some(), b.max.is_some(), b.flags)
                    && arena.same_map(a.attributes, arena, b.attributes)
            };
            let groups = groups(points, same, |p| hash_of(arena, p.attributes, p.time_ns));
            Points::Exponential { points: groups.into_iter().filter_map(merge_exponentials).collect(), temporality }
        }
        // Summaries cannot be put together, and are left out.
        Points::Summary(_) => Points::Summary(Vec::new()),
        Points::None => Points::None,
    };
    let metric = metric(item)?;
    metric.points = new;
    // What else is known of the metric is not carried over.
    metric.metadata = Map::default();
    Ok(Val::Nil)
}

fn aggregate_numbers(arena: &Arena, points: Vec<NumberPoint>, by_start: bool, how: &[u8]) -> Vec<NumberPoint> {
    let same = |a: &NumberPoint, b: &NumberPoint| {
        a.time_ns == b.time_ns
            && (!by_start || a.start_time_ns == b.start_time_ns)
            && arena.same_map(a.attributes, arena, b.attributes)
    };
    let groups = groups(points, same, |p| hash_of(arena, p.attributes, p.time_ns));
    let merged = groups.into_iter().filter_map(|group| {
        let len = group.len();
        let mut group = group.into_iter();
        let mut point = group.next()?;
        let mut ints = Vec::new();
        let mut doubles = Vec::new();
        match point.value {
            Number::Int(value) => ints.push(value),
            Number::Double(value) => doubles.push(value),
            Number::None => return Some(point),
        }
        for other in group {
            point.start_time_ns = point.start_time_ns.min(other.start_time_ns);
            if doubles.is_empty() {
                ints.push(match other.value {
                    Number::Int(value) => value,
                    // Only whole numbers are added to whole numbers.
                    Number::Double(_) if matches!(how, b"sum" | b"mean") => 0,
                    Number::Double(value) => to_int(value),
                    Number::None => 0,
                });
            } else {
                doubles.push(other.value.as_double());
            }
        }
        point.value = if doubles.is_empty() {
            Number::Int(match how {
                b"sum" => ints.iter().fold(0, |sum, value| sum.wrapping_add(*value)),
                b"mean" => ints.iter().fold(0i64, |sum, value| sum.wrapping_add(*value)) / len as i64,
                b"max" => ints.iter().copied().max().unwrap_or(0),
                b"min" => ints.iter().copied().min().unwrap_or(0),
                b"median" => {
                    ints.sort_unstable();
                    let middle = len / 2;
                    if len % 2 == 1 { ints[middle] } else { ints[middle - 1].wrapping_add(ints[middle]) / 2 }
                }
                // One point by itself stays as it is.
                _ if len == 1 => ints[0],
                _ => len as i64,
            })
        } else {
            Number::Double(match how {
                b"sum" => doubles.iter().sum(),
                b"mean" => doubles.iter().sum::<f64>() / len as f64,
                b"max" => doubles.iter().copied().fold(doubles[0], f64::max),
                b"min" => doubles.iter().copied().fold(doubles[0], f64::min),
                b"median" => {
                    doubles.sort_unstable_by(f64::total_cmp);
                    let middle = len / 2;
                    if len % 2 == 1 { doubles[middle] } else { (doubles[middle - 1] + doubles[middle]) / 2.0 }
                }
                _ if len == 1 => doubles[0],
                _ => len as f64,
            })
        };
        Some(point)
    });
    merged.collect()
}

fn merge_histograms(group: Vec<HistogramPoint>) -> Option<HistogramPoint> {
    let mut group = group.into_iter();
    let mut point = group.next()?;
    for other in group.filter(|other| other.count > 0) {
        point.count = point.count.wrapping_add(other.count);
        point.sum = Some(point.sum.unwrap_or(0.0) + other.sum.unwrap_or(0.0));
        point.min = point.min.map(|min| min.min(other.min.unwrap_or(0.0)));
        point.max = point.max.map(|max| max.max(other.max.unwrap_or(0.0)));
        for (count, more) in point.bucket_counts.iter_mut().zip(&other.bucket_counts) {
            *count = count.wrapping_add(*more);
        }
        point.exemplars.extend(other.exemplars);
        point.start_time_ns = point.start_time_ns.min(other.start_time_ns);
    }
    Some(point)
}

fn merge_exponentials(group: Vec<ExponentialPoint>) -> Option<ExponentialPoint> {
    let mut group = group.into_iter();
    let mut point = group.next()?;
    for other in group.filter(|other| other.count > 0) {
        point.count = point.count.wrapping_add(other.count);
        point.sum = Some(point.sum.unwrap_or(0.0) + other.sum.unwrap_or(0.0));
        point.zero_count = point.zero_count.wrapping_add(other.zero_count);
        point.min = point.min.map(|min| min.min(other.min.unwrap_or(0.0)));
        point.max = point.max.map(|max| max.max(other.max.unwrap_or(0.0)));
        add_buckets(&mut point.positive, &other.positive);
        add_buckets(&mut point.negative, &other.negative);
        point.exemplars.extend(other.exemplars);
        point.start_time_ns = point.start_time_ns.min(other.start_time_ns);
    }
    Some(point)
}

/// The most ranges that putting together makes.
const BUCKETS_MAX: i64 = 1 << 16;

fn add_buckets(to: &mut Buckets, from: &Buckets) {
    if from.counts.is_empty() {
        return;
    }
    if to.counts.is_empty() {
        *to = from.clone();
        return;
    }
    let start = i64::from(to.offset.min(from.offset));
    let end = |buckets: &Buckets| i64::from(buckets.offset) + buckets.counts.len() as i64;
    let len = end(to).max(end(from)) - start;
    if len > BUCKETS_MAX {
        return;
    }
    let mut counts = vec![0u64; len as usize];
    for buckets in [&*to, from] {
        let at = (i64::from(buckets.offset) - start) as usize;
        for (count, more) in counts[at..].iter_mut().zip(&buckets.counts) {
            *count = count.wrapping_add(*more);
        }
    }
    *to = Buckets { offset: start as i32, counts };
}

fn extract_percentile<'p>(call: &'p Call, item: &mut Item<'_>) -> Got<'p> {
    let percentile = const_double(&call.args, 0).unwrap_or(50.0);
    let mut gauge = Vec::new();
    let of = metric(item)?;
    let description = of.description;
    match &of.points {
        Points::Histogram { points, .. } => {
            for p in points {
                if let Some(value) = histogram_percentile(p, percentile)? {
                    gauge.push(number(p.attributes, p.start_time_ns, p.time_ns, Number::Double(value)));
                }
            }
        }
        Points::Exponential { points, .. } => {
            for p in points {
                if let Some(value) = exponential_percentile(p, percentile)? {
                    gauge.push(number(p.attributes, p.start_time_ns, p.time_ns, Number::Double(value)));
                }
            }
        }
        _ => return Ok(Val::Nil),
    }
    if gauge.is_empty() {
        return Ok(Val::Nil);
    }
    for point in &mut gauge {
        point.attributes = copy_map(item.arena, point.attributes);
    }
    let shown =
        corten_config::gofmt::format_args("%g", &[corten_config::gofmt::Arg::Float(percentile)]).unwrap_or_default();
    let suffix = match call.const_text(1) {
        Some(suffix) if !suffix.is_empty() => suffix.to_vec(),
        _ => format!("_p{shown}").into_bytes(),
    };
    add(item, &suffix, None, Points::Gauge(gauge))?;
    let text = match description.is_empty() {
        true => format!("p{shown}"),
        false => format!("{} (p{shown})", item.arena.text(description)),
    };
    let text = item.arena.own(text.as_bytes());
    if let Some((metrics, _)) = item.metrics()
        && let Some(last) = metrics.last_mut()
    {
        last.description = text;
    }
    Ok(Val::Nil)
}

fn between(low: f64, high: f64, ratio: f64) -> Result<Option<f64>, EvalError> {
    if (0.0..=1.0).contains(&ratio) {
        return Ok(Some(low + ratio * (high - low)));
    }
    Err(format!("linear interpolation: invalid ratio {ratio:.6}, must be between 0 and 1").into())
}

fn histogram_percentile(point: &HistogramPoint, percentile: f64) -> Result<Option<f64>, EvalError> {
    let (counts, bounds) = (&point.bucket_counts, &point.explicit_bounds);
    if point.count == 0 || counts.is_empty() {
        return Ok(None);
    }
    let target = (point.count as f64 * (percentile / 100.0)).ceil() as u64;
    if counts.len() != bounds.len() + 1 {
        return Err(
            "calculating histogram percentile: malformed data: the numbers of buckets and bounds do not match".into()
        );
    }
    if bounds.is_empty() {
        let (Some(min), Some(max)) = (point.min, point.max) else { return Ok(None) };
        return between(min, max, target as f64 / counts[0] as f64);
    }
    let mut seen = 0u64;
    for (at, count) in counts.iter().enumerate() {
        let before = seen;
        seen = seen.wrapping_add(*count);
        if seen < target {
            continue;
        }
        let (low, high) = if at == 0 {
            let high = bounds[0];
            match point.min {
                Some(min) if min < high => (min, high),
                _ if high < 0.0 => return Ok(Some(high)),
                _ => (0.0, high),
            }
        } else {
            let low = bounds[at - 1];
            match (bounds.get(at), point.max) {
                (Some(high), _) => (low, *high),
                (None, Some(max)) if max > low => (low, max),
                _ => return Ok(Some(low)),
            }
        };
        return between(low, high, (target - before) as f64 / *count as f64);
    }
    Err("calculating histogram percentile: malformed data: cumulative count doesn't reach target count corresponding to percentile".into())
}

fn between_logarithms(low: f64, high: f64, ratio: f64) -> Result<Option<f64>, EvalError> {
    if !(0.0..=1.0).contains(&ratio) {
        return Err(format!("logarithmic interpolation: invalid ratio {ratio:.6}, must be between 0 and 1").into());
    }
    if low <= 0.0 || high <= 0.0 {
        return Err("logarithmic interpolation: bounds must be positive".into());
    }
    let (low, high) = (low.log2(), high.log2());
    Ok(Some((low + (high - low) * ratio).exp2()))
}

/// The lower end of a range of an exponential histogram.
fn bound_of(index: i64, scale: i32) -> f64 {
    if scale <= 0 {
        let exponent = index.checked_shl(scale.unsigned_abs()).filter(|_| scale > -32).unwrap_or(0);
        return 2f64.powi(exponent.clamp(-2000, 2000) as i32);
    }
    (index as f64 * (std::f64::consts::LN_2 * 2f64.powi(-scale))).exp()
}

fn exponential_percentile(point: &ExponentialPoint, percentile: f64) -> Result<Option<f64>, EvalError> {
    let (negative, positive) = (&point.negative, &point.positive);
    if point.count == 0 || (negative.counts.is_empty() && positive.counts.is_empty() && point.zero_count == 0) {
        return Ok(None);
    }
    let target = (point.count as f64 * (percentile / 100.0)).ceil() as u64;
    let mut seen = 0u64;
    for (at, count) in negative.counts.iter().enumerate().rev() {
        let before = seen;
        seen = seen.wrapping_add(*count);
        if seen >= target {
            let index = i64::from(negative.offset) + at as i64;
            let (low, high) = (bound_of(index, point.scale), bound_of(index + 1, point.scale));
            if low >= high {
                return Err("calculating exponential histogram percentile: malformed negative bucket bounds".into());
            }
            let ratio = (target - before) as f64 / *count as f64;
            return Ok(between_logarithms(low, high, 1.0 - ratio)?.map(|value| -value));
        }
    }
    let with_zero = seen.wrapping_add(point.zero_count);
    if with_zero >= target {
        let low = if negative.counts.is_empty() && !positive.counts.is_empty() { 0.0 } else { -point.zero_threshold };
        let high = if positive.counts.is_empty() && !negative.counts.is_empty() { 0.0 } else { point.zero_threshold };
        return between(low, high, (target - seen) as f64 / point.zero_count as f64);
    }
    let mut seen = with_zero;
    for (at, count) in positive.counts.iter().enumerate() {
        let before = seen;
        seen = seen.wrapping_add(*count);
        if seen >= target {
            let index = i64::from(positive.offset) + at as i64;
            let (low, high) = (bound_of(index, point.scale), bound_of(index + 1, point.scale));
            return between_logarithms(low, high, (target - before) as f64 / *count as f64);
        }
    }
    Err("calculating exponential histogram percentile: malformed data: cumulative count doesn't reach target count corresponding to percentile".into())
}

fn to_explicit<'p>(call: &'p Call, item: &mut Item<'_>) -> Got<'p> {
    let how = match call.const_text(0) {
        Some(b"upper") => Spread::Upper,
        Some(b"midpoint") => Spread::Midpoint,
        Some(b"uniform") => Spread::Uniform,
        _ => Spread::Random,
    };
    let bounds: Vec<f64> = call
        .many(1)
        .iter()
        .filter_map(|bound| match bound {
            Ex::Const(Const::Double(bound)) => Some(*bound),
            _ => None,
        })
        .collect();
    let metric = metric(item)?;
    let Points::Exponential { points, temporality } = &mut metric.points else { return Ok(Val::Nil) };
    let points = std::mem::take(points).into_iter().map(|point| HistogramPoint {
        attributes: point.attributes,
        start_time_ns: point.start_time_ns,
        time_ns: point.time_ns,
        count: point.count,
        sum: Some(point.sum.unwrap_or(0.0)),
        bucket_counts: spread(&point, &bounds, how),
        explicit_bounds: bounds.clone(),
        flags: 0,
        min: Some(point.min.unwrap_or(0.0)),
        max: Some(point.max.unwrap_or(0.0)),
        exemplars: point.exemplars,
    });
    metric.points = Points::Histogram { points: points.collect(), temporality: *temporality };
    metric.metadata = Map::default();
    Ok(Val::Nil)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Spread {
    Upper,
    Midpoint,
    Uniform,
    Random,
}

fn spread(point: &ExponentialPoint, bounds: &[f64], how: Spread) -> Vec<u64> {
    let mut out = vec![0u64; bounds.len()];
    let last = bounds.len() - 1;
    let factor = std::f64::consts::LN_2 * 2f64.powi(point.scale.saturating_neg());
    if bounds[0] == 0.0 {
        out[0] = point.zero_count;
    }
    let first_at = |value: f64| bounds.iter().position(|bound| value <= *bound);
    for (at, count) in point.positive.counts.iter().copied().enumerate() {
        let index = i64::from(point.positive.offset) + at as i64;
        let (upper, lower) = (((index + 1) as f64 * factor).exp(), (index as f64 * factor).exp());
        if lower > bounds[last] {
            out[last] = out[last].wrapping_add(count);
            continue;
        }
        if let Some(within) = (1..bounds.len()).find(|at| lower > bounds[at - 1] && upper <= bounds[*at]) {
            out[within - 1] = out[within - 1].wrapping_add(count);
            continue;
        }
        match how {
            Spread::Upper => {
                let to = first_at(upper).unwrap_or(last);
                out[to] = out[to].wrapping_add(count);
            }
            Spread::Midpoint => {
                let to = first_at(f64::midpoint(upper, lower)).map_or(last, |at| at.saturating_sub(1));
                out[to] = out[to].wrapping_add(count);
            }
            Spread::Uniform | Spread::Random => {
                let start = first_at(lower).unwrap_or(last);
                let end = first_at(upper).unwrap_or(last).max(start);
                if how == Spread::Uniform || start == end {
                    let parts = (end - start + 1) as u64;
                    for (extra, to) in out[start..=end].iter_mut().enumerate() {
                        *to = to.wrapping_add(count / parts + u64::from((extra as u64) < count % parts));
                    }
                    continue;
                }
                let mut left = count;
                for to in start..=end {
                    let low = if to == 0 { lower } else { bounds[to - 1] };
                    let overlap = bounds[to].min(upper) - low.max(lower);
                    let share = (count as f64 * (overlap / (upper - lower))) as u64;
                    let taken = ((random() * share as f64) as u64).min(left);
                    out[to] = out[to].wrapping_add(taken);
                    left -= taken;
                }
                // What is left is spread evenly, with what cannot be divided anywhere.
                let parts = (end - start + 1) as u64;
                let odd = (random() * parts as f64) as u64 % parts;
                for (extra, to) in out[start..=end].iter_mut().enumerate() {
                    let more = (extra as u64 + parts - odd) % parts < left % parts;
                    *to = to.wrapping_add(left / parts + u64::from(more));
                }
            }
        }
    }
    out
}

/// A number from 0 up to, but not 1.
fn random() -> f64 {
    (uuid::Uuid::new_v4().as_u64_pair().1 & ((1 << 53) - 1)) as f64 / (1u64 << 53) as f64
}

const REMOVE_BOUND: &str = "remove_explicit_bound";
const LIMIT_BUCKETS: &str = "limit_buckets";

fn buckets_max(value: f64) -> Result<usize, String> {
    if value < 1.0 || value.trunc() != value || value > i64::MAX as f64 {
        return Err(format!("target_value must be a positive integer when method is \"{LIMIT_BUCKETS}\", got {value}"));
    }
    Ok(value as usize)
}

fn merge_buckets<'p>(call: &'p Call, item: &mut Item<'_>) -> Got<'p> {
    let target = match &item.record {
        crate::item::Record::DataPoint(metrics, at, _)
            if matches!(metrics.get(*at), Some(Metric { points: Points::Histogram { .. }, .. })) =>
        {
            double_like(call, 0, item)?.ok_or("target_value must not be nil")?
        }
        _ => return Ok(Val::Nil),
    };
    let Some((Points::Histogram { points, .. }, at)) = item.points() else { return Ok(Val::Nil) };
    let Some(point) = points.get_mut(at) else { return Ok(Val::Nil) };
    let (bounds, counts) = (&mut point.explicit_bounds, &mut point.bucket_counts);
    if bounds.len() + 1 != counts.len() || counts.len() == 1 {
        return Ok(Val::Nil);
    }
    if call.const_text(1) != Some(LIMIT_BUCKETS.as_bytes()) {
        if let Some(at) = bounds.iter().position(|bound| (bound - target).abs() < 1e-12) {
            bounds.remove(at);
            let count = counts.remove(at);
            counts[at] = counts[at].wrapping_add(count);
        }
        return Ok(Val::Nil);
    }
    let most = buckets_max(target).map_err(EvalError::new)?;
    if counts.len() <= most || !bounds.windows(2).all(|pair| pair[1] > pair[0]) {
        return Ok(Val::Nil);
    }
    let step = counts.len().div_ceil(most);
    *counts = counts.chunks(step).map(|chunk| chunk.iter().fold(0u64, |sum, count| sum.wrapping_add(*count))).collect();
    *bounds = bounds.iter().skip(step - 1).step_by(step).copied().collect();
    Ok(Val::Nil)
}
