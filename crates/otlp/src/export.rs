//! What a server answers to an export: that it took all or a part of it, or why not.

use crate::data::Record;
use crate::json;
use crate::proto::{BYTES, Back, Malformed, Reader, VARINT};
use crate::schema::{LOGS_RESPONSE, METRICS_RESPONSE, Message, RPC_STATUS, TRACES_RESPONSE};
use crate::walk;

/// That a part of an export was not taken, in an answer that says that the rest was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartialSuccess {
    /// How many items were not taken.
    pub rejected: i64,
    /// Why, or another thing that the server wants to say.
    pub message: String,
}

fn response(signal: &str) -> &'static Message {
    match signal {
        "traces" => &TRACES_RESPONSE,
        "metrics" => &METRICS_RESPONSE,
        _ => &LOGS_RESPONSE,
    }
}

impl PartialSuccess {
    /// Reads an answer to an export of `R`; `None` where it says nothing.
    ///
    /// # Errors
    ///
    /// The answer is malformed.
    pub fn read<R: Record>(message: &[u8]) -> Result<Option<Self>, Malformed> {
        walk::check(response(R::SIGNAL), message)?;
        let mut found = PartialSuccess::default();
        let mut reader = Reader::new(message, 0, message.len());
        while let Some((number, wire_type)) = reader.field()? {
            if (number, wire_type) != (1, BYTES) {
                reader.skip(wire_type)?;
                continue;
            }
            let mut reader = reader.message()?;
            while let Some((number, wire_type)) = reader.field()? {
                match (number, wire_type) {
                    (1, VARINT) => found.rejected = reader.varint()? as i64,
                    (2, BYTES) => {
                        let (start, end) = reader.bytes()?;
                        found.message = String::from_utf8_lossy(&message[start..end]).into_owned();
                    }
                    _ => reader.skip(wire_type)?,
                }
            }
        }
        Ok(Some(found).filter(|found| *found != PartialSuccess::default()))
    }

    /// Reads an answer in JSON.
    ///
    /// # Errors
    ///
    /// What is wrong with it, with line and column.
    pub fn read_json<R: Record>(json: &[u8]) -> Result<Option<Self>, String> {
        let message = json::read(response(R::SIGNAL), json)?;
        Self::read::<R>(&message).map_err(|malformed| malformed.to_string())
    }
}

/// Why a request was not served: `google.rpc.Status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RpcStatus {
    /// A code of gRPC.
    pub code: i32,
    /// What went wrong.
    pub message: String,
    /// When to try again, in milliseconds, where the server says that.
    pub retry_delay_ms: Option<u64>,
}

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

impl RpcStatus {
    /// Writes it as a message.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Back::with_capacity(0);
        if let Some(delay_ms) = self.retry_delay_ms {
            let mut info = Back::with_capacity(0);
            info.message(1, |out| {
                out.uint(2, delay_ms % 1000 * 1_000_000);
                out.uint(1, delay_ms / 1000);
            });
            let info = info.finish();
            out.message(3, |out| {
                out.bytes(2, &info);
                out.bytes(1, RETRY_INFO.as_bytes());
            });
        }
        out.bytes(2, self.message.as_bytes());
        out.uint(1, i64::from(self.code) as u64);
        out.finish()
    }

    /// Writes it as JSON. Details are left out.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::new();
        json::write(&RPC_STATUS, &RpcStatus { retry_delay_ms: None, ..self.clone() }.encode(), &mut out);
        out
    }

    /// Reads it.
    ///
    /// # Errors
    ///
    /// The message is malformed.
    pub fn read(message: &[u8]) -> Result<Self, Malformed> {
        walk::check(&RPC_STATUS, message)?;
        let text = |(start, end): (usize, usize)| String::from_utf8_lossy(&message[start..end]).into_owned();
        let mut status = RpcStatus::default();
        let mut reader = Reader::new(message, 0, message.len());
        while let Some((number, wire_type)) = reader.field()? {
            match (number, wire_type) {
                (1, VARINT) => status.code = reader.varint()? as i32,
                (2, BYTES) => status.message = text(reader.bytes()?),
                (3, BYTES) => {
                    let (mut kind, mut value) = (String::new(), None);
                    let mut any = reader.message()?;
                    while let Some((number, wire_type)) = any.field()? {
                        match (number, wire_type) {
                            (1, BYTES) => kind = text(any.bytes()?),
                            (2, BYTES) => value = Some(any.message()?),
                            _ => any.skip(wire_type)?,
                        }
                    }
                    if kind == RETRY_INFO {
                        // What somebody wrote into a detail does not make the status illegible, and one without a delay
                        // says that trying again may help, too.
                        let delay = value.and_then(|value| retry_delay_ms(value).ok().flatten());
                        status.retry_delay_ms = Some(delay.unwrap_or_default());
                    }
                }
                _ => reader.skip(wire_type)?,
            }
        }
        Ok(status)
    }

    /// Reads it from JSON.
    ///
    /// # Errors
    ///
    /// What is wrong with it, with line and column.
    pub fn read_json(json: &[u8]) -> Result<Self, String> {
        Self::read(&json::read(&RPC_STATUS, json)?).map_err(|malformed| malformed.to_string())
    }
}

/// Reads `google.rpc.RetryInfo`, which is a duration within a message.
fn retry_delay_ms(mut info: Reader<'_>) -> Result<Option<u64>, Malformed> {
    let mut delay = None;
    while let Some((number, wire_type)) = info.field()? {
        if (number, wire_type) != (1, BYTES) {
            info.skip(wire_type)?;
            continue;
        }
        let (mut seconds, mut nanos) = (0i64, 0i64);
        let mut duration = info.message()?;
        while let Some((number, wire_type)) = duration.field()? {
            match (number, wire_type) {
                (1, VARINT) => seconds = duration.varint()? as i64,
                (2, VARINT) => nanos = duration.varint()? as i64,
                _ => duration.skip(wire_type)?,
            }
        }
        delay = u64::try_from(seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000)).ok();
    }
    Ok(delay)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::logs::LogRecord;
    use crate::traces::Span;

    #[test]
    fn an_answer_that_says_nothing_is_none() {
        assert_eq!(PartialSuccess::read::<Span>(b""), Ok(None));
        assert_eq!(PartialSuccess::read::<Span>(b"\x0a\0"), Ok(None));
        assert_eq!(PartialSuccess::read_json::<Span>(br#"{"partialSuccess":{}}"#), Ok(None));
        let some = Some(PartialSuccess { rejected: 3, message: "no".into() });
        assert_eq!(PartialSuccess::read::<Span>(b"\x0a\x06\x08\x03\x12\x02no"), Ok(some.clone()));
        let json = br#"{"partialSuccess":{"rejectedLogRecords":"3","errorMessage":"no"}}"#;
        assert_eq!(PartialSuccess::read_json::<LogRecord>(json), Ok(some));
    }

    #[test]
    fn a_hint_without_a_delay_is_a_hint() {
        let mut message = vec![0x08, 8, 0x1a, RETRY_INFO.len() as u8 + 2, 0x0a, RETRY_INFO.len() as u8];
        message.extend_from_slice(RETRY_INFO.as_bytes());
        assert_eq!(RpcStatus::read(&message).unwrap().retry_delay_ms, Some(0));
        message[3] += 2;
        message.extend_from_slice(&[0x12, 0]);
        assert_eq!(RpcStatus::read(&message).unwrap().retry_delay_ms, Some(0));
    }

    #[test]
    fn a_status_is_written_in_both_encodings() {
        let status = RpcStatus { code: 14, message: "busy".into(), retry_delay_ms: Some(1500) };
        assert_eq!(RpcStatus::read(&status.encode()), Ok(status.clone()));
        assert_eq!(status.to_json(), br#"{"code":14,"message":"busy"}"#);
        let read = RpcStatus::read_json(&status.to_json());
        assert_eq!(read, Ok(RpcStatus { retry_delay_ms: None, ..status }));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(message: Vec<u8>) {
            let _ = RpcStatus::read(&message);
            let _ = PartialSuccess::read::<Span>(&message);
        }

        #[test]
        fn a_status_is_read_back(code in 0i32..20, message in "\\PC{0,40}", delay in proptest::option::of(0u64..1 << 40)) {
            let status = RpcStatus { code, message, retry_delay_ms: delay };
            prop_assert_eq!(RpcStatus::read(&status.encode()), Ok(status));
        }
    }
}
