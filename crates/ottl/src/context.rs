//! What statements are about.

use std::fmt;

/// What a statement is executed for, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Context {
    /// What telemetry is about.
    Resource,
    /// The part of a program that recorded it.
    Scope,
    /// A span.
    Span,
    /// An event of a span.
    SpanEvent,
    /// A metric.
    Metric,
    /// A point of a metric.
    DataPoint,
    /// An example of what a point counts.
    Exemplar,
    /// A log record.
    Log,
}

/// The part of an item's surroundings that a path begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Of(Context),
    /// What is known of the request.
    Otelcol,
}

use Context::{DataPoint, Exemplar, Log, Metric, Resource, Scope, Span, SpanEvent};

impl Context {
    /// Its name in configurations and paths.
    pub fn name(self) -> &'static str {
        match self {
            Resource => "resource",
            Scope => "scope",
            Span => "span",
            SpanEvent => "spanevent",
            Metric => "metric",
            DataPoint => "datapoint",
            Exemplar => "exemplar",
            Log => "log",
        }
    }

    /// The context of a name, which may be written in either case.
    pub fn of_name(name: &str) -> Option<Self> {
        ALL.into_iter().find(|context| context.name().eq_ignore_ascii_case(name))
    }

    /// What paths can begin with.
    pub(crate) fn levels(self) -> &'static [(&'static str, Level)] {
        const fn of(context: Context) -> (&'static str, Level) {
            let name = match context {
                Resource => "resource",
                Scope => "scope",
                Span => "span",
                SpanEvent => "spanevent",
                Metric => "metric",
                DataPoint => "datapoint",
                Exemplar => "exemplar",
                Log => "log",
            };
            (name, Level::Of(context))
        }
        const OTELCOL: (&str, Level) = ("otelcol", Level::Otelcol);
        const OLD_SCOPE: (&str, Level) = ("instrumentation_scope", Level::Of(Scope));
        match self {
            Resource => const { &[of(Resource), OTELCOL] },
            Scope => const { &[of(Scope), OLD_SCOPE, of(Resource), OTELCOL] },
            Span => const { &[of(Span), of(Scope), OLD_SCOPE, of(Resource), OTELCOL] },
            SpanEvent => const { &[of(SpanEvent), of(Span), of(Scope), OLD_SCOPE, of(Resource), OTELCOL] },
            Metric => const { &[of(Metric), of(Scope), OLD_SCOPE, of(Resource), OTELCOL] },
            DataPoint => const { &[of(DataPoint), of(Metric), of(Scope), OLD_SCOPE, of(Resource), OTELCOL] },
            Exemplar => {
                const { &[of(Exemplar), of(DataPoint), of(Metric), of(Scope), OLD_SCOPE, of(Resource), OTELCOL] }
            }
            Log => const { &[of(Log), of(Scope), OLD_SCOPE, of(Resource), OTELCOL] },
        }
    }

    /// How specific it is: what has a smaller number is found first when the context of statements is looked for.
    pub(crate) fn priority(self) -> usize {
        [Log, Exemplar, DataPoint, Metric, SpanEvent, Span, Scope, Resource]
            .iter()
            .position(|of| *of == self)
            .unwrap_or(usize::MAX)
    }

    /// The number behind a name in capitals.
    pub(crate) fn symbol(self, name: &str) -> Option<i64> {
        let tables: &[&[(&str, i64)]] = match self {
            Resource | Scope | Exemplar => &[],
            Span | SpanEvent => &[SPANS],
            Metric => &[METRICS],
            DataPoint => &[METRICS, POINTS],
            Log => &[LOGS],
        };
        tables.iter().flat_map(|table| table.iter()).find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// All contexts.
pub(crate) const ALL: [Context; 8] = [Resource, Scope, Span, SpanEvent, Metric, DataPoint, Exemplar, Log];

const SPANS: &[(&str, i64)] = &[
    ("SPAN_KIND_UNSPECIFIED", 0),
    ("SPAN_KIND_INTERNAL", 1),
    ("SPAN_KIND_SERVER", 2),
    ("SPAN_KIND_CLIENT", 3),
    ("SPAN_KIND_PRODUCER", 4),
    ("SPAN_KIND_CONSUMER", 5),
    ("STATUS_CODE_UNSET", 0),
    ("STATUS_CODE_OK", 1),
    ("STATUS_CODE_ERROR", 2),
];

const METRICS: &[(&str, i64)] = &[
    ("AGGREGATION_TEMPORALITY_UNSPECIFIED", 0),
    ("AGGREGATION_TEMPORALITY_DELTA", 1),
    ("AGGREGATION_TEMPORALITY_CUMULATIVE", 2),
    ("METRIC_DATA_TYPE_NONE", 0),
    ("METRIC_DATA_TYPE_GAUGE", 1),
    ("METRIC_DATA_TYPE_SUM", 2),
    ("METRIC_DATA_TYPE_HISTOGRAM", 3),
    ("METRIC_DATA_TYPE_EXPONENTIAL_HISTOGRAM", 4),
    ("METRIC_DATA_TYPE_SUMMARY", 5),
];

const POINTS: &[(&str, i64)] = &[("FLAG_NONE", 0), ("FLAG_NO_RECORDED_VALUE", 1)];

const LOGS: &[(&str, i64)] = &[
    ("SEVERITY_NUMBER_UNSPECIFIED", 0),
    ("SEVERITY_NUMBER_TRACE", 1),
    ("SEVERITY_NUMBER_TRACE2", 2),
    ("SEVERITY_NUMBER_TRACE3", 3),
    ("SEVERITY_NUMBER_TRACE4", 4),
    ("SEVERITY_NUMBER_DEBUG", 5),
    ("SEVERITY_NUMBER_DEBUG2", 6),
    ("SEVERITY_NUMBER_DEBUG3", 7),
    ("SEVERITY_NUMBER_DEBUG4", 8),
    ("SEVERITY_NUMBER_INFO", 9),
    ("SEVERITY_NUMBER_INFO2", 10),
    ("SEVERITY_NUMBER_INFO3", 11),
    ("SEVERITY_NUMBER_INFO4", 12),
    ("SEVERITY_NUMBER_WARN", 13),
    ("SEVERITY_NUMBER_WARN2", 14),
    ("SEVERITY_NUMBER_WARN3", 15),
    ("SEVERITY_NUMBER_WARN4", 16),
    ("SEVERITY_NUMBER_ERROR", 17),
    ("SEVERITY_NUMBER_ERROR2", 18),
    ("SEVERITY_NUMBER_ERROR3", 19),
    ("SEVERITY_NUMBER_ERROR4", 20),
    ("SEVERITY_NUMBER_FATAL", 21),
    ("SEVERITY_NUMBER_FATAL2", 22),
    ("SEVERITY_NUMBER_FATAL3", 23),
    ("SEVERITY_NUMBER_FATAL4", 24),
];
