//! Severities by what sources call them.

use std::collections::HashMap;

use crate::build::{Built, Fields};
use crate::entry::{Entry, SEVERITY_NAMES};
use crate::field::Field;
use crate::value::{Text, Value};

/// Sets severities.
pub(crate) struct Severities {
    from: Field,
    /// By names in lower case.
    names: HashMap<Box<[u8]>, u8>,
    /// Whole numbers from one to another, both included.
    ranges: Vec<(i64, i64, u8)>,
    overwrite_text: bool,
}

/// Names that are known beside those of OpenTelemetry, with the severity that they begin at.
const ALIASES: [(&str, u8); 2] = [("warning", 13), ("err", 17)];

fn lower(text: &[u8]) -> Vec<u8> {
    corten_golang::map(text, corten_golang::to_lower)
}

/// What the names and numbers of OpenTelemetry stand for.
fn known() -> HashMap<Box<[u8]>, u8> {
    let mut names = HashMap::new();
    for (severity, name) in SEVERITY_NAMES.iter().enumerate().skip(1) {
        names.insert(name.to_ascii_lowercase().into_bytes().into(), severity as u8);
        names.insert(severity.to_string().into_bytes().into(), severity as u8);
    }
    names
}

impl Severities {
    pub(crate) fn new(fields: &Fields<'_>) -> Built<Self> {
        let mut names = match &*fields.text_or("preset", "")? {
            "none" => HashMap::new(),
            "otel" | "aliases" => known(),
            _ => {
                let mut names = known();
                for (alias, first) in ALIASES {
                    for number in 0..4u8 {
                        let name = if number == 0 { alias.to_owned() } else { format!("{alias}{}", number + 1) };
                        names.insert(name.into_bytes().into(), first + number);
                    }
                }
                names
            }
        };
        let mut ranges = Vec::new();
        let of_name = known();
        for (name, values) in fields.map("mapping")?.into_iter().flat_map(|map| map.iter()) {
            // A name that is none stands for the severity of what is not known.
            let severity = of_name.get(&*lower(name)).copied().unwrap_or(0);
            let one = std::slice::from_ref(values);
            for value in if let Value::List(list) = values { list } else { one } {
                match value {
                    Value::Int(number) => drop(names.insert(number.to_string().into_bytes().into(), severity)),
                    Value::Str(text) => match &**text {
                        [hundred @ b'2'..=b'5', b'x', b'x'] => {
                            let from = i64::from(hundred - b'0') * 100;
                            ranges.push((from, from + 99, severity));
                        }
                        text => drop(names.insert(lower(text).into(), severity)),
                    },
                    Value::Bytes(bytes) => drop(names.insert(lower(bytes).into(), severity)),
                    Value::Map(map) => match (map.get(b"min"), map.get(b"max")) {
                        (Some(Value::Int(min)), Some(Value::Int(max))) => {
                            ranges.push((*min.min(max), *min.max(max), severity));
                        }
                        _ => return Err(format!("type {} cannot be parsed as a severity", value.go_type())),
                    },
                    other => return Err(format!("type {} cannot be parsed as a severity", other.go_type())),
                }
            }
        }
        let Some(from) = fields.field("parse_from")? else {
            return Err("missing required field 'parse_from'".to_owned());
        };
        Ok(Severities { from, names, ranges, overwrite_text: fields.bool_or("overwrite_text", false)? })
    }

    fn find(&self, text: &[u8]) -> u8 {
        // Most names are short and ASCII.
        let mut small = [0; 32];
        let found = match small.get_mut(..text.len()).filter(|_| text.is_ascii()) {
            Some(room) => {
                room.copy_from_slice(text);
                room.make_ascii_lowercase();
                self.names.get(&*room)
            }
            None => self.names.get(&*lower(text)),
        };
        if let Some(severity) = found {
            return *severity;
        }
        if self.ranges.is_empty() {
            return 0;
        }
        let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok());
        // `007` and `+7` are no numbers here.
        let Some(number) = number.filter(|number| number.to_string().as_bytes() == text) else { return 0 };
        let found = self.ranges.iter().find(|(min, max, _)| (*min..=*max).contains(&number));
        found.map_or(0, |(.., severity)| *severity)
    }

    pub(crate) fn set(&self, entry: &mut Entry) -> Result<(), String> {
        let Some(value) = self.from.get(entry) else { return Err(super::missing(&self.from)) };
        let text = match value {
            Value::Str(text) => text.clone(),
            Value::Bytes(bytes) => bytes.clone().into(),
            Value::Int(number) => Text::from(number.to_string()),
            Value::Float(number) if *number == number.trunc() && number.abs() < 9e18 => {
                Text::from((*number as i64).to_string())
            }
            Value::Float(_) => {
                return Err("parse: type float64 cannot be a severity unless it is a whole number".to_owned());
            }
            other => return Err(format!("parse: type {} cannot be a severity", other.go_type())),
        };
        let severity = self.find(&text);
        entry.severity = severity;
        entry.severity_text =
            if self.overwrite_text && severity > 0 { Text::of(SEVERITY_NAMES[usize::from(severity)]) } else { text };
        Ok(())
    }
}
