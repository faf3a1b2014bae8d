//! Names of metrics, as the reference makes them for Prometheus.

use super::units::words;
use super::{chars, is_letter_or_digit};

/// What a name depends on besides the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A value that goes up and down.
    Gauge,
    /// A value that never goes down.
    Counter,
    /// Anything else.
    Other,
}

/// The name of a metric with its unit and what tells its shape behind it.
pub(crate) fn with_suffixes(name: &[u8], unit: &[u8], shape: Shape) -> String {
    let name: String = chars(name).collect();
    let unit = String::from_utf8_lossy(unit);
    let (main, per) = words(&unit);
    let mut tokens: Vec<&str> =
        name.split(|char| !is_letter_or_digit(char)).filter(|token| !token.is_empty()).collect();
    if !main.is_empty() && !tokens.contains(&&*main) {
        tokens.push(&main);
    }
    if !per.is_empty() && !tokens.contains(&&*per) {
        tokens.extend(["per", &per]);
    }
    let mut end_with = |suffix| {
        tokens.retain(|token| *token != suffix);
        tokens.push(suffix);
    };
    match shape {
        Shape::Counter => end_with("total"),
        // Counters with this unit count things, whatever their unit says.
        Shape::Gauge if unit == "1" => end_with("ratio"),
        Shape::Gauge | Shape::Other => {}
    }
    not_a_number(tokens.join("_"))
}

/// The name of a metric with nothing changed but characters that may not stand in one.
pub(crate) fn as_it_is(name: &[u8]) -> String {
    let name: String = chars(name).collect();
    let parts = name.split(|char| !is_letter_or_digit(char) && char != '_' && char != ':');
    not_a_number(parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("_"))
}

fn not_a_number(name: String) -> String {
    if name.starts_with(|first: char| first.is_ascii_digit()) { format!("_{name}") } else { name }
}
