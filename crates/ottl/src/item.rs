//! What a statement is executed on.

use corten_otlp::metrics::{Exemplar, Points};
use corten_otlp::{Arena, LogRecord, Map, Metric, RequestContext, Resource, Scope, Span, Text};

use crate::context::Context;

/// An item with all around it that a statement may read and change.
#[derive(Debug)]
pub struct Item<'a> {
    /// What all of it refers to.
    pub arena: &'a mut Arena,
    /// The resource.
    pub resource: &'a mut Resource,
    /// The schema of the resource.
    pub resource_schema_url: &'a mut Text,
    /// The scope and the schema of its records. Only the context of resources has none.
    pub scope: Option<(&'a mut Scope, &'a mut Text)>,
    /// The record.
    pub record: Record<'a>,
    /// What the statements of a group note about the item.
    pub cache: Map,
    /// What is known of the request.
    pub request: Option<&'a RequestContext>,
}

/// What a statement is about.
#[derive(Debug)]
pub enum Record<'a> {
    /// The resource or the scope itself.
    None,
    /// A span.
    Span(&'a mut Span),
    /// An event of a span: which.
    SpanEvent(&'a mut Span, usize),
    /// A log record.
    Log(&'a mut LogRecord),
    /// A metric among those of its scope: which. Statements may add metrics at the end.
    Metric(&'a mut Vec<Metric>, usize),
    /// A point of a metric: which metric and which point.
    DataPoint(&'a mut Vec<Metric>, usize, usize),
    /// An exemplar: which metric, which of its points, and which exemplar of that.
    Exemplar(&'a mut Vec<Metric>, usize, usize, usize),
}

impl Item<'_> {
    /// What the item is.
    pub fn context(&self) -> Context {
        match &self.record {
            Record::None if self.scope.is_some() => Context::Scope,
            Record::None => Context::Resource,
            Record::Span(_) => Context::Span,
            Record::SpanEvent(..) => Context::SpanEvent,
            Record::Log(_) => Context::Log,
            Record::Metric(..) => Context::Metric,
            Record::DataPoint(..) => Context::DataPoint,
            Record::Exemplar(..) => Context::Exemplar,
        }
    }

    pub(crate) fn span(&mut self) -> Option<&mut Span> {
        match &mut self.record {
            Record::Span(span) | Record::SpanEvent(span, _) => Some(span),
            _ => None,
        }
    }

    pub(crate) fn metrics(&mut self) -> Option<(&mut Vec<Metric>, usize)> {
        match &mut self.record {
            Record::Metric(metrics, at) | Record::DataPoint(metrics, at, _) | Record::Exemplar(metrics, at, ..) => {
                Some((metrics, *at))
            }
            _ => None,
        }
    }

    pub(crate) fn metric(&mut self) -> Option<&mut Metric> {
        self.metrics().and_then(|(metrics, at)| metrics.get_mut(at))
    }

    /// The points of the point's metric, and which of them it is.
    pub(crate) fn points(&mut self) -> Option<(&mut Points, usize)> {
        match &mut self.record {
            Record::DataPoint(metrics, at, point) | Record::Exemplar(metrics, at, point, _) => {
                metrics.get_mut(*at).map(|metric| (&mut metric.points, *point))
            }
            _ => None,
        }
    }

    pub(crate) fn exemplar(&mut self) -> Option<&mut Exemplar> {
        let Record::Exemplar(metrics, at, point, exemplar) = &mut self.record else { return None };
        exemplars(&mut metrics.get_mut(*at)?.points, *point)?.get_mut(*exemplar)
    }
}

/// The exemplars of a point. Those of summaries have none.
pub(crate) fn exemplars(points: &mut Points, point: usize) -> Option<&mut Vec<Exemplar>> {
    match points {
        Points::None | Points::Summary(_) => None,
        Points::Gauge(points) | Points::Sum { points, .. } => points.get_mut(point).map(|point| &mut point.exemplars),
        Points::Histogram { points, .. } => points.get_mut(point).map(|point| &mut point.exemplars),
        Points::Exponential { points, .. } => points.get_mut(point).map(|point| &mut point.exemplars),
    }
}
