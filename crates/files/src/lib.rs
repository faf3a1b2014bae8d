//! Files as configurations speak of them: patterns of paths, reading with a limit, noticing changes, and following files
//! that grow.
//!
//! Families share it. It knows no component and nothing of what is in the files. What reads or walks blocks: callers are
//! off the threads that drive tasks.

pub mod glob;
mod handles;
pub mod identity;
pub mod positions;
mod read;
pub mod tail;
pub mod watch;

pub use glob::{Dialect, Found, Pattern, PatternError};
pub use read::{io_error_text, read_limited};
