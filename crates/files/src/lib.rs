//! Files as configurations speak of them: patterns of paths, reading with a limit, and noticing changes.
//!
//! Families share it. It knows no component and nothing of what is in the files. What reads or walks blocks: callers are
//! off the threads that drive tasks.

pub mod glob;
mod read;
pub mod watch;

pub use glob::{Dialect, Found, Pattern, PatternError};
pub use read::read_limited;
