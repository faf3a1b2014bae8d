//! Values as Go prints them.

use corten_golang::time::Layout;
use corten_wire::float::push_go_float;

use crate::value::Value;

/// A value as `fmt.Sprint` prints it.
pub fn go_text(value: &Value) -> String {
    let mut out = String::new();
    print(value, &mut out);
    out
}

fn print(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("<nil>"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Int(value) => out.push_str(&value.to_string()),
        Value::Float(value) => push_go_float(out, *value),
        Value::Str(text) => out.push_str(&text.lossy()),
        Value::Bytes(bytes) => {
            let bytes: Vec<String> = bytes.iter().map(u8::to_string).collect();
            out.push_str(&format!("[{}]", bytes.join(" ")));
        }
        Value::Time(time) => {
            out.push_str(&Layout::new("2006-01-02 15:04:05.999999999 -0700 MST").format(time));
        }
        Value::List(list) => {
            out.push('[');
            for (at, value) in list.iter().enumerate() {
                if at > 0 {
                    out.push(' ');
                }
                print(value, out);
            }
            out.push(']');
        }
        Value::Map(map) => {
            let mut pairs: Vec<_> = map.iter().collect();
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            out.push_str("map[");
            for (at, (key, value)) in pairs.into_iter().enumerate() {
                if at > 0 {
                    out.push(' ');
                }
                out.push_str(&key.lossy());
                out.push(':');
                print(value, out);
            }
            out.push(']');
        }
    }
}

/// A duration as Go prints it.
pub(super) fn duration(ns: i64) -> String {
    if ns == 0 {
        return "0s".to_owned();
    }
    let sign = if ns < 0 { "-" } else { "" };
    let all = ns.unsigned_abs();
    let fraction = |value: u64, unit: u64, name: &str| {
        let digits = unit.ilog10() as usize;
        let rest = format!("{:0digits$}", value % unit);
        let rest = rest.trim_end_matches('0');
        if rest.is_empty() || unit == 1 {
            format!("{}{name}", value / unit)
        } else {
            format!("{}.{rest}{name}", value / unit)
        }
    };
    let text = match all {
        0..1_000 => format!("{all}ns"),
        1_000..1_000_000 => fraction(all, 1_000, "µs"),
        1_000_000..1_000_000_000 => fraction(all, 1_000_000, "ms"),
        _ => {
            let (minutes, rest) = (all / 60_000_000_000, all % 60_000_000_000);
            let seconds = fraction(rest, 1_000_000_000, "s");
            match minutes {
                0 => seconds,
                1..60 => format!("{minutes}m{seconds}"),
                _ => format!("{}h{}m{seconds}", minutes / 60, minutes % 60),
            }
        }
    };
    format!("{sign}{text}")
}
