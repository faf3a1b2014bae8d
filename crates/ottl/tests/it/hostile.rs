//! Whatever telemetry says: statements end with a value or an error.

use corten_otlp::metrics::{Buckets, ExponentialPoint, HistogramPoint, Number, NumberPoint, Points, SummaryPoint};
use corten_otlp::{Arena, LogRecord, Map, Metric, Resource, Scope, Text, Value};
use corten_ottl::{Context, Item, Program, Record, compile_statements};
use proptest::prelude::*;

/// Expressions over the attributes `x`, `y` and `n`.
const EXPRESSIONS: &[&str] = &[
    "ToLowerCase(attributes[\"x\"])",
    "ToUpperCase(attributes[\"x\"])",
    "ToSnakeCase(attributes[\"x\"])",
    "ToCamelCase(attributes[\"x\"])",
    "Murmur3Hash(attributes[\"x\"])",
    "Murmur3Hash128(attributes[\"x\"])",
    "XXH128(attributes[\"x\"])",
    "FNV(attributes[\"x\"])",
    "Bool(attributes[\"x\"])",
    "Int(attributes[\"x\"])",
    "Double(attributes[\"x\"])",
    "ParseInt(attributes[\"x\"], attributes[\"n\"])",
    "Hex(attributes[\"x\"])",
    "TraceID(attributes[\"x\"])",
    "SpanID(attributes[\"x\"])",
    "IsMatch(attributes[\"x\"], attributes[\"y\"])",
    "ExtractPatterns(attributes[\"x\"], attributes[\"y\"])",
    "ExtractGrokPatterns(attributes[\"x\"], \"%{COMBINEDAPACHELOG}\")",
    "IsValidLuhn(attributes[\"x\"])",
    "IsInCIDR(attributes[\"x\"], [attributes[\"y\"]])",
    "CommunityID(attributes[\"x\"], attributes[\"n\"], attributes[\"y\"], 1)",
    "Split(attributes[\"x\"], attributes[\"y\"])",
    "Substring(attributes[\"x\"], attributes[\"n\"], attributes[\"n\"])",
    "Substring(attributes[\"x\"], attributes[\"n\"], 1, true)",
    "Trim(attributes[\"x\"], \"aé\")",
    "TrimPrefix(attributes[\"x\"], attributes[\"y\"])",
    "Index(attributes[\"x\"], attributes[\"y\"])",
    "Format(\"%d %s %v %x %q\", [attributes[\"x\"], attributes[\"y\"], attributes[\"n\"], attributes[\"x\"], attributes[\"x\"]])",
    "Base64Decode(attributes[\"x\"])",
    "Decode(attributes[\"x\"], attributes[\"y\"])",
    "Decode(attributes[\"x\"], \"utf-16be\")",
    "ParseCSV(attributes[\"x\"], attributes[\"y\"])",
    "ParseCSV(attributes[\"x\"], \"a,b\", mode=\"lazyQuotes\")",
    "ParseJSON(attributes[\"x\"])",
    "ParseKeyValue(attributes[\"x\"])",
    "ParseXML(attributes[\"x\"])",
    "ParseSimplifiedXML(attributes[\"x\"])",
    "ParseCEF(attributes[\"x\"])",
    "ParseCEF(Concat([\"CEF:0|a|b|c|d|e|f|\", attributes[\"x\"]], \"\"))",
    "ParseCLF(attributes[\"x\"])",
    "ParseELF(Concat([\"#Version: 1\\n#Fields: a b\\n\", attributes[\"x\"]], \"\"))",
    "ParseLEEF(Concat([\"LEEF:2.0|\", attributes[\"x\"]], \"\"))",
    "URL(attributes[\"x\"])",
    "Duration(attributes[\"x\"])",
    "UnixNano(Time(attributes[\"x\"], \"%Y-%m-%dT%H:%M:%S.%f%z\"))",
    "FormatTime(Unix(attributes[\"n\"]), \"%c %z\")",
    "UnixNano(TruncateTime(Unix(attributes[\"n\"], attributes[\"n\"]), Duration(\"7h\")))",
    "Seconds(Unix(attributes[\"n\"]) - Unix(0 - attributes[\"n\"]))",
    "UnixMilli(Unix(attributes[\"n\"]) + Duration(\"1h\"))",
    "Weekday(Unix(attributes[\"n\"]))",
    "Sort([attributes[\"x\"], attributes[\"n\"], attributes[\"y\"], 1.5])",
    "attributes[attributes[\"x\"]]",
    "attributes[\"list\"][attributes[\"n\"]]",
    "attributes[\"n\"] / attributes[\"n\"] * -attributes[\"n\"] - attributes[\"n\"] + attributes[\"n\"]",
    "ToKeyValueString(attributes)",
];

/// Statements over the same attributes.
const STATEMENTS: &[&str] = &[
    "set(attributes[attributes[\"x\"]][attributes[\"n\"]], attributes[\"y\"])",
    "set(attributes[\"list\"][attributes[\"n\"]][\"k\"], attributes[\"x\"])",
    "set(trace_id.string, attributes[\"x\"])",
    "set(severity_number, attributes[\"n\"])",
    "set(time, Unix(attributes[\"n\"]))",
    "delete_key(attributes, attributes[\"x\"])",
    "delete_index(attributes[\"list\"], attributes[\"n\"])",
    "delete_matching_keys(attributes, attributes[\"y\"])",
    "replace_pattern(attributes[\"x\"], attributes[\"y\"], \"$1$$${x}\")",
    "replace_pattern(attributes[\"x\"], \"(a|)\", \"$1\", SHA256)",
    "replace_all_patterns(attributes, \"key\", \"(a|)\", attributes[\"y\"])",
    "replace_match(attributes[\"x\"], attributes[\"y\"], \"z\")",
    "replace_all_matches(attributes, attributes[\"y\"], \"z\", ToUpperCase, \"<%s>\")",
    "truncate_all(attributes, 3, true, \"..\")",
    "truncate_all(attributes, 2, false)",
    "flatten(attributes, \"p\", 3, true)",
    "merge_maps(attributes, ParseJSON(attributes[\"x\"]), \"upsert\")",
    "append(attributes[\"list\"], attributes[\"x\"])",
    "stringify_all(attributes)",
    "limit(attributes, 2, [\"x\"])",
];

fn programs() -> Program {
    let mut all: Vec<String> = EXPRESSIONS.iter().map(|of| format!("set(attributes[\"r\"], {of})")).collect();
    all.extend(STATEMENTS.iter().map(|of| (*of).to_owned()));
    compile_statements(Context::Log, &all).unwrap()
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        any::<String>().prop_map(String::into_bytes),
        "[a-c\"'=, \\[\\]{}:.|<>/&;%0-9é#-]{0,40}".prop_map(String::into_bytes),
        proptest::collection::vec(
            prop_oneof![
                Just("127.0.0.1"),
                Just("2023-04-12T10:11:12.5Z"),
                Just("{\"a\":"),
                Just("[1,"),
                Just("}"),
                Just("<a>"),
                Just("</a>"),
                Just("http://"),
                Just("k=v"),
                Just("|"),
                Just("\t"),
                Just("\n"),
                Just("\""),
                Just("utf-8"),
                Just("(?P<x>"),
                Just(")"),
                Just("*"),
                Just("1h"),
                Just("10.0.0.0/8"),
                Just("x"),
            ],
            0..8,
        )
        .prop_map(|parts| parts.concat().into_bytes()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_attribute_makes_a_statement_panic(
        x in text(),
        y in text(),
        n in prop_oneof![any::<i64>(), -3i64..40, Just(i64::MIN), Just(i64::MAX)],
    ) {
        static PROGRAM: std::sync::LazyLock<Program> = std::sync::LazyLock::new(programs);
        for statement in PROGRAM.statements() {
            let mut arena = Arena::default();
            let mut attributes = Map::default();
            let (text, other) = (Value::Str(arena.own(&x)), Value::Str(arena.own(&y)));
            arena.put(&mut attributes, b"x", text);
            arena.put(&mut attributes, b"y", other);
            arena.put(&mut attributes, b"n", Value::Int(n));
            let list = Value::List(arena.list(&[text, Value::Int(n), Value::Empty]));
            arena.put(&mut attributes, b"list", list);
            let mut log = LogRecord { attributes, body: list, ..LogRecord::default() };
            let (mut resource, mut resource_url) = (Resource::default(), Text::EMPTY);
            let (mut scope, mut scope_url) = (Scope::default(), Text::EMPTY);
            let mut item = Item {
                arena: &mut arena,
                resource: &mut resource,
                resource_schema_url: &mut resource_url,
                scope: Some((&mut scope, &mut scope_url)),
                record: Record::Log(&mut log),
                cache: Map::default(),
                request: None,
            };
            if let Err(error) = statement.execute(&mut item) {
                prop_assert!(!error.to_string().is_empty());
            }
            let mut json = Vec::new();
            arena.write_json(Value::Map(log.attributes), &mut json);
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&json).is_ok());
        }
    }
}

/// Statements over metrics of any kind.
const METRIC_STATEMENTS: &[&str] = &[
    "extract_sum_metric(true)",
    "extract_count_metric(false)",
    "extract_percentile_metric(50.0)",
    "extract_percentile_metric(99.9)",
    "convert_gauge_to_sum(\"delta\", true)",
    "convert_sum_to_gauge()",
    "convert_summary_quantile_val_to_gauge()",
    "copy_metric(name = \"copy\") where name != \"copy\"",
    "scale_metric(-1.0e300)",
    "aggregate_on_attributes(\"mean\", [])",
    "aggregate_on_attributes(\"median\", [])",
    "aggregate_on_attributes(\"sum\", [])",
    "aggregate_on_attribute_value(\"count\", \"k\", [\"a\"], \"b\")",
    "convert_exponential_histogram_to_histogram(\"upper\", [0.0, 1.0])",
    "convert_exponential_histogram_to_histogram(\"midpoint\", [1.0, 0.0])",
    "convert_exponential_histogram_to_histogram(\"uniform\", [1.0, 2.0, 3.0])",
    "convert_exponential_histogram_to_histogram(\"random\", [0.5, 2.0, 1.0e9])",
];

fn double() -> impl Strategy<Value = f64> {
    prop_oneof![any::<f64>(), -3.0..3.0f64, Just(f64::NAN), Just(f64::INFINITY), Just(0.0)]
}

fn count() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), 0u64..5]
}

fn buckets() -> impl Strategy<Value = Buckets> {
    (prop_oneof![any::<i32>(), -3i32..3], proptest::collection::vec(count(), 0..4))
        .prop_map(|(offset, counts)| Buckets { offset, counts })
}

fn points() -> impl Strategy<Value = Points> {
    let number = prop_oneof![Just(Number::None), any::<i64>().prop_map(Number::Int), double().prop_map(Number::Double)];
    let numbers =
        proptest::collection::vec(number.prop_map(|value| NumberPoint { value, ..NumberPoint::default() }), 0..4);
    let histogram = (
        count(),
        proptest::option::of(double()),
        proptest::option::of(double()),
        proptest::collection::vec(count(), 0..4),
        proptest::collection::vec(double(), 0..4),
    )
        .prop_map(|(count, min, max, bucket_counts, explicit_bounds)| HistogramPoint {
            count,
            min,
            max,
            sum: max,
            bucket_counts,
            explicit_bounds,
            ..HistogramPoint::default()
        });
    let exponential = (count(), count(), prop_oneof![any::<i32>(), -2i32..3], buckets(), buckets(), double()).prop_map(
        |(count, zero_count, scale, positive, negative, zero_threshold)| ExponentialPoint {
            count,
            zero_count,
            scale,
            positive,
            negative,
            zero_threshold,
            ..ExponentialPoint::default()
        },
    );
    let summary = (count(), double()).prop_map(|(count, sum)| SummaryPoint {
        count,
        sum,
        quantiles: vec![(0.5, sum)],
        ..SummaryPoint::default()
    });
    prop_oneof![
        Just(Points::None),
        numbers.clone().prop_map(Points::Gauge),
        numbers.prop_map(|points| Points::Sum { points, temporality: 1, monotonic: true }),
        proptest::collection::vec(histogram, 0..4).prop_map(|points| Points::Histogram { points, temporality: 1 }),
        proptest::collection::vec(exponential, 0..4).prop_map(|points| Points::Exponential { points, temporality: 2 }),
        proptest::collection::vec(summary, 0..3).prop_map(Points::Summary),
    ]
}

proptest! {
    #[test]
    fn no_point_makes_a_statement_panic(points in points(), target in double()) {
        static PROGRAM: std::sync::LazyLock<Program> =
            std::sync::LazyLock::new(|| compile_statements(Context::Metric, METRIC_STATEMENTS).unwrap());
        static POINTS: std::sync::LazyLock<Program> = std::sync::LazyLock::new(|| {
            let statements = [
                "merge_histogram_buckets(attributes[\"n\"])",
                "merge_histogram_buckets(attributes[\"n\"], \"limit_buckets\")",
                "convert_summary_sum_val_to_sum(\"delta\", true)",
                "convert_summary_count_val_to_sum(\"delta\", true)",
            ];
            compile_statements(Context::DataPoint, &statements).unwrap()
        });
        let all = PROGRAM.statements().iter().map(|of| (of, false)).chain(POINTS.statements().iter().map(|of| (of, true)));
        for (statement, of_point) in all {
            let mut arena = Arena::default();
            let mut metrics = vec![Metric { points: points.clone(), ..Metric::default() }];
            if let Points::Histogram { points, .. } = &mut metrics[0].points {
                for point in points {
                    arena.put(&mut point.attributes, b"n", Value::Double(target));
                }
            }
            let (mut resource, mut resource_url) = (Resource::default(), Text::EMPTY);
            let (mut scope, mut scope_url) = (Scope::default(), Text::EMPTY);
            let record =
                if of_point { Record::DataPoint(&mut metrics, 0, 0) } else { Record::Metric(&mut metrics, 0) };
            let mut item = Item {
                arena: &mut arena,
                resource: &mut resource,
                resource_schema_url: &mut resource_url,
                scope: Some((&mut scope, &mut scope_url)),
                record,
                cache: Map::default(),
                request: None,
            };
            let _ = statement.execute(&mut item);
            prop_assert!(!metrics.is_empty() && metrics.len() <= 2);
        }
    }
}
