//! Recorded cases: what the collector did with statements over the telemetry of `inputs.json`.

use std::sync::Arc;

use corten_otlp::{Batch, Data, LogRecord, Metric, RequestContext, Span};
use corten_ottl::{
    Conditions, Context, EvalError, Program, Walk, compile_conditions, compile_statements, compile_value, for_each,
    infer_statements,
};
use serde_json::Value as Json;

fn data(name: &str) -> Json {
    let path = format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Attributes by their keys: the collector keeps some maps in no order. Points that were put together come in no order
/// either.
fn plain(json: &Json) -> Json {
    match json {
        Json::Array(values) => {
            let key = |value: &Json| Some((value.get("key")?.as_str()?.to_owned(), plain(value.get("value")?)));
            let pairs: Option<serde_json::Map<String, Json>> = values.iter().map(key).collect();
            if let Some(pairs) = pairs.filter(|pairs| pairs.len() == values.len() && !values.is_empty()) {
                return Json::Object(pairs);
            }
            let mut values: Vec<Json> = values.iter().map(plain).collect();
            if values.iter().all(|value| value.get("timeUnixNano").is_some() && value.get("attributes").is_some()) {
                values.sort_by_key(|value| value["attributes"].to_string());
            }
            Json::Array(values)
        }
        Json::Object(fields) => Json::Object(fields.iter().map(|(name, value)| (name.clone(), plain(value))).collect()),
        Json::Number(number) => number.as_f64().map_or(Json::Null, Json::from),
        other => other.clone(),
    }
}

/// What is different, by its place; nothing where something is no longer there.
fn changes(from: Option<&Json>, to: Option<&Json>, place: &str, out: &mut serde_json::Map<String, Json>) {
    match (from, to) {
        (Some(Json::Object(a)), Some(Json::Object(b))) => {
            let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for name in names {
                changes(a.get(name), b.get(name), &format!("{place}/{name}"), out);
            }
        }
        (Some(Json::Array(a)), Some(Json::Array(b))) => {
            for at in 0..a.len().max(b.len()) {
                changes(a.get(at), b.get(at), &format!("{place}/{at}"), out);
            }
        }
        (a, b) if a == b => {}
        (_, b) => {
            out.insert(place.to_owned(), b.cloned().unwrap_or(Json::Null));
        }
    }
}

fn batch<R: corten_otlp::Record + Clone>(input: &Json) -> Data<R> {
    let mut batch =
        Batch::<R>::received_json(input.to_string().as_bytes(), Arc::new(RequestContext::default())).unwrap();
    batch.take_data().remove(0)
}

fn json<R: corten_otlp::Record>(data: Data<R>) -> Json {
    let batch = Batch::of(data, Arc::new(RequestContext::default()));
    serde_json::from_slice(&batch.to_json()).unwrap()
}

/// What statements make of telemetry: `Err("load")` and `Err("run")`, each with its message.
fn outcome(inputs: &Json, case: &Json) -> Result<Json, (&'static str, String)> {
    let texts = |name: &str| -> Vec<String> {
        let texts = case.get(name).and_then(Json::as_array).cloned().unwrap_or_default();
        texts.iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let (statements, conditions) = (texts("statements"), texts("conditions"));
    let signal = case["signal"].as_str().unwrap();
    let loaded = |errors: Vec<corten_ottl::OttlError>| {
        for error in &errors {
            assert!(error.offset <= error.source.len() && error.column >= 1, "{error}");
        }
        ("load", errors[0].to_string())
    };
    let (program, conditions) = match case["context"].as_str().unwrap() {
        "" => {
            let candidates = match signal {
                "log" => LogRecord::CONTEXTS,
                "trace" => Span::CONTEXTS,
                _ => Metric::CONTEXTS,
            };
            infer_statements(candidates, &statements, &conditions).map_err(loaded)?
        }
        name => {
            let context = Context::of_name(name).unwrap();
            let program = compile_statements(context, &statements).map_err(loaded)?;
            (program, compile_conditions(context, &conditions).map_err(loaded)?)
        }
    };
    match signal {
        "log" => changed::<LogRecord>(&inputs["log"], &program, &conditions),
        "trace" => changed::<Span>(&inputs["trace"], &program, &conditions),
        _ => changed::<Metric>(&inputs["metric"], &program, &conditions),
    }
    .map_err(|error| ("run", error.to_string()))
}

/// What statements make of telemetry where conditions are met.
fn changed<R: Walk>(input: &Json, program: &Program, conditions: &Conditions) -> Result<Json, EvalError> {
    let mut data = batch::<R>(input);
    for_each(&mut data, program.context(), None, |item| {
        let mut meets = conditions.conditions().is_empty();
        for condition in conditions.conditions() {
            meets = meets || condition.holds(item)?;
        }
        for statement in program.statements().iter().filter(|_| meets) {
            statement.execute(item)?;
        }
        Ok(())
    })?;
    Ok(json(data))
}

/// What is meant to be different, and why.
const DIFFERENT: &[(&str, &str)] = &[
    // What fails whenever it is executed is refused when it is loaded.
    ("Base64Encode(\"a\",\"nope\")", "an encoding that nobody knows"),
    ("ExtractPatterns(attributes[\"str\"],\"(\\\\w+)\")", "no group has a name"),
    ("ParseSeverity(\"a\",{\"info\":[{\"range\":\"9xx\"}]})", "a range that nobody knows"),
    ("ParseSeverity(\"a\",attributes[\"map\"])", "the mapping must be a literal"),
    ("ParseSeverity(\"a\",{\"x\":\"y\"})", "criteria that are no list"),
    ("ParseSeverity(\"a\",{\"x\":[{\"equals\":\"y\"}]})", "texts that are no list"),
    ("o\\\",\\\"0\\\",Concat)", "a function of more than one argument"),
    // A map put into itself is a copy, not nothing.
    ("attributes", "a map into itself"),
    // The grammar says that keys may be calculated; the collector's parser takes the first number for the whole key.
    ("attributes[\"ints\"][1+1]", "a calculated key"),
    ("attributes[\"ints\"][0-1]", "a calculated key"),
    ("append(attributes[\\\"map\\\"],1)", "a map can be part of a list"),
    ("set(attributes[\\\"i\\\"],event_index)", "the collector's processor does not say which event it is"),
];

fn report(wrong: &[String], cases: usize) {
    assert!(wrong.is_empty(), "{} of {cases} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn expressions_have_the_values_that_the_collector_gives_them() {
    expressions("values.json");
}

#[test]
fn xml_is_read_and_changed_as_the_collector_does_it() {
    expressions("xml.json");
}

#[test]
fn lines_of_products_come_apart_as_the_collector_does_it() {
    expressions("grok.json");
}

#[test]
fn user_agents_are_recognised_as_the_collector_does_it() {
    expressions("user_agents.json");
}

fn expressions(name: &str) {
    let (inputs, cases) = (data("inputs.json"), data(name));
    let cases = cases.as_array().unwrap();
    let mut wrong = Vec::new();
    for case in cases {
        let expression = case["expression"].as_str().unwrap();
        if DIFFERENT.iter().any(|(known, _)| *known == expression) {
            continue;
        }
        let statement = format!("set(attributes[\"test\"], {expression})");
        let statements = serde_json::json!({"signal": "log", "context": "log", "statements": [statement]});
        let found = match outcome(&inputs, &statements) {
            Ok(output) => {
                let attributes = &output["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]["attributes"];
                let test = attributes.as_array().unwrap().iter().find(|pair| pair["key"] == "test");
                test.map_or("no value".to_owned(), |pair| plain(&pair["value"]).to_string())
            }
            Err((when, what)) => format!("{when}: {what}"),
        };
        let expected = match (case.get("value"), case.get("error").and_then(Json::as_str)) {
            (Some(value), _) => plain(value).to_string(),
            (None, Some(error)) => error.to_owned(),
            (None, None) => "no value".to_owned(),
        };
        let same = found == expected || (expected.len() < 6 && found.starts_with(&format!("{expected}:")));
        if !same {
            wrong.push(format!("{expression}\n  found    {found}\n  expected {expected}"));
        }
    }
    report(&wrong, cases.len());
}

#[test]
fn conditions_hold_when_the_collector_says_so() {
    let (inputs, cases) = (data("inputs.json"), data("conditions.json"));
    let cases = cases.as_array().unwrap();
    let mut wrong = Vec::new();
    for case in cases {
        let source = case["condition"].as_str().unwrap();
        let mut logs = batch::<LogRecord>(&inputs["log"]);
        let found = match compile_conditions(Context::Log, &[source]) {
            Err(_) => "load".to_owned(),
            Ok(conditions) => {
                let mut holds = String::new();
                for_each(&mut logs, Context::Log, None, |item| {
                    holds = match conditions.conditions()[0].holds(item) {
                        Ok(holds) => holds.to_string(),
                        Err(_) => "run".to_owned(),
                    };
                    Ok(())
                })
                .unwrap();
                holds
            }
        };
        let expected = case.get("error").and_then(Json::as_str).map(str::to_owned).unwrap_or(case["holds"].to_string());
        if found != expected {
            wrong.push(format!("{source}: found {found}, expected {expected}"));
        }
    }
    report(&wrong, cases.len());
}

#[test]
fn statements_change_what_the_collector_changes() {
    let (inputs, cases) = (data("inputs.json"), data("statements.json"));
    let cases = cases.as_array().unwrap();
    let mut wrong = Vec::new();
    for case in cases {
        let statements = case["statements"].to_string();
        if DIFFERENT.iter().any(|(known, _)| statements.contains(known)) {
            continue;
        }
        let found = match outcome(&inputs, case) {
            Ok(output) => {
                let mut found = serde_json::Map::new();
                changes(Some(&plain(&inputs[case["signal"].as_str().unwrap()])), Some(&plain(&output)), "", &mut found);
                Json::Object(found).to_string()
            }
            Err((when, what)) => format!("{when}: {what}"),
        };
        let expected = match case.get("changes") {
            Some(changes) => plain(changes).to_string(),
            None => case["error"].as_str().unwrap().to_owned(),
        };
        let same = found == expected || (expected.len() < 6 && found.starts_with(&format!("{expected}:")));
        if !same {
            let at = found.bytes().zip(expected.bytes()).take_while(|(a, b)| a == b).count();
            let around = |text: &str| {
                let start = (0..=at.saturating_sub(60)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
                text[start..].chars().take(260).collect::<String>()
            };
            let of = format!("{} {}", case["signal"], case["context"]);
            wrong.push(format!("{of} {statements}\n  found    {}\n  expected {}", around(&found), around(&expected)));
        }
    }
    report(&wrong, cases.len());
}

/// What differs each time cannot be recorded, and ids of profiles cannot be written anywhere.
#[test]
fn what_cannot_be_recorded_holds() {
    let inputs = data("inputs.json");
    let mut logs = batch::<LogRecord>(&inputs["log"]);
    let sources = [
        r#"IsMatch(UUID(), "^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")"#,
        r#"IsMatch(UUIDv7(), "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")"#,
        "UUIDv7() != UUIDv7()",
        r#"ProfileID(0x0102030405060708090a0b0c0d0e0f10) == ProfileID("0102030405060708090a0b0c0d0e0f10")"#,
        "ProfileID(0x0102030405060708090a0b0c0d0e0f10) != ProfileID(0x0102030405060708090a0b0c0d0e0f11)",
        "Now() > Unix(1700000000)",
    ];
    let conditions = compile_conditions(Context::Log, &sources).unwrap();
    for_each(&mut logs, Context::Log, None, |item| {
        for condition in conditions.conditions() {
            assert_eq!(condition.holds(item), Ok(true), "{}", condition.source());
        }
        Ok(())
    })
    .unwrap();
    assert!(compile_conditions(Context::Log, &["ProfileID(0x0102) == nil"]).is_err());
}

#[test]
fn an_expression_by_itself_has_a_value() {
    let inputs = data("inputs.json");
    let mut logs = batch::<LogRecord>(&inputs["log"]);
    let expression = compile_value(Context::Log, "attributes[\"int\"] * 2").unwrap();
    for_each(&mut logs, Context::Log, None, |item| {
        assert!(matches!(expression.value(item), Ok(corten_ottl::Val::Int(84))));
        Ok(())
    })
    .unwrap();
    let error = compile_value(Context::Log, "attributes[\"é\"] + nope").unwrap_err();
    assert_eq!((error.column, error.offset), (19, 19), "{error}");
}
