//! The records of a batch in groups, as messages of their own.

use std::sync::Arc;

use bytes::Bytes;
use corten_signal::labels::varint_len;

use crate::batch::{Batch, Part};
use crate::data::{Data, Record};
use crate::proto::{BYTES, Malformed, Reader, put_head};

impl<R: Record> Batch<R> {
    /// The records in so many groups, each of which is a batch without acknowledgements: to be sent to different places, for
    /// example. What is said of a resource or scope is in each group that has some of its records; what has no records is in
    /// none.
    ///
    /// `assign` is shown the content, part by part, and adds the group of each record to a list, in order. A record whose
    /// group does not exist is left out. Parts of one group stay the messages that they are.
    pub fn split(&self, groups: usize, mut assign: impl FnMut(&Data<R>, &mut Vec<u32>)) -> Vec<Batch<R>> {
        let mut batches = vec![Batch::empty(Arc::clone(&self.context)); groups];
        let mut assigned = Vec::new();
        for part in self.parts() {
            let data = part.data();
            assigned.clear();
            assign(data, &mut assigned);
            let Some(first) = assigned.first() else { continue };
            if assigned.iter().all(|group| group == first) {
                if let Some(batch) = batches.get_mut(*first as usize) {
                    batch.push(Arc::clone(part));
                }
                continue;
            }
            let mut items = vec![0; groups];
            let records = data.scopes().flat_map(|(_, of)| &of.records);
            for (record, group) in records.zip(&assigned) {
                if let Some(items) = items.get_mut(*group as usize) {
                    *items += record.items();
                }
            }
            let messages = split(part.message(), groups, &assigned);
            for ((batch, message), items) in batches.iter_mut().zip(messages).zip(items) {
                if !message.is_empty() {
                    batch.push(Part::of_message(Bytes::from(message), items));
                }
            }
        }
        batches
    }
}

/// What was written of a message for each group.
struct Level {
    of_group: Vec<Vec<u8>>,
    /// The groups that have something.
    used: Vec<u32>,
}

impl Level {
    fn new(groups: usize) -> Self {
        Level { of_group: vec![Vec::new(); groups], used: Vec::new() }
    }

    /// What there is of a group, to be written to; nothing if the group does not exist.
    fn of(&mut self, group: u32) -> Option<&mut Vec<u8>> {
        let of_group = self.of_group.get_mut(group as usize)?;
        if of_group.is_empty() {
            self.used.push(group);
        }
        Some(of_group)
    }

    /// Ends the message: each group that has something of it gets it as a field, with what is said to all of them.
    fn end(&mut self, number: u32, said: &[u8], outer: &mut Level) {
        for group in self.used.drain(..) {
            let own = &mut self.of_group[group as usize];
            if let Some(out) = outer.of(group) {
                let len = said.len() + own.len();
                out.reserve(len + 1 + varint_len(len as u64));
                put_head(out, number, len);
                out.extend_from_slice(said);
                out.extend_from_slice(own);
            }
            own.clear();
        }
    }
}

/// A message that was checked, in groups. Each of its records has a group.
fn split(message: &[u8], groups: usize, assigned: &[u32]) -> Vec<Vec<u8>> {
    let mut requests = Level::new(groups);
    let mut splitter = Splitter {
        buffer: message,
        assigned: assigned.iter(),
        resource: Level::new(groups),
        scope: Level::new(groups),
        said_of_resource: Vec::new(),
        said_of_scope: Vec::new(),
    };
    // What was checked can be read.
    let _ = splitter.request(&mut requests);
    requests.of_group
}

struct Splitter<'a> {
    buffer: &'a [u8],
    assigned: std::slice::Iter<'a, u32>,
    resource: Level,
    scope: Level,
    said_of_resource: Vec<u8>,
    said_of_scope: Vec<u8>,
}

impl<'a> Splitter<'a> {
    fn request(&mut self, out: &mut Level) -> Result<(), Malformed> {
        let mut reader = Reader::new(self.buffer, 0, self.buffer.len());
        while let Some((number, wire_type)) = reader.field()? {
            match (number, wire_type) {
                (1, BYTES) => {
                    self.resource(reader.message()?)?;
                    self.resource.end(1, &self.said_of_resource, out);
                }
                _ => reader.skip(wire_type)?,
            }
        }
        Ok(())
    }

    fn resource(&mut self, mut reader: Reader<'a>) -> Result<(), Malformed> {
        self.said_of_resource.clear();
        loop {
            let start = reader.at();
            let Some((number, wire_type)) = reader.field()? else { return Ok(()) };
            if matches!((number, wire_type), (2 | 1000, BYTES)) {
                self.scope(reader.message()?)?;
                self.scope.end(number, &self.said_of_scope, &mut self.resource);
            } else {
                reader.skip(wire_type)?;
                self.said_of_resource.extend_from_slice(&self.buffer[start..reader.at()]);
            }
        }
    }

    fn scope(&mut self, mut reader: Reader<'a>) -> Result<(), Malformed> {
        self.said_of_scope.clear();
        loop {
            let start = reader.at();
            let Some((number, wire_type)) = reader.field()? else { return Ok(()) };
            reader.skip(wire_type)?;
            let field = &self.buffer[start..reader.at()];
            if (number, wire_type) == (2, BYTES) {
                let group = self.assigned.next().copied().unwrap_or(u32::MAX);
                if let Some(out) = self.scope.of(group) {
                    out.extend_from_slice(field);
                }
            } else {
                self.said_of_scope.extend_from_slice(field);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::logs::LogRecord;

    /// Logs with so many records in each scope of each resource. A record's time is its number.
    fn logs(resources: &[Vec<usize>], wanted: impl Fn(u64) -> bool) -> Batch<LogRecord> {
        let mut data = Data::<LogRecord>::default();
        let mut number = 0;
        for (at, scopes) in resources.iter().enumerate() {
            let mut resource = crate::OfResource::default();
            resource.resource.dropped_attributes = at as u32 + 1;
            resource.schema_url = data.arena.own(b"a");
            for records in scopes {
                let mut scope = crate::OfScope::default();
                scope.scope.name = data.arena.own(b"b");
                for _ in 0..*records {
                    number += 1;
                    if wanted(number) {
                        scope.records.push(LogRecord { time_ns: number, ..LogRecord::default() });
                    }
                }
                resource.scopes.push(scope);
            }
            data.resources.push(resource);
        }
        data.prune();
        Batch::received(data.encode().into(), Arc::default()).unwrap()
    }

    fn by_time(groups: u32) -> impl FnMut(&Data<LogRecord>, &mut Vec<u32>) {
        move |data, assigned| {
            let records = data.scopes().flat_map(|(_, of)| &of.records);
            assigned.extend(records.map(|record| (record.time_ns % u64::from(groups)) as u32));
        }
    }

    proptest! {
        #[test]
        fn each_group_is_what_it_would_be_alone(
            resources in proptest::collection::vec(proptest::collection::vec(0usize..5, 0..4), 0..4),
            groups in 1u32..5,
            existing in 1usize..5,
        ) {
            let parts = logs(&resources, |_| true).split(existing, by_time(groups));
            prop_assert_eq!(parts.len(), existing);
            for (group, part) in parts.iter().enumerate() {
                let alone = logs(&resources, |number| number % u64::from(groups) == group as u64);
                prop_assert_eq!(part.to_json(), alone.to_json());
                prop_assert_eq!(part.items(), alone.items());
            }
        }

        #[test]
        fn what_is_received_is_split(bytes: Vec<u8>, assigned: Vec<u32>) {
            let _ = split(&bytes, 3, &assigned);
        }
    }

    #[test]
    fn what_is_of_one_group_stays_the_message_that_it_is() {
        let mut batch = logs(&[vec![2, 1], vec![1]], |_| true);
        batch.join(logs(&[vec![2]], |_| true));
        let parts = batch.split(3, |data, assigned| {
            assigned.resize(data.items(), if data.items() == 4 { 2 } else { 0 });
        });
        let places = |batch: &Batch<LogRecord>| batch.message().map(|piece| piece.as_ptr()).collect::<Vec<_>>();
        assert_eq!((places(&parts[2])[0], places(&parts[0])[0]), (places(&batch)[0], places(&batch)[1]));
        assert_eq!(parts.iter().map(Batch::items).collect::<Vec<_>>(), [2, 0, 4]);
    }
}
