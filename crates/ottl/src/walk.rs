//! Statements and conditions over all items of a batch.

use corten_otlp::metrics::Points;
use corten_otlp::{Arena, Data, Edit, LogRecord, Map, Metric, OfResource, RequestContext, Resource, Scope, Span, Text};

use crate::context::Context;
use crate::error::EvalError;
use crate::item::{Item, Record, exemplars};

/// The records of a signal.
pub trait Walk: corten_otlp::Record {
    /// What statements about the signal can be about.
    const CONTEXTS: &'static [Context];
    /// What can be dropped by itself.
    const DROPPED: &'static [Context] = Self::CONTEXTS;

    /// Visits those of the records, or of their parts, that a context is about.
    ///
    /// # Errors
    ///
    /// The first one of `visit`.
    fn visit(
        records: &mut Vec<Self>,
        context: Context,
        visit: impl FnMut(Record<'_>) -> Result<(), EvalError>,
    ) -> Result<(), EvalError>;

    /// Asks whether a record is to be dropped, and drops those of its parts of which that is so.
    ///
    /// # Errors
    ///
    /// The first one of `drops`.
    fn sift(
        records: &mut Vec<Self>,
        at: usize,
        contexts: &[Context],
        drops: impl FnMut(Record<'_>) -> Result<bool, EvalError>,
    ) -> Result<Sifted, EvalError>;
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sifted {
    /// It is as it was.
    Same,
    /// It has lost some of its parts.
    Changed,
    /// It is to be dropped.
    Dropped,
}

/// What an item is part of.
struct Around<'a> {
    arena: &'a mut Arena,
    resource: &'a mut Resource,
    schema_url: &'a mut Text,
    scope: Option<(&'a mut Scope, &'a mut Text)>,
    request: Option<&'a RequestContext>,
}

impl Around<'_> {
    fn item<'b>(&'b mut self, record: Record<'b>) -> Item<'b> {
        Item {
            arena: self.arena,
            resource: self.resource,
            resource_schema_url: self.schema_url,
            scope: self.scope.as_mut().map(|(scope, schema_url)| (&mut **scope, &mut **schema_url)),
            record,
            cache: Map::default(),
            request: self.request,
        }
    }
}

/// Visits all items that a context is about, in order.
///
/// # Errors
///
/// The first one of `visit`.
pub fn for_each<R: Walk>(
    data: &mut Data<R>,
    context: Context,
    request: Option<&RequestContext>,
    mut visit: impl FnMut(&mut Item<'_>) -> Result<(), EvalError>,
) -> Result<(), EvalError> {
    let arena = &mut data.arena;
    data.resources.iter_mut().try_for_each(|of| for_each_of(arena, of, context, request, &mut visit))
}

/// As [`for_each`], of one resource.
///
/// # Errors
///
/// As there.
pub fn for_each_of<R: Walk>(
    arena: &mut Arena,
    OfResource { resource, schema_url, scopes }: &mut OfResource<R>,
    context: Context,
    request: Option<&RequestContext>,
    mut visit: impl FnMut(&mut Item<'_>) -> Result<(), EvalError>,
) -> Result<(), EvalError> {
    if context == Context::Resource {
        return visit(&mut Around { arena, resource, schema_url, scope: None, request }.item(Record::None));
    }
    for of in scopes {
        let scope = Some((&mut of.scope, &mut of.schema_url));
        let mut around = Around { arena, resource, schema_url, scope, request };
        if context == Context::Scope {
            visit(&mut around.item(Record::None))?;
        } else {
            R::visit(&mut of.records, context, |record| visit(&mut around.item(record)))?;
        }
    }
    Ok(())
}

/// Drops the items that are to be dropped, of these contexts: of what is dropped nothing further is asked. Scopes and
/// resources that have nothing left are dropped, too.
///
/// # Errors
///
/// The first one of `drops`.
pub fn sift<R: Walk>(
    data: &mut Data<R>,
    contexts: &[Context],
    request: Option<&RequestContext>,
    mut drops: impl FnMut(&mut Item<'_>) -> Result<bool, EvalError>,
) -> Result<Edit, EvalError> {
    let (of_resources, of_scopes) = (contexts.contains(&Context::Resource), contexts.contains(&Context::Scope));
    let of_records = contexts.iter().any(|context| !matches!(context, Context::Resource | Context::Scope));
    let arena = &mut data.arena;
    // The number of the record, and those of the records that are dropped.
    let (mut number, mut dropped) = (0, Vec::new());
    let (mut changed, mut empty) = (false, false);
    for OfResource { resource, schema_url, scopes } in &mut data.resources {
        empty |= scopes.is_empty();
        if of_resources && drops(&mut Around { arena, resource, schema_url, scope: None, request }.item(Record::None))?
        {
            let records: usize = scopes.iter().map(|of| of.records.len()).sum();
            dropped.extend(number..number + records);
            number += records;
            empty = true;
            scopes.clear();
            continue;
        }
        for of in scopes {
            let (first, already) = (number, dropped.len());
            number += of.records.len();
            let scope = Some((&mut of.scope, &mut of.schema_url));
            let mut around = Around { arena, resource, schema_url, scope, request };
            if of_scopes && drops(&mut around.item(Record::None))? {
                dropped.extend(first..number);
                of.records.clear();
            } else if of_records {
                for at in 0..of.records.len() {
                    match R::sift(&mut of.records, at, contexts, |record| drops(&mut around.item(record)))? {
                        Sifted::Same => {}
                        Sifted::Changed => changed = true,
                        Sifted::Dropped => dropped.push(first + at),
                    }
                }
                remove(&mut of.records, dropped[already..].iter().map(|number| number - first));
            }
            empty |= of.records.is_empty();
        }
    }
    if empty {
        data.prune();
    }
    Ok(match changed {
        true => Edit::Changed,
        false if dropped.is_empty() && !empty => Edit::Same,
        false => Edit::Without(dropped),
    })
}

/// Takes out what stands at these places, which are in order.
fn remove<T>(from: &mut Vec<T>, places: impl ExactSizeIterator<Item = usize>) {
    if places.len() == 0 {
        return;
    }
    let (mut places, mut at) = (places.peekable(), 0);
    from.retain(|_| {
        at += 1;
        places.next_if_eq(&(at - 1)).is_none()
    });
}

/// The places, of so many, of what is to be dropped.
fn dropped(len: usize, mut drops: impl FnMut(usize) -> Result<bool, EvalError>) -> Result<Vec<usize>, EvalError> {
    let mut places = Vec::new();
    for at in 0..len {
        if drops(at)? {
            places.push(at);
        }
    }
    Ok(places)
}

impl Walk for LogRecord {
    const CONTEXTS: &'static [Context] = &[Context::Resource, Context::Scope, Context::Log];

    fn visit(
        records: &mut Vec<Self>,
        _: Context,
        mut visit: impl FnMut(Record<'_>) -> Result<(), EvalError>,
    ) -> Result<(), EvalError> {
        records.iter_mut().try_for_each(|record| visit(Record::Log(record)))
    }

    fn sift(
        records: &mut Vec<Self>,
        at: usize,
        _: &[Context],
        mut drops: impl FnMut(Record<'_>) -> Result<bool, EvalError>,
    ) -> Result<Sifted, EvalError> {
        Ok(if drops(Record::Log(&mut records[at]))? { Sifted::Dropped } else { Sifted::Same })
    }
}

impl Walk for Span {
    const CONTEXTS: &'static [Context] = &[Context::Resource, Context::Scope, Context::Span, Context::SpanEvent];

    fn visit(
        records: &mut Vec<Self>,
        context: Context,
        mut visit: impl FnMut(Record<'_>) -> Result<(), EvalError>,
    ) -> Result<(), EvalError> {
        for span in records {
            if context == Context::Span {
                visit(Record::Span(span))?;
                continue;
            }
            for at in 0..span.events.len() {
                visit(Record::SpanEvent(span, at))?;
            }
        }
        Ok(())
    }

    fn sift(
        records: &mut Vec<Self>,
        at: usize,
        contexts: &[Context],
        mut drops: impl FnMut(Record<'_>) -> Result<bool, EvalError>,
    ) -> Result<Sifted, EvalError> {
        let span = &mut records[at];
        if contexts.contains(&Context::Span) && drops(Record::Span(span))? {
            return Ok(Sifted::Dropped);
        }
        if !contexts.contains(&Context::SpanEvent) {
            return Ok(Sifted::Same);
        }
        let places = dropped(span.events.len(), |at| drops(Record::SpanEvent(span, at)))?;
        remove(&mut span.events, places.iter().copied());
        Ok(if places.is_empty() { Sifted::Same } else { Sifted::Changed })
    }
}

/// How often metrics that statements added may make them add further ones: a statement that copies whatever it is executed
/// for has no end.
const GENERATIONS_MAX: u32 = 4;

impl Walk for Metric {
    const CONTEXTS: &'static [Context] =
        &[Context::Resource, Context::Scope, Context::Metric, Context::DataPoint, Context::Exemplar];
    const DROPPED: &'static [Context] = &[Context::Resource, Context::Scope, Context::Metric, Context::DataPoint];

    fn visit(
        records: &mut Vec<Self>,
        context: Context,
        mut visit: impl FnMut(Record<'_>) -> Result<(), EvalError>,
    ) -> Result<(), EvalError> {
        let (mut generation, mut end, mut at) = (0, records.len(), 0);
        while at < records.len() {
            if at == end {
                (generation, end) = (generation + 1, records.len());
                if generation > GENERATIONS_MAX {
                    return Err("the statements add metrics without end: say for which metrics they are".into());
                }
            }
            if context == Context::Metric {
                visit(Record::Metric(records, at))?;
            } else {
                let mut point = 0;
                while point < records[at].points.len() {
                    if context == Context::DataPoint {
                        visit(Record::DataPoint(records, at, point))?;
                    } else {
                        let of_point = exemplars(&mut records[at].points, point).map_or(0, |exemplars| exemplars.len());
                        for exemplar in 0..of_point {
                            visit(Record::Exemplar(records, at, point, exemplar))?;
                        }
                    }
                    point += 1;
                }
            }
            at += 1;
        }
        Ok(())
    }

    fn sift(
        records: &mut Vec<Self>,
        at: usize,
        contexts: &[Context],
        mut drops: impl FnMut(Record<'_>) -> Result<bool, EvalError>,
    ) -> Result<Sifted, EvalError> {
        if contexts.contains(&Context::Metric) && drops(Record::Metric(records, at))? {
            return Ok(Sifted::Dropped);
        }
        if !contexts.contains(&Context::DataPoint) || matches!(records[at].points, Points::None) {
            return Ok(Sifted::Same);
        }
        let places = dropped(records[at].points.len(), |point| drops(Record::DataPoint(records, at, point)))?;
        let points = &mut records[at].points;
        let gone = places.iter().copied();
        match points {
            Points::None => {}
            Points::Gauge(points) | Points::Sum { points, .. } => remove(points, gone),
            Points::Histogram { points, .. } => remove(points, gone),
            Points::Exponential { points, .. } => remove(points, gone),
            Points::Summary(points) => remove(points, gone),
        }
        Ok(match points.is_empty() {
            true => Sifted::Dropped,
            false if places.is_empty() => Sifted::Same,
            false => Sifted::Changed,
        })
    }
}
