//! The components whose names begin with `local.`: what lies on this machine's file system.

pub mod file;
pub mod file_match;

use corten_component::Definition;

/// All of them, sorted by name.
pub const COMPONENTS: &[Definition] = &[Definition::of::<file::File>(), Definition::of::<file_match::FileMatch>()];
