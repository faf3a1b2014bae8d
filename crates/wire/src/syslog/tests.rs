//! The parsers against the recorded answers of the reference's, and against anything.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

/// Bytes as text with one character each, which is how the recording writes them.
fn text(bytes: &[u8]) -> Value {
    bytes.iter().map(|byte| char::from(*byte)).collect::<String>().into()
}

/// A message as the recording writes it.
fn shown(message: &Message<'_>, is_5424: bool) -> Value {
    let mut out = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            out.insert(name.to_owned(), value);
        }
    };
    put("pri", message.priority.map(Value::from));
    put("sev", message.priority.map(|priority| severity(priority).into()));
    put("fac", message.priority.map(|priority| facility(priority).into()));
    put("ts", message.timestamp.map(|stamp| stamp.to_string().into()));
    put("host", message.hostname.map(text));
    put("app", message.app_name.map(text));
    put("proc", message.proc_id.map(text));
    put("msgid", message.msg_id.map(text));
    put("msg", message.text.map(text));
    put("counter", message.message_counter.map(Value::from));
    put("seq", message.sequence.map(Value::from));
    if is_5424 {
        put("ver", Some(message.version.into()));
        put("str", message.to_rfc5424().as_deref().map(text));
        put(
            "sd",
            message.structured_data.as_ref().map(|elements| {
                let name = |bytes: &[u8]| text(bytes).as_str().unwrap_or_default().to_owned();
                let parameters = |parameters: &BTreeMap<&[u8], Cow<'_, [u8]>>| {
                    parameters.iter().map(|(key, value)| (name(key), text(value))).collect::<Map<_, _>>().into()
                };
                elements.iter().map(|(id, of)| (name(id), parameters(of))).collect::<Map<String, Value>>().into()
            }),
        );
    }
    out.into()
}

#[test]
fn messages_are_read_as_the_reference_reads_them() {
    let recorded: Vec<Value> = serde_json::from_str(include_str!("../../tests/data/syslog_messages.json")).unwrap();
    assert!(recorded.len() > 2_000);
    let mut differences = Vec::new();
    for case in &recorded {
        let input: Vec<u8> = case["in"].as_str().unwrap().chars().map(|c| c as u8).collect();
        let options = case["o"].as_str().unwrap_or_default();
        let is_5424 = case["f"] == "5424";
        let outcome = if is_5424 {
            rfc5424::parse(&input)
        } else {
            rfc3164::parse(
                &input,
                &rfc3164::Options {
                    message_counter: options.contains('m'),
                    sequence_number: options.contains('s'),
                    hostname: options.contains('h'),
                    second_fractions: options.contains('f'),
                    line_ends: options.contains('n'),
                },
            )
        };
        let got = match &outcome {
            Ok(message) => json!({ "out": shown(message, is_5424) }),
            Err(_) => json!({ "err": true }),
        };
        let want = match case.get("out") {
            Some(out) => json!({ "out": out }),
            None => json!({ "err": true }),
        };
        if got != want {
            differences.push(format!("{options} {:?}\n  want {want}\n   got {got}", case["in"].as_str().unwrap()));
        }
    }
    let shown: Vec<_> = differences.iter().take(20).map(String::as_str).collect();
    assert!(differences.is_empty(), "{} of {} differ:\n{}", differences.len(), recorded.len(), shown.join("\n"));
}

#[test]
fn severities_and_facilities_have_names() {
    assert_eq!((severity(34), facility(34)), ("critical", "auth"));
    assert_eq!((severity(191), facility(191)), ("debug", "local7"));
    assert_eq!((severity(255), facility(255)), ("debug", ""));
}

proptest! {
    #[test]
    fn what_is_written_again_is_read_the_same(
        priority in 0u8..192, version in 1u16..1000, host in "[!-~]{1,20}", id in "[a-z@0-9]{1,32}", name in "[a-z]{1,32}",
        value in any::<String>(), message in any::<Vec<u8>>(),
    ) {
        let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace(']', "\\]");
        let mut input = format!("<{priority}>{version} 2024-05-06T07:08:09.5+01:00 {host} - - - [{id} {name}=\"{escaped}\"] ")
            .into_bytes();
        input.extend_from_slice(&message);
        let first = rfc5424::parse(&input).unwrap();
        prop_assert_eq!(first.text.unwrap_or_default(), &message[..]);
        prop_assert_eq!(&*first.structured_data.as_ref().unwrap()[id.as_bytes()][name.as_bytes()], value.as_bytes());
        let again = first.to_rfc5424().unwrap();
        prop_assert_eq!(rfc5424::parse(&again).unwrap(), first);
    }

    #[test]
    fn no_message_makes_a_parser_panic(
        head in "(<[0-9]{0,3}>(1 (- ){0,6}|([0-9]{1,3}: )?([a-z]{1,3}: )?[*]?Oct 1[0-9] 22:14:15[.0-9:]{0,4} )?)?",
        tail in any::<Vec<u8>>(),
        likely in "[a-z\\[\\]: \n\r\t\"=-]{0,60}",
        flags: [bool; 5],
    ) {
        let [message_counter, sequence_number, hostname, second_fractions, line_ends] = flags;
        let options = rfc3164::Options { message_counter, sequence_number, hostname, second_fractions, line_ends };
        for tail in [&tail[..], likely.as_bytes()] {
            let input = [head.as_bytes(), tail].concat();
            let _ = rfc5424::parse(&input);
            let _ = rfc3164::parse(&input, &options);
            raw::parse(&input);
        }
    }
}
