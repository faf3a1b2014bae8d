//! What operators and programs make of entries, against what the reference was recorded to make of them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use corten_golang::time::Time;
use corten_signal::Acks;
use corten_stanza::{Counts, Entry, Map, Output, Pipeline, Program, Template, Text, Value};
use serde_json::Value as Json;

fn plain(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => number.as_i64().map_or_else(|| Value::Float(number.as_f64().unwrap()), Value::Int),
        Json::String(text) => Value::str(&**text),
        Json::Array(list) => Value::List(list.iter().map(plain).collect()),
        Json::Object(map) => {
            let decoded = |name: &str| map.get(name).map(|text| STANDARD.decode(text.as_str().unwrap()).unwrap());
            if let Some(bytes) = decoded("$bytes") {
                return Value::Bytes(bytes.into());
            }
            if let Some(text) = decoded("$str") {
                return Value::str(text);
            }
            if let Some(number) = map.get("$float") {
                return Value::Float(number.as_f64().unwrap_or_else(|| number.as_str().unwrap().parse().unwrap()));
            }
            if let Some(ns) = map.get("$time") {
                return Value::Time(Time::from_unix_ns(ns.as_i64().unwrap()));
            }
            if let Some(ns) = map.get("$duration") {
                return duration(ns.as_i64().unwrap());
            }
            Value::Map(map.iter().map(|(key, value)| (Text::from(&**key), plain(value))).collect())
        }
    }
}

/// A duration leaves a program as a text.
fn duration(ns: i64) -> Value {
    let program = format!("string(duration(\"{ns}ns\"))");
    Program::new(&program).unwrap().run(&Entry::of(Value::Null, 0)).unwrap()
}

fn entry(json: &Json) -> Entry {
    let mut entry = Entry::of(Value::Null, 1);
    for (name, value) in json.as_object().unwrap() {
        let value = plain(value);
        match (&**name, value) {
            ("body", value) => entry.body = value,
            ("attributes", value) => entry.attributes = value,
            ("resource", value) => entry.resource = value,
            ("timestamp", Value::Int(ns)) => entry.timestamp = Some(Time::from_unix_ns(ns)),
            other => panic!("{other:?}"),
        }
    }
    entry
}

/// Times are the same whatever their zone.
fn instants(value: &mut Value) {
    match value {
        Value::Time(time) => *time = Time::utc(time.seconds, time.nanoseconds),
        Value::List(list) => list.iter_mut().for_each(instants),
        Value::Map(map) => {
            let pairs = std::mem::take(map).into_iter().map(|(key, mut value)| {
                instants(&mut value);
                (key, value)
            });
            *map = pairs.collect();
        }
        _ => {}
    }
}

fn shown(entry: &Entry, with_time: bool) -> Map {
    let mut map = Map::default();
    let mut put = |name: &'static str, value: Value| map.put(Text::of(name), value);
    put("body", entry.body.clone());
    for (name, value) in [("attributes", &entry.attributes), ("resource", &entry.resource)] {
        if value.as_map().is_some_and(|map| !map.is_empty()) {
            put(name, value.clone());
        }
    }
    if let Some(time) = entry.timestamp.filter(|_| with_time) {
        put("timestamp", Value::List(vec![Value::Int(time.seconds), Value::Int(i64::from(time.nanoseconds))]));
    }
    if entry.severity > 0 {
        put("severity", Value::Int(i64::from(entry.severity)));
    }
    for (name, text) in [("severity_text", &entry.severity_text), ("scope", &entry.scope_name)] {
        if !text.is_empty() {
            put(name, Value::Str(text.clone()));
        }
    }
    for (name, id) in [("trace_id", &entry.trace_id), ("span_id", &entry.span_id), ("trace_flags", &entry.trace_flags)]
    {
        if let Some(id) = id {
            put(name, Value::str(id.iter().map(|byte| format!("{byte:02x}")).collect::<String>()));
        }
    }
    map
}

fn cases(name: &str) -> Vec<Json> {
    let path = format!("{}/tests/data/{name}.jsonl", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Each entry is somewhere.
fn even(came: usize, out: usize, counts: &[Counts], case: &Json) {
    let sum = |of: fn(&Counts) -> i64| counts.iter().map(of).sum::<i64>();
    let dropped = sum(|counts| counts.dropped.iter().map(|(_, dropped)| *dropped as i64).sum());
    let became = out as i64 + dropped + sum(|counts| counts.joined as i64) + sum(|counts| counts.kept);
    assert_eq!(came as i64 + sum(|counts| counts.copied as i64), became, "{counts:?} {case}");
}

/// What a case says, and what became of it instead; nothing where they are the same.
fn run_operators(case: &Json) -> Option<String> {
    let configs: Vec<Value> = case["ops"].as_array().unwrap().iter().map(plain).collect();
    let want = &case["want"];
    let mut pipeline = match Pipeline::new(&configs) {
        Ok(pipeline) => pipeline,
        Err(error) => {
            let refused = want["refused"].as_str()?;
            return (!error.to_string().contains(refused)).then(|| format!("{refused:?}\n  {:?}", error.to_string()));
        }
    };
    if let Some(refused) = want["refused"].as_str() {
        return Some(format!("{refused:?}\n  is not refused"));
    }
    let mut errors = Vec::new();
    let mut tell = |failure: corten_stanza::Failure<'_>| errors.push(failure.error);
    let mut out = Output { on_failure: Some(&mut tell), ..Output::default() };
    let lines = case["lines"].as_array().unwrap();
    pipeline.run(lines.iter().map(entry), &Acks::NONE, &mut out);
    let mut counts = vec![pipeline.take_counts()];
    even(lines.len(), out.entries.len(), &counts, case);
    pipeline.flush(0, true, &mut out);
    counts.push(pipeline.take_counts());
    even(lines.len(), out.entries.len(), &counts, case);
    assert_eq!(counts.iter().map(|counts| counts.kept).sum::<i64>(), 0, "{case}");
    let with_time = case.get("this_year").is_none();
    let mut found: Vec<Value> = out.entries.iter().map(|entry| Value::Map(shown(entry, with_time))).collect();
    let mut wanted: Vec<Value> = want["out"].as_array().map_or(Vec::new(), |out| out.iter().map(plain).collect());
    if case["ops"][0]["type"] == "container" || case["ops"][0].get("source_identifier").is_some() {
        // What is joined overtakes the rest there, and sources have no order.
        let by_body = |entry: &Value| format!("{:?}", entry.as_map().and_then(|entry| entry.get(b"body")));
        found.sort_by_key(by_body);
        wanted.sort_by_key(by_body);
    }
    (found != wanted).then(|| format!("{wanted:?}\n  {found:?}\n  {errors:?}"))
}

fn run_expression(case: &Json) -> Option<String> {
    let empty = Entry::of(Value::Null, 1);
    let entry = case["lines"].get(0).map_or(empty, entry);
    let want = &case["want"];
    let is_condition = case["bool"] == true;
    let found = if let Some(text) = case["str"].as_str() {
        match Template::new(text) {
            Err(error) => Err(format!("compile: {error}")),
            Ok(template) => template.render(&entry).map(Value::Str).map_err(|_| "error".to_owned()),
        }
    } else {
        let text = case["expr"].as_str().unwrap();
        let program = if is_condition { Program::condition(text) } else { Program::new(text) };
        match program {
            Err(error) => Err(format!("compile: {error}")),
            Ok(program) if is_condition => program.holds(&entry).map(Value::Bool).map_err(|_| "error".to_owned()),
            Ok(program) => program.run(&entry).map_err(|error| format!("error: {error}")),
        }
    };
    // Where a run failed is not looked at.
    let message = |text: &str| text.rsplit_once(" (1:").map_or(text, |(message, _)| message).to_owned();
    let found = found.map_err(|error| if error.starts_with("error") { message(&error) } else { error });
    let wanted = match (want["compile"].as_str(), want["error"].as_str()) {
        (Some(text), _) => Err(format!("compile: {}", text.trim_start_matches("compile embedded expression: "))),
        (_, Some(_)) if is_condition || case.get("str").is_some() => Err("error".to_owned()),
        (_, Some(text)) => Err(format!("error: {}", message(text))),
        _ => Ok(plain(&want["value"])),
    };
    let found = found.map(|mut value| {
        instants(&mut value);
        value
    });
    (found != wanted).then(|| format!("{wanted:?}\n  {found:?}"))
}

fn all_as_recorded(name: &str, run: fn(&Json) -> Option<String>) {
    let cases = cases(name);
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            let different = run(case)?;
            let mut shown = case.clone();
            shown
                .as_object_mut()
                .unwrap()
                .retain(|name, _| name != "want" && !(name == "lines" && case.get("ops").is_none()));
            Some(format!("{shown}\n  {different}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn operators_make_of_entries_what_the_reference_makes_of_them() {
    all_as_recorded("operators", run_operators);
}

#[test]
fn what_becomes_of_entries_is_told_by_operator() {
    let configs: Vec<Value> = serde_json::from_str::<Vec<Json>>(
        r#"[{"type": "filter", "expr": "body == 'x'"}, {"type": "json_parser", "id": "json", "on_error": "drop", "if": "body == 'y'"},
        {"type": "recombine", "combine_field": "body", "is_first_entry": "body == 'a'", "output": ["one", "two"]},
        {"type": "noop", "id": "one", "output": "two"}, {"type": "noop", "id": "two"}]"#,
    )
    .unwrap()
    .iter()
    .map(plain)
    .collect();
    let mut pipeline = Pipeline::new(&configs).unwrap();
    let mut out = Output::default();
    let entries = ["x", "a", "b", "y", "a"].map(|body| Entry::of(Value::str(body), 1));
    pipeline.run(entries, &Acks::NONE, &mut out);
    assert_eq!(out.entries.len(), 2);
    let dropped = vec![("filter".to_owned(), 1), ("json failed".to_owned(), 1)];
    assert_eq!(pipeline.take_counts(), Counts { dropped, joined: 1, copied: 1, kept: 1 });
    pipeline.flush(0, true, &mut out);
    assert_eq!(pipeline.take_counts(), Counts { copied: 1, kept: -1, ..Counts::default() });
    assert_eq!(pipeline.take_counts(), Counts::default());
}

#[test]
fn expressions_have_the_values_that_the_reference_finds() {
    all_as_recorded("expressions", run_expression);
}
