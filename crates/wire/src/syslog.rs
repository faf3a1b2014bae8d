//! Syslog messages: RFC 5424, RFC 3164 with the additions of Cisco's devices, and lines as they are; and how they are told
//! apart on a stream (RFC 6587).
//!
//! What is accepted, and what becomes of what is not quite right, follows the parser that the reference uses, in its mode
//! of best effort: `tests/data/syslog_messages.json` holds its recorded answers.

pub mod frame;
pub mod raw;
pub mod rfc3164;
pub mod rfc5424;
mod stamp;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

pub use self::stamp::Stamp;

/// Structured data by the ids of its elements and the names of their parameters.
pub type StructuredData<'a> = BTreeMap<&'a [u8], BTreeMap<&'a [u8], Cow<'a, [u8]>>>;

/// A syslog message. What it does not say, or says to be nothing, is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message<'a> {
    /// Facility times eight, and severity.
    pub priority: Option<u8>,
    /// The version of the protocol; 0 where there is none.
    pub version: u16,
    /// When it was written.
    pub timestamp: Option<Stamp>,
    /// The host that it is from.
    pub hostname: Option<&'a [u8]>,
    /// The program that it is from.
    pub app_name: Option<&'a [u8]>,
    /// The process that it is from.
    pub proc_id: Option<&'a [u8]>,
    /// The kind of message.
    pub msg_id: Option<&'a [u8]>,
    /// The counter of Cisco's devices.
    pub message_counter: Option<u32>,
    /// The sequence number of Cisco's devices.
    pub sequence: Option<u32>,
    /// Structured data.
    pub structured_data: Option<StructuredData<'a>>,
    /// The text.
    pub text: Option<&'a [u8]>,
}

/// Why a message was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageError {
    /// Where, in bytes.
    pub offset: usize,
    what: &'static str,
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [col {}]", self.what, self.offset)
    }
}

impl std::error::Error for MessageError {}

/// The names of severities.
const SEVERITIES: [&str; 8] =
    ["emergency", "alert", "critical", "error", "warning", "notice", "informational", "debug"];

/// The names of facilities.
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp",
    "security", "console", "cron2", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];

/// The name of the severity of a priority.
pub fn severity(priority: u8) -> &'static str {
    SEVERITIES[usize::from(priority % 8)]
}

/// The name of the facility of a priority; empty where there is none.
pub fn facility(priority: u8) -> &'static str {
    FACILITIES.get(usize::from(priority / 8)).copied().unwrap_or_default()
}

impl Message<'_> {
    /// The message as RFC 5424 writes it, with ids and names of structured data in order. Nothing for a message without
    /// priority or version.
    pub fn to_rfc5424(&self) -> Option<Vec<u8>> {
        let priority = self.priority.filter(|_| self.version > 0)?;
        let mut out = format!("<{priority}>{} ", self.version).into_bytes();
        match &self.timestamp {
            Some(stamp) => out.extend_from_slice(stamp.to_string().as_bytes()),
            None => out.push(b'-'),
        }
        for field in [self.hostname, self.app_name, self.proc_id, self.msg_id] {
            out.push(b' ');
            out.extend_from_slice(field.unwrap_or(b"-"));
        }
        out.push(b' ');
        match &self.structured_data {
            None => out.push(b'-'),
            Some(elements) => {
                for (id, parameters) in elements {
                    out.push(b'[');
                    out.extend_from_slice(id);
                    for (name, value) in parameters {
                        out.push(b' ');
                        out.extend_from_slice(name);
                        out.extend_from_slice(b"=\"");
                        for byte in value.iter() {
                            if matches!(byte, b'\\' | b']' | b'"') {
                                out.push(b'\\');
                            }
                            out.push(*byte);
                        }
                        out.push(b'"');
                    }
                    out.push(b']');
                }
            }
        }
        if let Some(text) = self.text {
            out.push(b' ');
            out.extend_from_slice(text);
        }
        Some(out)
    }
}

/// The priority between angle brackets that a message begins with: the value, and what comes after it. On an error the place of the first
/// byte that does not belong there.
fn priority(input: &[u8]) -> Result<(u8, usize), usize> {
    let byte = |at: usize| input.get(at).copied().unwrap_or_default();
    if byte(0) != b'<' {
        return Err(0);
    }
    let start = 1;
    // 0 to 191, without zeros in front.
    let digits = match (byte(start), byte(start + 1), byte(start + 2)) {
        (b'0', ..) => 1,
        (b'1', b'9', b'0' | b'1') | (b'1', b'0'..=b'8', b'0'..=b'9') => 3,
        (b'1'..=b'9', b'0'..=b'9', _) => 2,
        (b'1'..=b'9', ..) => 1,
        _ => return Err(start),
    };
    let end = start + digits;
    if byte(end) != b'>' {
        return Err(end);
    }
    let value = input[start..end].iter().fold(0u8, |value, digit| value * 10 + (digit - b'0'));
    Ok((value, end + 1))
}

/// Something that says to be nothing.
fn not_nil(field: &[u8]) -> Option<&[u8]> {
    Some(field).filter(|field| !field.is_empty() && *field != b"-")
}

#[cfg(test)]
mod tests;
