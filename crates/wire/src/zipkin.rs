//! Zipkin's spans: version 2 in JSON and protocol buffers (`zipkin.proto`), version 1 in JSON and Thrift
//! (`zipkincore.thrift`).

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::proto::{Field, Fields, ProtoError};
pub use crate::thrift::ThriftError;
use crate::thrift::{Kind, Protocol, Reader};

/// A span of version 2.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Span<'a> {
    /// The trace that it belongs to.
    pub trace_id: [u8; 16],
    /// Its own id.
    pub id: u64,
    /// The span within which it took place.
    pub parent_id: Option<u64>,
    /// What was done.
    pub name: Cow<'a, str>,
    /// `CLIENT`, `SERVER`, `PRODUCER`, `CONSUMER` or something else.
    pub kind: Cow<'a, str>,
    /// When it began, in microseconds since the Unix epoch; nothing where that is not said.
    pub timestamp_us: Option<u64>,
    /// How long it took, in microseconds.
    pub duration_us: u64,
    /// Who recorded it.
    pub local: Option<Endpoint<'a>>,
    /// Who was at the other end.
    pub remote: Option<Endpoint<'a>>,
    /// What happened meanwhile: when, in microseconds since the Unix epoch, and what.
    pub annotations: Vec<(u64, Cow<'a, str>)>,
    /// What else is known of it. Of two of one key the last counts.
    pub tags: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

/// Someone on the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint<'a> {
    /// The service; empty where it is not known.
    pub service_name: Cow<'a, str>,
    /// The address of IPv4, as a text.
    pub ipv4: Option<String>,
    /// The address of IPv6, as a text.
    pub ipv6: Option<String>,
    /// The port; 0 where it is not known.
    pub port: u16,
}

/// A text, or nothing in its place, which is the empty text.
#[derive(Default, Deserialize)]
struct Text<'a>(#[serde(borrow, deserialize_with = "text_or_null")] Cow<'a, str>);

fn text_or_null<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'a, str>, D::Error> {
    struct Visit;

    impl<'de> Visitor<'de> for Visit {
        type Value = Cow<'de, str>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Cow::Borrowed(""))
        }

        fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
            Ok(Cow::Borrowed(text))
        }

        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Cow::Owned(text.to_owned()))
        }
    }

    deserializer.deserialize_any(Visit)
}

/// Pairs of texts.
#[derive(Default)]
struct Pairs<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;

        impl<'de> Visitor<'de> for Visit {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some((key, value)) = map.next_entry::<Text<'_>, Text<'_>>()? {
                    pairs.push((key.0, value.0));
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(Visit)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonSpan<'a> {
    #[serde(borrow)]
    trace_id: Option<Text<'a>>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    parent_id: Option<Text<'a>>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    kind: Option<Text<'a>>,
    timestamp: Option<u64>,
    duration: Option<u64>,
    #[serde(borrow)]
    local_endpoint: Option<JsonEndpoint<'a, u16>>,
    #[serde(borrow)]
    remote_endpoint: Option<JsonEndpoint<'a, u16>>,
    #[serde(borrow)]
    annotations: Option<Vec<JsonAnnotation<'a>>>,
    #[serde(borrow)]
    tags: Option<Pairs<'a>>,
}

/// Someone on the network. What a port can be differs between the versions.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonEndpoint<'a, P> {
    #[serde(borrow)]
    service_name: Option<Text<'a>>,
    #[serde(borrow)]
    ipv4: Option<Text<'a>>,
    #[serde(borrow)]
    ipv6: Option<Text<'a>>,
    port: Option<P>,
}

#[derive(Deserialize)]
struct JsonAnnotation<'a> {
    timestamp: Option<u64>,
    #[serde(borrow)]
    value: Option<Text<'a>>,
}

/// Reads spans of version 2 in JSON.
///
/// # Errors
///
/// What is wrong with them.
pub fn read_json(json: &[u8]) -> Result<Vec<Span<'_>>, String> {
    let spans: Option<Vec<Option<JsonSpan<'_>>>> = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    spans.unwrap_or_default().into_iter().flatten().map(json_span).collect()
}

/// Takes a text out, which is empty where there is none.
fn text(text: Option<Text<'_>>) -> Cow<'_, str> {
    text.unwrap_or_default().0
}

fn json_span(span: JsonSpan<'_>) -> Result<Span<'_>, String> {
    let trace_id = span.trace_id.map_or(Ok([0; 16]), |id| match &*id.0 {
        "" => Err("valid traceId required".to_owned()),
        id => hex_trace_id(id),
    })?;
    let id = |id: Option<Text<'_>>| id.filter(|id| !id.0.is_empty()).map(|id| hex_number(&id.0)).transpose();
    let parent_id = span.parent_id;
    let own = id(span.id)?.filter(|id| *id != 0).ok_or("valid span id required")?;
    let annotations = span.annotations.unwrap_or_default().into_iter().map(|annotation| match annotation.timestamp {
        None | Some(0) => Err("valid annotation timestamp required".to_owned()),
        Some(timestamp) => Ok((timestamp, text(annotation.value))),
    });
    Ok(Span {
        trace_id,
        id: own,
        parent_id: id(parent_id)?,
        name: text(span.name),
        kind: text(span.kind),
        timestamp_us: span.timestamp.filter(|timestamp| *timestamp > 0),
        duration_us: span.duration.unwrap_or(0),
        local: json_endpoint(span.local_endpoint)?,
        remote: json_endpoint(span.remote_endpoint)?,
        annotations: annotations.collect::<Result<_, _>>()?,
        tags: span.tags.unwrap_or_default().0,
    })
}

fn json_endpoint(endpoint: Option<JsonEndpoint<'_, u16>>) -> Result<Option<Endpoint<'_>>, String> {
    let Some(endpoint) = endpoint else { return Ok(None) };
    let address = |text: Option<Text<'_>>| match text.as_ref().map_or("", |text| &*text.0) {
        "" => Ok(None),
        text => text.parse().map(|address| Some(shown(address))).map_err(|_| format!("invalid IP address: {text}")),
    };
    let endpoint = Endpoint {
        service_name: text(endpoint.service_name),
        ipv4: address(endpoint.ipv4)?,
        ipv6: address(endpoint.ipv6)?,
        port: endpoint.port.unwrap_or(0),
    };
    Ok((endpoint != Endpoint::default()).then_some(endpoint))
}

/// An address as the reference shows it: those of IPv4 within IPv6 without the latter.
fn shown(address: IpAddr) -> String {
    address.to_canonical().to_string()
}

/// An address of so many bytes as it is shown; nothing where there are none.
fn shown_bytes(bytes: &[u8]) -> Option<String> {
    if let Some((four, [])) = bytes.split_first_chunk::<4>() {
        return Some(Ipv4Addr::from(*four).to_string());
    }
    if let Some((sixteen, [])) = bytes.split_first_chunk::<16>() {
        return Some(shown(Ipv6Addr::from(*sixteen).into()));
    }
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    (!bytes.is_empty()).then(|| format!("?{hex}"))
}

/// A number of up to 16 hexadecimal digits.
fn hex_number(text: &str) -> Result<u64, String> {
    let is_hex = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let problem = if is_hex { "value out of range" } else { "invalid syntax" };
    let number = if is_hex { u64::from_str_radix(text, 16).ok() } else { None };
    number.ok_or_else(|| format!("strconv.ParseUint: parsing {text:?}: {problem}"))
}

fn hex_trace_id(text: &str) -> Result<[u8; 16], String> {
    let (high, low) = match text.len().checked_sub(16).filter(|cut| text.is_char_boundary(*cut)) {
        Some(cut) if cut > 0 => (hex_number(&text[..cut])?, &text[cut..]),
        _ => (0, text),
    };
    let low = hex_number(low)?;
    Ok((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
}

/// Reads spans of version 2 in protocol buffers: `ListOfSpans`.
///
/// # Errors
///
/// What is wrong with them.
pub fn read_proto(message: &[u8]) -> Result<Vec<Span<'_>>, String> {
    let (mut spans, mut fields) = (Vec::new(), Fields::new(message));
    while let Some(field) = fields.next()? {
        if field.number == 1 {
            spans.push(proto_span(field.message()?)?);
        }
    }
    Ok(spans)
}

impl From<ProtoError> for String {
    fn from(error: ProtoError) -> Self {
        error.to_string()
    }
}

fn proto_text<'a>(field: &Field<'a>) -> Result<Cow<'a, str>, String> {
    let text = std::str::from_utf8(field.bytes()?);
    text.map(Cow::Borrowed).map_err(|_| "string field contains invalid UTF-8".to_owned())
}

fn proto_id(bytes: &[u8], what: &str) -> Result<Option<u64>, String> {
    match (bytes.len(), bytes.first_chunk::<8>()) {
        (0, _) => Ok(None),
        (8, Some(id)) => Ok(Some(u64::from_be_bytes(*id))),
        (len, _) => Err(format!("invalid {what}: has length {len} yet wanted length 8")),
    }
}

/// A message of two fields, the second of which is a text.
fn proto_pair<'a, T: Default>(
    field: &Field<'a>,
    first: impl Fn(&Field<'a>) -> Result<T, String>,
) -> Result<(T, Cow<'a, str>), String> {
    let (mut pair, mut fields) = ((T::default(), Cow::Borrowed("")), field.message()?);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => pair.0 = first(&field)?,
            2 => pair.1 = proto_text(&field)?,
            _ => {}
        }
    }
    Ok(pair)
}

fn proto_span(mut fields: Fields<'_>) -> Result<Span<'_>, String> {
    const KINDS: [&str; 5] = ["SPAN_KIND_UNSPECIFIED", "CLIENT", "SERVER", "PRODUCER", "CONSUMER"];
    let mut span = Span { timestamp_us: Some(0), ..Span::default() };
    let (mut trace_id, mut id, mut parent_id) = (&b""[..], &b""[..], &b""[..]);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => trace_id = field.bytes()?,
            2 => parent_id = field.bytes()?,
            3 => id = field.bytes()?,
            4 => {
                let kind = usize::try_from(field.uint64()?).unwrap_or(usize::MAX);
                span.kind = KINDS.get(kind).copied().unwrap_or_default().into();
            }
            5 => span.name = proto_text(&field)?,
            6 => span.timestamp_us = Some(field.fixed64()?),
            7 => span.duration_us = field.uint64()?,
            8 => span.local = Some(proto_endpoint(field.message()?)?),
            9 => span.remote = Some(proto_endpoint(field.message()?)?),
            10 => span.annotations.push(proto_pair(&field, |field| Ok(field.fixed64()?))?),
            11 => span.tags.push(proto_pair(&field, proto_text)?),
            _ => {}
        }
    }
    span.trace_id = trace_id
        .try_into()
        .map_err(|_| format!("invalid TraceID: has length {} yet wanted length 16", trace_id.len()))?;
    span.parent_id = proto_id(parent_id, "ParentID")?;
    span.id = proto_id(id, "SpanID")?.ok_or("expected a non-nil SpanID")?;
    Ok(span)
}

fn proto_endpoint(mut fields: Fields<'_>) -> Result<Endpoint<'_>, String> {
    let mut endpoint = Endpoint::default();
    while let Some(field) = fields.next()? {
        match field.number {
            1 => endpoint.service_name = proto_text(&field)?,
            2 => endpoint.ipv4 = shown_bytes(field.bytes()?),
            3 => endpoint.ipv6 = shown_bytes(field.bytes()?),
            4 => endpoint.port = field.uint64()? as u16,
            _ => {}
        }
    }
    Ok(endpoint)
}

/// A span of version 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SpanV1<'a> {
    /// The trace that it belongs to.
    pub trace_id: [u8; 16],
    /// Its own id.
    pub id: [u8; 8],
    /// The span within which it took place; zeros if there is none.
    pub parent_id: [u8; 8],
    /// What was done.
    pub name: Cow<'a, str>,
    /// When it began, in microseconds since the Unix epoch; nothing where that is not said.
    pub timestamp_us: Option<i64>,
    /// How long it took, in microseconds.
    pub duration_us: i64,
    /// What happened meanwhile.
    pub annotations: Vec<Annotation<'a>>,
    /// What else is known of it.
    pub binary_annotations: Vec<BinaryAnnotation<'a>>,
}

/// Something that happened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Annotation<'a> {
    /// When, in microseconds since the Unix epoch.
    pub timestamp_us: i64,
    /// What.
    pub value: Cow<'a, str>,
    /// Where.
    pub endpoint: Option<EndpointV1<'a>>,
}

/// Something that is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BinaryAnnotation<'a> {
    /// Its key.
    pub key: Cow<'a, str>,
    /// Its value.
    pub value: ValueV1<'a>,
    /// Where it is known.
    pub endpoint: Option<EndpointV1<'a>>,
}

/// The value of something that is known.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueV1<'a> {
    /// A text.
    Text(Cow<'a, str>),
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Double(f64),
}

impl Default for ValueV1<'_> {
    fn default() -> Self {
        ValueV1::Text("".into())
    }
}

/// Someone on the network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EndpointV1<'a> {
    /// The service.
    pub service_name: Cow<'a, str>,
    /// The address of IPv4.
    pub ipv4: Cow<'a, str>,
    /// The address of IPv6.
    pub ipv6: Cow<'a, str>,
    /// The port.
    pub port: i32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonSpanV1<'a> {
    #[serde(borrow)]
    trace_id: Option<Text<'a>>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    parent_id: Option<Text<'a>>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
    timestamp: Option<i64>,
    duration: Option<i64>,
    #[serde(borrow)]
    annotations: Option<Vec<Option<JsonAnnotationV1<'a>>>>,
    #[serde(borrow)]
    binary_annotations: Option<Vec<JsonBinaryV1<'a>>>,
}

#[derive(Deserialize)]
struct JsonAnnotationV1<'a> {
    timestamp: Option<i64>,
    #[serde(borrow)]
    value: Option<Text<'a>>,
    #[serde(borrow)]
    endpoint: Option<JsonEndpoint<'a, i32>>,
}

#[derive(Deserialize)]
struct JsonBinaryV1<'a> {
    #[serde(borrow)]
    key: Option<Text<'a>>,
    #[serde(borrow)]
    value: Option<Text<'a>>,
    #[serde(borrow)]
    endpoint: Option<JsonEndpoint<'a, i32>>,
}

impl<'a> From<JsonEndpoint<'a, i32>> for EndpointV1<'a> {
    fn from(endpoint: JsonEndpoint<'a, i32>) -> Self {
        EndpointV1 {
            service_name: text(endpoint.service_name),
            ipv4: text(endpoint.ipv4),
            ipv6: text(endpoint.ipv6),
            port: endpoint.port.unwrap_or(0),
        }
    }
}

/// Reads spans of version 1 in JSON.
///
/// # Errors
///
/// What is wrong with them.
pub fn read_json_v1(json: &[u8]) -> Result<Vec<SpanV1<'_>>, String> {
    let spans: Option<Vec<JsonSpanV1<'_>>> =
        serde_json::from_slice(json).map_err(|error| format!("zipkinv1: {error}"))?;
    spans.unwrap_or_default().into_iter().map(json_span_v1).collect()
}

fn json_span_v1(span: JsonSpanV1<'_>) -> Result<SpanV1<'_>, String> {
    let trace_id = text(span.trace_id);
    let trace_id = match trace_id.len() {
        16 => hex_id::<8>(&trace_id).map(|low| {
            let mut id = [0; 16];
            id[8..].copy_from_slice(&low);
            id
        }),
        32 => hex_id::<16>(&trace_id),
        _ => Err("hex traceId span has wrong length (expected 16 or 32)".to_owned()),
    };
    let trace_id = trace_id.and_then(|id| if id == [0; 16] { Err("traceId is zero".to_owned()) } else { Ok(id) });
    let span_id = |id: &str| match hex_id::<8>(id) {
        _ if id.len() != 16 => Err("hex Id has wrong length (expected 16)".to_owned()),
        Ok(id) if id == [0; 8] => Err("ID is zero".to_owned()),
        outcome => outcome,
    };
    let parent_id = text(span.parent_id);
    let annotations = span.annotations.unwrap_or_default().into_iter().flatten().map(|annotation| Annotation {
        timestamp_us: annotation.timestamp.unwrap_or(0),
        value: text(annotation.value),
        endpoint: annotation.endpoint.map(EndpointV1::from),
    });
    let binary = span.binary_annotations.unwrap_or_default().into_iter().map(|annotation| BinaryAnnotation {
        key: text(annotation.key),
        value: ValueV1::Text(text(annotation.value)),
        endpoint: annotation.endpoint.map(EndpointV1::from),
    });
    Ok(SpanV1 {
        trace_id: trace_id.map_err(|error| format!("zipkinV1 span traceId: {error}"))?,
        id: span_id(&text(span.id)).map_err(|error| format!("zipkinV1 span id: {error}"))?,
        parent_id: if parent_id.is_empty() {
            [0; 8]
        } else {
            span_id(&parent_id).map_err(|error| format!("zipkinV1 span parentId: {error}"))?
        },
        name: text(span.name),
        timestamp_us: span.timestamp.filter(|timestamp| *timestamp != 0),
        duration_us: span.duration.unwrap_or(0),
        annotations: annotations.collect(),
        binary_annotations: binary.collect(),
    })
}

/// An id of so many bytes in hexadecimal digits.
fn hex_id<const N: usize>(text: &str) -> Result<[u8; N], String> {
    let mut id = [0; N];
    if let Some(other) = text.chars().find(|c| !c.is_ascii_hexdigit()) {
        return Err(format!("encoding/hex: invalid byte: U+{:04X} {other:?}", u32::from(other)));
    }
    for (byte, digits) in id.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digit = |at: usize| digits.get(at).and_then(|digit| char::from(*digit).to_digit(16)).unwrap_or(0) as u8;
        *byte = digit(0) << 4 | digit(1);
    }
    Ok(id)
}

/// Reads spans of version 1 in Thrift: a list in the binary protocol.
///
/// # Errors
///
/// What is wrong with them.
pub fn read_thrift_v1(bytes: &[u8]) -> Result<Vec<SpanV1<'_>>, ThriftError> {
    Reader::new(bytes, Protocol::Binary).structs(thrift_span)
}

fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

fn thrift_span<'a>(reader: &mut Reader<'a>) -> Result<SpanV1<'a>, ThriftError> {
    let (mut span, mut last) = (SpanV1::default(), 0);
    let (mut low, mut high) = (0i64, 0i64);
    while let Some(field) = reader.field(&mut last)? {
        match (field.id, field.kind) {
            (1, Kind::I64) => low = reader.i64()?,
            (3, Kind::Bytes) => span.name = lossy(reader.bytes()?),
            (4, Kind::I64) => span.id = reader.i64()?.to_be_bytes(),
            (5, Kind::I64) => span.parent_id = reader.i64()?.to_be_bytes(),
            (6, Kind::List) => span.annotations = reader.structs(thrift_annotation)?,
            (8, Kind::List) => span.binary_annotations = reader.structs(thrift_binary)?,
            (10, Kind::I64) => span.timestamp_us = Some(reader.i64()?),
            (11, Kind::I64) => span.duration_us = reader.i64()?,
            (12, Kind::I64) => high = reader.i64()?,
            _ => reader.skip(field)?,
        }
    }
    span.trace_id = (u128::from(high as u64) << 64 | u128::from(low as u64)).to_be_bytes();
    Ok(span)
}

fn thrift_annotation<'a>(reader: &mut Reader<'a>) -> Result<Annotation<'a>, ThriftError> {
    let (mut annotation, mut last) = (Annotation::default(), 0);
    while let Some(field) = reader.field(&mut last)? {
        match (field.id, field.kind) {
            (1, Kind::I64) => annotation.timestamp_us = reader.i64()?,
            (2, Kind::Bytes) => annotation.value = lossy(reader.bytes()?),
            (3, Kind::Struct) => annotation.endpoint = Some(thrift_endpoint(reader)?),
            _ => reader.skip(field)?,
        }
    }
    Ok(annotation)
}

fn thrift_binary<'a>(reader: &mut Reader<'a>) -> Result<BinaryAnnotation<'a>, ThriftError> {
    let (mut annotation, mut last) = (BinaryAnnotation::default(), 0);
    let (mut value, mut kind) = (&b""[..], 0);
    while let Some(field) = reader.field(&mut last)? {
        match (field.id, field.kind) {
            (1, Kind::Bytes) => annotation.key = lossy(reader.bytes()?),
            (2, Kind::Bytes) => value = reader.bytes()?,
            (3, Kind::I32) => kind = reader.i32()?,
            (4, Kind::Struct) => annotation.endpoint = Some(thrift_endpoint(reader)?),
            _ => reader.skip(field)?,
        }
    }
    annotation.value = thrift_value(kind, value);
    Ok(annotation)
}

fn thrift_value(kind: i32, value: &[u8]) -> ValueV1<'_> {
    use base64::Engine as _;
    let too_short = || ValueV1::Text("<not enough bytes representing the number>".into());
    match kind {
        0 => ValueV1::Bool(value == [1]),
        1 => ValueV1::Text(base64::engine::general_purpose::STANDARD.encode(value).into()),
        // As the reference reads them: without a sign.
        2 => value.first_chunk().map_or_else(too_short, |n| ValueV1::Int(i64::from(u16::from_be_bytes(*n)))),
        3 => value.first_chunk().map_or_else(too_short, |n| ValueV1::Int(i64::from(u32::from_be_bytes(*n)))),
        4 => value.first_chunk().map_or_else(too_short, |n| ValueV1::Int(i64::from_be_bytes(*n))),
        5 => value.first_chunk().map_or_else(too_short, |n| ValueV1::Double(f64::from_be_bytes(*n))),
        6 => ValueV1::Text(lossy(value)),
        other => ValueV1::Text(format!("<unknown zipkin v1 binary annotation type ({other})>").into()),
    }
}

fn thrift_endpoint<'a>(reader: &mut Reader<'a>) -> Result<EndpointV1<'a>, ThriftError> {
    let (mut endpoint, mut last) = (EndpointV1::default(), 0);
    while let Some(field) = reader.field(&mut last)? {
        match (field.id, field.kind) {
            (1, Kind::I32) => {
                let address = reader.i32()? as u32;
                if address != 0 {
                    endpoint.ipv4 = Ipv4Addr::from(address).to_string().into();
                }
            }
            (2, Kind::I16) => endpoint.port = i32::from(reader.i16()?),
            (3, Kind::Bytes) => endpoint.service_name = lossy(reader.bytes()?),
            (4, Kind::Bytes) => endpoint.ipv6 = shown_bytes(reader.bytes()?).unwrap_or_default().into(),
            _ => reader.skip(field)?,
        }
    }
    Ok(endpoint)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_cannot_be_is_refused_with_the_words_of_the_reference() {
        for (json, want) in [
            ("{}", "invalid type: map, expected a sequence at line 1 column 0"),
            (r#"[{"traceId":"1"}]"#, "valid span id required"),
            (r#"[{"traceId":"","id":"1"}]"#, "valid traceId required"),
            (r#"[{"id":"x"}]"#, "strconv.ParseUint: parsing \"x\": invalid syntax"),
            (r#"[{"id":"11111111111111111"}]"#, "strconv.ParseUint: parsing \"11111111111111111\": value out of range"),
            (r#"[{"id":"+1"}]"#, "strconv.ParseUint: parsing \"+1\": invalid syntax"),
            (r#"[{"id":"1","localEndpoint":{"ipv4":"x"}}]"#, "invalid IP address: x"),
            (r#"[{"id":"1","annotations":[{"value":"a"}]}]"#, "valid annotation timestamp required"),
        ] {
            assert_eq!(read_json(json.as_bytes()).unwrap_err(), want, "{json}");
        }
        for (json, want) in [
            (r#"[{"traceId":"1"}]"#, "zipkinV1 span traceId: hex traceId span has wrong length (expected 16 or 32)"),
            (r#"[{"traceId":"0000000000000000"}]"#, "zipkinV1 span traceId: traceId is zero"),
            (r#"[{"traceId":"000000000000000g"}]"#, "zipkinV1 span traceId: encoding/hex: invalid byte: U+0067 'g'"),
            (r#"[{"traceId":"0000000000000001"}]"#, "zipkinV1 span id: hex Id has wrong length (expected 16)"),
            (r#"[{"traceId":"0000000000000001","id":"0000000000000000"}]"#, "zipkinV1 span id: ID is zero"),
            (
                r#"[{"traceId":"0000000000000001","id":"0000000000000001","parentId":"1"}]"#,
                "zipkinV1 span parentId: hex Id has wrong length (expected 16)",
            ),
        ] {
            assert_eq!(read_json_v1(json.as_bytes()).unwrap_err(), want, "{json}");
        }
        for (message, want) in [
            (&b"\x0a\0"[..], "invalid TraceID: has length 0 yet wanted length 16"),
            (b"\x0a\x12\x0a\x100123456789abcdef", "expected a non-nil SpanID"),
            (b"\x0a\x15\x0a\x100123456789abcdef\x1a\x01x", "invalid SpanID: has length 1 yet wanted length 8"),
            (b"\x0a\x02\x2a\x05", "unexpected end of the message"),
        ] {
            assert_eq!(read_proto(message).unwrap_err(), want, "{message:?}");
        }
    }

    #[test]
    fn texts_may_be_missing_null_or_have_escapes() {
        let json = br#"[null,{"traceId":"a","id":"b","name":null,"kind":"\u0043LIENT","tags":{"a":null,"\n":"\t"}}]"#;
        let spans = read_json(json).unwrap();
        assert_eq!(spans.len(), 1);
        assert_eq!((&*spans[0].name, &*spans[0].kind), ("", "CLIENT"));
        assert_eq!(spans[0].tags, [("a".into(), "".into()), ("\n".into(), "\t".into())]);
        assert_eq!(read_json(b"null"), Ok(Vec::new()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = (read_json(&bytes), read_proto(&bytes), read_json_v1(&bytes), read_thrift_v1(&bytes));
            let list = [&[12, 0, 0, 0, 1][..], &bytes].concat();
            let _ = read_thrift_v1(&list);
        }

        #[test]
        fn no_text_makes_it_panic(id in "\\PC{0,40}", json in r#"(\{|\}|\[|\]|:|,|"(traceId|id|tags|annotations|timestamp|[a-f0-9]{0,17})"|[0-9-]{1,5}|null){0,40}"#) {
            let _ = (hex_trace_id(&id), hex_number(&id));
            let _ = (read_json(json.as_bytes()), read_json_v1(json.as_bytes()));
            let json = format!(r#"[{{"traceId":{0:?},"id":{0:?},"parentId":{0:?}}}]"#, id);
            let _ = (read_json(json.as_bytes()), read_json_v1(json.as_bytes()));
        }
    }
}
