//! Entries: what a source read, and what operators make of it.

use corten_golang::time::Time;

use crate::value::{Map, Text, Value};

/// What the severities from 1 to 24 are called.
pub const SEVERITY_NAMES: [&str; 25] = [
    "DEFAULT", "TRACE", "TRACE2", "TRACE3", "TRACE4", "DEBUG", "DEBUG2", "DEBUG3", "DEBUG4", "INFO", "INFO2", "INFO3",
    "INFO4", "WARN", "WARN2", "WARN3", "WARN4", "ERROR", "ERROR2", "ERROR3", "ERROR4", "FATAL", "FATAL2", "FATAL3",
    "FATAL4",
];

/// What a source read, and what is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// When it was read, in nanoseconds since the Unix epoch.
    pub observed_ns: u64,
    /// When it happened, where that is known.
    pub timestamp: Option<Time>,
    /// What it says.
    pub body: Value,
    /// What else is known of it: a map.
    pub attributes: Value,
    /// What is known of its source: a map.
    pub resource: Value,
    /// How severe it is: 1 to 24, or 0.
    pub severity: u8,
    /// What its source calls the severity.
    pub severity_text: Text,
    /// The part of the program that it is from.
    pub scope_name: Text,
    /// The trace that it belongs to.
    pub trace_id: Option<Vec<u8>>,
    /// The span that it belongs to.
    pub span_id: Option<Vec<u8>>,
    /// The flags of the trace.
    pub trace_flags: Option<Vec<u8>>,
}

impl Entry {
    /// An entry that was read at a time, in nanoseconds since the Unix epoch.
    pub fn of(body: Value, observed_ns: u64) -> Self {
        Entry {
            observed_ns,
            timestamp: None,
            body,
            attributes: Value::Map(Map::default()),
            resource: Value::Map(Map::default()),
            severity: 0,
            severity_text: Text::default(),
            scope_name: Text::default(),
            trace_id: None,
            span_id: None,
            trace_flags: None,
        }
    }

    /// The attributes.
    pub fn attributes_mut(&mut self) -> &mut Map {
        self.attributes.map_mut()
    }

    /// The attributes of the resource.
    pub fn resource_mut(&mut self) -> &mut Map {
        self.resource.map_mut()
    }
}
