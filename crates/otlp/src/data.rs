//! Decoded telemetry: what was recorded, by the scopes of resources.

use bytes::Bytes;

use crate::arena::{Arena, Later, Map, Text};
use crate::proto::{BYTES, Back, Malformed, Reader, VARINT};
use crate::schema::Message;

/// What is recorded: a span, a metric or a log record.
pub trait Record: Sized + Clone + Send + Sync + std::fmt::Debug + 'static {
    /// The signal's name, in lower case.
    const SIGNAL: &'static str;
    #[doc(hidden)]
    const SCHEMA: Schema;

    /// How many items it is: one, but for a metric, whose items are its points.
    fn items(&self) -> usize;

    #[doc(hidden)]
    fn read(from: &mut Source<'_>, message: (usize, usize)) -> Result<Self, Malformed>;

    #[doc(hidden)]
    fn write(&self, arena: &Arena, out: &mut Output<'_>);

    /// Brings a record into another arena.
    #[must_use]
    fn carried(&self, from: &Arena, to: &mut Arena) -> Self;
}

/// The type of the messages that a signal is exported in.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Schema(pub(crate) &'static Message);

/// Where a message lies in the buffer that was received.
pub(crate) type Range = (usize, usize);

/// What records are read from.
#[doc(hidden)]
pub struct Source<'a> {
    received: &'a [u8],
    pub(crate) arena: &'a mut Arena,
    pub(crate) later: Later,
    /// Messages within the one that is being read, for after its attributes.
    pub(crate) inner: Vec<(u32, Range)>,
}

/// What records are written to.
#[doc(hidden)]
pub struct Output<'a>(pub(crate) &'a mut Back);

impl<'a> Source<'a> {
    pub(crate) fn reader(&self, (start, end): Range) -> Reader<'a> {
        Reader::new(self.received, start, end)
    }
}

/// What telemetry is about: a process, a host, a service.
#[derive(Clone, Debug, Default)]
pub struct Resource {
    /// What is known of it.
    pub attributes: Map,
    /// How many attributes its sender dropped.
    pub dropped_attributes: u32,
    /// Messages `EntityRef`, as they were received.
    pub entities: Vec<Text>,
}

/// The part of a program that recorded something, usually a library.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scope {
    /// Its name.
    pub name: Text,
    /// Its version.
    pub version: Text,
    /// What else is known of it.
    pub attributes: Map,
    /// How many attributes its sender dropped.
    pub dropped_attributes: u32,
}

/// What a resource recorded.
#[derive(Clone, Debug)]
pub struct OfResource<R> {
    /// The resource.
    pub resource: Resource,
    /// The schema of the resource's attributes.
    pub schema_url: Text,
    /// What it recorded, by scopes.
    pub scopes: Vec<OfScope<R>>,
}

/// What a scope recorded.
#[derive(Clone, Debug)]
pub struct OfScope<R> {
    /// The scope.
    pub scope: Scope,
    /// The schema of the records' attributes.
    pub schema_url: Text,
    /// What it recorded.
    pub records: Vec<R>,
}

impl<R> Default for OfResource<R> {
    fn default() -> Self {
        OfResource { resource: Resource::default(), schema_url: Text::EMPTY, scopes: Vec::new() }
    }
}

impl<R> Default for OfScope<R> {
    fn default() -> Self {
        OfScope { scope: Scope::default(), schema_url: Text::EMPTY, records: Vec::new() }
    }
}

/// Decoded telemetry of one signal.
#[derive(Clone, Debug)]
pub struct Data<R> {
    /// What the records refer to.
    pub arena: Arena,
    /// The records, by resources.
    pub resources: Vec<OfResource<R>>,
}

impl<R> Default for Data<R> {
    fn default() -> Self {
        Data { arena: Arena::default(), resources: Vec::new() }
    }
}

impl<R: Record> Data<R> {
    /// Reads a message, such as `ExportLogsServiceRequest`.
    ///
    /// # Errors
    ///
    /// What is wrong with it, as far as reading it shows that. [`crate::Batch::received`] looks at everything.
    pub(crate) fn read(bytes: &Bytes) -> Result<Self, Malformed> {
        let mut arena = Arena::of(bytes.clone());
        let mut source = Source { received: bytes, arena: &mut arena, later: Later::default(), inner: Vec::new() };
        let mut resources = Vec::new();
        let mut reader = source.reader((0, bytes.len()));
        while let Some((number, wire_type)) = reader.field()? {
            match (number, wire_type) {
                (1, BYTES) => resources.push(OfResource::read(&mut source, reader.bytes()?)?),
                _ => reader.skip(wire_type)?,
            }
        }
        Ok(Data { arena, resources })
    }

    /// Reads a message record by record, until one is not wanted any more. `take` is shown where each of them stands, and what
    /// it stands in; what it reads is forgotten before the next one.
    pub(crate) fn each(bytes: &Bytes, take: &mut Take<'_, R>) -> Result<(), Malformed> {
        let mut arena = Arena::of(bytes.clone());
        let mut source = Source { received: bytes, arena: &mut arena, later: Later::default(), inner: Vec::new() };
        let mut reader = source.reader((0, bytes.len()));
        while let Some((number, wire_type)) = reader.field()? {
            match (number, wire_type) {
                (1, BYTES) => {
                    let mark = source.arena.mark();
                    if !OfResource::each(&mut source, reader.bytes()?, take)? {
                        return Ok(());
                    }
                    source.arena.forget_since(mark);
                }
                _ => reader.skip(wire_type)?,
            }
        }
        Ok(())
    }

    /// Writes the message.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Back::with_capacity(self.arena.held_bytes().min(1 << 20));
        for of in self.resources.iter().rev() {
            out.message(1, |out| of.write(&self.arena, out));
        }
        out.finish()
    }

    /// How many items there are.
    pub fn items(&self) -> usize {
        self.scopes().flat_map(|(_, of)| &of.records).map(Record::items).sum()
    }

    /// The scopes with their resources, in order.
    pub fn scopes(&self) -> impl Iterator<Item = (&OfResource<R>, &OfScope<R>)> {
        self.resources.iter().flat_map(|of| of.scopes.iter().map(move |scope| (of, scope)))
    }

    /// Drops the scopes without records and the resources without scopes.
    pub fn prune(&mut self) {
        self.resources.retain_mut(|of| {
            of.scopes.retain(|scope| !scope.records.is_empty());
            !of.scopes.is_empty()
        });
    }

    /// How much memory it keeps, in bytes, about.
    pub fn held_bytes(&self) -> usize {
        let records = self.scopes().map(|(_, of)| of.records.capacity() * size_of::<R>());
        self.arena.held_bytes() + records.sum::<usize>()
    }
}

/// Is shown a record where it stands, and what it stands in. Whether more are wanted.
pub(crate) type Take<'t, R> =
    dyn FnMut(&mut Source<'_>, &OfResource<R>, &OfScope<R>, Range) -> Result<bool, Malformed> + 't;

impl<R: Record> OfResource<R> {
    /// Shows the records in a message. What is said of all of them may stand behind them.
    fn each(source: &mut Source<'_>, message: Range, take: &mut Take<'_, R>) -> Result<bool, Malformed> {
        let mut of = OfResource::default();
        let mut reader = source.reader(message);
        while let Some((number, wire_type)) = reader.field()? {
            match (number, wire_type) {
                (1, BYTES) => of.resource = Resource::read(source, reader.bytes()?)?,
                (3, BYTES) => of.schema_url = source.text(reader.bytes()?),
                _ => reader.skip(wire_type)?,
            }
        }
        let mut reader = source.reader(message);
        while let Some((number, wire_type)) = reader.field()? {
            match (number, wire_type) {
                (2 | 1000, BYTES) => {
                    let mark = source.arena.mark();
                    if !OfScope::each(source, &of, reader.bytes()?, take)? {
                        return Ok(false);
                    }
                    source.arena.forget_since(mark);
                }
                _ => reader.skip(wire_type)?,
            }
        }
        Ok(true)
    }

    fn read(source: &mut Source<'_>, message: Range) -> Result<Self, Malformed> {
        let mut of = OfResource::default();
        let mut reader = source.reader(message);
        while let Some((number, wire_type)) = reader.field()? {
            match (number, wire_type) {
                (1, BYTES) => of.resource = Resource::read(source, reader.bytes()?)?,
                (2 | 1000, BYTES) => of.scopes.push(OfScope::read(source, reader.bytes()?)?),
                (3, BYTES) => of.schema_url = source.text(reader.bytes()?),
                _ => reader.skip(wire_type)?,
            }
        }
        Ok(of)
    }

    fn write(&self, arena: &Arena, out: &mut Back) {
        out.bytes(3, arena.bytes(self.schema_url));
        for of in self.scopes.iter().rev() {
            out.message(2, |out| of.write(arena, out));
        }
        out.message(1, |out| self.resource.write(arena, out));
    }
}

impl<R: Record> OfScope<R> {
    fn each(
        source: &mut Source<'_>,
        of: &OfResource<R>,
        message: Range,
        take: &mut Take<'_, R>,
    ) -> Result<bool, Malformed> {
        let mut scope = OfScope::default();
        let mut reader = source.reader(message);
        while let Some((number, wire_type)) = reader.field()? {
            match (number, wire_type) {
                (1, BYTES) => scope.scope = Scope::read(source, reader.bytes()?)?,
                (3, BYTES) => scope.schema_url = source.text(reader.bytes()?),
                _ => reader.skip(wire_type)?,
            }
        }
        let mut reader = source.reader(message);
        while let Some((number, wire_type)) = reader.field()? {
            match (number, wire_type) {
                (2, BYTES) => {
                    let mark = source.arena.mark();
                    if !take(source, of, &scope, reader.bytes()?)? {
                        return Ok(false);
                    }
                    source.arena.forget_since(mark);
                }
                _ => reader.skip(wire_type)?,
            }
        }
        Ok(true)
    }

    fn read(source: &mut Source<'_>, message: Range) -> Result<Self, Malformed> {
        let mut of = OfScope::default();
        let mut reader = source.reader(message);
        while let Some((number, wire_type)) = reader.field()? {
            match (number, wire_type) {
                (1, BYTES) => of.scope = Scope::read(source, reader.bytes()?)?,
                (2, BYTES) => of.records.push(R::read(source, reader.bytes()?)?),
                (3, BYTES) => of.schema_url = source.text(reader.bytes()?),
                _ => reader.skip(wire_type)?,
            }
        }
        Ok(of)
    }

    fn write(&self, arena: &Arena, out: &mut Back) {
        out.bytes(3, arena.bytes(self.schema_url));
        for record in self.records.iter().rev() {
            out.message(2, |out| record.write(arena, &mut Output(out)));
        }
        out.message(1, |out| self.scope.write(arena, out));
    }

    /// The scope without its records.
    #[must_use]
    pub fn without_records(&self) -> Self {
        OfScope { scope: self.scope, schema_url: self.schema_url, records: Vec::new() }
    }
}

impl Resource {
    /// The resource as a message.
    pub(crate) fn encode(&self, arena: &Arena) -> Vec<u8> {
        encoded(|out| self.write(arena, out))
    }
}

impl Scope {
    /// The scope as a message.
    pub(crate) fn encode(&self, arena: &Arena) -> Vec<u8> {
        encoded(|out| self.write(arena, out))
    }
}

/// The record as a message.
pub(crate) fn encode_record<R: Record>(record: &R, arena: &Arena) -> Vec<u8> {
    encoded(|out| record.write(arena, &mut Output(out)))
}

fn encoded(write: impl FnOnce(&mut Back)) -> Vec<u8> {
    let mut out = Back::with_capacity(1 << 9);
    write(&mut out);
    out.finish()
}

impl Resource {
    fn read(source: &mut Source<'_>, message: Range) -> Result<Self, Malformed> {
        let mut resource = Resource::default();
        let mark = source.arena.pairs_mark();
        let mut reader = source.reader(message);
        while let Some((number, wire_type)) = reader.field()? {
            match (number, wire_type) {
                (1, BYTES) => source.pair(reader.message()?)?,
                (2, VARINT) => resource.dropped_attributes = reader.varint()? as u32,
                (3, BYTES) => resource.entities.push(source.text(reader.bytes()?)),
                _ => reader.skip(wire_type)?,
            }
        }
        resource.attributes = source.pairs_since(mark)?;
        Ok(resource)
    }

    fn write(&self, arena: &Arena, out: &mut Back) {
        for entity in self.entities.iter().rev() {
            out.bytes_always(3, arena.bytes(*entity));
        }
        out.uint(2, u64::from(self.dropped_attributes));
        arena.write_map(self.attributes, 1, out);
    }

    /// Brings a resource into another arena.
    #[must_use]
    pub fn carried(&self, from: &Arena, to: &mut Arena) -> Self {
        Resource {
            attributes: to.carry_map(from, self.attributes),
            dropped_attributes: self.dropped_attributes,
            entities: self.entities.iter().map(|entity| to.carry_text(from, *entity)).collect(),
        }
    }
}

impl Scope {
    fn read(source: &mut Source<'_>, message: Range) -> Result<Self, Malformed> {
        let mut scope = Scope::default();
        let mark = source.arena.pairs_mark();
        let mut reader = source.reader(message);
        while let Some((number, wire_type)) = reader.field()? {
            match (number, wire_type) {
                (1, BYTES) => scope.name = source.text(reader.bytes()?),
                (2, BYTES) => scope.version = source.text(reader.bytes()?),
                (3, BYTES) => source.pair(reader.message()?)?,
                (4, VARINT) => scope.dropped_attributes = reader.varint()? as u32,
                _ => reader.skip(wire_type)?,
            }
        }
        scope.attributes = source.pairs_since(mark)?;
        Ok(scope)
    }

    fn write(&self, arena: &Arena, out: &mut Back) {
        out.uint(4, u64::from(self.dropped_attributes));
        arena.write_map(self.attributes, 3, out);
        out.bytes(2, arena.bytes(self.version));
        out.bytes(1, arena.bytes(self.name));
    }

    /// Brings a scope into another arena.
    #[must_use]
    pub fn carried(&self, from: &Arena, to: &mut Arena) -> Self {
        Scope {
            name: to.carry_text(from, self.name),
            version: to.carry_text(from, self.version),
            attributes: to.carry_map(from, self.attributes),
            dropped_attributes: self.dropped_attributes,
        }
    }
}

impl<'a> Source<'a> {
    pub(crate) fn text(&self, range: Range) -> Text {
        Text::received(range)
    }

    /// Reads an attribute of the record that is being read.
    pub(crate) fn pair(&mut self, message: Reader<'_>) -> Result<(), Malformed> {
        self.arena.read_pair(message, &mut self.later)
    }

    /// The attributes that were read since a mark.
    pub(crate) fn pairs_since(&mut self, mark: u32) -> Result<Map, Malformed> {
        self.arena.pairs_since(mark, &mut self.later)
    }

    /// Reads the attributes of a message that holds nothing else within, but for what `take` takes.
    pub(crate) fn attributed(
        &mut self,
        message: Range,
        attributes: u32,
        mut take: impl FnMut(u32, u32, &mut Reader<'a>) -> Result<bool, Malformed>,
    ) -> Result<Map, Malformed> {
        let mark = self.arena.pairs_mark();
        let mut reader = self.reader(message);
        while let Some((number, wire_type)) = reader.field()? {
            if (number, wire_type) == (attributes, BYTES) {
                self.pair(reader.message()?)?;
            } else if !take(number, wire_type, &mut reader)? {
                reader.skip(wire_type)?;
            }
        }
        self.pairs_since(mark)
    }
}

/// The bytes of an id to be written: none where it is unset.
pub(crate) fn id_bytes(id: &[u8]) -> &[u8] {
    if id.iter().all(|byte| *byte == 0) { b"" } else { id }
}
