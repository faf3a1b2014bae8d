//! Targets as a component that collects from them shows them: what was found, what became of it, and how the last time went.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use corten_signal::target::Target;

/// What became of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TargetState {
    /// The last time went well.
    Up,
    /// The last time failed.
    Down,
    /// There was no time yet.
    Unknown,
    /// A rule dropped it, or it is the same as another one.
    Dropped,
    /// What was found cannot be collected from.
    Refused,
    /// It was found, and is handed on: who collects from it says how that goes.
    Found,
}

impl TargetState {
    /// All of them, in order.
    pub const ALL: [TargetState; 6] = [
        TargetState::Up,
        TargetState::Down,
        TargetState::Unknown,
        TargetState::Dropped,
        TargetState::Refused,
        TargetState::Found,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            TargetState::Up => "up",
            TargetState::Down => "down",
            TargetState::Unknown => "unknown",
            TargetState::Dropped => "dropped",
            TargetState::Refused => "refused",
            TargetState::Found => "found",
        }
    }
}

/// How it went the last time.
#[derive(Clone, Debug, Default)]
pub struct LastTime {
    /// When it began.
    pub at: Option<SystemTime>,
    /// How long it took.
    pub took: Option<Duration>,
    /// How many samples it brought.
    pub samples: Option<u64>,
    /// Why it failed; why the target was dropped or refused.
    pub error: Option<String>,
}

/// How far a target that is a file was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileProgress {
    /// Where the next line begins, in bytes; of a compressed file in bytes of what it holds.
    pub offset_bytes: u64,
    /// How large the file was when it was looked at last, in bytes as it lies on the disk.
    pub size_bytes: u64,
    /// How many bytes were written to the file and not read yet. Nothing of a compressed file: nobody knows how much it holds.
    pub behind_bytes: Option<u64>,
    /// How many lines were read since the component began with the file.
    pub lines: u64,
}

/// A rule that dropped a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedBy {
    /// The number of the rule among those of the component, from 0.
    pub index: usize,
    /// What it does: `drop`.
    pub action: String,
}

/// A target as it is shown.
pub trait ShownTarget: Send + Sync {
    /// What became of it.
    fn state(&self) -> TargetState;
    /// Where it is; empty where that is not known.
    fn url(&self) -> &str;
    /// What was found.
    fn discovered(&self) -> &Target;
    /// The labels with which it is collected from; nothing where it is not.
    fn labels(&self) -> Option<&Target>;
    /// How it went the last time.
    fn last(&self) -> LastTime {
        LastTime::default()
    }
    /// How far it was read, if it is a file that is read.
    fn file(&self) -> Option<FileProgress> {
        None
    }
    /// The rule that dropped it.
    fn dropped_by(&self) -> Option<DroppedBy> {
        None
    }
}

/// A component that has targets.
pub trait TargetView: Send + Sync {
    /// All targets as they are now. Copies handles, not labels: there may be 100,000.
    fn targets(&self) -> Vec<Arc<dyn ShownTarget>>;
}
