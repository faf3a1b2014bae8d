//! Writes messages of protocol buffers: what targets expose that offer native histograms. It shares no code with the
//! program, so that both cannot be wrong in the same way.

/// A message. Numbers of fields are those of `io.prometheus.client`.
#[derive(Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    pub(super) fn new() -> Self {
        Self::default()
    }

    fn base128(out: &mut Vec<u8>, mut value: u64) {
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }

    fn key(&mut self, field: u64, kind: u64) {
        Self::base128(&mut self.0, field << 3 | kind);
    }

    /// A field of an unsigned or positive number.
    pub(super) fn number(mut self, field: u64, value: u64) -> Self {
        self.key(field, 0);
        Self::base128(&mut self.0, value);
        self
    }

    /// A field of type `sint32` or `sint64`.
    pub(super) fn zigzag(self, field: u64, value: i64) -> Self {
        self.number(field, (value << 1 ^ value >> 63) as u64)
    }

    pub(super) fn double(mut self, field: u64, value: f64) -> Self {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(super) fn bytes(mut self, field: u64, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        self.key(field, 2);
        Self::base128(&mut self.0, content.len() as u64);
        self.0.extend(content);
        self
    }

    pub(super) fn message(self, field: u64, content: Message) -> Self {
        self.bytes(field, content.0)
    }

    /// Many of one field.
    pub(super) fn each<T>(self, items: impl IntoIterator<Item = T>, add: impl Fn(Self, T) -> Self) -> Self {
        items.into_iter().fold(self, add)
    }
}

/// The body of a page of metric families, each after its length.
pub(super) fn delimited(families: impl IntoIterator<Item = Message>) -> Vec<u8> {
    let mut out = Vec::new();
    for family in families {
        Message::base128(&mut out, family.0.len() as u64);
        out.extend(family.0);
    }
    out
}

/// The type of such a page.
pub(super) const DELIMITED: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// A pair of a label, in a metric or an exemplar.
pub(super) fn label(name: &str, value: &str) -> Message {
    Message::new().bytes(1, name).bytes(2, value)
}

/// An exemplar of one label at a time in milliseconds.
pub(super) fn exemplar(name: &str, of: &str, value: f64, time: u64) -> Message {
    let time = Message::new().number(1, time / 1000).number(2, time % 1000 * 1_000_000);
    Message::new().message(1, label(name, of)).double(2, value).message(3, time)
}

/// Spans of buckets: how far each is from the end of the one before, and how long it is.
pub(super) fn spans(message: Message, field: u64, spans: &[(i64, u64)]) -> Message {
    message.each(spans, |message, (offset, length)| {
        message.message(field, Message::new().zigzag(1, *offset).number(2, *length))
    })
}
