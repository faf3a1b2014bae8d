//! GELF, Graylog's format of log messages, in packets: chunks, compression, and the JSON of a message.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::time::{Duration, Instant};

use flate2::read::{DeflateDecoder, MultiGzDecoder};
use serde_json::Value;

use crate::go_json;

/// The longest message, in bytes, as its chunks together and after decompression.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// What the packet of a chunk begins with.
const CHUNK_MAGIC: [u8; 2] = [0x1e, 0x0f];
/// Magic, id, number and count.
const CHUNK_HEAD_BYTES: usize = 12;
/// The most chunks that a message has.
const CHUNKS_MAX: u8 = 128;
/// How long the chunks of a message may take to arrive.
pub const CHUNKS_WAIT_MAX: Duration = Duration::from_secs(5);
/// Messages of which some chunks have arrived, and how many bytes they have together.
const PENDING_MESSAGES_MAX: usize = 1_024;
const PENDING_BYTES_MAX: usize = 32 << 20;

/// Why something was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GelfError(Cow<'static, str>);

impl GelfError {
    fn new(text: impl Into<Cow<'static, str>>) -> Self {
        GelfError(text.into())
    }
}

impl fmt::Display for GelfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for GelfError {}

/// Puts messages together that come in chunks.
#[derive(Debug, Default)]
pub struct Chunks {
    pending: HashMap<[u8; 8], Pending>,
    bytes: usize,
}

#[derive(Debug)]
struct Pending {
    first: Instant,
    chunks: Vec<Option<Box<[u8]>>>,
    arrived: usize,
    bytes: usize,
}

impl Chunks {
    /// Takes a packet: what is a whole message, of itself or as the last of its chunks.
    ///
    /// # Errors
    ///
    /// A chunk that is none. Of a message that grows too long nothing is kept.
    pub fn take<'a>(&mut self, packet: &'a [u8], now: Instant) -> Result<Option<Cow<'a, [u8]>>, GelfError> {
        if !packet.starts_with(&CHUNK_MAGIC) {
            return Ok(Some(Cow::Borrowed(packet)));
        }
        let (Some(id), Some(body)) = (packet.get(2..10), packet.get(CHUNK_HEAD_BYTES..)) else {
            return Err(GelfError::new("chunked message size must be greater than 12"));
        };
        if body.is_empty() {
            return Err(GelfError::new("chunked message size must be greater than 12"));
        }
        let mut key = [0; 8];
        key.copy_from_slice(id);
        let (number, count) = (usize::from(packet[10]), packet[11]);
        if count > CHUNKS_MAX {
            return Err(GelfError::new("message must not be split into more than 128 chunks"));
        }
        let count = usize::from(count);
        self.forget_expired(now);
        self.make_room(body.len(), &key);
        let pending = self.pending.entry(key).or_insert_with(|| Pending {
            first: now,
            chunks: vec![None; count],
            arrived: 0,
            bytes: 0,
        });
        if count != pending.chunks.len() || number >= count {
            return Err(GelfError::new("the number of a chunk does not fit the others of its message"));
        }
        if pending.chunks[number].is_some() {
            return Ok(None);
        }
        pending.chunks[number] = Some(body.into());
        pending.arrived += 1;
        pending.bytes += body.len();
        self.bytes += body.len();
        let is_whole = pending.arrived == count;
        let is_long = pending.bytes > MESSAGE_BYTES_MAX;
        if !is_whole && !is_long {
            return Ok(None);
        }
        let chunks = self.remove(&key).unwrap_or_default();
        if is_long {
            return Err(GelfError::new("message is longer than 4 MiB"));
        }
        Ok(Some(Cow::Owned(chunks.into_iter().flatten().flat_map(Vec::from).collect())))
    }

    /// How many messages wait for further chunks.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Forgets messages whose other chunks did not come in time; how many there were.
    pub fn forget_expired(&mut self, now: Instant) -> usize {
        let before = self.pending.len();
        let bytes = &mut self.bytes;
        self.pending.retain(|_, pending| {
            let keep = now.saturating_duration_since(pending.first) < CHUNKS_WAIT_MAX;
            *bytes -= if keep { 0 } else { pending.bytes };
            keep
        });
        before - self.pending.len()
    }

    /// Forgets the oldest of the other messages where there is too much for another chunk of this one.
    fn make_room(&mut self, bytes: usize, key: &[u8; 8]) {
        let is_new = !self.pending.contains_key(key);
        while (is_new && self.pending.len() >= PENDING_MESSAGES_MAX) || self.bytes + bytes > PENDING_BYTES_MAX {
            let others = self.pending.iter().filter(|(other, _)| *other != key);
            let oldest = others.min_by_key(|(_, pending)| pending.first).map(|(other, _)| *other);
            let Some(oldest) = oldest else { return };
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &[u8; 8]) -> Option<Vec<Option<Box<[u8]>>>> {
        let pending = self.pending.remove(key)?;
        self.bytes -= pending.bytes;
        Some(pending.chunks)
    }
}

/// Decompresses a message, if it is compressed. Where the compression is broken it is what came before: a message may be
/// whole without a checksum, or with something else behind it.
///
/// # Errors
///
/// What is broken at its beginning, or grows too long.
pub fn decompress(message: &[u8]) -> Result<Cow<'_, [u8]>, GelfError> {
    let is_zlib = |head: &[u8]| u16::from_be_bytes([head[0], head[1]]).is_multiple_of(31);
    match message {
        [0x1f, 0x8b, ..] => inflate(MultiGzDecoder::new(message)).map(Cow::Owned),
        // Without a look at the checksum, and what a dictionary is needed for is refused.
        [0x78, flags, rest @ ..] if is_zlib(message) => match flags & 0x20 {
            0 => inflate(DeflateDecoder::new(rest)).map(Cow::Owned),
            _ => Err(GelfError::new("a dictionary is needed")),
        },
        _ => Ok(Cow::Borrowed(message)),
    }
}

fn inflate(from: impl Read) -> Result<Vec<u8>, GelfError> {
    let mut out = Vec::new();
    match from.take(MESSAGE_BYTES_MAX as u64 + 1).read_to_end(&mut out) {
        Err(error) if out.is_empty() => return Err(GelfError::new(error.to_string())),
        _ => {}
    }
    if out.len() > MESSAGE_BYTES_MAX {
        return Err(GelfError::new("message is longer than 4 MiB"));
    }
    Ok(out)
}

/// A message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// The version of the format.
    pub version: String,
    /// The host that it is from.
    pub host: String,
    /// The text, or its first line.
    pub short: String,
    /// The whole text, where that is another.
    pub full: String,
    /// When it was written, in seconds since the Unix epoch; 0 where it does not say.
    pub timestamp_s: f64,
    /// The severity, as in syslog.
    pub level: i32,
    /// The facility.
    pub facility: String,
    /// Further fields, whose names begin with `_`.
    pub extra: serde_json::Map<String, Value>,
}

impl Message {
    /// Reads a message. Fields that are not known are left out; `null` is no message.
    ///
    /// # Errors
    ///
    /// What is no JSON, or a field of another type than it has to be.
    pub fn parse(json: &[u8]) -> Result<Option<Self>, GelfError> {
        let json = go_json::text(json);
        let mut values = serde_json::Deserializer::from_str(&json).into_iter::<Value>();
        let fields = match values.next() {
            Some(Ok(Value::Object(fields))) => fields,
            Some(Ok(Value::Null)) => return Ok(None),
            Some(Ok(_)) => return Err(GelfError::new("the message is no JSON object")),
            Some(Err(error)) => return Err(GelfError::new(error.to_string())),
            None => return Err(GelfError::new("the message is empty")),
        };
        let mut message = Message::default();
        for (name, value) in fields {
            if name.starts_with('_') {
                message.extra.insert(name, value);
                continue;
            }
            let text = match &*name {
                "version" => Some(&mut message.version),
                "host" => Some(&mut message.host),
                "short_message" => Some(&mut message.short),
                "full_message" => Some(&mut message.full),
                "facility" => Some(&mut message.facility),
                _ => None,
            };
            let fits = match (text, &*name, value) {
                (Some(text), _, Value::String(value)) => {
                    *text = value;
                    true
                }
                (Some(_), ..) => false,
                (None, "timestamp", value) => {
                    message.timestamp_s = value.as_f64().unwrap_or_default();
                    value.is_number()
                }
                (None, "level", value) => {
                    message.level = value.as_f64().unwrap_or_default() as i32;
                    value.is_number()
                }
                _ => true,
            };
            if !fits {
                return Err(GelfError::new(format!("invalid type for field {name}")));
            }
        }
        Ok(Some(message))
    }

    /// The time in nanoseconds since the Unix epoch, where it says one.
    pub fn timestamp_ns(&self) -> Option<i64> {
        (self.timestamp_s != 0.0).then_some((self.timestamp_s * 1e9) as i64)
    }

    /// The name of the level, where it has one.
    pub fn level_name(&self) -> &'static str {
        u8::try_from(self.level).ok().filter(|level| *level < 8).map_or("", crate::syslog::severity)
    }

    /// The message as JSON, as the reference writes it: known fields in their order, then further ones in the order of
    /// their names.
    pub fn to_json(&self) -> String {
        let mut out = String::from("{\"version\":");
        write_string(&mut out, &self.version);
        out.push_str(",\"host\":");
        write_string(&mut out, &self.host);
        out.push_str(",\"short_message\":");
        write_string(&mut out, &self.short);
        if !self.full.is_empty() {
            out.push_str(",\"full_message\":");
            write_string(&mut out, &self.full);
        }
        out.push_str(",\"timestamp\":");
        write_number(&mut out, self.timestamp_s);
        if self.level != 0 {
            out.push_str(&format!(",\"level\":{}", self.level));
        }
        if !self.facility.is_empty() {
            out.push_str(",\"facility\":");
            write_string(&mut out, &self.facility);
        }
        for (name, value) in sorted(&self.extra) {
            out.push(',');
            write_string(&mut out, name);
            out.push(':');
            write_value(&mut out, value);
        }
        out.push('}');
        out
    }
}

fn sorted(fields: &serde_json::Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut fields: Vec<_> = fields.iter().collect();
    fields.sort_by_key(|(name, _)| *name);
    fields
}

/// JSON as Go writes it. How deep it lies in itself was limited when it was read.
fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => write_number(out, number.as_f64().unwrap_or_default()),
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                write_value(out, item);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push('{');
            for (at, (name, value)) in sorted(fields).into_iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                write_string(out, name);
                out.push(':');
                write_value(out, value);
            }
            out.push('}');
        }
    }
}

/// All numbers are floats there.
fn write_number(out: &mut String, number: f64) {
    let size = number.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{number:e}");
        out.push_str(&if text.contains("e-") { text } else { text.replace('e', "e+") });
    } else {
        out.push_str(&number.to_string());
    }
}

/// With escapes for what would mean something in HTML or JavaScript.
fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\0'..='\u{1f}' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};
    use proptest::prelude::*;

    use super::*;

    fn chunk(id: u8, number: u8, count: u8, body: &[u8]) -> Vec<u8> {
        [&CHUNK_MAGIC[..], &[id; 8], &[number, count], body].concat()
    }

    #[test]
    fn messages_are_written_as_the_reference_writes_them() {
        for (json, expected) in [
            (
                r#"{"_b":1,"version":"1.1","host":"h","short_message":"a<b>","timestamp":1385053862.3072,"level":1,"_a":{"z":[1.50,null,true],"a":"é\u2028"},"other":1,"full_message":"f","facility":"x"}"#,
                r#"{"version":"1.1","host":"h","short_message":"a\u003cb\u003e","full_message":"f","timestamp":1385053862.3072,"level":1,"facility":"x","_a":{"a":"é\u2028","z":[1.5,null,true]},"_b":1}"#,
            ),
            ("{}", r#"{"version":"","host":"","short_message":"","timestamp":0}"#),
            (
                r#"{"host":"\ud83d\ude00\ud83d","_a":"\udc00"}"#,
                "{\"version\":\"\",\"host\":\"😀\u{fffd}\",\"short_message\":\"\",\"timestamp\":0,\"_a\":\"\u{fffd}\"}",
            ),
            (
                r#"{"timestamp":1e-7,"_n":1e21,"_m":123456789012345678901,"_k":-0.5} trailing"#,
                r#"{"version":"","host":"","short_message":"","timestamp":1e-7,"_k":-0.5,"_m":123456789012345680000,"_n":1e+21}"#,
            ),
        ] {
            assert_eq!(Message::parse(json.as_bytes()).unwrap().unwrap().to_json(), expected);
        }
        assert_eq!(Message::parse(b"null"), Ok(None));
        for (json, error) in [
            (r#"{"host":1}"#, "invalid type for field host"),
            (r#"{"level":"1"}"#, "invalid type for field level"),
            (r#"{"timestamp":null}"#, "invalid type for field timestamp"),
            ("[]", "the message is no JSON object"),
            ("", "the message is empty"),
        ] {
            assert_eq!(Message::parse(json.as_bytes()).unwrap_err().to_string(), error);
        }
        assert!(Message::parse(b"{").is_err());
    }

    #[test]
    fn levels_have_names_and_times_have_nanoseconds() {
        let message = |json: &str| Message::parse(json.as_bytes()).unwrap().unwrap();
        for (level, name) in [("0", "emergency"), ("7", "debug"), ("8", ""), ("-1", ""), ("6.9", "informational")] {
            assert_eq!(message(&format!("{{\"level\":{level}}}")).level_name(), name);
        }
        assert_eq!(message("{\"timestamp\":1.5}").timestamp_ns(), Some(1_500_000_000));
        assert_eq!(message("{}").timestamp_ns(), None);
        assert_eq!(message("{\"timestamp\":1e300}").timestamp_ns(), Some(i64::MAX));
    }

    #[test]
    fn chunks_come_in_any_order_and_more_than_once() {
        let (mut chunks, now) = (Chunks::default(), Instant::now());
        let parts = [chunk(1, 2, 3, b"c"), chunk(1, 0, 3, b"a"), chunk(2, 0, 2, b"x"), chunk(1, 2, 3, b"!")];
        for part in &parts {
            assert_eq!(chunks.take(part, now), Ok(None));
        }
        assert_eq!(chunks.take(&chunk(1, 1, 3, b"b"), now).unwrap().as_deref(), Some(&b"abc"[..]));
        assert_eq!(chunks.pending(), 1);
        // What does not come in time is lost.
        let later = now + CHUNKS_WAIT_MAX;
        assert_eq!(chunks.take(&chunk(2, 1, 2, b"y"), later), Ok(None));
        assert_eq!(chunks.take(&chunk(2, 0, 2, b"x"), later).unwrap().as_deref(), Some(&b"xy"[..]));
        assert_eq!((chunks.pending(), chunks.bytes), (0, 0));
        for bad in [
            chunk(3, 0, 129, b"x"),
            chunk(3, 0, 0, b"x"),
            chunk(3, 2, 2, b"x"),
            chunk(3, 0, 1, b""),
            CHUNK_MAGIC.to_vec(),
        ] {
            assert!(chunks.take(&bad, now).is_err(), "{bad:?}");
        }
        assert_eq!(chunks.take(b"plain", now).unwrap().as_deref(), Some(&b"plain"[..]));
    }

    #[test]
    fn what_waits_for_chunks_is_bounded() {
        let (mut chunks, now) = (Chunks::default(), Instant::now());
        for number in 0..5_000u32 {
            let mut packet = chunk(0, 0, 2, &vec![0; 60_000]);
            packet[2..6].copy_from_slice(&number.to_be_bytes());
            assert_eq!(chunks.take(&packet, now + Duration::from_micros(u64::from(number))), Ok(None));
            assert!(chunks.pending() <= PENDING_MESSAGES_MAX && chunks.bytes <= PENDING_BYTES_MAX);
        }
        // Nor do messages grow together that came when there was room.
        let mut chunks = Chunks::default();
        for number in 0..60u8 {
            for id in 0..100 {
                let packet = chunk(id, number, 128, &vec![0; 60_000]);
                assert_eq!(chunks.take(&packet, now), Ok(None));
                assert!(chunks.bytes <= PENDING_BYTES_MAX);
            }
        }
        let mut outcome = Ok(None);
        for number in 0..100 {
            outcome =
                chunks.take(&chunk(9, number, 128, &vec![0; 65_000]), now).map(|message| message.map(Cow::into_owned));
            if outcome.is_err() {
                break;
            }
        }
        assert_eq!(outcome.unwrap_err().to_string(), "message is longer than 4 MiB");
    }

    #[test]
    fn messages_are_decompressed_up_to_a_limit() {
        let gzip = |bytes: &[u8]| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        let zlib = |bytes: &[u8], level| {
            let mut encoder = ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        assert_eq!(&*decompress(&gzip(b"{}")).unwrap(), b"{}");
        for level in [Compression::none(), Compression::fast(), Compression::best()] {
            assert_eq!(&*decompress(&zlib(b"{}", level)).unwrap(), b"{}");
        }
        assert_eq!(&*decompress(b"x{}").unwrap(), b"x{}");
        assert!(decompress(b"\x78\xbb\0\0\0\0").is_err());
        // A message is whole also where its checksum is not, or where something follows it.
        for compressed in [gzip(b"{}"), zlib(b"{}", Compression::best())] {
            let cut = &compressed[..compressed.len() - 2];
            assert_eq!(&*decompress(cut).unwrap(), b"{}");
            let mut wrong = compressed.clone();
            wrong[compressed.len() - 2] ^= 1;
            assert_eq!(&*decompress(&wrong).unwrap(), b"{}");
            assert_eq!(&*decompress(&[&compressed, &b"junk"[..]].concat()).unwrap(), b"{}");
            assert!(decompress(&compressed[..2]).is_err());
        }
        let bomb = vec![b' '; MESSAGE_BYTES_MAX + 1];
        for bomb in [gzip(&bomb), zlib(&bomb, Compression::best())] {
            assert_eq!(decompress(&bomb).unwrap_err().to_string(), "message is longer than 4 MiB");
        }
    }

    proptest! {
        #[test]
        fn no_packet_makes_it_panic(packets in proptest::collection::vec(any::<Vec<u8>>(), 0..9), chunked: bool, json in "[{}\\[\\]\":,a_0-9.eE+-]{0,40}") {
            let (mut chunks, now) = (Chunks::default(), Instant::now());
            for packet in packets {
                let packet = if chunked { [&CHUNK_MAGIC[..], &packet].concat() } else { packet };
                if let Ok(Some(message)) = chunks.take(&packet, now)
                    && let Ok(message) = decompress(&message)
                {
                    let _ = Message::parse(&message);
                }
            }
            if let Ok(Some(message)) = Message::parse(json.as_bytes()) {
                message.to_json();
            }
        }

        #[test]
        fn what_is_written_is_read_again(host in any::<String>(), short in any::<String>(), time in any::<f64>(), number in any::<f64>()) {
            prop_assume!(time.is_finite() && number.is_finite());
            let mut message = Message { host, short, timestamp_s: time, level: 3, ..Message::default() };
            message.extra.insert("_n".to_owned(), number.into());
            let again = Message::parse(message.to_json().as_bytes()).unwrap().unwrap();
            // Whole numbers are read as such, and are the same.
            prop_assert_eq!(again.extra["_n"].as_f64(), Some(number));
            prop_assert_eq!(Message { extra: message.extra.clone(), ..again }, message);
        }
    }
}
