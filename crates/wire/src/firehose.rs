//! What Amazon Data Firehose sends to HTTP endpoints, and the log events of CloudWatch in it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::go_json;

/// As Go reads it: with padding, whatever the bits are that are left over.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// What compressed data begins with.
const GZIP_PREFIX: [u8; 3] = [0x1f, 0x8b, 8];

/// A request: its records, each with its data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// When it was made, in milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// The data of its records, as base64.
    pub records: Vec<String>,
}

/// What a record holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Something that was put into the stream directly.
    Direct(Vec<u8>),
    /// What CloudWatch put into it, as JSON.
    CloudWatch(Vec<u8>),
}

/// Why a record was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// It is no base64.
    Base64,
    /// What is compressed in it is broken, or longer than the limit.
    Gzip,
    /// What should be compressed in it does not even begin so.
    Unknown,
    /// It is no JSON of CloudWatch.
    CloudWatch,
}

impl RecordError {
    /// How metrics call it.
    pub fn reason(self) -> &'static str {
        match self {
            RecordError::Base64 => "base64-decode",
            RecordError::Gzip => "gzip-deflate",
            RecordError::Unknown => "unknown",
            RecordError::CloudWatch => "cw-json-decode",
        }
    }
}

/// Log events of CloudWatch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloudWatch {
    /// The account.
    pub owner: String,
    /// The group of streams.
    pub log_group: String,
    /// The stream.
    pub log_stream: String,
    /// The filters that the events matched.
    pub filters: Vec<String>,
    /// `DATA_MESSAGE` or `CONTROL_MESSAGE`.
    pub message_type: String,
    /// Times, in milliseconds since the Unix epoch, and texts.
    pub events: Vec<(i64, String)>,
}

/// What a text is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirehoseError(String);

impl fmt::Display for FirehoseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FirehoseError {}

/// A list of bounded length.
struct Bounded<T, const MAX: usize>(Vec<T>);

impl<T, const MAX: usize> Default for Bounded<T, MAX> {
    fn default() -> Self {
        Bounded(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Bounded<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T, const MAX: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for List<T, MAX> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX}")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    if list.len() == MAX {
                        return Err(A::Error::invalid_length(MAX + 1, &self));
                    }
                    list.push(item);
                }
                Ok(list)
            }
        }

        deserializer.deserialize_seq(List::<T, MAX>(PhantomData)).map(Bounded)
    }
}

/// The most records of a request, log events of a record, and filters and attributes.
const RECORDS_MAX: usize = 4 << 20;
const EVENTS_MAX: usize = 1 << 20;
const FILTERS_MAX: usize = 1_000;

/// The name of a field, which lies in the text where it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// Whether this is the name of a field: its case does not count, as it does not for Go.
fn is_named(name: &str, field: &str) -> bool {
    let same = |(a, b): (char, char)| {
        // Letters outside of ASCII that are cases of letters in it.
        let a = match a {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            a => a,
        };
        a.eq_ignore_ascii_case(&b)
    };
    name == field || (name.chars().count() == field.chars().count() && name.chars().zip(field.chars()).all(same))
}

/// Objects with fields of these names. Of several fields of one name the last counts, and `null` changes nothing.
macro_rules! objects {
    ($($object:ident { $($field:ident: $type:ty = $name:literal,)* })*) => {$(
        #[derive(Default)]
        struct $object {
            $($field: $type,)*
        }

        impl<'de> Deserialize<'de> for $object {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Fields;

                impl<'de> Visitor<'de> for Fields {
                    type Value = $object;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("an object")
                    }

                    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<$object, A::Error> {
                        let mut object = $object::default();
                        while let Some(name) = fields.next_key::<Name<'_>>()? {
                            $(
                                if is_named(&name.0, $name) {
                                    if let Some(value) = fields.next_value()? {
                                        object.$field = value;
                                    }
                                    continue;
                                }
                            )*
                            fields.next_value::<IgnoredAny>()?;
                        }
                        Ok(object)
                    }
                }

                deserializer.deserialize_map(Fields)
            }
        }
    )*};
}

objects! {
    JsonRequest {
        timestamp: i64 = "timestamp",
        records: Bounded<Option<JsonRecord>, RECORDS_MAX> = "records",
    }
    JsonRecord {
        data: String = "data",
    }
    JsonCloudWatch {
        owner: String = "owner",
        log_group: String = "logGroup",
        log_stream: String = "logStream",
        subscription_filters: Bounded<Option<String>, FILTERS_MAX> = "subscriptionFilters",
        message_type: String = "messageType",
        log_events: Bounded<Option<JsonEvent>, EVENTS_MAX> = "logEvents",
    }
    JsonEvent {
        timestamp: i64 = "timestamp",
        message: String = "message",
    }
    JsonAttributes {
        common_attributes: BTreeMap<String, Option<String>> = "commonAttributes",
    }
}

/// What a text begins with, or is where nothing may follow.
fn read<T: Default + for<'de> Deserialize<'de>>(json: &[u8], whole: bool) -> Result<T, FirehoseError> {
    let json = go_json::text(json);
    let error = |error: serde_json::Error| FirehoseError(error.to_string());
    let value: Option<T> = if whole {
        serde_json::from_str(&json).map_err(error)?
    } else {
        let first = serde_json::Deserializer::from_str(&json).into_iter().next();
        first.ok_or_else(|| FirehoseError("EOF".to_owned()))?.map_err(error)?
    };
    Ok(value.unwrap_or_default())
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    ///
    /// A text that is none.
    pub fn parse(body: &[u8]) -> Result<Self, FirehoseError> {
        let request: JsonRequest = read(body, false)?;
        let records = request.records.0.into_iter().map(|record| record.unwrap_or_default().data);
        Ok(Request { timestamp_ms: request.timestamp, records: records.collect() })
    }
}

impl Record {
    /// Reads the data of a record. What is compressed may have so many bytes.
    ///
    /// # Errors
    ///
    /// Data that cannot be read.
    pub fn decode(data: &str, bytes_max: usize) -> Result<Self, RecordError> {
        let is_plain = !data.contains(['\r', '\n']);
        let decoded = if is_plain { BASE64.decode(data) } else { BASE64.decode(data.replace(['\r', '\n'], "")) };
        let decoded = decoded.map_err(|_| RecordError::Base64)?;
        if !decoded.starts_with(&GZIP_PREFIX) {
            return Ok(Record::Direct(decoded));
        }
        let mut decoder = MultiGzDecoder::new(&decoded[..]);
        let mut out = Vec::new();
        let read = (&mut decoder).take(bytes_max as u64 + 1).read_to_end(&mut out);
        match read {
            Err(_) if decoder.header().is_none() => Err(RecordError::Unknown),
            Err(_) => Err(RecordError::Gzip),
            Ok(_) if out.len() > bytes_max => Err(RecordError::Gzip),
            Ok(_) => Ok(Record::CloudWatch(out)),
        }
    }
}

impl CloudWatch {
    /// Reads log events.
    ///
    /// # Errors
    ///
    /// A text that holds none.
    pub fn parse(json: &[u8]) -> Result<Self, FirehoseError> {
        let json: JsonCloudWatch = read(json, true)?;
        let events = json.log_events.0.into_iter().map(Option::unwrap_or_default);
        Ok(CloudWatch {
            owner: json.owner,
            log_group: json.log_group,
            log_stream: json.log_stream,
            filters: json.subscription_filters.0.into_iter().map(Option::unwrap_or_default).collect(),
            message_type: json.message_type,
            events: events.map(|event| (event.timestamp, event.message)).collect(),
        })
    }
}

/// The common attributes of a request, which a header has as JSON.
///
/// # Errors
///
/// A text that holds none.
pub fn common_attributes(json: &str) -> Result<Vec<(String, String)>, FirehoseError> {
    let json: JsonAttributes = read(json.as_bytes(), true)?;
    Ok(json.common_attributes.into_iter().map(|(name, value)| (name, value.unwrap_or_default())).collect())
}

/// A name of a label made of something else: in snake case, and without the usual other characters.
pub fn sanitized(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut before = '\0';
    for c in name.chars() {
        match c {
            ' ' | ',' | '\t' | '/' | '\\' | '.' | '-' | ':' | '=' | '@' | '<' | '>' | '(' | ')' | '“' => {
                out.push('_')
            }
            '%' => out.push_str("_percent"),
            _ => {
                if c.is_uppercase() && (before.is_lowercase() || before.is_numeric()) {
                    out.push('_');
                }
                out.extend(c.to_lowercase());
            }
        }
        before = c;
    }
    out
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn requests_are_read() {
        let request = |timestamp_ms, records: &[&str]| Request {
            timestamp_ms,
            records: records.iter().map(|record| (*record).to_owned()).collect(),
        };
        for (json, expected) in [
            (
                r#"{"requestId":"a","timestamp":5,"records":[{"data":"YQ=="},{"data":"Yg==","x":1}]} x"#,
                Some(request(5, &["YQ==", "Yg=="])),
            ),
            (r#"{"timestamp":null,"records":[null,{"data":null}]}"#, Some(request(0, &["", ""]))),
            (r#"{"requestId":"\ud800","records":[{"data":"YQ=="}]}"#, Some(request(0, &["YQ=="]))),
            (r#"{"Records":[{"DATA":"YQ=="}],"TimeStamp":5}"#, Some(request(5, &["YQ=="]))),
            (r#"{"record\u017f":[{"d\u0061ta":"YQ=="}],"Timestamp":5}"#, Some(request(5, &["YQ=="]))),
            (
                r#"{"records":[{"data":"YQ=="}],"recordss":[],"Records":[{},{}],"records":null}"#,
                Some(request(0, &["", ""])),
            ),
            ("{}", Some(request(0, &[]))),
            ("null", Some(request(0, &[]))),
            (r#"{"records":{}}"#, None),
            (r#"{"records":[1]}"#, None),
            (r#"{"records":[{"data":1}]}"#, None),
            (r#"{"timestamp":"5"}"#, None),
            (r#"{"timestamp":1.5}"#, None),
            ("[]", None),
            (r#"{"records":[[]]}"#, None),
            ("{", None),
            ("", None),
        ] {
            assert_eq!(Request::parse(json.as_bytes()).ok(), expected, "{json}");
        }
    }

    #[test]
    fn records_are_told_apart_by_their_first_bytes() {
        let encoded = |bytes: &[u8]| BASE64.encode(bytes);
        for (data, expected) in [
            ("YQ==".to_owned(), Ok(Record::Direct(b"a".to_vec()))),
            ("YR==".to_owned(), Ok(Record::Direct(b"a".to_vec()))),
            ("Y\r\nQ==\n".to_owned(), Ok(Record::Direct(b"a".to_vec()))),
            (String::new(), Ok(Record::Direct(Vec::new()))),
            ("YQ".to_owned(), Err(RecordError::Base64)),
            ("Y Q==".to_owned(), Err(RecordError::Base64)),
            (encoded(&gzip(b"{}")), Ok(Record::CloudWatch(b"{}".to_vec()))),
            (encoded(&[gzip(b"{"), gzip(b"}")].concat()), Ok(Record::CloudWatch(b"{}".to_vec()))),
            (encoded(&gzip(b"{}")[..15]), Err(RecordError::Gzip)),
            (encoded(&gzip(b"{}")[..5]), Err(RecordError::Unknown)),
            (encoded(&gzip(&[b' '; 101])), Err(RecordError::Gzip)),
        ] {
            assert_eq!(Record::decode(&data, 100), expected, "{data}");
        }
    }

    #[test]
    fn log_events_are_read() {
        let json = r#"{"messageType":"DATA_MESSAGE","owner":"1","logGroup":"g","logStream":"s",
            "subscriptionFilters":["a","b"],"LogEvents":[{"id":"x","timestamp":7,"message":"one"},{"Message":"two"}]}"#;
        let events = CloudWatch::parse(json.as_bytes()).unwrap();
        assert_eq!(
            events,
            CloudWatch {
                owner: "1".to_owned(),
                log_group: "g".to_owned(),
                log_stream: "s".to_owned(),
                filters: vec!["a".to_owned(), "b".to_owned()],
                message_type: "DATA_MESSAGE".to_owned(),
                events: vec![(7, "one".to_owned()), (0, "two".to_owned())],
            }
        );
        for json in [
            "",
            "[]",
            r#"{"owner":1}"#,
            r#"{"logEvents":[{"timestamp":"1"}]}"#,
            "{} x",
            r#"{"subscriptionFilters":[1]}"#,
        ] {
            assert!(CloudWatch::parse(json.as_bytes()).is_err(), "{json}");
        }
    }

    #[test]
    fn names_become_names_of_labels() {
        for (name, expected) in [
            ("my-label", "my_label"),
            ("myLabel9Name", "my_label9_name"),
            ("HTTPCode", "httpcode"),
            ("a.b/c d", "a_b_c_d"),
            ("cpu%", "cpu_percent"),
            ("0x", "0x"),
            ("é", "é"),
        ] {
            assert_eq!(sanitized(name), expected);
        }
    }

    #[test]
    fn attributes_are_strings() {
        let json = r#"{"CommonAttributes":{"lbl_a":"1","b":null}}"#;
        let pairs = [("b", ""), ("lbl_a", "1")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut got = common_attributes(json).unwrap();
        got.sort();
        assert_eq!(got, pairs);
        assert_eq!(common_attributes("{}"), Ok(Vec::new()));
        for json in ["", "[]", r#"{"commonAttributes":[]}"#, r#"{"commonAttributes":{"a":1}}"#] {
            assert!(common_attributes(json).is_err(), "{json}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(body in any::<Vec<u8>>(), text in any::<String>(), compressed: bool) {
            let _ = (Request::parse(&body), CloudWatch::parse(&body), common_attributes(&text));
            let body = if compressed { [&GZIP_PREFIX[..], &body].concat() } else { body };
            let _ = Record::decode(&BASE64.encode(&body), 1 << 10);
            let _ = (Record::decode(&text, 1 << 10), sanitized(&text));
        }

        #[test]
        fn data_comes_back(body in any::<Vec<u8>>()) {
            prop_assume!(!body.starts_with(&GZIP_PREFIX));
            prop_assert_eq!(Record::decode(&BASE64.encode(&body), 1 << 20), Ok(Record::Direct(body.clone())));
            prop_assert_eq!(Record::decode(&BASE64.encode(gzip(&body)), 1 << 20), Ok(Record::CloudWatch(body)));
        }
    }
}
