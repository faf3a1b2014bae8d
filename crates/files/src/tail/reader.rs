//! What reads one file: one that grows, or one that is compressed.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::{Counts, Packing, Step, Tail, Unpack, World};
use crate::identity::Mark;
use crate::positions::Positions;

/// How compressed files are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// How they are packed.
    pub packing: Packing,
    /// How long to wait before a file is opened, in milliseconds.
    pub delay_ms: u64,
}

/// Reads one file. The methods are those of [`Tail`].
#[derive(Debug)]
pub enum Reader {
    /// It grows.
    Tail(Box<Tail>),
    /// It is compressed.
    Unpack(Box<Unpack>),
}

impl Reader {
    /// Reads the file of a name.
    pub fn new(name: Arc<str>, labels: Arc<[String]>, unpacked: Option<Unpacked>) -> Self {
        match unpacked {
            Some(Unpacked { packing, delay_ms }) => Reader::Unpack(Box::new(Unpack::new(name, packing, delay_ms))),
            None => Reader::Tail(Box::new(Tail::new(name, labels))),
        }
    }

    /// As [`Tail::poll`].
    ///
    /// # Errors
    ///
    /// Those of [`Tail::poll`].
    pub fn poll(&mut self, world: &World<'_>) -> io::Result<Step> {
        match self {
            Reader::Tail(tail) => tail.poll(world),
            Reader::Unpack(unpack) => unpack.poll(world),
        }
    }

    /// As [`Tail::settle`].
    pub fn settle(&mut self, piece: u32, mark: Mark) {
        match self {
            Reader::Tail(tail) => tail.settle(piece, mark),
            Reader::Unpack(unpack) => unpack.settle(piece, mark),
        }
    }

    /// As [`Tail::rewind`].
    pub fn rewind(&mut self) {
        match self {
            Reader::Tail(tail) => tail.rewind(),
            Reader::Unpack(unpack) => unpack.rewind(),
        }
    }

    /// As [`Tail::note`].
    pub fn note(&mut self, positions: &mut Positions, now_ms: u64) {
        match self {
            Reader::Tail(tail) => tail.note(positions, now_ms),
            Reader::Unpack(unpack) => unpack.note(positions, now_ms),
        }
    }

    /// As [`Tail::close`].
    pub fn close(self, positions: &mut Positions, now_ms: u64) {
        match self {
            Reader::Tail(tail) => tail.close(positions, now_ms),
            Reader::Unpack(unpack) => unpack.close(positions, now_ms),
        }
    }

    /// As [`Tail::size`].
    pub fn size(&self) -> u64 {
        match self {
            Reader::Tail(tail) => tail.size(),
            Reader::Unpack(unpack) => unpack.size(),
        }
    }

    /// As [`Tail::offset`].
    pub fn offset(&self) -> u64 {
        match self {
            Reader::Tail(tail) => tail.offset(),
            Reader::Unpack(unpack) => unpack.offset(),
        }
    }

    /// As [`Tail::is_open`].
    pub fn is_open(&self) -> bool {
        match self {
            Reader::Tail(tail) => tail.is_open(),
            Reader::Unpack(unpack) => unpack.is_open(),
        }
    }

    /// Whether there are files to be looked at that lost the name.
    pub fn lingers(&self) -> bool {
        match self {
            Reader::Tail(tail) => tail.lingers(),
            Reader::Unpack(_) => false,
        }
    }

    /// As [`Tail::counts`].
    pub fn counts(&self) -> Counts {
        match self {
            Reader::Tail(tail) => tail.counts(),
            Reader::Unpack(_) => Counts::default(),
        }
    }

    /// As [`Tail::is_done`].
    pub fn is_done(&self) -> bool {
        match self {
            Reader::Tail(tail) => tail.is_done(),
            Reader::Unpack(unpack) => unpack.is_done(),
        }
    }

    /// As [`Tail::file`]; nothing for a compressed one.
    pub fn file(&self, piece: u32) -> Option<&File> {
        match self {
            Reader::Tail(tail) => tail.file(piece),
            Reader::Unpack(_) => None,
        }
    }

    /// The first bytes of the file of a chunk, at most so many; none of a compressed one.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub fn first_bytes(&self, piece: u32, bytes_max: usize) -> io::Result<Vec<u8>> {
        let Some(file) = self.file(piece) else { return Ok(Vec::new()) };
        let mut first = vec![0; bytes_max];
        let read = crate::identity::read_at(file, &mut first, 0)?;
        first.truncate(read);
        Ok(first)
    }
}
