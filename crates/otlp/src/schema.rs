//! The messages of OTLP 1.9, as tables: what a walk over a message needs to know to refuse what is none.
//!
//! The fields of a message stand in the order in which `opentelemetry-proto` declares them, which is the order in which
//! they are written as JSON.

/// A type of messages.
#[derive(Debug)]
pub(crate) struct Message {
    /// Its name, without the package.
    pub(crate) name: &'static str,
    pub(crate) fields: &'static [Field],
    /// Where in `fields` the field with a number stands, plus one.
    by_number: [u8; NUMBERS],
    /// Whether one such message is one item: a span, a data point or a log record.
    pub(crate) item: bool,
    /// Whether there can be items within.
    pub(crate) holds_items: bool,
}

/// Numbers from here on are looked up one after the other. There is one, and nobody uses it any more.
const NUMBERS: usize = 18;

/// A field of a message.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) number: u32,
    /// Its name in JSON.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) presence: Presence,
}

/// When a field is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Unless it is zero or empty.
    Implicit,
    /// Where it was set, be it to zero.
    Explicit,
    /// Whether or not there is anything in it.
    Always,
    /// Any number of times.
    Repeated,
}

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    String,
    Bytes,
    /// An id, with what it identifies and its length.
    Id(&'static str, usize),
    Bool,
    Int32,
    Uint32,
    Int64,
    Uint64,
    Sint32,
    Fixed32,
    Fixed64,
    Sfixed64,
    Double,
    /// A number with names.
    Enum(&'static [(&'static str, i32)]),
    Message(&'static Message),
}

impl Message {
    const fn new(name: &'static str, fields: &'static [Field]) -> Self {
        let mut by_number = [0; NUMBERS];
        let mut at = 0;
        while at < fields.len() {
            let number = fields[at].number as usize;
            if number < NUMBERS {
                by_number[number] = at as u8 + 1;
            }
            at += 1;
        }
        Message { name, fields, by_number, item: false, holds_items: false }
    }

    const fn item(mut self) -> Self {
        self.item = true;
        self
    }

    const fn of_items(mut self) -> Self {
        self.holds_items = true;
        self
    }

    /// The field with a number.
    #[inline]
    pub(crate) fn field(&self, number: u32) -> Option<&'static Field> {
        self.place(number).and_then(|at| self.fields.get(at))
    }

    /// Where among the fields the one with a number stands.
    #[inline]
    pub(crate) fn place(&self, number: u32) -> Option<usize> {
        match self.by_number.get(number as usize) {
            Some(at) => usize::from(*at).checked_sub(1),
            None => self.fields.iter().position(|field| field.number == number),
        }
    }
}

const fn one(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, presence: Presence::Implicit }
}

const fn set(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, presence: Presence::Explicit }
}

const fn always(number: u32, name: &'static str, message: &'static Message) -> Field {
    Field { number, name, kind: Kind::Message(message), presence: Presence::Always }
}

const fn many(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, presence: Presence::Repeated }
}

const TRACE_ID: Kind = Kind::Id("trace id", 16);
const SPAN_ID: Kind = Kind::Id("span id", 8);

static ANY_VALUE: Message = Message::new(
    "AnyValue",
    &[
        set(1, "stringValue", Kind::String),
        set(2, "boolValue", Kind::Bool),
        set(3, "intValue", Kind::Int64),
        set(4, "doubleValue", Kind::Double),
        set(5, "arrayValue", Kind::Message(&ARRAY_VALUE)),
        set(6, "kvlistValue", Kind::Message(&KEY_VALUE_LIST)),
        set(7, "bytesValue", Kind::Bytes),
    ],
);
static ARRAY_VALUE: Message = Message::new("ArrayValue", &[many(1, "values", Kind::Message(&ANY_VALUE))]);
static KEY_VALUE_LIST: Message = Message::new("KeyValueList", &[many(1, "values", Kind::Message(&KEY_VALUE))]);
static KEY_VALUE: Message = Message::new("KeyValue", &[one(1, "key", Kind::String), always(2, "value", &ANY_VALUE)]);

static SCOPE: Message = Message::new(
    "InstrumentationScope",
    &[
        one(1, "name", Kind::String),
        one(2, "version", Kind::String),
        many(3, "attributes", Kind::Message(&KEY_VALUE)),
        one(4, "droppedAttributesCount", Kind::Uint32),
    ],
);
static ENTITY_REF: Message = Message::new(
    "EntityRef",
    &[
        one(1, "schemaUrl", Kind::String),
        one(2, "type", Kind::String),
        many(3, "idKeys", Kind::String),
        many(4, "descriptionKeys", Kind::String),
    ],
);
static RESOURCE: Message = Message::new(
    "Resource",
    &[
        many(1, "attributes", Kind::Message(&KEY_VALUE)),
        one(2, "droppedAttributesCount", Kind::Uint32),
        many(3, "entityRefs", Kind::Message(&ENTITY_REF)),
    ],
);

/// `ExportTraceServiceRequest`, which is the same as `TracesData`.
pub(crate) static TRACES: Message =
    Message::new("TracesData", &[many(1, "resourceSpans", Kind::Message(&RESOURCE_SPANS))]).of_items();
static RESOURCE_SPANS: Message = Message::new(
    "ResourceSpans",
    &[
        always(1, "resource", &RESOURCE),
        many(2, "scopeSpans", Kind::Message(&SCOPE_SPANS)),
        one(3, "schemaUrl", Kind::String),
        // What the field before last was called and numbered until 2022.
        many(1000, "deprecatedScopeSpans", Kind::Message(&SCOPE_SPANS)),
    ],
)
.of_items();
static SCOPE_SPANS: Message = Message::new(
    "ScopeSpans",
    &[always(1, "scope", &SCOPE), many(2, "spans", Kind::Message(&SPAN)), one(3, "schemaUrl", Kind::String)],
)
.of_items();
static SPAN: Message = Message::new(
    "Span",
    &[
        one(1, "traceId", TRACE_ID),
        one(2, "spanId", SPAN_ID),
        one(3, "traceState", Kind::String),
        one(4, "parentSpanId", SPAN_ID),
        one(16, "flags", Kind::Fixed32),
        one(5, "name", Kind::String),
        one(6, "kind", Kind::Enum(SPAN_KINDS)),
        one(7, "startTimeUnixNano", Kind::Fixed64),
        one(8, "endTimeUnixNano", Kind::Fixed64),
        many(9, "attributes", Kind::Message(&KEY_VALUE)),
        one(10, "droppedAttributesCount", Kind::Uint32),
        many(11, "events", Kind::Message(&EVENT)),
        one(12, "droppedEventsCount", Kind::Uint32),
        many(13, "links", Kind::Message(&LINK)),
        one(14, "droppedLinksCount", Kind::Uint32),
        always(15, "status", &STATUS),
    ],
)
.item();
pub(crate) static SPAN_KINDS: &[(&str, i32)] = &[
    ("SPAN_KIND_UNSPECIFIED", 0),
    ("SPAN_KIND_INTERNAL", 1),
    ("SPAN_KIND_SERVER", 2),
    ("SPAN_KIND_CLIENT", 3),
    ("SPAN_KIND_PRODUCER", 4),
    ("SPAN_KIND_CONSUMER", 5),
];
static EVENT: Message = Message::new(
    "Event",
    &[
        one(1, "timeUnixNano", Kind::Fixed64),
        one(2, "name", Kind::String),
        many(3, "attributes", Kind::Message(&KEY_VALUE)),
        one(4, "droppedAttributesCount", Kind::Uint32),
    ],
);
static LINK: Message = Message::new(
    "Link",
    &[
        one(1, "traceId", TRACE_ID),
        one(2, "spanId", SPAN_ID),
        one(3, "traceState", Kind::String),
        many(4, "attributes", Kind::Message(&KEY_VALUE)),
        one(5, "droppedAttributesCount", Kind::Uint32),
        one(6, "flags", Kind::Fixed32),
    ],
);
static STATUS: Message =
    Message::new("Status", &[one(2, "message", Kind::String), one(3, "code", Kind::Enum(STATUS_CODES))]);
pub(crate) static STATUS_CODES: &[(&str, i32)] =
    &[("STATUS_CODE_UNSET", 0), ("STATUS_CODE_OK", 1), ("STATUS_CODE_ERROR", 2)];

/// `ExportLogsServiceRequest`, which is the same as `LogsData`.
pub(crate) static LOGS: Message =
    Message::new("LogsData", &[many(1, "resourceLogs", Kind::Message(&RESOURCE_LOGS))]).of_items();
static RESOURCE_LOGS: Message = Message::new(
    "ResourceLogs",
    &[
        always(1, "resource", &RESOURCE),
        many(2, "scopeLogs", Kind::Message(&SCOPE_LOGS)),
        one(3, "schemaUrl", Kind::String),
        many(1000, "deprecatedScopeLogs", Kind::Message(&SCOPE_LOGS)),
    ],
)
.of_items();
static SCOPE_LOGS: Message = Message::new(
    "ScopeLogs",
    &[always(1, "scope", &SCOPE), many(2, "logRecords", Kind::Message(&LOG_RECORD)), one(3, "schemaUrl", Kind::String)],
)
.of_items();
static LOG_RECORD: Message = Message::new(
    "LogRecord",
    &[
        one(1, "timeUnixNano", Kind::Fixed64),
        one(11, "observedTimeUnixNano", Kind::Fixed64),
        one(2, "severityNumber", Kind::Enum(SEVERITIES)),
        one(3, "severityText", Kind::String),
        always(5, "body", &ANY_VALUE),
        many(6, "attributes", Kind::Message(&KEY_VALUE)),
        one(7, "droppedAttributesCount", Kind::Uint32),
        one(8, "flags", Kind::Fixed32),
        one(9, "traceId", TRACE_ID),
        one(10, "spanId", SPAN_ID),
        one(12, "eventName", Kind::String),
    ],
)
.item();
pub(crate) static SEVERITIES: &[(&str, i32)] = &[
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

/// `ExportMetricsServiceRequest`, which is the same as `MetricsData`.
pub(crate) static METRICS: Message =
    Message::new("MetricsData", &[many(1, "resourceMetrics", Kind::Message(&RESOURCE_METRICS))]).of_items();
static RESOURCE_METRICS: Message = Message::new(
    "ResourceMetrics",
    &[
        always(1, "resource", &RESOURCE),
        many(2, "scopeMetrics", Kind::Message(&SCOPE_METRICS)),
        one(3, "schemaUrl", Kind::String),
        many(1000, "deprecatedScopeMetrics", Kind::Message(&SCOPE_METRICS)),
    ],
)
.of_items();
static SCOPE_METRICS: Message = Message::new(
    "ScopeMetrics",
    &[always(1, "scope", &SCOPE), many(2, "metrics", Kind::Message(&METRIC)), one(3, "schemaUrl", Kind::String)],
)
.of_items();
static METRIC: Message = Message::new(
    "Metric",
    &[
        one(1, "name", Kind::String),
        one(2, "description", Kind::String),
        one(3, "unit", Kind::String),
        set(5, "gauge", Kind::Message(&GAUGE)),
        set(7, "sum", Kind::Message(&SUM)),
        set(9, "histogram", Kind::Message(&HISTOGRAM)),
        set(10, "exponentialHistogram", Kind::Message(&EXPONENTIAL_HISTOGRAM)),
        set(11, "summary", Kind::Message(&SUMMARY)),
        many(12, "metadata", Kind::Message(&KEY_VALUE)),
    ],
)
.of_items();
static TEMPORALITIES: &[(&str, i32)] = &[
    ("AGGREGATION_TEMPORALITY_UNSPECIFIED", 0),
    ("AGGREGATION_TEMPORALITY_DELTA", 1),
    ("AGGREGATION_TEMPORALITY_CUMULATIVE", 2),
];
static GAUGE: Message = Message::new("Gauge", &[many(1, "dataPoints", Kind::Message(&NUMBER_POINT))]).of_items();
static SUM: Message = Message::new(
    "Sum",
    &[
        many(1, "dataPoints", Kind::Message(&NUMBER_POINT)),
        one(2, "aggregationTemporality", Kind::Enum(TEMPORALITIES)),
        one(3, "isMonotonic", Kind::Bool),
    ],
)
.of_items();
static HISTOGRAM: Message = Message::new(
    "Histogram",
    &[
        many(1, "dataPoints", Kind::Message(&HISTOGRAM_POINT)),
        one(2, "aggregationTemporality", Kind::Enum(TEMPORALITIES)),
    ],
)
.of_items();
static EXPONENTIAL_HISTOGRAM: Message = Message::new(
    "ExponentialHistogram",
    &[
        many(1, "dataPoints", Kind::Message(&EXPONENTIAL_POINT)),
        one(2, "aggregationTemporality", Kind::Enum(TEMPORALITIES)),
    ],
)
.of_items();
static SUMMARY: Message = Message::new("Summary", &[many(1, "dataPoints", Kind::Message(&SUMMARY_POINT))]).of_items();
static NUMBER_POINT: Message = Message::new(
    "NumberDataPoint",
    &[
        many(7, "attributes", Kind::Message(&KEY_VALUE)),
        one(2, "startTimeUnixNano", Kind::Fixed64),
        one(3, "timeUnixNano", Kind::Fixed64),
        set(4, "asDouble", Kind::Double),
        set(6, "asInt", Kind::Sfixed64),
        many(5, "exemplars", Kind::Message(&EXEMPLAR)),
        one(8, "flags", Kind::Uint32),
    ],
)
.item();
static HISTOGRAM_POINT: Message = Message::new(
    "HistogramDataPoint",
    &[
        many(9, "attributes", Kind::Message(&KEY_VALUE)),
        one(2, "startTimeUnixNano", Kind::Fixed64),
        one(3, "timeUnixNano", Kind::Fixed64),
        one(4, "count", Kind::Fixed64),
        set(5, "sum", Kind::Double),
        many(6, "bucketCounts", Kind::Fixed64),
        many(7, "explicitBounds", Kind::Double),
        many(8, "exemplars", Kind::Message(&EXEMPLAR)),
        one(10, "flags", Kind::Uint32),
        set(11, "min", Kind::Double),
        set(12, "max", Kind::Double),
    ],
)
.item();
static EXPONENTIAL_POINT: Message = Message::new(
    "ExponentialHistogramDataPoint",
    &[
        many(1, "attributes", Kind::Message(&KEY_VALUE)),
        one(2, "startTimeUnixNano", Kind::Fixed64),
        one(3, "timeUnixNano", Kind::Fixed64),
        one(4, "count", Kind::Fixed64),
        set(5, "sum", Kind::Double),
        one(6, "scale", Kind::Sint32),
        one(7, "zeroCount", Kind::Fixed64),
        always(8, "positive", &BUCKETS),
        always(9, "negative", &BUCKETS),
        one(10, "flags", Kind::Uint32),
        many(11, "exemplars", Kind::Message(&EXEMPLAR)),
        set(12, "min", Kind::Double),
        set(13, "max", Kind::Double),
        one(14, "zeroThreshold", Kind::Double),
    ],
)
.item();
static BUCKETS: Message =
    Message::new("Buckets", &[one(1, "offset", Kind::Sint32), many(2, "bucketCounts", Kind::Uint64)]);
static SUMMARY_POINT: Message = Message::new(
    "SummaryDataPoint",
    &[
        many(7, "attributes", Kind::Message(&KEY_VALUE)),
        one(2, "startTimeUnixNano", Kind::Fixed64),
        one(3, "timeUnixNano", Kind::Fixed64),
        one(4, "count", Kind::Fixed64),
        one(5, "sum", Kind::Double),
        many(6, "quantileValues", Kind::Message(&QUANTILE)),
        one(8, "flags", Kind::Uint32),
    ],
)
.item();
static QUANTILE: Message =
    Message::new("ValueAtQuantile", &[one(1, "quantile", Kind::Double), one(2, "value", Kind::Double)]);
static EXEMPLAR: Message = Message::new(
    "Exemplar",
    &[
        many(7, "filteredAttributes", Kind::Message(&KEY_VALUE)),
        one(2, "timeUnixNano", Kind::Fixed64),
        set(3, "asDouble", Kind::Double),
        set(6, "asInt", Kind::Sfixed64),
        one(5, "traceId", TRACE_ID),
        one(4, "spanId", SPAN_ID),
    ],
);

/// `google.rpc.Status`, in which a request is refused.
pub(crate) static RPC_STATUS: Message = Message::new(
    "Status",
    &[
        one(1, "code", Kind::Int32),
        one(2, "message", Kind::String),
        // The details are messages of any kind, which are written by name and bytes.
        many(3, "details", Kind::Message(&RPC_ANY)),
    ],
);
static RPC_ANY: Message = Message::new("Any", &[one(1, "typeUrl", Kind::String), one(2, "value", Kind::Bytes)]);

/// `ExportTraceServiceResponse`.
pub(crate) static TRACES_RESPONSE: Message =
    Message::new("ExportTraceServiceResponse", &[set(1, "partialSuccess", Kind::Message(&TRACES_PARTIAL))]);
static TRACES_PARTIAL: Message = Message::new(
    "ExportTracePartialSuccess",
    &[one(1, "rejectedSpans", Kind::Int64), one(2, "errorMessage", Kind::String)],
);

/// `ExportMetricsServiceResponse`.
pub(crate) static METRICS_RESPONSE: Message =
    Message::new("ExportMetricsServiceResponse", &[set(1, "partialSuccess", Kind::Message(&METRICS_PARTIAL))]);
static METRICS_PARTIAL: Message = Message::new(
    "ExportMetricsPartialSuccess",
    &[one(1, "rejectedDataPoints", Kind::Int64), one(2, "errorMessage", Kind::String)],
);

/// `ExportLogsServiceResponse`.
pub(crate) static LOGS_RESPONSE: Message =
    Message::new("ExportLogsServiceResponse", &[set(1, "partialSuccess", Kind::Message(&LOGS_PARTIAL))]);
static LOGS_PARTIAL: Message = Message::new(
    "ExportLogsPartialSuccess",
    &[one(1, "rejectedLogRecords", Kind::Int64), one(2, "errorMessage", Kind::String)],
);
