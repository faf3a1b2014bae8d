//! What reads one file: one that grows, or one that is compressed.

use std::io;
use std::sync::Arc;

use corten_files::identity::Mark;
use corten_files::positions::Positions;
use corten_files::tail::{Counts, Packing, Step, Tail, Unpack, World};

/// How compressed files are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unpacked {
    pub(super) packing: Packing,
    /// How long to wait before a file is opened, in milliseconds.
    pub(super) delay_ms: u64,
}

/// Reads one file. The methods are those of [`Tail`].
#[derive(Debug)]
pub(super) enum Reader {
    Tail(Box<Tail>),
    Unpack(Box<Unpack>),
}

impl Reader {
    pub(super) fn new(name: Arc<str>, labels: Arc<[String]>, unpacked: Option<Unpacked>) -> Self {
        match unpacked {
            Some(Unpacked { packing, delay_ms }) => Reader::Unpack(Box::new(Unpack::new(name, packing, delay_ms))),
            None => Reader::Tail(Box::new(Tail::new(name, labels))),
        }
    }

    pub(super) fn poll(&mut self, world: &World<'_>) -> io::Result<Step> {
        match self {
            Reader::Tail(tail) => tail.poll(world),
            Reader::Unpack(unpack) => unpack.poll(world),
        }
    }

    pub(super) fn settle(&mut self, piece: u32, mark: Mark) {
        match self {
            Reader::Tail(tail) => tail.settle(piece, mark),
            Reader::Unpack(unpack) => unpack.settle(piece, mark),
        }
    }

    pub(super) fn rewind(&mut self) {
        match self {
            Reader::Tail(tail) => tail.rewind(),
            Reader::Unpack(unpack) => unpack.rewind(),
        }
    }

    pub(super) fn note(&mut self, positions: &mut Positions, now_ms: u64) {
        match self {
            Reader::Tail(tail) => tail.note(positions, now_ms),
            Reader::Unpack(unpack) => unpack.note(positions, now_ms),
        }
    }

    pub(super) fn close(self, positions: &mut Positions, now_ms: u64) {
        match self {
            Reader::Tail(tail) => tail.close(positions, now_ms),
            Reader::Unpack(unpack) => unpack.close(positions, now_ms),
        }
    }

    pub(super) fn size(&self) -> u64 {
        match self {
            Reader::Tail(tail) => tail.size(),
            Reader::Unpack(unpack) => unpack.size(),
        }
    }

    pub(super) fn offset(&self) -> u64 {
        match self {
            Reader::Tail(tail) => tail.offset(),
            Reader::Unpack(unpack) => unpack.offset(),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        match self {
            Reader::Tail(tail) => tail.is_open(),
            Reader::Unpack(unpack) => unpack.is_open(),
        }
    }

    /// Whether there are files to be looked at that lost the name.
    pub(super) fn lingers(&self) -> bool {
        match self {
            Reader::Tail(tail) => tail.lingers(),
            Reader::Unpack(_) => false,
        }
    }

    pub(super) fn counts(&self) -> Counts {
        match self {
            Reader::Tail(tail) => tail.counts(),
            Reader::Unpack(_) => Counts::default(),
        }
    }
}
