//! Batches: messages as they were received, or what was made of them.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use corten_signal::Acks;

use crate::context::RequestContext;
use crate::data::{Data, Record};
use crate::json;
use crate::proto::Malformed;
use crate::walk::{self, Cut};

/// A part of a batch: a message, its content, or both. Each is made of the other when somebody asks for it.
pub(crate) struct Part<R> {
    items: usize,
    message: OnceLock<Bytes>,
    data: OnceLock<Arc<Data<R>>>,
}

impl<R: Record> Part<R> {
    pub(crate) fn message(&self) -> &Bytes {
        // One of the two is always there.
        self.message.get_or_init(|| self.data.get().map(|data| Bytes::from(data.encode())).unwrap_or_default())
    }

    pub(crate) fn data(&self) -> &Arc<Data<R>> {
        // The message was looked at when it was received, so that it can be read.
        self.data.get_or_init(|| {
            let read = self.message.get().map(Data::read);
            Arc::new(read.and_then(Result::ok).unwrap_or_default())
        })
    }

    pub(crate) fn of_message(message: Bytes, items: usize) -> Arc<Self> {
        Arc::new(Part { items, message: OnceLock::from(message), data: OnceLock::new() })
    }

    fn of_data(data: Data<R>) -> Arc<Self> {
        let items = data.items();
        Arc::new(Part { items, message: OnceLock::new(), data: OnceLock::from(Arc::new(data)) })
    }

    /// The message, where there is one already.
    pub(crate) fn message_if_there(&self) -> Option<&Bytes> {
        self.message.get()
    }

    /// The content, where there is any already.
    pub(crate) fn data_if_there(&self) -> Option<&Data<R>> {
        self.data.get().map(|data| &**data)
    }

    fn held_bytes(&self) -> usize {
        let message = self.message.get().map_or(0, Bytes::len);
        // Decoded records refer to the message that they were read from.
        self.data.get().map_or(message, |data| data.held_bytes().max(message))
    }
}

/// What became of a part of a batch that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// It is as it was.
    Same,
    /// Some records are gone, and with them the scopes and resources that have none. These are the numbers that the records
    /// had, from 0 on and in order.
    Without(Vec<usize>),
    /// Anything may be different.
    Changed,
}

/// Telemetry of one signal, of one request or of several that were joined. A copy shares the content.
pub struct Batch<R> {
    parts: Vec<Arc<Part<R>>>,
    items: usize,
    /// The request that it came with.
    pub context: Arc<RequestContext>,
    /// To be passed on with what is made of it. Dropping it means that telemetry was lost.
    pub acks: Acks,
}

impl<R> Clone for Batch<R> {
    fn clone(&self) -> Self {
        Batch {
            parts: self.parts.clone(),
            items: self.items,
            context: Arc::clone(&self.context),
            acks: self.acks.clone(),
        }
    }
}

impl<R> Default for Batch<R> {
    fn default() -> Self {
        Batch { parts: Vec::new(), items: 0, context: Arc::default(), acks: Acks::NONE }
    }
}

impl<R: Record> fmt::Debug for Batch<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} items of {} in {} parts", self.items, R::SIGNAL, self.parts.len())
    }
}

impl<R: Record> Batch<R> {
    /// A batch of nothing, to be joined with others.
    pub fn empty(context: Arc<RequestContext>) -> Self {
        Batch { context, ..Batch::default() }
    }

    /// A message as it was received: `ExportTraceServiceRequest`, `ExportMetricsServiceRequest` or
    /// `ExportLogsServiceRequest`.
    ///
    /// # Errors
    ///
    /// The message is malformed, at whatever depth.
    pub fn received(message: Bytes, context: Arc<RequestContext>) -> Result<Self, Malformed> {
        let items = walk::check(R::SCHEMA.0, &message)?;
        let parts = if message.is_empty() { Vec::new() } else { vec![Part::of_message(message, items)] };
        Ok(Batch { parts, items, context, acks: Acks::NONE })
    }

    /// The same message in JSON.
    ///
    /// # Errors
    ///
    /// What is wrong with it, with line and column.
    pub fn received_json(json: &[u8], context: Arc<RequestContext>) -> Result<Self, String> {
        let message = json::read(R::SCHEMA.0, json)?;
        Self::received(message.into(), context).map_err(|malformed| malformed.to_string())
    }

    /// What a component made.
    pub fn of(data: Data<R>, context: Arc<RequestContext>) -> Self {
        let part = Part::of_data(data);
        Batch { items: part.items, parts: vec![part], context, acks: Acks::NONE }
    }

    /// As a batch of what was made of this one.
    #[must_use]
    pub fn with(self, parts: impl IntoIterator<Item = Data<R>>) -> Self {
        let parts: Vec<_> = parts.into_iter().filter(|data| !data.resources.is_empty()).map(Part::of_data).collect();
        Batch { items: parts.iter().map(|part| part.items).sum(), parts, ..self }
    }

    /// How many spans, data points or log records there are.
    pub fn items(&self) -> usize {
        self.items
    }

    /// Whether there is nothing at all, not even a resource.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// How much memory it keeps, in bytes, about.
    pub fn held_bytes(&self) -> usize {
        self.parts.iter().map(|part| part.held_bytes()).sum()
    }

    /// How long the message is, in bytes; where nobody has asked for that yet, how much memory the content keeps.
    pub fn weight(&self) -> usize {
        self.parts.iter().map(|part| part.message.get().map_or_else(|| part.held_bytes(), Bytes::len)).sum()
    }

    /// The message, in pieces that follow each other.
    pub fn message(&self) -> impl ExactSizeIterator<Item = &Bytes> {
        self.parts.iter().map(|part| part.message())
    }

    /// How long the message is, in bytes.
    pub fn message_len(&self) -> usize {
        self.message().map(Bytes::len).sum()
    }

    /// The message in JSON.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match &*self.parts {
            [part] => json::write(R::SCHEMA.0, part.message(), &mut out),
            _ => {
                // What is repeated follows itself, so that the pieces together are the message.
                let mut message = Vec::with_capacity(self.message_len());
                self.message().for_each(|piece| message.extend_from_slice(piece));
                json::write(R::SCHEMA.0, &message, &mut out);
            }
        }
        out
    }

    /// The content, in pieces that follow each other.
    pub fn data(&self) -> impl ExactSizeIterator<Item = &Arc<Data<R>>> {
        self.parts.iter().map(|part| part.data())
    }

    /// The content, to be changed: copied where others have it, too.
    pub fn take_data(&mut self) -> Vec<Data<R>> {
        let parts = std::mem::take(&mut self.parts);
        self.items = 0;
        let own = |part: Arc<Part<R>>| {
            part.data();
            match Arc::try_unwrap(part) {
                Ok(mut part) => part.data.take().map(Arc::unwrap_or_clone).unwrap_or_default(),
                Err(part) => Data::clone(part.data()),
            }
        };
        parts.into_iter().map(own).collect()
    }

    /// Looks at the content, part by part, and changes it: copied where others have it, too. Parts that stay as they are
    /// stay the messages that they were, and those from which records are dropped are cut.
    ///
    /// # Errors
    ///
    /// The first one. The batch is not whole then.
    pub fn edit<E>(&mut self, mut edit: impl FnMut(&mut Data<R>) -> Result<Edit, E>) -> Result<(), E> {
        let parts = std::mem::take(&mut self.parts);
        self.items = 0;
        for mut part in parts {
            part.data();
            let own = Arc::get_mut(&mut part).and_then(|own| own.data.take());
            let mut data = own.map_or_else(|| Data::clone(part.data()), Arc::unwrap_or_clone);
            let part = match edit(&mut data)? {
                Edit::Same => {
                    if let Some(own) = Arc::get_mut(&mut part) {
                        own.data = OnceLock::from(Arc::new(data));
                    }
                    part
                }
                Edit::Without(dropped) => {
                    let cut = part.message.get().map(|message| Bytes::from(walk::without(message, &dropped)));
                    let message = cut.map_or_else(OnceLock::new, OnceLock::from);
                    Arc::new(Part { items: data.items(), message, data: OnceLock::from(Arc::new(data)) })
                }
                Edit::Changed => Part::of_data(data),
            };
            if part.data().resources.is_empty() {
                continue;
            }
            self.items += part.items;
            self.parts.push(part);
        }
        Ok(())
    }

    pub(crate) fn parts(&self) -> &[Arc<Part<R>>] {
        &self.parts
    }

    pub(crate) fn push(&mut self, part: Arc<Part<R>>) {
        self.items += part.items;
        self.parts.push(part);
    }

    /// Adds another batch behind this one, whose context stays.
    pub fn join(&mut self, other: Batch<R>) {
        self.parts.extend(other.parts);
        self.items += other.items;
        self.acks.join(other.acks);
    }

    /// Takes so many items from the front; all, if there are no more. Both parts are shares of what they came from.
    #[must_use]
    pub fn take_front(&mut self, items: usize) -> Self {
        let mut front = Batch { parts: Vec::new(), items: 0, context: Arc::clone(&self.context), acks: Acks::NONE };
        if items >= self.items {
            std::mem::swap(&mut front.parts, &mut self.parts);
            std::mem::swap(&mut front.items, &mut self.items);
            std::mem::swap(&mut front.acks, &mut self.acks);
            return front;
        }
        front.acks = self.acks.clone();
        let mut whole = 0;
        while let Some(part) = self.parts.get(whole)
            && front.items + part.items <= items
        {
            front.items += part.items;
            whole += 1;
        }
        front.parts.extend(self.parts.drain(..whole));
        if front.items < items
            && let Some(part) = self.parts.first_mut()
        {
            let wanted = items - front.items;
            let Cut { front: before, rest } = walk::cut(R::SCHEMA.0, part.message(), wanted);
            front.parts.push(Part::of_message(before.into(), wanted));
            front.items += wanted;
            *part = Part::of_message(rest.into(), part.items - wanted);
        }
        self.items -= front.items;
        front
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Mutex;

    use corten_signal::acks::{Settle, Settled};
    use proptest::prelude::*;

    use super::*;
    use crate::arena::{Map, Text, Value};
    use crate::data::{OfResource, OfScope};
    use crate::logs::LogRecord;
    use crate::metrics::{
        Buckets, Exemplar, ExponentialPoint, HistogramPoint, Metric, Number, NumberPoint, Points, SummaryPoint,
    };
    use crate::traces::{Event, Link, Span, Status};

    pub(crate) fn data<R: Record>(make: impl Fn(&mut crate::Arena, usize) -> R, sizes: &[Vec<usize>]) -> Data<R> {
        let mut data = Data::<R>::default();
        let mut number = 0;
        for scopes in sizes {
            let mut of = OfResource::default();
            let value = data.arena.own_str("a service");
            data.arena.put(&mut of.resource.attributes, b"service.name", value);
            of.schema_url = data.arena.own(b"https://example.com/1");
            for records in scopes {
                let mut scope = OfScope::default();
                scope.scope.name = data.arena.own(b"a library");
                scope.scope.version = data.arena.own(b"1.0");
                for _ in 0..*records {
                    number += 1;
                    scope.records.push(make(&mut data.arena, number));
                }
                of.scopes.push(scope);
            }
            data.resources.push(of);
        }
        data
    }

    fn attributes(arena: &mut crate::Arena, number: usize) -> Map {
        let mut inner = Map::default();
        let text = arena.own_str("\u{e9}\0");
        arena.put(&mut inner, b"x", text);
        let list = arena.list(&[Value::Int(1), Value::Empty, Value::Map(inner), Value::List(Default::default())]);
        let bytes = Value::Bytes(arena.own(b"\xff"));
        let mut map = Map::default();
        arena.put(&mut map, b"number", Value::Int(number as i64));
        arena.put(&mut map, b"list", Value::List(list));
        arena.put(&mut map, b"bytes", bytes);
        arena.put(&mut map, b"map", Value::Map(inner));
        arena.put(&mut map, b"double", Value::Double(-0.0));
        arena.put(&mut map, b"bool", Value::Bool(false));
        map
    }

    pub(crate) fn span(arena: &mut crate::Arena, number: usize) -> Span {
        let event =
            Event { time_ns: 5, name: arena.own(b"event"), attributes: attributes(arena, 1), dropped_attributes: 2 };
        let link = Link {
            trace_id: [3; 16],
            span_id: [4; 8],
            trace_state: arena.own(b"a=b"),
            attributes: attributes(arena, 2),
            dropped_attributes: 3,
            flags: 4,
        };
        Span {
            trace_id: [1; 16],
            span_id: [2; 8],
            parent_span_id: [9; 8],
            trace_state: arena.own(b"c=d"),
            name: arena.own(b"GET /"),
            kind: 2,
            start_time_ns: number as u64,
            end_time_ns: u64::MAX,
            attributes: attributes(arena, number),
            dropped_attributes: 1,
            events: vec![event, Event::default()],
            dropped_events: 2,
            links: vec![link],
            dropped_links: 3,
            status: Status { code: 2, message: arena.own(b"broken") },
            flags: 0x101,
        }
    }

    pub(crate) fn record(arena: &mut crate::Arena, number: usize) -> LogRecord {
        LogRecord {
            time_ns: number as u64,
            observed_time_ns: 2,
            severity: 9,
            severity_text: arena.own(b"Info"),
            body: Value::Map(attributes(arena, number)),
            attributes: attributes(arena, number),
            dropped_attributes: 1,
            flags: 1,
            trace_id: [1; 16],
            span_id: [2; 8],
            event_name: arena.own(b"event"),
        }
    }

    pub(crate) fn metric(arena: &mut crate::Arena, number: usize) -> Metric {
        let exemplar = |arena: &mut crate::Arena| Exemplar {
            filtered_attributes: attributes(arena, 1),
            time_ns: 4,
            value: Number::Int(-1),
            span_id: [1; 8],
            trace_id: [2; 16],
        };
        let time_ns = number as u64;
        let points = match number % 5 {
            0 => Points::Gauge(vec![NumberPoint {
                attributes: attributes(arena, number),
                time_ns,
                value: Number::Double(0.0),
                ..NumberPoint::default()
            }]),
            1 => Points::Sum {
                points: vec![NumberPoint {
                    attributes: attributes(arena, number),
                    start_time_ns: 1,
                    time_ns,
                    value: Number::Int(0),
                    exemplars: vec![exemplar(arena), exemplar(arena)],
                    flags: 1,
                }],
                temporality: 2,
                monotonic: true,
            },
            2 => Points::Histogram {
                points: vec![HistogramPoint {
                    attributes: attributes(arena, number),
                    start_time_ns: 1,
                    time_ns,
                    count: 3,
                    sum: Some(0.0),
                    bucket_counts: vec![1, 2],
                    explicit_bounds: vec![0.5],
                    exemplars: vec![exemplar(arena)],
                    flags: 0,
                    min: Some(-1.0),
                    max: None,
                }],
                temporality: 1,
            },
            3 => Points::Exponential {
                points: vec![ExponentialPoint {
                    attributes: attributes(arena, number),
                    start_time_ns: 1,
                    time_ns,
                    count: 3,
                    sum: None,
                    scale: -4,
                    zero_count: 1,
                    positive: Buckets { offset: -7, counts: vec![0, 300, u64::MAX] },
                    negative: Buckets::default(),
                    flags: 0,
                    exemplars: vec![exemplar(arena)],
                    min: None,
                    max: Some(2.0),
                    zero_threshold: 0.25,
                }],
                temporality: 1,
            },
            _ => Points::Summary(vec![SummaryPoint {
                attributes: attributes(arena, number),
                start_time_ns: 1,
                time_ns,
                count: 3,
                sum: 1.5,
                quantiles: vec![(0.0, 1.0), (0.5, 0.0)],
                flags: 0,
            }]),
        };
        Metric {
            name: arena.own(b"requests"),
            description: arena.own(b"what was asked"),
            unit: arena.own(b"1"),
            metadata: attributes(arena, 3),
            points,
        }
    }

    /// What is written, read and written again is the same, in either encoding, and so is a copy in another arena.
    fn goes_round<R: Record>(made: Data<R>) {
        let message = Bytes::from(made.encode());
        let received = Batch::<R>::received(message.clone(), Arc::default()).unwrap();
        assert_eq!(received.items(), made.items());
        let mut other = received.clone();
        let read = other.take_data().remove(0);
        assert_eq!(read.encode(), message);
        let json = received.to_json();
        let mut from_json = Batch::<R>::received_json(&json, Arc::default()).unwrap();
        assert_eq!(from_json.to_json(), json);
        assert_eq!(from_json.take_data()[0].encode(), message);
        let mut carried = Data::<R>::default();
        for of in &read.resources {
            carried.resources.push(OfResource {
                resource: of.resource.carried(&read.arena, &mut carried.arena),
                schema_url: carried.arena.carry_text(&read.arena, of.schema_url),
                scopes: Vec::new(),
            });
            for scope in &of.scopes {
                let scope = OfScope {
                    scope: scope.scope.carried(&read.arena, &mut carried.arena),
                    schema_url: carried.arena.carry_text(&read.arena, scope.schema_url),
                    records: scope.records.iter().map(|r| r.carried(&read.arena, &mut carried.arena)).collect(),
                };
                carried.resources.last_mut().unwrap().scopes.push(scope);
            }
        }
        assert_eq!(carried.encode(), message);
    }

    #[test]
    fn all_that_a_record_says_survives_decoding() {
        let sizes = [vec![3, 0, 2], vec![], vec![7]];
        goes_round(data(span, &sizes));
        goes_round(data(record, &sizes));
        goes_round(data(metric, &sizes));
    }

    #[test]
    fn attributes_between_other_fields_stay_together() {
        // Attribute, body with parts, attribute with parts, attribute: an order that no library writes.
        let text = |text: &str| [&[0x0a, text.len() as u8], text.as_bytes()].concat();
        let field = |number: u8, inner: &[u8]| [&[number << 3 | 2, inner.len() as u8], inner].concat();
        let pair = |key: &str, value: &[u8]| [text(key), field(2, value)].concat();
        let list = field(5, &field(1, &text("x")));
        let map = field(6, &field(1, &pair("k", &text("v"))));
        let log =
            [field(6, &pair("a", &text("1"))), field(5, &map), field(6, &pair("b", &list)), field(6, &pair("c", &map))];
        let message = field(1, &field(2, &field(2, &log.concat())));
        let batch = Batch::<LogRecord>::received(message.into(), Arc::default()).unwrap();
        let data = batch.data().next().unwrap();
        let record = &data.resources[0].scopes[0].records[0];
        assert_eq!(data.arena.to_text(Value::Map(record.attributes)), r#"{"a":"1","b":["x"],"c":{"k":"v"}}"#);
        assert_eq!(data.arena.to_text(record.body), r#"{"k":"v"}"#);
    }

    #[test]
    fn weighing_a_batch_makes_neither_messages_nor_content() {
        let message = Bytes::from(data(record, &[vec![2]]).encode());
        let mut batch = Batch::<LogRecord>::received(message.clone(), Arc::default()).unwrap();
        let made = Batch::of(data(record, &[vec![1]]), Arc::default());
        let held = made.held_bytes();
        assert!(held > 0);
        batch.join(made);
        assert_eq!(batch.weight(), message.len() + held);
        assert!(batch.parts()[0].data_if_there().is_none() && batch.parts()[1].message_if_there().is_none());
        let encoded = batch.message_len();
        assert_eq!(batch.weight(), encoded);
    }

    #[test]
    fn a_change_leaves_the_copies_of_others_alone() {
        let batch = Batch::of(data(record, &[vec![1]]), Arc::default());
        let mut own = batch.clone();
        let mut parts = own.take_data();
        let Data { arena, resources } = &mut parts[0];
        let record = &mut resources[0].scopes[0].records[0];
        arena.put(&mut record.attributes, b"new", Value::Bool(true));
        let changed = own.with(parts);
        assert!(changed.to_json().windows(5).any(|bytes| bytes == b"\"new\""));
        assert!(!batch.to_json().windows(5).any(|bytes| bytes == b"\"new\""));
    }

    #[test]
    fn an_edited_batch_says_what_its_content_says() {
        let json = |batch: &Batch<LogRecord>| String::from_utf8(batch.to_json()).unwrap();
        let received = || Bytes::from(data(record, &[vec![2, 1], vec![1]]).encode());
        for shared in [false, true] {
            let mut batch = Batch::<LogRecord>::received(received(), Arc::default()).unwrap();
            batch.join(Batch::received(received(), Arc::default()).unwrap());
            let before = json(&batch);
            let copy = shared.then(|| batch.clone());
            let pointers = |batch: &Batch<LogRecord>| batch.message().map(|piece| piece.as_ptr()).collect::<Vec<_>>();
            let was = pointers(&batch);
            batch.edit(|_| Ok::<_, ()>(Edit::Same)).unwrap();
            assert_eq!((pointers(&batch), batch.items()), (was, 8));

            // The first part loses a scope, the second one all of its records.
            let mut parts = 0;
            let edited = batch.edit(|data| {
                parts += 1;
                if parts == 2 {
                    data.resources.clear();
                    return Ok::<_, ()>(Edit::Without(vec![0, 1, 2, 3]));
                }
                data.resources[0].scopes[0].records.remove(0);
                data.resources[0].scopes[1].records.clear();
                data.prune();
                Ok(Edit::Without(vec![0, 2]))
            });
            edited.unwrap();
            assert_eq!((batch.items(), batch.data().len(), batch.message().len()), (2, 1, 1));
            let content = Bytes::from(batch.data().next().unwrap().encode());
            assert_eq!(json(&batch), json(&Batch::received(content, Arc::default()).unwrap()));

            batch
                .edit(|data| {
                    data.resources[1].schema_url = Text::EMPTY;
                    Ok::<_, ()>(Edit::Changed)
                })
                .unwrap();
            assert_eq!(json(&batch).matches("schemaUrl").count(), 1);
            assert!(copy.is_none_or(|copy| json(&copy) == before));
        }
    }

    #[test]
    fn what_is_joined_is_safe_when_all_of_it_is() {
        let (mut one, mut two) =
            (Batch::of(data(record, &[vec![2]]), Arc::default()), Batch::of(data(record, &[vec![3]]), Arc::default()));
        let notes = Arc::new(Notes::default());
        one.acks = Acks::new(1, notes.clone());
        two.acks = Acks::new(2, notes.clone());
        one.join(two);
        let front = one.take_front(3);
        assert_eq!((front.items(), one.items()), (3, 2));
        front.acks.safe();
        assert_eq!(*notes.0.lock().unwrap(), []);
        one.acks.safe();
        assert_eq!(*notes.0.lock().unwrap(), [(1, Settled::Safe), (2, Settled::Safe)]);
    }

    #[derive(Default)]
    struct Notes(Mutex<Vec<(u64, Settled)>>);

    impl Settle for Notes {
        fn settled(&self, serial: u64, how: Settled) {
            self.0.lock().unwrap().push((serial, how));
        }
    }

    proptest! {
        #[test]
        fn a_batch_comes_apart_into_pieces_of_the_wanted_size(
            sizes in proptest::collection::vec(proptest::collection::vec(proptest::collection::vec(0usize..4, 0..4), 1..3), 1..4), piece in 1usize..9,
            decoded: bool,
        ) {
            let mut whole = Batch::<Metric>::default();
            for sizes in &sizes {
                let part = data(metric, sizes);
                let part = if decoded { Batch::of(part, Arc::default()) } else { Batch::received(part.encode().into(), Arc::default()).unwrap() };
                whole.join(part);
            }
            let items = whole.items();
            let mut times = Vec::new();
            let mut taken = 0;
            while whole.items() > 0 {
                let front = whole.take_front(piece);
                prop_assert_eq!(front.items(), piece.min(items - taken));
                prop_assert_eq!(front.message().map(|m| walk::check(&crate::schema::METRICS, m).unwrap()).sum::<usize>(), front.items());
                taken += front.items();
                for data in front.data() {
                    for (_, of) in data.scopes() {
                        times.extend(of.records.iter().map(|metric| match &metric.points {
                            Points::Gauge(points) | Points::Sum { points, .. } => points[0].time_ns,
                            Points::Histogram { points, .. } => points[0].time_ns,
                            Points::Exponential { points, .. } => points[0].time_ns,
                            Points::Summary(points) => points[0].time_ns,
                            Points::None => 0,
                        }));
                    }
                }
            }
            let want: Vec<u64> = sizes.iter().flat_map(|sizes| 1..=sizes.iter().flatten().sum::<usize>() as u64).collect();
            prop_assert_eq!(times, want);
        }

        #[test]
        fn what_is_received_can_be_decoded(bytes: Vec<u8>) {
            if let Ok(batch) = Batch::<Span>::received(bytes.into(), Arc::default()) {
                prop_assert_eq!(batch.data().map(|data| data.items()).sum::<usize>(), batch.items());
            }
        }
    }
}
