//! A condition that reads a field and compares it takes no memory.

use corten_otlp::{Arena, Data, Edit, LogRecord, Map, OfResource, OfScope, Resource, Scope, Text, Value};
use corten_ottl::{Context, Item, Record, compile_conditions, sift};

#[test]
fn a_condition_that_reads_a_field_and_compares_takes_no_memory() {
    let mut arena = Arena::default();
    let mut attributes = Map::default();
    let text = arena.own_str("value");
    arena.put(&mut attributes, b"key", text);
    arena.put(&mut attributes, b"status", Value::Int(200));
    let mut inner = Map::default();
    arena.put(&mut inner, b"x", Value::Bool(true));
    arena.put(&mut attributes, b"map", Value::Map(inner));
    let mut log = LogRecord { attributes, severity: 9, body: text, time_ns: 5, ..LogRecord::default() };
    let (mut resource, mut resource_url) = (Resource { attributes, ..Resource::default() }, Text::EMPTY);
    let (mut scope, mut scope_url) = (Scope::default(), Text::EMPTY);
    let conditions = compile_conditions(
        Context::Log,
        &[
            "attributes[\"key\"] == \"value\"",
            "attributes[\"status\"] >= 200 and attributes[\"status\"] < 300",
            "resource.attributes[\"key\"] != nil",
            "attributes[\"map\"][\"x\"] == true",
            "body == \"value\" or severity_number == SEVERITY_NUMBER_INFO2",
            "not (attributes[\"missing\"] == \"value\")",
            "IsMatch(attributes[\"key\"], \"^val\")",
            "IsString(body) and Len(body) == 5 and HasPrefix(body, \"va\")",
            "time_unix_nano / 5 == 1",
            "trace_id == TraceID(0x00000000000000000000000000000000) or true",
        ],
    )
    .unwrap();
    let mut item = Item {
        arena: &mut arena,
        resource: &mut resource,
        resource_schema_url: &mut resource_url,
        scope: Some((&mut scope, &mut scope_url)),
        record: Record::Log(&mut log),
        cache: Map::default(),
        request: None,
    };
    for condition in conditions.conditions() {
        // The first time, a pattern makes what it needs to match faster.
        assert_eq!(condition.holds(&mut item), Ok(true), "{}", condition.source());
        let held = item.arena.held_bytes();
        let counted = allocation_counter::measure(|| {
            for _ in 0..10 {
                assert_eq!(condition.holds(&mut item), Ok(true));
            }
        });
        assert_eq!(counted.count_total, 0, "{}", condition.source());
        assert_eq!(item.arena.held_bytes(), held);
    }
}

#[test]
fn looking_for_what_is_to_be_dropped_takes_no_memory_for_a_record() {
    let mut data = Data::<LogRecord>::default();
    let mut attributes = Map::default();
    let value = data.arena.own_str("value");
    data.arena.put(&mut attributes, b"key", value);
    let records = vec![LogRecord { attributes, ..LogRecord::default() }; 1_000];
    data.resources
        .push(OfResource { scopes: vec![OfScope { records, ..OfScope::default() }], ..OfResource::default() });
    let conditions = compile_conditions(Context::Log, &["attributes[\"key\"] == \"other\""]).unwrap();
    let counted = allocation_counter::measure(|| {
        let edit = sift(&mut data, &[Context::Log], None, |item| conditions.conditions()[0].holds(item));
        assert_eq!(edit, Ok(Edit::Same));
    });
    assert_eq!(counted.count_total, 0);
}
